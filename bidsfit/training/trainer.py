"""Training: a task goes in, weights or trees and a learning curve come out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bidsfit.exceptions import UsageError
from bidsfit.simulation.simulator import Batch, Simulator
from bidsfit.training.architectures import Layers, layers_of, perceptron, pruned
from bidsfit.training.losses import make_loss
from bidsfit.training.recipe import ForestRecipe, NetworkRecipe

#: Samples that decide which units are silent.
PRUNING = 1 << 18
#: A training has converged where the last tenth of its steps changed the validation loss by less than this fraction.
CONVERGED = 0.02

Progress = Callable[[int, int], object]


@dataclass(frozen=True)
class Trained:
    """What a training leaves.

    Attributes
    ----------
    machine : list of (weight, bias), or RandomForestRegressor
    curve : ndarray, shape (n_checks, 3)
        Step (trees, of a forest), loss of the training and loss of the validation set, both as mean squares.
    facts : dict
        Best step, whether it had converged, size: for JSON.
    """

    machine: Any
    curve: NDArray[np.float64]
    facts: dict[str, Any]


def train_network(
    recipe: NetworkRecipe,
    simulator: Simulator,
    *,
    seed: int,
    device: str = "cpu",
    threads: int = 1,
    progress: Progress | None = None,
) -> Trained:
    """Train a perceptron.

    Parameters
    ----------
    recipe : NetworkRecipe
    simulator : Simulator
        Draws parameters and noise afresh for every step.
    seed : int
        The same seed gives the same weights on the same machine with as many threads.
    device : {"cpu", "cuda", ...}
        As torch names it.
    threads : int
    progress : callable, optional
        Called with the steps that are done and their number.

    Raises
    ------
    UsageError
        Where the device is not there.
    """
    import torch

    place = _device(device)
    draws, validation = (np.random.default_rng(s) for s in np.random.SeedSequence(seed).spawn(2))
    space = simulator.space
    loss = make_loss(recipe.loss, space)

    def tensors(batch: Batch[NDArray]) -> list[torch.Tensor]:
        arrays = batch.features[:, 0], batch.truth, batch.cube
        return [torch.from_numpy(np.asarray(array, dtype=np.float32)).to(place) for array in arrays]

    held_out = tensors(simulator.draw(recipe.validation, validation))
    # Standardised features make all protocols look alike to the optimiser; folded into the first layer later.
    centre, width = held_out[0].mean(dim=0), held_out[0].std(dim=0).clamp(min=1e-6)
    best, best_step, lowest, curve = None, 0, np.inf, []
    with _torch_threads(threads), torch.random.fork_rng(devices=[place] if place.type == "cuda" else []):
        torch.manual_seed(seed)
        network = perceptron(len(simulator.features), len(space.names), recipe.units, recipe.hidden_layers).to(place)
        optimiser = torch.optim.Adam(network.parameters(), lr=recipe.peak_rate)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, recipe.peak_rate, total_steps=recipe.steps)
        check = max(recipe.steps // recipe.checks, 1)
        recent = []
        for step, batch in enumerate(_batches(simulator, recipe, draws, tensors), start=1):
            features, truth, cube = batch
            value = loss(network((features - centre) / width), truth, cube)
            optimiser.zero_grad()
            value.backward()
            optimiser.step()
            schedule.step()
            recent.append(value.detach())
            if step % check == 0 or step == recipe.steps:
                with torch.inference_mode():
                    checked = float(loss(network((held_out[0] - centre) / width), *held_out[1:]))
                curve.append((step, float(torch.stack(recent).mean()), checked))
                recent = []
                if checked < lowest:
                    best, best_step, lowest = layers_of(network), step, checked
                if progress is not None:
                    progress(step, recipe.steps)
    if best is None:
        raise ValueError("The training diverged: the loss of the validation set was never a number.")
    layers = pruned(
        _folded(best, centre.cpu().numpy(), width.cpu().numpy()), simulator.draw(PRUNING, validation).features[:, 0]
    )
    table = np.array(curve)
    facts = {
        "BestStep": best_step,
        "ValidationLoss": float(lowest),
        "Converged": converged(table),
        "Units": [int(bias.size) for _, bias in layers[:-1]],
    }
    return Trained(layers, table, facts)


def converged(curve: NDArray[np.float64]) -> bool:
    """Whether the last tenth of a learning curve is flat."""
    steps, losses = curve[:, 0], curve[:, 2]
    before = losses[steps <= 0.9 * steps[-1]]
    return bool(before.size and losses.min() > (1 - CONVERGED) * before.min())


def _batches(simulator: Simulator, recipe: NetworkRecipe, rng: np.random.Generator, tensors: Any) -> Iterator[Any]:
    """As many batches as there are steps; several are simulated at a time."""
    for block in simulator.stream(recipe.batch, recipe.steps, rng):
        yield from zip(*(array.split(recipe.batch) for array in tensors(block)), strict=True)


def _folded(layers: Layers, centre: NDArray[np.float32], width: NDArray[np.float32]) -> Layers:
    """Layers that take features as they are, from layers that take them centred and scaled."""
    weight, bias = layers[0]
    scaled = weight / width[:, None]
    return [(scaled, bias - centre @ scaled), *layers[1:]]


def _device(name: str) -> Any:
    import torch

    try:
        torch.empty(1, device=name)
        return torch.device(name)
    except (RuntimeError, AssertionError) as error:
        raise UsageError(f"--device {name} cannot be used by torch: {str(error).splitlines()[0]} Try cpu.") from error


@contextmanager
def _torch_threads(threads: int) -> Iterator[None]:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def train_forest(
    recipe: ForestRecipe, simulator: Simulator, *, seed: int, threads: int = 1, progress: Progress | None = None
) -> Trained:
    """Train a random forest on parameters relative to their bounds.

    Parameters
    ----------
    recipe : ForestRecipe
    simulator : Simulator
        Draws the training set once.
    seed : int
        The same seed gives the same trees.
    threads : int
    progress : callable, optional
        Called with the trees that are done and their number.
    """
    from sklearn.ensemble import RandomForestRegressor

    draws, validation = (np.random.default_rng(s) for s in np.random.SeedSequence(seed).spawn(2))
    space = simulator.space
    taught, held_out = simulator.draw(recipe.samples, draws), simulator.draw(recipe.validation, validation)
    features, shown = taught.features[:, 0], held_out.features[:, 0]
    targets, true_targets = ((p - space.bounds[:, 0]) / space.span for p in (taught.truth, held_out.truth))
    forest = RandomForestRegressor(
        n_estimators=1,
        min_samples_leaf=recipe.samples_per_leaf,
        max_depth=recipe.depth,
        random_state=seed,
        n_jobs=threads,
        warm_start=True,
    )
    curve = []
    for trees in np.unique(np.linspace(1, recipe.trees, min(recipe.trees, 10)).astype(int)).tolist():
        forest.set_params(n_estimators=trees)
        forest.fit(features, targets)
        if progress is not None:
            progress(trees, recipe.trees)
        errors = [np.mean((forest.predict(x) - y) ** 2) for x, y in _both(features, targets, shown, true_targets)]
        curve.append((trees, *errors))
    forest.set_params(warm_start=False, n_jobs=None)
    nodes = sum(tree.tree_.node_count for tree in forest.estimators_)
    facts = {"ValidationLoss": float(curve[-1][2]), "Converged": True, "Nodes": int(nodes)}
    return Trained(forest, np.array(curve, dtype=float), facts)


def _both(features: NDArray, targets: NDArray, shown: NDArray, truth: NDArray) -> Iterator[tuple[NDArray, NDArray]]:
    """Training and validation samples, of the former as many as of the latter."""
    yield features[: len(shown)], targets[: len(shown)]
    yield shown, truth
