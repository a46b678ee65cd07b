"""A run that is started again does what is missing or out of date, and nothing else."""

import json
import os
import shutil
import signal
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import numpy as np
import psutil
import pytest

from bidsfit.cli.lab import main as lab


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


#: How often jobs are killed, and the seed of the moments.
KILLS, KILLS_SEED = 50, 20

RECIPE = "kind: network\nsteps: 60\nbatch: 256\nunits: 16\nvalidation: 2048\nchecks: 10\n"


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_a_killed_array_gives_what_an_undisturbed_one_gives(command, outputs, tmp_path):
    """Two jobs side by side in one folder, with preprocessing and a training that they share, at random moments."""
    size = ("--shape", "16", "16", "4", "--participants", "2", "--patients", "0", "--raw")
    assert lab(["phantom", str(tmp_path / "ds"), "--model", "ivim", *size]) == 0
    (tmp_path / "tiny.yml").write_text(RECIPE)
    (tmp_path / "here").mkdir()
    out, work, log = (tmp_path / "here" / name for name in ("out", "work", "log.txt"))
    words = [tmp_path / "ds", out, "participant", "-w", work, "--skip-bids-validation", "--model", "adc"]
    words += ["--estimators", "lsq", "net-uniform", "--training-recipe", tmp_path / "tiny.yml", "--training-snr", 20]
    kills = []

    def job(label, rng=None, longest=0.0):
        """Start the job of a participant until it has not been killed."""
        while True:
            with log.open("a") as file:
                own = ("--participant-label", label, "--nprocs", 2)
                process = command(*words, *own, stdout=file, stderr=subprocess.STDOUT)
            try:
                within = rng.uniform(1, 0.6 * longest) if rng is not None and len(kills) < KILLS else None
                assert process.wait(within) == 0, log.read_text()
                return
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                kills.append(label)

    def array(seed=None, longest=0.0):
        """Run the array; what it left."""
        with ThreadPoolExecutor() as pool:
            rngs = [None if seed is None else np.random.default_rng([seed, i]) for i in (1, 2)]
            list(pool.map(job, ("01", "02"), rngs, (longest, longest)))
        names = [path for path in (tmp_path / "here").rglob(".*.*.*") if path.suffix != ".lock"]
        assert names == []  # no temporary file
        found = outputs(out).told()
        shutil.rmtree(tmp_path / "here")
        (tmp_path / "here").mkdir()
        return found

    array()  # compiles, and simulates the errors
    start = time.monotonic()
    expected = array()
    longest = time.monotonic() - start
    rounds = 0
    while len(kills) < KILLS:
        found = array(KILLS_SEED + rounds, longest)
        assert found.keys() == expected.keys()
        assert [name for name in found if found[name] != expected[name]] == []
        rounds += 1
    print(f"\n{len(kills)} kills in {rounds} arrays; an undisturbed one takes {longest:.0f} s")


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
    name = f".{gethostname()}.{dead.pid}.sub-01_model-adc_param-D_desc-lsq_dwimap.nii.gz"
    left = [tmp_path / "out" / folder / name for folder in ("sub-01/dwi", "trained", "prov", "")]
    for path in left:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    assert app(*words, "--participant-label", "01", "--model", "adc", "--nprocs", 1).code == 0
    assert not any(path.exists() for path in left)


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
