"""The interface of all estimators: `Estimator.estimate` returns an `Estimate`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field, replace
from enum import IntEnum
from functools import cache
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from bidsfit.acquisition import Acquisition, Averaging
from bidsfit.estimators.averages import Averages
from bidsfit.exceptions import UnsupportedProtocolError
from bidsfit.information import bound_of_voxels
from bidsfit.models.signal_model import SignalModel, as_real
from bidsfit.models.space import bounds_of
from bidsfit.noise import NoiseKind, known_noise
from bidsfit.parallel import Progress

#: Voxels that one thread works on at a time: large enough to hide Python, small enough for the cache.
CHUNK = 8192
#: The same where a device fits them: its steps take nearly as long for few voxels as for many.
CHUNK_OF_DEVICE = 1 << 18
#: Share of an average from which on the error that uneven directions leave in it, where larger than its noise, is told.
UNEVEN = 0.02
#: Signals of reference that are not above it are no signal: the square of a fainter one is 0.
FAINTEST = 1e-150
#: No measurement has less noise than this fraction of the signal of reference, however well a model fits.
LEAST_NOISE = 1e-6
#: Probability that an interval holds the truth.
LEVEL = 0.95

#: How the 95 % interval of a parameter is found: from its standard deviation, from the profile of the likelihood, from
#: the posterior distribution, from simulations of the estimator, or not at all.
Intervals = Literal["wald", "profile", "posterior", "conformal", "none"]

#: Methods that BEP016 has a word for.
FitMethod = Literal["", "ols", "wls", "iwls", "nlls"]


class Status(IntEnum):
    """Outcome of the fit of a voxel. The message describes it and recommends what to do."""

    message: str

    def __new__(cls, value: int, message: str = "") -> Status:
        member = int.__new__(cls, value)
        member._value_ = value
        member.message = message
        return member

    NOT_FITTED = 0, "outside the mask: not fitted"
    CONVERGED = 1, "fitted inside the bounds"
    AT_BOUND = 2, "converged with a parameter at its bound: the data do not determine it; read its value as a limit"
    ITERATION_LIMIT = 3, "stopped at the iteration limit: the values may not be the best; treat with care"
    NOT_FINITE = 4, "NaN or infinite signal (or a signal not positive in a geometric mean): not fitted, maps hold NaN"
    NO_SIGNAL = 5, "no positive signal to refer to (at the lowest b-value): not fitted, maps hold NaN; check the mask"
    NO_NOISE = 6, "the noise level is not known here (not a positive number): not fitted, maps hold NaN; check its map"
    PRIOR_ONLY = 7, "the data say no more of a parameter than its prior: its value is that of the prior"
    UNLIKE_TRAINING = (
        8,
        "the signal lies farther from that of its estimate than those of the training do: the value is drawn towards "
        "what was trained on",
    )
    MISSING = 9, "a measurement is missing (exactly 0 where others are positive): not fitted, maps hold NaN"
    UNDETERMINED = (
        10,
        "the data do not determine a parameter: its value may be off by more than its whole range; do not read it (its "
        "standard deviation and interval tell which it is), fix it with bounds, or fit a simpler model",
    )
    UNEVEN_DIRECTIONS = (
        11,
        "the few or uneven directions of a shell leave an error in its mean that is larger than the noise: the "
        "standard deviation holds it; measure more directions, spread over the sphere",
    )
    IMPLAUSIBLE = (
        12,
        "no tissue has these values (a negative diffusivity, FA above 1): noise, motion or an artefact outweighs the "
        "signal; do not read them",
    )
    OUTSIDE_BOUNDS = (
        13,
        "a parameter lies outside its bounds, which this network does not keep: read its value as a limit, or take an "
        "estimator that keeps them",
    )


#: Voxels that hold an estimate.
FITTED = (
    Status.CONVERGED,
    Status.AT_BOUND,
    Status.ITERATION_LIMIT,
    Status.PRIOR_ONLY,
    Status.UNLIKE_TRAINING,
    Status.UNDETERMINED,
    Status.UNEVEN_DIRECTIONS,
    Status.IMPLAUSIBLE,
    Status.OUTSIDE_BOUNDS,
)
#: Voxels whose estimate lies inside the bounds, and was drawn nowhere.
INSIDE = (Status.CONVERGED, Status.UNDETERMINED)


class Signals(Protocol):
    """Signals of shape (n_voxels, n_measurements): an array, or any object that yields rows by slice.

    A view of an image on disk qualifies, so that an image need not be copied to be fitted.
    """

    @property
    def shape(self) -> tuple[int, ...]: ...

    def __getitem__(self, rows: slice, /) -> Any: ...


@dataclass(frozen=True, repr=False)
class Estimate:
    """Result of an estimator.

    Attributes
    ----------
    parameters : dict of name to ndarray, shape (...)
        In the units of the parameter table; NaN where a voxel could not be fitted. All arrays have the shape of the
        signals without the last dimension: (n_voxels,) or (x, y, z).
    status : ndarray of uint8, shape (...)
        Codes of `Status`.
    rmse : ndarray, shape (...)
        Root mean square of the residuals of the fitted signals, weighted as the fit was, in signal units.
    r2 : ndarray, shape (...)
        Coefficient of determination of the fitted signals, weighted as the fit was.
    sigma : ndarray, shape (...)
        Standard deviation of the noise of a single measurement, from the residuals.
    freedom : int
        Fitted signals minus estimated parameters. If it is 0 the curve passes through every point, and ``rmse``, ``r2``
        and ``sigma`` are NaN.
    acquisition : Acquisition
        The acquisition after averaging and selection.
    statistics : dict of statistic to dict of name to ndarray, shape (...)
        Uncertainty that only the estimator knows: one array per parameter for each key of `Estimator.statistics`. For a
        posterior "sd" is the standard deviation; "q025" and "q975" bound the central 95 % interval.
        `bidsfit.companions` adds what can be computed for any estimate.
    notes : dict
        Quantities derived from the data that shaped the estimate, such as a fitted prior, and the "Device" that
        estimated it where there was one; for sidecars (JSON).
    units : dict of name to str
        Units of parameters and derived quantities.
    derived : dict of name to ndarray, shape (...) or (..., 3)
        Derived quantities (`SignalModel.derived`).
    added_variance : ndarray, shape (..., n_averages), or None
        What is added to the variance of the noise of every average, in squared signal units: by the directions of a
        shell, and by the removal of the Rician bias (`bidsfit.estimators.averages.Averaged`). None where there is
        neither.
    """

    parameters: dict[str, NDArray[np.float64]]
    status: NDArray[np.uint8]
    rmse: NDArray[np.float64]
    r2: NDArray[np.float64]
    sigma: NDArray[np.float64]
    freedom: int
    acquisition: Acquisition
    statistics: dict[str, dict[str, NDArray[np.float64]]] = field(default_factory=dict)
    notes: dict[str, Any] = field(default_factory=dict)
    units: dict[str, str] = field(default_factory=dict)
    derived: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    added_variance: NDArray[np.float64] | None = None

    @property
    def points(self) -> NDArray[np.float64]:
        """All parameters in the order of the model, shape (..., n_parameters)."""
        return np.stack(list(self.parameters.values()), axis=-1)

    def __repr__(self) -> str:
        """Table of the fitted voxels: median and percentiles of each parameter, and counts of the statuses."""
        sd = self.statistics.get("sd", {})
        rows: list[Sequence[str]] = [("parameter", "unit", "median", "5 %", "95 %", *(["median sd"] if sd else []))]
        fitted = np.isin(self.status, FITTED)
        for name, values in self.values.items():
            numbers = [
                *_percentiles(values[fitted], 50, 5, 95),
                *(_percentiles(sd[name][fitted] if name in sd else np.empty(0), 50) if sd else []),
            ]
            rows.append((name, self.units.get(name, ""), *(f"{number:.4g}" for number in numbers)))
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = [
            "  ".join(
                cell.ljust(width) if i < 2 else cell.rjust(width)
                for i, (cell, width) in enumerate(zip(row, widths, strict=True))
            )
            for row in rows
        ]
        counts = [f"{n:,} {'voxel' if n == 1 else 'voxels'}: {status.message}" for status, n in self.count().items()]
        title = f"Estimate of {' x '.join(map(str, self.status.shape))} voxels; percentiles over the fitted ones"
        return "\n".join([title, *lines, *counts])

    def placed(self, mask: NDArray[np.bool_]) -> Estimate:
        """The estimate as maps: its rows fill the voxels of ``mask``; other voxels are NaN and not fitted."""

        def place(values: NDArray, outside: float = np.nan) -> NDArray:
            found = np.full((*mask.shape, *values.shape[1:]), outside, dtype=values.dtype)
            found[mask] = values
            return found

        return replace(
            self,
            parameters={name: place(values) for name, values in self.parameters.items()},
            status=place(self.status, Status.NOT_FITTED),
            rmse=place(self.rmse),
            r2=place(self.r2),
            sigma=place(self.sigma),
            statistics={s: {name: place(v) for name, v in maps.items()} for s, maps in self.statistics.items()},
            derived={name: place(values) for name, values in self.derived.items()},
            added_variance=None if self.added_variance is None else place(self.added_variance),
        )

    @property
    def values(self) -> dict[str, NDArray[np.float64]]:
        """Parameters and scalar derived quantities (no axes) by name."""
        derived = {name: array for name, array in self.derived.items() if array.shape == self.status.shape}
        return self.parameters | derived

    def count(self) -> dict[Status, int]:
        """Number of voxels of each status that occurs."""
        codes, counts = np.unique(self.status, return_counts=True)
        return {Status(int(code)): int(n) for code, n in zip(codes, counts, strict=True)}


def _percentiles(values: NDArray[np.float64], *which: float) -> list[float]:
    known = values[~np.isnan(values)]
    return [float(np.percentile(known, share)) if known.size else np.nan for share in which]


class Fitted(NamedTuple):
    """Result of the fit of one chunk of voxels.

    Attributes
    ----------
    parameters : ndarray, shape (n, n_parameters)
    squares : ndarray, shape (n,)
        Weighted sums of squared residuals.
    status : ndarray of uint8, shape (n,)
    statistics : mapping of statistic to ndarray, shape (n, n_parameters)
        Those of `Estimator.statistics`.
    """

    parameters: NDArray[np.float64]
    squares: NDArray[np.float64]
    status: NDArray[np.uint8]
    statistics: Mapping[str, NDArray[np.float64]] = {}


#: Fits a chunk: signals (n, n_measurements) and noise standard deviations (n,), NaN where they are not known; of an
#: estimator that reads neighbours also where the voxels lie in the image, (n, 3); of one that takes it, with the
#: keyword ``variance``, what uneven directions add to the variance of every signal, (n, n_measurements).
FitChunk = Callable[..., Fitted]


class Estimator(ABC):
    """Base class of the methods that invert a signal model.

    A subclass implements `prepare`, which fits chunks of averaged signals. This class selects and averages the
    measurements, sets unusable voxels aside, distributes chunks over threads and computes fit statistics.

    Parameters
    ----------
    model : SignalModel
    bounds : dict of name to (lower, upper), optional
        Replace the bounds of the model, in the units of its parameter table.
    averaging : {"arithmetic", "geometric", "none"}
        How the measurements of a shell are averaged before the fit.
    debias : bool
        Take the Rician bias out of arithmetic means of shells (`bidsfit.estimators.debiasing`); without them, replace
        every magnitude by the amplitude whose Rician mean it is. For estimators that assume Gaussian noise; needs the
        standard deviation of the noise.
    """

    name: str
    title: str
    references: tuple[str, ...] = ()
    #: What BEP016 calls its method (``FitMethod``); empty where it is none of these.
    fit_method: FitMethod = ""
    #: What it alone can tell of its uncertainty, such as the width of a posterior: keys of `Estimate.statistics`.
    statistics: tuple[str, ...] = ()
    #: Whether it can also tell the standard deviation of derived quantities (`derived_spread`), without a likelihood.
    states_derived: bool = False
    #: Whether it needs the compiled kernel of a `SymbolicModel`.
    needs_equation: bool = False
    #: Noise whose likelihood it maximises: its standard deviation is then the Cramér-Rao bound. None: no likelihood.
    likelihood: NoiseKind | None = None
    #: How its 95 % intervals are found; "wald" takes its likelihood or the "sd" of its statistics, "conformal" its
    #: simulated performance.
    intervals: Intervals = "conformal"
    #: Whether it learns a prior from the voxels that it is given, so that other voxels make it another estimator.
    learns: bool = False
    #: Whether it takes a hundred times as long as others, so that little of it is simulated.
    costly: bool = False
    #: Whether the standard deviation of the noise must be given.
    needs_noise: bool = False
    #: Whether its fit takes what uneven directions add to the variance of the averages (`FitChunk`).
    takes_variance: bool = False
    #: Whether estimates stay within the bounds; those of some networks do not (`Status.OUTSIDE_BOUNDS`).
    keeps_bounds: bool = True
    #: Directions of a shell that are enough where the model asks for more; None: as many as the model asks for.
    enough_directions: int | None = None
    #: Voxels that one thread works on at a time.
    chunk: int = CHUNK
    #: torch device that fits all voxels together; None: the processor, with compiled code where the model has it.
    device: str | None = None
    #: Neighbours on each side of a voxel, along x, y and z, whose signals its estimate takes in; none: it reads rows.
    reach: tuple[int, int, int] = (0, 0, 0)

    def __init__(
        self,
        model: SignalModel,
        *,
        bounds: Mapping[str, tuple[float, float]] | None = None,
        averaging: Averaging = "arithmetic",
        debias: bool = False,
    ) -> None:
        if self.needs_equation and not (model.compiled and model.scale):
            raise ValueError(
                f"The estimator {self.name!r} needs a model that is an equation with a scale, and {model.name!r} is "
                "none. Take lsq, mle or a trained estimator."
            )
        if bounds and model.scale is not None and model.scale in bounds:
            raise ValueError(f"Bounds of {model.scale!r} would depend on the scale of the image; leave them out.")
        self.model = model
        self.bounds = bounds_of(model, bounds)
        self.averaging: Averaging = averaging if model.averaged else "none"
        self.debias = debias
        self.needs_noise = self.needs_noise or debias

    @property
    def surroundings(self) -> str:
        """What its simulated errors are also averaged over, for descriptions of maps; empty without `reach`."""
        return " and surroundings (homogeneous, an edge, a lesion of one voxel)" if any(self.reach) else ""

    @property
    def options(self) -> dict[str, Any]:
        """All choices that shaped the estimate, for sidecars and reports."""
        bounds = {
            name: tuple(pair)
            for name, pair in zip(self.model.names, self.bounds.tolist(), strict=True)
            if name != self.model.scale
        }
        choices = {"averaging": self.averaging, "debias": self.debias, "intervals": self.intervals}
        return choices | {"bounds": bounds} | ({} if self.keeps_bounds else {"keeps_bounds": False})

    def estimate(
        self,
        signals: Signals,
        acquisition: Acquisition,
        noise: float | NDArray[np.float64] | None = None,
        *,
        mask: NDArray | None = None,
        positions: NDArray[np.integer] | None = None,
        threads: int = 1,
        progress: Progress | None = None,
    ) -> Estimate:
        """Estimate the parameters of every voxel.

        Parameters
        ----------
        signals : array_like, shape (n_voxels, n_measurements) or (x, y, z, n_measurements)
            As measured, in any unit. Rows are read in chunks and never changed.
        acquisition : Acquisition
            Of the n_measurements.
        noise : float or ndarray, shape (n_voxels,) or (x, y, z), optional
            Standard deviation of the noise of one measurement (of one channel where it is Rician). Estimators that
            need it refuse to run without; others use it for their standard deviations, and the residuals where it is
            not given. In voxels where it is not a positive number, it is not known.
        mask : array_like, shape (n_voxels,) or (x, y, z), optional
            Only voxels where it is above 0 are estimated; by default all. An estimator that reads neighbours sees only
            voxels of the mask with a usable signal.
        positions : ndarray of int, shape (n_voxels, 3), optional
            Voxel indices in the image, for an estimator that reads neighbours and gets rows; sorted as in the image,
            with x or z changing slowest.
        threads : int
        progress : callable, optional
            Called with the fraction that is done.

        Returns
        -------
        Estimate
            Its arrays have the shape (n_voxels,) or (x, y, z); NaN outside the mask.

        Raises
        ------
        ValueError
            Shapes disagree, the mask is empty, or the estimator needs the noise and none is given.
        UnsupportedProtocolError
            The acquisition cannot support the model.
        """
        if not hasattr(signals, "shape"):
            signals = np.asarray(signals)
        if len(signals.shape) < 2 or signals.shape[-1] != len(acquisition):
            raise ValueError(
                f"Signals must have shape (n_voxels, {len(acquisition)}) or (x, y, z, {len(acquisition)}) for this "
                f"acquisition, found {signals.shape}."
            )
        grid = signals.shape[:-1]
        if noise is not None and np.ndim(noise) and np.shape(noise) != grid:
            raise ValueError(
                f"The noise must be one number, or of shape {grid} like the signals; found {np.shape(noise)}."
            )
        known = None if noise is None else known_noise(noise, grid)
        if mask is None and len(grid) == 1:
            return self._estimate_rows(signals, acquisition, known, positions, threads, progress)
        inside = np.full(grid, True) if mask is None else np.asarray(mask) > 0
        if inside.shape != grid or not inside.any():
            raise ValueError(
                f"The mask must have shape {grid} and hold voxels; found {inside.sum()} of {inside.shape}."
            )
        rows: NDArray = np.asarray(signals)
        rows = rows.reshape(-1, len(acquisition)) if mask is None else rows[inside]
        level = None if known is None else known[inside]
        if len(grid) == 3:
            positions = np.argwhere(inside) if any(self.reach) else None
        elif positions is not None:
            positions = positions[inside]
        return self._estimate_rows(rows, acquisition, level, positions, threads, progress).placed(inside)

    def _estimate_rows(
        self,
        signals: Signals,
        acquisition: Acquisition,
        noise: NDArray[np.float64] | None,
        positions: NDArray[np.integer] | None,
        threads: int,
        progress: Progress | None,
    ) -> Estimate:
        """Estimate the parameters of voxels in rows, see `estimate`."""
        lacking = self.lacking(acquisition)
        if lacking:
            raise UnsupportedProtocolError(
                f"The protocol does not support the model {self.model.name!r} with the estimator {self.name!r}. "
                f"Missing: {'; '.join(lacking)}."
            )
        if not any(self.reach):
            positions = None
        elif positions is None:
            raise ValueError(
                f"The estimator {self.name!r} reads the neighbours of a voxel: give the signals of an image, of shape "
                "(x, y, z, n), or say with `positions` where the voxels lie."
            )
        chosen, notes = self.adapted(signals, acquisition, noise)
        if chosen.needs_noise and noise is None:
            raise ValueError(f"The estimator {self.name!r} needs the standard deviation of the noise.")
        averages = chosen.averages(acquisition)
        averaged = averages.acquisition
        shells = self.model.average(averaged).acquisition if self.averaging == "none" else averaged
        fit = chosen.prepare(averaged)
        weights = np.tile(averaged.weights, 1 + self.model.complex_valued)
        n_voxels, n_parameters = signals.shape[0], len(self.model.parameters)
        known = np.full(n_voxels, np.nan) if noise is None else noise
        freedom = weights.size - self.n_free
        values = np.full((n_voxels, n_parameters), np.nan)
        status = np.empty(n_voxels, dtype=np.uint8)
        rmse, r2, sigma = (np.full(n_voxels, np.nan) for _ in range(3))
        statistics = {name: np.full((n_voxels, n_parameters), np.nan) for name in self.statistics}
        variance = np.zeros((n_voxels, len(averaged))) if averages.adds_variance else None

        def work(rows: slice, kept: slice) -> int:
            y, missing, added, directions = averages(signals[rows], known[rows])
            reference = self.model.reference_signal(y, averaged)
            finite = np.isfinite(y).all(axis=1)
            noiseless = ~np.isfinite(known[rows]) if chosen.needs_noise else np.zeros_like(finite)
            codes = np.select(
                [~(finite | missing), ~(reference > FAINTEST), missing & ~finite, noiseless],
                [Status.NOT_FINITE, Status.NO_SIGNAL, Status.MISSING, Status.NO_NOISE],
                0,
            )
            status[kept] = codes[kept.start - rows.start : kept.stop - rows.start]
            good = np.flatnonzero(codes == 0)
            if good.size:
                index = good + rows.start
                y, scale = as_real(y[good]), reference[good]
                where = () if positions is None else (positions[index],)
                extra = {}
                if chosen.takes_variance:
                    extra["variance"] = np.zeros(y.shape) if added is None else added[good] / scale[:, None] ** 2
                fitted = fit(y / scale[:, None], known[index] / scale, *where, **extra)
                own = slice(*np.searchsorted(index, (kept.start, kept.stop)).tolist())
                index, y, scale = index[own], y[own], scale[own]
                values[index], status[index] = fitted.parameters[own], fitted.status[own]
                if not chosen.keeps_bounds:
                    beyond = np.any((values[index] < self.bounds[:, 0]) | (values[index] > self.bounds[:, 1]), axis=1)
                    status[index[beyond & (status[index] == Status.CONVERGED)]] = Status.OUTSIDE_BOUNDS
                converged = np.flatnonzero(status[index] == Status.CONVERGED)
                residual = np.sqrt(fitted.squares[own] / freedom) if freedom > 0 else np.full(index.size, np.nan)
                level = np.fmax(np.where(np.isnan(known[index]), residual, known[index] / scale), LEAST_NOISE)
                lost = self._undetermined(fitted.parameters[own][converged], shells, level[converged])
                status[index[converged[lost]]] = Status.UNDETERMINED
                if self.model.plausible is not None:
                    settled = np.isin(status[index], (Status.CONVERGED, Status.AT_BOUND))
                    wrong = settled & ~self.model.plausible(fitted.parameters[own])
                    status[index[wrong]] = Status.IMPLAUSIBLE
                for name, array in statistics.items():
                    array[index] = fitted.statistics[name][own]
                if self.model.scale is not None:
                    for array in (values, *statistics.values()):
                        array[index, self.model.scale_index] *= scale
                if freedom > 0:
                    squares = fitted.squares[own] * scale**2
                    mean = np.einsum("ij,j->i", y, weights / weights.sum())  # unlike @, no threads of its own
                    total = np.einsum("ij,j->i", (y - mean[:, None]) ** 2, weights)
                    rmse[index] = np.sqrt(squares / weights.sum())
                    sigma[index] = np.sqrt(squares / freedom)
                    with np.errstate(divide="ignore", invalid="ignore"):
                        r2[index] = np.where(total > 0, 1 - squares / total, np.nan)
                if variance is not None and added is not None:
                    variance[index] = added[good[own]]
                if directions is not None:
                    directions = directions[good[own]]
                    level = np.where(np.isnan(known[index]), sigma[index], known[index])
                    uneven = (directions > level[:, None] ** 2 / averaged.weights) & (directions > (UNEVEN * y) ** 2)
                    status[index[uneven.any(axis=1) & (status[index] == Status.CONVERGED)]] = Status.UNEVEN_DIRECTIONS
            return kept.stop - kept.start

        with ThreadPoolExecutor(max(threads, 1)) as pool:
            done = 0
            for future in as_completed([pool.submit(work, *piece) for piece in self._pieces(n_voxels, positions)]):
                done += future.result()
                if progress is not None:
                    progress(done / n_voxels)
        return Estimate(
            parameters=dict(zip(self.model.names, values.T, strict=True)),
            status=status,
            rmse=rmse,
            r2=r2,
            sigma=sigma,
            freedom=max(freedom, 0),
            acquisition=averaged,
            statistics={name: dict(zip(self.model.names, array.T, strict=True)) for name, array in statistics.items()},
            notes=notes,
            units={quantity.name: quantity.unit for quantity in self.model.quantities},
            derived=self.model.derivation.values(values),
            added_variance=variance,
        )

    def averages(self, acquisition: Acquisition) -> Averages:
        """What averages the measurements that the model describes, as the fit takes them."""
        return Averages(self.model, acquisition, self.averaging, debias=self.debias)

    def _undetermined(
        self, parameters: NDArray[np.float64], acquisition: Acquisition, sigma: NDArray[np.float64]
    ) -> NDArray[np.bool_]:
        """In which voxels the Cramér-Rao bound of a parameter is infinite, or larger than the width of its bounds."""
        noise = self.likelihood or "gaussian"
        bound = bound_of_voxels(self.model, parameters, acquisition, sigma, noise, fixed=self.fixed)
        scalar = np.array([parameter.kind == "scalar" for parameter in self.model.parameters])
        width = self.bounds[:, 1] - self.bounds[:, 0]
        return np.asarray((np.isinf(bound) | (bound > width))[:, scalar].any(axis=1))

    def reference(self, signals: NDArray, acquisition: Acquisition, noise: NDArray) -> NDArray:
        """What the signals of every voxel are divided by before the fit, shape (n,); arguments as of `estimate`."""
        averages = self.averages(acquisition)
        return self.model.reference_signal(averages(signals, noise).signals, averages.acquisition)

    def _pieces(self, n_voxels: int, positions: NDArray[np.integer] | None) -> Iterator[tuple[slice, slice]]:
        """Slices of the rows to read at a time, and slices of those to estimate.

        They are the same unless the estimator reads neighbours. Then slabs of the image are read that overlap by its
        reach, each with the fewest layers that hold a chunk of voxels.
        """
        if positions is None:
            chunk = self.chunk if self.device is None else CHUNK_OF_DEVICE
            for start in range(0, n_voxels, chunk):
                rows = slice(start, min(start + chunk, n_voxels))
                yield rows, rows
            return
        ordered = [axis for axis in (2, 0) if np.all(np.diff(positions[:, axis]) >= 0)]
        if len(positions) != n_voxels or not ordered:
            raise ValueError("The places of the voxels must be as many as these, and in the order of the image.")
        layer, reach, stop = positions[:, ordered[0]], self.reach[ordered[0]], 0
        while stop < n_voxels:
            start, last = stop, layer[min(stop + self.chunk, n_voxels) - 1]
            stop = int(np.searchsorted(layer, last, side="right"))
            first, end = np.searchsorted(layer, [layer[start] - reach, last + reach + 1]).tolist()
            yield slice(first, end), slice(start, stop)

    def adapted(
        self, signals: Signals, acquisition: Acquisition, noise: float | NDArray[np.float64] | None
    ) -> tuple[Estimator, dict[str, Any]]:
        """The estimator adapted to the data of one call of `estimate`, and notes for sidecars on how it estimates.

        By default the estimator itself, and the device where it has one. A subclass that learns from the data returns a
        copy, as estimators do not change.
        """
        return self, {} if self.device is None else {"Device": self.device}

    def missing(self, acquisition: Acquisition) -> list[str]:
        """What the protocol lacks for this estimator, beyond the requirements of the model, in words."""
        return []

    def lacking(self, acquisition: Acquisition) -> list[str]:
        """What the protocol lacks for the model or else for this estimator, in words; empty if it can be fitted."""
        return list(self.model.support(acquisition, self.enough_directions).missing) or self.missing(acquisition)

    def averaged(self, acquisition: Acquisition) -> Acquisition:
        """The acquisition that is fitted: measurements that the model describes, averaged."""
        return self.averages(acquisition).acquisition

    def warm_up(self, acquisition: Acquisition) -> None:
        """Compile what an estimate of this acquisition needs, so that compilation is not timed with the estimate."""
        averages = self.averages(acquisition)
        averages(np.ones((1, len(acquisition))), np.full(1, 0.1))
        averaged = averages.acquisition
        n = len(averaged) * (1 + self.model.complex_valued)
        where = [np.zeros((1, 3), dtype=int)] if any(self.reach) else []
        extra = {"variance": np.zeros((1, n))} if self.takes_variance else {}
        self.prepare(averaged)(np.linspace(1.0, 0.5, n)[None], np.full(1, 0.1), *where, **extra)

    @property
    @abstractmethod
    def methods(self) -> str:
        """Description of the method, in sentences for the methods section of a paper."""

    @property
    def debiasing_in_words(self) -> str:
        """How ``debias`` works, for the methods text."""
        if self.averaging != "arithmetic":
            return "Every magnitude was replaced by the amplitude whose Rician mean it is."
        return (
            "The Rician bias of the mean of every shell, predicted from the amplitudes along its directions, was "
            "subtracted."
        )

    @property
    def fixed(self) -> tuple[str, ...]:
        """Names of the parameters whose bounds are equal; they are not estimated."""
        return tuple(name for name, (low, high) in zip(self.model.names, self.bounds, strict=True) if low == high)

    @property
    def n_free(self) -> int:
        """Number of parameters that are estimated."""
        return len(self.model.parameters) - len(self.fixed)

    def derived_spread(self, estimate: Estimate, noise: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
        """Standard deviations of derived quantities by name, of the shape of the estimate, where `states_derived`.

        ``noise``, of the same shape, is the standard deviation of one measurement.
        """
        raise NotImplementedError(f"The estimator {self.name!r} states none of derived quantities.")

    @abstractmethod
    def prepare(self, acquisition: Acquisition) -> FitChunk:
        """Return the function that fits chunks of voxels of one acquisition.

        The function takes signals of shape (n, n_measurements) and the standard deviation of their noise, shape (n,),
        and returns `Fitted`. Signals are finite and divided by the reference of the model, so about 1 at the lowest
        b-value; complex signals come as real parts followed by imaginary parts. It is called from several threads. An
        estimator that reads neighbours (`reach`) also gets the voxel indices, shape (n, 3); voxels that are not among
        them lie outside the mask or the image, or have no usable signal.
        """


@cache
def interval_quantile(freedom: float) -> float:
    """Half the width of an interval in standard deviations: the quantile of Student's t distribution.

    ``freedom`` is that of the residuals that the noise was estimated from, and infinite where the noise is known (the
    normal distribution). The square of the quantile is that of the F or chi-square distribution of the rise of a sum of
    misfits. NaN without a degree of freedom.
    """
    return float(stdtrit(freedom, (1 + LEVEL) / 2)) if freedom > 0 else np.nan


def estimator_label(name: str) -> str:
    """Name of an estimator as a BIDS label of letters and digits: "netuniform" for "net-uniform"."""
    return "".join(character for character in name if character.isalnum())
