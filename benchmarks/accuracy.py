"""Accuracy of every estimator on simulated tissue: bias, standard deviation, error and coverage of intervals.

Tissues are those whose values were published (`bidsfit.models.organs`), white matter of one, two or many fibre
directions for SMT, and free diffusion for the ADC. Each is measured many times, at several SNRs, with Gaussian and
Rician noise, by a dense protocol and by a short clinical one. Every estimator is run with the general preset, with that
of the organ, and with the wider bounds and flat priors that were the default until release 0.1 ("wide").

`bayesmap`, whose prior is fitted to the image, has no place here: an image of one tissue would tell it the truth.

All numbers go to a table (``--csv``); printed are medians over the tissues of a model.
"""

from __future__ import annotations

from _common import machine, options, sphere, table, use_cores  # isort: skip

import csv
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bidsfit import companions, estimators, models
from bidsfit.acquisition import Acquisition
from bidsfit.estimators.estimator import FITTED, Estimator, Status
from bidsfit.models.organs import ORGANS
from bidsfit.models.priors import priors_of
from bidsfit.models.space import ParameterSpace, bounds_of
from bidsfit.noise import NoiseKind, add_noise
from bidsfit.simulation.distributions import Informed

DENSE = (0, 0, 5, 10, 10, 20, 20, 30, 50, 75, 100, 150, 200, 300, 400, 500, 600, 700, 800)
CLINICAL = (0, 0, 30, 30, 80, 80, 250, 250, 500, 500, 800, 800)
PROTOCOLS = {
    "adc": {"dense": (0, 0, 200, 400, 600, 800, 1000, 1000), "clinical": (0, 500, 1000)},
    "ivim": {"dense": DENSE, "clinical": CLINICAL},
    "smt2": {"dense": (0, 1000, 2000, 3500, 5000), "clinical": (0, 1000, 2500)},
    "smt3": {"dense": (0, 1000, 2000, 3500, 5000), "clinical": (0, 700, 1500, 3000)},
}
#: Directions of a shell of SMT.
DIRECTIONS = {"dense": 32, "clinical": 32}
#: Bounds and priors of release 0.1.
WIDE: dict[str, Any] = {"D": (0.0, 5.0), "Dstar": (3.0, 200.0)}
FLAT = {"f": "uniform", "D": "uniform", "Dstar": "loguniform"}

#: Estimators by model, in the order of the tables, and what is chosen for a row of its own.
CLASSICAL = {
    "adc": ("lsq", "lsq --debias", "mle", "ols", "wls"),
    "ivim": ("lsq", "lsq --intervals profile", "mle", "segmented", "bayes"),
    "smt2": ("lsq", "lsq --debias", "lsq --intervals profile", "mle", "bayes"),
    "smt3": ("lsq", "lsq --debias", "lsq --intervals profile", "mle", "bayes"),
}
CHOSEN: dict[str, dict[str, Any]] = {"--debias": {"debias": True}, "--intervals profile": {"intervals": "profile"}}
TRAINED = ("net-prior", "net-uniform", "forest-prior")


@dataclass(frozen=True)
class Tissue:
    """Name, organ, and true parameters; ``fibres`` are unit vectors with their shares, for SMT."""

    name: str
    organ: str
    truth: dict[str, float]
    fibres: tuple[tuple[tuple[float, float, float], float], ...] = ()


@dataclass(frozen=True)
class Row:
    """One line of the table; error and spread in the unit of the parameter."""

    model: str
    organ: str
    tissue: str
    protocol: str
    noise: str
    snr: float
    estimator: str
    preset: str
    parameter: str
    truth: float
    bias: float
    sd: float
    rmse: float
    coverage: float
    z_sd: float
    fitted: float
    converged: float


def main() -> None:
    parser = options(__doc__, voxels=500)
    parser.add_argument("--models", nargs="+", default=list(PROTOCOLS), choices=list(PROTOCOLS))
    parser.add_argument("--snr", type=float, nargs="+", default=[5, 10, 15, 25, 50, 100])
    parser.add_argument("--trained", action="store_true", help="also networks and a forest, which are trained first")
    parser.add_argument("--csv", type=Path, help="write all numbers to this file")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.voxels, arguments.snr = 100, [10, 50]
    use_cores(1)
    rows = [row for model in arguments.models for row in measure(model, arguments)]
    if arguments.csv:
        with arguments.csv.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(asdict(rows[0])))
            writer.writeheader()
            writer.writerows(asdict(row) for row in rows)
    print(f"{machine()}; {arguments.voxels} measurements of each tissue.\n")
    for model, protocol, noise in product(arguments.models, ("dense", "clinical"), ("gaussian", "rician")):
        chosen = [row for row in rows if (row.model, row.protocol, row.noise) == (model, protocol, noise)]
        report(chosen, arguments.snr)
    if set(arguments.models) - {"adc"}:
        print("## bayes, voxels drawn from its prior, dense protocol, Rician noise\n")
        print(
            "Voxels whose 95 % interval holds the truth; of SMT with one, two and seven fibres in random directions:\n"
        )
        lines = [
            [f"{name}{f', {n} fibres' * (n > 0)}, SNR {snr:g}", drawn_from_prior(name, n, snr, 3 * arguments.voxels)]
            for name in arguments.models
            if name != "adc"
            for n in ((0,) if name == "ivim" else (1, 2, 7))
            for snr in arguments.snr
        ]
        print(table(["model", "held"], lines))


def tissues(model: str) -> list[Tissue]:
    """The tissues that a model is measured on."""
    if model == "ivim":
        return [
            Tissue(one.name, organ, {"f": one.f, "D": one.D, "Dstar": one.Dstar})
            for organ, preset in ORGANS.items()
            for one in preset.tissues
            if one.f is not None and one.D is not None and one.Dstar is not None
        ]
    if model == "adc":
        return [Tissue(f"D = {d:g}", "brain", {"D": d}) for d in (0.6, 1.0, 2.0)]
    x, y = (1.0, 0.0, 0.0), (0.0, 1.0, 0.0)
    fan = tuple(((float(np.cos(a)), float(np.sin(a)), 0.0), 1 / 7) for a in np.linspace(0, np.pi / 2, 7))
    bundles = {"parallel": ((x, 1.0),), "crossing": ((x, 0.5), (y, 0.5)), "fanning": fan}
    truth = {"vcyl": 0.55, "lambda": 1.9} | ({"vcsf": 0.1} if model == "smt3" else {})
    return [Tissue(name, "brain", truth, fibres) for name, fibres in bundles.items()]


def acquisition_of(model: str, protocol: str) -> Acquisition:
    """Measurements of a protocol: for SMT 6 images at b = 0 and all directions of each shell."""
    b_values = PROTOCOLS[model][protocol]
    if not model.startswith("smt"):
        return Acquisition(b_values)
    n = DIRECTIONS[protocol]
    shell = sphere(n)
    vectors = np.vstack([np.zeros((6, 3)), *[shell] * (len(b_values) - 1)])
    return Acquisition([*[0] * 6, *np.repeat(b_values[1:], n)], directions=vectors)


def clean_signals(model: str, tissue: Tissue, acquisition: Acquisition) -> NDArray[np.float64]:
    """Signal of every measurement; S0 is 1."""
    if not tissue.fibres:
        return np.asarray(models.get(model).signal({"S0": 1.0, **tissue.truth}, acquisition))
    b, g = acquisition.variable("b"), acquisition.variable("direction")
    v, d, water = tissue.truth["vcyl"], tissue.truth["lambda"], tissue.truth.get("vcsf", 0.0)
    signal = np.asarray(water * np.exp(-3 * b))
    for vector, share in tissue.fibres:
        along = (g @ np.array(vector)) ** 2
        outside = np.exp(-b * d * ((1 - v) + v * along))
        signal = signal + share * (v * np.exp(-b * d * along) + (1 - v - water) * outside)
    return signal


def configurations(name: str, organ: str, kind: NoiseKind) -> Iterator[tuple[str, str, Estimator]]:
    """Estimators of a model with their presets: name, preset, estimator."""
    for words in CLASSICAL[name]:
        estimator, _, option = words.partition(" ")
        if option == "--debias" and kind == "gaussian":
            continue
        made: Any = estimators.get(estimator)
        chosen = CHOSEN.get(option, {}) | ({"noise": kind} if estimator in ("mle", "bayes") else {})
        if name == "ivim":
            old = {"priors": FLAT, "sigma": "marginalised", "noise": "gaussian"} if estimator == "bayes" else {}
            yield words, "wide", made(models.get(name), bounds=WIDE, **chosen | old)
            yield words, organ, made(models.get(name, organ), **chosen)
        yield words, "general", made(models.get(name), **chosen)


def measure(name: str, arguments: Any) -> Iterator[Row]:
    """All numbers of a model."""
    kinds: Sequence[NoiseKind] = ("gaussian", "rician")
    for (protocol, kind), snr in product(product(PROTOCOLS[name], kinds), arguments.snr):
        acquisition, sigma = acquisition_of(name, protocol), 1 / snr
        rng = np.random.default_rng([2026, int(snr), kind == "rician"])
        taught: dict[tuple[str, str], Estimator] = {}
        for tissue in tissues(name):
            clean = np.tile(clean_signals(name, tissue, acquisition), (arguments.voxels, 1))
            noisy = add_noise(clean, sigma, kind, rng)
            chosen = [*configurations(name, tissue.organ, kind)]
            if arguments.trained:
                chosen += list(trained(name, tissue.organ, acquisition, snr, kind, taught))
            for estimator, preset, built in chosen:
                try:
                    estimate = built.estimate(noisy, acquisition, sigma)
                except ValueError:  # too few b-values for this estimator
                    continue
                judged = companions(built, estimate, sigma, kind=kind)
                done = np.isin(estimate.status, FITTED)
                for parameter, true in tissue.truth.items():
                    error = (estimate.parameters[parameter] - true)[done]
                    low, high = (judged.get(key, {}).get(parameter) for key in ("q025", "q975"))
                    sd = judged.get("sd", {}).get(parameter)
                    with np.errstate(divide="ignore", invalid="ignore"):
                        z = np.full(1, np.nan) if sd is None else error / sd[done]
                    yield Row(
                        name, tissue.organ, tissue.name, protocol, kind, snr, estimator, preset, parameter, true,
                        bias=float(error.mean()),
                        sd=float(error.std()),
                        rmse=float(np.sqrt(np.mean(error**2))),
                        coverage=np.nan
                        if low is None or high is None
                        else float(np.mean((low[done] <= true) & (true <= high[done]))),
                        z_sd=float(np.nanstd(z[np.isfinite(z)])) if np.isfinite(z).any() else np.nan,
                        fitted=float(done.mean()),
                        converged=float(np.mean(estimate.status == Status.CONVERGED)),
                    )  # fmt: skip


def trained(
    name: str, organ: str, acquisition: Acquisition, snr: float, kind: NoiseKind, taught: dict[Any, Estimator]
) -> Iterator[tuple[str, str, Estimator]]:
    """Trained estimators with the general preset and that of the organ, each trained once for a protocol and SNR."""
    from bidsfit.training.recipe import load_recipe, recipe_facts
    from bidsfit.training.task import train

    for estimator, preset in product(TRAINED, ("general", organ) if name == "ivim" else ("general",)):
        key = (estimator, preset)
        if key not in taught:
            made: Any = estimators.get(estimator)
            recipe = recipe_facts(load_recipe("forest" if "forest" in estimator else "network-quick"))
            wide = {"bounds": WIDE} if estimator == "net-uniform" and preset == "general" and name == "ivim" else {}
            chosen = {"snr": snr, "noise": kind, "recipe": recipe, **wide}
            plan = made(models.get(name, preset), **chosen)
            taught[key] = made(
                models.get(name, preset), **chosen, trained=train(plan.task(plan.averaged(acquisition), snr))
            )
        yield estimator, preset, taught[key]


def drawn_from_prior(name: str, n_fibres: int, snr: float, n: int) -> str:
    """Coverage of the intervals of ``bayes``, by parameter, for n voxels."""
    model, acquisition, rng = models.get(name), acquisition_of(name, "dense"), np.random.default_rng(1)
    space = ParameterSpace(model)
    truth = Informed(space, priors_of(model, bounds_of(model))).sample(n, rng)
    clean = model.signal(space.with_scale(truth), acquisition)
    for v in range(n if n_fibres else 0):
        axes = rng.normal(size=(n_fibres, 3))
        fibres = tuple((tuple(axis / np.linalg.norm(axis)), 1 / n_fibres) for axis in axes)
        one = Tissue("", "", dict(zip(space.names, truth[v].tolist(), strict=True)), fibres)
        clean[v] = clean_signals(name, one, acquisition)
    made: Any = estimators.get("bayes")
    found = made(model).estimate(add_noise(clean, 1 / snr, "rician", rng), acquisition, 1 / snr).statistics
    shares = [
        np.mean((found["q025"][parameter] <= truth[:, j]) & (truth[:, j] <= found["q975"][parameter]))
        for j, parameter in enumerate(space.names)
    ]
    return ", ".join(f"{parameter} {100 * s:.0f} %" for parameter, s in zip(space.names, shares, strict=True))


def report(rows: Sequence[Row], snrs: Sequence[float]) -> None:
    """Print the tables of one model, protocol and kind of noise: medians over the tissues."""
    if not rows:
        return
    first = rows[0]
    print(f"## {first.model}, {first.protocol} protocol, {first.noise} noise\n")
    parameters = list(dict.fromkeys(row.parameter for row in rows))
    presets = {row.organ for row in rows}
    header = ["estimator, preset", *(f"{p} at SNR {snr:g}" for p in parameters for snr in snrs)]
    lines: dict[str, dict[str, list[str]]] = {"error": {}, "held": {}}
    for estimator in dict.fromkeys(row.estimator for row in rows):
        for preset in ("wide", "general", "organ"):
            own = [
                row
                for row in rows
                if row.estimator == estimator and (row.preset in presets if preset == "organ" else row.preset == preset)
            ]
            if not own:
                continue
            label = f"{estimator}, {preset}"
            for parameter, snr in product(parameters, snrs):
                cell = [row for row in own if (row.parameter, row.snr) == (parameter, snr)]
                error = np.median([100 * row.rmse / row.truth for row in cell])
                bias = np.median([100 * row.bias / row.truth for row in cell])
                held = [row.coverage for row in cell if np.isfinite(row.coverage)]
                spread = [row.z_sd for row in cell if np.isfinite(row.z_sd)]
                lines["error"].setdefault(label, []).append(f"{error:.0f} ({bias:+.0f})")
                lines["held"].setdefault(label, []).append(
                    (f"{100 * np.median(held):.0f} %" if held else "")
                    + (f" ({np.median(spread):.2f})" if spread else "")
                )
    print("Root mean square error (bias), % of the truth:\n")
    print(table(header, [[label, *cells] for label, cells in lines["error"].items()]))
    print("Voxels whose 95 % interval holds the truth (standard deviation of error / stated standard deviation):\n")
    print(table(header, [[label, *cells] for label, cells in lines["held"].items()]))


if __name__ == "__main__":
    main()
