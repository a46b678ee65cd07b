"""From the participants' fits to the healthy distribution, to a trained estimator, and back to the participants."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from bidsfit import Status

pytestmark = pytest.mark.usefixtures("blank_figures")

RECIPE = "kind: network\nsteps: 60\nbatch: 256\nunits: 16\nvalidation: 2048\nchecks: 10\n"


def run(*words):
    from bidsfit.cli.app import main

    return main([str(word) for word in words])


@pytest.fixture(scope="module")
def study(tmp_path_factory, without_figures):
    """A phantom of two healthy participants and a patient, outputs with lsq maps, and the words of a run."""
    from bidsfit.cli.lab import main

    folder = tmp_path_factory.mktemp("trained")
    data, out = folder / "ds", folder / "out"
    size = ["--shape", "24", "24", "1", "--participants", "2", "--patients", "1"]
    assert main(["phantom", str(data), "--model", "smt2", *size]) == 0
    (folder / "tiny.yml").write_text(RECIPE)
    words = [
        data,
        out,
        "participant",
        "--preprocess",
        "none",
        "-d",
        f"truth={data / 'derivatives' / 'truth'}",
        "--skip-bids-validation",
    ]
    words += ["--nprocs", "1", "--model", "smt2", "--training-recipe", folder / "tiny.yml", "--estimators"]
    lsq = [word for word in words if word not in ("--training-recipe", folder / "tiny.yml")]
    with without_figures():
        assert run(*lsq, "lsq") == 0
    return data, out, words


@pytest.fixture(scope="module")
def pooled(study):
    """The study after its group level."""
    data, out, _ = study
    assert run(data, out, "group", "-d", f"truth={data / 'derivatives' / 'truth'}") == 0
    return study


@pytest.fixture(scope="module")
def uniform(study, without_figures):
    """The study after a run of net-uniform."""
    with without_figures():
        assert run(*study[2], "net-uniform") == 0
    return study


@pytest.fixture(scope="module")
def left_out(pooled, without_figures):
    """The study after a run of net-healthy that leaves out whom it fits: a healthy participant, and the patient."""
    with without_figures():
        assert run(*pooled[2], "net-healthy", "--leave-one-out", "--participant-label", "01", "03") == 0
    return pooled


def record(out, label, estimator):
    path = out / f"sub-{label}/figures/sub-{label}_model-smt2_desc-{estimator}_record.json"
    return json.loads(path.read_text())


# --- the group level -------------------------------------------------------------------------------------------------


def test_a_pool_is_made_first(study, app, tmp_path):
    data, out, words = study
    copy = tmp_path / "out"
    shutil.copytree(out, copy, ignore=shutil.ignore_patterns("work", "group_*", "trained"))
    outcome = app(data, copy, *words[2:], "net-healthy", "--dry-run")
    assert outcome.code == 64
    assert f"Make it first: bidsfit {data} {copy} group --model smt2" in outcome.err


def test_the_pools_hold_the_healthy_voxels(pooled, outputs, valid):
    _, out, _ = pooled
    status = [outputs(out).data(f"sub-{label}_model-smt2_param-status_desc-lsq_dwimap") for label in ("01", "02")]
    found = {kind: json.loads((out / f"group_model-smt2_desc-{kind}_distribution.json").read_text()) for kind in KINDS}
    voxels = {kind: content["Distribution"]["Voxels"] for kind, content in found.items()}
    assert voxels["healthy"] == {f"sub-0{i}": int((s == 1).sum()) for i, s in enumerate(status, start=1)}
    assert 0 < voxels["wm"]["sub-01"] + voxels["gm"]["sub-01"] < voxels["healthy"]["sub-01"]
    assert found["healthy"]["Healthy"] == "group=healthy"
    assert "bids:truth:sub-01/dwi/sub-01_dseg.nii.gz" in found["wm"]["Sources"]
    for kind in KINDS:
        assert (out / f"group_model-smt2_desc-{kind}_distribution.png").read_bytes().startswith(b"\x89PNG")
    assert valid(out)


KINDS = ("healthy", "wm", "gm")


def test_the_group_level_again_changes_nothing(pooled, app):
    data, out, _ = pooled
    before = {path: path.stat().st_mtime_ns for path in out.glob("group_*")}
    outcome = app(data, out, "group", "-d", f"truth={data / 'derivatives' / 'truth'}")
    assert outcome.code == 0
    assert "Healthy (group=healthy): 2 participants" in outcome.out
    assert before == {path: path.stat().st_mtime_ns for path in out.glob("group_*")}


def test_other_participants_give_another_pool_and_the_old_one_stays(pooled, app, tmp_path):
    data, out, _ = pooled
    copy = tmp_path / "out"
    shutil.copytree(out, copy, ignore=shutil.ignore_patterns("work", "*.html", "figures"))
    outcome = app(data, copy, "group", "--participant-label", "01")
    assert outcome.code == 0
    digest = json.loads((out / "group_model-smt2_desc-healthy_distribution.json").read_text())["Digest"]
    kept = copy / f"group_model-smt2_desc-healthy{digest[:8]}_distribution.json"
    assert f"is kept as {kept.name}" in outcome.out
    assert kept.with_suffix(".tsv.gz").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--healthy", "group=sane"], "Its column 'group' holds: healthy, patient"),
        (["--healthy", "age=3"], "Unknown column"),
        (["--model", "adc"], "holds no lsq maps of the model adc of healthy participants. Make them first: bidsfit"),
        (["--participant-label", "03"], "Unknown healthy participant"),
    ],
)
def test_what_cannot_be_pooled_is_refused(study, app, words, message):
    data, out, _ = study
    outcome = app(data, out, "group", *words)
    assert outcome.code in (18, 64, 65, 66)
    assert message in outcome.err


# --- the participant level -------------------------------------------------------------------------------------------


def test_one_training_serves_all_participants(uniform, outputs):
    _, out, _ = uniform
    (trained,) = (out / "trained").glob("model-smt2_desc-netuniform_snr-*.zip")
    for label in ("01", "02", "03"):
        found = outputs(out).sidecar(f"sub-{label}_model-smt2_param-vcyl_desc-netuniform_dwimap")
        notes = found["EstimationNotes"]["TrainedEstimator"]
        assert notes["File"] == trained.name
        assert found["Model"]["Parameters"]["Estimator"] == "net-uniform"
        assert found["Model"]["Parameters"]["TrainingRecipe"]["schedule"]["steps"] == 60
    assert (
        outputs(out).sidecar("sub-01_model-smt2_param-vcyl_stat-bias_desc-netuniform_dwimap")["StatisticOf"] == "vcyl"
    )


def test_an_estimator_that_reads_neighbours(study, uniform, outputs, app, tmp_path):
    """From a recipe to the file, the maps, the status and the report; its file fits as it is, with the same maps."""
    (tmp_path / "convolution.yml").write_text(
        "architecture:\n  name: convolution\n  units: 16\nobjective:\n  name: parameters\n"
        "schedule:\n  steps: 300\n  batch: 256\n  validation: 1024\n  checks: 5\n  peak_rate: 0.01\n"
    )
    data, *_ = study
    plain = [data, tmp_path / "out", "participant", "--preprocess", "none", "--skip-bids-validation", "--nprocs", "1"]
    plain += ["--model", "smt2", "-d", f"truth={data / 'derivatives' / 'truth'}", "--participant-label", "01"]
    outcome = app(*plain, "--training-recipe", tmp_path / "convolution.yml", "--estimators", "net-uniform")
    assert outcome.code == 0, outcome.err
    left = outputs(tmp_path / "out")
    name = "sub-01_model-smt2_param-{}_desc-netuniform_dwimap".format
    found, status = left.data(name("vcyl")), left.data(name("status"))
    mask = status > 0
    assert np.isfinite(found[mask]).all()
    assert set(np.unique(status[mask])) <= {Status.CONVERGED, Status.UNLIKE_TRAINING}
    np.testing.assert_array_equal(mask, outputs(uniform[1]).data(name("status")) > 0)
    truth = outputs(data / "derivatives" / "truth").data("sub-01_model-smt2_param-vcyl_desc-truth_dwimap")
    assert np.corrcoef(found[mask], truth[mask])[0, 1] > 0.8
    recipe = left.sidecar(name("vcyl"))["Model"]["Parameters"]["TrainingRecipe"]
    assert recipe["architecture"] == {"name": "convolution", "units": 16, "hidden_layers": 2}
    report = left.report()
    assert "architecture: convolution, units 16" in report
    assert "Look at small structures and edges with care" in report
    (file,) = (tmp_path / "out" / "trained").glob("*.zip")
    assert app(*plain, "--estimators", file).code == 0
    (again,) = left.folder.rglob("*_param-vcyl_desc-netuniform?*_dwimap.nii.gz")
    np.testing.assert_array_equal(nib.load(again).get_fdata(), found)


def test_the_report_says_what_it_was_trained_on(uniform, outputs):
    _, out, _ = uniform
    page = outputs(out).report()
    assert "What it was trained on" in page
    assert "every plausible combination of parameters alike" in page
    assert page.count('<figure class="bias"') == 2  # of the network and of what it is compared with
    assert "How far to believe it" in page
    assert "is missing." not in page
    assert record(out, "01", "netuniform")["trust"]["parameters"][0]["bias"] > 0


def test_again_nothing_is_trained_or_fitted(uniform, app):
    _, out, words = uniform
    fits = list((out / "work").rglob("fit_*.safetensors"))
    before = {path: path.stat().st_mtime_ns for path in (*fits, *(out / "trained").glob("*.zip"))}
    assert fits
    assert app(*words, "net-uniform").code == 0
    assert before == {path: path.stat().st_mtime_ns for path in before}


def test_a_participant_is_left_out_of_the_own_training(left_out, outputs):
    _, out, _ = left_out
    rows = {label: record(out, label, "nethealthy") for label in ("01", "03")}
    assert rows["01"]["training"]["participants"] == ["sub-02"]
    assert rows["03"]["training"]["participants"] == ["sub-01", "sub-02"]
    assert not any("--leave-one-out" in words for row in rows.values() for words in row["warnings"])
    pools = [
        outputs(out).sidecar(f"sub-{label}_model-smt2_param-vcyl_desc-nethealthy_dwimap")["Model"]["Parameters"]
        for label in rows
    ]
    assert pools[0]["TrainingPool"] == f"{pools[1]['TrainingPool']} without sub-01"


def test_the_plan_says_who_trains(pooled, app):
    outcome = app(*pooled[2], "net-wm", "net-mixed", "--leave-one-out", "--training-snr", "inf", "--dry-run")
    assert "net-wm: trained on the fits of 1 participant (without sub-*), with no noise" in outcome.out
    assert "net-mixed: trained on the plausible space of the model and the fits of 2 participants" in outcome.out


def test_whoever_is_in_the_pool_is_warned(pooled):
    _, out, words = pooled
    assert run(*words, "net-mixed", "--participant-label", "01", "03") == 0
    lean = ["lean on the participant's own fits" in str(record(out, x, "netmixed")["warnings"]) for x in ("01", "03")]
    assert lean == [True, False]


def test_other_settings_are_refused(uniform, app):
    _, _, words = uniform
    outcome = app(*words, "net-uniform", "--training-seed", "3")
    assert outcome.code == 73
    assert "was made with other settings (TrainingSeed: " in outcome.err


# --- a file of the user ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def file(uniform, tmp_path_factory):
    """A trained file of the user."""
    (trained,) = (uniform[1] / "trained").glob("model-smt2_desc-netuniform_*.zip")
    return Path(shutil.copy(trained, tmp_path_factory.mktemp("user") / "mine.zip"))


def test_a_trained_file_is_used_as_it_is(uniform, file, outputs, app):
    from bidsfit.training.bundle import read_facts

    _, out, words = uniform
    label = read_facts(file)["Checksum"][:6]
    rest = [word for word in words if not str(word).endswith(".yml") and word != "--training-recipe"]
    outcome = app(*rest, file, "--participant-label", "01")
    assert outcome.code == 0
    assert f"net-uniform-{label}: as mine.zip was trained" in outcome.out
    given = outputs(out).data(f"sub-01_model-smt2_param-vcyl_desc-netuniform{label}_dwimap")
    np.testing.assert_array_equal(given, outputs(out).data("sub-01_model-smt2_param-vcyl_desc-netuniform_dwimap"))
    assert len(list((out / "trained").glob("*netuniform*.zip"))) == 1


def test_options_of_a_training_are_none_of_a_trained_file(uniform, file, app):
    outcome = app(*uniform[2], file)
    assert outcome.code == 64
    assert "has the option --training-recipe" in outcome.err


def test_a_file_of_another_model_or_no_file_is_refused(uniform, file, app, tmp_path):
    data, out, _ = uniform
    outcome = app(data, out, "participant", "--preprocess", "none", "--model", "adc", "--estimators", file)
    assert "it was trained for the model 'smt2'" in outcome.err
    (tmp_path / "bad.zip").write_bytes(b"PK nothing")
    outcome = app(data, out, "participant", "--estimators", tmp_path / "bad.zip")
    assert outcome.code == 65
    assert "it is damaged, or no file of that kind" in outcome.err
    outcome = app(data, out, "participant", "--estimators", tmp_path / "none.zip")
    assert "none.zip does not exist" in outcome.err


def test_weights_that_are_no_numbers_leave_no_map(uniform, file, app, tmp_path):
    """The checksum is right: what is wrong is found before anything runs."""
    from bidsfit.training.bundle import read_bundle, write_bundle

    bundle = read_bundle(file)
    bundle.machine["0.weight"][0, 0] = np.nan
    own = ("Format", "Version", "Files", "Checksum")
    facts = {name: value for name, value in bundle.facts.items() if name not in own}
    write_bundle(tmp_path / "nan.zip", replace(bundle, facts=facts))
    words = [uniform[0], tmp_path / "out", "participant", "--preprocess", "none", "--skip-bids-validation"]
    outcome = app(*words, "--estimators", tmp_path / "nan.zip")
    assert outcome.code == 65
    assert "nan.zip cannot be used as a trained estimator" in outcome.err
    assert "0.weight holds something that is not a finite number" in outcome.err
    assert outcome.err.count("\n") == 1
    assert not list(tmp_path.rglob("*.nii.gz"))


def test_another_protocol_is_refused_with_its_b_values(file, app, tmp_path):
    from bidsfit.cli.lab import main

    data = tmp_path / "other"
    size = ["--shape", "16", "16", "1", "--participants", "1", "--patients", "0"]
    assert main(["phantom", str(data), "--model", "smt2", *size, "--b-values", "0", "1000", "2500"]) == 0
    words = [
        data,
        tmp_path / "out",
        "participant",
        "--preprocess",
        "none",
        "--skip-bids-validation",
        "--model",
        "smt2",
        "--estimators",
        file,
    ]
    outcome = app(*words, "--dry-run")
    assert outcome.code == 65
    assert "was trained for b = 2000, 3500, 5000 s/mm², which the protocol does not have" in outcome.err
    assert "it was not trained for b = 2500 s/mm²" in outcome.err


def test_sessions_are_fitted_by_estimators_of_one_training(tiny, app, tmp_path, outputs, unchanged):
    """Of SNR 10 and 40, which alone would have levels of their own."""
    for session, sigma in (("1", 100), ("2", 25)):
        noise = np.random.default_rng(0).normal(0, sigma, (*tiny.SHAPE, len(tiny.B_VALUES)))
        stem = f"sub-01/ses-{session}/dwi/sub-01_ses-{session}_dwi"
        tiny.add(stem, data=(tiny.signals() + noise).astype(np.float32))
    (tmp_path / "tiny.yml").write_text(RECIPE)
    recipe = ("--training-recipe", tmp_path / "tiny.yml", "--estimators", "lsq", "net-uniform")
    words = (
        tiny,
        tmp_path / "out",
        "participant",
        "--preprocess",
        "none",
        "--model",
        "adc",
        "--nprocs",
        1,
        "--trust",
        "off",
        *recipe,
    )

    def level(out, session):
        notes = outputs(out).sidecar(f"sub-01_ses-{session}_model-adc_param-status_desc-netuniform_dwimap")
        trained = notes["EstimationNotes"]["TrainedEstimator"]
        return trained["Noise"]["SNR"], trained["Checksum"]

    assert app(*words, "--skip-bids-validation").code == 0
    out = tmp_path / "out"
    assert level(out, "1") == level(out, "2")
    assert len(list((out / "trained").glob("*.zip"))) == 1
    before = outputs(out).maps()
    (lost := outputs(out).path("sub-01_ses-2_model-adc_param-adc_desc-netuniform_dwimap")).unlink()
    assert app(*words, "--skip-bids-validation").code == 0
    assert lost.exists()
    assert outputs(out).maps() == before
    for session in ("1", "2"):
        alone = (words[0], tmp_path / f"alone{session}", *words[2:], "--session-label", session)
        assert app(*alone, "--skip-bids-validation").code == 0
    alone = level(tmp_path / "alone1", "1")[0], level(tmp_path / "alone2", "2")[0]
    assert alone[0] < level(out, "1")[0] < alone[1]
