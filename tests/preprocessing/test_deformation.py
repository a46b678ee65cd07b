"""A known deformation is undone, and none is invented that would matter."""

import importlib.util
import logging

import numpy as np
import pytest
from scipy.ndimage import binary_erosion, gaussian_filter, map_coordinates

from bidsfit.preprocessing.deformation import available_method, deform_to_mean, deformation

METHODS = [
    "SyN",
    pytest.param(
        "elastix",
        marks=[
            pytest.mark.slow,
            pytest.mark.skipif(importlib.util.find_spec("itk") is None, reason="itk-elastix is not installed"),
        ],
    ),
]


@pytest.fixture(autouse=True)
def _quiet():
    logging.getLogger("dipy").setLevel(logging.WARNING)


def organ(shape, amplitude, n=4, noise=10.0, seed=0):
    """One organ, decaying with b, that bends in the plane from volume to volume."""
    rng = np.random.default_rng(seed)
    texture = gaussian_filter(rng.standard_normal(shape), [2.5, 2.5, 2.5 if shape[2] > 4 else 0])
    grid = np.indices(shape, dtype=float)
    radius = np.hypot(*[(grid[i] - (shape[i] - 1) / 2) / (0.38 * shape[i]) for i in range(2)])
    image = np.where(radius < 1, 400 + 150 * texture / texture.std(), 0).clip(0)
    image = gaussian_filter(image, [0.8, 0.8, 0])
    scale = np.exp(-np.linspace(0, 0.8, n))
    volumes = []
    for k in range(n):
        wave = np.zeros((3, *shape))
        phase = rng.uniform(0, 2 * np.pi, 2)
        wave[0] = np.sin(2 * np.pi * grid[1] / shape[1] + phase[0])
        wave[1] = np.sin(2 * np.pi * grid[0] / shape[0] + phase[1])
        size = amplitude * rng.uniform(0.6, 1)
        volumes.append(scale[k] * map_coordinates(image, grid + size * wave, order=3, mode="nearest"))
    data = np.stack(volumes, axis=-1) + noise * rng.standard_normal((*shape, n))
    inside = binary_erosion(radius < 1, np.ones((9, 9, 1)))
    return data.clip(0).astype(np.float32), np.linspace(0, 800, n), scale, inside


def disagreement(data, scale, inside):
    """Spread of the volumes about their mean, once the decay is taken out."""
    values = data[inside] / scale
    return (values - values.mean(axis=1, keepdims=True)).std()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("n_slices", [1, 2])
def test_a_known_deformation_is_undone(n_slices, method):
    data, b, scale, inside = organ((48, 48, n_slices), amplitude=2.0)
    result = deform_to_mean(data, np.diag([2.0, 2.0, 4.0, 1.0]), b, method=method)
    assert disagreement(result.data, scale, inside) < 0.5 * disagreement(data, scale, inside)
    assert result.displacement.shape == (4, 2)
    assert np.all(result.displacement[:, 1] >= result.displacement[:, 0])
    assert 0.5 < result.displacement[:, 0].mean() < 8
    assert result.covered[24, 24].all()
    assert result.method == method


@pytest.mark.slow
def test_a_known_deformation_of_a_volume_is_undone():
    data, b, scale, inside = organ((48, 48, 16), amplitude=2.0)
    result = deform_to_mean(data, np.diag([2.0, 2.0, 4.0, 1.0]), b, method="SyN", threads=2)
    assert disagreement(result.data, scale, inside) < 0.5 * disagreement(data, scale, inside)


def test_little_is_invented():
    data, b, scale, inside = organ((48, 48, 1), amplitude=0.0)
    result = deform_to_mean(data, np.diag([2.0, 2.0, 4.0, 1.0]), b, inside, method="SyN")
    assert result.displacement[:, 0].max() < 1.0  # mm, half a voxel
    assert disagreement(result.data, scale, inside) < 1.6 * disagreement(data, scale, inside)


def test_the_field_points_from_the_static_image_to_the_moving_one():
    data, _, _, inside = organ((48, 48, 1), amplitude=0.0, noise=0.0)
    static = data[..., 0]
    moving = np.roll(static, 2, axis=0)  # tissue at x lies at x + 2
    field = deformation(static, moving, np.array([2.0, 2.0, 4.0]), "SyN")
    assert np.median(field[0][inside]) == pytest.approx(2, abs=0.3)
    assert np.median(field[1][inside]) == pytest.approx(0, abs=0.3)


def test_progress_and_empty_volumes():
    data, b, _, _ = organ((48, 48, 1), amplitude=1.0)
    data[..., 2] = 0
    seen = []
    result = deform_to_mean(data, np.diag([2.0, 2.0, 4.0, 1.0]), b, method="SyN", progress=seen.append)
    assert np.all(result.data[..., 2] == 0)
    assert seen[-1] == pytest.approx(1)


def test_methods():
    assert available_method() in ("elastix", "SyN")
    with pytest.raises(ValueError, match="Unknown deformable"):
        deform_to_mean(np.zeros((16, 16, 1, 2)), np.eye(4), [0, 0], method="demons")
