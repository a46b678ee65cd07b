"""Linear interpolation of several images at the same places."""

from __future__ import annotations

import math

import numba
import numpy as np
from numpy.typing import NDArray

from bidsfit.compiling import cached


def trilinear(images: NDArray[np.float32], places: NDArray[np.float64]) -> NDArray[np.float32]:
    """Interpolate images (x, y, z, k) linearly at places (3, ...), voxels; returns values (k, ...).

    Places beyond the image take the value of its border. Each value is that of SciPy's ``map_coordinates`` of order 1
    in mode "nearest", to the last digit.
    """
    values = np.empty((images.shape[3], *places.shape[1:]), dtype=np.float32)
    _interpolate(images, places.reshape(3, -1), values.reshape(len(values), -1))
    return values


@cached
@numba.njit(nogil=True, error_model="numpy")
def _interpolate(images: NDArray, places: NDArray, values: NDArray) -> None:
    for p in range(places.shape[1]):
        x = min(max(places[0, p], 0.0), images.shape[0] - 1.0)
        y = min(max(places[1, p], 0.0), images.shape[1] - 1.0)
        z = min(max(places[2, p], 0.0), images.shape[2] - 1.0)
        i, j, k = math.floor(x), math.floor(y), math.floor(z)
        nearer_x, nearer_y, nearer_z = 1.0 - (x - i), 1.0 - (y - j), 1.0 - (z - k)
        for c in range(images.shape[3]):
            total = 0.0
            for di in range(2):
                weight_x = 1.0 - nearer_x if di else nearer_x
                u = min(i + di, images.shape[0] - 1)
                for dj in range(2):
                    weight_y = 1.0 - nearer_y if dj else nearer_y
                    v = min(j + dj, images.shape[1] - 1)
                    for dk in range(2):
                        weight_z = 1.0 - nearer_z if dk else nearer_z
                        w = min(k + dk, images.shape[2] - 1)
                        total += images[u, v, w, c] * weight_x * weight_y * weight_z
            values[c, p] = total
