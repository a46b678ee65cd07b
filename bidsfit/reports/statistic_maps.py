"""Maps of one statistic over the space of true parameters, for several estimators."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter
from numpy.typing import NDArray

from bidsfit.reports.canvas import INK, QUIET, WIDTH, inches, page, robust_limits, save, spread_limits, styled, ticks
from bidsfit.reports.comparisons import DIVERGING
from bidsfit.reports.mosaics import beside, draw_scale
from bidsfit.reports.spaces import Axis
from bidsfit.reports.words import readable

NamedAxes = Sequence[tuple[str, Axis]]

#: Slices of the third parameter, at most.
MOST_SLICES = 4

#: Inches: margins, colour bar with its words, spaces between maps, blocks and rows, heights of headings.
LEFT, BAR, GAP, BETWEEN, LINE, HEADING, FOOT, LARGEST = 0.68, 1.12, 0.1, 0.22, 0.2, 0.3, 0.52, 2.0
#: Inches: the line that explains what has no finite value.
REMARK = 0.2


@dataclass(frozen=True)
class Statistic:
    """One statistic of an estimator over the space of true parameters.

    Attributes
    ----------
    title : str
        Of the estimator.
    values : mapping of str to ndarray, shape (n,)
        By parameter; infinite where it has no limit, NaN where it is not known.
    """

    title: str
    values: Mapping[str, NDArray]


@dataclass(frozen=True)
class RegularPlaces:
    """Places of the true parameters in a regular grid of two of them, possibly with gaps.

    Attributes
    ----------
    columns, rows : ndarray of int, shape (n,)
    extent : tuple of float
        Outer edges of the cells: left, right, bottom, top.
    shape : tuple of int
    """

    columns: NDArray
    rows: NDArray
    extent: tuple[float, float, float, float]
    shape: tuple[int, int]

    @classmethod
    def of(cls, x: NDArray, y: NDArray, names: Sequence[str]) -> RegularPlaces:
        """Of points at regular distances along both axes."""
        columns, count, left, right = _steps(x, names[0])
        rows, lines, bottom, top = _steps(y, names[1])
        return cls(columns, rows, (left, right, bottom, top), (lines, count))

    def picture(self, values: NDArray, here: NDArray) -> NDArray:
        """Values at some of the points, as a picture; NaN where there is no point."""
        picture = np.full(self.shape, np.nan)
        picture[self.rows[here], self.columns[here]] = values[here]
        return picture


def _steps(values: NDArray, name: str) -> tuple[NDArray, int, float, float]:
    """Index of each value on a regular axis, its number of cells, and the edges of the outer cells."""
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
    """Distinct values; those that differ by rounding are one."""
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
    """Maps of one statistic of every parameter, by every estimator, over the space of true parameters.

    With two parameters, there is a row for each parameter and a column for each estimator. With three, the third is
    cut into slices, at most four, and every estimator has a row of them, two estimators side by side. All
    estimators share a colour scale. What is infinite takes the last colour, what is not known is white.

    Parameters
    ----------
    path : path
        ``.png`` or ``.svg``.
    rows : sequence of Statistic
        One for each estimator.
    truth : mapping of str to ndarray, shape (n,)
        Two or three parameters, the first two on a regular grid that may have gaps, such as a simplex.
    axes : mapping of str to Axis
        The same parameters in the same order.
    label : str
        What the statistic is, such as "standard deviation".
    diverging : bool
        Colours around zero, for a statistic that has a sign.
    """
    places = _check(rows, truth, axes)
    names = list(truth)
    grid = RegularPlaces.of(places[0], places[1], names)
    draw = _draw_pair if len(names) == 2 else _draw_slices
    return save(draw(rows, places, grid, list(axes.items()), label, diverging), path)


def _check(rows: Sequence[Statistic], truth: Mapping[str, NDArray], axes: Mapping[str, Axis]) -> NDArray:
    """The true parameters, shape (p, n)."""
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
    """Display range of all estimators: from zero, or around it, to what few exceed."""
    finite = values[np.isfinite(values)]
    if diverging:
        end = spread_limits(np.abs(finite))[1]
        return -end, end
    return robust_limits(finite) if finite.size and finite.min() < 0 else spread_limits(finite)


def _draw_pair(
    rows: Sequence[Statistic],
    places: NDArray,
    grid: RegularPlaces,
    axes: NamedAxes,
    label: str,
    diverging: bool,
) -> Figure:
    """Two parameters: a row for each, a column for each estimator."""
    size = min((WIDTH - LEFT - BAR - (len(rows) - 1) * GAP) / len(rows), LARGEST)
    titles = [textwrap.fill(row.title, max(int(size * 13), 6)) for row in rows]
    heading = 0.12 + 0.16 * max(title.count("\n") + 1 for title in titles)
    right = LEFT + len(rows) * (size + GAP) - GAP
    remark = _remark(rows)
    figure = page(heading + 2 * (size + GAP) + FOOT - 0.04 + (REMARK if remark else 0), max(right + BAR, 4.0))
    everywhere = np.ones(places.shape[1], dtype=bool)
    for line, (name, axis) in enumerate(axes):
        values = np.array([np.asarray(row.values[name], dtype=float) for row in rows])
        limits = _limits(values, diverging)
        top = heading + line * (size + GAP)
        for column, row in enumerate(values):
            panel = inches(figure, LEFT + column * (size + GAP), top, size, size)
            image = _show(panel, grid.picture(row, everywhere), grid, limits, diverging)
            _name_axes(panel, axes, left=column == 0, bottom=line == 1, few=size < 1.3)
            if line == 0:
                panel.set_title(titles[column], pad=4, fontsize=9.5 if size > 1.3 else 8.5)
        words = textwrap.fill(label, max(int(size * 13), 6))
        _draw_bar(figure, image, values, limits, (right, top, size), f"{words}\nof {axis.words}")
    _say_below(figure, remark)
    return figure


def _draw_slices(
    rows: Sequence[Statistic],
    places: NDArray,
    grid: RegularPlaces,
    axes: NamedAxes,
    label: str,
    diverging: bool,
) -> Figure:
    """Three parameters: for each a block of estimators, which are rows of slices of the third parameter."""
    levels = _levels(places[2])
    count = min(MOST_SLICES, levels.size)
    levels = levels[np.rint(np.linspace(0, levels.size - 1, count)).astype(int)]
    abreast = min(len(rows), 2)
    lines = -(-len(rows) // abreast)
    size = min((WIDTH - LEFT - BAR - BETWEEN) / (2 * MOST_SLICES) - GAP, 1.3)
    if abreast == 1:
        size = 1.3
    block = count * (size + GAP) - GAP
    right = LEFT + abreast * (block + BETWEEN) - BETWEEN
    line_height = LINE + size + GAP
    height = HEADING + LINE + lines * line_height + FOOT
    remark = _remark(rows)
    figure = page(len(axes) * height + (REMARK if remark else 0), max(right + BAR, 4.5))
    width, total = figure.get_size_inches()
    for i, (name, axis) in enumerate(axes):
        values = np.array([np.asarray(row.values[name], dtype=float) for row in rows])
        limits = _limits(values, diverging)
        figure.text(0.1 / width, 1 - (i * height + 0.08) / total, f"{label} of {axis.words}", fontsize=10.5, va="top")
        for k, row in enumerate(rows):
            line, column = divmod(k, abreast)
            left, top = LEFT + column * (block + BETWEEN), i * height + HEADING + LINE + line * line_height + LINE
            figure.text(left / width, 1 - (top - 0.05) / total, row.title, fontsize=9, va="bottom")
            for s, (here, where) in enumerate(_cuts(places[2], levels, axes[2][1])):
                panel = inches(figure, left + s * (size + GAP), top, size, size)
                image = _show(panel, grid.picture(values[k], here), grid, limits, diverging)
                _name_axes(panel, axes[:2], left=column == 0 and s == 0, bottom=k + abreast >= len(rows), few=True)
                if line == 0:
                    above = panel.annotate(where, (0.5, 1), (0, 15), "axes fraction", "offset points", ha="center")
                    above.set(color=QUIET, fontsize=8, va="bottom")
        top = i * height + HEADING + 2 * LINE
        _draw_bar(figure, image, values, limits, (right, top, min(lines * line_height - LINE - GAP, 2.4)), "")
    _say_below(figure, remark)
    return figure


def _cuts(third: NDArray, levels: NDArray, axis: Axis) -> Iterator[tuple[NDArray, str]]:
    """Points of each slice, and where it lies in words."""
    for level in levels:
        unit = f" {axis.unit}" if axis.unit else ""
        words = f"{axis.label} = {level:.3g}{unit}".replace("-", "\N{MINUS SIGN}")
        yield np.isclose(third, level, rtol=1e-6, atol=1e-6 * max(float(np.ptp(third)), 1e-300)), words


def _show(panel: Any, values: NDArray, grid: RegularPlaces, limits: tuple[float, float], diverging: bool) -> Any:
    """One map; what is infinite lies beyond the last colour."""
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


def _name_axes(panel: Any, axes: NamedAxes, *, left: bool, bottom: bool, few: bool) -> None:
    """Names at the outer sides, round numbers on each axis."""
    for side, most in ((panel.xaxis, 2), (panel.yaxis, 3)):
        side.set_major_locator(ticks(most if few else 4))
        side.set_major_formatter(FuncFormatter(lambda value, _: readable(value)))
    panel.tick_params(labelleft=left, labelbottom=bottom, length=2.5)
    if bottom:
        panel.set_xlabel(axes[0][1].words)
    if left:
        panel.set_ylabel(axes[1][1].words)
        panel.yaxis.set_label_coords(-0.44 / (panel.get_position().width * panel.figure.get_size_inches()[0]), 0.5)


def _remark(rows: Sequence[Statistic]) -> str:
    """Explanation of what is not finite, where there is any."""
    values = np.concatenate([np.ravel(np.asarray(each, dtype=float)) for row in rows for each in row.values.values()])
    words = ["Infinite values take the last colour."] if np.isinf(values).any() else []
    return "  ".join([*words, "White inside a map: not known."] if np.isnan(values).any() else words)


def _say_below(figure: Figure, words: str) -> None:
    width, height = figure.get_size_inches()
    figure.text(0.1 / width, 0.07 / height, words, color=QUIET, fontsize=8)


def _draw_bar(
    figure: Figure,
    image: Any,
    values: NDArray,
    limits: tuple[float, float],
    place: tuple[float, float, float],
    words: str,
) -> None:
    """Colour bar at the right edge of maps, from their top, with its words upright beside it."""
    right, top, height = place
    draw_scale(figure, image, values[~np.isnan(values)], cax=beside(figure, right, top, height))
    width, total = figure.get_size_inches()
    x, y = (right + BAR - 0.26) / width, 1 - (top + height / 2) / total
    figure.text(x, y, words, rotation=90, ha="center", va="center", fontsize=8, color=INK, linespacing=1.2)
