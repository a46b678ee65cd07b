"""Basis of all figures: size, fonts, colours, ticks, display ranges, and saving."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path
from typing import Any, Literal, ParamSpec, TypeVar

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine, LayoutEngine
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from bidsfit.files import whole_file

#: Inches; about the text width of the report, so that type in figures has the size of type in the text.
WIDTH = 10.0
DOTS_PER_INCH = 150

#: Inches around what is drawn in a file.
MARGIN = 0.02

INK = "#1d2733"
QUIET = "#5d6b7a"
FAINT = "#d5dbe1"
ACCENT = "#1f5fa8"
WARM = "#c2410c"

#: Values below are rounding errors, such as the residuals of as many measurements as parameters: shown as 0.
NEGLIGIBLE = 1e-9

#: The usual display range is widened where so many values lie beyond one of its ends.
MANY_BEYOND = 0.2

#: Small letters in an inch.
LETTERS_PER_INCH = 16

#: Distances between ticks, times a power of ten.
STEPS = (1, 2, 2.5, 5, 10)

STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",  # ships with matplotlib: the same picture on every machine
    "font.size": 9.5,
    "mathtext.fontset": "dejavusans",
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": QUIET,
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10.0,
    "axes.titlelocation": "left",
    "axes.labelsize": 9.5,
    "xtick.color": QUIET,
    "ytick.color": QUIET,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "xtick.major.width": 0.7,
    "ytick.major.width": 0.7,
    "legend.frameon": False,
    "figure.constrained_layout.w_pad": 0.1,  # inches around each plot
    "figure.constrained_layout.h_pad": 0.06,
    "svg.fonttype": "path",
    "svg.hashsalt": "bidsfit",
}

P = ParamSpec("P")
R = TypeVar("R")


def styled(draw: Callable[P, R]) -> Callable[P, R]:
    """Decorator: draw with `STYLE`, without changing matplotlib's settings."""

    @wraps(draw)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        with matplotlib.rc_context(STYLE):
            return draw(*args, **kwargs)

    return wrapped


def page(height: float, width: float = WIDTH, layout: LayoutEngine | None = None) -> Figure:
    """An empty figure; height and width in inches. It is unknown to pyplot, and its layout makes room for labels."""
    size = (width, height)
    return Figure(figsize=size, dpi=DOTS_PER_INCH, facecolor="white", layout=layout or ConstrainedLayoutEngine())


def compressed() -> LayoutEngine:
    """Layout for images of fixed aspect ratio: as close together as their labels allow."""
    return ConstrainedLayoutEngine(compress=True, w_pad=0.03)


def page_of_cells(
    count: int, height: float, columns: int, width: float = WIDTH, ratios: Sequence[float] = (1,)
) -> tuple[Figure, NDArray]:
    """A page with ``count`` cells in rows of ``columns``; in each cell, axes one above the other.

    Parameters
    ----------
    count, columns : int
    height, width : float
        Height of a row and width of the page, inches.
    ratios : sequence of float
        Relative heights of the axes of a cell.

    Returns
    -------
    figure : Figure
    axes : ndarray, shape (count, len(ratios))
    """
    lines = -(-count // columns)
    figure = page(lines * height, width)
    axes = figure.subplots(lines * len(ratios), columns, squeeze=False, height_ratios=[*ratios] * lines)
    cells = axes.reshape(lines, len(ratios), columns).swapaxes(1, 2).reshape(-1, len(ratios))
    for empty in cells[count:].flat:
        empty.remove()
    return figure, cells[:count]


#: Field of a PNG file: pairs of places, as fractions (left, top, width, height), whose pictures can take turns.
TURNS = "bidsfit:turns"


def save(figure: Figure, path: Path | str, turns: Sequence[tuple[Any, Any]] = ()) -> Path:
    """Save a figure without margins; the file is replaced only when complete.

    Parameters
    ----------
    figure : Figure
    path : path
    turns : sequence of pairs of Axes
        Pictures of the same size that the report can show in turns in the place of the first (.png only).

    Raises
    ------
    ValueError
        If the suffix is neither .png nor .svg.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    cropped: dict[str, Any] = {"bbox_inches": "tight", "pad_inches": MARGIN}
    with whole_file(path) as beside:
        if suffix == ".png" and (drawn := _drawn_once(figure)) is not None:
            pixels, left, top = drawn
            places = [[_place(axes, pixels.shape, left, top) for axes in pair] for pair in turns]
            facts = PngInfo()
            if places:
                facts.add_text(TURNS, json.dumps(places))
            Image.fromarray(pixels).save(beside, format="png", dpi=(figure.dpi, figure.dpi), pnginfo=facts)
        elif suffix == ".png":
            FigureCanvasAgg(figure).print_figure(beside, format="png", metadata={"Software": None}, **cropped)
        elif suffix == ".svg":
            FigureCanvasSVG(figure).print_figure(beside, format="svg", metadata={"Date": None}, **cropped)
        else:
            raise ValueError(f"Figures are written as .png or .svg, not as {path.name!r}.")
    return path


def _place(axes: Any, shape: tuple[int, ...], left: int, top: int) -> list[float]:
    """Left, top, width and height of axes as fractions of the pixels that begin there, counted from the lower left."""
    box, (height, width) = axes.get_window_extent(), shape[:2]
    place = ((box.x0 - left) / width, (top - box.y1) / height, box.width / width, box.height / height)
    return [round(float(part), 5) for part in place]


def _drawn_once(figure: Figure) -> tuple[NDArray[np.uint8], int, int] | None:
    """Pixels of a figure without its margins, and their left and top end; None if something lies beyond the page.

    matplotlib's ``bbox_inches="tight"`` draws a figure twice, the first time only to find its margins.
    """
    for axis in (axis for axes in figure.axes for axis in (axes.xaxis, axes.yaxis) if not axis.label.get_text()):
        axis.set_label_coords(0, 0)  # else matplotlib measures all tick labels to place an empty label beside them
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    box, (width, height) = figure.get_tightbbox(canvas.get_renderer()), figure.get_size_inches()
    if min(box.x0, box.y0, width - box.x1, height - box.y1) < 0:
        figure.set_layout_engine("none")  # the layout is done, and done again it would differ
        return None
    pixels = np.asarray(canvas.buffer_rgba())[::-1]
    left, bottom, right, top = np.rint(np.multiply(box.padded(MARGIN).extents, figure.dpi)).astype(int)
    return pixels[max(bottom, 0) : top, max(left, 0) : right][::-1], max(left, 0), min(top, len(pixels))


def ticks(most: int | Literal["auto"], **options: Any) -> MaxNLocator:
    """Tick locator for round numbers: at most ``most`` intervals, or as many as fit ("auto")."""
    return MaxNLocator(most, steps=list(STEPS), **options)


def note(axes: Any, x: float, y: float, words: str, across: str, down: str, colour: str = QUIET) -> Any:
    """Add small text at a position in fractions of the axes."""
    return axes.text(
        x, y, words, transform=axes.transAxes, ha=across, va=down, color=colour, fontsize=8, linespacing=1.4
    )


def say_below(figure: Figure, words: str) -> None:
    """Add small text at the bottom of a figure, wrapped to its width."""
    words = textwrap.fill(words, int(LETTERS_PER_INCH * figure.get_figwidth()))
    figure.supxlabel(words, x=0.1 / figure.get_figwidth(), ha="left", color=QUIET, fontsize=8, linespacing=1.4)


def robust_limits(values: NDArray) -> tuple[float, float]:
    """Display range of values: 2nd to 98th percentile, widened to round numbers; never empty."""
    finite = np.asarray(values, dtype=float)
    finite = finite[np.isfinite(finite)]
    if finite.size == 0 or np.abs(finite).max() < NEGLIGIBLE:
        return 0.0, 1.0
    low, high = np.percentile(finite, [2, 98])
    if max(abs(low), abs(high)) < NEGLIGIBLE:  # a few voxels are all there is to see
        low, high = finite.min(), finite.max()
    if 0 <= low < 0.3 * high:
        low = 0.0
    spread = high - low
    if spread <= 1e-9 * max(abs(low), abs(high)):  # one value only: show it in the middle of a narrow range
        spread = abs(high) or 1.0
        low, high = low - 0.5 * spread, high + 0.5 * spread
    step = 10.0 ** np.floor(np.log10(spread)) / 2
    return float(np.floor(low / step + 1e-9) * step), float(np.ceil(high / step - 1e-9) * step)


def widened(limits: tuple[float, float], values: NDArray) -> tuple[float, float]:
    """The display range of a parameter; if many values lie beyond one end, that end is moved outwards.

    Otherwise many voxels would have the colour of that end.
    """
    finite = np.asarray(values, dtype=float)
    finite = finite[np.isfinite(finite)]
    low, high = limits
    if finite.size:
        found = robust_limits(finite)
        low = min(low, found[0]) if np.mean(finite < low) > MANY_BEYOND else low
        high = max(high, found[1]) if np.mean(finite > high) > MANY_BEYOND else high
    return low, high


def spread_limits(values: NDArray, span: float = np.inf) -> tuple[float, float]:
    """Display range of spreads or differences: from 0 to the 95th percentile, at most ``span / 2``."""
    finite = np.asarray(values, dtype=float)
    finite = finite[np.isfinite(finite)]
    if finite.size == 0:
        return 0.0, 1.0
    return 0.0, min(robust_limits(finite[finite <= np.percentile(finite, 95)])[1], span / 2)
