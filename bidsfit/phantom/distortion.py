"""Displacement of signal along the phase-encoding axis by off-resonance and eddy currents."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.interpolate import CubicSpline

#: Sources of off-resonance: place as a fraction of half the field of view (right, front, up), relative strength,
#: and width as a fraction of the field of view. Air above the nose, and in the ears.
SOURCES = (
    ((0.00, 0.72, -1.0), 1.0, 0.13),
    ((0.48, 0.05, -1.0), -0.6, 0.12),
    ((-0.48, 0.05, -1.0), -0.6, 0.12),
)

#: How far each source lies from its place (fraction of the field of view) and from its strength.
SOURCE_JITTER = (0.02, 0.15)

#: Newton's method to where the signal of a place comes from: most steps, voxels, and a guard where the field is steep.
NEWTON_STEPS = 20
PRECISION = 1e-3  # before the last step, which squares it
SMALLEST_SLOPE = 0.05


def draw_off_resonance(
    shape: tuple[int, int, int], affine: NDArray[np.float64], peak: float, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Draw a smooth off-resonance field, Hz: a few Gaussian sources at the bottom of the image, the strongest in front.

    ``affine`` is voxel to world (RAS+), ``peak`` the largest absolute value over the image, Hz.
    """
    size = np.abs(np.diag(affine)[:3]) * shape
    width = size[:2].max()
    world = np.moveaxis(np.indices(shape), 0, -1) @ affine[:3, :3].T + affine[:3, 3]
    field = np.zeros(shape)
    for place, strength, extent in SOURCES:
        centre = np.array(place) * size / 2 + SOURCE_JITTER[0] * width * rng.standard_normal(3) * (1, 1, 0)
        distance = ((world - centre) ** 2).sum(-1) / (extent * width) ** 2
        field += strength * (1 + SOURCE_JITTER[1] * rng.uniform(-1, 1)) * np.exp(-distance / 2)
    return field * (peak / np.abs(field).max())


def eddy_gradients(b_values: ArrayLike, directions: ArrayLike, strength: float) -> NDArray[np.float64]:
    """Displacement by eddy currents as a gradient for each volume, along its diffusion gradient.

    Eddy currents are proportional to the gradient amplitude, thus to the square root of b at fixed timing. Gradients
    along the phase-encoding axis scale the image, others shear it [1]_.

    Parameters
    ----------
    b_values : array_like, shape (n,)
    directions : array_like, shape (n, 3)
        Gradient directions in world axes.
    strength : float
        Displacement at the largest b-value, per cent of the distance from the world origin along the gradient.

    Returns
    -------
    ndarray, shape (n, 3)
        mm along the phase-encoding axis per mm.

    References
    ----------
    .. [1] Haselgrove JC, Moore JR. Magnetic Resonance in Medicine 1996;36:960-964.
    """
    b = np.asarray(b_values, dtype=float)
    relative = np.sqrt(b / b.max()) if b.max() > 0 else np.zeros(b.shape)
    return strength / 100 * relative[:, None] * np.asarray(directions, dtype=float)


def origins(displacement: NDArray, axis: int = 1) -> NDArray[np.float64]:
    """Original coordinates of the signal at the borders of the voxels, in voxels along ``axis``.

    Parameters
    ----------
    displacement : ndarray, shape (x, y, z)
        Displacement of the signal at each voxel along ``axis``, in voxels; constant beyond the image.

    Raises
    ------
    ValueError
        If signals of two places coincide, because the displacement decreases by a voxel or more per voxel.
    """
    shifts = np.moveaxis(np.asarray(displacement, dtype=float), axis, 0)
    n = len(shifts)
    steepest = np.diff(shifts, axis=0).min() if n > 1 else 0.0
    if steepest <= -1:
        raise ValueError(
            f"The displacement falls by {-steepest:.2f} voxels from one voxel to the next: the image would fold over "
            "itself, which no correction can undo. Choose a weaker field, or larger voxels."
        )
    shift = _LineSplines(np.arange(n), shifts)
    arrival = (np.arange(n + 1) - 0.5).reshape(-1, *(1,) * (shifts.ndim - 1))
    origin = arrival - shift(np.broadcast_to(arrival, (n + 1, *shifts.shape[1:])))[0]
    for _ in range(NEWTON_STEPS):
        value, slope = shift(origin)
        error = origin + value - arrival
        origin = origin - error / np.maximum(1 + slope, SMALLEST_SLOPE)
        if np.abs(error).max() < PRECISION:
            break
    return np.moveaxis(origin, 0, axis)


def distort(volume: NDArray, origin: NDArray[np.float64], axis: int = 1) -> NDArray[np.float64]:
    """Displace the signal of a volume along one axis, preserving total signal inside the image.

    The cumulative signal of each line is interpolated by cubic splines, and each voxel gets the signal between the
    origins of its two borders, so that compressed signal piles up according to the Jacobian. Splines overshoot a little
    at sharp edges and may be negative there.

    Parameters
    ----------
    volume : ndarray, shape (x, y, z)
    origin : ndarray, shape (x, y, z), one longer along ``axis``
        As of `origins`.
    """
    lines = np.moveaxis(np.asarray(volume, dtype=float), axis, 0)
    borders = np.arange(len(lines) + 1) - 0.5
    total = _LineSplines(borders, np.concatenate([np.zeros_like(lines[:1]), np.cumsum(lines, axis=0)]))
    return np.moveaxis(np.diff(total(np.moveaxis(origin, axis, 0))[0], axis=0), 0, axis)


class _LineSplines:
    """Cubic splines along the first axis, evaluated at separate places for each line; constant beyond the ends."""

    def __init__(self, knots: NDArray, values: NDArray[np.float64]) -> None:
        self.first, self.last = float(knots[0]), float(knots[-1])
        self.coefficients = CubicSpline(knots, values, bc_type="natural").c  # highest power first

    def __call__(self, places: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Values and slopes."""
        inside = np.clip(places, self.first, self.last)
        knot = np.minimum((inside - self.first).astype(np.intp), self.coefficients.shape[1] - 1)
        t = inside - self.first - knot
        c3, c2, c1, c0 = (np.take_along_axis(c, knot, axis=0) for c in self.coefficients)
        return ((c3 * t + c2) * t + c1) * t + c0, np.where(inside == places, (3 * c3 * t + 2 * c2) * t + c1, 0.0)
