"""What is told of errors is true: held-out truths, intervals, misfit and domain, in small (see benchmarks/trust.py)."""

from __future__ import annotations

import numpy as np
import pytest

from bidsfit import Acquisition, LeastSquares, models
from bidsfit.models.space import ParameterSpace
from bidsfit.phantom.directions import spread_directions
from bidsfit.simulation.distributions import Uniform
from bidsfit.simulation.simulator import Features, Noise, Simulator, noisy_averages
from bidsfit.trust.domain import Domain
from bidsfit.trust.flags import BIASED_TRUTHS
from bidsfit.trust.misfit import look_at_signals
from bidsfit.trust.monte_carlo import Size, performance_of, truths_of
from bidsfit.trust.performance import LARGE_BIAS

ACQUISITIONS = {
    "ivim": Acquisition([0, 5, 10, 20, 30, 40, 60, 80, 100, 150, 200, 300, 400, 500, 600, 800]),
    "smt2": Acquisition([0, 1000, 2000, 3500, 5000], counts=[6, 32, 32, 32, 32], n_directions=[1, 32, 32, 32, 32]),
}
SIZE = Size(3072, 32, 4, 384)
TRUTHS, REPEATS = 600, 100
#: Of the larger of two normal scores: 2 % false alarms.
LIMIT = 2.33


def measured(space, acquisition, truth, sigma, rng, repeats=1):
    return Simulator(Uniform(space), acquisition, Noise(np.inf, "rician")).measure(truth, rng, repeats, sigma)


def estimated(estimator, signals, acquisition, sigma):
    """Estimates (n, n_parameters), and the scores of their misfit."""
    estimate = estimator.estimate(signals, acquisition, sigma)
    return estimate.points, look_at_signals(estimator, estimate, signals, acquisition, sigma).scores


@pytest.fixture(scope="module", params=list(ACQUISITIONS))
def held_out(request):
    """The performance of least squares; truths that it has not seen, SNR 5 to 50; and repeated estimates of them."""
    estimator, acquisition = LeastSquares(models.get(request.param)), ACQUISITIONS[request.param]
    performance = performance_of(estimator, acquisition, size=SIZE)
    rng = np.random.default_rng(77)
    truth = truths_of(performance.space).sample(TRUTHS, rng)
    sigma = np.exp(-rng.uniform(np.log(5), np.log(50), TRUTHS))
    signals = measured(performance.space, acquisition, truth, sigma, rng, REPEATS)
    found, scores = estimated(estimator, signals, acquisition, np.repeat(sigma, REPEATS))
    return performance, truth, sigma, found.reshape(TRUTHS, REPEATS, -1), scores.reshape(TRUTHS, REPEATS, -1)


def slope(told, shown):
    return np.polyfit(told, shown, 1)[0]


def test_errors_at_held_out_truths_are_those_of_repeated_noise(held_out):
    performance, truth, sigma, found, _ = held_out
    told = performance.errors(performance.space.with_scale(truth), sigma)
    for j, name in enumerate(performance.space.names):
        assert told.sd[name].max() <= performance.space.span[j] / 2  # as of any variable within these bounds
        values = found[:, :, performance.space.model.names.index(name)]
        for expected, shown in (
            (told.bias[name], values.mean(axis=1) - truth[:, j]),
            (told.sd[name], values.std(axis=1, ddof=1)),
        ):
            assert np.corrcoef(expected, shown)[0, 1] > 0.9
            # a smooth function lags where the SD of lambda jumps from one solution to another
            assert slope(expected, shown) == pytest.approx(1, abs=0.2)


def test_errors_averaged_over_the_truths_are_nearer_than_those_of_the_estimate_taken_for_the_truth(held_out):
    performance, truth, sigma, found, _ = held_out
    one = found[:, 0]
    naive, averaged = performance.errors(one, sigma), performance.expected(one, sigma)
    for j, name in enumerate(performance.space.names):
        shown = found[:, :, performance.space.model.names.index(name)].mean(axis=1) - truth[:, j]
        assert np.corrcoef(averaged.bias[name], shown)[0, 1] > np.corrcoef(naive.bias[name], shown)[0, 1]


def test_the_share_of_biased_truths_is_that_of_held_out_ones(held_out):
    performance, truth, sigma, found, _ = held_out
    told = performance.expected(found[:, :5].reshape(5 * TRUTHS, -1), np.repeat(sigma, 5))
    shares, biased = [], []
    for j, name in enumerate(performance.space.names):
        values = found[:, :, performance.space.model.names.index(name)]
        bias, sd = values.mean(axis=1) - truth[:, j], values.std(axis=1, ddof=1)
        shares.append(told.biased[name])
        biased.append(np.repeat(np.abs(bias) > LARGE_BIAS * sd, 5))
    share, large = np.concatenate(shares), np.concatenate(biased)
    assert large.mean() == pytest.approx(share.mean(), abs=0.05)
    assert large[share > BIASED_TRUTHS].mean() > 0.6
    assert large[share < 1 - BIASED_TRUTHS].mean() < 0.15


def test_intervals_of_simulation_hold_what_they_say(held_out):
    performance, truth, sigma, found, _ = held_out
    told = performance.expected(found[:, :5].reshape(5 * TRUTHS, -1), np.repeat(sigma, 5))
    for j, name in enumerate(performance.space.names):
        true = np.repeat(truth[:, j], 5)
        assert np.mean((told.lower[name] <= true) & (true <= told.upper[name])) == pytest.approx(0.95, abs=0.03)


def test_misfit_gives_few_false_alarms_and_sees_a_corrupted_average(held_out):
    performance, truth, sigma, found, scores = held_out
    told = performance.expected(found[:, :5], np.repeat(sigma[:, None], 5, axis=1), scores[:, :5])
    assert np.mean(told.misfit > LIMIT) == pytest.approx(0.02, abs=0.015)
    name = performance.space.model.name
    model, acquisition, rng = performance.space.model, ACQUISITIONS[name], np.random.default_rng(3)
    corrupted = model.signal(performance.space.with_scale(truth), acquisition)
    which = rng.integers(1, corrupted.shape[1], TRUTHS)
    corrupted[np.arange(TRUTHS), which] += 6 * sigma / np.sqrt(acquisition.weights[which])
    signals = noisy_averages(corrupted, acquisition, sigma, "rician", rng)
    parameters, own = estimated(LeastSquares(model), signals, acquisition, sigma)
    power = np.mean(performance.expected(parameters, sigma, own).misfit > LIMIT)
    assert power > {"ivim": 0.85, "smt2": 0.6}[name]  # of 5 averages the model absorbs more than of 16


def test_the_domain_of_a_training_sees_another_diffusivity():
    """Trained on diffusivities from 1 to 2 um^2/ms, a slower one is foreign, and one inside is not."""
    model, acquisition = models.get("smt2"), ACQUISITIONS["smt2"]
    space = ParameterSpace(model, {"lambda": (1.0, 2.0)})
    domain = Domain.of(Simulator(Uniform(space), acquisition, Noise(25.0, "rician")), seed=0)
    rng, features = np.random.default_rng(1), Features(model, acquisition)
    snr = np.full(500, 25.0)

    def outside(truth):
        known = features(measured(space, acquisition, truth, 1 / snr, rng)) * np.sqrt(features.counts)
        return np.mean(domain.excludes(known, snr))

    assert outside(space.sample(500, rng)) == pytest.approx(0.01, abs=0.012)
    assert outside(np.column_stack([rng.uniform(0.3, 0.6, 500), np.full(500, 0.4)])) > 0.95


def test_the_domain_sees_a_larger_mean_diffusivity_of_a_tensor():
    """It is one of six directions in which signals of the training differ; none of them may be left out."""
    model = models.get("dti")
    bounds = {name: (0.3, 1.5) if name[1] == name[2] else (-0.4, 0.4) for name in model.names if name != model.scale}
    acquisition = Acquisition([0.0, *[1000.0] * 12], np.vstack([np.zeros(3), spread_directions(12)]))
    simulator = Simulator(Uniform(ParameterSpace(model, bounds)), acquisition, Noise(20.0, "rician"))
    domain, features, rng = Domain.of(simulator, seed=0), Features(model, acquisition), np.random.default_rng(1)

    def share(tensors):
        return np.mean(domain.excludes(features(simulator.measure(tensors, rng)), np.full(len(tensors), 20.0)))

    assert share(simulator.distribution.sample(1000, rng)) < 0.03
    assert share(np.tile([2.2, 2.2, 2.2, 0.0, 0.0, 0.0], (1000, 1))) > 0.9
