"""Mosaics: pictures side by side, each a row of slices, with titles, orientation and scale bar."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.patheffects import Normal, Stroke
from numpy.typing import NDArray

from bidsfit.reports.canvas import INK, QUIET, WIDTH, compressed, note, page
from bidsfit.reports.slices import MOST_SLICES, Slices

BACKGROUND = "#000000"

#: Inches: room for a colour bar, and between pictures.
BAR, BETWEEN = 0.8, 0.1
#: Inches: widths of tiles.
LARGEST_TILE, SMALLEST_TILE, SMALL_TILE = 2.7, 1.6, 1.2


@dataclass(frozen=True)
class Mosaic:
    """A page of pictures, each a row of slices.

    Attributes
    ----------
    figure : Figure
    slices : Slices
    rows : ndarray of Axes, shape (n_lines, n_columns, n_slices)
        Black axes without frames; None where there is no picture.
    width : float
        Width of a picture, inches.
    """

    figure: Figure
    slices: Slices
    rows: NDArray[np.object_]
    width: float

    @classmethod
    def of(
        cls,
        slices: Slices,
        n_pictures: int,
        n_columns: int,
        *,
        bars: int,
        largest: float = LARGEST_TILE,
        words: int = 0,
        below: int = 1,
    ) -> Mosaic:
        """Make a page of empty tiles.

        Parameters
        ----------
        slices : Slices
        n_pictures, n_columns : int
        bars : int
            Number of colour bars in a line.
        largest : float
            Maximum width and height of a tile, inches.
        words, below : int
            Lines of text below each picture, and below all.
        """
        n, n_lines = len(slices), -(-n_pictures // n_columns)
        tile = _tile_width(slices, n_columns, bars, largest)
        height = n_lines * (tile * slices.size[1] / slices.size[0] + 0.4 + 0.14 * words) + 0.2 + 0.18 * below
        figure = page(height, n_columns * (n * tile + BETWEEN) + bars * BAR, compressed())
        ratios = [*[tile] * n, BETWEEN] * n_columns
        grid = figure.add_gridspec(n_lines, len(ratios), width_ratios=ratios)
        rows = np.full((n_lines, n_columns, n), None)
        for line, column in [divmod(k, n_columns) for k in range(n_pictures)]:
            for k, label in enumerate(slices.labels):
                rows[line, column, k] = each = figure.add_subplot(
                    grid[line, column * (n + 1) + k], facecolor=BACKGROUND
                )
                each.set(xticks=[], yticks=[])
                each.xaxis.set_visible(False)  # to lay out an axis takes long, even if it has no ticks
                each.yaxis.set_visible(False)
                each.spines[:].set_visible(False)
                if line == 0:
                    note(each, 0.5, 1.0, label, "center", "bottom")
            _name_sides(rows[line, column, 0], slices.letters)
        _draw_ruler(rows[0, 0, 0], slices.size[0])
        return cls(figure, slices, rows, n * tile)

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
        words: int = 0,
        **crop: Any,
    ) -> Mosaic:
        """Make a page of empty tiles, with as many slices (one or more) as allow tiles of ``smallest`` inches."""
        for count in range(most, 0, -1):
            slices = Slices.around(mask, affine, count=count, **crop)
            if _tile_width(slices, n_columns, bars, largest) >= smallest:
                break
        return cls.of(slices, n_pictures, n_columns, bars=bars, largest=largest, words=words)

    def begin(self, line: int, column: int, title: str, remark: str = "", colour: str = INK) -> list[Any]:
        """The tiles of a picture; sets its title, followed by a small remark."""
        row = list(self.rows[line, column])
        heading = row[0].set_title(self._wrapped(title), fontsize=10.5, color=colour, pad=15 if line == 0 else 4)
        after = row[0].annotate(remark, (1, 0), (7, 2.5), heading, "offset points", color=QUIET, fontsize=8)
        after.set(annotation_clip=False, in_layout=False)
        return row

    @staticmethod
    def describe(row: Sequence[Any], words: str, **options: Any) -> None:
        """Write words below a picture, given its tiles."""
        row[0].xaxis.set_visible(True)
        row[0].set_xlabel(words, **options)

    def plot(self, line: int, column: int, title: str) -> Any:
        """Replace the tiles of a picture by one plot."""
        row = self.rows[line, column]
        grid, first = row[0].get_gridspec(), row[0].get_subplotspec().colspan.start
        for each in row:
            each.remove()
        axes = self.figure.add_subplot(grid[line, first : first + len(row)])
        axes.set_title(self._wrapped(title), fontsize=10.5)
        return axes

    def _wrapped(self, title: str) -> str:
        return textwrap.fill(title, max(int(13 * self.width), 6), break_long_words=False)

    def end(self, remark: str = "", entries: Sequence[Patch] = (), columns: int = 1) -> None:
        """Add the orientation, a remark and a legend at the bottom."""
        words = f"{self.slices.description}.{'  ' + remark if remark else ''}"
        small = {"fontsize": 8, "title_fontsize": 8, "handlelength": 0.8, "alignment": "left"}
        legend = self.figure.legend(handles=entries, title=words, loc="outside lower left", ncols=columns, **small)
        legend.get_title().set_color(QUIET)


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
    return min(room, largest, largest * slices.size[0] / slices.size[1])


def show(axes: Any, picture: NDArray, slices: Slices, **options: Any) -> Any:
    """Draw one slice without interpolation, in its true proportions."""
    ratio = slices.spacing[1] / slices.spacing[0]
    return axes.imshow(picture, origin="lower", aspect=ratio, interpolation="nearest", **options)


def _name_sides(axes: Any, letters: tuple[str, str, str, str]) -> None:
    """Write the orientation letters at the edges of a tile."""
    places = (
        (0.015, 0.5, "left", "center"),
        (0.985, 0.5, "right", "center"),
        (0.5, 0.015, "center", "bottom"),
        (0.5, 0.985, "center", "top"),
    )
    for letter, (x, y, horizontal, vertical) in zip(letters, places, strict=True):
        note(axes, x, y, letter, horizontal, vertical, "#ffffff").set(path_effects=_halo(1.5), in_layout=False)


def _draw_ruler(axes: Any, width: float) -> None:
    """Draw a scale bar in the lower left corner of a tile of this width (mm)."""
    length = _round_length(width * 0.4)
    x = np.array([0.03, 0.03 + length / width])
    line = {"color": "#ffffff", "linewidth": 1.2, "solid_capstyle": "butt", "path_effects": _halo(2.4)}
    axes.plot(x, [0.03, 0.03], transform=axes.transAxes, **line)
    note(axes, 0.03, 0.05, f"{length:g} mm", "left", "bottom", "#ffffff").set(
        path_effects=_halo(1.5), fontsize=6.5, in_layout=False
    )


def _halo(width: float) -> list[Any]:
    return [Stroke(linewidth=width, foreground=BACKGROUND), Normal()]


def _round_length(length: float) -> float:
    """The largest of 1, 2, 5, 10, 20, 50, ... that is not longer than ``length``."""
    power = 10.0 ** np.floor(np.log10(length))
    return float(max(step for step in (1, 2, 5) if step * power <= length * (1 + 1e-9)) * power)
