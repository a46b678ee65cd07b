"""A signal model without a closed form: a torch function, differentiated automatically."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bidsfit.acquisition import Acquisition
from bidsfit.models.signal_model import SignalModel, Support, as_real

if TYPE_CHECKING:
    from torch import Tensor

#: Numbers of the largest array that is held at a time, such as a Jacobian of many voxels.
LARGEST_BLOCK = 1 << 24
#: That many times fewer in compiled code, which needs no large arrays to be fast.
FEWER = 16

#: Fingerprints that a temporal basis is made of.
BASIS_SIZE = 2000


@dataclass(frozen=True, kw_only=True)
class FunctionModel(SignalModel):
    """A signal model given by a torch function, such as a Bloch simulation or an integral without a closed form.

    It has no compiled kernel, so estimators that need one (``bayes``, ``bayesmap``, ``segmented``) refuse it.

    Parameters
    ----------
    function : callable
        Maps the parameters of one voxel, a tensor of shape (n_parameters,), and the design (n, n_variables), in
        internal units, to the signal (n,). Must consist of operations that torch can differentiate.
    equation : str
        The equation as LaTeX.
    of_voxels : callable, optional
        The same function of arrays of many voxels, compiled by hand where torch takes too long: from parameters
        (n_voxels, n_parameters), design and whether derivatives are wanted, signals (n_voxels, n) and derivatives
        (n_voxels, n_parameters, n). It is used where no gradient has to flow through torch.

    Notes
    -----
    Measurements may be combinations of those that the function gives (`Acquisition.frames`). Their design is that of
    the frames, beside the real and the imaginary part of the basis.
    """

    function: Callable[[Tensor, Tensor], Tensor]
    equation: str = ""
    of_voxels: Callable[[NDArray[np.float64], NDArray[np.float64], bool], tuple[NDArray, NDArray]] | None = None

    @property
    def latex(self) -> str:
        return self.equation

    def design(self, acquisition: Acquisition) -> NDArray[np.float64]:
        if acquisition.frames is None:
            return super().design(acquisition)
        basis = acquisition.basis
        return np.column_stack([super().design(acquisition.frames), basis.real, basis.imag])

    def support(self, acquisition: Acquisition, enough: int | None = None) -> Support:
        return super().support(acquisition if acquisition.frames is None else acquisition.frames, enough)

    def temporal_basis(self, frames: Acquisition, n: int) -> NDArray[np.float64]:
        """The leading singular vectors of the fingerprints of a train of pulses, shape (n_frames, n).

        Coefficients of these vectors hold nearly all of the signal in a few numbers [1]_. Fingerprints are taken with
        their conjugates, so that the vectors are real.

        References
        ----------
        .. [1] McGivney DF, et al. SVD compression for magnetic resonance fingerprinting in the time domain. IEEE
           Transactions on Medical Imaging 2014;33:2311-2322.
        """
        if self.examples is None:
            raise ValueError(f"The model {self.name!r} has no examples that a temporal basis could be made of.")
        signals = as_real(self.signal(self.examples(BASIS_SIZE, np.random.default_rng(0)), frames), axis=0)
        return np.asarray(np.linalg.svd(signals, full_matrices=False)[2][:n].T)

    def _parts(self, design: Any) -> tuple[Any, Any]:
        """Design of the frames, and the basis (n_frames, n), real part first, or None where each is a measurement."""
        n = len(self.variables) + 2 * ("direction" in self.variables)
        return design[:, :n], None if design.shape[1] == n else design[:, n:].reshape(len(design), 2, -1)

    def _measured(self, parameters: Tensor, design: Tensor) -> Tensor:
        """Signals of the measurements (n,) of one voxel."""
        import torch

        frames, basis = self._parts(design)
        signal = self.function(parameters, frames)
        return signal if basis is None else signal @ torch.complex(basis[:, 0], -basis[:, 1]).to(signal.dtype)

    def torch_signal(self, parameters: Tensor, design: Tensor) -> Tensor:
        import torch

        flat = parameters.reshape(-1, parameters.shape[-1])
        if self._on_arrays(parameters):
            found = torch.from_numpy(self.evaluate(flat.numpy(), design.numpy(), derivatives=False)[0])
        else:
            found = torch.vmap(self._measured, in_dims=(0, None))(flat, design)
        return found.reshape(*parameters.shape[:-1], -1)

    def torch_signal_and_jacobian(self, parameters: Tensor, design: Tensor) -> tuple[Tensor, Tensor]:
        import torch

        if self._on_arrays(parameters):
            arrays = self.evaluate(parameters.numpy(), design.numpy(), derivatives=True)
            return torch.from_numpy(arrays[0]), torch.from_numpy(arrays[1])
        slope, signal = self._jacobian(parameters, design)
        if self.complex_valued:
            return torch.view_as_complex(signal), torch.complex(slope[..., 0, :], slope[..., 1, :])
        return signal, slope

    def _on_arrays(self, parameters: Tensor) -> bool:
        """Whether the function of arrays gives what is asked for."""
        import torch

        plain = parameters.device.type == "cpu" and parameters.dtype == torch.float64
        return self.of_voxels is not None and plain and not parameters.requires_grad

    @cached_property
    def _jacobian(self) -> Any:
        """Function from parameters (n_voxels, n_parameters) and design to derivatives and signals, real part first."""
        import torch

        def parts(parameters: Tensor, design: Tensor) -> tuple[Tensor, Tensor]:
            signal = self._measured(parameters, design)
            real = torch.view_as_real(signal) if self.complex_valued else signal
            return real, real

        one = torch.func.jacfwd(parts, has_aux=True)
        return torch.vmap(one, in_dims=(0, None))

    def evaluate(
        self, parameters: NDArray[np.float64], design: NDArray[np.float64], *, derivatives: bool
    ) -> tuple[NDArray, NDArray | None]:
        kind: type = complex if self.complex_valued else float
        basis = self._parts(design)[1]
        n = len(design) if basis is None else basis.shape[2]
        signals = np.empty((len(parameters), n), dtype=kind)
        jacobians = np.empty((len(parameters), n, len(self.names)), dtype=kind) if derivatives else None
        largest = LARGEST_BLOCK if self.of_voxels is None else LARGEST_BLOCK // FEWER
        block = max(largest // (len(design) * (len(self.names) if derivatives else 1)), 1)
        for start in range(0, len(parameters), block):
            rows = slice(start, start + block)
            signal, slopes = self._of_block(parameters[rows], design, derivatives)
            signals[rows] = signal
            if jacobians is not None:
                jacobians[rows] = slopes
        return signals, jacobians

    def _of_block(
        self, parameters: NDArray[np.float64], design: NDArray[np.float64], derivatives: bool
    ) -> tuple[NDArray, NDArray | None]:
        """As `evaluate`, of so few voxels that the signals of all frames fit into memory."""
        if self.of_voxels is not None:
            frames, basis = self._parts(design)
            signal, slopes = self.of_voxels(parameters, frames, derivatives)
            if basis is not None:
                combine = basis[:, 0] - 1j * basis[:, 1]
                signal, slopes = signal @ combine, slopes @ combine
            return signal, slopes.swapaxes(1, 2)
        import torch

        rows, table = (torch.from_numpy(np.ascontiguousarray(array)) for array in (parameters, design))
        if not derivatives:
            return self.torch_signal(rows, table).numpy(), None
        found, slope = self.torch_signal_and_jacobian(rows, table)
        return found.numpy(), slope.numpy()
