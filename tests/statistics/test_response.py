"""Change of participants and of cohorts, beside Student's own data."""

import numpy as np
import pytest
from scipy import stats

from bidsfit.statistics.effect_size import paired_effect_size
from bidsfit.statistics.limits import change_limits
from bidsfit.statistics.response import call_changes, cohort_response, difference_in_change

#: Student, Biometrika 1908;6:1: hours of sleep gained with two drugs.
FIRST = np.array([0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0])
SECOND = np.array([1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4])


def test_sleep_of_student():
    """The paired test that every textbook prints: t = 4.0621, p = 0.002833, 0.7001 to 2.4599."""
    found = cohort_response(FIRST, SECOND)
    assert found.t == pytest.approx(4.0621, abs=5e-5)
    assert found.p_value == pytest.approx(0.002833, abs=5e-7)
    assert found.freedom == 9
    assert np.array(found.mean_change) == pytest.approx([1.58, 0.7001142, 2.4598858], abs=5e-8)
    assert found.median_change == pytest.approx(1.3)
    assert found.cohen.value == pytest.approx(4.0621 / np.sqrt(10), abs=2e-5)


def test_wilcoxon_by_counting():
    """Nobody slept less and one as long: 2 of the 512 ways to give nine signs are as extreme."""
    assert cohort_response(FIRST, SECOND).wilcoxon_p_value == pytest.approx(2 / 512)


def test_interval_of_the_effect_size_is_where_the_statistic_is_no_outlier():
    found = cohort_response(FIRST, SECOND)
    root = np.sqrt(10)
    assert stats.nct.sf(found.t, 9, found.cohen.lower * root) == pytest.approx(0.025, abs=1e-6)
    assert stats.nct.cdf(found.t, 9, found.cohen.upper * root) == pytest.approx(0.025, abs=1e-6)


def test_hedges_factor_takes_the_bias_away():
    rng = np.random.default_rng(0)
    samples = rng.normal(1.0, 1.0, (20_000, 6))
    cohen = samples.mean(axis=1) / samples.std(axis=1, ddof=1)
    effect = paired_effect_size(samples[0])
    factor = effect.hedges.value / effect.cohen.value
    assert factor == pytest.approx(1 - 3 / (4 * 5 - 1), rel=0.005)  # Hedges' approximation
    assert cohen.mean() * factor == pytest.approx(1.0, abs=0.015)
    assert cohen.mean() > 1.15


def test_per_cent_limits_are_where_a_t_test_turns():
    before = np.array([1.0, 1.3, 0.9, 1.2, 1.1, 1.4])
    after = np.array([1.2, 1.4, 1.2, 1.3, 1.5, 1.5])
    percent = cohort_response(before, after).percent_change
    assert percent.value == pytest.approx(100 * (after.sum() / before.sum() - 1))
    for limit in (percent.lower, percent.upper):
        assert stats.ttest_1samp(after - (1 + limit / 100) * before, 0).pvalue == pytest.approx(0.05)
    assert percent.lower < percent.value < percent.upper


def test_per_cent_of_nothing():
    unsure = cohort_response(FIRST, SECOND).percent_change
    assert (unsure.lower, unsure.upper) == (-np.inf, np.inf)
    assert np.isnan(cohort_response(FIRST - 5, SECOND).percent_change).all()


def test_missing_values_are_left_out_and_counted():
    before, after = np.r_[FIRST, 1.0, np.nan], np.r_[SECOND, np.nan, 2.0]
    found = cohort_response(before, after)
    assert (found.n_participants, found.n_left_out) == (10, 2)
    assert found.p_value == cohort_response(FIRST, SECOND).p_value


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ([1.0], [2.0], "found 1 of 1"),
        ([1.0, 2.0], [np.nan, 3.0], "found 1 of 2"),
        ([1.0, 2.0, 3.0], [1.0, 2.0], "found 3 and 2 values"),
        ([1.0, 2.0, 3.0], [1.0, 2.0, 3.0], "the two sessions the same"),
        ([0.1, 0.2, 0.3], [0.2, 0.3, 0.4], "without scatter"),
        ([[1.0, 2.0]], [[1.0, 2.0]], "one value per participant"),
    ],
)
def test_cohorts_that_cannot_be_tested_are_refused(before, after, message):
    with pytest.raises(ValueError, match=message):
        cohort_response(before, after)


def test_calls_keep_the_order_of_the_participants():
    limits = change_limits(1.0, 14)  # 3.033
    calls = call_changes([1.0, 1.0, np.nan, 9.0, 1.0], [4.1, 4.0, 5.0, 5.0, np.nan], limits)
    assert calls.direction == pytest.approx([1, 0, np.nan, -1, np.nan], nan_ok=True)
    assert calls.change == pytest.approx([3.1, 3.0, np.nan, -4.0, np.nan], nan_ok=True)
    assert calls.mean == pytest.approx([2.55, 2.5, np.nan, 7.0, np.nan], nan_ok=True)
    assert (calls.n_increased, calls.n_decreased, calls.n_changed) == (1, 1, 2)
    assert (calls.n_participants, calls.n_left_out) == (3, 2)
    assert calls.expected_by_chance == pytest.approx(0.15)


@pytest.mark.parametrize("method", ["student", "normal"])
def test_p_value_of_a_participant_at_the_limit_is_its_rate(method):
    limits = change_limits(0.7, 14, method=method)
    calls = call_changes([0.0], [limits.bound], limits)
    assert calls.p_value[0] == pytest.approx(limits.false_positive_rate)


def test_one_treated_participant_can_be_judged_and_none_cannot():
    limits = change_limits(1.0, 14)
    assert call_changes([1.0], [9.0], limits).n_changed == 1
    with pytest.raises(ValueError, match="found 0 of 1"):
        call_changes([np.nan], [9.0], limits)


def test_the_change_of_the_treated_is_set_against_that_of_the_untreated():
    """By hand: Welch's test of two samples of changes, and the t-test of the untreated alone."""
    treated, untreated = np.array([0.2, 0.1, 0.18, 0.12, np.nan]), np.array([0.07, 0.05, 0.06, 0.08])
    found = difference_in_change(treated, untreated)
    ours = treated[:4]
    assert found.n_untreated == 4
    assert found.untreated.value == pytest.approx(0.065)
    assert found.difference.value == pytest.approx(0.15 - 0.065)
    variances = ours.var(ddof=1) / 4, untreated.var(ddof=1) / 4
    freedom = sum(variances) ** 2 / sum(v**2 / 3 for v in variances)
    assert found.freedom == pytest.approx(freedom)
    half = stats.t.ppf(0.975, freedom) * np.sqrt(sum(variances))
    assert found.difference.upper - found.difference.value == pytest.approx(half)
    assert found.untreated.lower == pytest.approx(0.065 - stats.t.ppf(0.975, 3) * np.sqrt(variances[1]))
    assert found.untreated_p_value == pytest.approx(stats.ttest_1samp(untreated, 0).pvalue)


@pytest.mark.parametrize(
    ("untreated", "drifts"),
    [([0.07, 0.05, 0.06, 0.08], True), ([0.01, -0.01, 0.012, -0.011], False), ([0.3, -0.2, 0.1, 0.0], True)],
    ids=["systematic", "none", "too uncertain to be called small"],
)
def test_a_drift_of_the_untreated_shows(untreated, drifts):
    before = [1.0, 1.1, 0.9, 1.2]
    response = cohort_response(before, [1.2, 1.2, 1.08, 1.32])
    assert difference_in_change([0.2, 0.1, 0.18, 0.12], untreated).drifts(response) is drifts


@pytest.mark.parametrize("untreated", [[], [0.1], [0.1, np.nan]])
def test_without_untreated_participants_there_is_no_difference(untreated):
    with pytest.raises(ValueError, match="two changes or more"):
        difference_in_change([0.1, 0.2, 0.3], untreated)
