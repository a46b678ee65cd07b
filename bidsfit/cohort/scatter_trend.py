"""Statistic of the group level: dependence of the scatter of repeated scans on their mean."""

from __future__ import annotations

from bidsfit.cohort.statistic import GroupStatistic
from bidsfit.cohort.values import Arranged
from bidsfit.reports.group_numbers import Number
from bidsfit.reports.group_words import p_number
from bidsfit.statistics.scans import RepeatedScans
from bidsfit.statistics.scatter import ScatterTrend, scatter_trend


def compute(arranged: Arranged) -> ScatterTrend:
    """The trend of the scatter of the repeated scans."""
    return scatter_trend(RepeatedScans.of(arranged.repeats))


SCATTER_TREND = GroupStatistic(
    "scatter_trend",
    "repeatability",
    compute,
    (
        Number(
            "scatter_tau",
            "Kendall's tau of the scatter",
            "Rank correlation of a participant's standard deviation with the mean",
            "more.scatter_trend.tau",
            label="Kendall's tau of scatter and mean",
        ),
        Number(
            "scatter_p_value",
            "p of the scatter",
            "That the scatter depends on the mean",
            "more.scatter_trend.p_value",
            label="p that they depend on each other",
            words=p_number,
            indented=True,
        ),
    ),
    lambda found: found.words if found.p_value < 0.05 else "",
)
