"""Ringing beside edges, and nowhere else."""

import numpy as np
import pytest
from scipy.special import sici

from bidsfit.phantom.ringing import FINENESS, draw_edges, ring


def straight(shape):
    """Edges on the borders of the voxels."""
    x, y = (np.arange(FINENESS * size) // FINENESS for size in shape)
    return np.ravel_multi_index(np.meshgrid(x, y, indexing="ij"), shape)


def test_the_middle_of_each_voxel_stays_what_it_is():
    shape = (20, 31)
    edges = draw_edges(shape, np.random.default_rng(0))
    assert edges.shape == (100, 155)
    middles = edges[FINENESS // 2 :: FINENESS, FINENESS // 2 :: FINENESS]
    np.testing.assert_array_equal(middles.ravel(), np.arange(20 * 31))
    assert np.mean(edges != straight(shape)) > 0.1  # but edges do wander


@pytest.mark.parametrize("shape", [(32, 32), (33, 40), (31, 29)])
def test_what_is_uniform_does_not_ring(shape):
    image = np.full((*shape, 2, 3), 7.0)
    np.testing.assert_allclose(ring(image, draw_edges(shape, np.random.default_rng(0))), image, atol=1e-9)


@pytest.mark.parametrize("size", [64, 65])
def test_an_edge_rings_like_the_sine_integral(size):
    """A step between two voxels, and one in the middle of a voxel, against the Fourier integral of a step."""
    image = np.zeros((size, 16))
    image[size // 4 : 3 * size // 4] = 1
    distance = np.arange(-6, 7)
    start = size // 4
    for moved in (0, 2):  # fine points by which the edge lies further on
        edges = np.roll(straight(image.shape), moved, axis=0)
        rung = ring(image, edges)[start - 6 : start + 7, 5]
        from_edge = distance + 0.5 - moved / FINENESS
        # the other edge and the discrete fine grid leave a little
        np.testing.assert_allclose(rung, 0.5 + sici(np.pi * from_edge)[0] / np.pi, atol=0.02)


def test_overshoot_lies_beside_edges_and_fades():
    shape = (64, 64)
    x, y = np.indices(shape)
    disc = 100.0 * ((x - 31) ** 2 + (y - 31) ** 2 < 20**2)
    rung = ring(disc, draw_edges(shape, np.random.default_rng(0)))
    radius = np.hypot(x - 31, y - 31)
    error = np.abs(rung - disc)
    near, middle = error[(radius > 13) & (radius < 18)], error[radius < 6]
    assert near.max() > 3  # per cent of the step
    assert middle.mean() < near.mean() / 3
    assert rung.min() < -2


def test_mean_is_kept_where_edges_are_straight():
    image = np.random.default_rng(0).random((24, 20, 2))
    np.testing.assert_allclose(ring(image, straight((24, 20))).mean((0, 1)), image.mean((0, 1)))


def test_unringing_undoes_it_away_from_edges():
    """Sub-voxel shifts, the field's remedy, bring the inside of a disc closer to the truth."""
    from dipy.denoise.gibbs import gibbs_removal

    shape = (64, 64)
    x, y = np.indices(shape)
    radius = np.hypot(x - 31, y - 31)
    disc = 100.0 * (radius < 24)
    rung = ring(disc, draw_edges(shape, np.random.default_rng(0)))
    inside = radius < 21
    undone = gibbs_removal(rung.copy(), inplace=False)
    assert np.abs(undone - disc)[inside].mean() < 0.8 * np.abs(rung - disc)[inside].mean()
