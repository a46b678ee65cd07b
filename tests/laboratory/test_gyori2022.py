"""The paper, with trainings of a second."""

import csv

import numpy as np
import pytest

from bidsfit.laboratory.bench import Bench
from bidsfit.laboratory.gallery import Gallery
from bidsfit.laboratory.gyori2022 import (
    ABNORMALITIES,
    ENTRIES,
    FIGURES,
    TABLE_3,
    TABLES,
    TRADITIONAL,
    Reproduction,
    setting,
)
from bidsfit.laboratory.pools import simulated_pools
from bidsfit.simulation.simulator import Simulation
from bidsfit.training.architectures import Perceptron
from bidsfit.training.forest import Growth, RandomForest
from bidsfit.training.objectives import Parameters, Relative
from bidsfit.training.recipe import Recipe
from bidsfit.training.trainer import Schedule

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


@pytest.fixture(scope="module")
def pools():
    found = {}
    for model in ("smt2", "smt3"):
        found |= simulated_pools(model, participants=2, shape=(32, 32, 2), snr=25.0, seed=0, threads=1, real=None)
    return found


def reproduction(folder, pools, recipes):
    bench = Bench(folder, pools, recipes=recipes, options={TRADITIONAL: {"s0": "measured"}})
    paper = Reproduction(bench, Gallery(folder), quick=True)
    paper.repeats, paper.box_repeats = 20, 400
    return paper


def read(path):
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_the_paper_has_21_trained_estimators():
    assert len(ENTRIES) == len(set(ENTRIES)) == 21
    assert {entry.model for entry in ENTRIES} == {"smt2", "smt3"}
    assert {entry.snr for entry in ENTRIES} == {5.0, 25.0, np.inf}
    assert {entry.estimator for entry in ENTRIES} >= {f"net-{d}" for d in ("uniform", "healthy", "mixed", "wm", "gm")}


def test_all_tables_and_figures_have_their_numbers():
    assert set(TABLES) == {"1", "2", "3"}
    assert list(FIGURES) == [*"123456", *[f"S{n}" for n in range(4, 17)]]


def test_the_protocol_is_the_papers():
    place = setting("smt2", 25.0)
    assert place.acquisition.b_values.tolist() == [0, 1000, 2000, 3500, 5000]
    assert place.acquisition.weights.tolist() == [1, 32, 32, 32, 32]
    truth = np.tile([[0.5, 1.5]], (20000, 1))
    signals = place.measure(truth, 1, 0)
    np.testing.assert_array_equal(signals[:, 0], 1)  # S0 has no noise
    np.testing.assert_allclose(signals[:, 1:].std(axis=0), 1 / 25 / np.sqrt(32), rtol=0.03)


def test_pools_hold_what_they_say(pools):
    wm, gm = (pools["smt2", name] for name in ("wm", "gm"))
    assert wm.facts["Origin"]["Tissue"] == "WM"
    assert wm.samples[:, 0].mean() > 0.5 > gm.samples[:, 0].mean()
    healthy = pools["smt2", "healthy"]
    assert healthy.participants == ("phantom-01", "phantom-02")
    assert len(healthy.samples) > len(wm.samples) + len(gm.samples)


def test_table_3_stands_beside_the_papers(tmp_path, pools):
    paper = reproduction(tmp_path, pools, TINY)
    paper.table_3()
    rows = read(tmp_path / "table3.csv")
    assert [row["estimator"] for row in rows] == [
        "traditional", "net-uniform", "net-healthy", "net-mixed", "RF-uniform", "RF-healthy", "RF-mixed",
    ]  # fmt: skip
    assert [float(row["paper_rmse_vcyl"]) for row in rows] == [values[0] for values in TABLE_3.values()]
    assert [float(row["paper_sd_lambda"]) for row in rows] == [values[-1] for values in TABLE_3.values()]
    traditional = {name: float(value) for name, value in rows[0].items() if "vcyl" in name or "lambda" in name}
    for parameter in ("vcyl", "lambda"):  # needs no training: the paper's numbers must come out
        assert traditional[f"rmse_{parameter}"] <= 1.03 * traditional[f"paper_rmse_{parameter}"]
    for row in rows:
        for p in ("vcyl", "lambda"):  # of every point; so the means obey it as an inequality
            assert float(row[f"rmse_{p}"]) <= float(row[f"bias_{p}"]) + float(row[f"sd_{p}"]) + 1e-6


def test_what_was_computed_is_gone_on_from(tmp_path, pools, monkeypatch):
    paper = reproduction(tmp_path, pools, TINY)
    paper.table_3()
    before = (tmp_path / "table3.csv").read_text()
    monkeypatch.setattr("bidsfit.training.store.train", lambda *_, **__: pytest.fail("trained again"))
    monkeypatch.setattr("bidsfit.laboratory.bench.evaluate", lambda *_, **__: pytest.fail("evaluated again"))
    reproduction(tmp_path, pools, TINY).table_3()
    assert (tmp_path / "table3.csv").read_text() == before


#: Figures of each kind; the first is drawn by default.
OF_EACH_KIND = ("1", "2", "4", "5", "6", "S14")


@pytest.mark.parametrize("number", ["1", *(pytest.param(n, marks=pytest.mark.slow) for n in OF_EACH_KIND[1:])])
def test_figures_are_written_twice(tmp_path_factory, pools, number):
    folder = tmp_path_factory.getbasetemp() / "gyori2022"  # trainings are shared
    paper = reproduction(folder, pools, TINY)
    FIGURES[number](paper, number)
    for suffix in ("png", "svg"):
        assert (folder / f"figure-{number}.{suffix}").stat().st_size > 10_000
    (section,) = paper.page()
    assert section.figures[0].title.startswith(f"Figure {number}")


@pytest.mark.slow
@pytest.mark.parametrize("number", [number for number in FIGURES if number not in OF_EACH_KIND])
def test_all_other_figures_are_written(tmp_path_factory, pools, number):
    folder = tmp_path_factory.getbasetemp() / "gyori2022"
    FIGURES[number](reproduction(folder, pools, TINY), number)
    assert (folder / f"figure-{number}.svg").stat().st_size > 10_000


@pytest.mark.slow
def test_table_1_lists_every_estimator(tmp_path_factory, pools):
    folder = tmp_path_factory.getbasetemp() / "gyori2022"
    reproduction(folder, pools, TINY).table_1()
    rows = read(folder / "table1.csv")
    assert len(rows) == 21
    assert all((row["rmse_vcsf"] != "") == (row["model"] == "smt3") for row in rows)


@pytest.mark.slow
def test_at_low_snr_learned_estimates_of_abnormality_3_move_towards_white_matter(tmp_path, pools):
    """Gyori et al.: at SNR 5 what was learned from simulations covers a subtle abnormality; a fit stays centred."""
    paper = reproduction(tmp_path, pools, SMALL)
    truth = np.array(ABNORMALITIES["3"])
    towards = np.sign(np.median(pools["smt2", "wm"].samples, axis=0) - truth)[1]
    place = setting("smt2", 5.0)
    signals = place.measure(truth[None], paper.box_repeats, paper.bench.seed)

    def shift_of_the_box(name):
        """How far the median of lambda lies towards white matter, in halves of the box."""
        low, median, high = np.percentile(paper.bench.estimate(name, place, signals)[:, 1], [25, 50, 75])
        return towards * (median - truth[1]) / ((high - low) / 2)

    assert abs(shift_of_the_box(TRADITIONAL)) < 0.25
    for name in ("net-uniform", "net-healthy", "net-mixed", "net-wm"):
        assert shift_of_the_box(name) > 0.4


@pytest.mark.slow
def test_a_healthy_pool_makes_estimates_biased_and_smooth(tmp_path, pools):
    paper = reproduction(tmp_path, pools, SMALL)
    found = paper.evaluate("smt2", 25.0, ("net-uniform", "net-healthy"))
    uniform, healthy = (found[name].summary(("vcyl", "lambda")) for name in ("net-uniform", "net-healthy"))
    assert healthy["bias_vcyl"] > 1.5 * uniform["bias_vcyl"]
    assert healthy["sd_vcyl"] < uniform["sd_vcyl"]


def test_a_name_of_a_figure_that_does_not_exist_is_refused(capsys):
    from bidsfit.cli.lab import main

    assert main(["reproduce", "gyori2022", "--figure", "S3"]) == 64
    assert "S4" in capsys.readouterr().err
