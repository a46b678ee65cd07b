"""Reading of JSON sidecars."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bidsfit.exceptions import UnusableInputError
from bidsfit.files import read_text

#: Metadata are never nested deeper than this.
DEEPEST = 50

#: Integers of more digits than this are read as floating-point numbers; those beyond them are infinite.
LONGEST_INTEGER = 18

#: Voxels for each acquired sample from which an image counts as interpolated. Scanners often reconstruct a few lines
#: more than they acquire, which does no harm.
INTERPOLATED = 1.2


def read_sidecar(path: Path) -> dict[str, Any]:
    """Read a JSON file that holds an object, such as a sidecar.

    Non-finite numbers (NaN, Infinity, 1e999) are returned; `read_metadata` drops their fields.

    Raises
    ------
    UnusableInputError
        If it is not JSON of that form.
    """
    try:
        content = json.loads(read_text(path), parse_int=_integer)
    except RecursionError as error:
        raise UnusableInputError(f"{path} cannot be read as JSON: it is nested too deep.") from error
    except ValueError as error:
        raise UnusableInputError(f"{path} cannot be read as JSON: {error}.") from error
    if not isinstance(content, dict):
        raise UnusableInputError(f"{path} must hold a JSON object ({{...}}); found {type(content).__name__}.")
    if _depth(content) > DEEPEST:
        raise UnusableInputError(f"{path} cannot be read as metadata: it is nested too deep (more than {DEEPEST}).")
    return content


def read_metadata(paths: Iterable[Path]) -> tuple[dict[str, Any], str]:
    """Metadata of an image from its JSON files, and a text about fields that could not be used.

    ``paths`` start with the most general file; later files override earlier ones. Errors are those of `read_sidecar`.
    """
    metadata: dict[str, Any] = {}
    remarks = []
    for path in paths:
        content = read_sidecar(path)
        metadata |= content
        odd = [field for field, value in content.items() if not _is_plain({field: value})]
        if odd:
            named = ", ".join(map(ascii, odd))
            remarks.append(f"{path} holds NaN, infinite numbers or broken text, read as missing, in {named}.")
    return {field: value for field, value in metadata.items() if _is_plain({field: value})}, " ".join(remarks)


def _integer(digits: str) -> int | float:
    return int(digits) if len(digits) <= LONGEST_INTEGER else float(digits)


def _depth(value: Any) -> int:
    """Nesting depth of objects and lists."""
    deepest, level = 0, [value]
    while level := [child for one in level if isinstance(one, dict | list) for child in _children(one)]:
        deepest += 1
        if deepest > DEEPEST:
            break
    return deepest


def _children(value: dict[str, Any] | list[Any]) -> Iterable[Any]:
    return value.values() if isinstance(value, dict) else value


def _is_plain(value: Any) -> bool:
    """Whether a value can be written as JSON: finite numbers and valid text."""
    if isinstance(value, dict):
        return all(_is_plain(one) for pair in value.items() for one in pair)
    if isinstance(value, list):
        return all(map(_is_plain, value))
    if isinstance(value, str):
        return not any("\ud800" <= letter <= "\udfff" for letter in value)
    return not isinstance(value, float) or math.isfinite(value)


def slice_axis(sidecar: dict[str, Any]) -> int:
    """Axis across the slices, from the BIDS field ``SliceEncodingDirection``; the third by default."""
    direction = str(sidecar.get("SliceEncodingDirection", "k"))
    return "ijk".find(direction[:1]) if direction[:1] in ("i", "j", "k") else 2


def interpolation(sidecar: Mapping[str, Any], shape: Sequence[int]) -> str:
    """How the scanner interpolated an image in its slices, in words; empty if the sidecar does not say so.

    The acquired matrix is compared with the reconstructed one, by the fields that dcm2niix writes or DICOM's
    ``AcquisitionMatrix``. Fewer lines that partial Fourier or a rectangular field of view explain are no interpolation.

    Parameters
    ----------
    sidecar : mapping
    shape : (x, y, z, ...)
        Voxels of the image.
    """

    def number(name: str) -> float:
        """A positive number, or 0."""
        value = sidecar.get(name)
        return float(value) if isinstance(value, int | float) and not isinstance(value, bool) and value > 0 else 0.0

    in_plane = [axis for axis in range(3) if axis != slice_axis(dict(sidecar))]
    encoding = str(sidecar.get("PhaseEncodingDirection") or sidecar.get("PhaseEncodingAxis") or "")[:1]
    phase = "ijk".find(encoding) if encoding else -1
    told = sidecar.get("AcquisitionMatrix")  # frequency rows, frequency columns, phase rows, phase columns
    matrix = told if isinstance(told, list) and len(told) == 4 and all(isinstance(n, int) for n in told) else [0] * 4

    lines = max(number("AcquisitionMatrixPE"), number("PhaseEncodingStepsNoPartialFourier")) or max(matrix[2:])
    rows = number("ReconMatrixPE") or (shape[phase] if phase in in_plane else 0)
    explained = min(number("PercentPhaseFOV") / 100 or 1, 1) * min(number("PartialFourier") or 1, 1)
    if sidecar.get("PartialFourierEnabled") == "YES" and not number("PhaseEncodingStepsNoPartialFourier"):
        explained = explained if number("PartialFourier") else 0  # by how much is not told
    if lines and rows * explained >= INTERPOLATED * lines:
        return f"{lines:g} lines were acquired along the phase-encoding axis, and {rows:g} reconstructed"

    samples = max(number("BaseResolution"), number("FrequencyEncodingSteps")) or max(matrix[:2])
    columns = min(shape[axis] for axis in in_plane if axis != phase)
    if samples and columns >= INTERPOLATED * samples:
        return f"{samples:g} samples were acquired along the readout axis, and {columns} reconstructed"
    return "the scanner interpolated the slices (Interpolation2D)" if sidecar.get("Interpolation2D") else ""
