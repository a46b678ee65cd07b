"""Saturation at several offsets: the steady state of two pools, and the power of pulses."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.integrate import quad

from bidsfit import Acquisition, LeastSquares, models
from bidsfit.acquisition import GYROMAGNETIC_RATIO
from bidsfit.models.functions import superlorentzian_kernel
from bidsfit.models.pulses import root_mean_square_b1
from bidsfit.phantom.tissue import RECIPES

MODEL = models.get("qmtramani")
PROTOCOL = Acquisition(**RECIPES["qmtramani"].columns)
WHITE = {"S0": 1000.0, "PSR": 0.14, "kmf": 25.0, "T2m": 11.0, "T2R1": 0.04, "T1": 1000.0, "R1m": 1.0, "B1": 1.0}


def steady_state(offset, b1, ratio, kmf, t2m, t2r1, t1, r1m):
    """Longitudinal magnetisation of water under a continuous wave, by the Bloch-McConnell equations of four states.

    Transverse magnetisation of water along and across the field of the wave, longitudinal magnetisation of water and
    of macromolecules, which are saturated at the rate of their line. Hz, microtesla, seconds.
    """
    w1, away, r1 = 267.522187 * b1, 2 * np.pi * offset, 1 / t1
    r2, saturated = r1 / t2r1, np.pi * w1**2 * t2m * superlorentzian_kernel(0, away * t2m)
    matrix = np.array(
        [
            [-r2, -away, 0, 0],
            [away, -r2, w1, 0],
            [0, -w1, -r1 - kmf * ratio, kmf],
            [0, 0, kmf * ratio, -r1m - kmf - saturated],
        ]
    )
    return np.linalg.solve(matrix, [0, 0, -r1, -r1m * ratio])[2]


@pytest.mark.parametrize(
    "changes",
    [{}, {"PSR": 0.05, "kmf": 60.0}, {"T2m": 8.0, "T1": 1500.0, "R1m": 2.0}, {"PSR": 0.0}, {"B1": 1.3, "T2R1": 0.1}],
)
def test_the_signal_is_the_steady_state_of_two_pools(changes):
    truth = WHITE | changes
    pools = truth["PSR"], truth["kmf"], truth["T2m"] * 1e-6, truth["T2R1"], truth["T1"] / 1000, truth["R1m"]
    settings = zip(PROTOCOL.columns["offset"], truth["B1"] * PROTOCOL.columns["saturation"], strict=True)
    expected = [1000 * steady_state(*setting, *pools) for setting in settings]
    np.testing.assert_allclose(MODEL.signal(truth, PROTOCOL), expected, rtol=3e-5)


def test_without_saturation_nothing_is_lost():
    acquisition = Acquisition(offset=[500, 20000], saturation=[0, 0])
    signal, jacobian = MODEL.signal_and_jacobian(WHITE, acquisition)
    np.testing.assert_allclose(signal, 1000)
    np.testing.assert_allclose(jacobian[:, 1:], 0, atol=1e-9)


def test_pool_sizes_follow_the_t1_that_is_held():
    """What the signal tells is PSR times T1: a value for another T1 follows by division."""
    signal = MODEL.signal(WHITE | {"T1": 850.0}, PROTOCOL)
    found = LeastSquares(MODEL).estimate(signal[None], PROTOCOL)
    assert found.parameters["PSR"][0] / 0.85 == pytest.approx(WHITE["PSR"], rel=1e-5)
    for name in ("kmf", "T2m", "T2R1"):
        assert found.parameters[name][0] == pytest.approx(WHITE[name], rel=1e-4)
    found = LeastSquares(MODEL, bounds={"T1": (850, 850)}).estimate(signal[None], PROTOCOL)
    assert found.parameters["PSR"][0] == pytest.approx(WHITE["PSR"], rel=1e-5)


@pytest.mark.parametrize("held", [None, 25.0])
def test_the_transmit_field_is_taken_out(held):
    """Where the rate of exchange is held, no parameters have the same signals; the nearest are less wrong."""
    rng, n = np.random.default_rng(0), 100
    low, high = [0.03, 15, 9, 0.03], [0.18, 40, 12, 0.1]
    tissue, fields = rng.uniform(low, high, (n, 4)), rng.uniform(0.8, 1.2, n)
    truth = np.column_stack([np.full(n, 1e3), tissue, np.tile([1000.0, 1.0], (n, 1)), fields])
    if held:
        truth[:, 2] = held
    estimator = LeastSquares(MODEL, bounds={"kmf": (held, held)} if held else {})
    fitted = estimator.estimate(MODEL.signal(truth, PROTOCOL), PROTOCOL)
    free = [k for k, name in enumerate(MODEL.names) if name not in estimator.fixed]
    found = MODEL.covariate.apply(fitted.points, truth[:, -1], PROTOCOL, free)
    before, after = (np.abs(points[:, 1] / truth[:, 1] - 1).max() for points in (fitted.points, found))
    assert before > 0.2
    assert after < (0.03 if held else 1e-4)
    if not held:
        np.testing.assert_allclose(found, truth, rtol=1e-3)


def test_protocols_of_one_power_are_not_fitted():
    (missing,) = MODEL.support(Acquisition(offset=[1e3, 2e3, 4e3, 8e3, 2e4], saturation=[3.0] * 4 + [0])).missing
    assert missing.startswith("2 different saturation amplitudes of 0.1 µT or more (exchange shows in")


class TestPulses:
    def test_the_amplitude_of_a_constant_pulse(self):
        """180 degrees in 10 ms every 40 ms: pi / 0.01 rad/s for a quarter of the time."""
        found = root_mean_square_b1(180, 0.01, 0.04)
        assert found == pytest.approx(np.pi / 0.01 * 0.5 / 1000 / GYROMAGNETIC_RATIO, rel=1e-9)

    @pytest.mark.parametrize("hann", [False, True])
    def test_the_power_is_the_integral_over_the_pulse(self, hann):
        def curve(t):
            return np.exp(-((np.pi * 200 * t) ** 2) / (4 * np.log(2))) * (np.cos(np.pi * t / 0.02) ** 2 if hann else 1)

        turned, power = (quad(lambda t, p=p: curve(t) ** p, -0.01, 0.01)[0] for p in (1, 2))
        expected = np.deg2rad(500) / turned * np.sqrt(power / 0.035) / 1000 / GYROMAGNETIC_RATIO
        found = root_mean_square_b1(500, 0.02, 0.035, "GAUSSHANN" if hann else "GAUSSIAN", 200)
        assert found == pytest.approx(expected, rel=1e-5)
