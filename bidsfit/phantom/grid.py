"""The grid of an image: where its voxels lie in the world, and how it is sampled elsewhere."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import affine_transform


def centred_affine(shape: Sequence[int], voxel_size: float) -> NDArray[np.float64]:
    """From voxels to the world (mm, RAS+), the middle of the image at the origin; shape (4, 4)."""
    affine = np.diag([voxel_size, voxel_size, voxel_size, 1.0])
    affine[:3, 3] = -voxel_size * (np.array(shape[:3]) - 1) / 2
    return affine


def sample(
    volume: NDArray, matrix: NDArray[np.float64], shape: Sequence[int] | None = None, order: int = 3
) -> NDArray[np.float64]:
    """Sample a volume on another grid with splines.

    There is air beyond the sides of the slices. Above and below, the head goes on as its own mirror image, so that
    tissue rather than nothing moves into a thin slab, and the truth of the slab stays as it is.

    Parameters
    ----------
    volume : ndarray, shape (x, y, z)
    matrix : ndarray, shape (4, 4)
        From voxels of the new grid to voxels of ``volume``.
    shape : sequence of int, optional
        Of the new grid; that of ``volume`` by default.
    order : int
        Of the splines: 3 cubic, 1 linear, 0 nearest neighbour.
    """
    shape = volume.shape if shape is None else tuple(shape)
    sampled = affine_transform(
        volume, matrix[:3, :3], matrix[:3, 3], output_shape=shape, output=np.float64, order=order, mode="reflect"
    )
    voxels = np.ix_(*(np.arange(size) for size in shape))
    for axis in (0, 1):
        place = sum(matrix[axis, i] * voxels[i] for i in range(3)) + matrix[axis, 3]
        sampled[np.broadcast_to((place < -0.5) | (place > volume.shape[axis] - 0.5), shape)] = 0
    return sampled
