"""Variation of the truth between participants, between sessions, and by a treatment."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bidsfit.models.signal_model import SignalModel
from bidsfit.phantom.head import Head
from bidsfit.phantom.tissue import RECIPES

#: A factor for every parameter that can vary.
Factors = Mapping[str, float]

#: How far a value that has to stay within a constraint goes towards it.
SHORT_OF = 0.999


def varying(model: SignalModel) -> tuple[str, ...]:
    """Parameters that can vary: all except scale and phase, and fields of the scanner."""
    fields = RECIPES[model.name].fields if model.name in RECIPES else {}
    others = (model.scale, model.phase, *fields)
    return tuple(p.name for p in model.parameters if p.name not in others and p.bounds[0] < p.bounds[1])


def draw_factors(parameters: Iterable[str], variation: Mapping[str, float], rng: np.random.Generator) -> Factors:
    """Log-normal factors with mean 1 and given coefficients of variation (0 if not listed).

    One number is drawn for each parameter, so that the variation of one does not change another.
    """
    factors = {}
    for name in parameters:
        # of the logarithm of a log-normal variable whose coefficient of variation is given
        deviation = np.sqrt(np.log1p(variation.get(name, 0.0) ** 2))
        factors[name] = float(np.exp(deviation * rng.standard_normal() - deviation**2 / 2))
    return factors


def times(*several: Factors) -> Factors:
    """Product of factors; 1 where a parameter is not listed."""
    names = dict.fromkeys(name for factors in several for name in factors)
    return {name: float(np.prod([factors.get(name, 1.0) for factors in several])) for name in names}


def vary(head: Head, model: SignalModel, factors: Factors, in_region: Factors | None = None) -> Head:
    """A head whose parameters are multiplied by factors, and in its region by additional ones.

    Values are clipped to the bounds of the model. Voxels that would violate a constraint between parameters (D* above
    D) move towards their new values only as far as it allows.
    """
    factor = {name: np.full(head.tissue.shape, factors.get(name, 1.0)) for name in varying(model)}
    for name, more in (in_region or {}).items():
        factor[name][head.region] *= more
    parameters = {name: values.copy() for name, values in head.parameters.items()}
    for name, amount in factor.items():
        parameters[name][head.mask] = np.clip(head.parameters[name] * amount, *model[name].bounds)[head.mask]
    matrix, limit = model.linear_constraints
    if len(matrix):
        _keep_constraints(head, parameters, model.names, matrix, limit)
    return replace(head, parameters=parameters)


def _keep_constraints(
    head: Head,
    parameters: dict[str, NDArray[np.float64]],
    names: Iterable[str],
    matrix: NDArray[np.float64],
    limit: NDArray[np.float64],
) -> None:
    """Move voxels that violate a linear constraint back towards their original values, in place."""
    names = list(names)
    old = np.stack([head.parameters[name][head.mask] for name in names])
    new = np.stack([parameters[name][head.mask] for name in names])
    slack, excess = limit[:, None] - matrix @ old, matrix @ new - limit[:, None]
    beyond = excess > 0
    if not beyond.any():
        return
    # along the way from old to new a linear constraint is met at the share slack / (slack + excess) of it
    step = np.ones_like(excess)
    step[beyond] = SHORT_OF * np.maximum(slack[beyond], 0) / (np.maximum(slack, 0) + excess)[beyond]
    allowed = old + step.min(axis=0) * (new - old)
    for name, values, before in zip(names, allowed, new, strict=True):
        parameters[name][head.mask] = np.where(beyond.any(axis=0), values, before)


def outside(values: Mapping[str, float], model: SignalModel) -> str:
    """Bounds and constraints of a model that ``values`` of all parameters violate, in words; else empty."""
    for name in varying(model):
        lower, upper = model[name].bounds
        if not lower <= values[name] <= upper:
            return f"{name} = {values[name]:.3g}, outside its bounds {lower:g} to {upper:g}"
    matrix, limit = model.linear_constraints
    broken = matrix @ [values[name] for name in model.names] > limit
    for constraint, is_broken in zip(model.constraints, broken, strict=True):
        if is_broken:
            found = ", ".join(f"{name} = {values[name]:.3g}" for name in map(str, constraint.free_symbols))
            return f"{found}, against {constraint}"
    return ""


class RegionMedian(NamedTuple):
    """True median of one parameter in one region, and its number of voxels."""

    region: str
    parameter: str
    n_voxels: int
    median: float


def region_medians(
    head: Head, regions: Mapping[str, NDArray[np.bool_]], least: Mapping[str, tuple[str, float]] | None = None
) -> Iterator[RegionMedian]:
    """True medians of every parameter in every non-empty region.

    ``least`` restricts parameters to voxels where another parameter, by name, is at least some value.
    """
    for region, mask in regions.items():
        for name, values in head.parameters.items():
            other, value = (least or {}).get(name, ("", 0.0))
            where = mask & (head.parameters[other] >= value) if other in head.parameters else mask
            if where.any():
                yield RegionMedian(region, name, int(where.sum()), float(np.median(values[where])))
