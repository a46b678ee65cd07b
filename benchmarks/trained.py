"""Speed of trained estimators: the whole estimate beside the bare network in torch, a bare forest, and least squares.

The network is trained here (a minute or more), or read from the file that --file names. Everything of a row is measured
in turns in one run, by the clock, on as many threads as --threads says.
"""

from __future__ import annotations

from _common import SMT_B_VALUES, machine, multiple, options, table  # isort: skip

from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
from threadpoolctl import threadpool_limits

from bidsfit import models
from bidsfit.acquisition import Acquisition
from bidsfit.estimators.least_squares import LeastSquares
from bidsfit.simulation.simulator import Features
from bidsfit.trained.forest import Forest
from bidsfit.trained.network import Network
from bidsfit.training.architectures import Perceptron
from bidsfit.training.bundle import read_bundle
from bidsfit.training.task import train


def main() -> None:
    parser = options(__doc__, voxels=400_000)
    parser.add_argument("--threads", type=int, default=2, help="default %(default)s")
    parser.add_argument("--repeats", type=int, default=5, help="turns (default %(default)s)")
    parser.add_argument("--file", type=Path, help="a trained net-uniform of smt2 for the protocol of the paper")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.voxels, arguments.repeats = 50_000, 2
    model, counts = models.get("smt2"), [1, *[32] * (len(SMT_B_VALUES) - 1)]
    acquisition = Acquisition(SMT_B_VALUES, counts=counts, n_directions=counts)
    rng = np.random.default_rng(0)
    truth = {"S0": 1.0, "vcyl": rng.uniform(0, 1, arguments.voxels), "lambda": rng.uniform(0, 3, arguments.voxels)}
    signals = model.signal(truth, acquisition)
    signals[:, 1:] += rng.normal(0, 1 / 25 / np.sqrt(32), (arguments.voxels, len(SMT_B_VALUES) - 1))

    recipe = "quick" if arguments.quick else ""
    network, forest = (
        trained(kind, f"{name}-{recipe}".strip("-"), acquisition, arguments)
        for kind, name in ((Network, "network"), (Forest, "forest"))
    )
    bare = Perceptron(units=280, hidden_layers=2).module(len(Features(model, acquisition)), 2)
    features = Features(model, acquisition)(signals)
    trees = forest.trained.machine

    def in_torch() -> None:
        torch.set_num_threads(arguments.threads)
        with torch.inference_mode():
            for start in range(0, len(features), 2048):
                torch.sigmoid(bare(torch.from_numpy(features[start : start + 2048])))

    def in_scikit_learn() -> None:
        trees.set_params(n_jobs=arguments.threads).predict(features)
        trees.set_params(n_jobs=None)

    def whole(estimator: Any) -> Callable[[], None]:
        return lambda: estimator.estimate(signals, acquisition, 1 / 25, threads=arguments.threads)

    work = {
        "net-uniform, whole estimate": whole(network),
        "network of 280 units in torch, outputs alone": in_torch,
        "forest-uniform, whole estimate": whole(forest),
        "forest in scikit-learn, outputs alone": in_scikit_learn,
        "lsq, whole estimate": whole(LeastSquares(model, s0="measured")),
    }
    seconds: dict[str, list[float]] = {name: [] for name in work}
    for turn in range(arguments.repeats + 1):
        for name, run in work.items():
            with threadpool_limits(arguments.threads):
                start = perf_counter()
                run()
            if turn:  # the first compiles
                seconds[name].append(perf_counter() - start)
    units = network.trained.facts["Training"]["Units"]
    print(f"{machine()}; {arguments.threads} threads. Units of the network that are not silent: {units}.\n")
    times = {name: np.array(values) for name, values in seconds.items()}
    lsq = times["lsq, whole estimate"]
    rows = [
        [name, f"{arguments.voxels / np.median(values):,.0f}", multiple(lsq / values)] for name, values in times.items()
    ]
    print(table(["estimator", "voxels a second", "times lsq"], rows))


def trained(kind: Any, recipe: str, acquisition: Acquisition, arguments: Any) -> Any:
    """An estimator, trained or read."""
    model = models.get("smt2")
    plan = kind(model, snr=25.0, noise="gaussian", recipe=recipe)
    if kind is Network and arguments.file:
        bundle = read_bundle(arguments.file)
    else:
        bundle = train(plan.task(acquisition, 25.0, lowest=False), threads=arguments.threads)
    return kind(model, snr=25.0, noise="gaussian", trained=bundle)


if __name__ == "__main__":
    main()
