"""Figures that show estimators side by side: the same parameter, the same slices, the same colours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter
from numpy.typing import NDArray

from bidsfit.reports.canvas import (
    INK,
    QUIET,
    WIDTH,
    inches,
    note,
    page,
    robust_limits,
    save,
    spread_limits,
    styled,
    ticks,
)
from bidsfit.reports.charts import scale_signal, scale_x, stretched_below
from bidsfit.reports.mosaics import Panel, colours_in_words, draw_scale, draw_slices
from bidsfit.reports.slices import Slices
from bidsfit.reports.tiles import BAR, FOOT, GAP, LABEL, LEFT, NARROWEST_PAGE, RIGHT, draw_foot, row_of_tiles, say_where
from bidsfit.reports.words import readable

#: Colours of estimators in plots of lines (Okabe and Ito's, told apart by the colour-blind), the first one's first.
ESTIMATORS = (INK, "#d55e00", "#0072b2", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")

#: Inches: between estimators, heights of a heading and of words below tiles, and how large tiles are.
BETWEEN, HEADING, WORDS, SMALLEST, LARGEST = 0.16, 0.26, 0.42, 1.05, 2.4
#: Slices of one estimator, at most.
MOST = 4
#: Differences: no difference is white.
DIVERGING = "RdBu_r"


def estimator_colour(index: int) -> str:
    """Colour of the estimator of that place, in figures and tables."""
    return ESTIMATORS[index % len(ESTIMATORS)]


@dataclass(frozen=True)
class EstimatorMap:
    """One estimator's map of a parameter.

    Attributes
    ----------
    name : str
    data : ndarray, shape (x, y, z)
    words : str
        Below its map, such as its median; two lines.
    difference_words : str
        Below its difference from the first, two lines; empty for the first.
    alike : bool
        The difference from the first is negligible beside the noise, and not drawn.
    """

    name: str
    data: NDArray
    words: str
    difference_words: str = ""
    alike: bool = False


@dataclass(frozen=True)
class Decay:
    """Signal of one voxel, and the curve that each estimator puts through it.

    Attributes
    ----------
    title : str
    x, signal : ndarray, shape (n,)
        What was varied, and what was measured there.
    fitted_x : ndarray, shape (m,)
    fitted : sequence of ndarray, shape (m,)
        One for each estimator.
    words : sequence of str
        What each found, one line.
    x_label : str
        Name and unit of ``x``.
    """

    title: str
    x: NDArray
    signal: NDArray
    fitted_x: NDArray
    fitted: Sequence[NDArray]
    words: Sequence[str]
    x_label: str


@dataclass(frozen=True)
class ComparisonLayout:
    """Places of the tiles: a column of slices for each estimator, maps above differences."""

    slices: Slices
    n_columns: int
    tile: tuple[float, float]

    @classmethod
    def around(cls, mask: NDArray, affine: NDArray, n_columns: int) -> ComparisonLayout:
        """As many slices for each estimator as leaves the tiles large enough; one at least."""
        for count in range(MOST, 0, -1):
            slices = Slices.around(mask, affine, count=count)
            shared = LEFT + RIGHT + BAR + (n_columns - 1) * BETWEEN + n_columns * (len(slices) - 1) * GAP
            ratio = slices.size[1] / slices.size[0]
            width = min((WIDTH - shared) / (n_columns * len(slices)), LARGEST, LARGEST / ratio)
            grid = cls(slices, n_columns, (width, width * ratio))
            if width >= SMALLEST:
                break
        return grid

    @property
    def column_width(self) -> float:
        return len(self.slices) * (self.tile[0] + GAP) - GAP

    def left(self, column: int) -> float:
        return LEFT + column * (self.column_width + BETWEEN)

    @property
    def right(self) -> float:
        """Where the last tile ends."""
        return self.left(self.n_columns - 1) + self.column_width

    @property
    def width(self) -> float:
        return max(self.right + BAR + RIGHT, NARROWEST_PAGE)

    def top(self, row: int) -> float:
        return HEADING + LABEL + row * (self.tile[1] + WORDS + HEADING)

    @property
    def height(self) -> float:
        return self.top(2) - HEADING - LABEL + FOOT + 0.1


@styled
def plot_comparison(
    path: Path | str,
    columns: Sequence[EstimatorMap],
    mask: NDArray,
    affine: NDArray,
    unit: str = "",
    limits: tuple[float, float] | None = None,
) -> Path:
    """One parameter by every estimator, and below how each differs from the first.

    All maps share a colour scale, and all differences one that is symmetric around zero. Below the first map, where
    there is no difference to show, are the distributions of all. Maps that do not differ, or by nothing but rounding,
    are said to be so.

    Parameters
    ----------
    path : path
    columns : sequence of EstimatorMap
        Two or more.
    mask : ndarray of bool, shape (x, y, z)
    affine : ndarray, shape (4, 4)
    unit : str
    limits : tuple of float, optional
        Display range of the maps; from the data where it is None.
    """
    mask = np.asarray(mask, dtype=bool)
    grid = ComparisonLayout.around(mask, affine, len(columns))
    figure = page(grid.height, grid.width)
    maps = [np.where(mask, np.asarray(column.data, dtype=float), np.nan) for column in columns]
    inside = np.stack([volume[mask] for volume in maps])
    shown = limits if limits is not None else robust_limits(inside)
    differing = [i for i, column in enumerate(columns) if i > 0 and not column.alike]
    apart = inside[differing] - inside[0]
    extent = spread_limits(np.abs(apart), shown[1] - shown[0])[1]
    difference: Any = None

    for i, (column, volume) in enumerate(zip(columns, maps, strict=True)):
        panel = Panel(volume, column.name, limits=shown)
        picture = _draw_column(figure, grid, (0, i), panel, mask, column.words, estimator_colour(i))
        if i > 0:
            title = f"{column.name} \N{MINUS SIGN} {columns[0].name}"
            panel = Panel(volume - maps[0], title, limits=(-extent, extent), cmap=DIVERGING)
            if np.array_equal(inside[i], inside[0], equal_nan=True):
                _say(figure, grid.left(i), grid.top(1) - 0.2, f"{title}: no difference in any voxel", INK, 10)
                continue
            if column.alike:
                _say(figure, grid.left(i), grid.top(1) - 0.2, f"{title}: far less than the noise", INK, 10)
                _say(figure, grid.left(i), grid.top(1) + 0.05, column.difference_words)
                continue
            difference = _draw_column(figure, grid, (1, i), panel, mask, column.difference_words)
    _draw_distributions(figure, grid, inside, shown, unit)
    for row, drawn, values, span in ((0, picture, inside, shown), (1, difference, apart, (-extent, extent))):
        finite = values[np.isfinite(values)]
        if finite.size and drawn is not None:
            draw_scale(figure, drawn, finite, span, grid.right, grid.top(row), grid.tile[1])
            _say(figure, grid.right + 0.05, grid.top(row) + grid.tile[1] + 0.04, unit)
    draw_foot(figure, grid.slices, grid.tile, grid.height - FOOT + 0.05, colours_in_words(maps, mask))
    return save(figure, path)


def _draw_column(
    figure: Figure,
    grid: ComparisonLayout,
    place: tuple[int, int],
    panel: Panel,
    mask: NDArray,
    words: str,
    colour: str = "",
) -> Any:
    """Slices of one map, at a row and column of the grid, between its title and its words."""
    row, column = place
    left, top = grid.left(column), grid.top(row)
    tiles = row_of_tiles(figure, grid.slices, left, top, grid.tile)
    _say(figure, left, top + grid.tile[1] + 0.04, words)
    if row == 0:
        say_where(tiles, grid.slices)
        top -= LABEL
    if colour:
        _say(figure, left, top - 0.2, "\N{BLACK SQUARE}", colour=colour, size=10)
        left += 0.17
    _say(figure, left, top - 0.2, panel.title, colour=INK, size=10)
    return draw_slices(tiles, grid.slices, panel.data, mask, panel.limits or (0.0, 1.0), panel.cmap)


def _say(figure: Figure, left: float, top: float, words: str, colour: str = QUIET, size: float = 8) -> None:
    """Words at a place given in inches from the upper left corner."""
    width, height = figure.get_size_inches()
    figure.text(left / width, 1 - top / height, words, color=colour, fontsize=size, va="top")


def _draw_distributions(
    figure: Figure, grid: ComparisonLayout, values: NDArray, limits: tuple[float, float], unit: str
) -> None:
    """Outlined histograms of all estimators over one another; what lies beyond the range is in the last bins."""
    left, top = grid.left(0), grid.top(1)
    _say(figure, left, top - 0.2, f"distributions{f' ({unit})' if unit else ''}", colour=INK, size=10)
    axes = inches(figure, left + 0.05, top, grid.column_width - 0.1, grid.tile[1] - 0.1)
    edges = np.linspace(*limits, 49)
    for i, row in list(enumerate(values))[::-1]:
        counts, _ = np.histogram(np.clip(row[np.isfinite(row)], *limits), bins=edges)
        axes.stairs(counts, edges, color=estimator_colour(i), linewidth=1.6 if i == 0 else 1.2)
    axes.set(xlim=limits, yticks=[])
    axes.set_ylim(bottom=0)
    axes.spines["left"].set_visible(False)
    axes.xaxis.set_major_locator(ticks(4))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: readable(value)))
    if not np.isfinite(values).any():
        note(axes, 0.5, 0.5, "no finite value", "center", "center")


@styled
def plot_decays(path: Path | str, voxels: Sequence[Decay]) -> Path:
    """Curves of all estimators over one another in a few voxels, and below the parameters that each found.

    Parameters
    ----------
    path : path
    voxels : sequence of Decay
    """
    columns = min(len(voxels), 3)
    cell, line = WIDTH / 3, 0.18
    height = 2.85 + line * len(voxels[0].fitted)
    figure = page(-(-len(voxels) // columns) * height, columns * cell)
    step = stretched_below(np.concatenate([voxel.x for voxel in voxels]))
    for i, voxel in enumerate(voxels):
        row, column = divmod(i, columns)
        left, top = column * cell + 0.68, row * height + 0.3
        axes = inches(figure, left, top, cell - 0.8, 1.8)
        axes.set_title(voxel.title, fontsize=9)
        for k, fitted in enumerate(voxel.fitted):
            colour = estimator_colour(k)
            dashes = (3 * k, (5, 3)) if k else "solid"  # over the first, which shows in the gaps
            axes.plot(voxel.fitted_x, fitted, color=colour, linewidth=1.5, linestyle=dashes)
            place = top + 2.36 + line * k
            _say(figure, left - 0.25, place, "\N{BLACK SQUARE}", colour)
            _say(figure, left - 0.1, place, voxel.words[k], INK)
        axes.plot(voxel.x, voxel.signal, "o", color=INK, markersize=4, markerfacecolor="white", zorder=3)
        scale_signal(axes, np.concatenate([voxel.signal, *voxel.fitted]))
        scale_x(axes, float(max(voxel.x.max(), voxel.fitted_x.max())), step)
        axes.set_xlabel(voxel.x_label)
        axes.set_ylabel("signal" if column == 0 else "")
    return save(figure, path)
