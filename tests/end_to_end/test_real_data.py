"""Real images run to maps and a report; the datasets lie beside the project and are only read."""

import re
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

DATA = Path(__file__).resolve().parents[2].parent / "shared" / "data"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not DATA.is_dir(), reason="the real datasets are not beside the project"),
]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """``run(name)``: the outputs of a copy of a dataset with its masks, in its derivatives."""
    from bidsfit.cli.app import main

    def call(name):
        root = tmp_path_factory.mktemp("real") / name
        shutil.copytree(DATA / name, root)
        out = root / "derivatives" / "bidsfit"
        words = [root, out, "participant", "-d", f"masks={root / 'derivatives' / 'masks'}", "--nprocs", "2"]
        assert main([str(word) for word in words]) == 0
        return root, out

    return call


@pytest.fixture(scope="module")
def brain(run):
    return run("ds-brain-2shell")


@pytest.fixture(scope="module")
def cord(run):
    return run("ds-cord-ivim")


def median(out, name):
    (path,) = out.folder.rglob(f"*{name}_dwimap.nii.gz")
    name = path.name.removesuffix(".nii.gz")
    status = out.data(re.sub("_param-[^_]+_", "_param-status_", name))
    return np.median(out.data(name)[np.isin(status, (1, 2, 3))])


def test_brain(brain, outputs, valid):
    """Two shells: ADC, the tensor of the lower one, and SMT."""
    out = outputs(brain[1])
    assert {name.split("model-")[1].split("_")[0] for name in out.maps()} == {"adc", "dti", "smt2"}
    assert 0.6e-3 < median(out, "model-adc_param-adc_desc-lsq") < 1.1e-3
    assert 0.3 < median(out, "model-smt2_param-vcyl_desc-lsq") < 0.8
    assert 0.8e-3 < median(out, "model-smt2_param-lambda_desc-lsq") < 2.6e-3
    assert "negative" in out.report()  # some intensities are
    assert valid(brain[0])
    assert valid(brain[1])


def test_cord(cord, outputs, valid):
    """IVIM without b = 0, from the mask of the cord."""
    out = outputs(cord[1])
    assert {name.split("model-")[1].split("_")[0] for name in out.maps()} == {"adc", "ivim"}
    assert 0.5e-3 < median(out, "model-adc_param-adc_desc-lsq") < 1.8e-3
    assert 0.3e-3 < median(out, "model-ivim_param-D_desc-lsq") < 1.8e-3
    assert 0.05 < median(out, "model-ivim_param-f_desc-lsq") < 0.6
    assert 3e-3 <= median(out, "model-ivim_param-Dstar_desc-lsq") <= 0.2
    assert "There is no image at b = 0: the lowest b-value is 5" in out.report()
    name = next(iter(out.maps())).removesuffix(".nii.gz")
    assert out.sidecar(name)["Sources"][1].endswith("label-cord_mask.nii.gz")
    assert valid(cord[0])
    assert valid(cord[1])


def test_brain_without_its_mask(app, outputs, tmp_path):
    """The mask that is found is about the one that came with the data."""
    source = DATA / "ds-brain-2shell"
    assert (
        app(source, tmp_path / "out", "participant", "--preprocess", "none", "--model", "adc", "--nprocs", 2).code == 0
    )
    found = outputs(tmp_path / "out").data("sub-01_desc-brain_mask") > 0
    given = nib.load(next((source / "derivatives" / "masks").rglob("*_mask.nii.gz"))).get_fdata() > 0
    assert 2 * np.sum(found & given) / (found.sum() + given.sum()) > 0.95


def test_the_originals_are_untouched(brain, cord):
    for copy, _ in (brain, cord):
        for path in (DATA / copy.name).rglob("*"):
            if path.is_file():
                assert (copy / path.relative_to(DATA / copy.name)).read_bytes() == path.read_bytes()
