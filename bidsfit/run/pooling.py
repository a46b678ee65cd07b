"""Pooling of the fits of healthy participants into distributions that estimators are trained on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bidsfit import models
from bidsfit.bids.distributions import KINDS, write_distribution
from bidsfit.bids.fitted import FittedImage, converged_voxels, find_fitted, voxels
from bidsfit.bids.inputs import Folder
from bidsfit.bids.tissues import tissue_mask
from bidsfit.bids.units import REPORT_UNITS
from bidsfit.exceptions import NoInputError, UnknownNameError, UsageError
from bidsfit.files import whole_file
from bidsfit.models.signal_model import Parameter, SignalModel
from bidsfit.models.space import ParameterSpace
from bidsfit.reports.charts import Histogram, plot_histograms
from bidsfit.reports.evaluation import Axis, Density, plot_distributions
from bidsfit.simulation.distributions import Pooled, pool, usable_voxels

#: Voxels of a pool, at most; and which are taken where there are more.
MOST, SEED = 1_000_000, 0

#: Titles of the figures.
TITLES = {"healthy": "Healthy", "wm": "Healthy, white matter", "gm": "Healthy, grey matter"}


@dataclass(frozen=True)
class Pooling:
    """Fits of one model to pool: those of all images of the healthy participants."""

    space: ParameterSpace
    images: tuple[FittedImage, ...]

    @property
    def model(self) -> SignalModel:
        return self.space.model

    @property
    def participants(self) -> list[str]:
        """Sorted labels without ``sub-``."""
        return sorted({image.participant for image in self.images})


@dataclass
class _Gathered:
    """Voxels of one distribution, and their origin."""

    fits: dict[str, NDArray[np.float32]] = field(default_factory=dict)
    sources: list[str] = field(default_factory=list)
    rng: np.random.Generator = field(default_factory=lambda: np.random.default_rng(SEED))


def plan_poolings(
    output_dir: Path,
    healthy: Sequence[str],
    asked: Sequence[str],
    *,
    bounds: Mapping[str, Mapping[str, tuple[float, float]]] | None = None,
    bids_dir: Path,
) -> tuple[list[Pooling], list[str]]:
    """Poolings to do, and messages about what is left out.

    Parameters
    ----------
    healthy : sequence of str
        Labels without ``sub-``.
    asked : sequence of str
        Models named by the user; empty means all with maps.
    bounds : mapping of model to parameter to (lower, upper), optional
        In internal units.
    bids_dir : Path
        Dataset, for the suggested command.

    Raises
    ------
    UsageError, UnusableInputError
        If there is nothing to pool, or a named model cannot be pooled.
    """
    found = find_fitted(output_dir, healthy)
    poolings, left_out = [], []
    for name in asked or sorted({image.model for image in found}):
        images = tuple(image for image in found if image.model == name)
        try:
            space = ParameterSpace(models.get(name), (bounds or {}).get(name))
        except (UnknownNameError, ValueError) as error:
            if asked:
                raise UsageError(f"--model {name}: {error}") from error
            left_out.append(f"{name}: {error}")
            continue
        if not images:
            raise NoInputError(
                f"{output_dir} holds no lsq maps of the model {name} of healthy participants. Make them first: "
                f"bidsfit {bids_dir} {output_dir} participant --model {name} --estimators lsq"
            )
        missing = sorted(set(healthy) - {image.participant for image in images})
        if missing:
            left_out.append(f"{name}: {', '.join(f'sub-{label}' for label in missing)} without lsq maps")
        poolings.append(Pooling(space, images))
    if not poolings:
        raise NoInputError(
            "\n  ".join([f"{output_dir} holds no lsq maps of healthy participants that can be pooled.", *left_out])
            + f"\nMake them first: bidsfit {bids_dir} {output_dir} participant --estimators lsq"
        )
    return poolings, left_out


def pool_fits(pooling: Pooling, output_dir: Path, segmentations: Sequence[Folder], *, healthy: str) -> list[str]:
    """Write the distributions of one model, each with a figure; return messages.

    Parameters
    ----------
    segmentations : sequence of Folder
        Datasets to search for white and grey matter, before the output folder itself.
    healthy : str
        Column and value by which the participants were chosen.
    """
    model, said = pooling.model, []
    gathered = _gather(pooling, output_dir, segmentations)
    for kind, found in gathered.items():
        try:
            pooled = pool(
                pooling.space,
                found.fits,
                most=MOST,
                seed=SEED,
                origin={"Tissue": kind, "Estimator": "lsq", "Chosen": healthy},
            )
        except ValueError as error:
            said.append(f"{model.name}, {kind}: not made. {error}")
            continue
        path, kept = write_distribution(output_dir, pooled, kind, sources=found.sources, healthy=healthy)
        figure = path.with_suffix(".png")
        if not figure.exists():
            with whole_file(figure) as temporary:
                plot_pool(temporary, pooled, TITLES[kind])
        n = len(pooled.participants)
        people = f"{n} participant{'s' if n != 1 else ''}"
        said.append(f"{model.name}, {kind}: {len(pooled.samples):,} voxels of {people}: {path.name}")
        if kept is not None:
            said.append(
                f"  It differs from the distribution that was there, which is kept as {kept.name}. Maps of estimators "
                "that were trained on that one stay, and name its digest; move them away to fit with the new one."
            )
    return said


def _gather(pooling: Pooling, output_dir: Path, segmentations: Sequence[Folder]) -> dict[str, _Gathered]:
    """Voxels of every distribution whose fit ended inside the bounds; of each participant no more than a pool holds."""
    gathered: dict[str, _Gathered] = {}
    share = max(MOST // len(pooling.participants), 1)
    for participant, images in groupby(pooling.images, lambda image: image.participant):
        parts: dict[str, list[NDArray[np.float32]]] = {}
        for image in images:
            status, good = converged_voxels(image)
            masks = {"healthy": (good, "")}
            for tissue in (kind for kind in KINDS if kind != "healthy"):
                if found := tissue_mask(
                    [*segmentations, Folder("", output_dir)], image.image, status, image.status, tissue
                ):
                    masks[tissue] = (good & found[0].reshape(good.shape), found[1])
            uris = [f"bids::{path.relative_to(output_dir).as_posix()}" for path in image.paths(pooling.model)]
            for kind, (where, segmentation) in masks.items():
                parts.setdefault(kind, []).append(voxels(image, pooling.model, where))
                gathered.setdefault(kind, _Gathered()).sources += [*uris, *filter(None, [segmentation])]
        for kind, values in parts.items():
            mine = gathered[kind]
            mine.fits[f"sub-{participant}"] = usable_voxels(pooling.space, np.concatenate(values), share, mine.rng)
    return gathered


def plot_pool(path: Path, pooled: Pooled, title: str) -> None:
    """Draw the first two parameters of a pool, or the only one."""
    model = pooled.space.model
    parameters = [model[name] for name in pooled.space.names]
    limits = [tuple(pair) for pair in pooled.space.bounds.tolist()]
    if len(parameters) == 1:
        unit = REPORT_UNITS[parameters[0].unit].name
        plot_histograms(path, [Histogram(f"${parameters[0].latex}$", unit, pooled.samples[:, 0], limits[0], limits[0])])
        return

    def axis(parameter: Parameter, span: tuple[float, float]) -> Axis:
        return Axis(f"${parameter.latex}$", REPORT_UNITS[parameter.unit].name, span)

    axes = axis(parameters[0], limits[0]), axis(parameters[1], limits[1])
    plot_distributions(path, [Density(title, pooled.samples[:, :2])], axes, {})
