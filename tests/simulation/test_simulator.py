"""Training signals: the noise of an average of n measurements, whatever its kind."""

from __future__ import annotations

import numpy as np
import pytest

from bidsfit import Acquisition, models
from bidsfit.models.space import ParameterSpace
from bidsfit.noise import add_noise
from bidsfit.simulation.distributions import Uniform
from bidsfit.simulation.simulator import Features, Noise, Simulation, Simulator, noisy_averages

N = 100_000
SHELLS = Acquisition([0, 1000, 2000, 3500, 5000], counts=[8, 32, 32, 3, 1], n_directions=[1, 32, 32, 3, 1])
SMT2 = models.get("smt2")
SPACE = ParameterSpace(SMT2)
CLEAN = np.array([1.0, 0.6, 0.4, 0.3, 0.2])


def simulator(**noise: object) -> Simulator:
    return Simulator(Uniform(SPACE), SHELLS, Noise(**noise))


def test_gaussian_averages_scatter_by_sigma_over_the_root_of_n():
    noisy = noisy_averages(np.tile(CLEAN, (N, 1)), SHELLS, 0.2, "gaussian", np.random.default_rng(0))
    sd = 0.2 / np.sqrt(SHELLS.weights)
    np.testing.assert_allclose(noisy.std(axis=0), sd, rtol=0.01)
    assert np.all(np.abs(noisy.mean(axis=0) - CLEAN) < 4 * sd / np.sqrt(N))
    assert np.abs(np.corrcoef(noisy.T)[np.triu_indices(5, 1)]).max() < 5 / np.sqrt(N)


@pytest.mark.parametrize("n", [1, 3, 8, 9, 32])
@pytest.mark.parametrize("amplitude", [0.0, 0.3, 1.0])
def test_rician_averages_have_the_moments_of_averaged_magnitudes(n, amplitude):
    """At high noise, where a magnitude is far from Gaussian: SNR 2."""
    sigma, draws = 0.5, 60_000
    single = add_noise(np.full((draws, n), amplitude), sigma, "rician", np.random.default_rng(1))
    expected = single.mean(axis=1)
    acquisition = Acquisition([1000.0], counts=[n])
    found = noisy_averages(np.full((draws, 1), amplitude), acquisition, sigma, "rician", np.random.default_rng(2))[:, 0]
    sd = expected.std()
    assert found.mean() == pytest.approx(expected.mean(), abs=5 * sd * np.sqrt(2 / draws))
    assert found.std() == pytest.approx(sd, rel=0.02)
    if amplitude == 0:  # and not those of Gaussian noise
        assert found.mean() > 0.6
    assert np.mean(np.quantile(found, [0.05, 0.95])) == pytest.approx(
        np.mean(np.quantile(expected, [0.05, 0.95])), rel=0.02
    )


@pytest.mark.parametrize("kind", ["gaussian", "rician"])
def test_the_lowest_may_be_exact(kind):
    rng = np.random.default_rng(3)
    parameters = SPACE.sample(500, rng)
    clean = SPACE.model.signal(SPACE.with_scale(parameters), SHELLS)
    exact = simulator(snr=5, kind=kind, lowest=False).measure(parameters, rng)
    np.testing.assert_array_equal(exact[:, 0], clean[:, 0])
    assert np.all(exact[:, 1:] != clean[:, 1:])
    assert np.all(simulator(snr=5, kind=kind).measure(parameters, rng) != clean)


def test_without_noise_it_is_the_model():
    rng = np.random.default_rng(4)
    made = simulator(snr=np.inf)
    batch = made.draw(300, rng)
    parameters = batch.truth
    clean = SPACE.model.signal(SPACE.with_scale(parameters), SHELLS)
    np.testing.assert_array_equal(made.measure(parameters, rng), clean)
    np.testing.assert_allclose(batch.features[:, 0], clean[:, 1:] / clean[:, :1], rtol=1e-6)
    assert parameters.shape == (300, 2)
    assert SPACE.contains(parameters).all()


def test_the_snr_is_that_of_one_measurement():
    parameters = np.tile([0.5, 1.5], (N, 1))
    noisy = simulator(snr=25).measure(parameters, np.random.default_rng(5))
    np.testing.assert_allclose(noisy.std(axis=0), 1 / 25 / np.sqrt(SHELLS.weights), rtol=0.01)


def test_every_draw_is_fresh_and_the_seed_decides():
    made = simulator(snr=25, kind="rician")
    rng = np.random.default_rng(6)
    first, second = made.draw(100, rng), made.draw(100, rng)
    again = made.draw(100, np.random.default_rng(6))
    np.testing.assert_array_equal(again.features, first.features)
    assert np.all(first.features != second.features)


@pytest.mark.parametrize("snr", [0.0, -1.0, np.nan])
def test_no_snr(snr):
    with pytest.raises(ValueError, match="SNR of the training must be above 0"):
        Noise(snr)


def drawn(n=N, seed=7, noise=None, **choices):
    made = Simulator(Uniform(SPACE), SHELLS, noise or Noise(25.0), Simulation(**choices))
    return made.draw(n, np.random.default_rng(seed))


class TestBatch:
    def test_it_holds_the_truth_and_what_is_measured_of_it(self):
        batch = drawn(50, realisations=3)
        shapes = {name: array.shape for name, array in vars(batch).items()}
        assert shapes == {
            **dict.fromkeys(("truth", "bound"), (50, 2)),
            **dict.fromkeys(("targets", "cube"), (50, 1, 2)),
            **dict.fromkeys(("s0", "sigma"), (50,)),
            "weights": (50, 1, 1),
            "clean": (50, 5),
            "noisy": (50, 3, 5),
            "unit": (50, 3),
            "features": (50, 3, 4),
        }
        np.testing.assert_array_equal(batch.targets[:, 0], batch.truth)
        np.testing.assert_array_equal(batch.weights, 1)
        np.testing.assert_allclose(batch.features, batch.noisy[..., 1:] / batch.noisy[..., :1], rtol=1e-6)
        np.testing.assert_allclose(SPACE.from_cube(batch.cube[:, 0]), batch.truth, atol=1e-12)

    def test_realisations_are_of_one_truth_and_independent(self):
        batch = drawn(20_000, realisations=2)
        rest = batch.noisy - batch.clean[:, None]
        np.testing.assert_allclose(rest.std(axis=(0, 1)), 1 / 25 / np.sqrt(SHELLS.weights), rtol=0.02)
        assert abs(np.corrcoef(rest[:, 0, 1], rest[:, 1, 1])[0, 1]) < 0.03

    def test_it_is_split_into_rows_that_belong_together(self):
        batch = drawn(10)
        parts = list(batch.split(4))
        assert [len(part.truth) for part in parts] == [4, 4, 2]
        np.testing.assert_array_equal(parts[2].features, batch.features[8:])
        np.testing.assert_array_equal(parts[2].sigma, batch.sigma[8:])


class TestSimulation:
    def test_an_snr_between_two(self):
        snr = 1 / drawn(snr_range=(5.0, 80.0)).sigma
        assert 5 <= snr.min() < 5.1
        assert 79 < snr.max() <= 80
        assert np.mean(snr < 20) == pytest.approx(0.5, abs=0.01)  # log-uniform: 20 is the geometric mean

        snr = 1 / drawn(snr_range=(5.0, 80.0), snr_spacing="uniform").sigma
        assert np.mean(snr < 20) == pytest.approx(15 / 75, abs=0.01)

    def test_s0_between_two(self):
        s0 = drawn(s0_range=(0.8, 1.2)).s0
        np.testing.assert_allclose([s0.min(), s0.mean(), s0.max()], [0.8, 1, 1.2], atol=1e-3)

    def test_an_snr_of_some_levels(self):
        levels, counts = np.unique(1 / drawn(snr_levels=(10.0, 20.0, 50.0)).sigma, return_counts=True)
        np.testing.assert_allclose(levels, [10, 20, 50])
        np.testing.assert_allclose(counts / N, 1 / 3, atol=0.01)

    @pytest.mark.parametrize("kind", ["gaussian", "rician"])
    def test_noise_is_of_the_level_of_its_voxel(self, kind):
        batch = drawn(snr_levels=(10.0, 50.0), noise=Noise(1.0, kind))
        for level in (10, 50):
            rest = (batch.noisy[:, 0] - batch.clean)[np.isclose(batch.sigma, 1 / level)]
            np.testing.assert_allclose(rest[:, 0].std(), 1 / level / np.sqrt(8), rtol=0.02)

    def test_s0_spreads_and_the_noise_does_not(self):
        batch = drawn(s0_spread=0.3)
        assert np.log(batch.s0).std() == pytest.approx(0.3, rel=0.01)
        np.testing.assert_allclose(batch.clean[:, 0], batch.s0)
        rest = (batch.noisy[:, 0] - batch.clean)[:, 1]
        np.testing.assert_allclose(rest.std(), 1 / 25 / np.sqrt(32), rtol=0.01)
        assert drawn(5, s0_spread=None).s0.tolist() == [1] * 5

    @pytest.mark.parametrize("set_noise", ["fresh", "fixed"])
    def test_a_set_that_is_drawn_once(self, set_noise):
        made = Simulator(Uniform(SPACE), SHELLS, Noise(25.0), Simulation(samples=30, set_noise=set_noise))
        rng = np.random.default_rng(0)
        batches = list(made.stream(10, 40, [rng], made.fixed_set(rng)))
        assert [batch.truth.shape[:2] for batch in batches] == [(1, 160), (1, 160), (1, 80)]
        truths, features = (np.concatenate([getattr(b, name)[0] for b in batches]) for name in ("truth", "features"))
        assert len(np.unique(truths, axis=0)) == 30
        assert len(np.unique(features, axis=0)) == (400 if set_noise == "fresh" else 30)

    def test_by_default_every_step_draws_its_own(self):
        batches = list(Simulator(Uniform(SPACE), SHELLS, Noise(25.0)).stream(10, 20, [np.random.default_rng(0)]))
        assert len(np.unique(np.concatenate([batch.truth[0] for batch in batches]), axis=0)) == 200

    @pytest.mark.parametrize("set_noise", [None, "fresh", "fixed"])
    def test_several_networks_each_see_what_they_would_alone(self, set_noise):
        choices = {} if set_noise is None else {"samples": 30, "set_noise": set_noise}
        made = Simulator(Uniform(SPACE), SHELLS, Noise(25.0), Simulation(**choices))
        held = made.fixed_set(np.random.default_rng(9))
        both, alone = (
            list(made.stream(4, 20, list(map(np.random.default_rng, seeds)), held)) for seeds in ((1, 2), (2,))
        )
        for batch, own in zip(both, alone, strict=True):
            np.testing.assert_array_equal(batch.features[1], own.features[0])
            assert not np.array_equal(batch.features[0], batch.features[1])

    @pytest.mark.parametrize(
        ("choices", "message"),
        [
            ({"snr_range": (5.0, 80.0), "snr_levels": (5.0,)}, "only one of these; found snr_range and snr_levels"),
            ({"snr": "images", "snr_levels": (5.0,)}, "found snr_levels and snr"),
            ({"scope": "dataset"}, "give `signals: images` or `snr: images`"),
            ({"filter": "kaandorp2021"}, "give `signals: images`"),
            ({"signals": "images", "realisations": 2, "s0_range": (0.8, 1.2)}, "leave out s0_range, realisations"),
            ({"signals": "images", "snr": "images"}, "leave out snr"),
            ({"snr_range": (80.0, 5.0)}, "the lowest and the highest"),
            ({"snr_range": (0.0, 5.0)}, "above 0"),
            ({"snr_levels": ()}, "above 0"),
            ({"snr_spacing": "log"}, "give snr_range"),
            ({"s0_range": (1.2, 0.8)}, "s0_range must be the lowest and the highest"),
            ({"s0_range": (0.8, 1.2), "s0_spread": 0.1}, "not both"),
            ({"snr_levels": (5.0, np.inf)}, "finite"),
        ],
    )
    def test_snrs_that_cannot_be(self, choices, message):
        with pytest.raises(ValueError, match=message):
            Simulation(**choices)


class TestFeatures:
    def test_the_lowest_is_left_out(self):
        signals = np.array([[2.0, 1.0, 0.5, 0.4, 0.2], [4.0, 1.0, 1.0, 1.0, 1.0]])
        found = Features(SMT2, SHELLS)(signals)
        assert len(Features(SMT2, SHELLS)) == 4
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, [[0.5, 0.25, 0.2, 0.1], [0.25] * 4])

    def test_it_need_not_come_first(self):
        found = Features(SMT2, Acquisition([1000, 500, 2000]))(np.array([[1.0, 2.0, 0.5]]))
        np.testing.assert_allclose(found, [[0.5, 0.25]])

    def test_several_are_kept_relative_to_their_weighted_mean(self):
        acquisition = Acquisition([0, 0, 1000], counts=[1, 3, 4], TE=[60, 90, 60])
        found = Features(SMT2, acquisition)
        assert len(found) == 3
        np.testing.assert_allclose(found(np.array([[4.0, 2.0, 1.0]])), [[1.6, 0.8, 0.4]], rtol=1e-6)

    def test_the_scale_of_the_image_does_not_matter(self):
        signals = np.random.default_rng(0).random((50, 5)) + 0.1
        np.testing.assert_allclose(Features(SMT2, SHELLS)(signals * 1000), Features(SMT2, SHELLS)(signals), rtol=1e-6)

    def test_signals_may_be_in_units_of_the_noise(self):
        """All of them, that of the lowest b-value included; patches have the noise of their voxel."""
        features = Features(SMT2, SHELLS, "noise")
        signals, sigma = np.full((3, 2, 2, len(SHELLS)), 6.0), np.array([1.0, 2.0, 3.0])
        assert len(features) == len(SHELLS)
        found = features(signals, sigma)
        np.testing.assert_array_equal(found, np.broadcast_to(np.array([6, 3, 2.0])[:, None, None, None], found.shape))
        with pytest.raises(ValueError, match="need its standard deviation"):
            features(signals)
        with pytest.raises(ValueError, match="need noise, and the training has none"):
            Simulator(Uniform(ParameterSpace(SMT2)), SHELLS, Noise(np.inf), Simulation(unit="noise"))
        drawn = Simulator(
            Uniform(ParameterSpace(SMT2)), SHELLS, Noise(np.inf), Simulation(unit="noise", snr_levels=(20,))
        )
        batch = drawn.draw(400, np.random.default_rng(0))
        assert np.median(batch.features[:, 0, 0]) == pytest.approx(20, rel=0.02)


def test_snrs_of_weak_signals_refer_to_the_largest():
    """Echoes at small flip angles are a few per cent of S0: noise at an SNR of 50 is 2 % of the largest of them."""
    space, acquisition = ParameterSpace(models.get("t1vfa")), Acquisition(flip_angle=[2, 5, 15], TR=[15] * 3)
    simulator = Simulator(Uniform(space), acquisition, Noise(50.0))
    truth = np.full((4000, 1), 1000.0)
    clean = space.model.signal(space.with_scale(truth[:1]), acquisition)[0]
    noisy = simulator.measure(truth, np.random.default_rng(0))
    assert 0.02 < simulator.brightness < 0.1
    assert (noisy - clean).std() == pytest.approx(simulator.brightness / 50, rel=0.03)
    batch = simulator.draw(500, np.random.default_rng(0))
    assert batch.sigma == pytest.approx(simulator.brightness / 50)
