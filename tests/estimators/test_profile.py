"""Intervals of least squares and maximum likelihood: how often they hold the truth, and where they end."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from bidsfit import Acquisition, LeastSquares, MaximumLikelihood, OrdinaryLogLinear, companions, models
from bidsfit.models.function import FunctionModel
from bidsfit.noise import add_noise

IVIM = models.get("ivim")
PROTOCOL = Acquisition([0, 5, 10, 20, 30, 40, 60, 80, 100, 150, 200, 300, 400, 500, 600, 800])
TRUTH = {"S0": 100.0, "f": 0.12, "D": 1.0, "Dstar": 20.0}
SMT3 = models.get("smt3")
SHELLS = Acquisition(
    np.repeat([0, 711, 1000, 2000, 3000], [6, 16, 16, 16, 16]), np.random.default_rng(0).normal(size=(70, 3))
)
TISSUE = {"S0": 100.0, "vcyl": 0.5, "vcsf": 0.2, "lambda": 1.8}
#: Coverage that 200 voxels of a true one of 95 % show in all but 1 of 10,000 cases (binomial), and 300.
LEAST = {n: stats.binom.ppf(1e-4, n, 0.95) / n for n in (200, 300)}


def simulated(model, truth, acquisition, snr, n, kind="gaussian", seed=0) -> NDArray[np.float64]:
    clean = np.tile(model.signal(truth, acquisition), (n, 1))
    return add_noise(clean, truth["S0"] / snr, kind, np.random.default_rng(seed))


def interval(estimator, signals, acquisition, noise=None):
    estimate = estimator.estimate(signals, acquisition, noise)
    found = companions(estimator, estimate, noise)
    return estimate, found["q025"], found["q975"]


def coverage(lower, upper, truth) -> dict[str, float]:
    return {name: np.mean((lower[name] <= value) & (value <= upper[name])) for name, value in truth.items()}


@pytest.mark.parametrize("snr", [10, 25, 50])
@pytest.mark.parametrize("known", [True, False], ids=["noise given", "noise of residuals"])
def test_profiles_hold_the_truth_of_ivim(snr: int, known: bool) -> None:
    signals = simulated(IVIM, TRUTH, PROTOCOL, snr, 300)
    _, lower, upper = interval(LeastSquares(IVIM, intervals="profile"), signals, PROTOCOL, 100 / snr if known else None)
    for name, share in coverage(lower, upper, TRUTH).items():
        assert share >= LEAST[300], name


def test_where_wald_s_interval_of_dstar_fails() -> None:
    signals = simulated(IVIM, TRUTH, PROTOCOL, 25, 300)
    _, lower, upper = interval(LeastSquares(IVIM), signals, PROTOCOL, 4.0)
    assert coverage(lower, upper, TRUTH)["Dstar"] < LEAST[300]


@pytest.mark.parametrize("snr", [10, 25, 50])
def test_profiles_of_the_rician_likelihood_hold_the_truth(snr: int) -> None:
    signals = simulated(IVIM, TRUTH, PROTOCOL, snr, 200, "rician")
    _, lower, upper = interval(MaximumLikelihood(IVIM, intervals="profile"), signals, PROTOCOL, 100 / snr)
    for name, share in coverage(lower, upper, TRUTH).items():
        assert share >= LEAST[200], name


@pytest.mark.parametrize("snr", [10, 25, 50])
def test_profiles_hold_the_truth_of_smt3(snr: int) -> None:
    signals = simulated(SMT3, TISSUE, SHELLS, snr, 200)
    _, lower, upper = interval(LeastSquares(SMT3, intervals="profile"), signals, SHELLS, 100 / snr)
    for name, share in coverage(lower, upper, TISSUE).items():
        assert share >= LEAST[200], name


def test_few_residuals_take_the_quantile_of_t() -> None:
    """With two degrees of freedom 1.96 standard deviations hold the truth in 81 % of the voxels."""
    adc, protocol, truth = models.get("adc"), Acquisition([0, 300, 600, 1000]), {"S0": 100.0, "D": 1.0}
    signals = simulated(adc, truth, protocol, 50, 2000)
    for how in ("wald", "profile"):
        estimate, lower, upper = interval(LeastSquares(adc, intervals=how), signals, protocol)
        for name, share in coverage(lower, upper, truth).items():
            assert share == pytest.approx(0.95, abs=0.02), name
    sd = companions(LeastSquares(adc), estimate)["sd"]["D"]
    assert np.mean(np.abs(estimate.parameters["D"] - 1.0) < 1.96 * sd) == pytest.approx(0.81, abs=0.03)


def test_the_noise_may_be_known_in_some_voxels() -> None:
    signals = simulated(IVIM, TRUTH, PROTOCOL, 50, 2)
    noise = np.array([2.0, np.nan])
    adc = models.get("adc")
    for estimator, freedom in ((LeastSquares(IVIM), 12), (OrdinaryLogLinear(adc), 14)):
        estimate, lower, upper = interval(estimator, signals, PROTOCOL, noise)
        sd = companions(estimator, estimate, noise)["sd"]["D"]
        half = (upper["D"] - lower["D"]) / 2
        np.testing.assert_allclose(half / sd, [stats.norm.ppf(0.975), stats.t.ppf(0.975, freedom)])


@pytest.mark.parametrize("known", [True, False])
def test_the_sum_of_squares_has_risen_by_the_quantile_at_an_end(known: bool) -> None:
    signals = simulated(IVIM, TRUTH, PROTOCOL, 25, 40)
    estimate, *ends = interval(LeastSquares(IVIM, intervals="profile"), signals, PROTOCOL, 4.0 if known else None)
    least = estimate.rmse**2 * len(PROTOCOL)
    expected = stats.chi2.ppf(0.95, 1) * 16.0 if known else stats.f.ppf(0.95, 1, 12) / 12 * least
    rises = []
    for name in ("f", "D", "Dstar"):
        for end in ends:
            inside = np.flatnonzero((end[name] > IVIM[name].bounds[0]) & (end[name] < IVIM[name].bounds[1]))
            for v in inside:
                held = LeastSquares(IVIM, bounds={name: (end[name][v],) * 2}).estimate(signals[[v]], PROTOCOL)
                rises.append((held.rmse[0] ** 2 * len(PROTOCOL) - least[v]) / np.broadcast_to(expected, 40)[v])
    assert len(rises) > 100
    assert np.quantile(np.abs(np.array(rises) - 1), 0.95) < 0.03  # the others lie where one valley gives way to another


def test_a_second_valley_is_inside() -> None:
    """A fit with slow blood may be nearly as good, with far more of it."""
    signals = simulated(IVIM, TRUTH, PROTOCOL, 10, 200)
    wide = {"D": (0.0, 5.0), "Dstar": (3.0, 200.0)}
    estimate, lower, upper = interval(LeastSquares(IVIM, bounds=wide, intervals="profile"), signals, PROTOCOL, 10.0)
    slow = LeastSquares(IVIM, bounds={**wide, "Dstar": (3.0, 3.0)}).estimate(signals, PROTOCOL)
    as_good = len(PROTOCOL) * (slow.rmse**2 - estimate.rmse**2) < stats.chi2.ppf(0.95, 1) * 100
    beyond = slow.parameters["f"] > 0.5
    assert np.sum(as_good & beyond) > 5
    for name in ("f", "D"):
        values = slow.parameters[name][as_good]
        assert np.all((lower[name][as_good] <= values + 1e-9) & (values <= upper[name][as_good] + 1e-9))
    assert np.all(lower["Dstar"][as_good] == 3.0)


def test_intervals_end_at_bounds_and_what_is_known_has_none() -> None:
    signals = IVIM.signal({**TRUTH, "f": 0.01}, PROTOCOL)[None]
    for how in ("wald", "profile"):
        _, lower, upper = interval(LeastSquares(IVIM, intervals=how), signals, PROTOCOL, 10.0)
        assert (lower["f"][0], lower["Dstar"][0], upper["Dstar"][0]) == (0.0, 5.0, 200.0)
        fixed = LeastSquares(IVIM, bounds={"Dstar": (20.0, 20.0)}, intervals=how)
        _, lower, upper = interval(fixed, signals, PROTOCOL, 10.0)
        assert (lower["Dstar"][0], upper["Dstar"][0]) == (20.0, 20.0)


def test_a_voxel_that_is_not_fitted_has_no_interval() -> None:
    signals = simulated(IVIM, TRUTH, PROTOCOL, 50, 2)
    signals[0, 3] = np.nan
    for how in ("wald", "profile"):
        _, lower, upper = interval(LeastSquares(IVIM, intervals=how), signals, PROTOCOL)
        assert np.isnan(lower["D"]).tolist() == np.isnan(upper["D"]).tolist() == [True, False]


def test_without_a_freedom_only_a_given_noise_gives_an_interval() -> None:
    adc, protocol = models.get("adc"), Acquisition([0, 1000])
    signals = adc.signal({"S0": 100.0, "D": 1.0}, protocol)[None]
    for how in ("wald", "profile"):
        _, lower, _ = interval(LeastSquares(adc, intervals=how), signals, protocol)
        assert np.isnan(lower["D"][0])
        _, lower, upper = interval(LeastSquares(adc, intervals=how), signals, protocol, 2.0)
        assert lower["D"][0] < 1.0 < upper["D"][0]


def test_linear_constraints_hold_at_the_ends() -> None:
    signals = simulated(SMT3, {**TISSUE, "vcsf": 0.45}, SHELLS, 10, 50)
    _, lower, upper = interval(LeastSquares(SMT3, intervals="profile"), signals, SHELLS, 10.0)
    assert np.all(lower["vcyl"] + lower["vcsf"] <= 1 + 1e-9)
    assert all(np.all(lower[name] <= upper[name]) for name in SMT3.names)


def test_models_without_compiled_code_have_the_same_intervals() -> None:
    def function(parameters, design):
        s0, f, d, dstar = parameters
        b = design[:, 0]
        return s0 * ((1 - f) * (-b * d).exp() + f * (-b * dstar).exp())

    shared = {field.name: getattr(IVIM, field.name) for field in fields(FunctionModel) if hasattr(IVIM, field.name)}
    model = FunctionModel(**(shared | {"name": "function", "function": function, "equation": "S"}))
    signals = simulated(IVIM, TRUTH, PROTOCOL, 25, 20)
    compiled, batched = (
        interval(LeastSquares(m, intervals="profile"), signals, PROTOCOL, 4.0)[1:] for m in (IVIM, model)
    )
    for one, other in zip(compiled, batched, strict=True):
        for name in IVIM.names:
            np.testing.assert_allclose(one[name], other[name], rtol=0.01, atol=1e-3)


def test_fewer_maps_and_other_words() -> None:
    estimator = LeastSquares(IVIM, intervals="none")
    signals = simulated(IVIM, TRUTH, PROTOCOL, 50, 1)
    assert set(companions(estimator, estimator.estimate(signals, PROTOCOL))) == {"sd", "crb"}
    assert LeastSquares(IVIM, intervals="profile").options["intervals"] == "profile"
    assert "likelihood-ratio" in LeastSquares(IVIM, intervals="profile").methods
    with pytest.raises(ValueError, match="found 'bootstrap'"):
        MaximumLikelihood(IVIM, intervals="bootstrap")
