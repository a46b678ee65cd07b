"""Organs that move with the breath are brought to where they lie on average, and those that lie still stay there."""

import numpy as np
import pytest
from scipy.ndimage import binary_dilation, gaussian_filter, map_coordinates

from bidsfit.phantom.cohort import Cohort
from bidsfit.phantom.imperfections import NONE, Imperfections
from bidsfit.preprocessing.breathing import (
    contrasts,
    estimate_breathing,
    obstacle_to_breathing,
)
from bidsfit.preprocessing.resampling import resample

#: Largest and smallest b-values as often as an ADC protocol has them.
B_VALUES = np.repeat([0.0, 50.0, 400.0, 800.0], 4)


def abdomen(breathing, **options):
    """A scan of an abdomen, where volumes are compared, and the true displacements in voxels, (n, 3, x, y, z)."""
    imperfections = Imperfections(breathing=breathing) if breathing else NONE
    cohort = Cohort(
        "adc", n_healthy=1, n_patients=0, shape=(40, 32, 12), anatomy="abdomen", imperfections=imperfections, **options
    )
    (person,) = cohort.participants()
    truth = cohort.truth(person, 1)
    n = len(cohort.acquisition)
    moved = np.stack([truth.deformation(k) for k in range(n)]) if breathing else np.zeros((n, 3, 40, 32, 12))
    region = binary_dilation(person.head.mask, iterations=3)
    return cohort.scan(person, 1), truth.affine, cohort.acquisition.b_values, region, person.head.tissue == 1, moved


def organ(shape, b_values, depth, diffusivity=1e-3, noise=4.0, seed=0):
    """An organ with texture, of one diffusivity, that bends within its slices; its mask, and the displacements."""
    rng = np.random.default_rng(seed)
    grid = np.indices(shape, dtype=float)
    texture = gaussian_filter(rng.standard_normal(shape), [2.5, 2.5, 0])
    radius = np.hypot(*[(grid[i] - (shape[i] - 1) / 2) / (0.38 * shape[i]) for i in range(2)])
    image = gaussian_filter(np.where(radius < 1, 400 + 150 * texture / texture.std(), 0).clip(0), [0.8, 0.8, 0])
    pattern = np.zeros((3, *shape))
    pattern[0] = np.sin(2 * np.pi * grid[1] / shape[1] + rng.uniform(0, 6))
    pattern[1] = np.sin(2 * np.pi * grid[0] / shape[0] + rng.uniform(0, 6))
    volumes = [
        np.exp(-b * diffusivity) * map_coordinates(image, grid - d * pattern, order=3, mode="nearest")
        for b, d in zip(b_values, depth, strict=True)
    ]
    data = np.stack(volumes, axis=-1) + noise * rng.standard_normal((*shape, len(b_values)))
    return data.clip(0).astype(np.float32), radius < 0.8, depth[:, None, None, None, None] * pattern


def apart(found, moved, where):
    """Root mean square of what is left of a displacement, voxels."""
    left = found.depth[:, None, None, None, None] * found.pattern - moved
    return np.sqrt((left[:, :, where] ** 2).sum(axis=1).mean())


def adc_error(data, b_values, where, diffusivity=1e-3):
    slope = np.polyfit(b_values, np.log(np.maximum(data[where], 1)).T, 1)[0]
    return np.sqrt(np.mean((-slope - diffusivity) ** 2))


def test_the_breath_of_an_abdomen_is_found():
    """More than half of the displacement of the liver, and every depth nearly."""
    data, affine, b_values, region, liver, moved = abdomen(15.0, snr=20)
    found = estimate_breathing(data, affine, b_values, region)
    assert apart(found, moved, liver) < 0.5 * np.sqrt((moved[:, :, liver] ** 2).sum(axis=1).mean())
    depth = moved[:, 2][:, liver].mean(axis=1)
    assert abs(np.corrcoef(depth, found.depth)[0, 1]) > 0.95
    assert found.depth.mean() == pytest.approx(0, abs=1e-9)


def test_organs_that_lie_still_are_not_moved():
    data, affine, b_values, region, *_ = abdomen(0.0, snr=20)
    found = estimate_breathing(data, affine, b_values, region)
    assert not found.depth.any()
    assert not found.pattern.any()


@pytest.mark.parametrize(("shape", "left"), [((48, 48, 1), 0.5), ((40, 40, 8), 0.8)])
def test_an_organ_that_bends_is_undone(shape, left):
    """The error of ADC falls, to less than half in a single slice; much of it is noise."""
    depth = np.random.default_rng(1).standard_normal(B_VALUES.size)
    data, inside, moved = organ(shape, B_VALUES, 1.5 * (depth - depth.mean()))
    affine = np.diag([4.0, 4.0, 6.0, 1.0])
    found = estimate_breathing(data, affine, B_VALUES, binary_dilation(inside, iterations=6))
    assert apart(found, moved, inside) < 0.5 * np.sqrt((moved[:, :, inside] ** 2).sum(axis=1).mean())
    undone = found.undone(data)
    seen = inside & undone.covered
    assert seen.sum() > 0.9 * inside.sum()
    assert adc_error(undone.data, B_VALUES, seen) < left * adc_error(data, B_VALUES, seen)


def test_depths_that_go_with_b_are_found_where_others_are_too():
    """A breath that is the deeper the larger b: that part is three quarters of the displacement."""
    rng = np.random.default_rng(1)
    depth = np.repeat([-1.5, -0.5, 0.5, 1.5], 4) + rng.standard_normal(B_VALUES.size)
    data, inside, moved = organ((48, 48, 1), B_VALUES, depth - depth.mean())
    found = estimate_breathing(data, np.diag([4.0, 4.0, 6.0, 1.0]), B_VALUES, binary_dilation(inside, iterations=6))
    assert apart(found, moved, inside) < 0.55 * np.sqrt((moved[:, :, inside] ** 2).sum(axis=1).mean())


def test_lengths_scale_with_what_is_imaged():
    """A mouse's organ is found as well as a man's."""
    depth = np.random.default_rng(1).standard_normal(B_VALUES.size)
    data, inside, _ = organ((48, 48, 1), B_VALUES, 1.5 * depth)
    region = binary_dilation(inside, iterations=6)
    large, small = (estimate_breathing(data, np.diag([s, s, s, 1.0]), B_VALUES, region) for s in (0.2, 0.02))
    np.testing.assert_allclose(small.pattern, large.pattern, rtol=1e-5, atol=1e-6)
    assert large.depth.any()


def test_an_oblique_image_moves_along_its_own_axes():
    depth = np.random.default_rng(1).standard_normal(B_VALUES.size)
    data, inside, _ = organ((48, 48, 1), B_VALUES, 1.5 * depth)
    region, turn = binary_dilation(inside, iterations=6), np.eye(4)
    turn[:2, :2] = [[0.8, -0.6], [0.6, 0.8]]
    straight, oblique = (
        estimate_breathing(data, matrix @ np.diag([4.0, 4.0, 6.0, 1.0]), B_VALUES, region)
        for matrix in (np.eye(4), turn)
    )
    np.testing.assert_allclose(oblique.pattern, straight.pattern, rtol=1e-5, atol=1e-6)
    world = turn[:3, :3] @ straight.world(np.diag([4.0, 4.0, 6.0, 1.0]), inside)
    np.testing.assert_allclose(oblique.world(turn @ np.diag([4.0, 4.0, 6.0, 1.0]), inside), world, atol=1e-4)


def test_a_distortion_is_undone_in_the_same_interpolation():
    """The pattern of a distorted image is that of the image without distortion."""
    depth = np.random.default_rng(1).standard_normal(B_VALUES.size)
    data, inside, _ = organ((48, 48, 1), B_VALUES, 1.5 * depth)
    shift = np.full(data.shape[:3], 2.0)
    distorted = np.roll(data, 2, axis=1)
    region, affine = binary_dilation(inside, iterations=6), np.diag([4.0, 4.0, 6.0, 1.0])
    undistorted = resample(distorted, affine, np.tile(np.eye(4), (B_VALUES.size, 1, 1)), shift, 1).data
    found = estimate_breathing(undistorted, affine, B_VALUES, region)
    plain = estimate_breathing(data, affine, B_VALUES, region)
    np.testing.assert_allclose(found.pattern[:, inside], plain.pattern[:, inside], atol=0.02)
    there, here = found.undone(distorted, shift, 1), plain.undone(data)
    np.testing.assert_allclose(there.data[inside], here.data[inside], atol=0.03 * data.max())


def test_signals_of_any_mixture_are_contrast():
    """What a mixture of tissues does with b is taken for contrast, within two per cent of its size."""
    b = np.array([0, 0, 10, 20, 40, 80, 150, 200, 400, 600, 800.0])
    columns = contrasts(b)
    np.testing.assert_allclose(columns.T @ columns, np.eye(columns.shape[1]), atol=1e-12)
    signals = 0.7 * np.exp(-b * 1.1e-3) + 0.3 * np.exp(-b * 3e-2)
    left = signals - columns @ (columns.T @ signals)
    assert np.linalg.norm(left) < 0.02 * np.linalg.norm(signals)


@pytest.mark.parametrize(("b_values", "told"), [([0, 400, 800], "3 volumes"), ([0, 0, 0, 400, 400, 800, 800], "")])
def test_too_few_volumes_do_not_tell(b_values, told):
    assert obstacle_to_breathing(b_values).startswith(told)
    assert bool(obstacle_to_breathing(b_values)) is bool(told)


def test_an_obstacle_is_an_error():
    with pytest.raises(ValueError, match="cannot be found: 3 volumes"):
        estimate_breathing(np.ones((16, 16, 4, 3)), np.eye(4), [0, 400, 800], np.ones((16, 16, 4), dtype=bool))


@pytest.mark.parametrize("value", [0.0, 100.0])
def test_an_image_without_anything_in_it_is_not_moved(value):
    data = np.full((16, 16, 4, 8), value)
    b_values = np.repeat([0.0, 800.0], 4)
    found = estimate_breathing(data, np.eye(4), b_values, np.ones(data.shape[:3], dtype=bool))
    assert not found.depth.any()
    np.testing.assert_array_equal(found.undone(data).data, data)


def test_progress_ends_at_one():
    seen = []
    data, inside, _ = organ((24, 24, 1), B_VALUES, np.zeros(B_VALUES.size))
    estimate_breathing(data, np.diag([8.0, 8.0, 8.0, 1.0]), B_VALUES, inside, progress=seen.append)
    assert seen == sorted(seen)
    assert seen[-1] == 1
