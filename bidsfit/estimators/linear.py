"""Linear fits of the logarithm of the signal, as MRtrix, FSL and DIPY make them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bidsfit.acquisition import Acquisition, Averaging
from bidsfit.estimators.cone import IN_WORDS, at_limit
from bidsfit.estimators.estimator import Estimate, Estimator, FitChunk, FitMethod, Fitted, Status
from bidsfit.estimators.log_linear import LogLinear
from bidsfit.models.signal_model import SignalModel


class OrdinaryLogLinear(Estimator):
    r"""Linear least squares of the logarithm of the signal.

    For models whose logarithm is linear in the parameters. All measurements count alike, whatever their signal is:
    ``dwi2adc`` of MRtrix and ``dtifit`` of FSL fit so by default. The logarithm weighs noise in weak signals heavily;
    `LeastSquares` and `WeightedLogLinear` scatter less. Geometric means of repeated measurements give the same
    estimates as the measurements one by one, and are therefore the default.

    Estimates beyond the bounds are put on them. The standard deviation is that of the linear fit for noise of the same
    size in all signals: :math:`\mathrm{Var}(\ln S) = \sigma^2 / S^2` [1]_.

    Parameters
    ----------
    model : SignalModel
    bounds : dict of name to (lower, upper), optional
    averaging : {"geometric", "arithmetic", "none"}
    debias : bool
        Take the Rician bias out of the magnitudes first.
    constrained : bool
        Keep the inequalities of the model, if it has any (`SignalModel.cone`): of ``dki``, that no diffusivity or
        kurtosis is negative along any direction.

    Raises
    ------
    ValueError
        If the logarithm of the signal is not linear in the parameters, or bounds fix a parameter.

    References
    ----------
    .. [1] Salvador R, et al. Human Brain Mapping 2005;24:144-155.
    """

    name = "ols"
    title = "Ordinary log-linear least squares"
    references = ("salvador2005",)
    fit_method: FitMethod = "ols"
    statistics = ("sd",)
    states_derived = True
    intervals = "wald"
    iterations: int = 0

    def __init__(
        self,
        model: SignalModel,
        *,
        bounds: Mapping[str, tuple[float, float]] | None = None,
        averaging: Averaging = "geometric",
        debias: bool = False,
        constrained: bool = True,
    ) -> None:
        super().__init__(model, bounds=bounds, averaging=averaging, debias=debias)
        self.constrained = constrained
        if not (model.log_linear and model.scale):
            raise ValueError(
                f"The estimator {self.name!r} needs a model that is an exponential of a linear function, and "
                f"{model.name!r} is none. Take lsq."
            )
        if self.fixed:
            raise ValueError(f"The estimator {self.name!r} cannot hold {' and '.join(self.fixed)}; take lsq.")

    @property
    def options(self) -> dict[str, Any]:
        return super().options | ({"constrained": self.constrained} if self.model.cone else {})

    @property
    def methods(self) -> str:
        n = self.iterations
        weights = ", weighted by the squares of the signals that an ordinary fit predicts" if n else ""
        weights += f", and {n - 1} times more by those that the last fit predicts" if n > 1 else ""
        kept = f". {IN_WORDS}" if self.model.cone and self.constrained else ""
        return f"The logarithm of the signal was fitted by linear least squares{weights}{kept}."

    def prepare(self, acquisition: Acquisition) -> FitChunk:
        model, linear, counts = self.model, LogLinear(self.model, acquisition), acquisition.weights
        low, high = self.bounds.T
        freedom = len(acquisition) - self.n_free
        cone = model.cone() if model.cone and self.constrained else None

        def fit(y: NDArray[np.float64], sigma: NDArray[np.float64]) -> Fitted:
            found = linear(y, iterations=self.iterations, cone=cone)
            with np.errstate(over="ignore"):  # of signals that are like no signal of the model
                squares = np.einsum("vk,k->v", (y - model.signal(found, acquisition)) ** 2, counts)
            residual = np.sqrt(squares / freedom) if freedom > 0 else np.full(len(y), np.nan)
            noise = np.where(np.isnan(sigma), residual, sigma)
            spread = noise[:, None] * linear.spread(found, weighted=self.iterations > 0)
            inside = np.clip(found, low, high)
            free = (found == inside).all(axis=1)
            if cone is not None:
                free &= ~at_limit(found, cone)
            status = np.where(free, Status.CONVERGED, Status.AT_BOUND).astype(np.uint8)
            return Fitted(inside, squares, status, {"sd": spread})

        return fit

    def derived_spread(self, estimate: Estimate, noise: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
        model, shape = self.model, estimate.status.shape
        parameters = np.stack([estimate.parameters[name].ravel() for name in model.names], axis=1)
        known = np.isfinite(parameters).all(axis=1)
        gradients = model.derivation.gradients(parameters[known])
        found = np.full((len(parameters), gradients.shape[1]), np.nan)
        linear = LogLinear(model, estimate.acquisition)
        found[known] = noise.reshape(-1, 1)[known] * linear.spread(
            parameters[known], gradients, weighted=self.iterations > 0
        )
        return {name: values.reshape(shape) for name, values in model.derivation.spreads(found).items()}


class WeightedLogLinear(OrdinaryLogLinear):
    """Weighted linear least squares of the logarithm of the signal.

    As `OrdinaryLogLinear`, but a second fit weighs every measurement by the square of the signal that the first
    predicts, which is the inverse of the variance of its logarithm; ``dtifit --wls`` of FSL fits so, and DIPY.

    Parameters
    ----------
    model, bounds, averaging, debias, constrained
        As of `OrdinaryLogLinear`.
    iterations : int
        Number of weighted fits, each with the signals that the last one predicts; ``dwi2tensor -ols`` of MRtrix makes
        two.
    """

    name = "wls"
    title = "Weighted log-linear least squares"
    fit_method = "wls"

    def __init__(
        self,
        model: SignalModel,
        *,
        bounds: Mapping[str, tuple[float, float]] | None = None,
        averaging: Averaging = "geometric",
        debias: bool = False,
        iterations: int = 1,
        constrained: bool = True,
    ) -> None:
        super().__init__(model, bounds=bounds, averaging=averaging, debias=debias, constrained=constrained)
        if iterations < 1:
            raise ValueError(f"The estimator 'wls' needs one weighted fit or more, found iterations={iterations}.")
        self.iterations = iterations

    @property
    def options(self) -> dict[str, Any]:
        return super().options | {"iterations": self.iterations}
