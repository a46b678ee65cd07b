"""The paper, with estimators whose efficiency is known, and a training of a second."""

import csv
from dataclasses import dataclass, field, replace

import numpy as np
import pytest

from bidsfit.evaluation.experiments import Evaluation, floor
from bidsfit.laboratory import mao2024
from bidsfit.laboratory.bench import Bench
from bidsfit.laboratory.gallery import Gallery
from bidsfit.laboratory.mao2024 import (
    CASES,
    FEWER,
    FITTED,
    LEAST_SQUARES,
    OBJECTIVES,
    PAPER,
    RELATIVE_SNRS,
    SEEDS,
    TRAINED,
    for_case,
    levels_of,
    recipe,
    setting,
)
from bidsfit.laboratory.paper import Reproduction
from bidsfit.simulation.distributions import Uniform
from bidsfit.training.recipe import load_recipe
from bidsfit.trust import monte_carlo


@dataclass(frozen=True)
class Known(Bench):
    """Networks with a bias of half the bound and half its standard deviation; least squares at the bound.

    The bias of the network of a seed is so many hundredths larger.
    """

    asked: list = field(default_factory=list)

    def evaluate(self, name, setting, truth, *, repeats, seed=0, trained_for=None):
        self.asked.append((name, setting.noise.snr, trained_for.noise.snr))
        bound, is_network = floor(setting, truth), name not in ("lsq", "dictionary")
        bias = bound * (0.5 + self.seed / 100) * is_network
        sd = bound * np.sqrt((repeats - 1) / repeats) * (0.5 if is_network else 1.1)
        return Evaluation(truth, truth + bias, bias, sd, np.hypot(bias, sd), truth)


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.setattr(mao2024, "SAMPLES", 40)
    return Reproduction(Known(tmp_path), Gallery(tmp_path), quick=True)


def read(path):
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


@pytest.mark.parametrize("model", ["ivim", "qmtgbloch"])
def test_objectives_start_and_train_alike(model):
    """Every one starts from the network of mse-crb, and a step has as many network evaluations."""
    made = {name: recipe(name, model) for name in OBJECTIVES}
    start = for_case(load_recipe("mse-crb"), CASES[model])
    assert all(one.start == start for one in made.values())
    alike = {
        (
            one.architecture,
            one.schedule.batch * one.simulation.realisations,
            one.schedule.validation * one.simulation.realisations,
            replace(one.schedule, batch=1, validation=1),
            replace(one.simulation, realisations=1),
        )
        for one in made.values()
    }
    assert len(alike) == 1
    assert len({one.objective for one in made.values()}) == len(OBJECTIVES)


def test_the_recipes_of_the_package_are_those_of_ivim():
    assert recipe("wvce, λ = 1") == load_recipe("bias-reduced")
    assert recipe("MSE-CRB").start == load_recipe("mse-crb")


def test_the_table_has_the_known_efficiency(run, tmp_path):
    PAPER.tables["1"].parts[""](run, "table-1")
    rows = read(tmp_path / "table-1.csv")
    assert len(rows) == (3 + 2 + 3) * (1 + len(OBJECTIVES))
    noise = 1 / run.repeats  # what the squared bias is corrected for
    for row in rows:
        is_network = row["estimator"] != LEAST_SQUARES
        low, middle, high = (float(row[f"bias2crb{part}"]) for part in ("_lowest", "", "_highest"))
        variance = 0.25 if is_network else 1.21
        assert float(row["variancecrb"]) == pytest.approx(variance)
        assert float(row["above_bound"]) == (0 if is_network else 1)
        biases = [(0.5 + seed / 100) ** 2 for seed in range(SEEDS)] if is_network else [0]
        expected = (min(biases), np.mean(biases), max(biases))
        assert (low, middle, high) == pytest.approx([b - noise * variance for b in expected], abs=1e-6)


@pytest.mark.parametrize(("number", "model", "told"), [("2", "mrffisp", 2), ("3", "qmtgbloch", 6)])
def test_tables_of_fingerprints_have_the_known_errors(number, model, told, run, tmp_path, monkeypatch):
    """Per cent of the truth, and relative to the bound."""
    monkeypatch.setattr(mao2024, "MEASURED", 20)
    PAPER.tables[number].parts[""](replace(run, quick=False), "table")
    rows = read(tmp_path / "table.csv")
    estimators = [*FITTED[model], *TRAINED]
    assert [row["estimator"] for row in rows] == told * estimators
    place = setting(model)
    truth = Uniform(place.space).sample(20, np.random.default_rng([0, 1]))
    percent = 100 * np.sqrt(np.mean((floor(place, truth) / truth) ** 2, axis=0))
    for row in rows:
        noise = 1 / max(mao2024.REALISATIONS // FITTED[model].get(row["estimator"], ("", 2))[1], 2)
        is_network = row["estimator"] in TRAINED
        sd, bias = (0.5, 0.51) if is_network else (1.1, 0.0)
        own = percent[place.space.names.index(row["parameter"])]
        assert float(row["sd_percent"]) == pytest.approx(sd * own, rel=1e-5)
        assert float(row["bias_percent"]) == pytest.approx(np.sqrt(max(bias**2 - noise * sd**2, 0)) * own, rel=1e-2)
        assert float(row["variancecrb"]) == pytest.approx(sd**2, rel=1e-5)
        assert (row["sd_percent_lowest"], row["sd_percent_highest"]) == (row["sd_percent"], row["sd_percent"])
        assert (row["bias_percent_lowest"] < row["bias_percent_highest"]) == is_network


@pytest.mark.parametrize("model", FITTED)
def test_fingerprints_are_trained_on_a_fixed_set(model):
    made, units = recipe("wvce, λ = 1", model), CASES[model].units or load_recipe("mse-crb").architecture.units
    assert made.simulation.samples == made.start.simulation.samples == CASES[model].samples
    assert made.architecture.units == made.start.architecture.units == units
    assert made.simulation.set_noise == "fresh"
    fewer = recipe("MSE-CRB", model, quick=True)
    assert fewer.simulation.samples * FEWER == made.simulation.samples


def test_what_is_fitted_has_the_bounds_of_the_model_on_the_side_of_the_networks(run):
    place = setting("qmtgbloch")
    bounds = mao2024.with_wide_bounds(run, place, "lsq").options["lsq"]["bounds"]
    assert bounds["m0s"] == place.space.model["m0s"].bounds != CASES["qmtgbloch"].bounds["m0s"]
    assert (*bounds["B1"],) == CASES["qmtgbloch"].bounds["B1"]
    assert (*bounds["f0"],) == CASES["qmtgbloch"].bounds["f0"]


def test_curves_are_of_networks_that_were_trained_once(run, tmp_path):
    mao2024.curves(run, "figure-1A", model="ivim")
    networks = [(at, trained_for) for name, at, trained_for in run.bench.asked if name != "lsq"]
    assert {at for at, _ in networks} == set(levels_of("ivim")) == {10, 15, 20, 30, 50, 70, 100}
    assert {trained_for for _, trained_for in networks} == {50}
    rows = read(tmp_path / "figure-1A.csv")
    assert len(rows) == len(RELATIVE_SNRS) * 3 * (1 + SEEDS * len(OBJECTIVES))
    assert (tmp_path / "figure-1A.svg").stat().st_size > 10_000


def test_histograms_are_of_all_seeds(run, tmp_path):
    mao2024.histograms(run, "figure-2B", model="smt2")
    rows = read(tmp_path / "figure-2B.csv")
    assert len(rows) == 2 * 2 * (1 + len(OBJECTIVES))
    spread = [float(row["p95"]) - float(row["p5"]) for row in rows if row["quantity"] == "bias2crb"]
    assert [s > 0.01 for s in spread] == [
        row["estimator"] != LEAST_SQUARES for row in rows if row["quantity"] == "bias2crb"
    ]
    assert (tmp_path / "figure-2B.png").stat().st_size > 10_000


def test_no_parameter_is_undetermined():
    """The bound is finite all over the bounds, so that no sample is left out of a mean."""
    for model in CASES:
        place = setting(model, min(RELATIVE_SNRS))
        corners = np.array(np.meshgrid(*place.space.bounds)).reshape(len(place.space.names), -1).T
        assert np.isfinite(floor(place, corners)).all()


def test_networks_are_kept_and_not_trained_for_every_snr(tmp_path, monkeypatch):
    monkeypatch.setattr(monte_carlo, "LIGHT", monte_carlo.OF_FUNCTION)
    monkeypatch.setattr(mao2024, "OBJECTIVES", {"wvce, λ = 1": OBJECTIVES["wvce, λ = 1"]})
    monkeypatch.setattr(mao2024, "SEEDS", 1)
    monkeypatch.setattr(mao2024, "FASTER", 200)
    run = Reproduction(Bench(tmp_path), Gallery(tmp_path), quick=True)
    low, high = (mao2024.efficiencies(run, "smt2", snr)["wvce, λ = 1"][0] for snr in (0.2, 2.0))
    assert len(list((tmp_path / "trained").glob("*.zip"))) == 1
    assert low.bias.mean() < high.bias.mean()  # relative to the bound, what the network does not know shows more
    monkeypatch.setattr("bidsfit.laboratory.bench.evaluate", lambda *_, **__: pytest.fail("evaluated again"))
    again = mao2024.efficiencies(run, "smt2", 0.2)["wvce, λ = 1"][0]
    np.testing.assert_array_equal(again.variance, low.variance)
