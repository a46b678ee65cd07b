"""Companions: what stands beside the estimates of each kind of estimator, and where it comes from."""

from __future__ import annotations

import numpy as np
import pytest

from bidsfit import Acquisition, Bayesian, LeastSquares, MaximumLikelihood, companions, cramer_rao_bound, models
from bidsfit.exceptions import UnknownNameError
from bidsfit.noise import add_noise
from bidsfit.quantity import Quantity
from bidsfit.trained.network import Network
from bidsfit.trust.companions import BIAS, Judge, companions_of, get

ADC = models.get("adc")
PROTOCOL = Acquisition([0, 0, 200, 500, 800, 1000])
SIGMA = 0.1


@pytest.fixture(scope="module")
def signals():
    clean = ADC.signal({"S0": np.ones(12), "D": np.linspace(0.5, 2.5, 12)}, PROTOCOL)
    return add_noise(clean, SIGMA, "rician", np.random.default_rng(0))


def test_a_posterior_keeps_what_only_it_can_tell(signals):
    estimator = Bayesian(ADC)
    estimate = estimator.estimate(signals, PROTOCOL, SIGMA)
    found = companions(estimator, estimate, SIGMA)
    assert list(found) == ["sd", "q025", "q975", "crb"]
    for key in ("sd", "q025", "q975"):
        for name in ADC.names:
            np.testing.assert_array_equal(found[key][name], estimate.statistics[key][name])


def test_an_efficient_estimator_scatters_by_the_bound_of_its_own_likelihood(signals):
    """Whatever the bound takes the noise for."""
    for estimator, own in ((LeastSquares(ADC), "gaussian"), (MaximumLikelihood(ADC), "rician")):
        estimate = estimator.estimate(signals, PROTOCOL, SIGMA)
        for kind in ("gaussian", "rician"):
            found = companions(estimator, estimate, SIGMA, kind=kind)
            for key, noise in (("sd", own), ("crb", kind)):
                expected = cramer_rao_bound(ADC, estimate.parameters, PROTOCOL, SIGMA, noise)
                for name in ADC.names:
                    np.testing.assert_allclose(found[key][name], expected[name], rtol=1e-9)


def test_a_plan_tells_which_maps_there_will_be_and_cannot_be_judged_yet(signals):
    plan = Network(ADC)
    assert list(companions_of(plan)) == ["crb"]
    assert list(companions_of(plan, "light")) == ["expectedsd", "bias", "response", "q025", "q975", "crb"]
    assert set(companions_of(plan, "full")) - set(companions_of(plan, "light")) == {"rmse"}
    held = LeastSquares(ADC, bounds={"D": (1.0, 1.0)})
    assert companions_of(held, "full") == companions_of(held)  # nothing can be simulated
    estimate = LeastSquares(ADC).estimate(signals, PROTOCOL)
    with pytest.raises(ValueError, match="performance of the estimator 'net-prior' was not simulated"):
        BIAS.judge(Judge(plan, estimate.acquisition, estimate.sigma), estimate)


def test_names_that_cannot_be():
    with pytest.raises(UnknownNameError, match="Did you mean 'crb'"):
        get("crv")
    with pytest.raises(ValueError, match="letters and digits only, found 'my-key'"):
        Quantity("my-key", "title", "description")
