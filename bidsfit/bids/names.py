"""Parsing and checking of BIDS file names and paths."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

#: What else a path says that a filter may ask for.
KINDS = ("suffix", "extension", "datatype")

#: Entities whose labels are numbers: run-1 is run-01.
NUMBERED = ("run", "echo", "flip", "inv", "chunk")

#: Entities that folders repeat.
FOLDERS = ("sub", "ses")

#: In a query: the entity is there, with any label.
ANY = "*"

LABEL = re.compile("[0-9A-Za-z+]+")


@dataclass(frozen=True)
class Name:
    """A parsed file name.

    Attributes
    ----------
    words : tuple of str
        All parts except the suffix, as written: sub-01, acq-ap.
    suffix : str
        The last part; may be empty.
    extension : str
        With its dot (.nii.gz); may be empty.
    """

    words: tuple[str, ...]
    suffix: str
    extension: str

    @property
    def entities(self) -> dict[str, str]:
        """Labels by key (sub, ses, acq), in the order of the name."""
        return dict(word.split("-", 1) for word in self.words if "-" in word)

    def without(self, *keys: str) -> str:
        """The name without some entities."""
        words = [word for word in self.words if word.partition("-")[0] not in keys]
        return "_".join([*words, *filter(None, [self.suffix + self.extension])])


@cache
def entity_keys() -> Mapping[str, str]:
    """Keys in file names of the entities that pybids knows, by the names used in filter files."""
    from bids.layout.models import Config  # takes a while, and only filter files need it

    patterns = {n: e.pattern for name in ("bids", "derivatives") for n, e in Config.load(name).entities.items()}
    found = {name: re.search(r"([a-z]+)-\(", pattern) for name, pattern in patterns.items()}
    return {name: key[1] for name, key in found.items() if key}


def parse_name(name: str) -> Name:
    """Parse a file name; `fault_of` tells whether BIDS allows it."""
    stem, dot, extension = name.partition(".")
    words = stem.split("_")
    suffix = words.pop() if "-" not in words[-1] else ""
    return Name(tuple(words), suffix, dot + extension)


def title_of(image: str) -> str:
    """Name of an image (as `InputImage.name`) with its suffix, as reports and messages call it: ``sub-01_dwi``."""
    name = parse_name(image)
    return f"{name.without('mod')}_{name.entities.get('mod', 'dwi')}"


def is_label(text: str) -> bool:
    """Whether BIDS allows a label: letters, digits and ``+``."""
    return LABEL.fullmatch(text) is not None


def is_magnitude(path: Path) -> bool:
    """Whether an image is not a phase, real or imaginary part, according to its name."""
    return parse_name(path.name).entities.get("part", "mag") == "mag"


def is_real_part(path: Path) -> bool:
    """Whether an image is the real part of a complex one, according to its name."""
    return parse_name(path.name).entities.get("part") == "real"


def phase_beside(path: Path) -> Path | None:
    """The phase image beside a magnitude whose name says so (``part-mag``, ``part-phase``), if it is there."""
    phase = path.with_name(path.name.replace("_part-mag_", "_part-phase_"))
    return phase if phase != path and phase.exists() else None


def matches(path: Path, query: Mapping[str, Any]) -> bool:
    """Whether a file matches a query.

    The query maps the key of an entity, or suffix, extension or datatype, to a label or a list of alternatives; None
    means absent, `ANY` present.
    """
    name = parse_name(path.name)
    values = {**name.entities, "suffix": name.suffix, "extension": name.extension, "datatype": path.parent.name}
    for key, wanted in query.items():
        value = values.get(key)
        if not any(_is(value, one, key) for one in (wanted if isinstance(wanted, list | tuple) else [wanted])):
            return False
    return True


def _is(value: str | None, wanted: Any, key: str) -> bool:
    if wanted is None or wanted == ANY:
        return (value is None) == (wanted is None)
    return value is not None and _comparable(value, key) == _comparable(str(wanted), key)


def _comparable(label: str, key: str) -> str:
    if key == "extension":
        return label.lstrip(".")
    return str(int(label)) if key in NUMBERED and label.isdecimal() else label


# --- what BIDS does not allow ---------------------------------------------------------------------------------------


def folder_fault(folder: Path) -> str:
    """Why the folder of a participant or session cannot be used, and what to do; else empty."""
    key, _, label = folder.name.partition("-")
    if not is_label(label):
        plain = re.sub("[^0-9A-Za-z+]", "", label)
        example = f", for example to {key}-{plain}" if plain else ""
        return (
            f"The folder {folder} has the label {label!r}: BIDS allows only letters, digits and +. Rename the folder, "
            f"and the files in it{example}."
        )
    return _broken(folder)


def _broken(link: Path) -> str:
    """Message about a broken link; empty for anything else."""
    if not link.is_symlink() or link.exists():
        return ""
    return f"{link} is a link to {os.readlink(link)}, which is not there. Get what it points to, or mend it."


def fault_of(path: Path, root: Path) -> str:
    """Why BIDS does not allow the name of a participant's file, and what to do; else empty.

    Each part but the last must be an entity with a label of letters, digits and ``+``, none may occur twice, and
    participant and session must agree with the folders. ``root`` is the dataset.
    """
    words = [word.partition("-") for word in parse_name(path.name).words]
    keys = [key for key, _, _ in words]
    in_name = {key: f"{key}-{label}" for key, _, label in words}
    in_path = {part[:3]: part for part in path.relative_to(root).parts[:2] if part.startswith(("sub-", "ses-"))}
    reasons = [
        f"has {''.join(word)!r} in its name, where BIDS allows an entity with a label of letters, digits and +"
        for word in words
        if not is_label(word[2])
    ]
    reasons += [f"has {key!r} twice in its name" for key in dict.fromkeys(keys) if keys.count(key) > 1]
    reasons += [
        f"has {in_name.get(key, f'no {key}-')} in its name, but lies in {in_path.get(key, f'no folder {key}-')}"
        for key in FOLDERS
        if in_name.get(key) != in_path.get(key)
    ]
    return f"{path} {', and '.join(reasons)}. Rename it, and what belongs to it." if reasons else ""


# --- files of a participant -----------------------------------------------------------------------------------------


def participant_labels(root: Path) -> list[str]:
    """Sorted labels of all folders (and links) named sub-; `folder_fault` tells which cannot be used."""
    folders = (path for path in root.glob("sub-*") if path.is_dir() or path.is_symlink())
    return sorted(folder.name.removeprefix("sub-") for folder in folders)


def files_of(root: Path, participant: str, datatype: str, sessions: Sequence[str] = ()) -> tuple[list[Path], list[str]]:
    """Files of a participant in ``sub-<label>/[ses-<label>/]<datatype>``, sorted, and faults of folders.

    ``participant`` and ``sessions`` (empty: all) are labels without prefix; ``datatype`` may be `ANY`. Hidden files are
    skipped; faults say why folders that may hold more files cannot be used.
    """
    own = root / f"sub-{participant}"
    found: list[Path] = []
    faults: list[str] = []
    for parent in [own, *sorted(own.glob("ses-*"))]:
        if parent != own and sessions and parent.name.removeprefix("ses-") not in sessions:
            continue
        places = [parent / datatype] if datatype != ANY else sorted(parent.glob("[!.]*"))
        folders = [place for place in places if place.is_dir() and not place.name.startswith("ses-")]
        wrong = [_broken(place) for place in places]
        if folders or parent.is_symlink():
            wrong.append(folder_fault(parent))
        if not any(wrong):
            found += [folder / name for folder in folders for name in os.listdir(folder) if not name.startswith(".")]
        faults += filter(None, wrong)
    return sorted(found), faults
