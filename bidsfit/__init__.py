"""Quantitative maps from diffusion MRI, and how far each map can be trusted."""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bidsfit.acquisition import Acquisition as Acquisition
    from bidsfit.models.signal_model import SignalModel as SignalModel

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
    "MaximumLikelihood": "bidsfit.estimators.maximum_likelihood",
    "Bayesian": "bidsfit.estimators.bayesian",
    "MaximumAPosteriori": "bidsfit.estimators.maximum_a_posteriori",
    "Segmented": "bidsfit.estimators.segmented",
    "Status": "bidsfit.estimators.estimator",
    "cramer_rao_bound": "bidsfit.bounds",
}

__all__ = ["Acquisition", "SignalModel", "__version__"]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'bidsfit' has no attribute {name!r}")
