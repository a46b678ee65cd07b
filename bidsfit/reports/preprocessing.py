"""Figures of the preprocessing: what a step changed, how volumes moved, and which of them stand out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray
from scipy.ndimage import gaussian_filter

from bidsfit.acquisition import Acquisition
from bidsfit.reports.canvas import ACCENT, FAINT, INK, QUIET, WARM, WIDTH, inches, note, page, save, styled, ticks
from bidsfit.reports.charts import DARKEST, LIGHTEST, SHELLS
from bidsfit.reports.comparisons import BETWEEN, DIVERGING, ESTIMATORS, HEADING
from bidsfit.reports.mosaics import OUTLINE, draw_scale
from bidsfit.reports.slices import Slices
from bidsfit.reports.tiles import (
    BAR,
    FOOT,
    GAP,
    LABEL,
    LEFT,
    NARROWEST_PAGE,
    RIGHT,
    draw_foot,
    row_of_tiles,
    say_where,
    show,
)
from bidsfit.reports.words import readable

#: Colours of edges over a grey picture, of x, y and z, and of labels beside a carpet.
EDGE = "#35d0ba"
AXES = (ESTIMATORS[1], ESTIMATORS[3], ESTIMATORS[2])
LABELS = ("#8f9aa6", "#56b4e9", "#e69f00", "#009e73", "#cc79a7")

#: Bright structures are so much brighter than the mean of what lies around them (Gaussian of so many mm), which evens
#: out the sensitivity of coils.
BRIGHT, SURROUNDINGS = 1.35, 12.0

#: Slices of one picture at most, and how small and large a tile may be, inches.
MOST, SMALLEST, LARGEST = 4, 1.05, 2.4

#: Inches: left and right of plots over volumes, height of a plot, of the strip of b-values, of the words beneath.
LEFT_OF_PLOT, RIGHT_OF_PLOT, PLOT, STRIP, WORDS = 0.95, 0.95, 1.0, 0.16, 0.58
#: Inches between plots that share the axis of volumes.
SPACE = 0.32
#: Inches from a plot to the middle of the name of its vertical axis.
LABEL_PLACE = -0.5

#: Limits of the colours, in standard deviations: of slices, and of a carpet.
SLICE_LIMIT, CARPET_LIMIT = 6.0, 2.5

#: SNR below which the mean of a Rician magnitude is more than 5 % too high.
NOISE_FLOOR = 3.0

#: Shells named beside the strip of b-values; more are told by their range.
MOST_SHELLS = 9


@dataclass(frozen=True)
class StepView:
    """What the report of a step can show.

    Parameters
    ----------
    before, after : ndarray, shape (x, y, z, n)
        The volumes; the same where the step does not change the image.
    pictures : ndarray, shape (x, y, z) or (x, y, z, k), or None
        What the step left to be shown.
    acquisition : Acquisition
    mask : ndarray of bool, shape (x, y, z)
    affine : ndarray, shape (4, 4)
    """

    before: NDArray
    after: NDArray
    pictures: NDArray | None
    acquisition: Acquisition
    mask: NDArray
    affine: NDArray


@dataclass(frozen=True)
class _Grid:
    """Places of tiles: a line of slices for each picture, pictures side by side, volumes below one another."""

    slices: Slices
    n_columns: int
    n_rows: int
    tile: tuple[float, float]
    bar: float

    @classmethod
    def around(
        cls, mask: NDArray, affine: NDArray, n_columns: int, n_rows: int, bar: float, smallest: float = SMALLEST
    ) -> _Grid:
        """As many slices of each picture as leaves the tiles large enough; one at least."""
        for count in range(MOST, 0, -1):
            slices = Slices.around(mask, affine, count=count, margin=0.12, padding=4)
            taken = LEFT + RIGHT + bar + (n_columns - 1) * BETWEEN + n_columns * (len(slices) - 1) * GAP
            ratio = slices.size[1] / slices.size[0]
            width = min((WIDTH - taken) / (n_columns * len(slices)), LARGEST, LARGEST / ratio)
            grid = cls(slices, n_columns, n_rows, (width, width * ratio), bar)
            if width >= smallest:
                break
        return grid

    @property
    def column_width(self) -> float:
        return len(self.slices) * (self.tile[0] + GAP) - GAP

    def left(self, column: int) -> float:
        return LEFT + column * (self.column_width + BETWEEN)

    def top(self, row: int, title: float) -> float:
        return title + HEADING + LABEL + row * (self.tile[1] + HEADING + 0.08)

    @property
    def width(self) -> float:
        return max(self.left(self.n_columns - 1) + self.column_width + self.bar + RIGHT, NARROWEST_PAGE)


@styled
def plot_before_after(
    path: Path | str,
    before: NDArray,
    after: NDArray,
    mask: NDArray,
    affine: NDArray,
    *,
    title: str = "",
    names: tuple[str, str] = ("before", "after"),
    rows: Sequence[str] = (),
    others: Mapping[str, NDArray] | None = None,
    difference: bool = True,
    outline: NDArray | None = None,
    edges: NDArray | None = None,
    cmap: str = "gray",
    zero: bool = True,
) -> Path:
    """Slices before a step and after it on one scale, and their difference on a scale of its own.

    Pictures reach beyond the mask: noise, ringing and distortion show best at the edges.

    Parameters
    ----------
    path : path
        ``.png`` (or ``.svg``).
    before, after : ndarray, shape (x, y, z) or (x, y, z, k)
        Of ``k`` volumes, or measures of all volumes such as their standard deviation; one line each.
    mask : ndarray of bool, shape (x, y, z)
        Decides which slices are shown, the scales and the crop.
    affine : ndarray, shape (4, 4)
    title : str
        Above all; empty for none.
    names : tuple of str
        Of the two pictures.
    rows : sequence of str
        What each line shows, such as "b = 1000".
    others : mapping of name to ndarray, shaped as ``before``, optional
        More pictures on the same scale, such as the image of reversed phase encoding; shown between the two.
    difference : bool
        After minus before.
    outline : ndarray of bool, shape (x, y, z), optional
        Outlined on every picture but the difference.
    edges : ndarray, shape (x, y, z), optional
        An image whose boundary of bright structures is drawn on every picture but the difference.
    cmap : str
        Of the pictures.
    zero : bool
        Whether the scale of the pictures begins at 0.
    """
    mask = np.asarray(mask, dtype=bool)
    mask = mask if mask.any() else np.ones_like(mask)
    pictures = {names[0]: before, **(others or {}), names[1]: after}
    volumes = {name: _four_dimensional(volume) for name, volume in pictures.items()}
    n_rows = volumes[names[0]].shape[3]
    bar = BAR if difference else 0.0
    grid = _Grid.around(mask, affine, len(pictures) + difference, n_rows, bar)
    top = 0.27 if title else 0.0
    lines = _Lines.of(grid.slices, outline, edges, mask)
    height = grid.top(n_rows, top) - HEADING - LABEL + 0.06
    figure = page(height + FOOT + lines.height, grid.width)
    if title:
        _say(figure, LEFT, 0.04, title, INK, 11)
    for row in range(n_rows):
        what = f", {rows[row]}" if len(rows) > row else ""
        inside = volumes[names[0]][..., row][mask]
        limits = _grey_limits(inside, zero)
        for column, (name, volume) in enumerate(volumes.items()):
            tiles = _tiles(figure, grid, row, column, top, name + what)
            for axes, tile in zip(tiles, grid.slices.tiles(volume[..., row]), strict=True):
                show(axes, tile, grid.slices, cmap=matplotlib.colormaps[cmap], norm=Normalize(*limits))
            lines.draw(tiles)
        if difference:
            apart = np.asarray(volumes[names[1]][..., row], dtype=float) - volumes[names[0]][..., row]
            name = f"{names[1]} \N{MINUS SIGN} {names[0]}"
            _draw_difference(figure, grid, row, top, name + what, apart, mask)
    draw_foot(figure, grid.slices, grid.tile, height + 0.05)
    lines.legend(figure)
    return save(figure, path)


def _draw_difference(
    figure: Figure, grid: _Grid, row: int, top: float, title: str, apart: NDArray, mask: NDArray
) -> None:
    """The difference in the last column, white where there is none, with its scale."""
    column = grid.n_columns - 1
    tiles = _tiles(figure, grid, row, column, top, title)
    inside = apart[mask & np.isfinite(apart)]
    extent = float(np.percentile(np.abs(inside), 98)) if inside.size else 0.0
    extent = extent if extent > 0 else 1.0
    picture: Any = None
    for axes, tile in zip(tiles, grid.slices.tiles(apart), strict=True):
        picture = show(axes, tile, grid.slices, cmap=DIVERGING, norm=Normalize(-extent, extent))
    if inside.size:
        right = grid.left(column) + grid.column_width
        draw_scale(figure, picture, inside, (-extent, extent), right, grid.top(row, top), grid.tile[1])


def _four_dimensional(volume: NDArray) -> NDArray:
    array = np.asarray(volume)
    return array[..., None] if array.ndim == 3 else array


def _grey_limits(values: NDArray, zero: bool) -> tuple[float, float]:
    """Display range of an image, from the values inside the mask; never empty."""
    finite = values[np.isfinite(values)]
    if finite.size == 0:
        return 0.0, 1.0
    low, high = (float(limit) for limit in np.percentile(finite, [1, 99.5]))
    low = min(low, 0.0) if zero else low
    return (low, high) if high > low else (low, low + 1.0)


def _tiles(figure: Figure, grid: _Grid, row: int, column: int, title: float, words: str) -> list[Any]:
    """Empty tiles of one picture under its heading; those of the first line also say where they lie."""
    left, top = grid.left(column), grid.top(row, title)
    tiles = row_of_tiles(figure, grid.slices, left, top, grid.tile)
    if row == 0:
        say_where(tiles, grid.slices)
        top -= LABEL
    _say(figure, left, top - 0.2, words, INK, 10)
    return tiles


def _say(figure: Figure, left: float, top: float, words: str, colour: str = QUIET, size: float = 8) -> None:
    """Words at a place given in inches from the upper left corner."""
    width, height = figure.get_size_inches()
    figure.text(left / width, 1 - top / height, words, color=colour, fontsize=size, va="top")


@dataclass(frozen=True)
class _Lines:
    """Outlines over the slices of a picture."""

    masks: Sequence[NDArray]
    images: Sequence[NDArray]
    name: str

    @classmethod
    def of(
        cls, slices: Slices, outline: NDArray | None, edges: NDArray | None, mask: NDArray, name: str = ""
    ) -> _Lines:
        masks = [] if outline is None else slices.tiles(np.asarray(outline, dtype=float))
        if edges is None:
            return cls(masks, [], "")
        inside = mask & np.isfinite(edges)
        values = np.where(inside, np.nan_to_num(np.asarray(edges, dtype=np.float32)), 0)
        images = []
        for tile, within in zip(slices.tiles(values), slices.tiles(inside.astype(np.float32)), strict=True):
            wide = SURROUNDINGS / np.array([slices.spacing[1], slices.spacing[0]])
            around = gaussian_filter(tile, wide) / np.maximum(gaussian_filter(within, wide), 1e-6)
            images.append(gaussian_filter(tile, 0.5) / np.where(around > 0, around, 1))
        return cls(masks, images, "bright structures" + (f" of {name}" if name else ""))

    def draw(self, tiles: Sequence[Any]) -> None:
        for drawn, level, colour in ((self.masks, 0.5, OUTLINE), (self.images, BRIGHT, EDGE)):
            for axes, tile in zip(tiles, drawn, strict=False):
                if _crosses(tile, level):
                    axes.contour(tile, levels=[level], colors=[colour], linewidths=0.8)

    def legend(self, figure: Figure) -> None:
        """What the colours are that are drawn, in the last line of a page that has room for it."""
        left, top = LEFT, figure.get_size_inches()[1] - 0.2
        for drawn, level, colour, words in (
            (self.masks, 0.5, OUTLINE, "mask"),
            (self.images, BRIGHT, EDGE, self.name),
        ):
            if any(_crosses(tile, level) for tile in drawn):
                _say(figure, left, top, "\N{BLACK SQUARE}", colour, 9)
                _say(figure, left + 0.15, top + 0.01, words)
                left += 0.35 + 0.065 * len(words)

    @property
    def height(self) -> float:
        """Inches that the legend needs."""
        return 0.2 if len(self.masks) or len(self.images) else 0.0


def _crosses(tile: NDArray, level: float) -> bool:
    """Whether a slice has an outline at a level."""
    return bool(np.min(tile) < level < np.max(tile))


@styled
def plot_registration(
    path: Path | str, pictures: Mapping[str, NDArray], mask: NDArray, affine: NDArray, *, edges: bool = True
) -> Path:
    """Outlines of the first picture over all of them: where they match, volumes are aligned.

    Parameters
    ----------
    path : path
    pictures : mapping of name to ndarray, shape (x, y, z)
        The reference, such as the first image of the lowest b-value, then others, such as the mean of the highest
        shell; each on a grey scale of its own.
    mask : ndarray of bool, shape (x, y, z)
        Outlined, too.
    affine : ndarray, shape (4, 4)
    edges : bool
        Whether the boundary of bright structures of the reference is drawn.
    """
    mask = np.asarray(mask, dtype=bool)
    shown = mask if mask.any() else np.ones_like(mask)
    grid = _Grid.around(shown, affine, len(pictures), 1, 0.0, smallest=1.4)
    reference, image = next(iter(pictures.items()))
    lines = _Lines.of(grid.slices, mask, image if edges else None, shown, reference)
    height = grid.top(1, 0) - HEADING - LABEL + 0.06
    figure = page(height + FOOT + lines.height, grid.width)
    for column, (name, volume) in enumerate(pictures.items()):
        tiles = _tiles(figure, grid, 0, column, 0, name)
        limits = _grey_limits(np.asarray(volume)[shown], zero=True)
        for axes, tile in zip(tiles, grid.slices.tiles(volume), strict=True):
            show(axes, tile, grid.slices, cmap="gray", norm=Normalize(*limits))
        lines.draw(tiles)
    draw_foot(figure, grid.slices, grid.tile, height + 0.05)
    lines.legend(figure)
    return save(figure, path)


@styled
def plot_motion(
    path: Path | str,
    b_values: ArrayLike,
    motion: NDArray | None,
    framewise_displacement: NDArray | None = None,
    *,
    std_dvars: NDArray | None = None,
    is_outlier: NDArray | None = None,
    left_out: Sequence[int] = (),
) -> Path:
    """How each volume lies against the reference, how far it moved since the one before, and how it differs.

    Parameters
    ----------
    path : path
    b_values : array_like, shape (n,)
        s/mm^2; in colours beneath.
    motion : ndarray, shape (n, 6), or None
        Translations (mm) and rotations (radians; drawn in degrees).
    framewise_displacement : ndarray, shape (n,), optional
        mm.
    std_dvars : ndarray, shape (n,), optional
    is_outlier : ndarray of bool, shape (n,), optional
        Marked by bands.
    left_out : sequence of int, optional
        Volumes without values, counted from 0; marked by grey bands.
    """
    b = np.asarray(b_values, dtype=float)
    plots: list[tuple[str, list[NDArray], tuple[str, ...]]] = []
    if motion is not None:
        moved = np.asarray(motion, dtype=float).T
        plots.append(("translation (mm)", list(moved[:3]), AXES))
        if moved[3:].any() or not moved.any():  # organs that are deformed are not turned
            plots.append(("rotation (°)", list(np.rad2deg(moved[3:])), AXES))
    if framewise_displacement is not None and np.isfinite(framewise_displacement).any():
        plots.append(("framewise\ndisplacement (mm)", [np.asarray(framewise_displacement, dtype=float)], (INK,)))
    if std_dvars is not None and np.isfinite(std_dvars).any():
        plots.append(("standardised\nDVARS", [np.asarray(std_dvars, dtype=float)], (INK,)))
    track = _Track(b, len(plots), [PLOT] * len(plots))
    for row, (label, values, colours) in enumerate(plots):
        axes = track.axes(row)
        axes.set_ylabel(label)
        axes.yaxis.set_label_coords(LABEL_PLACE / track.plot_width, 0.5)
        signed = len(values) == 3
        if signed:
            axes.axhline(0, color=FAINT, linewidth=0.8, zorder=0)
        for series, colour in zip(values, colours, strict=True):
            marker = {"marker": "o", "markersize": 2.2} if b.size < 80 else {}
            axes.plot(track.volumes, series, color=colour, linewidth=1.0, **marker)
        if signed:
            for i, name in enumerate("xyz"):
                axes.text(1.015, 0.8 - 0.28 * i, name, transform=axes.transAxes, color=AXES[i], va="center")
        else:
            finite = values[0][np.isfinite(values[0])]
            axes.set_ylim(bottom=0, top=max(1.15 * finite.max(initial=0.0), 0.1))
            words = f"mean {readable(finite.mean())}\nmax. {readable(finite.max())}" if finite.size else "not known"
            note(axes, 1.015, 0.5, words, "left", "center")
        _calm(axes, values, signed)
        axes.yaxis.set_major_locator(ticks(4))
        track.mark(axes, is_outlier, left_out)
    track.finish(is_outlier, left_out)
    return save(track.figure, path)


def _calm(axes: Any, values: Sequence[NDArray], signed: bool) -> None:
    """Movements too small to matter are not blown up to fill the plot."""
    if signed:
        largest = max(float(np.nanmax(np.abs(series), initial=0.0)) for series in values)
        extent = max(1.1 * largest, 0.2)
        axes.set_ylim(-extent, extent)


class _Track:
    """Plots above one another that share the axis of volumes, with the b-values in colours beneath."""

    def __init__(self, b_values: NDArray, n_plots: int, heights: Sequence[float]) -> None:
        self.b_values = b_values
        self.volumes = np.arange(b_values.size)
        self.heights = heights
        self.tops = [0.22 + float(np.sum(heights[:i])) + i * SPACE for i in range(n_plots)]
        self.strip_top = (self.tops[-1] + heights[-1] if n_plots else 0.0) + 0.14
        self.figure = page(self.strip_top + STRIP + WORDS)
        self.plot_width = WIDTH - LEFT_OF_PLOT - RIGHT_OF_PLOT

    def axes(self, row: int) -> Any:
        """Empty axes of one plot."""
        axes = inches(self.figure, LEFT_OF_PLOT, self.tops[row], self.plot_width, self.heights[row])
        axes.set_xlim(-0.5, self.volumes.size - 0.5)
        axes.xaxis.set_major_locator(ticks(10, integer=True, min_n_ticks=1))
        axes.tick_params(labelbottom=False)
        return axes

    def mark(self, axes: Any, is_outlier: NDArray | None, left_out: Sequence[int] = ()) -> None:
        """Bands over the volumes that are outliers, and over those that were left out."""
        for k in left_out:
            axes.axvspan(k - 0.5, k + 0.5, color=FAINT, linewidth=0, zorder=0)
        for volume in self._outliers(is_outlier):
            axes.axvspan(volume - 0.5, volume + 0.5, color=WARM, alpha=0.25, linewidth=0, zorder=0)

    def _outliers(self, is_outlier: NDArray | None) -> NDArray:
        return self.volumes[:0] if is_outlier is None else self.volumes[np.asarray(is_outlier, dtype=bool)]

    def finish(self, is_outlier: NDArray | None, left_out: Sequence[int] = ()) -> None:
        """The strip of b-values, its colours in words, and the numbers of the outliers and of what was left out."""
        shells = Acquisition(self.b_values).shells
        colours = matplotlib.colormaps[SHELLS](np.linspace(DARKEST, LIGHTEST, max(len(shells), 2)))[: len(shells)]
        member = np.zeros(self.b_values.size, dtype=int)
        for number, shell in enumerate(shells):
            member[shell.indices] = number
        axes = inches(self.figure, LEFT_OF_PLOT, self.strip_top, self.plot_width, STRIP)
        axes.imshow(
            member[None],
            aspect="auto",
            interpolation="nearest",
            cmap=ListedColormap(colours),
            vmin=-0.5,
            vmax=len(shells) - 0.5,
            extent=(-0.5, self.volumes.size - 0.5, 0, 1),
        )
        axes.spines[:].set_visible(False)
        axes.set(yticks=[])
        axes.text(1.01, -0.95, "volume", transform=axes.transAxes, va="center", fontsize=8.5, color=QUIET)
        axes.xaxis.set_major_locator(ticks(10, integer=True, min_n_ticks=1))
        axes.set_ylabel("b", rotation=0, va="center", ha="right", labelpad=6)
        left, top = LEFT_OF_PLOT, self.strip_top + STRIP + 0.3
        few = len(shells) <= MOST_SHELLS
        for number in range(len(shells)) if few else (0, len(shells) - 1):
            words = f"{shells[number].b_value:.0f}"
            _say(self.figure, left, top, "\N{BLACK SQUARE}", colours[number], 9)
            _say(self.figure, left + 0.15, top + 0.01, words)
            left += 0.28 + 0.075 * len(words)
            if not few and number == 0:
                _say(self.figure, left - 0.06, top + 0.01, "to")
                left += 0.15
        _say(self.figure, left, top + 0.01, "s/mm²")
        count = self._outliers(is_outlier).size
        if count:
            _say(self.figure, left + 0.75, top, "\N{BLACK SQUARE}", WARM, 9)
            _say(self.figure, left + 0.9, top + 0.01, f"outlier volume{'s' if count > 1 else ''} ({count})")
            left += 1.6
        if len(left_out) > 0:
            _say(self.figure, left + 0.75, top, "\N{BLACK SQUARE}", FAINT, 9)
            _say(self.figure, left + 0.9, top + 0.01, f"left out ({len(left_out)})")


@styled
def plot_outliers(
    path: Path | str,
    slice_z: NDArray,
    std_dvars: NDArray,
    b_values: ArrayLike,
    *,
    is_outlier: NDArray | None = None,
    left_out: Sequence[int] = (),
    threshold: float = 4.0,
) -> Path:
    """Mean signal of every slice of every volume against what its shell predicts; above, differences of volumes.

    Parameters
    ----------
    path : path
    slice_z : ndarray, shape (n_slices, n)
        Standard deviations; NaN (grey) where a slice is not judged, but not everywhere.
    std_dvars : ndarray, shape (n,)
    b_values : array_like, shape (n,)
    is_outlier : ndarray of bool, shape (n,), optional
    left_out : sequence of int, optional
    threshold : float
        Standard deviations below which a slice has lost signal; ringed where there is room.
    """
    slice_z = np.asarray(slice_z, dtype=float)
    height = float(np.clip(0.09 * len(slice_z), 0.55, 3.0))
    track = _Track(np.asarray(b_values, dtype=float), 2, [0.8, height])
    above = track.axes(0)
    finite = std_dvars[np.isfinite(std_dvars)]
    above.axhline(1, color=FAINT, linewidth=0.8, zorder=0)
    above.plot(track.volumes, std_dvars, color=INK, linewidth=1.0, marker="o", markersize=2.2)
    above.set(ylim=(0, max(1.15 * finite.max(initial=0.0), 2.0)), ylabel="standardised\nDVARS")
    above.yaxis.set_major_locator(ticks(3))
    track.mark(above, is_outlier, left_out)
    below = track.axes(1)
    _label(track, (above, below))
    picture = below.imshow(
        slice_z,
        aspect="auto",
        origin="lower",
        interpolation="nearest",
        cmap=_with_unknown(DIVERGING),
        norm=Normalize(-SLICE_LIMIT, SLICE_LIMIT),
        extent=(-0.5, track.volumes.size - 0.5, -0.5, len(slice_z) - 0.5),
    )
    below.set_ylabel("slice")
    below.yaxis.set_major_locator(ticks(4, integer=True, min_n_ticks=1))
    lost = np.argwhere(slice_z < -threshold)
    if len(lost) > 0:
        below.plot(lost[:, 1], lost[:, 0], "o", color=OUTLINE, markersize=2.6)
    _bar(track, picture, 1, slice_z, SLICE_LIMIT)
    track.finish(is_outlier, left_out)
    return save(track.figure, path)


@styled
def plot_carpet(
    path: Path | str,
    values: NDArray,
    labels: NDArray,
    b_values: ArrayLike,
    *,
    is_outlier: NDArray | None = None,
    left_out: Sequence[int] = (),
    label_names: Mapping[int, str] | None = None,
) -> Path:
    """Many voxels (rows) over all volumes (columns), as differences from the shell: outliers are vertical stripes.

    Parameters
    ----------
    path : path
    values : ndarray, shape (n_rows, n)
        Standard deviations from the median of the shell; NaN (grey) where there is nothing to compare with, but not
        everywhere.
    labels : ndarray of int, shape (n_rows,)
        Groups of rows, such as tissues, in ascending order.
    b_values : array_like, shape (n,)
    is_outlier : ndarray of bool, shape (n,), optional
        Marked above.
    left_out : sequence of int, optional
    label_names : mapping of int to str, optional
    """
    values, labels = np.asarray(values, dtype=float), np.asarray(labels)
    track = _Track(np.asarray(b_values, dtype=float), 1, [2.6])
    axes = track.axes(0)
    picture = axes.imshow(
        values,
        aspect="auto",
        interpolation="nearest" if len(values) < 390 else "antialiased",
        cmap=_with_unknown("gray"),
        norm=Normalize(-CARPET_LIMIT, CARPET_LIMIT),
        extent=(-0.5, track.volumes.size - 0.5, len(values), 0),
    )
    axes.set(yticks=[])
    axes.spines[:].set_visible(False)
    groups = np.unique(labels)
    side = inches(track.figure, LEFT_OF_PLOT - 0.14, track.tops[0], 0.09, track.heights[0])
    side.set(xlim=(0, 1), ylim=(len(values), 0))
    side.axis("off")
    for number, group in enumerate(groups):
        rows = np.flatnonzero(labels == group)
        side.axhspan(rows[0], rows[-1] + 1, color=LABELS[number % len(LABELS)], linewidth=0)
        words = (label_names or {}).get(int(group), f"label {group}" if len(groups) > 1 else "voxels of the mask")
        if len(rows) > 0.04 * len(values):
            side.text(-0.5, (rows[0] + rows[-1]) / 2, words, rotation=90, ha="right", va="center", fontsize=8.5)
    for volume in track._outliers(is_outlier):
        axes.annotate(
            "\N{BLACK DOWN-POINTING TRIANGLE}",
            (volume, 0),
            (0, 1),
            textcoords="offset points",
            ha="center",
            va="bottom",
            color=WARM,
            fontsize=7,
            annotation_clip=False,
        )
    _bar(track, picture, 0, values, CARPET_LIMIT)
    track.finish(is_outlier, left_out)
    return save(track.figure, path)


def _label(track: _Track, rows: Sequence[Any]) -> None:
    """Names of vertical axes in one line."""
    for axes in rows:
        axes.yaxis.set_label_coords(LABEL_PLACE / track.plot_width, 0.5)


def _with_unknown(name: str) -> Any:
    """A colour map in which what is not known is a light grey-blue, unlike any of its colours."""
    return matplotlib.colormaps[name].with_extremes(bad="#dfe5ea")


def _bar(track: _Track, picture: Any, row: int, values: NDArray, limit: float) -> None:
    """Scale right of a plot, with its unit."""
    finite = values[np.isfinite(values)]
    if not finite.size:
        return
    right, top, height = LEFT_OF_PLOT + track.plot_width, track.tops[row], track.heights[row]
    draw_scale(track.figure, picture, finite, (-limit, limit), right, top, height)
    _say(track.figure, right + GAP + 0.02, top - 0.17, "SD")


@styled
def plot_snr(path: Path | str, b_values: ArrayLike, snr: ArrayLike, n_volumes: ArrayLike) -> Path:
    """Signal-to-noise ratio of one volume of each shell, in the mean over the mask.

    Parameters
    ----------
    path : path
    b_values, snr, n_volumes : array_like, shape (n_shells,)
        In ascending order of b; SNR is NaN where it is not known.
    """
    b, ratio, count = (np.asarray(values, dtype=float) for values in (b_values, snr, n_volumes))
    width = float(np.clip(1.2 + 0.75 * b.size, 4.0, WIDTH))
    figure = page(2.35, width)
    axes = inches(figure, 0.6, 0.2, width - 0.75, 1.45)
    colours = matplotlib.colormaps[SHELLS](np.linspace(DARKEST, LIGHTEST, max(b.size, 2)))[: b.size]
    places = np.arange(b.size)
    axes.bar(places, np.nan_to_num(ratio), width=0.62, color=colours)
    for place, value in zip(places, ratio, strict=True):
        words = readable(value) if np.isfinite(value) else "not known"
        axes.text(place, np.nan_to_num(value), words, ha="center", va="bottom", fontsize=8.5)
    top = 1.18 * float(np.nanmax(ratio, initial=NOISE_FLOOR))
    axes.set(xlim=(-0.6, b.size - 0.4), ylim=(0, top), ylabel="SNR of one volume", xlabel="b (s/mm²)")
    axes.set_xticks(places, [f"{value:.0f}\nn = {n:.0f}" for value, n in zip(b, count, strict=True)], color=INK)
    axes.tick_params(axis="x", length=0)
    axes.yaxis.set_major_locator(ticks(4))
    axes.axhline(NOISE_FLOOR, color=ACCENT, linewidth=0.8, linestyle=(0, (4, 3)))
    return save(figure, path)
