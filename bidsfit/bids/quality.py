"""Quality measures as files: table of volumes, numbers of an image, and table of all images."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bidsfit.bids.left_out import FIELD
from bidsfit.bids.metadata import read_sidecar
from bidsfit.bids.names import parse_name
from bidsfit.bids.tables import GENERATED_BY, NOT_AVAILABLE, TableColumn, write_table
from bidsfit.exceptions import NoInputError, UnusableInputError
from bidsfit.files import write_json

#: Significant digits of its numbers.
DIGITS = 6

#: End of the name of a file with the numbers of one image.
ENDING = "_desc-quality_dwi.json"
TABLE = "group_dwi.tsv"


TRANSLATION = "Of the volume against the reference; of organs that were deformed, the mean displacement"

#: Columns of the table of volumes.
VOLUMES: Mapping[str, TableColumn] = {
    "volume": TableColumn(
        "Volume", "Number in the image as it was given, counted from 0; what was left out has no row"
    ),
    "b_value": TableColumn("b-value", "As acquired", units="s/mm^2"),
    "trans_x": TableColumn("Translation along x", TRANSLATION, units="mm"),
    "trans_y": TableColumn("Translation along y", TRANSLATION, units="mm"),
    "trans_z": TableColumn("Translation along z", TRANSLATION, units="mm"),
    "rot_x": TableColumn("Rotation about x", "Of the volume against the reference", units="rad"),
    "rot_y": TableColumn("Rotation about y", "Of the volume against the reference", units="rad"),
    "rot_z": TableColumn("Rotation about z", "Of the volume against the reference", units="rad"),
    "framewise_displacement": TableColumn(
        "Framewise displacement",
        "Movement from the volume before: sum of the changes of translations, and of rotations on a sphere of 50 mm "
        "(of the size of the mask where that is smaller)",
        units="mm",
    ),
    "std_dvars": TableColumn(
        "Standardised DVARS",
        "Root mean square difference from the median image of the shell inside the mask, divided by the median of the "
        "shell: 1 is typical",
    ),
    "outlier_fraction": TableColumn(
        "Share of outlier slices",
        "Slices whose mean signal lies 4 standard deviations or more below what their shell predicts",
    ),
    "is_outlier": TableColumn(
        "Outlier",
        "1 where a tenth of the slices or more have lost signal, or the difference from the shell is unusually large",
    ),
}

#: Columns of the table of images, beyond who and what.
IMAGES: Mapping[str, TableColumn] = {
    "fd_mean": TableColumn("Mean framewise displacement", "Mean movement from one volume to the next", units="mm"),
    "fd_max": TableColumn("Largest framewise displacement", "Largest movement from one volume to the next", units="mm"),
    "n_outlier_volumes": TableColumn("Outlier volumes", "Volumes that differ from the others of their shell"),
    "outlier_slices": TableColumn("Share of outlier slices", "Slices that have lost signal, over all volumes"),
    "dvars_max": TableColumn(
        "Largest standardised DVARS", "Largest difference of a volume from its shell; 1 is typical"
    ),
    "ndc": TableColumn(
        "Neighbouring DWI correlation", "Mean correlation of each diffusion-weighted volume with the closest in q-space"
    ),
    "snr_lowest": TableColumn("SNR at the lowest b-value", "Mean signal over the noise of one volume, inside the mask"),
    "snr_highest": TableColumn(
        "SNR at the highest b-value", "Mean signal over the noise of one volume, inside the mask"
    ),
    "b_lowest": TableColumn("Lowest b-value", "Of the shells", units="s/mm^2"),
    "b_highest": TableColumn("Highest b-value", "Of the shells", units="s/mm^2"),
    "n_volumes": TableColumn("Volumes", "Of the image, without those that were left out"),
    "n_left_out": TableColumn(
        "Volumes left out", "No diffusion images of their b-value: empty ones, maps, other scans"
    ),
    "n_voxels": TableColumn("Voxels", "Of the mask"),
}

WHO: Mapping[str, TableColumn] = {
    "participant_id": TableColumn("Participant", "Label, with sub-", "words"),
    "session_id": TableColumn("Session", "Label, with ses-", "words"),
    "image": TableColumn("Image", "Name of the image, without its extension", "words"),
}


def write_confounds(
    path: Path, columns: Mapping[str, Sequence[Any] | NDArray], left_out: Sequence[Mapping[str, Any]] = ()
) -> Path:
    """Write the table of volumes (.tsv), one per row, with a JSON file that describes the columns.

    ``columns`` of equal length are named as in `VOLUMES`; ``left_out`` are volumes without a row, as of
    `bidsfit.bids.left_out.left_out`.
    """
    lists = [values.tolist() if isinstance(values, np.ndarray) else values for values in columns.values()]
    rows = ({name: _known(value) for name, value in zip(columns, row, strict=True)} for row in zip(*lists, strict=True))
    about = {FIELD: list(left_out)} if left_out else {}
    return write_table(path, {name: VOLUMES[name] for name in columns}, rows, about=about, digits=DIGITS)


def write_quality(path: Path, numbers: Mapping[str, Any]) -> Path:
    """Write the numbers of one image, whose file name ends with `ENDING`."""
    write_json(path, {**numbers, "GeneratedBy": GENERATED_BY})
    return path


def quality_row(path: Path) -> dict[str, Any]:
    """Row of the table of images, from the numbers of one; None if unknown.

    Raises
    ------
    UnusableInputError
        If the file cannot be read.
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
    """Collect the numbers of all images of an output folder in ``group_dwi.tsv``, with its JSON file.

    Images are sorted by name and read one at a time; an existing table is replaced.

    Raises
    ------
    UnusableInputError
        If there is no image with numbers, or one cannot be read.
    """
    output_dir = Path(output_dir)
    found = sorted(
        path for pattern in ("sub-*/dwi", "sub-*/ses-*/dwi") for path in output_dir.glob(f"{pattern}/*{ENDING}")
    )
    if not found:
        raise NoInputError(
            f"{output_dir} holds no quality of images (sub-*/dwi/*{ENDING}). Run the participant level first."
        )
    rows = ({name: _known(value) for name, value in quality_row(file).items()} for file in found)
    return write_table(output_dir / TABLE, {**WHO, **IMAGES}, rows, digits=DIGITS)


def _known(value: Any) -> Any:
    """A value of a table; None for NaN and infinity."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def read_group_table(path: Path) -> list[dict[str, Any]]:
    """Rows of the table of images; numbers as floats, None if missing."""
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
