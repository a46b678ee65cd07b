"""Unfinished files of an analysis: those of killed runs are removed, those of running ones are not."""

import multiprocessing
import time
from pathlib import Path

from bidsfit.run.publishing import staged


def begin(folder, said):
    """Begin an analysis, and wait to be killed."""
    with staged(folder) as stage:
        (stage / "group_rois.tsv").write_text("half of i")
        said.send(stage)
        time.sleep(60)


def test_what_a_killed_run_left_is_removed_and_what_a_running_one_has_is_not(tmp_path: Path) -> None:
    (tmp_path / "group.html").write_text("of an earlier run")
    processes = multiprocessing.get_context("fork")
    heard, said = processes.Pipe()
    runs = [processes.Process(target=begin, args=(tmp_path, said)) for _ in range(2)]
    stages = []
    try:
        for run in runs:
            run.start()
            stages.append(heard.recv())
        runs[0].kill()
        runs[0].join()
        assert stages[0].is_dir()
        with staged(tmp_path) as stage:
            assert stage.is_dir()
            assert not stages[0].exists()
            assert (stages[1] / "group_rois.tsv").exists()
    finally:
        for run in runs:
            run.kill()
            run.join()
    with staged(tmp_path):
        assert not stages[1].exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == [".bidsfit.lock", "group.html"]
