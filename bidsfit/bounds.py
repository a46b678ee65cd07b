"""Fisher information and the Cramér-Rao bound of any model and acquisition: the floor under every estimator."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.interpolate import CubicSpline
from scipy.special import ive

from bidsfit.acquisition import Acquisition
from bidsfit.models.signal_model import SignalModel

NoiseKind = Literal["gaussian", "rician"]

#: Voxels whose Jacobians are in memory at a time.
CHUNK = 4096
#: A direction of parameter space whose (scaled) information is smaller than this fraction of the largest is unknown.
SINGULAR = 1e-12


def rician_information(amplitude: ArrayLike) -> NDArray[np.float64]:
    r"""Fisher information about the amplitude in one Rician measurement, relative to a Gaussian one.

    :math:`g(a) = E[x^2 (I_1(xa)/I_0(xa))^2] - a^2` for x distributed as Rice(a, 1): it grows as :math:`a^2` from 0 and
    approaches 1.

    Parameters
    ----------
    amplitude : array_like
        True signal / sigma, not negative.

    Returns
    -------
    ndarray, of the shape of ``amplitude``
    """
    a = np.asarray(amplitude, dtype=float)
    table, largest = _information_table()
    inside = np.minimum(a, largest)
    return np.where(a > largest, 1.0 - 0.5 / np.maximum(a, largest) ** 2, np.clip(table(inside), 0.0, 1.0))


@cache
def _information_table() -> tuple[CubicSpline, float]:
    """g(a) by Gauss-Legendre quadrature, and the largest a of the table."""
    a = np.concatenate([np.linspace(0, 8, 161), np.linspace(8.25, 30, 88)])[:, None]
    nodes, weights = np.polynomial.legendre.leggauss(400)
    low, high = np.maximum(a - 10, 0), a + 10
    x = low + (nodes + 1) * (high - low) / 2
    density = x * np.exp(-((x - a) ** 2) / 2) * ive(0, x * a)
    ratio = ive(1, x * a) / ive(0, x * a)
    second_moment = np.sum(density * (x * ratio) ** 2 * weights, axis=1) * (high - low)[:, 0] / 2
    return CubicSpline(a[:, 0], second_moment - a[:, 0] ** 2), float(a[-1, 0])


def fisher_information(
    model: SignalModel,
    parameters: Mapping[str, ArrayLike] | ArrayLike,
    acquisition: Acquisition,
    sigma: ArrayLike,
    noise: NoiseKind = "gaussian",
) -> NDArray[np.float64]:
    r"""Fisher information of the parameters, :math:`J^T \mathrm{diag}(n_i g(S_i/\sigma)) J / \sigma^2`.

    Parameters
    ----------
    model : SignalModel
    parameters : mapping of name to array, or array of shape (..., n_parameters)
    acquisition : Acquisition
        An entry that stands for n averaged measurements counts n times.
    sigma : array_like, broadcastable to (...)
        Standard deviation of the noise of one measurement (of one channel where it is Rician).
    noise : {"gaussian", "rician"}

    Returns
    -------
    ndarray, shape (..., n_parameters, n_parameters)
    """
    if noise not in ("gaussian", "rician"):
        raise ValueError(f"Unknown kind of noise {noise!r}; valid: gaussian, rician.")
    signal, jacobian = model.signal_and_jacobian(parameters, acquisition)
    spread = np.broadcast_to(np.asarray(sigma, dtype=float), signal.shape[:-1])[..., None]
    weights = acquisition.weights / spread**2
    if noise == "rician":
        weights = weights * rician_information(np.abs(signal) / spread)
    return np.einsum("...nj,...n,...nk->...jk", jacobian, weights, jacobian)


def cramer_rao_bound(
    model: SignalModel,
    parameters: Mapping[str, ArrayLike] | ArrayLike,
    acquisition: Acquisition,
    sigma: ArrayLike,
    noise: NoiseKind = "gaussian",
    *,
    fixed: tuple[str, ...] = (),
) -> dict[str, NDArray[np.float64]]:
    """Smallest standard deviation that an unbiased estimator can have, for each parameter.

    Parameters
    ----------
    model, parameters, acquisition, sigma, noise
        As in `fisher_information`.
    fixed : tuple of str
        Parameters that are known; their bound is 0.

    Returns
    -------
    dict of name to ndarray, shape (...)
        Infinite where the measurements do not determine a parameter (D* of IVIM where f is 0); NaN where the
        parameters are.
    """
    array = model.parameter_array(parameters)
    flat = array.reshape(-1, array.shape[-1])
    spread = np.broadcast_to(np.asarray(sigma, dtype=float), array.shape[:-1]).reshape(-1)
    free = np.array([name not in fixed for name in model.names])
    bound: NDArray = np.zeros(flat.shape)
    for start in range(0, len(flat), CHUNK):
        rows = slice(start, start + CHUNK)
        information = fisher_information(model, flat[rows], acquisition, spread[rows], noise)
        bound[rows, free] = np.sqrt(_diagonal_of_inverse(information[:, free][:, :, free]))
    bound = bound.reshape(array.shape)
    return {name: bound[..., j] for j, name in enumerate(model.names)}


def _diagonal_of_inverse(information: NDArray[np.float64]) -> NDArray[np.float64]:
    """Diagonal of the inverse of matrices of shape (n, p, p); infinite for what they do not determine."""
    diagonal: NDArray = np.diagonal(information, axis1=1, axis2=2)
    bad: NDArray = np.logical_not(np.isfinite(information).all(axis=(1, 2)))
    unknown = (diagonal <= 0) | bad[:, None]
    scale: NDArray = np.sqrt(np.where(unknown, 1.0, diagonal))
    scaled: NDArray = information / (scale[:, :, None] * scale[:, None, :])
    scaled = np.where(unknown[:, :, None] | unknown[:, None, :], np.eye(scaled.shape[1]), scaled)
    values, vectors = np.linalg.eigh(scaled)
    lost = values <= SINGULAR * values[:, -1:]
    inverse = np.where(lost, 0.0, 1.0 / np.where(lost, 1.0, values))
    found = np.einsum("njk,nk->nj", vectors**2, inverse) / scale**2
    undetermined = unknown | (np.einsum("njk,nk->nj", vectors**2, lost.astype(float)) > 1e-6)
    found = np.where(undetermined, np.inf, found)
    return np.where(bad[:, None], np.nan, found)
