"""A trained file says itself which estimator it is."""

import numpy as np
import pytest

from bidsfit import estimators, models
from bidsfit.trained.given import describe_given

FACTS = {
    "Kind": "network",
    "Model": "smt2",
    "Noise": {"SNR": 28.0, "Kind": "rician", "AtLowestBValue": True},
    "Distribution": {"Kind": "uniform", "Bounds": {"vcyl": [0.0, 1.0], "lambda": [0.0, 3.0]}},
    "DistributionDigest": "abc",
    "Participants": [],
    "Recipe": {"architecture": {"name": "perceptron"}, "objective": {"name": "logits"}, "schedule": {"steps": 60}},
    "Seed": 3,
    "Checksum": "0123456789",
}
POOLED = {**FACTS["Distribution"], "Kind": "pooled", "Origin": {"Tissue": "gm"}}


def test_its_options_are_those_of_its_training():
    given = describe_given(FACTS)
    assert (given.estimator, given.model) == ("net-uniform", "smt2")
    built = estimators.get(given.estimator)(models.get("smt2"), **given.options)
    assert built.name == "net-uniform-012345"
    assert built.options["training_snr"] == 28
    assert built.options["training_seed"] == 3
    assert built.options["training_recipe"]["schedule"]["steps"] == 60
    assert "training_pool" not in built.options


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"Kind": "forest"}, "forest-uniform"),
        ({"Distribution": POOLED}, "net-gm"),
        ({"Distribution": POOLED | {"Origin": {}}}, "net-healthy"),
        ({"Distribution": POOLED | {"Kind": "mixture"}}, "net-mixed"),
    ],
)
def test_its_name_is_that_of_its_distribution(changes, name):
    assert describe_given(FACTS | changes).estimator == name


def test_no_noise_is_an_infinite_snr():
    noise = FACTS["Noise"] | {"SNR": None}
    given = describe_given(FACTS | {"Noise": noise, "Participants": ["sub-01"]})
    assert given.options["snr"] == np.inf
    assert given.options["pool"] == "abc"
