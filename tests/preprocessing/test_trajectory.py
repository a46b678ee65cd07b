"""Whether a head moved, from estimates of which some are sharp and others are not."""

import numpy as np
import pytest

from bidsfit.preprocessing.trajectory import RADIUS, Link, is_still, join_groups, motion_parameters, rigid_transforms

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
@pytest.mark.parametrize("offset", [0.0, 0.2])
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


def test_a_head_that_moved_between_blocks_was_not_still():
    """Within each shell it lay still, so that only their places tell."""
    assert not is_still(estimates(np.zeros((60, 6)), offset=0.6), GROUPS, CENTRE)


def drifting(n, rng, step=0.03):
    return np.cumsum(rng.normal(0, step, (n, 6)), axis=0) / [1, 1, 1, RADIUS, RADIUS, RADIUS]


def separated(path, groups, offsets):
    """The path as each group sees it in a frame of its own."""
    own = path.copy()
    for group, offset in zip(groups, offsets, strict=True):
        own[group] -= offset
    return own


OFFSETS = np.array([[0, 0, 0, 0, 0, 0], [1, -2, 0.5, 0.01, 0.02, -0.01], [-0.5, 1, 2, -0.02, 0, 0.02]])


def apart(found, true):
    return np.abs((found - true) * [1, 1, 1, RADIUS, RADIUS, RADIUS]).max()


@pytest.mark.parametrize("order", ["interleaved", "blocks"])
def test_groups_are_joined_where_one_follows_another(order):
    """Links that contrast misled by 0.3 mm are put right by a head that hardly moves from one volume to the next."""
    rng = np.random.default_rng(0)
    place = np.repeat([0, 1, 2], 20) if order == "blocks" else rng.permutation(np.repeat([0, 1, 2], 20))
    groups = [np.flatnonzero(place == k) for k in range(3)]
    own = separated(drifting(60, rng), groups, OFFSETS)
    misled = 0.3 * rng.choice([-1, 1], (2, 6)) / [1, 1, 1, RADIUS, RADIUS, RADIUS]
    links = [Link(0, OFFSETS[1] + misled[0]), Link(1, OFFSETS[2] - OFFSETS[1] + misled[1])]
    found = join_groups(own, groups, links, np.ones(60, dtype=bool))
    assert np.all(found[0] == 0)
    assert apart(found, OFFSETS) < (0.05 if order == "interleaved" else 0.2)


def test_a_head_that_jumps_between_blocks_is_where_the_contrast_says():
    rng = np.random.default_rng(1)
    groups = list(np.arange(60).reshape(3, 20))
    path = drifting(60, rng)
    path[20:] += [3, 0, -4, 0.05, 0, 0]
    links = [Link(0, OFFSETS[1]), Link(0, OFFSETS[2])]
    found = join_groups(separated(path, groups, OFFSETS), groups, links, np.ones(60, dtype=bool))
    assert apart(found, OFFSETS) < 0.1


def test_volumes_that_were_not_found_do_not_join():
    rng = np.random.default_rng(2)
    groups = [np.arange(0, 40, 2), np.arange(1, 40, 2)]
    own = separated(drifting(40, rng), groups, OFFSETS[:2])
    known = np.ones(40, dtype=bool)
    known[5:15] = False
    own[~known] = 50
    found = join_groups(own, groups, [Link(0, OFFSETS[1])], known)
    assert apart(found, OFFSETS[:2]) < 0.05


def test_one_group_has_nothing_to_join():
    assert np.all(join_groups(np.ones((3, 6)), [np.arange(3)], [], np.ones(3, dtype=bool)) == 0)
