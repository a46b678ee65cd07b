"""Reading of JSON sidecars."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from bidsfit.exceptions import UnusableInputError
from bidsfit.files import read_text

#: Metadata are never nested deeper than this.
DEEPEST = 50

#: Integers of more digits than this are read as floating-point numbers; those beyond them are infinite.
LONGEST_INTEGER = 18


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
