"""Numbers that judge estimates, against cases whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bidsfit.trust.metrics import accuracy, cohen_d


def test_accuracy_of_known_errors():
    found = accuracy(np.array([1.0, 3.0, 5.0, 5.0]), np.array([1.0, 4.0]))
    assert found.mean.tolist() == [2, 5]
    assert found.bias.tolist() == [1, 1]
    assert found.sd.tolist() == [1, 0]
    assert found.rmse == pytest.approx([np.sqrt(2), 1])


def test_repeats_of_a_point_follow_each_other():
    truth = np.arange(5.0)
    found = accuracy(np.repeat(truth, 7) + np.tile([0, 0, 0, 0, 0, 0, 7], 5), truth)
    assert found.bias == pytest.approx(np.ones(5))
    assert found.rmse == pytest.approx(np.full(5, np.sqrt(7)))


@given(st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=20), st.floats(-1e3, 1e3))
def test_squared_errors_are_bias_and_spread(estimates, truth):
    found = accuracy(np.array(estimates), np.array([truth]))
    assert found.rmse[0] ** 2 == pytest.approx(found.bias[0] ** 2 + found.sd[0] ** 2, rel=1e-9, abs=1e-6)


def test_estimates_that_are_nan_do_not_count():
    found = accuracy(np.array([1.0, np.nan, 3.0, 5.0, 5.0, 5.0]), np.array([1.0, 4.0]))
    assert found.mean.tolist() == [2, 5]
    assert found.rmse == pytest.approx([np.sqrt(2), 1])


class TestCohen:
    def test_known_values(self):
        first, second = np.array([2.0, 4.0, 6.0]), np.array([1.0, 3.0, 5.0])
        assert cohen_d(first, second) == pytest.approx(0.5)
        assert cohen_d(second, first) == pytest.approx(-0.5)
        # of samples of different sizes: pooled variance (1 * 2 + 3 * 20 / 3) / 4
        assert cohen_d(np.array([0.0, 2.0]), np.array([2.0, 4.0, 6.0, 8.0])) == pytest.approx(-4 / np.sqrt(22 / 4))

    def test_of_normal_samples(self):
        rng = np.random.default_rng(0)
        assert cohen_d(rng.normal(1.6, 2, 50_000), rng.normal(0, 2, 50_000)) == pytest.approx(0.8, abs=0.03)

    def test_without_spread_it_is_infinite_or_nothing(self):
        one, two = np.ones(4), np.full(4, 2.0)
        assert cohen_d(two, one) == np.inf
        assert cohen_d(one, two) == -np.inf
        assert cohen_d(one, one) == 0

    def test_what_is_not_finite_does_not_count(self):
        first, second = np.array([2.0, np.nan, 4.0, 6.0]), np.array([1.0, 3.0, np.inf, 5.0])
        assert cohen_d(first, second) == pytest.approx(0.5)
