"""Four questions about the training of networks, on held-out simulations.

- ``calibration``: does a network that states its standard deviation, or one that is trained for little bias, give
  better intervals than one that is trained on squared errors?
- ``start``: does least squares that starts from a network end in fewer inferior minima, and sooner?
- ``resampling``: do more training samples where the bias is large make it smaller and more even (Gyori et al. 2022)?
- ``output``: is the sigmoid at the output of a network why D* comes out too high?

Networks have three hidden layers of 64 exponential linear units (recipe mse-crb), and all that are compared see as many
signals, of SNR 25 with Gaussian noise unless a table says otherwise. Numbers of several networks are their mean and
half of their range. Errors and scores are relative to the width of the bounds, those of D* by output in um^2/ms.
"""

from __future__ import annotations

from _common import IVIM_B_VALUES, options, percent, simulated, table, use_cores  # isort: skip

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from time import process_time
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import RegularGridInterpolator

from bidsfit import LeastSquares, companions, models
from bidsfit.acquisition import Acquisition
from bidsfit.estimators.estimator import Status
from bidsfit.estimators.solver import Solver
from bidsfit.evaluation.experiments import Setting, true_points
from bidsfit.laboratory.gyori2022 import setting as of_gyori
from bidsfit.models.priors import priors_of
from bidsfit.models.space import ParameterSpace, bounds_of, fill
from bidsfit.simulation.distributions import Distribution, Informed, Uniform
from bidsfit.simulation.simulator import Noise, Simulation
from bidsfit.trained.network import Network
from bidsfit.training.architectures import Perceptron
from bidsfit.training.inference import Inverter
from bidsfit.training.objectives import Logits, Objective, Parameters, Signals
from bidsfit.training.recipe import Recipe
from bidsfit.training.task import Task, fit, train
from bidsfit.training.trainer import Schedule

SNR, SEEDS, REPEATS = 25.0, 2, 200
#: Voxels of a step.
BATCH = 4096
#: Noisy copies of a voxel where bias and variance are told apart.
COPIES = 16
NORMAL, ALPHA = 1.96, 0.05
#: A sum of squares is inferior this far above the least that is known.
INFERIOR = 1e-3


def main() -> None:
    questions: dict[str, Callable[[Any], None]] = {
        "calibration": calibration,
        "start": start,
        "resampling": resampling,
        "output": output,
    }
    parser = options(__doc__, voxels=20_000)
    parser.add_argument("--questions", nargs="+", choices=questions, default=list(questions), help="default: all")
    parser.add_argument("--steps", type=int, default=1000, help="of every training (default %(default)s)")
    parser.add_argument("--seeds", type=int, default=SEEDS, help="networks of every kind (default %(default)s)")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.voxels, arguments.steps, arguments.seeds = 500, 20, 1
    use_cores(1)
    for name in arguments.questions:
        questions[name](arguments)


def ivim(bounds: Mapping[str, tuple[float, float]] | None = None) -> Setting:
    """The model within its bounds, 16 b-values."""
    return Setting(ParameterSpace(models.get("ivim"), bounds), Acquisition(IVIM_B_VALUES), Noise(SNR))


def recipe(objective: Objective, steps: int, *, copies: int = 1, **choices: Any) -> Recipe:
    """A training in which every step has as many signals."""
    schedule = Schedule(peak_rate=0.002, steps=steps, batch=BATCH // copies, validation=16384 // copies, checks=20)
    simulation = Simulation(realisations=copies, **choices)
    return Recipe(Perceptron(64, 3, "elu"), objective, schedule, simulation)


def estimates_of(place: Setting, made: Recipe, seed: int, distribution: Distribution | None = None) -> Any:
    """Train a network; the result estimates the parameters of signals, shape (n, n_parameters)."""
    task = Task(distribution or Uniform(place.space), place.acquisition, place.noise, made, seed)
    invert = Inverter(made, fit(task).machine, place.space, place.acquisition)
    return lambda signals: invert(signals).parameters[:, place.space.places]


def bias_and_rmse(
    place: Setting, estimate: Any, truth: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Bias and root mean square error at every truth, relative to the width of the bounds."""
    found = estimate(place.measure(truth, REPEATS, 1)).reshape(len(truth), REPEATS, -1)
    errors = (found - truth[:, None]) / place.space.span
    return errors.mean(axis=1), np.sqrt((errors**2).mean(axis=1))


def over_seeds(values: Sequence[float], form: str = ".3f") -> str:
    """Mean, and half of the range."""
    return f"{np.mean(values):{form}} ± {(max(values) - min(values)) / 2:{form}}"


def calibration(arguments: Any) -> None:
    """Coverage and interval score of the 95 % intervals of networks, where truths are uniform and of the priors."""
    place, steps = ivim(), arguments.steps
    space, model = place.space, place.space.model
    bound = Parameters(scale="bound", widening=0.3)
    reduced = recipe(replace(bound, form="wvce"), steps - steps // 2, copies=COPIES)
    reduced = replace(reduced, schedule=replace(reduced.schedule, optimiser="radam", peak_rate=1e-3))
    made = {
        "squared error": recipe(Parameters(), steps),
        "stated spread": recipe(Parameters(error="stated"), steps),
        "bias-reduced": replace(reduced, start=recipe(bound, steps // 2)),
    }
    priors = Informed(space, priors_of(model, bounds_of(model)))
    rng, truths = np.random.default_rng(100), {}
    for name, distribution in (("uniform", Uniform(space)), ("priors", priors)):
        truths[name] = distribution.sample(arguments.voxels // 4, rng)
    few = Uniform(space).sample(200, rng)
    scores: dict[tuple[str, str], list[list[float]]] = {}
    for seed in range(arguments.seeds):
        for name, one in made.items():
            begun = process_time()
            bundle = train(Task(Uniform(space), place.acquisition, place.noise, one, seed))
            spent = process_time() - begun
            network = Network(model, distribution="uniform", snr=SNR, noise="gaussian", trained=bundle)
            size = np.abs(bias_and_rmse(place, partial(place.estimate, network), few)[0]).mean(axis=0)
            numbers: dict[tuple[str, str], list[float]] = {}
            for truth in truths.values():
                for (parameter, kind), (low, high) in intervals(network, place, place.measure(truth, 1, 2)).items():
                    j = space.names.index(parameter)
                    found = judged(truth[:, j], low, high, space.span[j])
                    numbers.setdefault((parameter, f"{name}, {kind}"), []).extend(found)
            for (parameter, interval), values in numbers.items():
                about = [*values, float(size[space.names.index(parameter)]), spent]
                scores.setdefault((parameter, interval), []).append(about)
    print(f"## Intervals of 95 %, SNR {SNR:g}, {arguments.seeds} networks of each, {steps} steps\n")
    header = ["parameter, network, interval"]
    for name in truths:
        header += [f"{name}: coverage", "least of ten bins", "interval score"]
    rows = [
        [", ".join(key), *(over_seeds(column) for column in zip(*values, strict=True))]
        for key, values in scores.items()
    ]
    print(table([*header, "mean absolute bias", "CPU seconds"], sorted(rows, key=lambda row: row[0].split(",")[0])))


def intervals(
    network: Network, place: Setting, signals: NDArray[np.float64]
) -> dict[tuple[str, str], tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """Ends of the 95 % intervals of signals, by parameter and kind: of simulation, or as the network states them."""
    found = network.estimate(signals, place.acquisition, 1 / SNR)
    known = {"signals": signals, "acquisition": place.acquisition}
    maps = companions(network, found, 1 / SNR, kind="gaussian", **known)
    ends = {(name, "simulated"): (maps["q025"][name], maps["q975"][name]) for name in place.space.names}
    for name, (low, high) in place.space.facts.items():
        if "sd" in maps:
            estimate, reach = found.parameters[name], NORMAL * maps["sd"][name]
            ends[name, "stated"] = np.clip(estimate - reach, low, high), np.clip(estimate + reach, low, high)
    return ends


def judged(
    truth: NDArray[np.float64], low: NDArray[np.float64], high: NDArray[np.float64], span: float
) -> tuple[float, float, float]:
    """Coverage of intervals, the least in tenths of the truths, and the interval score relative to the bounds."""
    inside = (low <= truth) & (truth <= high)
    tenths = np.array_split(inside[np.argsort(truth)], 10)
    missed = np.maximum(low - truth, 0) + np.maximum(truth - high, 0)
    return (
        float(inside.mean()),
        float(min(map(np.mean, tenths))),
        float((high - low + 2 / ALPHA * missed).mean() / span),
    )


def start(arguments: Any) -> None:
    """Least squares from its grid, from a network, and from both: inferior minima and processor time."""
    place = ivim()
    model, n = place.space.model, arguments.voxels
    bounds = bounds_of(model)
    made = recipe(Parameters(), arguments.steps, snr_range=(10.0, 100.0))
    invert = Inverter(
        made,
        fit(Task(Uniform(place.space), place.acquisition, place.noise, made)).machine,
        place.space,
        place.acquisition,
    )
    solver = Solver(model, bounds, place.acquisition, "gaussian")
    precision, rng = np.ones(n), np.random.default_rng(4)

    def descend(y: NDArray, points: NDArray | None = None) -> tuple[NDArray, NDArray]:
        found = np.full((len(y), len(model.names)), np.nan)
        return solver.fit(y, precision[: len(y)], found, points)

    def from_network(y: NDArray) -> tuple[NDArray, NDArray]:
        return descend(y, invert(y).parameters)

    def at_random(y: NDArray) -> tuple[NDArray, NDArray]:
        return descend(y, place.space.with_scale(place.space.sample(len(y), rng)))

    def again_at_bounds(y: NDArray) -> tuple[NDArray, NDArray]:
        cost, status = from_network(y)
        ended = np.flatnonzero(status == Status.AT_BOUND)
        cost[ended] = np.minimum(cost[ended], descend(y[ended])[0])
        return cost, status

    ways = {
        "grid (lsq)": descend,
        "network": from_network,
        "network; grid where it ends at a bound": again_at_bounds,
        "the better of grid and network": lambda y: (np.minimum(descend(y)[0], from_network(y)[0]), None),
        "the better of grid and a point at random": lambda y: (np.minimum(descend(y)[0], at_random(y)[0]), None),
    }
    rows = []
    for snr in (15.0, 50.0):
        y = simulated("ivim", n, snr, rng).signals
        costs, spent = {}, {}
        for name, way in ways.items():
            way(y[:100])  # compiles
            begun = process_time()
            costs[name] = way(y)[0]
            spent[name] = process_time() - begun
        least = np.min(list(costs.values()), axis=0)
        for _ in range(20):  # whatever random starts find
            least = np.minimum(least, at_random(y)[0])
        for name, cost in costs.items():
            inferior = np.mean(cost > least * (1 + INFERIOR))
            faster = spent["grid (lsq)"] / spent[name]
            rows.append([f"SNR {snr:g}, {name}", percent(inferior), f"{len(y) / spent[name]:,.0f}", f"{faster:.2f}"])
    print(f"## Starts of least squares, {n:,} voxels\n")
    print(table(["start", "inferior minima", "voxels a second", "times lsq"], rows))


@dataclass(frozen=True)
class Weighted:
    """A distribution over a space, half uniform and half in proportion to weights on a full regular grid."""

    space: ParameterSpace
    grid: NDArray[np.float64]
    weights: NDArray[np.float64]
    facts: Any = None
    arrays: Any = None

    def sample(self, n: int, rng: np.random.Generator) -> NDArray[np.float64]:
        axes = [np.unique(column) for column in self.grid.T]
        weight = RegularGridInterpolator(axes, self.weights.reshape([axis.size for axis in axes]))
        most = self.weights.max()
        chosen = fill(n // 2, self.space.sample, lambda x: rng.random(len(x)) * most < weight(x), rng)
        return rng.permutation(np.concatenate([self.space.sample(n - n // 2, rng), chosen]))


def resampling(arguments: Any) -> None:
    """Bias over the space of a network that is trained again with more samples where the last one had bias."""
    bounds = {"f": (0.0, 0.5), "D": (0.2, 3.0), "Dstar": (5.0, 100.0)}
    rows = []
    for place in (of_gyori("smt2", SNR), ivim(bounds)):
        space = place.space
        truth = true_points(space)
        numbers: dict[str, list[list[float]]] = {}
        for seed in range(arguments.seeds):
            distribution: Any = Uniform(space)
            for turn in ("uniform", "resampled", "resampled twice"):
                estimate = estimates_of(place, recipe(Parameters(), arguments.steps), seed, distribution)
                bias, rmse = bias_and_rmse(place, estimate, truth)
                size = np.abs(bias)
                numbers.setdefault(turn, []).append(
                    [x for j in range(len(space.names)) for x in measures(size[:, j], rmse[:, j])]
                )
                distribution = Weighted(space, truth, size.sum(axis=1))
        columns = {
            turn: np.array(values).reshape(len(values), len(space.names), -1) for turn, values in numbers.items()
        }
        for j, name in enumerate(space.names):
            for turn, found in columns.items():
                title = f"{space.model.name}, {name}, {turn}"
                rows.append([title, *(over_seeds(column.tolist()) for column in found[:, j].T)])
    print(f"## Resampling where there is bias, {arguments.seeds} networks of each, {arguments.steps} steps\n")
    print(table(["parameter, training", "mean absolute bias", "its 95th percentile", "RMSE"], rows))


def measures(size: NDArray[np.float64], rmse: NDArray[np.float64]) -> tuple[float, float, float]:
    """Mean and 95th percentile of the absolute bias, and mean root mean square error."""
    return float(size.mean()), float(np.quantile(size, 0.95)), float(rmse.mean())


def output(arguments: Any) -> None:
    """Estimates of D* by networks with other outputs, at truths as in tissue."""
    place = ivim()
    low, high = np.array([[0.05, 0.5, 8.0], [0.3, 2.0, 60.0]])
    truth = np.random.default_rng(3).uniform(low, high, (arguments.voxels // 20, 3))
    made: dict[str, Objective] = {
        "parameters, sigmoid": Parameters(),
        "parameters, sigmoid widened by 0.3": Parameters(widening=0.3),
        "parameters, absolute": Parameters(output="absolute"),
        "parameters, squared error of logits": Logits(),
        "signals, sigmoid": Signals(),
        "signals, sigmoid widened by 0.3": Signals(widening=0.3),
        "signals, absolute": Signals(output="absolute"),
    }
    space = place.space
    priors = Informed(space, priors_of(space.model, bounds_of(space.model)))
    cases = [(name, objective, Uniform(space)) for name, objective in made.items()]
    cases += [(f"{name}, taught on the priors", made[name], priors) for name in made if name.endswith("sigmoid")]
    signals, x = place.measure(truth, REPEATS, 1), np.repeat(truth[:, 2], REPEATS)

    def numbers(found: NDArray[np.float64]) -> list[float]:
        error = found[:, 2] - x
        above = [float(np.mean(found[:, 2] > limit)) for limit in (100.0, 190.0)]
        return [float(error.mean()), float(np.median(error)), float(np.sqrt((error**2).mean())), *above]

    rows = [["least squares", *(f"{v:.2f}" for v in numbers(place.estimate(LeastSquares(space.model), signals)))]]
    for name, objective, distribution in cases:
        made_of = recipe(objective, arguments.steps)
        seeds = [numbers(estimates_of(place, made_of, k, distribution)(signals)) for k in range(arguments.seeds)]
        rows.append([name, *(over_seeds(column, ".2f") for column in zip(*seeds, strict=True))])
    print(f"## D* by the output of the network, {arguments.seeds} networks of each, {arguments.steps} steps\n")
    header = ["objective, output", "mean error", "median error", "RMSE", "share above 100", "above 190"]
    print(table(header, rows))


if __name__ == "__main__":
    main()
