"""Regions of an image from masks and segmentations, the most specific ones on its grid."""

import json

import numpy as np
import pytest

from bidsfit.bids.images import open_image
from bidsfit.bids.inputs import Folder
from bidsfit.bids.regions import find_regions, region_files

IMAGE = "sub-01_ses-1_acq-ap"
ONE, TWO = np.zeros((2, 5, 6, 3), dtype=np.uint8)
ONE[1], TWO[2] = 1, 1
LABELS = ONE + 2 * TWO


@pytest.fixture
def find(masks, tmp_path):
    """``find(wanted...)``: regions of `IMAGE`."""
    like = masks.nifti("like.nii.gz", LABELS)

    def run(*wanted, image=IMAGE, datasets=(), **options):
        files = region_files([*datasets, Folder("rois", masks.root)], "01")
        return find_regions(files, image, open_image(like), wanted, **options)

    return run


def test_a_mask_is_a_region(masks, find):
    masks.nifti("sub-01/ses-1/dwi/sub-01_ses-1_label-tumour_mask.nii.gz", ONE)
    masks.nifti("sub-01/ses-1/dwi/sub-01_ses-1_desc-brain_mask.nii.gz", TWO)  # no region
    masks.nifti("sub-01/ses-2/dwi/sub-01_ses-2_label-liver_mask.nii.gz", TWO)  # of another session
    found = find()
    assert found.sources == {"tumour": "bids:rois:sub-01/ses-1/dwi/sub-01_ses-1_label-tumour_mask.nii.gz"}
    np.testing.assert_array_equal(found.masks["tumour"], ONE == 1)
    assert found.remarks == ()


def test_a_mask_of_the_session_comes_before_one_of_the_participant(masks, find):
    masks.nifti("sub-01/dwi/sub-01_label-tumour_mask.nii.gz", TWO)
    np.testing.assert_array_equal(find().masks["tumour"], TWO == 1)
    masks.nifti("sub-01/ses-1/dwi/sub-01_ses-1_label-tumour_mask.nii", ONE)
    np.testing.assert_array_equal(find().masks["tumour"], ONE == 1)
    masks.nifti("sub-01/ses-1/dwi/sub-01_ses-1_acq-pa_label-tumour_mask.nii.gz", LABELS)  # of another acquisition
    np.testing.assert_array_equal(find().masks["tumour"], ONE == 1)
    np.testing.assert_array_equal(find(image="sub-01_ses-2").masks["tumour"], TWO == 1)


def test_a_segmentation_holds_a_region_for_each_name_of_its_table(masks, find):
    masks.nifti("sub-01/ses-1/dwi/sub-01_ses-1_dseg.nii.gz", LABELS)
    masks.write(
        "dseg.tsv", "index\tname\tabbreviation\n0\tair\tA\n1\tPancreas head\tPH\n2\tWhite matter\tWM\n3\tspleen\tS\n"
    )
    found = find()
    assert set(found.masks) == {"Pancreas head", "wm"}  # nothing is labelled 3
    np.testing.assert_array_equal(found.masks["wm"], TWO == 1)


@pytest.mark.parametrize("names", [{"Levels": {"1": "liver", "2": "GM"}}, {"LabelMap": {"liver": 1, "GM": 2}}])
def test_or_of_its_sidecar(masks, find, names):
    masks.nifti("sub-01/dwi/sub-01_dseg.nii.gz", LABELS)
    masks.write("sub-01/dwi/sub-01_dseg.json", json.dumps(names))
    found = find()
    np.testing.assert_array_equal(found.masks["liver"], ONE == 1)
    np.testing.assert_array_equal(found.masks["gm"], TWO == 1)


def test_tissues_have_one_name_and_probabilities_count_above_one_half(masks, find):
    masks.nifti("sub-01/ses-1/dwi/sub-01_ses-1_label-WM_probseg.nii.gz", ONE * np.float32(0.6) + TWO * np.float32(0.4))
    np.testing.assert_array_equal(find().masks["wm"], ONE == 1)


def test_sides_are_regions_of_their_own(masks, find):
    for side, data in (("L", ONE), ("R", TWO)):
        masks.nifti(f"sub-01/dwi/sub-01_hemi-{side}_label-putamen_mask.nii.gz", data)
    assert sorted(find().masks) == ["putamen_L", "putamen_R"]


def test_regions_may_be_chosen_and_those_that_are_not_there_are_named(masks, find):
    masks.nifti("sub-01/dwi/sub-01_label-tumour_mask.nii.gz", ONE)
    masks.nifti("sub-01/dwi/sub-01_label-liver_mask.nii.gz", TWO)
    found = find("Tumour", "kidney", "whole")
    assert list(found.masks) == ["tumour"]
    assert found.remarks == ("there is no region kidney",)


def test_files_on_another_grid_are_passed_over_and_named_where_nothing_else_is_there(masks, find):
    masks.write("dseg.tsv", "index\tname\n1\tliver\n2\tWM\n")
    masks.nifti("sub-01/ses-1/anat/sub-01_ses-1_dseg.nii.gz", np.ones((9, 9, 9), dtype=np.uint8))
    (words,) = find().remarks
    assert words.startswith("dseg.nii.gz (liver, wm) lies on another grid than the maps")
    masks.nifti("sub-01/ses-1/dwi/sub-01_ses-1_dseg.nii.gz", LABELS)
    assert find().remarks == ()
    assert set(find().masks) == {"liver", "wm"}
    shifted = masks.AFFINE + np.eye(4)[:, [1, 2, 3, 0]] * 8
    masks.nifti("sub-01/ses-1/dwi/sub-01_ses-1_label-tumour_mask.nii.gz", ONE, affine=shifted)
    assert "tumour" not in find().masks


def test_datasets_that_were_given_first_come_first(new_dataset, masks, find, tmp_path):
    other = new_dataset(tmp_path / "other", derivative=True)
    other.nifti("sub-01/dwi/sub-01_label-tumour_mask.nii.gz", ONE)
    masks.nifti("sub-01/dwi/sub-01_label-tumour_mask.nii.gz", TWO)
    found = find(datasets=[Folder("other", other.root)])
    np.testing.assert_array_equal(found.masks["tumour"], ONE == 1)
    assert found.remarks == ()


def test_two_files_of_one_region_are_said(masks, find):
    masks.nifti("sub-01/dwi/sub-01_desc-first_label-tumour_mask.nii.gz", ONE)
    masks.nifti("sub-01/dwi/sub-01_desc-second_label-tumour_mask.nii.gz", TWO)
    found = find()
    np.testing.assert_array_equal(found.masks["tumour"], ONE == 1)
    assert found.remarks == (
        "the region tumour is in desc-first_label-tumour_mask.nii.gz and in desc-second_label-tumour_mask.nii.gz: "
        "the first is used",
    )


def test_a_segmentation_comes_before_a_mask_of_the_same_region(masks, find):
    masks.nifti("sub-01/dwi/sub-01_dseg.nii.gz", LABELS)
    masks.write("dseg.tsv", "index\tname\n1\tTumour\n")
    masks.nifti("sub-01/dwi/sub-01_label-tumour_mask.nii.gz", TWO)
    found = find()
    assert list(found.masks) == ["Tumour"]
    np.testing.assert_array_equal(found.masks["Tumour"], ONE == 1)
    assert found.remarks == ()


def test_a_damaged_file_is_named_and_the_rest_goes_on(masks, find):
    masks.nifti("sub-01/dwi/sub-01_label-tumour_mask.nii.gz", ONE)
    masks.write("sub-01/dwi/sub-01_label-liver_mask.nii.gz", "nothing")
    found = find()
    assert list(found.masks) == ["tumour"]
    assert "sub-01_label-liver_mask.nii.gz cannot be read as NIfTI" in found.remarks[0]
