"""Bounded least squares: a compiled Levenberg-Marquardt, one voxel at a time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from bidsfit.acquisition import B0_TOLERANCE, Acquisition, Averaging
from bidsfit.estimators.cone import IN_WORDS, least_squares, violated
from bidsfit.estimators.estimator import Estimator, FitChunk, Fitted, Status
from bidsfit.estimators.profile import intervals_in_words, profile_intervals, set_intervals
from bidsfit.estimators.solver import Solver, start_in_words, starting_points
from bidsfit.models.signal_model import SignalModel


class LeastSquares(Estimator):
    """Bounded non-linear least squares with every constraint of the model.

    Each voxel starts from the best point of a grid, where the scale of the signal is solved in closed form, to avoid
    far local minima. It continues by Levenberg-Marquardt with the analytic Jacobian of the model [1]_ [2]_. An active
    set keeps bounds and linear constraints at every iterate.

    Parameters
    ----------
    model : SignalModel
    bounds : dict of name to (lower, upper), optional
        Replace the model's bounds, in the units of its parameter table. Equal bounds fix a parameter.
    s0 : {"fitted", "measured"}
        Fit the scale of the signal, or fix it at the mean of the measurements of the lowest b-value (b = 0).
    averaging : {"arithmetic", "geometric", "none"}
    debias : bool
        Take the Rician bias out of the magnitudes first.
    intervals : {"wald", "profile", "conformal", "none"}
        95 % intervals: the estimate with quantiles of Student's t (or of the normal distribution, where the noise is
        given) times the standard deviation on each side, or the values whose profile likelihood is high enough [3]_.
    constrained : bool
        Keep the inequalities of the model, if it has any (`SignalModel.cone`): of ``dki``, that no diffusivity or
        kurtosis is negative along any direction. Fits that hold a parameter are not constrained.
    device : str, optional
        torch device, such as "cuda", that fits all voxels together, to the same result within rounding. By default
        compiled code on the processor, which is 4 to 9 times as fast there. Not among the `options`, as it shapes no
        estimate.

    References
    ----------
    .. [1] Levenberg K. Quarterly of Applied Mathematics 1944;2:164-168.
    .. [2] Marquardt DW. SIAM Journal on Applied Mathematics 1963;11:431-441.
    .. [3] Venzon DJ, Moolgavkar SH. Applied Statistics 1988;37:87-94.
    """

    name = "lsq"
    title = "Bounded non-linear least squares (Levenberg-Marquardt)"
    references = ("levenberg1944", "marquardt1963")
    fit_method = "nlls"
    likelihood = "gaussian"

    def __init__(
        self,
        model: SignalModel,
        *,
        bounds: Mapping[str, tuple[float, float]] | None = None,
        s0: Literal["fitted", "measured"] = "fitted",
        averaging: Averaging = "arithmetic",
        debias: bool = False,
        intervals: Literal["wald", "profile", "conformal", "none"] = "wald",
        constrained: bool = True,
        device: str | None = None,
    ) -> None:
        if model.averaging and averaging == "none":
            raise ValueError(f"The model {model.name!r} describes direction averages; averaging cannot be 'none'.")
        super().__init__(model, bounds=bounds, averaging=averaging, debias=debias)
        if s0 not in ("fitted", "measured"):
            raise ValueError(f"s0 must be 'fitted' or 'measured', found {s0!r}.")
        if s0 == "measured" and ("b" not in model.variables or model.reference != "lowest b"):
            raise ValueError(f"The signal of {model.name!r} at b = 0 is not S0; s0 cannot be 'measured'.")
        self.s0, self.constrained = s0, constrained and model.cone is not None and not self.fixed
        set_intervals(self, intervals)
        self.device = device
        starting_points(model, self._working_bounds())  # refuses bounds that leave no room

    @property
    def options(self) -> dict[str, Any]:
        constrained = {"constrained": self.constrained} if self.model.cone else {}
        return super().options | {"s0": self.s0} | constrained

    @property
    def methods(self) -> str:
        debias = f"{self.debiasing_in_words} " if self.debias else ""
        diffusion = "b" in self.model.variables
        alike = "of each shell" if diffusion else "that are alike"
        average = {
            "arithmetic": f"The measurements {alike} were averaged, and the averages weighted by their number.",
            "geometric": f"The geometric mean of the measurements {alike} was taken and weighted by their number.",
            "none": "Every measurement was fitted by itself.",
        }[self.averaging]
        if self.model.averaging and self.averaging == "arithmetic":
            average = (
                "The measurements of each shell were averaged, with weights that make uneven directions even over the "
                "sphere (the smallest expected squared error for one fibre), and the averages weighted by the number "
                "of measurements whose plain mean has the same noise."
            )
        unweighted = "The signal without diffusion weighting" if diffusion else "The scale of the signal"
        scale = {
            "fitted": f"{unweighted} was fitted with the other parameters.",
            "measured": "The signal without diffusion weighting was fixed at the mean of the images at b = 0.",
        }[self.s0]
        again = (
            "; where a parameter ended at a bound, a second start was made from the other half of its range, and the "
            "lower sum of squares kept"
        )
        return (
            f"{debias}{average} {scale if self.model.scale else ''} Each voxel started from "
            f"{start_in_words(self.model)}, and descended with analytic derivatives under bounds and linear "
            f"constraints{again if self.model.start == 'grid' else ''}. "
            f"{IN_WORDS + '. ' if self.constrained else ''}{intervals_in_words(self)}".rstrip()
        )

    def _working_bounds(self) -> NDArray[np.float64]:
        """Bounds for signals scaled to 1 at the lowest b-value."""
        bounds = self.bounds.copy()
        if self.s0 == "measured":
            bounds[self.model.scale_index] = 1.0
        return bounds

    def missing(self, acquisition: Acquisition) -> list[str]:
        lowest = acquisition.b_values.min()
        if self.s0 == "measured" and lowest > B0_TOLERANCE:
            return [f"an image at b = 0 (a measured S0 is its mean); the lowest b-value is {lowest:g} s/mm²"]
        return []

    def prepare(self, acquisition: Acquisition) -> FitChunk:
        model = self.model
        solver = Solver(model, self._working_bounds(), acquisition, "gaussian", device=self.device)

        cone = model.cone() if model.cone and self.constrained else None

        def fit(y: NDArray[np.float64], sigma: NDArray[np.float64]) -> Fitted:
            precision = np.ones(len(y))
            found, cost, status = solver(y, precision)
            if cone is not None and (missed := violated(found, cone)).any():
                points, cost[missed] = least_squares(model, acquisition, y[missed], found[missed], cone)
                found[missed], status[missed] = np.clip(points, *self._working_bounds().T), Status.AT_BOUND
            if self.intervals != "profile":
                return Fitted(found, cost, status)
            freedom = y.shape[1] - self.n_free
            ends = profile_intervals(solver, y, precision, found, cost, sigma, freedom, "gaussian")
            return Fitted(found, cost, status, ends)

        return fit
