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


def _times_square(function: Callable[[int], sp.Expr], order: int) -> sp.Expr:
    r"""What is to :math:`t^2 P_l(t)` as ``function(l)`` is to the Legendre polynomial :math:`P_l(t)`."""
    above = sp.Rational((order + 1) * (order + 2), (2 * order + 1) * (2 * order + 3))
    below = sp.Rational(order * (order - 1), (2 * order - 1) * (2 * order + 1))
    lower = below * function(order - 2) if order else 0
    return above * function(order + 2) + (1 - above - below) * function(order) + lower


class watson(sp.Function):  # noqa: N801
    r"""Mean of the Legendre polynomial :math:`P_l(\cos\theta)` of even order l over a Watson distribution.

    The density of the distribution is proportional to :math:`e^{\kappa\cos^2\theta}`, and theta the angle to its main
    direction. The means are 1 for l = 0, and for other orders from 0 (isotropic, kappa = 0) to 1 (all along the main
    direction).
    """

    nargs = 2

    @classmethod
    def eval(cls, order: sp.Expr, concentration: sp.Expr) -> sp.Expr | None:
        return sp.S.One if order == 0 else None

    def fdiff(self, argindex: int = 2) -> sp.Expr:
        order, concentration = self.args
        if argindex != 2:
            raise ArgumentIndexError(self, argindex)
        square = _times_square(lambda n: watson(n, concentration), 0)
        return _times_square(lambda n: watson(n, concentration), int(order)) - square * self


class stick(sp.Function):  # noqa: N801
    r"""Coefficient :math:`\int_0^1 P_l(t) e^{-z t^2} dt` of the signal of a stick, for the even order l.

    The signal of a stick at an angle of cosine t to the gradient, z being the b-value times the diffusivity along it,
    is :math:`e^{-z t^2}`, the sum over even l of :math:`(2l+1)` times these coefficients times :math:`P_l(t)`.
    """

    nargs = 2

    def fdiff(self, argindex: int = 2) -> sp.Expr:
        order, z = self.args
        if argindex != 2:
            raise ArgumentIndexError(self, argindex)
        return -_times_square(lambda n: stick(n, z), int(order))


class superlorentzian(sp.Function):  # noqa: N801
    r"""Super-Lorentzian line :math:`g(x)` of macromolecules, and :math:`(x\,d/dx)^n g(x)` for the order n.

    .. math:: g(x) = \int_0^1 \sqrt{\frac{2}{\pi}} \frac{1}{|3u^2-1|}
        \exp\left(-2\left(\frac{x}{3u^2-1}\right)^2\right) du

    for x > 0, the offset (angular frequency) times T2 of the macromolecules; the line itself is T2 times g. Towards
    x = 0 it grows like a logarithm (Morrison and Henkelman, Magnetic Resonance in Medicine 1995;33:475-482).
    """

    nargs = 2

    def fdiff(self, argindex: int = 2) -> sp.Expr:
        n, x = self.args
        if argindex != 2:
            raise ArgumentIndexError(self, argindex)
        return superlorentzian(n + 1, x) / x


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
#: The highest order of the coefficients of sticks that compiled code tabulates.
HIGHEST = 14


def _stick_series() -> NDArray[np.float64]:
    """The same of `stick`, shape (orders / 2, j, power), by quadrature that is exact to rounding."""
    nodes, weights = np.polynomial.legendre.leggauss(64)
    t = (nodes + 1) / 2
    powers = np.stack([t ** (2 * k) / math.factorial(k) for k in range(TERMS)])
    legendre = np.stack([np.polynomial.legendre.Legendre.basis(n)(t) for n in range(0, HIGHEST + 1, 2)])
    decay = np.exp(-np.arange(NODES * TABLE_END + 1)[:, None] / NODES * t**2)
    found = np.einsum("lt,jt,kt,t->ljk", legendre, decay, powers, weights / 2, optimize=True)
    return np.ascontiguousarray(found)  # numba keeps no function in a file that reads an array of another layout


_STICK = _stick_series()
#: The continued fraction of `watson` begins so many orders above. For concentrations from -64 to 32, what is left out
#: is below the rounding error.
DEPTH = 60


#: The super-Lorentzian line is tabulated over ln x between these, at so many nodes per unit, in so many terms.
LINE_START, LINE_END, LINE_NODES, LINE_TERMS = -9.0, 2.5, 16, 12


def _line_series(orders: int) -> NDArray[np.float64]:
    r"""Taylor series of `superlorentzian` in ln x, shape (orders, j, power).

    With :math:`|3u^2-1| = 1/\cosh^2 s` below the singularity and :math:`1/\sinh^2 s` above it,

    .. math:: g(x) = \sqrt{\frac{2}{3\pi}} \left(\int_0^\infty e^{-2x^2\cosh^4 s} ds
        + \int_{s_1}^\infty e^{-2x^2\sinh^4 s} ds\right), \quad \sinh s_1 = \sqrt{1/2}.

    The integrands are even and analytic, so that the trapezoidal rule finds the integrals from 0 to infinity to
    rounding; the part from 0 to s1, which is subtracted, is found by that of Gauss.
    """
    step, first = 1 / 32, math.asinh(math.sqrt(0.5))
    s, (nodes, gauss) = np.arange(0, 6.25, step), np.polynomial.legendre.leggauss(32)
    even = np.where(s > 0, step, step / 2)
    powers = np.concatenate([np.cosh(s) ** 4, np.sinh(s) ** 4, np.sinh(first * (nodes + 1) / 2) ** 4])
    weights = np.concatenate([even, even, -first * gauss / 2]) * math.sqrt(2 / (3 * math.pi))
    x = np.exp(LINE_START + np.arange(int((LINE_END - LINE_START) * LINE_NODES) + 1) / LINE_NODES)
    exponent = np.minimum(2 * x[:, None] ** 2 * powers, 700.0)
    term, moments = np.exp(-exponent) * weights, list[NDArray[np.float64]]()
    found, factor = [], np.polynomial.Polynomial([1.0])  # of the exponent, times exp(-exponent)
    for _ in range(orders - 1 + LINE_TERMS):
        moments.append(term.sum(axis=1))
        term *= exponent
        found.append(np.asarray(factor.coef, dtype=float) @ np.array(moments))
        factor = np.polynomial.Polynomial([0.0, 2.0]) * (factor.deriv() - factor)  # x d/dx
    factorials = [math.factorial(k) for k in range(LINE_TERMS)]
    return np.array([np.transpose(found[n : n + LINE_TERMS]) / factorials for n in range(orders)])


_LINE = _line_series(2)


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


@numba.njit(inline="never")
def watson_kernel(n: int, concentration: float) -> float:
    r"""`watson` in double precision.

    The integrals :math:`G_l = \int_0^1 P_l(t) e^{\kappa t^2} dt` obey a recursion of three terms, of which their
    ratios :math:`G_l / G_{l-2}` are a continued fraction.
    """
    ratio, value = 0.0, 1.0
    for k in range(n + DEPTH, 0, -2):
        above = (2 * k + 1) * (1 - 2 * concentration / ((2 * k + 3) * (2 * k - 1)))
        ratio = 2 * concentration * (k - 1) / (2 * k - 1) / (above + 2 * concentration * (k + 2) / (2 * k + 3) * ratio)
        if k <= n:
            value *= ratio
    return value


@numba.njit(inline="never")
def stick_kernel(n: int, z: float) -> float:
    """`stick` in double precision for z >= 0; the sum of a Taylor series of a table where it reaches."""
    if 0 <= z < TABLE_END and n <= HIGHEST:
        node = int(NODES * z + 0.5)
        below = node / NODES - z
        value = _STICK[n // 2, node, TERMS - 1]
        for k in range(TERMS - 2, -1, -1):
            value = value * below + _STICK[n // 2, node, k]
        return value
    return boys_kernel(0, z) * watson_kernel(n, -z)


@numba.njit(inline="never")
def superlorentzian_kernel(n: int, x: float) -> float:
    """`superlorentzian` of the orders 0 and 1 in double precision.

    Below its table (x < 1e-4) the logarithm is continued, to 1e-8; beyond it (x > 12) nothing is left.
    """
    place = LINE_NODES * (math.log(x) - LINE_START)
    if place >= LINE_NODES * (LINE_END - LINE_START):
        return 0.0
    if place < 0:
        return _LINE[n, 0, 0] + (_LINE[n, 0, 1] * place / LINE_NODES if n == 0 else 0.0)
    node = int(place + 0.5)
    above = (place - node) / LINE_NODES
    value = _LINE[n, node, LINE_TERMS - 1]
    for k in range(LINE_TERMS - 2, -1, -1):
        value = value * above + _LINE[n, node, k]
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

    def watson_tensor(n: int, concentration: Tensor) -> Tensor:
        """The continued fraction of the compiled function."""
        ratio, value = torch.zeros_like(concentration), torch.ones_like(concentration)
        for k in range(n + DEPTH, 0, -2):
            above = (2 * k + 1) * (1 - 2 * concentration / ((2 * k + 3) * (2 * k - 1)))
            lower = above + 2 * concentration * (k + 2) / (2 * k + 3) * ratio
            ratio = 2 * concentration * (k - 1) / (2 * k - 1) / lower
            if k <= n:
                value = value * ratio
        return value

    def stick_tensor(n: int, z: Tensor) -> Tensor:
        return boys_tensor(0, z) * watson_tensor(n, -z)

    @cache
    def line(n: int, device: torch.device, dtype: torch.dtype) -> Tensor:
        return torch.tensor(_line_series(n + 1)[n], device=device, dtype=dtype)

    def superlorentzian_tensor(n: int, x: Tensor) -> Tensor:
        """The Taylor series of the table of the compiled function."""
        terms, place = line(n, x.device, x.dtype), LINE_NODES * (torch.log(x) - LINE_START)
        inside = place.clamp(0.0, len(terms) - 1)
        node = inside.detach().round().long()
        above = (inside - node) / LINE_NODES
        series = terms[:, LINE_TERMS - 1][node]
        for k in range(LINE_TERMS - 2, -1, -1):
            series = series * above + terms[:, k][node]
        if n == 0:
            series = series + terms[0, 1] * place.clamp(max=0.0) / LINE_NODES
        return torch.where(place < len(terms) - 1, series, 0.0)

    return {
        "boys": boys_tensor,
        "watson": watson_tensor,
        "stick": stick_tensor,
        "superlorentzian": superlorentzian_tensor,
    }


#: Names that generated kernels may call.
KERNEL_FUNCTIONS = {
    "boys": boys_kernel,
    "watson": watson_kernel,
    "stick": stick_kernel,
    "superlorentzian": superlorentzian_kernel,
}
