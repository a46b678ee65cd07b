"""The parameter space of a model within bounds and constraints, mapped to the unit cube."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bidsfit.models.signal_model import SignalModel

#: How far rounding to the 32 bits of an image may carry a point over a constraint.
TOLERANCE = 1e-6


class ParameterSpace:
    r"""All free parameters except scale and phase, within bounds and linear constraints, parametrised by the unit cube.

    Every point of the cube, such as the outputs of a network between 0 and 1, is a valid combination of parameters. A
    parameter without a constraint is scaled by its bounds. Fractions whose sum is at most 1 become their sum and the
    share of each in the remainder: :math:`v_1+v_2` and :math:`v_1/(v_1+v_2)` (Gyori et al. 2022). A parameter
    constrained to be at least another is scaled from that one to its upper bound.

    Parameters
    ----------
    model : SignalModel
    bounds : mapping of name to (lower, upper), optional
        Replace the model's, in the units of its parameter table. Equal bounds hold a parameter: it has no coordinate,
        and what it leaves to the others of its constraint is their limit.

    Raises
    ------
    ValueError
        Where a bound is infinite, no parameter is free, or a constraint is of another form.
    """

    def __init__(self, model: SignalModel, bounds: Mapping[str, tuple[float, float]] | None = None) -> None:
        self.model = model
        everything = bounds_of(model, bounds)
        others = [j for j, name in enumerate(model.names) if name not in (model.scale, model.phase)]
        for j in others:
            if not np.isfinite(everything[j]).all():
                low, high = everything[j]
                raise ValueError(f"Training needs finite bounds of {model.names[j]}, found {low:g} to {high:g}.")
        #: Bounds by name, for JSON.
        self.facts: dict[str, list[float]] = {model.names[j]: everything[j].tolist() for j in others}
        free = [j for j in others if everything[j, 0] < everything[j, 1]]
        held = [j for j in others if j not in free]
        if not free:
            raise ValueError(f"The bounds of {model.name!r} hold all of its parameters: {self.facts}.")
        self.names = tuple(model.names[j] for j in free)
        self.bounds = everything[free]
        #: Indices of the free parameters among those of the model.
        self.places = free
        self.held = tuple(model.names[j] for j in held)
        self._whole = np.where(everything[:, 0] == everything[:, 1], everything[:, 0], 1.0)
        if model.phase is not None:
            self._whole[model.phase_index] = 0.0
        matrix, limits = model.linear_constraints
        self._matrix, self._limits = matrix[:, free], limits - matrix[:, held] @ everything[held, 0]
        self.groups: list[tuple[list[int], float]] = []  # fractions whose sum is at most a limit
        self.orders: list[tuple[int, int]] = []  # the first is at most the second
        for row, limit in zip(self._matrix, self._limits, strict=True):
            members = np.flatnonzero(row).tolist()
            if len(members) < 2:
                self._tighten(row, limit, members)
            elif (
                0 < limit <= 1
                and np.all(row[members] == 1)
                and np.array_equal(self.bounds[members], [[0, 1]] * len(members))
            ):
                self.groups.append((members, float(limit)))
            elif limit == 0 and sorted(row[members]) == [-1, 1]:
                self.orders.append((int(np.argmax(row)), int(np.argmin(row))))
            else:
                raise ValueError(
                    f"Training of {model.name!r} knows fractions from 0 to 1 whose sum is at most 1, and parameters "
                    f"that are at least another; its constraints are {', '.join(map(str, model.constraints))}."
                )

    def _tighten(self, row: NDArray[np.float64], limit: float, members: list[int]) -> None:
        """Narrow the bounds of the one parameter, if any, that a constraint leaves free."""
        for j in members:
            low, high = self.bounds[j]
            self.bounds[j] = (low, min(high, limit / row[j])) if row[j] > 0 else (max(low, limit / row[j]), high)
        if (limit < 0 and not members) or any(self.bounds[j, 0] >= self.bounds[j, 1] for j in members):
            raise ValueError(f"The bounds {self.facts} leave no room for the constraints of {self.model.name!r}.")

    @property
    def span(self) -> NDArray[np.float64]:
        """Widths of the bounds, shape (n_parameters,)."""
        return np.diff(self.bounds)[:, 0]

    def columns(self, cube: Sequence[Any]) -> list[Any]:
        """Parameters from coordinates of the cube; both are sequences of arrays or torch tensors, one per parameter."""
        found = [low + (high - low) * u for u, (low, high) in zip(cube, self.bounds.tolist(), strict=True)]
        for members, limit in self.groups:
            left = limit * cube[members[0]]
            for place, share in itertools.pairwise(members):
                found[place] = left * cube[share]
                left = left - found[place]
            found[members[-1]] = left
        for below, above in self.orders:
            low, high = self.bounds[above].tolist()
            start = found[below].clip(low, high)
            found[above] = start + (high - start) * cube[above]
        return found

    def from_cube(self, cube: NDArray[np.float64]) -> NDArray[np.float64]:
        """Parameters of points of the unit cube; both have shape (..., n_parameters)."""
        return np.stack(self.columns(list(np.moveaxis(cube, -1, 0))), axis=-1)

    def to_cube(self, parameters: NDArray[np.float64]) -> NDArray[np.float64]:
        """Points of the unit cube for parameters; both (..., n_parameters). A coordinate without effect is 0.5."""
        found = (parameters - self.bounds[:, 0]) / self.span
        with np.errstate(divide="ignore", invalid="ignore"):
            for members, limit in self.groups:
                left = parameters[..., members].sum(axis=-1)
                found[..., members[0]] = left / limit
                for place, share in itertools.pairwise(members):
                    found[..., share] = np.where(left > 0, parameters[..., place] / left, 0.5)
                    left = left - parameters[..., place]
            for below, above in self.orders:
                low, high = self.bounds[above]
                start = parameters[..., below].clip(low, high)
                found[..., above] = np.where(high > start, (parameters[..., above] - start) / (high - start), 0.5)
        return np.clip(found, 0.0, 1.0)

    def contains(self, parameters: NDArray[np.floating]) -> NDArray[np.bool_]:
        """Whether parameters (n, n_parameters) are `within` and plausible, where the model tells which are."""
        inside, plausible = self.within(parameters), self.model.plausible
        return inside if plausible is None else inside & plausible(self.with_scale(parameters))

    def within(self, parameters: NDArray[np.floating]) -> NDArray[np.bool_]:
        """Whether parameters (n, n_parameters) meet bounds and constraints, within the precision of their dtype."""
        slack = 8 * np.finfo(parameters.dtype).eps * np.abs(self.bounds).max(axis=1)
        low, high = self.bounds[:, 0] - slack, self.bounds[:, 1] + slack
        inside = np.all((parameters >= low) & (parameters <= high), axis=1)
        return inside & np.all(parameters @ self._matrix.T <= self._limits + TOLERANCE, axis=1)

    def sample(self, n: int, rng: np.random.Generator) -> NDArray[np.float64]:
        """Draw n points uniformly over the space, shape (n, n_parameters).

        Fractions whose sum is at most 1 follow a flat Dirichlet distribution; orientations are uniform on the sphere.
        """
        return fill(n, self.propose, self.contains, rng)

    def propose(self, n: int, rng: np.random.Generator) -> NDArray[np.float64]:
        """Draw n points as `sample` does, some of which may violate a constraint."""
        found = self.bounds[:, 0] + self.span * rng.random((n, len(self.names)))
        for members, limit in self.groups:
            found[:, members] = limit * rng.dirichlet(np.ones(len(members) + 1), n)[:, :-1]
        for j, name in enumerate(self.names):
            if self.model[name].kind == "polar":  # as likely as the area on the sphere
                low, high = np.cos(self.bounds[j])
                found[:, j] = np.arccos(low + (high - low) * (found[:, j] - self.bounds[j, 0]) / self.span[j])
        return found

    def completed(self, columns: Sequence[Any]) -> list[Any]:
        """Arrays or torch tensors of all parameters from those of the free ones, as `with_scale` completes them."""
        found: list[Any] = [0 * columns[0] + value for value in self._whole.tolist()]
        for place, column in zip(self.places, columns, strict=True):
            found[place] = column
        return found

    def with_scale(self, parameters: NDArray[np.floating]) -> NDArray[np.float64]:
        """All parameters (n, n_parameters of the model): held ones, and, if any, 1 as scale and 0 as phase."""
        return np.stack(self.completed(list(np.asarray(parameters, dtype=float).T)), axis=1)


def fill(n: int, propose: Any, accept: Any, rng: np.random.Generator, most: int = 1 << 20) -> NDArray[np.float64]:
    """Draw until n proposals are accepted (rejection sampling).

    ``propose(k, rng)`` draws k rows, ``accept(rows)`` says for each whether it is kept; ``most`` limits k.

    Raises
    ------
    ValueError
        If hardly any of a million proposals is accepted.
    """
    parts: list[NDArray[np.float64]] = []
    found = tried = 0
    while found < n:
        size = n if tried == 0 else int(1.1 * (n - found) * tried / max(found, 1)) + 16
        size = min(size, most)
        proposed = propose(size, rng)  # may have rejected some itself
        accepted = proposed[accept(proposed)]
        parts.append(accepted)
        found, tried = found + len(accepted), tried + size
        if tried > most and found < 1e-5 * tried:
            raise ValueError(f"Only {found} of {tried} draws lie inside the bounds and constraints: widen the bounds.")
    return np.concatenate(parts)[:n]


def bounds_of(model: SignalModel, changes: Mapping[str, tuple[float, float]] | None = None) -> NDArray[np.float64]:
    """Bounds of a model's parameters, shape (n_parameters, 2), with ``changes`` replacing some of them.

    Raises
    ------
    ValueError
        For a parameter that does not exist, or a lower bound above the upper one.
    """
    changes = dict(changes or {})
    unknown = set(changes) - set(model.names)
    if unknown:
        raise ValueError(f"Model {model.name!r} has no parameter {sorted(unknown)}; it has {', '.join(model.names)}.")
    bounds = np.array([changes.get(p.name, p.bounds) for p in model.parameters], dtype=float)
    for name, (lower, upper) in zip(model.names, bounds, strict=True):
        if not lower <= upper or np.isnan(lower):
            raise ValueError(f"Bounds of {name!r} must be lower <= upper, found {lower:g} and {upper:g}.")
    return bounds
