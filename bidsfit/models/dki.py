"""Diffusion kurtosis imaging: the tensor, and how far diffusion is from Gaussian along every direction."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import cache
from math import factorial, prod
from typing import TYPE_CHECKING

import numpy as np
import sympy as sp
from numpy.typing import NDArray
from scipy.integrate import lebedev_rule
from scipy.spatial.transform import Rotation

from bidsfit.models import dti
from bidsfit.models.parameter import Derived, Parameter
from bidsfit.models.requirements import ValuesRequirement
from bidsfit.models.symbolic import SymbolicModel
from bidsfit.rotation import rotated_tensor

if TYPE_CHECKING:
    from torch import Tensor

#: The elements of the symmetric tensor of fourth order that differ, in the order of DIPY.
AXES = (
    "xxxx", "yyyy", "zzzz", "xxxy", "xxxz", "xyyy", "yyyz", "xzzz", "yzzz", "xxyy", "xxzz", "yyzz", "xxyz", "xyyz",
    "xyzz",
)  # fmt: skip
ELEMENTS = tuple(f"V{axes}" for axes in AXES)
#: How often each occurs in the tensor.
TIMES = tuple(factorial(4) // prod(map(factorial, Counter(axes).values())) for axes in AXES)

#: Which of them belongs to each two elements of the diffusion tensor.
PAIRS = [[AXES.index("".join(sorted(one[1:] + other[1:]))) for other in dti.ELEMENTS] for one in dti.ELEMENTS]

#: The series in b is cut after its second term, which holds up to about this b-value, s/mm^2.
MAXIMUM_B = 3000.0
#: Degree to which the mean over the sphere is exact. The mean kurtosis of a tensor whose smallest diffusivity is a
#: twentieth of the largest is then right to 1e-5.
DEGREE = 59
#: Degree of the directions along which a fit keeps diffusivity and kurtosis from being negative: 97 of half a sphere.
CONE_DEGREE = 23
#: Directions perpendicular to the main one.
AROUND = 16
#: Smallest diffusivity along a direction (um^2/ms) that the kurtosis is divided by, and range of the kurtosis: without
#: them, noise where a diffusivity vanishes makes its mean over the directions infinite.
LEAST, RANGE = 1e-3, (-2.0, 10.0)
#: Kurtosis that is negative by less is so by rounding to the 32 bits of an image.
ROUNDING = 1e-4

symbols = sp.symbols(ELEMENTS, real=True)
#: The kurtosis of the direction of a gradient, times the square of its diffusivity.
excess = sum(
    times * symbol * prod(sp.Symbol(f"g{axis}", real=True) for axis in axes)
    for times, symbol, axes in zip(TIMES, symbols, AXES, strict=True)
)


def _excesses(directions: NDArray[np.float64]) -> NDArray[np.float64]:
    """Matrix (n, 15) that gives the kurtosis along unit vectors (n, 3), times the square of the diffusivity."""
    along = dict(zip("xyz", directions.T, strict=True))
    return np.column_stack([n * prod(along[axis] for axis in axes) for n, axes in zip(TIMES, AXES, strict=True)])


def _within_range(diffusivity: Tensor, excess: Tensor) -> Tensor:
    """Kurtosis from the diffusivity and the kurtosis times its square."""
    import torch

    return torch.clamp(excess / torch.clamp(diffusivity, min=LEAST) ** 2, *RANGE)


def _along(parameters: Tensor, directions: Tensor) -> Tensor:
    """Kurtosis along unit vectors (n, 3), from the parameters of one voxel (S0 first); shape (n,)."""
    import torch

    x, y, z = directions.unbind(-1)
    squares = torch.stack([x * x, y * y, z * z, 2 * x * y, 2 * x * z, 2 * y * z], -1)
    excess = torch.sum((squares @ parameters[7:][torch.tensor(PAIRS)]) * squares, -1)
    return _within_range(squares @ parameters[1:7], excess)


@cache
def _sphere(degree: int = DEGREE) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Directions (n, 3) of half a sphere, and their weights in its mean."""
    points, weights = lebedev_rule(degree)
    half = np.lexsort(np.round(points, 12))[points.shape[1] // 2 :]  # of each pair of opposite points, one
    return points.T[half], weights[half] / weights[half].sum()


@cache
def _over_sphere() -> tuple[NDArray[np.float64], ...]:
    """Diffusivities (n, 6) and excesses (n, 15) along the directions of `_sphere`, and the weights of these."""
    directions, weights = _sphere()
    return dti.diffusivities(directions), _excesses(directions), weights


def _mean(parameters: Tensor) -> Tensor:
    import torch

    diffusivities, excesses, weights = map(torch.from_numpy, _over_sphere())
    return weights @ _within_range(diffusivities @ parameters[1:7], excesses @ parameters[7:])


def _axial(parameters: Tensor) -> Tensor:
    return _along(parameters, dti.eigenvectors(parameters)[None, :, 2])[0]


def _radial(parameters: Tensor) -> Tensor:
    import torch

    angles = torch.arange(AROUND, dtype=parameters.dtype) * (np.pi / AROUND)
    around = torch.stack([torch.cos(angles), torch.sin(angles)], -1)
    return _along(parameters, around @ dti.eigenvectors(parameters)[:, :2].T).mean()


@cache
def cone() -> NDArray[np.float64]:
    """Diffusivity and kurtosis times its square, neither negative, along directions of half a sphere; shape (m, 22)."""
    directions = _sphere(CONE_DEGREE)[0]
    diffusivity = np.pad(dti.diffusivities(directions), ((0, 0), (1, len(AXES))))
    return np.vstack([diffusivity, np.pad(_excesses(directions), ((0, 0), (7, 0)))])


def rotated(parameters: NDArray[np.float64], rotation: Rotation) -> NDArray[np.float64]:
    """Parameters (n, 22) of tissue that is turned."""
    found = dti.rotated(parameters, rotation)
    found[:, 7:] = rotated_tensor(parameters[:, 7:], AXES, rotation)
    return found


def plausible(parameters: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Whether no diffusivity is negative, nor the mean, axial and radial kurtosis; shape (n,)."""
    found = dti.positive(parameters)
    values = DKI.derivation.values(parameters[found], ("MK", "AK", "RK"))
    found[found] = np.all([kurtosis >= -ROUNDING for kurtosis in values.values()], axis=0)
    return found


def draw(n: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Draw tensors of tissue and their kurtosis, shape (n, 21), in all orientations.

    Tissue is simulated as two compartments of Gaussian diffusion: one along fibres, and one around them whose main axis
    is turned by up to 45 degrees against the first. Its kurtosis along a direction is three times the variance of their
    diffusivities over the square of the mean (Jensen and Helpern, NMR in Biomedicine 2010;23:698-710), which is nowhere
    negative.
    """
    share = rng.uniform(0, 0.7, n)
    along, around = rng.uniform(0.5, 3.0, (2, n)), rng.uniform([[0.0], [0.3]], [[0.2], [1.0]], (2, n))
    frames = Rotation.random(n, rng=rng)
    tilted = Rotation.from_rotvec(rng.uniform(0, np.pi / 4, n)[:, None] * [1.0, 0, 0]) * frames
    fibres, outside = (
        _turned(np.column_stack([first, first * second, first * second]), frame)
        for first, second, frame in ((along[0], around[0], frames), (along[1], around[1], tilted))
    )
    return of_compartments(share, fibres, outside)


def of_compartments(
    share: NDArray[np.float64], first: NDArray[np.float64], second: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Elements (n, 21) of two compartments of Gaussian diffusion with tensors (n, 3, 3); shares (n,) of the first."""
    mean = share[:, None, None] * first + (1 - share)[:, None, None] * second
    difference, variance = first - second, share * (1 - share)
    elements = [mean[:, i, j] for i, j in ((0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2))]
    for axes in AXES:
        i, j, k, m = ("xyz".index(axis) for axis in axes)
        pairs = ((i, j, k, m), (i, k, j, m), (i, m, j, k))
        elements.append(variance * sum(difference[:, a, b] * difference[:, c, d] for a, b, c, d in pairs))
    return np.column_stack(elements)


def _turned(values: NDArray, frames: Rotation) -> NDArray:
    axes = frames.as_matrix()
    return np.asarray(np.einsum("nij,nj,nkj->nik", axes, values, axes))


def _element(axes: str) -> Parameter:
    return Parameter(
        name=f"V{axes}",
        label=f"V{axes}",
        unit="um^4/ms^2",
        bounds=(-20.0, 20.0),
        latex=f"V_{{{axes}}}",
        description=f"Element {axes} of the kurtosis tensor times the square of the mean diffusivity, in the axes of "
        "the gradient directions",
        display=(-2.0, 2.0),
        auxiliary=True,
    )


def _kurtosis(name: str, description: str, value: Callable[[Tensor], Tensor]) -> Derived:
    return Derived(
        name=name,
        label=name.lower(),
        latex=rf"\mathrm{{{name}}}",
        description=description,
        display=(0.0, 2.0),
        value=value,
    )


DKI = SymbolicModel(
    name="dki",
    title="Diffusion kurtosis imaging",
    description=(
        "The logarithm of the signal to the second order in b: a diffusion tensor, and a tensor of fourth order that "
        "tells how far diffusion along every direction is from Gaussian. Least squares and the log-linear fits keep "
        "both from being negative along any of 97 directions."
    ),
    parameters=(*dti.DTI.parameters, *map(_element, AXES)),
    variables=("b", "direction"),
    expression=dti.S0 * sp.exp(-dti.b * dti.along + dti.b**2 * excess / 6),
    start="log-linear",
    plausible=plausible,
    cone=cone,
    draw=draw,
    draws_plausible=True,
    rotated=rotated,
    derived=(
        _kurtosis("MK", "Mean kurtosis over all directions", _mean),
        _kurtosis("AK", "Axial kurtosis, along the main direction", _axial),
        _kurtosis("RK", "Radial kurtosis, the mean over the directions perpendicular to the main one", _radial),
        *dti.DTI.derived,
    ),
    maximum_b=MAXIMUM_B,
    requirements=(
        ValuesRequirement("b", 1, maximum=50, reason="S0 is fitted"),
        ValuesRequirement(
            "b",
            2,
            minimum=500,
            maximum=MAXIMUM_B,
            directions=15,
            reason="a tensor of fourth order has 15 elements, and its part of the decay grows with the square of b",
        ),
    ),
    references=("jensen2005", "jensen2010"),
    variant_of="dti",
)
