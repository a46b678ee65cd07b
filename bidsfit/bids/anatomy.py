"""Anatomical images of a participant: T1-weighted image and segmentation."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from bidsfit.bids.inputs import Dataset, Folder, InputImage
from bidsfit.bids.names import files_of, is_magnitude, matches, parse_name
from bidsfit.bids.tissues import MAPPING, tissue_indices

#: What the numbers of a segmentation mean: those of FreeSurfer, those of a table, probabilities of the tissues in
#: files of their own, or nothing, for there is no segmentation.
Kind = Literal["freesurfer", "dseg", "probseg", "none"]

#: Spaces of a participant; images of others (templates) are passed over. None: files that name no space.
OWN_SPACES = (None, "T1w", "ACPC", "individual", "scanner", "orig")

#: Spaces in which fMRIPrep and QSIPrep write what lies on their T1-weighted image, which itself may name none.
T1W_SPACES = (None, "T1w")
ACPC_SPACES = (None, "ACPC")

#: Descriptions of segmentations in FreeSurfer's numbers, the preferred first.
FREESURFER_DESCRIPTIONS = ("aseg", "aparcaseg")

#: Files of a subject of FreeSurfer: segmentations and heads, the preferred first.
FREESURFER_SEGMENTATIONS = ("aseg.mgz", "aparc+aseg.mgz", "ribbon.mgz")
FREESURFER_HEADS = ("T1.mgz", "brain.mgz", "nu.mgz", "orig.mgz")

#: Tissues that have a file of probabilities each, in the order of the numbers of BIDS.
PROBABILITIES = ("GM", "WM", "CSF")


@dataclass(frozen=True)
class Anatomy:
    """Anatomical images that belong to a diffusion image.

    Attributes
    ----------
    t1w : Path or None
        T1-weighted image. None only if the segmentation is already aligned with the diffusion image.
    segmentation : tuple of Path
        Files in the space of the T1-weighted image: one, or three for probabilities (`PROBABILITIES`), or none.
    kind : {"freesurfer", "dseg", "probseg", "none"}
    labels : dict of tissue to list of int
        Numbers of "GM", "WM" and "CSF" in a "dseg".
    uris : tuple of str
        BIDS URIs of all files.
    aligned : bool
        Whether it is aligned with the diffusion image already, as in QSIPrep.
    in_words : str
        Which files were chosen, and by which rule.
    """

    t1w: Path | None
    segmentation: tuple[Path, ...]
    kind: Kind
    uris: tuple[str, ...]
    in_words: str
    labels: dict[str, list[int]] = field(default_factory=dict)
    aligned: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for a workflow node."""
        return {
            **vars(self),
            "t1w": None if self.t1w is None else str(self.t1w),
            "segmentation": [str(path) for path in self.segmentation],
            "uris": list(self.uris),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Anatomy:
        """Inverse of `to_dict`."""
        return cls(
            **{
                **values,
                "t1w": None if values["t1w"] is None else Path(values["t1w"]),
                "segmentation": tuple(map(Path, values["segmentation"])),
                "uris": tuple(values["uris"]),
            }
        )


@dataclass(frozen=True)
class _Segmentation:
    """Files of a segmentation, its kind and its rank of preference."""

    paths: tuple[Path, ...]
    kind: Kind
    rank: int
    labels: dict[str, list[int]] = field(default_factory=dict)


def is_subjects_folder(root: Path) -> bool:
    """Whether a folder is a FreeSurfer subjects directory and not a BIDS dataset."""
    return not (root / "dataset_description.json").exists() and any(
        next(root.glob(f"*/mri/{name}"), None) is not None for name in FREESURFER_SEGMENTATIONS
    )


def find_anatomy(raw: Dataset, derivatives: Sequence[Folder], image: InputImage) -> Anatomy | None:
    """Find the anatomical images that belong to a diffusion image; None if there are none.

    An existing segmentation of the derivatives, in the order of the datasets, is preferred to a new one. Within a
    dataset FreeSurfer's comes first, as it separates deep grey from white matter, then probabilities, then labels.

    Files are of the session of the image, else without a session, else of the only session, else of the session nearest
    by name (of two, the earlier).

    Parameters
    ----------
    raw : Dataset
        Input dataset, raw or derivative.
    derivatives : sequence of Folder
        Datasets, and FreeSurfer subjects directories (`is_subjects_folder`).
    """
    datasets = [*derivatives, *([raw] if raw.derivative else [])]
    for dataset in datasets:
        found = _of_dataset(dataset, image) if isinstance(dataset, Dataset) else _of_subject(dataset, image)
        if found is not None:
            return found
    for dataset in [*datasets, raw]:
        if isinstance(dataset, Dataset) and (head := _unsegmented(dataset, image)) is not None:
            return head
    return None


def _of_subject(folder: Folder, image: InputImage) -> Anatomy | None:
    """FreeSurfer segmentation of the session of the image, or of the participant."""
    session = image.entities.get("session")
    labels = [f"{image.participant}_ses-{session}"] if session else []
    labels.append(image.participant)
    for name in (name for label in labels for name in (f"sub-{label}", label)):
        mri = folder.root / name / "mri"
        segmentation = next((mri / file for file in FREESURFER_SEGMENTATIONS if (mri / file).exists()), None)
        head = next((mri / file for file in FREESURFER_HEADS if (mri / file).exists()), None)
        if segmentation is not None and head is not None:
            return Anatomy(
                head,
                (segmentation,),
                "freesurfer",
                (folder.uri(segmentation), folder.uri(head)),
                f"the segmentation {segmentation.name} of FreeSurfer ({folder.name}: {name}) on {head.name}",
            )
    return None


def _of_dataset(dataset: Dataset, image: InputImage) -> Anatomy | None:
    """Best segmentation of a derivative dataset with the T1-weighted image that it belongs to."""
    files = _anatomical(dataset, image, ("dseg", "probseg"))
    heads = _anatomical(dataset, image, ("T1w",))
    chosen, session = _of_session([path for path in files if _is_own(path)], image)
    for candidate in _candidates(chosen, dataset):
        first = candidate.paths[0]
        space = _entities(first).get("space")
        aligned = _lies_on(dataset, space, image)
        head = _head_of(first, heads)
        if head is None and not aligned:
            continue
        paths = [*candidate.paths, *([head] if head else [])]
        on = f" on {head.name}" if head else ""
        return Anatomy(
            head,
            candidate.paths,
            candidate.kind,
            tuple(dataset.uri(path) for path in paths),
            f"the segmentation {', '.join(path.name for path in candidate.paths)} of {dataset.name}{on}{session}",
            candidate.labels,
            aligned,
        )
    return None


def _unsegmented(dataset: Dataset, image: InputImage) -> Anatomy | None:
    """A T1-weighted image without segmentation, preprocessed or raw."""
    heads = [path for path in _anatomical(dataset, image, ("T1w",)) if _is_own(path)]
    if dataset.derivative:
        heads = [path for path in heads if _entities(path).get("desc") == "preproc"]
    chosen, session = _of_session(heads, image)
    if not chosen:
        return None
    head = min(chosen, key=_plainness)
    several = f", the first of {len(chosen)} by name" if len(chosen) > 1 else ""
    return Anatomy(
        head,
        (),
        "none",
        (dataset.uri(head),),
        f"the T1-weighted image {head.name} of {dataset.name}{session}{several}",
        aligned=_lies_on(dataset, _entities(head).get("space"), image),
    )


def _anatomical(dataset: Dataset, image: InputImage, suffixes: Iterable[str]) -> list[Path]:
    """Anatomical volumes of the participant, sorted by name."""
    wanted = {"sub": image.participant, "suffix": list(suffixes), "extension": [".nii", ".nii.gz"], "hemi": None}
    return [
        path
        for path in files_of(dataset.root, image.participant, "anat")[0]
        if matches(path, wanted) and is_magnitude(path)
    ]


def _of_session(paths: Sequence[Path], image: InputImage) -> tuple[list[Path], str]:
    """Files of one session, and a text that names the session if it is not that of the image."""
    groups: dict[str | None, list[Path]] = {}
    for path in paths:
        groups.setdefault(_entities(path).get("ses"), []).append(path)
    own = image.entities.get("session")
    for session in (own, None):
        if session in groups:
            return groups[session], ""
    sessions = sorted(session for session in groups if session is not None)
    if not sessions:
        return [], ""
    if len(sessions) == 1:
        return groups[sessions[0]], f", of the only session that has one (ses-{sessions[0]})"
    if own is None:
        return groups[sessions[0]], f", of the first of {len(sessions)} sessions (ses-{sessions[0]})"
    order = sorted([*sessions, own])
    here = order.index(own)
    nearest = min(sessions, key=lambda session: (abs(order.index(session) - here), order.index(session)))
    return groups[nearest], f", of the nearest of {len(sessions)} sessions in the order of names (ses-{nearest})"


def _candidates(paths: Sequence[Path], dataset: Dataset) -> list[_Segmentation]:
    """Usable segmentations, the preferred first."""
    found = []
    for path in paths:
        entities = _entities(path)
        description = entities.get("desc")
        if parse_name(path.name).suffix == "probseg":
            if entities.get("label") != PROBABILITIES[0]:
                continue
            each = [
                path.with_name(path.name.replace(f"_label-{PROBABILITIES[0]}_", f"_label-{tissue}_"))
                for tissue in PROBABILITIES
            ]
            if all(other in paths for other in each):
                found.append(_Segmentation(tuple(each), "probseg", len(FREESURFER_DESCRIPTIONS)))
        elif description in FREESURFER_DESCRIPTIONS:
            found.append(_Segmentation((path,), "freesurfer", FREESURFER_DESCRIPTIONS.index(description)))
        elif labels := _labels(path, dataset):
            rank = len(FREESURFER_DESCRIPTIONS) + (1 if description is None else 2)
            found.append(_Segmentation((path,), "dseg", rank, labels))
    return sorted(found, key=lambda candidate: (candidate.rank, *_plainness(candidate.paths[0])))


def _labels(path: Path, dataset: Dataset) -> dict[str, list[int]]:
    """Tissue numbers of a ``dseg`` from its table or sidecar, else those of BIDS; empty if it uses others."""
    named = {tissue: tissue_indices(path, dataset, tissue.lower()) for tissue in PROBABILITIES}
    if named["WM"] and named["GM"]:
        return named
    if any(named.values()) or {"desc", "atlas", "seg"} & set(_entities(path)):
        return {}
    return {tissue: [int(MAPPING[tissue.lower()])] for tissue in PROBABILITIES}


def _head_of(segmentation: Path, heads: Sequence[Path]) -> Path | None:
    """T1-weighted image of the session and space of a segmentation, preferably preprocessed."""
    own = _entities(segmentation)
    fitting = []
    for path in heads:
        entities = _entities(path)
        if entities.get("ses") == own.get("ses") and same_space(entities.get("space"), own.get("space")):
            apart = {(key, label) for key, label in {**own, **entities}.items() if key in ("acq", "rec", "run")}
            differing = sum(own.get(key) != entities.get(key) for key, _ in apart)
            rank = (entities.get("space") != own.get("space"), entities.get("desc") != "preproc", differing)
            fitting.append((*rank, path.name, path))
    return min(fitting)[-1] if fitting else None


def _lies_on(dataset: Dataset, space: str | None, image: InputImage) -> bool:
    """Whether the anatomy of a dataset is aligned with a diffusion image that the dataset preprocessed."""
    there = image.entities.get("space")
    return (
        image.preprocessed
        and image.uri.startswith(f"bids:{dataset.name}:")
        and there is not None
        and same_space(space, there)
    )


def same_space(first: str | None, second: str | None) -> bool:
    """Whether two labels of ``space`` mean the same one; None: no label, as of the images in T1w or ACPC space."""
    return first == second or any({first, second} <= set(spaces) for spaces in (T1W_SPACES, ACPC_SPACES))


def _is_own(path: Path) -> bool:
    """Whether a file is in the participant's own space."""
    return _entities(path).get("space") in OWN_SPACES


def _plainness(path: Path) -> tuple[int, str]:
    """Sort key of equivalent files: fewest entities, then name."""
    return len(_entities(path)), path.name


def _entities(path: Path) -> Mapping[str, str]:
    return parse_name(path.name).entities
