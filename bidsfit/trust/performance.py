"""Performance of an estimator by simulation: bias, spread and response over the space of true parameters."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping

import numba
import numpy as np
from numpy.typing import NDArray

from bidsfit.compiling import cached
from bidsfit.estimators.estimator import Estimator
from bidsfit.models.space import ParameterSpace
from bidsfit.simulation.simulator import Simulator
from bidsfit.trust.metrics import accuracy

#: Points along each axis of the unit cube, by the number of parameters; with more parameters they are scattered.
POINTS = {1: 61, 2: 21, 3: 9}
#: Points that are scattered over the unit cube of more parameters.
SCATTERED = 2048
#: They reach so far beyond the cube and are moved onto its faces: polynomials need values where they end.
BEYOND = 0.05
#: Largest total degree of the polynomials through scattered points, and points for each coefficient, at least.
DEGREE, FEWEST = 5, 2
#: Places where a polynomial is evaluated at a time.
CHUNK = 8192
#: Noise realisations of a point; fewer for a model that is a function, whose every signal costs a simulation.
REPEATS, REPEATS_OF_FUNCTION = 200, 32
#: Points of a difference quotient lie this fraction of the bounds apart.
STEP = 0.02

#: Estimates all parameters of the model, shape (n, n_parameters), from averaged signals, shape (n, n_averages).
Estimate = Callable[[NDArray[np.float64]], NDArray[np.float64]]


def grid(space: ParameterSpace, points: int | None = None) -> NDArray[np.float64]:
    """Parameters (points ** p, p) of a regular grid over the unit cube of a space, the last coordinate fastest."""
    p = len(space.names)
    axis = np.linspace(0, 1, points or POINTS[p])
    cube = np.stack(np.meshgrid(*[axis] * p, indexing="ij"), axis=-1).reshape(-1, p)
    return space.from_cube(cube)


def scattered(space: ParameterSpace, points: int | None = None, seed: int = 0) -> NDArray[np.float64]:
    """Parameters (points, p) of scrambled Sobol points over the unit cube of a space, including its faces."""
    from scipy.stats import qmc  # takes a quarter of a second to import

    sobol = qmc.Sobol(len(space.names), rng=seed).random_base2(math.ceil(math.log2(points or SCATTERED)))
    return space.from_cube(np.clip((1 + 2 * BEYOND) * sobol - BEYOND, 0, 1))


def points_on_grid(truth: NDArray[np.float64], space: ParameterSpace) -> int:
    """Number of points per axis if parameters (n, p) form the regular grid of `grid`; otherwise 0."""
    p = len(space.names)
    points = round(len(truth) ** (1 / p))
    regular = len(truth) > 1 and points**p == len(truth)
    slack = 1e-5 * space.span.min()
    return points if regular and np.allclose(truth, grid(space, points), rtol=1e-5, atol=slack) else 0


def performance_of(
    estimator: Estimator,
    simulator: Simulator,
    *,
    points: int | None = None,
    repeats: int | None = None,
    seed: int = 0,
    threads: int = 1,
) -> dict[str, NDArray[np.float64]]:
    """`performance_table` of any estimator, which is given the true noise level."""
    sigma = None if np.isinf(simulator.noise.snr) else 1 / simulator.noise.snr

    def estimate(signals: NDArray[np.float64]) -> NDArray[np.float64]:
        found = estimator.estimate(signals, simulator.acquisition, sigma, threads=threads).parameters
        return np.stack([found[name] for name in estimator.model.names], axis=1)

    return performance_table(estimate, simulator, points=points, repeats=repeats, seed=seed)


def performance_table(
    estimate: Estimate, simulator: Simulator, *, points: int | None = None, repeats: int | None = None, seed: int = 0
) -> dict[str, NDArray[np.float64]]:
    """Bias, spread and response of an estimator over the space of true parameters.

    Parameters
    ----------
    estimate : callable
    simulator : Simulator
        Gives protocol and noise; of its distribution only the space is used.
    points : int, optional
        Per axis of the unit cube; with more than three parameters the total number of scattered points, a power of two.
    repeats : int, optional
        Noise realisations per point (always one without noise).
    seed : int
        Seed of the noise and of scattered points.

    Returns
    -------
    dict of column to ndarray, shape (n_points,)
        The true parameters by name (S0 is 1); ``bias_<name>``, ``sd_<name>`` and ``rmse_<name>`` for each parameter
        including S0; and except for S0 ``response_<name>``, the change of the mean estimate per change of this
        parameter's truth: 1 if the estimate follows the truth, 0 if it ignores it.
    """
    space, names = simulator.space, simulator.space.model.names
    truth = grid(space, points) if len(space.names) in POINTS else scattered(space, points, seed)
    usual = REPEATS if space.model.compiled else REPEATS_OF_FUNCTION
    n = 1 if np.isinf(simulator.noise.snr) else repeats or usual
    noise_seed = np.random.SeedSequence(seed)

    def estimates(parameters: NDArray[np.float64]) -> NDArray[np.float64]:
        """Estimates (n_points, n_repeats, n_parameters) over the noise, which is the same at every call."""
        signals = simulator.measure(parameters, np.random.default_rng(noise_seed), n)
        return estimate(signals).reshape(len(parameters), n, -1)

    found, known = estimates(truth), space.with_scale(truth)
    table = {name: truth[:, j] for j, name in enumerate(space.names)}
    for k, name in enumerate(names):
        errors = accuracy(found[:, :, k].ravel(), known[:, k])
        table |= {f"bias_{name}": errors.bias, f"sd_{name}": errors.sd, f"rmse_{name}": errors.rmse}
    for j, name in enumerate(space.names):
        low, high = _neighbours(space, truth, j)
        moved = (estimates(high) - estimates(low))[:, :, names.index(name)].mean(axis=1)
        distance = high[:, j] - low[:, j]
        table[f"response_{name}"] = np.divide(moved, distance, out=np.full(len(truth), np.nan), where=distance > 0)
    return table


def _neighbours(
    space: ParameterSpace, truth: NDArray[np.float64], j: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The truth with parameter j a little lower and a little higher, where that lies inside the space."""
    moved = []
    for sign in (-0.5, 0.5):
        there = truth.copy()
        there[:, j] += sign * STEP * space.span[j]
        moved.append(np.where(space.contains(there)[:, None], there, truth))
    return moved[0], moved[1]


class PerformanceLookup:
    """Interpolation of a performance table at any parameters.

    Multilinear over the unit cube between grid points. For scattered points each column is approximated by a
    least-squares polynomial in the coordinates of the cube, clipped to the range of the column.

    Parameters
    ----------
    table : mapping of column to ndarray
        As of `performance_table`.
    space : ParameterSpace
    """

    def __init__(self, table: Mapping[str, NDArray[np.float64]], space: ParameterSpace) -> None:
        self._table, self._space = table, space
        self._truth = np.stack([table[name] for name in space.names], axis=1)
        self._points = points_on_grid(self._truth, space)

    def at(self, parameters: NDArray[np.float64], quantity: str) -> NDArray[np.float64]:
        """Quantity ("sd", "bias") at true parameters; both have shape (n, n_parameters).

        Values of the scale are proportional to the scale; NaN where a parameter is.
        """
        model = self._space.model
        own = np.array([name != model.scale for name in model.names])
        known = np.isfinite(parameters).all(axis=1)
        cube = self._space.to_cube(parameters[known][:, own])
        columns = np.column_stack([self._table[f"{quantity}_{name}"] for name in model.names])
        at_cube = np.empty((len(cube), len(model.names)))
        if self._points:
            _interpolate(cube, columns, self._points, at_cube)
        else:
            exponents = exponents_of(cube.shape[1], len(columns))
            fitted = np.linalg.lstsq(_basis(self._space.to_cube(self._truth), exponents), columns, rcond=None)[0]
            low, high = columns.min(axis=0), columns.max(axis=0)
            for start in range(0, len(cube), CHUNK):
                rows = slice(start, start + CHUNK)
                at_cube[rows] = np.clip(_basis(cube[rows], exponents) @ fitted, low, high)
        if model.scale is not None:
            at_cube[:, model.scale_index] *= parameters[known, model.scale_index]
        found = np.full(parameters.shape, np.nan)
        found[known] = at_cube
        return found


def exponents_of(p: int, points: int) -> list[tuple[int, ...]]:
    """Exponents of the polynomial terms in p coordinates that so many points determine well; may be empty."""
    for degree in range(DEGREE, 0, -1):
        if FEWEST * math.comb(p + degree, degree) <= points:
            return [powers for powers in itertools.product(range(degree + 1), repeat=p) if sum(powers) <= degree]
    return []


def _basis(cube: NDArray[np.float64], exponents: list[tuple[int, ...]]) -> NDArray[np.float64]:
    """Products of Legendre polynomials at points of the unit cube, shape (n, n_exponents)."""
    degrees = np.array(exponents)
    single = np.polynomial.legendre.legvander(2 * cube - 1, int(degrees.max()))
    found = np.ones((len(cube), len(degrees)))
    for j in range(cube.shape[1]):
        found *= single[:, j, degrees[:, j]]
    return found


@cached
@numba.njit(nogil=True, error_model="numpy")
def _interpolate(cube: NDArray, columns: NDArray, points: int, found: NDArray) -> None:
    """Multilinear interpolation of all columns at once, which is several times as fast as one after the other."""
    p = cube.shape[1]
    corner, fraction = np.empty(p, dtype=np.int64), np.empty(p)
    for i in range(len(cube)):
        for j in range(p):
            place = min(max(cube[i, j], 0.0), 1.0) * (points - 1)
            corner[j] = min(int(place), points - 2)
            fraction[j] = place - corner[j]
        found[i] = 0.0
        for vertex in range(1 << p):
            row, weight = 0, 1.0
            for j in range(p):
                upper = (vertex >> j) & 1
                row = row * points + corner[j] + upper
                weight *= fraction[j] if upper else 1.0 - fraction[j]
            for k in range(found.shape[1]):
                found[i, k] += weight * columns[row, k]
