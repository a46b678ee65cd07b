"""Estimators whose training takes something of the images that they fit."""

import json

import numpy as np
import pytest

pytestmark = pytest.mark.usefixtures("blank_figures")

RECIPE = (
    "simulation:\n  snr: images\narchitecture:\n  name: perceptron\n  units: 8\nobjective:\n  name: parameters\n"
    "schedule:\n  steps: 20\n  batch: 128\n  validation: 256\n  checks: 2\n"
)


@pytest.fixture
def scans(tiny, tmp_path, app):
    """``scans(recipe, words...)``: outcome of a run on two sessions of a participant, of SNR 10 and 40."""
    for session, sigma in (("1", 100), ("2", 25)):
        noise = np.random.default_rng(0).normal(0, sigma, (*tiny.SHAPE, len(tiny.B_VALUES)))
        stem = f"sub-01/ses-{session}/dwi/sub-01_ses-{session}_dwi"
        tiny.add(stem, data=(tiny.signals() + noise).astype(np.float32))
    for session in ("1", "2"):
        mask = f"sub-01/ses-{session}/dwi/sub-01_ses-{session}_desc-all_mask"
        tiny.nifti(f"derivatives/masks/{mask}.nii.gz", np.ones(tiny.SHAPE, dtype=np.uint8))
    description = {"Name": "Masks", "BIDSVersion": "1.10.0", "DatasetType": "derivative"}
    description |= {"GeneratedBy": [{"Name": "a test"}]}
    tiny.write("derivatives/masks/dataset_description.json", json.dumps(description))

    def run(recipe, *words):
        (tmp_path / "own.yml").write_text(recipe)
        plain = (tiny, tmp_path / "out", "participant", "--preprocess", "none", "--skip-bids-validation")
        plain += ("-d", f"masks={tiny.root / 'derivatives' / 'masks'}", "--nprocs", 1, "--trust", "off")
        return app(*plain, "--model", "adc", "--estimators", tmp_path / "own.yml", *words)

    return run


@pytest.fixture
def notes(outputs, tmp_path):
    """``notes(session)``: what the sidecar of a map says of the training."""

    def read(session):
        name = f"sub-01_ses-{session}_model-adc_param-adc_desc-own_dwimap"
        return outputs(tmp_path / "out").sidecar(name)["EstimationNotes"]["TrainedEstimator"]

    return read


def test_scans_share_the_snr_of_their_training_or_the_run_says_so(scans, notes):
    """Together it is that of both, and both are fitted by one network; alone it is that of the scan."""
    outcome = scans(RECIPE)
    assert outcome.code == 0
    assert "with noise of the SNRs of the voxels of the participant's images" in outcome.out
    assert "different trainings" not in outcome.err
    both = notes("1")
    assert both["Checksum"] == notes("2")["Checksum"]
    names = [f"bids:raw:sub-01/ses-{i}/dwi/sub-01_ses-{i}_dwi.nii.gz" for i in (1, 2)]
    assert both["Images"]["Voxels"] == dict.fromkeys(names, 90)
    assert both["Images"]["SNR"][5] < 14
    assert both["Images"]["SNR"][-5] > 35
    outcome = scans(RECIPE, "--session-label", "2")
    assert 35 < np.median(notes("2")["Images"]["SNR"]) < 55
    assert (
        "Warning, sub-01: its scans were fitted with adc by own of different trainings (images of the training)."
        in outcome.err
    )
