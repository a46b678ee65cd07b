"""Checks of image headers before data are read: dimensions, data type, scaling and geometry."""

from __future__ import annotations

from math import prod
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import FileBasedImage
from nibabel.spatialimages import SpatialImage

from bidsfit.exceptions import UnusableInputError
from bidsfit.files import LARGEST_TEXT

#: Ends of the names of files that gzip packed.
PACKED = (".gz", ".mgz")

#: How many times smaller than their content they can be at most, which takes content of one value (deflate), and how
#: many times smaller they may be where that content (bytes) would fill a memory: at 500, 1 in 500 voxels has a value.
GREATEST_PACKING = 1032
PLAUSIBLE_PACKING = 500
LARGE = 1 << 30

#: An affine whose axes are closer to one plane than this condition number says does not place voxels in space.
LARGEST_CONDITION = 1e6


def judge_stored_header(path: Path) -> None:
    """Raise `UnusableInputError` for faults of a NIfTI header as stored; nibabel repairs some of them silently."""
    raw = _stored(path)
    if raw is None:
        return
    for name in ("scl_slope", "scl_inter"):
        if not np.isfinite(raw[name]):
            raise UnusableInputError(
                f"{path} has {name} {raw[name]} in its header; expected a finite number, by which its intensities are "
                "scaled. Convert it again."
            )
    sizes = raw["pixdim"][1:4]
    if not np.isfinite(sizes).all() or np.any(sizes[: max(int(raw["dim"][0]), 0)] == 0):
        raise UnusableInputError(
            f"{path} has voxels of {' x '.join(f'{size:g}' for size in sizes)} mm in its header; expected sizes above "
            "0. Convert it again."
        )
    if not raw["vox_offset"] <= LARGEST_TEXT:
        raise UnusableInputError(f"{path} has vox_offset {raw['vox_offset']} in its header, which cannot be.")


def _stored(path: Path) -> nib.Nifti1Header | None:
    """Stored header of a NIfTI file; None for other formats."""
    with nib.openers.ImageOpener(str(path)) as file:
        start = file.read(nib.Nifti2Header.sizeof_hdr)
    for kind in (nib.Nifti1Header, nib.Nifti2Header):
        if len(start) >= kind.sizeof_hdr and kind.may_contain_header(start):
            return kind(start[: kind.sizeof_hdr], check=False)
    return None


def judge_image(image: FileBasedImage, path: Path, *, may_be_complex: bool = False) -> SpatialImage:
    """The opened image, if it has real numbers (or complex ones, if allowed), the right size and a valid geometry.

    Raises
    ------
    UnusableInputError
        Otherwise.
    """
    if not isinstance(image, nib.Nifti1Image | nib.MGHImage):
        raise UnusableInputError(f"{path} does not hold an image of numbers; found {type(image).__name__}.")
    kind = image.get_data_dtype()
    if np.issubdtype(kind, np.complexfloating) and not may_be_complex:
        raise UnusableInputError(f"{path} holds complex numbers; bidsfit fits magnitude images.")
    if not np.issubdtype(kind, np.number):
        raise UnusableInputError(f"{path} does not hold an image of numbers; found {kind}.")
    _judge_size(image, path)
    _judge_space(image, path)
    return image


def _judge_size(image: SpatialImage, path: Path) -> None:
    """Refuse invalid dimensions, and files that are too short or too long for them."""
    if not image.shape or min(image.shape) < 1:
        raise UnusableInputError(f"{path} has the dimensions {image.shape} in its header; each must be at least 1.")
    expected, found = end_of_data(image), path.stat().st_size
    packing = GREATEST_PACKING if expected < LARGE else PLAUSIBLE_PACKING
    most = found * packing if is_packed(path) else found
    if expected > most:
        size = f"{found}, which do not unpack to more than {most} of an image" if is_packed(path) else f"{found}"
        raise UnusableInputError(
            f"{path} cannot be read to its end: by its header it has {expected} bytes (dimensions {image.shape}), but "
            f"it has {size}. It is damaged or truncated."
        )
    if found > expected and not is_packed(path):
        refuse_more(image, path)


def refuse_more(image: SpatialImage, path: Path) -> None:
    """Refuse a NIfTI file that is longer than its data; FreeSurfer's format may have a footer."""
    if isinstance(image, nib.Nifti1Image):
        raise UnusableInputError(
            f"{path} holds more than the {end_of_data(image)} bytes that its header tells (dimensions {image.shape}): "
            "one of the two is wrong. Convert it again."
        )


def _judge_space(image: SpatialImage, path: Path) -> None:
    """Refuse invalid affines."""
    affines = {"affine": image.affine}
    try:
        if isinstance(image, nib.Nifti1Image):
            affines |= {"sform": image.get_sform(coded=True)[0], "qform": image.get_qform(coded=True)[0]}
    except Exception as error:  # a quaternion that is none
        raise UnusableInputError(f"{path} has an impossible qform ({in_one_line(error)}). Mend its header.") from error
    for name, affine in affines.items():
        if affine is None:
            continue
        if not np.isfinite(affine).all() or not np.linalg.cond(affine[:3, :3]) <= LARGEST_CONDITION:
            raise UnusableInputError(
                f"{path} cannot be placed in space, for its {name} is singular or not finite: "
                f"{np.array2string(affine[:3], separator=', ').replace(chr(10), '')}. Mend its header."
            )


def is_packed(path: Path) -> bool:
    """Whether a file name says that it is compressed by gzip."""
    return path.suffix.lower() in PACKED


def end_of_data(image: SpatialImage) -> int:
    """Uncompressed bytes of an image up to the end of its data, according to its header."""
    proxy: Any = image.dataobj
    return int(proxy.offset) + prod(map(int, image.shape)) * image.get_data_dtype().itemsize


def in_one_line(error: Exception) -> str:
    """The message of an error in one line."""
    return " ".join(str(error).split())
