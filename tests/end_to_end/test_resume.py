"""A run that is started again does what is missing or out of date, and nothing else."""

import json
import os
import signal
import subprocess
import time
from contextlib import suppress

import psutil
import pytest


@pytest.fixture
def words(phantom, tmp_path):
    """A run over both participants of the phantom."""
    truth = phantom / "derivatives" / "truth"
    return [
        phantom,
        tmp_path / "out",
        "participant",
        "--preprocess",
        "none",
        "-d",
        f"truth={truth}",
        "--skip-bids-validation",
    ]


def results(folder):
    """When each step was last done, by step."""
    return {path.parent: path.stat().st_mtime_ns for path in (folder / "work").rglob("result_*.pklz")}


def written(folder):
    return {p: p.stat().st_mtime_ns for p in folder.rglob("*") if p.is_file() and "work" not in p.parts}


def test_an_identical_run_does_nothing_again(app, words, tmp_path):
    out = tmp_path / "out"
    one = [*words, "--participant-label", "01", "--model", "adc", "--nprocs", 1]
    assert app(*one).code == 0
    steps, files = results(out), written(out)
    assert len(steps) == 5  # leave_out, prepare, assess, plot_image, fit
    assert app(*one).code == 0
    assert results(out) == steps
    again = written(out)
    new = {path.relative_to(out).as_posix() for path in again if again[path] != files.get(path)}
    assert {name for name in new if "/log/" not in name} == {"sub-01.html"}  # it tells of the run


@pytest.fixture(scope="module")
def done(phantom, tmp_path_factory):
    """A run that found its mask itself, and its words."""
    from bidsfit.cli.app import main

    out = tmp_path_factory.mktemp("done") / "out"
    words = [
        phantom,
        out,
        "participant",
        "--preprocess",
        "none",
        "--skip-bids-validation",
        "--participant-label",
        "01",
        "--model",
        "adc",
    ]
    words = [str(word) for word in words] + ["--nprocs", "1"]
    assert main(words) == 0
    return out, words


@pytest.mark.parametrize(
    ("gone", "step"),
    [
        ("sub-01/dwi/sub-01_model-adc_param-adc_desc-lsq_dwimap.nii.gz", "fit"),
        ("sub-01/figures/sub-01_model-adc_desc-lsqmaps_dwi.png", "fit"),
        ("sub-01/figures/sub-01_model-adc_desc-lsq_record.json", "fit"),
        ("sub-01/figures/sub-01_desc-shells_dwi.png", "plot_image"),
        ("sub-01/dwi/sub-01_desc-brain_mask.nii.gz", "write_mask"),
    ],
)
def test_what_was_deleted_is_written_again(app, done, gone, step, monkeypatch):
    """By its own step; nothing is fitted."""
    monkeypatch.setattr("bidsfit.interfaces.fit.fit", None)
    out, words = done
    before, steps = (out / gone).read_bytes(), results(out)
    (out / gone).unlink()
    assert app(*words).code == 0
    assert (out / gone).read_bytes() == before
    again = results(out)
    assert {path.name for path in again if again[path] != steps[path]} == {step}


def wait_for(process, log, text):
    """Wait until the log of a process holds a text."""
    deadline = time.monotonic() + 200
    while text not in log.read_text():
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize(
    "moment",
    [
        pytest.param('Executing "prepare"', marks=pytest.mark.slow),
        'Executing "fit"',
        pytest.param('Finished "fit"', marks=pytest.mark.slow),
    ],
)
def test_a_killed_run_finishes_with_the_same_maps(app, command, words, finished, outputs, tmp_path, moment):
    """Killed in two processes, finished in one; compared with a run in one process that nobody disturbed."""
    log = tmp_path / "log.txt"
    with log.open("w") as file:
        process = command(*words, "--nprocs", 2, "-v", stdout=file, stderr=subprocess.STDOUT)
    wait_for(process, log, moment)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert app(*words, "--nprocs", 1).code == 0
    out = outputs(tmp_path / "out")
    assert out.maps() == outputs(finished[1]).maps()
    assert [name for name in set(out.files()) if "/." in name] == []  # no temporary file
    assert {name.split("/")[-1] for name in out.files()} == {
        name.split("/")[-1] for name in outputs(finished[1]).files()
    }


def test_processes_threads_and_memory_do_not_shape_the_maps(app, words, finished, outputs, tmp_path):
    """Several processes give what one gives; with other resources nothing is fitted again."""
    out = tmp_path / "out"
    assert app(*words, "--nprocs", 2, "--omp-nthreads", 2).code == 0
    assert outputs(out).maps() == outputs(finished[1]).maps()
    before = results(out)
    assert app(*words, "--nprocs", 1, "--low-mem").code == 0
    assert results(out) == before


def test_leftovers_of_a_killed_run_are_removed(app, words, tmp_path):
    from socket import gethostname

    dead = subprocess.Popen(["true"])
    dead.wait()
    left = tmp_path / "out/sub-01/dwi" / f".{gethostname()}.{dead.pid}.sub-01_model-adc_param-D_desc-lsq_dwimap.nii.gz"
    left.parent.mkdir(parents=True)
    left.touch()
    assert app(*words, "--participant-label", "01", "--model", "adc", "--nprocs", 1).code == 0
    assert not left.exists()


@pytest.mark.parametrize(
    ("nprocs", "number", "code"),
    [
        (1, signal.SIGTERM, 143),
        (2, signal.SIGINT, 130),
        (2, signal.SIGKILL, -9),
        pytest.param(1, signal.SIGINT, 130, marks=pytest.mark.slow),
        pytest.param(2, signal.SIGTERM, 143, marks=pytest.mark.slow),
    ],
)
def test_a_stopped_run_ends_at_once_with_its_workers(command, words, tmp_path, nprocs, number, code):
    """A signal to the main process alone, as a scheduler may send it, in the middle of a long fit."""
    log = tmp_path / "log.txt"
    slow = ("--estimators", "bayes", "--model", "ivim", "--nprocs", nprocs, "-v")
    with log.open("w") as file:
        listening = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)}  # as in the foreground
        process = command(*words, *slow, stdout=file, stderr=subprocess.STDOUT, **listening)
    try:
        wait_for(process, log, 'Executing "fit"')
        process.send_signal(number)
        assert process.wait(10) == code  # some hundredths of a second on a quiet machine
        assert ("resumes" in log.read_text()) == (number != signal.SIGKILL)
        assert "failed" not in log.read_text()
        deadline = time.monotonic() + 10
        while is_alive(process.pid):
            assert time.monotonic() < deadline, "a worker outlived the run"
            time.sleep(0.1)
    finally:
        if is_alive(process.pid):
            os.killpg(process.pid, signal.SIGKILL)


def is_alive(group):
    """Whether a process of a group still runs."""
    for process in psutil.process_iter(["status"]):
        with suppress(ProcessLookupError):
            if os.getpgid(process.pid) == group and process.info["status"] != psutil.STATUS_ZOMBIE:
                return True
    return False


def test_records_are_whole(finished):
    for path in finished[1].rglob("*_record.json"):
        assert json.loads(path.read_text())["record"] in ("ImageRecord", "PreprocessingRecord", "FitRecord")
