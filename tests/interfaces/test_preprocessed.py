"""What a preprocessed image leaves among the derivatives."""

import json

import nibabel as nib
import numpy as np
import pytest

from bidsfit.bids.inputs import find_images, open_dataset
from bidsfit.interfaces.preprocessed import WritePreprocessed

STEPS = {"Denoise": "mppca", "Gibbs": "none"}
PREPROC = "sub-01/dwi/sub-01_desc-preproc_dwi"


@pytest.fixture
def write(tiny, tmp_path, run_in):
    """``write(...)``: write the signals of a tiny image as its preprocessed ones; the output folder."""
    path = tiny.add("sub-01/dwi/sub-01_dwi", sidecar={"EchoTime": 0.08, "PhaseEncodingDirection": "j"})
    (image,) = find_images(open_dataset(tiny.root, "raw"), [], ["01"]).images

    def run(**inputs):
        given = {"in_file": str(path), "bval": str(image.bval), "bvec": str(image.bvec), **inputs}
        out = tmp_path / "out"
        run_in(
            WritePreprocessed(image=image.to_dict(), sidecar=image.sidecar, steps=STEPS, output_dir=str(out), **given)
        )
        return out

    return run


def like(tiny, folder, values, name="volume.nii"):
    nib.save(nib.Nifti1Image(np.asarray(values, dtype=np.float32), tiny.AFFINE), folder / name)
    return str(folder / name)


def test_the_sidecar_says_what_was_done_and_keeps_what_stays_true(write):
    content = json.loads((write() / f"{PREPROC}.json").read_text())
    assert content["Preprocessing"] == STEPS
    assert content["EchoTime"] == 0.08
    assert "PhaseEncodingDirection" not in content  # a corrected image has no distortion to undo
    assert content["Sources"] == ["bids:raw:sub-01/dwi/sub-01_dwi.nii.gz"]


def test_the_sidecar_says_what_was_planned_and_left_out(write, tmp_path):
    (tmp_path / "denoise.json").write_text('{"step": "denoise", "refused": "it did not work"}')
    (tmp_path / "gibbs.json").write_text('{"step": "gibbs"}')
    facts = [str(tmp_path / f"{name}.json") for name in ("denoise", "gibbs")]
    content = json.loads((write(facts=facts) / f"{PREPROC}.json").read_text())
    assert content["Preprocessing"] == {"Denoise": "none", "Gibbs": "none"}
    assert content["PreprocessingLeftOut"] == {"Denoise": "it did not work"}


def test_the_signals_and_tables_are_those_given(write, tiny):
    out = write()
    np.testing.assert_array_equal(nib.load(out / f"{PREPROC}.nii.gz").get_fdata(), tiny.signals())
    np.testing.assert_array_equal(np.loadtxt(out / f"{PREPROC}.bval"), tiny.B_VALUES)
    assert (out / f"{PREPROC}.bvec").exists()
    assert not list(out.rglob("*_param-noise_*"))


def test_voxels_without_a_signal_become_nan(write, tiny, tmp_path):
    missing = np.zeros(tiny.SHAPE)
    missing[2, 3, 1] = 1
    data = nib.load(write(missing=like(tiny, tmp_path, missing)) / f"{PREPROC}.nii.gz").get_fdata()
    assert np.isnan(data[2, 3, 1]).all()
    assert np.isnan(data).sum() == len(tiny.B_VALUES)


def test_the_noise_map_says_how_it_was_found(write, tiny, tmp_path):
    out = write(noise_map=like(tiny, tmp_path, np.full(tiny.SHAPE, 7.0)), noise_words="a test")
    content = json.loads((out / "sub-01/dwi/sub-01_model-noise_param-noise_desc-preproc_dwimap.json").read_text())
    assert content["Method"] == "a test"
    assert content["Sources"] == ["bids:raw:sub-01/dwi/sub-01_dwi.nii.gz"]
    level = nib.load(out / "sub-01/dwi/sub-01_model-noise_param-noise_desc-preproc_dwimap.nii.gz")
    assert (level.get_fdata() == 7).all()
