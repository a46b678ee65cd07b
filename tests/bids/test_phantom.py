"""The phantom on disk: valid BIDS, true to its truth, whole or not there."""

import json
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from bidsfit import models
from bidsfit.acquisition import Acquisition
from bidsfit.bids import phantom
from bidsfit.bids.phantom import write_phantom
from bidsfit.exceptions import UsageError
from bidsfit.phantom.cohort import Cohort


def load(path):
    return np.asarray(nib.load(path).dataobj)


def validate(dataset):
    """Exit code and the errors of the BIDS validator."""
    program = Path(sys.executable).with_name("bids-validator-deno")
    done = subprocess.run([program, dataset, "--format", "json"], capture_output=True, text=True, check=False)
    issues = json.loads(done.stdout)["issues"]["issues"]
    return done.returncode, [issue for issue in issues if issue["severity"] == "error"]


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """One healthy participant and one patient, two sessions, hardly any noise."""
    cohort = Cohort("ivim", n_healthy=1, n_patients=1, n_sessions=2, shape=(24, 24, 2), snr=1e5, seed=5)
    out = tmp_path_factory.mktemp("phantom") / "ds"
    write_phantom(cohort, out)
    return cohort, out


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """One session, another model."""
    out = tmp_path_factory.mktemp("phantom") / "ds"
    write_phantom(Cohort("smt2", n_healthy=1, n_patients=1, shape=(16, 16, 1)), out)
    return out


def test_files(plain):
    found = {str(path.relative_to(plain)) for path in plain.rglob("*") if path.is_file()}
    images = {f"sub-{s}/dwi/sub-{s}_dwi.{e}" for s in ("01", "02") for e in ("nii.gz", "bval", "bvec", "json")}
    kinds = ["desc-brain_mask", "dseg", *(f"model-smt2_desc-truth_param-{p}_dwimap" for p in ("S0", "vcyl", "lambda"))]
    truth = {f"sub-{s}/dwi/sub-{s}_{kind}.{e}" for s in ("01", "02") for kind in kinds for e in ("nii.gz", "json")}
    truth |= {f"sub-02/dwi/sub-02_label-lesion_mask.{e}" for e in ("nii.gz", "json")}
    truth |= {"dataset_description.json", ".bidsignore", "README", "dseg.tsv"}
    top = {"dataset_description.json", "README", "participants.tsv", "participants.json"}
    assert found == top | images | {f"derivatives/truth/{name}" for name in truth}
    assert (plain / "participants.tsv").read_text() == "participant_id\tgroup\nsub-01\thealthy\nsub-02\tpatient\n"


def test_valid_bids(study, plain):
    for dataset in (study[1], plain):
        for root in (dataset, dataset / "derivatives" / "truth"):
            assert validate(root) == (0, [])


def test_validator_would_tell(plain, tmp_path):
    """An error in the dataset does make the check above fail."""
    write_phantom(Cohort("adc", n_healthy=1, n_patients=0, shape=(16, 16, 1)), tmp_path / "ds")
    (tmp_path / "ds/sub-01/dwi/sub-01_dwi.bval").unlink()
    code, errors = validate(tmp_path / "ds")
    assert code != 0
    assert errors


@pytest.mark.parametrize("subject", ["01", "02"])
@pytest.mark.parametrize("session", ["01", "02"])
def test_images_follow_from_the_written_truth(study, subject, session):
    """Everything read from files, units included: the model at the true maps is the image."""
    _, out = study
    name = f"sub-{subject}_ses-{session}"
    raw = out / f"sub-{subject}/ses-{session}/dwi/{name}_dwi"
    truth = out / f"derivatives/truth/sub-{subject}/ses-{session}/dwi"
    acquisition = Acquisition(np.loadtxt(f"{raw}.bval"), np.loadtxt(f"{raw}.bvec").T)
    mask = load(truth / f"{name}_desc-brain_mask.nii.gz") > 0
    model = models.get("ivim")
    parameters = {}
    for parameter in model.parameters:
        path = truth / f"{name}_model-ivim_desc-truth_param-{parameter.label}_dwimap"
        sidecar = json.loads(path.with_suffix(".json").read_text())
        assert sidecar["Units"] == {"um^2/ms": "mm^2/s"}.get(parameter.unit, parameter.unit)
        factor = 1e3 if sidecar["Units"] == "mm^2/s" else 1
        parameters[parameter.name] = load(f"{path}.nii.gz")[mask] * factor
    sigma = sidecar["Simulation"]["NoiseSigma"]
    assert sigma == pytest.approx(parameters["S0"].mean() / 1e5)
    image = load(f"{raw}.nii.gz")
    step = image.max() / 65535  # 16 bits
    np.testing.assert_allclose(image[mask], model.signal(parameters, acquisition), atol=6 * sigma + step)
    assert np.abs(image[~mask]).max() < 6 * sigma + step


def test_sessions_share_the_truth_and_not_the_noise(study):
    _, out = study
    maps = sorted((out / "derivatives/truth").glob("sub-02/ses-01/dwi/*.nii.gz"))
    assert len(maps) == 7
    for path in maps:
        np.testing.assert_array_equal(load(path), load(str(path).replace("ses-01", "ses-02")))
    images = [load(out / f"sub-02/ses-{s}/dwi/sub-02_ses-{s}_dwi.nii.gz") for s in ("01", "02")]
    assert np.any(images[0] != images[1])


def test_headers(study):
    _, out = study
    paths = list(out.rglob("*.nii.gz"))
    for path in paths:
        image = nib.load(path)
        assert image.get_qform(coded=True)[1] == image.get_sform(coded=True)[1] == 1
        np.testing.assert_allclose(image.get_qform(), image.affine, atol=1e-4)
        np.testing.assert_allclose(np.diag(image.affine), [10, 10, 10, 1])
        assert nib.aff2axcodes(image.affine) == ("R", "A", "S")
    raw = nib.load(next(out.glob("sub-01/ses-01/dwi/*.nii.gz")))
    assert raw.get_data_dtype() == np.int16
    assert raw.header["pixdim"][4] == 6.0


def test_segmentation_is_named(study):
    _, out = study
    table = [line.split("\t") for line in (out / "derivatives/truth/dseg.tsv").read_text().splitlines()]
    assert table[0][:2] == ["index", "name"]
    truth = out / "derivatives/truth/sub-02/ses-01/dwi/sub-02_ses-01"
    labels = load(f"{truth}_dseg.nii.gz")
    assert set(np.unique(labels)) - {0} == {int(row[0]) for row in table[1:]}
    np.testing.assert_array_equal(labels == 4, load(f"{truth}_label-lesion_mask.nii.gz") == 1)
    np.testing.assert_array_equal(labels > 0, load(f"{truth}_desc-brain_mask.nii.gz") == 1)


def test_same_seed_same_bytes(tmp_path):
    cohort = Cohort("adc", n_healthy=1, n_patients=1, shape=(16, 16, 1), seed=9)
    for name in ("a", "b"):
        write_phantom(cohort, tmp_path / name)
    files = [path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("*") if path.is_file()]
    assert all((tmp_path / "a" / f).read_bytes() == (tmp_path / "b" / f).read_bytes() for f in files)


def test_infinite_snr_is_valid_json(tmp_path):
    write_phantom(Cohort("adc", n_healthy=1, n_patients=0, shape=(16, 16, 1), snr=np.inf), tmp_path / "ds")
    sidecar = json.loads(next(tmp_path.rglob("*param-adc_dwimap.json")).read_text())
    assert sidecar["Simulation"]["SNR"] is None
    assert sidecar["Simulation"]["NoiseSigma"] == 0
    assert sidecar["Simulation"]["NoiseDistribution"] == "none"


def test_nothing_is_overwritten(tmp_path):
    cohort = Cohort("adc", n_healthy=1, n_patients=0, shape=(16, 16, 1))
    (tmp_path / "full").mkdir()
    (tmp_path / "full/mine.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    for name in ("full", "file"):
        with pytest.raises(UsageError, match="exists and is not an empty folder"):
            write_phantom(cohort, tmp_path / name)
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["mine.txt"]
    (tmp_path / "empty").mkdir()
    write_phantom(cohort, tmp_path / "empty")
    assert (tmp_path / "empty/participants.tsv").exists()


def test_whole_or_not_at_all(tmp_path, monkeypatch):
    """An error half-way leaves no folder and no rubbish beside it."""

    def fail(*_):
        raise RuntimeError("half-way")

    monkeypatch.setattr(phantom, "write_truth", fail)
    with pytest.raises(RuntimeError, match="half-way"):
        write_phantom(Cohort("adc", shape=(16, 16, 1)), tmp_path / "ds")
    assert list(tmp_path.iterdir()) == []
