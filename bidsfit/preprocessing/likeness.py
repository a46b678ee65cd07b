"""Whether a correction made volumes more alike, judged by how well volumes predict each other."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.ndimage import gaussian_filter

from bidsfit.preprocessing.prediction import held_out, held_out_along, log_b

#: A correction is kept where it lowers the residual of the prediction by more than this part.
LEAST_GAIN = 0.01

#: Standard deviation of the smoothing before volumes are compared, voxels: interpolation smooths noise, which would
#: look like a gain.
SMOOTHING = 2.0

#: Along an axis of fewer voxels nothing is smoothed.
FEWEST_SLICES = 8

#: Voxels that are compared, at most.
MOST_VOXELS = 50_000

#: A displacement follows b where b alone predicts so much of its variance, and time, over so many volumes, does not
#: predict it better.
FOLLOWS = 0.5
MEMORY = 1.5


def gain(
    before: NDArray,
    after: NDArray,
    b_values: ArrayLike,
    mask: NDArray[np.bool_],
    directions: ArrayLike | None = None,
) -> float:
    """Relative reduction, by a correction, of the residuals when each volume is predicted from the others.

    Parameters
    ----------
    before, after : ndarray, shape (x, y, z, n)
        Volumes without and with the correction.
    b_values : array_like, shape (n,)
        s/mm^2.
    mask : ndarray of bool, shape (x, y, z)
        Tissue where every volume has data in both.
    directions : array_like, shape (n, 3), optional
        Gradient directions in any frame.

    Returns
    -------
    float
        1 minus the geometric mean over voxels of the ratio of residuals after to before. Negative if the volumes are
        less alike after the correction; 0 if there is nothing to compare.

    Notes
    -----
    Predictions use all other volumes, within and across shells (`held_out`). Residuals are divided by their root mean
    square before the correction, so that volumes count equally; the geometric mean lets voxels count equally, so that a
    few bright ones such as pulsating fluid do not dominate.
    """
    if not mask.any():
        return 0.0
    b = np.asarray(b_values, dtype=float)
    along = None if directions is None else np.asarray(directions, dtype=float)
    unpredicted = (np.eye(b.size) - held_out(b, along)).T
    voxels = np.random.default_rng(0).permutation(np.flatnonzero(mask))[:MOST_VOXELS]
    first, second = (_smooth(data, mask, voxels) @ unpredicted for data in (before, after))
    size = np.mean(first**2, axis=0)
    told = size > 0
    if not told.any():
        return 0.0
    left, right = ((part[:, told] ** 2 / size[told]).mean(axis=1) for part in (first, second))
    seen = (left > 0) & (right > 0)
    return float(1 - np.exp(0.5 * np.mean(np.log(right[seen] / left[seen])))) if seen.any() else 0.0


def _smooth(data: NDArray, mask: NDArray[np.bool_], voxels: NDArray[np.intp]) -> NDArray[np.float64]:
    """Volumes smoothed within the mask, shape (n_voxels, n)."""
    sigma = [SMOOTHING if side >= FEWEST_SLICES else 0.0 for side in mask.shape]
    weight = gaussian_filter(mask.astype(np.float32), sigma, mode="constant").ravel()[voxels]
    result = np.empty((voxels.size, data.shape[3]))
    for k in range(data.shape[3]):
        inside = np.where(mask, data[..., k], 0).astype(np.float32)
        result[:, k] = gaussian_filter(inside, sigma, mode="constant").ravel()[voxels] / weight
    return result


def follows_b(path: ArrayLike, b_values: ArrayLike) -> bool:
    """Whether a displacement, shape (n, k), depends on the b-value (s/mm^2), as one feigned by fading contrast does."""
    path, b = np.asarray(path, dtype=float), np.asarray(b_values, dtype=float)
    variance = np.var(path, axis=0).sum()
    if variance == 0 or np.ptp(b) == 0:
        return False
    by_b, by_time = (
        1 - np.mean((path - held_out_along(places) @ path) ** 2, axis=0).sum() / variance
        for places in (log_b(b), np.arange(b.size) / MEMORY)
    )
    return bool(by_b > FOLLOWS and by_b >= by_time)
