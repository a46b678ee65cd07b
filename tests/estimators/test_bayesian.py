"""The posterior against brute force, against its promise (coverage), and in its limits."""

from __future__ import annotations

import json

import numpy as np
import pytest

from bidsfit import Acquisition, LeastSquares, Status, models
from bidsfit.estimators.bayesian import Bayesian
from bidsfit.exceptions import UnsupportedProtocolError
from bidsfit.information import cramer_rao_bound
from bidsfit.noise import add_noise, rician_mean

ACQUISITIONS = {
    "adc": Acquisition([0, 100, 300, 500, 800, 1000]),
    "ivim": Acquisition([0, 5, 10, 20, 30, 40, 60, 80, 100, 150, 200, 300, 400, 500, 600, 800]),
    "smt2": Acquisition([0, 1000, 2000, 3500, 5000], counts=[8] + [32] * 4, n_directions=[1] + [32] * 4),
    "smt3": Acquisition([0, 700, 1000, 2000, 3500, 5000], counts=[8] + [32] * 5, n_directions=[1] + [32] * 5),
}


def slow(*values: object):
    """A case that takes many seconds."""
    return pytest.param(*values, marks=pytest.mark.slow)


def drawn(name: str, n: int, snr: float, seed: int = 0, **options: object):
    """Voxels drawn from the prior, with noise: estimator, truth (n, n_parameters), averaged signals."""
    model, acquisition, rng = models.get(name), ACQUISITIONS[name], np.random.default_rng(seed)
    estimator = Bayesian(model, **{"noise": "gaussian"} | options)
    parameters = {"S0": np.ones(4 * n)} | {k: prior.sample(4 * n, rng) for k, prior in estimator.priors.items()}
    truth = model.parameter_array(parameters)
    matrix, limits = model.linear_constraints
    truth = truth[(truth @ matrix.T <= limits).all(axis=1)][:n]
    signals = model.signal(truth, acquisition)
    if options.get("noise") == "rician":
        counts = acquisition.weights.astype(int)
        each = add_noise(np.repeat(signals, counts, axis=1), 1 / snr, "rician", rng)
        return estimator, truth, np.add.reduceat(each, np.cumsum(counts) - counts, axis=1) / counts
    return estimator, truth, signals + rng.standard_normal(signals.shape) / snr / np.sqrt(acquisition.weights)


def summaries(model, estimate) -> np.ndarray:
    """Mean, sd and quantiles, shape (4, n_parameters, n_voxels)."""
    tables = (estimate.parameters, *(estimate.statistics[s] for s in ("sd", "q025", "q975")))
    return np.array([[table[name] for name in model.names] for table in tables])


@pytest.mark.parametrize(("name", "steps"), [("adc", 5000), slow("ivim", 64), ("smt2", 400), slow("smt3", 64)])
@pytest.mark.parametrize(("sigma", "snr"), [("marginalised", 10), ("known", 30)])
def test_it_agrees_with_a_dense_grid(name: str, steps: int, sigma: str, snr: float) -> None:
    snr = snr / 4 if name.startswith("smt") else snr  # the dense grid resolves no narrower posteriors
    estimator, _, signals = drawn(name, 8, snr, sigma=sigma)
    model, acquisition = estimator.model, ACQUISITIONS[name]
    found = summaries(model, estimator.estimate(signals, acquisition, 1 / snr))
    weights, n = acquisition.weights, len(acquisition)
    u = (np.arange(steps) + 0.5) / steps
    axes = np.meshgrid(*(prior.quantile(u) for prior in estimator.priors.values()), indexing="ij")
    nodes = np.column_stack([np.ones(axes[0].size), *(axis.ravel() for axis in axes)])
    matrix, limits = model.linear_constraints
    nodes = nodes[(nodes @ matrix.T <= limits).all(axis=1)]
    phi = model.signal(nodes, acquisition)
    norm = np.sqrt(phi**2 @ weights)
    errors = []
    for y, ours in zip(signals, found.transpose(2, 0, 1), strict=True):
        c = phi @ (weights * y) / norm
        rest = y**2 @ weights - c**2
        log_p = -np.log(norm) - (rest * snr**2 / 2 if sigma == "known" else (n - 1) / 2 * np.log(rest))
        p = np.exp(log_p - log_p.max())
        p /= p.sum()
        spread2 = (1 / snr**2 if sigma == "known" else rest / (n - 3)) / norm**2
        mean = p @ (c / norm)
        errors.append([abs(ours[0, 0] - mean) / ours[1, 0]])
        sd = np.sqrt(p @ ((c / norm - mean) ** 2 + spread2))
        errors.append([abs(ours[1, 0] / sd - 1)])
        for j in range(1, nodes.shape[1]):
            mean = p @ nodes[:, j]
            sd = np.sqrt(p @ (nodes[:, j] - mean) ** 2)
            order = np.argsort(nodes[:, j])
            quantiles = np.interp((0.025, 0.975), np.cumsum(p[order]), nodes[order, j])
            errors.append(np.abs(ours[:, j] - [mean, sd, *quantiles]) / sd)
    moments, ends = np.concatenate([e[:2] for e in errors]), np.concatenate([e[2:] for e in errors])
    assert np.median(moments) < 0.02
    assert np.percentile(moments, 95) < 0.1
    assert np.median(ends) < 0.1  # some of it the grid's own


@pytest.mark.parametrize(
    ("name", "snr", "sigma", "noise"),
    [
        slow("ivim", 50, "marginalised", "gaussian"),
        slow("smt2", 20, "known", "gaussian"),
        ("smt2", 50, "marginalised", "gaussian"),
        slow("smt3", 50, "marginalised", "gaussian"),
        ("ivim", 10, "known", "rician"),
        slow("ivim", 25, "known", "rician"),
        ("smt2", 10, "known", "rician"),
        slow("smt2", 25, "known", "rician"),
        slow("smt3", 10, "known", "rician"),
        slow("smt3", 25, "known", "rician"),
    ],
)
def test_intervals_hold_the_truth_as_often_as_they_say(name: str, snr: float, sigma: str, noise: str) -> None:
    estimator, truth, signals = drawn(name, 3000, snr, seed=1, sigma=sigma, noise=noise)
    estimate = estimator.estimate(signals, ACQUISITIONS[name], 1 / snr, threads=2)
    for j, parameter in enumerate(estimator.model.names):
        lower, upper = (estimate.statistics[s][parameter] for s in ("q025", "q975"))
        assert 0.93 <= np.mean((lower <= truth[:, j]) & (truth[:, j] <= upper)) <= 0.97, parameter


def test_the_bias_of_magnitudes_is_part_of_the_likelihood() -> None:
    model, acquisition = models.get("ivim"), Acquisition(ACQUISITIONS["ivim"].b_values, counts=np.full(16, 10**6))
    truth = {"S0": np.full(3, 50.0), "f": np.array([0.1, 0.2, 0.4]), "D": np.array([1.0, 2.0, 3.0]), "Dstar": 20.0}
    signals = rician_mean(model.signal(truth, acquisition), 10.0)
    found = {n: Bayesian(model, noise=n).estimate(signals, acquisition, 10.0) for n in ("rician", "gaussian")}
    for name in model.names:
        away = (found["rician"].parameters[name] - truth[name]) / found["rician"].statistics["sd"][name]
        assert np.abs(away).max() < 0.2, name
    assert np.all(found["gaussian"].parameters["D"] < truth["D"] - 20 * found["gaussian"].statistics["sd"]["D"])
    without = Bayesian(model, sigma="marginalised").estimate(signals, acquisition, 10.0)
    gaussian = Bayesian(model, sigma="marginalised", noise="gaussian").estimate(signals, acquisition)
    assert np.array_equal(without.parameters["D"], gaussian.parameters["D"])  # an unknown bias is not removed


def test_averages_may_have_a_variance_of_their_own() -> None:
    estimator, _, signals = drawn("ivim", 20, 20)
    b, noise, fit = ACQUISITIONS["ivim"].b_values, np.full(20, 0.05), estimator.prepare
    twice = fit(Acquisition(b, counts=np.full(16, 2)))(signals, noise, variance=np.full((20, 16), 0.05**2 / 2))
    once = fit(Acquisition(b))(signals, noise)
    assert twice.parameters == pytest.approx(once.parameters)
    assert twice.statistics["sd"] == pytest.approx(once.statistics["sd"])


@pytest.mark.parametrize("name", ["adc", "ivim", "smt2"])
def test_with_little_noise_it_is_least_squares_with_the_cramer_rao_bound(name: str) -> None:
    model, acquisition, snr = models.get(name), ACQUISITIONS[name], 2000
    truth = {"S0": 300.0, "f": 0.2, "D": 1.0, "Dstar": 20.0, "vcyl": 0.5, "lambda": 1.8}
    truth = {parameter: np.full(40, truth[parameter]) for parameter in model.names}
    noise = np.random.default_rng(0).standard_normal((40, len(acquisition))) * 300 / snr
    signals = model.signal(truth, acquisition) + noise / np.sqrt(acquisition.weights)
    estimate = Bayesian(model, sigma="known", noise="gaussian").estimate(signals, acquisition, 300 / snr)
    squares = LeastSquares(model).estimate(signals, acquisition)
    bound = cramer_rao_bound(model, truth, acquisition, 300 / snr)
    for parameter in model.names:
        distance = (estimate.parameters[parameter] - squares.parameters[parameter]) / bound[parameter]
        assert np.abs(distance).max() < 0.1, parameter
        assert estimate.statistics["sd"][parameter] == pytest.approx(bound[parameter], rel=0.06), parameter


def test_signals_without_noise_give_the_truth() -> None:
    estimator, truth, _ = drawn("ivim", 30, 1)
    estimate = estimator.estimate(estimator.model.signal(truth, ACQUISITIONS["ivim"]), ACQUISITIONS["ivim"])
    assert np.median(np.abs(estimate.parameters["D"] - truth[:, 2])) < 1e-3


@pytest.mark.parametrize("name", ["ivim", slow("smt3")])
def test_bounds_and_constraints_hold(name: str) -> None:
    estimator, _, signals = drawn(name, 300, 5)
    estimate = estimator.estimate(signals, ACQUISITIONS[name])
    found = summaries(estimator.model, estimate)
    matrix, limits = estimator.model.linear_constraints
    assert np.all(matrix @ found[0] <= limits[:, None] + 1e-9)
    for (low, high), (mean, _, lower, upper) in zip(estimator.bounds, found.transpose(1, 0, 2), strict=True):
        assert np.all((low <= lower) & (lower <= mean + 1e-12) & (mean <= upper + 1e-12) & (upper <= high))


def test_equal_bounds_fix_a_parameter() -> None:
    _, _, signals = drawn("ivim", 20, 30)
    estimate = Bayesian(models.get("ivim"), bounds={"Dstar": (20.0, 20.0)}).estimate(signals, ACQUISITIONS["ivim"])
    assert np.all(estimate.parameters["Dstar"] == 20)
    assert np.all(estimate.statistics["sd"]["Dstar"] == 0)
    assert np.all(estimate.statistics["q975"]["Dstar"] == 20)
    assert np.all(estimate.statistics["sd"]["D"] > 0)


def test_threads_and_scale_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bidsfit.estimators.estimator.Estimator.chunk", 16)
    estimator, _, signals = drawn("ivim", 64, 20)
    one = summaries(estimator.model, estimator.estimate(signals, ACQUISITIONS["ivim"]))
    two = summaries(estimator.model, estimator.estimate(signals, ACQUISITIONS["ivim"], threads=2))
    assert np.array_equal(one, two)
    scaled = summaries(estimator.model, estimator.estimate(signals * 512, ACQUISITIONS["ivim"]))
    assert scaled[:, 0] == pytest.approx(512 * one[:, 0])
    assert scaled[:, 1:] == pytest.approx(one[:, 1:])


def test_unusable_voxels_have_a_status_and_no_value() -> None:
    _, _, signals = drawn("ivim", 3, 30)
    signals[0, 3], signals[1] = np.nan, 0.0
    estimate = Bayesian(models.get("ivim")).estimate(signals, ACQUISITIONS["ivim"])
    assert list(estimate.status[:2]) == [Status.NOT_FINITE, Status.NO_SIGNAL]
    assert np.isnan(estimate.statistics["q025"]["D"][:2]).all()
    assert np.isfinite(estimate.parameters["D"][2])


def test_it_says_where_the_data_are_silent() -> None:
    model, acquisition = models.get("ivim"), ACQUISITIONS["ivim"]
    signals = model.signal({"S0": 1.0, "f": np.array([0.0, 0.3]), "D": 1.0, "Dstar": 20.0}, acquisition)
    estimate = Bayesian(model, sigma="known").estimate(signals, acquisition, 0.01)
    assert list(estimate.status) == [Status.PRIOR_ONLY, Status.CONVERGED]


def test_priors_are_stated() -> None:
    estimator = Bayesian(models.get("ivim"), bounds={"f": (0.0, 0.7)})
    options = json.loads(json.dumps(estimator.options))
    assert options["priors"]["f"] == {"distribution": "beta", "a": 1.0, "b": 3.0, "bounds": [0.0, 0.7]}
    assert "Dstar log-normal (95 % from 6 to 150) from 5 to 200" in estimator.methods
    assert "D <= Dstar" in estimator.methods


def test_what_it_cannot_do_it_refuses() -> None:
    model = models.get("smt2")
    with pytest.raises(ValueError, match="sigma must be"):
        Bayesian(model, sigma="unknown")
    with pytest.raises(ValueError, match="noise must be"):
        Bayesian(model, noise="white")
    with pytest.raises(ValueError, match="averaging cannot be 'none'"):
        Bayesian(model, averaging="none")
    with pytest.raises(ValueError, match="has 0 that the bounds leave free"):
        Bayesian(model, bounds={"vcyl": (0.5, 0.5), "lambda": (1.0, 1.0)})
    short = Acquisition([0, 1000, 2000], n_directions=[1, 30, 30])
    with pytest.raises(UnsupportedProtocolError, match="to tell the noise; the protocol has 3"):
        Bayesian(model, sigma="marginalised").estimate(np.ones((1, 3)), short)
    for sigma in ("known", "auto"):
        with pytest.raises(ValueError, match="needs the standard deviation"):
            Bayesian(model, sigma=sigma).estimate(np.ones((1, 3)), short)


def test_the_noise_is_given_where_the_protocol_does_not_tell_it() -> None:
    model = models.get("smt2")
    short = Acquisition([0, 1000, 2500], counts=[8, 30, 30], n_directions=[1, 30, 30])
    signals = model.signal({"S0": 1.0, "vcyl": 0.5, "lambda": np.array([1.5, 2.0])}, short)
    estimates = [Bayesian(model, sigma=sigma).estimate(signals, short, 0.05) for sigma in ("auto", "known")]
    assert [estimate.notes for estimate in estimates] == [{"noise": "given"}] * 2
    assert np.array_equal(*(estimate.parameters["lambda"] for estimate in estimates))


def test_the_noise_level_is_used_where_it_is_known() -> None:
    _, _, signals = drawn("ivim", 30, 30)
    noise = np.where(np.arange(30) < 15, 1 / 30, np.nan)
    options = {sigma: Bayesian(models.get("ivim"), sigma=sigma) for sigma in ("auto", "known", "marginalised")}
    found = {s: options[s].estimate(signals, ACQUISITIONS["ivim"], noise) for s in options}
    assert found["auto"].notes == {"noise": "given; integrated out where it is not known"}
    assert found["marginalised"].notes == {"noise": "integrated out"}
    for statistic in ("sd", "q025", "q975"):
        auto, known, marginalised = (found[sigma].statistics[statistic]["D"] for sigma in options)
        assert np.array_equal(auto[:15], known[:15])
        assert np.array_equal(auto[15:], marginalised[15:])
    assert np.all(found["known"].status[15:] == Status.NO_NOISE)
    without = options["auto"].estimate(signals, ACQUISITIONS["ivim"])
    assert without.notes == {"noise": "integrated out"}
    assert np.array_equal(without.parameters["D"], found["marginalised"].parameters["D"])


def test_a_signal_next_to_nothing_has_a_status_and_no_value() -> None:
    _, _, signals = drawn("ivim", 2, 30)
    estimate = Bayesian(models.get("ivim")).estimate(signals * [[1.0], [1e-300]], ACQUISITIONS["ivim"])
    assert list(estimate.status) == [Status.CONVERGED, Status.NO_SIGNAL]
