"""Reading of images, masks and signals, and writing of maps."""

from __future__ import annotations

import gzip
import os
import zlib
from collections.abc import Iterator
from contextlib import suppress
from copy import copy
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.affines import apply_affine
from nibabel.spatialimages import SpatialImage
from nibabel.volumeutils import apply_read_scaling
from numpy.typing import DTypeLike, NDArray

from bidsfit.bids.headers import end_of_data, in_one_line, is_packed, judge_image, judge_stored_header, refuse_more
from bidsfit.exceptions import UnusableInputError
from bidsfit.files import require_file, whole_file

#: How packed files are opened, and the error of those that are damaged.
open_packed: Any = gzip.open
DamageError: type[Exception] = zlib.error
with suppress(ImportError):  # 2.7 times as fast; not there for every processor
    from isal import igzip, isal_zlib

    open_packed, DamageError = igzip.open, isal_zlib.error

#: Two grids are the same when their corners lie within this fraction of a voxel of each other.
SAME_GRID = 0.5

#: Packed files are read in pieces of so many bytes.
PIECE = 1 << 20


def open_image(path: Path, *, may_be_complex: bool = False) -> SpatialImage:
    """Open a NIfTI (or FreeSurfer) image without reading its data, and check its header.

    Raises
    ------
    UnusableInputError
        If the file does not exist or its header is invalid: impossible dimensions, complex numbers (unless allowed), or
        scaling, voxel sizes or affines that are not finite or singular.
    """
    require_file(path)
    try:
        judge_stored_header(path)
        image = nib.load(path)
    except UnusableInputError:
        raise
    except Exception as error:  # nibabel raises many types on damaged headers
        raise unreadable(path, error, "as NIfTI") from error
    return judge_image(image, path, may_be_complex=may_be_complex)


def image_shape(image: SpatialImage, n_volumes: int, path: Path, bval: Path | None = None) -> tuple[int, int, int, int]:
    """Shape (x, y, z, volumes) of an image whose header may omit dimensions of size one.

    ``bval`` is the file of its b-values. If that is inherited, the slices of a 3D image are not taken for volumes.

    Raises
    ------
    UnusableInputError
        If the numbers of volumes and b-values differ.
    """
    shape, inherited = list(image.shape), _inherited(bval, path)
    while len(shape) > 4 and shape[-1] == 1:
        shape.pop()
    if len(shape) == 3:  # one volume, or one slice whose third dimension holds the volumes
        whole = n_volumes == 1 or shape[2] != n_volumes or inherited
        shape = [*shape, 1] if whole else [*shape[:2], 1, shape[2]]
    if len(shape) != 4:
        raise UnusableInputError(f"{path} has shape {image.shape}; expected three dimensions and volumes.")
    if shape[3] != n_volumes:
        raise UnusableInputError(
            f"{path} has {shape[3]} volumes, but its .bval file has {n_volumes} b-values{inherited}. "
            "They must agree: was a volume removed from one of them?"
        )
    return shape[0], shape[1], shape[2], shape[3]


def _inherited(bval: Path | None, path: Path) -> str:
    """Text that names the file of inherited b-values; empty if the image has its own."""
    if bval is None or bval.name.split(".")[0] == path.name.split(".")[0]:
        return ""
    return (
        f" ({bval}, which it inherits: if it is no series of volumes, such as an ADC map of the scanner, leave it out "
        "with --bids-filter-file)"
    )


def read_mask(path: Path, image: SpatialImage, image_path: Path) -> NDArray[np.bool_]:
    """Read a mask that belongs to an image.

    Raises
    ------
    UnusableInputError
        If it is empty, or has another shape or geometry.
    """
    mask = np.nan_to_num(read_on_grid(path, image, image_path, "mask")) > 0.5
    if not mask.any():
        raise UnusableInputError(f"The mask {path} is empty.")
    return mask


def read_on_grid(
    path: Path, image: SpatialImage, image_path: Path, kind: str, volume: int | None = None
) -> NDArray[np.float64]:
    """Read a volume that must lie on the grid of an image, of several the one that is named; ``kind`` is for messages.

    Raises
    ------
    UnusableInputError
        If it has another shape or geometry.
    """
    volume_image = open_image(path)
    data = np.asarray(read_data(volume_image, path), dtype=float)
    if volume is not None and data.ndim == 4 and volume < data.shape[3]:
        data = data[..., volume]
    while data.ndim > 3 and data.shape[-1] == 1:
        data = data[..., 0]
    expected = image.shape[:3] if len(image.shape) > 3 or data.shape == image.shape else (*image.shape[:2], 1)
    if data.ndim == 2:
        data = data[..., None]
    if data.shape != tuple(expected):
        raise UnusableInputError(
            f"The {kind} {path} has shape {data.shape}, but the image {image_path} has {tuple(expected)}. "
            f"Give a {kind} on the grid of the image."
        )
    if not same_grid(volume_image, image, data.shape):
        raise UnusableInputError(
            f"The {kind} {path} lies elsewhere in space than the image {image_path}: their affines differ by more than "
            f"{SAME_GRID} voxel. Resample the {kind} to the grid of the image."
        )
    return data


def same_grid(first: SpatialImage, second: SpatialImage, shape: tuple[int, ...]) -> bool:
    """Whether two images lie on one grid, according to qform or sform.

    Programs differ in which they set; a header that sets neither is accepted.
    """
    corners = np.array(np.meshgrid(*[(0, n - 1) for n in shape])).reshape(3, -1).T

    def affines(image: SpatialImage) -> list[NDArray]:
        if not isinstance(image, nib.Nifti1Image):
            return [image.affine]
        found = [image.get_sform(coded=True)[0], image.get_qform(coded=True)[0]]
        return [affine for affine in found if affine is not None]

    pairs = [(a, b) for a in affines(first) for b in affines(second)]
    voxel = min(second.header.get_zooms()[:3])
    return not pairs or any(
        np.abs(apply_affine(a, corners) - apply_affine(b, corners)).max() <= SAME_GRID * voxel for a, b in pairs
    )


def on_grid(path: Path, image: Path) -> bool:
    """Whether two images lie on one grid."""
    first, second = open_image(path), open_image(image)
    return first.shape[:3] == second.shape[:3] and same_grid(first, second, first.shape[:3])


def read_data(image: SpatialImage, path: Path, dtype: DTypeLike | None = None) -> NDArray:
    """All data of an image, in the stored type if no scaling applies.

    Scaled data are of type ``dtype``, and are scaled volume by volume, so that no larger array is held; by default the
    type is that of nibabel, 64-bit floats as a rule.

    Raises
    ------
    UnusableInputError
        If the file is truncated, or the checksum of a compressed one does not match.
    """
    stored, scaling = _read_stored(image, path), _scaling(image)
    if dtype is None or scaling == (1.0, 0.0):
        return np.asanyarray(apply_read_scaling(stored, *scaling))
    values = np.empty(stored.shape, dtype, order="F")
    for k in range(stored.shape[-1]):
        values[..., k] = apply_read_scaling(stored[..., k], *scaling)
    return values


def _read_stored(image: SpatialImage, path: Path) -> NDArray:
    """All data of an image without scaling: mapped from disk, or unpacked and verified."""
    proxy: Any = image.dataobj
    if not is_packed(Path(image.get_filename() or "")):  # an unpacked copy of it is not
        try:
            return np.asanyarray(proxy.get_unscaled())
        except Exception as error:
            raise unreadable(path, error) from error
    content = np.empty(end_of_data(image), dtype=np.uint8)
    position = 0
    for piece in _unpacked(image, path):
        content[position : position + len(piece)] = np.frombuffer(piece, dtype=np.uint8)
        position += len(piece)
    return np.ndarray(proxy.shape, proxy.dtype, content, proxy.offset, order=proxy.order)


def _scaling(image: SpatialImage) -> tuple[np.float64, np.float64]:
    """Slope and intercept by which stored numbers are scaled."""
    proxy: Any = image.dataobj
    return np.float64(proxy.slope), np.float64(proxy.inter)


def _unpacked(image: SpatialImage, path: Path) -> Iterator[bytes]:
    """Header and data of a compressed image in pieces, read to the end so that gzip verifies checksums."""
    left = end_of_data(image)
    try:
        with open_packed(path) as file:
            while piece := file.read(min(left, PIECE)):
                left -= len(piece)
                yield piece
            if left:
                raise EOFError(f"{left} bytes of its data are missing")
            if file.read(1):
                refuse_more(image, path)
                while file.read(PIECE):
                    pass
    except (EOFError, OSError, DamageError) as error:
        raise unreadable(path, error) from error


def opened(path: Path, scratch: str = "") -> SpatialImage:
    """Open an image; with a scratch folder a compressed one is mapped from an unpacked copy there.

    The copy is made by whoever comes first, and again if the image has changed since: both have one time. Who opens the
    image later, in this process or another, does not unpack it. The image may be complex: one that must not was refused
    when the run was planned.
    """
    image = open_image(path, may_be_complex=True)
    if not scratch or not is_packed(path):
        return image
    unpacked, changed = Path(scratch) / path.stem, path.stat().st_mtime_ns
    if not unpacked.exists() or unpacked.stat().st_mtime_ns != changed:
        with whole_file(unpacked) as temporary, temporary.open("wb") as target:
            target.writelines(_unpacked(image, path))
        os.utime(unpacked, ns=(changed, changed))
    return open_image(unpacked, may_be_complex=True)


def unreadable(path: Path, error: Exception, how: str = "to its end") -> UnusableInputError:
    """The error to raise for an image that cannot be read or is damaged."""
    if str(error).startswith(("CRC check failed", "Incorrect length of data")):  # gzip's words
        said = f"{path} is damaged: its checksum does not match its content. Copy or convert it again."
    else:
        said = f"{path} cannot be read {how} ({in_one_line(error)}). Is it damaged or truncated?"
    return UnusableInputError(said)


class MaskedSignals:
    """Signals of the voxels of a mask, read from an image by slice.

    Only the requested rows are in memory, besides the stored image, which is mapped from disk unless compressed.

    Parameters
    ----------
    shape : (x, y, z, n)
        As of `image_shape`.
    mask : ndarray of bool, shape (x, y, z)
    path : Path
        File name for messages.
    """

    def __init__(
        self, image: SpatialImage, shape: tuple[int, int, int, int], mask: NDArray[np.bool_], path: Path
    ) -> None:
        self._stored = _read_stored(image, path).reshape(-1, shape[3], order="F")
        scaling = _scaling(image)
        self._scaling = None if scaling == (1.0, 0.0) else scaling
        self._index = np.flatnonzero(mask.ravel(order="F"))
        self._grid = shape[:3]

    def positions(self, slice_axis: int = 2) -> NDArray[np.int64]:
        """Voxel indices in the image, shape (n_voxels, 3): two in the slice, and the slice.

        The voxels are in the order of the last of them, or of the first where slices lie across another axis.
        """
        places = np.unravel_index(self._index, self._grid, order="F")
        return np.stack([places[axis] for axis in ((2, 1, 0), (2, 0, 1), (0, 1, 2))[slice_axis]], axis=1)

    def within(self, mask: NDArray[np.bool_]) -> MaskedSignals:
        """Signals in another mask, sharing the stored image."""
        other = copy(self)
        other._index = np.flatnonzero(mask.ravel(order="F"))
        return other

    @property
    def shape(self) -> tuple[int, int]:
        """(n_voxels, n_measurements)."""
        return self._index.size, self._stored.shape[1]

    def __getitem__(self, rows: slice) -> NDArray:
        kind = np.complex128 if np.iscomplexobj(self._stored) else np.float64
        signals = self._stored[self._index[rows]].astype(kind)
        if self._scaling is not None:
            signals *= self._scaling[0]
            signals += self._scaling[1]
        return signals

    def volume(self, k: int) -> NDArray[np.float64]:
        """One volume inside the mask, shape (n_voxels,); of a complex image, its magnitude."""
        column = self._stored[:, k]
        values = column if self._index.size == column.size else column[self._index]
        values = (np.abs(values) if np.iscomplexobj(values) else values).astype(np.float64)
        return values if self._scaling is None else values * self._scaling[0] + self._scaling[1]

    def place(self, values: NDArray, mask: NDArray[np.bool_], outside: float = 0) -> NDArray:
        """Values of the voxels, shape (n_voxels, ...), as one or several volumes of the shape of the mask."""
        volume = np.full((mask.size, *values.shape[1:]), outside, dtype=values.dtype)
        volume[self._index] = values
        return volume.reshape((*mask.shape, *values.shape[1:]), order="F")


def write_nifti(path: Path, data: NDArray, like: SpatialImage, dtype: DTypeLike | None = None) -> None:
    """Write values on the grid of an image, atomically.

    By default floats are stored as float32, complex numbers as complex64, all others as uint8, or as int32 where one is
    larger; floats that are stored as integers are scaled to the range of these. Images with volumes keep the time
    between them.
    """
    kind: type = np.complex64 if np.iscomplexobj(data) else np.float32
    if not np.issubdtype(data.dtype, np.inexact):
        kind = np.uint8 if data.dtype == bool or data.max(initial=0) < 256 else np.int32
    image = nib.Nifti1Image(np.asarray(data, dtype=kind), like.affine)
    image.header.set_data_dtype(dtype or kind)
    volumes = data.ndim == 4 and len(like.shape) == 4
    image.header.set_xyzt_units("mm", "sec" if volumes else None)
    if volumes:
        image.header["pixdim"][4] = like.header.get_zooms()[3]
    if isinstance(like.header, nib.Nifti1Header):
        for setter, (affine, code) in (
            (image.set_qform, like.header.get_qform(coded=True)),
            (image.set_sform, like.header.get_sform(coded=True)),
        ):
            setter(affine, code=int(code))
    with whole_file(path) as temporary:
        nib.save(image, temporary)
