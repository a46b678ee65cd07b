"""Starting points among random draws of the parameters, for models with more parameters than a grid can cover."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bidsfit.acquisition import Acquisition
from bidsfit.models.signal_model import SignalModel

#: Draws that a fit may start from: so many cover eight parameters well enough to find the valley of most signals.
DRAWS = 4096
#: Voxels that are compared with all draws at a time.
BLOCK = 256


class Draws:
    """The nearest of random draws of the parameters (`SignalModel.examples`), with the best scale and phase.

    Where a parameter is twofold, the nearest draws of both halves of its range are starting points.

    Parameters
    ----------
    model : SignalModel
    bounds : ndarray, shape (n_parameters, 2)
        The draws are moved into these.
    acquisition : Acquisition
    """

    def __init__(self, model: SignalModel, bounds: NDArray[np.float64], acquisition: Acquisition) -> None:
        assert model.examples is not None
        points = np.clip(model.examples(DRAWS, np.random.default_rng(0)), *bounds.T)
        for index, value in ((model.scale_index, 1.0), (model.phase_index, 0.0)):
            if index >= 0:
                points[:, index] = value
        self.model, self.points, self.weights = model, points, acquisition.weights
        self.signals = model.signal(points, acquisition)
        self.norms = np.sqrt(np.abs(self.signals) ** 2 @ self.weights)
        self.parts = [np.arange(DRAWS)]
        for j, parameter in enumerate(model.parameters):
            if parameter.twofold and bounds[j, 0] < bounds[j, 1]:
                above = points[:, j] > np.median(points[:, j])
                self.parts = [part[side[part]] for part in self.parts for side in (above, ~above)]

    def __call__(self, given: NDArray[np.float64]) -> NDArray[np.float64]:
        """Starting points, shape (n_starts, n_voxels, n_parameters).

        Parameters
        ----------
        given : ndarray, shape (n_voxels, n)
            Signals; of complex ones first all real parts, then all imaginary parts.
        """
        n = len(self.weights)
        y = given[:, :n] + 1j * given[:, n:] if self.model.complex_valued else given
        found = np.empty((len(self.parts), len(y), len(self.model.names)))
        for start in range(0, len(y), BLOCK):
            rows = slice(start, start + BLOCK)
            product = (y[rows] * self.weights) @ self.signals.conj().T / self.norms
            likeness = product.real if self.model.phase is None else np.abs(product)
            for k, part in enumerate(self.parts):
                best = part[likeness[:, part].argmax(axis=1)]
                points = self.points[best]
                self.model.fit_scale(points, self.signals[best], y[rows], self.weights)
                found[k, rows] = points
        return found
