"""Relaxation times beside SciPy and qmrpy (a Python translation of qMRLab's fits).

The middle of every tissue of the phantom is measured with Rician noise and fitted by all, in one run on one core. The
SNR, 30, is that of the largest signal. Error: bias and standard deviation of the relaxation time, per cent of the
truth. For flip angles the true ones are 0.85 of the nominal ones, and everybody is told: SciPy and qmrpy get them as
they are, bidsfit fits nominal ones and corrects.

A second table has the spheres of the system phantom of ISMRM and NIST at 3 T: relaxation times as published (Stupic et
al. 2021, doi 10.1002/mrm.28779, supporting information), signals simulated.
"""

from __future__ import annotations

from collections.abc import Callable

from _common import machine, options, seconds, table, use_cores  # isort: skip

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import curve_fit

from bidsfit import Acquisition, LeastSquares, MaximumLikelihood, models
from bidsfit.fitting import with_covariate
from bidsfit.models.signal_model import SignalModel
from bidsfit.noise import add_noise
from bidsfit.phantom.tissue import RECIPES

SNR, B1 = 30.0, 0.85
#: T1 of the spheres with nickel chloride and T2 of those with manganese chloride, ms, at 20 degrees Celsius.
NICKEL_T1 = (1989, 1454, 984.1, 706, 496.7, 351.5, 247.13, 175.3, 125.9, 89, 62.7, 44.53, 30.84, 21.719)
MANGANESE_T2 = (581.3, 403.5, 278.1, 190.94, 133.27, 96.89, 64.07, 46.42, 31.97, 22.56, 15.81, 11.24, 7.91, 5.59)


def main() -> None:
    parser = options(__doc__, 1000)
    arguments = parser.parse_args()
    n = 20 if arguments.quick else arguments.voxels
    use_cores(1)
    print(f"{machine()}\n")
    header = ["model", "fit", "WM", "GM", "CSF", "lesion", "voxels a second"]
    rows = [row for name in ("t2", "t2star", "t1vfa", "t1ir") for row in compared(name, n)]
    print(table(header, rows))
    print(table(["sphere", "T1 (ms)", "t1ir", "t1vfa", "T2 (ms)", "t2"], spheres(n)))


def spheres(n: int) -> list[list[object]]:
    """Rows of the second table: mean and standard deviation of the errors of maximum likelihood."""
    rng, cells = np.random.default_rng(1), {}
    for name, times in (("t1ir", NICKEL_T1), ("t1vfa", NICKEL_T1), ("t2", MANGANESE_T2)):
        model, acquisition = models.get(name), Acquisition(**RECIPES[name].columns)
        fit = fits(model, acquisition)["bidsfit mle"]
        known = {"t1ir": {"inversion": 0.95}, "t1vfa": {"B1": B1}}.get(name, {})
        for k, time in enumerate(times):
            signals, sigma = measured(model, {**known, model.names[1]: time}, acquisition, n, rng)
            cells[name, k] = error(fit(signals, sigma), time)
    return [
        [k + 1, f"{t1:g}", cells["t1ir", k], cells["t1vfa", k], f"{t2:g}", cells["t2", k]]
        for k, (t1, t2) in enumerate(zip(NICKEL_T1, MANGANESE_T2, strict=True))
    ]


def measured(
    model: SignalModel, truth: dict[str, float], acquisition: Acquisition, n: int, rng: np.random.Generator
) -> tuple[NDArray, float]:
    """Signals (n, n_measurements) of the same truth with Rician noise, and its level."""
    clean = model.signal({**truth, "S0": 1000.0}, acquisition)
    sigma = float(clean.max() / SNR)
    return add_noise(np.tile(clean, (n, 1)), sigma, "rician", rng), sigma


def error(found: NDArray, truth: float) -> str:
    """Bias and standard deviation, per cent."""
    relative = 100 * (found / truth - 1)
    return f"{np.nanmean(relative):+.1f} ± {np.nanstd(relative):.1f}"


def compared(name: str, n: int) -> list[list[object]]:
    """Rows of the table about one model."""
    model, recipe = models.get(name), RECIPES[name]
    acquisition, time = Acquisition(**recipe.columns), model.names[1]
    tissues = {tissue: recipe.ranges(tissue, next(iter(recipe.lesions))) for tissue in ("WM", "GM", "CSF", "lesion")}
    truths = {tissue: {key: float(np.mean(pair)) for key, pair in ranges.items()} for tissue, ranges in tissues.items()}
    if name == "t1vfa":
        truths = {tissue: truth | {"B1": B1} for tissue, truth in truths.items()}
    rng = np.random.default_rng(0)
    signals, sigmas = {}, {}
    for tissue, truth in truths.items():
        signals[tissue], sigmas[tissue] = measured(model, truth, acquisition, n, rng)
    rows: list[list[object]] = []
    for label, fit in fits(model, acquisition).items():
        fit(signals["WM"][:2], sigmas["WM"])  # compiles
        spent, cells = 0.0, []
        for tissue, truth in truths.items():
            found: list[NDArray] = []
            spent += seconds(lambda t=tissue, into=found, do=fit: into.append(do(signals[t], sigmas[t])))  # type: ignore[misc]
            cells.append(error(found[0], truth[time]))
        rows.append([name, label, *cells, f"{4 * n / spent:,.0f}"])
    return rows


def fits(model: SignalModel, acquisition: Acquisition) -> dict[str, Callable[[NDArray, float], NDArray]]:
    """Functions of signals (n, n_measurements) and noise that return the relaxation times in ms, by name."""
    name, time = model.names[1], model.names[1]
    b1 = B1 if model.covariate is not None else 1.0
    low, high = model[name].bounds

    def ours(estimator: LeastSquares | MaximumLikelihood) -> Callable[[NDArray, float], NDArray]:
        def fit(signals: NDArray, sigma: float) -> NDArray:
            estimate = estimator.estimate(signals, acquisition, sigma)
            if model.covariate is not None:
                estimate = with_covariate(estimate, estimator, np.full(len(signals), b1))
            return estimate.parameters[time]

        return fit

    def scipy(signals: NDArray, sigma: float) -> NDArray:
        free = [parameter for parameter in model.names if parameter != "B1"]

        def curve(_: object, *values: float) -> NDArray:
            return model.signal(dict(zip(free, values, strict=True)) | {"B1": b1}, acquisition)

        start = [1000.0, float(np.sqrt(low * high)), *[0.9] * (len(free) - 2)]
        bounds = np.transpose([model[parameter].bounds for parameter in free])
        found = np.full(len(signals), np.nan)
        for i, row in enumerate(signals):
            try:
                found[i] = curve_fit(curve, np.arange(row.size), row, p0=start, bounds=bounds, x_scale=start)[0][1]
            except RuntimeError:
                continue
        return found

    return {
        "bidsfit lsq": ours(LeastSquares(model)),
        "bidsfit mle": ours(MaximumLikelihood(model)),
        "SciPy curve_fit": scipy,
        **qmrpy_fits(model.name, acquisition, b1),
    }


def qmrpy_fits(name: str, acquisition: Acquisition, b1: float) -> dict[str, Callable[[NDArray, float], NDArray]]:
    """That of qmrpy, where it is installed."""
    try:
        from qmrpy.models.t1 import T1VFA, T1InversionRecovery
        from qmrpy.models.t2 import T2Mono
        from qmrpy.models.t2star import T2StarMonoR2
    except ImportError:
        print("qmrpy is not installed, and left out.\n")
        return {}
    columns = acquisition.columns
    made, key = {
        "t2": lambda: (T2Mono(te_ms=columns["TE"]), "t2_ms"),
        "t2star": lambda: (T2StarMonoR2(te_ms=columns["TE"]), "t2star_ms"),
        "t1vfa": lambda: (T1VFA(flip_angle_deg=columns["flip_angle"], tr_ms=columns["TR"][0], b1=b1), "t1_ms"),
        "t1ir": lambda: (T1InversionRecovery(ti_ms=columns["TI"]), "t1_ms"),
    }[name]()
    return {"qmrpy": lambda signals, sigma: np.array([made.fit(row).params[key] for row in signals])}


if __name__ == "__main__":
    main()
