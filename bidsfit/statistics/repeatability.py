"""Repeatability: how far scans of the same participant lie apart when nothing has changed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import gammaln
from scipy.stats import norm

from bidsfit.statistics.interval import LEVEL, NO_INTERVAL, Interval, check_level, scale_interval
from bidsfit.statistics.intraclass import IntraclassCorrelation, intraclass_correlation
from bidsfit.statistics.scans import RepeatedScans

#: Participants that QIBA asks of a test-retest study.
ADVISED_PARTICIPANTS = 35
#: Above it the interval of the within-subject coefficient of variation is too narrow.
LARGE_CV = 0.2


@dataclass(frozen=True)
class Repeatability:
    """Repeatability of one parameter in one region.

    Attributes
    ----------
    n_participants, n_left_out, n_scans : int
        Participants with repeats, those without, and the scans of the former.
    freedom : int
        Degrees of freedom of the within-subject standard deviation.
    mean : float
        Mean of the participants' means.
    within_subject_sd : Interval
        Root mean within-subject variance (wSD), in the units of the parameter.
    unbiased_within_subject_sd : float
        The same without the small-sample bias of a root.
    repeatability_coefficient : Interval
        In the units of the parameter.
    within_subject_cv : Interval
        Within-subject coefficient of variation as a fraction; NaN where a participant's mean is not positive.
    between_subject_sd : float
        0 where participants differ no more than their scans do.
    level : float
        Confidence level of the intervals, and coverage of the repeatability coefficient.
    """

    n_participants: int
    n_left_out: int
    n_scans: int
    freedom: int
    mean: float
    within_subject_sd: Interval
    unbiased_within_subject_sd: float
    repeatability_coefficient: Interval
    within_subject_cv: Interval
    between_subject_sd: float
    intraclass_correlation: IntraclassCorrelation
    level: float

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a reader must know before using these numbers, a sentence each."""
        found = []
        if self.n_participants < ADVISED_PARTICIPANTS:
            within = self.within_subject_sd
            low, high = 100 * (within.lower / within.value - 1), 100 * (within.upper / within.value - 1)
            found.append(
                f"{self.n_participants} participants with repeated scans leave the within-subject standard deviation "
                f"uncertain, from {-low:.0f} % less to {high:.0f} % more; QIBA asks for {ADVISED_PARTICIPANTS} "
                "participants."
            )
        if self.n_left_out:
            found.append(f"Participants with fewer than two values, left out: {self.n_left_out}.")
        if np.isnan(self.within_subject_cv.value):
            found.append("No within-subject coefficient of variation: the mean of a participant is not positive.")
        if self.within_subject_cv.value > LARGE_CV:
            found.append(
                f"The within-subject coefficient of variation is above {100 * LARGE_CV:.0f} %, where its interval is "
                "too narrow."
            )
        return tuple(found)


def repeatability(values: ArrayLike, *, level: float = LEVEL) -> Repeatability:
    r"""Repeatability from participants who were scanned twice or more without a change in between.

    The within-subject standard deviation is the root of the mean within-subject variance [1]_, as published studies
    report it, with an exact chi-square interval. That root is too small on average (by 1.8 % with 14 pairs), though
    its square is unbiased: ``unbiased_within_subject_sd`` divides by :math:`c_4(\nu)`. The repeatability coefficient is
    :math:`1.96\sqrt{2}` times the root: the difference that 95 % of pairs of scans stay within.

    The within-subject coefficient of variation is that of QIBA, the root mean square of the participants' own
    coefficients [2]_. Its interval is taken from the same chi-square distribution [3]_, which supposes a standard
    deviation in proportion to the mean, and a mean of each participant that is hardly uncertain: of intervals at 95 %,
    94 to 95 % hold the truth at a coefficient of 10 % and below, 93 % at 20 %, 88 % at 30 %, 63 % at 50 % (14 pairs).

    Parameters
    ----------
    values : array_like, shape (n_participants, n_sessions)
        NaN where a value is missing; participants with fewer than two values are left out and counted.
    level : float
        Confidence level.

    Raises
    ------
    ValueError
        Where the design does not identify repeatability: one session, fewer than two participants with repeats,
        repeats that never differ, infinite values.

    References
    ----------
    .. [1] Bland JM, Altman DG. Measurement error. BMJ 1996;313:744.
    .. [2] Raunig DL, McShane LM, Pennello G, et al. Statistical Methods in Medical Research 2015;24:27-67.
    .. [3] Obuchowski NA, Bullen J. Statistical Methods in Medical Research 2018;27:3139-3154.
    """
    check_level(level)
    scans = RepeatedScans.of(values)
    within = scale_interval(float(np.sqrt(scans.mean_square_within)), scans.freedom, level)
    excess = (scans.mean_square_between - scans.mean_square_within) / scans.effective_count
    return Repeatability(
        n_participants=scans.n_participants,
        n_left_out=scans.n_left_out,
        n_scans=int(scans.counts.sum()),
        freedom=scans.freedom,
        mean=float(scans.means.mean()),
        within_subject_sd=within,
        unbiased_within_subject_sd=within.value / mean_of_root(scans.freedom),
        repeatability_coefficient=within.times(float(norm.ppf((1 + level) / 2) * np.sqrt(2))),
        within_subject_cv=within_subject_cv(scans, level),
        between_subject_sd=float(np.sqrt(max(excess, 0.0))),
        intraclass_correlation=intraclass_correlation(scans, level),
        level=level,
    )


def mean_of_root(freedom: int) -> float:
    r"""Mean of the root of an unbiased variance over the standard deviation, the :math:`c_4` of quality control."""
    return float(np.sqrt(2 / freedom) * np.exp(gammaln((freedom + 1) / 2) - gammaln(freedom / 2)))


def within_subject_cv(scans: RepeatedScans, level: float = LEVEL) -> Interval:
    """Within-subject coefficient of variation as `repeatability` defines it; NaN where a mean is not positive."""
    if np.any(scans.means <= 0):
        return NO_INTERVAL
    squares = np.average(scans.variances / scans.means**2, weights=scans.counts - 1)
    return scale_interval(float(np.sqrt(squares)), scans.freedom, level)
