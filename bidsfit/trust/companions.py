"""Companions of an estimate: what says, in every voxel and for every parameter, how far it can be trusted.

A companion is asked about an estimate with a `Judge` in hand: the estimator, what was measured, and the noise. It knows
of the estimator only what the class `Estimator` declares: the likelihood that it maximises, the table of its
performance, and what it states itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bidsfit.acquisition import Acquisition
from bidsfit.estimators.estimator import Estimate, Estimator
from bidsfit.models.parameter import Derived, Parameter
from bidsfit.models.signal_model import SignalModel
from bidsfit.noise import NoiseKind, known_noise
from bidsfit.quantity import Quantity
from bidsfit.registry import Registry
from bidsfit.trust.bounds import cramer_rao_bound

#: Arrays by the name of their parameter, each of the shape of the estimate.
Maps = dict[str, NDArray[np.float64]]


@dataclass(frozen=True)
class Judge:
    """What an estimate is judged by.

    Parameters
    ----------
    estimator : Estimator
    acquisition : Acquisition
        What was fitted, as `Estimate.acquisition` has it.
    noise : ndarray
        Standard deviation of one measurement in every voxel, of the shape of the estimate: as it was given, and as
        the residuals suggest it where it was not.
    kind : {"rician", "gaussian"}
        What the noise of the measurements is taken for.
    threads : int
    """

    estimator: Estimator
    acquisition: Acquisition
    noise: NDArray[np.float64]
    kind: NoiseKind = "rician"
    threads: int = 1

    @property
    def model(self) -> SignalModel:
        return self.estimator.model

    @cached_property
    def shells(self) -> Acquisition:
        """Measurements that the model predicts alike, together."""
        return self.model.average(self.acquisition).acquisition

    def bound(self, estimate: Estimate, kind: NoiseKind) -> Maps:
        """Cramér-Rao bound at the estimates, for this kind of noise."""
        return cramer_rao_bound(
            self.model,
            estimate.parameters,
            self.shells,
            self.noise,
            kind,
            fixed=self.estimator.fixed,
            threads=self.threads,
        )


class Companion(Protocol):
    """What a companion has: the quantity of its maps, and the two questions that it answers."""

    quantity: Quantity

    def applies(self, estimator: Estimator, of: Parameter | Derived) -> bool:
        """Whether it has something to say of a parameter, or of what is derived, as this estimator estimates it."""

    def judge(self, judge: Judge, estimate: Estimate) -> Maps:
        """One array for each that it applies to, by name: of the shape of the estimate, in the unit of its quantity."""


class StandardDeviation:
    """The scatter of the estimates over the noise, as far as the estimator or its making tells it.

    A posterior has one; a trained estimator brings its performance; one that maximises a likelihood is efficient, so
    that it is the bound of that likelihood, as if the parameters had no bounds.
    """

    quantity = Quantity(
        key="sd",
        title="standard deviation",
        description="Standard deviation of {parameter.label} ({parameter.description}; {model.title}), as the estimator"
        " states it ({estimator.title}). Infinite where the data do not determine the parameter.",
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
            return judge.bound(estimate, judge.estimator.likelihood)
        return _from_performance(judge, estimate, "sd")


class Bias:
    """The mean error of an estimator whose performance was measured, if the estimate were the truth."""

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
class Stated:
    """What only the estimator can tell, and leaves in `Estimate.statistics`."""

    quantity: Quantity

    def applies(self, estimator: Estimator, of: Parameter | Derived) -> bool:
        return self.quantity.key in estimator.statistics and isinstance(of, Parameter)

    def judge(self, judge: Judge, estimate: Estimate) -> Maps:
        return estimate.statistics[self.quantity.key]


class Bound:
    """The Cramér-Rao bound: the floor under the standard deviation of every unbiased estimator."""

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


_INTERVAL = "end of the central 95 % interval of {parameter.label} ({parameter.description}; {model.title};"
SD, BIAS, BOUND = StandardDeviation(), Bias(), Bound()
LOWER = Stated(Quantity("q025", "2.5 % quantile", f"Lower {_INTERVAL} {{estimator.title}})."))
UPPER = Stated(Quantity("q975", "97.5 % quantile", f"Upper {_INTERVAL} {{estimator.title}})."))

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
    """Companions, those of other packages included, that apply to an estimator; by the key of their quantity."""
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
    """How far an estimate can be trusted, in every voxel.

    Parameters
    ----------
    estimator : Estimator
        The one that made the estimate.
    estimate : Estimate
    noise : float or ndarray of the shape of the estimate, optional
        Standard deviation of the noise of one measurement, as `Estimator.estimate` takes it. That of the residuals is
        taken where it is not given, or NaN.
    kind : {"rician", "gaussian"}
        What the bound takes the noise for.
    threads : int

    Returns
    -------
    dict of key to dict of parameter to ndarray
        Those that apply to the estimator: "sd", the standard deviation; "bias", of trained estimators; "q025" and
        "q975", the central 95 % interval of a posterior; "crb", the Cramér-Rao bound; and those of other packages.
        Infinite where the data do not determine a parameter, NaN where nothing was fitted.

    Examples
    --------
    >>> estimate = estimator.estimate(signals, acquisition, noise=20.0)  # doctest: +SKIP
    >>> bidsfit.companions(estimator, estimate, noise=20.0)["sd"]["D"]  # doctest: +SKIP
    """
    given = known_noise(noise, estimate.status.shape)
    level = np.where(np.isnan(given), estimate.sigma, given)
    judge = Judge(estimator, estimate.acquisition, level, kind, threads)
    return {key: companion.judge(judge, estimate) for key, companion in companions_of(estimator).items()}


def _from_performance(judge: Judge, estimate: Estimate, quantity: str) -> Maps:
    """A column of the performance that came with the estimator, at the estimates."""
    performance = judge.estimator.performance
    if performance is None:
        raise ValueError(f"The estimator {judge.estimator.name!r} brings no table of its performance.")
    parameters = np.stack([estimate.parameters[name] for name in judge.model.names], axis=-1)
    found = performance.at(parameters.reshape(-1, parameters.shape[-1]), quantity).reshape(parameters.shape)
    return {name: found[..., j] for j, name in enumerate(judge.model.names)}
