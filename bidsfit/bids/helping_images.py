"""Which other images of a dataset help to preprocess one."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from bidsfit.bids.anatomy import Anatomy, find_anatomy
from bidsfit.bids.fieldmaps import NoReversedPhase, ReversedPhase, find_reversed, joined_images
from bidsfit.bids.inputs import Dataset, DwiImage, Folder, Inputs
from bidsfit.exceptions import UnusableInputError


@dataclass(frozen=True)
class HelpingImages:
    """Other images that help to preprocess one, or why there are none.

    ``unusable``: there is an image of reversed phase encoding, and it cannot be used. ``joined``: the images that BIDS
    joins to this one as those of the reversed direction, usable or not.
    """

    reversed_phase: ReversedPhase | None = None
    unusable: bool = False
    no_reversed_phase: str = "no image of the reversed phase encoding belongs to it"
    anatomy: Anatomy | None = None
    no_anatomy: str = "there is no T1w image, and no segmentation of one"
    joined: tuple[Path, ...] = ()


def find_helping_images(
    raw: Dataset, derivatives: Sequence[Folder], inputs: Inputs, skip: Collection[str] = ()
) -> dict[str, HelpingImages]:
    """What helps to preprocess each raw image, by the name of the image."""
    return {
        image.name: find_images_that_help(raw, derivatives, image, skip)
        for image in inputs.images
        if not image.preprocessed
    }


def find_images_that_help(
    raw: Dataset, derivatives: Sequence[Folder], image: DwiImage, skip: Collection[str] = ()
) -> HelpingImages:
    """Images of reversed phase encoding, and of the anatomy, of one diffusion image.

    One that is damaged, or whose metadata are, costs the step that it would help, and says why.

    Parameters
    ----------
    skip : collection of str
        Steps that are left out: what would help them is not opened.
    """
    helping = HelpingImages()
    try:
        helping = replace(helping, joined=joined_images(raw, image))
        if "susceptibility" not in skip:
            found = find_reversed(raw, image)
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
