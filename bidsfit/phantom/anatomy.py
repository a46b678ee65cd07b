"""A T1-weighted image of a simulated head in another position."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bidsfit.noise import add_noise
from bidsfit.phantom.grid import centred_affine, sample
from bidsfit.phantom.head import Head
from bidsfit.phantom.movement import rigid_transforms
from bidsfit.phantom.tissue import TISSUES

#: Signal of each tissue; white matter is the brightest.
INTENSITIES = {"WM": 1000.0, "GM": 650.0, "CSF": 200.0, "lesion": 500.0}

#: White matter divided by the standard deviation of the noise.
SNR = 40.0

#: Voxels of the T1-weighted image along one voxel of the diffusion-weighted ones.
FINENESS = 2

#: Slices above and below the others, mm, which keep a thin slab inside.
MARGIN = 12.0

#: Largest translation along any axis (mm) and rotation about any axis (degrees) between the two images.
POSITION = (4.0, 4.0)


@dataclass(frozen=True)
class T1wImage:
    """A T1-weighted image and its truth.

    Attributes
    ----------
    image : ndarray of float32, shape (x, y, z)
    tissue : ndarray of uint8, shape (x, y, z)
        Numbers of `bidsfit.phantom.tissue.TISSUES`; 0 is air.
    voxel_size : float
        mm; the centre of the image is the world origin.
    transform : ndarray, shape (4, 4)
        World to world, from tissue in the diffusion-weighted images to tissue here.
    """

    image: NDArray[np.float32]
    tissue: NDArray[np.uint8]
    voxel_size: float
    transform: NDArray[np.float64]


def make_t1w(head: Head, rng: np.random.Generator) -> T1wImage:
    """Draw the position of the head and image it with finer voxels and a little Rician noise, without bias field.

    White matter is bright, grey matter between, cerebrospinal fluid dark, with mixtures at their borders.
    """
    parameters = rng.uniform(-1, 1, 6) * np.repeat((POSITION[0], np.deg2rad(POSITION[1])), 3)
    transform = rigid_transforms(parameters[None])[0]
    slices = head.tissue.shape[2] + 2 * int(np.ceil(MARGIN / head.voxel_size))
    shape = (*(FINENESS * size for size in head.tissue.shape[:2]), FINENESS * slices)
    voxel_size = head.voxel_size / FINENESS
    to_world = centred_affine(head.tissue.shape, head.voxel_size)
    matrix = np.linalg.inv(transform @ to_world) @ centred_affine(shape, voxel_size)
    intensity = np.zeros(head.tissue.shape)
    for tissue, number in TISSUES.items():
        intensity[head.tissue == number] = INTENSITIES[tissue]
    image = add_noise(sample(intensity, matrix, shape, order=1), INTENSITIES["WM"] / SNR, "rician", rng)
    tissue_here = np.rint(sample(head.tissue, matrix, shape, order=0)).astype(np.uint8)
    return T1wImage(image.astype(np.float32), tissue_here, voxel_size, transform)
