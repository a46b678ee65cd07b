"""Figures of slices: parameter maps, the mask, and the quality of a fit."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.collections import LineCollection
from matplotlib.colors import ListedColormap, NoNorm, Normalize, to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.patheffects import Normal, Stroke
from matplotlib.ticker import FuncFormatter
from numpy.typing import NDArray
from PIL import Image

from bidsfit.files import whole_file
from bidsfit.reports.canvas import FAINT, INK, QUIET, robust_limits, save, styled, ticks
from bidsfit.reports.slices import Slices
from bidsfit.reports.tiles import BACKGROUND, SMALL_TILE, Mosaic, columns_for, show
from bidsfit.reports.words import percent

#: Colours of the status codes 1, 2, 3, ...; quiet where all is well. The report's tables use them too.
STATUS_COLOURS = (
    "#9db4c6",
    "#e69f00",
    "#d1495b",
    "#a56cc1",
    "#009e73",
    "#0072b2",
    "#cc79a7",
    "#8c6d31",
    "#56b4e9",
    "#d9c84a",
)

#: Voxels without a number stand out, unless there is no number at all (a residual without a degree of freedom).
NOT_A_NUMBER, UNKNOWN = "#ff6fae", "#3c444d"
#: Voxels of infinite spread: the data say nothing about the parameter.
UNDETERMINED = "#ffffff"
OUTLINE = "#ffb000"
#: Longer side of a thumbnail, pixels.
THUMBNAIL = 200


@dataclass(frozen=True)
class Panel:
    """One map of a figure.

    Attributes
    ----------
    data : ndarray, shape (x, y, z) or (x, y, z, 3)
        The three components of an axis are shown as red, green and blue.
    title : str
        May contain mathematics between dollar signs.
    unit : str
        As printed; may be empty.
    limits : tuple of float, optional
        Display range; by default from the data inside the mask.
    cmap : str
        Name of a matplotlib colour map.
    remark : str
        Small text after the title.
    """

    data: NDArray
    title: str
    unit: str = ""
    limits: tuple[float, float] | None = None
    cmap: str = "viridis"
    remark: str = ""


def _draw_panels(mosaic: Mosaic, panels: Sequence[Panel], mask: NDArray) -> None:
    """Draw maps with titles and colour bars."""
    columns = mosaic.rows.shape[1]
    for i, panel in enumerate(panels):
        title = f"{panel.title}  ({panel.unit})" if panel.unit else panel.title
        _draw_panel(mosaic, panel, mask, i // columns, i % columns, title)


def _draw_panel(mosaic: Mosaic, panel: Panel, mask: NDArray, line: int, column: int, title: str) -> None:
    axes = mosaic.begin(line, column, title, panel.remark)
    data, slices = np.asarray(panel.data, dtype=float), mosaic.slices
    if data.ndim == 4:
        colours = slices.strip(np.nan_to_num(np.abs(data)))
        show(axes, np.dstack([colours, slices.strip(mask.astype(float))]).clip(0, 1))
        return
    inside = data[mask]
    finite = inside[np.isfinite(inside)]
    limits = panel.limits if panel.limits is not None else robust_limits(finite)
    picture = draw_slices(axes, slices, data, mask, limits, panel.cmap)
    if finite.size:
        draw_scale(mosaic.figure, picture, finite, cax=mosaic.scale(line, column))


def draw_slices(axes: Any, slices: Slices, data: NDArray, mask: NDArray, limits: tuple[float, float], cmap: str) -> Any:
    """Draw the slices of a map; NaN and infinite voxels of the mask have colours of their own."""
    known = bool((~np.isnan(data[mask])).any())
    values, within = slices.strip(data), slices.strip(mask)
    shown = np.ma.masked_array(values, mask=~within | ~np.isfinite(values))
    picture = show(axes, shown, cmap=matplotlib.colormaps[cmap], norm=Normalize(*limits))
    apart = ((np.isnan(values), NOT_A_NUMBER if known else UNKNOWN), (np.isinf(values), UNDETERMINED))
    for which, colour in apart:
        if (within & which).any():
            show(axes, np.ma.masked_array(which, mask=~(within & which)), cmap=ListedColormap([colour]))
    return picture


def draw_scale(figure: Figure, picture: Any, finite: NDArray, **where: Any) -> Any:
    """Draw a colour bar beside the axes ``ax``, or into ``cax``; its ends are pointed if values lie beyond them."""
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
    """Explanation of the colours of NaN and infinite voxels; empty if there are none."""
    missing = [np.isnan(volume[mask]) for volume in volumes]
    words = ["Pink: no estimate."] if any(m.any() and not m.all() for m in missing) else []
    if any(np.isinf(volume[mask]).any() for volume in volumes):
        words.append("White: not determined by the data.")
    return "  ".join(words)


def _remark(panels: Sequence[Panel], mask: NDArray) -> str:
    return colours_in_words([panel.data for panel in panels], mask)


def with_values(panels: Sequence[Panel], mask: NDArray) -> list[Panel]:
    """Panels with a value, finite or infinite, in some voxel of the mask."""
    return [panel for panel in panels if not np.isnan(panel.data[mask]).all()]


@styled
def plot_maps(
    path: Path | str,
    panels: Sequence[Panel],
    mask: NDArray,
    affine: NDArray,
    columns: int | None = None,
    marks: Mapping[str, tuple[int, ...]] | None = None,
) -> Path:
    """Mosaic of maps: up to seven slices each, cropped to the mask, with colour bars, orientation and scale.

    Parameters
    ----------
    path : path
        ``.png`` or ``.svg``.
    panels : sequence of Panel
        Those without any value are left out, unless all are.
    mask : ndarray of bool, shape (x, y, z)
        Voxels that are shown.
    affine : ndarray, shape (4, 4)
        From voxels to RAS+ mm; may be oblique.
    columns : int, optional
        Number of panels side by side; each then shows as many slices as fit. By default every panel shows all slices.
    marks : mapping of letter to voxel, optional
        Voxels that are marked on the first panel, where a slice shows them.
    """
    mask = np.asarray(mask, dtype=bool)
    panels = with_values(panels, mask) or panels[:1]
    smallest = 0.0 if columns is None else SMALL_TILE
    columns = columns or columns_for(Slices.around(mask, affine), len(panels))
    mosaic = Mosaic.around(mask, affine, len(panels), columns, bars=columns, smallest=smallest)
    _draw_panels(mosaic, panels, mask)
    for letter, voxel in (marks or {}).items():
        here = np.zeros(mask.shape)
        here[voxel] = 1
        for row, column in np.argwhere(mosaic.slices.strip(here)):
            axes, white = mosaic.rows[0, 0], [Stroke(linewidth=2, foreground="#ffffff"), Normal()]
            axes.plot(column, row, "s", markersize=4, fillstyle="none", color=INK, path_effects=white)
            around = {"xytext": (4, 2), "textcoords": "offset points", "fontsize": 8, "path_effects": white}
            axes.annotate(letter, (column, row), annotation_clip=False, **around)
    mosaic.end(_remark(panels, mask))
    return save(mosaic.figure, path)


@styled
def plot_mask(path: Path | str, background: NDArray, mask: NDArray, affine: NDArray) -> Path:
    """Outline of the mask on an image.

    Parameters
    ----------
    path : path
    background : ndarray, shape (x, y, z)
        Image, such as the mean of the lowest b-value.
    mask : ndarray of bool, shape (x, y, z)
    affine : ndarray, shape (4, 4)
    """
    mask, background = np.asarray(mask, dtype=bool), np.asarray(background, dtype=float)
    slices = Slices.around(mask, affine, margin=1.5, padding=5)
    mosaic = Mosaic.of(slices, 1, 1, bars=0, largest=2.0)
    axes, pictures = mosaic.rows[0, 0], slices.tiles(background)
    shown = np.concatenate([picture[np.isfinite(picture)] for picture in pictures])
    low, high = (0.0, 1.0) if shown.size == 0 else np.percentile(shown, [1, 99.7])
    show(axes, slices.joined(pictures), cmap="gray", norm=Normalize(low, high if high > low else low + 1))
    outline = LineCollection(_outline(slices.strip(mask)), colors=OUTLINE, linewidths=1.0)
    axes.add_collection(outline, autolim=False)
    mosaic.end()
    return save(mosaic.figure, path)


def plot_thumbnail(path: Path | str, panel: Panel, mask: NDArray, affine: NDArray) -> Path:
    """The middle slice of a map or of colours, small and without words, as the figures show it."""
    slices = Slices.around(np.asarray(mask, dtype=bool), affine, count=1)
    values, within = slices.strip(panel.data), slices.strip(mask)
    if values.ndim == 3:  # colours
        picture = np.rint(255 * np.nan_to_num(values)).astype(np.uint8)
        values = values.sum(axis=-1)
    else:
        low, high = panel.limits or robust_limits(np.asarray(panel.data)[mask])
        picture = matplotlib.colormaps[panel.cmap](np.nan_to_num((values - low) / (high - low)), bytes=True)[..., :3]
    for which, colour in ((np.isnan(values), NOT_A_NUMBER), (np.isinf(values), UNDETERMINED), (~within, BACKGROUND)):
        picture[which] = np.rint(255 * np.array(to_rgb(colour)))
    factor = THUMBNAIL / max(slices.size)
    size = [max(round(factor * length), 1) for length in slices.size]
    with whole_file(Path(path)) as file:
        Image.fromarray(picture[::-1]).resize((size[0], size[1]), Image.Resampling.NEAREST).save(file, format="png")
    return Path(path)


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
    """Maps of residual, coefficient of determination and status, with a legend of the status codes.

    Parameters
    ----------
    path : path
    residuals : sequence of Panel
        Residual and coefficient of determination; panels without any value are left out.
    status : ndarray of int, shape (x, y, z)
    status_names : mapping of int to str
        Meaning of each code.
    mask : ndarray of bool, shape (x, y, z)
    affine : ndarray, shape (4, 4)
    """
    mask, status = np.asarray(mask, dtype=bool), np.asarray(status)
    slices = Slices.around(mask, affine)
    shown = with_values(residuals, mask)
    entries = []
    for code, count in zip(*np.unique(status[mask], return_counts=True), strict=True):
        words = f"{percent(count / mask.sum())}, {count:,} voxels: {status_names.get(int(code), f'code {code}')}"
        lines = textwrap.wrap(words, 140)
        colour = status_colour(int(code))
        entries.append(Patch(facecolor=colour, edgecolor=FAINT, linewidth=0.5, label="\n".join(lines)))
    columns = columns_for(slices, len(shown) + 1)
    mosaic = Mosaic.of(slices, len(shown) + 1, columns, bars=columns)
    _draw_panels(mosaic, shown, mask)
    axes = mosaic.begin(*divmod(len(shown), columns), "What happened in each voxel")
    colours = ListedColormap([status_colour(code) for code in range(int(status.max(initial=0)) + 1)])
    codes = np.ma.masked_array(slices.strip(status), mask=~slices.strip(mask))
    show(axes, codes, cmap=colours, norm=NoNorm())
    mosaic.end(_remark(shown, mask), entries)
    return save(mosaic.figure, path)


def status_colour(code: int) -> str:
    """Colour of a status code; code 0 (outside the mask) has the colour of the background."""
    return BACKGROUND if code <= 0 else STATUS_COLOURS[(code - 1) % len(STATUS_COLOURS)]
