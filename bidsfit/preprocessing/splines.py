"""Interpolation of images at any places, by linear and cubic splines."""

from __future__ import annotations

import math

import numba
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import spline_filter

from bidsfit.compiling import cached


def moved_grid(shape: tuple[int, ...], matrix: NDArray) -> NDArray[np.float64]:
    """Places, shape (3, x, y, z), to which a matrix (4, 4) of voxel coordinates takes every voxel."""
    places = np.einsum("ij,jabc->iabc", matrix[:3, :3], np.indices(shape, dtype=float))
    places += matrix[:3, 3, None, None, None]
    return places


def trilinear(images: NDArray[np.float32], places: NDArray[np.float64]) -> NDArray[np.float32]:
    """Interpolate images (x, y, z, k) linearly at places (3, ...), voxels; returns values (k, ...).

    Places beyond the image take the value of its border. Each value is that of SciPy's ``map_coordinates`` of order 1
    in mode "nearest", to the last digit.
    """
    values = np.empty((images.shape[3], *places.shape[1:]), dtype=np.float32)
    _trilinear(images, places.reshape(3, -1), values.reshape(len(values), -1))
    return values


@cached
@numba.njit(nogil=True, error_model="numpy")
def _trilinear(images: NDArray, places: NDArray, values: NDArray) -> None:
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


def tricubic(image: NDArray[np.float32], places: NDArray[np.float64]) -> NDArray[np.float32]:
    """Interpolate an image (x, y, z) by cubic splines at places (3, ...) within it, voxels; returns values (...).

    The image has at least 3 voxels along every axis and goes on as its mirror image. Each value is that of SciPy's
    ``map_coordinates`` of order 3 in mode "mirror", to the digits of float32.
    """
    values = np.empty(places.shape[1:], dtype=np.float32)
    _tricubic(spline_filter(image, output=np.float32, mode="mirror"), places.reshape(3, -1), values.reshape(-1))
    return values


@cached
@numba.njit(nogil=True, error_model="numpy")
def _tricubic(coefficients: NDArray, places: NDArray, values: NDArray) -> None:
    at = np.empty((3, 4), dtype=np.intp)
    weight = np.empty((3, 4), dtype=np.float32)
    for p in range(places.shape[1]):
        for axis in range(3):
            first, last = math.floor(places[axis, p]), coefficients.shape[axis] - 1
            t = np.float32(places[axis, p] - first)
            u = 1 - t
            weight[axis] = u**3 / 6, 2 / 3 - t**2 * (2 - t) / 2, 2 / 3 - u**2 * (2 - u) / 2, t**3 / 6
            for k in range(4):
                index = abs(first - 1 + k)
                at[axis, k] = index if index <= last else 2 * last - index
        total = np.float32(0)
        for i in range(4):
            for j in range(4):
                line = np.float32(0)
                for k in range(4):
                    line += weight[2, k] * coefficients[at[0, i], at[1, j], at[2, k]]
                total += weight[0, i] * weight[1, j] * line
        values[p] = total
