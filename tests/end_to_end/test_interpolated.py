"""Images with the noise of acquired voxels, and with that of voxels that zero filling interpolated."""

import json

import nibabel as nib
import numpy as np
import pytest
from scipy.ndimage import binary_erosion

pytestmark = pytest.mark.usefixtures("blank_figures")

SIGMA = 30.0


@pytest.mark.parametrize(
    ("factor", "sidecar", "skipped"), [(1, None, ["denoise", "gibbs", "motion"]), (2, True, []), (2, None, ["motion"])]
)
def test_noise_and_floor_are_those_of_the_voxels(app, tiny, scanned, tmp_path, factor, sidecar, skipped):
    """Told by the matrices of the sidecar, or by the data."""
    b_values = [0] * 4 + [1000] * 20
    data, inside = scanned(24, (factor, factor), b_values=b_values)
    matrices = {"AcquisitionMatrixPE": 24, "ReconMatrixPE": 24 * factor} if sidecar else None
    tiny.add("sub-01/dwi/sub-01_dwi", data=data.astype(np.float32), b_values=b_values, sidecar=matrices)
    out = tmp_path / "out"
    skip = ["--skip", *skipped] if skipped else []
    planned = app(tiny, out, "participant", "--model", "adc", *skip, "--dry-run")
    assert ("The image was interpolated: 24 lines" in planned.out) == (sidecar is not None)
    outcome = app(tiny, out, "participant", "--nprocs", 1, "--model", "adc", *skip)
    assert outcome.code == 0
    assert ("interpolated: 24 lines" in outcome.out or "Noise was left out" in outcome.err) == (factor > 1)

    def load(name):
        return nib.load(out / f"sub-01/dwi/sub-01_{name}_dwimap.nii.gz").get_fdata()

    adc = load("model-adc_param-adc_desc-lsq")
    tissue = binary_erosion(inside, np.ones((5, 5, 1))) & np.isfinite(adc)  # without ringing at the edge
    assert np.median(load("model-noise_param-noise_desc-preproc")[tissue]) == pytest.approx(SIGMA, rel=0.1)
    for kind in ("sd", "crb"):
        error = (adc[tissue] - 1e-3) / load(f"model-adc_param-adc_stat-{kind}_desc-lsq")[tissue]
        assert np.sqrt(np.mean(error**2)) == pytest.approx(1, abs=0.3)

    told = json.loads((out / "sub-01/dwi/sub-01_desc-preproc_dwi.json").read_text())
    assert ("Interpolation" in told) == (factor > 1)
    assert told["Preprocessing"]["Denoise"] == told["Preprocessing"]["Gibbs"] == "none"
    report = (out / "sub-01.html").read_text()
    assert ("Neighbouring voxels share noise" in report) == (factor > 1)
    assert ("MP-PCA takes the noise of neighbouring voxels for independent" in report) == (factor > 1)
