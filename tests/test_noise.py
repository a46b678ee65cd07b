"""Noise is what its name says: moments against their analytic values."""

import numpy as np
import pytest
from scipy import stats

from bidsfit.noise import add_noise

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
