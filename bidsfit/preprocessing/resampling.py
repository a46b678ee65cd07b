"""Resampling that undoes motion, eddy currents and susceptibility distortion in one interpolation."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.ndimage import map_coordinates

from bidsfit.parallel import Progress, library_threads
from bidsfit.preprocessing.splines import moved_grid, tricubic, trilinear
from bidsfit.preprocessing.susceptibility import jacobian

#: Along an axis of at most so many voxels nothing is interpolated: a spline through four slices is a guess.
THIN = 4

#: A displacement below this many voxels is none: the values are taken as they are.
NO_DISPLACEMENT = 1e-6

#: A voxel whose centre lies at most this far (voxels) outside the grid of centres still lies in the image.
HALF_VOXEL = 0.5


class Resampled(NamedTuple):
    """Volumes in the frame of the reference.

    Attributes
    ----------
    data : ndarray of float32, shape (x, y, z, n)
        0 where a volume has no data.
    covered : ndarray of bool, shape (x, y, z)
        Voxels for which every volume has data; masks must lie within.
    """

    data: NDArray[np.float32]
    covered: NDArray[np.bool_]


def resample(
    data: NDArray,
    affine: ArrayLike,
    transforms: ArrayLike,
    shift: NDArray | None = None,
    axis: int | None = None,
    threads: int = 1,
    progress: Progress | None = None,
) -> Resampled:
    """Resample every volume to the frame of the reference.

    Parameters
    ----------
    data : ndarray, shape (x, y, z, n)
    affine : array_like, shape (4, 4)
        Voxel to world, mm.
    transforms : array_like, shape (n, 4, 4)
        World to world: from a point of the reference to its tissue in the volume.
    shift : ndarray, shape (x, y, z), optional
        Susceptibility displacement along ``axis`` in voxels: the signal of voxel y was recorded at y + shift(y).
    axis : int, optional
        Phase-encoding axis, 0, 1 or 2; needed with ``shift``.

    Raises
    ------
    ValueError
        If shapes disagree, or a transform is not finite or not invertible.

    Notes
    -----
    Cubic splines, multiplied by the Jacobian of the susceptibility displacement; negative overshoot is set to 0. Along
    axes of at most `THIN` voxels the nearest voxel is used. A volume that is neither moved nor distorted keeps its
    values.
    """
    transforms = np.asarray(transforms, dtype=float)
    if data.ndim != 4 or transforms.shape != (data.shape[3], 4, 4):
        raise ValueError(
            f"Resampling needs volumes (x, y, z, n) and n transforms (n, 4, 4), "
            f"found shapes {data.shape} and {transforms.shape}."
        )
    displacement = Displacement(data.shape[:3], shift, axis)

    def one(k: int) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        return _resample(data[..., k], affine, transforms[k], displacement)

    return _together(data.shape, one, threads, progress)


def displace(
    data: NDArray,
    displacement_of: Callable[[int], NDArray],
    shift: NDArray | None = None,
    axis: int | None = None,
    threads: int = 1,
) -> Resampled:
    """Undo a displacement of the tissue in every volume.

    Parameters
    ----------
    data : ndarray, shape (x, y, z, n)
    displacement_of : callable
        Returns for the index of a volume the displacement from each voxel of the reference to its tissue, in voxels,
        shape (3, x, y, z).
    shift, axis, threads
        As for `resample`.

    Notes
    -----
    The signal is not scaled by the change of volume, as compressed tissue is not brighter.
    """
    distortion, here = Displacement(data.shape[:3], shift, axis), np.indices(data.shape[:3], dtype=float)

    def one(k: int) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        return sample(data[..., k], here + displacement_of(k), distortion)

    return _together(data.shape, one, threads)


def _together(
    shape: tuple[int, ...],
    one: Callable[[int], tuple[NDArray[np.float32], NDArray[np.bool_]]],
    threads: int,
    progress: Progress | None = None,
) -> Resampled:
    """The volumes that ``one`` computes, and where all of them have data."""
    result = np.empty(shape, dtype=np.float32, order="F")  # volumes are written and read one by one
    everywhere = np.ones(shape[:3], dtype=bool)
    with library_threads(1, "blas"), ThreadPoolExecutor(max(1, threads)) as pool:
        for k, (volume, covered) in enumerate(pool.map(one, range(shape[3]))):
            result[..., k] = volume
            everywhere &= covered
            if progress is not None:
                progress((k + 1) / shape[3])
    return Resampled(result, everywhere)


class Displacement:
    """Susceptibility displacement and its Jacobian, for an image of some shape.

    Parameters
    ----------
    shift : ndarray, shape (x, y, z), optional
        Voxels along ``axis``; None for no displacement.
    axis : int, optional
        Phase-encoding axis.
    """

    def __init__(self, shape: tuple[int, ...], shift: NDArray | None, axis: int | None) -> None:
        self.shift: NDArray[np.float32] | None = None
        self.axis = axis
        if shift is None or not np.any(shift):
            return
        if axis not in (0, 1, 2):
            raise ValueError(f"A displacement needs the axis of the phase encoding, 0, 1 or 2; found {axis}.")
        if shift.shape != tuple(shape):
            raise ValueError(f"The displacement has shape {shift.shape}, the image {tuple(shape)}; they must agree.")
        if not np.isfinite(shift).all():
            raise ValueError("The displacement by susceptibility holds values that are not finite.")
        if shape[axis] < 2:
            raise ValueError("The image has one voxel along the axis of the phase encoding, which cannot be distorted.")
        self.shift = shift.astype(np.float32)
        self.both = np.stack([jacobian(self.shift, axis), self.shift], axis=-1, dtype=np.float32)

    def apply(self, places: NDArray[np.float64]) -> NDArray[np.float32]:
        """Move places (3, ...) in voxels to where their signal was recorded; return the Jacobian there."""
        if self.shift is None or self.axis is None:
            return np.ones(places.shape[1:], dtype=np.float32)
        stretch, shift = trilinear(self.both, places)
        places[self.axis] += shift
        return stretch


def _resample(
    volume: NDArray, affine: ArrayLike, transform: ArrayLike, displacement: Displacement
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    affine, transform = np.asarray(affine, dtype=float), np.asarray(transform, dtype=float)
    if not np.isfinite(transform).all() or abs(np.linalg.det(transform)) < 1e-6:
        raise ValueError(f"A transform must be finite and have an inverse, found\n{transform}.")
    shape = volume.shape
    matrix = np.linalg.inv(affine) @ transform @ affine  # voxel to voxel
    corners = np.array([[i, j, k, 1] for i in (0, shape[0]) for j in (0, shape[1]) for k in (0, shape[2])], dtype=float)
    still = np.abs(corners @ matrix.T - corners).max() < NO_DISPLACEMENT
    if still and displacement.shift is None:
        return volume.astype(np.float32), np.isfinite(volume)
    return sample(volume, moved_grid(shape, matrix), displacement)


def sample(
    volume: NDArray, places: NDArray[np.float64], displacement: Displacement
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Interpolate a volume at any places, and tell where it has data.

    ``places`` (3, x, y, z) are the voxel coordinates, for each voxel of the reference, of its tissue in the volume;
    they are changed in place by ``displacement``, which leads from there to where the signal was recorded.
    """
    shape = volume.shape
    finite = np.isfinite(volume)
    holes = not finite.all()
    values = np.where(finite, volume, 0) if holes else volume  # a spline would spread one NaN over everything
    stretch = displacement.apply(places)
    covered = np.ones(shape, dtype=bool)
    thick = [axis for axis in range(3) if shape[axis] > THIN]
    for axis in range(3):
        if axis not in thick:
            places[axis] = np.arange(shape[axis]).reshape([-1 if i == axis else 1 for i in range(3)])
        covered &= (places[axis] >= -HALF_VOXEL) & (places[axis] <= shape[axis] - 1 + HALF_VOXEL)
        np.clip(places[axis], 0, shape[axis] - 1, out=places[axis])
    if holes:
        covered &= trilinear(finite.astype(np.float32)[..., None], places)[0] > 1 - HALF_VOXEL
    if len(thick) == 3:
        sampled = tricubic(values.astype(np.float32), places)
    else:
        sampled = _along_planes(values.astype(np.float32), places, thick)
    sampled *= stretch
    np.maximum(sampled, 0, out=sampled)
    sampled[~covered] = 0
    return sampled, covered


def _along_planes(values: NDArray, places: NDArray, thick: list[int]) -> NDArray[np.float32]:
    """Interpolate along the thick axes only; every plane has its own places along the others."""
    sampled = np.empty(values.shape, dtype=np.float32)
    thin = [axis for axis in range(3) if axis not in thick]
    for plane in np.ndindex(*(values.shape[axis] for axis in thin)):
        index: list[slice | int] = [slice(None)] * 3
        for axis, place in zip(thin, plane, strict=True):
            index[axis] = place
        at = tuple(index)
        if thick:
            sampled[at] = map_coordinates(values[at], [places[axis][at] for axis in thick], order=3, mode="mirror")
        else:
            sampled[at] = values[at]
    return sampled
