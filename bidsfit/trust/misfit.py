"""How far signals lie from a fitted model, measured by their noise."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

from bidsfit.acquisition import Acquisition
from bidsfit.estimators.estimator import CHUNK, Estimate, Estimator, Signals
from bidsfit.models.signal_model import SignalModel, as_real
from bidsfit.simulation.simulator import Features

#: Number of the scores.
SCORES = 2
#: Smallest probability that is told apart.
LEAST = 1e-300


def misfit_scores(
    model: SignalModel,
    acquisition: Acquisition,
    signals: NDArray,
    parameters: NDArray[np.float64],
    variance: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Two measures of the residuals of voxels, on scales where they are nearly normally distributed: shape (n, 2).

    The cube root of the sum of squared residuals (Wilson and Hilferty), which tells that all lie too far, and the
    normal score of the largest one, which tells that a single one does.

    Parameters
    ----------
    acquisition : Acquisition
        Of the averages.
    signals : ndarray, shape (n, n_averages)
    parameters : ndarray, shape (n, n_parameters)
    variance : ndarray, shape (n, n_averages)
        Of the noise of every average.
    """
    residual = as_real(signals - model.signal(parameters, acquisition))
    with np.errstate(divide="ignore", invalid="ignore"):
        residual = residual / np.sqrt(np.tile(variance, 1 + model.complex_valued))
        beyond = 2 * ndtr(-np.abs(residual).max(axis=1))  # probability of one residual
        beyond = -np.expm1(residual.shape[1] * np.log1p(-np.clip(beyond, LEAST, 1 - 1e-12)))  # of the largest
    return np.column_stack([np.cbrt((residual**2).sum(axis=1)), -ndtri(np.clip(beyond, LEAST, 1 - 1e-12))])


class Looked(NamedTuple):
    """What the signals of voxels tell beside their estimate.

    Attributes
    ----------
    scores : ndarray, shape (n, 2)
        Of the misfit, see `misfit_scores`.
    outside : ndarray of bool, shape (n,)
        Where the signals are unlike those of the training.
    beside : ndarray, shape (n, n_parameters), or None
        The least-squares fit, of whose residuals the misfit is then.
    """

    scores: NDArray[np.float64]
    outside: NDArray[np.bool_]
    beside: NDArray[np.float64] | None


def look_at_signals(
    estimator: Estimator,
    estimate: Estimate,
    signals: Signals,
    acquisition: Acquisition,
    sigma: NDArray[np.float64],
    beside: Estimator | None = None,
    threads: int = 1,
) -> Looked:
    """Look at the signals of voxels: what their estimates do not tell.

    Parameters
    ----------
    estimator : Estimator
    estimate : Estimate
        Of rows of voxels.
    signals, acquisition
        As `Estimator.estimate` takes them.
    sigma : ndarray, shape (n,)
        Standard deviation of the noise of one measurement.
    beside : Estimator, optional
        `bidsfit.trust.monte_carlo.least_squares_beside`.
    threads : int
    """
    points = estimate.points
    whole = points if beside is None else beside.estimate(signals, acquisition, sigma, threads=threads).points
    model, averages = estimator.model, estimator.averages(acquisition)
    features, domain = Features(model, averages.acquisition), getattr(estimator, "domain", None)
    scores, outside = np.full((len(sigma), SCORES), np.nan), np.zeros(len(sigma), dtype=bool)

    def look(start: int) -> None:
        rows = slice(start, start + CHUNK)
        averaged = averages(signals[rows], sigma[rows])
        found, nearest = points[rows], whole[rows]
        variance = sigma[rows, None] ** 2 / averages.acquisition.weights
        added = 0.0 if averaged.variance is None else averaged.variance
        finite = (np.isfinite(values).all(axis=1) for values in (averaged.signals, found, nearest))
        good = np.all([*finite, sigma[rows] > 0], axis=0)
        scores[rows][good] = misfit_scores(
            model, averages.acquisition, averaged.signals[good], nearest[good], (variance + added)[good]
        )
        if domain is not None:
            s0 = np.ones(good.sum()) if model.scale is None else found[good, model.scale_index]
            known = features(averaged.signals[good]) * np.sqrt(features.counts)
            outside[rows][good] = (s0 > 0) & domain.excludes(known, np.fmax(s0, LEAST) / sigma[rows][good])

    with ThreadPoolExecutor(max(threads, 1)) as pool:
        list(pool.map(look, range(0, len(sigma), CHUNK)))
    return Looked(scores, outside, None if beside is None else whole)
