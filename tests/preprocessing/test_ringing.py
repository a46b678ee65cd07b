"""Ripples of a truncated Fourier series go, and what has none stays."""

import numpy as np
import pytest
from dipy.denoise.gibbs import gibbs_removal
from scipy.fft import fft2, fftshift, ifft2, ifftshift

from bidsfit.preprocessing import ringing
from bidsfit.preprocessing.ringing import obstacle_to_gibbs, remove_ringing

FINE = 4


def slice_of(side, *, ringing):
    """Two boxes as a scanner of a finite matrix sees them, or sampled at the same points."""
    u = np.arange(side * FINE) / (side * FINE) - 0.5
    v, w = u[:, None], u[None, :]
    boxes = 1000.0 * (abs(v) < 0.31) * (abs(w) < 0.37) - 600.0 * (abs(v - 0.05) < 0.11) * (abs(w) < 0.13)
    if not ringing:
        return boxes[::FINE, ::FINE]
    start = side * FINE // 2 - side // 2
    middle = slice(start, start + side)
    return abs(ifft2(ifftshift(fftshift(fft2(boxes))[middle, middle]))) / FINE**2


def tissue_away_from_edges(side):
    """Voxels whose neighbours, three deep, are all alike. In air the magnitude makes a pedestal of the ripples."""
    boxes = slice_of(side, ringing=False)
    alike = boxes > 0
    for axis in (0, 1):
        for shift in (-3, -2, -1, 1, 2, 3):
            alike &= np.roll(boxes, shift, axis) == boxes
    return alike


@pytest.mark.parametrize("side", [48, 49])
def test_ripples_are_halved_whatever_the_matrix(side):
    truth, flat = slice_of(side, ringing=False), tissue_away_from_edges(side)
    image = slice_of(side, ringing=True)
    clean = remove_ringing(image[:, :, None, None])
    assert clean.dtype == np.float32
    before, after = ((abs(values - truth)[flat]).mean() for values in (image, clean[:, :, 0, 0]))
    assert after < 0.5 * before


@pytest.mark.parametrize("shape", [(48, 48), (49, 36), (20, 33)])
def test_shifts_are_those_of_dipy(shape, monkeypatch):
    """All of them: with ripples that may be as large as they like, and no voxel at an edge."""
    monkeypatch.setattr(ringing, "RIPPLE", 1e6)
    monkeypatch.setattr(ringing, "AT_AN_EDGE", 2.0)
    image = np.random.default_rng(2).normal(0, 20, shape) + slice_of(49, ringing=True)[: shape[0], : shape[1]]
    shifted = remove_ringing(image[:, :, None, None])[:, :, 0, 0]
    difference = np.abs(shifted - gibbs_removal(image, inplace=False))
    assert np.median(difference) < 1e-3
    assert np.mean(difference > 0.1) < 0.01  # where two shifts are equally good, rounding decides
    assert np.abs(shifted - image).mean() > 2


def test_smooth_data_hardly_change():
    u = np.linspace(-1, 1, 40)
    smooth = 1000 * np.exp(-4 * (u[:, None] ** 2 + u[None, :] ** 2))[:, :, None, None]
    assert remove_ringing(smooth) == pytest.approx(smooth, abs=2)


def test_structures_as_thin_as_voxels_are_not_smeared():
    """A clean image of them, which shifts alone would change by half of the contrast."""
    image = 100.0 * np.random.default_rng(1).integers(1, 4, size=(32, 32, 1, 1)).repeat(2, axis=0)[:32]
    changed = np.abs(remove_ringing(image) - image)
    assert changed.max() <= 0.06 * 200 + 1e-3
    assert changed.mean() < 0.5


def test_no_voxel_changes_by_more_than_a_ripple():
    rung = slice_of(48, ringing=True)[:, :, None, None]
    assert 0 < np.abs(remove_ringing(rung) - rung).max() <= 0.06 * np.ptp(rung) + 1e-3


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_the_slice_axis_may_be_any(axis):
    image = np.stack([slice_of(24, ringing=True), slice_of(24, ringing=False)], axis=2)[..., None]
    expected = remove_ringing(image)
    turned = remove_ringing(np.moveaxis(image, 2, axis), slice_axis=axis)
    assert np.moveaxis(turned, axis, 2) == pytest.approx(expected, rel=1e-4, abs=1e-2)


def test_processes_give_what_one_gives():
    image = np.random.default_rng(0).random((16, 17, 2, 3))
    done = []
    assert np.array_equal(remove_ringing(image), remove_ringing(image, threads=2, progress=done.append))
    assert done == pytest.approx([1 / 3, 2 / 3, 1])


def test_gaps_and_input_are_left_alone():
    image = np.random.default_rng(0).random((16, 16, 2, 2)).astype(np.float32)
    image[3, 3, 0, 0], image[4, 4, 0, 1], image[:, :, 1] = np.nan, np.inf, 0
    before = image.copy()
    clean = remove_ringing(image)
    assert np.array_equal(image, before, equal_nan=True)
    assert np.array_equal(np.isfinite(clean), np.isfinite(image))
    assert not clean[:, :, 1].any()


def test_refusals():
    assert "7 x 64" in obstacle_to_gibbs((7, 64, 20, 30))
    assert obstacle_to_gibbs((7, 64, 20, 30), slice_axis=0) == ""
    with pytest.raises(ValueError, match="8 x 8"):
        remove_ringing(np.ones((7, 64, 2, 2)))
    with pytest.raises(ValueError, match="found 3"):
        remove_ringing(np.ones((16, 16, 2, 2)), slice_axis=3)
    with pytest.raises(ValueError, match="shape"):
        remove_ringing(np.ones((16, 16, 2)))
