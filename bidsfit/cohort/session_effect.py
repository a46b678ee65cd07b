"""Statistic of the group level: systematic difference between repeated scans."""

from __future__ import annotations

from bidsfit.cohort.statistic import GroupStatistic
from bidsfit.cohort.values import Arranged
from bidsfit.reports.group_numbers import Number
from bidsfit.reports.group_words import p_number
from bidsfit.statistics.scans import RepeatedScans
from bidsfit.statistics.session_effect import SessionEffect, session_effect


def compute(arranged: Arranged) -> SessionEffect:
    """The session effect of the repeated scans."""
    return session_effect(RepeatedScans.of(arranged.repeats))


SESSION_EFFECT = GroupStatistic(
    "session_effect",
    "repeatability",
    compute,
    (
        Number(
            "session_difference",
            "Difference between sessions",
            "Last session minus first",
            "more.session_effect.difference",
            "parameter",
            limits=True,
            label="Last session minus first",
        ),
        Number(
            "session_p_value",
            "p of the sessions",
            "That sessions differ systematically",
            "more.session_effect.p_value",
            label="p that sessions differ",
            words=p_number,
            indented=True,
        ),
    ),
    lambda found: found.words if found.p_value < 0.05 else "",
)
