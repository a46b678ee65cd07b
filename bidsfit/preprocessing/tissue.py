"""Tissue segmentation of a head from anatomical images, on the grid of a diffusion image.

Tissues have the numbers of BIDS' common image-derived labels: 0 background, 1 grey matter, 2 white matter, 3
cerebrospinal fluid. `OTHER` is brain without a BIDS number.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import affine_transform, binary_dilation, find_objects, gaussian_filter, map_coordinates
from scipy.spatial.transform import Rotation

#: Numbers of the tissues.
TISSUES = {"GM": 1, "WM": 2, "CSF": 3}

#: Brain that is none of the three, or that several share.
OTHER = 12

#: A voxel belongs to a tissue that fills more than this part of it. Voxels that tissues share more evenly have signals
#: of neither, and would widen the distributions of both.
PURITY = 0.7

#: Numbers of FreeSurfer's colour table. White matter hypointensities (77 to 79) look like disease, and brain stem,
#: ventral diencephalon, choroid plexus and vessels are mixtures: they are `OTHER`.
FREESURFER = {
    "GM": (3, 8, 9, 10, 11, 12, 13, 17, 18, 26, 42, 47, 48, 49, 50, 51, 52, 53, 54, 58),
    "WM": (2, 7, 41, 46, *range(251, 256), 5001, 5002),
    "CSF": (4, 5, 14, 15, 24, 43, 44, 72),
}

#: Parcels, from the first to the last: cortex by two atlases, and the white matter below it.
FREESURFER_PARCELS = {
    "GM": ((1000, 1035), (2000, 2035), (11100, 11175), (12100, 12175)),
    "WM": ((3000, 3035), (4000, 4035), (13100, 13175), (14100, 14175)),
}

#: Sizes of voxels (mm) at which images are aligned, one after the other.
LEVELS = (8.0, 4.0, 2.0)

#: Evaluations of the mutual information at most: of each start, and then at each level.
TRIALS, EVALUATIONS = 20, 60

#: Unit of length of the optimiser, mm: about the radius of a head, so that a radian and a unit move it alike.
RADIUS = 60.0

#: Shortest extent (mm) of an image that is aligned wherever its header says it is. The middle of a thinner slab says
#: nothing about the middle of the head.
SLAB = 80.0

#: Nods (degrees) that the alignment starts from.
NODS = (0.0, -15.0, 15.0)

#: How far (mm, and degrees) the check of an alignment moves it away.
ASTRAY = 10.0

#: An alignment has failed where it shares less than this many times the information of the same images moved apart.
#: Simulated heads that were aligned share at least 1.8 times as much, down to SNR 5, and a distorted slab (by 4 mm,
#: standard deviation) 1.5; those that went astray, at most 1.25.
GAIN = 1.4

#: An alignment has failed where the two brains overlap by less than this (Dice).
OVERLAP = 0.6

#: Voxels that the check of an alignment looks at, at most.
CHECKED = 50_000


def tissue_of_freesurfer(labels: NDArray) -> NDArray[np.uint8]:
    """Tissue of every voxel of FreeSurfer's ``aseg``, ``aparc+aseg``, ``ribbon`` or ``wmparc``, or `OTHER`."""
    tissue = np.where(labels > 0, OTHER, 0).astype(np.uint8)
    for name, numbers in FREESURFER.items():
        tissue[np.isin(labels, numbers)] = TISSUES[name]
    for name, spans in FREESURFER_PARCELS.items():
        for first, last in spans:
            tissue[(labels >= first) & (labels <= last)] = TISSUES[name]
    return tissue


def classify_tissue(
    t1w: NDArray, mask: NDArray[np.bool_], *, smoothness: float = 0.1, iterations: int = 100
) -> NDArray[np.uint8]:
    """Tissue of every voxel of a T1-weighted brain by a Markov random field of three classes (DIPY) [1]_.

    The darkest class is fluid and the brightest white matter.

    Parameters
    ----------
    t1w : ndarray, shape (x, y, z)
    mask : ndarray of bool, shape (x, y, z)
        The brain.
    smoothness : float
        Weight of the neighbours of a voxel.
    iterations : int
        Largest number of iterations.

    Raises
    ------
    ValueError
        If the image has no contrast inside the mask.

    References
    ----------
    .. [1] Zhang Y, Brady M, Smith S. IEEE Transactions on Medical Imaging 2001;20:45-57.
    """
    from dipy.segment.tissue import TissueClassifierHMRF

    values = np.nan_to_num(np.asarray(t1w, dtype=float))[mask]
    lower, upper = np.percentile(values, (0.5, 99.5)) if values.size else (0.0, 0.0)
    if not upper > lower:
        raise ValueError(
            f"The T1-weighted image has no contrast inside its mask of {values.size} voxels: no tissue can be told "
            "apart. Is the mask in the right place?"
        )
    box = find_objects(mask.astype(np.uint8))[0]
    inside = mask[box]
    # The classifier keeps 0 for the background, and spreads its classes evenly between 0 and the brightest voxel.
    image = np.where(inside, 0.05 + 0.95 * np.clip((np.nan_to_num(t1w[box]) - lower) / (upper - lower), 0, 1), 0.0)
    _, classes, _ = TissueClassifierHMRF(verbose=False).classify(image, 3, smoothness, max_iter=iterations)
    darkest_first = np.array([0, TISSUES["CSF"], TISSUES["GM"], TISSUES["WM"]], dtype=np.uint8)
    tissue = np.zeros(mask.shape, dtype=np.uint8)
    tissue[box] = np.where(inside, darkest_first[np.maximum(classes.astype(int), 1)], 0)
    return tissue


def register_to_diffusion(
    t1w: NDArray, t1w_affine: NDArray, reference: NDArray, affine: NDArray, mask: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Rigid registration of a diffusion image to an anatomical one, by mutual information.

    Uses DIPY's registration by mutual information [1]_, which allows inverted contrast, on increasing resolutions
    (`LEVELS`). Starts are the positions in the headers, the centres of mass and some nods of the head; the best one is
    refined. A slab, thinner than `SLAB`, starts only from its header.

    Parameters
    ----------
    t1w : ndarray, shape (x, y, z)
        The whole head, or the brain.
    t1w_affine : ndarray, shape (4, 4)
        Voxel to world, mm.
    reference : ndarray, shape (u, v, w)
        Mean image at b = 0.
    affine : ndarray, shape (4, 4)
        Of the reference.
    mask : ndarray of bool, shape (u, v, w)
        The brain in the reference.

    Returns
    -------
    ndarray, shape (4, 4)
        World of the reference to world of the anatomical image.

    Raises
    ------
    ValueError
        For an empty mask, an image without contrast, or a slab outside the anatomical image.

    References
    ----------
    .. [1] Mattes D et al. IEEE Transactions on Medical Imaging 2003;22:120-128.
    """
    moving = _bounded(t1w, np.isfinite(t1w), "T1-weighted image")
    static = _bounded(reference, mask & np.isfinite(reference), "reference image")
    rim = _dilate(mask, affine, 6.0)
    centre = affine[:3, :3] @ np.argwhere(mask).mean(axis=0) + affine[:3, 3]
    starts = [np.eye(4)]
    if _thickness(reference.shape, affine) >= SLAB:
        starts.append(_translation(_centre_of_mass(moving, t1w_affine) - centre))
    elif _inside(np.eye(4), mask, affine, t1w.shape, t1w_affine) < 0.5:
        raise ValueError(
            f"The diffusion image is a slab of {_thickness(reference.shape, affine):.0f} mm that lies outside the "
            "T1-weighted image, by their headers: nothing says which part of the head it shows."
        )
    starts = [start @ about(centre, (nod, 0, 0)) for start, nod in product(starts, NODS)]
    box = find_objects(rim.astype(np.uint8))[0]
    corner = np.eye(4)
    corner[:3, 3] = [side.start for side in box]
    static, rim, affine = static[box], rim[box], affine @ corner
    transform, shapes = starts[0], None
    for spacing in LEVELS:
        coarse = _at_spacing(static, affine, spacing)
        smooth = _at_spacing(moving, t1w_affine, spacing)
        inside = _at_spacing(rim.astype(float), affine, spacing)[0] > 0.5
        if shapes is None:
            trials = [_align(*coarse, inside, *smooth, start, centre, TRIALS) for start in starts]
            transform = max(trials, key=lambda pair: pair[0])[1]
        elif shapes == (coarse[0].shape, smooth[0].shape):
            continue  # the images have no more to show
        shapes = coarse[0].shape, smooth[0].shape
        _, transform = _align(*coarse, inside, *smooth, transform, centre, EVALUATIONS)
    return transform


@dataclass(frozen=True)
class Alignment:
    """Quality of an alignment of an anatomical and a diffusion image.

    Attributes
    ----------
    information : float
        Normalised mutual information, from 1 (none) to 2 [1]_.
    apart : float
        The same after shifts by 10 mm and rotations by 10 degrees, averaged over directions.
    overlap : float or None
        Dice coefficient of the two brain masks on the diffusion grid, if that of the anatomical image is known.
    shift, rotation : float
        Motion relative to the positions in the headers: mm at the middle of the brain, and degrees.
    failed : str or None
        Why the alignment cannot be trusted.

    References
    ----------
    .. [1] Studholme C, Hill DLG, Hawkes DJ. Pattern Recognition 1999;32:71-86.
    """

    information: float
    apart: float
    overlap: float | None
    shift: float
    rotation: float
    failed: str | None = None

    @property
    def gain(self) -> float:
        """Shared information relative to that of the same images moved apart."""
        return float((self.information - 1) / max(self.apart - 1, 1e-12))

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {**asdict(self), "gain": self.gain}


def check_alignment(
    transform: NDArray,
    t1w: NDArray,
    t1w_affine: NDArray,
    reference: NDArray,
    affine: NDArray,
    mask: NDArray[np.bool_],
    brain: NDArray[np.bool_] | None = None,
) -> Alignment:
    """Judge an alignment: aligned images share more information than the same images moved apart.

    Parameters are those of `register_to_diffusion` and its result; ``brain``, shape (u, v, w), is the brain of the
    anatomical image on the grid of the reference.
    """
    rim = np.argwhere(_dilate(mask, affine, 6.0) & np.isfinite(reference))
    rim = rim[:: max(len(rim) // CHECKED, 1)]
    centre = affine[:3, :3] @ np.argwhere(mask).mean(axis=0) + affine[:3, 3]
    values = reference[tuple(rim.T)]
    image = np.nan_to_num(t1w)

    def information(motion: NDArray) -> float:
        to_voxel = np.linalg.inv(t1w_affine) @ motion @ affine
        points = to_voxel[:3, :3] @ rim.T + to_voxel[:3, 3:]
        return mutual_information(values, map_coordinates(image, points, order=1))

    moved = []
    for axis, sign in product(range(3), (-ASTRAY, ASTRAY)):
        step = np.zeros(3)
        step[axis] = sign
        moved += [transform @ _translation(step), transform @ about(centre, tuple(step))]
    overlap = None
    if brain is not None:
        overlap = float(2 * np.sum(brain & mask) / max(brain.sum() + mask.sum(), 1))
    shift = transform[:3, :3] @ centre + transform[:3, 3] - centre
    result = Alignment(
        information=information(transform),
        apart=float(np.mean([information(motion) for motion in moved])),
        overlap=overlap,
        shift=float(np.linalg.norm(shift)),
        rotation=float(np.degrees(np.linalg.norm(Rotation.from_matrix(transform[:3, :3]).as_rotvec()))),
    )
    reasons = []
    if result.gain < GAIN:
        reasons.append(
            f"aligned, the images share {result.gain:.2f} times the information that they share {ASTRAY:.0f} mm or "
            f"degrees apart; expected at least {GAIN}"
        )
    if overlap is not None and overlap < OVERLAP:
        reasons.append(f"the two brains overlap by {overlap:.2f} (Dice); expected at least {OVERLAP}")
    return Alignment(**{**asdict(result), "failed": "; ".join(reasons) or None})


def mutual_information(first: NDArray, second: NDArray, *, bins: int = 32) -> float:
    """Normalised mutual information of two images at the same points (n,), from 1 (none) to 2."""
    joint, _, _ = np.histogram2d(_clipped(first), _clipped(second), bins=bins)
    joint /= max(joint.sum(), 1)

    def entropy(p: NDArray) -> float:
        return float(-np.sum(p[p > 0] * np.log(p[p > 0])))

    together = entropy(joint)
    return (entropy(joint.sum(axis=0)) + entropy(joint.sum(axis=1))) / together if together > 0 else 1.0


def fractions_on_grid(
    source: NDArray, source_affine: NDArray, transform: NDArray, shape: tuple[int, int, int], affine: NDArray
) -> NDArray[np.float32]:
    """Volume fractions of the tissues in every voxel of a grid.

    Each voxel is sampled at points as dense as the voxels of the source, and the samples are averaged.

    Parameters
    ----------
    source : ndarray, shape (x, y, z) or (x, y, z, 4)
        Tissue numbers; or probabilities of `TISSUES`, in their order, and of other brain.
    source_affine : ndarray, shape (4, 4)
    transform : ndarray, shape (4, 4)
        World of the grid to world of the source.
    affine : ndarray, shape (4, 4)
        Affine of the grid.

    Returns
    -------
    ndarray, shape (*shape, 4)
        Of grey matter, white matter, fluid and other brain.
    """
    to_source = np.linalg.inv(source_affine) @ transform @ affine
    steps = np.linalg.norm(to_source[:3, :3], axis=0)  # voxels of the source along each axis of the grid
    counts = np.clip(np.ceil(steps - 0.01), 2, 8).astype(int)
    offsets = [(np.arange(n) + 0.5) / n - 0.5 for n in counts]
    fractions = np.zeros((*shape, 4), dtype=np.float32)
    numbers = (*TISSUES.values(), OTHER)
    for offset in product(*offsets):
        origin = to_source[:3, :3] @ np.array(offset) + to_source[:3, 3]
        if source.ndim == 3:
            sample = affine_transform(source, to_source[:3, :3], origin, output_shape=shape, order=0)
            for k, number in enumerate(numbers):
                fractions[..., k] += sample == number
        else:
            for k in range(source.shape[3]):
                fractions[..., k] += affine_transform(
                    source[..., k], to_source[:3, :3], origin, output_shape=shape, order=1
                )
    return fractions / np.float32(counts.prod())


def dominant_tissue(fractions: NDArray, *, purity: float = PURITY) -> NDArray[np.uint8]:
    """Number of the tissue that fills more than ``purity`` (at least 0.5) of a voxel; `OTHER` for mixed brain voxels.

    ``fractions`` are those of `fractions_on_grid`; voxels filled by half or less are background.
    """
    tissue = np.where(fractions.sum(axis=-1) > 0.5, OTHER, 0).astype(np.uint8)
    for k, number in enumerate(TISSUES.values()):
        tissue[fractions[..., k] > purity] = number
    return tissue


def resample(
    image: NDArray, image_affine: NDArray, transform: NDArray, shape: tuple[int, ...], affine: NDArray
) -> NDArray[np.float32]:
    """An image on another grid, linearly interpolated, 0 outside; parameters as of `fractions_on_grid`."""
    to_source = np.linalg.inv(image_affine) @ transform @ affine
    finite = np.nan_to_num(np.asarray(image, dtype=np.float32))
    return affine_transform(finite, to_source[:3, :3], to_source[:3, 3], output_shape=shape, order=1)


def about(centre: NDArray, angles: tuple[float, ...]) -> NDArray[np.float64]:
    """Rotation about a point by angles (degrees) about the axes x, y and z, shape (4, 4)."""
    motion = np.eye(4)
    motion[:3, :3] = Rotation.from_euler("xyz", angles, degrees=True).as_matrix()
    motion[:3, 3] = centre - motion[:3, :3] @ centre
    return motion


def _align(
    static: NDArray,
    static_affine: NDArray,
    mask: NDArray[np.bool_],
    moving: NDArray,
    moving_affine: NDArray,
    start: NDArray,
    centre: NDArray,
    evaluations: int,
) -> tuple[float, NDArray[np.float64]]:
    """Mutual information and rigid transform at one resolution, from one start."""
    from dipy.align.imaffine import AffineRegistration, MutualInformationMetric
    from dipy.align.transforms import RigidTransform3D

    # The optimiser rotates about the origin, and takes a unit of length for as much as a radian.
    unit = np.diag([1 / RADIUS] * 3 + [1.0]) @ _translation(-centre)
    back = np.linalg.inv(unit)
    registration = AffineRegistration(
        metric=MutualInformationMetric(nbins=32),
        level_iters=[evaluations],
        sigmas=[0.0],
        factors=[1],
        options={"gtol": 1e-4},
        verbosity=0,
    )
    found, _, cost = registration.optimize(
        static,
        moving,
        RigidTransform3D(),
        None,
        static_grid2world=unit @ static_affine,
        moving_grid2world=unit @ moving_affine,
        starting_affine=unit @ start @ back,
        static_mask=mask.astype(np.int32),
        ret_metric=True,
    )
    return -float(cost), back @ found.affine @ unit


def _at_spacing(image: NDArray, affine: NDArray, spacing: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """An image smoothed and resampled to a voxel size (mm); axes of few voxels keep theirs."""
    sizes = np.linalg.norm(affine[:3, :3], axis=0)
    factors = [max(min(round(spacing / size), n // 4), 1) for size, n in zip(sizes, image.shape, strict=True)]
    smooth = gaussian_filter(image, [0.42 * factor if factor > 1 else 0.0 for factor in factors], mode="nearest")
    start = [(factor - 1) // 2 for factor in factors]
    coarse = smooth[tuple(slice(first, None, factor) for first, factor in zip(start, factors, strict=True))]
    there = np.diag([*factors, 1.0])
    there[:3, 3] = start
    return np.ascontiguousarray(coarse, dtype=float), affine @ there


def _bounded(image: NDArray, where: NDArray[np.bool_], name: str) -> NDArray[np.float64]:
    """An image without NaN and with extremes clipped, so that its histogram is informative."""
    values = image[where]
    lower, upper = np.percentile(values, (0.5, 99.5)) if values.size else (0.0, 0.0)
    if not upper > lower:
        raise ValueError(f"The {name} has no contrast in the {values.size} voxels that could be aligned.")
    return np.clip(np.nan_to_num(np.asarray(image, dtype=float)), min(0.0, lower), upper)


def _clipped(values: NDArray) -> NDArray:
    return np.clip(values, *np.percentile(values, (0.5, 99.5))) if values.size else values


def _dilate(mask: NDArray[np.bool_], affine: NDArray, distance: float) -> NDArray[np.bool_]:
    """A mask dilated by about a distance (mm) within and across slices."""
    size = float(np.linalg.norm(affine[:3, :3], axis=0).min())
    return binary_dilation(mask, iterations=max(round(distance / size), 1))


def _thickness(shape: tuple[int, ...], affine: NDArray) -> float:
    """Length of the shortest side of an image, mm."""
    return float(np.min(np.array(shape) * np.linalg.norm(affine[:3, :3], axis=0)))


def _inside(
    transform: NDArray, mask: NDArray[np.bool_], affine: NDArray, shape: tuple[int, ...], other: NDArray
) -> float:
    """Fraction of a mask that lies inside the grid of another image."""
    to_voxel = np.linalg.inv(other) @ transform @ affine
    points = np.argwhere(mask) @ to_voxel[:3, :3].T + to_voxel[:3, 3]
    return float(np.mean(np.all((points >= -0.5) & (points <= np.array(shape) - 0.5), axis=1)))


def _centre_of_mass(image: NDArray, affine: NDArray) -> NDArray[np.float64]:
    weights = np.clip(image, 0, None)
    total = weights.sum()
    sums = [(weights.sum(axis=tuple({0, 1, 2} - {k})) * np.arange(n)).sum() for k, n in enumerate(image.shape)]
    return affine[:3, :3] @ (np.array(sums) / total) + affine[:3, 3]


def _translation(step: NDArray) -> NDArray[np.float64]:
    motion = np.eye(4)
    motion[:3, 3] = step
    return motion
