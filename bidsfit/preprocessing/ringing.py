"""Removal of Gibbs ringing."""

from __future__ import annotations

from collections.abc import Iterator

import numba
import numpy as np
from numpy.typing import NDArray
from scipy.fft import fft2, ifft2, ifftshift, irfft, rfft
from scipy.ndimage import maximum_filter, minimum_filter

from bidsfit.compiling import cached
from bidsfit.parallel import Progress, in_processes
from bidsfit.preprocessing.denoising import require_four_dimensions

#: The shift of a voxel is chosen by the total variation of three neighbours on either side.
SMALLEST_SIDE = 8

#: Shifts that are tried on either side, voxels.
SHIFTS = np.linspace(0.02, 0.9, 45)

#: Rows that are worked on together, so that they stay in the cache.
BLOCK = 1024

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
    """Remove Gibbs ringing by sub-voxel shifts.

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

    Notes
    -----
    The shifts are those of DIPY's ``gibbs_removal`` to rounding. Rows outside the head are not left out: weights in
    Fourier space, by which the shifts along rows and along columns are put together, mix all voxels of a slice.

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
    finite = np.isfinite(volume)
    filled = np.where(finite, volume, np.float32(0))
    across = tuple(axis for axis in range(3) if axis != slice_axis)
    signal = np.flatnonzero((filled != 0).any(axis=across))
    if signal.size:
        place = tuple(signal if axis == slice_axis else slice(None) for axis in range(3))
        shifted = np.moveaxis(_shifted(np.moveaxis(filled[place], slice_axis, 0)), 0, slice_axis)
        filled[place] = _only_ripples(filled[place], shifted, slice_axis)
    return np.where(finite, filled, volume)


def _shifted(slices: NDArray[np.float32]) -> NDArray[np.float32]:
    """Slices (n, x, y) interpolated at the shifts of least variation along x and along y."""
    u, v = (1 + np.cos(np.linspace(-np.pi, np.pi, side)) for side in slices.shape[1:])
    both = u[:, None] + v
    along_y = np.divide(u[:, None], both, out=np.full(both.shape, 0.5), where=both > 0)
    weights = ifftshift(along_y).astype(np.float32)
    y = fft2(_shifted_rows(slices))
    x = fft2(np.swapaxes(_shifted_rows(np.swapaxes(slices, 1, 2)), 1, 2))
    return np.abs(ifft2(x + weights * (y - x)))


def _shifted_rows(slices: NDArray[np.float32]) -> NDArray[np.float32]:
    """Slices (n, rows, side) interpolated along their rows."""
    rows = np.array(slices, order="C").reshape(-1, slices.shape[-1])
    for start in range(0, len(rows), BLOCK):
        rows[start : start + BLOCK] = _shifted_block(rows[start : start + BLOCK])
    return rows.reshape(slices.shape)


def _shifted_block(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """Rows interpolated between the shifts of least variation on either side."""
    side = rows.shape[1]
    spectrum = rfft(rows)
    # A shift makes the highest frequency of an even number of voxels complex; `irfft` leaves its imaginary part out.
    highest = np.abs(spectrum[:, -1]) / np.float32(side) * (side % 2 == 0)
    nearest = []
    for sign in (1, -1):
        values, shifts, variation = rows.copy(), np.zeros_like(rows), np.full_like(rows, np.inf)
        _keep_least(rows, highest, np.float32(0), values, shifts, variation)
        for shift in SHIFTS:
            phases = np.exp(2j * np.pi * sign * shift / side * np.arange(spectrum.shape[1]))
            moved = irfft(spectrum * phases.astype(np.complex64), side, overwrite_x=True)
            imaginary = highest * np.float32(np.sin(np.pi * shift))
            _keep_least(moved, imaginary, np.float32(shift), values, shifts, variation)
        nearest += [values, shifts]
    after, up, before, down = nearest
    apart = up + down
    return np.where(apart == 0, rows, (after - before) / np.where(apart == 0, 1, apart) * down + before)


@cached
@numba.njit(nogil=True, error_model="numpy")
def _keep_least(
    moved: NDArray, imaginary: NDArray, shift: np.float32, values: NDArray, shifts: NDArray, variation: NDArray
) -> None:
    """Take moved rows and their shift where the total variation of three neighbours on one side is the least so far."""
    n_rows, side = moved.shape
    row = np.empty(side + 6, dtype=moved.dtype)  # the ends are neighbours
    change = np.empty(side + 5, dtype=moved.dtype)
    for i in range(n_rows):
        square = imaginary[i] * imaginary[i]
        for j in range(side):
            value = moved[i, j]
            row[j + 3] = value if shift == 0 else np.sqrt(value * value + square)
        for j in range(3):
            row[j], row[side + 3 + j] = row[side + j], row[3 + j]
        for j in range(side + 5):
            change[j] = abs(row[j] - row[j + 1])
        for j in range(side):
            right = change[j + 3] + change[j + 4] + change[j + 5]
            left = change[j + 2] + change[j + 1] + change[j]
            least = min(left, right)
            less = least < variation[i, j]
            variation[i, j] = least if less else variation[i, j]
            values[i, j] = row[j + 3] if less else values[i, j]
            shifts[i, j] = shift if less else shifts[i, j]


def _only_ripples(volume: NDArray, shifted: NDArray, slice_axis: int) -> NDArray:
    """The shifted volume where the change can be a ripple, elsewhere the volume."""

    def span(width: int) -> NDArray:
        size = [1 if axis == slice_axis else width for axis in range(3)]
        return maximum_filter(volume, size) - minimum_filter(volume, size)

    around = span(NEIGHBOURHOOD)
    change = np.clip(shifted - volume, -RIPPLE * around, RIPPLE * around)
    return np.where(span(3) < AT_AN_EDGE * around, volume + change, volume)
