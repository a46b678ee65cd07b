"""A folder of trained estimators, each found again by all that decides what it is."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from filelock import FileLock, Timeout

from bidsfit.estimators.estimator import estimator_label
from bidsfit.exceptions import UnusableInputError
from bidsfit.training.bundle import check_bundle, write_bundle
from bidsfit.training.task import Task, train
from bidsfit.training.trainer import Progress


def on_stderr(text: str) -> None:
    """Say something beside a progress bar."""
    sys.stderr.write(text + "\n")


class Store:
    """Trained estimators in a folder, which any number of jobs may share.

    Parameters
    ----------
    folder : Path
        Made where it is needed.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)

    def path(self, task: Task, name: str) -> Path:
        """Where the estimator of a task is kept.

        Parameters
        ----------
        name : str
            Of the estimator, such as "net-uniform"; it only makes the file easier to recognise.
        """
        snr = "inf" if np.isinf(task.noise.snr) else f"{task.noise.snr:g}".replace(".", "p")
        words = [f"model-{task.distribution.space.model.name}", f"desc-{estimator_label(name)}", f"snr-{snr}", task.key]
        return self.folder / ("_".join(words) + ".zip")

    def obtain(
        self,
        task: Task,
        name: str,
        *,
        threads: int = 1,
        device: str = "cpu",
        progress: Progress | None = None,
        say: Callable[[str], object] = on_stderr,
    ) -> Path:
        """The file of the trained estimator of a task; it is trained where it is not there.

        Of many jobs that ask for it at once, one trains and the others wait.

        Parameters
        ----------
        name : str
            Of the estimator.
        device : str
            As `bidsfit.training.task.train` takes it.
        progress : callable, optional
            Called with the steps that are done and their number, by the job that trains.
        say : callable
            Told that another job trains.

        Raises
        ------
        UnusableInputError
            Where the file that is there is damaged, or holds something else than its name says: it is not replaced.
        """
        path = self.path(task, name)
        self.folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.folder / f".{path.stem}.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            say(f"Another job trains {path.name}; waiting for it.")
            lock.acquire()
        try:
            if path.exists():
                _require(task, path)
            else:
                write_bundle(path, train(task, threads=threads, device=device, progress=progress))
        finally:
            lock.release()
        return path


def _require(task: Task, path: Path) -> None:
    """Refuse a file that is damaged, or that another task made."""
    found = check_bundle(path)
    wanted = json.loads(json.dumps(task.facts))
    other = [key for key, value in wanted.items() if found.get(key) != value]
    if other:
        raise UnusableInputError(
            f"{path} holds another estimator than its name says: {', '.join(other)} differ. Move it away, and the run "
            "trains it again."
        )
