"""Limits of change, and how often they are wrong."""

import numpy as np
import pytest
from scipy import stats

from bidsfit.statistics.limits import change_limits, false_positive_rate
from bidsfit.statistics.repeatability import repeatability


def test_the_normal_limits_are_the_repeatability_coefficient():
    rng = np.random.default_rng(0)
    found = repeatability(rng.normal(10, 1, (14, 1)) + rng.normal(0, 0.3, (14, 2)))
    limits = change_limits(found.within_subject_sd.value, found.freedom, method="normal")
    assert limits.bound == pytest.approx(found.repeatability_coefficient.value)


@pytest.mark.parametrize(("freedom", "multiplier"), [(1, 12.706), (9, 2.262), (14, 2.145), (30, 2.042)])
def test_the_corrected_limits_are_those_of_the_t_table(freedom, multiplier):
    limits = change_limits(2.0, freedom)
    assert limits.bound == pytest.approx(multiplier * np.sqrt(2) * 2.0, rel=3e-4)
    assert limits.false_positive_rate == pytest.approx(0.05)
    assert change_limits(2.0, freedom, level=0.9).false_positive_rate == pytest.approx(0.1)


def test_false_positives_of_limits_that_take_the_deviation_as_known():
    """Against the integral over the distribution of the estimated variance, and the limit of many pairs."""
    shares = (np.arange(20_000) + 0.5) / 20_000
    ratio = np.sqrt(stats.chi2.ppf(shares, 14) / 14)
    assert false_positive_rate(14) == pytest.approx(np.mean(2 * stats.norm.sf(1.96 * ratio)), abs=1e-5)
    assert false_positive_rate(14) == pytest.approx(0.0702, abs=5e-5)
    assert false_positive_rate(10**7) == pytest.approx(0.05, abs=1e-4)


def test_words_state_the_factor_and_the_rate():
    student, normal = (change_limits(1.0, 14, method=method).words for method in ("student", "normal"))
    assert "2.14" in student
    assert "5.0 %" in student
    assert "1.96" in normal
    assert "7.0 %" in normal


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"method": "exact"}, "Unknown limits"),
        ({"within_subject_sd": 0.0}, "positive"),
        ({"within_subject_sd": np.nan}, "positive"),
        ({"freedom": 0}, "degree of freedom"),
        ({"level": 95}, "between 0 and 1"),
    ],
)
def test_refusals(arguments, message):
    with pytest.raises(ValueError, match=message):
        change_limits(**({"within_subject_sd": 1.0, "freedom": 14} | arguments))
