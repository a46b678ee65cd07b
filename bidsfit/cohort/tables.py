"""The tables of the group level: what their columns are, and their rows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from bidsfit.bids.tables import WHAT, WHO, TableColumn, interval, write_table
from bidsfit.cohort.region_values import RegionValues
from bidsfit.cohort.values import RegionParameter
from bidsfit.reports.group_records import EstimatorRecord
from bidsfit.statistics.interval import Interval
from bidsfit.statistics.multiplicity import Correction
from bidsfit.statistics.response import DifferenceInChange

ROIS, REPEATABILITY_TABLE, RESPONSE_TABLE = "group_rois.tsv", "group_repeatability.tsv", "group_response.tsv"


#: Which images are compared, where a session has several.
SERIES = TableColumn(
    "Images", "Entities that all images compared share, beside participant and session; often none", "words"
)

ROI_COLUMNS: Mapping[str, TableColumn] = {
    **WHO,
    "image": TableColumn("Image", "Entities of the image", "words"),
    **WHAT,
    "n_voxels": TableColumn("Voxels", "Of the region", "count"),
    "n_fitted": TableColumn("Fitted voxels", "Voxels of the region with an estimate that counts", "count"),
    "n_used": TableColumn(
        "Voxels used", "Fitted voxels whose values are summarised; of Dstar those where f is 0.05 or more", "count"
    ),
    "n_at_bound": TableColumn(
        "Voxels at a bound", "Voxels used whose fit ended with this parameter at a bound", "count"
    ),
    "n_prior_only": TableColumn(
        "Voxels at the prior", "Voxels used of which the data say no more of a parameter than its prior", "count"
    ),
    "n_unlike_training": TableColumn(
        "Voxels unlike the training",
        "Voxels used whose signals are unlike all of the estimator's training",
        "count",
    ),
    "median": TableColumn("Median", "Over the voxels used", "parameter"),
    "mean": TableColumn("Mean", "Over the voxels used", "parameter"),
    "sd": TableColumn("Standard deviation", "Over the voxels used, with n - 1", "parameter"),
    "q05": TableColumn("5 % quantile", "Over the voxels used", "parameter"),
    "q25": TableColumn("25 % quantile", "Over the voxels used", "parameter"),
    "q75": TableColumn("75 % quantile", "Over the voxels used", "parameter"),
    "q95": TableColumn("95 % quantile", "Over the voxels used", "parameter"),
    "correlation": TableColumn(
        "Correlation with f", "Of Dstar: Spearman's rank correlation with f over the voxels used", "number"
    ),
    "source": TableColumn("Region file", "BIDS URI of the file of the region", "words"),
    "in_training": TableColumn(
        "In the training", "1 where the estimator was trained on fits of this participant", "flag"
    ),
}

REPEATABILITY_COLUMNS: Mapping[str, TableColumn] = {
    **WHAT,
    "series": SERIES,
    "statistic": TableColumn("Statistic", "Over the voxels of a region: what is compared, such as median", "words"),
    "n_participants": TableColumn("Participants", "With two values or more", "count"),
    "n_left_out": TableColumn("Participants left out", "With fewer than two values", "count"),
    "n_scans": TableColumn("Scans", "Of all participants", "count"),
    "freedom": TableColumn("Degrees of freedom", "Of the within-subject standard deviation", "count"),
    "mean": TableColumn("Mean", "Of the participants' means", "parameter"),
    **interval(
        "within_subject_sd",
        "Within-subject standard deviation (wSD)",
        "Root of the mean within-subject variance",
        "parameter",
    ),
    "unbiased_within_subject_sd": TableColumn(
        "Unbiased within-subject standard deviation", "The same without the small-sample bias of a root", "parameter"
    ),
    **interval(
        "repeatability_coefficient", "Repeatability coefficient", "1.96 times the root of 2 times wSD", "parameter"
    ),
    "limit_normal": TableColumn(
        "Limit of change, 1.96", "1.96 times the root of 2 times wSD, as if wSD were known", "parameter"
    ),
    "limit_normal_rate": TableColumn(
        "False positive rate, 1.96", "Share of unchanged participants outside plus or minus limit_normal"
    ),
    "limit_student": TableColumn(
        "Limit of change, Student's t",
        "The same with the quantile of Student's t in place of 1.96, which allows for the estimate of wSD",
        "parameter",
    ),
    "limit_student_rate": TableColumn(
        "False positive rate, Student's t", "Share of unchanged participants outside plus or minus limit_student"
    ),
    **interval(
        "within_subject_cv",
        "Within-subject coefficient of variation",
        "Root mean square of the participants' coefficients of variation, as a fraction",
    ),
    "between_subject_sd": TableColumn(
        "Between-subject standard deviation", "0 where participants differ no more than their scans do", "parameter"
    ),
    "icc_form": TableColumn("Form of the intraclass correlation", "After McGraw and Wong", "words"),
    **interval("icc", "Intraclass correlation", "Share of the variance that lies between participants"),
    **interval("session_difference", "Difference between sessions", "Last session minus first", "parameter"),
    "session_p_value": TableColumn("p of the sessions", "That sessions differ systematically"),
    "scatter_tau": TableColumn(
        "Kendall's tau of the scatter", "Rank correlation of a participant's standard deviation with the mean"
    ),
    "scatter_p_value": TableColumn("p of the scatter", "That the scatter depends on the mean"),
    "warnings": TableColumn("Warnings", "What a reader must know, in words", "words"),
}

RESPONSE_COLUMNS: Mapping[str, TableColumn] = {
    **WHAT,
    "series": SERIES,
    "statistic": TableColumn("Statistic", "Over the voxels of a region: what is compared, such as median", "words"),
    "n_participants": TableColumn("Treated participants", "With both values", "count"),
    "n_left_out": TableColumn("Participants left out", "Treated, with fewer than two values", "count"),
    "mean_before": TableColumn("Mean before", "Of the participants", "parameter"),
    "mean_after": TableColumn("Mean after", "Of the participants", "parameter"),
    **interval("mean_change", "Mean change", "After minus before", "parameter"),
    "median_change": TableColumn("Median change", "After minus before", "parameter"),
    "n_untreated": TableColumn("Untreated participants", "With repeated scans, who were not treated", "count"),
    **interval("untreated_change", "Mean change of the untreated", "Last session minus first", "parameter"),
    "untreated_p_value": TableColumn("p of the untreated", "Paired t-test of their change, two-sided"),
    **interval(
        "change_difference",
        "Difference in change",
        "Mean change of the treated minus that of the untreated",
        "parameter",
    ),
    "change_difference_p_value": TableColumn(
        "p of the difference in change", "Welch's t-test, two-sided, not corrected"
    ),
    **interval("percent_change", "Mean change over the mean before", "After minus before", units="%"),
    "t": TableColumn("t", "Of the paired t-test"),
    "freedom": TableColumn("Degrees of freedom", "Of the paired t-test", "count"),
    "p_value": TableColumn("p", "Of the paired t-test, two-sided"),
    "adjusted_p_value": TableColumn("Corrected p", "The same, corrected as the column correction says"),
    "wilcoxon": TableColumn("W", "Of Wilcoxon's signed rank test"),
    "wilcoxon_p_value": TableColumn("p of Wilcoxon's test", "Two-sided"),
    "adjusted_wilcoxon_p_value": TableColumn("Corrected p of Wilcoxon's test", "As the column correction says"),
    "correction": TableColumn("Correction", "For the number of parameters and regions: its name", "words"),
    **interval("cohen", "Cohen's d", "Mean change over the standard deviation of the changes"),
    "hedges": TableColumn("Hedges' g", "Cohen's d without its small-sample bias"),
    "n_increased_student": TableColumn("Increased, Student's t", "Participants above limit_student", "count"),
    "n_decreased_student": TableColumn("Decreased, Student's t", "Participants below minus limit_student", "count"),
    "n_increased_normal": TableColumn("Increased, 1.96", "Participants above limit_normal", "count"),
    "n_decreased_normal": TableColumn("Decreased, 1.96", "Participants below minus limit_normal", "count"),
    "limit_student": TableColumn(
        "Limit of change, Student's t", "From the repeated scans; see group_repeatability.tsv", "parameter"
    ),
    "limit_normal": TableColumn(
        "Limit of change, 1.96", "From the repeated scans; see group_repeatability.tsv", "parameter"
    ),
    "changed": TableColumn("Changed participants", "Those outside limit_student, with sub-", "words"),
}


def write_rois(folder: Path, rows: Iterable[RegionValues], about: Mapping[str, Any] | None = None) -> Path:
    """Write ``group_rois.tsv`` of an output folder, in the order of the rows."""
    names = [one.name for one in fields(RegionValues)]
    return write_table(
        folder / ROIS,
        ROI_COLUMNS,
        ({name: getattr(row, name) for name in names} for row in rows),
        description="Values of parameter maps in regions: one row for each participant, session, image, model, "
        "estimator, region and parameter.",
        about=about,
    )


def repeatability_rows(found: Mapping[RegionParameter, EstimatorRecord], statistic: str) -> Iterator[dict[str, Any]]:
    """Rows of ``group_repeatability.tsv``, in the units of the numerics; what could not be estimated has none."""
    for what, record in found.items():
        result = record.repeatability
        if result is None:
            continue
        yield {
            **_head(what, statistic),
            "n_participants": result.n_participants,
            "n_left_out": result.n_left_out,
            "n_scans": result.n_scans,
            "freedom": result.freedom,
            "mean": result.mean,
            **_columns("within_subject_sd", result.within_subject_sd),
            "unbiased_within_subject_sd": result.unbiased_within_subject_sd,
            **_columns("repeatability_coefficient", result.repeatability_coefficient),
            **_limits(record),
            **{f"limit_{limit.method}_rate": limit.false_positive_rate for limit in record.limits},
            **_columns("within_subject_cv", result.within_subject_cv),
            "between_subject_sd": result.between_subject_sd,
            "icc_form": result.intraclass_correlation.form,
            **_columns("icc", result.intraclass_correlation.coefficient),
            **_columns("session_difference", result.session_effect.difference),
            "session_p_value": result.session_effect.p_value,
            "scatter_tau": result.scatter_trend.tau,
            "scatter_p_value": result.scatter_trend.p_value,
            "warnings": " ".join((*record.warnings, *result.warnings)),
        }


def response_rows(
    found: Mapping[RegionParameter, EstimatorRecord], statistic: str, correction: Correction
) -> Iterator[dict[str, Any]]:
    """Rows of ``group_response.tsv``; a single treated participant has calls, and no test."""
    for what, record in found.items():
        result, calls = record.response, {call.limits.method: call for call in record.calls}
        if result is None and not calls:
            continue
        row: dict[str, Any] = _head(what, statistic)
        if result is not None:
            row |= {
                "n_participants": result.n_participants,
                "n_left_out": result.n_left_out,
                "mean_before": result.mean_before,
                "mean_after": result.mean_after,
                **_columns("mean_change", result.mean_change),
                "median_change": result.median_change,
                **_against(record.against),
                **_columns("percent_change", result.percent_change),
                "t": result.t,
                "freedom": result.freedom,
                "p_value": result.p_value,
                "adjusted_p_value": record.adjusted_p_value,
                "wilcoxon": result.wilcoxon,
                "wilcoxon_p_value": result.wilcoxon_p_value,
                "adjusted_wilcoxon_p_value": record.adjusted_wilcoxon_p_value,
                "correction": correction,
                **_columns("cohen", result.cohen),
                "hedges": result.hedges.value,
            }
        for method, call in calls.items():
            row.setdefault("n_participants", call.n_participants)
            row.setdefault("n_left_out", call.n_left_out)
            row |= {f"n_increased_{method}": call.n_increased, f"n_decreased_{method}": call.n_decreased}
        if calls:
            row["changed"] = ", ".join(change.participant for change in record.treated if "student" in change.called_by)
        yield row | _limits(record)


def _against(found: DifferenceInChange | None) -> dict[str, Any]:
    if found is None:
        return {}
    return {
        "n_untreated": found.n_untreated,
        **_columns("untreated_change", found.untreated),
        "untreated_p_value": found.untreated_p_value,
        **_columns("change_difference", found.difference),
        "change_difference_p_value": found.p_value,
    }


def _head(what: RegionParameter, statistic: str) -> dict[str, Any]:
    return {**what._asdict(), "statistic": statistic}


def _limits(record: EstimatorRecord) -> dict[str, float]:
    return {f"limit_{limit.method}": limit.bound for limit in record.limits}


def _columns(name: str, interval: Interval) -> dict[str, float]:
    return {name: interval.value, f"{name}_lower": interval.lower, f"{name}_upper": interval.upper}
