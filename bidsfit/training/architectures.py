"""Architectures by name: functions from features to outputs, trained with torch and evaluated with NumPy."""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numba
import numpy as np
from numpy.typing import NDArray
from scipy.linalg import block_diag

from bidsfit.compiling import cached
from bidsfit.parallel import Progress
from bidsfit.registry import Registry
from bidsfit.simulation.simulator import Simulation, Simulator
from bidsfit.training.objectives import Objective
from bidsfit.training.trainer import Schedule, State, Trained, descend, member_seeds

if TYPE_CHECKING:
    from torch import Tensor, nn

#: Where the architectures of the package live. Other packages add theirs with the entry point "bidsfit.architectures".
REGISTRY = Registry(
    "architecture",
    "bidsfit.architectures",
    {
        "perceptron": "bidsfit.training.architectures:Perceptron",
        "forest": "bidsfit.training.forest:RandomForest",
        "convolution": "bidsfit.training.convolution:Convolution",
        "neighbourhood-attention": "bidsfit.training.attention:NeighbourhoodAttention",
        "self-attention": "bidsfit.training.attention:SelfAttention",
    },
)

#: Weights by name, of 32 bits.
Arrays = dict[str, NDArray[np.float32]]

#: Between the number of a network of an ensemble and the name of its array.
SEPARATOR = "/"

#: Voxels that go through a network at a time: what its layers hold of them fits in the cache of a core.
BLOCK = 512


class Architecture(ABC):
    """A function from the features of voxels to outputs.

    Subclasses are frozen dataclasses whose fields are the choices of the section ``architecture`` of a recipe. The
    result of a training, weights or trees, is called a machine.
    """

    name: ClassVar[str]
    #: Which estimators take it: "network" (net-uniform, ...) or "forest" (forest-uniform, ...).
    kind: ClassVar[str]
    #: What the section ``schedule`` of its recipes holds: a frozen dataclass.
    schedule: ClassVar[type]
    #: What its learning curve is over.
    unit: ClassVar[str]
    #: The member of a trained file that holds it.
    member: ClassVar[str]
    #: Neighbours on each side of a voxel, along x, y and z, that an estimate takes in. Where there are any, features
    #: are images, shape (n, x, y, z, n_features), and outputs those of the voxels all of whose neighbours are in them.
    reach: ClassVar[tuple[int, int, int]] = (0, 0, 0)

    def require_parts(self, objective: Objective, simulation: Simulation) -> None:  # noqa: B027
        """Raise `ValueError` if other parts of the recipe do not suit it; by default all do."""

    @abstractmethod
    def fit(
        self,
        objective: Objective,
        schedule: Any,
        simulator: Simulator,
        *,
        seed: int,
        start: Sequence[State] = (),
        device: str = "cpu",
        threads: int = 1,
        progress: Progress | None = None,
    ) -> Trained:
        """Train it, from where an earlier training ended if there is one; the same seed gives the same machine."""

    @abstractmethod
    def forward(self, machine: Any, features: NDArray[np.float32]) -> NDArray:
        """Outputs, shape (n, n_outputs), of features, shape (n, n_features)."""

    @abstractmethod
    def dump(self, machine: Any) -> bytes:
        """Serialise a machine for a trained file."""

    @abstractmethod
    def load(self, content: bytes, inputs: int, outputs: int) -> Any:
        """Deserialise what `dump` wrote, without executing anything in it.

        Raises
        ------
        ValueError
            If it is not a machine with so many inputs and outputs.
        """


class NetworkArchitecture(Architecture):
    """An architecture trained by gradient descent in torch, and stored and evaluated as NumPy arrays."""

    kind, schedule, unit, member = "network", Schedule, "step", "weights.safetensors"
    #: Whether `pruned` may remove something.
    prunes: ClassVar[bool] = False

    @abstractmethod
    def module(self, inputs: int, outputs: int) -> nn.Module:
        """The untrained network; its inputs, shape (n, inputs), have mean 0 and standard deviation 1.

        That of an architecture that reads neighbours takes patches, shape (n, x, y, z, inputs), whose last input is 1
        where a voxel is there, and else 0.

        What it computes must be possible under `torch.vmap`, by which many networks are trained together.
        """

    def arrays(self, module: nn.Module) -> Arrays:
        """Copies of the weights of a network, by their names in torch."""
        return {name: value.detach().cpu().numpy().copy() for name, value in module.state_dict().items()}

    def folded(self, arrays: Arrays, centre: NDArray[np.float32], width: NDArray[np.float32]) -> Arrays:
        """Arrays of a network for raw features, from those of a network for (features - centre) / width.

        By default the two are stored as "centre" and "width", for `forward` to use.
        """
        return arrays | {"centre": centre, "width": width}

    def pruned(self, arrays: Arrays, features: NDArray[np.float32]) -> Arrays:
        """Arrays without the parts that contribute nothing for these features; by default unchanged."""
        return arrays

    @abstractmethod
    def forward(self, machine: Arrays, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Outputs (n, n_outputs) of raw features (n, n_features)."""

    @abstractmethod
    def require(self, arrays: Mapping[str, NDArray], inputs: int, outputs: int) -> None:
        """Raise `ValueError` if arrays do not belong to this architecture; they are finite."""

    def facts(self, arrays: Arrays) -> dict[str, Any]:
        """Facts about a trained network, for JSON."""
        return {"Numbers": int(sum(array.size for array in arrays.values()))}

    def fit(
        self,
        objective: Objective,
        schedule: Schedule,
        simulator: Simulator,
        *,
        seed: int,
        start: Sequence[State] = (),
        **options: Any,
    ) -> Trained:
        """Train a network, or an ensemble: its curve is that of the first, and it has converged where all have."""
        seeds = member_seeds(seed, schedule.members or schedule.restarts or 1)
        found = descend(self, objective, schedule, simulator, seeds, start=start, **options)
        if schedule.members is None:
            return min(found, key=lambda one: float(one.facts["ValidationLoss"]))
        first = found[0]
        converged = all(one.facts["Converged"] for one in found)
        facts = first.facts | {"Converged": converged, "Members": len(found)}
        return Trained(tuple(o.machine for o in found), first.curve, facts, tuple(s for o in found for s in o.states))

    def dump(self, machine: Arrays | tuple[Arrays, ...]) -> bytes:
        from safetensors.numpy import save

        arrays = machine if isinstance(machine, dict) else _prefixed(machine)
        return save({name: np.ascontiguousarray(array) for name, array in arrays.items()})

    def load(self, content: bytes, inputs: int, outputs: int) -> Arrays | tuple[Arrays, ...]:
        from safetensors.numpy import load

        arrays: Arrays = load(content)
        require_finite(arrays)
        members: dict[str, Arrays] = {}
        for name, array in arrays.items():
            member, _, own = name.rpartition(SEPARATOR)
            members.setdefault(member, {})[own] = array
        for own_arrays in members.values():
            self.require(own_arrays, inputs, outputs)
        return arrays if list(members) == [""] else tuple(members[name] for name in sorted(members, key=_number))


@dataclass(frozen=True)
class Perceptron(NetworkArchitecture):
    """A multilayer perceptron.

    Its arrays are "0.weight", shape (inputs, outputs), and "0.bias" of the first layer, and so on. Batch normalisation
    is folded into them; parallel networks are one whose weights are blocks on the diagonal.

    Parameters
    ----------
    units : int or "inputs"
        Of a hidden layer; "inputs" is as many as the network has inputs.
    hidden_layers : int
    activation : {"relu", "elu", "tanh"}
        By default rectified linear units.
    parallel : bool
        Whether every output has a network of its own, of so many units and layers.
    batch_norm : bool
        Whether the values of a layer are normalised over the batch, before the activation.
    dropout : float, optional
        Share of the units that a training step leaves out, in all hidden layers but the last.
    skips : bool
        Whether every hidden layer but the first adds its input to its output.
    """

    units: int | Literal["inputs"] = 280
    hidden_layers: int = 2
    activation: Literal["relu", "elu", "tanh"] | None = None
    parallel: bool | None = None
    batch_norm: bool | None = None
    dropout: float | None = None
    skips: bool | None = None

    name = "perceptron"

    def __post_init__(self) -> None:
        if self.dropout is not None and not 0 < self.dropout < 1:
            raise ValueError(f"dropout must be a share of the units between 0 and 1, found {self.dropout}.")

    @property
    def prunes(self) -> bool:  # type: ignore[override]
        return self.activation in (None, "relu") and not self.skips

    def module(self, inputs: int, outputs: int) -> nn.Module:
        from torch import nn

        class Skip(nn.Sequential):
            def forward(self, values: Tensor) -> Tensor:
                return values + super().forward(values)

        activations = {None: nn.ReLU, "relu": nn.ReLU, "elu": nn.ELU, "tanh": nn.Tanh}
        networks = outputs if self.parallel else 1
        units = networks * (inputs if self.units == "inputs" else self.units)
        before, parts = inputs, 1  # all networks read all inputs
        layers: list[nn.Module] = []
        for i in range(self.hidden_layers):
            layer = [_linear(before, units, parts, bias=not self.batch_norm)]  # which would take a bias out
            before, parts = units, networks
            if self.batch_norm:
                layer.append(nn.BatchNorm1d(units))
            layer.append(activations[self.activation]())
            if self.dropout is not None and i < self.hidden_layers - 1:
                layer.append(nn.Dropout(self.dropout))
            layers += [Skip(*layer)] if self.skips and i > 0 else layer
        return nn.Sequential(*layers, _linear(before, outputs, parts))

    def arrays(self, module: nn.Module) -> Arrays:
        from torch import nn

        found: list[tuple[NDArray, Any]] = []
        part: Any
        for part in module.modules():
            if isinstance(part, nn.Linear):
                weight = part.weight.detach().cpu().numpy().T
            elif hasattr(part, "blocks"):
                weight = block_diag(*part.blocks.detach().cpu().numpy())
            elif isinstance(part, nn.BatchNorm1d):
                weight, bias = found[-1]
                mean, variance, gain, shift = (
                    values.detach().cpu().numpy()
                    for values in (part.running_mean, part.running_var, part.weight, part.bias)
                    if values is not None
                )
                scale = gain / np.sqrt(variance + part.eps)
                found[-1] = weight * scale, (bias - mean) * scale + shift
                continue
            else:
                continue
            found.append((weight, np.float32(0) if part.bias is None else part.bias.detach().cpu().numpy()))
        return _named(found)

    def folded(self, arrays: Arrays, centre: NDArray[np.float32], width: NDArray[np.float32]) -> Arrays:
        scaled = arrays["0.weight"] / width[:, None]
        return arrays | {"0.weight": scaled, "0.bias": arrays["0.bias"] - centre @ scaled}

    def pruned(self, arrays: Arrays, features: NDArray[np.float32]) -> Arrays:
        """Arrays without the units that are inactive for all features.

        Such a unit has no gradient and contributes nothing, so the outputs for these samples stay the same up to
        rounding. A third to a half of the units end inactive; removing them makes the network two to three times as
        fast.
        """
        kept, values = [], features
        (weight, bias), *rest = _layers(arrays)
        for following, next_bias in rest:
            values = np.maximum(values @ weight + bias, 0)
            awake = np.any(values > 0, axis=0)
            kept.append((weight[:, awake], bias[awake]))
            values, weight, bias = values[:, awake], following[awake], next_bias
        return _named([*kept, (weight, bias)])

    def forward(self, machine: Arrays, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Outputs (n, n_outputs) of features (n, n_features).

        Works on blocks that fit in the cache and reuses their memory, for speed.
        """
        layers, kind = _layers(machine), KINDS[self.activation]
        found = np.empty((len(features), layers[-1][1].size), dtype=np.float32)
        held = [np.empty((BLOCK, bias.size), dtype=np.float32) for _, bias in layers]
        for start in range(0, len(features), BLOCK):
            values = features[start : start + BLOCK]
            n = len(values)
            for i, (weight, bias) in enumerate(layers):
                before, values = values, np.matmul(values, weight, out=held[i][:n])
                _activate(values, bias, kind if i < len(layers) - 1 else LINEAR)
                if self.skips and 0 < i < len(layers) - 1:
                    values += before
            found[start : start + n] = values
        return found

    def require(self, arrays: Mapping[str, NDArray], inputs: int, outputs: int) -> None:
        names = [f"{i}.{part}" for i in range(len(arrays) // 2) for part in ("weight", "bias")]
        if not names or set(names) != set(arrays):
            raise ValueError("its arrays are not the weights and biases of layers")
        layers = _layers(arrays)
        widths = [inputs, *(bias.size for _, bias in layers)]
        if [weight.shape for weight, _ in layers] != list(itertools.pairwise(widths)) or widths[-1] != outputs:
            shapes = ", ".join(str(weight.shape) for weight, _ in layers)
            raise ValueError(f"layers of shapes {shapes} are no network of {inputs} signals and {outputs} parameters")
        if any(bias.ndim != 1 or weight.dtype != np.float32 or bias.dtype != np.float32 for weight, bias in layers):
            raise ValueError("its weights and biases are not matrices and vectors of 32-bit numbers")

    def facts(self, arrays: Arrays) -> dict[str, Any]:
        return {"Units": [int(bias.size) for _, bias in _layers(arrays)[:-1]]}


def _linear(inputs: int, outputs: int, parts: int, bias: bool = True) -> nn.Module:
    """A linear layer; of networks side by side, those of each in one operation, which reads and makes its own share.

    Its weights ``blocks`` (parts, inputs of one, outputs of one) start as those of `torch.nn.Linear` do.
    """
    import torch
    from torch import nn

    if parts == 1:
        return nn.Linear(inputs, outputs, bias)

    class Blocks(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            limit = (inputs // parts) ** -0.5
            self.blocks = nn.Parameter(torch.empty(parts, inputs // parts, outputs // parts).uniform_(-limit, limit))
            self.bias = nn.Parameter(torch.empty(outputs).uniform_(-limit, limit)) if bias else None

        def forward(self, values: Tensor) -> Tensor:
            made = torch.einsum("...pi,pio->...po", values.unflatten(-1, (parts, -1)), self.blocks).flatten(-2)
            return made if self.bias is None else made + self.bias

    return Blocks()


def _prefixed(machines: Sequence[Arrays]) -> Arrays:
    """Arrays of the networks of an ensemble, named by their number."""
    return {f"{i}{SEPARATOR}{name}": array for i, arrays in enumerate(machines) for name, array in arrays.items()}


def _number(text: str) -> int:
    """The number of a network; raise `ValueError` if it is none."""
    if not text.isdecimal():
        raise ValueError(f"its arrays name the network {text!r} of an ensemble, which is no number")
    return int(text)


def _layers(arrays: Mapping[str, NDArray]) -> list[tuple[NDArray, NDArray]]:
    """Weights and biases of the layers of a perceptron, in order."""
    return [(arrays[f"{i}.weight"], arrays[f"{i}.bias"]) for i in range(len(arrays) // 2)]


def _named(layers: list[tuple[NDArray, NDArray]]) -> Arrays:
    """Copies of the arrays of layers, by name."""
    parts = [zip(("weight", "bias"), layer, strict=True) for layer in layers]
    return {f"{i}.{name}": np.array(array, order="C") for i, layer in enumerate(parts) for name, array in layer}


#: Activations by number, for compiled code.
LINEAR, KINDS = 0, {None: 1, "relu": 1, "elu": 2, "tanh": 3}


@cached
@numba.njit(nogil=True, error_model="numpy")
def _activate(values: NDArray, bias: NDArray, kind: int) -> None:
    """Add the bias and activate in one pass over memory."""
    zero = np.float32(0)
    lowest = zero if kind == 1 else np.float32(-np.inf)
    for i in range(values.shape[0]):
        if kind < 2:
            for j in range(values.shape[1]):
                value = values[i, j] + bias[j]
                values[i, j] = value if value > lowest else lowest
        else:
            for j in range(values.shape[1]):
                value = values[i, j] + bias[j]
                if kind == 3:
                    values[i, j] = np.tanh(value)
                else:
                    values[i, j] = value if value > zero else np.expm1(value)


def require_finite(arrays: Mapping[str, NDArray]) -> None:
    """Raise `ValueError` naming the first array that is not all finite numbers."""
    for name, array in arrays.items():
        if not np.issubdtype(array.dtype, np.number) or not np.isfinite(array).all():
            raise ValueError(f"{name} holds something that is not a finite number")
