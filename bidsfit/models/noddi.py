"""Neurite orientation dispersion and density imaging (NODDI)."""

from __future__ import annotations

import numpy as np
import sympy as sp
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from bidsfit.models.common import signal_scale
from bidsfit.models.functions import HIGHEST, stick, watson
from bidsfit.models.parameter import Parameter, orientation
from bidsfit.models.requirements import ValuesRequirement
from bidsfit.models.symbolic import SymbolicModel
from bidsfit.rotation import rotated_axis

#: Diffusivity along neurites and of free water, um^2/ms.
ALONG, FREE_WATER = sp.Rational(17, 10), 3
#: Up to this b-value (s/mm^2) the series of the dispersed sticks, cut after the order `HIGHEST`, is exact to 6e-5 of S0
#: for the least dispersion that a fit can find (to 1e-5 up to 3000, and to 1e-7 for a dispersion index above 0.1).
MAXIMUM_B = 4000.0
LEAST_DISPERSION = 0.02

S0, NDI, ODI, FISO, b = sp.symbols("S0 NDI ODI FISO b", real=True)
ANGLES, DIRECTION = orientation("direction", "the main direction of the neurites")


def _fraction(name: str, label: str, description: str, latex: str, start: tuple[float, ...]) -> Parameter:
    return Parameter(
        name=name,
        label=label,
        unit="1",
        bounds=(LEAST_DISPERSION if name == "ODI" else 0.0, 1.0),
        start=start,
        latex=latex,
        description=description,
        display=(0.0, 1.0),
    )


def _signal() -> sp.Expr:
    r"""The signal of three compartments (Zhang et al. 2012, eqs. 1 to 9).

    Sticks along a Watson distribution of directions are a series of Legendre polynomials of the angle between its main
    direction and the gradient, whose coefficients are products of those of the distribution and of a stick: the
    convolution on the sphere. The extra-cellular space is Gaussian, with the mean of its tensor over the distribution.
    """
    gradient = sp.Matrix(sp.symbols("gx gy gz", real=True))
    square, y = gradient.dot(DIRECTION.value) ** 2, sp.Symbol("y")
    kappa = 1 / sp.tan(sp.pi * ODI / 2)
    sticks = sp.S.Zero
    for order in range(0, HIGHEST + 1, 2):
        polynomial = sp.horner(sp.expand(sp.legendre(order, sp.sqrt(y)))).subs(y, square)
        sticks += (2 * order + 1) * watson(order, kappa) * stick(order, b * ALONG) * polynomial
    aligned = watson(2, kappa)
    outside = sp.exp(-b * ALONG * (1 - NDI * (2 + aligned) / 3 + NDI * aligned * square))
    return S0 * ((1 - FISO) * (NDI * sticks + (1 - NDI) * outside) + FISO * sp.exp(-b * FREE_WATER))


def rotated(parameters: NDArray[np.float64], rotation: Rotation) -> NDArray[np.float64]:
    """Parameters (n, 6) of tissue that is turned: fractions and dispersion stay."""
    return np.column_stack([parameters[:, :4], rotated_axis(parameters[:, 4:], rotation)])


NODDI = SymbolicModel(
    name="noddi",
    title="Neurite orientation dispersion and density imaging",
    description=(
        "Sticks (neurites) whose directions follow a Watson distribution with concentration κ, an extra-cellular space "
        "around them whose transverse diffusivity follows tortuosity, (1 - NDI) 1.7 µm²/ms, and free water (3 µm²/ms). "
        "The diffusivity along neurites is fixed at 1.7 µm²/ms, and not fitted. ODI = 2/π arctan(1/κ). In "
        "the equation, angle brackets are means over directions u whose density is proportional to exp(κ (u·n)²); n is "
        "the main direction, g that of the gradient."
    ),
    parameters=(
        signal_scale(),
        _fraction(
            "NDI",
            "icvf",
            "Neurite density index, the fraction of the tissue (free water left out) that is neurites",
            r"\mathrm{NDI}",
            (0.15, 0.35, 0.55, 0.75, 0.95),
        ),
        _fraction(
            "ODI",
            "od",
            "Orientation dispersion index, from 0 (all neurites along one direction) to 1 (along all alike)",
            r"\mathrm{ODI}",
            (0.05, 0.15, 0.3, 0.5, 0.8),
        ),
        _fraction("FISO", "isovf", "Volume fraction of free water", r"f_\mathrm{iso}", (0.0, 0.15, 0.4, 0.7, 0.95)),
        *ANGLES,
    ),
    variables=("b", "direction"),
    expression=_signal(),
    equation=(
        r"S = S_0 \left[(1 - f_\mathrm{iso}) \left(\mathrm{NDI} \left\langle e^{-1.7 b (\mathbf{u} \cdot \mathbf{g})^2}"
        r" \right\rangle + (1 - \mathrm{NDI})\, e^{-1.7 b \left(1 - \mathrm{NDI} \left\langle 1 - (\mathbf{u} \cdot"
        r" \mathbf{g})^2 \right\rangle\right)}\right) + f_\mathrm{iso}\, e^{-3 b}\right]"
    ),
    derived=(DIRECTION,),
    rotated=rotated,
    maximum_b=MAXIMUM_B,
    constants={"ParallelDiffusivity": 1.7e-3, "FreeWaterDiffusivity": FREE_WATER * 1e-3},
    requirements=(
        ValuesRequirement("b", 1, maximum=100, reason="S0 needs an image with little or no diffusion weighting"),
        ValuesRequirement(
            "b",
            2,
            minimum=500,
            maximum=MAXIMUM_B,
            directions=12,
            reason="one shell cannot tell free water and extra-cellular space from the dispersion of neurites",
        ),
    ),
    references=("zhang2012",),
    variant_of="smt3",
)
