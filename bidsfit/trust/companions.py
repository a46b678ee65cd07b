"""Companions of an estimate: maps of its uncertainty, such as standard deviation, bias and Cramér-Rao bound.

A companion gets the estimate and a `Judge` with the estimator, the acquisition, the noise and, where it was simulated,
the performance of the estimator. Of the estimator it uses what `Estimator` declares: likelihood and statistics.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bidsfit.acquisition import Acquisition
from bidsfit.estimators.estimator import Estimate, Estimator, Signals, interval_quantile
from bidsfit.information import cramer_rao_bound
from bidsfit.models.parameter import Derived, Parameter
from bidsfit.models.signal_model import SignalModel
from bidsfit.noise import NoiseKind, known_noise
from bidsfit.quantity import Quantity
from bidsfit.registry import Registry
from bidsfit.trust.cache import Trust
from bidsfit.trust.monte_carlo import least_squares_beside, obstacle
from bidsfit.trust.performance import Expected, Performance

#: Arrays by the name of their parameter, each of the shape of the estimate.
Maps = dict[str, NDArray[np.float64]]


@dataclass(frozen=True)
class Judge:
    """What companions need to assess an estimate.

    Parameters
    ----------
    estimator : Estimator
    acquisition : Acquisition
        The fitted acquisition, as in `Estimate.acquisition`.
    noise : ndarray
        Standard deviation of one measurement in every voxel, of the shape of the estimate; from the residuals where it
        was not given.
    kind : {"rician", "gaussian"}
        Assumed kind of noise.
    threads : int
    given : ndarray of bool, or bool
        In which voxels the noise was given.
    performance : Performance, optional
        Of the estimator, where it was simulated.
    scores : ndarray, optional
        Of the misfit in every voxel, see `bidsfit.trust.misfit.misfit_scores`.
    beside : ndarray, optional
        All parameters of the least-squares fit of the same signals, where the performance depends on them.
    """

    estimator: Estimator
    acquisition: Acquisition
    noise: NDArray[np.float64]
    kind: NoiseKind = "rician"
    threads: int = 1
    given: NDArray[np.bool_] | bool = True
    performance: Performance | None = None
    scores: NDArray[np.float64] | None = None
    beside: NDArray[np.float64] | None = None
    _bounds: dict[tuple[int, NoiseKind, bool], Maps] = field(default_factory=dict, init=False, repr=False)
    _expected: dict[int, Expected] = field(default_factory=dict, init=False, repr=False)

    @property
    def model(self) -> SignalModel:
        return self.estimator.model

    @cached_property
    def shells(self) -> Acquisition:
        """The acquisition with measurements merged that the model predicts alike."""
        return self.model.average(self.acquisition).acquisition

    def bound(self, estimate: Estimate, kind: NoiseKind, variance: NDArray[np.float64] | None = None) -> Maps:
        """Cramér-Rao bound at the estimates, for this kind of noise; computed once.

        ``variance``, if given, is more variance of every average.
        """
        key = id(estimate), kind, variance is None
        if key not in self._bounds:
            self._bounds[key] = cramer_rao_bound(
                self.model,
                estimate.parameters,
                self.shells if variance is None else self.acquisition,
                self.noise,
                kind,
                fixed=self.estimator.fixed,
                variance=variance,
                threads=self.threads,
            )
        return self._bounds[key]

    def expected(self, estimate: Estimate) -> Expected:
        """What is expected of the errors of the estimates; computed once."""
        if self.performance is None:
            raise ValueError(f"The performance of the estimator {self.estimator.name!r} was not simulated.")
        if id(estimate) not in self._expected:
            noise = np.broadcast_to(self.noise, estimate.status.shape)
            found = self.performance.expected(estimate.points, noise, self.scores, self.beside, threads=self.threads)
            self._expected[id(estimate)] = found
        return self._expected[id(estimate)]


class Companion(Protocol):
    """Interface of companions: the quantity of their maps, whether they apply, and the maps."""

    quantity: Quantity

    def applies(self, estimator: Estimator, of: Parameter | Derived, simulated: bool) -> bool:
        """Whether it has a map for this parameter or derived quantity of this estimator.

        ``simulated`` says whether the performance of the estimator was simulated.
        """

    def judge(self, judge: Judge, estimate: Estimate) -> Maps:
        """Maps by parameter, of the shape of the estimate and in the unit of its quantity."""


class StandardDeviation:
    """Standard deviation of the estimates over the noise, as the estimator itself states it.

    It is the posterior's, or the Cramér-Rao bound of the likelihood that the estimator maximises, ignoring the bounds
    of the parameters; then it includes the error that uneven directions leave in the means of shells.
    """

    quantity = Quantity(
        key="sd",
        title="standard deviation",
        description="Standard deviation of {parameter.label} ({parameter.description}; {model.title}), as the estimator"
        " states it ({estimator.title}). That of a likelihood is the Cramér-Rao bound: too small where the likelihood"
        " is skewed, as of D* at low SNR, so that the interval of the profile is to be preferred there. Infinite where"
        " the data do not determine the parameter.",
        colours="cividis",
        word="SD",
        scale="spread",
    )

    def applies(self, estimator: Estimator, of: Parameter | Derived, simulated: bool) -> bool:
        stated = "sd" in estimator.statistics and (isinstance(of, Parameter) or estimator.states_derived)
        return stated or estimator.likelihood is not None

    def judge(self, judge: Judge, estimate: Estimate) -> Maps:
        if "sd" in estimate.statistics:
            more = judge.estimator.states_derived and judge.model.derived
            derived = judge.estimator.derived_spread(estimate, judge.noise) if more else {}
            return estimate.statistics["sd"] | derived
        assert judge.estimator.likelihood is not None
        return judge.bound(estimate, judge.estimator.likelihood, estimate.added_variance)


class EnsembleSpread:
    """Standard deviation of the estimates of the networks of an ensemble: what the training leaves open."""

    quantity = Quantity(
        key="ensemble",
        title="spread of the ensemble",
        description="Standard deviation of {parameter.label} ({parameter.description}; {model.title}) over the networks"
        " of the ensemble whose median is the estimate ({estimator.title}): what the training leaves open, not the"
        " noise of the image. Networks that share a bias agree on it.",
        colours="cividis",
        word="Ensemble",
        scale="spread",
    )

    def applies(self, estimator: Estimator, of: Parameter | Derived, simulated: bool) -> bool:
        return "ensemble" in estimator.statistics and isinstance(of, Parameter) and of.name != estimator.model.scale

    def judge(self, judge: Judge, estimate: Estimate) -> Maps:
        found = estimate.statistics["ensemble"]
        return {name: values for name, values in found.items() if name != judge.model.scale}


@dataclass(frozen=True)
class ExpectedError:
    """A quantity of the simulated errors of the estimator, averaged over the truths that the estimate may come from.

    Parameters
    ----------
    quantity : Quantity
    name : {"bias", "sd", "rmse"}
        Attribute of `bidsfit.trust.performance.Expected`.
    """

    quantity: Quantity
    name: str

    def applies(self, estimator: Estimator, of: Parameter | Derived, simulated: bool) -> bool:
        return simulated and not of.axis and of.name != estimator.model.scale

    def judge(self, judge: Judge, estimate: Estimate) -> Maps:
        found: Maps = getattr(judge.expected(estimate), self.name)
        return {name: values for name, values in found.items() if name != judge.model.scale}


class Response:
    """How much of a true change of a parameter shows in its estimate."""

    quantity = Quantity(
        key="response",
        title="response",
        description="Change of the mean estimate of {parameter.label} ({parameter.description}; {model.title}) per"
        " change of its true value, by simulation of the estimator ({estimator.title}) for this protocol and the noise"
        " of the voxel, averaged over the truths{estimator.surroundings} that the estimate may come from: 1 where a"
        " true change shows fully, 0 where it is hidden.",
        unit="1",
        limits=(0.0, 1.0),
        colours="viridis",
        word="Response",
    )

    def applies(self, estimator: Estimator, of: Parameter | Derived, simulated: bool) -> bool:
        return simulated and _is_free(estimator, of)

    def judge(self, judge: Judge, estimate: Estimate) -> Maps:
        expected = judge.expected(estimate)
        return {name: expected.response[..., j, j] for j, name in enumerate(expected.lower)}


@dataclass(frozen=True)
class Interval:
    """One end of the 95 % interval of a parameter: the estimator's own, Wald's, or that of simulation.

    That of simulation holds 95 % of the truths that gave such an estimate ("conformal", see
    `bidsfit.trust.performance.Expected`). Wald's interval is the estimate with the standard deviation times a quantile
    on each side, within the bounds. The quantile is that of the normal distribution where the noise was given, and
    where it was estimated from the residuals that of Student's t distribution with their degrees of freedom.

    Parameters
    ----------
    quantity : Quantity
    sign : int
        -1 for the lower end, 1 for the upper.
    """

    quantity: Quantity
    sign: int

    def applies(self, estimator: Estimator, of: Parameter | Derived, simulated: bool) -> bool:
        if estimator.intervals == "conformal":
            return simulated and _is_free(estimator, of)
        stated = self.quantity.key in estimator.statistics or estimator.intervals == "wald"
        return stated and isinstance(of, Parameter) and (of.kind == "scalar" or estimator.intervals == "posterior")

    def judge(self, judge: Judge, estimate: Estimate) -> Maps:
        if self.quantity.key in estimate.statistics:
            return estimate.statistics[self.quantity.key]
        if judge.estimator.intervals == "conformal":
            expected = judge.expected(estimate)
            return expected.lower if self.sign < 0 else expected.upper
        reach = np.where(judge.given, interval_quantile(np.inf), interval_quantile(estimate.freedom)) * self.sign
        spread = SD.judge(judge, estimate)
        return {
            parameter.name: np.clip(estimate.parameters[parameter.name] + reach * spread[parameter.name], low, high)
            for parameter, (low, high) in zip(judge.model.parameters, judge.estimator.bounds, strict=True)
            if parameter.kind == "scalar"
        }


class Bound:
    """The Cramér-Rao bound, below which no unbiased estimator's standard deviation can lie."""

    quantity = Quantity(
        key="crb",
        title="Cramér-Rao bound",
        description="Smallest standard deviation that any unbiased estimator of {parameter.label}"
        " ({parameter.description}; {model.title}) can have with this protocol and noise, if the estimate"
        " ({estimator.title}) were the truth. Infinite where the data do not determine the parameter.",
        colours="cividis",
        word="Floor",
        scale="spread",
    )

    def applies(self, estimator: Estimator, of: Parameter | Derived, simulated: bool) -> bool:
        return True

    def judge(self, judge: Judge, estimate: Estimate) -> Maps:
        return judge.bound(estimate, judge.kind)


def _is_free(estimator: Estimator, of: Parameter | Derived) -> bool:
    """Whether simulation varies it: a parameter that is neither held nor the scale, or what stands for these."""
    model = estimator.model
    if isinstance(of, Derived):
        return model.auxiliary and not of.axis
    return not of.auxiliary and of.name not in (model.scale, *estimator.fixed)


_INTERVAL = (
    "end of the 95 % interval of {parameter.label} ({parameter.description}; {model.title}; {estimator.title};"
    " {estimator.intervals})."
)
_EXPECTED = (
    "of {parameter.label} ({parameter.description}; {model.title}) by simulation of the estimator ({estimator.title})"
    " for this protocol and the noise of the voxel, averaged over the truths{estimator.surroundings} that the estimate"
    " may come from."
)
SD, ENSEMBLE, RESPONSE, BOUND = StandardDeviation(), EnsembleSpread(), Response(), Bound()
BIAS = ExpectedError(
    Quantity("bias", "expected bias", f"Mean error {_EXPECTED}", colours="RdBu_r", word="Bias", scale="signed"), "bias"
)
EXPECTED_SD = ExpectedError(
    Quantity(
        "expectedsd",
        "expected standard deviation",
        f"Standard deviation over the noise {_EXPECTED}",
        colours="cividis",
        word="Expected SD",
        scale="spread",
    ),
    "sd",
)
RMSE = ExpectedError(
    Quantity("rmse", "expected root mean square error", f"Root mean square error {_EXPECTED}", colours="cividis"),
    "rmse",
)
LOWER = Interval(Quantity("q025", "lower end of the 95 % interval", f"Lower {_INTERVAL}"), -1)
UPPER = Interval(Quantity("q975", "upper end of the 95 % interval", f"Upper {_INTERVAL}"), 1)

#: Where the companions of the package live. Other packages add theirs with the entry point "bidsfit.companions".
BUILT_IN = {
    "sd": "bidsfit.trust.companions:SD",
    "ensemble": "bidsfit.trust.companions:ENSEMBLE",
    "expectedsd": "bidsfit.trust.companions:EXPECTED_SD",
    "bias": "bidsfit.trust.companions:BIAS",
    "rmse": "bidsfit.trust.companions:RMSE",
    "response": "bidsfit.trust.companions:RESPONSE",
    "q025": "bidsfit.trust.companions:LOWER",
    "q975": "bidsfit.trust.companions:UPPER",
    "crb": "bidsfit.trust.companions:BOUND",
}

_registry = Registry("companion", "bidsfit.companions", BUILT_IN)


def available() -> dict[str, str]:
    """Names of all companions and where each lives, without importing any."""
    return _registry.available()


def get(name: str) -> Companion:
    """The companion of that name; an unknown one raises `UnknownNameError` with the nearest valid name."""
    companion: Companion = _registry.get(name)
    return companion


def companions_of(estimator: Estimator, trust: Trust = "off") -> dict[str, Companion]:
    """Companions that apply to an estimator, including those of other packages, by the key of their quantity."""
    simulated = is_simulated(estimator, trust)
    found = [companion for companion in map(get, available()) if trust == "full" or companion.quantity.key != "rmse"]
    return {
        companion.quantity.key: companion
        for companion in found
        if any(companion.applies(estimator, of, simulated) for of in estimator.model.quantities)
    }


def is_simulated(estimator: Estimator, trust: Trust) -> bool:
    """Whether the performance of an estimator is simulated."""
    return trust != "off" and not obstacle(estimator, full=trust == "full")


def companions(
    estimator: Estimator,
    estimate: Estimate,
    noise: ArrayLike | None = None,
    *,
    kind: NoiseKind = "rician",
    performance: Performance | None = None,
    signals: Signals | None = None,
    acquisition: Acquisition | None = None,
    threads: int = 1,
) -> dict[str, Maps]:
    """Uncertainty maps of an estimate.

    Parameters
    ----------
    estimator : Estimator
        The estimator that made the estimate.
    estimate : Estimate
    noise : float or ndarray of the shape of the estimate, optional
        Standard deviation of the noise of one measurement, as `Estimator.estimate` takes it. Where it is missing or
        NaN, that of the residuals is used.
    kind : {"rician", "gaussian"}
        Kind of noise that the bound assumes.
    performance : Performance, optional
        Of the estimator, from `bidsfit.performance_of`; by default that of its training, if it was trained.
    signals, acquisition : optional
        As `Estimator.estimate` took them. What is expected of an estimator that does not maximise a likelihood, such as
        a network, depends on the least-squares fit of the same signals, and is left out without them.
    threads : int

    Returns
    -------
    dict of key to dict of parameter to ndarray
        "sd", standard deviation as the estimator states it; "q025" and "q975", ends of the 95 % interval; "crb",
        Cramér-Rao bound; with its performance "bias", "expectedsd", "rmse" and "response", what is expected of the
        errors; and companions of other packages. Infinite where the data do not determine a parameter, NaN where
        nothing was fitted.

    Examples
    --------
    >>> estimate = estimator.estimate(signals, acquisition, noise=20.0)  # doctest: +SKIP
    >>> bidsfit.companions(estimator, estimate, noise=20.0)["sd"]["D"]  # doctest: +SKIP
    """
    performance, beside = performance or getattr(estimator, "performance", None), None
    if performance is not None and performance.beside:
        other = least_squares_beside(estimator)
        if other is None or signals is None or acquisition is None:
            performance = None
        else:
            level = None if noise is None else np.asarray(noise, dtype=float)
            beside = other.estimate(signals, acquisition, level, threads=threads).points
    judge = judge_of(estimator, estimate, noise, kind=kind, performance=performance, threads=threads)
    judge = replace(judge, beside=beside)
    applying = companions_of(estimator, "off" if performance is None else "full")
    return {key: companion.judge(judge, estimate) for key, companion in applying.items()}


def judge_of(
    estimator: Estimator,
    estimate: Estimate,
    noise: ArrayLike | None = None,
    *,
    kind: NoiseKind = "rician",
    performance: Performance | None = None,
    threads: int = 1,
) -> Judge:
    """The judge of an estimate, see `companions`."""
    given = known_noise(noise, estimate.status.shape)
    level = np.where(np.isnan(given), estimate.sigma, given)
    return Judge(estimator, estimate.acquisition, level, kind, threads, ~np.isnan(given), performance)
