"""Simulated tissue with crossing fibres, and the diffusion tensor that many directions give of it without noise."""

from __future__ import annotations

from functools import cache

import numpy as np
import sympy as sp
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from bidsfit import models
from bidsfit.acquisition import Acquisition
from bidsfit.estimators.log_linear import LogLinear
from bidsfit.models.common import signal_scale
from bidsfit.models.parameter import Parameter, orientation
from bidsfit.models.space import ParameterSpace
from bidsfit.models.symbolic import SymbolicModel
from bidsfit.phantom.directions import spread_directions
from bidsfit.simulation.simulator import Simulator, Voxels

#: Of the protocols (s/mm^2), and directions of the full set, whose tensor without noise is the truth.
B_VALUE, FULL = 1000.0, 60
DTI = ParameterSpace(models.get("dti"))


def _crossing() -> SymbolicModel:
    """Two bundles of fibres, each an axially symmetric Gaussian compartment, and free water."""
    b, scale, axial, radial, share, water = sp.symbols("b S0 axial radial share water", real=True)
    gradient = sp.Matrix(sp.symbols("gx gy gz", real=True))
    axes = [orientation(name, f"the {name} bundle") for name in ("first", "second")]
    bundles = [sp.exp(-b * (radial + (axial - radial) * gradient.dot(axis.value) ** 2)) for _, axis in axes]

    def parameter(name: str, unit: str, low: float, high: float, description: str) -> Parameter:
        return Parameter(
            name=name, label=name, unit=unit, bounds=(low, high), latex=rf"\mathrm{{{name}}}", description=description
        )

    return SymbolicModel(
        name="crossing",
        title="Crossing fibres",
        description="Two bundles of fibres with the same diffusivities, and free water.",
        parameters=(
            signal_scale(),
            parameter("axial", "um^2/ms", 1.2, 2.2, "Diffusivity along the fibres"),
            parameter("radial", "um^2/ms", 0.2, 0.6, "Diffusivity across the fibres"),
            parameter("share", "1", 0.5, 1.0, "Share of the first bundle in the fibres"),
            parameter("water", "1", 0.0, 0.5, "Volume fraction of free water"),
            *axes[0][0],
            *axes[1][0],
        ),
        variables=("b", "direction"),
        expression=scale * ((1 - water) * (share * bundles[0] + (1 - share) * bundles[1]) + water * sp.exp(-3 * b)),
    )


CROSSING = _crossing()
TISSUE = ParameterSpace(CROSSING)


def protocol(n: int, b: float = B_VALUE, turn: Rotation | None = None) -> Acquisition:
    """One image at b = 0, and one along each of n directions, which may be turned."""
    directions = spread_directions(n)
    if turn is not None:
        directions = turn.apply(directions)
    return Acquisition([0.0, *[b] * n], np.vstack([np.zeros(3), directions]))


@cache
def full_set() -> Acquisition:
    """The protocol of the true tensors."""
    return protocol(FULL)


def true_tensors(tissue: NDArray[np.float64]) -> NDArray[np.float64]:
    """Elements (n, 6) of the tensors fitted by weighted least squares to the full set without noise."""
    clean = CROSSING.signal(TISSUE.with_scale(tissue), full_set())
    return LogLinear(DTI.model, full_set())(clean)[:, DTI.places]


class Crossings(Simulator):
    """Simulates crossing fibres, whose targets are the tensors of the full set."""

    def voxels(self, n: int, rng: np.random.Generator) -> Voxels:
        tissue = TISSUE.sample(n, rng)
        clean = CROSSING.signal(TISSUE.with_scale(tissue), self.acquisition)
        truth, s0, sigma = true_tensors(tissue), np.ones(n), np.full(n, 1 / self.noise.snr)
        return Voxels(truth, s0, sigma, clean, np.full(n, True), self.bounds_of(truth, s0, sigma))
