"""Distributions by cohort: every participant a dot, with a box for the quartiles."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from markupsafe import Markup

from bidsfit.reports.comparisons import estimator_colour
from bidsfit.reports.group_records import EstimatorRecord, Values
from bidsfit.reports.svg import WIDTH, Axis, line, picture, pile, span, tag, text, told
from bidsfit.reports.words import readable

#: Pixels: a strip, the space between estimators, the axis, the names at the left, and half of a dot.
STRIP, SPACE, AXIS, ESTIMATOR, COHORT, LEFT, RIGHT, DOT = 32, 10, 40, 0, 110, 290, 12, 3.4

#: Among fewer participants there are no quartiles.
FEWEST = 5


def draw_distributions(records: Sequence[EstimatorRecord], symbol: str, unit: str, estimators: Sequence[str]) -> Markup:
    """Strips of all cohorts, estimator by estimator, on one axis; empty where there are no values.

    Parameters
    ----------
    records : sequence of EstimatorRecord
    symbol, unit : str
        Of the parameter, as text.
    estimators : sequence of str
        All of the region, in the order of their colours.
    """
    shown = [(r, [v for v in r.distributions if any(map(math.isfinite, v.values))]) for r in records]
    shown = [(record, cohorts) for record, cohorts in shown if cohorts]
    if not shown:
        return Markup("")
    axis = Axis(*span((x for _, cohorts in shown for v in cohorts for x in v.values), 0.04), LEFT, WIDTH - RIGHT)
    bottom = sum(SPACE + STRIP * len(cohorts) for _, cohorts in shown)
    parts = []
    for place, words in axis.steps(6):
        parts += [line(place, 4, place, bottom, "grid"), text(place, bottom + 15, words, "mid")]
    parts.append(text((LEFT + WIDTH - RIGHT) / 2, bottom + 33, f"{symbol} ({unit})" if unit else symbol, "mid"))
    y = 0.0
    for record, cohorts in shown:
        y += SPACE
        parts.append(text(ESTIMATOR, y + STRIP / 2 + 4, record.estimator, "name"))
        colour = estimator_colour(estimators.index(record.estimator))
        for values in cohorts:
            group = Markup("\n").join(_strip(record.estimator, values, axis, colour))
            parts.append(tag("g", group, transform=f"translate(0 {y + STRIP / 2:g})"))
            y += STRIP
    return picture(WIDTH, bottom + AXIS, parts, f"Values of {symbol} by cohort and estimator")


def _strip(estimator: str, values: Values, axis: Axis, colour: str) -> list[Markup]:
    known = [(who, x) for who, x in zip(values.participants, values.values, strict=True) if math.isfinite(x)]
    numbers = [x for _, x in known]
    parts = [text(COHORT, 4, f"{values.cohort} ({len(known)})", "cohort")]
    above = []
    if len(known) >= FEWEST:
        first, middle, third = (float(q) for q in np.percentile(numbers, [25, 50, 75]))
        quartiles = f"median {readable(middle)}, quartiles {readable(first)} and {readable(third)}"
        words = f"{estimator}, {values.cohort}: {quartiles}"
        left, right = axis.place(first), axis.place(third)
        parts += [
            told(
                "rect",
                words,
                class_="box",
                fill=colour,
                x=left,
                y=-11,
                width=round(max(right - left, 1), 1),
                height=22,
            ),
        ]
        above.append(line(axis.place(middle), -11, axis.place(middle), 11, "median"))
    across = [axis.place(x) for x in numbers]
    for (who, x), place, height in zip(known, across, pile(across, 2 * DOT, STRIP - 4), strict=True):
        parts.append(told("circle", f"{who}: {readable(x)}", class_="value", fill=colour, cx=place, cy=height, r=DOT))
    return parts + above
