"""The paper, with trainings of a second."""

import csv
import re
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from bidsfit.laboratory.bench import Bench
from bidsfit.laboratory.exhibits import Entry, evaluated
from bidsfit.laboratory.gallery import Gallery
from bidsfit.laboratory.gyori2022 import (
    ABNORMALITIES,
    FIGURES,
    HEALTHY,
    PAPER,
    PATIENT,
    POOL_READINGS,
    POOLED,
    S0_READINGS,
    TABLE_3,
    TRADITIONAL,
    TRAINED,
    entries,
    entry,
    setting,
    table_3,
)
from bidsfit.laboratory.paper import Reproduction
from bidsfit.laboratory.pools import SimulatedPools
from bidsfit.laboratory.results import Results
from bidsfit.phantom.tissue import RECIPES
from bidsfit.simulation.simulator import Simulation
from bidsfit.training.architectures import Perceptron
from bidsfit.training.forest import Growth, RandomForest
from bidsfit.training.objectives import Parameters, Relative
from bidsfit.training.recipe import Recipe
from bidsfit.training.trainer import Schedule
from bidsfit.trust import monte_carlo

TINY = {
    "network": Recipe(Perceptron(units=16), Parameters(), Schedule(steps=30, batch=256, validation=1024, checks=2)),
    "network-noise-free": Recipe(
        Perceptron(units=16, hidden_layers=3), Parameters(), Schedule(steps=30, batch=256, validation=1024, checks=2)
    ),
    "forest": Recipe(
        RandomForest(trees=3, samples_per_leaf=50), Relative(), Growth(validation=1024), Simulation(samples=4000)
    ),
}
#: Enough to see what the paper sees.
SMALL = {
    "network": Recipe(
        Perceptron(units=64), Parameters(), Schedule(steps=700, batch=512, peak_rate=8e-3, validation=4096, checks=5)
    )
}


PICTURES = {number + letter: make for number, one in FIGURES.items() for letter, make in one.parts.items()}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Trainings and pools are shared."""
    return tmp_path_factory.mktemp("gyori2022")


@pytest.fixture(autouse=True)
def light(monkeypatch):
    """What trained files say of their errors is not looked at here."""
    monkeypatch.setattr(monte_carlo, "LIGHT", monte_carlo.OF_FUNCTION)


@pytest.fixture
def run(folder):
    return reproduction(folder, TINY)


def reproduction(folder, recipes):
    pools = SimulatedPools(Results(folder / "results"), ("smt2", "smt3"), participants=2, shape=(32, 32, 2))
    bench = Bench(folder, pools, recipes=recipes, options={TRADITIONAL: {"s0": "measured"}})
    return Reproduction(bench, Gallery(folder), quick=True)


def read(path):
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_table_1_has_the_papers_21_estimators():
    assert len(TRAINED) == len({(one.label, one.setting.space.model.name) for one in TRAINED}) == 21
    kinds = Counter((one.estimator.split("-")[0], one.setting.space.model.name) for one in TRAINED)
    assert kinds == {("net", "smt2"): 10, ("forest", "smt2"): 7, ("net", "smt3"): 2, ("forest", "smt3"): 2}
    labels = {one.label for one in TRAINED if one.setting.space.model.name == "smt2"}
    assert {"net-uniform-inf", "net-healthy-WM-25", "net-mixed-5", "RF-healthy-inf", "RF-mixed-25"} < labels
    assert not {"net-mixed-inf", "net-healthy-WM-5", "RF-mixed-5"} & labels


def test_all_tables_and_figures_have_their_numbers():
    assert list(PAPER.tables) == ["1", "2", "3", "trainings"]
    assert list(FIGURES) == [*"123456", *[f"S{n}" for n in range(1, 17)], "contrast"]
    for exhibit in FIGURES.values():
        assert set(re.findall(r"(?:^|\. )([A-D]):", exhibit.caption)) == set(exhibit.parts) - {""}


def test_the_protocol_is_the_papers():
    noise_free, noisy = (setting("smt2", 25.0, reading) for reading in S0_READINGS)
    assert noise_free.acquisition.b_values.tolist() == [0, 1000, 2000, 3500, 5000]
    assert noise_free.acquisition.weights.tolist() == [1, 32, 32, 32, 32]
    truth = np.array([[0.5, 1.5]])
    signals = noise_free.measure(truth, 20_000, 0)
    np.testing.assert_array_equal(signals[:, 0], 1)  # S0 has no noise
    np.testing.assert_allclose(signals[:, 1:].std(axis=0), 1 / 25 / np.sqrt(32), rtol=0.03)
    signals = noisy.measure(truth, 20_000, 0)
    np.testing.assert_allclose(signals[:, 0].std(), 1 / 25 / np.sqrt(12), rtol=0.03)


def test_white_matter_of_the_phantom_is_above_abnormalities_3_and_4():
    middle = RECIPES["smt2"].middle()
    assert middle["vcyl"] > 0.60
    assert middle["lambda"] > 1.9


def test_pools_hold_what_they_say(run):
    pools = run.bench.pools
    healthy, wm, gm = (pools["smt2", name] for name in ("healthy", "wm", "gm"))
    assert wm.facts["Origin"]["Tissue"] == "WM"
    assert wm.samples[:, 0].mean() > 0.5 > gm.samples[:, 0].mean()
    assert healthy.participants == ("phantom-01", "phantom-02")
    assert len(healthy.samples) > len(wm.samples) + len(gm.samples)
    assert pools.get(("smt2", "uniform")) is None
    every = replace(pools, at_bounds=True)["smt2", "healthy"]
    low, high = every.space.bounds.T
    at_bound = np.any((every.samples == low) | (every.samples == high), axis=1)
    assert at_bound.any()
    assert len(every.samples) - len(healthy.samples) == at_bound.sum()


def test_who_is_tested_is_in_no_pool(run):
    place = setting("smt2", 25.0)
    assert (PATIENT.others, HEALTHY.others) == (POOLED, POOLED)
    patient, healthy = (replace(who, others=1).slice(run, place) for who in (PATIENT, HEALTHY))
    np.testing.assert_array_equal(patient.mask, healthy.mask)  # of one participant
    assert patient.region.sum() > 20
    assert not healthy.region.any()
    for name, value in zip(place.space.names, ABNORMALITIES["3"], strict=True):
        np.testing.assert_array_equal(patient.truth[name][patient.region], value)


def test_table_3_stands_beside_the_papers(folder, run, monkeypatch):
    values = {name: TABLE_3[name] for name in (TRADITIONAL, "forest-healthy")}
    monkeypatch.setattr("bidsfit.laboratory.gyori2022.TABLE_3", values)
    table_3(run, "table-3")
    rows = read(folder / "table-3.csv")
    assert len(rows) == len(values) * 6
    readings = [column for column in rows[0] if column not in ("estimator", "quantity", "paper")]
    assert readings == [f"{s0}, {pool}" for pool in POOL_READINGS for s0 in S0_READINGS]
    assert [float(row["paper"]) for row in rows] == [number for row in values.values() for number in row]
    found = {(row["estimator"], row["quantity"]): row for row in rows}
    for quantity in ("rmse_vcyl", "rmse_lambda"):  # needs no training: with noise in S0 the paper's numbers come out
        row = found["traditional", quantity]
        first, second = (float(row[f"{s0}, inside"]) for s0 in S0_READINGS)
        assert first < second == pytest.approx(float(row["paper"]), rel=0.05)
    row = found["traditional", "rmse_vcyl"]  # of no pool
    assert row[readings[0]] == row[readings[2]]
    assert found["RF-healthy", "bias_vcyl"][readings[0]] != found["RF-healthy", "bias_vcyl"][readings[2]]

    before = (folder / "table-3.csv").read_text()
    monkeypatch.setattr("bidsfit.training.store.train", lambda *_, **__: pytest.fail("trained again"))
    monkeypatch.setattr("bidsfit.laboratory.bench.evaluate", lambda *_, **__: pytest.fail("evaluated again"))
    monkeypatch.setattr("bidsfit.laboratory.pools.LeastSquares", lambda *_, **__: pytest.fail("fitted again"))
    table_3(reproduction(folder, TINY), "table-3")
    assert (folder / "table-3.csv").read_text() == before


@pytest.mark.parametrize("name", ["5A", *(pytest.param(n, marks=pytest.mark.slow) for n in PICTURES if n != "5A")])
def test_pictures_are_written_with_their_numbers(folder, run, name):
    PICTURES[name](run, f"figure-{name}")
    for suffix in ("png", "svg"):
        assert (folder / f"figure-{name}.{suffix}").stat().st_size > 8_000
    assert read(folder / f"figure-{name}.csv")
    assert len(run.gallery.figures) == 1


@pytest.mark.slow
def test_table_1_lists_every_estimator(folder, run):
    PAPER.tables["1"].parts[""](run, "table-1")
    rows = read(folder / "table-1.csv")
    assert [row["estimator"] for row in rows] == [one.label for one in TRAINED]
    assert all((row["rmse_vcsf"] != "") == (row["model"] == "smt3") for row in rows)


def test_another_seed_is_another_network(run):
    first, second = (replace(entry("net-uniform", seed=k), label=str(k)) for k in range(2))
    found = evaluated(run, [first, second])
    assert np.abs(found["0"].mean - found["1"].mean).max() > 0.01
    truths = evaluated(run, [Entry("0", TRADITIONAL, first.setting), Entry("1", TRADITIONAL, first.setting, seed=1)])
    np.testing.assert_array_equal(truths["0"].mean, truths["1"].mean)  # the signals are the same


@pytest.mark.slow
def test_at_low_snr_learned_estimates_of_abnormality_3_move_towards_white_matter(tmp_path):
    """Gyori et al.: at SNR 5 what was learned from simulations covers a subtle abnormality; a fit stays centred."""
    run = reproduction(tmp_path, SMALL)
    truth = np.array(ABNORMALITIES["3"])
    towards = np.sign(np.median(run.bench.pools["smt2", "wm"].samples, axis=0) - truth)[1]
    place = setting("smt2", 5.0)
    signals = place.measure(truth[None], 400, run.bench.seed)

    def shift_of_the_box(name):
        """How far the median of lambda lies towards white matter, in halves of the box."""
        low, median, high = np.percentile(run.bench.estimate(name, place, signals)[:, 1], [25, 50, 75])
        return towards * (median - truth[1]) / ((high - low) / 2)

    assert abs(shift_of_the_box(TRADITIONAL)) < 0.25
    for name in ("net-uniform", "net-healthy", "net-mixed", "net-wm"):
        assert shift_of_the_box(name) > 0.4


@pytest.mark.slow
def test_a_healthy_pool_makes_estimates_biased_and_smooth(tmp_path):
    found = evaluated(reproduction(tmp_path, SMALL), entries("net-uniform", "net-healthy"))
    uniform, healthy = (found[f"net-{name}-25"].summary(("vcyl", "lambda")) for name in ("uniform", "healthy"))
    assert healthy["bias_vcyl"] > 1.5 * uniform["bias_vcyl"]
    assert healthy["sd_vcyl"] < uniform["sd_vcyl"]


def test_a_name_of_a_figure_that_does_not_exist_is_refused(capsys):
    from bidsfit.cli.lab import main

    assert main(["reproduce", "gyori2022", "--figure", "S17"]) == 64
    assert "S16" in capsys.readouterr().err
