"""Masks: where the signal is strong enough to be fitted."""

from __future__ import annotations

import warnings

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

#: Radius of the median filter of median_otsu, voxels.
MEDIAN_RADIUS = 2

#: Parts of the body that are smaller than this share of the largest are noise or the table.
SMALLEST_PART = 0.1


def otsu_mask(reference: NDArray[np.floating]) -> NDArray[np.bool_]:
    """Mask of a head by DIPY's median_otsu.

    Parameters
    ----------
    reference : ndarray, shape (x, y, z)
        Mean of the images of the lowest b-value; NaN where it is not known.

    Returns
    -------
    ndarray of bool, shape (x, y, z)

    Raises
    ------
    ValueError
        Where the reference has no contrast, so that there is no threshold.
    """
    from dipy.segment.mask import median_otsu

    with warnings.catch_warnings():  # three or four slices are no colours
        warnings.filterwarnings("ignore", ".*RGB image", UserWarning)
        _, mask = median_otsu(_filled(reference), median_radius=MEDIAN_RADIUS, numpass=1)
    everything = bool(np.all(mask))  # no threshold at all: DIPY's answer to an image without contrast
    mask = np.asarray(mask, dtype=bool) & np.isfinite(reference)
    if everything or not mask.any():
        raise ValueError("median_otsu found none: the image of the lowest b-value has no contrast.")
    return mask


def half_median_mask(reference: NDArray[np.floating], region: NDArray[np.bool_] | None = None) -> NDArray[np.bool_]:
    """Mask of body data: voxels whose signal at b = 0 is at least half the median.

    Air, the contents of the bowel and voxels where the signal was lost are left out, wherever they are: no hole is
    filled again.

    Parameters
    ----------
    reference : ndarray, shape (x, y, z)
        Mean of the images of the lowest b-value; NaN where it is not known.
    region : ndarray of bool, shape (x, y, z), optional
        Where the median is taken and the mask may lie: the organ, if it was segmented. By default the body
        (`body`).

    Returns
    -------
    ndarray of bool, shape (x, y, z)

    Raises
    ------
    ValueError
        Where there is no body, the region is empty or has another shape, or its median is not positive.
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
    """The body, holes included: what is brighter than Otsu's threshold [1]_, and no small part on its own.

    Parameters
    ----------
    reference : ndarray, shape (x, y, z)
        Mean of the images of the lowest b-value.

    Returns
    -------
    ndarray of bool, shape (x, y, z)

    Raises
    ------
    ValueError
        Where the reference has no contrast.

    References
    ----------
    .. [1] Otsu N. IEEE Transactions on Systems, Man, and Cybernetics 1979;9:62-66.
    """
    from dipy.segment.threshold import otsu

    filled = _filled(reference)
    if filled.max() <= filled.min():
        raise ValueError("The image of the lowest b-value has no contrast, so that no body is found. Give a mask.")
    parts, _ = ndimage.label(filled > otsu(filled))
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0
    large = np.isin(parts, np.flatnonzero((sizes > 0) & (sizes >= SMALLEST_PART * sizes.max())))
    in_slices = ndimage.generate_binary_structure(3, 1)
    in_slices[:, :, [0, 2]] = False  # a hole of a slice is one, though it is open above
    return np.asarray(ndimage.binary_fill_holes(large, in_slices))


def _filled(reference: NDArray[np.floating]) -> NDArray[np.floating]:
    return np.nan_to_num(reference, posinf=0.0, neginf=0.0)
