"""Which anatomy belongs to a diffusion image: segmentations of fMRIPrep, QSIPrep and FreeSurfer, or a raw T1w."""

from dataclasses import replace

import numpy as np
import pytest

from bidsfit.bids.anatomy import Anatomy, find_anatomy, is_subjects_folder
from bidsfit.bids.inputs import Folder, find_images, open_dataset

VOLUME = np.ones((2, 2, 2), dtype=np.uint8)


@pytest.fixture
def find(tiny, masks):
    """``find(session)``: the anatomy of the image of that session, with what the datasets hold by then."""

    def run(session=None, derivatives=None):
        stem = "_".join(["sub-01", *([f"ses-{session}"] if session else [])])
        tiny.add(f"{stem.replace('_', '/')}/dwi/{stem}_dwi")
        raw = open_dataset(tiny.root, "raw")
        found = [open_dataset(masks.root, "prep", derivative=True)] if derivatives is None else derivatives
        images = find_images(raw, [], ["01"], sessions=[session] if session else []).images
        return find_anatomy(raw, found, images[0])

    return run


def add(dataset, *names):
    for name in names:
        parts = name.split("_")
        session = f"{parts[1]}/" if parts[1].startswith("ses-") else ""
        dataset.nifti(f"{parts[0]}/{session}anat/{name}.nii.gz", VOLUME)


def names(anatomy):
    return [path.name.removesuffix(".nii.gz") for path in anatomy.segmentation]


def test_nothing(find):
    assert find() is None


def test_a_raw_image(find, tiny):
    add(tiny, "sub-01_T1w")
    found = find()
    assert (found.t1w.name, found.kind, found.segmentation, found.aligned) == ("sub-01_T1w.nii.gz", "none", (), False)
    assert found.uris == ("bids:raw:sub-01/anat/sub-01_T1w.nii.gz",)
    assert found.in_words == "the T1-weighted image sub-01_T1w.nii.gz of raw"


def test_one_of_several_raw_images(find, tiny):
    add(tiny, "sub-01_run-1_T1w", "sub-01_run-2_T1w", "sub-01_acq-a_run-0_T1w", "sub-01_part-phase_T1w")
    found = find()
    assert found.t1w.name == "sub-01_run-1_T1w.nii.gz"
    assert found.in_words.endswith(", the first of 3 by name")


def test_a_preprocessed_image_before_a_raw_one(find, tiny, masks):
    add(tiny, "sub-01_T1w")
    add(masks, "sub-01_desc-preproc_T1w", "sub-01_space-MNI152_desc-preproc_T1w")
    assert find().t1w.name == "sub-01_desc-preproc_T1w.nii.gz"


def test_segmentations_in_the_order_of_preference(find, tiny, masks):
    add(tiny, "sub-01_T1w")
    add(masks, "sub-01_desc-preproc_T1w", "sub-01_dseg", "sub-01_space-MNI152NLin2009cAsym_desc-aseg_dseg")
    found = find()
    assert (names(found), found.kind) == (["sub-01_dseg"], "dseg")
    assert found.labels == {"GM": [1], "WM": [2], "CSF": [3]}  # of sMRIPrep and BIDS, without a table
    assert found.t1w.name == "sub-01_desc-preproc_T1w.nii.gz"
    assert found.uris[1] == "bids:prep:sub-01/anat/sub-01_desc-preproc_T1w.nii.gz"
    add(masks, "sub-01_label-GM_probseg", "sub-01_label-WM_probseg")
    assert find().kind == "dseg"  # one is missing
    add(masks, "sub-01_label-CSF_probseg")
    found = find()
    assert found.kind == "probseg"
    assert names(found) == [f"sub-01_label-{tissue}_probseg" for tissue in ("GM", "WM", "CSF")]
    add(masks, "sub-01_desc-aparcaseg_dseg")
    assert names(find()) == ["sub-01_desc-aparcaseg_dseg"]
    add(masks, "sub-01_desc-aseg_dseg")
    found = find()
    assert (names(found), found.kind) == (["sub-01_desc-aseg_dseg"], "freesurfer")


def test_a_table_names_the_labels(find, masks):
    add(masks, "sub-01_desc-preproc_T1w", "sub-01_desc-mine_dseg")
    assert find().kind == "none"  # numbers that nothing names
    masks.write("dseg.tsv", "index\tname\n4\tWhite matter\n5\tGrey matter\n6\tCSF\n")
    found = find()
    assert (names(found), found.labels) == (["sub-01_desc-mine_dseg"], {"GM": [5], "WM": [4], "CSF": [6]})


def test_a_table_without_tissues(find, masks):
    add(masks, "sub-01_desc-preproc_T1w", "sub-01_dseg")
    masks.write("dseg.tsv", "index\tname\n4\tWhite matter\n5\tTumour\n")
    assert find().kind == "none"


def test_a_segmentation_without_its_image_cannot_be_brought_over(find, tiny, masks):
    add(tiny, "sub-01_T1w")
    add(masks, "sub-01_desc-aseg_dseg")
    assert find().kind == "none"


@pytest.mark.parametrize(
    ("there", "taken", "words"),
    [
        (["1", "2", "3"], "2", ""),
        ([None, "1"], None, ""),
        (["3"], "3", "of the only session that has one (ses-3)"),
        (["1", "3", "4"], "1", "of the nearest of 3 sessions in the order of names (ses-1)"),
        (["0", "3", "4"], "0", "(ses-0)"),
        (["3", "4"], "3", "(ses-3)"),
    ],
)
@pytest.mark.parametrize("kind", ["segmented", "raw"])
def test_sessions(find, tiny, masks, there, taken, words, kind):
    for label in there:
        stem = "_".join(["sub-01", *([f"ses-{label}"] if label else [])])
        if kind == "raw":
            add(tiny, f"{stem}_T1w")
        else:
            add(masks, f"{stem}_desc-preproc_T1w", f"{stem}_dseg")
    found = find(session="2")
    assert found.t1w.parent.parent.name == (f"ses-{taken}" if taken else "sub-01")
    assert words in found.in_words
    assert all(path.parent == found.t1w.parent for path in found.segmentation)


def test_an_image_without_a_session_takes_the_first(find, tiny):
    add(tiny, "sub-01_ses-a_T1w", "sub-01_ses-b_T1w")
    assert "of the first of 2 sessions (ses-a)" in find().in_words


def test_the_runs_of_segmentation_and_image_agree(find, masks):
    for run in (1, 2):
        add(masks, f"sub-01_run-{run}_desc-preproc_T1w")
    add(masks, "sub-01_run-2_dseg")
    assert find().t1w.name == "sub-01_run-2_desc-preproc_T1w.nii.gz"


@pytest.mark.parametrize(("space", "prefix"), [("ACPC", "_space-ACPC"), ("ACPC", ""), ("T1w", "")])
def test_the_anatomy_of_qsiprep_lies_on_its_images(masks, space, prefix):
    masks.add(f"sub-01/dwi/sub-01_space-{space}_desc-preproc_dwi")
    add(masks, f"sub-01{prefix}_desc-preproc_T1w", f"sub-01{prefix}_desc-aseg_dseg")
    dataset = open_dataset(masks.root, "qsiprep")
    image = find_images(dataset, [], ["01"]).images[0]
    found = find_anatomy(dataset, [], image)
    assert (found.kind, found.aligned) == ("freesurfer", True)
    elsewhere = replace(image, uri="bids:other:sub-01/dwi/x_dwi.nii.gz")
    assert not find_anatomy(dataset, [], elsewhere).aligned
    raw = replace(image, entities={"subject": "01"})
    assert not find_anatomy(dataset, [], raw).aligned


# --- FreeSurfer ------------------------------------------------------------------------------------------------------


@pytest.fixture
def subjects(tmp_path):
    """``subjects(files...)``: a folder of subjects of FreeSurfer."""

    def make(*files):
        for file in files:
            path = tmp_path / "freesurfer" / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        return Folder("freesurfer", tmp_path / "freesurfer")

    return make


def test_subjects_of_freesurfer(find, subjects, masks):
    add(masks, "sub-01_desc-preproc_T1w", "sub-01_dseg")
    folder = subjects("sub-01/mri/aparc+aseg.mgz", "sub-01/mri/T1.mgz", "sub-01/mri/brain.mgz")
    found = find(derivatives=[folder, open_dataset(masks.root, "prep", derivative=True)])
    assert (found.kind, found.t1w.name) == ("freesurfer", "T1.mgz")
    assert found.uris == ("bids:freesurfer:sub-01/mri/aparc+aseg.mgz", "bids:freesurfer:sub-01/mri/T1.mgz")
    subjects("sub-01/mri/aseg.mgz")
    assert find(derivatives=[folder]).segmentation[0].name == "aseg.mgz"


def test_subjects_of_a_session_come_first(find, subjects):
    folder = subjects(
        *(f"{name}/mri/{file}.mgz" for name in ("sub-01", "sub-01_ses-2") for file in ("aseg", "T1")),
    )
    assert "sub-01_ses-2" in find("2", [folder]).in_words
    assert find("3", [folder]).uris[0] == "bids:freesurfer:sub-01/mri/aseg.mgz"


def test_subjects_that_are_not_there_or_not_finished(find, subjects):
    assert find(derivatives=[subjects("sub-02/mri/aseg.mgz", "sub-02/mri/T1.mgz", "sub-01/mri/T1.mgz")]) is None


def test_what_a_folder_of_subjects_is(subjects, masks):
    assert is_subjects_folder(subjects("sub-01/mri/ribbon.mgz").root)
    assert not is_subjects_folder(masks.root)
    masks.write("sub-01/mri/aseg.mgz", "")
    assert not is_subjects_folder(masks.root)


def test_there_and_back(find, masks, tiny):
    add(tiny, "sub-01_T1w")
    add(masks, "sub-01_desc-preproc_T1w", "sub-01_dseg")
    for found in (find(), find(derivatives=[])):
        assert Anatomy.from_dict(found.to_dict()) == found
        assert all(value is None or isinstance(value, str | list | dict | bool) for value in found.to_dict().values())
