"""Comparison of estimators: maps of a parameter, and fitted curves, with the same slices and scales."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.ticker import FuncFormatter
from numpy.typing import NDArray

from bidsfit.reports.canvas import (
    INK,
    QUIET,
    WIDTH,
    note,
    page_of_cells,
    robust_limits,
    save,
    spread_limits,
    styled,
    ticks,
)
from bidsfit.reports.charts import scale_signal, scale_x
from bidsfit.reports.mosaics import colours_in_words, draw_scale, draw_slices
from bidsfit.reports.tiles import Mosaic
from bidsfit.reports.words import readable

#: Colours of estimators in plots of lines (Okabe and Ito's, told apart by the colour-blind), the first one's first.
ESTIMATORS = (INK, "#d55e00", "#0072b2", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")

#: Words below a picture.
SMALL: dict[str, Any] = {"loc": "left", "fontsize": 8, "color": QUIET, "linespacing": 1.4}
#: Differences: no difference is white.
DIVERGING = "RdBu_r"


def estimator_colour(index: int) -> str:
    """Colour of the estimator with this index, in figures and tables."""
    return ESTIMATORS[index % len(ESTIMATORS)]


@dataclass(frozen=True)
class EstimatorMap:
    """One estimator's map of a parameter.

    Attributes
    ----------
    name : str
    data : ndarray, shape (x, y, z)
    words : str
        Two lines of text below the map, such as its median.
    difference_words : str
        Two lines of text below the difference from the first estimator; empty for the first.
    alike : bool
        Whether the difference from the first is negligible compared with the noise; then it is not drawn.
    """

    name: str
    data: NDArray
    words: str
    difference_words: str = ""
    alike: bool = False


@dataclass(frozen=True)
class Decay:
    """Signals of one voxel, and the curves fitted by all estimators.

    Attributes
    ----------
    title : str
    x, signal : ndarray, shape (n,)
        Values of the acquisition variable, and measured signals.
    fitted_x : ndarray, shape (m,)
    fitted : sequence of ndarray, shape (m,)
        One curve for each estimator.
    words : sequence of str
        Parameters found by each estimator, one line each.
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


@styled
def plot_comparison(
    path: Path | str,
    columns: Sequence[EstimatorMap],
    mask: NDArray,
    affine: NDArray,
    unit: str = "",
    limits: tuple[float, float] | None = None,
) -> Path:
    """Maps of one parameter by all estimators, and below their differences from the first.

    All maps have the same colour scale, and all differences have one that is symmetric around zero. Histograms of all
    estimators fill the place below the first map. Text replaces differences that are zero up to rounding, or
    negligible.

    Parameters
    ----------
    path : path
    columns : sequence of EstimatorMap
        Two or more.
    mask : ndarray of bool, shape (x, y, z)
    affine : ndarray, shape (4, 4)
    unit : str
    limits : tuple of float, optional
        Display range of the maps; by default from the data.
    """
    mask = np.asarray(mask, dtype=bool)
    mosaic = Mosaic.around(mask, affine, 2 * len(columns), len(columns), bars=1, smallest=1.05, most=4, largest=2.4)
    maps = [np.where(mask, np.asarray(column.data, dtype=float), np.nan) for column in columns]
    inside = np.stack([volume[mask] for volume in maps])
    shown = limits if limits is not None else robust_limits(inside)
    differing = [i for i, column in enumerate(columns) if i > 0 and not column.alike]
    apart = inside[differing] - inside[0]
    extent = spread_limits(np.abs(apart), shown[1] - shown[0])[1]
    _draw_distributions(mosaic.plot(1, 0, f"distributions{f' ({unit})' if unit else ''}"), inside, shown)
    difference: Any = None
    for i, (column, volume) in enumerate(zip(columns, maps, strict=True)):
        axes = mosaic.begin(0, i, f"\N{BLACK SQUARE} {column.name}", colour=estimator_colour(i))
        picture = draw_slices(axes, mosaic.slices, volume, mask, shown, "viridis")
        mosaic.describe(axes, column.words, **SMALL)
        title = f"{column.name} \N{MINUS SIGN} {columns[0].name}"
        same = np.array_equal(inside[i], inside[0], equal_nan=True)
        if i in differing and not same:
            axes = mosaic.begin(1, i, title)
            difference = draw_slices(axes, mosaic.slices, volume - maps[0], mask, (-extent, extent), DIVERGING)
            mosaic.describe(axes, column.difference_words, **SMALL)
        elif i > 0:
            axes = mosaic.plot(1, i, f"{title}: {'no difference in any voxel' if same else 'far less than the noise'}")
            axes.axis("off")
            note(axes, 0, 1, "" if same else column.difference_words, "left", "top")
    for line, (drawn, values) in enumerate([(picture, inside), (difference, apart)]):
        finite = values[np.isfinite(values)]
        if finite.size and drawn is not None:
            draw_scale(mosaic.figure, drawn, finite, cax=mosaic.scale(line)).set_label(unit)
    mosaic.end(colours_in_words(maps, mask))
    return save(mosaic.figure, path)


def _draw_distributions(axes: Any, values: NDArray, limits: tuple[float, float]) -> None:
    """Draw outlined histograms of all estimators; values beyond the range are in the outermost bins."""
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
    """Fitted curves of all estimators in a few voxels, with the parameters of each below.

    Parameters
    ----------
    path : path
    voxels : sequence of Decay
    """
    columns = min(len(voxels), 3)
    height = 2.7 + 0.18 * len(voxels[0].fitted)
    figure, cells = page_of_cells(len(voxels), height, columns, columns * WIDTH / 3)
    for i, (voxel, axes) in enumerate(zip(voxels, cells.flat, strict=True)):
        axes.set_title(voxel.title, fontsize=9)
        for k, (fitted, words) in enumerate(zip(voxel.fitted, voxel.words, strict=True)):
            dashes = (3 * k, (5, 3)) if k else "solid"  # over the first, which shows in the gaps
            line = {"color": estimator_colour(k), "linewidth": 1.5, "linestyle": dashes}
            axes.plot(voxel.fitted_x, fitted, **line, label=words)
        axes.plot(voxel.x, voxel.signal, "o", color=INK, markersize=4, markerfacecolor="white", zorder=3)
        scale_signal(axes, np.concatenate([voxel.signal, *voxel.fitted]))
        scale_x(axes, float(max(voxel.x.max(), voxel.fitted_x.max())))
        axes.set_xlabel(voxel.x_label)
        axes.set_ylabel("signal" if i % columns == 0 else "")
        axes.legend(loc="upper left", bbox_to_anchor=(-0.05, -0.25), fontsize=8)
    return save(figure, path)
