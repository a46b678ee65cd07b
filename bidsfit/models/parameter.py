"""Parameters of a model and quantities derived from them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import sympy as sp
from numpy.typing import NDArray

from bidsfit.models.priors import Prior

if TYPE_CHECKING:
    from torch import Tensor

#: What values of a parameter are: any number between the bounds, or an angle in radians. A polar angle and the azimuth
#: that follows it in the table give an orientation; an azimuth alone may be the phase of a signal.
Kind = Literal["scalar", "polar", "azimuth"]


@dataclass(frozen=True, kw_only=True)
class ModelQuantity:
    """A parameter or derived quantity of a model.

    Parameters
    ----------
    name : str
        Symbol in the equation and name in Python.
    label : str
        The value of the BIDS entity ``param``.
    unit : {"1", "arbitrary", "um^2/ms", "um^4/ms^2", "ms", "us", "1/s", "Hz", "rad"}
        Internal unit; files and reports convert it.
    latex : str
        Symbol as LaTeX.
    description : str
        One sentence for sidecars, reports and docs.
    display : tuple of float
        Colour range of figures, in ``unit``; by default taken from the data.
    wide : bool
        Whether its values, and with them its errors, span orders of magnitude, as those of a relaxation time do. What
        simulation tells of its bias is then learned in standard deviations.
    """

    name: str
    label: str
    unit: str
    latex: str
    description: str
    display: tuple[float, float] | None = None
    wide: bool = False


@dataclass(frozen=True, kw_only=True)
class Parameter(ModelQuantity):
    """One row of the parameter table of a model.

    Parameters
    ----------
    bounds : tuple of float
        Physically plausible range, in ``unit``.
    start : sequence of float
        Values from which the grid of starting points is built. Not used for the scale of the signal.
    prior : {"uniform", "loguniform"} or Prior
        Default prior of Bayesian estimators and of trainings between the bounds: uniform in the value or in its
        logarithm, or a distribution, which is truncated to the bounds.
    kind : {"scalar", "polar", "azimuth"}
        Angles are not kept within their bounds during a fit, but wrapped into them afterwards.
    twofold : bool
        Whether signals hardly tell two values apart, one in each half of its range: fits that start at draws
        (`bidsfit.estimators.draws`) start in both.
    auxiliary : bool
        Whether it is of use only for what is derived from it, as an element of a tensor or an angle of an axis.
        Uncertainty is told, and reports and tables are made, of the derived quantities instead.
    """

    bounds: tuple[float, float]
    start: Sequence[float] = ()
    prior: str | Prior = "uniform"
    kind: Kind = "scalar"
    twofold: bool = False
    auxiliary: bool = False

    @property
    def axis(self) -> bool:
        """False: only a derived quantity can be an axis."""
        return False

    @property
    def symbol(self) -> sp.Symbol:
        return sp.Symbol(self.name, real=True)


@dataclass(frozen=True, kw_only=True)
class Derived(ModelQuantity):
    """A quantity computed from the parameters: fractional anisotropy from a tensor, T2 from R2.

    Its standard deviation and Cramér-Rao bound follow from those of the parameters by the delta method.

    Parameters
    ----------
    value : sympy.Expr or callable
        An expression in the symbols of the parameters (a column for an axis or a tensor), or a torch function of the
        parameters of one voxel, shape (n_parameters,), that returns as many numbers as it has components.
    axis : bool
        Whether it is a unit vector whose sign is arbitrary, in the coordinates of the gradient directions.
    weight : str
        Name of a derived quantity from 0 to 1 that says how pronounced an axis is; figures are as bright. "" for none.
    elements : tuple of str
        For a symmetric tensor, the names of its six elements D11, D12, D13, D22, D23 and D33, which are parameters. Its
        map holds them as volumes, and they have none of their own.
    """

    value: sp.Expr | sp.Matrix | Callable[[Tensor], Tensor]
    axis: bool = False
    weight: str = ""
    elements: tuple[str, ...] = ()
    unit: str = "1"

    @property
    def auxiliary(self) -> bool:
        """Whether it is of use only for what else is derived from its elements: a tensor."""
        return bool(self.elements)

    @property
    def components(self) -> int:
        """3 for an axis, 6 for a tensor, else 1."""
        return 3 if self.axis else len(self.elements) or 1


def wrapped_angles(parameters: Sequence[Parameter], values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Wrap the angles among values (n, n_parameters) into their bounds without changing the orientations.

    A polar angle with upper bound pi / 2 belongs to an axis, whose two ends are equivalent; with pi, to a vector.
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
    """Two angles that give an axis, and the unit vector derived from them.

    The angles are called ``<name>_polar`` and ``<name>_azimuth``; ``title`` says in descriptions whose orientation it
    is.
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
            auxiliary=True,
        )
        for kind, limit, start, latex in kinds
    )
    vector = sp.Matrix([sp.sin(polar) * sp.cos(azimuth), sp.sin(polar) * sp.sin(azimuth), sp.cos(polar)])
    axis = Derived(name=name, label=name, latex=r"\mathbf{n}", description=title.capitalize(), value=vector, axis=True)
    return (angles[0], angles[1]), axis


def tensor(elements: Sequence[str]) -> Derived:
    """The diffusion tensor as one map, given the names of its elements xx, xy, xz, yy, yz and zz (um^2/ms)."""
    return Derived(
        name="tensor",
        label="tensor",
        unit="um^2/ms",
        latex=r"\mathbf{D}",
        description="Diffusion tensor, in the axes of the gradient directions, as the volumes xx, xy, xz, yy, yz, zz",
        value=sp.Matrix([sp.Symbol(name, real=True) for name in elements]),
        elements=tuple(elements),
    )
