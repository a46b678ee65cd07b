"""Values are those of SciPy."""

import numpy as np
import pytest
from scipy.ndimage import map_coordinates

from bidsfit.preprocessing.splines import tricubic, trilinear


@pytest.mark.parametrize("shape", [(7, 6, 5), (9, 8, 1), (1, 2, 30)])
def test_values_are_those_of_scipy_to_the_last_digit(shape):
    rng = np.random.default_rng(0)
    images = rng.standard_normal((*shape, 3)).astype(np.float32)
    places = rng.uniform(-2, np.array(shape)[:, None, None] + 1.0, (3, 40, 50))
    places[:, :10] = np.rint(places[:, :10])  # voxels themselves, and beyond the border
    found = trilinear(images, places)
    assert found.dtype == np.float32
    for k in range(3):
        assert np.array_equal(found[k], map_coordinates(images[..., k], places, order=1, mode="nearest"))


@pytest.mark.parametrize("shape", [(7, 6, 5), (3, 30, 8)])
def test_cubic_splines_are_those_of_scipy(shape):
    rng = np.random.default_rng(0)
    image = rng.standard_normal(shape).astype(np.float32)
    places = rng.uniform(0, np.array(shape)[:, None, None] - 1.0, (3, 40, 50))
    places[:, :10] = np.rint(places[:, :10])  # voxels themselves, those at the border too
    found = tricubic(image, places)
    assert found.dtype == np.float32
    assert found == pytest.approx(map_coordinates(image, places, order=3, mode="mirror"), abs=1e-5)
