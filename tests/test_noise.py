"""Noise is what its name says: moments against their analytic values."""

import numpy as np
import pytest
from scipy import stats

from bidsfit import Acquisition
from bidsfit.noise import (
    add_noise,
    remove_rician_bias,
    repeats,
    rician_log_likelihood,
    rician_mean,
    sigma_from_repeats,
)

N = 200_000


@pytest.mark.parametrize("snr", [0.0, 0.5, 1.0, 3.0, 20.0])
def test_rician_moments(snr):
    sigma = 2.0
    noisy = add_noise(np.full(N, snr * sigma), sigma, "rician", np.random.default_rng(1))
    rice = stats.rice(snr, scale=sigma)
    assert noisy.mean() == pytest.approx(rice.mean(), abs=4 * rice.std() / np.sqrt(N))
    assert (noisy**2).mean() == pytest.approx((snr * sigma) ** 2 + 2 * sigma**2, rel=0.01)
    assert stats.kstest(noisy, rice.cdf).pvalue > 1e-3


def test_rician_noise_is_not_folded_gaussian_noise():
    """The imaginary channel counts: in air the mean is sigma sqrt(pi/2), not sigma sqrt(2/pi)."""
    air = add_noise(np.zeros(N), 1.0, "rician", np.random.default_rng(2))
    assert air.mean() == pytest.approx(np.sqrt(np.pi / 2), rel=0.01)


def test_gaussian_moments():
    noisy = add_noise(np.full(N, 1.0), 3.0, "gaussian", np.random.default_rng(3))
    assert noisy.mean() == pytest.approx(1.0, abs=4 * 3 / np.sqrt(N))
    assert noisy.std() == pytest.approx(3.0, rel=0.01)
    assert noisy.min() < 0


def test_sigma_may_be_a_map():
    sigma = np.array([[0.0], [1.0]])
    noisy = add_noise(np.full((2, N), 5.0), sigma, "gaussian", np.random.default_rng(4))
    assert np.all(noisy[0] == 5.0)
    assert noisy[1].std() == pytest.approx(1.0, rel=0.01)


def test_input_is_left_alone():
    signals = np.ones(5)
    add_noise(signals, 1.0, "rician", np.random.default_rng(5))
    assert np.all(signals == 1)


@pytest.mark.parametrize(
    ("signals", "sigma", "kind", "message"),
    [
        ([1.0], 1.0, "rice", "Unknown kind"),
        ([1.0], -1.0, "gaussian", "negative"),
        ([1.0], np.nan, "gaussian", "NaN"),
        ([-1.0], 1.0, "rician", "magnitudes"),
    ],
)
def test_refusals(signals, sigma, kind, message):
    with pytest.raises(ValueError, match=message):
        add_noise(signals, sigma, kind, np.random.default_rng(6))


AMPLITUDES = np.array([0.0, 0.1, 0.5, 1.0, 2.0, 5.0, 20.0])


def test_rician_mean_and_density_are_those_of_scipy():
    assert rician_mean(AMPLITUDES * 3, 3.0) == pytest.approx(stats.rice.mean(AMPLITUDES, scale=3), rel=1e-12)
    magnitudes = np.array([0.2, 0.7, 1.5, 9.0])[:, None]
    density = rician_log_likelihood(magnitudes * 3, AMPLITUDES * 3, 3.0)
    assert density == pytest.approx(stats.rice.logpdf(magnitudes * 3, AMPLITUDES, scale=3), rel=1e-10)
    assert np.isfinite(rician_log_likelihood(1000.0, 1000.0, 1.0))


@pytest.mark.parametrize("sigma", [0.5, 20.0])
def test_bias_removal_inverts_the_mean(sigma):
    amplitudes = np.append(AMPLITUDES[1:], [49.0, 51.0, 500.0]) * sigma
    assert remove_rician_bias(rician_mean(amplitudes, sigma), sigma) == pytest.approx(amplitudes, rel=1e-5)


def test_bias_removal_is_zero_below_the_floor_and_nothing_without_noise():
    assert remove_rician_bias([0.0, 1.2], 1.0).tolist() == [0.0, 0.0]
    assert remove_rician_bias([0.0, 1.2], 0.0).tolist() == [0.0, 1.2]


def test_sigma_from_repeats_is_the_noise_that_was_added():
    directions = np.r_[np.zeros((6, 3)), np.eye(3)]
    acquisition = Acquisition([0] * 6 + [1000] * 3, directions)
    clean = np.where(acquisition.b_values == 0, 1000.0, 400.0) * np.random.default_rng(0).uniform(1, 2, (5000, 1))
    noisy = add_noise(clean, 25.0, "gaussian", np.random.default_rng(1))
    estimate = sigma_from_repeats(noisy, acquisition)
    assert estimate.sigma == pytest.approx(25.0, rel=0.02)
    assert "6 at b = 0" in estimate.method


def test_directions_are_no_repeats():
    acquisition = Acquisition([0, 1000, 1000, 1000], np.r_[np.zeros((1, 3)), np.eye(3)])
    assert sigma_from_repeats(np.ones((10, 4)), acquisition) is None
    again = Acquisition([0, 1000, 1000, 1000], np.r_[np.zeros((1, 3)), np.eye(3)[[0, 1, 0]]])
    assert [group.tolist() for group in repeats(again)] == [[0], [1, 3], [2]]
