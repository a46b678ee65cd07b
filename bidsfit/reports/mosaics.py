"""Figures that show slices: parameter maps, the mask, and the quality of a fit."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.collections import LineCollection
from matplotlib.colors import BoundaryNorm, ListedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter
from numpy.typing import NDArray

from bidsfit.reports.canvas import FAINT, QUIET, inches, page, robust_limits, save, styled, ticks
from bidsfit.reports.slices import Slices
from bidsfit.reports.tiles import (
    BACKGROUND,
    BAR,
    FOOT,
    GAP,
    LABEL,
    LEFT,
    Layout,
    draw_foot,
    row_of_tiles,
    say_where,
    show,
    start_block,
    strip,
)
from bidsfit.reports.words import percent

#: Colours of the status codes 1, 2, 3, ...; quiet where all is well. The report's tables use them too.
STATUS_COLOURS = ("#9db4c6", "#e69f00", "#d1495b", "#a56cc1", "#009e73", "#0072b2", "#cc79a7", "#8c6d31")

#: Voxels without a number stand out, unless there is no number at all (a residual without a degree of freedom).
NOT_A_NUMBER, UNKNOWN = "#ff6fae", "#3c444d"
#: Voxels of infinite spread: the data say nothing about the parameter.
UNDETERMINED = "#ffffff"
OUTLINE = "#ffb000"

#: Inches: height of a line of the legend.
LINE = 0.19


@dataclass(frozen=True)
class Panel:
    """One map of a figure.

    Attributes
    ----------
    data : ndarray, shape (x, y, z) or (x, y, z, 3)
        Three components of an axis are shown as red, green and blue.
    title : str
        May hold mathematics between dollar signs.
    unit : str
        As printed; empty where there is none.
    limits : tuple of float, optional
        Display range; from the data inside the mask where it is None.
    cmap : str
        Name of a matplotlib colour map.
    remark : str
        Small, after the title.
    """

    data: NDArray
    title: str
    unit: str = ""
    limits: tuple[float, float] | None = None
    cmap: str = "viridis"
    remark: str = ""


def _draw_panel(figure: Figure, panel: Panel, mask: NDArray, layout: Layout, number: int) -> None:
    """Draw one map under its title, with its colour bar."""
    data = np.asarray(panel.data, dtype=float)
    if data.ndim == 4:
        row = start_block(figure, layout, number, panel.title, panel.unit, panel.remark)
        parts = [layout.slices.tiles(np.nan_to_num(np.abs(part))) for part in np.moveaxis(data, -1, 0)]
        for axes, *colours, within in zip(row, *parts, layout.slices.tiles(mask), strict=True):
            show(axes, np.stack([*colours, within.astype(float)], axis=-1).clip(0, 1), layout.slices)
        return
    inside = data[mask]
    finite = inside[np.isfinite(inside)]
    limits = panel.limits if panel.limits is not None else robust_limits(finite)
    row = start_block(figure, layout, number, panel.title, panel.unit, panel.remark)
    picture = draw_slices(row, layout.slices, data, mask, limits, panel.cmap)
    if finite.size:
        left, top = layout.block(number)
        draw_scale(figure, picture, finite, cax=beside(figure, left + layout.block_width - BAR, top, layout.tile[1]))


def draw_slices(
    row: Sequence[Any], slices: Slices, data: NDArray, mask: NDArray, limits: tuple[float, float], cmap: str
) -> Any:
    """Draw a map on a row of tiles; voxels of the mask without a number stand out in colours of their own."""
    known = bool((~np.isnan(data[mask])).any())
    picture: Any = None
    for axes, values, within in zip(row, slices.tiles(data), slices.tiles(mask), strict=True):
        shown = np.ma.masked_array(values, mask=~within | ~np.isfinite(values))
        picture = show(axes, shown, slices, cmap=matplotlib.colormaps[cmap], norm=Normalize(*limits))
        apart = ((np.isnan(values), NOT_A_NUMBER if known else UNKNOWN), (np.isinf(values), UNDETERMINED))
        for which, colour in apart:
            show(axes, np.ma.masked_array(which, mask=~(within & which)), slices, cmap=ListedColormap([colour]))
    return picture


def beside(figure: Figure, left: float, top: float, height: float) -> Any:
    """Axes for the colour bar of tiles that end at ``left`` (inches)."""
    return inches(figure, left + GAP + 0.04, top + 0.04 * height, 0.11, 0.92 * height)


def draw_scale(figure: Figure, picture: Any, finite: NDArray, **where: Any) -> Any:
    """Colour bar of a picture, in axes ``cax`` or beside ``ax``, pointed where values lie beyond its ends."""
    low, high = picture.get_clim()
    rounding = 1e-6 * (high - low)
    below, above = bool(np.any(finite < low - rounding)), bool(np.any(finite > high + rounding))
    extend = {(False, False): "neither", (True, False): "min", (False, True): "max", (True, True): "both"}[below, above]
    scale = figure.colorbar(picture, extend=extend, extendfrac=0.05, **where)
    scale.outline.set(linewidth=0.5, edgecolor=QUIET)
    scale.ax.tick_params(length=2.5, labelsize=8.5)
    scale.locator = ticks("auto")
    scale.formatter = FuncFormatter(lambda value, _: f"{value:g}".replace("-", "\N{MINUS SIGN}"))
    scale.update_ticks()
    return scale


def colours_in_words(volumes: Sequence[NDArray], mask: NDArray) -> str:
    """Explanation of the colours of voxels without a number, where some have one."""
    missing = [np.isnan(volume[mask]) for volume in volumes]
    words = ["Pink: no estimate."] if any(m.any() and not m.all() for m in missing) else []
    if any(np.isinf(volume[mask]).any() for volume in volumes):
        words.append("White: not determined by the data.")
    return "  ".join(words)


def _remark(panels: Sequence[Panel], mask: NDArray) -> str:
    return colours_in_words([panel.data for panel in panels], mask)


def with_values(panels: Sequence[Panel], mask: NDArray) -> list[Panel]:
    """The panels that hold a value, finite or infinite, in some voxel of the mask."""
    return [panel for panel in panels if not np.isnan(panel.data[mask]).all()]


@styled
def plot_maps(
    path: Path | str, panels: Sequence[Panel], mask: NDArray, affine: NDArray, columns: int | None = None
) -> Path:
    """Mosaic of maps: up to seven slices each, cropped to the mask, with colour bars, orientation and scale.

    Parameters
    ----------
    path : path
        ``.png`` (or ``.svg``).
    panels : sequence of Panel
        Those without any value are left out, unless none has one.
    mask : ndarray of bool, shape (x, y, z)
        What lies outside is not shown.
    affine : ndarray, shape (4, 4)
        Voxels to RAS+ mm; any orientation, oblique too.
    columns : int, optional
        Panels side by side, each with as many slices as there is room for; else every panel shows all slices.
    """
    mask = np.asarray(mask, dtype=bool)
    panels = with_values(panels, mask) or panels[:1]
    if columns is None:
        layout = Layout.of(Slices.around(mask, affine), len(panels))
    else:
        layout = Layout.in_columns(mask, affine, len(panels), columns)
    figure = page(layout.height, layout.width)
    for i, panel in enumerate(panels):
        _draw_panel(figure, panel, mask, layout, i)
    draw_foot(figure, layout.slices, layout.tile, layout.height - FOOT + 0.05, _remark(panels, mask))
    return save(figure, path)


@styled
def plot_mask(path: Path | str, background: NDArray, mask: NDArray, affine: NDArray) -> Path:
    """Outline of the mask on an image, with what lies around it.

    Parameters
    ----------
    path : path
    background : ndarray, shape (x, y, z)
        Such as the mean image of the lowest b-value.
    mask : ndarray of bool, shape (x, y, z)
    affine : ndarray, shape (4, 4)
    """
    mask, background = np.asarray(mask, dtype=bool), np.asarray(background, dtype=float)
    slices = Slices.around(mask, affine, margin=1.5, padding=5)
    layout = Layout.of(slices, 1, largest=2.0)
    figure = page(LABEL + layout.tile[1] + FOOT, layout.width)
    pictures, outlines = slices.tiles(background), slices.tiles(mask)
    shown = np.concatenate([picture[np.isfinite(picture)] for picture in pictures])
    low, high = (0.0, 1.0) if shown.size == 0 else np.percentile(shown, [1, 99.7])
    row = row_of_tiles(figure, slices, LEFT, LABEL, layout.tile)
    say_where(row, slices)
    for axes, picture, within in zip(row, pictures, outlines, strict=True):
        show(axes, picture, slices, cmap="gray", norm=Normalize(low, high if high > low else low + 1))
        axes.add_collection(LineCollection(_outline(within), colors=OUTLINE, linewidths=1.0), autolim=False)
    draw_foot(figure, layout.slices, layout.tile, LABEL + layout.tile[1] + 0.05)
    return save(figure, path)


def _outline(within: NDArray) -> list[list[tuple[float, float]]]:
    """Edges of the pixels at the border of a region, in the coordinates of `imshow`."""
    padded = np.pad(within, 1)
    vertical = [[(x - 0.5, y - 1.5), (x - 0.5, y - 0.5)] for y, x in np.argwhere(padded[:, 1:] != padded[:, :-1])]
    horizontal = [[(x - 1.5, y - 0.5), (x - 0.5, y - 0.5)] for y, x in np.argwhere(padded[1:] != padded[:-1])]
    return vertical + horizontal


@styled
def plot_quality(
    path: Path | str,
    residuals: Sequence[Panel],
    status: NDArray,
    status_names: Mapping[int, str],
    mask: NDArray,
    affine: NDArray,
) -> Path:
    """Residual, coefficient of determination, and what happened in each voxel, with a legend in words.

    Parameters
    ----------
    path : path
    residuals : sequence of Panel
        Of the residual, and of the coefficient of determination; those without any value are left out.
    status : ndarray of int, shape (x, y, z)
    status_names : mapping of int to str
        What each code means.
    mask : ndarray of bool, shape (x, y, z)
    affine : ndarray, shape (4, 4)
    """
    mask, status = np.asarray(mask, dtype=bool), np.asarray(status)
    slices = Slices.around(mask, affine)
    shown = with_values(residuals, mask)
    layout = Layout.of(slices, len(shown) + 1)
    codes, counts = np.unique(status[mask], return_counts=True)
    entries = [
        Entry(status_colour(int(code)), int(n), n / mask.sum(), status_names.get(int(code), f"code {code}"))
        for code, n in zip(codes, counts, strict=True)
    ]
    legend = LINE * sum(len(entry.lines(layout.width)) for entry in entries) + 0.1
    figure = page(layout.height + legend, layout.width)
    for number, panel in enumerate(shown):
        _draw_panel(figure, panel, mask, layout, number)
    _draw_status(figure, status, mask, layout, len(shown))
    _draw_legend(figure, entries, layout.height - FOOT + 0.1, legend)
    draw_foot(figure, layout.slices, layout.tile, layout.height + legend - FOOT + 0.05, _remark(shown, mask))
    return save(figure, path)


def status_colour(code: int) -> str:
    """Colour of a status code; code 0, outside the mask, is black like the background."""
    return BACKGROUND if code <= 0 else STATUS_COLOURS[(code - 1) % len(STATUS_COLOURS)]


@dataclass(frozen=True)
class Entry:
    """A line of the legend of a status map."""

    colour: str
    count: int
    fraction: float
    words: str

    def lines(self, width: float) -> list[str]:
        """The words, broken to the width of a page."""
        return textwrap.wrap(self.words, int((width - 1.9) * 15))


def _draw_status(figure: Figure, status: NDArray, mask: NDArray, layout: Layout, number: int) -> None:
    row = start_block(figure, layout, number, "What happened in each voxel")
    highest = max(int(status.max(initial=0)), 1)
    colours = ListedColormap([status_colour(code) for code in range(highest + 1)])
    norm = BoundaryNorm(np.arange(-0.5, highest + 1), colours.N)
    pairs = zip(row, layout.slices.tiles(status), layout.slices.tiles(mask), strict=True)
    for axes, codes, within in pairs:
        show(axes, np.ma.masked_array(codes, mask=~within), layout.slices, cmap=colours, norm=norm)


def _draw_legend(figure: Figure, entries: Sequence[Entry], top: float, height: float) -> None:
    """Colour, share of the mask, number of voxels, and what the status means."""
    axes = strip(figure, top, height)
    y = 0.1
    for entry in entries:
        lines = entry.lines(figure.get_size_inches()[0])
        axes.add_patch(Rectangle((0, y - 0.06), 0.2, 0.12, facecolor=entry.colour, edgecolor=FAINT, linewidth=0.5))
        axes.text(0.82, y, percent(entry.fraction), ha="right", va="center_baseline", fontsize=8)
        axes.text(1.55, y, f"{entry.count:,}", ha="right", va="center_baseline", fontsize=8, color=QUIET)
        for i, line in enumerate(lines):
            axes.text(1.7, y + i * LINE, line, va="center_baseline", fontsize=8)
        y += LINE * len(lines)
