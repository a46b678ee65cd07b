"""An estimator's own table, for estimators whose table is known."""

from __future__ import annotations

import numpy as np
import pytest

from bidsfit import Acquisition, LeastSquares, models
from bidsfit.information import cramer_rao_bound
from bidsfit.models.space import ParameterSpace
from bidsfit.simulation.distributions import Uniform
from bidsfit.simulation.simulator import Noise, Simulator
from bidsfit.training.checks import require_performance
from bidsfit.trust import performance
from bidsfit.trust.metrics import accuracy
from bidsfit.trust.performance import (
    POINTS,
    PerformanceLookup,
    exponents_of,
    grid,
    performance_of,
    performance_table,
    scattered,
)

SHELLS = Acquisition([0, 1000, 2000, 3500, 5000], counts=[8, 32, 32, 32, 32], n_directions=[1, 32, 32, 32, 32])
SPACES = {name: ParameterSpace(models.get(name)) for name in ("smt2", "smt3", "adc")}


def simulator(name="smt2", snr=25.0):
    return Simulator(Uniform(SPACES[name]), SHELLS, Noise(snr))


@pytest.mark.parametrize("name", SPACES)
def test_the_grid_covers_the_space(name):
    space = SPACES[name]
    points = grid(space)
    p = len(space.names)
    assert points.shape == (POINTS[p] ** p, p)
    assert space.contains(points).all()
    np.testing.assert_array_equal(points.min(axis=0), space.bounds[:, 0])
    np.testing.assert_array_equal(points.max(axis=0), space.bounds[:, 1])
    axis = np.linspace(0, 1, POINTS[p])
    np.testing.assert_allclose(np.unique(space.to_cube(points)[:, -1].round(9)), axis, atol=1e-9)
    assert len(grid(space, 4)) == 4**p


def test_an_estimator_that_knows_the_truth_has_no_bias_and_follows_it():
    """Signals of one parameter, without noise, tell it exactly."""
    made = simulator("adc", np.inf)
    b = SHELLS.variable("b")[1]

    def exact(signals):
        return np.stack([signals[:, 0], -np.log(signals[:, 1] / signals[:, 0]) / b], axis=1)

    table = performance_table(exact, made)
    assert len(table["D"]) == POINTS[1]
    for name in ("S0", "D"):
        np.testing.assert_allclose(table[f"bias_{name}"], 0, atol=1e-12)
        np.testing.assert_allclose(table[f"rmse_{name}"], 0, atol=1e-12)
        np.testing.assert_array_equal(table[f"sd_{name}"], 0)
    np.testing.assert_allclose(table["response_D"], 1, rtol=1e-6)


def test_an_unbiased_estimator_has_the_spread_of_the_noise():
    """S0 as it was measured at b = 0, and D a line of the signals: both unbiased under Gaussian noise."""
    made, repeats = simulator("adc", 10.0), 2000

    def first(signals):
        return np.stack([signals[:, 0], signals[:, 1]], axis=1)

    table = performance_table(first, made, points=11, repeats=repeats)
    sd = 0.1 / np.sqrt(8)
    np.testing.assert_allclose(table["bias_S0"], 0, atol=5 * sd / np.sqrt(repeats))
    np.testing.assert_allclose(table["sd_S0"], sd, rtol=0.1)
    np.testing.assert_allclose(table["sd_D"], 0.1 / np.sqrt(32), rtol=0.1)
    assert "response_S0" not in table
    # the second column is exp(-b D): biased as an estimate of D, with a slope that is known, free of the noise
    b, d = SHELLS.variable("b")[1], table["D"]
    np.testing.assert_allclose(table["bias_D"], np.exp(-b * d) - d, atol=5 * 0.1 / np.sqrt(32 * repeats))
    np.testing.assert_allclose(table["response_D"], -b * np.exp(-b * d), rtol=0.06)


@pytest.mark.parametrize("name", ["smt2", "smt3"])
def test_an_estimator_that_always_tells_the_mean(name):
    space = SPACES[name]
    mean = np.r_[1.0, space.sample(1000, np.random.default_rng(0)).mean(axis=0)]
    table = performance_table(lambda signals: np.tile(mean, (len(signals), 1)), simulator(name), points=5, repeats=3)
    for j, parameter in enumerate(space.names):
        np.testing.assert_allclose(table[f"bias_{parameter}"], mean[j + 1] - table[parameter])
        np.testing.assert_allclose(table[f"rmse_{parameter}"], np.abs(table[f"bias_{parameter}"]))
        np.testing.assert_allclose(table[f"sd_{parameter}"], 0, atol=1e-15)
        response = table[f"response_{parameter}"]
        np.testing.assert_array_equal(response[np.isfinite(response)], 0)
        assert np.isfinite(response).any()


def test_a_fit_without_noise_follows_the_truth_of_two_parameters():
    made = simulator("smt2", np.inf)
    fit = LeastSquares(made.space.model)

    def estimate(signals):
        found = fit.estimate(signals, SHELLS).parameters
        return np.stack([found[name] for name in made.space.model.names], axis=1)

    table = performance_table(estimate, made, points=9)
    inside = (table["lambda"] > 0.5) & (table["lambda"] < 2.9) & (table["vcyl"] > 0.05) & (table["vcyl"] < 0.95)
    assert inside.sum() > 30
    for name in ("vcyl", "lambda"):
        np.testing.assert_allclose(table[f"bias_{name}"][inside], 0, atol=1e-3)
        np.testing.assert_allclose(table[f"response_{name}"][inside], 1, atol=0.05)


def test_the_seed_decides():
    def last(signals):
        return signals[:, :3].copy()

    first, again, other = (performance_table(last, simulator(), points=3, repeats=4, seed=s) for s in (0, 0, 1))
    for name, column in first.items():
        np.testing.assert_array_equal(column, again[name])
    assert np.all(first["bias_S0"] != other["bias_S0"])


class TestLookup:
    @pytest.mark.parametrize("name", SPACES)
    def test_linear_functions_are_reproduced(self, name):
        """Between the points of the grid too, for every quantity and parameter on its own."""
        space = SPACES[name]
        p = len(space.names)
        axis = np.linspace(0, 1, POINTS[p])
        cube = np.stack(np.meshgrid(*[axis] * p, indexing="ij"), axis=-1).reshape(-1, p)
        rng = np.random.default_rng(0)
        slopes = {f"{q}_{n}": rng.normal(size=p) for q in ("sd", "bias") for n in space.model.names}
        table = dict(zip(space.names, grid(space).T, strict=True))
        table |= {column: 0.3 + cube @ slope for column, slope in slopes.items()}
        lookup = PerformanceLookup(table, space)
        places = rng.uniform(0.01, 0.99, (500, p))
        parameters = space.with_scale(space.from_cube(places))
        for quantity in ("sd", "bias"):
            expected = np.stack([0.3 + places @ slopes[f"{quantity}_{n}"] for n in space.model.names], axis=1)
            np.testing.assert_allclose(lookup.at(parameters, quantity), expected, atol=1e-12)
            expected[:, 0] *= 50.0  # S0, the first, and only it grows with S0
            scaled = parameters * np.where(np.array(space.model.names) == "S0", 50.0, 1.0)
            np.testing.assert_allclose(lookup.at(scaled, quantity), expected, atol=1e-9)

    def test_edges_are_held_and_what_was_not_fitted_stays_unknown(self):
        space = SPACES["smt2"]
        table = performance_table(lambda signals: signals[:, :3].copy(), simulator(), points=5, repeats=10)
        lookup = PerformanceLookup(table, space)
        edges = space.with_scale(space.bounds.T)
        found = lookup.at(np.vstack([edges, [1.0, np.nan, 1.0]]), "sd")
        np.testing.assert_allclose(found[0, 1:], [table["sd_vcyl"][0], table["sd_lambda"][0]])
        np.testing.assert_allclose(found[1, 1:], [table["sd_vcyl"][-1], table["sd_lambda"][-1]])
        assert np.isnan(found[2]).all()

    def test_it_reads_what_the_table_holds(self):
        made = simulator()
        table = performance_table(lambda signals: signals[:, :3].copy(), made, points=5, repeats=10)
        found = PerformanceLookup(table, made.space).at(made.space.with_scale(grid(made.space, 5)), "sd")
        np.testing.assert_allclose(found[:, 0], table["sd_S0"])
        np.testing.assert_allclose(found[:, 1], table["sd_vcyl"])
        np.testing.assert_allclose(found[:, 2], table["sd_lambda"])


def test_a_classical_estimator_has_the_spread_of_the_bound():
    """Least squares of one parameter, at a high SNR; the table is that of its estimates."""
    made = simulator("adc", 200.0)
    table = performance_of(LeastSquares(made.space.model), made, points=5, repeats=2000)
    truth = made.space.with_scale(table["D"][:, None])
    used = SHELLS.select(made.space.model.usable(SHELLS))
    bound = cramer_rao_bound(made.space.model, truth, used, 1 / 200.0)
    low = (table["D"] > 0.5) & (table["D"] < 3)
    assert low.sum() >= 2
    np.testing.assert_allclose(table["sd_D"][low], bound["D"][low], rtol=0.1)
    np.testing.assert_allclose(table["response_D"][low], 1, atol=0.05)


class TestScattered:
    """Beyond three parameters: Sobol points, and polynomials through them."""

    b_values = (0, 10, 20, 50, 100, 200, 400, 800, 1500, 2500, 4000)

    @pytest.fixture
    def space(self, triexponential):
        return ParameterSpace(triexponential)

    @pytest.fixture
    def made(self, space):
        return Simulator(Uniform(space), Acquisition(self.b_values, counts=[6] * len(self.b_values)), Noise(40.0))

    @pytest.fixture
    def regression(self, made):
        """What a linear regression on the signals and their squares makes of them: biased everywhere, and smooth."""
        rng = np.random.default_rng(0)
        truth = made.distribution.sample(20_000, rng)

        def regressors(signals):
            return np.column_stack([np.ones(len(signals)), signals, signals**2])

        known = made.space.with_scale(truth)
        coefficients = np.linalg.lstsq(regressors(made.measure(truth, rng)), known, rcond=None)[0]
        return lambda signals: regressors(signals) @ coefficients

    def test_the_points_reach_all_faces_and_lie_inside(self, space):
        points = scattered(space, 512)
        assert points.shape == (512, 5)
        assert space.contains(points).all()
        cube = space.to_cube(points)
        assert (cube[:, 2:] == 0).any(axis=0).all()
        assert (cube[:, 2:] == 1).any(axis=0).all()
        np.testing.assert_array_equal(points, scattered(space, 512, 0))
        assert not np.array_equal(points, scattered(space, 512, 1))

    def test_polynomials_are_reproduced(self, space):
        """Up to the degree that the points determine, within the range of the column."""
        truth = scattered(space)
        assert max(sum(powers) for powers in exponents_of(5, len(truth))) == 5

        def quantity(points):
            u = space.to_cube(points)
            return 0.3 + 0.1 * u[:, 0] - 0.2 * u[:, 1] * u[:, 2] ** 2 + 0.4 * u[:, 3] * u[:, 4] ** 4

        table = dict(zip(space.names, truth.T, strict=True))
        table |= {f"{q}_{name}": quantity(truth) for q in ("bias", "sd", "rmse") for name in space.model.names}
        asked = space.sample(300, np.random.default_rng(1))
        found = PerformanceLookup(table, space).at(space.with_scale(asked), "sd")
        expected = np.clip(quantity(asked), quantity(truth).min(), quantity(truth).max())
        np.testing.assert_allclose(found, np.tile(expected[:, None], 6), atol=1e-9)
        table |= {f"response_{name}": quantity(truth) for name in space.names}
        require_performance(table, space)

    def test_it_is_near_what_simulation_gives(self, space, made, regression):
        table = performance_table(regression, made, repeats=100)
        require_performance(table, space)
        truth = space.sample(100, np.random.default_rng(2))
        found = {q: PerformanceLookup(table, space).at(space.with_scale(truth), q) for q in ("bias", "sd")}
        repeats = 1000
        estimates = regression(made.measure(np.repeat(truth, repeats, axis=0), np.random.default_rng(3)))
        for j, name in enumerate(space.names, start=1):  # S0, the first, is told exactly
            direct = accuracy(estimates[:, j], truth[:, j - 1])
            for quantity, values in (("bias", direct.bias), ("sd", direct.sd)):
                apart = found[quantity][:, j] - values
                assert np.sqrt(np.mean(apart**2)) < 0.15 * np.sqrt(np.mean(values**2)), (name, quantity)

    def test_a_table_over_a_grid_is_still_read(self, space, made, regression, monkeypatch):
        monkeypatch.setattr(performance, "POINTS", POINTS | {5: 3})
        table = performance_table(regression, made, repeats=5)
        monkeypatch.undo()
        assert len(table["f1"]) == 3**5
        require_performance(table, space)
        at_points = PerformanceLookup(table, space).at(space.with_scale(grid(space, 3)), "bias")
        told_apart = table["f1"] + table["f2"] > 0  # elsewhere the share of f1 in the sum is anything
        np.testing.assert_allclose(at_points[told_apart, 1], table["bias_f1"][told_apart])

    @pytest.mark.parametrize(
        ("change", "words"),
        [
            (lambda table: {name: column[:11] for name, column in table.items()}, "only 11 rows"),
            (lambda table: table | {"D3": table["D3"] + 1}, "outside the space"),
            (lambda table: table | {"sd_f1": -table["sd_f1"]}, "negative"),
        ],
    )
    def test_what_is_no_table_is_refused(self, space, made, regression, change, words):
        table = performance_table(regression, made, points=64, repeats=2)
        require_performance(table, space)
        with pytest.raises(ValueError, match=words):
            require_performance(change(table), space)
