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
#: Numbers of the largest block of signals that is simulated at a time.
LARGEST_BLOCK = 1 << 22
#: A parameter as near to its bound, relative to their distance, is at it.
NEAR = 1e-6


class Dictionary(Estimator):
    r"""The most similar of many simulated signals, and a step from there to the best fit.

    The entries cover the plausible space of the model evenly (Sobol points), and every order of magnitude of parameters
    that span them (``wide``). Each is divided by its norm, so that the most similar one, with the largest scalar
    product with the measured signal, is the nearest one [1]_. All are compressed to the leading right singular vectors
    of the dictionary, which hold all but :math:`10^{-8}` of its sum of squares [2]_, and the nearest is found by a k-d
    tree. One Gauss-Newton step, clipped to the bounds, interpolates between the entries; it is kept where the misfit
    gets smaller. The scale of the signal follows by least squares, and so does the phase of complex signals, of which
    the scalar product is taken in absolute value: the phase of the strongest component is taken off before the search.
    Entries are simulated and compressed in blocks, so that memory grows with the compressed dictionary alone.

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
        self._made: tuple[Acquisition, FitChunk] | None = None  # of the last acquisition, as it takes seconds
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
        if self._made is None or self._made[0] is not acquisition:
            self._made = acquisition, self._dictionary(acquisition)
        return self._made[1]

    def _dictionary(self, acquisition: Acquisition) -> FitChunk:
        """Simulate the entries for an acquisition; return what matches signals with them."""
        model, space, design = self.model, self._space, self.model.design(acquisition)
        weights, n = acquisition.weights, len(acquisition)
        extra = [j for j in (model.scale_index, model.phase_index) if j >= 0]
        free, width = [*space.places, *extra], np.append(space.span, np.ones(len(extra)))

        def evaluate(points: NDArray[np.float64], *, derivatives: bool = False) -> tuple[NDArray, NDArray | None]:
            return model.evaluate(points, design, derivatives=derivatives)

        def scaled(points: NDArray[np.float64], y: NDArray) -> tuple[NDArray, NDArray, NDArray]:
            """All parameters with the best scale and phase, residuals and sums of their squares."""
            found = space.with_scale(points)
            rest = y - model.fit_scale(found, evaluate(found)[0], y, weights)
            return found, rest, np.abs(rest) ** 2 @ weights

        def direction(signals: NDArray) -> NDArray:
            """Signals (n_voxels, n) of which scale and phase are taken off, for the scalar product."""
            found = signals * np.sqrt(weights)
            if model.scale is not None:
                found /= np.linalg.norm(found, axis=1, keepdims=True)
            return found

        entries = self._entries()
        blocks = np.array_split(entries, math.ceil(len(entries) * n / LARGEST_BLOCK))
        rng = np.random.default_rng(0)
        some = entries[rng.permutation(len(entries))[: max(LARGEST_BLOCK // n, 4 * n)]]
        shown = direction(evaluate(space.with_scale(some))[0])
        power, vectors = np.linalg.eigh(shown.conj().T @ shown)
        kept = vectors[:, np.cumsum(power) > LOST * power.sum()][:, ::-1]  # the strongest first

        def compressed(signals: NDArray) -> NDArray[np.float64]:
            """Coefficients of directions, the phase of the first of which is 0 if the model has one."""
            found = direction(signals) @ kept
            return as_real(found if model.phase is None else found * np.exp(-1j * np.angle(found[:, :1])))

        tree = KDTree(np.concatenate([compressed(evaluate(space.with_scale(block))[0]) for block in blocks]))

        def fit(given: NDArray[np.float64], sigma: NDArray[np.float64]) -> Fitted:
            y = given[:, :n] + 1j * given[:, n:] if model.complex_valued else given
            nearest = entries[tree.query(compressed(y))[1]]
            found, rest, squares = scaled(nearest, y)
            slopes = evaluate(found, derivatives=True)[1]
            assert slopes is not None
            slopes, rest = as_real(slopes[:, :, free], axis=1) * width, as_real(rest)
            repeated = np.tile(weights, 1 + model.complex_valued)
            normal = np.einsum("vmi,m,vmj->vij", slopes, repeated, slopes)
            normal += RIDGE * np.trace(normal, axis1=1, axis2=2)[:, None, None] * np.eye(len(free))
            step = np.linalg.solve(normal, np.einsum("vmi,m,vm->vi", slopes, repeated, rest)[..., None])[..., 0] * width
            moved = (nearest + step[:, : len(space.places)]).clip(*space.bounds.T)
            refined, _, smaller = scaled(moved, y)
            better = space.contains(moved) & (smaller < squares)
            found[better], squares[better] = refined[better], smaller[better]
            place = (found[:, space.places] - space.bounds[:, 0]) / space.span
            status = np.where(np.any(np.abs(place - 0.5) > 0.5 - NEAR, axis=1), Status.AT_BOUND, Status.CONVERGED)
            return Fitted(found, squares, status.astype(np.uint8))

        return fit

    def _entries(self) -> NDArray[np.float64]:
        """Parameters of the entries, shape (n, n_parameters of the space)."""
        space = self._space
        cube = qmc.Sobol(len(space.names), rng=0).random_base2(self.entries.bit_length() - 1)
        found = space.from_cube(cube)
        for j, (name, (low, high)) in enumerate(zip(space.names, space.bounds.tolist(), strict=True)):
            if self.model[name].wide and low > 0:
                found[:, j] = low * (high / low) ** cube[:, j]
        return found[space.contains(found)]
