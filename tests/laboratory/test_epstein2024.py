"""The paper, with trainings of a second."""

import csv
from dataclasses import replace

import numpy as np
import pytest

from bidsfit.laboratory.bench import Bench
from bidsfit.laboratory.epstein2024 import (
    BOUNDS,
    FIGURES,
    FIT_BOUNDS,
    NETWORKS,
    PAPER,
    RICIAN,
    TRUTH,
    bench_of,
    entries,
    recipes,
    setting,
    statements,
)
from bidsfit.laboratory.exhibits import evaluated
from bidsfit.laboratory.gallery import Gallery
from bidsfit.laboratory.paper import Options, Reproduction
from bidsfit.trust import monte_carlo


def short(steps, samples):
    """Recipes of so many steps, which start from one network instead of the best of 16."""

    def shortened(recipe, start):
        schedule = replace(recipe.schedule, steps=steps, validation=1000, checks=4, restarts=None)
        return replace(recipe, schedule=schedule, simulation=replace(recipe.simulation, samples=samples), start=start)

    found = recipes(quick=False)
    start = shortened(found[TRUTH].start, None)
    return {name: shortened(recipe, start) for name, recipe in found.items()}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Trainings are shared."""
    return tmp_path_factory.mktemp("epstein2024")


@pytest.fixture(autouse=True)
def light(monkeypatch):
    """What trained files say of their errors is not looked at here."""
    monkeypatch.setattr(monte_carlo, "LIGHT", monte_carlo.OF_FUNCTION)


def reproduction(folder, networks, points=(10, 10, 10)):
    bench = Bench(folder, networks=networks, options=bench_of(Options(folder)).options)
    return Reproduction(bench, Gallery(folder), points=points, realisations=50)


def test_the_figures_and_tables():
    assert list(FIGURES) == ["2", "3", "4", "6", "8", "9", "10", "11", "12", "alpha"]
    assert list(PAPER.tables) == ["claims", "means", "trainings"]
    assert PAPER.points == (10, 10, 10)
    assert PAPER.realisations == 500
    everything = list(statements())
    assert not any(one in everything[:i] for i, one in enumerate(everything))
    assert all(one.smallest not in one.others for one in everything)


@pytest.mark.parametrize("quick", [False, True])
def test_networks_differ_in_their_labels_alone(quick):
    """All start from the best of 16 that were trained on the truth at SNR 30."""
    found = recipes(quick)
    assert list(found) == list(NETWORKS)
    truth = found[TRUTH]
    assert truth.start.schedule.restarts == 16
    assert truth.start.simulation.snr_levels == (30,)
    assert (truth.schedule.steps, truth.schedule.batch) == (8_000 if quick else 150_000, 100)
    for name, recipe in found.items():
        assert (recipe.start, recipe.architecture, recipe.schedule) == (truth.start, truth.architecture, truth.schedule)
        labels = dict.fromkeys(("labels", "label_share", "label_bounds"))
        assert replace(recipe.simulation, **labels) == truth.simulation
        assert recipe.objective.output == "absolute"
        assert (recipe.simulation.labels is None) == (name in (TRUTH, "self-supervised"))
        assert recipe.simulation.labels is None or recipe.simulation.label_bounds == FIT_BOUNDS
    assert found["hybrid-0.25"].simulation.label_share == 0.25
    assert found["weighted-Dstar"].objective.only == "Dstar"
    assert found[TRUTH].objective.scale == "mean"
    np.testing.assert_allclose(setting(15.0).space.bounds.mean(axis=1), [0.3, 1.7, 80])  # the weights of the paper


def test_the_networks_share_a_start_at_both_snrs(folder):
    bench = reproduction(folder, recipes(quick=False)).bench
    keys = {bench.task(name, setting(snr)).start.key for name in NETWORKS for snr in (15.0, 30.0)}
    assert len(keys) == 1


def test_conventional_fits_reach_beyond_the_training(folder):
    run = reproduction(folder, {})
    fits = run.bench.estimate("mle", setting(15.0), setting(15.0).measure(np.array([[0.2, 1.5, 140.0]]), 200, 0))
    assert list(BOUNDS) == list(setting(15.0).space.names)
    assert 150 < fits[:, 2].max() <= FIT_BOUNDS["Dstar"][1]
    assert fits[:, 0].max() <= FIT_BOUNDS["f"][1]


@pytest.mark.slow
@pytest.mark.parametrize("name", FIGURES)
def test_pictures_are_written_with_their_numbers(folder, name):
    run = reproduction(folder, short(steps=20, samples=2000))
    FIGURES[name].parts[""](run, f"figure-{name}")
    for suffix in ("png", "svg"):
        assert (folder / f"figure-{name}.{suffix}").stat().st_size > 8_000
    with (folder / f"figure-{name}.csv").open(newline="") as stream:
        assert list(csv.DictReader(stream))


@pytest.mark.slow
def test_tables_are_written(folder):
    run = reproduction(folder, short(steps=20, samples=2000))
    for name, exhibit in PAPER.tables.items():
        exhibit.parts[""](run, name)
    with (folder / "claims.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == len(list(statements()))
    assert {row["result"] for row in rows} <= {"holds", "does not hold"}


def test_true_labels_shrink_and_fits_as_labels_do_not(tmp_path):
    """Less scatter and error in every parameter, and a D* that follows the truth least; where D is low, more bias."""
    run = reproduction(tmp_path, short(steps=600, samples=10_000), points=(4, 4, 4))
    truth, fits = evaluated(run, entries(TRUTH, RICIAN)).values()
    first, second = (one.summary(tuple(BOUNDS)) for one in (truth, fits))
    for name in BOUNDS:
        assert first[f"sd_{name}"] < 0.8 * second[f"sd_{name}"]
        assert first[f"rmse_{name}"] < second[f"rmse_{name}"]
    assert first["slope_Dstar"] < min(0.6, first["slope_f"], first["slope_D"], 0.8 * second["slope_Dstar"])
    low = truth.truth[:, 1] < 2
    assert np.abs(truth.bias[low, 1]).mean() > 1.1 * np.abs(fits.bias[low, 1]).mean()
