r"""Posterior of one voxel by importance sampling with points that adapt to it; compiled.

Each parameter is a function of a standard normal variable z, :math:`\theta_j = F_j^{-1}(\Phi(z_j))` with the prior's
distribution function :math:`F_j`, so that bounds lie at infinity. Points drawn from the prior give a first mean and
covariance of the posterior; then points of a Student t distribution with these moments are weighed, and the moments
found again, until the points fit (adaptive importance sampling [1]_). As long as few points carry all the weight, the
likelihood is tempered: taken to a power below 1 that leaves enough of them. The points are quasi-random (Sobol) and the
same for all voxels, so that there is no seed and neighbours differ by their data only.

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
#: Room within which a point lies on a linear constraint.
ON_CONSTRAINT = 1e-12
#: Probabilities of the quantiles, and how often an interval that holds one is halved.
TAILS, HALVINGS = (0.025, 0.975), 24

compiled = numba.njit(error_model="numpy", nogil=True)
#: For sums whose order does not matter, so that several terms are added at a time.
summing = numba.njit(error_model="numpy", nogil=True, fastmath={"reassoc", "contract"})


class Frame(NamedTuple):
    """What all voxels share; p free parameters, the scale left out."""

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
    scale_points: NDArray  # (POINTS,), of the distribution of (S0 - centre) / spread
    scale_variance: float  # of that distribution
    least_energy: float  # |phi|_W^2 below which a signal of scale 1 is too faint to be believed


class Room(NamedTuple):
    """Memory of one thread."""

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


def make_room(n: int, n_parameters: int, p: int) -> Room:
    """Room for the points of one voxel."""
    many = max(POINTS, PRIOR_POINTS)
    empty = [np.empty(many) for _ in range(5)]
    centre, spread, logarithm, weight, scale = empty
    return Room(
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
    room: Room,
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
    kernel : compiled kernel of a model, of the signal alone
    y : ndarray, shape (n_voxels, n)
    sigma : ndarray, shape (n_voxels,)
        Standard deviation of the noise of one measurement; NaN where it is to be integrated out.
    known : ndarray, shape (n_parameters,)
        Values of the parameters that are not free.
    frame : Frame
    room : Room
    mean, sd, lower, upper : ndarray, shape (n_voxels, n_parameters)
        Filled with the moments and the ends of the central 95 % interval.
    squares : ndarray, shape (n_voxels,)
        Filled with the weighted sum of squared residuals at the mean.
    width : ndarray, shape (n_voxels, p)
        Filled with the standard deviation of the posterior in terms of prior probability.
    effective : ndarray, shape (n_voxels,)
        Filled with the effective number of points behind the moments.
    """
    p, n = frame.free.size, frame.design.shape[0]
    for v in range(y.shape[0]):
        room.parameters[:] = known
        energy = 0.0
        for i in range(n):
            energy += frame.weights[i] * y[v, i] ** 2
        effective[v] = adapt(kernel, y[v], energy, sigma[v], frame, room)
        weight = room.weight[:POINTS]
        for j in range(p):
            values, k = room.values[j, :POINTS], frame.free[j]
            mean[v, k], sd[v, k] = moments(weight, values)
            lower[v, k], upper[v, k] = quantile(weight, values, TAILS[0]), quantile(weight, values, TAILS[1])
            for g in range(POINTS):
                room.scale[g] = look_up(frame.probability, room.z[g, j])
            _, width[v, j] = moments(weight, room.scale[:POINTS])
        k = frame.scale
        mean[v, k], between = moments(weight, room.centre[:POINTS])
        within = 0.0
        for g in range(POINTS):
            within += weight[g] * room.spread[g] ** 2
            room.scale[g] = room.centre[g] + room.spread[g] * frame.scale_points[g]
        sd[v, k] = math.sqrt(between**2 + within * frame.scale_variance)
        lower[v, k] = quantile(weight, room.scale[:POINTS], TAILS[0])
        upper[v, k] = quantile(weight, room.scale[:POINTS], TAILS[1])
        for j in range(room.parameters.size):
            room.parameters[j] = mean[v, j]
        kernel(room.parameters, frame.design, room.signal, room.jacobian)
        squares[v] = 0.0
        for i in range(n):
            squares[v] += frame.weights[i] * (y[v, i] - room.signal[i]) ** 2


@compiled
def adapt(kernel: Any, y: NDArray, energy: float, sigma: float, frame: Frame, room: Room) -> float:
    """Leave points and their weights, which sum to 1, in ``room``; return their effective number."""
    n_prior, p = frame.prior.shape
    for g in range(n_prior):
        c = 0.0
        for i in range(y.size):
            c += frame.prior_units[g, i] * y[i]
        room.logarithm[g] = log_likelihood(c, frame.prior_norms[g], energy, sigma, y.size)
        for j in range(p):
            room.z[g, j] = frame.prior[g, j]
    weigh(n_prior, room)
    find_moments(n_prior, 1, room)
    parts = 1
    for _ in range(MAX_ROUNDS):
        spread_points(kernel, y, energy, sigma, ADAPTING, 1, 0, frame, room)
        tempered, effective = weigh(ADAPTING, room)
        find_moments(ADAPTING, 1, room)
        if not tempered:
            break
    for _ in range(MORE_ROUNDS):
        if effective > GOOD * ADAPTING:
            break
        parts = PARTS
        split(ADAPTING, room)
        find_moments(ADAPTING, PARTS, room)
        spread_points(kernel, y, energy, sigma, ADAPTING, PARTS, ADAPTING // WIDE, frame, room)
        _, effective = weigh(ADAPTING, room)
    if parts > 1:
        split(ADAPTING, room)
        find_moments(ADAPTING, PARTS, room)
    spread_points(kernel, y, energy, sigma, POINTS, parts, POINTS // WIDE, frame, room)
    return normalise(POINTS, 1.0, room)


@compiled
def spread_points(
    kernel: Any, y: NDArray, energy: float, sigma: float, n: int, parts: int, wide: int, frame: Frame, room: Room
) -> None:
    """Put n points where the moments say, some of them everywhere; find the logarithms of their weights."""
    p, narrow = frame.free.size, n - wide
    everywhere = parts * wide / narrow
    for g in range(n):
        square, part = 0.0, g * parts // narrow  # runs of Sobol points fill space evenly
        for j in range(p):
            if g < narrow:
                z = room.means[part, j]
                for k in range(j + 1):
                    z += room.factors[part, j, k] * frame.points[g, k]
            else:
                z = frame.points[g, j]
            room.z[g, j] = z
            square += z * z
            room.values[j, g] = room.parameters[frame.free[j]] = look_up(frame.tables[j], z)
        room.parameters[frame.scale] = 1.0
        kernel(room.parameters, frame.design, room.signal, room.jacobian)
        c = norm = 0.0
        for i in range(y.size):
            weighted = frame.weights[i] * room.signal[i]
            c += weighted * y[i]
            norm += weighted * room.signal[i]
        visible = norm > frame.least_energy
        norm = math.sqrt(max(norm, frame.least_energy))
        c /= norm
        residual = max(energy - c * c, ROUNDING * energy)
        room.centre[g] = c / norm
        room.spread[g] = (math.sqrt(residual / (y.size - 1)) if np.isnan(sigma) else sigma) / norm
        room.logarithm[g] = (
            log_likelihood(c, math.log(norm), energy, sigma, y.size)
            - 0.5 * square
            - log_density(g, parts, everywhere, room)
            if visible and meets_constraints(room.parameters, frame)
            else -np.inf
        )


@compiled
def log_density(g: int, parts: int, everywhere: float, room: Room) -> float:
    """Logarithm of the density from which a point was drawn, a mixture of t distributions, but for a constant."""
    p = room.axis.size
    square = 0.0
    for j in range(p):
        square += room.z[g, j] ** 2
    power = -0.5 * (FREEDOM + p)
    total = everywhere * math.exp(power * math.log1p(square / FREEDOM) - room.heights[0])
    for part in range(parts):
        square = 0.0
        for j in range(p):
            value = room.z[g, j] - room.means[part, j]
            for k in range(j):
                value -= room.factors[part, j, k] * room.axis[k]
            room.axis[j] = value / room.factors[part, j, j]
            square += room.axis[j] ** 2
        total += math.exp(power * math.log1p(square / FREEDOM) + room.heights[part] - room.heights[0])
    return room.heights[0] + math.log(max(total, 1e-300))


@compiled
def log_likelihood(c: float, log_norm: float, energy: float, sigma: float, n: int) -> float:
    """Logarithm of the likelihood with the scale, and unless it is known the noise, integrated out."""
    if np.isnan(sigma):
        return -0.5 * (n - 1) * math.log(max(energy - c * c, ROUNDING * energy)) - log_norm
    return 0.5 * (c / sigma) ** 2 - log_norm


@compiled
def meets_constraints(parameters: NDArray, frame: Frame) -> bool:
    """Whether the linear constraints hold."""
    for r in range(frame.limits.size):
        room = frame.limits[r] + ON_CONSTRAINT
        for j in range(parameters.size):
            room -= frame.matrix[r, j] * parameters[j]
        if room < 0.0:
            return False
    return True


@compiled
def weigh(n: int, room: Room) -> tuple[bool, float]:
    """Normalise the weights of n points, tempered if need be; say whether they are, and their effective number."""
    effective = normalise(n, 1.0, room)
    if effective >= ENOUGH * n:
        return False, effective
    low, high = 0.0, 1.0
    for _ in range(12):
        power = 0.5 * (low + high)
        effective = normalise(n, power, room)
        if effective >= ENOUGH * n:
            low = power
        else:
            high = power
    return True, effective


@compiled
def normalise(n: int, power: float, room: Room) -> float:
    """Weights that sum to 1, from their logarithms times a power; return their effective number."""
    largest = -np.inf
    for g in range(n):
        largest = max(largest, room.logarithm[g])
    total = squares = 0.0
    for g in range(n):
        weight = math.exp(power * (room.logarithm[g] - largest)) if room.logarithm[g] > -np.inf else 0.0
        room.weight[g] = weight
        total += weight
        squares += weight * weight
    for g in range(n):
        room.weight[g] /= total
    return total * total / squares


@compiled
def find_moments(n: int, parts: int, room: Room) -> None:
    """Mean of the points of each part, and the Cholesky factor of their covariance (never singular)."""
    p = room.axis.size
    for part in range(parts):
        total = 0.0
        for g in range(n):
            if parts == 1 or room.part[g] == part:
                total += room.weight[g]
        mean, factor = room.means[part], room.factors[part]
        for j in range(p):
            mean[j] = 0.0
            for g in range(n):
                if parts == 1 or room.part[g] == part:
                    mean[j] += room.weight[g] * room.z[g, j] / total
        for j in range(p):
            for k in range(j + 1):
                factor[j, k] = 0.0
                for g in range(n):
                    if parts == 1 or room.part[g] == part:
                        factor[j, k] += room.weight[g] * (room.z[g, j] - mean[j]) * (room.z[g, k] - mean[k]) / total
        room.heights[part] = 0.0
        for j in range(p):
            floor = 1e-6 * factor[j, j] + 1e-14
            for k in range(j + 1):
                value = factor[j, k]
                for m in range(k):
                    value -= factor[j, m] * factor[k, m]
                factor[j, k] = math.sqrt(max(value, floor)) if j == k else value / factor[k, k]
            room.heights[part] -= math.log(factor[j, j])


@compiled
def split(n: int, room: Room) -> None:
    """Divide the points along the longest axis of the posterior into parts of equal weight."""
    p, mean, axis = room.axis.size, room.means[0], room.axis
    for j in range(p):
        mean[j] = 0.0
        for g in range(n):
            mean[j] += room.weight[g] * room.z[g, j]
        axis[j] = 1.0 + 0.1 * j
    for _ in range(20):  # power iteration
        for j in range(p):
            room.factors[0, 0, j] = 0.0
        for g in range(n):
            along = 0.0
            for j in range(p):
                along += (room.z[g, j] - mean[j]) * axis[j]
            for j in range(p):
                room.factors[0, 0, j] += room.weight[g] * along * (room.z[g, j] - mean[j])
        length = 0.0
        for j in range(p):
            length += room.factors[0, 0, j] ** 2
        for j in range(p):
            axis[j] = room.factors[0, 0, j] / math.sqrt(max(length, 1e-300))
    for g in range(n):
        room.scale[g] = 0.0
        for j in range(p):
            room.scale[g] += room.z[g, j] * axis[j]
        room.part[g] = 0
    for part in range(1, PARTS):
        border = quantile(room.weight[:n], room.scale[:n], part / PARTS)
        for g in range(n):
            room.part[g] += room.scale[g] > border


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
