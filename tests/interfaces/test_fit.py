"""The node that fits: every voxel of the mask, and only those, whatever its signal."""

import json
import tempfile
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from bidsfit import models
from bidsfit.acquisition import Acquisition
from bidsfit.bids.inputs import find_images, open_dataset
from bidsfit.estimators.estimator import Status
from bidsfit.exceptions import UnusableInputError
from bidsfit.fitting import FitResult
from bidsfit.information import cramer_rao_bound
from bidsfit.interfaces.fit import FitImage


@pytest.fixture
def fit(tiny, masks, run_in, tmp_path, blank_figures):
    """``fit(data)``: maps by key in the units of the numerics, and the numbers of the fit."""
    facts = tmp_path / "facts.json"

    def run(data=None, noise=None, **options):
        facts.write_text(json.dumps({"noise": noise or {}}))
        tiny.add("sub-01/dwi/sub-01_dwi", data=data)
        mask = masks.add_mask("sub-01/dwi/sub-01_desc-brain_mask")
        derivatives = [open_dataset(masks.root, "masks", derivative=True)]
        (image,) = find_images(open_dataset(tiny.root, "raw"), derivatives, ["01"]).images
        (tmp_path / "out").mkdir(exist_ok=True)
        outputs = run_in(
            FitImage(
                in_file=str(image.path),
                bval=str(image.bval),
                bvec=str(image.bvec),
                mask=str(mask),
                facts=str(facts),
                image=image.to_dict(),
                mask_name=image.mask_uri,
                methods=["", ""],
                output_dir=str(tempfile.mkdtemp(dir=tmp_path / "out")),
                model="adc",
                **{"estimator": "lsq", "options": {}} | options,
            )
        )
        result = FitResult.load(Path(outputs.result))
        return {key: result.volume(key, INSIDE) for key in result.values}, result.numbers

    return run


INSIDE = np.ones((5, 6, 3), dtype=bool)
INSIDE[0], INSIDE[:, 0] = False, False


def test_right_in_the_mask_and_zero_outside(fit, tiny):
    maps, numbers = fit()
    np.testing.assert_allclose(maps["D"][INSIDE], 1, rtol=1e-4)
    np.testing.assert_allclose(maps["S0"][INSIDE], tiny.signals()[..., 0][INSIDE], rtol=1e-4)
    for values in maps.values():
        assert np.all(values[~INSIDE] == 0)
    assert np.all(maps["status"][INSIDE] == Status.CONVERGED)
    assert numbers.n_voxels == INSIDE.sum()
    assert numbers.columns == {"b": [0, 300, 600, 1000]}


@pytest.mark.filterwarnings("ignore:invalid value")
def test_a_voxel_that_cannot_be_fitted_harms_no_other(fit, tiny):
    data = tiny.signals()
    data[2, 2, 0, 3] = np.nan
    data[2, 2, 1, 0] = np.inf
    data[2, 2, 2] = 0
    maps, numbers = fit(data)
    assert maps["status"][2, 2].tolist() == [Status.NOT_FINITE, Status.NOT_FINITE, Status.NO_SIGNAL]
    for name in ("S0", "D", "rmse", "r2"):
        assert np.all(np.isnan(maps[name][2, 2]))
    good = INSIDE.copy()
    good[2, 2] = False
    np.testing.assert_allclose(maps["D"][good], 1, rtol=1e-4)
    assert numbers.status == {1: int(good.sum()), 4: 2, 5: 1}


def test_negative_intensities_are_measurements(fit, tiny):
    """Noise about zero: they are kept, and pull the fit down as they should."""
    data = tiny.signals()
    data[..., 4] = -1
    maps, _ = fit(data)
    assert np.all(np.isin(maps["status"][INSIDE], (Status.CONVERGED, Status.AT_BOUND)))
    assert np.all(maps["D"][INSIDE] > 1)


def test_a_geometric_mean_needs_positive_signals(fit, tiny):
    data = tiny.signals()
    data[2, 2, 2, 4] = -1
    maps, _ = fit(data, options={"averaging": "geometric"})
    assert maps["status"][2, 2, 2] == Status.NOT_FINITE


def test_a_volume_of_nan(fit, tiny):
    """Maps of nothing but NaN would be no result."""
    data = tiny.signals()
    data[..., 3] = np.nan
    with pytest.raises(UnusableInputError, match=r"sub-01_dwi\.nii\.gz: no voxel .* could be fitted"):
        fit(data)


@pytest.mark.parametrize("dtype", [np.int16, np.float64])
def test_types_of_images(fit, tiny, dtype):
    maps, _ = fit((tiny.signals() * 10).astype(dtype))
    np.testing.assert_allclose(maps["D"][INSIDE], 1, rtol=1e-3)


def test_a_mapped_copy_gives_the_same_maps(fit, tmp_path):
    expected, _ = fit()
    found, _ = fit(scratch=str(tmp_path / "scratch"))
    for name in expected:
        np.testing.assert_array_equal(found[name], expected[name])
    assert len(list((tmp_path / "scratch").iterdir())) == 1


def test_curves_are_representative_voxels(fit):
    """Each with what was measured and what was fitted, from b = 0 on."""
    _, numbers = fit()
    assert 1 <= len(numbers.curves) <= 4
    for curve in numbers.curves:
        assert curve.x == [0, 300, 600, 1000]
        assert curve.x_label == "b (s/mm²)"
        assert curve.counts == [2, 1, 1, 1]
        assert curve.fitted_x[0] == 0
        np.testing.assert_allclose(curve.predicted, curve.signal, rtol=1e-3)
        np.testing.assert_allclose(curve.signal[0], curve.fitted[0], rtol=1e-3)


# --- uncertainty ----------------------------------------------------------------------------------------------------


def bound(tiny, sigma, kind="gaussian"):
    acquisition = Acquisition(tiny.B_VALUES)
    truth = {"S0": tiny.signals()[..., 0][INSIDE], "D": 1.0}
    return cramer_rao_bound(models.get("adc"), truth, acquisition, sigma, kind)["D"]


@pytest.mark.parametrize("kind", ["gaussian", "rician"])
def test_bound_and_standard_deviation_of_a_known_noise(fit, tiny, kind):
    maps, numbers = fit(noise={"sigma": 300, "method": "given"}, noise_kind=kind)
    np.testing.assert_allclose(maps["D_crb"][INSIDE], bound(tiny, 300, kind), rtol=1e-3)
    np.testing.assert_allclose(maps["D_sd"][INSIDE], bound(tiny, 300), rtol=1e-3)
    assert numbers.noise == {"sigma": 300, "method": "given"}


def test_bound_of_a_noise_map(fit, tiny, tmp_path):
    levels = np.where(np.arange(3) == 1, 40.0, 20.0) * np.ones(INSIDE.shape)
    path = tmp_path / "noise.nii.gz"
    nib.save(nib.Nifti1Image(levels.astype(np.float32), tiny.AFFINE), path)
    maps, _ = fit(noise={"sigma": 20, "method": "map"}, noise_map=str(path), noise_kind="gaussian")
    np.testing.assert_allclose(maps["D_crb"][INSIDE], bound(tiny, levels[INSIDE]), rtol=1e-3)


def test_an_estimator_that_needs_the_noise_says_so_where_it_is_not_known(fit):
    with pytest.raises(UnusableInputError, match=r"mle needs the noise level.*--sigma"):
        fit(estimator="mle")


def test_voxels_without_a_noise_level_are_not_fitted_by_those_who_need_it(fit, tiny, tmp_path):
    levels = np.full(INSIDE.shape, 20.0)
    levels[2, 2, 1] = 0
    path = tmp_path / "noise.nii.gz"
    nib.save(nib.Nifti1Image(levels.astype(np.float32), tiny.AFFINE), path)
    maps, _ = fit(noise={"sigma": 20, "method": "map"}, noise_map=str(path), estimator="mle")
    assert maps["status"][2, 2, 1] == Status.NO_NOISE
    assert np.isnan(maps["D"][2, 2, 1])
    assert np.isfinite(maps["D"][2, 2, 2])
