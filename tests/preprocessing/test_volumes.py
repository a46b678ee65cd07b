"""Volumes that do not belong: found with their reason, and none where there is only noise, contrast or loss."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter, shift

from bidsfit.acquisition import Acquisition
from bidsfit.phantom.directions import spread_directions
from bidsfit.preprocessing.volumes import find_strangers

SHAPE = (20, 20, 6)
ADC = 1e-3


def texture(seed, spread=0.3):
    """Something that varies over a few voxels."""
    values = gaussian_filter(np.random.default_rng(seed).normal(size=SHAPE), 1.5)
    return 1 + spread * values / values.std()


def inside():
    grid = np.indices(SHAPE) - (np.array(SHAPE)[:, None, None, None] - 1) / 2
    return ((grid / (0.42 * np.array(SHAPE)[:, None, None, None])) ** 2).sum(0) <= 1


S0 = 1000 * np.where(inside(), np.maximum(texture(0), 0.2), 0)
D = ADC * np.maximum(texture(1), 0.2)


def noisy(clean, snr=30, seed=2):
    rng = np.random.default_rng(seed)
    return np.hypot(clean + rng.normal(0, 1000 / snr, clean.shape), rng.normal(0, 1000 / snr, clean.shape))


def isotropic(b):
    return S0[..., None] * np.exp(-D[..., None] * np.asarray(b))


def along(b, directions, fibres, parallel=1.8e-3, across=0.3e-3):
    """Fibres of one direction each: as anisotropic as tissue can be."""
    cosine = np.einsum("...c,nc->...n", fibres, directions)
    return S0[..., None] * np.exp(-np.asarray(b) * (across + (parallel - across) * cosine**2))


def shells(*counts):
    """b-values and directions of shells: pairs of a b-value and a number."""
    b = np.concatenate([[value] * n for value, n in counts])
    parts = [np.zeros((n, 3)) if value == 0 else spread_directions(n) for value, n in counts]
    return b, np.concatenate(parts)


def find(data, b, directions=None, **more):
    return find_strangers(lambda k: data[..., k], Acquisition(b, directions, **more), (2, 2, 2))


def appended(data, volume, b, value, directions=None, direction=(0, 0, 0)):
    """Strangers after a volume was appended under a b-value."""
    table = None if directions is None else np.vstack([directions, direction])
    return find(np.concatenate([data, volume[..., None]], -1), np.append(b, value), table)


# --- what does not belong -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "words"), [(0, "only zeros"), (np.nan, "no finite value"), (7, "one and the same value")]
)
def test_empty_volumes(value, words):
    b, g = shells((0, 2), (500, 3), (1000, 6))
    data = noisy(isotropic(b))
    data[..., 7] = value
    (found,) = find(data, b, g).items()
    assert found[0] == 7
    assert words in found[1]


def test_an_image_that_is_empty_as_a_whole_is_not_judged_here():
    assert find(np.zeros((*SHAPE, 3)), [0, 500, 1000]) == {}


@pytest.mark.parametrize(("value", "scale"), [(1000, 0.8e6), (1000, 1.0), (0, 0.4e6), (0, 1.0), (500, 1.2e6)])
def test_an_adc_map_is_found_by_its_level(value, scale):
    b, g = shells((0, 2), (500, 3), (1000, 6))
    found = appended(noisy(isotropic(b)), D * scale * inside(), b, value, g)
    assert list(found) == [11]
    assert f"times that of the other volumes of b = {value} s/mm²" in found[11]


@pytest.mark.parametrize("direction", [(0, 0, 0), (0.6, 0.8, 0)])
@pytest.mark.parametrize("snr", [10, 30])
def test_an_adc_map_of_the_same_level_is_found_by_its_look(direction, snr):
    b, g = shells((0, 3), (1000, 30))
    data = noisy(isotropic(b), snr)
    volume = D * inside() * np.median(data[..., 5][inside()]) / ADC
    found = appended(data, volume, b, 1000, g, direction)
    assert list(found) == [33]
    assert "does not look like" in found[33]


def test_a_map_of_the_same_level_among_unweighted_volumes():
    b, g = shells((0, 4), (1000, 12))
    found = appended(noisy(isotropic(b)), 1000 * D / ADC * inside(), b, 0, g)
    assert list(found) == [16]


def test_a_trace_image_under_b_0():
    b, g = shells((0, 2), (1000, 12))
    data = noisy(isotropic(b))
    assert list(appended(data, data[..., 2:].mean(-1), b, 0, g)) == [14]


def test_a_trace_image_under_its_own_b_value_belongs():
    b, g = shells((0, 2), (1000, 12))
    data = noisy(isotropic(b))
    assert appended(data, data[..., 2:].mean(-1), b, 1000, g) == {}


def test_a_volume_of_another_participant():
    b, g = shells((0, 3), (1000, 30))
    data = noisy(isotropic(b))
    data[..., 9] = noisy(1000 * inside() * np.maximum(texture(5), 0.2) * np.exp(-1), seed=6)
    assert list(find(data, b, g)) == [9]


IVIM = [0, 5, 10, 20, 40, 60, 80, 100, 150, 200, 400, 600, 800]


@pytest.mark.parametrize("value", [0, 60, 800])
def test_a_map_among_volumes_that_each_have_their_b_value(value):
    found = appended(noisy(isotropic(IVIM)), D * inside() * 5e6, IVIM, value)
    assert list(found) == [13]
    assert "its signal is" in found[13]


def test_several_strangers():
    b, g = shells((0, 3), (1000, 12))
    data = noisy(isotropic(b))
    data[..., 4] = 0
    data[..., 8] = D * inside()
    data[..., 12] *= 3
    assert list(find(data, b, g)) == [4, 8, 12]


# --- what belongs ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("snr", [3, 5, 50])
@pytest.mark.parametrize("seed", range(3))
def test_noise_at_high_b(snr, seed):
    b, g = shells((0, 4), (1000, 8), (3000, 12), (6000, 12))
    assert find(noisy(isotropic(b), snr, seed), b, g) == {}
    assert find(noisy(isotropic(IVIM), snr, seed), IVIM) == {}


@pytest.mark.parametrize("directions", [1, 3, 6, 12, 30])
@pytest.mark.parametrize("coherent", [True, False])
@pytest.mark.parametrize("known", [True, False])
def test_contrast_of_directions(directions, coherent, known):
    """One direction may look unlike all others where all fibres run along it."""
    b, g = shells((0, 3), (1000, directions), (3000, directions))
    fibre = g[3] if coherent else np.random.default_rng(3).normal(size=(*SHAPE, 3))
    fibre = fibre / np.linalg.norm(fibre, axis=-1, keepdims=True)
    clean = along(b, g, np.broadcast_to(fibre, (*SHAPE, 3)))
    for snr in (5, 50):
        assert find(noisy(clean, snr), b, g if known else None) == {}


def test_a_bundle_in_tissue_that_is_isotropic():
    b, g = shells((0, 1), (1000, 6), (2000, 6))
    bundle = np.indices(SHAPE)[0] > 8
    clean = np.where(bundle[..., None], along(b, g, np.broadcast_to(g[2], (*SHAPE, 3))), isotropic(b))
    assert find(noisy(clean, 40), b, g) == {}


def test_one_direction_after_the_other_at_ever_higher_b():
    g = spread_directions(len(IVIM))
    clean = along(IVIM, g, np.broadcast_to(g[-1], (*SHAPE, 3)))
    assert find(noisy(clean, 20), IVIM, g) == {}


def test_movement():
    b, g = shells((0, 5), (1000, 12))
    data = noisy(isotropic(b), 20)
    rng = np.random.default_rng(4)
    for k in (2, 8, 13):
        data[..., k] = shift(data[..., k], [*rng.uniform(-2, 2, 2), rng.uniform(-0.5, 0.5)], order=1)
    assert find(data, b, g) == {}


def test_slices_that_lost_signal():
    b, g = shells((0, 5), (1000, 12))
    data = noisy(isotropic(b), 20)
    data[:, :, 1:4, 2] *= 0.3
    data[:, :, ::2, 8] *= 0.3
    data[..., 11] *= 0.4
    assert find(data, b, g) == {}


def test_echo_times_are_compared_with_their_own_kind():
    b = np.array([0, 0, 0, 1000, 1000, 1000] * 2)
    echo_times = np.repeat([50.0, 120.0], 6)
    data = noisy(isotropic(b) * np.exp(-(echo_times - 50) / 60), 40)
    assert find(data, b, None, echo_times=echo_times) == {}


def test_a_table_of_zeros_says_nothing_of_directions():
    b = [0, 0, 0, 1000, 1000, 1000]
    clean = along(b, np.vstack([np.zeros((3, 3)), np.eye(3)]), np.broadcast_to([0, 0, 1.0], (*SHAPE, 3)))
    assert find(noisy(clean), b, np.zeros((6, 3))) == {}


def test_few_voxels_and_flat_images():
    b = [0, 0, 500, 1000]
    flat = np.broadcast_to(1000 * np.exp(-np.array(b) * ADC), (3, 3, 1, 4))
    assert find(flat, b) == {}
    assert find(flat[:1, :1], b) == {}
    assert find(np.ones((2, 2, 1, 1)), [0]) == {}
