"""A folder of trained estimators, keyed by a digest of everything that determines them."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout

from bidsfit import __version__
from bidsfit.acquisition import protocol_in_words
from bidsfit.estimators.estimator import estimator_label
from bidsfit.exceptions import NoInputError, UnusableInputError
from bidsfit.files import read_text, whole_file, write_json
from bidsfit.parallel import Progress, part_of
from bidsfit.training.bundle import acquisition_from, check_bundle, read_facts, write_bundle
from bidsfit.training.protocol import differences, may_turn
from bidsfit.training.task import Task, fit, train
from bidsfit.training.trainer import State


def on_stderr(text: str) -> None:
    """Print a message next to a progress bar."""
    sys.stderr.write(text + "\n")


class Store:
    """Trained estimators in a folder that several jobs may share; the folder is created when needed."""

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)

    def path(self, task: Task, name: str) -> Path:
        """File of the estimator of a task; ``name``, such as "net-uniform", only makes the file easier to recognise."""
        return self.folder / f"{_words(task, name)}_{task.key}.zip"

    def _found(self, task: Task, name: str) -> Path | None:
        """File of a task, or of one whose directions are turned against those of the task; None without any."""
        path = self.path(task, name)
        if path.exists():
            return path
        others = sorted(self.folder.glob(f"{_words(task, name)}_*.zip")) if _may_turn(task) else []
        return next((other for other in others if not _differing(task, read_facts(other))), None)

    def obtain(
        self,
        task: Task,
        name: str,
        *,
        threads: int = 1,
        device: str = "cpu",
        may_train: bool = True,
        progress: Progress | None = None,
        say: Callable[[str], object] = on_stderr,
    ) -> Path:
        """File of the trained estimator of a task, which is trained if the file does not exist.

        One for directions that are turned together against those of the task, as those of heads that moved are, serves
        as well. If several jobs ask for it at once, one trains and the others wait. Where the training starts from the
        network of another, that is kept too, for all that start from it.

        Parameters
        ----------
        device : str
            As `bidsfit.training.task.train` takes it.
        may_train : bool
            Whether to train if the file does not exist.
        progress : callable, optional
            Called with the fraction that is done, by the job that trains.
        say : callable
            Called with a message if another job trains.

        Raises
        ------
        NoInputError
            If the file does not exist and may not be made.
        UnusableInputError
            If the existing file is damaged or belongs to another task; it is not replaced.
        """
        if (found := self._found(task, name)) is not None:
            _require(task, found)
            return found
        path = self.path(task, name)
        if not may_train:
            raise NoInputError(
                f"{path} does not exist, and --no-training was given: {name} would have to be trained for "
                f"{protocol_in_words(task.acquisition)} and an SNR of {task.noise.snr:g}. Run the same command with "
                "--train-only in place of --no-training first."
            )
        with self._alone(path.with_name(_words(task, name)) if _may_turn(task) else path, say):
            if (found := self._found(task, name)) is not None:  # made while this job waited
                return found
            start: Sequence[State] = ()
            if task.start is not None:
                before, progress = part_of(progress, 0, 0.5), part_of(progress, 0.5, 1)
                start = self._start(task.start, say, threads=threads, device=device, progress=before)
            write_bundle(path, train(task, start=start, threads=threads, device=device, progress=progress))
        return path

    def _start(self, task: Task, say: Callable[[str], object], **options: Any) -> tuple[State, ...]:
        """Where a training ended that others start from; it is done once for all of them."""
        from safetensors.torch import load, save

        path = self.folder / f"start_{task.key}.safetensors"
        with self._alone(path, say):
            if not path.exists():
                parts = enumerate(fit(task, **options).states)
                with whole_file(path) as temporary:
                    temporary.write_bytes(save({f"{i}/{name}": v for i, s in parts for name, v in s.arrays.items()}))
            states: dict[str, dict[str, Any]] = {}
            for name, value in load(path.read_bytes()).items():
                i, _, own = name.partition("/")
                states.setdefault(i, {})[own] = value
        return tuple(State.of(states[i]) for i in sorted(states, key=int))

    @contextmanager
    def _alone(self, path: Path, say: Callable[[str], object]) -> Iterator[None]:
        """While no other job makes this file."""
        self.folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.folder / f".{path.stem}.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            say(f"Another job trains {path.name}; waiting for it.")
            lock.acquire()
        try:
            yield
        finally:
            lock.release()

    def snr_path(self, participant: str, model: str, name: str) -> Path:
        """File of the SNRs of the images of a participant (with ``sub-``) that an estimator was trained for."""
        return self.folder / f"{participant}_model-{model}_desc-{estimator_label(name)}_snr.json"

    def write_snr(self, path: Path, snr: Mapping[str, float | None]) -> None:
        """Write the SNR of every image of a participant; None where it is not known."""
        self.folder.mkdir(parents=True, exist_ok=True)
        write_json(path, {"Description": "SNR of the images that share a training, by name", "SNR": dict(snr)})

    def read_snr(self, path: Path) -> dict[str, float | None]:
        """Read a file of `write_snr`; empty if it does not exist.

        Raises
        ------
        UnusableInputError
            If it is damaged.
        """
        if not path.exists():
            return {}
        try:
            found: dict[str, Any] = json.loads(read_text(path))["SNR"]
            return {str(name): None if value is None else float(value) for name, value in found.items()}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UnusableInputError(f"{path} is damaged. Delete it, and run --train-only again.") from error


def _words(task: Task, name: str) -> str:
    """Begin of the name of the file of a task."""
    snr = "inf" if np.isinf(task.noise.snr) else f"{task.noise.snr:g}".replace(".", "p")
    return f"model-{task.distribution.space.model.name}_desc-{estimator_label(name)}_snr-{snr}"


def _may_turn(task: Task) -> bool:
    return may_turn(task.distribution.space.model, task.recipe.architecture.reach)


def _differing(task: Task, found: Mapping[str, Any]) -> list[str]:
    """Facts of a file that are not those of a task."""
    wanted = json.loads(json.dumps(task.facts))
    other = [key for key, value in wanted.items() if found.get(key) != value]
    if other == ["Acquisition"] and _may_turn(task) and found["Software"].get("bidsfit") == __version__:
        taught = acquisition_from(found["Acquisition"])
        return differences(task.acquisition, taught, noisy_lowest=task.noise.lowest, turns=True)
    return other


def _require(task: Task, path: Path) -> None:
    """Raise `UnusableInputError` if a file is damaged or belongs to another task."""
    if other := _differing(task, check_bundle(path)):
        raise UnusableInputError(
            f"{path} holds another estimator than its name says: {', '.join(other)} differ. Move it away, and the run "
            "trains it again."
        )
