"""Figures embedded in a page: Vega-Lite specifications, with SVG pictures for browsers without scripts."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from itertools import groupby
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote

import numpy as np
from markupsafe import Markup
from numpy.typing import ArrayLike, NDArray

from bidsfit.reports.canvas import INK, QUIET
from bidsfit.reports.page import TEMPLATES

if TYPE_CHECKING:
    import altair

#: Pixels: diameter of the dots in a strip, and what is free above and below them.
DOT, FREE = 7, 8

#: Among fewer values there are no quartiles.
FEWEST = 5

#: Points that look alike are drawn one by one up to this number. Of more, those that lie farthest out are, so many, and
#: the others are counted in cells, so that a figure has a size whatever the number of participants.
MOST_POINTS, FARTHEST = 200, 40

#: What a page says where it has such figures.
CROWD_WORDS = (
    f"Of more than {MOST_POINTS} points that look alike, the {FARTHEST} farthest from their medians are drawn one by "
    "one; the others are counted, in bars or in squares that are darker where there are more."
)

#: Type and colours of the page. DejaVu Sans is where matplotlib is, which is where pictures are measured; Verdana is as
#: wide, so that what fits here fits elsewhere.
CONFIG: dict[str, Any] = {
    "font": "DejaVu Sans, Verdana, sans-serif",
    "aria": False,
    "view": {"stroke": None},
    "axis": {"domain": False, "gridColor": "#e8ecf0", "labelLimit": 0, "tickColor": QUIET, "titleFontWeight": "normal"}
    | {"labelColor": QUIET, "labelFontSize": 11.5, "titleColor": QUIET, "titleFontSize": 11.5},
    "axisY": {"labelPadding": 6, "ticks": False},
    "header": {"labelColor": INK, "labelFontSize": 13, "labelFontWeight": 600, "labelLimit": 0, "title": None},
    "headerRow": {"labelAngle": 0, "labelAnchor": "start", "labelOrient": "top", "labelPadding": 0},
    "rule": {"color": QUIET},
    "text": {"color": QUIET, "fontSize": 11.5},
    "title": {"anchor": "start", "frame": "group", "color": INK, "fontSize": 13, "fontWeight": 600},
}

#: Licences of the scripts ask that their notice stays with them.
NOTICE = (
    "Vega, Vega-Lite and Vega-Embed, (c) University of Washington Interactive Data Lab and contributors, BSD-3-Clause "
    "(https://github.com/vega/vega/blob/main/LICENSE); with parts of D3, (c) Mike Bostock, ISC"
)


#: What vl-convert puts before relative links.
BASE = "https://vega.github.io/vega-datasets/"


def embedded(chart: altair.TopLevelMixin, label: str) -> Markup:
    """HTML of a figure: an SVG picture, and the specification with which `scripts` replaces it.

    Parameters
    ----------
    chart : altair chart
    label : str
        Alternative text.
    """
    import matplotlib
    import vl_convert

    vl_convert.register_font_directory(f"{matplotlib.get_data_path()}/fonts/ttf")
    specification = chart.to_dict() | {"config": CONFIG}
    picture = vl_convert.vegalite_to_svg(specification, allowed_base_urls=[]).replace(f'href="{BASE}', 'href="')
    # Inside a script element, only "<" could end it.
    data = json.dumps(specification, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")
    return Markup(
        '<div class="chart" role="img" aria-label="{}">{}<script type="application/json">{}</script></div>'
    ).format(label, Markup(picture), Markup(data))


@cache
def scripts() -> Markup:
    """Vega, Vega-Lite, Vega-Embed, and the script that draws the figures; takes seconds, works without network."""
    import vl_convert

    bundle = vl_convert.javascript_bundle((TEMPLATES / "draw.js").read_text(encoding="utf-8"))
    return Markup(f'<script type="module">/* {NOTICE} */\n{bundle}</script>')


def report_of(participant: str) -> str:
    """Address of a participant's report, from a page in the same folder."""
    return quote(f"sub-{participant.removeprefix('sub-')}.html")


class Cell(NamedTuple):
    """Limits of a cell along each axis, and the number of points in it."""

    lower: tuple[float, ...]
    upper: tuple[float, ...]
    number: int


def thinned(points: ArrayLike, cell: Sequence[float]) -> tuple[NDArray[np.intp], list[Cell]]:
    """Which points of a figure are drawn one by one, and cells with the numbers of the others.

    Parameters
    ----------
    points : array_like, shape (n_points, n_axes)
        Points that look alike; finite.
    cell : sequence of float
        Size of a cell along each axis.

    Returns
    -------
    drawn : ndarray of int
        All up to `MOST_POINTS`; else the `FARTHEST` from the medians, where each axis is measured in interquartile
        ranges.
    cells : list of Cell
    """
    points = np.asarray(points, dtype=float)
    if len(points) <= MOST_POINTS:
        return np.arange(len(points)), []
    first, middle, third = np.percentile(points, [25, 50, 75], axis=0)
    spread = np.where(third > first, third - first, 1.0)
    order = np.argsort(-np.linalg.norm((points - middle) / spread, axis=1), kind="stable")
    places, counts = np.unique(np.floor(points[order[FARTHEST:]] / cell), axis=0, return_counts=True)
    corners = zip((places * cell).tolist(), ((places + 1) * cell).tolist(), counts.tolist(), strict=True)
    return np.sort(order[:FARTHEST]), [Cell(tuple(low), tuple(high), n) for low, high, n in corners]


@dataclass(frozen=True)
class Dot:
    """One value in a strip.

    Attributes
    ----------
    value : float
    words : str
        Tooltip.
    colour, box : str
        Colours of the dot and of the box of its strip.
    strip, group : str
        Names of the strip and of its group of strips.
    link : str or None
        Address to open on a click.
    """

    value: float
    words: str
    colour: str
    box: str
    strip: str = ""
    group: str = ""
    link: str | None = None


def strips(
    dots: Sequence[Dot],
    *,
    title: str | None,
    scale: altair.Scale,
    axis: altair.Axis,
    width: int,
    height: int = 36,
    words: Callable[[float], str],
) -> altair.LayerChart | altair.FacetChart:
    """Values as dots in strips, with boxes of quartiles and medians for five values or more.

    Where there are too many dots (see `thinned`), bars tell their number.

    Parameters
    ----------
    dots : sequence of Dot
        Those of a strip one after the other. If all belong to one group without a name, there is no heading.
    title : str or None
        Title of the axis.
    scale, axis : altair.Scale, altair.Axis
        Scale and axis of the values.
    width, height : int
        Size of a strip, pixels.
    words : callable
        Writes a value, such as a median.
    """
    import altair

    low, high = min(dot.value for dot in dots), max(dot.value for dot in dots)
    column_width = DOT * ((high - low) or 1.0) / width

    def across(field: str) -> altair.X:
        return altair.X(f"{field}:Q", title=title, scale=scale, axis=axis)

    rows: list[dict[str, Any]] = []
    for (group, strip), found in groupby(dots, lambda dot: (dot.group, dot.strip)):
        rows += _strip(list(found), {"group": group, "strip": strip}, column_width, words)
    base = altair.Chart().encode(
        y=altair.Y("strip:N", sort=None, title=None, axis=altair.Axis(grid=False, labelColor=INK)).scale(padding=0),
        tooltip="words:N",
        color=altair.Color("colour:N", scale=None),
    )
    boxes = base.transform_filter("isValid(datum.middle)")
    free = height - FREE - DOT
    bars = base.transform_filter("isValid(datum.tall)").mark_bar(
        opacity=0.55, height=altair.expr(f"max(1, datum.tall * {free})")
    )
    # Dots at one place lie above one another, closer where they would leave the strip.
    circles = (
        base.transform_filter("isValid(datum.value)")
        .transform_calculate(column=f"round((datum.value - {low}) / {column_width})")
        .transform_joinaggregate(n="count()", groupby=["group", "strip", "column"])
        .transform_joinaggregate(tallest="max(n)", groupby=["group", "strip"])
        .transform_window(place="row_number()", groupby=["group", "strip", "column"], sort=[{"field": "value"}])
        .transform_calculate(height=f"(datum.place - (datum.n + 1) / 2) * min({DOT + 0.5}, {free} / datum.tallest)")
        .mark_circle(size=DOT**2, opacity=0.75, stroke="white", strokeWidth=0.6, yOffset=altair.expr("datum.height"))
        .encode(x=across("value"))
    )
    if any(dot.link for dot in dots):
        circles = circles.encode(href="link:N")
    chart = altair.layer(
        boxes.mark_bar(opacity=0.14, height=height - 12).encode(x=across("first"), x2="third:Q"),
        *([bars.encode(x=across("left"), x2="right:Q")] if any("tall" in row for row in rows) else []),
        circles,
        boxes.mark_tick(thickness=1.5, height=height - 12).encode(x=across("middle"), color=altair.value(INK)),
        data=altair.InlineData(values=rows),
        width=width,
        height=altair.Step(height),
    )
    groups = list(dict.fromkeys(dot.group for dot in dots))
    if groups == [""]:
        return chart
    return chart.facet(row=altair.Row("group:N", sort=groups), spacing=10).resolve_scale(y="independent")


def _strip(
    dots: Sequence[Dot], place: dict[str, str], column_width: float, words: Callable[[float], str]
) -> list[dict[str, Any]]:
    """Rows of data of one strip: dots, bars for those that are too many, and a box."""
    alone: list[Dot] = []
    bars: list[dict[str, Any]] = []
    for colour in dict.fromkeys(dot.colour for dot in dots):
        alike = [dot for dot in dots if dot.colour == colour]
        drawn, cells = thinned([[dot.value] for dot in alike], [column_width])
        alone += [alike[i] for i in drawn]
        for cell in cells:
            told = f"{cell.number} between {words(cell.lower[0])} and {words(cell.upper[0])}"
            row = {"left": cell.lower[0], "right": cell.upper[0], "count": cell.number, "colour": colour, "words": told}
            bars.append(place | row)
    tallest = max((row["count"] for row in bars), default=1)
    rows = [{name: value for name, value in asdict(dot).items() if name != "box"} for dot in alone]
    rows += [row | {"tall": row["count"] / tallest} for row in bars]
    if len(dots) >= FEWEST:
        first, middle, third = np.percentile([dot.value for dot in dots], [25, 50, 75]).tolist()
        name = ", ".join(filter(None, place.values()))
        told = f"{name}: median {words(middle)}, quartiles {words(first)} and {words(third)}".removeprefix(": ")
        rows.append(place | {"first": first, "middle": middle, "third": third, "colour": dots[0].box, "words": told})
    return rows
