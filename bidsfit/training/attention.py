"""Architectures that read neighbours by attention, as in paper III of Kaandorp's thesis [1]_; computed with torch.

A voxel that is not there (outside the mask or the image, or without a usable signal) gets no attention: whatever stands
in its place changes no output.

References
----------
.. [1] Kaandorp MPT et al. Incorporating spatial information in deep learning parameter estimation with application to
   the intravoxel incoherent motion model in diffusion-weighted MRI. Medical Image Analysis 2025;101:103414.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from bidsfit.training.architectures import Arrays, NetworkArchitecture
from bidsfit.training.trainer import torch_threads

if TYPE_CHECKING:
    from torch import Tensor, nn

#: Voxels, with those of all their windows, that go through a network at a time.
TOGETHER = 1 << 14
#: Score of a voxel that is not there. It is finite, so that where there is no voxel at all the weights are numbers.
ABSENT = -1e9


@dataclass(frozen=True)
class Attention(NetworkArchitecture):
    """What both kinds of attention share.

    A linear layer embeds the features of every voxel. Every layer then adds the attention to other voxels, and after it
    a perceptron of one hidden layer, each of the values after a layer normalisation. The outputs are linear in the
    values of the central voxel.

    Parameters
    ----------
    units : int
        Size of the embedding and of hidden layers.
    layers, heads : int
        Number of layers, and of heads that attend side by side; each has its share of the units.
    """

    units: int = 128
    layers: int = 3
    heads: int = 8

    def __post_init__(self) -> None:
        if self.units % self.heads:
            raise ValueError(f"units must be a multiple of heads, found {self.units} and {self.heads}.")

    def module(self, inputs: int, outputs: int) -> nn.Module:
        """The untrained network of images (n, x, y, z, inputs); see `NetworkArchitecture.module`.

        The last of the inputs says which voxels are there.
        """
        from torch import nn

        made = self

        class Network(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.embed = nn.Linear(inputs, made.units)
                self.layers = nn.ModuleList(made.layer(last=i == made.layers - 1) for i in range(made.layers))
                self.head = nn.Linear(made.units, outputs)

            def forward(self, features: Tensor) -> Tensor:
                values, there = self.embed(features), features[..., -1] > 0.5
                for layer in self.layers:
                    values, there = layer(values, there)
                return self.head(values)

        return Network()

    @abstractmethod
    def layer(self, last: bool) -> nn.Module:
        """A layer: from values (n, x, y, z, units) and which voxels are there (n, x, y, z) to both of fewer voxels."""

    def folded(self, arrays: Arrays, centre: NDArray[np.float32], width: NDArray[np.float32]) -> Arrays:
        scaled = arrays["embed.weight"] / width
        return arrays | {"embed.weight": scaled, "embed.bias": arrays["embed.bias"] - scaled @ centre}

    def prepared(self, machine: Arrays, inputs: int) -> Callable[[NDArray[np.float32]], NDArray[np.float32]]:
        """The network as a function of arrays."""
        import torch

        with torch.device("meta"):  # no numbers are drawn
            module = self.module(inputs, machine["head.bias"].size)
        state = {name: torch.from_numpy(array) for name, array in machine.items()}

        def run(features: NDArray[np.float32]) -> NDArray[np.float32]:
            with torch.inference_mode(), torch_threads(1):  # pieces of an image are computed side by side
                shown = torch.from_numpy(np.ascontiguousarray(features))
                return np.asarray(torch.func.functional_call(module, state, (shown,)).numpy())

        return run

    def require(self, arrays: Mapping[str, NDArray], inputs: int, outputs: int) -> None:
        import torch

        with torch.device("meta"):
            expected = {name: tuple(value.shape) for name, value in self.module(inputs, outputs).state_dict().items()}
        if {name: array.shape for name, array in arrays.items()} != expected:
            raise ValueError(f"its arrays are not those of {self.name} with {inputs} signals and {outputs} parameters")
        if any(array.dtype != np.float32 for array in arrays.values()):
            raise ValueError("its arrays are not of 32-bit numbers")

    def parts(self) -> nn.Module:
        """What every layer consists of, without the attention itself."""
        from torch import nn

        n = self.units
        return nn.ModuleDict(
            {
                "before": nn.LayerNorm(n),
                "query": nn.Linear(n, n),
                "key": nn.Linear(n, n),
                "value": nn.Linear(n, n),
                "out": nn.Linear(n, n),
                "perceptron": nn.Sequential(nn.LayerNorm(n), nn.Linear(n, n), nn.ReLU(), nn.Linear(n, n)),
            }
        )


@dataclass(frozen=True)
class NeighbourhoodAttention(Attention):
    """Layers in which every voxel attends to the 3 x 3 voxels around it, in its slice (Hassani et al., CVPR 2023).

    Each layer widens the window by one voxel on each side: three layers read 7 x 7 voxels, eight read 17 x 17. A bias
    for each of the nine places is learned.
    """

    name = "neighbourhood-attention"

    @property
    def reach(self) -> tuple[int, int, int]:  # type: ignore[override]
        return self.layers, self.layers, 0

    def layer(self, last: bool) -> nn.Module:
        import torch
        from torch import nn

        heads, made = self.heads, self

        class Layer(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.parts: Any = made.parts()
                self.places = nn.Parameter(torch.zeros(9, heads))

            def forward(self, values: Tensor, there: Tensor) -> tuple[Tensor, Tensor]:
                x, y = (size - 2 for size in values.shape[1:3])
                around = [(slice(None), slice(i, i + x), slice(j, j + y)) for i in range(3) for j in range(3)]
                seen, middle = self.parts["before"](values), around[4]
                query, key, value = (
                    part(seen).unflatten(-1, (heads, -1)) for part in map(self.parts.__getitem__, ATTENDED)
                )
                query = query[middle] * query.shape[-1] ** -0.5
                scores = torch.stack([(query * key[place]).sum(dim=-1) for place in around], dim=-2) + self.places
                present = torch.stack([there[place] for place in around], dim=-1)
                weights = scores.masked_fill(~present[..., None], ABSENT).softmax(dim=-2)
                found = sum(weights[..., k, :, None] * value[place] for k, place in enumerate(around))
                values = values[middle] + self.parts["out"](found.flatten(-2))
                return values + self.parts["perceptron"](values), there[middle]

        return Layer()

    def forward(self, machine: Arrays, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Outputs (n, x - 2 layers, y - 2 layers, z, n_outputs) of images of features (n, x, y, z, n_features)."""
        run = self.prepared(machine, features.shape[-1])
        n, x, y, z, _ = features.shape
        some = max(TOGETHER // (x * y), 1)
        found = np.empty((n, x - 2 * self.layers, y - 2 * self.layers, z, machine["head.bias"].size), dtype=np.float32)
        for k in range(z):
            for start in range(0, n, some):
                found[start : start + some, ..., [k], :] = run(features[start : start + some, :, :, [k]])
        return found


#: Parts of a layer by which voxels attend.
ATTENDED = ("query", "key", "value")


@dataclass(frozen=True)
class SelfAttention(Attention):
    """Layers in which all voxels of a window attend to one another, wherever in it they lie.

    Parameters
    ----------
    window : int
        Voxels of a side of the window, which lies in a slice; odd.
    """

    window: int = 17

    name = "self-attention"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.window % 2 == 0:
            raise ValueError(f"The window has a voxel in its middle: give an odd number, found {self.window}.")

    @property
    def reach(self) -> tuple[int, int, int]:  # type: ignore[override]
        return self.window // 2, self.window // 2, 0

    def layer(self, last: bool) -> nn.Module:
        from torch import nn
        from torch.nn.functional import scaled_dot_product_attention

        heads, centre, made = self.heads, self.window**2 // 2, self

        class Layer(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.parts: Any = made.parts()

            def forward(self, values: Tensor, there: Tensor) -> tuple[Tensor, Tensor]:
                if there.ndim > 2:
                    values, there = values.flatten(1, 3), there.flatten(1)
                seen = self.parts["before"](values)
                if last:  # the other voxels are not read any more
                    values = values[:, [centre]]
                asking = seen[:, [centre]] if last else seen
                query, key, value = (
                    self.parts[name](of).unflatten(-1, (heads, -1)).transpose(1, 2)
                    for name, of in zip(ATTENDED, (asking, seen, seen), strict=True)
                )
                absent = ABSENT * (~there[:, None, None]).to(seen.dtype)
                found = scaled_dot_product_attention(query, key, value, absent).transpose(1, 2).flatten(-2)
                values = values + self.parts["out"](found)
                return values + self.parts["perceptron"](values), there

        return Layer()

    def forward(self, machine: Arrays, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Outputs (n, x - window + 1, y - window + 1, z, n_outputs) of images of features (n, x, y, z, n_features).

        They are 0 where the central voxel of a window is not there.
        """
        run, r = self.prepared(machine, features.shape[-1]), self.window // 2
        windows = sliding_window_view(features, (self.window, self.window), axis=(1, 2))
        found = np.zeros((*windows.shape[:4], machine["head.bias"].size), dtype=np.float32)
        there = np.argwhere(windows[..., -1, r, r] > 0.5)
        some = max(TOGETHER // self.window**2, 1)
        for start in range(0, len(there), some):
            places = tuple(there[start : start + some].T)
            found[places] = run(np.moveaxis(windows[places], 1, -1)[:, :, :, None])[:, 0]
        return found
