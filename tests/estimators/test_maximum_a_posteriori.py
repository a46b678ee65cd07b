"""The mode of the posterior against SciPy on the same objective, its prior, and what must hold in every voxel."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy import stats
from scipy.optimize import minimize

from bidsfit import Acquisition, LeastSquares, Status, models
from bidsfit.estimators import maximum_a_posteriori as base
from bidsfit.estimators.maximum_a_posteriori import INSET, MaximumAPosteriori, fit_prior
from bidsfit.exceptions import UnusableInputError
from bidsfit.noise import add_noise

ACQUISITIONS = {
    "ivim": Acquisition([0, 5, 10, 20, 30, 40, 60, 150, 300, 500, 700]),
    "smt3": Acquisition([0, 700, 1000, 2000, 3500, 5000], counts=[8] + [32] * 5, n_directions=[1] + [32] * 5),
}
IVIM = ACQUISITIONS["ivim"]
#: What the voxels are drawn from: distributions of the families that are fitted.
POPULATIONS = {
    "ivim": {"f": stats.beta(4, 12), "D": stats.lognorm(0.25, scale=1.2), "Dstar": stats.lognorm(0.4, scale=30)},
    "smt3": {"vcyl": stats.beta(6, 8), "vcsf": stats.beta(2, 12), "lambda": stats.lognorm(0.15, scale=1.8)},
}


def simulated(name: str, n: int, snr: float, scale: float = 1.0) -> tuple[dict[str, np.ndarray], np.ndarray]:
    model, acquisition, rng = models.get(name), ACQUISITIONS[name], np.random.default_rng(3)
    truth = {k: population.rvs(2 * n, random_state=rng) for k, population in POPULATIONS[name].items()}
    truth = model.parameter_array({"S0": np.full(2 * n, scale)} | truth)
    estimator = LeastSquares(model)
    allowed = np.all((truth >= estimator.bounds[:, 0]) & (truth <= estimator.bounds[:, 1]), axis=1)
    matrix, limits = model.linear_constraints
    truth = truth[allowed & (truth @ matrix.T <= limits).all(axis=1)][:n]
    sigma = scale / snr / np.sqrt(acquisition.weights)
    return dict(zip(model.names, truth.T, strict=True)), add_noise(
        model.signal(truth, acquisition), sigma, "gaussian", rng
    )


def as_array(model, estimate) -> np.ndarray:
    return np.stack([estimate.parameters[name] for name in model.names], axis=1)


def densities(estimate) -> dict:
    """The prior, from what the notes say of it."""
    found = {}
    for name, facts in estimate.notes["prior"].items():
        found[name] = getattr(stats, facts["distribution"])(**{k: v for k, v in facts.items() if k != "distribution"})
    return found


@pytest.mark.parametrize(
    ("name", "n", "snr"), [("ivim", 30, 20), ("ivim", 15, 5), pytest.param("smt3", 10, 30, marks=pytest.mark.slow)]
)
def test_the_mode_is_as_high_as_that_of_scipy(name: str, n: int, snr: float) -> None:
    model, acquisition = models.get(name), ACQUISITIONS[name]
    _, signals = simulated(name, 1000, snr)
    signals /= signals[:, :1]
    estimator = MaximumAPosteriori(model)
    estimate = estimator.estimate(signals, acquisition)
    prior = densities(estimate)
    start = as_array(model, LeastSquares(model).estimate(signals[:n], acquisition))
    tops = [2.0 if k == "S0" else high for k, (_, high) in zip(model.names, estimator.bounds, strict=True)]
    bounds = [(max(low, 1e-6 * t), t * (1 - 1e-6)) for t, (low, _) in zip(tops, estimator.bounds, strict=True)]
    (matrix, limits), design = model.linear_constraints, model.design(acquisition)
    signal, jacobian = np.empty(len(acquisition)), np.empty((len(acquisition), len(model.names)))

    def objective(x: np.ndarray, y: np.ndarray) -> float:
        if np.any(matrix @ x > limits + 1e-9):
            return 1e8
        model.kernel(x, design, signal, jacobian)
        squares = np.sum(acquisition.weights * (y - signal) ** 2)
        beliefs = [np.log(prior[k].pdf(value) + 1e-8) for k, value in zip(model.names, x, strict=True)]
        return 0.5 * (y.size + 1) * np.log(squares) - sum(beliefs)

    behind = 0
    for y, ours, x in zip(signals, as_array(model, estimate), start, strict=False):
        theirs = minimize(objective, np.clip(x, *np.transpose(bounds)), (y,), "L-BFGS-B", bounds=bounds)
        behind += objective(ours, y) > theirs.fun + 1e-4
    assert behind <= 0.01 * n


@pytest.mark.parametrize("name", ["ivim", "smt3"])
def test_the_prior_is_that_of_the_voxels(name: str) -> None:
    _, signals = simulated(name, 4000, 2000, scale=300.0)
    estimate = MaximumAPosteriori(models.get(name)).estimate(signals, ACQUISITIONS[name])
    prior = densities(estimate)
    assert prior["S0"].mean() == pytest.approx(1, abs=0.02)
    assert 3000 < estimate.notes["prior_voxels"] <= 4000
    for parameter, population in POPULATIONS[name].items():
        for moment in ("mean", "std"):
            expected = getattr(population, moment)()
            assert getattr(prior[parameter], moment)() == pytest.approx(expected, rel=0.15), (parameter, moment)
    notes = json.loads(json.dumps(estimate.notes, allow_nan=False))
    assert notes == estimate.notes
    assert list(notes["prior"]) == list(models.get(name).names)


def test_noisy_voxels_are_pulled_to_the_prior_and_clear_ones_are_not() -> None:
    ivim = models.get("ivim")
    estimators = MaximumAPosteriori(ivim), LeastSquares(ivim)
    truth, signals = simulated("ivim", 2000, 10)
    found, free = (e.estimate(signals, IVIM).parameters for e in estimators)
    for name in POPULATIONS["ivim"]:
        errors = [np.sqrt(np.mean((p[name] - truth[name]) ** 2)) for p in (found, free)]
        assert errors[0] < 0.75 * errors[1], name
        assert np.std(found[name]) < np.std(free[name]), name
    _, signals = simulated("ivim", 2000, 2000)
    found, free = (e.estimate(signals, IVIM).parameters for e in estimators)
    for name in POPULATIONS["ivim"]:
        assert np.median(np.abs(found[name] / free[name] - 1)) < 0.01, name


def test_too_few_voxels_are_refused() -> None:
    _, signals = simulated("ivim", 1000, 20)
    estimator = MaximumAPosteriori(models.get("ivim"))
    with pytest.raises(UnusableInputError, match=r"'bayesmap'.* at least 100 .*found \d\d \(of 90 voxels\)"):
        estimator.estimate(signals[:90], IVIM)
    with pytest.raises(UnusableInputError, match=r"found 0 \(of 0 voxels\)"):
        estimator.estimate(signals[:0], IVIM)


def test_the_prior_takes_an_even_part_of_many_voxels(monkeypatch) -> None:
    monkeypatch.setattr(base, "MOST", 300)
    monkeypatch.setattr(base.Estimator, "chunk", 50)
    _, signals = simulated("ivim", 1000, 20)
    estimator = MaximumAPosteriori(models.get("ivim"))
    part = estimator.estimate(signals[::4], IVIM, 0.05)
    whole = estimator.estimate(signals, IVIM, np.full(1000, 0.05))
    assert whole.notes == part.notes
    assert as_array(estimator.model, whole)[::4] == pytest.approx(as_array(estimator.model, part))


def test_signals_of_any_scale_by_any_number_of_threads_give_the_same() -> None:
    _, signals = simulated("ivim", 9000, 20)
    estimator = MaximumAPosteriori(models.get("ivim"))
    one = estimator.estimate(signals, IVIM)
    more = estimator.estimate(1024 * signals, IVIM, threads=3)
    assert one.notes == more.notes
    assert np.array_equal(one.status, more.status)
    for name in ("f", "D", "Dstar"):
        assert np.array_equal(one.parameters[name], more.parameters[name])
    assert more.parameters["S0"] == pytest.approx(1024 * one.parameters["S0"])
    assert more.rmse == pytest.approx(1024 * one.rmse)


def test_bounds_and_constraints_hold_in_every_voxel() -> None:
    bounds = {"f": (0.0, 0.3), "D": (0.0, 5.0), "Dstar": (0.5, 40.0)}
    _, signals = simulated("ivim", 3000, 5)
    estimate = MaximumAPosteriori(models.get("ivim"), bounds=bounds).estimate(signals, IVIM)
    for name, (low, high) in bounds.items():
        assert np.all((estimate.parameters[name] >= low) & (estimate.parameters[name] <= high)), name
    assert np.all(estimate.parameters["D"] <= estimate.parameters["Dstar"])
    assert estimate.notes["prior"]["f"]["scale"] == 0.3
    at_end = estimate.parameters["f"] >= 0.3 * (1 - INSET)
    assert at_end.any()
    assert np.all(estimate.status[at_end] == Status.AT_BOUND)


@pytest.mark.parametrize(("a", "b"), [(3.0, 5.0), (0.4, 3.0), (3.0, 0.4), (0.3, 0.4)])
def test_a_beta_is_finite_at_its_ends_and_else_the_most_likely(a: float, b: float) -> None:
    values = 0.7 * np.clip(stats.beta(a, b).rvs(2000, random_state=np.random.default_rng(0)), 1e-5, 1 - 1e-5)

    def misfit(x: np.ndarray) -> float:
        return -float(np.mean(stats.beta(*x, scale=0.7).logpdf(values)))

    best = minimize(misfit, (2.0, 2.0), bounds=[(1, None)] * 2)
    arguments = fit_prior("beta", values, (0.0, 0.7)).arguments
    assert [arguments["a"], arguments["b"]] == pytest.approx(best.x, rel=1e-3)


def test_equal_bounds_fix_a_parameter() -> None:
    _, signals = simulated("ivim", 1000, 20)
    estimator = MaximumAPosteriori(models.get("ivim"), bounds={"Dstar": (30.0, 30.0), "f": (0.0, 0.7)})
    estimate = estimator.estimate(signals, IVIM)
    assert np.all(estimate.parameters["Dstar"] == 30)
    assert set(estimate.notes["prior"]) == {"S0", "f", "D"}
    assert "Dstar lognormal" not in estimator.methods
    assert "D lognormal" in estimator.methods


def test_voxels_that_cannot_be_fitted_are_left_out() -> None:
    _, signals = simulated("ivim", 500, 20)
    signals[3, 4], signals[5] = np.nan, 0
    estimate = MaximumAPosteriori(models.get("ivim")).estimate(signals, IVIM)
    assert estimate.status[[3, 5]].tolist() == [Status.NOT_FINITE, Status.NO_SIGNAL]
    table = as_array(models.get("ivim"), estimate)
    assert np.isnan(table[[3, 5]]).all()
    assert np.isfinite(np.delete(table, [3, 5], axis=0)).all()
    assert estimate.notes["prior_voxels"] <= 498


def test_equal_voxels_without_noise_are_found() -> None:
    truth = {"S0": 100.0, "f": 0.2, "D": 1.0, "Dstar": 20.0}
    signals = np.tile(models.get("ivim").signal(truth, IVIM), (150, 1))
    estimate = MaximumAPosteriori(models.get("ivim")).estimate(signals, IVIM)
    for name, value in truth.items():
        assert estimate.parameters[name] == pytest.approx(value, rel=1e-3), name
    json.dumps(estimate.notes, allow_nan=False)


def test_warming_up_needs_no_data_and_changes_no_estimate() -> None:
    _, signals = simulated("ivim", 500, 20)
    fresh, warm = (MaximumAPosteriori(models.get("ivim")) for _ in range(2))
    warm.warm_up(IVIM)
    np.testing.assert_array_equal(*(as_array(fresh.model, each.estimate(signals, IVIM)) for each in (fresh, warm)))


def test_debiasing_needs_the_noise_level() -> None:
    estimator = MaximumAPosteriori(models.get("ivim"), bounds={"f": (0.0, 0.01)}, debias=True)
    estimator.warm_up(IVIM)
    with pytest.raises(ValueError, match=r"'bayesmap' needs the standard deviation"):
        estimator.estimate(np.ones((200, len(IVIM))), IVIM)


def test_parameters_that_may_be_negative_are_refused() -> None:
    with pytest.raises(ValueError, match=r"Dxy, Dxz, Dyz of 'dti' may be negative"):
        MaximumAPosteriori(models.get("dti"))
