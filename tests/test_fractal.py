"""Perlin noise and its fractal sum."""

from itertools import pairwise

import numpy as np
import pytest

from bidsfit.fractal import classes, fractal_noise, perlin_noise, rescale


@pytest.mark.parametrize("n", [1, 2, 3])
def test_perlin_noise_is_bounded_and_zero_on_the_lattice(n):
    axis = np.linspace(0, 4, 33)  # every eighth point is a lattice point
    noise = perlin_noise([axis] * n, np.random.default_rng(0))
    assert noise.shape == (33,) * n
    assert np.abs(noise).max() <= 1
    assert np.abs(noise).max() > 0.3
    np.testing.assert_allclose(noise[np.ix_(*[np.arange(0, 33, 8)] * n)], 0, atol=1e-12)


def test_perlin_noise_against_the_formula_at_one_point():
    """In the middle of a cell the fade is one half: the mean of the corners' ramps, times sqrt(2)."""
    gradients = np.random.default_rng(7).standard_normal((2, 2, 2))
    gradients /= np.linalg.norm(gradients, axis=-1, keepdims=True)
    offsets = 0.5 - np.stack(np.meshgrid([0, 1], [0, 1], indexing="ij"), axis=-1)
    expected = np.sqrt(2) * (gradients * offsets).sum(-1).mean()
    found = perlin_noise([np.array([0.5])] * 2, np.random.default_rng(7))
    assert found.item() == pytest.approx(expected)


def test_perlin_noise_is_smooth_across_cells():
    """Value and slope are continuous, at the borders of the cells too."""
    axis = np.linspace(0, 3, 3001)
    noise = perlin_noise([axis, np.array([0.37])], np.random.default_rng(1))[:, 0]
    slope = np.diff(noise) / np.diff(axis)
    assert np.abs(np.diff(slope)).max() < 0.03


@pytest.mark.parametrize("shape", [(64, 64), (32, 48, 5), (32, 32, 1)])
def test_fractal_noise_spans_0_to_1_and_follows_its_seed(shape):
    noise = fractal_noise(shape, np.random.default_rng(2))
    assert noise.shape == shape
    assert (noise.min(), noise.max()) == (0, 1)
    np.testing.assert_array_equal(noise, fractal_noise(shape, np.random.default_rng(2)))
    assert np.any(noise != fractal_noise(shape, np.random.default_rng(3)))


def test_fractal_noise_is_correlated_in_space_and_not_from_map_to_map():
    rng = np.random.default_rng(4)
    maps = np.array([fractal_noise((64, 64), rng) for _ in range(30)])
    maps -= maps.mean((1, 2), keepdims=True)
    neighbours = (maps[:, 1:] * maps[:, :-1]).mean() / (maps**2).mean()
    others = [np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in pairwise(maps)]
    assert neighbours > 0.8
    assert abs(np.mean(others)) < 0.15


def test_rescale_within_a_region():
    values = np.array([0.0, 1.0, 2.0, 10.0])
    np.testing.assert_allclose(rescale(values, 5, 7, within=values < 5), [5, 6, 7, 15])
    np.testing.assert_allclose(rescale(np.full(3, 2.0), 4, 6), 5)


def test_classes_are_those_of_the_thresholds():
    np.testing.assert_array_equal(classes(np.array([0, 0.19, 0.2, 0.49, 0.5, 0.79, 0.8, 1])), [0, 0, 1, 1, 2, 2, 0, 0])
