"""Gyori et al. 2022, on the influence of the training distribution on networks.

Gyori NG, Palombo M, Clark CA, Zhang H, Alexander DC. Training data distribution significantly impacts the estimation of
tissue microstructure with machine learning. Magnetic Resonance in Medicine 2022;87:932-947.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from bidsfit import models
from bidsfit.acquisition import Acquisition
from bidsfit.evaluation.experiments import Setting
from bidsfit.laboratory.bench import Bench, quick_recipes
from bidsfit.laboratory.exhibits import (
    Entry,
    Someone,
    boxes,
    contrasts,
    densities,
    differences,
    evaluated,
    layers,
    learning,
    maps,
    quivers,
    spread,
    variation,
)
from bidsfit.laboratory.paper import Exhibit, Make, Options, Paper, Reproduction
from bidsfit.laboratory.pools import SimulatedPools
from bidsfit.laboratory.results import Results
from bidsfit.models.space import ParameterSpace
from bidsfit.simulation.simulator import Noise

#: The protocol: b-values in s/mm^2, those above 0 in 32 directions.
B_VALUES, DIRECTIONS = (0.0, 1000.0, 2000.0, 3500.0, 5000.0), 32
#: Readings of S0, which the signals are divided by: measurements of b = 0 that it is the mean of, and whether they have
#: noise. The paper can be read both ways; tables and figures take the first where they do not say otherwise.
S0_READINGS = {"noise-free S0": (1, False), "noisy S0": (12, True)}
#: Readings of the healthy pool, of which the paper says nothing: whether it holds fits with a parameter at its bound.
POOL_READINGS = {"inside": False, "all": True}
#: Five participants are pooled and the sixth is tested; about 135,000 voxels.
POOLED, SHAPE, QUICK_POOLED, QUICK_SHAPE = 5, (96, 96, 6), 2, (48, 48, 3)

#: Table 2: vcyl and lambda (um^2/ms) of the abnormalities.
ABNORMALITIES: Mapping[str, tuple[float, float]] = {
    "1": (0.67, 0.5),
    "2": (0.05, 1.5),
    "3": (0.60, 1.8),
    "4": (0.47, 1.9),
}

#: Table 3, SNR 25: rmse, |bias| and standard deviation of vcyl and of lambda, means over the grid.
TABLE_3: Mapping[str, tuple[float, ...]] = {
    "lsq": (0.0883, 0.1106, 0.0313, 0.0130, 0.0742, 0.1087),
    "net-uniform": (0.0642, 0.1082, 0.0338, 0.0386, 0.0449, 0.0965),
    "net-healthy": (0.1191, 0.1386, 0.1017, 0.0724, 0.0324, 0.1030),
    "net-mixed": (0.0663, 0.1116, 0.0367, 0.0404, 0.0476, 0.0975),
    "forest-uniform": (0.0670, 0.1109, 0.0342, 0.0400, 0.0490, 0.0980),
    "forest-healthy": (0.1209, 0.1390, 0.1008, 0.0806, 0.0358, 0.0930),
    "forest-mixed": (0.0683, 0.1114, 0.0340, 0.0405, 0.0529, 0.0978),
}
QUANTITIES = ("rmse_vcyl", "rmse_lambda", "bias_vcyl", "bias_lambda", "sd_vcyl", "sd_lambda")

#: What an estimator is called in the paper.
PAPER_NAMES = {
    "lsq": "traditional",
    "net-wm": "net-healthy-WM",
    "net-gm": "net-healthy-GM",
    "forest-uniform": "RF-uniform",
    "forest-healthy": "RF-healthy",
    "forest-mixed": "RF-mixed",
}


def setting(model: str, snr: float, s0: str = "noise-free S0") -> Setting:
    """The paper's acquisition and noise for a model, with a reading of S0."""
    unweighted, noisy = S0_READINGS[s0]
    counts = [unweighted, *[DIRECTIONS] * (len(B_VALUES) - 1)]
    acquisition = Acquisition(B_VALUES, counts=counts, n_directions=counts)
    return Setting(ParameterSpace(models.get(model)), acquisition, Noise(snr, "gaussian", lowest=noisy))


def readable(estimator: str) -> str:
    """Name of an estimator in the paper, without its SNR."""
    return PAPER_NAMES.get(estimator, estimator)


def entry(estimator: str, snr: float = 25.0, model: str = "smt2", seed: int = 0) -> Entry:
    """An estimator at a level of noise, labelled as in the paper: "net-uniform-25"."""
    return Entry(f"{readable(estimator)}-{snr:g}", estimator, setting(model, snr), seed)


def entries(*estimators: str, snr: float = 25.0, model: str = "smt2") -> list[Entry]:
    """Estimators at one level of noise."""
    return [entry(name, snr, model) for name in estimators]


TRADITIONAL = "lsq"
#: Estimators of most figures.
NETS = (TRADITIONAL, "net-uniform", "net-healthy")
NETS_AND_MIXED = (TRADITIONAL, "net-uniform", "net-mixed", "net-healthy")
FORESTS = ("forest-uniform", "forest-healthy")
ALL_FORESTS = (TRADITIONAL, "forest-uniform", "forest-mixed", "forest-healthy")
SNRS = (np.inf, 25.0, 5.0)

#: Table 1.
TRAINED: Sequence[Entry] = (
    *[entry(name, snr) for name in ("net-uniform", "net-healthy") for snr in SNRS],
    *entries("net-wm", "net-gm"),
    *[entry("net-mixed", snr) for snr in (25.0, 5.0)],
    *[entry(name, snr) for name in FORESTS for snr in SNRS],
    entry("forest-mixed"),
    *entries("net-uniform", "net-healthy", *FORESTS, model="smt3"),
)


def bench_of(options: Options) -> Bench:
    """The bench of a run."""
    pools = SimulatedPools(
        Results(options.folder / "results"),
        ("smt2", "smt3"),
        participants=QUICK_POOLED if options.quick else POOLED,
        shape=QUICK_SHAPE if options.quick else SHAPE,
        seed=options.seed,
        threads=options.threads,
        real=options.data,
    )
    return options.bench(
        pools=pools,
        recipes=quick_recipes() if options.quick else {},
        options={TRADITIONAL: {"s0": "measured"}},
    )


def table_1(run: Reproduction, name: str) -> None:
    """Trained estimators: training distribution, duration, and means over the grid."""
    rows: list[list[Any]] = []
    for one in TRAINED:
        facts, space = run.bench.training_facts(one.estimator, one.setting), one.setting.space
        training, network = facts["Training"], facts["Kind"] == "network"
        size = facts["Recipe"]["architecture"]["hidden_layers"] if network else training["Nodes"]
        means = evaluated(run, [one])[one.label].summary(space.names)
        rows.append(
            [
                one.label,
                space.model.name,
                "network" if network else "random forest",
                readable(one.estimator).partition("-")[2],
                one.setting.noise.snr,
                size,
                training["Seconds"],
                "yes" if training["Converged"] else "no",
                *[means.get(f"{q}_{p}") for p in ("vcyl", "vcsf", "lambda") for q in ("rmse", "bias", "sd")],
            ]
        )
    quantities = [f"{q}_{p}" for p in ("vcyl", "vcsf", "lambda") for q in ("rmse", "bias", "sd")]
    first = ("estimator", "model", "method", "distribution", "snr", "hidden_layers_or_nodes", "seconds", "converged")
    run.table(name, "The trained estimators, and their means over the grid", (*first, *quantities), rows)


def table_2(run: Reproduction, name: str) -> None:
    """The abnormalities."""
    rows = [[f"Abnormality {key}", *values] for key, values in ABNORMALITIES.items()]
    run.table(name, "Abnormalities (lambda in µm²/ms)", ("name", "vcyl", "lambda"), rows)


def table_3(run: Reproduction, name: str) -> None:
    """Means over the grid at SNR 25 in both readings of S0 and of the pool, beside the paper's."""
    readings, means = [], []
    for pool, at_bounds in POOL_READINGS.items():
        pools: Any = run.bench.pools
        other = replace(run, bench=replace(run.bench, pools=replace(pools, at_bounds=at_bounds)))
        for s0 in S0_READINGS:
            found = evaluated(other, [Entry(key, key, setting("smt2", 25.0, s0)) for key in TABLE_3])
            readings.append(f"{s0}, {pool}")
            means.append({key: one.summary(("vcyl", "lambda")) for key, one in found.items()})
    rows = [
        [readable(key), quantity, *(reading[key][quantity] for reading in means), value]
        for key, paper in TABLE_3.items()
        for quantity, value in zip(QUANTITIES, paper, strict=True)
    ]
    caption = "Means over the grid of 21 x 21 true parameters at SNR 25 (lambda in µm²/ms), beside the paper's"
    run.table(name, caption, ("estimator", "quantity", *readings, "paper"), rows)


#: Who is shown in maps, and how far the colours of a lesion reach around white matter: 0.4 um^2/ms of lambda.
HEALTHY, PATIENT, WINDOW = Someone(others=POOLED), Someone(others=POOLED, lesion="abnormality-3"), 0.4 / 3
#: Levels of lambda (um^2/ms) of the grid of three compartments; the two of Figure 3 are ours.
LAMBDAS, TWO_LAMBDAS = (0.5, 1.0, 1.5, 2.0, 2.5, 3.0), (1.0, 2.0)
#: Hidden layers of Figure S1.
DEPTHS = (1, 2, 4, 8)


def by_noise(letters: str, make: Any, names: Mapping[float, Sequence[str]], **choices: Any) -> dict[str, Make]:
    """Lettered parts of a figure, one a level of noise with the estimators that it shows."""
    parts = zip(letters, names.items(), strict=True)
    return {letter: partial(make, entries=entries(*shown, snr=snr), **choices) for letter, (snr, shown) in parts}


def density(*estimators: str, **choices: Any) -> Make:
    """Densities of the distributions that networks are trained on."""
    shown = {readable(name).partition("-")[2]: name for name in estimators}
    return partial(densities, setting=setting("smt2", 25.0), distributions=shown, **choices)


def in_tissue(distributions: Sequence[str], estimators: Sequence[str]) -> dict[str, Make]:
    """Densities, maps of a healthy participant by traditional fitting, and differences of estimators from them."""
    return {
        "A": density(*distributions),
        "B": partial(maps, entries=entries(TRADITIONAL), who=HEALTHY),
        "C": partial(differences, reference=entry(TRADITIONAL), entries=entries(*estimators), who=HEALTHY),
    }


def bias(shown: Sequence[Entry], **choices: Any) -> dict[str, Make]:
    """Quivers as the only picture of a figure."""
    return {"": partial(quivers, entries=shown, **choices)}


FIGURES: Mapping[str, Exhibit] = {
    "1": Exhibit(
        "A: uniform and healthy training distributions. B: maps of a participant who was not pooled, by traditional "
        "fitting. C: differences of net-uniform-25 and net-healthy-25 from them, with the mean absolute error.",
        in_tissue(("net-uniform", "net-healthy"), ("net-uniform", "net-healthy")),
    ),
    "2": Exhibit(
        "Bias with two compartments, at SNR 25 (top) and 5 (bottom).",
        bias([*entries(*NETS), *entries(*NETS, snr=5.0)]),
    ),
    "3": Exhibit(
        "Bias with three compartments at SNR 25, at two values of λ (ours; those of the paper are not known).",
        bias(entries(*NETS, model="smt3"), thirds=TWO_LAMBDAS),
    ),
    "4": Exhibit(
        "Standard deviation with two compartments. A: SNR 25. B: SNR 5.",
        by_noise("AB", spread, {25.0: NETS, 5.0: NETS}),
    ),
    "5": Exhibit(
        "A: training distributions, the abnormalities, and typical white and grey matter. B: estimates of the "
        "abnormalities at SNR 25. C: at SNR 5.",
        {"A": density("net-uniform", "net-mixed", "net-healthy", points=ABNORMALITIES)}
        | by_noise("BC", boxes, {25.0: NETS_AND_MIXED, 5.0: NETS_AND_MIXED}, points=ABNORMALITIES),
    ),
    "6": Exhibit(
        "Abnormality 3 in white matter. Colours reach 0.4 µm²/ms of λ and 0.13 of v_cyl to either side of white "
        "matter. A: SNR 25. B: SNR 5.",
        by_noise("AB", maps, {25.0: NETS_AND_MIXED, 5.0: NETS_AND_MIXED}, who=PATIENT, window=WINDOW),
    ),
    "S1": Exhibit(
        "Errors of networks against their depth, without noise (top) and at SNR 25.",
        {"": partial(layers, entries=[entry("net-uniform", np.inf), entry("net-uniform")], depths=DEPTHS)},
    ),
    "S2": Exhibit(
        "Loss of net-uniform-inf, of the training and the validation samples.",
        {"": partial(learning, entry=entry("net-uniform", np.inf))},
    ),
    "S3": Exhibit(
        "Bias of net-uniform-25 from three initialisations.",
        bias([replace(entry("net-uniform", seed=k), label=f"net-uniform-25, seed {k}") for k in range(3)]),
    ),
    "S4": Exhibit(
        "A: mixed, white-matter and grey-matter training distributions. B: maps by traditional fitting. C: differences "
        "of the networks that are trained on A from them, with the mean absolute error.",
        in_tissue(("net-mixed", "net-wm", "net-gm"), ("net-mixed", "net-wm", "net-gm")),
    ),
    "S5": Exhibit(
        "A: training distributions of the random forests. B: maps by traditional fitting. C: differences of the "
        "forests from them, with the mean absolute error.",
        in_tissue(("net-uniform", "net-healthy", "net-mixed"), (*FORESTS, "forest-mixed")),
    ),
    "S6": Exhibit("Bias with two compartments, without noise.", bias(entries(*NETS, snr=np.inf))),
    "S7": Exhibit(
        "Bias of networks that are trained on the mixed, the white-matter and the grey-matter distribution, without "
        "noise (top), at SNR 25 and at SNR 5.",
        bias([entry(name, snr) for snr in SNRS for name in ("net-mixed", "net-wm", "net-gm")]),
    ),
    "S8": Exhibit(
        "Bias of random forests, of all distributions tested: without noise (top), at SNR 25 and 5; mixed at SNR 25.",
        bias([*[entry(name, snr) for snr in SNRS for name in FORESTS], entry("forest-mixed")], columns=2),
    ),
    "S9": Exhibit(
        "Bias with three compartments at SNR 25, at all values of λ.",
        bias(entries(*NETS, model="smt3"), thirds=LAMBDAS),
    ),
    "S10": Exhibit(
        "Bias of random forests with three compartments at SNR 25, at all values of λ.",
        bias(entries(*FORESTS, model="smt3"), thirds=LAMBDAS, columns=2),
    ),
    "S11": Exhibit(
        "Standard deviation with two compartments, without noise. It is 0: every estimator gives one estimate of one "
        "signal.",
        {"": partial(spread, entries=entries(*NETS, snr=np.inf))},
    ),
    "S12": Exhibit(
        "Standard deviation of random forests. A: without noise. B: SNR 25. C: SNR 5.",
        by_noise("ABC", spread, dict.fromkeys(SNRS, FORESTS)),
    ),
    "S13": Exhibit(
        "Standard deviation with three compartments at SNR 25.",
        {"": partial(spread, entries=entries(*NETS, model="smt3"))},
    ),
    "S14": Exhibit(
        "Standard deviation of random forests with three compartments at SNR 25.",
        {"": partial(spread, entries=entries(*FORESTS, model="smt3"))},
    ),
    "S15": Exhibit(
        "Estimates of the abnormalities by random forests. A: SNR 25. B: SNR 5.",
        by_noise("AB", boxes, {25.0: ALL_FORESTS, 5.0: (TRADITIONAL, *FORESTS)}, points=ABNORMALITIES),
    ),
    "S16": Exhibit(
        "Abnormality 3 in white matter by random forests, in the colours of Figure 6. A: SNR 25. B: SNR 5.",
        by_noise("AB", maps, {25.0: ALL_FORESTS, 5.0: (TRADITIONAL, *FORESTS)}, who=PATIENT, window=WINDOW),
    ),
    "contrast": Exhibit(
        "Not in the paper, but what it is about: how much of the difference between an abnormality and white matter "
        "each estimator leaves.",
        {
            "": partial(
                contrasts,
                levels={
                    f"SNR {snr:g}": [Entry(readable(name), name, setting("smt2", snr)) for name in names]
                    for snr, names in (
                        (25.0, (*NETS_AND_MIXED, "net-wm", "net-gm", *ALL_FORESTS[1:])),
                        (5.0, (*NETS_AND_MIXED, *FORESTS)),
                    )
                },
                points=ABNORMALITIES,
            )
        },
    ),
}

PAPER = Paper(
    title="Gyori et al. 2022, made again",
    lead="Training data distribution significantly impacts the estimation of tissue microstructure with machine "
    "learning (Magnetic Resonance in Medicine 2022;87:932-947). The participants are simulated.",
    bench=bench_of,
    tables={
        "1": Exhibit("The 21 trained estimators.", {"": table_1}),
        "2": Exhibit("The abnormalities.", {"": table_2}),
        "3": Exhibit(
            "Errors at SNR 25 in both readings of S0 (without noise, or the mean of 12 noisy images) and of the "
            "healthy pool (fits inside the bounds, or all, with those at bounds), beside the paper's.",
            {"": table_3},
        ),
        "trainings": Exhibit(
            "Not in the paper: how far estimators of one kind are apart, at SNR 25.",
            {"": partial(variation, entries=entries(*NETS_AND_MIXED[1:], *FORESTS))},
        ),
    },
    figures=FIGURES,
)
