"""An estimator's own table: bias, spread and response over the space of true parameters."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numba
import numpy as np
from numpy.typing import NDArray

from bidsfit.models.space import ParameterSpace
from bidsfit.simulation.simulator import Simulator
from bidsfit.trust.metrics import accuracy

#: Points along each axis of the unit cube, by the number of parameters.
POINTS = {1: 61, 2: 21, 3: 9, 4: 6}
#: Noise realisations of a point.
REPEATS = 200
#: Points of a difference quotient lie this fraction of the bounds apart.
STEP = 0.02

#: Estimates all parameters of the model, shape (n, n_parameters), from averaged signals, shape (n, n_averages).
Estimate = Callable[[NDArray[np.float64]], NDArray[np.float64]]


def grid(space: ParameterSpace, points: int | None = None) -> NDArray[np.float64]:
    """Parameters of a regular grid over the unit cube of a space, the last fastest; shape (points ** p, p)."""
    p = len(space.names)
    axis = np.linspace(0, 1, points or POINTS.get(p, 5))
    cube = np.stack(np.meshgrid(*[axis] * p, indexing="ij"), axis=-1).reshape(-1, p)
    return space.from_cube(cube)


def performance_table(
    estimate: Estimate, simulator: Simulator, *, points: int | None = None, repeats: int = REPEATS, seed: int = 0
) -> dict[str, NDArray[np.float64]]:
    """What an estimator does to every true parameter, on average over the noise.

    Parameters
    ----------
    estimate : callable
    simulator : Simulator
        Its protocol and noise; its distribution only says what space to cover.
    points : int, optional
        Along each axis of the unit cube of the space.
    repeats : int
        Noise realisations of each point (one, where there is no noise).
    seed : int

    Returns
    -------
    dict of column to ndarray, shape (n_points,)
        The true parameters by name (S0 is 1); and for each parameter, S0 included, ``bias_<name>``, ``sd_<name>`` and
        ``rmse_<name>``, and, S0 left out, ``response_<name>``: how much the mean estimate moves where the truth of this
        parameter alone moves, 1 where an estimate follows the truth and 0 where it only tells the distribution that it
        was trained on.
    """
    space, names = simulator.space, simulator.space.model.names
    truth = grid(space, points)
    n = 1 if np.isinf(simulator.noise.snr) else repeats
    noise_seed = np.random.SeedSequence(seed)

    def estimates(parameters: NDArray[np.float64]) -> NDArray[np.float64]:
        """Of all noise realisations, shape (n_points, n_repeats, n_parameters); the noise is the same at every call."""
        signals = simulator.measure(np.repeat(parameters, n, axis=0), np.random.default_rng(noise_seed))
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
    """A performance table at any parameters, by linear interpolation over the unit cube of their space.

    Parameters
    ----------
    table : mapping of column to ndarray
        As `performance_table` returns it.
    space : ParameterSpace
    """

    def __init__(self, table: Mapping[str, NDArray[np.float64]], space: ParameterSpace) -> None:
        self._points = round(len(table[space.names[0]]) ** (1 / len(space.names)))
        self._table, self._space, self._names = table, space, space.model.names

    def at(self, parameters: NDArray[np.float64], quantity: str) -> NDArray[np.float64]:
        """A quantity ("sd", "bias") of all parameters where they are true; both of shape (n, n_parameters).

        That of the scale grows with the scale; NaN where a parameter is.
        """
        scale, known = self._space.model.scale_index, np.isfinite(parameters).all(axis=1)
        cube = self._space.to_cube(np.delete(parameters[known], scale, axis=1))
        columns = np.column_stack([self._table[f"{quantity}_{name}"] for name in self._names])
        at_cube = np.empty((len(cube), len(self._names)))
        _interpolate(cube, columns, self._points, at_cube)
        at_cube[:, scale] *= parameters[known, scale]
        found = np.full(parameters.shape, np.nan)
        found[known] = at_cube
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
