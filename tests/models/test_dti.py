"""The diffusion tensor: agreement with other software, its errors, and what the app writes of it."""

import shutil
import subprocess
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from dipy.core.gradients import gradient_table
from dipy.reconst.dti import TensorModel

from bidsfit import Acquisition, LeastSquares, MaximumLikelihood, models
from bidsfit.estimators.estimator import Status
from bidsfit.estimators.linear import OrdinaryLogLinear, WeightedLogLinear
from bidsfit.information import cramer_rao_bound
from bidsfit.models.dti import ELEMENTS, tensors
from bidsfit.phantom.directions import spread_directions
from bidsfit.trust.companions import companions

DATA = Path(__file__).parents[3] / "shared" / "data"
DIRECTIONS = spread_directions(30)
ACQUISITION = Acquisition([0] * 4 + [1000] * 30, np.vstack([np.zeros((4, 3)), DIRECTIONS]))
DTI = models.get("dti")
METHODS = {"OLS": OrdinaryLogLinear, "WLS": WeightedLogLinear, "NLLS": LeastSquares}


def draw(n, rng):
    """Tensors of brain, shape (n, 3, 3), um^2/ms."""
    frames = np.linalg.qr(rng.standard_normal((n, 3, 3)))[0]
    values = np.sort(rng.uniform([1.2, 0.4, 0.2], [2.0, 0.9, 0.6], (n, 3)))
    return np.einsum("nij,nj,nkj->nik", frames, values, frames)


def parameters_of(matrices, s0=100.0):
    places = [(0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2)]
    return np.column_stack([np.full(len(matrices), s0), *(matrices[:, i, j] for i, j in places)])


def matrices_of(estimate):
    return tensors(np.column_stack([estimate.parameters[name] for name in DTI.names]))


@pytest.fixture(scope="module")
def noisy():
    rng = np.random.default_rng(0)
    clean = DTI.signal(parameters_of(draw(300, rng)), ACQUISITION)
    return np.hypot(clean + 2 * rng.standard_normal(clean.shape), 2 * rng.standard_normal(clean.shape))


def by_dipy(method, signals, acquisition):
    """Directions are of unit length, as bidsfit takes them: DIPY and MRtrix multiply b by the square of the length."""
    gradients = gradient_table(acquisition.b_values, bvecs=acquisition.variable("direction"))
    return TensorModel(gradients, fit_method=method).fit(signals)


def assert_agreement(estimator, estimate, theirs, inside):
    """To 1e-4, or to a thousandth of the standard deviation where that is more; angles to .001, or a hundredth.

    A descent ends where the sum of squares no longer falls, which is the earlier the larger the residuals are.
    """
    known = {"FA": theirs.fa, "MD": 1e3 * theirs.md, "AD": 1e3 * theirs.ad, "RD": 1e3 * theirs.rd}
    known |= dict(zip(ELEMENTS, parameters_of(1e3 * theirs.quadratic_form).T[1:], strict=True))
    spread = companions(estimator, estimate)["sd"]
    for name, values in known.items():
        off = np.abs(estimate.values[name] - values) / np.maximum(1e-4, 1e-3 * spread[name])
        assert off[inside].max() < 1, name
    cosines = np.abs(np.sum(estimate.derived["direction"] * theirs.evecs[..., 0], axis=1))
    angles = np.arccos(np.minimum(cosines, 1))
    assert (angles / np.maximum(1e-3, 1e-2 * spread["direction"]))[inside].max() < 1


@pytest.mark.parametrize("method", METHODS)
def test_it_agrees_with_dipy(noisy, method):
    estimator = METHODS[method](DTI)
    estimate = estimator.estimate(noisy, ACQUISITION)
    assert estimate.count() == {Status.CONVERGED: len(noisy)}
    assert_agreement(estimator, estimate, by_dipy(method, noisy, ACQUISITION), np.full(len(noisy), True))


def read(dataset):
    """The image and the acquisition of the measurements that the tensor describes."""
    root = DATA / dataset
    if not root.is_dir():
        pytest.skip(f"{dataset} is not beside the project, in shared/data")
    path = next(root.rglob("*_dwi.nii.gz"))
    stem = path.with_name(path.name.removesuffix(".nii.gz"))
    acquisition = Acquisition.from_files(stem.with_suffix(".bval"), stem.with_suffix(".bvec"))
    used = DTI.usable(acquisition)
    return np.asarray(nib.load(path).dataobj, dtype=float)[..., used], acquisition.select(used)


@pytest.mark.parametrize("method", ["WLS", "NLLS"])
@pytest.mark.parametrize("dataset", ["ds-brain-1shell", "ds-brain-2shell"])
def test_it_agrees_with_dipy_on_a_real_head(dataset, method):
    """Wherever the fit ended inside the bounds, and DIPY raised no eigenvalue to be positive."""
    data, acquisition = read(dataset)
    signals = data[(data > 0).all(axis=-1) & (data[..., 0] > np.percentile(data[..., 0], 80))][::8]
    estimator = METHODS[method](DTI)
    estimate = estimator.estimate(signals, acquisition)
    inside = estimate.status == Status.CONVERGED
    assert inside.sum() > 500
    assert_agreement(estimator, estimate, by_dipy(method, signals, acquisition), inside)


@pytest.mark.skipif(shutil.which("dwi2tensor") is None, reason="MRtrix is not installed")
@pytest.mark.parametrize(
    ("estimator", "words", "side"),
    [
        (WeightedLogLinear(DTI, iterations=2), ("-ols",), 1),
        (OrdinaryLogLinear(DTI), ("-ols", "-iter", "0"), -1),
    ],
    ids=["weighted, right-handed image", "ordinary, left-handed image"],
)
def test_it_agrees_with_mrtrix(noisy, estimator, words, side, tmp_path):
    """MRtrix writes directions in the axes of the scanner.

    Those of .bvec files are the axes of the image, with x turned where the determinant of the affine is positive.
    """
    turn = np.linalg.qr(np.random.default_rng(5).standard_normal((3, 3)))[0]
    turn *= side * np.sign(np.linalg.det(turn))
    nib.save(nib.Nifti1Image(noisy.reshape(10, 10, 3, -1), nib.affines.from_matvec(2 * turn)), tmp_path / "dwi.nii")
    np.savetxt(tmp_path / "bvec", ACQUISITION.directions.T)
    np.savetxt(tmp_path / "bval", ACQUISITION.b_values[None])
    metrics = ("-fa", "fa.nii", "-adc", "md.nii", "-ad", "ad.nii", "-rd", "rd.nii", "-vector", "v1.nii")
    for program in (
        ("dwi2tensor", "-fslgrad", "bvec", "bval", *words, "dwi.nii", "dt.nii"),
        ("tensor2metric", *metrics, "-modulate", "none", "dt.nii"),
    ):
        subprocess.run([*program, "-quiet", "-nthreads", "0"], cwd=tmp_path, check=True)
    estimate = estimator.estimate(noisy, ACQUISITION)
    for name, factor in {"FA": 1, "MD": 1e3, "AD": 1e3, "RD": 1e3}.items():
        theirs = factor * np.asarray(nib.load(tmp_path / f"{name.lower()}.nii").dataobj).ravel()
        assert np.abs(estimate.derived[name] - theirs).max() < 1e-4, name
    theirs = np.asarray(nib.load(tmp_path / "v1.nii").dataobj).reshape(-1, 3)
    ours = estimate.derived["direction"] * [-side, 1, 1] @ turn.T
    assert np.abs(np.sum(ours * theirs, axis=1)).min() > np.cos(np.radians(0.1))


def test_values_of_known_tensors():
    """Isotropic, linear and planar diffusion, and a tensor turned with the gradients."""
    known = parameters_of(np.array([np.diag(values) for values in [(1.1, 1.1, 1.1), (0, 2, 0), (1, 1, 0)]]))
    derived = DTI.derivation.values(known)
    assert derived["FA"] == pytest.approx([0, 1, np.sqrt(1 / 2)], abs=1e-15)
    assert derived["MD"] == pytest.approx([1.1, 2 / 3, 2 / 3])
    assert derived["AD"] == pytest.approx([1.1, 2, 1])
    assert derived["RD"] == pytest.approx([1.1, 0, 0.5])
    assert np.abs(derived["direction"][1]) == pytest.approx([0, 1, 0])
    turn = np.linalg.qr(np.random.default_rng(1).standard_normal((3, 3)))[0]
    turned = Acquisition(ACQUISITION.b_values, ACQUISITION.directions @ turn.T)
    there = LeastSquares(DTI).estimate(DTI.signal(known, ACQUISITION), turned)
    assert there.derived["FA"] == pytest.approx(derived["FA"], abs=1e-6)
    assert np.abs(there.derived["direction"][1] @ turn[:, 1]) == pytest.approx(1)


@pytest.mark.parametrize("make", METHODS.values())
def test_values_that_no_tissue_has_are_told(make):
    """A negative eigenvalue: with FA above 1, and with FA below; the values stay what the signals say."""
    given = np.array([np.diag(values) for values in [(1.0, 0.6, 0.3), (1.4, 0.05, 0.1), (1.4, 0.5, 0.6)]])
    given[1, 1, 2] = given[1, 2, 1] = 0.5
    given[2, 1, 2] = given[2, 2, 1] = 0.6
    estimate = make(DTI).estimate(DTI.signal(parameters_of(given), ACQUISITION), ACQUISITION)
    assert estimate.status.tolist() == [Status.CONVERGED, Status.IMPLAUSIBLE, Status.IMPLAUSIBLE]
    assert matrices_of(estimate) == pytest.approx(given, abs=1e-5)
    assert estimate.derived["FA"][1] > 1 > estimate.derived["FA"][2]


@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (LeastSquares, "gaussian"),
        (MaximumLikelihood, "rician"),
        (WeightedLogLinear, "gaussian"),
        (OrdinaryLogLinear, "gaussian"),
    ],
)
def test_its_spread_is_what_is_stated_derived_quantities_included(make, kind):
    """Over many noisy copies of one voxel: elements, FA, diffusivities, and the angle of the main direction.

    All but the ordinary linear fit reach the bound.
    """
    rng = np.random.default_rng(1)
    truth = parameters_of(draw(1, rng))
    clean = np.repeat(DTI.signal(truth, ACQUISITION), 4000, axis=0)
    noise = rng.standard_normal((2, *clean.shape))
    signals = clean + noise[0] if kind == "gaussian" else np.hypot(clean + noise[0], noise[1])
    estimator = make(DTI)
    estimate = estimator.estimate(signals, ACQUISITION, noise=1.0)
    stated = companions(estimator, estimate, 1.0, kind=kind)
    floor = cramer_rao_bound(DTI, truth, ACQUISITION, 1.0, kind)
    (main,) = DTI.derivation.values(truth)["direction"]
    angles = np.arccos(np.clip(np.abs(estimate.derived["direction"] @ main), 0, 1))
    spreads = {name: values.std() for name, values in estimate.values.items()}
    for name, spread in (spreads | {"direction": np.sqrt(np.mean(angles**2))}).items():
        assert np.median(stated["sd"][name]) == pytest.approx(spread, rel=0.05), name
        assert np.median(stated["crb"][name]) == pytest.approx(floor[name][0], rel=0.05), name
        assert spread > 0.95 * floor[name][0], name
        assert spread < (1.5 if make is OrdinaryLogLinear else 1.05) * floor[name][0], name


def test_the_app_writes_its_maps(blank_figures, app, tiny, masks, outputs, tmp_path):
    """From a BIDS dataset: the tensor of six volumes, FA, MD and the direction of three; a report that shows them."""
    shape = (*tiny.SHAPE, len(ACQUISITION))
    rng = np.random.default_rng(3)
    truth = parameters_of(draw(int(np.prod(tiny.SHAPE)), rng), 1000.0)
    data = DTI.signal(truth, ACQUISITION).reshape(shape) + 5 * rng.standard_normal(shape)
    tiny.add("sub-01/dwi/sub-01_dwi", ACQUISITION.b_values, data.astype(np.float32), bvec=False)
    tiny.write("sub-01/dwi/sub-01_dwi.bvec", "\n".join(" ".join(map(str, row)) for row in ACQUISITION.directions.T))
    masks.add_mask("sub-01/dwi/sub-01_desc-brain_mask")
    words = (tiny, tmp_path / "out", "participant", "--preprocess", "none", "-d", f"masks={masks}", "--nprocs", 1)
    assert app(*words, "--skip-bids-validation", "--model", "dti", "--estimators", "lsq", "wls").code == 0
    left = outputs(tmp_path / "out")
    fa = DTI.derivation.values(truth)["FA"].reshape(tiny.SHAPE)[1:, 1:]
    for estimator in ("lsq", "wls"):
        name = f"sub-01_model-dti_param-{{}}_desc-{estimator}_dwimap".format
        found, sd = (left.data(name(part))[1:, 1:] for part in ("fa", "fa_stat-sd"))
        assert np.abs((found - fa) / sd).mean() < 2
        assert left.data(name("direction")).shape == (*tiny.SHAPE, 3)
        assert left.sidecar(name("direction_stat-crb"))["Units"] == "rad"
        assert left.sidecar(name("direction"))["OrientationEncoding"]["Reference"] == "bvec"
        tensor, elements = left.data(name("tensor"))[1:, 1:], ("Dxx", "Dxy", "Dxz", "Dyy", "Dyz", "Dzz")
        true = np.stack([truth[:, DTI.names.index(one)].reshape(tiny.SHAPE) for one in elements], axis=-1)[1:, 1:]
        assert np.abs(tensor * 1e3 - true).max() < 0.1
        assert left.sidecar(name("tensor"))["OrientationEncoding"] == {
            "Type": "tensor", "TensorRank": 2, "EncodingAxis": 3, "Reference": "bvec",
        }  # fmt: skip
        assert not list(left.folder.rglob("*param-D*"))
        assert left.sidecar(name("md"))["Units"] == "mm^2/s"
    report = left.report()
    assert "Fractional anisotropy" in report
    assert "the weighted linear fit of the logarithm of its signals" in report
