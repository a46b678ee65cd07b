"""Concordance of repeated scans: a statistic of the group level that lives in a package of its own."""

import numpy as np

from bidsfit.cohort.statistic import GroupStatistic
from bidsfit.reports.group_numbers import Number


def compute(arranged):
    """Lin's coefficient of the first two scans (Biometrics 1989;45:255-268)."""
    first, second = arranged.repeats[:, :2][np.isfinite(arranged.repeats[:, :2]).all(axis=1)].T
    if first.size < 3:
        raise ValueError("Fewer than three participants have both scans.")
    together = 2 * np.mean((first - first.mean()) * (second - second.mean()))
    return {"coefficient": float(together / (first.var() + second.var() + (first.mean() - second.mean()) ** 2))}


CONCORDANCE = GroupStatistic(
    name="concordance",
    table="repeatability",
    compute=compute,
    numbers=(
        Number(
            column="concordance",
            title="Concordance",
            description="Lin's coefficient of the first two scans",
            value="more.concordance.coefficient",
            label="Concordance of the first two scans",
        ),
    ),
    warn=lambda found: "The first two scans hardly agree." if found["coefficient"] < 0.5 else "",
)
