"""Forest plot of the response of a cohort, for all parameters and estimators."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from bidsfit.reports.canvas import INK
from bidsfit.reports.comparisons import estimator_colour
from bidsfit.reports.group_records import EstimatorRecord, ParameterRecord
from bidsfit.reports.group_words import SIGNIFICANT, interval_words, p_words, plain_symbol
from bidsfit.reports.vega import embedded
from bidsfit.statistics.interval import NO_INTERVAL, Interval
from bidsfit.statistics.response import CohortResponse

if TYPE_CHECKING:
    import altair

#: Pixels: height of a row, and widths of the plots.
ROW, WIDTHS = 22, (250, 210)

#: An axis reaches so many times as far as the largest estimate; what lies beyond ends in an arrow.
REACH = 2.5


def draw_forest(parameters: Sequence[ParameterRecord], estimators: Sequence[str]) -> Markup:
    """Plot effect sizes and changes in per cent with their intervals.

    Symbols are filled if the corrected p-value is below `SIGNIFICANT`.

    Parameters
    ----------
    parameters : sequence of ParameterRecord
    estimators : sequence of str
        All estimators of the region; their order determines the colours.

    Returns
    -------
    Markup
        Empty if there is no response.
    """
    effects, changes = [], []
    for parameter in parameters:
        for record in parameter.estimators:
            if record.response is None:
                continue
            name = {"parameter": plain_symbol(parameter), "row": record.estimator}
            look = {"colour": estimator_colour(estimators.index(record.estimator)), "shape": "square"}
            corrected = f"corrected {p_words(record.adjusted_p_value)}"
            look["fill"] = look["colour"] if record.adjusted_p_value < SIGNIFICANT else "white"
            size, change, less = effect(record.response), record.response.percent_change, relative(record)
            words = f"{record.estimator}: Hedges' g {interval_words(size)}, {corrected}"
            effects.append((size, {**name, **look, "words": words}))
            words = f"{record.estimator}: mean change {interval_words(change)} %, {corrected}"
            changes.append((change, {**name, **look, "words": words}))
            if record.against is not None and math.isfinite(less.value):
                name["row"] += ", less untreated"
                look["shape"] = "diamond"
                look["fill"] = look["colour"] if record.against.p_value < SIGNIFICANT else "white"
                words = f"change less that of the untreated {interval_words(less)} %, {p_words(record.against.p_value)}"
                effects.append((NO_INTERVAL, name))
                changes.append((less, {**name, **look, "words": f"{record.estimator}: {words}"}))
    if not effects:
        return Markup("")
    import altair

    plots = [
        _plot(effects, "effect size (Hedges' g)", WIDTHS[0], named=True),
        _plot(changes, "change of the mean (%)", WIDTHS[1], named=False),
    ]
    return embedded(altair.hconcat(*plots), "Responses of the cohort with their intervals")


def relative(record: EstimatorRecord) -> Interval:
    """Change minus that of untreated participants, in per cent of the mean before treatment; NaN if unknown."""
    if record.against is None or record.response is None or not math.isfinite(record.response.percent_change.value):
        return NO_INTERVAL
    return record.against.difference.times(100 / record.response.mean_before)


def effect(response: CohortResponse) -> Interval:
    """Hedges' g, or Cohen's d if it is unknown."""
    return response.hedges if math.isfinite(response.hedges.value) else response.cohen


def _plot(
    found: Sequence[tuple[Interval, dict[str, Any]]], title: str, width: int, *, named: bool
) -> altair.FacetChart:
    """A plot on an axis that contains 0, all estimates, and their intervals as far as `REACH` allows."""
    import altair

    far = REACH * max((abs(i.value) for i, _ in found if math.isfinite(i.value)), default=1.0)
    numbers = [0.0, *(max(-far, min(far, number)) for i, _ in found for number in i if not math.isnan(number))]
    margin = 0.05 * (max(numbers) - min(numbers)) or 1.0
    low, high = min(numbers) - margin, max(numbers) + margin
    rows = []
    for interval, looks in found:
        known = math.isfinite(interval.value)
        row = looks | {"numbers": interval_words(interval) if known or "words" in looks else ""}
        if known:
            row["value"] = interval.value
        if known and not (math.isnan(interval.lower) or math.isnan(interval.upper)):
            row |= {"lower": max(interval.lower, low), "upper": min(interval.upper, high)}
            row |= {"left": low} if interval.lower < low else {}
            row |= {"right": high} if interval.upper > high else {}
        rows.append(row)
    scale = altair.Scale(domain=[low, high], nice=False)
    x = altair.X("value:Q", title=title, scale=scale, axis=altair.Axis(grid=True, tickCount=5))
    y = altair.Y("row:N", sort=None, title=None, axis=altair.Axis(grid=False, labelColor=INK) if named else None)
    colour = altair.Stroke("colour:N", scale=None)
    base = altair.Chart().encode(y=y)

    def where(name: str) -> altair.Chart:
        told = base.encode(stroke=colour, tooltip="words:N")
        return told.transform_filter(f"isValid(datum.{name})")

    layers = [
        base.mark_text(align="left", dx=10).encode(x=altair.value(width), text="numbers:N"),
        altair.Chart(altair.InlineData(values=[{}])).mark_rule().encode(x=altair.datum(0)),
        where("lower").mark_rule(strokeWidth=2).encode(x="lower:Q", x2="upper:Q"),
        *(
            where(end).mark_point(shape=f"triangle-{end}", filled=True).encode(x=f"{end}:Q")
            for end in ("left", "right")
            if any(end in row for row in rows)
        ),
        where("value")
        .mark_point(size=70, strokeWidth=1.7, opacity=1)
        .encode(x=x, shape=altair.Shape("shape:N", scale=None), fill=altair.Fill("fill:N", scale=None)),
    ]
    names = list(dict.fromkeys(row["parameter"] for row in rows))
    header = altair.Header(labelExpr="datum.label" if named else "''")
    return (
        altair.layer(*layers, data=altair.InlineData(values=rows), width=width, height=altair.Step(ROW))
        .facet(row=altair.Row("parameter:N", sort=names, header=header), spacing=8)
        .resolve_scale(y="independent")
    )
