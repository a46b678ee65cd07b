from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bidsfit.bids.quality import (
    IMAGES,
    VOLUMES,
    quality_row,
    read_group_table,
    write_confounds,
    write_group_table,
    write_quality,
)
from bidsfit.exceptions import UnusableInputError
from bidsfit.preprocessing.quality import assess

NUMBERS: dict[str, Any] = {
    "n_volumes": 103,
    "n_voxels": 8865,
    "fd_mean": 0.171666,
    "fd_max": None,
    "ndc": 0.95,
    "shells": [{"b_value": 0, "n_volumes": 13, "snr": 32.8}],
}


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file, delimiter="\t"))


def test_one_row_an_image_in_the_order_of_names(tmp_path: Path) -> None:
    names = ["sub-02/dwi/sub-02_acq-low", "sub-01/ses-b/dwi/sub-01_ses-b", "sub-01/ses-a/dwi/sub-01_ses-a_run-1"]
    for i, name in enumerate(names):
        write_quality(tmp_path / f"{name}_desc-quality_dwi.json", NUMBERS | {"n_volumes": 100 + i})
    (tmp_path / "sub-01/ses-a/dwi/sub-01_ses-a_model-ivim_param-D_dwimap.json").write_text("{}")
    path = write_group_table(tmp_path)
    assert path == tmp_path / "group_dwi.tsv"
    rows = table(path)
    assert [(r["participant_id"], r["session_id"], r["image"], r["n_volumes"]) for r in rows] == [
        ("sub-01", "ses-a", "sub-01_ses-a_run-1_dwi", "102"),
        ("sub-01", "ses-b", "sub-01_ses-b_dwi", "101"),
        ("sub-02", "n/a", "sub-02_acq-low_dwi", "100"),
    ]
    assert rows[0]["fd_mean"] == "0.171666"
    assert rows[0]["fd_max"] == rows[0]["snr_lowest"] == "n/a"
    described = json.loads(path.with_suffix(".json").read_text())
    assert list(described) == list(rows[0])
    assert all(column["Description"] and column["LongName"] for column in described.values())
    assert described["fd_mean"]["Units"] == "mm"
    assert sorted(p.name for p in tmp_path.iterdir() if p.is_file()) == ["group_dwi.json", "group_dwi.tsv"]


def test_the_table_is_read_as_it_was_written(tmp_path: Path) -> None:
    write_quality(tmp_path / "sub-01/dwi/sub-01_desc-quality_dwi.json", NUMBERS)
    (row,) = read_group_table(write_group_table(tmp_path))
    assert row["participant_id"] == "sub-01"
    assert row["session_id"] is None
    assert row["fd_mean"] == 0.171666
    assert row["n_volumes"] == 103
    assert row["fd_max"] is None


def test_the_table_is_replaced(tmp_path: Path) -> None:
    for name in ("sub-01", "sub-02"):
        write_quality(tmp_path / f"{name}/dwi/{name}_desc-quality_dwi.json", NUMBERS)
        path = write_group_table(tmp_path)
    assert len(table(path)) == 2


def test_nothing_to_gather(tmp_path: Path) -> None:
    with pytest.raises(UnusableInputError, match="participant level first"):
        write_group_table(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", ["{", "[]", '{"fd_mean": "large"}', '{"n_voxels": true}'])
def test_a_damaged_file_is_named_and_no_table_is_left(tmp_path: Path, content: str) -> None:
    write_quality(tmp_path / "sub-01/dwi/sub-01_desc-quality_dwi.json", NUMBERS)
    damaged = tmp_path / "sub-02/dwi/sub-02_desc-quality_dwi.json"
    damaged.parent.mkdir(parents=True)
    damaged.write_text(content)
    with pytest.raises(UnusableInputError, match=r"sub-02_desc-quality_dwi\.json"):
        write_group_table(tmp_path)
    assert [p.name for p in tmp_path.iterdir() if p.is_file()] == []


def test_a_damaged_table_is_named(tmp_path: Path) -> None:
    (tmp_path / "group_dwi.tsv").write_text("participant_id\tfd_mean\nsub-01\tlarge\n")
    with pytest.raises(UnusableInputError, match=r"group_dwi\.tsv"):
        read_group_table(tmp_path / "group_dwi.tsv")


def test_every_number_and_column_that_is_measured_is_described(tmp_path: Path) -> None:
    """The names of the numerics are those of the files."""
    rng = np.random.default_rng(0)
    data, mask = rng.uniform(90, 110, (6, 6, 3, 12)).astype(np.float32), np.ones((6, 6, 3), dtype=bool)
    found = assess(data, np.repeat([0, 1000], 6), mask, motion=np.full((12, 6), 0.25))
    columns = {"volume": np.arange(12), **found.columns}
    assert list(columns) == list(VOLUMES)
    assert set(IMAGES) <= {*found.numbers, "n_left_out"}
    path = write_confounds(tmp_path / "sub-01_desc-confounds_timeseries.tsv", columns)
    rows = table(path)
    assert len(rows) == 12
    assert rows[0]["framewise_displacement"] == "n/a"
    assert rows[0]["trans_x"] == "0.25"
    assert rows[3]["is_outlier"] in "01"
    assert list(json.loads(path.with_suffix(".json").read_text())) == list(rows[0])
    numbers = write_quality(tmp_path / "sub-01_desc-quality_dwi.json", found.numbers)
    assert quality_row(numbers)["n_volumes"] == 12
