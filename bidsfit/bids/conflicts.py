"""Conflicts with outputs of earlier runs made with other settings: refuse them, or move them away."""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from textwrap import shorten
from typing import Any

from filelock import FileLock

from bidsfit.bids.inputs import InputImage
from bidsfit.bids.metadata import read_sidecar
from bidsfit.bids.names import files_of, parse_name
from bidsfit.bids.outputs import file_output, image_folder, json_path, sources_of
from bidsfit.exceptions import ConflictError, UnusableInputError
from bidsfit.models.dti import ELEMENTS

#: Settings that all fits of an image in one folder share, for one report tells of them together.
SHARED = ("Mask", "NoiseKind", "NoiseLevel")

#: Of a value in a message, so many characters are shown.
LONGEST_VALUE = 200

#: Entities of a segmentation.
OF_SEGMENTATIONS = ("atlas-", "seg-", "scale-")

#: What every folder is called into which earlier results are moved; the date follows.
REPLACED = "replaced-"


@dataclass(frozen=True)
class Conflict:
    """An image whose outputs were made with other settings than this run's.

    Attributes
    ----------
    differences : mapping of str to (found, expected)
        Found and expected values by setting; empty if no sidecar says how it was made.
    whole : bool
        Whether they concern the image itself (source, preprocessing, mask or noise), and thus all its outputs.
    """

    path: Path
    differences: Mapping[str, tuple[Any, Any]]
    whole: bool

    @property
    def in_words(self) -> str:
        """The differences as text."""
        return "; ".join(
            f"{name}: found {_shown(found)}, expected {_shown(expected)}"
            for name, (found, expected) in sorted(self.differences.items(), key=lambda one: (one[0] not in SHARED, one))
        )


def refuse_earlier_names(folder: Path, participants: Iterable[str]) -> None:
    """Raise `ConflictError` if a folder has maps named by an early version of bidsfit.

    These had ``desc`` before ``param``, maps of the noise had no ``model``, and each element of a tensor had a map.
    ``participants`` are labels without ``sub-``.
    """
    for participant in participants:
        for path in files_of(folder, participant, "dwi")[0]:
            entities = parse_name(path.name).entities
            if not path.name.endswith("_dwimap.nii.gz"):
                continue
            if "model" not in entities or [*entities][-1] != "desc":
                now = "maps have a model and end with desc now (..._model-ivim_param-D_desc-lsq_dwimap.nii.gz)"
            elif entities.get("param", "") in ELEMENTS:
                now = "a tensor is one map of six volumes now (..._model-dti_param-tensor_desc-lsq_dwimap.nii.gz)"
            else:
                continue
            raise ConflictError(
                f"{path} has a name that an earlier version of bidsfit gave; {now}. Nothing was changed. Choose "
                f"another output folder, or move sub-*/ and group* of {folder} away, and run the same command again."
            )


def _shown(value: Any) -> str:
    words = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return shorten(words, LONGEST_VALUE, placeholder=" ...")


def writing(folder: Path, image: InputImage) -> FileLock:
    """Lock the results of a participant against other processes for a ``with`` block.

    Conflicts found, or not found, inside the block stay so until its end.
    """
    folder.mkdir(parents=True, exist_ok=True)
    return FileLock(folder / f".sub-{image.participant}.lock")


def conflicts_of_fit(
    folder: Path, image: InputImage, outputs: Collection[Path], settings: Mapping[str, Any]
) -> Iterator[Conflict]:
    """Conflicts of a fit: maps that it would replace but were made otherwise, and fits that it cannot coexist with.

    Parameters
    ----------
    outputs : collection of Path
        Maps of the fit, relative to the folder.
    settings : mapping
        Settings of the fit, as of `fit_settings`.
    """
    for output in outputs:
        yield from _conflict(folder / output, settings, sources_of(image))
    shared = {name: settings[name] for name in SHARED if name in settings}
    yield from conflicts_of_image(folder, image, shared, but=outputs)


def conflicts_of_image(
    folder: Path, image: InputImage, shared: Mapping[str, Any], *, but: Collection[Path] = ()
) -> Iterator[Conflict]:
    """Existing fits of an image with another source, mask or noise.

    Parameters
    ----------
    shared : mapping
        The settings among `SHARED` to compare.
    but : collection of Path
        Maps of fits to ignore, relative to the folder.
    """
    status = f"{image.name}_model-*_param-status_desc-*_{image.map_suffix}.nii.gz"
    for path in sorted((folder / image_folder(image)).glob(status)):
        if path.relative_to(folder) not in but:
            yield from _conflict(path, shared, sources_of(image), names=tuple(shared))


def conflicts_of_preprocessing(folder: Path, raw: InputImage, steps: Mapping[str, str]) -> Iterator[Conflict]:
    """Conflict of a preprocessed image; ``steps`` are methods by step, as of `Chain.settings`."""
    path = folder / file_output("preproc", raw)
    for found in _conflict(path, steps, [uri for uri in (raw.uri, raw.mask_uri) if uri], where=("Preprocessing",)):
        yield Conflict(path, found.differences, whole=True)


def conflicts_of_segmentation(folder: Path, labels: Path, sources: Sequence[str]) -> Iterator[Conflict]:
    """Conflict of labels on the grid of an image (relative to the folder) that were another segmentation's."""
    for found in _conflict(folder / labels, {}, sources, where=(), names=()):
        yield Conflict(found.path, found.differences, whole=False)


def _conflict(
    path: Path,
    settings: Mapping[str, Any],
    sources: Sequence[str],
    *,
    where: Sequence[str] = ("Model", "Parameters"),
    names: Sequence[str] | None = None,
) -> Iterator[Conflict]:
    """Conflict with an image if it exists and its sources or (named) settings differ."""
    if not path.exists():
        return
    try:
        earlier = content = read_sidecar(json_path(path))
        found_sources = [str(source) for source in content["Sources"]]
        for key in where:
            earlier = earlier[key]
        earlier = dict(earlier)
    except (UnusableInputError, ValueError, KeyError, TypeError):
        yield Conflict(path, {}, whole=names is not None)
        return
    compared = {*earlier, *settings} if names is None else names
    differences = {
        key: (earlier.get(key, "nothing"), settings.get(key, "nothing"))
        for key in compared
        if earlier.get(key) != settings.get(key)
    }
    found_sources, sources = (  # the mask is told of as such
        [source for source in given if source != told.get("Mask")]
        for given, told in ((found_sources, earlier), (sources, settings))
    )
    if found_sources != sources:
        differences["Sources"] = (", ".join(found_sources), ", ".join(sources))
    if differences:
        yield Conflict(path, differences, whole=bool({"Sources", *SHARED} & set(differences)))


def refuse(conflicts: Iterable[Conflict]) -> None:
    """Raise `ConflictError` for the first conflict, naming the image, the differences and what to do."""
    for conflict in conflicts:
        if not conflict.differences:
            words = "exists, but no readable sidecar says how it was made"
        elif conflict.whole:
            words = (
                "exists and was made from another image, or with another preprocessing, mask or noise "
                f"({conflict.in_words}), which all fits of an image in one folder share"
            )
        else:
            words = f"exists and was made with other settings ({conflict.in_words})"
        of = "its tables" if of_segmentation(conflict.path.name) else "that fit"
        what = "all that was made of this image" if conflict.whole else of
        raise ConflictError(
            f"{conflict.path} {words}. Nothing is overwritten. To fit anew, add --overwrite, which moves {what} into "
            f"{REPLACED}<date> in the output folder; to have both, choose another output folder."
        )


def of_segmentation(name: str) -> bool:
    """Whether a file name has an entity of a segmentation."""
    return any(word.startswith(OF_SEGMENTATIONS) for word in parse_name(name).words)


def files_of_image(folder: Path, image: InputImage) -> list[Path]:
    """All outputs of an image: maps, masks, preprocessed image, tables of regions, figures and records."""
    places = (folder / image_folder(image), folder / f"sub-{image.participant}" / "figures")
    own = parse_name(image.name).words

    def tells(words: Sequence[str]) -> bool:
        """Whether a name with these words is that of the image with ``desc``, ``model`` or a segmentation."""
        other = tuple(word for word in words if not word.startswith(OF_SEGMENTATIONS))
        more = other[len(own) :]
        return other[: len(own)] == own and (more[0].startswith(("desc-", "model-")) if more else other != words)

    return [path for place in places for path in place.glob("sub-*") if tells(parse_name(path.name).words)]


def dated_folder(folder: Path, participant: str, moment: datetime) -> Path:
    """A folder, named by date, for files to move, with nothing of the participant in it yet."""
    while (dated := folder / f"{REPLACED}{moment:%Y%m%dT%H%M%S}").joinpath(f"sub-{participant}").exists():
        moment += timedelta(seconds=1)
    return dated


def move(files: Iterable[Path], folder: Path, target: Path) -> None:
    """Move files of a folder to another, keeping relative paths.

    Files that reveal the conflict are moved last, sidecars before images, so that a run after an interruption finds the
    conflict again.
    """
    for path in sorted(files, key=lambda path: (_tells(path.name), path.name)):
        moved = target / path.relative_to(folder)
        moved.parent.mkdir(parents=True, exist_ok=True)
        os.rename(path, moved)


def _tells(name: str) -> int:
    """Sort key of the order in which files are moved."""
    return 2 if "_param-status_" in name else 1 if "_desc-preproc_dwi." in name else 0
