"""Training signals: the noise of an average of n measurements, whatever its kind."""

from __future__ import annotations

import numpy as np
import pytest

from bidsfit import Acquisition, models
from bidsfit.noise import add_noise
from bidsfit.training.distributions import Uniform
from bidsfit.training.simulation import Features, Noise, Simulator, noisy_averages
from bidsfit.training.space import ParameterSpace

N = 100_000
SHELLS = Acquisition([0, 1000, 2000, 3500, 5000], counts=[8, 32, 32, 3, 1], n_directions=[1, 32, 32, 3, 1])
SPACE = ParameterSpace(models.get("smt2"))
CLEAN = np.array([1.0, 0.6, 0.4, 0.3, 0.2])


def simulator(**noise: object) -> Simulator:
    return Simulator(Uniform(SPACE), SHELLS, Noise(**noise))


def test_gaussian_averages_scatter_by_sigma_over_the_root_of_n():
    noisy = noisy_averages(np.tile(CLEAN, (N, 1)), SHELLS, 0.2, "gaussian", np.random.default_rng(0))
    sd = 0.2 / np.sqrt(SHELLS.weights)
    np.testing.assert_allclose(noisy.std(axis=0), sd, rtol=0.01)
    assert np.all(np.abs(noisy.mean(axis=0) - CLEAN) < 4 * sd / np.sqrt(N))
    assert np.abs(np.corrcoef(noisy.T)[np.triu_indices(5, 1)]).max() < 5 / np.sqrt(N)


@pytest.mark.parametrize("n", [1, 3, 8, 9, 32])
@pytest.mark.parametrize("amplitude", [0.0, 0.3, 1.0])
def test_rician_averages_have_the_moments_of_averaged_magnitudes(n, amplitude):
    """At high noise, where a magnitude is far from Gaussian: SNR 2."""
    sigma, draws = 0.5, 60_000
    single = add_noise(np.full((draws, n), amplitude), sigma, "rician", np.random.default_rng(1))
    expected = single.mean(axis=1)
    acquisition = Acquisition([1000.0], counts=[n])
    found = noisy_averages(np.full((draws, 1), amplitude), acquisition, sigma, "rician", np.random.default_rng(2))[:, 0]
    sd = expected.std()
    assert found.mean() == pytest.approx(expected.mean(), abs=5 * sd * np.sqrt(2 / draws))
    assert found.std() == pytest.approx(sd, rel=0.02)
    if amplitude == 0:  # and not those of Gaussian noise
        assert found.mean() > 0.6
    assert np.mean(np.quantile(found, [0.05, 0.95])) == pytest.approx(
        np.mean(np.quantile(expected, [0.05, 0.95])), rel=0.02
    )


@pytest.mark.parametrize("kind", ["gaussian", "rician"])
def test_the_lowest_may_be_exact(kind):
    rng = np.random.default_rng(3)
    parameters = SPACE.sample(500, rng)
    clean = SPACE.model.signal(SPACE.with_scale(parameters), SHELLS)
    exact = simulator(snr=5, kind=kind, lowest=False).measure(parameters, rng)
    np.testing.assert_array_equal(exact[:, 0], clean[:, 0])
    assert np.all(exact[:, 1:] != clean[:, 1:])
    assert np.all(simulator(snr=5, kind=kind).measure(parameters, rng) != clean)


def test_without_noise_it_is_the_model():
    rng = np.random.default_rng(4)
    made = simulator(snr=np.inf)
    parameters, features = made.draw(300, rng)
    clean = SPACE.model.signal(SPACE.with_scale(parameters), SHELLS)
    np.testing.assert_array_equal(made.measure(parameters, rng), clean)
    np.testing.assert_allclose(features, clean[:, 1:] / clean[:, :1], rtol=1e-6)
    assert parameters.shape == (300, 2)
    assert SPACE.contains(parameters).all()


def test_the_snr_is_that_of_one_measurement():
    parameters = np.tile([0.5, 1.5], (N, 1))
    noisy = simulator(snr=25).measure(parameters, np.random.default_rng(5))
    np.testing.assert_allclose(noisy.std(axis=0), 1 / 25 / np.sqrt(SHELLS.weights), rtol=0.01)


def test_every_draw_is_fresh_and_the_seed_decides():
    made = simulator(snr=25, kind="rician")
    rng = np.random.default_rng(6)
    first, second = made.draw(100, rng), made.draw(100, rng)
    again = made.draw(100, np.random.default_rng(6))
    np.testing.assert_array_equal(again[1], first[1])
    assert np.all(first[1] != second[1])


@pytest.mark.parametrize("snr", [0.0, -1.0, np.nan])
def test_no_snr(snr):
    with pytest.raises(ValueError, match="SNR of the training must be above 0"):
        Noise(snr)


class TestFeatures:
    def test_the_lowest_is_left_out(self):
        signals = np.array([[2.0, 1.0, 0.5, 0.4, 0.2], [4.0, 1.0, 1.0, 1.0, 1.0]])
        found = Features(SHELLS)(signals)
        assert len(Features(SHELLS)) == 4
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, [[0.5, 0.25, 0.2, 0.1], [0.25] * 4])

    def test_it_need_not_come_first(self):
        found = Features(Acquisition([1000, 500, 2000]))(np.array([[1.0, 2.0, 0.5]]))
        np.testing.assert_allclose(found, [[0.5, 0.25]])

    def test_several_are_kept_relative_to_their_weighted_mean(self):
        acquisition = Acquisition([0, 0, 1000], counts=[1, 3, 4], TE=[60, 90, 60])
        found = Features(acquisition)
        assert len(found) == 3
        np.testing.assert_allclose(found(np.array([[4.0, 2.0, 1.0]])), [[1.6, 0.8, 0.4]], rtol=1e-6)

    def test_the_scale_of_the_image_does_not_matter(self):
        signals = np.random.default_rng(0).random((50, 5)) + 0.1
        np.testing.assert_allclose(Features(SHELLS)(signals * 1000), Features(SHELLS)(signals), rtol=1e-6)
