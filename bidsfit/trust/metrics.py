"""Error measures of estimates whose truth is known."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata


class Accuracy(NamedTuple):
    """Mean, bias, standard deviation and root mean square error over the noise, shape (n_points,); NaN is ignored."""

    mean: NDArray[np.float64]
    bias: NDArray[np.float64]
    sd: NDArray[np.float64]
    rmse: NDArray[np.float64]


def accuracy(estimates: NDArray[np.float64], truth: NDArray[np.float64]) -> Accuracy:
    """Mean, bias, standard deviation and root mean square error of repeated estimates.

    Parameters
    ----------
    estimates : ndarray, shape (n_points * n_repeats,)
        All repeats of the first point, then those of the second, and so on.
    truth : ndarray, shape (n_points,)
    """
    repeated = estimates.reshape(truth.size, -1)
    mean = np.nanmean(repeated, axis=1)
    return Accuracy(
        mean=mean,
        bias=mean - truth,
        sd=np.nanstd(repeated, axis=1),
        rmse=np.sqrt(np.nanmean((repeated - truth[:, None]) ** 2, axis=1)),
    )


def rank_correlation(estimates: NDArray[np.float64]) -> NDArray[np.float64]:
    """Absolute Spearman correlations between estimated parameters, shape (n_parameters, n_parameters).

    ``estimates`` has shape (n, n_parameters). Where a parameter is constant its correlations are 1 (Kaandorp et al.,
    Magnetic Resonance in Medicine 2021;86:2250-2265), because an estimator that always tells the same has collapsed.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        found = np.abs(np.corrcoef(rankdata(estimates, axis=0), rowvar=False))
    return np.where(np.isnan(found), 1.0, found)


def network_variation(estimates: NDArray[np.floating], truth: NDArray[np.float64]) -> NDArray[np.float64]:
    """Standard deviation between trainings relative to the mean truth, shape (n_parameters,): CV_NET.

    ``estimates`` of the same n voxels by m networks have shape (m, n, n_parameters), ``truth`` (n, n_parameters). As
    Kaandorp et al. (Magnetic Resonance in Medicine 2021;86:2250-2265) define it, squares are divided by n m - 1.
    """
    apart = (estimates - estimates.mean(axis=0)).reshape(-1, estimates.shape[-1])
    return np.asarray(np.sqrt((apart**2).sum(axis=0) / (len(apart) - 1)) / truth.mean(axis=0))


def cohen_d(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    """Cohen's d: difference of means divided by the pooled standard deviation; positive if the first mean is larger."""
    first, second = first[np.isfinite(first)], second[np.isfinite(second)]
    freedom = first.size + second.size - 2
    squares = first.var(ddof=1) * (first.size - 1) + second.var(ddof=1) * (second.size - 1)
    difference = float(first.mean() - second.mean())
    pooled = float(np.sqrt(squares / freedom))
    if pooled == 0:
        return 0.0 if difference == 0 else float(np.copysign(np.inf, difference))
    return difference / pooled


class PercentageErrors(NamedTuple):
    """Errors relative to the truth, in per cent, of shape (n_parameters,)."""

    mdape: NDArray[np.float64]
    mdpe: NDArray[np.float64]
    mape: NDArray[np.float64]


def percentage_errors(estimates: NDArray[np.floating], truth: NDArray[np.float64]) -> PercentageErrors:
    """Median of their sizes, median with their signs, and mean of their sizes (MDAPE, MDPE, MAPE).

    ``estimates`` and ``truth`` have the shape (n, n_parameters); the truth is above 0. NaN is ignored.
    """
    errors = 100 * (estimates - truth) / truth
    size = np.abs(errors)
    return PercentageErrors(np.nanmedian(size, axis=0), np.nanmedian(errors, axis=0), np.nanmean(size, axis=0))
