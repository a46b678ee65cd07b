"""Summary numbers of an estimate for reports and tables."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bidsfit.estimators.estimator import FITTED, Estimate
from bidsfit.models.signal_model import SignalModel


@dataclass(frozen=True)
class ParameterSummary:
    """Median, 5th and 95th percentile over the fitted voxels, and fraction of them at a bound."""

    name: str
    median: float
    p5: float
    p95: float
    fraction_at_bound: float


def summarise(estimate: Estimate, model: SignalModel, bounds: NDArray[np.float64]) -> list[ParameterSummary]:
    """Summary of every quantity that reports are about; NaN if no voxel was fitted.

    ``bounds``, shape (n_parameters, 2), are those of the fit.
    """
    fitted = np.isin(estimate.status, FITTED)
    rows = []
    limits = dict(zip(model.names, bounds.tolist(), strict=True))
    for name in (quantity.name for quantity in model.reported):
        values, (lower, upper) = estimate.values[name][fitted], limits.get(name, (-np.inf, np.inf))
        if values.size == 0:
            rows.append(ParameterSummary(name, np.nan, np.nan, np.nan, np.nan))
            continue
        p5, median, p95 = np.nanpercentile(values, (5, 50, 95))
        at_bound = np.mean((values <= lower) | (values >= upper)) if lower < upper else 0.0
        rows.append(ParameterSummary(name, float(median), float(p5), float(p95), float(at_bound)))
    return rows


def representative_voxels(estimate: Estimate, model: SignalModel) -> dict[str, int]:
    """Indices of voxels whose fitted curves are shown, by description.

    Low, middle and high values of the first quantity after the scale that reports are about, among converged voxels
    whose residual is not above the median (so that the curves do not show artefacts), and one voxel of poor fit.
    """
    fitted = np.flatnonzero(np.isin(estimate.status, FITTED))
    if fitted.size == 0:
        return {}
    name = next(quantity.name for quantity in model.reported if quantity.name != model.scale)
    level = np.maximum(estimate.parameters[model.scale][fitted], np.finfo(float).tiny) if model.scale else 1.0
    relative = np.nan_to_num(estimate.rmse[fitted] / level)  # NaN where no degree of freedom is left: all alike
    good = fitted[relative <= np.median(relative)]
    values = estimate.values[name][good]
    chosen: dict[str, int] = {}
    for percent in (10, 50, 90):
        index = int(good[np.argmin(np.abs(values - np.percentile(values, percent)))])
        if index not in chosen.values():
            chosen[f"{name}: {percent}th percentile"] = index
    poor = int(fitted[np.argmin(np.abs(relative - np.percentile(relative, 95)))])
    if estimate.freedom > 0 and poor not in chosen.values():
        chosen["residual: 95th percentile"] = poor
    return chosen
