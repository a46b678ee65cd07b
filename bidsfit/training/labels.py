"""Training targets that are fits of the noisy signals instead of the truth."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bidsfit.acquisition import Acquisition
from bidsfit.estimators.estimator import INSIDE
from bidsfit.estimators.maximum_likelihood import MaximumLikelihood
from bidsfit.models.space import ParameterSpace
from bidsfit.noise import NoiseKind
from bidsfit.simulation.simulator import Labeller, Simulation


def labeller(simulation: Simulation, space: ParameterSpace, acquisition: Acquisition) -> Labeller | None:
    """The function that labels noisy signals by maximum likelihood, if the simulation asks for it.

    Fits that ended at a bound, or not at all, cannot be used (Epstein et al. 2024).
    """
    if simulation.labels is None:
        return None
    bounds = {name: (low, high) for name, (low, high) in space.facts.items()} | dict(simulation.label_bounds or {})
    noise: NoiseKind = "rician" if simulation.labels == "mle-rician" else "gaussian"
    estimator = MaximumLikelihood(space.model, noise=noise, bounds=bounds, intervals="none")

    def label(noisy: NDArray, sigma: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        found = estimator.estimate(noisy, acquisition, sigma)
        usable = np.isin(found.status, INSIDE)
        labels = np.stack([found.parameters[name] for name in space.names], axis=1)
        return np.where(usable[:, None], labels, space.bounds.mean(axis=1)), usable

    return label
