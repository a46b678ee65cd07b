"""Columns and rows of the group-level tables."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from bidsfit.bids.tables import WHAT, WHO, TableColumn, write_table
from bidsfit.cohort.region_values import RegionValues
from bidsfit.cohort.values import RegionParameter
from bidsfit.reports.group_numbers import Table, numbers_of
from bidsfit.reports.group_records import EstimatorRecord
from bidsfit.statistics.multiplicity import Correction

ROIS, REPEATABILITY_TABLE, RESPONSE_TABLE = "group_rois.tsv", "group_repeatability.tsv", "group_response.tsv"


#: Which images are compared, where a session has several.
SERIES = TableColumn(
    "Images", "Entities that all images compared share, beside participant and session; often none", "words"
)

ROI_COLUMNS: Mapping[str, TableColumn] = {
    **WHO,
    "image": TableColumn("Image", "Entities of the image", "words"),
    **WHAT,
    "n_voxels": TableColumn("Voxels", "Of the region", "count"),
    "n_fitted": TableColumn("Fitted voxels", "Voxels of the region with an estimate that counts", "count"),
    "n_used": TableColumn(
        "Voxels used", "Fitted voxels whose values are summarised; of Dstar those where f is 0.05 or more", "count"
    ),
    "n_at_bound": TableColumn(
        "Voxels at a bound", "Voxels used whose fit ended with this parameter at a bound", "count"
    ),
    "n_prior_only": TableColumn(
        "Voxels at the prior", "Voxels used of which the data say no more of a parameter than its prior", "count"
    ),
    "n_unlike_training": TableColumn(
        "Voxels unlike the training",
        "Voxels used whose signals are unlike all of the estimator's training",
        "count",
    ),
    "n_undetermined": TableColumn(
        "Voxels not determined", "Voxels used in which the data do not determine some parameter", "count"
    ),
    "median": TableColumn("Median", "Over the voxels used", "parameter"),
    "mean": TableColumn("Mean", "Over the voxels used", "parameter"),
    "sd": TableColumn("Standard deviation", "Over the voxels used, with n - 1", "parameter"),
    "q05": TableColumn("5 % quantile", "Over the voxels used", "parameter"),
    "q25": TableColumn("25 % quantile", "Over the voxels used", "parameter"),
    "q75": TableColumn("75 % quantile", "Over the voxels used", "parameter"),
    "q95": TableColumn("95 % quantile", "Over the voxels used", "parameter"),
    "correlation": TableColumn(
        "Correlation with f", "Of Dstar: Spearman's rank correlation with f over the voxels used", "number"
    ),
    "response": TableColumn(
        "Response",
        "Change of the mean estimate per true change, by simulation of the estimator: median over the voxels used; n/a "
        "where the fit has no such map. Values are as measured, not corrected for it",
        "number",
    ),
    "expected_bias": TableColumn(
        "Expected bias",
        "By simulation of the estimator: median over the voxels used; n/a where the fit has no such map. Values are as "
        "measured, not corrected for it",
        "parameter",
    ),
    "source": TableColumn("Region file", "BIDS URI of the file of the region", "words"),
    "in_training": TableColumn(
        "In the training", "1 where the estimator was trained on fits of this participant", "flag"
    ),
}

#: The first columns of the tables of statistics.
HEAD: Mapping[str, TableColumn] = {
    **WHAT,
    "series": SERIES,
    "statistic": TableColumn("Statistic", "Over the voxels of a region: what is compared, such as median", "words"),
}


def repeatability_columns() -> dict[str, TableColumn]:
    """Columns of ``group_repeatability.tsv``."""
    columns = (number.columns for number in numbers_of("repeatability"))
    return {
        **HEAD,
        **{name: column for own in columns for name, column in own.items()},
        "warnings": TableColumn("Warnings", "What a reader must know, in words", "words"),
    }


def response_columns() -> dict[str, TableColumn]:
    """Columns of ``group_response.tsv``."""
    columns = (number.columns for number in numbers_of("response"))
    correction = TableColumn("Correction", "For the number of parameters and regions: its name", "words")
    return {**HEAD, "correction": correction, **{name: column for own in columns for name, column in own.items()}}


def write_rois(folder: Path, rows: Iterable[RegionValues], about: Mapping[str, Any] | None = None) -> Path:
    """Write ``group_rois.tsv`` to an output folder."""
    return write_table(
        folder / ROIS,
        ROI_COLUMNS,
        ({name: getattr(row, name) for name in ROI_COLUMNS} for row in rows),
        description="Values of parameter maps in regions: one row for each participant, session, image, model, "
        "estimator, region and parameter.",
        about=about,
    )


def repeatability_rows(found: Mapping[RegionParameter, EstimatorRecord], statistic: str) -> Iterator[dict[str, Any]]:
    """Rows of ``group_repeatability.tsv`` in internal units, without those that could not be estimated."""
    for what, record in found.items():
        if record.repeatability is None:
            continue
        warnings = (*record.warnings, *record.repeatability.warnings, *record.remarks)
        yield {
            **what._asdict(),
            "statistic": statistic,
            **_cells(record, "repeatability"),
            "warnings": " ".join(warnings),
        }


def response_rows(
    found: Mapping[RegionParameter, EstimatorRecord], statistic: str, correction: Correction
) -> Iterator[dict[str, Any]]:
    """Rows of ``group_response.tsv``; a single treated participant has calls but no test."""
    for what, record in found.items():
        if record.response is None and not record.calls:
            continue
        corrected = {} if record.response is None else {"correction": correction}
        yield {**what._asdict(), "statistic": statistic, **corrected, **_cells(record, "response")}


def _cells(record: EstimatorRecord, table: Table) -> dict[str, Any]:
    return {name: cell for number in numbers_of(table) for name, cell in number.cells(record).items()}
