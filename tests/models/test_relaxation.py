"""Relaxation times: closed forms, the bound, and what simulation tells of errors over orders of magnitude."""

from __future__ import annotations

import numpy as np
import pytest

from bidsfit import Acquisition, LeastSquares, MaximumLikelihood, models
from bidsfit.bids.series import SERIES
from bidsfit.information import cramer_rao_bound
from bidsfit.noise import add_noise
from bidsfit.phantom.tissue import RECIPES
from bidsfit.trust import monte_carlo

#: True parameters of every model.
TRUTHS = {"t2": {"S0": 1000.0, "T2": 80.0}, "t2star": {"S0": 1000.0, "T2star": 45.0}}
NAMES = tuple(TRUTHS)


def protocol(name):
    return Acquisition(**RECIPES[name].columns)


def noisy(name, snr, n, kind="rician"):
    clean = models.get(name).signal(TRUTHS[name], protocol(name))
    return add_noise(np.tile(clean, (n, 1)), 1000 / snr, kind, np.random.default_rng(0))


def test_every_model_of_a_series_is_looked_at_here():
    assert {n for n in models.BUILT_IN if models.get(n).suffixes != ("dwi",)} == set(NAMES)
    assert {suffix for name in NAMES for suffix in models.get(name).suffixes} == set(SERIES)


@pytest.mark.parametrize("name", NAMES)
def test_echoes_decay_by_the_equation(name):
    """After one relaxation time 1/e is left, after two 1/e^2."""
    model, (s0, time) = models.get(name), TRUTHS[name].values()
    signal = model.signal(TRUTHS[name], Acquisition(TE=[1e-9, time, 2 * time, time * np.log(2)]))
    np.testing.assert_allclose(signal, s0 * np.array([1, np.exp(-1), np.exp(-2), 0.5]), rtol=1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_rates_are_in_1_per_s(name):
    model, (_, time) = models.get(name), TRUTHS[name].values()
    estimate = LeastSquares(model).estimate(model.signal(TRUTHS[name], protocol(name))[None], protocol(name))
    (rate,) = model.derived
    assert rate.label == model.names[1].replace("T", "R")
    assert estimate.derived[rate.name][0] == pytest.approx(1000 / time, rel=1e-6)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("make", "kind"), [(LeastSquares, "gaussian"), (MaximumLikelihood, "rician")])
def test_estimators_reach_the_bound(name, make, kind):
    model = models.get(name)
    estimate = make(model).estimate(noisy(name, 40, 4000, kind), protocol(name), noise=25.0)
    floor = cramer_rao_bound(model, TRUTHS[name], protocol(name), 25.0, kind)
    for parameter, value in TRUTHS[name].items():
        found = estimate.parameters[parameter]
        assert found.mean() == pytest.approx(value, abs=0.2 * floor[parameter])
        assert found.std() == pytest.approx(floor[parameter], rel=0.06)


def test_the_bound_of_two_echoes_is_that_of_error_propagation():
    """T2 = (TE2 - TE1) / ln(S1 / S2), so that its variance follows from those of two signals."""
    t2, times, sigma = models.get("t2"), np.array([20.0, 100.0]), 5.0
    signal = t2.signal(TRUTHS["t2"], Acquisition(TE=times))
    expected = 80.0**2 / np.diff(times)[0] * sigma * np.sqrt((1 / signal**2).sum())
    assert cramer_rao_bound(t2, TRUTHS["t2"], Acquisition(TE=times), sigma)["T2"] == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_a_protocol_lacks_what_is_said(name):
    (missing,) = models.get(name).support(Acquisition(TE=[10, 20])).missing
    assert missing.startswith("3 different echo times")
    (missing,) = models.get(name).support(Acquisition(TE=[10, 20, 30], TR=[500, 600, 700])).missing
    assert missing.startswith("one repetition time (the model does not describe its influence)")


@pytest.mark.parametrize("name", NAMES)
def test_expected_errors_are_those_that_are_seen(name):
    """Of least squares, which Rician noise biases at low SNR; not blurred by those of times 20 times as long."""
    model, acquisition = models.get(name), protocol(name)
    estimator, time = LeastSquares(model), models.get(name).names[1]
    performance = monte_carlo.performance_of(estimator, acquisition, size=monte_carlo.Size(1024, 32, 8, 192))
    for snr in (20, 60):
        estimate = estimator.estimate(noisy(name, snr, 4000), acquisition)
        error, sd = estimate.parameters[time] - TRUTHS[name][time], estimate.parameters[time].std()
        expected = performance.expected(estimate.points, np.full(4000, 1000 / snr))
        assert np.median(expected.bias[time]) == pytest.approx(error.mean(), abs=0.1 * sd)
        assert np.median(expected.sd[time]) == pytest.approx(sd, rel=0.15)
        assert np.median(expected.response[:, 0, 0]) == pytest.approx(1, abs=0.1)
