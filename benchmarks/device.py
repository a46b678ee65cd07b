"""Speed and agreement of fits on a GPU beside the compiled code on the processor.

Both fit the same magnitudes with Rician noise in turns, and are timed by the clock: the compiled code on as many cores
as ``--threads`` says, the device with as many threads beside it. Where the device is not there, the command says so.
"""

from __future__ import annotations

from _common import machine, options, percent, table, use_cores  # isort: skip

from time import perf_counter

import numpy as np
import torch
from maximum_likelihood import Case, simulated

from bidsfit.estimators.estimator import Estimate
from bidsfit.estimators.least_squares import LeastSquares
from bidsfit.estimators.maximum_likelihood import MaximumLikelihood
from bidsfit.information import bound_of_voxels


def main() -> None:
    parser = options(__doc__, voxels=500_000)
    parser.add_argument("--device", default="cuda", help="torch device (default %(default)s)")
    parser.add_argument("--repeats", type=int, default=5, help="turns (default %(default)s)")
    parser.add_argument("--snr", type=float, nargs="+", default=[50.0, 20.0], help="at S0, of one measurement")
    parser.add_argument("--threads", type=int, default=8, help="threads and cores (default %(default)s)")
    arguments = parser.parse_args()
    device, cuda = arguments.device, arguments.device.startswith("cuda")
    if cuda and not torch.cuda.is_available():
        print(f"Skipped: torch finds no GPU here (--device {device}).\n")
        return
    if arguments.quick:
        arguments.voxels, arguments.repeats = 2000, 2
    threads = use_cores(arguments.threads)
    torch.set_num_threads(threads)
    rng = np.random.default_rng(2024)
    cases = [simulated(name, arguments.voxels, snr, rng) for name in ("ivim", "smt2") for snr in arguments.snr]
    makers = LeastSquares, MaximumLikelihood
    rows = [compare(case, make, device, threads, arguments.repeats) for case in cases for make in makers]
    place = torch.cuda.get_device_name(device) if cuda else device
    print(f"{machine()}; {threads} threads; device: {place}; {arguments.voxels:,} voxels.\n")
    print("Voxels a second, the device's speed as a multiple of the compiled code's (range of the turns), voxels whose")
    print("parameters agree to a tenth of a standard deviation, and voxels of the same status:\n")
    print(table(["fit", "compiled", "device", "times compiled", "within 0.1 sd", "same status"], rows))


def compare(case: Case, make: type, device: str, threads: int, repeats: int) -> list[object]:
    """Fit a case with both; a row of the table."""
    estimators = [make(case.model, device=where) for where in (None, device)]
    for estimator in estimators:
        estimator.warm_up(case.acquisition)
    times, estimates = np.empty((repeats, 2)), list[Estimate]()
    for turn in range(repeats):
        estimates.clear()
        for k, estimator in enumerate(estimators):
            start = perf_counter()
            estimates.append(estimator.estimate(case.magnitudes, case.acquisition, case.sigma, threads=threads))
            times[turn, k] = perf_counter() - start
    compiled, other = (case.model.parameter_array(estimate.parameters) for estimate in estimates)
    sigma = np.full(len(compiled), case.sigma)
    spread = bound_of_voxels(case.model, compiled, estimates[0].acquisition, sigma, make(case.model).likelihood)
    ratios = times[:, 0] / times[:, 1]
    near = np.abs(other - compiled) <= 0.1 * np.nan_to_num(spread, nan=np.inf)
    return [
        f"{case.name}, {make.name}",  # type: ignore[attr-defined]
        *(f"{len(compiled) / seconds:,.0f}" for seconds in np.median(times, axis=0)),
        f"**{np.median(ratios):.2g}** ({ratios.min():.2g} to {ratios.max():.2g})",
        percent(near.all(axis=1).mean()),
        percent(np.mean(estimates[0].status == estimates[1].status)),
    ]


if __name__ == "__main__":
    main()
