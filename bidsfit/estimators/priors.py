"""Prior distributions of parameters, truncated to their bounds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from bidsfit.models.signal_model import SignalModel


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
    bounds: tuple[float, float]
    arguments: Mapping[str, float] = field(default_factory=dict)

    @property
    def fixed(self) -> bool:
        """Whether the bounds are equal."""
        return self.bounds[0] == self.bounds[1]

    @property
    def _frozen(self) -> Any:
        return getattr(stats, self.distribution)(**self.arguments)

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
        words = {"uniform": "uniform", "loguniform": "uniform in the logarithm"}.get(self.distribution)
        if words is None:
            arguments = ", ".join(f"{name} = {value:.4g}" for name, value in self.arguments.items())
            words = f"{self.distribution} ({arguments})"
        return f"{words} from {low:g} to {high:g}"


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


#: What may be asked for by name.
NAMED = {"uniform": uniform, "loguniform": log_uniform}


def priors_of(
    model: SignalModel, bounds: NDArray[np.float64], changes: Mapping[str, str | Prior] | None = None
) -> dict[str, Prior]:
    """Priors of all parameters except the scale, in the order of the parameter table.

    Parameters
    ----------
    bounds : ndarray, shape (n_parameters, 2)
    changes : dict of name to str or Prior, optional
        Replace the priors of the model: a name of `NAMED`, or a prior, which is truncated to the bounds.

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
        if isinstance(choice, Prior):
            limits = max(low, choice.bounds[0]), min(high, choice.bounds[1])
            if limits[0] > limits[1]:
                raise ValueError(f"The bounds of {name!r} ({low:g} to {high:g}) lie outside its prior ({choice}).")
            priors[name] = Prior(choice.distribution, limits, choice.arguments)
        elif choice not in NAMED:
            raise ValueError(f"Unknown prior {choice!r} of {name!r}; valid: {', '.join(NAMED)}, or a Prior.")
        elif low == high:
            priors[name] = Prior(choice, (low, high))
        else:
            try:
                priors[name] = NAMED[choice](low, high)
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from None
    return priors
