"""Estimators, by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bidsfit.registry import Registry

if TYPE_CHECKING:
    from bidsfit.estimators.estimator import Estimator

#: Where the estimators of the package live. Other packages add theirs with the entry point "bidsfit.estimators".
BUILT_IN = {
    "lsq": "bidsfit.estimators.least_squares:LeastSquares",
    "segmented": "bidsfit.estimators.segmented:Segmented",
    "mle": "bidsfit.estimators.maximum_likelihood:MaximumLikelihood",
    "bayes": "bidsfit.estimators.bayesian:Bayesian",
    "bayesmap": "bidsfit.estimators.maximum_a_posteriori:MaximumAPosteriori",
    "net-uniform": "bidsfit.trained.network:net_uniform",
    "net-healthy": "bidsfit.trained.network:net_healthy",
    "net-mixed": "bidsfit.trained.network:net_mixed",
    "net-wm": "bidsfit.trained.network:net_wm",
    "net-gm": "bidsfit.trained.network:net_gm",
    "forest-uniform": "bidsfit.trained.forest:forest_uniform",
    "forest-healthy": "bidsfit.trained.forest:forest_healthy",
    "forest-mixed": "bidsfit.trained.forest:forest_mixed",
    "forest-wm": "bidsfit.trained.forest:forest_wm",
    "forest-gm": "bidsfit.trained.forest:forest_gm",
}

_registry = Registry("estimator", "bidsfit.estimators", BUILT_IN)


def available() -> dict[str, str]:
    """Names of all estimators and where each lives, without importing any."""
    return _registry.available()


def get(name: str) -> type[Estimator]:
    """The estimator class of that name; an unknown one raises `UnknownNameError` with the nearest valid name."""
    estimator: type[Estimator] = _registry.get(name)
    return estimator
