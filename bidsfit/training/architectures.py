"""Architectures by name: functions from features to outputs, trained with torch and evaluated with NumPy."""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numba
import numpy as np
from numpy.typing import NDArray

from bidsfit.compiling import cached
from bidsfit.parallel import Progress
from bidsfit.registry import Registry
from bidsfit.simulation.simulator import Simulation, Simulator
from bidsfit.training.objectives import Objective
from bidsfit.training.trainer import Schedule, Trained, descend, member_seeds

if TYPE_CHECKING:
    from torch import nn

#: Where the architectures of the package live. Other packages add theirs with the entry point "bidsfit.architectures".
REGISTRY = Registry(
    "architecture",
    "bidsfit.architectures",
    {
        "perceptron": "bidsfit.training.architectures:Perceptron",
        "forest": "bidsfit.training.forest:RandomForest",
        "convolution": "bidsfit.training.convolution:Convolution",
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
        start: Trained | None = None,
        device: str = "cpu",
        threads: int = 1,
        progress: Progress | None = None,
    ) -> Trained:
        """Train it, from what an earlier training found if there is one; the same seed gives the same machine."""

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
        """Outputs (n, n_outputs) of raw features (n, n_features); without torch."""

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
        start: Trained | None = None,
        **options: Any,
    ) -> Trained:
        """Train a network, or an ensemble: its curve is that of the first, and it has converged where all have."""
        seeds = member_seeds(seed, schedule.members or schedule.restarts or 1)
        states = () if start is None else start.states
        found = descend(self, objective, schedule, simulator, seeds, start=states, **options)
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
    """A multilayer perceptron with rectified linear units.

    Its arrays are "0.weight", shape (inputs, outputs), and "0.bias" of the first layer, and so on.

    Parameters
    ----------
    units, hidden_layers : int
    """

    units: int = 280
    hidden_layers: int = 2

    name = "perceptron"
    prunes = True

    def module(self, inputs: int, outputs: int) -> nn.Module:
        from torch import nn

        widths = [inputs, *[self.units] * self.hidden_layers]
        layers: list[nn.Module] = []
        for before, after in itertools.pairwise(widths):
            layers += [nn.Linear(before, after), nn.ReLU()]
        return nn.Sequential(*layers, nn.Linear(widths[-1], outputs))

    def arrays(self, module: nn.Module) -> Arrays:
        from torch import nn

        found = [part for part in module.modules() if isinstance(part, nn.Linear)]
        return _named([(part.weight.detach().cpu().numpy().T, part.bias.detach().cpu().numpy()) for part in found])

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
        layers = _layers(machine)
        found = np.empty((len(features), layers[-1][1].size), dtype=np.float32)
        held = [np.empty((BLOCK, bias.size), dtype=np.float32) for _, bias in layers]
        for start in range(0, len(features), BLOCK):
            values = features[start : start + BLOCK]
            n = len(values)
            for i, (weight, bias) in enumerate(layers):
                values = np.matmul(values, weight, out=held[i][:n])
                _activate(values, bias, i < len(layers) - 1)
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


@cached
@numba.njit(nogil=True, error_model="numpy")
def _activate(values: NDArray, bias: NDArray, rectify: bool) -> None:
    """Add the bias and rectify in one pass over memory."""
    lowest = np.float32(0 if rectify else -np.inf)
    for i in range(values.shape[0]):
        for j in range(values.shape[1]):
            value = values[i, j] + bias[j]
            values[i, j] = value if value > lowest else lowest


def require_finite(arrays: Mapping[str, NDArray]) -> None:
    """Raise `ValueError` naming the first array that is not all finite numbers."""
    for name, array in arrays.items():
        if not np.issubdtype(array.dtype, np.number) or not np.isfinite(array).all():
            raise ValueError(f"{name} holds something that is not a finite number")
