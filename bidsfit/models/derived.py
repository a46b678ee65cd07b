"""Values of derived quantities and their gradients, which carry uncertainty over from the parameters."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
import sympy as sp
from numpy.typing import NDArray

from bidsfit.models.parameter import Derived


class Derivation:
    """Values and gradients of derived quantities in many voxels.

    ``names`` are the parameters in the order of every parameter array, ``quantities`` the derived quantities.
    """

    def __init__(self, names: Sequence[str], quantities: Sequence[Derived]) -> None:
        self._names, self._quantities = names, quantities

    def values(self, parameters: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
        """Quantities by name, shape (n,), or (n, 3) for an axis, from parameters (n, n_parameters); NaN stays NaN."""
        rows = [function(parameters)[0] for function in self._functions]
        return {q.name: row if q.axis else row[:, 0] for q, row in zip(self._quantities, rows, strict=True)}

    def gradients(self, parameters: NDArray[np.float64]) -> NDArray[np.float64]:
        """Derivatives, shape (n, n_components, n_parameters), components in the order of the quantities."""
        if not self._quantities:
            return np.empty((len(parameters), 0, len(self._names)))
        return np.concatenate([function(parameters)[1] for function in self._functions], axis=1)

    def spreads(self, components: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
        """Standard deviations by name from those of all components (n, n_components); for an axis, an angle in rad."""
        found, start = {}, 0
        for quantity in self._quantities:
            own = components[:, start : start + quantity.components]
            found[quantity.name], start = np.linalg.norm(own, axis=1), start + quantity.components
        return found

    @cached_property
    def _functions(self) -> list[Any]:
        """Functions, one per quantity, to values (n, n_components) and gradients (n, n_components, n_parameters)."""
        return [
            _of_expression(self._names, q) if isinstance(q.value, sp.Basic | sp.MatrixBase) else _of_function(q)
            for q in self._quantities
        ]


def _of_expression(names: Sequence[str], quantity: Derived) -> Any:
    symbols = [sp.Symbol(name, real=True) for name in names]
    components = list(quantity.value) if quantity.axis else [quantity.value]  # type: ignore[arg-type]
    value = [sp.lambdify([symbols], c, "scipy") for c in components]
    slope = [[sp.lambdify([symbols], sp.diff(c, s), "scipy") for s in symbols] for c in components]

    def evaluate(parameters: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        columns, n = list(parameters.T), len(parameters)
        with np.errstate(divide="ignore", invalid="ignore"):
            values = np.stack([np.broadcast_to(f(columns), n) for f in value], axis=1)
            slopes = np.stack([np.stack([np.broadcast_to(f(columns), n) for f in row], 1) for row in slope], axis=1)
        return np.asarray(values, dtype=float), np.asarray(slopes, dtype=float)

    return evaluate


def _of_function(quantity: Derived) -> Any:
    import torch

    function: Any = quantity.value

    def components(parameters: Any) -> Any:
        return function(parameters).reshape(quantity.components)

    both = torch.vmap(lambda x: (components(x), torch.func.jacfwd(components)(x)))

    def evaluate(parameters: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        known = np.isfinite(parameters).all(axis=1)
        values = np.full((len(parameters), quantity.components), np.nan)
        slopes = np.full((len(parameters), quantity.components, parameters.shape[1]), np.nan)
        if known.any():
            found, slope = both(torch.from_numpy(np.ascontiguousarray(parameters[known])))
            values[known], slopes[known] = found.numpy(), slope.numpy()
        return values, slopes

    return evaluate
