"""Companions of an estimate: maps of its uncertainty, such as standard deviation, bias and Cramér-Rao bound.

A companion gets the estimate and a `Judge` with the estimator, the acquisition and the noise. It uses only what
`Estimator` declares: the likelihood that it maximises, its performance table, and its statistics.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bidsfit.acquisition import Acquisition
from bidsfit.estimators.estimator import Estimate, Estimator, interval_quantile
from bidsfit.information import cramer_rao_bound
from bidsfit.models.parameter import Derived, Parameter
from bidsfit.models.signal_model import SignalModel
from bidsfit.noise import NoiseKind, known_noise
from bidsfit.quantity import Quantity
from bidsfit.registry import Registry

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
    """

    estimator: Estimator
    acquisition: Acquisition
    noise: NDArray[np.float64]
    kind: NoiseKind = "rician"
    threads: int = 1
    given: NDArray[np.bool_] | bool = True
    _bounds: dict[tuple[int, NoiseKind, bool], Maps] = field(default_factory=dict, init=False, repr=False)

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


class Companion(Protocol):
    """Interface of companions: the quantity of their maps, whether they apply, and the maps."""

    quantity: Quantity

    def applies(self, estimator: Estimator, of: Parameter | Derived) -> bool:
        """Whether it has a map for this parameter or derived quantity of this estimator."""

    def judge(self, judge: Judge, estimate: Estimate) -> Maps:
        """Maps by parameter, of the shape of the estimate and in the unit of its quantity."""


class StandardDeviation:
    """Standard deviation of the estimates over the noise, if known.

    It is the posterior's, or interpolated from the performance table of a trained estimator, or the Cramér-Rao bound of
    the likelihood that the estimator maximises, ignoring the bounds of the parameters; then it includes the error that
    uneven directions leave in the means of shells.
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

    def applies(self, estimator: Estimator, of: Parameter | Derived) -> bool:
        own = "sd" in estimator.statistics or estimator.has_performance
        return estimator.likelihood is not None or (own and isinstance(of, Parameter))

    def judge(self, judge: Judge, estimate: Estimate) -> Maps:
        if "sd" in estimate.statistics:
            return estimate.statistics["sd"]
        if judge.estimator.likelihood is not None:
            return judge.bound(estimate, judge.estimator.likelihood, estimate.added_variance)
        return _from_performance(judge, estimate, "sd")


class Bias:
    """Mean error of an estimator with a performance table, evaluated as if the estimate were the truth."""

    quantity = Quantity(
        key="bias",
        title="bias",
        description="Mean error of {parameter.label} ({parameter.description}; {model.title}) that the estimator"
        " ({estimator.title}) would make if its estimate were the truth, for the noise of its training.",
        colours="RdBu_r",
        word="Bias",
        scale="signed",
    )

    def applies(self, estimator: Estimator, of: Parameter | Derived) -> bool:
        return estimator.has_performance and isinstance(of, Parameter)

    def judge(self, judge: Judge, estimate: Estimate) -> Maps:
        return _from_performance(judge, estimate, "bias")


@dataclass(frozen=True)
class Interval:
    """One end of the 95 % interval of a parameter: the estimator's own, or Wald's.

    Wald's interval is the estimate with the standard deviation times a quantile on each side, within the bounds. The
    quantile is that of the normal distribution where the noise was given, and where it was estimated from the residuals
    that of Student's t distribution with their degrees of freedom.

    Parameters
    ----------
    quantity : Quantity
    sign : int
        -1 for the lower end, 1 for the upper.
    """

    quantity: Quantity
    sign: int

    def applies(self, estimator: Estimator, of: Parameter | Derived) -> bool:
        stated = self.quantity.key in estimator.statistics or estimator.intervals == "wald"
        return stated and isinstance(of, Parameter) and (of.kind == "scalar" or estimator.intervals == "posterior")

    def judge(self, judge: Judge, estimate: Estimate) -> Maps:
        if self.quantity.key in estimate.statistics:
            return estimate.statistics[self.quantity.key]
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

    def applies(self, estimator: Estimator, of: Parameter | Derived) -> bool:
        return True

    def judge(self, judge: Judge, estimate: Estimate) -> Maps:
        return judge.bound(estimate, judge.kind)


_INTERVAL = (
    "end of the 95 % interval of {parameter.label} ({parameter.description}; {model.title}; {estimator.title};"
    " {estimator.intervals})."
)
SD, BIAS, BOUND = StandardDeviation(), Bias(), Bound()
LOWER = Interval(Quantity("q025", "lower end of the 95 % interval", f"Lower {_INTERVAL}"), -1)
UPPER = Interval(Quantity("q975", "upper end of the 95 % interval", f"Upper {_INTERVAL}"), 1)

#: Where the companions of the package live. Other packages add theirs with the entry point "bidsfit.companions".
BUILT_IN = {
    "sd": "bidsfit.trust.companions:SD",
    "bias": "bidsfit.trust.companions:BIAS",
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


def companions_of(estimator: Estimator) -> dict[str, Companion]:
    """Companions that apply to an estimator, including those of other packages, by the key of their quantity."""
    found = map(get, available())
    return {
        companion.quantity.key: companion
        for companion in found
        if any(companion.applies(estimator, of) for of in estimator.model.quantities)
    }


def companions(
    estimator: Estimator,
    estimate: Estimate,
    noise: ArrayLike | None = None,
    *,
    kind: NoiseKind = "rician",
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
    threads : int

    Returns
    -------
    dict of key to dict of parameter to ndarray
        "sd", standard deviation; "bias" of trained estimators; "q025" and "q975", ends of the 95 % interval;
        "crb", Cramér-Rao bound; and companions of other packages. Infinite where the data do not determine a parameter,
        NaN where nothing was fitted.

    Examples
    --------
    >>> estimate = estimator.estimate(signals, acquisition, noise=20.0)  # doctest: +SKIP
    >>> bidsfit.companions(estimator, estimate, noise=20.0)["sd"]["D"]  # doctest: +SKIP
    """
    given = known_noise(noise, estimate.status.shape)
    level = np.where(np.isnan(given), estimate.sigma, given)
    judge = Judge(estimator, estimate.acquisition, level, kind, threads, ~np.isnan(given))
    return {key: companion.judge(judge, estimate) for key, companion in companions_of(estimator).items()}


def _from_performance(judge: Judge, estimate: Estimate, quantity: str) -> Maps:
    """A quantity of the estimator's performance table, interpolated at the estimates."""
    performance = judge.estimator.performance
    if performance is None:
        raise ValueError(f"The estimator {judge.estimator.name!r} brings no table of its performance.")
    parameters = np.stack([estimate.parameters[name] for name in judge.model.names], axis=-1)
    found = performance.at(parameters.reshape(-1, parameters.shape[-1]), quantity).reshape(parameters.shape)
    return {name: found[..., j] for j, name in enumerate(judge.model.names)}
