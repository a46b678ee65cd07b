"""Publishing of the files of an analysis together, keeping those of an earlier one that differ."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import mkdtemp

from filelock import FileLock, Timeout

from bidsfit.cohort.tables import REPEATABILITY_TABLE, RESPONSE_TABLE, ROIS

#: What an analysis may leave; the page comes last, so that where it lies everything does.
TABLES = (ROIS, REPEATABILITY_TABLE, RESPONSE_TABLE)
PAGE = "group.html"
ENDINGS = (".tsv", ".json")

#: How the folders of unfinished files begin, and the file in each that a living run has locked.
STAGE, LOCK = ".group-", ".lock"

#: Characters of the digest of its tables by which an earlier analysis is called.
SHOWN = 8


@contextmanager
def staged(folder: Path) -> Iterator[Path]:
    """A hidden folder beside the outputs for unfinished files, removed when the block ends.

    What killed runs left is removed first: a run locks its folder, and the lock ends with its process.
    """
    with FileLock(folder / ".bidsfit.lock"):  # no other run is between making its folder and locking it
        for abandoned in folder.glob(f"{STAGE}*"):
            with suppress(Timeout):
                with FileLock(abandoned / LOCK, timeout=0):
                    pass  # its run has ended
                shutil.rmtree(abandoned, ignore_errors=True)
        place = Path(mkdtemp(prefix=STAGE, dir=folder))
        lock = FileLock(place / LOCK)
        lock.acquire()
    try:
        yield place
    finally:
        lock.release()
        shutil.rmtree(place, ignore_errors=True)


def publish(stage: Path, folder: Path) -> Path | None:
    """Move the files of an analysis from ``stage`` to the output folder.

    Identical files are left alone. If a table differs from an existing one, or is no longer made, all files of the
    earlier analysis are moved to a folder named by their digest, which is returned; else None.
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
    """Files of an analysis, the page last."""
    names = [Path(name).with_suffix(ending).name for name in TABLES for ending in ENDINGS]
    return [folder / name for name in (*names, PAGE) if (folder / name).exists()]


def _same(first: Path, second: Path) -> bool:
    """Whether two files have the same content, or both are missing."""
    if first.exists() != second.exists():
        return False
    return not first.exists() or _digest_of(first) == _digest_of(second)


def _digest(folder: Path, names: Sequence[str]) -> str:
    return hashlib.sha256("".join(_digest_of(folder / name) for name in names).encode()).hexdigest()


def _digest_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
