"""The image of the reversed phase-encoding direction that belongs to a diffusion image, and why there may be none."""

import json
import re

import numpy as np
import pytest

from bidsfit.bids.fieldmaps import NoReversedPhase, ReversedPhase, find_reversed, joined_images, readout_time
from bidsfit.bids.inputs import Dataset, InputImage, inherited
from bidsfit.bids.metadata import read_sidecar
from bidsfit.exceptions import UnusableInputError

OURS = {"PhaseEncodingDirection": "j-", "TotalReadoutTime": 0.05}
THEIRS = {"PhaseEncodingDirection": "j", "TotalReadoutTime": 0.05}
DWI = "sub-01/dwi/sub-01_dir-AP_dwi"
EPI = "sub-01/fmap/sub-01_dir-PA_epi"


def add_dwi(dataset, stem=DWI, sidecar=OURS, **options):
    return dataset.add(stem, sidecar=sidecar, **options)


def add_epi(dataset, stem=EPI, sidecar=THEIRS, data=None, **options):
    dataset.write(f"{stem}.json", json.dumps(sidecar))
    data = dataset.signals((0, 0)) if data is None else data
    return dataset.nifti(f"{stem}.nii.gz", data, **options)


def find(dataset, name="sub-01_dir-AP"):
    """What is found for one image; the dataset is not indexed, which is slow and not needed."""
    opened = Dataset(name="raw", root=dataset.root, derivative=False)
    path = next(dataset.root.glob(f"sub-01/**/{name}_dwi.nii.gz"))
    sidecar = {}
    for file in reversed(list(inherited(path, opened, ".json"))):
        sidecar |= read_sidecar(file)
    bval = path.with_name(f"{name}_dwi.bval")
    image = InputImage(path, bval, None, sidecar, {"subject": "01"}, opened.uri(path), False)
    return find_reversed(opened, image, joined_images(opened, image))


def reason(dataset, **options):
    found = find(dataset, **options)
    assert isinstance(found, NoReversedPhase)
    return found.reason


# --- what joins them ------------------------------------------------------------------------------------------------


def test_all_that_is_known_of_a_pair(tiny):
    add_dwi(tiny, sidecar=OURS | {"B0FieldSource": "pepolar"})
    path = add_epi(tiny, sidecar=THEIRS | {"B0FieldIdentifier": "pepolar"})
    found = find(tiny)
    assert found == ReversedPhase(
        path=path,
        uri=f"bids:raw:{EPI}.nii.gz",
        volumes=(0, 1),
        own_volumes=(0, 1),
        direction="j",
        own_direction="j-",
        readout_time=0.05,
        own_readout_time=0.05,
        link="B0FieldSource",
    )
    assert (found.own_encoding.axis, found.own_encoding.sign, found.same_readout) == (1, -1, True)
    assert ReversedPhase.from_dict(json.loads(json.dumps(found.to_dict()))) == found


def test_one_of_several_identifiers(tiny):
    add_dwi(tiny, sidecar=OURS | {"B0FieldSource": ["other", "pepolar"]})
    path = add_epi(tiny, sidecar=THEIRS | {"B0FieldIdentifier": ["pepolar", "third"]})
    assert find(tiny).path == path


@pytest.mark.parametrize(
    "intended",
    [
        "dwi/sub-01_dir-AP_dwi.nii.gz",
        ["func/sub-01_bold.nii.gz", "dwi/sub-01_dir-AP_dwi.nii.gz"],
        "bids::sub-01/dwi/sub-01_dir-AP_dwi.nii.gz",
        ["bids:raw:sub-01/dwi/sub-01_dir-AP_dwi.nii.gz"],
        "sub-01/dwi/sub-01_dir-AP_dwi.nii.gz",
        "./dwi/sub-01_dir-AP_dwi.nii.gz",
    ],
)
def test_intended_for(tiny, intended):
    add_dwi(tiny)
    path = add_epi(tiny, sidecar=THEIRS | {"IntendedFor": intended})
    found = find(tiny)
    assert (found.path, found.link) == (path, "IntendedFor")


def test_intended_for_below_the_participant_with_a_session(tiny):
    stem = "sub-01/ses-1/dwi/sub-01_ses-1_dwi"
    add_dwi(tiny, stem)
    intended = THEIRS | {"IntendedFor": "ses-1/dwi/sub-01_ses-1_dwi.nii.gz"}
    path = add_epi(tiny, "sub-01/ses-1/fmap/sub-01_ses-1_epi", sidecar=intended)
    assert find(tiny, "sub-01_ses-1").path == path


@pytest.mark.parametrize(
    "intended", ["dwi/sub-01_dir-XX_dwi.nii.gz", "bids:elsewhere:sub-01/dwi/sub-01_dir-AP_dwi.nii.gz"]
)
def test_intended_for_another(tiny, intended):
    add_dwi(tiny)
    add_epi(tiny, sidecar=THEIRS | {"IntendedFor": intended})
    found = find(tiny)
    assert not found.present
    assert "No image of the reversed phase-encoding direction belongs to sub-01_dir-AP_dwi.nii.gz" in found.reason


def test_identifier_goes_before_intended_for(tiny):
    add_dwi(tiny, sidecar=OURS | {"B0FieldSource": "pepolar"})
    add_epi(tiny, "sub-01/fmap/sub-01_run-1_epi", THEIRS | {"IntendedFor": "dwi/sub-01_dir-AP_dwi.nii.gz"})
    path = add_epi(tiny, "sub-01/fmap/sub-01_run-2_epi", THEIRS | {"B0FieldIdentifier": "pepolar"})
    assert find(tiny).path == path


def test_the_reversed_one_of_two(tiny):
    """A field map is often a pair of both directions, both meant for the image."""
    add_dwi(tiny)
    intended = {"IntendedFor": "dwi/sub-01_dir-AP_dwi.nii.gz"}
    add_epi(tiny, "sub-01/fmap/sub-01_dir-AP_epi", OURS | intended)
    path = add_epi(tiny, sidecar=THEIRS | intended)
    assert find(tiny).path == path


def test_by_name(tiny):
    add_dwi(tiny)
    path = add_epi(tiny)
    found = find(tiny)
    assert (found.path, found.link) == (path, "dir- in the file names")


def test_names_of_other_sessions_do_not_count(tiny):
    add_dwi(tiny, "sub-01/ses-1/dwi/sub-01_ses-1_dir-AP_dwi")
    add_epi(tiny, "sub-01/ses-2/fmap/sub-01_ses-2_dir-PA_epi")
    assert not find(tiny, "sub-01_ses-1_dir-AP").present


def test_two_diffusion_images_of_opposite_directions(tiny):
    add_dwi(tiny)
    other = add_dwi(tiny, "sub-01/dwi/sub-01_dir-PA_dwi", THEIRS, b_values=(300, 0, 1000, 0))
    one = find(tiny)
    assert (one.path, one.volumes, one.own_volumes) == (other, (1, 3), (0, 1))
    assert one.without([0, 5]).own_volumes == (0,)
    assert one.without([5]) == one
    assert one.without([0, 1]).own_volumes == ()
    assert find(tiny, "sub-01_dir-PA").path == tiny / f"{DWI}.nii.gz"


def test_another_acquisition_is_no_partner_by_name(tiny):
    add_dwi(tiny)
    add_dwi(tiny, "sub-01/dwi/sub-01_acq-x_dir-PA_dwi", THEIRS)
    assert not find(tiny).present


def test_a_single_volume_and_inherited_fields(tiny):
    add_dwi(tiny, sidecar=None)
    tiny.write("dir-AP_dwi.json", json.dumps(OURS))
    tiny.nifti(f"{EPI}.nii.gz", tiny.signals((0,))[..., 0])
    tiny.write("dir-PA_epi.json", json.dumps(THEIRS))
    assert find(tiny).volumes == (0,)


# --- readout times --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sidecar", "seconds"),
    [
        ({"TotalReadoutTime": 0.05, "EffectiveEchoSpacing": 1}, 0.05),
        ({"EffectiveEchoSpacing": 0.0005, "ReconMatrixPE": 101}, 0.05),
        ({"EffectiveEchoSpacing": 0.0005}, 0.0255),
        ({"TotalReadoutTime": 0, "EffectiveEchoSpacing": 0.0005, "ReconMatrixPE": 101}, 0.05),
        ({}, None),
        ({"TotalReadoutTime": "0.05"}, None),
        ({"TotalReadoutTime": True}, None),
        ({"EffectiveEchoSpacing": -1}, None),
        ({"EffectiveEchoSpacing": float("nan")}, None),
    ],
)
def test_readout_time(sidecar, seconds):
    assert readout_time(sidecar, 52) == (None if seconds is None else pytest.approx(seconds))


def test_the_equal_readout_time_is_preferred(tiny):
    add_dwi(tiny)
    add_epi(tiny, "sub-01/fmap/sub-01_dir-PA_run-1_epi", THEIRS | {"TotalReadoutTime": 0.03})
    assert not find(tiny).same_readout
    path = add_epi(tiny, "sub-01/fmap/sub-01_dir-PA_run-2_epi")
    assert find(tiny).path == path


# --- what cannot be used --------------------------------------------------------------------------------------------


def test_nothing_at_all(tiny):
    add_dwi(tiny)
    found = find(tiny)
    assert not found.present
    assert "joined to it by B0FieldIdentifier, IntendedFor or dir-" in found.reason


def test_a_source_that_nothing_identifies(tiny):
    add_dwi(tiny, "sub-01/dwi/sub-01_dwi", sidecar=OURS | {"B0FieldSource": "lost"})
    add_epi(tiny, sidecar=THEIRS | {"B0FieldIdentifier": "pepolar"})
    assert "has the B0FieldSource 'lost', which is the B0FieldIdentifier of no" in reason(tiny, name="sub-01")


@pytest.mark.parametrize(
    ("ours", "theirs", "words"),
    [
        ({"TotalReadoutTime": 0.05}, THEIRS, "sub-01_dir-AP_dwi.nii.gz has no PhaseEncodingDirection"),
        (OURS, {"TotalReadoutTime": 0.05}, "sub-01_dir-PA_epi.nii.gz has no PhaseEncodingDirection"),
        (
            {"PhaseEncodingDirection": "j-"},
            THEIRS,
            "sub-01_dir-AP_dwi.nii.gz has no TotalReadoutTime, nor",
        ),
        (OURS, {"PhaseEncodingDirection": "j"}, "sub-01_dir-PA_epi.nii.gz has no TotalReadoutTime"),
        (OURS, THEIRS | {"TotalReadoutTime": -1}, "TotalReadoutTime of sub-01_dir-PA_epi.nii.gz is -1"),
        (OURS, OURS, r"sub-01_dir-PA_epi.nii.gz has the same PhaseEncodingDirection \(j-\).*reversed one \(j\)"),
        (THEIRS, THEIRS, r"expected the reversed one \(j-\)"),
        (OURS, THEIRS | {"PhaseEncodingDirection": "i"}, r"encoded along another axis \(i\) than .* \(j-\)"),
    ],
)
def test_fields_that_do_not_allow_it(tiny, ours, theirs, words):
    add_dwi(tiny, sidecar=ours)
    add_epi(tiny, sidecar=theirs)
    found = find(tiny)
    assert found.present
    assert re.search(words, found.reason)


def test_another_shape(tiny):
    add_dwi(tiny)
    add_epi(tiny, data=np.ones((5, 6, 4), dtype=np.float32))
    assert "sub-01_dir-PA_epi.nii.gz has shape (5, 6, 4), but sub-01_dir-AP_dwi.nii.gz has (5, 6, 3)" in reason(tiny)


def test_another_place(tiny):
    add_dwi(tiny)
    affine = tiny.AFFINE.copy()
    affine[0, 3] += 5
    add_epi(tiny, affine=affine)
    assert "lies elsewhere in space than sub-01_dir-AP_dwi.nii.gz" in reason(tiny)


def test_no_volume_without_weighting(tiny):
    add_dwi(tiny, b_values=(300, 600, 1000))
    add_epi(tiny)
    assert "sub-01_dir-AP_dwi.nii.gz has no volume of b = 0 (its smallest b-value is 300" in reason(tiny)


def test_the_other_has_no_volume_without_weighting(tiny):
    add_dwi(tiny)
    add_dwi(tiny, "sub-01/dwi/sub-01_dir-PA_dwi", THEIRS, b_values=(300, 600))
    assert "sub-01_dir-PA_dwi.nii.gz has no volume of b = 0" in reason(tiny)


def test_the_other_diffusion_image_has_no_b_values(tiny):
    add_dwi(tiny)
    add_dwi(tiny, "sub-01/dwi/sub-01_dir-PA_dwi", THEIRS, bval=False)
    assert "sub-01_dir-PA_dwi.nii.gz has no .bval file" in reason(tiny)


def test_every_reason_is_said(tiny):
    add_dwi(tiny)
    intended = {"IntendedFor": "dwi/sub-01_dir-AP_dwi.nii.gz"}
    add_epi(tiny, "sub-01/fmap/sub-01_run-1_epi", OURS | intended)
    add_epi(tiny, "sub-01/fmap/sub-01_run-2_epi", intended)
    said = reason(tiny)
    assert "run-1_epi.nii.gz has the same" in said
    assert "run-2_epi.nii.gz has no PhaseEncodingDirection" in said


# --- what is damaged ------------------------------------------------------------------------------------------------


def test_a_sidecar_that_is_no_json(tiny):
    add_dwi(tiny)
    add_epi(tiny)
    tiny.write(f"{EPI}.json", "{not JSON")
    with pytest.raises(UnusableInputError, match=r"dir-PA_epi.json cannot be read as JSON"):
        find(tiny)


@pytest.mark.parametrize(
    ("field", "value"), [("IntendedFor", 3), ("B0FieldIdentifier", [1]), ("IntendedFor", {"a": 1})]
)
def test_a_field_of_the_wrong_type(tiny, field, value):
    add_dwi(tiny)
    add_epi(tiny, sidecar=THEIRS | {field: value})
    with pytest.raises(UnusableInputError, match=rf"{field} in the sidecar of .*dir-PA_epi.nii.gz is .*; expected"):
        find(tiny)


def test_a_direction_that_is_none(tiny):
    add_dwi(tiny)
    add_epi(tiny, sidecar=THEIRS | {"PhaseEncodingDirection": "PA"})
    with pytest.raises(UnusableInputError, match=r"dir-PA_epi.nii.gz: 'PA' is no phase-encoding direction"):
        find(tiny)


def test_an_image_that_cannot_be_read(tiny):
    add_dwi(tiny)
    add_epi(tiny).write_bytes(b"not an image")
    with pytest.raises(UnusableInputError, match=r"dir-PA_epi.nii.gz cannot be read as NIfTI"):
        find(tiny)


def test_volumes_that_do_not_match_their_b_values(tiny):
    add_dwi(tiny)
    add_dwi(tiny, "sub-01/dwi/sub-01_dir-PA_dwi", THEIRS)
    tiny.write("sub-01/dwi/sub-01_dir-PA_dwi.bval", "0 0 300")
    with pytest.raises(UnusableInputError, match=r"5 volumes, but its .bval file has 3"):
        find(tiny)
