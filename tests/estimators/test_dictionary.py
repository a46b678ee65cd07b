"""Dictionary matching: what it finds, and how its parts are what they say."""

import numpy as np
import pytest

from bidsfit import estimators, models
from bidsfit.acquisition import Acquisition
from bidsfit.estimators import dictionary
from bidsfit.estimators.dictionary import Dictionary
from bidsfit.estimators.estimator import Status
from bidsfit.models.space import ParameterSpace
from bidsfit.phantom.tissue import RECIPES

B_VALUES = (0, 10, 20, 30, 50, 80, 100, 200, 400, 800)
BOUNDS = {"f": (0.0, 0.7), "D": (0.1, 4.0), "Dstar": (5.0, 200.0)}


def truths(model, bounds, n=300, seed=0):
    return ParameterSpace(model, bounds).sample(n, np.random.default_rng(seed))


def test_noise_free_signals_give_the_truth_back():
    """In any unit; the error left after a step from an entry falls with the fourth power of their distance."""
    model = models.get("ivim")
    truth = truths(model, {"f": (0.1, 0.5), "D": (0.5, 2.5), "Dstar": (15, 80)})
    signals = 300 * model.signal(np.column_stack([np.ones(len(truth)), truth]), Acquisition(B_VALUES))
    errors = []
    for entries in (1 << 9, 1 << 15):
        found = Dictionary(model, bounds=BOUNDS, entries=entries).estimate(signals, Acquisition(B_VALUES))
        assert (found.status == Status.CONVERGED).mean() > 0.95
        np.testing.assert_allclose(np.median(found.parameters["S0"]), 300, rtol=0.01)
        errors.append(np.median(np.abs(np.column_stack([found.parameters[n] for n in BOUNDS]) - truth), axis=0))
    np.testing.assert_array_less(errors[1], errors[0] / 5)  # 64 times as many: a quarter of the distance, a sixteenth
    np.testing.assert_array_less(errors[1], [0.005, 0.01, 1.0])


@pytest.mark.parametrize(
    ("name", "acquisition"), [("ivim", Acquisition(B_VALUES)), ("adc", Acquisition((0, 500, 1000)))]
)
def test_it_is_as_good_as_least_squares(name, acquisition):
    """With noise the residuals are those of the best fit, within a percent."""
    model = models.get(name)
    bounds = BOUNDS if name == "ivim" else {"D": (0.1, 4.0)}
    truth = truths(model, bounds)
    clean = model.signal(np.column_stack([np.ones(len(truth)), truth]), acquisition)
    signals = clean + 0.02 * np.random.default_rng(1).standard_normal(clean.shape)
    best = estimators.get("lsq")(model, bounds=bounds, intervals="none").estimate(signals, acquisition)
    found = Dictionary(model, bounds=bounds, entries=1 << 14).estimate(signals, acquisition)
    assert (found.rmse < best.rmse * (1 - 1e-6)).mean() < 0.05  # where least squares ends in a worse minimum
    assert found.rmse.mean() == pytest.approx(best.rmse.mean(), rel=0.01)
    rmse = [
        np.sqrt(np.mean((one.parameters["D"] - truth[:, -2 if name == "ivim" else 0]) ** 2)) for one in (found, best)
    ]
    assert rmse[0] < 1.1 * rmse[1]


def test_the_nearest_entry_has_the_largest_scalar_product(monkeypatch):
    """Without the step, estimates are those of a search through all entries."""
    model, acquisition = models.get("adc"), Acquisition((0, 200, 500, 1000))
    monkeypatch.setattr(dictionary.np.linalg, "solve", lambda normal, right: 0 * right)
    made = Dictionary(model, bounds={"D": (0.1, 4.0)}, entries=64)
    rng = np.random.default_rng(0)
    signals = np.exp(-acquisition.b_values * 1e-3) + 0.1 * rng.standard_normal((50, 4))
    found = made.estimate(signals, acquisition).parameters["D"]
    grid = np.unique(found)
    assert 5 < grid.size < 64
    entries = np.exp(-np.outer(grid, acquisition.b_values * 1e-3))
    entries /= np.linalg.norm(entries, axis=1, keepdims=True)
    np.testing.assert_allclose(found, grid[(signals @ entries.T).argmax(axis=1)])


def test_bounds_and_constraints_hold():
    model = models.get("ivim")
    bounds = {"f": (0.0, 0.3), "D": (0.5, 2.0), "Dstar": (1.0, 30.0)}
    signals = np.random.default_rng(0).uniform(0.01, 1, (200, len(B_VALUES)))
    found = Dictionary(model, bounds=bounds, entries=1 << 10).estimate(signals, Acquisition(B_VALUES))
    for name, (low, high) in bounds.items():
        assert low <= found.parameters[name].min()
        assert found.parameters[name].max() <= high
    assert np.all(found.parameters["D"] <= found.parameters["Dstar"] + 1e-9)
    at_bound = np.any([np.isin(found.parameters[name], pair) for name, pair in bounds.items()], axis=0)
    assert at_bound.any()
    assert set(found.status[at_bound]) <= {Status.AT_BOUND}


def test_models_whose_entries_would_lie_too_far_apart_are_refused():
    with pytest.raises(ValueError, match="at most 5 parameters, and 'dti' has 6"):
        Dictionary(models.get("dti"))
    bounds = dict.fromkeys(("Dxy", "Dxz", "Dyz"), (0.0, 0.0))
    assert Dictionary(models.get("dti"), bounds=bounds, entries=64).entries == 64


def test_it_can_be_asked_for_by_name_and_needs_entries():
    assert estimators.get("dictionary") is Dictionary
    assert Dictionary(models.get("adc"), entries=1000).options["entries"] == 1024
    with pytest.raises(ValueError, match="needs entries"):
        Dictionary(models.get("adc"), entries=0)


@pytest.fixture(scope="module")
def fingerprints():
    """Coefficients of any phase: acquisition, parameters and signals."""
    acquisition, rng = RECIPES["mrffisp"].series, np.random.default_rng(0)
    t1 = np.exp(rng.uniform(np.log(400), np.log(3000), 100))
    t2 = t1 * rng.uniform(0.05, 0.2, 100)
    truth = np.column_stack([np.full(100, 50.0), t1, t2, rng.uniform(-3.1, 3.1, 100), np.ones(100)])
    return acquisition, truth, models.get("mrffisp").signal(truth, acquisition)


def test_complex_signals_of_any_phase_are_matched(fingerprints, monkeypatch):
    """In blocks or as a whole, and about as well as by least squares."""
    acquisition, truth, clean = fingerprints
    model, rng = models.get("mrffisp"), np.random.default_rng(1)
    signals = clean + rng.standard_normal(clean.shape) + 1j * rng.standard_normal(clean.shape)
    made = Dictionary(model, entries=1 << 12)
    exact = made.estimate(clean, acquisition).parameters
    assert np.abs(np.angle(np.exp(1j * (exact["phase"] - truth[:, 3])))).max() < 1e-3
    for j, name in enumerate(("S0", "T1", "T2")):
        assert np.median(np.abs(exact[name] / truth[:, j] - 1)) < 2e-3
    found, best = made.estimate(signals, acquisition), estimators.get("lsq")(model).estimate(signals, acquisition)
    assert found.rmse.mean() == pytest.approx(best.rmse.mean(), rel=0.01)
    monkeypatch.setattr(dictionary, "LARGEST_BLOCK", 1 << 13)
    other = Dictionary(model, entries=1 << 12).estimate(signals, acquisition)
    np.testing.assert_allclose(other.parameters["T1"], found.parameters["T1"], rtol=1e-2)


def test_relaxation_times_are_covered_by_their_logarithms():
    entries = Dictionary(models.get("mrffisp"), entries=1 << 10)._entries()
    t1, t2 = np.exp(np.random.default_rng(0).uniform(np.log([[50], [5]]), np.log([[6000], [3000]]), (2, 100_000)))
    assert np.median(entries, axis=0) == pytest.approx([np.median(t[t2 < t1]) for t in (t1, t2)], rel=0.05)


def test_it_is_made_once_for_an_acquisition(fingerprints):
    acquisition = fingerprints[0]
    made = Dictionary(models.get("mrffisp"), entries=64)
    assert made.prepare(acquisition) is made.prepare(acquisition)
    assert made.prepare(acquisition.frames) is not made.prepare(acquisition)
