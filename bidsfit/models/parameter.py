"""The quantities of a model: parameters, and what is derived from them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import sympy as sp
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor

#: What values of a parameter are: any number between the bounds, or an angle in radians. A polar angle and the azimuth
#: that follows it in the table give an orientation; an azimuth alone may be the phase of a signal.
Kind = Literal["scalar", "polar", "azimuth"]


@dataclass(frozen=True, kw_only=True)
class ModelQuantity:
    """What a map of a model shows.

    Parameters
    ----------
    name : str
        The symbol in the equation, and the name in Python.
    label : str
        The value of the BIDS entity ``param``.
    unit : {"1", "arbitrary", "um^2/ms", "ms", "rad"}
        Unit in the numerics. Files and reports convert.
    latex : str
        How the symbol is printed.
    description : str
        One sentence for sidecars, reports and docs.
    display : tuple of float
        Range of figures, in ``unit``; None means it is taken from the data.
    """

    name: str
    label: str
    unit: str
    latex: str
    description: str
    display: tuple[float, float] | None = None


@dataclass(frozen=True, kw_only=True)
class Parameter(ModelQuantity):
    """One row of a model's parameter table.

    Parameters
    ----------
    bounds : tuple of float
        Physically plausible range, in ``unit``.
    start : sequence of float
        Values from which a grid of starting points is built. Not used for the scale of the signal.
    prior : {"uniform", "loguniform"}
        What Bayesian estimators believe before the data, unless they are told otherwise: the same for every value
        between the bounds, or for every order of magnitude.
    kind : {"scalar", "polar", "azimuth"}
        Angles are not kept within their bounds while a model is fitted: they are brought back to them afterwards.
    """

    bounds: tuple[float, float]
    start: Sequence[float] = ()
    prior: str = "uniform"
    kind: Kind = "scalar"

    @property
    def axis(self) -> bool:
        """Whether it is an axis: never, that is what its angles give."""
        return False

    @property
    def symbol(self) -> sp.Symbol:
        return sp.Symbol(self.name, real=True)


@dataclass(frozen=True, kw_only=True)
class Derived(ModelQuantity):
    """What follows from the parameters: fractional anisotropy from a tensor, T2 from R2.

    Its standard deviation and its bound follow from those of the parameters and its gradient (delta method).

    Parameters
    ----------
    value : sympy.Expr or callable
        An expression in the symbols of the parameters (of a vector: a matrix of three), or a function of torch that
        takes the parameters of one voxel, shape (n_parameters,), and returns one number, or three.
    axis : bool
        Whether it is a unit vector without a sign: an axis of the coordinates of the gradient directions.
    """

    value: sp.Expr | sp.Matrix | Callable[[Tensor], Tensor]
    axis: bool = False
    unit: str = "1"

    @property
    def components(self) -> int:
        """3 for an axis, else 1."""
        return 3 if self.axis else 1


def wrapped_angles(parameters: Sequence[Parameter], values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Values, shape (n, n_parameters), whose angles are brought back into their bounds: the same orientations.

    A polar angle up to pi / 2 is that of an axis, whose two ends are the same; up to pi, that of a vector.
    """
    found = values.copy()
    for j, parameter in enumerate(parameters):
        low, high = parameter.bounds
        if parameter.kind == "polar":
            angle = np.mod(found[:, j], 2 * np.pi)
            beyond = angle > np.pi  # a pole was crossed: the other side of the sphere
            angle = np.where(beyond, 2 * np.pi - angle, angle)
            below = (angle > np.pi / 2) & (high <= np.pi / 2)
            found[:, j] = np.where(below, np.pi - angle, angle)
            found[:, j + 1] += np.pi * (beyond ^ below)
        elif parameter.kind == "azimuth":
            found[:, j] = low + np.mod(found[:, j] - low, high - low)
    return found


def orientation(name: str, title: str) -> tuple[tuple[Parameter, Parameter], Derived]:
    """Two angles that are an orientation without a sign, and the unit vector that follows from them.

    Parameters
    ----------
    name : str
        Of the vector; the angles are called ``<name>_polar`` and ``<name>_azimuth``.
    title : str
        Of what it is the orientation, for descriptions.
    """
    polar, azimuth = sp.symbols(f"{name}_polar {name}_azimuth", real=True)
    kinds: tuple[tuple[Kind, float, tuple[float, ...], str], ...] = (
        ("polar", np.pi / 2, (0.3, 0.8, 1.3), r"\theta"),
        ("azimuth", 2 * np.pi, tuple(np.arange(0.3, 6.2, 0.9).tolist()), r"\phi"),
    )
    angles = tuple(
        Parameter(
            name=f"{name}_{kind}",
            label=f"{name}{kind}",
            unit="rad",
            bounds=(0.0, limit),
            start=start,
            latex=latex,
            description=f"{kind.capitalize()} angle of {title}",
            kind=kind,
        )
        for kind, limit, start, latex in kinds
    )
    vector = sp.Matrix([sp.sin(polar) * sp.cos(azimuth), sp.sin(polar) * sp.sin(azimuth), sp.cos(polar)])
    axis = Derived(name=name, label=name, latex=r"\mathbf{n}", description=title.capitalize(), value=vector, axis=True)
    return (angles[0], angles[1]), axis
