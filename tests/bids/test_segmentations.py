"""Segmentations of an image: which are found, what they are called, and where their labels come to lie."""

import json

import nibabel as nib
import numpy as np
import pytest

from bidsfit.bids.images import open_image
from bidsfit.bids.inputs import find_images, open_dataset
from bidsfit.bids.segmentations import Segmentation, find_segmentations, resample, write_segmentation
from bidsfit.exceptions import NoInputError, UnusableInputError

STEM = "sub-01/ses-1/dwi/sub-01_ses-1_space-ACPC"
ASEG = "sub-01/anat/sub-01_space-ACPC_desc-aseg_dseg.nii.gz"


@pytest.fixture
def prepared(tmp_path, new_dataset):
    """A derivative dataset with an image in ACPC space."""
    dataset = new_dataset(tmp_path / "prepared", derivative=True)
    dataset.add(f"{STEM}_desc-preproc_dwi")
    return dataset


@pytest.fixture
def find(prepared):
    """``find(atlas...)``: segmentations of the image, and problems."""

    def run(*atlases, dataset=prepared):
        opened = open_dataset(dataset.root, "raw")
        (image,) = find_images(opened, [], ["01"]).images
        return find_segmentations([str(atlas) for atlas in atlases], [opened], image, open_image(image.path))

    return run


def labels(dataset, name, data=None, **options):
    return dataset.nifti(name, np.ones((10, 12, 6), dtype=np.int16) if data is None else data, **options)


# --- which ------------------------------------------------------------------------------------------------------------


def test_by_label_in_the_space_of_the_image(prepared, find):
    labels(prepared, ASEG)
    labels(prepared, ASEG.replace("ACPC", "MNI152NLin2009cAsym"))
    labels(prepared, ASEG.replace("_desc-aseg", ""))
    (found,), problems = find("aseg")
    assert (found.path.name, found.uri, found.words) == (ASEG.split("/")[-1], f"bids:raw:{ASEG}", "seg-aseg")
    assert problems == []
    (found,), _ = find("dseg")
    assert found.words == "seg-dseg"


def test_that_of_the_session_comes_first(prepared, find):
    names = ("sub-01/anat/sub-01", "sub-01/ses-1/anat/sub-01_ses-1_acq-mprage", "sub-01/ses-2/anat/sub-01_ses-2")
    for name in names:
        labels(prepared, f"{name}_space-ACPC_seg-a_dseg.nii.gz")
    (found,), _ = find("a")
    assert found.path.name.startswith("sub-01_ses-1_acq-mprage")


def test_by_path_but_not_of_another_participant(prepared, find, tmp_path):
    own, other = (labels(prepared, f"rois/sub-{label}_space-ACPC_dseg.nii.gz") for label in ("01", "02"))
    (found,), problems = find(own, other)
    assert (found.path, found.uri, problems) == (own, "bids:raw:rois/sub-01_space-ACPC_dseg.nii.gz", [])
    with pytest.raises(NoInputError, match="there is no such file"):
        find(tmp_path / "none.nii.gz")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("sub-01_space-ACPC_desc-aseg_dseg", "seg-aseg"),
        ("sub-01_space-ACPC_seg-4S156Parcels_dseg", "seg-4S156Parcels"),
        ("sub-01_atlas-Schaefer2018_seg-7n_scale-100_dseg", "atlas-Schaefer2018_seg-7n_scale-100"),
        ("tpl-MNI_atlas-Schaefer2018_desc-100Parcels7Networks_dseg", "atlas-Schaefer2018_seg-100Parcels7Networks"),
        ("my_own-tracts", "seg-myowntracts"),
    ],
)
def test_names_of_tables(tmp_path, name, words):
    assert Segmentation(tmp_path / f"{name}.nii.gz", None, "").words == words


@pytest.mark.parametrize(
    ("name", "affine", "words"),
    [
        ("sub-01/anat/sub-01_space-MNI_desc-aseg_dseg.nii.gz", None, "(MNI; the image in ACPC)"),
        ("sub-01/anat/sub-01_space-ACPC_desc-aseg_dseg.nii.gz", 1000, "by their affines they lie apart"),
    ],
)
def test_what_lies_elsewhere_is_refused(prepared, find, name, affine, words):
    labels(prepared, name, affine=prepared.AFFINE if affine is None else prepared.AFFINE + affine * np.eye(4, k=3))
    found, (problem,) = find("aseg")
    assert found == []
    assert words in problem


def test_an_image_as_acquired_takes_no_anatomical_segmentation_but_on_its_grid(tiny, find):
    tiny.add("sub-01/dwi/sub-01_dwi")
    for space in ("", "_space-ACPC"):
        path = labels(tiny, f"sub-01/anat/sub-01{space}_desc-aseg_dseg.nii.gz")
        found, (problem,) = find("aseg", dataset=tiny)
        assert found == []
        assert "lies in another space" in problem
        labels(tiny, path.relative_to(tiny.root), np.ones(tiny.SHAPE, dtype=np.uint8))
        assert find("aseg", dataset=tiny)[1] == []
        path.unlink()


def test_without_a_space_in_its_name_it_is_that_of_its_dataset(prepared, find, tmp_path):
    """In derivatives of QSIPrep, which put all on the anatomical image; not in those of others, but on the grid."""
    labels(prepared, "sub-01/anat/sub-01_desc-aseg_dseg.nii.gz")
    assert len(find("aseg")[0]) == 1
    other = type(prepared)(tmp_path / "fmriprep", derivative=True)
    path = labels(other, "sub-01/anat/sub-01_desc-aseg_dseg.nii.gz")
    found, (problem,) = find(path)
    assert found == []
    assert "(its name tells none; the image in ACPC)" in problem
    labels(other, path.relative_to(other.root), np.ones(prepared.SHAPE, dtype=np.uint8))
    assert len(find(path)[0]) == 1


def test_two_of_one_name_are_said(prepared, find):
    labels(prepared, "sub-01/anat/sub-01_space-ACPC_seg-a_dseg.nii.gz")
    labels(prepared, "sub-01/anat/sub-01_space-ACPC_desc-a_dseg.nii.gz")
    paths = sorted(prepared.root.rglob("*_dseg.nii.gz"))
    _, (problem,) = find(*paths)
    assert "tables of the same name (seg-a)" in problem


# --- their regions ----------------------------------------------------------------------------------------------------


def test_names_are_those_of_the_table_and_else_numbers(prepared, find):
    data = np.arange(720, dtype=np.int16).reshape(10, 12, 6) % 4
    labels(prepared, ASEG, data)
    prepared.write("desc-aseg_dseg.tsv", "index\tname\n0\tair\n1\tliver\n2\tspleen\n99\tnowhere\n")
    (found,), _ = find("aseg")
    assert found.names(data) == {1: "liver", 2: "spleen", 3: "3"}


def test_without_a_table_those_of_freesurfer_and_of_bids(tmp_path, new_dataset):
    folder = open_dataset(new_dataset(tmp_path / "ds", derivative=True).root, "ds")
    (folder.root / ASEG).parent.mkdir(parents=True)
    aseg, plain = (Segmentation(folder.root / name, folder, "") for name in (ASEG, "sub-01_dseg.nii.gz"))
    assert aseg.names(np.array([0, 17, 53, 253])) == {
        17: "Left-Hippocampus",
        53: "Right-Hippocampus",
        253: "CC_Central",
    }
    assert plain.names(np.array([1, 2, 3, 12])) == {1: "GM", 2: "WM", 3: "CSF", 12: "12"}


def test_labels_come_to_the_voxels_that_are_nearest(prepared, find):
    """A grid of 1.5 mm, turned by a quarter and flipped: every voxel is labelled by the place of its centre."""
    affine = np.array([[0, 1.5, 0, -7], [1.5, 0, 0, -20], [0, 0, -1.5, 20], [0, 0, 0, 1]])
    place = np.stack(np.meshgrid(*map(np.arange, (30, 30, 20)), indexing="ij"), axis=-1)
    world = nib.affines.apply_affine(affine, place)
    labels(prepared, ASEG, (1000 + (world[..., 0] > 4.3) + 2 * (world[..., 1] > -1.1)).astype(np.int16), affine=affine)
    (found,), problems = find("aseg")
    assert problems == []
    like = open_image(prepared / f"{STEM}_desc-preproc_dwi.nii.gz")
    data, names = resample(found, like)
    centres = nib.affines.apply_affine(like.affine, np.moveaxis(np.indices(like.shape[:3]), 0, -1))
    near = nib.affines.apply_affine(affine, np.round(nib.affines.apply_affine(np.linalg.inv(affine), centres)))
    np.testing.assert_array_equal(data, 1000 + (near[..., 0] > 4.3) + 2 * (near[..., 1] > -1.1))
    assert names == {number: str(number) for number in range(1000, 1004)}
    target = prepared / "sub-01_seg-aseg_dseg.nii.gz"
    write_segmentation(target, data, names, like, {"Sources": [found.uri]})
    np.testing.assert_array_equal(np.asarray(nib.load(target).dataobj), data)
    assert (prepared / "sub-01_seg-aseg_dseg.tsv").read_text().splitlines()[:2] == ["index\tname", "1000\t1000"]


@pytest.mark.parametrize("data", [np.full((5, 6, 3), 0.5), np.ones((5, 6, 3, 2), dtype=np.uint8)])
def test_probabilities_are_no_segmentation(prepared, find, data):
    labels(prepared, ASEG, data.astype(np.float32))
    (found,), _ = find("aseg")
    with pytest.raises(UnusableInputError, match="a label a voxel"):
        resample(found, open_image(prepared / f"{STEM}_desc-preproc_dwi.nii.gz"))


def test_a_sidecar_may_name_the_labels(prepared, find):
    labels(prepared, ASEG)
    prepared.write(ASEG.replace(".nii.gz", ".json"), json.dumps({"LabelMap": {"tumour": 1}}))
    (found,), _ = find("aseg")
    assert found.names(np.array([0, 1])) == {1: "tumour"}
