"""The tensor with free water: agreement with DIPY, its errors, and what it needs."""

import numpy as np
import pytest
from dipy.core.gradients import gradient_table
from dipy.reconst.fwdti import FreeWaterTensorModel

from bidsfit import Acquisition, LeastSquares, models
from bidsfit.estimators.estimator import Status
from bidsfit.information import cramer_rao_bound
from bidsfit.models import dti
from bidsfit.phantom.directions import spread_directions
from bidsfit.trust.monte_carlo import Size, performance_of

FWDTI = models.get("fwdti")
DIRECTIONS = spread_directions(30)
ACQUISITION = Acquisition(
    [0] * 6 + [500] * 30 + [1500] * 30, np.vstack([np.zeros((6, 3)), DIRECTIONS, DIRECTIONS[::-1]])
)


@pytest.fixture(scope="module")
def tissue():
    """Parameters of simulated tissue beside 0 to 70 % of free water, S0 of 100; shape (n, 8)."""
    rng = np.random.default_rng(0)
    tensors = dti.draw(1000, rng)
    mean = tensors[:, :3].mean(axis=1)
    tensors = tensors[(mean > 0.5) & (mean < 1.2) & dti.positive(np.column_stack([mean, tensors]))]
    return np.column_stack([np.full(len(tensors), 100.0), tensors, rng.uniform(0, 0.7, len(tensors))])


def test_clean_signals_give_the_truth(tissue):
    estimate = LeastSquares(FWDTI).estimate(FWDTI.signal(tissue, ACQUISITION), ACQUISITION)
    assert estimate.points == pytest.approx(tissue, abs=1e-6)


def test_it_agrees_with_dipy(tissue):
    rng = np.random.default_rng(1)
    some = tissue[:100]
    signals = FWDTI.signal(some, ACQUISITION) + 2.5 * rng.standard_normal((len(some), len(ACQUISITION)))
    estimate = LeastSquares(FWDTI).estimate(signals, ACQUISITION)
    gradients = gradient_table(ACQUISITION.b_values, bvecs=ACQUISITION.variable("direction"))
    theirs = FreeWaterTensorModel(gradients, fit_method="NLS").fit(signals)
    inside = estimate.status == Status.CONVERGED
    assert inside.mean() > 0.85
    for own, other in (
        (estimate.parameters["fw"], theirs.f),
        (estimate.derived["FA"], theirs.fa),
        (estimate.derived["MD"], 1e3 * theirs.md),
    ):
        assert own[inside] == pytest.approx(other[inside], abs=1e-3)


def test_estimates_scatter_as_the_bound_says():
    truth = np.array([[100.0, 1.5, 0.4, 0.4, 0.1, 0, 0, 0.3]])
    rng = np.random.default_rng(2)
    signals = np.repeat(FWDTI.signal(truth, ACQUISITION), 1000, axis=0)
    signals += rng.standard_normal(signals.shape)
    estimate = LeastSquares(FWDTI).estimate(signals, ACQUISITION, noise=1.0)
    bound = cramer_rao_bound(FWDTI, truth, ACQUISITION, 1.0)
    for name in ("fw", "FA", "MD"):
        assert estimate.values[name].std() == pytest.approx(bound[name][0], rel=0.1)


def test_trust_is_told_of_the_fraction_and_of_what_is_derived():
    estimator = LeastSquares(FWDTI)
    averaged = estimator.averages(ACQUISITION).acquisition
    performance = performance_of(estimator, averaged, kind="gaussian", size=Size(96, 8, 2, 16))
    assert performance.judged == ["fw", "FA", "MD", "AD", "RD"]


def test_it_needs_two_shells():
    one = ACQUISITION.select(np.arange(36))
    assert "2 different b-values" in FWDTI.support(one).missing[0]
    assert not FWDTI.support(ACQUISITION).missing
    assert "fwdti" not in models.without_variants()
