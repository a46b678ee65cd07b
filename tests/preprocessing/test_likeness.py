"""A correction is kept where it makes volumes more alike; fluid that fades with b moves nothing."""

import logging

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter, map_coordinates

from bidsfit.phantom.directions import spread_directions
from bidsfit.preprocessing.likeness import LEAST_GAIN, follows_b, gain

B = np.array([5.0, 10, 20, 30, 50, 75, 150, 250, 600, 700, 800])


@pytest.fixture(autouse=True)
def _quiet():
    logging.getLogger("dipy").setLevel(logging.WARNING)


def shifted(volume, move):
    places = np.indices(volume.shape) - np.reshape(move, (3, 1, 1, 1))
    return map_coordinates(volume, places, order=3, mode="nearest")


def textured(moves, b, directions=None, seed=0, sigma=15.0):
    """A ball of tissue whose volumes lie elsewhere by some voxels."""
    rng, shape = np.random.default_rng(seed), (32, 32, 16)
    texture = gaussian_filter(rng.standard_normal(shape), 2)
    inside = np.sum(((np.indices(shape).T - [15.5, 15.5, 7.5]) / [12, 12, 6]) ** 2, axis=-1).T < 1
    tissue = gaussian_filter(np.where(inside, 500 * (1 + 0.3 * texture / texture.std()), 0), 0.7)
    adc = np.full(b.size, 0.8e-3) if directions is None else 0.5e-3 + 0.6e-3 * directions[:, 0] ** 2
    clean = np.stack([shifted(tissue * np.exp(-v * d), m) for v, d, m in zip(b, adc, moves, strict=True)], axis=-1)
    noise = sigma * rng.standard_normal((2, *clean.shape))
    return np.hypot(clean + noise[0], noise[1]).astype(np.float32), inside


def moved_back(data, moves):
    return np.stack([shifted(data[..., k], -move) for k, move in enumerate(moves)], axis=-1)


SHELLS = np.r_[np.zeros(3), np.full(8, 1000.0), np.full(8, 2000.0)]
ALONG = np.r_[np.zeros((3, 3)), spread_directions(8), spread_directions(8)]


@pytest.mark.parametrize(("b", "directions"), [(B, None), (SHELLS, ALONG)], ids=["ivim", "shells"])
def test_volumes_are_more_alike_in_their_place_and_less_out_of_it(b, directions):
    moves = np.random.default_rng(1).uniform(-1, 1, (b.size, 3))
    data, mask = textured(moves, b, directions)
    assert gain(data, moved_back(data, moves), b, mask, directions) > 0.2
    still, _ = textured(0 * moves, b, directions)
    assert gain(still, moved_back(still, 0.3 * moves), b, mask, directions) < -0.1
    assert gain(still, still, b, mask, directions) == 0


def test_what_interpolation_smooths_is_no_gain():
    """Where noise is all that differs, half a voxel smooths it most; the mean of the data tells nothing."""
    noise = 500 + 50 * np.random.default_rng(0).standard_normal((32, 32, 16, 8)).astype(np.float32)
    mask = np.zeros(noise.shape[:3], dtype=bool)
    mask[4:-4, 4:-4, 4:-4] = True
    b = np.zeros(8)
    assert gain(noise, moved_back(noise, np.full((8, 3), 0.5)), b, mask) < 0.05
    assert gain(noise, gaussian_filter(noise, [1, 1, 1, 0]), b, mask) > LEAST_GAIN  # what smooths more would be one


def test_where_nothing_can_be_compared_nothing_is_gained():
    data = np.ones((8, 8, 8, 3), dtype=np.float32)
    assert gain(data, 2 * data, np.zeros(3), np.zeros(data.shape[:3], dtype=bool)) == 0
    assert gain(data, data, np.zeros(3), np.ones(data.shape[:3], dtype=bool)) == 0


def test_a_displacement_that_follows_b_is_told_from_a_path_in_time():
    rng = np.random.default_rng(0)
    b = rng.permutation(np.repeat([0.0, 20, 60, 150, 400, 800], 4))
    drift = np.linspace(0, 2, b.size)[:, None] + 0.05 * rng.standard_normal((b.size, 2))
    feigned = np.exp(-b / 300)[:, None] + 0.05 * rng.standard_normal((b.size, 2))
    assert follows_b(feigned, b)
    assert not follows_b(drift, b)
    assert follows_b(np.exp(-B / 300)[:, None], B)  # one volume a b-value, in their order
    assert not follows_b(rng.standard_normal((b.size, 3)), b)
    assert not follows_b(np.zeros((b.size, 3)), b)
    assert not follows_b(drift, np.zeros(b.size))
