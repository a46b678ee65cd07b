"""Tissue moves between volumes: the head as a whole, organs with the breath."""

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
    """Draw a smooth random walk with a few jumps, from the position of the first volume.

    Parameters
    ----------
    n : int
        Volumes.
    translation, rotation : float
        Largest translation along any axis (mm) and rotation about any axis (degrees) of the series.

    Returns
    -------
    ndarray, shape (n, 6)
        `MOTION_PARAMETERS`: mm and radians, all 0 in the first volume.
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
    """Rigid transforms of the world, from where tissue lies in the reference to where it lies in each volume.

    Parameters
    ----------
    parameters : array_like, shape (n, 6)
        `MOTION_PARAMETERS`: translations in mm; rotations in radians about the fixed axes through the origin of the
        world, about x first, then y, then z, all before the translation.

    Returns
    -------
    ndarray, shape (n, 4, 4)
    """
    parameters = np.asarray(parameters, dtype=float)
    transforms = np.tile(np.eye(4), (len(parameters), 1, 1))
    transforms[:, :3, :3] = Rotation.from_euler("xyz", parameters[:, 3:]).as_matrix()
    transforms[:, :3, 3] = parameters[:, :3]
    return transforms


def move(
    volume: NDArray, affine: NDArray[np.float64], transform: NDArray[np.float64], order: int = 3
) -> NDArray[np.float64]:
    """A volume after its tissue moved by a transform of the world.

    Parameters
    ----------
    volume : ndarray, shape (x, y, z)
    affine : ndarray, shape (4, 4)
        From voxels to the world.
    transform : ndarray, shape (4, 4)
        As of `rigid_transforms`; any affine transform will do.
    order : int
        Of the splines.

    Returns
    -------
    ndarray, shape (x, y, z)
        Cubic splines overshoot a little beside sharp edges, and may fall below 0 there.
    """
    if np.array_equal(transform, np.eye(4)):
        return np.array(volume, dtype=float)
    return sample(volume, np.linalg.inv(transform @ affine) @ affine, order=order)


def draw_breathing(n: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Draw how deep the breath is in each volume, relative to the mean of all volumes.

    Breathing is the fourth power of a cosine [1]_, so that more volumes are taken near the end of breathing out; they
    are taken at random times.

    Parameters
    ----------
    n : int
        Volumes.

    Returns
    -------
    ndarray, shape (n,)
        From the end of breathing out to that of breathing in is 1; the mean is 0.

    References
    ----------
    .. [1] Lujan AE, Larsen EW, Balter JM, Ten Haken RK. Medical Physics 1999;26:715-720.
    """
    depth = np.cos(np.pi * rng.random(n)) ** 4
    return np.asarray(depth - depth.mean())


def deform(volume: NDArray, displacement: NDArray[np.float64], order: int = 3) -> NDArray[np.float64]:
    """A volume after its tissue was displaced.

    Parameters
    ----------
    volume : ndarray, shape (x, y, z)
    displacement : ndarray, shape (3, x, y, z)
        Of the tissue that lies in each voxel before, voxels; smooth, and steep nowhere by 1 or more.
    order : int
        Of the splines.

    Returns
    -------
    ndarray, shape (x, y, z)
        There is air beyond the sides of the slices. Above and below, tissue goes on as its own mirror image.
    """
    here = np.indices(volume.shape, dtype=float)
    origin = here - displacement
    for _ in range(FIXED_POINT_STEPS):
        there = [map_coordinates(line, origin, order=1, mode="nearest") for line in displacement]
        origin = here - np.array(there)
    return np.asarray(map_coordinates(np.asarray(volume, dtype=float), origin, order=order, mode="reflect"))
