"""What a map is: the one type that names a quantity, its unit and its words, for files, sidecars and figures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Quantity:
    """What a map holds.

    Parameters
    ----------
    key : str
        Its label in file names, letters and digits only: ``stat-<key>`` of a parameter, ``param-<key>`` of a fit.
    title : str
        In words, behind the symbol of the parameter.
    description : str
        Sentence of the sidecar; ``{parameter.label}``, ``{parameter.description}``, ``{model.title}`` and
        ``{estimator.title}`` are filled in.
    unit : str, optional
        As the numerics name it ("1" for what has no dimension, see `bidsfit.bids.units`); None: that of the parameter.
    limits : (float, float), optional
        Of the colours of its figures, in the unit of the numerics; by default from the data.
    colours : str, optional
        Colour map, as matplotlib names it.
    word : str
        What stands before the symbol of the parameter in figures ("SD"); empty where it is not drawn.
    scale : {"spread", "signed", "own"}
        How its figure is scaled where there are no limits: as all spreads of the parameter, from 0; around 0; or by
        itself.
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
