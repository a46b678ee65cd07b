"""A signal model is one equation and a table of parameters; everything else follows from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import sympy as sp
from numpy.typing import ArrayLike, NDArray

from bidsfit.acquisition import Acquisition
from bidsfit.exceptions import UnsupportedProtocolError
from bidsfit.models.kernel import compile_kernel, evaluate
from bidsfit.models.requirements import JITTER, Requirement, listed


@dataclass(frozen=True)
class Parameter:
    """One row of a model's parameter table.

    Parameters
    ----------
    name : str
        The symbol in the equation, and the name in Python.
    label : str
        The value of the BIDS entity ``param``.
    unit : {"1", "arbitrary", "um^2/ms", "ms"}
        Unit in the numerics. Files and reports convert.
    bounds : tuple of float
        Physically plausible range, in ``unit``.
    start : sequence of float
        Values from which a grid of starting points is built. Not used for the scale of the signal.
    latex : str
        How the symbol is printed.
    description : str
        One sentence for sidecars, reports and docs.
    display : tuple of float
        Range of figures, in ``unit``; None means it is taken from the data.
    prior : {"uniform", "loguniform"}
        What Bayesian estimators believe before the data, unless they are told otherwise: the same for every value
        between the bounds, or for every order of magnitude.
    """

    name: str
    label: str
    unit: str
    bounds: tuple[float, float]
    latex: str
    description: str
    start: Sequence[float] = ()
    display: tuple[float, float] | None = None
    prior: str = "uniform"

    @property
    def symbol(self) -> sp.Symbol:
        return sp.Symbol(self.name, real=True)


@dataclass(frozen=True)
class Support:
    """Whether a protocol supports a model.

    Attributes
    ----------
    missing : tuple of str
        What the protocol lacks, in words; empty where the model is supported.
    used : str
        What the model would be fitted to, in words: "b = 0, 1000 s/mm²", with the echo times where they matter.
    """

    missing: tuple[str, ...]
    used: str

    def __bool__(self) -> bool:
        return not self.missing


@dataclass(frozen=True)
class SignalModel:
    """What is believed about the signal: one equation for all uses.

    Parameters
    ----------
    name : str
        Short name: the command line's and the BIDS entity's ``model``.
    title : str
        Full name for reports.
    parameters : sequence of Parameter
    expression : sympy.Expr
        The signal, in the parameters' symbols and the independent variables.
    variables : sequence of str
        Independent variables of the equation, as `Acquisition.variable` knows them.
    scale : str
        The parameter that multiplies the whole signal.
    constraints : sequence of sympy.Le
        Linear inequalities between parameters that hold at every estimate (``D <= Dstar``).
    requirements : sequence of Requirement
        What a protocol must contain.
    maximum_b : float
        Measurements above it (s/mm^2) are not described by the model and are left out.
    excluded_b : tuple of float, optional
        Measurements between these two b-values (s/mm^2) are not described by the model either.
    averaging : bool
        True when the model describes direction averages only.
    constants : dict
        Named constants of the equation as sidecars state them: diffusivities in mm^2/s.
    variant_of : str
        Name of the model of which this is another form. A variant is fitted only where it is named.
    description, references
        A sentence for reports, and keys of the bibliography.

    Notes
    -----
    Compiled functions are made when first needed, never at import.
    """

    name: str
    title: str
    parameters: tuple[Parameter, ...]
    expression: sp.Expr
    description: str
    variables: tuple[str, ...] = ("b",)
    scale: str = "S0"
    constraints: tuple[sp.Rel, ...] = ()
    requirements: tuple[Requirement, ...] = ()
    maximum_b: float = np.inf
    excluded_b: tuple[float, float] | None = None
    averaging: bool = False
    constants: Mapping[str, Any] = field(default_factory=dict)
    references: tuple[str, ...] = ()
    variant_of: str = ""

    def __post_init__(self) -> None:
        known = {p.symbol for p in self.parameters} | {sp.Symbol(v, real=True) for v in self.variables}
        unknown = self.expression.free_symbols - known
        if unknown:
            raise ValueError(f"Model {self.name!r}: the equation has symbols {unknown} that no table lists.")
        if self.scale not in self.names:
            raise ValueError(f"Model {self.name!r}: the scale {self.scale!r} is not among its parameters.")
        scale = self[self.scale].symbol
        if sp.diff(self.expression, scale, 2) != 0 or self.expression.subs(scale, 0) != 0:
            raise ValueError(f"Model {self.name!r}: the signal is not proportional to {self.scale!r}.")

    def __getitem__(self, name: str) -> Parameter:
        for parameter in self.parameters:
            if parameter.name == name:
                return parameter
        raise KeyError(name)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the parameters, in the order of every parameter array."""
        return tuple(p.name for p in self.parameters)

    @property
    def scale_index(self) -> int:
        return self.names.index(self.scale)

    @cached_property
    def kernel(self) -> Any:
        """Compiled signal and Jacobian of one voxel (see `bidsfit.models.kernel`)."""
        return compile_kernel(self.expression, self.names, self.variables)

    @cached_property
    def signal_kernel(self) -> Any:
        """The same without the Jacobian, for those who only need signals."""
        return compile_kernel(self.expression, self.names, self.variables, derivatives=False)

    @cached_property
    def linear_constraints(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Constraints as matrix and limit: ``matrix @ parameters <= limit``."""
        symbols = [p.symbol for p in self.parameters]
        rows, limits = [], []
        for relation in self.constraints:
            difference = sp.expand(relation.lhs - relation.rhs)
            row = [difference.coeff(s) for s in symbols]
            limit = sp.simplify(sum(c * s for c, s in zip(row, symbols, strict=True)) - difference)
            if not isinstance(relation, sp.Le) or not limit.is_number:
                raise ValueError(f"Model {self.name!r}: {relation} is not a linear constraint of the form a <= b.")
            rows.append([float(c) for c in row])
            limits.append(float(limit))
        return np.array(rows).reshape(-1, len(symbols)), np.array(limits)

    def design(self, acquisition: Acquisition) -> NDArray[np.float64]:
        """Independent variables of an acquisition, shape (n_measurements, n_variables)."""
        return np.column_stack([acquisition.variable(v) for v in self.variables]).astype(float)

    def parameter_array(self, parameters: Mapping[str, ArrayLike] | ArrayLike) -> NDArray[np.float64]:
        """Parameters as one array of shape (..., n_parameters), from a mapping of broadcastable arrays."""
        if isinstance(parameters, Mapping):
            missing = set(self.names) - set(parameters)
            if missing:
                raise ValueError(f"Model {self.name!r} also needs {', '.join(sorted(missing))}.")
            columns = np.broadcast_arrays(*[np.asarray(parameters[n], dtype=float) for n in self.names])
            return np.stack(columns, axis=-1)
        array = np.asarray(parameters, dtype=float)
        if array.shape[-1:] != (len(self.names),):
            raise ValueError(f"Parameters of {self.name!r} end in axis {self.names}, found shape {array.shape}.")
        return array

    def signal(self, parameters: Mapping[str, ArrayLike] | ArrayLike, acquisition: Acquisition) -> NDArray[np.float64]:
        """Noise-free signal.

        Parameters
        ----------
        parameters : mapping of name to array, or array of shape (..., n_parameters)
            In the units of the parameter table.
        acquisition : Acquisition

        Returns
        -------
        ndarray, shape (..., n_measurements)
        """
        return self.signal_and_jacobian(parameters, acquisition)[0]

    def signal_and_jacobian(
        self, parameters: Mapping[str, ArrayLike] | ArrayLike, acquisition: Acquisition
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Noise-free signal, shape (..., n), and its derivatives, shape (..., n, n_parameters)."""
        array = self.parameter_array(parameters)
        flat = np.ascontiguousarray(array.reshape(-1, array.shape[-1]))
        signal, jacobian = evaluate(self.kernel, flat, self.design(acquisition))
        return (
            signal.reshape(*array.shape[:-1], -1),
            jacobian.reshape(*array.shape[:-1], len(acquisition), len(self.names)),
        )

    def usable(self, acquisition: Acquisition) -> NDArray[np.intp]:
        """Indices of the measurements that the model describes (see ``maximum_b`` and ``excluded_b``)."""
        b = acquisition.b_values
        described = b <= self.maximum_b * (1 + JITTER)
        if self.excluded_b is not None:
            low, high = self.excluded_b
            described &= (b <= low * (1 + JITTER)) | (b >= high * (1 - JITTER))
        return np.flatnonzero(described)

    def support(self, acquisition: Acquisition) -> Support:
        """Whether a protocol can support the model; says what is missing and what it has."""
        index = self.usable(acquisition)
        shells = acquisition.select(index).shells if index.size else ()
        missing = [lack for requirement in self.requirements if (lack := requirement.missing(shells))]
        echo_times = {shell.echo_time for shell in shells if shell.echo_time is not None}
        used = f"b = {listed({shell.b_value for shell in shells})} s/mm²"
        if "TE" in self.variables:
            used += f" and TE = {listed(echo_times, 1)} ms"
        elif len(echo_times) > 1:
            missing.append(f"one echo time (relaxation is not described); the protocol has {listed(echo_times, 1)}")
        return Support(tuple(missing), used)

    def require_support(self, acquisition: Acquisition) -> None:
        """Raise `UnsupportedProtocolError`, naming what is missing, unless the model is supported."""
        support = self.support(acquisition)
        if not support:
            raise UnsupportedProtocolError(
                f"The protocol does not support the model {self.name!r}. Missing: " + "; ".join(support.missing) + "."
            )

    @cached_property
    def latex(self) -> str:
        """The equation as LaTeX, in the form the papers print."""
        symbols = {p.symbol: p.latex for p in self.parameters}
        shown = self.expression.rewrite(sp.erf)
        return f"S = {sp.latex(shown, symbol_names=symbols)}"
