"""A signal model without a closed form: a torch function, differentiated automatically."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bidsfit.models.signal_model import SignalModel

if TYPE_CHECKING:
    from torch import Tensor

#: Numbers of the largest array that is held at a time, such as a Jacobian of many voxels.
LARGEST_BLOCK = 1 << 24


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
    """

    function: Callable[[Tensor, Tensor], Tensor]
    equation: str = ""

    @property
    def latex(self) -> str:
        return self.equation

    def torch_signal(self, parameters: Tensor, design: Tensor) -> Tensor:
        import torch

        flat = parameters.reshape(-1, parameters.shape[-1])
        found: Tensor = torch.vmap(self.function, in_dims=(0, None))(flat, design)
        return found.reshape(*parameters.shape[:-1], -1)

    def torch_signal_and_jacobian(self, parameters: Tensor, design: Tensor) -> tuple[Tensor, Tensor]:
        import torch

        slope, signal = self._jacobian(parameters, design)
        if self.complex_valued:
            return torch.view_as_complex(signal), torch.complex(slope[..., 0, :], slope[..., 1, :])
        return signal, slope

    @cached_property
    def _jacobian(self) -> Any:
        """Function from parameters (n_voxels, n_parameters) and design to derivatives and signals, real part first."""
        import torch

        def parts(parameters: Tensor, design: Tensor) -> tuple[Tensor, Tensor]:
            signal = self.function(parameters, design)
            real = torch.view_as_real(signal) if self.complex_valued else signal
            return real, real

        one = torch.func.jacfwd(parts, has_aux=True)
        return torch.vmap(one, in_dims=(0, None))

    def evaluate(
        self, parameters: NDArray[np.float64], design: NDArray[np.float64], *, derivatives: bool
    ) -> tuple[NDArray, NDArray | None]:
        import torch

        table = torch.from_numpy(np.ascontiguousarray(design))
        block = max(LARGEST_BLOCK // (len(design) * len(self.names)), 1)
        signals, jacobians = [], []
        for start in range(0, len(parameters), block):
            rows = torch.from_numpy(np.ascontiguousarray(parameters[start : start + block]))
            if not derivatives:
                signals.append(self.torch_signal(rows, table).numpy())
                continue
            signal, slope = self.torch_signal_and_jacobian(rows, table)
            signals.append(signal.numpy())
            jacobians.append(slope.numpy())
        kind = complex if self.complex_valued else float
        if not signals:
            signals = [np.empty((0, len(design)), dtype=kind)]
            jacobians = [np.empty((0, len(design), len(self.names)), dtype=kind)]
        return np.concatenate(signals), np.concatenate(jacobians) if derivatives else None
