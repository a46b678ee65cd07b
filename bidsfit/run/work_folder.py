"""The work folder: locking of participants, and removal of earlier work."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from socket import gethostname

from filelock import FileLock, Timeout

from bidsfit.files import write_json
from bidsfit.planning.plan import ImagePlan
from bidsfit.workflows.participant import image_part


@contextmanager
def held(folder: Path, participants: Iterable[str], run_uuid: str, command: str) -> Iterator[dict[str, str]]:
    """Lock participants, so that no other run works on them in the same folder.

    Every run has a file that names its participants, and a lock that ends with its process, so that killed runs hold
    nothing.

    Parameters
    ----------
    folder : Path
        Folder of the workflow within the work folder.
    run_uuid, command : str
        Identifier and command of this run; the command appears in messages of other runs.

    Yields
    ------
    dict
        Participants locked by other runs, with a text about that run; they must be skipped.
    """
    runs = folder / "runs"
    runs.mkdir(parents=True, exist_ok=True)
    mine = runs / f"{run_uuid}.json"
    lock = FileLock(mine.with_suffix(".lock"))
    wanted = list(participants)
    elsewhere: dict[str, str] = {}
    with FileLock(runs / ".lock"):
        for path in runs.glob("*.json"):
            try:
                with FileLock(path.with_suffix(".lock"), timeout=0):
                    path.unlink()  # its run has ended
                path.with_suffix(".lock").unlink()
            except Timeout:
                run = json.loads(path.read_text())
                words = f"process {run['process']} on {run['host']}, since {run['since']}: {run['command']}"
                elsewhere |= {label: words for label in wanted if label in run["participants"]}
        lock.acquire()
        content = {
            "participants": [label for label in wanted if label not in elsewhere],
            "host": gethostname(),
            "process": os.getpid(),
            "since": datetime.now().astimezone().strftime("%Y-%m-%d %H:%M:%S %Z"),
            "command": command,
        }
        write_json(mine, content)
    try:
        yield elsewhere
    finally:
        with FileLock(runs / ".lock"):
            mine.unlink()
            lock.release()
            Path(lock.lock_file).unlink(missing_ok=True)


def clean(folder: Path, images: Iterable[ImagePlan]) -> None:
    """Remove earlier work on some images."""
    for image in images:
        shutil.rmtree(folder.joinpath(*image_part(image).split(".")), ignore_errors=True)
