"""Rician bias of the mean of a shell.

Below the noise floor no amplitude has a single magnitude as its mean: inverting the Rician mean one magnitude at a time
sets it to 0, and the mean of the others keeps most of the bias. Here the bias is taken at an amplitude that is
predicted from all measurements of the shell, and subtracted from every magnitude. The prediction is the mean where
directions are not known, and else its best linear predictor, with the covariance of one fibre (`bidsfit.directions`)
scaled to how much the signal of the voxel varies between the directions.
"""

from __future__ import annotations

from typing import NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

from bidsfit.acquisition import Acquisition
from bidsfit.compiling import cached
from bidsfit.estimators.rician_bias import bias_table, rician_bias

#: The iteration ends where no amplitude changes by more than this fraction of the noise level, or here.
TOLERANCE, ITERATIONS = 1e-3, 8
#: Step of the slope of the mean magnitude, in noise levels.
NEAR = 0.01
#: Least slope of the mean magnitude with the amplitude: at the floor it is 0, where no magnitude would tell anything.
LEAST_SLOPE = 0.4
#: Variations between directions with less than this fraction of the largest variance are left out.
NEGLIGIBLE = 1e-4


class Predictor(NamedTuple):
    """What predicts the amplitudes of a shell of n measurements, with p variations between directions."""

    indices: NDArray[np.intp]  # (n,), of its measurements
    weights: NDArray[np.float64]  # (n,), of the mean
    counts: NDArray[np.float64]  # (n,)
    forward: NDArray[np.float64]  # (p, n), from measurements to variations with independent noise
    backward: NDArray[np.float64]  # (n, p), and back
    spectrum: NDArray[np.float64]  # (p,), their variances for one fibre
    between: float  # variance between the directions for one fibre


def make_predictors(acquisition: Acquisition) -> list[Predictor]:
    """The predictor of every shell."""
    predictors = []
    for shell, sampling in zip(acquisition.shells, acquisition.samplings, strict=True):
        counts = acquisition.weights[shell.indices]
        n, weights, between = counts.size, counts / counts.sum(), 0.0
        spectrum, forward, backward = np.empty(0), np.empty((0, n)), np.empty((n, 0))
        if sampling is not None and sampling.between > 0:
            weights, between = sampling.weights, sampling.between
            root = np.sqrt(counts)
            spectrum, vectors = np.linalg.eigh(root[:, None] * sampling.covariance * root)
            kept = spectrum > NEGLIGIBLE * spectrum[-1]
            spectrum, vectors = spectrum[kept], vectors[:, kept]
            forward, backward = np.ascontiguousarray(vectors.T * root), vectors / root[:, None]
        predictors.append(
            Predictor(shell.indices, weights, counts, forward, np.ascontiguousarray(backward), spectrum, between)
        )
    return predictors


def remove_bias_of_means(
    magnitudes: NDArray[np.float64], sigma: NDArray[np.float64], predictors: list[Predictor]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Magnitudes (n_voxels, n) whose shell means have no Rician bias, and how much larger the variance of these is.

    Single magnitudes are not the amplitudes of the measurements, and may be negative. The variance of the mean of a
    shell, (n_voxels, n_shells), is relative to that of the noise: amplitudes near the floor follow less certainly from
    magnitudes. Where sigma is not positive, magnitudes are unchanged.
    """
    corrected, variance = magnitudes.copy(), np.ones((len(magnitudes), len(predictors)))
    for k, predictor in enumerate(predictors):
        _correct(magnitudes, sigma, *predictor, bias_table(), corrected, variance[:, k])
    return corrected, variance


@cached
@numba.njit(nogil=True, error_model="numpy", fastmath={"reassoc", "contract"})
def _correct(
    magnitudes: NDArray,
    sigma: NDArray,
    indices: NDArray,
    weights: NDArray,
    counts: NDArray,
    forward: NDArray,
    backward: NDArray,
    spectrum: NDArray,
    between: float,
    table: NDArray,
    corrected: NDArray,
    variance: NDArray,
) -> None:
    """Correct the magnitudes of one shell, and give the variance of their mean; see `Predictor`."""
    n, p, total = indices.size, spectrum.size, counts.sum()
    y, amplitude, unbiased, variation = np.empty(n), np.empty(n), np.empty(n), np.empty(p)
    for v in range(magnitudes.shape[0]):
        if not 0.0 < sigma[v] < np.inf:
            continue
        mean = 0.0
        for i in range(n):
            y[i] = magnitudes[v, indices[i]] / sigma[v]
            mean += weights[i] * y[i]
        if not np.isfinite(mean):
            continue
        amplitude[:], noise = max(mean, 0.0), 1.0
        for _ in range(ITERATIONS):
            mean, plain, noise = 0.0, 0.0, 0.0
            for i in range(n):
                bias = rician_bias(amplitude[i], 1.0, table)
                unbiased[i] = y[i] - bias
                # variance of the magnitude, 2 + A^2 - (A + bias)^2: it is smaller near the floor
                noise += counts[i] / total * (2.0 - bias * (2.0 * amplitude[i] + bias))
                mean += weights[i] * unbiased[i]
                plain += counts[i] / total * unbiased[i]
            scale = 0.0  # of the covariance, relative to the noise
            if p > 0:
                squares = 0.0
                for i in range(n):
                    squares += counts[i] * (unbiased[i] - plain) ** 2
                scale = max(squares / (n - 1.0) - noise, 0.0) / (between * noise)
            if scale > 0.0:
                for j in range(p):
                    part = 0.0
                    for i in range(n):
                        part += forward[j, i] * (unbiased[i] - mean)
                    variation[j] = part * scale * spectrum[j] / (scale * spectrum[j] + 1.0)
            change = 0.0
            for i in range(n):
                part = mean
                if scale > 0.0:
                    for j in range(p):
                        part += backward[i, j] * variation[j]
                part = max(part, 0.0)
                change = max(change, abs(part - amplitude[i]))
                amplitude[i] = part
            if change < TOLERANCE:
                break
        slope = 0.0
        for i in range(n):
            bias = rician_bias(amplitude[i], 1.0, table)
            corrected[v, indices[i]] = (y[i] - bias) * sigma[v]
            slope += weights[i] * (1.0 + (rician_bias(amplitude[i] + NEAR, 1.0, table) - bias) / NEAR)
        variance[v] = max(noise / max(slope, LEAST_SLOPE) ** 2, 1.0)
