"""Rotations: between sets of gradient directions, and of the axes and tensors of tissue that is turned."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from math import prod

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

#: Alignments of two sets of axes from one start: few are needed until no axis changes its sign.
ALIGNMENTS = 20


def rotation_between(first: NDArray[np.float64], second: NDArray[np.float64]) -> Rotation:
    """The rotation that turns unit vectors (n, 3) nearest to others; opposite vectors are the same axis.

    With the signs of the axes known, it is that of Kabsch. They are those of the rotation that was found before, from
    each of the rotations of a cube in turn.
    """
    found, least = Rotation.identity(), np.inf
    for turn in Rotation.create_group("O"):
        signs = np.zeros(len(first))
        for _ in range(ALIGNMENTS):
            before, signs = signs, np.where(np.sum(turn.apply(first) * second, axis=1) < 0, -1.0, 1.0)
            if np.array_equal(signs, before):
                break
            turn, left = Rotation.align_vectors(signs[:, None] * second, first)
        if left < least:
            found, least = turn, left
    return found


def rotated_tensor(elements: NDArray[np.float64], axes: Sequence[str], rotation: Rotation) -> NDArray[np.float64]:
    """Elements of symmetric tensors of tissue that is turned.

    Parameters
    ----------
    elements : ndarray, shape (n, n_elements)
        All that differ.
    axes : sequence of str
        Of every element: "xy" or, of a tensor of fourth order, "xxyz".
    rotation : Rotation
    """
    places, matrix = {axis: i for i, axis in enumerate("xyz")}, rotation.as_matrix()
    columns = {tuple(sorted(names)): j for j, names in enumerate(axes)}
    linear = np.zeros((len(axes), len(axes)))
    for i, names in enumerate(axes):
        for others in product("xyz", repeat=len(names)):
            share = prod(matrix[places[a], places[b]] for a, b in zip(names, others, strict=True))
            linear[i, columns[tuple(sorted(others))]] += share
    return elements @ linear.T


def rotated_axis(angles: NDArray[np.float64], rotation: Rotation) -> NDArray[np.float64]:
    """Polar angle and azimuth (n, 2) of axes that are turned by a rotation."""
    polar, azimuth = angles.T
    vectors = np.column_stack([np.sin(polar) * np.cos(azimuth), np.sin(polar) * np.sin(azimuth), np.cos(polar)])
    return axis_angles(rotation.apply(vectors))


def axis_angles(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    """Polar angle, up to a right angle, and azimuth (n, 2) of axes that unit vectors (n, 3) give."""
    x, y, z = vectors.T
    side = np.where(z < 0, -1.0, 1.0)
    return np.column_stack([np.arccos(np.clip(np.abs(z), 0, 1)), np.mod(np.arctan2(side * y, side * x), 2 * np.pi)])
