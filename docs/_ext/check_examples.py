"""The examples of the page on adding models and estimators are run at each build, so that they keep working."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
from sphinx.application import Sphinx

from bidsfit import Acquisition, LeastSquares


def check(app: Sphinx) -> None:
    """Fit the example model with least squares and with the example estimator."""
    sys.path.insert(0, str(Path(app.srcdir, "examples")))
    from grid_search import GridSearch
    from kurtosis import KURTOSIS

    acquisition = Acquisition([0, 500, 1000, 1500, 2000, 2500])
    signals = KURTOSIS.signal({"S0": 100.0, "D": [0.7, 1.2], "K": [0.5, 1.0]}, acquisition)
    for estimator in (LeastSquares(KURTOSIS), GridSearch(KURTOSIS)):
        estimate = estimator.estimate(signals, acquisition)
        np.testing.assert_allclose(estimate.parameters["D"], [0.7, 1.2], rtol=1e-6)
        np.testing.assert_allclose(estimate.parameters["K"], [0.5, 1.0], rtol=1e-6)


def setup(app: Sphinx) -> dict[str, Any]:
    """Run the examples before Sphinx reads."""
    app.connect("builder-inited", check)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
