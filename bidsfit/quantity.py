"""The type that describes the quantity of a map, with its unit and texts, for files, sidecars and figures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Quantity:
    """Name, unit and texts of the quantity in a map.

    Parameters
    ----------
    key : str
        Label in file names, letters and digits only: ``stat-<key>`` of a parameter, ``param-<key>`` of a fit.
    title : str
        Words that follow the symbol of the parameter.
    description : str
        Sentence of the sidecar; ``{parameter.label}``, ``{parameter.description}``, ``{model.title}`` and
        ``{estimator.title}`` are filled in.
    unit : str, optional
        Internal unit ("1" if dimensionless, see `bidsfit.bids.units`); by default that of the parameter.
    limits : (float, float), optional
        Colour range of figures in the internal unit; by default from the data.
    colours : str, optional
        Name of a matplotlib colour map.
    word : str
        Precedes the symbol of the parameter in figures ("SD"); empty if the map is not drawn.
    scale : {"spread", "signed", "own"}
        Colour range without ``limits``: shared by all spreads of the parameter, from 0; symmetric about 0; or from this
        map alone.
    """

    key: str
    title: str
    description: str
    unit: str | None = None
    limits: tuple[float, float] | None = None
    colours: str | None = "viridis"
    word: str = ""
    scale: Literal["spread", "signed", "own"] = "own"

    def __post_init__(self) -> None:
        if not (self.key.isascii() and self.key.isalnum()):
            raise ValueError(f"The key of a quantity has letters and digits only, found {self.key!r}.")
