"""Numbers that say in short how far the maps of an image can be trusted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bidsfit.estimators.estimator import FITTED, Estimate, Estimator, interval_quantile
from bidsfit.trust.flags import LARGE_BIAS, Flag
from bidsfit.trust.performance import Expected, Performance

#: Arrows along each axis of a plane of two parameters.
ARROWS = 11
#: Where at least this share of a true change shows, it is not said where estimates are drawn to.
FAITHFUL = 0.9
#: Where they are drawn to is said if half of the voxels agree within this share of the bounds.
AGREE = 0.2


@dataclass(frozen=True)
class ParameterTrust:
    """What is expected of the errors of one parameter in the voxels of an image; medians over the fitted ones.

    Attributes
    ----------
    response : float
        Change of the mean estimate per true change.
    biased : float
        Share of the voxels whose expected bias exceeds half the expected standard deviation.
    towards : float
        Value that estimates are drawn to; NaN where there is none.
    upwards : float
        Share of the biased voxels whose bias is positive.
    smallest_change : float
        Smallest true change between two measurements of a voxel that shows (95 %).
    bias, sd, rmse : float
        Medians of the size of the expected bias, of the expected standard deviation and of the root mean square error.
    """

    name: str
    response: float
    biased: float
    towards: float
    upwards: float
    smallest_change: float
    bias: float
    sd: float
    rmse: float


@dataclass(frozen=True)
class TrustSummary:
    """What is expected of the errors in an image.

    Attributes
    ----------
    parameters : list of ParameterTrust
    flags : dict of name of a flag to float
        Share of the fitted voxels.
    responses : list of list of float
        Median change of the mean estimate of the first parameter per true change of the second.
    snr : float
        Median of S0 over the noise of one measurement.
    performance : dict
        `bidsfit.trust.performance.Performance.facts`.
    arrows : list of list of float
        True values of the first two parameters, and the bias of both, at the median of the others and of the SNR;
        empty for a single parameter, and where they are auxiliary.
    """

    parameters: list[ParameterTrust]
    flags: dict[str, float]
    responses: list[list[float]]
    snr: float
    performance: dict[str, Any]
    arrows: list[list[float]]


def trust_summary(content: Mapping[str, Any] | None) -> TrustSummary | None:
    """Rebuild a summary from its dictionary."""
    if content is None:
        return None
    return TrustSummary(**{**content, "parameters": [ParameterTrust(**row) for row in content["parameters"]]})


def summarise(
    estimator: Estimator,
    estimate: Estimate,
    expected: Expected,
    flags: NDArray[np.uint8],
    sigma: NDArray[np.float64],
    performance: Performance,
) -> TrustSummary:
    """The summary of an image; arguments as of `bidsfit.trust.flags.flags`."""
    space, model = performance.space, estimator.model
    fitted = np.isin(estimate.status, FITTED) & np.isfinite(expected.response).all(axis=(-1, -2))
    rows = []
    for j, name in enumerate(performance.judged):
        value, bias, sd = (found[name][fitted] for found in (estimate.values, expected.bias, expected.sd))
        response = expected.response[fitted][:, j, j]
        biased = np.abs(bias) > LARGE_BIAS * sd
        drawn = biased & (response < FAITHFUL)
        share = np.clip(response[drawn], 0, FAITHFUL)
        ends = value[drawn] + bias[drawn] * share / (1 - share)  # where the line of mean estimates meets the truth
        low, middle, high = np.percentile(ends, (25, 50, 75)) if drawn.any() else (np.nan,) * 3
        agree = high - low <= AGREE * np.ptp(performance.limits[j])
        with np.errstate(divide="ignore", invalid="ignore"):
            smallest = np.sqrt(2) * interval_quantile(np.inf) * sd / np.maximum(response, 0)
        rows.append(
            ParameterTrust(
                name=name,
                response=_median(response),
                biased=float(biased.mean()) if biased.size else np.nan,
                towards=float(np.clip(middle, *performance.limits[j])) if agree else np.nan,
                upwards=float((bias[biased] > 0).mean()) if biased.any() else np.nan,
                smallest_change=_median(smallest),
                bias=_median(np.abs(bias)),
                sd=_median(sd),
                rmse=_median(expected.rmse[name][fitted]),
            )
        )
    s0 = 1.0 if model.scale is None else estimate.parameters[model.scale][fitted]
    snr = _median(s0 / sigma[fitted])
    middle = np.array([_median(estimate.parameters[name][fitted]) for name in space.names])
    plane = len(middle) > 1 and not model.auxiliary
    shown = np.isin(estimate.status, FITTED)
    return TrustSummary(
        parameters=rows,
        flags={
            str(flag.name).lower(): float((flags[shown] & flag > 0).mean()) if shown.any() else np.nan for flag in Flag
        },
        responses=np.median(expected.response[fitted], axis=0).tolist() if fitted.any() else [],
        snr=snr,
        performance=performance.facts,
        arrows=errors_in_plane(performance, middle, snr).tolist() if plane and fitted.any() else [],
    )


def errors_in_plane(performance: Performance, others: NDArray[np.float64], snr: float) -> NDArray[np.float64]:
    """True values of the first two parameters within their display ranges, and their bias: shape (n, 4).

    ``others`` are all parameters except the scale, of which the first two are replaced.
    """
    space = performance.space
    axes = []
    for j, name in enumerate(space.names[:2]):
        low, high = space.model[name].display or space.bounds[j]
        least, most = space.bounds[j]
        axes.append(np.linspace(max(low, least), min(high, most), ARROWS))
    plane = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 2)
    truth = np.column_stack([plane, np.tile(others[2:], (len(plane), 1))])
    truth = truth[space.contains(truth)]
    bias = performance.errors(space.with_scale(truth), np.full(len(truth), 1 / snr)).bias
    return np.column_stack([truth[:, :2], *(bias[name] for name in space.names[:2])])


def _median(values: NDArray[np.float64]) -> float:
    return float(np.median(values)) if values.size else np.nan
