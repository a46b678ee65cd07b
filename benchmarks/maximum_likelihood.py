"""Speed and likelihood of Rician maximum likelihood beside SciPy's bounded L-BFGS-B on the same objective.

Both fit the same magnitudes of the same voxels on one core, in turns, from the same starting points (the best node of
the grid of least squares) under the same bounds, with the noise level given. SciPy is run with its two-point gradient
and with the analytic one; it is slow, so that it fits a random part of the voxels.
"""

from __future__ import annotations

from _common import IVIM_B_VALUES, machine, multiple, options, percent, seconds, sphere, table, use_cores  # isort: skip

from typing import NamedTuple

import numpy as np
from least_squares import equations, grid_starts
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import ive

from bidsfit import models
from bidsfit.acquisition import Acquisition
from bidsfit.estimators.least_squares import LeastSquares
from bidsfit.estimators.maximum_likelihood import MaximumLikelihood
from bidsfit.models.signal_model import SignalModel
from bidsfit.noise import add_noise, rician_log_likelihood

#: A log-likelihood lower by more than this is worse: far below what a standard deviation is worth (0.5).
WORSE = 1e-4


class Case(NamedTuple):
    """Magnitudes of known noise that a model is fitted to."""

    name: str
    model: SignalModel
    acquisition: Acquisition
    magnitudes: NDArray[np.float64]
    sigma: float


def main() -> None:
    parser = options(__doc__, voxels=50_000)
    parser.add_argument("--scipy-voxels", type=int, default=2_000, help="voxels that SciPy fits (default %(default)s)")
    parser.add_argument("--repeats", type=int, default=5, help="turns (default %(default)s)")
    parser.add_argument("--snr", type=float, nargs="+", default=[50.0, 15.0, 5.0], help="at S0, of one measurement")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.voxels, arguments.scipy_voxels, arguments.repeats = 2000, 100, 2
    use_cores(1)
    rng = np.random.default_rng(2024)
    cases = [simulated(name, arguments.voxels, snr, rng) for name in ("ivim", "smt2") for snr in arguments.snr]
    rows = [compare(case, arguments.scipy_voxels, arguments.repeats, rng) for case in cases]
    print(f"{machine()}; everything on one core.\n")
    print("Voxels a second, bidsfit's speed as a multiple of SciPy's (range of the turns), and voxels in which the")
    print(f"log-likelihood is more than {WORSE:g} below the other's (SciPy: the better of its two runs):\n")
    header = ["fit", "bidsfit", "SciPy", "SciPy, gradient given", "times SciPy", "times SciPy, gradient given"]
    print(table([*header, "bidsfit worse", "SciPy worse"], rows))


def simulated(name: str, n_voxels: int, snr: float, rng: np.random.Generator) -> Case:
    """Uniformly drawn parameters, Rician noise in every measurement (for smt2: 8 images at b = 0, 16 directions)."""
    model = models.get(name)
    draw = lambda low, high: rng.uniform(low, high, n_voxels)  # noqa: E731
    if name == "ivim":
        acquisition = Acquisition(IVIM_B_VALUES)
        truth = {"S0": np.ones(n_voxels), "f": draw(0, 0.5), "D": draw(0, 3), "Dstar": draw(3, 100)}
    else:
        counts = [8, 16, 16, 16]
        directions = np.vstack([sphere(count) for count in counts])  # every shell even over the sphere
        acquisition = Acquisition(np.repeat([0, 1000, 2500, 4000], counts), directions)
        truth = {"S0": np.ones(n_voxels), "vcyl": draw(0, 1), "lambda": draw(0, 3)}
    magnitudes = add_noise(model.signal(truth, acquisition), 1 / snr, "rician", rng)
    return Case(f"{name}, SNR {snr:g}", model, acquisition, magnitudes, 1 / snr)


def compare(case: Case, n_scipy: int, repeats: int, rng: np.random.Generator) -> list[object]:
    """Fit a case with both; a row of the table."""
    estimator = MaximumLikelihood(case.model)
    index = rng.permutation(len(case.magnitudes))[:n_scipy]
    sample, sigma = case.magnitudes[index], case.sigma
    starts = grid_starts(LeastSquares(case.model), case.acquisition, sample)
    signal, slope = equations(case.model.name, case.acquisition)
    zero = np.zeros(len(case.acquisition))
    sign = np.sign(signal(starts[0], zero).sum())

    def objective(x: NDArray, y: NDArray) -> float:
        return -float(np.sum(rician_log_likelihood(y, sign * signal(x, zero), sigma)))

    def with_gradient(x: NDArray, y: NDArray) -> tuple[float, NDArray]:
        predicted = sign * signal(x, zero)
        z = y * predicted / sigma**2
        downhill = (y * ive(1, z) / ive(0, z) - predicted) / sigma**2
        return objective(x, y), -downhill @ (sign * slope(x, zero))

    pairs = dict(zip(case.model.names, map(tuple, estimator.bounds), strict=True)) | {case.model.scale: (0, 10)}
    bounds = list(pairs.values())
    found = np.empty((2, len(sample), len(bounds)))
    reached = np.empty((2, len(sample)))

    def scipy(kind: int, rows: slice) -> None:
        for v in range(rows.start, rows.stop):
            function = with_gradient if kind else objective
            result = minimize(function, starts[v], (sample[v],), "L-BFGS-B", jac=bool(kind), bounds=bounds)
            found[kind, v], reached[kind, v] = result.x, result.fun

    estimator.estimate(case.magnitudes[:2], case.acquisition, sigma)  # compiles
    times = np.empty((repeats, 3))  # seconds a voxel
    n = len(sample)
    for turn, rows in enumerate(slice(k * n // repeats, (k + 1) * n // repeats) for k in range(repeats)):
        work = lambda: estimator.estimate(case.magnitudes, case.acquisition, sigma)  # noqa: E731
        times[turn, 0] = seconds(work) / len(case.magnitudes)
        for kind in (0, 1):
            times[turn, kind + 1] = seconds(lambda: scipy(kind, rows)) / (rows.stop - rows.start)  # noqa: B023
    estimate = estimator.estimate(sample, case.acquisition, sigma)
    points = case.model.parameter_array(estimate.parameters)
    ours = np.array([objective(x, y) for x, y in zip(points, sample, strict=True)])
    matrix, limits = case.model.linear_constraints  # which SciPy does not know
    feasible = np.all(found @ matrix.T <= limits, axis=2)
    theirs = np.where(feasible, reached, np.inf).min(axis=0)
    rates = 1 / np.median(times, axis=0)
    speeds = [multiple(times[:, k] / times[:, 0]) for k in (1, 2)]
    return [
        case.name,
        *[f"{rate:,.0f}" for rate in rates],
        *speeds,
        percent(np.mean(ours > theirs + WORSE)),
        percent(np.mean(theirs > ours + WORSE)),
    ]


if __name__ == "__main__":
    main()
