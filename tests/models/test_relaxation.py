"""Relaxation times: closed forms, the bound, and what simulation tells of errors over orders of magnitude."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.linalg import expm

from bidsfit import Acquisition, LeastSquares, MaximumLikelihood, models
from bidsfit.bids.series import SERIES
from bidsfit.fitting import fit
from bidsfit.information import cramer_rao_bound
from bidsfit.noise import add_noise
from bidsfit.phantom.tissue import RECIPES
from bidsfit.trust import monte_carlo

#: True parameters of every model.
TRUTHS = {
    "t2": {"S0": 1000.0, "T2": 80.0},
    "t2star": {"S0": 1000.0, "T2star": 45.0},
    "t1vfa": {"S0": 1000.0, "T1": 900.0, "B1": 1.0},
    "mp2rage": {"S0": 1000.0, "T1": 900.0, "inversion": 0.96, "B1": 1.0},
    "t1ir": {"S0": 1000.0, "T1": 900.0, "inversion": 0.95},
    "qmtramani": {
        "S0": 1000.0, "PSR": 0.14, "kmf": 25.0, "T2m": 11.0, "T2R1": 0.04, "T1": 1000.0, "R1m": 1.0, "B1": 1.0
    },
    "sirqmt": {"S0": 1000.0, "T1": 1000.0, "PSR": 0.13, "inversion": 0.9, "kmf": 12.5},
}  # fmt: skip
NAMES, ECHOES = tuple(TRUTHS), ("t2", "t2star")
#: Noise, as a share of S0, of images of a good SNR: signals at small flip angles are a few per cent of S0.
SIGMA = {
    "t2": 0.025, "t2star": 0.025, "t1vfa": 0.001, "mp2rage": 0.0008, "t1ir": 0.02, "sirqmt": 0.004, "qmtramani": 0.004
}  # fmt: skip


def protocol(name):
    return Acquisition(**RECIPES[name].columns)


def noisy(name, sigma, n, kind="rician"):
    clean = models.get(name).signal(TRUTHS[name], protocol(name))
    return add_noise(np.tile(clean, (n, 1)), sigma, kind, np.random.default_rng(0))


def test_every_model_of_a_series_is_looked_at_here():
    """But for fingerprints, in test_fingerprinting.py and test_generalised_bloch.py."""
    named = {*NAMES, "mrffisp", "qmtgbloch"}
    assert {n for n in models.BUILT_IN if set(models.get(n).suffixes) - {"dwi"}} == named
    assert {suffix for name in named for suffix in models.get(name).suffixes} == set(SERIES)


@pytest.mark.parametrize("name", ECHOES)
def test_echoes_decay_by_the_equation(name):
    """After one relaxation time 1/e is left, after two 1/e^2."""
    model, (s0, time) = models.get(name), TRUTHS[name].values()
    signal = model.signal(TRUTHS[name], Acquisition(TE=[1e-9, time, 2 * time, time * np.log(2)]))
    np.testing.assert_allclose(signal, s0 * np.array([1, np.exp(-1), np.exp(-2), 0.5]), rtol=1e-9)


@pytest.mark.parametrize("name", [name for name in NAMES if models.get(name).derived])
def test_rates_are_in_1_per_s(name):
    model, (_, time, *_) = models.get(name), TRUTHS[name].values()
    estimate = LeastSquares(model).estimate(model.signal(TRUTHS[name], protocol(name))[None], protocol(name))
    (rate,) = model.derived
    assert rate.label == model.names[1].replace("T", "R")
    assert estimate.derived[rate.name][0] == pytest.approx(1000 / time, rel=1e-6)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("make", "kind"), [(LeastSquares, "gaussian"), (MaximumLikelihood, "rician")])
def test_estimators_reach_the_bound(name, make, kind):
    model = models.get(name)
    sigma, estimator = 1000 * SIGMA[name], make(model)
    estimate = estimator.estimate(noisy(name, sigma, 4000, kind), protocol(name), noise=sigma)
    floor = cramer_rao_bound(model, TRUTHS[name], protocol(name), sigma, kind, fixed=estimator.fixed)
    for parameter, value in TRUTHS[name].items():
        if parameter in estimator.fixed:
            continue
        found = estimate.parameters[parameter]
        assert found.mean() == pytest.approx(value, abs=0.2 * floor[parameter])
        assert found.std() == pytest.approx(floor[parameter], rel=0.06)


def test_the_bound_of_two_echoes_is_that_of_error_propagation():
    """T2 = (TE2 - TE1) / ln(S1 / S2), so that its variance follows from those of two signals."""
    t2, times, sigma = models.get("t2"), np.array([20.0, 100.0]), 5.0
    signal = t2.signal(TRUTHS["t2"], Acquisition(TE=times))
    expected = 80.0**2 / np.diff(times)[0] * sigma * np.sqrt((1 / signal**2).sum())
    assert cramer_rao_bound(t2, TRUTHS["t2"], Acquisition(TE=times), sigma)["T2"] == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("name", ECHOES)
def test_a_protocol_lacks_what_is_said(name):
    (missing,) = models.get(name).support(Acquisition(TE=[10, 20])).missing
    assert missing.startswith("3 different echo times")
    (missing,) = models.get(name).support(Acquisition(TE=[10, 20, 30], TR=[500, 600, 700])).missing
    assert missing.startswith("one repetition time (the model does not describe its influence)")


@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.slow] * (n == "qmtramani")) for n in NAMES])
def test_expected_errors_are_those_that_are_seen(name):
    """Of least squares, which Rician noise biases at low SNR; not blurred by those of times 20 times as long."""
    model, acquisition = models.get(name), protocol(name)
    estimator, time = LeastSquares(model), models.get(name).names[1]
    several = len(model.parameters) - len(estimator.fixed) > 3  # among more parameters truths lie further apart
    size = monte_carlo.Size(4096, 64, 16, 512) if several else monte_carlo.Size(1024, 32, 8, 192)
    kind = "gaussian" if name == "mp2rage" else "rician"
    performance = monte_carlo.performance_of(estimator, acquisition, kind=kind, size=size)
    for sigma in (2000 * SIGMA[name], 600 * SIGMA[name])[: 1 if several else 2]:
        estimate = estimator.estimate(noisy(name, sigma, 4000, kind), acquisition)
        error, sd = estimate.parameters[time] - TRUTHS[name][time], estimate.parameters[time].std()
        expected = performance.expected(estimate.points, np.full(4000, sigma))
        assert np.median(expected.bias[time]) == pytest.approx(error.mean(), abs=0.1 * sd)
        assert np.median(expected.sd[time]) == pytest.approx(sd, rel=0.15)
        assert np.median(expected.response[:, 0, 0]) == pytest.approx(1, abs=0.1)


class TestInversionRecovery:
    model = models.get("t1ir")

    @pytest.mark.parametrize("repetition", [1500.0, 2550.0, 1e6])
    @pytest.mark.parametrize("efficiency", [0.9, 1.0])
    def test_short_repetitions_and_incomplete_inversions_change_the_depth_alone(self, repetition, efficiency):
        """The magnetisation of a spin echo after an inversion (Barral et al., equation 1)."""
        times, t1, left = np.array([50.0, 400, 1100, 1400]), 900.0, efficiency * np.exp(-repetition / 900)
        signal = np.abs(1 - (1 + efficiency) * np.exp(-times / t1) + left)
        estimate = LeastSquares(self.model).estimate(1000 * signal[None], Acquisition(TI=times))
        assert estimate.parameters["T1"][0] == pytest.approx(t1, rel=1e-5)
        assert estimate.parameters["inversion"][0] == pytest.approx((1 + efficiency) / (1 + left) - 1, abs=1e-5)
        assert estimate.parameters["S0"][0] == pytest.approx(1000 * (1 + left), rel=1e-5)

    def test_where_the_signal_passes_through_zero(self):
        zero = 900 * np.log(1.95)
        signal = self.model.signal(TRUTHS["t1ir"], Acquisition(TI=[zero - 100, zero, zero + 100]))
        assert signal[1] == pytest.approx(0, abs=1e-9)
        assert signal.min() >= 0


class TestReadoutsAfterAnInversion:
    model = models.get("mp2rage")

    @pytest.mark.parametrize("b1", [1.0, 0.8])
    @pytest.mark.parametrize("t1", [300.0, 900.0, 4000.0])
    def test_the_signals_are_those_of_marques(self, t1, b1):
        """Equations A1.4 to A1.6 of Marques et al. (2010), written out for two readouts."""
        protocol = Acquisition(
            TI=[800, 2700], flip_angle=[7, 5], TR=[6.8] * 2, TRP=[6000] * 2, shots_before=[35] * 2, shots_after=[72] * 2
        )
        before, after, spacing, depth = 35, 72, 6.8, 0.96
        n, sines = before + after, np.sin(b1 * np.deg2rad([7, 5]))
        pauses = 800 - before * spacing, 2700 - 800 - n * spacing, 6000 - 2700 - after * spacing
        e1, ea, eb, ec = (np.exp(-time / t1) for time in (spacing, *pauses))
        c1, c2 = np.cos(b1 * np.deg2rad([7, 5])) * e1
        m = (1 - ea) * c1**n + (1 - e1) * (1 - c1**n) / (1 - c1)
        m = (m * eb + 1 - eb) * c2**n + (1 - e1) * (1 - c2**n) / (1 - c2)
        m = (m * ec + 1 - ec) / (1 + depth * (c1 * c2 / e1**2) ** n * np.exp(-6000 / t1))
        first = (1 - ea - depth * m * ea) * c1**before + (1 - e1) * (1 - c1**before) / (1 - c1)
        second = (m - 1 + ec) / ec / c2**after - (1 - e1) * (c2**-after - 1) / (1 - c2)
        found = self.model.signal({"S0": 1000.0, "T1": t1, "inversion": depth, "B1": b1}, protocol)
        np.testing.assert_allclose(found, 1000 * sines * [first, second], rtol=1e-9)

    def test_many_repetitions_end_in_the_steady_state(self):
        """Of the Bloch equations, pulse by pulse, from equilibrium."""
        columns = RECIPES["mp2rage"].columns
        m, t1, spacing = 1.0, 900.0, columns["TR"][0]

        def wait(m, time):
            return 1 - (1 - m) * np.exp(-time / t1)

        for _ in range(30):
            m, now, signals = -0.96 * m, 0.0, []
            for time, angle in zip(columns["TI"], np.deg2rad(columns["flip_angle"]), strict=True):
                m, now = wait(m, time - 44 * spacing - now), time + 88 * spacing
                for k in range(44 + 88):
                    signals += [1000 * m * np.sin(angle)] if k == 44 else []
                    m = wait(m * np.cos(angle), spacing)
            m = wait(m, columns["TRP"][0] - now)
        np.testing.assert_allclose(self.model.signal(TRUTHS["mp2rage"], protocol("mp2rage")), signals, rtol=1e-9)

    def test_the_transmit_field_is_taken_out(self):
        rng, n = np.random.default_rng(0), 200
        times, fields = rng.uniform(300, 4500, n), rng.uniform(0.6, 1.4, n)
        truth = np.column_stack([np.full(n, 1e3), times, np.full(n, 0.96), fields])
        signals = self.model.signal(truth, protocol("mp2rage"))
        fitted = LeastSquares(self.model).estimate(signals, protocol("mp2rage"))
        assert np.abs(fitted.parameters["T1"] / truth[:, 1] - 1).max() > 0.1
        found = self.model.covariate.apply(fitted.points, truth[:, 3], protocol("mp2rage"), [0, 1])
        np.testing.assert_allclose(found, truth, rtol=1e-5)


class TestSelectiveInversion:
    model = models.get("sirqmt")

    def test_the_signal_is_that_of_two_pools_that_exchange(self):
        """The Bloch equations of both pools, by matrix exponentials (Gochberg and Gore; Dortch et al.)."""
        truth, times = TRUTHS["sirqmt"], [(10.0, 2500.0), (15, 684), (278, 2730), (1007, 10), (0, 1e5), (1e5, 1000)]
        rate, exchange, ratio = 1 / truth["T1"], truth["kmf"] / 1000, truth["PSR"]
        matrix = np.array([[-rate - exchange * ratio, exchange], [exchange * ratio, -rate - exchange]])
        rest = np.array([1.0, ratio])  # magnetisation of water and of macromolecules at equilibrium
        expected = []
        for inversion_time, delay in times:
            recovered = rest - expm(matrix * delay) @ rest
            inverted = recovered * [-truth["inversion"], 0.83]
            expected.append(1000 * abs((rest + expm(matrix * inversion_time) @ (inverted - rest))[0]))
        acquisition = Acquisition(**dict(zip(("TI", "TD"), zip(*times, strict=True), strict=True)))
        np.testing.assert_allclose(self.model.signal(truth, acquisition), expected, rtol=1e-10)

    def test_one_exponential_takes_exchange_for_relaxation(self):
        """Without macromolecules the model is that of inversion recovery; with them, t1ir finds too short a T1."""
        acquisition = protocol("sirqmt")
        for ratio, expected in ((0.0, 1000.0), (0.13, 810.0)):
            signal = self.model.signal(TRUTHS["sirqmt"] | {"PSR": ratio}, acquisition)
            found = LeastSquares(models.get("t1ir")).estimate(signal[None], Acquisition(TI=acquisition.variable("TI")))
            assert found.parameters["T1"][0] == pytest.approx(expected, rel=0.01)

    def test_the_rate_of_the_exchange_can_be_fitted(self):
        estimator = LeastSquares(self.model, bounds={"kmf": (5, 40)})
        signal = self.model.signal(TRUTHS["sirqmt"] | {"kmf": 20.0}, protocol("sirqmt"))
        found = estimator.estimate(signal[None], protocol("sirqmt"))
        assert found.parameters["kmf"][0] == pytest.approx(20, rel=1e-3)

    def test_without_delays_it_is_not_fitted(self):
        (missing,) = self.model.support(Acquisition(TI=[10, 100, 1000, 3000])).missing
        assert missing.startswith("1 recovery delay")


class TestFlipAngles:
    """Spoiled gradient echoes, with a map of the transmit field or without."""

    model = models.get("t1vfa")
    angles = ((3, 15), (2, 5, 10, 15, 20, 25), (5, 30))

    def test_the_signal_is_that_of_ernst(self):
        acquisition = Acquisition(flip_angle=[0, 10, 90], TR=[20] * 3)
        decay = np.exp(-20 / 900)
        turned = np.deg2rad([0, 12, 108])
        expected = 1000 * np.sin(turned) * (1 - decay) / (1 - decay * np.cos(turned))
        assert self.model.signal(TRUTHS["t1vfa"] | {"B1": 1.2}, acquisition) == pytest.approx(expected, abs=1e-9)
        ernst = np.rad2deg(np.arccos(decay))
        around = self.model.signal(TRUTHS["t1vfa"], Acquisition(flip_angle=ernst + np.array([-1, 0, 1]), TR=[20] * 3))
        assert np.argmax(around) == 1

    @pytest.mark.parametrize("angles", angles)
    @pytest.mark.parametrize("b1", [0.7, 0.9, 1.3])
    def test_the_transmit_field_is_taken_out(self, angles, b1):
        """Twice the error of the angle goes into T1; the closed form alone leaves up to 5 %."""
        acquisition = Acquisition(flip_angle=angles, TR=[15] * len(angles))
        truth = np.column_stack([np.full(3, 1000.0), [600.0, 1200.0, 4000.0], np.full(3, b1)])
        estimate = LeastSquares(self.model).estimate(self.model.signal(truth, acquisition), acquisition)
        assert estimate.parameters["T1"] / truth[:, 1] == pytest.approx(b1**2, rel=0.06)
        found = self.model.covariate.apply(estimate.points, truth[:, 2], acquisition, [0, 1])
        np.testing.assert_allclose(found, truth, rtol=3e-5)

    def test_unknown_fields_leave_no_estimate(self):
        points = np.array([[1000.0, 900.0, 1.0], [1000.0, np.nan, 1.0], [1000.0, 900.0, 1.0]])
        found = self.model.covariate.apply(points, np.array([np.nan, 1.0, 1.0]), protocol("t1vfa"), [0, 1])
        np.testing.assert_array_equal(np.isnan(found).all(axis=1), [True, True, False])
        np.testing.assert_allclose(found[2], points[2])

    def test_floor_and_intervals_follow(self):
        """As if every voxel had been fitted with its own flip angles."""
        n, sigma, b1 = 3000, 1.0, 0.8
        acquisition, estimator = protocol("t1vfa"), LeastSquares(self.model, intervals="wald")
        truth = TRUTHS["t1vfa"] | {"B1": b1}
        clean = np.tile(self.model.signal(truth, acquisition), (n, 1))
        signals = add_noise(clean, sigma, "gaussian", np.random.default_rng(0))
        result = fit(estimator, signals, acquisition, sigma, kind="gaussian", covariate=np.full(n, b1))
        floor = cramer_rao_bound(self.model, truth, acquisition, sigma, fixed=("B1",))["T1"]
        t1, inside = result.values["T1"], result.values["T1_q025"] < 900
        assert np.median(result.values["T1_crb"]) == pytest.approx(floor, rel=0.02)
        assert t1.std() == pytest.approx(floor, rel=0.06)
        assert np.mean(inside & (result.values["T1_q975"] > 900)) == pytest.approx(0.95, abs=0.015)
        np.testing.assert_allclose(result.values["R1"] * t1, 1000)
        np.testing.assert_array_equal(result.values["B1"], b1)
