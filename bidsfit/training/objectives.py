"""Objectives by name: the loss that a training minimises, and how outputs become estimates."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray

from bidsfit.models.space import ParameterSpace
from bidsfit.registry import Registry
from bidsfit.simulation.simulator import Batch

if TYPE_CHECKING:
    from torch import Tensor

#: Where the objectives of the package live. Other packages add theirs with the entry point "bidsfit.objectives".
REGISTRY = Registry(
    "objective",
    "bidsfit.objectives",
    {
        "parameters": "bidsfit.training.objectives:Parameters",
        "logits": "bidsfit.training.objectives:Logits",
        "relative": "bidsfit.training.objectives:Relative",
    },
)

#: Logits of 0 and 1 are infinite: coordinates are kept this far inside.
CLIP = 1e-3


class Objective(ABC):
    """A loss and the outputs that it needs.

    Subclasses are frozen dataclasses whose fields are the choices of the section ``objective`` of a recipe. By default
    there is one output per parameter: the logit of its coordinate in the unit cube of the parameter space.
    """

    name: ClassVar[str]

    def n_outputs(self, space: ParameterSpace) -> int:
        """Number of outputs per voxel."""
        return len(space.names)

    @abstractmethod
    def loss(self, outputs: Tensor, batch: Batch[Tensor], space: ParameterSpace) -> Tensor:
        """Loss of a batch.

        Parameters
        ----------
        outputs : Tensor, shape (n, n_realisations, n_outputs)
            Outputs for the noisy copies of every voxel.
        batch : Batch
        space : ParameterSpace
        """

    def estimates(
        self, outputs: NDArray[np.float32], space: ParameterSpace
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Coordinates in the unit cube and parameters, each (n, n_parameters), from outputs (n, n_outputs)."""
        cube = sigmoid(outputs[:, : len(space.names)])
        return cube, space.from_cube(cube)


@dataclass(frozen=True)
class Parameters(Objective):
    """Mean squared error of the parameters relative to the widths of their bounds (Gyori et al. 2022, the text)."""

    name = "parameters"

    def loss(self, outputs: Tensor, batch: Batch[Tensor], space: ParameterSpace) -> Tensor:
        import torch

        estimates = torch.stack(space.columns(list(torch.sigmoid(outputs).unbind(dim=-1))), dim=-1)
        return mean_square((estimates - batch.targets[:, None]) / estimates.new_tensor(space.span), batch)


@dataclass(frozen=True)
class Logits(Objective):
    """Mean squared error of the logits, which weights errors near the bounds more."""

    name = "logits"

    def loss(self, outputs: Tensor, batch: Batch[Tensor], space: ParameterSpace) -> Tensor:
        import torch

        return mean_square(outputs - torch.logit(batch.cube, eps=CLIP)[:, None], batch)


@dataclass(frozen=True)
class Relative(Objective):
    """Like "parameters", for outputs that are the parameters scaled to 0 at the lower and 1 at the upper bound.

    For architectures whose outputs are means of training targets and thus meet bounds and linear constraints.
    """

    name = "relative"

    def loss(self, outputs: Tensor, batch: Batch[Tensor], space: ParameterSpace) -> Tensor:
        low, span = (outputs.new_tensor(values) for values in (space.bounds[:, 0], space.span))
        return mean_square(outputs - ((batch.targets - low) / span)[:, None], batch)

    def estimates(
        self, outputs: NDArray[np.float32], space: ParameterSpace
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        parameters = np.asarray(space.bounds[:, 0] + outputs * space.span)
        return space.to_cube(parameters), parameters


def mean_square(errors: Tensor, batch: Batch[Tensor]) -> Tensor:
    """Mean of squared errors (n, n_realisations, ...) with the weights of the batch."""
    return (errors**2 * batch.weights.reshape(-1, *[1] * (errors.ndim - 1))).mean()


def sigmoid(values: NDArray[np.float32]) -> NDArray[np.float64]:
    """Logistic function without overflow."""
    return 0.5 * (1.0 + np.tanh(0.5 * values.astype(np.float64)))
