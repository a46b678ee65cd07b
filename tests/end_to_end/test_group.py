"""A study of repeatability and treatment through the whole pipeline, against the truth that it was made from."""

import csv
import math
from itertools import pairwise

import pytest

#: Few participants who respond a lot, so that the test is short.
SMALL = ["--retest", 3, "--treated", 3, "--shape", 20, 20, 2, "--snr", 100, "--effect", "D=30", "f=60", "Dstar=0"]
LARGE = ["--retest", 10, "--treated", 8, "--shape", 24, 24, 2, "--snr", 80, "--effect", "D=30", "f=60", "Dstar=0"]


def run(*words):
    from bidsfit.cli.app import main

    return main([str(word) for word in words])


def analysed(folder, without_figures, size, *options):
    """A study that was simulated, fitted and analysed, with the figures of the group: the dataset and the outputs."""
    from bidsfit.cli.lab import main

    data, out = folder / "ds", folder / "out"
    words = ["phantom", data, "--model", "ivim", "--study", "repeatability", *size]
    assert main([str(word) for word in words]) == 0
    truth = ["-d", f"truth={data / 'derivatives' / 'truth'}", "--nprocs", 1]
    fit = ["--preprocess", "none", "--model", "ivim", "--skip-bids-validation"]
    with without_figures():
        assert run(data, out, "participant", *truth, *fit, *options) == 0
    cohorts = ["--repeatability", "group=retest", "--treatment", "group=treated", "--regions", "roi"]
    assert run(data, out, "group", *truth, *cohorts) == 0
    return data, out


@pytest.fixture(scope="module")
def small(tmp_path_factory, without_figures):
    return analysed(tmp_path_factory.mktemp("small"), without_figures, SMALL, "--estimators", "lsq", "segmented")


def table(path):
    with path.open() as file:
        return list(csv.DictReader(file, delimiter="\t"))


class Truth:
    """True medians of the region, by participant, in order of session."""

    def __init__(self, data, parameter):
        self.values = {}
        self.groups = {}
        for row in table(data / "derivatives" / "truth" / "group_truth.tsv"):
            if (row["region"], row["parameter"]) == ("roi", parameter):
                self.values.setdefault(row["participant_id"], []).append(float(row["median"]))
                self.groups[row["participant_id"]] = row["group"]

    def differences(self, group):
        return [b - a for who, values in self.values.items() if self.groups[who] == group for a, b in pairwise(values)]

    @property
    def wsd(self):
        differences = self.differences("retest")
        return math.sqrt(sum(d**2 / 2 for d in differences) / len(differences))

    @property
    def change(self):
        changes = self.differences("treated")
        return sum(changes) / len(changes)


def found(out, name, estimator, parameter):
    (row,) = [
        row
        for row in table(out / f"group_{name}.tsv")
        if (row["estimator"], row["parameter"], row["region"]) == (estimator, parameter, "roi")
    ]
    return row


@pytest.mark.parametrize("estimator", ["lsq", "segmented"])
@pytest.mark.parametrize("parameter", ["D", "f"])
def test_the_planted_response_and_the_scatter_are_found(small, estimator, parameter):
    data, out = small
    recovered(data, out, estimator, parameter)


def recovered(data, out, estimator, parameter):
    """Response and scatter agree with those of the true medians of the very same participants."""
    truth = Truth(data, parameter)
    response, repeated = found(out, "response", estimator, parameter), found(out, "repeatability", estimator, parameter)
    assert float(response["mean_change"]) == pytest.approx(truth.change, rel=0.25)
    assert float(response["mean_change_lower"]) < truth.change < float(response["mean_change_upper"])
    assert float(repeated["within_subject_sd_lower"]) < truth.wsd < float(repeated["within_subject_sd_upper"])
    n_treated = len(truth.differences("treated"))
    assert (int(response["n_participants"]), int(repeated["n_participants"])) == (
        n_treated,
        len(truth.differences("retest")),
    )


def test_every_value_is_near_its_truth(small):
    data, out = small
    truth = Truth(data, "D")
    rows = [r for r in table(out / "group_rois.tsv") if (r["estimator"], r["parameter"]) == ("lsq", "D")]
    assert len(rows) == sum(map(len, truth.values.values()))
    for row in rows:
        expected = truth.values[row["participant_id"]][int(row["session_id"].removeprefix("ses-")) - 1]
        assert float(row["median"]) == pytest.approx(expected, rel=0.1)


def test_the_outputs_are_a_valid_dataset_with_a_page_that_needs_nothing_else(small, valid):
    _, out = small
    assert valid(out)
    page = (out / "group.html").read_text()
    assert "Sentences for a paper" in page
    assert "sub-05" in page
    assert "http" not in page.split("<main")[0].replace("http://www.w3.org", "")
    assert not [name for name in (' src="http', "<link", "@import") if name in page]


def test_the_group_level_again_changes_no_table_and_no_page(small, app):
    data, out = small
    names = ["group.html", "group_rois.tsv", "group_repeatability.tsv", "group_response.tsv"]
    before = {name: (out / name).stat().st_mtime_ns for name in names}
    cohorts = ["--repeatability", "group=retest", "--treatment", "group=treated", "--regions", "roi"]
    truth = ["-d", f"truth={data / 'derivatives' / 'truth'}", "--nprocs", 1]
    assert app(data, out, "group", *truth, *cohorts).code == 0
    assert {name: (out / name).stat().st_mtime_ns for name in names} == before
    assert not list(out.glob("group_earlier-*"))


@pytest.fixture(scope="module")
def large(tmp_path_factory, without_figures):
    estimators = ["lsq", "segmented", "bayes", "net-uniform"]
    options = ["--estimators", *estimators, "--training-recipe", "network-quick"]
    return analysed(tmp_path_factory.mktemp("large"), without_figures, LARGE, *options)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("estimator", ["lsq", "segmented", "bayes"])
@pytest.mark.parametrize("parameter", ["D", "f"])
def test_every_classical_estimator_finds_the_response(large, estimator, parameter):
    data, out = large
    recovered(data, out, estimator, parameter)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("parameter", ["D", "f"])
def test_a_quickly_trained_network_finds_the_direction_of_the_response(large, parameter):
    data, out = large
    response = found(out, "response", "net-uniform", parameter)
    assert float(response["mean_change_lower"]) > 0
    assert float(response["mean_change"]) == pytest.approx(Truth(data, parameter).change, rel=0.5)
    assert "net-uniform" in (out / "group.html").read_text()
