"""Which steps an image gets, and why it does not get others."""

from pathlib import Path

import numpy as np
import pytest

from bidsfit.acquisition import Acquisition
from bidsfit.bids.anatomy import Anatomy
from bidsfit.bids.fieldmaps import ReversedPhase
from bidsfit.bids.helping_images import HelpingImages
from bidsfit.bids.inputs import InputImage
from bidsfit.exceptions import UnusableInputError, UsageError
from bidsfit.planning.preprocessing import plan_chain
from bidsfit.preprocessing.steps import STEPS
from bidsfit.reports.bibliography import cited, entries
from bidsfit.steps.step import PreprocessingChoice, all_steps

FIELDS = {"PhaseEncodingDirection": "j-", "TotalReadoutTime": 0.05}
FSL = ("topup", "eddy")
PAIR = ReversedPhase(Path("pa.nii.gz"), "bids::pa.nii.gz", (0,), (0,), "j", "j-", 0.05, 0.05, "IntendedFor")
PHASE = Path("sub-01_part-phase_dwi.nii.gz")
HEAD = Anatomy(Path("T1w.nii.gz"), (), "none", ("bids::T1w.nii.gz",), "the T1w image")


def image(preprocessed=False, **sidecar):
    path = Path("sub-01_dwi.nii.gz")
    return InputImage(path, path, path, sidecar, {"subject": "01"}, "bids:raw:sub-01_dwi.nii.gz", preprocessed)


def chain(raw=None, shape=(32, 32, 10, 40), repeated=True, helping=None, sigma="auto", **choice):
    n = shape[3]
    b_values = [0, 0, *[1000] * (n - 2)] if repeated else np.linspace(5, 1000, n)
    directions = np.random.default_rng(0).normal(size=(n, 3))
    return plan_chain(
        raw or image(),
        shape,
        Acquisition(b_values, directions),
        PreprocessingChoice(**choice),
        helping or HelpingImages(),
        sigma=sigma,
    )


def methods(found):
    return {step.name: step.method for step in found.steps}


def reason(found, name):
    return next(step.reason for step in found.steps if step.name == name)


def test_the_default_needs_nothing_but_the_image():
    found = chain()
    assert list(methods(found)) == list(STEPS.built_in)
    assert methods(found) == {
        "phase": "",
        "denoise": "mppca",
        "gibbs": "subvoxel",
        "rician": "koay",
        "susceptibility": "",
        "motion": "affine",
        "tissue": "",
    }
    assert found.changes
    assert found.measures_noise
    assert found.tells_noise


def test_a_pair_and_a_head_add_their_steps():
    found = methods(chain(helping=HelpingImages(PAIR, anatomy=HEAD)))
    assert (found["susceptibility"], found["tissue"]) == ("pyhysco", "hmrf")


def test_fsl_is_taken_where_it_is_and_the_sidecar_has_what_it_needs():
    found = methods(chain(image(**FIELDS), helping=HelpingImages(PAIR), fsl=FSL))
    assert (found["susceptibility"], found["motion"]) == ("topup", "eddy")
    assert methods(chain(image(**FIELDS), helping=HelpingImages(PAIR), fsl=FSL, tools="dipy"))["motion"] == "affine"
    without = chain(image(), fsl=FSL)
    assert methods(without)["motion"] == "affine"
    assert "PhaseEncodingDirection" in reason(without, "motion")


def test_eddy_is_not_taken_where_it_cannot_undo_the_distortion():
    """Without topup the field comes from PyHySCO, which eddy cannot read."""
    found = chain(image(**FIELDS), helping=HelpingImages(PAIR), fsl=("eddy",))
    assert methods(found)["susceptibility"] == "pyhysco"
    assert methods(found)["motion"] == "affine"
    assert "PyHySCO" in reason(found, "motion")


def test_fsl_insists():
    with pytest.raises(UsageError, match="FSL's eddy is not installed"):
        chain(tools="fsl")
    with pytest.raises(UnusableInputError, match="TotalReadoutTime"):
        chain(image(PhaseEncodingDirection="j"), tools="fsl", fsl=FSL)


def test_nothing_is_done_to_what_is_preprocessed_or_where_nothing_is_wanted():
    assert chain(image(preprocessed=True)) is None
    assert chain(tools="none") is None


@pytest.mark.parametrize("name", STEPS.built_in)
def test_every_step_can_be_skipped(name):
    found = chain(helping=HelpingImages(PAIR, anatomy=HEAD, phase=PHASE, phase_unit="rad"), skip=(name,))
    assert methods(found)[name] == ""
    assert reason(found, name) == f"--skip {name}"
    without = {name} if name == "phase" else {name, "rician"}  # the real part has no Rician bias
    assert all(method for other, method in methods(found).items() if other not in without)


def test_the_real_part_has_no_rician_bias():
    helping = HelpingImages(phase=PHASE, phase_unit="rad")
    found = chain(helping=helping)
    assert (methods(found)["phase"], methods(found)["rician"]) == ("lowpass", "")
    assert reason(found, "rician") == "the noise of the real part is Gaussian"
    assert found.measures_noise
    assert methods(chain(helping=helping, skip=("phase",)))["rician"] == "koay"
    assert methods(chain(helping=helping, rician="--noise rician"))["phase"] == ""


def test_all_steps_skipped_leave_the_image_as_it_is():
    found = chain(skip=[step.name for step in all_steps() if step.changes])
    assert not found.changes
    assert not found.measures_noise


def test_small_images_say_which_steps_need_more():
    found = chain(shape=(5, 6, 1, 5))
    assert not found.method("denoise")
    assert not found.method("motion")
    assert "5" in reason(found, "denoise")
    assert found.method("rician") == "koay"  # measurements were repeated


def test_the_rician_bias_needs_a_noise_level():
    few = {"shape": (32, 32, 10, 5), "repeated": False}
    assert "noise level is not known" in reason(chain(**few), "rician")
    assert chain(**few, sigma="12").method("rician") == "koay"
    assert chain(repeated=False).method("rician") == "koay"  # MP-PCA
    assert "noise level is not known" in reason(chain(repeated=False, skip=("denoise",)), "rician")


def test_the_estimators_may_deal_with_the_noise_floor():
    found = chain(rician="--noise rician: the estimators take the noise for that")
    assert not found.method("rician")
    assert "--noise rician" in reason(found, "rician")


def test_a_number_or_residuals_are_the_noise_of_the_fits_themselves():
    assert not chain(sigma="12").tells_noise
    assert not chain(sigma="residuals").tells_noise
    assert chain(sigma="repeats").tells_noise


@pytest.mark.parametrize(
    ("part", "body"), [("", False), ("BRAIN", False), ("whole brain", False), ("PANCREAS", True), ("calf", True)]
)
def test_the_body_part_of_the_sidecar(part, body):
    found = chain(image(BodyPart=part) if part else image(), helping=HelpingImages(anatomy=HEAD))
    assert found.body is body
    assert found.method("motion") == ("deformable" if body else "affine")
    assert bool(found.method("tissue")) is not body
    assert chain(image(BodyPart=part), body_part="body").body
    assert not chain(image(BodyPart=part), body_part="brain").body


@pytest.mark.parametrize("part", ["CSPINE", "spinal cord", "cord"])
def test_a_cord_keeps_its_shape_and_is_none_of_a_head(part):
    """Its motion is that of a whole, and FSL's eddy, which is made for heads, is taken only where it is asked for."""
    for found in (chain(image(**FIELDS, BodyPart=part), fsl=FSL), chain(image(**FIELDS), body_part="cord", fsl=FSL)):
        assert found.body
        assert found.method("motion") == "affine"
        assert not found.method("tissue")
    assert chain(image(**FIELDS, BodyPart=part), fsl=FSL, tools="fsl").method("motion") == "eddy"
    assert chain(image(BodyPart=part), body_part="body").method("motion") == "deformable"


@pytest.mark.parametrize("part", [None, "n/a", "N/A", "unknown", "NEURO", "PHANTOM", ["HEAD", "NECK"]])
def test_parts_that_are_not_told_or_do_not_deform_are_aligned_like_heads(part):
    assert chain(image(BodyPart=part)).method("motion") == "affine"
    assert reason(chain(image(BodyPart=part)), "motion") == ""


def test_what_dcm2niix_writes_is_read_and_an_unknown_word_is_named():
    assert chain(image(BodyPart=None, BodyPartExamined="LIVER")).body
    assert not chain(image(BodyPartExamined="BRAIN")).body
    found = chain(image(BodyPart="XYZZY"))
    assert not found.body
    assert "'XYZZY' is not known" in reason(found, "motion")


def test_partial_fourier_is_remarked_on():
    assert "PartialFourier is 0.75" in reason(chain(image(PartialFourier=0.75)), "gibbs")


def test_pairs_of_other_readout_times_are_for_topup_alone():
    pair = ReversedPhase(**{**vars(PAIR), "readout_time": 0.1})
    assert "readout time" in reason(chain(helping=HelpingImages(pair)), "susceptibility")
    found = chain(image(**FIELDS), helping=HelpingImages(pair), fsl=FSL)
    assert found.method("susceptibility") == "topup"


def test_all_references_are_in_the_bibliography():
    sentences = " ".join(method.sentence for step in all_steps() for method in step.methods.values())
    assert set(cited(sentences)) <= set(entries())


def test_a_body_needs_volumes_that_tell_movement_from_contrast():
    few = chain(image(BodyPart="LIVER"), shape=(32, 32, 10, 4), repeated=False)
    assert not few.method("motion")
    assert reason(few, "motion").startswith("4 volumes do not tell movement from contrast (at least 5")


# --- images that the scanner interpolated ---------------------------------------------------------------------------

MATRICES = {"AcquisitionMatrixPE": 16, "ReconMatrixPE": 32}


def test_interpolated_images_get_no_mppca_and_their_noise_from_repeats():
    found = chain(image(**MATRICES))
    assert (found.method("denoise"), found.method("gibbs"), found.method("rician")) == ("", "", "koay")
    for name in ("denoise", "gibbs"):
        assert "16 lines were acquired along the phase-encoding axis, and 32 reconstructed" in reason(found, name)
    assert found.tells_noise


def test_interpolated_images_without_repeats_do_not_take_the_level_of_mppca():
    found = chain(image(**MATRICES), repeated=False)
    assert (found.method("denoise"), found.method("rician")) == ("", "")
    assert not found.measures_noise


@pytest.mark.parametrize("name", ["mppca", "patch2self"])
def test_interpolated_images_get_the_denoising_that_is_asked_for(name):
    """Patch2Self does not mind."""
    found = chain(image(**MATRICES), denoise=name)
    assert found.method("denoise") == name
    assert ("16 lines" in reason(found, "denoise")) == (name == "mppca")


@pytest.mark.parametrize(("choice", "needed"), [({}, False), ({"denoise": "mppca"}, True), ({"repeated": False}, True)])
def test_mppca_that_may_not_be_left_out(choice, needed):
    """An earlier run that left it out does not count where it is asked for."""
    found = chain(**choice)
    assert next(step for step in found.steps if step.name == "denoise").needed == needed
    assert found.without({"denoise": "the image was interpolated"}).method("denoise") == ("mppca" if needed else "")
