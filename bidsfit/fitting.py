"""One fit: estimate, companions and numbers in a `FitResult`, from which maps, figures and records are made."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bidsfit.acquisition import B0_TOLERANCE, Acquisition, Frame, column_of
from bidsfit.estimators.estimator import FITTED, Estimate, Estimator, Signals, Status
from bidsfit.estimators.summary import ParameterSummary, representative_voxels, summarise
from bidsfit.models.signal_model import SignalModel
from bidsfit.noise import NoiseKind
from bidsfit.parallel import Progress
from bidsfit.trust.cache import Trust, cached_performance
from bidsfit.trust.companions import companions_of, is_simulated, judge_of
from bidsfit.trust.flags import flags
from bidsfit.trust.misfit import look_at_signals
from bidsfit.trust.monte_carlo import least_squares_beside
from bidsfit.trust.summary import TrustSummary, trust_summary
from bidsfit.trust.summary import summarise as summarise_trust

#: Points of a fitted curve.
CURVE_POINTS = 200


@dataclass(frozen=True)
class FittedCurve:
    """Signals of one voxel and the fitted curve.

    Attributes
    ----------
    title : str
        What the voxel is an example of.
    voxel : int
        Index among the fitted voxels.
    x_label : str
        Name and unit of the horizontal axis.
    x, signal, counts, predicted : list of float
        For every averaged signal: horizontal position, signal, number of measurements, fitted signal. Magnitudes of
        complex signals.
    fitted_x, fitted : list of float
        The curve on a fine grid; empty if it cannot be drawn.
    """

    title: str
    voxel: int
    x_label: str
    x: list[float]
    signal: list[float]
    counts: list[float]
    predicted: list[float]
    fitted_x: list[float]
    fitted: list[float]


@dataclass(frozen=True)
class FitNumbers:
    """Summary numbers of a fit, in internal units.

    Attributes
    ----------
    n_voxels, freedom : int
        Voxels in the mask; fitted signals minus estimated parameters.
    seconds : float
        Duration of the estimate.
    columns : dict of column to list of float
        Variables of the averaged signals, in the units of the table.
    frame : {"bvec", "xyz"}
        Coordinate frame of the gradient directions.
    over_directions : bool
        Whether shells of several directions were fitted by a model without directions.
    status : dict of int to int
        Number of voxels by status code.
    sigma : float or None
        Median noise level of one measurement from the residuals.
    noise : dict
        Noise level and how it was estimated: sigma, snr, method.
    notes : dict
        `Estimate.notes`.
    left_out : list
        Excluded volumes (see `bidsfit.bids.left_out`).
    trust : TrustSummary, optional
        What simulation tells of the errors.
    """

    n_voxels: int
    freedom: int
    seconds: float
    columns: dict[str, list[float]]
    parameters: list[ParameterSummary]
    status: dict[int, int]
    sigma: float | None
    curves: list[FittedCurve] = field(default_factory=list)
    frame: Frame = "bvec"
    over_directions: bool = False
    noise: dict[str, Any] = field(default_factory=dict)
    notes: dict[str, Any] = field(default_factory=dict)
    left_out: list[dict[str, Any]] = field(default_factory=list)
    trust: TrustSummary | None = None

    @property
    def n_fitted(self) -> int:
        """Number of voxels with an estimate."""
        return sum(self.status.get(int(status), 0) for status in FITTED)

    def share(self, status: Status) -> float:
        """Fraction of the voxels with one status."""
        return self.status.get(int(status), 0) / self.n_voxels


@dataclass(frozen=True)
class FitResult:
    """Result of the fit of the voxels of a mask.

    Attributes
    ----------
    values : dict of key to ndarray, shape (n_voxels,) or (n_voxels, 3)
        Keys are names of parameters and derived quantities, these with the key of a companion ("D_sd"), "rmse", "r2"
        and "status". In internal units.
    """

    values: dict[str, NDArray]
    numbers: FitNumbers

    def volume(self, key: str, mask: NDArray[np.bool_], outside: float = 0) -> NDArray:
        """One of the values as a map on the grid of the mask, whose voxels are in Fortran order."""
        values = self.values[key]
        found = np.full((mask.size, *values.shape[1:]), outside, dtype=values.dtype)
        found[np.flatnonzero(mask.ravel(order="F"))] = values
        return found.reshape((*mask.shape, *values.shape[1:]), order="F")

    def save(self, path: Path) -> Path:
        """Write the result to an array file that holds no executable content."""
        from safetensors.numpy import save_file

        arrays = {key: np.ascontiguousarray(values) for key, values in self.values.items()}
        save_file(arrays, path, metadata={"numbers": json.dumps(asdict(self.numbers))})
        return path

    @classmethod
    def load(cls, path: Path) -> FitResult:
        """Read what `save` wrote."""
        from safetensors import safe_open

        with safe_open(path, "numpy") as file:
            values = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a mapping)
            numbers = json.loads(file.metadata()["numbers"])
        numbers |= {
            "parameters": [ParameterSummary(**row) for row in numbers["parameters"]],
            "curves": [FittedCurve(**row) for row in numbers["curves"]],
            "status": {int(code): count for code, count in numbers["status"].items()},
            "trust": trust_summary(numbers["trust"]),
        }
        return cls(values, FitNumbers(**numbers))


def fit(
    estimator: Estimator,
    signals: Signals,
    acquisition: Acquisition,
    sigma: float | NDArray[np.float64] | None,
    *,
    kind: NoiseKind = "rician",
    positions: NDArray[np.integer] | None = None,
    trust: Trust = "off",
    threads: int = 1,
    progress: Progress | None = None,
    noise: Mapping[str, Any] | None = None,
    left_out: Sequence[dict[str, Any]] = (),
    covariate: NDArray[np.float64] | None = None,
) -> FitResult:
    """Estimate the parameters, compute the companions, and summarise.

    With a covariate, the estimate, its companions and what is simulated are those of a fit that holds it. The estimate
    is then turned into what it means with the covariate; companions in the unit of a parameter change as that does.

    Parameters
    ----------
    estimator : Estimator
    signals : array or view, shape (n_voxels, n_measurements)
    sigma : float or ndarray, shape (n_voxels,), optional
        Standard deviation of the noise of one measurement.
    kind : {"rician", "gaussian"}
        Kind of noise that the bound assumes.
    positions : ndarray, shape (n_voxels, 3), optional
        Voxel indices in the image, for estimators that read neighbours.
    trust : {"off", "light", "full"}
        Whether and how thoroughly the errors of the estimator are simulated.
    progress : callable, optional
        Called with the fraction that is done.
    noise, left_out
        Passed on to `FitNumbers`.
    covariate : ndarray, shape (n_voxels,), optional
        Values of the covariate of the model; NaN where unknown, where the parameters are.
    """
    estimator.warm_up(acquisition)
    start = time.perf_counter()
    estimate = estimator.estimate(signals, acquisition, sigma, positions=positions, threads=threads, progress=progress)
    seconds = time.perf_counter() - start
    shown = estimate if covariate is None else with_covariate(estimate, estimator, covariate)
    values: dict[str, NDArray] = shown.parameters | shown.derived
    values |= {"rmse": estimate.rmse, "r2": estimate.r2, "status": estimate.status}
    performance = None
    if is_simulated(estimator, trust):
        averaged = estimator.averaged(acquisition)
        performance = cached_performance(
            estimator, averaged, trust, kind=kind, known=sigma is not None, threads=threads, progress=progress
        )
    judge = judge_of(estimator, estimate, sigma, kind=kind, performance=performance, threads=threads)
    if performance is not None:
        other = least_squares_beside(estimator) if performance.beside else None
        looked = look_at_signals(estimator, estimate, signals, acquisition, judge.noise, other, threads)
        judge = replace(judge, scores=looked.scores, beside=looked.beside)
    for key, companion in companions_of(estimator, trust).items():
        judged = companion.judge(judge, estimate)
        if shown is not estimate and companion.quantity.unit is None:
            judged = {
                name: array * _change(estimate.values[name], shown.values[name]) for name, array in judged.items()
            }
        values |= {f"{name}_{key}": a for name, a in judged.items() if not estimator.model.quantity(name).auxiliary}
    summary = None
    if performance is not None:
        expected = judge.expected(estimate)
        values["flags"] = flags(estimator, estimate, expected, judge.noise, looked.outside)
        summary = summarise_trust(judge, estimate, values["flags"])
    model, residual = estimator.model, estimate.sigma[np.isfinite(estimate.sigma)]
    averaged = estimate.acquisition
    numbers = FitNumbers(
        n_voxels=int(estimate.status.size),
        freedom=estimate.freedom,
        seconds=seconds,
        columns={
            name: column.tolist() for name, column in averaged.columns.items() if name == "b" or name in model.variables
        },
        parameters=summarise(shown, model, estimator.bounds),
        status={int(status): count for status, count in estimate.count().items()},
        sigma=float(np.median(residual)) if residual.size else None,
        curves=_curves(shown, estimator, signals, acquisition),
        frame=acquisition.frame,
        over_directions=estimator.averaging == "none" and _over_directions(model, averaged),
        noise=dict(noise or {}),
        notes=estimate.notes,
        left_out=list(left_out),
        trust=summary,
    )
    return FitResult(values, numbers)


def _change(before: NDArray[np.float64], after: NDArray[np.float64]) -> NDArray[np.float64]:
    """Values after a change as a share of those before; 1 where these are 0."""
    return np.divide(after, before, out=np.where(np.isfinite(after), 1.0, np.nan), where=before != 0)


def with_covariate(estimate: Estimate, estimator: Estimator, values: NDArray[np.float64]) -> Estimate:
    """The estimate with values (n_voxels,) of the covariate of the model, instead of that which the fit held."""
    model = estimator.model
    assert model.covariate is not None
    free = [k for k, name in enumerate(model.names) if name not in estimator.fixed]
    points = model.covariate.apply(estimate.points, values, estimate.acquisition, free)
    parameters = dict(zip(model.names, np.ascontiguousarray(points.T), strict=True))
    return replace(estimate, parameters=parameters, derived=model.derivation.values(points))


def _curves(estimate: Estimate, estimator: Estimator, signals: Signals, acquisition: Acquisition) -> list[FittedCurve]:
    """Curves of representative voxels."""
    model = estimator.model
    used = model.usable(acquisition)
    average = model.average(acquisition.select(used), estimator.averaging)
    label, x, fine = curve_axis(model, average.acquisition)
    found = []
    for title, index in representative_voxels(estimate, model).items():
        parameters = {name: values[index] for name, values in estimate.parameters.items()}
        measured = average(np.asarray(signals[slice(index, index + 1)])[:, used])[0]
        predicted = model.signal(parameters, average.acquisition)
        if model.complex_valued:
            measured, predicted = np.abs(measured), np.abs(predicted)
        found.append(
            FittedCurve(
                title=title,
                voxel=index,
                x_label=label,
                x=x.tolist(),
                signal=measured.tolist(),
                counts=average.acquisition.weights.tolist(),
                predicted=predicted.tolist(),
                fitted_x=[] if fine is None else fine[0].tolist(),
                fitted=[] if fine is None else model.signal(parameters, fine[1]).tolist(),
            )
        )
    return found


def _over_directions(model: SignalModel, fitted: Acquisition) -> bool:
    """Whether shells of several directions are fitted by a model without directions."""
    several = any(shell.n_directions > 1 for shell in fitted.shells if shell.b_value > B0_TOLERANCE)
    return several and "direction" not in model.variables


def curve_axis(
    model: SignalModel, acquisition: Acquisition
) -> tuple[str, NDArray[np.float64], tuple[NDArray[np.float64], Acquisition] | None]:
    """Horizontal axis of a signal curve: label, values of the measurements, and a fine grid with its acquisition.

    The axis is b, or else the first variable of the model that varies, in the unit of the table; for a sequence, the
    number of the measurement. There is no grid if other variables vary, as a curve over one would hide them.
    """
    names = [name for name in model.variables if name in acquisition.columns]
    if model.sequence or not names:
        return "measurement", np.arange(len(acquisition), dtype=float), None
    varying = [name for name in names if np.ptp(acquisition.columns[name]) > column_of(name).absolute]
    column = column_of("b" if "b" in names else (varying or names)[0])
    values = acquisition.columns[column.name]
    fine: Any = np.linspace(0, 1, CURVE_POINTS) * values.max()
    others = {name: np.full(CURVE_POINTS, acquisition.columns[name].mean()) for name in names if name != column.name}
    alone = len(names) == len(model.variables) and not set(varying) & set(others)
    grid = Acquisition(**{column.name: fine, **others})
    return column.label, values, (fine, grid) if alone else None
