"""Removal of Gibbs ringing."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import maximum_filter, minimum_filter

from bidsfit.parallel import Progress, in_processes
from bidsfit.preprocessing.denoising import require_four_dimensions

#: The shift of a voxel is chosen by the total variation of three neighbours on either side.
SMALLEST_SIDE = 8

#: Ripples are smaller than this share of the range of the neighbourhood that they are in (a square of so many voxels).
RIPPLE, NEIGHBOURHOOD = 0.06, 15

#: Where the range of the nearest neighbours alone is this share of that range, the voxel is at an edge itself.
AT_AN_EDGE = 0.25


def obstacle_to_gibbs(shape: tuple[int, ...], slice_axis: int = 2) -> str:
    """Why ringing cannot be removed from slices of an image of shape (x, y, z, n), in words; else empty."""
    sides = [side for axis, side in enumerate(shape[:3]) if axis != slice_axis]
    if min(sides) < SMALLEST_SIDE:
        return (
            f"the removal of Gibbs ringing needs slices of at least {SMALLEST_SIDE} x {SMALLEST_SIDE} voxels, and "
            f"those across axis {slice_axis} have {sides[0]} x {sides[1]}"
        )
    return ""


def remove_ringing(
    data: NDArray[np.floating],
    *,
    slice_axis: int = 2,
    threads: int = 1,
    progress: Progress | None = None,
) -> NDArray[np.float32]:
    """Remove Gibbs ringing by sub-voxel shifts (DIPY).

    Along rows and columns of a slice every voxel is interpolated at the shift for which its neighbourhood varies least,
    where ripples are sampled at their nodes [1]_. The matrix size may be odd or even.

    At edges and in structures as thin as a voxel the shifts change more than ripples. So voxels at an edge keep their
    values, and others change by no more than a ripple can (`AT_AN_EDGE`, `RIPPLE`; chosen on simulated heads, see
    ``benchmarks/preprocessing.py``).

    The method assumes ringing of the full image matrix. It does not apply to partial Fourier below 7/8, whose ripples
    along the phase-encoding axis have another period and remain, to images interpolated or filtered by the scanner, or
    after resampling. It must come before corrections of distortion and motion, and after denoising, as it correlates
    noise.

    Parameters
    ----------
    data : ndarray, shape (x, y, z, n)
        Magnitudes. Non-finite values are treated as 0 and kept.
    slice_axis : int
        Axis across the slices; ringing is removed along the other two.
    threads : int
        Number of processes; threads would block each other.

    Returns
    -------
    ndarray of float32, shape (x, y, z, n)

    Raises
    ------
    ValueError
        If the axis does not exist or slices are too small.

    References
    ----------
    .. [1] Kellner E, Dhital B, Kiselev VG, Reisert M. Magnetic Resonance in Medicine 2016;76:1574-1581.
    """
    require_four_dimensions(data)
    if slice_axis not in (0, 1, 2):
        raise ValueError(f"The axis across the slices is 0, 1 or 2, found {slice_axis}.")
    obstacle = obstacle_to_gibbs(data.shape, slice_axis)
    if obstacle:
        raise ValueError(f"{obstacle[0].upper()}{obstacle[1:]}.")
    n_volumes = data.shape[3]

    def jobs() -> Iterator[tuple[NDArray[np.float32], int]]:
        for k in range(n_volumes):
            yield np.array(data[..., k], dtype=np.float32), slice_axis

    clean = np.empty(data.shape, dtype=np.float32)
    for k, volume in enumerate(in_processes(_without_ringing, jobs(), n_volumes, threads, progress)):
        clean[..., k] = volume
    return clean


def _without_ringing(volume: NDArray[np.float32], slice_axis: int) -> NDArray[np.float32]:
    """Remove ringing from one volume, skipping slices without signal."""
    from dipy.denoise.gibbs import gibbs_removal

    finite = np.isfinite(volume)
    filled = np.where(finite, volume, np.float32(0))
    across = tuple(axis for axis in range(3) if axis != slice_axis)
    signal = np.flatnonzero((filled != 0).any(axis=across))
    if signal.size:
        place = tuple(signal if axis == slice_axis else slice(None) for axis in range(3))
        shifted = gibbs_removal(filled[place], slice_axis=slice_axis, inplace=False)
        filled[place] = _only_ripples(filled[place], shifted, slice_axis)
    return np.where(finite, filled, volume)


def _only_ripples(volume: NDArray, shifted: NDArray, slice_axis: int) -> NDArray:
    """The shifted volume where the change can be a ripple, elsewhere the volume."""

    def span(width: int) -> NDArray:
        size = [1 if axis == slice_axis else width for axis in range(3)]
        return maximum_filter(volume, size) - minimum_filter(volume, size)

    around = span(NEIGHBOURHOOD)
    change = np.clip(shifted - volume, -RIPPLE * around, RIPPLE * around)
    return np.where(span(3) < AT_AN_EDGE * around, volume + change, volume)
