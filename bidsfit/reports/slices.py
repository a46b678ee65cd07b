"""Choice of the slices that a figure shows, and their position in the body.

Volumes are first reoriented to the closest RAS+ axes, so that pictures do not depend on how the image was stored. Left
is shown left (neurological convention), as in the reports of fMRIPrep and QSIPrep.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from nibabel.affines import voxel_sizes
from nibabel.orientations import apply_orientation, inv_ornt_aff, io_orientation
from numpy.typing import NDArray

#: For each slicing axis: plane, name of the coordinate, letters at left, right, bottom and top of a tile.
PLANES = (
    ("sagittal", "x", ("P", "A", "I", "S")),
    ("coronal", "y", ("L", "R", "I", "S")),
    ("axial", "z", ("L", "R", "P", "A")),
)

#: Slices of an image where there is room.
MOST_SLICES = 7

#: What is left between slices side by side, as a fraction of their width.
GAP = 0.03

#: Voxels this much thicker than the others decide in which plane an image was acquired.
THICKER = 1.2


def to_canonical(volume: NDArray, affine: NDArray) -> NDArray:
    """Permute and flip axes (without resampling) so that they point right, anterior and superior."""
    return apply_orientation(volume, io_orientation(affine))


@dataclass(frozen=True)
class Slices:
    """Some parallel slices, cropped around a mask.

    Attributes
    ----------
    axis : int
        RAS+ axis perpendicular to the slices.
    indices : tuple of int
        Indices of the slices along it, in the reoriented volume.
    window : tuple of slice
        Crop along the two other axes.
    positions : tuple of float
        Coordinate of each slice, mm.
    spacing : tuple of float
        Horizontal and vertical pixel size, mm.
    affine : ndarray, shape (4, 4)
        Affine of the volumes as stored.
    """

    axis: int
    indices: tuple[int, ...]
    window: tuple[slice, slice]
    positions: tuple[float, ...]
    spacing: tuple[float, float]
    affine: NDArray

    @classmethod
    def around(
        cls,
        mask: NDArray,
        affine: NDArray,
        *,
        count: int = MOST_SLICES,
        margin: float = 0.05,
        padding: int = 2,
        least: int = 12,
    ) -> Slices:
        """Choose slices in the acquisition plane, evenly spaced over the mask.

        Parameters
        ----------
        mask : ndarray of bool, shape (x, y, z)
            If empty, the whole volume is shown.
        affine : ndarray, shape (4, 4)
        count : int
            Maximum number of slices.
        margin, padding, least
            The crop is the bounding box of the mask, extended on each side by ``margin`` times its size and ``padding``
            voxels, and at least ``least`` voxels wide if the image is.
        """
        affine = np.asarray(affine, dtype=float)
        inside = to_canonical(np.asarray(mask, dtype=bool), affine)
        if not inside.any():
            inside = np.ones_like(inside)
        canonical = affine @ inv_ornt_aff(io_orientation(affine), np.shape(mask))
        sizes = voxel_sizes(canonical)
        axis = _plane(inside.shape, sizes)
        horizontal, vertical = (a for a in range(3) if a != axis)
        indices = _spread(inside.sum(axis=(horizontal, vertical)), count)
        window = tuple(
            _crop(np.any(inside, axis=tuple(b for b in range(3) if b != a)), margin, padding, least)
            for a in (horizontal, vertical)
        )
        centre = np.argwhere(inside).mean(axis=0)  # of an oblique slice, the position is that of the mask's centre
        positions = []
        for index in indices:
            centre[axis] = index
            positions.append(float(canonical[axis, :3] @ centre + canonical[axis, 3]))
        return cls(
            axis=axis,
            indices=indices,
            window=(window[0], window[1]),
            positions=tuple(positions),
            spacing=(float(sizes[horizontal]), float(sizes[vertical])),
            affine=affine,
        )

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def size(self) -> tuple[float, float]:
        """Width and height of a tile, mm."""
        width, height = (cut.stop - cut.start for cut in self.window)
        return width * self.spacing[0], height * self.spacing[1]

    @property
    def gap(self) -> int:
        """Pixels between slices that are side by side."""
        across = self.window[0]
        return max(round(GAP * (across.stop - across.start)), 1)

    @property
    def places(self) -> NDArray:
        """Left and right end of every slice in a `strip`, as fractions of its width; shape (n, 2)."""
        width = self.window[0].stop - self.window[0].start
        starts = (width + self.gap) * np.arange(len(self))
        return np.stack([starts, starts + width], axis=1) / (starts[-1] + width)

    @property
    def labels(self) -> list[str]:
        """Position of each slice, such as ``z = 12 mm``."""
        name = PLANES[self.axis][1]
        distances = np.abs(np.diff(self.positions))
        digits = 0 if distances.size == 0 or distances.min() >= 1.5 else 1
        return [
            f"{name} = {round(p, digits) + 0.0:.{digits}f} mm".replace("-", "\N{MINUS SIGN}") for p in self.positions
        ]

    @property
    def letters(self) -> tuple[str, str, str, str]:
        """Orientation letters at the left, right, bottom and top of a tile."""
        return PLANES[self.axis][2]

    @property
    def description(self) -> str:
        """Sentence on the orientation, for the bottom of a figure."""
        plane = PLANES[self.axis][0].capitalize()
        side = "front is right" if self.axis == 0 else "left is left (neurological)"
        return f"{plane} slices, {side}, positions in the coordinates of the image"

    def tiles(self, volume: NDArray) -> list[NDArray]:
        """Pictures of the slices, each of shape (vertical, horizontal[, colours]) with the origin at the lower left."""
        canonical = to_canonical(np.asarray(volume), self.affine)
        tiles = []
        for index in self.indices:
            where: list[slice | int] = [index, index, index]
            where[self.axis] = index
            for a, cut in zip((a for a in range(3) if a != self.axis), self.window, strict=True):
                where[a] = cut
            tiles.append(canonical[tuple(where)].swapaxes(0, 1))
        return tiles

    def strip(self, volume: NDArray) -> NDArray:
        """The slices side by side in one picture."""
        return self.joined(self.tiles(volume))

    def joined(self, tiles: Sequence[NDArray]) -> NDArray:
        """Pictures of the slices side by side, with zeros between them."""
        parts = [np.pad(tile, ((0, 0), (0, self.gap), (0, 0))[: tile.ndim]) for tile in tiles]
        return np.concatenate(parts, axis=1)[:, : -self.gap]


def _plane(shape: tuple[int, ...], sizes: NDArray) -> int:
    """Axis perpendicular to the slices: that of a single slice or of thick voxels, else the third (axial)."""
    if shape[2] > 1 and 1 in shape:
        return shape.index(1)
    thickest = int(np.argmax(sizes))
    return thickest if sizes[thickest] > THICKER * sizes[2] else 2


def _spread(area: NDArray, count: int) -> tuple[int, ...]:
    """At most ``count`` evenly spaced slices with mask; slices with a small area are skipped if there are enough."""
    present = np.flatnonzero(area)
    if present.size > count:
        worthy = np.flatnonzero(area > 0.15 * area.max())
        present = worthy if worthy.size >= count else present
    if present.size > count:
        present = present[((np.arange(count) + 0.5) * present.size / count).astype(int)]
    return tuple(int(i) for i in present)


def _crop(occupied: Any, margin: float, padding: int, least: int) -> slice:
    """Range of an axis that a figure shows."""
    where = np.flatnonzero(occupied)
    start, stop = int(where[0]), int(where[-1]) + 1
    extra = int(np.ceil(margin * (stop - start))) + padding
    extra = max(extra, int(np.ceil((least - (stop - start)) / 2)))
    return slice(max(start - extra, 0), min(stop + extra, occupied.size))
