"""Gaussian and Rician noise of magnitude images: simulation, likelihood, bias, and estimation of the noise level."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import gammaincinv, ive

from bidsfit.acquisition import B0_TOLERANCE, Acquisition, same_directions
from bidsfit.parallel import Progress

#: Of the noise level: what stands for a signal of 0 that is no missing measurement.
NEGLIGIBLE = 1e-6

NoiseKind = Literal["gaussian", "rician"]

#: The iteration of `rician_sigma` ends where no voxel's noise level changes by more than this fraction, or here.
SIGMA_TOLERANCE, SIGMA_ITERATIONS = 1e-3, 100

#: Ratio of two estimates of the noise level up to which they agree.
AGREEING = 1.3

#: Smallest share of an image's voxels from whose noise alone its level is taken.
LEAST_BACKGROUND = 0.005

#: How far the ratio of the squared mean to the mean square of the background may lie from pi/4, as a fraction.
RAYLEIGH_TOLERANCE = 0.05

#: DIPY's PIESNO counts the voxels of a slice as 16-bit integers.
LARGEST_SLICE = 32_767


def add_noise(signals: ArrayLike, sigma: ArrayLike, kind: NoiseKind, rng: np.random.Generator) -> NDArray:
    r"""Add noise to signals.

    Parameters
    ----------
    signals : array_like, shape (...)
        Noise-free signals, non-negative for Rician noise. Complex ones get Gaussian noise in both parts.
    sigma : array_like, broadcastable to the signals
        Standard deviation of the Gaussian noise of one channel, in signal units.
    kind : {"gaussian", "rician"}
        "gaussian" adds real noise, :math:`A + n`. "rician" takes the magnitude of complex noise,
        :math:`|A + n_1 + i n_2|` with independent :math:`n_1, n_2 \sim N(0, \sigma^2)` [1]_.
    rng : numpy.random.Generator

    Returns
    -------
    ndarray, shape (...)

    References
    ----------
    .. [1] Gudbjartsson H, Patz S. Magnetic Resonance in Medicine 1995;34:910-914.
    """
    signals, sigma = np.asarray(signals), np.asarray(sigma, dtype=float)
    if kind not in get_args(NoiseKind):
        raise ValueError(f"Unknown kind of noise {kind!r}; valid: {', '.join(get_args(NoiseKind))}.")
    if not np.all(sigma >= 0):
        raise ValueError(f"The standard deviation of noise cannot be negative or NaN, found {sigma.min()}.")
    real = signals + sigma * rng.standard_normal(signals.shape)
    if kind == "gaussian":
        return real + 1j * sigma * rng.standard_normal(signals.shape) if np.iscomplexobj(signals) else real
    if np.iscomplexobj(signals):
        raise ValueError("Rician noise acts on magnitudes, and these signals are complex: their noise is Gaussian.")
    if np.any(signals < 0):
        raise ValueError("Rician noise acts on magnitudes, and some of these signals are negative.")
    return np.hypot(real, sigma * rng.standard_normal(signals.shape))


def rician_mean(amplitude: ArrayLike, sigma: ArrayLike) -> NDArray[np.float64]:
    r"""Mean of a Rician magnitude, :math:`\sigma\sqrt{\pi/2}\,L_{1/2}(-A^2/2\sigma^2)`; shapes broadcast."""
    amplitude, sigma = np.asarray(amplitude, dtype=float), np.asarray(sigma, dtype=float)
    half = (amplitude / (2 * sigma)) ** 2
    return sigma * np.sqrt(np.pi / 2) * ((1 + 2 * half) * ive(0, half) + 2 * half * ive(1, half))


def rician_log_likelihood(magnitude: ArrayLike, amplitude: ArrayLike, sigma: ArrayLike) -> NDArray[np.float64]:
    """Logarithm of the Rician density of each magnitude, stable at any SNR; shapes broadcast.

    Minus infinity where the magnitude is not positive.
    """
    m, a, s = (np.asarray(values, dtype=float) for values in (magnitude, amplitude, sigma))
    with np.errstate(divide="ignore", invalid="ignore"):
        value = np.log(m / s**2) - (m - a) ** 2 / (2 * s**2) + np.log(ive(0, m * a / s**2))
    return np.where(m > 0, value, -np.inf)


def known_noise(noise: ArrayLike | None, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Noise level of every voxel; NaN where none is given, or one that is not a positive number.

    Raises
    ------
    ValueError
        Where one number is given for all voxels, and it is negative or not finite.
    """
    if noise is not None and not np.ndim(noise) and not 0 <= float(noise) < np.inf:  # type: ignore[arg-type]
        raise ValueError(f"The standard deviation of the noise must be a positive number, found {noise}.")
    level = np.broadcast_to(np.asarray(np.nan if noise is None else noise, dtype=float), shape)
    return np.where((level > 0) & (level < np.inf), level, np.nan)


def remove_rician_bias(magnitude: ArrayLike, sigma: ArrayLike) -> NDArray[np.float64]:
    """Amplitude whose Rician mean is the measured magnitude; 0 below the noise floor; shapes broadcast.

    Corrects the bias of the mean, not of single magnitudes, which stay non-Gaussian near the floor. Where ``sigma`` is
    0 magnitudes are unchanged.
    """
    magnitude, sigma = np.broadcast_arrays(np.asarray(magnitude, dtype=float), np.asarray(sigma, dtype=float))
    means, amplitudes = _rician_mean_table()
    noisy = sigma > 0
    ratio = magnitude / np.where(noisy, sigma, 1.0)
    inside = np.interp(ratio, means, amplitudes)  # 0 below the floor
    beyond = ratio - 0.5 / np.maximum(ratio, 1.0)  # E[m] = A + sigma^2 / 2A + ... far above it
    return np.where(noisy, np.where(ratio < means[-1], inside, beyond) * sigma, magnitude)


def correct_rician_image(
    data: NDArray[np.floating],
    sigma: NDArray[np.floating],
    *,
    threads: int = 1,
    progress: Progress | None = None,
) -> NDArray[np.float32]:
    """Remove the Rician bias of an image, slice by slice (see `remove_rician_bias`).

    The image should be denoised. Otherwise single magnitudes below the floor become 0, and the mean of the others keeps
    most of the bias. What becomes 0 is written as a millionth of the noise level, because estimators take a 0 among
    positive signals for a missing measurement.

    Parameters
    ----------
    data : ndarray, shape (x, y, z, n)
    sigma : ndarray, shape (x, y, z)
        Standard deviation of the noise of one channel; voxels where it is 0 or not finite are unchanged.

    Returns
    -------
    ndarray of float32, shape (x, y, z, n)
    """
    corrected = np.empty(data.shape, dtype=np.float32)
    level = _on_grid(sigma, data)

    def correct(z: int) -> None:
        measured, noise = data[:, :, z], level[:, :, z, None]
        amplitude = remove_rician_bias(measured, noise)
        corrected[:, :, z] = np.where(measured > 0, np.maximum(amplitude, NEGLIGIBLE * noise), amplitude)

    _slice_by_slice(correct, data.shape[2], threads, progress)
    return corrected


def rician_sigma_map(
    sigma: NDArray[np.floating],
    data: NDArray[np.floating],
    *,
    threads: int = 1,
    progress: Progress | None = None,
) -> NDArray[np.float32]:
    """Map of the noise level of a channel from that of magnitudes, slice by slice (see `rician_sigma`).

    Parameters
    ----------
    sigma : ndarray, shape (x, y, z)
        Standard deviation of the noise of the magnitudes, as of MP-PCA.
    data : ndarray, shape (x, y, z, n)
        The denoised magnitudes.

    Returns
    -------
    ndarray of float32, shape (x, y, z)
        0 where sigma is 0 or not finite.
    """
    converted = np.empty(sigma.shape, dtype=np.float32)
    level = _on_grid(sigma, data)

    def convert(z: int) -> None:
        converted[:, :, z] = rician_sigma(level[:, :, z], np.nan_to_num(data[:, :, z], posinf=0.0, neginf=0.0))

    _slice_by_slice(convert, data.shape[2], threads, progress)
    return converted


def _on_grid(sigma: NDArray[np.floating], data: NDArray[np.floating]) -> NDArray[np.floating]:
    """Noise map with non-finite values set to 0; raises an error if its shape differs from the image's."""
    if data.ndim != 4 or sigma.shape != data.shape[:3]:
        raise ValueError(f"A noise map of shape {sigma.shape} does not fit an image of shape {data.shape}.")
    return np.nan_to_num(sigma, posinf=0.0, neginf=0.0)


def _slice_by_slice(work: Callable[[int], None], n: int, threads: int, progress: Progress | None) -> None:
    with ThreadPoolExecutor(max(threads, 1)) as pool:
        for done, _ in enumerate(pool.map(work, range(n)), start=1):
            if progress is not None:
                progress(done / n)


def rician_sigma(sigma: ArrayLike, mean_magnitudes: ArrayLike) -> NDArray[np.float64]:
    r"""Noise level of a channel from the standard deviation of magnitudes, which is smaller near the noise floor.

    The variance of a Rician magnitude is :math:`\sigma^2 \xi(A/\sigma)`, where :math:`\xi` rises from :math:`2 - \pi/2`
    in air to 1 at high SNR. A variance shared by several magnitudes is the mean of theirs. Solved for :math:`\sigma` by
    fixed-point iteration [1]_.

    Parameters
    ----------
    sigma : array_like, shape (...)
        Standard deviation of the magnitudes, one for all measurements of a voxel.
    mean_magnitudes : array_like, shape (..., n)
        Expected (in practice: denoised) magnitude of each measurement.

    Returns
    -------
    ndarray, shape (...)
        From ``sigma`` up to 1.53 times as much.

    References
    ----------
    .. [1] Koay CG, Basser PJ. Journal of Magnetic Resonance 2006;179:317-322.
    """
    measured = np.atleast_1d(np.asarray(sigma, dtype=float))
    magnitudes = np.asarray(mean_magnitudes, dtype=float).reshape(*measured.shape, -1)
    means, amplitudes = _rician_mean_table()
    variances = 2 + amplitudes**2 - means**2
    level = measured.copy()
    moving = measured > 0
    for _ in range(SIGMA_ITERATIONS):
        before = level[moving]
        xi = np.interp(magnitudes[moving] / before[:, None], means, variances, right=1.0).mean(axis=-1)
        level[moving] = after = measured[moving] / np.sqrt(xi)
        moving[moving] = np.abs(after - before) > SIGMA_TOLERANCE * after
        if not moving.any():
            break
    return level.reshape(np.shape(sigma))


@cache
def _rician_mean_table() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Means and amplitudes for sigma = 1, dense where the curve bends."""
    amplitudes = np.concatenate([np.linspace(0, 1, 2001) ** 2 * 2, np.linspace(2, 50, 9601)[1:]])
    return rician_mean(amplitudes, 1.0), amplitudes


class NoiseEstimate(NamedTuple):
    """Standard deviation of the noise of one measurement, and the method that estimated it."""

    sigma: float
    method: str


def sigma_from_repeats(
    signals: NDArray[np.float64], acquisition: Acquisition, *, maximum_b: float = np.inf
) -> NoiseEstimate | None:
    """Noise level from repeated measurements with the same b-value and direction.

    Variances are pooled over the groups of repeats in each voxel. Their median over the voxels, which is robust to
    vessels and edges, is corrected for the median of a chi-square distribution.

    Parameters
    ----------
    signals : ndarray, shape (n_voxels, n_measurements)
    acquisition : Acquisition
    maximum_b : float
        Repeats above this b-value (s/mm^2) are ignored.

    Returns
    -------
    NoiseEstimate or None
        None if nothing was repeated or no voxel is finite.
    """
    groups = [
        group for group in repeats(acquisition) if group.size > 1 and acquisition.b_values[group].max() <= maximum_b
    ]
    freedom = sum(group.size - 1 for group in groups)
    finite = np.isfinite(signals).all(axis=1)
    if freedom == 0 or not finite.any():
        return None
    squares = sum(
        ((signals[finite][:, group] - signals[finite][:, group].mean(axis=1, keepdims=True)) ** 2).sum(axis=1)
        for group in groups
    )
    median = 2 * gammaincinv(freedom / 2, 0.5)  # of chi squared
    sigma = float(np.sqrt(np.median(squares) / median))
    largest = max(groups, key=len)
    b = acquisition.b_values[largest].mean()
    groups_in_words = "1 group" if len(groups) == 1 else f"{len(groups)} groups"
    return NoiseEstimate(
        sigma,
        f"scatter of repeated measurements ({groups_in_words}, the largest {largest.size} at b = {b:.0f} s/mm²), "
        "median over the mask",
    )


def beside_repeats(sigma: float, repeated: NoiseEstimate | None) -> str:
    """What repeated measurements tell where their noise level differs from another estimate; else empty."""
    if repeated is None or not min(sigma, repeated.sigma) > 0:
        return ""
    ratio = repeated.sigma / sigma
    if 1 / AGREEING <= ratio <= AGREEING:
        return ""
    return f"; repeated measurements scatter by {repeated.sigma:.4g}, {ratio:.2g} times as much"


def sigma_from_background(data: NDArray[np.floating]) -> NoiseEstimate | None:
    """Noise level from the air around the body, by PIESNO (DIPY).

    PIESNO finds in every slice the voxels that contain only noise in all volumes [1]_. Their magnitudes must follow a
    Rayleigh distribution, as those of one channel (or of a SENSE combination) do.

    Parameters
    ----------
    data : ndarray, shape (x, y, z, n)
        Magnitudes as measured; denoising, or masking by the scanner, removes the background.

    Returns
    -------
    NoiseEstimate or None
        None if there is no such background.

    References
    ----------
    .. [1] Koay CG, Ozarslan E, Pierpaoli C. Journal of Magnetic Resonance 2009;199:94-103.
    """
    from dipy.denoise.noise_estimate import piesno

    if data.ndim != 4:
        raise ValueError(f"An image of shape (x, y, z, n) is needed, found the shape {data.shape}.")
    step = int(np.ceil(np.sqrt(max(data.shape[0] * data.shape[1] / LARGEST_SLICE, 1))))
    sample = np.array(data[::step, ::step], dtype=np.float32)
    sample[~np.isfinite(sample).all(axis=-1)] = 0
    if not sample.any():
        return None
    with np.errstate(divide="ignore", invalid="ignore"):
        sigmas, air = piesno(sample, N=1, return_mask=True)
    found = air.sum()
    known = sigmas[air.any(axis=(0, 1)) & (sigmas > 0)]
    if found < LEAST_BACKGROUND * air.size or known.size == 0:
        return None
    magnitudes = sample[air].astype(float)
    if abs(magnitudes.mean() ** 2 / (magnitudes**2).mean() / (np.pi / 4) - 1) > RAYLEIGH_TOLERANCE:
        return None
    return NoiseEstimate(
        float(np.median(known)),
        f"background of the image (PIESNO, DIPY): {100 * found / air.size:.0f} % of its voxels, median over slices",
    )


def repeats(acquisition: Acquisition) -> list[NDArray[np.intp]]:
    """Groups of measurements of the same shell and direction; at b = 0 direction is ignored.

    Measurements with unknown (zero) directions form no groups.
    """
    groups = []
    for shell in acquisition.shells:
        low = acquisition.b_values[shell.indices] <= B0_TOLERANCE
        same = low[:, None] & low | np.eye(low.size, dtype=bool)
        if acquisition.directions is not None:
            same |= same_directions(acquisition.directions[shell.indices])
        left = np.ones(low.size, dtype=bool)
        while left.any():
            group = left & same[np.argmax(left)]
            groups.append(shell.indices[group])
            left &= ~group
    return groups
