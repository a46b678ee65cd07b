"""Mao, Flassbeck and Assländer, on networks with little bias: its objectives, for diffusion.

Mao A, Flassbeck S, Assländer J. Bias-Reduced Neural Networks for Parameter Estimation in Quantitative MRI. arXiv
2312.11468.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from bidsfit import models
from bidsfit.acquisition import Acquisition
from bidsfit.evaluation.experiments import Efficiency, Setting, efficiency, floor
from bidsfit.laboratory.bench import Bench, setting_in_words
from bidsfit.laboratory.gallery import axes_of
from bidsfit.laboratory.gyori2022 import setting as of_gyori
from bidsfit.laboratory.paper import Exhibit, Options, Paper, Reproduction
from bidsfit.models.space import ParameterSpace
from bidsfit.reports.efficiency import plot_efficiencies, plot_efficiency_curves
from bidsfit.simulation.distributions import Uniform
from bidsfit.simulation.simulator import Noise
from bidsfit.training.recipe import Recipe, load_recipe

#: The SNR of table and histograms, and those of the curves. Networks are trained for all from 10 to 100.
SNR, SNRS = 50.0, (10.0, 15.0, 20.0, 30.0, 50.0, 70.0, 100.0)
#: Held-out combinations of parameters, noise realisations of each, and networks of every objective.
SAMPLES, REALISATIONS, SEEDS = 500, 1000, 3
#: A quick run makes so many times fewer steps.
FASTER = 20

#: What networks are trained on, within the bounds: um^2/ms.
BOUNDS: Mapping[str, Mapping[str, tuple[float, float]]] = {
    "ivim": {"f": (0.05, 0.5), "D": (0.4, 3.0), "Dstar": (10.0, 100.0)},
    "smt2": {"vcyl": (0.1, 0.9), "lambda": (0.5, 3.0)},
}
#: b-values of IVIM (Epstein et al. 2024), s/mm^2; SMT has the protocol of Gyori et al. 2022.
B_VALUES = (0, 10, 20, 30, 50, 80, 100, 200, 400, 800)

#: Form and balance (lambda) of every objective; without a form it is the mean squared error, so that "wbce" with a
#: balance of 1 would be the first again.
OBJECTIVES: Mapping[str, tuple[Literal["wbce", "wvce"] | None, float | None]] = {
    "MSE-CRB": (None, None),
    "wbce, λ = 0.1": ("wbce", 0.1),
    "wvce, λ = 1": ("wvce", 1.0),
}
LEAST_SQUARES = "least squares"


def setting(model: str, snr: float = SNR) -> Setting:
    """Protocol and noise of a model."""
    if model == "ivim":
        place = Setting(ParameterSpace(models.get("ivim")), Acquisition(B_VALUES), Noise(snr))
    else:
        place = of_gyori(model, snr, "noisy S0")
    return replace(place, space=ParameterSpace(place.space.model, dict(BOUNDS[model])))


def recipe(objective: str, *, quick: bool = False) -> Recipe:
    """How an objective is trained: from the network of "mse-crb", as "bias-reduced" is.

    Every step has as many network evaluations, which without a form are of as many voxels.
    """
    made = load_recipe("bias-reduced")
    form, balance = OBJECTIVES[objective]
    goal: Any = made.objective
    goal = replace(goal, form=form, balance=balance, allowance=goal.allowance if form == "wvce" else None)
    schedule, simulation = made.schedule, made.simulation
    if form is None:
        copies = simulation.realisations
        schedule = replace(schedule, batch=copies * schedule.batch, validation=copies * schedule.validation)
        simulation = replace(simulation, realisations=1)
    made = replace(made, objective=goal, schedule=schedule, simulation=simulation)
    return shortened(replace(made, start=made.start and shortened(made.start))) if quick else made


def shortened(made: Recipe) -> Recipe:
    """A recipe with fewer steps."""
    return replace(made, schedule=replace(made.schedule, steps=made.schedule.steps // FASTER, checks=6))


def efficiencies(run: Reproduction, model: str, snr: float = SNR) -> dict[str, list[Efficiency]]:
    """Squared bias and variance relative to the bound, at held-out samples: of least squares, and of every network."""
    trained_for, measured = setting(model), setting(model, snr)
    truth = Uniform(measured.space).sample(SAMPLES, np.random.default_rng([run.bench.seed, 1]))
    bound, repeats = floor(measured, truth), run.repeats

    def relative(bench: Bench, name: str, place: Setting, at: Setting) -> Efficiency:
        found = bench.evaluate(name, at, truth, repeats=repeats, seed=run.bench.seed, trained_for=place)
        return efficiency(found, bound, repeats)

    whole = replace(measured, space=ParameterSpace(measured.space.model))  # its own bounds do not bias least squares
    found = {LEAST_SQUARES: [relative(run.bench, "lsq", whole, whole)]}
    for objective, (form, _) in OBJECTIVES.items():
        name: str = form or "mse-crb"
        networks = {name: recipe(objective, quick=run.quick)}
        benches = [replace(run.bench, networks=networks, seed=run.bench.seed + k) for k in range(SEEDS)]
        found[objective] = [relative(bench, name, trained_for, measured) for bench in benches]
    return found


#: What is told of the samples, from their squared bias and variance.
TOLD: Mapping[str, Callable[[Efficiency], NDArray[np.float64]]] = {
    "bias2crb": lambda found: found.bias.mean(axis=0),
    "variancecrb": lambda found: found.variance.mean(axis=0),
    "above_bound": lambda found: (found.variance > 1).mean(axis=0),
}


def table(run: Reproduction, name: str) -> None:
    """Means over the samples of every model, parameter and estimator: means of the seeds, and their range."""
    rows = []
    for model in BOUNDS:
        found = efficiencies(run, model)
        for j, parameter in enumerate(setting(model).space.names):
            for estimator, networks in found.items():
                told = [[float(tell(one)[j]) for one in networks] for tell in TOLD.values()]
                numbers = (x for values in told for x in (np.mean(values), min(values), max(values)))
                rows.append([model, parameter, estimator, *numbers])
    columns = (f"{key}{part}" for key in TOLD for part in ("", "_lowest", "_highest"))
    caption = (
        f"Squared bias and variance relative to the squared Cramér-Rao bound, means over {SAMPLES} held-out samples at "
        f"SNR {SNR:g}, and share of the samples whose variance is above the bound: mean, lowest and highest of {SEEDS} "
        "networks"
    )
    run.table(name, caption, ("model", "parameter", "estimator", *columns), rows)


def histograms(run: Reproduction, name: str, *, model: str) -> None:
    """Distribution of squared bias and variance over the samples, all seeds together."""
    found = efficiencies(run, model)
    joined = {key: Efficiency(*map(np.concatenate, zip(*all_, strict=True))) for key, all_ in found.items()}
    place = setting(model)
    caption = (
        "Held-out samples, those of all seeds together. An efficient estimator has a squared bias of 0 and a variance "
        "of 1 (grey lines). A variance below 1 is the sign of shrinkage."
    )
    run.gallery.draw(name, setting_in_words(place), caption, plot_efficiencies, joined, axes_of(place.space))
    percentiles = (5, 25, 50, 75, 95)
    rows = [
        [key, parameter, quantity, *np.percentile(values[:, j], percentiles)]
        for key, one in joined.items()
        for quantity, values in zip(("bias2crb", "variancecrb"), one, strict=True)
        for j, parameter in enumerate(place.space.names)
    ]
    run.gallery.table(name, ("estimator", "parameter", "quantity", *(f"p{k}" for k in percentiles)), rows)


def curves(run: Reproduction, name: str, *, model: str) -> None:
    """Means over the samples against the SNR of the signals."""
    levels = [efficiencies(run, model, snr) for snr in SNRS]
    place = setting(model)
    drawn = {  # squared bias and variance, shape (2, n_seeds, n_snrs, n_parameters)
        key: np.array([[[part.mean(axis=0) for part in one] for one in level[key]] for level in levels]).transpose(
            2, 1, 0, 3
        )
        for key in levels[0]
    }
    caption = (
        "Means over held-out samples. Lines: the mean of the seeds; bands: from the lowest to the highest. An "
        "efficient estimator has a squared bias of 0 and a variance of 1 (grey lines)."
    )
    title = f"{place.space.model.name} against SNR"
    run.gallery.draw(name, title, caption, plot_efficiency_curves, SNRS, drawn, axes_of(place.space))
    rows = [
        [key, parameter, snr, seed, *values[:, seed, i, j]]
        for key, values in drawn.items()
        for j, parameter in enumerate(place.space.names)
        for i, snr in enumerate(SNRS)
        for seed in range(values.shape[1])
    ]
    run.gallery.table(name, ("estimator", "parameter", "snr", "seed", "bias2crb", "variancecrb"), rows)


def bench_of(options: Options) -> Bench:
    """The bench of a run."""
    return Bench(options.folder, threads=options.threads, device=options.device, seed=options.seed)


PAPER = Paper(
    title="Mao, Flassbeck and Assländer, made again",
    lead="Bias-Reduced Neural Networks for Parameter Estimation in Quantitative MRI (arXiv 2312.11468): its objectives "
    "for two models of diffusion. The paper's own model, of magnetisation transfer, is not made again.",
    bench=bench_of,
    tables={"1": Exhibit("Efficiency of the networks of every objective, beside least squares.", {"": table})},
    figures={
        "1": Exhibit(
            "Efficiency against SNR. A: IVIM. B: SMT with two compartments.",
            {"A": partial(curves, model="ivim"), "B": partial(curves, model="smt2")},
        ),
        "2": Exhibit(
            f"Distribution of the efficiency at SNR {SNR:g}. A: IVIM. B: SMT with two compartments.",
            {"A": partial(histograms, model="ivim"), "B": partial(histograms, model="smt2")},
        ),
    },
    realisations=REALISATIONS,
)
