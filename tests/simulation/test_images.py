"""Voxels of images: their SNR as quantiles, and noise that is drawn from these."""

import numpy as np
import pytest
from scipy.stats import norm

from bidsfit import models
from bidsfit.acquisition import Acquisition
from bidsfit.models.space import ParameterSpace
from bidsfit.simulation.distributions import Uniform
from bidsfit.simulation.images import ImageVoxels
from bidsfit.simulation.simulator import Noise, Simulation, Simulator

PROTOCOL = Acquisition([0, 500, 1000])


def voxels(snr, name="sub-01"):
    snr = np.asarray(snr, dtype=np.float32)
    return ImageVoxels(np.ones((len(snr), 3), dtype=np.float32), 1 / snr, PROTOCOL, {name: len(snr)})


def test_the_snr_that_is_drawn_is_distributed_as_that_of_the_voxels():
    """Of a log-normal SNR with median 20 and a logarithm of SD 0.5: the quantiles without the outermost 1 %."""
    rng = np.random.default_rng(0)
    found = voxels(20 * np.exp(0.5 * rng.standard_normal(20_000)))
    simulator = Simulator(
        Uniform(ParameterSpace(models.get("adc"))), PROTOCOL, Noise(7.0), Simulation(snr="images"), images=found
    )
    snr = 1 / simulator.draw(50_000, rng).sigma
    some = np.array([0.02, 0.1, 0.25, 0.5, 0.75, 0.9, 0.98])
    expected = 20 * np.exp(0.5 * norm.ppf(0.01 + 0.98 * some))
    np.testing.assert_allclose(np.quantile(snr, some), expected, rtol=0.03)
    assert found.median_snr == pytest.approx(20, rel=0.02)


def test_a_simulation_without_images_draws_no_snr_of_them():
    simulator = Simulator(Uniform(ParameterSpace(models.get("adc"))), PROTOCOL, Noise(7.0), Simulation(snr="images"))
    with pytest.raises(ValueError, match="no image was given"):
        simulator.draw(5, np.random.default_rng(0))


def test_images_are_pooled_and_named():
    both = ImageVoxels.pooled([voxels(np.full(200, 10.0)), voxels([], "sub-00"), voxels(np.full(600, 40.0), "sub-02")])
    assert both.facts["Voxels"] == {"sub-01": 200, "sub-02": 600}
    assert (both.facts["SNR"][0], both.median_snr) == (10, 40)
    assert len(both.facts["SNR"]) == 50


def test_the_filter_of_training_voxels():
    """A voxel that decays stays; signals above 1.3, 1.2 and 1 at b below 50, above 50 and above 150 do not."""
    protocol = Acquisition([0, 20, 40, 100, 200, 800])
    decays = [1, 0.95, 0.9, 0.8, 0.7, 0.4]
    rows = np.tile(np.array(decays, dtype=np.float32), (5, 1))
    rows[1, :3], rows[2, 3:], rows[3, 4:] = (1, 1.4, 1.4), (1.25, 1.25, 1.25), (1.05, 1.05)
    rows[4, 1] = 1.29
    found = ImageVoxels(rows, np.arange(1, 6, dtype=np.float32), protocol, {"sub-01": 5}).decaying()
    np.testing.assert_array_equal(found.sigma, [1, 5])
    wide = Acquisition([0, *[600] * 40])  # of which few are above
    row = np.full((1, 41), 0.5, dtype=np.float32)
    row[0, 1] = 9
    found = ImageVoxels(row, np.ones(1, dtype=np.float32), wide, {"sub-01": 1}).decaying()
    np.testing.assert_allclose(found.signals[0, :3], [0.5, 1.5, 0.5])


def test_measured_signals_are_drawn_and_a_tenth_is_never():
    """Every signal says which voxel it is of."""
    signals = np.ones((500, 3), dtype=np.float32)
    signals[:, 1] = np.arange(500)
    found = ImageVoxels(signals, np.linspace(0.01, 0.1, 500, dtype=np.float32), PROTOCOL, {"sub-01": 500})
    simulator = Simulator(
        Uniform(ParameterSpace(models.get("adc"))), PROTOCOL, Noise(7.0), Simulation(signals="images"), images=found
    )
    rng = np.random.default_rng(0)
    taught, held_out = simulator.draw(20_000, rng), simulator.held_out(65536, rng)
    assert len(np.unique(taught.noisy[:, 0, 1])) == 450
    np.testing.assert_array_equal(np.sort(held_out.noisy[:, 0, 1]), np.arange(9, 500, 10))
    assert not set(taught.noisy[:, 0, 1]) & set(held_out.noisy[:, 0, 1])
    np.testing.assert_array_equal(taught.sigma, found.sigma[taught.noisy[:, 0, 1].astype(int)])
    np.testing.assert_array_equal(taught.features[:, 0], taught.noisy[:, 0, 1:])
    assert np.isnan(taught.truth).all()
    assert len(simulator.held_out(10, rng).truth) == 10
