"""Head motion and eddy currents: position of every volume, and rotation of the gradient directions."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import polar
from scipy.ndimage import gaussian_filter
from scipy.spatial.transform import Rotation

from bidsfit.acquisition import Acquisition
from bidsfit.parallel import Progress, library_threads
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
from bidsfit.preprocessing.resampling import THIN
from bidsfit.preprocessing.splines import moved_grid, trilinear
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
    """Position of every volume.

    Attributes
    ----------
    transforms : ndarray, shape (n, 4, 4)
        World to world, mm: from a point of the reference (the frame of the first volume of the lowest b-value) to its
        tissue in the volume.
    replaced : ndarray of bool, shape (n,)
        Volumes whose own estimate was implausible and that took the motion of their neighbours in time.
    in_plane : bool
        Whether only motion within slices was estimated, because of few slices or a small mask.
    still : bool
        Whether the motion does not exceed the errors of its estimate; then no volume is moved.
    """

    transforms: NDArray[np.float64]
    replaced: NDArray[np.bool_]
    in_plane: bool
    still: bool


def obstacle_to_motion(shape: tuple[int, ...], n_volumes: int) -> str:
    """Why motion cannot be estimated for volumes of shape (x, y, z), in words; else empty."""
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
    axis: int | None = None,
    threads: int = 1,
    progress: Progress | None = None,
) -> Motion:
    """Estimate the position of every volume by registration to its prediction from the others of its shell.

    Parameters
    ----------
    data : ndarray, shape (x, y, z, n)
        Volumes without susceptibility distortion, where it is known.
    affine : array_like, shape (4, 4)
        Voxel to world, mm.
    b_values : array_like, shape (n,)
        s/mm^2.
    mask : ndarray of bool, shape (x, y, z), optional
        Rigid tissue; by default found by Otsu's threshold.
    directions : array_like, shape (n, 3), optional
        Gradient directions in any frame, used for predictions within shells.
    kind : {"affine", "rigid"}
        "affine" also estimates the strain of eddy currents in shells of at least `ENOUGH_DIRECTIONS`: along ``axis`` if
        given, as in an EPI, otherwise in any direction.
    axis : int, optional
        Phase-encoding axis.

    Raises
    ------
    ValueError
        If shapes disagree, or `obstacle_to_motion` names an obstacle.

    Notes
    -----
    Volumes of low b-values (up to `LOW_B`) are registered rigidly to the first, then to predictions from each other.
    Volumes of higher b start from the motion of their neighbours in time. In shells of at least `ENOUGH_VOLUMES` each
    is registered to the mean of the others and, from `ENOUGH_DIRECTIONS` on, to a leave-one-out prediction by spherical
    harmonics, as in model-based corrections [1]_ [2]_; above the first shell mixed with an extrapolation of the shell
    below (`Extrapolation`). This aligns a shell within itself. Its position relative to the shell below follows from
    the mutual information of the two mean images [3]_, which have little noise at any b, and from the neighbours in
    time (`join_groups`). Volumes of smaller shells are registered rigidly, one by one, to the mean of the low b-values
    by mutual information.

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
    volumes = _MotionVolumes(data)
    groups = _groups(b)
    first = int(groups[0][np.argmin(b[groups[0]])])
    tissue = _rough_mask(volumes[first]) if mask is None else np.asarray(mask, dtype=bool)
    thin = thin_axes(tissue)
    scale = enlargement(tissue, affine, thin)
    grid = VoxelGrid(np.diag([scale, scale, scale, 1.0]) @ affine, tissue, thin)
    along = None if directions is None else np.asarray(directions, dtype=float)
    with library_threads(1, "blas"), ThreadPoolExecutor(max(1, threads)) as pool:
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
    """Axes along which motion is not estimated, because there are few slices or the mask is too small."""
    thin = {axis for axis in range(3) if mask.shape[axis] <= THIN}
    spans = [np.flatnonzero(mask.any(axis=tuple(other for other in range(3) if other != axis))) for axis in range(3)]
    sides = [int(np.ptp(span)) + 1 if span.size else mask.shape[axis] for axis, span in enumerate(spans)]
    across = int(np.argmin(mask.shape))
    in_plane = min(side for axis, side in enumerate(sides) if axis != across)
    if sides[across] < FEWEST_SLICES or in_plane < FEWEST_IN_PLANE:
        thin.add(across)
    return tuple(sorted(thin))


class _MotionSearch:
    """State of the search, which goes from low to high b.

    Attributes
    ----------
    transforms : ndarray, shape (n, 4, 4)
    believed : ndarray of bool, shape (n,)
        Volumes whose motion has been found.
    low_mean, mean : ndarray, shape (x, y, z)
        Mean images of the low b-values, and of the last group, in the common frame of its volumes.
    seen : int
        Index of that last group.
    extrapolation : Extrapolation or None
        From the last shell.
    links : list of Link
        Position of each group above the low b-values relative to another.
    """

    def __init__(
        self,
        volumes: _MotionVolumes,
        b_values: NDArray,
        grid: VoxelGrid,
        pool: ThreadPoolExecutor,
        progress: Progress | None,
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
        """Register volumes of low b to the first, then to each other."""
        same = np.ptp(self.b[group]) < LOW_B / 5
        reference = Reference([self.volumes[first]], self.grid, degree=1 if same else 2)
        self._register(group, lambda k: reference.match(self.volumes[k], np.eye(4), self.rigid))
        self.transforms[first], self.believed[first] = np.eye(4), True
        if group.size > 2:
            self._to_the_others(group, leave_one_out(self.b[group]), self.rigid, (2,))
        self.report((PASSES - 1 - (group.size > 2)) * group.size)
        self.low_mean = self.mean = self._mean(self._aligned(group), group)

    def start(self, group: NDArray) -> None:
        """Start from the motion of the neighbours in time."""
        self.transforms[group] = _interpolate(self.transforms, self.believed, group, self.grid.centre)

    def shell(self, group: NDArray, directions: NDArray | None, generators: NDArray) -> None:
        """Register the volumes of a shell that predict one another.

        First to the mean of the others, which does not depend on direction: predictions along directions would follow
        volumes that are neighbours on the sphere and moved alike. Once the position of the shell is known, predictions
        along directions come from the shell below.
        """
        mean = leave_one_out(self.b[group])
        self._to_the_others(group, mean, self.rigid, (0, 1, 2))
        self.transforms[group] = self.transforms[group] @ self._across(self._mean(self._aligned(group), group))
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
        aligned, good = self._aligned(group), self.believed[group]
        mean_image = self._mean(aligned, group)
        self.links.append(Link(self.seen, motion_parameters(self._across(mean_image)[None], self.grid.centre)[0]))
        self.mean, self.seen = mean_image, len(self.links)
        if directions is not None and good.sum() >= ENOUGH_VOLUMES:
            assert self.low_mean is not None
            b_value = float(self.b[group].mean())
            self.extrapolation = Extrapolation(self.low_mean, aligned[good], b_value, directions[good])

    def _across(self, mean: NDArray) -> NDArray[np.float64]:
        """Transform between the mean image of a shell and that of the one below it."""
        assert self.mean is not None  # the low b-values come first
        found = register_across_contrasts(self.mean, mean, self.grid)
        return found if plausible(found, self.grid.centre) else np.eye(4)

    def few(self, group: NDArray) -> None:
        """Register volumes too few to predict one another to the mean of the low b-values."""
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
        """Shift whole shells to agree with other shells and with neighbours in time."""
        path = motion_parameters(self.transforms, self.grid.centre)
        offsets = join_groups(path, groups, self.links, self.believed)
        for group, offset in zip(groups, rigid_transforms(offsets, self.grid.centre), strict=True):
            self.transforms[group] = self.transforms[group] @ offset

    def result(self, first: int, groups: Sequence[NDArray[np.intp]]) -> Motion:
        """Motion relative to the first volume; volumes without an estimate take that of their neighbours.

        If the head was still, only the strains of eddy currents are kept.
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
        """Register each volume to its prediction from the others, mixed with that from the shell below."""
        aligned = self._aligned(group)
        predicted = np.tensordot(weights, aligned, 1)
        precision = self._precision(aligned, predicted) if self.b[group].min() > LOW_B else None
        place = {int(k): i for i, k in enumerate(group)}

        def one(k: int) -> Match:
            images = [predicted[place[k]]] if below is None else [predicted[place[k]], below[place[k]]]
            reference = Reference(images, self.grid, precision=precision)
            return reference.match(self.volumes[k], self.transforms[k], generators, levels)

        self._register(group, one)

    def _precision(self, aligned: NDArray, predicted: NDArray) -> NDArray[np.float32]:
        """Weight of every voxel: how well the volumes are predicted there.

        Where fibre directions make volumes differ, the differences would be mistaken for motion.
        """
        variance = np.zeros(self.grid.mask.shape, dtype=np.float32)
        for volume, prediction in zip(aligned, predicted, strict=True):
            variance += (prediction - volume) ** 2
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
        """Volumes in the frame of the reference, shape (n, x, y, z)."""
        return np.stack([self.volumes.aligned(k, self._matrix(k)) for k in group])

    def _matrix(self, k: int) -> NDArray[np.float64]:
        """Transform from voxels of the reference to voxels of volume k."""
        return np.asarray(np.linalg.inv(self.grid.affine) @ self.transforms[k] @ self.grid.affine)

    def _mean(self, aligned: NDArray, group: NDArray) -> NDArray[np.float32]:
        """Mean of the aligned volumes of a group whose motion has been found, or of all."""
        good = self.believed[group]
        return np.asarray(aligned.mean(axis=0, where=(good if good.any() else ~good)[:, None, None, None]))

    def report(self, n: int) -> None:
        """Count n registrations as done."""
        self.done += n
        if self.progress is not None:
            self.progress(self.done / (PASSES * self.b.size))


class _MotionVolumes:
    """The volumes to compare, made finite."""

    def __init__(self, data: NDArray) -> None:
        self.data = data

    def __getitem__(self, k: int) -> NDArray[np.float32]:
        volume = np.array(self.data[..., k], dtype=np.float32, order="C")
        return volume if np.isfinite(volume).all() else np.nan_to_num(volume, nan=0.0, posinf=0.0, neginf=0.0)

    def aligned(self, k: int, matrix: NDArray) -> NDArray[np.float32]:
        """Volume k roughly resampled to the frame of the reference, for comparison only."""
        volume = self[k]
        if np.allclose(matrix, np.eye(4), rtol=0, atol=1e-9):
            return volume
        return trilinear(volume[..., None], moved_grid(volume.shape, matrix))[0]


def _groups(b_values: NDArray) -> list[NDArray[np.intp]]:
    """Indices of the volumes up to `LOW_B` (or of the lowest shell), then of each shell in ascending order."""
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
    """Whether translation, rotation and strain are possible (`LARGEST_TRANSLATION`, `LARGEST_ROTATION`)."""
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
    """Rigid motion of the wanted volumes, interpolated linearly in time between the known ones."""
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
    """Remove the strain common to all volumes of a shell from their transforms, shape (n, 4, 4).

    Volumes that predict one another leave the size of the head undetermined. Eddy currents change sign with the
    gradient, so strain that does not depend on ``directions`` (n, 3, in any frame) is no eddy current. ``centre`` is a
    fixed point in world coordinates, mm.
    """
    stretches = np.array([polar(transform[:3, :3])[1] for transform in transforms]) - np.eye(3)
    design = np.column_stack([np.ones(len(directions)), directions])
    common = np.linalg.lstsq(design, stretches.reshape(-1, 9), rcond=None)[0][0].reshape(3, 3)
    undone = np.eye(4)
    undone[:3, :3] = np.linalg.inv(np.eye(3) + common)
    undone[:3, 3] = centre - undone[:3, :3] @ centre
    return np.asarray(transforms @ undone)


def rotate_directions(directions: ArrayLike, transforms: ArrayLike, affine: ArrayLike) -> NDArray[np.float64]:
    """Rotate gradient directions with volumes that were resampled to the frame of the reference [1]_.

    Parameters
    ----------
    directions : array_like, shape (n, 3)
        As in FSL's bvec files: along the image axes, with x flipped if the determinant of the affine is positive.
    transforms : array_like, shape (n, 4, 4)
        World to world, from the reference to the volume, as of `estimate_motion`.
    affine : array_like, shape (4, 4)
        Of the image, voxel to world.

    Returns
    -------
    ndarray, shape (n, 3)
        In the same convention and of the same lengths.

    Notes
    -----
    The head turned by R while the gradients stayed with the scanner, so directions are rotated by the inverse of R, the
    orthogonal part of the polar decomposition of the transform.

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
