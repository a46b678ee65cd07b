"""Figures and tables of evaluations in a folder."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bidsfit.bids.tables import write_rows
from bidsfit.bids.units import REPORT_UNITS
from bidsfit.evaluation.experiments import Evaluation, Setting, floor, sinks
from bidsfit.models.space import ParameterSpace
from bidsfit.reports.evaluation import Axis, BiasArrows, Statistic, plot_bias, plot_statistic_maps
from bidsfit.reports.laboratory import LaboratoryFigure

#: A figure that prints, and one that scales.
SUFFIXES = (".png", ".svg")


@dataclass
class Gallery:
    """A folder of figures and tables, with their titles and captions for a page."""

    folder: Path
    figures: list[LaboratoryFigure] = field(default_factory=list)

    def draw(
        self, name: str, title: str, caption: str, plot: Callable[..., Path], *arguments: Any, **options: Any
    ) -> None:
        """Draw a figure as PNG and SVG."""
        for suffix in SUFFIXES:
            plot(self.folder / f"{name}{suffix}", *arguments, **options)
        self.figures.append(LaboratoryFigure(self.folder / f"{name}.png", title, caption))

    def table(self, name: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> Path:
        """Write a table as CSV, atomically; None becomes an empty cell."""
        path = self.folder / f"{name}.csv"
        write_rows(path, columns, ([_printed(value) for value in row] for row in rows), delimiter=",")
        return path


def _printed(value: Any) -> Any:
    if value is None:
        return ""
    return f"{value:.6g}" if isinstance(value, float | np.floating) else value


def axes_of(space: ParameterSpace) -> dict[str, Axis]:
    """Axes of figures for the parameters of a space."""
    found = {}
    for name, (low, high) in zip(space.names, space.bounds, strict=True):
        parameter = space.model[name]
        unit = REPORT_UNITS[parameter.unit]
        found[name] = Axis(f"${parameter.latex}$", unit.name, (low * unit.factor, high * unit.factor))
    return found


def draw_bias(
    gallery: Gallery,
    name: str,
    title: str,
    caption: str,
    space: ParameterSpace,
    evaluations: Mapping[str, Evaluation],
    training: Mapping[str, NDArray[np.float64] | None],
    points: Mapping[str, tuple[float, float]],
) -> None:
    """Draw the mean estimate of every truth: arrows for two parameters, maps of the bias for three."""
    axes = axes_of(space)
    if len(space.names) != 2:
        draw_maps(gallery, name, title, caption, space, evaluations, "bias", diverging=True)
        return
    panels = [
        BiasArrows(estimator, found.truth, found.mean, training.get(estimator), sinks(found.truth, found.mean, space))
        for estimator, found in evaluations.items()
    ]
    first, second = axes.values()
    gallery.draw(name, title, caption, plot_bias, panels, (first, second), points)


def draw_maps(
    gallery: Gallery,
    name: str,
    title: str,
    caption: str,
    space: ParameterSpace,
    evaluations: Mapping[str, Evaluation],
    statistic: str,
    *,
    diverging: bool = False,
    above: Sequence[Statistic] = (),
) -> None:
    """Draw a statistic ("bias", "sd", "rmse") of every estimator over the space of true parameters."""
    label = {"bias": "bias", "sd": "standard deviation", "rmse": "root mean square error"}[statistic]
    rows = list(above) + [
        Statistic(estimator, dict(zip(space.names, getattr(found, statistic).T, strict=True)))
        for estimator, found in evaluations.items()
    ]
    truth = dict(zip(space.names, next(iter(evaluations.values())).truth.T, strict=True))
    gallery.draw(name, title, caption, plot_statistic_maps, rows, truth, axes_of(space), label, diverging=diverging)


def draw_sd(gallery: Gallery, name: str, title: str, setting: Setting, evaluations: Mapping[str, Evaluation]) -> None:
    """Draw the standard deviation of every estimator, with two parameters next to the Cramér-Rao bound.

    Of three, the bound is so large in much of the space that the colours would tell nothing else.
    """
    truth = next(iter(evaluations.values())).truth
    bound = Statistic("Cramér-Rao bound", dict(zip(setting.space.names, floor(setting, truth).T, strict=True)))
    above = [] if np.isinf(setting.noise.snr) or len(setting.space.names) > 2 else [bound]
    caption = "Standard deviation over the noise at every combination of true parameters" + (
        ", beside the smallest that an estimator without bias can have. What is below it is paid for with bias."
        if above
        else "."
    )
    draw_maps(gallery, name, title, caption, setting.space, evaluations, "sd", above=above)
