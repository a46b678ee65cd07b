"""Numbers that say in short how far the maps of an image can be trusted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bidsfit.estimators.estimator import FITTED, Estimate, interval_quantile
from bidsfit.trust.companions import Judge
from bidsfit.trust.flags import BIASED_TRUTHS, Flag
from bidsfit.trust.performance import Expected, Performance

#: Arrows along each axis of a plane of two parameters.
ARROWS = 11
#: Where at least this share of a true change shows, it is not said where estimates are drawn to.
FAITHFUL = 0.9
#: Where they are drawn to is said if half of the voxels agree within this share of the bounds.
AGREE = 0.2
#: Voxels from which the medians in each of the surroundings are found.
ENOUGH = 20_000


@dataclass(frozen=True)
class ParameterTrust:
    """What is expected of the errors of one parameter in the fitted voxels of an image; medians but for ``rmse``.

    Attributes
    ----------
    response : float
        Change of the mean estimate per true change.
    biased : float
        Share of the voxels where it is biased, see `bidsfit.trust.flags.BIASED_TRUTHS`.
    towards : float
        Value that estimates are drawn to; NaN where there is none.
    upwards : float
        Share of the biased voxels whose bias is positive.
    smallest_change : float
        Smallest true change between two measurements of a voxel that shows (95 %).
    bias, sd : float
        Medians of the size of the expected bias and of the expected standard deviation.
    rmse : float
        Root mean square error over all voxels together, so that a few large errors count.
    unsure : float
        Share of the voxels whose estimate may as well come from truths where it is biased as from others.
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
    unsure: float = np.nan


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
    surroundings : dict of surroundings to list of ParameterTrust
        Of an estimator that reads neighbours: ``parameters`` in each of its surroundings, over which all else is a
        mean.
    """

    parameters: list[ParameterTrust]
    flags: dict[str, float]
    responses: list[list[float]]
    snr: float
    performance: dict[str, Any]
    arrows: list[list[float]]
    surroundings: dict[str, list[ParameterTrust]] = field(default_factory=dict)


def trust_summary(content: Mapping[str, Any] | None) -> TrustSummary | None:
    """Rebuild a summary from its dictionary."""
    if content is None:
        return None
    parameters, *others = (
        [ParameterTrust(**row) for row in rows] for rows in (content["parameters"], *content["surroundings"].values())
    )
    surroundings = dict(zip(content["surroundings"], others, strict=True))
    return TrustSummary(**{**content, "parameters": parameters, "surroundings": surroundings})


def summarise(judge: Judge, estimate: Estimate, flags: NDArray[np.uint8]) -> TrustSummary:
    """The summary of an image, from its estimate and flags and a judge that has the performance of the estimator."""
    performance, model, expected = judge.performance, judge.model, judge.expected(estimate)
    assert performance is not None
    space = performance.space
    shown = np.isin(estimate.status, FITTED)
    fitted = np.flatnonzero(shown & np.isfinite(expected.response).all(axis=(-1, -2)))
    some = fitted[:: max(fitted.size // ENOUGH, 1)]
    beside = None if judge.beside is None else judge.beside[some]
    values = {name: estimate.values[name][some] for name in performance.judged}
    s0 = 1.0 if model.scale is None else estimate.parameters[model.scale][fitted]
    snr = _median(s0 / judge.noise[fitted])
    middle = np.array([_median(estimate.parameters[name][fitted]) for name in space.names])
    plane = len(middle) > 1 and not model.auxiliary
    return TrustSummary(
        parameters=_rows(performance, estimate.values, expected, fitted),
        flags={
            str(flag.name).lower(): float((flags[shown] & flag > 0).mean()) if shown.any() else np.nan for flag in Flag
        },
        responses=_medians(expected.response, fitted) if fitted.size else [],
        snr=snr,
        performance=performance.facts,
        arrows=errors_in_plane(performance, middle, snr).tolist() if plane and fitted.size else [],
        surroundings={
            place: _rows(there, values, there.expected(estimate.points[some], judge.noise[some], beside=beside))
            for place, there in performance.surroundings.items()
        },
    )


def _rows(
    performance: Performance,
    values: Mapping[str, NDArray[np.float64]],
    expected: Expected,
    chosen: NDArray[np.integer] | slice = slice(None),
) -> list[ParameterTrust]:
    """What is expected of the errors in the chosen of some voxels, by their values."""
    rows = []
    for j, name in enumerate(performance.judged):
        value, bias, sd = (found[name][chosen] for found in (values, expected.bias, expected.sd))
        response = expected.response[:, j, j][chosen]
        truths = expected.biased[name][chosen]
        biased, unbiased = truths > BIASED_TRUTHS, truths < 1 - BIASED_TRUTHS
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
                rmse=_root_mean_square(expected.rmse[name][chosen]),
                unsure=float(1 - (biased | unbiased).mean()) if biased.size else np.nan,
            )
        )
    return rows


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


def _medians(responses: NDArray[np.float64], chosen: NDArray[np.integer]) -> list[list[float]]:
    """Of every pair of parameters; one at a time, for the memory."""
    pairs = range(responses.shape[1])
    return [[_median(responses[:, i, j][chosen]) for j in pairs] for i in pairs]


def _root_mean_square(values: NDArray[np.float64]) -> float:
    return float(np.sqrt(np.mean(np.square(values)))) if values.size else np.nan
