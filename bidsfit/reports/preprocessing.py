"""Figures of the preprocessing: effect of each step, registration, motion, outliers and SNR."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from numpy.typing import ArrayLike, NDArray
from scipy.ndimage import gaussian_filter

from bidsfit.acquisition import Acquisition
from bidsfit.reports.canvas import ACCENT, FAINT, INK, QUIET, WARM, WIDTH, note, page, save, styled, ticks
from bidsfit.reports.charts import shell_colours
from bidsfit.reports.comparisons import DIVERGING, ESTIMATORS
from bidsfit.reports.mosaics import OUTLINE, draw_scale
from bidsfit.reports.slices import Slices
from bidsfit.reports.tiles import Mosaic, show
from bidsfit.reports.words import readable

#: Colours of edges over a grey picture, of x, y and z, and of labels beside a carpet.
EDGE = "#35d0ba"
AXES = (ESTIMATORS[1], ESTIMATORS[3], ESTIMATORS[2])
LABELS = ("#8f9aa6", "#56b4e9", "#e69f00", "#009e73", "#cc79a7")

#: Bright structures are so much brighter than the mean of what lies around them (Gaussian of so many mm), which evens
#: out the sensitivity of coils.
BRIGHT, SURROUNDINGS = 1.35, 12.0

#: Slices of one picture at most, widths of a tile in inches, and the crop, which reaches beyond the mask.
MANY: dict[str, Any] = {"most": 4, "smallest": 1.05, "largest": 2.4, "margin": 0.12, "padding": 4}

#: Height of the strip of b-values, in inches.
STRIP = 0.16

#: Limits of the colours, in standard deviations: of slices, and of a carpet.
SLICE_LIMIT, CARPET_LIMIT = 6.0, 2.5

#: SNR below which the mean of a Rician magnitude is more than 5 % too high.
NOISE_FLOOR = 3.0

#: Shells named beside the strip of b-values; more are told by their range.
MOST_SHELLS = 9


@dataclass(frozen=True)
class StepView:
    """A preprocessing step, as given to its figure.

    Parameters
    ----------
    before, after : ndarray, shape (x, y, z, n)
        Volumes before and after the step; the same if it does not change the image.
    pictures : ndarray, shape (x, y, z) or (x, y, z, k), or None
        Volumes that the step produced for its figure.
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
    """Slices before and after a step with the same grey scale, and their difference.

    Pictures extend beyond the mask, since noise, ringing and distortion are most visible at edges.

    Parameters
    ----------
    path : path
        ``.png`` or ``.svg``.
    before, after : ndarray, shape (x, y, z) or (x, y, z, k)
        ``k`` volumes, or statistics of all volumes such as their standard deviation; one line each.
    mask : ndarray of bool, shape (x, y, z)
        Determines slices, display ranges and crop.
    affine : ndarray, shape (4, 4)
    title : str
        Title of the figure; may be empty.
    names : tuple of str
        Names of the two pictures.
    rows : sequence of str
        Label of each line, such as "b = 1000".
    others : mapping of name to ndarray, shaped as ``before``, optional
        Pictures shown between the two, with the same scale, such as the image of reversed phase encoding.
    difference : bool
        Whether to show after minus before.
    outline : ndarray of bool, shape (x, y, z), optional
        Mask outlined on every picture except the difference.
    edges : ndarray, shape (x, y, z), optional
        Image whose bright structures are outlined on every picture except the difference.
    cmap : str
        Colour map of the pictures.
    zero : bool
        Whether the scale of the pictures starts at 0.
    """
    mask = np.asarray(mask, dtype=bool)
    mask = mask if mask.any() else np.ones_like(mask)
    pictures = {names[0]: before, **(others or {}), names[1]: after}
    volumes = {name: _four_dimensional(volume) for name, volume in pictures.items()}
    n_rows = volumes[names[0]].shape[3]
    columns = len(pictures) + difference
    mosaic = Mosaic.around(mask, affine, n_rows * columns, columns, bars=int(difference), **MANY)
    lines = _Lines.of(mosaic.slices, outline, edges, mask)
    for row in range(n_rows):
        what = f", {rows[row]}" if len(rows) > row else ""
        limits = _grey_limits(volumes[names[0]][..., row][mask], zero)
        for column, (name, volume) in enumerate(volumes.items()):
            axes, picture = mosaic.begin(row, column, name + what), mosaic.slices.strip(volume[..., row])
            show(axes, picture, cmap=matplotlib.colormaps[cmap], norm=Normalize(*limits))
            lines.draw(axes)
        if difference:
            apart = np.asarray(volumes[names[1]][..., row], dtype=float) - volumes[names[0]][..., row]
            axes = mosaic.begin(row, len(volumes), f"{names[1]} \N{MINUS SIGN} {names[0]}{what}")
            _draw_difference(mosaic, row, axes, apart, mask)
    mosaic.end(entries=lines.entries, columns=2, title=title)
    return save(mosaic.figure, path, turns=[(row[0], row[len(pictures) - 1]) for row in mosaic.rows])


def _draw_difference(mosaic: Mosaic, line: int, axes: Any, apart: NDArray, mask: NDArray) -> None:
    """Draw the difference, white where it is zero, with its colour bar."""
    inside = apart[mask & np.isfinite(apart)]
    extent = float(np.percentile(np.abs(inside), 98)) if inside.size else 0.0
    extent = extent if extent > 0 else 1.0
    picture = show(axes, mosaic.slices.strip(apart), cmap=DIVERGING, norm=Normalize(-extent, extent))
    if inside.size:
        draw_scale(mosaic.figure, picture, inside, cax=mosaic.scale(line))


def _four_dimensional(volume: NDArray) -> NDArray:
    array = np.asarray(volume)
    return array[..., None] if array.ndim == 3 else array


def _grey_limits(values: NDArray, zero: bool) -> tuple[float, float]:
    """Display range of an image from the values inside the mask; never empty."""
    finite = values[np.isfinite(values)]
    if finite.size == 0:
        return 0.0, 1.0
    low, high = (float(limit) for limit in np.percentile(finite, [1, 99.5]))
    low = min(low, 0.0) if zero else low
    return (low, high) if high > low else (low, low + 1.0)


@dataclass(frozen=True)
class _Lines:
    """Outlines drawn over the slices of a picture."""

    mask: NDArray | None
    image: NDArray | None
    name: str

    @classmethod
    def of(
        cls, slices: Slices, outline: NDArray | None, edges: NDArray | None, mask: NDArray, name: str = ""
    ) -> _Lines:
        drawn = None if outline is None else slices.strip(np.asarray(outline, dtype=float))
        if edges is None:
            return cls(drawn, None, "")
        inside = mask & np.isfinite(edges)
        values = np.where(inside, np.nan_to_num(np.asarray(edges, dtype=np.float32)), 0)
        images = []
        for tile, within in zip(slices.tiles(values), slices.tiles(inside.astype(np.float32)), strict=True):
            wide = SURROUNDINGS / np.array([slices.spacing[1], slices.spacing[0]])
            around = gaussian_filter(tile, wide) / np.maximum(gaussian_filter(within, wide), 1e-6)
            images.append(gaussian_filter(tile, 0.5) / np.where(around > 0, around, 1))
        return cls(drawn, slices.joined(images), "bright structures" + (f" of {name}" if name else ""))

    def draw(self, axes: Any) -> None:
        for drawn, level, colour in ((self.mask, 0.5, OUTLINE), (self.image, BRIGHT, EDGE)):
            if _crosses(drawn, level):
                axes.contour(drawn, levels=[level], colors=[colour], linewidths=0.8)

    @property
    def entries(self) -> list[Patch]:
        """Legend of the outlines that are drawn."""
        return [
            Patch(color=colour, label=words)
            for drawn, level, colour, words in (
                (self.mask, 0.5, OUTLINE, "mask"),
                (self.image, BRIGHT, EDGE, self.name),
            )
            if _crosses(drawn, level)
        ]


def _crosses(drawn: NDArray | None, level: float) -> bool:
    """Whether a picture has an outline at this level."""
    return drawn is not None and bool(np.min(drawn) < level < np.max(drawn))


@styled
def plot_registration(
    path: Path | str, pictures: Mapping[str, NDArray], mask: NDArray, affine: NDArray, *, edges: bool = True
) -> Path:
    """Outlines of the first picture on all pictures, to show whether volumes are aligned.

    Parameters
    ----------
    path : path
    pictures : mapping of name to ndarray, shape (x, y, z)
        First the reference, such as the first image of the lowest b-value, then others, such as the mean of the highest
        shell. Each has its own grey scale.
    mask : ndarray of bool, shape (x, y, z)
        Outlined on all pictures.
    affine : ndarray, shape (4, 4)
    edges : bool
        Whether bright structures of the reference are outlined.
    """
    mask = np.asarray(mask, dtype=bool)
    shown = mask if mask.any() else np.ones_like(mask)
    mosaic = Mosaic.around(shown, affine, len(pictures), len(pictures), bars=0, **MANY | {"smallest": 1.4})
    reference, image = next(iter(pictures.items()))
    lines = _Lines.of(mosaic.slices, mask, image if edges else None, shown, reference)
    for column, (name, volume) in enumerate(pictures.items()):
        axes = mosaic.begin(0, column, name)
        limits = _grey_limits(np.asarray(volume)[shown], zero=True)
        show(axes, mosaic.slices.strip(volume), cmap="gray", norm=Normalize(*limits))
        lines.draw(axes)
    mosaic.end(entries=lines.entries, columns=2)
    return save(mosaic.figure, path)


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
    """Motion of each volume: position relative to the reference, framewise displacement and DVARS.

    Parameters
    ----------
    path : path
    b_values : array_like, shape (n,)
        s/mm^2; shown as colours below.
    motion : ndarray, shape (n, 6), or None
        Translations (mm) and rotations (radians; shown in degrees).
    framewise_displacement : ndarray, shape (n,), optional
        mm.
    std_dvars : ndarray, shape (n,), optional
        Standardised DVARS.
    is_outlier : ndarray of bool, shape (n,), optional
        Marked by bands.
    left_out : sequence of int, optional
        Volumes without values, counted from 0; marked by grey bands.
    """
    b = np.asarray(b_values, dtype=float)
    plots: list[tuple[str, list[NDArray], tuple[str, ...]]] = []
    if motion is not None:
        moved = np.asarray(motion, dtype=float).T
        plots.append(("translation\n(mm)", list(moved[:3]), AXES))
        if moved[3:].any() or not moved.any():  # organs that are deformed are not turned
            plots.append(("rotation\n(°)", list(np.rad2deg(moved[3:])), AXES))
    if framewise_displacement is not None and np.isfinite(framewise_displacement).any():
        plots.append(("framewise\ndisplacement\n(mm)", [np.asarray(framewise_displacement, dtype=float)], (INK,)))
    if std_dvars is not None and np.isfinite(std_dvars).any():
        plots.append(("standardised\nDVARS", [np.asarray(std_dvars, dtype=float)], (INK,)))
    figure, tracks = _over_volumes(b, [1.0] * len(plots), is_outlier, left_out)
    for axes, (label, values, colours) in zip(tracks, plots, strict=True):
        axes.set_ylabel(label)
        signed = len(values) == 3
        if signed:
            axes.axhline(0, color=FAINT, linewidth=0.8, zorder=0)
        for series, colour, name in zip(values, colours, "xyz", strict=False):
            marker = {"marker": "o", "markersize": 2.2} if b.size < 80 else {}
            axes.plot(series, color=colour, linewidth=1.0, label=name, **marker)
        finite = np.abs(values)[np.isfinite(values)]
        if signed:
            axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), labelcolor="linecolor", handlelength=0)
            extent = max(1.1 * finite.max(initial=0.0), 0.2)  # movements too small to matter do not fill the plot
            axes.set_ylim(-extent, extent)
        else:
            axes.set_ylim(bottom=0, top=max(1.15 * finite.max(initial=0.0), 0.1))
            words = f"mean {readable(finite.mean())}\nmax. {readable(finite.max())}" if finite.size else "not known"
            note(axes, 1.015, 0.5, words, "left", "center")
        axes.yaxis.set_major_locator(ticks(4))
    return save(figure, path)


def _over_volumes(
    b_values: NDArray, heights: Sequence[float], is_outlier: NDArray | None, left_out: Sequence[int]
) -> tuple[Figure, list[Any]]:
    """Empty plots one above the other with a common axis of volumes, and the b-values in colours below.

    Bands mark outlier volumes and those that were left out.
    """
    outliers = np.flatnonzero([] if is_outlier is None else is_outlier)
    figure = page(1.0 + sum(heights) + 0.2 * len(heights))
    ratios = [*heights, STRIP]
    *plots, strip = figure.subplots(len(ratios), sharex=True, squeeze=False, height_ratios=ratios).flat
    for axes in plots:
        for volumes, band in ((left_out, {"color": FAINT}), (outliers, {"color": WARM, "alpha": 0.25})):
            for volume in volumes:
                axes.axvspan(volume - 0.5, volume + 0.5, **band, linewidth=0, zorder=0)
    shells = Acquisition(b_values).shells
    picture = np.empty((1, b_values.size, 4))
    entries = []
    for shell, colour in zip(shells, shell_colours(len(shells)), strict=True):
        picture[:, shell.indices] = colour
        entries.append(Patch(color=colour, label=f"{shell.b_value:.0f}"))
    if len(entries) > MOST_SHELLS:
        entries[0].set_label(f"{entries[0].get_label()} to")
        del entries[1:-1]
    for count, colour, words in ((outliers.size, WARM, "outlier volumes"), (len(left_out), FAINT, "left out")):
        entries += [Patch(color=colour, label=f"{words} ({count})")] if count else []
    strip.imshow(picture, aspect="auto", interpolation="nearest")
    strip.spines[:].set_visible(False)
    strip.set(yticks=[], xlabel="volume")
    strip.set_ylabel("b (s/mm²)", rotation=0, va="center", ha="right")
    strip.xaxis.set_major_locator(ticks(10, integer=True, min_n_ticks=1))
    figure.align_ylabels(plots)
    figure.legend(handles=entries, loc="outside lower left", ncols=len(entries), fontsize=8, handlelength=0.8)
    return figure, plots


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
    """Mean signal of each slice and volume relative to the prediction of its shell, and above standardised DVARS.

    Parameters
    ----------
    path : path
    slice_z : ndarray, shape (n_slices, n)
        Standard deviations; NaN (grey) if a slice is not assessed. At least one must be finite.
    std_dvars : ndarray, shape (n,)
    b_values : array_like, shape (n,)
        s/mm^2.
    is_outlier : ndarray of bool, shape (n,), optional
    left_out : sequence of int, optional
    threshold : float
        Standard deviations below which a slice counts as signal loss; such slices are circled if there is room.
    """
    slice_z = np.asarray(slice_z, dtype=float)
    height = float(np.clip(0.09 * len(slice_z), 0.55, 3.0))
    figure, (above, below) = _over_volumes(np.asarray(b_values, dtype=float), [0.95, height], is_outlier, left_out)
    finite = std_dvars[np.isfinite(std_dvars)]
    above.axhline(1, color=FAINT, linewidth=0.8, zorder=0)
    above.plot(std_dvars, color=INK, linewidth=1.0, marker="o", markersize=2.2)
    above.set(ylim=(0, max(1.15 * finite.max(initial=0.0), 2.0)), ylabel="standardised\nDVARS")
    above.yaxis.set_major_locator(ticks(3))
    _show_deviations(below, slice_z, DIVERGING, SLICE_LIMIT, origin="lower", interpolation="nearest")
    below.set_ylabel("slice")
    below.yaxis.set_major_locator(ticks(4, integer=True, min_n_ticks=1))
    lost = np.argwhere(slice_z < -threshold)
    below.plot(lost[:, 1], lost[:, 0], "o", color=OUTLINE, markersize=2.6)
    return save(figure, path)


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
    """Voxels (rows) in all volumes (columns), as differences from their shell; outliers are vertical stripes.

    Parameters
    ----------
    path : path
    values : ndarray, shape (n_rows, n)
        Standard deviations from the median of the shell; NaN (grey) if unknown. At least one must be finite.
    labels : ndarray of int, shape (n_rows,)
        Groups of rows, such as tissues, in ascending order.
    b_values : array_like, shape (n,)
        s/mm^2.
    is_outlier : ndarray of bool, shape (n,), optional
        Marked above.
    left_out : sequence of int, optional
    label_names : mapping of int to str, optional
    """
    values, labels = np.asarray(values, dtype=float), np.asarray(labels)
    figure, (axes,) = _over_volumes(np.asarray(b_values, dtype=float), [2.6], is_outlier, left_out)
    _show_deviations(
        axes, values, "gray", CARPET_LIMIT, interpolation="nearest" if len(values) < 390 else "antialiased"
    )
    axes.spines[:].set_visible(False)
    groups, first, count = np.unique(labels, return_index=True, return_counts=True)
    rest = "label {}" if groups.size > 1 else "voxels of the mask"
    entries = []
    for group, start, height, colour in zip(groups, first - 0.5, count, cycle(LABELS), strict=False):
        words = (label_names or {}).get(int(group), rest.format(group))
        band = Rectangle((-0.015, start), 0.01, height, color=colour, linewidth=0, label=words, clip_on=False)
        entries.append(axes.add_patch(band))
        band.set_transform(axes.get_yaxis_transform())
    figure.legend(handles=entries, loc="outside upper left", ncols=6, fontsize=8, handlelength=0.8)
    axes.set(yticks=[], ylim=(len(values) - 0.5, -0.5))
    for volume in np.flatnonzero([] if is_outlier is None else is_outlier):
        above = {"transform": axes.get_xaxis_transform(), "ha": "center", "fontsize": 7}
        axes.text(float(volume), 1.01, "\N{BLACK DOWN-POINTING TRIANGLE}", color=WARM, **above)
    return save(figure, path)


def _show_deviations(axes: Any, values: NDArray, cmap: str, limit: float, **options: Any) -> None:
    """Draw standard deviations with a colour bar; NaN has a colour that is not in the scale."""
    colours = matplotlib.colormaps[cmap].with_extremes(bad="#dfe5ea")
    picture = axes.imshow(values, aspect="auto", cmap=colours, norm=Normalize(-limit, limit), **options)
    finite = values[np.isfinite(values)]
    if finite.size:
        draw_scale(axes.figure, picture, finite, ax=axes, pad=0.01).ax.set_title("SD", fontsize=8, color=QUIET)


@styled
def plot_snr(path: Path | str, b_values: ArrayLike, snr: ArrayLike, n_volumes: ArrayLike) -> Path:
    """Signal-to-noise ratio of one volume of each shell, averaged over the mask.

    Parameters
    ----------
    path : path
    b_values, snr, n_volumes : array_like, shape (n_shells,)
        In ascending order of b (s/mm^2); SNR is NaN if unknown.
    """
    b, ratio, count = (np.asarray(values, dtype=float) for values in (b_values, snr, n_volumes))
    width = float(np.clip(1.2 + 0.75 * b.size, 4.0, WIDTH))
    figure = page(2.35, width)
    axes = figure.subplots()
    axes.bar(range(b.size), np.nan_to_num(ratio), width=0.62, color=shell_colours(b.size))
    for place, value in enumerate(ratio):
        words = readable(value) if np.isfinite(value) else "not known"
        axes.text(place, np.nan_to_num(value), words, ha="center", va="bottom", fontsize=8.5)
    top = 1.18 * float(np.nanmax(ratio, initial=NOISE_FLOOR))
    axes.set(xlim=(-0.6, b.size - 0.4), ylim=(0, top), ylabel="SNR of one volume", xlabel="b (s/mm²)")
    axes.set_xticks(range(b.size), [f"{value:.0f}\nn = {n:.0f}" for value, n in zip(b, count, strict=True)], color=INK)
    axes.tick_params(axis="x", length=0)
    axes.yaxis.set_major_locator(ticks(4))
    axes.axhline(NOISE_FLOOR, color=ACCENT, linewidth=0.8, linestyle=(0, (4, 3)))
    return save(figure, path)
