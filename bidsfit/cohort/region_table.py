"""The table of the regions of one fit: a row for every region, columns for every parameter."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from bidsfit.bids.regions import CONDITIONS
from bidsfit.bids.tables import TableColumn, write_table
from bidsfit.bids.units import FILE_UNITS
from bidsfit.cohort.region_values import RegionValues
from bidsfit.models.parameter import ModelQuantity

#: Columns of a region.
REGION: Mapping[str, TableColumn] = {
    "index": TableColumn("Number", "Of the region in the segmentation", "count"),
    "name": TableColumn("Name", "Of the region", "words"),
    "n_voxels": TableColumn("Voxels", "Of the region on the grid of the image, in and out of the mask", "count"),
    "missing": TableColumn(
        "Missing",
        "Share of these without an estimate that counts: outside the mask, or not fitted (see the status map)",
    ),
    "flagged": TableColumn(
        "Flagged", "Share of the voxels with an estimate of which the map of flags gives a reason to doubt it"
    ),
}

#: Columns of a parameter, each with the field of `RegionValues` that it holds, and whether it has the parameter's unit.
OF_PARAMETER: Mapping[str, tuple[str, TableColumn, bool]] = {
    "n": ("n_used", TableColumn("Voxels used", "Over which {what} is summarised", "count"), False),
    "mean": ("mean", TableColumn("Mean", "Of {what} over the voxels used"), True),
    "sd": ("sd", TableColumn("Standard deviation", "Of {what} between the voxels used, with n - 1"), True),
    "median": ("median", TableColumn("Median", "Of {what} over the voxels used"), True),
    "se": (
        "standard_error",
        TableColumn(
            "Standard error",
            "Standard deviation of the mean over the noise, from those of the voxels (stat-sd, else stat-expectedsd). "
            "Their errors are taken for independent (correlation 0): where voxels share noise, as after resampling or "
            "smoothing, it is larger, by up to the root of the number of voxels. An infinite one counts as half the "
            "distance of the bounds, the largest that an estimate between them can have",
        ),
        True,
    ),
    "bias": (
        "mean_bias",
        TableColumn(
            "Expected bias", "Of the mean, by simulation of the estimator (mean of stat-bias); not corrected for"
        ),
        True,
    ),
    "response": (
        "mean_response",
        TableColumn(
            "Response",
            "Change of the mean estimate per true change, by simulation of the estimator (mean of stat-response)",
        ),
        False,
    ),
}


def write_region_table(
    path: Path,
    values: Iterable[RegionValues],
    names: Mapping[int, str],
    quantities: Mapping[str, ModelQuantity],
    about: Mapping[str, Any],
) -> Path:
    """Write the table of one fit and the JSON file that describes its columns.

    Parameters
    ----------
    path : Path
        ``.tsv``.
    values : iterable of RegionValues
        Of all parameters, their regions called by number.
    names : mapping of int to str
        Of every region by number, in the order of the rows.
    quantities : mapping of str to ModelQuantity
        Of the model by label, for the descriptions.
    about : mapping
        Additional content of the JSON file.
    """
    columns = dict(REGION)
    rows: dict[str, dict[str, Any]] = {str(index): {"index": index, "name": name} for index, name in names.items()}
    for value in values:
        label, unit, row = value.parameter, FILE_UNITS[value.unit], rows[value.region]
        if "flagged" not in row:  # of the first parameter, which counts in all voxels
            missing = 1 - value.n_fitted / value.n_voxels if value.n_voxels else None
            row |= {"n_voxels": value.n_voxels, "missing": missing, "flagged": value.flagged}
        for key, (field, column, has_unit) in OF_PARAMETER.items():
            found, name = getattr(value, field), f"{label}_{key}"
            row[name] = found * unit.factor if has_unit else found
            if name not in columns:
                what = f"{label} ({quantities[label].description})" if label in quantities else label
                if label in CONDITIONS:
                    what += ", where {} is {:g} or more".format(*CONDITIONS[label])
                words, units = column.description.format(what=what), unit.name if has_unit else column.units
                columns[name] = TableColumn(f"{column.title}, {label}", words, column.kind, units)
    words = "Parameters in the regions of a segmentation: a row for every region."
    return write_table(path, columns, rows.values(), description=words, about=about)
