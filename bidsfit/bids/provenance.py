"""Which run made which file, of which inputs, as the draft of the BIDS provenance (BEP028) has it.

A participant, or each session of one, has three files in ``prov/``: ``prov-sub01ses1_ent.json`` (inputs and results
with their SHA-256), ``prov-sub01ses1_act.json`` (the runs that made these results) and ``prov-sub01ses1_soft.json``
(versions of bidsfit), so that runs on different sessions write different files; ``provenance.tsv`` says whose they are.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any

from filelock import FileLock

from bidsfit import __version__
from bidsfit.bids.conflicts import writing
from bidsfit.bids.inputs import InputImage
from bidsfit.bids.metadata import read_sidecar
from bidsfit.bids.outputs import image_folder, own_uri
from bidsfit.bids.tables import write_rows
from bidsfit.exceptions import UnusableInputError
from bidsfit.files import write_json

#: What the three files hold: key of their list, by suffix.
RECORDS = {"act": "Activities", "ent": "Files", "soft": "Software"}


def provenance_path(folder: Path, image: InputImage, suffix: str) -> Path:
    """Path of the file of `RECORDS` that has the results of an image."""
    session = image.entities.get("session")
    return folder / "prov" / f"prov-sub{image.participant}{f'ses{session}' if session else ''}_{suffix}.json"


def write_provenance(
    folder: Path,
    images: Sequence[InputImage],
    run: str,
    command: str,
    started: datetime,
    ended: datetime,
    others: Mapping[str, Path] = MappingProxyType({}),
) -> None:
    """Record the results of a session that are newer than the last record as made by this run.

    Parameters
    ----------
    folder : Path
        Output folder.
    images : sequence of InputImage
        Images of one participant and session that the run was given.
    run : str
        Identifier of the run.
    others : mapping of str to Path
        Other files that it used, such as field maps, by URI.
    """
    paths = {suffix: provenance_path(folder, images[0], suffix) for suffix in RECORDS}
    software, activity = f"bids::prov#bidsfit-{__version__}", f"bids::prov#run-{run}"
    with writing(folder, images[0]):
        recorded = paths["ent"].stat().st_mtime_ns if paths["ent"].exists() else 0
        earlier = {suffix: _read(path, RECORDS[suffix]) for suffix, path in paths.items()}
        results = {}
        session = (folder / image_folder(images[0])).parent
        places = (path for kind in ("anat", "dwi") for path in sorted((session / kind).glob("[!.]*")))
        for path in (path for path in places if path.suffix != ".json"):  # sidecars are not recorded
            uri = own_uri(path.relative_to(folder))
            if path.stat().st_mtime_ns >= recorded:
                found = _entity(uri, path) | {"GeneratedBy": activity}
                known = earlier["ent"].get(uri, {})
                results[uri] = known if known.get("Digest") == found["Digest"] else found
            elif uri in earlier["ent"]:
                results[uri] = earlier["ent"][uri]
        makers = {entity["GeneratedBy"] for entity in results.values()}
        if activity not in makers:
            return
        given = (pair for image in images for pair in _sources(image))
        sources = {uri: _entity(uri, path) for uri, path in (*given, *others.items())}
        programs = earlier["soft"] | {software: {"Id": software, "Label": "bidsfit", "Version": __version__}}
        runs = earlier["act"] | {
            activity: {
                "Id": activity,
                "Label": "bidsfit, participant level",
                "Command": command,
                "AssociatedWith": software,
                "Used": sorted(sources),
                "StartedAtTime": started.isoformat(timespec="seconds"),
                "EndedAtTime": ended.isoformat(timespec="seconds"),
            }
        }
        runs = {key: value for key, value in runs.items() if key in makers}
        used = {uri for value in runs.values() for uri in value["Used"]}
        content = {
            "soft": {key: programs[key] for key in {value["AssociatedWith"] for value in runs.values()}},
            "act": runs,
            "ent": {uri: entity for uri, entity in (earlier["ent"] | sources).items() if uri in used} | results,
        }
        for suffix, records in content.items():  # entities last: the time of their file says what is recorded
            write_json(paths[suffix], {RECORDS[suffix]: [records[key] for key in sorted(records)]})
    write_table_of_records(folder)


def write_table_of_records(folder: Path) -> None:
    """Write what says whose the records of an output folder are, those of other runs included."""
    with FileLock(folder / ".bidsfit.lock"):
        people = sorted(path.name.removesuffix("_ent.json") for path in (folder / "prov").glob("prov-*_ent.json"))
        rows = ((one, f"Runs of bidsfit that made the files of {one.replace('prov-sub', 'sub-', 1)}") for one in people)
        write_rows(folder / "prov" / "provenance.tsv", ("provenance_id", "description"), rows)


def _sources(image: InputImage) -> Iterator[tuple[str, Path]]:
    """URIs and paths of an image and what belongs to it."""
    scheme, name, relative = image.uri.split(":", 2)
    root = image.path.parents[len(Path(relative).parts) - 1]
    for path in (*image.series, *image.imaginary, *image.polarity, *filter(None, (image.path, image.bval, image.bvec))):
        yield f"{scheme}:{name}:{path.relative_to(root).as_posix()}", path
    others = (image.mask, image.mask_uri), (image.noise_map, image.noise_uri), (image.covariate, image.covariate_uri)
    for given, uri in others:
        if given is not None and uri is not None:
            yield uri, given


def _entity(uri: str, path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"Id": uri, "Label": path.name, "Digest": {"SHA-256": digest}}


def _read(path: Path, key: str) -> dict[str, dict[str, Any]]:
    """Records of a file by identifier; none where it is not there or damaged, as it is only a record."""
    try:
        return {record["Id"]: record for record in read_sidecar(path)[key]}
    except (UnusableInputError, KeyError, TypeError):
        return {}
