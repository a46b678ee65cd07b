"""NODDI: its signal against integrals over the sphere and closed forms, its errors, and the directions of networks."""

import numpy as np
import pytest
from scipy.integrate import lebedev_rule
from scipy.spatial.transform import Rotation
from scipy.special import erf

from bidsfit import Acquisition, LeastSquares, models
from bidsfit.information import cramer_rao_bound
from bidsfit.models.noddi import LEAST_DISPERSION
from bidsfit.phantom.directions import spread_directions
from bidsfit.training.inference import tensor_axes
from bidsfit.trust.companions import RESPONSE
from bidsfit.trust.monte_carlo import Size, obstacle, performance_of

NODDI = models.get("noddi")
B = [0] * 6 + [1000] * 30 + [2500] * 30
DIRECTIONS = np.vstack([np.zeros((6, 3)), spread_directions(30), spread_directions(30)[::-1]])
ACQUISITION = Acquisition(B, DIRECTIONS)
POINTS, WEIGHTS = lebedev_rule(131)


def axis(polar, azimuth):
    return np.array([np.sin(polar) * np.cos(azimuth), np.sin(polar) * np.sin(azimuth), np.cos(polar)])


def integrated(parameters, acquisition):
    """The signal with means over the distribution of directions found by quadrature on the sphere."""
    s0, ndi, odi, fiso, polar, azimuth = parameters
    b, gradients = acquisition.variable("b"), acquisition.variable("direction")
    weights = WEIGHTS * np.exp(((axis(polar, azimuth) @ POINTS) ** 2 - 1) / np.tan(np.pi * odi / 2))
    weights /= weights.sum()
    sticks = np.exp(-1.7 * b[:, None] * (gradients @ POINTS) ** 2) @ weights
    tensor = 1.7 * ((1 - ndi) * np.eye(3) + ndi * (POINTS * weights) @ POINTS.T)
    outside = np.exp(-b * np.einsum("ni,ij,nj->n", gradients, tensor, gradients))
    return s0 * ((1 - fiso) * (ndi * sticks + (1 - ndi) * outside) + fiso * np.exp(-3 * b))


@pytest.mark.parametrize(("b", "error"), [(2500, 4e-6), (3000, 1.1e-5), (4000, 6e-5)])
def test_its_series_is_the_integral_over_the_sphere(b, error):
    """For the least dispersion as exactly as the module says; for a dispersion index above 0.1 to 1e-7 and better."""
    rng = np.random.default_rng(0)
    acquisition = Acquisition([b] * 100, spread_directions(100))
    for odi in (LEAST_DISPERSION, 0.1, 0.4, 1.0):
        point = [2.0, 1.0, odi, 0.0, np.arccos(rng.random()), rng.uniform(0, 2 * np.pi)]
        off = np.abs(NODDI.signal(point, acquisition) - integrated(point, acquisition)).max() / 2
        assert off < (error if odi < 0.1 else 1e-6 if b > 3000 else 1e-7)
        point[1], point[3] = rng.uniform(0.2, 0.8, 2)
        assert NODDI.signal(point, acquisition) == pytest.approx(integrated(point, acquisition), abs=2 * error)


def test_its_limits_have_closed_forms():
    b = ACQUISITION.variable("b")
    weighted = np.maximum(1.7 * b, 1e-12)
    anywhere = (0.7, 1.2)
    everywhere = np.sqrt(np.pi / weighted) * erf(np.sqrt(weighted)) / 2  # sticks along all directions alike
    assert NODDI.signal([1, 1, 1, 0, *anywhere], ACQUISITION) == pytest.approx(everywhere, abs=1e-9)
    assert NODDI.signal([1, 0, 0.3, 0, *anywhere], ACQUISITION) == pytest.approx(np.exp(-1.7 * b), abs=1e-12)
    assert NODDI.signal([1, 0.5, 0.3, 1, *anywhere], ACQUISITION) == pytest.approx(np.exp(-3 * b), abs=1e-12)


def test_it_turns_with_the_gradients():
    turn, polar, azimuth = Rotation.from_rotvec([0.3, -0.8, 0.5]), 1.1, 4.0
    x, y, z = turn.apply(axis(polar, azimuth))
    turned = Acquisition(B, turn.apply(DIRECTIONS))
    there = [1, 0.6, 0.15, 0.1, np.arccos(z), np.arctan2(y, x)]
    expected = NODDI.signal([1, 0.6, 0.15, 0.1, polar, azimuth], ACQUISITION)
    assert NODDI.signal(there, turned) == pytest.approx(expected, abs=1e-12)


def test_clean_signals_give_the_truth():
    rng = np.random.default_rng(1)
    truth = np.column_stack([
        np.full(200, 100.0), rng.uniform(0.1, 0.9, 200), rng.uniform(0.03, 0.9, 200), rng.uniform(0.02, 0.6, 200),
        np.arccos(rng.random(200)), rng.uniform(0, 2 * np.pi, 200),
    ])  # fmt: skip
    estimate = LeastSquares(NODDI).estimate(NODDI.signal(truth, ACQUISITION), ACQUISITION)
    for k, name in enumerate(("S0", "NDI", "ODI", "FISO")):
        assert estimate.parameters[name] == pytest.approx(truth[:, k], rel=1e-5)
    cosines = np.abs(np.sum(estimate.derived["direction"] * axis(*truth[:, 4:].T).T, axis=1))
    assert np.arccos(np.minimum(cosines, 1)).max() < 1e-4


def test_estimates_scatter_as_the_bound_says():
    truth, sigma, n = np.array([1.0, 0.6, 0.25, 0.3, 1.0, 2.0]), 1 / 100, 1000
    noise = sigma * np.random.default_rng(2).standard_normal((n, len(ACQUISITION)))
    estimate = LeastSquares(NODDI).estimate(NODDI.signal(truth, ACQUISITION) + noise, ACQUISITION)
    bound = cramer_rao_bound(NODDI, truth, ACQUISITION, sigma)
    for k, name in enumerate(("S0", "NDI", "ODI", "FISO")):
        assert estimate.parameters[name].std() == pytest.approx(bound[name], rel=0.08)
        assert estimate.parameters[name].mean() == pytest.approx(truth[k], abs=4 * bound[name] / np.sqrt(n) + 0.002)
    cosines = np.abs(estimate.derived["direction"] @ axis(1.0, 2.0))
    assert np.sqrt(np.mean(np.arccos(np.minimum(cosines, 1)) ** 2)) == pytest.approx(bound["direction"], rel=0.08)


def test_trust_is_told_of_what_is_no_angle():
    estimator = LeastSquares(NODDI, intervals="conformal")
    assert obstacle(estimator) == ""
    assert obstacle(LeastSquares(NODDI, bounds={"NDI": (0.5, 0.5)})) == ""
    averaged = estimator.averages(ACQUISITION).acquisition
    performance = performance_of(estimator, averaged, kind="gaussian", size=Size(96, 8, 2, 16))
    assert performance.judged == ["NDI", "ODI", "FISO"]
    found = performance.errors(np.array([[1, 0.6, 0.2, 0.1, 1.0, 2.0], [1, 0.6, 0.2, 0.1, 0.3, 5.0]]), np.full(2, 0.03))
    assert found.sd["NDI"][0] == found.sd["NDI"][1] > 0  # a mean over all directions
    assert not any(RESPONSE.applies(estimator, angle, True) for angle in NODDI.parameters[4:])
    assert RESPONSE.applies(estimator, NODDI["ODI"], True)


def test_the_direction_of_networks_is_that_of_the_tensor():
    rng = np.random.default_rng(3)
    angles = np.column_stack([np.arccos(rng.random(100)), rng.uniform(0, 2 * np.pi, 100)])
    truth = np.column_stack([np.ones(100), np.full(100, 0.6), np.full(100, 0.1), np.full(100, 0.1), angles])
    found = tensor_axes(NODDI.signal(truth, ACQUISITION), ACQUISITION)
    assert (found >= 0).all()
    assert (found <= [np.pi / 2, 2 * np.pi]).all()
    cosines = np.abs(np.sum(axis(*found.T) * axis(*angles.T), axis=0))
    assert np.degrees(np.arccos(np.minimum(cosines, 1))).max() < 1


def test_what_it_needs():
    one = Acquisition([0] * 6 + [1000] * 30, DIRECTIONS[:36])
    assert "2 different b-values" in NODDI.support(one).missing[0]
    assert not NODDI.support(ACQUISITION).missing
    assert "noddi" not in models.without_variants()
