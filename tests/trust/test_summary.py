"""Numbers that say in short how far the maps of an image can be trusted."""

import numpy as np

from bidsfit import Acquisition, LeastSquares, models
from bidsfit.simulation.distributions import Uniform
from bidsfit.simulation.simulator import Noise, Simulator
from bidsfit.trust.companions import judge_of
from bidsfit.trust.monte_carlo import Size, performance_of
from bidsfit.trust.summary import summarise

N_VOXELS, SIGMA = 4000, 0.1
TISSUE, FLUID = 0.8, 2.9


def test_few_voxels_with_large_errors_count_in_the_root_mean_square():
    """As in the error over a whole head, of which a tenth is fluid; a median would be that of the tissue alone."""
    acquisition = Acquisition([0, 100, 600, 2500], counts=[1, 2, 2, 2])
    estimator = LeastSquares(models.get("adc"))
    performance = performance_of(estimator, acquisition, size=Size(512, 32, 8, 200))
    rng = np.random.default_rng(5)
    truth = np.where(rng.random(N_VOXELS) < 0.1, FLUID, TISSUE)
    simulator = Simulator(Uniform(performance.space), acquisition, Noise(np.inf, "rician"))
    sigma = np.full(N_VOXELS, SIGMA)
    signals = simulator.measure(truth[:, None], rng, 1, sigma)
    estimate = estimator.estimate(signals, acquisition, sigma)
    judge = judge_of(estimator, estimate, sigma, performance=performance)
    row = summarise(judge, estimate, np.zeros(N_VOXELS, dtype=np.uint8)).parameters[0]
    error = estimate.values["D"] - truth
    true, middle = np.sqrt(np.mean(error**2)), np.median(judge.expected(estimate).rmse["D"])
    assert middle < 0.85 * true
    assert abs(row.rmse / true - 1) < 0.12
