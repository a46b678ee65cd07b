"""What was measured: the variables of every measurement of one image.

A table with one row a measurement and named columns. b-values are held as acquired, in s/mm^2; the numerics work in
ms/um^2 (numbers near 1), and `Acquisition.variable` is the one place where that conversion happens.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

Averaging = Literal["arithmetic", "geometric", "none"]

#: Up to this b-value (s/mm^2) an image counts as one at b = 0: the gradients that form an image reach 1 or 2 by
#: themselves, and the smallest weightings of purpose (IVIM) are 5.
B0_TOLERANCE = 2.0

#: No scanner reaches higher b-values (s/mm^2): those of microimaging and spectroscopy stay below 1e5.
LARGEST_B = 1e6

#: Directions are near 1 long, or up to the b-value where they hold it.
LONGEST_DIRECTION = 1e6

#: Directions closer than this angle (degrees, antipodes identified) count as one.
SAME_DIRECTION = 1.0

#: Protocols of more shells than this are told by the ranges of their columns.
MOST_IN_WORDS = 60

#: Axes that directions refer to: those of the voxels as FSL's .bvec files have them, or those of the scanner.
Frame = Literal["bvec", "xyz"]


@dataclass(frozen=True)
class Column:
    """A variable of the measurement: one that models may depend on.

    Parameters
    ----------
    name : str
        As models and `Acquisition` name it.
    title : str
        In words, in the singular.
    unit : str
        Of the table.
    factor : float
        The numerics take ``factor`` times the values of the table.
    relative, absolute : float
        Two values are the same where they differ by no more than the fraction ``relative`` of the larger, or by
        ``absolute``.
    largest : float
        Values are from 0 to it.
    components : tuple of str
        Symbols in an equation, where they are not the name.
    field : str
        BIDS metadata that hold it: one number, or a list with one a volume.
    field_factor : float
        The table holds ``field_factor`` times the values of the field.
    decimals : int
        Of values in words.
    """

    name: str
    title: str
    unit: str = ""
    factor: float = 1.0
    relative: float = 0.0
    absolute: float = 0.0
    largest: float = np.inf
    components: tuple[str, ...] = ()
    field: str = ""
    field_factor: float = 1.0
    decimals: int = 1

    def listed(self, values: Iterable[float]) -> str:
        """Different values in ascending order, in words."""
        return ", ".join(f"{value:g}" for value in sorted({round(v, self.decimals) for v in values})) or "none"

    def in_words(self, values: Iterable[float]) -> str:
        """Its values with name and unit: "TE = 60, 80 ms"."""
        return f"{self.name} = {self.listed(values)} {self.unit}".rstrip()


#: The columns that have a unit and a tolerance; of others, values are the same where they are equal.
COLUMNS = {
    column.name: column
    for column in (
        # Scanners jitter by a few per cent; IVIM protocols hold values as close as 5 and 10 s/mm^2.
        Column("b", "b-value", "s/mm²", 1e-3, 0.08, 1.0, LARGEST_B, field="BValue", decimals=0),
        Column("direction", "direction", components=("gx", "gy", "gz")),
        Column("TE", "echo time", "ms", absolute=0.1, largest=1e4, field="EchoTime", field_factor=1e3),
        Column("TI", "inversion time", "ms", absolute=0.1, largest=1e5, field="InversionTime", field_factor=1e3),
        Column("TR", "repetition time", "ms", absolute=0.1, largest=1e6, field="RepetitionTimeExcitation",
               field_factor=1e3),
        Column("flip_angle", "flip angle", "degrees", absolute=0.1, largest=360, field="FlipAngle"),
        Column("diffusion_time", "diffusion time", "ms", absolute=0.1, largest=1e4, field="DiffusionTime",
               field_factor=1e3),
    )
}  # fmt: skip


def column_of(name: str) -> Column:
    """The column of that name; one that is not in `COLUMNS` has no unit."""
    return COLUMNS.get(name, Column(name, name.replace("_", " "), decimals=6))


@dataclass(frozen=True)
class Shell:
    """Measurements that are alike in every column but their direction.

    Attributes
    ----------
    values : dict of column to float
        Means of the values as acquired, in the units of the table; that of one b-value is the same at every echo time.
    indices : ndarray of int, shape (n_shell,)
        Which measurements of the acquisition belong to it.
    n_measurements : int
        How many single measurements it stands for.
    n_directions : int
        How many different gradient directions (1 where they are not known, or at b = 0).
    """

    values: Mapping[str, float]
    indices: NDArray[np.intp]
    n_measurements: int
    n_directions: int

    @property
    def b_value(self) -> float:
        """s/mm^2; 0 where nothing weights by diffusion."""
        return self.values.get("b", 0.0)


@dataclass(frozen=True, init=False)
class Acquisition:
    """What was measured: a table of one row a volume, with a column for each variable.

    Parameters
    ----------
    b_values : array_like, shape (n,), optional
        The column "b": b-values as acquired, s/mm^2, at most `LARGEST_B`. Without it nothing weights by diffusion.
    directions : array_like, shape (n, 3), optional
        Gradient directions. Length is ignored (up to `LONGEST_DIRECTION`); zero vectors are directions that are not
        known.
    counts : array_like of int, shape (n,), optional
        How many measurements were averaged into each entry (1 by default). Least squares weights by it.
    n_directions : array_like of int, shape (n,), optional
        How many directions were averaged into each entry, for data that come already averaged.
    frame : {"bvec", "xyz"}
        Axes of the directions.
    **columns : array_like, shape (n,)
        Other variables by name, in the units of `COLUMNS`: ``TE=[60, 80, 110]`` (ms).

    Attributes
    ----------
    columns : dict of name to ndarray, shape (n,)
        All columns but the directions, "b" first.

    Raises
    ------
    ValueError
        Where shapes disagree, or a value cannot be: a negative or infinite b-value, a direction that is not finite.

    Examples
    --------
    >>> Acquisition([0, 10, 100, 500, 800]).variable("b")
    array([0.  , 0.01, 0.1 , 0.5 , 0.8 ])
    >>> len(Acquisition(TI=[50, 400, 1600, 5000]))
    4
    """

    columns: dict[str, NDArray[np.float64]]
    directions: NDArray[np.float64] | None
    counts: NDArray[np.int64] | None
    n_directions: NDArray[np.int64] | None
    frame: Frame

    def __init__(
        self,
        b_values: ArrayLike | None = None,
        directions: ArrayLike | None = None,
        counts: ArrayLike | None = None,
        n_directions: ArrayLike | None = None,
        frame: Frame = "bvec",
        **columns: ArrayLike | None,
    ) -> None:
        given = {"b": b_values, **columns}
        table = {
            name: np.atleast_1d(np.asarray(values, dtype=float)) for name, values in given.items() if values is not None
        }
        if not table:
            raise ValueError("An acquisition needs at least one column, such as b-values; none was given.")
        first, shape = next((name, values.shape) for name, values in table.items())
        for name, values in table.items():
            _require_column(column_of(name), values)
            if values.shape != shape:
                raise ValueError(
                    f"{_plural(column_of(name))} must have shape {shape} to match the {column_of(first).title}s, found "
                    f"{values.shape}."
                )

        def optional(values: ArrayLike | None, name: str, dtype: type, shape: tuple[int, ...]) -> NDArray | None:
            if values is None:
                return None
            array: NDArray = np.asarray(values, dtype=dtype)
            if array.shape != shape:
                raise ValueError(
                    f"{name} must have shape {shape} to match the {column_of(first).title}s, found {array.shape}."
                )
            return array

        counted = optional(counts, "Counts", int, shape)
        if counted is not None and np.any(counted < 1):
            raise ValueError(f"Counts must be at least 1, found {counted.min()}.")
        vectors = optional(directions, "Directions", float, (*shape, 3))
        if vectors is not None and (wrong := ~(np.abs(vectors) <= LONGEST_DIRECTION)).any():
            raise ValueError(
                f"Directions must be finite and at most {LONGEST_DIRECTION:g} long, found {vectors[wrong][:5]}. Give "
                "zeros where they are not known."
            )
        if frame not in get_args(Frame):
            raise ValueError(f"The frame of directions is {' or '.join(get_args(Frame))}, found {frame!r}.")
        object.__setattr__(self, "columns", table)
        object.__setattr__(self, "directions", vectors)
        object.__setattr__(self, "counts", counted)
        object.__setattr__(self, "n_directions", optional(n_directions, "Numbers of directions", int, shape))
        object.__setattr__(self, "frame", frame)

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
            JSON file of the image. Fields such as ``EchoTime`` fill the columns of `COLUMNS` that have one.

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
        return int(next(iter(self.columns.values())).size)

    @property
    def b_values(self) -> NDArray[np.float64]:
        """b-values, s/mm^2; zeros where there is no such column."""
        return self.columns["b"] if "b" in self.columns else np.zeros(len(self))

    def variable(self, name: str) -> NDArray[np.float64]:
        """Values of an independent variable of a model, in the units of the numerics.

        Parameters
        ----------
        name : str
            Of a column: "b" gives ms/um^2, "TE" ms, and "direction" unit vectors, shape (n, 3), zero where they are not
            known.

        Raises
        ------
        ValueError
            Where the table has no such column.
        """
        if name == "direction" and self.directions is not None:
            return unit_vectors(self.directions)
        if name not in self.columns:
            title = column_of(name).title
            raise ValueError(f"The model needs {title}s ({name}), and this acquisition has none.")
        return self.columns[name] * column_of(name).factor

    @property
    def weights(self) -> NDArray[np.float64]:
        """Least-squares weights: the number of measurements behind each entry."""
        return np.ones(len(self)) if self.counts is None else self.counts.astype(float)

    @cached_property
    def shells(self) -> tuple[Shell, ...]:
        """Measurements that are alike but for their direction, in ascending order of their columns, b first."""
        names, weights = list(self.columns), self.weights
        nominal_ = np.column_stack(
            [
                nominal(values, weights, column_of(name).relative, column_of(name).absolute)
                for name, values in self.columns.items()
            ]
        )
        rows, members = np.unique(nominal_, axis=0, return_inverse=True)
        return tuple(
            self._shell(dict(zip(names, row.tolist(), strict=True)), np.flatnonzero(members.ravel() == k))
            for k, row in enumerate(rows)
        )

    def _shell(self, values: Mapping[str, float], indices: NDArray[np.intp]) -> Shell:
        if self.n_directions is not None:
            n_directions = int(self.n_directions[indices].max())
        elif self.directions is not None:
            n_directions = count_directions(self.directions[indices])
        else:
            n_directions = 1
        return Shell(values, indices, int(self.weights[indices].sum()), n_directions)

    def select(self, indices: ArrayLike) -> Acquisition:
        """The acquisition of some of its measurements, in the order given."""
        index = np.asarray(indices, dtype=np.intp)

        def pick(values: NDArray | None) -> NDArray | None:
            return None if values is None else values[index]

        columns: dict[str, Any] = {name: values[index] for name, values in self.columns.items()}
        return Acquisition(
            columns.pop("b", None),
            directions=pick(self.directions),
            counts=pick(self.counts),
            n_directions=pick(self.n_directions),
            frame=self.frame,
            **columns,
        )


def _plural(column: Column) -> str:
    """Its title at the beginning of a sentence."""
    return f"{column.title[0].upper()}{column.title[1:]}s" if column.name != "b" else "b-values"


def _require_column(column: Column, values: NDArray[np.float64]) -> None:
    """Refuse values that cannot be."""
    if values.ndim != 1 or values.size == 0:
        raise ValueError(f"{_plural(column)} must be a list of numbers, found an array of shape {values.shape}.")
    impossible = ~(np.isfinite(values) & (values >= (0 if column.name in COLUMNS else -np.inf)))
    impossible |= values > column.largest
    if impossible.any():
        limit = f", not negative and at most {column.largest:g} {column.unit}" if column.name in COLUMNS else ""
        raise ValueError(f"{_plural(column)} must be finite{limit}, found {values[impossible][:5]}.")


def unit_vectors(directions: NDArray[np.float64]) -> NDArray[np.float64]:
    """Directions of length 1; those that are zero stay zero."""
    largest = np.abs(directions).max(axis=-1, keepdims=True)
    # Squares of very small numbers are 0: components are divided by the largest first.
    scaled = np.divide(directions, largest, out=np.zeros_like(directions), where=largest > 0)
    length = np.linalg.norm(scaled, axis=-1, keepdims=True)
    return np.divide(scaled, length, out=scaled, where=length > 0)


def protocol_in_words(acquisition: Acquisition) -> str:
    """What differs between measurements and how often each was made: "b = 0 (x8), 1000 (x32) s/mm²"."""
    shells = acquisition.shells
    varying = [name for name in acquisition.columns if len({shell.values[name] for shell in shells}) > 1]
    names = varying or list(acquisition.columns)[:1]
    if len(shells) > MOST_IN_WORDS:
        ranges = [(column_of(name), acquisition.columns[name]) for name in names]
        words = [
            f"{c.name} = {round(v.min(), c.decimals):g} to {round(v.max(), c.decimals):g} {c.unit}".rstrip()
            for c, v in ranges
        ]
        return f"{len(acquisition)} measurements: {', '.join(words)}"
    first, *others = (column_of(name) for name in names)
    each = [
        " at ".join([first.listed([s.values[first.name]]), *(c.in_words([s.values[c.name]]) for c in others)])
        + f" (x{s.n_measurements})"
        for s in shells
    ]
    return f"{first.name} = {', '.join(each)} {first.unit}".rstrip()


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
    rows : ndarray of int, shape (n,)
        To which average each measurement belongs.
    """

    def __init__(self, acquisition: Acquisition, kind: Averaging = "arithmetic") -> None:
        if kind not in ("arithmetic", "geometric", "none"):
            raise ValueError(f"Unknown average {kind!r}; valid: arithmetic, geometric, none.")
        self.kind = kind
        self._single = False
        if kind == "none":
            self.acquisition, self.rows = acquisition, np.arange(len(acquisition))
            return
        shells = acquisition.shells
        self.rows = np.empty(len(acquisition), dtype=np.intp)
        self._matrix = np.zeros((len(shells), len(acquisition)))
        weights = acquisition.weights
        for k, shell in enumerate(shells):
            self.rows[shell.indices] = k
            self._matrix[k, shell.indices] = weights[shell.indices] / weights[shell.indices].sum()
        self._single = kind == "arithmetic" and np.array_equal(self._matrix, np.eye(len(acquisition)))
        columns: dict[str, Any] = {name: [shell.values[name] for shell in shells] for name in acquisition.columns}
        self.acquisition = Acquisition(
            columns.pop("b", None),
            counts=[shell.n_measurements for shell in shells],
            n_directions=[shell.n_directions for shell in shells],
            **columns,
        )

    def __call__(self, signals: NDArray, missing: NDArray[np.bool_] | None = None) -> NDArray:
        """Average signals of shape (..., n) to (..., n_shells).

        Parameters
        ----------
        signals : ndarray, shape (..., n)
        missing : ndarray of bool, shape (..., n), optional
            Signals that are left out; a shell that has no other is NaN.
        """
        if self.kind == "none" or self._single:
            return signals if missing is None else np.where(missing, np.nan, signals)
        if self.kind == "arithmetic":
            return self._weigh(signals, missing)
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.exp(self._weigh(np.where(signals > 0, np.log(signals), np.nan), missing))

    def _weigh(self, values: NDArray, missing: NDArray[np.bool_] | None) -> NDArray:
        """Weighted means of shells; `einsum`, because a matrix product starts threads of its own."""
        if missing is None:
            return np.einsum("...i,ki->...k", values, self._matrix)
        weights = np.einsum("...i,ki->...k", ~missing, self._matrix)
        with np.errstate(invalid="ignore"):
            return np.einsum("...i,ki->...k", np.where(missing, 0.0, values), self._matrix) / weights


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
    unit = unit_vectors(directions[np.any(directions != 0, axis=1)])
    different, count = np.empty_like(unit), 0
    for direction in unit:
        if not np.any(np.abs(different[:count] @ direction) >= np.cos(np.deg2rad(SAME_DIRECTION))):
            different[count] = direction
            count += 1
    return max(count, 1)
