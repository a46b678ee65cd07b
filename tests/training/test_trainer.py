"""Training: the seed decides, the best weights are kept, and something is learnt."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from bidsfit import Acquisition, models
from bidsfit.exceptions import UsageError
from bidsfit.models.space import ParameterSpace
from bidsfit.simulation.distributions import Uniform
from bidsfit.simulation.simulator import Noise, Simulation, Simulator
from bidsfit.training.architectures import Perceptron
from bidsfit.training.forest import Growth, RandomForest
from bidsfit.training.inference import Inverter
from bidsfit.training.objectives import CLIP, Logits, Parameters, Relative, sigmoid
from bidsfit.training.recipe import Recipe
from bidsfit.training.trainer import Schedule, _rate, converged, descend, member_seeds

SPACE = ParameterSpace(models.get("smt2"))
SHELLS = Acquisition([0, 1000, 2000, 3500, 5000], counts=[8, 32, 32, 32, 32], n_directions=[1, 32, 32, 32, 32])
NETWORK = Recipe(
    Perceptron(units=24, hidden_layers=2),
    Parameters(),
    Schedule(steps=80, batch=256, peak_rate=1e-2, validation=2048, checks=8),
)
FOREST = Recipe(
    RandomForest(trees=5, samples_per_leaf=10), Relative(), Growth(validation=2048), Simulation(samples=4096)
)
SIMULATOR = Simulator(Uniform(SPACE), SHELLS, Noise(25.0))
#: Variance of the uniform prior relative to its bounds: the loss of an estimator that always tells its mean.
IGNORANT = 1 / 12


def fitted(recipe, seed=0, **options):
    simulator = Simulator(Uniform(SPACE), SHELLS, Noise(25.0), recipe.simulation)
    return recipe.architecture.fit(recipe.objective, recipe.schedule, simulator, seed=seed, **options)


def grown(**choices):
    """The forest with other choices."""
    return replace(FOREST, architecture=replace(FOREST.architecture, **choices))


def scheduled(recipe, **choices):
    """A recipe with another schedule."""
    return replace(recipe, schedule=replace(recipe.schedule, **choices))


def held_out(recipe, seed, simulator=SIMULATOR):
    """The validation set: the second stream of the seed draws it."""
    batch = simulator.draw(recipe.schedule.validation, np.random.default_rng(np.random.SeedSequence(seed).spawn(2)[1]))
    return batch.truth, batch.features[:, 0]


def predicted(machine, features):
    return SPACE.from_cube(sigmoid(NETWORK.architecture.forward(machine, features)))


def same(first, second):
    return first.keys() == second.keys() and all(np.array_equal(first[name], second[name]) for name in first)


@pytest.fixture(scope="module")
def trained():
    return fitted(NETWORK, seed=0)


class TestNetwork:
    def test_the_seed_decides(self, trained):
        np.random.default_rng().random()
        again = fitted(NETWORK, seed=0)
        assert same(trained.machine, again.machine)
        np.testing.assert_array_equal(trained.curve, again.curve)
        other = fitted(scheduled(NETWORK, steps=8), seed=1)
        first = fitted(scheduled(NETWORK, steps=8), seed=0)
        assert other.curve[0, 2] != first.curve[0, 2]

    def test_the_state_of_torch_is_left_alone(self):
        torch = pytest.importorskip("torch")
        torch.manual_seed(7)
        expected = torch.rand(3)
        torch.manual_seed(7)
        threads = torch.get_num_threads()
        first = fitted(scheduled(NETWORK, steps=8), seed=0, threads=2)
        assert torch.equal(torch.rand(3), expected)
        assert torch.get_num_threads() == threads
        torch.manual_seed(8)  # which does not matter
        assert same(first.machine, fitted(scheduled(NETWORK, steps=8), seed=0, threads=2).machine)

    def test_it_learns(self, trained):
        steps, training, validation = trained.curve.T
        assert steps.tolist() == list(range(10, 81, 10))
        assert validation[-1] < IGNORANT / 4
        assert training[-1] == pytest.approx(validation[-1], rel=0.3)
        truth, features = held_out(NETWORK, 0)
        for estimate, known in zip(predicted(trained.machine, features).T, truth.T, strict=True):
            assert np.corrcoef(estimate, known)[0, 1] > 0.8

    @pytest.mark.parametrize(
        "recipe", [NETWORK, scheduled(NETWORK, steps=60, peak_rate=3.0, checks=60)], ids=["calm", "wild"]
    )
    def test_the_best_weights_are_kept(self, recipe):
        """Also where the training grows worse on its way."""
        found = fitted(recipe, seed=3)
        steps, _, validation = found.curve.T
        best = validation.argmin()
        assert found.facts["BestStep"] == steps[best]
        assert found.facts["ValidationLoss"] == validation[best]
        truth, features = held_out(recipe, 3)
        loss = np.mean(((predicted(found.machine, features) - truth) / SPACE.span) ** 2)
        assert loss == pytest.approx(validation[best], rel=1e-4)
        if recipe is not NETWORK:
            assert steps[best] < recipe.schedule.steps
            assert validation[-1] > validation[best]

    def test_the_loss_of_logits(self):
        recipe = replace(NETWORK, objective=Logits())
        found = fitted(recipe, seed=0)
        truth, features = held_out(recipe, 0)
        cube = np.clip(SPACE.to_cube(truth), CLIP, 1 - CLIP)
        logits = np.log(cube / (1 - cube))
        loss = np.mean((NETWORK.architecture.forward(found.machine, features) - logits) ** 2)
        assert loss == pytest.approx(found.facts["ValidationLoss"], rel=1e-3)
        assert loss < 0.7 * logits.var(axis=0).mean()

    def test_units_are_those_that_are_left(self, trained):
        sizes = [trained.machine[f"{i}.bias"].size for i in range(2)]
        assert trained.facts["Units"] == sizes
        assert all(0 < size <= 24 for size in sizes)

    def test_progress(self):
        seen = []
        fitted(scheduled(NETWORK, steps=10, checks=5), seed=0, progress=seen.append)
        assert seen == [0.2, 0.4, 0.6, 0.8, 1.0]

    def test_steps_that_no_check_divides_end_with_one(self):
        found = fitted(scheduled(NETWORK, steps=25, checks=4), seed=0)
        assert found.curve[:, 0].tolist() == [6, 12, 18, 24, 25]

    @pytest.mark.parametrize("device", ["cuda:99", "quantum"])
    def test_an_unknown_device_is_refused(self, device):
        with pytest.raises(UsageError, match=f"--device {device} cannot be used"):
            fitted(NETWORK, seed=0, device=device)

    def test_a_training_that_diverges_says_so(self):
        with pytest.raises(ValueError, match="diverged"):
            fitted(replace(scheduled(NETWORK, peak_rate=1e30, steps=20), objective=Logits()), seed=0)


@pytest.mark.parametrize(
    ("losses", "expected"),
    [
        (np.r_[np.linspace(1, 0.1, 60), np.full(40, 0.1)], True),
        (np.linspace(1, 0.1, 100), False),
        (np.r_[np.full(90, 0.1), np.full(10, 0.5)], True),
        (np.r_[np.full(90, 0.1), np.full(10, 0.0975)], False),
        (np.r_[np.full(90, 0.1), np.full(10, 0.0985)], True),
    ],
)
def test_convergence(losses, expected):
    steps = np.arange(1, 101.0)
    assert converged(np.stack([steps, losses * 2, losses], axis=1)) is expected


def test_one_check_is_no_convergence():
    assert not converged(np.array([[10.0, 0.1, 0.1]]))


class TestForest:
    def test_the_seed_decides_and_threads_do_not(self):
        _, features = held_out(FOREST, 0)
        first, again, threaded, other = (
            fitted(FOREST, seed=seed, threads=threads) for seed, threads in ((0, 1), (0, 1), (0, 2), (1, 1))
        )
        expected = first.machine.predict(features)
        np.testing.assert_array_equal(again.machine.predict(features), expected)
        np.testing.assert_array_equal(threaded.machine.predict(features), expected)
        np.testing.assert_array_equal(first.curve, again.curve)
        assert np.any(other.machine.predict(features) != expected)

    def test_it_learns_and_grows(self):
        seen = []
        found = fitted(FOREST, seed=0, progress=seen.append)
        assert seen == [0.2, 0.4, 0.6, 0.8, 1.0]
        assert found.curve[:, 0].tolist() == [1, 2, 3, 4, 5]
        assert found.curve[-1, 2] < found.curve[0, 2]
        assert found.curve[-1, 1] < found.curve[-1, 2] < IGNORANT / 4
        assert found.facts["Nodes"] == sum(tree.tree_.node_count for tree in found.machine.estimators_)
        truth, features = held_out(FOREST, 0)
        error = found.machine.predict(features) - (truth - SPACE.bounds[:, 0]) / SPACE.span
        assert np.mean(error**2) == pytest.approx(found.facts["ValidationLoss"], rel=1e-12)

    def test_leaves_and_depth_are_those_of_the_recipe(self):
        found = fitted(grown(depth=3, trees=2), seed=0)
        trees = [tree.tree_ for tree in found.machine.estimators_]
        assert [tree.max_depth for tree in trees] == [3, 3]
        found = fitted(grown(samples_per_leaf=100, trees=2), seed=0)
        for tree in (tree.tree_ for tree in found.machine.estimators_):
            assert tree.weighted_n_node_samples[tree.children_left == -1].min() >= 100 * 0.2  # of a bootstrap
            assert tree.n_node_samples[tree.children_left == -1].min() >= 100 * 0.4


class TestInverter:
    @pytest.mark.parametrize("recipe", [NETWORK, FOREST], ids=["network", "forest"])
    def test_the_scale_is_that_of_least_squares(self, recipe):
        invert = Inverter(recipe, fitted(recipe).machine, SPACE, SHELLS)
        rng = np.random.default_rng(0)
        signals = SIMULATOR.measure(SPACE.sample(200, rng), rng) * 3
        found = invert(signals)
        np.testing.assert_allclose(found.parameters[:, 1:], SPACE.from_cube(found.cube), atol=1e-9)
        unit = SPACE.model.signal(SPACE.with_scale(found.parameters[:, 1:]), SHELLS)
        root = np.sqrt(SHELLS.weights)
        for y, x, scale, squares in zip(
            signals * root, unit * root, found.parameters[:, 0], found.squares, strict=True
        ):
            solution, rest, *_ = np.linalg.lstsq(x[:, None], y, rcond=None)
            assert scale == pytest.approx(solution[0], rel=1e-9)
            assert squares == pytest.approx(rest[0], rel=1e-6, abs=1e-12)


class TestChoices:
    def test_it_stops_where_nothing_better_is_found(self):
        found = fitted(scheduled(NETWORK, steps=400, checks=40, peak_rate=3.0, patience=3))
        steps, _, validation = found.curve.T
        assert steps[-1] < 400
        assert steps.size - 1 - validation.argmin() == 3

    def test_optimisers_rates_and_decay_differ(self):
        choices = [
            *({"optimiser": name} for name in ("adam", "radam", "rmsprop", "sgd")),
            {"weight_decay": 0.1},
            {"rate": "constant"},
            {"rate": "inverse", "decay": 1.0},
        ]
        curves = [fitted(scheduled(NETWORK, steps=20, checks=2, **choice)).curve for choice in choices]
        assert len({curve[-1, 2] for curve in curves}) == len(choices)

    def test_the_rate_is_that_of_its_name(self):
        torch = pytest.importorskip("torch")
        for choices, expected in (
            ({"rate": "constant"}, [0.1] * 3),
            ({"rate": "inverse", "decay": 0.5}, [0.1, 0.2 / 3, 0.05]),
        ):
            optimiser = torch.optim.SGD([torch.zeros(1)], lr=0.1)
            rate = _rate(Schedule(peak_rate=0.1, **choices), optimiser)
            found = []
            for _ in range(3):
                found.append(rate.get_last_lr()[0])
                optimiser.step()
                rate.step()
            assert found == pytest.approx(expected)

    def test_the_last_weights(self):
        found = fitted(scheduled(NETWORK, steps=60, peak_rate=3.0, checks=60, keep="last"), seed=3)
        assert found.facts["BestStep"] == 60
        assert found.facts["ValidationLoss"] == found.curve[-1, 2] > found.curve[:, 2].min()

    def test_weights_along_the_way_are_those_of_a_training_that_ends_there(self):
        choices = {"rate": "constant", "keep": "last", "checks": 1}
        whole = fitted(scheduled(NETWORK, steps=40, checkpoints=(10, 16), **choices))
        short = fitted(scheduled(NETWORK, steps=16, **choices))
        assert list(whole.checkpoints) == [10, 16]
        _, features = held_out(NETWORK, 0)
        np.testing.assert_allclose(
            predicted(whole.checkpoints[16], features), predicted(short.machine, features), atol=1e-5
        )
        assert not same(whole.checkpoints[10], whole.checkpoints[16])

    def test_the_best_of_several_by_one_validation_set(self):
        """The losses of all are those of the same voxels, which the first seed draws."""
        recipe = scheduled(NETWORK, steps=20, restarts=3)
        seeds = member_seeds(0, 3)
        found = descend(recipe.architecture, recipe.objective, recipe.schedule, SIMULATOR, seeds)
        truth, features = held_out(recipe, 0)
        cubes = [sigmoid(recipe.architecture.forward(one.machine, features)) for one in found]
        expected = [np.mean((cube - SPACE.to_cube(truth)) ** 2) for cube in cubes]
        losses = [one.facts["ValidationLoss"] for one in found]
        assert losses == pytest.approx(expected, rel=1e-3)
        best = fitted(recipe)
        assert best.facts["ValidationLoss"] == pytest.approx(min(losses), rel=1e-6)
        assert isinstance(best.machine, dict)

    def test_a_training_goes_on_from_another(self, trained):
        """Where the rate is too small to move, the network is the one that it started from."""
        still = scheduled(NETWORK, steps=1, checks=1, peak_rate=1e-12)
        simulator = Simulator(Uniform(SPACE), SHELLS, Noise(10.0))
        found = still.architecture.fit(still.objective, still.schedule, simulator, seed=9, start=trained.states)
        _, features = held_out(NETWORK, 0)
        np.testing.assert_allclose(predicted(found.machine, features), predicted(trained.machine, features), atol=1e-5)
        other = replace(still, architecture=Perceptron(9, 2))
        with pytest.raises(UsageError, match="another shape"):
            other.architecture.fit(other.objective, other.schedule, simulator, seed=9, start=trained.states)
        with pytest.raises(UsageError, match="cannot start from another"):
            FOREST.architecture.fit(FOREST.objective, FOREST.schedule, simulator, seed=9, start=trained.states)

    @pytest.mark.parametrize("objective", [Parameters(), Logits(), Relative()])
    def test_weights_decide_what_counts(self, objective):
        """Two voxels, of which one has no weight: the loss is half that of the other."""
        torch = pytest.importorskip("torch")
        batch = SIMULATOR.draw(2, np.random.default_rng(0))
        tensors = batch.map(lambda array: torch.from_numpy(np.asarray(array, dtype=np.float32)))
        outputs = torch.randn(2, 1, 2, generator=torch.Generator().manual_seed(0))
        weighted = replace(tensors, weights=torch.tensor([0.0, 1.0])[:, None, None])
        alone = objective.loss(outputs[1:], tensors[slice(1, 2)], SIMULATOR)
        assert float(objective.loss(outputs, weighted, SIMULATOR)) == pytest.approx(float(alone) / 2, rel=1e-6)

    @pytest.mark.parametrize("objective", [Parameters(), Relative()])
    def test_realisations_are_taught_their_targets(self, objective):
        torch = pytest.importorskip("torch")
        simulator = Simulator(Uniform(SPACE), SHELLS, Noise(25.0), Simulation(realisations=3))
        batch = simulator.draw(5, np.random.default_rng(0))
        tensors = batch.map(lambda array: torch.from_numpy(np.asarray(array, dtype=np.float32)))
        outputs = torch.randn(5, 3, 2, generator=torch.Generator().manual_seed(0))
        estimates = [objective.estimates(outputs[:, i].numpy(), SPACE)[1] for i in range(3)]
        expected = np.mean([((found - batch.truth) / SPACE.span) ** 2 for found in estimates])
        assert float(objective.loss(outputs, tensors, SIMULATOR)) == pytest.approx(expected, rel=1e-5)

    @pytest.mark.parametrize("recipe", [NETWORK, FOREST], ids=["network", "forest"])
    def test_several_realisations_train(self, recipe):
        choices = replace(recipe.simulation, realisations=2, samples=500)
        found = fitted(scheduled(replace(recipe, simulation=choices), validation=512))
        assert found.curve[-1, 2] < IGNORANT / 2

    @pytest.mark.parametrize("part", [{"objective": Logits()}, {"simulation": Simulation()}], ids=str)
    def test_a_forest_says_what_it_needs(self, part):
        with pytest.raises(ValueError, match=r"objective: \{name: relative\}.*`samples`"):
            replace(FOREST, **part)
