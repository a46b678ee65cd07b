"""The status of voxels in which the data do not determine a parameter."""

from __future__ import annotations

import numpy as np
import pytest

from bidsfit import (
    Acquisition,
    Bayesian,
    LeastSquares,
    MaximumAPosteriori,
    MaximumLikelihood,
    OrdinaryLogLinear,
    Segmented,
    Status,
    models,
)
from bidsfit.estimators.estimator import LEAST_NOISE, Estimator, Fitted

IVIM = models.get("ivim")
PROTOCOL = Acquisition([0, 5, 10, 20, 30, 40, 60, 80, 100, 150, 200, 300, 400, 500, 600, 800])
TRUTH = {"S0": 100.0, "f": 0.2, "D": 1.0, "Dstar": 20.0}
#: What says that a parameter is not determined.
TELLING = {Status.UNDETERMINED, Status.AT_BOUND, Status.PRIOR_ONLY, Status.ITERATION_LIMIT}
ESTIMATORS = [
    LeastSquares(IVIM),
    MaximumLikelihood(IVIM),
    MaximumLikelihood(IVIM, noise="gaussian"),
    Segmented(IVIM),
    Segmented(IVIM, hold=("D", "f")),
    Bayesian(IVIM),
]


class Told(Estimator):
    """Gives the same parameters whatever the signals are, as a network may."""

    name, title, methods = "told", "told", "None."

    def __init__(self, parameters: dict[str, float], **options) -> None:
        super().__init__(IVIM, **options)
        self._told = np.array([parameters[name] for name in IVIM.names])

    def prepare(self, acquisition):
        def fit(y, sigma):
            n = len(y)
            squares = np.sum((y - IVIM.signal(self._told, acquisition)) ** 2, axis=1)
            return Fitted(np.tile(self._told, (n, 1)), squares, np.full(n, Status.CONVERGED, dtype=np.uint8))

        return fit


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=lambda e: e.name)
@pytest.mark.parametrize("decay", [0.0, 1.0], ids=["constant", "mono-exponential"])
def test_one_compartment_does_not_determine_two(estimator, decay: float) -> None:
    signals = 100 * np.exp(-1e-3 * PROTOCOL.b_values * decay)[None]
    for noise in (None, 1e-4, 2.0):
        if noise is None and estimator.needs_noise:
            continue
        assert set(estimator.estimate(signals, PROTOCOL, noise).count()) <= TELLING


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=lambda e: e.name)
def test_two_compartments_are_determined(estimator) -> None:
    noise = np.random.default_rng(0).normal(scale=2.0, size=(100, len(PROTOCOL)))
    signals = IVIM.signal(TRUTH, PROTOCOL) + noise  # SNR 50
    assert estimator.estimate(signals, PROTOCOL, 2.0).count() == {Status.CONVERGED: 100}


def test_a_prior_fitted_to_the_data_does_not_determine_them_either() -> None:
    rng = np.random.default_rng(0)
    parameters = np.column_stack([np.full(300, 100.0), rng.uniform([0.1, 0.5, 10], [0.3, 1.5, 40], (300, 3))])
    signals = IVIM.signal(parameters, PROTOCOL) + rng.normal(scale=2.0, size=(300, len(PROTOCOL)))
    signals[0] = 100.0
    status = MaximumAPosteriori(IVIM).estimate(signals, PROTOCOL, 2.0).status
    assert status[0] in TELLING
    assert np.mean(status[1:] == Status.CONVERGED) > 0.9


def test_the_bound_decides_for_estimators_without_a_likelihood() -> None:
    """f of 0 leaves D* without information, f of 0.001 with less than its range holds, f of 0.2 with enough."""
    for f, expected in ((0.0, Status.UNDETERMINED), (0.001, Status.UNDETERMINED), (0.2, Status.CONVERGED)):
        parameters = {**TRUTH, "S0": 1.0, "f": f}
        signals = 100 * IVIM.signal(parameters, PROTOCOL)[None]
        assert Told(parameters).estimate(signals, PROTOCOL, 2.0).status.tolist() == [expected]


def test_what_is_known_needs_no_data() -> None:
    parameters = {**TRUTH, "S0": 1.0, "f": 0.001}
    estimator = Told(parameters, bounds={"Dstar": (20.0, 20.0)})
    signals = 100 * IVIM.signal(parameters, PROTOCOL)[None]
    assert estimator.estimate(signals, PROTOCOL, 2.0).status.tolist() == [Status.CONVERGED]


def test_without_a_noise_level_what_has_any_information_is_determined() -> None:
    exact = np.full(2, LEAST_NOISE)
    parameters = np.array([[1.0, f, 1.0, 20.0] for f in (0.0, 0.001)])
    assert LeastSquares(IVIM)._undetermined(parameters, PROTOCOL, exact).tolist() == [True, False]


def test_a_line_through_logarithms_is_determined_by_two_b_values() -> None:
    adc = models.get("adc")
    protocol = Acquisition([0, 0, 1000, 1000])
    signals = adc.signal({"S0": 100.0, "D": 1.0}, protocol)[None]
    estimate = OrdinaryLogLinear(adc).estimate(signals, protocol, 2.0)
    assert estimate.status.tolist() == [Status.CONVERGED]
    drowned = OrdinaryLogLinear(adc).estimate(signals, protocol, 1e4)  # noise a hundred times the signal
    assert drowned.status.tolist() == [Status.UNDETERMINED]
