"""Estimators, by name."""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import entry_points
from typing import TYPE_CHECKING

from bidsfit.exceptions import UnknownNameError

if TYPE_CHECKING:
    from bidsfit.estimators.estimator import Estimator

#: Where the estimators of the package live. Other packages add theirs with the entry point "bidsfit.estimators".
BUILT_IN = {"lsq": "bidsfit.estimators.least_squares:LeastSquares"}


def available() -> dict[str, str]:
    """Names of all estimators and where each lives, without importing any."""
    return BUILT_IN | {entry.name: entry.value for entry in entry_points(group="bidsfit.estimators")}


def get(name: str) -> type[Estimator]:
    """The estimator class of that name.

    Raises
    ------
    UnknownNameError
        With the nearest valid name.
    """
    places = available()
    if name not in places:
        raise UnknownNameError("estimator", name, places)
    module, attribute = places[name].split(":")
    estimator: type[Estimator] = getattr(import_module(module), attribute)
    return estimator
