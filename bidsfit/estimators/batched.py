"""Levenberg-Marquardt as in bidsfit/estimators/levenberg_marquardt.py, for models without a compiled kernel.

All voxels take each step together: the model is evaluated for all in one call. The rest is compiled.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bidsfit.compiling import cached, specialised
from bidsfit.estimators.levenberg_marquardt import (
    AT_BOUND,
    CAUTIOUS_DAMPING,
    CONVERGED,
    FIRST_DAMPING,
    ITERATION_LIMIT,
    LARGEST_DAMPING,
    MAX_ITERATIONS,
    Problem,
    StartGrid,
    Work,
    best_node,
    compiled,
    exactly,
    make_grid,
    make_work,
    normal_equations,
    promises_nothing,
    propose,
    relaxed,
    score_nodes,
    settled,
    take_last_step,
    total_misfit,
    touches_bound,
)

#: Signals (n, n_rows) of parameters (n, n_parameters), and where they are asked for derivatives (n, n_rows,
#: n_parameters).
Evaluate = Callable[[NDArray[np.float64], bool], tuple[NDArray[np.float64], NDArray[np.float64] | None]]


def fit_batch(
    evaluate: Evaluate,
    misfit: Any,
    y: NDArray,
    precision: NDArray,
    problem: Problem,
    found: NDArray,
    cost: NDArray,
    status: NDArray,
    start: NDArray | None = None,
) -> None:
    """Fit voxels together. The arguments are those of `fit_voxels`."""
    y, grid, work = np.ascontiguousarray(y), make_grid(problem), make_work(problem)
    boxes = np.where(np.isnan(found)[..., None], problem.bounds, found[..., None])
    low, high = boxes[..., 0], boxes[..., 1]
    if start is not None:
        found[:] = np.clip(start, low, high)
        cost[:], status[:] = _descend(evaluate, misfit, y, precision, problem, work, boxes, found, FIRST_DAMPING)
        return
    nowhere = np.full(len(y), -np.inf)
    _from_nodes(y, problem, grid, boxes, 0, nowhere, -nowhere, found)
    cost[:], status[:] = _descend(evaluate, misfit, y, precision, problem, work, boxes, found, FIRST_DAMPING)
    for j in range(len(problem.order)):  # as `solve`: from the other half of the range of a parameter at its bound
        if j == problem.scale:
            continue
        at_bound = (low[:, j] < high[:, j]) & ((found[:, j] <= low[:, j]) | (found[:, j] >= high[:, j]))
        again = np.flatnonzero((status == AT_BOUND) & at_bound)
        if not again.size:
            continue
        below = found[again, j] < grid.middle[j]
        least, most = np.where(below, grid.middle[j], -np.inf), np.where(below, np.inf, grid.middle[j])
        other = np.empty((again.size, found.shape[1]))
        _from_nodes(y[again], problem, grid, boxes[again], j, least, most, other)
        costs, outcome = _descend(
            evaluate, misfit, y[again], precision[again], problem, work, boxes[again], other, CAUTIOUS_DAMPING
        )
        better = costs < cost[again]
        chosen = again[better]
        found[chosen], cost[chosen], status[chosen] = other[better], costs[better], outcome[better]


@cached
@compiled
def _from_nodes(
    y: NDArray,
    problem: Problem,
    grid: StartGrid,
    boxes: NDArray,
    which: int,
    least: NDArray,
    most: NDArray,
    found: NDArray,
) -> None:
    """Set the parameters of each voxel to its best node (see `best_node`)."""
    for v in range(y.shape[0]):
        score_nodes(y[v], problem, grid)
        best_node(problem, grid, boxes[v], which, least[v], most[v], found[v])


def _descend(
    evaluate: Evaluate,
    misfit: Any,
    y: NDArray,
    precision: NDArray,
    problem: Problem,
    work: Work,
    boxes: NDArray,
    parameters: NDArray,
    first_damping: float,
) -> tuple[NDArray[np.float64], NDArray[np.uint8]]:
    """Minimise from ``parameters`` (replaced by the solutions); return sums of misfits and status codes.

    ``boxes``, shape (n, n_parameters, 2), are the bounds of every voxel.
    """
    n, p = parameters.shape
    cost, promised = np.empty(n), np.empty(n)
    damping, growth = np.full(n, first_damping), np.full(n, 2.0)
    normal, gradient, trial = np.empty((n, p, p)), np.empty((n, p)), np.empty((n, p))
    outcome = np.full(n, ITERATION_LIMIT, dtype=np.uint8)
    active = np.arange(n)
    signals, jacobians = evaluate(parameters, True)
    linearise, judge = (specialised(function, misfit=misfit) for function in (_linearise, _judge))
    linearise(y, precision, problem, work, active, signals, jacobians, cost, normal, gradient)
    for _ in range(MAX_ITERATIONS):
        _propose(problem, work, active, boxes, parameters, damping, cost, normal, gradient, trial, promised, outcome)
        active = active[outcome[active] == ITERATION_LIMIT]
        if not active.size:
            break
        signals, _ = evaluate(trial[active], False)
        moved = np.zeros(n, dtype=np.bool_)
        judge(
            y, precision, problem, work, active, signals, parameters, trial, promised, cost, damping, growth, moved,
            outcome,
        )  # fmt: skip
        active = active[outcome[active] == ITERATION_LIMIT]
        again = active[moved[active]]
        if again.size:
            signals, jacobians = evaluate(parameters[again], True)
            linearise(y, precision, problem, work, again, signals, jacobians, cost, normal, gradient)
    _mark_bounds(problem, boxes, parameters, outcome)
    return cost, outcome


@compiled
def _linearise(
    y: NDArray,
    precision: NDArray,
    problem: Problem,
    work: Work,
    which: NDArray,
    signals: NDArray,
    jacobians: NDArray,
    cost: NDArray,
    normal: NDArray,
    gradient: NDArray,
) -> None:
    """Compute sum of misfits, normal matrix and gradient of the voxels ``which`` from signals and derivatives."""
    p = len(problem.order)
    for i in range(which.size):
        v = which[i]
        for k in range(signals.shape[1]):
            work.signal[k] = signals[i, k]
            for j in range(p):
                work.jacobian[k, j] = jacobians[i, k, j]
        cost[v] = total_misfit(y[v], precision[v], problem, work)
        normal_equations(problem.order, work)
        for j in range(p):
            gradient[v, j] = work.gradient[j]
            for k in range(p):
                normal[v, j, k] = work.normal[j, k]


@cached
@compiled
def _propose(
    problem: Problem,
    work: Work,
    which: NDArray,
    boxes: NDArray,
    parameters: NDArray,
    damping: NDArray,
    cost: NDArray,
    normal: NDArray,
    gradient: NDArray,
    trial: NDArray,
    promised: NDArray,
    outcome: NDArray,
) -> None:
    """Compute a step for the voxels ``which``; mark those that have converged."""
    p = len(problem.order)
    for i in range(which.size):
        v = which[i]
        for j in range(p):
            work.gradient[j] = gradient[v, j]
            work.box[j, 0], work.box[j, 1] = boxes[v, j, 0], boxes[v, j, 1]
            for k in range(p):
                work.normal[j, k] = normal[v, j, k]
        promised[v] = propose(parameters[v], damping[v], problem, work)
        for j in range(p):
            trial[v, j] = work.trial[j]
        if promises_nothing(promised[v], cost[v], damping[v]):
            take_last_step(parameters[v], promised[v], work)
            outcome[v] = CONVERGED


@compiled
def _judge(
    y: NDArray,
    precision: NDArray,
    problem: Problem,
    work: Work,
    which: NDArray,
    signals: NDArray,
    parameters: NDArray,
    trial: NDArray,
    promised: NDArray,
    cost: NDArray,
    damping: NDArray,
    growth: NDArray,
    moved: NDArray,
    outcome: NDArray,
) -> None:
    """Take steps that lower the sum of misfits; increase the damping of the other voxels."""
    for i in range(which.size):
        v = which[i]
        for k in range(signals.shape[1]):
            work.signal[k] = signals[i, k]
        gain = 0.0
        if promised[v] > 1e-15 * abs(cost[v]):
            gain = cost[v] - total_misfit(y[v], precision[v], problem, work)
        if gain > 0.0:
            for j in range(len(problem.order)):
                parameters[v, j] = trial[v, j]
            cost[v] -= gain
            moved[v] = True
            if settled(gain, promised[v], cost[v], exactly(y[v], precision[v], problem)):
                outcome[v] = CONVERGED
            damping[v] = relaxed(damping[v], gain, promised[v])
            growth[v] = 2.0
        else:
            damping[v] *= growth[v]
            growth[v] *= 2.0
            if damping[v] > LARGEST_DAMPING:
                outcome[v] = CONVERGED


@cached
@compiled
def _mark_bounds(problem: Problem, boxes: NDArray, parameters: NDArray, outcome: NDArray) -> None:
    """Mark converged voxels with a parameter at a bound."""
    for v in range(parameters.shape[0]):
        if outcome[v] == CONVERGED and touches_bound(parameters[v], boxes[v], problem):
            outcome[v] = AT_BOUND
