"""Motion of tissue between volumes: rigid motion of the head, and deformation by breathing."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.ndimage import gaussian_filter1d, map_coordinates
from scipy.spatial.transform import Rotation

from bidsfit.phantom.grid import sample

#: Names of the parameters of motion, in order.
MOTION_PARAMETERS = ("trans_x", "trans_y", "trans_z", "rot_x", "rot_y", "rot_z")

#: Volumes over which the drift is smooth.
SMOOTHNESS = 2.0

#: About one sudden movement in this many volumes.
VOLUMES_PER_JUMP = 30


#: Steps to where the tissue of a place comes from; each brings it nearer by the slope of the displacement.
FIXED_POINT_STEPS = 12


def draw_motion(n: int, translation: float, rotation: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """Draw motion parameters (n, 6) of n volumes (`MOTION_PARAMETERS`, mm and radians): a smooth walk with few jumps.

    ``translation`` (mm) and ``rotation`` (degrees) are the largest along and about any axis; the first volume is at 0.
    """
    walk = gaussian_filter1d(np.cumsum(rng.standard_normal((n, 6)), axis=0), SMOOTHNESS, axis=0)
    for _ in range(1 + n // VOLUMES_PER_JUMP):
        walk[rng.integers(1, max(n, 2)) :] += np.sqrt(n) / 2 * rng.standard_normal(6)
    walk -= walk[0]
    for columns, largest in ((slice(0, 3), translation), (slice(3, 6), np.deg2rad(rotation))):
        extent = np.abs(walk[:, columns]).max()
        walk[:, columns] *= largest / extent if extent > 0 else 0.0
    return walk


def rigid_transforms(parameters: ArrayLike) -> NDArray[np.float64]:
    """Rigid transforms (n, 4, 4) of world coordinates, from tissue in the reference to tissue in each volume.

    Parameters
    ----------
    parameters : array_like, shape (n, 6)
        `MOTION_PARAMETERS`: translations in mm; rotations in radians about the fixed world axes, x first, then y, then
        z, all before the translation.
    """
    parameters = np.asarray(parameters, dtype=float)
    transforms = np.tile(np.eye(4), (len(parameters), 1, 1))
    transforms[:, :3, :3] = Rotation.from_euler("xyz", parameters[:, 3:]).as_matrix()
    transforms[:, :3, 3] = parameters[:, :3]
    return transforms


def move(
    volume: NDArray, affine: NDArray[np.float64], transform: NDArray[np.float64], order: int = 3
) -> NDArray[np.float64]:
    """Move the tissue of a volume by a transform (of `rigid_transforms`, or any affine one) of world coordinates.

    ``affine`` is voxel to world, ``order`` that of the splines. Cubic splines overshoot a little at sharp edges and may
    be negative there.
    """
    if np.array_equal(transform, np.eye(4)):
        return np.array(volume, dtype=float)
    return sample(volume, np.linalg.inv(transform @ affine) @ affine, order=order)


def draw_breathing(n: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Draw breathing depths of n volumes, shape (n,), mean 0; full exhalation and inhalation differ by 1.

    Breathing is the fourth power of a cosine [1]_ sampled at random times, so that more volumes are near exhalation.

    References
    ----------
    .. [1] Lujan AE, Larsen EW, Balter JM, Ten Haken RK. Medical Physics 1999;26:715-720.
    """
    depth = np.cos(np.pi * rng.random(n)) ** 4
    return np.asarray(depth - depth.mean())


def deform(volume: NDArray, displacement: NDArray[np.float64], order: int = 3) -> NDArray[np.float64]:
    """Displace the tissue of a volume.

    ``displacement`` (3, x, y, z) is that of the tissue originally in each voxel, in voxels; it must be smooth with
    slopes below 1. Beyond the sides of the slices there is air; above and below, tissue continues as its mirror image.
    """
    here = np.indices(volume.shape, dtype=float)
    origin = here - displacement
    for _ in range(FIXED_POINT_STEPS):
        there = [map_coordinates(line, origin, order=1, mode="nearest") for line in displacement]
        origin = here - np.array(there)
    return np.asarray(map_coordinates(np.asarray(volume, dtype=float), origin, order=order, mode="reflect"))
