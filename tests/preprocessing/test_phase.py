"""The real part of complex signals."""

import numpy as np
import pytest

from bidsfit.noise import rician_mean
from bidsfit.phantom.scanner import draw_phase
from bidsfit.preprocessing.phase import in_radians, real_part

SIDE, N = 48, 60


def disc():
    """Signal of 1 within a disc."""
    x, y = np.mgrid[:SIDE, :SIDE] - (SIDE - 1) / 2
    return np.hypot(x, y)


def measured(amplitude, sigma, seed=0):
    """Magnitude and phase of one slice, n times."""
    rng = np.random.default_rng(seed)
    signal = amplitude[:, :, None] * np.exp(1j * draw_phase(amplitude.shape, N, rng))
    signal = signal + sigma * (rng.standard_normal(signal.shape) + 1j * rng.standard_normal(signal.shape))
    return np.abs(signal)[:, :, None], np.angle(signal)[:, :, None]


def test_without_noise_the_real_part_is_the_magnitude():
    amplitude = (disc() < 20).astype(float)
    found = real_part(*measured(amplitude, 0.0))[:, :, 0]
    assert found[disc() < 20].mean() == pytest.approx(1, abs=0.003)
    assert (found[disc() < 18] > 0.95).mean() > 0.999
    np.testing.assert_allclose(found[disc() > 20], 0, atol=1e-6)


@pytest.mark.parametrize(("snr", "slack"), [(5, 0.005), (2, 0.008), (1, 0.02), (0.5, 0.05)])
def test_its_mean_is_the_truth_and_its_noise_gaussian(snr, slack):
    """Where magnitudes are 2, 13, 55 and 166 % too large."""
    inside = disc() < 20
    magnitude, phase = measured(inside.astype(float), 1 / snr)
    found = real_part(magnitude, phase)[:, :, 0][inside]
    assert found.mean() == pytest.approx(1, abs=slack)
    assert found.std() * snr == pytest.approx(1, abs=0.02)
    assert magnitude[:, :, 0][inside].mean() == pytest.approx(rician_mean(1.0, 1 / snr), rel=0.01)


def test_air_has_no_floor():
    magnitude, phase = measured(np.zeros((SIDE, SIDE)), 1.0)
    found = real_part(magnitude, phase)
    assert abs(found.mean()) < 0.06  # that of magnitudes is 1.25
    assert found.std() == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_slices_have_phases_of_their_own(axis):
    """Neighbouring slices of opposite phase do not cancel each other."""
    shape = [16, 16, 16, 2]
    sign = np.resize([0.0, np.pi], 16).reshape([16 if k == axis else 1 for k in range(4)])
    phase = np.broadcast_to(sign, shape)
    np.testing.assert_allclose(real_part(np.ones(shape), phase, slice_axis=axis), 1, atol=1e-5)


def test_phases_are_read_in_radians():
    turn = np.linspace(-np.pi, np.pi, 4096, endpoint=False).reshape(16, 16, 16)
    assert in_radians(turn, "rad") is not turn
    np.testing.assert_allclose(in_radians(turn, "rad"), turn, rtol=1e-6)
    for low, step in ((0, 1), (-2048, 1), (-4096, 2)):
        found = in_radians(low + step * np.arange(4096), "arbitrary")
        np.testing.assert_allclose(np.exp(1j * (found - found[0])), np.exp(1j * (turn.ravel() + np.pi)), atol=1e-3)
    with pytest.raises(ValueError, match="-3142 to 3141 fill no range"):
        in_radians(np.arange(-3142, 3142), "arbitrary")
    with pytest.raises(ValueError, match="fill no range"):
        in_radians(np.zeros(5), "arbitrary")
