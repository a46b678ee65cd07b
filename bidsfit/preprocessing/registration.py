"""Linear registration of a noisy volume to a reference, by Gauss-Newton least squares.

The reference is moved instead of the volume. Interpolation smooths noise, most at half a voxel, so that a search that
interpolates the volume finds motion where there is none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import expm, lstsq
from scipy.ndimage import binary_dilation, gaussian_filter

from bidsfit.preprocessing.splines import trilinear

#: Standard deviations of the Gaussian smoothing, mm, from coarse to fine; never less than `FINEST` voxels.
SMOOTHING = (8.0, 4.0, 2.0)
FINEST = 0.8

#: Width of the rim around the mask that is compared too, mm.
RIM = 5.0

#: Points compared at each of these scales, at most.
POINTS = (10_000, 20_000, 40_000)

#: Iterations at each scale, at most; they end when no point of a head moves by more than `CONVERGED` mm.
ITERATIONS = 12
CONVERGED = 0.01

#: Lengths in mm are meant for a head. What is smaller than this, mm, is registered as if it were enlarged to it: a
#: cord or a mouse as a head of as many voxels.
SMALL_HEAD = 100.0

#: Where a rotation or a strain is turned into a displacement, mm: about the radius of a head.
RADIUS = 60.0

#: One iteration moves nothing farther than this, mm.
LONGEST_STEP = 10.0

#: Residuals beyond so many robust standard deviations count less.
HUBER = 1.345


class Match(NamedTuple):
    """Result of a registration.

    Attributes
    ----------
    transform : ndarray, shape (4, 4)
        World to world, from a point of the reference to its tissue in the volume.
    correlation : float
        Between the volume and its prediction from the moved reference at the finest scale; 0 without contrast.
    """

    transform: NDArray[np.float64]
    correlation: float


def extent(mask: NDArray[np.bool_], affine: NDArray, thin: Sequence[int] = ()) -> float:
    """Longest diameter, mm, of the ellipsoid with the second moments of a mask, ignoring thin axes."""
    thick = [axis for axis in range(3) if axis not in thin]
    inside = np.argwhere(mask)[:, thick] @ np.asarray(affine)[:3, thick].T
    return float(2 * np.sqrt(5 * np.linalg.eigvalsh(np.cov(inside.T)).max())) if len(inside) > 1 else 0.0


def enlargement(mask: NDArray[np.bool_], affine: NDArray, thin: Sequence[int] = ()) -> float:
    """Factor that scales the extent of a mask to a head, so that lengths in mm apply; 1 from `SMALL_HEAD` on."""
    return max(1.0, SMALL_HEAD / (extent(mask, affine, thin) or SMALL_HEAD))


@dataclass(frozen=True)
class VoxelGrid:
    """Grid of voxels, and the mask within which they are compared.

    Attributes
    ----------
    affine : ndarray, shape (4, 4)
        Voxel to world, mm.
    mask : ndarray of bool, shape (x, y, z)
        Tissue. A rim around it is compared too, as edges are most informative about motion.
    thin : tuple of int
        Axes along which nothing is smoothed or moved.
    """

    affine: NDArray[np.float64]
    mask: NDArray[np.bool_]
    thin: tuple[int, ...] = ()

    @cached_property
    def voxel_sizes(self) -> NDArray[np.float64]:
        """Voxel sizes, mm."""
        return np.asarray(np.sqrt((self.affine[:3, :3] ** 2).sum(0)))

    @cached_property
    def axes(self) -> NDArray[np.float64]:
        """Unit vectors of the axes in world coordinates, in columns."""
        return np.asarray(self.affine[:3, :3] / self.voxel_sizes)

    @cached_property
    def centre(self) -> NDArray[np.float64]:
        """Centre of the mask in world coordinates, mm."""
        voxel = np.argwhere(self.mask).mean(0) if self.mask.any() else (np.array(self.mask.shape) - 1) / 2
        return np.asarray(self.affine[:3, :3] @ voxel + self.affine[:3, 3])

    def smooth(self, volume: NDArray, level: int) -> NDArray[np.float32]:
        """The volume smoothed to one of the scales."""
        sigma = [
            0.0 if axis in self.thin else max(SMOOTHING[level] / size, FINEST)
            for axis, size in enumerate(self.voxel_sizes)
        ]
        return np.asarray(gaussian_filter(volume, sigma, mode="nearest", truncate=3.0, output=np.float32))

    @cached_property
    def rim(self) -> NDArray[np.bool_]:
        """The mask dilated by a few millimetres."""
        rim = self.mask
        for axis, size in enumerate(self.voxel_sizes):
            if axis not in self.thin:
                length = 2 * int(np.ceil(RIM / size)) + 1
                rim = binary_dilation(rim, np.ones([length if i == axis else 1 for i in range(3)], dtype=bool))
        return np.asarray(rim)

    @cached_property
    def points(self) -> tuple[NDArray[np.intp], ...]:
        """Voxels compared at each scale, shape (3, n)."""
        inside = np.flatnonzero(self.rim)
        rng = np.random.default_rng(0)
        return tuple(
            np.array(np.unravel_index(np.sort(rng.permutation(inside)[:most]), self.mask.shape)) for most in POINTS
        )


def rigid_generators(grid: VoxelGrid) -> NDArray[np.float64]:
    """Generators of rigid motion about the centre of the grid, shape (6 or 3, 4, 4).

    Each moves a point at distance `RADIUS` by 1 mm. With a thin axis only the three in-plane motions remain.
    """
    thick = [axis for axis in range(3) if axis not in grid.thin]
    moves = []
    for i in thick:
        move = np.zeros((4, 4))
        move[:3, 3] = grid.axes[:, i]
        moves.append(move)
    for i, j in [(1, 2), (2, 0), (0, 1)]:
        if i in thick and j in thick:
            turn = np.outer(grid.axes[:, j], grid.axes[:, i])
            moves.append(_about(grid.centre, (turn - turn.T) / RADIUS))
    return np.array(moves)


def affine_generators(grid: VoxelGrid, axis: int | None = None) -> NDArray[np.float64]:
    """Generators of rigid motion and of strain: along ``axis`` only, as by eddy currents in an EPI, or any (None)."""
    strains = []
    for i in range(3) if axis is None else (axis,):
        for j in range(3):
            if axis is None and j < i:
                continue  # a shear and its transpose differ by a rotation
            strains.append(_about(grid.centre, np.outer(grid.axes[:, i], grid.axes[:, j]) / RADIUS))
    return np.concatenate([rigid_generators(grid), np.array(strains)])


def _about(centre: NDArray, linear: NDArray) -> NDArray[np.float64]:
    generator = np.zeros((4, 4))
    generator[:3, :3] = linear
    generator[:3, 3] = -linear @ centre
    return generator


class Reference:
    """Target of registrations: one image, or several whose mixture resembles a volume.

    Parameters
    ----------
    images : sequence of ndarray, shape (x, y, z)
    degree : int
        Degree of the polynomial that maps the intensities of each image to those of a volume: 1 if a volume has the
        contrast of the image or of a mixture.
    precision : ndarray of float32, shape (x, y, z), optional
        Weight of each voxel, the inverse variance of the residuals; equal by default.
    """

    def __init__(
        self, images: Sequence[NDArray], grid: VoxelGrid, degree: int = 1, precision: NDArray[np.float32] | None = None
    ) -> None:
        self.grid = grid
        self.precision = precision
        self.degree = degree
        scales = [float(np.abs(image[grid.mask]).mean()) or 1.0 for image in images]
        self.images = [(image / scale).astype(np.float32) for image, scale in zip(images, scales, strict=True)]
        self._scales: dict[int, list[NDArray[np.float32]]] = {}

    def at_scale(self, level: int) -> list[NDArray[np.float32]]:
        """Every image at one scale with its gradients per voxel, shape (x, y, z, 4); 0 along thin axes."""
        if level not in self._scales:
            self._scales[level] = [self._with_gradient(self.grid.smooth(image, level)) for image in self.images]
        return self._scales[level]

    def _with_gradient(self, image: NDArray[np.float32]) -> NDArray[np.float32]:
        thin = self.grid.thin
        gradient = (np.zeros_like(image) if k in thin else np.gradient(image, axis=k) for k in range(3))
        return np.stack([image, *gradient], axis=-1)

    def match(self, volume: NDArray, start: NDArray, generators: NDArray, levels: tuple[int, ...] = (0, 1, 2)) -> Match:
        """Find the transform from the reference to a volume.

        Parameters
        ----------
        volume : ndarray, shape (x, y, z)
        start : ndarray, shape (4, 4)
        generators : ndarray, shape (n_parameters, 4, 4)
            Motions to estimate: `rigid_generators` or `affine_generators`.
        levels : tuple of int
            Scales from coarse to fine; a good start needs only the last.

        Notes
        -----
        Each iteration is one linear least-squares fit of the volume by polynomials of the moved images and their
        derivatives along the motions, with Huber weights times the precision.
        """
        backward = np.linalg.inv(start)  # from the volume to the reference
        correlation = 0.0
        for level in levels:
            points = self.grid.points[level]
            values = self.grid.smooth(volume, level)[tuple(points)].astype(float)
            if not np.isfinite(values).all() or values.std() <= 1e-6 * max(abs(values.mean()), 1e-30):
                return Match(start, 0.0)
            values /= np.abs(values).mean()
            world = self.grid.affine[:3, :3] @ points + self.grid.affine[:3, 3:]
            backward, correlation = self._descend(values, world, backward, generators, level)
        return Match(np.linalg.inv(backward), correlation)

    def _descend(
        self, values: NDArray, world: NDArray, backward: NDArray, generators: NDArray, level: int
    ) -> tuple[NDArray[np.float64], float]:
        to_voxel = np.linalg.inv(self.grid.affine)
        correlation = 0.0
        for _ in range(ITERATIONS):
            here = backward[:3, :3] @ world + backward[:3, 3:]
            places = to_voxel[:3, :3] @ here + to_voxel[:3, 3:]
            for axis in self.grid.thin:
                places[axis] = np.rint(places[axis])
            limits = np.array(self.grid.mask.shape)[:, None] - 0.5
            seen = ((places > -0.5) & (places < limits)).all(0)
            if seen.mean() < 0.3:
                break
            target, there = values[seen], places[:, seen]
            powers, slopes = [np.ones(target.size)], []
            for parts in self.at_scale(level):
                parts_there = trilinear(parts, there).astype(float)
                image, gradient = parts_there[0], parts_there[1:]
                for d in range(1, self.degree + 1):
                    powers.append(image**d)
                    slopes.append(d * image ** (d - 1) * gradient)
            intensities = lstsq(np.transpose(powers), target, check_finite=False)[0]
            predicted = intensities @ np.array(powers)
            slope = to_voxel[:3, :3].T @ np.tensordot(intensities[1:], slopes, 1)  # per mm, world
            by_entry = slope[:, None] * np.append(here[:, seen], np.ones((1, target.size)), axis=0)  # of a matrix
            derivatives = generators[:, :3].reshape(-1, 12) @ by_entry.reshape(12, -1)
            design = np.concatenate([powers, derivatives])
            residual = target - predicted
            correlation = _correlation(target, predicted)
            spread = 1.4826 * np.median(np.abs(residual))
            weight = np.minimum(1, HUBER * spread / np.maximum(np.abs(residual), 1e-12)) if spread > 0 else 1.0
            if self.precision is not None:
                weight = weight * trilinear(self.precision[..., None], there)[0]
            weighted = design * weight
            normal = weighted @ design.T
            scale = np.sqrt(np.maximum(np.diag(normal), 1e-30))
            step = lstsq(normal / np.outer(scale, scale), weighted @ residual / scale, cond=1e-9)[0] / scale
            step = step[len(powers) :]
            step *= min(1.0, LONGEST_STEP / max(np.abs(step).max(), 1e-12))
            backward = expm(np.einsum("k,kij->ij", step, generators)) @ backward
            if np.abs(step).max() < CONVERGED:
                break
        return backward, correlation


def _correlation(first: NDArray, second: NDArray) -> float:
    first, second = first - first.mean(), second - second.mean()
    size = float(np.sqrt((first**2).sum() * (second**2).sum()))
    return float((first * second).sum()) / size if size > 0 else 0.0
