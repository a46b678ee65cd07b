"""Solver for all models and misfits: starting points, the problem for a protocol, and choice of the algorithm."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import product

import numpy as np
from numpy.typing import NDArray

from bidsfit.acquisition import Acquisition
from bidsfit.estimators.batched import BatchSolver
from bidsfit.estimators.draws import DRAWS, Draws
from bidsfit.estimators.levenberg_marquardt import Problem, fit_voxels
from bidsfit.estimators.log_linear import LogLinear
from bidsfit.estimators.misfits import gaussian, rician
from bidsfit.models.signal_model import SignalModel, as_real
from bidsfit.noise import NoiseKind


class Solver:
    """Minimises the sum of misfits of one model for one protocol, in every voxel.

    Parameters
    ----------
    model : SignalModel
    bounds : ndarray, shape (n_parameters, 2)
        Bounds for signals divided by their reference.
    acquisition : Acquisition
        Acquisition with one row for each distinct prediction.
    noise : {"gaussian", "rician"}
        Kind of the misfit (see bidsfit/estimators/misfits.py).
    rows : ndarray of int, shape (n,), optional
        Row of the prediction for each measurement; by default all differ.
    weights : ndarray, shape (n,), optional
        Weights of the measurements; by default the number of averaged signals in each.
    device : str, optional
        torch device that fits all voxels together; by default the processor, with compiled code where the model has it.
    """

    def __init__(
        self,
        model: SignalModel,
        bounds: NDArray[np.float64],
        acquisition: Acquisition,
        noise: NoiseKind,
        rows: NDArray[np.intp] | None = None,
        weights: NDArray[np.float64] | None = None,
        device: str | None = None,
    ) -> None:
        self.model, self.acquisition = model, acquisition
        self.problem = make_problem(model, bounds, acquisition, rows, weights)
        self._fit: Callable[..., None]
        if device is None and model.compiled:
            misfit = {"gaussian": gaussian, "rician": rician}[noise]
            self._fit = partial(fit_voxels, model.kernel, misfit, problem=self.problem)
        else:
            self._fit = BatchSolver(model, noise, self.problem, device or "cpu").fit
        self._starts: Callable[[NDArray[np.float64]], NDArray[np.float64]] | None = None
        if model.start == "log-linear":
            self._starts = LogLinear(model, acquisition)
        elif model.start == "draws":
            self._starts = Draws(model, bounds, acquisition)

    def __call__(
        self, y: NDArray[np.float64], precision: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.uint8]]:
        """Fit voxels; return parameters, sums of misfits and status codes.

        Parameters
        ----------
        y : ndarray, shape (n_voxels, n)
            Signals; for complex ones first all real parts, then all imaginary parts.
        precision : ndarray, shape (n_voxels,)
            Multiplies the weights: 1 / sigma^2, or 1 if the noise does not matter.
        """
        found = np.full((len(y), len(self.model.parameters)), np.nan)
        cost, status = self.fit(y, precision, found)
        return self.model.wrapped(found), cost, status

    def fit(
        self,
        y: NDArray[np.float64],
        precision: NDArray[np.float64],
        found: NDArray[np.float64],
        start: NDArray[np.float64] | None = None,
    ) -> tuple[NDArray[np.float64], NDArray[np.uint8]]:
        """Fill ``found`` with parameters, angles not wrapped; return sums of misfits and status codes.

        A parameter that is not NaN in ``found`` is held there. ``start``, shape (n_voxels, n_parameters), replaces the
        starting points of the model.
        """
        start = self._start(y) if start is None else start
        first, *others = [start] if start is None or start.ndim == 2 else start
        held = found.copy() if others else found
        cost, status = self._descend(y, precision, found, first)
        for other in others:
            solution = held.copy()
            its_cost, its_status = self._descend(y, precision, solution, other)
            better = its_cost < cost
            found[better], cost[better], status[better] = solution[better], its_cost[better], its_status[better]
        return cost, status

    def _descend(
        self,
        y: NDArray[np.float64],
        precision: NDArray[np.float64],
        found: NDArray[np.float64],
        start: NDArray[np.float64] | None,
    ) -> tuple[NDArray[np.float64], NDArray[np.uint8]]:
        """As `fit`, from one starting point of every voxel, or from the grid."""
        cost, status = np.empty(len(y)), np.empty(len(y), dtype=np.uint8)
        self._fit(y, precision, found=found, cost=cost, status=status, start=start)
        return cost, status

    def _start(self, y: NDArray[np.float64]) -> NDArray[np.float64] | None:
        """Starting points from the model, shape (n_voxels, n_parameters) or several of these; None for the grid."""
        if self._starts is not None:
            n = len(self.problem.node_signals)
            mean, weights = np.zeros((len(y), n)), np.bincount(self.problem.rows, self.problem.weights, n)
            np.add.at(mean.T, self.problem.rows, (y * self.problem.weights).T)
            return self._starts(mean / weights)
        return self.model.start(y, self.acquisition) if callable(self.model.start) else None


def start_in_words(model: SignalModel) -> str:
    """The starting point of a fit, for the methods text."""
    if callable(model.start):
        return "a point that the model finds from the signals"
    twofold = " and ".join(parameter.name for parameter in model.parameters if parameter.twofold)
    halves = f", once in each half of the range of {twofold}, and the lower sum of squares kept" if twofold else ""
    return {
        "grid": "the best point of a grid over the parameters",
        "draws": f"the best of {DRAWS:,} random draws of the parameters{halves}",
        "log-linear": "the weighted linear fit of the logarithm of its signals",
    }[model.start]


def make_problem(
    model: SignalModel,
    bounds: NDArray[np.float64],
    acquisition: Acquisition,
    rows: NDArray[np.intp] | None = None,
    weights: NDArray[np.float64] | None = None,
) -> Problem:
    """Make the `Problem` of a model and an acquisition.

    Parameters
    ----------
    model : SignalModel
    bounds : ndarray, shape (n_parameters, 2)
        Bounds for signals divided by their reference.
    acquisition : Acquisition
        Acquisition with one row for each distinct prediction.
    rows : ndarray of int, shape (n,), optional
        Row of the prediction for each measurement; by default all differ.
    weights : ndarray, shape (n,), optional
        Weights of the measurements; by default the number of averaged signals in each.
    """
    matrix, limits = model.linear_constraints
    nodes = starting_points(model, bounds)
    angles = np.array([p.kind != "scalar" for p in model.parameters]) & (bounds[:, 0] < bounds[:, 1])
    rows = np.arange(len(acquisition)) if rows is None else rows
    weights = acquisition.weights if weights is None else weights
    if model.complex_valued:  # real and imaginary parts are measurements of their own
        rows, weights = np.concatenate([rows, rows + len(acquisition)]), np.tile(weights, 2)
    return Problem(
        order=tuple(range(len(model.parameters))),
        design=model.design(acquisition),
        rows=rows,
        weights=weights,
        bounds=np.where(angles[:, None], [-np.inf, np.inf], bounds),
        matrix=matrix,
        limits=limits,
        scale=model.scale_index,
        nodes=nodes,
        node_signals=np.ascontiguousarray(as_real(model.signal(nodes, acquisition)).T),
    )


def starting_points(model: SignalModel, bounds: NDArray[np.float64]) -> NDArray[np.float64]:
    """Grid of starting points inside the bounds and constraints, scale 1, shape (n_points, n_parameters).

    Raises
    ------
    ValueError
        If no point inside the bounds satisfies the constraints of the model.
    """
    axes = []
    for parameter, (lower, upper) in zip(model.parameters, bounds, strict=True):
        if parameter.name == model.scale:
            axes.append(np.ones(1))
        elif model.start == "grid":
            axes.append(np.unique(np.clip(parameter.start, lower, upper)))
        else:  # a fit starts elsewhere
            axes.append(np.clip([(parameter.bounds[0] + parameter.bounds[1]) / 2], lower, upper))
    nodes = np.array(list(product(*axes)))
    matrix, limits = model.linear_constraints
    feasible = np.all(nodes @ matrix.T <= limits + 1e-12, axis=1)
    if not feasible.any():
        stated = ", ".join(f"{n} {low:g} to {high:g}" for n, (low, high) in zip(model.names, bounds, strict=True))
        rules = " and ".join(map(str, model.constraints)) or "a finite starting value"
        raise ValueError(f"The bounds of {model.name!r} ({stated}) leave no room for {rules}.")
    return np.ascontiguousarray(nodes[feasible])
