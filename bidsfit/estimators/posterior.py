r"""Posterior of one voxel by adaptive importance sampling; compiled.

Each parameter is a function of a standard normal variable z, :math:`\theta_j = F_j^{-1}(\Phi(z_j))` with the prior's
distribution function :math:`F_j`, so that bounds lie at infinity. Points drawn from the prior give a first mean and
covariance of the posterior. Points of a Student t distribution with these moments are then weighted by the posterior
and the moments updated, until enough points carry weight [1]_. Until then the likelihood is tempered, that is, raised
to a power below 1. The points are quasi-random (Sobol) and the same in all voxels, so that there is no seed and
neighbours differ only by their data.

The scale of the signal (flat prior) and, unless it is known, the standard deviation of the noise (Jeffreys' prior) are
integrated out in closed form [2]_: with weights W, :math:`c = \phi^T W y / |\phi|_W` and the signal :math:`\phi` of
scale 1,

.. math:: \log p(y | \theta) = -\tfrac{N-1}{2} \log(y^T W y - c^2) - \log |\phi|_W + const

or :math:`c^2 / 2 \sigma^2 - \log |\phi|_W` with known noise; the scale then has a t (normal) distribution.

References
----------
.. [1] Cappé O, Guillin A, Marin JM, Robert CP. Journal of Computational and Graphical Statistics 2004;13:907-929.
.. [2] Bretthorst GL. Bayesian Spectrum Analysis and Parameter Estimation. Springer, 1988, chapter 3.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

#: Points of the prior, of each round of adaptation, and of the result.
PRIOR_POINTS, ADAPTING, POINTS = 1024, 512, 1024
#: Degrees of freedom of the t distribution: its tails are heavier than those of posteriors.
FREEDOM = 5
#: Parts of a posterior that one t distribution does not fit.
PARTS = 4
#: One in so many points is spread as widely as the prior, lest a far tail be missed.
WIDE = 8
#: Effective number of points that a round needs, and at which points fit well enough, as fractions of all.
ENOUGH, GOOD = 0.12, 0.5
#: Most rounds of adaptation with one t distribution, and with several.
MAX_ROUNDS, MORE_ROUNDS = 40, 4
#: Table of the parameters: values of z from -LARGEST to LARGEST.
LARGEST, STEPS = 8.0, 256
#: Residuals below this fraction of the signal are rounding errors (of squares).
ROUNDING = 1e-13
#: Slack within which a point lies on a linear constraint.
ON_CONSTRAINT = 1e-12
#: Probabilities of the quantiles, and how often an interval that holds one is halved.
TAILS, HALVINGS = (0.025, 0.975), 24

compiled = numba.njit(error_model="numpy", nogil=True)
#: For sums whose order does not matter, so that several terms are added at a time.
summing = numba.njit(error_model="numpy", nogil=True, fastmath={"reassoc", "contract"})


class Frame(NamedTuple):
    """Arrays shared by all voxels, for p free parameters besides the scale."""

    design: NDArray  # (n, n_variables)
    weights: NDArray  # (n,)
    free: NDArray  # (p,), indices of the free parameters
    scale: int  # index of the scale
    tables: NDArray  # (p, n_table), parameters at equally spaced z
    probability: NDArray  # (n_table,), of the prior below z
    matrix: NDArray  # (n_constraints, n_parameters): matrix @ parameters <= limits
    limits: NDArray  # (n_constraints,)
    prior: NDArray  # (n_prior, p), points z of the prior that meet the constraints
    prior_units: NDArray  # (n_prior, n), their signals, W phi / |phi|_W
    prior_norms: NDArray  # (n_prior,), log |phi|_W
    points: NDArray  # (POINTS, p), of the standard t distribution
    scale_points: NDArray  # (2, POINTS), of the distribution of (S0 - centre) / spread: noise known, integrated out
    scale_variance: NDArray  # (2,), of these distributions
    least_energy: float  # |phi|_W^2 below which a signal of scale 1 is too faint to be believed


class Work(NamedTuple):
    """Working memory of one thread."""

    parameters: NDArray  # (n_parameters,)
    signal: NDArray  # (n,)
    jacobian: NDArray  # (0, 0), not filled
    z: NDArray  # (POINTS, p)
    values: NDArray  # (p, POINTS), parameters
    centre: NDArray  # (POINTS,), S0 given the parameters: mean ...
    spread: NDArray  # (POINTS,), ... and scale of its t or normal distribution
    logarithm: NDArray  # (POINTS,), of the weights
    weight: NDArray  # (POINTS,)
    scale: NDArray  # (POINTS,), draws of S0
    means: NDArray  # (PARTS, p), of the t distributions
    factors: NDArray  # (PARTS, p, p), Cholesky factors of their covariances
    heights: NDArray  # (PARTS,), logarithms of their densities at their means, but for a constant
    axis: NDArray  # (p,), longest of the posterior
    part: NDArray  # (POINTS,), to which a point belongs


def make_work(n: int, n_parameters: int, p: int) -> Work:
    """Allocate the working memory for n signals, ``n_parameters`` parameters and p free ones besides the scale."""
    many = max(POINTS, PRIOR_POINTS)
    empty = [np.empty(many) for _ in range(5)]
    centre, spread, logarithm, weight, scale = empty
    return Work(
        np.empty(n_parameters), np.empty(n), np.empty((0, 0)), np.empty((many, p)), np.empty((p, many)),
        centre, spread, logarithm, weight, scale, np.empty((PARTS, p)), np.zeros((PARTS, p, p)), np.empty(PARTS),
        np.empty(p), np.zeros(many, np.int64),
    )  # fmt: skip


@compiled
def fill_posteriors(
    kernel: Any,
    y: NDArray,
    sigma: NDArray,
    known: NDArray,
    frame: Frame,
    work: Work,
    mean: NDArray,
    sd: NDArray,
    lower: NDArray,
    upper: NDArray,
    squares: NDArray,
    width: NDArray,
    effective: NDArray,
) -> None:
    """Summarise the posteriors of voxels one by one.

    Parameters
    ----------
    y : ndarray, shape (n_voxels, n)
    sigma : ndarray, shape (n_voxels,)
        Standard deviation of the noise of one measurement; NaN to integrate it out.
    known : ndarray, shape (n_parameters,)
        Values of the fixed parameters.
    mean, sd, lower, upper : ndarray, shape (n_voxels, n_parameters)
        Filled with the moments and the ends of the central 95 % interval.
    squares : ndarray, shape (n_voxels,)
        Filled with the weighted sum of squared residuals at the mean.
    width : ndarray, shape (n_voxels, p)
        Filled with the standard deviation of the prior's cumulative probability over the posterior.
    effective : ndarray, shape (n_voxels,)
        Filled with the effective number of points behind the moments.
    """
    p, n = frame.free.size, frame.design.shape[0]
    for v in range(y.shape[0]):
        work.parameters[:] = known
        energy = 0.0
        for i in range(n):
            energy += frame.weights[i] * y[v, i] ** 2
        effective[v] = adapt(kernel, y[v], energy, sigma[v], frame, work)
        weight = work.weight[:POINTS]
        for j in range(p):
            values, k = work.values[j, :POINTS], frame.free[j]
            mean[v, k], sd[v, k] = moments(weight, values)
            lower[v, k], upper[v, k] = quantile(weight, values, TAILS[0]), quantile(weight, values, TAILS[1])
            for g in range(POINTS):
                work.scale[g] = look_up(frame.probability, work.z[g, j])
            _, width[v, j] = moments(weight, work.scale[:POINTS])
        k = frame.scale
        mean[v, k], between = moments(weight, work.centre[:POINTS])
        within, which = 0.0, int(np.isnan(sigma[v]))
        for g in range(POINTS):
            within += weight[g] * work.spread[g] ** 2
            work.scale[g] = work.centre[g] + work.spread[g] * frame.scale_points[which, g]
        sd[v, k] = math.sqrt(between**2 + within * frame.scale_variance[which])
        lower[v, k] = quantile(weight, work.scale[:POINTS], TAILS[0])
        upper[v, k] = quantile(weight, work.scale[:POINTS], TAILS[1])
        for j in range(work.parameters.size):
            work.parameters[j] = mean[v, j]
        kernel(work.parameters, frame.design, work.signal, work.jacobian)
        squares[v] = 0.0
        for i in range(n):
            squares[v] += frame.weights[i] * (y[v, i] - work.signal[i]) ** 2


@compiled
def adapt(kernel: Any, y: NDArray, energy: float, sigma: float, frame: Frame, work: Work) -> float:
    """Fill ``work`` with points and their normalised weights; return their effective number."""
    n_prior, p = frame.prior.shape
    for g in range(n_prior):
        c = 0.0
        for i in range(y.size):
            c += frame.prior_units[g, i] * y[i]
        work.logarithm[g] = log_likelihood(c, frame.prior_norms[g], energy, sigma, y.size)
        for j in range(p):
            work.z[g, j] = frame.prior[g, j]
    weigh(n_prior, work)
    find_moments(n_prior, 1, work)
    parts = 1
    for _ in range(MAX_ROUNDS):
        spread_points(kernel, y, energy, sigma, ADAPTING, 1, 0, frame, work)
        tempered, effective = weigh(ADAPTING, work)
        find_moments(ADAPTING, 1, work)
        if not tempered:
            break
    for _ in range(MORE_ROUNDS):
        if effective > GOOD * ADAPTING:
            break
        parts = PARTS
        split(ADAPTING, work)
        find_moments(ADAPTING, PARTS, work)
        spread_points(kernel, y, energy, sigma, ADAPTING, PARTS, ADAPTING // WIDE, frame, work)
        _, effective = weigh(ADAPTING, work)
    if parts > 1:
        split(ADAPTING, work)
        find_moments(ADAPTING, PARTS, work)
    spread_points(kernel, y, energy, sigma, POINTS, parts, POINTS // WIDE, frame, work)
    return normalise(POINTS, 1.0, work)


@compiled
def spread_points(
    kernel: Any, y: NDArray, energy: float, sigma: float, n: int, parts: int, wide: int, frame: Frame, work: Work
) -> None:
    """Draw n points, ``wide`` of them as widely as the prior, the others around the means; compute log weights."""
    p, narrow = frame.free.size, n - wide
    everywhere = parts * wide / narrow
    for g in range(n):
        square, part = 0.0, g * parts // narrow  # runs of Sobol points fill space evenly
        for j in range(p):
            if g < narrow:
                z = work.means[part, j]
                for k in range(j + 1):
                    z += work.factors[part, j, k] * frame.points[g, k]
            else:
                z = frame.points[g, j]
            work.z[g, j] = z
            square += z * z
            work.values[j, g] = work.parameters[frame.free[j]] = look_up(frame.tables[j], z)
        work.parameters[frame.scale] = 1.0
        kernel(work.parameters, frame.design, work.signal, work.jacobian)
        c = norm = 0.0
        for i in range(y.size):
            weighted = frame.weights[i] * work.signal[i]
            c += weighted * y[i]
            norm += weighted * work.signal[i]
        visible = norm > frame.least_energy
        norm = math.sqrt(max(norm, frame.least_energy))
        c /= norm
        residual = max(energy - c * c, ROUNDING * energy)
        work.centre[g] = c / norm
        work.spread[g] = (math.sqrt(residual / (y.size - 1)) if np.isnan(sigma) else sigma) / norm
        work.logarithm[g] = (
            log_likelihood(c, math.log(norm), energy, sigma, y.size)
            - 0.5 * square
            - log_density(g, parts, everywhere, work)
            if visible and meets_constraints(work.parameters, frame)
            else -np.inf
        )


@compiled
def log_density(g: int, parts: int, everywhere: float, work: Work) -> float:
    """Logarithm, up to a constant, of the mixture of t distributions from which a point was drawn."""
    p = work.axis.size
    square = 0.0
    for j in range(p):
        square += work.z[g, j] ** 2
    power = -0.5 * (FREEDOM + p)
    total = everywhere * math.exp(power * math.log1p(square / FREEDOM) - work.heights[0])
    for part in range(parts):
        square = 0.0
        for j in range(p):
            value = work.z[g, j] - work.means[part, j]
            for k in range(j):
                value -= work.factors[part, j, k] * work.axis[k]
            work.axis[j] = value / work.factors[part, j, j]
            square += work.axis[j] ** 2
        total += math.exp(power * math.log1p(square / FREEDOM) + work.heights[part] - work.heights[0])
    return work.heights[0] + math.log(max(total, 1e-300))


@compiled
def log_likelihood(c: float, log_norm: float, energy: float, sigma: float, n: int) -> float:
    """Log-likelihood with the scale integrated out, and also the noise if ``sigma`` is NaN."""
    if np.isnan(sigma):
        return -0.5 * (n - 1) * math.log(max(energy - c * c, ROUNDING * energy)) - log_norm
    return 0.5 * (c / sigma) ** 2 - log_norm


@compiled
def meets_constraints(parameters: NDArray, frame: Frame) -> bool:
    """Whether the linear constraints hold."""
    for r in range(frame.limits.size):
        slack = frame.limits[r] + ON_CONSTRAINT
        for j in range(parameters.size):
            slack -= frame.matrix[r, j] * parameters[j]
        if slack < 0.0:
            return False
    return True


@compiled
def weigh(n: int, work: Work) -> tuple[bool, float]:
    """Normalise the weights of n points, tempered if few carry weight; return whether tempered and effective number."""
    effective = normalise(n, 1.0, work)
    if effective >= ENOUGH * n:
        return False, effective
    low, high = 0.0, 1.0
    for _ in range(12):
        power = 0.5 * (low + high)
        effective = normalise(n, power, work)
        if effective >= ENOUGH * n:
            low = power
        else:
            high = power
    return True, effective


@compiled
def normalise(n: int, power: float, work: Work) -> float:
    """Normalise the weights, exp(power times logarithm), to sum 1; return their effective number."""
    largest = -np.inf
    for g in range(n):
        largest = max(largest, work.logarithm[g])
    total = squares = 0.0
    for g in range(n):
        weight = math.exp(power * (work.logarithm[g] - largest)) if work.logarithm[g] > -np.inf else 0.0
        work.weight[g] = weight
        total += weight
        squares += weight * weight
    for g in range(n):
        work.weight[g] /= total
    return total * total / squares


@compiled
def find_moments(n: int, parts: int, work: Work) -> None:
    """Mean of the points of each part, and Cholesky factor of their covariance, which is kept from being singular."""
    p = work.axis.size
    for part in range(parts):
        total = 0.0
        for g in range(n):
            if parts == 1 or work.part[g] == part:
                total += work.weight[g]
        mean, factor = work.means[part], work.factors[part]
        for j in range(p):
            mean[j] = 0.0
            for g in range(n):
                if parts == 1 or work.part[g] == part:
                    mean[j] += work.weight[g] * work.z[g, j] / total
        for j in range(p):
            for k in range(j + 1):
                factor[j, k] = 0.0
                for g in range(n):
                    if parts == 1 or work.part[g] == part:
                        factor[j, k] += work.weight[g] * (work.z[g, j] - mean[j]) * (work.z[g, k] - mean[k]) / total
        work.heights[part] = 0.0
        for j in range(p):
            floor = 1e-6 * factor[j, j] + 1e-14
            for k in range(j + 1):
                value = factor[j, k]
                for m in range(k):
                    value -= factor[j, m] * factor[k, m]
                factor[j, k] = math.sqrt(max(value, floor)) if j == k else value / factor[k, k]
            work.heights[part] -= math.log(factor[j, j])


@compiled
def split(n: int, work: Work) -> None:
    """Divide the points into parts of equal weight along the longest axis of the posterior."""
    p, mean, axis = work.axis.size, work.means[0], work.axis
    for j in range(p):
        mean[j] = 0.0
        for g in range(n):
            mean[j] += work.weight[g] * work.z[g, j]
        axis[j] = 1.0 + 0.1 * j
    for _ in range(20):  # power iteration
        for j in range(p):
            work.factors[0, 0, j] = 0.0
        for g in range(n):
            along = 0.0
            for j in range(p):
                along += (work.z[g, j] - mean[j]) * axis[j]
            for j in range(p):
                work.factors[0, 0, j] += work.weight[g] * along * (work.z[g, j] - mean[j])
        length = 0.0
        for j in range(p):
            length += work.factors[0, 0, j] ** 2
        for j in range(p):
            axis[j] = work.factors[0, 0, j] / math.sqrt(max(length, 1e-300))
    for g in range(n):
        work.scale[g] = 0.0
        for j in range(p):
            work.scale[g] += work.z[g, j] * axis[j]
        work.part[g] = 0
    for part in range(1, PARTS):
        border = quantile(work.weight[:n], work.scale[:n], part / PARTS)
        for g in range(n):
            work.part[g] += work.scale[g] > border


@compiled
def look_up(table: NDArray, z: float) -> float:
    """Value of a table at z, by linear interpolation."""
    position = (min(max(z, -LARGEST), LARGEST) + LARGEST) * STEPS
    k = min(int(position), table.size - 2)
    return table[k] + (position - k) * (table[k + 1] - table[k])


@summing
def moments(weight: NDArray, values: NDArray) -> tuple[float, float]:
    """Mean and standard deviation."""
    mean = square = 0.0
    for g in range(weight.size):
        mean += weight[g] * values[g]
    for g in range(weight.size):
        square += weight[g] * (values[g] - mean) ** 2
    return mean, math.sqrt(square)


@summing
def quantile(weight: NDArray, values: NDArray, probability: float) -> float:
    """Value below which the given share of the weight lies, by bisection."""
    low, high = np.inf, -np.inf
    for g in range(weight.size):
        low, high = min(low, values[g]), max(high, values[g])
    for _ in range(HALVINGS):
        middle = 0.5 * (low + high)
        below = 0.0
        for g in range(weight.size):
            below += weight[g] if values[g] <= middle else 0.0
        if below < probability:
            low = middle
        else:
            high = middle
    return 0.5 * (low + high)
