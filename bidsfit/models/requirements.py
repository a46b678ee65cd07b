"""Requirements of a model on the protocol, and messages about what a protocol lacks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from bidsfit.acquisition import Shell, column_of

#: Limits of b are nominal and scanners jitter: 1505 is still 1500, and 195 still 200.
JITTER = 0.05


class Requirement(Protocol):
    """A condition on the shells of a protocol, with the reason for it; its string says what is needed."""

    @property
    def column(self) -> str: ...

    @property
    def reason(self) -> str: ...

    def __str__(self) -> str: ...

    def missing(self, shells: Sequence[Shell]) -> str:
        """What these shells lack, in words; empty if the requirement is met."""

    def with_enough(self, directions: int | None) -> Requirement:
        """The requirement where so many directions are enough; itself where it asks for no more, or for None."""


@dataclass(frozen=True)
class ValuesRequirement:
    """At least ``count`` different values of a column between ``minimum`` and ``maximum``, in the unit of the table.

    Each must be measured along at least ``directions`` directions.
    """

    column: str
    count: int
    minimum: float = 0.0
    maximum: float = np.inf
    directions: int = 1
    reason: str = ""

    def __str__(self) -> str:
        column = column_of(self.column)
        text = f"1 {column.title}" if self.count == 1 else f"{self.count} different {column.plural}"
        unit = f" {column.unit}".rstrip()
        if np.isinf(self.maximum):
            text += f" of {self.minimum:g}{unit} or more" if self.minimum > 0 else ""
        elif self.minimum > 0:
            text += f" between {self.minimum:g} and {self.maximum:g}{unit}"
        else:
            text += f" of at most {self.maximum:g}{unit}"
        if self.directions > 1:
            text += f" with at least {self.directions} directions each"
        return text

    def with_enough(self, directions: int | None) -> ValuesRequirement:
        return self if directions is None else replace(self, directions=min(self.directions, directions))

    def missing(self, shells: Sequence[Shell]) -> str:
        """What these shells lack, in words; shells that differ only in other columns count once."""
        found = {
            shell.values[self.column]
            for shell in shells
            if self.column in shell.values
            and self.minimum * (1 - JITTER) <= shell.values[self.column] <= self.maximum * (1 + JITTER)
            and shell.n_directions >= self.directions
        }
        if len(found) >= self.count:
            return ""
        return f"{self} ({self.reason}); the protocol has {column_of(self.column).in_unit(found)}"
