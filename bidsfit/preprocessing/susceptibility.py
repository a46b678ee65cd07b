"""Susceptibility distortion: displacement along the phase-encoding axis, from a pair of reversed directions.

An off-resonance field displaces the signal of an echo-planar image along its phase-encoding axis and compresses or
stretches it where the displacement changes. Images of opposite directions are displaced by opposite amounts, which
determines the displacement. Here it is in voxels on the grid of the forward image, the one to correct: sampling it at
``y[axis] + shift(y)`` and multiplying by ``1 + d shift / d y[axis]`` gives the undistorted image.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib.util import find_spec
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.ndimage import affine_transform, map_coordinates

from bidsfit.parallel import Progress, library_threads

#: Weights of smoothness and of the bound on the Jacobian: the defaults of PyHySCO (mm, brightest voxels at 256).
SMOOTHNESS, INTENSITY_CHANGE = 300.0, 1e-4

#: Gauss-Newton steps at most; four to nine are what it takes.
STEPS = 25

#: The brightest voxels are those of this percentile: a single hot voxel must not weaken the data.
BRIGHTEST = 99.9

#: Fewer slices than this are too few to see a rotation out of the plane, and are continued by their mirror images.
FEW_SLICES = 8

#: Rounds of registering the undistorted pair, at most, and the change (voxels) that ends them.
ROUNDS, STILL = 3, 0.1

#: By what fraction the undistorted pair must agree better with motion than without.
MOTION_GAIN = 0.05

#: Registration works on images of at most this many voxels a side, as fine as rigid motion needs.
REGISTRATION_SIDE = 80

#: Displacements of fewer voxels are below what a pair can tell from its noise: undoing them costs more than it gains.
NEGLIGIBLE = 0.2

#: Jacobians below this are folds, or noise; signal cannot be moved back from there.
SMALLEST_JACOBIAN = 0.05


class PhaseEncoding(NamedTuple):
    """A phase-encoding direction: image axis (0, 1, 2) and sign (1 or -1)."""

    axis: int
    sign: int


def phase_encoding(direction: Any) -> PhaseEncoding:
    """Axis and sign of a BIDS ``PhaseEncodingDirection``: i, i-, j, j-, k or k-.

    Raises
    ------
    ValueError
        For any other value.
    """
    if not isinstance(direction, str) or not re.fullmatch("[ijk]-?", direction):
        raise ValueError(f"{direction!r} is no phase-encoding direction; expected one of i, i-, j, j-, k, k-.")
    return PhaseEncoding("ijk".index(direction[0]), -1 if direction.endswith("-") else 1)


def shift_from_hertz(field: ArrayLike, readout_time: float, sign: int) -> NDArray[np.float64]:
    """Displacement (voxels) by an off-resonance field (Hz) in an image of a readout time (s) and a sign (1 or -1)."""
    if not 0 < readout_time < np.inf or sign not in (1, -1):
        raise ValueError(f"Expected a positive readout time (s) and a sign of 1 or -1, found {readout_time}, {sign}.")
    return np.asarray(field, dtype=float) * readout_time * sign


def jacobian(shift: ArrayLike, axis: int) -> NDArray[np.float64]:
    """Jacobian of a displacement, ``1 + d shift / d y[axis]``, but at least `SMALLEST_JACOBIAN`."""
    return np.maximum(1 + np.gradient(np.asarray(shift, dtype=float), axis=axis), SMALLEST_JACOBIAN)


def undistort(volume: ArrayLike, shift: ArrayLike, axis: int) -> NDArray[np.float64]:
    """Undo the displacement of one volume (linear interpolation) and restore its intensity.

    ``shift`` is in voxels on the grid of the volume; use ``-shift`` for the image of the reversed direction.
    """
    volume, shift = np.asarray(volume, dtype=float), np.asarray(shift, dtype=float)
    places = np.indices(volume.shape, dtype=float)
    places[axis] += shift
    return map_coordinates(volume, places, order=1, mode="nearest") * jacobian(shift, axis)


@dataclass(frozen=True)
class SusceptibilityField:
    """Displacement and motion estimated from a pair of reversed directions.

    Attributes
    ----------
    shift : ndarray of float32, shape (x, y, z)
        Displacement of the forward image, voxels along the phase-encoding axis. Its constant part includes half of any
        motion along that axis between the images, which a pair cannot distinguish.
    motion : ndarray, shape (4, 4)
        World (mm) of the forward image to its tissue in the reversed one, without displacement along the phase-encoding
        axis.
    before, after : float
        Root mean square difference of the raw and of the undistorted images, divided by their mean inside the head.
    """

    shift: NDArray[np.float32]
    motion: NDArray[np.float64]
    before: float
    after: float

    @property
    def largest(self) -> float:
        """99th percentile of the absolute displacement, voxels."""
        return float(np.percentile(np.abs(self.shift), 99))

    @property
    def negligible(self) -> bool:
        """Whether the distortion is too small to be worth an interpolation."""
        return self.largest < NEGLIGIBLE


def disagreement(first: NDArray, second: NDArray) -> float:
    """Root mean square difference of two volumes over their mean, in voxels brighter than the mean."""
    mean = (first + second) / 2
    head = mean > mean.mean()
    return float(np.sqrt(np.mean((first - second)[head] ** 2)) / mean[head].mean())


def available() -> bool:
    """Whether PyHySCO, which `estimate_field` needs, is installed."""
    return all(find_spec(name) is not None for name in ("EPI_MRI", "optimization"))


def estimate_field(
    forward: ArrayLike,
    reverse: ArrayLike,
    affine: ArrayLike,
    axis: int,
    *,
    motion: bool = True,
    threads: int = 1,
    progress: Progress | None = None,
) -> SusceptibilityField:
    """Estimate the displacement from two b = 0 images of opposite phase-encoding directions.

    The displacement is smooth, has positive Jacobians, and makes the undistorted images agree: the variational
    formulation of [1]_, solved by PyHySCO by Gauss-Newton from an optimal transport of every line [2]_. Rigid motion
    between the images is estimated in turn on the undistorted pair.

    Parameters
    ----------
    forward, reverse : array_like, shape (x, y, z)
        Images of the same grid, echo time and readout time; a difference in gain is removed.
    affine : array_like, shape (4, 4)
        Voxel to world, mm.
    axis : int
        Phase-encoding axis: 0, 1 or 2.
    motion : bool
        Whether to estimate rigid motion; not done below `FEW_SLICES` slices.

    Raises
    ------
    ValueError
        If the images cannot be used.
    ModuleNotFoundError
        If PyHySCO is not installed.

    References
    ----------
    .. [1] Ruthotto L, Kugel H, Olesch J, et al. Physics in Medicine and Biology 2012;57:5715-5731.
    .. [2] Julian A, Ruthotto L. Frontiers in Neuroscience 2024;18:1406821.
    """
    first, second = _usable(forward, "forward"), _usable(reverse, "reversed")
    affine = np.asarray(affine, dtype=float)
    if first.shape != second.shape:
        raise ValueError(f"The forward image has shape {first.shape}, the reversed one {second.shape}; expected one.")
    if axis not in (0, 1, 2) or first.shape[axis] < FEW_SLICES:
        raise ValueError(
            f"The phase-encoding axis {axis} of an image of shape {first.shape} cannot be used; expected 0, 1 or 2, "
            f"with at least {FEW_SLICES} voxels."
        )
    if not available():
        raise ModuleNotFoundError("PyHySCO is not installed; install it with pip, or leave the correction out.")

    def report(fraction: float) -> None:
        if progress is not None:
            progress(fraction)

    transform = np.eye(4)
    look = motion and min(first.shape) >= FEW_SLICES
    if look:
        transform = _find_motion(first, second, affine, axis, threads, lambda done: report(0.4 * done))
    start = 0.4 if look else 0.0
    moved = _move(second, affine, transform)
    moved *= first.sum() / moved.sum()
    shift = _solve(first, moved, _zooms(affine), axis, threads, lambda done: report(start + (0.98 - start) * done))
    before = disagreement(first, moved)
    after = disagreement(undistort(first, shift, axis), undistort(moved, -shift, axis))
    report(1.0)
    return SusceptibilityField(shift.astype(np.float32), transform, before, after)


def _usable(volume: ArrayLike, name: str) -> NDArray[np.float64]:
    values = np.asarray(volume, dtype=float)
    if values.ndim != 3:
        raise ValueError(f"The {name} image has shape {values.shape}; expected (x, y, z).")
    values = np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0)
    if np.ptp(values) == 0:
        raise ValueError(f"The {name} image holds the same value everywhere ({values.flat[0]:g}); expected a head.")
    return values


def _zooms(affine: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.linalg.norm(affine[:3, :3], axis=0)


def _solve(
    first: NDArray, second: NDArray, zooms: NDArray, axis: int, threads: int, progress: Progress
) -> NDArray[np.float64]:
    """Displacement of an aligned pair by PyHySCO, which needs the phase-encoding axis last."""
    import torch
    from EPI_MRI.EPIMRIDistortionCorrection import EPIMRIDistortionCorrection
    from EPI_MRI.ImageModels import Interp1D
    from optimization.GaussNewton import GaussNewton

    order = [other for other in (2, 1, 0) if other != axis] + [axis]
    lowest = min(first.min(), second.min())
    scale = 256 / (np.percentile(np.stack([first, second]), BRIGHTEST) - lowest)
    # Its derivatives need three slices and its transforms are periodic: a thin slab goes on as its mirror image.
    margins = [(0, 0) if other == axis else (_margin(first.shape[other]),) * 2 for other in order]
    pair = [np.pad((v.transpose(order) - lowest) * scale, margins, mode="symmetric") for v in (first, second)]

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        tensors = [torch.tensor(volume, dtype=torch.float32) for volume in pair]
        shape = torch.tensor(tensors[0].shape, dtype=torch.int)
        spacing = torch.tensor(zooms[order], dtype=torch.float32)
        extent = torch.zeros(6)
        extent[1::2] = spacing * shape
        # What its DataObject holds once it has read two files.
        images = [Interp1D(tensor, extent, shape, dtype=torch.float32) for tensor in tensors]
        data = SimpleNamespace(
            I1=images[0], I2=images[1], omega=extent, m=shape, h=spacing, dtype=torch.float32, device="cpu"
        )
        objective = EPIMRIDistortionCorrection(data, SMOOTHNESS, INTENSITY_CHANGE)
        optimiser = GaussNewton(objective, max_iter=STEPS, path=None)
        optimiser.log = _Log(progress)  # its own writes a file where the process happens to be
        faces = optimiser.run_correction(objective.initialize(blur_result=True))
        faces = faces.reshape([*tensors[0].shape[:2], tensors[0].shape[2] + 1])
        shift = ((faces[..., 1:] + faces[..., :-1]) / 2 / spacing[2]).double().numpy()
    finally:
        torch.set_num_threads(before)
    inner = tuple(slice(low, n - high) for (low, high), n in zip(margins, shift.shape, strict=True))
    shift = shift[inner].transpose(np.argsort(order))
    if not np.all(np.isfinite(shift)):
        raise ValueError("The displacement between the two images did not converge; leave the correction out.")
    return shift


def _margin(size: int) -> int:
    """Slices to add on each side of a thin slab."""
    return 0 if size >= FEW_SLICES else FEW_SLICES


class _Log:
    """Replacement of the optimiser's log that reports progress."""

    def __init__(self, progress: Progress) -> None:
        self.history: list[dict[str, Any]] = []
        self._progress = progress

    def log_iteration(self, record: dict[str, Any]) -> None:
        self.history.append(record)
        if len(self.history) > 2:  # after the headings and the start
            self._progress(1 - 0.75 ** (len(self.history) - 2))  # how many steps there will be is not known

    def log_message(self, message: str) -> None:
        pass


# --- motion between the two -----------------------------------------------------------------------------------------


def _find_motion(
    first: NDArray, second: NDArray, affine: NDArray, axis: int, threads: int, progress: Progress
) -> NDArray[np.float64]:
    """Rigid motion from the forward to the reversed image, on downsampled images; see `SusceptibilityField.motion`.

    Rotation about an axis across the phase encoding resembles a field with a gradient along the other, so motion is
    accepted only if the undistorted pair agrees better with it.
    """
    factor = int(np.ceil(max(first.shape) / REGISTRATION_SIDE))
    (first, coarse), (second, _) = (coarser(volume, affine, factor) for volume in (first, second))
    corners = np.indices((2, 2, 2)).reshape(3, -1).T * (np.array(first.shape) - 1)
    world = _apply(coarse, corners)
    zooms = _zooms(coarse)

    def solve(transform: NDArray) -> tuple[NDArray, NDArray, float]:
        """The undistorted pair, each in its own frame, and their disagreement."""
        moved = _move(second, coarse, transform)
        moved *= first.sum() / moved.sum()
        shift = _solve(first, moved, zooms, axis, threads, lambda _: None)
        undistorted = undistort(first, shift, axis)
        back = _move(shift, coarse, np.linalg.inv(transform))
        agreement = disagreement(undistorted, undistort(moved, -shift, axis))
        return undistorted, undistort(second, -back, axis), agreement

    transform = best = np.eye(4)
    least = solve(transform)[2] * (1 - MOTION_GAIN)
    static, moving = first, second  # not undistorted yet: the first field would hide part of the motion
    for i in range(ROUNDS):
        progress((i + 0.2) / ROUNDS)
        found = _without_translation(_register(static, moving, coarse, transform), first.shape, coarse, axis)
        change = np.abs(_apply(found, world) - _apply(transform, world)).max()
        transform = found
        static, moving, agreement = solve(transform)
        if agreement < least:
            best, least = transform, agreement
        if change < STILL * zooms.min():
            break
    progress(1.0)
    return best


def coarser(volume: NDArray, affine: NDArray, factor: int) -> tuple[NDArray, NDArray]:
    """Means of blocks of voxels, and their affine; incomplete blocks are dropped."""
    shape = np.array(volume.shape) // factor
    blocks = volume[tuple(slice(0, n * factor) for n in shape)]
    blocks = blocks.reshape([side for n in shape for side in (n, factor)]).mean(axis=(1, 3, 5))
    to_fine = np.diag([factor, factor, factor, 1.0])
    to_fine[:3, 3] = (factor - 1) / 2
    return blocks, affine @ to_fine


def _register(static: NDArray, moving: NDArray, affine: NDArray, start: NDArray) -> NDArray[np.float64]:
    """Rigid transform from the static to the moving volume, by mutual information (DIPY)."""
    from dipy.align.imaffine import AffineRegistration, MutualInformationMetric
    from dipy.align.transforms import RigidTransform3D

    registration = AffineRegistration(
        metric=MutualInformationMetric(nbins=32, sampling_proportion=None),
        level_iters=[100, 50],
        sigmas=[1.0, 0.0],
        factors=[2, 1],
        verbosity=0,
    )
    with library_threads(1):
        found = registration.optimize(
            static,
            moving,
            RigidTransform3D(),
            None,
            static_grid2world=affine,
            moving_grid2world=affine,
            starting_affine=start,
        )
    return np.asarray(found.affine)


def _without_translation(transform: NDArray, shape: tuple[int, ...], affine: NDArray, axis: int) -> NDArray[np.float64]:
    """The transform without the translation of the image centre along an axis, which the field represents."""
    centre = _apply(affine, (np.array(shape) - 1) / 2)
    along = affine[:3, axis] / np.linalg.norm(affine[:3, axis])
    kept = transform.copy()
    kept[:3, 3] -= along * (along @ (_apply(transform, centre) - centre))
    return kept


def _apply(transform: NDArray, points: NDArray) -> NDArray[np.float64]:
    return np.asarray(points @ transform[:3, :3].T + transform[:3, 3])


def _move(volume: NDArray, affine: NDArray, transform: NDArray) -> NDArray[np.float64]:
    """A volume resampled to undo a transform of world coordinates, on its own grid."""
    if np.array_equal(transform, np.eye(4)):
        return np.array(volume, dtype=float)
    voxels = np.linalg.inv(affine) @ transform @ affine
    return np.asarray(affine_transform(volume, voxels[:3, :3], voxels[:3, 3], order=1, mode="nearest"))
