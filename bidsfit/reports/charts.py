"""Plots of histograms, decay curves, and b-values and directions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator
from numpy.typing import ArrayLike, NDArray

from bidsfit.acquisition import Acquisition, Shell
from bidsfit.reports.canvas import (
    ACCENT,
    FAINT,
    INK,
    QUIET,
    WARM,
    WIDTH,
    note,
    page,
    page_of_cells,
    robust_limits,
    save,
    styled,
    ticks,
)
from bidsfit.reports.words import percent, readable

#: Colours of shells, from low to high b: ordered in lightness, none too light for paper.
SHELLS = "plasma"
DARKEST, LIGHTEST = 0.0, 0.8

#: A shell with fewer directions is not drawn on a sphere of its own.
FEWEST_DIRECTIONS = 6
MOST_SPHERES = 5


class Histogram(NamedTuple):
    """Values of one parameter in the mask. A plain tuple in this order is accepted, too."""

    title: str
    unit: str
    values: NDArray
    limits: tuple[float, float] | None
    bounds: tuple[float, float] | None


@dataclass(frozen=True)
class Curve:
    """Decay of the signal in one voxel.

    Attributes
    ----------
    title : str
    x : ndarray, shape (n,)
        Values of the acquisition variable, such as the b-value.
    signal : ndarray, shape (n,)
        Measured (or averaged) signals.
    error : ndarray, shape (n,), optional
        Standard deviations of the signals.
    fitted_x, fitted : ndarray, shape (m,)
        Fitted curve; drawn as points if it is known at ``x`` only.
    residual : ndarray, shape (n,), optional
        Measured minus fitted, in units of ``signal``; drawn in a separate panel below.
    x_label : str
        Name and unit of ``x``.
    """

    title: str
    x: NDArray
    signal: NDArray
    error: NDArray | None
    fitted_x: NDArray
    fitted: NDArray
    residual: NDArray | None = None
    x_label: str = "b (s/mm²)"


@styled
def plot_histograms(path: Path | str, values: Sequence[Histogram | tuple[Any, ...]]) -> Path:
    """Histogram of each parameter, with its median, 5th and 95th percentile, and the fraction at the bounds.

    Parameters
    ----------
    path : path
    values : sequence of Histogram, or of tuples (title, unit, values, limits, bounds)
        ``values``: shape (n,), NaN without an estimate. Parameters without any number are left out; at least one must
        have some. ``limits``: displayed range (None: from the data). ``bounds``: those of the fit, infinite or None
        without.
    """
    histograms = [histogram for entry in values if np.isfinite((histogram := Histogram(*entry)).values).any()]
    columns = min(len(histograms), 4)
    figure, cells = page_of_cells(len(histograms), 2.75, columns, min(columns * 4.0, WIDTH))
    for axes, histogram in zip(cells.flat, histograms, strict=True):
        _draw_histogram(axes, histogram)
    return save(figure, path)


def _draw_histogram(axes: Any, histogram: Histogram) -> None:
    values = np.ravel(np.asarray(histogram.values, dtype=float))
    finite = values[np.isfinite(values)]
    low, high = histogram.limits if histogram.limits is not None else robust_limits(finite)
    unit = f"  ({histogram.unit})" if histogram.unit else ""
    axes.set(xlim=(low, high), yticks=[])
    axes.set_title(f"{histogram.title}{unit}", pad=20, fontsize=10.5)
    axes.spines["left"].set_visible(False)
    axes.xaxis.set_major_locator(ticks(4))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: readable(value)))
    p5, median, p95 = np.percentile(finite, [5, 50, 95])
    axes.axvspan(p5, p95, color=INK, alpha=0.06, linewidth=0)
    ends, remarks = display_ends(finite, low, high, histogram.bounds)
    counts, edges = np.histogram(finite[~ends], bins=48, range=(low, high))
    apart, _ = np.histogram(np.clip(finite[ends], low, high), bins=edges)
    tallest = counts.max() or apart.max()
    axes.stairs(counts, edges, fill=True, color=ACCENT, alpha=0.35)
    axes.stairs(counts, edges, color=ACCENT, linewidth=0.8)
    axes.stairs(np.where(apart > 0, counts + apart, counts), edges, baseline=counts, fill=True, color=WARM, alpha=0.6)
    axes.set_ylim(0, 1.08 * tallest)
    axes.axvline(median, color=INK, linewidth=1.3)
    words = f"median {readable(median)}  ({readable(p5)} to {readable(p95)})"
    note(axes, 0, 1.03, words, "left", "bottom")
    axes.set_xlabel("\n".join(remarks), loc="left", color=WARM, fontsize=8, linespacing=1.4)


def display_ends(
    finite: NDArray, low: float, high: float, bounds: tuple[float, float] | None
) -> tuple[NDArray[np.bool_], list[str]]:
    """Which values lie at a bound or outside the plot, and their numbers in words.

    They are drawn separately in the outermost bins, which may exceed the frame; the words give their number.
    """
    ends = np.zeros(finite.shape, dtype=bool)
    remarks = []
    for bound, name in zip(bounds or (), ("lower", "upper"), strict=False):
        if np.isfinite(bound):
            at_bound = np.isclose(finite, bound, rtol=1e-5, atol=1e-6 * max(abs(high), abs(low)))
            ends |= at_bound
            if at_bound.any():
                remarks.append(f"{percent(float(at_bound.mean()))} at the {name} bound, {readable(bound)}")
    for outside, name in ((finite < low, "below"), (finite > high, "above")):
        if np.any(outside & ~ends):
            remarks.append(f"{percent(float(np.mean(outside & ~ends)))} {name} the range shown")
        ends |= outside
    return ends, remarks


@styled
def plot_curves(path: Path | str, voxels: Sequence[Curve]) -> Path:
    """Measured signals and fitted curves of a few voxels against b-value or another acquisition variable.

    The signal axis is logarithmic, so that a single exponential is a straight line, or linear if a signal is not
    positive. With many low b-values (IVIM), the low end of the axis is stretched and shaded; both parts have a linear
    scale, so that straight lines remain straight.

    Parameters
    ----------
    path : path
    voxels : sequence of Curve
    """
    columns = min(len(voxels), 3)
    strips = all(curve.residual is not None for curve in voxels)
    height, ratios = (3.3, (18, 5)) if strips else (2.7, (1,))
    figure, cells = page_of_cells(len(voxels), height, columns, max(columns * WIDTH / 3, 5.5), ratios)
    for i, (curve, (main, *below)) in enumerate(zip(voxels, cells, strict=True)):
        _draw_decay(main, curve)
        for strip in below:
            strip.sharex(main)
            _draw_residual(strip, curve)
            main.tick_params(labelbottom=False)
        scale_x(main, float(max(np.max(curve.x), np.max(curve.fitted_x))))
        cells[i, -1].set_xlabel(curve.x_label)
        if i % columns == 0:
            for axes, label in zip(cells[i], ("signal", "residual"), strict=False):
                axes.set_ylabel(label)
    figure.align_ylabels()
    _explain(figure, any(_errors(curve).any() for curve in voxels))
    return save(figure, path)


def _explain(figure: Any, errors: bool) -> None:
    """Add one legend for all voxels."""
    measured = Line2D([], [], color=INK, marker="o", markersize=3.5, linestyle="none")
    handles: list[Any] = [measured, Line2D([], [], color=WARM, linewidth=1.4)]
    words = ["measured" + (" ± standard deviation" if errors else ""), "fitted"]
    figure.legend(handles, words, loc="outside lower left", ncols=3, fontsize=8, handlelength=1.6)


def _draw_decay(axes: Any, curve: Curve) -> None:
    signal, fitted = np.asarray(curve.signal, dtype=float), np.asarray(curve.fitted, dtype=float)
    axes.set_title(curve.title, fontsize=9)
    if np.array_equal(curve.fitted_x, curve.x):  # a line would join what other variables set apart
        axes.plot(curve.x, fitted, "o", color=WARM, markersize=6, fillstyle="none", zorder=4)
    else:
        axes.plot(curve.fitted_x, fitted, color=WARM, linewidth=1.4, zorder=2)
    axes.errorbar(curve.x, signal, yerr=_errors(curve), fmt="o", color=INK, markersize=3.5, elinewidth=0.8, zorder=3)
    scale_signal(axes, np.concatenate([signal, fitted]))


def scale_signal(axes: Any, signals: NDArray) -> None:
    """Set a logarithmic axis around the signals, or a linear one if some are not positive."""
    shown = signals[np.isfinite(signals)]
    if shown.size and np.all(shown > 0):
        room = max((shown.max() / shown.min()) ** 0.08, 1.03)
        low, high = shown.min() / room, shown.max() * room
        axes.set(yscale="log", ylim=(low, high))
        _label_decades(axes, low, high)
    elif shown.size:
        axes.axhline(0, color=FAINT, linewidth=0.8, zorder=1)
        axes.yaxis.set_major_locator(ticks(5))
        note(axes, 1, 1, "linear axis:\nnot every signal is positive", "right", "top")
    else:
        axes.set(yticks=[])
        note(axes, 0.5, 0.5, "no finite value", "center", "center")


def _errors(curve: Curve) -> NDArray:
    """Lengths of the error bars; 0 if a standard deviation is unknown."""
    if curve.error is None:
        return np.zeros(np.shape(curve.signal))
    return np.nan_to_num(np.asarray(curve.error, dtype=float))


def _label_decades(axes: Any, low: float, high: float) -> None:
    """Label a logarithmic axis with about five round numbers, for any range."""
    span = high / low
    if span < 3:
        places = np.asarray(ticks(4).tick_values(low, high))
    else:
        powers = 10.0 ** np.arange(np.floor(np.log10(low)), np.ceil(np.log10(high)) + 1)
        steps = [1, 2, 3, 5, 7] if span < 10 else [1, 2, 5] if span < 200 else [1]
        places = np.sort(np.concatenate([powers * step for step in steps]))
    axes.yaxis.set_major_locator(FixedLocator([tick for tick in places if low <= tick <= high]))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: readable(value)))


def _draw_residual(axes: Any, curve: Curve) -> None:
    axes.axhline(0, color=WARM, linewidth=1)
    axes.errorbar(curve.x, curve.residual, yerr=_errors(curve), fmt="o", color=INK, markersize=2.5, elinewidth=0.7)
    largest = np.nanmax(np.abs(np.asarray(curve.residual, dtype=float)), initial=0.0)
    extent = 1.15 * float(largest + _errors(curve).max(initial=0.0))
    typical = float(np.nanmax(np.abs(np.asarray(curve.fitted, dtype=float)), initial=0.0)) or 1.0
    extent = max(extent, 1e-3 * typical)  # rounding errors are not blown up to fill the strip
    axes.set_ylim(-extent, extent)
    axes.yaxis.set_major_locator(ticks(2, symmetric=True))


def scale_x(axes: Any, end: float) -> None:
    """Set a linear axis from 0 to ``end``."""
    axes.set_xlim(-0.03 * end, 1.03 * end)
    axes.xaxis.set_major_locator(ticks(5))


@styled
def plot_shells(path: Path | str, b_values: ArrayLike, directions: ArrayLike | None) -> Path:
    """Order of the b-values in the image, and the directions of each shell on a half sphere.

    The sphere is drawn in an equal-area projection along the z axis of the direction file, so that even coverage looks
    even. Opposite directions count as the same.

    Parameters
    ----------
    path : path
    b_values : array_like, shape (n,)
        s/mm^2, in the order of the volumes.
    directions : array_like, shape (n, 3), or None
    """
    shells = Acquisition(b_values, directions).shells
    b = np.asarray(b_values, dtype=float)
    colours = shell_colours(len(shells))
    spheres = []
    if directions is not None:
        spheres = [(s, c) for s, c in zip(shells, colours, strict=True) if s.n_directions >= FEWEST_DIRECTIONS]
        spheres = spheres[-MOST_SPHERES:]
    size = min(1.75, 6 / max(len(spheres), 1))
    figure = page(2.35, WIDTH if spheres else 0.65 * WIDTH)
    ratios = [WIDTH - size * len(spheres), *[size] * len(spheres)]
    axes, *globes = figure.subplots(1, len(ratios), squeeze=False, width_ratios=ratios).flat
    for shell, colour in zip(shells, colours, strict=True):
        axes.vlines(shell.indices, 0, b[shell.indices], color=colour, linewidth=0.6, alpha=0.5)
        axes.plot(shell.indices, b[shell.indices], "o", color=colour, markersize=3.5, clip_on=False)
    axes.set(xlim=(-0.7, b.size - 0.3), ylim=(0, max(float(b.max()), 1.0) * 1.05), xlabel="volume", ylabel="b (s/mm²)")
    axes.xaxis.set_major_locator(ticks(8, integer=True, min_n_ticks=1))
    axes.yaxis.set_major_locator(ticks(4))
    axes.set_title("b-values in the order of acquisition", fontsize=9)
    for globe, (shell, colour) in zip(globes, spheres, strict=True):
        _draw_sphere(globe, np.asarray(directions, dtype=float)[shell.indices], shell, colour)
    return save(figure, path)


def shell_colours(count: int) -> list[Any]:
    """Colours of ``count`` shells, from low to high b."""
    return list(matplotlib.colormaps[SHELLS](np.linspace(DARKEST, LIGHTEST, max(count, 2))))[:count]


def _draw_sphere(axes: Any, directions: NDArray, shell: Shell, colour: Any) -> None:
    """Draw directions in Lambert's azimuthal equal-area projection of the upper half sphere."""
    lengths = np.linalg.norm(directions, axis=1, keepdims=True)
    unit = directions[lengths[:, 0] > 0] / lengths[lengths[:, 0] > 0]
    unit = np.where(unit[:, 2:] < 0, -unit, unit)
    flat = unit[:, :2] / np.sqrt(1 + unit[:, 2:])
    angle = np.linspace(0, 2 * np.pi, 181)
    for elevation in (0, 30, 60):
        radius = np.sqrt(1 - np.sin(np.deg2rad(elevation)))
        line = QUIET if elevation == 0 else FAINT
        axes.plot(radius * np.cos(angle), radius * np.sin(angle), color=line, linewidth=0.7)
    axes.plot(flat[:, 0], flat[:, 1], "o", color=colour, markersize=3.5)
    axes.set(xlim=(-1.05, 1.05), ylim=(-1.05, 1.05), aspect="equal")
    axes.axis("off")
    axes.set_title(f"b = {shell.b_value:.0f}", fontsize=9, loc="center")
    note(axes, 0.5, -0.06, f"{shell.n_directions} directions", "center", "top")
