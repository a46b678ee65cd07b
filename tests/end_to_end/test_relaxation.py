"""Series of images become maps under their BIDS names, with the same companions and report as diffusion images."""

import json
import shutil

import nibabel as nib
import numpy as np
import pytest

from bidsfit.bids.fitted import find_fitted, read_facts
from bidsfit.cli.lab import main

QUICK = ("--nprocs", 1, "--skip-bids-validation")


@pytest.fixture(scope="module")
def series(tmp_path_factory):
    """A phantom of spin echoes of one participant, hardly any noise. Read only."""
    out = tmp_path_factory.mktemp("series") / "ds"
    size = ("--shape", "16", "16", "1", "--participants", "1", "--patients", "0", "--snr", "1000")
    assert main(["phantom", str(out), "--model", "t2", *size]) == 0
    return out


def test_spin_echoes_become_a_report_and_valid_maps(series, app, outputs, valid, blank_figures, tmp_path):
    truth = series / "derivatives" / "truth"
    assert valid(truth)
    words = (series, tmp_path / "out", "participant", "-d", f"truth={truth}", *QUICK)
    outcome = app(*words)
    assert outcome.code == 0, outcome.err
    left, stem = outputs(tmp_path / "out"), "sub-01_mod-MESE_model-t2"
    assert valid(left.folder)
    mask = np.asarray(nib.load(truth / "sub-01/anat/sub-01_desc-brain_mask.nii.gz").dataobj) > 0
    expected = np.asarray(nib.load(truth / "sub-01/anat/sub-01_model-t2_desc-truth_T2map.nii.gz").dataobj)[mask]
    t2, r2, sd = (
        left.data(f"{stem}{part}")[mask] for part in ("_desc-lsq_T2map", "_desc-lsq_R2map", "_stat-sd_desc-lsq_T2map")
    )
    assert np.median(np.abs(t2 / expected - 1)) < 0.01
    np.testing.assert_allclose(t2 * r2, 1, rtol=1e-5)
    assert 0.5 < np.median(np.abs(t2 - expected) / sd) < 0.9  # 0.67 of normal errors
    about = left.sidecar(f"{stem}_desc-lsq_R2map")
    assert about["Units"] == "1/s"
    assert left.sidecar(f"{stem}_desc-lsq_T2map")["Units"] == "s"
    np.testing.assert_allclose(about["EchoTimesFitted"], 0.012 * np.arange(1, 13))
    assert about["Sources"][11] == "bids:raw:sub-01/anat/sub-01_echo-12_MESE.nii.gz"
    report = left.report()
    assert "TE = 12 (x1), 24 (x1)" in report
    assert "it is for diffusion images" in report
    assert "b (s/mm²)" not in report
    assert "MRI data organised according" in report
    assert "Diffusion MRI data" not in report
    (fit,) = find_fitted(left.folder)
    assert (fit.model, fit.labels, fit.series) == ("t2", ("R2", "S0", "T2"), "mod-MESE")
    assert fit.statistic("T2", "sd") == left.path(f"{stem}_stat-sd_desc-lsq_T2map")
    assert read_facts(fit).bounds["T2"] == (0.001, 3.0)
    again = app(*words)  # everything is there
    assert again.code == 0
    outcome = app(*words, "--bounds", "t2.T2=0.001,2")
    assert outcome.code == 73
    assert "sub-01_mod-MESE_model-t2_desc-lsq_S0map.nii.gz exists and was made with other settings" in outcome.err
    assert app(*words, "--bounds", "t2.T2=0.001,2", "--overwrite").code == 0
    (moved,) = left.folder.glob("replaced-*")
    assert {p.name for p in moved.rglob("*T2map.nii.gz")} >= {
        f"{stem}_desc-lsq_T2map.nii.gz",
        f"{stem}_stat-sd_desc-lsq_T2map.nii.gz",
    }


def test_diffusion_images_and_series_are_fitted_side_by_side(series, app, outputs, tiny, blank_figures, tmp_path):
    """All models that the images support; a named model leaves images of other kinds alone."""
    tiny.add("sub-01/dwi/sub-01_dwi")
    shutil.copytree(series / "sub-01" / "anat", tiny / "sub-01/anat")
    words = (tiny, tmp_path / "out", "participant", "--preprocess", "none", "--trust", "off", *QUICK)
    outcome = app(*words, "--dry-run")
    assert outcome.code == 0
    assert "leave out t2" not in outcome.out
    outcome = app(*words, "--model", "adc", "t2")
    assert outcome.code == 0, outcome.err
    left = outputs(tmp_path / "out")
    assert left.path("sub-01_model-adc_param-adc_desc-lsq_dwimap")
    assert left.path("sub-01_mod-MESE_model-t2_desc-lsq_T2map")
    entities = json.loads((left.folder / "prov" / "prov-sub01_ent.json").read_text())["Files"]
    kinds = {entity["Id"].split("/")[1] for entity in entities if entity["Id"].startswith("bids::")}
    assert kinds == {"anat", "dwi"}
    assert app(*words, "--model", "adc").code == 0
    outcome = app(*words, "--model", "t2star")
    assert outcome.code != 0
    assert "sub-01 has no series ([ses-*/]anat/*_MEGRE.nii.gz)" in outcome.err


def test_flip_angles_are_corrected_by_the_transmit_field(app, outputs, valid, blank_figures, tmp_path):
    """With its map T1 is the truth; without, it is wrong by twice the error of the angle, and that is said."""
    dataset = tmp_path / "ds"
    size = ("--shape", "16", "16", "1", "--participants", "1", "--patients", "0", "--snr", "10000")
    assert main(["phantom", str(dataset), "--model", "t1vfa", *size]) == 0
    truth, stem = dataset / "derivatives" / "truth", "sub-01_mod-VFA_model-t1vfa"
    masks = ("-d", f"truth={truth}", "--trust", "off", *QUICK)
    assert valid(truth)
    t1, b1 = (
        np.asarray(nib.load(truth / f"sub-01/anat/sub-01_model-t1vfa_{name}.nii.gz").dataobj)
        for name in ("desc-truth_T1map", "param-B1_desc-truth_anatmap")
    )
    inside = t1 > 0
    assert app(dataset, tmp_path / "with", "participant", *masks).code == 0
    left = outputs(tmp_path / "with")
    assert valid(left.folder)
    assert np.median(np.abs(left.data(f"{stem}_desc-lsq_T1map")[inside] / t1[inside] - 1)) < 0.01
    np.testing.assert_allclose(left.data(f"{stem}_param-B1_desc-lsq_anatmap")[inside], b1[inside], rtol=1e-5)
    assert "bids:raw:sub-01/fmap/sub-01_TB1map.nii.gz" in left.sidecar(f"{stem}_desc-lsq_T1map")["Sources"]
    assert "Flip angles were those of a map of the transmit field" in left.report()
    shutil.rmtree(dataset / "sub-01" / "fmap")
    assert app(dataset, tmp_path / "without", "participant", *masks).code == 0
    left = outputs(tmp_path / "without")
    found = left.data(f"{stem}_desc-lsq_T1map")[inside]
    assert np.median(np.abs(found / (t1 * b1**2)[inside] - 1)) < 0.02
    assert "No TB1map (fmap/) belongs to the image, and B1 is taken for 1" in left.report()
    for k in (2, 3, 5, 6):  # two angles leave no residual, so that the noise is not known
        (dataset / f"sub-01/anat/sub-01_flip-{k}_VFA.nii.gz").unlink()
    words = ("-d", f"truth={truth}", *QUICK)
    assert app(dataset, tmp_path / "two", "participant", *words).code == 0
    report = outputs(tmp_path / "two").report()
    assert "The noise could not be estimated from this image" in report
    assert "nothing can be said about the quality of the fit" in report


def test_inversions_with_restored_polarity_are_fitted_as_magnitudes(app, outputs, blank_figures, tmp_path):
    dataset, stem = tmp_path / "ds", "sub-01_mod-IRT1_model-t1ir"
    size = ("--shape", "16", "16", "1", "--participants", "1", "--patients", "0", "--snr", "1000")
    assert main(["phantom", str(dataset), "--model", "t1ir", *size]) == 0
    truth = dataset / "derivatives" / "truth"
    t1 = np.asarray(nib.load(truth / "sub-01/anat/sub-01_model-t1ir_desc-truth_T1map.nii.gz").dataobj)
    for k in (1, 2):  # before the signal of any tissue passes through zero
        path = dataset / f"sub-01/anat/sub-01_inv-{k}_IRT1.nii.gz"
        image = nib.load(path)
        nib.save(nib.Nifti1Image(-np.asarray(image.dataobj), image.affine, image.header), path)
    words = ("-d", f"truth={truth}", "--estimators", "mle", "--trust", "off", *QUICK)
    assert app(dataset, tmp_path / "out", "participant", *words).code == 0
    left = outputs(tmp_path / "out")
    assert np.median(np.abs(left.data(f"{stem}_desc-mle_T1map")[t1 > 0] / t1[t1 > 0] - 1)) < 0.01
    np.testing.assert_allclose(left.sidecar(f"{stem}_desc-mle_T1map")["InversionTimesFitted"][:2], [0.05, 0.2])


def test_readouts_after_an_inversion_get_their_sign(app, outputs, valid, blank_figures, tmp_path):
    """White matter is above 0 at the first readout of the phantom's protocol, and fluid below."""
    dataset, stem = tmp_path / "ds", "sub-01_mod-MP2RAGE_model-mp2rage"
    size = ("--shape", "24", "24", "1", "--participants", "1", "--patients", "0", "--snr", "20000")
    assert main(["phantom", str(dataset), "--model", "mp2rage", *size]) == 0
    assert valid(dataset)
    truth = dataset / "derivatives" / "truth"
    words = ("-d", f"truth={truth}", "--sigma", "0.05", "--trust", "off", *QUICK)
    assert app(dataset, tmp_path / "out", "participant", *words).code == 0
    left = outputs(tmp_path / "out")
    assert valid(left.folder)
    t1 = np.asarray(nib.load(truth / "sub-01/anat/sub-01_model-mp2rage_desc-truth_T1map.nii.gz").dataobj)
    error = np.abs(left.data(f"{stem}_desc-lsq_T1map")[t1 > 0] / t1[t1 > 0] - 1)
    assert np.quantile(error, [0.5, 0.9]) == pytest.approx([0, 0], abs=0.1)  # magnitudes are whole numbers
    sources = left.sidecar(f"{stem}_desc-lsq_T1map")["Sources"]
    assert [source.rpartition("/")[2] for source in sources[:3]] == [
        "sub-01_inv-1_MP2RAGE.nii.gz",
        "sub-01_inv-2_MP2RAGE.nii.gz",
        "sub-01_UNIT1.nii.gz",
    ]


def test_coefficients_of_fingerprints_become_maps(app, outputs, valid, blank_figures, tmp_path):
    """Complex images of any phase, flip angles of a map; tissue to within what its noise explains."""
    dataset, stem = tmp_path / "ds", "sub-01_mod-MRF_model-mrffisp"
    size = ("--shape", "20", "20", "1", "--participants", "1", "--patients", "0", "--snr", "2000")
    assert main(["phantom", str(dataset), "--model", "mrffisp", *size]) == 0
    assert valid(dataset)
    truth = dataset / "derivatives" / "truth"
    words = ("-d", f"truth={truth}", "--trust", "off", *QUICK)
    outcome = app(dataset, tmp_path / "out", "participant", *words)
    assert outcome.code == 0, outcome.err
    left = outputs(tmp_path / "out")
    assert valid(left.folder)
    true = {
        name: np.asarray(nib.load(truth / f"sub-01/anat/sub-01_model-mrffisp_desc-truth_{name}map.nii.gz").dataobj)
        for name in ("T1", "T2")
    }
    tissue = (true["T2"] > 0) & (true["T2"] < 0.2)
    for name, values in true.items():
        error = np.abs(left.data(f"{stem}_desc-lsq_{name}map")[tissue] / values[tissue] - 1)
        assert np.quantile(error, 0.9) < 0.015
    assert len(left.sidecar(f"{stem}_desc-lsq_T1map")["Sources"]) >= 20


def test_a_cycle_of_pulses_becomes_maps_of_macromolecules(app, outputs, valid, blank_figures, tmp_path):
    """All parameters are free. Another model of trains, and an estimator for fewer parameters, are told to be none."""
    dataset, stem = tmp_path / "ds", "sub-01_mod-MRF_model-qmtgbloch"
    size = ("--shape", "16", "16", "1", "--participants", "1", "--patients", "0", "--snr", "4000")
    assert main(["phantom", str(dataset), "--model", "qmtgbloch", *size]) == 0
    truth = dataset / "derivatives" / "truth"
    assert valid(dataset)
    assert valid(truth)
    sidecar = json.loads((dataset / "sub-01/anat/sub-01_MRF.json").read_text())
    assert sidecar["CrusherState"][:2] == [True, False]
    assert sidecar["PulseDuration"][0] == 0.0005
    tissue = np.asarray(nib.load(truth / "sub-01/anat/sub-01_dseg.nii.gz").dataobj)
    inside = ((tissue == 1) | (tissue == 2)) & (np.indices(tissue.shape).sum(axis=0) % 3 == 0)  # which takes seconds
    mask = nib.load(truth / "sub-01/anat/sub-01_desc-brain_mask.nii.gz")
    nib.save(nib.Nifti1Image(inside.astype(np.uint8), mask.affine), mask.get_filename())
    (dataset / "sub-01/fmap").mkdir()
    nib.save(
        nib.Nifti1Image(np.ones(mask.shape, np.float32), mask.affine), dataset / "sub-01/fmap/sub-01_TB1map.nii.gz"
    )
    words = ("-d", f"truth={truth}", "--trust", "off", "--estimators", "lsq", "dictionary", *QUICK)
    outcome = app(dataset, tmp_path / "out", "participant", *words)
    assert "dictionary of --estimators fits nothing. qmtgbloch: A dictionary covers at most" in outcome.err
    assert "not mrffisp, missing: one pulse duration" in outcome.out
    assert "echo times (TE, EchoTime of the metadata)" in outcome.out
    left = outputs(tmp_path / "out")
    assert valid(left.folder)
    for label, limit in (("m0s", 0.03), ("R1f", 0.02), ("R2f", 0.02), ("Rx", 0.06)):
        path = truth / f"sub-01/anat/sub-01_model-qmtgbloch_param-{label}_desc-truth_anatmap.nii.gz"
        expected = np.asarray(nib.load(path).dataobj)
        error = left.data(f"{stem}_param-{label}_desc-lsq_anatmap")[inside] / expected[inside] - 1
        assert np.median(np.abs(error)) < limit, label
    about = left.sidecar(f"{stem}_param-f0_desc-lsq_anatmap")
    assert about["Units"] == "Hz"
    assert not any("TB1map" in source for source in about["Sources"])  # B1 is estimated


def test_saturation_at_several_offsets_is_fitted(app, outputs, valid, blank_figures, tmp_path):
    """Without a map of the transmit field, which the phantom has, the pool size ratio would be off by its square."""
    dataset, stem = tmp_path / "ds", "sub-01_acq-qmt_mod-MTR_model-qmtramani"
    size = ("--shape", "16", "16", "1", "--participants", "1", "--patients", "0", "--snr", "5000")
    assert main(["phantom", str(dataset), "--model", "qmtramani", *size]) == 0
    truth = dataset / "derivatives" / "truth"
    assert valid(dataset)
    assert valid(truth)
    words = ("-d", f"truth={truth}", "--trust", "off", *QUICK)
    assert app(dataset, tmp_path / "out", "participant", *words).code == 0
    left = outputs(tmp_path / "out")
    assert valid(left.folder)
    for label, limit in (("PSR", 0.01), ("T2m", 0.01), ("kmf", 0.03)):
        path = truth / f"sub-01/anat/sub-01_model-qmtramani_param-{label}_desc-truth_anatmap.nii.gz"
        expected = np.asarray(nib.load(path).dataobj)
        tissue = np.asarray(nib.load(truth / "sub-01/anat/sub-01_dseg.nii.gz").dataobj)
        inside = (tissue == 1) | (tissue == 2)
        error = left.data(f"{stem}_param-{label}_desc-lsq_anatmap")[inside] / expected[inside] - 1
        assert np.median(np.abs(error)) < limit
    about = left.sidecar(f"{stem}_param-T2m_desc-lsq_anatmap")
    assert about["Units"] == "s"
    assert about["Sources"][0] == "bids:raw:sub-01/anat/sub-01_acq-qmt1_mt-off_MTR.nii.gz"
    assert "saturation amplitude" in left.report() or "µT" in left.report()
