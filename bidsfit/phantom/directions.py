"""Evenly distributed gradient directions."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def spread_directions(n: int, iterations: int = 500) -> NDArray[np.float64]:
    """Unit vectors (n, 3) that minimise electrostatic repulsion, with opposite directions identified [1]_.

    The descent starts at a spiral over the hemisphere and is deterministic; ``iterations`` is its number of steps.

    References
    ----------
    .. [1] Jones DK, Horsfield MA, Simmons A. Magnetic Resonance in Medicine 1999;42:515-525.
    """
    if n < 1:
        raise ValueError(f"At least one direction is needed, found {n}.")
    height = (np.arange(n) + 0.5) / n
    angle = np.pi * (1 + np.sqrt(5)) * np.arange(n)
    radius = np.sqrt(1 - height**2)
    points = np.column_stack([radius * np.cos(angle), radius * np.sin(angle), height])
    for i in range(iterations if n > 1 else 0):
        both = np.concatenate([points, -points])
        separation = points[:, None] - both
        distance = np.linalg.norm(separation, axis=-1, keepdims=True)
        own = np.arange(n)
        distance[own, own] = np.inf
        force = (separation / distance**3).sum(1)
        force -= (force * points).sum(1, keepdims=True) * points  # along the sphere
        largest = np.linalg.norm(force, axis=1).max()
        if largest < 1e-9:
            break
        step = 0.3 / np.sqrt(n) * (1 - i / iterations)
        points = points + step * force / max(largest, 1e-2)
        points /= np.linalg.norm(points, axis=1, keepdims=True)
    return points
