"""What the statistics are computed from: tables with missing values, checked and counted."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray


class Complete(NamedTuple):
    """Participants of whom every value is known.

    Attributes
    ----------
    values : ndarray, shape (n_participants, n_columns)
    known : ndarray of bool, shape (n_all,)
        Which rows of the input they are.
    """

    values: NDArray[np.float64]
    known: NDArray[np.bool_]

    @property
    def n_left_out(self) -> int:
        return int(np.count_nonzero(~self.known))


def as_table(values: ArrayLike, what: str) -> NDArray[np.float64]:
    """Values as a two-dimensional array in which NaN means missing; infinite values are refused."""
    table = np.asarray(values, dtype=float)
    if table.ndim != 2:
        raise ValueError(f"{what} must be a table with one row per participant, found {table.ndim} dimension(s).")
    return _without_infinity(table, what)


def as_vector(values: ArrayLike, what: str) -> NDArray[np.float64]:
    """Values as a one-dimensional array in which NaN means missing; infinite values are refused."""
    vector = np.asarray(values, dtype=float)
    if vector.ndim != 1:
        raise ValueError(f"{what} must be one value per participant or voxel, found {vector.ndim} dimension(s).")
    return _without_infinity(vector, what)


def complete(table: NDArray[np.float64], minimum: int, purpose: str) -> Complete:
    """Rows without missing values; refused where fewer than ``minimum`` are left."""
    known: NDArray[np.bool_] = np.all(np.isfinite(table), axis=1)
    n = int(np.count_nonzero(known))
    if n < minimum:
        raise ValueError(
            f"{purpose} needs at least {minimum} participants with all their values, found {n} of {len(table)}."
        )
    return Complete(table[known], known)


def paired(first: ArrayLike, second: ArrayLike, minimum: int, purpose: str) -> Complete:
    """Two values of each participant, side by side; refused where fewer than ``minimum`` have both."""
    a, b = as_vector(first, purpose), as_vector(second, purpose)
    if a.size != b.size:
        raise ValueError(f"{purpose} needs two values of each participant, found {a.size} and {b.size} values.")
    return complete(np.column_stack([a, b]), minimum, purpose)


def _without_infinity(values: NDArray[np.float64], what: str) -> NDArray[np.float64]:
    infinite = int(np.count_nonzero(np.isinf(values)))
    if infinite:
        raise ValueError(f"{what} holds {infinite} infinite value(s); mark what is missing with NaN.")
    return values
