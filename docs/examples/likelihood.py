"""Every parameter with a variance of its own: an objective that lives in another package."""

from dataclasses import dataclass

from bidsfit.training.objectives import Objective


@dataclass(frozen=True)
class Likelihood(Objective):
    """Gaussian likelihood of the targets, mean and variance of which are learned for every voxel."""

    name = "likelihood"

    def n_outputs(self, space):
        return 2 * len(space.names)

    def loss(self, outputs, batch, simulator):
        mean, spread = outputs.chunk(2, dim=-1)
        errors = mean.sigmoid() - batch.cube
        log_variance = -10 * spread.sigmoid()  # bounded, so that no voxel outweighs all others
        each = log_variance + errors**2 * (-log_variance).exp()
        return (each * batch.weights).mean() / 2
