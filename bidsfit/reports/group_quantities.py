"""All numbers of repeatability and response by name, for tables with an estimator in each column."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from bidsfit.reports.group_records import METHODS, EstimatorRecord
from bidsfit.reports.group_words import interval_parts, limit_words, p_number
from bidsfit.reports.report import count
from bidsfit.reports.words import percent
from bidsfit.statistics.interval import Interval
from bidsfit.statistics.limits import Method

#: How limits of change are called in tables.
LIMIT_NAMES = {"student": "Student's t", "normal": "1.96"}


@dataclass(frozen=True)
class Row:
    """One number by all estimators.

    Attributes
    ----------
    name : str
    cells : tuple of (str, str, str)
        Value and the limits of its interval, as text; empty where there is none.
    indented : bool
        Whether it belongs to the row above.
    """

    name: str
    cells: tuple[tuple[str, str, str], ...]
    indented: bool


@dataclass(frozen=True)
class Quantity:
    """One number.

    Attributes
    ----------
    name : str
    path : str
        Attributes of the record, such as ``response.mean_change``.
    words : callable, optional
        How a number becomes text.
    factor : float
    indented : bool
        Whether it belongs to the one above.
    """

    name: str
    path: str
    words: Callable[[float], str] | None = None
    factor: float = 1.0
    indented: bool = False

    def row(self, records: Sequence[EstimatorRecord]) -> Row:
        return Row(self.name, tuple(self.cell(_follow(record, self.path)) for record in records), self.indented)

    def cell(self, found: Any) -> tuple[str, str, str]:
        if isinstance(found, Interval):
            return ("", "", "") if math.isnan(found.value) else interval_parts(found.times(self.factor))
        if found is None or (isinstance(found, float) and math.isnan(found)):
            return "", "", ""
        if isinstance(found, str):
            return found, "", ""
        if self.words is not None:
            return self.words(found), "", ""
        return count(found) if isinstance(found, int) else limit_words(found), "", ""


def _follow(record: EstimatorRecord, path: str) -> Any:
    """What lies at the end of a path; None where something on the way is missing."""
    found: Any = record
    for name in path.split("."):
        if name in METHODS:  # of the kinds of limits, this one
            found = next((one for one in found if getattr(one, "limits", one).method == name), None)
        else:
            found = getattr(found, name)
        if found is None:
            return None
    return found


def _limits(method: Method) -> Iterator[Quantity]:
    name = LIMIT_NAMES[method]
    yield Quantity(f"Limits of change, {name} (±)", f"limits.{method}.bound")
    yield Quantity("unchanged participants beyond", f"limits.{method}.false_positive_rate", percent, indented=True)


def _calls(method: Method) -> Iterator[Quantity]:
    yield Quantity(f"Changed, {LIMIT_NAMES[method]}", f"calls.{method}.n_changed")
    yield Quantity("rose", f"calls.{method}.n_increased", indented=True)
    yield Quantity("fell", f"calls.{method}.n_decreased", indented=True)
    yield Quantity("expected by chance", f"calls.{method}.expected_by_chance", indented=True)


REPEATABILITY: tuple[Quantity, ...] = (
    Quantity("Participants", "repeatability.n_participants"),
    Quantity("scans", "repeatability.n_scans", indented=True),
    Quantity("degrees of freedom", "repeatability.freedom", indented=True),
    Quantity("Mean", "repeatability.mean"),
    Quantity("Within-subject standard deviation (wSD)", "repeatability.within_subject_sd"),
    Quantity("without its small-sample bias", "repeatability.unbiased_within_subject_sd", indented=True),
    Quantity("Within-subject coefficient of variation (%)", "repeatability.within_subject_cv", factor=100),
    Quantity("Repeatability coefficient", "repeatability.repeatability_coefficient"),
    *(quantity for method in METHODS for quantity in _limits(method)),
    Quantity("Between-subject standard deviation", "repeatability.between_subject_sd"),
    Quantity("Intraclass correlation", "repeatability.intraclass_correlation.coefficient"),
    Quantity("form", "repeatability.intraclass_correlation.form", indented=True),
    Quantity("Last session minus first", "repeatability.session_effect.difference"),
    Quantity("p that sessions differ", "repeatability.session_effect.p_value", p_number, indented=True),
    Quantity("Kendall's tau of scatter and mean", "repeatability.scatter_trend.tau"),
    Quantity("p that they depend on each other", "repeatability.scatter_trend.p_value", p_number, indented=True),
)

RESPONSE: tuple[Quantity, ...] = (
    Quantity("Participants", "response.n_participants"),
    Quantity("left out, for want of a value", "response.n_left_out", indented=True),
    Quantity("Mean before", "response.mean_before"),
    Quantity("Mean after", "response.mean_after"),
    Quantity("Mean change", "response.mean_change"),
    Quantity("in per cent of the mean before", "response.percent_change", indented=True),
    Quantity("Median change", "response.median_change"),
    Quantity("Mean change of untreated participants", "against.untreated"),
    Quantity("participants", "against.n_untreated", indented=True),
    Quantity("p of the paired t-test", "against.untreated_p_value", p_number, indented=True),
    Quantity("Treated minus untreated", "against.difference"),
    Quantity("p of Welch's test", "against.p_value", p_number, indented=True),
    Quantity("t of the paired t-test", "response.t"),
    Quantity("degrees of freedom", "response.freedom", indented=True),
    Quantity("p", "response.p_value", p_number, indented=True),
    Quantity("corrected p", "adjusted_p_value", p_number, indented=True),
    Quantity("W of Wilcoxon's signed rank test", "response.wilcoxon"),
    Quantity("p", "response.wilcoxon_p_value", p_number, indented=True),
    Quantity("corrected p", "adjusted_wilcoxon_p_value", p_number, indented=True),
    Quantity("Cohen's d", "response.cohen"),
    Quantity("Hedges' g", "response.hedges"),
    *(quantity for method in METHODS for quantity in _calls(method)),
)


def rows_of(records: Sequence[EstimatorRecord], quantities: Sequence[Quantity]) -> tuple[Row, ...]:
    """Those numbers that some estimator has."""
    rows = [quantity.row(records) for quantity in quantities]
    return tuple(row for row in rows if any(any(cell) for cell in row.cells))
