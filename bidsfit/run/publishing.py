"""The files of an analysis appear together, and those of an earlier one that differ are kept."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import mkdtemp

from filelock import FileLock

from bidsfit.cohort.tables import REPEATABILITY_TABLE, RESPONSE_TABLE, ROIS

#: What an analysis may leave; the page comes last, so that where it lies everything does.
TABLES = (ROIS, REPEATABILITY_TABLE, RESPONSE_TABLE)
PAGE = "group.html"
ENDINGS = (".tsv", ".json")

#: Characters of the digest of its tables by which an earlier analysis is called.
SHOWN = 8


@contextmanager
def staged(folder: Path) -> Iterator[Path]:
    """A hidden folder beside the outputs for files that are not finished; it goes when the block ends."""
    place = Path(mkdtemp(prefix=".group-", dir=folder))
    try:
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)


def publish(stage: Path, folder: Path) -> Path | None:
    """Put the files of an analysis where they belong.

    Files that are the same stay as they are. Where a table differs from the one that is there, or is no longer made,
    all files of the earlier analysis are kept together in a folder that is called by their digest.

    Parameters
    ----------
    stage : Path
        Where the new files lie.
    folder : Path
        Of the outputs.

    Returns
    -------
    Path or None
        The folder in which an earlier analysis is kept now.
    """
    with FileLock(folder / ".bidsfit.lock"):
        return _replace(stage, folder)


def _replace(stage: Path, folder: Path) -> Path | None:
    kept = None
    there = [name for name in TABLES if (folder / name).exists()]
    if there and any(not _same(stage / name, folder / name) for name in TABLES):
        kept = folder / f"group_earlier-{_digest(folder, there)[:SHOWN]}"
        kept.mkdir(exist_ok=True)
        for path in _files(folder):
            os.replace(path, kept / path.name)
    for path in _files(stage):
        if not _same(path, folder / path.name):
            os.replace(path, folder / path.name)
    return kept


def _files(folder: Path) -> list[Path]:
    """Files of an analysis in a folder, the page last."""
    names = [Path(name).with_suffix(ending).name for name in TABLES for ending in ENDINGS]
    return [folder / name for name in (*names, PAGE) if (folder / name).exists()]


def _same(first: Path, second: Path) -> bool:
    """Whether two files have one content, or neither is there."""
    if first.exists() != second.exists():
        return False
    return not first.exists() or _digest_of(first) == _digest_of(second)


def _digest(folder: Path, names: Sequence[str]) -> str:
    return hashlib.sha256("".join(_digest_of(folder / name) for name in names).encode()).hexdigest()


def _digest_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
