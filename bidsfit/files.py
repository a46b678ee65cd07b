"""Reading of text files within size limits, and atomic writing."""

from __future__ import annotations

import csv
import errno
import filecmp
import io
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from socket import gethostname
from tempfile import gettempdir
from typing import Any

import psutil

from bidsfit.exceptions import DiskFullError, NoInputError, UnusableInputError

#: Environment variable that names the folder of compiled code, for this process and those that it starts.
CACHE_VARIABLE = "BIDSFIT_CACHE_DIR"

#: What the system says of a disk without space, and of a quota that is used up.
FULL = (errno.ENOSPC, errno.EDQUOT)

#: A text of b-values, directions, metadata or a table is never as large as this (bytes).
LARGEST_TEXT = 1 << 24

#: How a small file begins that stands in place of content that is kept elsewhere, and the command that gets it.
POINTERS = {b"/annex/objects/": "datalad get", b"version https://git-lfs": "git lfs pull"}


def cache_folder() -> Path:
    """The folder of compiled code: that of `CACHE_VARIABLE`, by default ``bidsfit`` in the cache folder of the user."""
    if given := os.environ.get(CACHE_VARIABLE):
        return Path(given)
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser(), "bidsfit")
    except RuntimeError:  # a user without a home
        return Path(gettempdir(), f"bidsfit-{os.getuid()}")


def require_file(path: Path) -> None:
    """Raise `UnusableInputError` unless a path is a regular file with content; never waits, as reading a pipe would."""
    try:
        if path.is_symlink() and not path.exists():
            raise NoInputError(f"{path} is a link whose content is not here: get it first (datalad get).")
        if not path.exists():
            raise NoInputError(f"{path} does not exist.")
        if not path.is_file():
            raise UnusableInputError(f"{path} is not an ordinary file.")
        with path.open("rb") as file:
            start = file.read(max(map(len, POINTERS)))
    except OSError as error:
        raise UnusableInputError(f"{path} cannot be read: {error.strerror}.") from error
    for pointer, command in POINTERS.items():
        if start.startswith(pointer):
            raise NoInputError(f"{path} only points to content that is not here: get it first ({command}).")


def read_text(path: Path) -> str:
    """Read a regular file of UTF-8 text.

    Raises
    ------
    UnusableInputError
        If it cannot be read, is too large, or is not text.
    """
    require_file(path)
    try:
        if path.stat().st_size > LARGEST_TEXT:
            raise UnusableInputError(f"{path} is larger than {LARGEST_TEXT >> 20} MB, which such a text never is.")
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UnusableInputError(f"{path} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise UnusableInputError(f"{path} is not text in UTF-8. Save it as UTF-8.") from error


def read_tsv(path: Path) -> list[dict[str, str]]:
    """Rows of a BIDS table by column name; missing cells are empty.

    Raises
    ------
    UnusableInputError
        If it cannot be read, or a row has more cells than columns.
    """
    try:
        rows = list(csv.DictReader(io.StringIO(read_text(path), newline=""), delimiter="\t", restval=""))
    except csv.Error as error:
        raise UnusableInputError(f"{path} cannot be read as a table: {error}.") from error
    if any(any(row.pop(None, [])) for row in rows):  # an empty cell more is a tab at the end of the line
        raise UnusableInputError(f"{path} has a row with more cells than there are columns. Correct it.")
    return rows


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A temporary path beside ``path`` that is renamed to it when the block ends without an error.

    The folder is created if needed. The temporary name keeps the extensions, from which writers take the format. An
    existing file is left alone if its content is identical or if the block writes nothing.

    Raises
    ------
    DiskFullError
        If the disk is full.
    """
    temporary = path.with_name(f".{gethostname()}.{os.getpid()}.{path.name}")
    with needing_space(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield temporary
            if temporary.exists() and not (path.is_file() and filecmp.cmp(temporary, path, shallow=False)):
                os.replace(temporary, path)
        except OSError as error:
            if error.errno in FULL:  # said before the space of the half-written file is free again
                raise DiskFullError(no_space(path)) from error
            raise
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def needing_space(path: Path) -> Iterator[None]:
    """Raise `DiskFullError`, naming the file, if the block fails because the disk is full."""
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            raise DiskFullError(no_space(Path(error.filename or path))) from error
        raise


def no_space(path: Path) -> str:
    """Message for a file or folder that could not be written because the disk is full."""
    there = next(folder for folder in (path, *path.parents) if folder.exists())
    free = shutil.disk_usage(there).free / 1e6
    return (
        f"No space is left to write {path}: {free:.1f} MB are free on its disk, or a quota is used up. Make room "
        "there, or choose another folder (-w for the work folder), and run the same command again: it resumes."
    )


def remove_abandoned(folder: Path, below: str = "") -> None:
    """Remove temporary files of killed processes of this machine in a folder, with ``below="**/"`` also below it."""
    prefix = f".{gethostname()}."
    for path in folder.glob(f"{below}{prefix}*"):
        process = path.name.removeprefix(prefix).split(".")[0]
        if process.isdigit() and not psutil.pid_exists(int(process)):
            path.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically; one with identical text is left alone."""
    if path.is_file() and path.read_bytes() == text.encode():
        return
    with whole_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, content: Mapping[str, Any], *, allow_nan: bool = False) -> None:
    """Write indented JSON atomically; NaN, which JSON does not have, only into files that bidsfit alone reads."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False, allow_nan=allow_nan) + "\n")
