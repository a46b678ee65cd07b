"""Choice of the preprocessing steps of an image, and reasons why others are left out."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from bidsfit.acquisition import Acquisition
from bidsfit.bids.helping_images import HelpingImages
from bidsfit.bids.inputs import InputImage
from bidsfit.preprocessing.steps import STEPS
from bidsfit.steps.step import BodyPart, Planned, PreprocessingChoice, Scene, all_steps

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
class Chain:
    """The preprocessing of one raw image.

    ``raw`` is the image as acquired. ``body``: it does not show a head. ``measures_noise``: the noise level of the raw
    image is estimated; ``tells_noise``: fits use it, because denoising makes repeated measurements scatter less than
    their error. ``interpolation``: how the scanner interpolated the image, by its sidecar. ``prepared``: an earlier run
    wrote the image, without steps that it could not apply.
    """

    raw: InputImage
    steps: tuple[Planned, ...]
    body: bool = False
    measures_noise: bool = False
    tells_noise: bool = False
    helping: HelpingImages = field(default_factory=HelpingImages)
    interpolation: str = ""
    prepared: bool = False

    def without(self, refused: Mapping[str, str]) -> Chain:
        """The chain without the steps that an earlier run could not apply; ``refused`` gives reasons by step."""
        steps = [
            Planned(step.step, reason=f"{refused[step.name]} (found by an earlier run, whose image is kept)")
            if step.method and step.name in refused and not step.needed
            else step
            for step in self.steps
        ]
        return replace(self, steps=tuple(steps), prepared=True)

    def method(self, name: str) -> str:
        """Method of a step; empty if it is left out."""
        return next(step.method for step in self.steps if step.name == name)

    @property
    def changing(self) -> tuple[Planned, ...]:
        """The steps that change the signals, in order."""
        return tuple(step for step in self.steps if step.method and step.step.changes)

    @property
    def changes(self) -> bool:
        """Whether any step changes the signals."""
        return self.prepared or bool(self.changing)

    @property
    def settings(self) -> dict[str, Any]:
        """Methods by step, for sidecars."""
        return nothing_done() | {step.name.capitalize(): step.method for step in self.changing}

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The steps as rows of a record."""
        return [
            {
                "name": step.name,
                "title": step.step.title,
                "method": step.how.title if step.how else "",
                "applied": bool(step.method),
                "reason": step.reason,
            }
            for step in self.steps
        ]

    @property
    def methods(self) -> dict[str, str]:
        """Sentences of the methods text, by step."""
        return {step.name: step.how.sentence for step in self.steps if step.how}


def nothing_done() -> dict[str, Any]:
    """Settings of an image that is fitted without preprocessing."""
    return {name.capitalize(): "none" for name in STEPS.built_in if STEPS.get(name).changes}


def plan_chain(
    image: InputImage,
    shape: tuple[int, int, int, int],
    acquisition: Acquisition,
    choice: PreprocessingChoice,
    helping: HelpingImages,
    *,
    sigma: str = "auto",
) -> Chain | None:
    """Choose the steps of an image of ``shape`` (x, y, z, n); None if it is not preprocessed.

    ``sigma`` is the source of the noise level, or the level itself.

    Raises
    ------
    UsageError
        If ``fsl`` was requested but is not installed.
    UnusableInputError
        If metadata of a requested correction are missing.
    """
    if choice.tools == "none" or image.preprocessed:
        return None
    part, unknown = _part(image, choice)
    scene = Scene(image, shape, acquisition, choice, helping, part, unknown, sigma)
    if image.series:
        steps = tuple(Planned(step, reason="it is for diffusion images") for step in all_steps())
        return Chain(image, steps, scene.body)
    chosen: dict[str, Planned] = {}
    for step in all_steps():
        skipped = step.name in choice.skip
        chosen[step.name] = Planned(step, reason=f"--skip {step.name}") if skipped else step.choose(scene, chosen)
    reduces = chosen["rician"].method or chosen["denoise"].method
    measures = bool(reduces) and scene.knows_noise(chosen)
    tells = measures and sigma != "residuals" and not scene.sigma_is_given
    return Chain(image, tuple(chosen.values()), scene.body, measures, tells, helping, scene.interpolation)


def _part(image: InputImage, choice: PreprocessingChoice) -> tuple[BodyPart, str]:
    """Part of the body in the image, and a message about an unknown value."""
    if choice.body_part != "auto":
        return choice.body_part, ""
    told, words = body_part(image.sidecar)
    if words & set(CORD):
        return "cord", ""
    if words & set(BODY):
        return "body", ""
    known = not words or words & set(HEAD)
    return "brain", "" if known else f"{told} is not known, and taken for a head; --body-part says it"


def body_part(sidecar: Mapping[str, Any]) -> tuple[str, set[str]]:
    """What a sidecar says of the part of the body ("BodyPart 'LIVER'"), and the words of it in small letters."""
    for field_name in ("BodyPart", "BodyPartExamined"):
        told = str(sidecar.get(field_name) or "")
        words = " ".join(re.findall("[a-z]+", told.lower()))
        if words not in NOT_TOLD:
            return f"{field_name} {told!r}", set(words.split())
    return "", set()
