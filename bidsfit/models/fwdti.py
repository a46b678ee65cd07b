"""Diffusion tensor imaging with free water: a tensor of the tissue beside fluid that shares its voxel."""

from __future__ import annotations

import numpy as np
import sympy as sp
from numpy.typing import NDArray

from bidsfit.acquisition import Acquisition
from bidsfit.models import dti
from bidsfit.models.parameter import Parameter
from bidsfit.models.requirements import ValuesRequirement
from bidsfit.models.symbolic import SymbolicModel

#: Diffusivity of free water at body temperature, um^2/ms.
FREE_WATER = 3
#: Kurtosis of the tissue looks like water that is not free above this b-value, s/mm^2.
MAXIMUM_B = 2000.0
#: Fractions of free water from which a fit starts, and least signal of the tissue, relative to that without diffusion
#: weighting, whose logarithm is taken.
STARTS, FAINT = np.linspace(0, 0.95, 20), 1e-3

fw = sp.Symbol("fw", real=True)


def start(signals: NDArray[np.float64], acquisition: Acquisition) -> NDArray[np.float64]:
    """Where fits start, shape (n, 8): the fraction whose tensor comes closest to the signals (n, n_measurements).

    For each fraction of a grid the signal of free water is taken off, and the rest fitted by weighted linear least
    squares of its logarithm (Hoy AR et al. NeuroImage 2014;103:323-333).
    """
    b, counts = acquisition.variable("b"), acquisition.weights
    matrix = dti.diffusivities(acquisition.variable("direction")) * -b[:, None]
    lowest = b == b.min()
    s0 = np.average(signals[:, lowest], axis=1, weights=counts[lowest])[:, None]
    water = np.exp(-b * FREE_WATER)
    best, found = np.full(len(signals), np.inf), np.empty((len(signals), 8))
    for fraction in STARTS:
        rest = np.maximum((signals / s0 - fraction * water) / (1 - fraction), FAINT)
        weights = counts * rest**2
        normal = np.einsum("vk,kp,kq->vpq", weights, matrix, matrix, optimize=True) + 1e-9 * np.eye(6)
        right = np.einsum("vk,kp->vp", weights * np.log(rest), matrix)
        elements = np.linalg.solve(normal, right[..., None])[..., 0]
        with np.errstate(over="ignore"):
            curve = (1 - fraction) * np.exp(elements @ matrix.T) + fraction * water
            cost = (signals - s0 * curve) ** 2 @ counts
        nearer = cost < best
        best[nearer] = cost[nearer]
        found[nearer] = np.column_stack([s0, elements, np.full(len(s0), fraction)])[nearer]
    return found


def draw(n: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Draw tensors as of `dti`, and fractions of free water uniformly, shape (n, 7)."""
    return np.column_stack([dti.draw(n, rng), rng.random(n)])


FWDTI = SymbolicModel(
    name="fwdti",
    title="Diffusion tensor imaging with free water",
    description=(
        "The diffusion tensor of the tissue, and free water (3 µm²/ms) that shares its voxel. What is derived is of "
        "the tissue alone."
    ),
    parameters=(
        *dti.DTI.parameters,
        Parameter(
            name="fw",
            label="fw",
            unit="1",
            bounds=(0.0, 1.0),
            latex=r"f_\mathrm{w}",
            description="Volume fraction of free water",
            display=(0.0, 1.0),
        ),
    ),
    variables=("b", "direction"),
    expression=dti.S0 * ((1 - fw) * sp.exp(-dti.b * dti.along) + fw * sp.exp(-FREE_WATER * dti.b)),
    start=start,
    plausible=dti.positive,
    draw=draw,
    rotated=dti.rotated,
    derived=dti.DTI.derived,
    maximum_b=MAXIMUM_B,
    constants={"FreeWaterDiffusivity": FREE_WATER * 1e-3},
    requirements=(
        ValuesRequirement("b", 1, maximum=50, reason="S0 is fitted"),
        ValuesRequirement(
            "b",
            2,
            minimum=400,
            maximum=MAXIMUM_B,
            directions=6,
            reason="with one shell, every fraction of free water has a tensor that fits as well",
        ),
    ),
    references=("pasternak2009", "hoy2014"),
    variant_of="dti",
)
