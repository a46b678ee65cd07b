"""Rotations of gradient directions and of tissue."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from bidsfit import Acquisition, models
from bidsfit.models.space import ParameterSpace
from bidsfit.phantom.directions import spread_directions
from bidsfit.rotation import rotation_between


@pytest.mark.parametrize("seed", range(8))
def test_a_rotation_is_found_again_whatever_the_signs(seed):
    rng = np.random.default_rng(seed)
    directions, turn = spread_directions(6 + 4 * seed), Rotation.random(rng=rng)
    turned = turn.apply(directions) * rng.choice([-1, 1], len(directions))[:, None]
    found = rotation_between(directions, turned)
    np.testing.assert_allclose(np.abs(np.sum(found.apply(directions) * turned, axis=1)), 1, atol=1e-12)


def test_small_errors_of_directions_are_evened_out():
    rng = np.random.default_rng(0)
    directions, turn = spread_directions(30), Rotation.from_rotvec([0.1, -0.2, 0.3])
    turned = turn.apply(directions) + 0.01 * rng.standard_normal((30, 3))
    turned /= np.linalg.norm(turned, axis=1, keepdims=True)
    assert np.rad2deg((rotation_between(directions, turned) * turn.inv()).magnitude()) < 0.3


ROTATED = [name for name in models.available() if models.get(name).rotated is not None]


def test_every_model_of_directions_can_be_rotated():
    assert set(ROTATED) == {name for name in models.available() if "direction" in models.get(name).variables}


@pytest.mark.parametrize("name", ROTATED)
def test_tissue_and_gradients_that_are_rotated_together_give_the_same_signals(name):
    model, rng = models.get(name), np.random.default_rng(1)
    directions, turn = spread_directions(30), Rotation.random(rng=rng)
    b = np.repeat([1000.0, 2000.0], 15)
    space = ParameterSpace(model)
    parameters = space.with_scale(space.sample(50, rng))
    before = model.signal(parameters, Acquisition(b, directions))
    after = model.signal(model.rotated(parameters, turn), Acquisition(b, turn.apply(directions)))
    np.testing.assert_allclose(after, before, rtol=1e-9, atol=1e-12)
