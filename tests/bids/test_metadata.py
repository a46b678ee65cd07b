"""Reading JSON files as they come."""

import json

import pytest

from bidsfit.bids.metadata import read_metadata, read_sidecar
from bidsfit.exceptions import UnusableInputError

DEEP = ['{"a":' * 100_000, '{"a":' * 200 + "1" + "}" * 200]


@pytest.mark.parametrize("text", ["{", "[1, 2]", "3", "", *DEEP], ids=range(6))
def test_sidecars_that_cannot_be(tmp_path, text):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(UnusableInputError, match=rf"^{tmp_path / 'a.json'} (cannot|must)"):
        read_sidecar(tmp_path / "a.json")


def test_sidecar(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps({"EchoTime": 0.08}))
    assert read_sidecar(tmp_path / "a.json") == {"EchoTime": 0.08}


def test_a_byte_order_mark(tmp_path):
    (tmp_path / "a.json").write_text("\ufeff{}", encoding="utf-8")
    assert read_sidecar(tmp_path / "a.json") == {}


@pytest.mark.parametrize(
    "value", ["NaN", "-Infinity", "1e999", "9" * 400, "9" * 5000, "[0.1, NaN]", '{"deep": [1, Infinity]}', r'"\ud800"']
)
def test_numbers_that_are_none_are_missing_and_named(tmp_path, value):
    """Also where the file is more specific than one that has the number: it is not known."""
    (tmp_path / "all.json").write_text('{"EchoTime": 0.1, "FlipAngle": 90}')
    (tmp_path / "own.json").write_text(f'{{"EchoTime": {value}, "BodyPart": "HEAD"}}')
    metadata, said = read_metadata([tmp_path / "all.json", tmp_path / "own.json"])
    assert metadata == {"FlipAngle": 90, "BodyPart": "HEAD"}
    assert str(tmp_path / "own.json") in said
    assert "'EchoTime'" in said
    assert "read as missing" in said
    assert json.dumps(metadata, allow_nan=False)


def test_metadata_of_several_files(tmp_path):
    (tmp_path / "all.json").write_text('{"EchoTime": 0.1, "FlipAngle": 90}')
    (tmp_path / "own.json").write_text('{"EchoTime": 0.2}')
    assert read_metadata([tmp_path / "all.json", tmp_path / "own.json"]) == ({"EchoTime": 0.2, "FlipAngle": 90}, "")
