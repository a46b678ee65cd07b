"""Speed beside DIPY's IVIM ("trr": bounded trust region, after linear fits of parts of the data).

Both fit the same voxels on one core, in turns (A B C A B C ...), and the medians of the turns are compared. DIPY runs
twice: with the bounds of bidsfit, so that both solve the same problem, and with its own, where it stops early in every
voxel whose linear fit leaves them (f at most 0.3) and returns that linear fit with a warning. DIPY fits a random part
of the voxels.

DIPY needs b = 0 and a b0_threshold of 0. The spinal cord image has no b = 0: there DIPY gets b - 5, which only changes
what S0 and f mean (a bi-exponential stays one), so that it runs. The two-shell brain image has too few b-values.
"""

from __future__ import annotations

from _common import Case, machine, multiple, options, percent, real, seconds, simulated, table, use_cores  # isort: skip

import warnings

import numpy as np
from dipy.core.gradients import gradient_table
from dipy.reconst.ivim import IvimModel
from numpy.typing import NDArray

from bidsfit.estimators.least_squares import LeastSquares


def main() -> None:
    parser = options(__doc__, voxels=100_000)
    parser.add_argument("--dipy-voxels", type=int, default=1500, help="voxels that DIPY fits (default %(default)s)")
    parser.add_argument("--repeats", type=int, default=5, help="turns (default %(default)s)")
    parser.add_argument("--snr", type=float, nargs="+", default=[50.0, 15.0], help="of the simulated voxels")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.voxels, arguments.dipy_voxels, arguments.repeats = 2000, 90, 3
    use_cores(1)
    warnings.simplefilter("ignore")  # DIPY warns that there are bounds, at every use
    rng = np.random.default_rng(2024)
    cases = [simulated("ivim", arguments.voxels, snr, rng) for snr in arguments.snr]
    cases += [case for case in [real("ivim", "ds-cord-ivim", arguments.data)] if case is not None]
    rows = [compare(case, arguments.dipy_voxels, arguments.repeats, rng) for case in cases]
    print(f"{machine()}; everything on one core.\n")
    print("Voxels a second (median of the turns), and bidsfit's speed as a multiple of DIPY's (range of the turns):\n")
    header = ["fit", "voxels", "bidsfit", "DIPY, same bounds", "DIPY, own bounds", "times DIPY, same bounds"]
    print(table([*header, "times DIPY, own bounds"], [speed for speed, _ in rows]))
    print(
        "Voxels in which DIPY returns its linear fit; and, with the same bounds, in which it leaves them or has D > D*,"
    )
    print("and in which the sum of squares is more than 0.1 % above the other's (not counting the former):\n")
    header = ["fit", "linear, same bounds", "linear, own bounds", "outside", "bidsfit above DIPY", "DIPY above bidsfit"]
    print(table(header, [squares for _, squares in rows]))


def compare(case: Case, n_dipy: int, repeats: int, rng: np.random.Generator) -> tuple[list[object], list[object]]:
    """Fit a case with both; rows of the two tables."""
    acquisition = case.acquisition
    estimator = LeastSquares(case.model)
    signals = case.signals[rng.permutation(len(case.signals))[:n_dipy]]
    b = acquisition.b_values - acquisition.b_values.min()
    gradients = gradient_table(b, bvecs=np.where(b[:, None] > 0, [1.0, 0.0, 0.0], 0.0), b0_threshold=0)
    order = [case.model.names.index(name) for name in ("S0", "f", "Dstar", "D")]  # DIPY's
    same = estimator.bounds[order].T * [1, 1, 1e-3, 1e-3]  # mm^2/s
    dipy = [IvimModel(gradients, fit_method="trr", bounds=bounds) for bounds in (list(same), None)]
    estimator.estimate(case.signals[:2], acquisition)  # compiles

    n = len(signals)
    found: list[list[NDArray]] = [[], []]
    linear = np.zeros(2)
    times = np.empty((repeats, 3))  # seconds a voxel
    many = max(1, 20_000 // len(case.signals))  # a measurable time for small images

    def fit(k: int, part: slice) -> None:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            found[k].append(dipy[k].fit(signals[part]).model_params)
        linear[k] += sum("Bounds are violated" in str(warning.message) for warning in caught)

    for turn, part in enumerate(slice(k * n // repeats, (k + 1) * n // repeats) for k in range(repeats)):
        taken = seconds(lambda: [estimator.estimate(case.signals, acquisition) for _ in range(many)])
        times[turn, 0] = taken / (many * len(case.signals))
        for k in range(2):
            times[turn, k + 1] = seconds(lambda: fit(k, part)) / (part.stop - part.start)  # noqa: B023

    points = np.concatenate(found[0])
    s0, f, fast, slow = points.T[:, :, None]
    curves = s0 * ((1 - f) * np.exp(-b * slow) + f * np.exp(-b * fast))
    theirs = np.sum((signals - curves) ** 2, axis=1)
    estimate = estimator.estimate(signals, acquisition)
    ours = np.sum((signals - case.model.signal(estimate.parameters, acquisition)) ** 2, axis=1)
    rates = [f"{rate:,.0f}" for rate in 1 / np.median(times, axis=0)]
    speed: list[object] = [
        case.name,
        f"{len(case.signals):,}",
        *rates,
        *[multiple(times[:, k] / times[:, 0]) for k in (1, 2)],
    ]
    allowed = np.all((points >= same[0]) & (points <= same[1]), axis=1) & (points[:, 3] <= points[:, 2])
    above = np.mean((ours > 1.001 * theirs) & allowed), np.mean(theirs > 1.001 * ours)
    shares = [percent(share) for share in (*linear / n, np.mean(~allowed), *above)]
    return speed, [case.name, *shares]


if __name__ == "__main__":
    main()
