"""Distributions of fitted parameters as group-level derivatives: JSON description and table of samples."""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bidsfit.bids.metadata import read_sidecar
from bidsfit.bids.tables import GENERATED_BY
from bidsfit.bids.units import FILE_UNITS
from bidsfit.exceptions import UnusableInputError
from bidsfit.files import whole_file, write_json
from bidsfit.models.signal_model import Parameter, SignalModel
from bidsfit.simulation.distributions import Pooled, digest, distribution_from, participants_of
from bidsfit.training.archive import most_unpacked

#: Kinds of pools, and what each holds.
KINDS = {
    "healthy": "all voxels of the masks",
    "wm": "white matter",
    "gm": "grey matter",
}

SUFFIXES = (".json", ".tsv.gz", ".png")

#: Numbers with so many digits are read as the same single-precision numbers.
DIGITS = 9

#: Rows of its table that are written at a time.
ROWS = 20_000

#: Characters of its digest that tell an older distribution from the present one.
SHOWN = 8


@dataclass(frozen=True)
class PoolFile:
    """Description of a distribution file, without its samples.

    Attributes
    ----------
    path : Path
        JSON file.
    participants : tuple of str
        Participants in it, with ``sub-``.
    """

    path: Path
    digest: str
    participants: tuple[str, ...]


def distribution_path(folder: Path, model: str, kind: str, older: str = "") -> Path:
    """Path of the JSON file of a distribution; ``older`` is the digest of a replaced one."""
    return folder / f"group_model-{model}_desc-{kind}{older[:SHOWN]}_distribution.json"


def samples_path(path: Path) -> Path:
    """Path of the table of samples that belongs to a JSON file."""
    return path.with_suffix(".tsv.gz")


def find_pool(folder: Path, model: str, kind: str) -> PoolFile | None:
    """The distribution of a model in an output folder, if any."""
    path = distribution_path(folder, model, kind)
    if not path.exists():
        return None
    content = read_sidecar(path)
    try:
        return PoolFile(path, str(content["Digest"]), tuple(participants_of(content["Distribution"])))
    except (KeyError, TypeError, AttributeError) as error:
        raise _refusal(path, f"it lacks {error}") from error


def write_distribution(
    folder: Path, pool: Pooled, kind: str, *, sources: Sequence[str], healthy: str
) -> tuple[Path, Path | None]:
    """Write a distribution; an existing one that differs is kept under another name.

    ``kind`` is one of `KINDS`, ``sources`` are BIDS URIs of the maps, ``healthy`` is the column and value by which
    participants were chosen. Return the JSON file, and that of the earlier distribution or None.
    """
    model = pool.space.model
    path, name = distribution_path(folder, model.name, kind), digest(pool)
    kept = None
    if path.exists():
        found = find_pool(folder, model.name, kind)
        if found is not None and found.digest == name and samples_path(path).exists():
            return path, None
        if found is not None and found.digest != name:
            kept = distribution_path(folder, model.name, kind, found.digest)
            for suffix in SUFFIXES:
                if path.with_suffix(suffix).exists():
                    path.with_suffix(suffix).replace(kept.with_suffix(suffix))
    _write_samples(samples_path(path), pool)
    parameters = {p.label: _describe(p, pool) for p in _estimated(model)}
    write_json(
        path,
        {
            "Description": f"Least-squares fits of healthy participants ({KINDS[kind]}), pooled: what estimators of "
            f"the model {model.name} are trained on. The table beside this file holds one voxel a row.",
            "participant_id": {"Description": "Whose voxel it is"},
            **parameters,
            "Healthy": healthy,
            "Distribution": pool.facts,
            "DistributionUnits": {p.name: p.unit for p in _estimated(model)},
            "Digest": name,
            "Sources": list(sources),
            "GeneratedBy": GENERATED_BY,
        },
    )
    return path, kept


def read_distribution(path: Path, model: SignalModel) -> tuple[str, Pooled]:
    """Read a distribution with its samples: its kind, one of `KINDS`, and the pool.

    Raises
    ------
    UnusableInputError
        If it cannot be read or contradicts its JSON file.
    """
    content = read_sidecar(path)
    try:
        facts = content["Distribution"]
        arrays = _read_samples(samples_path(path), model, facts["Participants"])
        found = distribution_from(facts, arrays, model)
        same = digest(found) == content["Digest"]
    except (KeyError, ValueError, TypeError, AttributeError, OSError, EOFError, zlib.error) as error:
        raise _refusal(path, f"{type(error).__name__}: {error}") from error
    if not same or not isinstance(found, Pooled):
        raise _refusal(path, f"{samples_path(path).name} is not the table that it was written with")
    return str(found.origin.get("Tissue", "healthy")), found


def _refusal(path: Path, reason: str) -> UnusableInputError:
    return UnusableInputError(
        f"The distribution {path} cannot be used: {reason}. Move it away, and make it again with the group level."
    )


def _estimated(model: SignalModel) -> list[Parameter]:
    """All parameters except the scale of the signal."""
    return [p for p in model.parameters if p.name != model.scale]


def _describe(parameter: Parameter, pool: Pooled) -> dict[str, Any]:
    """Description of a column of the table."""
    unit, factor = FILE_UNITS[parameter.unit]
    low, high = pool.space.facts[parameter.name]
    return {
        "Description": parameter.description,
        "Units": unit,
        "Minimum": float(f"{low * factor:.6g}"),
        "Maximum": float(f"{high * factor:.6g}"),
    }


def _write_samples(path: Path, pool: Pooled) -> None:
    """Write one voxel per row, in the units of files; equal pools give identical files."""
    parameters = _estimated(pool.space.model)
    factors = np.array([FILE_UNITS[p.unit].factor for p in parameters])
    row = "%s" + f"\t%.{DIGITS}g" * len(parameters) + "\n"
    packer = zlib.compressobj(6, wbits=31)  # the format of gzip, without a time
    with whole_file(path) as temporary, temporary.open("wb") as file:
        head = "\t".join(["participant_id", *(p.label for p in parameters)])
        file.write(packer.compress(f"{head}\n".encode()))
        for start in range(0, len(pool.samples), ROWS):
            names = [pool.participants[place] for place in pool.participant[start : start + ROWS].tolist()]
            columns = (pool.samples[start : start + ROWS].astype(np.float64) * factors).T.tolist()
            text = "".join(row % values for values in zip(names, *columns, strict=True))
            file.write(packer.compress(text.encode()))
        file.write(packer.flush())


def _read_samples(path: Path, model: SignalModel, participants: Sequence[str]) -> Mapping[str, NDArray]:
    """Arrays of a pool in internal units."""
    parameters = _estimated(model)
    most = most_unpacked(path.stat().st_size)
    with gzip.open(path) as stream:
        content = stream.read(most + 1)
    if len(content) > most:
        raise ValueError(f"{path.name} unpacks to more than {most:,} bytes, which a table of its size never does")
    text = content.decode()
    head, _, body = text.partition("\n")
    expected = ["participant_id", *(p.label for p in parameters)]
    if head.split("\t") != expected:
        raise ValueError(f"{path.name} has the columns {head!r}, not {' '.join(expected)}")
    places = {name: place for place, name in enumerate(participants)}
    values = np.loadtxt(
        io.StringIO(body), delimiter="\t", ndmin=2, converters={0: lambda name: places[name]}, comments=None
    )
    factors = np.array([FILE_UNITS[p.unit].factor for p in parameters])
    return {"samples": (values[:, 1:] / factors).astype(np.float32), "participant": values[:, 0].astype(np.int32)}
