"""Rows of the tables of repeatability and response."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from bidsfit.bids.design import What
from bidsfit.reports.group_records import EstimatorRecord
from bidsfit.statistics.interval import Interval
from bidsfit.statistics.multiplicity import Correction
from bidsfit.statistics.response import DifferenceInChange


def repeatability_rows(found: Mapping[What, EstimatorRecord], statistic: str) -> Iterator[dict[str, Any]]:
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
    found: Mapping[What, EstimatorRecord], statistic: str, correction: Correction
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


def _head(what: What, statistic: str) -> dict[str, Any]:
    return {**what._asdict(), "statistic": statistic}


def _limits(record: EstimatorRecord) -> dict[str, float]:
    return {f"limit_{limit.method}": limit.bound for limit in record.limits}


def _columns(name: str, interval: Interval) -> dict[str, float]:
    return {name: interval.value, f"{name}_lower": interval.lower, f"{name}_upper": interval.upper}
