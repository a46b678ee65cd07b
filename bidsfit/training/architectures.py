"""Networks, as torch trains them and as plain arrays that are kept and evaluated."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import numba
import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch

#: Weights and biases of the layers of a perceptron, from the first to the last: (inputs, outputs) and (outputs,).
Layers = list[tuple[NDArray[np.float32], NDArray[np.float32]]]

#: Voxels that go through a network at a time: what its layers hold of them fits in the cache of a core.
BLOCK = 512


def perceptron(inputs: int, outputs: int, units: int, hidden_layers: int) -> torch.nn.Sequential:
    """A multilayer perceptron with rectified linear units; its outputs are logits."""
    from torch import nn

    widths = [inputs, *[units] * hidden_layers]
    layers: list[nn.Module] = []
    for before, after in itertools.pairwise(widths):
        layers += [nn.Linear(before, after), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(widths[-1], outputs))


def layers_of(network: torch.nn.Sequential) -> Layers:
    """Weights and biases of a perceptron, as arrays."""
    from torch import nn

    return [
        (part.weight.detach().cpu().numpy().T.copy(), part.bias.detach().cpu().numpy().copy())
        for part in network
        if isinstance(part, nn.Linear)
    ]


def forward(layers: Layers, features: NDArray[np.float32]) -> NDArray[np.float32]:
    """Outputs of a perceptron, shape (n, n_outputs), before the sigmoid.

    Blocks that fit in the cache, and arrays that are used again, are what make it fast.
    """
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


@numba.njit(nogil=True, error_model="numpy")
def _activate(values: NDArray, bias: NDArray, rectify: bool) -> None:
    """Add the bias and rectify in one visit of memory."""
    lowest = np.float32(0 if rectify else -np.inf)
    for i in range(values.shape[0]):
        for j in range(values.shape[1]):
            value = values[i, j] + bias[j]
            values[i, j] = value if value > lowest else lowest


def pruned(layers: Layers, features: NDArray[np.float32]) -> Layers:
    """A perceptron without the units that are silent for all features.

    A rectified unit that no sample of the training switches on has no gradient and adds nothing: without it the outputs
    for these samples are the same, bit by bit but for the order of sums. A third to a half of the units of a network
    end so, and without them it is two to three times as fast.
    """
    kept, values = [], features
    (weight, bias), rest = layers[0], layers[1:]
    for following, next_bias in rest:
        values = np.maximum(values @ weight + bias, 0)
        awake = np.any(values > 0, axis=0)
        kept.append((weight[:, awake], bias[awake]))
        values, weight, bias = values[:, awake], following[awake], next_bias
    return [(np.ascontiguousarray(w), np.ascontiguousarray(b)) for w, b in [*kept, (weight, bias)]]


def sigmoid(values: NDArray[np.float32]) -> NDArray[np.float64]:
    """Between 0 and 1, without overflow."""
    return 0.5 * (1.0 + np.tanh(0.5 * values.astype(np.float64)))
