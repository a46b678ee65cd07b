"""Series of images: which files belong together, their metadata, and what is said where something is missing."""

import json

import numpy as np
import pytest

from bidsfit.bids.acquisitions import read_acquisition
from bidsfit.bids.inputs import InputImage, find_images, open_dataset
from bidsfit.bids.outputs import map_path, sources_of
from bidsfit.bids.series import series_shape
from bidsfit.exceptions import UnusableInputError

SUFFIXES = ("dwi", "MESE", "MEGRE")


@pytest.fixture
def echoes(tiny):
    """``echoes(times)``: add a series of spin echoes, an echo every file; ``tiny`` is the dataset."""

    def add(times=(0.02, 0.04, 0.08), stem="sub-01/anat/sub-01", suffix="MESE", **sidecar):
        data = tiny.signals([0])[..., 0]
        for k, time in enumerate(times, start=1):
            tiny.nifti(f"{stem}_echo-{k}_{suffix}.nii.gz", (data * np.exp(-time / 0.08)).astype(np.float32))
            content = {"EchoTime": time} | sidecar
            tiny.write(
                f"{stem}_echo-{k}_{suffix}.json", json.dumps({k: v for k, v in content.items() if v is not None})
            )
        return tiny

    return add


def found_in(dataset, *others, **options):
    derivatives = [open_dataset(other.root, "masks", derivative=True) for other in others]
    return find_images(open_dataset(dataset.root, "raw"), derivatives, ["01"], suffixes=SUFFIXES, **options)


def test_files_that_differ_in_the_echo_are_one_image(echoes):
    tiny = echoes(0.01 * np.arange(1, 12), MagneticFieldStrength=3)
    echoes(stem="sub-01/anat/sub-01_acq-fine")
    echoes(suffix="MEGRE")
    fine, plain, gradient = sorted(found_in(tiny).images, key=lambda image: image.name)[:3][::1]
    assert [image.name for image in (fine, plain, gradient)] == [
        "sub-01_acq-fine_mod-MESE", "sub-01_mod-MEGRE", "sub-01_mod-MESE"
    ]  # fmt: skip
    assert [path.name for path in gradient.series][8:] == [f"sub-01_echo-{k}_MESE.nii.gz" for k in (9, 10, 11)]
    assert (gradient.title, gradient.suffix, gradient.datatype) == ("sub-01_MESE", "MESE", "anat")
    acquisition = read_acquisition(None, None, gradient.sidecar)
    np.testing.assert_allclose(acquisition.columns["TE"], 10.0 * np.arange(1, 12))
    assert "b" not in acquisition.columns
    assert gradient.sidecar["MagneticFieldStrength"] == 3
    assert sources_of(gradient)[10] == "bids:raw:sub-01/anat/sub-01_echo-11_MESE.nii.gz"
    assert series_shape(gradient.series) == (*tiny.SHAPE, 11)
    assert InputImage.from_dict(json.loads(json.dumps(gradient.to_dict()))) == gradient


def test_metadata_are_inherited_and_phases_are_left_out(echoes):
    tiny = echoes(stem="sub-01/anat/sub-01", EchoTime=None)
    for k in (1, 2, 3):
        tiny.nifti(f"sub-01/anat/sub-01_echo-{k}_part-phase_MESE.nii.gz", np.zeros(tiny.SHAPE, np.float32))
        tiny.write(f"echo-{k}_MESE.json", json.dumps({"EchoTime": 0.03 * k}))
    (image,) = found_in(tiny).images
    assert image.sidecar["EchoTime"] == [0.03, 0.06, 0.09]


@pytest.mark.parametrize(
    ("sidecar", "words"),
    [
        ({"EchoTime": None}, "sub-01_echo-1_MESE.nii.gz has no EchoTime in its metadata, which BIDS requires of MESE. "
                             "Write it, in seconds, to sub-01_echo-1_MESE.json."),
        ({"EchoTime": 20}, "EchoTime is 20; expected a positive number of seconds, at most 10."),
        ({"EchoTime": "soon"}, "EchoTime is 'soon'; expected a positive number of seconds"),
    ],
)  # fmt: skip
def test_missing_and_wrong_metadata_are_told(echoes, sidecar, words):
    (problem,) = found_in(echoes(**sidecar)).problems
    assert words in problem.message


def test_a_file_without_echo_is_told(echoes):
    tiny = echoes()
    tiny.nifti("sub-01/anat/sub-01_acq-all_MESE.nii.gz", np.zeros((*tiny.SHAPE, 3), np.float32))
    found = found_in(tiny)
    assert len(found.images) == 1
    assert "has no echo- in its name" in found.problems[0].message
    assert "sub-01_acq-all_echo-1_MESE.nii.gz" in found.problems[0].message


def test_other_grids_and_several_volumes_are_told(echoes):
    tiny = echoes()
    paths = found_in(tiny).images[0].series
    tiny.nifti(
        "sub-01/anat/sub-01_echo-2_MESE.nii.gz", tiny.signals([0])[..., 0], affine=tiny.AFFINE + 5 * np.eye(4, k=3)
    )
    with pytest.raises(UnusableInputError, match=r"echo-2_MESE\.nii\.gz lies on another grid than sub-01_echo-1_MESE"):
        series_shape(paths)
    tiny.nifti("sub-01/anat/sub-01_echo-2_MESE.nii.gz", tiny.signals([0, 0]))
    with pytest.raises(UnusableInputError, match="a file of a series holds one volume"):
        series_shape(paths)


def test_masks_of_other_images_of_anat_are_not_taken(echoes, masks):
    """A mask of the T1w image has a name that fits and another grid."""
    tiny = echoes()
    masks.add_mask("sub-01/anat/sub-01_desc-brain_mask", data=np.ones((9, 9, 9), np.uint8))
    (image,) = found_in(tiny, masks).images
    assert image.mask is None
    assert "No mask fits sub-01_echo-1_MESE.nii.gz by its name and grid" in image.no_mask
    masks.add_mask("sub-01/anat/sub-01_mod-MESE_desc-brain_mask")
    (image,) = found_in(tiny, masks).images
    assert image.mask_uri == "bids:masks:sub-01/anat/sub-01_mod-MESE_desc-brain_mask.nii.gz"


def test_filters_choose_among_series(echoes):
    tiny = echoes()
    echoes(stem="sub-01/anat/sub-01_acq-fine")
    (image,) = found_in(tiny, filters={"anat": {"acquisition": "fine"}}).images
    assert image.name == "sub-01_acq-fine_mod-MESE"


def test_who_has_nothing_is_told_what_was_looked_for(tiny):
    tiny.write("sub-01/anat/sub-01_T1w.json", "{}")
    (problem,) = found_in(tiny).problems
    assert "dwi/*_dwi.nii.gz) and no series ([ses-*/]anat/*_MESE or _MEGRE.nii.gz)" in problem.message


def test_maps_have_the_suffixes_of_bids():
    own = ("anat", "sub-01_mod-MESE", "t2")
    names = {
        ("T2", ""): "sub-01_mod-MESE_model-t2_desc-lsq_T2map.nii.gz",
        ("R2", "sd"): "sub-01_mod-MESE_model-t2_stat-sd_desc-lsq_R2map.nii.gz",
        ("rmse", ""): "sub-01_mod-MESE_model-t2_param-rmse_desc-lsq_anatmap.nii.gz",
    }
    for (label, statistic), name in names.items():
        assert map_path(*own, label, "lsq", "anatmap", statistic).name == name
    assert (
        map_path("dwi", "sub-01", "adc", "S0", "lsq", "dwimap").name
        == "sub-01_model-adc_param-S0_desc-lsq_dwimap.nii.gz"
    )
