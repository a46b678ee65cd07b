"""Whether all participants moved together from one session to the next."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import stats

from bidsfit.statistics.interval import LEVEL, NO_INTERVAL, Interval, check_level
from bidsfit.statistics.scans import RepeatedScans


@dataclass(frozen=True)
class SessionEffect:
    """Systematic differences between sessions.

    Attributes
    ----------
    difference : Interval
        Last session minus first, within participants.
    statistic : float
        F of all sessions; the square of the paired t where there are two.
    freedom : tuple of int
        Of the numerator and the denominator.
    p_value : float
        NaN where too few values remain to test it.
    """

    difference: Interval
    statistic: float
    freedom: tuple[int, int]
    p_value: float

    @property
    def words(self) -> str:
        """What was found, in a sentence."""
        if np.isnan(self.p_value):
            return "Too few repeated scans to test whether sessions differ systematically."
        test = f"F({self.freedom[0]}, {self.freedom[1]}) = {self.statistic:.2f}, p = {self.p_value:.3g}"
        if self.p_value < 0.05:
            return (
                f"The sessions differ systematically ({test}; last minus first {self.difference.value:.3g} "
                "in the unit of the values): the within-subject standard deviation holds this difference too."
            )
        return f"No sign of a systematic difference between sessions ({test})."


def session_effect(scans: RepeatedScans, level: float = LEVEL) -> SessionEffect:
    """Test of differences between sessions by a linear model of participants and sessions.

    With complete scans it is the repeated-measures analysis of variance, and with two sessions the paired t-test;
    participants who lack a session keep those they have. With three sessions and more it supposes that all
    differences between two sessions have the same variance.

    Parameters
    ----------
    level : float
        Confidence level of the difference.
    """
    check_level(level)
    present = np.isfinite(scans.values)
    row, column = np.nonzero(present)
    y = scans.deviations[present]
    dummies = np.eye(scans.values.shape[1])[column]
    shares = present / scans.counts[:, None]
    x = dummies - shares[row]  # within participants, as the values are
    inverse = np.linalg.pinv(x.T @ x, rcond=1e-10, hermitian=True)
    coefficients = inverse @ x.T @ y
    n_effects = int(np.linalg.matrix_rank(x.T @ x, hermitian=True, tol=1e-10 * len(y)))
    freedom = (n_effects, scans.freedom - n_effects)
    if freedom[1] < 1:
        return SessionEffect(NO_INTERVAL, np.nan, freedom, np.nan)
    residual = float(np.sum((y - x @ coefficients) ** 2))
    explained = float(np.sum((x @ coefficients) ** 2))
    error = residual / freedom[1]
    statistic = explained / n_effects / error if error > 0 else np.inf

    contrast = np.zeros(scans.values.shape[1])
    contrast[-1], contrast[0] = 1, -1
    difference = NO_INTERVAL
    if np.allclose(inverse @ (x.T @ x) @ contrast, contrast, atol=1e-8):  # the two sessions are linked by participants
        value = float(contrast @ coefficients)
        half = float(stats.t.ppf((1 + level) / 2, freedom[1]) * np.sqrt(contrast @ inverse @ contrast * error))
        difference = Interval(value, value - half, value + half)
    return SessionEffect(difference, statistic, freedom, float(stats.f.sf(statistic, *freedom)))
