"""Where voxels lie, and what is found between and beyond them."""

import numpy as np
import pytest

from bidsfit.phantom.grid import centred_affine, sample


def shifted(x=0.0, y=0.0, z=0.0):
    matrix = np.eye(4)
    matrix[:3, 3] = x, y, z
    return matrix


def test_the_middle_is_the_origin():
    affine = centred_affine((5, 4, 1), 2.0)
    np.testing.assert_allclose(affine @ (2, 1.5, 0, 1), (0, 0, 0, 1))
    np.testing.assert_allclose(np.diag(affine), (2, 2, 2, 1))


def test_whole_voxels_are_read_as_they_are():
    volume = np.random.default_rng(0).random((6, 7, 5))
    np.testing.assert_allclose(sample(volume, np.eye(4)), volume, atol=1e-6)
    np.testing.assert_allclose(sample(volume, shifted(x=1))[:-1], volume[1:], atol=1e-6)


def test_air_beside_the_slices_and_the_mirror_image_above_and_below():
    volume = np.random.default_rng(0).random((6, 7, 3))
    assert np.all(sample(volume, shifted(x=1))[-1] == 0)
    assert np.all(sample(volume, shifted(y=-2))[:, :2] == 0)
    above = sample(volume, shifted(z=3))
    np.testing.assert_allclose(above, volume[:, :, ::-1], atol=1e-3)


@pytest.mark.parametrize("order", [0, 1, 3])
def test_a_single_slice_goes_on_above_and_below(order):
    volume = np.random.default_rng(0).random((6, 7, 1))
    np.testing.assert_allclose(sample(volume, shifted(z=2.4), order=order), volume, atol=1e-6)


def test_another_grid():
    x = np.arange(8.0)
    volume = np.broadcast_to(x[:, None, None], (8, 8, 4))
    matrix = np.diag([0.5, 0.5, 0.5, 1])
    fine = sample(volume, matrix, (15, 15, 7), order=1)
    np.testing.assert_allclose(fine[:, 3, 3], np.arange(15) / 2, atol=1e-12)
