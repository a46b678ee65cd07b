"""IVIM at SNR 20: Table 2 of Kaandorp et al. 2021, and what sets its least squares apart from ours.

Paper: "Improved unsupervised physics-informed deep learning for intravoxel incoherent motion modeling and evaluation in
pancreatic cancer patients", MRM 2021;86:2250-2265. 100,000 curves at b = 0, 5, 10, 20, 30, 40, 60, 150, 300, 500 and
700 s/mm^2 with uniform D 0.5 to 3, D* 10 to 100 um^2/ms and f 5 to 55 %, Rician noise, divided by the measured S(0).
NRMSE is the root mean square error over the mean truth; rho is Spearman's rank correlation between estimates.

The paper's least squares is SciPy's `curve_fit` (trust region reflective) from one start: D 1, f 0.1, D* 10, S0 1. It
is run here on a part of the curves, with the paper's settings and with each of them changed. bidsfit bounds D, f and D*
as the paper does, and leaves S0 free.

The paper's Bayesian fit is the most probable point under a prior that is fitted to the least squares of all curves, as
`bayesmap` is. `bayes` has another prior, which does not depend on the curves, and reports the posterior mean; it is
slower, so that it fits a part of them.
"""

from __future__ import annotations

from _common import options, percent, table, use_cores  # isort: skip (limits threads)

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import curve_fit
from scipy.stats import spearmanr

from bidsfit import estimators, models
from bidsfit.acquisition import Acquisition
from bidsfit.estimators.estimator import Estimator
from bidsfit.estimators.least_squares import LeastSquares
from bidsfit.noise import NoiseKind, add_noise

B_VALUES = (0, 5, 10, 20, 30, 40, 60, 150, 300, 500, 700)
RANGES = {"D": (0.5, 3.0), "f": (0.05, 0.55), "Dstar": (10.0, 100.0)}
BOUNDS = {"D": (0.0, 5.0), "f": (0.0, 0.7), "Dstar": (5.0, 200.0)}
WIDER = {**BOUNDS, "Dstar": (5.0, 300.0)}
PAIRS = (("D", "Dstar"), ("D", "f"), ("f", "Dstar"))
SNR = 20.0
#: NRMSE of D, f and D*, and absolute rho in the order in which the authors' public code prints it (that of PAIRS).
PAPER = {
    "paper, least squares": ("0.279", "0.387", "0.805", "0.24", "0.18", "0.20"),
    "paper, Bayesian": ("0.233", "0.281", "0.575", "", "", ""),
}
HEADER = ["NRMSE D", "NRMSE f", "NRMSE D*", "abs. rho(D, D*)", "abs. rho(D, f)", "abs. rho(f, D*)"]

Parameters = Mapping[str, NDArray[np.float64]]


def main() -> None:
    parser = options(__doc__, voxels=100_000)
    text = "curves that SciPy and bayes fit (default %(default)s)"
    parser.add_argument("--slow-voxels", type=int, default=10_000, help=text)
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.voxels, arguments.slow_voxels = 5000, 200
    use_cores(1)
    truth, signals, sigma = simulate(arguments.voxels, "rician")
    rows = [["paper, least squares", *PAPER["paper, least squares"]]]
    part = slice(0, arguments.slow_voxels)
    for label, estimator in candidates().items():
        some = part if estimator.name == "bayes" else slice(None)
        found = estimator.estimate(signals[some], Acquisition(B_VALUES), sigma[some]).parameters
        rows.append([label, *scores(found, {name: values[some] for name, values in truth.items()})])
    truth_, signals_, _ = simulate(arguments.voxels, "gaussian")
    found = LeastSquares(models.get("ivim"), bounds=BOUNDS).estimate(signals_, Acquisition(B_VALUES)).parameters
    rows.append(["bidsfit lsq, Gaussian instead of Rician noise", *scores(found, truth_)])
    rows.append(["paper, Bayesian", *PAPER["paper, Bayesian"]])
    n = min(arguments.slow_voxels, arguments.voxels)
    print(f"SNR {SNR:g}, {arguments.voxels:,} curves (bayes: {n:,}); D* at most 200 um^2/ms where not stated:\n")
    print(table(["fit", *HEADER], rows))
    print(f"SciPy as in the paper, on the first {n:,} of these curves:\n")
    header = ["fit", *HEADER, "sum above bidsfit's", "sum below", "D* at 5", "D* at its upper bound"]
    print(table(header, replicas(signals[part], {name: values[part] for name, values in truth.items()})))


def simulate(n: int, noise: NoiseKind) -> tuple[Parameters, NDArray[np.float64], NDArray[np.float64]]:
    """True parameters, signals divided by the one measured at b = 0, and their noise."""
    rng = np.random.default_rng(2021)
    truth = {"S0": np.ones(n), **{name: rng.uniform(*limits, n) for name, limits in RANGES.items()}}
    signals = add_noise(models.get("ivim").signal(truth, Acquisition(B_VALUES)), 1 / SNR, noise, rng)
    first = signals[:, 0]
    return truth, signals / first[:, None], 1 / SNR / first


def candidates() -> dict[str, Estimator]:
    """Every estimator that bidsfit has for the model, with the settings that are compared."""
    flat = {"D": "uniform", "f": "uniform", "Dstar": "uniform"}
    choices: list[tuple[str, str, dict[str, Any]]] = [
        ("lsq", "lsq", {}),
        ("lsq, D* at most 300", "lsq", {"bounds": WIDER}),
        ("lsq, S0 as measured", "lsq", {"s0": "measured"}),
        ("segmented, b from 200, D held", "segmented", {}),
        ("segmented, b from 75, D and f held", "segmented", {"threshold": 75, "hold": ("D", "f")}),
        ("mle, Rician", "mle", {}),
        ("bayesmap", "bayesmap", {}),
        ("bayes, D* uniform in the logarithm", "bayes", {}),
        ("bayes, D* uniform", "bayes", {"priors": flat}),
        ("bayes, the true distribution as prior", "bayes", {"bounds": RANGES, "priors": flat}),
    ]
    ivim = models.get("ivim")
    return {
        f"bidsfit {label}": estimators.get(name)(ivim, **{"bounds": BOUNDS, **setting})
        for label, name, setting in choices
    }


def scores(found: Parameters, truth: Parameters) -> list[str]:
    """NRMSE of the parameters, and correlations between them."""
    errors = [np.sqrt(np.mean((found[name] - truth[name]) ** 2)) / truth[name].mean() for name in RANGES]
    correlations = [abs(spearmanr(found[a], found[b]).statistic) for a, b in PAIRS]
    return [*[f"{value:.3f}" for value in errors], *[f"{value:.2f}" for value in correlations]]


def replicas(signals: NDArray[np.float64], truth: Parameters) -> list[list[str]]:
    """Rows of SciPy's fits beside ours, of the same curves."""
    ivim, acquisition = models.get("ivim"), Acquisition(B_VALUES)
    ours = {}
    for top, bounds in ((200, BOUNDS), (300, WIDER)):
        found = LeastSquares(ivim, bounds=bounds).estimate(signals, acquisition).parameters
        ours[top] = found, np.sum((signals - ivim.signal(found, acquisition)) ** 2, axis=1)
    settings: dict[str, dict[str, Any]] = {
        "SciPy, settings of the paper, D* at most 200": {},
        "the same, D* at most 300": {"top": 300},
        "the same, S0 0 to 2 instead of 0.7 to 1.3": {"scale": (0, 2)},
        "the same, tolerances 1e-14 instead of 1e-8": {"ftol": 1e-14, "xtol": 1e-14, "gtol": 1e-14, "max_nfev": 5000},
        "the same, started at D* 50 instead of 10": {"start": 50},
        "the same, started at the solution of bidsfit": {"starts": ours[200][0]},
    }
    rows = [["bidsfit lsq", *scores(ours[200][0], truth), "", "", *at_bounds(ours[200][0], 200)]]
    rows += [["bidsfit lsq, D* at most 300", *scores(ours[300][0], truth), "", "", *at_bounds(ours[300][0], 300)]]
    for label, setting in settings.items():
        top = setting.get("top", 200)
        replica = scipy_fits(signals, **setting)
        theirs, best = np.sum((signals - ivim.signal(replica, acquisition)) ** 2, axis=1), ours[top][1]
        shares = [percent(np.mean(theirs > 1.001 * best)), percent(np.mean(best > 1.001 * theirs))]
        rows.append([label, *scores(replica, truth), *shares, *at_bounds(replica, top)])
    return rows


def at_bounds(found: Parameters, top: float) -> list[str]:
    """Shares of the voxels whose D* ended at its lower and at its upper bound."""
    low, high = BOUNDS["Dstar"][0], top
    return [percent(np.mean(found["Dstar"] < 1.001 * low)), percent(np.mean(found["Dstar"] > 0.999 * high))]


def scipy_fits(
    signals: NDArray[np.float64],
    top: float = 200,
    scale: tuple[float, float] = (0.7, 1.3),
    start: float = 10,
    starts: Parameters | None = None,
    **tolerances: Any,
) -> Parameters:
    """`curve_fit` with the scaled variables, start and bounds of the paper; D and D* in order, as there."""
    b = np.array(B_VALUES, dtype=float)
    points = np.tile([1, 1, start / 100, 1], (len(signals), 1))  # D, 10 f, D* / 100, S0
    bounds = ([0, 0, 0.05, scale[0]], [5, 7, top / 100, scale[1]])
    if starts is not None:
        points = np.column_stack([starts["D"], 10 * starts["f"], starts["Dstar"] / 100, starts["S0"]])

    def curve(b: NDArray, d: float, f: float, dstar: float, s0: float) -> NDArray:
        return s0 * (f / 10 * np.exp(-b * dstar / 10) + (1 - f / 10) * np.exp(-b * d / 1000))

    fits = [
        curve_fit(curve, b, y, p0=np.clip(x, *bounds), bounds=bounds, **tolerances)[0]
        for y, x in zip(signals, points, strict=True)
    ]
    d, f, dstar, s0 = np.array(fits).T * np.array([[1], [0.1], [100], [1]])
    swapped = dstar < d
    low, high = np.minimum(d, dstar), np.maximum(d, dstar)
    return {"S0": s0, "D": low, "f": np.where(swapped, 1 - f, f), "Dstar": high}


if __name__ == "__main__":
    main()
