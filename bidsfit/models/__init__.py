"""Signal models, by name."""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import entry_points
from typing import TYPE_CHECKING

from bidsfit.exceptions import UnknownNameError

if TYPE_CHECKING:
    from bidsfit.models.signal_model import SignalModel

#: Where the models of the package live. Other packages add theirs with the entry point "bidsfit.models".
BUILT_IN = {
    "adc": "bidsfit.models.adc:ADC",
    "ivim": "bidsfit.models.ivim:IVIM",
    "smt2": "bidsfit.models.smt:SMT2",
}


def available() -> dict[str, str]:
    """Names of all models and where each lives, without importing any."""
    return BUILT_IN | {entry.name: entry.value for entry in entry_points(group="bidsfit.models")}


def get(name: str) -> SignalModel:
    """The model of that name.

    Raises
    ------
    UnknownNameError
        With the nearest valid name.
    """
    places = available()
    if name not in places:
        raise UnknownNameError("model", name, places)
    module, attribute = places[name].split(":")
    model: SignalModel = getattr(import_module(module), attribute)
    return model
