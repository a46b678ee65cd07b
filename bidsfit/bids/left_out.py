"""Volumes of an image that were left out: their representation in sidecars and texts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bidsfit.bids.metadata import read_sidecar

#: Field of the sidecars of maps and preprocessed images: a list of `left_out`.
FIELD = "VolumesLeftOut"

#: Volumes whose reasons are told one by one.
SHOWN = 6


def left_out(volume: int, b_value: float, reason: str) -> dict[str, Any]:
    """Entry for a volume, counted from 0 in the original image, and why it was left out."""
    return {"Volume": volume, "BValue": round(b_value, 2), "Reason": reason}


def left_out_of(path: Path) -> list[dict[str, Any]]:
    """Entries in the sidecar of an image; empty without a sidecar."""
    found = read_sidecar(path).get(FIELD) if path.exists() else None
    rows = found if isinstance(found, list) else []
    return [row for row in rows if isinstance(row, dict) and {"Volume", "BValue", "Reason"} <= set(row)]


def numbers(rows: Iterable[Mapping[str, Any]]) -> list[int]:
    """Indices of the volumes, counted from 0."""
    return [int(row["Volume"]) for row in rows]


def without(values: Sequence[Any], rows: Iterable[Mapping[str, Any]]) -> list[Any]:
    """Values of all volumes except those left out."""
    gone = set(numbers(rows))
    return [value for k, value in enumerate(values) if k not in gone]


def without_in_sidecar(sidecar: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Metadata without the values, such as echo times, of volumes that were left out."""
    times = sidecar.get("EchoTime")
    return {**sidecar, "EchoTime": without(times, rows)} if rows and isinstance(times, list) else dict(sidecar)


def numbers_of_others(n_volumes: int, rows: Sequence[Mapping[str, Any]]) -> list[int]:
    """Original indices of the ``n_volumes`` volumes that remain, counted from 0."""
    return without(range(n_volumes + len(rows)), rows)


def methods_sentence(image: str, n_volumes: int, rows: Sequence[Mapping[str, Any]]) -> str:
    """Sentence of the methods text about volumes left out of an image of ``n_volumes``."""
    one = len(rows) == 1
    return (
        f"Of the {n_volumes} volumes of {image}, {len(rows)} {'was' if one else 'were'} left out before everything "
        f"else, because {'it is' if one else 'they are'} no diffusion image{'' if one else 's'} of the b-value given."
    )


def in_words(rows: Sequence[Mapping[str, Any]]) -> str:
    """Warning about volumes that were left out; empty if there are none."""
    if not rows:
        return ""
    groups: dict[str, list[str]] = {}
    for row in rows:
        groups.setdefault(f"{row['Reason']}", []).append(f"{row['Volume']} (b = {row['BValue']:.0f} s/mm²)")
    said = [f"{_listed(which)}: {reason}" for reason, which in list(groups.items())[:SHOWN]]
    more = f"; and {len(groups) - SHOWN} more" if len(groups) > SHOWN else ""
    one = len(rows) == 1
    return (
        f"{len(rows)} volume{' is' if one else 's are'} no diffusion image{'' if one else 's'} of the b-value given "
        f"for {'it' if one else 'them'}, and {'was' if one else 'were'} left out (counted from 0). "
        f"{'; '.join(said)}{more}. Was a map (ADC, trace) appended, the scan stopped, or a file mixed up? Look at "
        f"{'it' if one else 'them'}, and remove what does not belong from the image, its .bval and its .bvec."
    )


def _listed(words: Sequence[str]) -> str:
    return ", ".join(words[:SHOWN]) + (f" and {len(words) - SHOWN} more" if len(words) > SHOWN else "")
