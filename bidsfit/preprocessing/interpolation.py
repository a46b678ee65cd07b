"""Whether an image was interpolated, as by zero filling of k-space, from the noise of its volumes."""

from __future__ import annotations

from math import comb

import numpy as np
from numpy.typing import ArrayLike, NDArray

#: Noise with less than this share of its finest detail is taken for interpolated. In simulated images (48 x 48 x 4
#: acquired voxels, SNR 10 to 100 at b = 0) zero filling by 1.25 leaves 0.46, by 1.33 0.34, by 1.5 0.17 to 0.21 and by 2
#: 0.02 to 0.05 along an axis; partial Fourier of 5/8 to 7/8 leaves 0.74 or more, and volumes that move by a third of a
#: voxel 0.90. MP-PCA's level is 4 % too low for zero filling by 1.25 along both axes, 26 % for 1.5, and 71 % for 2.
INTERPOLATED = 0.4

#: Orders of the differences between neighbours: the finest detail, and what it is compared with. Both are blind to
#: whatever varies slowly, such as pulsation or movement between the volumes.
FINEST, COARSER = 7, 2

#: Pairs of volumes, and runs of neighbours along an axis, that are enough and at least needed.
MOST_PAIRS, FEWEST_RUNS = 12, 500


def fine_detail(
    data: NDArray[np.floating], b_values: ArrayLike, mask: NDArray[np.bool_], axes: tuple[int, ...] = (0, 1)
) -> NDArray[np.float64]:
    """Share of the finest spatial detail that the noise of an image has left along some axes.

    The difference of two volumes of the same b-value is noise, and what moved or pulsates. Noise that is independent
    from voxel to voxel varies as much at the finest scale, from each voxel to the next and back, as at coarser ones.
    Interpolation and smoothing leave less there. The variances of seventh and second differences between neighbours,
    each relative to that of independent noise, are compared; medians make them robust to edges that moved.

    Parameters
    ----------
    data : ndarray, shape (x, y, z, n)
        Magnitudes as measured; non-finite values are not allowed.
    b_values : array_like, shape (n,)
        s/mm^2. Volumes of the nearest b-values are compared, those of the lowest first.
    mask : ndarray of bool, shape (x, y, z)
        Tissue. In air magnitudes hide interpolation.
    axes : tuple of int

    Returns
    -------
    ndarray, shape (n_axes,)
        1 for independent noise, 0 for none at the finest scale; NaN along axes that are too short to tell.
    """
    order = np.argsort(b_values, kind="stable")
    nearest = np.argsort(np.diff(np.asarray(b_values, dtype=float)[order]), kind="stable")[:MOST_PAIRS]
    shares = np.full(len(axes), np.nan)
    if nearest.size == 0:
        return shares
    apart = np.stack([data[..., order[k + 1]] - data[..., order[k]] for k in nearest], axis=-1, dtype=np.float32)
    apart[~mask] = np.nan
    for k, axis in enumerate(axes):
        finest, coarser = (_variance(apart, axis, order) for order in (FINEST, COARSER))
        shares[k] = finest / coarser if coarser > 0 else np.nan
    return shares


def _variance(values: NDArray[np.float32], axis: int, order: int) -> float:
    """Robust variance of differences between neighbours, relative to independent values; NaN of too few."""
    differences = np.abs(np.diff(values, n=order, axis=axis))
    known = differences[np.isfinite(differences)]
    return float(np.median(known)) ** 2 / comb(2 * order, order) if known.size >= FEWEST_RUNS else np.nan


def shared_noise(how: str) -> str:
    """Warning about an image that was interpolated, ``how`` in words."""
    return (
        f"The image was interpolated: {how}. Neighbouring voxels share noise. The standard deviation of a voxel holds, "
        "but the mean of a region scatters more than that of as many independent voxels."
    )
