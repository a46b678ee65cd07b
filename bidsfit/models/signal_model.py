"""The interface of all signal models: a signal as a function of parameters and acquisition."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import sympy as sp
from numpy.typing import ArrayLike, NDArray

from bidsfit.acquisition import FEWEST_DIRECTIONS, Acquisition, Averaging, DirectionAverage, column_of
from bidsfit.exceptions import UnsupportedProtocolError
from bidsfit.models.derived import Derivation
from bidsfit.models.parameter import Derived, Parameter, wrapped_angles
from bidsfit.models.requirements import JITTER, Requirement

if TYPE_CHECKING:
    from scipy.spatial.transform import Rotation
    from torch import Tensor

#: What signals are divided by before a fit, so that they are near 1: the mean of those of the lowest b-value, the
#: largest, or nothing.
Reference = Literal["lowest b", "largest", "none"]

#: Where a fit starts: at the best point of a grid of starting values, at the solution of the linear equations of the
#: logarithm of the signal, at the best of many examples, or where a function of (signals, acquisition) says: shape
#: (n_voxels, n_parameters).
Start = Literal["grid", "log-linear", "draws"] | Callable[[NDArray[np.float64], Acquisition], NDArray[np.float64]]


@dataclass(frozen=True)
class Support:
    """Whether a protocol supports a model.

    Attributes
    ----------
    missing : tuple of str
        What the protocol lacks, in words; empty if the model is supported.
    used : str
        Values that the model would be fitted to: "b = 0, 1000 s/mm²", with the other variables of the model.
    """

    missing: tuple[str, ...]
    used: str

    def __bool__(self) -> bool:
        return not self.missing


@dataclass(frozen=True)
class Covariate:
    """A parameter that is held in a fit and that another image may tell, voxel by voxel.

    Attributes
    ----------
    parameter : str
        Its name in the model.
    suffix : str
        BIDS suffix of the image, which lies in fmap/.
    apply : callable
        From parameters (n, n_parameters) of a fit, values of the covariate (n,), the fitted acquisition, and the
        indices of the parameters that were free: parameters that give the same signals with these values.
    without : str
        What is wrong where the parameter is not 1 and no image tells it, in words.
    """

    parameter: str
    suffix: str
    apply: Callable[[NDArray[np.float64], NDArray[np.float64], Acquisition, Sequence[int]], NDArray[np.float64]]
    without: str


@dataclass(frozen=True, kw_only=True)
class SignalModel(ABC):
    """The signal as a function of tissue parameters and acquisition.

    Subclasses: `SymbolicModel`, given by an equation, and `FunctionModel`, given by a torch function.

    Parameters
    ----------
    name : str
        Short name, used on the command line and in the BIDS entity ``model``.
    title : str
        Full name for reports.
    parameters : sequence of Parameter
    variables : sequence of str
        Columns of an acquisition that the signal depends on. Measurements are averaged over directions unless
        "direction" is among them.
    scale : str or None
        Name of the parameter that multiplies the whole signal, if any.
    reference : {"lowest b", "largest", "none"}
        What signals are divided by before a fit: see `Reference`. Must be "none" without a scale.
    start : {"grid", "log-linear", "draws"} or callable
        Where a fit starts: see `Start`.
    derived : sequence of Derived
        Quantities computed from the parameters, each written as a map.
    complex_valued : bool
        Whether signals are complex. Real and imaginary part then count as two measurements with independent noise.
    phase : str or None
        Name of the auxiliary parameter that is the phase of all signals, if they are complex. Like the scale, it
        follows by least squares from what trained estimators and dictionaries find.
    sequence : bool
        Whether a measurement depends on earlier ones. If so, none is averaged or left out, and order matters.
    constraints : sequence of sympy.Le
        Linear inequalities between parameters (``D <= Dstar``).
    plausible : callable, optional
        Tells of parameters (n, n_parameters) whether tissue can have them, shape (n,), where bounds and constraints
        cannot: a tensor without negative diffusivity. Estimates that are not plausible keep their values and have the
        status ``IMPLAUSIBLE``; simulated truths are plausible.
    cone : callable, optional
        Returns a matrix (m, n_parameters) of linear inequalities, ``matrix @ parameters >= 0``, of which there are too
        many for ``constraints``: diffusivities and kurtosis along many directions. `LeastSquares` and the log-linear
        fits keep them unless told not to. The scale is in none.
    draw : callable, optional
        Draws n combinations of the parameters without the scale, shape (n, n_parameters - 1), with a random generator:
        the prior of a model whose parameters have none of their own. Those outside the bounds are drawn again.
    draws_plausible : bool
        Whether all of these are plausible, so that this need not be found out.
    rotated : callable, optional
        Parameters (n, n_parameters) of tissue that is turned by a rotation, of a model that depends on directions. With
        it, a network serves protocols whose directions are turned against those of its training.
    examples : callable, optional
        Draws parameters (n, n_parameters) of all that is usually measured, with a random generator: temporal bases are
        made of their signals, and fits may start at them.
    requirements : sequence of Requirement
        What a protocol must contain.
    suffixes : tuple of str
        BIDS suffixes of the images that it describes.
    covariate : Covariate, optional
        Parameter that another image may tell.
    maximum_b : float
        Measurements above this b-value (s/mm^2) are left out.
    excluded_b : tuple of float, optional
        Measurements between these two b-values (s/mm^2) are left out.
    averaging : bool
        Whether the model describes direction averages only.
    constants : dict
        Constants of the equation as written to sidecars: diffusivities in mm^2/s.
    variant_of : str
        Name of the model of which this is another form. Variants are fitted only when named.
    organ : str
        Organ whose bounds, starting values and priors the parameter table holds (see `bidsfit.models.organs`).
    description, references
        A sentence for reports, and keys of the bibliography.

    Notes
    -----
    Compiled functions are made when first needed, never at import.
    """

    name: str
    title: str
    parameters: tuple[Parameter, ...]
    description: str
    variables: tuple[str, ...] = ("b",)
    scale: str | None = "S0"
    reference: Reference = "lowest b"
    start: Start = "grid"
    derived: tuple[Derived, ...] = ()
    complex_valued: bool = False
    phase: str | None = None
    sequence: bool = False
    constraints: tuple[sp.Rel, ...] = ()
    plausible: Callable[[NDArray[np.float64]], NDArray[np.bool_]] | None = None
    cone: Callable[[], NDArray[np.float64]] | None = None
    draw: Callable[[int, np.random.Generator], NDArray[np.float64]] | None = None
    draws_plausible: bool = False
    rotated: Callable[[NDArray[np.float64], Rotation], NDArray[np.float64]] | None = None
    examples: Callable[[int, np.random.Generator], NDArray[np.float64]] | None = None
    requirements: tuple[Requirement, ...] = ()
    suffixes: tuple[str, ...] = ("dwi",)
    covariate: Covariate | None = None
    maximum_b: float = np.inf
    excluded_b: tuple[float, float] | None = None
    averaging: bool = False
    constants: Mapping[str, Any] = field(default_factory=dict)
    references: tuple[str, ...] = ()
    variant_of: str = ""
    organ: str = "general"

    def __post_init__(self) -> None:
        if self.scale is not None and self.scale not in self.names:
            raise ValueError(f"Model {self.name!r}: the scale {self.scale!r} is not among its parameters.")
        if self.scale is None and self.reference != "none":
            raise ValueError(
                f"Model {self.name!r} has no scale, so that its signals cannot be divided by a reference; set "
                f"reference='none' (found {self.reference!r})."
            )

    def __getitem__(self, name: str) -> Parameter:
        return {parameter.name: parameter for parameter in self.parameters}[name]

    def quantity(self, name: str) -> Parameter | Derived:
        """The parameter or derived quantity of that name."""
        return {quantity.name: quantity for quantity in self.quantities}[name]

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the parameters, in the order of every parameter array."""
        return tuple(p.name for p in self.parameters)

    @property
    def shape_names(self) -> tuple[str, ...]:
        """Names of the parameters except the scale, in the same order."""
        return tuple(name for name in self.names if name != self.scale)

    @property
    def scale_index(self) -> int:
        """Index of the scale among the parameters; -1 if there is none."""
        return -1 if self.scale is None else self.names.index(self.scale)

    @property
    def phase_index(self) -> int:
        """Index of the phase among the parameters; -1 if there is none."""
        return -1 if self.phase is None else self.names.index(self.phase)

    @property
    def quantities(self) -> tuple[Parameter | Derived, ...]:
        """Parameters and derived quantities."""
        return (*self.parameters, *self.derived)

    @property
    def mapped(self) -> tuple[Parameter | Derived, ...]:
        """Those that are written as a map, which are all but the elements of a tensor, whose map holds them."""
        return tuple(q for q in self.quantities if self.tensor is None or q.name not in self.tensor.elements)

    @property
    def tensor(self) -> Derived | None:
        """The tensor among the derived quantities, if there is one."""
        return next((quantity for quantity in self.derived if quantity.elements), None)

    @property
    def auxiliary(self) -> bool:
        """Whether some of its free parameters, beside the phase, are of use only for what is derived from them."""
        return any(p.auxiliary for p in self.parameters if p.bounds[0] < p.bounds[1] and p.name != self.phase)

    @property
    def axis_angles(self) -> list[str]:
        """Names of the polar angles and azimuths that are of use only for an axis (`parameter.orientation`)."""
        angles = [p.name for p in self.parameters if p.auxiliary and p.kind != "scalar"]
        return [name for name in angles if name != self.phase]

    @property
    def reported(self) -> tuple[Parameter | Derived, ...]:
        """Parameters and derived quantities that reports and tables are about: no axes, nor what is auxiliary."""
        return tuple(q for q in self.quantities if not (q.axis or q.auxiliary))

    @property
    @abstractmethod
    def latex(self) -> str:
        """The equation as LaTeX."""

    #: Whether the model has compiled functions of one voxel.
    compiled: ClassVar[bool] = False

    @property
    def log_linear(self) -> bool:
        """Whether the logarithm of the signal is linear in the parameters and in the logarithm of the scale."""
        return False

    @property
    def kernel(self) -> Any:
        """Compiled signal and Jacobian of one voxel (see `bidsfit.models.kernel`)."""
        raise NotImplementedError(f"The model {self.name!r} has no compiled kernel.")

    @property
    def signal_kernel(self) -> Any:
        """Like `kernel`, without the Jacobian."""
        raise NotImplementedError(f"The model {self.name!r} has no compiled kernel.")

    @abstractmethod
    def torch_signal(self, parameters: Tensor, design: Tensor) -> Tensor:
        """Signal (..., n) from tensors of parameters (..., n_parameters) and design (n, n_variables)."""

    @abstractmethod
    def torch_signal_and_jacobian(self, parameters: Tensor, design: Tensor) -> tuple[Tensor, Tensor]:
        """Signal (n_voxels, n) and derivatives (n_voxels, n, n_parameters) from tensors as of `torch_signal`."""

    @abstractmethod
    def evaluate(
        self, parameters: NDArray[np.float64], design: NDArray[np.float64], *, derivatives: bool
    ) -> tuple[NDArray, NDArray | None]:
        """Signals (n_voxels, n), and derivatives (n_voxels, n, n_parameters) or None."""

    @cached_property
    def linear_constraints(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Matrix and limits of the constraints: ``matrix @ parameters <= limits``."""
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

    @property
    def averaged(self) -> bool:
        """Whether measurements that differ only in direction may be averaged."""
        return not (self.sequence or "direction" in self.variables)

    def average(self, acquisition: Acquisition, kind: Averaging = "arithmetic") -> DirectionAverage:
        """Average over the measurements that are alike in every variable of the model.

        The averages of a model of direction averages are weighted to be even over the sphere. For others, which take
        the signal to be the same along all directions, every measurement counts alike.
        """
        return DirectionAverage(acquisition, kind if self.averaged else "none", even=self.averaging)

    def reference_signal(self, signals: NDArray, acquisition: Acquisition) -> NDArray[np.float64]:
        """Values, shape (...), that signals (..., n) are divided by before a fit."""
        if self.reference == "none":
            return np.ones(signals.shape[:-1])
        if self.reference == "largest":
            return np.asarray(np.abs(signals).max(axis=-1))
        lowest = acquisition.b_values == acquisition.b_values.min()
        return np.average(signals[..., lowest], axis=-1, weights=acquisition.weights[lowest])

    def turned(self, signals: NDArray) -> NDArray:
        """Signals (..., n) of which the largest has the phase 0, if the model has a phase; else the signals."""
        if self.phase is None:
            return signals
        largest = np.take_along_axis(signals, np.abs(signals).argmax(axis=-1)[..., None], axis=-1)
        return np.asarray(signals * np.exp(-1j * np.angle(largest)))

    def fit_scale(
        self,
        parameters: NDArray[np.float64],
        signals: NDArray,
        measured: NDArray,
        weights: NDArray[np.float64],
        given: NDArray[np.float64] | None = None,
    ) -> NDArray:
        """Fill in the scale and the phase, if any, by least squares; return the signals with them.

        Parameters
        ----------
        parameters : ndarray, shape (n_voxels, n_parameters)
        signals : ndarray, shape (n_voxels, n)
            Of these parameters with the scale 1 and the phase 0.
        measured : ndarray, shape (n_voxels, n)
        weights : ndarray, shape (n,)
            Of the measurements.
        given : ndarray, shape (n_voxels,), optional
            The scale, where it is known.
        """
        if self.scale is None:
            return signals
        product = (measured * signals.conj()) @ weights
        with np.errstate(divide="ignore", invalid="ignore"):  # NaN without a signal, far beyond the bounds
            best: NDArray = product / (np.abs(signals) ** 2 @ weights)
        if self.phase is None:
            best = best.real.clip(min=0.0) if given is None else given
        else:
            best = best if given is None else given * np.exp(1j * np.angle(best))
            parameters[:, self.phase_index] = np.angle(best)
        parameters[:, self.scale_index] = np.abs(best)
        return np.asarray(signals * best[:, None])

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

    def signal(self, parameters: Mapping[str, ArrayLike] | ArrayLike, acquisition: Acquisition) -> NDArray:
        """Noise-free signal, shape (..., n_measurements); complex if the model is.

        Parameters
        ----------
        parameters : mapping of name to array, or array of shape (..., n_parameters)
            In the units of the parameter table.
        acquisition : Acquisition
        """
        return self._evaluated(parameters, acquisition, derivatives=False)[0]

    def signal_and_jacobian(
        self, parameters: Mapping[str, ArrayLike] | ArrayLike, acquisition: Acquisition
    ) -> tuple[NDArray, NDArray]:
        """Noise-free signal, shape (..., n), and its derivatives, shape (..., n, n_parameters)."""
        signal, jacobian = self._evaluated(parameters, acquisition, derivatives=True)
        assert jacobian is not None
        return signal, jacobian

    def _evaluated(
        self, parameters: Mapping[str, ArrayLike] | ArrayLike, acquisition: Acquisition, *, derivatives: bool
    ) -> tuple[NDArray, NDArray | None]:
        array = self.parameter_array(parameters)
        flat = np.ascontiguousarray(array.reshape(-1, array.shape[-1]))
        signal, jacobian = self.evaluate(flat, self.design(acquisition), derivatives=derivatives)
        grid = array.shape[:-1]
        return (
            signal.reshape(*grid, len(acquisition)),
            None if jacobian is None else jacobian.reshape(*grid, len(acquisition), len(self.names)),
        )

    @cached_property
    def derivation(self) -> Derivation:
        """The derived quantities as functions of parameters, with their gradients."""
        return Derivation(self.names, self.derived)

    def wrapped(self, parameters: NDArray[np.float64]) -> NDArray[np.float64]:
        """Parameters (n, n_parameters) with angles wrapped into their bounds: the same orientations."""
        return wrapped_angles(self.parameters, parameters)

    def usable(self, acquisition: Acquisition) -> NDArray[np.intp]:
        """Indices of the measurements that the model describes (see ``maximum_b`` and ``excluded_b``).

        Of a model of direction averages, shells whose directions give no mean are left out.
        """
        b = acquisition.b_values
        described = b <= self.maximum_b * (1 + JITTER)
        if self.excluded_b is not None:
            low, high = self.excluded_b
            described &= (b <= low * (1 + JITTER)) | (b >= high * (1 - JITTER))
        if self.averaging:
            for k in acquisition.without_mean:
                described[acquisition.shells[k].indices] = False
        return np.flatnonzero(described)

    def support(self, acquisition: Acquisition, enough: int | None = None) -> Support:
        """Whether a protocol supports the model, and what is missing.

        So many directions of a shell are ``enough`` where the requirements ask for more.
        """
        index = self.usable(acquisition)
        used = acquisition.select(index) if index.size else None
        shells = () if used is None else used.shells
        requirements = [requirement.with_enough(enough) for requirement in self.requirements]
        missing = [lack for requirement in requirements if (lack := requirement.missing(shells))]
        asked, words = {requirement.column for requirement in requirements}, []
        for name in acquisition.columns:
            column, found = column_of(name), {shell.values[name] for shell in shells}
            if name == "b" or name in self.variables:
                words.append(column.in_words(found))
            elif len(found) > 1:
                missing.append(
                    f"one {column.title} (the model does not describe its influence); the protocol has "
                    f"{column.in_unit(found)}"
                )
        for name in self.variables:
            if name == "direction":
                if used is None or _lacks_directions(used):
                    missing.append("the gradient directions of all measurements above b = 0")
            elif name not in acquisition.columns and name not in asked:
                field = column_of(name).field
                missing.append(f"{column_of(name).plural} ({name}{f', {field} of the metadata' if field else ''})")
        uneven = acquisition.without_mean if self.averaging else {}
        if uneven:
            said = "left out, as their directions give no mean over the sphere: "
            words[-1] += f"; {said}{', '.join(uneven.values())}"
            several = [word for k, word in uneven.items() if acquisition.shells[k].n_directions >= FEWEST_DIRECTIONS]
            if several:  # that they are too few is said already
                advice = f"; {said}{', '.join(several)}. Measure directions that are spread over the sphere"
                missing = [lack + advice for lack in missing]
        return Support(tuple(missing), " and ".join(words))

    def require_support(self, acquisition: Acquisition, enough: int | None = None) -> None:
        """Raise `UnsupportedProtocolError`, naming what is missing, unless the model is supported; see `support`."""
        support = self.support(acquisition, enough)
        if not support:
            raise UnsupportedProtocolError(
                f"The protocol does not support the model {self.name!r}. Missing: " + "; ".join(support.missing) + "."
            )


def as_real(values: NDArray, axis: int = -1) -> NDArray[np.float64]:
    """Real parts, then imaginary parts, concatenated along an axis; real arrays are returned unchanged."""
    return np.concatenate([values.real, values.imag], axis=axis) if np.iscomplexobj(values) else values


def _lacks_directions(acquisition: Acquisition) -> bool:
    """Whether any measurement above b = 0 has no known direction."""
    weighted = acquisition.b_values > 0
    return bool(weighted.any()) and (
        acquisition.directions is None or not acquisition.directions[weighted].any(axis=1).all()
    )
