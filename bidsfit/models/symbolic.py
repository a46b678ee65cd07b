"""Signal models given by one SymPy equation, from which compiled code, torch, JavaScript and LaTeX are derived."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from importlib.resources import files
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import sympy as sp
from numpy.typing import NDArray

from bidsfit.acquisition import column_of
from bidsfit.compiling import specialised
from bidsfit.models.functions import KERNEL_FUNCTIONS, torch_functions
from bidsfit.models.kernel import compile_kernel, fill
from bidsfit.models.signal_model import SignalModel

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class SymbolicModel(SignalModel):
    """A signal model given by an equation of real signals.

    Parameters
    ----------
    expression : sympy.Expr
        The signal, in the symbols of the parameters and of the variables: their names, and ``gx``, ``gy``, ``gz`` for
        "direction".
    equation : str
        The equation as LaTeX, where the expression is not what one reads, such as a series for an integral.
    """

    expression: sp.Expr
    equation: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.complex_valued:
            raise ValueError(f"Model {self.name!r}: an equation is of real signals; write a FunctionModel.")
        known = {p.symbol for p in self.parameters} | {sp.Symbol(v, real=True) for v in self.variable_symbols}
        unknown = self.expression.free_symbols - known
        if unknown:
            raise ValueError(f"Model {self.name!r}: the equation has symbols {unknown} that no table lists.")
        if self.scale is not None:
            scale = self[self.scale].symbol
            if sp.diff(self.expression, scale, 2) != 0 or self.expression.subs(scale, 0) != 0:
                raise ValueError(f"Model {self.name!r}: the signal is not proportional to {self.scale!r}.")

    @property
    def variable_symbols(self) -> tuple[str, ...]:
        """Symbols of the variables in the equation, one for each column of the design."""
        return tuple(symbol for name in self.variables for symbol in column_of(name).components or (name,))

    compiled: ClassVar[bool] = True

    @cached_property
    def log_linear(self) -> bool:
        if self.scale is None:
            return False
        shape = self.expression / self[self.scale].symbol
        symbols = {p.symbol for p in self.parameters}
        return isinstance(shape, sp.exp) and not any(shape.args[0].diff(x).free_symbols & symbols for x in symbols)

    @cached_property
    def kernel(self) -> Any:
        return compile_kernel(self.expression, self.names, self.variable_symbols)

    @cached_property
    def signal_kernel(self) -> Any:
        return compile_kernel(self.expression, self.names, self.variable_symbols, derivatives=False)

    def evaluate(
        self, parameters: NDArray[np.float64], design: NDArray[np.float64], *, derivatives: bool
    ) -> tuple[NDArray, NDArray | None]:
        n, shape = len(parameters), (len(design), len(self.names))
        signals = np.empty((n, len(design)))
        jacobians = np.empty((n, *shape) if derivatives else (n, 0, 0))
        kernel = self.kernel if derivatives else self.signal_kernel
        specialised(fill, kernel=kernel)(parameters, design, signals, jacobians)
        return signals, jacobians if derivatives else None

    @cached_property
    def _torch_function(self) -> Callable[..., list[Tensor]]:
        return self._in_torch([self.expression])

    @cached_property
    def _torch_jacobian(self) -> Callable[..., list[Tensor]]:
        slopes = [sp.diff(self.expression, parameter.symbol) for parameter in self.parameters]
        return self._in_torch([self.expression, *slopes])

    def _in_torch(self, expressions: list[sp.Expr]) -> Callable[..., list[Tensor]]:
        from bidsfit.models.torch_printer import ModelPrinter  # it imports torch, which most runs do not need

        symbols = [sp.Symbol(name, real=True) for name in (*self.names, *self.variable_symbols)]
        modules, printer = [torch_functions(), "torch"], ModelPrinter()
        function: Callable[..., list[Tensor]] = sp.lambdify(symbols, expressions, modules, printer=printer, cse=True)
        return function

    def torch_signal(self, parameters: Tensor, design: Tensor) -> Tensor:
        return self._evaluated_in_torch(self._torch_function, parameters, design)[0]

    def torch_signal_and_jacobian(self, parameters: Tensor, design: Tensor) -> tuple[Tensor, Tensor]:
        import torch

        signal, *slopes = self._evaluated_in_torch(self._torch_jacobian, parameters, design)
        return signal, torch.stack(slopes, -1)

    def _evaluated_in_torch(self, function: Any, parameters: Tensor, design: Tensor) -> list[Tensor]:
        import torch

        found = function(*(column.unsqueeze(-1) for column in parameters.unbind(-1)), *design.unbind(-1))
        shape = (*parameters.shape[:-1], len(design))
        return [torch.as_tensor(values).to(parameters).broadcast_to(shape) for values in found]

    @property
    def latex(self) -> str:
        """The equation as LaTeX, in the form printed in the papers."""
        if self.equation:
            return self.equation
        symbols = {p.symbol: p.latex for p in self.parameters}
        symbols |= {sp.Symbol(g, real=True): f"g_{g[1:]}" for g in column_of("direction").components}
        columns = map(column_of, self.variables)
        symbols |= {sp.Symbol(column.name, real=True): column.latex for column in columns if column.latex}
        shown = self.expression.rewrite(sp.erf)
        return f"S = {sp.latex(shown, symbol_names=symbols)}"

    @property
    def javascript(self) -> str:
        """Source of the JavaScript function ``signal(parameters, variables)``, the signal of one measurement.

        Arguments are arrays in the order of the parameters and of the design columns, in internal units.
        """
        names = ", ".join(sp.jscode(p.symbol) for p in self.parameters)
        functions = files("bidsfit.models").joinpath("functions.js").read_text("utf-8")
        code = sp.jscode(self.expression, user_functions={name: name for name in KERNEL_FUNCTIONS})
        return (
            f"{functions}\nfunction signal(parameters, variables) {{\n"
            f"  const [{names}] = parameters, [{', '.join(self.variable_symbols)}] = variables;\n"
            f"  return {code};\n}}\n"
        )
