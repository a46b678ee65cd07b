"""Numbers of repeatability and response: each is declared once, for its table column and its row on the page."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from bidsfit.bids.tables import Kind, TableColumn, interval
from bidsfit.registry import Registry
from bidsfit.reports.group_records import METHODS, EstimatorRecord
from bidsfit.reports.group_words import interval_parts, limit_words, p_number
from bidsfit.reports.report import count
from bidsfit.reports.words import percent
from bidsfit.statistics.interval import Interval
from bidsfit.statistics.limits import Method

#: How limits of change are called in tables.
LIMIT_NAMES = {"student": "Student's t", "normal": "1.96"}

#: Statistics that no other needs; each is a file (see `bidsfit.cohort.statistic.GroupStatistic`).
GROUP_STATISTICS = Registry(
    "group statistic",
    "bidsfit.group_statistics",
    {
        "session_effect": "bidsfit.cohort.session_effect:SESSION_EFFECT",
        "scatter_trend": "bidsfit.cohort.scatter_trend:SCATTER_TREND",
    },
)

Table = Literal["repeatability", "response"]


@dataclass(frozen=True)
class Row:
    """A row of the page: one number for all estimators.

    Attributes
    ----------
    name : str
    cells : tuple of (str, str, str)
        Value and limits of its interval as text, for each estimator; empty if unknown.
    indented : bool
        Whether it is subordinate to the row above.
    """

    name: str
    cells: tuple[tuple[str, str, str], ...]
    indented: bool


@dataclass(frozen=True)
class Number:
    """One number of an `EstimatorRecord`, and how it is shown.

    Attributes
    ----------
    column : str
        Name of its table column; empty if only the page shows it.
    title, description : str
        Title and description of the column.
    value : str or callable
        Path of attributes from the record, such as ``response.mean_change``, or a function of the record.
    kind, units : str
        Kind and units of the column (see `TableColumn`).
    limits : bool
        Whether the value is an interval with columns for its limits.
    label : str
        Label of its row on the page; empty if only the table contains it.
    words : callable, optional
        Converts the value to text for the page.
    factor : float
        Multiplies the value on the page.
    indented : bool
        Whether its row is subordinate to the one above.
    """

    column: str
    title: str
    description: str
    value: str | Callable[[EstimatorRecord], Any]
    kind: Kind = "number"
    units: str = ""
    limits: bool = False
    label: str = ""
    words: Callable[[float], str] | None = None
    factor: float = 1.0
    indented: bool = False

    @property
    def columns(self) -> dict[str, TableColumn]:
        """Table columns, by name; empty if only the page shows the number."""
        if not self.column:
            return {}
        if self.limits:
            return interval(self.column, self.title, self.description, self.kind, self.units)
        return {self.column: TableColumn(self.title, self.description, self.kind, self.units)}

    def of(self, record: EstimatorRecord) -> Any:
        """Value in a record; None if unknown."""
        return _follow(record, self.value) if isinstance(self.value, str) else self.value(record)

    def cells(self, record: EstimatorRecord) -> dict[str, Any]:
        """Values of the table columns, by name."""
        found = self.of(record)
        if not self.column or found is None:
            return {}
        if isinstance(found, Interval):
            limits = {f"{self.column}_lower": found.lower, f"{self.column}_upper": found.upper} if self.limits else {}
            return {self.column: found.value, **limits}
        return {self.column: found}

    def row(self, records: Sequence[EstimatorRecord]) -> Row:
        """Row of the page."""
        return Row(self.label, tuple(self._shown(self.of(record)) for record in records), self.indented)

    def _shown(self, found: Any) -> tuple[str, str, str]:
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
    """Value at the end of a path of attributes; None if one of them is missing."""
    found: Any = record
    for name in path.split("."):
        if name in METHODS:  # of the kinds of limits, this one
            found = next((one for one in found if getattr(one, "limits", one).method == name), None)
        else:
            found = found.get(name) if isinstance(found, Mapping) else getattr(found, name)
        if found is None:
            return None
    return found


def _limits(method: Method) -> Iterator[Number]:
    name, quantile = LIMIT_NAMES[method], "1.96 times the root of 2 times wSD, as if wSD were known"
    if method == "student":
        quantile = "The same with the quantile of Student's t in place of 1.96, which allows for the estimate of wSD"
    yield Number(
        f"limit_{method}",
        f"Limit of change, {name}",
        quantile,
        f"limits.{method}.bound",
        "parameter",
        label=f"Limits of change, {name} (±)",
    )
    yield Number(
        f"limit_{method}_rate",
        f"False positive rate, {name}",
        f"Share of unchanged participants outside plus or minus limit_{method}",
        f"limits.{method}.false_positive_rate",
        label="unchanged participants beyond",
        words=percent,
        indented=True,
    )


def _calls(method: Method) -> Iterator[Number]:
    name, calls = LIMIT_NAMES[method], f"calls.{method}"
    yield Number("", "", "", f"{calls}.n_changed", label=f"Changed, {name}")
    yield Number(
        f"n_increased_{method}",
        f"Increased, {name}",
        f"Participants above limit_{method}",
        f"{calls}.n_increased",
        "count",
        label="rose",
        indented=True,
    )
    yield Number(
        f"n_decreased_{method}",
        f"Decreased, {name}",
        f"Participants below minus limit_{method}",
        f"{calls}.n_decreased",
        "count",
        label="fell",
        indented=True,
    )
    yield Number("", "", "", f"{calls}.expected_by_chance", label="expected by chance", indented=True)


def _of_treated(name: str) -> Callable[[EstimatorRecord], int | None]:
    """Function that finds a count in the response, or in the calls if there is only one treated participant."""

    def found(record: EstimatorRecord) -> int | None:
        sources = [record.response, *record.calls]
        return next((getattr(source, name) for source in sources if source is not None), None)

    return found


def _changed(record: EstimatorRecord) -> str | None:
    """Names of the participants who changed."""
    if not record.calls:
        return None
    return ", ".join(change.participant for change in record.treated if "student" in change.called_by)


EXPECTED: tuple[Number, ...] = (
    Number(
        "expected_response", "Response of the estimator",
        "Change of the mean estimate per true change, by simulation: median over the images. All other columns are as "
        "measured, none is corrected for it", "expected_response", label="Response of the estimator (simulated)",
    ),
    Number(
        "expected_bias", "Expected bias of the estimator",
        "By simulation: median over the images. All other columns are as measured, none is corrected for it",
        "expected_bias", "parameter", label="Expected bias (simulated)",
    ),
)  # fmt: skip

REPEATABILITY: tuple[Number, ...] = (
    Number(
        "n_participants", "Participants", "With two values or more", "repeatability.n_participants", "count",
        label="Participants",
    ),
    Number(
        "n_left_out", "Participants left out", "With fewer than two values", "repeatability.n_left_out", "count"
    ),
    Number(
        "n_scans", "Scans", "Of all participants", "repeatability.n_scans", "count", label="scans", indented=True
    ),
    Number(
        "freedom", "Degrees of freedom", "Of the within-subject standard deviation", "repeatability.freedom", "count",
        label="degrees of freedom", indented=True,
    ),
    Number("mean", "Mean", "Of the participants' means", "repeatability.mean", "parameter", label="Mean"),
    Number(
        "within_subject_sd", "Within-subject standard deviation (wSD)", "Root of the mean within-subject variance",
        "repeatability.within_subject_sd", "parameter", limits=True, label="Within-subject standard deviation (wSD)",
    ),
    Number(
        "unbiased_within_subject_sd", "Unbiased within-subject standard deviation",
        "The same without the small-sample bias of a root", "repeatability.unbiased_within_subject_sd", "parameter",
        label="without its small-sample bias", indented=True,
    ),
    Number(
        "within_subject_cv", "Within-subject coefficient of variation",
        "Root mean square of the participants' coefficients of variation, as a fraction",
        "repeatability.within_subject_cv", limits=True, label="Within-subject coefficient of variation (%)",
        factor=100,
    ),
    Number(
        "repeatability_coefficient", "Repeatability coefficient", "1.96 times the root of 2 times wSD",
        "repeatability.repeatability_coefficient", "parameter", limits=True, label="Repeatability coefficient",
    ),
    *(number for method in METHODS for number in _limits(method)),
    Number(
        "between_subject_sd", "Between-subject standard deviation",
        "0 where participants differ no more than their scans do", "repeatability.between_subject_sd", "parameter",
        label="Between-subject standard deviation",
    ),
    Number(
        "icc", "Intraclass correlation", "Share of the variance that lies between participants",
        "repeatability.intraclass_correlation.coefficient", limits=True, label="Intraclass correlation",
    ),
    Number(
        "icc_form", "Form of the intraclass correlation", "After McGraw and Wong",
        "repeatability.intraclass_correlation.form", "words", label="form", indented=True,
    ),
)  # fmt: skip

RESPONSE: tuple[Number, ...] = (
    Number(
        "n_participants", "Treated participants", "With both values", _of_treated("n_participants"), "count",
        label="Participants",
    ),
    Number(
        "n_left_out", "Participants left out", "Treated, with fewer than two values", _of_treated("n_left_out"),
        "count", label="left out, for want of a value", indented=True,
    ),
    Number(
        "mean_before", "Mean before", "Of the participants", "response.mean_before", "parameter", label="Mean before"
    ),
    Number("mean_after", "Mean after", "Of the participants", "response.mean_after", "parameter", label="Mean after"),
    Number(
        "mean_change", "Mean change", "After minus before", "response.mean_change", "parameter", limits=True,
        label="Mean change",
    ),
    Number(
        "percent_change", "Mean change over the mean before", "After minus before", "response.percent_change",
        units="%", limits=True, label="in per cent of the mean before", indented=True,
    ),
    Number(
        "median_change", "Median change", "After minus before", "response.median_change", "parameter",
        label="Median change",
    ),
    Number(
        "untreated_change", "Mean change of the untreated", "Last session minus first", "against.untreated",
        "parameter", limits=True, label="Mean change of untreated participants",
    ),
    Number(
        "n_untreated", "Untreated participants", "With repeated scans, who were not treated", "against.n_untreated",
        "count", label="participants", indented=True,
    ),
    Number(
        "untreated_p_value", "p of the untreated", "Paired t-test of their change, two-sided",
        "against.untreated_p_value", label="p of the paired t-test", words=p_number, indented=True,
    ),
    Number(
        "change_difference", "Difference in change", "Mean change of the treated minus that of the untreated",
        "against.difference", "parameter", limits=True, label="Treated minus untreated",
    ),
    Number(
        "change_difference_p_value", "p of the difference in change", "Welch's t-test, two-sided, not corrected",
        "against.p_value", label="p of Welch's test", words=p_number, indented=True,
    ),
    Number("t", "t", "Of the paired t-test", "response.t", label="t of the paired t-test"),
    Number(
        "freedom", "Degrees of freedom", "Of the paired t-test", "response.freedom", "count",
        label="degrees of freedom", indented=True,
    ),
    Number(
        "p_value", "p", "Of the paired t-test, two-sided", "response.p_value", label="p", words=p_number,
        indented=True,
    ),
    Number(
        "adjusted_p_value", "Corrected p", "The same, corrected as the column correction says", "adjusted_p_value",
        label="corrected p", words=p_number, indented=True,
    ),
    Number(
        "wilcoxon", "W", "Of Wilcoxon's signed rank test", "response.wilcoxon",
        label="W of Wilcoxon's signed rank test",
    ),
    Number(
        "wilcoxon_p_value", "p of Wilcoxon's test", "Two-sided", "response.wilcoxon_p_value", label="p",
        words=p_number, indented=True,
    ),
    Number(
        "adjusted_wilcoxon_p_value", "Corrected p of Wilcoxon's test", "As the column correction says",
        "adjusted_wilcoxon_p_value", label="corrected p", words=p_number, indented=True,
    ),
    Number(
        "cohen", "Cohen's d", "Mean change over the standard deviation of the changes", "response.cohen", limits=True,
        label="Cohen's d",
    ),
    Number(
        "hedges", "Hedges' g", "Cohen's d without its small-sample bias", "response.hedges", label="Hedges' g"
    ),
    *(number for method in METHODS for number in _calls(method)),
    *(
        Number(
            f"limit_{method}", f"Limit of change, {LIMIT_NAMES[method]}",
            "From the repeated scans; see group_repeatability.tsv", f"limits.{method}.bound", "parameter",
        )
        for method in METHODS
    ),
    Number("changed", "Changed participants", "Those outside limit_student, with sub-", _changed, "words"),
)  # fmt: skip


def numbers_of(table: Table) -> tuple[Number, ...]:
    """All numbers of a table; those of `GROUP_STATISTICS` come last."""
    statistics = [GROUP_STATISTICS.get(name) for name in GROUP_STATISTICS.available()]
    own = {"repeatability": REPEATABILITY, "response": RESPONSE}[table]
    return (*own, *EXPECTED, *(number for one in statistics if one.table == table for number in one.numbers))


def rows_of(records: Sequence[EstimatorRecord], numbers: Iterable[Number]) -> tuple[Row, ...]:
    """Rows of the page for these numbers; rows that are empty for all estimators are left out."""
    rows = [number.row(records) for number in numbers if number.label]
    return tuple(row for row in rows if any(any(cell) for cell in row.cells))
