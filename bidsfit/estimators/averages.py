"""From the measurements of a voxel to the averages that are fitted, and the error that the directions leave in them."""

from __future__ import annotations

from typing import NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

from bidsfit.acquisition import Acquisition, Averaging
from bidsfit.compiling import cached
from bidsfit.estimators.debiasing import make_predictors, remove_bias_of_means
from bidsfit.models.signal_model import SignalModel
from bidsfit.noise import remove_rician_bias


class Averaged(NamedTuple):
    """Averages of n voxels.

    Attributes
    ----------
    signals : ndarray, shape (n, n_averages)
    missing : ndarray of bool, shape (n,)
        Whether a measurement is missing.
    variance : ndarray, shape (n, n_averages), or None
        What is added to the variance of the noise of an average: by the directions of a shell, and by removing the
        Rician bias of its mean. None where there is neither.
    directions : ndarray, shape (n, n_averages), or None
        The part of the directions; None where means over the sphere are not asked for, or directions are not known.
    """

    signals: NDArray
    missing: NDArray[np.bool_]
    variance: NDArray[np.float64] | None = None
    directions: NDArray[np.float64] | None = None


class Averages:
    """Averages the measurements that a model describes.

    Missing measurements (exactly 0, while others of the voxel are positive) are left out; an average of none is NaN.

    Parameters
    ----------
    model : SignalModel
    acquisition : Acquisition
        Of all measurements.
    kind : {"arithmetic", "geometric", "none"}
    debias : bool
        Remove the Rician bias: of arithmetic means of shells (`bidsfit.estimators.debiasing`), or else of single
        magnitudes (`bidsfit.noise.remove_rician_bias`).

    Attributes
    ----------
    acquisition : Acquisition
        Of the averages.
    adds_variance : bool
        Whether `Averaged.variance` is given.
    """

    def __init__(self, model: SignalModel, acquisition: Acquisition, kind: Averaging, *, debias: bool = False) -> None:
        used = model.usable(acquisition)
        self._used = None if used.size == len(acquisition) else used
        self._dtype = complex if model.complex_valued else float
        self._debias = debias
        self._of_means = debias and kind == "arithmetic" and model.averaged and not model.complex_valued
        measured = acquisition.select(used)
        self._average = model.average(measured, kind)
        self._predictors = make_predictors(measured) if self._of_means else []
        self.acquisition = self._average.acquisition
        self._counts = measured.weights
        self._order = np.argsort(self._average.rows, kind="stable")  # measurements shell by shell
        self._ends = np.cumsum(np.bincount(self._average.rows))
        samplings = self._average.samplings
        self._shares = np.array([0.0 if sampling is None else sampling.share for sampling in samplings])
        self._uneven = bool(self._shares.any())
        self.adds_variance = self._uneven or self._of_means

    def __call__(self, signals: NDArray, noise: NDArray[np.float64]) -> Averaged:
        """Average signals (n, n_measurements) with the noise levels (n,), NaN where not known."""
        measured = np.asarray(signals, dtype=self._dtype)
        if self._used is not None:
            measured = measured.take(self._used, axis=1)
        missing, variance = measured == 0, None
        if missing.any():
            missing &= np.any(measured.real > 0, axis=1, keepdims=True)
        some_missing = missing.any()
        if self._of_means:
            if some_missing:  # they shall not count: the mean of the others takes their place
                measured = np.where(missing, self._average(measured, missing)[:, self._average.rows], measured)
            measured, larger = remove_bias_of_means(measured, noise, self._predictors)
            variance = np.nan_to_num(noise)[:, None] ** 2 / self.acquisition.weights * (larger - 1)
        elif self._debias:
            measured = remove_rician_bias(measured, noise[:, None])
        found = self._average(measured, missing if some_missing else None)
        if not self._uneven:
            return Averaged(found, missing.any(axis=1), variance)
        directions, noise = np.empty(found.shape), np.require(noise, requirements=("C", "W"))  # one type to numba
        some = missing if some_missing else np.empty((0, 0), dtype=np.bool_)
        _fill_variance(measured, some, noise, self._order, self._ends, self._counts, self._shares, directions)
        return Averaged(
            found, missing.any(axis=1), directions if variance is None else variance + directions, directions
        )


@cached
@numba.njit(nogil=True, error_model="numpy", fastmath={"reassoc", "contract"})
def _fill_variance(
    signals: NDArray,
    missing: NDArray,
    noise: NDArray,
    order: NDArray,
    ends: NDArray,
    counts: NDArray,
    shares: NDArray,
    variance: NDArray,
) -> None:
    """A share of the variance between the directions of every shell, that of the noise taken off where it is known.

    ``order`` holds the indices of the measurements shell by shell, and ``ends`` where each shell ends.
    """
    some_missing = missing.size > 0
    for v in range(signals.shape[0]):
        known = noise[v] ** 2 if noise[v] > 0.0 else 0.0
        start = 0
        for k in range(ends.size):
            end, number, total, first, second = ends[k], 0.0, 0.0, 0.0, 0.0
            if shares[k] > 0.0:
                origin = signals[v, order[start]]  # near the mean, so that squares do not cancel
                for j in range(start, end):
                    i = order[j]
                    here = 0.0 if some_missing and missing[v, i] else 1.0
                    weight, away = here * counts[i], signals[v, i] - origin
                    number += here
                    total += weight
                    first += weight * away
                    second += weight * away * away
            between = (second - first * first / total) / (number - 1.0) - known if number > 1.0 else 0.0
            variance[v, k] = shares[k] * max(between, 0.0)
            start = end
