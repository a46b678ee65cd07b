"""Head motion and eddy currents: where every volume lies, and what that does to the gradient directions."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import polar
from scipy.ndimage import affine_transform
from scipy.spatial.transform import Rotation
from threadpoolctl import threadpool_limits

from bidsfit.acquisition import Acquisition
from bidsfit.preprocessing.registration import RADIUS, Grid, Match, Reference, affine_generators, rigid_generators
from bidsfit.preprocessing.resampling import THIN, resample_volume
from bidsfit.preprocessing.trajectory import is_still, motion_parameters, rigid_transforms

Kind = Literal["affine", "rigid"]

#: Up to this b-value (s/mm^2) eddy currents are too small to look for.
LOW_B = 100.0

#: From so many volumes of a shell on, the others predict what a volume looks like.
ENOUGH_DIRECTIONS = 15

#: From so many on, spherical harmonics of the fourth order; and the weight of their Laplace-Beltrami penalty.
MANY_DIRECTIONS = 20
SMOOTHNESS = 0.006

#: No one moves farther between volumes of a usable scan (mm, degrees), and no eddy current strains more.
LARGEST_TRANSLATION = 40.0
LARGEST_ROTATION = 30.0
LARGEST_STRAIN = 0.1

#: Nor does a whole shell lie farther (mm, degrees) from where the volumes around it in time say that it is.
FARTHEST_SHELL = 5.0

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
        Motion was sought within slices alone, because there are too few of them.
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
    n_volumes : int
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
    threads : int
    progress : callable, optional
        Called with the fraction that is done.

    Returns
    -------
    Motion

    Raises
    ------
    ValueError
        Where shapes disagree, or `obstacle_to_motion` names an obstacle.

    Notes
    -----
    Volumes of low b-values (up to `LOW_B`) are registered rigidly to the first, then to what the others of them say.
    Volumes of higher b start from the motion of those around them in time, and are registered one by one, rigidly, to
    the mean of the low b-values by mutual information [3]_. Those of a shell with at least `ENOUGH_DIRECTIONS` are
    then registered to a prediction from all the others of the shell by a fit of spherical harmonics, so that none sees
    its own noise, as in model-based corrections [1]_ [2]_. Where there is such a shell, those above it are compared
    with its extrapolation along each direction first, instead of with the low b-values.

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
    volumes = _Volumes(data, affine, shift, axis)
    groups = _groups(b)
    first = int(groups[0][np.argmin(b[groups[0]])])
    tissue = _rough_mask(volumes[first]) if mask is None else np.asarray(mask, dtype=bool)
    grid = Grid(affine, tissue, tuple(i for i in range(3) if data.shape[i] <= THIN))
    with threadpool_limits(1, user_api="blas"), ThreadPoolExecutor(max(1, threads)) as pool:
        search = _Search(volumes, b, grid, pool, progress)
        search.low(groups[0], first)
        for group in groups[1:]:
            search.start(group)
            if directions is None or group.size < ENOUGH_DIRECTIONS:
                search.one_by_one(group)
                search.report(group.size)
            else:
                strain = affine_generators(grid, axis) if kind == "affine" and not grid.thin else search.rigid
                search.shell(group, np.asarray(directions, dtype=float)[group], strain)
    return search.result(first, groups)


class _Search:
    """The state of the search: what is known of the motion so far, from low to high b.

    Attributes
    ----------
    transforms : ndarray, shape (n, 4, 4)
    believed : ndarray of bool, shape (n,)
        Volumes whose motion has been found.
    """

    def __init__(
        self,
        volumes: _Volumes,
        b_values: NDArray,
        grid: Grid,
        pool: ThreadPoolExecutor,
        progress: Callable[[float], None] | None,
    ) -> None:
        self.volumes, self.b, self.grid, self.pool, self.progress = volumes, b_values, grid, pool, progress
        self.rigid = rigid_generators(grid)
        self.transforms = np.tile(np.eye(4), (b_values.size, 1, 1))
        self.believed = np.zeros(b_values.size, dtype=bool)
        self.low_mean: NDArray[np.float32] | None = None
        self.extrapolation: _Extrapolation | None = None
        self.done = 0.0

    def low(self, group: NDArray, first: int) -> None:
        """Volumes of low b: to the first, then to the others."""
        same = np.ptp(self.b[group]) < LOW_B / 5
        reference = Reference(self.volumes[first], self.grid, degree=1 if same else 2)
        reference.levels  # noqa: B018 - made once, before threads share them
        self._register(group, lambda k: reference.match(self.volumes[k], np.eye(4), self.rigid))
        self.transforms[first], self.believed[first] = np.eye(4), True
        if group.size > 2:
            self._to_the_others(group, _leave_one_out(self.b[group], None), self.rigid, (2,))
        self.low_mean = self._mean(group)

    def start(self, group: NDArray) -> None:
        """Begin from the motion of the volumes around in time."""
        self.transforms[group] = _interpolate(self.transforms, self.believed, group, self.grid.centre)

    def shell(self, group: NDArray, directions: NDArray, generators: NDArray) -> None:
        """A shell whose volumes predict one another."""
        harmonics = _leave_one_out(self.b[group], directions)
        extrapolation = self.extrapolation
        if extrapolation is not None:
            place = {int(k): i for i, k in enumerate(group)}

            def to_the_extrapolation(k: int) -> Match:
                reference = Reference(extrapolation(self.b[k], directions[place[k]]), self.grid, degree=2)
                return reference.match(self.volumes[k], self.transforms[k], self.rigid)

            start = self.transforms[group].copy()
            self._register(group, to_the_extrapolation)
            if goes_astray(start, self.transforms[group], self.grid.centre):
                self.transforms[group], self.believed[group] = start, False
                return
            self._to_the_others(group, harmonics, generators, (2,))
            return
        self.one_by_one(group)
        self._to_the_others(group, harmonics, generators, (2,))
        if self.low_mean is not None:
            good = self.believed[group]
            if good.sum() >= ENOUGH_DIRECTIONS:
                aligned = self._aligned(group[good])
                b_value = float(self.b[group[good]].mean())
                self.extrapolation = _Extrapolation(self.low_mean, aligned, b_value, directions[good])

    def one_by_one(self, group: NDArray) -> None:
        """Volumes that cannot predict one another: each to the mean of the low b-values."""
        low_mean = self.low_mean
        assert low_mean is not None  # the low b-values come first

        def across(k: int) -> Match:
            volume = self.volumes[k]
            transform = _across_contrasts(low_mean, volume, self.grid, self.transforms[k])
            return Match(transform, 1.0 if np.ptp(volume) > 0 else 0.0)

        self._register(group, across)

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
        if self.progress is not None and self.done < 2 * self.b.size:
            self.progress(1.0)
        still = is_still(self.transforms, groups, self.grid.centre)
        if still:
            found = rigid_transforms(motion_parameters(self.transforms, self.grid.centre), self.grid.centre)
            self.transforms = np.linalg.inv(found) @ self.transforms
        return Motion(self.transforms, ~self.believed, bool(self.grid.thin), still)

    def _to_the_others(self, group: NDArray, weights: NDArray, generators: NDArray, levels: tuple[int, ...]) -> None:
        aligned = self._aligned(group)
        place = {int(k): i for i, k in enumerate(group)}

        def one(k: int) -> Match:
            predicted = np.einsum("xyzn,n->xyz", aligned, weights[place[k]])
            return Reference(predicted, self.grid).match(self.volumes[k], self.transforms[k], generators, levels)

        self._register(group, one)

    def _register(self, group: NDArray, register: Callable[[int], Match]) -> None:
        matches = []
        for match in self.pool.map(register, map(int, group)):
            matches.append(match)
            self.report(1)
        for k, match in zip(group, matches, strict=True):  # after all: they start from one another's
            self.believed[k] = match.correlation >= LEAST_CORRELATION and _plausible(match.transform, self.grid.centre)
            if self.believed[k]:
                self.transforms[k] = match.transform

    def _aligned(self, group: NDArray) -> NDArray[np.float32]:
        return np.stack([self.volumes.aligned(k, self.transforms[k]) for k in group], axis=-1)

    def _mean(self, group: NDArray) -> NDArray[np.float32]:
        used = group[self.believed[group]] if self.believed[group].any() else group
        total = np.zeros(self.grid.mask.shape, dtype=np.float32)
        for k in used:
            total += self.volumes.aligned(k, self.transforms[k])
        return total / np.float32(used.size)

    def report(self, n: int) -> None:
        """So many registrations are done, or need not be made."""
        self.done += n
        if self.progress is not None:
            self.progress(self.done / (2 * self.b.size))


class _Volumes:
    """The volumes to compare: finite, and with the susceptibility displacement undone where it is known."""

    def __init__(self, data: NDArray, affine: NDArray, shift: NDArray | None, axis: int | None) -> None:
        self.data, self.affine, self.shift, self.axis = data, affine, shift, axis

    def __getitem__(self, k: int) -> NDArray[np.float32]:
        volume = np.nan_to_num(self.data[..., k], nan=0.0, posinf=0.0, neginf=0.0).astype(np.float32)
        if self.shift is None:
            return volume
        return resample_volume(volume, self.affine, np.eye(4), self.shift, 1 if self.axis is None else self.axis)

    def aligned(self, k: int, transform: NDArray) -> NDArray[np.float32]:
        """A volume roughly in the frame of the reference; good enough to compare with."""
        volume = self[k]
        if np.array_equal(transform, np.eye(4)):
            return volume
        matrix = np.linalg.inv(self.affine) @ transform @ self.affine
        return np.asarray(
            affine_transform(volume, matrix[:3, :3], matrix[:3, 3], order=1, mode="nearest", output=np.float32)
        )


def _groups(b_values: NDArray) -> list[NDArray[np.intp]]:
    """Volumes up to `LOW_B` (or the lowest shell, where there are none), then the shells, from low to high b."""
    shells = [shell.indices for shell in Acquisition(b_values).shells]
    lowest = max(LOW_B, float(b_values[shells[0]].max()))
    above = [indices[b_values[indices] > lowest] for indices in shells]
    return [np.flatnonzero(b_values <= lowest), *(indices for indices in above if indices.size)]


def _leave_one_out(b_values: NDArray, directions: NDArray | None) -> NDArray[np.float32]:
    """Row k: weights of the volumes whose sum predicts volume k from all the others; its own weight is 0.

    A least-squares fit over the group of a constant, of b where it varies, and of spherical harmonics where there are
    directions.
    """
    n = b_values.size
    if n == 1:
        return np.ones((1, 1), dtype=np.float32)
    columns, penalties = [np.ones(n)], [0.0]
    if n >= 4 and np.ptp(b_values) > 0.2 * max(float(b_values.max()), 1.0):  # more than the jitter of a shell
        columns.append((b_values - b_values.mean()) / np.ptp(b_values))
        penalties.append(1e-3 * n)
    design, penalty = np.column_stack(columns), np.diag(penalties)
    if directions is not None:
        harmonics, smoothness = _harmonics(directions, n)
        design = np.column_stack([design, harmonics])
        penalty = np.diag([*penalties, *smoothness])
    hat = design @ np.linalg.solve(design.T @ design + penalty, design.T)
    own = np.diag(hat)
    weights = hat / np.maximum(1 - own, 0.1)[:, None]
    np.fill_diagonal(weights, 0.0)
    others = (1 - np.eye(n)) / (n - 1)
    return np.where((own < 0.8)[:, None], weights, others).astype(np.float32)


def _harmonics(directions: NDArray, n: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Even spherical harmonics (without the constant) that n directions support, and their smoothness penalties."""
    from dipy.reconst.shm import real_sh_descoteaux_from_index, sph_harm_ind_list

    lengths = np.linalg.norm(directions, axis=1, keepdims=True)
    x, y, z = (directions / np.where(lengths > 0, lengths, 1)).T
    order, degree = sph_harm_ind_list(4 if n >= MANY_DIRECTIONS else 2)
    values = real_sh_descoteaux_from_index(
        order, degree, np.arccos(np.clip(z, -1, 1))[:, None], np.arctan2(y, x)[:, None], legacy=False
    )
    return values[:, 1:], SMOOTHNESS * (degree * (degree + 1.0))[1:] ** 2


class _Extrapolation:
    """What a volume of a higher shell looks like, from the shell below.

    Parameters
    ----------
    unweighted : ndarray, shape (x, y, z)
    aligned : ndarray, shape (x, y, z, n)
        The shell below, in the frame of the reference.
    b_value : float
        Of the shell below.
    directions : ndarray, shape (n, 3)
    """

    def __init__(self, unweighted: NDArray, aligned: NDArray, b_value: float, directions: NDArray) -> None:
        self.unweighted, self.aligned, self.b_value = unweighted, aligned, b_value
        self.n = len(directions)
        harmonics, penalties = _harmonics(directions, self.n)
        design = np.column_stack([np.ones(self.n), harmonics])
        self.fit = np.linalg.solve(design.T @ design + np.diag([0.0, *penalties]), design.T)

    def __call__(self, b_value: float, direction: NDArray) -> NDArray[np.float32]:
        """Mono-exponential in b along the direction; a polynomial of intensities makes up for what is not."""
        row = np.append(1.0, _harmonics(direction[None], self.n)[0][0]) @ self.fit
        there = np.einsum("xyzn,n->xyz", self.aligned, row.astype(np.float32))
        base = np.maximum(self.unweighted, 1e-6 * self.unweighted.max())
        ratio = np.clip(there / base, 0.02, 1.0)
        return np.asarray(base * ratio ** np.float32(b_value / self.b_value), dtype=np.float32)


def _rough_mask(volume: NDArray) -> NDArray[np.bool_]:
    from dipy.segment.threshold import otsu
    from scipy.ndimage import median_filter

    smooth = median_filter(volume, size=[3 if side > THIN else 1 for side in volume.shape])
    if smooth.min() == smooth.max():
        raise ValueError("The first volume of the lowest b-value is the same everywhere: there is nothing to align.")
    return np.asarray(smooth > otsu(smooth))


def _across_contrasts(below: NDArray, own: NDArray, grid: Grid, start: NDArray) -> NDArray[np.float64]:
    """The rigid transform from the frame of one image to that of another of different b, by mutual information.

    DIPY's search, without the strain: with it, mutual information takes the fluid that fades with b for a smaller head.
    """
    from dipy.align.imaffine import AffineRegistration, MutualInformationMetric
    from dipy.align.transforms import RigidTransform2D, RigidTransform3D

    if np.ptp(below) == 0 or np.ptp(own) == 0:
        return start
    registration = AffineRegistration(
        metric=MutualInformationMetric(nbins=32),
        level_iters=[50, 50, 20],
        sigmas=[3.0, 1.5, 1.0],  # never 0: interpolated noise would attract
        factors=[4, 2, 1],
        verbosity=0,
    )
    # In units of a head's radius, from its centre, a rotation and a translation are alike in size, without which the
    # search ends early.
    around = grid.rim.astype(np.int32)  # noise in air has no place in the histogram
    units = np.diag([1 / RADIUS] * 3 + [1.0])
    if not grid.thin:
        units[:3, 3] = -grid.centre / RADIUS
        placed = units @ grid.affine
        found = registration.optimize(
            below.astype(float),
            own.astype(float),
            RigidTransform3D(),
            None,
            static_grid2world=placed,
            moving_grid2world=placed,
            static_mask=around,
            starting_affine=units @ start @ np.linalg.inv(units),
        ).affine
        result = np.linalg.inv(units) @ found @ units
    else:
        thick = [axis for axis in range(3) if axis not in grid.thin]
        middle = np.array([(below.shape[axis] - 1) / 2 for axis in thick])
        plane = np.eye(3)
        plane[:2, :2] = np.diag(grid.voxel_sizes[thick] / RADIUS)
        plane[:2, 2] = -plane[:2, :2] @ middle
        matrix = np.linalg.inv(grid.affine) @ start @ grid.affine
        voxels = np.eye(3)
        voxels[:2, :2], voxels[:2, 2] = matrix[np.ix_(thick, thick)], matrix[thick, 3]
        found = registration.optimize(
            below.mean(axis=grid.thin).astype(float),
            own.mean(axis=grid.thin).astype(float),
            RigidTransform2D(),
            None,
            static_grid2world=plane,
            moving_grid2world=plane,
            static_mask=around.max(axis=grid.thin),
            starting_affine=plane @ voxels @ np.linalg.inv(plane),
        ).affine
        voxels = np.linalg.inv(plane) @ found @ plane
        matrix = np.eye(4)
        matrix[np.ix_(thick, thick)] = voxels[:2, :2]
        matrix[thick, 3] = voxels[:2, 2]
        result = grid.affine @ matrix @ np.linalg.inv(grid.affine)
    return result if _plausible(result, grid.centre) else start


def goes_astray(start: NDArray, found: NDArray, centre: NDArray) -> bool:
    """Whether a whole shell was found far from where the volumes around it in time lie.

    Single volumes may lie elsewhere than their neighbours; that all of a shell do says that its contrast led astray.

    Parameters
    ----------
    start, found : ndarray, shape (n, 4, 4)
        Of the volumes of a shell: from their neighbours in time, and by registration.
    centre : ndarray, shape (3,)
        About which the head turns, mm.
    """
    apart = np.median(motion_parameters(np.linalg.inv(start) @ found, centre), axis=0)
    shift, turn = np.linalg.norm(apart[:3]), np.rad2deg(np.linalg.norm(apart[3:]))
    return bool(shift > FARTHEST_SHELL or turn > FARTHEST_SHELL)


def _plausible(transform: NDArray, centre: NDArray) -> bool:
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
