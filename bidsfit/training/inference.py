"""Inference: from averaged signals to parameters with a trained machine."""

from __future__ import annotations

from typing import Any, NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

from bidsfit.acquisition import SAME_DIRECTION, Acquisition
from bidsfit.compiling import specialised
from bidsfit.estimators.log_linear import LogLinear
from bidsfit.models import dti
from bidsfit.models.space import ParameterSpace
from bidsfit.rotation import axis_angles, rotation_between
from bidsfit.simulation.patches import with_presence
from bidsfit.simulation.simulator import Features
from bidsfit.training.recipe import Recipe


class Inverted(NamedTuple):
    """Estimates of voxels.

    Attributes
    ----------
    cube : ndarray, shape (n, n_parameters - 1)
        Parameters except the scale, in the unit cube of the space.
    parameters : ndarray, shape (n, n_parameters)
        All parameters of the model.
    squares : ndarray, shape (n,)
        Weighted sums of squared residuals.
    spread : ndarray, shape (n, n_parameters - 1), or None
        Standard deviation of the estimates of the networks of an ensemble.
    stated : ndarray, shape (n, n_parameters - 1), or None
        Standard deviation of the parameters, where the network states one; of an ensemble the root mean square.
    """

    cube: NDArray[np.float64]
    parameters: NDArray[np.float64]
    squares: NDArray[np.float64]
    spread: NDArray[np.float64] | None = None
    stated: NDArray[np.float64] | None = None


class Inverter:
    """A trained machine prepared for one averaged acquisition.

    The scale of the signal is an output of the machine, or follows from the other parameters by least squares.

    Parameters
    ----------
    recipe, machine, space
        Of the training.
    acquisition : Acquisition
    taught : Acquisition, optional
        That of the training. Where its directions are turned against those of ``acquisition``, estimates are turned
        back, if the model can be.
    """

    def __init__(
        self,
        recipe: Recipe,
        machine: Any,
        space: ParameterSpace,
        acquisition: Acquisition,
        taught: Acquisition | None = None,
    ) -> None:
        self.recipe, self.space = recipe, space
        self.machines = machine if isinstance(machine, tuple) else (machine,)
        self._features = Features(space.model, acquisition, recipe.simulation.unit)
        self._design, self._weights = space.model.design(acquisition), acquisition.weights
        self._acquisition = acquisition
        self._rotation = None
        if taught is not None and space.model.rotated is not None:
            self._rotation = rotation_between(taught.axes, acquisition.axes)

    def __call__(
        self,
        signals: NDArray,
        positions: NDArray[np.integer] | None = None,
        sigma: NDArray[np.float64] | None = None,
    ) -> Inverted:
        """Estimates of voxels.

        Parameters
        ----------
        signals : ndarray, shape (n, n_averages)
            Averaged, complex if the model is. A machine that reads neighbours also takes whole patches, shape (n, x, y,
            z, n_averages), of which the central voxel is estimated; NaN where a neighbour is missing.
        positions : ndarray, shape (n, 3)
            Voxel indices in the image, for a machine that reads neighbours; other voxels count as missing.
        sigma : ndarray, shape (n,)
            Standard deviation of the noise of one measurement, for a machine that reads signals in units of it.
        """
        model, features, reach = self.space.model, self._features(signals, sigma), self.recipe.architecture.reach
        if any(reach) and positions is None:
            signals = signals[:, *reach]
        objective = self.recipe.objective
        outputs = [self._outputs(machine, features, positions) for machine in self.machines]
        found = [objective.estimates(one, self.space) for one in outputs]
        rotated = [self._rotated(estimates) for _, estimates in found]
        (cube, _), parameters = found[0], rotated[0]
        spread = stated = None
        if objective.states_spread:
            stated = np.sqrt(np.mean([objective.spread(one, self.space) ** 2 for one in outputs], axis=0))
            if self._rotation is not None and np.rad2deg(self._rotation.magnitude()) > SAME_DIRECTION:
                stated[:] = np.nan  # it is that of elements in another frame
        if len(found) > 1:  # the median in the cube meets the constraints
            cube = np.median([one for one, _ in found], axis=0)
            spread = np.std(rotated, axis=0, ddof=1)[:, self.space.places]
            parameters = self._rotated(self.space.from_cube(cube))
        if model.axis_angles:
            places = [model.names.index(name) for name in model.axis_angles]
            parameters[:, places] = tensor_axes(signals, self._acquisition)
        scales = [scale for one in outputs if (scale := objective.scale_of(one, self.space)) is not None]
        if scales:
            given = np.median(scales, axis=0) * self._features.unit(signals, sigma)
            return Inverted(cube, parameters, self._fit_scale(parameters, signals, given), spread, stated)
        if not model.compiled:
            return Inverted(cube, parameters, self._fit_scale(parameters, signals), spread, stated)
        squares = np.empty(len(signals))
        specialised(_fit_scale, kernel=model.signal_kernel)(
            parameters,
            self._design,
            self._weights,
            np.ascontiguousarray(signals),
            model.scale_index,
            squares,
        )
        return Inverted(cube, parameters, squares, spread, stated)

    def _rotated(self, estimates: NDArray[np.float64]) -> NDArray[np.float64]:
        """All parameters of the model, in the frame of the directions, from estimates in that of the training."""
        parameters, rotated = self.space.with_scale(estimates), self.space.model.rotated
        return parameters if rotated is None or self._rotation is None else rotated(parameters, self._rotation)

    def _outputs(self, machine: Any, features: NDArray[np.float32], positions: NDArray[np.integer] | None) -> NDArray:
        """Outputs (n, n_outputs) of one machine for features as `__call__` has them."""
        architecture = self.recipe.architecture
        if positions is not None:
            return self._over(machine, features, positions)
        if any(architecture.reach):
            return np.asarray(architecture.forward(machine, with_presence(features))).reshape(len(features), -1)
        return architecture.forward(machine, features)

    def _over(self, machine: Any, features: NDArray[np.float32], positions: NDArray[np.integer]) -> NDArray:
        """Outputs (n, n_outputs) of voxels at these positions, placed in the smallest image that holds them."""
        reach = np.array(self.recipe.architecture.reach)
        positions = positions - positions.min(axis=0)
        image = np.zeros((*positions.max(axis=0) + 1 + 2 * reach, features.shape[-1] + 1), dtype=np.float32)
        image[tuple((positions + reach).T)] = with_presence(features)
        found: NDArray = self.recipe.architecture.forward(machine, image[None])[0][tuple(positions.T)]
        return found

    def _fit_scale(
        self, parameters: NDArray[np.float64], signals: NDArray, given: NDArray[np.float64] | None = None
    ) -> NDArray[np.float64]:
        """Like the function `_fit_scale`, for a model without a compiled kernel, or a scale that is given."""
        model = self.space.model
        unscaled = model.evaluate(parameters, self._design, derivatives=False)[0]
        signal = model.fit_scale(parameters, unscaled, signals, self._weights, given)
        return np.asarray(np.abs(signals - signal) ** 2 @ self._weights)


def tensor_axes(signals: NDArray[np.float64], acquisition: Acquisition) -> NDArray[np.float64]:
    """Polar angle and azimuth (n, 2) of the main direction of the diffusion tensor of signals (n, n_averages).

    They are the axis of trained estimators: where an angle ends its range, two values are one direction, which nothing
    smooth can learn. The tensor is the weighted linear fit of the logarithms of all signals: kurtosis at high b-values
    bends the diffusivities, and hardly turns the main direction.
    """
    tensors = dti.tensors(LogLinear(dti.DTI, acquisition)(signals))
    return axis_angles(np.linalg.eigh(tensors)[1][..., 2])


#: Compiled signal of a model, which `specialised` puts here.
kernel: Any = None


@numba.njit(nogil=True, error_model="numpy")
def _fit_scale(
    parameters: NDArray, design: NDArray, weights: NDArray, y: NDArray, scale: int, squares: NDArray
) -> None:
    """Fill in the scale, if any, of every voxel by least squares, and the weighted sum of squared residuals."""
    n = design.shape[0]
    signal, unused = np.empty(n), np.empty((0, 0))
    for i in range(len(y)):
        kernel(parameters[i], design, signal, unused)
        product, square = 0.0, 0.0
        for k in range(n):
            product += weights[k] * y[i, k] * signal[k]
            square += weights[k] * signal[k] * signal[k]
        best = max(product / square, 0.0) if scale >= 0 else 1.0
        rest = 0.0
        for k in range(n):
            rest += weights[k] * (y[i, k] - best * signal[k]) ** 2
        if scale >= 0:
            parameters[i, scale] = best
        squares[i] = rest
