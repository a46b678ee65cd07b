"""Segmentations whose regions get tables: finding those of an image, and bringing them to its grid."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from nibabel.affines import apply_affine
from nibabel.nifti1 import Nifti1Image
from nibabel.spatialimages import SpatialImage
from numpy.typing import NDArray

from bidsfit.bids.anatomy import same_space
from bidsfit.bids.images import open_image, read_data, same_grid, write_nifti
from bidsfit.bids.inputs import Folder, InputImage
from bidsfit.bids.names import parse_name
from bidsfit.bids.outputs import json_path, lookup_path
from bidsfit.bids.regions import RegionFile, lookup, region_files
from bidsfit.bids.tables import write_rows
from bidsfit.bids.tissues import MAPPING
from bidsfit.exceptions import NoInputError, UnusableInputError
from bidsfit.files import write_json

#: Entities that tell segmentations apart, in the order of BIDS.
ENTITIES = ("atlas", "seg", "scale")

#: The suffix of segmentations, and what they are called whose names say nothing else.
PLAIN = "dseg"

#: Numbers of FreeSurfer's ``aseg``, on the left and on the right, and of what has no side.
SIDES = {
    "Cerebral-White-Matter": (2, 41),
    "Cerebral-Cortex": (3, 42),
    "Lateral-Ventricle": (4, 43),
    "Inf-Lat-Vent": (5, 44),
    "Cerebellum-White-Matter": (7, 46),
    "Cerebellum-Cortex": (8, 47),
    "Thalamus": (10, 49),
    "Caudate": (11, 50),
    "Putamen": (12, 51),
    "Pallidum": (13, 52),
    "Hippocampus": (17, 53),
    "Amygdala": (18, 54),
    "Accumbens-area": (26, 58),
    "VentralDC": (28, 60),
    "vessel": (30, 62),
    "choroid-plexus": (31, 63),
}
MIDDLE = {
    14: "3rd-Ventricle",
    15: "4th-Ventricle",
    16: "Brain-Stem",
    24: "CSF",
    72: "5th-Ventricle",
    77: "WM-hypointensities",
    80: "non-WM-hypointensities",
    85: "Optic-Chiasm",
    251: "CC_Posterior",
    252: "CC_Mid_Posterior",
    253: "CC_Central",
    254: "CC_Mid_Anterior",
    255: "CC_Anterior",
}
ASEG = MIDDLE | {
    number: f"{side}-{name}"
    for name, numbers in SIDES.items()
    for side, number in zip(("Left", "Right"), numbers, strict=True)
}


@dataclass(frozen=True)
class Segmentation:
    """A segmentation of a participant or of all, with which the regions of an image are told apart.

    Attributes
    ----------
    path : Path
        Labels, on any grid.
    dataset : Folder
        Where its table of labels is looked for.
    uri : str
        BIDS URI, or that of the file where no dataset of the run holds it.
    """

    path: Path
    dataset: Folder
    uri: str

    @property
    def words(self) -> str:
        """Entities of what is made of it: its ``atlas``, ``seg`` and ``scale``, or as ``seg`` its ``desc``."""
        named = parse_name(self.path.name)
        if named.suffix != PLAIN:  # not a name of BIDS
            return f"seg-{''.join(filter(str.isalnum, self.path.name.split('.')[0]))}"
        own = named.entities
        labels = {key: own[key] for key in ENTITIES if key in own}
        if "seg" not in labels and (not labels or "desc" in own):
            labels["seg"] = own.get("desc", PLAIN)
        return "_".join(f"{key}-{labels[key]}" for key in ENTITIES if key in labels)

    def names(self, labels: NDArray) -> dict[int, str]:
        """Names of the regions that it holds, by number.

        They are those of its table or sidecar (BIDS); without one of FreeSurfer's ``aseg``, or of BIDS' common labels
        where the file name says nothing; and else the numbers.
        """
        known = {"seg-aseg": ASEG, f"seg-{PLAIN}": {int(n): tissue.upper() for tissue, n in MAPPING.items()}}
        told = {number: name for name, number in lookup(self.path, self.dataset)}
        names = told or known.get(self.words, {})
        return {number: names.get(number, str(number)) for number in np.unique(labels).tolist() if number != 0}


def is_file(atlas: str) -> bool:
    """Whether a word of ``--atlas`` is the path of a file rather than a label."""
    return os.sep in atlas


def find_segmentations(
    atlases: Sequence[str], datasets: Sequence[Folder], image: InputImage, like: SpatialImage
) -> tuple[list[Segmentation], list[str]]:
    """Segmentations of an image, and why others cannot be used, in words.

    Parameters
    ----------
    atlases : sequence of str
        Files, or labels: the ``desc``, ``seg`` or ``atlas`` of a ``dseg`` of the participant (`PLAIN`: without any).
    datasets : sequence of Folder
        Searched in this order.
    like : SpatialImage
        Image with the grid.

    Raises
    ------
    NoInputError
        If a file does not exist.
    """
    found: dict[str, Segmentation] = {}
    problems: list[str] = []
    for atlas in atlases:
        candidates = list(_given(Path(atlas), datasets, image) if is_file(atlas) else _named(atlas, datasets, image))
        reasons = [_obstacle(one, image, like) for one in candidates]
        usable = [one for one, reason in zip(candidates, reasons, strict=True) if not reason]
        if not candidates and not is_file(atlas):  # a file of another participant is no problem
            folders = " or ".join(str(one.root) for one in datasets)
            problems.append(
                f"{image.path.name} has no segmentation {atlas!r} of --atlas: in {folders} no file of its participant "
                f"and session is called *_desc-{atlas}_dseg.nii.gz (or seg-, or atlas-)."
            )
        elif candidates and not usable:
            problems.append(reasons[0])
        for one in usable[:1]:
            if found.setdefault(one.words, one) != one:
                problems.append(
                    f"{one.path} and {found[one.words].path} would give tables of the same name ({one.words}): the "
                    "first is left out. Give it another seg- in its name."
                )
    return list(found.values()), problems


def _given(path: Path, datasets: Sequence[Folder], image: InputImage) -> Iterator[Segmentation]:
    """The segmentation in a file, unless that is another participant's."""
    if not path.is_file():
        raise NoInputError(f"--atlas {path}: there is no such file.")
    entities = parse_name(path.name).entities
    if entities.get("sub", image.participant) != image.participant:
        return
    if "ses" in entities and entities["ses"] != image.entities.get("session"):
        return
    home = next((one for one in datasets if one.root in path.parents), None)
    yield Segmentation(path, home or Folder("", path.parent), home.uri(path) if home else path.as_uri())


def _named(label: str, datasets: Sequence[Folder], image: InputImage) -> Iterator[Segmentation]:
    """Segmentations of an image with a label, the most specific first."""
    own = set(parse_name(image.name).words)
    found = []
    for file in region_files(datasets, image.participant):
        words = file.words
        if file.path.parent.name == "anat":  # of which acquisition it is says nothing of diffusion images
            words = frozenset(word for word in words if word.startswith(("sub-", "ses-")))
        if file.kind == PLAIN and words <= own and label.lower() in _labels(file):
            found.append((-len(words), Segmentation(file.path, file.dataset, file.uri)))
    yield from (one for _, one in sorted(found, key=lambda one: one[0]))


def _labels(file: RegionFile) -> set[str]:
    """By what a segmentation can be called in ``--atlas``, in small letters."""
    entities = parse_name(file.path.name).entities
    return {entities[key].lower() for key in (*ENTITIES, "desc") if key in entities} or {PLAIN}


def _obstacle(segmentation: Segmentation, image: InputImage, like: SpatialImage) -> str:
    """Why a segmentation cannot be brought to the grid of an image, in words; else empty."""
    path = segmentation.path
    try:
        labels = open_image(path)
    except UnusableInputError as error:
        return str(error)
    own, other = image.entities.get("space"), _space(path)
    if own and other:
        elsewhere = not same_space(own, other)
    else:
        elsewhere = not (_same_by_place(segmentation, image) or _on_grid(labels, like))
    if elsewhere:
        return (
            f"{path} cannot tell the regions of {image.path.name}: it lies in another space "
            f"({other or 'its name tells none'}; the image in {own or 'that of its scan'}). Give a segmentation in the "
            "space of the image, or an image in that of the segmentation, such as QSIPrep's (-d qsiprep=PATH)."
        )
    corners = np.array(np.meshgrid(*[(0, n - 1) for n in labels.shape[:3]])).reshape(3, -1).T
    place = apply_affine(np.linalg.inv(like.affine) @ labels.affine, corners)  # voxels of the image
    if (place.max(axis=0) < 0).any() or (place.min(axis=0) > np.array(like.shape[:3]) - 1).any():
        return (
            f"{path} cannot tell the regions of {image.path.name}: by their affines they lie apart. Is it a "
            "segmentation of another image?"
        )
    return ""


def _space(path: Path) -> str | None:
    """Space of a segmentation by its name."""
    entities = parse_name(path.name).entities
    return entities.get("space") or entities.get("tpl")


def _same_by_place(segmentation: Segmentation, image: InputImage) -> bool:
    """Whether a segmentation lies in the space of an image, where one of the two names none.

    In derivatives of QSIPrep an anatomical image that names no space lies in that of the diffusion images.
    """
    own, other, path = image.entities.get("space"), _space(segmentation.path), segmentation.path
    if parse_name(path.name).suffix != PLAIN:
        return True  # not a name of BIDS, which says nothing
    if own is None:
        return other is None and path.parent.name != "anat"
    return same_space(own, other) and image.uri.startswith(f"bids:{segmentation.dataset.name}:")


def _on_grid(labels: SpatialImage, like: SpatialImage) -> bool:
    shape = like.shape[:3]
    return labels.shape[:3] == shape and same_grid(labels, like, shape)


def resample(segmentation: Segmentation, like: SpatialImage) -> tuple[NDArray[np.int32], dict[int, str]]:
    """Labels on the grid of an image, by nearest neighbour, and their names.

    Raises
    ------
    UnusableInputError
        If the file cannot be read, or holds no labels.
    """
    from nibabel.processing import resample_from_to  # which loads what a plan does not need

    path = segmentation.path
    stored = open_image(path)
    values = read_data(stored, path)
    while values.ndim > 3 and values.shape[-1] == 1:
        values = values[..., 0]
    if values.ndim != 3 or not (np.isfinite(values).all() and (values == np.round(values)).all()):
        raise UnusableInputError(
            f"{path} is no segmentation: expected one volume of whole numbers, a label a voxel. Probabilities and "
            "several volumes have no such labels."
        )
    labels = values.astype(np.int32)
    names = segmentation.names(labels)
    if not _on_grid(stored, like):
        image = resample_from_to(Nifti1Image(labels, stored.affine), (like.shape[:3], like.affine), order=0)
        labels = np.asarray(image.dataobj, dtype=np.int32)
    return labels, names


def write_segmentation(
    target: Path, labels: NDArray[np.int32], names: Mapping[int, str], like: SpatialImage, about: Mapping[str, Any]
) -> None:
    """Write labels on the grid of an image, a table of their names, and a sidecar with ``about`` them."""
    write_rows(lookup_path(target), ["index", "name"], sorted(names.items()))
    write_json(json_path(target), {"Description": "Regions on the grid of the image, by nearest neighbour.", **about})
    write_nifti(target, labels, like)
