"""Fitting anew: what is there is refused, or moved into a dated folder, and nothing of it is lost."""

import json
import os
import re
import shutil
from pathlib import Path

import pytest

from bidsfit.bids import conflicts

#: What is drawn is looked at elsewhere.
pytestmark = pytest.mark.usefixtures("blank_figures")

QUICK = ("--nprocs", 1, "--skip-bids-validation", "--model", "adc", "--sigma", 10)


@pytest.fixture
def run(app, tiny, masks, outputs, tmp_path):
    """``run(options...)`` on a participant, within a mask where ``given``; ``run.out``: what it left."""
    tiny.add("sub-01/dwi/sub-01_dwi")
    masks.add_mask("sub-01/dwi/sub-01_desc-brain_mask")

    def call(*options, given=True, level="participant", out=tmp_path / "out"):
        derivatives = ("-d", f"masks={masks}") if given else ()
        return app(tiny, out, level, "--preprocess", "none", *derivatives, *QUICK, *options)

    call.out = outputs(tmp_path / "out")
    call.dataset = tiny
    return call


def results(folder):
    """Content of every file about the participants, by its path; logs and what was moved are left out."""
    paths = [path for place in folder.glob("sub-*") for path in ([place] if place.is_file() else place.rglob("*"))]
    return {path.relative_to(folder): path.read_bytes() for path in paths if path.is_file() and "log" not in path.parts}


def moved(folder):
    """The same of what was moved, and the names of the folders that it lies in."""
    folders = sorted(folder.glob("replaced-*"))
    return {path: content for dated in folders for path, content in results(dated).items()}, folders


def test_maps_with_names_of_an_earlier_version_are_left_alone(run, tmp_path, unchanged):
    out = tmp_path / "out"
    assert run().code == 0
    for path in out.rglob("*_desc-lsq_dwimap.*"):
        path.rename(path.with_name(re.sub("(_param-.+)(_desc-lsq)", r"\2\1", path.name)))
    with unchanged(out):
        outcomes = [run(), run("--overwrite"), run("--dry-run"), run(level="group")]
    for outcome in outcomes:
        assert outcome.code == 73
        assert re.search(r"_desc-lsq_param-\w+_dwimap\.nii\.gz has a name that an earlier version", outcome.err)
        assert "Choose another output folder" in outcome.err


@pytest.mark.parametrize("name", ["param-noise_desc-preproc", "model-dti_param-Dxx_desc-lsq"])
def test_a_noise_map_without_a_model_and_an_element_of_a_tensor_are_left_alone(run, tmp_path, unchanged, name):
    """As an earlier version called them: what was made with them is not taken for what this version makes."""
    old = tmp_path / f"out/sub-01/dwi/sub-01_{name}_dwimap.nii.gz"
    old.parent.mkdir(parents=True)
    old.touch()
    with unchanged(tmp_path / "out"):
        outcome = run()
    assert outcome.code == 73
    assert f"{old} has a name that an earlier version" in outcome.err


def test_another_mask_is_refused_and_with_overwrite_nothing_is_lost(run, tmp_path, unchanged, valid):
    """The way a newcomer goes: a mask that was found, then a better one."""
    out = tmp_path / "out"
    assert run(given=False).code == 0
    before = results(out)
    found_mask = Path("sub-01/dwi/sub-01_desc-brain_mask.nii.gz")
    assert {found_mask, Path("sub-01.html")} <= set(before)

    with unchanged(out):
        refused = run()
    assert refused.code == 73
    assert re.search(
        r"error: .*param-S0_desc-lsq_dwimap\.nii\.gz exists and was made from another image, or with another "
        r"preprocessing, mask or noise \(Mask: found "
        r"Otsu's .*, expected bids:masks:sub-01/dwi/sub-01_desc-brain_mask\.nii\.gz\), which .*--overwrite",
        refused.err,
    )
    with unchanged(out):
        beside = run("--estimators", "mle")  # the report would tell of one mask, and hold fits of two
    assert beside.code == 73
    assert "param-status_desc-lsq_dwimap.nii.gz exists and was made from another image" in beside.err

    with unchanged(out):
        dry = run("--overwrite", "--dry-run")
    assert dry.code == 0
    files = [path for path in before if path.parent.name in ("dwi", "figures")]
    assert f"moved away first: {len(files)} files (Mask: found Otsu's threshold" in dry.out

    assert run("--overwrite").code == 0
    kept, (dated,) = moved(out)
    assert kept == before
    assert re.fullmatch(r"replaced-\d{8}T\d{6}", dated.name)
    assert not (out / found_mask).exists()
    for name in ("S0", "status"):
        sidecar = json.loads((out / f"sub-01/dwi/sub-01_model-adc_param-{name}_desc-lsq_dwimap.json").read_text())
        assert sidecar["Model"]["Parameters"]["Mask"] == "bids:masks:sub-01/dwi/sub-01_desc-brain_mask.nii.gz"
    assert "Otsu" in (dated / "sub-01.html").read_text()
    assert "Otsu" not in run.out.report()
    assert "Otsu" not in (out / "logs/CITATION.md").read_text()
    assert valid(out)

    fresh = tmp_path / "fresh"
    assert run(out=fresh).code == 0
    now, expected = results(out), results(fresh)
    assert set(now) == set(expected)
    written = {path for path in expected if path.parent.name == "dwi"}
    assert {path: now[path] for path in written} == {path: expected[path] for path in written}

    with unchanged(dated):
        again = run("--overwrite")  # there is nothing more to replace
    assert again.code == 0
    assert moved(out)[1] == [dated]
    assert "moved" not in again.out


def test_other_options_of_a_fit_replace_that_fit_alone(run, tmp_path):
    out = tmp_path / "out"
    assert run("--estimators", "lsq", "mle").code == 0
    before = results(out)
    outcome = run("--bounds", "adc.D=0,0.002", "--overwrite")
    assert outcome.code == 0
    kept, (dated,) = moved(out)
    assert f"sub-01_dwi: moved to {dated}: {len(kept) - 1} files of fits (Bounds: found " in outcome.out
    assert kept == {path: before[path] for path in kept}
    assert {path.name for path in kept} == {
        path.name for path in before if re.search(r"desc-(lsq|comparison)|^sub-01\.html$", path.name)
    }
    now = results(out)
    other = {path for path in before if "desc-mle" in path.name}
    assert len(other) > 10
    assert {path: now[path] for path in other} == {path: before[path] for path in other}
    assert "Bounds of D</dt><dd>0 to 2 " in run.out.report()


def test_the_image_as_acquired_is_not_fitted_beside_the_preprocessed_one(run, app, tmp_path, unchanged):
    """The other way about: the report would say that it is denoised, and that it is fitted as it is."""
    out = tmp_path / "out"
    words = (run.dataset, out, "participant", *QUICK, "--skip", "gibbs", "motion", "susceptibility", "tissue")
    assert app(*words).code == 0
    before = results(out)
    with unchanged(out):
        outcome = run("--estimators", "mle", given=False)
        assert outcome.code == 73
        assert "param-status_desc-lsq_dwimap.nii.gz exists and was made from another image" in outcome.err
    for path in out.glob("sub-01/dwi/*_dwimap.*"):  # as if it had been killed before a map was written
        path.unlink()
    refused = run(given=False)
    assert refused.code == 73
    assert "desc-preproc_dwi.nii.gz exists and was made from another image" in refused.err
    assert "Rician: found koay, expected none" in refused.err
    assert run("--overwrite", given=False).code == 0
    assert moved(out)[0] == {path: content for path, content in before.items() if "_dwimap" not in path.name}
    report = run.out.report()
    assert "The image is fitted as it is" in report
    assert "this run did nothing to it" in report
    assert "Rician mean" not in report
    assert not list(out.glob("sub-01/dwi/*desc-preproc*"))


def test_a_move_that_was_interrupted_is_refused_and_goes_on(run, tmp_path, monkeypatch):
    out = tmp_path / "out"
    assert run(given=False).code == 0
    before, rename, left = results(out), os.rename, iter(range(9))

    def stopping(source, target):
        if next(left, None) is None:
            raise OSError(5, "Input/output error", str(source))
        rename(source, target)

    monkeypatch.setattr(conflicts.os, "rename", stopping)
    broken = run("--overwrite")
    assert broken.code == 1
    assert "Input/output error" in broken.err
    monkeypatch.undo()
    assert len(moved(out)[0]) == 9
    refused = run()
    assert refused.code == 73
    assert "add --overwrite" in refused.err
    assert run("--overwrite").code == 0
    kept, folders = moved(out)
    assert kept == before
    assert len(folders) == 2


def test_of_runs_that_start_together_one_moves(run, tmp_path, monkeypatch):
    """Both planned to replace; the second comes when the first has moved and fitted."""
    from bidsfit.run import execution

    out, second = tmp_path / "out", {}
    assert run(given=False).code == 0
    replace_earlier = execution.replace_earlier

    def late(*arguments):
        monkeypatch.setattr(execution, "replace_earlier", replace_earlier)
        second["first"] = run("--overwrite", "-w", tmp_path / "w2")
        second["maps"] = results(out)
        return replace_earlier(*arguments)

    monkeypatch.setattr(execution, "replace_earlier", late)
    assert run("--overwrite").code == 0
    assert second["first"].code == 0
    assert len(moved(out)[1]) == 1
    maps = {path: content for path, content in results(out).items() if path.parent.name == "dwi"}
    assert maps == {path: second["maps"][path] for path in maps}


def test_the_group_level_and_later_fits_do_not_see_what_was_moved(run, masks, tmp_path):
    out = tmp_path / "out"
    run.dataset.write("participants.tsv", "participant_id\tgroup\nsub-01\tcontrol\n")
    assert run(given=False).code == 0
    assert run("--overwrite").code == 0
    (dated,) = moved(out)[1]
    assert run("--estimators", "mle").code == 0
    assert run(level="group").code in (0, 1)
    with_it = {path.name: path.read_text() for path in sorted(out.glob("group_*.[tj]s*"))}
    assert with_it
    shutil.move(dated, tmp_path / "elsewhere")
    for path in out.glob("group_*"):
        path.unlink()
    run(level="group")
    assert {path.name: path.read_text() for path in sorted(out.glob("group_*.[tj]s*"))} == with_it


@pytest.mark.parametrize("option", ["--reports-only", "--boilerplate-only"])
def test_overwrite_goes_with_a_run_that_fits(run, option):
    outcome = run("--overwrite", option)
    assert outcome.code == 64
    assert f"{option} and --overwrite contradict each other" in outcome.err


def test_a_disagreement_goes_with_either_of_its_fits_and_takes_no_other_along(run, tmp_path):
    out, narrow = tmp_path / "out", ("--bounds", "adc.D=0,0.002")
    assert run("--estimators", "lsq", "mle").code == 0
    before = results(out)
    apart = [path for path in before if "_stat-disagreementmle_desc-lsq_" in path.name]
    assert len(apart) == 2  # the map, and its sidecar
    assert run("--estimators", "mle", *narrow).code == 73
    assert run("--estimators", "mle", *narrow, "--overwrite").code == 0
    kept, _ = moved(out)
    assert set(apart) < set(kept)
    assert not any("_param-status_desc-lsq_" in path.name for path in kept)
    assert not any("_stat-disagreement" in path.name for path in results(out))
