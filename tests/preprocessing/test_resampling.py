"""One interpolation: what was moved and distorted comes back, and what was not stays as it is."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from bidsfit.preprocessing.resampling import resample

AFFINE = np.array([[-2.0, 0, 0, 30], [0, 1.9, -0.5, -20], [0, 0.5, 2.4, 5], [0, 0, 0, 1]])


def resample_volume(volume, affine, transform, shift=None, axis=1):
    """One volume alone."""
    return resample(volume[..., None], affine, [transform], shift=shift, axis=axis).data[..., 0]


def smooth_volume(shape=(24, 26, 12), seed=0):
    noise = np.random.default_rng(seed).standard_normal(shape)
    return (
        (gaussian_filter(noise, [2, 2, 2 if shape[2] > 4 else 0], mode="wrap") * 400 + 100).clip(0).astype(np.float32)
    )


def translation(*millimetres):
    transform = np.eye(4)
    transform[:3, 3] = millimetres
    return transform


def voxels(*steps):
    """A translation by so many voxels along each axis."""
    return translation(*(AFFINE[:3, :3] @ steps))


def test_nothing_to_do_changes_nothing():
    data = smooth_volume()[..., None].repeat(2, axis=3) - 50  # denoised values may be negative
    result = resample(data, AFFINE, np.tile(np.eye(4), (2, 1, 1)), shift=np.zeros(data.shape[:3]), axis=1)
    assert np.array_equal(result.data, data)
    assert result.covered.all()


def test_a_whole_voxel_is_a_roll():
    volume = smooth_volume()
    moved = resample_volume(volume, AFFINE, voxels(3, 0, -1))
    assert moved[:-3, :, 1:] == pytest.approx(volume[3:, :, :-1], rel=1e-4, abs=1e-2)
    assert np.all(moved[-3:] == 0)
    assert np.all(moved[:, :, 0] == 0)


def test_what_left_the_image_is_not_covered():
    data = smooth_volume()[..., None].repeat(2, axis=3)
    result = resample(data, AFFINE, [np.eye(4), voxels(0.4, 0, 2.0)], threads=2)
    assert result.covered[:, :, :-2].all()  # less than half a voxel outside takes the edge
    assert not result.covered[:, :, -2:].any()
    assert np.all(result.data[:, :, -2:, 1] == 0)
    assert np.all(result.data[:, :, -2:, 0] > 0) or result.data[:, :, -2:, 0].sum() > 0


def test_there_and_back():
    volume = smooth_volume()
    turn = np.eye(4)
    turn[:3, :3] = [[np.cos(0.1), -np.sin(0.1), 0], [np.sin(0.1), np.cos(0.1), 0], [0, 0, 1]]
    turn[:3, 3] = [0.7, -0.4, 0.3]
    back = resample_volume(resample_volume(volume, AFFINE, turn), AFFINE, np.linalg.inv(turn))
    middle = (slice(7, -7), slice(7, -7), slice(4, -4))
    assert np.abs(back - volume)[middle].max() < 0.02 * volume.max()


def test_distortion_and_its_intensity_are_undone():
    """A profile known in closed form is squeezed along y, and piled up where it is squeezed."""
    y = np.arange(64.0)
    shift = 2.5 * np.sin(2 * np.pi * y / 64)
    true = 100 + 40 * np.cos(2 * np.pi * y / 32)
    recorded_at = y + shift
    fine = np.linspace(0, 63, 2001)
    where = np.interp(np.arange(64.0), np.interp(fine, y, recorded_at), fine)  # invert y -> y + shift
    jacobian = 1 + 2.5 * 2 * np.pi / 64 * np.cos(2 * np.pi * where / 64)
    recorded = (100 + 40 * np.cos(2 * np.pi * where / 32)) / jacobian
    volume = np.tile(recorded[None, :, None], (8, 1, 8)).astype(np.float32)
    field = np.tile(shift[None, :, None], (8, 1, 8))
    restored = resample_volume(volume, np.eye(4), np.eye(4), field, axis=1)[4, :, 4]
    assert np.abs(recorded - true).max() > 20
    assert restored[4:-4] == pytest.approx(true[4:-4], abs=1.0)


def test_displacement_is_taken_where_the_tissue_lies_in_the_volume():
    """The field stays with the scanner: it is looked up after the motion, not before."""
    volume = smooth_volume()
    field = np.zeros(volume.shape)
    field[:, :, 6:] = 2.0  # constant along y: no change of intensity
    moved = resample_volume(volume, AFFINE, voxels(0, 0, 2), field, axis=1)
    assert moved[:, :-2, 5] == pytest.approx(volume[:, 2:, 7], rel=1e-4, abs=1e-2)
    assert moved[:, :, 3] == pytest.approx(volume[:, :, 5], rel=1e-4, abs=1e-2)


@pytest.mark.parametrize("n_slices", [1, 2])
def test_thin_images_are_moved_within_their_slices(n_slices):
    volume = smooth_volume((24, 26, n_slices))
    moved = resample_volume(volume, AFFINE, voxels(2, 1, 0.3))
    assert moved[:-2, :-1] == pytest.approx(volume[2:, 1:], rel=1e-4, abs=1e-2)


def test_a_hole_stays_a_hole():
    volume = smooth_volume()
    volume[10, 10, 6] = np.nan
    data = np.stack([volume, volume], axis=-1)
    result = resample(data, AFFINE, [voxels(0, 0.1, 0)] * 2)
    assert np.isfinite(result.data).all()
    assert not result.covered[10, 10, 6]
    assert result.covered.sum() > 0.85 * result.covered.size


def test_progress_reaches_one():
    seen = []
    resample(smooth_volume()[..., None], AFFINE, [voxels(1, 0, 0)], progress=seen.append)
    assert seen == [1.0]


@pytest.mark.parametrize(
    ("transform", "shift", "axis", "message"),
    [
        (np.full((4, 4), np.nan), None, None, "finite"),
        (np.zeros((4, 4)), None, None, "inverse"),
        (np.eye(4), np.ones((24, 26, 12)), None, "axis"),
        (np.eye(4), np.ones((24, 26, 11)), 1, "must agree"),
        (np.eye(4), np.full((24, 26, 12), np.nan), 1, "not finite"),
    ],
)
def test_refusals(transform, shift, axis, message):
    with pytest.raises(ValueError, match=message):
        resample_volume(smooth_volume(), AFFINE, transform, shift, axis)


def test_one_transform_a_volume():
    with pytest.raises(ValueError, match="n transforms"):
        resample(smooth_volume()[..., None], AFFINE, [np.eye(4)] * 2)
