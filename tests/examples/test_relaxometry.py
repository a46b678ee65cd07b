"""Models that know no diffusion, from arrays to a page: inversion recovery and fingerprints."""

import json

import nibabel as nib
import numpy as np
import pytest

from bidsfit import Acquisition, LeastSquares, MaximumLikelihood, Status, models
from bidsfit.cli.lab import main
from bidsfit.information import cramer_rao_bound
from bidsfit.trained.network import Network
from bidsfit.trust.companions import companions

TIMES = Acquisition(TI=[30, 100, 200, 400, 800, 1500, 3000, 6000])
N = 60
TRAIN = Acquisition(
    flip_angle=5 + 55 * np.abs(np.sin(np.pi * np.arange(N) / 30)), TR=12 + np.cos(np.arange(N) / 7), TE=[2.0] * N,
    TI=[20.0] * N,
)  # fmt: skip


@pytest.fixture
def recovery():
    return models.get("t1ir")


def in_table(path, acquisition):
    rows = np.column_stack(list(acquisition.columns.values()))
    np.savetxt(path, rows, delimiter="\t", header="\t".join(acquisition.columns), comments="")
    return path


TRUTH = {"S0": 1000.0, "T1": 1200.0, "inversion": 0.93}


class TestInversionRecovery:
    @pytest.mark.parametrize(("make", "kind"), [(LeastSquares, "gaussian"), (MaximumLikelihood, "rician")])
    def test_estimators_reach_the_bound(self, recovery, make, kind):
        """Signals pass through zero, and are magnitudes: no voxel is without signal."""
        clean = recovery.signal(TRUTH, TIMES)
        noise = 5 * np.random.default_rng(0).standard_normal((2, 4000, len(TIMES)))
        signals = clean + noise[0] if kind == "gaussian" else np.hypot(clean + noise[0], noise[1])
        estimator = make(recovery)
        estimate = estimator.estimate(signals, TIMES, noise=5.0)
        floor = cramer_rao_bound(recovery, TRUTH, TIMES, 5.0, kind)
        stated = companions(estimator, estimate, 5.0, kind=kind)
        assert set(estimate.count()) <= {Status.CONVERGED, Status.AT_BOUND}
        for name, value in TRUTH.items():
            assert estimate.parameters[name].mean() == pytest.approx(value, rel=3e-3)
            assert estimate.parameters[name].std() == pytest.approx(floor[name], rel=0.05)
            assert np.median(stated["crb"][name]) == pytest.approx(floor[name], rel=0.05)

    def test_b_values_are_not_asked_for_and_times_are(self, recovery):
        assert recovery.support(TIMES).used == "TI = 30, 100, 200, 400, 800, 1500, 3000, 6000 ms"
        (missing,) = recovery.support(Acquisition([0, 1000])).missing
        assert missing.startswith("4 different inversion times")
        assert missing.endswith("the protocol has none")

    def test_a_network_learns_it(self, recovery, quickly_trained):
        bounds = {"T1": (300.0, 3000.0)}
        bundle = quickly_trained(recovery, TIMES, 100.0, "rician", bounds)
        estimator = Network(recovery, snr=100.0, bounds=bounds, trained=bundle)
        t1 = np.linspace(500, 2500, 200)
        estimate = estimator.estimate(recovery.signal(TRUTH | {"T1": t1}, TIMES), TIMES)
        assert np.sqrt(np.mean((estimate.parameters["T1"] / t1 - 1) ** 2)) < 0.15

    def test_maps_and_a_page_come_from_arrays(self, recovery, tmp_path, capsys):
        """`bidsfit-lab fit`, of an image and a table."""
        rng = np.random.default_rng(0)
        t1 = np.linspace(600, 2400, 48).reshape(8, 6, 1)
        clean = recovery.signal(TRUTH | {"T1": t1}, TIMES)
        data = np.hypot(clean + 5 * rng.standard_normal(clean.shape), 5 * rng.standard_normal(clean.shape))
        nib.save(nib.Nifti1Image(data.astype(np.float32), np.diag([2, 2, 3, 1.0])), tmp_path / "image.nii.gz")
        table = in_table(tmp_path / "table.tsv", TIMES)
        words = ["fit", str(tmp_path / "image.nii.gz"), "--model", "t1ir", "--table", str(table)]
        words += ["--sigma", "5", "--threads", "1", "--out", str(tmp_path / "out")]
        assert main([*words, "--estimators", "lsq", "mle"]) == 0
        for estimator in ("lsq", "mle"):
            names = [f"image_model-t1ir_param-T1{part}_desc-{estimator}_map" for part in ("", "_stat-sd")]
            found, sd = (np.asarray(nib.load(tmp_path / "out" / f"{name}.nii.gz").dataobj) for name in names)
            assert np.abs((found - 1e-3 * t1) / sd).mean() < 1.2
            assert json.loads((tmp_path / "out" / f"{names[0]}.json").read_text())["Units"] == "s"
            (drawn,) = (tmp_path / "out").glob(f"*desc-{estimator}_maps.png")
            assert drawn.name == f"image_model-t1ir_desc-{estimator}_maps.png"
        page = (tmp_path / "out" / "report.html").read_text()
        assert "The scale of the signal was fitted" in page
        assert "TI = 30 (x1)" in page
        assert main(words) == 73  # what is there is not written over
        words[words.index(str(tmp_path / "out"))] = str(tmp_path / "refused")
        assert main([*words, "--estimators", "lsq", "segmented"]) == 64
        assert not (tmp_path / "refused").exists()  # the first is not fitted where the second cannot be
        assert "is there already" in capsys.readouterr().err


def test_a_network_learns_coefficients_of_any_phase(quickly_trained):
    model = models.get("mrffisp")
    coefficients = Acquisition(frames=TRAIN, basis=model.temporal_basis(TRAIN, 6))
    bounds = {"T1": (500.0, 2000.0), "T2": (40.0, 200.0)}
    bundle = quickly_trained(model, coefficients, 100.0, bounds=bounds)
    estimator = Network(model, snr=100.0, noise="gaussian", bounds=bounds, trained=bundle)
    t1 = np.linspace(700, 1700, 60)
    phase = np.linspace(-3, 3, 60)
    clean = model.signal({"S0": 50.0, "T1": t1, "T2": 90.0, "phase": phase, "B1": 1.0}, coefficients)
    estimate = estimator.estimate(clean, coefficients, noise=0.5)
    assert np.sqrt(np.mean((estimate.parameters["T1"] / t1 - 1) ** 2)) < 0.1
    assert estimate.parameters["S0"] == pytest.approx(50, rel=0.2)
    assert estimate.parameters["phase"] == pytest.approx(phase, abs=0.2)
    other = Acquisition(frames=coefficients.frames, basis=coefficients.basis[:, ::-1])
    assert estimator.missing(other) == ["it was trained for other combinations of frames (another basis)"]


@pytest.mark.slow
def test_complex_images_become_maps(self, fisp, tmp_path):
    t2 = np.linspace(50, 150, 6).reshape(3, 2, 1)
    data = models.get("mrffisp").signal({"S0": 100.0, "T1": 1000.0, "T2": t2, "phase": 0.5, "B1": 1.0}, TRAIN)
    nib.save(nib.Nifti1Image(data.astype(np.complex64), np.eye(4)), tmp_path / "image.nii.gz")
    table = in_table(tmp_path / "table.tsv", TRAIN)
    words = ["fit", str(tmp_path / "image.nii.gz"), "--model", "mrffisp", "--table", str(table), "--threads", "1"]
    assert main([*words, "--out", str(tmp_path / "out")]) == 0
    found = np.asarray(nib.load(tmp_path / "out" / "image_model-mrffisp_param-T2_desc-lsq_map.nii.gz").dataobj)
    assert found == pytest.approx(1e-3 * t2, rel=1e-3)
