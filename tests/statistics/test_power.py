"""Power against published tables and the limits of change."""

import numpy as np
import pytest
from scipy.stats import norm, t

from bidsfit.statistics.limits import change_limits
from bidsfit.statistics.power import power_of_calls, power_of_cohort


def test_power_of_the_paired_t_test():
    """The usual example of planning: 34 pairs find half a standard deviation with a power of 0.808."""
    assert power_of_cohort(0.5, 34) == pytest.approx(0.8078, abs=5e-5)
    assert power_of_cohort(0.5, 33) < 0.8
    assert power_of_cohort(0.0, 9) == pytest.approx(0.05, abs=1e-6)


@pytest.mark.parametrize("method", ["student", "normal"])
def test_without_a_change_the_power_is_the_rate_of_false_positives(method):
    rate = change_limits(0.3, 14, method=method).false_positive_rate
    assert power_of_calls(0.0, 0.3, 14, method=method) == pytest.approx(rate)


def test_with_many_pairs_the_power_is_that_of_a_normal_deviate():
    shift = 0.5 / (0.3 * 2**0.5)
    expected = norm.sf(1.959964 - shift) + norm.cdf(-1.959964 - shift)
    assert power_of_calls(0.5, 0.3, 10**6) == pytest.approx(expected, abs=1e-5)
    assert power_of_calls(-0.5, 0.3, 10**6) == pytest.approx(expected, abs=1e-5)


def test_power_where_responses_differ_by_counting():
    rng = np.random.default_rng(0)
    n = 400_000
    change = rng.normal(0.4, 0.5, n) + np.diff(rng.normal(0, 0.3, (n, 2)))[:, 0]
    within = 0.3 * np.sqrt(rng.chisquare(14, n) / 14)
    outside = np.mean(np.abs(change) > t.ppf(0.975, 14) * np.sqrt(2) * within)
    assert power_of_calls(0.4, 0.3, 14, response_sd=0.5) == pytest.approx(outside, abs=0.003)


def test_refusals():
    with pytest.raises(ValueError, match="at least 2 participants"):
        power_of_cohort(0.5, 1)
    with pytest.raises(ValueError, match="positive within-subject"):
        power_of_calls(0.5, 0.0, 14)
