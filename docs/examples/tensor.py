"""The diffusion tensor: a model of directions, with quantities that are derived from its parameters."""

from __future__ import annotations

import sympy as sp
import torch
from torch import Tensor

from bidsfit.models.common import signal_scale
from bidsfit.models.parameter import Derived, Parameter
from bidsfit.models.requirements import ValuesRequirement
from bidsfit.models.symbolic import SymbolicModel

S0, b, gx, gy, gz = sp.symbols("S0 b gx gy gz", real=True)
ELEMENTS = ("Dxx", "Dyy", "Dzz", "Dxy", "Dxz", "Dyz")
Dxx, Dyy, Dzz, Dxy, Dxz, Dyz = sp.symbols(ELEMENTS, real=True)

along = gx**2 * Dxx + gy**2 * Dyy + gz**2 * Dzz + 2 * (gx * gy * Dxy + gx * gz * Dxz + gy * gz * Dyz)
mean = (Dxx + Dyy + Dzz) / 3
size = Dxx**2 + Dyy**2 + Dzz**2 + 2 * (Dxy**2 + Dxz**2 + Dyz**2)


def element(name: str) -> Parameter:
    """A row of the parameter table."""
    return Parameter(
        name=name,
        label=name,
        unit="um^2/ms",
        bounds=(0.0, 4.0) if name[1] == name[2] else (-2.0, 2.0),
        latex=f"D_{{{name[1:]}}}",
        description=f"Element {name[1:]} of the diffusion tensor",
        display=(0.0, 3.0) if name[1] == name[2] else (-1.0, 1.0),
    )


def matrix(parameters: Tensor) -> Tensor:
    """The tensor as a matrix, from the parameters of one voxel (S0 first)."""
    _, xx, yy, zz, xy, xz, yz = parameters
    return torch.stack([xx, xy, xz, xy, yy, yz, xz, yz, zz]).reshape(3, 3)


def axial(parameters: Tensor) -> Tensor:
    """The largest eigenvalue."""
    return torch.linalg.eigvalsh(matrix(parameters))[2]


def radial(parameters: Tensor) -> Tensor:
    """The mean of the two others."""
    return torch.linalg.eigvalsh(matrix(parameters))[:2].mean()


def main_direction(parameters: Tensor) -> Tensor:
    """The eigenvector of the largest eigenvalue."""
    return torch.linalg.eigh(matrix(parameters)).eigenvectors[:, 2]


def diffusivity(name: str, latex: str, words: str, value: object) -> Derived:
    """A derived diffusivity."""
    return Derived(
        name=name,
        label=name,
        unit="um^2/ms",
        latex=latex,
        description=words,
        display=(0.0, 3.0),
        value=value,  # type: ignore[arg-type]
    )


MODEL = SymbolicModel(
    name="tensor",
    title="Diffusion tensor",
    description="Gaussian diffusion that differs between directions; eigenvalues and eigenvectors describe it.",
    parameters=(signal_scale(), *map(element, ELEMENTS)),
    variables=("b", "direction"),
    expression=S0 * sp.exp(-b * along),
    start="log-linear",
    derived=(
        Derived(
            name="FA",
            label="fa",
            latex=r"\mathrm{FA}",
            description="Fractional anisotropy",
            display=(0.0, 1.0),
            value=sp.sqrt(sp.Rational(3, 2) * (size - 3 * mean**2) / size),
        ),
        diffusivity("MD", r"\mathrm{MD}", "Mean diffusivity", mean),
        diffusivity("AD", r"\mathrm{AD}", "Axial diffusivity, the largest eigenvalue", axial),
        diffusivity("RD", r"\mathrm{RD}", "Radial diffusivity, the mean of the two smaller eigenvalues", radial),
        Derived(
            name="direction",
            label="direction",
            latex=r"\mathbf{e}_1",
            description="Main direction, the eigenvector of the largest eigenvalue",
            value=main_direction,
            axis=True,
        ),
    ),
    maximum_b=1500.0,  # kurtosis matters above
    requirements=(
        ValuesRequirement("b", 1, maximum=50, reason="S0 is fitted"),
        ValuesRequirement("b", 1, minimum=500, maximum=1500, directions=6, reason="the tensor has six elements"),
    ),
    references=("basser1994",),
)
