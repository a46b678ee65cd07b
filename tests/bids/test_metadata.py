"""Reading JSON files as they come."""

import json

import pytest

from bidsfit.bids.metadata import interpolation, read_metadata, read_sidecar
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


@pytest.mark.parametrize(
    ("shape", "sidecar"),
    [
        ((92, 92), {}),
        ((92, 92), {"AcquisitionMatrixPE": 92, "ReconMatrixPE": 92}),
        # Siemens: partial Fourier and parallel imaging leave the matrix as it is; rectangular fields of view
        (
            (100, 100),
            {
                "BaseResolution": 100,
                "PartialFourier": 0.75,
                "AcquisitionMatrixPE": 100,
                "ReconMatrixPE": 100,
                "ParallelReductionFactorInPlane": 2,
                "PhaseEncodingSteps": 74,
            },
        ),
        ((64, 44), {"BaseResolution": 64, "PercentPhaseFOV": 68.75, "AcquisitionMatrixPE": 44, "ReconMatrixPE": 44}),
        ((128, 134), {"BaseResolution": 128, "PercentPhaseFOV": 104.7, "PhaseEncodingDirection": "j"}),
        ((128, 134), {"BaseResolution": 128, "PercentPhaseFOV": 104.7}),
        # Philips: a few lines more are reconstructed; partial Fourier may lower the lines
        ((112, 112), {"FrequencyEncodingSteps": 112, "AcquisitionMatrixPE": 110, "ReconMatrixPE": 112}),
        ((112, 112), {"AcquisitionMatrixPE": 71, "ReconMatrixPE": 112, "PartialFourierEnabled": "YES"}),
        (
            (112, 112),
            {"AcquisitionMatrixPE": 71, "ReconMatrixPE": 112, "PhaseEncodingStepsNoPartialFourier": 110},
        ),
        ((96, 96), {"AcquisitionMatrixPE": 72, "ReconMatrixPE": 96, "PartialFourier": 0.75}),
        # a rectangular field of view in a square image
        ((128, 128), {"AcquisitionMatrixPE": 90, "ReconMatrixPE": 128, "PercentPhaseFOV": 70}),
        ((128, 128), {"AcquisitionMatrix": [0, 128, 128, 0], "PhaseEncodingDirection": "j-"}),
        ((128, 128), {"AcquisitionMatrixPE": "64", "ReconMatrixPE": None, "AcquisitionMatrix": [64]}),
        ((128, 128), {"AcquisitionMatrixPE": True, "ReconMatrixPE": 128, "Interpolation2D": 0}),
    ],
)
def test_acquired_matrices(shape, sidecar):
    assert interpolation(sidecar, (*shape, 20, 30)) == ""


@pytest.mark.parametrize(
    ("shape", "sidecar", "said"),
    [
        ((48, 48), {"AcquisitionMatrixPE": 24, "ReconMatrixPE": 48}, "24 lines"),
        (
            (256, 256),
            {"AcquisitionMatrixPE": 128, "ReconMatrixPE": 256, "ParallelReductionFactorInPlane": 2},
            "256 rec",
        ),
        ((200, 200), {"AcquisitionMatrixPE": 100, "ReconMatrixPE": 200, "PartialFourier": 0.75}, "100 lines"),
        ((128, 128), {"AcquisitionMatrixPE": 96, "PhaseEncodingDirection": "i"}, "96 lines"),
        ((128, 100), {"BaseResolution": 64, "PhaseEncodingDirection": "j"}, "64 samples"),
        ((256, 256), {"AcquisitionMatrix": [128, 0, 0, 256], "PhaseEncodingDirection": "j"}, "128 samples"),
        ((128, 128), {"Interpolation2D": True}, "Interpolation2D"),
    ],
)
def test_interpolated_matrices(shape, sidecar, said):
    assert said in interpolation(sidecar, (*shape, 20, 30))
    across = interpolation({**sidecar, "SliceEncodingDirection": "i"}, (20, *shape, 30))
    assert said in across or "PhaseEncodingDirection" in sidecar
