"""Values of derived quantities and their gradients, which carry uncertainty over from the parameters."""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import sympy as sp
from numpy.typing import NDArray

from bidsfit.models.parameter import Derived

#: Voxels that a torch function gets at once, so that its memory stays small.
CHUNK = 4096
#: Of many voxels, parameters (n, n_parameters).
Function = Callable[[NDArray[np.float64]], NDArray[np.float64]]


class Derivation:
    """Values and gradients of derived quantities in many voxels.

    ``names`` are the parameters in the order of every parameter array, ``quantities`` the derived quantities.
    """

    def __init__(self, names: Sequence[str], quantities: Sequence[Derived]) -> None:
        self._names, self._quantities = names, quantities

    def values(
        self, parameters: NDArray[np.float64], names: Container[str] | None = None
    ) -> dict[str, NDArray[np.float64]]:
        """Quantities (all, or of these names) from parameters (n, n_parameters); NaN stays NaN.

        Their shape is (n,), that of an axis (n, 3) and of a tensor (n, 6).
        """
        functions = zip(self._quantities, self._functions, strict=True)
        rows = {q.name: value(parameters) for q, (value, _) in functions if names is None or q.name in names}
        return {name: row[:, 0] if row.shape[1] == 1 else row for name, row in rows.items()}

    def gradients(self, parameters: NDArray[np.float64]) -> NDArray[np.float64]:
        """Derivatives, shape (n, n_components, n_parameters), components in the order of the quantities."""
        if not self._quantities:
            return np.empty((len(parameters), 0, len(self._names)))
        return np.concatenate([slope(parameters) for _, slope in self._functions], axis=1)

    def spreads(self, components: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
        """Standard deviations by name from those of all components (n, n_components); for an axis, an angle in rad."""
        found, start = {}, 0
        for quantity in self._quantities:
            own = components[:, start : start + quantity.components]
            found[quantity.name], start = np.linalg.norm(own, axis=1), start + quantity.components
        return found

    @cached_property
    def _functions(self) -> list[tuple[Function, Function]]:
        """For each quantity the functions of its values (n, n_components) and gradients (..., n_parameters)."""
        return [
            _of_expression(self._names, q) if isinstance(q.value, sp.Basic | sp.MatrixBase) else _of_function(q)
            for q in self._quantities
        ]


def _of_expression(names: Sequence[str], quantity: Derived) -> tuple[Function, Function]:
    symbols = [sp.Symbol(name, real=True) for name in names]
    components = sp.Matrix(quantity.value if quantity.components > 1 else [quantity.value])

    def evaluated(expressions: sp.Matrix) -> Function:
        functions = [sp.lambdify([symbols], expression, "scipy") for expression in expressions]

        def evaluate(parameters: NDArray[np.float64]) -> NDArray[np.float64]:
            columns, n = list(parameters.T), len(parameters)
            with np.errstate(divide="ignore", invalid="ignore"):
                found = [np.broadcast_to(np.asarray(f(columns), dtype=float), n) for f in functions]
            return np.stack(found, axis=1)

        return evaluate

    value, slope = evaluated(components), evaluated(components.jacobian(symbols))
    return value, lambda parameters: slope(parameters).reshape(len(parameters), len(components), len(symbols))


def _of_function(quantity: Derived) -> tuple[Function, Function]:
    import torch

    function: Any = quantity.value

    def components(parameters: Any) -> Any:
        return function(parameters).reshape(quantity.components)

    def evaluated(one: Any) -> Function:
        many = torch.vmap(one, chunk_size=CHUNK)

        def evaluate(parameters: NDArray[np.float64]) -> NDArray[np.float64]:
            known = np.asarray(np.isfinite(parameters).all(axis=1))
            rows: NDArray[np.float64] = many(torch.from_numpy(np.where(known[:, None], parameters, 1.0))).numpy()
            rows[~known] = np.nan
            return rows

        return evaluate

    return evaluated(components), evaluated(torch.func.jacrev(components))
