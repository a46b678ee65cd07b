"""Special functions against high-precision arithmetic and quadrature."""

from __future__ import annotations

import itertools

import mpmath
import numpy as np
import pytest
import sympy as sp
import torch
from scipy.integrate import quad
from scipy.special import hyp1f1
from sympy.core.function import ArgumentIndexError

from bidsfit.models.functions import (
    LINE_END,
    LINE_NODES,
    LINE_START,
    NODES,
    TABLE_END,
    boys,
    boys_kernel,
    stick,
    stick_kernel,
    superlorentzian,
    superlorentzian_kernel,
    torch_functions,
    watson,
    watson_kernel,
)

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


def line(x: float) -> float:
    """The super-Lorentzian by adaptive quadrature on both sides of the magic angle, where the integrand is flat."""
    magic = 1 / np.sqrt(3)

    def integrand(u):
        y = abs(3 * u**2 - 1)
        return np.sqrt(2 / np.pi) / y * np.exp(-2 * (x / y) ** 2) if y > x / 20 else 0.0

    width = x / (2 * np.sqrt(3)) * np.array([0.1, 0.5, 1, 3, 10, 100])
    places = np.concatenate([[0, magic, 1], magic - width, magic + width])
    ends = np.sort(places[(places >= 0) & (places <= 1)])
    return sum(quad(integrand, a, b, epsabs=1e-14, epsrel=1e-13)[0] for a, b in itertools.pairwise(ends))


class TestSuperLorentzian:
    places = (1.3e-4, 1e-3, 0.01, 0.0631, 0.5, 1.0, 2.7, 6.0, 12.1)

    def test_it_is_the_integral_over_orientations(self):
        tensor = torch.tensor(self.places, dtype=torch.float64)
        expected = np.array([line(x) for x in self.places])
        found = np.array([superlorentzian_kernel(0, x) for x in self.places])
        assert found == pytest.approx(expected, rel=1e-12, abs=1e-15)
        assert torch_functions()["superlorentzian"](0, tensor).numpy() == pytest.approx(found, abs=1e-15)

    def test_its_wing_follows_from_all_molecules_along_the_field(self):
        """u near 1, where the line is widest: an expansion of the integral, to a tenth at this offset."""
        x = 7.0
        assert superlorentzian_kernel(0, x) == pytest.approx(
            np.exp(-(x**2) / 2) / (np.sqrt(2 * np.pi) * 3 * x**2), rel=0.1
        )

    def test_it_has_no_seam_and_a_finite_slope(self):
        middle = LINE_START + 40.5 / LINE_NODES
        for seam, jump in ((LINE_START, 1e-8), (middle, 1e-14), (LINE_END, 1e-14)):
            for n in (0, 1):
                below, above = (superlorentzian_kernel(n, np.exp(seam + side)) for side in (-1e-12, 1e-12))
                assert below == pytest.approx(above, abs=max(jump, 1e-11))
        x = sp.Symbol("x", real=True)
        slope = sp.lambdify(x, sp.diff(superlorentzian(0, x), x), [{"superlorentzian": superlorentzian_kernel}])
        for place in (1e-5, 0.01, 0.3, 3.0):
            tensor = torch.tensor(place, dtype=torch.float64, requires_grad=True)
            torch_functions()["superlorentzian"](0, tensor).backward()
            near = [superlorentzian_kernel(0, place * (1 + side)) for side in (-1e-5, 1e-5)]
            assert slope(place) == pytest.approx((near[1] - near[0]) / (2e-5 * place), rel=1e-6)
            assert float(tensor.grad) == pytest.approx(slope(place), rel=1e-9)
        with pytest.raises(ArgumentIndexError):
            superlorentzian(0, x).fdiff(1)
