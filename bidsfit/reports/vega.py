"""Figures embedded in a page: Vega-Lite specifications, with SVG pictures for browsers without scripts."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from markupsafe import Markup

from bidsfit.reports.canvas import INK, QUIET
from bidsfit.reports.page import TEMPLATES

if TYPE_CHECKING:
    import altair

#: Pixels: diameter of the dots in a strip, and what is free above and below them.
DOT, FREE = 7, 8

#: Among fewer values there are no quartiles.
FEWEST = 5

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
    numbers: str = ".3~g",
) -> altair.LayerChart | altair.FacetChart:
    """Values as dots in strips, with boxes of quartiles and medians for five values or more.

    Parameters
    ----------
    dots : sequence of Dot
        If all belong to one group without a name, there is no heading.
    title : str or None
        Title of the axis.
    scale, axis : altair.Scale, altair.Axis
        Scale and axis of the values.
    width, height : int
        Size of a strip, pixels.
    numbers : str
        d3 format of medians and quartiles.
    """
    import altair

    low, high = min(dot.value for dot in dots), max(dot.value for dot in dots)

    def across(field: str) -> altair.X:
        return altair.X(f"{field}:Q", title=title, scale=scale, axis=axis)

    base = altair.Chart().encode(
        y=altair.Y("strip:N", sort=None, title=None, axis=altair.Axis(grid=False, labelColor=INK)).scale(padding=0),
        tooltip="words:N",
    )
    told = [f"format(datum.{name}, '{numbers}')" for name in ("middle", "first", "third")]
    where = "(datum.group ? datum.group + ', ' + datum.strip + ': ' : '')"
    quartiles = (
        base.transform_aggregate(
            n="count()", first="q1(value)", middle="median(value)", third="q3(value)", groupby=["group", "strip", "box"]
        )
        .transform_filter(f"datum.n >= {FEWEST}")
        .transform_calculate(
            words=f"{where} + 'median ' + {told[0]} + ', quartiles ' + {told[1]} + ' and ' + {told[2]}"
        )
    )
    box = quartiles.mark_bar(opacity=0.14, height=height - 12)
    median = quartiles.mark_tick(color=INK, thickness=1.5, height=height - 12)
    # Dots at one place lie above one another, closer where they would leave the strip.
    column = f"round((datum.value - {low}) * {width / DOT / ((high - low) or 1.0)})"
    step = f"min({DOT + 0.5}, {height - FREE - DOT} / datum.tallest)"
    circles = (
        base.transform_calculate(column=column)
        .transform_joinaggregate(n="count()", groupby=["group", "strip", "column"])
        .transform_joinaggregate(tallest="max(n)", groupby=["group", "strip"])
        .transform_window(place="row_number()", groupby=["group", "strip", "column"], sort=[{"field": "value"}])
        .transform_calculate(height=f"(datum.place - (datum.n + 1) / 2) * {step}")
        .mark_circle(size=DOT**2, opacity=0.75, stroke="white", strokeWidth=0.6, yOffset=altair.expr("datum.height"))
        .encode(x=across("value"), color=altair.Color("colour:N", scale=None))
    )
    if any(dot.link for dot in dots):
        circles = circles.encode(href="link:N")
    chart = altair.layer(
        box.encode(x=across("first"), x2="third:Q", color=altair.Color("box:N", scale=None)),
        circles,
        median.encode(x=across("middle")),
        data=altair.InlineData(values=[asdict(dot) for dot in dots]),
        width=width,
        height=altair.Step(height),
    )
    groups = list(dict.fromkeys(dot.group for dot in dots))
    if groups == [""]:
        return chart
    return chart.facet(row=altair.Row("group:N", sort=groups), spacing=10).resolve_scale(y="independent")
