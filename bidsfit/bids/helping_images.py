"""Other images of a dataset that are needed to preprocess a diffusion image."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from bidsfit.bids.anatomy import Anatomy, find_anatomy
from bidsfit.bids.fieldmaps import NoReversedPhase, ReversedPhase, find_reversed, joined_images
from bidsfit.bids.images import open_image
from bidsfit.bids.inputs import Dataset, Folder, InputImage, Inputs, phase_unit_of
from bidsfit.bids.names import phase_beside
from bidsfit.exceptions import UnusableInputError


@dataclass(frozen=True)
class HelpingImages:
    """Other images that help to preprocess one, or why there are none.

    ``unusable``: a reversed image exists but cannot be used. ``joined``: images that BIDS links to this one as reversed
    ones, usable or not. ``phase``: the phase image of a magnitude, in ``phase_unit``.
    """

    reversed_phase: ReversedPhase | None = None
    unusable: bool = False
    no_reversed_phase: str = "no image of the reversed phase encoding belongs to it"
    anatomy: Anatomy | None = None
    no_anatomy: str = "there is no T1w image, and no segmentation of one"
    joined: tuple[Path, ...] = ()
    phase: Path | None = None
    phase_unit: str = ""
    no_phase: str = "no phase image belongs to it"


def find_helping_images(
    raw: Dataset, derivatives: Sequence[Folder], inputs: Inputs, skip: Collection[str] = ()
) -> dict[str, HelpingImages]:
    """Helping images of every raw image, by the name of the image."""
    return {
        image.name: find_images_that_help(raw, derivatives, image, skip)
        for image in inputs.images
        if not (image.preprocessed or image.series)
    }


def find_images_that_help(
    raw: Dataset, derivatives: Sequence[Folder], image: InputImage, skip: Collection[str] = ()
) -> HelpingImages:
    """Find the image of reversed phase encoding and the anatomy that belong to a diffusion image.

    Damaged images or metadata only disable the step that needs them, with a message. Images for steps in ``skip`` are
    not opened.
    """
    helping = HelpingImages()
    if "phase" not in skip:
        helping = _with_phase(helping, raw, image)
    try:
        joined = joined_images(raw, image)
        helping = replace(helping, joined=tuple(one.path for one in joined))
        if "susceptibility" not in skip:
            found = find_reversed(raw, image, joined)
            if isinstance(found, NoReversedPhase):
                helping = replace(helping, unusable=found.present, no_reversed_phase=found.reason)
            else:
                helping = replace(helping, reversed_phase=found)
    except UnusableInputError as error:
        helping = replace(helping, unusable=True, no_reversed_phase=str(error))
    if "tissue" in skip:
        return helping
    try:
        return replace(helping, anatomy=find_anatomy(raw, derivatives, image))
    except UnusableInputError as error:
        return replace(helping, no_anatomy=str(error))


def _with_phase(helping: HelpingImages, raw: Dataset, image: InputImage) -> HelpingImages:
    """Add the phase image of a magnitude."""
    path = phase_beside(image.path)
    if path is None:
        return helping
    try:
        unit = phase_unit_of(path, raw)
        shapes = [open_image(one).shape for one in (path, image.path)]
    except UnusableInputError as error:
        return replace(helping, no_phase=str(error))
    if shapes[0] != shapes[1]:
        return replace(helping, no_phase=f"{path.name} has the shape {shapes[0]}, and its magnitude {shapes[1]}")
    return replace(helping, phase=path, phase_unit=unit)
