"""Whether the scatter of repeated scans depends on the size of the value."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.stats import kendalltau

from bidsfit.statistics.scans import RepeatedScans

#: Below this number not even a perfect rank correlation is significant at 5 %.
FEWEST_PARTICIPANTS = 5


@dataclass(frozen=True)
class ScatterTrend:
    """Rank correlation of each participant's standard deviation with their mean.

    Attributes
    ----------
    tau, p_value : float
        Kendall's tau; NaN where it cannot be tested.
    """

    tau: float
    p_value: float
    n_participants: int

    @property
    def words(self) -> str:
        """What was found, in a sentence."""
        if np.isnan(self.p_value):
            return "Whether the scatter between scans depends on the mean cannot be told from these participants."
        test = f"Kendall's tau {self.tau:.2f}, p = {self.p_value:.3g}, {self.n_participants} participants"
        if self.p_value >= 0.05:
            return f"No sign that the scatter between scans depends on the mean ({test})."
        if self.tau > 0:
            return (
                f"The scatter between scans grows with the mean ({test}): one within-subject standard deviation does "
                "not hold for everyone, and the within-subject coefficient of variation describes it better."
            )
        return (
            f"The scatter between scans falls with the mean ({test}): one within-subject standard deviation does not "
            "hold for everyone."
        )


def scatter_trend(scans: RepeatedScans) -> ScatterTrend:
    """Kendall's rank correlation of within-subject standard deviation and mean [1]_.

    With two scans it is that of the absolute difference and the mean, the test beside a Bland-Altman plot [2]_.

    References
    ----------
    .. [1] Bland JM, Altman DG. Measurement error. BMJ 1996;313:744.
    .. [2] Bland JM, Altman DG. Statistical Methods in Medical Research 1999;8:135-160.
    """
    spread = np.sqrt(scans.variances)
    n = scans.n_participants
    if n < FEWEST_PARTICIPANTS or np.ptp(spread) == 0 or np.ptp(scans.means) == 0:
        return ScatterTrend(np.nan, np.nan, n)
    tau, p_value = kendalltau(scans.means, spread)
    return ScatterTrend(float(tau), float(p_value), n)
