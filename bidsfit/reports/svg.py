"""Pictures inside a page: axes, text and symbols as SVG, which tell their numbers under the pointer."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup, escape

from bidsfit.reports.canvas import ticks

#: Widest picture in pixels, which is the width of the text.
WIDTH = 960


@dataclass(frozen=True)
class Axis:
    """Places of numbers along one direction of a picture.

    Attributes
    ----------
    low, high : float
        Numbers at its ends.
    start, end : float
        Pixels of its ends.
    """

    low: float
    high: float
    start: float
    end: float

    def place(self, value: float) -> float:
        """Pixels of a number; that of the nearer end for those beyond."""
        share = (min(max(value, self.low), self.high) - self.low) / (self.high - self.low)
        return round(self.start + share * (self.end - self.start), 1)

    def steps(self, most: int = 5) -> list[tuple[float, str]]:
        """Pixels and words of round numbers."""
        values = [float(v) for v in ticks(most).tick_values(self.low, self.high) if self.low <= v <= self.high]
        span = self.high - self.low
        decimals = 0
        while decimals < 9 and any(abs(v - round(v, decimals)) > 1e-6 * span for v in values):
            decimals += 1
        words = [f"{0.0 if abs(v) < 1e-9 * span else v:.{decimals}f}" for v in values]
        return [(self.place(v), word.replace("-", "\N{MINUS SIGN}")) for v, word in zip(values, words, strict=True)]


def span(values: Iterable[float], margin: float = 0.06, least: float = 0.0) -> tuple[float, float]:
    """Numbers at the ends of an axis that shows all values with a margin; never empty."""
    finite = [value for value in values if math.isfinite(value)]
    if not finite:
        return -1.0, 1.0
    low, high = min(finite), max(finite)
    width = max(high - low, least, 1e-6 * max(abs(low), abs(high)))
    if width == 0:
        return -1.0, 1.0
    middle = (low + high) / 2
    return middle - (0.5 + margin) * width, middle + (0.5 + margin) * width


def tag(name: str, content: str | Markup = "", /, **attributes: object) -> Markup:
    """An element; ``class_`` becomes ``class``, and an underscore a hyphen. Content that is no markup is escaped."""
    words = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(value)}"'
        for key, value in attributes.items()
        if value is not None
    )
    return Markup(f"<{name}{words}>{escape(content)}</{name}>")


def told(shape: str, words: str, /, **attributes: object) -> Markup:
    """A shape that says words when the pointer is on it."""
    return tag(shape, tag("title", words), **attributes)


def text(x: float, y: float, words: str, class_: str = "", /) -> Markup:
    """Words at a place; the class says how they are aligned and look."""
    return tag("text", words, class_=class_ or None, x=x, y=y)


def line(x1: float, y1: float, x2: float, y2: float, class_: str, /) -> Markup:
    """A straight line."""
    return tag("line", class_=class_, x1=x1, y1=y1, x2=x2, y2=y2)


def picture(width: float, height: float, parts: Iterable[Markup], label: str) -> Markup:
    """A whole picture, with words for those who cannot see it."""
    return tag(
        "svg",
        Markup("\n").join(parts),
        class_="drawn",
        viewBox=f"0 0 {width:g} {height:g}",
        width=f"{width:g}",
        height=f"{height:g}",
        role="img",
        aria_label=label,
    )


def diamond(x: float, y: float, size: float) -> str:
    """Corners of a diamond, as the attribute ``points``."""
    return f"{x:.1f},{y - size:.1f} {x + size:.1f},{y:.1f} {x:.1f},{y + size:.1f} {x - size:.1f},{y:.1f}"


def pile(across: Sequence[float], size: float, height: float) -> list[float]:
    """Heights of symbols, pixels from the middle, so that those at one place lie above one another.

    Parameters
    ----------
    across : sequence of float
        Their places in pixels.
    size : float
        Their width.
    height : float
        Of the strip that they stay in.
    """
    places = np.asarray(across, dtype=float)
    columns = np.round(places / size).astype(int)
    heights, tallest = np.zeros(places.size), 1
    for column in np.unique(columns):
        members = np.flatnonzero(columns == column)
        members = members[np.argsort(places[members], kind="stable")]
        heights[members] = np.arange(members.size) - (members.size - 1) / 2
        tallest = max(tallest, members.size)
    step = min(size + 0.5, (height - size) / tallest)
    return [round(float(value) * step, 1) for value in heights]
