"""What to run on: the diffusion images of a BIDS dataset, each with its b-values, metadata and mask."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

from bids.layout import BIDSLayout, BIDSLayoutIndexer, Query
from bids.layout.models import Config, LayoutInfo
from sqlalchemy.exc import SQLAlchemyError

from bidsfit.bids.images import read_sidecar
from bidsfit.exceptions import UnknownNameError, UnusableInputError, UsageError

#: Entities that tell the images of one participant apart, in the order of their names in files.
IMAGE_ENTITIES = {
    "session": "ses",
    "acquisition": "acq",
    "reconstruction": "rec",
    "direction": "dir",
    "run": "run",
    "echo": "echo",
    "part": "part",
    "space": "space",
    "recording": "recording",
    "chunk": "chunk",
    "resolution": "res",
}

#: Fields of `DwiImage` that are paths.
PATHS = ("path", "bval", "bvec", "mask", "noise_map")

#: What pybids knows entities from.
CONFIGURATIONS = ("bids", "derivatives")

#: Kinds of file that a filter may choose among.
FILE_KINDS = ("dwi", "mask", "noise")

#: What the special values of a filter file mean to pybids.
SPECIAL = {None: Query.NONE, "*": Query.REQUIRED}


@dataclass(frozen=True)
class Dataset:
    """A BIDS dataset, raw or derivative, and the name by which BIDS URIs refer to it."""

    name: str
    root: Path
    layout: BIDSLayout
    derivative: bool

    def uri(self, path: Path) -> str:
        """BIDS URI of one of its files."""
        return f"bids:{self.name}:{path.relative_to(self.root).as_posix()}"


@dataclass(frozen=True)
class DwiImage:
    """One diffusion image and what belongs to it.

    ``mask`` is None where no derivatives dataset has one; ``noise_map`` is looked for only where it is asked for.
    """

    path: Path
    bval: Path
    bvec: Path | None
    sidecar: dict[str, Any]
    entities: dict[str, str]
    uri: str
    preprocessed: bool
    mask: Path | None = None
    mask_uri: str | None = None
    noise_map: Path | None = None
    noise_uri: str | None = None

    @property
    def participant(self) -> str:
        return self.entities["subject"]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for a node of a workflow."""
        return {k: str(v) if isinstance(v, Path) else v for k, v in vars(self).items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> DwiImage:
        """The image that `to_dict` described."""
        paths = {k: None if values[k] is None else Path(values[k]) for k in PATHS}
        return cls(**{**values, **paths})

    @property
    def name(self) -> str:
        """File name without suffix and extension: ``sub-01_ses-1_acq-ap``."""
        pairs = [f"sub-{self.participant}"]
        pairs += [f"{short}-{self.entities[long]}" for long, short in IMAGE_ENTITIES.items() if long in self.entities]
        return "_".join(pairs)


@dataclass(frozen=True)
class Problem:
    """Why an image, or a whole participant, cannot be used."""

    participant: str
    message: str


@dataclass
class Inputs:
    """What was found: images to fit, and problems by participant."""

    images: list[DwiImage] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)


def open_dataset(
    root: Path,
    name: str,
    *,
    derivative: bool | None = None,
    participants: Sequence[str] = (),
    database: Path | None = None,
) -> Dataset:
    """Index a BIDS dataset; only the folders of the chosen participants, where some are chosen.

    Parameters
    ----------
    root : Path
    name : str
        For BIDS URIs.
    derivative : bool, optional
        Whether it is a derivative dataset; None asks its ``dataset_description.json``.
    participants : sequence of str
        Labels without ``sub-``.
    database : Path, optional
        Folder of the index, reused when it exists; it then holds all participants.

    Raises
    ------
    UnusableInputError
        Where ``root`` is no BIDS dataset.
    UsageError
        Where the index cannot be used, or is that of another dataset.
    """
    root = root.absolute()
    described = describes_derivative(root)
    if derivative is None:
        derivative = described
    ignore: list[Any] = ["code", "sourcedata", "stimuli", "work", re.compile(r"/\."), re.compile(r"/(figures|logs?)/")]
    if not derivative or (root / "derivatives").is_dir():
        ignore.append("derivatives")
    if participants and database is None:
        labels = "|".join(map(re.escape, participants))
        ignore.append(re.compile(rf"^/sub-(?!({labels})(/|$))"))
    indexer = BIDSLayoutIndexer(validate=False, index_metadata=False, ignore=ignore)
    index = None if database is None else database / name
    try:
        layout = BIDSLayout(
            root,
            validate=False,
            is_derivative=derivative,
            config=list(CONFIGURATIONS),
            indexer=indexer,
            database_path=index,
        )
        indexed = layout.session.query(LayoutInfo).one().root
    except (OSError, SQLAlchemyError) as error:
        reason = str(error).splitlines()[0]
        raise UsageError(f"The index {index} of {root} cannot be used: {reason}.") from error
    if Path(indexed) != root:
        raise UsageError(f"The index {index} is that of {indexed}, not of {root}. Choose another --bids-database-dir.")
    return Dataset(name=name, root=root, layout=layout, derivative=derivative)


def describes_derivative(root: Path) -> bool:
    """Whether the ``dataset_description.json`` of a folder says that it is a derivative dataset.

    Raises
    ------
    UnusableInputError
        Where ``root`` is no BIDS dataset.
    """
    path = root / "dataset_description.json"
    if not root.is_dir():
        raise UnusableInputError(f"{root} is not a folder.")
    if not path.is_file():
        raise UnusableInputError(
            f"{root} is not a BIDS dataset: it has no dataset_description.json. Give the folder that holds the sub-* "
            "folders and that file."
        )
    description = read_sidecar(path)
    return description.get("DatasetType") == "derivative" or "PipelineDescription" in description  # before BIDS 1.4


def participant_labels(root: Path) -> list[str]:
    """Labels of the participants that have a folder, sorted."""
    return sorted(p.name.removeprefix("sub-") for p in root.glob("sub-*") if p.is_dir())


def choose_participants(root: Path, wanted: Sequence[str]) -> list[str]:
    """Labels of the wanted participants (with or without ``sub-``), or of all.

    Raises
    ------
    UnknownNameError
        For one without a folder.
    UnusableInputError
        Where there is none at all.
    """
    labels = participant_labels(root)
    if not labels:
        raise UnusableInputError(f"{root} holds no participant: no folder is called sub-<label>.")
    if not wanted:
        return labels
    chosen = [label.removeprefix("sub-") for label in wanted]
    for label in chosen:
        if label not in labels:
            raise UnknownNameError("participant", label, labels)
    return sorted(set(chosen))


def read_filters(path: Path | None) -> dict[str, dict[str, Any]]:
    """Read a ``--bids-filter-file``: queries for ``dwi``, ``mask`` and ``noise``; null means absent, "*" any value.

    Raises
    ------
    UsageError
        Where it is not JSON of that form.
    """
    if path is None:
        return {}
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UsageError(f"The filter file {path} cannot be read as JSON: {error}.") from error
    queries = list(content.values()) if isinstance(content, dict) else []
    if not queries or not all(isinstance(query, dict) for query in queries):
        raise UsageError(f'The filter file {path} must look like {{"dwi": {{"acquisition": "ap"}}}}.')
    for key in content:
        if key not in FILE_KINDS:
            raise UnknownNameError(f"kind of file in {path}:", key, FILE_KINDS)
    for query in queries:
        for entity in query:
            if entity not in known_entities():
                raise UnknownNameError(f"entity in {path}:", entity, known_entities())
            if isinstance(query[entity], dict):
                raise UsageError(f"The filter file {path} gives {entity!r} an object; give a value, or a list of them.")
    return {kind: {entity: _from_json(v) for entity, v in query.items()} for kind, query in content.items()}


def _from_json(value: Any) -> Any:
    return [_from_json(v) for v in value] if isinstance(value, list) else SPECIAL.get(value, value)


def _as_json(query: Mapping[str, Any]) -> str:
    """A query as it is written in a filter file."""
    words = {meaning: word for word, meaning in SPECIAL.items()}
    return json.dumps(query, default=lambda value: words.get(value, str(value)))


@cache
def known_entities() -> frozenset[str]:
    """Entities that a filter may name; participants have an option of their own."""
    entities = {name for config in CONFIGURATIONS for name in Config.load(config).entities}
    return frozenset(entities - {"subject"})


def find_images(
    raw: Dataset,
    derivatives: Sequence[Dataset],
    participants: Sequence[str],
    *,
    sessions: Sequence[str] = (),
    runs: Sequence[str] = (),
    filters: Mapping[str, Mapping[str, Any]] | None = None,
    noise_maps: bool = False,
) -> Inputs:
    """Find every diffusion image of every participant, session, run, acquisition and direction.

    Preprocessed images (``desc-preproc_dwi``) of a derivatives dataset take the place of a participant's raw ones.

    Parameters
    ----------
    raw : Dataset
        The input dataset; it may itself be a derivative one.
    derivatives : sequence of Dataset
        Searched for preprocessed images and masks, in this order.
    participants, sessions, runs : sequence of str
        Labels; empty means all.
    filters : mapping
        As `read_filters` returns.
    noise_maps : bool
        Every image must have one (``param-noise_dwimap``) among the derivatives; those without become problems.
    """
    filters = filters or {}
    query: dict[str, Any] = dict(filters.get("dwi", {}))
    if sessions:
        query["session"] = [label.removeprefix("ses-") for label in sessions]
    if runs:
        query["run"] = [int(run) if str(run).isdigit() else run for run in runs]
    inputs = Inputs()
    datasets = [*derivatives, raw]
    images = [_query(d, "dwi", {"desc": "preproc", **query} if d.derivative else query) for d in datasets]
    masks = [_query(dataset, "mask", filters.get("mask", {})) for dataset in datasets]
    noises = [
        _query(dataset, "dwimap", filters.get("noise", {}), pattern="_param-noise_") if noise_maps else {}
        for dataset in datasets
    ]
    for label in participants:
        dataset, found = next(
            ((dataset, files[label]) for dataset, files in zip(datasets, images, strict=True) if label in files),
            (raw, []),
        )
        if not found:
            pattern = f"sub-{label}/**/dwi/*{'_desc-preproc' if raw.derivative else ''}_dwi.nii.gz"
            chosen = f" that match {_as_json(query)}" if query else ""
            inputs.problems.append(
                Problem(label, f"sub-{label} has no diffusion images ({raw.root / pattern}){chosen}.")
            )
        own_masks = [(dataset, files.get(label, [])) for dataset, files in zip(datasets, masks, strict=True)]
        own_noises = [(dataset, files.get(label, [])) for dataset, files in zip(datasets, noises, strict=True)]
        named: dict[str, Path] = {}
        for path in found:
            try:
                image = _describe(dataset, label, path)
                if mask := _companion(image, own_masks, "mask"):
                    image = replace(image, mask=mask[0], mask_uri=mask[1])
                if noise := _companion(image, own_noises, "noise map"):
                    image = replace(image, noise_map=noise[0], noise_uri=noise[1])
                elif noise_maps:
                    raise UnusableInputError(
                        f"{path} has no noise map (a file *_param-noise_dwimap.nii.gz of its entities). Give the "
                        "dataset that holds it (-d NAME=PATH), or another source of the noise level (--sigma)."
                    )
                if image.name in named:
                    raise UnusableInputError(
                        f"{path} and {named[image.name].name} would give maps of the same names. "
                        "Choose one with --bids-filter-file."
                    )
                named[image.name] = path
                inputs.images.append(image)
            except UnusableInputError as error:
                inputs.problems.append(Problem(label, str(error)))
    return inputs


def _query(dataset: Dataset, suffix: str, query: Mapping[str, Any], pattern: str = "") -> dict[str, list[Path]]:
    """NIfTI files of one suffix whose names hold a pattern, by participant, in the order of their names."""
    options = {"suffix": suffix, "datatype": "dwi", "extension": [".nii", ".nii.gz"], **query}
    found: dict[str, list[Path]] = {}
    for file in dataset.layout.get(**options, invalid_filters="allow"):
        path = Path(file.path)
        if (
            pattern in path.name and _labels(path).get("part", "mag") == "mag"
        ):  # phase, real and imaginary images are not fitted
            found.setdefault(str(file.entities["subject"]), []).append(path)
    return {label: sorted(paths) for label, paths in found.items()}


def _describe(dataset: Dataset, label: str, path: Path) -> DwiImage:
    """An image with its b-values, directions and metadata, found by BIDS inheritance."""
    bval = next(inherited(path, dataset.root, ".bval"), None)
    if bval is None:
        raise UnusableInputError(
            f"{path} has no .bval file. Put {path.name.split('.')[0]}.bval beside it, or one that it inherits above it."
        )
    sidecar: dict[str, Any] = {}
    for json_path in reversed(list(inherited(path, dataset.root, ".json"))):
        sidecar |= read_sidecar(json_path)
    return DwiImage(
        path=path,
        bval=bval,
        bvec=next(inherited(path, dataset.root, ".bvec"), None),
        sidecar=sidecar,
        entities={"subject": label, **_labels(path)},
        uri=dataset.uri(path),
        preprocessed=dataset.derivative,
    )


def _labels(path: Path) -> dict[str, str]:
    """Labels of the entities that tell images apart, as written (pybids turns ``run-01`` into 1)."""
    pairs = dict(word.split("-", 1) for word in path.name.split(".")[0].split("_") if "-" in word)
    return {long: pairs[short] for long, short in IMAGE_ENTITIES.items() if short in pairs}


def inherited(path: Path, root: Path, extension: str) -> Iterator[Path]:
    """Files that apply to an image by the inheritance principle, nearest and most specific first.

    A file applies when all its entities are the image's. (`BIDSLayout.get_nearest` also takes files with entities that
    the image does not have, and does not look above a folder that holds files of other images.)
    """
    words = set(path.name.split(".")[0].split("_"))
    suffix = path.name.split(".")[0].split("_")[-1]
    for folder in path.parents:
        if folder != root and root not in folder.parents:
            return
        stems = {file: file.name.removesuffix(extension).split("_") for file in folder.glob(f"*{suffix}{extension}")}
        applying = [file for file, stem in stems.items() if set(stem) <= words and stem[-1] == suffix]
        yield from sorted(applying, key=lambda file: (-len(stems[file]), file.name))


def _companion(
    image: DwiImage, candidates: Sequence[tuple[Dataset, Sequence[Path]]], kind: str
) -> tuple[Path, str] | None:
    """The file (a mask, say) that fits an image best, and its URI, from the first dataset that has one.

    A file fits when each of its entities that tells images apart is the image's. Among those that fit, the one that
    shares most entities is taken, and ``desc-brain`` before others.

    Raises
    ------
    UnusableInputError
        Where two fit equally well.
    """
    for dataset, found in candidates:
        fitting: list[tuple[tuple[int, bool], Path]] = []
        for path in found:
            labels = _labels(path)
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
        return paths[0], dataset.uri(paths[0])
    return None
