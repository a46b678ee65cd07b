"""White and grey matter masks from segmentations of derivative datasets on the grid of a map."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from nibabel.spatialimages import SpatialImage
from numpy.typing import NDArray

from bidsfit.bids.images import read_on_grid
from bidsfit.bids.inputs import Folder, inherited
from bidsfit.bids.metadata import read_sidecar
from bidsfit.bids.names import parse_name
from bidsfit.exceptions import UnusableInputError
from bidsfit.files import read_tsv

#: Names of the tissues in segmentations, in small letters: abbreviations of BIDS, and words.
NAMES = {
    "wm": ("wm", "white matter", "white_matter"),
    "gm": ("gm", "grey matter", "gray matter", "grey_matter", "gray_matter"),
    "csf": ("csf", "cerebrospinal fluid", "cerebrospinal_fluid"),
}

#: Indices of the tissues in the column ``mapping`` of a table of labels (BIDS, common image-derived labels).
MAPPING = {"gm": "1", "wm": "2", "csf": "3"}

#: A voxel belongs to a tissue where its probability exceeds this.
LIKELY = 0.5

#: Entities that a segmentation may have and the image need not.
APART = ("desc-", "label-", "space-", "res-", "seg-", "atlas-")


def tissue_mask(
    datasets: Sequence[Folder], image: str, like: SpatialImage, path: Path, tissue: str
) -> tuple[NDArray[np.bool_], str] | None:
    """Mask of a tissue and BIDS URI of its segmentation; None if there is none on the grid.

    Parameters
    ----------
    datasets : sequence of Folder
        Searched in this order, for ``dseg``, then ``label-WM_mask``, then ``label-WM_probseg``.
    image : str
        Entities of the image (sub-01_ses-1), which must include those of the segmentation.
    like : SpatialImage
        Image with the grid; segmentations on other grids are skipped.
    tissue : {"wm", "gm"}
    """
    for dataset in datasets:
        for candidate in _candidates(dataset, image):
            indices = tissue_indices(candidate, dataset, tissue)
            if not indices and f"_label-{tissue.upper()}_" not in candidate.name:
                continue
            try:
                data = read_on_grid(candidate, like, path, "segmentation")
            except UnusableInputError:
                continue  # of another image, such as an anatomical one
            mask = np.isin(data, indices) if indices else data > LIKELY
            return mask, dataset.uri(candidate)
    return None


def _candidates(dataset: Folder, image: str) -> Iterator[Path]:
    """Segmentations of an image, the most specific first."""
    name = parse_name(image)
    participant = f"sub-{name.entities['sub']}"
    for suffix in ("dseg", "mask", "probseg"):
        found = []
        for path in dataset.root.glob(f"{participant}/**/{participant}*_{suffix}.nii*"):
            apart = {word for word in parse_name(path.name).words if not word.startswith(APART)}
            if apart <= set(name.words):
                found.append((-len(apart), path.name, path))
        yield from (path for _, _, path in sorted(found))


def tissue_indices(path: Path, dataset: Folder, tissue: str) -> list[int]:
    """Labels of a tissue ("wm", "gm" or "csf") in a ``dseg``, from its table or sidecar; empty for other files."""
    if "_dseg.nii" not in path.name:
        return []
    for table in inherited(path, dataset, ".tsv"):
        found = [(row.get("index") or "").strip() for row in read_tsv(table) if _is_tissue(row, tissue)]
        return [int(index) for index in found if index.isdecimal()]
    for sidecar in inherited(path, dataset, ".json"):
        content = read_sidecar(sidecar)
        for key in ("Levels", "LabelMap"):
            if isinstance(content.get(key), dict):
                names = {str(v).lower(): k for k, v in content[key].items()}
                names |= {str(k).lower(): v for k, v in content[key].items()}
                return [int(names[name]) for name in NAMES[tissue] if str(names.get(name, "")).isdecimal()]
    return []


def _is_tissue(row: dict[str, str], tissue: str) -> bool:
    """Whether a row of a table of labels names a tissue."""
    words = {(row.get(column) or "").strip().lower() for column in ("abbreviation", "name")}
    return bool(words & set(NAMES[tissue])) or (row.get("mapping") or "").strip() == MAPPING[tissue]
