"""Anatomy of a simulated head: tissue, lesion, and true parameters of every voxel."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt

from bidsfit.exceptions import UsageError
from bidsfit.fractal import classes, fractal_noise, rescale
from bidsfit.phantom.tensors import MADE
from bidsfit.phantom.tissue import TISSUES, TissueRecipe

#: Width of the image, mm: the longer side of a slice. Voxels are isotropic.
FIELD_OF_VIEW = 240.0

#: Semi-axes of the head: left-right and front-back as a fraction of the image's side, up-down in mm.
SEMI_AXES = (0.36, 0.44, 70.0)

#: Semi-axes of the lesion's ellipsoid, mm, are drawn from this range.
LESION_SEMI_AXES = (12.0, 22.0)

#: From depth (0 at the surface, 1 in the middle) to the value whose thresholds are the tissues.
DEPTH = ((0.0, 0.06, 0.28, 0.65, 1.0), (0.14, 0.25, 0.52, 0.65, 0.90))

#: How far fractal noise folds the tissues (1: as far as the whole scale of tissues).
FOLDING = 0.6

#: How many of the largest folds fit across the image.
FOLDS = 7.0


#: Fibres fan out from a point so far below the middle of the image (mm), and drawn directions draw them aside with this
#: weight. Most lie in the slice, so that a thin slab shows their course, too.
FAN, ASIDE = 20.0, 0.6

#: Tissues by the classes of fractal maps.
OF_CLASSES = np.array([TISSUES[tissue] for tissue in ("CSF", "GM", "WM")], dtype=np.uint8)


@dataclass(frozen=True)
class Head:
    """True tissue and parameters of one participant's head, or abdomen (`bidsfit.phantom.abdomen`).

    Attributes
    ----------
    tissue : ndarray of uint8, shape (x, y, z)
        Tissue numbers, such as `bidsfit.phantom.tissue.TISSUES`; 0 is air.
    parameters : dict of name to ndarray, shape (x, y, z)
        In the units of the model; 0 in air.
    voxel_size : float
        mm.
    region : ndarray of bool, shape (x, y, z)
        Voxels of white matter (or liver) that a lesion replaces, if any.
    """

    tissue: NDArray[np.uint8]
    parameters: dict[str, NDArray[np.float64]]
    voxel_size: float
    region: NDArray[np.bool_]

    @property
    def mask(self) -> NDArray[np.bool_]:
        """Voxels that are not air, shape (x, y, z)."""
        return self.tissue > 0

    @property
    def lesion(self) -> NDArray[np.bool_]:
        """Voxels of the lesion, shape (x, y, z)."""
        return self.tissue == TISSUES["lesion"]


def make_head(
    shape: tuple[int, int, int],
    recipe: TissueRecipe,
    rng: np.random.Generator,
    *,
    lesion: str | None = None,
    homogeneous: bool = False,
) -> Head:
    """Draw tissue and parameters of one participant.

    Parameters
    ----------
    shape : tuple of int
        Voxels along x, y and z.
    recipe : TissueRecipe
        Parameter ranges of the tissues.
    rng : numpy.random.Generator
        Tissue is drawn first, so that one seed gives one anatomy for every model.
    lesion : str, optional
        Name of a lesion of the recipe.
    homogeneous : bool
        Give every parameter one value in the whole region: the middle of its range in the lesion, or in white matter
        without one. The rest of the head is unchanged.
    """
    voxel_size = FIELD_OF_VIEW / max(shape[:2])
    tissue = draw_tissue(shape, voxel_size, rng)
    place = draw_lesion(tissue, voxel_size, rng)  # drawn for everyone: a lesion changes nothing else
    return with_parameters(tissue, place, voxel_size, recipe, TISSUES, rng, lesion=lesion, homogeneous=homogeneous)


def make_fractal(shape: tuple[int, int, int], recipe: TissueRecipe, rng: np.random.Generator, **options: Any) -> Head:
    """Draw fractal tissue that fills the image, as in the fractal phantoms of Kaandorp et al.; see `make_head`."""
    voxel_size = FIELD_OF_VIEW / max(shape[:2])
    tissue = OF_CLASSES[classes(fractal_noise(shape, rng))]
    place = draw_lesion(tissue, voxel_size, rng)
    return with_parameters(tissue, place, voxel_size, recipe, TISSUES, rng, **options)


def with_parameters(
    tissue: NDArray[np.uint8],
    place: NDArray[np.bool_],
    voxel_size: float,
    recipe: TissueRecipe,
    numbers: Mapping[str, int],
    rng: np.random.Generator,
    *,
    lesion: str | None = None,
    homogeneous: bool = False,
) -> Head:
    """Draw the parameters of every tissue as fractal maps within the ranges of a recipe.

    Parameters
    ----------
    tissue : ndarray of uint8, shape (x, y, z)
    place : ndarray of bool, shape (x, y, z)
        Voxels of the (possible) lesion.
    voxel_size : float
        mm.
    lesion, homogeneous
        As in `make_head`.
    """
    if lesion is not None:
        tissue[place] = numbers["lesion"]
    shape = tissue.shape
    parameters: dict[str, NDArray[np.float64]] = {}
    for name, number in numbers.items():
        if name == "lesion" and lesion is None:
            continue
        where = tissue == number
        for parameter, (lower, upper) in recipe.ranges(name, lesion).items():
            noise = fractal_noise(shape, rng)
            if where.any():
                values = parameters.setdefault(parameter, np.zeros(shape))
                values[where] = rescale(noise, lower, upper, within=tissue > 0)[where]
    if recipe.axis:
        polar, azimuth = f"{recipe.axis}_polar", f"{recipe.axis}_azimuth"
        angles = fanned(parameters[polar], parameters[azimuth], voxel_size)
        parameters |= {polar: np.where(tissue > 0, angles[0], 0.0), azimuth: np.where(tissue > 0, angles[1], 0.0)}
    if homogeneous:
        for parameter, value in recipe.middle(lesion).items():
            parameters[parameter][place] = value
    if recipe.made:
        parameters = MADE[recipe.made](parameters)
    return Head(tissue, parameters, voxel_size, place)


def fanned(
    polar: NDArray[np.float64], azimuth: NDArray[np.float64], voxel_size: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Polar angles and azimuths, shape (x, y, z), of fibres that fan out and are drawn aside by given directions.

    They are in the frame of the .bvec files of FSL, whose x is opposite to that of the image, which is RAS+.
    """
    places = [voxel_size * (np.arange(size) - (size - 1) / 2) for size in polar.shape]
    fan = np.stack(np.meshgrid(-places[0], places[1], places[2] + FAN, indexing="ij"))
    fan /= np.linalg.norm(fan, axis=0)
    wide = 2 * polar  # half a sphere holds all axes, and would draw all of them to one side
    x, y, z = fan + ASIDE * np.stack([np.sin(wide) * np.cos(azimuth), np.sin(wide) * np.sin(azimuth), np.cos(wide)])
    side = np.where(z < 0, -1.0, 1.0)
    x, y, z = side * x, side * y, side * z
    return np.arctan2(np.hypot(x, y), z), np.mod(np.arctan2(y, x), 2 * np.pi)


def draw_tissue(shape: tuple[int, int, int], voxel_size: float, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Tissue numbers of an ellipsoid with fluid around and in the middle, a folded cortex, and white matter between.

    The depth below the surface, folded by fractal noise, is divided at the thresholds of the fractal phantoms of
    Kaandorp et al.: white matter 0.5 to 0.8, grey matter 0.2 to 0.5, cerebrospinal fluid elsewhere.
    """
    folds = fractal_noise(shape, rng, cells=FOLDS) - 0.5
    semi_axes = (SEMI_AXES[0] * shape[0] * voxel_size, SEMI_AXES[1] * shape[1] * voxel_size, SEMI_AXES[2])
    depth = 1 - np.sqrt(squared_radius(shape, voxel_size, semi_axes))
    level = np.interp(depth, *DEPTH) + FOLDING * folds
    tissue = OF_CLASSES[classes(level)]
    tissue[depth < 0] = 0
    if not np.any(tissue == TISSUES["WM"]):
        raise UsageError(f"A phantom of {' x '.join(map(str, shape))} voxels is too small to hold white matter.")
    return tissue


def draw_lesion(
    tissue: NDArray[np.uint8], voxel_size: float, rng: np.random.Generator, host: int = TISSUES["WM"]
) -> NDArray[np.bool_]:
    """Voxels of the host tissue (white matter by default) inside an ellipsoid around one of its deepest places."""
    within = tissue == host
    inside = distance_transform_edt(within) * voxel_size  # the head goes on above and below the slab
    candidates = np.argwhere(inside >= 0.8 * inside.max())
    centre = candidates[rng.integers(len(candidates))]
    semi_axes = rng.uniform(*LESION_SEMI_AXES, size=3)
    ellipsoid = squared_radius(tissue.shape, voxel_size, semi_axes, centre) <= 1
    return within & ellipsoid


def transmit_field(shape: tuple[int, ...]) -> NDArray[np.float64]:
    """True flip angle as a share of the nominal one: large in the middle of the head, small at its sides, as at 3 T."""
    semi_axes = tuple(size / 2 for size in (*shape[:2], 4 * max(shape)))
    return 1.15 - 0.35 * np.minimum(squared_radius(shape, 1.0, semi_axes), 1.5)


def resonance_field(shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Off-resonance, Hz: large at the front of the head, above air, and slightly negative elsewhere."""
    front = np.array([(shape[0] - 1) / 2, 0.9 * shape[1], (shape[2] - 1) / 2])
    semi_axes = tuple(size / 3 for size in (*shape[:2], max(shape)))
    return 60 * np.exp(-squared_radius(shape, 1.0, semi_axes, front)) - 15


#: What recipes call the fields of a scanner.
FIELDS = {"transmit": transmit_field, "resonance": resonance_field}


def squared_radius(
    shape: tuple[int, ...],
    voxel_size: float,
    semi_axes: tuple[float, ...] | NDArray[np.float64],
    centre: NDArray | None = None,
) -> NDArray[np.float64]:
    """Squared distance from a centre (by default that of the grid), in units of the semi-axes (mm) of an ellipsoid."""
    middle = (np.array(shape) - 1) / 2 if centre is None else centre
    axes = [
        ((np.arange(size) - m) * voxel_size / semi_axis) ** 2
        for size, m, semi_axis in zip(shape, middle, semi_axes, strict=True)
    ]
    return np.asarray(sum(np.ix_(*axes)))
