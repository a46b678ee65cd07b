"""Maps of one statistic over the space of true parameters, for several estimators."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.colors import Normalize
from matplotlib.ticker import FuncFormatter
from numpy.typing import NDArray

from bidsfit.reports.canvas import (
    QUIET,
    WIDTH,
    compressed,
    page,
    robust_limits,
    save,
    say_below,
    spread_limits,
    styled,
    ticks,
)
from bidsfit.reports.comparisons import DIVERGING
from bidsfit.reports.mosaics import draw_scale
from bidsfit.reports.spaces import Axis
from bidsfit.reports.words import readable

#: Slices of the third parameter, at most.
MOST_SLICES = 4


@dataclass(frozen=True)
class Statistic:
    """One statistic of an estimator over the space of true parameters.

    Attributes
    ----------
    title : str
        Name of the estimator.
    values : mapping of str to ndarray, shape (n,)
        By parameter; may be infinite, NaN if unknown.
    """

    title: str
    values: Mapping[str, NDArray]


@dataclass(frozen=True)
class RegularPlaces:
    """Cells of true parameters in a regular grid of two of them, possibly with gaps.

    Attributes
    ----------
    columns, rows : ndarray of int, shape (n,)
        Indices of the cells.
    extent : tuple of float
        Outer edges of the grid: left, right, bottom, top.
    shape : tuple of int
    """

    columns: NDArray
    rows: NDArray
    extent: tuple[float, float, float, float]
    shape: tuple[int, int]

    @classmethod
    def of(cls, x: NDArray, y: NDArray, names: Sequence[str]) -> RegularPlaces:
        """Grid of points that are evenly spaced along both axes."""
        columns, count, left, right = _steps(x, names[0])
        rows, lines, bottom, top = _steps(y, names[1])
        return cls(columns, rows, (left, right, bottom, top), (lines, count))

    def picture(self, values: NDArray, here: NDArray) -> NDArray:
        """Values at the points ``here`` as an array of the grid's shape; NaN elsewhere."""
        picture = np.full(self.shape, np.nan)
        picture[self.rows[here], self.columns[here]] = values[here]
        return picture


def _steps(values: NDArray, name: str) -> tuple[NDArray, int, float, float]:
    """Index of each value on a regular axis, number of cells, and outer edges.

    Raises
    ------
    ValueError
        If the values are not evenly spaced.
    """
    levels = _levels(values)
    if levels.size == 1:
        return np.zeros(values.size, dtype=int), 1, float(levels[0]) - 0.5, float(levels[0]) + 0.5
    step = float(np.diff(levels).min())
    place = (values - levels[0]) / step
    if not np.allclose(place, np.rint(place), atol=0.01):
        raise ValueError(f"The values of {name!r} do not lie at regular distances.")
    count = int(np.rint(place.max())) + 1
    return np.rint(place).astype(int), count, float(levels[0] - step / 2), float(levels[-1] + step / 2)


def _levels(values: NDArray) -> NDArray:
    """Distinct values up to rounding, in ascending order."""
    ordered = np.sort(values)
    return ordered[np.diff(ordered, prepend=-np.inf) > 1e-6 * max(float(np.ptp(ordered)), 1e-300)]


@styled
def plot_statistic_maps(
    path: Path | str,
    rows: Sequence[Statistic],
    truth: Mapping[str, NDArray],
    axes: Mapping[str, Axis],
    label: str,
    *,
    diverging: bool = False,
) -> Path:
    """Maps of one statistic of every parameter and estimator over the space of true parameters.

    With two parameters, there is a row for each parameter and a column for each estimator. With three, the space is cut
    into at most four slices of the third, and each estimator has a row of slices, two estimators side by side. All
    estimators have the same colour scale. Infinite values have the last colour; unknown ones are white.

    Parameters
    ----------
    path : path
        ``.png`` or ``.svg``.
    rows : sequence of Statistic
        One for each estimator.
    truth : mapping of str to ndarray, shape (n,)
        Two or three parameters; the first two form a regular grid, possibly with gaps (such as a simplex).
    axes : mapping of str to Axis
        Axes of the same parameters in the same order.
    label : str
        Name of the statistic, such as "standard deviation".
    diverging : bool
        Whether the statistic has a sign; its colour scale is then symmetric around zero.
    """
    places = _check(rows, truth, axes)
    names = list(truth)
    grid = RegularPlaces.of(places[0], places[1], names)
    cuts = [(np.full(places.shape[1], True), "")]  # the points of each map, and which slice they are
    if len(names) == 3:
        cuts = list(_cuts(places[2], axes[names[2]]))
    abreast = len(rows) if len(names) == 2 else min(len(rows), 2)
    lines, columns = -(-len(rows) // abreast), abreast * len(cuts)
    size = min((WIDTH - 1.7) / columns, 2.1 if len(names) == 2 else 1.5)
    letters = max(int(13 * size), 6)
    titles = [textwrap.fill(row.title, letters * len(cuts)) for row in rows]
    words = textwrap.fill(label, letters * lines)
    height = lines * (size + 0.2) + 0.5 if len(names) == 3 else size + 0.5
    above = 0.17 * max(title.count("\n") for title in titles)
    figure = page(len(names) * height + above, max(columns * size + 1.7, 4.4), compressed())
    panels = figure.subplots(len(names) * lines, columns, squeeze=False, subplot_kw={"box_aspect": 1})
    for name, block in zip(names, np.split(panels, len(names)), strict=True):
        values = np.array([np.asarray(row.values[name], dtype=float) for row in rows])
        limits = _limits(values, diverging)
        cells = block.reshape(-1, len(cuts))
        for k, (row, cell) in enumerate(zip(values, cells, strict=False)):
            bottom = k + abreast >= len(rows) and (len(names) == 3 or name == names[-1])
            for panel, (here, where) in zip(cell, cuts, strict=True):
                image = _show(panel, grid.picture(row, here), grid, limits, diverging)
                left = panel is cell[0] and (len(cuts) > 1 or k == 0)
                _name_axes(panel, list(axes.values()), left=left, bottom=bottom, few=size < 1.4)
                if where and k < abreast:
                    panel.set_title(f"{where}\n", loc="center", fontsize=8, color=QUIET)
            if len(names) == 3 or name == names[0]:
                cell[0].set_title(titles[k], fontsize=9.5 if size > 1.4 else 8.5)
        for empty in cells[len(rows) :].flat:
            empty.remove()
        scale = draw_scale(figure, image, values[~np.isnan(values)], ax=[*cells[: len(rows)].flat], pad=0.01)
        scale.set_label(f"{words}\nof {axes[name].words}", fontsize=8)
    say_below(figure, _remark(rows))
    return save(figure, path)


def _check(rows: Sequence[Statistic], truth: Mapping[str, NDArray], axes: Mapping[str, Axis]) -> NDArray:
    """Check the arguments, and return the true parameters, shape (p, n)."""
    if list(truth) != list(axes) or len(truth) not in (2, 3):
        raise ValueError(f"Maps are over 2 or 3 parameters with an axis each, not {list(truth)} with {list(axes)}.")
    if not rows:
        raise ValueError("There is no estimator to draw maps of.")
    lengths = {np.shape(values) for values in truth.values()}
    if len(lengths) > 1 or len(next(iter(lengths))) != 1 or next(iter(lengths))[0] == 0:
        raise ValueError(f"True parameters must be of one length, not empty; their shapes are {sorted(lengths)}.")
    places = np.array([np.asarray(values, dtype=float) for values in truth.values()])
    if not np.isfinite(places).all():
        raise ValueError("True parameters must be finite.")
    for row in rows:
        for name in truth:
            if name not in row.values or np.shape(row.values[name]) != places[0].shape:
                raise ValueError(f"{row.title!r} must have {places.shape[1]} values of {name!r}, one for each truth.")
    return places


def _limits(values: NDArray, diverging: bool) -> tuple[float, float]:
    """Display range for all estimators: symmetric around zero if diverging, else from zero; without extremes."""
    finite = values[np.isfinite(values)]
    if diverging:
        end = spread_limits(np.abs(finite))[1]
        return -end, end
    return robust_limits(finite) if finite.size and finite.min() < 0 else spread_limits(finite)


def _cuts(third: NDArray, axis: Axis) -> Iterator[tuple[NDArray, str]]:
    """Points of each slice, and its position in words."""
    levels = _levels(third)
    count = min(MOST_SLICES, levels.size)
    for level in levels[np.rint(np.linspace(0, levels.size - 1, count)).astype(int)]:
        words = f"{axis.label} = {level:.3g}".replace("-", "\N{MINUS SIGN}")  # its unit is beside the colours
        yield np.isclose(third, level, rtol=1e-6, atol=1e-6 * max(float(np.ptp(third)), 1e-300)), words


def _show(panel: Any, values: NDArray, grid: RegularPlaces, limits: tuple[float, float], diverging: bool) -> Any:
    """Draw one map; infinite values lie beyond the end of the colour scale."""
    ends = np.nan_to_num(values, nan=np.nan, posinf=10 * abs(limits[1]) + 1, neginf=-10 * abs(limits[1]) - 1)
    return panel.imshow(
        np.ma.masked_invalid(ends),
        DIVERGING if diverging else "viridis",
        Normalize(*limits),
        extent=grid.extent,
        origin="lower",
        aspect="auto",
        interpolation="nearest",
    )


def _name_axes(panel: Any, axes: Sequence[Axis], *, left: bool, bottom: bool, few: bool) -> None:
    """Set round tick labels, and axis labels at the outer sides."""
    for side, most in ((panel.xaxis, 2), (panel.yaxis, 3)):
        side.set_major_locator(ticks(most if few else 4))
        side.set_major_formatter(FuncFormatter(lambda value, _: readable(value)))
    panel.tick_params(labelleft=left, labelbottom=bottom, length=2.5)
    if bottom:
        panel.set_xlabel(axes[0].words)
    if left:
        panel.set_ylabel(axes[1].words)


def _remark(rows: Sequence[Statistic]) -> str:
    """Explanation of infinite and unknown values, if there are any."""
    values = np.concatenate([np.ravel(np.asarray(each, dtype=float)) for row in rows for each in row.values.values()])
    words = ["Infinite values take the last colour."] if np.isinf(values).any() else []
    return "  ".join([*words, "White inside a map: not known."] if np.isnan(values).any() else words)
