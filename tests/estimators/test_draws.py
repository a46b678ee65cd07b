"""Starts among draws: the nearest, in both halves of what is twofold."""

import numpy as np

from bidsfit import LeastSquares, models
from bidsfit.estimators.draws import Draws
from bidsfit.phantom.tissue import RECIPES

MODEL = models.get("qmtgbloch")
ACQUISITION = RECIPES["qmtgbloch"].series


def test_a_draw_is_found_again_with_its_scale_and_phase():
    bounds = LeastSquares(MODEL).bounds
    draws = Draws(MODEL, bounds, ACQUISITION)
    chosen = draws.points[[3, 500, 1000]].copy()
    chosen[:, 0], chosen[:, MODEL.phase_index] = [0.5, 2.0, 7.0], [-3.0, 0.2, 1.5]
    signals = MODEL.signal(chosen, ACQUISITION)
    starts = draws(np.concatenate([signals.real, signals.imag], axis=1))
    assert starts.shape == (4, 3, 10)  # halves of f0 times halves of B1
    assert np.abs(starts - chosen).max(axis=2).min(axis=0).max() < 1e-9
    for name in ("f0", "B1"):
        values = starts[:, :, MODEL.names.index(name)]
        middle = np.median(draws.points[:, MODEL.names.index(name)])
        assert ((values > middle).sum(axis=0) == 2).all()


def test_what_is_held_is_not_looked_for():
    estimator = LeastSquares(MODEL, bounds={"f0": (5.0, 5.0), "B1": (1.0, 1.0)})
    draws = Draws(MODEL, estimator.bounds, ACQUISITION)
    assert len(draws.parts) == 1
    assert (draws.points[:, MODEL.names.index("f0")] == 5).all()
