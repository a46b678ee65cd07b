"""Linear fits of the logarithm of the signal, against the same fits by other hands."""

import shutil
import subprocess

import nibabel as nib
import numpy as np
import pytest

from bidsfit import Acquisition, LeastSquares, OrdinaryLogLinear, Status, WeightedLogLinear, companions, models
from bidsfit.phantom.directions import spread_directions

ADC = models.get("adc")
B_VALUES = np.repeat([0.0, 100, 400, 800, 1000], [2, 3, 3, 6, 12])
ACQUISITION = Acquisition(B_VALUES)


def noisy(n=500, snr=30.0, seed=0):
    rng = np.random.default_rng(seed)
    clean = ADC.signal({"S0": 1000.0, "D": rng.uniform(0.3, 2.5, n)}, ACQUISITION)
    return np.hypot(
        clean + 1000 / snr * rng.standard_normal(clean.shape), 1000 / snr * rng.standard_normal(clean.shape)
    )


def by_hand(signals, weights=None):
    """S0 and D of one voxel from all of its measurements."""
    x = np.column_stack([np.ones_like(B_VALUES), -B_VALUES * 1e-3])
    root = np.ones_like(B_VALUES) if weights is None else np.sqrt(weights)
    found = np.linalg.lstsq(x * root[:, None], np.log(signals) * root)[0]
    return np.exp(found[0]), found[1]


@pytest.mark.parametrize("averaging", ["geometric", "none"])
def test_every_measurement_counts_alike(averaging):
    signals = noisy()
    found = OrdinaryLogLinear(ADC, averaging=averaging).estimate(signals, ACQUISITION)
    expected = np.array([by_hand(row) for row in signals])
    np.testing.assert_allclose(found.parameters["S0"], expected[:, 0], rtol=1e-9)
    np.testing.assert_allclose(found.parameters["D"], expected[:, 1], rtol=1e-9)


@pytest.mark.parametrize("averaging", ["geometric", "none"])
def test_or_by_the_square_of_its_predicted_signal(averaging):
    signals = noisy()
    found = WeightedLogLinear(ADC, averaging=averaging).estimate(signals, ACQUISITION)
    for row, diffusivity in zip(signals, found.parameters["D"], strict=True):
        s0, first = by_hand(row)
        expected = by_hand(row, (s0 * np.exp(-B_VALUES * 1e-3 * first)) ** 2)[1]
        assert diffusivity == pytest.approx(expected, rel=1e-8)


@pytest.mark.skipif(shutil.which("dwi2adc") is None, reason="MRtrix is not installed")
def test_mrtrix_finds_the_same(tmp_path):
    signals = noisy().astype(np.float32)
    nib.save(nib.Nifti1Image(signals.reshape(10, 10, 5, -1), np.eye(4)), tmp_path / "dwi.nii")
    np.savetxt(tmp_path / "dwi.bval", B_VALUES[None], fmt="%g")
    directions = np.where(B_VALUES > 0, spread_directions(B_VALUES.size).T, 0)
    np.savetxt(tmp_path / "dwi.bvec", directions)
    gradients = ["-fslgrad", tmp_path / "dwi.bvec", tmp_path / "dwi.bval"]
    subprocess.run(["dwi2adc", tmp_path / "dwi.nii", tmp_path / "adc.nii", *gradients, "-quiet"], check=True)
    theirs = np.asarray(nib.load(tmp_path / "adc.nii").dataobj).reshape(-1, 2)
    found = OrdinaryLogLinear(ADC).estimate(signals, ACQUISITION)
    np.testing.assert_allclose(found.parameters["D"] * 1e-3, theirs[:, 1], rtol=1e-5)
    np.testing.assert_allclose(found.parameters["S0"], theirs[:, 0], rtol=1e-5)


@pytest.mark.parametrize("estimator", [OrdinaryLogLinear(ADC), WeightedLogLinear(ADC)])
def test_the_standard_deviation_is_that_of_many_realisations(estimator):
    rng = np.random.default_rng(3)
    clean = ADC.signal({"S0": 1000.0, "D": np.full(4000, 1.2)}, ACQUISITION)
    signals = clean + 20 * rng.standard_normal(clean.shape)
    found = estimator.estimate(signals, ACQUISITION, 20.0)
    stated = companions(estimator, found, 20.0)["sd"]
    for name in ("S0", "D"):
        assert np.median(stated[name]) == pytest.approx(found.parameters[name].std(), rel=0.05)
    alone = companions(estimator, estimator.estimate(signals, ACQUISITION))["sd"]["D"]  # noise from the residuals
    assert np.median(alone) == pytest.approx(found.parameters["D"].std(), rel=0.25)


def test_weights_lessen_the_scatter_to_that_of_least_squares():
    rng = np.random.default_rng(5)
    clean = ADC.signal({"S0": 1000.0, "D": np.full(4000, 2.0)}, ACQUISITION)
    signals = clean + 20 * rng.standard_normal(clean.shape)
    scatter = [
        make(ADC).estimate(signals, ACQUISITION).parameters["D"].std()
        for make in (OrdinaryLogLinear, WeightedLogLinear, LeastSquares)
    ]
    assert scatter[0] > 1.1 * scatter[1]
    assert scatter[1] == pytest.approx(scatter[2], rel=0.02)


def test_estimates_beyond_the_bounds_are_put_on_them():
    growing = np.exp(1e-4 * B_VALUES)[None] * 100
    found = WeightedLogLinear(ADC).estimate(growing, ACQUISITION)
    assert (found.parameters["D"][0], found.status[0]) == (0.0, Status.AT_BOUND)


def test_other_models_and_fixed_parameters_are_refused():
    for name in ("ivim", "smt2", "smt3"):
        assert not models.get(name).log_linear
    with pytest.raises(ValueError, match=r"'ivim' is none\. Take lsq"):
        OrdinaryLogLinear(models.get("ivim"))
    with pytest.raises(ValueError, match="cannot hold D; take lsq"):
        WeightedLogLinear(ADC, bounds={"D": (1.0, 1.0)})


def test_signals_of_no_model_end_no_fit():
    """Weights of a first fit that is far off may underflow: fits of other voxels must not be lost to that."""
    b = np.array([0, 0, *[1000] * 12])
    acquisition = Acquisition(b, np.vstack([np.zeros((2, 3)), spread_directions(12)]))
    signals = np.random.default_rng(0).choice([1e-4, 1.0, 1e3], (2000, len(b)))
    signals[0] = 100 * np.exp(-b * 1e-3)
    estimator = WeightedLogLinear(models.get("dti"))
    found = estimator.estimate(signals, acquisition, 1.0)
    assert found.parameters["Dzz"][0] == pytest.approx(1)
    stated = companions(estimator, found, 1.0)["sd"]
    assert np.isfinite(stated["MD"][0])
    assert not np.isnan(stated["Dxx"]).any()
