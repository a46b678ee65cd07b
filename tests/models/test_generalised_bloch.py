"""Cycles of pulses with magnetisation transfer: published values, matrix exponentials, and limits with closed forms."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.linalg import expm
from scipy.optimize import brentq

from bidsfit import Acquisition, LeastSquares, models
from bidsfit.information import cramer_rao_bound
from bidsfit.models.generalised_bloch import cycle, cycle_of_voxels, inverted, inverted_share, periodic
from bidsfit.noise import add_noise
from bidsfit.phantom.tissue import RECIPES

#: White matter: S0, m0s, R1f, R2f, Rx, R1s (1/s), T2s (µs), f0 (1/s), B1 and phase.
WHITE = np.array([1.0, 0.2, 1 / 1.92, 1 / 0.0776, 16.5, 1 / 0.337, 12.4, 0.0, 1.0, 0.0])


def pulses(n):
    """A crushed inversion and n - 1 pulses that change slowly: degrees, duration, repetition (ms), if crushed."""
    k = np.arange(n)
    table = np.column_stack(
        [20 + 40 * np.sin(np.pi * k / n) ** 2, 0.1 + 0.4 * np.abs(np.sin(k / 17)), np.full(n, 3.5), np.zeros(n)]
    )
    table[0] = [180, 0.5, 3.5, 1]
    return table


def rate(duration, angle):
    """R2sl times the duration: of Bloch equations whose longitudinal magnetisation ends where `inverted` says."""
    target = inverted(duration, np.array([angle]))[0]

    def bloch(r):
        s = np.sqrt(complex(r**2 - 4 * angle**2))
        return (np.exp((s - r) / 2) * (1 + r / s) + np.exp(-(s + r) / 2) * (1 - r / s)).real / 2 - target

    return brentq(bloch, 0.05 * duration, 0.5 * duration)


def hamiltonian(parameters, angle, duration, r2sl=None):
    """Of xf, yf, zf, xs, zs and 1 (Assländer et al.), in a pulse of so many radians and ms; of 0, xs only decays."""
    _, share, r1f, r2f, rx, r1s, t2s, f0, b1, _ = parameters
    w1, w0, free = b1 * angle / duration * 1000, 2 * np.pi * f0, 1 - share
    if r2sl is None:
        r2sl = rate(duration * 1000 / t2s, b1 * angle) / duration * 1000 if angle else 1e6 / t2s
    return np.array(
        [
            [-r2f, -w0, w1, 0, 0, 0],
            [w0, -r2f, 0, 0, 0, 0],
            [-w1, 0, -r1f - rx * share, 0, rx * free, r1f * free],
            [0, 0, 0, -r2sl, w1, 0],
            [0, 0, rx * share, -w1, -r1s - rx * free, r1s * share],
            [0, 0, 0, 0, 0, 0],
        ]
    )


def exact(parameters, table):
    """The signals by matrix exponentials of all six states, pulse by pulse."""
    forget, flip = np.diag([1.0, 1, 1, 0, 1, 1]), np.diag([-1.0, -1, 1, 1, 1, 1])
    steps = []
    for degrees, duration, repetition, crushed in table:
        angle = np.deg2rad(degrees)
        still = hamiltonian(parameters, 0, 1)
        if crushed:
            wait, a = forget @ expm(still * repetition / 2000), parameters[8] * angle
            pulse = np.eye(6)
            r = rate(duration * 1000 / parameters[6], a)
            pulse[:3, :3] = np.diag([np.sin(a / 2) ** 2, -(np.sin(a / 2) ** 2), np.cos(a)])
            pulse[3:5, 3:5] = expm(np.array([[-r, a], [-a, 0]]))
        else:
            wait = forget @ expm(still * (repetition - duration) / 2000)
            pulse = expm(hamiltonian(parameters, angle, duration) * duration / 1000)
        steps.append(wait @ pulse @ flip @ wait)
    whole = np.eye(6)
    for step in [*steps[1:], steps[0]]:
        whole = step @ whole
    state = np.linalg.solve(whole - np.diag([1.0, 1, 1, 1, 1, 0]), np.eye(6)[5])
    found = [state]
    for step in steps[1:]:
        found.append(step @ found[-1])
    return np.array([state[0] + 1j * state[1] for state in found])


def signals(parameters, table):
    return cycle(torch.from_numpy(np.asarray(parameters, dtype=float)), torch.from_numpy(table)).numpy()


def test_a_pulse_does_what_its_authors_publish():
    """180 degrees in 500 µs: the documented value of their package, by the equations of the comparison below."""
    parameters = np.array([1.0, 0.1, 1.0, 15.0, 30.0, 6.5, 10.0, 0.0, 1.0, 0.0])
    found = expm(hamiltonian(parameters, np.pi, 0.5, r2sl=1e5) * 5e-4) @ [0, 0, 0.9, 0, 0.1, 1]
    np.testing.assert_allclose(found, [0.00106475, 0, -0.89578483, 0.00512653, 0.08122007, 1], atol=2e-8)


def test_macromolecules_follow_their_integral_equation():
    """For small angles by its first two terms, and in a long pulse by the rate of their line, which grows thin."""

    def green(t):
        return quad(lambda u: np.exp(-((t * (3 * u**2 - 1)) ** 2) / 8), 0, 1, points=[3**-0.5], limit=200)[0]

    for duration in (5.0, 60.0):
        angle = 0.1
        first = quad(lambda t, d=duration: (1 - t / d) * green(t) / d, 0, duration, limit=200)[0]
        assert 1 - inverted(duration, np.array([angle]))[0] == pytest.approx(angle**2 * first, rel=2e-3)
    # coherent in the limit of short pulses
    np.testing.assert_allclose(inverted(1e-3, np.array([0.5, 2.0, 4.0])), np.cos([0.5, 2.0, 4.0]), atol=1e-6)


def test_the_table_is_the_solution():
    rng = np.random.default_rng(0)
    for duration in np.exp(rng.uniform(np.log(2), np.log(1000), 8)):
        angles = rng.uniform(0, 1.5 * np.pi, 6)
        found = inverted_share(torch.full((6,), duration, dtype=torch.float64), torch.from_numpy(angles))
        np.testing.assert_allclose(found, inverted(duration, angles), atol=2e-6)


def test_states_of_a_cycle_are_those_of_its_steps():
    rng = np.random.default_rng(0)
    for n in (1, 2, 3, 7, 8, 13):
        steps = torch.from_numpy(0.4 * rng.normal(size=(n, 4, 4)))
        steps[:, 3] = torch.tensor([0, 0, 0, 1.0])
        after = periodic(steps)
        before = after.roll(1, 0)
        np.testing.assert_allclose(after, torch.einsum("nij,nj->ni", steps, before), atol=1e-12)


@pytest.mark.parametrize("off", [0.0, 40.0, -90.0])
def test_relaxation_during_the_pulses_errs_little(off):
    """Against matrix exponentials of the linearised model, as a share of the largest signal."""
    parameters = WHITE.copy()
    parameters[7], parameters[8] = off, 0.9
    table = pulses(120)
    expected, found = exact(parameters, table), signals(parameters, table)
    assert np.abs(found - expected).max() < 1e-3 * np.abs(expected).max()


def test_without_macromolecules_it_is_balanced_precession():
    """The steady state of Freeman and Hill, in the middle between short pulses of alternating phase."""
    parameters, table = WHITE.copy(), np.tile([40.0, 1e-5, 5.0, 0.0], (7, 1))
    parameters[1] = 0.0
    e1, e2, a = np.exp(-5e-3 / 1.92), np.exp(-5e-3 / 0.0776), np.deg2rad(40)
    expected = np.sqrt(e2) * (1 - e1) * np.sin(a) / (1 - (e1 - e2) * np.cos(a) - e1 * e2)
    np.testing.assert_allclose(np.abs(signals(parameters, table)), expected, rtol=1e-5)


class TestModel:
    model = models.get("qmtgbloch")
    truth: ClassVar = dict(zip(model.names, [1000.0, *WHITE[1:9], 0.5], strict=True))

    @pytest.mark.parametrize("basis", [False, True])
    def test_compiled_code_and_torch_agree(self, basis):
        """On resonance too, with two inversions, and pulses that turn and last longer than the table."""
        rng, n = np.random.default_rng(0), 60
        draws = rng.uniform([1, 0, 0.2, 1, 2, 1, 4, -100, 0.65, -3], [3, 0.4, 2, 25, 40, 6, 28, 100, 1.25, 3], (6, 10))
        draws[:2, 7] = 0
        table = pulses(n)
        table[[20, 30, 40], :2] = [[180, 0.3], [0, 0.1], [260, 40]]
        table[40, 2] = 50
        table[20, 3] = 1
        acquisition = Acquisition(**dict(zip(self.model.variables, table.T, strict=True)))
        if basis:
            vectors = np.linalg.qr(rng.standard_normal((n, 7)) + 1j * rng.standard_normal((n, 7)))[0]
            acquisition = Acquisition(frames=acquisition, basis=vectors)
        signal, jacobian = self.model.signal_and_jacobian(draws, acquisition)
        slope, parts = self.model._jacobian(torch.from_numpy(draws), torch.from_numpy(self.model.design(acquisition)))
        np.testing.assert_allclose(signal, torch.view_as_complex(parts.contiguous()), atol=1e-12)
        expected = (slope[..., 0, :] + 1j * slope[..., 1, :]).numpy()
        largest = np.abs(expected).max(axis=(0, 1))
        np.testing.assert_allclose(jacobian / largest, expected / largest, atol=1e-10)
        np.testing.assert_allclose(self.model.signal(draws, acquisition), signal, atol=1e-14)

    def acquisition(self, n):
        return Acquisition(**dict(zip(self.model.variables, pulses(n).T, strict=True)))

    def test_what_is_no_tissue_has_no_signal(self):
        rows = np.tile(WHITE, (3, 1))
        rows[1, 1:3] = -0.5, 40.0  # their rates of exchange and relaxation have no real root
        with np.errstate(invalid="ignore"):
            signals, slopes = cycle_of_voxels(rows, pulses(20), derivatives=True)
        assert np.isnan(signals[1]).all()
        assert np.isnan(slopes[1]).all()
        np.testing.assert_array_equal(signals[2], signals[0])
        np.testing.assert_array_equal(slopes[2], slopes[0])
        assert np.isfinite(signals[0]).all()
        assert np.isfinite(slopes[0]).all()

    def test_derivatives_of_many_voxels_are_differences_of_signals(self):
        acquisition = self.acquisition(30)
        points = self.model.parameter_array(self.truth) * np.random.default_rng(0).uniform(0.9, 1.1, (4, 10))
        points[:, 7] = [-40, 0, 10, 60]
        _, jacobian = self.model.signal_and_jacobian(points, acquisition)
        for k, step in enumerate(1e-5 * np.maximum(points[0], 1)):
            moved = [self.model.signal(points + side * step * np.eye(10)[k], acquisition) for side in (-1, 1)]
            slope = (moved[1] - moved[0]) / (2 * step)
            np.testing.assert_allclose(jacobian[..., k], slope, atol=1e-6 * np.abs(slope).max())

    def test_a_basis_holds_the_signals(self):
        """Of tissue and fluid, with off-resonance and whatever flip angles; and what they tell, but for little."""
        recipe = RECIPES["qmtgbloch"]
        acquisition = recipe.series
        rng = np.random.default_rng(1)
        draws = np.column_stack([rng.uniform(*recipe.tissues["WM"].get(name, (0, 1)), 20) for name in self.model.names])
        draws[:, 7:9] = rng.uniform([-60, 0.75], [60, 1.15], (20, 2))
        draws[::4, 1:4] = [0.0, 0.25, 0.6]
        kept, all_ = ((np.abs(self.model.signal(draws, a)) ** 2).sum(axis=1) for a in (acquisition, acquisition.frames))
        lost, fluid = 1 - kept / all_, np.arange(20) % 4 == 0
        assert lost[~fluid].max() < 0.001
        assert lost[fluid].max() < 0.02
        floors = [
            cramer_rao_bound(self.model, self.truth | {"f0": 10.0}, a, 1.0, "gaussian")
            for a in (acquisition, acquisition.frames)
        ]
        for name in ("m0s", "R1f", "R2f", "Rx", "R1s", "T2s"):
            assert floors[0][name] < 1.5 * floors[1][name]

    def test_least_squares_reaches_the_bound_of_all_ten_parameters(self):
        """From coefficients, where off-resonance and B1 lie far from where they make no difference."""
        acquisition, n = RECIPES["qmtgbloch"].series, 30
        truth = self.truth | {"S0": 1.0, "f0": -25.0, "B1": 1.1}
        clean = np.tile(self.model.signal(truth, acquisition), (n, 1))
        signals = add_noise(clean, 1 / 1000, "gaussian", np.random.default_rng(0))
        found = LeastSquares(self.model).estimate(signals, acquisition, noise=1 / 1000)
        floor = cramer_rao_bound(self.model, truth, acquisition, 1 / 1000, "gaussian")
        for name in self.model.names:
            error = (found.parameters[name] - truth[name]) / floor[name]
            assert 0.35 < np.median(np.abs(error)) < 1.1, name  # 0.67 for normal errors

    def test_least_squares_reaches_the_bound(self):
        held = {name: (self.truth[name],) * 2 for name in ("R1s", "T2s", "f0", "B1")}
        acquisition = self.acquisition(40)
        clean = np.tile(self.model.signal(self.truth, acquisition), (400, 1))
        near = self.model.parameter_array(self.truth) * [1, 1.1, 0.95, 1.1, 0.9, 1, 1, 1, 1, 1.1]
        near[0] /= np.abs(clean).max()  # which signals are divided by
        model = dataclasses.replace(self.model, start=lambda signals, _: np.tile(near, (len(signals), 1)))
        estimator = LeastSquares(model, bounds=held)
        sigma = np.abs(clean).max() / 500
        signals = add_noise(clean, sigma, "gaussian", np.random.default_rng(0))
        found = estimator.estimate(signals, acquisition, noise=sigma)
        floor = cramer_rao_bound(self.model, self.truth, acquisition, sigma, "gaussian", fixed=estimator.fixed)
        for name in set(self.model.names) - set(held):
            values = found.parameters[name]
            assert values.mean() == pytest.approx(self.truth[name], abs=0.25 * floor[name])
            assert values.std() == pytest.approx(floor[name], rel=0.12)
