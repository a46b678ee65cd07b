"""Which other images of a dataset help to preprocess one."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

from bidsfit.bids.anatomy import find_anatomy
from bidsfit.bids.fieldmaps import NoReversedPhase, find_reversed, joined_images
from bidsfit.bids.inputs import Dataset, DwiImage, Folder, Inputs
from bidsfit.exceptions import UnusableInputError
from bidsfit.workflows.chain import Companions


def find_all_companions(
    raw: Dataset, derivatives: Sequence[Folder], inputs: Inputs, skip: Collection[str] = ()
) -> dict[str, Companions]:
    """Companions of all raw images, by image name."""
    return {
        image.name: find_companions(raw, derivatives, image, skip) for image in inputs.images if not image.preprocessed
    }


def find_companions(
    raw: Dataset, derivatives: Sequence[Folder], image: DwiImage, skip: Collection[str] = ()
) -> Companions:
    """Images of reversed phase encoding, and of the anatomy, of one diffusion image.

    One that is damaged, or whose metadata are, costs the step that it would help, and says why.

    Parameters
    ----------
    raw : Dataset
    derivatives : sequence of Folder
    image : DwiImage
    skip : collection of str
        Steps that are left out: what would help them is not opened.
    """
    companions = Companions()
    try:
        companions = replace(companions, joined=joined_images(raw, image))
        if "susceptibility" not in skip:
            found = find_reversed(raw, image)
            if isinstance(found, NoReversedPhase):
                companions = replace(companions, unusable=found.present, no_reversed_phase=found.reason)
            else:
                companions = replace(companions, reversed_phase=found)
    except UnusableInputError as error:
        companions = replace(companions, unusable=True, no_reversed_phase=str(error))
    if "tissue" in skip:
        return companions
    try:
        return replace(companions, anatomy=find_anatomy(raw, derivatives, image))
    except UnusableInputError as error:
        return replace(companions, no_anatomy=str(error))
