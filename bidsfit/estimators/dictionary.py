"""Matching of signals with a dictionary of simulated ones."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import KDTree
from scipy.stats import qmc

from bidsfit.acquisition import Acquisition, Averaging
from bidsfit.estimators.estimator import Estimator, FitChunk, Fitted, Status
from bidsfit.models.signal_model import SignalModel, as_real
from bidsfit.models.space import ParameterSpace

#: Entries of a dictionary, by default.
ENTRIES = 1 << 17
#: Of models with more free parameters the entries lie so far apart that a step does not lead from them to the best fit:
#: with five the residuals of 95 % of the voxels are within 4 % of those of least squares, with six 8 times as large.
MOST_PARAMETERS = 5
#: The compressed entries hold all but this share of the sum of squares.
LOST = 1e-8
#: Added to the diagonal of the normal equations, relative to their trace, so that they can always be solved.
RIDGE = 1e-9
#: A parameter as near to its bound, relative to their distance, is at it.
NEAR = 1e-6


class Dictionary(Estimator):
    r"""The most similar of many simulated signals, and a step from there to the best fit.

    The entries cover the plausible space of the model evenly (Sobol points). Each is divided by its norm, so that the
    most similar one, with the largest scalar product with the measured signal, is the nearest one [1]_. All are
    compressed to the leading right singular vectors of the dictionary, which hold all but :math:`10^{-8}` of its sum of
    squares [2]_, and the nearest is found by a k-d tree. One Gauss-Newton step, clipped to the bounds, interpolates
    between the entries; it is kept where the misfit gets smaller. The scale of the signal follows by least squares.

    Parameters
    ----------
    model : SignalModel
    entries : int
        Size of the dictionary, rounded up to a power of 2.
    bounds : dict of name to (lower, upper), optional
    averaging : {"arithmetic", "geometric", "none"}
    debias : bool
        Take the Rician bias out of the magnitudes first.

    References
    ----------
    .. [1] Ma D, et al. Magnetic resonance fingerprinting. Nature 2013;495:187-192.
    .. [2] McGivney DF, et al. SVD compression for magnetic resonance fingerprinting in the time domain. IEEE
       Transactions on Medical Imaging 2014;33:2311-2322.
    """

    name = "dictionary"
    title = "Dictionary matching"
    references = ("ma2013", "mcgivney2014")

    def __init__(
        self,
        model: SignalModel,
        *,
        entries: int = ENTRIES,
        bounds: Mapping[str, tuple[float, float]] | None = None,
        averaging: Averaging = "arithmetic",
        debias: bool = False,
    ) -> None:
        super().__init__(model, bounds=bounds, averaging=averaging, debias=debias)
        if entries < 2:
            raise ValueError(f"A dictionary needs entries, found {entries}.")
        self.entries = 1 << math.ceil(math.log2(entries))
        own = {name: tuple(pair) for name, pair in zip(model.names, self.bounds.tolist(), strict=True)}
        self._space = ParameterSpace(model, {name: pair for name, pair in own.items() if name != model.scale})
        if len(self._space.names) > MOST_PARAMETERS:
            raise ValueError(
                f"A dictionary covers at most {MOST_PARAMETERS} parameters, and {model.name!r} has "
                f"{len(self._space.names)} beside its scale. Take lsq, or fix some with bounds."
            )

    @property
    def options(self) -> dict[str, Any]:
        return super().options | {"entries": self.entries}

    @property
    def methods(self) -> str:
        return (
            f"The signal of every voxel was matched with {self.entries:,} simulated ones, evenly spread over the "
            "plausible space of the model and compressed by singular value decomposition; the parameters of the "
            "nearest were refined by one Gauss-Newton step."
        )

    def prepare(self, acquisition: Acquisition) -> FitChunk:
        model, space, design = self.model, self._space, self.model.design(acquisition)
        weights = np.tile(acquisition.weights, 1 + model.complex_valued)
        free = [*space.places, *([] if model.scale is None else [model.scale_index])]
        width = np.append(space.span, np.ones(len(free) - len(space.places)))

        def simulated(points: NDArray[np.float64]) -> NDArray[np.float64]:
            return as_real(model.evaluate(space.with_scale(points), design, derivatives=False)[0])

        def scaled(points: NDArray[np.float64], y: NDArray[np.float64]) -> tuple[NDArray, NDArray, NDArray]:
            """All parameters with the best scale, residuals and sums of their squares."""
            found, signal = space.with_scale(points), simulated(points)
            if model.scale is not None:
                best = ((y * signal) @ weights / (signal**2 @ weights)).clip(min=0)
                found[:, model.scale_index], signal = best, signal * best[:, None]
            return found, y - signal, (y - signal) ** 2 @ weights

        cube = qmc.Sobol(len(space.names), rng=0).random_base2(self.entries.bit_length() - 1)
        entries = space.from_cube(cube)
        entries = entries[space.contains(entries)]
        signals = simulated(entries) * np.sqrt(weights)
        if model.scale is not None:
            signals /= np.linalg.norm(signals, axis=1, keepdims=True)
        power, vectors = np.linalg.eigh(signals.T @ signals)
        kept = vectors[:, np.cumsum(power) > LOST * power.sum()]
        tree = KDTree(signals @ kept)

        def fit(y: NDArray[np.float64], sigma: NDArray[np.float64]) -> Fitted:
            shown = (y * np.sqrt(weights)) @ kept
            if model.scale is not None:
                shown /= np.linalg.norm(shown, axis=1, keepdims=True)
            nearest = entries[tree.query(shown)[1]]
            found, rest, squares = scaled(nearest, y)
            _, slopes = model.evaluate(found, design, derivatives=True)
            assert slopes is not None
            slopes = as_real(slopes[:, :, free], axis=1) * width
            normal = np.einsum("vmi,m,vmj->vij", slopes, weights, slopes)
            normal += RIDGE * np.trace(normal, axis1=1, axis2=2)[:, None, None] * np.eye(len(free))
            step = np.linalg.solve(normal, np.einsum("vmi,m,vm->vi", slopes, weights, rest)[..., None])[..., 0] * width
            moved = (nearest + step[:, : len(space.places)]).clip(*space.bounds.T)
            refined, _, smaller = scaled(moved, y)
            better = space.contains(moved) & (smaller < squares)
            found[better], squares[better] = refined[better], smaller[better]
            place = (found[:, space.places] - space.bounds[:, 0]) / space.span
            status = np.where(np.any(np.abs(place - 0.5) > 0.5 - NEAR, axis=1), Status.AT_BOUND, Status.CONVERGED)
            return Fitted(found, squares, status.astype(np.uint8))

        return fit
