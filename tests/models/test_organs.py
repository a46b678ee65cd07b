"""Presets of organs: what the tables say, and that models take them."""

from __future__ import annotations

import numpy as np
import pytest

from bidsfit import Acquisition, Bayesian, LeastSquares, models
from bidsfit.exceptions import UnknownNameError
from bidsfit.models.organs import ORGANS, organ_of, preset_facts
from bidsfit.models.priors import priors_of
from bidsfit.models.space import ParameterSpace, bounds_of
from bidsfit.reports import bibliography
from bidsfit.simulation.distributions import Informed, distribution_from

IVIM_FAMILY = ("ivim", "ivimlebihan", "ivimsimple")


@pytest.mark.parametrize("organ", ORGANS)
def test_the_prior_holds_the_published_values(organ: str) -> None:
    """Every published mean lies within the central 99 % of the prior and within the bounds."""
    model = models.get("ivim", organ)
    for name, prior in priors_of(model, bounds_of(model)).items():
        low, high = prior.quantile([0.005, 0.995])
        published = [value for tissue in ORGANS[organ].tissues if (value := getattr(tissue, name)) is not None]
        assert all(low < value < high for value in published), (name, published, low, high)


def test_every_value_has_its_reference() -> None:
    known = set(bibliography.entries())
    for organ in ORGANS.values():
        assert organ.references
        assert set(organ.references) <= known


@pytest.mark.parametrize("name", IVIM_FAMILY)
@pytest.mark.parametrize("organ", ORGANS)
def test_starting_values_lie_inside_the_bounds(name: str, organ: str) -> None:
    model = models.get(name, organ)
    assert model.organ == organ
    assert model.expression == models.get(name).expression
    for parameter in model.parameters[1:]:
        assert parameter.bounds[0] <= min(parameter.start) < max(parameter.start) < parameter.bounds[1]
        assert list(parameter.start) == sorted(parameter.start)


def test_other_models_have_no_presets() -> None:
    assert models.get("smt2", "brain") is models.get("smt2")
    assert preset_facts(models.get("adc", "liver")) == {}
    with pytest.raises(UnknownNameError, match=r"'live'.*liver"):
        models.get("ivim", "live")


def test_organs_are_known_by_the_words_of_body_part() -> None:
    assert organ_of({"kidneys"}) == "kidney"
    assert organ_of({"head", "neck"}) == "brain"
    assert organ_of({"abdomen"}) == "general"
    words = [word for organ in ORGANS.values() for word in organ.words]
    assert len(words) == len(set(words))


def test_sidecars_tell_the_preset() -> None:
    facts = preset_facts(models.get("ivim", "liver"))
    assert facts["Organ"] == "liver"
    assert facts["OrganPreset"]["Priors"]["Dstar"] == "log-normal (95 % from 10 to 300) from 5 to 300"
    assert facts["OrganPreset"]["StartingValues"]["D"] == list(models.get("ivim", "liver")["D"].start)
    assert "wurnig2018" in facts["OrganPreset"]["References"]
    assert preset_facts(models.get("ivim"))["Organ"] == "general"


def test_draws_follow_the_priors() -> None:
    """Quantiles of the draws are those of the prior, and what was written can be read again."""
    model = models.get("ivim", "brain")
    drawn = Informed(ParameterSpace(model), priors_of(model, bounds_of(model)))
    again = distribution_from(drawn.facts, {}, models.get("ivim"))
    samples = again.sample(20_000, np.random.default_rng(0))
    np.testing.assert_array_equal(samples, drawn.sample(20_000, np.random.default_rng(0)))
    for j, prior in enumerate(drawn.priors.values()):
        share = [np.mean(samples[:, j] < value) for value in prior.quantile([0.1, 0.5, 0.9])]
        np.testing.assert_allclose(share, [0.1, 0.5, 0.9], atol=0.01)


def test_uniform_priors_are_the_uniform_distribution() -> None:
    model = models.get("smt3")
    space = ParameterSpace(model)
    drawn = Informed(space, priors_of(model, bounds_of(model))).sample(100, np.random.default_rng(1))
    np.testing.assert_array_equal(drawn, space.sample(100, np.random.default_rng(1)))


B_VALUES = [0, 0, 10, 20, 30, 40, 60, 80, 100, 150, 200, 300, 400, 500, 600, 800]


@pytest.mark.parametrize(("organ", "gain"), [("general", 0.65), ("brain", 0.65)])
def test_bounds_that_keep_the_exponentials_apart_help(organ: str, gain: float) -> None:
    """At SNR 30 the error of f of brain tissue falls against bounds that let D* come near D."""
    acquisition, rng = Acquisition(B_VALUES), np.random.default_rng(3)
    wide = LeastSquares(models.get("ivim"), bounds={"D": (0.0, 5.0), "Dstar": (3.0, 200.0)})
    clean = models.get("ivim").signal({"S0": 1.0, "f": 0.05, "D": 0.83, "Dstar": 20.0}, acquisition)
    noisy = clean + rng.normal(0, 1 / 30, (2000, len(B_VALUES)))

    def error(estimator: LeastSquares) -> float:
        return float(np.sqrt(np.mean((estimator.estimate(noisy, acquisition).parameters["f"] - 0.05) ** 2)))

    assert error(LeastSquares(models.get("ivim", organ))) < gain * error(wide)


def test_the_preset_of_an_organ_helps_its_tissue_most() -> None:
    """Root mean square error of D of the posterior mean: own preset, general one, that of another organ."""
    acquisition, rng = Acquisition(B_VALUES), np.random.default_rng(4)
    model = models.get("ivim", "brain")
    truth = np.column_stack(
        [np.ones(600), *(prior.sample(600, rng) for prior in priors_of(model, bounds_of(model)).values())]
    )
    noisy = model.signal(truth, acquisition) + rng.normal(0, 0.1, (600, len(B_VALUES)))
    errors = []
    for organ in ("brain", "general", "kidney"):
        estimator = Bayesian(models.get("ivim", organ), noise="gaussian")
        found = estimator.estimate(noisy, acquisition, 0.1).parameters["D"]
        errors.append(np.sqrt(np.mean((found - truth[:, 2]) ** 2)))
    assert errors[0] < errors[1]
    assert errors[0] < 0.9 * errors[2]
