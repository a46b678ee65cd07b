"""Fits whose parameters must meet linear inequalities, as a kurtosis that is negative along no direction."""

from __future__ import annotations

from contextlib import suppress

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

from bidsfit.acquisition import Acquisition
from bidsfit.models.signal_model import SignalModel

#: For methods texts.
IN_WORDS = "Where diffusivity or kurtosis came out negative along a direction, both were constrained not to be"
#: Inequalities that are missed by less, in their own unit, are met; those that are met by less are at their limit.
MARGIN = 1e-8
#: Least eigenvalue that normal matrices are taken to have, relative to their diagonal, for some are singular.
DAMPING = 1e-12
#: Most steps of a fit, and the relative gain below which it ends.
STEPS, GAIN = 20, 1e-5


def violated(found: NDArray[np.float64], cone: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which of the parameters (n, p) miss an inequality ``cone @ parameters >= 0``; cone has shape (m, p)."""
    return np.asarray((found @ cone.T < -MARGIN).any(axis=1))


def at_limit(found: NDArray[np.float64], cone: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which of the parameters (n, p) meet an inequality by hardly more than 0."""
    return np.asarray((found @ cone.T < MARGIN).any(axis=1))


def nearest(found: NDArray[np.float64], normal: NDArray[np.float64], cone: NDArray[np.float64]) -> NDArray[np.float64]:
    """Minimisers x of (x - found)^T normal (x - found) that meet ``cone @ x >= 0``.

    Parameters
    ----------
    found : ndarray, shape (n, p)
    normal : ndarray, shape (n, p, p)
        Symmetric matrices; they may be singular.
    cone : ndarray, shape (m, p)

    Notes
    -----
    With a root of the matrix, x is a point of least distance under inequalities, which follows from a problem of
    non-negative least squares (Lawson CL, Hanson RJ. Solving least squares problems, 1974, chapter 23).
    """
    moved = found.copy()
    missed = np.flatnonzero(violated(found, cone) & np.isfinite(normal).all(axis=(1, 2)))
    normal, target = normal[missed], np.append(np.zeros(cone.shape[1]), 1.0)
    scale = 1 / np.sqrt(np.maximum(np.einsum("vpp->vp", normal), 1e-300))
    values, vectors = np.linalg.eigh(normal * scale[:, :, None] * scale[:, None, :])
    roots = scale[:, :, None] * vectors / np.sqrt(np.maximum(values, DAMPING))[:, None, :]  # of the inverses
    for v, root in zip(missed, roots, strict=True):
        short = -cone @ found[v]
        unit = np.abs(short).max()  # no rounding error where all are missed by little
        matrix = np.vstack([(cone @ root).T, short / unit])
        with suppress(RuntimeError):  # of signals that are none: left as they are
            rest = matrix @ nnls(matrix, target)[0] - target
            if rest[-1] != 0:
                moved[v] -= root @ (rest[:-1] / rest[-1] * unit)
    return moved


def least_squares(
    model: SignalModel,
    acquisition: Acquisition,
    y: NDArray[np.float64],
    found: NDArray[np.float64],
    cone: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Non-linear least squares under inequalities, from the unconstrained solution.

    Where that ran away, as in noise without a signal, the start is the largest signal and 0 in all else, which meets
    every inequality. Every step minimises the sum of squares of the signals linearised at the last point under the
    inequalities, and is halved until the sum falls (sequential quadratic programming).

    Parameters
    ----------
    y : ndarray, shape (n, n_measurements)
    found : ndarray, shape (n, p)
        Solutions of which each misses an inequality.
    cone : ndarray, shape (m, p)

    Returns
    -------
    parameters, squares : ndarray, shapes (n, p) and (n,)
    """
    counts = acquisition.weights

    def squares_at(points: NDArray[np.float64], rows: NDArray[np.intp]) -> NDArray[np.float64]:
        with np.errstate(over="ignore"):
            return np.asarray((y[rows] - model.signal(points, acquisition)) ** 2 @ counts)

    rows = np.arange(len(y))
    _, jacobian = model.signal_and_jacobian(found, acquisition)
    points = nearest(found, np.einsum("vkp,k,vkq->vpq", jacobian, counts, jacobian, optimize=True), cone)
    still = np.zeros_like(points)
    still[:, model.scale_index] = np.abs(y).max(axis=1)
    cost, least = squares_at(points, rows), squares_at(still, rows)
    lost = ~(cost <= least)  # what is not finite, too
    points[lost], cost[lost] = still[lost], least[lost]
    for _ in range(STEPS):
        signal, jacobian = model.signal_and_jacobian(points[rows], acquisition)
        weighted = jacobian * counts[:, None]
        normal = np.einsum("vkp,vkq->vpq", weighted, jacobian, optimize=True)
        slope = np.einsum("vkp,vk->vp", weighted, y[rows] - signal)
        diagonal = np.einsum("vpp->vp", normal)
        diagonal = np.maximum(diagonal, 1e-12 * diagonal.sum(axis=1, keepdims=True) + 1e-300)
        damped = normal + DAMPING * diagonal[..., None] * np.eye(points.shape[1])
        aim = nearest(points[rows] + np.linalg.solve(damped, slope[..., None])[..., 0], normal, cone) - points[rows]
        before, size = cost[rows], np.ones(len(rows))
        for _ in range(STEPS):
            trial = points[rows] + size[:, None] * aim
            better = squares_at(trial, rows) <= before
            if better.all():
                break
            size[~better] /= 2
        trial[~better] = points[rows][~better]
        points[rows], cost[rows] = trial, squares_at(trial, rows)
        rows = rows[before - cost[rows] > GAIN * before]
        if not rows.size:
            break
    return points, cost
