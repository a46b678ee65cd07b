"""From written maps to the tables and the page of repeatability and response, against values that are known."""

import csv
import dataclasses
import gc
import json
import math
import re
import shutil

import nibabel as nib
import numpy as np
import pytest
from scipy import stats

from bidsfit.bids.inputs import Folder, InputProblem
from bidsfit.cohort.analysis import compute
from bidsfit.cohort.design import Design, Excluded, Pair, Repeats
from bidsfit.cohort.methods import cohort_methods
from bidsfit.cohort.region_values import RegionValues
from bidsfit.cohort.tables import repeatability_rows, response_rows
from bidsfit.cohort.values import CohortValues, FitNotes, RegionParameter
from bidsfit.exceptions import UnknownNameError, UnusableInputError, UsageError
from bidsfit.reports.bibliography import cited, entries
from bidsfit.reports.group import write_group_page
from bidsfit.reports.group_records import GroupRecord
from bidsfit.run import cohort
from bidsfit.run.cohort import CohortChoice, analyse, describe, plan_cohort

SHAPE = (4, 4, 2)
UNITS = {"f": "1", "D": "mm^2/s", "Dstar": "mm^2/s"}
#: D in 10^-3 mm^2/s, at two sessions.
RETEST = {"01": (1.0, 1.02), "02": (1.2, 1.16), "03": (0.8, 0.81), "04": (1.1, 1.1), "05": (0.9, 0.93)}
TREATED = {"11": (1.0, 1.2), "12": (1.1, 1.12), "13": (0.9, 1.05)}
HEALTHY = {"21": (0.7,), "22": (0.75,), "23": (0.72,)}
GROUPS = {"retest": RETEST, "treated": TREATED, "healthy": HEALTHY}
COHORTS = {"repeatability": "group=retest", "treatment": "group=treated", "healthy": "group=healthy"}
WSD = math.sqrt(np.mean([(a - b) ** 2 / 2 for a, b in RETEST.values()]))


@pytest.fixture(scope="module", autouse=True)
def quick():
    """statsmodels collects garbage in every correction, which takes long among the objects of all tests."""
    gc.freeze()
    yield
    gc.unfreeze()


def nifti(path, data):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nib.Nifti1Image(data, np.diag([2, 2, 2, 1]))
    image.set_qform(image.affine, code=1)
    image.set_sform(image.affine, code=1)
    nib.save(image, path)


def write_fit(root, label, session, estimator, diffusion, training=None, settings=None):
    """Maps of a fit whose medians are known, as the participant level leaves them."""
    name = f"sub-{label}_ses-{session}"
    folder = root / "out" / f"sub-{label}" / f"ses-{session}" / "dwi"
    stem = f"{name}_model-ivim_param-{{}}_desc-{estimator.replace('-', '')}_dwimap".format
    spread = np.linspace(-0.1, 0.1, math.prod(SHAPE)).reshape(SHAPE) + 1
    for parameter, value in {"f": 0.1 * diffusion, "D": diffusion * 1e-3, "Dstar": 0.02}.items():
        nifti(folder / f"{stem(parameter)}.nii.gz", np.float32(value * spread))
        (folder / f"{stem(parameter)}.json").write_text(json.dumps({"Units": UNITS[parameter]}))
    nifti(folder / f"{stem('status')}.nii.gz", np.ones(SHAPE, np.uint8))
    content = {"Model": {"Parameters": {"Estimator": estimator, **(settings or {})}}}
    content["EstimationNotes"] = {"TrainedEstimator": training} if training else {}
    (folder / f"{stem('status')}.json").write_text(json.dumps(content))


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Maps of three groups by two estimators, the second of which gives everyone nearly the same. Read only."""
    root = tmp_path_factory.mktemp("study")
    rows = ["participant_id\tgroup"]
    training = {"Participants": ["sub-11", "sub-99"], "Distribution": "healthy", "DistributionDigest": "a"}
    for group, people in GROUPS.items():
        for label, values in people.items():
            rows.append(f"sub-{label}\t{group}")
            for session, value in enumerate(values, start=1):
                write_fit(root, label, session, "lsq", value)
                write_fit(root, label, session, "net-healthy", 1 + 0.1 * (value - 1), training)
    (root / "participants.tsv").write_text("\n".join(rows) + "\n")
    region = np.zeros(SHAPE, np.uint8)
    region[1:3, 1:3] = 1
    for group in (RETEST, TREATED, HEALTHY):
        for label in group:
            nifti(root / "rois" / f"sub-{label}" / "dwi" / f"sub-{label}_label-tumour_mask.nii.gz", region)
    return root


@pytest.fixture
def study(written, tmp_path):
    """A copy that may be changed."""
    return shutil.copytree(written, tmp_path / "study")


def run(root, **choice):
    plan = plan_cohort(root, root / "out", CohortChoice(**{**COHORTS, **choice}))
    return analyse(plan, root / "out", [Folder("rois", root / "rois")])


@pytest.fixture(scope="module")
def analysed(written, tmp_path_factory):
    """The study after its analysis, and what was said. Read only."""
    root = shutil.copytree(written, tmp_path_factory.mktemp("analysed") / "study")
    return root / "out", "\n".join(run(root))


def table(folder, name):
    with (folder / f"group_{name}.tsv").open() as file:
        return list(csv.DictReader(file, delimiter="\t"))


def only(rows, **what):
    (row,) = [row for row in rows if all(row[name] == value for name, value in what.items())]
    return row


def files(folder):
    return {path.name: path.stat().st_mtime_ns for path in folder.glob("group*")}


LSQ = {"estimator": "lsq", "region": "whole", "parameter": "D"}


# --- what is computed ------------------------------------------------------------------------------------------------


def test_repeatability_by_hand(analysed):
    row = only(table(analysed[0], "repeatability"), **LSQ)
    assert (row["n_participants"], row["freedom"], row["units"]) == ("5", "5", "mm^2/s")
    assert float(row["within_subject_sd"]) == pytest.approx(1e-3 * WSD, rel=1e-5)
    assert float(row["limit_normal"]) == pytest.approx(1e-3 * WSD * math.sqrt(2) * stats.norm.ppf(0.975), rel=1e-5)
    assert float(row["limit_student"]) == pytest.approx(1e-3 * WSD * math.sqrt(2) * stats.t.ppf(0.975, 5), rel=1e-5)
    assert (row["icc_form"], row["statistic"]) == ("ICC(1,1)", "median")


def test_response_by_hand(analysed):
    row = only(table(analysed[0], "response"), **LSQ)
    before, after = np.array(list(TREATED.values())).T
    test = stats.ttest_rel(after, before)
    assert float(row["mean_change"]) == pytest.approx(1e-3 * np.mean(after - before), rel=1e-5)
    assert float(row["p_value"]) == pytest.approx(test.pvalue, rel=1e-4)
    assert (row["n_increased_student"], row["n_decreased_student"]) == ("2", "0")
    assert row["changed"] == "sub-11, sub-13"


def test_the_response_is_set_against_the_change_of_the_untreated(analysed):
    row = only(table(analysed[0], "response"), **LSQ)
    treated, untreated = ([b - a for a, b in group.values()] for group in (TREATED, RETEST))
    assert int(row["n_untreated"]) == len(RETEST)
    assert float(row["untreated_change"]) == pytest.approx(np.mean(untreated) * 1e-3, abs=1e-9)
    difference = np.mean(treated) - np.mean(untreated)
    assert float(row["change_difference"]) == pytest.approx(difference * 1e-3, rel=1e-5)
    welch = stats.ttest_ind(treated, untreated, equal_var=False)
    assert float(row["change_difference_p_value"]) == pytest.approx(welch.pvalue, rel=1e-4)
    page = (analysed[0] / "group.html").read_text()
    assert "In 5 participants who were not treated D changed by" in page
    assert "against untreated" in page


def test_each_cohort_is_described_by_its_own_sessions(study):
    for label in TREATED:
        rows = "session_id\tcondition\nses-1\tpre\nses-2\tpost\n"
        (study / f"sub-{label}").mkdir(exist_ok=True)
        (study / f"sub-{label}" / f"sub-{label}_sessions.tsv").write_text(rows)
    plan = plan_cohort(study, study / "out", CohortChoice(**COHORTS))
    sessions = {one.name: one.sessions for one in cohort.cohorts(plan)}
    assert "label" in sessions["Repeated scans"]
    assert "condition" in sessions["Treated"]
    assert "participants" not in sessions["Treated"]  # one way for all three needs no count


def test_p_values_are_corrected_over_parameters_and_regions_of_an_estimator(study):
    run(study)
    holm = [row for row in table(study / "out", "response") if row["estimator"] == "lsq"]
    run(study, correction="none")
    plain = table(study / "out", "response")
    mine = [row for row in plain if row["estimator"] == "lsq"]
    p_values = sorted(float(row["p_value"]) for row in mine if row["p_value"] != "n/a")
    assert len(p_values) == 4  # D* does not change: f and D, in the region and in the whole mask
    assert min(float(r["adjusted_p_value"]) for r in holm if r["adjusted_p_value"] != "n/a") == pytest.approx(
        4 * p_values[0], rel=1e-6
    )
    assert {row["correction"] for row in mine} == {"none"}
    assert all(row["adjusted_p_value"] == row["p_value"] for row in mine)


def test_what_cannot_be_tested_says_why_and_the_rest_goes_on(analysed):
    page = (analysed[0] / "group.html").read_text()
    assert "All 3 participants changed by 0" in page
    assert not any(row["parameter"] == "Dstar" for row in table(analysed[0], "repeatability"))


def test_a_statistic_of_another_package_is_in_the_table_and_on_the_page(study, plugin):
    run(study)
    rows = table(study / "out", "repeatability")
    assert all(-1 <= float(row["concordance"]) <= 1 for row in rows)
    assert len({row["concordance"] for row in rows}) > 1
    described = json.loads((study / "out" / "group_repeatability.json").read_text())["concordance"]
    assert described["Description"] == "Lin's coefficient of the first two scans"
    assert "Concordance of the first two scans" in (study / "out" / "group.html").read_text()


def test_region_values_are_all_there(analysed):
    rows = table(analysed[0], "rois")
    n_images = 2 * (len(RETEST) + len(TREATED)) + len(HEALTHY)
    assert len(rows) == n_images * 2 * 2 * 3
    assert {row["source"] for row in rows if row["region"] == "whole"} == {"n/a"}


@pytest.mark.parametrize(("statistic", "in_words"), [("mean", "mean"), ("q75", "75th percentile")])
def test_the_mean_or_a_quantile_may_be_compared_instead_of_the_median(study, statistic, in_words):
    said = run(study, statistic=statistic)
    assert only(table(study / "out", "repeatability"), **LSQ)["statistic"] == statistic
    assert f"the {in_words} over the" in (study / "out" / "group.html").read_text()
    assert any("group.html" in words for words in said)


def row_of(participant, session, value, parameter="D", estimator="lsq", **changes):
    """A row of the table of regions."""
    numbers = dict.fromkeys(("mean", "q05", "q25", "q75", "q95"), value)
    counts = {"n_voxels": 9, "n_fitted": 9, "n_used": 9, "n_at_bound": 0, "n_prior_only": 0, "n_unlike_training": 0}
    counts["n_undetermined"] = 0
    fields = {**numbers, **counts, "sd": 0.1 * value, "correlation": math.nan, "median": value, **changes}
    names = {"model": "ivim", "estimator": estimator, "region": "tumour", "parameter": parameter}
    unit = "1" if parameter == "f" else "um^2/ms"
    image = f"sub-{participant}_ses-{session}"
    return RegionValues(participant, session, image, **names, unit=unit, source="", in_training=False, **fields)


def results(rows, design, trained=()):
    fits, values = FitNotes(trained=set(trained)), CohortValues(design)
    assert list(values.watch(rows)) == rows
    return compute(values, fits, "holm")


def design_of(retest=(), treated=(), healthy=(), patients=()):
    people = [*retest, *treated, *healthy, *patients]
    return Design(
        tuple(Repeats(label, ("1", "2")) for label in retest),
        tuple(Pair(label, "1", "2") for label in treated),
        tuple(healthy),
        tuple(patients),
        dict.fromkeys(people, "1"),
        {},
    )


def test_patients_are_scored_against_the_healthy_of_the_same_estimator():
    design = design_of(healthy=("1", "2", "3", "4"), patients=("9",))
    rows = [row_of(label, "1", 0.7 + 0.1 * int(label)) for label in ("1", "2", "3", "4")]
    rows += [row_of("9", "1", 1.5), row_of("9", "1", 7.0, estimator="bayes")]
    found = results(rows, design)
    (parameter,) = found.regions[0].parameters
    scored, alone = parameter.estimators
    healthy = np.array([0.8, 0.9, 1.0, 1.1])
    assert scored.normative.scores.z[0] == pytest.approx((1.5 - healthy.mean()) / healthy.std(ddof=1))
    assert scored.normative.patients == ("sub-9",)
    assert alone.normative is None
    assert "found 0" in alone.missing[0]


def test_estimators_are_compared_by_precision_and_by_whom_they_call():
    people = [str(i) for i in range(10, 18)]
    design = design_of(people[:5], people[5:])
    rows = []
    for i, label in enumerate(people):
        for session in "12":
            change = 0.0 if session == "1" else (0.5 if int(label) > 14 else 0.01 * (-1) ** i)
            for estimator, spread in (("lsq", 0.2), ("bayes", 0.1)):
                other = 0.0 if estimator == "lsq" else 0.3 * (session == "1") * (int(label) > 14)
                value = 1 + 0.05 * i + change + other + 0.02 * (session == "2") * i
                rows.append(row_of(label, session, value, estimator=estimator, sd=spread * value / (1 + 0.01 * i)))
    (parameter,) = results(rows, design).regions[0].parameters
    assert parameter.precision.names == ("lsq", "bayes")
    assert parameter.precision.means.tolist() == pytest.approx([5 * 1.035, 10 * 1.035])
    assert parameter.detections["student"].n_participants == 3
    assert parameter.detections["student"].detected[0] == 3
    assert [value.cohort for value in parameter.estimators[0].distributions] == [
        "repeated scans, first",
        "treated, before",
        "treated, after",
    ]


def test_the_whole_mask_has_no_parameter_to_noise_ratio():
    design = design_of(healthy=("1", "2", "3"), patients=("9",))
    rows = [row_of(label, "1", 1.0 + 0.1 * int(label), estimator=estimator) for label in "1239" for estimator in "ab"]
    assert results(rows, design).regions[0].parameters[0].precision is not None
    whole = [dataclasses.replace(row, region="whole") for row in rows]
    assert results(whole, design).regions[0].parameters[0].precision is None


def test_the_correlation_of_dstar_and_f():
    people = [str(i) for i in range(1, 7)]
    design = design_of(people)
    rows = []
    for i, label in enumerate(people):
        for session in "12":
            rows.append(row_of(label, session, 0.1 + 0.01 * i, "f"))
            rows.append(row_of(label, session, 20.0 - i + 0.1 * int(session), "Dstar", correlation=-0.5 - 0.01 * i))
    (found,) = results(rows, design).regions[0].confounding
    assert found.across.coefficient.value == pytest.approx(-1)
    assert (found.within, found.n_within) == (pytest.approx(-0.525), 6)
    assert found.latex == ("D^{*}", "f")


# --- warnings --------------------------------------------------------------------------------------------------------


def test_estimates_that_differ_less_between_participants_than_those_of_lsq_are_pointed_out(analysed):
    row = only(table(analysed[0], "repeatability"), **LSQ | {"estimator": "net-healthy"})
    assert "between participants by net-healthy is 10 % of that of lsq" in row["warnings"]
    assert "is no merit here" not in only(table(analysed[0], "repeatability"), **LSQ)["warnings"]


def test_estimators_that_know_a_participant_are_pointed_out(analysed):
    page = (analysed[0] / "group.html").read_text()
    assert "sub-11 was in the pool that net-healthy was trained on" in page
    assert "sub-99" not in page


def test_few_pairs_are_pointed_out_loudly(analysed):
    out, said = analysed
    assert "Only 5 participants have repeated scans" in said
    page = (out / "group.html").read_text()
    assert page.index("Only 5 participants") < page.index("QIBA asks for 35")


def test_settings_that_differ_are_pointed_out(study):
    write_fit(study, "03", 2, "lsq", 0.81, settings={"Noise": "gaussian"})
    said = "\n".join(run(study))
    assert "ivim by lsq: not all images were fitted with the same settings (Noise)" in said
    assert "ivim by net-healthy: not all" not in said


def test_networks_of_different_training_are_not_compared_without_a_warning(study):
    training = {"DistributionDigest": "a", "Noise": {"SNR": 28.0}}
    write_fit(study, "03", 2, "net-healthy", 0.981, training)
    assert (
        "ivim by net-healthy: not all images were fitted with the same settings (SNR of the training). Differences "
        "between them may be those of the settings. Fit all with one --training-snr"
    ) in "\n".join(run(study))


@pytest.mark.parametrize(
    ("response", "shows", "warns"), [(0.4, True, True), (0.7, True, False), (0.9, False, False), (1.3, True, False)]
)
def test_the_response_of_an_estimator_is_told_and_not_corrected_for(tmp_path, response, shows, warns):
    design = design_of(retest=("1", "2", "3"), treated=("7", "8", "9"))
    rows = [
        row_of(label, session, 1 + 0.1 * int(label) + 0.02 * int(session) * int(label), estimator=name, **expected)
        for label in ("1", "2", "3", "7", "8", "9")
        for session in ("1", "2")
        for name, expected in (("lsq", {}), ("net", {"response": response, "expected_bias": 0.1}))
    ]
    found = results(rows, design)
    plain, net = found.regions[0].parameters[0].estimators
    assert (net.expected_response, net.expected_bias) == (response, 0.1)
    assert np.isnan([plain.expected_response, plain.expected_bias]).all()
    assert net.response.mean_change.value == plain.response.mean_change.value
    for made, kind in ((repeatability_rows, ("median",)), (response_rows, ("median", "holm"))):
        first, second = made(found.quantities, *kind)
        assert "expected_response" not in first or math.isnan(first["expected_response"])
        assert (second["expected_response"], second["expected_bias"]) == (response, 0.1)
    page = write_group_page(tmp_path / "group.html", GroupRecord((), found.regions), about={}).read_text()
    words = f"By simulation {100 * response:.0f} % of a true change of D shows in estimates by net."
    assert (words in page) == shows
    assert ("cannot be seen at full size" in page) == warns
    assert "by lsq. Changes" not in page


@pytest.mark.parametrize(
    ("counts", "words"),
    [
        ({"n_unlike_training": 3}, "in 33 % of the voxels the data say hardly more than the training did"),
        ({"n_undetermined": 3}, "in 33 % of the voxels from which D is taken the data do not determine some parameter"),
        ({"n_prior_only": 3}, "in 33 % of the voxels from which D is taken the data say no more of some parameter"),
        ({"n_at_bound": 3}, "lies at a bound in 33 % of the voxels"),
        ({"n_at_bound": 1}, ""),
    ],
)
def test_voxels_that_say_little_are_pointed_out(counts, words):
    design = design_of(("1", "2"))
    rows = [row_of(label, s, int(label) + 0.1 * int(s), **counts) for label in "12" for s in "12"]
    found = results(rows, design, {("ivim", "lsq")}).quantities[
        RegionParameter("ivim", "lsq", "tumour", "D", "um^2/ms", "")
    ]
    assert len(found.warnings) == bool(words)
    assert all(words in warning for warning in found.warnings)


# --- what is left out, and what is refused ---------------------------------------------------------------------------


def test_a_region_that_a_session_lacks_is_listed_and_the_rest_goes_on(study):
    (study / "rois" / "sub-03" / "dwi" / "sub-03_label-tumour_mask.nii.gz").unlink()
    said = "\n".join(run(study))
    assert "sub-03: no values in the region tumour in ses-1" in said
    row = only(table(study / "out", "repeatability"), **LSQ | {"region": "tumour"})
    assert (row["n_participants"], row["n_left_out"]) == ("4", "1")
    assert only(table(study / "out", "repeatability"), **LSQ)["n_participants"] == "5"
    assert "no values in the region tumour" in (study / "out" / "group.html").read_text()


def test_regions_may_be_chosen(study):
    run(study, regions=("tumour",))
    assert {row["region"] for row in table(study / "out", "rois")} == {"tumour"}


def test_a_region_that_nobody_has_is_refused_and_nothing_is_written(study):
    with pytest.raises(UsageError, match="--regions liver: nobody has such a region"):
        run(study, regions=("tumour", "liver"))
    assert not [path for path in (study / "out").iterdir() if "group" in path.name]


@pytest.mark.parametrize(
    ("choice", "kind", "message"),
    [
        ({"participants": ("01", "77")}, UnknownNameError, "Unknown participant with maps '77'"),
        ({"models": ("adc",)}, UnusableInputError, "holds no maps to compare. Make them first: bidsfit"),
        ({"repeatability": "group=healthy", "treatment": None}, UnusableInputError, "--repeatability group=healthy"),
        ({"session_labels": ("1",)}, UnusableInputError, "nobody has"),
    ],
)
def test_what_was_asked_for_and_cannot_be_is_refused(written, choice, kind, message):
    with pytest.raises(kind, match=re.escape(message)):
        plan_cohort(written, written / "out", CohortChoice(**{**COHORTS, **choice}))


def test_a_study_that_identifies_nothing_has_an_empty_plan(written):
    plan = plan_cohort(written, written / "out", CohortChoice(session_labels=("1",), participants=("01", "02")))
    assert plan.empty
    assert describe(plan)[0].endswith("nothing to compare.")


def test_the_plan_in_words(written):
    said = "\n".join(describe(plan_cohort(written, written / "out", CohortChoice(**COHORTS))))
    assert "repeated scans: 5 participants (group=retest), sessions by label" in said
    assert "treated: 3 participants (group=treated)" in said
    assert "fits: ivim by lsq, ivim by nethealthy" in said


# --- files -----------------------------------------------------------------------------------------------------------


def test_every_table_has_a_json_file_that_says_what_its_columns_are(analysed):
    for name in ("rois", "repeatability", "response"):
        content = json.loads((analysed[0] / f"group_{name}.json").read_text())
        assert set(table(analysed[0], name)[0]) <= set(content)
        assert content["Design"]["treatment"] == "group=treated"


def test_the_same_again_changes_no_file(study):
    run(study)
    before = files(study / "out")
    run(study)
    assert files(study / "out") == before


def test_an_analysis_that_differs_is_kept_whole(study):
    run(study)
    out = study / "out"
    before = {path.name: path.read_bytes() for path in out.glob("group*")}
    write_fit(study, "01", 2, "lsq", 1.3)
    said = run(study)
    (kept,) = out.glob("group_earlier-*")
    assert {path.name: path.read_bytes() for path in kept.iterdir()} == before
    assert f"kept in {kept.name}/" in said[-1]
    assert (out / "group_rois.tsv").read_bytes() != before["group_rois.tsv"]
    assert set(before) < {path.name for path in out.glob("group*")}


def test_a_table_that_is_no_longer_made_does_not_stay_beside_the_new_ones(study):
    run(study)
    run(study, treatment=None, participants=tuple(RETEST))
    assert not (study / "out" / "group_response.tsv").exists()
    assert len(list((study / "out").glob("group_earlier-*/group_response.tsv"))) == 1


def test_a_failure_leaves_what_was_there(study, monkeypatch):
    run(study)
    before = files(study / "out")
    write_fit(study, "01", 2, "lsq", 1.3)

    def fail(*_, **__):
        raise OSError("No space left on device")

    monkeypatch.setattr(cohort, "write_group_page", fail)
    with pytest.raises(OSError, match="No space left"):
        run(study)
    assert files(study / "out") == before
    assert not list((study / "out").glob(".group*"))


# --- methods ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("correction", ["holm", "benjamini-hochberg", "none"])
def test_the_methods_cite_what_the_bibliography_has(correction):
    said = cohort_methods(design_of("12", "34", "567", "8"), "median", correction, 2)
    assert set(cited(said)) <= set(entries())
    assert ("[@benjamini1995]" in said) == (correction == "benjamini-hochberg")
    assert "2 participants who were scanned again" in said


def test_the_methods_tell_only_what_was_done():
    said = cohort_methods(design_of("12"), "mean", "holm", 1)
    assert "the mean over the fitted voxels" in said
    assert not any(word in said for word in ("McNemar", "Wilcoxon", "Crawford"))


def test_participants_who_were_left_out_for_the_same_reason_are_one_row_of_the_page():
    n = cohort.MOST_NAMES + 50
    excluded = tuple(Excluded(f"{i:04d}", "repeatability", "one session with maps") for i in range(n))
    design = Design(left_out=(*excluded, Excluded("a", "treatment", "no maps of ses-2")))
    found = cohort._left_out(design, [InputProblem("b", "no values"), InputProblem("c", "no values")])
    assert [(one.where, one.reason) for one in found] == [
        ("repeatability", "one session with maps"),
        ("treatment", "no maps of ses-2"),
        ("the values of regions", "no values"),
    ]
    names = found[0].what.split(", ")
    assert names[0] == "sub-0000"
    assert names[-1] == f"sub-{cohort.MOST_NAMES - 1:04d} and 50 more"
    assert len(names) == cohort.MOST_NAMES
    assert found[2].what == "sub-b, sub-c"
