"""Images that help others: what is wrong with one costs its step, and not the image that it would help."""

import json

import numpy as np
import pytest

from bidsfit.bids.helping_images import find_helping_images
from bidsfit.bids.images import open_image
from bidsfit.bids.inputs import choose_participants, find_images, open_dataset
from bidsfit.planning.fits import make_fits
from bidsfit.planning.plan import make_plan
from bidsfit.steps.step import PreprocessingChoice

OWN = {"PhaseEncodingDirection": "j-", "TotalReadoutTime": 0.05}


@pytest.fixture
def planned(tiny, tmp_path):
    """``planned()``: the plan of the one participant of a small dataset."""

    def make(**choice):
        raw = open_dataset(tiny.root, "raw")
        labels = choose_participants(tiny.root, ())
        inputs = find_images(raw, [], labels)
        (plan,) = make_plan(
            inputs,
            labels,
            make_fits(["adc"]),
            output_dir=tmp_path / "out",
            preprocessing=PreprocessingChoice("dipy", **choice),
            helping_images=find_helping_images(raw, [], inputs, choice.get("skip", ())),
        )
        return plan

    return make


def steps(plan):
    (image,) = plan.images
    return {step.name: step for step in image.chain.steps}


@pytest.mark.parametrize(
    "sidecar",
    [
        json.dumps({"IntendedFor": None, "PhaseEncodingDirection": "j"}),
        json.dumps({"IntendedFor": "dwi/sub-01_dwi.nii.gz", "PhaseEncodingDirection": "AP"}),
        '{"Operator": "René", "PhaseEncodingDirection": "j"}',
    ],
    ids=["null", "letters", "latin1"],
)
@pytest.mark.parametrize("skip", [(), ("susceptibility",)])
def test_an_odd_field_map_costs_its_step(tiny, planned, sidecar, skip):
    tiny.add("sub-01/dwi/sub-01_dwi", b_values=[0, 0, 500, 1000], sidecar=OWN)
    tiny.nifti("sub-01/fmap/sub-01_dir-PA_epi.nii.gz", tiny.signals()[..., 0])
    (tiny / "sub-01/fmap/sub-01_dir-PA_epi.json").write_bytes(sidecar.encode("latin-1"))
    plan = planned(skip=skip)
    assert plan.problems == []
    left_out = steps(plan)["susceptibility"]
    assert not left_out.method
    assert ("--skip" if skip else "sub-01_dir-PA_epi") in left_out.reason


@pytest.mark.parametrize(("part", "rule"), [("BRAIN", "Otsu"), ("LIVER", "half the median")])
def test_the_warning_names_the_rule_that_found_the_mask(tiny, planned, part, rule):
    tiny.add("sub-01/dwi/sub-01_dwi", b_values=[0, 0, 500, 1000], sidecar={"BodyPart": part})
    (image,) = planned().images
    (words,) = [words for words in image.warnings if "outline" in words]
    assert rule in words


@pytest.mark.parametrize("direction", [None, "AP", 3])
def test_an_odd_direction_of_the_image_itself_costs_the_step(tiny, planned, direction):
    tiny.add("sub-01/dwi/sub-01_dwi", b_values=[0, 0, 500, 1000], sidecar={"PhaseEncodingDirection": direction})
    tiny.nifti("sub-01/fmap/sub-01_dir-PA_epi.nii.gz", tiny.signals()[..., 0])
    (tiny / "sub-01/fmap/sub-01_dir-PA_epi.json").write_text(json.dumps({"PhaseEncodingDirection": "j"}))
    plan = planned()
    assert plan.problems == []
    assert "PhaseEncodingDirection" in steps(plan)["susceptibility"].reason


def test_a_reversed_series_without_weighting_is_used_and_not_fitted(tiny, planned):
    tiny.add("sub-01/dwi/sub-01_dir-AP_dwi", b_values=[0, 0, 500, 1000], sidecar=OWN)
    other = {**OWN, "PhaseEncodingDirection": "j"}
    tiny.add("sub-01/dwi/sub-01_dir-PA_dwi", b_values=[0, 0], data=tiny.signals()[..., :2], sidecar=other)
    plan = planned()
    assert plan.problems == []
    assert [image.image.name for image in plan.images] == ["sub-01_dir-AP"]
    assert "sub-01_dir-PA_dwi.nii.gz" in steps(plan)["susceptibility"].in_words


@pytest.mark.parametrize("why", ["same PhaseEncodingDirection", "--skip"])
def test_a_reversed_series_that_is_not_used_is_not_fitted_either(tiny, planned, why):
    tiny.add("sub-01/dwi/sub-01_dir-AP_dwi", b_values=[0, 0, 500, 1000], sidecar=OWN)
    other = OWN | ({"PhaseEncodingDirection": "j"} if why == "--skip" else {})
    tiny.add("sub-01/dwi/sub-01_dir-PA_dwi", b_values=[0, 0], data=tiny.signals()[..., :2], sidecar=other)
    plan = planned(skip=("susceptibility",) if why == "--skip" else ())
    assert plan.problems == []
    assert [image.image.name for image in plan.images] == ["sub-01_dir-AP"]
    assert why in steps(plan)["susceptibility"].reason


def test_what_would_help_a_step_that_is_skipped_is_not_opened(tiny, planned, monkeypatch):
    tiny.add("sub-01/dwi/sub-01_dwi", b_values=[0, 0, 500, 1000], sidecar=OWN)
    tiny.nifti("sub-01/fmap/sub-01_dir-PA_epi.nii.gz", tiny.signals()[..., 0])
    tiny.write("sub-01/fmap/sub-01_dir-PA_epi.json", json.dumps({**OWN, "PhaseEncodingDirection": "j"}))
    opened = []
    monkeypatch.setattr("bidsfit.bids.fieldmaps.open_image", lambda path: opened.append(path.name) or open_image(path))
    assert steps(planned())["susceptibility"].method == "pyhysco"
    assert "sub-01_dir-PA_epi.nii.gz" in opened
    opened.clear()
    planned(skip=("susceptibility",))
    assert opened == []


def test_a_series_without_weighting_that_helps_nobody_is_said(tiny, planned):
    tiny.add("sub-01/dwi/sub-01_acq-main_dwi", b_values=[0, 0, 500, 1000])
    tiny.add("sub-01/dwi/sub-01_acq-other_dwi", b_values=[0, 0], data=tiny.signals()[..., :2])
    (problem,) = planned().problems
    assert "supports none of the models" in problem


@pytest.mark.parametrize(
    ("sidecar", "volumes", "why"),
    [
        ({"Units": "rad"}, 4, ""),
        ({"Units": "arbitrary"}, 4, ""),
        ({}, 4, "must tell its Units in its sidecar, rad or arbitrary; found None"),
        ({"Units": ["rad"]}, 4, "found ['rad']"),
        ({"Units": "rad"}, 3, "has the shape (4, 4, 4, 3), and its magnitude (4, 4, 4, 4)"),
    ],
)
def test_a_phase_belongs_to_the_magnitude_of_its_name(tiny, planned, sidecar, volumes, why):
    tiny.add("sub-01/dwi/sub-01_part-mag_dwi", b_values=[0, 0, 500, 1000], data=np.ones((4, 4, 4, 4)))
    tiny.nifti("sub-01/dwi/sub-01_part-phase_dwi.nii.gz", np.zeros((4, 4, 4, volumes)))
    (tiny / "sub-01/dwi/sub-01_part-phase_dwi.json").write_text(json.dumps(sidecar))
    step = steps(planned())["phase"]
    assert step.method == ("" if why else "lowpass")
    assert why in step.reason


def test_a_magnitude_without_phase_is_one(tiny, planned):
    tiny.add("sub-01/dwi/sub-01_part-mag_dwi", b_values=[0, 0, 500, 1000])
    assert steps(planned())["phase"].reason == "no phase image belongs to it"
