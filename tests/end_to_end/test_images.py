"""Estimators whose training takes something of the images that they fit."""

import json

import nibabel as nib
import numpy as np
import pytest
import yaml

from bidsfit import models
from bidsfit.acquisition import Acquisition
from bidsfit.estimators.estimator import Status
from bidsfit.noise import sigma_from_repeats
from bidsfit.simulation.images import ImageVoxels
from bidsfit.trained.network import Network
from bidsfit.training.recipe import load_recipe, recipe_facts

pytestmark = pytest.mark.usefixtures("blank_figures")

RECIPE = (
    "simulation:\n  snr: images\narchitecture:\n  name: perceptron\n  units: 8\nobjective:\n  name: parameters\n"
    "schedule:\n  steps: 20\n  batch: 128\n  validation: 256\n  checks: 2\n"
)


@pytest.fixture
def scans(tiny, tmp_path, app):
    """``scans(recipe, stems, words...)``: outcome of a run on two images, of SNR 10 and 40.

    They are of a diffusivity of 1 um^2/ms, or of another signal at other b-values.
    """

    def run(recipe, stems, *words, model="adc", b_values=tiny.B_VALUES, clean=None):
        (tmp_path / "own.yml").write_text(recipe)
        for stem, sigma in zip(stems, (100, 25), strict=True):
            noise = np.random.default_rng(0).normal(0, sigma, (*tiny.SHAPE, len(b_values)))
            data = noise + (tiny.signals() if clean is None else clean)
            tiny.add(f"{stem}_dwi", b_values=b_values, data=data.astype(np.float32))
            tiny.nifti(f"derivatives/masks/{stem}_desc-all_mask.nii.gz", np.ones(tiny.SHAPE, dtype=np.uint8))
        description = {"Name": "Masks", "BIDSVersion": "1.10.0", "DatasetType": "derivative"}
        description |= {"GeneratedBy": [{"Name": "a test"}]}
        tiny.write("derivatives/masks/dataset_description.json", json.dumps(description))
        plain = (tiny, tmp_path / "out", "participant", "--preprocess", "none", "--skip-bids-validation")
        plain += ("-d", f"masks={tiny.root / 'derivatives' / 'masks'}", "--nprocs", 1)
        return app(*plain, "--model", model, "--estimators", tmp_path / "own.yml", *words)

    return run


@pytest.fixture
def notes(outputs, tmp_path):
    """``notes(name)``: what the sidecar of the map of an image says of the training."""

    def read(image):
        sidecar = outputs(tmp_path / "out").sidecar(f"{image}_model-adc_param-adc_desc-own_dwimap")
        return sidecar["EstimationNotes"]["TrainedEstimator"]

    return read


def test_scans_share_the_snr_of_their_training_or_the_run_says_so(scans, notes, outputs, tmp_path):
    """Together it is that of both, and both are fitted by one network; alone it is that of the scan."""
    stems = [f"sub-01/ses-{i}/dwi/sub-01_ses-{i}" for i in (1, 2)]
    outcome = scans(RECIPE, stems, "--trust", "off")
    assert outcome.code == 0
    assert "with noise of the SNRs of the voxels of the participant's images" in outcome.out
    assert "different trainings" not in outcome.err
    both = notes("sub-01_ses-1")
    assert both["Checksum"] == notes("sub-01_ses-2")["Checksum"]
    assert both["Images"]["Voxels"] == {f"bids:raw:{stem}_dwi.nii.gz": 90 for stem in stems}
    assert both["Images"]["SNR"][5] < 14
    assert both["Images"]["SNR"][-5] > 35
    outcome = scans(RECIPE, stems, "--trust", "off", "--session-label", "2")
    assert 35 < np.median(notes("sub-01_ses-2")["Images"]["SNR"]) < 55
    words = "Scans of the participant were fitted with adc by own of different trainings (images of the training)."
    assert f"Warning, sub-01. {words}" in outcome.err
    assert outputs(tmp_path / "out").report("01").count(words) == 3  # in the summary, and at either scan


LEARNS = (
    "simulation:\n  signals: images\n  scope: dataset\narchitecture:\n  name: perceptron\n  units: 8\n"
    "objective:\n  name: signals\nschedule:\n  steps: 200\n  batch: 128\n  peak_rate: 0.01\n  checks: 5\n"
)


def test_one_network_learns_the_signals_of_all_images(scans, notes, tiny, outputs, tmp_path):
    """Its file names them, with the digest of their signals; its maps show their tissue; other images train anew."""
    stems = [f"sub-0{i}/dwi/sub-0{i}" for i in (1, 2)]
    outcome = scans(LEARNS, stems)
    assert outcome.code == 0, outcome.err
    assert "own: trained on the measured signals of all images of the run" in outcome.out
    found = notes("sub-01")["Images"]
    assert found == notes("sub-02")["Images"]
    assert found["Voxels"] == {f"bids:raw:{stem}_dwi.nii.gz": 90 for stem in stems}
    assert found["Digest"] == digest_of(tiny, stems)
    (file,) = (tmp_path / "out" / "trained").glob("*.zip")
    assert file.name == notes("sub-02")["File"]
    left = outputs(tmp_path / "out")
    adc = left.data("sub-02_model-adc_param-adc_desc-own_dwimap")
    assert abs(np.median(adc) / 0.001 - 1) < 0.03
    assert np.isfinite(left.data("sub-02_model-adc_param-adc_stat-bias_desc-own_dwimap")).all()
    page = left.report()
    assert "The measured signals of 180 voxels of 2 images (sub-01_dwi, sub-02_dwi), whose SNR is" in page
    assert "It was trained on the measured signals of voxels of all images of the run" in page
    assert scans(LEARNS, stems, "--participant-label", "02").code == 0
    assert len(list((tmp_path / "out" / "trained").glob("*.zip"))) == 2
    assert list(notes("sub-02")["Images"]["Voxels"].values()) == [90]
    assert notes("sub-01")["Images"] == found


def digest_of(tiny, stems):
    """The digest of the signals of images, which are read here."""
    parts = []
    for stem in stems:
        signals = nib.load(tiny / f"{stem}_dwi.nii.gz").get_fdata().reshape(-1, len(tiny.B_VALUES), order="F")
        base = tiny / f"{stem}_dwi"
        acquisition = Acquisition.from_files(base.with_suffix(".bval"), base.with_suffix(".bvec"))
        sigma = sigma_from_repeats(signals, acquisition).sigma
        parts.append(Network(models.get("adc")).sample(signals, acquisition, sigma, name=stem))
    return ImageVoxels.pooled(parts).digest


def test_an_image_that_cannot_be_read_is_named_to_all_that_share_the_training(scans, tiny, outputs, tmp_path):
    """The other participant lacks the fit, and the report says why."""
    tiny.add("sub-03/dwi/sub-03_dwi", data=np.zeros((*tiny.SHAPE, len(tiny.B_VALUES)), dtype=np.float32))
    stems = [f"sub-0{i}/dwi/sub-0{i}" for i in (1, 2)]
    outcome = scans(LEARNS, stems, "--participant-label", "01", "03", "--trust", "off")
    assert outcome.code == 1
    words = "sub-03. For want of its voxels own could not be trained for the other images of the run"
    assert words in outcome.err
    assert words in outputs(tmp_path / "out").report()


def test_ivimnet_learns_the_signals_of_images(scans, tmp_path, outputs):
    """`ivimnet-optim` with a shorter schedule: maps of the tissue, and what stands beside maps of other networks."""
    recipe = recipe_facts(load_recipe("ivimnet-optim"))
    recipe["schedule"] |= {"steps": 400, "checks": 10, "peak_rate": 0.01}
    b_values = (0, 0, 0, 10, 20, 40, 80, 150, 300, 500, 800)
    clean = models.get("ivim").signal({"S0": 1000.0, "f": 0.2, "D": 1.0, "Dstar": 30.0}, Acquisition(b_values))
    stems = [f"sub-0{i}/dwi/sub-0{i}" for i in (1, 2)]
    chosen = ("--participant-label", "02", "--bounds", "ivim.D=0,0.0009")  # less than the truth
    outcome = scans(yaml.safe_dump(recipe), stems, *chosen, model="ivim", b_values=b_values, clean=clean)
    assert outcome.code == 0, outcome.err
    left = outputs(tmp_path / "out")
    for name, expected in (("f", 0.2), ("D", 0.001)):
        found = left.data(f"sub-02_model-ivim_param-{name}_desc-own_dwimap")
        assert np.median(found) == pytest.approx(expected, rel=0.2)
        assert np.isfinite(left.data(f"sub-02_model-ivim_param-{name}_stat-bias_desc-own_dwimap")).all()
    told = left.sidecar("sub-02_model-ivim_param-D_desc-own_dwimap")
    notes = told["EstimationNotes"]["TrainedEstimator"]
    assert notes["Recipe"]["objective"]["bounds"] == {"D": [0, 5], "Dstar": [5, 200], "f": [0, 0.7]}
    assert told["Model"]["Parameters"]["KeepsBounds"] is False
    assert "NonNegativity" not in told
    beyond = left.data("sub-02_model-ivim_param-D_desc-own_dwimap") > 0.0009
    status = left.data("sub-02_model-ivim_param-status_desc-own_dwimap")
    assert beyond.mean() > 0.5
    assert set(np.unique(status[beyond])) <= {Status.OUTSIDE_BOUNDS, Status.UNLIKE_TRAINING}
    assert (status[beyond] == Status.OUTSIDE_BOUNDS).mean() > 0.5
