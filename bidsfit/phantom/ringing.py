"""Simulation of Gibbs ringing by truncation of k-space."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.fft import fft, fftfreq, ifft2
from scipy.ndimage import gaussian_filter

#: Points across a voxel of the fine grid; odd, so that one lies in the middle of the voxel.
FINENESS = 5

#: Largest distance between an edge and the border of its voxels, and how far such distances are alike, in voxels.
EDGE_SHIFT = 0.4
EDGE_LENGTH = 3.0


def draw_edges(shape: tuple[int, int], rng: np.random.Generator) -> NDArray[np.intp]:
    """Draw sub-voxel edges of an object: the voxel that each point of a finer grid belongs to.

    Edges at the borders between voxels would be sampled where the ringing is almost 0. So they deviate from the
    borders, smoothly and by less than half a voxel; the centre of each voxel stays the same.

    Returns
    -------
    ndarray of int, shape (x * `FINENESS`, y * `FINENESS`)
        Index into the flattened slice.
    """
    voxels = []
    for axis, size in enumerate(shape):
        shift = gaussian_filter(rng.standard_normal([FINENESS * s for s in shape]), FINENESS * EDGE_LENGTH)
        shift *= EDGE_SHIFT / np.abs(shift).max()
        points = (np.arange(FINENESS * size) - FINENESS // 2) / FINENESS
        nearest = np.rint(points.reshape((-1, 1) if axis == 0 else (1, -1)) + shift).astype(int)
        voxels.append(np.clip(nearest, 0, size - 1))
    return np.ravel_multi_index((voxels[0], voxels[1]), shape)


def ring(image: NDArray, edges: NDArray[np.intp]) -> NDArray[np.float64]:
    """An image reconstructed from k-space truncated at the spatial frequency of the voxels.

    Parameters
    ----------
    image : ndarray, shape (x, y, ...)
        The object at the centre of each voxel.
    edges : ndarray of int
        Sub-voxel edges, see `draw_edges`.

    Returns
    -------
    ndarray, shape (x, y, ...)
        Real values, which may be negative.
    """
    image = np.asarray(image)
    shape = image.shape[:2]
    spectrum: NDArray = image.reshape(-1, *image.shape[2:])[edges]
    for axis, size in enumerate(shape):
        frequency = np.rint(fftfreq(size) * size).astype(int)
        # the middle of the first voxel is the point FINENESS // 2 of the fine grid
        phase = np.exp(2j * np.pi * frequency * (FINENESS // 2) / (FINENESS * size)) / FINENESS
        kept = np.take(fft(spectrum, axis=axis), frequency % (FINENESS * size), axis=axis)
        spectrum = kept * phase.astype(kept.dtype).reshape([-1 if i == axis else 1 for i in range(image.ndim)])
    return np.asarray(ifft2(spectrum, axes=(0, 1)).real)
