"""Masks of shapes that are known."""

import numpy as np
import pytest

from bidsfit.preprocessing.masking import body, half_median_mask, otsu_mask


def trunk(shape=(40, 30, 4)):
    """An ellipse of 100 in noise of 5, and the voxels it fills."""
    x, y, _ = np.meshgrid(*(np.linspace(-1, 1, side) for side in shape), indexing="ij")
    inside = (x / 0.8) ** 2 + (y / 0.7) ** 2 < 1
    return np.where(inside, 100.0, 0.0) + abs(np.random.default_rng(0).normal(0, 5, shape)), inside


def test_otsu_mask_is_the_object():
    image, inside = trunk()
    mask = otsu_mask(image)
    assert (mask & inside).sum() > 0.95 * inside.sum()
    assert (mask & ~inside).sum() < 0.03 * inside.sum()


@pytest.mark.parametrize("find", [otsu_mask, body])
def test_no_contrast_is_no_mask(find):
    with pytest.raises(ValueError, match="no contrast"):
        find(np.ones((20, 20, 3)))


def test_unknown_voxels_are_not_in_the_mask():
    image, _ = trunk()
    image[20, 15, 2] = np.nan
    for mask in (otsu_mask(image), half_median_mask(image)):
        assert not mask[20, 15, 2]
        assert mask[20, 16, 2]


def test_dark_voxels_of_a_body_are_left_out_and_stay_out():
    image, inside = trunk()
    image[18:22, 13:17] = 49.0  # below half the median, above air
    image[25, 15] = 60.0
    mask = half_median_mask(image)
    assert not mask[18:22, 13:17].any()
    assert mask[25, 15].all()
    assert not mask[~inside].any()
    rest = inside.copy()
    rest[18:22, 13:17] = False
    assert mask[rest].all()


def test_the_median_is_that_of_the_region():
    image, inside = trunk()
    organ = np.zeros(image.shape, dtype=bool)
    organ[10:20, 10:20] = True
    image[10:20, 10:20] = 30.0
    image[12, 12] = 14.9
    image[13, 13] = 15.0
    mask = half_median_mask(image, organ)
    assert not mask[12, 12].any()
    assert mask.sum() == organ.sum() - image.shape[2]
    assert not half_median_mask(image)[organ].any()
    assert inside[organ].all()


def test_body_keeps_holes_and_large_parts_only():
    image, inside = trunk()
    image[18:22, 13:17] = 0
    image[0, 0, 0] = 100.0
    found = body(image)
    assert found[18:22, 13:17].all()
    assert not found[0, 0, 0]
    assert np.array_equal(found, inside)
    legs = np.zeros((40, 30, 2))
    legs[5:15, 10:20] = legs[25:35, 10:20] = 100.0
    assert np.array_equal(body(legs), legs > 0)


def test_refusals():
    image, _ = trunk()
    with pytest.raises(ValueError, match="shape"):
        half_median_mask(image, np.ones((2, 2, 2), dtype=bool))
    with pytest.raises(ValueError, match="no voxel"):
        half_median_mask(image, np.zeros(image.shape, dtype=bool))
    with pytest.raises(ValueError, match="must be positive"):
        half_median_mask(-image, np.ones(image.shape, dtype=bool))
