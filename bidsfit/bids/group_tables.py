"""The tables of the group level: what their columns are, declared once, and writing and reading them."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

from bidsfit import __version__
from bidsfit.bids.files import whole_file, write_json
from bidsfit.bids.region_values import NUMERICS, RegionValues
from bidsfit.bids.units import FILE_UNITS
from bidsfit.exceptions import UnusableInputError

#: What stands for a value that is not there (BIDS).
NOT_AVAILABLE = "n/a"

#: Numbers with so many digits are read as the same single-precision numbers.
DIGITS = 9

#: What a column holds: words, whole numbers, numbers, numbers in the unit of the row's parameter, yes (1) or no (0).
Kind = Literal["words", "count", "number", "parameter", "flag"]

ROIS, REPEATABILITY_TABLE, RESPONSE_TABLE = "group_rois.tsv", "group_repeatability.tsv", "group_response.tsv"


@dataclass(frozen=True)
class Column:
    """What a column of a table holds.

    Attributes
    ----------
    title, description : str
    kind : Kind
    units : str
        Empty where there are none; those of a column of kind "parameter" are in the column ``units``.
    prefix : str
        Written before words, and taken off when they are read: "sub-".
    """

    title: str
    description: str
    kind: Kind = "number"
    units: str = ""
    prefix: str = ""


def interval(name: str, title: str, description: str, kind: Kind = "number", units: str = "") -> dict[str, Column]:
    """Columns of an estimate and its confidence limits: ``name``, ``name_lower`` and ``name_upper``."""
    limit = f"{title}, {{}} confidence limit"
    return {
        name: Column(title, description, kind, units),
        f"{name}_lower": Column(limit.format("lower"), "Of the 95 % interval", kind, units),
        f"{name}_upper": Column(limit.format("upper"), "Of the 95 % interval", kind, units),
    }


#: Which parameter of which fit in which region.
WHAT: Mapping[str, Column] = {
    "model": Column("Signal model", "Name", "words"),
    "estimator": Column("Estimator", "Name", "words"),
    "region": Column("Region", "Name; whole: all voxels of the mask that was fitted", "words"),
    "parameter": Column("Parameter", "Label, as in the names of maps", "words"),
    "unit": Column("Units", "Of all columns that are in the units of the parameter", "words"),
}

#: Which images are compared, where a session has several.
SERIES = Column(
    "Images", "Entities that all images compared share, beside participant and session; often none", "words"
)

ROI_COLUMNS: Mapping[str, Column] = {
    "participant": Column("Participant", "Label, with sub-", "words", prefix="sub-"),
    "session": Column("Session", "Label, with ses-; n/a where the image names none", "words", prefix="ses-"),
    "image": Column("Image", "Entities of the image", "words"),
    **WHAT,
    "n_voxels": Column("Voxels", "Of the region", "count"),
    "n_fitted": Column("Fitted voxels", "Voxels of the region with an estimate that counts", "count"),
    "n_used": Column(
        "Voxels used", "Fitted voxels whose values are summarised; of Dstar those where f is 0.05 or more", "count"
    ),
    "n_at_bound": Column("Voxels at a bound", "Voxels used whose fit ended with this parameter at a bound", "count"),
    "n_prior_only": Column(
        "Voxels at the prior", "Voxels used of which the data say no more of a parameter than its prior", "count"
    ),
    "n_unlike_training": Column(
        "Voxels unlike the training",
        "Voxels used whose signals are unlike all of the estimator's training",
        "count",
    ),
    "median": Column("Median", "Over the voxels used", "parameter"),
    "mean": Column("Mean", "Over the voxels used", "parameter"),
    "sd": Column("Standard deviation", "Over the voxels used, with n - 1", "parameter"),
    "q05": Column("5 % quantile", "Over the voxels used", "parameter"),
    "q25": Column("25 % quantile", "Over the voxels used", "parameter"),
    "q75": Column("75 % quantile", "Over the voxels used", "parameter"),
    "q95": Column("95 % quantile", "Over the voxels used", "parameter"),
    "correlation": Column(
        "Correlation with f", "Of Dstar: Spearman's rank correlation with f over the voxels used", "number"
    ),
    "source": Column("Region file", "BIDS URI of the file of the region", "words"),
    "in_training": Column("In the training", "1 where the estimator was trained on fits of this participant", "flag"),
}

REPEATABILITY_COLUMNS: Mapping[str, Column] = {
    **WHAT,
    "series": SERIES,
    "statistic": Column("Statistic", "Over the voxels of a region: what is compared, such as median", "words"),
    "n_participants": Column("Participants", "With two values or more", "count"),
    "n_left_out": Column("Participants left out", "With fewer than two values", "count"),
    "n_scans": Column("Scans", "Of all participants", "count"),
    "freedom": Column("Degrees of freedom", "Of the within-subject standard deviation", "count"),
    "mean": Column("Mean", "Of the participants' means", "parameter"),
    **interval(
        "within_subject_sd",
        "Within-subject standard deviation (wSD)",
        "Root of the mean within-subject variance",
        "parameter",
    ),
    "unbiased_within_subject_sd": Column(
        "Unbiased within-subject standard deviation", "The same without the small-sample bias of a root", "parameter"
    ),
    **interval(
        "repeatability_coefficient", "Repeatability coefficient", "1.96 times the root of 2 times wSD", "parameter"
    ),
    "limit_normal": Column(
        "Limit of change, 1.96", "1.96 times the root of 2 times wSD, as if wSD were known", "parameter"
    ),
    "limit_normal_rate": Column(
        "False positive rate, 1.96", "Share of unchanged participants outside plus or minus limit_normal"
    ),
    "limit_student": Column(
        "Limit of change, Student's t",
        "The same with the quantile of Student's t in place of 1.96, which allows for the estimate of wSD",
        "parameter",
    ),
    "limit_student_rate": Column(
        "False positive rate, Student's t", "Share of unchanged participants outside plus or minus limit_student"
    ),
    **interval(
        "within_subject_cv",
        "Within-subject coefficient of variation",
        "Root mean square of the participants' coefficients of variation, as a fraction",
    ),
    "between_subject_sd": Column(
        "Between-subject standard deviation", "0 where participants differ no more than their scans do", "parameter"
    ),
    "icc_form": Column("Form of the intraclass correlation", "After McGraw and Wong", "words"),
    **interval("icc", "Intraclass correlation", "Share of the variance that lies between participants"),
    **interval("session_difference", "Difference between sessions", "Last session minus first", "parameter"),
    "session_p_value": Column("p of the sessions", "That sessions differ systematically"),
    "scatter_tau": Column(
        "Kendall's tau of the scatter", "Rank correlation of a participant's standard deviation with the mean"
    ),
    "scatter_p_value": Column("p of the scatter", "That the scatter depends on the mean"),
    "warnings": Column("Warnings", "What a reader must know, in words", "words"),
}

RESPONSE_COLUMNS: Mapping[str, Column] = {
    **WHAT,
    "series": SERIES,
    "statistic": Column("Statistic", "Over the voxels of a region: what is compared, such as median", "words"),
    "n_participants": Column("Treated participants", "With both values", "count"),
    "n_left_out": Column("Participants left out", "Treated, with fewer than two values", "count"),
    "mean_before": Column("Mean before", "Of the participants", "parameter"),
    "mean_after": Column("Mean after", "Of the participants", "parameter"),
    **interval("mean_change", "Mean change", "After minus before", "parameter"),
    "median_change": Column("Median change", "After minus before", "parameter"),
    "n_untreated": Column("Untreated participants", "With repeated scans, who were not treated", "count"),
    **interval("untreated_change", "Mean change of the untreated", "Last session minus first", "parameter"),
    "untreated_p_value": Column("p of the untreated", "Paired t-test of their change, two-sided"),
    **interval(
        "change_difference",
        "Difference in change",
        "Mean change of the treated minus that of the untreated",
        "parameter",
    ),
    "change_difference_p_value": Column("p of the difference in change", "Welch's t-test, two-sided, not corrected"),
    **interval("percent_change", "Mean change over the mean before", "After minus before", units="%"),
    "t": Column("t", "Of the paired t-test"),
    "freedom": Column("Degrees of freedom", "Of the paired t-test", "count"),
    "p_value": Column("p", "Of the paired t-test, two-sided"),
    "adjusted_p_value": Column("Corrected p", "The same, corrected as the column correction says"),
    "wilcoxon": Column("W", "Of Wilcoxon's signed rank test"),
    "wilcoxon_p_value": Column("p of Wilcoxon's test", "Two-sided"),
    "adjusted_wilcoxon_p_value": Column("Corrected p of Wilcoxon's test", "As the column correction says"),
    "correction": Column("Correction", "For the number of parameters and regions: its name", "words"),
    **interval("cohen", "Cohen's d", "Mean change over the standard deviation of the changes"),
    "hedges": Column("Hedges' g", "Cohen's d without its small-sample bias"),
    "n_increased_student": Column("Increased, Student's t", "Participants above limit_student", "count"),
    "n_decreased_student": Column("Decreased, Student's t", "Participants below minus limit_student", "count"),
    "n_increased_normal": Column("Increased, 1.96", "Participants above limit_normal", "count"),
    "n_decreased_normal": Column("Decreased, 1.96", "Participants below minus limit_normal", "count"),
    "limit_student": Column(
        "Limit of change, Student's t", "From the repeated scans; see group_repeatability.tsv", "parameter"
    ),
    "limit_normal": Column(
        "Limit of change, 1.96", "From the repeated scans; see group_repeatability.tsv", "parameter"
    ),
    "changed": Column("Changed participants", "Those outside limit_student, with sub-", "words"),
}


def write_table(
    path: Path,
    columns: Mapping[str, Column],
    rows: Iterable[Mapping[str, Any]],
    *,
    description: str = "",
    about: Mapping[str, Any] | None = None,
) -> Path:
    """Write a table and the JSON file that says what its columns are, each whole or not at all.

    Rows are written as they come, so that a long table needs no memory.

    Parameters
    ----------
    path : Path
        ``.tsv``.
    columns : mapping of str to Column
        All are written. The column ``unit``, where there is one, holds units of the numerics in rows; columns of kind
        "parameter" are converted, and both are written in the units of files.
    rows : iterable of mapping
        What a row lacks, None and NaN become n/a.
    description : str
        Of the table.
    about : mapping, optional
        More for the JSON file, such as ``Sources``.

    Raises
    ------
    ValueError
        Where a row has a key that is no column.
    """
    with whole_file(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter="\t", lineterminator="\n")
        writer.writerow(map(_head, columns))
        for row in rows:
            if unknown := row.keys() - columns.keys():
                raise ValueError(f"{path.name} has no column {', '.join(sorted(unknown))}.")
            factor = FILE_UNITS[row["unit"]].factor if "unit" in columns else 1.0
            writer.writerow(_cell(row.get(name), column, factor, name) for name, column in columns.items())
    write_json(
        path.with_suffix(".json"),
        {
            **({"Description": description} if description else {}),
            **{_head(name): _described(column) for name, column in columns.items()},
            **(about or {}),
            "GeneratedBy": [{"Name": "bidsfit", "Version": __version__}],
        },
    )
    return path


def read_table(path: Path, columns: Mapping[str, Column]) -> Iterator[dict[str, Any]]:
    """Rows of a table that `write_table` wrote, one at a time: numbers in the units of the numerics, NaN for n/a.

    Raises
    ------
    UnusableInputError
        Where it cannot be read, or has other columns.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, delimiter="\t")
            expected = [_head(name) for name in columns]
            if list(reader.fieldnames or ()) != expected:
                missing = [name for name in expected if name not in (reader.fieldnames or ())]
                raise ValueError(f"its columns are not those expected; missing: {', '.join(missing) or 'none'}")
            for cells in reader:
                factor = NUMERICS[cells["units"]][1] if "unit" in columns else 1.0
                yield {name: _value(cells[_head(name)], column, factor, name) for name, column in columns.items()}
    except (OSError, UnicodeDecodeError, csv.Error, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UnusableInputError(
            f"{path} cannot be read as a table of the group level: {error}. Run the group level again."
        ) from error


def write_rois(folder: Path, rows: Iterable[RegionValues], about: Mapping[str, Any] | None = None) -> Path:
    """Write ``group_rois.tsv`` of an output folder, in the order of the rows."""
    names = [one.name for one in fields(RegionValues)]
    return write_table(
        folder / ROIS,
        ROI_COLUMNS,
        ({name: getattr(row, name) for name in names} for row in rows),
        description="Values of parameter maps in regions: one row for each participant, session, image, model, "
        "estimator, region and parameter.",
        about=about,
    )


def read_rois(path: Path) -> Iterator[RegionValues]:
    """Rows of a ``group_rois.tsv``, one at a time."""
    for row in read_table(path, ROI_COLUMNS):
        yield RegionValues(**row)


def _head(name: str) -> str:
    """A column's name in the file: those of BIDS, where it has some."""
    return {"participant": "participant_id", "session": "session_id", "unit": "units"}.get(name, name)


def _cell(value: Any, column: Column, factor: float, name: str) -> str:
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
    return f"{value * (factor if column.kind == 'parameter' else 1.0):.{DIGITS}g}"


def _value(cell: str, column: Column, factor: float, name: str) -> Any:
    if name == "unit":
        return NUMERICS[cell][0]
    if column.kind == "words":
        return "" if cell == NOT_AVAILABLE else cell.removeprefix(column.prefix)
    if cell == NOT_AVAILABLE:
        return None if column.kind in ("count", "flag") else math.nan
    if column.kind in ("count", "flag"):
        return int(cell) if column.kind == "count" else cell == "1"
    return float(cell) / (factor if column.kind == "parameter" else 1.0)


def _described(column: Column) -> dict[str, str]:
    """What the JSON file says of a column."""
    units = "as in the column units" if column.kind == "parameter" else column.units
    return {"LongName": column.title, "Description": column.description} | ({"Units": units} if units else {})
