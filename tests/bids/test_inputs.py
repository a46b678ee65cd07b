"""What is found in a dataset: images, their b-values by inheritance, their masks."""

import json
import os

import numpy as np
import pytest

from bidsfit.bids.inputs import (
    DwiImage,
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
    assert DwiImage.from_dict(json.loads(json.dumps(image.to_dict()))) == image


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
    assert f"no diffusion images ({tiny.root}/sub-02/**/dwi/*_dwi.nii.gz)" in problem.message


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
    assert list(inherited(path, tiny.root, ".bval")) == files


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
    assert list(inherited(path, tiny.root, ".bval")) == []
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


def test_brain_before_other_masks(pair):
    pair[1].add_mask("sub-01/dwi/sub-01_label-lesion_mask")
    assert mask_names(find(*pair)) == ["sub-01_desc-brain_mask"]


def test_noise_maps_are_found_where_they_are_asked_for(pair):
    tiny, masks = pair
    tiny.add("sub-02/dwi/sub-02_dwi")
    masks.nifti("sub-01/dwi/sub-01_desc-mppca_param-noise_dwimap.nii.gz", np.ones(tiny.SHAPE, dtype=np.float32))
    masks.nifti("sub-02/dwi/sub-02_param-D_dwimap.nii.gz", np.ones(tiny.SHAPE, dtype=np.float32))
    raw, derivatives = open_dataset(tiny.root, "raw"), [open_dataset(masks.root, "masks", derivative=True)]
    without = find_images(raw, derivatives, ["01", "02"])
    assert [image.noise_map for image in without.images] == [None, None]
    found = find_images(raw, derivatives, ["01", "02"], noise_maps=True)
    (image,) = found.images
    assert image.noise_uri == "bids:masks:sub-01/dwi/sub-01_desc-mppca_param-noise_dwimap.nii.gz"
    assert DwiImage.from_dict(image.to_dict()) == image
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
    with pytest.raises(UsageError, match=str(tmp_path / "none.json")):
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


def test_only_chosen_participants_are_indexed(tiny):
    for label in ("01", "012", "02"):
        tiny.add(f"sub-{label}/dwi/sub-{label}_dwi")
    layout = open_dataset(tiny.root, "raw", participants=["01"]).layout
    assert layout.get_subjects() == ["01"]


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


def test_a_kept_index_is_used_again(tiny, tmp_path):
    tiny.add("sub-01/dwi/sub-01_dwi")
    database = tmp_path / "index"
    open_dataset(tiny.root, "raw", database=database)
    before = {path: path.stat().st_mtime_ns for path in database.rglob("*") if path.is_file()}
    assert before
    tiny.add("sub-02/dwi/sub-02_dwi")  # not seen: the index is not made again
    dataset = open_dataset(tiny.root, "raw", database=database, participants=["01"])
    assert dataset.layout.get_subjects() == ["01"]
    assert before == {path: path.stat().st_mtime_ns for path in database.rglob("*") if path.is_file()}


def test_an_index_of_another_dataset_is_refused(tiny, new_dataset, tmp_path):
    other = new_dataset(tmp_path / "other")
    open_dataset(tiny.root, "raw", database=tmp_path / "index")
    with pytest.raises(UsageError, match=f"is that of {tiny.root}, not of {other.root}"):
        open_dataset(other.root, "raw", database=tmp_path / "index")


def test_an_index_that_cannot_be_used(tiny, tmp_path):
    broken = tmp_path / "broken" / "raw" / "layout_index.sqlite"
    broken.parent.mkdir(parents=True)
    broken.write_text("This is no database.")
    (tmp_path / "file").touch()
    for folder in (tmp_path / "broken", tmp_path / "file"):
        with pytest.raises(UsageError, match=f"The index {folder / 'raw'} of {tiny.root} cannot be used"):
            open_dataset(tiny.root, "raw", database=folder)


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
