"""Independent statistics of the group level, each defined by one object in its own file."""

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
        Table and part of the page that show it.
    compute : callable
        Computes it from the values of a cohort; returns None or raises ValueError if there are too few.
    numbers : tuple of Number
        Numbers to show; the paths of their values begin with ``more.`` and the name of the statistic.
    warn : callable
        Returns a warning about a result; may be empty.
    """

    name: str
    table: Table
    compute: Callable[[Arranged], Any]
    numbers: tuple[Number, ...]
    warn: Callable[[Any], str] = lambda found: ""
