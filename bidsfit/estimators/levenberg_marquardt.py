"""Levenberg-Marquardt with bounds and linear constraints, compiled; one voxel at a time, no allocation in its loop.

What is minimised is a sum of misfits, one a measurement (see bidsfit/estimators/misfits.py): squares make it least
squares, Rician densities make it maximum likelihood by a damped Newton method.

References
----------
Levenberg K. Quarterly of Applied Mathematics 1944;2:164-168.
Marquardt DW. SIAM Journal on Applied Mathematics 1963;11:431-441.
Nielsen HB. Damping parameter in Marquardt's method. IMM-REP-1999-05, 1999.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

from bidsfit.estimators.estimator import Status

MAX_ITERATIONS = 200
#: Converged when a step lowers the sum of squares by less than this fraction of it, and promised no more.
TOLERANCE = 1e-7
#: Converged when the sum of misfits is below this fraction of that of no signal at all: the model fits exactly.
EXACT = 1e-18
#: How far inside a linear constraint a step that would cross it ends, so that rounding does not carry it across.
MARGIN = 1e-12
#: Marquardt's damping at the start, relative to the diagonal of J^T J.
FIRST_DAMPING = 0.01

CONVERGED = int(Status.CONVERGED)
AT_BOUND = int(Status.AT_BOUND)
ITERATION_LIMIT = int(Status.ITERATION_LIMIT)


class Problem(NamedTuple):
    """What all voxels share."""

    order: tuple[int, ...]  # (0, 1, ..., n_parameters - 1): a tuple, because the compiler knows its length
    design: NDArray  # (n_rows, n_variables)
    rows: NDArray  # (n,), row of the design of each measurement
    weights: NDArray  # (n,), of the measurements
    bounds: NDArray  # (n_parameters, 2)
    matrix: NDArray  # (n_constraints, n_parameters): matrix @ parameters <= limits
    limits: NDArray  # (n_constraints,)
    scale: int  # index of the parameter that multiplies the signal
    nodes: NDArray  # (n_nodes, n_parameters), starting points with scale 1
    node_signals: NDArray  # (n_rows, n_nodes)


# The functions below take plain arrays instead of tuples of arrays: taking an array out of a tuple counts a
# reference, which costs more here than the arithmetic. `order` stands for n_parameters (see Problem): loops over its
# length are unrolled.


@numba.njit(nogil=True, error_model="numpy")
def fit_voxels(
    kernel: Any,
    misfit: Any,
    y: NDArray,
    precision: NDArray,
    problem: Problem,
    found: NDArray,
    cost: NDArray,
    status: NDArray,
) -> None:
    """Fit voxels one by one.

    Parameters
    ----------
    kernel : compiled kernel of a model
    misfit : compiled misfit of one measurement
    y : ndarray, shape (n_voxels, n)
        Signals.
    precision : ndarray, shape (n_voxels,)
        Multiplies the weights: 1 / sigma^2, or 1 where the noise does not matter.
    problem : Problem
    found, cost, status : ndarray, shapes (n_voxels, n_parameters), (n_voxels,), (n_voxels,)
        Filled with parameters, sums of misfits and status codes. Where ``found`` is not NaN on entry, the parameter is
        held at that value.
    """
    order, design, rows, weights, bounds, matrix, limits, scale, nodes, node_signals = problem
    n_rows, n_parameters, n_nodes = design.shape[0], len(order), nodes.shape[0]
    scores, energies = np.empty(n_nodes), np.zeros(n_nodes)
    for i in range(rows.size):
        for g in range(n_nodes):
            energies[g] += weights[i] * node_signals[rows[i], g] ** 2
    signal, jacobian = np.empty(n_rows), np.empty((n_rows, n_parameters))
    slope, curvature = np.empty(n_rows), np.empty(n_rows)
    normal, gradient = np.empty((n_parameters, n_parameters)), np.empty(n_parameters)
    factor, direction = np.empty((n_parameters, n_parameters)), np.empty(n_parameters)
    step, trial = np.empty(n_parameters), np.empty(n_parameters)
    held = np.empty(n_parameters, dtype=np.bool_)
    row, measured, solution = np.empty(rows.size), np.empty(n_rows), np.empty(n_parameters)
    other, middle = np.empty(n_parameters), np.empty(n_parameters)
    box = bounds.copy()
    for j in range(n_parameters):
        middle[j] = np.median(nodes[:, j])

    for v in range(y.shape[0]):
        for i in range(n_rows):
            measured[i] = 0.0
        for i in range(rows.size):
            row[i] = y[v, i]
            measured[rows[i]] += weights[i] * y[v, i]
        for j in range(n_parameters):
            known = found[v, j]
            box[j, 0] = bounds[j, 0] if np.isnan(known) else known
            box[j, 1] = bounds[j, 1] if np.isnan(known) else known
        score_nodes(measured, node_signals, scores)
        best_node(nodes, energies, scores, scale, box, 0, -np.inf, np.inf, solution)
        cost[v], status[v] = descend(
            kernel, misfit, row, precision[v], order, design, rows, weights, box, matrix, limits, solution,
            signal, jacobian, slope, curvature, normal, gradient, factor, direction, step, trial, held,
        )  # fmt: skip
        if status[v] == AT_BOUND:  # often a local minimum: look also from the other half of that parameter's range
            for j in range(n_parameters):
                lower, upper = box[j, 0], box[j, 1]
                if j == scale or lower == upper or lower < solution[j] < upper:
                    continue
                if solution[j] <= lower:
                    best_node(nodes, energies, scores, scale, box, j, middle[j], np.inf, other)
                else:
                    best_node(nodes, energies, scores, scale, box, j, -np.inf, middle[j], other)
                other_cost, other_status = descend(
                    kernel, misfit, row, precision[v], order, design, rows, weights, box, matrix, limits, other,
                    signal, jacobian, slope, curvature, normal, gradient, factor, direction, step, trial, held,
                )  # fmt: skip
                if other_cost < cost[v]:
                    cost[v], status[v] = other_cost, other_status
                    for k in range(n_parameters):
                        solution[k] = other[k]
        for j in range(n_parameters):
            found[v, j] = solution[j]


@numba.njit(error_model="numpy", forceinline=True)
def score_nodes(y: NDArray, node_signals: NDArray, scores: NDArray) -> None:
    """Inner products of the signal with the signals of all starting points."""
    scores[:] = 0.0
    for i in range(y.size):
        for g in range(scores.size):
            scores[g] += y[i] * node_signals[i, g]


@numba.njit(error_model="numpy")
def best_node(
    nodes: NDArray,
    energies: NDArray,
    scores: NDArray,
    scale: int,
    bounds: NDArray,
    which: int,
    least: float,
    most: float,
    parameters: NDArray,
) -> None:
    """Set ``parameters`` to the starting point of the least sum of squares, its scale solved in closed form.

    Only points whose parameter ``which`` lies between ``least`` and ``most`` are looked at.
    """
    best, best_gain, best_amplitude = 0, -np.inf, 0.0
    for g in range(scores.size):
        if nodes[g, which] < least or nodes[g, which] > most:
            continue
        amplitude = min(max(scores[g] / energies[g], bounds[scale, 0]), bounds[scale, 1])
        gain = amplitude * (2.0 * scores[g] - amplitude * energies[g])
        if gain > best_gain:
            best, best_gain, best_amplitude = g, gain, amplitude
    for j in range(parameters.size):
        parameters[j] = min(max(nodes[best, j], bounds[j, 0]), bounds[j, 1])
    parameters[scale] = best_amplitude


@numba.njit(error_model="numpy")
def descend(
    kernel: Any,
    misfit: Any,
    y: NDArray,
    precision: float,
    order: tuple[int, ...],
    design: NDArray,
    rows: NDArray,
    weights: NDArray,
    bounds: NDArray,
    matrix: NDArray,
    limits: NDArray,
    parameters: NDArray,
    signal: NDArray,
    jacobian: NDArray,
    slope: NDArray,
    curvature: NDArray,
    normal: NDArray,
    gradient: NDArray,
    factor: NDArray,
    direction: NDArray,
    step: NDArray,
    trial: NDArray,
    held: NDArray,
) -> tuple[float, int]:
    """Descend from ``parameters`` (feasible, overwritten by the solution); return sum of misfits and status."""
    kernel(parameters, design, signal, jacobian)
    cost = total_misfit(misfit, y, precision, rows, weights, signal, slope, curvature)
    normal_equations(order, slope, curvature, jacobian, normal, gradient)
    exact = 0.0
    for i in range(y.size):
        exact += EXACT * precision * weights[i] * y[i] ** 2
    damping, growth = FIRST_DAMPING, 2.0
    outcome = ITERATION_LIMIT
    for _ in range(MAX_ITERATIONS):
        constrained_step(
            order, parameters, damping, bounds, matrix, limits, normal, gradient, factor, direction, held, step
        )
        promised = 0.0
        for j in range(len(order)):
            curved = 0.0
            for k in range(len(order)):
                curved += normal[j, k] * step[k]
            promised += step[j] * (2.0 * gradient[j] - curved)
            trial[j] = min(max(parameters[j] + step[j], bounds[j, 0]), bounds[j, 1])
        if abs(promised) <= TOLERANCE * abs(cost) and damping <= FIRST_DAMPING:  # an almost free step promises nothing
            outcome = CONVERGED
            break
        gain = 0.0
        if promised > 1e-15 * abs(cost):  # it can be negative: parameters put on their bounds pull the others along
            kernel(trial, design, signal, jacobian)
            gain = cost - total_misfit(misfit, y, precision, rows, weights, signal, slope, curvature)
        if gain > 0.0:
            for j in range(len(order)):
                parameters[j] = trial[j]
            cost -= gain
            if abs(cost) <= exact or (gain <= TOLERANCE * abs(cost) and promised <= TOLERANCE * abs(cost)):
                outcome = CONVERGED
                break
            normal_equations(order, slope, curvature, jacobian, normal, gradient)
            damping = max(damping * max(0.1, 1.0 - (2.0 * gain / promised - 1.0) ** 3), 1e-14)
            growth = 2.0
        else:
            damping *= growth
            growth *= 2.0
            if damping > 1e12:  # not even an infinitesimal step helps: rounding errors rule
                outcome = CONVERGED
                break
    if outcome == CONVERGED and touches_bound(order, parameters, bounds, matrix, limits):
        outcome = AT_BOUND
    return cost, outcome


@numba.njit(error_model="numpy", forceinline=True)
def total_misfit(
    misfit: Any,
    y: NDArray,
    precision: float,
    rows: NDArray,
    weights: NDArray,
    signal: NDArray,
    slope: NDArray,
    curvature: NDArray,
) -> float:
    """Sum of the misfits of all measurements; their slopes and curvatures are summed for each row of the design."""
    for k in range(signal.size):
        slope[k] = 0.0
        curvature[k] = 0.0
    total = 0.0
    for i in range(y.size):
        k = rows[i]
        cost, downhill, curved = misfit(y[i], signal[k], weights[i] * precision)
        total += cost
        slope[k] += downhill
        curvature[k] += curved
    return total


@numba.njit(error_model="numpy", forceinline=True)
def normal_equations(
    order: tuple[int, ...],
    slope: NDArray,
    curvature: NDArray,
    jacobian: NDArray,
    normal: NDArray,
    gradient: NDArray,
) -> None:
    """J^T diag(curvature) J into ``normal`` and J^T slope into ``gradient``, which points downhill."""
    for j in range(len(order)):
        gradient[j] = 0.0
        for k in range(j + 1):
            normal[j, k] = 0.0
    for i in range(slope.size):
        for j in range(len(order)):
            gradient[j] += slope[i] * jacobian[i, j]
            curved = curvature[i] * jacobian[i, j]
            for k in range(j + 1):
                normal[j, k] += curved * jacobian[i, k]
    for j in range(len(order)):
        for k in range(j):
            normal[k, j] = normal[j, k]


@numba.njit(error_model="numpy", forceinline=True)
def constrained_step(
    order: tuple[int, ...],
    parameters: NDArray,
    damping: float,
    bounds: NDArray,
    matrix: NDArray,
    limits: NDArray,
    normal: NDArray,
    gradient: NDArray,
    factor: NDArray,
    direction: NDArray,
    held: NDArray,
    step: NDArray,
) -> None:
    """Damped Gauss-Newton step that keeps bounds and linear constraints, into ``step``.

    Parameters at a bound that the gradient pushes against are held. If the step of the others leaves a bound, they
    are put on it and the rest is solved again; a violated linear constraint is made an equality.
    """
    for j in range(len(order)):
        step[j] = 0.0
        held[j] = (
            bounds[j, 0] == bounds[j, 1]
            or (parameters[j] <= bounds[j, 0] and gradient[j] <= 0.0)
            or (parameters[j] >= bounds[j, 1] and gradient[j] >= 0.0)
        )
    for _ in range(len(order) + 1):
        factorise(order, damping, normal, held, factor)
        for j in range(len(order)):
            if not held[j]:
                value = gradient[j]
                for k in range(len(order)):
                    if held[k]:
                        value -= normal[j, k] * step[k]
                step[j] = value
        solve_factored(order, factor, step)
        meet_linear_constraint(order, parameters, matrix, limits, factor, direction, held, step)
        inside = True
        for j in range(len(order)):
            if not held[j]:
                target = parameters[j] + step[j]
                if target < bounds[j, 0] or target > bounds[j, 1]:
                    step[j] = min(max(target, bounds[j, 0]), bounds[j, 1]) - parameters[j]
                    held[j] = True
                    inside = False
        if inside:
            break
    for r in range(limits.size):  # putting parameters on bounds may have broken a constraint again: shorten
        ahead, room = 0.0, limits[r]
        for j in range(len(order)):
            ahead += matrix[r, j] * step[j]
            room -= matrix[r, j] * parameters[j]
        if ahead > max(room, 0.0):
            for j in range(len(order)):
                step[j] *= max(room, 0.0) / ahead


@numba.njit(error_model="numpy", forceinline=True)
def meet_linear_constraint(
    order: tuple[int, ...],
    parameters: NDArray,
    matrix: NDArray,
    limits: NDArray,
    factor: NDArray,
    direction: NDArray,
    held: NDArray,
    step: NDArray,
) -> None:
    """Correct a step that crosses a linear constraint (the first such), so that it ends just inside it."""
    for r in range(limits.size):
        excess = -limits[r]
        for j in range(len(order)):
            excess += matrix[r, j] * (parameters[j] + step[j])
        if excess > 0.0:
            for j in range(len(order)):
                direction[j] = 0.0 if held[j] else matrix[r, j]
            solve_factored(order, factor, direction)
            reach = 0.0
            for j in range(len(order)):
                reach += matrix[r, j] * direction[j]
            if reach > 0.0:
                for j in range(len(order)):
                    step[j] -= direction[j] * (excess + MARGIN) / reach
            return


@numba.njit(error_model="numpy", forceinline=True)
def factorise(order: tuple[int, ...], damping: float, normal: NDArray, held: NDArray, factor: NDArray) -> None:
    """LDL^T of J^T J with Marquardt's damping of its diagonal; held parameters are decoupled.

    The unit lower triangle goes below the diagonal of ``factor``, and 1/D on it.
    """
    largest = 0.0
    for j in range(len(order)):
        largest = max(largest, normal[j, j])
    floor = 1e-16 * largest + 1e-300
    for j in range(len(order)):
        pivot = 1.0 if held[j] else normal[j, j] + damping * max(normal[j, j], floor) + floor
        for k in range(j):
            value = 0.0 if held[j] or held[k] else normal[j, k]
            for m in range(k):
                value -= factor[j, m] * factor[k, m]
            factor[j, k] = value  # still times the pivot of column k
        for k in range(j):
            value = factor[j, k]
            factor[j, k] *= factor[k, k]
            pivot -= value * factor[j, k]
        factor[j, j] = 1.0 / max(pivot, floor)


@numba.njit(error_model="numpy", forceinline=True)
def solve_factored(order: tuple[int, ...], factor: NDArray, x: NDArray) -> None:
    """Solve the factored system for the right-hand side ``x``, in place; held entries stay as they are."""
    for j in range(len(order)):
        for k in range(j):
            x[j] -= factor[j, k] * x[k]
    for j in range(len(order) - 1, -1, -1):
        x[j] *= factor[j, j]
        for k in range(j + 1, len(order)):
            x[j] -= factor[k, j] * x[k]


@numba.njit(error_model="numpy", forceinline=True)
def touches_bound(
    order: tuple[int, ...], parameters: NDArray, bounds: NDArray, matrix: NDArray, limits: NDArray
) -> bool:
    """Whether a free parameter ended on a bound, or a linear constraint holds with equality."""
    for j in range(len(order)):
        if bounds[j, 0] < bounds[j, 1] and (parameters[j] <= bounds[j, 0] or parameters[j] >= bounds[j, 1]):
            return True
    for r in range(limits.size):
        room = limits[r]
        for j in range(len(order)):
            room -= matrix[r, j] * parameters[j]
        if room <= 1e-9:
            return True
    return False
