"""The segmented fit against its own two steps, and against the truth where its assumption holds."""

from __future__ import annotations

import numpy as np
import pytest

from bidsfit import Acquisition, LeastSquares, Status, models
from bidsfit.estimators.segmented import Segmented
from bidsfit.exceptions import UnsupportedProtocolError

IVIM = models.get("ivim")
B_VALUES = [0, 5, 10, 20, 30, 40, 60, 100, 150, 200, 400, 600, 800]
ACQUISITION = Acquisition(B_VALUES)


def truth(n: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        "S0": np.full(n, 500.0),
        "f": rng.uniform(0.1, 0.4, n),
        "D": rng.uniform(0.5, 1.5, n),
        "Dstar": rng.uniform(50, 150, n),  # exp(-0.2 * 50) is 5e-5: no blood above the threshold
    }


@pytest.mark.parametrize("hold", [("D",), ("D", "f")])
def test_truth_is_found_where_blood_gives_no_signal_above_the_threshold(hold: tuple[str, ...]) -> None:
    parameters = truth(200)
    estimate = Segmented(IVIM, hold=hold).estimate(IVIM.signal(parameters, ACQUISITION), ACQUISITION)
    for name in IVIM.names:
        assert estimate.parameters[name] == pytest.approx(parameters[name], rel=2e-3), name
    assert np.all(estimate.status == Status.CONVERGED)


def test_diffusion_is_that_of_the_high_b_values_alone() -> None:
    signals = IVIM.signal(truth(300), ACQUISITION) + np.random.default_rng(1).normal(0, 15, (300, len(B_VALUES)))
    segmented = Segmented(IVIM).estimate(signals, ACQUISITION)
    high = ACQUISITION.b_values >= 200
    mono = LeastSquares(models.get("adc")).estimate(signals[:, high], ACQUISITION.select(np.flatnonzero(high)))
    assert segmented.parameters["D"] == pytest.approx(mono.parameters["D"], rel=1e-3, abs=1e-4)


def test_a_higher_threshold_is_used() -> None:
    parameters = truth(100) | {"Dstar": np.full(100, 8.0)}
    signals = IVIM.signal(parameters, ACQUISITION)
    bias = {
        threshold: np.mean(
            Segmented(IVIM, threshold=threshold).estimate(signals, ACQUISITION).parameters["D"] - parameters["D"]
        )
        for threshold in (200, 400)
    }
    assert bias[200] > 2 * bias[400] > 0


def test_models_and_protocols_that_cannot_be_segmented_are_refused() -> None:
    with pytest.raises(ValueError, match="needs a model with f, D and Dstar"):
        Segmented(models.get("adc"))
    for threshold in (0, -200, float("nan")):
        with pytest.raises(ValueError, match="threshold must be a b-value above zero"):
            Segmented(IVIM, threshold=threshold)
    with pytest.raises(UnsupportedProtocolError, match=r"2 different b-values of 700 .* the protocol has 800"):
        Segmented(IVIM, threshold=700).estimate(np.ones((1, len(B_VALUES))), ACQUISITION)


def test_d_never_exceeds_dstar() -> None:
    """Even where noise makes the D that the second step holds larger than most D*."""
    rng = np.random.default_rng(4)
    n, bounds = 20_000, {"D": (0.0, 5.0), "Dstar": (3.0, 200.0)}
    parameters = {"S0": np.ones(n), "f": rng.uniform(0, 0.5, n), "D": rng.uniform(2, 3, n), "Dstar": np.full(n, 4.0)}
    signals = IVIM.signal(parameters, ACQUISITION) + rng.normal(0, 0.05, (n, len(B_VALUES)))
    for hold in (("D",), ("D", "f")):
        estimate = Segmented(IVIM, hold=hold, bounds=bounds).estimate(signals, ACQUISITION)
        assert np.max(estimate.parameters["D"]) > 3.5
        assert np.all(estimate.parameters["D"] <= estimate.parameters["Dstar"] + 1e-9)
