"""Trained estimators answer the verb, say how far they can be trusted, and refuse what they were not taught."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from bidsfit import Acquisition, LeastSquares, Status, companions, estimators, models
from bidsfit.exceptions import UnsupportedProtocolError
from bidsfit.phantom.directions import spread_directions
from bidsfit.simulation.distributions import Mixture, Pooled
from bidsfit.simulation.simulator import Noise, Simulation, Simulator
from bidsfit.trained.estimator import SNR_LEVELS, differences, nearest_level
from bidsfit.trained.forest import Forest
from bidsfit.trained.network import Network
from bidsfit.training.architectures import Perceptron
from bidsfit.training.bundle import write_bundle
from bidsfit.training.forest import Growth, RandomForest
from bidsfit.training.inference import Inverter
from bidsfit.training.objectives import Parameters, Relative
from bidsfit.training.recipe import Recipe, load_recipe
from bidsfit.training.task import Task, train
from bidsfit.training.trainer import Schedule

SMT2 = models.get("smt2")
B, COUNTS, DIRECTIONS = [0, 1000, 2000, 3500, 5000], [8, 32, 32, 32, 32], [1, 32, 32, 32, 32]
SHELLS = Acquisition(B, counts=COUNTS, n_directions=DIRECTIONS)
SNR = 25.0
CLASSES = {"network": Network, "forest": Forest}
RECIPES = {
    "network": Recipe(
        Perceptron(units=32, hidden_layers=2),
        Parameters(),
        Schedule(steps=200, batch=256, peak_rate=1e-2, validation=2048, checks=10),
    ),
    "forest": Recipe(
        RandomForest(trees=5, samples_per_leaf=20), Relative(), Growth(validation=1024), Simulation(samples=8192)
    ),
}
KINDS = tuple(RECIPES)


@pytest.fixture(scope="module")
def bundles():
    return {
        kind: train(replace(CLASSES[kind](SMT2).task(SHELLS, SNR), recipe=recipe, noise=Noise(SNR)))
        for kind, recipe in RECIPES.items()
    }


@pytest.fixture(scope="module", params=KINDS)
def estimator(request, bundles):
    return CLASSES[request.param](SMT2, trained=bundles[request.param])


@pytest.fixture(scope="module")
def network(bundles):
    return Network(SMT2, trained=bundles["network"])


def simulated(bundle_or_estimator, n, seed=0, snr=SNR):
    """Signals as in the training, and the parameters behind them."""
    space = bundle_or_estimator.space
    parameters = space.sample(n, np.random.default_rng(seed))
    simulator = Simulator(Network(SMT2).task(SHELLS, SNR).distribution, SHELLS, Noise(snr))
    return simulator.measure(parameters, np.random.default_rng(seed + 1)), parameters


class TestVerb:
    def test_shapes(self, estimator):
        signals, truth = simulated(estimator, 500)
        found = estimator.estimate(signals, SHELLS)
        assert set(found.parameters) == set(SMT2.names)
        assert set(companions(estimator, found, 1 / SNR)) == {"crb"}  # the others ask for the signals
        judged = companions(estimator, found, 1 / SNR, signals=signals, acquisition=SHELLS)
        assert set(judged) == {"expectedsd", "bias", "rmse", "response", "q025", "q975", "crb"}
        arrays = [found.status, found.rmse, found.r2, found.sigma, *found.parameters.values()]
        arrays += [array for key in ("expectedsd", "bias") for array in judged[key].values()]
        assert all(array.shape == (500,) and np.isfinite(array).all() for array in arrays)
        assert found.freedom == 2
        for name, known in zip(estimator.space.names, truth.T, strict=True):
            assert np.corrcoef(found.parameters[name], known)[0, 1] > 0.8
        assert found.parameters["S0"] == pytest.approx(np.ones(500), abs=0.15)

    @pytest.mark.parametrize("n", [0, 1, 3])
    def test_few_voxels(self, estimator, n):
        signals, _ = simulated(estimator, 10)
        found, all_of_them = (estimator.estimate(y, SHELLS) for y in (signals[:n], signals))
        for name in SMT2.names:
            np.testing.assert_allclose(found.parameters[name], all_of_them.parameters[name][:n], rtol=1e-5)

    def test_measurements_are_averaged(self, network):
        """All directions as they were measured, in any order."""
        signals, _ = simulated(network, 50)
        order = np.random.default_rng(0).permutation(sum(COUNTS))
        b = np.repeat(B, COUNTS)[order]
        angles = np.concatenate([spread_directions(n) for n in COUNTS])[order]
        single = np.repeat(signals, COUNTS, axis=1)[:, order]
        found = network.estimate(single, Acquisition(b, directions=np.where(b[:, None] > 0, angles, 0)))
        expected = network.estimate(signals, SHELLS)
        assert found.acquisition.weights.tolist() == COUNTS
        for name in SMT2.names:
            np.testing.assert_allclose(found.parameters[name], expected.parameters[name], rtol=1e-4, atol=1e-5)

    def test_the_scale_of_the_image_scales_s0_alone(self, estimator):
        signals, _ = simulated(estimator, 300)
        one, thousand = (estimator.estimate(y, SHELLS) for y in (signals, signals * 1000))
        small, large = (
            companions(estimator, found, noise, signals=y, acquisition=SHELLS)
            for found, noise, y in ((one, 1 / SNR, signals), (thousand, 1000 / SNR, signals * 1000))
        )
        for name in SMT2.names:
            scale = 1000 if name == "S0" else 1
            np.testing.assert_allclose(thousand.parameters[name], one.parameters[name] * scale, rtol=1e-4, atol=1e-5)
            for statistic in ("expectedsd", "bias") if name != "S0" else ():
                first, second = small[statistic][name], large[statistic][name]
                np.testing.assert_allclose(second, first, rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(thousand.rmse, one.rmse * 1000, rtol=1e-3)
        np.testing.assert_array_equal(thousand.status, one.status)

    def test_statistics_are_those_of_the_table_at_the_estimate(self, estimator):
        signals, _ = simulated(estimator, 200)
        found = estimator.estimate(signals * 50, SHELLS)
        noise, beside = np.full(200, 2.0), LeastSquares(SMT2).estimate(signals * 50, SHELLS).points
        judged = companions(estimator, found, noise, signals=signals * 50, acquisition=SHELLS)
        expected = estimator.performance.expected(found.points, noise, beside=beside)
        for name in ("vcyl", "lambda"):
            np.testing.assert_array_equal(judged["bias"][name], expected.bias[name])
            np.testing.assert_array_equal(judged["expectedsd"][name], expected.sd[name])

    def test_the_sd_is_about_the_scatter(self, network):
        n = 2000
        truth = np.tile([0.5, 1.5], (n, 1))
        simulator = Simulator(Network(SMT2).task(SHELLS, SNR).distribution, SHELLS, Noise(SNR))
        found = network.estimate(simulator.measure(truth, np.random.default_rng(0)), SHELLS)
        errors = network.performance.errors(network.space.with_scale(truth[:1]), np.array([1 / SNR]))
        for name, known in (("vcyl", 0.5), ("lambda", 1.5), ("S0", 1.0)):
            values = found.parameters[name]
            assert errors.sd[name][0] == pytest.approx(values.std(), rel=0.3)
            assert errors.bias[name][0] == pytest.approx(values.mean() - known, abs=0.05 * known)

    def test_threads_do_not_matter(self, estimator):
        signals, _ = simulated(estimator, 2 * Network.chunk + 100)
        one, two = (estimator.estimate(signals, SHELLS, threads=threads) for threads in (1, 2))
        for name in SMT2.names:
            np.testing.assert_array_equal(one.parameters[name], two.parameters[name])
        np.testing.assert_array_equal(one.status, two.status)

    def test_unusable_voxels_do_not_disturb_the_others(self, estimator):
        signals, _ = simulated(estimator, 30)
        clean = estimator.estimate(signals, SHELLS)
        broken = signals.copy()
        broken[3, 2] = np.nan
        broken[5, 1] = np.inf
        broken[7, 0] = 0
        broken[8, 0] = -1
        found = estimator.estimate(broken, SHELLS)
        bad = [3, 5, 7, 8]
        assert found.status[bad].tolist() == [Status.NOT_FINITE] * 2 + [Status.NO_SIGNAL] * 2
        good = np.setdiff1d(np.arange(30), bad)
        judged = companions(estimator, found)
        for name in SMT2.names:
            assert np.isnan(found.parameters[name][bad]).all()
            assert np.isnan(judged["crb"][name][bad]).all()
            np.testing.assert_allclose(found.parameters[name][good], clean.parameters[name][good], rtol=1e-5)
        np.testing.assert_array_equal(found.status[good], clean.status[good])

    def test_progress_counts_every_voxel(self, network):
        signals, _ = simulated(network, Network.chunk + 5)
        seen = []
        network.estimate(signals, SHELLS, progress=seen.append)
        assert sorted(seen) == seen
        assert seen[-1] == 1

    def test_the_training_is_noted(self, estimator):
        notes = estimator.estimate(simulated(estimator, 5)[0], SHELLS).notes["TrainedEstimator"]
        assert notes["Noise"]["SNR"] == SNR
        assert notes["Participants"] == []
        assert notes["Training"]["ResidualLimit"] > 0


class TestUnlikeTraining:
    def test_signals_as_in_the_training_are_like_them(self, estimator):
        found = estimator.estimate(simulated(estimator, 20_000, seed=9)[0], SHELLS)
        assert set(found.count()) <= {Status.CONVERGED, Status.UNLIKE_TRAINING, Status.UNDETERMINED}
        assert np.mean(found.status == Status.UNLIKE_TRAINING) < 0.01

    def test_signals_that_no_model_makes_are_not(self, estimator):
        rising = np.linspace(1, 3, 5) * np.random.default_rng(0).uniform(0.9, 1.1, (200, 1))
        wavy = np.array([1.0, 0.2, 0.9, 0.1, 0.8]) * np.ones((200, 1))
        for signals in (rising, wavy):
            found = estimator.estimate(signals * 300, SHELLS)
            assert np.all(found.status == Status.UNLIKE_TRAINING)
            assert np.isfinite(found.parameters["vcyl"]).all()

    def test_an_estimate_that_has_no_signal_is_none_of_tissue(self, network, monkeypatch):
        class Beyond(Inverter):
            def __call__(self, *arguments):
                found = super().__call__(*arguments)
                found.squares[0] = np.nan
                return found

        monkeypatch.setattr("bidsfit.trained.estimator.Inverter", Beyond)
        found = network.estimate(simulated(network, 5)[0], SHELLS)
        assert found.status[0] == Status.IMPLAUSIBLE
        assert Status.IMPLAUSIBLE not in found.status[1:]

    def test_noise_that_is_known_to_be_larger_widens_the_limit(self, estimator):
        signals, _ = simulated(estimator, 5000, snr=SNR / 10)
        unknown, known, small = (
            np.mean(estimator.estimate(signals * 100, SHELLS, noise).status == Status.UNLIKE_TRAINING)
            for noise in (None, 100 * 10 / SNR, 100 / SNR / 10)
        )
        assert unknown > 0.3
        assert known < 0.01
        assert small == unknown  # less noise than in the training narrows nothing

    def test_noise_may_be_a_map(self, network):
        signals, _ = simulated(network, 2000, snr=SNR / 10)
        noise = np.where(np.arange(2000) < 1000, 10 / SNR, np.nan)
        unlike = network.estimate(signals, SHELLS, noise).status == Status.UNLIKE_TRAINING
        assert unlike[:1000].mean() < 0.01
        assert unlike[1000:].mean() > 0.3


class TestProtocols:
    @pytest.mark.parametrize(
        ("own", "words"),
        [
            (
                Acquisition([0, 1000, 2000, 3000, 5000], counts=COUNTS),
                ["trained for b = 3500", "not trained for b = 3000"],
            ),
            (Acquisition([0, 1000, 2000, 5000], counts=[8, 32, 32, 32]), ["trained for b = 3500"]),
            (Acquisition([0, 700, *B[1:]], counts=[8, *COUNTS]), ["not trained for b = 700"]),
            (Acquisition(B, counts=[8, 32, 16, 32, 32]), ["numbers of measurements at b = 2000 (16, not 32)"]),
            (Acquisition(B, counts=[1, 32, 32, 32, 64]), ["0 (1, not 8), 5000 (64, not 32)"]),
        ],
    )
    def test_what_differs_is_named(self, own, words):
        found = "; ".join(differences(own, SHELLS))
        for word in words:
            assert word in found

    def test_small_differences_are_none(self):
        assert differences(SHELLS, SHELLS) == []
        assert differences(Acquisition([0.5, 1005, 1990, 3500, 5000], counts=[9, 30, 30, 32, 32]), SHELLS) == []

    def test_exact_images_may_be_of_any_number(self):
        one = Acquisition(B, counts=[1, 32, 32, 32, 32])
        assert differences(one, SHELLS, noisy_lowest=False) == []
        assert differences(one, SHELLS) != []

    @pytest.mark.parametrize("own", [[0, 1000, 500], [0, 500, 500, 1000], [0, 500, 1000, 1000, 1000]])
    def test_the_order_matters_where_nothing_is_averaged(self, own):
        trained = [0, 500, 1000] if len(own) == 3 else [0, 500, 1000, 1000]
        assert differences(Acquisition(own), Acquisition(trained)) != []

    def test_echo_times(self):
        times = [Acquisition([0, 0, 1000], TE=[60, last, 60]) for last in (90, 120)]
        assert "TE = 60, 90 ms" in differences(times[1], times[0])[0]
        assert differences(times[0], times[0]) == []

    def test_it_refuses_to_run_on_another(self, network):
        other = Acquisition([0, 1000, 2000, 3000, 5000], counts=COUNTS, n_directions=DIRECTIONS)
        with pytest.raises(UnsupportedProtocolError, match=r"'net-prior'.*not trained for b = 3000"):
            network.estimate(np.ones((2, 5)), other)
        assert network.missing(SHELLS) == []

    def test_jitter_of_the_shells_is_averaged_away(self, network):
        b = np.repeat(B, COUNTS) + np.tile([0, 4, 0, -4], 34) * (np.repeat(B, COUNTS) > 0)
        directions = np.concatenate([spread_directions(n) for n in COUNTS])
        assert network.missing(Acquisition(b, directions=directions)) == []


class TestRefusals:
    def test_before_it_was_trained(self):
        with pytest.raises(ValueError, match="'net-prior' was not trained yet"):
            Network(SMT2).estimate(np.ones((2, 5)), SHELLS)

    def test_files_of_others(self, bundles):
        with pytest.raises(ValueError, match="for model 'smt2', not for 'smt3'"):
            Network(models.get("smt3"), trained=bundles["network"])
        with pytest.raises(ValueError, match="for kind 'forest', not for 'network'"):
            Network(SMT2, trained=bundles["forest"])
        with pytest.raises(ValueError, match=r"knows the bounds .*3.0.*, not .*2.5"):
            Network(SMT2, trained=bundles["network"], bounds={"lambda": (0.0, 2.5)})

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"distribution": "sick"}, "Unknown distribution 'sick'"),
            ({"snr": 0}, "above 0"),
            ({"snr": -3.0}, "above 0"),
            ({"averaging": "geometric"}, "cannot be 'geometric'"),
            ({"averaging": "none"}, "cannot be 'none'"),
            ({"bounds": {"vcyl": (0.5, 0.5), "lambda": (1.0, 1.0)}}, "hold all"),
            ({"bounds": {"S0": (0.0, 1.0)}}, "leave them out"),
        ],
    )
    def test_options_that_cannot_be(self, options, message):
        with pytest.raises(ValueError, match=message):
            Network(SMT2, **options)

    def test_a_recipe_of_another_kind(self):
        with pytest.raises(ValueError, match="of a forest; 'net-prior' is a network"):
            Network(SMT2, recipe="forest").task(SHELLS, SNR)


class TestTasks:
    def test_levels_are_few(self):
        snrs, levels = (1, 5, 24, 25, 160, 500, 1e6, np.inf), [5, 5, 28, 28, 160, 453, 640, 640]
        assert [nearest_level(snr) for snr in snrs] == levels
        assert all(nearest_level(level) == level for level in SNR_LEVELS)
        steps = np.diff(np.log(SNR_LEVELS))
        assert steps.max() < np.log(1.5)
        for snr in (0.0, -1.0, np.nan):
            with pytest.raises(ValueError, match="above 0"):
                nearest_level(snr)

    def test_the_task_is_of_the_options(self):
        task = Network(SMT2, seed=5).task(SHELLS, 24.0)
        assert isinstance(task, Task)
        assert (task.noise, task.seed, task.recipe) == (Noise(28.0, "rician"), 5, load_recipe("network"))
        assert Network(SMT2, snr=24.0).task(SHELLS, 7.0).noise.snr == 24.0
        assert Network(SMT2, debias=True).task(SHELLS, 7.0).noise.kind == "gaussian"
        assert not Network(SMT2).task(SHELLS, 7.0, lowest=False).noise.lowest
        assert Network(SMT2, snr=np.inf).task(SHELLS, 7.0).recipe == load_recipe("network-noise-free")
        for name, recipe in {"mrffisp": "network-fingerprints", "mp2rage": "network"}.items():
            assert Network(models.get(name)).default_recipe(40.0) == load_recipe(recipe)
        assert Forest(SMT2, recipe="forest-quick").task(SHELLS, 7.0).recipe == load_recipe("forest-quick")

    def test_distributions_are_of_the_pool(self):
        space = Network(SMT2).space
        pool = Pooled(space, space.sample(200, np.random.default_rng(0)), np.zeros(200, int), ("sub-01",))
        assert Network(SMT2, distribution="healthy").task(SHELLS, 20, pool).distribution is pool
        mixed = Network(SMT2, distribution="mixed").task(SHELLS, 20, pool).distribution
        assert isinstance(mixed, Mixture)
        assert mixed.parts[1] is pool
        assert not Network(SMT2).needs_pool
        with pytest.raises(ValueError, match="'net-wm' is trained on pooled fits, and none were given"):
            Network(SMT2, distribution="wm").task(SHELLS, 20)

    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize("distribution", ["uniform", "healthy", "mixed", "wm", "gm"])
    def test_every_name_of_the_package(self, kind, distribution):
        name = f"{CLASSES[kind].prefix}-{distribution}"
        made = estimators.get(name)(SMT2)
        assert made.name == name
        assert made.options["training_distribution"] == distribution
        assert made.methods.startswith("It was trained on simulated signals")


class TestFiles:
    def test_a_path_will_do(self, tmp_path, bundles):
        for kind, bundle in bundles.items():
            path = tmp_path / f"{kind}.zip"
            write_bundle(path, bundle)
            first, second = CLASSES[kind](SMT2, trained=path), CLASSES[kind](SMT2, trained=bundle)
            signals, _ = simulated(first, 100)
            found, expected = first.estimate(signals, SHELLS), second.estimate(signals, SHELLS)
            for name in SMT2.names:
                np.testing.assert_array_equal(found.parameters[name], expected.parameters[name])
            np.testing.assert_array_equal(found.status, expected.status)


@pytest.mark.slow
def test_the_quick_recipe_has_smaller_errors_than_a_fit():
    """Over the space that it was trained on, as in the paper: it knows the prior, and a fit does not."""
    plan = Network(SMT2, recipe="network-quick", noise="gaussian", snr=SNR)
    network = Network(SMT2, trained=train(plan.task(SHELLS, SNR)))
    signals, truth = simulated(network, 20_000)
    learned, fitted = (estimator.estimate(signals, SHELLS) for estimator in (network, LeastSquares(SMT2)))
    for name, known in zip(network.space.names, truth.T, strict=True):
        first, second = (np.sqrt(np.mean((found.parameters[name] - known) ** 2)) for found in (learned, fitted))
        assert first < second


def test_voxels_of_an_image_are_sampled_as_the_fit_reads_them():
    """Relative to the signal at b = 0, without those that have no signal or no known noise, and the same each time."""
    rng = np.random.default_rng(0)
    s0 = rng.uniform(50, 150, 1000)
    signals = s0[:, None] * np.exp(-np.array([0.0, 0, 500, 1000]) * 1e-3)
    noise = np.full(1000, 5.0)
    signals[:100], noise[100:150] = 0, np.nan
    signals[150:200, 2] = np.nan
    network = Network(models.get("adc"))
    found = network.sample(signals, Acquisition([0, 0, 500, 1000]), noise, name="sub-01", most=600)
    assert found.images == {"sub-01": 600}
    np.testing.assert_allclose(found.signals, np.tile(np.exp([0, -0.5, -1]), (600, 1)), rtol=1e-6)
    assert np.abs(5 / found.sigma[:, None] - s0[200:]).min(axis=1).max() < 1e-4
    again = network.sample(signals, Acquisition([0, 0, 500, 1000]), noise, name="sub-01", most=600)
    np.testing.assert_array_equal(found.sigma, again.sigma)
    assert network.sample(signals, Acquisition([0, 0, 500, 1000]), noise, name="sub-01").images == {"sub-01": 800}
