"""What a network is taught to make small."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from bidsfit.models.space import ParameterSpace
from bidsfit.training.recipe import LossName

if TYPE_CHECKING:
    from torch import Tensor

    #: Loss of logits, shape (n, n_parameters), given the true parameters and where they lie in the unit cube.
    Loss = Callable[[Tensor, Tensor, Tensor], Tensor]

#: Logits of 0 and 1 are infinite: coordinates are kept this far inside.
CLIP = 1e-3


def make_loss(name: LossName, space: ParameterSpace) -> Loss:
    """The loss of that name.

    "parameters": mean squared error of the parameters, each relative to the width of its bounds (Gyori et al. 2022, as
    the text says). "logits": mean squared error of the logits, which weighs errors near the bounds more.
    """
    import torch

    span = torch.tensor(space.span, dtype=torch.float32)

    def of_parameters(logits: Tensor, truth: Tensor, cube: Tensor) -> Tensor:
        estimates = torch.stack(space.columns(list(torch.sigmoid(logits).unbind(dim=1))), dim=1)
        return (((estimates - truth) / span.to(logits.device)) ** 2).mean()

    def of_logits(logits: Tensor, truth: Tensor, cube: Tensor) -> Tensor:
        return ((logits - torch.logit(cube, eps=CLIP)) ** 2).mean()

    return {"parameters": of_parameters, "logits": of_logits}[name]
