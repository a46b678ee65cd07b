"""What a model needs a protocol to hold, and in what words its absence is told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from bidsfit.acquisition import Shell

#: Limits of b are nominal and scanners jitter: 1505 is still 1500, and 195 still 200.
JITTER = 0.05


class Requirement(Protocol):
    """Anything that prints as what is needed, has a reason, and says what a protocol lacks."""

    @property
    def reason(self) -> str: ...

    def __str__(self) -> str: ...

    def missing(self, shells: Sequence[Shell]) -> str:
        """What these shells lack, in words; empty where they suffice."""


@dataclass(frozen=True)
class ShellRequirement:
    """At least ``count`` shells with ``minimum <= b <= maximum`` (s/mm^2), each with enough directions."""

    count: int
    minimum: float = 0.0
    maximum: float = np.inf
    directions: int = 1
    reason: str = ""

    def __str__(self) -> str:
        if self.count == 1:
            text = "1 b-value"
        else:
            text = f"{self.count} different b-values"
        if np.isinf(self.maximum):
            text += f" of {self.minimum:g} s/mm² or more" if self.minimum > 0 else ""
        elif self.minimum > 0:
            text += f" between {self.minimum:g} and {self.maximum:g} s/mm²"
        else:
            text += f" of at most {self.maximum:g} s/mm²"
        if self.directions > 1:
            text += f" with at least {self.directions} directions each"
        return text

    def missing(self, shells: Sequence[Shell]) -> str:
        """What these shells lack; those of one b-value at several echo times count once."""
        found = {
            shell.b_value
            for shell in shells
            if self.minimum * (1 - JITTER) <= shell.b_value <= self.maximum * (1 + JITTER)
            and shell.n_directions >= self.directions
        }
        if len(found) >= self.count:
            return ""
        return f"{self} ({self.reason}); the protocol has {listed(found)}"


@dataclass(frozen=True)
class EchoTimeRequirement:
    """At least ``count`` different echo times."""

    count: int
    reason: str = ""

    def __str__(self) -> str:
        return "1 echo time" if self.count == 1 else f"{self.count} different echo times"

    def missing(self, shells: Sequence[Shell]) -> str:
        """What these shells lack; a shell whose echo time is not known has none."""
        found = {shell.echo_time for shell in shells if shell.echo_time is not None}
        if len(found) >= self.count:
            return ""
        return f"{self} ({self.reason}); the protocol has {listed(found, 1)}"


def listed(values: set[float], decimals: int = 0) -> str:
    """b-values or echo times in ascending order."""
    return ", ".join(f"{round(value, decimals):g}" for value in sorted(values)) or "none"
