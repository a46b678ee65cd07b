"""Single patients against small healthy samples."""

import numpy as np
import pytest
import statsmodels.api as sm
from scipy.stats import nct, norm

from bidsfit.statistics.normative import normative_scores

HEALTHY = np.random.default_rng(0).normal(1.5, 0.2, 14)


def test_the_test_is_that_of_a_linear_model_with_the_patient_in_it():
    scores = normative_scores([2.1], HEALTHY)
    design = sm.add_constant(np.r_[np.zeros(14), 1.0])
    fit = sm.OLS(np.r_[HEALTHY, 2.1], design).fit()
    assert scores.t[0] == pytest.approx(fit.tvalues[1])
    assert scores.p_value[0] == pytest.approx(fit.pvalues[1])
    assert scores.z[0] == pytest.approx((2.1 - HEALTHY.mean()) / HEALTHY.std(ddof=1))


def test_percentiles():
    middle, high = HEALTHY.mean(), HEALTHY.mean() + 10
    scores = normative_scores([middle, high, np.median(HEALTHY)], HEALTHY)
    assert scores.percentile[0] == pytest.approx(50.0)
    assert scores.percentile[1] == pytest.approx(100.0, abs=1e-3)
    assert scores.percentile[1] / 100 == pytest.approx(1 - scores.p_value[1] / 2)
    assert scores.empirical_percentile[1:].tolist() == [100.0, 50.0]
    assert normative_scores([2.0], [1.0, 2.0, 3.0, 4.0]).empirical_percentile[0] == 37.5


def test_limits_of_the_percentile_are_where_the_score_is_no_outlier():
    scores = normative_scores([1.8], HEALTHY)
    statistic = scores.z[0] * np.sqrt(14)
    for percentile, share in ((scores.percentile_lower[0], 0.975), (scores.percentile_upper[0], 0.025)):
        noncentrality = norm.ppf(percentile / 100) * np.sqrt(14)
        assert nct.cdf(statistic, 13, noncentrality) == pytest.approx(share, abs=1e-6)
    assert scores.percentile_lower[0] < scores.percentile[0] < scores.percentile_upper[0]


def test_many_healthy_participants_make_a_normal_score():
    healthy = norm.ppf((np.arange(4000) + 0.5) / 4000)
    scores = normative_scores([1.96], healthy)
    assert scores.percentile[0] == pytest.approx(97.5, abs=0.05)
    assert scores.p_value[0] == pytest.approx(0.05, abs=1e-3)
    assert scores.percentile_upper[0] - scores.percentile_lower[0] < 1


def test_missing_values_are_left_out_and_counted():
    scores = normative_scores([np.nan, 1.8], np.r_[HEALTHY, np.nan, np.nan])
    assert np.isnan([scores.z[0], scores.percentile_lower[0], scores.empirical_percentile[0], scores.p_value[0]]).all()
    assert scores.percentile[1] == normative_scores([1.8], HEALTHY).percentile[0]
    assert (scores.n_healthy, scores.n_healthy_left_out) == (14, 2)
    assert (scores.n_patients, scores.n_patients_left_out) == (1, 1)


def test_no_patient_at_all():
    assert normative_scores([], HEALTHY).z.size == 0


def test_skewed_healthy_values_show():
    skewed = np.exp(2 * np.random.default_rng(1).normal(size=30))
    assert normative_scores([1.0], skewed).healthy_normality_p_value < 0.001
    assert normative_scores([1.0], HEALTHY).healthy_normality_p_value > 0.05


@pytest.mark.parametrize(
    ("healthy", "message"),
    [([1.0, 2.0, np.nan], "at least 3 healthy participants"), ([1.0] * 5, "no distribution"), ([[1.0]], "one value")],
)
def test_distributions_that_are_none_are_refused(healthy, message):
    with pytest.raises(ValueError, match=message):
        normative_scores([1.0], healthy)


@pytest.mark.parametrize("n", [3, 5, 20])
def test_prediction_limits_hold_95_percent_of_newcomers_however_few_the_healthy_are(n):
    rng = np.random.default_rng(n)
    inside = 0
    for _ in range(4000):
        scores = normative_scores([newcomer := rng.normal()], rng.normal(size=n))
        inside += (within := scores.prediction.lower <= newcomer <= scores.prediction.upper)
        assert within == (scores.p_value[0] >= 0.05)
    assert inside / 4000 == pytest.approx(0.95, abs=0.012)
