"""Masks of shapes that are known, and of real heads."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy.ndimage import binary_erosion

from bidsfit.acquisition import Acquisition
from bidsfit.preprocessing.masking import body, half_median_mask, head_mask, tissue_shell

DATA = Path(__file__).resolve().parents[2].parent / "shared" / "data"

VOXEL = (4.0, 4.0, 4.0)

needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="the real datasets are not beside the project")


def dice(one, other):
    return 2 * (one & other).sum() / (one.sum() + other.sum())


def noisy(*images, sigma=5, seed=0):
    rng = np.random.default_rng(seed)
    return [np.hypot(image + rng.normal(0, sigma, image.shape), rng.normal(0, sigma, image.shape)) for image in images]


def head(shape=(44, 48, 30)):
    """A brain with bright fluid around and within it, scalp, and two eyes: its images, the truth and the eyes.

    Without diffusion weighting grey and white matter have 100 and fluid and eyes 400; with it they have 50 and 10.
    """
    x, y, z = np.indices(shape) - np.reshape((21.5, 23.5, 14.5), (3, 1, 1, 1))
    radius = np.sqrt(x**2 + y**2 + (1.4 * z) ** 2)
    brain, scalp, ventricle = radius < 16, (radius > 19) & (radius < 20.5), np.sqrt(x**2 + y**2 + z**2) < 4
    eyes = np.hypot(np.hypot(abs(x) - 7, y + 18), z) < 3.6
    fluid = (radius >= 15) & brain | ventricle
    images = (
        np.select([fluid | eyes, brain, scalp], [400.0, 100, 60]),
        np.select([fluid, brain, scalp], [10.0, 50, 20]),
    )
    return noisy(*images), brain, eyes & ~brain


def real(dataset, run=""):
    """Mean images of the lowest b-value and of that nearest to 1000 s/mm², and the size of a voxel."""
    path = next((DATA / dataset).glob(f"sub-*/dwi/*{run}_dwi.nii.gz"))
    image = nib.load(path)
    acquisition = Acquisition(np.loadtxt(path.with_name(path.name.replace(".nii.gz", ".bval"))))
    shells = acquisition.shells[0], tissue_shell(acquisition)
    data = image.get_fdata(dtype=np.float32)
    return *(data[..., shell.indices].mean(axis=-1) for shell in shells), image.header.get_zooms()[:3]


def reference_mask(dataset, run=""):
    return nib.load(next((DATA / dataset / "derivatives").rglob(f"sub-*{run}_*mask.nii.gz"))).get_fdata() > 0


def trunk(shape=(40, 30, 4)):
    """An ellipse of 100 in noise of 5, and the voxels it fills."""
    x, y, _ = np.meshgrid(*(np.linspace(-1, 1, side) for side in shape), indexing="ij")
    inside = (x / 0.8) ** 2 + (y / 0.7) ** 2 < 1
    return np.where(inside, 100.0, 0.0) + abs(np.random.default_rng(0).normal(0, 5, shape)), inside


def test_the_brain_is_found_whole_and_alone():
    """Fluid at its rim and within it belongs to it; eyes and scalp do not, and nothing speaks against the mask."""
    (unweighted, weighted), brain, eyes = head()
    found = head_mask(unweighted, weighted, VOXEL)
    assert dice(found.mask, brain) > 0.97
    assert (found.mask & eyes).sum() < 0.05 * eyes.sum()
    assert found.doubt == ""


def test_holes_are_filled_islands_dropped():
    """A dark interior that reaches the first and the last slice, as thalamus does in a slab."""
    image, inside = trunk()
    image[12:28, 10:20] = 5.0
    image[1:3, 1:3] = 100.0
    found = head_mask(image, image, VOXEL)
    assert found.mask[12:28, 10:20].all()
    assert not found.mask[:5, :4].any()
    assert dice(found.mask, inside) > 0.98


def test_lengths_scale_with_the_head():
    (unweighted, weighted), *_ = head()
    sizes = [tuple(scale * side for side in VOXEL) for scale in (0.05, 1)]
    small, large = (head_mask(unweighted, weighted, size).mask for size in sizes)
    assert np.array_equal(small, large)


@pytest.mark.parametrize("find", [lambda image: head_mask(image, image, VOXEL), body])
def test_no_contrast_is_no_mask(find):
    with pytest.raises(ValueError, match="no contrast"):
        find(np.ones((20, 20, 3)))


def test_unknown_voxels_are_not_in_the_mask():
    image, _ = trunk()
    image[20, 15, 2] = np.nan
    for mask in (head_mask(image, image, VOXEL).mask, half_median_mask(image)):
        assert not mask[20, 15, 2]
        assert mask[20, 16, 2]


def test_no_data_around_a_head():
    """Every voxel of a head that was cut out is kept, and none beside it."""
    image, inside = trunk()
    image[~inside] = np.nan
    found = head_mask(image, image, VOXEL)
    assert np.array_equal(found.mask, inside)
    assert found.doubt == ""


def test_images_that_disagree_are_doubtful():
    """Where diffusion weighting leaves nothing but noise, the mask is that of the other images."""
    (unweighted, _), brain, _ = head()
    noise = noisy(np.zeros(brain.shape))[0]
    found = head_mask(unweighted, noise, VOXEL)
    assert "because those with it show something else" in found.doubt
    assert np.array_equal(found.mask, head_mask(unweighted, unweighted, VOXEL).mask)


def test_little_that_stays_bright_is_doubtful():
    """Muscle around a cord, say."""
    (unweighted, weighted), *_ = head()
    weighted[:, :32] = weighted[0, 0, 0]
    assert "unlike a head's" in head_mask(unweighted, weighted, VOXEL).doubt


def test_several_heads_are_doubtful():
    (unweighted, weighted), *_ = head()
    twice = [np.concatenate([image, image]) for image in (unweighted, weighted)]
    assert "largest of several parts, with 50 % of their volume" in head_mask(*twice, VOXEL).doubt


def test_a_mask_that_was_mostly_holes_is_doubtful():
    x, y, _ = np.indices((40, 40, 8)) - 19.5
    ring = noisy(np.where(abs(np.hypot(x, y) - 14) < 3, 100.0, 0.0))[0]
    assert "had holes, now filled, that make up 4" in head_mask(ring, ring, VOXEL).doubt


def test_a_head_that_is_cut_off_is_doubtful():
    (unweighted, weighted), *_ = head()
    cut = np.s_[12:32, 12:36]
    assert "of the sides of the image" in head_mask(unweighted[cut], weighted[cut], VOXEL).doubt


def test_more_than_a_brain_is_doubtful():
    (unweighted, weighted), *_ = head()
    assert "ml, which no brain has" in head_mask(unweighted, weighted, (8.0, 8.0, 8.0)).doubt


@needs_data
def test_two_slices_of_a_brain():
    *images, voxel_size = real("ds-brain-2shell")
    found = head_mask(*images, voxel_size)
    assert dice(found.mask, reference_mask("ds-brain-2shell")) > 0.95
    assert found.doubt == ""


@needs_data
def test_a_whole_brain():
    """With the cerebellum (slices 4 to 9), without eyes, neck and scalp."""
    unweighted, weighted, voxel_size = real("ds-brain-1shell")
    found = head_mask(unweighted, weighted, voxel_size)
    assert 1150 < found.mask.sum() * np.prod(voxel_size) / 1000 < 1300
    assert found.mask[33, 20, 4:29].mean() > 0.9
    cerebellum = weighted[18:46, 10:38, 4:8] > 260
    assert found.mask[18:46, 10:38, 4:8][cerebellum].mean() > 0.95
    eyes = unweighted[:, 46:, 10:16] > 1500
    assert eyes.sum() > 80
    assert found.mask[:, 46:, 10:16][eyes].mean() < 0.1
    assert not found.mask[:, :, [0, 1, 34, 35]].any()
    assert found.doubt == ""


@needs_data
@pytest.mark.parametrize("run", ["run-1", "run-2", "run-3"])
def test_a_bottle_of_water(run):
    """All of the water: what came as its mask is that, less three voxels on every side."""
    *images, voxel_size = real("ds-water", run)
    found = head_mask(*images, voxel_size)
    inner = binary_erosion(found.mask, iterations=3)
    assert dice(inner, reference_mask("ds-water", run)) > 0.98
    assert found.doubt == ""


def test_dark_voxels_of_a_body_are_left_out_and_stay_out():
    image, inside = trunk()
    image[18:22, 13:17] = 49.0  # below half the median, above air
    image[25, 15] = 60.0
    mask = half_median_mask(image)
    assert not mask[18:22, 13:17].any()
    assert mask[25, 15].all()
    assert not mask[~inside].any()
    rest = inside.copy()
    rest[18:22, 13:17] = False
    assert mask[rest].all()


def test_the_median_is_that_of_the_region():
    image, inside = trunk()
    organ = np.zeros(image.shape, dtype=bool)
    organ[10:20, 10:20] = True
    image[10:20, 10:20] = 30.0
    image[12, 12] = 14.9
    image[13, 13] = 15.0
    mask = half_median_mask(image, organ)
    assert not mask[12, 12].any()
    assert mask.sum() == organ.sum() - image.shape[2]
    assert not half_median_mask(image)[organ].any()
    assert inside[organ].all()


def test_body_keeps_holes_and_large_parts_only():
    image, inside = trunk()
    image[18:22, 13:17] = 0
    image[0, 0, 0] = 100.0
    found = body(image)
    assert found[18:22, 13:17].all()
    assert not found[0, 0, 0]
    assert np.array_equal(found, inside)
    legs = np.zeros((40, 30, 2))
    legs[5:15, 10:20] = legs[25:35, 10:20] = 100.0
    assert np.array_equal(body(legs), legs > 0)


def test_refusals():
    image, _ = trunk()
    with pytest.raises(ValueError, match="shape"):
        half_median_mask(image, np.ones((2, 2, 2), dtype=bool))
    with pytest.raises(ValueError, match="no voxel"):
        half_median_mask(image, np.zeros(image.shape, dtype=bool))
    with pytest.raises(ValueError, match="must be positive"):
        half_median_mask(-image, np.ones(image.shape, dtype=bool))
