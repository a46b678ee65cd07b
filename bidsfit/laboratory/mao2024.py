"""Mao, Flassbeck and Assländer, on networks with little bias: its objectives, for models with a closed form.

Mao A, Flassbeck S, Assländer J. Bias-Reduced Neural Networks for Parameter Estimation in Quantitative MRI. arXiv
2312.11468.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
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
from bidsfit.laboratory.paper import Exhibit, Make, Options, Paper, Reproduction
from bidsfit.models.space import ParameterSpace
from bidsfit.phantom.tissue import RECIPES
from bidsfit.reports.efficiency import plot_efficiencies, plot_efficiency_curves
from bidsfit.simulation.distributions import Uniform
from bidsfit.simulation.simulator import Noise
from bidsfit.training.recipe import Recipe, load_recipe

#: SNRs of the curves, relative to that of table and histograms. Networks are trained for all between.
RELATIVE_SNRS = (0.2, 0.3, 0.4, 0.6, 1.0, 1.4, 2.0)
#: Held-out combinations of parameters, noise realisations of each, and networks of every objective.
SAMPLES, REALISATIONS, SEEDS = 500, 1000, 3
#: A quick run makes so many times fewer steps.
FASTER = 20


@dataclass(frozen=True)
class Case:
    """A model, what networks are trained on (within its bounds: um^2/ms, ms), and the SNR of table and histograms."""

    words: str
    bounds: Mapping[str, tuple[float, float]]
    snr: float = 50.0


CASES = {
    "ivim": Case("IVIM", {"f": (0.05, 0.5), "D": (0.4, 3.0), "Dstar": (10.0, 100.0)}),
    "smt2": Case("SMT with two compartments", {"vcyl": (0.1, 0.9), "lambda": (0.5, 3.0)}),
    "sirqmt": Case(
        "selective inversion recovery", {"T1": (700.0, 1800.0), "PSR": (0.03, 0.25), "inversion": (0.85, 1.0)}, 250.0
    ),
}
#: b-values of IVIM (Epstein et al. 2024), s/mm^2. SMT has the protocol of Gyori et al. 2022, and selective inversion
#: recovery that of the phantom.
B_VALUES = (0, 10, 20, 30, 50, 80, 100, 200, 400, 800)

#: Form and balance (lambda) of every objective; without a form it is the mean squared error, so that "wbce" with a
#: balance of 1 would be the first again.
OBJECTIVES: Mapping[str, tuple[Literal["wbce", "wvce"] | None, float | None]] = {
    "MSE-CRB": (None, None),
    "wbce, λ = 0.1": ("wbce", 0.1),
    "wvce, λ = 1": ("wvce", 1.0),
}
LEAST_SQUARES = "least squares"


def setting(model: str, relative_snr: float = 1.0) -> Setting:
    """Protocol and noise of a model; ``relative_snr`` is one of `RELATIVE_SNRS`."""
    case = CASES[model]
    snr = relative_snr * case.snr
    if model == "smt2":
        place = of_gyori(model, snr, "noisy S0")
    else:
        acquisition = Acquisition(B_VALUES) if model == "ivim" else Acquisition(**RECIPES[model].columns)
        place = Setting(ParameterSpace(models.get(model)), acquisition, Noise(snr))
    return replace(place, space=ParameterSpace(place.space.model, dict(case.bounds)))


def recipe(objective: str, model: str = "ivim", *, quick: bool = False) -> Recipe:
    """How an objective is trained for a model: from the network of "mse-crb", as "bias-reduced" is.

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
    made = at_levels(replace(made, start=made.start and at_levels(made.start, model)), model)
    return shortened(replace(made, start=made.start and shortened(made.start))) if quick else made


def at_levels(made: Recipe, model: str) -> Recipe:
    """A recipe for the SNRs of a model."""
    snr = CASES[model].snr
    return replace(
        made, simulation=replace(made.simulation, snr_range=(RELATIVE_SNRS[0] * snr, RELATIVE_SNRS[-1] * snr))
    )


def shortened(made: Recipe) -> Recipe:
    """A recipe with fewer steps."""
    return replace(made, schedule=replace(made.schedule, steps=made.schedule.steps // FASTER, checks=6))


def efficiencies(run: Reproduction, model: str, relative_snr: float = 1.0) -> dict[str, list[Efficiency]]:
    """Squared bias and variance relative to the bound, at held-out samples: of least squares, and of every network.

    ``relative_snr`` is one of `RELATIVE_SNRS`.
    """
    trained_for, measured = setting(model), setting(model, relative_snr)
    truth = Uniform(measured.space).sample(SAMPLES, np.random.default_rng([run.bench.seed, 1]))
    bound, repeats = floor(measured, truth), run.repeats

    def relative(bench: Bench, name: str, place: Setting) -> Efficiency:
        found = bench.evaluate(name, measured, truth, repeats=repeats, seed=run.bench.seed, trained_for=place)
        return efficiency(found, bound, repeats)

    wide = {name: measured.space.model[name].bounds for name in measured.space.names}  # those of networks would bias it
    found = {LEAST_SQUARES: [relative(replace(run.bench, options={"lsq": {"bounds": wide}}), "lsq", measured)]}
    for objective, (form, _) in OBJECTIVES.items():
        name: str = form or "mse-crb"
        networks = {name: recipe(objective, model, quick=run.quick)}
        benches = [replace(run.bench, networks=networks, seed=run.bench.seed + k) for k in range(SEEDS)]
        found[objective] = [relative(bench, name, trained_for) for bench in benches]
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
    for model, case in CASES.items():
        found = efficiencies(run, model)
        for j, parameter in enumerate(setting(model).space.names):
            for estimator, networks in found.items():
                told = [[float(tell(one)[j]) for one in networks] for tell in TOLD.values()]
                numbers = (x for values in told for x in (np.mean(values), min(values), max(values)))
                rows.append([model, case.snr, parameter, estimator, *numbers])
    columns = (f"{key}{part}" for key in TOLD for part in ("", "_lowest", "_highest"))
    caption = (
        f"Squared bias and variance relative to the squared Cramér-Rao bound, means over {SAMPLES} held-out samples, "
        f"and share of the samples whose variance is above the bound: mean, lowest and highest of {SEEDS} networks"
    )
    run.table(name, caption, ("model", "snr", "parameter", "estimator", *columns), rows)


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


def levels_of(model: str) -> list[float]:
    """SNRs of the curves of a model."""
    return [relative * CASES[model].snr for relative in RELATIVE_SNRS]


def curves(run: Reproduction, name: str, *, model: str) -> None:
    """Means over the samples against the SNR of the signals."""
    levels = [efficiencies(run, model, snr) for snr in RELATIVE_SNRS]
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
    run.gallery.draw(name, title, caption, plot_efficiency_curves, levels_of(model), drawn, axes_of(place.space))
    rows = [
        [key, parameter, snr, seed, *values[:, seed, i, j]]
        for key, values in drawn.items()
        for j, parameter in enumerate(place.space.names)
        for i, snr in enumerate(levels_of(model))
        for seed in range(values.shape[1])
    ]
    run.gallery.table(name, ("estimator", "parameter", "snr", "seed", "bias2crb", "variancecrb"), rows)


#: Parts of figures.
PARTS = dict(zip("ABC", CASES, strict=True))
LETTERED = ". ".join(f"{letter}: {CASES[model].words}" for letter, model in PARTS.items())


def by_model(make: Callable[..., None]) -> dict[str, Make]:
    """Parts of a figure, one for each model."""
    return {letter: partial(make, model=model) for letter, model in PARTS.items()}


PAPER = Paper(
    title="Mao, Flassbeck and Assländer, made again",
    lead="Bias-Reduced Neural Networks for Parameter Estimation in Quantitative MRI (arXiv 2312.11468): its objectives "
    "for two models of diffusion and one of magnetisation transfer, which is not the paper's.",
    bench=Options.bench,
    tables={"1": Exhibit("Efficiency of the networks of every objective, beside least squares.", {"": table})},
    figures={
        "1": Exhibit(f"Efficiency against SNR. {LETTERED}.", by_model(curves)),
        "2": Exhibit(f"Distribution of the efficiency at the SNR of the table. {LETTERED}.", by_model(histograms)),
    },
    realisations=REALISATIONS,
)
