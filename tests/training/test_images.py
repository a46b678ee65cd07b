"""Networks that are trained on the measured signals of images."""

from dataclasses import replace

import numpy as np
import pytest

from bidsfit import models
from bidsfit.acquisition import Acquisition
from bidsfit.estimators.least_squares import LeastSquares
from bidsfit.exceptions import UsageError
from bidsfit.models.space import ParameterSpace
from bidsfit.simulation.distributions import Uniform
from bidsfit.simulation.images import ImageVoxels, as_single
from bidsfit.simulation.simulator import Noise, Simulation, Simulator
from bidsfit.trained.network import Network
from bidsfit.training.architectures import Perceptron
from bidsfit.training.inference import Inverter
from bidsfit.training.objectives import Signals
from bidsfit.training.recipe import Recipe, recipe_from
from bidsfit.training.task import Task, fit, residual_limit, train
from bidsfit.training.trainer import Schedule
from bidsfit.trust.domain import Domain

torch = pytest.importorskip("torch")

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
        (table({"patches": "smooth"}, architecture={"name": "convolution"}), "leave out patches"),
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


ADC, THREE = ParameterSpace(models.get("adc")), Acquisition([0, 500, 1000])


def image(shape, seed=0, snr=20.0):
    """Voxels of an image inside a mask with holes, in the order of a file; the image; the mask; and D."""
    rng = np.random.default_rng(seed)
    d = 0.5 + np.arange(shape[0])[:, None, None] / shape[0] + np.zeros(shape)
    s0 = rng.uniform(50, 150, shape)
    clean = s0[..., None] * np.exp(-d[..., None] * THREE.b_values / 1000)
    signals = clean + 100 / snr * rng.standard_normal(clean.shape)
    mask = rng.random(shape) < 0.8
    places = np.stack(np.unravel_index(np.flatnonzero(mask.ravel(order="F")), shape, order="F"), axis=1)
    rows = signals[tuple(places.T)]
    planned = Network(ADC.model, recipe=SPATIAL, noise="gaussian")
    return planned.sample(rows, THREE, 100 / snr, name=f"sub-{seed}", positions=places), signals, mask, d


SPATIAL = {
    "simulation": {"signals": "images"},
    "architecture": {"name": "convolution", "units": 16},
    "objective": {"name": "signals"},
    "schedule": {"steps": 300, "batch": 128, "peak_rate": 0.01, "validation": 500, "checks": 3},
}


@pytest.mark.parametrize("reach", [(1, 1, 0), (2, 1, 1)])
def test_patches_are_cut_out_of_images(reach):
    """Ratios of the signals of neighbours are those of the image; what is outside of mask or image is missing."""
    parts = [image((7, 6, 3), seed) for seed in (1, 2)]
    both = ImageVoxels.pooled([part[0] for part in parts])
    found = both.patches(np.arange(len(both.sigma)), reach)
    assert found.shape == (len(both.sigma), *(2 * r + 1 for r in reach), 3)
    for row, (number, *place) in enumerate(both.positions.tolist()):
        _, signals, mask, _ = parts[number]
        inside, width = np.where(mask[..., None], signals, np.nan), [*((r, r) for r in reach), (0, 0)]
        padded = np.pad(inside, width, constant_values=np.nan)
        window = padded[*(slice(p, p + 2 * r + 1) for p, r in zip(place, reach, strict=True))]
        np.testing.assert_allclose(found[row], window / signals[*place, 0], rtol=1e-5)


@pytest.mark.parametrize("unit", [None, "noise"])
def test_a_training_sees_what_the_fit_of_the_image_sees(unit):
    """A network without training gives a voxel the same estimate from its patch as within the whole image."""
    voxels = image((9, 8, 2), snr=30.0)[0]
    recipe = recipe_from(SPATIAL | {"simulation": {"signals": "images", **({"unit": unit} if unit else {})}}, "test")
    simulator = Task(Uniform(ADC), THREE, Noise(30.0), recipe, images=voxels).simulator
    batch = simulator.draw(40, np.random.default_rng(0))
    assert batch.features.shape == (40, 1, 3, 3, 1, len(simulator.features) + 1)
    torch.manual_seed(0)
    architecture = recipe.architecture
    machine = architecture.arrays(architecture.module(batch.features.shape[-1], 1))
    invert, sigma = Inverter(recipe, machine, ADC, THREE), voxels.sigma.astype(float)
    rows = np.arange(len(sigma))
    signals = voxels.signals.astype(float)
    whole = invert(signals, voxels.positions[:, 1:], sigma).cube
    patches = voxels.patches(rows, architecture.reach).astype(float)
    np.testing.assert_allclose(invert(patches, sigma=sigma).cube, whole, rtol=1e-5)
    drawn = architecture.forward(machine, batch.features[:, 0]).reshape(-1)
    known = np.log(whole / (1 - whole)).ravel()
    assert np.abs(drawn[:, None] - known).min(axis=1).max() < 1e-4


def test_a_sample_of_an_image_is_one_of_slices():
    voxels = image((7, 6, 5))[0]
    some = voxels.some(70, seed=0)
    kept, counts = np.unique(some.positions[:, 3], return_counts=True)
    assert counts.tolist() == [np.sum(voxels.positions[:, 3] == k) for k in kept]
    assert 0 < len(kept) < 5
    assert some.images == {"sub-0": counts.sum()}
    assert len(np.unique(voxels.some(1, seed=0).positions[:, 3])) == 1


def test_images_teach_a_network_that_reads_neighbours():
    """D of a ramp: its errors are at most those of least squares."""
    voxels, signals, mask, d = image((40, 30, 1))
    planned = Network(ADC.model, recipe=SPATIAL, noise="gaussian")
    bundle = train(planned.task(voxels.acquisition, 20.0, images=voxels))
    network = Network(ADC.model, recipe=SPATIAL, noise="gaussian", trained=bundle)
    maps = [one.estimate(signals, THREE, 5.0, mask=mask).parameters["D"] for one in (network, LeastSquares(ADC.model))]
    errors = [np.sqrt(np.mean((found - d)[mask] ** 2)) for found in maps]
    assert errors[0] < 1.02 * errors[1]
    assert errors[1] < 0.16
