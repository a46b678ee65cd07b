"""Estimators side by side, beside the tests of SciPy and by counting."""

import numpy as np
import pytest
from scipy import stats

from bidsfit.statistics.comparison import compare_detections, compare_estimators

NAMES = ("lsq", "bayes", "net")
RATIOS = np.random.default_rng(0).normal([5.0, 6.0, 6.2], 1.0, (12, 3))


def test_pairs_and_all_at_once():
    found = compare_estimators(RATIOS, NAMES)
    assert [(pair.first, pair.second) for pair in found.pairs] == [("lsq", "bayes"), ("lsq", "net"), ("bayes", "net")]
    test = stats.ttest_rel(RATIOS[:, 1], RATIOS[:, 0])
    pair = found.pairs[0]
    assert pair.p_value == pytest.approx(test.pvalue)
    assert np.array(pair.difference) == pytest.approx(
        [(RATIOS[:, 1] - RATIOS[:, 0]).mean(), *test.confidence_interval()]
    )
    assert pair.wilcoxon_p_value == pytest.approx(stats.wilcoxon(RATIOS[:, 1], RATIOS[:, 0]).pvalue)
    assert (found.friedman, found.friedman_p_value) == pytest.approx(tuple(stats.friedmanchisquare(*RATIOS.T)))
    assert found.means == pytest.approx(RATIOS.mean(axis=0))
    assert found.medians == pytest.approx(np.median(RATIOS, axis=0))


def test_p_values_are_adjusted_over_the_pairs():
    found = compare_estimators(RATIOS, NAMES)
    smallest = min(found.pairs, key=lambda pair: pair.p_value)
    assert smallest.adjusted_p_value == pytest.approx(3 * smallest.p_value)
    assert all(pair.adjusted_wilcoxon_p_value >= pair.wilcoxon_p_value for pair in found.pairs)


def test_participants_without_a_value_of_each_estimator_are_left_out():
    values = np.r_[RATIOS, [[1.0, np.nan, 2.0]]]
    found = compare_estimators(values, NAMES)
    assert (found.n_participants, found.n_left_out) == (12, 1)
    assert found.pairs[1].p_value == compare_estimators(RATIOS, NAMES).pairs[1].p_value


def test_two_estimators_need_no_test_of_all():
    assert np.isnan(compare_estimators(RATIOS[:, :2], NAMES[:2]).friedman_p_value)


def test_estimators_that_never_differ():
    found = compare_estimators(np.repeat(RATIOS[:, :1], 3, axis=1), NAMES)
    assert [pair.p_value for pair in found.pairs] == [1.0, 1.0, 1.0]
    assert found.friedman_p_value == 1.0


def test_mcnemar_by_counting():
    """Six participants seen by the first only, one by the second only: 2 (C(7,0) + C(7,1)) / 2^7."""
    first = np.r_[np.ones(6), np.zeros(1), np.ones(4), np.zeros(3)]
    second = np.r_[np.zeros(6), -np.ones(1), -np.ones(4), np.zeros(3)]
    found = compare_detections(np.column_stack([first, second]), ("net", "lsq"))
    assert found.detected.tolist() == [10, 5]
    (pair,) = found.pairs
    assert (pair.only_first, pair.only_second) == (6, 1)
    assert pair.p_value == pytest.approx(2 * 8 / 128)


def test_detections_that_agree_and_those_not_judged():
    directions = [[1, 1, 1], [0, 0, 0], [0, 0, -1], [np.nan, 1, 1]]
    found = compare_detections(directions, NAMES)
    assert (found.n_participants, found.n_left_out) == (3, 1)
    assert found.detected.tolist() == [1, 1, 2]
    assert [pair.p_value for pair in found.pairs] == [1.0, 1.0, 1.0]


@pytest.mark.parametrize(
    ("values", "names", "message"),
    [
        (RATIOS[:, :1], ("lsq",), "at least two estimators"),
        (RATIOS[:, :2], NAMES, "3 estimators and 2 columns"),
        (RATIOS[:1], NAMES, "at least 2 participants"),
    ],
)
def test_refusals(values, names, message):
    with pytest.raises(ValueError, match=message):
        compare_estimators(values, names)
