r"""Posterior of one voxel by adaptive importance sampling; compiled.

Each parameter is a function of a standard normal variable z, :math:`\theta_j = F_j^{-1}(\Phi(z_j))` with the prior's
distribution function :math:`F_j`, so that bounds lie at infinity. The first points are of the prior; all voxels share
them and their signals. Further points are drawn from Student t distributions: first from one with the moments of these
points or, where few of them carry weight, at the mode of the posterior with the curvature there (damped Gauss-Newton
search); then from several, with the moments of parts of the posterior. Every point is weighted by the posterior over
the density of all points, whichever distribution it was drawn from [1]_, until enough of them carry weight. The points
are quasi-random (Sobol) and the same in all voxels, so that there is no seed and neighbours differ only by their data.

The scale of the signal (flat prior) and, unless it is known, the standard deviation of the noise (Jeffreys' prior) are
integrated out in closed form [2]_. With weights W, the signal :math:`\phi` of scale 1 and its square
:math:`|\phi|_W^2 = \phi^T W \phi`, the residuals of the best scale have the square
:math:`r^2 = y^T W y - (\phi^T W y)^2 / |\phi|_W^2`, and

.. math:: \log p(y | \theta) = -\tfrac{N-1}{2} \log r^2 - \log |\phi|_W + const

or :math:`-r^2 / 2 - \log |\phi|_W` where the noise is known and W the inverse of its covariance; the scale then has a t
(normal) distribution. Averages of Rician magnitudes are nearly Gaussian, with the mean of a Rician magnitude: its
excess over the amplitude is subtracted from y, for every :math:`\theta` that of the amplitudes with the best scale.

References
----------
.. [1] Cornuet JM, Marin JM, Mira A, Robert CP. Scandinavian Journal of Statistics 2012;39:798-812.
.. [2] Bretthorst GL. Bayesian Spectrum Analysis and Parameter Estimation. Springer, 1988, chapter 3.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

from bidsfit.estimators.rician_bias import rician_bias

#: Points of the prior; of one round; and most rounds.
PRIOR_POINTS, ROUND, ROUNDS = 1024, 128, 16
#: Half the sum of the dimension and the degrees of freedom of the t distributions: a density without a logarithm.
POWER = 4
#: Parts of a posterior that one t distribution does not fit.
PARTS = 4
#: Points that a voxel has at most, and t distributions that they come from.
MANY, DISTRIBUTIONS = PRIOR_POINTS + ROUND * ROUNDS, PARTS * ROUNDS
#: Effective number of points: least for moments, of the prior and of any points; and for the result.
FEWEST, ENOUGH, GOOD = 64, 32, 300
#: Variance of the points relative to that of the posterior: moments from few points miss its tails.
WIDER = 2.0
#: Points of the prior with less weight, relative to the best (logarithm), are left out.
NEGLIGIBLE = -14.0
#: Most steps of the search for the mode, and the gain (of the logarithm of the posterior) at which it ends.
STEPS_TO_MODE, LITTLE = 30, 0.02
#: Table of the parameters: values of z from -LARGEST to LARGEST.
LARGEST, STEPS = 8.0, 256
#: Signals (root mean square) fainter than this fraction of the scale are not believed: without a limit, a flat prior of
#: the scale would favour signals that have decayed to nothing, of a scale without limit.
FAINT = 1e-3
#: Residuals below this fraction of the signal are rounding errors (of squares).
ROUNDING = 1e-13
#: Slack within which a point lies on a linear constraint.
ON_CONSTRAINT = 1e-12
#: Probabilities of the quantiles, and how often an interval that holds one is halved.
TAILS, HALVINGS = (0.025, 0.975), 12

# None of these functions makes an array: none needs to count references to arrays (`_nrt`), which costs time.
compiled = numba.njit(error_model="numpy", nogil=True, _nrt=False)  # type: ignore[call-overload]
inlined = numba.njit(error_model="numpy", forceinline=True, _nrt=False)  # type: ignore[call-overload]
#: For sums whose order does not matter, so that several terms are added at a time.
summing = numba.njit(  # type: ignore[call-overload]
    error_model="numpy", nogil=True, fastmath={"reassoc", "contract"}, _nrt=False
)

#: Compiled signal of a model and the same with derivatives, which `bidsfit.compiling.specialised` puts here.
kernel: Any = None
slopes: Any = None


class Frame(NamedTuple):
    """Arrays shared by all voxels, for p free parameters besides the scale."""

    design: NDArray  # (n, n_variables)
    free: NDArray  # (p,), indices of the free parameters
    scale: int  # index of the scale
    tables: NDArray  # (p, n_table), parameters at equally spaced z
    probability: NDArray  # (n_table,), of the prior below z
    matrix: NDArray  # (n_constraints, n_parameters): matrix @ parameters <= limits
    limits: NDArray  # (n_constraints,)
    prior: NDArray  # (p, n_prior), points z of the prior that meet the constraints
    prior_signals: NDArray  # (n, n_prior), of scale 1
    prior_density: float  # of these points where z = 0
    points: NDArray  # (p, ROUNDS * ROUND), of the standard t distribution
    density: float  # of that distribution at 0, relative to the standard normal one
    scale_points: NDArray  # (2, MANY), of the distribution of (S0 - centre) / spread: noise known, integrated out
    scale_variance: NDArray  # (2,), of these distributions
    bias: NDArray  # of Rician magnitudes, `bias_table`


class Voxel(NamedTuple):
    """The data of one voxel."""

    y: NDArray  # (n,), averaged signals
    rough: NDArray  # (n,), what is roughly left of them without their Rician bias
    precision: NDArray  # (n,), of the averages; relative if the noise is to be integrated out
    unknown: bool  # whether it is
    level: float  # standard deviation of the noise whose Rician bias the signals have; 0 for none
    energy: float  # y^T W y
    least: float  # |phi|_W^2 below which a signal of scale 1 is too faint to be believed


class Work(NamedTuple):
    """Working memory of one thread; the last column of the points is that of the search for the mode."""

    parameters: NDArray  # (n_parameters,)
    signal: NDArray  # (n,)
    jacobian: NDArray  # (n, n_parameters)
    none: NDArray  # (0, 0), Jacobian that is not filled
    z: NDArray  # (p, MANY + 1)
    values: NDArray  # (p, MANY + 1), parameters
    signals: NDArray  # (n, MANY + 1), of scale 1
    means: NDArray  # (DISTRIBUTIONS, p), of the t distributions
    factors: NDArray  # (DISTRIBUTIONS, p, p), Cholesky factors of their covariances
    inverses: NDArray  # (DISTRIBUTIONS, p, p), of these factors
    counts: NDArray  # (DISTRIBUTIONS,), points drawn from each
    axis: NDArray  # (p,)
    other: NDArray  # (p,)
    gradient: NDArray  # (p,)
    hessian: NDArray  # (p, p)
    centre: NDArray  # (MANY + 1,), S0 given the parameters: mean ...
    spread: NDArray  # (MANY + 1,), ... and scale of its t or normal distribution
    inner: NDArray  # (MANY + 1,), phi^T W y
    norm: NDArray  # (MANY + 1,), phi^T W phi
    energy: NDArray  # (MANY + 1,), y^T W y without the Rician bias
    posterior: NDArray  # (MANY + 1,), logarithm of the density
    density: NDArray  # (MANY + 1,), of the points
    logarithm: NDArray  # (MANY + 1,), of the weights
    weight: NDArray  # (MANY + 1,)
    scale: NDArray  # (MANY + 1,), draws of S0, and other values of the points
    share: NDArray  # (MANY + 1,), weights of the points of one part
    square: NDArray  # (MANY + 1,), distances of the points from the mean of a distribution: squared ...
    along: NDArray  # (MANY + 1,), ... and along one axis


def make_work(n: int, n_parameters: int, p: int) -> Work:
    """Allocate the working memory for n signals, ``n_parameters`` parameters and p free ones besides the scale."""
    many, fits = MANY + 1, DISTRIBUTIONS
    return Work(
        np.empty(n_parameters), np.empty(n), np.empty((n, n_parameters)), np.empty((0, 0)), np.empty((p, many)),
        np.empty((p, many)), np.empty((n, many)), np.empty((fits, p)), np.zeros((fits, p, p)), np.zeros((fits, p, p)),
        np.empty(fits), np.empty(p), np.empty(p), np.empty(p), np.empty((p, p)), *np.empty((13, many)),
    )  # fmt: skip


@compiled
def fill_posteriors(
    y: NDArray,
    rough: NDArray,
    precision: NDArray,
    unknown: NDArray,
    level: NDArray,
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
    y, rough : ndarray, shape (n_voxels, n)
        Averaged signals, and what is roughly left of them without their Rician bias.
    precision : ndarray, shape (n_voxels, n)
        Inverse variances of the averages; relative to one another where the noise is integrated out.
    unknown : ndarray of bool, shape (n_voxels,)
        Whether the noise is integrated out.
    level : ndarray, shape (n_voxels,)
        Standard deviation of the noise of the magnitudes whose Rician bias the averages have; 0 where they have none.
    known : ndarray, shape (n_parameters,)
        Values of the fixed parameters.
    mean, sd, lower, upper : ndarray, shape (n_voxels, n_parameters)
        Filled with the moments and the ends of the central 95 % interval.
    squares : ndarray, shape (n_voxels,)
        Filled with the sum of squared residuals at the mean, weighted by the precision.
    width : ndarray, shape (n_voxels, p)
        Filled with the standard deviation of the prior's cumulative probability over the posterior.
    effective : ndarray, shape (n_voxels,)
        Filled with the effective number of points behind the moments.
    """
    p = frame.free.size
    for v in range(y.shape[0]):
        for j in range(known.size):
            work.parameters[j] = known[j]
        energy = 0.0
        for i in range(y.shape[1]):
            energy += precision[v, i] * y[v, i] ** 2
        voxel = Voxel(y[v], rough[v], precision[v], unknown[v], level[v], energy, FAINT**2 * precision[v].sum())
        n, effective[v] = adapt(voxel, frame, work)
        weight, scale = work.weight[:n], work.scale[:n]
        for j in range(p):
            k = frame.free[j]
            mean[v, k], sd[v, k], lower[v, k], upper[v, k] = summary(weight, work.values[j, :n])
            for g in range(n):
                scale[g] = look_up(frame.probability, work.z[j, g])
            _, width[v, j] = moments(weight, scale)
        k, which = frame.scale, int(unknown[v])
        mean[v, k], between = moments(weight, work.centre[:n])
        within = 0.0
        for g in range(n):
            within += weight[g] * work.spread[g] ** 2
            scale[g] = work.centre[g] + work.spread[g] * frame.scale_points[which, g]
        _, _, lower[v, k], upper[v, k] = summary(weight, scale)
        sd[v, k] = math.sqrt(between**2 + within * frame.scale_variance[which])
        for j in range(work.parameters.size):
            work.parameters[j] = mean[v, j]
        kernel(work.parameters, frame.design, work.signal, work.none)
        squares[v] = 0.0
        for i in range(y.shape[1]):
            excess = rician_bias(work.signal[i], level[v], frame.bias)
            squares[v] += precision[v, i] * (y[v, i] - excess - work.signal[i]) ** 2


@compiled
def adapt(voxel: Voxel, frame: Frame, work: Work) -> tuple[int, float]:
    """Fill ``work`` with points and their normalised weights; return their number, and the effective one."""
    best = weigh_prior(voxel, frame, work)
    n = take_prior(best, voxel, frame, work)
    drawn, old, parts = 0, 0, 1  # points drawn; earlier t distributions, and new ones
    if normalise(n, 1.0, work) >= FEWEST:
        find_moments(work.weight[:n], work.z, 0, work)
    else:
        for j in range(work.axis.size):
            work.axis[j] = frame.prior[j, best]
        climb(voxel, frame, work)
    while True:
        draw(n, drawn, old, parts, voxel, frame, work)
        n, drawn, old = n + ROUND, drawn + ROUND, old + parts
        effective = normalise(n, 1.0, work)
        if effective >= GOOD or drawn == ROUND * ROUNDS:
            return n, effective
        parts = PARTS if effective >= ENOUGH else 1
        if parts == 1:
            temper(n, work)
        find_moments(work.weight[:n], work.z, old, work)
        if parts > 1:
            split(n, old, work)


@summing
def weigh_prior(voxel: Voxel, frame: Frame, work: Work) -> int:
    """Logarithms of the weights of the points of the prior, roughly; return the best point."""
    n, best, rough = frame.prior.shape[1], 0, voxel.rough
    inner, norm = work.inner[:n], work.norm[:n]
    inner[:] = 0.0
    norm[:] = 0.0
    energy = 0.0
    for i in range(rough.size):
        weighted, precision = voxel.precision[i] * rough[i], voxel.precision[i]
        energy += weighted * rough[i]
        for g in range(n):
            signal = frame.prior_signals[i, g]
            inner[g] += weighted * signal
            norm[g] += precision * signal * signal
    for g in range(n):
        work.logarithm[g] = log_likelihood(inner[g], norm[g], energy, voxel.unknown, rough.size)
        best = g if work.logarithm[g] > work.logarithm[best] else best
    return best


@compiled
def take_prior(best: int, voxel: Voxel, frame: Frame, work: Work) -> int:
    """Make those points of the prior that carry weight the first points; return their number."""
    n, p, least = 0, work.axis.size, work.logarithm[best] + NEGLIGIBLE
    for g in range(frame.prior.shape[1]):
        if work.logarithm[g] < least:
            continue
        square = 0.0
        for j in range(p):
            work.z[j, n] = frame.prior[j, g]
            work.values[j, n] = look_up(frame.tables[j], work.z[j, n])
            square += work.z[j, n] ** 2
        for i in range(work.signal.size):
            work.signals[i, n] = frame.prior_signals[i, g]
        work.density[n] = frame.prior_density * math.exp(-0.5 * square)
        n += 1
    weigh(0, n, voxel, frame, work)
    for g in range(n):
        work.logarithm[g] = work.posterior[g] - math.log(work.density[g])
    return n


@compiled
def climb(voxel: Voxel, frame: Frame, work: Work) -> None:
    """Find the mode from the point ``work.axis``, and the covariance that the curvature there means."""
    p, z, trial, step, factor = work.axis.size, work.means[0], work.other, work.axis, work.factors[0]
    highest, damping = -np.inf, 1e-3
    for j in range(p):
        trial[j] = work.axis[j]
    for _ in range(STEPS_TO_MODE):
        for j in range(p):
            work.z[j, MANY] = trial[j]
        set_parameters(MANY, frame, work)
        slopes(work.parameters, frame.design, work.signal, work.jacobian)
        for i in range(work.signal.size):
            work.signals[i, MANY] = work.signal[i]
        weigh(MANY, MANY + 1, voxel, frame, work)
        gain = work.posterior[MANY] - highest
        if gain > 0.0 and meets_constraints(work.parameters, frame):
            for j in range(p):
                z[j] = trial[j]
            differentiate(voxel, frame, work)
            highest, damping = work.posterior[MANY], 0.2 * damping
            if gain < LITTLE:
                break
        else:
            damping = max(10.0 * damping, 1e-2)
            if damping > 1e6:
                break
        for j in range(p):
            for k in range(j + 1):
                factor[j, k] = work.hessian[j, k]
            factor[j, j] *= 1.0 + damping
        factorise(factor)
        for j in range(p):  # solve factor factor^T step = gradient
            step[j] = work.gradient[j]
            for k in range(j):
                step[j] -= factor[j, k] * step[k]
            step[j] /= factor[j, j]
        for j in range(p - 1, -1, -1):
            for k in range(j + 1, p):
                step[j] -= factor[k, j] * step[k]
            step[j] /= factor[j, j]
            trial[j] = z[j] + step[j]
    factorise(work.hessian)
    invert(work.hessian, work.inverses[0])
    for j in range(p):
        for k in range(j + 1):
            factor[j, k] = 0.0
            for m in range(j, p):
                factor[j, k] += work.inverses[0, m, j] * work.inverses[0, m, k]
    factorise(factor)


@compiled
def differentiate(voxel: Voxel, frame: Frame, work: Work) -> None:
    """Gradient of the log-posterior in the last column, and Gauss-Newton Hessian of its negative; without the scale."""
    p, n, scale, norm, energy = work.axis.size, voxel.y.size, work.centre[MANY], work.norm[MANY], work.energy[MANY]
    rest = max(energy - scale * scale * norm, ROUNDING * energy)
    factor = (n - 1) / rest if voxel.unknown else 1.0
    for j in range(p):
        column, z = frame.free[j], work.z[j, MANY]
        slope = scale * steepness(frame.tables[j], z)
        along = 0.0
        for i in range(n):
            work.jacobian[i, column] *= slope
            along += voxel.precision[i] * work.jacobian[i, column] * work.signal[i]
        work.gradient[j] = -z
        for i in range(n):
            work.jacobian[i, column] -= along / norm * work.signal[i]
            residual = (
                voxel.y[i] - rician_bias(scale * work.signal[i], voxel.level, frame.bias) - scale * work.signal[i]
            )
            work.gradient[j] += factor * voxel.precision[i] * work.jacobian[i, column] * residual
        for k in range(j + 1):
            work.hessian[j, k] = 1.0 if j == k else 0.0
            for i in range(n):
                product = work.jacobian[i, column] * work.jacobian[i, frame.free[k]]
                work.hessian[j, k] += factor * voxel.precision[i] * product


@compiled
def factorise(matrix: NDArray) -> None:
    """Replace the lower half of a matrix by its Cholesky factor, which is kept from being singular."""
    for j in range(matrix.shape[0]):
        floor = 1e-6 * matrix[j, j] + 1e-14
        for k in range(j + 1):
            value = matrix[j, k]
            for m in range(k):
                value -= matrix[j, m] * matrix[k, m]
            matrix[j, k] = math.sqrt(max(value, floor)) if j == k else value / matrix[k, k]


@compiled
def invert(factor: NDArray, inverse: NDArray) -> None:
    """Invert a lower triangular matrix."""
    for j in range(factor.shape[0]):
        inverse[j, j] = 1.0 / factor[j, j]
        for k in range(j):
            total = 0.0
            for m in range(k, j):
                total -= factor[j, m] * inverse[m, k]
            inverse[j, k] = total / factor[j, j]


@compiled
def set_parameters(g: int, frame: Frame, work: Work) -> None:
    """Set the parameters to those of the point g, with scale 1."""
    for j in range(frame.free.size):
        work.values[j, g] = work.parameters[frame.free[j]] = look_up(frame.tables[j], work.z[j, g])
    work.parameters[frame.scale] = 1.0


@compiled
def draw(n: int, drawn: int, old: int, parts: int, voxel: Voxel, frame: Frame, work: Work) -> None:
    """Add a round of points to the first n, from t distributions that follow ``old`` ones; compute all log weights."""
    each, stop = ROUND // parts, n + ROUND
    for part in range(parts):
        spread_points(n + part * each, each, drawn + part * each, old + part, frame, work)
        work.counts[old + part] = each
    for g in range(n, stop):
        set_parameters(g, frame, work)
        if meets_constraints(work.parameters, frame):
            kernel(work.parameters, frame.design, work.signal, work.none)
        else:
            work.signal[:] = 0.0
        for i in range(work.signal.size):
            work.signals[i, g] = work.signal[i]
    weigh(n, stop, voxel, frame, work)
    for m in range(old + parts):
        if m >= old:
            invert(work.factors[m], work.inverses[m])
        add_density(n if m < old else 0, stop, m, frame, work)
    for g in range(stop):
        work.logarithm[g] = work.posterior[g] - math.log(work.density[g])


@summing
def spread_points(start: int, n: int, column: int, m: int, frame: Frame, work: Work) -> None:
    """Draw n points of a t distribution."""
    square, density = work.square[:n], work.density[start : start + n]
    square[:] = 0.0
    for j in range(frame.free.size):
        z = work.z[j, start : start + n]
        z[:] = work.means[m, j]
        for k in range(j + 1):
            factor, points = work.factors[m, j, k], frame.points[k, column : column + n]
            for g in range(n):
                z[g] += factor * points[g]
        for g in range(n):
            square[g] += z[g] * z[g]
    for g in range(n):
        density[g] = frame.prior_density * math.exp(-0.5 * square[g])


@summing
def add_density(start: int, stop: int, m: int, frame: Frame, work: Work) -> None:
    """Add the density of the points of a t distribution to that at points from start to stop."""
    p = frame.free.size
    square, value, density = work.square[start:stop], work.along[start:stop], work.density[start:stop]
    height = frame.density * work.counts[m]
    square[:] = 0.0
    for j in range(p):
        value[:] = 0.0
        for k in range(j + 1):
            factor, mean, z = work.inverses[m, j, k], work.means[m, k], work.z[k, start:stop]
            for g in range(stop - start):
                value[g] += factor * (z[g] - mean)
        for g in range(stop - start):
            square[g] += value[g] * value[g]
        height *= work.inverses[m, j, j]
    freedom = 2.0 * POWER - p
    for g in range(stop - start):
        density[g] += height / (1.0 + square[g] / freedom) ** POWER


@summing
def weigh(start: int, stop: int, voxel: Voxel, frame: Frame, work: Work) -> None:
    """Logarithm of the posterior of points from start to stop, whose signals are known, and distribution of S0."""
    n, count = voxel.y.size, stop - start
    inner, norm, energy = work.inner[start:stop], work.norm[start:stop], work.energy[start:stop]
    centre, spread, posterior = work.centre[start:stop], work.spread[start:stop], work.posterior[start:stop]
    inner[:] = 0.0
    norm[:] = 0.0
    energy[:] = voxel.energy
    for i in range(n):
        signal, precision = work.signals[i, start:stop], voxel.precision[i]
        weighted = precision * voxel.rough[i]
        for g in range(count):
            inner[g] += weighted * signal[g]
            norm[g] += precision * signal[g] * signal[g]
    if voxel.level > 0.0:  # the scale is known now, and with it the amplitudes and their bias
        for g in range(count):
            centre[g] = inner[g] / max(norm[g], voxel.least)
        inner[:] = 0.0
        energy[:] = 0.0
        for i in range(n):
            signal, measured, precision = work.signals[i, start:stop], voxel.y[i], voxel.precision[i]
            for g in range(count):
                value = measured - rician_bias(centre[g] * signal[g], voxel.level, frame.bias)
                inner[g] += precision * value * signal[g]
                energy[g] += precision * value * value
    posterior[:] = 0.0
    for j in range(work.axis.size):
        z = work.z[j, start:stop]
        for g in range(count):
            posterior[g] -= 0.5 * z[g] * z[g]
    for g in range(count):
        visible = norm[g] > voxel.least
        square = norm[g] if visible else voxel.least
        centre[g] = inner[g] / square
        variance = max(energy[g] - inner[g] * centre[g], ROUNDING * energy[g]) / (n - 1) if voxel.unknown else 1.0
        spread[g] = math.sqrt(variance / square)
        posterior[g] += log_likelihood(inner[g], square, energy[g], voxel.unknown, n) if visible else -np.inf


@inlined
def log_likelihood(inner: float, norm: float, energy: float, unknown: bool, n: int) -> float:
    """Log-likelihood with the scale integrated out, and also the noise if it is unknown."""
    rest = max(energy - inner * inner / norm, ROUNDING * energy)
    return -0.5 * ((n - 1) * math.log(rest) if unknown else rest) - 0.5 * math.log(norm)


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
def temper(n: int, work: Work) -> None:
    """Raise the weights to the power below 1 at which enough points carry weight."""
    low, high = 0.0, 1.0
    for _ in range(10):
        power = 0.5 * (low + high)
        if normalise(n, power, work) >= ENOUGH:
            low = power
        else:
            high = power


@summing
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


@summing
def find_moments(weight: NDArray, points: NDArray, m: int, work: Work) -> None:
    """Mean of weighted points and Cholesky factor of their covariance, for one of the t distributions."""
    p, n, total = work.axis.size, weight.size, weight.sum()
    mean, factor = work.means[m], work.factors[m]
    for j in range(p):
        z = points[j, :n]
        first = 0.0
        for g in range(n):
            first += weight[g] * z[g]
        mean[j] = first / total
        for k in range(j + 1):
            other, second = points[k, :n], 0.0
            for g in range(n):
                second += weight[g] * (z[g] - mean[j]) * (other[g] - mean[k])
            factor[j, k] = WIDER * second / total
    factorise(factor)


@compiled
def split(n: int, first: int, work: Work) -> None:
    """Divide n points into parts of equal weight along their longest axis; find the moments of each."""
    p, axis, other, factor = work.axis.size, work.axis, work.other, work.factors[first]
    weight, along, share = work.weight[:n], work.scale[:n], work.share[:n]
    for j in range(p):
        axis[j] = 1.0 + 0.1 * j
    for _ in range(20):  # power iteration
        length = 0.0
        for k in range(p):
            other[k] = 0.0
            for j in range(k, p):
                other[k] += factor[j, k] * axis[j]
        for j in range(p):
            axis[j] = 0.0
            for k in range(j + 1):
                axis[j] += factor[j, k] * other[k]
            length += axis[j] ** 2
        for j in range(p):
            axis[j] /= math.sqrt(max(length, 1e-300))
    along[:] = 0.0
    for j in range(p):
        for g in range(n):
            along[g] += work.z[j, g] * axis[j]
    mean, sd = moments(weight, along)
    below = -np.inf
    for part in range(PARTS):
        above = quantile(weight, along, (part + 1) / PARTS, mean, sd) if part + 1 < PARTS else np.inf
        for g in range(n):
            share[g] = weight[g] if below < along[g] <= above else 0.0
        find_moments(share, work.z, first + part, work)
        below = above


@inlined
def look_up(table: NDArray, z: float) -> float:
    """Value of a table at z, by linear interpolation."""
    position = (min(max(z, -LARGEST), LARGEST) + LARGEST) * STEPS
    k = min(int(position), table.size - 2)
    return table[k] + (position - k) * (table[k + 1] - table[k])


@compiled
def steepness(table: NDArray, z: float) -> float:
    """Slope of a table at z."""
    k = min(int((min(max(z, -LARGEST), LARGEST) + LARGEST) * STEPS), table.size - 2)
    return (table[k + 1] - table[k]) * STEPS


@summing
def moments(weight: NDArray, values: NDArray) -> tuple[float, float]:
    """Mean and standard deviation."""
    mean = square = 0.0
    for g in range(weight.size):
        mean += weight[g] * values[g]
    for g in range(weight.size):
        square += weight[g] * (values[g] - mean) ** 2
    return mean, math.sqrt(square)


@compiled
def summary(weight: NDArray, values: NDArray) -> tuple[float, float, float, float]:
    """Mean, standard deviation and ends of the central 95 % interval."""
    mean, sd = moments(weight, values)
    lower, upper = (quantile(weight, values, TAILS[0], mean, sd), quantile(weight, values, TAILS[1], mean, sd))
    return mean, sd, lower, upper


@summing
def quantile(weight: NDArray, values: NDArray, probability: float, mean: float, sd: float) -> float:
    """Value below which the given share of the weight lies, by bisection.

    By Chebyshev's inequality it lies within 1 / sqrt(share) standard deviations of the mean.
    """
    reach = sd / math.sqrt(min(probability, 1.0 - probability))
    low, high = mean - reach, mean + reach
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
