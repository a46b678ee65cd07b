"""Mosaics: pictures side by side, each a row of slices, with titles, orientation and scale bar."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.patheffects import Normal, Stroke
from numpy.typing import NDArray

from bidsfit.reports.canvas import INK, QUIET, WIDTH, note, page
from bidsfit.reports.slices import MOST_SLICES, Slices

BACKGROUND = "#000000"

#: Inches: room for a colour bar, how thick it is, and room at both ends of a line for labels; what is left is cut off.
BAR, THICKNESS, SPARE = 0.8, 0.1, 0.15
#: Inches: between pictures, before a colour bar, and for the labels of ticks below a plot.
BETWEEN, GAP, TICKS = 0.17, 0.05, 0.25
#: Inches: widths of tiles.
LARGEST_TILE, SMALLEST_TILE, SMALL_TILE = 2.7, 1.6, 1.2
#: Inches: a voxel is not drawn wider, where the tile is large enough.
LARGEST_VOXEL = 0.035


@dataclass(frozen=True)
class Mosaic:
    """A page of pictures, each a row of slices.

    Everything has its place in inches, without a layout engine of matplotlib, which would take longer than the drawing.

    Attributes
    ----------
    figure : Figure
    slices : Slices
    rows : ndarray of Axes, shape (n_lines, n_columns)
        Black axes without frames, for a strip of slices; None where there is no picture.
    width, bar : float
        Width of a picture and room for a colour bar beside it, inches.
    headings : list of list of Text
        Titles of the pictures of every line.
    scales : list of (Axes, int, int)
        Axes of colour bars, each with the line and column of the picture that it stands beside.
    """

    figure: Figure
    slices: Slices
    rows: NDArray[np.object_]
    width: float
    bar: float
    headings: list[list[Any]]
    scales: list[tuple[Any, int, int]]

    @classmethod
    def of(cls, slices: Slices, n_pictures: int, n_columns: int, *, bars: int, largest: float = LARGEST_TILE) -> Mosaic:
        """Make a page of empty pictures.

        Parameters
        ----------
        slices : Slices
        n_pictures, n_columns : int
        bars : int
            Number of colour bars in a line: one beside every picture, or one at the end.
        largest : float
            Maximum width and height of a tile, inches.
        """
        n, n_lines = len(slices), -(-n_pictures // n_columns)
        tile = _tile_width(slices, n_columns, bars, largest)
        figure = page(1, n_columns * (n * tile + BETWEEN) + bars * BAR + 2 * SPARE)  # `end` knows its height
        figure.set_layout_engine("none")
        rows = np.full((n_lines, n_columns), None)
        for line, column in [divmod(k, n_columns) for k in range(n_pictures)]:
            rows[line, column] = each = figure.add_axes((0, 0, 1, 1), facecolor=BACKGROUND)
            each.xaxis.set_visible(False)
            each.yaxis.set_visible(False)
            each.spines[:].set_visible(False)
            for label, place in zip(slices.labels if line == 0 else [], slices.places.mean(axis=1), strict=False):
                note(each, place, 1.0, label, "center", "bottom")
            _name_sides(each, slices)
        _draw_ruler(rows[0, 0], slices)
        return cls(figure, slices, rows, n * tile, BAR if bars == n_columns else 0.0, [[] for _ in rows], [])

    @classmethod
    def around(
        cls,
        mask: NDArray,
        affine: NDArray,
        n_pictures: int,
        n_columns: int,
        *,
        bars: int,
        smallest: float = SMALL_TILE,
        most: int = MOST_SLICES,
        largest: float = LARGEST_TILE,
        **crop: Any,
    ) -> Mosaic:
        """Make a page of empty pictures, with as many slices (one or more) as allow tiles of ``smallest`` inches."""
        for count in range(most, 0, -1):
            slices = Slices.around(mask, affine, count=count, **crop)
            if _tile_width(slices, n_columns, bars, largest) >= smallest:
                break
        return cls.of(slices, n_pictures, n_columns, bars=bars, largest=largest)

    def begin(self, line: int, column: int, title: str, remark: str = "", colour: str = INK) -> Any:
        """The axes of a picture; sets its title, followed by a small remark."""
        axes = self.rows[line, column]
        heading = self._head(line, axes, title, colour)
        after = axes.annotate(remark, (1, 0), (7, 2.5), heading, "offset points", color=QUIET, fontsize=8)
        after.set(annotation_clip=False, in_layout=False)
        return axes

    @staticmethod
    def describe(axes: Any, words: str, **options: Any) -> None:
        """Write words below a picture."""
        axes.set_xticks([])
        axes.xaxis.set_visible(True)
        axes.set_xlabel(words, **options)

    def plot(self, line: int, column: int, title: str) -> Any:
        """Replace a picture by a plot."""
        self.rows[line, column].remove()
        self.rows[line, column] = axes = self.figure.add_axes((0, 0, 1, 1))
        self._head(line, axes, title, INK)
        return axes

    def scale(self, line: int, column: int = -1) -> Any:
        """Axes for a colour bar beside a picture; by default at the end of the line."""
        self.scales.append((self.figure.add_axes((0, 0, 1, 1)), line, column % self.rows.shape[1]))
        return self.scales[-1][0]

    def _head(self, line: int, axes: Any, title: str, colour: str) -> Any:
        """Set the title of a picture, above the positions of its slices in the first line."""
        wrapped = textwrap.fill(title, max(int(13 * self.width), 6), break_long_words=False)
        heading = axes.set_title(wrapped, fontsize=10.5, color=colour, pad=72 * self._above(line))
        self.headings[line].append(heading)
        return heading

    @staticmethod
    def _above(line: int) -> float:
        """Inches between a picture and its title."""
        return 0.21 if line == 0 else 0.055

    def end(self, remark: str = "", entries: Sequence[Patch] = (), columns: int = 1, title: str = "") -> None:
        """Add the orientation, a remark and a legend at the bottom and a title at the top; put all in its place."""
        figure, places = self.figure, self.slices.places
        height = self.width * (places[0, 1] - places[0, 0]) * self.slices.size[1] / self.slices.size[0]
        page_width = figure.get_figwidth()
        FigureCanvasAgg(figure)  # measures text
        words = f"{self.slices.description}.{'  ' + remark if remark else ''}"
        small: dict[str, Any] = {"fontsize": 8, "title_fontsize": 8, "handlelength": 0.8, "alignment": "left"}
        small |= {"loc": (SPARE / page_width, 0), "borderpad": 0}
        legend = figure.legend(handles=entries, title=words, ncols=columns, **small)
        legend.get_title().set_color(QUIET)

        def inches(artists: Iterable[Any]) -> float:
            return max((artist.get_window_extent().height for artist in artists), default=0.0) / figure.dpi

        down = 0.3 if title else 0.0
        tops = []
        for line, row in enumerate(self.rows):
            down += inches(self.headings[line]) + self._above(line)
            tops.append(down)
            shown = [axes for axes in row if axes is not None]
            named = inches(axes.xaxis.label for axes in shown if axes.xaxis.get_visible())
            down += height + (max(named, TICKS) if any(axes.xaxis.get_visible() for axes in shown) else 0.0) + BETWEEN
        page_height = down + inches([legend])
        figure.set_figheight(page_height)
        if title:
            figure.text(SPARE / page_width, 1, title, va="top", fontsize=11)

        pictures = [(axes, *where, 0.0, self.width) for where, axes in np.ndenumerate(self.rows) if axes is not None]
        bars = [(*bar, self.width + GAP, THICKNESS) for bar in self.scales]
        for axes, line, column, left, width in [*pictures, *bars]:
            left += SPARE + column * (self.width + BETWEEN + self.bar)
            bottom = page_height - tops[line] - height
            axes.set_position((left / page_width, bottom / page_height, width / page_width, height / page_height))


def columns_for(slices: Slices, n: int) -> int:
    """How many of ``n`` pictures with colour bars fit side by side with tiles that are large enough."""
    for columns in range(n, 1, -1):
        balanced = columns == -(-n // -(-n // columns))
        if balanced and _tile_width(slices, columns, columns, LARGEST_TILE) >= SMALLEST_TILE:
            return columns
    return 1


def _tile_width(slices: Slices, columns: int, bars: int, largest: float) -> float:
    """Width of a tile in inches, for pictures and colour bars in a line; no side is longer than ``largest``."""
    room = (WIDTH - bars * BAR - columns * BETWEEN) / (columns * len(slices))
    across = slices.window[0].stop - slices.window[0].start
    room = min(room, max(LARGEST_VOXEL * across, SMALLEST_TILE))
    return min(room, largest, largest * slices.size[0] / slices.size[1])


def show(axes: Any, picture: NDArray, **options: Any) -> Any:
    """Draw a strip of slices without interpolation; the axes have its proportions."""
    return axes.imshow(picture, origin="lower", aspect="auto", interpolation="nearest", **options)


def _name_sides(axes: Any, slices: Slices) -> None:
    """Write the orientation letters at the edges of the first slice."""
    right = slices.places[0, 1]
    places = (
        (0.015, 0.5, "left", "center"),
        (0.985, 0.5, "right", "center"),
        (0.5, 0.015, "center", "bottom"),
        (0.5, 0.985, "center", "top"),
    )
    for letter, (x, y, horizontal, vertical) in zip(slices.letters, places, strict=True):
        note(axes, x * right, y, letter, horizontal, vertical, "#ffffff").set(path_effects=_halo(1.5), in_layout=False)


def _draw_ruler(axes: Any, slices: Slices) -> None:
    """Draw a scale bar in the lower left corner of the first slice."""
    width, right = slices.size[0], slices.places[0, 1]
    length = _round_length(width * 0.4)
    x = np.array([0.03, 0.03 + length / width]) * right
    line = {"color": "#ffffff", "linewidth": 1.2, "solid_capstyle": "butt", "path_effects": _halo(2.4)}
    axes.plot(x, [0.03, 0.03], transform=axes.transAxes, **line)
    note(axes, 0.03 * right, 0.05, f"{length:g} mm", "left", "bottom", "#ffffff").set(
        path_effects=_halo(1.5), fontsize=6.5, in_layout=False
    )


def _halo(width: float) -> list[Any]:
    return [Stroke(linewidth=width, foreground=BACKGROUND), Normal()]


def _round_length(length: float) -> float:
    """The largest of 1, 2, 5, 10, 20, 50, ... that is not longer than ``length``."""
    power = 10.0 ** np.floor(np.log10(length))
    return float(max(step for step in (1, 2, 5) if step * power <= length * (1 + 1e-9)) * power)
