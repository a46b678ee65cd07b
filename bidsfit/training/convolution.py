"""An architecture that reads neighbours: one convolution, followed by layers that act on single voxels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from bidsfit.training.architectures import Arrays, Perceptron

if TYPE_CHECKING:
    from torch import nn

#: Voxels whose neighbours are gathered at a time.
GATHERED = 1 << 15


@dataclass(frozen=True)
class Convolution(Perceptron):
    """A convolution over 3 x 3 voxels of a slice, followed by layers of rectified linear units on single voxels.

    The arrays are those of a perceptron on the features of the nine voxels, with y changing faster than x.

    Parameters
    ----------
    units, hidden_layers : int
        Size and number of hidden layers; the first is the convolution.
    """

    name = "convolution"
    reach = (1, 1, 0)

    def module(self, inputs: int, outputs: int) -> nn.Module:
        from torch import nn

        return nn.Sequential(nn.Flatten(), super().module(9 * inputs, outputs))

    def folded(self, arrays: Arrays, centre: NDArray[np.float32], width: NDArray[np.float32]) -> Arrays:
        return super().folded(arrays, np.tile(centre, 9), np.tile(width, 9))

    def pruned(self, arrays: Arrays, features: NDArray[np.float32]) -> Arrays:
        return super().pruned(arrays, features.reshape(len(features), -1))

    def forward(self, machine: Arrays, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Outputs (n, x - 2, y - 2, z, n_outputs) of images of features (n, x, y, z, n_features)."""
        windows = np.moveaxis(sliding_window_view(features, (3, 3), axis=(1, 2)), 4, -1)
        found = np.empty((*windows.shape[:4], machine[f"{self.hidden_layers}.bias"].size), dtype=np.float32)
        step = max(GATHERED // found[0, 0, ..., 0].size, 1) if found.size else 1
        for start in range(0, len(found), step):
            for x in range(found.shape[1]):  # few neighbourhoods at a time, for each holds nine times its voxel
                some = windows[start : start + step, x]
                outputs = super().forward(machine, some.reshape(-1, 9 * features.shape[-1]))
                found[start : start + step, x] = outputs.reshape(*some.shape[:3], -1)
        return found

    def require(self, arrays: Mapping[str, NDArray], inputs: int, outputs: int) -> None:
        super().require(arrays, 9 * inputs, outputs)
