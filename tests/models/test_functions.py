"""Special functions against high-precision arithmetic and quadrature."""

from __future__ import annotations

import mpmath
import numpy as np
import pytest
import sympy as sp
from scipy.special import hyp1f1
from sympy.core.function import ArgumentIndexError

from bidsfit.models.functions import NODES, TABLE_END, boys, boys_kernel, stick, stick_kernel, watson, watson_kernel

Z = np.unique(np.concatenate([[0.0], np.geomspace(1e-12, 1e3, 120), np.linspace(0.05, 8, 160)]))


def exact(n: int, z: float) -> float:
    with mpmath.workdps(40):
        return float(mpmath.hyp1f1(n + mpmath.mpf(1) / 2, n + mpmath.mpf(3) / 2, -mpmath.mpf(z)) / (2 * n + 1))


@pytest.mark.parametrize("n", range(6))
def test_kernel_is_exact(n):
    found = np.array([boys_kernel(n, z) for z in Z])
    assert found == pytest.approx(np.array([exact(n, z) for z in Z]), rel=1e-14, abs=0)
    moderate = Z[Z < 100]
    assert found[Z < 100] == pytest.approx(hyp1f1(n + 0.5, n + 1.5, -moderate) / (2 * n + 1), rel=1e-12)


@pytest.mark.parametrize("n", range(6))
def test_kernel_has_no_seam(n):
    """Between the nodes of its table, at the end of it, and between series and recursion."""
    limits = (0.5 / NODES, 17.5 / NODES, TABLE_END - 0.5 / NODES, TABLE_END, 0.5 + n, 1 + n, 2 + n)
    seams = [limit * (1 + side * 1e-15) for limit in limits for side in (-1, 1)]
    for z in seams:
        assert boys_kernel(n, z) == pytest.approx(exact(n, z), rel=1e-14)


def test_derivative_is_the_next_order():
    z, n = sp.Symbol("z", real=True), 0
    assert sp.diff(boys(n, z), z) == -boys(1, z)
    assert sp.diff(boys(n, 3 * z), z, 2) == 9 * boys(2, 3 * z)
    with pytest.raises(ArgumentIndexError):
        boys(sp.Symbol("n"), z).fdiff(1)


def test_the_papers_print_it_with_erf():
    z = sp.Symbol("z", positive=True)
    assert sp.simplify(boys(0, z).rewrite(sp.erf) - sp.sqrt(sp.pi) * sp.erf(sp.sqrt(z)) / (2 * sp.sqrt(z))) == 0
    assert boys(1, z).rewrite(sp.erf) == boys(1, z)


def test_symbolic_value_is_numeric():
    for n, z in ((0, 0), (0, 2), (1, sp.Rational(1, 3)), (3, 40)):
        assert float(boys(n, z).evalf()) == pytest.approx(exact(n, float(z)), rel=1e-12)


def moment(order: int, exponent: float) -> float:
    """The integral of the Legendre polynomial times exp(exponent t^2) from 0 to 1, by quadrature."""
    nodes, weights = np.polynomial.legendre.leggauss(100)
    t = (nodes + 1) / 2
    return float(np.polynomial.legendre.Legendre.basis(order)(t) * np.exp(exponent * t**2) @ weights / 2)


@pytest.mark.parametrize("order", [0, 2, 8, 14, 16])
def test_watson_and_stick_are_integrals_of_legendre_polynomials(order):
    for concentration in (0.0, 1e-3, 0.7, 5.0, 31.8):
        expected = moment(order, concentration) / moment(0, concentration)
        assert watson_kernel(order, concentration) == pytest.approx(expected, abs=1e-13)
    for z in (0.0, 0.01, 0.0312, 1.7, 31.9, 32.1, 60.0):
        assert stick_kernel(order, z) == pytest.approx(moment(order, -z), abs=1e-14)


def test_derivatives_of_watson_and_stick_are_of_neighbouring_orders():
    x = sp.Symbol("x", real=True)
    for function, kernel in ((watson, watson_kernel), (stick, stick_kernel)):
        for order in (0, 2, 6):
            slope = sp.lambdify(x, sp.diff(function(order, x), x), [{"watson": watson_kernel, "stick": stick_kernel}])
            numeric = (kernel(order, 1.3 + 1e-5) - kernel(order, 1.3 - 1e-5)) / 2e-5
            assert float(slope(1.3)) == pytest.approx(numeric, abs=1e-9)
        with pytest.raises(ArgumentIndexError):
            function(2, x).fdiff(1)
