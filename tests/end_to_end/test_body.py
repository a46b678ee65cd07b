"""An abdomen that breathes, of known diffusivity, through the whole app: what undoing the breath gains."""

import json
import re
import shutil

import nibabel as nib
import numpy as np
import pytest

from bidsfit.cli.app import main
from bidsfit.cli.lab import main as lab
from bidsfit.phantom.tissue import ABDOMEN

pytestmark = pytest.mark.usefixtures("blank_figures")

ADC = "sub-01_model-adc_param-adc_desc-lsq_dwimap"
OPTIONS = ("participant", "--nprocs", 1, "--model", "adc", "--skip", "denoise", "gibbs", "rician")


def run(command, *words):
    assert command([str(word) for word in words]) == 0


@pytest.fixture(scope="module")
def abdomen(tmp_path_factory):
    """Another depth of the breath in every volume, by up to 25 mm; nothing else is wrong."""
    out = tmp_path_factory.mktemp("abdomen") / "ds"
    size = ("--shape", 40, 32, 12, "--participants", 1, "--patients", 0, "--snr", 40)
    run(lab, "phantom", out, "--model", "adc", "--anatomy", "abdomen", "--breathing", 25, *size)
    return out


@pytest.fixture(scope="module")
def errors(abdomen):
    """``errors(folder)``: root mean square error of ADC (mm^2/s) in the organs, where both runs have a value."""
    truth = abdomen / "derivatives/truth/sub-01/dwi"
    tissue = nib.load(truth / "sub-01_dseg.nii.gz").get_fdata()
    true = nib.load(truth / "sub-01_model-adc_param-adc_desc-truth_dwimap.nii.gz").get_fdata()

    def of(*folders):
        maps = [nib.load(folder / f"sub-01/dwi/{ADC}.nii.gz").get_fdata() for folder in folders]
        told = np.all(np.isfinite(maps) & (np.array(maps) > 0), axis=0)  # 0 lies outside the mask
        return [
            {
                organ: np.sqrt(np.mean((found - true)[told & (tissue == ABDOMEN[organ])] ** 2))
                for organ in ("liver", "spleen", "kidney")
            }
            for found in maps
        ]

    return of


@pytest.fixture(scope="module")
def corrected(abdomen, tmp_path_factory, without_figures):
    """The body part is told by the sidecar."""
    out = tmp_path_factory.mktemp("corrected") / "out"
    with without_figures():
        run(main, abdomen, out, *OPTIONS)
    return out


def test_undoing_the_breath_brings_the_map_nearer_to_the_truth(abdomen, corrected, errors, tmp_path):
    run(main, abdomen, tmp_path / "out", *OPTIONS, "motion")
    without, with_it = errors(tmp_path / "out", corrected)
    for organ, least in (("liver", 0.75), ("spleen", 0.75), ("kidney", 0.9)):
        assert with_it[organ] < least * without[organ], organ


def test_what_was_done_is_told(corrected):
    record = json.loads((corrected / "sub-01/figures/sub-01_desc-preprocessing_record.json").read_text())
    (motion,) = [step for step in record["steps"] if step["name"] == "motion"]
    assert motion["applied"]
    content = json.loads((corrected / "sub-01/dwi/sub-01_desc-preproc_dwi.json").read_text())
    assert content["Preprocessing"]["Motion"] == "deformable"
    assert "one displacement that all volumes share" in (corrected / "logs/CITATION.md").read_text()
    moved = re.search(
        r"tissue moves by ([\d.]+) mm in the mean, ([\d.]+) mm at most", (corrected / "sub-01.html").read_text()
    )
    assert 5 < float(moved[1]) < float(moved[2]) < 60


def test_a_body_can_be_told_on_the_command_line(abdomen, corrected, tmp_path):
    """A sidecar that does not tell, and the same map."""
    data, out = tmp_path / "ds", tmp_path / "out"
    shutil.copytree(abdomen, data, ignore=shutil.ignore_patterns("derivatives"))
    sidecar = data / "sub-01/dwi/sub-01_dwi.json"
    content = json.loads(sidecar.read_text())
    assert content.pop("BodyPart") == "ABDOMEN"
    sidecar.write_text(json.dumps(content))
    run(main, data, out, *OPTIONS, "--body-part", "body")
    there, here = (nib.load(folder / f"sub-01/dwi/{ADC}.nii.gz").get_fdata() for folder in (corrected, out))
    np.testing.assert_array_equal(there, here)
