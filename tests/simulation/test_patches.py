"""Patches: neighbours resemble one another, and the voxel in the middle is drawn as ever."""

from __future__ import annotations

import numpy as np
import pytest

from bidsfit import Acquisition, models
from bidsfit.models.space import ParameterSpace
from bidsfit.simulation.distributions import Tissues, Uniform
from bidsfit.simulation.patches import AT_EDGE, STEEPEST, UNUSABLE, Patches, with_presence
from bidsfit.simulation.simulator import Noise, Simulation, Simulator

SPACE = ParameterSpace(models.get("smt2"))
SHELLS = Acquisition([0, 1000, 2000], counts=[8, 32, 32], n_directions=[1, 32, 32])


def drawn(kind="smooth", reach=(1, 1, 0), n=2000, seed=0):
    return Patches(Uniform(SPACE), reach, kind).draw(n, np.random.default_rng(seed))[0]


@pytest.mark.parametrize("kind", ["smooth", "pieces"])
@pytest.mark.parametrize(("reach", "shape"), [((1, 1, 0), (3, 3, 1)), ((0, 0, 2), (1, 1, 5)), ((1, 2, 1), (3, 5, 3))])
def test_the_middle_is_drawn_from_the_distribution(kind, reach, shape):
    found = drawn(kind, reach)
    assert found.shape == (2000, *shape, 2)
    assert SPACE.contains(found.reshape(-1, 2)).all()
    expected = Uniform(SPACE).sample(2000, np.random.default_rng(0))
    np.testing.assert_allclose(found[:, *reach], expected, atol=1e-12)


@pytest.mark.parametrize(("surroundings", "share"), [("homogeneous", 25), ("edge", 15), ("lesion", 1)])
def test_surroundings_hold_another_tissue(surroundings, share):
    """All voxels, those up to the central one in a straight half, or that one; noise-free signals tell."""
    simulator = Simulator(Uniform(SPACE), SHELLS, Noise(np.inf), reach=(2, 2, 0))
    here, there = SPACE.sample(20, np.random.default_rng(3)).reshape(2, 10, 2)
    found = simulator.measure(here, np.random.default_rng(0), repeats=2, around=(surroundings, there))
    own = np.repeat(simulator.measure(here, np.random.default_rng(0)), 2, axis=0)[:, :1, :1]
    alike = (found == own).all(axis=-1)
    assert np.all(alike[:, 2, 2, 0])
    assert np.all(alike.sum(axis=(1, 2, 3)) == share)
    other = np.repeat(simulator.measure(there, np.random.default_rng(0)), 2, axis=0)[:, :1, :1]
    assert np.all((found == other).all(axis=-1) != alike)


def test_smooth_patches_change_little_and_steadily():
    cube = SPACE.to_cube(drawn())
    step = np.abs(cube[:, 2, 1, 0] - cube[:, 1, 1, 0])
    assert 0 < step.max() <= STEEPEST
    assert np.median(step) > STEEPEST / 50
    inside = ((cube > 0) & (cube < 1)).all(axis=(1, 2, 3, 4))
    np.testing.assert_allclose((cube[:, 0, 2, 0] + cube[:, 2, 0, 0])[inside] / 2, cube[:, 1, 1, 0][inside], atol=1e-12)


def test_patches_of_pieces_have_one_value_or_two():
    values = [len(np.unique(np.round(patch.reshape(-1, 2), 9), axis=0)) for patch in drawn("pieces", n=500)]
    assert set(values) == {1, 2}
    assert 0.2 < np.mean(np.array(values) == 2) < 0.8


def test_the_middle_is_always_there():
    present = Patches(Uniform(SPACE), (1, 1, 0)).present(20_000, np.random.default_rng(0))
    assert present[:, 1, 1, 0].all()
    absent = (~present).sum(axis=(1, 2, 3))
    alone = 8 * UNUSABLE * (1 - UNUSABLE) ** 7
    assert np.mean(absent == 0) == pytest.approx((1 - UNUSABLE) ** 8 * (1 - AT_EDGE / 2), abs=0.05)
    assert np.mean(absent == 1) == pytest.approx(alone, abs=0.06)
    assert np.mean(absent >= 3) > 0.03


def test_what_is_absent_is_zero():
    features = np.array([[[1.0, np.nan]], [[0.5, 0.25]]])
    found = with_presence(features, np.array([[False], [True]]))
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, [[[0, 0, 0]], [[0.5, 0.25, 1]]])


class TestSimulator:
    def simulator(self, **choices):
        return Simulator(Uniform(SPACE), SHELLS, Noise(25.0), Simulation(**choices), (1, 1, 0))

    def test_a_batch_is_of_the_voxels_in_the_middle(self):
        batch = self.simulator(realisations=2, s0_spread=0.2).draw(40, np.random.default_rng(0))
        assert batch.features.shape == (40, 2, 3, 3, 1, 3)
        assert batch.noisy.shape == (40, 2, 3)
        clean = SPACE.model.signal(SPACE.with_scale(batch.truth), SHELLS) * batch.s0[:, None]
        np.testing.assert_allclose(batch.clean, clean)
        shown = batch.features[:, :, 1, 1, 0]
        np.testing.assert_array_equal(shown[..., -1], 1)
        np.testing.assert_allclose(shown[..., :-1], batch.noisy[..., 1:] / batch.noisy[..., :1], rtol=1e-6)

    def test_all_voxels_of_a_patch_have_noise_of_their_own(self):
        batch = self.simulator(snr_levels=(20.0,)).draw(20_000, np.random.default_rng(0))
        whole = batch.features[..., -1].all(axis=(1, 2, 3, 4))
        patches = batch.features[whole, 0, :, :, 0, 0]
        beside, opposite = patches[:, 1, 0] - patches[:, 1, 1], patches[:, 1, 2] - patches[:, 1, 1]
        assert np.corrcoef(beside + opposite, patches[:, 1, 1])[0, 1] < -0.05  # the noise of the middle is in both

    @pytest.mark.parametrize("set_noise", ["fresh", "fixed"])
    def test_a_set_of_patches(self, set_noise):
        made = self.simulator(samples=20, set_noise=set_noise)
        rng = np.random.default_rng(0)
        batches = made.stream(10, 20, [rng], made.fixed_set(rng))
        features = np.concatenate([batch.features[0] for batch in batches])
        assert len(np.unique(features.reshape(200, -1), axis=0)) == (200 if set_noise == "fresh" else 20)

    def test_measured_patches_are_of_one_truth(self):
        truth = np.tile([0.5, 1.5], (4000, 1))
        found = self.simulator().measure(truth, np.random.default_rng(0))
        assert found.shape == (4000, 3, 3, 1, 3)
        clean = SPACE.model.signal(SPACE.with_scale(truth[:1]), SHELLS)[0]
        sd = 1 / 25 / np.sqrt(SHELLS.weights)
        assert np.all(np.abs(found.mean(axis=0) - clean) < 5 * sd / np.sqrt(4000))
        np.testing.assert_allclose(found.std(axis=0), np.broadcast_to(sd, (3, 3, 1, 3)), rtol=0.05)


IVIM = ParameterSpace(models.get("ivim"), {"f": (0, 0.5), "D": (0, 3), "Dstar": (3, 100)})
RANGES = {
    "CSF": {"S0": (0.5, 1), "f": (0.25, 0.5), "D": (1, 3), "Dstar": (20, 50)},
    "GM": {"S0": (0.2, 0.5), "f": (0.05, 0.25), "D": (0.5, 2), "Dstar": (3, 30)},
    "WM": {"S0": (0.05, 0.25), "f": (0.01, 0.1), "D": (0.3, 1.3), "Dstar": (3, 15)},
}


def of_thesis(kind, voxels, n=1000, reach=(2, 2, 0), **options):
    """Patches and S0, and in each voxel of every patch the number of the draw that it has."""
    parameters, s0 = Patches(voxels, reach, kind, **options).draw(n, np.random.default_rng(0))
    whole = np.concatenate([parameters, s0[..., None]], axis=-1)
    equal = (whole == whole[:, [reach[0]], [reach[1]]][:, :, None]).all(axis=-1)[..., 0]
    return parameters, s0, equal


def test_scattered_patches_hold_two_draws_and_any_number_of_equal_neighbours():
    """From none to all of them, equally often, and anywhere."""
    drawn = Simulation(s0_range=(0.1, 1)).s0
    parameters, s0, equal = of_thesis("scattered", Uniform(IVIM), n=25_000, scale=drawn)
    for patch, scale, same in zip(parameters[:500, ..., 0, :], s0[:500, ..., 0], equal, strict=False):
        assert len(np.unique(patch[~same], axis=0)) == len(np.unique(scale[~same])) == (not same.all())
    assert equal[:, 2, 2].all()
    counts = np.bincount(equal.sum(axis=(1, 2)) - 1, minlength=25)
    np.testing.assert_allclose(counts, 1000, atol=150)
    share = equal.mean(axis=0)
    share[2, 2] = 0.5
    np.testing.assert_allclose(share, 0.5, atol=0.02)


def test_fractal_patches_hold_up_to_three_draws_in_connected_shapes():
    parameters, _, equal = of_thesis("fractal", Uniform(IVIM), n=1200)
    draws = [len(np.unique(patch.reshape(-1, 3), axis=0)) for patch in parameters]
    assert set(draws) <= {1, 2, 3}
    assert 0.2 < np.mean(np.array(draws) == 2) < 0.8
    assert equal[:, 2, 3].mean() > equal[:, 4, 4].mean() > 0.4


@pytest.mark.parametrize("kind", ["scattered", "fractal"])
def test_tissues_of_patches_have_their_own_parameters_and_s0(kind):
    """Fluid has the largest f and S0, and what does not equal the middle of a patch is another tissue."""
    parameters, s0, equal = of_thesis(kind, Tissues(IVIM, RANGES), n=4000)
    middle = np.concatenate([parameters[:, 2, 2, 0], s0[:, 2, 2, 0][:, None]], axis=1)
    beside = parameters[:, 0, 0, 0], s0[:, 0, 0, 0]
    other = ~equal[:, 0, 0]
    assert (np.abs(beside[1] - middle[:, 3]) > 0)[other].all()
    assert np.corrcoef(middle[:, 0], middle[:, 3])[0, 1] > 0.4
    assert np.corrcoef(beside[0][other, 0], middle[other, 0])[0, 1] < -0.2
    assert IVIM.contains(middle[:, :3]).all()
    assert (middle[:, 3] > 0).all()


@pytest.mark.parametrize(
    ("kind", "tissues", "message"),
    [("fractal", ("GM", "WM"), "need three tissues, found GM, WM"), ("scattered", ("GM",), "at least two tissues")],
)
def test_patches_of_other_tissues_are_refused(kind, tissues, message):
    with pytest.raises(ValueError, match=message):
        Patches(Tissues(IVIM, {name: RANGES[name] for name in tissues}), (1, 1, 0), kind)


def test_single_voxels_of_tissues_have_the_s0_of_their_tissue():
    made = Simulator(Tissues(IVIM, RANGES), Acquisition([0, 50, 400, 800]), Noise(100.0), Simulation())
    batch = made.draw(4000, np.random.default_rng(0))
    assert np.corrcoef(batch.truth[:, 0], batch.s0)[0, 1] > 0.4
    np.testing.assert_allclose(batch.clean[:, 0], batch.s0)
