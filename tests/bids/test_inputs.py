"""What is found in a dataset: images, their b-values by inheritance, their masks."""

import json
import os

import numpy as np
import pytest

from bidsfit.bids.inputs import (
    Folder,
    InputImage,
    choose_participants,
    describes_derivative,
    find_images,
    inherited,
    open_dataset,
    read_filters,
)
from bidsfit.exceptions import UnknownNameError, UnusableInputError, UsageError


def find(raw, *derivatives, participants=None, **options):
    datasets = [open_dataset(d.root, d.root.name, derivative=True) for d in derivatives]
    dataset = open_dataset(raw.root, "raw")
    return find_images(dataset, datasets, participants or choose_participants(raw.root, ()), **options)


def names(inputs):
    return [image.name for image in inputs.images]


# --- images ---------------------------------------------------------------------------------------------------------


def test_every_session_run_acquisition_and_direction(tiny):
    stems = [
        "sub-01/ses-1/dwi/sub-01_ses-1_acq-ivim_dir-AP_run-01_dwi",
        "sub-01/ses-1/dwi/sub-01_ses-1_acq-ivim_dir-AP_run-02_dwi",
        "sub-01/ses-1/dwi/sub-01_ses-1_acq-ivim_dir-PA_dwi",
        "sub-01/ses-1/dwi/sub-01_ses-1_acq-smt_dwi",
        "sub-01/ses-2/dwi/sub-01_ses-2_dwi",
        "sub-two/dwi/sub-two_dwi",
    ]
    for stem in stems:
        tiny.add(stem)
    found = find(tiny)
    assert [image.path for image in found.images] == [tiny / f"{stem}.nii.gz" for stem in stems]
    assert names(found) == [stem.split("/")[-1].removesuffix("_dwi") for stem in stems]
    assert found.problems == []


def test_an_image_knows_what_belongs_to_it(tiny):
    path = tiny.add("sub-01/ses-1/dwi/sub-01_ses-1_run-01_dwi", sidecar={"EchoTime": 0.08})
    (image,) = find(tiny).images
    assert image.bval == path.with_name("sub-01_ses-1_run-01_dwi.bval")
    assert image.bvec == path.with_name("sub-01_ses-1_run-01_dwi.bvec")
    assert image.sidecar == {"EchoTime": 0.08}
    assert image.entities == {"subject": "01", "session": "1", "run": "01"}
    assert image.uri == "bids:raw:sub-01/ses-1/dwi/sub-01_ses-1_run-01_dwi.nii.gz"
    assert (image.preprocessed, image.mask) == (False, None)
    assert InputImage.from_dict(json.loads(json.dumps(image.to_dict()))) == image


def test_uncompressed(tiny):
    tiny.add("sub-01/dwi/sub-01_dwi", extension=".nii")
    assert names(find(tiny)) == ["sub-01"]


def test_only_magnitudes_of_diffusion_images(tiny):
    for part in ("mag", "phase", "real", "imag"):
        tiny.add(f"sub-01/dwi/sub-01_part-{part}_dwi")
    tiny.nifti("sub-01/dwi/sub-01_sbref.nii.gz", tiny.signals()[..., 0])
    tiny.nifti("sub-01/anat/sub-01_T1w.nii.gz", tiny.signals()[..., 0])
    tiny.add("derivatives/other/sub-01/dwi/sub-01_desc-preproc_dwi")
    tiny.add("sourcedata/sub-01/dwi/sub-01_dwi")
    assert names(find(tiny)) == ["sub-01_part-mag"]


def test_images_whose_maps_would_have_the_same_names(tiny):
    tiny.add("sub-01/dwi/sub-01_dwi")
    tiny.add("sub-01/dwi/sub-01_dwi", extension=".nii")
    tiny.add("sub-01/dwi/sub-01_chunk-1_dwi")
    tiny.add("sub-01/dwi/sub-01_chunk-2_dwi")
    found = find(tiny)
    assert sorted(names(found)) == ["sub-01", "sub-01_chunk-1", "sub-01_chunk-2"]
    assert "sub-01_dwi.nii.gz and sub-01_dwi.nii would give maps of the same names" in found.problems[0].message


def test_sessions_and_runs(tiny):
    for session in ("pre", "post"):
        for run in ("1", "02"):
            tiny.add(f"sub-01/ses-{session}/dwi/sub-01_ses-{session}_run-{run}_dwi")
    assert names(find(tiny, sessions=["ses-post"])) == ["sub-01_ses-post_run-02", "sub-01_ses-post_run-1"]
    assert names(find(tiny, sessions=["pre", "post"], runs=["2"])) == [
        "sub-01_ses-post_run-02",
        "sub-01_ses-pre_run-02",
    ]
    (problem,) = find(tiny, sessions=["follow"]).problems
    assert 'match {"session": ["follow"]}' in problem.message


def test_no_images(tiny):
    tiny.add("sub-01/dwi/sub-01_dwi")
    tiny.nifti("sub-02/anat/sub-02_T1w.nii.gz", tiny.signals()[..., 0])
    found = find(tiny)
    assert names(found) == ["sub-01"]
    (problem,) = found.problems
    assert problem.participant == "02"
    assert f"no diffusion images ({tiny.root}/sub-02/[ses-*/]dwi/*_dwi.nii.gz)" in problem.message


# --- inheritance ----------------------------------------------------------------------------------------------------


def test_b_values_at_the_root(tiny):
    tiny.add("sub-01/ses-1/dwi/sub-01_ses-1_acq-a_dwi", bval=False, bvec=False)
    tiny.write("dwi.bval", "0 0 300 600 1000")
    tiny.write("acq-a_dwi.bvec", "0 0 1 1 1\n0 0 0 0 0\n0 0 0 0 0")
    (image,) = find(tiny).images
    assert image.bval == tiny / "dwi.bval"
    assert image.bvec == tiny / "acq-a_dwi.bvec"


def test_the_nearest_and_most_specific_file_applies(tiny):
    stem = "sub-01/ses-1/dwi/sub-01_ses-1_acq-a_dwi"
    path = tiny.add(stem, bval=False)
    files = [
        tiny.write(f"{stem}.bval", "0"),
        tiny.write("sub-01/ses-1/dwi/sub-01_ses-1_dwi.bval", "0"),
        tiny.write("sub-01/ses-1/sub-01_ses-1_dwi.bval", "0"),
        tiny.write("sub-01/sub-01_acq-a_dwi.bval", "0"),
        tiny.write("sub-01/sub-01_dwi.bval", "0"),
        tiny.write("acq-a_dwi.bval", "0"),
        tiny.write("dwi.bval", "0"),
    ]
    assert list(inherited(path, Folder("", tiny.root), ".bval")) == files


def test_the_folders_of_participants_are_listed_once_for_all(tiny, monkeypatch):
    """They may be thousands, which each of their images would list again."""
    for label in ("01", "02", "03"):
        tiny.add(f"sub-{label}/dwi/sub-{label}_dwi", bval=False)
    tiny.write("dwi.bval", "0")
    listed = []

    def noting(function):
        return lambda path: (listed.append(os.fspath(path)), function(path))[1]

    for name in ("listdir", "scandir"):
        monkeypatch.setattr(os, name, noting(getattr(os, name)))
    dataset = open_dataset(tiny.root, "raw")
    found = find_images(dataset, [], ["01", "02", "03"]).images
    assert [image.bval for image in found] == [tiny / "dwi.bval"] * 3
    assert listed.count(str(tiny.root)) == 1


def test_files_of_others_do_not_apply(tiny):
    path = tiny.add("sub-01/ses-1/dwi/sub-01_ses-1_dwi", bval=False)
    for name in (
        "sub-01/ses-1/dwi/sub-01_ses-1_acq-b_dwi.bval",
        "sub-01/sub-01_ses-2_dwi.bval",
        "acq-b_dwi.bval",
        "sbref.bval",
    ):
        tiny.write(name, "0")
    (tiny.root.parent / "dwi.bval").write_text("0")  # outside the dataset
    assert list(inherited(path, Folder("", tiny.root), ".bval")) == []
    (problem,) = find(tiny).problems
    assert f"{path} has no .bval file" in problem.message


def test_metadata_add_up(tiny):
    tiny.write("dwi.json", json.dumps({"EchoTime": 0.1, "Manufacturer": "A"}))
    tiny.add("sub-01/dwi/sub-01_dwi", sidecar={"EchoTime": 0.08})
    assert find(tiny).images[0].sidecar == {"EchoTime": 0.08, "Manufacturer": "A"}


def test_a_broken_sidecar_is_that_images_problem(tiny):
    tiny.add("sub-01/dwi/sub-01_dwi")
    tiny.add("sub-02/dwi/sub-02_dwi")
    tiny.write("sub-02/dwi/sub-02_dwi.json", "{")
    found = find(tiny)
    assert names(found) == ["sub-01"]
    assert found.problems[0].participant == "02"
    assert "sub-02_dwi.json cannot be read as JSON" in found.problems[0].message


def test_images_without_directions(tiny):
    tiny.add("sub-01/dwi/sub-01_dwi", bvec=False)
    assert find(tiny).images[0].bvec is None


# --- masks ----------------------------------------------------------------------------------------------------------


def mask_names(inputs):
    return [None if image.mask is None else image.mask.name.split(".")[0] for image in inputs.images]


def test_a_mask_from_derivatives(pair):
    (image,) = find(*pair).images
    assert image.mask == pair[1] / "sub-01/dwi/sub-01_desc-brain_mask.nii.gz"
    assert image.mask_uri == "bids:masks:sub-01/dwi/sub-01_desc-brain_mask.nii.gz"


def test_each_image_gets_the_mask_of_its_entities(tiny, masks):
    for session in ("1", "2"):
        for acquisition in ("a", "b"):
            tiny.add(f"sub-01/ses-{session}/dwi/sub-01_ses-{session}_acq-{acquisition}_dwi")
    masks.add_mask("sub-01/ses-1/dwi/sub-01_ses-1_desc-brain_mask")
    masks.add_mask("sub-01/ses-1/dwi/sub-01_ses-1_acq-b_desc-brain_mask")
    masks.add_mask("sub-01/ses-2/dwi/sub-01_ses-2_acq-b_desc-brain_mask")
    assert mask_names(find(tiny, masks)) == [
        "sub-01_ses-1_desc-brain_mask",
        "sub-01_ses-1_acq-b_desc-brain_mask",
        None,
        "sub-01_ses-2_acq-b_desc-brain_mask",
    ]


@pytest.mark.parametrize(
    "other", ["sub-01_run-2_desc-brain_mask", "sub-01_space-MNI152NLin6Asym_desc-brain_mask", "sub-02_desc-brain_mask"]
)
def test_masks_of_other_images_are_not_taken(tiny, masks, other):
    tiny.add("sub-01/dwi/sub-01_dwi")
    masks.add_mask(f"{other[:6]}/dwi/{other}")
    assert mask_names(find(tiny, masks)) == [None]


def test_masks_that_do_not_fit_are_said(tiny, masks):
    tiny.add("sub-01/ses-1/dwi/sub-01_ses-1_dwi")
    (image,) = find(tiny, masks).images
    assert image.no_mask == "No mask of sub-01 ([ses-*/]dwi/*_mask.nii.gz) is in masks (-d)."
    masks.add_mask("sub-01/ses-2/dwi/sub-01_ses-2_desc-brain_mask")
    masks.add_mask("sub-01/ses-1/dwi/sub-01_ses-1_desc-brain-edited_mask")
    (image,) = find(tiny, masks).images
    assert "No mask fits sub-01_ses-1_dwi.nii.gz by its name (sub-01_ses-2_desc-brain_mask.nii.gz)" in image.no_mask
    assert "has 'desc-brain-edited' in its name" in image.no_mask
    (image,) = find(tiny, masks, filters={"mask": {"desc": "hand"}}).images
    assert 'No mask of sub-01 ([ses-*/]dwi/*_mask.nii.gz) that match {"desc": "hand"}' in image.no_mask


def test_masks_beside_the_images_that_were_not_given_are_pointed_at(tiny, new_dataset):
    tiny.add("sub-01/dwi/sub-01_dwi")
    assert find(tiny).images[0].no_mask == ""
    beside = new_dataset(tiny / "derivatives/masks", derivative=True)
    beside.add_mask("sub-02/dwi/sub-02_desc-brain_mask")
    assert find(tiny).images[0].no_mask == ""
    beside.add_mask("sub-01/dwi/sub-01_desc-brain_mask")
    assert f"was not given: add -d masks={beside.root} to use it" in find(tiny).images[0].no_mask
    assert find(tiny, beside).images[0].no_mask == ""


def test_brain_before_other_masks(pair):
    pair[1].add_mask("sub-01/dwi/sub-01_label-lesion_mask")
    assert mask_names(find(*pair)) == ["sub-01_desc-brain_mask"]


def test_noise_maps_are_found_where_they_are_asked_for(pair):
    tiny, masks = pair
    tiny.add("sub-02/dwi/sub-02_dwi")
    name = "sub-01/dwi/sub-01_model-noise_param-noise_desc-mppca_dwimap.nii.gz"
    masks.nifti(name, np.ones(tiny.SHAPE, dtype=np.float32))
    masks.nifti("sub-02/dwi/sub-02_param-D_dwimap.nii.gz", np.ones(tiny.SHAPE, dtype=np.float32))
    raw, derivatives = open_dataset(tiny.root, "raw"), [open_dataset(masks.root, "masks", derivative=True)]
    without = find_images(raw, derivatives, ["01", "02"])
    assert [image.noise_map for image in without.images] == [None, None]
    found = find_images(raw, derivatives, ["01", "02"], noise_maps=True)
    (image,) = found.images
    assert image.noise_uri == f"bids:masks:{name}"
    assert InputImage.from_dict(image.to_dict()) == image
    assert "sub-02_dwi.nii.gz has no noise map" in found.problems[0].message


def test_ambiguous_masks_are_refused_with_advice(tiny, masks):
    tiny.add("sub-01/dwi/sub-01_dwi")
    masks.add_mask("sub-01/dwi/sub-01_label-cord_mask")
    masks.add_mask("sub-01/dwi/sub-01_label-lesion_mask")
    found = find(tiny, masks)
    assert found.images == []
    assert "sub-01_label-cord_mask.nii.gz, sub-01_label-lesion_mask.nii.gz" in found.problems[0].message
    assert "--bids-filter-file" in found.problems[0].message
    assert mask_names(find(tiny, masks, filters={"mask": {"label": "cord"}})) == ["sub-01_label-cord_mask"]


def test_the_first_dataset_that_has_a_mask(tiny, masks, new_dataset, tmp_path):
    tiny.add("sub-01/dwi/sub-01_dwi")
    tiny.add("sub-02/dwi/sub-02_dwi")
    better = new_dataset(tmp_path / "better", derivative=True)
    better.add_mask("sub-01/dwi/sub-01_desc-brain_mask")
    for label in ("01", "02"):
        masks.add_mask(f"sub-{label}/dwi/sub-{label}_desc-brain_mask")
    assert [image.mask_uri.split(":")[1] for image in find(tiny, better, masks).images] == ["better", "masks"]


# --- preprocessed data ----------------------------------------------------------------------------------------------


@pytest.fixture
def qsiprep(tmp_path, tiny, new_dataset):
    """What QSIPrep leaves of one participant."""
    derived = new_dataset(tmp_path / "qsiprep", derivative=True)
    stem = "sub-01/dwi/sub-01_space-ACPC"
    derived.add(f"{stem}_desc-preproc_dwi", sidecar={"EchoTime": 0.09})
    derived.write(f"{stem}_desc-preproc_dwi.b", "1 0 0 1000")
    derived.add_mask(f"{stem}_desc-brain_mask")
    derived.nifti(f"{stem}_dwiref.nii.gz", tiny.signals()[..., 0])
    derived.write("sub-01/dwi/sub-01_desc-confounds_timeseries.tsv", "x\n1\n")
    derived.add_mask("sub-01/anat/sub-01_space-ACPC_desc-brain_mask")
    return derived


def test_qsiprep_as_the_input(qsiprep):
    (image,) = find(qsiprep).images
    assert image.name == "sub-01_space-ACPC"
    assert image.preprocessed
    assert image.bval.name == "sub-01_space-ACPC_desc-preproc_dwi.bval"
    assert image.sidecar == {"EchoTime": 0.09}
    assert image.mask == qsiprep / "sub-01/dwi/sub-01_space-ACPC_desc-brain_mask.nii.gz"
    assert image.uri == "bids:raw:sub-01/dwi/sub-01_space-ACPC_desc-preproc_dwi.nii.gz"


def test_qsiprep_takes_the_place_of_the_raw_images(tiny, qsiprep):
    for label in ("01", "02"):
        tiny.add(f"sub-{label}/dwi/sub-{label}_dwi")
    images = find(tiny, qsiprep).images
    assert [image.name for image in images] == ["sub-01_space-ACPC", "sub-02"]
    assert [image.uri.split(":")[1] for image in images] == ["qsiprep", "raw"]
    assert [image.mask is None for image in images] == [False, True]


def test_a_derivative_dataset_without_preprocessed_images(qsiprep):
    for path in qsiprep.root.rglob("*desc-preproc_dwi.nii.gz"):
        path.unlink()
    (problem,) = find(qsiprep).problems
    assert "*_desc-preproc_dwi.nii.gz" in problem.message


def test_old_derivatives_say_so_in_another_way(tmp_path):
    (tmp_path / "dataset_description.json").write_text('{"PipelineDescription": {"Name": "qsiprep"}}')
    assert describes_derivative(tmp_path)


# --- where a dataset lies -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("above", ["sub-03", "ses-2", "func", "perf", "motion", "anat", "run-7_desc-x", "a_part-phase"])
def test_what_is_above_a_dataset_says_nothing(tmp_path, new_dataset, above):
    raw, derived = new_dataset(tmp_path / above / "ds"), new_dataset(tmp_path / above / "prep", derivative=True)
    for label in ("01", "02", "03"):
        for session in ("1", "2"):
            raw.add(f"sub-{label}/ses-{session}/dwi/sub-{label}_ses-{session}_dwi")
    stem = "sub-02/ses-1/dwi/sub-02_ses-1"
    derived.add(f"{stem}_desc-preproc_dwi")
    derived.add_mask(f"{stem}_desc-brain_mask")
    found = find(raw, derived, sessions=["1"], filters={"dwi": {"datatype": "dwi", "run": None}})
    assert [(image.participant, image.name, image.uri.split(":")[1]) for image in found.images] == [
        ("01", "sub-01_ses-1", "raw"),
        ("02", "sub-02_ses-1", "prep"),
        ("03", "sub-03_ses-1", "raw"),
    ]
    assert mask_names(found) == [None, "sub-02_ses-1_desc-brain_mask", None]
    assert found.problems == []


@pytest.mark.parametrize("maker", [None, "x", {"Name": "x"}, [None], []])
def test_who_made_a_derivative_dataset_does_not_matter(tmp_path, tiny, new_dataset, maker):
    derived = new_dataset(tmp_path / "prep")
    description = {"Name": 1, "DatasetType": "derivative", "GeneratedBy": maker, "PipelineDescription": "text"}
    derived.write("dataset_description.json", json.dumps(description))
    derived.add("sub-01/dwi/sub-01_desc-preproc_dwi")
    tiny.add("sub-01/dwi/sub-01_dwi")
    assert [image.preprocessed for image in find(tiny, derived).images] == [True]


# --- names that BIDS does not allow -----------------------------------------------------------------------------------


def test_a_folder_of_another_label_is_nobodys_session(tiny):
    for label in ("01", "01-rescan", "pat-01", "pat_02"):
        tiny.add(f"sub-{label}/dwi/sub-{label}_dwi")
    found = find(tiny)
    assert names(found) == ["sub-01"]
    assert [problem.participant for problem in found.problems] == ["01-rescan", "pat-01", "pat_02"]
    assert f"The folder {tiny.root}/sub-01-rescan has the label '01-rescan'" in found.problems[0].message
    assert "for example to sub-01rescan" in found.problems[0].message


def test_a_participant_of_another_label_cannot_be_chosen(tiny):
    tiny.add("sub-pat-01/dwi/sub-pat-01_dwi")
    with pytest.raises(UnusableInputError, match="has the label 'pat-01': BIDS allows only letters, digits and"):
        choose_participants(tiny.root, ["pat-01"])


@pytest.mark.parametrize(
    ("stem", "words"),
    [
        ("sub-01/dwi/sub-01_acq-my-ivim_dwi", "has 'acq-my-ivim' in its name"),
        ("sub-01/dwi/sub-01_acq-my_ivim_dwi", "has 'ivim' in its name"),
        ("sub-01/dwi/sub-01_run-1_run-2_dwi", "has 'run' twice"),
        ("sub-01/dwi/sub-02_dwi", "has sub-02 in its name, but lies in sub-01"),
        ("sub-01/ses-1/dwi/sub-01_ses-2_dwi", "has ses-2 in its name, but lies in ses-1"),
        ("sub-01/ses-1/dwi/sub-01_dwi", "has no ses- in its name, but lies in ses-1"),
        ("sub-01/dwi/sub-01_ses-1_dwi", "has ses-1 in its name, but lies in no folder ses-"),
        ("sub-01/ses-pre-op/dwi/sub-01_ses-pre-op_dwi", "ses-pre-op has the label 'pre-op'"),
    ],
)
def test_a_name_that_says_two_things_is_refused_and_the_others_are_fitted(tiny, stem, words):
    tiny.add("sub-01/dwi/sub-01_acq-good+1_dwi")
    tiny.add(stem)
    found = find(tiny)
    assert names(found) == ["sub-01_acq-good+1"]
    (problem,) = found.problems
    assert problem.participant == "01"
    assert words in problem.message


def test_preprocessed_images_of_odd_names_are_not_passed_over_for_raw_ones(tiny, masks):
    tiny.add("sub-01/dwi/sub-01_dwi")
    masks.add("sub-01/dwi/sub-01_space-T1-w_desc-preproc_dwi")
    found = find(tiny, masks)
    assert found.images == []
    assert "space-T1-w" in found.problems[0].message


def test_a_session_that_was_not_chosen_may_be_called_anything(tiny):
    tiny.add("sub-01/ses-1/dwi/sub-01_ses-1_dwi")
    tiny.add("sub-01/ses-pre-op/dwi/sub-01_ses-pre-op_dwi")
    assert find(tiny, sessions=["1"]).problems == []


def test_links_to_nothing_are_named(tiny):
    tiny.add("sub-01/ses-1/dwi/sub-01_ses-1_dwi")
    (tiny / "sub-02").symlink_to(tiny / "gone")
    (tiny / "sub-01" / "ses-2").symlink_to("gone")
    (tiny / "sub-03" / "ses-1").mkdir(parents=True)
    (tiny / "sub-03" / "ses-1" / "dwi").symlink_to("gone")
    found = find(tiny)
    assert names(found) == ["sub-01_ses-1"]
    assert [problem.participant for problem in found.problems] == ["01", "02", "03"]
    for problem, folder in zip(found.problems, ("sub-01/ses-2", "sub-02", "sub-03/ses-1/dwi"), strict=True):
        assert f"{tiny / folder} is a link to" in problem.message


def test_hidden_files_are_passed_over(tiny):
    """macOS leaves one beside every file of a network drive."""
    tiny.add("sub-01/dwi/sub-01_dwi")
    tiny.write("sub-01/dwi/._sub-01_dwi.nii.gz", "")
    assert (names(find(tiny)), find(tiny).problems) == (["sub-01"], [])


def test_parts_alone_are_said(tiny):
    for part in ("real", "imag"):
        tiny.add(f"sub-01/dwi/sub-01_part-{part}_dwi")
    (problem,) = find(tiny).problems
    assert "real or imaginary parts alone (sub-01_part-imag_dwi.nii.gz, sub-01_part-real_dwi.nii.gz)" in problem.message


# --- filters --------------------------------------------------------------------------------------------------------


def filters(tmp_path, content):
    path = tmp_path / "filters.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return read_filters(path)


@pytest.fixture
def varied(tiny):
    for words in ("", "_acq-a", "_acq-a_dir-AP", "_acq-b_dir-PA"):
        tiny.add(f"sub-01/dwi/sub-01{words}_dwi")
    return tiny


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({}, ["", "_acq-a", "_acq-a_dir-AP", "_acq-b_dir-PA"]),
        ({"acquisition": "a"}, ["_acq-a", "_acq-a_dir-AP"]),
        ({"acquisition": None}, [""]),
        ({"acquisition": "*"}, ["_acq-a", "_acq-a_dir-AP", "_acq-b_dir-PA"]),
        ({"acquisition": "a", "direction": None}, ["_acq-a"]),
        ({"acquisition": ["a", None], "direction": None}, ["", "_acq-a"]),
        ({"direction": ["AP", "PA"]}, ["_acq-a_dir-AP", "_acq-b_dir-PA"]),
        ({"datatype": "dwi", "suffix": "dwi", "acquisition": "b"}, ["_acq-b_dir-PA"]),  # as QSIPrep's manual has it
        ({"acquisition": "c"}, []),
    ],
)
def test_filter_files(varied, tmp_path, query, expected):
    found = find(varied, filters=filters(tmp_path, {"dwi": query}))
    assert sorted(names(found)) == sorted(f"sub-01{words}" for words in expected)


def test_what_was_asked_for_is_said_as_it_was_written(varied, tmp_path):
    query = {"acquisition": None, "direction": "*"}
    (problem,) = find(varied, filters=filters(tmp_path, {"dwi": query})).problems
    assert json.dumps(query) in problem.message


def test_filters_are_not_changed(varied, tmp_path):
    given = filters(tmp_path, {"dwi": {"acquisition": "a"}})
    find(varied, filters=given, sessions=["1"])
    assert given == {"dwi": {"acquisition": "a"}}


@pytest.mark.parametrize(
    ("content", "error", "message"),
    [
        ("{", UsageError, "cannot be read as JSON"),
        ("[" * 100_000, UsageError, "cannot be read as JSON"),
        ([], UsageError, "must look like"),
        ({"dwi": "ap"}, UsageError, "must look like"),
        ({"dwi": {"acquisition": {"a": 1}}}, UsageError, "'acquisition'"),
        ({"dwii": {}}, UnknownNameError, "Did you mean 'dwi'"),
        ({"dwi": {"acquisitionn": "a"}}, UnknownNameError, "Did you mean 'acquisition'"),
        ({"dwi": {"subject": "01"}}, UnknownNameError, "'subject'"),
    ],
)
def test_filter_files_that_cannot_be(tmp_path, content, error, message):
    with pytest.raises(error, match=message):
        filters(tmp_path, content)


def test_a_filter_file_that_is_not_there(tmp_path):
    with pytest.raises(UnusableInputError, match=str(tmp_path / "none.json")):
        read_filters(tmp_path / "none.json")


# --- datasets and participants --------------------------------------------------------------------------------------


def test_participants_with_and_without_prefix(tiny):
    for label in ("01", "02", "10"):
        tiny.add(f"sub-{label}/dwi/sub-{label}_dwi")
    (tiny / "sub-03.html").touch()
    assert choose_participants(tiny.root, ()) == ["01", "02", "10"]
    assert choose_participants(tiny.root, ["sub-10", "01", "10"]) == ["01", "10"]
    with pytest.raises(UnknownNameError, match=r"Unknown participant '1'\. Did you mean"):
        choose_participants(tiny.root, ["1"])


def test_no_participant(tiny):
    with pytest.raises(UnusableInputError, match="holds no participant"):
        choose_participants(tiny.root, ())


def test_not_a_dataset(tmp_path):
    with pytest.raises(UnusableInputError, match=r"no dataset_description\.json"):
        open_dataset(tmp_path, "raw")
    with pytest.raises(UnusableInputError, match="is not a folder"):
        open_dataset(tmp_path / "none", "raw")
    (tmp_path / "dataset_description.json").write_text("not json")
    with pytest.raises(UnusableInputError, match=r"dataset_description\.json cannot be read"):
        open_dataset(tmp_path, "raw")


def test_a_derivative_dataset_without_a_maker(tiny, new_dataset, tmp_path):
    """Masks that somebody drew by hand come with the least of descriptions."""
    drawn = new_dataset(tmp_path / "drawn")
    drawn.add_mask("sub-01/dwi/sub-01_desc-brain_mask")
    tiny.add("sub-01/dwi/sub-01_dwi")
    assert mask_names(find(tiny, drawn)) == ["sub-01_desc-brain_mask"]


def test_links_stay_links(tiny, tmp_path):
    """DataLad's datasets are made of links, to files whose names say nothing."""
    path = tiny.add("sub-01/dwi/sub-01_dwi")
    annex = tmp_path / "annex" / "MD5E-s123--4567.nii.gz"
    annex.parent.mkdir()
    os.rename(path, annex)
    path.symlink_to(annex)
    os.rename(tiny / "sub-01", tmp_path / "elsewhere")
    (tiny / "sub-01").symlink_to(tmp_path / "elsewhere")
    link = tmp_path / "link"
    link.symlink_to(tiny.root)
    images = find_images(open_dataset(link, "raw"), [], ["01"]).images
    assert [image.path for image in images] == [link / "sub-01/dwi/sub-01_dwi.nii.gz"]
    assert images[0].uri == "bids:raw:sub-01/dwi/sub-01_dwi.nii.gz"
    assert images[0].bval == link / "sub-01/dwi/sub-01_dwi.bval"
