"""Anatomy of a simulated abdomen, and the displacement of its organs by breathing."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from bidsfit.exceptions import UsageError
from bidsfit.fractal import fractal_noise
from bidsfit.phantom.head import Head, draw_lesion, squared_radius, with_parameters
from bidsfit.phantom.tissue import ABDOMEN, TissueRecipe

#: Width of the image, mm: the longer side of a slice. Voxels are isotropic.
FIELD_OF_VIEW = 380.0

#: Semi-axes of the trunk, mm: left-right and front-back; it goes on above and below.
TRUNK = (165.0, 112.0)

#: Thickness of the fat below the skin, and of the muscle below the fat, mm.
FAT, WALL = 14.0, 12.0

#: Standard deviation of where an organ lies (mm), and of its size (as a fraction), between participants.
JITTER = (4.0, 0.05)

#: How far fractal noise moves the surface of an organ, as a fraction of its size.
ROUGHNESS = 0.25


class Organ(NamedTuple):
    """An ellipsoid: tissue ("" is gas), centre (right, front, up) and semi-axes, mm."""

    tissue: str
    centre: tuple[float, float, float]
    semi_axes: tuple[float, float, float]


#: From the first to the last; what comes later lies over what was there. The origin is the middle of the image.
ORGANS = (
    Organ("bowel", (-35, 45, -10), (75, 45, 90)),
    Organ("liver", (75, 10, 15), (68, 72, 75)),
    Organ("liver", (15, 50, 30), (62, 32, 40)),
    Organ("spleen", (-105, -25, 15), (28, 38, 50)),
    Organ("kidney", (62, -45, -35), (26, 26, 55)),
    Organ("kidney", (-60, -45, -25), (26, 26, 55)),
    Organ("fluid", (48, 48, -25), (14, 15, 28)),
    Organ("", (-45, 68, 5), (26, 12, 22)),
    Organ("", (-75, 50, -30), (14, 12, 20)),
    Organ("muscle", (38, -82, 0), (27, 17, 400)),
    Organ("muscle", (-38, -82, 0), (27, 17, 400)),
    Organ("bone", (0, -52, 0), (22, 19, 400)),
    Organ("fluid", (0, -80, 0), (9, 8, 400)),
)

#: How far breathing moves a tissue, as a fraction of how far it moves the liver.
AMPLITUDES = {"liver": 1.0, "lesion": 1.0, "spleen": 0.9, "kidney": 0.6, "bowel": 0.7, "fluid": 0.5}

#: Organs slide along the wall; here the movement fades out over this standard deviation, mm.
FADING = 12.0

#: Movement to the front as a fraction of that to the feet.
TO_THE_FRONT = 0.25


def make_abdomen(
    shape: tuple[int, int, int],
    recipe: TissueRecipe,
    rng: np.random.Generator,
    *,
    lesion: str | None = None,
    homogeneous: bool = False,
) -> Head:
    """Draw organs and parameters of one participant, halfway between exhalation and inhalation.

    Parameters
    ----------
    shape : tuple of int
        Voxels along x, y and z.
    recipe : TissueRecipe
        Parameter ranges of the tissues of `bidsfit.phantom.tissue.ABDOMEN`.
    lesion : str, optional
        Name of a lesion of the recipe, placed in the liver.
    homogeneous : bool
        As in `bidsfit.phantom.head.make_head`.
    """
    voxel_size = FIELD_OF_VIEW / max(shape[:2])
    tissue = draw_organs(shape, voxel_size, rng)
    place = draw_lesion(tissue, voxel_size, rng, ABDOMEN["liver"])
    return with_parameters(tissue, place, voxel_size, recipe, ABDOMEN, rng, lesion=lesion, homogeneous=homogeneous)


def draw_organs(shape: tuple[int, int, int], voxel_size: float, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Tissue numbers of `bidsfit.phantom.tissue.ABDOMEN` for organs inside a wall of muscle and fat; 0 is air and gas.

    Raises
    ------
    UsageError
        If the image is too small for a liver.
    """
    tissue = np.zeros(shape, dtype=np.uint8)
    layers = [
        np.sqrt(squared_radius(shape, voxel_size, (*(a - depth for a in TRUNK), np.inf))) < 1
        for depth in (0, FAT, FAT + WALL)
    ]
    for layer, name in zip(layers, ("fat", "muscle", "fat"), strict=True):
        tissue[layer] = ABDOMEN[name]
    for organ in ORGANS:
        moved = np.array(organ.centre) + JITTER[0] * rng.standard_normal(3)
        semi_axes = np.array(organ.semi_axes) * (1 + JITTER[1] * rng.standard_normal(3))
        centre = (np.array(shape) - 1) / 2 + moved / voxel_size
        radius = np.sqrt(squared_radius(shape, voxel_size, semi_axes, centre))
        surface = 1 + ROUGHNESS * (fractal_noise(shape, rng, octaves=2) - 0.5)
        tissue[(radius < surface) & layers[-1]] = ABDOMEN.get(organ.tissue, 0)
    if not np.any(tissue == ABDOMEN["liver"]):
        raise UsageError(f"A phantom of {' x '.join(map(str, shape))} voxels is too small to hold a liver.")
    return tissue


def breathing_pattern(tissue: NDArray[np.uint8], voxel_size: float) -> NDArray[np.float64]:
    """Displacement by inhalation per mm of motion of the middle of the liver, shape (3, x, y, z), in world axes (RAS+).

    Wall and spine are fixed; organs move by `AMPLITUDES`, smoothed (`FADING`). ``tissue`` holds numbers of
    `bidsfit.phantom.tissue.ABDOMEN`, ``voxel_size`` is in mm.
    """
    amount = np.zeros(tissue.shape)
    for name, amplitude in AMPLITUDES.items():
        amount[tissue == ABDOMEN[name]] = amplitude
    amount = gaussian_filter(amount, FADING / voxel_size, mode="reflect")
    return np.stack([np.zeros_like(amount), TO_THE_FRONT * amount, -amount])
