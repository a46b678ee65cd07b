"""The node that says how good an image is."""

import json

import nibabel as nib
import numpy as np
import pytest

from bidsfit.acquisition import Acquisition
from bidsfit.bids.inputs import find_images, open_dataset
from bidsfit.interfaces.quality import AssessQuality, described
from bidsfit.steps.motion import MOTION

SHAPE, B_VALUES = (16, 16, 4), (0, 0, 0, 0, *[1000] * 6)


@pytest.fixture
def assess(tiny, tmp_path, run_in):
    """``assess(data)``: the output folder and the record of an image of these data."""

    def run(data, b_values=B_VALUES, **inputs):
        path = tiny.add("sub-01/dwi/sub-01_dwi", data=data, b_values=b_values)
        (image,) = find_images(open_dataset(tiny.root, "raw"), [], ["01"]).images
        mask = np.zeros(SHAPE)
        mask[2:14, 2:14] = 1
        nib.save(nib.Nifti1Image(mask.astype(np.uint8), tiny.AFFINE), tmp_path / "mask.nii")
        given = {"in_file": str(path), "bval": str(image.bval), "bvec": str(image.bvec)}
        interface = AssessQuality(
            image=image.to_dict(),
            source=image.uri,
            mask=str(tmp_path / "mask.nii"),
            output_dir=str(tmp_path / "out"),
            **given,
            **inputs,
        )
        with open(run_in(interface).record) as file:
            return tmp_path / "out", json.load(file)

    return run


def signals(seed=0):
    rng = np.random.default_rng(seed)
    data = np.where(np.array(B_VALUES) > 0, 300.0, 1000.0) + rng.normal(0, 10, (*SHAPE, len(B_VALUES)))
    return data.astype(np.float32)


def test_an_image_that_is_taken_as_it_is_has_its_quality(assess):
    out, record = assess(signals())
    assert record["steps"] == []
    assert record["output"] == ""
    assert record["source"] == "bids:raw:sub-01/dwi/sub-01_dwi.nii.gz"
    assert {"carpet", "registration"} <= set(record["figures"])
    assert not {"traces", "snr"} & set(record["figures"])  # neither motion nor noise is known
    assert len((out / "sub-01/dwi/sub-01_desc-confounds_timeseries.tsv").read_text().splitlines()) == 11
    assert json.loads((out / "sub-01/dwi/sub-01_desc-quality_dwi.json").read_text())["n_voxels"] == 12 * 12 * 4


def test_the_methods_text_tells_what_was_done_and_not_what_was_planned(assess, tmp_path):
    steps = [
        {"name": name, "title": name, "method": "m", "applied": True, "reason": ""} for name in ("gibbs", "motion")
    ]
    sentences = {"gibbs": "Ringing was removed.", "motion": "Motion was corrected."}
    told = {"gibbs": {}, "motion": {"refused": "the volumes became less alike"}}
    for name, facts in told.items():
        (tmp_path / f"{name}.json").write_text(json.dumps({"step": name, **facts}))
    given = {"facts": [str(tmp_path / f"{name}.json") for name in told]}
    _, record = assess(signals(), steps=steps, methods=sentences, **given)
    assert record["methods"] == ["Ringing was removed."]
    assert record["warnings"] == ["motion: left out, the volumes became less alike"]

    (tmp_path / "motion.json").write_text(json.dumps({"step": "motion", "methods": "No volume was moved."}))
    _, record = assess(signals(1), steps=steps, methods=sentences, **given)
    assert record["methods"] == ["Ringing was removed.", "No volume was moved."]


def test_the_methods_text_tells_of_volumes_that_were_left_out(assess):
    gone = [{"Volume": k, "BValue": 0, "Reason": "it holds only zeros"} for k in (1, 11)]
    _, record = assess(signals(), left_out=gone)
    assert record["methods"] == [
        "Of the 12 volumes of sub-01_dwi, 2 were left out before everything else, because they are no diffusion images "
        "of the b-value given."
    ]


def test_figures_without_anything_to_show_are_not_drawn(assess):
    """Every volume has a b-value of its own, and the noise level is not known."""
    _, record = assess(signals(), b_values=range(0, 1000, 100))
    assert not {"carpet", "snr", "outliers"} & set(record["figures"])


@pytest.mark.parametrize("b_values", [B_VALUES, range(0, 1000, 100)])
def test_what_motion_correction_changed_is_to_be_seen(b_values):
    """A shell of one volume has no spread: the picture was black."""
    data = signals()
    pictures, names = MOTION.pictures(Acquisition(b_values))
    assert len(names) == (1 if b_values == B_VALUES else 2)
    assert np.ptp(pictures(data)) > 0


def test_a_volume_that_lost_signal_is_found(assess):
    data = signals()
    data[..., 6] *= 0.6
    out, record = assess(data)
    lines = (out / "sub-01/dwi/sub-01_desc-confounds_timeseries.tsv").read_text().splitlines()
    column = lines[0].split("\t").index("is_outlier")
    assert [int(line.split("\t")[column]) for line in lines[1:]] == [0, 0, 0, 0, 0, 0, 1, 0, 0, 0]
    assert record["quality"]["n_outlier_volumes"] == 1


def test_motion_is_told_where_it_is_known(assess, tmp_path):
    transforms = np.tile(np.eye(4), (len(B_VALUES), 1, 1))
    transforms[3:, 0, 3] = 2.0
    np.save(tmp_path / "transforms.npy", transforms)
    out, record = assess(signals(), transforms=str(tmp_path / "transforms.npy"))
    table = np.genfromtxt(out / "sub-01/dwi/sub-01_desc-confounds_timeseries.tsv", names=True, missing_values="n/a")
    np.testing.assert_allclose(table["trans_x"], [0, 0, 0, 2, 2, 2, 2, 2, 2, 2], atol=1e-6)
    assert record["quality"]["fd_max"] == pytest.approx(2)
    assert "traces" in record["figures"]


def test_steps_say_what_they_found_or_why_they_refused():
    row = {"name": "tissue", "title": "Tissue masks", "method": "a method", "applied": True, "reason": ""}
    found = described(row, {"words": "found", "seconds": 2.0})
    assert found == {**row, "reason": "found", "refused": "", "seconds": 2.0}
    refused = described(row, {"refused": "it does not lie on the image"})
    assert not refused["applied"]
    assert refused["reason"] == refused["refused"] == "it does not lie on the image"
