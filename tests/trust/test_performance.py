"""What simulation tells of the errors of estimators, for estimators whose errors are known."""

from __future__ import annotations

from copy import copy

import numpy as np
import pytest

from bidsfit import Acquisition, LeastSquares, MaximumAPosteriori, companions, models
from bidsfit.estimators.segmented import Segmented
from bidsfit.information import cramer_rao_bound
from bidsfit.models.space import ParameterSpace
from bidsfit.simulation.distributions import Uniform
from bidsfit.simulation.patches import Patches
from bidsfit.simulation.simulator import Noise, Simulator
from bidsfit.trust import monte_carlo
from bidsfit.trust.cache import cached_performance
from bidsfit.trust.flags import MISFIT
from bidsfit.trust.misfit import look_at_signals
from bidsfit.trust.monte_carlo import Size, least_squares_beside, obstacle, performance_of, simulate, truths_of
from bidsfit.trust.performance import Performance
from bidsfit.trust.smoothing import Smoother

SHELLS = Acquisition([0, 1000, 2000, 3500, 5000], counts=[8, 32, 32, 32, 32], n_directions=[1, 32, 32, 32, 32])
DECAY = Acquisition([0, 10, 20, 50, 100, 200, 400, 800], counts=[4, 4, 4, 4, 4, 4, 4, 4])
SIZE = Size(1024, 32, 8, 200)
SPACES = {name: ParameterSpace(models.get(name)) for name in ("smt2", "smt3", "adc", "ivim")}


def simulator(name="smt2", kind="gaussian"):
    return Simulator(Uniform(SPACES[name]), SHELLS, Noise(np.inf, kind))


def linear(slope, shift, spread):
    """What estimates smt2 with known errors: a straight line of the truth, and noise in proportion to that of the data.

    The truth reaches it through the signals, which are the parameters themselves.
    """

    def estimate(signals, sigma):
        truth, noise = signals[:, :2], signals[:, 2:4]
        found = np.empty((len(signals), 3))
        found[:, 0] = 1
        found[:, 1:] = shift + truth @ slope.T + spread * noise
        return found

    return estimate


class Shown:
    """A simulator whose signals are the truth and the noise."""

    brightness, patches = 1.0, None

    def __init__(self, name="smt2"):
        self.space, self.acquisition, self.noise = SPACES[name], SHELLS, Noise(np.inf, "gaussian")
        self.distribution = Uniform(self.space)

    def measure(self, parameters, rng, repeats, sigma, around=None):
        truth = np.repeat(parameters, repeats, axis=0)
        noise = rng.standard_normal(truth.shape) * np.repeat(sigma, repeats)[:, None]
        return np.hstack([truth, noise, np.zeros((len(truth), 1))])


class ShownPatches(Shown):
    """The same of patches of 3 x 3 voxels, whose surroundings are those of their kind."""

    patches = Patches(Uniform(SPACES["smt2"]), (1, 1, 0))

    def measure(self, parameters, rng, repeats, sigma, around=None):
        alike = np.full((3, 3, 1), True) if around is None else self.patches.alike(around[0])
        there = [np.repeat(one, repeats, axis=0) for one in (parameters, parameters if around is None else around[1])]
        truth = np.where(alike[..., None], *(one[:, None, None, None] for one in there))
        noise = rng.standard_normal(truth.shape) * np.repeat(sigma, repeats).reshape(-1, 1, 1, 1, 1)
        return np.concatenate([truth, noise, np.zeros((*truth.shape[:-1], 1))], axis=-1)


SLOPE, SHIFT = np.array([[0.6, 0.1], [0.0, 0.9]]), np.array([0.1, 0.3])


@pytest.fixture(scope="module")
def straight():
    return simulate(linear(SLOPE, SHIFT, 1.0), Shown(), size=SIZE)


@pytest.fixture(scope="module")
def places():
    """True parameters of smt2 with S0 = 1, and noise levels."""
    rng = np.random.default_rng(5)
    return SPACES["smt2"].with_scale(SPACES["smt2"].sample(300, rng)), np.exp(rng.uniform(-4, -1.5, 300))


def test_bias_and_spread_at_the_truth_are_those_of_the_estimator(straight, places):
    truth, sigma = places
    found = straight.errors(truth, sigma)
    bias = SHIFT + truth[:, 1:] @ (SLOPE - np.eye(2)).T
    for j, name in enumerate(("vcyl", "lambda")):
        assert np.sqrt(np.mean((found.bias[name] - bias[:, j]) ** 2)) < 0.012
        assert np.corrcoef(found.bias[name], bias[:, j])[0, 1] > 0.99
        assert np.median(np.abs(found.sd[name] / sigma - 1)) < 0.06
        assert np.corrcoef(found.sd[name], sigma)[0, 1] > 0.99
        middle = truth[:, 1 + j] + bias[:, j]
        for ends, z in ((found.q025, -1.96), (found.q975, 1.96)):
            assert np.median((ends[name] - middle) / sigma) == pytest.approx(z, rel=0.1)


def test_the_response_is_the_slope_with_what_parameters_take_from_one_another(straight, places):
    truth, sigma = places
    found = straight.expected(truth, sigma)
    np.testing.assert_allclose(np.median(found.response, axis=0), SLOPE, atol=0.02)


def test_expected_bias_is_the_mean_over_the_truths_that_an_estimate_may_come_from():
    """An estimator without any information: every estimate may come from every truth."""

    def guess(signals, sigma):
        return np.column_stack([np.ones(len(signals)), np.full(len(signals), 0.3), 1 + signals[:, 3]])

    made = simulate(guess, Shown(), size=SIZE)
    found = made.expected(np.array([[1.0, 0.3, 1.0]]), np.array([0.1]))
    assert found.bias["vcyl"][0] == pytest.approx(0.3 - 0.5, abs=0.02)  # of truths between 0 and 1
    assert found.sd["vcyl"][0] == pytest.approx(0, abs=1e-3)
    assert found.response[0, 0, 0] == pytest.approx(0, abs=1e-6)
    assert found.rmse["vcyl"][0] > 0.2
    assert found.lower["vcyl"][0] < 0.1
    assert found.upper["vcyl"][0] > 0.9


def test_the_fit_beside_an_estimate_tells_what_it_does_not():
    """An estimator that says the same of everything, beside one that finds the truth but for noise."""

    def guess(signals, sigma):
        return np.tile([1.0, 0.3, 1.0], (len(signals), 1))

    made = simulate(guess, Shown(), beside=linear(np.eye(2), np.zeros(2), 0.01), size=SIZE)
    assert made.beside
    truth = np.array([[1.0, v, 1.5] for v in (0.2, 0.5, 0.8)])
    same = np.tile([1.0, 0.3, 1.0], (3, 1))
    found = made.expected(same, np.full(3, 0.1), beside=truth)
    np.testing.assert_allclose(found.bias["vcyl"], 0.3 - truth[:, 1], atol=0.02)
    assert np.all((found.lower["vcyl"] < truth[:, 1]) & (truth[:, 1] < found.upper["vcyl"]))
    assert np.all(found.upper["vcyl"] - found.lower["vcyl"] < 0.45)  # without it 0.95
    with pytest.raises(ValueError, match="least-squares fit of the same signals; give it"):
        made.expected(same, np.full(3, 0.1))
    again = Performance.load(made.dump(), SPACES["smt2"])
    np.testing.assert_array_equal(again.expected(same, np.full(3, 0.1), beside=truth).bias["vcyl"], found.bias["vcyl"])


def test_an_estimator_that_reads_neighbours_is_judged_in_three_surroundings():
    """The mean of a patch: of a true change shows the share of the patch that changes; the noise is a third."""

    def mean(signals, sigma):
        return linear(np.eye(2), np.zeros(2), 1.0)(signals.mean(axis=(1, 2, 3)), sigma)

    made = simulate(mean, ShownPatches(), beside=linear(np.eye(2), np.zeros(2), 0.01), size=Size(512, 16, 2, 80))
    assert list(made.surroundings) == ["homogeneous", "edge", "lesion"]
    truth = np.array([[1.0, v, d] for v in (0.3, 0.5, 0.7) for d in (1.0, 1.5)])
    sigma = np.full(len(truth), 0.1)
    for one, share in zip(made.surroundings.values(), (1, 6 / 9, 1 / 9), strict=True):
        found = one.expected(truth, sigma, beside=truth)
        np.testing.assert_allclose(np.diagonal(found.response, axis1=1, axis2=2), share, atol=0.03)
        assert np.median(found.sd["vcyl"]) == pytest.approx(0.1 / 3, rel=0.15)
    estimate = truth + np.array([0, 0.2, 0.2])  # far from the fit beside it: no homogeneous region
    near, far = (made.expected(values, sigma, beside=truth) for values in (truth, estimate))
    np.testing.assert_allclose(near.bias["vcyl"], 0, atol=0.03)
    np.testing.assert_allclose(far.bias["vcyl"], 0.2, atol=0.06)
    assert far.response[:, 0, 0].mean() < near.response[:, 0, 0].mean() - 0.06
    again = Performance.load(made.dump(), SPACES["smt2"])
    assert again.dump() == made.dump()
    assert again.surroundings["lesion"].facts == made.surroundings["lesion"].facts


def test_what_takes_an_hour_is_simulated_where_it_is_asked_for():
    slow, quick = (LeastSquares(models.get(name)) for name in ("qmtgbloch", "mrffisp"))
    assert "--trust full" in obstacle(slow, full=False)
    assert [obstacle(slow), obstacle(quick, full=False)] == ["", ""]


def test_a_held_parameter_is_not_varied():
    estimator = LeastSquares(models.get("ivim"), bounds={"Dstar": (20.0, 20.0)})
    assert not obstacle(estimator)
    made = performance_of(estimator, DECAY, size=Size(512, 16, 4, 100), kind="gaussian")
    rng = np.random.default_rng(4)
    truth = truths_of(made.space).sample(200, rng)
    signals = Simulator(Uniform(made.space), DECAY, Noise(np.inf)).measure(truth, rng, 1, np.full(200, 0.02))
    estimate = estimator.estimate(signals, DECAY, 0.02)
    found = companions(estimator, estimate, 0.02, performance=made)
    assert set(found["response"]) == {"f", "D"}
    assert not found["bias"]["Dstar"].any()
    assert np.corrcoef(found["expectedsd"]["f"], found["sd"]["f"])[0, 1] > 0.8


def test_errors_of_the_scale_are_in_proportion_to_it(straight, places):
    truth, sigma = places
    found = performance_of(LeastSquares(models.get("smt2")), SHELLS, size=SIZE, kind="gaussian")
    larger = truth * [1000.0, 1.0, 1.0]
    one, many = found.errors(truth, sigma), found.errors(larger, 1000 * sigma)
    np.testing.assert_allclose(many.sd["S0"], 1000 * one.sd["S0"])
    np.testing.assert_allclose(many.bias["vcyl"], one.bias["vcyl"])


def test_the_spread_of_least_squares_is_the_cramer_rao_bound_where_it_is_determined():
    model = models.get("smt2")
    made = performance_of(LeastSquares(model), SHELLS, size=SIZE, kind="gaussian")
    truth = np.array([[1.0, v, d] for v in (0.3, 0.5, 0.7) for d in (1.2, 1.7, 2.2)])
    sigma = np.full(len(truth), 1 / 60)
    bound = cramer_rao_bound(model, dict(zip(model.names, truth.T, strict=True)), SHELLS, sigma, "gaussian")
    found = made.errors(truth, sigma)
    for name in ("vcyl", "lambda"):
        np.testing.assert_allclose(found.sd[name], bound[name], rtol=0.2)
        assert np.all(np.abs(found.bias[name]) < 0.7 * bound[name])


def test_intervals_hold_the_truth_of_draws_that_were_not_simulated():
    model = models.get("ivim")
    estimator = Segmented(model)
    made = performance_of(estimator, DECAY, size=Size(2048, 32, 4, 300), kind="gaussian")
    rng = np.random.default_rng(9)
    truth = truths_of(made.space).sample(4000, rng)
    sigma = np.exp(-rng.uniform(np.log(8), np.log(60), 4000))
    signals = Simulator(Uniform(made.space), DECAY, Noise(np.inf)).measure(truth, rng, 1, sigma)
    estimate = estimator.estimate(signals, DECAY, sigma)
    looked = look_at_signals(estimator, estimate, signals, DECAY, sigma, least_squares_beside(estimator))
    found = made.expected(estimate.points, sigma, looked.scores, looked.beside)
    for j, name in enumerate(made.space.names):
        held = (found.lower[name] <= truth[:, j]) & (truth[:, j] <= found.upper[name])
        assert 0.93 < held.mean() < 0.97
        assert np.corrcoef(found.sd[name], np.abs(truth[:, j] - estimate.parameters[name]))[0, 1] > 0.3
    assert np.mean(found.misfit > MISFIT) < 0.01
    assert 0.02 < np.mean(found.misfit > 1.96) < 0.09


def test_it_is_the_same_for_the_same_seed_and_another_for_another():
    first, again, other = (
        performance_of(LeastSquares(models.get("adc")), SHELLS, size=Size(128, 8, 2, 20), seed=seed).dump()
        for seed in (0, 0, 1)
    )
    assert first == again
    assert first != other


def test_a_file_gives_it_back_and_is_refused_where_it_is_another(straight, places):
    truth, sigma = places
    content = straight.dump()
    loaded = Performance.load(content, SPACES["smt2"])
    np.testing.assert_array_equal(loaded.errors(truth, sigma).bias["vcyl"], straight.errors(truth, sigma).bias["vcyl"])
    assert loaded.facts == straight.facts
    with pytest.raises(ValueError, match="shapes"):
        Performance.load(content, SPACES["smt3"])
    broken = copy(straight)
    object.__setattr__(broken, "spreads", straight.spreads * np.nan)
    with pytest.raises(ValueError, match="not finite"):
        Performance.load(broken.dump(), SPACES["smt2"])


def test_its_own_error_is_told(straight):
    """Of a straight line nothing is left but chance."""
    assert straight.facts["ErrorOfBias"]["vcyl"] < 0.2
    assert straight.facts["ErrorOfSD"]["vcyl"] < 0.1


def test_nothing_is_expected_where_nothing_was_estimated(straight):
    parameters = np.array([[[1.0, 0.5, 1.0]], [[np.nan] * 3]])
    found = straight.expected(parameters, np.full((2, 1), 0.1))
    assert found.bias["vcyl"].shape == (2, 1)
    assert np.isfinite(found.bias["vcyl"][0]).all()
    assert np.isnan(found.bias["vcyl"][1]).all()


def test_the_cache_keeps_one_for_everything_that_determines_it(tmp_path, monkeypatch):
    monkeypatch.setenv("BIDSFIT_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(monte_carlo, "LIGHT", Size(64, 8, 2, 10))
    estimator = LeastSquares(models.get("adc"))
    first = cached_performance(estimator, SHELLS, "light")
    path = next((tmp_path / "performance").glob("*.safetensors"))
    again = cached_performance(estimator, SHELLS, "light")
    assert again.dump() == first.dump()
    near = Acquisition(SHELLS.b_values * 1.0004, counts=SHELLS.counts, n_directions=SHELLS.n_directions)
    cached_performance(estimator, near, "light")  # the same protocol, but for rounding
    assert list((tmp_path / "performance").glob("*.safetensors")) == [path]
    for change in ({"kind": "gaussian"}, {"known": False}):
        cached_performance(estimator, SHELLS, "light", **change)
    cached_performance(LeastSquares(models.get("adc"), bounds={"D": (0.0, 2.0)}), SHELLS, "light")
    assert len(list((tmp_path / "performance").glob("*.safetensors"))) == 4
    path.write_bytes(b"damaged")
    assert cached_performance(estimator, SHELLS, "light").dump() == first.dump()


def test_smooth_functions_are_those_of_the_points():
    """A function of three coordinates, and its independent noise averaged out."""
    rng = np.random.default_rng(0)
    points, asked = rng.random((3000, 3)), rng.random((200, 3))

    def known(x):
        return np.column_stack([np.sin(3 * x[:, 0]) * x[:, 1], x[:, 2] ** 2])

    found = Smoother.fit(points, known(points) + 0.1 * rng.standard_normal((3000, 2)), points[:200])(asked, threads=2)
    assert np.sqrt(np.mean((found - known(asked)) ** 2)) < 0.04


def test_a_cache_that_cannot_be_written_is_no_obstacle(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("BIDSFIT_CACHE_DIR", str(tmp_path / "file"))
    monkeypatch.setattr(monte_carlo, "LIGHT", Size(64, 8, 2, 10))
    assert cached_performance(LeastSquares(models.get("adc")), SHELLS, "light").facts["Truths"] == 64


def test_an_estimator_that_learns_from_the_image_cannot_be_judged():
    assert not obstacle(LeastSquares(models.get("ivim")))
    assert "learns its prior" in obstacle(MaximumAPosteriori(models.get("ivim")))


def test_companions_are_those_of_the_performance(places):
    truth, sigma = places
    model = models.get("smt2")
    estimator = LeastSquares(model)
    made = performance_of(estimator, SHELLS, size=Size(256, 8, 4, 40))
    rng = np.random.default_rng(1)
    signals = Simulator(Uniform(made.space), SHELLS, Noise(np.inf)).measure(truth[:, 1:], rng, 1, sigma)
    estimate = estimator.estimate(signals, SHELLS, sigma)
    found = companions(estimator, estimate, sigma, performance=made)
    parameters = np.stack([estimate.parameters[name] for name in model.names], axis=1)
    expected = made.expected(parameters, sigma)
    np.testing.assert_array_equal(found["bias"]["vcyl"], expected.bias["vcyl"])
    np.testing.assert_array_equal(found["response"]["lambda"], expected.response[:, 1, 1])
    assert set(found) == {"sd", "expectedsd", "bias", "rmse", "response", "q025", "q975", "crb"}
    assert "bias" not in companions(estimator, estimate, sigma)
