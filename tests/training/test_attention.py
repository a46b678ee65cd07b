"""Attention reads its window, all of it and nothing else, and no voxel that is not there."""

from __future__ import annotations

import numpy as np
import pytest

from bidsfit import Acquisition, models
from bidsfit.models.space import ParameterSpace
from bidsfit.simulation.distributions import Uniform
from bidsfit.simulation.simulator import Noise, Simulator
from bidsfit.training import attention
from bidsfit.training.attention import NeighbourhoodAttention, SelfAttention
from bidsfit.training.convolution import Convolution
from bidsfit.training.objectives import Parameters
from bidsfit.training.trainer import Schedule, descend

torch = pytest.importorskip("torch")

CHANNELS, OUTPUTS = 4, 3
SMALL = {"units": 8, "heads": 2}
READING = {
    "convolution, 3": Convolution(units=32),
    "neighbourhood, 7": NeighbourhoodAttention(**SMALL, layers=3),
    "neighbourhood, 17": NeighbourhoodAttention(**SMALL, layers=8),
    "self, 7": SelfAttention(**SMALL, window=7),
    "self, 17": SelfAttention(**SMALL, layers=2, window=17),
}
ATTENDING = [name for name in READING if not name.startswith("convolution")]


def window(made):
    return 2 * made.reach[0] + 1


def network(made):
    torch.manual_seed(1)
    return made.module(CHANNELS, OUTPUTS).double()


def image(*shape, seed=0):
    """Features of an image whose voxels are all there."""
    found = np.random.default_rng(seed).standard_normal((*shape, CHANNELS)).astype(np.float32)
    found[..., -1] = 1
    return found


def single(module, made):
    return made.arrays(module.float())


@pytest.mark.parametrize("name", READING)
def test_the_window_is_the_stated_one(name):
    made = READING[name]
    assert f", {window(made)}" in name
    assert made.reach == (window(made) // 2,) * 2 + (0,)


@pytest.mark.parametrize("name", READING)
def test_the_gradient_reaches_every_voxel_of_the_window(name):
    """Of patches: all features of all voxels."""
    made = READING[name]
    x = torch.from_numpy(image(1, window(made), window(made), 1).astype(float)).requires_grad_()
    network(made)(x).sum().backward()
    assert (x.grad[..., :-1] != 0).all()


@pytest.mark.parametrize("name", READING)
def test_an_output_depends_on_its_window_alone(name):
    """In an image, a change reaches the outputs of which it is in the window, in its slice."""
    made, r = READING[name], READING[name].reach[0]
    size, place = 2 * window(made) + 3, window(made) + 1
    x = image(1, size, size, 2)
    arrays = single(network(made), made)
    before = made.forward(arrays, x)
    x[0, place, place, 1, :-1] += 3
    moved = np.argwhere((made.forward(arrays, x) != before).any(axis=-1))
    reached = set(map(tuple, moved[:, 1:3].tolist()))
    expected = {(i, j) for i in range(place - 2 * r, place + 1) for j in range(place - 2 * r, place + 1)}
    assert before.shape == (1, size - 2 * r, size - 2 * r, 2, OUTPUTS)
    assert set(moved[:, 3]) == {1}
    assert reached <= expected
    edges = {(i, j) for i, j in expected if min(place - i, place - j) == 0 or max(place - i, place - j) == 2 * r}
    if not name.endswith("17"):  # where the change at the edge is not below the precision of 32 bits
        assert edges <= reached
    assert (place - r, place - r) in reached


@pytest.mark.parametrize("name", ATTENDING)
def test_a_voxel_that_is_not_there_has_no_influence(name):
    made = READING[name]
    arrays, absent = single(network(made), made), image(3, window(made), window(made), 1)
    absent[:, :2, :, :, -1] = 0
    absent[:, -1, 3:, :, -1] = 0
    other = absent.copy()
    other[absent[..., -1] == 0, :-1] = 1e3
    found = made.forward(arrays, absent)
    np.testing.assert_array_equal(made.forward(arrays, other), found)
    assert np.isfinite(found).all()
    assert (made.forward(arrays, image(3, window(made), window(made), 1)) != found).any()


@pytest.mark.parametrize("name", ATTENDING)
def test_a_voxel_alone_is_estimated(name):
    made = READING[name]
    alone = image(2, window(made), window(made), 1)
    alone[..., -1] = 0
    alone[:, *made.reach, -1] = 1
    assert np.isfinite(made.forward(single(network(made), made), alone)).all()


@pytest.mark.parametrize("name", ATTENDING)
@pytest.mark.parametrize("together", [1, 1 << 14])
def test_an_image_is_its_patches(name, together, monkeypatch):
    """However many voxels are computed at a time. Where no voxel is, there is nothing to compare."""
    monkeypatch.setattr(attention, "TOGETHER", together)
    made, w = READING[name], window(READING[name])
    module = network(made)
    x = image(2, w + 2, w + 1, 2)
    x[:, : w // 2 + 1, w // 2 :, :, -1] = 0
    found = made.forward(single(module, made), x)
    assert found.shape == (2, 3, 2, 2, OUTPUTS)
    for n, i, j, k in np.ndindex(found.shape[:4]):
        patch = x[n, i : i + w, j : j + w, k : k + 1]
        if patch[*made.reach, -1]:
            with torch.inference_mode():
                expected = module(torch.from_numpy(patch[None].copy())).numpy().ravel()
            np.testing.assert_allclose(found[n, i, j, k], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ATTENDING)
def test_the_standardisation_is_folded_in(name):
    made = READING[name]
    centre, width = np.array([1, 2, 3, 0], np.float32), np.array([0.5, 1, 2, 1], np.float32)
    x, arrays = image(2, window(made), window(made), 1), single(network(made), made)
    expected = made.forward(arrays, (x - centre) / width)
    np.testing.assert_allclose(made.forward(made.folded(arrays, centre, width), x), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ATTENDING)
def test_a_file_of_it_is_read_or_refused(name):
    made = READING[name]
    arrays = single(network(made), made)
    for key, array in made.load(made.dump(arrays), CHANNELS, OUTPUTS).items():
        np.testing.assert_array_equal(array, arrays[key])
    with pytest.raises(ValueError, match="its arrays are not those of"):
        made.load(made.dump(arrays), CHANNELS + 1, OUTPUTS)


@pytest.mark.parametrize(
    ("made", "expected"),
    [(SelfAttention(), 300_676), (NeighbourhoodAttention(layers=8), 799_172)],
)
def test_the_sizes_are_those_of_the_paper(made, expected):
    """.30 million parameters of self-attention and .80 of neighbourhood attention, with ten features."""
    assert sum(value.numel() for value in made.module(10, 4).parameters()) == expected


def test_attention_is_the_mean_of_values_weighted_by_the_similarity_of_keys_to_the_query():
    """One head, computed by hand; the perceptron of the layer is silenced."""
    made = NeighbourhoodAttention(units=2, heads=1, layers=1)
    layer = made.layer(last=True).double()
    torch.nn.init.zeros_(layer.parts["perceptron"][3].weight)
    torch.nn.init.zeros_(layer.parts["perceptron"][3].bias)
    torch.nn.init.normal_(layer.places)
    values = torch.randn(1, 3, 3, 1, 2, dtype=torch.float64)
    found, _ = layer(values, torch.ones(1, 3, 3, 1, dtype=torch.bool))
    seen = layer.parts["before"](values[0, :, :, 0].reshape(9, 2))
    scores = layer.parts["key"](seen) @ layer.parts["query"](seen[4]) / np.sqrt(2) + layer.places[:, 0]
    mean = scores.softmax(dim=0) @ layer.parts["value"](seen)
    expected = values[0, 1, 1, 0] + layer.parts["out"](mean)
    np.testing.assert_allclose(found.ravel().detach(), expected.detach(), rtol=1e-12)


@pytest.mark.filterwarnings("ignore:There is a performance drop")
@pytest.mark.parametrize("name", ["neighbourhood, 7", "self, 7"])
def test_networks_that_are_trained_together_are_those_that_are_trained_alone(name):
    space, protocol = ParameterSpace(models.get("adc")), Acquisition([0, 500, 1000])
    simulator = Simulator(Uniform(space), protocol, Noise(50.0), reach=READING[name].reach)
    schedule = Schedule(steps=3, batch=8, validation=16, checks=1)
    (alone,) = descend(READING[name], Parameters(), schedule, simulator, [0])
    first, _ = descend(READING[name], Parameters(), schedule, simulator, [0, 1])
    for key, array in alone.machine.items():
        np.testing.assert_allclose(first.machine[key], array, atol=1e-3)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SelfAttention(window=6), "odd number, found 6"),
        (lambda: NeighbourhoodAttention(units=10, heads=4), "multiple of heads, found 10 and 4"),
    ],
)
def test_impossible_choices_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
