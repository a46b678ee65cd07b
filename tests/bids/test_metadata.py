"""Reading JSON files as they come."""

import json

import pytest

from bidsfit.bids.metadata import read_sidecar
from bidsfit.exceptions import UnusableInputError


@pytest.mark.parametrize("text", ["{", "[1, 2]", "3"])
def test_sidecars_that_are_no_objects(tmp_path, text):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(UnusableInputError, match=str(tmp_path / "a.json")):
        read_sidecar(tmp_path / "a.json")


def test_sidecar(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps({"EchoTime": 0.08}))
    assert read_sidecar(tmp_path / "a.json") == {"EchoTime": 0.08}
