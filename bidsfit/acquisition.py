"""Acquisitions: tables with one row per measurement and one column per variable.

b-values are stored as acquired, in s/mm^2. Computations use ms/um^2 (numbers near 1); `Acquisition.variable` is the
only place where they are converted.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args

import numba
import numpy as np
from numpy.typing import ArrayLike, NDArray

from bidsfit.compiling import cached
from bidsfit.directions import Sampling, sample

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

#: Errors of the mean of one fibre from this fraction of S0 on are told.
TOLD_ERROR = 0.01
#: A mean over directions needs so many that differ: with fewer, signals of order 2 are not told from a constant.
FEWEST_DIRECTIONS = 6
#: It may be as uneven (of order 2) as this after weighting, or as wrong for one fibre as this fraction of S0.
MOST_UNEVEN, MODERATE_ERROR = 0.2, 0.03

#: Protocols of more shells than this, and columns of more values, are told by their ranges.
MOST_IN_WORDS = 60

#: Scalar products of the columns of a basis may be wrong by so much.
ORTHONORMAL = 1e-3
#: Angular frequency of protons in a field: rad/ms for each microtesla.
GYROMAGNETIC_RATIO = 0.2675221874

#: Axes that directions refer to: those of the voxels as FSL's .bvec files have them, or those of the scanner.
Frame = Literal["bvec", "xyz"]


@dataclass(frozen=True)
class Column:
    """A variable of the measurements that models may depend on.

    Parameters
    ----------
    name : str
        Name in models and `Acquisition`.
    title : str
        Full name in the singular.
    unit : str
        Unit in the table.
    factor : float
        Factor from the unit of the table to the internal unit.
    relative, absolute : float
        Values are equal if they differ by at most the fraction ``relative`` of the larger, or by ``absolute``.
    largest : float
        Largest allowed value; the smallest is 0.
    components : tuple of str
        Symbols in equations, if they differ from the name.
    field : str
        BIDS metadata field with one number, or a list with one per volume.
    field_factor : float
        Factor from the unit of the field to that of the table.
    decimals : int
        Decimals in text.
    latex : str
        Symbol in equations as LaTeX, if it differs from the name.
    zero : bool
        Whether 0 in metadata is a value; of other columns, it is none.
    flag : bool
        Whether values are 1 for true and 0 for false, which metadata hold.
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
    latex: str = ""
    zero: bool = False
    flag: bool = False

    def listed(self, values: Iterable[float]) -> str:
        """Distinct values in ascending order, as text; of many, their range."""
        found = sorted({round(value, self.decimals) for value in values})
        if len(found) > MOST_IN_WORDS:
            return f"{found[0]:g} to {found[-1]:g} ({len(found)} values)"
        return ", ".join(f"{value:g}" for value in found) or "none"

    def in_unit(self, values: Collection[float]) -> str:
        """Values as `listed`, with the unit if there are any: "60, 80 ms"."""
        return f"{self.listed(values)} {self.unit}".rstrip() if len(values) else "none"

    def in_words(self, values: Collection[float]) -> str:
        """Values with name and unit: "TE = 60, 80 ms"."""
        return f"{self.short} = {self.in_unit(values)}"

    @property
    def short(self) -> str:
        """The name where it is a symbol, as b and TE are, else the title."""
        return self.name if len(self.name) == 1 or self.name.isupper() else self.title

    @property
    def plural(self) -> str:
        """The title in the plural."""
        return self.title[:-1] + "ies" if self.title.endswith("cy") else f"{self.title}s"

    @property
    def label(self) -> str:
        """Label of an axis, with the unit."""
        return f"{self.short} ({self.unit})" if self.unit else self.short


#: The columns that have a unit and a tolerance; of others, values are the same where they are equal.
COLUMNS = {
    column.name: column
    for column in (
        # Scanners jitter by a few per cent; IVIM protocols hold values as close as 5 and 10 s/mm^2.
        Column("b", "b-value", "s/mm²", 1e-3, 0.08, 1.0, LARGEST_B, field="BValue", decimals=0),
        Column("direction", "direction", components=("gx", "gy", "gz")),
        Column("TE", "echo time", "ms", absolute=0.1, largest=1e4, field="EchoTime", field_factor=1e3,
               latex=r"\mathrm{TE}"),
        Column("TI", "inversion time", "ms", absolute=0.1, largest=1e5, field="InversionTime", field_factor=1e3,
               latex=r"\mathrm{TI}", zero=True),
        Column("TD", "recovery delay", "ms", absolute=0.1, largest=1e5, field="RecoveryDelay", field_factor=1e3,
               latex=r"\mathrm{TD}"),
        Column("TR", "repetition time", "ms", absolute=0.1, largest=1e6, field="RepetitionTimeExcitation",
               field_factor=1e3, latex=r"\mathrm{TR}"),
        Column("TRP", "preparation repetition time", "ms", absolute=0.1, largest=1e6,
               field="RepetitionTimePreparation", field_factor=1e3, latex=r"\mathrm{TR}_p"),
        # Parts of NumberShots, which `bidsfit.bids.series` takes apart.
        Column("shots_before", "pre-centre shot count", largest=1e4,
               field="NumberShotsBefore", latex="n_-"),
        Column("shots_after", "post-centre shot count", largest=1e4,
               field="NumberShotsAfter", latex="n_+"),
        Column("flip_angle", "flip angle", "degrees", absolute=0.1, largest=360, field="FlipAngle", latex=r"\alpha",
               zero=True),
        # Of trains of pulses; the names of the fields are ours.
        Column("pulse_duration", "pulse duration", "ms", absolute=1e-3, largest=100, field="PulseDuration",
               field_factor=1e3, decimals=3, latex=r"T_\mathrm{RF}"),
        Column("crushed", "crusher state", largest=1, field="CrusherState", decimals=0, zero=True, flag=True),
        # Of saturation; the amplitude is the root mean square of B1, which `bidsfit.bids.series` finds.
        Column("offset", "offset frequency", "Hz", 2e-3 * np.pi, absolute=1.0, largest=1e6, field="MTOffsetFrequency",
               latex=r"\Delta"),
        Column("saturation", "saturation amplitude", "µT", GYROMAGNETIC_RATIO, absolute=0.005, largest=100,
               field="MTB1RMS", decimals=2, latex=r"\omega_1", zero=True),
        Column("diffusion_time", "diffusion time", "ms", absolute=0.1, largest=1e4, field="DiffusionTime",
               field_factor=1e3),
    )
}  # fmt: skip


def column_of(name: str) -> Column:
    """The column of that name; names that are not in `COLUMNS` have no unit."""
    return COLUMNS.get(name, Column(name, name.replace("_", " "), decimals=6))


@dataclass(frozen=True)
class Shell:
    """Measurements that agree in every column except direction.

    Attributes
    ----------
    values : dict of column to float
        Mean values as acquired, in the units of the table; that of one b-value is the same at every echo time.
    indices : ndarray of int, shape (n_shell,)
        Indices of its measurements.
    n_measurements : int
        Number of single measurements it stands for.
    n_directions : int
        Number of distinct gradient directions (1 if unknown, or at b = 0).
    """

    values: Mapping[str, float]
    indices: NDArray[np.intp]
    n_measurements: int
    n_directions: int

    @property
    def b_value(self) -> float:
        """b-value, s/mm^2; 0 without diffusion weighting."""
        return self.values.get("b", 0.0)


@dataclass(frozen=True, init=False)
class Acquisition:
    """Measurements of an image: a table with one row per volume and one column per variable.

    Parameters
    ----------
    b_values : array_like, shape (n,), optional
        b-values as acquired, s/mm^2, at most `LARGEST_B`; omitted without diffusion weighting.
    directions : array_like, shape (n, 3), optional
        Gradient directions. Their length (up to `LONGEST_DIRECTION`) is ignored; zero vectors mean unknown.
    counts : array_like, shape (n,), optional
        Number of measurements averaged into each entry (1 by default), used as least-squares weights. Of a weighted
        mean, the number whose plain mean has the same noise.
    n_directions : array_like of int, shape (n,), optional
        Number of directions averaged into each entry, for data that are already averaged.
    frame : {"bvec", "xyz"}
        Coordinate frame of the directions.
    frames : Acquisition, optional
        Measurements that only combinations of are known: of the coefficients of a fingerprint, the repetitions of the
        train of pulses. Nothing is known of a combination beside its number, the column ``coefficient``.
    basis : array_like of complex, shape (n_frames, n), optional
        Orthonormal columns, one for each combination: what is measured is their scalar product with the signals of the
        frames, the conjugate of the basis times the signals. The noise of a combination is that of a frame.
    **columns : array_like, shape (n,)
        Other variables by name, in the units of `COLUMNS`: ``TE=[60, 80, 110]`` (ms).

    Attributes
    ----------
    columns : dict of name to ndarray, shape (n,)
        All columns except the directions, "b" first.

    Raises
    ------
    ValueError
        If shapes disagree or a value is invalid, such as a negative b-value or a non-finite direction.

    Examples
    --------
    >>> Acquisition([0, 10, 100, 500, 800]).variable("b")
    array([0.  , 0.01, 0.1 , 0.5 , 0.8 ])
    >>> len(Acquisition(TI=[50, 400, 1600, 5000]))
    4
    """

    columns: dict[str, NDArray[np.float64]]
    directions: NDArray[np.float64] | None
    counts: NDArray[np.float64] | None
    n_directions: NDArray[np.int64] | None
    frame: Frame
    frames: Acquisition | None
    basis: NDArray[np.complex128]

    def __init__(
        self,
        b_values: ArrayLike | None = None,
        directions: ArrayLike | None = None,
        counts: ArrayLike | None = None,
        n_directions: ArrayLike | None = None,
        frame: Frame = "bvec",
        frames: Acquisition | None = None,
        basis: ArrayLike | None = None,
        **columns: ArrayLike | None,
    ) -> None:
        given = {"b": b_values, **columns}
        combinations = np.empty((0, 0), dtype=complex)
        if frames is not None:
            combinations = require_basis(np.asarray(basis, dtype=complex), len(frames))
            given.setdefault("coefficient", np.arange(1.0, combinations.shape[1] + 1))
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
                    f"{_plural(column_of(name))} must have shape {shape} to match the {column_of(first).plural}, found "
                    f"{values.shape}."
                )

        def optional(values: ArrayLike | None, name: str, dtype: type, shape: tuple[int, ...]) -> NDArray | None:
            if values is None:
                return None
            array: NDArray = np.asarray(values, dtype=dtype)
            if array.shape != shape:
                raise ValueError(
                    f"{name} must have shape {shape} to match the {column_of(first).plural}, found {array.shape}."
                )
            return array

        counted = optional(counts, "Counts", float, shape)
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
        if frames is not None and shape != combinations.shape[1:]:
            raise ValueError(f"A basis of {combinations.shape[1]} columns has as many measurements, found {shape[0]}.")
        object.__setattr__(self, "frames", frames)
        object.__setattr__(self, "basis", combinations)

    @classmethod
    def from_files(
        cls, bval: Path | str, bvec: Path | str | None = None, sidecar: Path | str | None = None
    ) -> Acquisition:
        """Read the acquisition from the files that belong to an image.

        Parameters
        ----------
        bval : path
            b-values of the volumes, s/mm^2.
        bvec : path, optional
            Gradient directions, in FSL's layout or one row per volume; without it every b-value counts as one
            direction.
        sidecar : path, optional
            JSON file; fields such as ``EchoTime`` fill the columns of `COLUMNS` that have one.

        Raises
        ------
        UnusableInputError
            If a file cannot be read, or numbers of volumes disagree.
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
        """Values of a variable in internal units.

        "b" is in ms/um^2, "TE" in ms; "direction" gives unit vectors, shape (n, 3), zero where unknown.

        Raises
        ------
        ValueError
            If there is no such column.
        """
        if name == "direction" and self.directions is not None:
            return unit_vectors(self.directions)
        if name not in self.columns:
            raise ValueError(f"The model needs {column_of(name).plural} ({name}), and this acquisition has none.")
        return self.columns[name] * column_of(name).factor

    @property
    def weights(self) -> NDArray[np.float64]:
        """Least-squares weights: number of measurements behind each entry."""
        return np.ones(len(self)) if self.counts is None else self.counts

    @property
    def axes(self) -> NDArray[np.float64]:
        """Unit vectors (n, 3) along which the measurements with diffusion weighting were made."""
        return self.variable("direction")[self.b_values > B0_TOLERANCE]

    @cached_property
    def shells(self) -> tuple[Shell, ...]:
        """Groups of measurements that differ only in direction, in ascending order of their columns, b first."""
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
        return Shell(values, indices, round(self.weights[indices].sum()), n_directions)

    @cached_property
    def samplings(self) -> tuple[Sampling | None, ...]:
        """The even mean over the directions of each shell; None at b = 0, or where a direction is not known."""
        return tuple(map(self._sampling, self.shells))

    def _sampling(self, shell: Shell) -> Sampling | None:
        if self.directions is None or shell.b_value <= B0_TOLERANCE:
            return None
        directions = unit_vectors(self.directions[shell.indices])
        if not directions.any(axis=1).all():
            return None
        return sample(directions, self.weights[shell.indices], shell.b_value * COLUMNS["b"].factor)

    @cached_property
    def without_mean(self) -> dict[int, str]:
        """Shells whose directions give no mean over the sphere, by index, and why, in words."""
        found = {}
        for k, (shell, sampling) in enumerate(zip(self.shells, self.samplings, strict=True)):
            if sampling is None or sampling.error <= MODERATE_ERROR:
                continue
            few = shell.n_directions < FEWEST_DIRECTIONS
            if few or sampling.unevenness() > MOST_UNEVEN:
                n = f"{shell.n_directions} direction{'s' * (shell.n_directions > 1)}"
                found[k] = f"b = {shell.b_value:.0f} s/mm² ({n}{'' if few else ' near a plane'})"
        return found

    def select(self, indices: ArrayLike) -> Acquisition:
        """The acquisition with some of its measurements, in the given order."""
        index = np.asarray(indices, dtype=np.intp)
        if np.array_equal(index, np.arange(len(self))):
            return self  # with the shells and weights that it has found

        def pick(values: NDArray | None) -> NDArray | None:
            return None if values is None else values[index]

        columns: dict[str, Any] = {name: values[index] for name, values in self.columns.items()}
        return Acquisition(
            columns.pop("b", None),
            directions=pick(self.directions),
            counts=pick(self.counts),
            n_directions=pick(self.n_directions),
            frame=self.frame,
            frames=self.frames,
            basis=self.basis[:, index] if self.frames is not None else None,
            **columns,
        )


def require_basis(basis: NDArray[np.complex128], n_frames: int) -> NDArray[np.complex128]:
    """Raise `ValueError` for a basis that does not fit the frames, or whose columns are not orthonormal."""
    if basis.ndim != 2 or len(basis) != n_frames or not 0 < basis.shape[1] <= n_frames:
        raise ValueError(
            f"A basis has a row for each of the {n_frames} frames, and at most as many columns; found the shape "
            f"{basis.shape}."
        )
    off = np.abs(basis.conj().T @ basis - np.eye(basis.shape[1])).max()
    if not off <= ORTHONORMAL:
        raise ValueError(
            f"The columns of a basis are orthonormal, so that the noise of all coefficients is that of a frame; the "
            f"scalar products of these differ from that by up to {off:.2g}."
        )
    return basis


def _plural(column: Column) -> str:
    """Title of a column, capitalised, in the plural."""
    return f"{column.plural[0].upper()}{column.plural[1:]}" if column.name != "b" else column.plural


def _require_column(column: Column, values: NDArray[np.float64]) -> None:
    """Raise `ValueError` for invalid values of a column."""
    if values.ndim != 1 or values.size == 0:
        raise ValueError(f"{_plural(column)} must be a list of numbers, found an array of shape {values.shape}.")
    impossible = ~(np.isfinite(values) & (values >= (0 if column.name in COLUMNS else -np.inf)))
    impossible |= values > column.largest
    if impossible.any():
        limit = f", not negative and at most {column.largest:g} {column.unit}" if column.name in COLUMNS else ""
        raise ValueError(f"{_plural(column)} must be finite{limit}, found {values[impossible][:5]}.")


def unit_vectors(directions: NDArray[np.float64]) -> NDArray[np.float64]:
    """Directions normalised to length 1; zero vectors stay zero."""
    largest = np.abs(directions).max(axis=-1, keepdims=True)
    # Squares of very small numbers are 0: components are divided by the largest first.
    scaled = np.divide(directions, largest, out=np.zeros_like(directions), where=largest > 0)
    length = np.linalg.norm(scaled, axis=-1, keepdims=True)
    return np.divide(scaled, length, out=scaled, where=length > 0)


def protocol_in_words(acquisition: Acquisition) -> str:
    """Values that differ between measurements, with counts: "b = 0 (x8), 1000 (x32) s/mm²"."""
    shells = acquisition.shells
    varying = [name for name in acquisition.columns if len({shell.values[name] for shell in shells}) > 1]
    names = varying or list(acquisition.columns)[:1]
    if len(shells) > MOST_IN_WORDS:
        ranges = [(column_of(name), acquisition.columns[name]) for name in names]
        words = [
            f"{c.short} = {round(v.min(), c.decimals):g} to {round(v.max(), c.decimals):g} {c.unit}".rstrip()
            for c, v in ranges
        ]
        return f"{len(acquisition)} measurements: {', '.join(words)}"
    first, *others = (column_of(name) for name in names)
    each = [
        " at ".join([first.listed([s.values[first.name]]), *(c.in_words([s.values[c.name]]) for c in others)])
        + f" (x{s.n_measurements})"
        for s in shells
    ]
    return f"{first.short} = {', '.join(each)} {first.unit}".rstrip()


def sampling_in_words(acquisition: Acquisition) -> str:
    """Shells whose means are weighted, or not even; empty if there are none."""
    words = []
    for k, (shell, sampling) in enumerate(zip(acquisition.shells, acquisition.samplings, strict=True)):
        if sampling is None or k in acquisition.without_mean or (sampling.is_plain and sampling.error < TOLD_ERROR):
            continue
        weighted = "" if sampling.is_plain else f", weighted to be even, with the noise of {sampling.n_effective:.0f}"
        words.append(
            f"b = {shell.b_value:.0f} s/mm² ({shell.n_measurements} measurements in {shell.n_directions} directions"
            f"{weighted}; the mean of one fibre errs by {100 * sampling.error:.1f} % of S0)"
        )
    return ", ".join(words)


class DirectionAverage:
    """Averages over the measurements of each shell (all directions and repeats).

    For a model that does not depend on direction, a least-squares fit of the arithmetic averages, weighted by the
    number of measurements, has the same solution as a fit of all measurements. A model of the mean over all directions
    needs averages that are even over the sphere.

    Parameters
    ----------
    acquisition : Acquisition
        Of the measurements, shape (n,).
    kind : {"arithmetic", "geometric", "none"}
        The geometric mean gives the trace-weighted signal; it is NaN if a signal is not positive.
    even : bool
        Whether arithmetic means are weighted so that they are even over the sphere (see `bidsfit.directions`). Their
        noise is larger then, and their counts are smaller.

    Attributes
    ----------
    acquisition : Acquisition
        Of the averages, one entry a shell.
    rows : ndarray of int, shape (n,)
        Index of the average that each measurement belongs to.
    samplings : tuple of Sampling or None
        How the directions of each average sample the sphere, for even means over known directions; else empty.
    """

    samplings: tuple[Sampling | None, ...] = ()

    def __init__(self, acquisition: Acquisition, kind: Averaging = "arithmetic", *, even: bool = False) -> None:
        if kind not in ("arithmetic", "geometric", "none"):
            raise ValueError(f"Unknown average {kind!r}; valid: arithmetic, geometric, none.")
        self.kind = kind
        self._single = False
        if kind == "none":
            self.acquisition, self.rows = acquisition, np.arange(len(acquisition))
            return
        shells = acquisition.shells
        if even and kind == "arithmetic":
            self.samplings = acquisition.samplings
        self.rows = np.empty(len(acquisition), dtype=np.intp)
        self._matrix = np.zeros((len(shells), len(acquisition)))
        weights = acquisition.weights
        counts = [float(shell.n_measurements) for shell in shells]
        for k, shell in enumerate(shells):
            self.rows[shell.indices] = k
            self._matrix[k, shell.indices] = weights[shell.indices] / weights[shell.indices].sum()
            sampling = self.samplings[k] if self.samplings else None
            if sampling is not None and not sampling.is_plain:
                self._matrix[k, shell.indices], counts[k] = sampling.weights, sampling.n_effective
        self._single = kind == "arithmetic" and np.array_equal(self._matrix, np.eye(len(acquisition)))
        columns: dict[str, Any] = {name: [shell.values[name] for shell in shells] for name in acquisition.columns}
        self.acquisition = Acquisition(
            columns.pop("b", None),
            counts=counts,
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
        if missing is None and values.ndim == 2 and values.dtype == np.float64:
            means, shares = (
                np.zeros((len(values), len(self._matrix))),
                self._matrix[self.rows, np.arange(self.rows.size)],
            )
            _add(np.require(values, requirements=("C", "W")), self.rows, shares, means)
            return means
        if missing is None:
            return np.einsum("...i,ki->...k", values, self._matrix)
        weights = np.einsum("...i,ki->...k", ~missing, self._matrix)
        with np.errstate(invalid="ignore"):
            return np.einsum("...i,ki->...k", np.where(missing, 0.0, values), self._matrix) / weights


@cached
@numba.njit(nogil=True)
def _add(values: NDArray, rows: NDArray, weights: NDArray, sums: NDArray) -> None:
    """Add every column of the values, shape (n, m), times its weight to a column of the sums: that of ``rows``."""
    for v in range(values.shape[0]):
        for i in range(values.shape[1]):
            sums[v, rows[i]] += weights[i] * values[v, i]


def nominal(values: NDArray, weights: NDArray, relative: float, absolute: float) -> NDArray[np.float64]:
    """Replace each value by the weighted mean of its group.

    A group starts at the lowest value that is in no group yet and extends by the tolerance: the fraction ``relative``
    of the value in question, or ``absolute``.
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


def same_directions(directions: NDArray) -> NDArray[np.bool_]:
    """Whether two gradient directions are equal, shape (n, n); opposite ones are, and zero ones equal none."""
    unit = unit_vectors(directions)
    return np.abs(unit @ unit.T) >= np.cos(np.deg2rad(SAME_DIRECTION))


def count_directions(directions: NDArray) -> int:
    """Number of distinct gradient directions, at least 1; opposite directions are equal."""
    known = directions[np.any(directions != 0, axis=1)]
    same, left, count = same_directions(known), np.ones(len(known), dtype=bool), 0
    while left.any():
        left &= ~same[np.argmax(left)]
        count += 1
    return max(count, 1)
