"""Denoising of diffusion images by MP-PCA and Patch2Self."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bidsfit.parallel import Progress, in_processes, library_threads

#: Fewer volumes leave too few components beside those of the signal to tell the level of the noise from.
FEWEST_FOR_MPPCA = 6

#: Fewer volumes predict each other worse than they were measured, or hardly better.
FEWEST_FOR_PATCH2SELF = 10

#: Half the width of a patch along every axis that is long enough, voxels: DIPY's own choice.
SMALLEST_RADIUS = 2

#: Voxels of a patch for every volume, where the image is large enough for them.
VOXELS_PER_VOLUME = 2

#: Slabs overlap; patches of the overlap are worked on twice, and make at most this share of all patches.
LARGEST_OVERLAP = 0.2

#: Patch2Self learns one weight per volume, from at least so many voxels for each of them.
VOXELS_PER_WEIGHT = 10


def patch_radius(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Half widths of the patches of MP-PCA along x, y and z for an image of shape (x, y, z, n).

    Patches are ``2 * radius + 1`` voxels wide, but never wider than the image. The closer the matrix of voxels by
    volumes is to a square, the wider the Marchenko-Pastur distribution spreads the eigenvalues of the noise, and the
    more easily correlated noise upsets the estimate: in an image whose noise was correlated by interpolation, patches
    of 1.2 voxels per volume left most voxels unchanged, patches of 2 denoised all. Larger patches mix more tissues and
    take longer. So patches start at 5 x 5 x 5 voxels and grow along their shortest side (of equal ones, that of the
    longest image axis) until they hold two voxels per volume.
    """
    sides, n_volumes = shape[:3], shape[3]
    largest = [(side - 1) // 2 for side in sides]
    radius = [min(SMALLEST_RADIUS, limit) for limit in largest]
    while _patch_voxels(radius) < VOXELS_PER_VOLUME * n_volumes:
        growing = [axis for axis in range(3) if radius[axis] < largest[axis]]
        if not growing:
            break
        radius[min(growing, key=lambda axis: (radius[axis], -sides[axis]))] += 1
    return radius[0], radius[1], radius[2]


def obstacle_to_mppca(shape: tuple[int, ...]) -> str:
    """Why an image of shape (x, y, z, n) cannot be denoised by MP-PCA, in words; else empty."""
    n_volumes = shape[3]
    if n_volumes < FEWEST_FOR_MPPCA:
        return f"MP-PCA needs {FEWEST_FOR_MPPCA} volumes to tell noise from signal, and the image has {n_volumes}"
    n_voxels = _patch_voxels(patch_radius(shape))
    if n_voxels <= n_volumes:
        x, y, z = shape[:3]
        return (
            f"MP-PCA needs more voxels in a patch ({n_voxels} at most in an image of {x} x {y} x {z} voxels) "
            f"than there are volumes ({n_volumes})"
        )
    return ""


def denoise_mppca(
    data: NDArray[np.floating],
    mask: NDArray[np.bool_] | None = None,
    *,
    radius: tuple[int, int, int] | None = None,
    threads: int = 1,
    progress: Progress | None = None,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Denoise by Marchenko-Pastur principal component analysis (DIPY), and estimate the noise level.

    Principal components of each patch whose eigenvalues are explained by noise are removed [1]_; each voxel is a
    weighted mean over the patches that contain it. The noise level is that of the removed components [2]_. For
    magnitude images it is the standard deviation of the magnitudes, which near the noise floor is below that of a
    channel: see `bidsfit.noise.rician_sigma`.

    Parameters
    ----------
    data : ndarray, shape (x, y, z, n)
        As measured. Interpolation or smoothing, which correlate noise, must come later.
    mask : ndarray of bool, shape (x, y, z), optional
        Voxels to denoise, all by default. Others, and voxels with only zeros or non-finite values, keep their values
        and get a noise level of 0.
    radius : tuple of int, optional
        See `patch_radius`.
    threads : int
        Number of processes; threads would block each other.

    Returns
    -------
    denoised : ndarray of float32, shape (x, y, z, n)
    sigma : ndarray of float32, shape (x, y, z)
        Standard deviation of the noise of one volume.

    Raises
    ------
    ValueError
        If `obstacle_to_mppca` names an obstacle.

    References
    ----------
    .. [1] Veraart J, Novikov DS, Christiaens D, et al. NeuroImage 2016;142:394-406.
    .. [2] Veraart J, Fieremans E, Novikov DS. Magnetic Resonance in Medicine 2016;76:1582-1593.
    """
    require_four_dimensions(data)
    obstacle = obstacle_to_mppca(data.shape)
    if obstacle:
        raise ValueError(f"{obstacle}.")
    radius = patch_radius(data.shape) if radius is None else radius
    mask = usable_voxels(data, mask)
    denoised = np.array(data, dtype=np.float32)
    sigma = np.zeros(data.shape[:3], dtype=np.float32)
    middles = _patch_middles(mask, radius)
    slabs = list(_slabs(data.shape[:3], radius, middles, threads))

    def jobs() -> Iterator[tuple[NDArray[np.float32], NDArray[np.bool_], tuple[int, int, int]]]:
        for slab in slabs:
            part = np.array(data[slab.seen], dtype=np.float32)
            part[~np.isfinite(part).all(axis=-1)] = 0
            yield part, middles[slab.seen] | mask[slab.seen], radius

    for slab, (part, level) in zip(slabs, in_processes(_mppca, jobs(), len(slabs), threads, progress), strict=True):
        inside = mask[slab.kept]
        denoised[slab.kept][inside] = part[slab.kept_of_seen][inside]
        sigma[slab.kept][inside] = level[slab.kept_of_seen][inside]
    return denoised, sigma


def obstacle_to_patch2self(shape: tuple[int, ...]) -> str:
    """Why an image of shape (x, y, z, n) cannot be denoised by Patch2Self, in words; else empty."""
    n_voxels, n_volumes = int(np.prod(shape[:3])), shape[3]
    if n_volumes < FEWEST_FOR_PATCH2SELF:
        return f"Patch2Self needs {FEWEST_FOR_PATCH2SELF} volumes to learn from, and the image has {n_volumes}"
    if n_voxels < VOXELS_PER_WEIGHT * n_volumes:
        return (
            f"Patch2Self needs {VOXELS_PER_WEIGHT} voxels for each of the {n_volumes} volumes, and the image has "
            f"{n_voxels} in all"
        )
    return ""


def denoise_patch2self(
    data: NDArray[np.floating],
    mask: NDArray[np.bool_] | None = None,
    *,
    threads: int = 1,
    progress: Progress | None = None,
) -> NDArray[np.float32]:
    """Denoise by Patch2Self (DIPY): every volume becomes its linear prediction from all others [1]_.

    Noise that is independent between volumes cannot be predicted. One regression is fitted over the whole mask. Volumes
    of all b-values predict each other, so that low b-values of IVIM are not treated as b = 0 and a single b = 0 image
    is denoised too.

    Parameters
    ----------
    data : ndarray, shape (x, y, z, n)
        As measured.
    mask : ndarray of bool, shape (x, y, z), optional
        Voxels to learn from and to denoise, all by default. Others, and voxels with only zeros or non-finite values,
        keep their values.

    Returns
    -------
    ndarray of float32, shape (x, y, z, n)

    Raises
    ------
    ValueError
        If the mask has another shape, or `obstacle_to_patch2self` names an obstacle.

    Notes
    -----
    Version 1 of DIPY's implementation is used. Version 3 returns wrong volumes unless their number is a multiple of
    five (DIPY 1.12.1) and uses unseeded random numbers. Version 1 subtracts the mean of the predictors; the mean of
    each volume is restored, as the residuals of a regression with intercept have mean 0.

    References
    ----------
    .. [1] Fadnavis S, Batson J, Garyfallidis E. Advances in Neural Information Processing Systems 2020;33:16293-16303.
    """
    from dipy.denoise.patch2self import patch2self

    require_four_dimensions(data)
    mask = usable_voxels(data, mask)
    n_voxels, n_volumes = int(mask.sum()), data.shape[3]
    obstacle = (
        obstacle_to_patch2self((n_voxels, 1, 1, n_volumes)) if n_voxels or n_volumes < FEWEST_FOR_PATCH2SELF else ""
    )
    if obstacle:
        raise ValueError(f"{obstacle}.")
    denoised = np.array(data, dtype=np.float32)
    if n_voxels == 0:
        return denoised
    # Where a voxel lies plays no part. DIPY wants no axis of length 1, so that some voxels may be there twice.
    padded = np.pad(denoised[mask], ((0, -n_voxels % 4), (0, 0)), mode="edge")
    with library_threads(threads):
        predicted = patch2self(
            padded.reshape(2, 2, -1, n_volumes),
            np.ones(n_volumes),
            b0_threshold=0,
            model="ols",
            shift_intensity=False,
            version=1,
        ).reshape(padded.shape)
    for k in range(n_volumes):  # sums in double precision
        predicted[:, k] += padded[:, k].mean(dtype=float) - predicted[:, k].mean(dtype=float)
    lowest = min(float(padded.min()), 0.0)
    denoised[mask] = np.maximum(predicted[:n_voxels], lowest)
    if progress is not None:
        progress(1.0)
    return denoised


def _patch_voxels(radius: ArrayLike) -> int:
    return int(np.prod(2 * np.asarray(radius) + 1))


def _patch_middles(mask: NDArray[np.bool_], radius: tuple[int, int, int]) -> NDArray[np.bool_]:
    """Centres of the patches of masked voxels: the voxel, or the nearest one whose patch lies in the image."""
    middles = np.zeros_like(mask)
    limits = [(r, side - 1 - r) for r, side in zip(radius, mask.shape, strict=True)]
    middles[tuple(np.clip(where, *limit) for where, limit in zip(np.nonzero(mask), limits, strict=True))] = True
    return middles


class _Slab(NamedTuple):
    """A part of the image whose patches are processed together, as indices.

    Attributes
    ----------
    kept : tuple of slice
        Voxels of the image that it provides.
    seen : tuple of slice
        Voxels of the image needed for their patches and all overlapping ones.
    kept_of_seen : tuple of slice
        The kept voxels within the seen ones.
    """

    kept: tuple[slice, ...]
    seen: tuple[slice, ...]
    kept_of_seen: tuple[slice, ...]


def _slabs(
    shape: tuple[int, ...], radius: tuple[int, int, int], middles: NDArray[np.bool_], threads: int
) -> Iterator[_Slab]:
    """Slabs with about equal numbers of patches, along the axis where they overlap least."""
    axis = max(range(3), key=lambda k: shape[k] / (2 * radius[k] + 1))
    overlap = 2 * radius[axis]
    number = max(threads, 1 + int(LARGEST_OVERLAP * shape[axis] / max(overlap, 1)))
    patches = np.cumsum(middles.sum(axis=tuple(k for k in range(3) if k != axis)))
    cuts = np.searchsorted(patches, np.arange(1, number) / number * patches[-1]) + 1 if patches[-1] else []
    edges = np.unique([0, *cuts, shape[axis]])
    for start, stop in itertools.pairwise(edges):
        first, last = max(start - overlap, 0), min(stop + overlap, shape[axis])
        yield _Slab(*(_across(axis, *ends) for ends in ((start, stop), (first, last), (start - first, stop - first))))


def _across(axis: int, start: int, stop: int) -> tuple[slice, ...]:
    return tuple(slice(int(start), int(stop)) if k == axis else slice(None) for k in range(3))


def _mppca(
    data: NDArray[np.float32], mask: NDArray[np.bool_], radius: tuple[int, int, int]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """DIPY's MP-PCA of one slab; noise level 0 where there is no noise."""
    from dipy.denoise.localpca import mppca

    lowest = min(float(data.min()), 0.0)  # DIPY sets negative values to 0; the components do not know of an offset
    with warnings.catch_warnings(), np.errstate(divide="ignore", invalid="ignore"):
        warnings.simplefilter("ignore")  # patches without noise, or with fewer voxels than volumes
        denoised, sigma = mppca(data - lowest, mask=mask, patch_radius=np.array(radius), return_sigma=True)
    denoised += np.float32(lowest)
    return denoised, np.nan_to_num(sigma).astype(np.float32)


def require_four_dimensions(data: NDArray) -> None:
    """Raise `ValueError` unless the data have four dimensions and several volumes."""
    if data.ndim != 4 or 0 in data.shape:
        raise ValueError(f"An image of shape (x, y, z, n) is needed, found the shape {data.shape}.")


def usable_voxels(data: NDArray[np.floating], mask: NDArray[np.bool_] | None) -> NDArray[np.bool_]:
    """Voxels of the mask whose values are finite and not all 0, shape (x, y, z).

    Raises
    ------
    ValueError
        If the shape of the mask differs from that of the image.
    """
    if mask is not None and mask.shape != data.shape[:3]:
        raise ValueError(f"The mask's shape {mask.shape} is not that of the image, {data.shape[:3]}.")
    usable = np.ones(data.shape[:3], dtype=bool) if mask is None else mask.astype(bool)
    for z in range(data.shape[2]):  # a slice at a time: little memory beside the image
        usable[:, :, z] &= np.isfinite(data[:, :, z]).all(axis=-1) & (data[:, :, z] != 0).any(axis=-1)
    return usable
