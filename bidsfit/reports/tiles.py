"""Mosaics of slices: where tiles go on a page, and what surrounds them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patheffects import Normal, Stroke
from numpy.typing import NDArray

from bidsfit.reports.canvas import INK, QUIET, WIDTH, inches, note
from bidsfit.reports.slices import MOST_SLICES, Slices

BACKGROUND = "#000000"

#: Inches: margins, room for a colour bar, space between blocks and between tiles.
LEFT, RIGHT, BAR, GUTTER, GAP = 0.05, 0.05, 0.82, 0.3, 0.05
#: Inches: heights of a block's title, of the slices' positions and of the foot.
TITLE, LABEL, FOOT = 0.32, 0.17, 0.36
LARGEST_TILE, SMALLEST_TILE, SMALL_TILE = 2.7, 1.6, 1.2
#: The sentence at the foot needs this width.
NARROWEST_PAGE = 7.5


@dataclass(frozen=True)
class Layout:
    """Places of the tiles of several panels: each panel is a block of slices, and blocks fill lines."""

    slices: Slices
    n_panels: int
    blocks_per_line: int
    tile: tuple[float, float]

    @classmethod
    def of(cls, slices: Slices, n_panels: int, largest: float = LARGEST_TILE) -> Layout:
        """As many blocks side by side as leaves the tiles large enough."""
        for blocks in range(n_panels, 0, -1):
            lines = -(-n_panels // blocks)
            layout = cls(slices, n_panels, blocks, _tile_size(slices, blocks, largest))
            balanced = blocks == -(-n_panels // lines)
            if balanced and layout.tile[0] >= SMALLEST_TILE:
                return layout
        return layout

    @classmethod
    def in_columns(cls, mask: NDArray, affine: NDArray, n_panels: int, columns: int) -> Layout:
        """So many blocks side by side, with as many slices each as leaves the tiles large enough."""
        for count in range(MOST_SLICES, 0, -1):
            slices = Slices.around(mask, affine, count=count)
            layout = cls(slices, n_panels, columns, _tile_size(slices, columns, LARGEST_TILE))
            if layout.tile[0] >= SMALL_TILE:
                break
        return layout

    @property
    def lines(self) -> int:
        return -(-self.n_panels // self.blocks_per_line)

    @property
    def line_height(self) -> float:
        return TITLE + self.tile[1]

    @property
    def height(self) -> float:
        return LABEL + self.lines * self.line_height + FOOT

    @property
    def width(self) -> float:
        """Of the page: no wider than needed, but wide enough for the text below."""
        return max(self.block(self.blocks_per_line - 1)[0] + self.block_width + RIGHT, NARROWEST_PAGE)

    @property
    def block_width(self) -> float:
        return len(self.slices) * (self.tile[0] + GAP) - GAP + BAR

    def block(self, panel: int) -> tuple[float, float]:
        """Upper left corner of a panel's first tile."""
        line, column = divmod(panel, self.blocks_per_line)
        return LEFT + column * (self.block_width + GUTTER), LABEL + line * self.line_height + TITLE


def _tile_size(slices: Slices, blocks: int, largest: float) -> tuple[float, float]:
    """Width and height of a tile where so many blocks share a line."""
    width_mm, height_mm = slices.size
    ratio = height_mm / width_mm
    room = WIDTH - LEFT - RIGHT - blocks * (BAR + (len(slices) - 1) * GAP) - (blocks - 1) * GUTTER
    width = min(room / (blocks * len(slices)), largest, largest / ratio)
    return width, width * ratio


def row_of_tiles(figure: Figure, slices: Slices, left: float, top: float, tile: tuple[float, float]) -> list[Any]:
    """Empty axes of a row of slices, black, without frames."""
    row = []
    for i in range(len(slices)):
        axes = inches(figure, left + i * (tile[0] + GAP), top, *tile)
        axes.set(xticks=[], yticks=[], facecolor=BACKGROUND)
        axes.spines[:].set_visible(False)
        row.append(axes)
    _name_sides(row[0], slices.letters)
    return row


def show(axes: Any, picture: NDArray, slices: Slices, **options: Any) -> Any:
    """Draw one slice, its pixels as they are and with their true proportions."""
    ratio = slices.spacing[1] / slices.spacing[0]
    return axes.imshow(picture, origin="lower", aspect=ratio, interpolation="nearest", **options)


def _name_sides(axes: Any, letters: tuple[str, str, str, str]) -> None:
    """L, R, P, A at the edges of a tile."""
    places = (
        (0.015, 0.5, "left", "center"),
        (0.985, 0.5, "right", "center"),
        (0.5, 0.015, "center", "bottom"),
        (0.5, 0.985, "center", "top"),
    )
    for letter, (x, y, horizontal, vertical) in zip(letters, places, strict=True):
        text = note(axes, x, y, letter, horizontal, vertical, "#ffffff")
        text.set_path_effects([Stroke(linewidth=1.5, foreground=BACKGROUND), Normal()])


def say_where(row: Sequence[Any], slices: Slices) -> None:
    """Position of each slice above its tile."""
    for axes, label in zip(row, slices.labels, strict=True):
        note(axes, 0.5, 1.0, label, "center", "bottom")


def draw_foot(figure: Figure, slices: Slices, tile: tuple[float, float], top: float, remark: str = "") -> None:
    """Scale bar of tiles of that size, and a sentence on orientation."""
    width_mm = slices.size[0]
    length = _round_length(width_mm * 0.4)
    bar = length / width_mm * tile[0]
    axes = strip(figure, top, 0.3)
    axes.plot([0, 0, 0, bar, bar, bar], [0.10, 0.18, 0.14, 0.14, 0.18, 0.10], color=INK, linewidth=1)
    text = f"{length:g} mm.  {slices.description}.{'  ' + remark if remark else ''}"
    axes.text(bar + 0.08, 0.14, text, va="center", color=QUIET, fontsize=8)


def strip(figure: Figure, top: float, height: float) -> Any:
    """Axes over the width of a figure in which places are inches from the upper left corner."""
    width = figure.get_size_inches()[0] - LEFT - RIGHT
    axes = inches(figure, LEFT, top, width, height)
    axes.set(xlim=(0, width), ylim=(height, 0))
    axes.axis("off")
    return axes


def _round_length(length: float) -> float:
    """The largest of 1, 2, 5, 10, 20, 50, ... that is not longer."""
    power = 10.0 ** np.floor(np.log10(length))
    return float(max(step for step in (1, 2, 5) if step * power <= length * (1 + 1e-9)) * power)


def start_block(figure: Figure, layout: Layout, number: int, title: str, unit: str = "", remark: str = "") -> list[Any]:
    """Empty tiles of one panel under its title; the first line of blocks also names the slices' positions."""
    left, top = layout.block(number)
    row = row_of_tiles(figure, layout.slices, left, top, layout.tile)
    if number < layout.blocks_per_line:
        say_where(row, layout.slices)
        top -= LABEL
    width, height = figure.get_size_inches()
    words = f"{title}  ({unit})" if unit else title
    heading = figure.text(left / width, 1 - (top - 0.06) / height, words, fontsize=10.5, va="bottom")
    row[0].annotate(remark, (1, 0), (7, 3.5), heading, "offset points", color=QUIET, fontsize=8, annotation_clip=False)
    return row
