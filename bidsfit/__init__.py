"""Quantitative maps from diffusion MRI, and how far each map can be trusted."""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bidsfit import estimators as estimators
    from bidsfit import models as models
    from bidsfit.acquisition import Acquisition as Acquisition
    from bidsfit.estimators.bayesian import Bayesian as Bayesian
    from bidsfit.estimators.estimator import Estimate as Estimate
    from bidsfit.estimators.estimator import Estimator as Estimator
    from bidsfit.estimators.estimator import Status as Status
    from bidsfit.estimators.least_squares import LeastSquares as LeastSquares
    from bidsfit.estimators.linear import OrdinaryLogLinear as OrdinaryLogLinear
    from bidsfit.estimators.linear import WeightedLogLinear as WeightedLogLinear
    from bidsfit.estimators.maximum_a_posteriori import MaximumAPosteriori as MaximumAPosteriori
    from bidsfit.estimators.maximum_likelihood import MaximumLikelihood as MaximumLikelihood
    from bidsfit.estimators.segmented import Segmented as Segmented
    from bidsfit.information import cramer_rao_bound as cramer_rao_bound
    from bidsfit.models.signal_model import SignalModel as SignalModel
    from bidsfit.trust.companions import companions as companions
    from bidsfit.trust.monte_carlo import performance_of as performance_of

try:
    __version__ = version("bidsfit")
except PackageNotFoundError:  # a checkout that is not installed
    __version__ = "0+unknown"

#: Public names and their homes; imported when first asked for, so that `import bidsfit` stays instant.
_HOMES = {
    "Acquisition": "bidsfit.acquisition",
    "SignalModel": "bidsfit.models.signal_model",
    "Estimate": "bidsfit.estimators.estimator",
    "Estimator": "bidsfit.estimators.estimator",
    "LeastSquares": "bidsfit.estimators.least_squares",
    "OrdinaryLogLinear": "bidsfit.estimators.linear",
    "WeightedLogLinear": "bidsfit.estimators.linear",
    "MaximumLikelihood": "bidsfit.estimators.maximum_likelihood",
    "Bayesian": "bidsfit.estimators.bayesian",
    "MaximumAPosteriori": "bidsfit.estimators.maximum_a_posteriori",
    "Segmented": "bidsfit.estimators.segmented",
    "Status": "bidsfit.estimators.estimator",
    "companions": "bidsfit.trust.companions",
    "cramer_rao_bound": "bidsfit.information",
    "performance_of": "bidsfit.trust.monte_carlo",
}

#: Packages that are imported when first asked for, likewise.
_PACKAGES = ("estimators", "models")

__all__ = ["__version__", *_HOMES, *_PACKAGES]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    if name in _PACKAGES:
        return import_module(f"bidsfit.{name}")
    raise AttributeError(f"module 'bidsfit' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)  # for tab completion, whether they were imported before or not
