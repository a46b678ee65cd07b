"""Comparison of estimators: precision, changed participants, confounded parameters, narrow estimates."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from bidsfit.bids.regions import CONDITIONS, WHOLE
from bidsfit.cohort.values import CohortValues, RegionParameter
from bidsfit.reports.group_records import METHODS, Confounding, EstimatorRecord
from bidsfit.statistics.comparison import (
    DetectionComparison,
    EstimatorComparison,
    compare_detections,
    compare_estimators,
)
from bidsfit.statistics.limits import Method
from bidsfit.statistics.precision import rank_correlation

#: The estimator that has neither a prior nor a training: what others are measured by.
REFERENCE = "lsq"

#: Between-subject standard deviations below this share of the reference's are called narrow.
NARROW = 0.5


def compare_calls(records: Sequence[EstimatorRecord]) -> dict[Method, DetectionComparison]:
    """Comparison of the participants called changed between estimators; empty with fewer than two."""
    called = [record for record in records if record.calls]
    found: dict[Method, DetectionComparison] = {}
    if len(called) < 2:
        return found
    names = [record.estimator for record in called]
    for i, method in enumerate(METHODS):
        try:
            found[method] = compare_detections(np.stack([r.calls[i].direction for r in called], axis=1), names)
        except ValueError:  # nobody was judged by all of them
            continue
    return found


def compare_precision(quantities: Sequence[RegionParameter], values: CohortValues) -> EstimatorComparison | None:
    """Comparison of parameter-to-noise ratios in one region; ``quantities`` has one entry per estimator.

    None for the whole mask, which is not homogeneous, or if there is nothing to compare.
    """
    known = [what for what in quantities if values.precision.get(what)]
    if len(known) < 2 or known[0].region == WHOLE:
        return None
    people = sorted({label for what in known for label in values.precision[what]})
    table = [[values.precision[what].get(label, np.nan) for what in known] for label in people]
    try:
        return compare_estimators(table, [what.estimator for what in known])
    except ValueError:  # fewer than two participants have all of them
        return None


def confoundings(
    quantities: Sequence[RegionParameter], values: CohortValues, latex: Mapping[str, str]
) -> tuple[Confounding, ...]:
    """Rank correlations of D* and f (and of other pairs joined by a condition), by estimator.

    ``quantities`` are those of one model in one region of one series.
    """
    found = []
    for what in quantities:
        condition = CONDITIONS.get(what.parameter)
        if condition is None:
            continue
        across = None
        other = next((w for w in quantities if (w.estimator, w.parameter) == (what.estimator, condition.label)), None)
        if other is not None:
            first, second = values.first.get(what, {}), values.first.get(other, {})
            both = sorted(first.keys() & second.keys())
            try:
                across = rank_correlation([first[label] for label in both], [second[label] for label in both])
            except ValueError:  # fewer than four participants, or no spread
                across = None
        within = list(values.correlation.get(what, {}).values())
        if across is None and not within:
            continue
        lower, middle, upper = np.percentile(within, [25, 50, 75]).tolist() if within else (math.nan,) * 3
        names = latex.get(what.parameter, what.parameter), latex.get(condition.label, condition.label)
        found.append(Confounding(what.estimator, names, across, middle, lower, upper, len(within)))
    return tuple(found)


def narrow_words(records: Sequence[EstimatorRecord]) -> dict[str, str]:
    """Warnings, by estimator, if participants differ much less than by least squares.

    Standard deviations between participants are corrected for the scatter within them, so that the noise of least
    squares does not make others look narrow. There are no warnings if least squares itself shows no differences beyond
    noise.
    """
    reference = next((r.repeatability for r in records if r.estimator == REFERENCE), None)
    if reference is None or not reference.intraclass_correlation.coefficient.lower > 0:
        return {}
    found = {}
    for record in records:
        if record.repeatability is None or record.estimator == REFERENCE:
            continue
        if record.repeatability.n_participants != reference.n_participants:  # others may differ less
            continue
        share = record.repeatability.between_subject_sd / reference.between_subject_sd
        if share < NARROW:
            size = f"{100 * share:.0f} % of that of {REFERENCE}" if share > 0 else f"0, and by {REFERENCE} it is not"
            found[record.estimator] = (
                f"The standard deviation between participants by {record.estimator} is {size} (without the scatter "
                "within them). Estimates that are drawn to one value, such as the mean of a training or of a prior, "
                "repeat well and change little, whatever the tissue does: a small within-subject standard deviation "
                "is no merit here."
            )
    return found
