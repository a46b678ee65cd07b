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
