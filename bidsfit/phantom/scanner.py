"""Imaging of a moving head or breathing organs in an imperfect field, and the truth about the session."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bidsfit.acquisition import Acquisition
from bidsfit.phantom.distortion import distort, draw_off_resonance, eddy_gradients, origins
from bidsfit.phantom.imperfections import Imperfections
from bidsfit.phantom.movement import deform, draw_breathing, draw_motion, move, rigid_transforms
from bidsfit.phantom.ringing import draw_edges, ring

#: Seconds from the first echo to the last.
TOTAL_READOUT_TIME = 0.05

#: Phase is encoded along the second axis of the image, front to back in the diffusion-weighted images.
PHASE_ENCODING_AXIS = 1
PHASE_ENCODING_POLARITY = -1

#: Spread of the terms of the phase of complex signals, radians.
PHASE = 1.0

#: Signal that is left where it drops out, as a fraction.
DROP_OUT = (0.3, 0.7)


@dataclass(frozen=True)
class ScanTruth:
    """Imperfections that occurred during one session.

    Attributes
    ----------
    affine : ndarray, shape (4, 4)
        Voxel to world (mm, RAS+).
    motion : ndarray, shape (n, 6)
        See `bidsfit.phantom.movement.draw_motion`.
    field : ndarray, shape (x, y, z)
        Off-resonance, Hz, in the frame of the scanner: it does not move with the head.
    eddy : ndarray, shape (n, 3)
        See `bidsfit.phantom.distortion.eddy_gradients`.
    outliers : ndarray, shape (z, n)
        Remaining fraction of the signal of each slice; 1 without drop-out.
    edges : ndarray of int or None
        See `bidsfit.phantom.ringing.draw_edges`; None without ringing.
    breathing : ndarray, shape (n,)
        Displacement of the middle of the liver towards the feet, mm, relative to the mean over all volumes.
    pattern : ndarray, shape (3, x, y, z), or None
        See `bidsfit.phantom.abdomen.breathing_pattern`; None where nothing breathes.
    """

    affine: NDArray[np.float64]
    motion: NDArray[np.float64]
    field: NDArray[np.float64]
    eddy: NDArray[np.float64]
    outliers: NDArray[np.float64]
    edges: NDArray[np.intp] | None
    breathing: NDArray[np.float64]
    pattern: NDArray[np.float64] | None = None

    def deformation(self, volume: int) -> NDArray[np.float64] | None:
        """Displacement of the tissue of each voxel by breathing in a volume, voxels, shape (3, x, y, z)."""
        if self.pattern is None:
            return None
        return self.breathing[volume] * np.einsum("ij,jxyz->ixyz", np.linalg.inv(self.affine[:3, :3]), self.pattern)

    @property
    def transforms(self) -> NDArray[np.float64]:
        """World to world, from tissue in the first volume to tissue in each volume, shape (n, 4, 4)."""
        return rigid_transforms(self.motion)

    @property
    def outlier_volumes(self) -> NDArray[np.intp]:
        """Volumes in which signal dropped out, counted from 0."""
        return np.flatnonzero((self.outliers < 1).any(axis=0))

    def displacement(self, volume: int | None = None, polarity: int = PHASE_ENCODING_POLARITY) -> NDArray[np.float64]:
        """Displacement of signal along the phase-encoding axis, in voxels, shape (x, y, z).

        With the eddy currents of a ``volume``, or none by default; ``polarity`` (1 or -1) is that of the phase
        encoding.
        """
        displacement = TOTAL_READOUT_TIME * self.field
        if volume is not None and self.eddy[volume].any():
            shape = self.field.shape
            along = (self.affine[:3, :3].T @ self.eddy[volume])[:, None, None, None] * np.indices(shape)
            mm = along.sum(0) + self.affine[:3, 3] @ self.eddy[volume]
            displacement = displacement + mm / np.linalg.norm(self.affine[:3, PHASE_ENCODING_AXIS])
        return polarity * displacement


def draw_truth(
    shape: tuple[int, int, int],
    affine: NDArray[np.float64],
    acquisition: Acquisition,
    imperfections: Imperfections,
    rng: np.random.Generator,
    pattern: NDArray[np.float64] | None = None,
) -> ScanTruth:
    """Draw the imperfections of one session.

    Each has its own random numbers, independent of the amounts of the others. ``pattern`` is that of
    `bidsfit.phantom.abdomen.breathing_pattern`, if there is breathing.
    """
    n = len(acquisition)
    for_motion, for_field, for_outliers, for_edges, for_breathing = rng.spawn(5)
    directions = np.zeros((n, 3)) if acquisition.directions is None else acquisition.directions
    # b-vectors lie along the axes of the image, x flipped where the voxels are right-handed, as FSL has it
    flip = np.array([-1.0 if np.linalg.det(affine[:3, :3]) > 0 else 1.0, 1.0, 1.0])
    axes = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    return ScanTruth(
        affine=affine,
        motion=draw_motion(n, imperfections.motion, imperfections.rotation, for_motion),
        field=draw_off_resonance(shape, affine, imperfections.off_resonance, for_field),
        eddy=eddy_gradients(acquisition.b_values, (directions * flip) @ axes.T, imperfections.eddy),
        outliers=draw_outliers(shape[2], acquisition.b_values, imperfections.outliers, for_outliers),
        edges=draw_edges(shape[:2], for_edges) if imperfections.gibbs else None,
        breathing=imperfections.breathing * draw_breathing(n, for_breathing),
        pattern=pattern,
    )


def draw_outliers(
    n_slices: int, b_values: NDArray[np.float64], n_outliers: int, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Draw the remaining signal fraction, shape (n_slices, n_volumes), with drop-out in weighted volumes.

    Raises
    ------
    ValueError
        If there are fewer diffusion-weighted volumes than outliers.
    """
    weighted = np.flatnonzero(b_values > 0)
    if n_outliers > len(weighted):
        raise ValueError(f"{n_outliers} outlier volumes need as many with b above 0, found {len(weighted)}.")
    left = np.ones((n_slices, len(b_values)))
    for i, volume in enumerate(rng.choice(weighted, n_outliers, replace=False)):
        first, last = 0, n_slices
        if i % 2 == 0 and n_slices > 1:  # every other one in a part of the slices
            size = int(rng.integers(1, n_slices))
            first = int(rng.integers(0, n_slices - size + 1))
            last = first + size
        left[first:last, volume] = rng.uniform(*DROP_OUT)
    return left


def distorted(image: NDArray[np.float32], truth: ScanTruth) -> NDArray[np.float32]:
    """Apply breathing, motion, distortion, ringing and drop-out to noise-free signals, shape (x, y, z, n)."""
    seen = np.empty_like(image)
    still = _origins(truth.displacement())
    for i, transform in enumerate(truth.transforms):
        origin = _origins(truth.displacement(i)) if truth.eddy[i].any() else still
        deformation = truth.deformation(i)
        volume = image[..., i] if deformation is None else deform(image[..., i], deformation)
        volume = move(volume, truth.affine, transform)
        seen[..., i] = _encoded(volume, origin, truth) * truth.outliers[:, i]
    return seen


def reversed_pair(image: NDArray[np.float32], truth: ScanTruth) -> dict[int, NDArray[np.float32]]:
    """Noise-free images (x, y, z) with b = 0 before motion, by polarity (1 or -1) of the phase encoding."""
    return {
        polarity: _encoded(image, _origins(truth.displacement(polarity=polarity)), truth).astype(np.float32)
        for polarity in (PHASE_ENCODING_POLARITY, -PHASE_ENCODING_POLARITY)
    }


def _origins(displacement: NDArray[np.float64]) -> NDArray[np.float64] | None:
    return origins(displacement, PHASE_ENCODING_AXIS) if displacement.any() else None


def _encoded(volume: NDArray, origin: NDArray[np.float64] | None, truth: ScanTruth) -> NDArray[np.float64]:
    if origin is not None:
        volume = distort(volume, origin, PHASE_ENCODING_AXIS)
    volume = np.maximum(volume, 0)  # splines overshoot
    if truth.edges is not None:
        slices = [ring(volume[:, :, z], truth.edges) for z in range(volume.shape[2])]  # little memory at a time
        volume = np.abs(np.stack(slices, axis=-1))
    return volume


def draw_phase(shape: tuple[int, int], n: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Phases of n images of a slice in radians, shape (x, y, n).

    Each is a constant, which is uniform, plus a polynomial of the second order of the place that amounts to about half
    a turn at the edges.
    """
    x, y = np.meshgrid(*(np.linspace(-1, 1, side) for side in shape), indexing="ij")
    terms = np.stack([x, y, x * x, x * y, y * y], axis=-1)
    return rng.uniform(-np.pi, np.pi, n) + terms @ (PHASE * rng.standard_normal((terms.shape[-1], n)))
