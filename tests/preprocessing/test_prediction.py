"""Volumes of a shell predict one another without seeing their own noise."""

import numpy as np
import pytest

from bidsfit.phantom.directions import spread_directions
from bidsfit.preprocessing.prediction import held_out, leave_one_out


@pytest.mark.parametrize("n", [2, 6, 15, 30])
def test_no_volume_sees_itself(n):
    for weights in (leave_one_out(np.full(n, 1000.0)), leave_one_out(np.full(n, 1000.0), spread_directions(n))):
        assert np.all(np.diag(weights) == 0)


def test_without_directions_it_is_the_mean_of_the_others():
    weights = leave_one_out(np.full(5, 1000.0))
    assert weights == pytest.approx((1 - np.eye(5)) / 4)


def test_jitter_of_b_values_is_no_change_of_b():
    assert leave_one_out(np.array([995.0, 1000, 1005, 1000])) == pytest.approx((1 - np.eye(4)) / 3)


def test_b_values_that_vary_are_followed():
    b = np.repeat([0.0, 20, 50, 80, 100], 2)
    assert leave_one_out(b) @ (5 - 0.01 * b) == pytest.approx(5 - 0.01 * b, abs=0.05)


def test_a_tensor_is_predicted_along_every_direction():
    """Log-signals of a tensor are harmonics of the second order; those of its signals hardly more."""
    directions = spread_directions(30)
    signals = np.exp(-1.0 * (0.3 + 1.2 * directions[:, 0] ** 2))
    assert leave_one_out(np.full(30, 1000.0), directions) @ signals == pytest.approx(signals, abs=0.06)
    assert np.abs(leave_one_out(np.full(30, 1000.0)) @ signals - signals).max() > 0.2


def test_a_direction_and_its_opposite_are_one():
    directions = spread_directions(20)
    flipped = directions * np.where(np.arange(20) % 3, 1, -1)[:, None]
    b = np.full(20, 1000.0)
    assert leave_one_out(b, directions) == pytest.approx(leave_one_out(b, flipped), abs=1e-5)


def test_a_volume_that_alone_tells_of_a_direction_is_predicted_by_the_mean():
    directions = np.vstack([np.tile([1.0, 0, 0], (9, 1)), [[0, 0, 1]]])
    weights = leave_one_out(np.full(10, 1000.0), directions)
    assert weights[-1, :-1] == pytest.approx(np.full(9, 1 / 9))


def test_one_volume_is_itself():
    assert leave_one_out(np.array([0.0])).tolist() == [[1.0]]


SHELLS = np.r_[np.zeros(3), np.full(8, 1000.0), np.full(8, 2000.0)]
ALONG = np.r_[np.zeros((3, 3)), spread_directions(8), spread_directions(8)]


@pytest.mark.parametrize("b", [np.repeat([0.0, 20, 60, 150, 400, 800], 2), SHELLS, np.array([0.0, 1000])])
def test_no_volume_predicts_itself_and_the_mean_is_predicted(b):
    weights = held_out(b, ALONG if b is SHELLS else None)
    assert np.all(np.diag(weights) == 0)
    assert weights.sum(axis=1) == pytest.approx(np.ones(b.size), abs=0.02)


def test_signals_are_predicted_across_shells_and_directions():
    signals = np.exp(-SHELLS * (0.5e-3 + 0.6e-3 * ALONG[:, 0] ** 2))
    apart = held_out(SHELLS, ALONG) @ signals - signals
    within = np.concatenate([signals[part] - signals[part].mean() for part in np.split(np.arange(19), [3, 11])])
    assert np.sqrt(np.mean(apart**2)) < 0.7 * np.sqrt(np.mean(within**2))
