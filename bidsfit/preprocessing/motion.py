"""Head motion and eddy currents: where every volume lies, and what that does to the gradient directions."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import polar
from scipy.ndimage import affine_transform, gaussian_filter
from scipy.spatial.transform import Rotation
from threadpoolctl import threadpool_limits

from bidsfit.acquisition import Acquisition
from bidsfit.preprocessing.contrasts import register_across_contrasts
from bidsfit.preprocessing.prediction import Extrapolation, leave_one_out
from bidsfit.preprocessing.registration import (
    Match,
    Reference,
    VoxelGrid,
    affine_generators,
    enlargement,
    rigid_generators,
)
from bidsfit.preprocessing.resampling import THIN, resample
from bidsfit.preprocessing.trajectory import Link, is_still, join_groups, motion_parameters, rigid_transforms

Kind = Literal["affine", "rigid"]

#: Up to this b-value (s/mm^2) eddy currents are too small to look for.
LOW_B = 100.0

#: From so many volumes of a shell on, the others predict what a volume looks like: by their mean, and from so many
#: directions on by spherical harmonics.
ENOUGH_VOLUMES = 8
ENOUGH_DIRECTIONS = 15

#: Registrations of a volume, at most.
PASSES = 4

#: A voxel is never predicted better than this part of the mean variance of what is left to predict.
SURE = 0.02

#: Motion through the plane is sought where the mask spans so many slices, and so many voxels within them.
FEWEST_SLICES = 5
FEWEST_IN_PLANE = 16

#: No one moves farther between volumes of a usable scan (mm, degrees), and no eddy current strains more.
LARGEST_TRANSLATION = 40.0
LARGEST_ROTATION = 30.0
LARGEST_STRAIN = 0.1

#: A volume that looks less like its reference than this correlation says nothing about motion.
LEAST_CORRELATION = 0.15

#: An image with fewer voxels along a side of its slices is too small to find motion in.
SMALLEST_SIDE = 12


class Motion(NamedTuple):
    """Where every volume lies.

    Attributes
    ----------
    transforms : ndarray, shape (n, 4, 4)
        World to world, mm: from a point of the reference (the frame of the first volume of the lowest b-value) to
        where its tissue lies in the volume.
    replaced : ndarray of bool, shape (n,)
        Volumes whose own estimate could not be believed, and that took the motion of their neighbours in time.
    in_plane : bool
        Motion was sought within slices alone, because there are too few of them or the mask is too small.
    still : bool
        The head did not move by more than the errors of finding out; no volume is moved.
    """

    transforms: NDArray[np.float64]
    replaced: NDArray[np.bool_]
    in_plane: bool
    still: bool


def obstacle_to_motion(shape: tuple[int, ...], n_volumes: int) -> str:
    """Why motion cannot be estimated, in words; empty where it can.

    Parameters
    ----------
    shape : tuple of int
        Voxels along x, y and z.
    """
    if n_volumes < 2:
        return f"motion between volumes needs at least 2, and there is {n_volumes}"
    sides = sorted(shape[:3])[1:]
    if sides[0] < SMALLEST_SIDE:
        return (
            f"slices of {sides[0]} x {sides[1]} voxels are too small to find motion in "
            f"(at least {SMALLEST_SIDE} along each side are needed)"
        )
    return ""


def estimate_motion(
    data: NDArray,
    affine: ArrayLike,
    b_values: ArrayLike,
    mask: NDArray | None = None,
    *,
    directions: ArrayLike | None = None,
    kind: Kind = "affine",
    shift: NDArray | None = None,
    axis: int | None = None,
    threads: int = 1,
    progress: Callable[[float], None] | None = None,
) -> Motion:
    """Where every volume lies, by registration of each to what the others of its shell say it looks like.

    Parameters
    ----------
    data : ndarray, shape (x, y, z, n)
    affine : array_like, shape (4, 4)
        Voxel to world, mm.
    b_values : array_like, shape (n,)
        s/mm^2.
    mask : ndarray of bool, shape (x, y, z), optional
        Tissue that moves as one; found by Otsu's threshold where there is none.
    directions : array_like, shape (n, 3), optional
        Gradient directions in any frame, by which the volumes of a shell predict one another.
    kind : {"affine", "rigid"}
        "affine" also seeks the strain of eddy currents in shells of at least `ENOUGH_DIRECTIONS`: along ``axis`` where
        it is given, as they act in an EPI, in any direction where it is not.
    shift : ndarray, shape (x, y, z), optional
        Displacement by susceptibility along ``axis``, voxels, undone before volumes are compared.
    axis : int, optional
        Axis of the phase encoding.

    Raises
    ------
    ValueError
        Where shapes disagree, or `obstacle_to_motion` names an obstacle.

    Notes
    -----
    Volumes of low b-values (up to `LOW_B`) are registered rigidly to the first, then to what the others of them say.
    Volumes of higher b start from the motion of those around them in time. Those of a shell with at least
    `ENOUGH_VOLUMES` are registered to the mean of the others, which knows no direction, and from `ENOUGH_DIRECTIONS`
    on to a prediction from the others by a fit of spherical harmonics, so that none sees its own noise, as in
    model-based corrections [1]_ [2]_; above the first shell to a mixture of that and of what the shell below says of
    their direction (`Extrapolation`). That tells how they lie to one another. How the shell as a whole lies to the one
    below it is found by mutual information of the two means [3]_, which hold little noise at any b, and from the
    volumes around in time (`join_groups`). Volumes of a smaller shell are registered one by one, rigidly, to the mean
    of the low b-values by mutual information.

    References
    ----------
    .. [1] Andersson JLR, Sotiropoulos SN. NeuroImage 2016;125:1063-1078.
    .. [2] Cieslak M, et al. Nature Methods 2021;18:775-778.
    .. [3] Mattes D, et al. IEEE Transactions on Medical Imaging 2003;22:120-128.
    """
    b = np.asarray(b_values, dtype=float)
    affine = np.asarray(affine, dtype=float)
    if data.ndim != 4 or b.shape != (data.shape[3],):
        raise ValueError(f"Motion needs volumes (x, y, z, n) and n b-values, found shapes {data.shape} and {b.shape}.")
    if kind not in get_args(Kind):
        raise ValueError(f"Unknown kind of motion {kind!r}; valid: {', '.join(get_args(Kind))}.")
    obstacle = obstacle_to_motion(data.shape[:3], b.size)
    if obstacle:
        raise ValueError(f"Motion cannot be estimated: {obstacle}.")
    volumes = _MotionVolumes(data, shift, axis, threads)
    groups = _groups(b)
    first = int(groups[0][np.argmin(b[groups[0]])])
    tissue = _rough_mask(volumes[first]) if mask is None else np.asarray(mask, dtype=bool)
    thin = thin_axes(tissue)
    scale = enlargement(tissue, affine, thin)
    grid = VoxelGrid(np.diag([scale, scale, scale, 1.0]) @ affine, tissue, thin)
    along = None if directions is None else np.asarray(directions, dtype=float)
    with threadpool_limits(1, user_api="blas"), ThreadPoolExecutor(max(1, threads)) as pool:
        search = _MotionSearch(volumes, b, grid, pool, progress)
        search.low(groups[0], first)
        for group in groups[1:]:
            search.start(group)
            if group.size < ENOUGH_VOLUMES:
                search.few(group)
            else:
                strain = affine_generators(grid, axis) if kind == "affine" and not grid.thin else search.rigid
                search.shell(group, None if along is None else along[group], strain)
    search.join(groups)
    found = search.result(first, groups)
    found.transforms[:, :3, 3] /= scale
    return found


def thin_axes(mask: NDArray[np.bool_]) -> tuple[int, ...]:
    """Axes along which motion is not sought: there are few slices, or the mask is too small to tell it from noise.

    Parameters
    ----------
    mask : ndarray of bool, shape (x, y, z)
    """
    thin = {axis for axis in range(3) if mask.shape[axis] <= THIN}
    spans = [np.flatnonzero(mask.any(axis=tuple(other for other in range(3) if other != axis))) for axis in range(3)]
    sides = [int(np.ptp(span)) + 1 if span.size else mask.shape[axis] for axis, span in enumerate(spans)]
    across = int(np.argmin(mask.shape))
    in_plane = min(side for axis, side in enumerate(sides) if axis != across)
    if sides[across] < FEWEST_SLICES or in_plane < FEWEST_IN_PLANE:
        thin.add(across)
    return tuple(sorted(thin))


class _MotionSearch:
    """The state of the search: what is known of the motion so far, from low to high b.

    Attributes
    ----------
    transforms : ndarray, shape (n, 4, 4)
    believed : ndarray of bool, shape (n,)
        Volumes whose motion has been found.
    low_mean, mean : ndarray, shape (x, y, z)
        Of the low b-values, and of the last shell (or the low b-values), in the frame that its volumes agreed on.
    seen : int
        Which group that last shell is.
    extrapolation : Extrapolation or None
        From the shell that was searched last.
    links : list of Link
        How each group above the low b-values lies to another.
    """

    def __init__(
        self,
        volumes: _MotionVolumes,
        b_values: NDArray,
        grid: VoxelGrid,
        pool: ThreadPoolExecutor,
        progress: Callable[[float], None] | None,
    ) -> None:
        self.volumes, self.b, self.grid, self.pool, self.progress = volumes, b_values, grid, pool, progress
        self.rigid = rigid_generators(grid)
        self.transforms = np.tile(np.eye(4), (b_values.size, 1, 1))
        self.believed = np.zeros(b_values.size, dtype=bool)
        self.low_mean: NDArray[np.float32] | None = None
        self.mean: NDArray[np.float32] | None = None
        self.seen = 0
        self.extrapolation: Extrapolation | None = None
        self.links: list[Link] = []
        self.done = 0.0

    def low(self, group: NDArray, first: int) -> None:
        """Volumes of low b: to the first, then to the others."""
        same = np.ptp(self.b[group]) < LOW_B / 5
        reference = Reference([self.volumes[first]], self.grid, degree=1 if same else 2)
        self._register(group, lambda k: reference.match(self.volumes[k], np.eye(4), self.rigid))
        self.transforms[first], self.believed[first] = np.eye(4), True
        if group.size > 2:
            self._to_the_others(group, leave_one_out(self.b[group]), self.rigid, (2,))
        self.report((PASSES - 1 - (group.size > 2)) * group.size)
        self.low_mean = self.mean = self._mean(group)

    def start(self, group: NDArray) -> None:
        """Begin from the motion of the volumes around in time."""
        self.transforms[group] = _interpolate(self.transforms, self.believed, group, self.grid.centre)

    def shell(self, group: NDArray, directions: NDArray | None, generators: NDArray) -> None:
        """A shell whose volumes predict one another.

        First the mean of the others, which is the same along all directions: a prediction along each follows volumes
        that moved alike because they lie near one another on the sphere. Once the shell as a whole is in its place, the
        shell below says what its volumes look like along each direction.
        """
        mean = leave_one_out(self.b[group])
        self._to_the_others(group, mean, self.rigid, (0, 1, 2))
        self.transforms[group] = self.transforms[group] @ self._across(group)
        below = None
        if directions is not None and self.extrapolation is not None:
            below = self.extrapolation(float(self.b[group].mean()), directions)
        if directions is None or group.size < ENOUGH_DIRECTIONS:
            for _ in range(PASSES - 1):
                self._to_the_others(group, mean, self.rigid, (2,), below)
        else:
            self._to_the_others(group, mean, self.rigid, (2,), below)
            harmonics = leave_one_out(self.b[group], directions)
            for _ in range(PASSES - 2):
                self._to_the_others(group, harmonics, generators, (2,), below)
                self.transforms[group] = without_common_stretch(self.transforms[group], directions, self.grid.centre)
        self.links.append(Link(self.seen, motion_parameters(self._across(group)[None], self.grid.centre)[0]))
        self.mean, self.seen = self._mean(group), len(self.links)
        good = self.believed[group]
        if directions is not None and good.sum() >= ENOUGH_VOLUMES:
            assert self.low_mean is not None
            b_value = float(self.b[group].mean())
            self.extrapolation = Extrapolation(self.low_mean, self._aligned(group[good]), b_value, directions[good])

    def _across(self, group: NDArray) -> NDArray[np.float64]:
        """How a shell as a whole lies to the one below it."""
        assert self.mean is not None  # the low b-values come first
        found = register_across_contrasts(self.mean, self._mean(group), self.grid)
        return found if plausible(found, self.grid.centre) else np.eye(4)

    def few(self, group: NDArray) -> None:
        """Volumes that are too few to predict one another: each to the mean of the low b-values."""
        low_mean = self.low_mean
        assert low_mean is not None  # the low b-values come first

        def across(k: int) -> Match:
            volume = self.volumes[k]
            transform = register_across_contrasts(low_mean, volume, self.grid, self.transforms[k])
            return Match(transform, 1.0 if np.ptp(volume) > 0 else 0.0)

        self._register(group, across)
        self.report((PASSES - 1) * group.size)
        self.links.append(Link(0, np.zeros(6)))

    def join(self, groups: Sequence[NDArray[np.intp]]) -> None:
        """Shift whole shells to where the others, and the volumes around in time, say that they lie."""
        path = motion_parameters(self.transforms, self.grid.centre)
        offsets = join_groups(path, groups, self.links, self.believed)
        for group, offset in zip(groups, rigid_transforms(offsets, self.grid.centre), strict=True):
            self.transforms[group] = self.transforms[group] @ offset

    def result(self, first: int, groups: Sequence[NDArray[np.intp]]) -> Motion:
        """Every volume against the first; those that were not found take the motion of their neighbours.

        Where the head lay still, only the strains of eddy currents stay.
        """
        self.transforms = self.transforms @ np.linalg.inv(self.transforms[first])
        lost = np.flatnonzero(~self.believed)
        if lost.size:
            self.start(lost)
            logging.getLogger(__name__).warning(
                "The motion of volumes %s could not be estimated; they take that of their neighbours in time.",
                ", ".join(map(str, lost)),
            )
        if self.progress is not None and self.done < PASSES * self.b.size:
            self.progress(1.0)
        still = is_still(self.transforms, groups, self.grid.centre)
        if still:
            found = rigid_transforms(motion_parameters(self.transforms, self.grid.centre), self.grid.centre)
            self.transforms = np.linalg.inv(found) @ self.transforms
        return Motion(self.transforms, ~self.believed, bool(self.grid.thin), still)

    def _to_the_others(
        self,
        group: NDArray,
        weights: NDArray,
        generators: NDArray,
        levels: tuple[int, ...],
        below: NDArray | None = None,
    ) -> None:
        """Each volume to what the others say, mixed with what the shell below says."""
        aligned = self._aligned(group)
        predicted = np.tensordot(weights, aligned, (1, 3))
        precision = self._precision(aligned, predicted) if self.b[group].min() > LOW_B else None
        place = {int(k): i for i, k in enumerate(group)}

        def one(k: int) -> Match:
            images = [predicted[place[k]]] if below is None else [predicted[place[k]], below[place[k]]]
            reference = Reference(images, self.grid, precision=precision)
            return reference.match(self.volumes[k], self.transforms[k], generators, levels)

        self._register(group, one)

    def _precision(self, aligned: NDArray, predicted: NDArray) -> NDArray[np.float32]:
        """Voxels by how well the volumes are predicted there.

        Fibres differ between directions, and their differences would be taken for motion.
        """
        variance = np.zeros(self.grid.mask.shape, dtype=np.float32)
        for k, volume in enumerate(predicted):
            variance += (volume - aligned[..., k]) ** 2
        sigma = [0.0 if axis in self.grid.thin else 1.0 for axis in range(3)]
        variance = gaussian_filter(variance, sigma)
        mean = float(variance[self.grid.rim].mean()) or 1.0
        return np.asarray(1 / (variance / mean + SURE))

    def _register(self, group: NDArray, register: Callable[[int], Match]) -> None:
        matches = []
        for match in self.pool.map(register, map(int, group)):
            matches.append(match)
            self.report(1)
        for k, match in zip(group, matches, strict=True):  # after all: they start from one another's
            self.believed[k] = match.correlation >= LEAST_CORRELATION and plausible(match.transform, self.grid.centre)
            if self.believed[k]:
                self.transforms[k] = match.transform

    def _aligned(self, group: NDArray) -> NDArray[np.float32]:
        return np.stack([self.volumes.aligned(k, self._matrix(k)) for k in group], axis=-1)

    def _matrix(self, k: int) -> NDArray[np.float64]:
        """From voxels of the reference to voxels of a volume."""
        return np.asarray(np.linalg.inv(self.grid.affine) @ self.transforms[k] @ self.grid.affine)

    def _mean(self, group: NDArray) -> NDArray[np.float32]:
        used = group[self.believed[group]] if self.believed[group].any() else group
        total = np.zeros(self.grid.mask.shape, dtype=np.float32)
        for k in used:
            total += self.volumes.aligned(k, self._matrix(k))
        return total / np.float32(used.size)

    def report(self, n: int) -> None:
        """So many registrations are done, or need not be made."""
        self.done += n
        if self.progress is not None:
            self.progress(self.done / (PASSES * self.b.size))


class _MotionVolumes:
    """The volumes to compare: finite, and with the susceptibility displacement undone where it is known."""

    def __init__(self, data: NDArray, shift: NDArray | None, axis: int | None, threads: int) -> None:
        self.data = data
        if shift is not None:
            still = np.tile(np.eye(4), (data.shape[3], 1, 1))
            self.data = resample(data, np.eye(4), still, shift, 1 if axis is None else axis, threads).data

    def __getitem__(self, k: int) -> NDArray[np.float32]:
        return np.nan_to_num(self.data[..., k], nan=0.0, posinf=0.0, neginf=0.0).astype(np.float32)

    def aligned(self, k: int, matrix: NDArray) -> NDArray[np.float32]:
        """A volume roughly in the frame of the reference, voxel to voxel; good enough to compare with."""
        volume = self[k]
        if np.allclose(matrix, np.eye(4), rtol=0, atol=1e-9):
            return volume
        return np.asarray(
            affine_transform(volume, matrix[:3, :3], matrix[:3, 3], order=1, mode="nearest", output=np.float32)
        )


def _groups(b_values: NDArray) -> list[NDArray[np.intp]]:
    """Volumes up to `LOW_B` (or the lowest shell, where there are none), then the shells, from low to high b."""
    shells = [shell.indices for shell in Acquisition(b_values).shells]
    lowest = max(LOW_B, float(b_values[shells[0]].max()))
    above = [indices[b_values[indices] > lowest] for indices in shells]
    return [np.flatnonzero(b_values <= lowest), *(indices for indices in above if indices.size)]


def _rough_mask(volume: NDArray) -> NDArray[np.bool_]:
    from dipy.segment.threshold import otsu
    from scipy.ndimage import median_filter

    smooth = median_filter(volume, size=[3 if side > THIN else 1 for side in volume.shape])
    if smooth.min() == smooth.max():
        raise ValueError("The first volume of the lowest b-value is the same everywhere: there is nothing to align.")
    return np.asarray(smooth > otsu(smooth))


def plausible(transform: NDArray, centre: NDArray) -> bool:
    """Whether a head can have moved so (`LARGEST_TRANSLATION`, `LARGEST_ROTATION`), and a field strained so much."""
    if not np.isfinite(transform).all():
        return False
    rotation, strain = polar(transform[:3, :3])
    shift = transform[:3, :3] @ centre + transform[:3, 3] - centre
    return bool(
        np.linalg.det(rotation) > 0
        and np.linalg.norm(shift) <= LARGEST_TRANSLATION
        and np.rad2deg(Rotation.from_matrix(rotation).magnitude()) <= LARGEST_ROTATION
        and np.abs(np.linalg.eigvalsh(strain) - 1).max() <= LARGEST_STRAIN
    )


def _interpolate(transforms: NDArray, known: NDArray, wanted: NDArray, centre: NDArray) -> NDArray[np.float64]:
    """Rigid motion of volumes between those whose motion is known, linear in time."""
    at = np.flatnonzero(known)
    if at.size == 0:
        return np.tile(np.eye(4), (wanted.size, 1, 1))
    parameters = motion_parameters(transforms[at], centre)
    between = np.column_stack([np.interp(wanted, at, column) for column in parameters.T])
    rotations = Rotation.from_euler("xyz", between[:, 3:]).as_matrix()
    result = np.tile(np.eye(4), (wanted.size, 1, 1))
    result[:, :3, :3] = rotations
    result[:, :3, 3] = centre - rotations @ centre + between[:, :3]
    return result


def without_common_stretch(transforms: NDArray, directions: NDArray, centre: NDArray) -> NDArray[np.float64]:
    """Take from the volumes of a shell what they are stretched by together.

    Volumes that predict one another do not tell how large the head is: all could grow alike. Eddy currents turn their
    sign with the gradient, so that what does not change with it is no eddy current.

    Parameters
    ----------
    transforms : ndarray, shape (n, 4, 4)
        World to world, from the reference to each volume.
    directions : ndarray, shape (n, 3)
        Gradient directions in any frame.
    centre : ndarray, shape (3,)
        A point that stays, world, mm.
    """
    stretches = np.array([polar(transform[:3, :3])[1] for transform in transforms]) - np.eye(3)
    design = np.column_stack([np.ones(len(directions)), directions])
    common = np.linalg.lstsq(design, stretches.reshape(-1, 9), rcond=None)[0][0].reshape(3, 3)
    undone = np.eye(4)
    undone[:3, :3] = np.linalg.inv(np.eye(3) + common)
    undone[:3, 3] = centre - undone[:3, :3] @ centre
    return np.asarray(transforms @ undone)


def rotate_directions(directions: ArrayLike, transforms: ArrayLike, affine: ArrayLike) -> NDArray[np.float64]:
    """Gradient directions of volumes that were brought into the frame of the reference [1]_.

    Parameters
    ----------
    directions : array_like, shape (n, 3)
        As in FSL's bvec files: along the axes of the image, x flipped where the affine's determinant is positive.
    transforms : array_like, shape (n, 4, 4)
        World to world, from the reference to the volume, as `estimate_motion` gives them.
    affine : array_like, shape (4, 4)
        Of the image, voxel to world.

    Returns
    -------
    ndarray, shape (n, 3)
        In the same convention and of the same lengths.

    Notes
    -----
    The gradients stayed with the scanner while the head turned by R; seen from the head they turned by the inverse.
    R is the orthogonal part of the transform's polar decomposition.

    References
    ----------
    .. [1] Leemans A, Jones DK. Magnetic Resonance in Medicine 2009;61:1336-1349.
    """
    directions = np.asarray(directions, dtype=float)
    transforms = np.asarray(transforms, dtype=float)
    if directions.ndim != 2 or directions.shape[1] != 3 or transforms.shape != (len(directions), 4, 4):
        raise ValueError(
            f"Rotation needs directions (n, 3) and transforms (n, 4, 4), "
            f"found {directions.shape} and {transforms.shape}."
        )
    linear = np.asarray(affine, dtype=float)[:3, :3]
    axes = polar(linear)[0]  # of a sheared affine, the nearest axes that are orthogonal
    if np.linalg.det(linear) > 0:
        axes = axes @ np.diag([-1.0, 1.0, 1.0])
    rotations = np.array([polar(transform[:3, :3])[0] for transform in transforms]).reshape(-1, 3, 3)
    world = directions @ axes.T
    return np.asarray(np.einsum("nji,nj->ni", rotations, world) @ axes)
