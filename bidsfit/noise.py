"""Noise of magnitude images: how it is drawn."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

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
