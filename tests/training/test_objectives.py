"""Objectives: their values and gradients where these are known, and what they teach."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from bidsfit import Acquisition, companions, models
from bidsfit.models.space import ParameterSpace
from bidsfit.noise import rician_log_likelihood
from bidsfit.simulation.distributions import Uniform
from bidsfit.simulation.simulator import Noise, Simulation, Simulator
from bidsfit.trained.network import Network
from bidsfit.training.architectures import Perceptron
from bidsfit.training.inference import Inverter
from bidsfit.training.labels import labeller
from bidsfit.training.objectives import STATED, Directions, Parameters, Signals, sigmoid
from bidsfit.training.recipe import Recipe
from bidsfit.training.store import Store
from bidsfit.training.task import Task, train
from bidsfit.training.trainer import Schedule

torch = pytest.importorskip("torch")

IVIM = models.get("ivim")
SPACE = ParameterSpace(IVIM, {"f": (0.1, 0.5), "D": (0.5, 3.0), "Dstar": (10.0, 100.0)})
PROTOCOL = Acquisition([0, 10, 20, 40, 80, 150, 300, 500, 800])
NAMES = SPACE.names


def simulator(*, noise="gaussian", label=None, bound=True, **choices):
    simulation = Simulation(**choices)
    return Simulator(Uniform(SPACE), PROTOCOL, Noise(30.0, noise), simulation, label=label, bound=bound)


def drawn(made, n=40, seed=0):
    """A batch as tensors of 64 bits, and random outputs for it."""
    batch = made.draw(n, np.random.default_rng(seed)).map(lambda array: torch.tensor(array, dtype=torch.float64))
    outputs = torch.randn(*batch.features.shape[:2], 3, generator=torch.Generator().manual_seed(seed)).double()
    return batch, outputs


def errors_of(batch, outputs):
    return SPACE.from_cube(sigmoid(outputs.detach().numpy())) - batch.truth.numpy()[:, None]


class TestDirections:
    SPACE = ParameterSpace(models.get("dti"))

    def losses(self, angle, values=(1.7, 0.3, 0.3), weight=0.1):
        """Loss, and that of the elements alone, of a tensor along x that is estimated as turned by an angle about z."""
        c, s = np.cos(angle), np.sin(angle)
        turn = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])
        matrices = [np.diag(values), turn @ np.diag(values) @ turn.T]
        elements = [m[[0, 1, 2, 0, 0, 1], [0, 1, 2, 1, 2, 2]] for m in matrices]
        target, outputs = (torch.tensor(rows)[None, None] for rows in elements)
        low, span = torch.tensor(self.SPACE.bounds[:, 0]), torch.tensor(self.SPACE.span)
        outputs = ((outputs - low) / span).requires_grad_()
        batch = SimpleNamespace(targets=target, weights=torch.ones(1, 1, 1))
        made = Directions(output="linear", weight=weight).loss(outputs, batch, SimpleNamespace(space=self.SPACE))
        made.backward()
        assert torch.isfinite(outputs.grad).all()
        plain = Parameters(output="linear").loss(outputs, batch, SimpleNamespace(space=self.SPACE))
        return made.item(), plain.item()

    @pytest.mark.parametrize("angle", [0.0, 0.3, 1.2, np.pi / 2])
    def test_the_variance_is_the_squared_sine_times_the_anisotropy(self, angle):
        both, plain = self.losses(angle, weight=2.0)
        fa = 1.4 / np.sqrt(1.7**2 + 2 * 0.3**2)
        assert both - plain == pytest.approx(2 * fa * np.sin(angle) ** 2, abs=1e-5)

    def test_isotropic_tensors_do_not_count_and_have_a_gradient(self):
        both, plain = self.losses(0.7, (0.8, 0.8, 0.8))
        assert both == pytest.approx(plain, abs=1e-9)

    def test_models_without_a_tensor_are_refused(self):
        with pytest.raises(ValueError, match="needs a diffusion tensor, which 'ivim' has not"):
            Directions().n_outputs(SPACE)


class TestParameters:
    def test_errors_relative_to_the_bound_are_those_of_an_efficient_estimator(self):
        """An unbiased estimator at the bound has a loss of 1."""
        batch, _ = drawn(simulator(), 4000)
        estimates = batch.truth + batch.bound * torch.randn(4000, 3, generator=torch.Generator().manual_seed(1))
        linear = (estimates - torch.tensor(SPACE.bounds[:, 0])) / torch.tensor(SPACE.span)
        loss = Parameters(scale="bound", output="linear").loss(linear[:, None], batch, simulator())
        assert float(loss) == pytest.approx(1, abs=0.04)

    def test_what_the_signal_does_not_determine_has_no_weight(self):
        """Where f is 0, D* is not determined: its error does not count, those of f and D do."""
        made = Simulator(Uniform(ParameterSpace(IVIM)), PROTOCOL, Noise(30.0), bound=True)
        bound = made.bounds(np.array([[0.0, 1.0, 20.0]]), np.array([1 / 30]))
        assert np.isinf(bound[0, NAMES.index("Dstar")])
        batch, outputs = drawn(simulator(), 1)
        outputs.requires_grad_()
        loss = Parameters(scale="bound").loss(outputs, replace(batch, bound=torch.tensor(bound)), simulator())
        loss.backward()
        assert np.isfinite(loss.item())
        assert [float(slope) == 0 for slope in outputs.grad[0, 0]] == [name == "Dstar" for name in NAMES]

    @pytest.mark.parametrize("scale", ["range", "mean", "bound"])
    def test_bias_and_variance_make_the_mean_squared_error(self, scale):
        """Squared bias, corrected for the number of realisations, plus variance: exactly the mean squared error."""
        batch, outputs = drawn(simulator(realisations=5))
        both = Parameters(scale=scale, form="wbce", balance=1.0).loss(outputs, batch, simulator())
        assert float(both) == pytest.approx(float(Parameters(scale=scale).loss(outputs, batch, simulator())), rel=1e-9)

    @pytest.mark.parametrize(("form", "balance"), [("wbce", 0.1), ("wvce", 0.1), ("wvce", 2.0)])
    def test_the_forms_are_those_of_the_reference(self, form, balance):
        batch, outputs = drawn(simulator(realisations=6))
        errors = errors_of(batch, outputs) / batch.bound.numpy()[:, None]
        variance = errors.var(axis=1, ddof=1)
        penalty = variance if form == "wbce" else np.maximum(variance - 0.5, 0)
        expected = np.mean(errors.mean(axis=1) ** 2 - variance / 6 + balance * penalty)
        objective = Parameters(scale="bound", form=form, balance=balance, allowance=0.5 if form == "wvce" else None)
        assert float(objective.loss(outputs, batch, simulator())) == pytest.approx(expected, rel=1e-9)

    def test_the_bias_of_few_realisations_is_that_of_many(self):
        """Estimates that scatter around the truth have no bias, however few realisations show it."""
        made = simulator(realisations=3)
        batch, _ = drawn(made, 20_000)
        noise = torch.randn(20_000, 3, 3, generator=torch.Generator().manual_seed(1))
        linear = (batch.targets - torch.tensor(SPACE.bounds[:, 0])) / torch.tensor(SPACE.span) + noise
        loss = Parameters(form="wvce", balance=1e-9, output="linear").loss(linear, batch, made)
        assert float(loss) == pytest.approx(0, abs=0.01)  # 1/3 without the correction

    def test_scales_single_parameters_and_absolute_errors(self):
        batch, outputs = drawn(simulator())
        errors = errors_of(batch, outputs)
        middle = SPACE.bounds.mean(axis=1)
        for objective, expected in (
            (Parameters(scale="mean"), np.mean((errors / middle) ** 2)),
            (Parameters(error="absolute"), np.mean(np.abs(errors / SPACE.span))),
            (Parameters(only="D"), np.mean((errors / SPACE.span)[..., NAMES.index("D")] ** 2) / 3),
        ):
            assert float(objective.loss(outputs, batch, simulator())) == pytest.approx(expected, rel=1e-9)
        with pytest.raises(ValueError, match="names the parameter 'T2'"):
            Parameters(only="T2").n_outputs(SPACE)

    def test_a_stated_spread_is_best_where_it_is_the_error(self):
        """The derivative with respect to the stated spread is 0 where it equals the error."""
        batch, outputs = drawn(simulator(), 30)
        objective = Parameters(error="stated")
        relative = np.abs(errors_of(batch, outputs) / SPACE.span).clip(np.exp(-STATED) * 1.1, 0.99)
        share = -np.log(relative) / STATED
        second = torch.tensor(np.log(share / (1 - share)), requires_grad=True)
        objective.loss(torch.cat([outputs.detach(), second], dim=-1), batch, simulator()).backward()
        usual = np.abs(errors_of(batch, outputs) / SPACE.span) == relative
        assert usual.mean() > 0.9
        np.testing.assert_allclose(second.grad.numpy()[usual], 0, atol=1e-12)
        both = np.concatenate([outputs.detach().numpy(), second.detach().numpy()], axis=-1)[:, 0]
        np.testing.assert_allclose(objective.spread(both, SPACE) / SPACE.span, relative[:, 0], rtol=1e-6)

    @pytest.mark.parametrize(
        ("choices", "message"),
        [
            ({"form": "wvce", "error": "absolute"}, "of squared errors"),
            ({"balance": 2.0}, "needs a form"),
            ({"form": "wbce", "allowance": 2.0}, "allowance the form wvce"),
            ({"error": "stated", "scale": "bound"}, "depends on the truth"),
            ({"output": "linear", "widening": 0.3}, "widening is for sigmoids"),
        ],
    )
    def test_choices_that_contradict_each_other(self, choices, message):
        with pytest.raises(ValueError, match=message):
            Parameters(**choices)

    def test_a_bound_needs_noise(self):
        with pytest.raises(ValueError, match="need noise"):
            Simulator(Uniform(SPACE), PROTOCOL, Noise(np.inf), bound=True)


class TestOutputs:
    OUTPUTS = np.random.default_rng(0).normal(0, 3, (50, 3))

    def test_what_outputs_mean(self):
        low, span = SPACE.bounds[:, 0], SPACE.span
        for objective, expected in (
            (Parameters(), low + span * sigmoid(self.OUTPUTS)),
            (Parameters(widening=0.3), low + span * (1.6 * sigmoid(self.OUTPUTS) - 0.3)),
            (Parameters(output="hard-sigmoid"), low + span * np.clip((self.OUTPUTS + 3) / 6, 0, 1)),
            (Parameters(output="absolute"), span * np.abs(self.OUTPUTS)),
            (Parameters(output="linear"), low + span * self.OUTPUTS),
        ):
            cube, found = objective.estimates(self.OUTPUTS, SPACE)
            np.testing.assert_allclose(found, expected, rtol=1e-12)
            np.testing.assert_allclose(cube, SPACE.to_cube(expected), rtol=1e-9, atol=1e-12)

    @pytest.mark.parametrize("output", ["sigmoid", "hard-sigmoid", "absolute", "linear"])
    def test_tensors_and_arrays_give_the_same(self, output):
        space = ParameterSpace(models.get("smt3"))  # with a constraint
        objective = Parameters(output=output)
        found = objective.parameters(torch.tensor(self.OUTPUTS), space).numpy()
        np.testing.assert_allclose(found, objective.parameters(self.OUTPUTS, space), rtol=1e-12)


class TestSignals:
    def exact(self, made, batch):
        """Outputs whose estimates are the truth."""
        cube = SPACE.to_cube(batch.truth.numpy())[:, None]
        return torch.tensor(np.log(cube / (1 - cube)))

    def test_complex_signals_have_no_rician_likelihood(self):
        space = ParameterSpace(models.get("mrffisp"))
        with pytest.raises(ValueError, match="the signals of the model 'mrffisp' are complex"):
            Signals(error="rician").n_outputs(space)
        assert Signals(error="squared").n_outputs(space) == len(space.names)

    @pytest.mark.parametrize("error", ["squared", "absolute"])
    def test_there_is_no_misfit_of_the_truth_without_noise(self, error):
        batch, outputs = drawn(simulator())
        clean = replace(batch, noisy=batch.clean[:, None] * 3)  # S0 follows by least squares
        objective = Signals(error=error)
        assert float(objective.loss(self.exact(simulator(), clean), clean, simulator())) == pytest.approx(0, abs=1e-12)
        assert float(objective.loss(outputs, clean, simulator())) > 1e-3

    def test_a_parameter_that_bounds_hold_keeps_its_value(self):
        """D* is held at 40: of signals with that D*, the other parameters alone explain everything."""
        space = ParameterSpace(IVIM, {"Dstar": (40.0, 40.0)})
        truth = space.sample(50, np.random.default_rng(0))
        made = Simulator(Uniform(space), PROTOCOL, Noise(np.inf))
        clean = IVIM.signal({"S0": 1.0, "f": truth[:, 0], "D": truth[:, 1], "Dstar": 40.0}, PROTOCOL)
        batch = made.draw(50, np.random.default_rng(0)).map(lambda array: torch.tensor(array, dtype=torch.float64))
        batch = replace(batch, noisy=torch.tensor(clean)[:, None])
        cube = space.to_cube(truth)[:, None]
        outputs = torch.tensor(np.log(cube / (1 - cube)))
        assert float(Signals().loss(outputs, batch, made)) == pytest.approx(0, abs=1e-12)

    def test_the_rician_misfit_is_the_likelihood(self):
        """Differences between estimates are those of the logarithm of the density."""
        made = simulator(noise="rician")
        batch, outputs = drawn(made)
        other = outputs.detach() + 0.5

        def likelihood(values):
            parameters = SPACE.with_scale(SPACE.from_cube(sigmoid(values.detach().numpy()[:, 0])))
            signal, y = IVIM.signal(parameters, PROTOCOL), batch.noisy[:, 0].numpy()
            signal *= ((y * signal).sum(1) / (signal**2).sum(1))[:, None]
            return rician_log_likelihood(y, signal, 1 / 30).mean()

        found = [float(Signals(error="rician").loss(values, batch, made)) for values in (outputs, other)]
        assert found[0] - found[1] == pytest.approx(likelihood(other) - likelihood(outputs), rel=1e-6)

    def test_it_teaches_parameters_without_seeing_them(self):
        """The network learns to fit: its estimates follow the truth, which no loss ever showed it."""
        made = Simulator(Uniform(SPACE), PROTOCOL, Noise(200.0))
        schedule = Schedule(steps=150, batch=256, validation=512, checks=5, peak_rate=1e-2)
        recipe = Recipe(Perceptron(24, 2), Signals(), schedule)
        found = recipe.architecture.fit(recipe.objective, schedule, made, seed=0)
        rng = np.random.default_rng(5)
        truth = SPACE.sample(1000, rng)
        estimates = Inverter(recipe, found.machine, SPACE, PROTOCOL)(made.measure(truth, rng)).parameters[:, 1:]
        for name in ("f", "D"):
            j = NAMES.index(name)
            assert np.corrcoef(estimates[:, j], truth[:, j])[0, 1] > 0.9


class TestLabels:
    def made(self, **choices):
        choices |= {"samples": 60, "set_noise": "fixed", "realisations": 2}
        return simulator(noise="rician", label=labeller(Simulation(**choices), SPACE, PROTOCOL), **choices)

    def test_labels_are_fits_of_each_realisation_and_those_at_a_bound_have_no_weight(self):
        made = self.made(labels="mle-gaussian")
        batch = made.draw(60, np.random.default_rng(0))
        assert batch.targets.shape == (60, 2, 3)
        used = batch.weights[..., 0] == 1
        assert 0.2 < used.mean() < 1
        relative = (batch.targets - SPACE.bounds[:, 0]) / SPACE.span
        assert np.all((relative[used] > 0) & (relative[used] < 1))
        predicted = IVIM.signal(SPACE.with_scale(batch.targets[used]), PROTOCOL)
        y = batch.noisy[used]
        rest = [
            y - s * ((y * s).sum(1) / (s**2).sum(1))[:, None]
            for s in (predicted, np.repeat(batch.clean, 2, 0)[used.ravel()])
        ]
        assert np.all((rest[0] ** 2).sum(axis=1) <= (rest[1] ** 2).sum(axis=1) + 1e-9)  # no worse than the truth

    def test_rician_and_gaussian_labels_differ(self):
        first, second = (
            self.made(labels=kind).draw(60, np.random.default_rng(0)) for kind in ("mle-rician", "mle-gaussian")
        )
        both = (first.weights * second.weights)[..., 0] == 1
        assert np.abs(first.targets - second.targets)[both].max() > 0.01

    def test_bounds_of_labels_may_be_wider_than_those_of_the_training(self):
        """So that fits of what is true near a bound are kept on both sides of it."""
        wide = {"f": (0.01, 0.9), "D": (0.01, 4.0), "Dstar": (2.0, 300.0)}
        narrow, wider = (
            self.made(labels="mle-rician", label_bounds=bounds).draw(60, np.random.default_rng(0))
            for bounds in (None, wide)
        )
        assert wider.weights.mean() > narrow.weights.mean() + 0.1
        outside = np.any((wider.targets < SPACE.bounds[:, 0]) | (wider.targets > SPACE.bounds[:, 1]), axis=-1)
        assert 0.05 < outside.mean() < 1
        with pytest.raises(ValueError, match="needs labels"):
            Simulation(label_bounds=wide)

    def test_a_share_of_labels_is_a_share_of_both_losses(self):
        """The gradient is that of the mixture of the squared errors from labels and from the truth."""
        hybrid, labels = (
            drawn(self.made(labels="mle-gaussian", **choices))[0] for choices in ({"label_share": 0.3}, {})
        )
        outputs = drawn(self.made(labels="mle-gaussian"))[1].requires_grad_()
        truth = replace(labels, targets=labels.truth[:, None])
        gradients = []
        for batch in (hybrid, labels, truth):
            outputs.grad = None
            Parameters().loss(outputs, batch, simulator()).backward()
            gradients.append(outputs.grad.clone())
        torch.testing.assert_close(gradients[0], 0.3 * gradients[1] + 0.7 * gradients[2])

    @pytest.mark.parametrize(
        ("choices", "message"),
        [
            ({"labels": "mle-rician"}, "set_noise: fixed"),
            ({"labels": "mle-rician", "samples": 10}, "set_noise: fixed"),
            ({"label_share": 0.5}, "needs labels"),
        ],
    )
    def test_choices_that_cannot_be(self, choices, message):
        with pytest.raises(ValueError, match=message):
            Simulation(**choices)


def test_a_stated_spread_is_the_standard_deviation_of_the_estimator():
    """It stands beside the maps, and is as large as the errors."""
    smt2 = models.get("smt2")
    shells = Acquisition([0, 1000, 2000, 3500, 5000], counts=[8, 32, 32, 32, 32], n_directions=[1, 32, 32, 32, 32])
    schedule = Schedule(steps=400, batch=512, validation=1024, checks=5, peak_rate=1e-2)
    task = Task(
        Uniform(ParameterSpace(smt2)),
        shells,
        Noise(25.0),
        Recipe(Perceptron(24, 2), Parameters(error="stated"), schedule),
    )
    network = Network(smt2, distribution="uniform", snr=25.0, trained=train(task))
    assert network.statistics == ("sd",)
    rng = np.random.default_rng(1)
    truth = task.distribution.sample(4000, rng)
    found = network.estimate(task.simulator.measure(truth, rng), shells, 0.04)
    stated = companions(network, found, 0.04)["sd"]
    for j, name in enumerate(task.distribution.space.names):
        scores = (found.parameters[name] - truth[:, j]) / stated[name]
        assert np.sqrt(np.mean(scores**2)) == pytest.approx(1, abs=0.2)
        assert stated[name].std() > 0.1 * stated[name].mean()


@pytest.mark.slow
def test_less_bias_at_the_same_cost():
    """From the same network, with as many evaluations of it: Bias-Reduced has less bias than MSE-CRB (Mao et al.)."""
    made, schedule = simulator(), Schedule(optimiser="radam", steps=800, batch=512, validation=512, checks=4)
    network, objective = Perceptron(16, 2, activation="elu"), Parameters(scale="bound", widening=0.3)
    start = network.fit(objective, schedule, made, seed=0)
    constant = Schedule(optimiser="radam", rate="constant", peak_rate=1e-3, steps=300, validation=64, checks=1)
    errors = {}
    truth = SPACE.sample(200, np.random.default_rng(7))
    signals = made.measure(truth, np.random.default_rng(8), repeats=50)
    bound = made.bounds(truth, np.full(200, 1 / 30))
    for form, realisations in ((None, 1), ("wvce", 32)):
        goal = replace(objective, form=form, **({} if form is None else {"balance": 0.1}))
        went_on = replace(constant, batch=2048 // realisations)
        found = network.fit(goal, went_on, simulator(realisations=realisations), seed=1, start=start.states)
        recipe = Recipe(network, goal, went_on)
        estimates = Inverter(recipe, found.machine, SPACE, PROTOCOL)(signals).parameters[:, 1:].reshape(200, 50, 3)
        bias = (estimates.mean(axis=1) - truth) ** 2 - estimates.var(axis=1, ddof=1) / 50
        errors[form] = np.mean(bias / bound**2, axis=0)
    assert np.all(errors["wvce"] < errors[None])


class TestS0:
    """S0 as an output, of networks that see signals in units of the noise or relative to that at b = 0."""

    @staticmethod
    def told(batch, s0, off=0.0):
        """Outputs, for the output "linear", that tell the truth, and S0 in the unit of the features but for ``off``."""
        parameters = (batch.truth - torch.tensor(SPACE.bounds[:, 0])) / torch.tensor(SPACE.span)
        scale = (batch.s0[:, None] / batch.unit + off) / s0
        return torch.cat([parameters[:, None].expand(*scale.shape, -1), scale[..., None]], dim=-1)

    @pytest.mark.parametrize("unit", [None, "noise"])
    def test_its_error_counts_beside_those_of_the_parameters(self, unit):
        """Relative to its largest value: an error of 3 of 60 in one of four quantities."""
        made = simulator(unit=unit, s0_range=(0.5, 2.0), bound=False)
        batch, _ = drawn(made)
        objective = Parameters(output="linear", s0=60.0)
        assert float(objective.loss(self.told(batch, 60.0), batch, made)) == pytest.approx(0, abs=1e-12)
        loss = objective.loss(self.told(batch, 60.0, off=3.0), batch, made)
        assert float(loss) == pytest.approx((3 / 60) ** 2 / 4, rel=1e-6)
        mean = replace(objective, scale="mean").loss(self.told(batch, 60.0, off=3.0), batch, made)
        assert float(mean) == pytest.approx((3 / 30) ** 2 / 4, rel=1e-6)
        only = replace(objective, only="D").loss(self.told(batch, 60.0, off=3.0), batch, made)
        assert float(only) == pytest.approx(0, abs=1e-12)

    @pytest.mark.parametrize("unit", [None, "noise"])
    def test_signals_are_predicted_with_it(self, unit):
        """At the truth the misfit is the noise: relative to S0, or in the unit of the features."""
        made = simulator(unit=unit, s0_range=(0.5, 2.0), bound=False)
        batch, _ = drawn(made)
        loss = Signals(output="linear", s0=60.0).loss(self.told(batch, 60.0), batch, made)
        noise = (batch.noisy - batch.clean[:, None]) / (batch.s0 if unit is None else batch.sigma)[:, None, None]
        assert float(loss) == pytest.approx(float((noise**2).mean()), rel=1e-6)

    def test_a_network_tells_it_in_the_unit_of_the_image(self, tmp_path):
        """S0 of 50 to 150 with noise of 2 is found within the noise; an image in other units gives it in those."""
        acquisition, model = Acquisition([0, 0, 500, 1000]), models.get("adc")
        recipe = {
            "simulation": {"unit": "noise", "snr_range": [20, 100], "snr_spacing": "uniform"},
            "architecture": {"name": "perceptron", "units": 24},
            "objective": {"name": "parameters", "s0": 120},
            "schedule": {"steps": 600, "batch": 512, "peak_rate": 0.01, "validation": 1024, "checks": 3},
        }
        plan = Network(model, recipe=recipe, snr=50.0)
        assert plan.needs_noise
        task = plan.task(plan.averaged(acquisition), 50.0)
        network = Network(model, recipe=recipe, snr=50.0, trained=Store(tmp_path).obtain(task, "own"))
        rng = np.random.default_rng(0)
        s0, adc = rng.uniform(50, 150, 2000), rng.uniform(0.5, 2, 2000)
        signals = s0[:, None] * np.exp(-np.array([0, 0, 0.5, 1]) * adc[:, None]) + 2 * rng.standard_normal((2000, 4))
        found = network.estimate(signals, acquisition, 2.0)
        assert np.sqrt(np.mean((found.parameters["S0"] - s0) ** 2)) < 1.5 * 2 / np.sqrt(2)
        assert np.sqrt(np.mean((found.parameters["D"] - adc) ** 2)) < 0.1
        larger = network.estimate(1000 * signals, acquisition, 2000.0)
        np.testing.assert_allclose(larger.parameters["S0"], 1000 * found.parameters["S0"], rtol=1e-5)
        with pytest.raises(ValueError, match="needs the standard deviation of the noise"):
            network.estimate(signals, acquisition)
        assert "Signals are in units of the standard deviation of the noise; S0 is an output" in network.methods

    @pytest.mark.parametrize("choices", [{"error": "stated"}, {"scale": "bound"}])
    def test_what_does_not_go_with_it_is_refused(self, choices):
        with pytest.raises(ValueError, match=r"With an output of S0 \(s0\) errors are neither"):
            Parameters(s0=2.0, **choices)

    def test_a_model_without_s0_has_none(self):
        space = SimpleNamespace(names=("D",), model=SimpleNamespace(name="ratio", scale=None))
        with pytest.raises(ValueError, match="the model 'ratio' has none"):
            Signals(s0=2.0).n_outputs(space)
