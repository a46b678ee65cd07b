"""Means over directions: how even they are, their weights, and their error, against simulated fibres."""

import numpy as np
import pytest
from scipy.special import sph_harm_y

from bidsfit import Acquisition, Status, companions, models
from bidsfit.acquisition import DirectionAverage
from bidsfit.directions import FIBRE_DIFFUSIVITY, fibre_covariance, sample, unevenness
from bidsfit.estimators.least_squares import LeastSquares
from bidsfit.noise import add_noise
from bidsfit.phantom.directions import spread_directions

VCYL, LAMBDA = 0.6, 2.0
GOLDEN = (1 + np.sqrt(5)) / 2
ICOSAHEDRON = np.array(
    [(0, 1, GOLDEN), (0, 1, -GOLDEN), (1, GOLDEN, 0), (1, -GOLDEN, 0), (GOLDEN, 0, 1), (-GOLDEN, 0, 1)]
)


def random_directions(n, seed):
    vectors = np.random.default_rng(seed).normal(size=(n, 3))
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def flattened():
    flat = random_directions(30, 1) * [1, 1, 0.15]
    return flat / np.linalg.norm(flat, axis=1, keepdims=True)


def a_cap():
    """The 20 of 64 directions that are nearest to an axis."""
    ordered = random_directions(64, 9)
    return ordered[np.argsort(-ordered[:, 2])][:20]


SIX = np.array([(1, 0, 1), (-1, 0, 1), (0, 1, 1), (0, 1, -1), (1, 1, 0), (-1, 1, 0)]) / np.sqrt(2)
SCHEMES = {"random 60": random_directions(4000, 5)[:60], "six": SIX, "a cap of 20": a_cap()}
FIBRES = random_directions(2000, 7)


def signals(b, directions, fibres=FIBRES):
    """Signals (n_fibres, n) of SMT's tissue along one fibre each; b in ms/um^2."""
    cosine2 = (fibres @ directions.T) ** 2
    outside = np.exp(-b * LAMBDA * ((1 - VCYL) + VCYL * cosine2))
    return VCYL * np.exp(-b * LAMBDA * cosine2) + (1 - VCYL) * outside


def protocol(directions, b_values=(1000, 2500), n_unweighted=6):
    b = np.repeat([0, *b_values], [n_unweighted, *[len(directions)] * len(b_values)])
    return Acquisition(b, np.concatenate([np.zeros((n_unweighted, 3)), *[directions] * len(b_values)]))


def image(directions, b_values=(1000, 2500), n_unweighted=6):
    parts = [signals(b / 1000, directions) for b in b_values]
    return 1000 * np.concatenate([np.ones((len(FIBRES), n_unweighted)), *parts], axis=1)


class TestUnevenness:
    @pytest.mark.parametrize("order", [2, 4, 6])
    def test_it_is_the_power_of_the_weights_in_spherical_harmonics(self, order):
        directions, weights = random_directions(15, 3), np.random.default_rng(4).uniform(size=15)
        polar, azimuth = np.arccos(directions[:, 2]), np.arctan2(directions[:, 1], directions[:, 0])
        harmonics = [sph_harm_y(order, m, polar, azimuth) for m in range(-order, order + 1)]
        power = sum(abs(np.sum(weights / weights.sum() * y)) ** 2 for y in harmonics)
        expected = np.sqrt(4 * np.pi / (2 * order + 1) * power)
        assert unevenness(directions, weights, order) == pytest.approx(expected, rel=1e-10)

    def test_known_schemes(self):
        assert unevenness(ICOSAHEDRON) == pytest.approx(0, abs=1e-7)
        assert unevenness(ICOSAHEDRON, order=4) == pytest.approx(0, abs=1e-7)
        assert unevenness(ICOSAHEDRON, order=6) > 0.5
        assert unevenness([[0, 0, 2], [0, 0, -1]], order=4) == pytest.approx(1)
        circle = np.linspace(0, np.pi, 9)[:-1]
        in_a_plane = np.column_stack([np.cos(circle), np.sin(circle), 0 * circle])
        assert unevenness(in_a_plane) == pytest.approx(0.5)  # that of P2 at right angles


class TestWeights:
    @pytest.mark.parametrize("b", [0.7, 2.5])
    def test_the_covariance_is_that_of_simulated_fibres(self, b):
        directions = random_directions(5, 2)
        simulated = np.exp(-b * FIBRE_DIFFUSIVITY * (random_directions(400_000, 6) @ directions.T) ** 2)
        assert fibre_covariance(directions, b) == pytest.approx(np.cov(simulated.T), abs=1e-3)

    @pytest.mark.parametrize("n", [6, 12, 32, 64])
    @pytest.mark.parametrize("b", [0.05, 1.0, 3.0])
    def test_even_directions_keep_the_plain_mean(self, n, b):
        sampling = sample(spread_directions(n), np.ones(n), b)
        assert sampling.weights.tolist() == [1 / n] * n
        assert sampling.n_effective == pytest.approx(n)

    @pytest.mark.parametrize("name", SCHEMES)
    @pytest.mark.parametrize("b", [1.0, 2.5])
    def test_the_error_is_that_of_simulated_fibres(self, name, b):
        directions = SCHEMES[name]
        sampling = sample(directions, np.ones(len(directions)), b)
        fibre = np.exp(-b * FIBRE_DIFFUSIVITY * (random_directions(20_000, 8) @ directions.T) ** 2)
        exact = np.sqrt(np.pi / (4 * b * FIBRE_DIFFUSIVITY))  # to 0.3 % even where b D is 2
        found = np.sqrt(np.mean((fibre @ sampling.weights - (fibre @ sampling.weights).mean()) ** 2))
        assert sampling.error == pytest.approx(found, rel=0.06)
        assert (fibre @ sampling.weights).mean() == pytest.approx(exact, rel=0.06)
        assert sampling.n_effective >= len(directions) / 2

    def test_uneven_directions_are_weighted_to_be_even(self):
        directions = SCHEMES["random 60"]
        sampling = sample(directions, np.ones(60), 2.5)
        assert sampling.unevenness() < 0.002 < 0.04 < unevenness(directions)
        assert sampling.unevenness(4) < 0.01 < 0.1 < unevenness(directions, order=4)
        assert sampling.weights.sum() == pytest.approx(1)

    def test_repeats_count_as_what_they_are(self):
        """A direction measured three times is the same as one entry of three measurements."""
        directions = a_cap()
        counts = np.where(np.arange(20) < 5, 3.0, 1.0)
        once = sample(directions, counts, 1.0)
        apart = sample(np.repeat(directions, counts.astype(int), axis=0), np.ones(30), 1.0)
        assert np.add.reduceat(apart.weights, np.r_[0, np.cumsum(counts.astype(int))[:-1]]) == pytest.approx(
            once.weights, abs=1e-10
        )
        assert apart.n_effective == pytest.approx(once.n_effective)
        assert apart.error == pytest.approx(once.error)


class TestDirectionAverage:
    def test_only_models_of_direction_averages_weigh(self):
        acquisition = protocol(a_cap())
        y = image(a_cap())[:3]
        for name in ("adc", "ivim"):
            average = models.get(name).average(acquisition)
            assert average(y) == pytest.approx(DirectionAverage(acquisition)(y), rel=1e-14)
            assert average.acquisition.weights.tolist() == [6, 20, 20]
        average = models.get("smt2").average(acquisition)
        assert np.abs(average(y) / DirectionAverage(acquisition)(y) - 1).max() > 0.05
        assert average.acquisition.weights[0] == 6
        assert np.all(average.acquisition.weights[1:] < 15)

    def test_the_counts_are_the_variance_of_the_mean(self):
        average = DirectionAverage(protocol(a_cap()), even=True)
        noise = np.random.default_rng(1).standard_normal((20_000, 46))
        assert 1 / average(noise).var(axis=0) == pytest.approx(average.acquisition.weights, rel=0.05)

    def test_a_missing_measurement_is_left_out(self):
        acquisition = protocol(SCHEMES["random 60"])
        average, y = DirectionAverage(acquisition, even=True), np.full((1, 126), 3.0)
        missing = np.zeros(y.shape, dtype=bool)
        y[0, [3, 10, 80]], missing[0, [3, 10, 80]] = 0, True
        assert average(y, missing) == pytest.approx(np.full((1, 3), 3.0))

    def test_unknown_directions_keep_the_plain_mean(self):
        directions = a_cap()
        directions[4] = 0
        acquisition = protocol(directions)
        assert acquisition.samplings == (None, None, None)
        assert DirectionAverage(acquisition, even=True).acquisition.weights.tolist() == [6, 20, 20]


class TestSmt:
    """Noise-free signals of one fibre a voxel; the estimate from plain means is that of the plain averages."""

    def vcyl(self, directions, *, even):
        acquisition = protocol(directions)
        y = image(directions)
        if not even:
            average = DirectionAverage(acquisition)
            acquisition, y = average.acquisition, average(y)
        return LeastSquares(models.get("smt2")).estimate(y, acquisition).parameters["vcyl"] - VCYL

    @pytest.mark.parametrize(("name", "largest"), [("random 60", 0.015), ("a cap of 20", 0.18), ("six", 0.17)])
    def test_errors_of_vcyl_are_smaller(self, name, largest):
        plain, even = (self.vcyl(SCHEMES[name], even=even) for even in (False, True))
        assert np.sqrt(np.mean(even**2)) < largest
        assert np.sqrt(np.mean(plain**2)) > {"random 60": 0.07, "a cap of 20": 0.2, "six": 0}[name]

    def test_directions_near_a_plane_are_refused(self):
        support = models.get("smt2").support(protocol(flattened()))
        assert not support
        assert "b = 1000 s/mm² (30 directions near a plane), b = 2500 s/mm² (30 directions" in support.missing[0]
        assert models.get("adc").support(protocol(flattened()))

    def test_a_shell_without_mean_is_left_out(self):
        even, b = spread_directions(12), np.repeat([0, 200, 1000, 2000, 3000], [1, 3, 12, 12, 4])
        along = [np.zeros((1, 3)), np.eye(3), even, even, even[:4]]
        acquisition = Acquisition(b, np.concatenate(along))
        support = models.get("smt2").support(acquisition)
        assert support.used == (
            "b = 0, 200, 1000, 2000 s/mm²; left out, as their directions give no mean over the sphere: "
            "b = 3000 s/mm² (4 directions)"
        )
        assert models.get("smt2").usable(acquisition).tolist() == list(range(28))
        assert models.get("adc").usable(acquisition).tolist() == list(range(16))  # it ends at 1500


class TestTrust:
    """What the directions leave in the means enters standard deviations and statuses."""

    @pytest.fixture
    def estimator(self):
        return LeastSquares(models.get("smt2"))

    def judged(self, estimator, directions, sigma, known="sigma"):
        acquisition, noise = protocol(directions), sigma if known == "sigma" else known
        y = add_noise(image(directions), sigma, "gaussian", np.random.default_rng(0))
        estimate = estimator.estimate(y, acquisition, noise)
        return estimate, companions(estimator, estimate, noise)

    @pytest.mark.parametrize("name", [*SCHEMES, "spread 12"])
    @pytest.mark.parametrize("sigma", [1e-3, 40.0])
    def test_intervals_hold(self, estimator, name, sigma):
        directions = spread_directions(12) if name == "spread 12" else SCHEMES[name]
        estimate, judged = self.judged(estimator, directions, sigma)
        error = np.abs(estimate.parameters["vcyl"] - VCYL)
        assert np.mean(error <= 1.96 * judged["sd"]["vcyl"]) > 0.92
        if name != "six":  # where half of the errors end at the bounds
            assert np.mean(error <= 1.96 * judged["sd"]["vcyl"]) < 0.985
        if sigma < 1:
            assert np.mean(error <= 1.96 * judged["crb"]["vcyl"]) < 0.1

    def test_the_variance_is_that_of_the_means(self, estimator):
        acquisition = protocol(a_cap())
        estimate = estimator.estimate(image(a_cap()), acquisition, 1e-3)
        means = estimator.model.average(acquisition)(image(a_cap()))
        assert estimate.added_variance.mean(axis=0) == pytest.approx(means.var(axis=0), rel=0.15)

    def test_statuses(self, estimator):
        def counted(directions, sigma):
            return self.judged(estimator, directions, sigma)[0].count()

        assert counted(a_cap(), 1e-3) == {Status.UNEVEN_DIRECTIONS: len(FIBRES)}
        assert counted(SCHEMES["random 60"], 1e-3) == {Status.CONVERGED: len(FIBRES)}  # an error, but a small one
        assert Status.UNEVEN_DIRECTIONS not in counted(spread_directions(12), 40.0)  # one below the noise
        assert Status.UNEVEN_DIRECTIONS in counted(spread_directions(12), 1e-3)

    def test_even_directions_and_other_models_have_none(self, estimator):
        assert self.judged(estimator, spread_directions(32), 40.0)[0].added_variance is None
        adc = LeastSquares(models.get("adc"))
        assert adc.estimate(image(a_cap()), protocol(a_cap()), 1.0).added_variance is None

    def test_images_and_masks(self, estimator):
        acquisition, y = protocol(a_cap()), image(a_cap())[:8]
        rows = estimator.estimate(y, acquisition, 1e-3)
        mask = np.array([[[True, False], [True, True]]])
        placed = estimator.estimate(y.reshape(1, 2, 4, -1)[:, :, :2], acquisition, 1e-3, mask=mask)
        assert placed.added_variance.shape == (1, 2, 2, 3)
        assert placed.added_variance[mask] == pytest.approx(rows.added_variance[[0, 4, 5]])
        assert np.isnan(placed.added_variance[0, 0, 1]).all()

    def test_a_missing_measurement_is_no_anisotropy(self, estimator):
        acquisition, y = protocol(a_cap()), np.full((1, 46), 300.0)
        y[0, :6], y[0, 10] = 1000.0, 0.0
        assert estimator.estimate(y, acquisition, 1.0).added_variance == pytest.approx(0)
