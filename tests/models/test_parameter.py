"""Angles, orientations and derived quantities."""

import numpy as np
import pytest
import sympy as sp

from bidsfit import Acquisition, LeastSquares, Status
from bidsfit.models.common import signal_scale
from bidsfit.models.derived import Derivation
from bidsfit.models.parameter import Derived, Parameter, orientation, wrapped_angles
from bidsfit.models.symbolic import SymbolicModel
from bidsfit.phantom.directions import spread_directions

(POLAR, AZIMUTH), AXIS = orientation("n", "a fibre")
S0, D, B, GX, GY, GZ = sp.symbols("S0 D b gx gy gz", real=True)
X, Y, Z = AXIS.value

#: Diffusion along a fibre alone.
STICK = SymbolicModel(
    name="stick",
    title="",
    description="",
    parameters=(
        signal_scale(),
        Parameter(name="D", label="D", unit="um^2/ms", bounds=(0, 5), latex="D", description="", start=(0.5, 1, 2, 3)),
        POLAR,
        AZIMUTH,
    ),
    derived=(AXIS,),
    variables=("b", "direction"),
    expression=S0 * sp.exp(-B * D * (X * GX + Y * GY + Z * GZ) ** 2),
)


def vectors(polar, azimuth):
    return np.stack([np.sin(polar) * np.cos(azimuth), np.sin(polar) * np.sin(azimuth), np.cos(polar)], axis=-1)


def test_wrapped_angles_are_the_same_axis():
    rng = np.random.default_rng(0)
    angles = rng.uniform(-20, 20, (500, 2))
    found = wrapped_angles((POLAR, AZIMUTH), angles)
    assert np.all((found >= 0) & (found <= [np.pi / 2, 2 * np.pi]))
    cosines = np.sum(vectors(*angles.T) * vectors(*found.T), axis=1)
    assert np.abs(cosines) == pytest.approx(1, abs=1e-12)


def test_wrapped_angles_are_the_same_vector():
    rng = np.random.default_rng(0)
    whole = Parameter(name="p", label="p", unit="rad", bounds=(0, np.pi), latex="", description="", kind="polar")
    angles = rng.uniform(-20, 20, (500, 2))
    found = wrapped_angles((whole, AZIMUTH), angles)
    assert vectors(*found.T) == pytest.approx(vectors(*angles.T), abs=1e-12)


def test_orientations_are_found_wherever_they_point():
    """Poles and the seams of the angles are no bounds of a fit."""
    rng = np.random.default_rng(0)
    axes = rng.standard_normal((300, 3))
    axes[:3] = np.eye(3)
    axes /= np.linalg.norm(axes, axis=1, keepdims=True)
    directions = spread_directions(30)
    acquisition = Acquisition([0, *[1000] * 30], np.vstack([np.zeros(3), directions]))
    signals = 100 * np.exp(-acquisition.variable("b") * 1.7 * (axes @ acquisition.variable("direction").T) ** 2)
    estimate = LeastSquares(STICK).estimate(signals, acquisition)
    assert set(estimate.count()) == {Status.CONVERGED}
    assert estimate.parameters["D"] == pytest.approx(1.7, rel=1e-5)
    assert np.abs(np.sum(estimate.derived["n"] * axes, axis=1)) == pytest.approx(1, abs=1e-8)
    assert estimate.derived["n"].shape == (300, 3)


def test_directions_are_asked_for():
    support = STICK.support(Acquisition([0, 1000]))
    assert support.missing == ("the gradient directions of all measurements above b = 0",)
    some = Acquisition([0, 1000, 1000], [[0, 0, 0], [1, 0, 0], [0, 0, 0]])
    assert not STICK.support(some)
    assert STICK.support(some.select([0, 1]))


def test_measurements_of_a_model_of_directions_are_not_averaged():
    acquisition = Acquisition([0, 1000, 1000], np.eye(3))
    assert len(STICK.average(acquisition).acquisition) == 3


@pytest.mark.parametrize(
    "value",
    [sp.Symbol("x", real=True) ** 2 / sp.Symbol("y", real=True), lambda p: p[0] ** 2 / p[1]],
    ids=["expression", "function"],
)
def test_derived_quantities_know_their_gradient(value):
    ratio = Derived(name="ratio", label="ratio", latex="", description="", value=value)
    derivation = Derivation(("x", "y"), (ratio,))
    parameters = np.array([[3.0, 2.0], [1.0, 4.0], [np.nan, 1.0]])
    assert derivation.values(parameters)["ratio"] == pytest.approx([4.5, 0.25, np.nan], nan_ok=True)
    slopes = derivation.gradients(parameters)
    assert slopes.shape == (3, 1, 2)
    assert slopes[:2, 0] == pytest.approx(np.array([[3.0, -2.25], [0.5, -0.0625]]))


def test_no_derived_quantities_are_no_arrays():
    derivation = Derivation(("x",), ())
    assert derivation.values(np.ones((4, 1))) == {}
    assert derivation.gradients(np.ones((4, 1))).shape == (4, 0, 1)
