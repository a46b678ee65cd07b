"""A task: the same task is found again, and no other is taken for it."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from bidsfit import Acquisition, companions, estimators, models
from bidsfit.models.space import ParameterSpace
from bidsfit.phantom.directions import spread_directions
from bidsfit.simulation.distributions import Mixture, Pooled, Uniform
from bidsfit.simulation.images import MOST_VOXELS, ImageVoxels, as_single
from bidsfit.simulation.simulator import Noise, Simulation
from bidsfit.training.architectures import Perceptron
from bidsfit.training.bundle import read_bundle
from bidsfit.training.forest import Growth, RandomForest
from bidsfit.training.objectives import Logits, Parameters, Relative, Signals
from bidsfit.training.recipe import Recipe, load_recipe, recipe_facts, recipe_from
from bidsfit.training.store import Store
from bidsfit.training.task import Task, fit, train
from bidsfit.training.trainer import Schedule
from bidsfit.trust import monte_carlo

SPACE = ParameterSpace(models.get("smt2"))
B, COUNTS = (0, 1000, 2000, 3500, 5000), (8, 32, 32, 32, 32)


def acquisition(b=B, counts=COUNTS, directions=(1, 32, 32, 32, 32)):
    return Acquisition(b, counts=counts, n_directions=directions)


def pooled(seed=0, n=200):
    samples = np.random.default_rng(seed).uniform((0.1, 0.5), (0.9, 2.5), (n, 2))
    return Pooled(SPACE, samples, np.arange(n) % 2, ("sub-01", "sub-02"))


TINY = Recipe(
    Perceptron(units=16, hidden_layers=1), Parameters(), Schedule(steps=60, batch=256, validation=1024, checks=6)
)
BASE = Task(Uniform(SPACE), acquisition(), Noise(25.0, "rician"), TINY, seed=3)

OTHERS = {
    "seed": replace(BASE, seed=4),
    "snr": replace(BASE, noise=Noise(24.0, "rician")),
    "no noise": replace(BASE, noise=Noise(np.inf, "rician")),
    "noise": replace(BASE, noise=Noise(25.0, "gaussian")),
    "lowest": replace(BASE, noise=Noise(25.0, "rician", lowest=False)),
    "units": replace(BASE, recipe=replace(TINY, architecture=Perceptron(units=17, hidden_layers=1))),
    "loss": replace(BASE, recipe=replace(TINY, objective=Logits())),
    "kind": replace(BASE, recipe=Recipe(RandomForest(), Relative(), Growth(), Simulation(samples=393216))),
    "depth": replace(BASE, recipe=Recipe(RandomForest(depth=20), Relative(), Growth(), Simulation(samples=393216))),
    "b-values": replace(BASE, acquisition=acquisition(b=(0, 1000, 2000, 3500, 5001))),
    "counts": replace(BASE, acquisition=acquisition(counts=(8, 32, 32, 32, 31))),
    "echo times": replace(
        BASE, acquisition=Acquisition(B, counts=COUNTS, n_directions=(1, 32, 32, 32, 32), TE=[80] * 5)
    ),
    "bounds": replace(BASE, distribution=Uniform(ParameterSpace(SPACE.model, {"lambda": (0.0, 2.9)}))),
    "model": replace(BASE, distribution=Uniform(ParameterSpace(models.get("smt3")))),
    "pool": replace(BASE, distribution=pooled()),
    "samples": replace(BASE, distribution=pooled(1)),
    "participant": replace(BASE, distribution=pooled().without("sub-01")),
    "density": replace(BASE, distribution=replace(pooled(), density="kernel")),
    "mixture": replace(BASE, distribution=Mixture((Uniform(SPACE), pooled()))),
    "weights": replace(BASE, distribution=Mixture((Uniform(SPACE), pooled()), (0.4, 0.6))),
}


def of_images(snr, name="sub-01", n=200):
    sigma = np.full(n, 1 / snr, dtype=np.float32)
    return ImageVoxels(np.ones((n, 5), dtype=np.float32), sigma, BASE.acquisition, {name: n})


OF_IMAGES = replace(BASE, recipe=replace(TINY, simulation=Simulation(snr="images")), images=of_images(30.0))
LEARNING = replace(TINY, objective=Signals(), simulation=Simulation(signals="images"))
OF_SIGNALS = replace(BASE, recipe=LEARNING, images=of_images(30.0))
OTHER = replace(of_images(30.0), signals=of_images(30.0).signals + np.float32(1e-3))  # of the same name and noise
OTHERS["signals"], OTHERS["other signals"] = OF_SIGNALS, replace(OF_SIGNALS, images=OTHER)
OTHERS["snr of the images"] = OF_IMAGES
OTHERS["another snr of them"] = replace(OF_IMAGES, images=of_images(31.0))
OTHERS["another image"] = replace(OF_IMAGES, images=of_images(30.0, "sub-02"))


def test_images_that_the_recipe_does_not_take_make_no_other_task():
    assert replace(BASE, images=of_images(30.0)).key == BASE.key


def test_a_recipe_that_takes_images_needs_them():
    with pytest.raises(ValueError, match="its recipe takes voxels of the images that will be fitted"):
        replace(BASE, recipe=OF_IMAGES.recipe)
    with pytest.raises(ValueError, match=r"at least 50 .* have 49\. Is the mask too small?"):
        replace(OF_IMAGES, images=of_images(30.0, n=49))


def test_the_snr_of_the_images_is_in_the_file(tmp_path):
    path = Store(tmp_path).obtain(OF_IMAGES, "net-uniform")
    facts = read_bundle(path).facts
    assert facts["Images"] == {"Voxels": {"sub-01": 200}, "Most": MOST_VOXELS, "SNR": [30.0] * 50}
    assert facts["Recipe"]["simulation"]["snr"] == "images"


NETWORKS = [name for name, base in estimators.RECIPES.items() if base == "net"]


def test_the_forest_of_a_paper_is_an_estimator():
    forest = estimators.get("forest-gyori2022")(models.get("smt2"))
    assert (forest.name, forest.distribution) == ("forest-gyori2022", "uniform")
    assert forest.task(BASE.acquisition, 25.0).recipe == load_recipe("forest-gyori2022")


@pytest.mark.parametrize("name", [*NETWORKS, *(f"{name}-prior" for name in estimators.SPATIAL)])
def test_recipes_that_are_estimators_train(name):
    """A few steps of each, for a model whose parameters are not all determined everywhere."""

    def short(recipe):
        parts = recipe.schedule, recipe.simulation
        rate = parts[0].peak_rate if recipe.start is None else 1e-9  # stays where it starts
        schedule = replace(parts[0], steps=4, validation=64, checks=1, batch=min(parts[0].batch, 32), peak_rate=rate)
        simulation = replace(parts[1], samples=parts[1].samples and 100)
        start = recipe.start and short(recipe.start)
        return replace(recipe, schedule=schedule, simulation=simulation, start=start)

    protocol = Acquisition([0, 10, 20, 40, 80, 150, 300, 800])
    rng = np.random.default_rng(0)
    signals = np.exp(-protocol.b_values * 1e-3) + 0.03 * rng.standard_normal((200, 8))
    places = np.indices((1, 20, 10, 1)).reshape(4, 200).T
    sigma = np.full(200, 0.03, dtype=np.float32)
    images = ImageVoxels(as_single(signals), sigma, protocol, {"sub-01": 200}, positions=places)
    task = estimators.get(name)(models.get("ivim")).task(protocol, 30.0, images=images)
    trained = fit(replace(task, recipe=short(task.recipe)))
    assert np.isfinite(trained.curve).all()
    (state,) = trained.states
    before = fit(replace(task, recipe=short(task.recipe.start or task.recipe)), progress=None)
    started = before.states[0].weights.values()
    for one, other in zip(state.weights.values(), started, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-3)


def test_few_directions_have_no_fit_beside_the_estimate(monkeypatch):
    """A kurtosis tensor of 9 directions is not fitted; what is expected of a network depends on its estimate alone."""
    monkeypatch.setattr(monte_carlo, "LIGHT", monte_carlo.Size(64, 8, 2, 10))
    around = spread_directions(9)
    protocol = Acquisition([0] + [1000] * 9 + [2000] * 9, np.concatenate([np.zeros((1, 3)), around, around]))
    recipe = recipe_facts(replace(TINY, schedule=Schedule(steps=4, batch=32, validation=64, checks=1)))
    network = estimators.get("net-prior")(models.get("dki"), recipe=recipe)
    assert network.lacking(protocol) == []
    trained = train(network.task(network.averaged(protocol), 30.0))
    assert not trained.performance.beside
    fitted = estimators.get("net-prior")(models.get("dki"), recipe=recipe, trained=trained)
    signals = np.exp(-protocol.b_values * 0.8e-3) * np.full((3, 1), 100.0)
    found = companions(fitted, fitted.estimate(signals, protocol, 3.0), 3.0, signals=signals, acquisition=protocol)
    assert np.isfinite(found["bias"]["MK"]).all()
    assert np.isinf(found["crb"]["MK"]).all()


def test_everything_that_decides_changes_the_key():
    keys = {name: task.key for name, task in OTHERS.items()} | {"base": BASE.key}
    assert len(set(keys.values())) == len(keys), keys


def test_nothing_else_does():
    backwards = recipe_from(dict(reversed(recipe_facts(TINY).items())), "test")
    bounds = {"lambda": (0.0, 3.0), "vcyl": (0.0, 1.0)}  # those of the model, in another order
    again = Task(
        Uniform(ParameterSpace(SPACE.model, bounds)),
        acquisition(b=[float(b) for b in B], counts=list(COUNTS)),
        Noise(25, "rician"),
        backwards,
        seed=3,
    )
    assert again.key == BASE.key
    first, second = (
        replace(BASE, distribution=replace(pooled(), origin=origin)) for origin in ({"a": 1, "b": 2}, {"b": 2, "a": 1})
    )
    assert first.key == second.key


@pytest.mark.parametrize("name", OTHERS)
def test_facts_are_json(name):
    facts = OTHERS[name].facts
    assert json.loads(json.dumps(facts, allow_nan=False)) == facts
    assert facts["Features"] == 4
    assert facts["Participants"] == {"pool": ["sub-01", "sub-02"], "mixture": ["sub-01", "sub-02"]}.get(
        name, facts["Participants"]
    )


def test_facts_say_what_it_is():
    facts = BASE.facts
    assert facts["Noise"] == {"SNR": 25.0, "Kind": "rician", "AtLowestBValue": True}
    assert OTHERS["no noise"].facts["Noise"]["SNR"] is None
    assert facts["Parameters"] == ["vcyl", "lambda"]
    assert facts["Acquisition"] == {
        "BValues": list(map(float, B)),
        "Measurements": list(COUNTS),
        "Directions": [1, 32, 32, 32, 32],
    }
    assert facts["Recipe"]["schedule"]["steps"] == 60
    assert OTHERS["participant"].facts["Participants"] == ["sub-02"]


@pytest.fixture(scope="module")
def bundles():
    return [
        train(task)
        for task in (
            BASE,
            BASE,
            replace(
                BASE, recipe=Recipe(RandomForest(trees=3), Relative(), Growth(validation=512), Simulation(samples=2048))
            ),
        )
    ]


def test_the_same_task_gives_the_same_estimator(bundles):
    first, second, _ = bundles
    for name, array in first.machine.items():
        np.testing.assert_array_equal(array, second.machine[name])
    assert first.performance.dump() == second.performance.dump()
    assert first.facts["Training"]["ResidualLimit"] == second.facts["Training"]["ResidualLimit"]


def test_the_table_and_the_curve_come_with_it(bundles):
    network, _, forest = bundles
    json.dumps(network.facts, allow_nan=False)
    json.dumps(forest.facts, allow_nan=False)
    for bundle in (network, forest):
        assert bundle.performance.quantities == ["S0", "vcyl", "lambda"]
        assert len(bundle.domain.mean) == 4
        assert bundle.facts["Software"].keys() >= {"bidsfit", "Python", "torch", "numpy"}
        assert bundle.facts["Training"]["ResidualLimit"] > 0
    assert list(network.curve) == ["step", "training", "validation"]
    assert list(forest.curve) == ["trees", "training", "validation"]
    assert network.acquisition.b_values.tolist() == list(B)
