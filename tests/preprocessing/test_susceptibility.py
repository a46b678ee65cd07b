"""Displacements of a known field are found again from a pair of reversed directions."""

from functools import cache

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from scipy.spatial.transform import Rotation

from bidsfit.noise import add_noise
from bidsfit.phantom.head import make_head
from bidsfit.phantom.tissue import recipe
from bidsfit.preprocessing import susceptibility
from bidsfit.preprocessing.resampling import resample
from bidsfit.preprocessing.susceptibility import (
    SusceptibilityField,
    disagreement,
    estimate_field,
    jacobian,
    phase_encoding,
    shift_from_hertz,
    undistort,
)

SHAPE = (32, 34, 20)
AFFINE = np.array([[-7.0, 0, 0, 110], [0, 7, 0, -110], [0, 0, 7, -70], [0, 0, 0, 1]])

needs_pyhysco = pytest.mark.skipif(not susceptibility.available(), reason="PyHySCO is not installed")


@cache
def head(shape=SHAPE):
    """A noise-free image without diffusion weighting, and its mask."""
    drawn = make_head(shape, recipe("smt2"), np.random.default_rng(3))
    return drawn.parameters["S0"] * 1000, drawn.mask


def bump(shape=SHAPE, height=2.5):
    """A smooth displacement (voxels), positive in front and negative at a side."""
    x, y, z = np.indices(shape)

    def at(*place):
        return np.exp(
            -sum(((a - p * n) / (0.15 * n)) ** 2 / 2 for a, p, n in zip((x, y, z), place, shape, strict=True))
        )

    return height * (at(0.5, 0.75, 0.4) - 0.6 * at(0.7, 0.45, 0.4))


def displaced(image, shift, axis, parts=10):
    """What a scanner records: every part of a voxel's signal lands where the field displaces it, and sums up there."""
    lines, moves = (np.moveaxis(volume, axis, -1) for volume in (image, shift))
    n = lines.shape[-1]
    places = np.clip((np.arange(n * parts) + 0.5) / parts - 0.5, 0, n - 1)
    recorded = np.zeros(lines.shape)
    for line in np.ndindex(lines.shape[:-1]):
        signal = np.interp(places, np.arange(n), lines[line]) / parts
        landing = np.clip(places + np.interp(places, np.arange(n), moves[line]), 0, n - 1 - 1e-9)
        left = landing.astype(int)
        recorded[line] = np.bincount(left, signal * (1 - landing + left), n)
        recorded[line] += np.bincount(left + 1, signal * (landing - left), n)
    return np.moveaxis(recorded, -1, axis)


@cache
def still_pair(axis):
    return measure(axis)


def pair(axis=1):
    """Forward and reversed image with Rician noise, the displacement of the forward one, and the mask."""
    return tuple(volume.copy() for volume in still_pair(axis))


def measure(axis=1, snr=30.0, moved=None):
    """A pair as `pair` says; the head of the reversed image may have moved."""
    image, mask = head()
    shift = bump()
    other, back = image, shift
    if moved is not None:
        both = np.stack([image, shift], axis=-1).astype(np.float32)
        other, back = np.moveaxis(resample(both, AFFINE, [np.linalg.inv(moved)] * 2).data, -1, 0)
    rng = np.random.default_rng(4)
    sigma = image[mask].mean() / snr
    forward = add_noise(displaced(image, shift, axis), sigma, "rician", rng)
    reverse = add_noise(np.maximum(displaced(other, -back, axis), 0), sigma, "rician", rng)
    return forward, reverse, shift, mask


# --- directions and units -------------------------------------------------------------------------------------------


def test_directions():
    assert [phase_encoding(d) for d in ("i", "j-", "k")] == [(0, 1), (1, -1), (2, 1)]


@pytest.mark.parametrize("wrong", ["AP", "y", "j+", "-j", "", None, 1, "jj", "j-\n"])
def test_what_is_no_direction_is_refused(wrong):
    with pytest.raises(ValueError, match="expected one of i, i-, j, j-, k, k-"):
        phase_encoding(wrong)


def test_hertz_and_voxels():
    """50 Hz over 40 ms are two turns of phase: two voxels, against the axis where the sign is negative."""
    assert shift_from_hertz([50.0, -25], 0.04, 1) == pytest.approx([2, -1])
    assert shift_from_hertz(50, 0.04, -1) == pytest.approx(-2)


@pytest.mark.parametrize(("seconds", "sign"), [(0, 1), (-0.04, 1), (np.nan, 1), (0.04, 0), (0.04, 2)])
def test_readout_time_or_sign_that_cannot_be(seconds, sign):
    with pytest.raises(ValueError, match="positive readout time"):
        shift_from_hertz(50, seconds, sign)


# --- undoing a known displacement -----------------------------------------------------------------------------------


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_known_displacement_is_undone(axis):
    image, mask = head()
    smooth = gaussian_filter(image, 1.5)
    shift = bump(height=1.5)
    raw = displaced(smooth, shift, axis)
    restored = undistort(raw, shift, axis)
    wrong = np.abs(raw - smooth)[mask].mean()
    assert np.abs(restored - smooth)[mask].mean() < 0.3 * wrong
    assert np.abs(undistort(raw, -shift, axis) - smooth)[mask].mean() > 1.3 * wrong


def test_the_shift_is_that_of_the_resampling():
    """Both undo it alike, so that the field can be handed on."""
    image, mask = head()
    shift = bump()
    raw = displaced(image, shift, 1).astype(np.float32)
    theirs = resample(raw[..., None], AFFINE, [np.eye(4)], shift=shift, axis=1).data[..., 0]
    ours = undistort(raw, shift, 1)
    assert np.corrcoef(ours[mask], theirs[mask])[0, 1] > 0.97


def test_jacobian_of_a_ramp_and_of_a_fold():
    ramp = np.broadcast_to(0.25 * np.arange(8.0)[:, None, None], (8, 2, 2))
    assert jacobian(ramp, 0) == pytest.approx(1.25)
    assert jacobian(-8 * ramp, 0) == pytest.approx(susceptibility.SMALLEST_JACOBIAN)


def test_disagreement_of_images_that_agree_is_zero():
    image, _ = head()
    assert disagreement(image, image) == 0
    assert disagreement(image, 1.1 * image) > 0.05


# --- finding it -----------------------------------------------------------------------------------------------------


@needs_pyhysco
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_the_field_of_a_pair_is_found(axis):
    forward, reverse, shift, mask = pair(axis)
    found = estimate_field(forward, reverse, AFFINE, axis, motion=False)
    error = np.abs(found.shift - shift)[mask]
    assert np.median(error) < 0.08
    assert np.percentile(error, 95) < 0.3 < 0.3 * np.percentile(np.abs(shift[mask]), 95) + 0.2
    assert found.after < 0.5 * found.before
    assert found.shift.dtype == np.float32


@needs_pyhysco
def test_the_reversed_image_first_gives_the_opposite():
    forward, reverse, _, mask = pair()
    one = estimate_field(forward, reverse, AFFINE, 1, motion=False).shift
    other = estimate_field(reverse, forward, AFFINE, 1, motion=False).shift
    assert np.abs(one + other)[mask].max() < 0.2


@pytest.mark.slow
@needs_pyhysco
def test_a_pair_without_distortion_gives_none():
    image, mask = head()
    rng = np.random.default_rng(0)
    pictures = [add_noise(image, image[mask].mean() / 30, "rician", rng) for _ in range(2)]
    found = estimate_field(*pictures, AFFINE, 1)
    assert np.percentile(np.abs(found.shift[mask]), 95) < 0.15
    assert np.array_equal(found.motion, np.eye(4))


@needs_pyhysco
@pytest.mark.parametrize("n_slices", [1, 2, 3, 5])
def test_few_slices(n_slices):
    forward, reverse, shift, mask = (volume[:, :, 6 : 6 + n_slices] for volume in pair())
    found = estimate_field(forward, reverse, AFFINE, 1)
    assert found.shift.shape == forward.shape
    assert np.median(np.abs(found.shift - shift)[mask]) < 0.12


@needs_pyhysco
def test_gain_hot_voxel_and_nan_change_little():
    forward, reverse, shift, mask = pair()
    spoilt = 1.4 * reverse
    forward[1, 1, 1], forward[2, 2, 2], spoilt[3, 3, 3] = 5 * forward.max(), np.nan, np.inf
    found = estimate_field(forward, spoilt, AFFINE, 1, motion=False)
    assert np.median(np.abs(found.shift - shift)[mask]) < 0.08


@needs_pyhysco
def test_the_same_pair_gives_the_same_field_and_tells_its_progress():
    forward, reverse, _, _ = pair()
    told = []
    first, second = (
        estimate_field(forward, reverse, AFFINE, 1, motion=False, progress=told.append).shift for _ in range(2)
    )
    assert np.array_equal(first, second)
    once = told[: len(told) // 2]
    assert once == sorted(once)
    assert (once[-1], len(once) > 2) == (1.0, True)


@pytest.mark.slow
@needs_pyhysco
def test_motion_between_the_two_is_found():
    moved = np.eye(4)
    moved[:3, :3] = Rotation.from_euler("xyz", (3, 0, 4), degrees=True).as_matrix()
    moved[:3, 3] = (5, 0, 4)
    forward, reverse, shift, mask = measure(moved=moved)
    found = estimate_field(forward, reverse, AFFINE, 1)
    world = np.argwhere(mask) @ AFFINE[:3, :3].T + AFFINE[:3, 3]
    across = [0, 2]  # what lies along the phase encoding belongs to the field
    true, told = (world @ m[:3, :3].T + m[:3, 3] for m in (moved, found.motion))
    assert np.abs(true - told)[:, across].mean() < 0.3 * np.abs(true - world)[:, across].mean()
    ignored = estimate_field(forward, reverse, AFFINE, 1, motion=False)
    assert found.after < 0.8 * ignored.after
    assert np.median(np.abs(found.shift - shift)[mask]) < np.median(np.abs(ignored.shift - shift)[mask])


@needs_pyhysco
def test_no_file_is_left(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    forward, reverse, _, _ = pair()
    estimate_field(forward, reverse, AFFINE, 1, motion=False)
    assert list(tmp_path.iterdir()) == []


# --- what cannot be used --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f, r: (f, r[:-1], 1), r"shape \(32, 34, 20\), the reversed one \(31, 34, 20\)"),
        (lambda f, r: (f[..., None], r, 1), r"forward image has shape \(32, 34, 20, 1\); expected \(x, y, z\)"),
        (lambda f, r: (f, 0 * r, 1), "reversed image holds the same value everywhere"),
        (lambda f, r: (f, r, 3), "phase-encoding axis 3"),
        (lambda f, r: (f[:, :4], r[:, :4], 1), "with at least 8 voxels"),
    ],
)
def test_a_pair_that_cannot_be_used(change, message):
    image, _ = head()
    forward, reverse, axis = change(image, image)
    with pytest.raises(ValueError, match=message):
        estimate_field(forward, reverse, AFFINE, axis)


def test_without_pyhysco(monkeypatch):
    monkeypatch.setattr(susceptibility, "find_spec", lambda name: None)
    image, _ = head()
    assert not susceptibility.available()
    with pytest.raises(ModuleNotFoundError, match="PyHySCO is not installed"):
        estimate_field(image, image, AFFINE, 1)


@pytest.mark.parametrize(("displacement", "negligible"), [(0.1, True), (0.5, False)])
def test_hardly_any_distortion_is_told(displacement, negligible):
    shift = np.linspace(-displacement, displacement, 1000).reshape(10, 10, 10)
    field = SusceptibilityField(shift.astype(np.float32), np.eye(4), 0.1, 0.1)
    assert field.largest == pytest.approx(displacement, rel=0.02)
    assert field.negligible is negligible
