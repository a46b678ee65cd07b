"""Noise of magnitude images: how it is drawn, and how its level is found."""

from __future__ import annotations

from functools import cache
from typing import Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ive
from scipy.stats import chi2

from bidsfit.acquisition import SHELL_TOLERANCE_ABSOLUTE, Acquisition, count_directions

NoiseKind = Literal["gaussian", "rician"]


def add_noise(signals: ArrayLike, sigma: ArrayLike, kind: NoiseKind, rng: np.random.Generator) -> NDArray[np.float64]:
    r"""Noisy copies of noise-free signals.

    Parameters
    ----------
    signals : array_like, shape (...)
        Noise-free signals, not negative where the noise is Rician (they are magnitudes).
    sigma : array_like, broadcastable to the signals
        Standard deviation of the Gaussian noise of one channel, in the units of the signals.
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
    signals = np.asarray(signals, dtype=float)
    sigma = np.asarray(sigma, dtype=float)
    if kind not in get_args(NoiseKind):
        raise ValueError(f"Unknown kind of noise {kind!r}; valid: {', '.join(get_args(NoiseKind))}.")
    if not np.all(sigma >= 0):
        raise ValueError(f"The standard deviation of noise cannot be negative or NaN, found {sigma.min()}.")
    real = signals + sigma * rng.standard_normal(signals.shape)
    if kind == "gaussian":
        return real
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


def remove_rician_bias(magnitude: ArrayLike, sigma: ArrayLike) -> NDArray[np.float64]:
    """Amplitude whose Rician mean is the magnitude that was measured; 0 below the noise floor.

    The correction that Kaden's tools make before a Gaussian fit: it takes the bias of the mean away, not of every
    single magnitude, and leaves values that are no longer Gaussian near the floor.

    Parameters
    ----------
    magnitude, sigma : array_like
        Shapes broadcast. Where sigma is 0 the magnitude comes back as it is.
    """
    magnitude, sigma = np.broadcast_arrays(np.asarray(magnitude, dtype=float), np.asarray(sigma, dtype=float))
    means, amplitudes = _rician_mean_table()
    noisy = sigma > 0
    ratio = magnitude / np.where(noisy, sigma, 1.0)
    inside = np.interp(ratio, means, amplitudes)  # 0 below the floor
    beyond = ratio - 0.5 / np.maximum(ratio, 1.0)  # E[m] = A + sigma^2 / 2A + ... far above it
    return np.where(noisy, np.where(ratio < means[-1], inside, beyond) * sigma, magnitude)


@cache
def _rician_mean_table() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Means and amplitudes for sigma 1, close together where the curve bends."""
    amplitudes = np.concatenate([np.linspace(0, 1, 2001) ** 2 * 2, np.linspace(2, 50, 9601)[1:]])
    return rician_mean(amplitudes, 1.0), amplitudes


class NoiseEstimate(NamedTuple):
    """Standard deviation of the noise of one measurement, and how it was found."""

    sigma: float
    method: str


def sigma_from_repeats(
    signals: NDArray[np.float64], acquisition: Acquisition, *, maximum_b: float = np.inf
) -> NoiseEstimate | None:
    """Noise from measurements that were repeated with the same b-value and direction.

    The variance of the repeats is pooled over the groups of repeats in each voxel; the median over the voxels, which
    vessels and edges do not move, is corrected for being the median of a chi-square distribution.

    Parameters
    ----------
    signals : ndarray, shape (n_voxels, n_measurements)
    acquisition : Acquisition
    maximum_b : float
        Repeats of higher b-values (s/mm^2) are not looked at.

    Returns
    -------
    NoiseEstimate or None
        None where nothing was repeated, or no voxel is finite.
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
    sigma = float(np.sqrt(np.median(squares) / chi2.median(freedom)))
    largest = max(groups, key=len)
    b = acquisition.b_values[largest].mean()
    groups_in_words = "1 group" if len(groups) == 1 else f"{len(groups)} groups"
    return NoiseEstimate(
        sigma,
        f"scatter of repeated measurements ({groups_in_words}, the largest {largest.size} at b = {b:.0f} s/mm²), "
        "median over the mask",
    )


def repeats(acquisition: Acquisition) -> list[NDArray[np.intp]]:
    """Groups of measurements of the same shell and direction; at b = 0 the direction does not matter."""
    groups = []
    for shell in acquisition.shells:
        left = list(shell.indices)
        while left:
            first = left[0]
            same = [i for i in left if _same_direction(acquisition, first, i)]
            groups.append(np.array(same, dtype=np.intp))
            left = [i for i in left if i not in same]
    return groups


def _same_direction(acquisition: Acquisition, i: int, j: int) -> bool:
    if acquisition.b_values[i] <= SHELL_TOLERANCE_ABSOLUTE and acquisition.b_values[j] <= SHELL_TOLERANCE_ABSOLUTE:
        return True
    return acquisition.directions is not None and count_directions(acquisition.directions[[i, j]]) == 1
