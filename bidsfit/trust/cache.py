"""Simulated performance of estimators, kept in the cache folder by a digest of everything that determines it."""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

from bidsfit import __version__
from bidsfit.acquisition import Acquisition
from bidsfit.estimators.estimator import Estimator
from bidsfit.exceptions import DiskFullError
from bidsfit.files import cache_folder, whole_file
from bidsfit.models.space import ParameterSpace
from bidsfit.noise import NoiseKind
from bidsfit.parallel import Progress
from bidsfit.trust.monte_carlo import performance_of, size_of, space_of
from bidsfit.trust.performance import Performance

#: How much is found out about the errors of an estimator: nothing by simulation; with few truths; with many.
Trust = Literal["off", "light", "full"]

#: Another number where what is stored, or how it is simulated, becomes another.
FORMAT = 4
#: Significant digits of the columns of a protocol: images whose b-values differ by less share a simulation.
DIGITS = 3


def cached_performance(
    estimator: Estimator,
    acquisition: Acquisition,
    trust: Trust,
    *,
    kind: NoiseKind = "rician",
    known: bool = True,
    threads: int = 1,
    progress: Progress | None = None,
) -> Performance:
    """The performance of an estimator: as stored with its training, from the cache, or simulated and kept there.

    Parameters
    ----------
    estimator : Estimator
    acquisition : Acquisition
        As it is averaged for the fit (`Estimator.averaged`); it is rounded to `DIGITS` significant digits.
    trust : {"light", "full"}
    kind, known, threads, progress
        As of `bidsfit.trust.monte_carlo.performance_of`.
    """
    stored: Performance | None = getattr(estimator, "performance", None)
    if stored is not None:
        return stored
    protocol, space = _rounded(acquisition), space_of(estimator)
    size = size_of(estimator, full=trust == "full")
    facts = {
        "Release": __version__,
        "Format": FORMAT,
        "Model": [estimator.model.name, estimator.model.latex, estimator.model.constants, space.facts],
        "Estimator": [estimator.name, estimator.options, getattr(estimator, "training_notes", {})],
        "Protocol": _facts(protocol),
        "Noise": [kind, known],
        "Size": size,
    }
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()[:32]
    path = cache_folder() / "performance" / f"{digest}.safetensors"
    if (kept := _kept(path, space)) is not None:
        return kept

    def simulated() -> Performance:
        return performance_of(
            estimator, protocol, kind=kind, known=known, size=size, threads=threads, progress=progress
        )

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path.with_suffix(".lock"))
        lock.acquire()
    except OSError:  # a cache that cannot be written is no obstacle
        return simulated()
    with lock:
        found = _kept(path, space) or simulated()  # another job may have made it meanwhile
        with suppress(OSError, DiskFullError), whole_file(path) as temporary:
            temporary.write_bytes(found.dump())
        return found


def _kept(path: Path, space: ParameterSpace) -> Performance | None:
    """What is kept in a file; None if it is not there, or damaged."""
    try:
        return Performance.load(path.read_bytes(), space)
    except (OSError, ValueError, KeyError):
        return None


def _rounded(acquisition: Acquisition) -> Acquisition:
    def to_digits(values: NDArray) -> NDArray[np.float64]:
        return np.array([float(f"{value:.{DIGITS}g}") for value in values])

    columns = {name: to_digits(values) for name, values in acquisition.columns.items() if name != "b"}
    return Acquisition(
        to_digits(acquisition.b_values) if "b" in acquisition.columns else None,
        None if acquisition.directions is None else np.round(acquisition.directions, DIGITS),
        np.maximum(np.rint(acquisition.weights), 1),
        acquisition.n_directions,
        acquisition.frame,
        None if acquisition.frames is None else _rounded(acquisition.frames),
        acquisition.basis,
        **columns,
    )


def _facts(acquisition: Acquisition) -> dict[str, Any]:
    """Content of an acquisition, for JSON."""
    arrays: dict[str, Any] = {**acquisition.columns, "counts": acquisition.weights}
    arrays |= {"directions": acquisition.directions, "n_directions": acquisition.n_directions}
    if acquisition.frames is not None:
        arrays |= {f"frames_{name}": values for name, values in acquisition.frames.columns.items()}
        arrays |= {"basis": np.round([acquisition.basis.real, acquisition.basis.imag], DIGITS)}
    return {name: np.asarray(array).tolist() for name, array in arrays.items() if array is not None}
