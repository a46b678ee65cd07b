"""Fisher information and Cramér-Rao bound for any model and acquisition."""

from __future__ import annotations

import math
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any, get_args

import numba
import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ive

from bidsfit.acquisition import Acquisition
from bidsfit.compiling import cached, specialised
from bidsfit.models.signal_model import SignalModel, as_real
from bidsfit.noise import NoiseKind

#: A direction of parameter space whose (scaled) information is smaller than this fraction of the largest is unknown.
SINGULAR = 1e-12
#: Pivots of the scaled information above it leave no doubt that all parameters are determined.
WELL_CONDITIONED = 1e-6
#: Steps of the table of g(a) in one unit of a, and the largest a: linear interpolation is good to 1e-5.
STEPS, LARGEST = 200, 30
#: Voxels whose information is held at a time, by one thread.
CHUNK = 8192
#: A combination of parameters is not determined where this fraction of it, squared, lies in unknown directions.
LOST = 1e-6
#: Compiled function of a model, which `specialised` puts here.
kernel: Any = None


def rician_information(amplitude: ArrayLike) -> NDArray[np.float64]:
    r"""Fisher information about the amplitude in one Rician measurement, relative to a Gaussian one.

    :math:`g(a) = E[x^2 (I_1(xa)/I_0(xa))^2] - a^2` for x distributed as Rice(a, 1): it grows as :math:`a^2` from 0 and
    approaches 1. ``amplitude`` is the true signal divided by sigma, not negative; the result has its shape.
    """
    a = np.asarray(amplitude, dtype=float)
    table = _information_table()
    inside = np.interp(a, np.arange(table.size) / STEPS, table)
    return np.where(a < LARGEST, inside, 1.0 - 0.5 / np.maximum(a, LARGEST) ** 2)


@cache
def _information_table() -> NDArray[np.float64]:
    """g(a) for a from 0 to `LARGEST`, by Gauss-Legendre quadrature and a spline."""
    from scipy.interpolate import CubicSpline  # takes a fifth of a second to import

    a = np.concatenate([np.linspace(0, 8, 161), np.linspace(8.25, LARGEST, 88)])[:, None]
    nodes, weights = np.polynomial.legendre.leggauss(400)
    low, high = np.maximum(a - 10, 0), a + 10
    x = low + (nodes + 1) * (high - low) / 2
    density = x * np.exp(-((x - a) ** 2) / 2) * ive(0, x * a)
    ratio = ive(1, x * a) / ive(0, x * a)
    second_moment = np.sum(density * (x * ratio) ** 2 * weights, axis=1) * (high - low)[:, 0] / 2
    spline = CubicSpline(a[:, 0], second_moment - a[:, 0] ** 2)
    return np.clip(spline(np.arange(LARGEST * STEPS + 1) / STEPS), 0.0, 1.0)


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
    array = model.parameter_array(parameters)
    spread = np.broadcast_to(np.asarray(sigma, dtype=float), array.shape[:-1])
    found = _information(model, array.reshape(-1, array.shape[-1]), acquisition, spread.reshape(-1), noise)
    return found.reshape(*array.shape, array.shape[-1])


def cramer_rao_bound(
    model: SignalModel,
    parameters: Mapping[str, ArrayLike] | ArrayLike,
    acquisition: Acquisition,
    sigma: ArrayLike,
    noise: NoiseKind = "gaussian",
    *,
    fixed: tuple[str, ...] = (),
    variance: NDArray[np.float64] | None = None,
    threads: int = 1,
) -> dict[str, NDArray[np.float64]]:
    """Cramér-Rao bound: smallest standard deviation of an unbiased estimator, per parameter and derived quantity.

    Parameters
    ----------
    model, parameters, acquisition, sigma, noise
        As in `fisher_information`.
    fixed : tuple of str
        Known parameters; their bound is 0.
    variance : ndarray, shape (..., n), optional
        Added to the variance that noise gives to each entry of the acquisition.
    threads : int

    Returns
    -------
    dict of name to ndarray, shape (...)
        Infinite where the measurements do not determine a parameter (D* of IVIM where f is 0); NaN where the parameters
        are. For an axis, an angle in radians.
    """
    array = model.parameter_array(parameters)
    flat = array.reshape(-1, array.shape[-1])
    spread = np.broadcast_to(np.asarray(sigma, dtype=float), array.shape[:-1]).reshape(-1)
    p, gradients = len(model.names), None
    if model.derived:
        slopes = model.derivation.gradients(flat)
        gradients = np.concatenate([np.broadcast_to(np.eye(p), (len(flat), p, p)), slopes], axis=1)
    added = None if variance is None else variance.reshape(-1, len(acquisition))
    bound = bound_of_voxels(
        model, flat, acquisition, spread, noise, gradients=gradients, fixed=fixed, variance=added, threads=threads
    )
    found = dict(zip(model.names, bound.T, strict=False)) | model.derivation.spreads(bound[:, p:])
    return {name: values.reshape(array.shape[:-1]) for name, values in found.items()}


def bound_of_voxels(
    model: SignalModel,
    parameters: NDArray[np.float64],
    acquisition: Acquisition,
    sigma: NDArray[np.float64],
    noise: NoiseKind = "gaussian",
    *,
    gradients: NDArray[np.float64] | None = None,
    fixed: tuple[str, ...] = (),
    variance: NDArray[np.float64] | None = None,
    threads: int = 1,
) -> NDArray[np.float64]:
    """Cramér-Rao bound of the parameters, or of functions of them, in every voxel.

    Parameters
    ----------
    model : SignalModel
    parameters : ndarray, shape (n_voxels, n_parameters)
    acquisition : Acquisition
    sigma : ndarray, shape (n_voxels,)
    noise : {"gaussian", "rician"}
    gradients : ndarray, shape (n_voxels, m, n_parameters), optional
        Derivatives of m quantities with respect to the parameters; by default the quantities are the parameters.
    fixed : tuple of str
        Parameters that are known.
    variance : ndarray, shape (n_voxels, n), optional
        Added to the variance that noise gives to each entry of the acquisition.
    threads : int

    Returns
    -------
    ndarray, shape (n_voxels, m)
        Infinite where the measurements do not determine a quantity, NaN where the parameters are.
    """
    n, p = parameters.shape
    free = np.array([j for j, name in enumerate(model.names) if name not in fixed], dtype=np.intp)
    own = np.eye(p)[None] if gradients is None else gradients
    bound = np.empty((n, own.shape[1]))

    def work(start: int) -> None:
        rows = slice(start, start + CHUNK)
        added = None if variance is None else variance[rows]
        information = _information(model, parameters[rows], acquisition, sigma[rows], noise, added)
        moved = own if gradients is None else own[rows]
        if free.size < p:
            information, moved = information[:, free[:, None], free], moved[:, :, free]
        _bound(np.ascontiguousarray(information), np.ascontiguousarray(moved), bound[rows])

    with ThreadPoolExecutor(max(threads, 1)) as pool:
        list(pool.map(work, range(0, n, CHUNK)))
    return bound


def _information(
    model: SignalModel,
    parameters: NDArray[np.float64],
    acquisition: Acquisition,
    sigma: NDArray[np.float64],
    noise: NoiseKind,
    variance: NDArray[np.float64] | None = None,
) -> NDArray[np.float64]:
    """Fisher information (n_voxels, n_parameters, n_parameters), from the compiled kernel if the model has one."""
    if noise not in get_args(NoiseKind):
        raise ValueError(f"Unknown kind of noise {noise!r}; valid: {', '.join(get_args(NoiseKind))}.")
    if noise == "rician" and model.complex_valued:
        raise ValueError(f"Signals of {model.name!r} are complex and their noise is Gaussian, found {noise!r}.")
    if not model.compiled:
        signal, jacobian = model.signal_and_jacobian(parameters, acquisition)
        jacobian = as_real(jacobian, axis=1)
        weights = np.tile(acquisition.weights, 1 + model.complex_valued) / sigma[:, None] ** 2
        if noise == "rician":
            weights = weights * rician_information(np.abs(signal) / sigma[:, None])
        if variance is not None:
            weights = weights / (1 + weights * np.tile(variance, 1 + model.complex_valued))
        return np.asarray(np.einsum("vnj,vn,vnk->vjk", jacobian, weights, jacobian))
    table = _information_table() if noise == "rician" else np.empty(0)
    found = np.zeros((*parameters.shape, parameters.shape[1]))
    rows, level = (np.require(a, requirements=("C", "W")) for a in (parameters, sigma))  # read-only: another type
    order = tuple(range(rows.shape[1]))
    added = np.empty((0, 0)) if variance is None else np.ascontiguousarray(variance)
    fill = specialised(_fill_information, kernel=model.kernel)
    fill(order, rows, model.design(acquisition), acquisition.weights, level, table, added, found)
    return found


@numba.njit(nogil=True, error_model="numpy")
def _fill_information(
    order: tuple[int, ...],
    parameters: NDArray,
    design: NDArray,
    weights: NDArray,
    sigma: NDArray,
    table: NDArray,
    added: NDArray,
    information: NDArray,
) -> None:
    """Sum the information of all measurements.

    ``table`` holds g(a), and is empty for Gaussian noise; ``added`` what is added to the variance of the noise, if any.
    Loops over the length of ``order``, a tuple of the indices of the parameters, are unrolled.
    """
    n = design.shape[0]
    signal, jacobian = np.empty(n), np.empty((n, len(order)))
    for v in range(parameters.shape[0]):
        total = information[v]
        kernel(parameters[v], design, signal, jacobian)
        precision = 1.0 / sigma[v] ** 2
        for i in range(n):
            weight = weights[i] * precision
            if table.size > 0:
                position = abs(signal[i]) / sigma[v] * STEPS
                k = int(min(position, table.size - 2.0)) if position == position else 0
                inside = table[k] + (position - k) * (table[k + 1] - table[k])
                weight *= inside if position < table.size - 1 else 1.0 - 0.5 * (STEPS / position) ** 2
            if added.size > 0:
                weight /= 1.0 + weight * added[v, i]
            for j in range(len(order)):
                weighted = weight * jacobian[i, j]
                for k in range(j + 1):
                    total[j, k] += weighted * jacobian[i, k]
        for j in range(len(order)):
            for k in range(j):
                total[k, j] = total[j, k]


@cached
@numba.njit(nogil=True, error_model="numpy")
def _bound(information: NDArray, gradients: NDArray, bound: NDArray) -> None:
    """Fill ``bound`` with standard deviations of linear combinations of parameters, from the inverse information.

    ``information`` (n, p, p) is overwritten; ``gradients`` is (n, m, p), or (1, m, p) if all voxels share them;
    ``bound`` is (n, m). Matrices are scaled to a unit diagonal. A bound is infinite if the combination involves a
    parameter or a direction with (nearly) no information.
    """
    p = information.shape[1]
    factor, scale, unknown = np.empty((p, p)), np.empty(p), np.empty(p, dtype=np.bool_)
    for v in range(information.shape[0]):
        matrix, moved = information[v], gradients[min(v, gradients.shape[0] - 1)]
        total = 0.0
        for j in range(p):
            for k in range(p):
                total += abs(matrix[j, k])
        if not np.isfinite(total):
            bound[v] = np.nan
            continue
        for j in range(p):
            unknown[j] = matrix[j, j] <= 0.0
            scale[j] = 1.0 if unknown[j] else np.sqrt(matrix[j, j])
        for j in range(p):
            for k in range(p):
                if unknown[j] or unknown[k]:
                    matrix[j, k] = 1.0 if j == k else 0.0
                else:
                    matrix[j, k] /= scale[j] * scale[k]
        regular = _invert_factor(matrix, factor)
        if not regular:  # the eigenvectors over the roots of their values take the place of the inverse factor
            values, vectors = np.linalg.eigh(matrix)
        for q in range(moved.shape[0]):
            variance, loss, size, undetermined = 0.0, 0.0, 0.0, False
            for j in range(p):
                undetermined |= unknown[j] and moved[q, j] != 0.0
                size += (moved[q, j] / scale[j]) ** 2
            for k in range(p):
                part = 0.0
                if regular:
                    for j in range(k + 1):
                        part += factor[k, j] * moved[q, j] / scale[j]
                    variance += part**2
                    continue
                for j in range(p):
                    part += vectors[j, k] * moved[q, j] / scale[j]
                if values[k] <= SINGULAR * values[-1]:
                    loss += part**2
                else:
                    variance += part**2 / values[k]
            bound[v, q] = np.inf if undetermined or loss > LOST * size else np.sqrt(variance)


@numba.njit(nogil=True, error_model="numpy")
def _invert_factor(matrix: NDArray, factor: NDArray) -> bool:
    """Fill the lower triangle of ``factor`` with the inverse of the Cholesky factor of a matrix with unit diagonal.

    Return False, with undefined content, if the matrix is nearly singular. Most are not, and this is faster than
    computing eigenvalues.
    """
    p = matrix.shape[0]
    for j in range(p):
        for k in range(j + 1):
            value = matrix[j, k]
            for m in range(k):
                value -= factor[j, m] * factor[k, m]
            if k < j:
                factor[j, k] = value / factor[k, k]
            elif value > WELL_CONDITIONED:
                factor[j, j] = math.sqrt(value)
            else:
                return False
    for j in range(p):
        factor[j, j] = 1.0 / factor[j, j]
        for k in range(j):
            value = 0.0
            for m in range(k, j):
                value -= factor[j, m] * factor[m, k]
            factor[j, k] = value * factor[j, j]
    return True
