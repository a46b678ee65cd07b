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

    The arrays are those of a perceptron on the features of these voxels, of which z changes fastest, then y.

    Parameters
    ----------
    units, hidden_layers : int
        Size and number of hidden layers; the first is the convolution.
    slices : bool
        Whether it is over 3 x 3 x 3 voxels, those of the slices above and below too.
    """

    slices: bool | None = None

    name = "convolution"

    @property
    def reach(self) -> tuple[int, int, int]:  # type: ignore[override]
        return 1, 1, int(bool(self.slices))

    @property
    def voxels(self) -> int:
        """Voxels that are read."""
        return 27 if self.slices else 9

    def module(self, inputs: int, outputs: int) -> nn.Module:
        from torch import nn

        return nn.Sequential(nn.Flatten(), super().module(self.voxels * inputs, outputs))

    def folded(self, arrays: Arrays, centre: NDArray[np.float32], width: NDArray[np.float32]) -> Arrays:
        return super().folded(arrays, np.tile(centre, self.voxels), np.tile(width, self.voxels))

    def pruned(self, arrays: Arrays, features: NDArray[np.float32]) -> Arrays:
        return super().pruned(arrays, features.reshape(len(features), -1))

    def forward(self, machine: Arrays, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Outputs (n, x - 2, y - 2, z, n_outputs) of images of features (n, x, y, z, n_features); with slices z - 2."""
        window = (3, 3, 3 if self.slices else 1)
        windows = np.moveaxis(sliding_window_view(features, window, axis=(1, 2, 3)), 4, -1)
        found = np.empty((*windows.shape[:4], machine[f"{self.hidden_layers}.bias"].size), dtype=np.float32)
        step = max(GATHERED // found[0, 0, ..., 0].size, 1) if found.size else 1
        for start in range(0, len(found), step):
            for x in range(found.shape[1]):  # few neighbourhoods at a time, for each holds many times its voxel
                some = windows[start : start + step, x]
                outputs = super().forward(machine, some.reshape(-1, self.voxels * features.shape[-1]))
                found[start : start + step, x] = outputs.reshape(*some.shape[:3], -1)
        return found

    def require(self, arrays: Mapping[str, NDArray], inputs: int, outputs: int) -> None:
        super().require(arrays, self.voxels * inputs, outputs)
