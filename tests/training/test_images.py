"""Networks that are trained on the measured signals of images."""

from dataclasses import replace

import numpy as np
import pytest

from bidsfit import models
from bidsfit.acquisition import Acquisition
from bidsfit.exceptions import UsageError
from bidsfit.models.space import ParameterSpace
from bidsfit.simulation.distributions import Uniform
from bidsfit.simulation.images import ImageVoxels, as_single
from bidsfit.simulation.simulator import Noise, Simulation, Simulator
from bidsfit.training.architectures import Perceptron
from bidsfit.training.inference import Inverter
from bidsfit.training.objectives import Signals
from bidsfit.training.recipe import Recipe, recipe_from
from bidsfit.training.task import Task, fit, residual_limit
from bidsfit.training.trainer import Schedule
from bidsfit.trust.domain import Domain

PROTOCOL = Acquisition([0, 10, 20, 40, 80, 150, 300, 500, 800])
SPACE = ParameterSpace(models.get("ivim"), {"f": (0.05, 0.4), "D": (0.5, 2.0), "Dstar": (5.0, 50.0)})
SNR = 30.0


def measured(n, seed=0):
    """Voxels of an image whose tissue is distributed uniformly, of S0 from 50 to 150, as they are sampled."""
    rng = np.random.default_rng(seed)
    truth = SPACE.sample(n, rng)
    batch = Simulator(Uniform(SPACE), PROTOCOL, Noise(SNR)).measure(truth, rng)
    reference = batch[:, :1]
    sigma = as_single(1 / SNR / reference[:, 0])
    return truth, ImageVoxels(as_single(batch / reference), sigma, PROTOCOL, {"sub-01": n})


@pytest.fixture(scope="module")
def trained():
    """Tasks and networks trained on 20,000 voxels of an image, and on simulations of the same distribution."""
    schedule = Schedule(steps=400, batch=256, peak_rate=1e-2, validation=2000, checks=4)
    _, images = measured(20_000)
    recipe = Recipe(Perceptron(units=16, activation="elu"), Signals(), schedule, Simulation(signals="images"))
    of_images = Task(Uniform(SPACE), PROTOCOL, Noise(SNR), recipe, images=images)
    simulated = replace(of_images, recipe=replace(recipe, simulation=Simulation()), images=None)
    return {"images": (of_images, fit(of_images)), "simulated": (simulated, fit(simulated))}


def estimates(task, machine, signals):
    return Inverter(task.recipe, machine, SPACE, PROTOCOL)(signals.astype(float)).parameters[:, SPACE.places]


def test_images_teach_what_simulations_of_their_distribution_do(trained):
    """Their errors are equal within 5 %, and the two networks differ by less than 15 % of these."""
    truth, other = measured(5000, seed=1)
    found = {name: estimates(task, one.machine, other.signals) for name, (task, one) in trained.items()}
    error = {name: np.sqrt(np.mean((values - truth) ** 2, axis=0)) for name, values in found.items()}
    apart = np.sqrt(np.mean((found["images"] - found["simulated"]) ** 2, axis=0))
    np.testing.assert_allclose(error["images"], error["simulated"], rtol=0.05)
    assert np.all(apart < 0.15 * error["images"])
    losses = [one.facts["ValidationLoss"] for _, one in trained.values()]
    assert losses[0] == pytest.approx(losses[1], rel=0.03)
    assert losses[0] < 1 / SNR**2


def test_what_is_unlike_the_images_is_told(trained):
    """Of other voxels of such images hardly any; of a signal that rises with b, all."""
    task, one = trained["images"]
    domain = Domain.of(task.simulator, 0)
    features, snr = task.simulator.features, np.full(2000, SNR)
    _, other = measured(2000, seed=2)
    weights = np.sqrt(features.counts)
    assert domain.excludes(features(other.signals) * weights, snr).mean() < 0.03
    assert domain.excludes(features(other.signals[:, [0, *range(8, 0, -1)]]) * weights, snr).mean() > 0.9
    limit = residual_limit(Inverter(task.recipe, one.machine, SPACE, PROTOCOL), task.simulator, 0)
    free = 9 - 4
    assert free / SNR**2 < limit < 6 * free / SNR**2


def table(simulation, **others):
    parts = {"architecture": {"name": "perceptron"}, "objective": {"name": "signals"}}
    return parts | {"simulation": {"signals": "images"} | simulation} | others


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        (table({}, objective={"name": "parameters"}), "'parameters' needs the true parameters"),
        (table({}, objective={"name": "logits"}), "'logits' needs the true parameters"),
        (table({}, architecture={"name": "convolution"}), "'convolution' reads neighbours"),
        (table({"samples": 500}), "leave out samples"),
        (table({"filter": "none"}), "filter"),
    ],
)
def test_what_images_cannot_teach_is_refused(recipe, message):
    with pytest.raises(UsageError, match=message) as caught:
        recipe_from(recipe, "mine.yml")
    assert str(caught.value).startswith(("mine.yml", "Unknown"))


def test_whose_images_a_recipe_takes():
    assert recipe_from(table({}), "test").scope == "participant"
    assert recipe_from(table({"scope": "dataset"}), "test").scope == "dataset"
    own = {"objective": {"name": "parameters"}, "architecture": {"name": "perceptron"}}
    assert recipe_from(own, "test").scope is None
    later = recipe_from(own | {"start": table({"scope": "dataset"})}, "test")
    assert (later.scope, later.learns_from_images) == ("dataset", True)
