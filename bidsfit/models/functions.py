"""Special functions that models may use, with their derivatives and numerically safe implementations."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING

import numba
import numpy as np
import sympy as sp
from numpy.typing import NDArray
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


#: Boys functions (in compiled code those of the orders 0 to 3) are tabulated at so many nodes per unit of z, up to
#: `TABLE_END`, as Taylor series of so many terms. The next terms are below the rounding error.
NODES, TABLE_END, TERMS = 16, 32, 9


def _taylor_series(orders: int) -> NDArray[np.float64]:
    """Coefficients of :math:`F_n(z_j - d)` in powers of d, shape (orders, j, power): :math:`F_{n+k}(z_j) / k!`."""
    z = np.arange(NODES * TABLE_END + 1, dtype=np.longdouble) / NODES
    highest = orders - 1 + TERMS
    term = np.exp(-z) / (2 * highest + 1)
    values = [term]
    for k in range(highest + 1, 200):  # of positive terms, so that no digit is lost
        term = term * 2 * z / (2 * k + 1)
        values[0] = values[0] + term
    for n in range(highest - 1, -1, -1):
        values.insert(0, (2 * z * values[0] + np.exp(-z)) / (2 * n + 1))
    factorials = [math.factorial(k) for k in range(TERMS)]
    return np.array([np.transpose(values[n : n + TERMS]) / factorials for n in range(orders)], dtype=float)


_TAYLOR = _taylor_series(4)


@numba.njit(inline="never")
def boys_kernel(n: int, z: float) -> float:
    """Boys function in double precision for z >= 0, exact to a relative error of 1e-15.

    Orders and arguments beyond the table are found by a series of positive terms for small z, and by recursion upwards
    from n = 0, which loses few digits where z is not small.
    """
    if 0 <= z < TABLE_END and n < len(_TAYLOR):
        node = int(NODES * z + 0.5)
        below = node / NODES - z
        value = _TAYLOR[n, node, TERMS - 1]
        for k in range(TERMS - 2, -1, -1):
            value = value * below + _TAYLOR[n, node, k]
        return value
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

    @cache
    def table(n: int, device: torch.device, dtype: torch.dtype) -> Tensor:
        return torch.tensor(_taylor_series(n + 1)[n], device=device, dtype=dtype)

    def boys_tensor(n: int, z: Tensor) -> Tensor:
        """The Taylor series of the table, and beyond it the recursion upwards from the error function."""
        terms, small, large = table(n, z.device, z.dtype), z.clamp(max=TABLE_END), z.clamp(min=TABLE_END)
        node = (NODES * small.detach().clamp(min=0.0)).round().long()
        below = node / NODES - small
        series = terms[:, TERMS - 1][node]
        for k in range(TERMS - 2, -1, -1):
            series = series * below + terms[:, k][node]
        exponential, root = torch.exp(-large), torch.sqrt(large)
        value = 0.5 * math.sqrt(math.pi) * torch.erf(root) / root
        for k in range(n):
            value = ((2 * k + 1) * value - exponential) / (2.0 * large)
        return torch.where(z < TABLE_END, series, value)

    return {"boys": boys_tensor}


#: Names that generated kernels may call.
KERNEL_FUNCTIONS = {"boys": boys_kernel}
