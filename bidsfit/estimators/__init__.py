"""Estimators, by name."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from bidsfit.registry import Registry

if TYPE_CHECKING:
    from bidsfit.estimators.estimator import Estimator

#: What the parameters of a trained estimator's training may be (its option ``distribution``), and how that reads.
DISTRIBUTIONS = {
    "prior": "drawn from the priors of the parameters",
    "uniform": "drawn uniformly from the plausible space of the model",
    "healthy": "drawn from the pooled least-squares fits of healthy participants",
    "mixed": "drawn half from the plausible space of the model and half from pooled fits of healthy participants",
    "wm": "drawn from the pooled least-squares fits of the white matter of healthy participants",
    "gm": "drawn from the pooled least-squares fits of the grey matter of healthy participants",
}

#: Networks that read the neighbours of a voxel, and their recipes.
SPATIAL = {"conv": "network-convolution", "attention": "network-attention"}

#: Trained estimators; "net-healthy" is "net" with the distribution "healthy".
TRAINED = {
    "net": "bidsfit.trained.network:Network",
    "forest": "bidsfit.trained.forest:Forest",
    **dict.fromkeys(SPATIAL, "bidsfit.trained.network:Network"),
}

_NETWORKS = (
    "supervised-gt",
    "supervised-mle-rician",
    "supervised-mle-gaussian",
    "hybrid",
    "self-supervised",
    "self-supervised-images",
    "self-supervised-attention",
    "ivimnet-orig",
    "ivimnet-optim",
    "mse-crb",
    "bias-reduced",
    "network-gyori2022",
)

#: Recipes that are estimators by their own name, trained uniformly over the plausible space of the model, and which of
#: `TRAINED` each is.
RECIPES = {**dict.fromkeys(_NETWORKS, "net"), "forest-gyori2022": "forest"}

#: Where the estimators of the package live. Other packages add theirs with the entry point "bidsfit.estimators".
BUILT_IN = {
    "lsq": "bidsfit.estimators.least_squares:LeastSquares",
    "ols": "bidsfit.estimators.linear:OrdinaryLogLinear",
    "wls": "bidsfit.estimators.linear:WeightedLogLinear",
    "segmented": "bidsfit.estimators.segmented:Segmented",
    "mle": "bidsfit.estimators.maximum_likelihood:MaximumLikelihood",
    "bayes": "bidsfit.estimators.bayesian:Bayesian",
    "bayesmap": "bidsfit.estimators.maximum_a_posteriori:MaximumAPosteriori",
    "dictionary": "bidsfit.estimators.dictionary:Dictionary",
    **TRAINED,
    **{f"{name}-{distribution}": place for name, place in TRAINED.items() for distribution in DISTRIBUTIONS},
    **{name: TRAINED[base] for name, base in RECIPES.items()},
}

_registry = Registry("estimator", "bidsfit.estimators", BUILT_IN)


def available() -> dict[str, str]:
    """Names of all estimators and where each lives, without importing any."""
    return _registry.available()


def get(name: str) -> type[Estimator]:
    """The estimator class of that name; an unknown one raises `UnknownNameError` with the nearest valid name.

    A name with a distribution ("net-healthy") or of a recipe gives a partial: the class with these options set.
    """
    estimator: Any = _registry.get(name)
    if name in RECIPES:
        estimator = partial(estimator, distribution="uniform", recipe=name, label=name)
    base, _, distribution = name.partition("-")
    if base in TRAINED and distribution in DISTRIBUTIONS:
        own = {"recipe": SPATIAL[base], "label": name} if base in SPATIAL else {}
        estimator = partial(estimator, distribution=distribution, **own)
    found: type[Estimator] = estimator
    return found


def has_recipe(name: str) -> bool:
    """Whether the name of an estimator decides by which recipe it is trained."""
    return "recipe" in getattr(get(name), "keywords", {})


def with_distribution(name: str, distribution: str | None = None) -> str:
    """Append the training distribution to the name of a trained estimator without one: "net" becomes "net-healthy".

    ``distribution`` is one of `DISTRIBUTIONS`, "prior" by default. Other names are returned unchanged.
    """
    return f"{name}-{distribution or 'prior'}" if name in TRAINED else name
