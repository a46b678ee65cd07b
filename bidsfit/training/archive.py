"""Zip files of unknown origin: number and sizes of the members are checked before any is read."""

from __future__ import annotations

import io
import os
import struct
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

#: An archive may unpack to `RATIO` times its own size (trained estimators: about 3), and to `SMALL` bytes however small
#: it is, but never to more than `LARGEST` bytes (the forests of Gyori et al. 2022 have 4 GB).
RATIO, SMALL, LARGEST = 16, 1 << 24, 1 << 33
#: Its directory, which Python reads as a whole, has this many bytes at most: some ten thousand members.
LARGEST_DIRECTORY = 1 << 20

#: The records that end an archive, and the size of the directory in each: the usual one, and before it, in an archive
#: beyond 2 GiB, one of 64 bits and a note of where that is.
END, NOTE, END64 = struct.Struct("<4s4H2LH"), struct.Struct("<4sLQL"), struct.Struct("<4sQ2H2L4Q")


@contextmanager
def opened(stream: BinaryIO) -> Iterator[zipfile.ZipFile]:
    """Open an archive whose members are within bounds.

    Raises
    ------
    ValueError, zipfile.BadZipFile
        If it is damaged or exceeds the bounds of `read`.
    """
    size = stream.seek(0, os.SEEK_END)
    stream.seek(max(size - END.size - NOTE.size - END64.size, 0))
    *_, directory, _, comment = END.unpack((tail := stream.read())[-END.size :].rjust(END.size, b"\0"))
    before = tail[: -END.size]
    if before[-NOTE.size :].startswith(b"PK\6\7") and len(before) == NOTE.size + END64.size:
        directory = max(directory, END64.unpack(before[: END64.size])[-2])
    if directory > LARGEST_DIRECTORY:
        raise ValueError("it lists more members than such a file has")
    if comment:
        raise zipfile.BadZipFile("it does not end as a zip file")
    with zipfile.ZipFile(stream) as archive:
        members = archive.infolist()
        unpacked, most = sum(member.file_size for member in members), most_unpacked(size)
        if unpacked > most:
            raise ValueError(f"it would unpack to {unpacked:,} bytes, and a file of its size to {most:,} at most")
        if len(set(archive.namelist())) < len(members):
            raise ValueError("it lists a member twice")
        if any(member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) for member in members):
            raise ValueError("a member is compressed in a way that such a file is not")
        yield archive


def most_unpacked(size: int) -> int:
    """Largest allowed unpacked size, in bytes, of a file of this size."""
    return min(LARGEST, max(SMALL, RATIO * size))


def read(archive: zipfile.ZipFile, name: str) -> bytes:
    """Read a member, passing its declared size so that Python unpacks no more than that."""
    with archive.open(name) as stream:
        return stream.read(archive.getinfo(name).file_size + 1)


def unpacked(content: bytes) -> bytes:
    """The same archive without compression."""
    plain = io.BytesIO()
    with opened(io.BytesIO(content)) as archive, zipfile.ZipFile(plain, "w") as copy:
        for name in archive.namelist():
            copy.writestr(name, read(archive, name))
    return plain.getvalue()
