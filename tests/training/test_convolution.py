"""The convolution as plain arrays: what torch computes of patches, over a whole image."""

from __future__ import annotations

import numpy as np
import pytest

from bidsfit.training import convolution as module
from bidsfit.training.convolution import Convolution

torch = pytest.importorskip("torch")

MADE = Convolution(units=16, hidden_layers=2)
CHANNELS, OUTPUTS = 4, 3


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return MADE.module(CHANNELS, OUTPUTS)


def image(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal((*shape, CHANNELS)).astype(np.float32)


def test_patches(network):
    x = image(50, 3, 3, 1)
    with torch.inference_mode():
        expected = network(torch.from_numpy(x)).numpy()
    found = MADE.forward(MADE.arrays(network), x)
    assert found.shape == (50, 1, 1, 1, OUTPUTS)
    np.testing.assert_allclose(found[:, 0, 0, 0], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("gathered", [1, 7, 1 << 15])
def test_an_image_is_its_patches(network, monkeypatch, gathered):
    """However many voxels are gathered at a time; slices do not mix."""
    monkeypatch.setattr(module, "GATHERED", gathered)
    x = image(2, 7, 6, 3)
    found = MADE.forward(MADE.arrays(network), x)
    assert found.shape == (2, 5, 4, 3, OUTPUTS)
    for place in np.ndindex(found.shape[:4]):
        n, i, j, k = place
        with torch.inference_mode():
            expected = network(torch.from_numpy(x[n, i : i + 3, j : j + 3, k : k + 1][None].copy())).numpy()[0]
        np.testing.assert_allclose(found[place], expected, rtol=1e-5, atol=1e-6)


def test_slices_are_read_as_well():
    """Every voxel of the 27 counts, and the image is its patches."""
    made = Convolution(units=16, hidden_layers=2, slices=True)
    torch.manual_seed(1)
    network, x = made.module(CHANNELS, OUTPUTS), image(2, 5, 4, 6)
    arrays = made.arrays(network)
    assert (made.reach, arrays["0.weight"].shape) == ((1, 1, 1), (27 * CHANNELS, 16))
    found = made.forward(arrays, x)
    assert found.shape == (2, 3, 2, 4, OUTPUTS)
    for n, i, j, k in np.ndindex(found.shape[:4]):
        with torch.inference_mode():
            expected = network(torch.from_numpy(x[n, i : i + 3, j : j + 3, k : k + 3][None].copy())).numpy()[0]
        np.testing.assert_allclose(found[n, i, j, k], expected, rtol=1e-5, atol=1e-6)
    centre, width = np.array([1, 2, 3, 4], np.float32), np.array([0.5, 1, 2, 4], np.float32)
    scaled = made.forward(made.folded(arrays, centre, width), x * width + centre)
    np.testing.assert_allclose(scaled, found, rtol=1e-3, atol=1e-4)


def test_the_standardisation_is_folded_in(network):
    centre, width = np.array([1, 2, 3, 4], np.float32), np.array([0.5, 1, 2, 4], np.float32)
    x, arrays = image(1, 5, 5, 2), MADE.arrays(network)
    expected = MADE.forward(arrays, (x - centre) / width)
    np.testing.assert_allclose(MADE.forward(MADE.folded(arrays, centre, width), x), expected, rtol=1e-4, atol=1e-5)


def test_silent_units_go(network):
    x, arrays = image(500, 3, 3, 1), MADE.arrays(network)
    arrays["0.bias"][:5] = -1000
    small = MADE.pruned(arrays, x)
    assert small["0.weight"].shape == (9 * CHANNELS, 11)
    np.testing.assert_allclose(MADE.forward(small, x), MADE.forward(arrays, x), rtol=1e-5, atol=1e-6)


def test_a_file_of_it_is_read_or_refused(network):
    content = MADE.dump(MADE.arrays(network))
    for name, array in MADE.load(content, CHANNELS, OUTPUTS).items():
        np.testing.assert_array_equal(array, MADE.arrays(network)[name])
    with pytest.raises(ValueError, match="no network"):
        MADE.load(content, CHANNELS + 1, OUTPUTS)
