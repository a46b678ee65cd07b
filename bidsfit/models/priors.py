"""Prior distributions of parameters, truncated to their bounds."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

if TYPE_CHECKING:
    from bidsfit.models.signal_model import SignalModel

#: Standard deviations from the middle of a normal distribution to the ends of its central 95 %.
CENTRAL = 1.96
#: Least probability of a prior between the bounds: quantiles would be rounding errors.
LEAST = 1e-6


@dataclass(frozen=True)
class Prior:
    """Distribution of one parameter, truncated to an interval.

    Parameters
    ----------
    distribution : str
        Name of a continuous distribution in `scipy.stats`.
    bounds : tuple of float
        Truncation, in the unit of the parameter; equal bounds fix the parameter.
    arguments : dict
        Arguments of the distribution, as `scipy.stats` names them.
    """

    distribution: str
    bounds: tuple[float, float] = (-math.inf, math.inf)
    arguments: Mapping[str, float] = field(default_factory=dict)

    @property
    def fixed(self) -> bool:
        """Whether the bounds are equal."""
        return self.bounds[0] == self.bounds[1]

    @cached_property
    def _frozen(self) -> Any:
        from scipy import stats

        return getattr(stats, self.distribution)(**self.arguments)

    def within(self, low: float, high: float) -> Prior:
        """The same distribution truncated to other bounds.

        Raises
        ------
        ValueError
            If hardly any of it lies between them.
        """
        if low < high and not np.diff(self._frozen.cdf([low, high]))[0] > LEAST:
            raise ValueError(f"hardly any of the prior ({self}) lies between the bounds {low:g} and {high:g}.")
        return Prior(self.distribution, (low, high), self.arguments)

    def quantile(self, probability: ArrayLike) -> NDArray[np.float64]:
        """Quantiles of the truncated distribution."""
        low, high = self.bounds
        if low == high:
            return np.full(np.shape(probability), low)
        below, above = self._frozen.cdf(low), self._frozen.cdf(high)
        return np.clip(self._frozen.ppf(below + np.asarray(probability) * (above - below)), low, high)

    def sample(self, n: int, rng: np.random.Generator) -> NDArray[np.float64]:
        """Draw n independent values."""
        return self.quantile(rng.random(n))

    @property
    def facts(self) -> dict[str, Any]:
        """Distribution, arguments of `scipy.stats` and bounds, for sidecars."""
        return {"distribution": self.distribution, **self.arguments, "bounds": list(self.bounds)}

    def __str__(self) -> str:
        low, high = self.bounds
        if low == high:
            return f"fixed at {low:g}"
        words = {"uniform": "uniform", "loguniform": "uniform in the logarithm"}.get(self.distribution, "")
        if not words:
            name = {"lognorm": "log-normal", "beta": "Beta"}.get(self.distribution, self.distribution)
            first, last = self._frozen.ppf([0.025, 0.975])
            words = f"{name} (95 % from {first:.3g} to {last:.3g})"
        return f"{words} from {low:g} to {high:g}" if np.isfinite(self.bounds).all() else words


def prior_from(facts: Mapping[str, Any]) -> Prior:
    """Rebuild a prior from its `Prior.facts`; raise `ValueError` if they name no distribution."""
    from scipy import stats

    if not isinstance(getattr(stats, str(facts["distribution"]), None), stats.rv_continuous):
        raise ValueError(f"There is no continuous distribution {facts['distribution']!r}.")
    rest = {name: float(value) for name, value in facts.items() if name not in ("distribution", "bounds")}
    low, high = facts["bounds"]
    return Prior(facts["distribution"], (low, high), rest)


def uniform(low: float, high: float) -> Prior:
    """Uniform prior between finite bounds."""
    if not np.isfinite([low, high]).all():
        raise ValueError(f"A uniform prior needs finite bounds, found {low:g} and {high:g}.")
    return Prior("uniform", (low, high), {"loc": low, "scale": high - low})


def log_uniform(low: float, high: float) -> Prior:
    """Prior that is uniform in the logarithm, between positive finite bounds."""
    if not 0 < low <= high < np.inf:
        raise ValueError(f"A log-uniform prior needs positive, finite bounds, found {low:g} and {high:g}.")
    return Prior("loguniform", (low, high), {"a": low, "b": high})


def log_normal(low: float, high: float) -> Prior:
    """Log-normal prior of which 95 % lie between two positive values."""
    return Prior("lognorm", arguments={"s": math.log(high / low) / (2 * CENTRAL), "scale": math.sqrt(low * high)})


def beta(mean: float, sd: float) -> Prior:
    """Beta prior of a fraction with this mean and standard deviation."""
    size = mean * (1 - mean) / sd**2 - 1
    return Prior("beta", arguments={"a": mean * size, "b": (1 - mean) * size})


#: What may be asked for by name.
NAMED = {"uniform": uniform, "loguniform": log_uniform}


def priors_of(
    model: SignalModel, bounds: NDArray[np.float64], changes: Mapping[str, str | Prior] | None = None
) -> dict[str, Prior]:
    """Priors of all parameters except the scale, in the order of the parameter table.

    Parameters
    ----------
    bounds : ndarray, shape (n_parameters, 2)
        All priors are truncated to them.
    changes : dict of name to str or Prior, optional
        Replace the priors of the model: a name of `NAMED`, or a prior, which keeps to its own bounds as well.

    Raises
    ------
    ValueError
        For an unknown parameter or prior, or bounds that the prior does not allow.
    """
    changes = dict(changes or {})
    unknown = set(changes) - (set(model.names) - {model.scale})
    if unknown:
        raise ValueError(f"No prior of {sorted(unknown)} can be chosen; the model {model.name!r} has {model.names}.")
    priors = {}
    for name, (low, high) in zip(model.names, bounds.tolist(), strict=True):
        if name == model.scale:
            continue
        choice = changes.get(name, model[name].prior)
        try:
            if isinstance(choice, Prior):
                limits = max(low, choice.bounds[0]), min(high, choice.bounds[1])
                if limits[0] > limits[1]:
                    raise ValueError(f"the bounds {low:g} to {high:g} lie outside its prior ({choice}).")
                priors[name] = choice.within(*limits)
            elif choice not in NAMED:
                raise ValueError(f"unknown prior {choice!r}; valid: {', '.join(NAMED)}, or a Prior.")
            elif low == high:
                priors[name] = Prior(choice, (low, high))
            else:
                priors[name] = NAMED[choice](low, high)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
    return priors
