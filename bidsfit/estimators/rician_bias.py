"""Excess of the mean of a Rician magnitude over its amplitude, for compiled functions."""

from __future__ import annotations

from functools import cache

import numba
import numpy as np
from numpy.typing import NDArray

from bidsfit.noise import rician_mean

#: Entries of the table.
STEPS = 1024


@cache
def bias_table() -> NDArray[np.float64]:
    """The excess for sigma = 1, shape (STEPS + 2,), at equally spaced 1 / (1 + amplitude)."""
    amplitude = STEPS / np.arange(1, STEPS + 1) - 1
    bias = rician_mean(amplitude, 1.0) - amplitude
    return np.concatenate([[0.0], bias, bias[-1:]])


@numba.njit(error_model="numpy", forceinline=True, _nrt=False)  # type: ignore[call-overload]
def rician_bias(amplitude: float, sigma: float, table: NDArray) -> float:
    """The excess for any sigma, interpolated in `bias_table`; 0 where sigma is 0."""
    if sigma == 0.0:
        return 0.0
    position = STEPS * sigma / (sigma + max(amplitude, 0.0))
    k = int(position)
    return sigma * (table[k] + (position - k) * (table[k + 1] - table[k]))
