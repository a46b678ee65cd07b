"""The file of a trained estimator: weights or trees, and in plain JSON and CSV beside them all that judges it.

One zip file of a few members, none of which is executed when it is read. ``estimator.json`` says what it is (model,
protocol, distribution, noise, recipe, seed, versions) and holds the SHA-256 of every member and of itself: a file that
was damaged or changed is refused. (It is a checksum, not a signature: take files from people you trust.)
"""

from __future__ import annotations

import csv
import hashlib
import io
import itertools
import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bidsfit.acquisition import Acquisition
from bidsfit.bids.files import whole_file
from bidsfit.exceptions import UnusableInputError
from bidsfit.models.signal_model import SignalModel
from bidsfit.training.distributions import Distribution, distribution_from
from bidsfit.training.simulation import Features

FORMAT = "bidsfit trained estimator"
VERSION = 1

FACTS = "estimator.json"
NETWORK, FOREST = "weights.safetensors", "forest.skops"
SAMPLES, PERFORMANCE, CURVE = "distribution.safetensors", "performance.csv", "learning_curve.csv"

#: What a forest is made of beside what skops trusts anyway.
TRUSTED = ["sklearn.tree._tree.Tree"]

#: A row of a table, by the names of its columns.
Table = dict[str, NDArray[np.float64]]


@dataclass(frozen=True)
class Bundle:
    """A trained estimator, whole.

    Attributes
    ----------
    facts : dict
        What it is, for JSON: see `bidsfit.training.task.train`.
    machine : list of (weight, bias), or RandomForestRegressor
        None where only what judges it was read.
    samples : dict of name to ndarray
        `Distribution.arrays` of what it was trained on.
    performance : dict of column to ndarray, shape (n_points,)
        `bidsfit.evaluation.performance_table`.
    curve : dict of column to ndarray, shape (n_checks,)
        Its learning curve.
    path : Path, optional
        Where it was read from.
    """

    facts: dict[str, Any]
    machine: Any
    samples: Mapping[str, NDArray] = field(default_factory=dict)
    performance: Table = field(default_factory=dict)
    curve: Table = field(default_factory=dict)
    path: Path | None = None

    @cached_property
    def acquisition(self) -> Acquisition:
        """The averages that it was trained for."""
        return _acquisition(self.facts["Acquisition"])

    def distribution(self, model: SignalModel) -> Distribution:
        """What it was trained on."""
        return distribution_from(self.facts["Distribution"], self.samples, model)


def acquisition_facts(acquisition: Acquisition) -> dict[str, Any]:
    """An acquisition of averages, for JSON."""
    directions = acquisition.n_directions
    facts: dict[str, Any] = {
        "BValues": [round(float(b), 3) for b in acquisition.b_values],
        "Measurements": acquisition.weights.astype(int).tolist(),
        "Directions": np.ones(len(acquisition), dtype=int).tolist() if directions is None else directions.tolist(),
    }
    if acquisition.echo_times is not None:
        facts["EchoTimes"] = [round(float(t), 3) for t in acquisition.echo_times]
    return facts


def _acquisition(facts: Mapping[str, Any]) -> Acquisition:
    """The acquisition that `acquisition_facts` describes."""
    return Acquisition(
        facts["BValues"],
        counts=facts["Measurements"],
        n_directions=facts["Directions"],
        echo_times=facts.get("EchoTimes"),
    )


def write_bundle(path: Path, bundle: Bundle) -> None:
    """Write a trained estimator, whole or not at all."""
    from safetensors.numpy import save
    from skops import io as skops

    members: dict[str, bytes] = {}
    if isinstance(bundle.machine, list):
        arrays = {
            f"{i}.{name}": np.ascontiguousarray(array)
            for i, layer in enumerate(bundle.machine)
            for name, array in zip(("weight", "bias"), layer, strict=True)
        }
        members[NETWORK] = save(arrays)
    else:
        members[FOREST] = skops.dumps(bundle.machine, compression=zipfile.ZIP_DEFLATED, compresslevel=6)
    if bundle.samples:
        members[SAMPLES] = save({name: np.ascontiguousarray(array) for name, array in bundle.samples.items()})
    members[PERFORMANCE], members[CURVE] = _csv(bundle.performance), _csv(bundle.curve)
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
            method = zipfile.ZIP_STORED if name in (FOREST, NETWORK) else zipfile.ZIP_DEFLATED
            archive.writestr(name, content, compress_type=method)


def read_facts(path: Path) -> dict[str, Any]:
    """What a trained estimator is, without its weights; checked against its own checksum only."""
    return _read(path, names=())[0]


def check_bundle(path: Path) -> dict[str, Any]:
    """What a trained estimator is, after every member of its file was checked; nothing but JSON is parsed."""
    return _read(path)[0]


def read_bundle(path: Path, *, machine: bool = True) -> Bundle:
    """Read a trained estimator.

    Parameters
    ----------
    path : Path
    machine : bool
        False: only what judges it, without its weights or trees.

    Raises
    ------
    UnusableInputError
        Where the file is not there, is damaged, was changed, or is something else; nothing in it is ever executed.
    """
    facts, members = _read(path)
    try:
        found = None
        if len(Features(_acquisition(facts["Acquisition"]))) != facts["Features"]:
            raise ValueError("its protocol gives another number of signals than it takes")
        if machine:
            network = facts["Kind"] == "network"
            found = _network(members[NETWORK], facts) if network else _forest(members[FOREST], facts)
        return Bundle(
            facts=facts,
            machine=found,
            samples=_arrays(members[SAMPLES]) if SAMPLES in members else {},
            performance=_table(members[PERFORMANCE]),
            curve=_table(members[CURVE]),
            path=path,
        )
    except UnusableInputError:
        raise
    except Exception as error:  # whatever a parser raises on content that it did not expect
        raise _refusal(path, f"its content cannot be read ({type(error).__name__}: {error})") from error


def _read(path: Path, names: tuple[str, ...] | None = None) -> tuple[dict[str, Any], dict[str, bytes]]:
    """The facts of a file, and its members (or those named), checked."""
    if not path.is_file():
        raise UnusableInputError(f"The trained estimator {path} does not exist.")
    try:
        with zipfile.ZipFile(path) as archive:
            facts = json.loads(archive.read(FACTS))
            if not isinstance(facts, dict) or facts.get("Format") != FORMAT or not isinstance(facts["Files"], dict):
                raise KeyError("Format")
            wanted = facts["Files"] if names is None else names
            members = {name: archive.read(name) for name in wanted}
            listed = set(archive.namelist())
    except Exception as error:  # a damaged archive has many ways to fail: in its directory, in what it unpacks
        raise _refusal(path, f"it is damaged, or no file of that kind ({type(error).__name__}: {error})") from error
    if facts.get("Version") != VERSION:
        raise _refusal(path, f"its format has version {facts.get('Version')}, and this release reads {VERSION}")
    if facts.get("Checksum") != _checksum(facts) or listed != {FACTS, *facts["Files"]}:
        raise _refusal(path, f"its {FACTS} was changed after it was written")
    for name, content in members.items():
        if _sha256(content) != facts["Files"][name]:
            raise _refusal(path, f"its {name} was changed after it was written")
    return facts, members


def _refusal(path: Path, reason: str) -> UnusableInputError:
    return UnusableInputError(
        f"{path} cannot be used as a trained estimator: {reason}. Get it again, or train it again "
        "(bidsfit-lab train; remove a file of the run's own store, and the run trains it again)."
    )


def _network(content: bytes, facts: Mapping[str, Any]) -> list[tuple[NDArray[np.float32], NDArray[np.float32]]]:
    arrays = _arrays(content)
    layers = [(arrays[f"{i}.weight"], arrays[f"{i}.bias"]) for i in range(len(arrays) // 2)]
    shapes = [weight.shape for weight, _ in layers]
    chained = all(before[1] == after[0] for before, after in itertools.pairwise(shapes))
    if not chained or shapes[-1][1] != len(facts["Parameters"]) or shapes[0][0] != facts["Features"]:
        raise ValueError(f"layers of shapes {shapes} are no network of this estimator")
    return layers


def _forest(content: bytes, facts: Mapping[str, Any]) -> Any:
    """A forest; every tree is walked through in advance, because a wrong index would read foreign memory."""
    from sklearn.ensemble import RandomForestRegressor
    from skops import io as skops

    unknown = sorted(set(skops.get_untrusted_types(data=content)) - set(TRUSTED))
    if unknown:
        raise ValueError(f"it holds objects of types that no forest has: {', '.join(unknown)}")
    forest = skops.loads(content, trusted=TRUSTED)
    inputs, outputs = facts["Features"], len(facts["Parameters"])
    if not isinstance(forest, RandomForestRegressor) or not forest.estimators_:
        raise ValueError("it holds no forest of this estimator")
    trees = [found.tree_ for found in forest.estimators_]
    if any(found.n_features_in_ != inputs or found.n_outputs_ != outputs for found in (forest, *forest.estimators_)):
        raise ValueError("it holds no forest of this estimator")
    for tree in trees:
        if tree.n_features != inputs or tree.n_outputs != outputs or not 0 < tree.node_count <= tree.capacity:
            raise ValueError("it holds a tree that is none of this estimator")
        left, right, nodes = tree.children_left, tree.children_right, np.arange(tree.node_count)
        inner = left != -1
        ordered = all(
            np.all((side[inner] > nodes[inner]) & (side[inner] < tree.node_count)) and np.all(side[~inner] == -1)
            for side in (left, right)
        )
        if not ordered or np.any((tree.feature[inner] < 0) | (tree.feature[inner] >= inputs)):
            raise ValueError("it holds a tree whose branches lead nowhere")
    return forest


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
    names, *rows = csv.reader(io.StringIO(content.decode()))
    values = np.array(rows, dtype=float).reshape(len(rows), len(names))
    return dict(zip(names, values.T, strict=True))


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _checksum(facts: Mapping[str, Any]) -> str:
    """SHA-256 of all facts but this."""
    rest = {name: value for name, value in facts.items() if name != "Checksum"}
    return _sha256(json.dumps(rest, sort_keys=True, ensure_ascii=False).encode())
