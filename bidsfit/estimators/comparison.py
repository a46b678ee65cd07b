"""Precision of estimates, and differences between estimates of the same voxels, as numbers for reports and tables.

Arrays hold one value per voxel, NaN where a voxel was not fitted; spreads are infinite where the data do not determine
a parameter.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

#: A difference below this part of the floor is none.
NEGLIGIBLE = 0.05

#: Fewer voxels than this have no correlation worth a number.
FEWEST = 10


@dataclass(frozen=True)
class Precision:
    """Spread of one parameter over the fitted voxels; NaN if unknown.

    Attributes
    ----------
    sd : float
        Median standard deviation stated by the estimator.
    crb : float
        Median Cramér-Rao bound; infinite if at least half of the voxels are not determined.
    undetermined : float
        Fraction of the voxels whose bound is infinite.
    bias : float
        Median absolute bias stated by the estimator.
    """

    sd: float
    crb: float
    undetermined: float
    bias: float = np.nan


def precision(sd: NDArray | None, crb: NDArray | None, bias: NDArray | None = None) -> Precision:
    """Precision of one parameter, from its standard deviation, Cramér-Rao bound and bias in every voxel."""
    bounds = _known(crb)
    undetermined = float(np.mean(np.isinf(bounds))) if bounds.size else np.nan
    return Precision(_median(_known(sd)), _median(bounds), undetermined, _median(np.abs(_known(bias))))


@dataclass(frozen=True)
class Difference:
    """Difference of one parameter between an estimate and a reference, over the voxels that both have.

    Attributes
    ----------
    correlation : float
        Spearman's correlation between the two.
    floor : float
        Median Cramér-Rao bound of the reference over the same voxels; NaN if unknown.
    largest : float
        95th percentile of the absolute difference.
    """

    median: float
    median_absolute: float
    correlation: float
    floor: float
    largest: float = np.nan

    @property
    def negligible(self) -> bool:
        """Whether 95 % of the absolute differences are below the fraction `NEGLIGIBLE` of the Cramér-Rao bound."""
        return bool(np.isfinite(self.floor) and self.largest <= NEGLIGIBLE * self.floor)

    @property
    def exceeds_floor(self) -> bool:
        """Whether the typical difference exceeds the bound, so that at least one estimate is biased or inefficient."""
        return bool(self.median_absolute > self.floor)


def difference(values: NDArray, reference: NDArray, crb: NDArray | None = None) -> Difference:
    """Difference of one parameter from a reference, both of shape (n_voxels,), whose bound is ``crb``."""
    both = np.isfinite(values) & np.isfinite(reference)
    apart = values[both].astype(float) - reference[both]
    floor = np.nan if crb is None else _median(_known(crb[both]))
    largest = float(np.percentile(np.abs(apart), 95)) if apart.size else np.nan
    return Difference(_median(apart), _median(np.abs(apart)), rank_correlation(values, reference), floor, largest)


def rank_correlation(x: NDArray, y: NDArray) -> float:
    """Spearman's correlation over voxels where both are finite; NaN where one is constant or voxels are few."""
    both = np.isfinite(x) & np.isfinite(y)
    if both.sum() < FEWEST or np.ptp(x[both]) == 0 or np.ptp(y[both]) == 0:
        return np.nan
    from scipy.stats import spearmanr  # takes a third of a second to import

    return float(spearmanr(x[both], y[both]).statistic)


def correlations(values: Mapping[str, NDArray]) -> dict[tuple[str, str], float]:
    """Spearman's correlation over the voxels for every pair of parameters."""
    return {(a, b): rank_correlation(values[a], values[b]) for a, b in combinations(values, 2)}


def _known(spread: NDArray | None) -> NDArray:
    return np.empty(0) if spread is None else spread[~np.isnan(spread)]


def _median(values: NDArray) -> float:
    return float(np.median(values)) if values.size else np.nan
