"""Training of networks by gradient descent on simulated voxels."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bidsfit.exceptions import UsageError
from bidsfit.parallel import Progress, part_of
from bidsfit.simulation.simulator import Batch, FixedSet, Simulator, together
from bidsfit.training.objectives import Objective

if TYPE_CHECKING:
    import torch

    from bidsfit.training.architectures import NetworkArchitecture

#: Voxels that decide what of a network is pruned.
PRUNING = 1 << 18
#: Voxels of a step of all networks that are trained together, and of the validation set that go through them at a time.
TOGETHER, CHECKED = 1 << 14, 1 << 16
#: Multiplications of a step below which the threads of torch would cost more than they save.
SMALL = 1 << 24
#: A training has converged where the last tenth of its steps changed the validation loss by less than this fraction.
CONVERGED = 0.02


@dataclass(frozen=True)
class Schedule:
    """Choices of the gradient descent: the section ``schedule`` of a recipe.

    Parameters
    ----------
    optimiser : {"adam", "radam", "rmsprop", "sgd"}
        "sgd" uses a momentum of 0.9.
    weight_decay : float, optional
        Penalty of squared weights, as torch adds it to the gradient; by default 0.
    peak_rate : float
        Largest learning rate.
    rate : {"one-cycle", "constant", "inverse"}
        Its course. "one-cycle" (default): the peak is reached after 30 % of the steps; the rate then falls to 0.
        "inverse": peak_rate / (1 + decay * step).
    decay : float, optional
        Of the rate "inverse".
    steps, batch : int
        Number of steps, and voxels per step.
    validation : int
        Number of voxels in the validation set, which is drawn once; at most those of images that are held out.
    checks : int
        Number of evaluations on the validation set.
    keep : {"best", "last"}
        The weights with the lowest validation loss (default), or those of the last evaluation.
    patience : int, optional
        Stop after so many evaluations in a row without better weights; by default never.
    members : int, optional
        Networks that are trained together from different seeds; their median is the estimate. By default one.
    restarts : int, optional
        Networks that are trained together from different seeds, of which the one with the lowest loss on a validation
        set that they share is the result.
    standardise : bool, optional
        Whether features are shifted and scaled to mean 0 and standard deviation 1, so that all protocols look alike to
        the optimiser (default).
    checkpoints : sequence of int, optional
        Steps after which the weights are kept as well, for experiments: `Trained.checkpoints`.
    """

    optimiser: Literal["adam", "radam", "rmsprop", "sgd"] = "adam"
    weight_decay: float | None = None
    rate: Literal["one-cycle", "constant", "inverse"] | None = None
    decay: float | None = None
    peak_rate: float = 4e-3
    steps: int = 6000
    batch: int = 4096
    validation: int = 65536
    checks: int = 60
    patience: int | None = None
    keep: Literal["best", "last"] | None = None
    members: int | None = None
    restarts: int | None = None
    standardise: bool | None = None
    checkpoints: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if (self.decay is None) != (self.rate != "inverse"):
            raise ValueError(f"The rate 'inverse' and a decay need each other, found {self.rate!r} and {self.decay}.")
        if self.members is not None and self.restarts is not None:
            raise ValueError("Of several networks all are kept (members) or the best (restarts), not both.")
        if max(self.checkpoints or (0,)) > self.steps:
            raise ValueError(f"checkpoints must be steps up to {self.steps}, found {max(self.checkpoints or (0,))}.")


class State(NamedTuple):
    """Weights of a network as torch has them, and mean and width of its features: where another training can start."""

    weights: dict[str, torch.Tensor]
    centre: torch.Tensor
    width: torch.Tensor

    @property
    def arrays(self) -> dict[str, torch.Tensor]:
        """All of it by names, for a file."""
        return {f"weights/{name}": v for name, v in self.weights.items()} | {"centre": self.centre, "width": self.width}

    @classmethod
    def of(cls, arrays: dict[str, torch.Tensor]) -> State:
        """The state of `arrays`."""
        weights = {name.removeprefix("weights/"): v for name, v in arrays.items() if name.startswith("weights/")}
        return cls(weights, arrays["centre"], arrays["width"])


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
    states : tuple of State
        Of the networks, for a training that starts from them.
    checkpoints : dict of int to machine
        Weights after the steps that the schedule names, of a network that is no ensemble.
    """

    machine: Any
    curve: NDArray[np.float64]
    facts: dict[str, Any]
    states: tuple[State, ...] = ()
    checkpoints: dict[int, Any] = field(default_factory=dict)


def descend(
    network: NetworkArchitecture,
    objective: Objective,
    schedule: Schedule,
    simulator: Simulator,
    seeds: Sequence[int],
    *,
    set_seed: int | None = None,
    start: Sequence[State] = (),
    device: str = "cpu",
    threads: int = 1,
    progress: Progress | None = None,
) -> list[Trained]:
    """Train networks by gradient descent, one from each seed, all in one batched computation.

    Each network starts from the weights, sees the voxels and keeps the best weights that it would if it were trained
    alone, so that the results are the same within rounding (only the masks of dropout differ). Many small networks take
    little longer together than one: the time of a small step is not spent on computing. Networks with large batches
    are trained in groups.

    Parameters
    ----------
    seeds : sequence of int
        The same seed and number of threads give the same weights on the same machine.
    set_seed : int, optional
        Seed of the voxels that all networks share: the fixed set, if the simulation has one, and those that decide what
        is pruned. By default the first of the seeds.
    start : sequence of State, optional
        Weights that the networks start from, in turn; by default they are random.
    device : {"cpu", "cuda", ...}
        torch device.
    progress : callable, optional
        Called with the fraction that is done.

    Raises
    ------
    UsageError
        If the device does not exist, or the network to start from is of another shape.
    """
    own = seeds[0] if set_seed is None else set_seed
    fixed = simulator.fixed_set(np.random.default_rng([own, 3]))
    size, found = max(TOGETHER // schedule.batch, 1), []
    for first in range(0, len(seeds), size):
        group = seeds[first : first + size]
        part = part_of(progress, first / len(seeds), (first + len(group)) / len(seeds))
        states = [start[i % len(start)] for i in range(first, first + len(group))] if start else []
        place = _device(device)
        judges = [own if schedule.restarts else seed for seed in group]  # losses of one set can be compared
        found += _descend(network, objective, schedule, simulator, group, judges, fixed, states, place, threads, part)
    if not network.prunes:
        return found
    voxels = 1 if simulator.patches is None else math.prod(simulator.patches.shape)
    shown = simulator.draw(PRUNING // voxels, np.random.default_rng([own, 4])).features[:, 0]
    arrays = [network.pruned(one.machine, shown) for one in found]
    return [replace(one, machine=a, facts=one.facts | network.facts(a)) for one, a in zip(found, arrays, strict=True)]


def _descend(
    network: NetworkArchitecture,
    objective: Objective,
    schedule: Schedule,
    simulator: Simulator,
    seeds: Sequence[int],
    judges: Sequence[int],
    fixed: FixedSet | None,
    start: Sequence[State],
    place: torch.device,
    threads: int,
    progress: Progress | None,
) -> list[Trained]:
    """Train a group of networks; arguments as of `descend`, and the seeds of their validation sets.

    The first dimension of all tensors is the network.
    """
    import torch

    n = len(seeds)
    draws = [np.random.default_rng(np.random.SeedSequence(seed).spawn(2)[0]) for seed in seeds]
    validation = [np.random.default_rng(np.random.SeedSequence(seed).spawn(2)[1]) for seed in judges]

    def tensors(batch: Batch[NDArray]) -> Batch[torch.Tensor]:
        return batch.map(lambda array: torch.from_numpy(array).to(place))

    held_out = tensors(together([simulator.held_out(schedule.validation, rng) for rng in validation]))
    rows = held_out.features.flatten(1, -2)
    centre, width = rows.mean(dim=1), rows.std(dim=1)  # folded into the arrays later
    width = torch.where(width > 1e-6, width, 1.0)
    if schedule.standardise is False:
        centre, width = torch.zeros_like(centre), torch.ones_like(width)
    if simulator.patches is not None:  # the last says which voxels are there
        centre[:, -1], width[:, -1] = 0.0, 1.0
    if start:
        centre, width = (torch.stack([getattr(one, name) for one in start]).to(place) for name in ("centre", "width"))
    best_step, since = np.zeros(n, dtype=int), np.zeros(n, dtype=int)
    lowest, loss = np.full(n, np.inf), np.full(n, np.nan)
    curves: list[list[tuple[float, float, float]]] = [[] for _ in seeds]
    with torch.random.fork_rng(devices=[place] if place.type == "cuda" else []):
        modules = []
        for seed in seeds:
            torch.manual_seed(seed)
            modules.append(network.module(rows.shape[-1], objective.n_outputs(simulator.space)).to(place))
        module = modules[0]
        for one, state in zip(modules, start, strict=False):
            try:
                one.load_state_dict(state.weights)
            except RuntimeError as error:
                raise UsageError("The network to start from is of another shape.") from error
        states = [one.state_dict() for one in modules]
        stacked = {name: torch.stack([state[name] for state in states]) for name in states[0]}
        weights = {name: stacked[name].requires_grad_() for name, _ in module.named_parameters()}

        def loss_of_one(state: Any, centre: torch.Tensor, width: torch.Tensor, *arrays: torch.Tensor) -> torch.Tensor:
            batch = Batch(*arrays)
            shown = (batch.features.flatten(0, 1) - centre) / width
            outputs = torch.func.functional_call(module, state, (shown,))
            return objective.loss(outputs.reshape(*batch.features.shape[:2], -1), batch, simulator)

        each = torch.vmap(loss_of_one, randomness="different")

        def losses(batch: Batch[torch.Tensor]) -> torch.Tensor:
            arguments = (centre, width, *vars(batch).values())
            if n > 1:
                return each(stacked, *arguments)
            alone = {name: value[0] for name, value in stacked.items()}  # without the cost of vmap
            return loss_of_one(alone, *(value[0] for value in arguments))[None]

        def checked() -> torch.Tensor:
            parts = list(held_out.split(max(CHECKED // n, 1), 1))
            module.eval()
            with torch.inference_mode():
                sums = [losses(part) * part.truth.shape[1] for part in parts]
            module.train()
            return torch.stack(sums).sum(dim=0) / held_out.truth.shape[1]

        best = {name: value.detach().clone() for name, value in stacked.items()}
        checkpoints: dict[int, dict[str, torch.Tensor]] = {}
        optimiser = _optimiser(schedule, list(weights.values()))
        rate = _rate(schedule, optimiser)
        check = max(schedule.steps // schedule.checks, 1)
        recent = []
        size = schedule.batch * sum(value[0].numel() for value in weights.values()) * n
        blocks = simulator.stream(schedule.batch, schedule.steps, draws, fixed)
        batches = (batch for block in blocks for batch in tensors(block).split(schedule.batch, 1))
        with torch_threads(threads if size > SMALL else 1):
            for step, batch in enumerate(batches, start=1):
                values = losses(batch)
                optimiser.zero_grad()
                values.sum().backward()
                optimiser.step()
                rate.step()
                recent.append(values.detach())
                if step in (schedule.checkpoints or ()):
                    checkpoints[step] = {name: value.detach().clone() for name, value in stacked.items()}
                if step % check and step != schedule.steps:
                    continue
                taught = torch.stack(recent).mean(dim=0).tolist()
                recent, now = [], np.array(checked().tolist())
                goes_on = np.array([schedule.patience is None or count < schedule.patience for count in since])
                better = goes_on & (now < lowest)
                kept = goes_on & np.isfinite(now) if schedule.keep == "last" else better
                for i in np.flatnonzero(goes_on).tolist():
                    curves[i].append((step, taught[i], now[i]))
                for name, value in stacked.items():
                    best[name][kept] = value.detach()[kept]
                since, lowest = np.where(better, 0, since + 1), np.where(better, now, lowest)
                best_step[kept], loss[kept] = step, now[kept]
                if progress is not None:
                    progress(step / schedule.steps)
                if np.all(since >= (schedule.patience or np.inf)):
                    break

    def arrays(state: dict[str, torch.Tensor], i: int) -> Any:
        module.load_state_dict({name: value[i] for name, value in state.items()})
        return network.folded(network.arrays(module), centre[i].cpu().numpy(), width[i].cpu().numpy())

    found = []
    for i, curve in enumerate(curves):
        if not np.isfinite(loss[i]):
            raise ValueError("The training diverged: the loss of the validation set was never a number.")
        machine = arrays(best, i)
        facts = {
            "BestStep": int(best_step[i]),
            "ValidationLoss": float(loss[i]),
            "Converged": converged(np.array(curve)),
            **network.facts(machine),
        }
        state = State({name: value[i].cpu() for name, value in best.items()}, centre[i].cpu(), width[i].cpu())
        kept = {step: arrays(weights, i) for step, weights in checkpoints.items()}
        found.append(Trained(machine, np.array(curve), facts, (state,), kept))
    return found


def member_seeds(seed: int, n: int) -> list[int]:
    """Seeds of the networks of an ensemble: the first has the seed itself, as if it were trained alone."""
    return [seed, *(int(np.random.SeedSequence([seed, i]).generate_state(1)[0]) for i in range(1, n))]


def converged(curve: NDArray[np.float64]) -> bool:
    """Whether the last tenth of a learning curve is flat."""
    steps, losses = curve[:, 0], curve[:, 2]
    before = losses[steps <= 0.9 * steps[-1]]
    return bool(before.size and before.min() - losses.min() < CONVERGED * abs(before.min()))


def _optimiser(schedule: Schedule, weights: list[torch.Tensor]) -> torch.optim.Optimizer:
    import torch

    choices: dict[str, Any] = {"lr": schedule.peak_rate, "weight_decay": schedule.weight_decay or 0.0}
    if schedule.optimiser == "sgd":
        return torch.optim.SGD(weights, momentum=0.9, **choices)
    kinds = {"adam": torch.optim.Adam, "radam": torch.optim.RAdam, "rmsprop": torch.optim.RMSprop}
    return kinds[schedule.optimiser](weights, **choices)


def _rate(schedule: Schedule, optimiser: torch.optim.Optimizer) -> torch.optim.lr_scheduler.LRScheduler:
    from torch.optim import lr_scheduler

    if schedule.rate in (None, "one-cycle"):
        return lr_scheduler.OneCycleLR(optimiser, schedule.peak_rate, total_steps=schedule.steps)
    return lr_scheduler.LambdaLR(optimiser, lambda step: 1 / (1 + (schedule.decay or 0.0) * step))


def _device(name: str) -> torch.device:
    import torch

    try:
        torch.empty(1, device=name)
        return torch.device(name)
    except (RuntimeError, AssertionError) as error:
        raise UsageError(f"--device {name} cannot be used by torch: {str(error).splitlines()[0]} Try cpu.") from error


@contextmanager
def torch_threads(threads: int) -> Iterator[None]:
    """Limit the threads of torch within a ``with`` block."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
