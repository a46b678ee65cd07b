"""What the path of a file says, and what BIDS does not allow."""

import pytest

from bidsfit.bids.inputs import IMAGE_ENTITIES
from bidsfit.bids.names import (
    ANY,
    Name,
    entity_keys,
    fault_of,
    files_of,
    is_label,
    matches,
    parse_name,
    participant_labels,
)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("sub-01_dwi.nii.gz", Name(("sub-01",), "dwi", ".nii.gz")),
        ("sub-01_ses-pre_acq-a_dwi.bval", Name(("sub-01", "ses-pre", "acq-a"), "dwi", ".bval")),
        ("sub-01_ses-1_acq-ap", Name(("sub-01", "ses-1", "acq-ap"), "", "")),
        ("dwi.json", Name((), "dwi", ".json")),
        ("sub-01_acq-a-b_c_dwi.nii", Name(("sub-01", "acq-a-b", "c"), "dwi", ".nii")),
    ],
)
def test_the_parts_of_a_name(name, expected):
    assert parse_name(name) == expected


def test_entities_of_a_name_and_the_name_without_some():
    name = parse_name("sub-01_ses-1_acq-a-b_c_dwi.nii")
    assert name.entities == {"sub": "01", "ses": "1", "acq": "a-b"}
    assert name.without("ses", "run") == "sub-01_acq-a-b_c_dwi.nii"
    assert parse_name("sub-01_ses-1").without("sub", "ses") == ""


@pytest.mark.parametrize("label", ["01", "A1b", "a+b"])
def test_labels(label):
    assert is_label(label)
    for character in ("-", "_", ".", " ", "é", "/", "٣"):
        assert not is_label(label + character)
    assert not is_label("")


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({}, True),
        ({"ses": "1"}, True),
        ({"ses": "01"}, False),  # labels are words
        ({"run": 2}, True),  # but runs are numbers
        ({"run": ["002"]}, True),
        ({"run": ["1", "3"]}, False),
        ({"dir": None, "acq": ANY}, True),
        ({"acq": None}, False),
        ({"dir": ANY}, False),
        ({"dir": [None, "AP"]}, True),
        ({"suffix": "dwi", "datatype": "dwi", "extension": "nii.gz"}, True),
        ({"extension": [".nii", ".json"]}, False),
        ({"datatype": "anat"}, False),
    ],
)
def test_queries(tmp_path, query, expected):
    path = tmp_path / "func" / "sub-09" / "sub-01" / "ses-1" / "dwi" / "sub-01_ses-1_acq-a_run-02_dwi.nii.gz"
    assert matches(path, query) is expected


def test_what_is_allowed(tmp_path):
    root = tmp_path / "sub-03" / "ses-2"
    for name in ("sub-01/dwi/sub-01_dwi.nii.gz", "sub-01/ses-1/dwi/sub-01_ses-1_acq-a+b_desc-x_mask.nii"):
        assert fault_of(root / name, root) == ""


def test_all_that_is_wrong_is_said_at_once(tmp_path):
    words = fault_of(tmp_path / "sub-01/ses-1/dwi/sub-02_acq-_x_dwi.nii.gz", tmp_path)
    for reason in ("'acq-'", "'x'", "has sub-02 in its name, but lies in sub-01", "has no ses- in its name"):
        assert reason in words


def test_files_lie_where_bids_says(tmp_path):
    for name in ("dwi/b", "dwi/a", "ses-1/dwi/c", "ses-1/deep/dwi/d", "dwi/.e", "anat/f"):
        path = tmp_path / "sub-01" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    files, faults = files_of(tmp_path, "01", "dwi")
    assert [path.relative_to(tmp_path / "sub-01").as_posix() for path in files] == ["dwi/a", "dwi/b", "ses-1/dwi/c"]
    assert faults == []
    assert tmp_path / "sub-01/anat/f" in files_of(tmp_path, "01", ANY)[0]
    assert files_of(tmp_path, "02", "dwi") == ([], [])


def test_participants_have_folders(tmp_path):
    for name in ("sub-02", "sub-01", "sub-a-b"):
        (tmp_path / name).mkdir()
    (tmp_path / "sub-01.html").touch()
    (tmp_path / "sub-03").symlink_to("nowhere")
    assert participant_labels(tmp_path) == ["01", "02", "03", "a-b"]


def test_entities_are_those_that_pybids_knows():
    keys = entity_keys()
    assert (keys["acquisition"], keys["direction"], keys["run"], keys["desc"]) == ("acq", "dir", "run", "desc")
    assert {name: keys[name] for name in IMAGE_ENTITIES if name in keys} == {
        name: key for name, key in IMAGE_ENTITIES.items() if name in keys
    }
