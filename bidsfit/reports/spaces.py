"""Figures in a plane of two parameters: distribution of training samples, and bias of estimators."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.colors import LinearSegmentedColormap, ListedColormap, Normalize, PowerNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import Normal, Stroke
from numpy.typing import ArrayLike, NDArray
from scipy.ndimage import gaussian_filter

from bidsfit.reports.canvas import (
    ACCENT,
    INK,
    QUIET,
    WARM,
    WIDTH,
    note,
    page_of_cells,
    save,
    say_below,
    spread_limits,
    styled,
    ticks,
)
from bidsfit.reports.mosaics import draw_scale

MOST_DENSITIES, MOST_BIASES, PER_LINE = 6, 21, 3

#: Bins along each axis: of the histograms shown, few where there are few samples, and of the density behind contours.
FEWEST_BINS, MOST_BINS, CONTOUR_BINS = 15, 50, 100
#: Standard deviation of the kernel that smooths the density behind contours, in bins: of so many samples, and range.
SMOOTHING, SMOOTHED_SAMPLES, SMOOTHINGS = 4.0, 4000, (2.0, 8.0)
#: Contours enclose these shares of the samples; none where the first takes more than so much of the plane.
ENCLOSED, WIDEST = (0.5, 0.9), 0.4

#: Letters of a title in a line.
TITLE_LETTERS = 36

#: An arrow this long, as a share of the plane, has the darkest colour.
LONG_ARROW = 0.3
ARROWS = ListedColormap(matplotlib.colormaps["Blues"](np.linspace(0.5, 1, 256)))
#: Of colours with a sign: grey in the middle, so that an arrow without is seen on white.
DIVERGING_ARROWS = LinearSegmentedColormap.from_list("arrows", ["#0b3c8c", "#4a90d9", "#9aa0a6", "#e0663a", "#8c1c0b"])
SINK = "#ffcc00"


@dataclass(frozen=True)
class Axis:
    """One parameter.

    Attributes
    ----------
    label : str
        May contain mathematics between dollar signs.
    unit : str
        As printed; may be empty.
    limits : tuple of float
        Display range.
    """

    label: str
    unit: str
    limits: tuple[float, float]

    @property
    def words(self) -> str:
        """Label and unit."""
        return f"{self.label} ({self.unit})" if self.unit else self.label

    @property
    def span(self) -> float:
        return self.limits[1] - self.limits[0]


@dataclass(frozen=True)
class Density:
    """Samples of two parameters.

    Attributes
    ----------
    title : str
    samples : ndarray, shape (m, 2)
    """

    title: str
    samples: NDArray


@dataclass(frozen=True)
class BiasArrows:
    """Mean estimates of known truths.

    Attributes
    ----------
    title : str
    truth, mean : ndarray, shape (n, 2)
        True parameters and the mean of their estimates; NaN without an estimate.
    training : ndarray, shape (m, 2), optional
        Samples of the estimator's training, or others that show where estimates are used.
    sinks : ndarray, shape (k, 2)
        Points at which estimates of many truths accumulate; may be empty.
    colours : ndarray, shape (n,), optional
        A signed value of every arrow, such as the bias of a third parameter; by default its length.
    """

    title: str
    truth: NDArray
    mean: NDArray
    training: NDArray | None
    sinks: NDArray
    colours: NDArray | None = None


@styled
def plot_distributions(
    path: Path | str, panels: Sequence[Density], axes: tuple[Axis, Axis], points: Mapping[str, tuple[float, float]]
) -> Path:
    """Densities of samples in a plane, with marginal histograms of both parameters.

    Parameters
    ----------
    path : path
        ``.png`` or ``.svg``.
    panels : sequence of Density
        One to six.
    axes : pair of Axis
    points : mapping of str to pair of float
        Named points, marked in every panel.
    """
    figure, planes = _planes(panels, MOST_DENSITIES, [axes] * len(panels))
    for panel, main in zip(panels, planes, strict=True):
        samples = _pairs(panel.samples, f"samples of {panel.title!r}")
        inside = samples[_inside(samples, axes)]
        bins = int(np.clip(np.sqrt(len(inside)) / 3, FEWEST_BINS, MOST_BINS))
        counts = _histogram(inside, axes, bins)
        shown = np.ma.masked_equal(counts.T, 0)
        norm = PowerNorm(0.5, vmin=0, vmax=max(float(counts.max()), 1.0))
        extent = (*axes[0].limits, *axes[1].limits)
        main.imshow(shown, _light_to_dark(), norm, extent=extent, origin="lower", aspect="auto", interpolation="none")
        above = main.inset_axes((0, 1.02, 1, 0.13), sharex=main)
        beside = main.inset_axes((1.02, 0, 0.13, 1), sharey=main)
        _draw_marginal(above, counts.sum(axis=1), axes[0], upright=True)
        _draw_marginal(beside, counts.sum(axis=0), axes[1], upright=False)
        _draw_points(main, points, axes)
        if len(inside) < len(samples):
            note(main, 1, -0.13, f"{100 * (1 - len(inside) / len(samples)):.2g} % outside", "right", "top")
        elif len(samples) == 0:
            note(main, 0.5, 0.5, "no samples", "center", "center")
    words = "Darker: more samples, on a square root scale of each panel."
    if points:
        words += "  Dots: combinations of interest."
    say_below(figure, words)
    return save(figure, path)


@styled
def plot_bias(
    path: Path | str,
    panels: Sequence[BiasArrows],
    axes: tuple[Axis, Axis] | Sequence[tuple[Axis, Axis]],
    points: Mapping[str, tuple[float, float]],
    samples: str = "training samples",
    *,
    columns: int = PER_LINE,
    scale: str = "",
) -> Path:
    """Arrows from true parameters to their mean estimates, with contours of the density of samples.

    Contours are drawn only for a density with a peak: half of the samples must lie in less than 40 % of the
    plane.

    Parameters
    ----------
    path : path
        ``.png`` or ``.svg``.
    panels : sequence of BiasArrows
        One to 21; all have colours or none has.
    axes : pair of Axis, or a pair for each panel
    points : mapping of str to pair of float
        Named points, marked in every panel.
    samples : str
        What the samples are, for the legend.
    columns : int
        Panels side by side, at most three.
    scale : str
        What the colours are.
    """
    each: Any = [axes] * len(panels) if isinstance(axes[0], Axis) else axes
    figure, planes = _planes(panels, MOST_BIASES, each, margin=0.04, columns=columns)
    contoured, arrows = False, None
    coloured = [np.ravel(panel.colours) for panel in panels if panel.colours is not None]
    values = np.concatenate(coloured) if coloured else np.empty(0)
    extent = spread_limits(np.abs(values))[1]
    for panel, main, plane in zip(panels, planes, each, strict=True):
        arrows = _draw_arrows(main, panel, plane, extent)
        if panel.training is not None:
            contoured |= draw_contours(main, _pairs(panel.training, f"training of {panel.title!r}"), plane)
        sinks = _pairs(panel.sinks, f"sinks of {panel.title!r}")
        main.plot(sinks[:, 0], sinks[:, 1], "*", **_sink_style(), zorder=6, clip_on=False, in_layout=False)
        _draw_points(main, points, plane)
    if values.size:
        draw_scale(figure, arrows, values[np.isfinite(values)], ax=planes.tolist(), shrink=0.5).set_label(scale)
    sunk = any(np.size(panel.sinks) for panel in panels)
    _explain(figure, samples if contoured else "", sunk, bool(points), bool(values.size), min(len(panels), columns))
    return save(figure, path)


def _planes(
    panels: Sequence[Any], most: int, planes: Sequence[tuple[Axis, Axis]], margin: float = 0.0, columns: int = PER_LINE
) -> tuple[Figure, NDArray[np.object_]]:
    """A page of empty panels with titles, limits, ticks and axis labels, of a plane each, at most three in a row."""
    if not 1 <= len(panels) <= most:
        raise ValueError(f"Such a figure has 1 to {most} panels, not {len(panels)}.")
    for axes in planes:
        if len(axes) != 2:
            raise ValueError(f"A plane has 2 axes, not {len(axes)}.")
    columns = min(len(panels), columns)
    figure, cells = page_of_cells(len(panels), 3.5, columns, max(columns, 1.5) * WIDTH / PER_LINE)
    for panel, main, axes in zip(panels, cells.flat, planes, strict=True):
        (x_low, x_high), (y_low, y_high) = (
            (axis.limits[0] - margin * axis.span, axis.limits[1] + margin * axis.span) for axis in axes
        )
        main.set(xlim=(x_low, x_high), ylim=(y_low, y_high), xlabel=axes[0].words, ylabel=axes[1].words, box_aspect=1)
        main.xaxis.set_major_locator(ticks(4))
        main.yaxis.set_major_locator(ticks(4))
        main.set_title("\n".join(textwrap.fill(line, TITLE_LETTERS) for line in panel.title.split("\n")), pad=5)
    return figure, cells[:, 0]


def _pairs(values: ArrayLike, what: str) -> NDArray:
    """Finite rows of an array of shape (n, 2); shape (0, 2) if it is empty.

    Raises
    ------
    ValueError
        If it has another shape.
    """
    pairs = np.asarray(values, dtype=float)
    if pairs.size == 0:
        return np.empty((0, 2))
    if pairs.ndim != 2 or pairs.shape[1] != 2:
        raise ValueError(f"The {what} have the shape {pairs.shape}; it must be (n, 2).")
    return pairs[np.isfinite(pairs).all(axis=1)]


def _inside(samples: NDArray, axes: tuple[Axis, Axis]) -> NDArray:
    low, high = np.transpose([axis.limits for axis in axes])
    return np.asarray(((samples >= low) & (samples <= high)).all(axis=1))


def _histogram(samples: NDArray, axes: tuple[Axis, Axis], bins: int) -> NDArray:
    """Number of samples in each cell of the plane, shape (bins, bins), in the order of the axes."""
    return np.histogram2d(samples[:, 0], samples[:, 1], bins, [axes[0].limits, axes[1].limits])[0]


def _draw_marginal(side: Any, counts: NDArray, axis: Axis, *, upright: bool) -> None:
    edges = np.linspace(*axis.limits, counts.size + 1)
    orientation = "vertical" if upright else "horizontal"
    side.stairs(counts, edges, orientation=orientation, fill=True, color=ACCENT, alpha=0.4)
    side.stairs(counts, edges, orientation=orientation, color=ACCENT, linewidth=0.7)
    ranges = [axis.limits, (0, 1.05 * max(float(counts.max()), 1.0))]
    side.set(xlim=ranges[0 if upright else 1], ylim=ranges[1 if upright else 0])
    side.axis("off")


def _draw_points(main: Any, points: Mapping[str, tuple[float, float]], axes: tuple[Axis, Axis]) -> None:
    """Draw dots with their names beside them, on the side with room."""
    for name, (x, y) in points.items():
        right = x <= axes[0].limits[0] + 0.88 * axes[0].span
        above = y <= axes[1].limits[0] + 0.88 * axes[1].span
        main.plot(x, y, "o", markersize=5.5, color=INK, markeredgecolor="white", zorder=7, clip_on=False)
        main.annotate(
            name,
            (x, y),
            (4.5 if right else -4.5, 3 if above else -3),
            textcoords="offset points",
            ha="left" if right else "right",
            va="bottom" if above else "top",
            fontsize=9.5,
            fontweight="bold",
            path_effects=_halo(),
            zorder=8,
            annotation_clip=False,
        )


def _halo() -> list[Any]:
    return [Stroke(linewidth=2.5, foreground="white"), Normal()]


def _light_to_dark() -> ListedColormap:
    """Colour map of blues without the palest, so that cells with few samples differ from empty ones."""
    return ListedColormap(matplotlib.colormaps["Blues"](np.linspace(0.12, 1, 256)))


def _draw_arrows(main: Any, panel: BiasArrows, axes: tuple[Axis, Axis], extent: float) -> Any:
    """Draw arrows, short ones on top, and a dot at every truth, even without an estimate.

    Colours of their own reach from ``-extent`` to ``extent``.
    """
    truth, mean = np.asarray(panel.truth, dtype=float), np.asarray(panel.mean, dtype=float)
    if truth.shape != mean.shape:
        raise ValueError(f"Truth and mean of {panel.title!r} have the shapes {truth.shape} and {mean.shape}.")
    _pairs(truth, f"truths of {panel.title!r}")
    truth, mean = truth.reshape(-1, 2), mean.reshape(-1, 2)
    main.plot(truth[:, 0], truth[:, 1], "o", color=QUIET, markersize=1.6, markeredgewidth=0, zorder=2)
    known = np.isfinite(truth).all(axis=1) & np.isfinite(mean).all(axis=1)
    shift = (mean - truth)[known]
    lengths = np.hypot(*(shift / [axis.span for axis in axes]).T)
    order = np.argsort(-lengths)
    start, shift, lengths = truth[known][order], shift[order], lengths[order]
    by_length = panel.colours is None
    return main.quiver(
        *start.T,
        *shift.T,
        lengths if panel.colours is None else np.asarray(panel.colours, dtype=float)[known][order],
        angles="xy",
        scale_units="xy",
        scale=1,
        units="inches",
        width=0.0095,
        headwidth=4.6,
        headlength=4.8,
        headaxislength=4.2,
        minlength=0.1,
        cmap=ARROWS if by_length else DIVERGING_ARROWS,
        norm=Normalize(0, LONG_ARROW) if by_length else Normalize(-extent, extent),
        zorder=3,
    )


def draw_contours(main: Any, training: NDArray, axes: tuple[Axis, Axis]) -> bool:
    """Draw contours around the densest part of the samples; return whether there are any."""
    counts = _histogram(training, axes, CONTOUR_BINS)
    width = SMOOTHING * (SMOOTHED_SAMPLES / max(len(training), 1)) ** (1 / 6)  # Scott's rule
    density = gaussian_filter(counts, np.clip(width, *SMOOTHINGS))
    densest_first = np.argsort(-density, axis=None)
    enclosed = np.cumsum(counts.ravel()[densest_first]) / max(len(training), 1)
    if enclosed[-1] < ENCLOSED[0]:
        return False
    smooth = np.cumsum(density.flat[densest_first]) / density.sum()  # few samples would seem to cluster if counted
    drawn = [share for share in ENCLOSED if enclosed[-1] >= share and np.mean(smooth < share) <= WIDEST]
    if ENCLOSED[0] not in drawn:
        return False
    last = [densest_first[np.argmax(enclosed >= share)] for share in drawn]
    centres = [axis.limits[0] + (np.arange(CONTOUR_BINS) + 0.5) / CONTOUR_BINS * axis.span for axis in axes]
    for level, style in zip(density.flat[last], ("solid", (0, (4, 2))), strict=False):
        lines = main.contour(*centres, density.T, [level], colors=[WARM], linewidths=1.4, linestyles=[style], zorder=4)
        lines.set_path_effects(_halo())
    return True


def _sink_style() -> dict[str, Any]:
    return {"color": SINK, "markersize": 13, "markeredgecolor": INK, "markeredgewidth": 0.8}


def _explain(figure: Figure, samples: str, sinks: bool, points: bool, coloured: bool, panels: int) -> None:
    """Add one legend for all panels, of which so many stand side by side."""
    colour = INK if coloured else ARROWS(0.75)
    arrow = Line2D([], [], color=colour, marker=r"$\rightarrow$", markersize=11, markeredgewidth=0, linestyle="none")
    entries: list[tuple[Any, str]] = [
        (arrow, "truth (grey dot) to mean estimate" + ("" if coloured else "; darker: farther"))
    ]
    if samples:
        words = f"half (dashed: 90 %) of the {samples}"
        entries.append((Line2D([], [], color=WARM, linewidth=1.4), words))
    if sinks:
        entries.append((Line2D([], [], marker="*", linestyle="none", **_sink_style()), "sink"))
    if points:
        dot = Line2D([], [], color=INK, marker="o", markersize=5.5, linestyle="none")
        entries.append((dot, "combination of interest"))
    handles, names = zip(*entries, strict=True)
    figure.legend(handles, names, loc="outside lower left", ncols={1: 1, 2: 2}.get(panels, 4), fontsize=8)
