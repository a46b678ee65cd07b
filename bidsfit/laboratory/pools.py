"""Pools of fits of simulated healthy participants, and of real ones if a dataset is given."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bidsfit import models
from bidsfit.acquisition import Acquisition
from bidsfit.bids.acquisitions import read_acquisition
from bidsfit.bids.images import MaskedSignals, image_shape, open_image, read_mask
from bidsfit.bids.inputs import find_images, open_dataset
from bidsfit.bids.names import participant_labels
from bidsfit.estimators.estimator import INSIDE, Status
from bidsfit.estimators.least_squares import LeastSquares
from bidsfit.laboratory.results import Arrays, Results
from bidsfit.models.space import ParameterSpace
from bidsfit.phantom.cohort import Cohort
from bidsfit.phantom.tissue import RECIPES, TISSUES
from bidsfit.simulation.distributions import Distribution, pool

#: Voxels of a pool, at most.
MOST = 400_000
#: Pools, and the tissue whose voxels they hold.
POOLS = {"healthy": "brain", "wm": "WM", "gm": "GM"}


@dataclass(frozen=True)
class SimulatedPools(Mapping[tuple[str, str], Distribution]):
    """Pools of least-squares fits of healthy participants by model and tissue ("healthy", "wm" or "gm").

    They are fitted when first asked for; fits of simulated participants are kept in a folder.

    Parameters
    ----------
    results : Results
        Keeps the fits.
    model_names : tuple of str
        Models of simulation and fits.
    participants, shape, snr, seed
        Settings of the simulated study.
    real : Path, optional
        A BIDS dataset with masks in its ``derivatives``. Participants whose protocol supports the model join the pool
        of the whole brain, but not those of tissues.
    at_bounds : bool
        Whether fits with a parameter at its bound are pooled.
    """

    results: Results
    model_names: tuple[str, ...]
    participants: int
    shape: tuple[int, int, int]
    snr: float = 25.0
    seed: int = 0
    threads: int = 1
    real: Path | None = None
    at_bounds: bool = False

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return ((model, name) for model in self.model_names for name in POOLS)

    def __len__(self) -> int:
        return len(self.model_names) * len(POOLS)

    def __getitem__(self, key: tuple[str, str]) -> Distribution:
        model, name = key
        if model not in self.model_names or name not in POOLS:
            raise KeyError(key)
        space = ParameterSpace(models.get(model))
        found = self.results.obtain(f"pool_{model}", self._facts(model), lambda: self._fits(space))
        usable = [*INSIDE, Status.AT_BOUND] if self.at_bounds else INSIDE
        kept = np.isin(found["status"], usable)
        kept &= (name == "healthy") | (found["tissue"] == TISSUES.get(POOLS[name], 0))
        fits = {
            f"phantom-{i + 1:02d}": found["fits"][kept & (found["participant"] == i)] for i in range(self.participants)
        }
        origin = {"Estimator": "lsq", "SNR": self.snr, "Simulated": f"bidsfit-lab phantom, seed {self.seed}"}
        if self.real is not None and name == "healthy":
            for participant, signals, acquisition in _real(self.real, space):
                values, status = self._fitted(space, signals, acquisition)
                fits[participant] = values[np.isin(status, usable)]
            origin["Real"] = self.real.name
        origin |= {"Tissue": POOLS[name], "AtBounds": self.at_bounds}
        return pool(space, fits, most=MOST, seed=self.seed, origin=origin)

    def _facts(self, model: str) -> dict[str, Any]:
        numbers = {"Participants": self.participants, "Shape": self.shape, "SNR": self.snr, "Seed": self.seed}
        return {"Model": model, **numbers, "Tissues": RECIPES[model].tissues}

    def _fits(self, space: ParameterSpace) -> Arrays:
        """Fits of all simulated participants, with their status, tissue and participant (from 0)."""
        cohort = Cohort(
            space.model.name,
            n_healthy=self.participants,
            n_patients=0,
            shape=self.shape,
            snr=self.snr,
            noise="gaussian",
            seed=self.seed,
        )
        parts = []
        for i, participant in enumerate(cohort.participants()):
            mask = participant.head.mask
            signals = cohort.scan(participant, 1)[mask].astype(float)
            fits, status = self._fitted(space, signals, cohort.acquisition)
            parts.append((fits, status, participant.head.tissue[mask], np.full(len(fits), i)))
        names = ("fits", "status", "tissue", "participant")
        return {name: np.concatenate(arrays) for name, arrays in zip(names, zip(*parts, strict=True), strict=True)}

    def _fitted(
        self, space: ParameterSpace, signals: NDArray[np.float64], acquisition: Acquisition
    ) -> tuple[NDArray[np.float64], NDArray[np.uint8]]:
        """Fitted parameters, shape (n, n_parameters), and status."""
        found = LeastSquares(space.model, s0="measured").estimate(signals, acquisition, threads=self.threads)
        return np.stack([found.parameters[name] for name in space.names], axis=1), found.status


def _real(root: Path, space: ParameterSpace) -> Iterator[tuple[str, NDArray[np.float64], Acquisition]]:
    """Signals in the masks of the images of a dataset that support a model."""
    raw = open_dataset(root, "raw", derivative=False)
    folders: Iterable[Path] = sorted((root / "derivatives").glob("*/dataset_description.json"))
    derivatives = [open_dataset(path.parent, path.parent.name, derivative=True) for path in folders]
    for image in find_images(raw, derivatives, participant_labels(root)).images:
        acquisition = read_acquisition(image.bval, image.bvec, image.sidecar)
        if image.mask is None or not space.model.support(acquisition):
            continue
        opened = open_image(image.path)
        mask = read_mask(image.mask, opened, image.path)
        signals = MaskedSignals(opened, image_shape(opened, len(acquisition), image.path), mask, image.path)
        yield f"{root.name}-{image.participant}", np.asarray(signals[slice(None)], dtype=float), acquisition
