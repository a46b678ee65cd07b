"""Tissues of a simulated head, moved by a known motion, and brought back to the grid of its diffusion image."""

from collections import namedtuple

import numpy as np
import pytest
from scipy.ndimage import binary_dilation
from scipy.spatial.transform import Rotation

from bidsfit.phantom.head import draw_tissue
from bidsfit.phantom.tissue import TISSUES as PHANTOM
from bidsfit.preprocessing.tissue import (
    OTHER,
    TISSUES,
    about,
    check_alignment,
    classify_tissue,
    dominant_tissue,
    fractions_on_grid,
    mutual_information,
    register_to_diffusion,
    resample,
    tissue_of_freesurfer,
)

#: Fine grid of the head and its voxels (mm); voxels of the diffusion image are twice as long.
SHAPE, VOXEL = (64, 64, 36), 3.75

T1W = {"GM": 0.7, "WM": 1.0, "CSF": 0.3}
B0 = {"GM": 0.5, "WM": 0.35, "CSF": 1.0}

Simulated = namedtuple("Simulated", "t1w t1w_affine tissue reference affine mask fractions")


def simulate(motion, slices=slice(None), seed=0, snr=20):
    """A T1-weighted head with its skin, moved, and the image at b = 0 of the same head, of opposite contrast."""
    rng = np.random.default_rng(seed)
    phantom = draw_tissue(SHAPE, VOXEL, rng)
    tissue = np.zeros(SHAPE, dtype=np.uint8)
    t1w, b0 = np.zeros(SHAPE), np.zeros(SHAPE)
    for name, number in TISSUES.items():
        where = phantom == PHANTOM[name]
        tissue[where], t1w[where], b0[where] = number, T1W[name], B0[name]
    skull = binary_dilation(tissue > 0, iterations=2)
    t1w[binary_dilation(skull, iterations=2) & ~skull] = 1.2
    t1w += rng.normal(0, 1 / snr, SHAPE)
    affine = np.diag([VOXEL] * 3 + [1.0])
    affine[:3, 3] = -VOXEL * (np.array(SHAPE) - 1) / 2
    coarse = np.diag([2.0, 2, 2, 1])
    coarse[:3, 3] = 0.5
    coarse[2, 3] += 2 * (slices.start or 0)
    reference = in_pairs(b0)[:, :, slices]
    reference = np.abs(reference + rng.normal(0, 0.5 / snr, reference.shape))
    fractions = [in_pairs(tissue == number)[:, :, slices] for number in TISSUES.values()]
    fractions = np.stack([*fractions, np.zeros_like(reference)], axis=-1)
    return Simulated(t1w, motion @ affine, tissue, reference, affine @ coarse, fractions.sum(axis=-1) > 0.5, fractions)


def in_pairs(volume):
    """Means over two voxels along each axis."""
    x, y, z = (n // 2 for n in volume.shape)
    return volume.reshape(x, 2, y, 2, z, 2).mean(axis=(1, 3, 5))


def moved(angles=(0, 0, 0), shift=(0, 0, 0)):
    motion = about(np.zeros(3), angles)
    motion[:3, 3] = shift
    return motion


def errors(found, truth):
    """Of a motion: mm, at most, 60 mm from the middle of the head; and degrees."""
    points = 60 * np.vstack([np.eye(3), -np.eye(3)])
    apart = (found - truth)[:3, :3] @ points.T + (found - truth)[:3, 3:]
    rotation = Rotation.from_matrix((np.linalg.inv(truth) @ found)[:3, :3])
    return np.linalg.norm(apart, axis=0).max(), np.degrees(rotation.magnitude())


def dice(first, second):
    return 2 * np.sum(first & second) / (first.sum() + second.sum())


# --- from the anatomical image to the diffusion image ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("motion", "slices", "most"),
    [
        (moved(), slice(None), (0.1, 0.1)),
        (moved((18, 6, -8), (40, -30, 20)), slice(None), (0.1, 0.1)),
        (moved((3, -2, 4), (3, -4, 2)), slice(8, 11), (0.6, 0.6)),
    ],
    ids=["where the header says", "large", "slab"],
)
def test_a_known_motion_is_found_and_tissues_lie_where_they_are(motion, slices, most):
    head = simulate(motion, slices)
    found = register_to_diffusion(head.t1w, head.t1w_affine, head.reference, head.affine, head.mask)
    assert np.all(np.array(errors(found, motion)) < most)
    fractions = fractions_on_grid(head.tissue, head.t1w_affine, found, head.reference.shape, head.affine)
    tissue, truth = dominant_tissue(fractions), dominant_tissue(head.fractions)
    for name in ("WM", "GM"):
        assert dice(tissue == TISSUES[name], truth == TISSUES[name]) > 0.98
    check = check_alignment(
        found, head.t1w, head.t1w_affine, head.reference, head.affine, head.mask, fractions.sum(axis=-1) > 0.5
    )
    assert check.failed is None
    assert check.gain > 1.8
    assert check.overlap > 0.98


def test_motion_is_stated():
    motion = moved((0, 6, 0), (0, 8, 0))
    head = simulate(motion)
    check = check_alignment(motion, head.t1w, head.t1w_affine, head.reference, head.affine, head.mask)
    assert check.rotation == pytest.approx(6)
    assert check.shift == pytest.approx(8, abs=0.2)  # at the middle of the brain, not of the image
    assert check.overlap is None


def test_a_head_that_is_not_there_is_noticed():
    head = simulate(moved())
    noise = np.random.default_rng(1).normal(1, 0.1, SHAPE)
    found = register_to_diffusion(noise, head.t1w_affine, head.reference, head.affine, head.mask)
    check = check_alignment(found, noise, head.t1w_affine, head.reference, head.affine, head.mask)
    assert check.gain < 1.25
    assert "expected at least" in check.failed


@pytest.mark.parametrize("motion", [moved((30, 0, 0)), moved(shift=(0, 0, 25))], ids=["turned", "shifted"])
def test_a_slab_far_from_where_its_header_says_is_found_or_that_is_noticed(motion):
    """Other parts of the head look much like it."""
    head = simulate(motion, slice(8, 11))
    found = register_to_diffusion(head.t1w, head.t1w_affine, head.reference, head.affine, head.mask)
    check = check_alignment(found, head.t1w, head.t1w_affine, head.reference, head.affine, head.mask)
    assert bool(check.failed) != bool(np.all(np.array(errors(found, motion)) < 0.6))


def test_one_slice():
    motion = moved((2, -1, 2), (2, -2, 1))
    head = simulate(motion, slice(9, 10))
    found = register_to_diffusion(head.t1w, head.t1w_affine, head.reference, head.affine, head.mask)
    check = check_alignment(found, head.t1w, head.t1w_affine, head.reference, head.affine, head.mask)
    assert bool(check.failed) != bool(np.all(np.array(errors(found, motion)) < 2))


def test_a_slab_outside_is_refused():
    head = simulate(moved(shift=(0, 0, 200)), slice(8, 11))
    with pytest.raises(ValueError, match="a slab of 22 mm that lies outside the T1-weighted image"):
        register_to_diffusion(head.t1w, head.t1w_affine, head.reference, head.affine, head.mask)


def test_brains_that_do_not_overlap_are_noticed():
    head = simulate(moved())
    brain = np.roll(head.mask, 20, axis=0)
    check = check_alignment(np.eye(4), head.t1w, head.t1w_affine, head.reference, head.affine, head.mask, brain)
    assert "the two brains overlap by" in check.failed


@pytest.mark.parametrize("empty", ["t1w", "reference", "mask"])
def test_nothing_to_align(empty):
    head = simulate(moved())
    head = head._replace(**{empty: np.zeros_like(getattr(head, empty))})
    with pytest.raises(ValueError, match="has no contrast"):
        register_to_diffusion(head.t1w, head.t1w_affine, head.reference, head.affine, head.mask)


def test_mutual_information():
    rng = np.random.default_rng(0)
    first, second = rng.random(50_000), rng.random(50_000)
    assert mutual_information(first, 1 - first) == pytest.approx(2)
    assert mutual_information(first, second) == pytest.approx(1, abs=0.005)
    assert mutual_information(first, np.ones(50_000)) == pytest.approx(1)


# --- tissues in the anatomical image ---------------------------------------------------------------------------------


def test_tissues_are_told_apart():
    head = simulate(moved())
    found = classify_tissue(head.t1w * 700, head.tissue > 0)
    for number in TISSUES.values():
        assert dice(found == number, head.tissue == number) > 0.98
    assert not found[head.tissue == 0].any()


def test_tissues_are_told_apart_where_the_coil_is_brighter_on_one_side():
    head = simulate(moved())
    x, y = np.linspace(-1, 1, SHAPE[0])[:, None, None], np.linspace(-1, 1, SHAPE[1])[:, None]
    found = classify_tissue(head.t1w * np.exp(0.15 * x + 0.1 * y**2), head.tissue > 0)
    for name in ("WM", "GM"):
        assert dice(found == TISSUES[name], head.tissue == TISSUES[name]) > 0.95


@pytest.mark.parametrize("size", [0, 40])
def test_no_contrast(size):
    mask = np.zeros((8, 8, 8), dtype=bool)
    mask.flat[:size] = True
    with pytest.raises(ValueError, match=f"no contrast inside its mask of {size} voxels"):
        classify_tissue(np.ones((8, 8, 8)), mask)


def test_numbers_of_freesurfer():
    expected = {
        "WM": (2, 41, 7, 46, 251, 255, 3001, 4035),
        "GM": (3, 42, 8, 10, 17, 53, 58, 1000, 2035, 11101, 12175),
        "CSF": (4, 43, 14, 15, 24),
    }
    for name, numbers in expected.items():
        assert set(tissue_of_freesurfer(np.array(numbers))) == {TISSUES[name]}
    assert set(tissue_of_freesurfer(np.array((16, 28, 31, 77, 85)))) == {OTHER}
    assert tissue_of_freesurfer(np.zeros(3)).tolist() == [0, 0, 0]


# --- from fine voxels to coarse ones ---------------------------------------------------------------------------------


def test_fractions_are_what_a_voxel_holds():
    head = simulate(moved())
    found = fractions_on_grid(head.tissue, head.t1w_affine, np.eye(4), head.reference.shape, head.affine)
    np.testing.assert_allclose(found, head.fractions, atol=1e-6)


def test_fractions_of_voxels_that_do_not_divide():
    """A plane between two tissues, 2.3 mm voxels over 1 mm ones; anisotropic and turned over."""
    source = np.full((30, 30, 30), TISSUES["GM"])
    source[15:] = TISSUES["WM"]  # from x = 14.5 mm
    affine = np.array([[-2.3, 0, 0, 27], [0, 2.3, 0, 2], [0, 0, 4.0, 4], [0, 0, 0, 1]])
    found = fractions_on_grid(source, np.eye(4), np.eye(4), (11, 10, 6), affine)
    x = 27 - 2.3 * np.arange(11)
    expected = np.clip((x + 1.15 - 14.5) / 2.3, 0, 1)
    np.testing.assert_allclose(found[:, 5, 3, 1], expected, atol=0.2)
    np.testing.assert_allclose(found[..., :2].sum(axis=-1), 1, atol=1e-6)


def test_fractions_of_probabilities():
    source = np.zeros((12, 12, 12, 3))
    source[..., 0], source[..., 1] = 0.25, 0.75
    affine = np.diag([2.0, 2, 2, 1])
    affine[:3, 3] = 2.5
    found = fractions_on_grid(source, np.eye(4), np.eye(4), (3, 3, 3), affine)
    np.testing.assert_allclose(found[1, 1, 1], (0.25, 0.75, 0, 0))


def test_voxels_of_several_tissues_belong_to_none():
    fractions = np.array([(0.8, 0.2, 0, 0), (0.6, 0.4, 0, 0), (0.1, 0.75, 0.1, 0), (0.4, 0, 0, 0), (0, 0, 0, 0.9)])
    assert dominant_tissue(fractions).tolist() == [TISSUES["GM"], OTHER, TISSUES["WM"], 0, OTHER]
    assert dominant_tissue(fractions, purity=0.5).tolist() == [TISSUES["GM"], TISSUES["GM"], TISSUES["WM"], 0, OTHER]


def test_resampling_follows_a_motion():
    x = np.arange(20.0)
    image = x[:, None, None] * np.ones((20, 20, 20))
    shift = moved(shift=(3, 0, 0))
    found = resample(image, np.eye(4), shift, (5, 5, 5), np.diag([2.0, 2, 2, 1]))
    np.testing.assert_allclose(found[:, 2, 2], 3 + 2 * np.arange(5))
