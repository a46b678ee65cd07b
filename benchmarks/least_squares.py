"""Speed and sums of squares beside SciPy's bounded least squares, started at the same points.

Both fit the same averaged signals of the same voxels on one core, in turns (A B C A B C ...), and the medians of the
turns are compared. SciPy gets our starting point (the best node of our grid) and the same bounds, and is run twice:
with its default two-point Jacobian, and with the analytic one. It is slow, so that it fits a random part of the voxels;
the sums of squares are compared on that part.
"""

from __future__ import annotations

from _common import Case, machine, multiple, options, percent, real, seconds, simulated, table, use_cores  # isort: skip

from collections.abc import Callable
from time import perf_counter

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares
from scipy.special import erf

from bidsfit.acquisition import Acquisition
from bidsfit.estimators.least_squares import LeastSquares
from bidsfit.estimators.solver import starting_points

Function = Callable[..., NDArray[np.float64]]


def main() -> None:
    parser = options(__doc__, voxels=100_000)
    parser.add_argument("--scipy-voxels", type=int, default=5_000, help="voxels that SciPy fits (default %(default)s)")
    parser.add_argument("--repeats", type=int, default=5, help="turns (default %(default)s)")
    parser.add_argument("--snr", type=float, nargs="+", default=[50.0, 15.0], help="of the simulated voxels")
    parser.add_argument("--threads", type=int, default=2, help="measure bidsfit also with up to so many threads")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.voxels, arguments.scipy_voxels, arguments.repeats = 2000, 300, 3
    use_cores(1)
    rng = np.random.default_rng(2024)
    cases = [simulated(name, arguments.voxels, snr, rng) for snr in arguments.snr for name in ("ivim", "smt2", "adc")]
    for dataset, names in (("ds-cord-ivim", ("ivim", "adc")), ("ds-brain-2shell", ("smt2", "adc"))):
        cases += [case for case in [real(name, dataset, arguments.data) for name in names] if case is not None]
    rows = [compare(case, arguments.scipy_voxels, arguments.repeats, rng) for case in cases]
    print(f"{machine()}; everything on one core.\n")
    print("Voxels a second (median of the turns), and bidsfit's speed as a multiple of SciPy's (range of the turns):\n")
    header = [
        "fit",
        "voxels",
        "bidsfit",
        "SciPy",
        "SciPy, Jacobian given",
        "times SciPy",
        "times SciPy, Jacobian given",
    ]
    print(table(header, [speed for speed, _ in rows]))
    print("Voxels whose sum of squares is more than 0.1 % above the other's (SciPy without and with the Jacobian), and")
    print("voxels in which SciPy, which does not know the constraint, has D > D* (not counted before):\n")
    header = ["fit", "compared", "bidsfit above", "SciPy above", "bidsfit above (J)", "SciPy above (J)", "SciPy D > D*"]
    print(table(header, [squares for _, squares in rows]))
    if arguments.threads > 1:
        print("Voxels a second of bidsfit by the clock (best of the turns), on as many cores as threads:\n")
        threads = range(1, arguments.threads + 1)
        scaling = [[case.name, *[clock(case, n, arguments.repeats) for n in threads]] for case in cases[:3]]
        print(table(["fit", *[f"{n} threads" if n > 1 else "1 thread" for n in threads]], scaling))


def clock(case: Case, threads: int, repeats: int) -> str:
    """Voxels a second with several threads."""
    if use_cores(threads) < threads:
        return "no such cores"
    estimator = LeastSquares(case.model)
    estimator.estimate(case.signals[:2], case.acquisition)
    times = []
    for _ in range(repeats):
        start = perf_counter()
        estimator.estimate(case.signals, case.acquisition, threads=threads)
        times.append(perf_counter() - start)
    return f"{len(case.signals) / min(times):,.0f}"


def compare(case: Case, n_scipy: int, repeats: int, rng: np.random.Generator) -> tuple[list[object], list[object]]:
    """Fit a case with both; rows of the tables of speed and of sums of squares."""
    estimator = LeastSquares(case.model)
    index = rng.permutation(len(case.signals))[:n_scipy]
    signals = case.signals[index]
    starts = grid_starts(estimator, case.acquisition, signals)
    residual, jacobian = equations(case.model.name, case.acquisition)
    estimator.estimate(case.signals[:2], case.acquisition)  # compiles
    estimate = estimator.estimate(signals, case.acquisition)
    predicted = case.model.signal(estimate.parameters, case.acquisition)
    ours = (signals - predicted) ** 2 @ case.acquisition.weights
    bounds = tuple(estimator.bounds.T)
    fitted: dict[str, list[tuple[float, NDArray]]] = {"2-point": [], "analytic": []}

    def scipy(kind: str, rows: slice) -> None:
        slope = "2-point" if kind == "2-point" else jacobian
        for y, x in zip(signals[rows], starts[rows], strict=True):
            result = least_squares(residual, x, slope, bounds, args=(y,))
            fitted[kind].append((2 * result.cost, result.x))

    n = len(signals)
    times = np.empty((repeats, 3))  # seconds a voxel
    for turn, rows in enumerate(slice(k * n // repeats, (k + 1) * n // repeats) for k in range(repeats)):
        many = max(1, 20_000 // len(case.signals))  # a measurable time for small images
        times[turn, 0] = seconds(
            lambda: [estimator.estimate(case.signals, case.acquisition) for _ in range(many)]  # noqa: B023
        ) / (many * len(case.signals))
        for k, kind in enumerate(fitted):
            times[turn, k + 1] = seconds(lambda: scipy(kind, rows)) / (rows.stop - rows.start)  # noqa: B023
    rates = 1 / np.median(times, axis=0)
    speed: list[object] = [case.name, f"{len(case.signals):,}", *[f"{rate:,.0f}" for rate in rates]]
    speed += [multiple(times[:, k] / times[:, 0]) for k in (1, 2)]

    floor = 1e-12 * signals**2 @ case.acquisition.weights  # below it both fit exactly, to a millionth of the signal
    row: list[object] = [case.name, f"{n:,}"]
    outside = 0
    for kind in fitted:
        theirs = np.array([cost for cost, _ in fitted[kind]])
        feasible = np.ones(n, dtype=bool)
        if case.model.constraints:
            matrix, limits = case.model.linear_constraints
            points = np.array([point for _, point in fitted[kind]])
            feasible = np.all(points @ matrix.T <= limits, axis=1)
            outside = max(outside, int(np.sum(~feasible)))
        row.append(percent(np.mean((ours > 1.001 * theirs + floor) & feasible)))
        row.append(percent(np.mean(theirs > 1.001 * ours + floor)))
    row.append(outside)
    return speed, row


def grid_starts(estimator: LeastSquares, acquisition: Acquisition, signals: NDArray) -> NDArray:
    """The points from which bidsfit starts: the best node of its grid, S0 solved in closed form."""
    model = estimator.model
    root_weights = np.sqrt(acquisition.weights)
    nodes = starting_points(model, estimator.bounds)
    node_signals = model.signal(nodes, acquisition) * root_weights
    scores, energies = (signals * root_weights) @ node_signals.T, np.sum(node_signals**2, axis=1)
    amplitudes = np.maximum(scores / energies, 0)
    best = np.argmax(amplitudes * (2 * scores - amplitudes * energies), axis=1)
    points = nodes[best]
    points[:, model.scale_index] = amplitudes[np.arange(len(signals)), best]
    return points


def equations(name: str, acquisition: Acquisition) -> tuple[Function, Function]:
    """Weighted residuals and their Jacobian as a user of SciPy would write them: NumPy over the measurements."""
    b, w = acquisition.variable("b"), np.sqrt(acquisition.weights)

    if name == "adc":

        def signal(x: NDArray) -> NDArray:
            return x[0] * np.exp(-b * x[1])

        def slope(x: NDArray) -> NDArray:
            e = np.exp(-b * x[1])
            return np.array([e, -b * x[0] * e])

    elif name == "ivim":

        def signal(x: NDArray) -> NDArray:
            return x[0] * ((1 - x[1]) * np.exp(-b * x[2]) + x[1] * np.exp(-b * x[3]))

        def slope(x: NDArray) -> NDArray:
            tissue, blood = np.exp(-b * x[2]), np.exp(-b * x[3])
            return np.array(
                [
                    (1 - x[1]) * tissue + x[1] * blood,
                    x[0] * (blood - tissue),
                    -b * x[0] * (1 - x[1]) * tissue,
                    -b * x[0] * x[1] * blood,
                ]
            )

    else:

        def average(z: NDArray) -> tuple[NDArray, NDArray]:
            """Direction average of exp(-z cos^2), and its derivative."""
            z = np.maximum(z, 1e-6)  # the removable singularity
            root = np.sqrt(z)
            value = np.sqrt(np.pi) / 2 * erf(root) / root
            return value, (np.exp(-z) - value) / (2 * z)

        def signal(x: NDArray) -> NDArray:
            inside, _ = average(b * x[2])
            outside, _ = average(b * x[1] * x[2])
            return x[0] * (x[1] * inside + (1 - x[1]) * np.exp(-b * (1 - x[1]) * x[2]) * outside)

        def slope(x: NDArray) -> NDArray:
            inside, inside_slope = average(b * x[2])
            outside, outside_slope = average(b * x[1] * x[2])
            rest, decay = 1 - x[1], np.exp(-b * (1 - x[1]) * x[2])
            extra = decay * outside
            return np.array(
                [
                    x[1] * inside + rest * extra,
                    x[0] * (inside - extra + rest * b * x[2] * (extra + decay * outside_slope)),
                    x[0] * b * (x[1] * inside_slope + rest * (x[1] * decay * outside_slope - rest * extra)),
                ]
            )

    return lambda x, y: w * (signal(x) - y), lambda x, y: (w * slope(x)).T


if __name__ == "__main__":
    main()
