"""Rank correlation."""

import numpy as np
import pytest
from scipy.stats import spearmanr

from bidsfit.statistics.precision import rank_correlation


def test_correlation_is_spearmans_by_hand():
    """Ranks 1 2 3 4 5 and 2 1 4 3 5: 1 - 6 * 4 / (5 * 24)."""
    found = rank_correlation([1.0, 2.0, 3.0, 4.0, 50.0, np.nan], [0.2, 0.1, 0.4, 0.3, 0.5, 0.6])
    assert found.coefficient.value == pytest.approx(0.8)
    assert (found.n, found.n_left_out) == (5, 1)


def test_interval_of_the_correlation_by_hand():
    """z = atanh 0.8 = 1.0986, standard error sqrt(1.32 / 2) = 0.8124."""
    found = rank_correlation([1.0, 2.0, 3.0, 4.0, 5.0], [2.0, 1.0, 4.0, 3.0, 5.0]).coefficient
    limits = np.tanh([1.0986 - 1.96 * 0.8124, 1.0986 + 1.96 * 0.8124])
    assert [found.lower, found.upper] == pytest.approx(limits, abs=1e-4)


def test_interval_of_the_correlation_covers_the_truth():
    rng = np.random.default_rng(1)
    rho = -0.6
    truth = 6 / np.pi * np.arcsin(rho / 2)  # Spearman's of a binormal population
    hits = 0
    for first, other in rng.normal(size=(500, 2, 40)):
        second = rho * first + np.sqrt(1 - rho**2) * other
        found = rank_correlation(first, second).coefficient
        hits += found.lower <= truth <= found.upper
    assert 465 <= hits <= 485


def test_p_value_is_that_of_scipy_and_a_perfect_order_has_limits():
    first, second = np.random.default_rng(2).normal(size=(2, 20))
    assert rank_correlation(first, second).p_value == pytest.approx(spearmanr(first, second).pvalue)
    perfect = rank_correlation(first, -first).coefficient
    assert perfect.value == pytest.approx(-1)
    assert np.isfinite(perfect).all()


def test_refusals():
    with pytest.raises(ValueError, match="at least 4 participants"):
        rank_correlation([1.0, 2.0, 3.0], [1.0, 2.0, 3.0])
    with pytest.raises(ValueError, match="same value everywhere"):
        rank_correlation([1.0, 2.0, 3.0, 4.0], [1.0] * 4)
