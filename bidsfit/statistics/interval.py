"""A number with its confidence interval."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.special import nctdtrinc
from scipy.stats import chi2

#: Confidence level unless another is asked for.
LEVEL = 0.95
#: Statistics of t beyond it are taken to have no noise but that of their denominator.
LARGE_STATISTIC = 1e4


class Interval(NamedTuple):
    """An estimate and its confidence limits.

    Attributes
    ----------
    value, lower, upper : float
        NaN where there is none; a limit may be infinite.
    """

    value: float
    lower: float
    upper: float

    def times(self, factor: float) -> Interval:
        """The interval of the estimate times a positive number that is known."""
        return Interval(*(float(factor * number) for number in self))


#: Where a number cannot be had.
NO_INTERVAL = Interval(np.nan, np.nan, np.nan)


def check_level(level: float) -> None:
    """Refuse a confidence level that is not between 0 and 1, such as 95."""
    if not 0 < level < 1:
        raise ValueError(f"A confidence level lies between 0 and 1, such as 0.95; found {level}.")


def scale_interval(value: float, freedom: int, level: float = LEVEL) -> Interval:
    r"""Interval of a standard deviation whose square is a scaled chi-square variable.

    :math:`[s\sqrt{\nu/\chi^2_{1-\alpha/2,\nu}},\ s\sqrt{\nu/\chi^2_{\alpha/2,\nu}}]`, exact for normal values.

    Parameters
    ----------
    value : float
        Root mean square estimate.
    freedom : int
        Degrees of freedom.
    """
    check_level(level)
    low, high = chi2.ppf([(1 - level) / 2, (1 + level) / 2], freedom)
    return Interval(value, float(value * np.sqrt(freedom / high)), float(value * np.sqrt(freedom / low)))


def noncentrality_interval(statistic: float, freedom: int, level: float = LEVEL) -> Interval:
    """Noncentrality of Student's t: those values under which the statistic is no outlier on either side."""
    check_level(level)
    shares = np.array([(1 + level) / 2, (1 - level) / 2])
    if abs(statistic) < LARGE_STATISTIC:
        lower, upper = nctdtrinc(freedom, shares, statistic)
    else:  # the search would not end, and the noise of the numerator no longer counts
        lower, upper = np.sort(statistic * np.sqrt(chi2.ppf(shares, freedom) / freedom))
    return Interval(statistic, float(lower), float(upper))
