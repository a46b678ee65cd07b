"""Images of different contrast are brought onto one another."""

import logging

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter, map_coordinates
from scipy.spatial.transform import Rotation

from bidsfit.preprocessing.contrasts import register_across_contrasts
from bidsfit.preprocessing.registration import VoxelGrid
from bidsfit.preprocessing.trajectory import motion_parameters


@pytest.fixture(autouse=True)
def _quiet():
    logging.getLogger("dipy").setLevel(logging.WARNING)


def phantom(shape=(48, 48, 30)):
    """Three tissues in a head; labels 0 to 3."""
    rng = np.random.default_rng(0)
    radius = np.sqrt(sum(((np.indices(shape)[i] - n / 2) / (0.42 * n)) ** 2 for i, n in enumerate(shape)))
    texture = gaussian_filter(rng.normal(size=shape), 3)
    labels = np.digitize(texture / texture.std(), [-0.4, 0.6]) + 1
    return np.where(radius < 1, labels, 0)


AFFINE = np.diag([-4.0, 4, 4, 1])


@pytest.mark.parametrize("thin", [False, True])
def test_a_known_motion_is_found_though_contrast_is_inverted(thin):
    labels = phantom()[:, :, 15:16] if thin else phantom()
    grid = VoxelGrid(AFFINE, labels > 0, (2,) if thin else ())
    motion = np.eye(4)
    motion[:3, :3] = Rotation.from_euler("xyz", [0, 0, 3] if thin else [2, -1, 3], degrees=True).as_matrix()
    motion[:3, 3] = grid.centre - motion[:3, :3] @ grid.centre + [3, -2, 0 if thin else 2]
    back = np.linalg.inv(AFFINE) @ np.linalg.inv(motion) @ AFFINE
    places = np.einsum("ij,jabc->iabc", back[:3, :3], np.indices(labels.shape)) + back[:3, 3, None, None, None]
    other = np.array([0, 1.0, 2.5, 4.0])[labels]
    volume = map_coordinates(other, places, order=1, mode="nearest")
    reference = np.array([0, 5.0, 2.0, 1.0])[labels]
    found = register_across_contrasts(reference, volume, grid)
    apart = motion_parameters((np.linalg.inv(motion) @ found)[None], grid.centre)[0]
    assert np.linalg.norm(apart[:3]) < 0.4  # of voxels of 4 mm
    assert np.rad2deg(np.linalg.norm(apart[3:])) < 0.4


def test_an_image_without_contrast_stays_where_the_search_began():
    labels = phantom()
    start = np.eye(4)
    start[0, 3] = 3
    found = register_across_contrasts(labels.astype(float), np.ones(labels.shape), VoxelGrid(AFFINE, labels > 0), start)
    assert np.array_equal(found, start)
