"""Reproduction of Gyori et al. 2022, on the influence of the training distribution on networks.

Gyori NG, Palombo M, Clark CA, Zhang H, Alexander DC. Training data distribution significantly impacts the estimation of
tissue microstructure with machine learning. Magnetic Resonance in Medicine 2022;87:932-947.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bidsfit import models
from bidsfit.acquisition import Acquisition
from bidsfit.evaluation.experiments import Evaluation, Setting, true_points
from bidsfit.laboratory.bench import Bench, say
from bidsfit.laboratory.evaluation import box_groups
from bidsfit.laboratory.gallery import Gallery, axes_of, draw_bias, draw_maps, draw_sd
from bidsfit.laboratory.patients import PatientSlice, draw_differences, draw_lesion, simulated_patient
from bidsfit.laboratory.pools import simulated_pools
from bidsfit.models.space import ParameterSpace
from bidsfit.reports.evaluation import Case, Density, Group, plot_boxes, plot_distributions
from bidsfit.reports.laboratory import LaboratorySection, Table
from bidsfit.simulation.distributions import participants_of
from bidsfit.simulation.simulator import Noise
from bidsfit.training.recipe import Recipe, load_recipe

#: The protocol: b-values in s/mm^2, those above 0 in 32 directions. Its S0 has no noise.
B_VALUES, DIRECTIONS = (0.0, 1000.0, 2000.0, 3500.0, 5000.0), 32
#: Noise realisations of every point of the grid, and of a box plot.
REPEATS, BOX_REPEATS = 1000, 2000

#: Table 2: vcyl and lambda (um^2/ms) of the abnormalities.
ABNORMALITIES: Mapping[str, tuple[float, float]] = {
    "1": (0.67, 0.5),
    "2": (0.05, 1.5),
    "3": (0.60, 1.8),
    "4": (0.47, 1.9),
}

#: What an estimator of the package is called in the paper.
PAPER_NAMES = {
    "lsq": "traditional",
    "forest-uniform": "RF-uniform",
    "forest-healthy": "RF-healthy",
    "forest-mixed": "RF-mixed",
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

TRADITIONAL = "lsq"
DISTRIBUTIONS = ("uniform", "healthy", "mixed", "wm", "gm")
THREE = ("uniform", "healthy", "mixed")
NETWORKS = tuple(f"net-{name}" for name in DISTRIBUTIONS)
FORESTS = tuple(f"forest-{name}" for name in THREE)


@dataclass(frozen=True)
class TrainedEntry:
    """A trained estimator of Table 1."""

    estimator: str
    model: str
    snr: float


#: Table 1. The text names models, methods, distributions and SNRs; these 21 combinations cover all of them.
ENTRIES = (
    *[TrainedEntry(name, "smt2", snr) for snr in (25.0, 5.0, np.inf) for name in NETWORKS],
    *[TrainedEntry(name, "smt2", 25.0) for name in FORESTS],
    *[TrainedEntry(name, "smt3", 25.0) for name in NETWORKS[:3]],
)


def readable(name: str) -> str:
    """Name of an estimator in the paper."""
    return PAPER_NAMES.get(name, name)


def setting(model: str, snr: float) -> Setting:
    """The paper's acquisition and noise for a model."""
    counts = [1, *[DIRECTIONS] * (len(B_VALUES) - 1)]
    acquisition = Acquisition(B_VALUES, counts=counts, n_directions=counts)
    return Setting(ParameterSpace(models.get(model)), acquisition, Noise(snr, "gaussian", lowest=False))


def quick_recipes() -> dict[str, Recipe]:
    """Recipes with a tenth of the training, for a preview."""
    found: dict[str, Recipe] = {}
    for name in ("network", "network-noise-free"):
        recipe = load_recipe(name)
        short = replace(recipe.schedule, steps=recipe.schedule.steps // 10, validation=16384, checks=20)
        found[name] = replace(recipe, schedule=short)
    return found | {"forest": load_recipe("forest-quick")}


def bench_for(folder: Path, *, real: Path | None, quick: bool, threads: int, device: str, seed: int) -> Bench:
    """A bench with pools of simulated healthy participants, and of those of a real dataset if given."""
    pools: dict[tuple[str, str], Any] = {}
    for model in ("smt2", "smt3"):
        pools |= simulated_pools(
            model,
            participants=2 if quick else 6,
            shape=(48, 48, 3) if quick else (96, 96, 4),
            snr=25.0,
            seed=seed,
            threads=threads,
            real=real,
        )
    return Bench(
        folder,
        pools,
        threads=threads,
        device=device,
        seed=seed,
        recipes=quick_recipes() if quick else {},
        options={TRADITIONAL: {"s0": "measured"}},
    )


def readable_pools(bench: Bench) -> str:
    """Participants in the pools of the whole brain, as text."""
    found = [
        f"{model}: {', '.join(participants_of(pool.facts))}"
        for (model, name), pool in bench.pools.items()
        if name == "healthy"
    ]
    return "; ".join(found)


class Reproduction:
    """Tables and figures of the paper, each made on request.

    Parameters
    ----------
    bench : Bench
        Has the pools of healthy participants.
    quick : bool
        Fewer noise realisations.
    """

    def __init__(self, bench: Bench, gallery: Gallery, *, quick: bool = False) -> None:
        self.bench, self.gallery = bench, gallery
        self.repeats, self.box_repeats = (100, 400) if quick else (REPEATS, BOX_REPEATS)
        self.tables: list[Table] = []

    # Tables

    def table_1(self) -> None:
        """Trained estimators: training distribution, duration, and means over the grid."""
        rows = []
        for entry in ENTRIES:
            facts = self.bench.training_facts(entry.estimator, setting(entry.model, entry.snr))
            training, recipe = facts["Training"], facts["Recipe"]
            method = "network" if facts["Kind"] == "network" else "random forest"
            size = recipe["architecture"]["hidden_layers"] if method == "network" else training["Nodes"]
            means = self.evaluate(entry.model, entry.snr, (entry.estimator,))[entry.estimator].summary(
                setting(entry.model, entry.snr).space.names
            )
            rows.append(
                [
                    readable(entry.estimator),
                    entry.model,
                    method,
                    entry.estimator.split("-")[1],
                    entry.snr,
                    size,
                    training["Seconds"],
                    "yes" if training["Converged"] else "no",
                    *[means.get(f"{q}_{p}") for p in ("vcyl", "vcsf", "lambda") for q in ("rmse", "bias", "sd")],
                ]
            )
        columns = (
            "estimator",
            "model",
            "method",
            "distribution",
            "snr",
            "hidden_layers_or_nodes",
            "seconds",
            "converged",
            *[f"{q}_{p}" for p in ("vcyl", "vcsf", "lambda") for q in ("rmse", "bias", "sd")],
        )
        self._keep("table1", "Table 1: the trained estimators, and their means over the grid", columns, rows)

    def table_2(self) -> None:
        """The abnormalities."""
        rows = [[f"Abnormality {name}", *values] for name, values in ABNORMALITIES.items()]
        self._keep("table2", "Table 2: abnormalities (lambda in µm²/ms)", ("name", "vcyl", "lambda"), rows)

    def table_3(self) -> None:
        """Means over the grid at SNR 25, with those of the paper."""
        found = self.evaluate("smt2", 25.0, TABLE_3)
        rows: list[list[Any]] = []
        for name, paper in TABLE_3.items():
            means = found[name].summary(("vcyl", "lambda"))
            rows.append([readable(name), name, *[means[q] for q in QUANTITIES], *paper])
        columns = ("estimator", "bidsfit_name", *QUANTITIES, *[f"paper_{q}" for q in QUANTITIES])
        self._keep(
            "table3",
            "Table 3: means over the grid of 21 x 21 true parameters at SNR 25 (lambda in µm²/ms), and the paper's. "
            "Rows of healthy pools depend on whom they hold",
            columns,
            rows,
        )

    def _keep(self, name: str, caption: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        path = self.gallery.table(name, columns, rows)
        self.tables.append(Table(caption, columns, rows))
        say(f"{path}")

    # Figures

    def distributions(self, number: str) -> None:
        """Training distributions, with the abnormalities."""
        place = setting("smt2", 25.0)
        panels = [
            Density(name.split("-")[1], samples)
            for name in NETWORKS
            if (samples := self.bench.training_samples(name, place, 100_000)) is not None
        ]
        first, second = axes_of(place.space).values()
        self.gallery.draw(
            f"figure-{number}",
            f"Figure {number}: training distributions",
            "Parameters that the estimators are trained on, and the abnormalities of Table 2 (numbers).",
            plot_distributions,
            panels,
            (first, second),
            ABNORMALITIES,
        )

    def bias(self, number: str, model: str, snr: float, names: Sequence[str]) -> None:
        """Mean estimates of the true parameters."""
        place = setting(model, snr)
        found = self.evaluate(model, snr, names)
        draw_bias(
            self.gallery,
            f"figure-{number}",
            f"Figure {number}: bias, {_in_words(model, snr)}",
            "Arrows lead from the true parameters to the mean estimate; contours enclose the middle 50 % and 90 % of "
            "the training distribution. In a sink, the estimates of many truths gather."
            if model == "smt2"
            else "Mean error over the space of true parameters.",
            place.space,
            {readable(name): value for name, value in found.items()},
            {readable(name): self.bench.training_samples(name, place) for name in names},
            ABNORMALITIES,
        )

    def spread(self, number: str, model: str, snr: float, names: Sequence[str]) -> None:
        """Standard deviation over the space of true parameters."""
        found = {readable(name): value for name, value in self.evaluate(model, snr, names).items()}
        title = f"Figure {number}: standard deviation, {_in_words(model, snr)}"
        draw_sd(self.gallery, f"figure-{number}", title, setting(model, snr), found)

    def error(self, number: str, model: str, snr: float, names: Sequence[str]) -> None:
        """Root mean square error over the space of true parameters."""
        found = {readable(name): value for name, value in self.evaluate(model, snr, names).items()}
        title = f"Figure {number}: root mean square error, {_in_words(model, snr)}"
        caption = "Root mean square error over the noise, at every combination of true parameters."
        draw_maps(self.gallery, f"figure-{number}", title, caption, setting(model, snr).space, found, "rmse")

    def boxes(self, number: str, snr: float, names: Sequence[str]) -> None:
        """Estimates of the abnormalities."""
        place = setting("smt2", snr)
        cases = [
            Case(f"Abnormality {label}", np.array(point), groups)
            for label, point in ABNORMALITIES.items()
            for groups in [self._groups(place, np.array(point), names)]
        ]
        self.gallery.draw(
            f"figure-{number}",
            f"Figure {number}: abnormalities, {_in_words('smt2', snr)}",
            "Estimates of the abnormalities over the noise, and above each box Cohen's d between them and the noised "
            "truth: the truth with the scatter of the Cramér-Rao bound, which an efficient estimator without bias "
            "would give. Dashed: the truth.",
            plot_boxes,
            cases,
            tuple(axes_of(place.space).values()),
            subtitle=_in_words("smt2", snr),
        )

    def _groups(self, place: Setting, point: NDArray[np.float64], names: Sequence[str]) -> list[Group]:
        found = box_groups(self.bench, place, names, point, self.box_repeats)
        return [replace(group, name=readable(name)) for name, group in found]

    def lesion(self, number: str, snr: float, names: Sequence[str]) -> None:
        """Maps of a simulated patient with an abnormality, by estimator."""
        title = f"Figure {number}: a lesion, {_in_words('smt2', snr)}"
        place = setting("smt2", snr)
        draw_lesion(self.bench, self.gallery, f"figure-{number}", title, place, self._patient, names, readable)

    def differences(self, number: str, snr: float, names: Sequence[str]) -> None:
        """Differences of maps between trained estimators and least squares."""
        title = f"Figure {number}: differences between maps, {_in_words('smt2', snr)}"
        place = setting("smt2", snr)
        draw_differences(self.bench, self.gallery, f"figure-{number}", title, place, self._patient, names, readable)

    @cached_property
    def _patient(self) -> PatientSlice:
        return simulated_patient(setting("smt2", 25.0).space, lesion="abnormality-1", seed=self.bench.seed)

    def evaluate(self, model: str, snr: float, names: Sequence[str] | Mapping[str, Any]) -> dict[str, Evaluation]:
        """Bias and spread of estimators, by name, over the paper's grid of true parameters."""
        place = setting(model, snr)
        points = true_points(place.space)
        repeats = self.repeats if model == "smt2" else max(self.repeats // 4, 50)
        return {name: self.bench.evaluate(name, place, points, repeats=repeats, seed=self.bench.seed) for name in names}

    def page(self) -> list[LaboratorySection]:
        """Sections of a page with what was made."""
        sections = [
            LaboratorySection("Tables", tables=tuple(self.tables)),
            LaboratorySection("Figures", figures=tuple(self.gallery.figures)),
        ]
        return [section for section in sections if section.tables or section.figures]


def _in_words(model: str, snr: float) -> str:
    name = {"smt2": "two compartments", "smt3": "three compartments"}[model]
    return f"{name}, {'no noise' if np.isinf(snr) else f'SNR {snr:g}'}"


Make = Callable[[Reproduction, str], None]

NETS = (TRADITIONAL, *NETWORKS[:3])
ALL = (TRADITIONAL, *NETWORKS[:3], *FORESTS)

#: Figures have numbers of our own: under most of them the paper shows something else.
FIGURES: Mapping[str, Make] = {
    "1": lambda paper, n: paper.distributions(n),
    "2": lambda paper, n: paper.bias(n, "smt2", 25.0, NETS),
    "3": lambda paper, n: paper.spread(n, "smt2", 25.0, NETS),
    "4": lambda paper, n: paper.boxes(n, 25.0, ALL),
    "5": lambda paper, n: paper.lesion(n, 25.0, ALL),
    "6": lambda paper, n: paper.differences(n, 25.0, ALL),
    "S4": lambda paper, n: paper.bias(n, "smt2", np.inf, NETWORKS[:3]),
    "S5": lambda paper, n: paper.bias(n, "smt2", 5.0, NETS),
    "S6": lambda paper, n: paper.spread(n, "smt2", 5.0, NETS),
    "S7": lambda paper, n: paper.boxes(n, 5.0, NETS),
    "S8": lambda paper, n: paper.bias(n, "smt2", 25.0, FORESTS),
    "S9": lambda paper, n: paper.spread(n, "smt2", 25.0, FORESTS),
    "S10": lambda paper, n: paper.bias(n, "smt2", 25.0, NETWORKS[3:]),
    "S11": lambda paper, n: paper.spread(n, "smt2", 25.0, NETWORKS[3:]),
    "S12": lambda paper, n: paper.error(n, "smt2", 25.0, ALL),
    "S13": lambda paper, n: paper.lesion(n, 5.0, NETS),
    "S14": lambda paper, n: paper.bias(n, "smt3", 25.0, NETS),
    "S15": lambda paper, n: paper.spread(n, "smt3", 25.0, NETS),
    "S16": lambda paper, n: paper.error(n, "smt3", 25.0, NETS),
}

TABLES: Mapping[str, Callable[[Reproduction], None]] = {
    "1": Reproduction.table_1,
    "2": Reproduction.table_2,
    "3": Reproduction.table_3,
}
