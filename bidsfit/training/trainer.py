"""Training of networks by gradient descent on simulated voxels."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from bidsfit.exceptions import UsageError
from bidsfit.parallel import Progress
from bidsfit.simulation.simulator import Batch, Simulator
from bidsfit.training.objectives import Objective

if TYPE_CHECKING:
    import torch

    from bidsfit.training.architectures import Arrays, NetworkArchitecture

#: Voxels that decide what of a network is pruned.
PRUNING = 1 << 18
#: A training has converged where the last tenth of its steps changed the validation loss by less than this fraction.
CONVERGED = 0.02


@dataclass(frozen=True)
class Schedule:
    """Choices of the gradient descent: the section ``schedule`` of a recipe.

    Parameters
    ----------
    optimiser : {"adam", "sgd"}
        "sgd" uses a momentum of 0.9.
    peak_rate : float
        Largest learning rate, reached after 30 % of the steps; the rate then falls to 0.
    steps, batch : int
        Number of steps, and voxels per step.
    validation : int
        Number of voxels in the validation set, which is drawn once.
    checks : int
        Number of evaluations on the validation set; the best weights are kept.
    patience : int, optional
        Stop after so many evaluations in a row without better weights; by default never.
    members : int, optional
        Networks that are trained one after the other from different seeds; their median is the estimate. By default
        one.
    """

    optimiser: Literal["adam", "sgd"] = "adam"
    peak_rate: float = 4e-3
    steps: int = 6000
    batch: int = 4096
    validation: int = 65536
    checks: int = 60
    patience: int | None = None
    members: int | None = None


@dataclass(frozen=True)
class Trained:
    """Result of a training.

    Attributes
    ----------
    machine : dict of name to ndarray, or what else the architecture makes
        Weights or trees.
    curve : ndarray, shape (n_checks, 3)
        Step (or number of trees), training loss and validation loss.
    facts : dict
        Validation loss, best step, whether it converged, and size, for JSON.
    """

    machine: Any
    curve: NDArray[np.float64]
    facts: dict[str, Any]


def descend(
    network: NetworkArchitecture,
    objective: Objective,
    schedule: Schedule,
    simulator: Simulator,
    *,
    seed: int,
    device: str = "cpu",
    threads: int = 1,
    progress: Progress | None = None,
) -> Trained:
    """Train a network by gradient descent.

    Parameters
    ----------
    seed : int
        The same seed and number of threads give the same weights on the same machine.
    device : {"cpu", "cuda", ...}
        torch device.
    progress : callable, optional
        Called with the fraction that is done.

    Raises
    ------
    UsageError
        If the device does not exist.
    """
    import torch

    place = _device(device)
    draws, validation = (np.random.default_rng(s) for s in np.random.SeedSequence(seed).spawn(2))
    space = simulator.space

    def tensors(batch: Batch[NDArray]) -> Batch[torch.Tensor]:
        def tensor(array: NDArray) -> torch.Tensor:
            kind = np.complex64 if np.iscomplexobj(array) else np.float32
            return torch.from_numpy(np.asarray(array, dtype=kind)).to(place)

        return batch.map(tensor)

    held_out = tensors(simulator.draw(schedule.validation, validation))
    rows = held_out.features.flatten(0, -2)
    # Standardised features make all protocols look alike to the optimiser; folded into the arrays later.
    centre, width = rows.mean(dim=0), rows.std(dim=0).clamp(min=1e-6)
    best: Arrays | None = None
    best_step, since, lowest, curve = 0, 0, np.inf, []
    with _torch_threads(threads), torch.random.fork_rng(devices=[place] if place.type == "cuda" else []):
        torch.manual_seed(seed)
        module = network.module(rows.shape[-1], objective.n_outputs(space)).to(place)

        def loss(batch: Batch[torch.Tensor]) -> torch.Tensor:
            shown = (batch.features.flatten(0, 1) - centre) / width
            return objective.loss(module(shown).reshape(*batch.features.shape[:2], -1), batch, space)

        optimiser = _optimiser(schedule, module)
        rate = torch.optim.lr_scheduler.OneCycleLR(optimiser, schedule.peak_rate, total_steps=schedule.steps)
        check = max(schedule.steps // schedule.checks, 1)
        recent = []
        blocks = simulator.stream(schedule.batch, schedule.steps, draws)
        batches = (batch for block in blocks for batch in tensors(block).split(schedule.batch))
        for step, batch in enumerate(batches, start=1):
            value = loss(batch)
            optimiser.zero_grad()
            value.backward()
            optimiser.step()
            rate.step()
            recent.append(value.detach())
            if step % check == 0 or step == schedule.steps:
                with torch.inference_mode():
                    checked = float(loss(held_out))
                curve.append((step, float(torch.stack(recent).mean()), checked))
                recent, since = [], since + 1
                if checked < lowest:
                    best, best_step, since, lowest = network.arrays(module), step, 0, checked
                if progress is not None:
                    progress(step / schedule.steps)
                if since == schedule.patience:
                    break
    if best is None:
        raise ValueError("The training diverged: the loss of the validation set was never a number.")
    arrays = network.folded(best, centre.cpu().numpy(), width.cpu().numpy())
    voxels = 1 if simulator.patches is None else math.prod(simulator.patches.shape)
    arrays = network.pruned(arrays, simulator.draw(PRUNING // voxels, validation).features[:, 0])
    table = np.array(curve)
    facts = {
        "BestStep": best_step,
        "ValidationLoss": float(lowest),
        "Converged": converged(table),
        **network.facts(arrays),
    }
    return Trained(arrays, table, facts)


def descend_often(
    network: NetworkArchitecture,
    objective: Objective,
    schedule: Schedule,
    simulator: Simulator,
    *,
    seed: int,
    progress: Progress | None = None,
    **options: Any,
) -> Trained:
    """Train an ensemble; arguments as of `descend`.

    The machine is a tuple of those of its networks. Learning curve and facts are those of the first; it has converged
    where all have.
    """
    n = schedule.members or 1
    found = []
    for i in range(n):
        part = None if progress is None else partial(_advance, progress, i / n, 1 / n)
        # The first has the seed itself, so that it is the network that would be trained alone.
        own = seed if i == 0 else int(np.random.SeedSequence([seed, i]).generate_state(1)[0])
        found.append(descend(network, objective, schedule, simulator, seed=own, progress=part, **options))
    facts = found[0].facts | {"Converged": all(one.facts["Converged"] for one in found), "Members": n}
    return Trained(tuple(one.machine for one in found), found[0].curve, facts)


def _advance(progress: Progress, start: float, share: float, done: float) -> None:
    progress(start + share * done)


def converged(curve: NDArray[np.float64]) -> bool:
    """Whether the last tenth of a learning curve is flat."""
    steps, losses = curve[:, 0], curve[:, 2]
    before = losses[steps <= 0.9 * steps[-1]]
    return bool(before.size and before.min() - losses.min() < CONVERGED * abs(before.min()))


def _optimiser(schedule: Schedule, module: torch.nn.Module) -> torch.optim.Optimizer:
    import torch

    if schedule.optimiser == "adam":
        return torch.optim.Adam(module.parameters(), lr=schedule.peak_rate)
    return torch.optim.SGD(module.parameters(), lr=schedule.peak_rate, momentum=0.9)


def _device(name: str) -> torch.device:
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
