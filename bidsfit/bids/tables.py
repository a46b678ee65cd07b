"""Writing of BIDS tables with JSON files that describe their columns."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from bidsfit import __version__
from bidsfit.bids.units import FILE_UNITS
from bidsfit.files import whole_file, write_json

#: What made a file, as its JSON file says it.
GENERATED_BY = [{"Name": "bidsfit", "Version": __version__}]

#: What stands for a value that is not there (BIDS).
NOT_AVAILABLE = "n/a"

#: Numbers with so many digits are read as the same single-precision numbers.
DIGITS = 9

#: What a column holds: words, whole numbers, numbers, numbers in the unit of the row's parameter, yes (1) or no (0).
Kind = Literal["words", "count", "number", "parameter", "flag"]


@dataclass(frozen=True)
class TableColumn:
    """Description of a table column.

    Attributes
    ----------
    units : str
        Empty if there are none; those of a column of kind "parameter" are in the column ``units``.
    prefix : str
        Prepended to text: "sub-".
    """

    title: str
    description: str
    kind: Kind = "number"
    units: str = ""
    prefix: str = ""


def interval(name: str, title: str, description: str, kind: Kind = "number", units: str = "") -> dict[str, TableColumn]:
    """Columns of an estimate and its confidence limits: ``name``, ``name_lower`` and ``name_upper``."""
    limit = f"{title}, {{}} confidence limit"
    return {
        name: TableColumn(title, description, kind, units),
        f"{name}_lower": TableColumn(limit.format("lower"), "Of the 95 % interval", kind, units),
        f"{name}_upper": TableColumn(limit.format("upper"), "Of the 95 % interval", kind, units),
    }


#: Whose images.
WHO: Mapping[str, TableColumn] = {
    "participant": TableColumn("Participant", "Label, with sub-", "words", prefix="sub-"),
    "session": TableColumn("Session", "Label, with ses-; n/a where the image names none", "words", prefix="ses-"),
}

#: Which parameter of which fit in which region.
WHAT: Mapping[str, TableColumn] = {
    "model": TableColumn("Signal model", "Name", "words"),
    "estimator": TableColumn("Estimator", "Name", "words"),
    "region": TableColumn("Region", "Name; whole: all voxels of the mask that was fitted", "words"),
    "parameter": TableColumn("Parameter", "Label, as in the names of maps", "words"),
    "unit": TableColumn("Units", "Of all columns that are in the units of the parameter", "words"),
}


def write_table(
    path: Path,
    columns: Mapping[str, TableColumn],
    rows: Iterable[Mapping[str, Any]],
    *,
    description: str = "",
    about: Mapping[str, Any] | None = None,
    digits: int = DIGITS,
) -> Path:
    """Write a table and the JSON file that describes its columns, both atomically.

    Rows are written as they come, to save memory.

    Parameters
    ----------
    path : Path
        ``.tsv``.
    columns : mapping of str to TableColumn
        All are written. If there is a column ``unit`` it holds internal units in the rows; columns of kind "parameter"
        are converted, and both are written in the units of files.
    rows : iterable of mapping
        Missing keys, None and NaN become n/a.
    description : str
        Of the table.
    about : mapping, optional
        Additional content of the JSON file, such as ``Sources``.
    digits : int
        Significant digits of numbers that are not whole.

    Raises
    ------
    ValueError
        If a row has a key that is not a column.
    """

    def cells(row: Mapping[str, Any]) -> Iterator[str]:
        if unknown := row.keys() - columns.keys():
            raise ValueError(f"{path.name} has no column {', '.join(sorted(unknown))}.")
        factor = FILE_UNITS[row["unit"]].factor if "unit" in columns else 1.0
        return (_cell(row.get(name), column, factor, name, digits) for name, column in columns.items())

    write_rows(path, map(_head, columns), map(cells, rows))
    described = {_head(name): _described(column) for name, column in columns.items()}
    title = {"Description": description} if description else {}
    write_json(path.with_suffix(".json"), {**title, **described, **(about or {})})
    return path


def write_rows(path: Path, head: Iterable[str], rows: Iterable[Iterable[Any]], delimiter: str = "\t") -> None:
    """Write the names of columns and rows of cells, separated by tabs or another delimiter; whole or not at all."""
    with whole_file(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter=delimiter, lineterminator="\n")
        writer.writerow(head)
        writer.writerows(rows)


def _head(name: str) -> str:
    """Name of a column in the file, using BIDS names where they exist."""
    return {"participant": "participant_id", "session": "session_id", "unit": "units"}.get(name, name)


def _cell(value: Any, column: TableColumn, factor: float, name: str, digits: int) -> str:
    if value is None or value == "":
        return NOT_AVAILABLE
    if name == "unit":
        return FILE_UNITS[value].name
    if column.kind == "words":
        return column.prefix + " ".join(str(value).split())  # neither tabs nor line breaks
    if column.kind == "flag":
        return str(int(value))
    if not math.isfinite(value):
        return NOT_AVAILABLE if math.isnan(value) else str(value)
    if column.kind == "count":
        return str(int(value))
    if column.kind == "number" and isinstance(value, int):
        return str(value)
    return f"{value * (factor if column.kind == 'parameter' else 1.0):.{digits}g}"


def _described(column: TableColumn) -> dict[str, str]:
    """What the JSON file says of a column."""
    units = "as in the column units" if column.kind == "parameter" else column.units
    return {"LongName": column.title, "Description": column.description} | ({"Units": units} if units else {})
