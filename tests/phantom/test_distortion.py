"""Displacement along the phase-encoding axis: how far, which way, and no signal lost."""

import numpy as np
import pytest
from scipy.ndimage import center_of_mass

from bidsfit.phantom.distortion import distort, draw_off_resonance, eddy_gradients, origins
from bidsfit.phantom.grid import centred_affine

SHAPE = (20, 40, 3)
AFFINE = centred_affine(SHAPE, 4.0)


def smooth():
    """An object well inside the image."""
    x, y, _ = np.indices(SHAPE)
    return np.exp(-((x - 9) ** 2 / 6 + (y - 19) ** 2 / 30))


def displaced(volume, displacement, axis=1):
    displacement = np.broadcast_to(displacement, volume.shape)
    return distort(volume, origins(displacement, axis), axis)


@pytest.mark.parametrize("peak", [0.0, 80.0])
@pytest.mark.parametrize("shape", [(48, 48, 3), (32, 40, 1), (40, 40, 30)])
def test_field(shape, peak):
    field = draw_off_resonance(shape, centred_affine(shape, 5.0), peak, np.random.default_rng(3))
    assert field.shape == shape
    assert np.abs(field).max() == pytest.approx(peak)
    if peak:
        strongest = np.unravel_index(np.abs(field).argmax(), shape)
        assert strongest[1] > 0.7 * shape[1]  # in front
        assert strongest[2] == 0  # at the bottom
        assert field.min() < 0
        assert np.abs(np.diff(field, axis=0)).max() < 0.2 * peak  # smooth


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("voxels", [1, 3, -2])
def test_whole_voxels(axis, voxels):
    volume = smooth()
    np.testing.assert_allclose(displaced(volume, voxels, axis), np.roll(volume, voxels, axis), atol=1e-3)


def test_nothing_is_displaced_by_nothing():
    volume = np.random.default_rng(0).random(SHAPE)
    np.testing.assert_allclose(displaced(volume, 0.0), volume, atol=1e-10)


def test_part_of_a_voxel_and_the_sign():
    for by in (0.4, -0.7):
        before, after = center_of_mass(smooth()), center_of_mass(displaced(smooth(), by))
        np.testing.assert_allclose(np.subtract(after, before), (0, by, 0), atol=1e-4)


def test_piles_up_by_the_jacobian():
    """A uniform object that is squeezed to half its length is twice as bright, and the other way round."""
    y = np.broadcast_to(np.arange(40.0)[None, :, None], SHAPE)
    uniform = np.where((y >= 10) & (y < 30), 1.0, 0.0)
    for factor in (0.5, 1.5):
        result = displaced(uniform, (factor - 1) * (y - 19.5))
        assert result[10, 18:22, 1] == pytest.approx(1 / factor, abs=0.01)
        assert result.sum() == pytest.approx(uniform.sum(), rel=1e-3)
        assert (result[10, :, 1] > 0.5 / factor).sum() == 20 * factor


def test_signal_is_conserved_and_comes_from_where_it_should():
    field = draw_off_resonance(SHAPE, AFFINE, 60.0, np.random.default_rng(0)) * 0.05
    volume = smooth()
    result = displaced(volume, field)
    np.testing.assert_allclose(result.sum(1), volume.sum(1), rtol=1e-3)
    # against many small pieces of each voxel, moved one by one
    line, shift = volume[9, :, 0], field[9, :, 0]
    y = np.linspace(0, 39, 400_000)
    density, _ = np.histogram(
        y + np.interp(y, np.arange(40), shift), bins=np.arange(41) - 0.5, weights=np.interp(y, np.arange(40), line)
    )
    np.testing.assert_allclose(result[9, 1:-1, 0], density[1:-1] * 39 / 400_000, atol=0.02)


def test_opposite_displacements_meet_in_the_middle():
    """The pair of opposite phase encoding: the middle of both is the object."""
    field = draw_off_resonance(SHAPE, AFFINE, 40.0, np.random.default_rng(1)) * 0.05
    plus, minus = (center_of_mass(displaced(smooth(), sign * field)) for sign in (1, -1))
    before = center_of_mass(smooth())
    assert abs(plus[1] - before[1]) > 0.02
    np.testing.assert_allclose((np.array(plus) + minus) / 2, before, atol=0.02)


def test_origins():
    y = np.broadcast_to(np.arange(40.0)[None, :, None], SHAPE)
    displacement = 3 * np.sin(y / 6)
    origin = origins(displacement, 1)
    inside = origin[:, 5:-5]
    np.testing.assert_allclose(
        inside + 3 * np.sin(inside / 6), (np.arange(41) - 0.5)[None, 5:-5, None] + 0 * inside, atol=1e-3
    )
    assert np.all(np.diff(origin, axis=1) > 0)


def test_folding_is_refused():
    y = np.broadcast_to(np.arange(40.0)[None, :, None], SHAPE)
    with pytest.raises(ValueError, match=r"falls by 1\.50 voxels.*fold"):
        origins(-1.5 * y, 1)


def test_eddy_currents_follow_the_gradient():
    b, directions = [0, 1000, 4000], [[0, 0, 0], [1, 0, 0], [0, -1, 0]]
    gradients = eddy_gradients(b, directions, 2.0)
    np.testing.assert_allclose(gradients, [[0, 0, 0], [0.01, 0, 0], [0, -0.02, 0]])
    assert np.all(eddy_gradients([0, 0], np.zeros((2, 3)), 2.0) == 0)
