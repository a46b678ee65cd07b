"""P-values that allow for how many tests were made."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import false_discovery_control

Correction = Literal["holm", "benjamini-hochberg", "none"]


def adjust_p_values(p_values: ArrayLike, correction: Correction = "holm") -> NDArray[np.float64]:
    """P-values after a correction over all of them: all parameters and regions that one statement rests on.

    "holm" bounds the chance of a single false finding [1]_, "benjamini-hochberg" the expected share of false ones
    among the findings [2]_.

    Parameters
    ----------
    p_values : array_like, any shape
        NaN where no test could be made: it stays NaN and does not count.
    correction : {"holm", "benjamini-hochberg", "none"}

    Returns
    -------
    ndarray, the shape of the p-values

    References
    ----------
    .. [1] Holm S. Scandinavian Journal of Statistics 1979;6:65-70.
    .. [2] Benjamini Y, Hochberg Y. Journal of the Royal Statistical Society B 1995;57:289-300.
    """
    if correction not in get_args(Correction):
        raise ValueError(f"Unknown correction {correction!r}; valid: {', '.join(get_args(Correction))}.")
    adjusted = np.array(p_values, dtype=float)
    made = np.isfinite(adjusted)
    if np.any((adjusted[made] < 0) | (adjusted[made] > 1)) or np.any(np.isinf(adjusted)):
        raise ValueError("P-values lie between 0 and 1.")
    if correction == "holm":
        adjusted[made] = _holm(adjusted[made])
    elif correction == "benjamini-hochberg" and made.any():
        adjusted[made] = false_discovery_control(adjusted[made], method="bh")
    return adjusted


def _holm(p_values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The smallest times their number, the next times one less, and so on; none below a smaller one, and none above 1.

    (`statsmodels` collects garbage at every call of its function: most of the time of a group level.)
    """
    order = np.argsort(p_values)
    steps = np.maximum.accumulate(p_values[order] * np.arange(p_values.size, 0, -1))
    adjusted = np.empty_like(p_values)
    adjusted[order] = np.minimum(steps, 1.0)
    return adjusted
