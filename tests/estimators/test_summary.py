"""Numbers of an estimate for reports."""

from __future__ import annotations

import numpy as np
import pytest

from bidsfit import Acquisition, Estimate, LeastSquares, models
from bidsfit.estimators.summary import representative_voxels, summarise

MODEL = models.get("adc")


def estimate_of(diffusivity: np.ndarray, acquisition: Acquisition) -> tuple[LeastSquares, Estimate]:
    signals = MODEL.signal({"S0": 100.0, "D": diffusivity}, acquisition)
    signals[0] = np.nan
    estimator = LeastSquares(MODEL)
    return estimator, estimator.estimate(signals, acquisition)


def test_summary_leaves_out_what_was_not_fitted() -> None:
    estimator, estimate = estimate_of(np.r_[99.0, np.linspace(0.5, 1.5, 101)], Acquisition([0, 500, 1000]))
    row = summarise(estimate, MODEL, estimator.bounds)[1]
    assert row.name == "D"
    assert (row.p5, row.median, row.p95) == pytest.approx((0.55, 1.0, 1.45), abs=1e-4)
    assert row.fraction_at_bound == 0


def test_share_at_bound_is_counted() -> None:
    estimator, estimate = estimate_of(np.r_[1.0, np.full(30, -0.2), np.full(70, 1.0)], Acquisition([0, 500, 1000]))
    assert summarise(estimate, MODEL, estimator.bounds)[1].fraction_at_bound == pytest.approx(0.3)


@pytest.mark.parametrize("b_values", [[0, 1000], [0, 500, 1000]])
def test_representative_voxels_are_fitted_and_differ(b_values: list[float]) -> None:
    _, estimate = estimate_of(np.r_[1.0, np.linspace(0.5, 1.5, 101)], Acquisition(b_values))
    chosen = representative_voxels(estimate, MODEL)
    assert 0 not in chosen.values()
    assert len(set(chosen.values())) == len(chosen) >= 3
    low, high = (estimate.parameters["D"][chosen[f"D: {percent}th percentile"]] for percent in (10, 90))
    assert low < high


def test_nothing_fitted_gives_nothing() -> None:
    acquisition = Acquisition([0, 500, 1000])
    estimator = LeastSquares(MODEL)
    estimate = estimator.estimate(np.full((4, 3), np.nan), acquisition)
    assert representative_voxels(estimate, MODEL) == {}
    assert np.isnan(summarise(estimate, MODEL, estimator.bounds)[1].median)
