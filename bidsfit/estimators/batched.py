"""Levenberg-Marquardt as in bidsfit/estimators/levenberg_marquardt.py on tensors of torch: all voxels step together.

For models without a compiled kernel, and for any model on a GPU. The starts, steps, bounds, criteria and status codes
are those of the compiled code; on a processor that is several times as fast.
"""

from __future__ import annotations

from contextlib import nullcontext
from threading import Lock
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bidsfit.estimators.levenberg_marquardt import (
    AT_BOUND,
    CAUTIOUS_DAMPING,
    CONVERGED,
    EXACT,
    FIRST_DAMPING,
    ITERATION_LIMIT,
    LARGEST_DAMPING,
    MARGIN,
    MAX_ITERATIONS,
    TOLERANCE,
    Problem,
)
from bidsfit.estimators.misfits import gaussian_tensor, rician_tensor
from bidsfit.models.function import LARGEST_BLOCK
from bidsfit.models.signal_model import SignalModel
from bidsfit.noise import NoiseKind

if TYPE_CHECKING:
    from torch import Tensor


class Batch(NamedTuple):
    """Voxels on their way down; the first axis of every tensor is theirs."""

    place: Tensor  # (n,), among the voxels that started
    y: Tensor  # (n, n_measurements)
    precision: Tensor  # (n, 1)
    exact: Tensor  # (n,), sum of misfits below which a fit counts as exact
    lower: Tensor  # (n, n_parameters), bounds
    upper: Tensor
    damping: Tensor  # (n,)
    growth: Tensor  # (n,), of the damping where a step fails
    parameters: Tensor  # (n, n_parameters)
    cost: Tensor  # (n,), sum of misfits
    normal: Tensor  # (n, n_parameters, n_parameters), J^T diag(curvature) J
    gradient: Tensor  # (n, n_parameters), J^T slope: points downhill
    trial: Tensor  # (n, n_parameters), the end of a step
    promised: Tensor  # (n,), its predicted decrease of the sum of misfits
    done: Tensor  # (n,), whether a voxel has arrived

    def select(self, which: Tensor) -> Batch:
        return Batch(*(values[which] for values in self))


class BatchSolver:
    """Minimises the sum of misfits of one model for one protocol, in all voxels together.

    Parameters
    ----------
    model : SignalModel
    noise : {"gaussian", "rician"}
        Kind of the misfit.
    problem : Problem
    device : str
        torch device.
    """

    def __init__(self, model: SignalModel, noise: NoiseKind, problem: Problem, device: str) -> None:
        import torch

        self.model, self.device, self.scale = model, device, problem.scale
        self.misfit = {"gaussian": gaussian_tensor, "rician": rician_tensor}[noise]
        arrays = problem.design, problem.weights, problem.bounds, problem.matrix, problem.limits
        self.design, self.weights, self.bounds, self.matrix, self.limits = map(self._tensor, arrays)
        self.nodes, self.node_signals = self._tensor(problem.nodes), self._tensor(problem.node_signals)
        n_rows = len(problem.node_signals)
        self.rows = torch.as_tensor(problem.rows, device=device)
        #: Sums measurements that share a prediction; None where none does.
        self.sums: Tensor | None = None
        if not np.array_equal(problem.rows, np.arange(n_rows)):
            self.sums = torch.nn.functional.one_hot(self.rows, n_rows).to(self.weights)
        self.energies = (self._by_row(self.weights) @ self.node_signals**2).clamp(min=np.finfo(float).tiny)
        self.middle = self._tensor(np.median(problem.nodes, axis=0))
        self.block = max(LARGEST_BLOCK // max(n_rows * self.nodes.shape[1], 2 * len(self.rows)), 1)
        self._turn = nullcontext() if device == "cpu" else Lock()  # the memory of a GPU holds the blocks of one thread

    def fit(
        self,
        y: NDArray,
        precision: NDArray,
        found: NDArray,
        cost: NDArray,
        status: NDArray,
        start: NDArray | None = None,
    ) -> None:
        """Fit voxels. The arguments are those of `fit_voxels`."""
        for k in range(0, len(y), self.block):
            part = slice(k, k + self.block)
            with self._turn:
                given, level, held = (self._tensor(array[part]) for array in (y, precision, found))
                first = None if start is None else self._tensor(start[part])
                solution = self._fit(given, level, held, first)
                for array, values in zip((found, cost, status), solution, strict=True):
                    array[part] = values.cpu().numpy()

    def _tensor(self, array: NDArray) -> Tensor:
        import torch

        return torch.tensor(array, dtype=torch.float64, device=self.device)

    def _by_row(self, values: Tensor) -> Tensor:
        """Sums (..., n_rows) of values of the measurements (..., n)."""
        return values if self.sums is None else values @ self.sums

    def _fit(self, y: Tensor, precision: Tensor, held: Tensor, start: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Parameters, sums of misfits and status codes; ``held`` is NaN where a parameter is free."""
        import torch

        lower, upper = (torch.where(held.isnan(), bound, held) for bound in self.bounds.unbind(1))
        if start is not None:
            return self._descend(y, precision, lower, upper, start.clamp(lower, upper), FIRST_DAMPING)
        anywhere = torch.full_like(precision, torch.inf)
        first = self._best_nodes(y, lower, upper, 0, -anywhere, anywhere)
        found, cost, status = self._descend(y, precision, lower, upper, first, FIRST_DAMPING)
        for j, middle in enumerate(self.middle):
            if j == self.scale:
                continue
            at_bound = (lower[:, j] < upper[:, j]) & ((found[:, j] <= lower[:, j]) | (found[:, j] >= upper[:, j]))
            again = ((status == AT_BOUND) & at_bound).nonzero()[:, 0]
            if not len(again):
                continue
            # often a local minimum: look also from the other half of that parameter's range
            below = found[again, j] < middle
            least, most = torch.where(below, middle, -torch.inf), torch.where(below, torch.inf, middle)
            voxels = y[again], precision[again], lower[again], upper[again]
            other = self._best_nodes(voxels[0], voxels[2], voxels[3], j, least, most)
            solution = self._descend(*voxels, other, CAUTIOUS_DAMPING)
            better = solution[1] < cost[again]
            for values, new in zip((found, cost, status), solution, strict=True):
                values[again[better]] = new[better]
        return found, cost, status

    def _best_nodes(self, y: Tensor, lower: Tensor, upper: Tensor, which: int, least: Tensor, most: Tensor) -> Tensor:
        """Starting points with the least sum of squares, with the scale that fits best, shape (n, n_parameters).

        As `best_node` of the compiled code: only nodes whose parameter ``which`` lies between ``least`` and ``most``,
        and that meet the linear constraints when moved inside the bounds.
        """
        import torch

        size = max(LARGEST_BLOCK // len(self.nodes), 1)
        parts = zip(*(values.split(size) for values in (y, lower, upper, least[:, None], most[:, None])), strict=True)
        return torch.cat([self._best_of(which, *part) for part in parts])

    def _best_of(self, which: int, y: Tensor, lower: Tensor, upper: Tensor, least: Tensor, most: Tensor) -> Tensor:
        import torch

        if (lower == lower[0]).all() and (upper == upper[0]).all():  # as in most fits: the same constraints are met
            lower, upper = lower[:1], upper[:1]
        scores = self._by_row(y * self.weights) @ self.node_signals
        amplitude = torch.ones_like(scores)
        if self.scale >= 0:
            amplitude = (scores / self.energies).clamp(lower[:, self.scale, None], upper[:, self.scale, None])
        gain = amplitude * (2.0 * scores - amplitude * self.energies)
        among = (self.nodes[:, which] >= least) & (self.nodes[:, which] <= most)
        for row, limit in zip(self.matrix.tolist(), self.limits.tolist(), strict=True):
            room = limit + MARGIN
            for j in np.flatnonzero(row):
                room = room - row[j] * self.nodes[:, j].clamp(lower[:, j, None], upper[:, j, None])
            among = among & (room >= 0)
        best = gain.where(among, -torch.inf).argmax(1, keepdim=True)
        found = self.nodes[best[:, 0]].clamp(lower, upper)
        if self.scale >= 0:
            found[:, self.scale] = amplitude.gather(1, best)[:, 0]
        return found

    def _descend(
        self, y: Tensor, precision: Tensor, lower: Tensor, upper: Tensor, parameters: Tensor, first_damping: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Minimise from ``parameters``, which are feasible; as `descend` of the compiled code, voxel by voxel."""
        import torch

        n = len(y)
        found, cost = torch.empty_like(parameters), torch.empty_like(y[:, 0])
        status = torch.full((n,), ITERATION_LIMIT, dtype=torch.uint8, device=self.device)
        precision = precision[:, None]
        batch = Batch(
            torch.arange(n, device=self.device),
            y,
            precision,
            EXACT * (precision * self.weights * y**2).sum(1),
            lower,
            upper,
            torch.full_like(cost, first_damping),
            torch.full_like(cost, 2.0),
            parameters,
            *self._linearise(y, precision, parameters),
            parameters,
            cost,
            torch.zeros_like(status, dtype=torch.bool),
        )
        for _ in range(MAX_ITERATIONS):
            batch = self._propose(batch)
            if batch.done.any():
                arrived, batch = batch.select(batch.done), batch.select(~batch.done)
                found[arrived.place], cost[arrived.place] = arrived.parameters, arrived.cost
                status[arrived.place] = CONVERGED
            if not len(batch.place):
                break
            batch = self._judge(batch)
        found[batch.place], cost[batch.place] = batch.parameters, batch.cost
        status[batch.place[batch.done]] = CONVERGED
        touching = ((lower < upper) & ((found <= lower) | (found >= upper))).any(1)
        touching |= (self.limits - found @ self.matrix.T <= 1e-9).any(1)
        status[touching & (status == CONVERGED)] = AT_BOUND
        return found, cost, status

    def _propose(self, batch: Batch) -> Batch:
        """Compute steps; voxels whose step promises nothing take it and have arrived."""
        step = self._step(batch)
        promised = (step * (2.0 * batch.gradient - (batch.normal @ step[..., None])[..., 0])).sum(1)
        trial = (batch.parameters + step).clamp(batch.lower, batch.upper)
        last = (promised.abs() <= TOLERANCE * batch.cost.abs()) & (batch.damping <= FIRST_DAMPING) & ~batch.done
        parameters = trial.where((last & (promised > 0))[:, None], batch.parameters)
        return batch._replace(parameters=parameters, trial=trial, promised=promised, done=batch.done | last)

    def _judge(self, batch: Batch) -> Batch:
        """Take steps that lower the sum of misfits; increase the damping of the other voxels."""
        import torch

        signal = self._real(self.model.torch_signal(batch.trial, self.design))
        trial_cost, promised = self._misfits(batch.y, batch.precision, signal)[0], batch.promised
        gain = batch.cost - trial_cost
        better = (promised > 1e-15 * batch.cost.abs()) & (gain > 0)
        parameters, cost = batch.trial.where(better[:, None], batch.parameters), trial_cost.where(better, batch.cost)
        negligible = TOLERANCE * cost.abs()
        settled = better & ((cost.abs() <= batch.exact) | ((gain <= negligible) & (promised <= negligible)))
        relaxed = (batch.damping * (1.0 - (2.0 * gain / promised - 1.0) ** 3).clamp(min=0.1)).clamp(min=1e-14)
        damping = relaxed.where(better, batch.damping * batch.growth)
        again = (better & ~settled).nonzero()[:, 0]
        if len(again):
            _, *equations = self._linearise(batch.y[again], batch.precision[again], parameters[again])
            batch.normal[again], batch.gradient[again] = equations
        return batch._replace(
            parameters=parameters,
            cost=cost,
            damping=damping,
            growth=torch.where(better, 2.0, 2.0 * batch.growth),
            done=settled | (~better & (damping > LARGEST_DAMPING)),
        )

    def _linearise(self, y: Tensor, precision: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Sum of misfits, normal matrix and gradient at ``parameters``."""
        signal, jacobian = map(self._real, self.model.torch_signal_and_jacobian(parameters, self.design))
        cost, slope, curvature = self._misfits(y, precision, signal)
        return cost, (jacobian * curvature[..., None]).mT @ jacobian, (slope[:, None] @ jacobian)[:, 0]

    def _misfits(self, y: Tensor, precision: Tensor, signal: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Sums of misfits (n,), and slopes and curvatures of the predictions (n, n_rows)."""
        cost, slope, curvature = self.misfit(y, signal[:, self.rows], self.weights * precision)
        return cost.sum(1), self._by_row(slope), self._by_row(curvature)

    def _real(self, values: Tensor) -> Tensor:
        """Real parts, then imaginary parts, concatenated along the axis of the measurements."""
        import torch

        return torch.cat([values.real, values.imag], 1) if self.model.complex_valued else values

    def _step(self, batch: Batch) -> Tensor:
        """Damped steps that respect bounds and linear constraints; as `constrained_step` of the compiled code."""
        lower, upper, parameters, gradient = batch.lower, batch.upper, batch.parameters, batch.gradient
        held = lower == upper
        held |= ((parameters <= lower) & (gradient <= 0)) | ((parameters >= upper) & (gradient >= 0))
        room = self.limits - parameters @ self.matrix.T
        step = self._step_of_free(batch, held, parameters.new_zeros(parameters.shape), room)
        for row, left in zip(self.matrix, room.unbind(1), strict=True):
            ahead, left = step @ row, left.clamp(min=0)
            step = step * (left / ahead).where(ahead > left, 1.0)[:, None]
        return step

    def _step_of_free(self, batch: Batch, held: Tensor, step: Tensor, room: Tensor) -> Tensor:
        """Steps in which parameters that would leave a bound end there, and the others are computed again."""
        step = self._damped_step(batch, held, step, room)
        target = batch.parameters + step
        outside = ~held & ((target < batch.lower) | (target > batch.upper))
        again = outside.any(1).nonzero()[:, 0]
        if len(again):
            step = (target.clamp(batch.lower, batch.upper) - batch.parameters).where(outside, step)
            held = (held | outside)[again]
            step[again] = self._step_of_free(batch.select(again), held, step[again], room[again])
        return step

    def _damped_step(self, batch: Batch, held: Tensor, step: Tensor, room: Tensor) -> Tensor:
        """Steps of the parameters that are not held, given those of the others."""
        import torch

        free = (~held).to(step)
        diagonal = batch.normal.diagonal(dim1=1, dim2=2)
        floor = 1e-16 * diagonal.amax(1, keepdim=True) + 1e-300
        pivots = (diagonal + batch.damping[:, None] * diagonal.maximum(floor) + floor).where(~held, 1.0)
        matrix = batch.normal * free[:, :, None] * free[:, None]
        matrix.diagonal(dim1=1, dim2=2).copy_(pivots)
        pull = batch.gradient - (batch.normal @ (step * held)[..., None])[..., 0]
        right = torch.stack([pull.where(~held, step), *(row * free for row in self.matrix)], -1)
        step, *directions = torch.linalg.solve_ex(matrix, right)[0].unbind(-1)
        corrected = step.new_zeros(len(step), dtype=held.dtype)
        for r, direction in enumerate(directions):  # a step that crosses a constraint (the first one) ends inside it
            excess, reach = step @ self.matrix[r] - room[:, r], direction @ self.matrix[r]
            crosses = (excess > 0) & ~corrected
            corrected |= crosses
            share = ((excess + MARGIN) / reach).where(crosses & (reach > 0), 0.0)
            step = step - direction * share[:, None]
        return step
