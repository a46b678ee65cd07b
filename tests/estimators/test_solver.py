"""The descent of models without a compiled kernel, and the starts that a model may choose."""

import dataclasses

import numpy as np
import pytest
import torch
from numba.core.errors import TypingError

from bidsfit import Acquisition, LeastSquares, MaximumLikelihood, models
from bidsfit.estimators.levenberg_marquardt import compiled
from bidsfit.estimators.log_linear import LogLinear
from bidsfit.models.function import FunctionModel

ACQUISITION = Acquisition([0, 5, 10, 20, 30, 40, 60, 80, 100, 150, 200, 300, 400, 500, 600, 800])


def ivim(parameters, design):
    s0, f, d, dstar = parameters
    b = design[:, 0]
    return s0 * ((1 - f) * torch.exp(-b * d) + f * torch.exp(-b * dstar))


@pytest.fixture(scope="module")
def signals():
    rng = np.random.default_rng(0)
    n = 400
    truth = {"S0": 300.0, "f": rng.uniform(0, 0.5, n), "D": rng.uniform(0, 3, n), "Dstar": rng.uniform(3, 100, n)}
    clean = models.get("ivim").signal(truth, ACQUISITION)
    return np.hypot(clean + 10 * rng.standard_normal(clean.shape), 10 * rng.standard_normal(clean.shape))


@pytest.mark.parametrize("make", [LeastSquares, MaximumLikelihood])
def test_a_function_is_fitted_as_the_equation_is(signals, make):
    """The same minima, at bounds and constraints as well, where second starts are made."""
    equation = models.get("ivim")
    fields = {f.name: getattr(equation, f.name) for f in dataclasses.fields(equation) if f.name != "expression"}
    function = FunctionModel(**(fields | {"name": "function"}), function=ivim)
    one, other = (make(model).estimate(signals, ACQUISITION, noise=10.0) for model in (equation, function))
    assert np.array_equal(one.status, other.status)
    assert len(one.count()) > 1
    assert other.rmse == pytest.approx(one.rmse, rel=1e-6)
    for name, spread in {"S0": 0.3, "f": 1e-3, "D": 1e-3}.items():
        assert np.quantile(np.abs(one.parameters[name] - other.parameters[name]), 0.99) < spread


def test_a_model_may_say_where_a_fit_starts(signals):
    """A start near the solution finds it; the grid is not looked at."""
    model = models.get("ivim")
    asked = []

    def start(y, acquisition):
        asked.append(y.shape)
        return np.tile([1.0, 0.1, 1.0, 20.0], (len(y), 1))

    found = LeastSquares(dataclasses.replace(model, start=start)).estimate(signals, ACQUISITION)
    assert asked == [signals.shape]
    usual = LeastSquares(model).estimate(signals, ACQUISITION)
    assert np.mean(np.abs(found.rmse / usual.rmse - 1) < 1e-6) > 0.8


class TestLogLinear:
    acquisition = Acquisition([0, 100, 300, 500, 800, 800], counts=[1, 1, 1, 2, 3, 3])

    def test_it_is_the_weighted_line_through_logarithms(self):
        rng = np.random.default_rng(0)
        b, counts = self.acquisition.variable("b"), self.acquisition.weights
        signals = 100 * np.exp(-b * rng.uniform(0.5, 2, (20, 1))) + rng.standard_normal((20, 6))
        solve = LogLinear(models.get("adc"), self.acquisition)
        ordinary, weighted = solve(signals, iterations=0), solve(signals)
        for y, first, second in zip(signals, ordinary, weighted, strict=True):
            line = np.polyfit(b, np.log(y), 1, w=np.sqrt(counts))
            assert [first[1], np.log(first[0])] == pytest.approx([-line[0], line[1]], rel=1e-9)
            line = np.polyfit(b, np.log(y), 1, w=np.sqrt(counts) * np.exp(np.polyval(line, b)))
            assert [second[1], np.log(second[0])] == pytest.approx([-line[0], line[1]], rel=1e-9)

    def test_signals_that_are_not_positive_are_raised(self):
        found = LogLinear(models.get("adc"), self.acquisition)(np.array([[100, 90, 70, 60, -5, 0]]))
        assert np.isfinite(found).all()

    def test_other_models_are_refused(self):
        with pytest.raises(ValueError, match="'ivim' is not linear in its parameters"):
            LogLinear(models.get("ivim"), self.acquisition)


def test_compiled_functions_do_not_count_references():
    """numba's `_nrt=False` is no public option; without it a descent counts references, and is slower."""

    @compiled
    def makes_an_array(n):
        return np.zeros(n)

    with pytest.raises(TypingError, match="empty"):
        makes_an_array(3)
