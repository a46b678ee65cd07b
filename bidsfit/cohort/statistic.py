"""What a statistic of the group level is that no other needs: one object, in a file of its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from bidsfit.cohort.values import Arranged
from bidsfit.reports.group_numbers import Number, Table


@dataclass(frozen=True)
class GroupStatistic:
    """A statistic of one parameter in one region by one estimator.

    Attributes
    ----------
    table : {"repeatability", "response"}
        The table of the group level, and of its page, that shows it.
    compute : callable
        From the values of a cohort; None, or a ValueError, where they are too few.
    numbers : tuple of Number
        What is shown of it; their values begin with ``more.`` and its name.
    warn : callable
        What a reader must know, from what was computed; empty for nothing.
    """

    name: str
    table: Table
    compute: Callable[[Arranged], Any]
    numbers: tuple[Number, ...]
    warn: Callable[[Any], str] = lambda found: ""
