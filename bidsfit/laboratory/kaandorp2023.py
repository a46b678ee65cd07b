"""Kaandorp et al. 2023, training features: what networks of IVIM learn from, and how long.

Kaandorp MPT, Zijlstra F, Federau C, While PT. Deep learning intravoxel incoherent motion modeling: Exploring the impact
of training features and learning strategies. Magnetic Resonance in Medicine 2023;90:312-328.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bidsfit import models
from bidsfit.acquisition import Acquisition
from bidsfit.evaluation.experiments import Evaluation, Setting
from bidsfit.laboratory.bench import Bar, Bench
from bidsfit.laboratory.paper import Exhibit, Options, Paper, Reproduction
from bidsfit.models.space import ParameterSpace
from bidsfit.phantom.cohort import Cohort
from bidsfit.reports.learning import plot_courses
from bidsfit.simulation.distributions import Distribution, Uniform, pool
from bidsfit.simulation.simulator import Noise
from bidsfit.training.inference import Inverter
from bidsfit.training.recipe import recipe_from
from bidsfit.training.task import Task, fit
from bidsfit.training.trainer import State
from bidsfit.trust.metrics import rank_correlation

#: s/mm^2; one image each. Federau et al., Radiology 2012;265:874-881.
B_VALUES = (0, 10, 20, 40, 80, 110, 140, 170, 200, 300, 400, 500, 600, 700, 800, 900)
#: True parameters (um^2/ms); S0 is uniform up to 1, where the SNR is 200.
TRUTH = {"f": (0.0, 0.5), "D": (0.0, 3.0), "Dstar": (3.0, 100.0)}
SNR = 200.0
#: Objectives of the networks, by their names in the paper.
LEARNING = {"supervised": "parameters", "unsupervised": "signals"}

#: Steps of an epoch; epochs of a training, of one as long as the paper's, and of each part that is kept by itself.
EPOCH, EPOCHS, EPOCHS_LONG, EPOCHS_QUICK, PART = 500, 5_000, 50_000, 60, 1_000
#: Learning rate; a quick run has one that is ten times as large.
RATE, RATE_QUICK = 1e-4, 1e-3
#: A training would end after so many epochs without a smaller loss of validation.
PATIENCE = 10
#: Curves of the validation and of the test.
VALIDATION, TESTED, TESTED_QUICK = 12_800, 20_000, 4_000
#: Simulated patients whose segmented fits are the patient distribution, and the SNR of their white matter.
PATIENTS, PATIENTS_SNR, POOLED = 8, 30.0, 50_000

#: What the paper says of the epoch of the early stop, and of the rank correlation of D* and f there.
PAPER_STOPS: Mapping[tuple[str, str], tuple[int, float | None]] = {
    ("uniform", "unsupervised"): (237, 0.62),
    ("uniform", "supervised"): (118, None),
    ("patients", "unsupervised"): (181, 0.73),
}
#: Epoch of the smallest error of D* of the unsupervised network.
PAPER_LEAST = {"uniform": 208, "patients": 1_552}


def setting(snr: float = SNR) -> Setting:
    """The protocol of the patients."""
    return Setting(ParameterSpace(models.get("ivim"), TRUTH), Acquisition(B_VALUES), Noise(snr, "rician"))


def bench_of(options: Options) -> Bench:
    """The bench of a run."""
    bounds = {"bounds": TRUTH}
    return options.bench(
        options={"lsq": {**bounds, "intervals": "none"}, "segmented": bounds},
    )


def patients(run: Reproduction) -> Distribution:
    """Segmented fits of simulated patients with a lesion, in place of those of the paper's."""
    place, fits = setting(PATIENTS_SNR), {}
    cohort = Cohort("ivim", n_healthy=0, n_patients=PATIENTS, seed=run.bench.seed)
    for k, participant in enumerate(cohort.participants()):
        head = participant.head
        truth = np.stack([head.parameters[name][head.mask] for name in place.space.names], axis=1)
        fits[participant.label] = run.bench.estimate("segmented", place, place.measure(truth, 1, run.bench.seed + k))
    origin = {"Estimator": "segmented", "SNR": PATIENTS_SNR, "Simulated": f"bidsfit-lab phantom, seed {run.bench.seed}"}
    return pool(place.space, fits, most=POOLED, seed=run.bench.seed, origin=origin)


#: What the networks of a figure learn from.
DISTRIBUTIONS: Mapping[str, Callable[[Reproduction], Distribution]] = {
    "uniform": lambda run: Uniform(setting().space),
    "patients": patients,
}
#: What is drawn of `Tested.numbers`.
DRAWN = {
    "signals": r"error of signals ($\sigma$)",
    "parameters": "error of parameters",
    "nrmse_Dstar": r"NRMSE of $D^*$",
    "rho": r"$|\rho(D^*, f)|$",
}


def task(run: Reproduction, learning: str, distribution: Distribution, epochs: int, seed: int) -> Task:
    """A part of the training of a network, after which its weights are those of the last step."""
    recipe = recipe_from(
        {
            "simulation": {"unit": "noise", "s0_range": [1e-3, 1.0]},
            "architecture": {"name": "perceptron", "units": 64, "hidden_layers": 3, "activation": "elu"},
            "objective": {"name": LEARNING[learning], "output": "absolute", "s0": SNR},
            "schedule": {
                "rate": "constant",
                "peak_rate": RATE_QUICK if run.quick else RATE,
                "batch": 128,
                "steps": EPOCH * epochs,
                "checks": epochs,
                "validation": VALIDATION,
                "keep": "last",
            },
        },
        learning,
    )
    place = setting()
    return Task(distribution, place.acquisition, place.noise, recipe, seed)


class Tested(NamedTuple):
    """Curves that networks are tested on, from the distribution of their training.

    Attributes
    ----------
    truth, fits : ndarray, shape (n, 3)
        True parameters, and their estimates by least squares.
    signals : ndarray, shape (n, n_b)
    """

    truth: NDArray[np.float64]
    fits: NDArray[np.float64]
    signals: NDArray[np.float64]

    def numbers(self, estimates: NDArray[np.float64], squares: NDArray[np.float64]) -> dict[str, float]:
        """Errors of estimates, shape (n, 3), and of the signals that they predict, from their squares, shape (n,)."""
        space, errors = setting().space, estimates - self.truth
        told = Evaluation(self.truth, estimates, errors, 0 * errors, abs(errors), estimates).summary(space.names)
        apart = np.sqrt(((estimates - self.fits) ** 2).mean(axis=0)) / self.truth.mean(axis=0)
        return {
            "signals": float(np.sqrt(squares.mean() / len(B_VALUES)) * SNR),
            "parameters": float(np.sqrt(((errors / space.span) ** 2).mean())),
            "rho": float(rank_correlation(estimates)[space.names.index("f"), space.names.index("Dstar")]),
            **{key: value for key, value in told.items() if key.startswith(("nrmse", "slope"))},
            **{f"from_lsq_{name}": float(value) for name, value in zip(space.names, apart, strict=True)},
        }

    @property
    def least_squares(self) -> dict[str, float]:
        """The numbers of least squares."""
        place = setting()
        signal = place.space.model.signal(place.space.with_scale(self.fits), place.acquisition)
        scale = (self.signals * signal).sum(axis=1) / (signal**2).sum(axis=1)
        return self.numbers(self.fits, ((self.signals - scale[:, None] * signal) ** 2).sum(axis=1))


def curves_of(run: Reproduction, distribution: Distribution) -> Tested:
    """Curves other than those of training and validation."""
    n, seed = TESTED_QUICK if run.quick else TESTED, run.bench.seed
    batch = task(run, "supervised", distribution, 1, seed).simulator.draw(n, np.random.default_rng([seed, 5]))
    signals = batch.noisy[:, 0]
    return Tested(batch.truth, run.bench.estimate("lsq", setting(), signals), signals)


class Course(NamedTuple):
    """How a network learned.

    Attributes
    ----------
    epochs : ndarray, shape (n,)
        After which it was tested.
    numbers : dict of name to ndarray, shape (n,)
        As of `Tested.numbers`.
    validation : ndarray, shape (n_epochs,)
        Loss of the validation after every epoch.
    """

    epochs: NDArray[np.int64]
    numbers: dict[str, NDArray[np.float64]]
    validation: NDArray[np.float64]

    @property
    def stop(self) -> int:
        """The epoch whose weights an early stop keeps: the first that the next ten do not improve on."""
        lowest = np.minimum.accumulate(self.validation)
        records = np.flatnonzero(self.validation == lowest)
        return int(next(i for i in records if np.all(self.validation[i + 1 : i + 1 + PATIENCE] >= lowest[i]))) + 1

    def nearest(self, epoch: int) -> int:
        """Where in `epochs` the test nearest to an epoch is."""
        return int(np.argmin(np.abs(np.log(self.epochs / epoch))))


def learn(run: Reproduction, learning: str, distribution: Distribution, curves: Tested, last: int) -> Course:
    """Train a network in parts, each of which begins where the one before ended; cached."""
    ends = np.arange(PART, EPOCHS_LONG + 1, PART)
    grid = np.concatenate([np.geomspace(1, EPOCHS_LONG, 60).round().astype(int), ends, [last]])
    epochs = np.unique(grid[grid <= last])
    parts: list[dict[str, NDArray]] = []
    for first in range(0, last, PART):
        until = min(first + PART, last)
        made = task(run, learning, distribution, until - first, run.bench.seed + first // PART)
        shown = (epochs[(epochs > first) & (epochs <= until)] - first).tolist()
        facts = {"Task": made.key, "Begun": first, "Shown": shown, "Tested": len(curves.truth)}
        what = f"{learning} learning, epochs {first + 1} to {until}"
        compute = partial(_part, run, made, parts[-1] if parts else {}, shown, curves, what)
        parts.append(run.bench.results.obtain(f"course_{learning}", facts, compute))
    numbers = {key: np.concatenate([part[key] for part in parts]) for key in curves.least_squares}
    return Course(epochs, numbers, np.concatenate([part["validation"] for part in parts]))


def _part(
    run: Reproduction, made: Task, before: Mapping[str, NDArray], shown: Sequence[int], curves: Tested, what: str
) -> dict[str, NDArray]:
    """Train from where the part before ended, and test the network after these epochs."""
    import torch

    weights = {
        key: torch.from_numpy(value) for key, value in before.items() if key in ("centre", "width") or "/" in key
    }
    schedule = replace(made.recipe.schedule, checkpoints=tuple(EPOCH * epoch for epoch in shown))
    kept, bench = replace(made, recipe=replace(made.recipe, schedule=schedule)), run.bench
    start = [State.of(weights)] if weights else []
    with Bar(what) as bar:
        trained = fit(kept, start=start, threads=bench.threads, device=bench.device, progress=bar.show)
    space, rows = made.distribution.space, []
    for machine in trained.checkpoints.values():
        invert = Inverter(made.recipe, machine, space, made.acquisition)
        found = invert(curves.signals, sigma=np.full(len(curves.signals), 1 / SNR))
        rows.append(curves.numbers(found.parameters[:, space.places], found.squares))
    numbers = {key: np.array([row[key] for row in rows]) for key in rows[0]}
    return {
        "validation": trained.curve[:, 2],
        **numbers,
        **{name: value.numpy() for name, value in trained.states[0].arrays.items()},
    }


def courses(run: Reproduction, name: str, *, learned: str, last: int = EPOCHS) -> None:
    """Learning curves of both networks, and what they tell where an early stop would end them, and later."""
    distribution = DISTRIBUTIONS[learned](run)
    curves, last = curves_of(run, distribution), EPOCHS_QUICK if run.quick else last
    found = {learning: learn(run, learning, distribution, curves, last) for learning in LEARNING}
    fits = curves.least_squares
    lines = {
        words: {learning: (course.epochs, course.numbers[key]) for learning, course in found.items()}
        for key, words in DRAWN.items()
    }
    caption = (
        "On curves that neither training nor validation had. Dots: the epoch at which an early stop would end the "
        "training. Dashed: least squares."
    )
    marks = {learning: course.stop for learning, course in found.items()}
    dashed = {words: fits[key] for key, words in DRAWN.items()}
    title = f"Learning from the distribution {learned!r}"
    run.gallery.draw(name, title, caption, plot_courses, lines, marks, dashed)
    columns = ("learning", "epoch", *fits)
    rows = [
        [learning, int(epoch), *(float(values[i]) for values in course.numbers.values())]
        for learning, course in found.items()
        for i, epoch in enumerate(course.epochs)
    ]
    run.gallery.table(name, columns, rows)
    moments: list[list[Any]] = [["least squares", "", None, None, *fits.values(), None]]
    for learning, course in found.items():
        stop, rho = PAPER_STOPS.get((learned, learning), (None, None))
        least = int(course.epochs[course.numbers["nrmse_Dstar"].argmin()])
        of_paper = PAPER_LEAST[learned] if learning == "unsupervised" else None
        for moment, epoch, printed, printed_rho in (
            ("early stop", course.stop, stop, rho),
            ("least error of D*", least, of_paper, None),
            ("end", last, None, None),
        ):
            i = course.nearest(epoch)
            numbers = [float(values[i]) for values in course.numbers.values()]
            moments.append([learning, moment, epoch, printed, *numbers, printed_rho])
    columns = ("learning", "moment", "epoch", "paper_epoch", *fits, "paper_rho")
    run.table(f"{name}-moments", f"Learned from {learned}: errors and correlation at three moments", columns, moments)


PAPER = Paper(
    title="Kaandorp et al. 2023, made again",
    lead="Deep learning intravoxel incoherent motion modeling: Exploring the impact of training features and learning "
    "strategies (Magnetic Resonance in Medicine 2023;90:312-328): the simulations. Patients are simulated as well.",
    bench=bench_of,
    tables={},
    figures={
        "uniform": Exhibit("Trained and tested on uniform parameters.", {"": partial(courses, learned="uniform")}),
        "patients": Exhibit(
            "Trained and tested on segmented fits of patients.", {"": partial(courses, learned="patients")}
        ),
        "long": Exhibit(
            f"Trained for {EPOCHS_LONG:,} epochs on uniform parameters.",
            {"": partial(courses, learned="uniform", last=EPOCHS_LONG)},
            costly=True,
        ),
    },
)
