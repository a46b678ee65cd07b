"""The forms of one equation agree (compiled code, torch, JavaScript), and functions of torch are models as well."""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess

import numpy as np
import pytest
import sympy as sp
import torch

from bidsfit import Acquisition, Bayesian, models
from bidsfit.models.common import signal_scale
from bidsfit.models.function import FunctionModel
from bidsfit.models.functions import torch_functions
from bidsfit.models.parameter import Parameter
from bidsfit.models.symbolic import SymbolicModel
from bidsfit.phantom.directions import spread_directions

NAMES = tuple(name for name in models.BUILT_IN if isinstance(models.get(name), SymbolicModel))
WIDE = Acquisition(
    [0, 1, 10, 100, 400, 800, 1500, 3000, 6000], np.vstack([np.zeros(3), spread_directions(8)]),
    TE=[1, 5, 10, 20, 40, 80, 160, 300, 500], flip_angle=[1, 2, 5, 10, 20, 30, 45, 60, 90],
    TI=[20, 50, 100, 300, 700, 1000, 1900, 3500, 7000], TR=[5, 10, 15, 20, 30, 50, 100, 500, 2000],
    TD=[5000, 10, 3000, 100, 2000, 500, 1000, 700, 300],
    offset=[2e4, 300, 700, 1000, 2000, 4000, 8000, 2e4, 7e4], saturation=[0, 1, 2, 3, 4, 5, 6, 2, 1],
)  # fmt: skip


def points(model, n=200):
    """Plausible parameters inside the bounds, and many on them; the linear constraints are kept.

    Of models that draw tissue, such draws: between the bounds of their parameters most combinations are none.
    """
    rng = np.random.default_rng(1)
    if model.draw is not None:
        return np.column_stack([rng.uniform(0.2, 5.0, n), model.draw(n, rng)])
    bounds = np.array([(0.2, 5.0) if p.name == model.scale else p.bounds for p in model.parameters])
    found = rng.uniform(*bounds.T, (8 * n, len(bounds)))
    on_edge = rng.uniform(size=found.shape) < 0.2
    found = np.where(on_edge, bounds[np.arange(len(bounds)), rng.integers(0, 2, found.shape)], found)
    matrix, limits = model.linear_constraints
    found = found[(found @ matrix.T <= limits).all(axis=1)]
    return found[:n]


def described(model):
    """The measurements that the model describes."""
    return WIDE.select(model.usable(WIDE))


def in_torch(model, parameters, acquisition):
    rows, design = torch.from_numpy(parameters), torch.from_numpy(model.design(acquisition))
    slopes = torch.vmap(torch.func.jacfwd(model.torch_signal), in_dims=(0, None))(rows, design)
    return model.torch_signal(rows, design).numpy(), slopes.numpy()


@pytest.mark.parametrize("name", NAMES)
def test_torch_and_compiled_code_agree(name):
    model = models.get(name)
    parameters, acquisition = points(model), described(model)
    signal, jacobian = model.signal_and_jacobian(parameters, acquisition)
    in_tensors, slopes = in_torch(model, parameters, acquisition)
    assert in_tensors == pytest.approx(signal, abs=1e-13)
    assert slopes == pytest.approx(jacobian, abs=1e-12)
    analytic = model.torch_signal_and_jacobian(
        torch.from_numpy(parameters), torch.from_numpy(model.design(acquisition))
    )
    for found, expected in zip(analytic, (signal, jacobian), strict=True):
        assert found.numpy() == pytest.approx(expected, abs=1e-12)
    assert np.array_equal(model.signal(parameters, acquisition), signal) or model.signal(
        parameters, acquisition
    ) == pytest.approx(signal, abs=1e-14)


@pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")
@pytest.mark.parametrize("name", NAMES)
def test_javascript_and_compiled_code_agree(name):
    model = models.get(name)
    parameters, acquisition = points(model), described(model)
    values = f"const P = {json.dumps(parameters.tolist())}, V = {json.dumps(model.design(acquisition).tolist())};"
    script = f"{model.javascript}{values}console.log(JSON.stringify(P.map(p => V.map(v => signal(p, v)))))"
    found = json.loads(subprocess.run(["node", "-e", script], capture_output=True, check=True, text=True).stdout)
    assert np.array(found) == pytest.approx(model.signal(parameters, acquisition), abs=1e-13)


@pytest.mark.parametrize("n", [0, 1, 2, 5])
def test_boys_function_of_torch_is_smooth(n):
    """Between nodes, below and above the end of its table, and at 0, where the form with erf has no derivative."""
    boys = torch_functions()["boys"]
    places = [0.0, 1e-9, 0.5, 1.03, 3.09375, 31.99, 32.0 - 1e-9, 32.0 + 1e-9, 40.0]
    z = torch.tensor(places, dtype=torch.float64, requires_grad=True)
    value = boys(n, z)
    (slope,) = torch.autograd.grad(value.sum(), z)
    nodes, weights = np.polynomial.legendre.leggauss(200)
    t = (nodes + 1) / 2
    for power, found, sign in ((2 * n, value, 1), (2 * n + 2, slope, -1)):
        kernel = t**power * np.exp(-z.detach().numpy()[:, None] * t**2)
        assert found.detach().numpy() == pytest.approx(sign * kernel @ (weights / 2), rel=1e-12)


def test_conditions_and_absolute_values_have_all_forms():
    s0, r, b = sp.symbols("S0 r b", real=True)
    model = SymbolicModel(
        name="bent",
        title="",
        description="",
        parameters=(signal_scale(), Parameter(name="r", label="r", unit="1", bounds=(0, 1), latex="r", description="")),
        expression=s0 * sp.Abs(r - b) * sp.Piecewise((sp.sqrt(2), b < 0.5), (sp.pi, True)),
    )
    parameters, acquisition = np.array([[2.0, 0.3], [1.0, 0.8]]), Acquisition([100, 700])
    signal, jacobian = model.signal_and_jacobian(parameters, acquisition)
    assert signal[0] == pytest.approx([2 * 0.2 * np.sqrt(2), 2 * 0.4 * np.pi])
    assert jacobian[0, :, 1] == pytest.approx([2 * np.sqrt(2), -2 * np.pi])
    in_tensors, slopes = in_torch(model, parameters, acquisition)
    assert in_tensors == pytest.approx(signal)
    assert slopes == pytest.approx(jacobian)


def function_form(model, function, **changes):
    """The same model as a function of torch."""
    fields = {
        f.name: getattr(model, f.name) for f in dataclasses.fields(model) if f.name not in ("expression", "equation")
    }
    return FunctionModel(function=function, equation="S", **(fields | changes))


def ivim(parameters, design):
    s0, f, d, dstar = parameters
    b = design[:, 0]
    return s0 * ((1 - f) * torch.exp(-b * d) + f * torch.exp(-b * dstar))


class TestFunctionModel:
    model = function_form(models.get("ivim"), ivim, name="ivimfunction")

    def test_signal_and_jacobian_are_those_of_the_equation(self, monkeypatch):
        parameters = points(models.get("ivim"))
        expected, slopes = models.get("ivim").signal_and_jacobian(parameters, WIDE)
        monkeypatch.setattr("bidsfit.models.function.LARGEST_BLOCK", 7 * 4 * len(WIDE))  # several blocks
        signal, jacobian = self.model.signal_and_jacobian(parameters, WIDE)
        assert signal == pytest.approx(expected, abs=1e-14)
        assert jacobian == pytest.approx(slopes, abs=1e-13)
        assert self.model.signal(parameters, WIDE) == pytest.approx(expected, abs=1e-14)
        assert self.model.signal(parameters[:0], WIDE).shape == (0, len(WIDE))

    def test_complex_signals_have_complex_derivatives(self):
        def rotating(parameters, design):
            scale, rate = parameters
            return scale * torch.polar(torch.ones(len(design), dtype=design.dtype), rate * design[:, 0])

        rate = Parameter(name="r", label="r", unit="1", bounds=(0, 9), latex="r", description="", start=(1.0,))
        model = FunctionModel(
            name="rotating", title="", description="", parameters=(signal_scale(), rate), function=rotating,
            complex_valued=True, reference="largest",
        )  # fmt: skip
        acquisition, parameters = Acquisition([0, 500, 1000]), np.array([[2.0, 3.0]])
        signal, jacobian = model.signal_and_jacobian(parameters, acquisition)
        b = acquisition.variable("b")
        assert signal[0] == pytest.approx(2 * np.exp(3j * b))
        assert jacobian[0] == pytest.approx(np.stack([np.exp(3j * b), 2j * b * np.exp(3j * b)], axis=1))
        assert model.signal(parameters, acquisition) == pytest.approx(signal)

    def test_estimators_that_need_an_equation_refuse_it(self):
        with pytest.raises(ValueError, match="'bayes' needs a model that is an equation with a scale, and 'ivimf"):
            Bayesian(self.model)


def test_a_model_without_a_scale_has_no_reference():
    fields = {"title": "", "description": "", "parameters": (), "function": ivim}
    with pytest.raises(ValueError, match="cannot be divided by a reference; set reference='none'"):
        FunctionModel(name="odd", scale=None, **fields)
    assert FunctionModel(name="odd", scale=None, reference="none", **fields).scale_index == -1
