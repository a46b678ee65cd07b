"""The script that submits a study to SLURM, run with a sbatch that only notes what it gets; and what jobs need."""

import json
import os
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from bidsfit.cli.lab import main as lab
from bidsfit.planning.fits import make_fits
from bidsfit.run import resources, slurm
from bidsfit.run.resources import Estimates, group_level, preparation

#: Notes its words and its input, and prints the number of the job.
SBATCH = """#!{python}
import json, os, sys
jobs = os.listdir({folder!r})
number = 100 + len(jobs)
content = {{"words": sys.argv[1:], "script": sys.stdin.read()}}
open(os.path.join({folder!r}, str(number)), "w").write(json.dumps(content))
print(number)
"""


@pytest.fixture
def submitted(tiny, tmp_path, capsys, monkeypatch):
    """``submitted(options...)``: the jobs that the script submits, by name, in order, and its text."""
    monkeypatch.setattr(resources.Estimates, "speed", lambda *_: 1e-5)
    for label in ("01", "02", "03"):
        tiny.add(f"sub-{label}/dwi/sub-{label}_dwi")
    jobs, programs = tmp_path / "jobs", tmp_path / "bin"
    jobs.mkdir()
    programs.mkdir()
    (programs / "sbatch").write_text(SBATCH.format(python=sys.executable, folder=str(jobs)))
    (programs / "sbatch").chmod(0o755)
    environment = os.environ | {"PATH": f"{programs}{os.pathsep}{os.environ['PATH']}"}

    def call(*options, own=(), out=tmp_path / "out"):
        words = [*own, tiny, out, "--preprocess", "none", "--model", "adc", "--skip-bids-validation", *options]
        assert lab(["slurm-script", *map(str, words)]) == 0
        script = capsys.readouterr().out
        subprocess.run(["bash"], input=script, text=True, env=environment, check=True, capture_output=True)
        found = [json.loads(path.read_text()) for path in sorted(jobs.iterdir())]
        names = [next(word for word in job["words"] if "--job-name" in word).split("-")[-1] for job in found]
        return SimpleNamespace(jobs=dict(zip(names, found, strict=True)), script=script)

    return call


def run(job, **environment):
    """The command line that a job runs."""
    script = job["script"].replace("exec bidsfit", "exec printf '%s\\n'")
    done = subprocess.run(["bash"], input=script, text=True, env=environment, check=True, capture_output=True)
    return done.stdout.splitlines()


def test_a_task_for_each_participant_and_the_group_level_after_it(submitted, tmp_path):
    found = submitted("--healthy", "group=control", "--estimators", "lsq", "mle")
    array, group = found.jobs["array"], found.jobs["group"]
    assert list(found.jobs) == ["array", "group"]
    assert "--array=0-2%100" in array["words"]
    words = run(array, SLURM_ARRAY_TASK_ID="1")
    assert words[1:3] == [str(tmp_path / "out"), "participant"]
    assert words[-2:] == ["--participant-label", "02"]
    assert words[words.index("--estimators") + 1 :][:2] == ["lsq", "mle"]
    assert "--dependency=afterany:100" in group["words"]
    assert run(group)[2:] == ["group", "--nprocs", "1", "--healthy", "group=control"]


def test_what_trains_comes_first(submitted):
    """On everybody, as their noise decides the level."""
    found = submitted("--estimators", "net-uniform", own=("--training-cpus", "2"))
    assert list(found.jobs) == ["train", "array", "group"]
    train = run(found.jobs["train"])
    assert train[-3:] == ["--train-only", "--nprocs", "2"]
    assert {"--cpus-per-task=2", "--mem=3G"} <= set(found.jobs["train"]["words"])
    assert "--dependency=afterok:100" in found.jobs["array"]["words"]
    assert "--no-training" in run(found.jobs["array"], SLURM_ARRAY_TASK_ID="0")


def test_one_participant_of_a_protocol_trains_where_the_snr_is_given(submitted, tiny):
    tiny.add("sub-03/dwi/sub-03_dwi", b_values=(0, 500, 1000))
    found = submitted("--estimators", "net-uniform", "--training-snr", 20)
    assert run(found.jobs["train"])[-3:] == ["--participant-label", "01", "03"]


def test_a_task_runs_several_where_there_are_too_many(submitted, monkeypatch):
    monkeypatch.setattr(slurm, "MOST_TASKS", 2)
    array = submitted().jobs["array"]
    assert "--array=0-1%100" in array["words"]
    labels = [run(array, SLURM_ARRAY_TASK_ID=str(i)) for i in range(2)]
    assert [words[words.index("--participant-label") + 1 :] for words in labels] == [["01", "02"], ["03"]]


def test_names_that_mean_something_to_the_shell(submitted, tmp_path):
    out = tmp_path / "my $HOME `out` \\ 'x'"
    found = submitted("--participant-label", "02", out=out)
    assert run(found.jobs["array"], SLURM_ARRAY_TASK_ID="0")[1] == str(out)
    assert run(found.jobs["array"], SLURM_ARRAY_TASK_ID="0")[-1] == "02"
    assert run(found.jobs["group"])[1] == str(out)


@pytest.mark.parametrize("option", ["--train-only", "--dry-run", "--reports-only"])
def test_options_of_a_single_run_are_refused(tiny, tmp_path, capsys, option):
    assert lab(["slurm-script", str(tiny), str(tmp_path / "out"), option]) == 64
    assert f"{option} is not for this script" in capsys.readouterr().err


# --- what is estimated ----------------------------------------------------------------------------------------------


def planned(shape, raw=True, mask=None):
    """A plan of an image of a brain that is fitted by smt2, as far as an estimate looks at it."""
    names = ("mppca", "subvoxel", "koay", "pyhysco", "affine")
    steps = [SimpleNamespace(name=name, method=name) for name in names]
    chain = SimpleNamespace(changes=raw, steps=steps) if raw else None
    acquisition = SimpleNamespace(b_values=np.zeros(1))
    fits = make_fits(["smt2"], ["lsq"])
    image = SimpleNamespace(
        shape=shape, chain=chain, image=SimpleNamespace(mask=mask), acquisition=acquisition, fits=fits
    )
    return SimpleNamespace(images=[image])


@pytest.mark.parametrize(
    ("shape", "raw", "seconds", "memory"),
    [
        ((128, 128, 70, 141), True, 507.9, 3.81),  # benchmarks/README.md, "A whole run"
        ((128, 128, 70, 141), False, 27.4, 1.23),
        ((48, 48, 12, 37), True, 26.0, 0.78),
        ((80, 80, 24, 53), True, 63.7, 0.84),
        ((64, 64, 16, 85), True, 50.2, 0.8),  # not one of those that the constants were taken from
        ((80, 80, 24, 53), False, 12.9, 0.52),
    ],
)
def test_estimates_are_within_a_factor_of_one_and_a_half_of_what_was_measured(monkeypatch, shape, raw, seconds, memory):
    monkeypatch.setattr(resources.Estimates, "speed", lambda *_: 4e-6)
    found = Estimates().run(planned(shape, raw))
    assert 1 / 1.5 < found.seconds / seconds < 1.5
    assert 1 / 1.5 < found.memory / memory < 1.5
    assert not found.unknown


@pytest.mark.parametrize(
    ("n_participants", "n_images", "shape", "model", "estimators", "seconds", "memory"),
    [
        (6, 2, (16, 16, 4), "ivim", ("lsq", "segmented"), 11.2, 0.525),  # docs/scale.md
        (100, 2, (16, 16, 4), "ivim", ("lsq", "segmented"), 26.5, 0.533),
        (300, 2, (16, 16, 4), "ivim", ("lsq", "segmented"), 52.6, 0.538),
        (1000, 2, (16, 16, 4), "ivim", ("lsq", "segmented"), 151.1, 0.572),
        (80, 2, (24, 24, 6), "dti", ("lsq",), 28.5, 0.548),
        (16, 1, (80, 80, 40), "smt2", ("lsq",), 12.5, 0.570),
        (100, 1, (80, 80, 40), "smt2", ("lsq",), 23.8, 0.717),
    ],
)
def test_so_are_those_of_the_group_level(n_participants, n_images, shape, model, estimators, seconds, memory):
    image = SimpleNamespace(shape=(*shape, 43), fits=make_fits([model], list(estimators)))
    found = group_level([SimpleNamespace(images=[image] * n_images)] * n_participants)
    assert 1 / 1.5 < found.seconds / seconds < 1.5
    assert 1 / 1.5 < found.memory / memory < 1.5


def test_the_group_level_asks_for_what_it_needs(submitted, monkeypatch):
    group = submitted().jobs["group"]
    assert {"--mem=1G", "--time=10"} <= set(group["words"])
    monkeypatch.setattr(resources, "GROUP", 3000.0)
    monkeypatch.setattr(resources, "GROUP_PARTICIPANT", 0.5)
    group = submitted().jobs["group"]
    assert {"--mem=4G", "--time=101"} <= set(group["words"])  # (.52 + 3 * .5) * 1.5 GB, 50 minutes twice and the maps


def test_steps_that_were_never_measured_are_named():
    image = planned((64, 64, 20, 30)).images[0]
    image.chain.steps[-1].method = "eddy"
    assert preparation(image).unknown == {"affine (eddy)"}


def test_a_slower_estimator_is_found_slower(tiny):
    """In processor time on this machine: the posterior takes some ten times as long as least squares."""
    from bidsfit import Acquisition

    fits = make_fits(["adc"], ["lsq", "bayes"])
    image = SimpleNamespace(acquisition=Acquisition(tiny.B_VALUES))
    lsq, bayes = (Estimates().speed(fit, image) for fit in fits)
    assert bayes > 2 * lsq > 0
