"""Files of trained estimators: the machine, and JSON and CSV that describe how it was trained and how it performs.

A zip file whose members are never executed when read. ``estimator.json`` describes the training (model, protocol,
distribution, noise, recipe, seed, versions) and holds the SHA-256 of every member and of itself, so that damaged or
changed files are refused. This is a checksum, not a signature: take files from people you trust.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import zipfile
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bidsfit import models
from bidsfit.acquisition import Acquisition
from bidsfit.exceptions import NoInputError, UnusableInputError, UsageError
from bidsfit.files import whole_file
from bidsfit.models.signal_model import SignalModel
from bidsfit.simulation.distributions import Distribution, distribution_from
from bidsfit.simulation.simulator import Features
from bidsfit.training.archive import opened, read
from bidsfit.training.facts import require_facts
from bidsfit.training.recipe import Recipe, recipe_facts, recipe_from
from bidsfit.trust.domain import Domain
from bidsfit.trust.performance import Performance

FORMAT = "bidsfit trained estimator"
#: Version 1 has recipes without sections; versions 1 and 2 a table of performance at one SNR, and version 3 one without
#: the share of biased truths, which are not read: the performance is simulated anew.
VERSION, READ = 4, (1, 2, 3, 4)

FACTS = "estimator.json"
SAMPLES, CURVE = "distribution.safetensors", "learning_curve.csv"
PERFORMANCE, DOMAIN, OLD_PERFORMANCE = "performance.safetensors", "domain.safetensors", "performance.csv"

#: A row of a table, by the names of its columns.
Table = dict[str, NDArray[np.float64]]


@dataclass(frozen=True)
class Bundle:
    """Content of the file of a trained estimator.

    Attributes
    ----------
    facts : dict
        Description of the training, for JSON: see `bidsfit.training.task.train`.
    machine : dict of name to ndarray, or what else the architecture makes
        Weights or trees; None if they were not read.
    samples : dict of name to ndarray
        `Distribution.arrays` of the training distribution.
    performance : Performance, optional
        None in files of earlier versions.
    domain : Domain, optional
        Signals of the training; None in files of earlier versions.
    curve : dict of column to ndarray, shape (n_checks,)
        Learning curve.
    path : Path, optional
        File that it was read from.
    """

    facts: dict[str, Any]
    machine: Any
    samples: Mapping[str, NDArray] = field(default_factory=dict)
    performance: Performance | None = None
    domain: Domain | None = None
    curve: Table = field(default_factory=dict)
    path: Path | None = None

    @cached_property
    def acquisition(self) -> Acquisition:
        """The averaged acquisition of the training."""
        return acquisition_from(self.facts["Acquisition"])

    @cached_property
    def recipe(self) -> Recipe:
        """The recipe of the training."""
        return recipe_from(self.facts["Recipe"], "its recipe")

    def distribution(self, model: SignalModel) -> Distribution:
        """The distribution of the training."""
        return distribution_from(self.facts["Distribution"], self.samples, model)


def acquisition_facts(acquisition: Acquisition, variables: Collection[str]) -> dict[str, Any]:
    """The columns of an averaged acquisition that a model of these variables sees, for JSON."""
    directions = acquisition.n_directions
    facts: dict[str, Any] = {
        "BValues": [round(float(b), 3) for b in acquisition.b_values],
        "Measurements": np.rint(acquisition.weights).astype(int).tolist(),
        "Directions": np.ones(len(acquisition), dtype=int).tolist() if directions is None else directions.tolist(),
    }
    if "TE" in acquisition.columns:
        facts["EchoTimes"] = [round(float(t), 3) for t in acquisition.columns["TE"]]
    others = acquisition.columns.keys() & set(variables) - {"b", "TE"}
    if others:
        facts["Columns"] = {name: [round(float(v), 6) for v in acquisition.columns[name]] for name in sorted(others)}
    if "direction" in variables and acquisition.directions is not None:
        facts["Vectors"] = np.round(acquisition.directions, 6).tolist()
    if acquisition.frames is not None:
        facts["Frames"] = acquisition_facts(acquisition.frames, variables)
        facts["Basis"] = [acquisition.basis.real.round(8).tolist(), acquisition.basis.imag.round(8).tolist()]
    return facts


def acquisition_from(facts: Mapping[str, Any]) -> Acquisition:
    """The acquisition that `acquisition_facts` describes."""
    frames = acquisition_from(facts["Frames"]) if "Frames" in facts else None
    return Acquisition(
        facts["BValues"],
        frames=frames,
        basis=None if frames is None else np.asarray(facts["Basis"][0]) + 1j * np.asarray(facts["Basis"][1]),
        counts=facts["Measurements"],
        n_directions=None if "Vectors" in facts else facts["Directions"],
        directions=facts.get("Vectors"),
        TE=facts.get("EchoTimes"),
        **facts.get("Columns", {}),
    )


def write_bundle(path: Path, bundle: Bundle) -> None:
    """Write a trained estimator, whole or not at all."""
    from safetensors.numpy import save

    architecture = bundle.recipe.architecture
    members = {architecture.member: architecture.dump(bundle.machine)}
    if bundle.samples:
        members[SAMPLES] = save({name: np.ascontiguousarray(array) for name, array in bundle.samples.items()})
    if bundle.performance is None or bundle.domain is None:
        raise ValueError("A trained estimator is written with its performance and its domain; it has none.")
    members |= {PERFORMANCE: bundle.performance.dump(), CURVE: _csv(bundle.curve)}
    members[DOMAIN] = save({name: np.ascontiguousarray(array) for name, array in bundle.domain.arrays.items()})
    facts = {
        "Format": FORMAT,
        "Version": VERSION,
        **bundle.facts,
        "Files": {name: _sha256(content) for name, content in members.items()},
    }
    facts["Checksum"] = _checksum(facts)
    with whole_file(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        archive.writestr(FACTS, json.dumps(facts, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
        for name, content in members.items():
            method = zipfile.ZIP_STORED if name == architecture.member else zipfile.ZIP_DEFLATED
            archive.writestr(name, content, compress_type=method)


def read_facts(path: Path) -> dict[str, Any]:
    """Description of a trained estimator without its machine; only its own checksum is verified."""
    return _read(path, names=())[0]


def check_bundle(path: Path) -> dict[str, Any]:
    """Description of a trained estimator after all members were verified; only JSON is parsed."""
    return _read(path)[0]


def read_bundle(path: Path, *, machine: bool = True) -> Bundle:
    """Read a trained estimator.

    Parameters
    ----------
    path : Path
    machine : bool
        Whether to read its weights or trees.

    Raises
    ------
    UnusableInputError
        If the file is missing, damaged, changed or of another kind; nothing in it is executed.
    """
    facts, members = _read(path)
    try:
        model = models.get(facts["Model"])
        samples = _arrays(members[SAMPLES]) if SAMPLES in members else {}
        distribution = distribution_from(facts["Distribution"], samples, model)
        if {name: array.shape for name, array in distribution.arrays.items()} != {
            name: array.shape for name, array in samples.items()
        }:
            raise ValueError(f"{SAMPLES} holds other arrays than its distribution, or samples outside the bounds")
        space = distribution.space
        if list(space.names) != facts["Parameters"]:
            raise ValueError(f"the model {model.name!r} has the parameters {', '.join(space.names)}")
        recipe, acquisition = recipe_from(facts["Recipe"], "its recipe"), acquisition_from(facts["Acquisition"])
        if len(Features(model, acquisition, recipe.simulation.unit)) != facts["Features"]:
            raise ValueError("its protocol gives another number of signals than it takes")
        architecture, outputs = recipe.architecture, recipe.objective.n_outputs(space)
        curve = _table(members[CURVE])
        n_seen = len(Features(model, acquisition))
        performance = Performance.load(members[PERFORMANCE], space) if facts["Version"] == VERSION else None
        if performance is None and any(architecture.reach):
            raise ValueError("the errors of estimators that read neighbours are simulated with the training alone")
        domain = Domain.of_arrays(_arrays(members[DOMAIN]), n_seen) if DOMAIN in members else None
        if set(curve) != {architecture.unit, "training", "validation"}:
            raise ValueError(f"{CURVE} has the columns {', '.join(curve)}")
        inputs = facts["Features"] + any(architecture.reach)  # a channel says which voxels are there
        found = architecture.load(members[architecture.member], inputs, outputs) if machine else None
        return Bundle(facts, found, samples, performance, domain, curve, path)
    except Exception as error:  # whatever a parser raises on content that it did not expect
        raise _refusal(path, f"its content cannot be read ({_in_words(error)})") from error


def _read(path: Path, names: tuple[str, ...] | None = None) -> tuple[dict[str, Any], dict[str, bytes]]:
    """Facts of a file and its members (or those named), verified."""
    if not path.is_file():
        raise NoInputError(f"The trained estimator {path} does not exist.")
    try:
        with path.open("rb") as stream, opened(stream) as archive:
            listed = set(archive.namelist())
            facts = json.loads(read(archive, FACTS))
        if not isinstance(facts, dict) or facts.get("Format") != FORMAT:
            raise KeyError("Format")
    except Exception as error:  # a damaged archive has many ways to fail: in its directory, in what it unpacks
        raise _refusal(path, f"it is damaged, or no file of that kind ({_in_words(error)})") from error
    if facts.get("Version") not in READ:
        found = f"{facts.get('Version')!r:.20}"
        raise _refusal(path, f"its format has version {found}, and this release reads {', '.join(map(str, READ))}")
    try:
        require_facts(facts)
        for part in (facts["Recipe"], facts["Recipe"].get("start", {})):
            if not isinstance(part, Mapping) or "base" in part:  # whoever wrote it could have other files read
                raise ValueError("its recipe leads to other recipes, and a file must hold all of it")
        recipe = recipe_from(facts["Recipe"], "its recipe")
        if recipe.kind != facts["Kind"]:
            raise ValueError("its recipe is of another kind")
    except (ValueError, UsageError) as error:
        raise _refusal(path, f"its {FACTS} is not that of a trained estimator ({error})") from error
    judged = {PERFORMANCE, DOMAIN} if facts["Version"] > 2 else {OLD_PERFORMANCE}
    files, needed = set(facts["Files"]), {recipe.architecture.member, CURVE, *judged}
    if facts["Checksum"] != _checksum(facts) or listed != {FACTS, *files} or files - {SAMPLES} != needed:
        raise _refusal(path, f"its {FACTS} was changed after it was written")
    try:
        with path.open("rb") as stream, opened(stream) as archive:
            members = {name: read(archive, name) for name in (files if names is None else names)}
    except Exception as error:
        raise _refusal(path, f"it is damaged ({_in_words(error)})") from error
    for name, member in members.items():
        if _sha256(member) != facts["Files"][name]:
            raise _refusal(path, f"its {name} was changed after it was written")
    return facts | {"Recipe": recipe_facts(recipe)}, members


def _in_words(error: Exception) -> str:
    """The message of a parser error as one line of limited length."""
    text = " ".join(str(error).split())
    text = text if len(text) < 300 else text[:300] + "..."
    return text if type(error) is ValueError else f"{type(error).__name__}: {text}"


def _refusal(path: Path, reason: str) -> UnusableInputError:
    return UnusableInputError(
        f"{path} cannot be used as a trained estimator: {reason}. Get it again, or train it again "
        "(bidsfit-lab train; remove a file of the run's own store, and the run trains it again)."
    )


def _arrays(content: bytes) -> dict[str, NDArray]:
    from safetensors.numpy import load

    found: dict[str, NDArray] = load(content)
    return found


def _csv(table: Table) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(table)
    writer.writerows(zip(*([f"{v:.7g}" for v in column] for column in table.values()), strict=True))
    return text.getvalue().encode()


def _table(content: bytes) -> Table:
    head, *rows = content.decode().splitlines()
    names = head.split(",")
    values = np.loadtxt(rows, delimiter=",", ndmin=2, comments=None)
    return dict(zip(names, values.T, strict=True))


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _checksum(facts: Mapping[str, Any]) -> str:
    """SHA-256 of all facts except the checksum itself."""
    rest = {name: value for name, value in facts.items() if name != "Checksum"}
    return _sha256(json.dumps(rest, sort_keys=True, ensure_ascii=False).encode())
