"""The best of a few guesses: an estimator in a few lines."""

from __future__ import annotations

import numpy as np

from bidsfit import Acquisition, Estimator, Status
from bidsfit.estimators.estimator import Fitted
from bidsfit.estimators.solver import starting_points


class GridSearch(Estimator):
    """The point of the model's grid of starting values that is closest to the signals."""

    name = "grid"
    title = "Grid search"
    methods = "The point of a grid whose signal had the least squared distance was taken."

    def prepare(self, acquisition: Acquisition):
        nodes = starting_points(self.model, self.bounds)
        curves = self.model.signal(nodes, acquisition)
        weights = acquisition.weights

        def fit(signals, sigma):
            """Fit signals of shape (n_voxels, n_measurements), about 1 at the lowest b."""
            squares = ((signals[:, None, :] - curves) ** 2) @ weights
            best = squares.argmin(axis=1)
            status = np.full(len(signals), Status.CONVERGED, dtype=np.uint8)
            return Fitted(nodes[best], squares.min(axis=1), status)

        return fit
