"""Denoising of diffusion images by MP-PCA and Patch2Self."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import lapack

from bidsfit.parallel import Progress, in_processes, library_threads

#: Fewer volumes leave too few components beside those of the signal to tell the level of the noise from.
FEWEST_FOR_MPPCA = 6

#: Fewer volumes predict each other worse than they were measured, or hardly better.
FEWEST_FOR_PATCH2SELF = 10

#: Half the width of a patch along every axis that is long enough, voxels: DIPY's own choice.
SMALLEST_RADIUS = 2

#: Voxels of a patch for every volume, where the image is large enough for them.
VOXELS_PER_VOLUME = 2

#: Width of the slabs that processes share, in widths of a patch.
SLAB_WIDTH = 1.0

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
    every_voxel: bool = False,
    threads: int = 1,
    progress: Progress | None = None,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Denoise by Marchenko-Pastur principal component analysis, and estimate the noise level.

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
    every_voxel : bool
        Whether a patch is centred on every voxel, as by DIPY, instead of on a quarter of them. It takes four times as
        long, for errors that are less than 1 % smaller.
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
        If `obstacle_to_mppca` names an obstacle, or patches are wider than the image.

    Notes
    -----
    With patches on every voxel the result is that of DIPY's ``mppca`` to rounding.

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
    if any(2 * r >= side for r, side in zip(radius, data.shape[:3], strict=True)):
        raise ValueError(f"Patches of radius {radius} are wider than the image, {data.shape[:3]}.")
    mask = usable_voxels(data, mask)
    centres = _patch_centres(mask, radius, every_voxel)
    slabs = list(_slabs(radius, centres))

    def jobs() -> Iterator[tuple[NDArray[np.float32], NDArray[np.bool_], tuple[int, int, int]]]:
        for seen, own in slabs:
            part = np.array(data[seen], dtype=np.float32)
            part[~np.isfinite(part).all(axis=-1)] = 0
            yield part, centres[seen] & own, radius

    denoised = np.zeros(data.shape, dtype=np.float32)
    weights, variances = np.zeros((2, *data.shape[:3]), dtype=np.float32)
    for (seen, _), part in zip(slabs, in_processes(_mppca, jobs(), len(slabs), threads, progress), strict=True):
        for total, share in zip((denoised, weights, variances), part, strict=True):
            total[seen] += share
    for z in range(data.shape[2]):  # a slice at a time: little memory beside the image
        denoised[:, :, z] /= np.where(mask, weights, 1)[:, :, z, None]
        np.copyto(denoised[:, :, z], data[:, :, z], where=~mask[:, :, z, None], casting="same_kind")
    return denoised, np.sqrt(np.divide(variances, weights, out=np.zeros_like(weights), where=mask))


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


def _patch_centres(mask: NDArray[np.bool_], radius: tuple[int, int, int], every_voxel: bool) -> NDArray[np.bool_]:
    """Centres of the patches of masked voxels: for each the nearest whose patch lies in the image.

    The candidates are all voxels, or two grids of every second voxel along each axis, one between the other
    (body-centred cubic); neighbouring patches of radius 1 would hardly overlap, and are as close as before.
    """
    centres = np.zeros_like(mask)
    masked = np.nonzero(mask)
    for offset in (0,) if every_voxel else (0, 1):
        nearest = []
        for r, side, at in zip(radius, mask.shape, masked, strict=True):
            last = side - 1 - r
            grid = np.append(np.arange(r + offset, last, 1 if every_voxel or r < 2 else 2), last)
            nearest.append(grid[np.abs(np.arange(side)[:, None] - grid).argmin(axis=1)][at])
        centres[tuple(nearest)] = True
    return centres


def _slabs(
    radius: tuple[int, int, int], centres: NDArray[np.bool_]
) -> Iterator[tuple[tuple[slice, ...], NDArray[np.bool_]]]:
    """Parts of the image with about equal numbers of patches, along the axis where they overlap least.

    Yields the slices that cut out the voxels of the patches, and where within them the centres may lie.
    """
    axis = max(range(3), key=lambda k: centres.shape[k] / (2 * radius[k] + 1))
    side, r = centres.shape[axis], radius[axis]
    number = max(1, int(side / (SLAB_WIDTH * (2 * r + 1))))
    patches = np.cumsum(centres.sum(axis=tuple(k for k in range(3) if k != axis)))
    cuts = np.searchsorted(patches, np.arange(1, number) / number * patches[-1]) + 1 if patches[-1] else []
    for start, stop in itertools.pairwise(np.unique([r, *cuts, side - r])):
        first, last = int(start) - r, int(stop) + r
        seen = tuple(slice(first, last) if k == axis else slice(None) for k in range(3))
        own = (np.arange(first, last) >= start) & (np.arange(first, last) < stop)
        yield seen, own.reshape([-1 if k == axis else 1 for k in range(3)])


def _mppca(
    data: NDArray[np.float32], centres: NDArray[np.bool_], radius: tuple[int, int, int]
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """Sums over the patches around the centres: weighted signals, weights, and weighted variances of the noise."""
    signals = np.zeros_like(data)
    weights, variances = np.zeros((2, *data.shape[:3]), dtype=np.float32)
    for centre in np.argwhere(centres):
        place = tuple(slice(c - r, c + r + 1) for c, r in zip(centre, radius, strict=True))
        patch, variance, n_components = _without_noise(data[place].reshape(-1, data.shape[3]))
        weight = np.float32(1 / (1 + n_components))
        signals[place] += weight * patch.reshape(signals[place].shape)
        weights[place] += weight
        variances[place] += weight * variance
    return signals, weights, variances


def _without_noise(patch: NDArray[np.float32]) -> tuple[NDArray[np.float32], np.float32, int]:
    """A patch (n_voxels, n) without its noise, the variance of the noise, and the number of components of the signal.

    Eigenvectors are computed of the signal only, which takes half the time of a whole decomposition.
    """
    n_voxels, n = patch.shape
    mean = patch.mean(axis=0)
    centred = patch - mean
    covariance = centred.T @ centred / np.float32(n_voxels)
    reflectors, diagonal, beside, scales, _ = lapack.ssytrd(covariance, lower=1, lwork=64 * n)
    values, _ = lapack.ssterf(diagonal, beside)
    variance = _noise_variance(values[max(0, n - n_voxels + 1) :], n_voxels)
    if variance <= 0:
        return patch, variance, n
    signal = values[values >= (1 + np.sqrt(n / n_voxels)) ** 2 * variance]
    if signal.size == 0:
        return np.broadcast_to(mean, patch.shape), variance, 0
    one_block = np.ones(n, dtype=np.int32), np.full(n, n, dtype=np.int32)
    vectors, _ = lapack.sstein(diagonal, beside, signal, *one_block)
    vectors[1:] = lapack.sormqr("L", "N", reflectors[1:, :-1], scales, vectors[1:], 64 * signal.size)[0]
    return centred @ vectors @ vectors.T + mean, variance, signal.size


def _noise_variance(values: NDArray[np.float32], n_voxels: int) -> np.float32:
    """Mean of as many of the smallest eigenvalues, ascending, as the Marchenko-Pastur distribution can explain."""
    number = np.arange(1, values.size + 1)
    mean = np.cumsum(values, dtype=float) / number
    explained = np.flatnonzero(values - values[0] <= 4 * np.sqrt(number / n_voxels) * mean)
    return np.float32(max(mean[explained[-1]], 0) if explained.size else 0)


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
