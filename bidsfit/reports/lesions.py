"""Slices of maps by several estimators: a lesion compared with the truth, and differences from a reference."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.patheffects import Normal, Stroke
from numpy.typing import NDArray

from bidsfit.reports.canvas import QUIET, WIDTH, compressed, page, save, say_below, spread_limits, styled
from bidsfit.reports.comparisons import DIVERGING
from bidsfit.reports.mosaics import NOT_A_NUMBER, draw_scale
from bidsfit.reports.spaces import Axis
from bidsfit.reports.tiles import BACKGROUND
from bidsfit.reports.words import readable

OUTLINE = "#ffffff"

#: Inches: room for a colour bar with its words, and the longer side of a map at most.
BAR, LARGEST = 1.1, 2.2
#: What tissues are called below differences.
TISSUES = {"WM": "white matter", "GM": "grey matter", "CSF": "cerebrospinal fluid"}
#: Inches: the words at the foot of differences need this width.
NARROWEST = 6.6
#: Differences side by side; more of them go on several lines.
ABREAST, MOST_COLUMNS = 4, 8
#: Small characters in an inch.
LETTERS = 15.5


@dataclass(frozen=True)
class LesionColumn:
    """Maps by one estimator, or true maps.

    Attributes
    ----------
    title : str
    maps : mapping of str to ndarray, shape (x, y)
        A slice of each parameter; NaN outside the mask.
    """

    title: str
    maps: Mapping[str, NDArray]


@dataclass(frozen=True)
class DifferenceColumn:
    """Differences of the maps by one estimator from a reference.

    Attributes
    ----------
    title : str
    maps : mapping of str to ndarray, shape (x, y)
        Estimate minus reference of each parameter, in one slice.
    errors : mapping of str to mapping of str to float
        Mean absolute error by parameter and tissue.
    """

    title: str
    maps: Mapping[str, NDArray]
    errors: Mapping[str, Mapping[str, float]]


@styled
def plot_lesions(
    path: Path | str,
    columns: Sequence[LesionColumn],
    outline: NDArray,
    axes: Mapping[str, Axis],
    *,
    zoom: tuple[slice, slice] | None = None,
) -> Path:
    """Maps by all estimators and of the truth, and below each its part around a lesion with the median inside.

    Parameters
    ----------
    path : path
        ``.png`` or ``.svg``.
    columns : sequence of LesionColumn
        The truth first.
    outline : ndarray of bool, shape (x, y)
        Mask of the lesion; where it is empty, whole maps are drawn alone.
    axes : mapping of str to Axis
        By parameter, in the order of the rows; their limits are those of the colour scales.
    zoom : tuple of slice, optional
        Range of voxels along x and y; by default a box around the lesion with a margin of its size.
    """
    lesion = np.asarray(outline, dtype=bool)
    _check(columns, lesion.shape, axes)
    windows = [_shown(columns[0].maps.values())]
    if lesion.any():
        windows.append(zoom if zoom is not None else box_around(lesion))
    spans = [[len(range(*cut.indices(n))) for cut, n in zip(window, lesion.shape, strict=True)] for window in windows]
    if min(min(spans)) == 0:
        raise ValueError(f"The zoom {zoom} shows nothing of a slice of the shape {lesion.shape}.")
    figure, panels, size = _panels(len(windows) * len(axes), [max(x / y for x, y in spans)] * len(columns))
    missing = False
    for panel, column in zip(panels[0], columns, strict=True):
        panel.set_title(_wrapped(column.title, size), fontsize=9.5)
    for block, (name, axis) in zip(np.split(panels, len(axes)), axes.items(), strict=True):
        truth = np.asarray(columns[0].maps[name], dtype=float)
        for row, window in zip(block, windows, strict=True):
            for panel, column in zip(row, columns, strict=True):
                data = np.asarray(column.maps[name], dtype=float)
                image = _show(panel, data[window], np.isnan(truth[window]), axis.limits, "viridis")
                missing |= bool(np.isnan(data[window][~np.isnan(truth[window])]).any())
                if window is windows[0] and lesion.any():
                    _draw_box(panel, windows[1], window, lesion.shape)
                elif lesion.any():
                    _draw_outline(panel, lesion[window])
                    inside = data[lesion & np.isfinite(data)]
                    words = f"median {readable(float(np.median(inside)))}" if inside.size else "no estimate"
                    panel.set_xlabel(words, loc="left", fontsize=8, color=QUIET)
        values = np.array([np.asarray(column.maps[name], dtype=float)[windows[-1]] for column in columns])
        draw_scale(figure, image, values[np.isfinite(values)], ax=[*block.flat], pad=0.01).set_label(axis.words)
    say_below(figure, "Pink: no estimate." if missing else "")
    return save(figure, path)


@styled
def plot_difference_maps(
    path: Path | str,
    columns: Sequence[DifferenceColumn],
    mask: NDArray,
    axes: Mapping[str, Axis],
    *,
    reference: str,
) -> Path:
    """Differences of all estimators from a reference, with the mean absolute error in each tissue.

    Parameters
    ----------
    path : path
        ``.png`` or ``.svg``.
    columns : sequence of DifferenceColumn
        One to eight; more than four take two lines.
    mask : ndarray of bool, shape (x, y)
        Voxels that are shown.
    axes : mapping of str to Axis
        By parameter, in the order of the rows.
    reference : str
        Name of the reference, such as "the truth".
    """
    within = np.asarray(mask, dtype=bool)
    _check(columns, within.shape, axes)
    if len(columns) > MOST_COLUMNS:
        raise ValueError(f"The figure shows at most {MOST_COLUMNS} differences, not {len(columns)}.")
    if not within.any():
        raise ValueError("The mask is empty.")
    window = box_around(within, 1)
    lines = -(-len(columns) // ABREAST)
    abreast = -(-len(columns) // lines)
    width, height = within[window].shape
    figure, panels, size = _panels(lines * len(axes), [width / height] * abreast)
    missing = False
    for block, (name, axis) in zip(panels.reshape(len(axes), -1), axes.items(), strict=True):
        data = [np.where(within, np.asarray(column.maps[name], dtype=float), np.nan) for column in columns]
        values = np.array([volume[within] for volume in data])
        extent = spread_limits(np.abs(values), axis.span)[1]
        for panel, column, volume in zip(block, columns, data, strict=False):
            image = _show(panel, volume[window], ~within[window], (-extent, extent), DIVERGING)
            panel.set_title(_wrapped(column.title, size), fontsize=9.5)
            words = errors_in_words(column.errors.get(name, {}), size)
            panel.set_xlabel("\n".join(words), loc="left", fontsize=7.5, color=QUIET)
        for empty in block[len(columns) :]:
            empty.remove()
        missing |= bool(np.isnan(values).any())
        scale = draw_scale(figure, image, values[~np.isnan(values)], ax=[*block[: len(columns)]], pad=0.01)
        scale.set_label(f"{axis.words}:\ndifference from {reference}")
    remarks = [abbreviations(columns), "Pink: no estimate." if missing else ""]
    say_below(figure, "  ".join(filter(None, remarks)))
    return save(figure, path)


def _panels(lines: int, ratios: Sequence[float]) -> tuple[Figure, NDArray[np.object_], float]:
    """A page of empty panels with these ratios of width to height, and the width of the last panel in inches."""
    height = min(LARGEST / max(ratios[-1], 1), (WIDTH - BAR - 0.1 * len(ratios)) / sum(ratios))
    width = height * sum(ratios) + 0.1 * len(ratios) + BAR
    figure = page(lines * (height + 0.8) + 0.3, max(width, NARROWEST), compressed())
    panels = figure.subplots(lines, len(ratios), squeeze=False, width_ratios=ratios)
    for panel in panels.flat:
        panel.set(xticks=[], yticks=[])
        panel.spines[:].set_visible(False)
    return figure, panels, height * ratios[-1]


def _check(
    columns: Sequence[LesionColumn] | Sequence[DifferenceColumn], shape: tuple[int, ...], axes: Mapping[str, Axis]
) -> None:
    if len(shape) != 2:
        raise ValueError(f"A slice has two dimensions, not the shape {shape}.")
    if not columns or not axes:
        raise ValueError("There must be one column and one parameter at least.")
    for column in columns:
        for name in axes:
            if name not in column.maps or np.shape(column.maps[name]) != shape:
                raise ValueError(f"{column.title!r} must have a map of {name!r} of the shape {shape}.")


def _wrapped(title: str, width: float) -> str:
    """A title wrapped to the width of a map."""
    return textwrap.fill(title, max(int(width * 12), 6))


def box_around(region: NDArray, margin: int | None = None) -> tuple[slice, slice]:
    """Bounding box of a region with a margin on every side, by default of the size of the region."""
    places = np.argwhere(region)
    starts, stops = places.min(axis=0), places.max(axis=0) + 1
    extra = margin if margin is not None else int((stops - starts).max())
    starts, stops = np.maximum(starts - extra, 0), np.minimum(stops + extra, region.shape)
    return slice(int(starts[0]), int(stops[0])), slice(int(starts[1]), int(stops[1]))


def _shown(maps: Iterable[NDArray]) -> tuple[slice, slice]:
    """Bounding box of the finite voxels, with a margin; the whole slice if there are none."""
    known = np.any([np.isfinite(np.asarray(values, dtype=float)) for values in maps], axis=0)
    return box_around(known if known.any() else ~known, 1)


def _show(panel: Any, values: NDArray, outside: NDArray, limits: tuple[float, float], cmap: str) -> ScalarMappable:
    """Draw a slice, x to the right and y up; NaN inside the mask has a colour of its own."""
    scale = ScalarMappable(Normalize(*limits), matplotlib.colormaps[cmap])
    picture = scale.to_rgba(np.nan_to_num(values, nan=0.0, posinf=1e30, neginf=-1e30))
    picture[np.isnan(values)] = matplotlib.colors.to_rgba(NOT_A_NUMBER)
    picture[outside] = matplotlib.colors.to_rgba(BACKGROUND)
    panel.imshow(picture.transpose(1, 0, 2), origin="lower", interpolation="nearest")
    return scale


def _draw_outline(panel: Any, region: NDArray) -> None:
    """Draw a thin contour along the edges of voxels."""
    fine = np.repeat(np.repeat(np.pad(region, 1), 8, axis=0), 8, axis=1).T.astype(float)
    x, y = ((np.arange(n) + 0.5) / 8 - 1.5 for n in fine.shape[::-1])
    limits = panel.get_xlim(), panel.get_ylim()
    lines = panel.contour(x, y, fine, [0.5], colors=[OUTLINE], linewidths=0.7)
    lines.set_path_effects([Stroke(linewidth=1.5, foreground=BACKGROUND), Normal()])
    panel.set(xlim=limits[0], ylim=limits[1])


def _draw_box(panel: Any, window: tuple[slice, slice], whole: tuple[slice, slice], shape: Sequence[int]) -> None:
    """Draw the frame of the zoomed part on its slice."""
    (x, x_stop, _), (y, y_stop, _) = (cut.indices(n) for cut, n in zip(window, shape, strict=True))
    corner = x - (whole[0].start or 0) - 0.5, y - (whole[1].start or 0) - 0.5
    panel.add_patch(Rectangle(corner, x_stop - x, y_stop - y, fill=False, edgecolor=OUTLINE, linewidth=1.2))


def errors_in_words(errors: Mapping[str, float], width: float) -> list[str]:
    """Errors such as "MAE WM 0.031, GM 0.045", wrapped to the width of a map."""
    if not errors:
        return [""]
    text = ", ".join(f"{tissue}\N{NO-BREAK SPACE}{readable(value)}" for tissue, value in errors.items())
    return textwrap.wrap(f"MAE {text}", int(width * LETTERS)) or [""]


def abbreviations(columns: Sequence[DifferenceColumn]) -> str:
    """Explanation of the abbreviations that are used."""
    used = {tissue for column in columns for errors in column.errors.values() for tissue in errors}
    words = ["MAE: mean absolute error", *[f"{short}: {name}" for short, name in TISSUES.items() if short in used]]
    return f"{', '.join(words)}." if used else ""
