"""Compile a SymPy equation into a function of one voxel that returns signal and analytic Jacobian."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numba
import sympy as sp
from numpy.typing import NDArray
from sympy.printing.pycode import PythonCodePrinter

from bidsfit.models.functions import KERNEL_FUNCTIONS


class _KernelPrinter(PythonCodePrinter):
    """Print expressions as Python for numba, with `math` functions and the special functions of the package."""

    def __init__(self) -> None:
        super().__init__({"fully_qualified_modules": True})
        self.known_functions: dict[str, Any] = {**self.known_functions, **{name: name for name in KERNEL_FUNCTIONS}}


def kernel_source(
    expression: sp.Expr, parameters: Sequence[str], variables: Sequence[str], *, derivatives: bool = True
) -> str:
    """Python source of ``kernel(parameters, design, signal, jacobian)``; without derivatives it ignores the Jacobian.

    Shared subexpressions are computed once, and those that do not depend on the independent variables once
    per voxel instead of once per measurement.
    """
    parameter_symbols = [sp.Symbol(name, real=True) for name in parameters]
    variable_symbols = [sp.Symbol(name, real=True) for name in variables]
    slopes = [sp.diff(expression, symbol) for symbol in parameter_symbols] if derivatives else []
    outputs, varying = [expression, *slopes], set(variable_symbols)
    # Named a second time, so that what occurs once but is the same in all measurements gets a line of its own as well.
    functions = {part for output in outputs for part in output.atoms(sp.Function) if not part.free_symbols & varying}
    named = [*outputs, *sorted(functions, key=str)]
    replacements, reduced = sp.cse(named, symbols=sp.numbered_symbols("t"), optimizations="basic")
    constant_lines, varying_lines = [], []
    printer = _KernelPrinter()
    for symbol, value in replacements:
        line = f"{symbol} = {printer.doprint(value)}"
        if value.free_symbols & varying:
            varying.add(symbol)
            varying_lines.append(line)
        else:
            constant_lines.append(line)

    unpack = [f"{name} = parameters[{j}]" for j, name in enumerate(_safe(parameters))]
    measure = [f"{name} = design[i, {k}]" for k, name in enumerate(variables)]
    store = [f"signal[i] = {printer.doprint(reduced[0])}"]
    store += [f"jacobian[i, {j}] = {printer.doprint(value)}" for j, value in enumerate(reduced[1 : len(outputs)])]
    lines = ["def kernel(parameters, design, signal, jacobian):"]
    lines += [f"    {line}" for line in unpack + constant_lines]
    lines += ["    for i in range(design.shape[0]):"]
    lines += [f"        {line}" for line in measure + varying_lines + store]
    return "\n".join(lines) + "\n"


def _safe(names: Sequence[str]) -> list[str]:
    """Names as SymPy prints them: it appends an underscore to Python keywords such as ``lambda``."""
    printer = _KernelPrinter()
    return [printer.doprint(sp.Symbol(name, real=True)) for name in names]


@cache
def compile_kernel(
    expression: sp.Expr, parameters: tuple[str, ...], variables: tuple[str, ...], *, derivatives: bool = True
) -> Callable[[NDArray, NDArray, NDArray, NDArray], None]:
    """Compile an equation into ``kernel(parameters, design, signal, jacobian)``, which fills the last two arrays.

    The symbols ``parameters`` and ``variables`` are in the order of the array columns. Shapes: parameters
    (n_parameters,), design (n, n_variables), signal (n,), jacobian (n, n_parameters). Without ``derivatives`` the
    Jacobian is left as it is. Models that differ only in their tables share the compiled function.
    """
    namespace: dict[str, Any] = {"__name__": __name__, "math": math, **KERNEL_FUNCTIONS}
    source = kernel_source(expression, parameters, variables, derivatives=derivatives)
    exec(compile(source, f"<kernel of {', '.join(parameters)}>", "exec"), namespace)  # our own generated source
    # A name of its own, because symbols of code loaded from the cache of other runs have it (see `specialised`).
    namespace["kernel"].__qualname__ = f"kernel_{hashlib.sha256(source.encode()).hexdigest()[:32]}"
    return numba.njit(namespace["kernel"], error_model="numpy", nogil=True)


#: What `fill` calls: `specialised` puts one of a model here.
kernel: Any = None


@numba.njit(nogil=True, error_model="numpy")
def fill(parameters: NDArray, design: NDArray, signals: NDArray, jacobians: NDArray) -> None:
    """Fill signals (n_voxels, n) and Jacobians (n_voxels, n, n_parameters) of many voxels."""
    for i in range(len(parameters)):
        kernel(parameters[i], design, signals[i], jacobians[i])
