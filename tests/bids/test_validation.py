"""The BIDS validator decides whether a raw dataset is run on."""

import pytest

from bidsfit.bids import validation
from bidsfit.bids.validation import errors_of, require_valid
from bidsfit.exceptions import UnusableInputError


def test_a_valid_dataset(tiny):
    tiny.add("sub-01/dwi/sub-01_dwi")
    assert errors_of(tiny.root) == []
    require_valid(tiny.root, ["01"])


def test_errors_name_file_and_fault(tiny):
    tiny.add("sub-01/dwi/sub-01_dwi", bval=False)
    with pytest.raises(UnusableInputError) as caught:
        require_valid(tiny.root, ["01"])
    message = str(caught.value)
    assert "/sub-01/dwi/sub-01_dwi.nii.gz: DWI scans must have a corresponding '.bval' file" in message
    assert "--skip-bids-validation" in message


def test_errors_of_participants_that_are_not_run_do_not_count(tiny):
    tiny.add("sub-01/dwi/sub-01_dwi")
    tiny.add("sub-02/dwi/sub-02_dwi", bval=False)
    require_valid(tiny.root, ["01"])
    with pytest.raises(UnusableInputError, match="sub-02"):
        require_valid(tiny.root, ["01", "02"])


def test_errors_of_the_dataset_count_for_all(tiny):
    tiny.add("sub-01/dwi/sub-01_dwi")
    tiny.write("dataset_description.json", "{}")
    with pytest.raises(UnusableInputError, match=r"dataset_description\.json"):
        require_valid(tiny.root, ["01"])


def test_a_missing_validator_is_said_and_stops_nothing(tiny, monkeypatch, capsys):
    monkeypatch.setattr(validation, "EXECUTABLE", "no-such-validator")
    require_valid(tiny.root, [])
    assert "was not validated" in capsys.readouterr().err


@pytest.mark.parametrize("script", ["#!/bin/sh\necho not json\n", "#!/no/such/shell\n"])
def test_a_validator_that_does_not_work(tiny, tmp_path, monkeypatch, capsys, script):
    fake = tmp_path / "fake"
    fake.write_text(script)
    fake.chmod(0o755)
    monkeypatch.setattr(validation, "validator", lambda: str(fake))
    require_valid(tiny.root, [])
    assert "was not validated" in capsys.readouterr().err


@pytest.mark.parametrize("folder", ["fmap", "anat"])
def test_errors_of_other_kinds_of_images_are_said_and_stop_nothing(tiny, capsys, folder):
    tiny.add("sub-01/dwi/sub-01_dwi", b_values=[0, 0, 500, 1000])
    (tiny / "sub-01" / folder).mkdir()
    (tiny / "sub-01" / folder / "sub-01_notes.txt").write_text("")
    require_valid(tiny.root, ["01"])
    said = capsys.readouterr().err
    assert "is not valid BIDS beside its diffusion images (" in said
    assert f"/sub-01/{folder}/sub-01_notes.txt" in said
