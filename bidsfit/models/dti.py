"""Diffusion tensor imaging: Gaussian diffusion that differs between directions."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import sympy as sp
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from bidsfit.models.common import signal_scale
from bidsfit.models.parameter import Derived, Parameter, tensor
from bidsfit.models.priors import log_normal
from bidsfit.models.requirements import ValuesRequirement
from bidsfit.models.symbolic import SymbolicModel
from bidsfit.rotation import rotated_tensor

if TYPE_CHECKING:
    from torch import Tensor

S0, b, gx, gy, gz = sp.symbols("S0 b gx gy gz", real=True)
ELEMENTS = ("Dxx", "Dyy", "Dzz", "Dxy", "Dxz", "Dyz")
Dxx, Dyy, Dzz, Dxy, Dxz, Dyz = sp.symbols(ELEMENTS, real=True)

#: Kurtosis bends the decay above this b-value, s/mm^2.
MAXIMUM_B = 1500.0
#: Mean diffusivity of tissue and fluid.
TISSUE = log_normal(0.4, 3.2)
#: Eigenvalues that are negative by less are so by rounding to the 32 bits of an image, um^2/ms.
ROUNDING = 1e-6

along = gx**2 * Dxx + gy**2 * Dyy + gz**2 * Dzz + 2 * (gx * gy * Dxy + gx * gz * Dxz + gy * gz * Dyz)
mean = (Dxx + Dyy + Dzz) / 3
#: The sum of the squared differences between eigenvalues, without a difference of large numbers.
spread = (Dxx - Dyy) ** 2 + (Dyy - Dzz) ** 2 + (Dzz - Dxx) ** 2 + 6 * (Dxy**2 + Dxz**2 + Dyz**2)
square = Dxx**2 + Dyy**2 + Dzz**2 + 2 * (Dxy**2 + Dxz**2 + Dyz**2)


def tensors(parameters: NDArray[np.float64]) -> NDArray[np.float64]:
    """Diffusion tensors, shape (..., 3, 3), of parameters (..., 7), S0 first; more parameters may follow."""
    _, xx, yy, zz, xy, xz, yz = np.moveaxis(parameters, -1, 0)[:7]
    return np.stack([xx, xy, xz, xy, yy, yz, xz, yz, zz], axis=-1).reshape(*xx.shape, 3, 3)


def positive(parameters: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Whether no diffusivity is negative along any direction, which keeps FA at most 1; shape (n,)."""
    return np.asarray(np.linalg.eigvalsh(tensors(parameters))[:, 0] >= -ROUNDING)


def diffusivities(directions: NDArray[np.float64]) -> NDArray[np.float64]:
    """Matrix (n, 6) that gives the diffusivities along unit vectors (n, 3) from the elements of the tensor."""
    x, y, z = directions.T
    return np.column_stack([x * x, y * y, z * z, 2 * x * y, 2 * x * z, 2 * y * z])


def draw(n: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Draw tensors of tissue, shape (n, 6), in all orientations.

    The mean diffusivity is drawn as that of tissue for other models, FA uniformly, and the shape between oblate and
    prolate. A few are oblate with an FA that only prolate tensors can have; they have a negative eigenvalue.
    """
    fa, around = rng.random(n), rng.uniform(0, np.pi / 3, n)
    size = 2 * fa / np.sqrt(3 - 2 * fa**2)  # largest deviation of an eigenvalue from the mean, relative to that
    offsets = np.cos(around[:, None] + 2 * np.pi / 3 * np.arange(3))
    values = TISSUE.sample(n, rng)[:, None] * (1 + size[:, None] * offsets)
    frames = Rotation.random(n, rng=rng).as_matrix()
    turned = np.einsum("nij,nj,nkj->nik", frames, values, frames)
    return turned[:, [0, 1, 2, 0, 0, 1], [0, 1, 2, 1, 2, 2]]


def rotated(parameters: NDArray[np.float64], rotation: Rotation) -> NDArray[np.float64]:
    """Parameters (n, n_parameters) of tissue that is turned; S0 first, then the elements; more may follow."""
    found = parameters.copy()
    found[:, 1:7] = rotated_tensor(parameters[:, 1:7], [name[1:] for name in ELEMENTS], rotation)
    return found


def matrix(parameters: Tensor) -> Tensor:
    """The tensor as a matrix, from the parameters of one voxel (S0 first)."""
    import torch

    _, xx, yy, zz, xy, xz, yz = parameters[:7]
    return torch.stack([xx, xy, xz, xy, yy, yz, xz, yz, zz]).reshape(3, 3)


def eigenvectors(parameters: Tensor) -> Tensor:
    """Axes of the tensor of one voxel as columns, that of the largest eigenvalue last."""
    import torch

    return torch.linalg.eigh(matrix(parameters)).eigenvectors


def _axial(parameters: Tensor) -> Tensor:
    import torch

    return torch.linalg.eigvalsh(matrix(parameters))[2]


def _radial(parameters: Tensor) -> Tensor:
    import torch

    return torch.linalg.eigvalsh(matrix(parameters))[:2].mean()


def _main_direction(parameters: Tensor) -> Tensor:
    return eigenvectors(parameters)[:, 2]


def _element(name: str) -> Parameter:
    diagonal = name[1] == name[2]
    return Parameter(
        name=name,
        label=name,
        unit="um^2/ms",
        bounds=(0.0, 4.0) if diagonal else (-2.0, 2.0),
        latex=f"D_{{{name[1:]}}}",
        description=f"Element {name[1:]} of the diffusion tensor, in the axes of the gradient directions",
        display=(0.0, 3.0) if diagonal else (-1.0, 1.0),
        auxiliary=True,
    )


def _diffusivity(name: str, description: str, value: sp.Expr | Callable[[Tensor], Tensor]) -> Derived:
    return Derived(
        name=name,
        label=name.lower(),
        unit="um^2/ms",
        latex=rf"\mathrm{{{name}}}",
        description=description,
        display=(0.0, 3.0),
        value=value,
    )


DTI = SymbolicModel(
    name="dti",
    title="Diffusion tensor imaging",
    description=(
        "Gaussian diffusion whose diffusivity differs between directions: a symmetric tensor, whose eigenvalues are "
        "the diffusivities along its eigenvectors."
    ),
    parameters=(signal_scale(), *map(_element, ELEMENTS)),
    variables=("b", "direction"),
    expression=S0 * sp.exp(-b * along),
    start="log-linear",
    plausible=positive,
    draw=draw,
    rotated=rotated,
    derived=(
        tensor(("Dxx", "Dxy", "Dxz", "Dyy", "Dyz", "Dzz")),
        Derived(
            name="FA",
            label="fa",
            latex=r"\mathrm{FA}",
            description="Fractional anisotropy, from 0 (isotropic) to 1 (along one direction alone)",
            display=(0.0, 1.0),
            value=sp.sqrt(spread / square / 2),
        ),
        _diffusivity("MD", "Mean diffusivity", mean),
        _diffusivity("AD", "Axial diffusivity, the largest eigenvalue", _axial),
        _diffusivity("RD", "Radial diffusivity, the mean of the two smaller eigenvalues", _radial),
        Derived(
            name="direction",
            label="direction",
            latex=r"\mathbf{e}_1",
            description="Main direction, the eigenvector of the largest eigenvalue",
            value=_main_direction,
            axis=True,
            weight="FA",
        ),
    ),
    maximum_b=MAXIMUM_B,
    requirements=(
        ValuesRequirement("b", 1, maximum=50, reason="S0 is fitted"),
        ValuesRequirement(
            "b",
            1,
            minimum=500,
            maximum=MAXIMUM_B,
            directions=6,
            reason="a tensor has six elements, and noise hides them below",
        ),
    ),
    references=("basser1994", "basser1996"),
)
