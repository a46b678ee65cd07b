"""A study on BABS and on nipoppy, which run what their configurations say, with a container engine that is none.

`babs`, `datalad`, `git-annex`, `7z` and `nipoppy` are looked for on the path (pip install babs nipoppy).
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from bidsfit.cli.lab import main as lab

pytestmark = pytest.mark.slow

PROJECT = Path(__file__).parents[2]

#: Runs the command after the image; an image without a command runs bidsfit.
ENGINE = """#!/bin/bash
[[ $1 == --version ]] && {{ echo "apptainer version 1.3.0"; exit; }}
while [[ $1 != *.sif && $1 != */image ]]; do shift; done
shift
if [[ $1 == *.sh ]]; then exec bash "$@"; fi
PYTHONPATH={project} exec {python} -m bidsfit.cli.app "$@"
"""

#: For nipoppy, whose script calls the program by its name.
PROGRAM = """#!/bin/bash
PYTHONPATH={project} exec {python} -m bidsfit.cli.app "$@"
"""


@pytest.fixture
def environment(tmp_path):
    """Of a user who has git configured, and this ``bidsfit`` in every container."""
    programs, home = tmp_path / "bin", tmp_path / "home"
    programs.mkdir()
    home.mkdir()
    for name, text in (("singularity", ENGINE), ("apptainer", ENGINE), ("bidsfit", PROGRAM)):
        (programs / name).write_text(text.format(project=PROJECT, python=sys.executable))
        (programs / name).chmod(0o755)
    (home / ".gitconfig").write_text("[user]\n\tname = A test\n\temail = test@example.org\n")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "GIT_"))}
    return kept | {"HOME": str(home), "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}"}


@pytest.fixture
def run(environment, tmp_path):
    """``run(words...)``: what a program says, in ``tmp_path`` or another folder."""

    def call(*words, cwd=tmp_path, **variables):
        if shutil.which(words[0], path=environment["PATH"]) is None:
            pytest.skip(f"no {words[0]}")
        options = {"cwd": cwd, "env": environment | variables, "capture_output": True, "text": True, "check": False}
        done = subprocess.run(list(map(str, words)), **options)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return call


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A phantom of two participants with two sessions."""
    folder = tmp_path_factory.mktemp("study") / "ds"
    size = ["--shape", "16", "16", "2", "--participants", "2", "--patients", "0", "--sessions", "2"]
    assert lab(["phantom", str(folder), "--model", "adc", *size]) == 0
    shutil.rmtree(folder / "derivatives")
    return folder


@pytest.fixture
def one(study, command, outputs, tmp_path):
    """Maps of one run without a platform."""
    words = (study, tmp_path / "one", "participant", "--nprocs", 1, "--skip-bids-validation")
    assert command(*words, stdout=subprocess.DEVNULL).wait(600) == 0
    return outputs(tmp_path / "one").maps()


def test_babs(study, one, run, app, outputs, tmp_path):
    """A job for every participant and session in a clone of its own; the archives are unpacked over one another."""
    for program in ("babs", "git-annex", "7z"):
        run("which", program) if shutil.which(program) else pytest.skip(f"no {program}")
    run("datalad", "create", "BIDS")
    shutil.copytree(study, tmp_path / "BIDS", dirs_exist_ok=True)
    run("datalad", "save", "-d", "BIDS", "-m", "A phantom")
    run("datalad", "create", "containers")
    (tmp_path / "image.sif").write_text("no image")
    run("datalad", "containers-add", "--url", tmp_path / "image.sif", "bidsfit-0-1-0", cwd=tmp_path / "containers")
    content = yaml.safe_load((PROJECT / "docs" / "babs.yaml").read_text())
    content["input_datasets"]["BIDS"]["origin_url"] = str(tmp_path / "BIDS")
    content["job_compute_space"] = str(tmp_path / "scratch")
    content["bids_app_args"]["$SESSION_SELECTION_FLAG"] = "--session-label"
    (tmp_path / "scratch").mkdir()
    (tmp_path / "babs.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    words = ("--container_ds", tmp_path / "containers", "--container_name", "bidsfit-0-1-0")
    words += ("--container_config", tmp_path / "babs.yaml", "--processing_level", "session", "--queue", "slurm")
    run("babs", "init", *words, tmp_path / "project")
    code = tmp_path / "project" / "analysis" / "code"
    command = yaml.safe_load((code / "submit_job_template.yaml").read_text())["cmd_template"].split()
    job = command[command.index(str(code / "participant_job.sh")) : -1]
    for i in range(1, 5):
        variables = {"SLURM_ARRAY_JOB_ID": "1", "SLURM_ARRAY_TASK_ID": str(i), "DSLOCKFILE": str(tmp_path / "lock")}
        assert run("bash", *job, code / "processing_inclusion.csv", **variables).endswith("SUCCESS\n")
    run("babs", "merge", tmp_path / "project")
    run("datalad", "clone", f"ria+file://{tmp_path}/project/output_ria#~data", "merged")
    run("datalad", "get", "-d", "merged", "merged")
    archives = sorted((tmp_path / "merged").glob("sub-*_ses-*_bidsfit-0-1-0.zip"))
    assert len(archives) == 4
    for archive in archives:
        run("7z", "x", "-aoa", archive)
    assert outputs(tmp_path / "bidsfit").maps() == one
    assert app(study, tmp_path / "bidsfit", "participant", "--reports-only", "--skip-bids-validation").code == 0
    assert app(study, tmp_path / "bidsfit", "group").code == 0
    assert {path.name for path in (tmp_path / "bidsfit").glob("*.html")} >= {"group.html", "index.html", "sub-02.html"}


def test_nipoppy(study, one, run, outputs, tmp_path):
    """The engine is called by Boutiques; the tracker finds what is done."""
    here = ("--study", tmp_path / "nipoppy")
    run("nipoppy", "init", *here, "--bids-source", study, "--default-config")
    run("nipoppy", "pipeline", "install", "--skip-container", PROJECT / "docs" / "nipoppy", *here)
    (tmp_path / "nipoppy" / "containers" / "bidsfit_0.1.0.sif").touch()
    run("nipoppy", "track-curation", *here)
    own = ("--pipeline", "bidsfit", *here)
    run("nipoppy", "process", *own, "--participant-id", "01")
    run("nipoppy", "track-processing", *own)
    table = (tmp_path / "nipoppy" / "derivatives" / "processing_status.tsv").read_text().splitlines()
    assert [row.split("\t")[-1] for row in table[1:]] == ["SUCCESS", "SUCCESS", "FAIL", "FAIL"]
    found = outputs(tmp_path / "nipoppy" / "derivatives" / "bidsfit" / "0.1.0" / "output").maps()
    assert found == {name: content for name, content in one.items() if name.startswith("sub-01_")}
