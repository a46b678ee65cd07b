"""Reading of acquisitions: .bval and .bvec files, metadata, and tables of measurements."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bidsfit.acquisition import COLUMNS, LARGEST_B, LONGEST_DIRECTION, Acquisition, Column
from bidsfit.exceptions import UnusableInputError
from bidsfit.files import read_text, read_tsv

#: A comma amid digits.
_DECIMAL_COMMA = re.compile(r"\d,\d")


def read_numbers(path: Path) -> NDArray[np.float64]:
    """Read a .bval or .bvec file into an array of its rows; numbers are separated by blanks or commas."""
    lines = [line.split() for line in read_text(path).splitlines()]
    if decimal := next(
        (word for words in lines if len(words) > 1 for word in words if _DECIMAL_COMMA.search(word)), ""
    ):
        raise UnusableInputError(
            f"{path} writes numbers with a decimal comma ({decimal}); expected a point ({decimal.replace(',', '.')})."
        )
    try:
        rows = [[float(number) for number in " ".join(words).replace(",", " ").split()] for words in lines]
    except ValueError as error:
        raise UnusableInputError(f"{path} holds something that is not a number: {error}.") from error
    rows = [row for row in rows if row]
    if not rows or len({len(row) for row in rows}) != 1:
        raise UnusableInputError(f"{path} is empty, or its lines differ in length.")
    return np.array(rows)


def read_b_values(path: Path) -> NDArray[np.float64]:
    """Read a .bval file: one number per volume, s/mm^2."""
    rows = read_numbers(path)
    if min(rows.shape) > 1:
        raise UnusableInputError(
            f"{path} holds {rows.shape[0]} lines of {rows.shape[1]} numbers; expected the b-values in one line, or one "
            "a line, with decimal points and not commas."
        )
    b_values = rows.ravel()
    wrong = ~((b_values >= 0) & (b_values <= LARGEST_B))
    if wrong.any():
        raise UnusableInputError(
            f"{path} holds b-values that are negative or not finite, or above {LARGEST_B:g} s/mm²: "
            f"{listed(b_values[wrong])} (volumes {listed(np.flatnonzero(wrong))}, counted from 0)."
        )
    return b_values


def write_b_values(path: Path, b_values: NDArray[np.float64]) -> None:
    """Write a .bval file as one line of numbers separated by blanks."""
    np.savetxt(path, b_values[None], fmt="%.10g")


def write_directions(path: Path, directions: NDArray) -> None:
    """Write gradient directions, shape (n, 3), as a .bvec file: a line for each axis."""
    np.savetxt(path, np.asarray(directions).T, fmt="%.8f")


def read_acquisition(bval: Path | None, bvec: Path | None, sidecar: dict[str, Any] | None = None) -> Acquisition:
    """Acquisition of an image from its .bval and .bvec files (FSL's layout, or one row per volume) and its metadata.

    Parameters
    ----------
    bval, bvec : Path
        Without ``bval`` the measurements are those of the metadata (see `bidsfit.bids.series`). Without ``bvec`` every
        b-value counts as one direction. Zero or NaN directions are unknown, and zero in the result.
    sidecar : dict, optional
        Metadata; fields of `bidsfit.acquisition.COLUMNS` such as ``EchoTime`` (s) are used if present.

    Raises
    ------
    UnusableInputError
        If a file cannot be read, values are invalid, or numbers of volumes disagree.
    """
    if bval is None and sidecar and "Frames" in sidecar:  # of a train of pulses
        frames = Acquisition(**columns_of(sidecar, sidecar["Frames"]))
        if "TemporalBasis" not in sidecar:
            return frames
        return Acquisition(frames=frames, basis=(np.array(sidecar["TemporalBasis"]) @ [1, 1j]).T)
    if bval is None:
        lists = [values for values in (sidecar or {}).values() if isinstance(values, list)]
        return Acquisition(**columns_of(sidecar or {}, max(map(len, lists), default=1)))
    b_values = read_b_values(bval)
    directions = None
    if bvec is not None:
        directions = read_numbers(bvec)
        if directions.shape[0] == 3 and directions.shape[1] == b_values.size:
            directions = directions.T
        if directions.shape != (b_values.size, 3):
            raise UnusableInputError(
                f"{bvec} holds {directions.shape[0]} x {directions.shape[1]} numbers; expected 3 rows of "
                f"{b_values.size}, one column for each b-value in {bval.name}."
            )
        directions[np.isnan(directions).any(axis=1)] = 0  # which is how converters write that they know none
        wrong = ~(np.abs(directions) <= LONGEST_DIRECTION).all(axis=1)
        if wrong.any():
            raise UnusableInputError(
                f"{bvec} holds gradient directions that are not finite, or longer than {LONGEST_DIRECTION:g} (volumes "
                f"{listed(np.flatnonzero(wrong))}, counted from 0)."
            )
    return Acquisition(b_values, directions, **columns_of(sidecar or {}, b_values.size))


def read_table(path: Path) -> Acquisition:
    """Read an acquisition from a table (TSV) with one row per measurement and one column per variable.

    Names and units are those of `bidsfit.acquisition.COLUMNS`: b (s/mm^2), TE, TI, TR (ms), flip_angle (degrees); gx,
    gy and gz are directions, ``averages`` is the number of averaged measurements. Other columns are variables without a
    unit.

    Raises
    ------
    UnusableInputError
        If it cannot be read or has invalid values.
    """
    rows = read_tsv(path)
    try:
        table: dict[str, Any] = {name: [float(row[name]) for row in rows] for name in (rows[0] if rows else ())}
        vectors = [table.pop(name) for name in COLUMNS["direction"].components if name in table]
        return Acquisition(
            table.pop("b", None),
            directions=np.transpose(vectors) if vectors else None,
            counts=table.pop("averages", None),
            **table,
        )
    except ValueError as error:
        raise UnusableInputError(f"{path} describes no acquisition: {error}") from error


def columns_of(sidecar: Mapping[str, Any], n_volumes: int) -> dict[str, Any]:
    """Columns given by metadata as one value for all volumes or one per volume; invalid values are ignored."""
    found = {}
    for column in COLUMNS.values():
        content = sidecar.get(column.field) if column.name != "b" else None
        values = content if isinstance(content, list) else [content] * n_volumes
        if len(values) == n_volumes and all(is_value(value, column) for value in values):
            found[column.name] = np.array(values, dtype=float) * column.field_factor
    return found


def is_value(value: Any, column: Column) -> bool:
    """Whether a metadata value is valid for a column."""
    if not isinstance(value, int | float) or isinstance(value, bool) != column.flag:
        return False
    return (value > 0 or (value == 0 and column.zero)) and value * column.field_factor <= column.largest


def listed(values: NDArray, most: int = 8) -> str:
    """The first few of some numbers, as text."""
    return ", ".join(f"{value:g}" for value in values[:most]) + (", ..." if values.size > most else "")
