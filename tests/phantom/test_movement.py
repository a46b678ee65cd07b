"""Motion of the size that was asked for, to where the transforms say."""

import numpy as np
import pytest
from scipy.ndimage import center_of_mass

from bidsfit.phantom.grid import centred_affine
from bidsfit.phantom.movement import draw_motion, move, rigid_transforms

SHAPE, VOXEL = (32, 32, 24), 2.0
AFFINE = centred_affine(SHAPE, VOXEL)


def blob(centre, width=5.0):
    """A smooth object around a place of the world, mm."""
    world = np.moveaxis(np.indices(SHAPE), 0, -1) @ AFFINE[:3, :3].T + AFFINE[:3, 3]
    return np.exp(-((world - centre) ** 2).sum(-1) / (2 * width**2))


def place(volume):
    return AFFINE[:3, :3] @ center_of_mass(volume) + AFFINE[:3, 3]


@pytest.mark.parametrize("seed", range(5))
def test_size(seed):
    motion = draw_motion(60, 1.5, 3.0, np.random.default_rng(seed))
    assert motion.shape == (60, 6)
    assert np.all(motion[0] == 0)
    assert np.abs(motion[:, :3]).max() == pytest.approx(1.5)
    assert np.abs(motion[:, 3:]).max() == pytest.approx(np.deg2rad(3.0))
    assert np.abs(motion).min(axis=0).max() == 0  # nothing moves by all of it all the time


def test_one_kind_alone_and_one_volume():
    rng = np.random.default_rng(0)
    assert np.all(draw_motion(20, 1.0, 0.0, rng)[:, 3:] == 0)
    assert np.all(draw_motion(20, 0.0, 1.0, rng)[:, :3] == 0)
    assert np.all(draw_motion(1, 1.0, 1.0, rng) == 0)


def test_smooth_with_jumps():
    """The largest step between volumes stands out from the others."""
    ratios = []
    for seed in range(10):
        steps = np.linalg.norm(np.diff(draw_motion(60, 1, 1, np.random.default_rng(seed))[:, :3], axis=0), axis=1)
        ratios.append(steps.max() / np.median(steps))
    assert np.median(ratios) > 5


def test_transforms_are_rigid_and_start_with_none():
    transforms = rigid_transforms(draw_motion(10, 2.0, 5.0, np.random.default_rng(1)))
    np.testing.assert_array_equal(transforms[0], np.eye(4))
    rotations = transforms[:, :3, :3]
    np.testing.assert_allclose(
        rotations @ rotations.transpose(0, 2, 1), np.broadcast_to(np.eye(3), (10, 3, 3)), atol=1e-12
    )
    np.testing.assert_allclose(np.linalg.det(rotations), 1)


def test_meaning_of_the_parameters():
    """A quarter turn about x takes y to z, then a quarter turn about z takes x to y; then the translation."""
    quarter = np.pi / 2
    turned = rigid_transforms([[0, 0, 0, quarter, 0, 0], [0, 0, 0, quarter, 0, quarter], [1, 2, 3, 0, 0, 0]])
    np.testing.assert_allclose(turned[0] @ (0, 1, 0, 1), (0, 0, 1, 1), atol=1e-12)
    np.testing.assert_allclose(turned[1] @ (1, 0, 0, 1), (0, 1, 0, 1), atol=1e-12)
    np.testing.assert_allclose(turned[1] @ (0, 1, 0, 1), (0, 0, 1, 1), atol=1e-12)
    np.testing.assert_allclose(turned[2] @ (1, 1, 1, 1), (2, 3, 4, 1), atol=1e-12)


@pytest.mark.parametrize(
    "parameters", [(3.1, 0, 0, 0, 0, 0), (0, -2.3, 1.4, 0, 0, 0), (0, 0, 0, 0.2, 0, 0), (1, -1, 0.5, 0.1, -0.2, 0.3)]
)
def test_tissue_moves_to_where_the_transform_says(parameters):
    centre = np.array([9.0, -6.0, 4.0])
    transform = rigid_transforms([parameters])[0]
    moved = move(blob(centre), AFFINE, transform)
    expected = transform[:3, :3] @ centre + transform[:3, 3]
    np.testing.assert_allclose(place(moved), expected, atol=0.02)
    np.testing.assert_allclose(moved, blob(expected), atol=0.005)


def test_no_motion_changes_nothing():
    volume = np.random.default_rng(0).random(SHAPE)
    np.testing.assert_array_equal(move(volume, AFFINE, np.eye(4)), volume)
