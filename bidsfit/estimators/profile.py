"""Likelihood-ratio intervals: where the profile of the sum of misfits has risen by the quantile of its distribution.

The profile of a parameter is the least sum of misfits at every value of it, with the other parameters fitted within
their bounds and constraints. Unlike a standard deviation it shows that an interval is skewed or reaches a bound.

References
----------
Venzon DJ, Moolgavkar SH. Applied Statistics 1988;37:87-94.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bidsfit.estimators.estimator import LEAST_NOISE, Estimator, Intervals, interval_quantile
from bidsfit.estimators.levenberg_marquardt import EXACT, MARGIN, Problem
from bidsfit.estimators.solver import Solver
from bidsfit.information import bound_of_voxels
from bidsfit.noise import NoiseKind

#: Choices of intervals, and what is said of them in the methods text.
METHODS: dict[str, str] = {
    "wald": "95 % intervals are the estimate plus or minus its standard deviation (the Cramér-Rao bound) times the "
    "quantile of the normal distribution or, where the noise was estimated from the residuals, of Student's t.",
    "profile": "95 % intervals hold all values of a parameter whose profile likelihood passes a likelihood-ratio test "
    "(chi-square with one degree of freedom or, where the noise was estimated from the residuals, F).",
    "conformal": "95 % intervals hold 95 % of the true values that gave such an estimate in simulations.",
    "none": "",
}
#: Most values of a parameter that are tried for one end of its interval.
MOST = 12
#: An end is found where the root of the rise of the sum of misfits differs by less than this fraction.
NEAR = 0.01


def set_intervals(estimator: Estimator, intervals: Intervals) -> None:
    """Set how an estimator of a likelihood finds its intervals."""
    if intervals not in METHODS:
        raise ValueError(f"intervals must be {', '.join(METHODS)}; found {intervals!r}.")
    estimator.intervals = intervals
    if intervals == "profile":
        estimator.statistics = ("q025", "q975")


def intervals_in_words(estimator: Estimator) -> str:
    """How an estimator finds its intervals, for the methods text."""
    return METHODS[estimator.intervals]


def profile_intervals(
    solver: Solver,
    y: NDArray[np.float64],
    precision: NDArray[np.float64],
    found: NDArray[np.float64],
    cost: NDArray[np.float64],
    sigma: NDArray[np.float64],
    freedom: int,
    noise: NoiseKind,
) -> dict[str, NDArray[np.float64]]:
    """Ends of the intervals, "q025" and "q975", of shape (n_voxels, n_parameters).

    Parameters
    ----------
    solver : Solver
    y, precision : ndarray
        What it fitted, as in `Solver.__call__`.
    found, cost : ndarray
        Its parameters and sums of misfits.
    sigma : ndarray, shape (n_voxels,)
        Standard deviation of the noise of one measurement; where it is NaN, that of the residuals is taken.
    freedom : int
        Degrees of freedom of the residuals. Without one, the ends are NaN where the noise is not known.
    noise : {"gaussian", "rician"}

    Returns
    -------
    dict of str to ndarray
        An interval that reaches the bound of its parameter ends there. NaN for angles.
    """
    unknown = np.isnan(sigma)
    with np.errstate(divide="ignore", invalid="ignore"):
        level = np.where(unknown, np.sqrt(cost / precision / freedom), sigma)
    quantile = np.where(unknown, interval_quantile(freedom), interval_quantile(np.inf))
    ends = np.full((2, *found.shape), np.nan)
    good = np.flatnonzero(np.isfinite(quantile) & np.isfinite(found).all(axis=1))
    if good.size:
        y, precision, found, cost, level = (a[good] for a in (y, precision, found, cost, level))
        spread = bound_of_voxels(solver.model, found, solver.acquisition, np.fmax(level, LEAST_NOISE), noise)
        rise = (quantile[good] * level) ** 2 * precision
        ends[:, good] = _Profiles(solver, y, precision, found, cost, rise, quantile[good, None] * spread).intervals()
    return {"q025": ends[0], "q975": ends[1]}


@dataclass
class _Profiles:
    """Intervals of all parameters of the voxels of a chunk.

    A point whose sum of misfits has risen by less than the limit shows that the interval of every parameter reaches
    it. The outermost such points are kept, and the ends are sought from there on: the sum of misfits may have a second
    valley, which a search for one parameter would miss and that of another one finds.

    Parameters
    ----------
    solver : Solver
    y, precision : ndarray
        What it fitted, as in `Solver.__call__`.
    found, cost : ndarray
        Its parameters and sums of misfits.
    rise : ndarray, shape (n_voxels,)
        By how much the sum of misfits is higher at an end than at ``found``.
    spread : ndarray, shape (n_voxels, n_parameters)
        How far from ``found`` the ends are sought first, where it is finite.
    """

    solver: Solver
    y: NDArray[np.float64]
    precision: NDArray[np.float64]
    found: NDArray[np.float64]
    cost: NDArray[np.float64]
    rise: NDArray[np.float64]
    spread: NDArray[np.float64]

    def __post_init__(self) -> None:
        least = EXACT * self.precision * (self.y**2 @ self.solver.problem.weights)
        self.rise = np.maximum(self.rise, least)
        n, p = self.found.shape
        # for the lower and upper end of each parameter: the outermost point that is inside, and the gap there
        self.points = np.tile(self.found, (2, p, 1, 1))
        self.gaps = np.full((2, p, n), -1.0)

    def intervals(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Lower and upper ends, shape (n_voxels, n_parameters); NaN for angles.

        An interval that reaches the bound of its parameter ends there.
        """
        ends = np.full((2, *self.found.shape), np.nan)
        sides = [
            (side, j, bound)
            for j, parameter in enumerate(self.solver.model.parameters)
            if parameter.kind == "scalar"
            for side, bound in enumerate(self.solver.problem.bounds[j])
        ]
        every = np.arange(len(self.y))
        for side, j, bound in sides:
            ends[side, :, j] = self.found[:, j]
            if np.isfinite(bound):
                self._evaluate(every[self.found[:, j] != bound], j, bound, None)
        for _ in range(2):  # again where the search for another parameter has found a point farther out
            for side, j, bound in sides:
                sign = 2 * side - 1
                farther = sign * (self.points[side, j, :, j] - ends[side, :, j]) >= 0
                which = np.flatnonzero(farther & (ends[side, :, j] != bound))
                ends[side, which, j] = self._end(which, side, j, bound)
        return ends[0], ends[1]

    def _evaluate(
        self, which: NDArray[np.intp], j: int, values: NDArray[np.float64] | float, start: NDArray[np.float64] | None
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Fit the voxels ``which`` with parameter ``j`` held; return the parameters, and the gap to the end.

        The gap is 0 at an end, -1 at the solution, and nearly linear in the parameter between.
        """
        held = np.full((which.size, self.found.shape[1]), np.nan)
        held[:, j] = values
        costs, _ = self.solver.fit(self.y[which], self.precision[which], held, start)
        gaps = np.sqrt(np.maximum(costs - self.cost[which], 0.0) / self.rise[which]) - 1.0
        for side, sign in enumerate((-1, 1)):
            for k in range(held.shape[1]):
                farther = (gaps <= 0) & (sign * (held[:, k] - self.points[side, k, which, k]) > 0)
                self.points[side, k, which[farther]] = held[farther]
                self.gaps[side, k, which[farther]] = gaps[farther]
        return held, gaps

    def _end(self, which: NDArray[np.intp], side: int, j: int, bound: float) -> NDArray[np.float64]:
        """The end of the interval of parameter ``j`` in the voxels ``which``: secant steps inside a bracket."""
        sign, best, end = 2 * side - 1, self.found[which, j], np.full(which.size, bound)
        earlier, earlier_gap, outer = best.copy(), np.full(which.size, -1.0), np.full(which.size, bound)
        start, last, gap = self.points[side, j, which], self.points[side, j, which, j], self.gaps[side, j, which]
        active = np.flatnonzero(last != bound)
        for _ in range(MOST):
            if not active.size:
                break
            i, inner = active, self.points[side, j, which[active], j]
            with np.errstate(divide="ignore", invalid="ignore"):
                secant = last[i] - gap[i] * (last[i] - earlier[i]) / (gap[i] - earlier_gap[i])
                first = best[i] + sign * self.spread[which[i], j]
                x = np.where(last[i] == best[i], first, secant)
                further = inner + sign * np.maximum(np.abs(inner), 1.0)
                middle = np.where(np.isinf(outer[i]), further, (inner + outer[i]) / 2)
                x = np.where((sign * (x - inner) > 0) & (sign * (outer[i] - x) > 0), x, middle)
            guess = start[i]
            guess[:, j] = x
            earlier[i], earlier_gap[i] = last[i], gap[i]
            start[i], gap[i] = self._evaluate(which[i], j, x, feasible(guess, j, self.solver.problem))
            last[i] = end[i] = x
            outer[i] = np.where(gap[i] > 0, x, outer[i])
            active = i[np.abs(gap[i]) > NEAR]
        return end


def feasible(values: NDArray[np.float64], j: int, problem: Problem) -> NDArray[np.float64]:
    """Move all parameters but ``j`` inside bounds and linear constraints, where there is room."""
    for row, limit in zip(problem.matrix, problem.limits, strict=True):
        others = np.flatnonzero((row != 0) & (np.arange(row.size) != j))
        for _ in others:
            values = np.clip(values, *problem.bounds.T)
            excess = np.maximum(values @ row - limit + MARGIN, 0.0)
            values[:, others] -= excess[:, None] * row[others] / np.sum(row[others] ** 2)
    return values
