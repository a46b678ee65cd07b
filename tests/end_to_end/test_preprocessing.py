"""Raw images through the whole app: prepared, fitted, assessed; and the next run starts from there."""

import json
import shutil

import nibabel as nib
import numpy as np
import pytest

from bidsfit.cli.app import main
from bidsfit.cli.lab import main as lab

#: Those of the first run are drawn, which is made before.
pytestmark = pytest.mark.usefixtures("blank_figures")

SIZE = ("--shape", 32, 32, 6, "--participants", 1, "--patients", 0, "--directions", 6)
PREPROC = "sub-01/dwi/sub-01_desc-preproc_dwi"


def run(command, *words):
    return command([str(word) for word in words])


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    """A restless participant: motion, a field with its reversed pair, eddy currents, an outlier, noise."""
    out = tmp_path_factory.mktemp("raw") / "ds"
    amounts = ("--motion", 2, "--rotation", 2, "--off-resonance", 20, "--outliers", 1, "--snr", 25)
    assert run(lab, "phantom", out, "--model", "adc", *SIZE, "--b-values", 0, 0, 500, 1000, *amounts) == 0
    return out


@pytest.fixture(scope="module")
def finished_raw(raw, tmp_path_factory):
    """The output folder of a default run, read only."""
    out = tmp_path_factory.mktemp("prepared") / "out"
    assert run(main, raw, out, "participant", "--nprocs", 1, "--model", "adc") == 0
    return out


@pytest.fixture
def copy(finished_raw, tmp_path):
    """A copy of the output folder, without its work folder."""
    shutil.copytree(finished_raw, tmp_path / "out", ignore=shutil.ignore_patterns("work"))
    return tmp_path / "out"


def load(path):
    return nib.load(path).get_fdata()


def sidecar(folder, name):
    return json.loads((folder / f"{name}.json").read_text())


# --- what a run leaves ----------------------------------------------------------------------------------------------


def test_the_preprocessed_image_is_a_derivative(raw, finished_raw, valid):
    assert valid(finished_raw)
    image = nib.load(finished_raw / f"{PREPROC}.nii.gz")
    source = nib.load(raw / "sub-01/dwi/sub-01_dwi.nii.gz")
    assert image.shape == source.shape
    np.testing.assert_allclose(image.affine, source.affine)
    np.testing.assert_array_equal(
        np.loadtxt(finished_raw / f"{PREPROC}.bval"), np.loadtxt(raw / "sub-01/dwi/sub-01_dwi.bval")
    )
    turned, given = (
        np.loadtxt(path) for path in (finished_raw / f"{PREPROC}.bvec", raw / "sub-01/dwi/sub-01_dwi.bvec")
    )
    cosines = np.sum(turned * given, axis=0)[2:]
    assert cosines.min() > np.cos(np.deg2rad(6))
    assert cosines.min() < 1 - 1e-6  # the head turned
    content = sidecar(finished_raw, PREPROC)
    assert content["Preprocessing"] == {
        "Phase": "none",
        "Denoise": "mppca",
        "Gibbs": "subvoxel",
        "Rician": "koay",
        "Susceptibility": "pyhysco",
        "Motion": "affine",
    }
    assert content["Sources"][0] == "bids:raw:sub-01/dwi/sub-01_dwi.nii.gz"


def test_maps_come_from_it_with_the_noise_of_the_raw_image(finished_raw):
    content = sidecar(finished_raw, "sub-01/dwi/sub-01_model-adc_param-adc_desc-lsq_dwimap")
    assert content["Sources"][0] == f"bids::{PREPROC}.nii.gz"
    assert content["Model"]["Parameters"]["NoiseKind"] == "gaussian"
    assert "MP-PCA of the raw image" in content["Noise"]["Description"]
    level = load(finished_raw / "sub-01/dwi/sub-01_model-noise_param-noise_desc-preproc_dwimap.nii.gz")
    mask = load(finished_raw / "sub-01/dwi/sub-01_desc-brain_mask.nii.gz") > 0
    assert content["Noise"]["StandardDeviation"] == pytest.approx(np.median(level[mask]), rel=0.02)


def test_confounds_and_quality(finished_raw):
    lines = (finished_raw / "sub-01/dwi/sub-01_desc-confounds_timeseries.tsv").read_text().splitlines()
    assert {"trans_x", "rot_z", "framewise_displacement", "std_dvars", "is_outlier"} <= set(lines[0].split("\t"))
    assert len(lines) == 1 + 14
    numbers = json.loads((finished_raw / "sub-01/dwi/sub-01_desc-quality_dwi.json").read_text())
    assert numbers["n_volumes"] == 14
    assert 0.1 < numbers["fd_mean"] < 10


def test_the_report_shows_every_step(finished_raw):
    page = (finished_raw / "sub-01.html").read_text()
    for words in ("MP-PCA", "sub-voxel shifts", "PyHySCO", "affine registration", "Framewise displacement"):
        assert words in page
    assert "there is no T1w image" in page
    record = json.loads((finished_raw / "sub-01/figures/sub-01_desc-preprocessing_record.json").read_text())
    assert all(step["seconds"] > 0 for step in record["steps"] if step["applied"])
    figures = {"denoise", "gibbs", "rician", "susceptibility", "motion", "traces", "carpet", "snr", "registration"}
    assert figures <= set(record["figures"])
    for path in record["figures"].values():
        assert (finished_raw / path).read_bytes().startswith(b"\x89PNG")
    assert "Marchenko-Pastur" in (finished_raw / "logs" / "CITATION.md").read_text()


def test_preprocessing_brings_the_maps_nearer_to_the_truth(raw, finished_raw, tmp_path):
    assert run(main, raw, tmp_path, "participant", "--nprocs", 1, "--model", "adc", "--preprocess", "none") == 0
    assert not (tmp_path / f"{PREPROC}.nii.gz").exists()
    truth = load(raw / "derivatives/truth/sub-01/dwi/sub-01_model-adc_param-adc_desc-truth_dwimap.nii.gz")
    mask = load(raw / "derivatives/truth/sub-01/dwi/sub-01_desc-brain_mask.nii.gz") > 0

    def error(folder):
        found = load(folder / "sub-01/dwi/sub-01_model-adc_param-adc_desc-lsq_dwimap.nii.gz")
        return np.nanmedian(np.abs(found - truth)[mask & (found > 0)])

    assert error(finished_raw) < 0.9 * error(tmp_path)


# --- running again --------------------------------------------------------------------------------------------------


def test_the_next_run_starts_from_the_preprocessed_image(raw, copy):
    before = {path: path.stat().st_mtime_ns for path in (copy / "sub-01").rglob("*") if path.is_file()}
    assert run(main, raw, copy, "participant", "--nprocs", 1, "--model", "adc") == 0
    assert not list((copy / "work").rglob("preprocessing_wf"))
    again = {path: path.stat().st_mtime_ns for path in before}
    changed = {path.name for path in before if before[path] != again[path]}
    assert not changed & {"sub-01_desc-preproc_dwi.nii.gz", "sub-01_desc-confounds_timeseries.tsv"}


def test_other_steps_in_the_same_folder_are_refused(raw, copy, app, unchanged):
    with unchanged(copy / "sub-01"):
        outcome = app(raw, copy, "participant", "--nprocs", 1, "--model", "adc", "--skip", "gibbs")
    assert outcome.code == 73
    assert (
        "sub-01_desc-preproc_dwi.nii.gz exists and was made from another image, or with another prepro" in outcome.err
    )
    assert "(Gibbs: found subvoxel, expected none)" in outcome.err


def test_another_study_takes_it_as_it_is(raw, finished_raw, tmp_path, app):
    words = (raw, tmp_path / "out", "participant", "--nprocs", 1, "--model", "adc", "-d", f"first={finished_raw}")
    outcome = app(*words, "--dry-run")
    assert outcome.code == 0
    assert "MP-PCA" not in outcome.out
    assert app(*words).code == 0
    content = sidecar(tmp_path / "out", "sub-01/dwi/sub-01_model-adc_param-adc_desc-lsq_dwimap")
    assert content["Sources"][0] == f"bids:first:{PREPROC}.nii.gz"


# --- companions that turn out to be damaged --------------------------------------------------------------------------


def cut_short(path):
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def test_damage_that_shows_at_run_time_costs_the_step_and_not_the_image(raw, app, tmp_path):
    """Headers are sound, so that both steps are planned; the next run knows what the first found."""
    data, out = tmp_path / "ds", tmp_path / "out"
    shutil.copytree(raw, data, ignore=shutil.ignore_patterns("derivatives"))
    for path in (data / "sub-01/fmap").glob("*_epi.nii.gz"):
        cut_short(path)
    (data / "sub-01/anat").mkdir()
    t1w = data / "sub-01/anat/sub-01_T1w.nii.gz"
    nib.save(nib.Nifti1Image(np.random.default_rng(0).random((16, 16, 16)), 10 * np.eye(4)), t1w)
    cut_short(t1w)
    words = (data, out, "participant", "--nprocs", 1, "--skip-bids-validation")
    words = (*words, "--skip", "denoise", "gibbs", "rician", "motion", "--model")
    outcome = app(*words, "adc")
    assert outcome.code == 0
    for step, name in (("Susceptibility distortion", "_epi.nii.gz"), ("Tissue masks", t1w.name)):
        (line,) = [line for line in outcome.err.splitlines() if step in line]
        assert line.startswith(f"sub-01_dwi: {step} was left out: ")
        assert name in line
        assert "damaged or truncated" in line
    record = json.loads((out / "sub-01/figures/sub-01_desc-preprocessing_record.json").read_text())
    assert not any(step["applied"] for step in record["steps"])
    assert len([words for words in record["warnings"] if "damaged or truncated" in words]) == 2
    assert record["methods"] == []
    content = sidecar(out, PREPROC)
    assert content["Preprocessing"]["Susceptibility"] == "none"
    assert "_epi.nii.gz" in content["PreprocessingLeftOut"]["Susceptibility"]
    assert "PyHySCO" not in (out / "logs/CITATION.md").read_text()
    given = load(data / "sub-01/dwi/sub-01_dwi.nii.gz")
    np.testing.assert_allclose(load(out / f"{PREPROC}.nii.gz"), given, rtol=1e-6)  # nothing was moved

    plan = app(*words, "adc", "--dry-run")
    assert plan.code == 0
    assert "found by an earlier run, whose image is kept" in plan.out
    assert app(*words, "adc", "--estimators", "mle").code == 0
    assert (out / "sub-01/dwi/sub-01_model-adc_param-adc_desc-mle_dwimap.nii.gz").exists()


# --- the group ------------------------------------------------------------------------------------------------------


def test_the_group_level_gathers_the_quality(raw, copy, app):
    outcome = app(raw, copy, "group")
    assert outcome.code == 0
    assert "Quality of 1 image" in outcome.out
    header, row = (copy / "group_dwi.tsv").read_text().splitlines()
    assert header.split("\t")[:3] == ["participant_id", "session_id", "image"]
    assert row.startswith("sub-01\t")
    assert "sub-01" in (copy / "group_dwi.html").read_text()


# --- options and bad input ------------------------------------------------------------------------------------------


def test_the_plan_says_every_step_and_why_not(raw, app, tmp_path):
    outcome = app(raw, tmp_path / "out", "participant", "--dry-run", "--skip", "motion", "tissue")
    assert outcome.code == 0
    assert "gibbs ringing: sub-voxel shifts" in outcome.out
    assert "motion and eddy currents: left out: --skip motion" in outcome.out


def test_fsl_that_is_not_there_is_refused(raw, app, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    outcome = app(raw, tmp_path / "out", "participant", "--preprocess", "fsl", "--skip-bids-validation")
    assert outcome.code == 64
    assert "is not installed" in outcome.err


def test_an_empty_volume_is_left_out_of_everything(raw, app, tmp_path):
    data = tmp_path / "ds"
    shutil.copytree(raw, data, ignore=shutil.ignore_patterns("derivatives"))
    path = data / "sub-01/dwi/sub-01_dwi.nii.gz"
    image = nib.load(path)
    values = image.get_fdata()
    values[..., 5] = 0
    nib.save(nib.Nifti1Image(values.astype(np.float32), image.affine), path)
    skipped = ("--skip", "denoise", "gibbs", "susceptibility", "motion", "--skip-bids-validation")
    words = (data, tmp_path / "out", "participant", "--nprocs", 1, "--model", "adc", *skipped)
    for _ in range(2):  # the next run starts from the preprocessed image, and says it again
        outcome = app(*words)
        assert outcome.code == 0
        assert "5 (b = 500 s/mm²): it holds only zeros" in outcome.err
    out = tmp_path / "out"
    assert nib.load(out / f"{PREPROC}.nii.gz").shape[3] == np.loadtxt(out / f"{PREPROC}.bval").size == 13
    assert np.loadtxt(out / f"{PREPROC}.bvec").shape == (3, 13)
    for name in (
        PREPROC,
        "sub-01/dwi/sub-01_model-adc_param-adc_desc-lsq_dwimap",
        "sub-01/dwi/sub-01_desc-quality_dwi",
    ):
        assert [row["Volume"] for row in sidecar(out, name)["VolumesLeftOut"]] == [5]
    table = (out / "sub-01/dwi/sub-01_desc-confounds_timeseries.tsv").read_text().splitlines()
    assert [line.split("\t")[0] for line in table] == ["volume", *(str(k) for k in range(14) if k != 5)]
    assert "it holds only zeros" in (out / "sub-01.html").read_text()


def test_a_program_that_fails_in_the_middle_leaves_nothing_half_done(raw, app, tmp_path, monkeypatch):
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("topup", "eddy_cpu"):
        (programs / name).write_text("#!/bin/sh\necho Out of patience\nexit 3\n")
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(programs), prepend=":")
    words = ("--preprocess", "fsl", "--skip", "denoise", "gibbs", "rician", "--skip-bids-validation", "--nprocs", 1)
    outcome = app(raw, tmp_path / "out", "participant", *words, "--model", "adc")
    assert outcome.code == 1
    assert "topup failed" in outcome.err
    assert "Command: topup" in outcome.err
    assert "Out of patience" in outcome.err
    assert "topup failed" in (tmp_path / "out/sub-01.html").read_text()
    assert not (tmp_path / "out" / "sub-01" / "dwi").exists()


def test_tissue_masks_from_a_t1w_image_serve_the_group_level(tmp_path, app):
    """White and grey matter of the healthy participants are pooled without any other dataset."""
    data, out = tmp_path / "ds", tmp_path / "out"
    size = ("--shape", 32, 32, 8, "--participants", 1, "--patients", 0, "--snr", 60)
    assert run(lab, "phantom", data, "--model", "smt2", *size, "--directions", 6, "--t1w") == 0
    skipped = ("--skip", "denoise", "gibbs", "rician", "susceptibility", "motion")
    words = ("--model", "smt2", "--nprocs", 1, "--skip-bids-validation")
    assert app(data, out, "participant", *skipped, *words).code == 0
    tissue = load(out / "sub-01/dwi/sub-01_desc-tissue_dseg.nii.gz")
    truth = load(data / "derivatives/truth/sub-01/dwi/sub-01_dseg.nii.gz")
    assert (truth[tissue == 2] == 1).mean() > 0.9  # white matter: 2 in BIDS, 1 in the phantom
    assert (truth[tissue == 1] == 2).mean() > 0.8  # grey matter
    assert "White matter" in (out / "sub-01/dwi/sub-01_desc-tissue_dseg.tsv").read_text()
    record = json.loads((out / "sub-01/figures/sub-01_desc-preprocessing_record.json").read_text())
    assert "hidden Markov random field" in next(s["reason"] for s in record["steps"] if s["name"] == "tissue")
    assert "bids:raw:sub-01/anat/sub-01_T1w.nii.gz" in (out / "prov" / "prov-sub01_ent.json").read_text()
    outcome = app(data, out, "group", "--healthy", "group=healthy")
    assert outcome.code == 0
    assert (out / "group_model-smt2_desc-wm_distribution.json").exists()


def test_a_run_whose_outputs_were_deleted_writes_them_again(raw, tmp_path):
    """From the steps in the work folder, though the preprocessed image that they had written is gone."""
    out = tmp_path / "out"
    words = [raw, out, "participant", "--nprocs", 1, "--model", "adc", "--trust", "off", "-w", tmp_path / "work"]
    words += ["--skip", "denoise", "susceptibility", "motion"]
    name = "sub-01/dwi/sub-01_model-adc_param-adc_desc-lsq_dwimap.nii.gz"
    assert run(main, *words) == 0
    before = (out / name).read_bytes()
    shutil.rmtree(out)
    assert run(main, *words) == 0
    assert (out / name).read_bytes() == before
    assert (out / f"{PREPROC}.nii.gz").exists()


# --- complex signals ------------------------------------------------------------------------------------------------


def test_a_magnitude_with_its_phase_is_fitted_without_rician_bias(tmp_path):
    """Air has no floor, and the noise there is Gaussian."""
    data = tmp_path / "ds"
    size = ("--shape", 20, 20, 3, "--participants", 1, "--patients", 0, "--snr", 4)
    assert run(lab, "phantom", data, "--model", "adc", *size, "--b-values", 0, 0, 1000, 2000, "--phase") == 0
    options = ("participant", "--nprocs", 1, "--model", "adc", "--skip", "denoise", "motion", "gibbs")
    assert run(main, data, tmp_path / "out", *options) == 0
    stem = "sub-01/dwi/sub-01_part-mag"
    prepared = load(tmp_path / f"out/{stem}_desc-preproc_dwi.nii.gz")
    truth, raw = load(data / "derivatives/truth/sub-01/dwi/sub-01_dseg.nii.gz"), load(data / f"{stem}_dwi.nii.gz")
    air = truth == 0
    sigma = np.sqrt((raw[air] ** 2).mean() / 2)
    assert abs(prepared[air].mean()) < 0.1 * sigma
    assert prepared[air].std() == pytest.approx(sigma, rel=0.05)
    content = sidecar(tmp_path / "out", f"{stem}_model-adc_param-adc_desc-lsq_dwimap")
    assert content["Model"]["Parameters"]["NoiseKind"] == "gaussian"
    assert sidecar(tmp_path / "out", f"{stem}_desc-preproc_dwi")["Preprocessing"]["Phase"] == "lowpass"
    inputs = (tmp_path / "out/prov").glob("**/*.json")
    assert any("bids:raw:sub-01/dwi/sub-01_part-phase_dwi.nii.gz" in path.read_text() for path in inputs)
    assert "real part was taken" in (tmp_path / "out/logs/CITATION.md").read_text()
