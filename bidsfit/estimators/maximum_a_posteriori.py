"""Maximum a posteriori with a prior that is fitted to least-squares estimates of the same data."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from copy import copy
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special, stats

from bidsfit.acquisition import Acquisition, Averaging
from bidsfit.compiling import specialised
from bidsfit.estimators.estimator import CHUNK, INSIDE, Estimator, FitChunk, Fitted, Signals
from bidsfit.estimators.least_squares import LeastSquares
from bidsfit.estimators.levenberg_marquardt import (
    FIRST_DAMPING,
    LogPrior,
    Problem,
    Work,
    compiled,
    descend,
    fit_voxels,
    make_work,
)
from bidsfit.estimators.misfits import gaussian
from bidsfit.estimators.solver import make_problem, starting_points
from bidsfit.exceptions import UnusableInputError
from bidsfit.models.priors import Prior
from bidsfit.models.signal_model import SignalModel

#: Voxels that the prior is fitted to: at least, and of how many at most.
FEWEST, MOST = 100, 20_000
#: The scale of signals that are 1 at the lowest b-value lies below it.
LARGEST_SCALE = 2.0
#: How far inside its range a parameter stays, as a fraction of the range: a density may be 0 at the end.
INSET = 1e-6
#: A prior is at least this wide: its standard deviation as a fraction of its range (or of the value itself, lognormal).
NARROWEST = 1e-3


class MaximumAPosteriori(Estimator):
    r"""The most probable parameters, given the data and a prior estimated from the same data.

    Least squares is fitted first, to the voxels or to an evenly spaced part of them. A lognormal distribution is fitted
    to its estimates of every diffusivity, and a Beta distribution to those of every fraction (between 0 and its upper
    bound) and of the scale of the signal (between 0 and 2, the signal at the lowest b-value being 1); the
    parameters of the Beta distribution are at least 1, since the posterior would otherwise be infinite at an end. With
    the variance of Gaussian noise integrated out, the estimate then minimises [1]_ [2]_

    .. math:: \tfrac12 (N + 1) \ln \mathrm{SSR}(\theta) - \sum_k \ln(p_k(\theta_k) + 10^{-8})

    over N averaged signals under the bounds and constraints of the model. The solver is that of `LeastSquares`; it
    starts from the least-squares estimate and from the mode of the prior, and keeps the better result.

    Parameters
    ----------
    model : SignalModel
    bounds : dict of name to (lower, upper), optional
        Replace the model's bounds, in the units of its parameter table. Equal bounds fix a parameter.
    averaging : {"arithmetic", "geometric", "none"}
    debias : bool
        Remove the Rician bias of the magnitudes first.

    Raises
    ------
    ValueError
        If a parameter may be negative, as the elements of a tensor.

    Notes
    -----
    An estimate depends on the other voxels: unusual voxels are biased towards them, and another mask gives another
    prior. The notes of the `Estimate` contain the prior. It is fitted only to estimates inside the bounds, of which at
    least 100 are needed. The code of the second paper includes estimates at bounds, and its prior is wider.

    References
    ----------
    .. [1] Barbieri S, et al. Magnetic Resonance in Medicine 2016;75:2175-2184.
    .. [2] Kaandorp MPT, et al. Magnetic Resonance in Medicine 2021;86:2250-2265.
    """

    name = "bayesmap"
    learns = True
    title = "Maximum a posteriori with a data-driven prior"
    references = ("barbieri2016", "kaandorp2021")
    needs_equation = True

    def __init__(
        self,
        model: SignalModel,
        *,
        bounds: Mapping[str, tuple[float, float]] | None = None,
        averaging: Averaging = "arithmetic",
        debias: bool = False,
    ) -> None:
        super().__init__(model, bounds=bounds, averaging=averaging, debias=debias)
        signed = [n for n, low in zip(model.names, self.bounds[:, 0], strict=True) if low < 0 and n not in self.fixed]
        if signed:
            raise ValueError(
                f"The priors of {self.name!r} are of positive values, and {', '.join(signed)} of {model.name!r} may be "
                "negative. Choose another estimator, or give bounds."
            )
        self._least_squares = LeastSquares(model, bounds=bounds, averaging=averaging, debias=debias, intervals="none")
        self._least_squares.name = self.name  # in messages
        self._priors: Mapping[str, Prior] | None = None  # of one call of `estimate`

    @property
    def methods(self) -> str:
        families = {"lognorm": "lognormal", "beta": "Beta (parameters of at least 1)"}
        stated = [f"{n} {families[_family(self.model, n)]}" for n in self.model.names if n not in self.fixed]
        return (
            f"{self._least_squares.methods} To the estimates inside the bounds (of at most {MOST:,} evenly spaced "
            f"voxels) distributions were fitted by maximum likelihood: {', '.join(stated)}. With these as prior, and "
            "with the variance of Gaussian noise integrated out, the posterior density was maximised in each voxel by "
            "a damped Newton method under the same bounds and constraints, from the least-squares estimate and from "
            "the mode of the prior."
        )

    def adapted(
        self, signals: Signals, acquisition: Acquisition, noise: float | NDArray[np.float64] | None
    ) -> tuple[Estimator, dict[str, Any]]:
        """A copy with the prior from these data, and notes that describe the prior.

        Raises
        ------
        UnusableInputError
            If fewer than 100 voxels have least-squares estimates inside the bounds.
        """
        values, scale = self._relative_estimates(signals, acquisition, noise), self.model.scale_index
        values = values[values[:, scale] < self._working_bounds()[scale, 1]]
        informed = copy(self)
        informed._priors = self._fit_priors(values, signals.shape[0])
        facts = {n: {"distribution": p.distribution, **p.arguments} for n, p in informed._priors.items()}
        return informed, {"prior": facts, "prior_voxels": len(values)}

    def _relative_estimates(
        self, signals: Signals, acquisition: Acquisition, noise: float | NDArray[np.float64] | None
    ) -> NDArray[np.float64]:
        """Least-squares estimates inside the bounds, shape (n, n_parameters), of at most `MOST` evenly spaced voxels.

        The scale is relative to the signal at the lowest b-value.
        """
        n = signals.shape[0]
        step = max(-(-n // MOST), 1)
        block = max(CHUNK // step, 1) * step  # so that only a part of the signals is in memory
        parts = [np.asarray(signals[start : start + block])[::step] for start in range(0, max(n, 1), block)]
        measured = np.concatenate(parts).astype(float)
        level = np.broadcast_to(np.asarray(np.nan if noise is None else noise, dtype=float), (n,))[::step]
        found = self._least_squares.estimate(measured, acquisition, None if noise is None else level)
        values = found.points
        values[:, self.model.scale_index] /= self._least_squares.reference(measured, acquisition, level)
        return values[np.isin(found.status, INSIDE)]

    def _fit_priors(self, values: NDArray[np.float64], n_voxels: int) -> dict[str, Prior]:
        """Priors of the free parameters, from estimates of shape (n, n_parameters); the scale is relative."""
        if len(values) < FEWEST:
            part = f"an even part of {n_voxels:,}" if n_voxels > MOST else f"{n_voxels:,}"
            raise UnusableInputError(
                f"The estimator {self.name!r} fits its prior to voxels that least squares fits inside the bounds, and "
                f"needs at least {FEWEST} of them; found {len(values)} (of {part} voxels). Give it a larger mask, "
                "wider bounds or less noisy signals, or choose an estimator that takes every voxel by itself."
            )
        bounds = self._working_bounds()
        return {
            name: fit_prior(_family(self.model, name), values[:, j], bounds[j].tolist())
            for j, name in enumerate(self.model.names)
            if name not in self.fixed
        }

    def _working_bounds(self) -> NDArray[np.float64]:
        """Bounds for signals scaled to 1 at the lowest b-value."""
        bounds, scale = self.bounds.copy(), self.model.names[self.model.scale_index]
        if _family(self.model, scale) == "beta":
            bounds[self.model.scale_index, 1] = LARGEST_SCALE
        return bounds

    def warm_up(self, acquisition: Acquisition) -> None:
        self._least_squares.warm_up(acquisition)
        super().warm_up(acquisition)

    def prepare(self, acquisition: Acquisition) -> FitChunk:
        model, bounds = self.model, self._working_bounds()
        grid = starting_points(model, self.bounds)  # stands for estimates where only compiling matters
        priors = self._priors or self._fit_priors(np.tile(grid, (FEWEST, 1)), FEWEST)
        which = np.array([model.names.index(name) for name in priors])
        bounds[which] = [inside(prior) for prior in priors.values()]
        terms = np.array([log_terms(prior) for prior in priors.values()])
        plain = make_problem(model, self.bounds, acquisition)
        informed = plain._replace(bounds=bounds, prior=LogPrior(len(acquisition) + 1.0, which, terms))
        start = bounds[:, 0].copy()
        start[which] = [mode(prior) for prior in priors.values()]
        start = np.clip(start, *bounds.T)
        if np.any(plain.matrix @ start > plain.limits):
            start = np.clip(plain.nodes[0], *bounds.T)  # of the grid: feasible

        def fit(y: NDArray[np.float64], sigma: NDArray[np.float64]) -> Fitted:
            n, y = y.shape[0], np.ascontiguousarray(y)
            found, other = np.full((n, len(model.parameters)), np.nan), np.tile(start, (n, 1))
            cost, status = np.empty((2, n)), np.empty((2, n), dtype=np.uint8)
            fit_voxels(model.kernel, gaussian, y, np.ones(n), plain, found, cost[0], status[0])
            found = np.clip(found, *bounds.T)
            descend_all = specialised(descend_from, kernel=model.kernel, misfit=gaussian)
            for k, values in enumerate((found, other)):
                descend_all(y, informed, make_work(informed), values, cost[k], status[k])
            better = cost[1] < cost[0]
            found[better], status[0, better] = other[better], status[1, better]
            residuals = y - model.signal(found, acquisition)
            return Fitted(found, np.einsum("ij,j->i", residuals**2, acquisition.weights), status[0])

        return fit


def _family(model: SignalModel, name: str) -> str:
    """Family of the prior of a parameter, as named in `scipy.stats`."""
    if name == model.scale:
        return "beta" if model.variables == ("b",) else "lognorm"  # with echo times S0 may be any multiple
    return "beta" if model[name].unit == "1" else "lognorm"


def fit_prior(family: str, values: NDArray[np.float64], bounds: tuple[float, float]) -> Prior:
    """The distribution of a family that fits values best, from 0 on; a Beta ends at the upper bound.

    Both parameters of a Beta are at least 1, since its density would otherwise be infinite at an end.

    Parameters
    ----------
    family : {"lognorm", "beta"}
    values : ndarray, shape (n,)
    bounds : tuple of float
    """
    low, high = bounds
    if family == "lognorm":
        s, loc, scale = stats.lognorm.fit(values[values > 0], floc=0)
        arguments = {"s": max(s, NARROWEST), "loc": loc, "scale": scale}
    else:
        share = np.clip(values / high, INSET, 1 - INSET)
        mean, variance = share.mean(), max(share.var(), NARROWEST**2)
        total = mean * (1 - mean) / variance - 1  # a + b, by the method of moments
        a, b = mean * total, (1 - mean) * total
        if share.std() > NARROWEST:
            with suppress(stats.FitError):
                a, b, _, _ = stats.beta.fit(share, a, b, floc=0, fscale=1)
        if a < 1:  # the best fit that is not infinite at 0
            a, b = 1.0, -1 / np.log1p(-share).mean()
        if b < 1:  # or at the upper bound
            a, b = max(-1 / np.log(share).mean(), 1.0), 1.0
        arguments = {"a": a, "b": b, "loc": 0.0, "scale": high}
    return Prior(family, (low, high), {name: float(value) for name, value in arguments.items()})


def log_terms(prior: Prior) -> tuple[float, float, float, float, float]:
    """Constant, p, q, r and top of the density in `LogPrior`."""
    at = prior.arguments
    if prior.distribution == "lognorm":
        mu, s = np.log(at["scale"]), at["s"]
        constant = -np.log(s * np.sqrt(2 * np.pi)) - 0.5 * (mu / s) ** 2
        return constant, mu / s**2 - 1, -0.5 / s**2, 0.0, np.finfo(float).max
    constant = -(at["a"] + at["b"] - 1) * np.log(at["scale"]) - special.betaln(at["a"], at["b"])
    return constant, at["a"] - 1, 0.0, at["b"] - 1, at["scale"]


def mode(prior: Prior) -> float:
    """Maximum of the density; for a Beta with its maximum at an end, the mean."""
    at = prior.arguments
    if prior.distribution == "lognorm":
        return float(at["scale"] * np.exp(-(at["s"] ** 2)))
    a, b = at["a"], at["b"]
    return at["scale"] * ((a - 1) / (a + b - 2) if min(a, b) > 1 else a / (a + b))


def inside(prior: Prior) -> tuple[float, float]:
    """Bounds of a prior, moved slightly inwards where the logarithm of its density is infinite."""
    (low, high), scale = prior.bounds, prior.arguments["scale"]
    return max(low, INSET * scale), min(high, (1 - INSET) * scale) if prior.distribution == "beta" else high


@compiled
def descend_from(y: NDArray, problem: Problem, work: Work, found: NDArray, cost: NDArray, status: NDArray) -> None:
    """Minimise in each voxel from ``found``, which is replaced by the solution."""
    for v in range(y.shape[0]):
        cost[v], status[v] = descend(y[v], 1.0, problem, work, found[v], FIRST_DAMPING)
