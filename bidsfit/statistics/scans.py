"""Repeated scans of the same participants between which nothing should have changed."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bidsfit.statistics.samples import as_table


@dataclass(frozen=True)
class RepeatedScans:
    """Values of participants who were scanned at least twice.

    Attributes
    ----------
    values : ndarray, shape (n_participants, n_sessions)
        NaN where a participant lacks a session.
    n_left_out : int
        Participants with fewer than two values.
    """

    values: NDArray[np.float64]
    n_left_out: int = 0

    @classmethod
    def of(cls, values: ArrayLike) -> RepeatedScans:
        """Those participants of a table that have two values or more.

        Raises
        ------
        ValueError
            Where repeatability is not identified: a single session, fewer than two participants with repeats, or
            repeats that never differ.
        """
        table = as_table(values, "Repeated scans")
        if table.shape[1] < 2:
            raise ValueError(
                f"Repeatability needs at least two scans of each participant, found {table.shape[1]} session(s)."
            )
        repeated = np.isfinite(table).sum(axis=1) >= 2
        n = int(np.count_nonzero(repeated))
        if n < 2:
            raise ValueError(
                f"Repeatability needs at least two participants with two values each, found {n} of {len(table)}."
            )
        scans = cls(table[repeated], int(len(table) - n))
        if scans.mean_square_within == 0:
            raise ValueError(
                "The repeated values of every participant are the same, so that there is no scatter to estimate: was "
                "one session given twice, or did the fit stop at a bound?"
            )
        return scans

    @property
    def n_participants(self) -> int:
        return len(self.values)

    @cached_property
    def counts(self) -> NDArray[np.intp]:
        """Values of each participant."""
        return np.isfinite(self.values).sum(axis=1)

    @cached_property
    def means(self) -> NDArray[np.float64]:
        """Mean of each participant."""
        return np.nanmean(self.values, axis=1)

    @cached_property
    def deviations(self) -> NDArray[np.float64]:
        """Differences from the participant's mean; NaN where the value is missing, 0 where all are the same."""
        differs = np.nanmax(self.values, axis=1) > np.nanmin(self.values, axis=1)  # a mean may be rounded
        return np.where(differs[:, None], 1.0, 0.0) * (self.values - self.means[:, None])

    @cached_property
    def variances(self) -> NDArray[np.float64]:
        """Unbiased variance of each participant."""
        return np.nansum(self.deviations**2, axis=1) / (self.counts - 1)

    @property
    def freedom(self) -> int:
        """Degrees of freedom within participants: the number of pairs where everyone has two scans."""
        return int((self.counts - 1).sum())

    @property
    def mean_square_within(self) -> float:
        """Mean within-subject variance, weighted by its degrees of freedom."""
        return float(np.average(self.variances, weights=self.counts - 1))

    @property
    def mean_square_between(self) -> float:
        """Mean square between participants of the one-way analysis of variance."""
        grand = np.average(self.means, weights=self.counts)
        return float(np.sum(self.counts * (self.means - grand) ** 2) / (self.n_participants - 1))

    @property
    def effective_count(self) -> float:
        """Scans per participant in the expected mean square between them; their number where all have the same."""
        total = self.counts.sum()
        return float((total - (self.counts**2).sum() / total) / (self.n_participants - 1))
