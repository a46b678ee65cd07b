"""Bland-Altman plots of repeated scans and treated participants, one plot for each estimator."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from markupsafe import Markup
from matplotlib.transforms import Bbox

from bidsfit.reports.canvas import INK
from bidsfit.reports.group_records import METHODS, Change, EstimatorRecord
from bidsfit.reports.vega import embedded, report_of, thinned
from bidsfit.reports.words import readable
from bidsfit.statistics.limits import ChangeLimits, Method

if TYPE_CHECKING:
    import altair

#: Limits of change beside a plot, and in sentences.
SHORT: Mapping[Method, str] = {"student": "t", "normal": "1.96"}

#: Colours of repeated scans, of treated participants within the limits, beyond one kind, and beyond both.
GREY, BLUE, ORANGE, BROWN = "#9aa5b1", "#0072b2", "#d55e00", "#9a3b00"

#: Pixels: height of a plot, and its width where there are one, two or more in a row.
HEIGHT, WIDTHS = 240, {1: 500, 2: 335, 3: 175}
#: Pixels: radius of a symbol, height of a line of text, width of a letter.
SYMBOL, LINE, LETTER = 3.6, 12.5, 6.5

#: A plot of more participants has smaller symbols; where there are too many (see `thinned`), squares of so many pixels.
MANY, SMALL, SQUARE = 120, 2.4, 8

#: How far names are moved up or down to find a free place, pixels.
SHIFTS = (0, -7, 7, -13, 13, -20, 20, -27, 27, -34, 34)

#: Participants who are named beside their symbols; where more changed, all say their names under the pointer.
MOST_NAMES = 12

#: Estimators share their axes unless one needs so many times the height of another.
LARGEST_RATIO = 4.0


def draw_bland_altman(records: Sequence[EstimatorRecord], symbol: str, unit: str) -> Markup:
    """Plot the difference of two scans against their mean, with the limits of change as horizontal lines.

    Repeated scans are grey, treated participants coloured.

    Parameters
    ----------
    records : sequence of EstimatorRecord
    symbol, unit : str
        Symbol and unit of the parameter, as plain text.

    Returns
    -------
    Markup
        Empty if no record has a pair of values.
    """
    shown = [record for record in records if _points(record)]
    if not shown:
        return Markup("")
    import altair

    columns = {1: 1, 2: 2, 4: 2}.get(len(shown), 3)
    means = [change.mean for record in shown for change in _points(record)]
    margin = 0.06 * (max(means) - min(means)) or 0.1 * abs(means[0]) or 1.0
    across = min(means) - margin, max(means) + margin
    reach = shared_reach(shown)
    title = f"mean of two scans, {symbol} ({unit})" if unit else f"mean of two scans, {symbol}"
    plots = [
        _plot(record, across, reach or _reach(record), WIDTHS[columns], title, i % columns == 0)
        for i, record in enumerate(shown)
    ]
    return embedded(altair.concat(*plots, columns=columns), f"Bland-Altman plots of {symbol}")


def shared_reach(records: Sequence[EstimatorRecord]) -> float | None:
    """Largest difference on the axes of all plots; None if the ranges differ too much for one axis."""
    reaches = [_reach(record) for record in records if _points(record)]
    return max(reaches) if reaches and max(reaches) <= LARGEST_RATIO * min(reaches) else None


def _points(record: EstimatorRecord) -> list[Change]:
    return [change for change in (*record.repeats, *record.treated) if change.known]


def _reach(record: EstimatorRecord) -> float:
    sizes = [abs(change.change) for change in _points(record)] + [limits.bound for limits in record.limits]
    return 1.12 * max(sizes) or 1.0


def _plot(
    record: EstimatorRecord, across: tuple[float, float], reach: float, width: float, title: str, leftmost: bool
) -> altair.LayerChart | altair.FacetChart:
    import altair

    x = altair.X("mean:Q", title=title, scale=altair.Scale(domain=across, nice=False))
    x = x.axis(grid=False, ticks=True, tickCount=width // 60)
    y = altair.Y("change:Q", title="second minus first" if leftmost else None)
    y = y.scale(domain=[-reach, reach], nice=False).axis(grid=True, tickCount=6)
    size = 4 * (SYMBOL if len(_points(record)) <= MANY else SMALL) ** 2
    treated = sorted((change for change in record.treated if change.known), key=lambda c: len(c.called_by))
    fill = altair.Fill("fill:N", scale=None)
    looks = {"stroke": altair.Stroke("stroke:N", scale=None), "fill": fill, "tooltip": "words:N", "href": "link:N"}
    cell = SQUARE * (across[1] - across[0]) / width, SQUARE * 2 * reach / HEIGHT
    repeated, squares = _data([change for change in record.repeats if change.known], cell)
    changed, more = _data(treated, cell, treated=True)
    repeats, changes = (altair.Chart(altair.InlineData(values=rows)) for rows in (repeated, changed))
    layers = [
        altair.Chart().mark_rule().encode(y=altair.datum(0)),
        repeats.mark_circle(opacity=1, size=size, strokeWidth=0.7).encode(x=x, y=y, **looks),
        changes.mark_point(shape="diamond", opacity=1, size=2 * size, strokeWidth=1.7).encode(x=x, y=y, **looks),
    ]
    if squares or more:
        drawn = (
            altair.Chart(altair.InlineData(values=[*squares, *more])).mark_rect().encode(fill=fill, tooltip="words:N")
        )
        opacity = altair.Opacity("share:Q", legend=None).scale(type="sqrt", domain=[0, 1], range=[0.1, 0.9])
        layers.insert(0, drawn.encode(x=x, x2="right:Q", y=y, y2="upper:Q", opacity=opacity))
    lines = [
        {
            "method": limits.method,
            "change": sign * limits.bound,
            "words": limits.words,
            "name": f"{SHORT[limits.method]} \N{PLUS-MINUS SIGN}{readable(limits.bound)}" if sign > 0 else "",
        }
        for limits in record.limits
        for sign in (1, -1)
    ]
    if lines:
        limits = altair.Chart(altair.InlineData(values=lines)).encode(y=y)
        dash = altair.StrokeDash("method:N", legend=None).scale(domain=METHODS, range=[[1, 0], [5, 4]])
        layers.append(limits.mark_rule(color="#334155", strokeWidth=1.3).encode(strokeDash=dash, tooltip="words:N"))
        # The outer limits' name above and the inner ones' below, so that they never meet.
        name = limits.mark_text(
            align="left", dx=4, color=INK, dy=altair.expr(f"datum.method == '{METHODS[0]}' ? -5 : 7")
        )
        layers.append(name.encode(x=altair.value(width), text="name:N"))
    names = _names([change for change in treated if change.called_by], across, reach, width, record.limits)
    if names:
        named = altair.Chart(altair.InlineData(values=names))
        leader = named.transform_filter("datum.led").mark_rule(color=ORANGE, strokeWidth=0.7)
        layers.append(leader.encode(x="mean:Q", y="change:Q", x2="mean_of_name:Q", y2="change_of_name:Q"))
        name = named.mark_text(align=altair.expr("datum.align"), color=BROWN, fontSize=11)
        layers.append(name.encode(x="mean_of_name:Q", y="change_of_name:Q", text="name:N"))
    return altair.layer(*layers, title=record.estimator, width=width, height=HEIGHT)


def _data(
    changes: Sequence[Change], cell: tuple[float, float], *, treated: bool = False
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Rows of data of the symbols, and of the squares in place of those that are too many; those on top come last."""
    symbols, squares = [], []
    looks = [_look(change, treated) for change in changes]
    for look in dict.fromkeys(looks):
        alike = [change for change, own in zip(changes, looks, strict=True) if own == look]
        drawn, cells = thinned([(change.mean, change.change) for change in alike], cell)
        stroke, fill = look
        for change in (alike[i] for i in drawn):
            row = {"mean": change.mean, "change": change.change, "words": describe(change, treated)}
            symbols.append(row | {"link": report_of(change.participant), "stroke": stroke, "fill": fill})
        most = max((found.number for found in cells), default=1)
        for (left, lower), (right, upper), number in cells:
            told = f"{number}: mean {readable(left)} to {readable(right)}, {'change' if treated else 'difference'} "
            row = {
                "mean": left,
                "right": right,
                "change": lower,
                "upper": upper,
                "count": number,
                "share": number / most,
            }
            row |= {"words": f"{told}{signed(lower)} to {signed(upper)}", "fill": stroke if treated else fill}
            squares.append(row)
    return symbols, squares


def _look(change: Change, treated: bool) -> tuple[str, str]:
    """Colours of the edge and of the inside of a symbol."""
    if not treated:
        return "white", GREY
    if METHODS[0] in change.called_by:
        return BROWN, ORANGE
    return ORANGE if change.called_by else BLUE, "white"


def describe(change: Change, treated: bool) -> str:
    """The two scans of a participant in words."""
    first, second = (f"ses-{label}" if label else "first scan" for label in change.sessions)
    kind = "change" if treated else "difference"
    words = (
        f"{change.participant}: {first} {readable(change.before)}, {second} {readable(change.after)}; "
        f"{kind} {signed(change.change)}, mean {readable(change.mean)}"
    )
    return f"{words}; {beyond(change)}" if treated else words


def beyond(change: Change) -> str:
    """Which limits of change are exceeded, in words."""
    if not change.called_by:
        return "within the limits"
    if len(change.called_by) == len(METHODS):
        return "beyond both limits"
    return "beyond the 1.96 limits only" if "normal" in change.called_by else "beyond the Student limits only"


def signed(value: float) -> str:
    """A number with its sign; a dash if it is not finite."""
    if not math.isfinite(value):
        return "\N{EN DASH}"
    return readable(value) if value <= 0 else f"+{readable(value)}"


def _names(
    changes: Sequence[Change], across: tuple[float, float], reach: float, width: float, limits: Sequence[ChangeLimits]
) -> list[dict[str, Any]]:
    """Positions of the names of these participants beside their symbols.

    Each name gets the first position inside the plot that overlaps no other name, symbol or limit. Empty if there are
    more than `MOST_NAMES`.
    """
    if len(changes) > MOST_NAMES:
        return []
    scale, down, beside = width / (across[1] - across[0]), HEIGHT / (2 * reach), 2.5 * SYMBOL
    places = [((change.mean - across[0]) * scale, (reach - change.change) * down) for change in changes]
    heights = [(reach - sign * one.bound) * down for one in limits for sign in (1, -1)]
    taken = [Bbox.from_bounds(x - SYMBOL, y - SYMBOL, 2 * SYMBOL, 2 * SYMBOL) for x, y in places]
    taken += [Bbox.from_bounds(0, height - 1, width, 2) for height in heights]
    rows = []
    for change, (x, y) in sorted(zip(changes, places, strict=True), key=lambda found: found[1][1]):
        name = change.participant.removeprefix("sub-")
        long = LETTER * len(name)
        corners = [(left, y + shift - LINE / 2) for shift in SHIFTS for left in (x + beside, x - beside - long)]
        boxes = [Bbox.from_bounds(*corner, long, LINE) for corner in corners]
        inside = [box for box in boxes if box.x0 >= 0 and box.x1 <= width] or boxes
        box = next((box for box in inside if not box.count_overlaps(taken)), inside[0])
        taken.append(box)
        row = {"name": name, "mean": change.mean, "change": change.change, "align": "left" if box.x0 > x else "right"}
        row["mean_of_name"] = across[0] + (box.x0 if box.x0 > x else box.x1) / scale
        row["change_of_name"] = reach - (box.y0 + box.y1) / 2 / down
        rows.append(row | {"led": bool(abs(box.y0 + box.y1 - 2 * y) > LINE)})
    return rows
