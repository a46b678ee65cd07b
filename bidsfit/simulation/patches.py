"""Patches of neighbouring voxels, to train estimators that read the neighbours of a voxel."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from bidsfit.fractal import classes, fractal_noise
from bidsfit.simulation.distributions import Distribution, Tissues

PatchKind = Literal["smooth", "pieces", "scattered", "fractal"]
#: What surrounds the central voxel of a patch, see `Patches.alike`.
Surroundings = Literal["homogeneous", "edge", "lesion"]

#: From voxel to voxel of a smooth patch, parameters move by this share of the way to another draw at most.
STEEPEST = 0.1
#: Share of the patches that may lie at the edge of a mask, and of single voxels without usable signal.
AT_EDGE, UNUSABLE = 0.25, 0.05
#: Draws of a patch: of two tissues that are scattered, and of the three classes of a fractal map.
DRAWS = {"scattered": 2, "fractal": 3}
#: Fractal patches are cut from maps of so many voxels along a side, with so many cells of the first octave; so many of
#: each map.
MAP, CELLS, PER_MAP = 256, 8.0, 512


@dataclass(frozen=True)
class Patches:
    """Patches of parameters whose central voxel follows a given distribution.

    Parameters
    ----------
    voxels : Distribution
    reach : (x, y, z)
        Neighbours on each side of the central voxel.
    kind : {"smooth", "pieces", "scattered", "fractal"}
        "smooth": parameters change linearly along a random direction, towards another draw. "pieces": a random plane
        may cut the patch, with another draw beyond it. "scattered": of the neighbours a random number, from none to
        all, equal the central voxel, wherever they lie; the others share one other draw. "fractal": the patch is cut
        from a fractal map in a slice, and each of its three classes (`bidsfit.fractal.classes`) is one draw. The last
        two are those of Kaandorp et al. [1]_. Where voxels are drawn from `Tissues`, a scattered patch holds two of
        them; a fractal patch needs three, in the order of the classes.
    scale : callable, optional
        Draws S0 of a shape, such as `Simulation.s0`; by default 1. Every voxel has its own, or every draw.

    References
    ----------
    .. [1] Kaandorp MPT et al. Medical Image Analysis 2025;101:103414, as in its published code ("patch" and "mask").
    """

    voxels: Distribution
    reach: tuple[int, int, int]
    kind: PatchKind = "smooth"
    scale: Callable[[tuple[int, ...], np.random.Generator], NDArray[np.float64]] = lambda shape, rng: np.ones(shape)

    def __post_init__(self) -> None:
        needed = {"scattered": range(2, 100), "fractal": range(3, 4)}.get(self.kind)
        if needed and isinstance(self.voxels, Tissues) and len(self.voxels.ranges) not in needed:
            raise ValueError(
                f"Patches of the kind {self.kind!r} need {'at least two' if self.kind == 'scattered' else 'three'} "
                f"tissues, found {', '.join(self.voxels.ranges)}."
            )

    @property
    def shape(self) -> tuple[int, int, int]:
        """Size of a patch along x, y and z, in voxels."""
        x, y, z = self.reach
        return 2 * x + 1, 2 * y + 1, 2 * z + 1

    def draw(self, n: int, rng: np.random.Generator) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Draw n patches: parameters, shape (n, x, y, z, n_parameters), and S0, shape (n, x, y, z)."""
        if self.kind not in DRAWS:
            return self._changing(n, rng), self.scale((n, *self.shape), rng)
        many = DRAWS[self.kind]
        piece = self._scattered(n, rng) if self.kind == "scattered" else self._fractal(n, rng)
        if isinstance(self.voxels, Tissues):
            tissue = np.broadcast_to(np.arange(len(self.voxels.ranges)), (n, len(self.voxels.ranges)))
            if self.kind == "scattered":
                tissue = rng.permuted(tissue, axis=1)[:, :many]
            values, s0 = self.voxels.draw(tissue.ravel(), rng), self.voxels.draw_scale(tissue.ravel(), rng)
        else:
            values, s0 = self.voxels.sample(n * many, rng), None
        s0 = self.scale((n, many), rng) if s0 is None else s0.reshape(n, many)
        rows = np.arange(n)[:, None, None, None]
        return values.reshape(n, many, -1)[rows, piece], s0[rows, piece]

    def _scattered(self, n: int, rng: np.random.Generator) -> NDArray[np.integer]:
        """0 where a voxel equals that in the middle, else 1; shape (n, x, y, z)."""
        size = int(np.prod(self.shape))
        order = rng.permuted(np.broadcast_to(np.arange(1, size), (n, size - 1)), axis=1)
        order = np.insert(order, size // 2, 0, axis=1)
        return (order > rng.integers(size, size=(n, 1))).astype(int).reshape(n, *self.shape)

    def _fractal(self, n: int, rng: np.random.Generator) -> NDArray[np.integer]:
        """Classes of patches from several maps, shape (n, x, y, z)."""
        x, y, z = self.shape
        parts = []
        for start in range(0, n, PER_MAP):
            windows = sliding_window_view(classes(fractal_noise((MAP, MAP), rng, cells=CELLS)), (x, y))
            places: Any = tuple(rng.integers(windows.shape[:2], size=(min(PER_MAP, n - start), 2)).T)
            parts.append(windows[places])
        return np.repeat(np.concatenate(parts)[..., None], z, axis=3)

    def _changing(self, n: int, rng: np.random.Generator) -> NDArray[np.float64]:
        """Parameters of smooth patches or pieces, shape (n, x, y, z, n_parameters)."""
        space = self.voxels.space
        here, there = (space.to_cube(self.voxels.sample(n, rng))[:, None, None, None] for _ in range(2))
        if self.kind == "smooth":
            share = self._along(n, rng) * rng.uniform(0, STEEPEST, (n, 1, 1, 1))
        else:
            share = self._beyond(n, rng).astype(float)
        return space.from_cube(np.clip(here + (there - here) * share[..., None], 0, 1))

    def alike(self, surroundings: Surroundings) -> NDArray[np.bool_]:
        """Which voxels of a patch have the parameters of the central one, shape (x, y, z).

        All of them ("homogeneous"), those up to the voxel in a straight half of the patch ("edge"), or itself alone
        ("lesion").
        """
        if surroundings == "homogeneous":
            return np.full(self.shape, True)
        places = np.indices(self.shape) - np.reshape(self.reach, (3, 1, 1, 1))
        return np.asarray(places[np.argmax(self.reach)] <= 0 if surroundings == "edge" else ~places.any(axis=0))

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


def with_presence(features: NDArray, present: NDArray[np.bool_] | None = None) -> NDArray[np.float32]:
    """Features (..., n_features) with an indicator of presence appended: shape (..., n_features + 1).

    Indicator and features are 0 outside the mask or image and where a voxel has no usable signal; elsewhere the
    indicator is 1. By default voxels are present whose features are finite.
    """
    if present is None:
        present = np.asarray(np.isfinite(features).all(axis=-1))
    channel = present[..., None]
    return np.concatenate([np.where(channel, features, 0), channel], axis=-1, dtype=np.float32)
