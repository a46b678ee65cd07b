"""Intraclass correlation coefficients of single measurements, and their intervals."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import f

from bidsfit.statistics.interval import LEVEL, Interval, check_level
from bidsfit.statistics.samples import complete
from bidsfit.statistics.scans import RepeatedScans

Form = Literal["ICC(1,1)", "ICC(A,1)", "ICC(C,1)"]


@dataclass(frozen=True)
class IntraclassCorrelation:
    """An intraclass correlation coefficient.

    Attributes
    ----------
    form : {"ICC(1,1)", "ICC(A,1)", "ICC(C,1)"}
    coefficient : Interval
        May be negative where participants differ less than their scans do.
    n_participants, n_left_out : int
    """

    form: Form
    coefficient: Interval
    n_participants: int
    n_left_out: int


def intraclass_correlation(
    values: ArrayLike | RepeatedScans, form: Form = "ICC(1,1)", level: float = LEVEL
) -> IntraclassCorrelation:
    r"""Share of the variance that lies between participants.

    ICC(1,1) is the one-way random form of Shrout and Fleiss [1]_: any difference between scans, that between the
    first and the second session included, counts as error, as it does in the within-subject standard deviation.
    ICC(A,1) (two-way, absolute agreement; ICC(2,1) of Shrout and Fleiss) estimates the sessions' differences apart and
    counts them as error too; ICC(C,1) (two-way, consistency; ICC(3,1)) does not count them. The intervals are those of
    McGraw and Wong [2]_: exact for normal values, but approximate for ICC(A,1).

    Parameters
    ----------
    values : array_like, shape (n_participants, n_sessions)
        NaN where a value is missing. For ICC(1,1) a participant needs two values; the mean number of scans is then the
        effective one of the analysis of variance, and the interval is approximate [3]_. The two-way forms
        leave out whoever lacks a session.
    form : {"ICC(1,1)", "ICC(A,1)", "ICC(C,1)"}
    level : float
        Confidence level.

    Raises
    ------
    ValueError
        For an unknown form, and where the design does not identify the coefficient.

    References
    ----------
    .. [1] Shrout PE, Fleiss JL. Psychological Bulletin 1979;86:420-428.
    .. [2] McGraw KO, Wong SP. Psychological Methods 1996;1:30-46.
    .. [3] Donner A. International Statistical Review 1986;54:67-82.
    """
    check_level(level)
    if form not in get_args(Form):
        raise ValueError(f"Unknown form {form!r} of the intraclass correlation; valid: {', '.join(get_args(Form))}.")
    scans = values if isinstance(values, RepeatedScans) else RepeatedScans.of(values)
    if form == "ICC(1,1)":
        coefficient = _ratio_interval(
            scans.mean_square_between,
            scans.mean_square_within,
            scans.effective_count,
            (scans.n_participants - 1, scans.freedom),
            level,
        )
        return IntraclassCorrelation(form, coefficient, scans.n_participants, scans.n_left_out)
    table, known = complete(scans.values, 2, f"{form} of repeated scans")
    n_left_out = scans.n_left_out + int(np.count_nonzero(~known))
    compute = _absolute_agreement if form == "ICC(A,1)" else _consistency
    return IntraclassCorrelation(form, compute(table, level), len(table), n_left_out)


def _ratio_interval(between: float, error: float, n_scans: float, freedom: tuple[int, int], level: float) -> Interval:
    """Coefficient that follows from the ratio of two mean squares, and the limits from those of the ratio."""
    if error == 0:
        return Interval(1.0, 1.0, 1.0)
    ratio = between / error
    high = (1 + level) / 2
    lower, upper = ratio / f.ppf(high, *freedom), ratio * f.ppf(high, *freedom[::-1])
    return Interval(*(float((r - 1) / (r + n_scans - 1)) for r in (ratio, lower, upper)))


def _mean_squares(table: NDArray[np.float64]) -> tuple[float, float, float]:
    """Mean squares between participants, between sessions and of the residuals."""
    n, k = table.shape
    rows, columns = table.mean(axis=1), table.mean(axis=0)
    residuals = table - rows[:, None] - columns + table.mean()
    return (
        float(k * rows.var(ddof=1)),
        float(n * columns.var(ddof=1)),
        float((residuals**2).sum() / ((n - 1) * (k - 1))),
    )


def _consistency(table: NDArray[np.float64], level: float) -> Interval:
    n, k = table.shape
    between, _, error = _mean_squares(table)
    return _ratio_interval(between, error, k, (n - 1, (n - 1) * (k - 1)), level)


def _absolute_agreement(table: NDArray[np.float64], level: float) -> Interval:
    n, k = table.shape
    between, sessions, error = _mean_squares(table)
    if sessions == error == 0:
        return Interval(1.0, 1.0, 1.0)
    rho = (between - error) / (between + (k - 1) * error + k / n * (sessions - error))
    # Satterthwaite's degrees of freedom of the error that sessions and residuals make up together
    a, b = k * rho / (n * (1 - rho)), 1 + k * rho * (n - 1) / (n * (1 - rho))
    parts = (a * sessions) ** 2 / (k - 1) + (b * error) ** 2 / ((n - 1) * (k - 1))
    freedom = (a * sessions + b * error) ** 2 / parts
    high = (1 + level) / 2
    below, above = f.ppf(high, n - 1, freedom), f.ppf(high, freedom, n - 1)
    rest = k * sessions + (k * n - k - n) * error
    lower = n * (between - below * error) / (below * rest + n * between)
    upper = n * (above * between - error) / (rest + n * above * between)
    return Interval(float(rho), float(lower), float(upper))
