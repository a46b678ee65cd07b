"""Values of all cohorts: a dot for each participant, and boxes of the quartiles."""

from __future__ import annotations

import math
from collections.abc import Sequence

from markupsafe import Markup

from bidsfit.reports.comparisons import estimator_colour
from bidsfit.reports.group_records import EstimatorRecord
from bidsfit.reports.vega import Dot, embedded, report_of, strips
from bidsfit.reports.words import readable

#: Pixels of the plot; names of estimators and cohorts are at its left.
WIDTH = 660


def draw_distributions(records: Sequence[EstimatorRecord], symbol: str, unit: str, estimators: Sequence[str]) -> Markup:
    """Plot the values of all cohorts on one axis, grouped by estimator; empty if there are none.

    Parameters
    ----------
    records : sequence of EstimatorRecord
    symbol, unit : str
        Symbol and unit of the parameter, as plain text.
    estimators : sequence of str
        All estimators of the region; their order determines the colours.
    """
    dots = []
    for record in records:
        colour = estimator_colour(estimators.index(record.estimator))
        for found in record.distributions:
            known = [(who, x) for who, x in zip(found.participants, found.values, strict=True) if math.isfinite(x)]
            strip = f"{found.cohort} ({len(known)})"
            dots += [
                Dot(x, f"{who}: {readable(x)}", colour, colour, strip, record.estimator, report_of(who))
                for who, x in known
            ]
    if not dots:
        return Markup("")
    import altair

    chart = strips(
        dots,
        title=f"{symbol} ({unit})" if unit else symbol,
        scale=altair.Scale(zero=False, nice=False, padding=12),
        axis=altair.Axis(tickCount=6),
        width=WIDTH,
        words=readable,
    )
    return embedded(chart, f"Values of {symbol} by cohort and estimator")
