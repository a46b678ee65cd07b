"""Mao, Flassbeck and Assländer, on networks with little bias: its objectives, for other models and fingerprints.

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
#: A quick run makes so many times fewer steps, from so many times fewer samples where their number is fixed.
FASTER, FEWER = 20, 8


@dataclass(frozen=True)
class Case:
    """A model, what networks are trained on (within its bounds: um^2/ms, ms, 1/s), and the SNR of table and histograms.

    Where simulation takes long, networks are trained on a fixed number of ``samples`` with fresh noise in every step.
    ``units`` are those of a hidden layer, where they are not those of the recipes.
    """

    words: str
    bounds: Mapping[str, tuple[float, float]]
    snr: float = 50.0
    samples: int | None = None
    units: int | None = None


CASES = {
    "ivim": Case("IVIM", {"f": (0.05, 0.5), "D": (0.4, 3.0), "Dstar": (10.0, 100.0)}),
    "smt2": Case("SMT with two compartments", {"vcyl": (0.1, 0.9), "lambda": (0.5, 3.0)}),
    "sirqmt": Case(
        "selective inversion recovery", {"T1": (700.0, 1800.0), "PSR": (0.03, 0.25), "inversion": (0.85, 1.0)}, 250.0
    ),
    "mrffisp": Case("fingerprints", {"T1": (300.0, 3000.0), "T2": (30.0, 300.0)}, samples=1 << 15),
    # About the ranges of the brain that the paper trains on. Off-resonance and B1, which mean the same with the other
    # sign and on the other side of 1, keep to one side.
    "qmtgbloch": Case(
        "magnetisation transfer in fingerprints",
        {
            "m0s": (0.03, 0.35),
            "R1f": (0.2, 1.0),
            "R2f": (3.0, 20.0),
            "Rx": (3.0, 30.0),
            "R1s": (1.0, 6.0),
            "T2s": (5.0, 25.0),
            "f0": (0.0, 100.0),
            "B1": (0.75, 1.0),
        },
        500.0,
        samples=1 << 16,
        units=128,
    ),
}
#: Of Table 1 and the figures; fingerprints have tables of their own.
EFFICIENCIES = ("ivim", "smt2", "sirqmt")
#: Held-out fingerprints, and what is trained for them.
MEASURED, TRAINED = 150, ("MSE-CRB", "wvce, λ = 1")
#: b-values of IVIM (Epstein et al. 2024), s/mm^2. SMT has the protocol of Gyori et al. 2022, others have that of
#: the phantom.
B_VALUES = (0, 10, 20, 30, 50, 80, 100, 200, 400, 800)

#: Form and balance (lambda) of every objective; without a form it is the mean squared error, so that "wbce" with a
#: balance of 1 would be the first again.
OBJECTIVES: Mapping[str, tuple[Literal["wbce", "wvce"] | None, float | None]] = {
    "MSE-CRB": (None, None),
    "wbce, λ = 0.1": ("wbce", 0.1),
    "wvce, λ = 1": ("wvce", 1.0),
}
LEAST_SQUARES, DICTIONARY = "least squares", "dictionary matching"
#: What networks are compared with for a model of fingerprints, and its share of the noise realisations: one in so many.
FITTED: Mapping[str, Mapping[str, tuple[str, int]]] = {
    "mrffisp": {DICTIONARY: ("dictionary", 2), LEAST_SQUARES: ("lsq", 2)},
    "qmtgbloch": {LEAST_SQUARES: ("lsq", 50)},
}


def setting(model: str, relative_snr: float = 1.0) -> Setting:
    """Protocol and noise of a model; ``relative_snr`` is one of `RELATIVE_SNRS`."""
    case = CASES[model]
    snr = relative_snr * case.snr
    if model == "smt2":
        place = of_gyori(model, snr, "noisy S0")
    else:
        acquisition = Acquisition(B_VALUES) if model == "ivim" else RECIPES[model].series
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
    made = for_case(replace(made, objective=goal, schedule=schedule, simulation=simulation), CASES[model])
    return shortened(replace(made, start=made.start and shortened(made.start))) if quick else made


def for_case(made: Recipe, case: Case) -> Recipe:
    """A recipe, and that of its start, with the SNRs and the samples of a model and the size of its networks."""
    architecture: Any = made.architecture
    if case.units is not None:
        architecture = replace(architecture, units=case.units)
    snrs = RELATIVE_SNRS[0] * case.snr, RELATIVE_SNRS[-1] * case.snr
    simulation = replace(made.simulation, snr_range=snrs, samples=case.samples)
    start = made.start and for_case(made.start, case)
    return replace(made, architecture=architecture, simulation=simulation, start=start)


def shortened(made: Recipe) -> Recipe:
    """A recipe with fewer steps, and fewer samples where their number is fixed."""
    simulation, schedule = made.simulation, replace(made.schedule, steps=made.schedule.steps // FASTER, checks=6)
    if simulation.samples is not None:
        simulation = replace(simulation, samples=simulation.samples // FEWER)
        schedule = replace(schedule, validation=max(schedule.validation // FEWER, 64))
    return replace(made, schedule=schedule, simulation=simulation)


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

    found = {LEAST_SQUARES: [relative(with_wide_bounds(run, measured, "lsq"), "lsq", measured)]}
    for objective, (form, _) in OBJECTIVES.items():
        found[objective] = [relative(one, form or "mse-crb", trained_for) for one in networks(run, objective, model)]
    return found


def with_wide_bounds(run: Reproduction, place: Setting, name: str) -> Bench:
    """The bench, on which an estimator has the bounds of the model: those of networks would bias it.

    Parameters that mean the same on two sides of a value keep to that of the networks.
    """
    model = place.space.model
    wide = {key: model[key].bounds for key in place.space.names if not model[key].twofold}
    return replace(run.bench, options={name: {"bounds": {**place.space.facts, **wide}}})


def networks(run: Reproduction, objective: str, model: str) -> list[Bench]:
    """A bench for every network of an objective, which differ in their seeds; one where a quick run simulates long."""
    name: str = OBJECTIVES[objective][0] or "mse-crb"
    made = {name: recipe(objective, model, quick=run.quick)}
    seeds = 1 if run.quick and CASES[model].samples is not None else SEEDS
    return [replace(run.bench, networks=made, seed=run.bench.seed + k) for k in range(seeds)]


def fingerprints(run: Reproduction, name: str, *, model: str) -> None:
    """Bias and standard deviation of what fingerprints tell: by `FITTED` estimators, and networks."""
    place = setting(model)
    truth = Uniform(place.space).sample(MEASURED, np.random.default_rng([run.bench.seed, 1]))
    bound = floor(place, truth)

    def errors(bench: Bench, estimator: str, share: int = 2) -> NDArray[np.float64]:
        """Bias and standard deviation in per cent of the truth, and relative to the bound, shape (4, n_parameters)."""
        repeats = max(run.repeats // share, 2)
        found = bench.evaluate(estimator, place, truth, repeats=repeats, seed=run.bench.seed, trained_for=place)
        told = efficiency(found, bound, repeats)
        percent = 1e4 * (bound / truth) ** 2
        means = (np.mean(values, axis=0) for values in (told.bias * percent, told.variance * percent, *told))
        bias, variance, *relative = means
        return np.array([np.sqrt(bias.clip(min=0)), np.sqrt(variance), *relative])

    found = {
        words: [errors(with_wide_bounds(run, place, estimator), estimator, share)]
        for words, (estimator, share) in FITTED[model].items()
    }
    for objective in TRAINED:
        trained: str = OBJECTIVES[objective][0] or "mse-crb"
        found[objective] = [errors(bench, trained) for bench in networks(run, objective, model)]
    rows = []
    for j, parameter in enumerate(place.space.names):
        if place.space.model[parameter].auxiliary:
            continue
        for estimator, all_ in found.items():
            told = np.array(all_)[..., j].T
            numbers = (float(x) for values in told for x in (values.mean(), values.min(), values.max()))
            rows.append([parameter, estimator, *numbers])
    keys = ("bias_percent", "sd_percent", "bias2crb", "variancecrb")
    columns = (f"{key}{part}" for key in keys for part in ("", "_lowest", "_highest"))
    caption = (
        f"{CASES[model].words.capitalize()} at an SNR of {place.noise.snr:g}: root mean squares of bias and standard "
        f"deviation over {MEASURED} held-out samples, per cent of the truth, and means of their squares relative to "
        "the squared Cramér-Rao bound; of networks the mean over the seeds, the lowest and the highest"
    )
    run.table(name, caption, ("parameter", "estimator", *columns), rows)


#: What is told of the samples, from their squared bias and variance.
TOLD: Mapping[str, Callable[[Efficiency], NDArray[np.float64]]] = {
    "bias2crb": lambda found: found.bias.mean(axis=0),
    "variancecrb": lambda found: found.variance.mean(axis=0),
    "above_bound": lambda found: (found.variance > 1).mean(axis=0),
}


def table(run: Reproduction, name: str) -> None:
    """Means over the samples of every model, parameter and estimator: means of the seeds, and their range."""
    rows = []
    for model in EFFICIENCIES:
        case, found = CASES[model], efficiencies(run, model)
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
PARTS = dict(zip("ABC", EFFICIENCIES, strict=True))
LETTERED = ". ".join(f"{letter}: {CASES[model].words}" for letter, model in PARTS.items())


def by_model(make: Callable[..., None]) -> dict[str, Make]:
    """Parts of a figure, one for each model."""
    return {letter: partial(make, model=model) for letter, model in PARTS.items()}


PAPER = Paper(
    title="Mao, Flassbeck and Assländer, made again",
    lead="Bias-Reduced Neural Networks for Parameter Estimation in Quantitative MRI (arXiv 2312.11468): its objectives "
    "for two models of diffusion, for two of magnetisation transfer, of which the generalised Bloch model is the "
    "paper's, and for fingerprints. The trains of pulses are not the paper's.",
    bench=Options.bench,
    tables={
        "1": Exhibit("Efficiency of the networks of every objective, beside least squares.", {"": table}),
        "2": Exhibit(
            "Fingerprints: networks beside dictionary matching.", {"": partial(fingerprints, model="mrffisp")}
        ),
        "3": Exhibit(
            "Magnetisation transfer by the generalised Bloch model: networks beside least squares.",
            {"": partial(fingerprints, model="qmtgbloch")},
        ),
    },
    figures={
        "1": Exhibit(f"Efficiency against SNR. {LETTERED}.", by_model(curves)),
        "2": Exhibit(f"Distribution of the efficiency at the SNR of the table. {LETTERED}.", by_model(histograms)),
    },
    realisations=REALISATIONS,
)
