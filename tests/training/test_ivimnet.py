"""IVIM-NET: the networks are those of the paper, and learn."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from bidsfit import Acquisition, estimators, models
from bidsfit.models.space import ParameterSpace
from bidsfit.simulation.distributions import Uniform
from bidsfit.simulation.simulator import Features, Noise, Simulation, Simulator
from bidsfit.training.inference import Inverter
from bidsfit.training.objectives import Parameters, Signals
from bidsfit.training.recipe import Recipe, load_recipe
from bidsfit.training.trainer import Schedule

torch = pytest.importorskip("torch")

IVIM = models.get("ivim")
PROTOCOL = Acquisition([0, 5, 10, 20, 30, 40, 60, 150, 300, 500, 700])
SPACE = ParameterSpace(IVIM, {"f": (0.05, 0.55), "D": (0.5, 3.0), "Dstar": (10.0, 100.0)})
OPTIM, ORIG = load_recipe("ivimnet-optim"), load_recipe("ivimnet-orig")
#: What the networks learn from in the paper's simulations.
SIMULATED = Simulation(unit="reference", samples=5000, set_noise="fixed")


def simulator(recipe=OPTIM, snr=50.0):
    return Simulator(Uniform(SPACE), PROTOCOL, Noise(snr), recipe.simulation)


def on_simulations(recipe, **schedule):
    return replace(recipe, simulation=SIMULATED, schedule=replace(recipe.schedule, **schedule))


def module(recipe):
    inputs = len(Features(IVIM, PROTOCOL, recipe.simulation.unit))
    return recipe.architecture.module(inputs, recipe.objective.n_outputs(SPACE))


def layers(net):
    return [(type(one).__name__, getattr(one, "out_features", None)) for one in net]


def test_the_networks_are_those_of_the_paper():
    """Widths are the 11 b-values; a bias before a batch normalisation, which would take it out, is left out."""
    side_by_side = [("Linear", 4 * 11), ("BatchNorm1d", None), ("ELU", None)]
    optim, orig = module(OPTIM), module(ORIG)
    assert layers(optim) == [*side_by_side, ("Dropout", None), ("Blocks", None), *side_by_side[1:], ("Blocks", None)]
    assert layers(orig) == [("Linear", 11), ("ELU", None)] * 3 + [("Linear", 3)]
    assert {one.p for one in optim.modules() if isinstance(one, torch.nn.Dropout)} == {0.1}
    assert [sum(weights.numel() for weights in net.parameters()) for net in (optim, orig)] == [
        4 * (2 * (11 * 11 + 2 * 11) + 11 + 1),
        3 * (11 * 11 + 11) + 3 * (11 + 1),
    ]


def test_the_schedules_are_those_of_the_paper():
    shared = {"weight_decay": 1e-4, "rate": "constant", "batch": 128, "patience": 10, "keep": "last"}
    for recipe, rate in ((OPTIM, 3e-5), (ORIG, 1e-3)):
        schedule = recipe.schedule
        assert schedule.peak_rate == rate
        assert {name: getattr(schedule, name) for name in shared} == shared
        assert (schedule.steps, schedule.steps / schedule.checks, schedule.optimiser) == (500_000, 500, "adam")


@pytest.mark.parametrize(("logit", "end"), [(-40.0, 0), (40.0, 1)])
def test_bounds_are_widened_and_f_is_a_share_of_the_amplitudes(logit, end):
    """The ends of the sigmoids are 30 % of the width of the bounds outside of these."""
    parameters, s0 = (
        of(np.full((1, 4), logit), SPACE)[0] for of in (OPTIM.objective.parameters, OPTIM.objective.scale_of)
    )
    blood, rest = (-0.21, 0.91)[end], (-0.6, 2.6)[end]
    assert parameters == pytest.approx([blood / (blood + rest), (-1.5, 6.5)[end], (-53.5, 258.5)[end]])
    assert s0 == pytest.approx(blood + rest)


def test_outputs_of_orig_are_positive_and_in_mm2_per_s():
    found = ORIG.objective.parameters(np.array([[-0.2, 0.001, -0.05]]), SPACE)
    np.testing.assert_allclose(found, [[0.2, 1.0, 50.0]])
    assert ORIG.objective.scale_of(np.array([[-0.2, 0.001, -0.05]]), SPACE) == [1.0]


def test_parameters_in_the_wrong_order_are_exchanged_and_explain_the_same_signal():
    outputs = np.array([[0.2, 0.001, 0.05], [0.3, 0.04, 0.002]])
    _, found = ORIG.objective.estimates(outputs, SPACE)
    np.testing.assert_allclose(found, [[0.2, 1.0, 50.0], [0.7, 2.0, 40.0]])
    signals = [
        IVIM.signal(SPACE.with_scale(each), PROTOCOL) for each in (found, ORIG.objective.parameters(outputs, SPACE))
    ]
    np.testing.assert_allclose(*signals)


def test_the_loss_is_that_of_signals_relative_to_the_lowest_b_value():
    """Of any outputs it is the mean square of the difference to the two exponentials, cut off at 0 and 3."""
    made = simulator(on_simulations(OPTIM))
    batch = made.draw(40, np.random.default_rng(0)).map(lambda array: torch.tensor(array, dtype=torch.float64))
    outputs = 3 * torch.randn(40, 1, 4, generator=torch.Generator().manual_seed(0)).double()
    low, high = np.array([-0.21, -1.5, -53.5, -0.6]), np.array([0.91, 6.5, 258.5, 2.6])
    blood, slow, fast, rest = (low + (high - low) / (1 + np.exp(-outputs[:, 0].numpy()))).T[..., None]
    b = PROTOCOL.b_values / 1000
    predicted = blood * np.exp(-b * fast) + rest * np.exp(-b * slow)
    assert predicted.max() > 3
    assert predicted.min() < 0
    seen = batch.noisy[:, 0].numpy()
    expected = np.mean((np.clip(predicted, 0, 3) - seen / seen[:, :1]) ** 2)
    assert float(OPTIM.objective.loss(outputs, batch, made)) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(("recipe", "steps", "rate"), [(OPTIM, 150, 0.01), (ORIG, 400, 0.001)], ids=["optim", "orig"])
def test_they_learn(recipe, steps, rate):
    """In few steps the misfit falls, D and f follow the truth, and S0 is in the unit of the image."""
    recipe = on_simulations(recipe, steps=steps, checks=8, validation=500, peak_rate=rate)
    made = simulator(recipe)
    trained = recipe.architecture.fit(recipe.objective, recipe.schedule, made, seed=0)
    assert trained.curve[-1, 2] < min(0.3 * trained.curve[0, 2], 0.01)
    assert not trained.states[0].centre.any()  # features are as they are
    rng = np.random.default_rng(5)
    truth = SPACE.sample(1000, rng)
    found = Inverter(recipe, trained.machine, SPACE, PROTOCOL)(7 * made.measure(truth, rng)).parameters
    for j, name in enumerate(IVIM.names[1:3]):
        assert np.corrcoef(found[:, 1 + j], truth[:, j])[0, 1] > 0.5, name
    assert np.median(found[:, 0]) == pytest.approx(7, rel=0.1)


def test_s0_as_measured_is_the_signal_of_the_lowest_b_value():
    machine = ORIG.architecture.folded(ORIG.architecture.arrays(module(ORIG)), np.zeros(11), np.ones(11))
    signals = np.random.default_rng(0).uniform(50, 100, (20, 11))
    found = Inverter(ORIG, machine, SPACE, PROTOCOL)(signals)
    np.testing.assert_allclose(found.parameters[:, 0], signals[:, 0], rtol=1e-6)
    predicted = IVIM.signal(found.parameters, PROTOCOL)
    np.testing.assert_allclose(found.squares, ((signals - predicted) ** 2).sum(axis=1), rtol=1e-6)


def test_what_does_not_go_together_is_refused():
    with pytest.raises(ValueError, match="which must be an output"):
        Signals(amplitude="f")
    with pytest.raises(ValueError, match="no error to learn from"):
        Parameters(s0="measured")
    with pytest.raises(ValueError, match="names 'f'; the model 'adc' has S0, D"):
        estimators.get("ivimnet-optim")(models.get("adc"))
    with pytest.raises(ValueError, match="unit: noise takes the noise"):
        Recipe(ORIG.architecture, ORIG.objective, Schedule(), Simulation(unit="noise"))
