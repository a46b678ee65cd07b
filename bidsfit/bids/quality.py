"""Quality as files: a table of the volumes of an image, the numbers of an image, and the table of all images."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bidsfit import __version__
from bidsfit.bids.files import whole_file, write_json
from bidsfit.bids.left_out import FIELD
from bidsfit.bids.metadata import read_sidecar
from bidsfit.bids.names import parse_name
from bidsfit.exceptions import UnusableInputError

#: What stands for a value that is not there (BIDS).
NOT_AVAILABLE = "n/a"

#: End of the name of a file with the numbers of one image.
ENDING = "_desc-quality_dwi.json"
TABLE = "group_dwi.tsv"


class Column(NamedTuple):
    """What a column of a table holds."""

    title: str
    description: str
    units: str = ""


TRANSLATION = "Of the volume against the reference; of organs that were deformed, the mean displacement"

#: Columns of the table of volumes.
VOLUMES: Mapping[str, Column] = {
    "volume": Column("Volume", "Number in the image as it was given, counted from 0; what was left out has no row"),
    "b_value": Column("b-value", "As acquired", "s/mm^2"),
    "trans_x": Column("Translation along x", TRANSLATION, "mm"),
    "trans_y": Column("Translation along y", TRANSLATION, "mm"),
    "trans_z": Column("Translation along z", TRANSLATION, "mm"),
    "rot_x": Column("Rotation about x", "Of the volume against the reference", "rad"),
    "rot_y": Column("Rotation about y", "Of the volume against the reference", "rad"),
    "rot_z": Column("Rotation about z", "Of the volume against the reference", "rad"),
    "framewise_displacement": Column(
        "Framewise displacement",
        "Movement from the volume before: sum of the changes of translations, and of rotations on a sphere of 50 mm "
        "(of the size of the mask where that is smaller)",
        "mm",
    ),
    "std_dvars": Column(
        "Standardised DVARS",
        "Root mean square difference from the median image of the shell inside the mask, divided by the median of the "
        "shell: 1 is typical",
    ),
    "outlier_fraction": Column(
        "Share of outlier slices",
        "Slices whose mean signal lies 4 standard deviations or more below what their shell predicts",
    ),
    "is_outlier": Column(
        "Outlier",
        "1 where a tenth of the slices or more have lost signal, or the difference from the shell is unusually large",
    ),
}

#: Columns of the table of images, beyond who and what.
IMAGES: Mapping[str, Column] = {
    "fd_mean": Column("Mean framewise displacement", "Mean movement from one volume to the next", "mm"),
    "fd_max": Column("Largest framewise displacement", "Largest movement from one volume to the next", "mm"),
    "n_outlier_volumes": Column("Outlier volumes", "Volumes that differ from the others of their shell"),
    "outlier_slices": Column("Share of outlier slices", "Slices that have lost signal, over all volumes"),
    "dvars_max": Column("Largest standardised DVARS", "Largest difference of a volume from its shell; 1 is typical"),
    "ndc": Column(
        "Neighbouring DWI correlation", "Mean correlation of each diffusion-weighted volume with the closest in q-space"
    ),
    "snr_lowest": Column("SNR at the lowest b-value", "Mean signal over the noise of one volume, inside the mask"),
    "snr_highest": Column("SNR at the highest b-value", "Mean signal over the noise of one volume, inside the mask"),
    "b_lowest": Column("Lowest b-value", "Of the shells", "s/mm^2"),
    "b_highest": Column("Highest b-value", "Of the shells", "s/mm^2"),
    "n_volumes": Column("Volumes", "Of the image, without those that were left out"),
    "n_left_out": Column("Volumes left out", "No diffusion images of their b-value: empty ones, maps, other scans"),
    "n_voxels": Column("Voxels", "Of the mask"),
}

WHO: Mapping[str, Column] = {
    "participant_id": Column("Participant", "Label, with sub-"),
    "session_id": Column("Session", "Label, with ses-"),
    "image": Column("Image", "Name of the image, without its extension"),
}


def write_confounds(
    path: Path, columns: Mapping[str, Sequence[Any] | NDArray], left_out: Sequence[Mapping[str, Any]] = ()
) -> Path:
    """Write the table of volumes, one a row, with a JSON file that says what each column is.

    Parameters
    ----------
    path : Path
        ``.tsv``.
    columns : mapping of str to sequence or array
        Of equal lengths, under the names of `VOLUMES`.
    left_out : sequence of mapping
        Volumes that have no row, as `bidsfit.bids.left_out.left_out` describes them.
    """
    rows = zip(*(_plain(values) for values in columns.values()), strict=True)
    _write_table(path, list(columns), rows)
    described = _described({name: VOLUMES[name] for name in columns})
    write_json(path.with_suffix(".json"), described | ({FIELD: list(left_out)} if left_out else {}))
    return path


def write_quality(path: Path, numbers: Mapping[str, Any]) -> Path:
    """Write the numbers of one image, whose file name ends with `ENDING`."""
    write_json(path, {**numbers, "GeneratedBy": [{"Name": "bidsfit", "Version": __version__}]})
    return path


def quality_row(path: Path) -> dict[str, Any]:
    """Row of the table of images, from the numbers of one; None where a number is not known.

    Raises
    ------
    UnusableInputError
        Where the file cannot be read.
    """
    content = read_sidecar(path)
    name = path.name.removesuffix(ENDING)
    entities = parse_name(path.name).entities
    session = f"ses-{entities['ses']}" if "ses" in entities else None
    who = {"participant_id": f"sub-{entities.get('sub', '')}", "session_id": session, "image": f"{name}_dwi"}
    numbers = {key: content.get(key) for key in IMAGES}
    for key, value in numbers.items():
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
            raise UnusableInputError(
                f"{path} holds {value!r} under {key!r} where a number was expected. Remove it, and run the participant "
                "again."
            )
    return who | numbers


def write_group_table(output_dir: Path) -> Path:
    """Gather the numbers of all images of an output folder: ``group_dwi.tsv``, one image a row, and its JSON file.

    Images are read one at a time, in the order of their names; a table that is there is replaced.

    Raises
    ------
    UnusableInputError
        Where there is no image with numbers, or one cannot be read.
    """
    output_dir = Path(output_dir)
    found = sorted(
        path for pattern in ("sub-*/dwi", "sub-*/ses-*/dwi") for path in output_dir.glob(f"{pattern}/*{ENDING}")
    )
    if not found:
        raise UnusableInputError(
            f"{output_dir} holds no quality of images (sub-*/dwi/*{ENDING}). Run the participant level first."
        )
    path = output_dir / TABLE
    _write_table(path, [*WHO, *IMAGES], (list(quality_row(file).values()) for file in found))
    write_json(path.with_suffix(".json"), _described({**WHO, **IMAGES}))
    return path


def read_group_table(path: Path) -> list[dict[str, Any]]:
    """Rows of the table of images; numbers as floats, None where there is none."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file, delimiter="\t"))
        return [{key: _read(key, value) for key, value in row.items()} for row in rows]
    except (OSError, UnicodeDecodeError, csv.Error, ValueError) as error:
        raise UnusableInputError(f"{path} cannot be read as a table of images: {error}. Make it again.") from error


def _read(key: str, value: str) -> str | float | None:
    if value == NOT_AVAILABLE:
        return None
    return float(value) if key in IMAGES else value


def _write_table(path: Path, columns: Sequence[str], rows: Iterator[Any]) -> None:
    """One row at a time, so that long tables need no memory."""
    with whole_file(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter="\t", lineterminator="\n")
        writer.writerow(columns)
        writer.writerows([_cell(value) for value in row] for row in rows)


def _plain(values: Sequence[Any] | NDArray) -> list[Any]:
    """Python numbers from a sequence or an array."""
    return list(values.tolist()) if isinstance(values, np.ndarray) else list(values)


def _cell(value: Any) -> str:
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return NOT_AVAILABLE
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _described(columns: Mapping[str, Column]) -> dict[str, dict[str, str]]:
    """What a JSON file says of the columns of its table."""
    return {
        name: {"LongName": column.title, "Description": column.description}
        | ({"Units": column.units} if column.units else {})
        for name, column in columns.items()
    }
