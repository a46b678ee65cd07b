"""Finding the images of a BIDS dataset that models are fitted to, with their metadata and masks."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, get_args

from bidsfit.bids.images import on_grid
from bidsfit.bids.metadata import read_metadata, read_sidecar
from bidsfit.bids.names import (
    ANY,
    KINDS,
    entity_keys,
    fault_of,
    files_of,
    folder_fault,
    is_magnitude,
    is_real_part,
    matches,
    parse_name,
    participant_labels,
    title_of,
)
from bidsfit.bids.series import SERIES, group_series, imaginary_of, polarity_of, series_metadata, series_name
from bidsfit.exceptions import (
    InvalidDatasetError,
    NoInputError,
    UnknownNameError,
    UnknownParticipantError,
    UnusableInputError,
    UsageError,
)
from bidsfit.files import read_text
from bidsfit.preprocessing.phase import PhaseUnit

#: Entities that tell the images of one participant apart, in the order of their names in files.
IMAGE_ENTITIES = {
    "session": "ses",
    "acquisition": "acq",
    "reconstruction": "rec",
    "direction": "dir",
    "run": "run",
    "modality": "mod",
    "echo": "echo",
    "part": "part",
    "space": "space",
    "recording": "recording",
    "chunk": "chunk",
    "resolution": "res",
}

#: Fields of `InputImage` that are paths, and tuples of them.
LISTS = ("series", "imaginary", "polarity")
PATHS = ("path", "bval", "bvec", "mask", "noise_map", "covariate")

#: Kinds of file that a filter may choose among.
FILE_KINDS = ("dwi", "anat", "mask", "noise")

#: Names in a message, at most.
SHOWN = 3


@dataclass(frozen=True)
class Folder:
    """A folder with files of participants, and its name in BIDS URIs.

    It is a BIDS dataset, a FreeSurfer subjects directory, or the output folder (with an empty name).
    """

    name: str
    root: Path

    def uri(self, path: Path) -> str:
        """BIDS URI of one of its files."""
        return f"bids:{self.name}:{path.relative_to(self.root).as_posix()}"

    @cached_property
    def top_files(self) -> list[str]:
        """Names of the files beside the folders of the participants; listed once, as there may be many folders."""
        with os.scandir(self.root) as entries:
            return [entry.name for entry in entries if not entry.is_dir()]


@dataclass(frozen=True)
class Dataset(Folder):
    """A BIDS dataset, raw or derivative."""

    derivative: bool = False


@dataclass(frozen=True)
class InputImage:
    """A diffusion image, or a series of images, with its files.

    A diffusion image has ``bval``. A series (see `bidsfit.bids.series`) has its files in ``series``, the first of them
    as ``path``, and its suffix as the entity ``modality``. ``mask`` is None if no derivative dataset has one that fits;
    ``no_mask`` then names those that exist. ``noise_map`` is searched only on request. ``odd_metadata`` describes
    metadata that could not be used.
    ``covariate`` is the image of fmap/ that helps to fit a series, if there is one. ``polarity`` are the images that
    tell the signs of its magnitudes (see `bidsfit.bids.series.polarity_of`), phases in ``phase_unit``. ``imaginary``
    are the imaginary parts of a complex series, whose real parts are ``series``.
    """

    path: Path
    bval: Path | None
    bvec: Path | None
    sidecar: dict[str, Any]
    entities: dict[str, str]
    uri: str
    preprocessed: bool
    mask: Path | None = None
    mask_uri: str | None = None
    noise_map: Path | None = None
    noise_uri: str | None = None
    no_mask: str = ""
    odd_metadata: str = ""
    series: tuple[Path, ...] = ()
    imaginary: tuple[Path, ...] = ()
    polarity: tuple[Path, ...] = ()
    phase_unit: str = ""
    covariate: Path | None = None
    covariate_uri: str | None = None

    @property
    def participant(self) -> str:
        return self.entities["subject"]

    @property
    def suffix(self) -> str:
        """BIDS suffix of its files."""
        return self.entities.get("modality", "dwi")

    @property
    def datatype(self) -> str:
        """Folder of its files, and of its maps."""
        return "anat" if self.series else "dwi"

    @property
    def map_suffix(self) -> str:
        """Suffix of its maps, except those that BIDS has a suffix of their own for."""
        return f"{self.datatype}map"

    @property
    def uris(self) -> list[str]:
        """BIDS URIs of its files."""
        folder = self.uri.rpartition("/")[0]
        return [f"{folder}/{path.name}" for path in (*self.series, *self.imaginary, *self.polarity)] or [self.uri]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for a workflow node."""
        plain = {k: str(v) if isinstance(v, Path) else v for k, v in vars(self).items()}
        return plain | {name: [str(path) for path in getattr(self, name)] for name in LISTS}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> InputImage:
        """Inverse of `to_dict`."""
        paths: dict[str, Any] = {k: None if values[k] is None else Path(values[k]) for k in PATHS}
        lists = {name: tuple(map(Path, values[name])) for name in LISTS}
        return cls(**{**values, **paths, **lists})

    @property
    def name(self) -> str:
        """File name without suffix and extension, ``sub-01_ses-1_acq-ap``; that of a series has its modality."""
        pairs = [f"sub-{self.participant}"]
        pairs += [f"{short}-{self.entities[long]}" for long, short in IMAGE_ENTITIES.items() if long in self.entities]
        return "_".join(pairs)

    @property
    def title(self) -> str:
        """Its name with its suffix, for reports and messages: ``sub-01_acq-ap_dwi``."""
        return title_of(self.name)


@dataclass(frozen=True)
class InputProblem:
    """Why an image, or a whole participant, cannot be used."""

    participant: str
    message: str
    unmatched: bool = False


@dataclass
class Inputs:
    """Images to fit, and problems by participant."""

    images: list[InputImage] = field(default_factory=list)
    problems: list[InputProblem] = field(default_factory=list)


def open_dataset(root: Path, name: str, *, derivative: bool | None = None) -> Dataset:
    """Open a BIDS dataset; its files are listed on demand.

    ``name`` is used in BIDS URIs. Whether the dataset is ``derivative`` is by default read from its
    ``dataset_description.json``.

    Raises
    ------
    UnusableInputError
        If ``root`` is not a BIDS dataset.
    """
    root = root.absolute()
    described = describes_derivative(root)
    return Dataset(name, root, described if derivative is None else derivative)


def describes_derivative(root: Path) -> bool:
    """Whether the ``dataset_description.json`` of a folder describes a derivative dataset.

    Raises
    ------
    UnusableInputError
        If ``root`` is not a BIDS dataset.
    """
    path = root / "dataset_description.json"
    if not root.is_dir():
        raise NoInputError(f"{root} is not a folder.")
    if not path.is_file():
        raise InvalidDatasetError(
            f"{root} is not a BIDS dataset: it has no dataset_description.json. Give the folder that holds the sub-* "
            "folders and that file."
        )
    description = read_sidecar(path)
    return description.get("DatasetType") == "derivative" or "PipelineDescription" in description  # before BIDS 1.4


def choose_participants(root: Path, wanted: Sequence[str]) -> list[str]:
    """Labels of the wanted participants (with or without ``sub-``), or of all that have a folder.

    Raises
    ------
    UnknownNameError
        If one has no folder.
    UnusableInputError
        If there are no participants, or the folder of a wanted one cannot be used.
    """
    labels = participant_labels(root)
    if not labels:
        raise NoInputError(f"{root} holds no participant: no folder is called sub-<label>.")
    if not wanted:
        return labels
    chosen = [label.removeprefix("sub-") for label in wanted]
    for label in chosen:
        if label not in labels:
            raise UnknownParticipantError("participant", label, labels)
        if fault := folder_fault(root / f"sub-{label}"):
            raise UnusableInputError(fault)
    return sorted(set(chosen))


def read_filters(path: Path | None) -> dict[str, dict[str, Any]]:
    """Read a ``--bids-filter-file``: queries for ``dwi``, ``mask`` and ``noise``; null means absent, "*" any value.

    Raises
    ------
    UsageError
        If it is not JSON of that form.
    """
    if path is None:
        return {}
    try:
        content = json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise UsageError(f"The filter file {path} cannot be read as JSON: {error}.") from error
    queries = list(content.values()) if isinstance(content, dict) else []
    if not queries or not all(isinstance(query, dict) for query in queries):
        raise UsageError(f'The filter file {path} must look like {{"dwi": {{"acquisition": "ap"}}}}.')
    for key in content:
        if key not in FILE_KINDS:
            raise UnknownNameError(f"kind of file in {path}:", key, FILE_KINDS)
    names = entity_keys()
    known = {*names, *names.values(), *KINDS} - {"subject", "sub"}  # participants have an option of their own
    for query in queries:
        for entity in query:
            if entity not in known:
                raise UnknownNameError(f"entity in {path}:", entity, known)
            if isinstance(query[entity], dict):
                raise UsageError(f"The filter file {path} gives {entity!r} an object; give a value, or a list of them.")
    return content


def _with_keys(query: Mapping[str, Any]) -> dict[str, Any]:
    """A query with entity names replaced by their keys."""
    return {IMAGE_ENTITIES.get(entity) or entity_keys().get(entity, entity): v for entity, v in query.items()}


def find_images(
    raw: Dataset,
    derivatives: Sequence[Dataset],
    participants: Sequence[str],
    *,
    sessions: Sequence[str] = (),
    runs: Sequence[str] = (),
    filters: Mapping[str, Mapping[str, Any]] | None = None,
    noise_maps: bool = False,
    suffixes: Collection[str] = ("dwi",),
) -> Inputs:
    """Find every image of every participant, session, run, acquisition and direction.

    Preprocessed images (``desc-preproc``) of a derivative dataset replace the raw ones of the same suffix of a
    participant.

    Parameters
    ----------
    raw : Dataset
        Input dataset, raw or derivative.
    derivatives : sequence of Dataset
        Searched for preprocessed images and masks, in this order.
    participants, sessions, runs : sequence of str
        Labels; empty means all.
    filters : mapping
        As `read_filters` returns.
    noise_maps : bool
        Require a noise map (``param-noise``) among the derivatives; images without become problems.
    suffixes : collection of str
        Kinds of images: ``dwi``, and keys of `bidsfit.bids.series.SERIES`.
    """
    filters = filters or {}
    own: dict[str, Any] = {}
    if sessions := [label.removeprefix("ses-") for label in sessions]:
        own["session"] = sessions
    if runs:
        own["run"] = list(runs)
    inputs = Inputs()
    datasets = [*derivatives, raw]
    for label in participants:
        if fault := folder_fault(raw.root / f"sub-{label}"):
            inputs.problems.append(InputProblem(label, fault))
            continue
        searched: dict[str, list[_Searched]] = {}
        named: dict[str, Path] = {}
        for suffix in suffixes:
            datatype = "anat" if suffix in SERIES else "dwi"
            query = {**filters.get(datatype, {}), **own}
            keys = {"datatype": datatype, **_with_keys(query)}
            desc = ANY if suffix in SERIES and SERIES[suffix].train else "preproc"
            searched[suffix] = [
                _search(d, label, suffix, {"desc": desc, **keys} if d.derivative else keys, sessions) for d in datasets
            ]
            if suffix != "dwi" and "dwi" in suffixes:  # a folder that cannot be used need not hold any of them
                searched[suffix] = [replace(one, faults=one.of_files) for one in searched[suffix]]
            found = next((one for one in searched[suffix] if one.fitted or one.faults), None)
            if found is None:
                continue
            inputs.problems += [InputProblem(label, fault) for fault in found.faults]
            masks, noises = (
                [_search(d, label, kind, {"datatype": datatype, **more}) for d in datasets]
                for kind, more in (
                    ("mask", _with_keys(filters.get("mask", {}))),
                    (f"{datatype}map", {"param": "noise", **_with_keys(filters.get("noise", {}))}),
                )
            )
            for files in group_series(found.fitted, suffix):
                try:
                    image = _describe(found.dataset, label, suffix, files)
                    if mask := _companion(image, masks, "mask"):
                        image = replace(image, mask=mask[0], mask_uri=mask[1])
                    else:
                        image = replace(image, no_mask=_no_mask(image, masks, filters.get("mask", {}), raw))
                    if noise := _companion(image, noises, "noise map") if noise_maps else None:
                        image = replace(image, noise_map=noise[0], noise_uri=noise[1])
                    elif noise_maps:
                        raise UnusableInputError(
                            f"{image.path} has no noise map (a file *_param-noise*_{image.map_suffix}.nii.gz of its "
                            "entities). Give the dataset that holds it (-d NAME=PATH), or another source of the noise "
                            "level (--sigma)."
                        )
                    if image.series and (beside := SERIES[suffix].beside):
                        fields = [_search(d, label, beside, {"datatype": "fmap"}, sessions) for d in datasets]
                        if field_map := _covariate(image, fields):
                            image = replace(image, covariate=field_map[0], covariate_uri=field_map[1])
                    if image.name in named:
                        raise UnusableInputError(
                            f"{image.path} and {named[image.name].name} would give maps of the same names. "
                            "Choose one with --bids-filter-file."
                        )
                    named[image.name] = image.path
                    inputs.images.append(image)
                except UnusableInputError as error:
                    inputs.problems.append(InputProblem(label, str(error)))
        if not any(one.fitted or one.faults for found in searched.values() for one in found):
            asked = {**(filters.get("dwi") or filters.get("anat") or {}), **own}
            inputs.problems.append(InputProblem(label, _no_images(raw, label, searched, asked), bool(asked)))
    return inputs


@dataclass(frozen=True)
class _Searched:
    """Files of one kind of a participant in a dataset, and problems with others, in words.

    ``of_files`` are the problems with files, part of ``faults``, which also holds those with folders.
    """

    dataset: Dataset
    paths: list[Path]
    faults: list[str]
    of_files: list[str] = field(default_factory=list)
    chooses: Callable[[Path], bool] = is_magnitude

    @property
    def fitted(self) -> list[Path]:
        """Files except phase, real and imaginary images, which are not fitted; of complex series, the real parts."""
        return [path for path in self.paths if self.chooses(path)]


def _search(
    dataset: Dataset, label: str, suffix: str, query: Mapping[str, Any], sessions: Sequence[str] = ()
) -> _Searched:
    """NIfTI files of a participant with one suffix that match a query, sorted by name."""
    query = {"suffix": suffix, "extension": [".nii", ".nii.gz"], **query}
    datatype = query["datatype"]
    found, faults = files_of(dataset.root, label, datatype if isinstance(datatype, str) else ANY, sessions)
    chosen = {path: fault_of(path, dataset.root) for path in found if matches(path, query)}
    of_files = [fault for fault in chosen.values() if fault]
    usable = [path for path, fault in chosen.items() if not fault]
    complex_series = suffix in SERIES and SERIES[suffix].train
    return _Searched(dataset, usable, faults + of_files, of_files, is_real_part if complex_series else is_magnitude)


def _no_images(raw: Dataset, label: str, searched: Mapping[str, Sequence[_Searched]], query: Mapping[str, Any]) -> str:
    """Message about a participant without an image to fit."""
    trains = [suffix for suffix in searched if suffix in SERIES and SERIES[suffix].train]
    if others := [path for suffix in trains for one in searched[suffix] for path in one.paths]:
        return (
            f"sub-{label} has fingerprints ({_listed(others)}) without real parts; bidsfit fits complex signals, whose "
            "parts are files of their own. Call them part-real and part-imag."
        )
    if parts := [path for found in searched.values() for one in found for path in one.paths]:
        return (
            f"sub-{label} has {'diffusion ' if 'dwi' in searched else ''}images of phases, real or imaginary parts "
            f"alone ({_listed(parts)}); bidsfit fits magnitudes. Make them from the parts, and call them part-mag."
        )
    series = [suffix for suffix in searched if suffix in SERIES and suffix not in trains]
    desc = "_desc-preproc" if raw.derivative else ""
    words = [f"diffusion images ({raw.root}/sub-{label}/[ses-*/]dwi/*{desc}_dwi.nii.gz)"] if "dwi" in searched else []
    words += [f"series ([ses-*/]anat/*{desc}_{' or _'.join(series)}.nii.gz)"] if series else []
    return f"sub-{label} has no {' and no '.join(words)}{_that_match(query)}."


def _no_mask(image: InputImage, searched: Sequence[_Searched], query: Mapping[str, Any], raw: Dataset) -> str:
    """Why none of the given masks is used for an image; empty if none was given."""
    words = []
    if others := [path for one in searched for path in one.paths]:
        words.append(
            f"No mask fits {image.path.name} by its name{' and grid' if image.series else ''} ({_listed(others)}): "
            "each session, run, acquisition or space that a mask names must be that of the image."
        )
    elif given := [one.dataset.name for one in searched if one.dataset is not raw]:
        masks = f"mask of sub-{image.participant} ([ses-*/]{image.datatype}/*_mask.nii.gz){_that_match(query)}"
        words.append(f"No {masks} is in {' or '.join(given)} (-d).")
    words += [fault for one in searched if one.dataset is not raw for fault in one.faults]
    beside = Dataset("masks", raw.root / "derivatives" / "masks", derivative=True)
    if beside.root not in [one.dataset.root for one in searched]:
        try:
            found = _companion(
                image, [_search(beside, image.participant, "mask", {"datatype": image.datatype})], "mask"
            )
        except UnusableInputError:
            found = None
        if found:
            words.append(f"{found[0]} fits {image.path.name}, but was not given: add -d masks={beside.root} to use it.")
    return " ".join(words)


def _that_match(query: Mapping[str, Any]) -> str:
    return f" that match {json.dumps(query)}" if query else ""


def _listed(paths: Sequence[Path]) -> str:
    """File names as part of a sentence."""
    more = f" and {len(paths) - SHOWN} more" if len(paths) > SHOWN else ""
    return ", ".join(path.name for path in paths[:SHOWN]) + more


def _describe(dataset: Dataset, label: str, suffix: str, files: tuple[Path, ...]) -> InputImage:
    """An image with its metadata, found by BIDS inheritance; a diffusion image with b-values and directions."""
    path, bval, series = files[0], None, suffix in SERIES
    found = {file: read_metadata(reversed(list(inherited(file, dataset, ".json")))) for file in files}
    entities = {"subject": label, **_labels(path)}
    imaginary: tuple[Path, ...] = ()
    polarity: tuple[Path, ...] = ()
    phase_unit = ""
    if series:
        kind = SERIES[suffix]
        imaginary = imaginary_of(files) if kind.train else ()
        entities = {"subject": label, **_labels(Path(series_name(path, suffix))), "modality": suffix}
        if kind.signed or kind.train:
            entities.pop("part", None)
        if kind.signed:
            polarity = polarity_of(files)
            units = {phase_unit_of(one, dataset) for one in polarity if not is_magnitude(one)}
            if len(units) > 1:
                raise UnusableInputError(f"{_listed(polarity)} differ in their Units, {' and '.join(sorted(units))}.")
            phase_unit = "".join(units)
    else:
        bval = next(inherited(path, dataset, ".bval"), None)
        if bval is None:
            raise UnusableInputError(
                f"{path} has no .bval file. Put {path.name.split('.')[0]}.bval beside it, or one that it inherits "
                "above it."
            )
    return InputImage(
        path=path,
        bval=bval,
        bvec=None if series else next(inherited(path, dataset, ".bvec"), None),
        sidecar=series_metadata({file: content for file, (content, _) in found.items()}, suffix)
        if series
        else found[path][0],
        entities=entities,
        uri=dataset.uri(path),
        preprocessed=dataset.derivative,
        odd_metadata=" ".join(filter(None, (odd for _, odd in found.values()))),
        series=files if series else (),
        imaginary=imaginary,
        polarity=polarity,
        phase_unit=phase_unit,
    )


def phase_unit_of(path: Path, dataset: Folder) -> str:
    """Unit of a phase image.

    Raises
    ------
    UnusableInputError
        If its sidecar tells none.
    """
    unit = read_metadata(reversed(list(inherited(path, dataset, ".json"))))[0].get("Units")
    if not isinstance(unit, str) or unit not in get_args(PhaseUnit):
        known = " or ".join(get_args(PhaseUnit))
        raise UnusableInputError(f"{path.name} must tell its Units in its sidecar, {known}; found {unit!r}")
    return unit


def _labels(path: Path) -> dict[str, str]:
    """Labels of the entities that distinguish images, as written."""
    pairs = parse_name(path.name).entities
    return {long: pairs[short] for long, short in IMAGE_ENTITIES.items() if short in pairs}


def inherited(path: Path, dataset: Folder, extension: str) -> Iterator[Path]:
    """Files that apply to an image by the inheritance principle, nearest and most specific first.

    A file applies if all its entities are those of the image.
    """
    image = parse_name(path.name)
    for folder in path.parents:
        if folder != dataset.root and dataset.root not in folder.parents:
            return
        ending = f"{image.suffix}{extension}"
        listed = dataset.top_files if folder == dataset.root else os.listdir(folder)
        names = {folder / name: parse_name(name) for name in listed if name.endswith(ending)}
        applying = [
            f for f, name in names.items() if set(name.words) <= set(image.words) and name.suffix == image.suffix
        ]
        yield from sorted(applying, key=lambda file: (-len(names[file].words), file.name))


def _companion(
    image: InputImage, searched: Sequence[_Searched], kind: str, *, anywhere: bool = False
) -> tuple[Path, str] | None:
    """Best-matching file (such as a mask) of an image and its URI, from the first dataset with one.

    A file matches if its distinguishing entities are those of the image; of a series it must lie on its grid, unless
    ``anywhere``. The one with most shared entities is taken, ``desc-brain`` before others.

    Raises
    ------
    UnusableInputError
        If two match equally well.
    """
    for one in searched:
        fitting: list[tuple[tuple[int, bool], Path]] = []
        for path in one.paths:
            labels = _labels(path)
            if image.series and not anywhere and not on_grid(path, image.path):
                continue  # of another image of anat/, such as the T1w image
            shared = {long: label for long, label in labels.items() if image.entities.get(long) == label}
            same_session = labels.get("session") == image.entities.get("session")
            if shared == labels and same_session:
                fitting.append(((len(shared), "_desc-brain_" in path.name), path))
        if not fitting:
            continue
        best = max(rank for rank, _ in fitting)
        paths = [path for rank, path in fitting if rank == best]
        if len(paths) > 1:
            raise UnusableInputError(
                f"Several {kind}s fit {image.path.name} equally well: {', '.join(p.name for p in paths)}. "
                f'Choose one with --bids-filter-file, for example {{"{kind.split()[0]}": {{"desc": "..."}}}}.'
            )
        return paths[0], one.dataset.uri(paths[0])
    return None


def _covariate(image: InputImage, searched: Sequence[_Searched]) -> tuple[Path, str] | None:
    """The image of fmap/ of the session of a series, and its URI: the only one, or that with the entities of the image.

    Raises
    ------
    UnusableInputError
        If there are several, and their names do not say which.
    """
    for one in searched:
        own = [path for path in one.paths if _labels(path).get("session") == image.entities.get("session")]
        if len(own) == 1:
            return own[0], one.dataset.uri(own[0])
        if own:
            best = _companion(image, [replace(one, paths=own)], f"{SERIES[image.suffix].beside}s", anywhere=True)
            if best is None:
                raise UnusableInputError(
                    f"Several images could be the {SERIES[image.suffix].beside} of {image.title}: {_listed(own)}. "
                    "Leave one, or give that which is meant the entities (acq-, run-) of the series."
                )
            return best
    return None
