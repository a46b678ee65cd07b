"""Segmented fit of intravoxel incoherent motion: D from high b-values first, then the other parameters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bidsfit.acquisition import Acquisition, Averaging
from bidsfit.estimators.estimator import Estimator, FitChunk, Fitted
from bidsfit.estimators.levenberg_marquardt import AT_BOUND, ITERATION_LIMIT, fit_voxels
from bidsfit.estimators.misfits import gaussian
from bidsfit.estimators.solver import make_problem
from bidsfit.models.signal_model import SignalModel

#: b-value from which blood is taken to give no signal, s/mm^2.
THRESHOLD = 200.0


class Segmented(Estimator):
    """Two-step IVIM fit: D and the intercept above a b-value threshold, then the rest with D fixed.

    The first step fits S0 (1 - f) exp(-b D) to the measurements above the threshold: the model with D* at its upper
    bound, where blood gives no signal. The second step fits all measurements with D, or D and f, fixed at the values of
    the first. Estimates scatter less than those of a joint fit, but are biased where D* is small (Kaandorp, thesis,
    papers I, II).

    Parameters
    ----------
    model : SignalModel
        With parameters f, D and Dstar.
    threshold : float
        s/mm^2.
    hold : sequence of {"D", "f"}
        Parameters that the second step keeps fixed: D, or D and f.
    bounds : dict of name to (lower, upper), optional
    averaging : {"arithmetic", "geometric", "none"}
    debias : bool
        Take the Rician bias out of the magnitudes first.
    """

    name = "segmented"
    title = "Segmented least squares"
    references = ("kaandorp2021",)
    needs_equation = True

    def __init__(
        self,
        model: SignalModel,
        *,
        threshold: float = THRESHOLD,
        hold: Sequence[str] = ("D",),
        bounds: Mapping[str, tuple[float, float]] | None = None,
        averaging: Averaging = "arithmetic",
        debias: bool = False,
    ) -> None:
        super().__init__(model, bounds=bounds, averaging=averaging, debias=debias)
        if not {"f", "D", "Dstar"} <= set(model.names):
            raise ValueError(f"A segmented fit needs a model with f, D and Dstar; {model.name!r} is none.")
        if set(hold) not in ({"D"}, {"D", "f"}):
            raise ValueError(f"hold must be D, or D and f; found {' and '.join(hold) or 'nothing'}.")
        if not 0 < threshold < np.inf:
            raise ValueError(f"The threshold must be a b-value above zero, found {threshold:g}.")
        self.threshold = float(threshold)
        self.hold = tuple(sorted(set(hold)))

    @property
    def options(self) -> dict[str, Any]:
        return super().options | {"threshold": self.threshold, "hold": list(self.hold)}

    @property
    def methods(self) -> str:
        return (
            f"D and the intercept at b = 0 of the signal that decays with it were fitted to the measurements from "
            f"b = {self.threshold:g} s/mm² on, and then the other parameters to all measurements with "
            f"{' and '.join(self.hold)} held."
        )

    def missing(self, acquisition: Acquisition) -> list[str]:
        high = acquisition.select(self._high(acquisition)).shells if self._high(acquisition).size else ()
        if len(high) >= 2:
            return []
        found = ", ".join(f"{shell.b_value:.0f}" for shell in high) or "none"
        return [
            f"2 different b-values of {self.threshold:g} s/mm² or more (D is fitted there); the protocol has {found}"
        ]

    def _high(self, acquisition: Acquisition) -> NDArray[np.intp]:
        """Indices of the measurements from the threshold on."""
        return np.intersect1d(
            self.model.usable(acquisition), np.flatnonzero(acquisition.b_values >= 0.95 * self.threshold)
        )

    def prepare(self, acquisition: Acquisition) -> FitChunk:
        model = self.model
        j = {name: model.names.index(name) for name in model.names}
        high = self._high(acquisition)
        # First step: all signal decays with D (f = 0), its scale is the intercept S0 (1 - f).
        first_bounds = self.bounds.copy()
        first_bounds[j["f"]] = 0.0
        first_bounds[j["Dstar"], 0] = first_bounds[j["Dstar"], 1]
        first = make_problem(model, first_bounds, acquisition.select(high))
        second = make_problem(model, self.bounds, acquisition)
        ones = np.ones

        def fit(y: NDArray[np.float64], sigma: NDArray[np.float64]) -> Fitted:
            n, p = y.shape[0], len(model.parameters)
            squares, status = np.empty(n), np.empty(n, dtype=np.uint8)
            slow = np.full((n, p), np.nan)
            fit_voxels(model.kernel, gaussian, y[:, high], ones(n), first, slow, squares, status)
            found = np.full((n, p), np.nan)
            found[:, j["D"]] = np.minimum(slow[:, j["D"]], self.bounds[j["Dstar"], 1])
            if "f" in self.hold:
                f = 1.0 - slow[:, model.scale_index]  # signals are about 1 at the lowest b-value
                found[:, j["f"]] = np.clip(f, *self.bounds[j["f"]])
            first_status = status.copy()
            fit_voxels(model.kernel, gaussian, y, ones(n), second, found, squares, status)
            held = found[:, j["D"]]
            low, top = self.bounds[j["D"]]
            status[(status != ITERATION_LIMIT) & ((held <= low) | (held >= top))] = AT_BOUND
            status[first_status == ITERATION_LIMIT] = ITERATION_LIMIT
            return Fitted(found, squares, status)

        return fit
