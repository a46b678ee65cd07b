"""Standardised size of a change within participants."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln

from bidsfit.statistics.interval import LEVEL, Interval, noncentrality_interval


class EffectSize(NamedTuple):
    """Mean change over the standard deviation of the changes.

    Attributes
    ----------
    cohen : Interval
        Cohen's d of paired values (d_z).
    hedges : Interval
        The same without its small-sample bias (Hedges' g).
    """

    cohen: Interval
    hedges: Interval


def paired_effect_size(changes: NDArray[np.float64], level: float = LEVEL) -> EffectSize:
    r"""Cohen's :math:`d_z = \bar{x} / s` and Hedges' g of changes, with intervals from the noncentral t distribution.

    :math:`\sqrt{n}\,d_z` is noncentral t with :math:`n - 1` degrees of freedom, so that the interval is exact for
    normal changes [1]_. Hedges' factor :math:`\Gamma(\nu/2) / (\sqrt{\nu/2}\,\Gamma((\nu-1)/2))` multiplies the
    estimate [2]_; the interval is that of the same true effect, and the same for both.

    Parameters
    ----------
    changes : ndarray, shape (n_participants,)
        At least two that are not all the same.

    References
    ----------
    .. [1] Cumming G, Finch S. Educational and Psychological Measurement 2001;61:532-574.
    .. [2] Hedges LV. Journal of Educational Statistics 1981;6:107-128.
    """
    root = np.sqrt(changes.size)
    freedom = changes.size - 1
    cohen = noncentrality_interval(float(changes.mean() / changes.std(ddof=1) * root), freedom, level).times(1 / root)
    return EffectSize(cohen, cohen._replace(value=cohen.value * _hedges_factor(freedom)))


def _hedges_factor(freedom: int) -> float:
    if freedom < 2:
        return np.nan  # the mean of the estimate does not exist
    return float(np.exp(gammaln(freedom / 2) - gammaln((freedom - 1) / 2)) / np.sqrt(freedom / 2))
