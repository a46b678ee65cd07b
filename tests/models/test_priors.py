"""Priors: what they say, and that they say it."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy import stats

from bidsfit import models
from bidsfit.models.priors import Prior, log_uniform, priors_of, uniform
from bidsfit.models.space import bounds_of


def test_quantiles_are_those_of_the_distribution() -> None:
    u = np.linspace(0, 1, 11)
    assert uniform(1, 3).quantile(u) == pytest.approx(1 + 2 * u)
    assert log_uniform(1, 100).quantile(u) == pytest.approx(100**u)


def test_a_distribution_is_cut_off_at_the_bounds() -> None:
    prior = Prior("lognorm", (0.5, 2.0), {"s": 1.0, "scale": 1.0})
    values = prior.sample(20000, np.random.default_rng(0))
    assert 0.5 <= values.min() < 0.51
    assert 1.99 < values.max() <= 2.0
    frozen = stats.lognorm(1.0)
    share = (frozen.cdf(1) - frozen.cdf(0.5)) / (frozen.cdf(2) - frozen.cdf(0.5))
    assert np.mean(values < 1) == pytest.approx(share, abs=0.015)


def test_defaults_and_changes() -> None:
    model = models.get("ivim")
    priors = priors_of(model, bounds_of(model, {"D": (1.0, 1.0)}), {"f": Prior("beta", (0, 1), {"a": 2, "b": 5})})
    assert list(priors) == ["f", "D", "Dstar"]
    assert [p.distribution for p in priors.values()] == ["beta", "lognorm", "lognorm"]
    assert priors["D"].fixed
    assert "fixed at 1" in str(priors["D"])
    json.dumps({name: prior.facts for name, prior in priors.items()})


@pytest.mark.parametrize(
    ("bounds", "changes", "message"),
    [
        ({"Dstar": (0.0, 200.0)}, {"Dstar": "loguniform"}, "Dstar: A log-uniform prior needs positive"),
        ({"D": (0.0, np.inf)}, {"D": "uniform"}, "D: A uniform prior needs finite"),
        ({"D": (1e-5, 1e-4)}, {}, "D: hardly any of the prior .* lies between the bounds 1e-05 and 0.0001"),
        ({}, {"S0": "uniform"}, "No prior of"),
        ({}, {"f": "flat"}, "f: unknown prior 'flat'"),
        ({}, {"f": Prior("beta", (2, 3), {"a": 1, "b": 1})}, "lie outside its prior"),
    ],
)
def test_what_cannot_be_is_refused(bounds, changes, message) -> None:
    model = models.get("ivim")
    with pytest.raises(ValueError, match=message):
        priors_of(model, bounds_of(model, bounds), changes)
