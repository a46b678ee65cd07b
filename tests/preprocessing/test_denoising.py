"""Noise goes and signal stays: images of few components, with noise of a known level."""

import numpy as np
import pytest
from dipy.denoise.localpca import mppca

from bidsfit.preprocessing import denoising
from bidsfit.preprocessing.denoising import (
    denoise_mppca,
    denoise_patch2self,
    obstacle_to_mppca,
    obstacle_to_patch2self,
    patch_radius,
)

SIGMA = 10.0
B_VALUES = np.array([0, 5, 10, 20, 40, 60, 80, 100, 200, 400, 600, 800.0])


def decays(shape=(12, 10, 6), b_values=B_VALUES):
    """Biexponential decays whose parameters change slowly over the image."""
    x, y, z = np.meshgrid(*(np.linspace(0, 1, side) for side in shape), indexing="ij")
    s0, fraction, slow = 500 + 300 * x, 0.1 + 0.2 * y, 1e-3 * (1 + 0.5 * z)
    fast, slow = np.exp(-b_values * 0.02), np.exp(-b_values * slow[..., None])
    return s0[..., None] * (fraction[..., None] * fast + (1 - fraction[..., None]) * slow)


def noisy(clean, seed=0):
    return (clean + SIGMA * np.random.default_rng(seed).standard_normal(clean.shape)).astype(np.float32)


def error(image, clean, where=...):
    return np.sqrt(np.mean((image - clean)[where] ** 2))


@pytest.mark.parametrize(
    ("shape", "radius"),
    [
        ((128, 128, 70, 141), (3, 3, 3)),
        ((104, 104, 2, 103), (7, 7, 0)),
        ((128, 134, 6, 11), (2, 2, 2)),
        ((64, 64, 3, 43), (3, 2, 1)),
        ((64, 64, 1, 30), (4, 3, 0)),
        ((1, 40, 60, 20), (0, 3, 3)),
    ],
)
def test_patches_hold_two_voxels_per_volume_and_fit_in_the_image(shape, radius):
    assert patch_radius(shape) == radius
    widths = 2 * np.array(radius) + 1
    assert np.prod(widths) >= 2 * shape[3]
    assert np.all(widths <= shape[:3])
    assert obstacle_to_mppca(shape) == ""


@pytest.mark.parametrize(
    ("shape", "words"),
    [((64, 64, 20, 5), "needs 6 volumes"), ((3, 3, 1, 20), "9 at most in an image of 3 x 3 x 1 voxels")],
)
def test_obstacles_to_mppca_are_said(shape, words):
    assert words in obstacle_to_mppca(shape)
    with pytest.raises(ValueError, match=words):
        denoise_mppca(np.ones(shape, dtype=np.float32))


def test_patches_of_a_small_image_are_as_large_as_it():
    assert patch_radius((7, 6, 1, 30)) == (3, 2, 0)
    assert obstacle_to_mppca((7, 6, 1, 30)) == ""


@pytest.mark.parametrize("slices", [6, 3, 2, 1])
def test_mppca_finds_the_noise_and_takes_it_out(slices):
    clean = decays((12, 10, slices))
    denoised, sigma = denoise_mppca(noisy(clean))
    assert denoised.dtype == sigma.dtype == np.float32
    assert np.median(sigma) == pytest.approx(SIGMA, rel=0.15)
    assert error(denoised, clean) < 0.7 * SIGMA


def test_corners_are_denoised_too():
    clean = decays()
    denoised, sigma = denoise_mppca(noisy(clean))
    corners = np.ix_([0, -1], [0, -1], [0, -1])
    assert error(denoised, clean, corners) < 0.85 * SIGMA
    assert sigma[corners] == pytest.approx(SIGMA, rel=0.3)


def test_mppca_leaves_data_without_noise():
    clean = decays()
    denoised, sigma = denoise_mppca(clean.astype(np.float32))
    assert denoised == pytest.approx(clean, rel=1e-3)
    assert sigma.max() < 0.01


def test_slabs_give_what_the_whole_gives(monkeypatch):
    image = noisy(decays((26, 8, 5)))
    mask = np.random.default_rng(1).random(image.shape[:3]) < 0.5
    slabs = []
    monkeypatch.setattr(denoising, "SLAB_WIDTH", 6.0)
    whole = denoise_mppca(image, mask, progress=slabs.append)
    assert slabs == [1.0]
    monkeypatch.setattr(denoising, "SLAB_WIDTH", 0.5)
    parts = denoise_mppca(image, mask, progress=slabs.append)
    assert len(slabs) > 5
    for part, all_at_once in zip(parts, whole, strict=True):
        assert part == pytest.approx(all_at_once, rel=1e-5)


@pytest.mark.parametrize(
    ("shape", "radius"), [((12, 10, 6), (2, 2, 2)), ((9, 8, 1), (2, 2, 0)), ((10, 6, 5), (1, 1, 0))]
)
def test_patches_on_every_voxel_give_what_dipy_gives(shape, radius):
    """Also with fewer voxels in a patch than volumes."""
    image = noisy(decays(shape))
    expected, level = mppca(image, patch_radius=np.array(radius), return_sigma=True, suppress_warning=True)
    denoised, sigma = denoise_mppca(image, radius=radius, every_voxel=True)
    assert denoised == pytest.approx(expected, abs=0.01 * SIGMA)
    assert sigma == pytest.approx(level, rel=1e-3)


def test_a_volume_that_is_the_same_everywhere_stays_so():
    clean = decays()
    image = noisy(clean)
    image[..., 3] = clean[..., 3] = 250
    image[:, :6, :, 5] = clean[:, :6, :, 5] = 0
    denoised, sigma = denoise_mppca(image)
    assert denoised[..., 3] == pytest.approx(250, abs=0.01)
    assert error(denoised, clean) < SIGMA
    assert np.isfinite(sigma).all()


@pytest.mark.parametrize("shape", [(24, 22, 9), (24, 22, 2)])
def test_a_quarter_of_the_patches_does_nearly_as_well(shape):
    clean = decays(shape)
    image = noisy(clean)
    mask = np.zeros(shape, dtype=bool)
    mask[3:20, 2:18] = True
    few, sigma = denoise_mppca(image, mask)
    many, full_sigma = denoise_mppca(image, mask, every_voxel=True)
    assert error(few, clean, mask) < 1.02 * error(many, clean, mask)
    assert error(sigma, SIGMA, mask) < 1.15 * error(full_sigma, SIGMA, mask)
    assert np.isfinite(few).all()
    assert (sigma[mask] > 0).all()


def test_processes_give_what_one_gives():
    image = noisy(decays())
    done = []
    alone, shared = denoise_mppca(image), denoise_mppca(image, threads=2, progress=done.append)
    assert np.array_equal(alone[0], shared[0])
    assert np.array_equal(alone[1], shared[1])
    assert done[-1] == 1.0
    assert done == sorted(done)


@pytest.mark.parametrize("denoise", [lambda *args: denoise_mppca(*args)[0], denoise_patch2self])
def test_voxels_outside_the_mask_keep_their_values(denoise):
    clean = decays((20, 10, 6))
    image = noisy(clean)
    mask = np.zeros(image.shape[:3], dtype=bool)
    mask[:10] = True
    before = image.copy()
    denoised = denoise(image, mask)
    assert np.array_equal(denoised[~mask], image[~mask])
    assert error(denoised, clean, mask) < 0.75 * SIGMA
    assert np.array_equal(image, before)


@pytest.mark.parametrize("denoise", [lambda image: denoise_mppca(image)[0], denoise_patch2self])
def test_gaps_stay_gaps_and_harm_no_neighbour(denoise):
    clean = decays((20, 10, 6))
    image = noisy(clean)
    image[4, 4, 3, 2], image[5, 5, 3, 4], image[15:] = np.nan, np.inf, 0
    denoised = denoise(image)
    assert np.array_equal(denoised[4, 4, 3], image[4, 4, 3], equal_nan=True)
    assert np.array_equal(denoised[5, 5, 3], image[5, 5, 3])
    assert not denoised[15:].any()
    good = np.isfinite(image).all(axis=-1)
    good[15:] = False
    assert np.isfinite(denoised[good]).all()
    assert error(denoised, clean, good) < 0.8 * SIGMA


def test_an_empty_image_comes_back():
    denoised, sigma = denoise_mppca(np.zeros((8, 8, 5, 10), dtype=np.float32))
    assert not denoised.any()
    assert not sigma.any()


def test_negative_values_are_not_cut_off():
    image = noisy(np.zeros((10, 10, 5, 12)))
    denoised, _ = denoise_mppca(image)
    assert denoised.mean() == pytest.approx(image.mean(), abs=0.1)
    assert denoised.min() < 0


def test_refusals():
    with pytest.raises(ValueError, match="mask's shape"):
        denoise_mppca(np.ones((8, 8, 5, 10)), np.ones((8, 8, 4), dtype=bool))
    with pytest.raises(ValueError, match="shape"):
        denoise_mppca(np.ones((8, 8, 5)))
    with pytest.raises(ValueError, match="wider than the image"):
        denoise_mppca(np.ones((8, 8, 5, 10)), radius=(2, 2, 3))


@pytest.mark.parametrize("shape", [(12, 10, 6), (30, 24, 1), (1, 24, 30)])
def test_patch2self_takes_noise_out_of_every_volume(shape):
    clean = decays(shape)
    denoised = denoise_patch2self(noisy(clean))
    assert denoised.dtype == np.float32
    errors = np.sqrt(np.mean((denoised - clean) ** 2, axis=(0, 1, 2)))
    assert errors.max() < 0.9 * SIGMA
    assert (denoised - clean).mean(axis=(0, 1, 2)) == pytest.approx(0, abs=SIGMA / 5)


def test_patch2self_leaves_data_without_noise():
    clean = decays()
    assert denoise_patch2self(clean.astype(np.float32)) == pytest.approx(clean, rel=5e-3)


@pytest.mark.parametrize(
    ("shape", "words"), [((64, 64, 20, 9), "needs 10 volumes"), ((5, 5, 1, 20), "10 voxels for each of the 20")]
)
def test_obstacles_to_patch2self_are_said(shape, words):
    assert words in obstacle_to_patch2self(shape)
    with pytest.raises(ValueError, match=words):
        denoise_patch2self(np.ones(shape, dtype=np.float32))
    assert obstacle_to_patch2self((64, 64, 20, 30)) == ""
