"""Posterior mean, standard deviation and interval of every parameter."""

from __future__ import annotations

import math
from collections.abc import Mapping
from copy import copy
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from scipy import special, stats

from bidsfit.acquisition import Acquisition, Averaging
from bidsfit.compiling import specialised
from bidsfit.estimators.estimator import Estimator, FitChunk, Fitted, Signals, Status
from bidsfit.estimators.posterior import (
    FAINT,
    LARGEST,
    MANY,
    ON_CONSTRAINT,
    POWER,
    PRIOR_POINTS,
    ROUND,
    ROUNDS,
    STEPS,
    Frame,
    fill_posteriors,
    make_work,
)
from bidsfit.estimators.rician_bias import bias_table
from bidsfit.models.priors import Prior, priors_of
from bidsfit.models.signal_model import SignalModel
from bidsfit.noise import NoiseKind, remove_rician_bias

#: Most free parameters besides the scale: the points are few for more.
MOST = 6
#: A posterior at least this wide, relative to the prior (standard deviations of prior probability), says no more.
AS_WIDE = 0.9
#: Of the scrambling of the Sobol points, which are the same in every voxel and every run.
SEED = 0
#: Fewer effective points than this, and the moments are not to be relied on.
FEW = 50


class Bayesian(Estimator):
    r"""Mean, standard deviation and central 95 % interval of the posterior of every parameter.

    Every parameter has a prior within its bounds. Priors are independent except for the linear constraints of the
    model, so that fractions whose sum is at most 1 are uniform on a simplex. The scale of the signal has a flat prior
    (up to a thousand times the signals); the standard deviation of the noise has Jeffreys' prior unless it is known.
    Both are integrated out in closed form [1]_, and the other parameters by adaptive importance sampling [2]_ with
    quasi-random points that are the same in all voxels. The data are the averages of shells; the scatter within a
    shell, over directions, does not count as noise. Averages are taken for Gaussian. Those of magnitudes, where the
    noise level is known, have the mean of Rician magnitudes; their standard deviation is taken for that of the noise,
    although it is up to a third smaller at the noise floor. From the averages of a model of direction averages the bias
    is removed beforehand (as with ``debias``) if directions are known, because the signal differs between directions.

    Parameters
    ----------
    model : SignalModel
        With up to six free parameters besides the scale.
    bounds : dict of name to (lower, upper), optional
        Replace the bounds of the model and thus the range of the priors. Equal bounds fix a parameter.
    priors : dict of name to {"uniform", "loguniform"} or Prior, optional
        Replace those of the model's parameter table.
    sigma : {"auto", "marginalised", "known"}
        Whether the standard deviation of the noise is integrated out or must be given. "auto" takes it where it is
        given, and integrates it out in other voxels, which needs more averaged signals than parameters; the notes of
        the estimate say which.
    averaging : {"arithmetic", "geometric", "none"}
    debias : bool
        Take the Rician bias out of the magnitudes first; the rest is taken for Gaussian.
    noise : {"rician", "gaussian"}
        Kind of noise. The Rician bias can only be told where the noise level is known.

    Notes
    -----
    The posterior mean minimises the expected squared error if the prior is true. Where the data carry little
    information it lies in the middle of the prior, whereas least squares would end at a bound: see the status
    ``PRIOR_ONLY``, the standard deviation and the interval. Residuals refer to the mean and are larger than those of
    least squares.

    References
    ----------
    .. [1] Bretthorst GL. Bayesian Spectrum Analysis and Parameter Estimation. Springer, 1988.
    .. [2] Cornuet JM, Marin JM, Mira A, Robert CP. Scandinavian Journal of Statistics 2012;39:798-812.
    """

    name = "bayes"
    title = "Posterior mean and interval (Bayesian)"
    references = ("bretthorst1988", "cornuet2012")
    needs_equation = True
    statistics = ("sd", "q025", "q975")
    intervals = "posterior"
    costly = True
    takes_variance = True

    def __init__(
        self,
        model: SignalModel,
        *,
        bounds: Mapping[str, tuple[float, float]] | None = None,
        priors: Mapping[str, str | Prior] | None = None,
        sigma: Literal["auto", "marginalised", "known"] = "auto",
        averaging: Averaging = "arithmetic",
        debias: bool = False,
        noise: NoiseKind = "rician",
    ) -> None:
        if model.averaging and averaging == "none":
            raise ValueError(f"The model {model.name!r} describes direction averages; averaging cannot be 'none'.")
        super().__init__(model, bounds=bounds, averaging=averaging, debias=debias)
        if sigma not in ("auto", "marginalised", "known"):
            raise ValueError(f"sigma must be 'auto', 'marginalised' or 'known', found {sigma!r}.")
        if not 1 < self.n_free <= MOST + 1:
            raise ValueError(
                f"A posterior takes 1 to {MOST} parameters besides {model.scale}; {model.name!r} has "
                f"{self.n_free - 1} that the bounds leave free."
            )
        if noise not in get_args(NoiseKind):
            raise ValueError(f"noise must be 'rician' or 'gaussian', found {noise!r}.")
        self.sigma = sigma
        self.noise: NoiseKind = "gaussian" if debias else noise
        self.priors = priors_of(model, self.bounds, priors)
        self.needs_noise = self.needs_noise or sigma == "known"

    @property
    def options(self) -> dict[str, Any]:
        priors = {name: prior.facts for name, prior in self.priors.items()}
        return super().options | {"sigma": self.sigma, "noise": self.noise, "priors": priors}

    @property
    def methods(self) -> str:
        debias = f"{self.debiasing_in_words} " if self.debias else ""
        noise = {
            "auto": "was integrated out, with the standard deviation of the noise given or, in voxels where it was not "
            "known, integrated out too (Jeffreys' prior)",
            "marginalised": "and the standard deviation of the noise (Jeffreys' prior) were integrated out",
            "known": "was integrated out, with the standard deviation of the noise given",
        }[self.sigma]
        density = "Gaussian noise"
        if self.noise == "rician" and self.sigma != "marginalised":
            density += " and, where its level was known, the bias of Rician magnitudes"
            if self.model.averaging:
                density += " (removed beforehand from averages over known directions)"
        stated = "; ".join(f"{name} {prior}" for name, prior in self.priors.items())
        rules = " and ".join(f"{r.lhs} <= {r.rhs}" for r in self.model.constraints)
        constraints = f", where {rules}" if rules else ""
        return (
            f"{debias}The posterior distribution was found in each voxel by adaptive importance sampling, with "
            f"{density}; the signal without diffusion weighting (flat prior) {noise}. The priors of "
            f"{self.model.name} (diffusivities in µm²/ms) were: {stated}{constraints}. The estimate is the "
            "posterior mean, reported with the posterior standard deviation and the central 95 % interval."
        )

    def adapted(
        self, signals: Signals, acquisition: Acquisition, noise: float | NDArray[np.float64] | None
    ) -> tuple[Estimator, dict[str, Any]]:
        chosen = copy(self)
        if self.sigma == "auto" and len(self.averaged(acquisition)) <= self.n_free:
            chosen.needs_noise = True
        if self.noise == "rician" and self.model.averaging and acquisition.directions is not None:
            chosen.debias = True  # the bias depends on the signal along each direction
        if self.sigma == "marginalised" or noise is None or np.isnan(noise).all():
            return chosen, {"noise": "integrated out"}
        partly = np.isnan(noise).any() and not chosen.needs_noise
        return chosen, {"noise": "given; integrated out where it is not known" if partly else "given"}

    def missing(self, acquisition: Acquisition) -> list[str]:
        n = len(self.averaged(acquisition))
        if self.sigma != "marginalised" or n > self.n_free:
            return []
        return [f"more averaged signals than the {self.n_free} parameters, to tell the noise; the protocol has {n}"]

    def prepare(self, acquisition: Acquisition) -> FitChunk:
        model = self.model
        frame = make_frame(model, self.priors, acquisition)
        fixed = np.array([1.0 if n == model.scale else self.priors[n].bounds[0] for n in model.names])
        probability = np.interp(frame.prior, z_values(), frame.probability)
        prior_width = probability.std(axis=1)

        def fit(
            y: NDArray[np.float64], sigma: NDArray[np.float64], *, variance: NDArray[np.float64] | float = 0.0
        ) -> Fitted:
            n, shape = y.shape[0], (y.shape[0], len(model.parameters))
            mean, lower, upper = (np.tile(fixed, (n, 1)) for _ in range(3))
            sd, squares, effective = np.zeros(shape), np.empty(n), np.empty(n)
            width = np.empty((n, frame.free.size))
            work = make_work(len(acquisition), len(model.parameters), frame.free.size)
            unknown = np.isnan(sigma) | (self.sigma == "marginalised")
            spread = np.where(unknown, 1.0, sigma)  # of one measurement
            precision = 1 / (spread[:, None] ** 2 / acquisition.weights + np.where(unknown[:, None], 0.0, variance))
            level = np.where(unknown | self.debias | (self.noise == "gaussian"), 0.0, sigma)
            rough = remove_rician_bias(y, level[:, None])
            specialised(fill_posteriors, kernel=model.signal_kernel, slopes=model.kernel)(
                np.ascontiguousarray(y), rough, precision, unknown, level, fixed,
                frame, work, mean, sd, lower, upper, squares, width, effective,
            )  # fmt: skip
            squares *= spread**2
            status = np.full(n, Status.CONVERGED, dtype=np.uint8)
            status[(width > AS_WIDE * prior_width).any(axis=1)] = Status.PRIOR_ONLY
            status[effective < FEW] = Status.ITERATION_LIMIT
            return Fitted(mean, squares, status, {"sd": sd, "q025": lower, "q975": upper})

        return fit


def z_values() -> NDArray[np.float64]:
    """Values of the standard normal variable at the entries of the tables."""
    return np.arange(-LARGEST * STEPS, LARGEST * STEPS + 1) / STEPS


def make_frame(model: SignalModel, priors: Mapping[str, Prior], acquisition: Acquisition) -> Frame:
    """Compute what the posteriors of all voxels share."""
    free = np.array([j for j, name in enumerate(model.names) if name != model.scale and not priors[name].fixed], int)
    n, p, z = len(acquisition), free.size, z_values()
    probability = stats.norm.cdf(z)
    tables = np.array([priors[model.names[j]].quantile(probability) for j in free]).reshape(p, z.size)
    # Sobol points: p of them for the parameters, one for the radius of the t distribution, one for S0
    sobol = stats.qmc.Sobol(p + 2, rng=SEED).random_base2(math.ceil(math.log2(max(MANY, 8 * PRIOR_POINTS))))
    normal = stats.norm.ppf(sobol[:, :p])
    values = np.array([1.0 if name == model.scale else priors[name].bounds[0] for name in model.names])
    values = np.tile(values, (len(normal), 1))
    for axis, j in enumerate(free):
        values[:, j] = np.interp(normal[:, axis], z, tables[axis])
    matrix, limits = model.linear_constraints
    allowed = np.flatnonzero((values @ matrix.T <= limits + ON_CONSTRAINT).all(axis=1))[:PRIOR_POINTS]
    signals, weights = model.signal(values[allowed], acquisition), acquisition.weights
    visible = signals**2 @ weights > FAINT**2 * weights.sum()
    freedom, drawn = 2 * POWER - p, ROUND * ROUNDS
    points = normal[:drawn] / np.sqrt(stats.chi2(freedom).ppf(sobol[:drawn, p]) / freedom)[:, None]
    distributions = stats.norm(), stats.t(n - 1)
    return Frame(
        design=model.design(acquisition),
        free=free,
        scale=model.scale_index,
        tables=tables,
        probability=probability,
        matrix=matrix,
        limits=limits,
        prior=np.ascontiguousarray(normal[allowed][visible].T),
        prior_signals=np.ascontiguousarray(signals[visible].T),
        prior_density=float(allowed[-1] + 1),
        points=np.ascontiguousarray(points.T),
        density=math.exp(special.gammaln(POWER) - special.gammaln(freedom / 2) - p / 2 * math.log(freedom / 2)),
        scale_points=np.array([d.ppf(sobol[:MANY, p + 1]) for d in distributions]),
        scale_variance=np.array([d.var() for d in distributions]),
        bias=bias_table(),
    )
