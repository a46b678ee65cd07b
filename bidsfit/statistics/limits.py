"""How much a value must change between two scans before it counts as a change."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from scipy.stats import norm, t

from bidsfit.statistics.interval import LEVEL, check_level

Method = Literal["student", "normal"]


@dataclass(frozen=True)
class ChangeLimits:
    """Limits of the difference between two scans, at zero offset.

    Attributes
    ----------
    bound : float
        A change beyond plus or minus this, in the units of the parameter, counts.
    method : {"student", "normal"}
    freedom : int
        Degrees of freedom that the standard deviation was estimated with.
    false_positive_rate : float
        Share of participants without a change who fall outside, over many studies of this size.
    """

    bound: float
    method: Method
    within_subject_sd: float
    freedom: int
    false_positive_rate: float
    level: float

    @property
    def words(self) -> str:
        """What the limits are, in a sentence."""
        rate = f"{100 * self.false_positive_rate:.1f} % of participants without a change fall outside"
        if self.method == "normal":
            factor = f"{norm.ppf((1 + self.level) / 2):.2f}"
            return f"±{self.bound:.3g} ({factor} √2 wSD, as if wSD were known): {rate}."
        factor = f"{t.ppf((1 + self.level) / 2, self.freedom):.2f}"
        return f"±{self.bound:.3g} ({factor} √2 wSD, Student's t with {self.freedom} degrees of freedom): {rate}."


def change_limits(
    within_subject_sd: float, freedom: int, *, method: Method = "student", level: float = LEVEL
) -> ChangeLimits:
    r"""Limits of change from a within-subject standard deviation that was estimated in other participants.

    The difference of two scans is normal about zero with variance :math:`2\,\mathrm{wSD}^2`. "normal" takes wSD
    as known, :math:`\pm 1.96\sqrt{2}\,\mathrm{wSD}`, the repeatability coefficient. "student" is the prediction
    interval that allows for its estimate, :math:`\pm t_{0.975,\nu}\sqrt{2}\,\mathrm{wSD}`, and holds the level exactly.

    Parameters
    ----------
    within_subject_sd : float
        Root mean within-subject variance; not the one that was freed of its bias.
    freedom : int
        Its degrees of freedom: the number of pairs where everyone was scanned twice.
    method : {"student", "normal"}
    level : float
        Share of unchanged participants that the limits should hold.
    """
    check_level(level)
    if method not in get_args(Method):
        raise ValueError(f"Unknown limits of change {method!r}; valid: {', '.join(get_args(Method))}.")
    if not (within_subject_sd > 0 and np.isfinite(within_subject_sd)):
        raise ValueError(f"The within-subject standard deviation must be positive, found {within_subject_sd}.")
    _check_freedom(freedom)
    multiplier = multiplier_of(method, freedom, level)
    return ChangeLimits(
        bound=float(multiplier * np.sqrt(2) * within_subject_sd),
        method=method,
        within_subject_sd=float(within_subject_sd),
        freedom=int(freedom),
        false_positive_rate=false_positive_rate(freedom, multiplier),
        level=level,
    )


def multiplier_of(method: Method, freedom: int, level: float = LEVEL) -> float:
    """What wSD times the root of 2 is multiplied with."""
    high = (1 + level) / 2
    return float(norm.ppf(high) if method == "normal" else t.ppf(high, freedom))


def false_positive_rate(freedom: int, multiplier: float = 1.96) -> float:
    r"""Share of unchanged participants outside :math:`\pm m\sqrt{2}\,\mathrm{wSD}`, :math:`2P(t_\nu > m)`.

    The difference over :math:`\sqrt{2}` times the estimated wSD has Student's t distribution, so that limits that take
    wSD as known are too narrow: with 14 pairs 7.0 % of unchanged participants lie outside 1.96 instead of 5 %.

    Parameters
    ----------
    freedom : int
        Degrees of freedom of the estimated wSD.
    """
    _check_freedom(freedom)
    return float(2 * t.sf(multiplier, freedom))


def _check_freedom(freedom: int) -> None:
    if not freedom >= 1:
        raise ValueError(f"At least one degree of freedom is needed, found {freedom}.")
