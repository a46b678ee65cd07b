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
        Takes the values of a cohort; returns None or raises ValueError if they are too few.
    numbers : tuple of Number
        Numbers that are shown; their values begin with ``more.`` and its name.
    warn : callable
        Returns warnings about a result.
    """

    name: str
    table: Table
    compute: Callable[[Arranged], Any]
    numbers: tuple[Number, ...]
    warn: Callable[[Any], str] = lambda found: ""
