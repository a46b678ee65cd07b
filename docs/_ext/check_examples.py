"""The examples of the page on adding models and estimators are run at each build, so that they keep working."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
from sphinx.application import Sphinx

from bidsfit import Acquisition, LeastSquares, models


def check(app: Sphinx) -> None:
    """Fit the example model, and a model with the example estimator."""
    sys.path.insert(0, str(Path(app.srcdir, "examples")))
    from grid_search import GridSearch
    from t2b0 import MODEL

    acquisition = Acquisition(np.zeros(4), TE=[20, 40, 80, 160])
    signals = MODEL.signal({"S0": 100.0, "T2": [45.0, 90.0]}, acquisition)
    estimate = LeastSquares(MODEL).estimate(signals, acquisition)
    np.testing.assert_allclose(estimate.parameters["T2"], [45.0, 90.0], rtol=1e-6)

    model, acquisition = models.get("adc"), Acquisition([0, 400, 800])
    estimate = GridSearch(model).estimate(model.signal({"S0": 100.0, "D": [0.8, 1.2]}, acquisition), acquisition)
    np.testing.assert_allclose(estimate.parameters["D"], [0.8, 1.2], rtol=1e-6)


def setup(app: Sphinx) -> dict[str, Any]:
    """Run the examples before Sphinx reads."""
    app.connect("builder-inited", check)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
