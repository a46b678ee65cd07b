"""Every model follows from its equation: values, Jacobians, limits, requirements, names and LaTeX."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import mpmath
import numpy as np
import pytest
import sympy as sp
from scipy.special import hyp1f1

from bidsfit import Acquisition, LeastSquares, MaximumLikelihood, Status, models
from bidsfit.estimators.solver import starting_points
from bidsfit.exceptions import UnknownNameError, UnsupportedProtocolError
from bidsfit.models.kernel import compile_kernel, kernel_source
from bidsfit.models.parameter import Parameter
from bidsfit.models.requirements import ValuesRequirement
from bidsfit.models.signal_model import SignalModel
from bidsfit.models.symbolic import SymbolicModel

NAMES = tuple(name for name in models.BUILT_IN if models.get(name).variables == ("b",))
GYORI = Acquisition([1000, 2000, 3500, 5000])
WIDE = Acquisition([0, 1, 10, 100, 400, 800, 1500, 3000, 6000])


# The equations again, written by hand with NumPy and SciPy: analytic beyond every bound.


def direction_average(z: np.ndarray) -> np.ndarray:
    return hyp1f1(0.5, 1.5, -z)


def tissue(b, inside, outside, diffusivity, tortuosity):
    along = direction_average(b * diffusivity)
    across = np.exp(-b * tortuosity * diffusivity) * direction_average(b * (1 - tortuosity) * diffusivity)
    return inside * along + outside * across


def smt3(b, s0, vcyl, vcsf, diffusivity):
    return s0 * (tissue(b, vcyl, 1 - vcyl - vcsf, diffusivity, 1 - vcyl) + vcsf * np.exp(-3 * b))


def smt3normalised(b, s0, fcyl, vcsf, diffusivity):
    vcyl, vext = (1 - vcsf) * fcyl, (1 - vcsf) * (1 - fcyl)
    return s0 * (tissue(b, vcyl, vext, diffusivity, 1 - fcyl) + vcsf * np.exp(-3 * b))


EQUATIONS: dict[str, Callable[..., np.ndarray]] = {
    "adc": lambda b, s0, d: s0 * np.exp(-b * d),
    "ivim": lambda b, s0, f, d, dstar: s0 * ((1 - f) * np.exp(-b * d) + f * np.exp(-b * dstar)),
    "ivimlebihan": lambda b, s0, f, d, dstar: s0 * ((1 - f) * np.exp(-b * d) + f * np.exp(-b * (d + dstar))),
    "ivimsimple": lambda b, s0, f, d: s0 * ((1 - f) * np.exp(-b * d) + f * (b < 0.1)),
    "smt2": lambda b, s0, v, d: s0 * tissue(b, v, 1 - v, d, 1 - v),
    "smt3": smt3,
    "smt3normalised": smt3normalised,
}


def random_parameters(model: SignalModel, n: int, seed: int = 0) -> np.ndarray:
    """Feasible points; many lie on bounds of parameters, and where a linear constraint holds with equality."""
    rng = np.random.default_rng(seed)
    columns = []
    for parameter in model.parameters:
        lower, upper = (0.2, 5.0) if parameter.name == model.scale else parameter.bounds
        where = rng.uniform(size=4 * n)
        values = rng.uniform(lower, upper, 4 * n)
        columns.append(np.where(where < 0.1, lower, np.where(where > 0.9, upper, values)))
    points = np.stack(columns, axis=1)
    matrix, limits = model.linear_constraints
    for row, limit in zip(matrix, limits, strict=True):
        j = row.argmax()
        some = rng.uniform(size=4 * n) < 0.2
        points[some, j] += (limit - points[some] @ row) / row[j]
    return points[feasible(model, points)][:n]


def feasible(model: SignalModel, points: np.ndarray, tolerance: float = 1e-12) -> np.ndarray:
    """Which points keep the bounds and the linear constraints of a model."""
    matrix, limits = model.linear_constraints
    lower, upper = np.transpose([parameter.bounds for parameter in model.parameters])
    inside = (points >= lower) & (points <= upper)
    return inside.all(axis=1) & (points @ matrix.T <= limits + tolerance).all(axis=1)


def edges(model: SignalModel, points: np.ndarray):
    """Each edge of a model's parameter space, with feasible points on it and a direction that leads inside."""
    for j, parameter in enumerate(model.parameters):
        for bound, sign in zip(parameter.bounds, (1.0, -1.0), strict=True):
            if parameter.name != model.scale:
                on_edge = points.copy()
                on_edge[:, j] = bound
                yield (
                    f"{parameter.name} = {bound:g}",
                    on_edge[feasible(model, on_edge)],
                    sign * np.eye(len(model.names))[j],
                )
    for relation, row, limit in zip(model.constraints, *model.linear_constraints, strict=True):
        j = row.argmax()
        on_edge = points.copy()
        on_edge[:, j] += (limit - points @ row) / row[j]
        yield str(relation), on_edge[feasible(model, on_edge)], -np.eye(len(model.names))[j]


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

    def test_golden_values_of_smt_with_free_water(self):
        parameters = {"S0": 1, "vcyl": 0.5, "vcsf": 0.2, "lambda": 1.7}
        assert models.get("smt3").signal(parameters, GYORI) == pytest.approx(
            [0.42720773, 0.27343976, 0.18931512, 0.15381410], abs=1e-8
        )

    def test_ivim_decays_with_dstar_not_with_d_plus_dstar(self):
        signal = models.get("ivim").signal({"S0": 1, "f": 1, "D": 1, "Dstar": 10}, Acquisition([100]))
        assert signal == pytest.approx([np.exp(-1)], rel=1e-15)

    def test_in_the_form_of_le_bihan_it_decays_with_their_sum(self):
        variant = models.get("ivimlebihan").signal({"S0": 1, "f": 0.3, "D": 1, "Dstar": 10}, WIDE)
        assert variant == pytest.approx(models.get("ivim").signal({"S0": 1, "f": 0.3, "D": 1, "Dstar": 11}, WIDE))

    def test_normalised_tortuosity_counts_tissue_only(self):
        """By the words of the definition: vext K(b, lambda, (1 - vcyl / (vcyl + vext)) lambda)."""
        b, vcyl, vcsf, diffusivity = GYORI.variable("b"), 0.3, 0.4, 1.7
        vext = 1 - vcyl - vcsf
        expected = tissue(b, vcyl, vext, diffusivity, 1 - vcyl / (vcyl + vext)) + vcsf * np.exp(-3 * b)
        parameters = {"S0": 1, "fcyl": vcyl / (vcyl + vext), "vcsf": vcsf, "lambda": diffusivity}
        assert models.get("smt3normalised").signal(parameters, GYORI) == pytest.approx(expected, rel=1e-13)
        literal = models.get("smt3").signal({"S0": 1, "vcyl": vcyl, "vcsf": vcsf, "lambda": diffusivity}, GYORI)
        assert np.abs(literal - expected).max() > 0.01

    @pytest.mark.parametrize(
        "point", [(0.5, 0.2, 1.7), (0.0, 0.3, 2.0), (1.0, 0.0, 0.9), (0.2, 0.8, 3.0), (0.0, 1.0, 1.0)]
    )
    def test_derivatives_of_smt_in_40_digits(self, point):
        """From the definition: the average over directions as an integral, differentiated numerically."""

        def definition(s0, vcyl, vcsf, diffusivity):
            def average(across):
                return mpmath.quad(lambda u: mpmath.exp(-b * (across + (diffusivity - across) * u**2)), [0, 1])

            tissue = vcyl * average(0) + (1 - vcyl - vcsf) * average((1 - vcyl) * diffusivity)
            return s0 * (tissue + vcsf * mpmath.exp(-3 * b))

        signal, jacobian = models.get("smt3").signal_and_jacobian([2.0, *point], Acquisition([2000]))
        with mpmath.workdps(40):
            b = mpmath.mpf(2)
            where = [mpmath.mpf(x) for x in (2.0, *point)]
            assert signal[0] == pytest.approx(float(definition(*where)), rel=1e-14)
            for j in range(4):
                order = tuple(int(k == j) for k in range(4))
                assert jacobian[0, j] == pytest.approx(
                    float(mpmath.diff(definition, where, order)), rel=1e-12, abs=1e-14
                )

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

    @pytest.mark.parametrize(
        ("name", "parameters", "expected"),
        [
            ("adc", {"D": 0}, lambda b: np.ones(b.size)),
            ("ivim", {"f": 0, "D": 1, "Dstar": 50}, lambda b: np.exp(-b)),
            ("ivim", {"f": 1, "D": 1, "Dstar": 50}, lambda b: np.exp(-50 * b)),
            ("ivim", {"f": 0.4, "D": 5, "Dstar": 5}, lambda b: np.exp(-5 * b)),
            ("ivimlebihan", {"f": 0, "D": 1, "Dstar": 50}, lambda b: np.exp(-b)),
            ("ivimlebihan", {"f": 1, "D": 1, "Dstar": 50}, lambda b: np.exp(-51 * b)),
            ("ivimsimple", {"f": 0, "D": 1}, lambda b: np.exp(-b)),
            ("ivimsimple", {"f": 1, "D": 1}, lambda b: np.where(b < 0.1, 1, 0)),
            ("smt2", {"vcyl": 0, "lambda": 1.5}, lambda b: np.exp(-1.5 * b)),
            ("smt2", {"vcyl": 1, "lambda": 1.5}, lambda b: direction_average(1.5 * b)),
            ("smt2", {"vcyl": 0.4, "lambda": 0}, lambda b: np.ones(b.size)),
            ("smt3", {"vcyl": 0, "vcsf": 0, "lambda": 1.5}, lambda b: np.exp(-1.5 * b)),
            ("smt3", {"vcyl": 0, "vcsf": 0.3, "lambda": 3}, lambda b: np.exp(-3 * b)),
            ("smt3", {"vcyl": 1, "vcsf": 0, "lambda": 1.5}, lambda b: direction_average(1.5 * b)),
            ("smt3", {"vcyl": 0, "vcsf": 1, "lambda": 1.5}, lambda b: np.exp(-3 * b)),
            ("smt3", {"vcyl": 0.4, "vcsf": 0, "lambda": 1.5}, lambda b: EQUATIONS["smt2"](b, 1, 0.4, 1.5)),
            (
                "smt3",
                {"vcyl": 0.6, "vcsf": 0.4, "lambda": 1.5},
                lambda b: 0.6 * direction_average(1.5 * b) + 0.4 * np.exp(-3 * b),
            ),
            ("smt3", {"vcyl": 0.6, "vcsf": 0.1, "lambda": 0}, lambda b: 0.9 + 0.1 * np.exp(-3 * b)),
            ("smt3normalised", {"fcyl": 0.7, "vcsf": 1, "lambda": 1.5}, lambda b: np.exp(-3 * b)),
            ("smt3normalised", {"fcyl": 0.4, "vcsf": 0, "lambda": 1.5}, lambda b: EQUATIONS["smt2"](b, 1, 0.4, 1.5)),
            ("smt3normalised", {"fcyl": 0.6, "vcsf": 0.1, "lambda": 0}, lambda b: 0.9 + 0.1 * np.exp(-3 * b)),
        ],
    )
    def test_limits(self, name, parameters, expected):
        b = WIDE.variable("b")
        assert models.get(name).signal({"S0": 2, **parameters}, WIDE) == pytest.approx(2 * expected(b), rel=1e-13)

    @pytest.mark.parametrize("name", NAMES)
    def test_signal_and_jacobian_are_smooth_up_to_every_edge(self, name):
        """At a small distance from an edge they differ from those on it by little more than the distance."""
        model = models.get(name)
        if name == "ivim":  # where its own bounds keep D and Dstar apart
            model = dataclasses.replace(
                model,
                parameters=[
                    dataclasses.replace(p, bounds=(0.0, 9.0)) if "D" in p.name else p for p in model.parameters
                ],
            )
        for edge, on_edge, inwards in edges(model, random_parameters(model, 50)):
            assert len(on_edge), edge
            signal, jacobian = model.signal_and_jacobian(on_edge, WIDE)
            assert np.isfinite(signal).all(), edge
            assert np.isfinite(jacobian).all(), edge
            for distance in np.geomspace(1e-15, 1e-5, 11):
                near, slopes = model.signal_and_jacobian(on_edge + distance * inwards, WIDE)
                assert np.abs(near - signal).max() < 1e2 * distance + 1e-13, edge
                assert np.abs(slopes - jacobian).max() < 1e3 * distance + 1e-12, edge

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
        assert models.get("smt2").support(shells).used == "b = 0, 1000, 2000 s/mm²"
        assert models.get("smt3").support(Acquisition([0, 700, 1500, 3000], n_directions=[1, 6, 6, 6]))
        assert models.get("ivimsimple").support(Acquisition([0, 200, 800]))
        assert models.get("ivimlebihan").support(Acquisition([0, 10, 20, 50, 100, 200, 500, 800]))

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
            (
                "smt3",
                Acquisition([0, 1000, 2000, 3000], n_directions=[1, 30, 30, 5]),
                ["3 different b-values of 700 s/mm² or more", "6 directions each", "has 1000, 2000"],
            ),
            ("ivimsimple", Acquisition([10, 200, 800]), ["1 b-value of at most 1 s/mm²", "has none"]),
            ("ivimsimple", Acquisition([0, 50, 800, 1500]), ["between 200 and 1000", "has 800"]),
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
        assert models.get("ivimsimple").usable(Acquisition([0, 1, 5, 100, 180, 195, 1005, 1100])).tolist() == [
            0,
            1,
            5,
            6,
        ]


class TestEchoTimes:
    """A model of b and TE: nothing of it is in the package."""

    S0, D, T2, b, TE = sp.symbols("S0 D T2 b TE", real=True)
    model = SymbolicModel(
        name="relaxation",
        title="Diffusion and transverse relaxation",
        description="",
        parameters=(
            Parameter(name="S0", label="S0", unit="arbitrary", bounds=(0, np.inf), latex="S_0", description=""),
            Parameter(
                name="D", label="D", unit="um^2/ms", bounds=(0, 5), latex="D", description="", start=(0.3, 0.8, 1.5, 3)
            ),
            Parameter(
                name="T2",
                label="T2",
                unit="ms",
                bounds=(1, 3000),
                latex="T_2",
                description="",
                start=(10, 30, 100, 300, 1000),
            ),
        ),
        variables=("b", "TE"),
        expression=S0 * sp.exp(-b * D - TE / T2),
        requirements=(
            ValuesRequirement("b", 2, reason="D is fitted"),
            ValuesRequirement("TE", 3, reason="T2 is fitted"),
        ),
    )
    echo_times = np.tile([60, 60.02, 80, 110], 4)
    acquisition = Acquisition(np.repeat([0, 1000, 1005, 400], 4), TE=echo_times)

    @pytest.mark.parametrize("averaging", ["arithmetic", "none"])
    def test_fits_follow_from_the_equation(self, averaging):
        rng = np.random.default_rng(0)
        truth = {"S0": rng.uniform(100, 2000, 50), "D": rng.uniform(0.2, 3, 50), "T2": rng.uniform(15, 400, 50)}
        acquisition = Acquisition([0, 0, 0, 500, 500, 500, 1000], TE=[60, 80, 110, 60, 80, 110, 60])
        signals = self.model.signal(truth, acquisition)
        estimate = LeastSquares(self.model, averaging=averaging).estimate(signals, acquisition)
        for name, values in truth.items():
            assert estimate.parameters[name] == pytest.approx(values, rel=1e-6)
        assert set(estimate.count()) == {Status.CONVERGED}
        assert "T_2" in self.model.latex

    def test_what_was_used_is_said_in_b_values_and_echo_times(self):
        assert self.model.support(self.acquisition).used == "b = 0, 400, 1002 s/mm² and TE = 60, 80, 110 ms"

    def test_what_is_missing_is_said_in_echo_times(self):
        missing = self.model.support(Acquisition([0, 0, 1000], TE=[4.92, 9.84, 4.92])).missing
        assert missing == ("3 different echo times (T2 is fitted); the protocol has 4.9, 9.8 ms",)
        missing = self.model.support(Acquisition([0, 0, 1000])).missing
        assert missing == ("3 different echo times (T2 is fitted); the protocol has none",)

    def test_one_b_value_at_many_echo_times_is_one(self):
        missing = self.model.support(Acquisition([1000, 1003, 998], TE=[60, 80, 110])).missing
        assert missing == ("2 different b-values (D is fitted); the protocol has 1000 s/mm²",)

    def test_a_model_without_echo_times_wants_one(self):
        with pytest.raises(UnsupportedProtocolError, match=r"one echo time .* the protocol has 60, 80, 110 ms\.$"):
            models.get("adc").require_support(self.acquisition)
        one = self.acquisition.select(np.flatnonzero(self.echo_times < 70))
        assert models.get("adc").support(one).used == "b = 0, 400, 1002 s/mm²"

    def test_echo_times_that_no_requirement_asked_for_are_missed_at_the_fit(self):
        model = dataclasses.replace(self.model, requirements=())
        with pytest.raises(UnsupportedProtocolError, match=r"Missing: echo times \(TE, EchoTime of the metadata\)\.$"):
            LeastSquares(model).estimate(np.ones((1, 2)), Acquisition([0, 1000]))


class TestEstimates:
    """What must hold of the fits of every model: constraints, and the truth where nothing is in the way."""

    acquisition = Acquisition(
        [0, 5, 10, 20, 40, 80, 150, 200, 400, 600, 800, 1000, 2000, 3500, 5000], n_directions=[1] * 11 + [30] * 4
    )

    @pytest.mark.parametrize("name", [name for name in NAMES if models.get(name).constraints])
    @pytest.mark.parametrize("make", [LeastSquares, MaximumLikelihood])
    def test_bounds_and_constraints_hold_at_every_estimate(self, name, make):
        """Noisy signals of points on the edges, where most fits are pushed across."""
        model, rng = models.get(name), np.random.default_rng(1)
        truth = np.concatenate([points[:40] for _, points, _ in edges(model, random_parameters(model, 400))])
        signal = model.signal(truth, self.acquisition)
        sigma = 0.05 * truth[:, model.scale_index]
        noise = sigma[:, None] * rng.standard_normal((2, *signal.shape))
        estimate = make(model).estimate(np.hypot(signal + noise[0], noise[1]), self.acquisition, noise=sigma)
        found = model.parameter_array(estimate.parameters)
        assert np.isfinite(found).all()
        assert feasible(model, found).all()

    @pytest.mark.parametrize("name", NAMES)
    def test_starting_points_are_feasible(self, name):
        model = models.get(name)
        points = starting_points(model, np.array([parameter.bounds for parameter in model.parameters]))
        assert feasible(model, points).all()
        assert len(points) < 1000  # each voxel looks at all of them

    @pytest.mark.parametrize("name", ["smt3", "smt3normalised"])
    def test_noise_free_fits_of_three_compartments_find_the_truth(self, name):
        """Wherever the signal determines it; elsewhere they find the signal."""
        model = models.get(name)
        fractions, diffusivities = np.linspace(0, 1, 11), np.linspace(0, 3, 16)
        points = np.array([(1, v, w, d) for v in fractions for w in fractions for d in diffusivities])
        points = points[feasible(model, points)]
        acquisition = Acquisition([0, 1000, 2000, 3500, 5000], n_directions=[1, 30, 30, 30, 30])
        signal = model.signal(points, acquisition)
        found = model.parameter_array(LeastSquares(model).estimate(signal, acquisition).parameters)
        assert np.abs(model.signal(found, acquisition) - signal).max() < 5e-4
        _, fraction, water, diffusivity = points.T
        # no diffusion looks the same whatever the fractions; all free water, whatever the tissue; and so does tissue
        # without cylinders that diffuses like water, whatever the share of water
        determined = (diffusivity > 0) & (water < 1) & ((fraction > 0) | (diffusivity < 3))
        wrong = np.abs(found - points).max(axis=1) > 1e-3
        assert wrong[determined].mean() < 0.02  # other points whose signals differ by less than 0.0005 S0


class TestSimplified:
    """IVIM from few b-values."""

    model = models.get("ivimsimple")

    def test_three_b_values_give_the_textbook_answer(self):
        s0, s200, s800 = 1000.0, 700.0, 450.0
        estimate = LeastSquares(self.model).estimate(np.array([[s0, s200, s800]]), Acquisition([0, 200, 800]))
        d = np.log(s200 / s800) / 0.6
        assert estimate.parameters["D"] == pytest.approx([d], rel=1e-6)
        assert estimate.parameters["f"] == pytest.approx([1 - s200 * np.exp(0.2 * d) / s0], rel=1e-6)
        assert estimate.parameters["S0"] == pytest.approx([s0], rel=1e-6)

    def test_what_lies_between_is_left_out(self):
        acquisition = Acquisition([0, 20, 100, 200, 400, 800, 1500])
        signals = np.tile(models.get("ivim").signal({"S0": 1, "f": 0.1, "D": 1, "Dstar": 50}, acquisition), (2, 1))
        signals[1, [1, 2, 6]] = 17.0
        estimate = LeastSquares(self.model).estimate(signals, acquisition)
        assert estimate.acquisition.b_values.tolist() == [0, 200, 400, 800]
        assert estimate.parameters["f"] == pytest.approx([0.1, 0.1], abs=1e-4)


def test_variants_are_fitted_only_where_they_are_named():
    of_series = ["mp2rage", "mrffisp", "qmtgbloch", "qmtramani", "sirqmt"], ["t1ir", "t1vfa", "t2", "t2star"]
    assert models.without_variants() == ["adc", "dti", "ivim", *of_series[0], "smt2", "smt3", *of_series[1]]
    for name in NAMES:
        variant_of = models.get(name).variant_of
        assert not variant_of or not models.get(variant_of).variant_of


class TestDefinition:
    table = (
        Parameter(name="S0", label="S0", unit="arbitrary", bounds=(0, np.inf), latex="S_0", description=""),
        Parameter(name="R", label="R", unit="1", bounds=(0, 1), latex="R", description="", start=(0.5,)),
    )
    S0, R, b = sp.symbols("S0 R b", real=True)

    def model(self, expression: sp.Expr, **changes: object) -> SignalModel:
        fields: dict = {"name": "test", "title": "", "parameters": self.table, "description": ""}
        return SymbolicModel(expression=expression, **{**fields, **changes})

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
        matrix, limits = models.get("smt3").linear_constraints
        assert (matrix.tolist(), limits.tolist()) == ([[0, 1, 1, 0]], [1])

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
            ("ivimlebihan", [r"e^{- b \left(D + D^{*}\right)}"]),
            ("ivimsimple", [r"\begin{cases} 1 & \text{for}\: b < 0.1"]),
            ("smt2", [r"v_\mathrm{cyl}", r"\lambda", r"\operatorname{erf}", r"\sqrt{\pi}"]),
            ("smt3", [r"v_\mathrm{csf} e^{- 3 b}", r"\operatorname{erf}"]),
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
        kernel = compile_kernel(t0 * sp.exp(-b * t1) + t0 * sp.exp(-2 * b * t1), ("t0", "t1"), ("b",))
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


def test_changed_bounds_and_starts_need_no_other_change():
    model = models.get("adc")
    table = tuple(dataclasses.replace(p, bounds=(0, 50)) if p.name == "D" else p for p in model.parameters)
    fast = dataclasses.replace(model, parameters=table)
    signal = fast.signal({"S0": [1.0], "D": [20.0]}, Acquisition([0, 50, 100]))
    estimate = LeastSquares(fast).estimate(signal, Acquisition([0, 50, 100]))
    assert estimate.parameters["D"] == pytest.approx([20], rel=1e-6)
