"""Fractal noise: smooth random maps with detail at several scales."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import numpy as np
from numpy.typing import NDArray


def perlin_noise(coordinates: Sequence[NDArray], rng: np.random.Generator) -> NDArray[np.float64]:
    r"""Perlin gradient noise on a rectangular grid of any number of dimensions.

    A random unit gradient sits at every point of the integer lattice. The value at a point is the interpolation,
    with the fade :math:`6t^5 - 15t^4 + 10t^3` along each axis, of the ramps that the gradients of its
    :math:`2^n` lattice neighbours make [1]_. The factor :math:`2/\sqrt n` (:math:`\sqrt 2` in the plane) brings
    the largest possible value to 1.

    Parameters
    ----------
    coordinates : sequence of n arrays, shapes (size_1,) ... (size_n,)
        Position of the grid's points along each axis, in lattice cells; not negative.
    rng : numpy.random.Generator
        Draws the gradients.

    Returns
    -------
    ndarray, shape (size_1, ..., size_n)
        Values in [-1, 1], zero at the points of the lattice.

    References
    ----------
    .. [1] Perlin K. Improving noise. ACM Transactions on Graphics 2002;21:681-682.
    """
    n = len(coordinates)
    cells = [np.floor(c).astype(int) for c in coordinates]
    fractions = [c - cell for c, cell in zip(coordinates, cells, strict=True)]
    fades = [t**3 * (t * (6 * t - 15) + 10) for t in fractions]

    gradients = rng.standard_normal([cell.max() + 2 for cell in cells] + [n])
    gradients /= np.linalg.norm(gradients, axis=-1, keepdims=True)

    total = np.zeros([len(c) for c in coordinates])
    for corner in product((0, 1), repeat=n):
        gradient = gradients[np.ix_(*[cell + c for cell, c in zip(cells, corner, strict=True)])]
        ramp = np.zeros_like(total)
        weight = np.ones_like(total)
        for axis, (c, t, fade) in enumerate(zip(corner, fractions, fades, strict=True)):
            along = [1] * n
            along[axis] = -1
            ramp += gradient[..., axis] * (t - c).reshape(along)
            weight *= (fade if c else 1 - fade).reshape(along)
        total += weight * ramp
    return total * 2 / np.sqrt(n)


def fractal_noise(
    shape: Sequence[int], rng: np.random.Generator, *, cells: float = 4.0, octaves: int = 4
) -> NDArray[np.float64]:
    """Perlin noise summed over octaves, each twice as fine and half as strong as the one before.

    The lattice of every octave is shifted by its own random offset. Without it, the zeros at the lattice points
    of all octaves fall on one another, and a thin slab would look different from a slice through a volume.

    Parameters
    ----------
    shape : sequence of int
        Of the map, in isotropic voxels; any number of dimensions.
    cells : float
        Lattice cells of the first octave along the longest axis.

    Returns
    -------
    ndarray, shape ``shape``
        Rescaled so that the smallest value is 0 and the largest 1.
    """
    total = np.zeros(shape)
    for octave in range(octaves):
        per_voxel = cells * 2**octave / max(shape)
        offset = rng.random(len(shape))
        coordinates = [o + per_voxel * np.arange(size) for o, size in zip(offset, shape, strict=True)]
        total += perlin_noise(coordinates, rng) / 2**octave
    return rescale(total)


def classes(level: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Tissue of every voxel of a fractal map from 0 to 1, as Kaandorp et al. divide it: 0, 1 or 2.

    1 is from 0.2 to 0.5 (grey matter), 2 from 0.5 to 0.8 (white matter), and 0 the rest (cerebrospinal fluid).
    """
    return np.array([0, 1, 2, 0], dtype=np.uint8)[np.searchsorted((0.2, 0.5, 0.8), level, side="right")]


def rescale(
    values: NDArray, lower: float = 0.0, upper: float = 1.0, within: NDArray[np.bool_] | None = None
) -> NDArray[np.float64]:
    """Shift and scale values so that they span [lower, upper] (over ``within``, where given)."""
    selected = values if within is None else values[within]
    smallest, largest = selected.min(), selected.max()
    unit = (values - smallest) / (largest - smallest) if largest > smallest else np.full(values.shape, 0.5)
    return lower + (upper - lower) * unit
