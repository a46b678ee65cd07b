"""The standard deviation of estimators of a likelihood, and what taking the Rician bias out does."""

from __future__ import annotations

import numpy as np
import pytest

from bidsfit import (
    Acquisition,
    LeastSquares,
    MaximumLikelihood,
    Segmented,
    Status,
    companions,
    cramer_rao_bound,
    models,
)
from bidsfit.noise import add_noise

IVIM = models.get("ivim")
PROTOCOL = Acquisition([0, 5, 10, 20, 30, 40, 60, 80, 100, 150, 200, 300, 400, 500, 600, 800])
TRUTH = {"S0": 100.0, "f": 0.2, "D": 1.0, "Dstar": 20.0}


def noisy(model, truth, acquisition, sigma, kind, n, seed=0):
    clean = np.tile(model.signal(truth, acquisition), (n, 1))
    return add_noise(clean, sigma, kind, np.random.default_rng(seed))


@pytest.mark.parametrize("kind", ["gaussian", "rician"])
def test_the_stated_standard_deviation_is_the_spread(kind: str) -> None:
    sigma = 0.2
    signals = noisy(IVIM, TRUTH, PROTOCOL, sigma, kind, 4000)
    for estimator in (LeastSquares(IVIM), MaximumLikelihood(IVIM, noise=kind)):
        estimate = estimator.estimate(signals, PROTOCOL, sigma)
        sd = companions(estimator, estimate, sigma, kind=kind)["sd"]
        for name in IVIM.names:
            stated = np.median(sd[name])
            assert stated == pytest.approx(np.std(estimate.parameters[name]), rel=0.05), name


def test_without_a_noise_level_least_squares_takes_that_of_the_residuals() -> None:
    signals = noisy(IVIM, TRUTH, PROTOCOL, 0.2, "gaussian", 500)
    estimator = LeastSquares(IVIM)
    estimate = estimator.estimate(signals, PROTOCOL)
    bound = cramer_rao_bound(IVIM, estimate.parameters, PROTOCOL, estimate.sigma)
    level = np.where(np.arange(500) < 250, np.nan, 0.3)  # known in half of the voxels
    known = cramer_rao_bound(IVIM, estimate.parameters, PROTOCOL, 0.3)
    sd, partly = companions(estimator, estimate)["sd"], companions(estimator, estimate, level)["sd"]
    for name in IVIM.names:
        np.testing.assert_allclose(sd[name], bound[name])
        np.testing.assert_allclose(partly[name], np.where(np.isnan(level), bound[name], known[name]))


def test_averages_count_as_often_as_they_were_measured() -> None:
    """The noise is that of one measurement, whether a shell comes as measurements or as their average."""
    acquisition = Acquisition(np.repeat(PROTOCOL.b_values, 4))
    signals = noisy(IVIM, TRUTH, acquisition, 0.5, "gaussian", 50)
    estimator, few = LeastSquares(IVIM), Acquisition(PROTOCOL.b_values, counts=np.full(16, 4))
    each = companions(estimator, estimator.estimate(signals, acquisition, 0.5), 0.5)["sd"]
    averaged = signals.reshape(50, -1, 4).mean(axis=2)
    together = companions(estimator, estimator.estimate(averaged, few, 0.5), 0.5)["sd"]
    for name in IVIM.names:
        np.testing.assert_allclose(each[name], together[name], rtol=1e-6)


def test_what_is_known_has_no_spread_and_what_is_not_determined_an_infinite_one() -> None:
    signals = noisy(IVIM, TRUTH, PROTOCOL, 0.2, "gaussian", 5)
    fixed = LeastSquares(IVIM, bounds={"Dstar": (20.0, 20.0)})
    sd = companions(fixed, fixed.estimate(signals, PROTOCOL, 0.2), 0.2)["sd"]
    assert np.all(sd["Dstar"] == 0)
    assert np.all(sd["f"] > 0)
    no_blood = LeastSquares(IVIM, bounds={"f": (0.0, 0.0)})
    assert np.all(np.isinf(companions(no_blood, no_blood.estimate(signals, PROTOCOL, 0.2), 0.2)["sd"]["Dstar"]))


def test_a_voxel_that_is_not_fitted_has_no_spread_and_a_segmented_fit_states_none() -> None:
    signals = noisy(IVIM, TRUTH, PROTOCOL, 0.2, "gaussian", 2)
    signals[0, 3] = np.nan
    for estimator, keys in ((LeastSquares(IVIM, intervals="none"), {"sd", "crb"}), (Segmented(IVIM), {"crb"})):
        found = companions(estimator, estimator.estimate(signals, PROTOCOL, 0.2), 0.2)
        assert set(found) == keys
        for arrays in found.values():
            assert np.isnan(arrays["D"]).tolist() == [True, False]


SMT2 = models.get("smt2")
SHELLS = Acquisition(np.repeat([0, 1000, 2000, 3000], [6, 32, 32, 32]), np.random.default_rng(0).normal(size=(102, 3)))
TISSUE = {"S0": 1.0, "vcyl": 0.5, "lambda": 1.8}


def test_debiasing_at_least_halves_the_bias_of_the_noise_floor() -> None:
    signals = noisy(SMT2, TISSUE, SHELLS, 0.1, "rician", 1500)
    bias = {}
    for debias in (False, True):
        estimate = LeastSquares(SMT2, debias=debias).estimate(signals, SHELLS, 0.1)
        bias[debias] = {name: abs(np.mean(estimate.parameters[name]) - TISSUE[name]) for name in ("vcyl", "lambda")}
    for name in ("vcyl", "lambda"):
        assert bias[True][name] < 0.5 * bias[False][name], name


def test_debiasing_needs_the_noise_level_of_every_voxel() -> None:
    signals = noisy(SMT2, TISSUE, SHELLS, 0.1, "rician", 3)
    estimator = LeastSquares(SMT2, debias=True)
    with pytest.raises(ValueError, match="needs the standard deviation of the noise"):
        estimator.estimate(signals, SHELLS)
    estimate = estimator.estimate(signals, SHELLS, np.array([0.1, np.nan, 0.0]))
    assert estimate.status.tolist() == [Status.CONVERGED, Status.NO_NOISE, Status.NO_NOISE]
    assert np.isnan(estimate.parameters["vcyl"]).tolist() == [False, True, True]
    assert estimator.options["debias"] is True
    assert "Rician bias of the mean of every shell" in estimator.methods


@pytest.mark.parametrize("estimator", [LeastSquares(IVIM, debias=True), Segmented(IVIM, debias=True)])
def test_debiasing_does_nothing_where_there_is_no_noise_to_speak_of(estimator) -> None:
    signals = noisy(IVIM, TRUTH, PROTOCOL, 0.0, "gaussian", 1)
    plain = type(estimator)(IVIM).estimate(signals, PROTOCOL)
    debiased = estimator.estimate(signals, PROTOCOL, 1e-4)
    for name in IVIM.names:
        np.testing.assert_allclose(debiased.parameters[name], plain.parameters[name], rtol=1e-4)
