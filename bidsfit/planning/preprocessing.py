"""The preprocessing of one image: which steps it gets, and with what; why others are left out."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from bidsfit.acquisition import Acquisition
from bidsfit.bids.fieldmaps import readout_time
from bidsfit.bids.inputs import DwiImage
from bidsfit.exceptions import UnusableInputError, UsageError
from bidsfit.noise import repeats
from bidsfit.planning.helping_images import HelpingImages
from bidsfit.preprocessing.breathing import obstacle_to_breathing
from bidsfit.preprocessing.denoising import obstacle_to_mppca, obstacle_to_patch2self
from bidsfit.preprocessing.motion import obstacle_to_motion
from bidsfit.preprocessing.ringing import obstacle_to_gibbs
from bidsfit.preprocessing.steps import CHANGING, STEPS
from bidsfit.preprocessing.susceptibility import available, phase_encoding

Tools = Literal["auto", "none", "dipy", "fsl"]
BodyPart = Literal["auto", "brain", "body", "cord"]

#: What a step is done with: in words, and for the methods text with its references.
METHODS = {
    "mppca": (
        "MP-PCA (DIPY)",
        "Noise was reduced by Marchenko-Pastur principal component analysis [@veraart2016; @dipy].",
    ),
    "patch2self": ("Patch2Self (DIPY)", "Noise was reduced by Patch2Self [@fadnavis2020; @dipy]."),
    "subvoxel": (
        "sub-voxel shifts (DIPY)",
        "Gibbs ringing was removed by sub-voxel shifts [@kellner2016; @dipy].",
    ),
    "topup": ("topup (FSL)", "Susceptibility distortions were estimated with topup of FSL [@andersson2003; @fsl]."),
    "pyhysco": ("PyHySCO", "Susceptibility distortions were estimated with PyHySCO [@pyhysco]."),
    "eddy": ("eddy (FSL)", "Motion and eddy-current distortions were corrected with eddy of FSL [@andersson2016]."),
    "affine": (
        "affine registration of every volume to its shell",
        "Motion and eddy-current distortions were corrected by affine registration of every volume to what the others "
        "of its shell predict; how shells lie to one another was found by mutual information [@dipy] and from the "
        "volumes around them in time; gradient directions were rotated [@leemans2009].",
    ),
    "deformable": (
        "deformable registration by one displacement that all volumes share",
        "Motion of organs was corrected by deformable registration: one displacement that all volumes share, each to a "
        "depth of its own [@mcclelland2013], was found from what a change of contrast with b does not explain, and the "
        "depths that go with b from mutual information [@studholme1999].",
    ),
    "koay": (
        "inversion of the Rician mean",
        "The bias of the Rician noise floor was taken out of the magnitudes by inverting the Rician mean [@koay2006].",
    ),
    "dseg": ("segmentation of the derivatives", "Tissue was taken from the segmentation that came with the data."),
    "hmrf": (
        "classification of the T1w image (DIPY)",
        "Tissue was classified on the T1-weighted image by a hidden Markov random field [@zhang2001; @dipy].",
    ),
}

#: Settings of an image that is fitted as it is.
NOTHING_DONE = {name.capitalize(): "none" for name in CHANGING}

#: Words of BodyPart (BIDS) or BodyPartExamined (DICOM) that mean the head, or nothing that deforms; the spinal cord,
#: which moves in its canal and keeps its shape; and other parts.
HEAD = ("brain", "cranium", "head", "headneck", "neuro", "phantom", "skull", "whole")
CORD = ("cord", "cspine", "ctspine", "lspine", "lsspine", "spinal", "spine", "tlspine", "tspine")
BODY = (
    *("abdomen", "bladder", "body", "bone", "bowel", "breast", "calf", "cervix", "chest", "colon", "extremity"),
    *("hand", "heart", "hip", "kidney", "kidneys", "knee", "leg", "liver", "lung", "lungs", "muscle", "ovary"),
    *("pancreas", "pelvis", "placenta", "prostate", "rectum", "shoulder", "spleen", "stomach", "thigh", "thorax"),
    "uterus",
)

#: What says nothing of the part of the body.
NOT_TOLD = ("", "n a", "na", "none", "unknown", "unspecified")


@dataclass(frozen=True)
class PreprocessingChoice:
    """What the options say about preprocessing.

    ``fsl`` names the programs of FSL that are installed. ``rician`` says why the Rician correction is left to the
    estimators, or is empty.
    """

    tools: Tools = "auto"
    skip: Collection[str] = ()
    denoise: Literal["mppca", "patch2self"] = "mppca"
    body_part: BodyPart = "auto"
    fsl: Collection[str] = ()
    rician: str = ""


@dataclass(frozen=True)
class Step:
    """One step: its method, or the reason why it is left out; a remark where there is one."""

    name: str
    method: str = ""
    reason: str = ""

    @property
    def title(self) -> str:
        return STEPS[self.name]

    @property
    def in_words(self) -> str:
        """What it does, or why it does not."""
        words = METHODS[self.method][0] if self.method else "left out"
        return f"{words}: {self.reason}" if self.reason else words


@dataclass(frozen=True)
class Chain:
    """The preprocessing of one raw image.

    ``raw`` is the image as acquired; ``body`` says that it is none of a head; ``measures_noise`` that the noise level
    of the raw image is found on the way, and ``tells_noise`` that the fits take it (denoising makes the scatter of
    repeated measurements smaller than the error of the signals); ``prepared`` that an earlier run left an image, which
    lacks steps that it had to leave out.
    """

    raw: DwiImage
    steps: tuple[Step, ...]
    body: bool = False
    measures_noise: bool = False
    tells_noise: bool = False
    helping: HelpingImages = field(default_factory=HelpingImages)
    prepared: bool = False

    def without(self, refused: Mapping[str, str]) -> Chain:
        """The chain of an image that an earlier run left without some steps; ``refused`` says why, by step."""
        steps = [
            Step(step.name, reason=f"{refused[step.name]} (found by an earlier run, whose image is kept)")
            if step.method and step.name in refused
            else step
            for step in self.steps
        ]
        return replace(self, steps=tuple(steps), prepared=True)

    def method(self, name: str) -> str:
        """Method of a step; empty where it is left out."""
        return next(step.method for step in self.steps if step.name == name)

    @property
    def changes(self) -> bool:
        """Whether any step changes the signals."""
        return self.prepared or any(self.method(name) for name in CHANGING)

    @property
    def settings(self) -> dict[str, Any]:
        """What shaped the signals, as the sidecar says it: method by step."""
        return NOTHING_DONE | {name.capitalize(): self.method(name) for name in CHANGING if self.method(name)}

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The steps as a record shows them."""
        return [
            {
                "name": step.name,
                "title": step.title,
                "method": METHODS[step.method][0] if step.method else "",
                "applied": bool(step.method),
                "reason": step.reason,
            }
            for step in self.steps
        ]

    @property
    def methods(self) -> dict[str, str]:
        """Sentences for the methods text, by step, of the steps that are to be done."""
        return {step.name: METHODS[step.method][1] for step in self.steps if step.method}


def plan_chain(
    image: DwiImage,
    shape: tuple[int, int, int, int],
    acquisition: Acquisition,
    choice: PreprocessingChoice,
    helping: HelpingImages,
    *,
    sigma: str = "auto",
) -> Chain | None:
    """Choose the steps of an image; None where it is taken as it is.

    Parameters
    ----------
    image : DwiImage
    shape : (x, y, z, n)
    acquisition : Acquisition
    choice : PreprocessingChoice
    helping : HelpingImages
    sigma : str
        Source of the noise level, or the level itself.

    Raises
    ------
    UsageError
        Where ``fsl`` was asked for and is not there.
    UnusableInputError
        Where a correction was asked for and the metadata that it needs are missing.
    """
    if choice.tools == "none" or image.preprocessed:
        return None
    part, unknown = _part(image, choice)
    body = part != "brain"
    left_out = {name: Step(name, reason=f"--skip {name}") for name in choice.skip}
    denoise = left_out.get("denoise") or _denoise(shape, choice)
    rician = left_out.get("rician") or _rician(denoise, acquisition, choice, sigma)
    steps = [
        denoise,
        left_out.get("gibbs") or _gibbs(image, shape),
        rician,
        left_out.get("susceptibility") or _susceptibility(choice, helping),
        left_out.get("motion") or _remarked(_motion(image, shape, acquisition, choice, part), unknown),
        left_out.get("tissue") or _tissue(helping, body),
    ]
    measures = bool(rician.method or denoise.method) and _knows_noise(denoise, acquisition, sigma)
    tells = measures and sigma != "residuals" and not _is_number(sigma)
    return Chain(image, tuple(steps), body, measures, tells, helping)


def _part(image: DwiImage, choice: PreprocessingChoice) -> tuple[BodyPart, str]:
    """The part of the body that the image shows; and what to say of a word that is not known."""
    if choice.body_part != "auto":
        return choice.body_part, ""
    for field_name in ("BodyPart", "BodyPartExamined"):
        told = str(image.sidecar.get(field_name) or "")
        words = " ".join(re.findall("[a-z]+", told.lower()))
        if words in NOT_TOLD:
            continue
        if set(words.split()) & set(CORD):
            return "cord", ""
        if set(words.split()) & set(BODY):
            return "body", ""
        known = set(words.split()) & set(HEAD)
        return (
            "brain",
            "" if known else f"{field_name} {told!r} is not known, and taken for a head; --body-part says it",
        )
    return "brain", ""


def _remarked(step: Step, remark: str) -> Step:
    """A step with one more remark."""
    return replace(step, reason="; ".join(filter(None, [step.reason, remark])))


def _denoise(shape: tuple[int, int, int, int], choice: PreprocessingChoice) -> Step:
    obstacle = {"mppca": obstacle_to_mppca, "patch2self": obstacle_to_patch2self}[choice.denoise](shape)
    return Step("denoise", "" if obstacle else choice.denoise, obstacle)


def _gibbs(image: DwiImage, shape: tuple[int, int, int, int]) -> Step:
    obstacle = obstacle_to_gibbs(shape)
    fraction = image.sidecar.get("PartialFourier")
    remark = ""
    if isinstance(fraction, int | float) and fraction < 1:
        remark = f"PartialFourier is {fraction:g}; the method assumes 1 and may leave some ringing"
    return Step("gibbs", "" if obstacle else "subvoxel", obstacle or remark)


def _susceptibility(choice: PreprocessingChoice, helping: HelpingImages) -> Step:
    if helping.reversed_phase is None:
        return Step("susceptibility", "", helping.no_reversed_phase)
    if choice.tools == "fsl" or (choice.tools == "auto" and {"topup", "eddy"} <= set(choice.fsl)):
        _require_fsl(choice, "topup")
        return Step("susceptibility", "topup", f"with {helping.reversed_phase.path.name}")
    if not available():
        return Step(
            "susceptibility",
            reason="an image of reversed phase encoding is there, but neither FSL nor PyHySCO is installed (pip "
            "install 'bidsfit[distortion]')",
        )
    if not helping.reversed_phase.same_readout:
        return Step(
            "susceptibility",
            reason=f"the readout time of {helping.reversed_phase.path.name} is not that of the image, which only "
            "FSL's topup can use",
        )
    return Step("susceptibility", "pyhysco", f"with {helping.reversed_phase.path.name}")


def _motion(
    image: DwiImage,
    shape: tuple[int, int, int, int],
    acquisition: Acquisition,
    choice: PreprocessingChoice,
    part: BodyPart,
) -> Step:
    obstacle = obstacle_to_motion(shape, shape[3])
    if part == "body":
        obstacle = obstacle or obstacle_to_breathing(acquisition.b_values)
    if obstacle:
        return Step("motion", "", obstacle)
    if part == "body":
        return Step("motion", "deformable")
    missing = _missing_fields(image, shape)
    if choice.tools == "fsl":
        _require_fsl(choice, "eddy")
        if missing:
            raise UnusableInputError(
                f"{image.path}: FSL's eddy needs {' and '.join(missing)}, which its sidecar does not have. Add them, "
                "or choose --preprocess dipy."
            )
        return Step("motion", "eddy")
    if part == "cord":
        return Step("motion", "affine", "a cord keeps its shape, and FSL's eddy is for heads")
    if choice.tools == "auto" and "eddy" in choice.fsl:
        if not missing:
            return Step("motion", "eddy")
        return Step("motion", "affine", f"FSL's eddy would need {' and '.join(missing)}")
    return Step("motion", "affine")


def _missing_fields(image: DwiImage, shape: tuple[int, int, int, int]) -> list[str]:
    """Fields of the sidecar that FSL's eddy needs and that are not there."""
    try:
        encoding = phase_encoding(image.sidecar.get("PhaseEncodingDirection"))
    except ValueError:
        return ["PhaseEncodingDirection"]
    return [] if readout_time(image.sidecar, shape[encoding.axis]) else ["TotalReadoutTime"]


def _require_fsl(choice: PreprocessingChoice, program: str) -> None:
    if program not in choice.fsl:
        raise UsageError(
            f"--preprocess fsl: FSL's {program} is not installed (not found on PATH). Install FSL, or choose "
            "--preprocess dipy, which needs nothing more."
        )


def _rician(denoise: Step, acquisition: Acquisition, choice: PreprocessingChoice, sigma: str) -> Step:
    if choice.rician:
        return Step("rician", "", choice.rician)
    if not _knows_noise(denoise, acquisition, sigma):
        return Step(
            "rician", "", "the noise level is not known: no MP-PCA, no repeated measurements, no number by --sigma"
        )
    return Step("rician", "koay")


def _knows_noise(denoise: Step, acquisition: Acquisition, sigma: str) -> bool:
    """Whether the noise level of the raw image can be found before any fit."""
    found = denoise.method == "mppca" or sigma in ("mppca", "map", "piesno") or _is_number(sigma)
    return found or any(group.size > 1 for group in repeats(acquisition))


def _is_number(word: str) -> bool:
    try:
        return math.isfinite(float(word))
    except ValueError:
        return False


def _tissue(helping: HelpingImages, body: bool) -> Step:
    if body:
        return Step("tissue", "", "the image is not of a head")
    if helping.anatomy is None:
        return Step("tissue", "", helping.no_anatomy)
    return Step("tissue", "dseg" if helping.anatomy.segmentation else "hmrf")
