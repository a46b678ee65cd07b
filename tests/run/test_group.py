"""The options of the group level, and what it says and refuses before anything is computed."""

import json
import shutil

import nibabel as nib
import numpy as np
import pytest

from bidsfit.bids.fitted import converged_voxels, voxels
from bidsfit.cli.app import parse
from bidsfit.run import pooling
from bidsfit.run.group import cohort_choice
from bidsfit.run.settings import settings_from
from bidsfit.simulation.distributions import pool

SHAPE = (6, 6, 2)


@pytest.fixture
def study(tiny, tmp_path):
    """``study(group=[(label, n_sessions), ...])``: a dataset of maps of ADC without images, and its outputs."""
    out = tmp_path / "out"
    out.mkdir()

    def write(**groups):
        rows = ["participant_id\tgroup"]
        for group, people in groups.items():
            for label, n_sessions in people:
                rows.append(f"sub-{label}\t{group}")
                for session in range(1, n_sessions + 1):
                    folder = out / f"sub-{label}" / f"ses-{session}" / "dwi"
                    folder.mkdir(parents=True)
                    stem = f"sub-{label}_ses-{session}_model-adc_param-{{}}_desc-lsq_dwimap".format
                    values = 1e-3 * (1 + 0.1 * int(label) + 0.01 * session * int(label) ** 2)
                    maps = {"adc": np.full(SHAPE, values, np.float32), "status": np.ones(SHAPE, np.uint8)}
                    for name, data in maps.items():
                        nib.save(nib.Nifti1Image(data, np.eye(4)), folder / f"{stem(name)}.nii.gz")
                        content = {"Units": "mm^2/s", "Model": {"Parameters": {"Estimator": "lsq"}}}
                        (folder / f"{stem(name)}.json").write_text(json.dumps(content))
        tiny.write("participants.tsv", "\n".join(rows) + "\n")
        return tiny, out

    return write


def choice(*words):
    words = ["/data", "/out", "group", *words]
    return cohort_choice(settings_from(parse(words), words))


@pytest.mark.parametrize(
    ("words", "name", "value"),
    [
        (["--repeatability", "group=retest"], "repeatability", "group=retest"),
        (["--treatment", "drug=yes"], "treatment", "drug=yes"),
        (["--sessions", "pre=ses-1", "post=ses-2"], "sessions", ("pre=ses-1", "post=ses-2")),
        (["--condition", "visit"], "condition", "visit"),
        (["--regions", "roi", "whole"], "regions", ("roi", "whole")),
        (["--statistic", "mean"], "statistic", "mean"),
        (["--statistic", "q75"], "statistic", "q75"),
        (["--correction", "benjamini-hochberg"], "correction", "benjamini-hochberg"),
        (["--participant-label", "sub-01", "2"], "participants", ("01", "2")),
        (["--session-label", "ses-1"], "session_labels", ("1",)),
        (["--model", "ivim"], "models", ("ivim",)),
        (["--healthy", "group=well"], "healthy", "group=well"),
    ],
)
def test_every_option_reaches_the_comparison(words, name, value):
    assert getattr(choice(*words), name) == value


@pytest.mark.parametrize("option", ["--repeatability", "--treatment", "--condition"])
def test_a_comparison_that_is_asked_for_must_be_made(option):
    assert choice(option, "a=b").asked
    assert not choice("--statistic", "mean", "--healthy", "a=b").asked


def test_repeatability_from_the_command_line(study, app):
    data, out = study(retest=[("1", 2), ("2", 2)], treated=[("3", 2), ("4", 1)])
    outcome = app(data, out, "group", "--treatment", "group=treated", "--nprocs", 1)
    assert outcome.code == 0, outcome.err
    assert "left out, treatment: sub-4: maps of one session only" in outcome.out
    assert "repeated scans: 2 participants (everyone with two sessions and no treatment)" in outcome.out
    assert "Only 2 participants have repeated scans" in outcome.out
    assert "No fits were pooled. No row of" in outcome.out
    assert "QIBA" in (out / "group.html").read_text()
    assert json.loads((out / "dataset_description.json").read_text())["DatasetType"] == "derivative"


def test_who_has_no_maps_is_named_and_the_others_are_used(study, app):
    """As after an array of which some tasks failed: all of sub-04, and one session of sub-03."""
    tiny, out = study(retest=[("01", 2), ("02", 2), ("03", 1)])
    for label, sessions in (("01", "12"), ("02", "12"), ("03", "12"), ("04", "1")):
        for session in sessions:
            tiny.add(f"sub-{label}/ses-{session}/dwi/sub-{label}_ses-{session}_dwi")
    outcome = app(tiny, out, "group", "--repeatability", "group=retest")
    assert outcome.code == 0
    assert "Without maps, as their runs failed or were not made: sub-03 ses-2, sub-04 ses-1." in outcome.out
    assert (out / "group.html").exists()


def test_what_is_above_the_datasets_says_nothing(study, app, tmp_path):
    data, out = study(healthy=[("1", 2), ("2", 2)])
    expected = app(data, out, "group", "--nprocs", 1)
    above = tmp_path / "sub-03" / "ses-2" / "func"
    above.mkdir(parents=True)
    shutil.rmtree(out)
    data, out = study(healthy=[("1", 2), ("2", 2)])
    shutil.move(data, above / "ds")
    shutil.move(out, above / "out")
    found = app(above / "ds", above / "out", "group", "--healthy", "group=healthy", "--nprocs", 1)
    assert found.code == expected.code == 0
    assert found.out == expected.out
    rows = (above / "out" / "group_rois.tsv").read_text().splitlines()
    assert {row.split("\t")[0] for row in rows[1:]} == {"sub-1", "sub-2"}


def test_a_dry_run_says_the_design_and_writes_nothing(study, app, unchanged):
    data, out = study(retest=[("1", 2), ("2", 2)], treated=[("3", 2), ("4", 1)])
    with unchanged(out):
        outcome = app(data, out, "group", "--treatment", "group=treated", "--regions", "liver", "--dry-run")
    assert outcome.code == 0
    assert "treated: 1 participant (group=treated)" in outcome.out
    assert "repeated scans: 2 participants" in outcome.out
    assert "fits: adc by lsq" in outcome.out
    assert "regions: liver; the median over their voxels; correction: holm" in outcome.out
    assert "left out, treatment: sub-4: maps of one session only" in outcome.out


def test_where_nothing_can_be_compared_the_pools_are_made_all_the_same(study, app):
    data, out = study(healthy=[("1", 1), ("2", 1)])
    outcome = app(data, out, "group")
    assert outcome.code == 0
    assert "adc, healthy: 144 voxels of 2 participants" in outcome.out
    assert "nothing to compare" in outcome.out
    assert not (out / "group.html").exists()


def test_where_nothing_at_all_can_be_done_that_is_refused(study, app):
    outcome = app(*study(other=[("1", 1)]), "group")
    assert outcome.code == 64
    assert "has group=control or group=healthy" in outcome.err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--repeatability", "group=other"], "--repeatability group=other needs 2 participants with maps of two"),
        (["--treatment", "group=none"], "Its column 'group' holds: healthy, other"),
        (["--sessions", "pre=ses-1", "post=ses-9"], "Unknown session (--sessions) '9'"),
        (["--sessions", "before=1", "post=2"], "--sessions takes pre=LABEL post=LABEL"),
        (["--condition", "visit"], "Unknown column of the tables of sessions"),
    ],
)
def test_what_was_asked_for_and_cannot_be_is_refused_before_anything_is_written(study, app, unchanged, words, message):
    data, out = study(healthy=[("1", 1), ("2", 1)], other=[("3", 1)])
    with unchanged(out):
        outcome = app(data, out, "group", *words)
    assert outcome.code in (18, 64, 65, 66)
    assert message in outcome.err


def test_participants_who_are_not_healthy_may_be_compared(study, app):
    data, out = study(healthy=[("1", 1)], retest=[("2", 2), ("3", 2), ("4", 2)])
    words = ["--repeatability", "group=retest", "--participant-label", "2", "3", "--nprocs", 1]
    outcome = app(data, out, "group", *words)
    assert outcome.code == 0, outcome.err
    assert "repeated scans: 2 participants (group=retest)" in outcome.out
    assert "No fits were pooled. Unknown healthy participant" in outcome.out


def test_of_large_images_no_more_voxels_are_held_than_are_pooled(study, monkeypatch):
    """And they are those that would be chosen of all."""
    monkeypatch.setattr(pooling, "MOST", 100)
    root, out = study(healthy=[("01", 2), ("02", 2), ("03", 2), ("04", 1)])
    (planned,), _ = pooling.plan_poolings(out, ["01", "02", "03", "04"], ["adc"], bids_dir=root)
    found = pooling._gather(planned, out, [])["healthy"].fits
    assert {name: len(values) for name, values in found.items()} == {f"sub-0{i}": 25 for i in range(1, 5)}
    everything = {}
    for image in planned.images:
        values = voxels(image, planned.model, converged_voxels(image)[1])
        everything.setdefault(f"sub-{image.participant}", []).append(values)
    every = {name: np.concatenate(parts) for name, parts in everything.items()}
    assert len(every["sub-01"]) == 2 * np.prod(SHAPE)
    expected = pool(planned.space, every, most=100, seed=pooling.SEED, origin={})
    np.testing.assert_array_equal(expected.samples, np.concatenate(list(found.values())))
