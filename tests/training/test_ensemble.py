"""Ensembles: networks from several seeds, whose median is the estimate and whose spread stands beside it."""

from dataclasses import replace

import numpy as np
import pytest

from bidsfit import Acquisition, companions, models
from bidsfit.models.space import ParameterSpace
from bidsfit.simulation.distributions import Uniform
from bidsfit.simulation.simulator import Noise, Simulation, Simulator
from bidsfit.trained.network import Network
from bidsfit.training import trainer
from bidsfit.training.architectures import Perceptron
from bidsfit.training.bundle import read_bundle, write_bundle
from bidsfit.training.inference import Inverter
from bidsfit.training.objectives import Parameters
from bidsfit.training.recipe import Recipe, load_recipe
from bidsfit.training.task import Task, train
from bidsfit.training.trainer import Schedule, descend, member_seeds

MODEL = models.get("smt2")
SHELLS = Acquisition([0, 1000, 2000, 3500, 5000], counts=[8, 32, 32, 32, 32], n_directions=[1, 32, 32, 32, 32])
SCHEDULE = Schedule(steps=60, batch=256, validation=1024, checks=6, members=3)
TASK = Task(
    Uniform(ParameterSpace(MODEL)), SHELLS, Noise(25.0), Recipe(Perceptron(16, 2), Parameters(), SCHEDULE), seed=4
)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    path = tmp_path_factory.mktemp("ensemble") / "net.zip"
    write_bundle(path, train(TASK))
    return read_bundle(path)


def test_the_median_is_the_estimate_and_the_spread_stands_beside_it(bundle):
    assert len(bundle.machine) == 3
    assert bundle.facts["Training"]["Members"] == 3
    truth = TASK.distribution.sample(400, np.random.default_rng(0))
    signals = TASK.simulator.measure(truth, np.random.default_rng(1))
    alone = [
        Inverter(TASK.recipe, machine, TASK.distribution.space, SHELLS)(signals).cube for machine in bundle.machine
    ]
    network = Network(MODEL, distribution="uniform", snr=25.0, trained=bundle)
    found = network.estimate(signals, SHELLS, 0.04)
    middle = TASK.distribution.space.from_cube(np.median(alone, axis=0))
    np.testing.assert_allclose(found.parameters["vcyl"], middle[:, 0], rtol=1e-6)
    each = [TASK.distribution.space.from_cube(cube) for cube in alone]
    spread = companions(network, found, 0.04)["ensemble"]
    np.testing.assert_allclose(spread["lambda"], np.std(each, axis=0, ddof=1)[:, 1], rtol=1e-6)
    assert set(spread) == {"vcyl", "lambda"}


def test_its_first_network_is_the_one_that_is_trained_alone(bundle):
    single = train(replace(TASK, recipe=replace(TASK.recipe, schedule=replace(SCHEDULE, members=None))))
    first, second = bundle.machine[:2]
    for name, array in single.machine.items():
        np.testing.assert_allclose(array, first[name], atol=1e-4)
    assert any(array.shape != second[name].shape or np.ptp(array - second[name]) > 0.1 for name, array in first.items())


@pytest.mark.parametrize(
    ("choices", "network"),
    [
        ({}, Perceptron(8, 2)),
        ({"samples": 500, "set_noise": "fixed"}, Perceptron(8, 2, activation="elu", batch_norm=True, parallel=True)),
        ({"snr_range": (10.0, 80.0)}, Perceptron(8, 2, skips=True)),
    ],
    ids=str,
)
def test_networks_that_are_trained_together_are_those_that_are_trained_alone(choices, network, monkeypatch):
    """Weights, learning curves and best steps, also where one stops before the others or there are several groups."""
    simulator = Simulator(TASK.distribution, SHELLS, Noise(25.0), Simulation(**choices))
    schedule = replace(SCHEDULE, steps=80, checks=20, peak_rate=0.05, patience=1)
    arguments = network, Parameters(), schedule, simulator
    seeds = member_seeds(4, 5)
    monkeypatch.setattr(trainer, "PRUNING", 4096)
    monkeypatch.setattr(trainer, "TOGETHER", 3 * schedule.batch)
    many = descend(*arguments, seeds)
    stops = set()
    for seed, one in zip(seeds, many, strict=True):
        (alone,) = descend(*arguments, [seed], set_seed=seeds[0])
        assert one.facts["BestStep"] == alone.facts["BestStep"]
        np.testing.assert_allclose(one.curve, alone.curve, rtol=1e-3)
        for name, array in alone.machine.items():
            np.testing.assert_allclose(one.machine[name], array, rtol=5e-4, atol=1e-3)
        stops.add(len(one.curve))
    assert len(stops) > 1


def test_the_recipe_of_the_package_has_ten():
    network = Network(MODEL, recipe="network-ensemble")
    assert load_recipe("network-ensemble").schedule.members == 10
    assert network.statistics == ("ensemble",)
    assert Network(MODEL).statistics == ()


def test_networks_with_dropout_are_trained_together():
    """Their masks are not those of single trainings, but each learns as those do."""
    simulator = Simulator(TASK.distribution, SHELLS, Noise(25.0))
    schedule = replace(SCHEDULE, steps=150, checks=3, peak_rate=0.02)
    found = descend(Perceptron(16, 2, dropout=0.1), Parameters(), schedule, simulator, [0, 1])
    assert all(
        one.facts["ValidationLoss"] < 1 / 12 / 3 for one in found
    )  # of a network that always tells the mean: 1/12
