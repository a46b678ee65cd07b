"""What the examples of docs/adding.md share: trained estimators small enough for a test."""

import pytest

from bidsfit.models.space import ParameterSpace
from bidsfit.simulation.distributions import Uniform
from bidsfit.simulation.simulator import Noise
from bidsfit.training.recipe import recipe_from
from bidsfit.training.task import Task, train

RECIPE = {
    "simulation": {"samples": 8192},
    "architecture": {"name": "perceptron", "units": 48, "hidden_layers": 2},
    "objective": {"name": "parameters"},
    "schedule": {"steps": 300, "batch": 512, "peak_rate": 0.01, "validation": 2048, "checks": 3},
}


@pytest.fixture
def few_draws(monkeypatch):
    """What judges a trained estimator is simulated fewer times."""
    monkeypatch.setattr("bidsfit.training.task.DRAWS", 2048)


@pytest.fixture
def quickly_trained(few_draws):
    """``quickly_trained(model, acquisition, snr, kind, bounds)``: a bundle."""

    def make(model, acquisition, snr, kind="gaussian", bounds=None):
        space = ParameterSpace(model, bounds)
        return train(Task(Uniform(space), acquisition, Noise(snr, kind), recipe_from(RECIPE, "test")))

    return make
