"""Special functions that models may use, with their derivatives and numerically safe implementations."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import numba
import sympy as sp
from sympy.core.function import ArgumentIndexError

if TYPE_CHECKING:
    from torch import Tensor


class boys(sp.Function):  # noqa: N801 (SymPy functions are lower case)
    r"""Boys function :math:`F_n(z) = \int_0^1 t^{2n} e^{-z t^2} dt`.

    The direction average of an axially symmetric Gaussian compartment is
    :math:`e^{-b\lambda_\perp} F_0(b(\lambda_\parallel - \lambda_\perp))`. Written with erf it has a
    removable singularity at z = 0; as an integral it is smooth, and so are its derivatives
    :math:`F_n' = -F_{n+1}`.
    """

    nargs = 2

    def fdiff(self, argindex: int = 2) -> sp.Expr:
        n, z = self.args
        if argindex != 2:
            raise ArgumentIndexError(self, argindex)
        return -boys(n + 1, z)

    def _eval_rewrite_as_erf(self, n: sp.Expr, z: sp.Expr, **_: object) -> sp.Expr:
        """The form the papers print; only n = 0 appears in a signal equation."""
        return sp.sqrt(sp.pi) * sp.erf(sp.sqrt(z)) / (2 * sp.sqrt(z)) if n == 0 else self

    def _eval_evalf(self, prec: int) -> sp.Expr:
        n, z = self.args
        return (sp.hyper((n + sp.S.Half,), (n + sp.Rational(3, 2),), -z) / (2 * n + 1)).evalf(sp.N(prec, 3))


@numba.njit(inline="never")
def boys_kernel(n: int, z: float) -> float:
    """Boys function in double precision for z >= 0, exact to about 1e-15.

    The series has positive terms only and converges quickly for small z. Above, the recursion upwards from
    n = 0 loses few digits, because z is not small.
    """
    if z < 0.5 + n:
        term = 1.0 / (2 * n + 1)
        total = term
        k = n
        while term > 1e-17 * total:
            k += 1
            term *= 2.0 * z / (2 * k + 1)
            total += term
        return math.exp(-z) * total
    root = math.sqrt(z)
    value = 0.5 * math.sqrt(math.pi) * math.erf(root) / root
    if n > 0:
        exponential = math.exp(-z)
        for k in range(n):
            value = ((2 * k + 1) * value - exponential) / (2.0 * z)
    return value


def torch_functions() -> dict[str, Callable[..., Tensor]]:
    """The same functions on tensors, by name; every derivative by torch is finite, at z = 0 too."""
    import torch

    def boys_tensor(n: int, z: Tensor) -> Tensor:
        """The series below z = 3, and the recursion upwards from the error function above."""
        small, large = z.clamp(max=3.0), z.clamp(min=3.0)
        term = torch.ones_like(z) / (2 * n + 1)
        series = term
        for k in range(n + 1, n + 41):
            term = term * (2.0 * small / (2 * k + 1))
            series = series + term
        exponential = torch.exp(-large)
        value = 0.5 * math.sqrt(math.pi) * torch.erf(torch.sqrt(large)) / torch.sqrt(large)
        for k in range(n):
            value = ((2 * k + 1) * value - exponential) / (2.0 * large)
        return torch.where(z < 3.0, torch.exp(-small) * series, value)

    return {"boys": boys_tensor}


#: Names that generated kernels may call.
KERNEL_FUNCTIONS = {"boys": boys_kernel}
