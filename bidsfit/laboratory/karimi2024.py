"""Karimi and Warfield 2024, learned tensors from few directions: the first experiments that their review asks for.

Karimi D, Warfield SK. Diffusion MRI with machine learning. Imaging Neuroscience 2024;2:1-55 (arXiv 2402.00019).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import sympy as sp
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from bidsfit import models
from bidsfit.acquisition import Acquisition
from bidsfit.estimators.log_linear import LogLinear
from bidsfit.evaluation.experiments import Setting
from bidsfit.laboratory.bench import Bar, Bench
from bidsfit.laboratory.paper import Exhibit, Options, Paper, Reproduction
from bidsfit.models.common import signal_scale
from bidsfit.models.parameter import Parameter, orientation
from bidsfit.models.space import ParameterSpace
from bidsfit.models.symbolic import SymbolicModel
from bidsfit.phantom.directions import spread_directions
from bidsfit.simulation.distributions import Uniform
from bidsfit.simulation.simulator import Features, Noise, Simulator, Voxels
from bidsfit.trained.estimator import differences
from bidsfit.training.bundle import acquisition_facts
from bidsfit.training.inference import Inverter
from bidsfit.training.recipe import recipe_from
from bidsfit.training.task import Task
from bidsfit.trust.domain import Domain

B_VALUE, SNR = 1000.0, 20.0
#: Numbers of directions, and that of the full set, whose tensor without noise is the truth.
FEW, FULL = (6, 12), 60
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
CLASSICAL, NETWORK = ("ols", "wls", "lsq"), "network"
#: A change of a scalar by rotation that does not matter.
SAME = 0.01

DTI = ParameterSpace(models.get("dti"))


def _crossing() -> SymbolicModel:
    """Two bundles of fibres, each an axially symmetric Gaussian compartment, and free water."""
    b, scale, axial, radial, share, water = sp.symbols("b S0 axial radial share water", real=True)
    gradient = sp.Matrix(sp.symbols("gx gy gz", real=True))
    axes = [orientation(name, f"the {name} bundle") for name in ("first", "second")]
    bundles = [sp.exp(-b * (radial + (axial - radial) * gradient.dot(axis.value) ** 2)) for _, axis in axes]

    def parameter(name: str, unit: str, low: float, high: float, description: str) -> Parameter:
        return Parameter(
            name=name, label=name, unit=unit, bounds=(low, high), latex=rf"\mathrm{{{name}}}", description=description
        )

    return SymbolicModel(
        name="crossing",
        title="Crossing fibres",
        description="Two bundles of fibres with the same diffusivities, and free water.",
        parameters=(
            signal_scale(),
            parameter("axial", "um^2/ms", 1.2, 2.2, "Diffusivity along the fibres"),
            parameter("radial", "um^2/ms", 0.2, 0.6, "Diffusivity across the fibres"),
            parameter("share", "1", 0.5, 1.0, "Share of the first bundle in the fibres"),
            parameter("water", "1", 0.0, 0.5, "Volume fraction of free water"),
            *axes[0][0],
            *axes[1][0],
        ),
        variables=("b", "direction"),
        expression=scale * ((1 - water) * (share * bundles[0] + (1 - share) * bundles[1]) + water * sp.exp(-3 * b)),
    )


CROSSING = _crossing()
#: Voxels that are trained on, and lesions outside of them: restricted and swollen (um^2/ms).
TISSUE = ParameterSpace(CROSSING)
RESTRICTED = {"axial": (0.4, 0.6), "radial": (0.1, 0.2), "water": (0.0, 0.1)}
SWOLLEN = {"axial": (2.5, 2.8), "radial": (2.0, 2.4), "water": (0.0, 0.1)}


def protocol(n: int, b: float = B_VALUE, turn: Rotation | None = None) -> Acquisition:
    """One image at b = 0, and one along each of n directions, which may be turned."""
    directions = spread_directions(n)
    if turn is not None:
        directions = turn.apply(directions)
    return Acquisition([0.0, *[b] * n], np.vstack([np.zeros(3), directions]))


@cache
def full_set() -> Acquisition:
    """The protocol of the true tensors."""
    return protocol(FULL)


def true_tensors(tissue: NDArray[np.float64]) -> NDArray[np.float64]:
    """Elements (n, 6) of the tensors fitted by weighted least squares to the full set without noise."""
    clean = CROSSING.signal(TISSUE.with_scale(tissue), full_set())
    return LogLinear(DTI.model, full_set())(clean)[:, DTI.places]


class Labelled(Simulator):
    """Simulates crossing fibres, whose targets are the tensors of the full set."""

    def voxels(self, n: int, rng: np.random.Generator) -> Voxels:
        tissue = TISSUE.sample(n, rng)
        clean = CROSSING.signal(TISSUE.with_scale(tissue), self.acquisition)
        truth, s0, sigma = true_tensors(tissue), np.ones(n), np.full(n, 1 / self.noise.snr)
        return Voxels(truth, s0, sigma, clean, np.full(n, True), self.bounds_of(truth, s0, sigma))


def setting(acquisition: Acquisition, space: ParameterSpace = DTI, snr: float = SNR) -> Setting:
    """Tensors, or crossing fibres, measured by a protocol with Rician noise."""
    return Setting(space, acquisition, Noise(snr, "rician"))


def network(run: Reproduction, acquisition: Acquisition) -> Inverter:
    """A perceptron that was trained for a protocol."""
    small = {"simulation": {"samples": SAMPLES_QUICK}, **QUICK} if run.quick else {"simulation": {"samples": SAMPLES}}
    recipe = recipe_from({"base": "network", **small}, NETWORK)
    place = setting(acquisition, TISSUE)
    task = Task(Uniform(TISSUE), acquisition, place.noise, recipe, run.bench.seed)

    def compute() -> dict[str, NDArray]:
        simulator = Labelled(Uniform(DTI), acquisition, place.noise, recipe.simulation)
        with Bar(f"training for {len(acquisition) - 1} directions") as bar:
            options: dict[str, Any] = {"threads": run.bench.threads, "device": run.bench.device, "progress": bar.show}
            trained = recipe.architecture.fit(
                recipe.objective, recipe.schedule, simulator, seed=run.bench.seed, **options
            )
        machine: dict[str, NDArray] = trained.machine
        return machine

    facts = {"Task": task.key, "Full": acquisition_facts(full_set(), DTI.model.variables)}
    return Inverter(recipe, run.bench.results.obtain("network", facts, compute), DTI, acquisition)


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


def rotation(run: Reproduction, name: str) -> None:
    """What changes where gradients and tissue turn together, so that signals and noise stay as they are."""
    turn = Rotation.random(rng=run.bench.seed)
    before, after = protocol(SHOWN), protocol(SHOWN, turn=turn)
    _, signals = measured(run, setting(before, TISSUE))
    rows: list[list[Any]] = []
    for label in (*CLASSICAL, NETWORK):
        first, second = (
            quantities(
                network(run, place)(signals).parameters[:, DTI.places]
                if label == NETWORK
                else run.bench.estimate(label, setting(place), signals)
            )
            for place in (before, after)
        )
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


def collapse(run: Reproduction, name: str) -> None:
    """The network where its training does not reach, beside `ols`, and whether the domain flag tells."""
    own = protocol(SHOWN)
    invert = network(run, own)
    domain, features = Domain.of(setting(own, TISSUE).simulator, run.bench.seed), Features(DTI.model, own)
    turn = Rotation.random(rng=run.bench.seed)
    cases = {
        "as trained": setting(own, TISSUE),
        "twice the noise": setting(own, TISSUE, SNR / 2),
        "restricted lesion": setting(own, ParameterSpace(CROSSING, RESTRICTED)),
        "swollen lesion": setting(own, ParameterSpace(CROSSING, SWOLLEN)),
        "other directions": setting(protocol(SHOWN, turn=turn), TISSUE),
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
        words.append([case, "; ".join(differences(place.acquisition, own)) or "taken"])
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
        "rotation": Exhibit("Gradients and tissue turned together.", {"": rotation}),
        "collapse": Exhibit("Noise, lesions and protocols other than those of the training.", {"": collapse}),
    },
    figures={},
)
