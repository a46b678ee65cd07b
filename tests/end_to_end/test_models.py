"""Models that no other run fits: from the BIDS dataset of their phantom to maps near the truth."""

import nibabel as nib
import numpy as np
import pytest

from bidsfit.cli.lab import main

#: Maps by model, with the largest median of their absolute error (mm²/s and mm⁴/s² of dki and fwdti, else s or shares).
LARGEST_ERRORS = {
    "dki": {"param-Vxxxx_{}_dwimap": 1e-7},
    "noddi": {"param-icvf_{}_dwimap": 0.01, "param-od_{}_dwimap": 0.01, "param-isovf_{}_dwimap": 0.015},
    "fwdti": {"param-fa_{}_dwimap": 0.007, "param-md_{}_dwimap": 1e-5, "param-fw_{}_dwimap": 0.01},
    "sirqmt": {"{}_T1map": 0.03, "param-PSR_{}_anatmap": 0.01},
    "t2star": {"{}_T2starmap": 0.0015},
}


@pytest.mark.parametrize(("model", "largest"), LARGEST_ERRORS.items())
def test_a_phantom_becomes_maps_near_the_truth(model, largest, app, outputs, valid, blank_figures, tmp_path):
    dataset, out = tmp_path / "ds", tmp_path / "out"
    size = ("--shape", "16", "16", "1", "--participants", "1", "--patients", "0", "--snr", "300")
    assert main(["phantom", str(dataset), "--model", model, *size]) == 0
    truth = dataset / "derivatives" / "truth"
    words = ("-d", f"truth={truth}", "--preprocess", "none", "--trust", "off", "--nprocs", 1)
    outcome = app(dataset, out, "participant", "--model", model, "--skip-bids-validation", *words)
    assert outcome.code == 0, outcome.err
    left = outputs(out)
    assert valid(left.folder)
    (mask,) = truth.rglob("*_desc-brain_mask.nii.gz")
    inside = np.asarray(nib.load(mask).dataobj) > 0
    for name, limit in largest.items():
        (path,) = left.folder.rglob(f"*_model-{model}_{name.format('desc-lsq')}.nii.gz")
        (known,) = truth.rglob(f"*_model-{model}_{name.format('desc-truth')}.nii.gz")
        error = (nib.load(path).get_fdata() - nib.load(known).get_fdata())[inside]
        assert np.nanmedian(np.abs(error)) < limit, name
        assert np.isfinite(error).mean() > 0.9, name
