"""Posterior mean, standard deviation and interval of every parameter."""

from __future__ import annotations

import math
from collections.abc import Mapping
from copy import copy
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from bidsfit.acquisition import Acquisition, Averaging
from bidsfit.estimators.estimator import Estimator, FitChunk, Fitted, Signals, Status
from bidsfit.estimators.posterior import (
    FREEDOM,
    LARGEST,
    ON_CONSTRAINT,
    POINTS,
    PRIOR_POINTS,
    STEPS,
    Frame,
    fill_posteriors,
    make_work,
)
from bidsfit.estimators.priors import Prior, priors_of
from bidsfit.models.signal_model import SignalModel

#: Most free parameters besides the scale: the points are few for more.
MOST = 6
#: A posterior at least this wide, relative to the prior (standard deviations of prior probability), says no more.
AS_WIDE = 0.9
#: Signals (root mean square) fainter than this fraction of the scale are not believed: without a limit, a flat prior of
#: the scale would favour signals that have decayed to nothing, of a scale without limit.
FAINT = 1e-3
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
    quasi-random points that are the same in all voxels. The noise is assumed Gaussian and the data are the averages of
    shells; the scatter within a shell, over directions, does not count as noise.

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
        Take the Rician bias out of the magnitudes first.

    Notes
    -----
    The posterior mean minimises the expected squared error if the prior is true. Where the data carry little
    information it lies in the middle of the prior, whereas least squares would end at a bound: see the status
    ``PRIOR_ONLY``, the standard deviation and the interval. Residuals refer to the mean and are larger than those of
    least squares.

    References
    ----------
    .. [1] Bretthorst GL. Bayesian Spectrum Analysis and Parameter Estimation. Springer, 1988.
    .. [2] Cappé O, Guillin A, Marin JM, Robert CP. Journal of Computational and Graphical Statistics 2004;13:907-929.
    """

    name = "bayes"
    title = "Posterior mean and interval (Bayesian)"
    references = ("bretthorst1988", "cappe2004")
    needs_equation = True
    statistics = ("sd", "q025", "q975")

    def __init__(
        self,
        model: SignalModel,
        *,
        bounds: Mapping[str, tuple[float, float]] | None = None,
        priors: Mapping[str, str | Prior] | None = None,
        sigma: Literal["auto", "marginalised", "known"] = "auto",
        averaging: Averaging = "arithmetic",
        debias: bool = False,
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
        self.sigma = sigma
        self.priors = priors_of(model, self.bounds, priors)
        self.needs_noise = self.needs_noise or sigma == "known"

    @property
    def options(self) -> dict[str, Any]:
        priors = {name: prior.facts for name, prior in self.priors.items()}
        return super().options | {"sigma": self.sigma, "priors": priors}

    @property
    def methods(self) -> str:
        debias = "Every magnitude was replaced by the amplitude whose Rician mean it is. " if self.debias else ""
        noise = {
            "auto": "was integrated out, with the standard deviation of the noise given or, in voxels where it was not "
            "known, integrated out too (Jeffreys' prior)",
            "marginalised": "and the standard deviation of the noise (Jeffreys' prior) were integrated out",
            "known": "was integrated out, with the standard deviation of the noise given",
        }[self.sigma]
        stated = "; ".join(f"{name} {prior}" for name, prior in self.priors.items())
        rules = " and ".join(f"{r.lhs} <= {r.rhs}" for r in self.model.constraints)
        constraints = f", where {rules}" if rules else ""
        return (
            f"{debias}The posterior distribution was found in each voxel by adaptive importance sampling, with "
            f"Gaussian noise; the signal without diffusion weighting (flat prior) {noise}. The priors of "
            f"{self.model.name} (diffusivities in µm²/ms) were: {stated}{constraints}. The estimate is the "
            "posterior mean, reported with the posterior standard deviation and the central 95 % interval."
        )

    def adapted(
        self, signals: Signals, acquisition: Acquisition, noise: float | NDArray[np.float64] | None
    ) -> tuple[Estimator, dict[str, Any]]:
        chosen = copy(self)
        if self.sigma == "auto" and len(self.averaged(acquisition)) <= self.n_free:
            chosen.needs_noise = True
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
        prior_width = probability.std(axis=0)

        def fit(y: NDArray[np.float64], sigma: NDArray[np.float64]) -> Fitted:
            n, shape = y.shape[0], (y.shape[0], len(model.parameters))
            mean, lower, upper = (np.tile(fixed, (n, 1)) for _ in range(3))
            sd, squares, effective = np.zeros(shape), np.empty(n), np.empty(n)
            width = np.empty((n, frame.free.size))
            work = make_work(len(acquisition), len(model.parameters), frame.free.size)
            noise = np.full(n, np.nan) if self.sigma == "marginalised" else sigma
            fill_posteriors(
                model.signal_kernel, np.ascontiguousarray(y), noise, fixed, frame, work,
                mean, sd, lower, upper, squares, width, effective,
            )  # fmt: skip
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
    sobol = stats.qmc.Sobol(p + 2, rng=SEED).random_base2(math.ceil(math.log2(max(POINTS, 8 * PRIOR_POINTS))))
    normal = stats.norm.ppf(sobol[:, :p])
    values = np.array([1.0 if name == model.scale else priors[name].bounds[0] for name in model.names])
    values = np.tile(values, (len(normal), 1))
    for axis, j in enumerate(free):
        values[:, j] = np.interp(normal[:, axis], z, tables[axis])
    matrix, limits = model.linear_constraints
    allowed = np.flatnonzero((values @ matrix.T <= limits + ON_CONSTRAINT).all(axis=1))[:PRIOR_POINTS]
    signals, weights = model.signal(values[allowed], acquisition), acquisition.weights
    least_energy = FAINT**2 * weights.sum()
    allowed, signals = allowed[signals**2 @ weights > least_energy], signals[signals**2 @ weights > least_energy]
    norms = np.sqrt(signals**2 @ weights)
    points = normal[:POINTS] / np.sqrt(stats.chi2(FREEDOM).ppf(sobol[:POINTS, p]) / FREEDOM)[:, None]
    distributions = stats.norm(), stats.t(n - 1)
    return Frame(
        design=model.design(acquisition),
        weights=weights,
        free=free,
        scale=model.scale_index,
        tables=tables,
        probability=probability,
        matrix=matrix,
        limits=limits,
        prior=np.ascontiguousarray(normal[allowed]),
        prior_units=signals * weights / norms[:, None],
        prior_norms=np.log(norms),
        points=np.ascontiguousarray(points),
        scale_points=np.array([d.ppf(sobol[:POINTS, p + 1]) for d in distributions]),
        scale_variance=np.array([d.var() for d in distributions]),
        least_energy=least_energy,
    )
