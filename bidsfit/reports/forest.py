"""Forest plot: the response of the cohort in all parameters, by every estimator."""

from __future__ import annotations

import math
from collections.abc import Sequence

from markupsafe import Markup

from bidsfit.reports.comparisons import estimator_colour
from bidsfit.reports.group_records import EstimatorRecord, ParameterRecord
from bidsfit.reports.group_words import SIGNIFICANT, interval_words, p_words, plain_symbol
from bidsfit.reports.svg import WIDTH, Axis, diamond, line, picture, tag, text, told
from bidsfit.statistics.interval import NO_INTERVAL, Interval
from bidsfit.statistics.response import CohortResponse

#: Pixels: a row, the space before a parameter, titles above and the axes below; half of a symbol.
ROW, SPACE, ABOVE, BELOW, SYMBOL = 22, 10, 24, 40, 4.2
#: Pixels from a response to the same less that of the untreated.
LOWER = 17
#: Pixels: parameter, estimator, and the two plots, each with its numbers at its right.
ESTIMATOR, FIRST, FIRST_WORDS, SECOND, SECOND_WORDS = 70, (180, 440), 450, (610, 820), 830

#: An axis reaches so many times as far as the largest estimate; what lies beyond ends in an arrow.
REACH = 2.5


def draw_forest(parameters: Sequence[ParameterRecord], estimators: Sequence[str]) -> Markup:
    """Effect sizes and changes in per cent, with their intervals; filled where the corrected p-value is small.

    Parameters
    ----------
    parameters : sequence of ParameterRecord
    estimators : sequence of str
        All of the region, in the order of their colours.

    Returns
    -------
    Markup
        Empty where no cohort was treated.
    """
    groups = [(p, [r for r in p.estimators if r.response is not None]) for p in parameters]
    groups = [(parameter, records) for parameter, records in groups if records]
    if not groups:
        return Markup("")
    responses = [r.response for _, records in groups for r in records if r.response is not None]
    bottom = ABOVE + sum(SPACE + sum(map(_height, records)) for _, records in groups)
    plots = [
        (_axis([effect(r) for r in responses], FIRST), "effect size (Hedges' g)"),
        (
            _axis(
                [r.percent_change for r in responses] + [relative(r) for _, records in groups for r in records], SECOND
            ),
            "change of the mean (%)",
        ),
    ]
    parts = []
    for axis, title in plots:
        for place, words in axis.steps(5):
            parts += [line(place, ABOVE, place, bottom, "grid"), text(place, bottom + 15, words, "mid")]
        parts += [
            line(axis.place(0), ABOVE, axis.place(0), bottom, "zero"),
            text((axis.start + axis.end) / 2, bottom + 33, title, "mid"),
        ]
    y = float(ABOVE)
    for parameter, records in groups:
        y += SPACE
        parts.append(text(0, y + 15, plain_symbol(parameter), "name"))
        for record in records:
            parts += _row(record, y + ROW / 2, [axis for axis, _ in plots], estimators.index(record.estimator))
            y += _height(record)
    return picture(WIDTH, bottom + BELOW, parts, "Responses of the cohort with their intervals")


def relative(record: EstimatorRecord) -> Interval:
    """The change less that of the untreated, in per cent of the mean before the treatment; NaN where not known."""
    if record.against is None or record.response is None or not math.isfinite(record.response.percent_change.value):
        return NO_INTERVAL
    return record.against.difference.times(100 / record.response.mean_before)


def _height(record: EstimatorRecord) -> int:
    return ROW + (LOWER if math.isfinite(relative(record).value) else 0)


def effect(response: CohortResponse) -> Interval:
    """Hedges' g where it is known, else Cohen's d."""
    return response.hedges if math.isfinite(response.hedges.value) else response.cohen


def _axis(intervals: Sequence[Interval], ends: tuple[int, int]) -> Axis:
    """An axis that holds 0, all estimates and, where they are not too far, their intervals."""
    far = REACH * max((abs(i.value) for i in intervals if math.isfinite(i.value)), default=1.0)
    numbers = [0.0, *(max(-far, min(far, number)) for i in intervals for number in i if not math.isnan(number))]
    low, high = min(numbers), max(numbers)
    margin = 0.05 * (high - low) or 1.0
    return Axis(low - margin, high + margin, *ends)


def _row(record: EstimatorRecord, y: float, axes: Sequence[Axis], index: int) -> list[Markup]:
    response = record.response
    assert response is not None
    clear = record.adjusted_p_value < SIGNIFICANT
    colour = estimator_colour(index)
    parts = [text(ESTIMATOR, y + 4, record.estimator, "estimator")]
    corrected = p_words(record.adjusted_p_value)
    named = (("Hedges' g", effect(response), ""), ("mean change", response.percent_change, " %"))
    for axis, place, (what, found, unit) in zip(axes, (FIRST_WORDS, SECOND_WORDS), named, strict=True):
        words = f"{record.estimator}: {what} {interval_words(found)}{unit}, corrected {corrected}"
        if math.isfinite(found.value):
            parts += _interval(found, axis, y, colour, clear, words)
        parts.append(text(place, y + 4, interval_words(found)))
    against = relative(record)
    if record.against is not None and math.isfinite(against.value):
        y += LOWER
        p_value = record.against.p_value
        words = f"{record.estimator}: change less that of the untreated {interval_words(against)} %, {p_words(p_value)}"
        parts += [
            text(FIRST_WORDS, y + 4, "less that of the untreated"),
            *_interval(against, axes[1], y, colour, p_value < SIGNIFICANT, words, diamonds=True),
            text(SECOND_WORDS, y + 4, interval_words(against)),
        ]
    return parts


def _interval(
    found: Interval, axis: Axis, y: float, colour: str, clear: bool, words: str, diamonds: bool = False
) -> list[Markup]:
    """A line for the interval, arrows where it leaves the plot, and a square or diamond for the estimate."""
    parts = []
    if not (math.isnan(found.lower) or math.isnan(found.upper)):
        left, right = axis.place(found.lower), axis.place(found.upper)
        parts.append(told("line", words, class_="whisker", stroke=colour, x1=left, x2=right, y1=y, y2=y))
        for end, place, inwards in ((found.lower, left, 7), (found.upper, right, -7)):
            if not axis.low <= end <= axis.high:
                corners = f"{place},{y} {place + inwards},{y - 4} {place + inwards},{y + 4}"
                parts.append(tag("polygon", fill=colour, points=corners))
    side = 2 * SYMBOL
    x = axis.place(found.value)
    fill = colour if clear else "#fff"
    if diamonds:
        corners = diamond(x, y, SYMBOL + 1)
        return [*parts, told("polygon", words, class_="estimate", stroke=colour, fill=fill, points=corners)]
    square = told(
        "rect",
        words,
        class_="estimate",
        stroke=colour,
        fill=fill,
        x=round(x - SYMBOL, 1),
        y=round(y - SYMBOL, 1),
        width=side,
        height=side,
    )
    return [*parts, square]
