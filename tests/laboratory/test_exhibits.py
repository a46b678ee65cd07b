"""Kinds of figures and tables of papers, for estimators whose errors are known."""

import csv
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pytest

from bidsfit import models
from bidsfit.acquisition import Acquisition
from bidsfit.evaluation.experiments import Evaluation, Setting, true_points
from bidsfit.laboratory.evaluation import LEVELS
from bidsfit.laboratory.exhibits import (
    Claim,
    Entry,
    Number,
    averages,
    choices,
    courses,
    pairs,
    planes,
    sections,
    variation,
    verdicts,
)
from bidsfit.laboratory.gallery import Gallery
from bidsfit.laboratory.paper import Reproduction
from bidsfit.models.space import ParameterSpace
from bidsfit.simulation.simulator import Noise

SPACE = ParameterSpace(models.get("ivimlebihan"), {"f": (0.1, 0.5), "D": (0.4, 3.0), "Dstar": (10.0, 150.0)})
SETTING = Setting(SPACE, Acquisition([0.0, 10, 20, 50, 100, 200, 400, 800]), Noise(30.0, "rician"))
MIDDLE = SPACE.bounds.mean(axis=1)


@dataclass(frozen=True)
class Shrinking:
    """A bench whose estimators leave the share of every difference from the middle that is their name, and scatter.

    The first estimates differ between seeds by 0.1.
    """

    seed: int = 0
    sd: float = 0.02

    def evaluate(self, name, setting, truth, *, repeats, seed):
        mean = MIDDLE + float(name) * (truth - MIDDLE)
        sd = np.full_like(truth, self.sd) * SPACE.span
        return Evaluation(truth, mean, mean - truth, sd, np.hypot(mean - truth, sd), mean + 0.1 * self.seed)


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.setattr("bidsfit.laboratory.gallery.SUFFIXES", (".png",))
    return Reproduction(Shrinking(), Gallery(tmp_path), points=(4, 5, 6), realisations=50)


def entry(share):
    return Entry(f"leaves {share}", str(share), SETTING)


def read(path):
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


def assert_drawn(run, name):
    assert (run.gallery.folder / f"{name}.png").stat().st_size > 10_000
    return read(run.gallery.folder / f"{name}.csv")


def test_the_grid_is_that_of_the_paper(run):
    points = true_points(SPACE, run.points)
    assert [len(np.unique(column)) for column in points.T] == [4, 5, 6]
    np.testing.assert_allclose([points.min(axis=0), points.max(axis=0)], SPACE.bounds.T)


def test_courses_are_means_over_the_other_parameters(run):
    courses(run, "c", entries=[entry(0.5)], own=("own", dict.fromkeys(SPACE.names, entry(0.8))))
    rows = assert_drawn(run, "c")
    assert len(rows) == 2 * (4 + 5 + 6)
    for row in rows:
        j, share = SPACE.names.index(row["parameter"]), 0.5 if row["estimator"] == "leaves 0.5" else 0.8
        assert float(row["bias"]) == pytest.approx((1 - share) * (MIDDLE[j] - float(row["truth"])), abs=1e-4)
        assert float(row["sd"]) == pytest.approx(0.02 * SPACE.span[j], rel=1e-4)
        assert int(row["truths"]) == 120 / {"f": 4, "D": 5, "Dstar": 6}[row["parameter"]]


def test_truths_that_are_drawn_are_put_into_bins(run):
    """Half of them at the lower end: the first bin holds these, and bins without a truth hold no number."""
    low, truth = SPACE.bounds[:, 0], SPACE.sample(1000, np.random.default_rng(0))
    truth[:500] = low
    truth[500:, 0] = np.minimum(truth[500:, 0], MIDDLE[0])
    courses(run, "c", entries=[entry(0)], tested=SimpleNamespace(sample=lambda n, rng: truth))
    rows = [row for row in assert_drawn(run, "c") if row["parameter"] == "f"]
    assert len(rows) == LEVELS
    counts = [int(row["truths"]) for row in rows]
    assert counts[0] >= 500
    assert sum(counts) == 1000
    assert counts[-1] == 0
    assert rows[-1]["bias"] == "nan"
    inside = truth[truth[:, 0] < SPACE.bounds[0, 0] + SPACE.span[0] / LEVELS, 0]
    assert float(rows[0]["bias"]) == pytest.approx(MIDDLE[0] - inside.mean(), rel=1e-3)


@pytest.mark.parametrize("shown", [(), (("f", "D"),)])
def test_arrows_of_planes_leave_the_share_of_every_difference(run, shown):
    planes(run, "p", entries=[entry(0.5), entry(1)], shown=shown)
    rows = assert_drawn(run, "p")
    assert len(rows) == 2 * (4 * 5 if shown else 4 * 5 + 4 * 6 + 5 * 6)
    for row in rows:
        for place in ("first", "second"):
            middle = MIDDLE[SPACE.names.index(row[place])]
            share, true = float(row["estimator"].split()[1]), float(row[f"true_{place}"])
            assert float(row[f"mean_{place}"]) == pytest.approx(middle + share * (true - middle), rel=1e-4)


def test_all_truths_and_sections_of_two_entries(run):
    pairs(run, "all", first=entry(0.5), second=entry(1))
    assert len(assert_drawn(run, "all")) == 2 * 120
    sections(run, "s", first=entry(0.5), second=entry(1), parameter="D", places=(0, 3))
    rows = assert_drawn(run, "s")
    assert sorted({float(row["D"]) for row in rows}) == pytest.approx([0.4, 2.35])
    for row in rows:
        assert float(row["bias"]) == pytest.approx(0.5 * (MIDDLE[1] - float(row["D"])), rel=1e-4)
        assert float(row["sd"]) == 0


def test_errors_against_a_choice(run):
    choices(run, "c", entries={share: entry(share) for share in (0.25, 0.5, 1)}, choice="the share")
    rows = {(float(row["value"]), row["parameter"]): row for row in assert_drawn(run, "c")}
    assert float(rows[0.25, "D"]["bias"]) == pytest.approx(3 * float(rows[0.5, "D"]["bias"]) / 2, rel=1e-4)
    assert float(rows[1, "D"]["bias"]) == pytest.approx(0, abs=1e-9)


def test_averages_hold_slopes_and_rank_correlations(run):
    averages(run, "a", entries=[entry(0.5), entry(0)])
    rows = {(row["estimator"], row["parameter"]): row for row in read(run.gallery.folder / "a.csv")}
    for name in SPACE.names:
        assert float(rows["leaves 0.5", name]["slope"]) == pytest.approx(0.5)
        assert float(rows["leaves 0", name]["slope"]) == pytest.approx(0, abs=1e-9)
    first, second = read(run.gallery.folder / "a-correlations.csv")
    assert [float(first[key]) for key in ("f_D", "f_Dstar", "D_Dstar")] == pytest.approx([0, 0, 0], abs=1e-9)
    assert float(second["f_D"]) == 1  # what is always the same has collapsed


def test_trainings_from_other_seeds_are_compared(run):
    variation(run, "t", entries=[entry(0.5)])
    (row,) = read(run.gallery.folder / "t.csv")
    n = 4 * 5 * 6  # of each, deviations from the mean of three are -0.1, 0 and 0.1
    expected = np.sqrt(0.02 * n / (3 * n - 1)) / MIDDLE
    assert [float(row[name]) for name in SPACE.names] == pytest.approx(expected, rel=1e-5)


def test_claims_are_compared_with_our_numbers(run):
    """Where only the upper half counts, the bias of the shrinking estimator is half the distance from the middle."""
    half, whole = (Number(entry(share), "bias", "D") for share in (0.5, 1))
    above = [Number(entry(0.5), quantity, "f", (MIDDLE[0], np.inf)) for quantity in ("bias", "course")]
    slope = Number(entry(0.5), "slope", "D")
    verdicts(run, "v", claims=[Claim("true", whole, [half]), Claim("false", slope, [Number(entry(0), "slope", "D")])])
    true, false = read(run.gallery.folder / "v.csv")
    assert (true["result"], false["result"]) == ("holds", "does not hold")
    assert float(true["value"]) == pytest.approx(0, abs=1e-9)
    assert (float(false["value"]), float(false["other"])) == pytest.approx((0.5, 0), abs=1e-9)
    values = np.linspace(0.1, 0.5, 4)
    expected = 0.5 * (values[2:] - MIDDLE[0]).mean()
    assert [number.value(run) for number in above] == pytest.approx([expected, expected])
