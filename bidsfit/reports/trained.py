"""What reports say and show of a trained estimator: its training, and its bias."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bidsfit.bids.units import REPORT_UNITS
from bidsfit.estimators.estimator import Status
from bidsfit.fitting import FitNumbers
from bidsfit.models.priors import prior_from
from bidsfit.models.signal_model import SignalModel
from bidsfit.models.space import ParameterSpace
from bidsfit.reports.evaluation import Axis, BiasArrows, plot_bias
from bidsfit.reports.words import percent
from bidsfit.simulation.distributions import Distribution, Mixture, Pooled
from bidsfit.training.bundle import Bundle
from bidsfit.trust.performance import PerformanceLookup, points_on_grid

#: Share of the voxels unlike all of the training above which the report warns.
MANY_UNLIKE = 0.05

#: Samples of the training that are drawn.
SAMPLES = 20_000

#: Arrows along each axis, at most.
MOST_ARROWS = 11

#: Two to this power combinations of the other parameters are averaged over, where the table is not a grid.
OTHERS = 6


def training_row(bundle: Bundle) -> dict[str, Any]:
    """The entry `FitRecord.training` of a trained estimator."""
    facts = bundle.facts
    return {
        "distribution": distribution_in_words(facts["Distribution"]),
        "participants": list(facts["Participants"]),
        "snr": facts["Noise"]["SNR"],
        "noise": facts["Noise"]["Kind"],
        "recipe": recipe_in_words(facts["Recipe"]),
        "seconds": facts["Training"]["Seconds"],
        "device": facts["Training"]["Device"],
        "converged": bool(facts["Training"]["Converged"]),
        "file": "" if bundle.path is None else bundle.path.name,
        "averaged_over": facts["Parameters"][2:],
    }


def recipe_in_words(facts: Mapping[str, Mapping[str, Any]]) -> str:
    """The settings of a recipe in words, by section."""
    parts = []
    for section, content in facts.items():
        choices = [f"{key.replace('_', ' ')} {value}" for key, value in content.items()]
        parts.append(f"{section}: {', '.join(choices).removeprefix('name ')}")
    return "; ".join(parts)


def distribution_in_words(facts: Mapping[str, Any]) -> str:
    """Description of a distribution."""
    if facts["Kind"] == "uniform":
        return "every plausible combination of parameters alike"
    if facts["Kind"] == "prior":
        return "the priors: " + "; ".join(f"{name} {prior_from(prior)}" for name, prior in facts["Priors"].items())
    if facts["Kind"] == "mixture":
        parts = zip(facts["Weights"], facts["Parts"], strict=True)
        return " and ".join(f"{percent(weight)} {distribution_in_words(part)}" for weight, part in parts)
    tissue = {"wm": "the white matter", "gm": "the grey matter"}.get(facts["Origin"].get("Tissue", ""), "the brain")
    left_out = facts["Origin"].get("LeftOut", [])
    without = f" (without {', '.join(left_out)})" if left_out else ""
    return f"the pooled fits of {sum(facts['Voxels'].values()):,} voxels in {tissue} of healthy participants{without}"


def training_warnings(numbers: FitNumbers, bundle: Bundle, participant: str) -> list[str]:
    """Warnings about an estimator's training for one image; ``participant`` with ``sub-``."""
    warnings = []
    if participant in bundle.facts["Participants"]:
        warnings.append(
            "The estimator was trained on a pool that holds this participant: its estimates lean on the participant's "
            "own fits. Run with --leave-one-out."
        )
    unlike = numbers.share(Status.UNLIKE_TRAINING)
    if unlike > MANY_UNLIKE:
        warnings.append(
            f"{percent(unlike)} of the voxels are unlike all signals of the training: their estimates are drawn "
            "towards what the estimator was trained on. The status map shows where."
        )
    if not bundle.facts["Training"]["Converged"]:
        warnings.append(
            "The training had not converged when it stopped: a longer one would give other estimates. Choose a recipe "
            "with more steps (--training-recipe)."
        )
    return warnings


def plot_learned(path: Path, bundle: Bundle, model: SignalModel) -> None:
    """Plot the bias of the first two parameters, averaged over the noise and the other parameters."""
    names = list(bundle.facts["Parameters"])
    bounds = bundle.facts["Distribution"]["Bounds"]
    truth, bias = mean_errors(bundle.performance, ParameterSpace(model, bounds))
    samples = training_samples(bundle.distribution(model), SAMPLES, np.random.default_rng(0))[:, :2]
    axes = [Axis(f"${model[n].latex}$", REPORT_UNITS[model[n].unit].name, tuple(bounds[n])) for n in names[:2]]
    panel = BiasArrows("", truth, truth + bias, samples, np.empty((0, 2)))
    plot_bias(path, [panel], (axes[0], axes[1]), {})


def training_samples(distribution: Distribution, n: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Samples of a distribution for a figure; for a pool of fits, the fits themselves without variation."""
    if isinstance(distribution, Mixture):
        parts = zip(distribution.parts, distribution.weights, strict=True)
        return np.concatenate([training_samples(part, round(n * weight), rng) for part, weight in parts])
    if isinstance(distribution, Pooled):
        return distribution.samples[rng.integers(len(distribution.samples), size=n)].astype(float)
    return distribution.sample(n, rng)


def mean_errors(
    table: Mapping[str, NDArray[np.float64]], space: ParameterSpace
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """True values of the first two parameters, and their bias averaged over the others: shape (n, 2) each."""
    names, p = space.names, len(space.names)
    points = points_on_grid(np.stack([table[name] for name in names], axis=1), space)
    columns = np.stack([table[name] for name in names[:2]] + [table[f"bias_{name}"] for name in names[:2]], axis=1)
    if not points:  # scattered
        from scipy.stats import qmc  # takes a third of a second to import

        points = MOST_ARROWS
        axis, others = np.linspace(0, 1, points), qmc.Sobol(p - 2, rng=0).random_base2(OTHERS)
        first, second, k = (a.ravel() for a in np.meshgrid(axis, axis, np.arange(len(others)), indexing="ij"))
        truth = space.with_scale(space.from_cube(np.column_stack([first, second, others[k.astype(int)]])))
        places = [space.model.names.index(name) for name in names[:2]]
        bias = PerformanceLookup(table, space).at(truth, "bias")
        columns = np.concatenate([truth[:, places], bias[:, places]], axis=1)
    plane = columns.reshape((points, points, -1, 4)).mean(axis=2)
    step = -(-points // MOST_ARROWS)
    found = plane[::step, ::step].reshape(-1, 4)
    return found[:, :2], found[:, 2:]
