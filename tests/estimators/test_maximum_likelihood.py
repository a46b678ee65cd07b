"""Maximum likelihood against SciPy on the same objective, and against least squares where they must agree."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import ive

from bidsfit import Acquisition, LeastSquares, models
from bidsfit.estimators.maximum_likelihood import MaximumLikelihood
from bidsfit.estimators.misfits import bessel_terms, rician
from bidsfit.noise import add_noise, rician_log_likelihood

ACQUISITION = Acquisition([0, 5, 10, 20, 30, 40, 60, 80, 100, 150, 200, 300, 400, 500, 600, 800])


def simulated(model, n: int, snr: float, kind: str = "rician", seed: int = 0):
    rng = np.random.default_rng(seed)
    truth = {
        "S0": np.ones(n),
        "f": rng.uniform(0.05, 0.5, n),
        "D": rng.uniform(0.3, 2.5, n),
        "Dstar": rng.uniform(8, 80, n),
    }
    return truth, add_noise(model.signal(truth, ACQUISITION), 1 / snr, kind, rng)


@pytest.mark.parametrize("z", [0.0, 1e-9, 1e-3, 0.5, 5.0, 19.999, 20.001, 80.0, 1e4, 1e9])
def test_bessel_terms_are_exact(z: float) -> None:
    logarithm, ratio = bessel_terms(z)
    assert logarithm == pytest.approx(np.log(ive(0, z)), rel=1e-12, abs=1e-14)
    assert ratio == pytest.approx(ive(1, z) / ive(0, z), rel=1e-13)


@pytest.mark.parametrize("snr", [0.5, 3.0, 30.0, 1000.0])
def test_rician_misfit_is_twice_the_negative_log_likelihood_with_its_slope(snr: float) -> None:
    weight, step = snr**2, 1e-6
    for measured, predicted in ((0.3, 0.2), (1.0, 1.01), (0.9, 1.0), (2 / snr, 0.5 / snr)):

        def twice(m: float, measured: float = measured) -> float:
            return -2 * float(rician_log_likelihood(measured, m, 1 / snr))

        cost, slope, _ = rician(measured, predicted, weight)
        offset = cost - twice(predicted)
        other, _, _ = rician(measured, predicted * 1.1, weight)
        assert other - twice(predicted * 1.1) == pytest.approx(offset, abs=1e-9 * max(abs(cost), abs(other), 1))
        difference = (twice(predicted + step / snr) - twice(predicted - step / snr)) / (2 * step / snr)
        assert slope == pytest.approx(-difference / 2, rel=1e-4, abs=1e-4 * snr)


def test_likelihood_is_as_good_as_that_of_scipy() -> None:
    model, snr, n = models.get("ivim"), 20.0, 60
    _, signals = simulated(model, n, snr)
    b = ACQUISITION.b_values * 1e-3
    estimator = MaximumLikelihood(model)
    estimate = estimator.estimate(signals, ACQUISITION, 1 / snr)
    found = np.stack([estimate.parameters[name] for name in model.names], axis=1)
    start = np.stack([LeastSquares(model).estimate(signals, ACQUISITION).parameters[n] for n in model.names], axis=1)
    worse = 0
    for y, ours, x0 in zip(signals, found, start, strict=True):

        def objective(x: np.ndarray, y: np.ndarray = y) -> float:
            s = x[0] * ((1 - x[1]) * np.exp(-b * x[2]) + x[1] * np.exp(-b * x[3]))
            return -float(np.sum(rician_log_likelihood(y, s, 1 / snr)))

        bounds = [(0, 10), *map(tuple, estimator.bounds[1:])]
        theirs = minimize(objective, np.clip(x0, *np.transpose(bounds)), method="L-BFGS-B", bounds=bounds)
        worse += objective(ours) > theirs.fun + 1e-6 * abs(theirs.fun)
    assert worse == 0


def test_gaussian_likelihood_is_least_squares() -> None:
    model = models.get("ivim")
    _, signals = simulated(model, 2000, 25, "gaussian")
    likelihood = MaximumLikelihood(model, noise="gaussian").estimate(signals, ACQUISITION, 1 / 25)
    squares = LeastSquares(model).estimate(signals, ACQUISITION)
    same = np.abs(likelihood.rmse / squares.rmse - 1) < 1e-4
    assert same.mean() > 0.995


def test_rician_likelihood_removes_the_bias_of_the_noise_floor() -> None:
    model = models.get("smt2")
    acquisition = Acquisition(
        np.r_[np.zeros(6), np.repeat([1000, 2000, 3500, 5000], 30)],
        np.r_[np.zeros((6, 3)), np.random.default_rng(0).normal(size=(120, 3))],
    )
    truth = {"S0": np.full(1500, 300.0), "vcyl": np.full(1500, 0.4), "lambda": np.full(1500, 1.7)}
    signals = add_noise(model.signal(truth, acquisition), 20.0, "rician", np.random.default_rng(1))
    bias = {}
    for estimator in (MaximumLikelihood(model), LeastSquares(model)):
        estimate = estimator.estimate(signals, acquisition, 20.0)
        bias[estimator.name] = abs(np.mean(estimate.parameters["vcyl"] - 0.4))
    assert bias["mle"] < 0.01
    assert bias["lsq"] > 5 * bias["mle"]


@pytest.mark.parametrize("snr", [0.5, 5.0, 1000.0])
def test_it_is_stable_at_any_noise_and_scale(snr: float) -> None:
    model = models.get("ivim")
    _, signals = simulated(model, 500, snr)
    estimate = MaximumLikelihood(model).estimate(signals, ACQUISITION, 1 / snr)
    scaled = MaximumLikelihood(model).estimate(signals * 1e4, ACQUISITION, 1e4 / snr)
    assert all(np.isfinite(values).all() for values in estimate.parameters.values())
    assert np.all(estimate.parameters["D"] <= estimate.parameters["Dstar"])
    same = np.isclose(scaled.parameters["S0"], 1e4 * estimate.parameters["S0"], rtol=1e-3)
    assert same.mean() > 0.95  # in pure noise many minima are equally deep


def test_noise_must_be_given() -> None:
    with pytest.raises(ValueError, match="needs the standard deviation of the noise"):
        MaximumLikelihood(models.get("ivim")).estimate(np.ones((1, 16)), ACQUISITION)
