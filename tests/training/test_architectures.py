"""Networks as plain arrays: what torch computes, and nothing else."""

from __future__ import annotations

import numpy as np
import pytest

from bidsfit.training.architectures import BLOCK, Perceptron
from bidsfit.training.objectives import sigmoid

torch = pytest.importorskip("torch")


def network(inputs=4, outputs=3, units=32, hidden_layers=2, seed=0):
    torch.manual_seed(seed)
    return Perceptron(units, hidden_layers).module(inputs, outputs)


arrays_of, forward, pruned = Perceptron().arrays, Perceptron().forward, Perceptron().pruned


def features(n, inputs=4, seed=0):
    return np.random.default_rng(seed).standard_normal((n, inputs)).astype(np.float32)


@pytest.mark.parametrize("n", [0, 1, 7, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK, 3 * BLOCK + 5])
def test_forward_is_what_torch_computes(n):
    net, x = network(), features(n)
    with torch.inference_mode():
        expected = net(torch.from_numpy(x)).numpy()
    before = x.copy()
    found = forward(arrays_of(net), x)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)
    np.testing.assert_array_equal(x, before)


@pytest.mark.parametrize(("units", "hidden_layers"), [(1, 1), (16, 8), (5, 3)])
def test_any_depth(units, hidden_layers):
    net, x = network(units=units, hidden_layers=hidden_layers), features(300)
    with torch.inference_mode():
        expected = net(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(forward(arrays_of(net), x), expected, rtol=1e-6, atol=1e-6)


def test_layers_are_a_copy_of_the_network():
    net = network(units=8)
    layers = arrays_of(net)
    assert [layers[f"{i}.weight"].shape for i in range(3)] == [(4, 8), (8, 8), (8, 3)]
    assert [layers[f"{i}.bias"].shape for i in range(3)] == [(8,), (8,), (3,)]
    kept = layers["0.weight"].copy()
    with torch.no_grad():
        net[0].weight.zero_()
        net[0].bias.zero_()
    np.testing.assert_array_equal(layers["0.weight"], kept)
    assert np.abs(kept).max() > 0


def test_silent_units_go_and_outputs_stay():
    layers, x = arrays_of(network(units=40, hidden_layers=3)), features(2000)
    for i, silent in enumerate((range(20), range(5, 15), range(30, 40))):
        layers[f"{i}.bias"][list(silent)] = -1000
    small = pruned(layers, x)
    sizes = [small[f"{i}.bias"].size for i in range(4)]
    assert all(size <= most for size, most in zip(sizes, (20, 30, 30, 3), strict=True))
    assert sizes[0] == 20
    np.testing.assert_allclose(forward(small, x), forward(layers, x), rtol=1e-5, atol=1e-6)


def test_a_unit_that_one_sample_needs_stays():
    layers, x = arrays_of(network(units=4, hidden_layers=1)), features(100)
    weight, bias = layers["0.weight"], layers["0.bias"]
    order = np.sort(x @ weight[:, 0])
    bias[0] = -(order[-1] + order[-2]) / 2
    assert np.sum(x @ weight[:, 0] + bias[0] > 0) == 1
    small = pruned(layers, x)
    np.testing.assert_allclose(forward(small, x), forward(layers, x), rtol=1e-5, atol=1e-6)
    without = pruned(layers, x[x @ weight[:, 0] + bias[0] <= 0])
    assert without["0.bias"].size == small["0.bias"].size - 1


def test_a_network_may_lose_all_its_units():
    layers, x = arrays_of(network(units=4)), features(10)
    layers["0.bias"][:] = -1000
    small = pruned(layers, x)
    np.testing.assert_allclose(forward(small, x), forward(layers, x), rtol=1e-6)


def test_the_sigmoid_does_not_overflow():
    values = np.array([-1e4, -2.0, 0.0, 3.0, 1e4], dtype=np.float32)
    np.testing.assert_allclose(sigmoid(values), [0, 1 / (1 + np.exp(2)), 0.5, 1 / (1 + np.exp(-3)), 1], rtol=1e-12)


CHOICES = [
    {},
    {"activation": "elu"},
    {"activation": "tanh", "skips": True},
    {"parallel": True},
    {"batch_norm": True, "dropout": 0.1, "activation": "elu", "parallel": True},  # that of Kaandorp
    {"batch_norm": True, "skips": True},
]


@pytest.mark.parametrize("choices", CHOICES, ids=str)
def test_every_choice_is_computed_as_torch_does(choices):
    architecture, x = Perceptron(6, 3, **choices), features(700)
    torch.manual_seed(0)
    net = architecture.module(4, 2)
    net.train()
    for _ in range(3):  # moves the running means of batch normalisation
        net(torch.from_numpy(features(50, seed=1) * 2 + 1))
    net.eval()
    with torch.inference_mode():
        expected = net(torch.from_numpy(x)).numpy()
    arrays = architecture.arrays(net)
    architecture.require(arrays, 4, 2)
    np.testing.assert_allclose(architecture.forward(arrays, x), expected, rtol=1e-5, atol=1e-5)
    if architecture.prunes:
        np.testing.assert_allclose(
            architecture.forward(architecture.pruned(arrays, x), x), expected, rtol=1e-5, atol=1e-5
        )


def test_parallel_networks_share_nothing():
    """Each output has a network of its own: its weights alone move it."""
    net = Perceptron(5, 2, parallel=True).module(4, 3)
    net(torch.randn(10, 4))[:, 1].sum().backward()
    for weight in net.parameters():
        moved = weight.grad.reshape(3, -1).abs().sum(dim=1) > 0
        assert moved.tolist() == [False, True, False]


@pytest.mark.parametrize("share", [1.0, 3.0])
def test_a_share_of_units_that_cannot_be(share):
    with pytest.raises(ValueError, match="between 0 and 1"):
        Perceptron(dropout=share)
