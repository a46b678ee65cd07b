"""The BIDS validator decides whether a raw dataset is run on."""

import json

import numpy as np
import pytest

from bidsfit.bids import validation
from bidsfit.bids.validation import errors_of, require_valid
from bidsfit.cli.lab import main
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


# --- maps of models (BEP016) ----------------------------------------------------------------------------------------

VECTOR = {"Type": "unit3vector", "Reference": "bvec", "EncodingAxis": 3}

#: Names of maps, what their sidecars say, how many volumes they have, and what is wrong.
MAPS = {
    "model-ivim_param-D_desc-lsq": ({"Model": {"Parameters": {"FitMethod": "nlls"}}}, 1, ""),
    "model-ivim_param-D_stat-sd_desc-lsq": ({"StatisticOf": "D"}, 1, ""),
    "model-tensor_param-v1_desc-lsq": ({"OrientationEncoding": VECTOR}, 3, ""),
    "model-ivim_desc-lsq_param-f": ({}, 1, "FILENAME_MISMATCH"),
    "model-ivim_desc-lsq": ({}, 1, "MISSING_REQUIRED_ENTITY"),
    "param-noise_desc-mppca": ({}, 1, "MISSING_REQUIRED_ENTITY"),
    "model-a_param-D": ({"Model": None}, 1, "SIDECAR_KEY_REQUIRED Model"),
    "model-b_param-D": ({"Model": {"Parameters": {"FitMethod": "lsq"}}}, 1, "JSON_SCHEMA_VALIDATION_ERROR Model"),
    "model-c_param-D": ({"NonNegativity": "no"}, 1, "JSON_SCHEMA_VALIDATION_ERROR NonNegativity"),
    "model-d_param-D_stat-sd": ({}, 1, "SIDECAR_KEY_REQUIRED StatisticOf"),
    "model-e_param-v1": ({}, 3, "SIDECAR_KEY_REQUIRED OrientationEncoding"),
    "model-f_param-v1": (
        {"OrientationEncoding": VECTOR | {"Type": "vector"}},
        3,
        "JSON_SCHEMA_VALIDATION_ERROR OrientationEncoding",
    ),
}


def test_maps_of_models_are_validated(masks):
    for name, (fields, n_volumes, _) in MAPS.items():
        path = f"sub-01/dwi/sub-01_{name}_dwimap"
        masks.nifti(f"{path}.nii.gz", np.ones(masks.SHAPE + (n_volumes,) * (n_volumes > 1), dtype=np.float32))
        content = {"SkullStripped": True, "Model": {}} | fields
        masks.write(f"{path}.json", json.dumps({key: value for key, value in content.items() if value is not None}))
    errors = errors_of(masks.root, extended=True)
    for name, (_, _, wrong) in MAPS.items():
        found = {text.rpartition("(")[2].rstrip(")") for place, text in errors if f"sub-01_{name}_dwimap." in place}
        found -= {"ALL_FILENAME_RULES_HAVE_ISSUES"}  # of a sidecar, which might also be that of a table of regions
        assert len(found) == bool(wrong), name
        assert all(text.startswith(wrong) for text in found), name
    assert len(errors_of(masks.root)) >= len(MAPS)  # which knows none of them


def test_tables_of_regions_are_validated(masks):
    """They need no parameter, but a model, and have the segmentation before the resolution."""
    for name in ("seg-a_res-2_model-m_desc-lsq", "atlas-a_model-m", "res-2_seg-a_model-m", "seg-a_desc-lsq"):
        masks.write(f"sub-01/dwi/sub-01_{name}_dwimap.tsv", "index\tname\n1\ta\n")
    masks.write("sub-01/dwi/sub-01_seg-a_res-2_model-m_desc-lsq_dwimap.json", json.dumps({"Resolution": "2 mm"}))
    wrong = {place.partition("sub-01_")[2] for place, _ in errors_of(masks.root, extended=True)}
    assert wrong == {"res-2_seg-a_model-m_dwimap.tsv", "seg-a_desc-lsq_dwimap.tsv"}


def test_the_command_tells(masks, capsys):
    masks.write("README", "Maps.")
    assert main(["validate", str(masks.root)]) == 0
    masks.write("sub-01/dwi/sub-01_param-D_dwimap.json", "{}")
    assert main(["validate", str(masks.root)]) != 0
    assert "sub-01_param-D_dwimap.json" in capsys.readouterr().err
    assert main(["validate", str(masks.root / "sub-01")]) != 0
    assert "has no dataset_description.json" in capsys.readouterr().err
