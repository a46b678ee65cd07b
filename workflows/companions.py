"""Which other images of a dataset help to preprocess one."""

from __future__ import annotations

from collections.abc import Sequence

from bidsfit.bids.anatomy import find_anatomy
from bidsfit.bids.fieldmaps import NoReversedPhase, find_reversed
from bidsfit.bids.inputs import Dataset, DwiImage, Folder, Inputs, Problem
from bidsfit.exceptions import UnusableInputError
from bidsfit.workflows.chain import Companions


def find_all_companions(raw: Dataset, derivatives: Sequence[Folder], inputs: Inputs) -> dict[str, Companions]:
    """Companions of all raw images, by image name; an image with a damaged one becomes a problem of the inputs."""
    found = {}
    for image in [image for image in inputs.images if not image.preprocessed]:
        try:
            found[image.name] = find_companions(raw, derivatives, image)
        except UnusableInputError as error:
            inputs.images.remove(image)
            inputs.problems.append(Problem(image.participant, str(error)))
    return found


def find_companions(raw: Dataset, derivatives: Sequence[Folder], image: DwiImage) -> Companions:
    """Images of reversed phase encoding, and of the anatomy, of one diffusion image.

    Parameters
    ----------
    raw : Dataset
    derivatives : sequence of Folder
    image : DwiImage

    Raises
    ------
    UnusableInputError
        For a file that is damaged.
    """
    found = find_reversed(raw, image)
    anatomy = find_anatomy(raw, derivatives, image)
    if isinstance(found, NoReversedPhase):
        return Companions(unusable=found.present, no_reversed_phase=found.reason, anatomy=anatomy)
    return Companions(reversed_phase=found, anatomy=anatomy)
