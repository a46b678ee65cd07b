"""Masks of the voxels to fit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from bidsfit.acquisition import Acquisition, Shell

#: The b-value whose images tell tissue from fluid (eyes, CSF) best, s/mm^2.
TISSUE_B = 1000.0

#: Voxels of the median filter along each axis.
MEDIAN_SIZE = 3

#: Bridges between the brain and other tissue are thinner than twice this share of the brain's inner radius.
BRIDGE = 0.125

#: A mask of a head is doubtful where less of what is bright with diffusion weighting is so without, ...
WITHIN = 0.9
#: ... where it is less than this share of what is bright without, ...
REMAINING = 0.5
#: ... where its core holds less than this share of all that is as thick, ...
LARGEST_PART = 0.8
#: ... where more than this share of it are holes that were filled, ...
FILLED_SHARE = 0.2
#: ... where it covers more than this share of the sides of the image, ...
SIDE_SHARE = 0.1
#: ... or where it is larger, ml: an adult's brain with its fluid has up to 2000 ml.
LARGEST_VOLUME = 3000.0

#: Parts of the body that are smaller than this share of the largest are noise or the table.
SMALLEST_PART = 0.1

#: Neighbours within a slice: a hole of a slice is one, though it is open above.
IN_SLICES = ndimage.generate_binary_structure(3, 1) & (np.arange(3) == 1)


@dataclass(frozen=True)
class HeadMask:
    """A mask, and doubts about it that complete the sentence "The mask ..."; empty if there are none."""

    mask: NDArray[np.bool_]
    doubt: str = ""


def tissue_shell(acquisition: Acquisition) -> Shell:
    """The shell whose b-value is nearest to `TISSUE_B`, where tissue and fluid differ most."""
    return min(acquisition.shells, key=lambda shell: abs(shell.b_value - TISSUE_B))


def head_mask(
    unweighted: NDArray[np.floating], weighted: NDArray[np.floating], voxel_size: Sequence[float]
) -> HeadMask:
    """Mask of a brain or of a phantom.

    Without diffusion weighting fluid is so bright that Otsu's threshold [1]_ can exceed grey and white matter, and the
    eyes are as bright as the brain; with weighting the edges of the brain are dark. So the core of the mask is what is
    bright with weighting, cut off from other tissue, and around it the mask includes what is bright in either image.
    Holes in slices are filled and islands removed.

    Parameters
    ----------
    unweighted : ndarray, shape (x, y, z)
        Mean of the images of the lowest b-value; NaN where unknown, which the mask excludes.
    weighted : ndarray, shape (x, y, z)
        Mean of the images of `tissue_shell`.
    voxel_size : sequence of float, length 3
        mm.

    Raises
    ------
    ValueError
        If the images have no contrast.

    References
    ----------
    .. [1] Otsu N. IEEE Transactions on Systems, Man, and Cybernetics 1979;9:62-66.
    """
    known = np.isfinite(unweighted)
    bright, smooth = _bright(_filled(unweighted))
    bright_weighted, tissue = _bright(_filled(weighted))
    of_unweighted, of_weighted = _fill_holes(smooth), _fill_holes(tissue)
    common = (of_unweighted & of_weighted).sum()
    doubts = []
    if common < WITHIN * of_weighted.sum():
        doubts.append(
            "was found on the images without diffusion weighting alone, because those with it show something else: "
            f"{100 - 100 * common / of_weighted.sum():.0f} % of what is bright there lies outside"
        )
        bright_weighted, tissue = bright, smooth
    elif common < REMAINING * of_unweighted.sum():
        remaining = common / of_unweighted.sum()
        doubts.append(
            f"shows diffusion unlike a head's: only {100 * remaining:.0f} % of what is bright without diffusion "
            "weighting is bright with it, too"
        )
    core, radius, share = _core(tissue, voxel_size)
    if share < LARGEST_PART:
        doubts.append(f"is the largest of several parts, with {100 * share:.0f} % of their volume")
    away = ndimage.distance_transform_edt(~core, sampling=voxel_size)
    reach = max(2 * radius, radius + float(np.linalg.norm(voxel_size[:2])))  # across the fluid around the brain
    candidates = (bright | bright_weighted) & known & (away <= reach)
    within_slices = ndimage.binary_propagation(
        candidates & (away <= radius + min(voxel_size) / 2), structure=IN_SLICES, mask=candidates
    )
    mask = _fill_holes(within_slices) & known
    doubts += _doubts_of_shape(mask, 1 - within_slices.sum() / mask.sum(), voxel_size)
    return HeadMask(mask, ", and ".join(doubts))


def _bright(image: NDArray[np.floating]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Voxels above Otsu's threshold of the image with fluid clipped to tissue: with voxels at the edge, and smoothed.

    The median filter rounds edges off; voxels next to bright ones are judged by their own signal.
    """
    from dipy.segment.threshold import otsu

    smooth = ndimage.median_filter(image, MEDIAN_SIZE)
    if smooth.max() <= smooth.min():
        raise ValueError("The images have no contrast, so that no head is found in them.")
    brightest = smooth > otsu(smooth)
    level = otsu(np.minimum(smooth, np.median(smooth[brightest])))  # fluid is no brighter than tissue
    bright = smooth > level
    beside = ndimage.binary_dilation(bright, np.ones((3, 3, 3), dtype=bool))
    return bright | (beside & (image > level)), bright


def _core(tissue: NDArray[np.bool_], voxel_size: Sequence[float]) -> tuple[NDArray[np.bool_], float, float]:
    """Largest connected part of the tissue after erosion.

    Returns
    -------
    core : ndarray of bool, shape (x, y, z)
    radius : float
        Radius of the erosion, mm.
    share : float
        Fraction of the eroded tissue that is in the core.
    """
    framed = np.pad(_fill_holes(tissue), ((1, 1), (1, 1), (0, 0)))  # a head may be cut by slices, not by their sides
    depth = ndimage.distance_transform_edt(framed, sampling=voxel_size)[1:-1, 1:-1]
    radius = BRIDGE * float(depth.max())
    parts, _ = ndimage.label(depth > radius)
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0
    return parts == sizes.argmax(), radius, float(sizes.max() / sizes.sum())


def _doubts_of_shape(mask: NDArray[np.bool_], filled: float, voxel_size: Sequence[float]) -> list[str]:
    """Doubts about the shape of a mask; ``filled`` is the fraction of its voxels that were holes."""
    doubts = []
    if filled > FILLED_SHARE:
        doubts.append(f"had holes, now filled, that make up {100 * filled:.0f} % of it")
    sides = [mask[side] for side in (np.s_[0], np.s_[-1], np.s_[:, 0], np.s_[:, -1])]
    at_sides = float(np.concatenate([side.ravel() for side in sides]).mean())
    if at_sides > SIDE_SHARE:
        doubts.append(f"covers {100 * at_sides:.0f} % of the sides of the image, as if the head were cut off")
    volume = mask.sum() * float(np.prod(voxel_size)) / 1000
    if volume > LARGEST_VOLUME:
        doubts.append(f"holds {volume:.0f} ml, which no brain has")
    return doubts


def _fill_holes(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    return np.asarray(ndimage.binary_fill_holes(mask, IN_SLICES))


def half_median_mask(reference: NDArray[np.floating], region: NDArray[np.bool_] | None = None) -> NDArray[np.bool_]:
    """Mask of body data: voxels with at least half the median signal at b = 0.

    Holes are not filled, so that air, bowel content and signal loss stay out.

    Parameters
    ----------
    reference : ndarray, shape (x, y, z)
        Mean of the images of the lowest b-value; NaN where unknown.
    region : ndarray of bool, shape (x, y, z), optional
        Where the median is taken and the mask may lie: a segmented organ, by default the body (`body`).

    Raises
    ------
    ValueError
        If there is no body, the region is empty or has another shape, or its median is not positive.
    """
    known = np.isfinite(reference)
    if region is None:
        region = body(reference)
    elif region.shape != reference.shape:
        raise ValueError(f"The region's shape {region.shape} is not that of the image, {reference.shape}.")
    region = region.astype(bool) & known
    if not region.any():
        raise ValueError("The region for the mask holds no voxel with a finite signal at the lowest b-value.")
    median = float(np.median(reference[region]))
    if median <= 0:
        raise ValueError(f"The median signal of the region at the lowest b-value is {median:g}; it must be positive.")
    return region & (np.where(known, reference, -np.inf) >= median / 2)


def body(reference: NDArray[np.floating]) -> NDArray[np.bool_]:
    """Mask of the body, holes included: voxels above Otsu's threshold (see `head_mask`), without small parts.

    ``reference``, shape (x, y, z), is the mean of the images of the lowest b-value.

    Raises
    ------
    ValueError
        If the reference has no contrast.
    """
    from dipy.segment.threshold import otsu

    filled = _filled(reference)
    if filled.max() <= filled.min():
        raise ValueError("The image of the lowest b-value has no contrast, so that no body is found. Give a mask.")
    parts, _ = ndimage.label(filled > otsu(filled))
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0
    large = np.isin(parts, np.flatnonzero((sizes > 0) & (sizes >= SMALLEST_PART * sizes.max())))
    return _fill_holes(large)


def _filled(reference: NDArray[np.floating]) -> NDArray[np.floating]:
    return np.nan_to_num(reference, posinf=0.0, neginf=0.0)
