"""Training tasks: everything that determines a trained estimator, and the training itself."""

from __future__ import annotations

import hashlib
import json
import math
import platform
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from typing import Any

import numpy as np

from bidsfit import __version__
from bidsfit.acquisition import Acquisition
from bidsfit.parallel import Progress, library_threads, part_of
from bidsfit.simulation.distributions import Distribution, digest, participants_of
from bidsfit.simulation.images import FEWEST_VOXELS, ImageVoxels
from bidsfit.simulation.simulator import Features, Noise, Simulator
from bidsfit.training.bundle import Bundle, acquisition_facts
from bidsfit.training.inference import Inverter
from bidsfit.training.labels import labeller
from bidsfit.training.recipe import Recipe, recipe_facts
from bidsfit.training.trainer import State, Trained
from bidsfit.trust import monte_carlo
from bidsfit.trust.domain import Domain
from bidsfit.trust.monte_carlo import estimates_of, least_squares_of, simulate, truths_of

#: Packages whose versions decide what comes out of a training.
PACKAGES = ("numpy", "scipy", "torch", "scikit-learn")

#: This share of the signals of the training has a smaller sum of squared residuals than the limit that is kept.
USUAL = 0.999
#: Draws from which it is found, so many voxels or, of large patches, fewer but not less than the last number.
DRAWS, FEWEST_DRAWS = 1 << 16, 1 << 12


@dataclass(frozen=True)
class Task:
    """Everything that determines a training: equal tasks give equal estimators.

    Parameters
    ----------
    distribution : Distribution
        Distribution of the parameters; its space names the model.
    acquisition : Acquisition
        Averaged acquisition as of `Estimator.averaged`.
    noise : Noise
    recipe : Recipe
    seed : int
    images : ImageVoxels, optional
        Voxels of images, for a recipe that takes them.

    Raises
    ------
    ValueError
        If the recipe takes voxels of images and there are none, or too few.
    """

    distribution: Distribution
    acquisition: Acquisition
    noise: Noise
    recipe: Recipe
    seed: int = 0
    images: ImageVoxels | None = None

    def __post_init__(self) -> None:
        if self.recipe.scope is None:
            return
        if self.images is None:
            raise ValueError(
                "its recipe takes voxels of the images that will be fitted (simulation), and there are none here. Fit "
                "with it, or train it on an image: bidsfit-lab train --image."
            )
        if len(self.images.sigma) < FEWEST_VOXELS:
            raise ValueError(
                f"its recipe takes voxels of images (simulation), at least {FEWEST_VOXELS} with a signal and a known "
                f"noise level, and those that share the training have {len(self.images.sigma)}. Is the mask too small?"
            )

    @property
    def simulator(self) -> Simulator:
        """Simulator of the training voxels; it measures at the SNR of `noise`, whatever SNRs the recipe draws."""
        recipe = self.recipe
        label = labeller(recipe.simulation, self.distribution.space, self.acquisition)
        return Simulator(
            self.distribution,
            self.acquisition,
            self.noise,
            recipe.simulation,
            recipe.architecture.reach,
            label,
            recipe.objective.needs_bound,
            self.images,
        )

    @property
    def start(self) -> Task | None:
        """The training whose network this one starts from, if its recipe has a `start`.

        Where that draws its SNRs itself, it is the same at every SNR of the data.
        """
        first = self.recipe.start
        if first is None:
            return None
        drawn = first.simulation.snr_range or first.simulation.snr_levels
        return replace(self, recipe=first, noise=replace(self.noise, snr=np.inf) if drawn else self.noise)

    @property
    def facts(self) -> dict[str, Any]:
        """Description of the task, for JSON."""
        space = self.distribution.space
        return {
            "Kind": self.recipe.kind,
            "Model": space.model.name,
            "Equation": space.model.latex,
            "Parameters": list(space.names),
            "Features": len(Features(space.model, self.acquisition, self.recipe.simulation.unit)),
            "Acquisition": acquisition_facts(self.acquisition, space.model.variables),
            "Noise": {
                "SNR": None if np.isinf(self.noise.snr) else float(self.noise.snr),
                "Kind": self.noise.kind,
                "AtLowestBValue": self.noise.lowest,
            },
            "Distribution": self.distribution.facts,
            "DistributionDigest": digest(self.distribution),
            "Participants": participants_of(self.distribution.facts),
            "Recipe": recipe_facts(self.recipe),
            "Seed": self.seed,
            **self._images_facts,
        }

    @property
    def _images_facts(self) -> dict[str, Any]:
        if self.images is None or self.recipe.scope is None:
            return {}
        digest = {"Digest": self.images.digest} if self.recipe.learns_from_images else {}
        return {"Images": self.images.facts | digest}

    @property
    def key(self) -> str:
        """Digest of everything that determines the estimator."""
        content = json.dumps({**self.facts, "Release": __version__}, sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()[:16]


def train(
    task: Task,
    *,
    start: Sequence[State] = (),
    threads: int = 1,
    device: str = "cpu",
    progress: Progress | None = None,
) -> Bundle:
    """Train an estimator and measure its performance.

    Parameters
    ----------
    task : Task
    start : sequence of State, optional
        Where the training of ``task.start`` ended, if that was done before.
    threads : int
    device : {"cpu", "cuda", ...}
        torch device of a network; forests use the CPU.
    progress : callable, optional
        Called with the fraction that is done.

    Returns
    -------
    Bundle
        With its performance and domain; its facts contain those of the task and the results of the training.
    """
    begun = time.perf_counter()
    simulator, recipe, space = task.simulator, task.recipe, task.distribution.space
    reach = recipe.architecture.reach
    trained = fit(task, start=start, device=device, threads=threads, progress=progress)
    seconds = time.perf_counter() - begun
    invert = Inverter(recipe, trained.machine, space, task.acquisition)
    with library_threads(threads):
        judged = Simulator(truths_of(space), task.acquisition, task.noise, simulator.simulation, reach)
        other = least_squares_of(space) if space.model.support(task.acquisition) else None
        size = monte_carlo.LIGHT if space.model.compiled else monte_carlo.OF_COSTLY
        size = monte_carlo.OF_PATCHES if any(reach) else size
        found = simulate(
            lambda signals, sigma: invert(signals, sigma=sigma).parameters,
            judged,
            beside=None if other is None else estimates_of(other, task.acquisition),
            size=size,
            seed=task.seed,
        )
        limit = residual_limit(invert, simulator, task.seed)
        alone = Simulator(task.distribution, task.acquisition, task.noise, simulator.simulation, images=task.images)
        domain = Domain.of(alone, task.seed)
    facts = {
        **task.facts,
        "Training": {
            **trained.facts,
            "ResidualLimit": limit,
            "Seconds": round(seconds, 1),
            "Device": device,
            "Threads": threads,
        },
        "Software": {
            "bidsfit": __version__,
            "Python": platform.python_version(),
            **{package: version(package) for package in PACKAGES},
        },
    }
    curve = dict(zip((recipe.architecture.unit, "training", "validation"), trained.curve.T, strict=True))
    return Bundle(facts, trained.machine, task.distribution.arrays, found, domain, curve)


def fit(task: Task, *, start: Sequence[State] = (), progress: Progress | None = None, **options: Any) -> Trained:
    """Train the machine of a task alone, without judging it; options as of `train`.

    A recipe that starts from the network of another trains that one first, on the same distribution and acquisition.
    """
    if task.start is not None and not start:
        start = fit(task.start, progress=part_of(progress, 0, 0.5), **options).states
        progress = part_of(progress, 0.5, 1)
    recipe = task.recipe
    chosen = {"seed": task.seed, "start": start, "progress": progress, **options}
    return recipe.architecture.fit(recipe.objective, recipe.schedule, task.simulator, **chosen)


def _voxels(simulator: Simulator) -> int:
    """Voxels that an estimate takes in."""
    return 1 if simulator.patches is None else math.prod(simulator.patches.shape)


def residual_limit(invert: Inverter, simulator: Simulator, seed: int) -> float:
    """Sum of squared residuals, for S0 = 1, that hardly any training signal exceeds.

    A voxel beyond it is unlike the training data.
    """
    rng, model, seen, level = (
        np.random.default_rng([seed, 1]),
        simulator.space.model,
        simulator.seen,
        simulator.noise.snr,
    )
    if seen is None:
        n = max(DRAWS // _voxels(simulator), FEWEST_DRAWS)
        signals, sigma = simulator.measure(simulator.distribution.sample(n, rng), rng), np.full(n, 1 / level)
    else:
        rows = rng.permutation(np.flatnonzero(~seen.held_out))[: max(DRAWS // _voxels(simulator), FEWEST_DRAWS)]
        sigma = seen.sigma[rows]
        signals = seen.signals[rows] if simulator.patches is None else seen.patches(rows, simulator.patches.reach)
        signals = signals.astype(np.result_type(signals, float))
    found = invert(signals, sigma=sigma)
    scale = found.parameters[:, model.scale_index] if model.scale else np.ones(len(signals))
    if seen is not None and np.isfinite(level):  # of voxels with more noise than at that level, in units of theirs
        scale = scale * np.fmax(level * sigma / scale, 1.0)
    usable = scale > 0  # an estimate of 0 says nothing of the size of its residuals
    return float(np.quantile(found.squares[usable] / scale[usable] ** 2, USUAL))
