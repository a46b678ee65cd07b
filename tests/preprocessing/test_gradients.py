"""Tables of directions that do not fit are noticed, named, and left alone."""

import numpy as np
import pytest

from bidsfit.phantom.directions import spread_directions
from bidsfit.preprocessing.gradients import (
    coherence,
    detect_flip,
    normalise_directions,
    orientations,
    refuse_scaled_directions,
)

FLIPS = {"x": (-1, 1, 1), "y": (1, -1, 1), "z": (1, 1, -1)}
AFFINE = np.diag([-2.0, 2.0, 2.0, 1.0])


def test_unit_directions_pass_without_a_word():
    directions = np.r_[np.zeros((1, 3)), spread_directions(6)]
    normalised, warnings = normalise_directions([0] + [1000] * 6, directions)
    assert normalised == pytest.approx(directions)
    assert warnings == []


def test_lengths_are_scaled_and_said():
    directions = np.r_[np.zeros((1, 3)), 0.9 * spread_directions(6)]
    normalised, warnings = normalise_directions([0] + [1000] * 6, directions)
    assert np.linalg.norm(normalised[1:], axis=1) == pytest.approx(np.ones(6))
    assert len(warnings) == 1
    assert "6 of 6" in warnings[0]
    assert "unit length" in warnings[0]


def test_b_values_hidden_in_the_lengths():
    directions = np.r_[np.zeros((1, 3)), np.sqrt(0.5) * spread_directions(10), spread_directions(10)]
    with pytest.raises(ValueError, match=r"all alike.*b = 1000, 2000 s/mm"):
        refuse_scaled_directions([0] + [2000] * 20, directions)


@pytest.mark.parametrize(
    "lengths",
    [np.ones(20), np.full(20, 0.9), np.r_[0.0, np.ones(19)], np.linspace(0.99, 1.01, 20), np.full(20, np.nan)],
)
def test_lengths_that_hide_nothing(lengths):
    directions = np.r_[np.zeros((1, 3)), lengths[:, None] * spread_directions(20)]
    refuse_scaled_directions([0] + [2000] * 20, directions)


def test_lengths_beside_b_values_that_differ_hide_nothing():
    directions = np.r_[np.zeros((1, 3)), np.sqrt(0.5) * spread_directions(10), spread_directions(10)]
    refuse_scaled_directions([0] + [1000] * 10 + [2000] * 10, directions)
    assert len(normalise_directions([0] + [1000] * 10 + [2000] * 10, directions)[1]) == 1


def test_missing_directions():
    directions = spread_directions(8)
    directions[2] = 0
    directions[5] = np.nan
    normalised, warnings = normalise_directions([0, 0] + [1000] * 6, directions)
    assert np.all(normalised[[2, 5]] == 0)
    assert any("volumes 2 (counted from 0) are zero" in warning for warning in warnings)
    assert any("volumes 5 (counted from 0) are not numbers" in warning for warning in warnings)
    _, warnings = normalise_directions([0, 0] + [1000] * 6, directions, [0, 1, 4, 5, 6, 7, 8, 9])
    assert any("volumes 4 (counted from 0) are zero" in warning for warning in warnings)
    directions = np.r_[np.full((2, 3), np.nan), spread_directions(6)]
    assert normalise_directions([0, 5] + [1000] * 6, directions)[1] == []  # at b = 0 it does not matter


def test_one_direction_a_volume():
    with pytest.raises(ValueError, match="shape"):
        normalise_directions([0, 1000], np.zeros((3, 3)))


def test_readings_differ():
    matrices = [way.matrix for way in orientations()]
    assert len(matrices) == 24
    for i, first in enumerate(matrices):
        assert abs(np.linalg.det(first)) == pytest.approx(1)
        for second in matrices[:i]:
            assert not np.allclose(first, second)
            assert not np.allclose(first, -second)


def bundle(affine, noise=20.0, seed=0):
    """Fibres along circles that are tilted against every axis, as a scanner with this affine would see them."""
    rng = np.random.default_rng(seed)
    shape = (18, 18, 18)
    world = np.einsum("ij,jabc->abci", affine[:3, :3], np.indices(shape) - 8.5)
    normal = np.array([0.5, -0.3, 0.8]) / np.linalg.norm([0.5, -0.3, 0.8])
    tangent = np.cross(normal, world)
    height = world @ normal
    radius = np.linalg.norm(tangent, axis=-1)
    inside = (np.abs(height) < 6) & (radius > 7) & (radius < 16)
    fibres = tangent / np.maximum(radius, 1e-9)[..., None]
    directions = np.r_[np.zeros((2, 3)), spread_directions(24)]  # world
    b = np.r_[0.0, 0.0, np.full(24, 1000.0)]
    cosine = fibres @ directions.T
    adc = np.where(inside[..., None], 0.3e-3 + 1.4e-3 * cosine**2, 0.8e-3)
    signals = 1000 * np.exp(-b * adc) + noise * rng.standard_normal((*shape, b.size))
    axes = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    if np.linalg.det(affine[:3, :3]) > 0:
        axes = axes @ np.diag([-1, 1, 1])
    return signals.astype(np.float32), np.ones(shape, dtype=bool), b, directions @ axes


@pytest.mark.parametrize("sign", [-1.0, 1.0], ids=["radiological", "neurological"])
def test_a_right_table_gets_no_recommendation(sign):
    affine = np.diag([2 * sign, 2.0, 2.0, 1.0])
    data, mask, b, directions = bundle(affine)
    assert detect_flip(data, mask, b, directions, affine) is None
    ways, values = coherence(data, mask, b, directions, affine)
    means = values.mean(axis=1)
    assert str(ways[np.argmax(means)]) == "as given"
    assert np.sort(means)[-2] < 0.98 * means.max()


@pytest.mark.parametrize("axis", "xyz")
def test_flips_are_named(axis):
    data, mask, b, directions = bundle(AFFINE)
    words = detect_flip(data, mask, b, directions * FLIPS[axis], AFFINE)
    assert f"better with the sign of {axis} flipped" in words
    assert "nothing was changed" in words


def test_swapped_axes_are_named():
    data, mask, b, directions = bundle(AFFINE)
    assert "better with x and y swapped" in detect_flip(data, mask, b, directions[:, [1, 0, 2]], AFFINE)


def test_no_verdict_without_contrast():
    data, mask, b, directions = bundle(AFFINE)
    wrong = directions * FLIPS["x"]
    rng = np.random.default_rng(1)
    assert detect_flip(rng.uniform(90, 110, data.shape), mask, b, wrong, AFFINE) is None
    assert detect_flip(data[..., :7], mask, b[:7], wrong[:7], AFFINE) is None  # five directions
    assert detect_flip(data, np.zeros_like(mask), b, wrong, AFFINE) is None
