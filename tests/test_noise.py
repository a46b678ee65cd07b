"""Noise is what its name says: moments against their analytic values."""

import numpy as np
import pytest
from scipy import stats

from bidsfit import Acquisition
from bidsfit.noise import (
    NoiseEstimate,
    add_noise,
    beside_repeats,
    correct_rician_image,
    remove_rician_bias,
    repeats,
    rician_log_likelihood,
    rician_mean,
    rician_sigma,
    rician_sigma_map,
    sigma_from_background,
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


@pytest.mark.parametrize("directions", [np.zeros((4, 3)), None])
def test_directions_that_are_not_known_are_no_repeats(directions):
    """They may differ; at b = 0, and so near to it that it makes no difference, they do not matter."""
    acquisition = Acquisition([0, 1.29, 500, 500], directions=directions)
    assert [group.tolist() for group in repeats(acquisition)] == [[0], [1], [2], [3]]
    assert [group.tolist() for group in repeats(Acquisition([1, 1.29, 500, 500]))] == [[0, 1], [2], [3]]


def test_directions_are_no_repeats():
    acquisition = Acquisition([0, 1000, 1000, 1000], np.r_[np.zeros((1, 3)), np.eye(3)])
    assert sigma_from_repeats(np.ones((10, 4)), acquisition) is None
    again = Acquisition([0, 1000, 1000, 1000], np.r_[np.zeros((1, 3)), np.eye(3)[[0, 1, 0]]])
    assert [group.tolist() for group in repeats(again)] == [[0], [1, 3], [2]]


@pytest.mark.parametrize("snr", [0.5, 1.0, 2.0, 5.0, 25.0])
def test_the_noise_of_a_channel_follows_from_that_of_its_magnitudes(snr):
    rice = stats.rice(snr, scale=3.0)
    assert rician_sigma(rice.std(), [rice.mean()]) == pytest.approx(3.0, rel=0.02)


def test_one_variance_may_be_that_of_several_magnitudes():
    rice = stats.rice(np.array([0.3, 1.0, 4.0, 30.0]), scale=3.0)
    pooled = np.sqrt((rice.std() ** 2).mean())
    assert pooled < 2.7
    assert rician_sigma(pooled, rice.mean()) == pytest.approx(3.0, rel=0.01)
    assert rician_sigma([pooled, 0.0], [rice.mean(), rice.mean()]).tolist() == pytest.approx([3.0, 0.0], rel=0.01)


def test_the_noise_of_magnitudes_is_never_more_than_that_of_a_channel():
    """Air: 1.53 times as much, and no further where noise puts the mean below the floor."""
    assert rician_sigma(1.0, [1.0]) == pytest.approx(1 / np.sqrt(2 - np.pi / 2), rel=1e-6)
    assert rician_sigma(1.0, [1000.0]) == 1.0


def decaying_image(shape=(12, 11, 4)):
    """Decays to below the noise floor, and their level of noise."""
    b = np.linspace(0, 3, 30)
    d = np.random.default_rng(0).uniform(0.5, 2.0, (*shape, 1))
    return 200.0 * np.exp(-b * d), np.full(shape, 20.0)


@pytest.mark.parametrize("threads", [1, 2])
def test_bias_of_an_image_at_snr_10_falls_by_half(threads):
    clean, sigma = decaying_image()
    rice = stats.rice(clean / 20.0, scale=20.0)
    magnitudes = np.sqrt((rice.std() ** 2).mean(axis=-1))
    done = []
    level = rician_sigma_map(magnitudes, rice.mean(), threads=threads)
    corrected = correct_rician_image(rice.mean().astype(np.float32), level, threads=threads, progress=done.append)
    assert corrected.dtype == level.dtype == np.float32
    assert level == pytest.approx(sigma, rel=0.02)
    assert abs((corrected - clean).mean()) < 0.1 * (rice.mean() - clean).mean()
    assert done == [0.25, 0.5, 0.75, 1.0]


def test_a_signal_below_the_floor_is_no_missing_measurement():
    """Estimators take a 0 among positive signals for one; one that was 0 stays so."""
    image, sigma = np.array([[[[100.0, 20.0, 0.0]]]]), np.full((1, 1, 1), 20.0)
    found = correct_rician_image(image, sigma)[0, 0, 0]
    assert 0 < found[1] < 1e-4
    assert found[2] == 0


def test_voxels_without_a_noise_level_keep_their_values():
    image = np.full((2, 2, 1, 3), 5.0)
    image[1, 1, 0, 1] = np.nan
    sigma = np.array([[0.0, np.nan], [np.inf, 1.0]])[..., None]
    corrected = correct_rician_image(image, sigma)
    assert corrected[0, 0].tolist() == corrected[0, 1].tolist() == corrected[1, 0].tolist() == [[5, 5, 5]]
    assert np.isnan(corrected[1, 1, 0]).tolist() == [False, True, False]
    assert corrected[1, 1, 0, 0] < 5
    assert rician_sigma_map(sigma, image)[:, :, 0].tolist()[0] == [0, 0]
    for correct in (lambda: correct_rician_image(image, sigma[:1]), lambda: rician_sigma_map(sigma[:1], image)):
        with pytest.raises(ValueError, match="does not fit"):
            correct()


def head_in_air(shape=(24, 24, 3, 20)):
    clean = np.zeros(shape)
    clean[6:18, 6:18] = 300 * np.exp(-np.linspace(0, 2, shape[3]))
    return add_noise(clean, 12.0, "rician", np.random.default_rng(0))


def test_noise_is_found_in_the_air():
    image = head_in_air()
    image[0, 0, 0, 0] = np.nan
    estimate = sigma_from_background(image)
    assert estimate.sigma == pytest.approx(12.0, rel=0.03)
    assert "PIESNO" in estimate.method


def test_no_air_is_no_estimate():
    image = head_in_air()
    assert sigma_from_background(image[6:18, 6:18]) is None
    image[:6], image[18:], image[:, :6], image[:, 18:] = 0, 0, 0, 0  # masked by the scanner
    assert sigma_from_background(image) is None
    assert sigma_from_background(np.zeros((8, 8, 2, 5))) is None
    smooth = np.full((16, 16, 2, 12), 50.0) + np.random.default_rng(0).normal(0, 1, (16, 16, 2, 12))
    assert sigma_from_background(smooth) is None
    with pytest.raises(ValueError, match="shape"):
        sigma_from_background(np.ones((8, 8, 8)))


def test_large_slices_are_sampled():
    air = add_noise(np.zeros((256, 256, 1, 6)), 2.0, "rician", np.random.default_rng(0))
    assert sigma_from_background(air).sigma == pytest.approx(2.0, rel=0.03)


@pytest.mark.parametrize(
    ("repeated", "said"),
    [(None, ""), (0.0, ""), (10.0, ""), (12.9, ""), (7.8, ""), (34.0, "34, 3.4 times"), (7.0, "7, 0.7 times")],
)
def test_repeats_are_told_beside_another_level_where_they_differ(repeated, said):
    words = beside_repeats(10.0, None if repeated is None else NoiseEstimate(repeated, "repeats"))
    assert said in words
    assert bool(said) == bool(words)
