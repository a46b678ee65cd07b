"""The phantom on disk: valid BIDS, true to its truth, whole or not there."""

import json
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from bidsfit import models
from bidsfit.acquisition import Acquisition
from bidsfit.bids import phantom
from bidsfit.bids.phantom import write_phantom
from bidsfit.bids.validation import errors_of
from bidsfit.exceptions import UsageError
from bidsfit.phantom.cohort import Cohort
from bidsfit.phantom.imperfections import RAW, Imperfections
from bidsfit.phantom.movement import MOTION_PARAMETERS


def load(path):
    return np.asarray(nib.load(path).dataobj)


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


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    """All imperfections and a T1-weighted image; two sessions."""
    cohort = Cohort(
        "adc",
        n_healthy=1,
        n_patients=0,
        n_sessions=2,
        shape=(24, 24, 2),
        imperfections=replace(RAW, off_resonance=20),
        t1w=True,
    )
    out = tmp_path_factory.mktemp("phantom") / "ds"
    write_phantom(cohort, out)
    return cohort, out


@pytest.fixture(scope="module")
def abdomen(tmp_path_factory):
    """A patient who breathes."""
    settings = {"n_healthy": 0, "n_patients": 1, "shape": (24, 20, 4), "imperfections": Imperfections(breathing=10)}
    cohort = Cohort("adc", anatomy="abdomen", **settings)
    out = tmp_path_factory.mktemp("phantom") / "ds"
    write_phantom(cohort, out)
    return cohort, out


def test_an_abdomen_says_what_it_is_and_how_it_breathed(abdomen):
    cohort, out = abdomen
    assert json.loads((out / "sub-01/dwi/sub-01_dwi.json").read_text())["BodyPart"] == "ABDOMEN"
    truth = out / "derivatives/truth"
    assert "1\tLiver\tliver" in (truth / "dseg.tsv").read_text()
    depth = np.loadtxt(truth / "sub-01/dwi/sub-01_desc-breathing_timeseries.tsv", skiprows=1)
    assert len(depth) == len(cohort.acquisition)
    assert 5 < np.ptp(depth) <= 10
    lesion = load(truth / "sub-01/dwi/sub-01_label-lesion_mask.nii.gz")
    tissue = load(truth / "sub-01/dwi/sub-01_dseg.nii.gz")
    np.testing.assert_array_equal(lesion > 0, tissue == 4)
    assert "in liver" in (out / "README").read_text()
    assert "breathing of 10 mm" in (out / "README").read_text()


def test_files(plain):
    found = {str(path.relative_to(plain)) for path in plain.rglob("*") if path.is_file()}
    images = {f"sub-{s}/dwi/sub-{s}_dwi.{e}" for s in ("01", "02") for e in ("nii.gz", "bval", "bvec", "json")}
    kinds = ["desc-brain_mask", "dseg", *(f"model-smt2_param-{p}_desc-truth_dwimap" for p in ("S0", "vcyl", "lambda"))]
    truth = {f"sub-{s}/dwi/sub-{s}_{kind}.{e}" for s in ("01", "02") for kind in kinds for e in ("nii.gz", "json")}
    truth |= {f"sub-02/dwi/sub-02_label-lesion_mask.{e}" for e in ("nii.gz", "json")}
    truth |= {"dataset_description.json", "README", "dseg.tsv"}
    top = {"dataset_description.json", "README", "participants.tsv", "participants.json"}
    assert found == top | images | {f"derivatives/truth/{name}" for name in truth}
    assert (plain / "participants.tsv").read_text() == "participant_id\tgroup\nsub-01\thealthy\nsub-02\tpatient\n"


@pytest.mark.parametrize("root", ["", "derivatives/truth"])
@pytest.mark.parametrize("kind", ["study", "plain", "raw", "abdomen"])
def test_valid_bids(request, valid, kind, root):
    dataset = request.getfixturevalue(kind)
    folder = dataset if kind == "plain" else dataset[1]
    assert valid(folder / root)


def test_validator_would_tell(plain, tmp_path):
    """An error in the dataset does make the check above fail."""
    write_phantom(Cohort("adc", n_healthy=1, n_patients=0, shape=(16, 16, 1)), tmp_path / "ds")
    (tmp_path / "ds/sub-01/dwi/sub-01_dwi.bval").unlink()
    assert errors_of(tmp_path / "ds", extended=True)


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
        path = truth / f"{name}_model-ivim_param-{parameter.label}_desc-truth_dwimap"
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
    sidecar = json.loads(next(tmp_path.rglob("*param-adc_desc-truth_dwimap.json")).read_text())
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


def test_files_of_a_raw_scan(raw):
    _, out = raw

    def found(root):
        name = "sub-01_ses-01_"
        paths = [p.relative_to(root) for p in (root / "sub-01/ses-01").rglob("*") if p.suffix != ".json"]
        return {f"{p.parent.name}/{p.name.removeprefix(name)}" for p in paths if p.suffix and "dwimap" not in p.name}

    images = {f"fmap/dir-{label}_epi.nii.gz" for label in ("AP", "PA")} | {"anat/T1w.nii.gz"}
    assert found(out) == images | {f"dwi/dwi.{extension}" for extension in ("nii.gz", "bval", "bvec")}
    series = {f"dwi/desc-{name}_timeseries.tsv" for name in ("motion", "eddy", "outliers")}
    field = {"fmap/fieldmap.nii.gz", "fmap/magnitude.nii.gz"}
    anatomy = {"anat/dseg.nii.gz", "anat/from-dwi_to-T1w_mode-image_xfm.txt"}
    labels = {"dwi/dseg.nii.gz", "dwi/desc-brain_mask.nii.gz"}
    assert found(out / "derivatives/truth") == series | field | anatomy | labels


@pytest.mark.parametrize("session", ["01", "02"])
def test_pair_of_opposite_phase_encoding(raw, session):
    """BIDS ties it to the image that it is for, in both of its ways."""
    cohort, out = raw
    folder, name = out / f"sub-01/ses-{session}", f"sub-01_ses-{session}"
    image = json.loads((folder / f"dwi/{name}_dwi.json").read_text())
    pair = cohort.reversed_phase(next(cohort.participants()), int(session))
    for label, direction, polarity in (("AP", "j-", -1), ("PA", "j", 1)):
        path = folder / f"fmap/{name}_dir-{label}_epi"
        sidecar = json.loads(path.with_suffix(".json").read_text())
        assert sidecar["PhaseEncodingDirection"] == direction
        assert sidecar["TotalReadoutTime"] == image["TotalReadoutTime"] == 0.05
        assert sidecar["B0FieldIdentifier"] == image["B0FieldSource"] == f"pepolar_ses{session}"
        (uri,) = sidecar["IntendedFor"]
        assert (out / uri.removeprefix("bids::")).is_file()
        data = load(f"{path}.nii.gz")
        np.testing.assert_allclose(data, pair[polarity], atol=data.max() / 30000)
    assert image["PhaseEncodingDirection"] == "j-"


def test_truth_of_a_session_on_disk(raw):
    cohort, out = raw
    truth = cohort.truth(next(cohort.participants()), 2)
    stem = out / "derivatives/truth/sub-01/ses-02/dwi/sub-01_ses-02"

    def table(name):
        path = Path(f"{stem}_desc-{name}_timeseries.tsv")
        rows = [line.split("\t") for line in path.read_text().splitlines()]
        return tuple(rows[0]), np.array(rows[1:], dtype=float), json.loads(path.with_suffix(".json").read_text())

    columns, motion, sidecar = table("motion")
    assert columns == MOTION_PARAMETERS
    np.testing.assert_allclose(motion, truth.motion, rtol=1e-6)
    assert [sidecar[name]["Units"] for name in columns] == ["mm"] * 3 + ["rad"] * 3
    columns, left, sidecar = table("outliers")
    assert columns == ("slice_0", "slice_1")
    np.testing.assert_allclose(left, truth.outliers.T, rtol=1e-6)
    _, eddy, _ = table("eddy")
    np.testing.assert_allclose(eddy, truth.eddy, rtol=1e-6)
    fmap = out / "derivatives/truth/sub-01/ses-02/fmap/sub-01_ses-02"
    np.testing.assert_allclose(load(f"{fmap}_fieldmap.nii.gz"), truth.field, rtol=1e-6, atol=1e-6)
    assert json.loads(Path(f"{fmap}_fieldmap.json").read_text())["Units"] == "Hz"


def test_t1w_on_disk(raw):
    cohort, out = raw
    t1w = cohort.t1w_image(next(cohort.participants()), 1)
    image = nib.load(out / "sub-01/ses-01/anat/sub-01_ses-01_T1w.nii.gz")
    assert image.shape == t1w.image.shape
    np.testing.assert_allclose(image.header.get_zooms(), [5, 5, 5])
    truth = out / "derivatives/truth/sub-01/ses-01/anat/sub-01_ses-01"
    np.testing.assert_array_equal(load(f"{truth}_dseg.nii.gz"), t1w.tissue)
    np.testing.assert_allclose(np.loadtxt(f"{truth}_from-dwi_to-T1w_mode-image_xfm.txt"), t1w.transform, atol=1e-8)


def test_raw_scans_say_so(raw, plain):
    out = raw[1]
    for text in ("motion of up to 2 mm", "off-resonance of up to 20 Hz", "Gibbs ringing", "T1-weighted"):
        assert text in (out / "README").read_text()
    sidecar = json.loads(next(out.rglob("*param-adc_desc-truth_dwimap.json")).read_text())
    assert sidecar["Simulation"]["Imperfections"]["outliers"] == 2
    assert "Imperfections" not in (plain / "README").read_text()
    assert "Imperfections" not in next(plain.rglob("*param-S0_desc-truth_dwimap.json")).read_text()


def test_a_field_that_folds_the_image_leaves_nothing(tmp_path):
    cohort = Cohort("adc", shape=(16, 16, 1), imperfections=Imperfections(off_resonance=500))
    with pytest.raises(UsageError, match="fold"):
        write_phantom(cohort, tmp_path / "ds")
    assert list(tmp_path.iterdir()) == []
