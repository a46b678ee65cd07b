"""docs/examples/tensor.py: the diffusion tensor is one file, and all the rest follows."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from dipy.core.gradients import gradient_table
from dipy.reconst.dti import TensorModel

from bidsfit import Acquisition, LeastSquares, MaximumLikelihood, models
from bidsfit.estimators.estimator import Status
from bidsfit.estimators.log_linear import LogLinear
from bidsfit.information import cramer_rao_bound
from bidsfit.phantom.directions import spread_directions
from bidsfit.trained.network import Network
from bidsfit.trust.companions import companions

BRAIN = Path(__file__).parents[3] / "shared" / "data" / "ds-brain-2shell"
DIRECTIONS = spread_directions(30)
ACQUISITION = Acquisition([0] * 4 + [1000] * 30, np.vstack([np.zeros((4, 3)), DIRECTIONS]))
ELEMENTS = ("Dxx", "Dyy", "Dzz", "Dxy", "Dxz", "Dyz")


@pytest.fixture
def tensor(plugin):
    return models.get("tensor")


def draw(n, rng):
    """Tensors of brain, shape (n, 3, 3), um^2/ms."""
    frames = np.linalg.qr(rng.standard_normal((n, 3, 3)))[0]
    values = np.sort(rng.uniform([1.2, 0.4, 0.2], [2.0, 0.9, 0.6], (n, 3)))
    return np.einsum("nij,nj,nkj->nik", frames, values, frames)


def parameters_of(tensors, s0=100.0):
    places = [(0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2)]
    return np.column_stack([np.full(len(tensors), s0), *(tensors[:, i, j] for i, j in places)])


@pytest.fixture
def noisy(tensor):
    rng = np.random.default_rng(0)
    clean = tensor.signal(parameters_of(draw(300, rng)), ACQUISITION)
    return np.hypot(clean + 2 * rng.standard_normal(clean.shape), 2 * rng.standard_normal(clean.shape))


@pytest.mark.parametrize("method", ["WLS", "NLLS"])
def test_it_agrees_with_dipy(tensor, noisy, method):
    """Elements, eigenvalues and main direction; in um^2/ms."""
    gradients = gradient_table(ACQUISITION.b_values, bvecs=ACQUISITION.directions)
    theirs = TensorModel(gradients, fit_method=method).fit(noisy)
    expected = parameters_of(1e3 * theirs.quadratic_form)[:, 1:]
    if method == "WLS":
        found = LogLinear(tensor, ACQUISITION)(noisy)[:, 1:]
        assert np.abs(found - expected).max() < 1e-4
        return
    estimate = LeastSquares(tensor).estimate(noisy, ACQUISITION)
    found = np.stack([estimate.parameters[name] for name in ELEMENTS], axis=1)
    assert np.abs(found - expected).max() < 1e-4
    for name, values in {"FA": theirs.fa, "MD": 1e3 * theirs.md, "AD": 1e3 * theirs.ad, "RD": 1e3 * theirs.rd}.items():
        assert np.abs(estimate.derived[name] - values).max() < 1e-4
    cosines = np.abs(np.sum(estimate.derived["direction"] * theirs.evecs[..., 0], axis=1))
    assert np.quantile(cosines, 0.01) > 1 - 1e-6


@pytest.mark.skipif(not BRAIN.is_dir(), reason="the real datasets are not beside the project")
def test_it_agrees_with_dipy_on_a_real_brain(tensor):
    """Fluid and vessels have large residuals, where a descent comes nearer in small steps."""
    image = next(BRAIN.rglob("*_dwi.nii.gz"))
    stem = image.with_name(image.name.removesuffix(".nii.gz"))
    acquisition = Acquisition.from_files(stem.with_suffix(".bval"), stem.with_suffix(".bvec"))
    used = np.array(tensor.usable(acquisition))
    data = np.asarray(nib.load(image).dataobj, dtype=float)
    signals = data[data[..., 0] > np.percentile(data[..., 0], 70)][::10]
    signals = signals[(signals[:, used] > 0).all(axis=1)]
    gradients = gradient_table(acquisition.b_values[used], bvecs=acquisition.directions[used])
    theirs = TensorModel(gradients, fit_method="NLLS").fit(signals[:, used])
    estimate = LeastSquares(tensor).estimate(signals, acquisition)
    found = np.stack([estimate.parameters[name] for name in ELEMENTS], axis=1)
    inside = estimate.status == Status.CONVERGED
    assert inside.sum() > 500
    assert np.abs(found - parameters_of(1e3 * theirs.quadratic_form)[:, 1:])[inside].max() < 1e-4


@pytest.mark.parametrize(("make", "kind"), [(LeastSquares, "gaussian"), (MaximumLikelihood, "rician")])
def test_its_spread_is_the_bound_derived_quantities_included(tensor, make, kind):
    """Over many noisy copies of one voxel: elements, FA, diffusivities, and the angle of the main direction."""
    rng = np.random.default_rng(1)
    truth = parameters_of(draw(1, rng))
    clean = np.repeat(tensor.signal(truth, ACQUISITION), 4000, axis=0)
    noise = rng.standard_normal((2, *clean.shape))
    signals = clean + noise[0] if kind == "gaussian" else np.hypot(clean + noise[0], noise[1])
    estimator = make(tensor)
    estimate = estimator.estimate(signals, ACQUISITION, noise=1.0)
    stated = companions(estimator, estimate, 1.0, kind=kind)
    floor = cramer_rao_bound(tensor, truth, ACQUISITION, 1.0, kind)
    for name, values in estimate.values.items():
        assert values.std() == pytest.approx(floor[name][0], rel=0.05)
        assert np.median(stated["sd"][name]) == pytest.approx(floor[name][0], rel=0.05)
    (main,) = tensor.derivation.values(truth)["direction"]
    angles = np.arccos(np.clip(np.abs(estimate.derived["direction"] @ main), 0, 1))
    assert np.sqrt(np.mean(angles**2)) == pytest.approx(floor["direction"][0], rel=0.05)
    assert np.median(stated["crb"]["direction"]) == pytest.approx(floor["direction"][0], rel=0.05)


def test_a_network_learns_it(tensor, quickly_trained):
    """Directions are part of the file; fractional anisotropy follows from what the network says."""
    bounds = {name: (0.2, 2.2) if name[1] == name[2] else (-0.6, 0.6) for name in ELEMENTS}
    bundle = quickly_trained(tensor, ACQUISITION, 50.0, bounds=bounds)
    estimator = Network(tensor, snr=50.0, noise="gaussian", bounds=bounds, trained=bundle)
    rng = np.random.default_rng(2)
    truth = parameters_of(draw(400, rng))
    signals = tensor.signal(truth, ACQUISITION) + 2 * rng.standard_normal((400, len(ACQUISITION)))
    estimate = estimator.estimate(signals, ACQUISITION, noise=2.0)
    fa = tensor.derivation.values(truth)["FA"]
    assert np.corrcoef(estimate.derived["FA"], fa)[0, 1] > 0.6
    assert np.abs(estimate.derived["MD"] - truth[:, 1:4].mean(axis=1)).mean() < 0.1
    assert set(companions(estimator, estimate, 2.0)) == {
        *("expectedsd", "bias", "rmse", "response", "q025", "q975", "crb"),
    }
    turned = Acquisition(ACQUISITION.b_values, np.vstack([np.zeros((4, 3)), DIRECTIONS[::-1]]))
    assert estimator.missing(turned) == ["it was trained for other directions"]


def test_the_app_writes_its_maps(tensor, tiny, masks, command, plugin, outputs, tmp_path):
    """From a BIDS dataset: elements, FA, MD and the direction of three volumes; a report that shows them."""
    shape = (*tiny.SHAPE, len(ACQUISITION))
    rng = np.random.default_rng(3)
    truth = parameters_of(draw(int(np.prod(tiny.SHAPE)), rng), 1000.0)
    data = tensor.signal(truth, ACQUISITION).reshape(shape) + 5 * rng.standard_normal(shape)
    tiny.add("sub-01/dwi/sub-01_dwi", ACQUISITION.b_values, data.astype(np.float32), bvec=False)
    tiny.write("sub-01/dwi/sub-01_dwi.bvec", "\n".join(" ".join(map(str, row)) for row in ACQUISITION.directions.T))
    masks.add_mask("sub-01/dwi/sub-01_desc-brain_mask")
    words = (tiny, tmp_path / "out", "participant", "--preprocess", "none", "-d", f"masks={masks}", "--nprocs", 1)
    process = command(
        *words, "--skip-bids-validation", "--model", "tensor", "--estimators", "lsq", "mle",
        env=plugin.environment, stdout=-1, stderr=-1,
    )  # fmt: skip
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, out + err
    left = outputs(tmp_path / "out")
    fa = tensor.derivation.values(truth)["FA"].reshape(tiny.SHAPE)[1:, 1:]
    for estimator in ("lsq", "mle"):
        name = f"sub-01_model-tensor_param-{{}}_desc-{estimator}_dwimap".format
        found, sd = (left.data(name(part))[1:, 1:] for part in ("fa", "fa_stat-sd"))
        assert np.abs((found - fa) / sd).mean() < 2
        assert left.data(name("direction")).shape == (*tiny.SHAPE, 3)
        assert left.sidecar(name("direction_stat-crb"))["Units"] == "rad"
        assert left.sidecar(name("direction"))["OrientationEncoding"]["Reference"] == "bvec"
        assert left.sidecar(name("MD"))["Units"] == "mm^2/s"
    report = left.report()
    assert "Fractional anisotropy" in report
    assert "the weighted linear fit of the logarithm of its signals" in report
