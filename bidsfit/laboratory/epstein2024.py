"""Epstein et al. 2024, on the labels that networks are trained with.

Epstein SC, Bray TJP, Hall-Craggs M, Zhang H. Choice of training label matters: how to best use deep learning for
quantitative MRI parameter estimation. Machine Learning for Biomedical Imaging 2024:002, doi 10.59275/j.melba.2024-geb5.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from typing import Any

from bidsfit import models
from bidsfit.acquisition import Acquisition
from bidsfit.evaluation.experiments import Setting
from bidsfit.laboratory.bench import Bench
from bidsfit.laboratory.exhibits import (
    Claim,
    Entry,
    Number,
    averages,
    choices,
    courses,
    pairs,
    planes,
    sections,
    variation,
    verdicts,
)
from bidsfit.laboratory.paper import Exhibit, Options, Paper
from bidsfit.models.priors import priors_of
from bidsfit.models.space import ParameterSpace, bounds_of
from bidsfit.simulation.distributions import Informed
from bidsfit.simulation.simulator import Noise
from bidsfit.training.recipe import Recipe, recipe_from

#: s/mm^2.
B_VALUES = (0.0, 10.0, 20.0, 30.0, 50.0, 80.0, 100.0, 200.0, 400.0, 800.0)
#: Parameters of the training and the tests, and bounds of maximum-likelihood fits, also of those that are labels
#: (um^2/ms). D is Dslow of the paper, and Dstar its Dfast: blood decays with their sum.
BOUNDS = {"f": (0.1, 0.5), "D": (0.4, 3.0), "Dstar": (10.0, 150.0)}
FIT_BOUNDS = {"f": (0.01, 0.5), "D": (0.01, 4.0), "Dstar": (2.0, 300.0)}

#: What all networks start from: of 16, the one with the lowest validation loss, trained at SNR 30.
START = {"base": "supervised-gt", "simulation": {"snr_levels": [30]}, "schedule": {"restarts": 16}}
FITS = {"base": "supervised-mle-rician", "simulation": {"label_bounds": FIT_BOUNDS}}
SHARES = (0.25, 0.5, 0.75)
NETWORKS: Mapping[str, Mapping[str, Any]] = {
    "supervised-gt": {"base": "supervised-gt"},
    "supervised-mle-rician": FITS,
    "supervised-mle-gaussian": {"base": FITS, "simulation": {"labels": "mle-gaussian"}},
    "self-supervised": {"base": "self-supervised", "objective": {"output": "absolute"}},
    **{f"hybrid-{share:g}": {"base": FITS, "simulation": {"label_share": share}} for share in SHARES},
    **{f"weighted-{name}": {"base": FITS, "objective": {"only": name}} for name in BOUNDS},
}
#: What a quick run takes instead.
QUICK = {"simulation": {"samples": 20_000}, "schedule": {"steps": 8_000, "validation": 5_000, "checks": 20}}


def setting(snr: float) -> Setting:
    """The paper's acquisition and noise."""
    space = ParameterSpace(models.get("ivimlebihan"), BOUNDS)
    return Setting(space, Acquisition(B_VALUES), Noise(snr, "rician"))


def informed(space: ParameterSpace) -> Informed:
    """The priors of the model, between the bounds of a space."""
    return Informed(space, priors_of(space.model, bounds_of(space.model, BOUNDS)))


def recipes(quick: bool) -> dict[str, Recipe]:
    """Recipes of all networks, by name."""
    shorter = QUICK if quick else {}
    start = {"base": START, **shorter}
    return {name: recipe_from({"base": own, "start": start, **shorter}, name) for name, own in NETWORKS.items()}


def bench_of(options: Options) -> Bench:
    """The bench of a run."""
    return options.bench(
        networks=recipes(options.quick),
        options={"mle": {"noise": "rician", "bounds": FIT_BOUNDS, "intervals": "none"}},
    )


def entry(estimator: str, snr: float = 15.0) -> Entry:
    """An estimator at a level of noise; "mle" is conventional maximum likelihood."""
    return Entry("conventional MLE" if estimator == "mle" else estimator, estimator, setting(snr))


def entries(*estimators: str, snr: float = 15.0) -> list[Entry]:
    """Estimators at one level of noise."""
    return [entry(name, snr) for name in estimators]


TRUTH, RICIAN, GAUSSIAN = "supervised-gt", "supervised-mle-rician", "supervised-mle-gaussian"
SIGNALS, HYBRID = "self-supervised", "hybrid-0.5"
#: Estimators of most figures, and SNRs.
MAIN, SNRS = ("mle", RICIAN, GAUSSIAN, SIGNALS, TRUTH), (15.0, 30.0)
#: Values of D (um^2/ms) below and above that where the labels change sides in the paper.
LOW, HIGH = (BOUNDS["D"][0], 2.0), (2.0, BOUNDS["D"][1])


def below(
    text: str, quantity: str, parameters: Iterable[str], first: str, *others: str, snr: float = 15.0, **where: Any
) -> Iterator[Claim]:
    """Claims that a number of the first estimator is below those of the others, one for each parameter."""
    for parameter in parameters:
        least, *rest = (Number(one, quantity, parameter, **where) for one in entries(first, *others, snr=snr))
        yield Claim(text, least, rest)


def statements() -> Iterator[Claim]:
    """What the paper says; and, of our own, networks beside the fits that they learned from."""
    for snr in SNRS:
        for bias in ("bias", "course"):
            text = "MLE labels leave less bias than true ones"
            yield from below(text, bias, ("f", "Dstar"), RICIAN, TRUTH, snr=snr)
            yield from below(f"{text}, where D is below 2", bias, ("D",), RICIAN, TRUTH, snr=snr, between=LOW)
            text = "true labels leave less bias than MLE labels, where D is above 2"
            yield from below(text, bias, ("D",), TRUTH, RICIAN, snr=snr, between=HIGH)
        for quantity, words in (("sd", "scatter"), ("rmse", "error")):
            yield from below(f"true labels leave the least {words}", quantity, BOUNDS, TRUTH, *MAIN[:-1], snr=snr)
            text = f"a network with MLE labels has less {words} than MLE"
            yield from below(text, quantity, BOUNDS, RICIAN, "mle", snr=snr)
        text = "with true labels Dstar follows the truth least of all estimators"
        yield from below(text, "slope", ("Dstar",), TRUTH, *MAIN[:-1], snr=snr)
        least, *rest = (Number(entry(TRUTH, snr), "slope", name) for name in ("Dstar", "f", "D"))
        yield Claim("with true labels Dstar follows the truth less than f and D", least, rest)
    for bias in ("bias", "course"):
        yield from below("the hybrid has less bias than true labels leave", bias, ("f", "Dstar"), HYBRID, TRUTH)
        yield from below("the hybrid has more bias than MLE labels leave", bias, ("f", "Dstar"), RICIAN, HYBRID)
        text = "the hybrid has less bias than true labels leave, where D is below 2"
        yield from below(text, bias, ("D",), HYBRID, TRUTH, between=LOW)
        text = "the hybrid has more bias than MLE labels leave, where D is below 2"
        yield from below(text, bias, ("D",), RICIAN, HYBRID, between=LOW)
        text = "Rician labels leave less bias than Gaussian ones, where D is above 2"
        yield from below(text, bias, ("D",), RICIAN, GAUSSIAN, between=HIGH)
    yield from below("the hybrid has less error than MLE labels leave", "rmse", BOUNDS, HYBRID, RICIAN)
    yield from below("the hybrid has more error than true labels leave", "rmse", BOUNDS, TRUTH, HYBRID)


#: Labels between the truth and the fit, by the share of the fit.
SHARED = {0.0: entry(TRUTH), **{share: entry(f"hybrid-{share:g}") for share in SHARES}, 1.0: entry(RICIAN)}

FIGURES: Mapping[str, Exhibit] = {
    "2": Exhibit(
        "Bias, standard deviation and root mean square error at SNR 15.", {"": partial(courses, entries=entries(*MAIN))}
    ),
    "3": Exhibit("The same at SNR 30.", {"": partial(courses, entries=entries(*MAIN, snr=30.0))}),
    "4": Exhibit(
        "From the truth to the mean estimate at SNR 15: true labels (top), and conventional fitting.",
        {"": partial(planes, entries=entries(TRUTH, "mle"))},
    ),
    "6": Exhibit(
        "Errors at SNR 15 where true parameters are not uniform. Those of the paper are fits of patients, which cannot "
        "be had; ours are drawn from the priors of the model between the bounds of the training.",
        {"": partial(courses, entries=entries(*MAIN), tested=informed(setting(15.0).space))},
    ),
    "8": Exhibit(
        "Networks with Rician labels, of all parameters together and of each alone, at SNR 15.",
        {
            "": partial(
                courses,
                entries=entries(RICIAN),
                own=("trained for that parameter alone", {name: entry(f"weighted-{name}") for name in BOUNDS}),
            )
        },
    ),
    "9": Exhibit(
        "From the truth to the mean estimate at SNR 15: labels of Gaussian and of Rician likelihood.",
        {"": partial(planes, entries=entries(GAUSSIAN, RICIAN), shown=(("f", "D"),))},
    ),
    "10": Exhibit(
        "Labels that are fits, the truth, or half of each, at SNR 15.",
        {"": partial(courses, entries=entries(RICIAN, TRUTH, HYBRID))},
    ),
    "11": Exhibit(
        "Behind the means of Figure 2: all combinations of true parameters.",
        {"": partial(pairs, first=entry(TRUTH), second=entry(RICIAN))},
    ),
    "12": Exhibit(
        "Errors of D at SNR 15, and their differences at two of its values.",
        {"": partial(sections, first=entry(TRUTH), second=entry(RICIAN), parameter="D", places=(1, 8))},
    ),
    "alpha": Exhibit(
        "Not in the paper: errors against the share of the fit in the label, from the truth (0) to the fit (1).",
        {"": partial(choices, entries=SHARED, choice="the share of the fit in the label")},
    ),
}

PAPER = Paper(
    title="Epstein et al. 2024, made again",
    lead="Choice of training label matters: how to best use deep learning for quantitative MRI parameter estimation "
    "(Machine Learning for Biomedical Imaging 2024:002). D is the paper's Dslow, D* its Dfast.",
    bench=bench_of,
    tables={
        "claims": Exhibit(
            "What the paper says beside our numbers: the one that should be smaller, and the smallest of those that "
            "should be larger. Bias is the mean over all truths of the bias without its sign; course takes the mean "
            "over the other parameters first, as the figures do. That a network has less scatter and error than MLE is "
            "not said by the paper, but asked here.",
            {"": partial(verdicts, claims=[*statements()])},
        ),
        "means": Exhibit(
            "Bias without its sign, standard deviation, root mean square error (also relative to the mean truth), "
            "slope of the mean estimate over the truth, and squared bias and variance relative to the squared "
            "Cramér-Rao bound.",
            {"": partial(averages, entries=entries(*MAIN, HYBRID) + entries(*MAIN, snr=30.0))},
        ),
        "trainings": Exhibit(
            "Not in the paper: how far networks of one kind are apart, at SNR 15.",
            {"": partial(variation, entries=entries(*MAIN[1:]))},
        ),
    },
    figures=FIGURES,
    points=(10, 10, 10),
    realisations=500,
)
