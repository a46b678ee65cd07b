"""Runs side by side, and disks that fill up: nothing is lost, and words say who or what is in the way."""

import json
import os
import shutil
import subprocess

import nibabel as nib
import numpy as np
import pytest

from bidsfit.planning import plan
from bidsfit.run import execution
from bidsfit.run.work_folder import held

#: What is drawn is looked at elsewhere.
pytestmark = pytest.mark.usefixtures("blank_figures")


@pytest.fixture
def run(app, pair, outputs, tmp_path):
    """``run(options...)`` on two participants; ``run.out``: what it left."""
    tiny, masks = pair
    tiny.add("sub-02/dwi/sub-02_dwi")
    masks.add_mask("sub-02/dwi/sub-02_desc-brain_mask")

    def call(*options, out=tmp_path / "out"):
        words = (tiny, out, "participant", "--preprocess", "none", "--nprocs", 1, "--skip-bids-validation")
        return app(*words, "-d", f"masks={masks}", "--model", "adc", *options)

    call.out = outputs(tmp_path / "out")
    return call


def stored(folder):
    return {path: path.read_bytes() for path in sorted(folder.rglob("sub-01_*")) if path.is_file()}


# --- one output folder ----------------------------------------------------------------------------------------------


def test_maps_that_came_after_the_plan_was_made_are_not_overwritten(run, tmp_path, monkeypatch):
    """As when two runs with other options start together: what one finds when it plans is not what it finds later."""
    one = ("--participant-label", "01", "--estimators", "lsq", "mle", "--sigma", 10)
    assert run(*one, "-w", tmp_path / "w1").code == 0
    before = stored(tmp_path / "out")
    monkeypatch.setattr(plan, "refuse", lambda _: None)
    outcome = run(*one, "-w", tmp_path / "w2", "--bounds", "adc.D=0,0.002")
    assert outcome.code == 1
    assert "sub-01: Maps that were made otherwise were not overwritten." in outcome.err
    assert "sub-01_model-adc_param-S0_desc-lsq_dwimap.nii.gz exists and was made with other settings (Bounds: " in (
        outcome.err
    )
    after = stored(tmp_path / "out")
    assert {path: after[path] for path in before} == before  # maps, and figures of fits and of their comparison


# --- one work folder ------------------------------------------------------------------------------------------------


def test_participants_of_another_run_are_left_to_it(run, tmp_path):
    work = tmp_path / "out" / "work" / "bidsfit_wf"
    with held(work, ["01"], "uuid", "bidsfit of a colleague") as elsewhere:
        assert elsewhere == {}
        alone = run("--participant-label", "01")
        both = run()
    words = f"Another run works on sub-01 in {tmp_path / 'out' / 'work'} (process {os.getpid()} on "
    for outcome, code in ((alone, 73), (both, 1)):
        assert outcome.code == code
        assert words in outcome.err
        assert ": bidsfit of a colleague). Wait for it, or choose another -w." in outcome.err
    assert {name[:6] for name in run.out.maps()} == {"sub-02"}
    assert not (tmp_path / "out" / "sub-01.html").exists()
    assert run().code == 0
    assert list((work / "runs").glob("*.*")) == [work / "runs" / ".lock"]


def test_a_run_that_was_killed_holds_nothing(tmp_path):
    runs = tmp_path / "runs"
    runs.mkdir()
    (runs / "dead.json").write_text(json.dumps({"participants": ["01"]}))
    (runs / "dead.lock").touch()
    with held(tmp_path, ["01"], "uuid", "bidsfit") as elsewhere:
        assert elsewhere == {}
        assert sorted(path.name for path in runs.glob("*.json")) == ["uuid.json"]


def test_only_what_is_run_is_started_afresh(run, tmp_path, monkeypatch):
    work = tmp_path / "w"
    assert run("-w", work).code == 0
    before = {path: path.stat().st_mtime_ns for path in work.rglob("result_fit.pklz")}
    assert len(before) == 2
    monkeypatch.setattr(execution, "MANY", 1)  # each run of a few would read what was made of all
    for name in ("index.html", "logs/CITATION.md"):
        (tmp_path / "out" / name).unlink()
    again = run("-w", work, "--clean-workdir", "--participant-label", "02")
    assert again.code == 0
    assert "With more than 1 participants, the group level or --reports-only renews what tells of all." in again.out
    assert not (tmp_path / "out" / "index.html").exists()
    assert run("-w", work, "--reports-only", "--participant-label", "02").code == 0
    assert "sub-01.html" in (tmp_path / "out" / "index.html").read_text()
    assert (tmp_path / "out" / "logs" / "CITATION.md").exists()
    again = {path: path.stat().st_mtime_ns for path in work.rglob("result_fit.pklz")}
    assert [path.parts[-5] for path in before if again[path] != before[path]] == ["sub_02_wf"]
    assert len(again) == 2


# --- participant after participant ----------------------------------------------------------------------------------


def test_a_participant_has_its_report_before_the_next_is_begun(run, tmp_path, monkeypatch):
    from bidsfit.interfaces.fit import FitImage

    reports = []
    original = FitImage.run

    def noting(self, *arguments, **options):
        reports.append(sorted(path.name for path in (tmp_path / "out").glob("*.html")))
        return original(self, *arguments, **options)

    monkeypatch.setattr(FitImage, "run", noting)
    outcome = run()
    assert reports == [[], ["sub-01.html"]]
    assert "sub-01_dwi: done (1 of 2 images, about " in outcome.out
    assert "sub-02_dwi: done (2 of 2 images)\n" in outcome.out
    assert "2 images (sub-01_dwi, sub-02_dwi): adc (lsq)\n" in outcome.out
    assert "sub-01_dwi: was done before (1 of 2 images)" in run().out


def test_a_dry_run_says_once_what_is_alike_and_what_is_done(run):
    assert run("--participant-label", "02").code == 0
    said = run("--dry-run").out
    assert "2 images  5 x 6 x 3 x 5\n  sub-01_dwi, sub-02_dwi\n" in said
    assert "mask: bids:masks:sub-*/dwi/sub-*_desc-brain_mask.nii.gz\n" in said
    assert said.count("fit adc with lsq") == 1
    assert said.endswith("    done before, 1 of them: sub-02_dwi\n")


# --- a full disk ----------------------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path):
    """``small_disk(kilobytes)``: a folder on a disk of its own, of that size, or of another from now on."""
    folder = tmp_path / "small"
    folder.mkdir()

    def resize(kilobytes):
        options = ("remount," if os.path.ismount(folder) else "") + f"size={kilobytes}k"
        words = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder]
        if shutil.which("mount") is None or subprocess.run(words, capture_output=True, check=False).returncode:
            pytest.skip("a disk can be mounted by root only")
        return folder

    yield resize
    if os.path.ismount(folder):
        subprocess.run(["umount", folder], check=True)


@pytest.mark.parametrize("full", ["output", "work"])
def test_a_full_disk_is_said_and_the_run_resumes(run, small_disk, tmp_path, full):
    folder = small_disk(300 if full == "output" else 20)
    out, work = (folder / "out", tmp_path / "w") if full == "output" else (tmp_path / "out", folder / "w")
    outcome = run("-w", work, out=out)
    assert outcome.code == 1
    assert f"bidsfit: error: No space is left to write {folder}" in outcome.err
    assert "MB are free on its disk" in outcome.err
    assert "Traceback" not in outcome.err
    assert outcome.err.count("No space") == 1
    assert [path for path in out.rglob(".*.*.*") if path.suffix != ".lock"] == []  # no temporary file
    for path in out.rglob("*.nii.gz"):
        assert np.isfinite(nib.load(path).dataobj).any()  # whole
    small_disk(20_000)
    assert run("-w", work, out=out).code == 0
    assert len(list(out.rglob("*_dwimap.nii.gz"))) == 2 * 15
