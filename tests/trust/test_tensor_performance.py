"""What simulation tells of FA and diffusivities, against direct simulation and what is known of them."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import gamma

from bidsfit import Acquisition, LeastSquares, models
from bidsfit.bids.outputs import maps_of
from bidsfit.information import cramer_rao_bound
from bidsfit.models.space import ParameterSpace
from bidsfit.noise import add_noise
from bidsfit.phantom.directions import spread_directions
from bidsfit.trust.monte_carlo import Size, performance_of, truths_of

DTI = models.get("dti")
LSQ = LeastSquares(DTI)
SCHEME = Acquisition([0] * 4 + [1000] * 30, np.vstack([np.zeros((4, 3)), spread_directions(30)]))
JUDGED = ["FA", "MD", "AD", "RD"]
ISOTROPIC, WHITE, MILD = (0.8, 0.8, 0.8), (1.7, 0.35, 0.25), (1.2, 0.7, 0.5)


@pytest.fixture(scope="module")
def performance():
    return performance_of(LSQ, SCHEME, size=Size(1536, 32, 2, 256))


def turned(eigenvalues, n, rng):
    """Parameters of tensors in all orientations, S0 = 1."""
    frames = np.linalg.qr(rng.standard_normal((n, 3, 3)))[0]
    tensors = np.einsum("nij,j,nkj->nik", frames, eigenvalues, frames)
    return np.column_stack([np.ones(n), tensors[:, [0, 1, 2, 0, 0, 1], [0, 1, 2, 1, 2, 2]]])


def estimated(truth, snr, rng):
    signals = add_noise(DTI.signal(truth, SCHEME), 1 / snr, "rician", rng)
    return LSQ.estimate(signals, SCHEME, np.full(len(truth), 1 / snr))


def test_truths_are_tensors_of_all_shapes_and_orientations():
    space = ParameterSpace(DTI)
    truths = space.with_scale(truths_of(space).sample(4000, np.random.default_rng(0)))
    assert DTI.plausible(truths).all()
    derived = DTI.derivation.values(truths)
    assert np.quantile(derived["FA"], 0.02) < 0.05
    assert np.quantile(derived["FA"], 0.98) > 0.8
    drawn = truths_of(space).parts[0].sample(8000, np.random.default_rng(1))
    axes = DTI.derivation.values(space.with_scale(drawn))["direction"]
    assert axes.T @ axes / len(axes) == pytest.approx(np.eye(3) / 3, abs=0.03)


@pytest.mark.parametrize("snr", [5, 10, 20])
@pytest.mark.parametrize("eigenvalues", [ISOTROPIC, MILD, WHITE], ids=["isotropic", "mild", "white matter"])
def test_errors_are_those_of_direct_simulation(performance, eigenvalues, snr):
    rng = np.random.default_rng(snr)
    truth = turned(eigenvalues, 2000, rng)
    estimate, known = estimated(truth, snr, rng), DTI.derivation.values(truth)
    told = performance.errors(truth, np.full(len(truth), 1 / snr))
    for name in JUDGED:
        error = estimate.values[name] - known[name]
        assert told.bias[name].mean() == pytest.approx(error.mean(), abs=0.5 * error.std()), name
        assert told.sd[name].mean() == pytest.approx(error.std(), rel=0.2), name


def test_fa_of_isotropic_diffusion_is_biased_upwards_as_theory_says(performance):
    """The deviation from the mean has five components with nearly the same Gaussian error, and FA is its length."""
    rng = np.random.default_rng(0)
    told = []
    for snr in (10, 20, 30):
        truth = turned(ISOTROPIC, 4000, rng)
        spread = cramer_rao_bound(DTI, truth[:1], SCHEME, 1 / snr)["Dxy"][0] * np.sqrt(2)
        expected = spread * np.sqrt(2) * gamma(3) / gamma(2.5) / (np.sqrt(2) * 0.8)
        assert estimated(truth, snr, rng).derived["FA"].mean() == pytest.approx(expected, rel=0.05)
        told.append(performance.errors(truth[:1], np.array([1 / snr])).bias["FA"][0])
        assert told[-1] == pytest.approx(expected, rel=0.25)
    assert told == sorted(told, reverse=True)


def test_the_noise_floor_lowers_diffusivities_but_not_at_high_snr(performance):
    truth = turned((3.0, 3.0, 3.0), 1, np.random.default_rng(0))
    bias = {snr: performance.errors(truth, np.array([1 / snr])).bias["MD"][0] for snr in (5, 20, 200)}
    assert bias[5] < -1
    assert bias[5] < bias[20] < -0.2
    assert abs(bias[200]) < 0.15


def test_what_a_voxel_is_told(performance):
    """FA hardly answers where noise is all that it shows, and answers fully in white matter; intervals hold 95 %."""
    rng = np.random.default_rng(3)
    for eigenvalues, snr, low, high in (((0.82, 0.8, 0.78), 5, -0.2, 0.5), (WHITE, 50, 0.85, 1.15)):
        estimate = estimated(turned(eigenvalues, 500, rng), snr, rng)
        found = np.stack([estimate.parameters[name] for name in DTI.names], axis=-1)
        response = performance.expected(found, np.full(500, 1 / snr)).response[:, 0, 0]
        assert low < np.median(response) < high
    space = ParameterSpace(DTI)
    truth = space.with_scale(truths_of(space).sample(3000, rng))
    estimate, known = estimated(truth, 20, rng), DTI.derivation.values(truth)
    found = np.stack([estimate.parameters[name] for name in DTI.names], axis=-1)
    expected = performance.expected(found, np.full(len(found), 1 / 20))
    for name in JUDGED:
        held = (expected.lower[name] <= known[name]) & (known[name] <= expected.upper[name])
        assert 0.9 < held.mean() < 0.99, name


def test_uncertainty_is_told_of_what_is_derived_and_not_of_elements():
    found = {output.path.name for output in maps_of(DTI, LSQ, "", "sub-01", "dwimap", "light").values()}
    for label in ("fa", "md", "ad", "rd"):
        for key in ("sd", "crb", "bias", "expectedsd", "response"):
            assert f"sub-01_model-dti_param-{label}_stat-{key}_desc-lsq_dwimap.nii.gz" in found
    elements = {name for name in found if "param-D" in name or "param-tensor" in name}
    assert elements == {"sub-01_model-dti_param-tensor_desc-lsq_dwimap.nii.gz"}
    assert "sub-01_model-dti_param-direction_stat-crb_desc-lsq_dwimap.nii.gz" in found
