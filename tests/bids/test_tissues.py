"""White and grey matter from segmentations, as far as they lie on the grid of the map."""

import json

import numpy as np
import pytest

from bidsfit.bids.images import open_image
from bidsfit.bids.inputs import Folder, open_dataset
from bidsfit.bids.tissues import tissue_indices, tissue_mask

LABELS = np.zeros((5, 6, 3), dtype=np.uint8)
LABELS[1], LABELS[2] = 2, 3


@pytest.fixture
def find(masks):
    """``find(tissue)``: the mask of a tissue of the image sub-01_ses-1."""
    like = masks.nifti("like.nii.gz", LABELS)

    def run(tissue, image="sub-01_ses-1"):
        dataset = open_dataset(masks.root, "segmented", derivative=True)
        return tissue_mask([dataset], image, open_image(like), like, tissue)

    return run


def test_a_table_names_the_labels(masks, find):
    masks.nifti("sub-01/ses-1/dwi/sub-01_ses-1_dseg.nii.gz", LABELS)
    masks.write("dseg.tsv", "index\tname\tabbreviation\n2\tWhite matter\tWM\n3\tCortex\tGM\n")
    mask, uri = find("wm")
    np.testing.assert_array_equal(mask, LABELS == 2)
    assert uri == "bids:segmented:sub-01/ses-1/dwi/sub-01_ses-1_dseg.nii.gz"
    np.testing.assert_array_equal(find("gm")[0], LABELS == 3)


@pytest.mark.parametrize("names", [{"Levels": {"2": "white matter"}}, {"LabelMap": {"WM": 2}}])
def test_or_a_sidecar_does(masks, find, names):
    masks.nifti("sub-01/dwi/sub-01_dseg.nii.gz", LABELS)
    masks.write("sub-01/dwi/sub-01_dseg.json", json.dumps(names))
    np.testing.assert_array_equal(find("wm")[0], LABELS == 2)
    assert find("gm") is None


@pytest.mark.parametrize("suffix", ["mask", "probseg"])
def test_or_there_is_a_file_for_each(masks, find, suffix):
    masks.nifti(f"sub-01/ses-1/anat/sub-01_ses-1_label-WM_{suffix}.nii.gz", (LABELS == 2) * np.float32(0.9))
    np.testing.assert_array_equal(find("wm")[0], LABELS == 2)
    assert find("gm") is None


def test_others_are_passed_over(masks, find):
    masks.write("dseg.tsv", "index\tname\n2\tWM\n")
    masks.nifti("sub-01/ses-2/dwi/sub-01_ses-2_dseg.nii.gz", LABELS)  # of another session
    masks.nifti("sub-01/ses-1/anat/sub-01_ses-1_dseg.nii.gz", np.zeros((9, 9, 9), dtype=np.uint8))  # on another grid
    masks.nifti("sub-01/ses-1/dwi/sub-01_ses-1_desc-brain_mask.nii.gz", LABELS)
    assert find("wm") is None


def test_the_outputs_are_a_place_to_look(masks):
    """After the datasets that were given; a URI of the outputs names no dataset."""
    like = masks.nifti("like.nii.gz", LABELS)
    path = masks.nifti("sub-01/ses-1/dwi/sub-01_ses-1_acq-a_desc-tissue_dseg.nii.gz", LABELS)
    masks.write("desc-tissue_dseg.tsv", "index\tname\tmapping\n2\tWhite matter\t2\n3\tGrey matter\t1\n12\tOther\tn/a\n")
    outputs = Folder("", masks.root)
    mask, uri = tissue_mask([outputs], "sub-01_ses-1_acq-a", open_image(like), like, "gm")
    np.testing.assert_array_equal(mask, LABELS == 3)
    assert uri == f"bids::sub-01/ses-1/dwi/{path.name}"
    assert tissue_mask([outputs], "sub-01_ses-1_acq-b", open_image(like), like, "gm") is None


def test_fluid_has_a_number_too(masks):
    path = masks.nifti("sub-01/anat/sub-01_dseg.nii.gz", LABELS)
    masks.write("dseg.tsv", "index\tname\tmapping\n2\tfluid\t3\n3\tCSF\tn/a\n")
    assert tissue_indices(path, Folder("masks", masks.root), "csf") == [2, 3]
