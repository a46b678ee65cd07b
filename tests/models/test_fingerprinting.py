"""Fingerprints: signals against magnetisations that are turned one by one, limits, coefficients, and estimators."""

import numpy as np
import pytest
import torch

from bidsfit import Acquisition, LeastSquares, MaximumLikelihood, Status, models
from bidsfit.estimators.dictionary import Dictionary
from bidsfit.information import cramer_rao_bound
from bidsfit.phantom.tissue import RECIPES
from bidsfit.training.bundle import acquisition_facts, acquisition_from

MODEL = models.get("mrffisp")
N = 80
TRAIN = Acquisition(
    flip_angle=5 + 55 * np.abs(np.sin(np.pi * np.arange(N) / 30)), TR=12 + np.cos(np.arange(N) / 7),
    TE=2 + np.sin(np.arange(N) / 5), TI=[20.0] * N,
)  # fmt: skip
COEFFICIENTS = RECIPES["mrffisp"].series


def isochromats(t1, t2, acquisition, b1=1.0, n=512):
    """The train of pulses with magnetisations that every gradient turns by other angles, one turn over all of them."""
    turns = np.exp(2j * np.pi * np.arange(n) / n)
    along = np.full(n, 1 - 2 * np.exp(-acquisition.columns["TI"][0] / t1))
    across, signals = np.zeros(n, dtype=complex), []
    columns = (acquisition.columns[name] for name in ("flip_angle", "TR", "TE"))
    for degrees, repetition, echo in zip(*columns, strict=True):
        angle = b1 * np.deg2rad(degrees)
        turned = across.real * np.cos(angle) + along * np.sin(angle)
        along = along * np.cos(angle) - across.real * np.sin(angle)
        across = turned + 1j * across.imag
        signals.append(across.mean() * np.exp(-echo / t2))
        across = across * turns * np.exp(-repetition / t2)
        along = 1 + (along - 1) * np.exp(-repetition / t1)
    return np.array(signals)


@pytest.mark.parametrize(("t1", "t2"), [(800, 70), (1500, 100), (4000, 2000), (300, 8)])
@pytest.mark.parametrize("b1", [1.0, 0.8])
def test_signals_are_those_of_isochromats(t1, t2, b1):
    """Of fluid too: no order of dephasing that comes back is left out."""
    found = MODEL.signal(np.array([3.0, t1, t2, 0.7, b1]), TRAIN)
    assert found == pytest.approx(3 * np.exp(0.7j) * isochromats(t1, t2, TRAIN, b1), abs=1e-8)


def test_whole_train_of_fluid_is_that_of_isochromats():
    found = MODEL.signal(np.array([1.0, 4000, 1600, 0.0, 1.0]), COEFFICIENTS.frames)
    assert found == pytest.approx(isochromats(4000, 1600, COEFFICIENTS.frames), abs=1e-8)


def train(*angles, repetition=10.0, inversion=0.0):
    n = len(angles)
    return Acquisition(flip_angle=angles, TR=[repetition] * n, TE=[0.0] * n, TI=[inversion] * n)


def test_limits():
    still = np.array([1.0, 1e12, 1e12, 0.0, 1.0])  # no relaxation
    echo = MODEL.signal(still, train(90, 180, 0)).real
    assert echo == pytest.approx([-1, 0, -1], abs=1e-9) or echo == pytest.approx([-1, 0, 1], abs=1e-9)  # a spin echo
    angles = np.array([20.0, 20.0, 20.0])
    fast = np.array([1.0, 1.0, 1.0, 0.0, 1.0])  # all recovers from one pulse to the next
    found = MODEL.signal(fast, train(*angles, repetition=100.0, inversion=100.0))
    assert found.real == pytest.approx(np.sin(np.deg2rad(angles)))
    recovering = MODEL.signal(np.array([1.0, 800.0, 50.0, 0.0, 1.0]), train(90, inversion=800 * np.log(2)))
    assert recovering == pytest.approx([0.0], abs=1e-12)  # at its zero
    assert MODEL.signal(np.array([0.0, 800.0, 50.0, 0.0, 1.0]), TRAIN) == pytest.approx(np.zeros(N))


def some_voxels(n):
    rng = np.random.default_rng(0)
    t1 = np.exp(rng.uniform(np.log(200), np.log(5000), n))
    t2 = t1 * np.exp(rng.uniform(np.log(0.01), 0, n))
    return np.column_stack([rng.uniform(1, 3, n), t1, t2, rng.uniform(-3, 3, n), rng.uniform(0.7, 1.2, n)])


@pytest.mark.parametrize("complex_basis", [None, False, True])
def test_compiled_code_and_torch_agree(complex_basis):
    """Leaving out what has decayed changes nothing, and derivatives are those of automatic differentiation."""
    acquisition, rng = TRAIN, np.random.default_rng(1)
    if complex_basis is not None:
        columns = rng.standard_normal((N, 7)) + 1j * complex_basis * rng.standard_normal((N, 7))
        acquisition = Acquisition(frames=TRAIN, basis=np.linalg.qr(columns)[0])
    parameters = some_voxels(10)
    signal, jacobian = MODEL.signal_and_jacobian(parameters, acquisition)
    rows, design = torch.from_numpy(parameters), torch.from_numpy(MODEL.design(acquisition))
    other = MODEL.torch_signal(rows.clone().requires_grad_(True), design).detach().numpy()
    assert other == pytest.approx(signal, abs=1e-8)
    slope, parts = MODEL._jacobian(rows, design)
    assert torch.view_as_complex(parts.contiguous()).numpy() == pytest.approx(signal, abs=1e-8)
    assert (slope[..., 0, :] + 1j * slope[..., 1, :]).numpy() == pytest.approx(jacobian, abs=1e-7)
    assert MODEL.signal(parameters, acquisition) == pytest.approx(signal, abs=1e-14)


class TestCoefficients:
    def test_they_are_the_conjugate_of_the_basis_times_the_frames(self, monkeypatch):
        parameters = some_voxels(20)
        expected = MODEL.signal(parameters, COEFFICIENTS.frames) @ COEFFICIENTS.basis.conj()
        monkeypatch.setattr("bidsfit.models.function.LARGEST_BLOCK", 16 * 6 * 300)  # several blocks
        assert MODEL.signal(parameters, COEFFICIENTS) == pytest.approx(expected, abs=1e-12)

    def test_they_hold_nearly_all_of_the_signal(self):
        tissue = [[1.0, t1, t2, 0.0, 1.0] for t1, t2 in ((850, 75), (1350, 100), (4000, 1600))]
        for n, lost in ((10, 0.01), (5, 0.05)):
            acquisition = Acquisition(frames=COEFFICIENTS.frames, basis=MODEL.temporal_basis(COEFFICIENTS.frames, n))
            kept, all_ = (
                (np.abs(MODEL.signal(np.array(tissue), a)) ** 2).sum(axis=1) for a in (acquisition, acquisition.frames)
            )
            assert (1 - kept / all_).max() < lost

    def test_what_is_no_basis_is_refused(self):
        basis = np.eye(N)[:, :3]
        with pytest.raises(ValueError, match=r"a row for each of the 80 frames.*found the shape \(79, 3\)"):
            Acquisition(frames=TRAIN, basis=basis[1:])
        with pytest.raises(ValueError, match="differ from that by up to 3"):
            Acquisition(frames=TRAIN, basis=2 * basis)
        acquisition = Acquisition(frames=TRAIN, basis=basis)
        assert len(acquisition) == 3
        assert acquisition.select([2, 0]).basis == pytest.approx(basis[:, [2, 0]])
        assert models.get("t2").support(acquisition).missing  # another model has nothing to do with them

    def test_they_stay_the_same_in_a_file(self):
        stored = acquisition_from(acquisition_facts(COEFFICIENTS, MODEL.variables))
        parameters = some_voxels(5)
        assert MODEL.signal(parameters, stored) == pytest.approx(MODEL.signal(parameters, COEFFICIENTS), abs=1e-5)


TRUTH = np.array([[100.0, 900.0, 80.0, 3.0, 1.0]])


@pytest.mark.parametrize("acquisition", [TRAIN, COEFFICIENTS], ids=["frames", "coefficients"])
@pytest.mark.parametrize("make", [LeastSquares, lambda model: Dictionary(model, entries=1 << 13)])
def test_estimators_reach_the_bound(make, acquisition):
    """Complex signals of any phase."""
    clean = np.repeat(MODEL.signal(TRUTH, acquisition), 300, axis=0)
    rng = np.random.default_rng(0)
    signals = clean + 0.5 * (rng.standard_normal(clean.shape) + 1j * rng.standard_normal(clean.shape))
    estimate = make(MODEL).estimate(signals, acquisition)
    floor = cramer_rao_bound(MODEL, TRUTH, acquisition, 0.5, fixed=("B1",))
    assert set(estimate.count()) == {Status.CONVERGED}
    assert np.median(estimate.sigma) == pytest.approx(0.5, rel=0.05)
    for j, name in enumerate(("S0", "T1", "T2", "phase")):
        error = estimate.parameters[name] - TRUTH[0, j]
        error = np.angle(np.exp(1j * error)) if name == "phase" else error
        assert np.abs(error.mean()) < 4 * floor[name][0] / np.sqrt(300)
        assert error.std() == pytest.approx(floor[name][0], rel=0.15)


def test_maximum_likelihood_knows_gaussian_noise_alone():
    clean = MODEL.signal(TRUTH, TRAIN)
    other = MaximumLikelihood(MODEL, noise="gaussian").estimate(clean, TRAIN, noise=1.0)
    assert other.parameters["T1"] == pytest.approx([900], rel=1e-3)
    with pytest.raises(ValueError, match="are complex and their noise is Gaussian"):
        MaximumLikelihood(MODEL)


def test_the_transmit_field_is_taken_out_of_tissue():
    """A fit with nominal angles errs in T2 of tissue by up to half, its correction by less than a percent."""
    truth = np.array([[100.0, t1, t2, 0.4, b1] for t1, t2 in ((850, 75), (1350, 100)) for b1 in (0.75, 0.9, 1.1, 1.2)])
    fitted = LeastSquares(MODEL).estimate(MODEL.signal(truth, COEFFICIENTS), COEFFICIENTS)
    assert np.abs(fitted.parameters["T2"] / truth[:, 2] - 1).max() > 0.3
    found = MODEL.covariate.apply(fitted.points, truth[:, 4], COEFFICIENTS, range(4))
    assert found[:, :3] == pytest.approx(truth[:, :3], rel=0.01)
