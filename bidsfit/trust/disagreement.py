"""Disagreement of an estimate with the one that the data alone find most likely, in Cramér-Rao bounds."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
from numpy.typing import NDArray

from bidsfit.models.parameter import Derived, Parameter
from bidsfit.models.signal_model import SignalModel
from bidsfit.quantity import Quantity

#: Estimators that nothing but the data decides; the first of them that was fitted is the reference.
REFERENCES = ("mle", "lsq")

#: Begins the keys of the quantities.
KEY = "disagreement"


def reference_of(names: Collection[str]) -> str | None:
    """The estimator, among these, that others are compared with; None if there is none."""
    return next((name for name in REFERENCES if name in names), None) if len(names) > 1 else None


def disagreement_with(reference: str) -> Quantity:
    """The quantity of the maps; the reference is part of its key, as a folder may hold maps of several."""
    return Quantity(
        key=f"{KEY}{reference}",
        title=f"disagreement with {reference}",
        description="Size of the difference of {parameter.label} ({parameter.description}; {model.title};"
        f" {{estimator.title}}) from its estimate by {reference}, in Cramér-Rao bounds at that estimate. Where it is"
        " well above 1, what the estimator assumes outweighs the data, or the data do not follow what it assumes. 0"
        " where the bound is infinite.",
        unit="1",
    )


def compared(model: SignalModel) -> list[Parameter | Derived]:
    """Quantities that are compared: those that reports are about, except the scale."""
    return [quantity for quantity in model.reported if quantity.name != model.scale]


def disagreement(
    values: NDArray[np.float64], reference: NDArray[np.float64], bound: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Size of the difference from the reference over the bound of the reference; NaN where one was not fitted."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.abs(values - reference) / bound
