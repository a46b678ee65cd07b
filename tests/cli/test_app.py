"""The command ``bidsfit``: what its options do, and how it ends."""

import html
import json
import os
import shutil
import subprocess
import sys
import time

import nibabel as nib
import numpy as np
import pytest

from bidsfit import __version__
from bidsfit.bids import images

#: What is drawn is looked at elsewhere.
pytestmark = pytest.mark.usefixtures("blank_figures")

QUICK = ("--nprocs", 1, "--skip-bids-validation")


@pytest.fixture
def run(app, pair, tmp_path):
    """``run(options...)``: the participant level on one tiny participant; outputs are in ``tmp_path/out``."""
    tiny, masks = pair

    def call(*options, level="participant"):
        return app(tiny, tmp_path / "out", level, "-d", f"masks={masks}", *QUICK, *options)

    return call


def add_participant(tiny, label="02"):
    return tiny.add(f"sub-{label}/dwi/sub-{label}_dwi")


def maps(out):
    return {path.name: path.read_bytes() for path in out.rglob("*_model-adc_*_dwimap.nii.gz")}


def times(folder, pattern):
    return {path: path.stat().st_mtime_ns for path in folder.rglob(pattern)}


# --- before anything is read ----------------------------------------------------------------------------------------


def test_no_home_is_needed(app, tmp_path, monkeypatch):
    """Matplotlib writes its list of fonts into one, and DIPY cannot be imported without one."""
    for variable in ("BIDSFIT_CACHE_DIR", "MPLCONFIGDIR", "DIPY_HOME"):
        monkeypatch.setenv(variable, "")  # and back again after the test
        monkeypatch.delenv(variable)
    assert app(tmp_path / "none", tmp_path / "out", "participant", "--cache-dir", tmp_path / "cache").code == 66
    assert os.environ["MPLCONFIGDIR"] == str(tmp_path / "cache" / "matplotlib")
    assert os.environ["DIPY_HOME"] == str(tmp_path / "cache" / "dipy")


@pytest.mark.parametrize("option", ["--version", "--help"])
def test_instant(option):
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "bidsfit.cli.app", option], capture_output=True, text=True, check=False
    )
    assert time.perf_counter() - start < 3  # a tenth of a second on a quiet machine
    assert done.returncode == 0
    assert (__version__ if option == "--version" else "--participant-label") in done.stdout


def test_help_imports_nothing_slow():
    slow = [
        "numpy",
        "scipy",
        "sympy",
        "numba",
        "nibabel",
        "nipype",
        "bids",
        "dipy",
        "matplotlib",
        "pandas",
        "sqlalchemy",
    ]
    code = (
        "import sys\nfrom bidsfit.cli.app import main\n"
        f"try: main(['--help'])\nfinally: print('slow:', sorted(set({slow}) & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr == "slow: []\n"


def test_a_plan_imports_nothing_that_only_a_run_needs(phantom, tmp_path):
    slow = ["scipy.stats", "dipy", "torch", "matplotlib", "pandas"]
    words = [str(phantom), str(tmp_path / "out"), "participant", "--model", "adc", "ivim", "--dry-run"]
    code = (
        "import sys\nfrom bidsfit.cli.app import run\n"
        f"assert run({words}) == 0\nassert not set({slow}) & set(sys.modules), set({slow}) & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "words", [[], ["ds"], ["ds", "out"], ["ds", "out", "subject"], ["ds", "out", "participant", "--modell", "adc"]]
)
def test_unusable_command_lines(app, words):
    outcome = app(*words)
    assert outcome.code == 64
    assert "usage: bidsfit" in outcome.err


def test_the_group_level_needs_the_participant_level(run, tmp_path):
    outcome = run(level="group")
    assert outcome.code == 66
    assert "does not exist: the group level needs what the participant level leaves there" in outcome.err
    assert not (tmp_path / "out").exists()


def test_messages_have_no_traceback_unless_asked_for(run, tmp_path):
    plain, loud = run("--model", "ivmi"), run("--model", "ivmi", "-vv")
    assert plain.code == loud.code == 64
    assert plain.err == "bidsfit: error: " + plain.err.removeprefix("bidsfit: error: ")
    assert "Traceback" not in plain.err
    assert "Traceback" in loud.err
    assert plain.err in loud.err


def test_names_are_checked_before_the_dataset_is_read(app, tmp_path):
    """Large datasets take a while."""
    outcome = app(tmp_path / "none", tmp_path / "out", "participant", "--estimators", "lsqq")
    assert outcome.code == 64
    assert "Did you mean 'lsq'" in outcome.err


# --- where a dataset lies, and what is in it ------------------------------------------------------------------------


def test_everyone_gets_their_own_map_wherever_the_dataset_lies(app, new_dataset, tmp_path):
    """Folders above a dataset may be called like entities."""
    raw = new_dataset(tmp_path / "sub-03" / "ds")
    masks = new_dataset(tmp_path / "sub-03" / "func" / "masks", derivative=True)
    true = {"01": 0.5e-3, "02": 1e-3, "03": 2e-3}
    for label, diffusivity in true.items():
        stem = f"sub-{label}/dwi/sub-{label}"
        raw.add(f"{stem}_dwi", data=raw.signals(np.array(raw.B_VALUES) * diffusivity / 1e-3))
        masks.add_mask(f"{stem}_desc-brain_mask")
    out = tmp_path / "sub-03" / "out"
    options = ("--model", "adc", "--preprocess", "none", "-d", f"masks={masks}", *QUICK)
    assert app(raw, out, "participant", *options).code == 0
    for label, diffusivity in true.items():
        path = out / f"sub-{label}" / "dwi" / f"sub-{label}_model-adc_param-adc_desc-lsq_dwimap.nii.gz"
        values = nib.load(path).get_fdata()
        assert np.median(values[values > 0]) == pytest.approx(diffusivity, rel=1e-3)


def test_folders_of_other_labels_are_named_and_nothing_is_written_for_them(run, pair, tmp_path):
    tiny, _ = pair
    add_participant(tiny, "01-rescan")
    outcome = run("--model", "adc", "--preprocess", "none")
    assert outcome.code == 1
    assert f"The folder {tiny}/sub-01-rescan has the label '01-rescan'" in outcome.err
    assert "Done, with errors for 1 of 2 participants: 01-rescan." in outcome.out
    assert (tmp_path / "out" / "sub-01.html").exists()
    assert not list((tmp_path / "out").glob("*rescan*"))
    assert run("--participant-label", "01-rescan").code == 65
    shutil.rmtree(tiny / "sub-01")
    outcome = run("--dry-run")
    assert outcome.code == 65
    assert "sub-01-rescan has the label" in outcome.err


# --- what a run says ------------------------------------------------------------------------------------------------


def test_a_good_run(run, tmp_path):
    outcome = run()
    assert outcome.code == 0
    assert outcome.err == ""
    assert "sub-01_dwi: adc (lsq)" in outcome.out
    assert "not ivim, missing: 5 different b-values of at most 1000 s/mm²" in outcome.out
    assert f"Reports: {tmp_path / 'out' / 'sub-01.html'}" in outcome.out
    assert outcome.out.endswith("Done: 1 participant.\n")
    assert len(maps(tmp_path / "out")) == 15


def test_verbose(run, caplog):
    assert run().code == 0
    assert 'Executing "fit"' not in caplog.text
    assert run("-v", "--clean-workdir").code == 0
    assert 'Executing "fit"' in caplog.text


# --- parts of a run -------------------------------------------------------------------------------------------------


def test_dry_run(run, unchanged, tmp_path):
    with unchanged(tmp_path):
        outcome = run("--dry-run")
    assert outcome.code == 0
    for said in (
        "sub-01_dwi  5 x 6 x 3 x 5",
        "protocol: b = 0 (x2), 300 (x1), 600 (x1), 1000 (x1) s/mm²",
        "mask: bids:masks:sub-01/dwi/sub-01_desc-brain_mask.nii.gz",
        "fit adc with lsq: has b = 0, 300, 600, 1000 s/mm²",
        "leave out smt2: missing: 2 different b-values of 700 s/mm² or more",
    ):
        assert said in outcome.out


def test_a_dry_run_says_what_would_be_left_out(run, pair):
    add_participant(pair[0]).with_name("sub-02_dwi.bval").unlink()
    outcome = run("--dry-run")
    assert outcome.code == 1
    assert "left out: " in outcome.out
    assert "sub-02_dwi.nii.gz has no .bval file" in outcome.out


def test_reports_only(run, tmp_path):
    out = tmp_path / "out"
    run()
    before = times(out, "*")
    (out / "sub-01.html").unlink()
    outcome = run("--reports-only")
    assert outcome.code == 0
    assert (out / "sub-01.html").exists()
    changed = {path for path, time_ in times(out, "*").items() if path.is_file() and before.get(path) != time_}
    assert changed <= {out / "sub-01.html", out / "logs" / "CITATION.md", out / "logs" / "CITATION.bib"}


def test_reports_only_keeps_the_errors_of_the_last_run(run, pair, tmp_path):
    path = add_participant(pair[0])
    path.write_bytes(path.read_bytes()[:400])
    assert run().code == 1
    outcome = run("--reports-only")
    assert outcome.code == 1
    assert "truncated" in (tmp_path / "out" / "sub-02.html").read_text()


def test_reports_only_needs_a_run(run):
    outcome = run("--reports-only")
    assert outcome.code == 66
    assert "holds no run of sub-01" in outcome.err


def test_reports_only_names_whom_no_job_has_run_and_goes_on(run, pair, tmp_path):
    add_participant(pair[0])
    assert run("--participant-label", "01").code == 0
    (tmp_path / "out" / "sub-01.html").unlink()
    outcome = run("--reports-only")
    assert outcome.code == 1
    assert "sub-02: It was not run." in outcome.err
    assert (tmp_path / "out" / "sub-01.html").exists()


def test_failures_of_earlier_runs_are_told_while_their_images_are_not_done(run, pair, tmp_path):
    """Of the jobs of two sessions the one that failed came first."""
    tiny, _ = pair
    good = tiny.add("sub-01/ses-2/dwi/sub-01_ses-2_dwi").read_bytes()
    broken = tiny.add("sub-01/ses-1/dwi/sub-01_ses-1_dwi")
    broken.write_bytes(good[:400])
    for session, code in (("1", 1), ("2", 0)):
        assert run("--session-label", session).code == code
    outcome = run("--reports-only")
    assert outcome.code == 1
    assert "truncated" in (tmp_path / "out" / "sub-01.html").read_text()
    broken.write_bytes(good)
    assert run("--session-label", "1").code == 0
    assert run("--reports-only").code == 0


def test_boilerplate_only(run, tmp_path):
    out = tmp_path / "out"
    outcome = run("--boilerplate-only")
    assert outcome.code == 0
    assert outcome.out == f"Methods text of what is planned: {out / 'logs' / 'CITATION.md'}\n"
    assert "Apparent diffusion coefficient" in (out / "logs" / "CITATION.md").read_text()
    assert "@article" in (out / "logs" / "CITATION.bib").read_text().lower()
    assert sorted(path.name for path in out.iterdir() if not path.name.startswith(".")) == [
        "README",
        "dataset_description.json",
        "descriptions.tsv",
        "logs",
    ]


def test_the_methods_text_of_the_folder_is_that_of_its_reports(run, pair, tmp_path):
    """Of all participants, not of those of the last run; what is planned is told before anything was done only."""
    add_participant(pair[0])
    pair[1].add_mask("sub-02/dwi/sub-02_desc-brain_mask")
    out = tmp_path / "out"

    def told():
        return (out / "logs" / "CITATION.md").read_text()

    assert run("--participant-label", "01").code == 0
    first = told()
    assert first in html.unescape((out / "sub-01.html").read_text())
    assert run("--participant-label", "02", "--average", "geometric").code == 0
    both = told()
    assert both != first
    assert set(first.split("\n\n")) <= set(both.split("\n\n"))
    outcome = run("--boilerplate-only", "--participant-label", "01")
    assert outcome.out.startswith("Methods text of what was done: ")
    assert told() == both


def test_write_graph(run, tmp_path):
    assert run("--write-graph").code == 0
    graphs = list((tmp_path / "out" / "logs").glob("graph*"))
    assert len(graphs) >= 1
    assert "adc_lsq_wf" in graphs[0].read_text()


# --- what to run on -------------------------------------------------------------------------------------------------


def test_participant_label(run, pair, tmp_path):
    add_participant(pair[0], "02")
    add_participant(pair[0], "03")
    outcome = run("--participant_label", "sub-02", "03", "--dry-run")
    assert "2 images  5 x 6 x 3 x 5\n  sub-02_dwi, sub-03_dwi\n" in outcome.out
    assert "sub-01" not in outcome.out


def test_an_option_given_twice_adds_up(run, pair):
    add_participant(pair[0], "02")
    add_participant(pair[0], "03")
    outcome = run("--participant-label", "02", "--participant-label", "03", "--dry-run")
    assert "  sub-02_dwi, sub-03_dwi\n" in outcome.out


def test_every_list_of_the_command_line_adds_up():
    from bidsfit.cli.parser import build_parser

    lists = [action for action in build_parser()._actions if action.nargs == "+"]
    assert len(lists) > 9
    for action in lists:
        assert (type(action).__name__, action.default) == ("_ExtendAction", None), action.dest


def test_session_label_and_run(app, tiny, tmp_path):
    for session in ("1", "2"):
        for run in ("1", "2"):
            tiny.add(f"sub-01/ses-{session}/dwi/sub-01_ses-{session}_run-{run}_dwi")
    outcome = app(tiny, tmp_path / "out", "participant", *QUICK, "--dry-run", "--session-label", "ses-2", "--run-id", 1)
    assert [line.split()[0] for line in outcome.out.splitlines() if "_dwi  " in line] == ["sub-01_ses-2_run-1_dwi"]


def test_bids_filter_file(run, pair, tmp_path):
    pair[0].add("sub-01/dwi/sub-01_acq-b_dwi")
    for value, expected in ((None, "sub-01_dwi"), ("*", "sub-01_acq-b_dwi")):
        (tmp_path / "f.json").write_text(json.dumps({"dwi": {"acquisition": value}}))
        outcome = run("--dry-run", "--bids-filter-file", tmp_path / "f.json")
        assert [line.split()[0] for line in outcome.out.splitlines() if "_dwi " in line] == [expected]


def test_an_index_of_another_app_is_neither_read_nor_written(run, tmp_path):
    assert run("--dry-run", "--bids-database-dir", tmp_path / "index") == run("--dry-run")
    assert not (tmp_path / "index").exists()


def test_validation(app, pair, tmp_path):
    pair[0].write("sub-01/dwi/something.txt", "")
    words = (pair[0], tmp_path / "out", "participant", "-d", f"masks={pair[1]}", "--dry-run")
    outcome = app(*words)
    assert outcome.code == 16
    assert "/sub-01/dwi/something.txt" in outcome.err
    assert "--skip-bids-validation" in outcome.err
    assert app(*words, "--skip-bids-validation").code == 0


# --- what to fit ----------------------------------------------------------------------------------------------------


def parameters(out, name="param-adc"):
    path = next(path for path in out.rglob("*.json") if name in path.name)
    return json.loads(path.read_text())["Model"]["Parameters"]


def test_choices_of_the_fit_are_in_the_sidecar(run, tmp_path):
    options = ("--average", "geometric", "--s0", "measured", "--bounds", "adc.D=0.0001,0.002")
    assert run("--model", "adc", *options).code == 0
    found = parameters(tmp_path / "out")
    assert (found["Averaging"], found["S0"]) == ("geometric", "measured")
    assert found["Bounds"] == {"D": [0.0001, 0.002]}


def test_every_measurement_by_itself(run, tmp_path):
    """Without --model, a model of direction averages is left out with the reason; asked for, it is refused."""
    outcome = run("--average", "none")
    assert outcome.code == 0
    assert "not smt2, The model 'smt2' describes direction averages" in outcome.out
    assert parameters(tmp_path / "out")["Averaging"] == "none"


def test_an_estimator_that_is_left_out_is_said(run, tmp_path):
    """The others are run, and the exit code says that not all was done that was asked for."""
    outcome = run("--estimators", "lsq", "segmented")
    assert outcome.code == 1
    assert "adc, has b = 0, 300, 600, 1000 s/mm²; not with segmented: A segmented fit needs a model" in outcome.out
    assert "sub-01_dwi.nii.gz: segmented of --estimators fits nothing. adc: A segmented fit needs" in outcome.err
    assert len(maps(tmp_path / "out")) == 15


def test_a_model_that_one_image_leaves_out_is_said(run, pair, tmp_path):
    pair[0].add("sub-02/dwi/sub-02_dwi", b_values=[0, 10, 20, 50, 100, 200, 500, 900])
    outcome = run("--model", "adc", "ivim", "--dry-run")
    assert outcome.code == 1
    assert "sub-01_dwi.nii.gz: ivim of --model is not fitted, missing: 5 different b-values" in outcome.out
    assert "sub-02_dwi.nii.gz: ivim" not in outcome.out


def test_an_estimator_named_twice_runs_once(run, tmp_path):
    assert run("--estimators", "lsq", "lsq", "--model", "adc", "adc").code == 0
    assert len(maps(tmp_path / "out")) == 15


# --- resources ------------------------------------------------------------------------------------------------------


def test_an_image_is_unpacked_once(run, tmp_path, monkeypatch):
    unpack, unpacked = images.open_packed, []
    monkeypatch.setattr(images, "open_packed", lambda path: (unpacked.append(path.name), unpack(path))[1])
    assert run("--model", "adc", "--estimators", "lsq", "mle", "--sigma", 1).code == 0
    images_read = [name for name in unpacked if name.endswith("_dwi.nii.gz")]
    assert images_read == ["sub-01_dwi.nii.gz", "sub-01_desc-preproc_dwi.nii.gz"]  # raw and prepared
    assert not list((tmp_path / "out" / "work").rglob("*_dwi.nii"))  # the copy is gone


def test_a_memory_limit_below_what_a_step_needs_does_not_block(run):
    assert run("--nprocs", 2, "--mem", "100M").code == 0


def plugin(tmp_path, text):
    (tmp_path / "plugin.yml").write_text(text)
    return "--use-plugin", tmp_path / "plugin.yml"


def test_use_plugin(run, tmp_path):
    assert run(*plugin(tmp_path, "plugin: Linear\n")).code == 0
    assert len(maps(tmp_path / "out")) == 15


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("plugin: Linearr", "Did you mean 'Linear'"),
        ("- Linear", "must hold a table"),
        ("plugin: Linear\nplugin_args: 3", "perhaps a table 'plugin_args'"),
        ("plugin: &x [a]\nplugin_args: {b: *x}", "has an alias (*x)"),
        ("plugin: Linear\nnprocs: 2", "must hold 'plugin'"),
        ("plugin: [", "cannot be read"),
        ("plugin: 3", "Unknown Nipype plugin"),
    ],
)
def test_plugin_files_that_cannot_be(run, tmp_path, text, message):
    outcome = run(*plugin(tmp_path, text))
    assert outcome.code == 64
    assert message in outcome.err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("nprocs", [1, 2])
def test_resource_monitor_litters_only_the_work_folder(run, pair, tmp_path, monkeypatch, unchanged, nprocs):
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    with unchanged(here), unchanged(pair[0]):
        assert run("--resource-monitor", "--nprocs", nprocs).code == 0
    assert list((tmp_path / "out" / "work").rglob("resource_monitor.json"))


# --- other ----------------------------------------------------------------------------------------------------------


def test_work_folder_elsewhere(run, tmp_path):
    assert run("-w", tmp_path / "w").code == 0
    assert (tmp_path / "w" / "bidsfit_wf").is_dir()
    assert not (tmp_path / "out" / "work").exists()


def test_clean_workdir_removes_only_what_is_ours(run, tmp_path):
    work = tmp_path / "w"
    work.mkdir()
    (work / "mine.txt").write_text("mine")
    assert run("-w", work).code == 0
    before = times(work, "result_fit.pklz")
    assert len(before) == 1
    assert run("-w", work, "--clean-workdir").code == 0
    assert (work / "mine.txt").read_text() == "mine"
    assert times(work, "result_fit.pklz") != before  # fitted again


@pytest.mark.parametrize("place", ["file", "file/work", "/proc/work"])
def test_a_work_folder_that_cannot_be_written(run, tmp_path, place):
    (tmp_path / "file").touch()
    outcome = run("-w", tmp_path / place)
    assert outcome.code == 73
    assert f"The work folder {tmp_path / place} cannot be written" in outcome.err


@pytest.mark.parametrize("bounds", [("--bounds", "adc.D=0,0.004"), ()])
def test_config_file(run, app, pair, tmp_path, bounds):
    """The configuration that a run leaves makes the same run."""
    out = tmp_path / "out"
    assert run("--model", "adc", *bounds).code == 0
    (left,) = out.rglob("bidsfit.toml")
    before = maps(out)
    shutil.copy(left, tmp_path / "again.toml")
    shutil.rmtree(out)
    assert app(pair[0], out, "participant", "--config-file", tmp_path / "again.toml").code == 0
    assert maps(out) == before
    if bounds:
        assert parameters(out)["Bounds"] == {"D": [0, 0.004]}


def test_stop_on_first_crash(run, pair, tmp_path):
    path = pair[0] / "sub-01/dwi/sub-01_dwi.nii.gz"
    path.write_bytes(path.read_bytes()[:400])
    add_participant(pair[0])
    pair[1].add_mask("sub-02/dwi/sub-02_desc-brain_mask")
    outcome = run("--stop-on-first-crash")
    assert outcome.code == 1
    assert maps(tmp_path / "out") == {}
    assert run().code == 1
    assert len(maps(tmp_path / "out")) == 15  # the good participant


def test_notrack_and_nothing_is_tracked(run, monkeypatch):
    """No connection is tried, with the option or without."""
    import socket

    def refuse(self, address):
        raise AssertionError(f"a connection to {address}")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    assert run("--notrack").code == 0
    assert run().code == 0
