"""Maximum likelihood with Gaussian or Rician noise of known standard deviation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from bidsfit.acquisition import Acquisition
from bidsfit.estimators.estimator import Estimator, FitChunk, Fitted
from bidsfit.estimators.profile import intervals_in_words, profile_intervals, set_intervals
from bidsfit.estimators.solver import Solver, start_in_words
from bidsfit.models.signal_model import SignalModel, as_real


class MaximumLikelihood(Estimator):
    """Parameters of maximum likelihood for the measured magnitudes, within the constraints of the model.

    The solver is that of `LeastSquares` with the log-likelihood in place of the square: a damped Newton method with the
    analytic derivatives of the model. Measurements are not averaged, because an average of Rician magnitudes is not
    Rician; negative magnitudes count as 0. A model of direction averages is applied to every direction, which is exact
    only if the signal does not depend on direction or is far above the noise.

    Parameters
    ----------
    model : SignalModel
    noise : {"rician", "gaussian"}
        Kind of noise [1]_. With Gaussian noise the result is that of least squares.
    bounds : dict of name to (lower, upper), optional
    intervals : {"wald", "profile", "conformal", "none"}
        95 % intervals, as of `LeastSquares`.
    device : str, optional
        torch device that fits all voxels together, as of `LeastSquares`.

    References
    ----------
    .. [1] Gudbjartsson H, Patz S. Magnetic Resonance in Medicine 1995;34:910-914.
    """

    name = "mle"
    title = "Maximum likelihood"
    references = ("gudbjartsson1995", "levenberg1944", "marquardt1963")
    needs_noise = True

    def __init__(
        self,
        model: SignalModel,
        *,
        noise: Literal["rician", "gaussian"] = "rician",
        bounds: Mapping[str, tuple[float, float]] | None = None,
        intervals: Literal["wald", "profile", "conformal", "none"] = "wald",
        device: str | None = None,
    ) -> None:
        super().__init__(model, bounds=bounds, averaging="none")
        if noise not in ("rician", "gaussian"):
            raise ValueError(f"noise must be 'rician' or 'gaussian', found {noise!r}.")
        if noise == "rician" and model.complex_valued:
            raise ValueError(f"Signals of {model.name!r} are complex and their noise is Gaussian, found {noise!r}.")
        self.noise = self.likelihood = noise
        set_intervals(self, intervals)
        self.device = device

    @property
    def options(self) -> dict[str, Any]:
        return super().options | {"noise": self.noise}

    @property
    def methods(self) -> str:
        density = {"rician": "Rician", "gaussian": "Gaussian"}[self.noise]
        return (
            f"The {density} likelihood of all measurements, with the standard deviation of the noise given, was "
            "maximised in each voxel by a damped Newton method under bounds and linear constraints, from "
            f"{start_in_words(self.model)}. {intervals_in_words(self)}".rstrip()
        )

    def prepare(self, acquisition: Acquisition) -> FitChunk:
        model = self.model
        average = model.average(acquisition)
        shells, rows = average.acquisition, average.rows  # predictions that differ
        solver = Solver(model, self.bounds, shells, self.noise, rows, acquisition.weights, self.device)

        def fit(y: NDArray[np.float64], sigma: NDArray[np.float64]) -> Fitted:
            magnitudes = np.maximum(y, 0.0) if self.noise == "rician" else y
            precision = 1.0 / sigma**2
            found, cost, status = solver(magnitudes, precision)
            residuals = y - as_real(model.signal(found, shells))[:, solver.problem.rows]
            squares = residuals**2 @ solver.problem.weights
            if self.intervals != "profile":
                return Fitted(found, squares, status)
            ends = profile_intervals(solver, magnitudes, precision, found, cost, sigma, 0, self.noise)
            return Fitted(found, squares, status, ends)

        return fit
