"""Patches of neighbouring voxels, to train estimators that read the neighbours of a voxel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from bidsfit.simulation.distributions import Distribution

PatchKind = Literal["smooth", "pieces"]

#: From voxel to voxel of a smooth patch, parameters move by this share of the way to another draw at most.
STEEPEST = 0.1
#: Share of the patches that may lie at the edge of a mask, and of single voxels without usable signal.
AT_EDGE, UNUSABLE = 0.25, 0.05


@dataclass(frozen=True)
class Patches:
    """Patches of parameters whose central voxel follows a given distribution.

    Parameters
    ----------
    voxels : Distribution
    reach : (x, y, z)
        Neighbours on each side of the central voxel.
    kind : {"smooth", "pieces"}
        "smooth": parameters change linearly along a random direction, towards another draw. "pieces": a random plane
        may cut the patch, with another draw beyond it.
    """

    voxels: Distribution
    reach: tuple[int, int, int]
    kind: PatchKind = "smooth"

    @property
    def shape(self) -> tuple[int, int, int]:
        """Size of a patch along x, y and z, in voxels."""
        x, y, z = self.reach
        return 2 * x + 1, 2 * y + 1, 2 * z + 1

    def sample(self, n: int, rng: np.random.Generator) -> NDArray[np.float64]:
        """Draw n patches of parameters, shape (n, x, y, z, n_parameters)."""
        space = self.voxels.space
        here, there = (space.to_cube(self.voxels.sample(n, rng))[:, None, None, None] for _ in range(2))
        if self.kind == "smooth":
            share = self._along(n, rng) * rng.uniform(0, STEEPEST, (n, 1, 1, 1))
        else:
            share = self._beyond(n, rng).astype(float)
        return space.from_cube(np.clip(here + (there - here) * share[..., None], 0, 1))

    def present(self, n: int, rng: np.random.Generator) -> NDArray[np.bool_]:
        """Which voxels of n patches are usable, shape (n, x, y, z): a mask cuts some patches, single voxels fail."""
        absent = self._beyond(n, rng) & (rng.random((n, 1, 1, 1)) < AT_EDGE)
        absent |= rng.random(absent.shape) < UNUSABLE
        absent[:, *self.reach] = False
        return ~absent

    def _along(self, n: int, rng: np.random.Generator) -> NDArray[np.float64]:
        """Distance of every voxel from the centre along a random direction, shape (n, x, y, z)."""
        axes = [np.arange(-r, r + 1) for r in self.reach]
        direction = rng.standard_normal((n, 3)) * (np.array(self.reach) > 0)
        direction /= np.linalg.norm(direction, axis=1, keepdims=True)
        return np.tensordot(direction, np.stack(np.meshgrid(*axes, indexing="ij")), axes=1)

    def _beyond(self, n: int, rng: np.random.Generator) -> NDArray[np.bool_]:
        """Which voxels lie beyond a random plane with the centre on the near side, shape (n, x, y, z); often none."""
        distance = rng.uniform(0, 2 * np.linalg.norm(self.reach), (n, 1, 1, 1))
        return np.asarray(self._along(n, rng) > distance)


def with_presence(features: NDArray, present: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Features (..., n_features) with an indicator of presence appended: shape (..., n_features + 1).

    Indicator and features are 0 outside the mask or image and where a voxel has no usable signal; elsewhere the
    indicator is 1.
    """
    channel = present[..., None]
    return np.concatenate([np.where(channel, features, 0), channel], axis=-1, dtype=np.float32)
