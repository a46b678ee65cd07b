"""A patient's value against those of healthy participants."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtr
from scipy.stats import shapiro, t

from bidsfit.statistics.interval import LEVEL, Interval, check_level, noncentrality_interval
from bidsfit.statistics.samples import as_vector

#: Healthy participants below which a standard deviation is a guess and normality cannot be looked at.
FEWEST_HEALTHY = 3


@dataclass(frozen=True)
class NormativeScores:
    """Where values lie in the distribution of healthy participants; arrays have the shape (n_patients,).

    Attributes
    ----------
    z : ndarray
        Distance from the healthy mean in healthy standard deviations; NaN where the patient has no value.
    t, p_value : ndarray
        Test that the patient comes from the healthy population, two-sided, with n_healthy - 1 degrees of freedom.
    percentile, percentile_lower, percentile_upper : ndarray
        Percentage of the healthy population below the value, and its confidence limits.
    empirical_percentile : ndarray
        Percentage of the healthy participants below the value, half of those that equal it; it supposes no shape.
    prediction : Interval
        The healthy mean, and limits between which the next healthy participant falls with the probability ``level``;
        they know that mean and standard deviation come from few. A patient beyond them has a p-value below 1 - level.
    healthy_normality_p_value : float
        Shapiro-Wilk test of the healthy values, on whose normal distribution all but the last percentile rests.
    """

    z: NDArray[np.float64]
    t: NDArray[np.float64]
    p_value: NDArray[np.float64]
    percentile: NDArray[np.float64]
    percentile_lower: NDArray[np.float64]
    percentile_upper: NDArray[np.float64]
    empirical_percentile: NDArray[np.float64]
    healthy_mean: float
    healthy_sd: float
    prediction: Interval
    healthy_normality_p_value: float
    n_healthy: int
    n_healthy_left_out: int
    n_patients: int
    n_patients_left_out: int
    level: float


def normative_scores(patients: ArrayLike, healthy: ArrayLike, *, level: float = LEVEL) -> NormativeScores:
    r"""Single patients against a small sample of healthy participants.

    With few healthy participants the z-score of a healthy newcomer scatters more than a standard normal variable. The
    test of Crawford and Howell [1]_ allows for it: :math:`t = z / \sqrt{(n + 1) / n}` with :math:`n - 1` degrees of
    freedom. Its one-sided p-value is also the estimate of the share of the healthy population below the patient, and
    the interval of that share follows from the noncentral t distribution of :math:`\sqrt{n}\,z` [2]_.

    Parameters
    ----------
    patients : array_like, shape (n_patients,)
        NaN where a patient has no value.
    healthy : array_like, shape (n_healthy,)
        Values of the same parameter, region and estimator; NaN is left out and counted.
    level : float
        Confidence level of the percentiles.

    Raises
    ------
    ValueError
        Where fewer than three healthy participants have a value, or all of theirs are the same.

    References
    ----------
    .. [1] Crawford JR, Howell DC. The Clinical Neuropsychologist 1998;12:482-486.
    .. [2] Crawford JR, Garthwaite PH. Neuropsychologia 2002;40:1196-1208.
    """
    check_level(level)
    values, everyone = as_vector(patients, "Patients"), as_vector(healthy, "Healthy participants")
    reference = everyone[np.isfinite(everyone)]
    n = reference.size
    if n < FEWEST_HEALTHY:
        raise ValueError(
            f"A healthy distribution needs at least {FEWEST_HEALTHY} healthy participants with a value, found {n}."
        )
    if np.ptp(reference) == 0:
        raise ValueError(f"All {n} healthy participants have the value {reference[0]:.3g}: there is no distribution.")
    mean, sd = float(reference.mean()), float(reference.std(ddof=1))
    z = (values - mean) / sd
    statistic = z / np.sqrt((n + 1) / n)
    known = np.isfinite(values)
    lower, upper, empirical = np.full((3, values.size), np.nan)
    limits = np.array([noncentrality_interval(score * np.sqrt(n), n - 1, level)[1:] for score in z[known]])
    lower[known], upper[known] = 100 * ndtr(limits.reshape(-1, 2).T / np.sqrt(n))
    below = (reference < values[known, None]).mean(axis=1) + (reference == values[known, None]).mean(axis=1) / 2
    empirical[known] = 100 * below
    half = float(t.ppf((1 + level) / 2, n - 1)) * sd * np.sqrt((n + 1) / n)
    return NormativeScores(
        z=z,
        t=statistic,
        p_value=2 * t.sf(np.abs(statistic), n - 1),
        percentile=100 * t.cdf(statistic, n - 1),
        percentile_lower=lower,
        percentile_upper=upper,
        empirical_percentile=empirical,
        healthy_mean=mean,
        healthy_sd=sd,
        prediction=Interval(mean, mean - half, mean + half),
        healthy_normality_p_value=float(shapiro(reference).pvalue),
        n_healthy=n,
        n_healthy_left_out=everyone.size - n,
        n_patients=int(np.count_nonzero(known)),
        n_patients_left_out=int(np.count_nonzero(~known)),
        level=level,
    )
