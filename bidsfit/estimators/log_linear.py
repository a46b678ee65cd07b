"""Linear least squares of the logarithm of the signal, for models that are exponentials of linear functions."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bidsfit.acquisition import Acquisition
from bidsfit.estimators.cone import nearest
from bidsfit.models.signal_model import SignalModel

#: Signals below this fraction of the largest of their voxel are raised to it before the logarithm, and predicted ones
#: before they are weights.
FAINT = 1e-6


class LogLinear:
    r"""Weighted linear least squares of :math:`\ln S = \ln S_0 + X \theta`.

    The matrix X is the derivative of the log signal, which does not depend on the parameters. An ordinary fit comes
    first; the squares of its predicted signals are the weights of the second [1]_.

    Parameters
    ----------
    model : SignalModel
        With a scale.
    acquisition : Acquisition

    Raises
    ------
    ValueError
        If the logarithm of the signal is not linear in the parameters.

    References
    ----------
    .. [1] Salvador R, et al. Human Brain Mapping 2005;24:144-155.
    """

    def __init__(self, model: SignalModel, acquisition: Acquisition) -> None:
        if model.scale is None:
            raise ValueError(f"A log-linear fit needs a scale, and the model {model.name!r} has none.")
        at = np.array([[1.0 if n == model.scale else x for n in model.names] for x in (0.1, 0.3)])
        signal, jacobian = model.signal_and_jacobian(at, acquisition)
        slopes = jacobian / signal[..., None]
        if not np.allclose(slopes[0], slopes[1], rtol=1e-8, atol=1e-10):
            raise ValueError(f"The logarithm of the signal of {model.name!r} is not linear in its parameters.")
        self._scale, self._matrix, self._counts = model.scale_index, slopes[0], acquisition.weights

    def __call__(
        self, signals: NDArray[np.float64], *, iterations: int = 1, cone: NDArray[np.float64] | None = None
    ) -> NDArray[np.float64]:
        """Parameters (n_voxels, n_parameters) of signals (n_voxels, n), after so many weighted fits.

        The last meets ``cone @ parameters >= 0``, if a matrix is given (`SignalModel.cone`).
        """
        x = self._matrix
        floor = FAINT * np.abs(signals).max(axis=1, keepdims=True)
        logarithm = np.log(np.maximum(signals, np.maximum(floor, np.finfo(float).tiny)))
        root = np.sqrt(self._counts)
        found = np.einsum("pk,vk->vp", np.linalg.pinv(x * root[:, None]), logarithm * root)
        normal = np.broadcast_to((x.T * self._counts) @ x, (len(found), x.shape[1], x.shape[1]))
        for _ in range(iterations):
            weights = self._weights(found)[0]
            normal = np.einsum("vk,kp,kq->vpq", weights, x, x, optimize=True)
            right = np.einsum("vk,kp->vp", weights * logarithm, x)
            found = np.linalg.solve(normal, right[..., None])[..., 0]
        if cone is not None:
            found = nearest(found, normal, cone)
        found[:, self._scale] = np.exp(found[:, self._scale])
        return found

    def spread(
        self,
        parameters: NDArray[np.float64],
        gradients: NDArray[np.float64] | None = None,
        *,
        weighted: bool = True,
    ) -> NDArray[np.float64]:
        """Standard deviations of the fit for signals with noise of standard deviation 1.

        Parameters
        ----------
        parameters : ndarray, shape (n_voxels, n_parameters)
        gradients : ndarray, shape (n_voxels, m, n_parameters), optional
            Derivatives of m quantities with respect to the parameters; by default the quantities are the parameters.
        weighted : bool

        Returns
        -------
        ndarray, shape (n_voxels, m)
            Infinite where the signals that the parameters predict vanish, as nothing is determined there.
        """
        x, scale = self._matrix, parameters[:, self._scale]
        moved = np.tile(np.eye(x.shape[1]), (len(parameters), 1, 1)) if gradients is None else gradients.copy()
        moved[..., self._scale] *= scale[:, None]  # of the logarithm of the scale
        logarithms = parameters.copy()
        with np.errstate(divide="ignore"):
            logarithms[:, self._scale] = np.log(scale)
        found = np.full(moved.shape[:2], np.inf)
        known = np.isfinite(logarithms).all(axis=1)
        weights, largest = self._weights(logarithms[known])
        moved = moved[known]
        if weighted:
            normal = np.einsum("vk,kp,kq->vpq", weights, x, x, optimize=True)
            covariance = np.linalg.pinv(normal, hermitian=True)
            variance = np.einsum("vmp,vpq,vmq->vm", moved, covariance, moved, optimize=True)
        else:
            inverse = np.linalg.pinv(x * np.sqrt(self._counts)[:, None]) * np.sqrt(self._counts)
            variance = np.einsum("vmk,vk->vm", (moved @ inverse) ** 2, 1 / weights)
        with np.errstate(over="ignore"):
            found[known] = np.sqrt(variance) * np.exp(-largest)
        return found

    def _weights(self, logarithms: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Inverse variances (n_voxels, n) of log signals, relative to that of the largest; its logarithm (n_voxels, 1).

        ``logarithms`` are parameters with the logarithm of the scale; the logarithm is that of the signal.
        """
        predicted = np.einsum("kp,vp->vk", self._matrix, logarithms)
        largest = predicted.max(axis=1, keepdims=True)
        return np.maximum(np.exp(predicted - largest), FAINT) ** 2 * self._counts, largest
