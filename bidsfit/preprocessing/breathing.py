"""Motion of abdominal organs with breathing: one displacement field for all volumes, scaled by a depth for each."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.ndimage import gaussian_filter, map_coordinates
from scipy.optimize import minimize_scalar
from scipy.special import entr

from bidsfit.acquisition import Acquisition
from bidsfit.parallel import Progress, library_threads
from bidsfit.preprocessing.registration import enlargement
from bidsfit.preprocessing.resampling import THIN, Resampled, displace

#: Standard deviations of the Gaussian by which volumes are smoothed before they are compared, from coarse to fine, mm.
SMOOTHING = (18.0, 9.0)

#: Improvements of the pattern and of the depths at each of these scales.
PASSES = 8

#: Displacements are found in a Gaussian window of this standard deviation, mm, and smoothed by this part of it.
WINDOW = 30.0
STIFFNESS = 0.3

#: Voxels are passed over until those that are left are about so large, mm: the pattern is smooth.
WORKING_SIZE = 6.0

#: Diffusivities (mm^2/s) between that of fat and that of flowing blood: every signal is a mixture of their decays.
DIFFUSIVITIES = np.concatenate([[0.0], np.geomspace(1e-4, 5e-2, 40)])

#: A mixture that reaches less than this part of the strongest is no contrast.
WEAKEST_CONTRAST = 0.01

#: At least so many volumes more than there are contrasts say how tissue moves.
FEWEST_SPARE = 2

#: A depth is pulled to 0 by this part of what the volumes say, and a displacement by this part.
SHRINKAGE = 0.05
RIDGE = 0.01

#: Intensities below this part of the mean count as this, when changes are compared with intensities.
DIM = 0.3

#: Smoothing before images of different b are compared, mm, and how well their mutual information tells the depth at one
#: from that at the other, voxels.
SHARP = 4.0
SURE_TO = 0.1

#: Depths that are compared by mutual information reach so far, in standard deviations.
DEEPEST = 3.0

#: Displacements of less than this, root mean square in voxels, are not told from noise: nothing is moved.
STILL = 0.1

#: Bins of the joint histogram along each axis.
BINS = 32


class Breathing(NamedTuple):
    """Displacement of the tissue in every volume.

    Attributes
    ----------
    pattern : ndarray, shape (3, x, y, z)
        Displacement at depth 1 along each voxel axis, in voxels: from each voxel of the mean of all volumes to where
        its tissue lies in a volume.
    depth : ndarray, shape (n,)
        Depth of every volume, with mean 0. All are 0 if the displacement does not exceed the errors of the estimate.
    """

    pattern: NDArray[np.float64]
    depth: NDArray[np.float64]

    def undone(
        self, data: NDArray, shift: NDArray | None = None, axis: int | None = None, threads: int = 1
    ) -> Resampled:
        """Volumes (x, y, z, n) resampled once to the mean depth; ``shift`` and ``axis`` as for `displace`."""
        return displace(data, lambda k: self.depth[k] * self.pattern, shift, axis, threads)

    def world(self, affine: ArrayLike, mask: NDArray[np.bool_]) -> NDArray[np.float64]:
        """The pattern within a mask along the world axes, mm, shape (3, n_voxels)."""
        return np.asarray(np.asarray(affine, dtype=float)[:3, :3] @ self.pattern[:, mask])


def obstacle_to_breathing(b_values: ArrayLike) -> str:
    """Why the displacement cannot be estimated from volumes of these b-values (s/mm^2), in words; else empty."""
    b = np.asarray(b_values, dtype=float)
    needed = contrasts(b).shape[1] + FEWEST_SPARE
    if b.size >= needed:
        return ""
    return f"{b.size} volumes do not tell movement from contrast (at least {needed} are needed with these b-values)"


def contrasts(b_values: NDArray) -> NDArray[np.float64]:
    """Orthonormal basis of the signal changes with b (s/mm^2) in still tissue, shape (n, k).

    It spans mono-exponential decays (`DIFFUSIVITIES`) and the constant.
    """
    decays = np.exp(-np.outer(b_values, DIFFUSIVITIES))
    left, sizes, _ = np.linalg.svd(decays, full_matrices=False)
    return np.asarray(left[:, sizes > WEAKEST_CONTRAST * sizes[0]])


def estimate_breathing(
    data: NDArray,
    affine: ArrayLike,
    b_values: ArrayLike,
    mask: NDArray[np.bool_],
    *,
    threads: int = 1,
    progress: Progress | None = None,
) -> Breathing:
    """Estimate one displacement field for all volumes, and the depth of each volume along it.

    Parameters
    ----------
    data : ndarray, shape (x, y, z, n)
        Volumes without susceptibility distortion, where it is known.
    affine : array_like, shape (4, 4)
        Voxel to world, mm.
    b_values : array_like, shape (n,)
        s/mm^2.
    mask : ndarray of bool, shape (x, y, z)
        Tissue with a margin, where volumes are compared.

    Raises
    ------
    ValueError
        If `obstacle_to_breathing` names an obstacle.

    Notes
    -----
    Free deformation of each volume could imitate changes of intensity. Breathing has few degrees of freedom and is
    modelled as a spatial pattern times a depth per volume [1]_. Both are found in turn by Gauss-Newton steps from
    coarse to fine that minimise

        sum over voxels and volumes of (R I(x + depth * pattern(x)))^2,

    where R removes from the signals of a voxel what any mixture of decays in b explains (`contrasts`; separable least
    squares as in variable projection [2]_). The start is the principal direction of a translation of every volume.
    Depths that correlate with b cannot be separated from contrast in this way and are excluded. They are found last,
    along the pattern, from the mutual information [3]_ of the mean images of the b-values, and shrunk according to its
    uncertainty (`SURE_TO`).

    Every volume is assumed to have one depth, as with triggering, and the trunk as a whole to be still. Lengths in mm
    refer to the body enlarged to the size of a head.

    References
    ----------
    .. [1] McClelland JR, Hawkes DJ, Schaeffter T, King AP. Medical Image Analysis 2013;17:19-42.
    .. [2] Golub GH, Pereyra V. SIAM Journal on Numerical Analysis 1973;10:413-432.
    .. [3] Studholme C, Hill DLG, Hawkes DJ. Pattern Recognition 1999;32:71-86.
    """
    b = np.asarray(b_values, dtype=float)
    obstacle = obstacle_to_breathing(b)
    if obstacle:
        raise ValueError(f"The movement of organs cannot be found: {obstacle}.")
    affine = np.asarray(affine, dtype=float)
    sizes = enlargement(mask, affine) * np.sqrt((affine[:3, :3] ** 2).sum(axis=0))
    steps = np.maximum(1, np.round(WORKING_SIZE / sizes)).astype(int)
    every = tuple(slice(None, None, step) for step in steps)
    still = Breathing(np.zeros((3, *data.shape[:3])), np.zeros(b.size))
    if not mask[every].any():
        return still
    with library_threads(1, "blas"), ThreadPoolExecutor(max(1, threads)) as pool:
        search = _BreathingSearch(np.nan_to_num(data), sizes, every, mask[every], contrasts(b), pool)
        for turn, smoothing in enumerate(SMOOTHING):
            search.smooth(smoothing)
            for done in range(PASSES):
                search.improve()
                if progress is not None:
                    progress((turn * PASSES + done + 1) / (len(SMOOTHING) * PASSES))
            search.follow_b([shell.indices for shell in Acquisition(b).shells])
    pattern = _on_grid(search.pattern / sizes[:, None, None, None], data.shape[:3], steps)
    if np.sqrt((pattern[:, mask] ** 2).sum(axis=0).mean()) < STILL:
        return still
    return Breathing(pattern, search.depth - search.depth.mean())


class _BreathingSearch:
    """State of the search: pattern (mm along the voxel axes) and depths.

    Volumes lie on a coarser grid, every ``every``-th voxel of the image.
    """

    def __init__(
        self,
        data: NDArray,
        sizes: NDArray,
        every: tuple[slice, ...],
        mask: NDArray[np.bool_],
        explained: NDArray,
        pool: ThreadPoolExecutor,
    ) -> None:
        self.data, self.fine, self.every, self.mask, self.pool = data, sizes, every, mask, pool
        self.sizes = sizes * [one.step for one in every]
        self.thin = [axis for axis in range(3) if mask.shape[axis] <= THIN]
        self.here = np.indices(mask.shape, dtype=float)
        n = data.shape[3]
        self.explained = explained
        self.unexplained = (np.eye(n) - explained @ explained.T).astype(np.float32)
        constant = np.column_stack([np.ones(n), explained])
        self.free = np.linalg.svd(constant)[0][:, np.linalg.matrix_rank(constant) :]
        self.pattern = np.zeros((3, *mask.shape))
        self.depth = np.zeros(n)

    def smooth(self, scale: float) -> None:
        """Smooth the volumes by a Gaussian of so many mm, on the coarser grid."""
        sigma = [0.0 if axis in self.thin else scale / self.fine[axis] for axis in range(3)]

        def one(k: int) -> NDArray[np.float32]:
            volume = self.data[..., k].astype(np.float32)
            return np.asarray(gaussian_filter(volume, sigma, mode="nearest")[self.every])

        self.volumes = list(self.pool.map(one, range(self.depth.size)))

    def improve(self) -> None:
        """Update the pattern, then the depths, by one step each."""
        left, slopes = self._compare()
        if not self.depth.any():
            self._start(left, slopes)
            return
        self.pattern += self._step(left, slopes)
        stiff = self._window(STIFFNESS)
        self.pattern = np.stack([gaussian_filter(line, stiff, mode="nearest") for line in self.pattern])
        left, slopes = self._compare()
        along = np.einsum("ixyzn,ixyz->xyzn", slopes, self.pattern)[self.mask]
        depth = self.depth + self._depths(along[None], left[self.mask], self.depth)[0]
        spread = depth.std()
        if spread > 0:
            self.depth, self.pattern = depth / spread, self.pattern * spread

    def _compare(self) -> tuple[NDArray, NDArray]:
        """Residuals that contrast does not explain, shape (x, y, z, n), and their slopes per mm, (3, x, y, z, n).

        Both are relative to the mean of the voxel, so that bright tissue does not dominate.
        """
        last = (np.array(self.mask.shape) - 1.0)[:, None, None, None]
        inside = self.mask.copy()
        for depth in (self.depth.min(), self.depth.max()):
            places = self.here + depth * self.pattern / self.sizes[:, None, None, None]
            inside &= ((places >= 0) & (places <= last)).all(axis=0)
        aligned = np.stack(list(self.pool.map(self._moved, range(self.depth.size), self.depth)), axis=-1)
        predicted = np.maximum(aligned - aligned @ self.unexplained, 0)
        brightness = predicted.mean(axis=-1)
        dim = DIM * float(brightness[self.mask].mean()) + float(np.finfo(np.float32).tiny)
        weight = np.where(inside, 1 / np.hypot(brightness, dim), 0)[..., None]
        slopes = np.zeros((3, *predicted.shape), dtype=np.float32)
        for axis in range(3):
            if axis not in self.thin:
                slopes[axis] = np.gradient(predicted, self.sizes[axis], axis=axis) * weight
        return -(aligned @ self.unexplained) * weight, slopes

    def _moved(self, k: int, depth: float) -> NDArray[np.float32]:
        """Volume k moved from this depth to the mean depth."""
        places = self.here + depth * self.pattern / self.sizes[:, None, None, None]
        return np.asarray(map_coordinates(self.volumes[k], places, order=1, mode="nearest"))

    def _start(self, left: NDArray, slopes: NDArray) -> None:
        """Initialise with the principal direction of a translation of every volume."""
        shifts = self._depths(slopes[:, self.mask], left[self.mask])
        shifts -= shifts.mean(axis=1, keepdims=True)
        directions, strengths, depths = np.linalg.svd(shifts, full_matrices=False)
        if strengths[0] > 0:
            self.depth = depths[0] / depths[0].std()
            self.pattern[:] = (directions[:, 0] * strengths[0] * depths[0].std())[:, None, None, None]

    def _depths(self, along: NDArray, left: NDArray, now: NDArray | None = None) -> NDArray[np.float64]:
        """Least-squares steps of the depths, shape (m, n), from slopes along m directions (m, voxels, n)."""
        m, _, n = along.shape
        normal = np.einsum("pvk,qvl->pkql", along, along, optimize=True) * self.unexplained[:, None, :]
        matrix = normal.reshape(m * n, m * n)
        towards = np.einsum("pvk,vk->pk", along, left).ravel()
        pull = SHRINKAGE * np.trace(matrix) / (m * n)
        towards = towards - pull * (0 if now is None else np.tile(now, m))
        free = np.kron(np.eye(m), self.free)
        inner = free.T @ matrix @ free + (pull + np.finfo(float).tiny) * np.eye(free.shape[1])
        return (free @ np.linalg.solve(inner, free.T @ towards)).reshape(m, n)

    def _step(self, left: NDArray, slopes: NDArray) -> NDArray[np.float64]:
        """Least-squares step of the pattern within a Gaussian window around every voxel, shape (3, x, y, z)."""
        window = self._window(1.0)
        changes = [slope * self.depth.astype(np.float32) @ self.unexplained for slope in slopes]
        jobs = [(i, j) for i in range(3) for j in range(i, 3)]

        def product(first: NDArray, second: NDArray) -> NDArray[np.float64]:
            return np.asarray(gaussian_filter(np.einsum("xyzn,xyzn->xyz", first, second), window, mode="nearest"))

        matrix = np.empty((*self.mask.shape, 3, 3))
        for (i, j), found in zip(
            jobs, self.pool.map(lambda ij: product(changes[ij[0]], changes[ij[1]]), jobs), strict=True
        ):
            matrix[..., i, j] = matrix[..., j, i] = found
        towards = np.stack(list(self.pool.map(lambda change: product(change, left), changes)), axis=-1)
        ridge = RIDGE * np.percentile(np.trace(matrix, axis1=-2, axis2=-1)[self.mask] / 3, 90)
        matrix += (ridge + np.finfo(float).tiny) * np.eye(3)
        return np.asarray(np.moveaxis(np.linalg.solve(matrix, towards[..., None])[..., 0], -1, 0), dtype=float)

    def _window(self, part: float) -> NDArray[np.float64]:
        return part * WINDOW / self.sizes

    def follow_b(self, levels: list[NDArray[np.intp]]) -> None:
        """Add the depths that correlate with b, from the mutual information of each b-value's mean with the lowest's.

        They are a Bayesian estimate, shrunk towards depths that do not depend on b.
        """
        voxels = np.sqrt(((self.pattern / self.sizes[:, None, None, None]) ** 2).sum(axis=0)[self.mask].mean())
        if len(levels) < 2 or voxels == 0:
            return
        self.smooth(SHARP)
        self.depth -= self.explained @ (self.explained.T @ self.depth)
        reference = self._mean(levels[0], 0.0)

        def offset(level: NDArray[np.intp]) -> float:
            found = minimize_scalar(
                lambda extra: -_mutual_information(reference[self.mask], self._mean(level, extra)[self.mask]),
                bounds=(-DEEPEST, DEEPEST),
                method="bounded",
                options={"xatol": 0.02},
            )
            return float(found.x)

        offsets = np.array(list(self.pool.map(offset, levels[1:])))
        means = np.array([self.explained[level].mean(axis=0) for level in levels])
        design = means[1:] - means[0]
        doubt = (SURE_TO / voxels) ** 2
        strength = np.linalg.solve(design.T @ design + doubt * np.eye(design.shape[1]), design.T @ offsets)
        self.depth += self.explained @ strength

    def _mean(self, level: NDArray[np.intp], extra: float) -> NDArray[np.float64]:
        return np.mean([self._moved(k, self.depth[k] + extra) for k in level], axis=0)


def _mutual_information(first: NDArray, second: NDArray) -> float:
    """Normalised mutual information: sum of entropies over joint entropy (reference 3 of `estimate_breathing`)."""
    joint = np.histogram2d(first, second, bins=BINS)[0] / first.size
    apart = sum(entr(joint.sum(axis=axis)).sum() for axis in (0, 1))
    together = entr(joint).sum()
    return float(apart / together) if together > 0 else 0.0


def _on_grid(pattern: NDArray, shape: tuple[int, ...], steps: NDArray) -> NDArray[np.float64]:
    """The pattern on the grid of the image."""
    if (steps == 1).all():
        return pattern
    places = np.indices(shape, dtype=float) / steps[:, None, None, None]
    return np.stack([map_coordinates(line, places, order=1, mode="nearest") for line in pattern])
