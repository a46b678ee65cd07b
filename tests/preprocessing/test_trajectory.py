"""Whether a head moved, from estimates of which some are sharp and others are not."""

import numpy as np
import pytest

from bidsfit.preprocessing.trajectory import is_still, motion_parameters, rigid_transforms

CENTRE = np.array([3.0, -12.0, 20.0])
SCALE = np.array([1, 1, 1, 50, 50, 50])
SHARP = np.arange(0, 60, 6)
GROUPS = [SHARP, np.setdiff1d(np.arange(60), SHARP)]


def estimates(path, sharp=0.02, blurred=0.5, offset=0.0, seed=0):
    """Estimates of a path (mm, and mm on a sphere of 50 mm); those of the second group jitter, about a place apart."""
    noise = np.random.default_rng(seed).normal(size=(60, 6)) * blurred + offset
    noise[SHARP] *= sharp / blurred
    noise[SHARP] -= offset * sharp / blurred
    return rigid_transforms((path + noise) / SCALE, CENTRE)


def test_parameters_and_transforms_are_inverse():
    parameters = np.random.default_rng(1).normal(0, 0.2, (5, 6))
    np.testing.assert_allclose(motion_parameters(rigid_transforms(parameters, CENTRE), CENTRE), parameters, atol=1e-9)


def test_parameters_are_about_the_centre():
    turned = np.eye(4)
    turned[:3, :3] = [[1, 0, 0], [0, np.cos(0.1), -np.sin(0.1)], [0, np.sin(0.1), np.cos(0.1)]]
    turned[:3, 3] = CENTRE - turned[:3, :3] @ CENTRE + [1, -2, 0.5]
    assert motion_parameters([turned], CENTRE)[0] == pytest.approx([1, -2, 0.5, 0.1, 0, 0])


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("offset", [0.0, 0.5])
def test_errors_are_no_motion(seed, offset):
    assert is_still(estimates(np.zeros((60, 6)), offset=offset, seed=seed), GROUPS, CENTRE)


@pytest.mark.parametrize("seed", range(20))
def test_drifts_are_motion(seed):
    path = np.cumsum(np.random.default_rng(100 + seed).normal(0, 0.1, (60, 6)), axis=0)
    assert not is_still(estimates(path, seed=seed), GROUPS, CENTRE)


def test_a_jump_between_sharp_volumes_is_motion():
    path = np.zeros((60, 6))
    path[31:, 1] = 0.5
    assert not is_still(estimates(path), GROUPS, CENTRE)


def test_motion_while_no_volume_is_sharp_is_motion():
    """All sharp volumes before the head moves: the others tell."""
    groups = [np.arange(10), np.arange(10, 60)]
    path = np.zeros((60, 6))
    path[35:] = 1.0
    noise = np.random.default_rng(3).normal(0, 0.3, (60, 6))
    noise[:10] *= 0.05
    assert not is_still(rigid_transforms((path + noise) / SCALE, CENTRE), groups, CENTRE)
    assert is_still(rigid_transforms(noise / SCALE, CENTRE), groups, CENTRE)
