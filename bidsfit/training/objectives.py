"""Objectives by name: the loss that a training minimises, and how outputs become estimates."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from bidsfit.models.dti import ELEMENTS
from bidsfit.models.space import ParameterSpace
from bidsfit.registry import Registry
from bidsfit.simulation.simulator import Batch, Simulator

if TYPE_CHECKING:
    from torch import Tensor

#: Where the objectives of the package live. Other packages add theirs with the entry point "bidsfit.objectives".
REGISTRY = Registry(
    "objective",
    "bidsfit.objectives",
    {
        "parameters": "bidsfit.training.objectives:Parameters",
        "logits": "bidsfit.training.objectives:Logits",
        "relative": "bidsfit.training.objectives:Relative",
        "signals": "bidsfit.training.objectives:Signals",
        "directions": "bidsfit.training.objectives:Directions",
    },
)

#: Logits of 0 and 1 are infinite: coordinates are kept this far inside.
CLIP = 1e-3
#: Squarings of a tensor, after which its main axis outweighs the others.
SQUARINGS = 3
#: A network can state standard deviations from exp(-7) = 0.0009 to 1, in the unit of the errors.
STATED = 7.0


class Objective(ABC):
    """A loss and the outputs that it needs.

    Subclasses are frozen dataclasses whose fields are the choices of the section ``objective`` of a recipe. By default
    there is one output per parameter: the logit of its coordinate in the unit cube of the parameter space.
    """

    name: ClassVar[str]
    #: Whether its loss reads `Batch.truth`, targets or bound, so that measured signals cannot train.
    needs_truth: ClassVar[bool] = True
    #: Whether its loss reads `Batch.bound`, which is expensive.
    needs_bound: bool = False
    #: Whether its loss is a mean square of the errors of the parameters.
    squares_errors: bool = False
    #: Whether all estimates lie within the bounds of the parameter space, and meet its constraints.
    keeps_bounds: bool = True

    def n_outputs(self, space: ParameterSpace) -> int:
        """Number of outputs per voxel."""
        return len(space.names)

    @abstractmethod
    def loss(self, outputs: Tensor, batch: Batch[Tensor], simulator: Simulator) -> Tensor:
        """Loss of a batch.

        It must be possible under `torch.vmap`, by which many networks are trained together.

        Parameters
        ----------
        outputs : Tensor, shape (n, n_realisations, n_outputs)
            Outputs for the noisy copies of every voxel.
        batch : Batch
        simulator : Simulator
            Which made the batch; it holds parameter space and acquisition.
        """

    def estimates(
        self, outputs: NDArray[np.float32], space: ParameterSpace
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Coordinates in the unit cube and parameters, each (n, n_parameters), from outputs (n, n_outputs)."""
        cube = sigmoid(outputs[:, : len(space.names)])
        return cube, space.from_cube(cube)

    def scale_of(self, outputs: Any, space: ParameterSpace) -> Any:
        """S0, shape (...), from outputs (..., n_outputs), in the unit of the features.

        None where it follows from the other parameters by least squares.
        """
        return None

    @property
    def states_spread(self) -> bool:
        """Whether the network states the standard deviation of its estimates: see `spread`."""
        return False

    def spread(self, outputs: NDArray[np.float32], space: ParameterSpace) -> NDArray[np.float64]:
        """Standard deviations of the parameters (n, n_parameters) that outputs (n, n_outputs) state."""
        raise NotImplementedError(f"The objective {self.name!r} teaches no standard deviation.")


@dataclass(frozen=True)
class _Estimating(Objective):
    """How outputs become parameters, for objectives that compare these or signals computed from them.

    Parameters
    ----------
    output : {"sigmoid", "hard-sigmoid", "absolute", "linear"}
        "sigmoid" (default) and "hard-sigmoid", which is (output + 3) / 6 between 0 and 1, give the coordinate in the
        unit cube of the parameter space. "absolute" and "linear" give the parameter itself in units of the width of its
        bounds, as absolute value and counted from the lower bound; nothing keeps it below the upper bound.
    widening : float, optional
        With the sigmoids, estimates may leave the bounds by this fraction of their width on each side (0.3: Kaandorp).
    bounds : mapping of parameter to (lower, upper), optional
        Bounds that this is about, in the units of the model, where they are not those of the parameter space; outputs
        then do not keep the constraints between parameters.
    s0 : float or "measured", optional
        S0 is one more output, between 0 and this number, in the unit of the features (`Simulation.unit`); or it is that
        unit, the signal of the lowest b-value. By default S0 follows from the other parameters by least squares.
    amplitude : str, optional
        Name of a fraction whose output is an amplitude instead. The output of S0 is then the amplitude of the rest: S0
        is their sum, and the fraction its share (f: Kaandorp).
    exchange : str, optional
        Name of a fraction. Where two parameters that the model orders (D and Dstar) come out in the wrong order, they
        are exchanged, and the fraction is its complement; the signal is the same (Kaandorp exchanges whole images).
    """

    output: Literal["sigmoid", "hard-sigmoid", "absolute", "linear"] | None = None
    widening: float | None = None
    bounds: Mapping[str, tuple[float, float]] | None = None
    s0: float | Literal["measured"] | None = None
    amplitude: str | None = None
    exchange: str | None = None

    def __post_init__(self) -> None:
        if self.widening is not None and self.output in ("absolute", "linear"):
            raise ValueError(f"widening is for sigmoids, and the output is {self.output!r}; leave it out.")
        if self.amplitude is not None and not self._s0_is_output:
            raise ValueError("An amplitude is a part of S0, which must be an output; give s0 a number.")

    @property
    def keeps_bounds(self) -> bool:  # type: ignore[override]
        free = self.output in ("absolute", "linear") or self.widening or self.amplitude
        return self.bounds is None and not free

    @property
    def _s0_is_output(self) -> bool:
        return self.s0 not in (None, "measured")

    def n_outputs(self, space: ParameterSpace) -> int:
        model = space.model
        if self.s0 is not None and model.scale is None:
            raise ValueError(f"The objective has an S0 (s0), and the model {model.name!r} has none.")
        for name in (*(self.bounds or ()), *filter(None, [self.amplitude, self.exchange])):
            if name not in model.names:
                raise ValueError(
                    f"The objective names {name!r}; the model {model.name!r} has {', '.join(model.names)}."
                )
        return super().n_outputs(space) + self._s0_is_output

    def scale_of(self, outputs: Any, space: ParameterSpace) -> Any:
        if not self._s0_is_output:
            return None if self.s0 is None else 0 * outputs[..., -1] + 1
        last = outputs[..., -1]
        if self.output in ("absolute", "linear"):
            found = self.s0 * (abs(last) if self.output == "absolute" else last)
        else:
            found = self.s0 * self._coordinate(last)
        parts = [column for name, column in self._columns(outputs, space).items() if name == self.amplitude]
        return sum(parts, found)

    def _coordinate(self, column: Any) -> Any:
        """Where an output lies between two bounds, from 0 to 1 but for the widening; sigmoids only."""
        if self.output == "hard-sigmoid":
            found = ((column + 3) / 6).clip(0, 1)
        else:
            found = sigmoid(column) if isinstance(column, np.ndarray) else column.sigmoid()
        wide = self.widening or 0.0
        return (1 + 2 * wide) * found - wide if wide else found

    def _columns(self, outputs: Any, space: ParameterSpace) -> dict[str, Any]:
        """What outputs stand for, by the parameters of a space."""
        values = outputs[..., : len(space.names)]
        if self.output in (None, "sigmoid", "hard-sigmoid"):
            values = self._coordinate(values)
        elif self.output == "absolute":
            values = abs(values)
        columns = [values[..., j] for j in range(len(space.names))]
        if self.bounds is None and self.output not in ("absolute", "linear"):
            return dict(zip(space.names, space.columns(columns), strict=True))
        own = dict(zip(space.names, space.bounds.tolist(), strict=True)) | dict(self.bounds or {})
        found = {}
        for name, column in zip(space.names, columns, strict=True):
            low, high = own[name]
            found[name] = (0.0 if self.output == "absolute" else low) + (high - low) * column
        return found

    def parameters(self, outputs: Any, space: ParameterSpace) -> Any:
        """Parameters (..., n_parameters) from outputs (..., n_outputs); both are tensors or arrays of NumPy."""
        stack: Any = np.stack
        if not isinstance(outputs, np.ndarray):
            import torch

            stack = torch.stack
        found = self._columns(outputs, space)
        if self.amplitude in found:
            found[self.amplitude] = found[self.amplitude] / self.scale_of(outputs, space)
        return stack(list(found.values()), -1)

    def estimates(
        self, outputs: NDArray[np.float32], space: ParameterSpace
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        parameters = np.asarray(self.parameters(outputs.astype(np.float64), space))
        for below, above in space.orders if self.exchange in space.names else ():
            wrong = parameters[:, below] > parameters[:, above]
            parameters[:, [below, above]] = np.sort(parameters[:, [below, above]], axis=1)
            fraction = space.names.index(self.exchange)
            parameters[wrong, fraction] = 1 - parameters[wrong, fraction]
        return space.to_cube(parameters), parameters


@dataclass(frozen=True)
class Parameters(_Estimating):
    """Errors of the parameters with respect to the targets: the truth, or fits (``labels`` of the simulation).

    By default their mean square, relative to the widths of the bounds (Gyori et al. 2022, the text). The angles of an
    axis do not count: see `bidsfit.training.inference.tensor_axes`.

    Parameters
    ----------
    scale : {"range", "mean", "bound"}
        What the error of a parameter is divided by: the width of its bounds (default); their middle, which is the mean
        of a uniform distribution (Epstein et al.); or the Cramér-Rao bound of the voxel at its own noise ("bound":
        MSE-CRB [1]_), so that a parameter that the signal does not determine has no weight.
    only : str, optional
        Name of a parameter; the others do not count.
    error : {"squared", "absolute", "stated"}
        Square (default) or absolute value of the error; or "stated": the Gaussian likelihood of the error with a
        standard deviation that is a second output for every parameter, and becomes the estimator's own.
    form : {"wbce", "wvce"}, optional
        Bias and variance over the noise realisations of every voxel, squared error being their sum [2]_. "wbce":
        squared bias + balance * variance. "wvce": squared bias + balance * (variance above the allowance). The squared
        bias is corrected for the finite number of realisations, so that "wbce" with a balance of 1 is the mean squared
        error.
    balance, allowance : float, optional
        lambda and delta of the reference; 1 by default.

    References
    ----------
    .. [1] Zhang X et al. Magnetic Resonance in Medicine 2022;88:436-449.
    .. [2] Mao A, Flassbeck S, Assländer J. arXiv 2312.11468. The form "wbce" is that of Diskin T, Eldar YC, Wiesel A.
       arXiv 2110.12403.
    """

    scale: Literal["range", "mean", "bound"] | None = None
    only: str | None = None
    error: Literal["squared", "absolute", "stated"] | None = None
    form: Literal["wbce", "wvce"] | None = None
    balance: float | None = None
    allowance: float | None = None

    name = "parameters"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.form is not None and self.error not in (None, "squared"):
            raise ValueError(f"The form {self.form!r} is of squared errors; the error cannot be {self.error!r}.")
        if (self.balance is not None and self.form is None) or (self.allowance is not None and self.form != "wvce"):
            raise ValueError("balance needs a form (wbce or wvce), and allowance the form wvce.")
        if self.states_spread and self.scale == "bound":
            raise ValueError("An error that is stated cannot be relative to the bound, which depends on the truth.")
        if self.s0 is not None and (self.states_spread or self.scale == "bound"):
            raise ValueError("With an output of S0 (s0) errors are neither stated nor relative to the bound.")
        if self.s0 == "measured":
            raise ValueError("An S0 that is measured has no error to learn from; leave s0 out.")

    @property
    def needs_bound(self) -> bool:  # type: ignore[override]
        return self.scale == "bound"

    @property
    def squares_errors(self) -> bool:  # type: ignore[override]
        return self.error in (None, "squared")

    @property
    def states_spread(self) -> bool:
        return self.error == "stated"

    def n_outputs(self, space: ParameterSpace) -> int:
        if self.only is not None and self.only not in space.names:
            raise ValueError(f"The objective names the parameter {self.only!r}; found {', '.join(space.names)}.")
        return super().n_outputs(space) + len(space.names) * self.states_spread

    def loss(self, outputs: Tensor, batch: Batch[Tensor], simulator: Simulator) -> Tensor:
        import torch

        space, weights = simulator.space, batch.weights
        unit = batch.bound[:, None] if self.needs_bound else outputs.new_tensor(self._unit(space))
        errors = (self.parameters(outputs, space) - batch.targets) / unit
        names = list(space.names)
        if self.s0 is not None:
            missed = self.scale_of(outputs, space) - batch.s0[:, None] / batch.unit
            half = 2 if self.scale == "mean" else 1
            errors, names = torch.cat([errors, half * missed[..., None] / self.s0], dim=-1), [*names, ""]
        counted = [name not in space.model.axis_angles and self.only in (None, name) for name in names]
        if not all(counted):
            weights = weights * outputs.new_tensor(counted)
        if self.error == "absolute":
            cost = errors.abs()
        elif self.error == "stated":
            log_spread = -STATED * outputs[..., len(space.names) :].sigmoid()
            cost = log_spread + errors**2 / 2 * (-2 * log_spread).exp()
        elif self.form is None:
            cost = errors**2
        else:
            variance, weights = errors.var(dim=1), weights.mean(dim=1)
            bias_squared = errors.mean(dim=1) ** 2 - variance / errors.shape[1]
            if self.form == "wvce":
                variance = (variance - (1.0 if self.allowance is None else self.allowance)).clip(min=0.0)
            cost = bias_squared + (1.0 if self.balance is None else self.balance) * variance
        return (cost * weights).mean()

    def spread(self, outputs: NDArray[np.float32], space: ParameterSpace) -> NDArray[np.float64]:
        return np.asarray(self._unit(space) * np.exp(-STATED * sigmoid(outputs[:, len(space.names) :])))

    def _unit(self, space: ParameterSpace) -> NDArray[np.float64]:
        return space.bounds.mean(axis=1) if self.scale == "mean" else space.span


@dataclass(frozen=True)
class Directions(Parameters):
    """Errors of the parameters, and the spherical variance of the main direction of a diffusion tensor.

    The variance of an axis u about the true one e is 1 - (u e)^2, the squared sine of the angle between them. It is the
    mean over the axes of the estimated tensor, weighted by the eighth powers of their eigenvalues: nearly that of the
    main one, and smooth where two are alike. Voxels count as much as the fractional anisotropy of their targets.

    Parameters
    ----------
    weight : float
        Of the variance beside the mean square of the errors, which are relative to the widths of the bounds.
    """

    weight: float = 0.1

    name = "directions"
    squares_errors = False

    def n_outputs(self, space: ParameterSpace) -> int:
        if not set(ELEMENTS) <= set(space.names):
            raise ValueError(
                f"The objective {self.name!r} needs a diffusion tensor, which {space.model.name!r} has not."
            )
        return super().n_outputs(space)

    def loss(self, outputs: Tensor, batch: Batch[Tensor], simulator: Simulator) -> Tensor:
        import torch

        space = simulator.space
        values, axes = torch.linalg.eigh(_tensors(batch.targets, space))
        rest = values - values.mean(dim=-1, keepdim=True)
        anisotropy = (1.5 * (rest**2).sum(dim=-1) / (values**2).sum(dim=-1).clip(min=1e-12)).sqrt()
        power = _tensors(self.parameters(outputs, space), space)
        for _ in range(SQUARINGS):
            power = power @ power
            power = power / power.diagonal(dim1=-2, dim2=-1).sum(dim=-1).clip(min=1e-12)[..., None, None]
        true = axes[..., 2]
        variance = 1 - (true * (power @ true[..., None])[..., 0]).sum(dim=-1)
        return (
            super().loss(outputs, batch, simulator)
            + self.weight * (anisotropy * variance * batch.weights[..., 0]).mean()
        )


def _tensors(parameters: Tensor, space: ParameterSpace) -> Tensor:
    """Diffusion tensors (..., 3, 3) of parameters (..., n_parameters)."""
    import torch

    xx, yy, zz, xy, xz, yz = (parameters[..., space.names.index(name)] for name in ELEMENTS)
    return torch.stack([xx, xy, xz, xy, yy, yz, xz, yz, zz], dim=-1).unflatten(-1, (3, 3))


@dataclass(frozen=True)
class Signals(_Estimating):
    """Misfit of the measured signals, without any truth: self-supervised training.

    S0 follows from the other parameters by least squares, as in the estimator, unless it is an output.

    Parameters
    ----------
    error : {"squared", "absolute", "rician"}
        Square (default) or absolute value of the difference between measured and predicted signal, relative to S0 (or
        in the unit of the features, where the simulation names one), or the negative logarithm of the Rician likelihood
        at the noise level of the voxel. Every measurement counts once.
    largest : float, optional
        Predicted signals are cut off at 0 and at this number, in the unit of the features, where widened bounds could
        make them overflow.
    """

    error: Literal["squared", "absolute", "rician"] | None = None
    largest: float | None = None

    name = "signals"
    needs_truth = False

    def n_outputs(self, space: ParameterSpace) -> int:
        if self.error == "rician" and space.model.complex_valued:
            raise ValueError(
                f"The Rician likelihood is of magnitudes, and the signals of the model {space.model.name!r} are "
                "complex; take squared errors."
            )
        return super().n_outputs(space)

    def loss(self, outputs: Tensor, batch: Batch[Tensor], simulator: Simulator) -> Tensor:
        import torch

        model = simulator.space.model
        space = simulator.space
        parameters = torch.stack(space.completed(self.parameters(outputs, space).unbind(dim=-1)), dim=-1)
        design = outputs.new_tensor(model.design(simulator.acquisition))
        y, signal = batch.noisy, model.torch_signal(parameters, design)
        if model.phase is not None:
            product = (signal.conj() * y * outputs.new_tensor(simulator.acquisition.weights)).sum(dim=-1, keepdim=True)
            signal = signal * torch.polar(torch.ones_like(product.real), product.angle())
        if model.complex_valued:
            y, signal = (torch.cat([values.real, values.imag], dim=-1) for values in (y, signal))
        counts = outputs.new_tensor(np.tile(simulator.acquisition.weights, 1 + model.complex_valued))
        if self.s0 is not None:
            signal = signal * (self.scale_of(outputs, space) * batch.unit)[..., None]
        elif model.scale is not None:
            product, square = (counts * y * signal).sum(dim=-1), (counts * signal**2).sum(dim=-1)
            signal = signal * (product / square).clip(min=0.0)[..., None]
        if self.largest is not None:
            signal = signal.clip(min=0.0).minimum(self.largest * batch.unit[..., None])
        if self.error == "rician":
            sigma = batch.sigma[:, None, None]
            cost = ((y - signal) / sigma) ** 2 / 2 - torch.special.i0e(y * signal / sigma**2).log()
        else:
            named = simulator.simulation.unit is not None
            rest = (y - signal) / (batch.unit[..., None] if named else batch.s0[:, None, None])
            cost = rest.abs() if self.error == "absolute" else rest**2
        return (cost * counts / counts.mean() * batch.weights).mean()


@dataclass(frozen=True)
class Logits(Objective):
    """Mean squared error of the logits, which weights errors near the bounds more."""

    name = "logits"

    def loss(self, outputs: Tensor, batch: Batch[Tensor], simulator: Simulator) -> Tensor:
        import torch

        return ((outputs - torch.logit(batch.cube, eps=CLIP)) ** 2 * batch.weights).mean()


@dataclass(frozen=True)
class Relative(Objective):
    """Like "parameters", for outputs that are the parameters scaled to 0 at the lower and 1 at the upper bound.

    For architectures whose outputs are means of training targets and thus meet bounds and linear constraints.
    """

    name = "relative"
    squares_errors = True

    def loss(self, outputs: Tensor, batch: Batch[Tensor], simulator: Simulator) -> Tensor:
        space = simulator.space
        low, span = (outputs.new_tensor(values) for values in (space.bounds[:, 0], space.span))
        return ((outputs - (batch.targets - low) / span) ** 2 * batch.weights).mean()

    def estimates(
        self, outputs: NDArray[np.float32], space: ParameterSpace
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        parameters = np.asarray(space.bounds[:, 0] + outputs * space.span)
        return space.to_cube(parameters), parameters


def sigmoid(values: NDArray[np.floating]) -> NDArray[np.float64]:
    """Logistic function without overflow."""
    return 0.5 * (1.0 + np.tanh(0.5 * values.astype(np.float64)))
