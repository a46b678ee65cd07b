"""Every model follows from its equation: values, Jacobians, limits, requirements, names and LaTeX."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
import sympy as sp
from scipy.special import hyp1f1

from bidsfit import Acquisition, LeastSquares, Status, models
from bidsfit.exceptions import UnknownNameError, UnsupportedProtocolError
from bidsfit.models.kernel import compile_kernel, kernel_source
from bidsfit.models.signal_model import Parameter, ShellRequirement, SignalModel

NAMES = ("adc", "ivim", "smt2")
GYORI = Acquisition([1000, 2000, 3500, 5000])
WIDE = Acquisition([0, 1, 10, 100, 400, 800, 1500, 3000, 6000])


# The equations again, written by hand with NumPy and SciPy: analytic beyond every bound.


def direction_average(z: np.ndarray) -> np.ndarray:
    return hyp1f1(0.5, 1.5, -z)


def smt2(b, s0, v, diffusivity):
    inside = direction_average(b * diffusivity)
    outside = np.exp(-b * (1 - v) * diffusivity) * direction_average(b * v * diffusivity)
    return s0 * (v * inside + (1 - v) * outside)


EQUATIONS: dict[str, Callable[..., np.ndarray]] = {
    "adc": lambda b, s0, d: s0 * np.exp(-b * d),
    "ivim": lambda b, s0, f, d, dstar: s0 * ((1 - f) * np.exp(-b * d) + f * np.exp(-b * dstar)),
    "smt2": smt2,
}


def random_parameters(model: SignalModel, n: int, seed: int = 0) -> np.ndarray:
    """Points inside the bounds; each parameter lies on its lower and on its upper bound in a tenth of them."""
    rng = np.random.default_rng(seed)
    columns = []
    for parameter in model.parameters:
        lower, upper = (0.2, 5.0) if parameter.name == model.scale else parameter.bounds
        where = rng.uniform(size=n)
        values = rng.uniform(lower, upper, n)
        values = np.where(where < 0.1, lower, np.where(where > 0.9, upper, values))
        columns.append(values)
    return np.stack(columns, axis=1)


class TestEquations:
    @pytest.mark.parametrize(
        ("v", "diffusivity", "expected"),
        [
            (0.6, 1.9, [0.50091259, 0.32084872, 0.21849852, 0.17583490]),
            (0.3, 1.0, [0.53981343, 0.32295820, 0.18550163, 0.13273572]),
        ],
    )
    def test_golden_values_of_smt(self, v, diffusivity, expected):
        signal = models.get("smt2").signal({"S0": 1, "vcyl": v, "lambda": diffusivity}, GYORI)
        assert signal == pytest.approx(expected, abs=1e-8)

    def test_ivim_decays_with_dstar_not_with_d_plus_dstar(self):
        signal = models.get("ivim").signal({"S0": 1, "f": 1, "D": 1, "Dstar": 10}, Acquisition([100]))
        assert signal == pytest.approx([np.exp(-1)], rel=1e-15)

    @pytest.mark.parametrize("name", NAMES)
    def test_signal_and_jacobian(self, name):
        model = models.get(name)
        points = random_parameters(model, 1000)
        signal, jacobian = model.signal_and_jacobian(points, WIDE)
        b = WIDE.variable("b")
        assert signal == pytest.approx(EQUATIONS[name](b, *points.T[:, :, None]), rel=1e-12, abs=1e-15)
        for j in range(points.shape[1]):
            step = 1e-3 * np.maximum(np.abs(points[:, j]), 0.1)

            def shifted(by: float, j: int = j, step: np.ndarray = step) -> np.ndarray:
                moved = points.copy()
                moved[:, j] += by * step
                return EQUATIONS[name](b, *moved.T[:, :, None])

            # central differences of sixth order
            slope = 45 * (shifted(1) - shifted(-1)) - 9 * (shifted(2) - shifted(-2)) + shifted(3) - shifted(-3)
            slope = slope / (60 * step[:, None])
            assert jacobian[:, :, j] == pytest.approx(slope, rel=1e-7, abs=1e-9)

    @pytest.mark.parametrize("name", NAMES)
    def test_at_b_0_the_signal_is_s0(self, name):
        model = models.get(name)
        points = random_parameters(model, 100)
        signal, jacobian = model.signal_and_jacobian(points, Acquisition([0]))
        assert signal[:, 0] == pytest.approx(points[:, model.scale_index], rel=1e-15)
        expected = np.zeros(len(model.names))
        expected[model.scale_index] = 1
        assert np.abs(jacobian[:, 0] - expected).max() < 1e-15

    def test_limits(self):
        b = WIDE.variable("b")
        ivim = models.get("ivim")
        assert ivim.signal({"S0": 2, "f": 0, "D": 1, "Dstar": 50}, WIDE) == pytest.approx(2 * np.exp(-b))
        assert ivim.signal({"S0": 2, "f": 1, "D": 1, "Dstar": 50}, WIDE) == pytest.approx(2 * np.exp(-50 * b))
        smt = models.get("smt2")
        assert smt.signal({"S0": 2, "vcyl": 0, "lambda": 1.5}, WIDE) == pytest.approx(2 * np.exp(-1.5 * b))
        sticks = 2 * direction_average(1.5 * b)
        assert smt.signal({"S0": 2, "vcyl": 1, "lambda": 1.5}, WIDE) == pytest.approx(sticks)
        assert smt.signal({"S0": 2, "vcyl": 0.4, "lambda": 0}, WIDE) == pytest.approx(np.full(b.size, 2))

    @pytest.mark.parametrize(("which", "other"), [("vcyl", {"lambda": 2.0}), ("lambda", {"vcyl": 0.5})])
    def test_the_removable_singularity_of_smt_is_smooth(self, which, other):
        values = np.concatenate([[0.0], np.geomspace(1e-15, 1e-3, 200)])
        signal, jacobian = models.get("smt2").signal_and_jacobian({"S0": 1.0, which: values, **other}, GYORI)
        assert np.isfinite(signal).all()
        assert np.isfinite(jacobian).all()
        assert np.abs(np.diff(signal, axis=0)).max() < 1e-3
        assert np.abs(jacobian[values < 1e-7] - jacobian[0]).max() < 1e-5

    @pytest.mark.parametrize("name", NAMES)
    def test_signal_never_exceeds_s0_and_never_rises_with_b(self, name):
        model = models.get(name)
        signal = model.signal(random_parameters(model, 500), WIDE)
        assert np.all(signal >= 0)
        assert np.all(np.diff(signal, axis=1) <= 1e-15)


class TestArrays:
    def test_mappings_broadcast(self):
        model = models.get("ivim")
        signal, jacobian = model.signal_and_jacobian(
            {"S0": 1.0, "f": np.zeros((3, 1)), "D": np.ones(4), "Dstar": 10.0}, Acquisition([0, 500])
        )
        assert signal.shape == (3, 4, 2)
        assert jacobian.shape == (3, 4, 2, 4)

    def test_mapping_and_array_agree_whatever_the_layout(self):
        model = models.get("smt2")
        points = random_parameters(model, 10)
        from_mapping = model.signal(dict(zip(model.names, points.T, strict=True)), GYORI)
        assert np.array_equal(from_mapping, model.signal(points, GYORI))
        assert np.array_equal(from_mapping, model.signal(np.asfortranarray(points), GYORI))
        assert np.array_equal(from_mapping[0], model.signal(points[0], GYORI))

    def test_missing_parameters_are_named(self):
        with pytest.raises(ValueError, match="'ivim' also needs Dstar, f"):
            models.get("ivim").signal({"S0": 1, "D": 1}, GYORI)

    def test_wrong_number_of_parameters(self):
        with pytest.raises(ValueError, match=r"found shape \(5, 3\)"):
            models.get("ivim").signal(np.ones((5, 3)), GYORI)


class TestSupport:
    def test_protocols_that_suffice(self):
        assert models.get("ivim").support(Acquisition([0, 10, 20, 50, 100, 200, 500, 800]))
        assert models.get("ivim").support(Acquisition([5, 10, 20, 30, 50, 75, 150, 250, 600, 700, 800]))  # no b = 0
        assert models.get("adc").support(Acquisition([0, 1000, 2000]))
        shells = Acquisition([0, 1000, 2000], n_directions=[1, 30, 60])
        assert models.get("smt2").support(shells)
        assert models.get("smt2").support(shells).used == "0, 1000, 2000"

    @pytest.mark.parametrize(
        ("name", "acquisition", "words"),
        [
            (
                "adc",
                Acquisition([0, 2000, 3000]),
                ["2 different b-values of at most 1500", "has 0", "1 b-value between"],
            ),
            ("adc", Acquisition([1000]), ["2 different b-values of at most 1500", "has 1000"]),
            ("ivim", Acquisition([0, 200, 400, 600, 800, 1000]), ["3 different b-values of at most 150", "has 0"]),
            ("ivim", Acquisition([0, 5, 10, 20, 40, 80]), ["2 different b-values between 200 and 1000", "has none"]),
            ("ivim", Acquisition([0, 1000, 2000]), ["5 different b-values of at most 1000", "has 0, 1000"]),
            ("smt2", Acquisition([1000, 2000], n_directions=[30, 30]), ["1 b-value of at most 100", "has none"]),
            ("smt2", Acquisition([0, 1000], n_directions=[1, 30]), ["2 different b-values of 700 s/mm² or more"]),
            ("smt2", Acquisition([0, 1000, 2000]), ["with at least 6 directions each", "has none"]),
        ],
    )
    def test_what_is_missing_is_said_in_b_values(self, name, acquisition, words):
        model = models.get(name)
        assert not model.support(acquisition)
        with pytest.raises(UnsupportedProtocolError, match=f"does not support the model '{name}'. Missing:") as error:
            model.require_support(acquisition)
        for word in words:
            assert word in str(error.value)

    def test_support_is_silent_where_nothing_is_missing(self):
        models.get("adc").require_support(Acquisition([0, 1000]))

    def test_jittered_limits_count(self):
        assert models.get("adc").support(Acquisition([0, 1510]))
        assert models.get("ivim").usable(Acquisition([0, 500, 1005, 1100])).tolist() == [0, 1, 2]


class TestDefinition:
    table = (
        Parameter("S0", "S0", "arbitrary", (0, np.inf), "S_0", ""),
        Parameter("R", "R", "1", (0, 1), "R", "", start=(0.5,)),
    )
    S0, R, b = sp.symbols("S0 R b", real=True)

    def model(self, expression: sp.Expr, **changes: object) -> SignalModel:
        fields: dict = {"name": "test", "title": "", "parameters": self.table, "description": ""}
        return SignalModel(expression=expression, **{**fields, **changes})

    def test_symbols_that_no_table_lists(self):
        with pytest.raises(ValueError, match=r"the equation has symbols \{x\} that no table lists"):
            self.model(self.S0 * sp.exp(-self.b * self.R) + sp.Symbol("x", real=True))

    def test_unknown_scale(self):
        with pytest.raises(ValueError, match="the scale 'A' is not among its parameters"):
            self.model(self.S0 * sp.exp(-self.b * self.R), scale="A")

    @pytest.mark.parametrize("expression", [S0**2 * R, S0 * R + b])
    def test_signal_must_be_proportional_to_the_scale(self, expression):
        with pytest.raises(ValueError, match="not proportional to 'S0'"):
            self.model(expression)

    def test_constraints_become_a_matrix(self):
        matrix, limits = models.get("ivim").linear_constraints
        assert matrix.tolist() == [[0, 0, 1, -1]]
        assert limits.tolist() == [0]
        model = self.model(self.S0 * self.R, constraints=(sp.Le(2 * self.R + 1, 4 - self.S0),))
        matrix, limits = model.linear_constraints
        assert (matrix.tolist(), limits.tolist()) == ([[1, 2]], [3])

    def test_no_constraints(self):
        matrix, limits = models.get("adc").linear_constraints
        assert (matrix.shape, limits.shape) == ((0, 2), (0,))

    @pytest.mark.parametrize("make", [lambda s, r: sp.Le(r**2, s), lambda s, r: sp.Lt(r, s)])
    def test_other_constraints_are_refused(self, make):
        with pytest.raises(ValueError, match="is not a linear constraint of the form a <= b"):
            _ = self.model(self.S0 * self.R, constraints=(make(self.S0, self.R),)).linear_constraints

    def test_parameters_by_name(self):
        assert models.get("ivim")["Dstar"].label == "Dstar"
        with pytest.raises(KeyError):
            models.get("ivim")["D*"]

    @pytest.mark.parametrize("name", NAMES)
    def test_tables_are_complete(self, name):
        model = models.get(name)
        assert model.name == name
        assert model.references
        for parameter in model.parameters:
            lower, upper = parameter.bounds
            assert lower < upper
            assert parameter.description
            if parameter.name != model.scale:
                assert parameter.start, "a grid needs starting values"
                assert all(lower <= start <= upper for start in parameter.start)
                assert parameter.display[0] < parameter.display[1] <= upper

    @pytest.mark.parametrize(
        ("name", "pieces"),
        [
            ("adc", ["S_0", "e^{- D b}"]),
            ("ivim", ["S_0", "D^{*}", "f"]),
            ("smt2", [r"v_\mathrm{cyl}", r"\lambda", r"\operatorname{erf}", r"\sqrt{\pi}"]),
        ],
    )
    def test_latex(self, name, pieces):
        latex = models.get(name).latex
        assert latex.startswith("S = ")
        for piece in pieces:
            assert piece in latex
        assert "boys" not in latex


class TestKernel:
    def test_what_does_not_vary_is_computed_once_a_voxel(self):
        p, q, b = sp.symbols("p q b", real=True)
        root = sp.sqrt(1 + p**2)
        source = kernel_source(q * root * sp.exp(-b * root), ["p", "q"], ["b"])
        before, inside = source.split("for i in range(design.shape[0]):")
        assert "sqrt" in before
        assert "sqrt" not in inside
        assert inside.count("math.exp") == 1  # shared by the signal and its derivatives
        assert "math.exp" not in before

    def test_keywords_of_python_may_be_parameters(self):
        source = kernel_source(models.get("smt2").expression, models.get("smt2").names, ["b"])
        compile(source, "<test>", "exec")
        assert "lambda_ = parameters[2]" in source

    def test_parameters_may_have_the_names_of_temporaries(self):
        t0, t1, b = sp.symbols("t0 t1 b", real=True)
        kernel = compile_kernel(t0 * sp.exp(-b * t1) + t0 * sp.exp(-2 * b * t1), ["t0", "t1"], ["b"])
        signal, jacobian = np.empty(1), np.empty((1, 2))
        kernel(np.array([3.0, 0.5]), np.array([[2.0]]), signal, jacobian)
        assert signal == pytest.approx([3 * (np.exp(-1) + np.exp(-2))])
        assert jacobian == pytest.approx(np.array([[np.exp(-1) + np.exp(-2), -3 * (2 * np.exp(-1) + 4 * np.exp(-2))]]))


class TestNames:
    def test_all_are_there(self):
        assert set(NAMES) <= set(models.available())

    def test_the_nearest_name_is_offered(self):
        with pytest.raises(UnknownNameError, match=r"Unknown model 'ivm'. Did you mean 'ivim'\? Valid: .*adc.*smt2"):
            models.get("ivm")

    def test_no_hint_where_nothing_is_near(self):
        with pytest.raises(UnknownNameError, match=r"Unknown model 'zzz'. Valid:"):
            models.get("zzz")


def test_a_new_model_needs_a_table_and_an_equation_only():
    """Several echo times at one b-value: a transverse relaxation time in ten lines."""
    s0, t2, te = sp.symbols("S0 T2 TE", real=True)
    model = SignalModel(
        name="t2",
        title="Transverse relaxation",
        description="",
        parameters=(
            Parameter("S0", "S0", "arbitrary", (0, np.inf), "S_0", ""),
            Parameter("T2", "T2", "ms", (1, 3000), "T_2", "", start=(10, 30, 100, 300, 1000)),
        ),
        variables=("TE",),
        expression=s0 * sp.exp(-te / t2),
        requirements=(ShellRequirement(1, reason="any image"),),
    )
    acquisition = Acquisition(np.zeros(6), echo_times=[10, 30, 50, 80, 120, 200])
    rng = np.random.default_rng(0)
    truth = {"S0": rng.uniform(100, 2000, 200), "T2": rng.uniform(15, 400, 200)}
    estimate = LeastSquares(model, averaging="none").estimate(model.signal(truth, acquisition), acquisition)
    assert estimate.parameters["T2"] == pytest.approx(truth["T2"], rel=1e-6)
    assert estimate.parameters["S0"] == pytest.approx(truth["S0"], rel=1e-6)
    assert set(estimate.count()) == {Status.CONVERGED}
    assert "T_2" in model.latex
    with pytest.raises(ValueError, match="needs echo times"):
        LeastSquares(model, averaging="none").estimate(np.ones((1, 6)), Acquisition(np.zeros(6)))


def test_changed_bounds_and_starts_need_no_other_change():
    model = models.get("adc")
    table = tuple(dataclasses.replace(p, bounds=(0, 50)) if p.name == "D" else p for p in model.parameters)
    fast = dataclasses.replace(model, parameters=table)
    signal = fast.signal({"S0": [1.0], "D": [20.0]}, Acquisition([0, 50, 100]))
    estimate = LeastSquares(fast).estimate(signal, Acquisition([0, 50, 100]))
    assert estimate.parameters["D"] == pytest.approx([20], rel=1e-6)
