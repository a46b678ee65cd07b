"""Numbers that judge estimates, against cases whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bidsfit.evaluation.experiments import Evaluation, efficiency
from bidsfit.trust.metrics import accuracy, cohen_d, rank_correlation


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


class TestEvaluation:
    def test_numbers_over_all_points(self):
        """Of an estimate 0.3 * truth + 5 with a scatter of 1, at truths from 0 to 2."""
        truth = np.linspace(0, 2, 7)[:, None]
        mean, one = 0.3 * truth + 5, np.ones((7, 1))
        made = Evaluation(truth, mean, mean - truth, one, np.sqrt((mean - truth) ** 2 + 1), mean)
        found = made.summary(("D",))
        assert found["slope_D"] == pytest.approx(0.3)
        assert found["bias_D"] == pytest.approx(5 - 0.7)
        assert found["nrmse_D"] == pytest.approx(np.sqrt(np.mean((5 - 0.7 * truth) ** 2) + 1))  # the mean truth is 1

    def test_ranks_and_not_values_correlate(self):
        x = np.array([1.0, 2.0, 3.0, 4.0])
        found = rank_correlation(np.stack([x, -np.exp(x), np.full(4, 2.0), x[[1, 0, 2, 3]]], axis=1))
        expected = [[1, 1, 1, 0.8], [1, 1, 1, 0.8], [1, 1, 1, 1], [0.8, 0.8, 1, 1]]
        np.testing.assert_allclose(found, expected)

    @pytest.mark.parametrize(("shift", "shrink"), [(0.0, 1.0), (0.5, 1.0), (0.0, 0.5)])
    def test_an_efficient_estimator_has_a_variance_of_one_and_no_bias(self, shift, shrink):
        """Bias of half the bound is a quarter; shrinkage by half leaves a quarter of the variance."""
        rng, truth, bound, repeats = np.random.default_rng(0), np.zeros((2000, 1)), np.full((2000, 1), 0.3), 8
        estimates = 0.3 * (shift + shrink * rng.standard_normal((2000, repeats)))
        columns = [values[:, None] for values in accuracy(estimates.ravel(), truth[:, 0])]
        found = efficiency(Evaluation(truth, *columns, truth), bound, repeats)
        assert found.variance.mean() == pytest.approx(shrink**2, rel=0.05)
        assert found.bias.mean() == pytest.approx(shift**2, abs=0.02)
