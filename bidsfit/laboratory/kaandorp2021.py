"""Kaandorp et al. 2021, IVIM-NET: its simulations.

Kaandorp MPT, Barbieri S, Klaassen R, van Laarhoven HWM, Crezee H, While PT, Nederveen AJ, Gurney-Champion OJ. Improved
unsupervised physics-informed deep learning for intravoxel incoherent motion modeling and evaluation in pancreatic
cancer patients. Magnetic Resonance in Medicine 2021;86:2250-2265.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import combinations
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bidsfit import models
from bidsfit.acquisition import Acquisition
from bidsfit.evaluation.experiments import Setting
from bidsfit.laboratory.bench import Bench
from bidsfit.laboratory.gallery import axes_of
from bidsfit.laboratory.paper import Exhibit, Options, Paper, Reproduction
from bidsfit.models.space import ParameterSpace
from bidsfit.phantom.study import AMOUNTS
from bidsfit.reports.learning import plot_choices
from bidsfit.simulation.distributions import Uniform
from bidsfit.simulation.images import ImageVoxels, as_single
from bidsfit.simulation.simulator import Noise
from bidsfit.statistics.limits import change_limits
from bidsfit.statistics.repeatability import repeatability
from bidsfit.statistics.response import call_changes
from bidsfit.training.inference import Inverter
from bidsfit.training.recipe import Recipe, recipe_facts, recipe_from
from bidsfit.training.task import Task
from bidsfit.trust.metrics import network_variation, rank_correlation

#: s/mm^2; one image each.
B_VALUES = (0.0, 5.0, 10.0, 20.0, 30.0, 40.0, 60.0, 150.0, 300.0, 500.0, 700.0)
#: True parameters (um^2/ms), and bounds of the fits.
TRUTH = {"f": (0.05, 0.55), "D": (0.5, 3.0), "Dstar": (10.0, 100.0)}
FIT_BOUNDS = {"f": (0.0, 0.7), "D": (0.0, 5.0), "Dstar": (5.0, 200.0)}

#: Estimators by their names in the paper.
NETWORKS = {"orig": "ivimnet-orig", "optim": "ivimnet-optim"}
ESTIMATORS = {"least squares": "lsq", "Bayes": "bayesmap", **NETWORKS}
#: What the networks learn from instead of images: curves that are simulated once.
SIMULATED: Mapping[str, Any] = {
    "simulation": {"signals": None, "filter": None, "scope": None, "samples": 90_000, "set_noise": "fixed"},
    "schedule": {"validation": 10_000},
}
#: What a quick run takes instead: fewer steps, and of optim a rate that is ten times as large.
QUICK: Mapping[str, Any] = {"steps": 12_000, "checks": 24, "validation": 2_000}
QUICK_RATE = {"ivimnet-orig": 1e-3, "ivimnet-optim": 3e-4}
#: Networks of Table 2 and of each SNR of Figure 4, of which the median is shown, and how many make a median network.
TOGETHER, TOGETHER_QUICK, DRAWN, DRAWN_QUICK, OF_MEDIAN = 50, 8, 10, 1, 10
#: Curves that they are tested on, other than those of the training.
TESTED, TESTED_QUICK = 100_000, 5_000
SNR, SNRS, SNRS_QUICK = 20.0, (8.0, 12.0, 20.0, 33.0, 50.0, 100.0), (8.0, 20.0, 100.0)

#: Table 2, SNR 20: medians, and quartiles where they are printed.
TABLE_2: Mapping[str, Mapping[str, tuple[float, ...]]] = {
    "NRMSE D": dict(zip(ESTIMATORS, [(0.279,), (0.233,), (0.196, 0.190, 0.214), (0.177, 0.176, 0.178)], strict=True)),
    "NRMSE f": dict(zip(ESTIMATORS, [(0.387,), (0.281,), (0.267, 0.259, 0.273), (0.220, 0.218, 0.222)], strict=True)),
    "NRMSE Dstar": dict(
        zip(ESTIMATORS, [(0.805,), (0.575,), (0.393, 0.382, 0.414), (0.386, 0.381, 0.390)], strict=True)
    ),
    "rho(D, Dstar)": dict(zip(ESTIMATORS, [(0.24,), (0.08,), (0.23,), (0.20,)], strict=True)),
    "rho(f, D)": dict(zip(ESTIMATORS, [(0.18,), (0.03,), (0.04,), (0.01,)], strict=True)),
    "rho(f, Dstar)": dict(zip(ESTIMATORS, [(0.20,), (0.13,), (0.74, 0.64, 0.80), (0.22,)], strict=True)),
    "CV D": dict(zip(NETWORKS, [(0.104,), (0.013,)], strict=True)),
    "CV f": dict(zip(NETWORKS, [(0.054,), (0.020,)], strict=True)),
    "CV Dstar": dict(zip(NETWORKS, [(0.110,), (0.036,)], strict=True)),
    "CV of medians D": {"optim": (0.0032,)},
    "CV of medians f": {"optim": (0.0049,)},
    "CV of medians Dstar": {"optim": (0.0093,)},
}

#: Choices in which `optim` differs from `orig`, each exchanged for that of `orig` alone.
EXCHANGED: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    "S0 as measured": {"objective": {"s0": "measured", "amplitude": None}},
    "absolute values": {"objective": {"output": "absolute", "widening": None, "amplitude": None}},
    "one network for all": {"architecture": {"parallel": False}},
    "three layers": {"architecture": {"hidden_layers": 3}},
    "no batch normalisation": {"architecture": {"batch_norm": False}},
    "no dropout": {"architecture": {"dropout": None}},
    "rate of orig": {"schedule": {"peak_rate": 1e-3}},
}
#: Networks of each, and the shorter trainings of a quick run.
EXCHANGED_TOGETHER, EXCHANGED_QUICK = 4, {"steps": 2_500, "checks": 5}

#: The patients: images of every b-value (s/mm^2), pairs of scans, of which the last are treated in between, voxels of a
#: tumour, and voxels around it that the network learns from as well. With this SNR least squares has about the paper's
#: ratio of D to noise.
PATIENT_IMAGES = {0: 15, 10: 9, 20: 9, 30: 9, 40: 9, 50: 9, 75: 4, 100: 12, 150: 4, 250: 4, 400: 4, 600: 16}
RETEST, TREATED, TUMOUR, AROUND, AROUND_QUICK, PATIENT_SNR = 14, 9, 100, 1_000, 100, 10.0
#: Truth: what least squares finds in the paper before and after the treatment, in um^2/ms. How tumours and scans differ
#: is that of the phantom's studies.
BEFORE, AFTER = {"f": 0.131, "D": 1.35, "Dstar": 52.0}, {"f": 0.163, "D": 1.51, "Dstar": 48.0}
#: D* is not read where f is below.
LOW_F = 0.05
#: Table 3: parameter-to-noise ratio, within-subject standard deviation, and participants that changed.
TABLE_3 = {
    "PNR D": (5.6, 6.3, 8.1),
    "PNR f": (3.1, 4.0, 3.9),
    "PNR Dstar": (1.8, 2.3, 4.0),
    "wSD D": (0.10, 0.09, 0.06),
    "wSD f": (0.062, 0.049, 0.024),
    "wSD Dstar": (24.9, 5.1, 15.8),
    "changed": (2, 3, 10),
}


def setting(snr: float) -> Setting:
    """The paper's acquisition and noise."""
    return Setting(ParameterSpace(models.get("ivim"), TRUTH), Acquisition(B_VALUES), Noise(snr, "rician"))


def recipes(quick: bool) -> dict[str, Recipe]:
    """Recipes of the networks, by name."""
    found = {}
    for name, rate in QUICK_RATE.items():
        shorter = {"schedule": {**QUICK, "peak_rate": rate}} if quick else {}
        found[name] = recipe_from({"base": {"base": name, **SIMULATED}, **shorter}, name)
    return found


def bench_of(options: Options) -> Bench:
    """The bench of a run."""
    bounds = {"bounds": FIT_BOUNDS}
    return options.bench(
        networks=recipes(options.quick),
        options={"lsq": {**bounds, "intervals": "none"}, "bayesmap": bounds},
    )


def numbers(run: Reproduction, estimator: str, snr: float, together: int) -> dict[str, NDArray[np.float64]]:
    """Errors and rank correlations of each of several networks, or of a fit; and how far the networks are apart."""
    place, rng = setting(snr), np.random.default_rng(run.bench.seed + 1)
    names, truth = place.space.names, place.space.sample(TESTED_QUICK if run.quick else TESTED, rng)
    signals = place.measure(truth, 1, run.bench.seed + 2)
    estimates: NDArray
    if estimator in run.bench.networks:
        estimates = run.bench.members(estimator, place, signals, together)
    else:
        estimates = run.bench.estimate(estimator, place, signals)[None]
    errors = np.sqrt(((estimates - truth) ** 2).mean(axis=1)) / truth.mean(axis=0)
    found = {f"NRMSE {name}": errors[:, j] for j, name in enumerate(names)}
    rho = np.stack([rank_correlation(one) for one in estimates])
    found |= {f"rho({names[i]}, {names[j]})": rho[:, i, j] for i, j in combinations(range(len(names)), 2)}
    groups = len(estimates) // min(OF_MEDIAN, max(len(estimates) // 2, 1))
    medians = np.stack([np.median(part, axis=0) for part in np.array_split(estimates.astype(float), groups)])
    for words, several in (("CV", estimates), ("CV of medians", medians)):
        if len(several) > 1:
            apart = network_variation(several, truth)
            found |= {f"{words} {name}": apart[j : j + 1] for j, name in enumerate(names)}
    return found


def table_2(run: Reproduction, name: str) -> None:
    """Errors, rank correlations and variation between networks beside the paper's, and the order of the networks."""
    together = TOGETHER_QUICK if run.quick else TOGETHER
    ours = {label: numbers(run, estimator, SNR, together) for label, estimator in ESTIMATORS.items()}
    rows, orders = [], []
    for quantity, paper in TABLE_2.items():
        for label, printed in paper.items():
            median, low, high = np.quantile(ours[label][quantity], (0.5, 0.25, 0.75))
            rows.append([quantity, label, median, low, high, *printed, *[None] * (3 - len(printed))])
        if len(paper) > 1:
            least = [
                min(NETWORKS, key=values.__getitem__)
                for values in (
                    {label: float(np.median(ours[label][quantity])) for label in NETWORKS},
                    {label: paper[label][0] for label in NETWORKS},
                )
            ]
            orders.append([quantity, *least, "holds" if least[0] == least[1] else "does not hold"])
    columns = ("quantity", "estimator", "median", "q25", "q75", "paper", "paper_q25", "paper_q75")
    run.table(name, f"SNR 20; {together} networks of each kind", columns, rows)
    run.table(f"{name}-order", "Which network has the smaller value", ("quantity", "ours", "paper", "result"), orders)


def figure_4(run: Reproduction, name: str) -> None:
    """Errors against the SNR."""
    snrs, together = (SNRS_QUICK, DRAWN_QUICK) if run.quick else (SNRS, DRAWN)
    found = {label: [numbers(run, one, snr, together) for snr in snrs] for label, one in ESTIMATORS.items()}
    lines = {
        parameter: {label: [float(np.median(one[f"NRMSE {parameter}"])) for one in of] for label, of in found.items()}
        for parameter in TRUTH
    }
    caption = "Root mean square error relative to the mean truth against the SNR; of networks, the median."
    options = {"choice": "SNR", "errors": "NRMSE", "logarithmic": True}
    axes = {name: replace(axis, unit="") for name, axis in axes_of(setting(SNR).space).items()}
    run.gallery.draw(name, "Errors", caption, plot_choices, snrs, {"": lines}, axes, **options)
    keys = [*(f"NRMSE {parameter}" for parameter in TRUTH), *(key for key in TABLE_2 if key.startswith("rho"))]
    rows = [
        [label, snr, *(float(np.median(one[key])) for key in keys)]
        for label, of in found.items()
        for snr, one in zip(snrs, of, strict=True)
    ]
    run.gallery.table(name, ("estimator", "snr", *keys), rows)


def hyperparameters(run: Reproduction, name: str) -> None:
    """What each choice of optim is worth: errors with that of orig in its place."""
    optim = recipe_facts(run.bench.networks["ivimnet-optim"])
    shorter = EXCHANGED_QUICK if run.quick else {}
    variants = {"optim": {}, **EXCHANGED}
    networks = {}
    for label, other in variants.items():
        sections = {section: {**choices, **other.get(section, {})} for section, choices in optim.items()}
        sections["schedule"] |= shorter
        kept = {key: {k: v for k, v in part.items() if v is not None} for key, part in sections.items()}
        networks[label] = recipe_from(kept, label)
    own = replace(run, bench=replace(run.bench, networks=networks))
    rows = []
    for label in variants:
        found = numbers(own, label, SNR, EXCHANGED_TOGETHER)
        rows.append([label, *(float(np.median(found[key])) for key in TABLE_2 if not key.startswith("CV of"))])
    columns = ("network", *(key for key in TABLE_2 if not key.startswith("CV of")))
    caption = f"SNR {SNR:g}; medians of {EXCHANGED_TOGETHER} networks `optim`, each with one choice of `orig`"
    run.table(name, caption, columns, rows)


class Patients(NamedTuple):
    """Simulated tumours, scanned twice.

    Attributes
    ----------
    truth : ndarray, shape (n_patients, 2, 3)
    tumours : ndarray, shape (n_patients * 2 * `TUMOUR`, n_measurements)
        Signals, patient by patient and scan by scan.
    around : ndarray, shape (n, n_measurements)
        Signals of other tissue, uniform in the space.
    """

    truth: NDArray[np.float64]
    tumours: NDArray[np.float64]
    around: NDArray[np.float64]


def scanned(place: Setting, around: int, seed: int) -> Patients:
    """Scan the patients; ``around`` is the number of voxels of other tissue of each scan."""
    rng, n, names = np.random.default_rng([seed, 3]), RETEST + TREATED, place.space.names
    before, after = (np.array([of[name] for name in names]) for of in (BEFORE, AFTER))

    def factors(part: Literal["between", "within"], shape: tuple[int, ...]) -> NDArray[np.float64]:
        spread = np.array([getattr(AMOUNTS[name], part) for name in names])
        width = np.sqrt(np.log1p(spread**2))
        return np.exp(width * rng.standard_normal((*shape, len(names))) - width**2 / 2)

    truth = before * factors("between", (n, 1)) * factors("within", (n, 2))
    truth[RETEST:, 1] *= after / before
    tumours = place.measure(truth.reshape(-1, len(names)), TUMOUR, seed + 3)
    others = place.measure(place.space.sample(2 * n * around, rng), 1, seed + 4)
    return Patients(truth, tumours, others)


def by_network(run: Reproduction, place: Setting, scans: Patients) -> NDArray[np.float64]:
    """Estimates of the tumours by one network `optim`, taught with all scans, whose measurements it sees one by one."""
    signals = np.concatenate([scans.tumours, scans.around])
    reference = place.space.model.reference_signal(signals, place.acquisition)
    seen = ImageVoxels(
        as_single(signals / reference[:, None]),
        as_single(1 / (place.noise.snr * reference)),
        place.acquisition,
        {"patients": len(signals)},
    )
    shorter = {"schedule": {**QUICK, "peak_rate": QUICK_RATE["ivimnet-optim"]}} if run.quick else {}
    recipe = recipe_from({"base": "ivimnet-optim", **shorter}, "ivimnet-optim")
    task = Task(Uniform(place.space), place.acquisition, place.noise, recipe, run.bench.seed, seen.decaying())
    machine = run.bench.machine(task, "ivimnet-optim on the scans")
    invert = Inverter(recipe, machine, place.space, place.acquisition)
    return invert(scans.tumours).parameters[:, place.space.places]


def table_3(run: Reproduction, name: str) -> None:
    """Repeatability and changed patients, beside the paper's; and what the truth tells."""
    images = np.repeat(list(PATIENT_IMAGES), list(PATIENT_IMAGES.values()))
    place = replace(setting(PATIENT_SNR), acquisition=Acquisition(images))
    scans = scanned(place, AROUND_QUICK if run.quick else AROUND, run.bench.seed)
    shape, names = (RETEST + TREATED, 2, TUMOUR, len(place.space.names)), place.space.names
    found: dict[str, NDArray[np.float64]] = {
        label: run.bench.estimate(label, place, scans.tumours).reshape(shape) for label in ("lsq", "bayesmap")
    }
    found["optim"] = by_network(run, place, scans).reshape(shape)
    labels = dict(zip(found, ("least squares", "Bayes", "optim"), strict=True))
    found["truth"] = np.broadcast_to(scans.truth[:, :, None], shape)
    rows = []
    for k, (estimator, estimates) in enumerate(found.items()):
        changed = 0
        for j, parameter in enumerate(names):
            values = estimates[..., j]
            if parameter == "Dstar":
                values = np.where(estimates[..., names.index("f")] < LOW_F, np.nan, values)
            means, spread = np.nanmean(values, axis=2), np.nanstd(values, axis=2)
            repeated = repeatability(means[:RETEST])
            limits = change_limits(repeated.within_subject_sd.value, repeated.freedom, method="normal")
            calls = call_changes(means[RETEST:, 0], means[RETEST:, 1], limits)
            changed += calls.n_changed
            printed = [TABLE_3[f"{what} {parameter}"][k] if k < len(labels) else None for what in ("PNR", "wSD")]
            rows.append(
                [
                    labels.get(estimator, estimator),
                    parameter,
                    float(np.median(means / spread)) if estimator in labels else None,
                    printed[0],
                    repeated.within_subject_sd.value,
                    printed[1],
                    *means[RETEST:].mean(axis=0),
                    calls.n_changed,
                    None,
                ]
            )
        in_paper = TABLE_3["changed"][k] if k < len(labels) else None
        rows.append([labels.get(estimator, estimator), "all", *[None] * 6, changed, in_paper])
    columns = ("estimator", "parameter", "PNR", "paper_PNR", "wSD", "paper_wSD", "before", "after", "changed")
    caption = (
        f"{RETEST} pairs of scans without and {TREATED} with a treatment in between; means over {TUMOUR} voxels of a "
        f"tumour, SNR {PATIENT_SNR:g}, {len(images)} images. Changed: by more than 1.96 times the root of 2 times wSD"
    )
    run.table(name, caption, (*columns, "paper_changed"), rows)


PAPER = Paper(
    title="Kaandorp et al. 2021, made again",
    lead="Improved unsupervised physics-informed deep learning for intravoxel incoherent motion modeling and "
    "evaluation in pancreatic cancer patients (Magnetic Resonance in Medicine 2021;86:2250-2265): the simulations. "
    "Networks learn from simulated signals, without the truth; they are tested on others.",
    bench=bench_of,
    tables={
        "2": Exhibit("Errors, rank correlations and variation between trainings at SNR 20.", {"": table_2}),
        "3": Exhibit("Repeatability and changes by a treatment, of simulated patients.", {"": table_3}),
        "hyperparameters": Exhibit("What the choices of optim are worth.", {"": hyperparameters}),
    },
    figures={"4": Exhibit("Errors at several SNRs.", {"": figure_4})},
)
