"""Accuracy of the spherical mean technique beside the traditional fitting of Gyori et al. 2022.

The paper's experiment: vcyl 0 to 1 and lambda 0 to 3 um^2/ms on a 21 x 21 grid, b = 1000, 2000, 3500, 5000 s/mm^2
with 32 directions each, Gaussian noise, SNR 25, S0 free of noise. Bias, standard deviation and root mean square error
are taken over the noise at every point of the grid and averaged over the grid.
"""

from __future__ import annotations

from _common import SMT_B_VALUES, machine, options, table, use_cores  # isort: skip (limits threads)

import numpy as np
from numpy.typing import NDArray

from bidsfit import models
from bidsfit.acquisition import Acquisition
from bidsfit.estimators.least_squares import LeastSquares

#: RMSE, |bias| and SD of the paper's traditional fitting at SNR 25.
PAPER = {"vcyl": (0.0883, 0.0313, 0.0742), "lambda": (0.1106, 0.0130, 0.1087)}


def main() -> None:
    parser = options(__doc__, voxels=441_000)
    parser.add_argument("--snr", type=float, default=25.0, help="of one measurement at S0 (default %(default)s)")
    arguments = parser.parse_args()
    repeats = 50 if arguments.quick else max(arguments.voxels // 441, 2)
    use_cores(1)
    model = models.get("smt2")
    counts = [1, *[32] * (len(SMT_B_VALUES) - 1)]
    acquisition = Acquisition(SMT_B_VALUES, counts=counts, n_directions=counts)
    vcyl, diffusivity = (x.ravel() for x in np.meshgrid(np.linspace(0, 1, 21), np.linspace(0, 3, 21), indexing="ij"))
    truth = {"vcyl": vcyl, "lambda": diffusivity}
    clean = np.repeat(model.signal({"S0": 1.0, **truth}, acquisition), repeats, axis=0)
    noise = np.random.default_rng(2024).normal(0, 1 / arguments.snr / np.sqrt(32), clean.shape)
    noise[:, 0] = 0
    rows = []
    estimators = {"S0 as measured": LeastSquares(model, s0="measured"), "S0 fitted": LeastSquares(model)}
    for label, estimator in estimators.items():
        estimate = estimator.estimate(clean + noise, acquisition)
        for name in PAPER:
            errors = estimate.parameters[name].reshape(-1, repeats) - truth[name][:, None]
            rows.append([f"{name}, bidsfit lsq, {label}", *[f"{value:.4f}" for value in summary(errors)]])
    for name, values in PAPER.items():
        rows.append([f"{name}, Gyori et al., traditional fitting", *[f"{value:.4f}" for value in values]])
    print(f"{machine()}.\n")
    print(f"SNR {arguments.snr:g}, {repeats:,} noise samples at each of 441 points; lambda in um^2/ms:\n")
    rows.sort(key=lambda row: not row[0].startswith("vcyl"))
    print(table(["parameter", "mean RMSE", "mean absolute bias", "mean SD"], rows))


def summary(errors: NDArray[np.float64]) -> tuple[float, float, float]:
    """RMSE, |bias| and SD of errors of shape (points, samples), averaged over the points."""
    rmse = np.sqrt(np.mean(errors**2, axis=1))
    return float(rmse.mean()), float(np.abs(errors.mean(axis=1)).mean()), float(errors.std(axis=1).mean())


if __name__ == "__main__":
    main()
