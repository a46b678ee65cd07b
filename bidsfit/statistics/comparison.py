"""Estimators side by side, on the same participants."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar

from bidsfit.statistics.interval import LEVEL, Interval, check_level
from bidsfit.statistics.multiplicity import adjust_p_values
from bidsfit.statistics.samples import Complete, as_table, complete


@dataclass(frozen=True)
class PairOfEstimators:
    """Paired tests between two estimators.

    Attributes
    ----------
    difference : Interval
        Mean of second minus first.
    p_value, wilcoxon_p_value : float
        Paired t-test and Wilcoxon's signed rank test, two-sided; 1 where the estimators never differ, NaN where they
        differ by the same in everyone, which no test can judge.
    adjusted_p_value, adjusted_wilcoxon_p_value : float
        After Holm's correction over the pairs of estimators.
    """

    first: str
    second: str
    difference: Interval
    p_value: float
    wilcoxon_p_value: float
    adjusted_p_value: float = np.nan
    adjusted_wilcoxon_p_value: float = np.nan


@dataclass(frozen=True)
class EstimatorComparison:
    """A quantity of each participant, by several estimators.

    Attributes
    ----------
    means, medians : ndarray, shape (n_estimators,)
    n_participants, n_left_out : int
        Participants with a value of every estimator, and those without.
    friedman, friedman_p_value : float
        Friedman's test of all estimators at once; NaN for two, where it says no more than the pair.
    """

    names: tuple[str, ...]
    means: NDArray[np.float64]
    medians: NDArray[np.float64]
    n_participants: int
    n_left_out: int
    friedman: float
    friedman_p_value: float
    pairs: tuple[PairOfEstimators, ...]


def compare_estimators(values: ArrayLike, names: Sequence[str], *, level: float = LEVEL) -> EstimatorComparison:
    """Paired tests between estimators of a quantity such as the parameter-to-noise ratio.

    Parameters
    ----------
    values : array_like, shape (n_participants, n_estimators)
        NaN where a value is missing: such a participant is left out of all comparisons, and counted.
    names : sequence of str
        Of the estimators.
    level : float
        Confidence level of the differences.

    Raises
    ------
    ValueError
        Where fewer than two participants have all values, or fewer than two estimators are given.
    """
    check_level(level)
    known = _by_estimator(values, names, 2)
    columns = known.values.T
    pairs = [
        _compare(names[i], names[j], columns[j] - columns[i], level) for i, j in combinations(range(len(names)), 2)
    ]
    t_tests = adjust_p_values([pair.p_value for pair in pairs])
    rank_tests = adjust_p_values([pair.wilcoxon_p_value for pair in pairs])
    friedman = friedman_p_value = np.nan
    if len(names) > 2:
        if np.all(np.ptp(known.values, axis=1) == 0):
            friedman, friedman_p_value = 0.0, 1.0
        else:
            friedman, friedman_p_value = stats.friedmanchisquare(*columns)
    return EstimatorComparison(
        names=tuple(names),
        means=columns.mean(axis=1),
        medians=np.median(columns, axis=1),
        n_participants=len(known.values),
        n_left_out=known.n_left_out,
        friedman=float(friedman),
        friedman_p_value=float(friedman_p_value),
        pairs=tuple(
            replace(pair, adjusted_p_value=float(t_test), adjusted_wilcoxon_p_value=float(rank_test))
            for pair, t_test, rank_test in zip(pairs, t_tests, rank_tests, strict=True)
        ),
    )


def _compare(first: str, second: str, difference: NDArray[np.float64], level: float) -> PairOfEstimators:
    if np.ptp(difference) == 0:
        value = float(difference[0])
        p_value = 1.0 if value == 0 else np.nan  # without scatter there is no test
        return PairOfEstimators(first, second, Interval(value, value, value), p_value, p_value)
    test = stats.ttest_1samp(difference, 0)
    low, high = test.confidence_interval(level)
    return PairOfEstimators(
        first,
        second,
        Interval(float(difference.mean()), float(low), float(high)),
        float(test.pvalue),
        float(stats.wilcoxon(difference).pvalue),
    )


@dataclass(frozen=True)
class PairOfDetections:
    """Participants whom one of two estimators called changed and the other did not.

    Attributes
    ----------
    p_value : float
        McNemar's exact test, two-sided.
    adjusted_p_value : float
        After Holm's correction over the pairs of estimators.
    """

    first: str
    second: str
    only_first: int
    only_second: int
    p_value: float
    adjusted_p_value: float = np.nan


@dataclass(frozen=True)
class DetectionComparison:
    """Participants called changed, by several estimators.

    Attributes
    ----------
    detected : ndarray of int, shape (n_estimators,)
    n_participants, n_left_out : int
        Participants whom every estimator judged, and the others.
    """

    names: tuple[str, ...]
    detected: NDArray[np.intp]
    n_participants: int
    n_left_out: int
    pairs: tuple[PairOfDetections, ...]


def compare_detections(directions: ArrayLike, names: Sequence[str]) -> DetectionComparison:
    """McNemar's exact test of who was called changed, between each two estimators.

    Parameters
    ----------
    directions : array_like, shape (n_participants, n_estimators)
        The directions of `call_changes`: 0 where nothing changed, NaN where a participant was not judged.
    names : sequence of str
        Of the estimators.

    Raises
    ------
    ValueError
        Where no participant was judged by all estimators, or fewer than two estimators are given.
    """
    known = _by_estimator(directions, names, 1)
    changed = known.values != 0
    pairs = []
    for i, j in combinations(range(len(names)), 2):
        table = np.histogram2d(changed[:, i], changed[:, j], bins=2, range=[[0, 1], [0, 1]])[0].astype(int)
        p_value = float(mcnemar(table, exact=True).pvalue) if table[0, 1] + table[1, 0] else 1.0
        pairs.append(PairOfDetections(names[i], names[j], int(table[1, 0]), int(table[0, 1]), p_value))
    adjusted = adjust_p_values([pair.p_value for pair in pairs])
    return DetectionComparison(
        names=tuple(names),
        detected=np.count_nonzero(changed, axis=0),
        n_participants=len(changed),
        n_left_out=known.n_left_out,
        pairs=tuple(
            replace(pair, adjusted_p_value=float(p_value)) for pair, p_value in zip(pairs, adjusted, strict=True)
        ),
    )


def _by_estimator(values: ArrayLike, names: Sequence[str], minimum: int) -> Complete:
    table = as_table(values, "The values of the estimators")
    if len(names) < 2:
        raise ValueError(f"A comparison needs at least two estimators, found {len(names)}.")
    if table.shape[1] != len(names):
        raise ValueError(f"There are {len(names)} estimators and {table.shape[1]} columns of values.")
    return complete(table, minimum, "A comparison of estimators")
