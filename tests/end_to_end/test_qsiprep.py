"""From derivatives of QSIPrep to maps, against the truth of a phantom."""

import nibabel as nib
import numpy as np
import pytest

STEM = "sub-01_ses-1_space-ACPC_res-2mm"


@pytest.fixture(scope="module")
def fitted(qsiprep_phantom, tmp_path_factory, without_figures):
    """The output folder of a run on the derivatives of QSIPrep."""
    from bidsfit.cli.app import main

    out = tmp_path_factory.mktemp("fitted") / "out"
    with without_figures():
        assert main([str(qsiprep_phantom), str(out), *["participant", "--model", "smt2", "--nprocs", "1"]]) == 0
    return out


def test_the_image_is_fitted_as_it_is_in_its_mask(fitted, qsiprep_phantom, smt_phantom, outputs):
    out = outputs(fitted)
    assert not [name for name in out.files() if "preproc_dwi" in name]
    vcyl = out.image(f"{STEM}_model-smt2_param-vcyl_desc-lsq_dwimap")
    assert nib.aff2axcodes(vcyl.affine) == ("L", "P", "S")
    truth = smt_phantom / "derivatives" / "truth" / "sub-01" / "dwi" / "sub-01_model-smt2_param-vcyl_desc-truth_dwimap"
    expected = np.asarray(nib.load(f"{truth}.nii.gz").dataobj)[::-1, ::-1]
    mask = np.asarray(nib.load(qsiprep_phantom / f"sub-01/ses-1/dwi/{STEM}_desc-brain_mask.nii.gz").dataobj) > 0
    status = out.data(f"{STEM}_model-smt2_param-status_desc-lsq_dwimap")
    np.testing.assert_array_equal(status > 0, mask)
    inside = np.isin(status, (1, 2))
    assert np.median(np.abs(np.asarray(vcyl.dataobj)[inside] - expected[inside])) < 0.01
    uri = f"bids:raw:sub-01/ses-1/dwi/{STEM}_desc-"
    sources = out.sidecar(f"{STEM}_model-smt2_param-vcyl_desc-lsq_dwimap")["Sources"]
    assert sources == [f"{uri}preproc_dwi.nii.gz", f"{uri}brain_mask.nii.gz"]


def test_the_outputs_are_bids(fitted, valid):
    assert valid(fitted)


def test_the_report_says_that_the_noise_may_be_more(fitted, outputs):
    assert "Where it was denoised or resampled" in outputs(fitted).report()
