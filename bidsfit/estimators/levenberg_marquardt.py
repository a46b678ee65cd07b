"""Levenberg-Marquardt with bounds and linear constraints, compiled; voxels are fitted one by one without allocation.

The objective is a sum of misfits of the measurements (see bidsfit/estimators/misfits.py): squares for least squares,
or negative logarithms of Rician densities for maximum likelihood by a damped Newton method. A prior may be added to a
sum of squares (see `LogPrior`).

References
----------
Levenberg K. Quarterly of Applied Mathematics 1944;2:164-168.
Marquardt DW. SIAM Journal on Applied Mathematics 1963;11:431-441.
Nielsen HB. Damping parameter in Marquardt's method. IMM-REP-1999-05, 1999.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

from bidsfit.compiling import specialised
from bidsfit.estimators.estimator import Status

MAX_ITERATIONS = 200
#: Converged when the next step promises to lower the sum of misfits by less than this fraction of it.
TOLERANCE = 1e-7
#: Converged when the sum of misfits is below this fraction of that of no signal at all: the model fits exactly.
EXACT = 1e-18
#: How far inside a linear constraint a step that would cross it ends, so that rounding does not carry it across.
MARGIN = 1e-12
#: Marquardt's damping at the start, relative to the diagonal of J^T J.
FIRST_DAMPING = 0.01
#: The same for second starts: short steps stay in the valley that they start in.
CAUTIOUS_DAMPING = 1.0
#: Not even an infinitesimal step helps: rounding errors rule.
LARGEST_DAMPING = 1e12

#: Added to every density of a prior, so that no parameter can veto what the signals say.
EPSILON = 1e-8

CONVERGED = int(Status.CONVERGED)
AT_BOUND = int(Status.AT_BOUND)
ITERATION_LIMIT = int(Status.ITERATION_LIMIT)


# None of these functions makes or keeps an array, so that none needs to count references to arrays (numba's `_nrt`):
# counting is atomic, and would cost more than the arithmetic.
compiled = numba.njit(error_model="numpy", nogil=True, _nrt=False)  # type: ignore[call-overload]
inlined = numba.njit(error_model="numpy", forceinline=True, _nrt=False)  # type: ignore[call-overload]

#: Compiled functions of a model and of a kind of noise, which `specialised` puts here.
kernel: Any = None
misfit: Any = None


class LogPrior(NamedTuple):
    """Independent densities of parameters x, of the form exp(constant + p ln x + q (ln x)^2 + r ln(top - x)).

    Lognormal and Beta distributions have this form. With a prior the objective is
    ``signals * ln(sum of misfits) - 2 sum ln(density + EPSILON)``.
    """

    signals: float  # what the logarithm of the sum of squares is multiplied by
    which: NDArray  # (n,), indices of the parameters that have a density
    terms: NDArray  # (n, 5): constant, p, q, r and top


class Problem(NamedTuple):
    """Protocol, model constraints and starting points, which are the same in all voxels."""

    order: tuple[int, ...]  # (0, 1, ..., n_parameters - 1): loops over the length of a tuple are unrolled
    design: NDArray  # (n_rows, n_variables)
    rows: NDArray  # (n,), row of the design of each measurement
    weights: NDArray  # (n,), of the measurements
    bounds: NDArray  # (n_parameters, 2)
    matrix: NDArray  # (n_constraints, n_parameters): matrix @ parameters <= limits
    limits: NDArray  # (n_constraints,)
    scale: int  # index of the parameter that multiplies the signal; -1 where there is none
    nodes: NDArray  # (n_nodes, n_parameters), starting points with scale 1
    node_signals: NDArray  # (n_rows, n_nodes)
    prior: LogPrior | None = None


class Work(NamedTuple):
    """Arrays for the computations of one thread."""

    box: NDArray  # (n_parameters, 2), bounds in this voxel
    signal: NDArray  # (n_rows,)
    jacobian: NDArray  # (n_rows, n_parameters)
    slope: NDArray  # (n_rows,), of the misfit, downhill
    curvature: NDArray  # (n_rows,), of the misfit
    normal: NDArray  # (n_parameters, n_parameters), J^T diag(curvature) J
    gradient: NDArray  # (n_parameters,), J^T slope: points downhill
    factor: NDArray  # (n_parameters, n_parameters), of the damped normal matrix
    step: NDArray  # (n_parameters,)
    direction: NDArray  # (n_parameters,), in which a linear constraint is left
    trial: NDArray  # (n_parameters,)
    held: NDArray  # (n_parameters,), whether a parameter stays in this step


class StartGrid(NamedTuple):
    """Properties of the starting points, and arrays of one thread to choose among them."""

    energies: NDArray  # (n_nodes,), weighted sums of squares of their signals
    middle: NDArray  # (n_parameters,), medians of their parameters
    measured: NDArray  # (n_rows,), weighted sums of the measured signals of this voxel
    scores: NDArray  # (n_nodes,), inner products of the measured signals and theirs


def fit_voxels(
    kernel: Any,
    misfit: Any,
    y: NDArray,
    precision: NDArray,
    problem: Problem,
    found: NDArray,
    cost: NDArray,
    status: NDArray,
    start: NDArray | None = None,
) -> None:
    """Fit voxels one by one.

    Parameters
    ----------
    kernel : compiled kernel of a model
    misfit : compiled misfit of one measurement
    y : ndarray, shape (n_voxels, n)
        Signals.
    precision : ndarray, shape (n_voxels,)
        Multiplies the weights: 1 / sigma^2, or 1 if the noise does not matter.
    problem : Problem
    found, cost, status : ndarray, shapes (n_voxels, n_parameters), (n_voxels,), (n_voxels,)
        Outputs: parameters, sums of misfits and status codes. A parameter that is not NaN in ``found`` on entry is held
        at that value.
    start : ndarray, shape (n_voxels, n_parameters), optional
        Starting points; by default the best node of the grid.
    """
    y = np.ascontiguousarray(y)
    other = np.empty(len(problem.order))
    first = np.empty((0, len(problem.order))) if start is None else np.ascontiguousarray(start)
    work = make_work(problem)
    fit = specialised(solve, kernel=kernel, misfit=misfit)
    fit(y, precision, problem, make_grid(problem), work, other, first, found, cost, status)


def make_grid(problem: Problem) -> StartGrid:
    """Make the `StartGrid` of one thread."""
    return StartGrid(
        energies=np.sum(problem.weights[:, None] * problem.node_signals[problem.rows] ** 2, axis=0),
        middle=np.median(problem.nodes, axis=0),
        measured=np.empty(problem.node_signals.shape[0]),
        scores=np.empty(len(problem.nodes)),
    )


def make_work(problem: Problem) -> Work:
    """Make the `Work` of one thread."""
    n_rows, n = problem.node_signals.shape[0], len(problem.order)
    return Work(
        box=problem.bounds.copy(),
        signal=np.empty(n_rows),
        jacobian=np.empty((n_rows, n)),
        slope=np.empty(n_rows),
        curvature=np.empty(n_rows),
        normal=np.empty((n, n)),
        gradient=np.empty(n),
        factor=np.empty((n, n)),
        step=np.empty(n),
        direction=np.empty(n),
        trial=np.empty(n),
        held=np.empty(n, dtype=np.bool_),
    )


@compiled
def solve(
    y: NDArray,
    precision: NDArray,
    problem: Problem,
    grid: StartGrid,
    work: Work,
    other: NDArray,
    start: NDArray,
    found: NDArray,
    cost: NDArray,
    status: NDArray,
) -> None:
    """Fit voxels one by one (see `fit_voxels`).

    ``other`` is memory for a second solution. With an empty ``start``, fits start at the best node.
    """
    order, box, bounds = problem.order, work.box, problem.bounds
    for v in range(y.shape[0]):
        solution = found[v]
        for j in range(len(order)):
            known = solution[j]
            box[j, 0] = bounds[j, 0] if np.isnan(known) else known
            box[j, 1] = bounds[j, 1] if np.isnan(known) else known
        if start.shape[0] > 0:
            for j in range(len(order)):
                solution[j] = min(max(start[v, j], box[j, 0]), box[j, 1])
        else:
            score_nodes(y[v], problem, grid)
            best_node(problem, grid, box, 0, -np.inf, np.inf, solution)
        cost[v], status[v] = descend(y[v], precision[v], problem, work, solution, FIRST_DAMPING)
        if (
            status[v] == AT_BOUND and start.shape[0] == 0
        ):  # often a local minimum: look also from the other half of that parameter's range
            for j in range(len(order)):
                lower, upper = box[j, 0], box[j, 1]
                if j == problem.scale or lower == upper or lower < solution[j] < upper:
                    continue
                if solution[j] < grid.middle[j]:
                    best_node(problem, grid, box, j, grid.middle[j], np.inf, other)
                else:
                    best_node(problem, grid, box, j, -np.inf, grid.middle[j], other)
                other_cost, other_status = descend(y[v], precision[v], problem, work, other, CAUTIOUS_DAMPING)
                if other_cost < cost[v]:
                    cost[v], status[v] = other_cost, other_status
                    for k in range(len(order)):
                        solution[k] = other[k]


@inlined
def score_nodes(y: NDArray, problem: Problem, grid: StartGrid) -> None:
    """Compute the inner products of the measured signals with the signals of all starting points."""
    measured, scores, rows, weights, node_signals = (
        grid.measured, grid.scores, problem.rows, problem.weights, problem.node_signals
    )  # fmt: skip
    measured[:] = 0.0
    for i in range(y.size):
        measured[rows[i]] += weights[i] * y[i]
    scores[:] = 0.0
    for k in range(measured.size):
        for g in range(scores.size):
            scores[g] += measured[k] * node_signals[k, g]


@compiled
def best_node(
    problem: Problem, grid: StartGrid, bounds: NDArray, which: int, least: float, most: float, parameters: NDArray
) -> None:
    """Set ``parameters`` to the starting point with the least sum of squares, with the scale that fits best.

    Only starting points whose parameter ``which`` lies between ``least`` and ``most`` are considered.
    """
    nodes, scores, energies, scale = problem.nodes, grid.scores, grid.energies, problem.scale
    best, best_gain, best_amplitude = 0, -np.inf, 0.0
    for g in range(scores.size):
        if nodes[g, which] < least or nodes[g, which] > most:
            continue
        amplitude = 1.0
        if scale >= 0:
            amplitude = min(max(scores[g] / energies[g], bounds[scale, 0]), bounds[scale, 1])
        gain = amplitude * (2.0 * scores[g] - amplitude * energies[g])
        if gain > best_gain and meets_constraints(problem, bounds, g):
            best, best_gain, best_amplitude = g, gain, amplitude
    for j in range(parameters.size):
        parameters[j] = min(max(nodes[best, j], bounds[j, 0]), bounds[j, 1])
    if scale >= 0:
        parameters[scale] = best_amplitude


@inlined
def meets_constraints(problem: Problem, bounds: NDArray, g: int) -> bool:
    """Whether a starting point, moved inside the bounds, meets the linear constraints.

    All points of the grid do, but a parameter may be held at another value (D of a segmented fit).
    """
    for r in range(problem.limits.size):
        room = problem.limits[r] + MARGIN
        for j in range(len(problem.order)):
            room -= problem.matrix[r, j] * min(max(problem.nodes[g, j], bounds[j, 0]), bounds[j, 1])
        if room < 0.0:
            return False
    return True


@compiled
def descend(
    y: NDArray,
    precision: float,
    problem: Problem,
    work: Work,
    parameters: NDArray,
    first_damping: float,
) -> tuple[float, int]:
    """Minimise from ``parameters`` (feasible; replaced by the solution); return the sum of misfits and the status."""
    order, trial, exact = problem.order, work.trial, exactly(y, precision, problem)
    kernel(parameters, problem.design, work.signal, work.jacobian)
    cost = total_misfit(y, precision, problem, work)
    cost = with_prior(problem.prior, parameters, cost, exact, work)
    normal_equations(order, work)
    bend_to_prior(problem.prior, parameters, work)
    damping, growth = first_damping, 2.0
    outcome = ITERATION_LIMIT
    for _ in range(MAX_ITERATIONS):
        promised = propose(parameters, damping, problem, work)
        if promises_nothing(promised, cost, damping):
            take_last_step(parameters, promised, work)
            outcome = CONVERGED
            break
        gain = 0.0
        if promised > 1e-15 * abs(cost):  # it can be negative: parameters put on their bounds pull the others along
            kernel(trial, problem.design, work.signal, work.jacobian)
            trial_cost = total_misfit(y, precision, problem, work)
            gain = cost - with_prior(problem.prior, trial, trial_cost, exact, work)
        if gain > 0.0:
            for j in range(len(order)):
                parameters[j] = trial[j]
            cost -= gain
            if settled(gain, promised, cost, exact):
                outcome = CONVERGED
                break
            normal_equations(order, work)
            bend_to_prior(problem.prior, parameters, work)
            damping = relaxed(damping, gain, promised)
            growth = 2.0
        else:
            damping *= growth
            growth *= 2.0
            if damping > LARGEST_DAMPING:
                outcome = CONVERGED
                break
    if outcome == CONVERGED and touches_bound(parameters, work.box, problem):
        outcome = AT_BOUND
    return cost, outcome


@inlined
def exactly(y: NDArray, precision: float, problem: Problem) -> float:
    """Sum of misfits below which a fit counts as exact."""
    exact = 0.0
    for i in range(y.size):
        exact += EXACT * precision * problem.weights[i] * y[i] ** 2
    return exact


@inlined
def propose(parameters: NDArray, damping: float, problem: Problem, work: Work) -> float:
    """Compute a step, set ``work.trial`` to its end, and return the predicted decrease of the sum of misfits."""
    order, bounds, step, normal = problem.order, work.box, work.step, work.normal
    constrained_step(parameters, damping, problem, work)
    promised = 0.0
    for j in range(len(order)):
        curved = 0.0
        for k in range(len(order)):
            curved += normal[j, k] * step[k]
        promised += step[j] * (2.0 * work.gradient[j] - curved)
        work.trial[j] = min(max(parameters[j] + step[j], bounds[j, 0]), bounds[j, 1])
    return promised


@inlined
def promises_nothing(promised: float, cost: float, damping: float) -> bool:
    """Whether the predicted decrease is negligible although the damping is low."""
    return abs(promised) <= TOLERANCE * abs(cost) and damping <= FIRST_DAMPING


@inlined
def take_last_step(parameters: NDArray, promised: float, work: Work) -> None:
    """Take a step whose predicted decrease is negligible, without evaluating signals or the sum of misfits.

    Parameters can still change where the sum of misfits is flat: by up to .0004 um^2/ms in the tensor of a brain.
    """
    if promised > 0.0:
        for j in range(parameters.size):
            parameters[j] = work.trial[j]


@inlined
def settled(gain: float, promised: float, cost: float, exact: float) -> bool:
    """Whether the fit has converged after a step with this gain (decrease of the sum of misfits)."""
    return abs(cost) <= exact or (gain <= TOLERANCE * abs(cost) and promised <= TOLERANCE * abs(cost))


@inlined
def relaxed(damping: float, gain: float, promised: float) -> float:
    """Damping after a step that lowered the sum of misfits (Nielsen)."""
    return max(damping * max(0.1, 1.0 - (2.0 * gain / promised - 1.0) ** 3), 1e-14)


@inlined
def total_misfit(y: NDArray, precision: float, problem: Problem, work: Work) -> float:
    """Sum of misfits of all measurements; sets the sums of slopes and curvatures for each row of the design."""
    rows, weights, signal, slope, curvature = problem.rows, problem.weights, work.signal, work.slope, work.curvature
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


@inlined
def normal_equations(order: tuple[int, ...], work: Work) -> None:
    """Compute the normal matrix J^T diag(curvature) J and the gradient J^T slope."""
    slope, curvature, jacobian, normal, gradient = work.slope, work.curvature, work.jacobian, work.normal, work.gradient
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


@inlined
def with_prior(prior: LogPrior | None, parameters: NDArray, squares: float, exact: float, work: Work) -> float:
    """Objective from the sum of squares, including the prior if there is one; then slopes and curvatures are rescaled.

    ``exact`` is the sum of squares below which a fit counts as exact. It keeps the logarithm finite.
    """
    if prior is None:
        return squares
    factor = prior.signals / (squares + exact)
    for k in range(work.slope.size):
        work.slope[k] *= factor
        work.curvature[k] *= factor
    cost = prior.signals * math.log(squares + exact)
    for k in range(prior.which.size):
        cost -= 2.0 * log_density(prior.terms[k], parameters[prior.which[k]])[0]
    return cost


@inlined
def bend_to_prior(prior: LogPrior | None, parameters: NDArray, work: Work) -> None:
    """Add the slope of a prior to the gradient, and its curvature to the normal matrix."""
    if prior is not None:
        for k in range(prior.which.size):
            j = prior.which[k]
            _, slope, curvature = log_density(prior.terms[k], parameters[j])
            work.gradient[j] += slope
            work.normal[j, j] += curvature


@inlined
def log_density(terms: NDArray, x: float) -> tuple[float, float, float]:
    """ln(density + EPSILON), its derivative, and the absolute value of its second derivative."""
    constant, p, q, r, top = terms[0], terms[1], terms[2], terms[3], terms[4]
    logarithm = math.log(x)
    density = math.exp(constant + (p + q * logarithm) * logarithm + r * math.log(top - x))
    share = density / (density + EPSILON)
    slope = (p + 2.0 * q * logarithm) / x - r / (top - x)
    bend = (2.0 * q - p - 2.0 * q * logarithm) / (x * x) - r / (top - x) ** 2
    return math.log(density + EPSILON), share * slope, share * abs(bend + (1.0 - share) * slope * slope)


@inlined
def constrained_step(parameters: NDArray, damping: float, problem: Problem, work: Work) -> None:
    """Compute a damped Gauss-Newton step that respects bounds and linear constraints.

    Parameters at a bound are held if the gradient points outwards. If the step leaves another bound, that parameter is
    set to the bound, and the step of the others is computed again. A step that crosses a linear constraint ends on it.
    """
    order, bounds, matrix, limits = problem.order, work.box, problem.matrix, problem.limits
    normal, gradient, factor, held, step = work.normal, work.gradient, work.factor, work.held, work.step
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
        meet_linear_constraint(parameters, problem, work)
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


@inlined
def meet_linear_constraint(parameters: NDArray, problem: Problem, work: Work) -> None:
    """Correct a step that crosses a linear constraint (the first one), so that it ends just inside."""
    order, matrix, limits = problem.order, problem.matrix, problem.limits
    factor, direction, held, step = work.factor, work.direction, work.held, work.step
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


@inlined
def factorise(order: tuple[int, ...], damping: float, normal: NDArray, held: NDArray, factor: NDArray) -> None:
    """LDL^T of the normal matrix with Marquardt's damping of its diagonal; held parameters are decoupled.

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


@inlined
def solve_factored(order: tuple[int, ...], factor: NDArray, x: NDArray) -> None:
    """Solve the factored system in place for the right-hand side ``x``; entries of held parameters stay."""
    for j in range(len(order)):
        for k in range(j):
            x[j] -= factor[j, k] * x[k]
    for j in range(len(order) - 1, -1, -1):
        x[j] *= factor[j, j]
        for k in range(j + 1, len(order)):
            x[j] -= factor[k, j] * x[k]


@inlined
def touches_bound(parameters: NDArray, bounds: NDArray, problem: Problem) -> bool:
    """Whether a free parameter lies at a bound, or a linear constraint holds with equality."""
    order, matrix, limits = problem.order, problem.matrix, problem.limits
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
