"""The Cramér-Rao bound against published values, its own definition, and what estimators reach."""

from __future__ import annotations

import numpy as np
import pytest

from bidsfit import Acquisition, LeastSquares, models
from bidsfit.estimators.maximum_likelihood import MaximumLikelihood
from bidsfit.information import CHUNK, bound_of_voxels, cramer_rao_bound, fisher_information, rician_information
from bidsfit.noise import add_noise, rician_log_likelihood
from bidsfit.phantom.directions import spread_directions

B_VALUES = [0, 5, 10, 20, 30, 40, 60, 80, 100, 150, 200, 300, 400, 500, 600, 800]
TRUTH = {"S0": 1.0, "f": 0.2, "D": 1.0, "Dstar": 20.0}


def test_rician_information_matches_its_published_values() -> None:
    known = {0.1: 0.0099, 0.5: 0.2017, 1: 0.5214, 2: 0.8526, 3: 0.9402, 5: 0.9796, 10: 0.9950}
    assert rician_information(list(known)) == pytest.approx(list(known.values()), abs=1e-4)


def test_rician_information_has_its_limits_and_no_step_where_the_table_ends() -> None:
    small = np.array([0.0, 1e-2, 3e-2])
    assert rician_information(small) == pytest.approx(small**2, abs=5e-6)
    assert rician_information([29.999, 30.001, 1e6]) == pytest.approx([0.99944, 0.99944, 1.0], abs=5e-6)


def test_smt_bound_matches_its_published_values() -> None:
    # 32 directions a shell and a scale that is known (reference values at vcyl 0.6, lambda 1.9 um^2/ms)
    acquisition = Acquisition([1000, 2000, 3500, 5000], counts=[32] * 4, n_directions=[32] * 4)
    truth = {"S0": 1.0, "vcyl": 0.6, "lambda": 1.9}
    for snr, known in ((25, (0.040, 0.161)), (5, (0.202, 0.803))):
        bound = cramer_rao_bound(models.get("smt2"), truth, acquisition, 1 / snr, fixed=("S0",))
        assert (bound["vcyl"], bound["lambda"]) == pytest.approx(known, abs=6e-4)
        assert bound["S0"] == 0


def test_gaussian_information_is_that_of_central_differences() -> None:
    model, acquisition, sigma = models.get("ivim"), Acquisition(B_VALUES), 0.05
    point = model.parameter_array(TRUTH)
    columns = []
    for j in range(point.size):
        step = np.zeros(point.size)
        step[j] = 1e-5 * point[j]
        columns.append(
            (model.signal(point + step, acquisition) - model.signal(point - step, acquisition)) / 2 / step[j]
        )
    jacobian = np.stack(columns, axis=1)
    expected = jacobian.T @ jacobian / sigma**2
    assert fisher_information(model, TRUTH, acquisition, sigma) == pytest.approx(expected, rel=1e-6, abs=1e-9)


def test_rician_information_is_the_variance_of_the_score() -> None:
    rng = np.random.default_rng(0)
    amplitude, step = 1.3, 1e-4
    x = add_noise(np.full(400_000, amplitude), 1.0, "rician", rng)
    score = (rician_log_likelihood(x, amplitude + step, 1) - rician_log_likelihood(x, amplitude - step, 1)) / (2 * step)
    assert np.var(score) == pytest.approx(float(rician_information(amplitude)), rel=0.01)


def test_dstar_is_not_determined_without_perfusion_and_the_bound_says_so() -> None:
    truth = TRUTH | {"f": np.array([0.0, 1e-6, 1e-3, 0.2])}
    bound = cramer_rao_bound(models.get("ivim"), truth, Acquisition(B_VALUES), 0.05)
    assert np.isinf(bound["Dstar"][0])
    assert np.all(np.diff(bound["Dstar"][1:]) < 0)
    assert np.isfinite(bound["D"]).all()


@pytest.mark.parametrize("noise", ["gaussian", "rician"])
def test_bound_is_the_inverse_of_the_information(noise: str) -> None:
    rng = np.random.default_rng(3)
    model, acquisition = models.get("ivim"), Acquisition(B_VALUES)
    truth = {"S0": 1.0, "f": 10 ** rng.uniform(-6, -0.3, 200), "D": rng.uniform(0, 3, 200), "Dstar": 20.0}
    bound = cramer_rao_bound(model, truth, acquisition, 0.05, noise)
    inverse = np.linalg.inv(fisher_information(model, truth, acquisition, 0.05, noise))
    for j, name in enumerate(model.names):
        assert bound[name] == pytest.approx(np.sqrt(inverse[:, j, j]), rel=1e-4)


def test_as_many_parameters_as_measurements_leave_something_undetermined() -> None:
    bound = cramer_rao_bound(models.get("adc"), {"S0": 1.0, "D": 1.0}, Acquisition([0, 0, 0]), 0.05)
    assert np.isinf(bound["D"])
    assert np.isfinite(bound["S0"])


def test_an_unfitted_voxel_has_no_bound() -> None:
    truth = {name: np.array([value, np.nan]) for name, value in TRUTH.items()}
    bound = cramer_rao_bound(models.get("ivim"), truth, Acquisition(B_VALUES), 0.05)
    assert np.isfinite(bound["D"][0])
    assert np.isnan(bound["D"][1])


def test_averaging_n_measurements_counts_n_times() -> None:
    model = models.get("ivim")
    once = cramer_rao_bound(model, TRUTH, Acquisition(B_VALUES), 0.05)
    four = cramer_rao_bound(model, TRUTH, Acquisition(B_VALUES, counts=[4] * len(B_VALUES)), 0.05)
    assert four["Dstar"] == pytest.approx(once["Dstar"] / 2)


POINTS = {
    "ivim": (TRUTH, Acquisition(B_VALUES)),
    "smt2": ({"S0": 1.0, "vcyl": 0.5, "lambda": 1.8}, Acquisition([0, 1000, 2500, 4000], counts=[8, 32, 32, 32])),
    "smt3": (
        {"S0": 1.0, "vcyl": 0.5, "vcsf": 0.1, "lambda": 1.8},
        Acquisition([0, 1000, 2000, 3000, 4500], counts=[8, 32, 32, 32, 32]),
    ),
}


@pytest.mark.parametrize("kind", ["gaussian", "rician"])
@pytest.mark.parametrize("name", POINTS)
def test_estimators_reach_the_bound_at_high_snr(name: str, kind: str) -> None:
    model, sigma = models.get(name), 1 / 1000
    truth, acquisition = POINTS[name]
    counts = acquisition.weights.astype(int)
    directions = np.concatenate([spread_directions(n) for n in counts])
    acquisition = Acquisition(np.repeat(acquisition.b_values, counts), directions)  # every measurement
    n = 20_000 if name == "ivim" else 3000
    signals = add_noise(np.tile(model.signal(truth, acquisition), (n, 1)), sigma, kind, np.random.default_rng(1))
    bound = cramer_rao_bound(model, truth, acquisition, sigma, kind)
    for estimator in (LeastSquares(model), MaximumLikelihood(model, noise=kind)):
        estimate = estimator.estimate(signals, acquisition, sigma)
        for parameter in model.names:
            spread = np.std(estimate.parameters[parameter])
            assert spread == pytest.approx(float(bound[parameter]), rel=0.05), parameter


class TestCombinations:
    """Bounds of functions of the parameters, by their gradients."""

    model, acquisition = models.get("ivim"), Acquisition(B_VALUES)

    def points(self, n=50):
        low, high = np.array([0.5, 0.05, 0.5, 10.0]), np.array([2.0, 0.3, 2.0, 60.0])
        return np.random.default_rng(0).uniform(low, high, (n, 4))

    @pytest.mark.parametrize("kind", ["gaussian", "rician"])
    def test_they_follow_from_the_inverse_of_the_information(self, kind) -> None:
        points, sigma = self.points(), np.full(50, 0.05)
        gradients = np.random.default_rng(1).normal(size=(50, 2, 4))
        found = bound_of_voxels(self.model, points, self.acquisition, sigma, kind, gradients=gradients)
        inverse = np.linalg.inv(fisher_information(self.model, points, self.acquisition, sigma, kind))
        expected = np.sqrt(np.einsum("vqj,vjk,vqk->vq", gradients, inverse, gradients))
        np.testing.assert_allclose(found, expected, rtol=1e-6)

    def test_what_is_known_adds_nothing(self) -> None:
        points, sigma = self.points(), np.full(50, 0.05)
        gradients = np.tile([0.0, 1.0, 0.0, 3.0], (50, 1, 1))
        found = bound_of_voxels(self.model, points, self.acquisition, sigma, gradients=gradients, fixed=("Dstar",))
        alone = bound_of_voxels(self.model, points, self.acquisition, sigma, fixed=("Dstar",))
        np.testing.assert_allclose(found[:, 0], alone[:, 1])

    def test_they_are_infinite_only_where_they_need_what_is_not_determined(self) -> None:
        """Without blood D* has no information; of two b-values only the sum of some parameters is known."""
        point = np.array([[1.0, 0.0, 1.0, 20.0]])
        gradients = np.array([[[0.0, 0.0, 1.0, 0.0], [0.0, 0.0, 1.0, 1e-3]]])
        found = bound_of_voxels(self.model, point, self.acquisition, np.full(1, 0.05), gradients=gradients)
        assert np.isfinite(found[0, 0])
        assert np.isinf(found[0, 1])
        two = Acquisition([0, 1000])
        jacobian = self.model.signal_and_jacobian(self.points(1), two)[1]
        own = bound_of_voxels(self.model, self.points(1), two, np.full(1, 0.05), gradients=jacobian)
        assert own[0] == pytest.approx([0.05, 0.05], rel=1e-6)  # each signal itself is measured
        assert np.isinf(bound_of_voxels(self.model, self.points(1), two, np.full(1, 0.05))).sum() >= 3

    @pytest.mark.parametrize("kind", ["gaussian", "rician"])
    def test_a_model_without_a_kernel_has_the_same(self, kind) -> None:
        class Uncompiled:
            compiled, complex_valued = False, False
            names, parameter_array = self.model.names, self.model.parameter_array
            signal_and_jacobian = self.model.signal_and_jacobian

        points, sigma = self.points(), np.full(50, 0.05)
        own, other = (bound_of_voxels(m, points, self.acquisition, sigma, kind) for m in (self.model, Uncompiled()))
        np.testing.assert_allclose(other, own, rtol=1e-4)

    def test_threads_do_not_matter(self) -> None:
        points = np.resize(self.points(), (CHUNK + 10, 4))
        one, two = (
            bound_of_voxels(self.model, points, self.acquisition, np.full(len(points), 0.05), threads=threads)
            for threads in (1, 2)
        )
        np.testing.assert_array_equal(one, two)
        assert np.isfinite(one).all()


@pytest.mark.parametrize("noise", ["gaussian", "rician"])
def test_more_variance_is_as_fewer_measurements(noise: str) -> None:
    """Twice the variance of an average is half its measurements, in compiled code and without."""
    model, acquisition = models.get("smt2"), Acquisition([0, 1000, 2500], counts=[8, 32, 32])
    truth = model.parameter_array({"S0": 1.0, "vcyl": 0.5, "lambda": 1.8})[None]
    sigma = np.array([0.05])
    halved = Acquisition([0, 1000, 2500], counts=[4, 16, 16])
    information = rician_information(model.signal(truth, acquisition) / sigma) if noise == "rician" else 1.0
    variance = sigma**2 / (acquisition.weights * information) * np.ones((1, 3))
    expected = bound_of_voxels(model, truth, halved, sigma, noise)
    assert bound_of_voxels(model, truth, acquisition, sigma, noise, variance=variance) == pytest.approx(
        expected, rel=1e-4
    )
