"""The intraclass correlation coefficient of single measurements, and its interval."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from numpy.typing import ArrayLike
from scipy.stats import f

from bidsfit.statistics.interval import LEVEL, Interval, check_level
from bidsfit.statistics.scans import RepeatedScans


@dataclass(frozen=True)
class IntraclassCorrelation:
    """The intraclass correlation coefficient ICC(1,1).

    Attributes
    ----------
    coefficient : Interval
        May be negative where participants differ less than their scans do.
    """

    form: ClassVar[str] = "ICC(1,1)"

    coefficient: Interval
    n_participants: int
    n_left_out: int


def intraclass_correlation(values: ArrayLike | RepeatedScans, level: float = LEVEL) -> IntraclassCorrelation:
    """Share of the variance that lies between participants: the one-way random form of Shrout and Fleiss [1]_.

    Any difference between scans, that between the first and the second session included, counts as error, as it does in
    the within-subject standard deviation. The interval is that of McGraw and Wong [2]_, exact for normal values.

    Parameters
    ----------
    values : array_like, shape (n_participants, n_sessions)
        NaN where a value is missing. A participant needs two values; the mean number of scans is then the effective one
        of the analysis of variance, and the interval is approximate [3]_.
    level : float
        Confidence level.

    Raises
    ------
    ValueError
        Where the design does not identify the coefficient.

    References
    ----------
    .. [1] Shrout PE, Fleiss JL. Psychological Bulletin 1979;86:420-428.
    .. [2] McGraw KO, Wong SP. Psychological Methods 1996;1:30-46.
    .. [3] Donner A. International Statistical Review 1986;54:67-82.
    """
    check_level(level)
    scans = values if isinstance(values, RepeatedScans) else RepeatedScans.of(values)
    ratio = scans.mean_square_between / scans.mean_square_within
    high, freedom = (1 + level) / 2, (scans.n_participants - 1, scans.freedom)
    lower, upper = ratio / f.ppf(high, *freedom), ratio * f.ppf(high, *freedom[::-1])
    coefficient = Interval(*(float((r - 1) / (r + scans.effective_count - 1)) for r in (ratio, lower, upper)))
    return IntraclassCorrelation(coefficient, scans.n_participants, scans.n_left_out)
