"""Kaandorp et al. 2025, networks that see neighbours, and what they do to a lesion.

Kaandorp MPT, Zijlstra F, Karimi D, Gholipour A, While PT. Incorporating spatial information in deep learning parameter
estimation with application to the intravoxel incoherent motion model in diffusion-weighted MRI. Medical Image Analysis
2025;101:103414. Paper III of Kaandorp's thesis, whose summary and published settings this follows.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bidsfit import models
from bidsfit.acquisition import Acquisition
from bidsfit.estimators.least_squares import LeastSquares
from bidsfit.laboratory.gallery import axes_of
from bidsfit.laboratory.paper import Exhibit, Options, Paper, Reproduction
from bidsfit.models.space import ParameterSpace
from bidsfit.phantom.head import make_fractal
from bidsfit.phantom.tissue import TISSUES, recipe
from bidsfit.reports.boxes import Case, Group, plot_boxes
from bidsfit.reports.neighbours import disc, plot_errors, plot_responses
from bidsfit.simulation.distributions import Distribution, Tissues, Uniform
from bidsfit.simulation.simulator import Noise, noisy_averages
from bidsfit.training.inference import Inverter
from bidsfit.training.recipe import recipe_from
from bidsfit.training.task import Task
from bidsfit.trust.metrics import percentage_errors

#: s/mm^2, one image each; S0 / standard deviation of the noise where S0 is 1.
ACQUISITION = Acquisition([0, 5, 10, 20, 30, 40, 60, 80, 100, 150, 200, 400, 600, 800])
SNR = 200.0
#: What the trainings are uniform over, and least squares is bounded by (um^2/ms); S0 of the former is in a range.
SPACE = ParameterSpace(models.get("ivim"), {"f": (0.0, 0.5), "D": (0.0, 3.0), "Dstar": (3.0, 100.0)})
S0_RANGE = (0.01, 1.0)
#: Ranges of the tissues that the others are trained on.
RANGES: Mapping[str, Mapping[str, tuple[float, float]]] = {
    "CSF": {"S0": (0.5, 1.0), "f": (0.25, 0.5), "D": (1.0, 3.0), "Dstar": (20.0, 50.0)},
    "GM": {"S0": (0.2, 0.5), "f": (0.05, 0.25), "D": (0.5, 2.0), "Dstar": (3.0, 30.0)},
    "WM": {"S0": (0.05, 0.25), "f": (0.01, 0.1), "D": (0.3, 1.3), "Dstar": (3.0, 15.0)},
}

#: Networks by the voxels along a side of what they read.
VOXEL, CONVOLUTION = "voxel", "convolution 3"
NETWORKS: Mapping[str, Mapping[str, Any]] = {
    VOXEL: {"name": "perceptron", "hidden_layers": 2},
    CONVOLUTION: {"name": "convolution", "hidden_layers": 2},
    "neighbourhood 7": {"name": "neighbourhood-attention", "layers": 3},
    "self 7": {"name": "self-attention", "layers": 3, "window": 7},
    "neighbourhood 17": {"name": "neighbourhood-attention", "layers": 8},
    "self 17": {"name": "self-attention", "layers": 3, "window": 17},
}
#: Those of a quick run, and of the figures of lesions.
QUICK, LESIONED = list(NETWORKS)[:4], [VOXEL, CONVOLUTION, "neighbourhood 7"]
LSQ = "least squares"
#: Training sets by their names in the published code.
SETS: Mapping[str, Mapping[str, Any]] = {
    "patch-uniform": {"patches": "scattered", "s0_range": S0_RANGE},
    "patch-distribution": {"patches": "scattered", "tissues": RANGES},
    "mask-uniform": {"patches": "fractal", "s0_range": S0_RANGE},
    "mask-distribution": {"patches": "fractal", "tissues": RANGES},
}
BEST = "mask-distribution"
#: Of the published code: 3,000 epochs of 500 steps. A quick run has smaller networks.
SCHEDULE = {"steps": 1_500_000, "batch": 128, "peak_rate": 1e-4, "rate": "constant", "validation": 2048, "checks": 300}
ATTENTION_QUICK = {"steps": 1500, "batch": 64, "peak_rate": 3e-3, "validation": 2048, "checks": 10}
DENSE_QUICK = {"steps": 3000, "batch": 256, "peak_rate": 3e-3, "validation": 2048, "checks": 10}

#: Number and side of the fractal maps that are tested on, and repeated measurements of lesions.
MAPS, SIDE, REPEATS = 40, 128, 200
MAPS_QUICK, SIDE_QUICK, REPEATS_QUICK = 4, 64, 40
#: Diameters of lesions (voxels), and side of the image that they are in the middle of.
DIAMETERS, FIELD = (1.0, 3.0, 5.0, 7.0, 9.0, 13.0), 33
#: A lesion is seen where this share of the true change shows in the mean over it.
SEEN = 0.5
#: Voxels of the lesion among the surroundings, on average.
SMALL = 3.0

Truth = dict[str, NDArray[np.float64]]


def trained(run: Reproduction, network: str, training: str) -> tuple[Task, dict[str, NDArray[np.float32]]]:
    """A network after its training, which is kept."""
    small = run.quick
    architecture = dict(NETWORKS[network])
    attends = "attention" in architecture["name"]
    units = 64 if small and not attends else 32 if small else 128
    heads = {"heads": 2 if small else 8} if attends else {}
    simulation = {"unit": "noise", **SETS[training]}
    if network == VOXEL:
        del simulation["patches"]
    facts = {
        "simulation": simulation,
        "architecture": {**architecture, "units": units, **heads},
        "objective": {"name": "parameters", "output": "absolute", "s0": SNR},
        "schedule": (ATTENTION_QUICK if attends else DENSE_QUICK) if small else SCHEDULE,
    }
    tissues = SETS[training].get("tissues")
    distribution: Distribution = Uniform(SPACE) if tissues is None else Tissues(SPACE, tissues)
    task = Task(distribution, ACQUISITION, Noise(SNR, "rician"), recipe_from(facts, network), run.bench.seed)
    return task, run.bench.machine(task, f"{network} on {training}")


def measured(truth: Truth, repeats: int, seed: int) -> NDArray[np.float64]:
    """Noisy signals of a slice, measured several times, shape (x, y, repeats, n_averages)."""
    parameters = np.stack([truth[name].ravel() for name in SPACE.model.names], axis=1)
    clean = np.repeat(SPACE.model.signal(parameters, ACQUISITION), repeats, axis=0)
    noisy = noisy_averages(clean, ACQUISITION, np.full(len(clean), 1 / SNR), "rician", np.random.default_rng(seed))
    return noisy.reshape(*truth["S0"].shape, repeats, -1)


def estimates(
    run: Reproduction, network: str, signals: NDArray[np.float64], training: str = BEST
) -> NDArray[np.float64]:
    """Estimated parameters except S0 of slices (x, y, slices, n_averages), shape (x, y, slices, n_parameters)."""
    rows = signals.reshape(-1, signals.shape[-1])
    level = np.full(len(rows), 1 / SNR)
    if network == LSQ:
        bounds = {name: (low, high) for name, (low, high) in SPACE.facts.items()}
        fitted = LeastSquares(SPACE.model, bounds=bounds, intervals="none")
        found = fitted.estimate(rows, ACQUISITION, level, threads=run.bench.threads).points
    else:
        task, machine = trained(run, network, training)
        places = None if network == VOXEL else np.argwhere(np.ones(signals.shape[:3], dtype=bool))
        found = Inverter(task.recipe, machine, SPACE, ACQUISITION)(rows, places, level).parameters
    return found[:, SPACE.places].reshape(*signals.shape[:3], -1)


def errors_of(run: Reproduction, network: str, training: str = BEST) -> list[list[Any]]:
    """Tissue, parameter, MDAPE, MDPE and MAPE over fractal maps."""
    maps, side = (MAPS_QUICK, SIDE_QUICK) if run.quick else (MAPS, SIDE)
    found: list[NDArray] = []
    truths: list[NDArray] = []
    tissues: list[NDArray] = []
    for i in range(maps):
        head = make_fractal((side, side, 1), recipe("ivim"), np.random.default_rng([run.bench.seed, 1, i]))
        truth = {name: values[..., 0] for name, values in head.parameters.items()}
        found.append(estimates(run, network, measured(truth, 1, run.bench.seed + i), training).reshape(side**2, -1))
        truths.append(np.stack([truth[name].ravel() for name in SPACE.names], axis=1))
        tissues.append(head.tissue.ravel())
    estimate, known, tissue = np.concatenate(found), np.concatenate(truths), np.concatenate(tissues)
    rows: list[list[Any]] = []
    for label in ("all", "WM", "GM", "CSF"):
        here = np.full(len(tissue), True) if label == "all" else tissue == TISSUES[label]
        one = percentage_errors(estimate[here], known[here])
        rows += [[label, name, *(float(v[j]) for v in one)] for j, name in enumerate(SPACE.names)]
    return rows


def draw_errors(run: Reproduction, name: str, title: str, caption: str, found: Mapping[str, list[Any]]) -> None:
    """Draw MDAPE by tissue, and write all errors."""
    by_name: dict[str, dict[str, list[float]]] = {parameter: {} for parameter in SPACE.names}
    for rows in found.values():
        for tissue, parameter, mdape, *_ in rows:
            by_name[parameter].setdefault(tissue, []).append(mdape)
    run.gallery.draw(name, title, caption, plot_errors, list(found), by_name, axes_of(SPACE), words="MDAPE (%)")
    columns = ("network", "tissue", "parameter", "MDAPE", "MDPE", "MAPE")
    run.gallery.table(name, columns, [[label, *row] for label, rows in found.items() for row in rows])


class Order(NamedTuple):
    """A comparison of which the paper says that the first has the smaller error, or one not larger by ``slack``."""

    smaller: str
    larger: str
    slack: float = 0.0


def say_orders(run: Reproduction, name: str, found: Mapping[str, list[Any]], orders: list[Order]) -> None:
    """Table of what the paper found, and whether it is so here, by MDAPE and MAPE over all tissue."""
    rows = []
    for order in orders:
        if order.smaller in found and order.larger in found:
            for i, parameter in enumerate(SPACE.names):
                for k, error in ((2, "MDAPE"), (4, "MAPE")):
                    small, large = found[order.smaller][i][k], found[order.larger][i][k]
                    verdict = "holds" if small <= large * (1 + order.slack) else "does not hold"
                    rows.append([parameter, error, order.smaller, small, order.larger, large, verdict])
    columns = ("parameter", "error", "smaller in the paper", "%", "larger in the paper", "% ", "result")
    run.table(f"{name}-order", "Orders of the paper", columns, rows)


def neighbourhood(run: Reproduction, name: str) -> None:
    """Errors against what networks read."""
    networks = QUICK if run.quick else list(NETWORKS)
    found = {network: errors_of(run, network) for network in (LSQ, *networks)}
    caption = "Median absolute percentage error over fractal maps. Numbers are voxels along a side of what is read."
    draw_errors(run, name, "Errors against the neighbourhood", caption, found)
    grows = [VOXEL, CONVOLUTION, "neighbourhood 7", "neighbourhood 17"]
    orders = [Order(larger, smaller) for smaller, larger in pairwise(grows)]
    level = [Order(f"neighbourhood {n}", f"self {n}", slack=0.05) for n in (7, 17)]
    say_orders(run, name, found, [*orders, *level])


def training_set(run: Reproduction, name: str) -> None:
    """Errors of a network that was trained on each of the four sets."""
    network = "neighbourhood 7" if run.quick else "neighbourhood 17"
    found = {training: errors_of(run, network, training) for training in SETS}
    caption = f"Median absolute percentage error of {network} over fractal maps."
    draw_errors(run, name, "Errors against the training set", caption, found)
    say_orders(run, name, found, [Order(BEST, other) for other in SETS if other != BEST])


def middle(tissue: str, **others: float) -> Truth:
    """A slice of one tissue, each parameter in the middle of its range or as given."""
    values = {name: (low + high) / 2 for name, (low, high) in RANGES[tissue].items()} | others
    return {name: np.full((FIELD, FIELD), value) for name, value in values.items()}


def joined(inside: NDArray[np.bool_], first: Truth, second: Truth) -> Truth:
    """The first truth inside, and the second elsewhere."""
    return {name: np.where(inside, first[name], second[name]) for name in first}


def lesions(run: Reproduction, name: str) -> None:
    """How a lesion shows: grey matter in white matter, with its S0 or with that of white matter."""
    repeats = REPEATS_QUICK if run.quick else REPEATS
    white = middle("WM")
    seen: list[list[Any]] = []
    for kind, s0 in (("S0 of the lesion", None), ("S0 as around it", float(white["S0"][0, 0]))):
        grey = middle("GM", **({} if s0 is None else {"S0": s0}))
        change = np.array([grey[p][0, 0] - white[p][0, 0] for p in SPACE.names])
        maps: dict[str, list[NDArray]] = {}
        for network in (LSQ, *LESIONED):
            without = estimates(run, network, measured(white, repeats, run.bench.seed)).mean(axis=2)
            for diameter in DIAMETERS:
                inside = disc((FIELD, FIELD), diameter)
                with_it = estimates(run, network, measured(joined(inside, grey, white), repeats, run.bench.seed))
                response = (with_it.mean(axis=2) - without) / change
                maps.setdefault(network, []).append(response)
                within, centre = response[inside].mean(axis=0), response[FIELD // 2, FIELD // 2]
                around = response[~inside].sum(axis=0) / inside.sum()
                for j, parameter in enumerate(SPACE.names):
                    numbers = [centre[j], within[j], around[j], 1 - within[j] - around[j]]
                    seen.append([kind, network, parameter, diameter, *numbers])
        short = "" if s0 is None else "-same-s0"
        for j, (parameter, axis) in enumerate(axes_of(SPACE).items()):
            drawn = {network: [one[..., j] for one in of] for network, of in maps.items()}
            caption = (
                "Change of the mean estimate relative to the true change in the lesion; 0 is not seen, 1 is seen whole."
            )
            title = f"Response of {parameter} to a lesion, {kind}"
            options = {"words": f"response of {axis.label}"}
            run.gallery.draw(f"{name}-{parameter}{short}", title, caption, plot_responses, drawn, DIAMETERS, **options)
    columns = ("lesion", "network", "parameter", "diameter", "centre", "passed on", "spread", "swallowed")
    run.gallery.table(name, columns, seen)
    single = [row for row in seen if row[3] == 1.0]
    run.table(f"{name}-single", "What becomes of the change of a single voxel", columns, single)
    smallest = []
    for key in dict.fromkeys(tuple(row[:3]) for row in seen):
        own = [row for row in seen if tuple(row[:3]) == key]
        sizes = [row[3] for row in own if row[5] >= SEEN]
        smallest.append([*key, min(sizes) if sizes else f"above {max(DIAMETERS):g}"])
    caption = f"Smallest lesion of which {SEEN:.0%} shows, mean over its voxels"
    run.table(f"{name}-seen", caption, ("lesion", "network", "parameter", "diameter"), smallest)


def surroundings(run: Reproduction, name: str) -> None:
    """Bias and standard deviation of one truth, grey matter, in four surroundings."""
    repeats = 5 * (REPEATS_QUICK if run.quick else REPEATS)
    white, grey = middle("WM"), middle("GM")
    half = np.arange(FIELD) >= FIELD // 2
    places = {
        "homogeneous": grey,
        "at an edge": joined(np.broadcast_to(half[:, None], (FIELD, FIELD)), grey, white),
        f"lesion of {SMALL:g} voxels": joined(disc((FIELD, FIELD), SMALL), grey, white),
        "single voxel": joined(disc((FIELD, FIELD), 1.0), grey, white),
    }
    truth = np.array([grey[parameter][0, 0] for parameter in SPACE.names])
    cases, rows = [], []
    r = max(int(network.split()[-1]) for network in LESIONED[1:]) // 2
    window = slice(FIELD // 2 - r, FIELD // 2 + r + 1)
    for label, slice_truth in places.items():
        cut = {key: values[window, window] for key, values in slice_truth.items()}
        signals = measured(cut, repeats, run.bench.seed + 5)
        groups = []
        for network in (LSQ, *LESIONED):
            found = estimates(run, network, signals)[r, r]
            bias, sd = found.mean(axis=0) - truth, found.std(axis=0)
            groups.append(Group(network, found, bias / sd))
            for j, parameter in enumerate(SPACE.names):
                rmse = float(np.hypot(bias[j], sd[j]))
                rows.append([label, network, parameter, truth[j], float(bias[j]), float(sd[j]), rmse])
        cases.append(Case(label, truth, groups))
    caption = "Estimates of one voxel of grey matter in four surroundings. Numbers above: bias in standard deviations."
    axes = list(axes_of(SPACE).values())
    run.gallery.draw(name, "Errors depend on the surroundings", caption, plot_boxes, cases, axes)
    columns = ("surroundings", "network", "parameter", "truth", "bias", "sd", "rmse")
    run.gallery.table(name, columns, rows)


PAPER = Paper(
    title="Kaandorp et al. 2025, made again",
    lead="Incorporating spatial information in deep learning parameter estimation with application to the intravoxel "
    "incoherent motion model in diffusion-weighted MRI (Medical Image Analysis 2025;101:103414). Networks read no "
    "neighbours, 3 x 3 voxels by a convolution, or 7 x 7 and 17 x 17 by attention; they are tested on fractal maps.",
    bench=Options.bench,
    tables={},
    figures={
        "neighbourhood": Exhibit("Errors against what networks read.", {"": neighbourhood}),
        "training-set": Exhibit("Errors against what a network was trained on.", {"": training_set}),
        "surroundings": Exhibit("Errors of one truth in different surroundings.", {"": surroundings}),
        "lesions": Exhibit("How much of a lesion shows, and where.", {"": lesions}),
    },
)
