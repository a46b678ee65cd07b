"""Bland-Altman plots of repeated scans and treated participants, one for each estimator."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from markupsafe import Markup

from bidsfit.reports.group_records import METHODS, Change, EstimatorRecord
from bidsfit.reports.svg import WIDTH, Axis, diamond, line, picture, span, tag, text, told
from bidsfit.reports.words import readable
from bidsfit.statistics.limits import ChangeLimits, Method

#: Limits of change beside a plot, and in sentences.
SHORT: Mapping[Method, str] = {"student": "t", "normal": "1.96"}

#: Pixels: height of a plot with its title and axis, and what is around it.
HEIGHT, ABOVE, BELOW, LEFT, RIGHT = 310, 26, 44, 50, 92
#: Pixels: radius of a symbol, height of a line of text, width of a letter.
SYMBOL, LINE, LETTER = 3.6, 12.5, 6.5
#: Widths of a plot with its margins, where there are one, two or more in a row.
WIDTHS = {1: 640, 2: 480, 3: 320}

#: A plot of more participants has smaller symbols.
MANY, SMALL = 120, 2.4

#: How far names are moved up or down to find a free place, pixels.
SHIFTS = (0, -7, 7, -13, 13, -20, 20, -27, 27, -34, 34)

#: Participants who are named beside their symbols; where more changed, all say their names under the pointer.
MOST_NAMES = 12

#: Estimators share their axes unless one needs so many times the height of another.
LARGEST_RATIO = 4.0


def draw_bland_altman(records: Sequence[EstimatorRecord], symbol: str, unit: str) -> Markup:
    """Difference against mean: repeated scans grey, treated participants in colour, limits of change at zero offset.

    Parameters
    ----------
    records : sequence of EstimatorRecord
    symbol, unit : str
        Of the parameter, as text.

    Returns
    -------
    Markup
        Empty where there is nothing to draw.
    """
    shown = [record for record in records if _points(record)]
    if not shown:
        return Markup("")
    columns = {1: 1, 2: 2, 4: 2}.get(len(shown), 3)
    width, rows = WIDTHS[columns], -(-len(shown) // columns)
    across = span(change.mean for record in shown for change in _points(record))
    reach = shared_reach(shown)
    parts = [
        tag(
            "g",
            Markup("\n").join(_plot(record, across, reach or _reach(record), width, symbol, unit, i % columns == 0)),
            transform=f"translate({i % columns * width} {i // columns * HEIGHT})",
        )
        for i, record in enumerate(shown)
    ]
    return picture(min(columns * width, WIDTH), rows * HEIGHT, parts, f"Bland-Altman plots of {symbol}")


def shared_reach(records: Sequence[EstimatorRecord]) -> float | None:
    """Largest difference on the axes of all plots; None where they are too unlike to be read on one axis."""
    reaches = [_reach(record) for record in records if _points(record)]
    return max(reaches) if reaches and max(reaches) <= LARGEST_RATIO * min(reaches) else None


def _points(record: EstimatorRecord) -> list[Change]:
    return [change for change in (*record.repeats, *record.treated) if change.known]


def _reach(record: EstimatorRecord) -> float:
    sizes = [abs(change.change) for change in _points(record)] + [limits.bound for limits in record.limits]
    return 1.12 * max(sizes) or 1.0


def _plot(
    record: EstimatorRecord,
    across: tuple[float, float],
    reach: float,
    width: float,
    symbol: str,
    unit: str,
    leftmost: bool,
) -> list[Markup]:
    x = Axis(*across, LEFT, width - RIGHT)
    y = Axis(-reach, reach, HEIGHT - BELOW, ABOVE)
    parts = [text(LEFT, 14, record.estimator, "name")]
    for place, words in y.steps(6):
        parts += [line(LEFT, place, width - RIGHT, place, "grid"), text(LEFT - 6, place + 4, words, "end")]
    foot = HEIGHT - BELOW
    for place, words in x.steps(4):
        parts += [line(place, foot, place, foot + 4, "tick"), text(place, foot + 17, words, "mid")]
    parts += [
        line(LEFT, y.place(0), width - RIGHT, y.place(0), "zero"),
        text((LEFT + width - RIGHT) / 2, HEIGHT - 9, f"mean of two scans{_unit(symbol, unit)}", "mid"),
    ]
    if leftmost:
        turned = f"translate(9 {(ABOVE + foot) / 2:g}) rotate(-90)"
        parts.append(tag("text", "second minus first", class_="mid", transform=turned))
    for limits in record.limits:
        parts += _limits(limits, y, width)
    size = SYMBOL if len(_points(record)) <= MANY else SMALL
    parts += [_circle(change, x, y, size) for change in record.repeats if change.known]
    treated = sorted((change for change in record.treated if change.known), key=lambda c: len(c.called_by))
    parts += [_diamond(change, x, y, size + 1.6) for change in treated]
    return parts + _names([change for change in treated if change.called_by], x, y, record.limits)


def _unit(symbol: str, unit: str) -> str:
    return f", {symbol} ({unit})" if unit else f", {symbol}"


def _limits(limits: ChangeLimits, y: Axis, width: float) -> list[Markup]:
    """Both lines of one kind, and its name above the outer and below the inner one, so that they never meet."""
    method = limits.method
    places = [y.place(sign * limits.bound) for sign in (1, -1)]
    outer = method == METHODS[0]
    lines = [
        told("line", limits.words, class_=f"limit {method}", x1=LEFT, x2=width - RIGHT, y1=p, y2=p) for p in places
    ]
    name = f"{SHORT[method]} \N{PLUS-MINUS SIGN}{readable(limits.bound)}"
    return [*lines, text(width - RIGHT + 4, places[0] + (-2 if outer else 11), name, f"limit-name {method}")]


def describe(change: Change, treated: bool) -> str:
    """A participant's two scans in words."""
    first, second = (f"ses-{label}" if label else "first scan" for label in change.sessions)
    kind = "difference" if not treated else "change"
    words = (
        f"{change.participant}: {first} {readable(change.before)}, {second} {readable(change.after)}; "
        f"{kind} {signed(change.change)}, mean {readable(change.mean)}"
    )
    if not treated:
        return words
    return f"{words}; {beyond(change)}"


def beyond(change: Change) -> str:
    """Which limits a change lies beyond, in words."""
    if not change.called_by:
        return "within the limits"
    if len(change.called_by) == len(METHODS):
        return "beyond both limits"
    return "beyond the 1.96 limits only" if "normal" in change.called_by else "beyond the Student limits only"


def signed(value: float) -> str:
    """A number with its sign."""
    if not math.isfinite(value):
        return "\N{EN DASH}"
    return readable(value) if value <= 0 else f"+{readable(value)}"


def _circle(change: Change, x: Axis, y: Axis, size: float) -> Markup:
    return told(
        "circle",
        describe(change, treated=False),
        class_="retest",
        cx=x.place(change.mean),
        cy=y.place(change.change),
        r=size,
    )


def _diamond(change: Change, x: Axis, y: Axis, size: float) -> Markup:
    state = " beyond" if METHODS[0] in change.called_by else " between" if change.called_by else ""
    return told(
        "polygon",
        describe(change, treated=True),
        class_=f"treated{state}",
        points=diamond(x.place(change.mean), y.place(change.change), size),
    )


def _names(changes: Sequence[Change], x: Axis, y: Axis, limits: Sequence[ChangeLimits]) -> list[Markup]:
    """Names beside symbols, at the first place where they lie on no other name, symbol or limit and inside the plot."""
    if len(changes) > MOST_NAMES:
        return []
    places = [(x.place(change.mean), y.place(change.change)) for change in changes]
    taken = [Box(across - SYMBOL, down - SYMBOL, across + SYMBOL, down + SYMBOL) for across, down in places]
    taken += [Box(x.start, p - 1, x.end, p + 1) for one in limits for p in map(y.place, (one.bound, -one.bound))]
    parts = []
    for i in sorted(range(len(changes)), key=lambda i: places[i][1]):
        name, (across, down) = changes[i].participant.removeprefix("sub-"), places[i]
        boxes = [_box(across, down + shift, right, LETTER * len(name)) for shift in SHIFTS for right in (True, False)]
        inside = [box for box in boxes if x.start <= box.left and box.right <= x.end] or boxes
        chosen = next((box for box in inside if not any(box.meets(other) for other in taken)), inside[0])
        taken.append(chosen)
        right, middle = chosen.left > across, (chosen.top + chosen.bottom) / 2
        edge = chosen.left if right else chosen.right
        if abs(middle - down) > LINE / 2:
            parts.append(line(across, down, round(edge, 1), round(middle, 1), "leader"))
        parts.append(text(round(edge, 1), round(middle + 4, 1), name, "who" if right else "who end"))
    return parts


class Box(NamedTuple):
    """A part of the plot that a name or a symbol takes, pixels."""

    left: float
    top: float
    right: float
    bottom: float

    def meets(self, other: Box) -> bool:
        """Whether two boxes overlap."""
        return (
            self.left < other.right and other.left < self.right and self.top < other.bottom and other.top < self.bottom
        )


def _box(across: float, middle: float, right: bool, width: float) -> Box:
    """Where a name of some width would lie, at the right or the left of a place."""
    left = across + 2.5 * SYMBOL if right else across - 2.5 * SYMBOL - width
    return Box(left, middle - LINE / 2, left + width, middle + LINE / 2)
