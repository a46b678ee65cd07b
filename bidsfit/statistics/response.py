"""Response to treatment: which participants changed, and whether the cohort did."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from bidsfit.statistics.effect_size import paired_effect_size
from bidsfit.statistics.interval import LEVEL, NO_INTERVAL, Interval, check_level
from bidsfit.statistics.limits import ChangeLimits
from bidsfit.statistics.samples import as_vector, paired

#: A change of the untreated that is larger than this share of that of the treated is not small.
LARGE_SHARE = 0.25


@dataclass(frozen=True)
class ChangeCalls:
    """Which participants changed by more than repeated scans differ.

    Attributes
    ----------
    change, mean : ndarray, shape (n_all,)
        Second value minus first, and their mean, for each participant in the order given; NaN where one is missing.
    direction : ndarray, shape (n_all,)
        1 where the value rose beyond the limit, -1 where it fell, 0 within the limits, NaN where a value is missing.
    p_value : ndarray, shape (n_all,)
        Two-sided, of no change, from Student's t with the degrees of freedom of the limits, whatever their method.
    n_participants, n_left_out : int
        Participants with both values, and those without.
    """

    change: NDArray[np.float64]
    mean: NDArray[np.float64]
    direction: NDArray[np.float64]
    p_value: NDArray[np.float64]
    limits: ChangeLimits
    n_participants: int
    n_left_out: int

    @property
    def n_increased(self) -> int:
        return int(np.count_nonzero(self.direction == 1))

    @property
    def n_decreased(self) -> int:
        return int(np.count_nonzero(self.direction == -1))

    @property
    def n_changed(self) -> int:
        return self.n_increased + self.n_decreased

    @property
    def expected_by_chance(self) -> float:
        """Participants who would be called changed on average if nobody had changed."""
        return self.limits.false_positive_rate * self.n_participants


def call_changes(before: ArrayLike, after: ArrayLike, limits: ChangeLimits) -> ChangeCalls:
    """Call those participants changed who lie outside the limits.

    Parameters
    ----------
    before, after : array_like, shape (n_participants,)
        NaN where a value is missing: such a participant is not judged, and counted.
    limits : ChangeLimits
        From the repeated scans of other participants.

    Raises
    ------
    ValueError
        Where nobody has both values.
    """
    pairs = paired(before, after, 1, "Calling changes")
    change, mean, direction, p_value = np.full((4, pairs.known.size), np.nan)
    change[pairs.known] = difference = pairs.values[:, 1] - pairs.values[:, 0]
    mean[pairs.known] = pairs.values.mean(axis=1)
    direction[pairs.known] = np.sign(difference) * (np.abs(difference) > limits.bound)
    ratio = np.abs(difference) / (np.sqrt(2) * limits.within_subject_sd)
    p_value[pairs.known] = 2 * stats.t.sf(ratio, limits.freedom)
    return ChangeCalls(change, mean, direction, p_value, limits, len(pairs.values), pairs.n_left_out)


@dataclass(frozen=True)
class CohortResponse:
    """Change of a cohort from one session to another.

    Attributes
    ----------
    n_participants, n_left_out : int
        Participants with both values, and those without.
    mean_change : Interval
        After minus before.
    percent_change : Interval
        Mean change over the mean before, in per cent; NaN where the mean before is not positive. Its limits are
        infinite where the mean before cannot be told from 0.
    t, p_value : float
        Paired t-test, two-sided.
    wilcoxon, wilcoxon_p_value : float
        Wilcoxon's signed rank test, two-sided.
    cohen, hedges : Interval
        Mean change over the standard deviation of the changes; see `paired_effect_size`.
    """

    n_participants: int
    n_left_out: int
    mean_before: float
    mean_after: float
    mean_change: Interval
    median_change: float
    percent_change: Interval
    t: float
    freedom: int
    p_value: float
    wilcoxon: float
    wilcoxon_p_value: float
    cohen: Interval
    hedges: Interval
    level: float


def cohort_response(before: ArrayLike, after: ArrayLike, *, level: float = LEVEL) -> CohortResponse:
    """Mean change of a cohort, with the paired t-test and Wilcoxon's signed rank test.

    Parameters
    ----------
    before, after : array_like, shape (n_participants,)
        NaN where a value is missing: such a participant is left out and counted.
    level : float
        Confidence level of the intervals.

    Raises
    ------
    ValueError
        Where fewer than two participants have both values, or all changes are the same.
    """
    check_level(level)
    pairs = paired(before, after, 2, "The response of a cohort")
    first, second = pairs.values.T
    changes = second - first
    if np.ptp(changes) <= 1e-12 * np.abs(pairs.values).max():
        raise ValueError(
            f"All {changes.size} participants changed by {changes[0]:.3g}: without scatter there is no test; are the "
            "two sessions the same?"
        )
    test = stats.ttest_rel(second, first)
    interval = test.confidence_interval(level)
    ranks = stats.wilcoxon(changes)
    effect = paired_effect_size(changes, level)
    return CohortResponse(
        n_participants=changes.size,
        n_left_out=pairs.n_left_out,
        mean_before=float(first.mean()),
        mean_after=float(second.mean()),
        mean_change=Interval(float(changes.mean()), float(interval.low), float(interval.high)),
        median_change=float(np.median(changes)),
        percent_change=_percent_change(first, second, level),
        t=float(test.statistic),
        freedom=int(test.df),
        p_value=float(test.pvalue),
        wilcoxon=float(ranks.statistic),
        wilcoxon_p_value=float(ranks.pvalue),
        cohen=effect.cohen,
        hedges=effect.hedges,
        level=level,
    )


@dataclass(frozen=True)
class DifferenceInChange:
    """Change of a treated cohort against that of participants who were not treated.

    Attributes
    ----------
    n_untreated : int
        Participants with both values.
    untreated : Interval
        Their mean change, second minus first: what a session makes of nothing.
    untreated_p_value : float
        Paired t-test of it, two-sided.
    difference : Interval
        Mean change of the treated minus that of the untreated.
    t, freedom, p_value : float
        Welch's test of it, two-sided.
    """

    n_untreated: int
    untreated: Interval
    untreated_p_value: float
    difference: Interval
    t: float
    freedom: float
    p_value: float
    level: float

    def drifts(self, response: CohortResponse) -> bool:
        """Whether the untreated changed too much to read the change of the treated alone.

        They changed systematically (p below 0.05), or the treated did and the untreated by more than a quarter of it.
        """
        share = abs(self.untreated.value) > LARGE_SHARE * abs(response.mean_change.value)
        return self.untreated_p_value < 1 - LEVEL or (response.p_value < 1 - LEVEL and share)


def difference_in_change(treated: ArrayLike, untreated: ArrayLike, *, level: float = LEVEL) -> DifferenceInChange:
    """Set the change of a treated cohort against that of an untreated one, by Welch's test [1]_.

    Parameters
    ----------
    treated, untreated : array_like, shape (n,)
        Changes, second value minus first; NaN where a value is missing.
    level : float
        Confidence level of the intervals.

    Raises
    ------
    ValueError
        Where a cohort has fewer than two changes, or none of the two scatters.

    References
    ----------
    .. [1] Welch BL. Biometrika 1947;34:28-35.
    """
    check_level(level)
    ours, theirs = (
        array[np.isfinite(array)] for array in (as_vector(treated, "Treated"), as_vector(untreated, "Untreated"))
    )
    if min(ours.size, theirs.size) < 2 or (np.ptp(ours) == 0 and np.ptp(theirs) == 0):
        raise ValueError(
            "Treated and untreated participants are compared where there are two changes or more of each, and they "
            f"scatter; found {ours.size} and {theirs.size}."
        )
    alone = stats.ttest_1samp(theirs, 0.0)
    drift = alone.confidence_interval(level)
    test = stats.ttest_ind(ours, theirs, equal_var=False)
    interval = test.confidence_interval(level)
    return DifferenceInChange(
        n_untreated=theirs.size,
        untreated=Interval(float(theirs.mean()), float(drift.low), float(drift.high)),
        untreated_p_value=float(alone.pvalue),
        difference=Interval(float(ours.mean() - theirs.mean()), float(interval.low), float(interval.high)),
        t=float(test.statistic),
        freedom=float(test.df),
        p_value=float(test.pvalue),
        level=level,
    )


def _percent_change(first: NDArray[np.float64], second: NDArray[np.float64], level: float) -> Interval:
    """Ratio of means with Fieller's limits: those ratios r for which a t-test finds no mean of ``second - r first``."""
    n = first.size
    means = first.mean(), second.mean()
    if means[0] <= 0:
        return NO_INTERVAL
    covariance = np.cov(first, second) * stats.t.ppf((1 + level) / 2, n - 1) ** 2 / n
    a, b, c = (
        means[0] ** 2 - covariance[0, 0],
        means[0] * means[1] - covariance[0, 1],
        means[1] ** 2 - covariance[1, 1],
    )
    value = 100 * (means[1] / means[0] - 1)
    if a <= 0:
        return Interval(float(value), -np.inf, np.inf)
    half = np.sqrt(max(b**2 - a * c, 0.0))
    return Interval(float(value), *(float(100 * (root / a - 1)) for root in (b - half, b + half)))
