"""The descent on tensors: on torch's processor it must do what the compiled code does, voxel by voxel."""

import numpy as np
import pytest
import torch

from bidsfit import Acquisition, LeastSquares, MaximumLikelihood, models
from bidsfit.estimators import batched, estimator, misfits
from bidsfit.estimators.estimator import Status
from bidsfit.information import bound_of_voxels
from bidsfit.models.space import ParameterSpace
from bidsfit.noise import add_noise
from bidsfit.phantom.directions import spread_directions

IVIM = Acquisition([0, 0, 5, 10, 20, 40, 60, 80, 100, 150, 200, 300, 400, 600, 800])
SHELLS = Acquisition(
    np.repeat([0, 700, 1500, 2500, 4000], [4, 12, 12, 12, 12]),
    np.vstack([np.zeros((4, 3)), *[spread_directions(12)] * 4]),
)
PROTOCOLS = {"adc": IVIM, "ivim": IVIM, "smt2": SHELLS, "smt3": SHELLS, "dti": SHELLS.select(np.arange(28))}
TENSOR = {"Dxx": (0.2, 2.0), "Dyy": (0.2, 2.0), "Dzz": (0.2, 2.0)} | dict.fromkeys(("Dxy", "Dxz", "Dyz"), (-0.2, 0.2))


def noisy(name, n, seed=0):
    """Magnitudes of parameters from the whole space of a model, and their noise levels: SNR 20 to 50."""
    rng = np.random.default_rng(seed)
    space = ParameterSpace(models.get(name), TENSOR if name == "dti" else None)
    clean = 300 * space.model.signal(space.with_scale(space.sample(n, rng)), PROTOCOLS[name])
    sigma = 300 / rng.uniform(20, 50, n)
    return add_noise(clean, sigma[:, None], "rician", rng), sigma


@pytest.mark.parametrize("make", [LeastSquares, MaximumLikelihood])
@pytest.mark.parametrize("name", PROTOCOLS)
def test_the_estimates_of_the_compiled_code(name, make):
    """Within a tenth of a standard deviation in 99.9 % of voxels, at bounds and without a usable signal as well."""
    model, acquisition = models.get(name), PROTOCOLS[name]
    signals, sigma = noisy(name, 2000)
    signals[:3, 1] = [np.nan, np.inf, -5]
    signals[3], sigma[4] = 0, np.nan
    signals[5:10] = np.abs(signals[5:10] - 300)  # like no signal of the model
    compiled = make(model).estimate(signals, acquisition, sigma)
    other = make(model, device="cpu").estimate(signals, acquisition, sigma)
    assert (compiled.notes, other.notes) == ({}, {"Device": "cpu"})
    assert np.mean(other.status == compiled.status) >= 0.99
    assert {Status.CONVERGED, Status.NOT_FINITE, Status.NO_SIGNAL} <= set(compiled.count())
    assert name in ("adc", "dti") or np.mean(compiled.status == Status.AT_BOUND) > 0.03
    found, expected = (np.column_stack(list(one.parameters.values())) for one in (other, compiled))
    assert np.array_equal(np.isnan(found), np.isnan(expected))
    fitted = np.flatnonzero(np.isfinite(expected).all(axis=1) & np.isfinite(sigma))
    spread = bound_of_voxels(model, expected[fitted], compiled.acquisition, sigma[fitted], "gaussian")
    near = np.abs(found - expected)[fitted] <= 0.1 * np.nan_to_num(spread, nan=np.inf)
    assert near.all(axis=1).mean() >= 0.999
    assert np.mean(np.abs(other.rmse - compiled.rmse)[fitted] <= 1e-3 * compiled.rmse[fitted]) >= 0.999


def test_a_parameter_that_is_held():
    """Profiles hold one parameter after the other, at values off the grid of starts."""
    signals, sigma = noisy("ivim", 30)
    ends = [
        LeastSquares(models.get("ivim"), intervals="profile", device=device).estimate(signals, IVIM, sigma).statistics
        for device in (None, "cpu")
    ]
    for key in ("q025", "q975"):
        for name in ("f", "D", "Dstar"):
            difference = np.abs(ends[0][key][name] - ends[1][key][name])
            assert np.mean(difference <= 1e-4 * np.abs(ends[0][key][name]) + 1e-6) > 0.98


def test_memory_is_bounded_by_chunks_and_blocks(monkeypatch):
    """However many voxels there are, and wherever the cuts fall."""
    signals, sigma = noisy("smt2", 100)
    fit = MaximumLikelihood(models.get("smt2"), device="cpu").estimate
    whole = fit(signals, SHELLS, sigma)
    largest, misfit = [], batched.rician_tensor

    def watched(measured, predicted, weight):
        largest.append(measured.numel())
        return misfit(measured, predicted, weight)

    monkeypatch.setattr(estimator, "CHUNK_OF_DEVICE", 33)
    monkeypatch.setattr(batched, "LARGEST_BLOCK", 1000)
    monkeypatch.setattr(batched, "rician_tensor", watched)
    cut = fit(signals, SHELLS, sigma, threads=2)
    assert max(largest) <= 1000
    assert np.array_equal(cut.status, whole.status)
    assert cut.parameters["vcyl"] == pytest.approx(whole.parameters["vcyl"], abs=1e-6)


@pytest.mark.parametrize("kind", ["gaussian", "rician"])
def test_misfits_of_tensors(kind):
    """From no signal to one far above the noise: the compiled misfit, its slope and curvature."""
    measured, predicted = (a.ravel() for a in np.meshgrid([0, 1e-6, 0.3, 1.0, 4.4, 60.0], [0, 1e-5, 0.5, 4.5, 70.0]))
    weight = np.full(measured.size, 1.7)
    expected = [getattr(misfits, kind)(*values) for values in zip(measured, predicted, weight, strict=True)]
    found = getattr(misfits, f"{kind}_tensor")(*map(torch.from_numpy, (measured, predicted, weight)))
    np.testing.assert_allclose(np.stack(found, axis=1), expected, rtol=1e-9, atol=1e-9)


def test_the_device_is_no_setting_of_the_result():
    """Maps of a GPU and of the processor stand for one another: neither is a reason to fit again."""
    model = models.get("ivim")
    for make in (LeastSquares, MaximumLikelihood):
        assert make(model, device="cuda").options == make(model).options
        assert make(model, device="cuda").methods == make(model).methods
