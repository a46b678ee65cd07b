"""The tables of the group level: units, missing values, descriptions, and reading them again."""

import json
import math
from dataclasses import replace

import pytest

from bidsfit.bids.group_tables import (
    REPEATABILITY_COLUMNS,
    RESPONSE_COLUMNS,
    ROI_COLUMNS,
    Column,
    read_rois,
    read_table,
    write_rois,
    write_table,
)
from bidsfit.bids.region_values import RegionValues
from bidsfit.exceptions import UnusableInputError

ROW = RegionValues(
    "01", "1", "sub-01_ses-1_acq-ap", "ivim", "net-uniform", "Pancreas head", "D", "um^2/ms", 90, 80, 70, 6, 5, 4,
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


def test_and_read_again(tmp_path):
    rows = [ROW, replace(ROW, session="", in_training=False, q05=1 / 3), replace(ROW, unit="1", parameter="f")]
    found = list(read_rois(write_rois(tmp_path, iter(rows))))
    assert found[1].q05 == pytest.approx(1 / 3, rel=1e-8)
    assert [repr(replace(row, q05=0.1)) for row in found] == [repr(replace(row, q05=0.1)) for row in rows]


def test_every_column_is_described(tmp_path):
    content = json.loads(write_rois(tmp_path, [ROW], {"Sources": ["a"]}).with_suffix(".json").read_text())
    (row,) = cells(tmp_path / "group_rois.tsv")
    assert set(row) <= set(content)
    assert content["median"]["Units"] == "as in the column units"
    assert content["Sources"] == ["a"]
    for columns in (ROI_COLUMNS, REPEATABILITY_COLUMNS, RESPONSE_COLUMNS):
        assert all(column.title and column.description for column in columns.values())


def test_rows_may_lack_columns_but_not_have_others(tmp_path):
    what = {
        "model": "ivim",
        "unit": "um^2/ms",
        "within_subject_sd": 2.0,
        "within_subject_cv": 0.1,
        "warnings": "a\tb\nc",
    }
    path = write_table(tmp_path / "t.tsv", REPEATABILITY_COLUMNS, [what])
    (row,) = cells(path)
    assert (row["within_subject_sd"], row["within_subject_cv"], row["warnings"]) == ("0.002", "0.1", "a b c")
    assert row["icc"] == "n/a"
    (again,) = read_table(path, REPEATABILITY_COLUMNS)
    assert again["within_subject_sd"] == pytest.approx(2)
    assert math.isnan(again["icc"])
    with pytest.raises(ValueError, match="has no column wsd"):
        write_table(tmp_path / "u.tsv", REPEATABILITY_COLUMNS, [{**what, "wsd": 1}])
    assert not list(tmp_path.glob("*u.tsv*"))  # nothing half written


def test_infinite_limits_stay_infinite(tmp_path):
    columns = {"upper": Column("Upper", "Limit")}
    path = write_table(tmp_path / "t.tsv", columns, [{"upper": math.inf}])
    assert [row["upper"] for row in read_table(path, columns)] == [math.inf]


@pytest.mark.parametrize("text", [None, "a\tb\n1\t2\n", "\x00"])
def test_another_table_is_refused(tmp_path, text):
    path = tmp_path / "group_rois.tsv"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UnusableInputError, match="cannot be read as a table of the group level"):
        list(read_rois(path))


def test_a_damaged_row_is_refused(tmp_path):
    path = write_rois(tmp_path, [ROW])
    path.write_text(path.read_text().replace("\t70\t", "\tseventy\t"))
    with pytest.raises(UnusableInputError, match="seventy"):
        list(read_rois(path))
