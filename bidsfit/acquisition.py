"""What was measured: b-values, directions, repeats and timing of one image.

b-values are held as acquired, in s/mm^2. The numerics work in ms/um^2 (numbers near 1);
`Acquisition.variable` is the one place where that conversion happens.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

Averaging = Literal["arithmetic", "geometric", "none"]

#: Two b-values belong to one shell when they differ by at most 8 % of the larger, or 1 s/mm^2.
#: Scanners jitter by a few per cent; IVIM protocols hold values as close as 5 and 10 s/mm^2.
SHELL_TOLERANCE = 0.08
SHELL_TOLERANCE_ABSOLUTE = 1.0

#: Two echo times are the same when they differ by at most this (ms).
ECHO_TIME_TOLERANCE = 0.1

#: Up to this b-value (s/mm^2) an image counts as one at b = 0: the gradients that form an image reach 1 or 2 by
#: themselves, and the smallest weightings of purpose (IVIM) are 5.
B0_TOLERANCE = 2.0

#: No scanner reaches higher b-values (s/mm^2): those of microimaging and spectroscopy stay below 1e5.
LARGEST_B = 1e6

#: Directions are near 1 long, or up to the b-value where they hold it.
LONGEST_DIRECTION = 1e6

#: Directions closer than this angle (degrees, antipodes identified) count as one.
SAME_DIRECTION = 1.0


@dataclass(frozen=True)
class Shell:
    """Measurements of one nominal b-value, and of one echo time where there are several.

    Attributes
    ----------
    b_value : float
        Mean of the b-values as acquired, s/mm^2; over all echo times, so that it is the same at each.
    indices : ndarray of int, shape (n_shell,)
        Which measurements of the acquisition belong to it.
    n_measurements : int
        How many single measurements it stands for.
    n_directions : int
        How many different gradient directions (1 where they are not known, or at b = 0).
    echo_time : float or None
        ms; None where it is not known.
    """

    b_value: float
    indices: NDArray[np.intp]
    n_measurements: int
    n_directions: int
    echo_time: float | None = None


@dataclass(frozen=True)
class Acquisition:
    """What was measured, one entry a volume.

    Parameters
    ----------
    b_values : array_like, shape (n,)
        b-values as acquired, s/mm^2, at most `LARGEST_B`.
    directions : array_like, shape (n, 3), optional
        Gradient directions. Length is ignored (up to `LONGEST_DIRECTION`); zero vectors are directions that are not
        known.
    counts : array_like of int, shape (n,), optional
        How many measurements were averaged into each entry (1 by default). Least squares weights by it.
    n_directions : array_like of int, shape (n,), optional
        How many directions were averaged into each entry, for data that come already averaged.
    echo_times : array_like, shape (n,), optional
        Echo times, ms, for models that need them.

    Raises
    ------
    ValueError
        Where shapes disagree, a b-value is negative, not finite or beyond reach, or a direction or an echo time is not
        finite.

    Examples
    --------
    >>> Acquisition([0, 10, 100, 500, 800]).variable("b")
    array([0.  , 0.01, 0.1 , 0.5 , 0.8 ])
    """

    b_values: NDArray[np.float64]
    directions: NDArray[np.float64] | None = None
    counts: NDArray[np.int64] | None = None
    n_directions: NDArray[np.int64] | None = None
    echo_times: NDArray[np.float64] | None = None

    def __init__(
        self,
        b_values: ArrayLike,
        directions: ArrayLike | None = None,
        counts: ArrayLike | None = None,
        n_directions: ArrayLike | None = None,
        echo_times: ArrayLike | None = None,
    ) -> None:
        b = np.atleast_1d(np.asarray(b_values, dtype=float))
        if b.ndim != 1 or b.size == 0:
            raise ValueError(f"b-values must be a list of numbers, found an array of shape {b.shape}.")
        impossible = ~((b >= 0) & (b <= LARGEST_B))
        if impossible.any():
            raise ValueError(
                f"b-values must be finite, not negative and at most {LARGEST_B:g} s/mm^2, found {b[impossible][:5]}."
            )

        def optional(values: ArrayLike | None, name: str, dtype: type, shape: tuple[int, ...]) -> NDArray | None:
            if values is None:
                return None
            array: NDArray = np.asarray(values, dtype=dtype)
            if array.shape != shape:
                raise ValueError(f"{name} must have shape {shape} to match the b-values, found {array.shape}.")
            return array

        counted = optional(counts, "Counts", int, b.shape)
        if counted is not None and np.any(counted < 1):
            raise ValueError(f"Counts must be at least 1, found {counted.min()}.")
        times = optional(echo_times, "Echo times", float, b.shape)
        if times is not None and not np.isfinite(times).all():
            raise ValueError(f"Echo times must be finite, found {times[~np.isfinite(times)][:5]}.")
        table = optional(directions, "Directions", float, (b.size, 3))
        if table is not None and (wrong := ~(np.abs(table) <= LONGEST_DIRECTION)).any():
            raise ValueError(
                f"Directions must be finite and at most {LONGEST_DIRECTION:g} long, found {table[wrong][:5]}. Give "
                "zeros where they are not known."
            )
        object.__setattr__(self, "b_values", b)
        object.__setattr__(self, "directions", table)
        object.__setattr__(self, "counts", counted)
        object.__setattr__(self, "n_directions", optional(n_directions, "Numbers of directions", int, b.shape))
        object.__setattr__(self, "echo_times", times)

    @classmethod
    def from_files(
        cls, bval: Path | str, bvec: Path | str | None = None, sidecar: Path | str | None = None
    ) -> Acquisition:
        """The acquisition that the files beside an image describe.

        Parameters
        ----------
        bval : path
            b-values of the volumes, s/mm^2.
        bvec : path, optional
            Gradient directions, in FSL's layout or a row a volume; without it every b-value counts as one direction.
        sidecar : path, optional
            JSON file of the image, whose ``EchoTime`` (s) is used where it is there; echo times are held in ms.

        Raises
        ------
        UnusableInputError
            Where a file cannot be read, or the numbers of volumes disagree.
        """
        from bidsfit.bids.acquisitions import read_acquisition  # the rest of this module knows no files
        from bidsfit.bids.metadata import read_sidecar

        found = {} if sidecar is None else read_sidecar(Path(sidecar))
        return read_acquisition(Path(bval), None if bvec is None else Path(bvec), found)

    def __len__(self) -> int:
        return self.b_values.size

    def variable(self, name: str) -> NDArray[np.float64]:
        """Values of an independent variable of a model, in the units of the numerics.

        Parameters
        ----------
        name : {"b", "TE"}
            b in ms/um^2, TE in ms.
        """
        if name == "b":
            return self.b_values * 1e-3
        if name == "TE":
            if self.echo_times is None:
                raise ValueError("The model needs echo times, and this acquisition has none.")
            return self.echo_times
        raise ValueError(f"An acquisition has no variable {name!r}; it has 'b' and 'TE'.")

    @property
    def weights(self) -> NDArray[np.float64]:
        """Least-squares weights: the number of measurements behind each entry."""
        return np.ones(len(self)) if self.counts is None else self.counts.astype(float)

    @cached_property
    def shells(self) -> tuple[Shell, ...]:
        """Nominal shells in ascending order of b, then of echo time (see `SHELL_TOLERANCE`, `ECHO_TIME_TOLERANCE`)."""
        b = nominal(self.b_values, self.weights, SHELL_TOLERANCE, SHELL_TOLERANCE_ABSOLUTE)
        if self.echo_times is None:
            return tuple(self._shell(value, None, b == value) for value in np.unique(b))
        te = nominal(self.echo_times, self.weights, 0.0, ECHO_TIME_TOLERANCE)
        pairs = np.unique(np.column_stack([b, te]), axis=0)
        return tuple(self._shell(value, time, (b == value) & (te == time)) for value, time in pairs)

    def _shell(self, b_value: float, echo_time: float | None, members: NDArray[np.bool_]) -> Shell:
        indices = np.flatnonzero(members)
        if self.n_directions is not None:
            n_directions = int(self.n_directions[indices].max())
        elif self.directions is not None:
            n_directions = count_directions(self.directions[indices])
        else:
            n_directions = 1
        return Shell(
            b_value=float(b_value),
            indices=indices,
            n_measurements=int(self.weights[indices].sum()),
            n_directions=n_directions,
            echo_time=None if echo_time is None else float(echo_time),
        )

    def select(self, indices: ArrayLike) -> Acquisition:
        """The acquisition of some of its measurements, in the order given."""
        index = np.asarray(indices, dtype=np.intp)

        def pick(values: NDArray | None) -> NDArray | None:
            return None if values is None else values[index]

        return Acquisition(
            self.b_values[index],
            pick(self.directions),
            pick(self.counts),
            pick(self.n_directions),
            pick(self.echo_times),
        )


class DirectionAverage:
    """Average of the measurements of each shell (of all directions and repeats).

    The models of bidsfit do not depend on direction, so a least-squares fit of the arithmetic averages,
    weighted by the number of measurements, has the same solution as a fit of all the measurements.

    Parameters
    ----------
    acquisition : Acquisition
        Of the measurements, shape (n,).
    kind : {"arithmetic", "geometric", "none"}
        The geometric mean gives the trace-weighted signal; it is NaN where a signal is not positive.

    Attributes
    ----------
    acquisition : Acquisition
        Of the averages, one entry a shell.
    """

    def __init__(self, acquisition: Acquisition, kind: Averaging = "arithmetic") -> None:
        if kind not in ("arithmetic", "geometric", "none"):
            raise ValueError(f"Unknown average {kind!r}; valid: arithmetic, geometric, none.")
        self.kind = kind
        self._single = False
        if kind == "none":
            self.acquisition = acquisition
            return
        shells = acquisition.shells
        self._matrix = np.zeros((len(shells), len(acquisition)))
        weights = acquisition.weights
        for k, shell in enumerate(shells):
            self._matrix[k, shell.indices] = weights[shell.indices] / weights[shell.indices].sum()
        self._single = kind == "arithmetic" and np.array_equal(self._matrix, np.eye(len(acquisition)))
        self.acquisition = Acquisition(
            [shell.b_value for shell in shells],
            counts=[shell.n_measurements for shell in shells],
            n_directions=[shell.n_directions for shell in shells],
            echo_times=[shell.echo_time for shell in shells if shell.echo_time is not None] or None,
        )

    def __call__(self, signals: NDArray) -> NDArray:
        """Average signals of shape (..., n) to (..., n_shells)."""
        if self.kind == "none" or self._single:
            return signals
        if self.kind == "arithmetic":
            return self._weigh(signals)
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.exp(self._weigh(np.where(signals > 0, np.log(signals), np.nan)))

    def _weigh(self, values: NDArray) -> NDArray:
        """Weighted means of shells; `einsum`, because a matrix product starts threads of its own."""
        return np.einsum("...i,ki->...k", values, self._matrix)


def nominal(values: NDArray, weights: NDArray, relative: float, absolute: float) -> NDArray[np.float64]:
    """Values with each replaced by the weighted mean of its group.

    A group begins at the lowest value that is in none yet, and reaches as far above as the tolerance: the fraction
    ``relative`` of the value that is looked at, or ``absolute``.
    """
    means = np.empty(values.size)
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    start = 0
    for end in range(1, ordered.size + 1):
        if end == ordered.size or ordered[end] - ordered[start] > max(relative * ordered[end], absolute):
            group = np.sort(order[start:end])
            means[group] = np.average(values[group], weights=weights[group])
            start = end
    return means


def count_directions(directions: NDArray) -> int:
    """Number of different gradient directions, antipodes identified; at least 1."""
    known = directions[np.any(directions != 0, axis=1)]
    unit = known / np.abs(known).max(axis=1, keepdims=True)  # squares of very small numbers are 0
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    different, count = np.empty_like(unit), 0
    for direction in unit:
        if not np.any(np.abs(different[:count] @ direction) >= np.cos(np.deg2rad(SAME_DIRECTION))):
            different[count] = direction
            count += 1
    return max(count, 1)
