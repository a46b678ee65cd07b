"""Which other images of a dataset help to preprocess one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from bidsfit.bids.anatomy import find_anatomy
from bidsfit.bids.fieldmaps import NoReversedPhase, find_reversed
from bidsfit.bids.inputs import Dataset, DwiImage, Folder, Inputs
from bidsfit.exceptions import UnusableInputError
from bidsfit.workflows.chain import Companions


def find_all_companions(raw: Dataset, derivatives: Sequence[Folder], inputs: Inputs) -> dict[str, Companions]:
    """Companions of all raw images, by image name."""
    return {image.name: find_companions(raw, derivatives, image) for image in inputs.images if not image.preprocessed}


def find_companions(raw: Dataset, derivatives: Sequence[Folder], image: DwiImage) -> Companions:
    """Images of reversed phase encoding, and of the anatomy, of one diffusion image.

    One that is damaged, or whose metadata are, costs the step that it would help, and says why.

    Parameters
    ----------
    raw : Dataset
    derivatives : sequence of Folder
    image : DwiImage
    """
    anatomy, no_anatomy = None, Companions.no_anatomy
    try:
        anatomy = find_anatomy(raw, derivatives, image)
    except UnusableInputError as error:
        no_anatomy = str(error)
    try:
        found = find_reversed(raw, image)
    except UnusableInputError as error:
        found = NoReversedPhase(str(error), present=True)
    companions = Companions(anatomy=anatomy, no_anatomy=no_anatomy)
    if isinstance(found, NoReversedPhase):
        return replace(companions, unusable=found.present, no_reversed_phase=found.reason)
    return replace(companions, reversed_phase=found)
