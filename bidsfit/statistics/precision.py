"""Precision without a truth: how far two parameters are confounded."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from bidsfit.statistics.interval import LEVEL, Interval, check_level
from bidsfit.statistics.samples import paired

#: A standard deviation of fewer voxels says nothing.
FEWEST_VOXELS = 3
#: The interval of a rank correlation needs more values than this.
FEWEST_PAIRS = 4


class Correlation(NamedTuple):
    """Rank correlation of two parameters.

    Attributes
    ----------
    coefficient : Interval
        Spearman's rho.
    n, n_left_out : int
        Pairs with both values, and those without.
    """

    coefficient: Interval
    p_value: float
    n: int
    n_left_out: int


def rank_correlation(first: ArrayLike, second: ArrayLike, *, level: float = LEVEL) -> Correlation:
    r"""Spearman's rank correlation of two parameters, such as D* and f, whose errors a fit may confound.

    The interval is that of Fisher's z with the variance :math:`(1 + \rho^2/2) / (n - 3)` [1]_. It and the p-value
    suppose independent values, which participants are and neighbouring voxels are not: of the voxels of one
    participant only the coefficient counts.

    Parameters
    ----------
    first, second : array_like, shape (n,)
        NaN where a value is missing.

    Raises
    ------
    ValueError
        Where fewer than four pairs are known, or a parameter is the same in all of them.

    References
    ----------
    .. [1] Bonett DG, Wright TA. Psychometrika 2000;65:23-28.
    """
    check_level(level)
    pairs = paired(first, second, FEWEST_PAIRS, "A rank correlation")
    if np.any(np.ptp(pairs.values, axis=0) == 0):
        raise ValueError("A parameter with the same value everywhere has no rank correlation.")
    n = len(pairs.values)
    rho, p_value = stats.spearmanr(*pairs.values.T)
    half = stats.norm.ppf((1 + level) / 2) * np.sqrt((1 + rho**2 / 2) / (n - 3))
    centre = np.arctanh(np.clip(rho, -1 + 1e-15, 1 - 1e-15))  # a perfect correlation has an infinite z
    interval = Interval(float(rho), float(np.tanh(centre - half)), float(np.tanh(centre + half)))
    return Correlation(interval, float(p_value), n, pairs.n_left_out)
