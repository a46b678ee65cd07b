"""Independent jobs of one participant and session each: they give what one job gives."""

import json
import shutil

import numpy as np
import pytest

from bidsfit.trained.estimator import nearest_level

pytestmark = pytest.mark.usefixtures("blank_figures")

RECIPE = "kind: network\nsteps: 60\nbatch: 256\nunits: 16\nvalidation: 2048\nchecks: 10\n"
SESSIONS = ("1", "2")


@pytest.fixture(scope="module")
def run(tmp_path_factory, new_dataset, without_figures):
    """``run(out, options...)``: exit code of a run on two sessions of SNR 10 and 40, levels of their own if alone."""
    from bidsfit.cli.app import main

    folder = tmp_path_factory.mktemp("jobs")
    tiny = new_dataset(folder / "ds")
    for session, sigma in zip(SESSIONS, (100, 25), strict=True):
        noise = np.random.default_rng(0).normal(0, sigma, (*tiny.SHAPE, len(tiny.B_VALUES)))
        stem = f"sub-01/ses-{session}/dwi/sub-01_ses-{session}_dwi"
        tiny.add(stem, data=(tiny.signals() + noise).astype(np.float32))
    (folder / "tiny.yml").write_text(RECIPE)
    words = ["participant", "--preprocess", "none", "--model", "adc", "--nprocs", "1", "--skip-bids-validation"]
    words += ["--estimators", "lsq", "net-uniform", "--training-recipe", str(folder / "tiny.yml")]

    def call(out, *options):
        with without_figures():
            return main([str(tiny), str(out), *words, "-w", f"{out}-work", *map(str, options)])

    call.folder = folder
    return call


@pytest.fixture(scope="module")
def trained(run):
    """The folder of a run that only trained."""
    assert run(run.folder / "first", "--train-only") == 0
    return run.folder / "first"


@pytest.fixture(scope="module")
def one(run, trained):
    """The output folder of one run over everything."""
    assert run(run.folder / "one", "--store", trained / "trained") == 0
    return run.folder / "one"


@pytest.fixture(scope="module")
def jobs(run, trained):
    """The output folders of a job for each session, in folders of their own."""
    folders = [run.folder / f"job{session}" for session in SESSIONS]
    for session, folder in zip(SESSIONS, folders, strict=True):
        assert run(folder, "--session-label", session, "--store", trained / "trained", "--no-training") == 0
    return folders


def test_a_run_that_only_trains_fits_nothing(trained):
    names = {path.name for path in trained.rglob("*") if path.is_file() and not path.name.startswith(".")}
    (estimator,) = (trained / "trained").glob("model-adc_desc-netuniform_snr-28_*.zip")
    record = json.loads((trained / "trained" / "sub-01_model-adc_desc-netuniform_snr.json").read_text())
    assert 28 not in map(nearest_level, record["SNR"].values())  # which would be those of the sessions alone
    assert names == {
        "README",
        "dataset_description.json",
        "descriptions.tsv",
        "bidsfit.toml",
        estimator.name,
        "sub-01_model-adc_desc-netuniform_snr.json",
    }


def test_jobs_of_single_sessions_give_the_maps_of_one_job(one, jobs, outputs):
    maps = outputs(one).maps()
    assert len(maps) == 2 * (15 + 14)
    assert outputs(jobs[0]).maps() | outputs(jobs[1]).maps() == maps
    assert not [path for job in jobs for path in job.glob("trained")]


def test_outputs_of_jobs_are_copied_together_into_those_of_one_job(run, one, jobs, outputs):
    merged = run.folder / "merged"
    for job in reversed(jobs):
        shutil.copytree(job, merged, dirs_exist_ok=True)
    assert run(merged, "--reports-only") == 0
    found, expected = outputs(merged).told(), outputs(one).told()
    assert found.keys() == expected.keys()
    assert [name for name in found if found[name] != expected[name]] == []
    assert len(list((merged / "sub-01" / "log").iterdir())) == len(SESSIONS)


def test_a_job_that_would_have_to_train_says_so(run, trained, tmp_path, capsys):
    """With other options than the run that trained, and without any such run."""
    store = ("--store", trained / "trained")
    assert run(tmp_path / "out", *store, "--no-training", "--training-seed", 7, "--session-label", 1) == 1
    assert "--no-training was given: net-uniform would have to be trained for b = 0" in capsys.readouterr().err
    assert run(tmp_path / "none", "--no-training", "--session-label", 1) == 1
    assert "does not hold the SNR of sub-01_ses-1_dwi" in capsys.readouterr().err
    assert not (tmp_path / "none" / "trained").exists()
