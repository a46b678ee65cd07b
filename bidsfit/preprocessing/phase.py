"""From magnitude and phase to the real part of the signal, whose noise is Gaussian."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

#: Standard deviation of the filter that finds the smooth phase, voxels.
WIDTH = 3.0
#: Phases in arbitrary units fill at least this share of their range.
FILLED = 0.9

#: Largest value of a UNIT1 image that scanners write as integers.
LARGEST_UNIT = 4095.0

#: Units of phase images in BIDS.
PhaseUnit = Literal["rad", "arbitrary"]


def in_radians(phase: NDArray[np.floating], unit: PhaseUnit) -> NDArray[np.float32]:
    """A phase image in radians.

    In arbitrary units the range of the phase is taken for the next power of 2 above that of the values, as scanners
    write it with integers (-4096 to 4094, or 0 to 4095).

    Raises
    ------
    ValueError
        If arbitrary units fill less than 90 % of such a range.
    """
    phase = np.asarray(phase, dtype=np.float32)
    if unit == "rad":
        return phase
    span = float(np.ptp(phase))
    full = 2.0 ** np.ceil(np.log2(span)) if span > 0 else np.inf
    if span < FILLED * full:
        raise ValueError(
            f"phases from {phase.min():g} to {phase.max():g} fill no range of integers (such as -4096 to 4095), so "
            "that 360 degrees are not known"
        )
    return phase * np.float32(2 * np.pi / full)


def signed(
    magnitudes: NDArray[np.float32], told: Sequence[NDArray[np.float32]], unit: PhaseUnit | None
) -> NDArray[np.float32]:
    """Signals of readouts after an inversion with their signs, shape (x, y, z, n), from magnitudes of that shape.

    ``told`` are the phases of all readouts in ``unit``, of which the real part with respect to the phase of the last is
    taken; or, without a unit, one UNIT1 image, which is the product of two readouts over their sum of squares.

    Raises
    ------
    ValueError
        If the range of the phases, or that of the UNIT1 image (-0.5 to 0.5, or integers from 0 to 4095), is another.
    """
    if unit is not None:
        radians = np.stack([in_radians(phase, unit) for phase in told], axis=-1)
        return magnitudes * np.cos(radians - radians[..., -1:])
    (ratio,) = told
    low, high = float(np.nanmin(ratio)), float(np.nanmax(ratio))
    if low >= 0 and 1 < high <= LARGEST_UNIT:
        ratio = ratio - np.float32(LARGEST_UNIT / 2)
    elif not (low < 0 and max(-low, high) <= 0.5):
        raise ValueError(f"it holds values from {low:g} to {high:g}; expected -0.5 to 0.5, or integers from 0 to 4095")
    return np.concatenate([magnitudes[..., :1] * np.sign(ratio)[..., None], magnitudes[..., 1:]], axis=-1)


def real_part(
    magnitude: NDArray[np.floating], phase: NDArray[np.floating], *, slice_axis: int = 2, width: float = WIDTH
) -> NDArray[np.float32]:
    """Real part of complex signals after their smooth phase was removed.

    Every slice of every volume has a phase of its own, by the motion during its diffusion weighting. The peak of its
    spatial frequencies is moved to the centre; then the phase of the complex image, smoothed within the slice by a
    Gaussian filter, is removed [1]_. What is left is the true signal in the real part, with Gaussian noise, so that it
    may be negative; the imaginary part is noise alone and left out.

    The filter leaves out the voxel itself, whose noise would otherwise draw the phase to itself and the real part above
    its truth. In a disc of 40 to 80 voxels whose phase changes by some radians the mean
    of the real part is at least 0.994 of the truth at an SNR of 2, 0.985 at 1 and 0.966 at 0.5 (at the very edge 0.98,
    0.97 and 0.93); those of magnitudes are 1.13, 1.55 and 2.66 times the truth.

    Parameters
    ----------
    magnitude, phase : ndarray, shape (x, y, z, n)
        The phase in radians.
    slice_axis : int
        Axis across the slices.
    width : float
        Standard deviation of the filter, voxels.

    Returns
    -------
    ndarray of float32, shape (x, y, z, n)

    References
    ----------
    .. [1] Eichner C, et al. Real diffusion-weighted MRI enabling true signal averaging and increased diffusion
       contrast. NeuroImage 2015;122:373-384.
    """
    widths = [0.0 if axis == slice_axis else width for axis in range(3)]
    found = np.empty(magnitude.shape, dtype=np.float32)
    point = np.zeros([1 if not w else 2 * round(4 * w) + 1 for w in widths])
    point[tuple(side // 2 for side in point.shape)] = 1
    own = gaussian_filter(point, widths, mode="constant").max()
    for k in range(magnitude.shape[3]):  # a volume at a time: little memory beside the image
        signal = _centred(magnitude[..., k] * np.exp(1j * phase[..., k].astype(np.float64)), slice_axis)
        smooth = gaussian_filter(signal, widths, mode="constant") - own * signal
        size = np.abs(smooth)
        found[..., k] = (signal * np.divide(smooth.conj(), size, out=np.ones_like(smooth), where=size > 0)).real
    return found


def _centred(signal: NDArray[np.complex128], slice_axis: int) -> NDArray[np.complex128]:
    """A complex volume (x, y, z) with the peak of the spatial frequencies of every slice moved to frequency 0."""
    slices = np.moveaxis(signal, slice_axis, 0)
    peaks = np.abs(np.fft.fft2(slices)).reshape(len(slices), -1).argmax(axis=1)
    found = np.empty_like(slices)
    for k, place in enumerate(np.stack(np.unravel_index(peaks, slices.shape[1:]), axis=1)):
        x, y = (np.exp(-2j * np.pi * peak * np.arange(n) / n) for peak, n in zip(place, slices.shape[1:], strict=True))
        found[k] = slices[k] * np.outer(x, y)
    return np.moveaxis(found, 0, slice_axis)
