"""What a study of some size can see."""

from __future__ import annotations

import numpy as np
from scipy.stats import nct
from statsmodels.stats.power import TTestPower

from bidsfit.statistics.interval import LEVEL, check_level
from bidsfit.statistics.limits import Method, multiplier_of


def power_of_calls(
    mean_change: float,
    within_subject_sd: float,
    freedom: int,
    *,
    response_sd: float = 0.0,
    method: Method = "student",
    level: float = LEVEL,
) -> float:
    r"""Chance that a single treated participant falls outside the limits of change, either way.

    The change is normal with variance :math:`2\,\mathrm{wSD}^2 + \tau^2`, and the limits scatter with the wSD that
    repeated scans of others gave, so that their ratio is noncentral t. Without a change it is the rate of false
    positives.

    Parameters
    ----------
    within_subject_sd : float
        The true one.
    freedom : int
        Degrees of freedom of the one that the limits come from.
    response_sd : float
        Standard deviation :math:`\tau` of the true changes between participants.
    method : {"student", "normal"}
        Of the limits.
    """
    check_level(level)
    if not (within_subject_sd > 0 and response_sd >= 0 and freedom >= 1):
        raise ValueError(
            "Power needs a positive within-subject standard deviation, a standard deviation of the response that is "
            f"not negative and a degree of freedom, found {within_subject_sd}, {response_sd} and {freedom}."
        )
    spread = np.hypot(np.sqrt(2) * within_subject_sd, response_sd)
    bound = multiplier_of(method, freedom, level) * np.sqrt(2) * within_subject_sd / spread
    shift = mean_change / spread
    return float(nct.sf(bound, freedom, shift) + nct.sf(bound, freedom, -shift))


def power_of_cohort(effect_size: float, n_participants: int, level: float = LEVEL) -> float:
    """Chance that a two-sided paired t-test finds a mean change of so many standard deviations of the changes.

    Parameters
    ----------
    effect_size : float
        True mean change over the true standard deviation of the changes.
    level : float
        1 minus the level of significance.
    """
    check_level(level)
    if n_participants < 2:
        raise ValueError(f"A paired t-test needs at least 2 participants, found {n_participants}.")
    return float(TTestPower().power(effect_size, n_participants, 1 - level, alternative="two-sided"))
