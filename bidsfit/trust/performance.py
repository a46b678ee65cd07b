"""The performance of an estimator: bias, spread and response over the space of true parameters, by simulation."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping

import numba
import numpy as np
from numpy.typing import NDArray
from scipy.stats import qmc

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
    """Parameters of a regular grid over the unit cube of a space, the last fastest; shape (points ** p, p)."""
    p = len(space.names)
    axis = np.linspace(0, 1, points or POINTS[p])
    cube = np.stack(np.meshgrid(*[axis] * p, indexing="ij"), axis=-1).reshape(-1, p)
    return space.from_cube(cube)


def scattered(space: ParameterSpace, points: int | None = None, seed: int = 0) -> NDArray[np.float64]:
    """Parameters of scrambled Sobol points over the unit cube of a space, its faces included; shape (points, p)."""
    sobol = qmc.Sobol(len(space.names), rng=seed).random_base2(math.ceil(math.log2(points or SCATTERED)))
    return space.from_cube(np.clip((1 + 2 * BEYOND) * sobol - BEYOND, 0, 1))


def points_on_grid(truth: NDArray[np.float64], space: ParameterSpace) -> int:
    """Points along each axis of the regular grid that true parameters, shape (n, p), are; 0 where they are none."""
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
    """`performance_table` of any estimator, classical or trained; the noise level is given to it as it is."""
    sigma = None if np.isinf(simulator.noise.snr) else 1 / simulator.noise.snr

    def estimate(signals: NDArray[np.float64]) -> NDArray[np.float64]:
        found = estimator.estimate(signals, simulator.acquisition, sigma, threads=threads).parameters
        return np.stack([found[name] for name in estimator.model.names], axis=1)

    return performance_table(estimate, simulator, points=points, repeats=repeats, seed=seed)


def performance_table(
    estimate: Estimate, simulator: Simulator, *, points: int | None = None, repeats: int | None = None, seed: int = 0
) -> dict[str, NDArray[np.float64]]:
    """What an estimator does to every true parameter, on average over the noise.

    Parameters
    ----------
    estimate : callable
    simulator : Simulator
        Its protocol and noise; its distribution only says what space to cover.
    points : int, optional
        Along each axis of the unit cube of the space; with more than three parameters of all scattered ones, a power of
        two.
    repeats : int, optional
        Noise realisations of each point (one, where there is no noise).
    seed : int
        Of the noise, and of points that are scattered.

    Returns
    -------
    dict of column to ndarray, shape (n_points,)
        The true parameters by name (S0 is 1); and for each parameter, S0 included, ``bias_<name>``, ``sd_<name>`` and
        ``rmse_<name>``, and, S0 left out, ``response_<name>``: how much the mean estimate moves where the truth of this
        parameter alone moves, 1 where an estimate follows the truth and 0 where it only tells the distribution that it
        was trained on.
    """
    space, names = simulator.space, simulator.space.model.names
    truth = grid(space, points) if len(space.names) in POINTS else scattered(space, points, seed)
    usual = REPEATS if space.model.compiled else REPEATS_OF_FUNCTION
    n = 1 if np.isinf(simulator.noise.snr) else repeats or usual
    noise_seed = np.random.SeedSequence(seed)

    def estimates(parameters: NDArray[np.float64]) -> NDArray[np.float64]:
        """Of all noise realisations, shape (n_points, n_repeats, n_parameters); the noise is the same at every call."""
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
    """The truth with one parameter a little lower and a little higher, inside the space."""
    moved = []
    for sign in (-0.5, 0.5):
        there = truth.copy()
        there[:, j] += sign * STEP * space.span[j]
        moved.append(np.where(space.contains(there)[:, None], there, truth))
    return moved[0], moved[1]


class PerformanceLookup:
    """A performance table at any parameters.

    Between the points of a grid it is linear over the unit cube. Through scattered points goes, for each column, the
    polynomial of the cube's coordinates that comes closest to them; it stays within the range of the column.

    Parameters
    ----------
    table : mapping of column to ndarray
        As `performance_table` returns it.
    space : ParameterSpace
    """

    def __init__(self, table: Mapping[str, NDArray[np.float64]], space: ParameterSpace) -> None:
        self._table, self._space = table, space
        self._truth = np.stack([table[name] for name in space.names], axis=1)
        self._points = points_on_grid(self._truth, space)

    def at(self, parameters: NDArray[np.float64], quantity: str) -> NDArray[np.float64]:
        """A quantity ("sd", "bias") of all parameters where they are true; both of shape (n, n_parameters).

        That of the scale grows with the scale; NaN where a parameter is.
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
    """Degrees of the polynomials in each of p coordinates that so many points determine well; empty where none."""
    for degree in range(DEGREE, 0, -1):
        if FEWEST * math.comb(p + degree, degree) <= points:
            return [powers for powers in itertools.product(range(degree + 1), repeat=p) if sum(powers) <= degree]
    return []


def _basis(cube: NDArray[np.float64], exponents: list[tuple[int, ...]]) -> NDArray[np.float64]:
    """Products of Legendre polynomials at places of the unit cube, shape (n, n_exponents)."""
    degrees = np.array(exponents)
    single = np.polynomial.legendre.legvander(2 * cube - 1, int(degrees.max()))
    found = np.ones((len(cube), len(degrees)))
    for j in range(cube.shape[1]):
        found *= single[:, j, degrees[:, j]]
    return found


@numba.njit(nogil=True, error_model="numpy")
def _interpolate(cube: NDArray, columns: NDArray, points: int, found: NDArray) -> None:
    """Multilinear interpolation; all columns of a place in one visit, several times as fast as one after the other."""
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
