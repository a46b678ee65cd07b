"""Gibbs ringing: the ripples that a finite matrix leaves beside every edge."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import maximum_filter, minimum_filter

from bidsfit.parallel import in_processes
from bidsfit.preprocessing.denoising import require_four_dimensions

#: The shift of a voxel is chosen by the total variation of three neighbours on either side.
SMALLEST_SIDE = 8

#: Ripples are smaller than this share of the range of the neighbourhood that they are in (a square of so many voxels).
RIPPLE, NEIGHBOURHOOD = 0.06, 15

#: Where the range of the nearest neighbours alone is this share of that range, the voxel is at an edge itself.
AT_AN_EDGE = 0.25


def obstacle_to_gibbs(shape: tuple[int, ...], slice_axis: int = 2) -> str:
    """Why ringing cannot be removed from slices of this shape, in words; empty where it can.

    Parameters
    ----------
    shape : tuple of int
        (x, y, z, n) of the image.
    slice_axis : int
        Axis across the slices.
    """
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
    progress: Callable[[float], None] | None = None,
) -> NDArray[np.float32]:
    """Remove Gibbs ringing by sub-voxel shifts (DIPY).

    Along the rows and the columns of a slice every voxel is interpolated where the ripples around it are sampled at
    their nodes: at the shift for which its neighbourhood varies least [1]_. The matrix may be odd or even.

    At an edge itself, and in structures as thin as a voxel, the shifts change what is no ripple; there they would
    cost more than they gain. So voxels at an edge keep their values, and no other changes by more than a ripple can
    (`AT_AN_EDGE`, `RIPPLE`; both chosen on simulated heads, see ``benchmarks/preprocessing.py``).

    The method takes the ringing to be that of the full matrix of the image. It does not hold where k-space was
    covered in part (partial Fourier below 7/8 leaves ripples of another period along the phase-encoding axis, which
    stay), where the scanner has interpolated the image or filtered it, and after any resampling: it belongs before
    the corrections of distortion and motion, and after denoising, as it correlates the noise of neighbours.

    Parameters
    ----------
    data : ndarray, shape (x, y, z, n)
        Magnitudes. A volume with values that are not finite is treated as if they were 0, and keeps them.
    slice_axis : int
        Axis across the slices; ringing is removed along the other two.
    threads : int
        Processes to share the work. Threads would wait for each other.

    Returns
    -------
    ndarray of float32, shape (x, y, z, n)

    Raises
    ------
    ValueError
        Where the axis is none of the image's, or its slices are too small.

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
    """One volume; slices without any signal are left out."""
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
    """The shifted volume where it takes out what may be a ripple, the volume where it does not."""

    def span(width: int) -> NDArray:
        size = [1 if axis == slice_axis else width for axis in range(3)]
        return maximum_filter(volume, size) - minimum_filter(volume, size)

    around = span(NEIGHBOURHOOD)
    change = np.clip(shifted - volume, -RIPPLE * around, RIPPLE * around)
    return np.where(span(3) < AT_AN_EDGE * around, volume + change, volume)
