"""The tables of the group level: units, missing values and descriptions."""

import json
import math
from dataclasses import replace

import pytest

from bidsfit.bids.tables import TableColumn, write_table
from bidsfit.cohort.region_values import RegionValues
from bidsfit.cohort.tables import (
    ROI_COLUMNS,
    repeatability_columns,
    response_columns,
    write_rois,
)

ROW = RegionValues(
    "01", "1", "sub-01_ses-1_acq-ap", "ivim", "net-uniform", "Pancreas head", "D", "um^2/ms", 90, 80, 70, 6, 5, 4, 3,
    1.25, 1.5, 0.5, 0.1, 1.0, 2.0, 2.5, math.nan, "bids:rois:sub-01/dwi/x_mask.nii.gz", True,
)  # fmt: skip


def cells(path):
    head, *rows = [line.split("\t") for line in path.read_text().splitlines()]
    return [dict(zip(head, row, strict=True)) for row in rows]


def test_regions_are_written_in_the_units_of_files(tmp_path):
    path = write_rois(tmp_path, [ROW, replace(ROW, session="", parameter="f", unit="1", median=math.nan, source="")])
    first, second = cells(path)
    assert path.name == "group_rois.tsv"
    assert (first["participant_id"], first["session_id"], first["units"]) == ("sub-01", "ses-1", "mm^2/s")
    assert (first["median"], first["n_used"], first["correlation"], first["in_training"]) == (
        "0.00125",
        "70",
        "n/a",
        "1",
    )
    assert (second["session_id"], second["median"], second["mean"], second["source"]) == ("n/a", "n/a", "1.5", "n/a")


def test_every_column_is_described(tmp_path):
    content = json.loads(write_rois(tmp_path, [ROW], {"Sources": ["a"]}).with_suffix(".json").read_text())
    (row,) = cells(tmp_path / "group_rois.tsv")
    assert set(row) <= set(content)
    assert content["median"]["Units"] == "as in the column units"
    assert content["Sources"] == ["a"]
    for columns in (ROI_COLUMNS, repeatability_columns(), response_columns()):
        assert all(column.title and column.description for column in columns.values())


def test_rows_may_lack_columns_but_not_have_others(tmp_path):
    what = {
        "model": "ivim",
        "unit": "um^2/ms",
        "within_subject_sd": 2.0,
        "within_subject_cv": 0.1,
        "warnings": "a\tb\nc",
    }
    path = write_table(tmp_path / "t.tsv", repeatability_columns(), [what])
    (row,) = cells(path)
    assert (row["within_subject_sd"], row["within_subject_cv"], row["warnings"]) == ("0.002", "0.1", "a b c")
    assert row["icc"] == "n/a"
    with pytest.raises(ValueError, match="has no column wsd"):
        write_table(tmp_path / "u.tsv", repeatability_columns(), [{**what, "wsd": 1}])
    assert not list(tmp_path.glob("*u.tsv*"))  # nothing half written


def test_infinite_limits_stay_infinite(tmp_path):
    columns = {"upper": TableColumn("Upper", "Limit")}
    path = write_table(tmp_path / "t.tsv", columns, [{"upper": math.inf}])
    assert cells(path) == [{"upper": "inf"}]
