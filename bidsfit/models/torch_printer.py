"""Printing of SymPy equations as code of torch."""

from __future__ import annotations

from typing import Any

import sympy as sp
from sympy.printing.pytorch import TorchPrinter

from bidsfit.models.functions import KERNEL_FUNCTIONS


class ModelPrinter(TorchPrinter):
    """Prints the project's special functions by name as well."""

    def doprint(self, expr: Any) -> str:
        """Print constant subexpressions as numbers, because torch functions take only tensors."""
        constant = {part: part.evalf(17) for part in expr.atoms(sp.Pow, sp.Function) if part.is_number}
        return str(super().doprint(expr.xreplace(constant)))

    def _print_Function(self, expr: sp.Function) -> str:  # noqa: N802 (SymPy's name)
        name = type(expr).__name__
        if name in KERNEL_FUNCTIONS:
            return f"{name}({', '.join(self._print(argument) for argument in expr.args)})"
        return str(super()._print_Function(expr))
