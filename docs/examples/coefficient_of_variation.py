"""The coefficient of variation: a companion that lives in a package of its own."""

from __future__ import annotations

import numpy as np

from bidsfit import Estimate, Estimator
from bidsfit.models.parameter import Derived, Parameter
from bidsfit.quantity import Quantity
from bidsfit.trust.companions import SD, Judge


class CoefficientOfVariation:
    """Standard deviation of an estimate relative to its size."""

    quantity = Quantity(
        key="cv",
        title="coefficient of variation",
        description="Standard deviation of {parameter.label} ({parameter.description}; {model.title}) relative to its "
        "estimate ({estimator.title}).",
        unit="1",
        limits=(0.0, 1.0),
        colours="magma",
        word="CV",
    )

    def applies(self, estimator: Estimator, of: Parameter | Derived, simulated: bool) -> bool:
        """Where there is a standard deviation, and a size."""
        return SD.applies(estimator, of, simulated) and not of.axis

    def judge(self, judge: Judge, estimate: Estimate) -> dict[str, np.ndarray]:
        """One array for each parameter, of the shape of the estimate."""
        with np.errstate(divide="ignore", invalid="ignore"):
            found = SD.judge(judge, estimate)
            return {name: sd / np.abs(estimate.values[name]) for name, sd in found.items() if name in estimate.values}


COMPANION = CoefficientOfVariation()
