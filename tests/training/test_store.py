"""The folder of trained estimators: each is trained once, found again by its content, and never replaced."""

import multiprocessing
import time
from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from bidsfit import __version__, models
from bidsfit.acquisition import Acquisition
from bidsfit.exceptions import NoInputError, UnusableInputError
from bidsfit.models.space import ParameterSpace
from bidsfit.phantom.directions import spread_directions
from bidsfit.simulation.distributions import Uniform
from bidsfit.simulation.simulator import Noise, Simulation
from bidsfit.training import store as module
from bidsfit.training.architectures import Perceptron
from bidsfit.training.bundle import Bundle, read_facts
from bidsfit.training.objectives import Parameters
from bidsfit.training.recipe import Recipe
from bidsfit.training.store import Store
from bidsfit.training.task import Task
from bidsfit.training.trainer import Schedule
from bidsfit.trust.domain import Domain
from bidsfit.trust.monte_carlo import Size, simulate

LAYERS = {"0.weight": np.ones((2, 1), np.float32), "0.bias": np.zeros(1, np.float32)}


@pytest.fixture
def task():
    space = ParameterSpace(models.get("adc"))
    acquisition = Acquisition([0, 500, 1000], counts=[2, 3, 3], n_directions=[1, 3, 3])
    return Task(
        Uniform(space), acquisition, Noise(28.0, "rician"), Recipe(Perceptron(), Parameters(), Schedule(steps=10))
    )


@pytest.fixture
def trainings(monkeypatch, tmp_path):
    """Training takes half a second and leaves a note in this folder."""
    notes = tmp_path / "notes"
    notes.mkdir()

    def train(task, **options):
        time.sleep(0.5)
        (notes / f"{time.time_ns()}").touch()
        found = {"ValidationLoss": 0.1, "Converged": True, "ResidualLimit": 1.0}
        found |= {"Seconds": 0.5, "Device": "cpu", "Threads": 1}
        facts = {**task.facts, "Training": found, "Software": {"bidsfit": __version__}}
        simulator = task.simulator
        n = len(simulator.space.model.names)
        judged = simulate(lambda signals, _: signals[:, :n].astype(float), simulator, size=Size(64, 8, 2, 8))
        return Bundle(facts, LAYERS, {}, judged, Domain.of(simulator, 0), {"step": np.ones(1)})

    monkeypatch.setattr(module, "train", train)
    return lambda: len(list(notes.iterdir()))


def test_a_task_is_trained_once(task, trainings, tmp_path):
    folder = Store(tmp_path / "trained")
    path = folder.obtain(task, "net-uniform")
    assert path.name == f"model-adc_desc-netuniform_snr-28_{task.key}.zip"
    assert folder.obtain(task, "net-uniform") == path
    assert trainings() == 1
    assert read_facts(path)["Seed"] == 0


def test_directions_that_are_turned_together_share_a_training(task, trainings, tmp_path):
    """As those of heads that moved are; by less than 1 degree each may differ from that."""
    folder, rng = Store(tmp_path / "trained"), np.random.default_rng(0)
    directions, turn = spread_directions(6), Rotation.random(rng=rng)

    def of(vectors):
        acquisition = Acquisition([0] + [1000] * 6, np.vstack([np.zeros(3), vectors]))
        return replace(task, distribution=Uniform(ParameterSpace(models.get("dti"))), acquisition=acquisition)

    path = folder.obtain(of(directions), "net-uniform")
    near = turn.apply(directions) + 0.004 * rng.uniform(-1, 1, (6, 3))
    assert folder.obtain(of(near), "net-uniform", may_train=False) == path
    assert folder.obtain(of(directions[::-1]), "net-uniform") != path
    assert trainings() == 2


def test_what_is_missing_is_said_where_nothing_may_be_trained(task, trainings, tmp_path):
    folder = Store(tmp_path / "trained")
    words = r"netuniform_snr-28_.*\.zip does not exist.*trained for .*500.* and an SNR of 28\. .* --train-only"
    with pytest.raises(NoInputError, match=words):
        folder.obtain(task, "net-uniform", may_train=False)
    assert not (tmp_path / "trained").exists()
    path = folder.obtain(task, "net-uniform")
    assert folder.obtain(task, "net-uniform", may_train=False) == path
    assert trainings() == 1


def test_another_task_is_another_file(task, trainings, tmp_path):
    folder = Store(tmp_path / "trained")
    other = replace(task, noise=Noise(np.inf))
    assert folder.obtain(task, "net-uniform") != folder.obtain(other, "net-uniform")
    assert "_snr-inf_" in folder.path(other, "net-uniform").name
    assert trainings() == 2


def obtain(folder, task, said):
    Store(folder).obtain(task, "net-uniform", say=said.put)


def test_of_two_jobs_one_trains_and_the_other_waits(task, trainings, tmp_path):
    context = multiprocessing.get_context("fork")  # so that they inherit the quick training
    said = context.Queue()
    jobs = [context.Process(target=obtain, args=(tmp_path / "trained", task, said)) for _ in range(2)]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join(60)
    assert [job.exitcode for job in jobs] == [0, 0]
    assert trainings() == 1
    assert (
        said.get(timeout=10) == f"Another job trains model-adc_desc-netuniform_snr-28_{task.key}.zip; waiting for it."
    )


def test_what_others_start_from_is_trained_once(task, trainings, monkeypatch, tmp_path):
    """At other SNRs too, if its recipe draws them; and what is kept is where that training ended."""
    schedule = Schedule(steps=3, batch=16, validation=64, checks=1)
    start = Recipe(Perceptron(units=4), Parameters(), schedule, Simulation(snr_levels=(30.0,)))
    task = replace(task, recipe=replace(start, simulation=Simulation(), start=start))
    starts, begun, train, fit = [], [], module.train, module.fit
    monkeypatch.setattr(module, "train", lambda *a, start, **o: begun.append(start) or train(*a, **o))
    monkeypatch.setattr(module, "fit", lambda *a, **o: starts.append(fit(*a, **o)) or starts[-1])
    for snr in (15.0, 28.0):
        Store(tmp_path).obtain(replace(task, noise=Noise(snr, "rician")), "net-uniform")
    (made,) = starts
    assert trainings() == 2
    for (found,), (state,) in zip(begun, [made.states] * 2, strict=True):
        assert found.weights.keys() == state.weights.keys()
        for name, value in state.arrays.items():
            np.testing.assert_array_equal(found.arrays[name], value)


@pytest.mark.parametrize("damage", ["cut", "swapped"])
def test_what_is_damaged_or_foreign_is_refused_and_stays(task, trainings, tmp_path, damage):
    folder = Store(tmp_path / "trained")
    path = folder.obtain(task, "net-uniform")
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-60])
        words = "it is damaged"
    else:
        folder.obtain(replace(task, seed=1), "net-uniform").replace(path)
        words = "holds another estimator than its name says: Seed differ"
    content = path.read_bytes()
    with pytest.raises(UnusableInputError, match=words):
        folder.obtain(task, "net-uniform")
    assert path.read_bytes() == content
    assert trainings() == (1 if damage == "cut" else 2)


def test_a_training_that_fails_leaves_nothing(task, monkeypatch, tmp_path):
    def fail(task, **options):
        raise ValueError("diverged")

    monkeypatch.setattr(module, "train", fail)
    with pytest.raises(ValueError, match="diverged"):
        Store(tmp_path).obtain(task, "net-uniform")
    assert not list(tmp_path.glob("*.zip"))
