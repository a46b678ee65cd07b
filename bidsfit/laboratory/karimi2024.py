"""Karimi and Warfield 2024, learned tensors from few directions: the first experiments that their review asks for.

Karimi D, Warfield SK. Diffusion MRI with machine learning. Imaging Neuroscience 2024;2:1-55 (arXiv 2402.00019).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from bidsfit import models
from bidsfit.acquisition import Acquisition
from bidsfit.estimators.log_linear import LogLinear
from bidsfit.evaluation.experiments import Setting
from bidsfit.laboratory.bench import Bar, Bench
from bidsfit.laboratory.crossing import (
    B_VALUE,
    CROSSING,
    DTI,
    FULL,
    TISSUE,
    Crossings,
    full_set,
    protocol,
    true_tensors,
)
from bidsfit.laboratory.labelled import Labelled, Scan, evenly, scans_of, voxels_of
from bidsfit.laboratory.paper import Exhibit, Options, Paper, Reproduction
from bidsfit.models.space import ParameterSpace
from bidsfit.phantom.cohort import Cohort
from bidsfit.phantom.directions import spread_directions
from bidsfit.simulation.distributions import Distribution, Informed, Uniform
from bidsfit.simulation.simulator import Features, Noise, Simulator
from bidsfit.training.bundle import acquisition_facts
from bidsfit.training.inference import Inverter
from bidsfit.training.protocol import differences
from bidsfit.training.recipe import Recipe, recipe_facts, recipe_from
from bidsfit.training.task import Task
from bidsfit.trust.domain import Domain

SNR = 20.0
#: Numbers of directions.
FEW = (6, 12)
#: The protocol of the rotations and of the collapse.
SHOWN = 12
#: Voxels that are tested on, and combinations of parameters that are trained on.
TESTED, TESTED_QUICK, SAMPLES, SAMPLES_QUICK = 50_000, 5_000, 500_000, 50_000
#: A quick run has a shorter training of a smaller network.
QUICK: Mapping[str, Mapping[str, Any]] = {
    "architecture": {"units": 128},
    "schedule": {"steps": 3000, "batch": 512, "validation": 8192, "checks": 20},
}
#: Main directions are judged where the full set has at least this FA.
DIRECTED = 0.2
CLASSICAL, NETWORK, AGAIN = ("ols", "wls", "lsq"), "network", "network, trained again"
#: SNRs at which objectives differ, and the objectives: squared errors of the elements of the tensor, the same with the
#: spherical variance of the main direction, and the Rician likelihood of the signals, which knows no labels.
LOW = (5.0, 10.0, 20.0)
OBJECTIVES: Mapping[str, Mapping[str, Any]] = {
    "network, squared errors": {"name": "parameters"},
    "network, and spherical variance": {"name": "directions"},
    "network, Rician likelihood": {"name": "signals", "error": "rician", "s0": 2.0},
}
#: A change of a scalar by rotation that does not matter.
SAME = 0.01

#: Models of two shells; that of neurites is fitted to protocols with fewer directions than the app accepts.
DKI, NODDI = ParameterSpace(models.get("dki")), ParameterSpace(replace(models.get("noddi"), requirements=()))
#: SNR of two shells, voxels that are tested on there, and share of free water up to which they are judged.
KURTOSIS_SNR, FITTED, FITTED_QUICK, MOST_WATER = 30.0, 10_000, 1_000, 0.5


#: Lesions outside of the tissue that is trained on: restricted and swollen (um^2/ms).
RESTRICTED = {"axial": (0.4, 0.6), "radial": (0.1, 0.2), "water": (0.0, 0.1)}
SWOLLEN = {"axial": (2.5, 2.8), "radial": (2.0, 2.4), "water": (0.0, 0.1)}


def setting(acquisition: Acquisition, space: ParameterSpace = DTI, snr: float = SNR) -> Setting:
    """Tensors, or crossing fibres, measured by a protocol with Rician noise."""
    return Setting(space, acquisition, Noise(snr, "rician"))


def weights_of(run: Reproduction, recipe: Recipe, simulator: Simulator, words: str) -> dict[str, NDArray]:
    """Weights of the network of a recipe, trained on what a simulator draws; ``words`` are those of the progress."""
    with Bar(words) as bar:
        options: dict[str, Any] = {"threads": run.bench.threads, "device": run.bench.device, "progress": bar.show}
        trained = recipe.architecture.fit(recipe.objective, recipe.schedule, simulator, seed=run.bench.seed, **options)
    machine: dict[str, NDArray] = trained.machine
    return machine


def network(
    run: Reproduction,
    acquisition: Acquisition,
    snr: float = SNR,
    objective: Mapping[str, Any] | None = None,
    used: Acquisition | None = None,
) -> Inverter:
    """A perceptron that was trained for a protocol, by default to have small squared errors.

    It may be ``used`` with another one, whose directions are turned.
    """
    small = {"simulation": {"samples": SAMPLES_QUICK}, **QUICK} if run.quick else {"simulation": {"samples": SAMPLES}}
    recipe = recipe_from({"base": "network", "objective": objective or {}, **small}, NETWORK)
    place = setting(acquisition, TISSUE, snr)
    task = Task(Uniform(TISSUE), acquisition, place.noise, recipe, run.bench.seed)

    def compute() -> dict[str, NDArray]:
        simulator = Crossings(Uniform(DTI), acquisition, place.noise, recipe.simulation)
        words = f"training for {len(acquisition) - 1} directions, SNR {snr:g}, {recipe.objective.name}"
        return weights_of(run, recipe, simulator, words)

    facts = {"Task": task.key, "Full": acquisition_facts(full_set(), DTI.model.variables)}
    machine = run.bench.results.obtain("network", facts, compute)
    return Inverter(recipe, machine, DTI, used or acquisition, acquisition)


def measured(run: Reproduction, place: Setting) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """True tensors (n, 6) of the voxels that are tested on, and their noisy signals."""
    n = TESTED_QUICK if run.quick else TESTED
    tissue = place.space.sample(n, np.random.default_rng([run.bench.seed, 1]))
    return true_tensors(tissue), place.measure(tissue, 1, run.bench.seed + 2)


def quantities(elements: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    """FA, MD and main direction of tensors given by their elements (n, 6)."""
    return DTI.model.derivation.values(DTI.with_scale(elements))


def angles(first: NDArray[np.float64], second: NDArray[np.float64]) -> NDArray[np.float64]:
    """Angles between axes (n, 3), in degrees."""
    return np.rad2deg(np.arccos(np.clip(np.abs(np.sum(first * second, axis=1)), 0.0, 1.0)))


def errors(estimate: NDArray[np.float64], truth: NDArray[np.float64]) -> list[float]:
    """RMSE and bias of FA and of MD, and the median angle (degrees) between main directions, NaN if there are none."""
    found, known = quantities(estimate), quantities(truth)
    numbers = []
    for name in ("FA", "MD"):
        missed = found[name] - known[name]
        numbers += [float(np.sqrt(np.mean(missed**2))), float(np.mean(missed))]
    apart = angles(found["direction"], known["direction"])[known["FA"] >= DIRECTED]
    return [*numbers, float(np.median(apart)) if len(apart) else float("nan")]


#: Estimators of images, and the columns of their tables.
TAUGHT, PATCHES, SIMULATED = "network", "network, 3 x 3 x 3 voxels", "network, taught by simulation"
PLACES = ("image", "part", "voxels", "estimator")
#: Images up to this b-value count as without diffusion weighting, and those so near to `B_VALUE` as its shell (s/mm^2).
LARGEST_B0, NEAR = 50.0, 100.0
ERRORS = ("RMSE FA", "bias FA", "RMSE MD", "bias MD", "angle")


def few(run: Reproduction, name: str) -> None:
    """Errors with few directions, beside those of the full set with the same noise."""
    rows: list[list[Any]] = []
    for n in FEW:
        truth, signals = measured(run, setting(protocol(n), TISSUE))
        found = {label: run.bench.estimate(label, setting(protocol(n)), signals) for label in CLASSICAL}
        found[NETWORK] = network(run, protocol(n))(signals).parameters[:, DTI.places]
        rows += [[n, label, *errors(estimate, truth)] for label, estimate in found.items()]
    truth, signals = measured(run, setting(full_set(), TISSUE))
    rows.append([FULL, "wls", *errors(run.bench.estimate("wls", setting(full_set()), signals), truth)])
    caption = f"SNR {SNR:g}, b = {B_VALUE:g} s/mm²; MD in µm²/ms, angle in degrees"
    run.table(name, caption, ("directions", "estimator", *ERRORS), rows)


def objectives(run: Reproduction, name: str) -> None:
    """Errors at low SNR by what the network was taught to make small, beside the fits."""
    rows: list[list[Any]] = []
    for snr in LOW:
        truth, signals = measured(run, setting(protocol(SHOWN), TISSUE, snr))
        place = setting(protocol(SHOWN), snr=snr)
        found = {label: run.bench.estimate(label, place, signals) for label in ("ols", "wls", "mle")}
        for label, objective in OBJECTIVES.items():
            found[label] = network(run, protocol(SHOWN), snr, objective)(signals).parameters[:, DTI.places]
        rows += [[snr, label, *errors(estimate, truth)] for label, estimate in found.items()]
    caption = f"{SHOWN} directions, b = {B_VALUE:g} s/mm²; MD in µm²/ms, angle in degrees"
    run.table(name, caption, ("SNR", "estimator", *ERRORS), rows)


def rotation(run: Reproduction, name: str) -> None:
    """What changes where gradients and tissue turn together, so that signals and noise stay as they are."""
    turn = Rotation.random(rng=run.bench.seed)
    before, after = protocol(SHOWN), protocol(SHOWN, turn=turn)
    _, signals = measured(run, setting(before, TISSUE))
    found = {
        label: [run.bench.estimate(label, setting(place), signals) for place in (before, after)] for label in CLASSICAL
    }
    machines = {NETWORK: network(run, before, used=after), AGAIN: network(run, after)}
    shown = network(run, before)(signals).parameters[:, DTI.places]
    found |= {label: [shown, invert(signals).parameters[:, DTI.places]] for label, invert in machines.items()}
    rows: list[list[Any]] = []
    for label, estimates in found.items():
        first, second = map(quantities, estimates)
        for scalar in ("FA", "MD"):
            change = second[scalar] / first[scalar] - 1
            mean = second[scalar].mean() / first[scalar].mean() - 1
            within = np.mean(np.abs(change) <= SAME)
            rows.append([label, scalar, 100 * mean, 100 * np.median(np.abs(change)), 100 * within])
        directed = first["FA"] >= DIRECTED
        turned = turn.apply(first["direction"])
        apart = angles(turned, second["direction"])[directed]
        rows.append([label, "direction (degrees)", None, float(np.median(apart)), 100 * np.mean(apart <= 1)])
    caption = (
        f"{SHOWN} directions. Change of the mean and median change in a voxel, in per cent, and per cent of the voxels "
        "that change by 1 % or less; of the main direction, degrees from the direction that was turned along"
    )
    run.table(name, caption, ("estimator", "quantity", "mean", "voxel", "within 1"), rows)


@dataclass(frozen=True)
class Lesson:
    """Images with labels that networks are taught on, and one that they are tested on.

    Attributes
    ----------
    name : str
    scans : list of Scan
        Shown; with few directions.
    labels : ndarray, shape (n, 6)
        Elements of the tensors of all their voxels.
    rows : ndarray of int
        The voxels that teach; others are their neighbours.
    test : Scan
    truth : ndarray, shape (m, 6)
        Of all its voxels.
    parts : dict of str to ndarray of bool, shape (m,)
        Voxels that are judged.
    """

    name: str
    scans: list[Scan]
    labels: NDArray[np.float64]
    rows: NDArray[np.integer]
    test: Scan
    truth: NDArray[np.float64]
    parts: dict[str, NDArray[np.bool_]]

    @property
    def snr(self) -> float:
        """Median signal at b = 0 over the noise, rounded, so that a training serves images that are alike."""
        b0 = DTI.model.reference_signal(self.test.signals, self.test.acquisition)
        return float(f"{np.median(b0) / self.test.sigma:.2g}")


def fewer(scan: Scan, n: int) -> Scan:
    """The first image at b = 0 of a scan, and n of its directions that are spread evenly."""
    b, directions = scan.acquisition.b_values, scan.acquisition.variable("direction")
    shell = np.flatnonzero(b > LARGEST_B0)
    return scan.of(np.r_[np.flatnonzero(b <= LARGEST_B0)[0], shell[evenly(directions[shell], n)]])


def brains(run: Reproduction, n: int) -> Iterator[Lesson]:
    """Images of a dataset: labels by weighted least squares of the whole shell, and every third slice left out."""
    for whole in scans_of(run.data, DTI.model) if run.data is not None else ():
        b = whole.acquisition.b_values
        shell = whole.of(np.flatnonzero((b <= LARGEST_B0) | (np.abs(b - B_VALUE) < NEAR)))
        labels = LogLinear(DTI.model, shell.acquisition)(shell.signals)[:, DTI.places]
        possible = DTI.contains(labels)
        shown, labels = fewer(shell.some(possible), n), labels[possible]
        out = shown.positions[:, 2] % 3 == 1
        parts = {"slices left out": out}
        yield Lesson(whole.name, [shown], labels, np.flatnonzero(~out), shown, labels, parts)


def heads(run: Reproduction, n: int) -> Lesson:
    """Simulated heads whose tensors are known, to learn from; and that of a patient with a lesion which none has."""
    cohort = Cohort(
        "dti",
        n_healthy=2 if run.quick else 8,
        n_patients=1,
        shape=(48, 48, 9),
        b_values=(0.0, B_VALUE),
        n_directions=n,
        seed=run.bench.seed,
    )
    scans, truths, lesion = [], [], np.zeros(0, dtype=bool)
    for participant in cohort.participants():
        mask = participant.head.mask
        signals = cohort.scan(participant, 1)[mask].astype(float)
        scan = Scan("phantom", signals, np.argwhere(mask), cohort.acquisition, participant.sigma)
        scans.append(replace(scan, name=f"phantom {participant.label}"))
        truths.append(np.stack([participant.head.parameters[name][mask] for name in DTI.names], axis=1))
        lesion = participant.head.lesion[mask]
    labels = np.concatenate(truths[:-1])
    parts = {"healthy tissue": ~lesion, cohort.lesion_name: lesion}
    return Lesson("phantom", scans[:-1], labels, np.arange(len(labels)), scans[-1], truths[-1], parts)


def taught(run: Reproduction, lesson: Lesson, architecture: Mapping[str, Any]) -> Inverter:
    """A network that learned from the voxels of a lesson."""
    small: Mapping[str, Any] = QUICK if run.quick else {}
    made = {**small.get("architecture", {}), **architecture}
    recipe = recipe_from({"base": "network", **small, "architecture": {"name": "perceptron", **made}}, NETWORK)
    images = voxels_of(lesson.scans, DTI.model)

    def compute() -> dict[str, NDArray]:
        simulator = Labelled(DTI, images, lesson.labels, lesson.rows, recipe.architecture.reach)
        words = f"training of a {recipe.architecture.name} on {lesson.name}, {len(images.acquisition)} images"
        return weights_of(run, recipe, simulator, words)

    told = hashlib.sha256(lesson.labels.tobytes() + lesson.rows.tobytes()).hexdigest()
    facts = {"Images": images.digest, "Labels": told, "Recipe": recipe_facts(recipe), "Seed": run.bench.seed}
    return Inverter(recipe, run.bench.results.obtain("network", facts, compute), DTI, images.acquisition)


def judged(
    run: Reproduction, lesson: Lesson, networks: Mapping[str, Mapping[str, Any]], simulated: bool = False
) -> list[list[Any]]:
    """Errors of fits and networks in every part of a lesson; if ``simulated``, one network was taught by simulation."""
    test = lesson.test
    place = setting(test.acquisition, snr=lesson.snr)
    found = {label: run.bench.estimate(label, place, test.signals) for label in ("ols", "wls")}
    machines = {label: taught(run, lesson, architecture) for label, architecture in networks.items()}
    if simulated:
        machines[SIMULATED] = network(run, test.acquisition, lesson.snr)
    level = np.full(len(test.signals), test.sigma)
    for label, invert in machines.items():
        places = test.positions if any(invert.recipe.architecture.reach) else None
        found[label] = invert(test.signals, places, level).parameters[:, DTI.places]
    return [
        [lesson.name, part, int(where.sum()), label, *errors(estimate[where], lesson.truth[where])]
        for part, where in lesson.parts.items()
        for label, estimate in found.items()
    ]


def real(run: Reproduction, name: str) -> None:
    """Images of brains, with few of their directions: the tensors of all directions are the truth."""
    rows = [
        [n, *row] for n in FEW for lesson in brains(run, n) for row in judged(run, lesson, {TAUGHT: {}}, simulated=True)
    ]
    if not rows:
        run.table(name, "Not made: it needs images of brains. Give their dataset with --data", ("directions",), [])
        return
    caption = "Errors against the fit of all directions; MD in µm²/ms, angle in degrees"
    run.table(name, caption, ("directions", *PLACES, *ERRORS), rows)


def patches(run: Reproduction, name: str) -> None:
    """Networks that read one voxel, or 3 x 3 x 3 of them, on simulated heads and on images of brains."""
    rows = [
        [n, *row]
        for n in FEW
        for lesson in (heads(run, n), *brains(run, n))
        for row in judged(run, lesson, {TAUGHT: {}, PATCHES: {"name": "convolution", "slices": True}})
    ]
    caption = "Errors against the true tensors, or the fit of all directions; MD in µm²/ms, angle in degrees"
    run.table(name, caption, ("directions", *PLACES, *ERRORS), rows)


def two_shells(first: int, second: int, b: tuple[float, float], at_zero: int = 1) -> Acquisition:
    """Images at b = 0, and along directions that all differ, of which so many have each of two b-values."""
    directions = spread_directions(first + second)
    order = np.arange(first + second) * first // (first + second)  # the shells take turns along the sphere
    in_first = np.diff(order, append=first) > 0
    return Acquisition([0.0] * at_zero + list(np.where(in_first, *b)), np.vstack([np.zeros((at_zero, 3)), directions]))


def perceptron(run: Reproduction, place: Setting, distribution: Distribution) -> Inverter:
    """A perceptron for a setting, taught by voxels of a distribution and their true parameters."""
    small = {"simulation": {"samples": SAMPLES_QUICK}, **QUICK} if run.quick else {"simulation": {"samples": SAMPLES}}
    recipe = recipe_from({"base": "network", **small}, NETWORK)
    task = Task(distribution, place.acquisition, place.noise, recipe, run.bench.seed)
    machine = run.bench.machine(task, f"{place.space.model.name}, {len(place.acquisition)} images")
    return Inverter(recipe, machine, place.space, place.acquisition)


def compared(
    run: Reproduction,
    distribution: Distribution,
    protocols: Sequence[tuple[Acquisition, Sequence[str]]],
    quantities: Sequence[str],
    keep: Callable[[NDArray[np.float64]], NDArray[np.bool_]],
) -> Iterator[list[Any]]:
    """Errors of estimators by protocol: images, estimator, RMSE and bias of every quantity."""
    space, n = distribution.space, FITTED_QUICK if run.quick else FITTED
    truth = distribution.sample(n, np.random.default_rng([run.bench.seed, 1]))
    truth = truth[keep(truth)]

    def values(elements: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
        rows = space.with_scale(elements)
        return dict(zip(space.model.names, rows.T, strict=True)) | space.model.derivation.values(rows)

    known = values(truth)
    for acquisition, labels in protocols:
        place = setting(acquisition, space, KURTOSIS_SNR)
        signals = place.measure(truth, 1, run.bench.seed + 2)
        for label in labels:
            if label == NETWORK:
                estimate = perceptron(run, place, distribution)(signals).parameters[:, space.places]
            else:
                estimate = run.bench.estimate(label, place, signals)
            missed = [values(estimate)[name] - known[name] for name in quantities]
            numbers = [number for rest in missed for number in (np.sqrt(np.mean(rest**2)), np.mean(rest))]
            yield [len(acquisition), label, *map(float, numbers)]


def kurtosis(run: Reproduction, name: str) -> None:
    """Kurtosis from two shells of 9, 15 and 30 directions; its tensor has 15 elements."""
    few_of, enough, many = (two_shells(n, n, (1000.0, 2000.0)) for n in (9, 15, 30))
    protocols = [(few_of, [NETWORK]), (enough, ["ols", "wls", NETWORK]), (many, ["wls", NETWORK])]
    names = ("MK", "FA", "MD")
    rows = list(compared(run, Informed(DKI, {}), protocols, names, lambda truth: np.full(len(truth), True)))
    caption = f"SNR {KURTOSIS_SNR:g}, one image at b = 0, half of the others at b = 1000 and half at 2000 s/mm²"
    run.table(
        name, caption, ("images", "estimator", *(f"{what} {q}" for q in names for what in ("RMSE", "bias"))), rows
    )


def neurites(run: Reproduction, name: str) -> None:
    """Density and dispersion of neurites from 8 and 12 images, beside fits to these and to a whole protocol."""
    b = (1000.0, 2500.0)
    protocols = [(two_shells(n, n + 1, b), ["lsq", NETWORK]) for n in (3, 5)]
    protocols.append((two_shells(32, 32, b, at_zero=8), ["lsq"]))
    names, water = ("NDI", "ODI", "FISO"), NODDI.names.index("FISO")
    rows = list(compared(run, Uniform(NODDI), protocols, names, lambda truth: truth[:, water] <= MOST_WATER))
    caption = (
        f"SNR {KURTOSIS_SNR:g}, b up to 2500 s/mm²; voxels with at most {100 * MOST_WATER:g} % of free water. The app "
        "fits noddi to no protocol of fewer than 12 directions a shell"
    )
    run.table(
        name, caption, ("images", "estimator", *(f"{what} {q}" for q in names for what in ("RMSE", "bias"))), rows
    )


def collapse(run: Reproduction, name: str) -> None:
    """The network where its training does not reach, beside `ols`, and whether the domain flag tells."""
    own = protocol(SHOWN)
    invert = network(run, own)
    domain, features = Domain.of(setting(own, TISSUE).simulator, run.bench.seed), Features(DTI.model, own)
    reordered = Acquisition(own.b_values, np.vstack([np.zeros(3), spread_directions(SHOWN)[::-1]]))
    cases = {
        "as trained": setting(own, TISSUE),
        "twice the noise": setting(own, TISSUE, SNR / 2),
        "restricted lesion": setting(own, ParameterSpace(CROSSING, RESTRICTED)),
        "swollen lesion": setting(own, ParameterSpace(CROSSING, SWOLLEN)),
        "other directions": setting(reordered, TISSUE),
        "b = 700": setting(protocol(SHOWN, 700.0), TISSUE),
    }
    rows: list[list[Any]] = []
    words: list[list[Any]] = []
    for case, place in cases.items():
        truth, signals = measured(run, place)
        fitted = run.bench.estimate("ols", replace(place, space=DTI), signals)
        found = invert(signals).parameters
        snr = np.fmax(found[:, DTI.model.scale_index], 1e-6) * place.noise.snr
        flagged = 100 * np.mean(domain.excludes(features(signals) * np.sqrt(features.counts), snr))
        rows.append([case, "ols", *errors(fitted, truth), None])
        rows.append([case, NETWORK, *errors(found[:, DTI.places], truth), flagged])
        words.append([case, "; ".join(differences(place.acquisition, own, turns=True)) or "taken"])
    caption = f"{SHOWN} directions, SNR {SNR:g}. Flagged: per cent of the voxels"
    run.table(name, caption, ("case", "estimator", *ERRORS, "flagged"), rows)
    caption = (
        "What the app says of the protocol. Errors of the network with one that is refused are of its use all the same"
    )
    run.table(f"{name}-protocol", caption, ("case", "protocol"), words)


def bench_of(options: Options) -> Bench:
    """The bench of a run."""
    return options.bench(
        options={"lsq": {"intervals": "none"}},
    )


PAPER = Paper(
    title="Karimi and Warfield 2024: the first experiments",
    lead="Diffusion MRI with machine learning (Imaging Neuroscience 2024;2:1-55), a review: diffusion tensors from few "
    "directions by least squares and by a perceptron, in simulated crossing fibres. The truth is the tensor that is "
    f"fitted to {FULL} directions without noise, and the network was taught these.",
    bench=bench_of,
    tables={
        "few": Exhibit("Errors with 6 and 12 directions.", {"": few}),
        "objectives": Exhibit("What a network is taught to make small, at low SNR.", {"": objectives}),
        "real": Exhibit("Images of brains, with few of their directions.", {"": real}),
        "patches": Exhibit("Networks that read neighbours.", {"": patches}),
        "kurtosis": Exhibit("Kurtosis from fewer directions.", {"": kurtosis}),
        "noddi": Exhibit("Neurites from 8 and 12 images.", {"": neurites}),
        "rotation": Exhibit("Gradients and tissue turned together.", {"": rotation}),
        "collapse": Exhibit("Noise, lesions and protocols other than those of the training.", {"": collapse}),
    },
    figures={},
)
