"""What is found out about an image before it is fitted."""

import json

import nibabel as nib
import numpy as np
import pytest

from bidsfit.exceptions import UnusableInputError
from bidsfit.interfaces.image import PrepareImage


@pytest.fixture
def prepare(tiny, masks, run_in):
    """``prepare(data, mask=True)``: outputs for these data, and the facts."""

    def run(data=None, mask=True, b_values=tiny.B_VALUES, **options):
        path = tiny.add("sub-01/dwi/sub-01_dwi", data=data, b_values=b_values)
        stem = str(path).removesuffix(".nii.gz")
        if mask:
            options["in_mask"] = str(masks.add_mask("sub-01/dwi/sub-01_desc-brain_mask"))
        interface = PrepareImage(in_file=str(path), bval=f"{stem}.bval", bvec=f"{stem}.bvec", models=["adc"], **options)
        outputs = run_in(interface)
        with open(outputs.facts) as file:
            return outputs, json.load(file)

    return run


def test_facts(prepare, tiny):
    outputs, facts = prepare()
    assert facts["shape"] == [5, 6, 3, 5]
    assert facts["voxel_size"] == [2, 2, 3]
    assert facts["n_voxels"] == 4 * 5 * 3
    assert facts["intensities"] == {"n_negative": 0, "n_not_finite": 0}
    np.testing.assert_allclose(nib.load(outputs.reference).get_fdata(), tiny.signals()[..., :2].mean(axis=-1))
    assert nib.load(outputs.mask).get_fdata().sum() == 60


def test_odd_intensities_are_counted_inside_the_mask(prepare, tiny):
    data = tiny.signals()
    data[0, 0, 0] = np.nan  # outside
    data[2, 2, 2, 3] = np.nan
    data[2, 2, 1, 3:] = -5
    data[2, 2, 0, 4] = np.inf
    assert prepare(data)[1]["intensities"] == {"n_negative": 2, "n_not_finite": 2}


@pytest.mark.parametrize("value", [0, np.nan])
def test_nothing_to_fit(prepare, tiny, value):
    with pytest.raises(UnusableInputError, match=r"sub-01_dwi\.nii\.gz holds only zeros or NaN"):
        prepare(np.full((*tiny.SHAPE, 5), value, dtype=np.float32))


def test_nothing_to_fit_inside_the_mask(prepare, tiny):
    data = tiny.signals()
    data[1:, 1:] = 0
    with pytest.raises(UnusableInputError, match="inside the mask"):
        prepare(data)


def test_a_mask_is_found_where_none_is_given(prepare):
    shape = (24, 24, 4)
    distance = np.linalg.norm(np.indices(shape[:2]) - 11.5, axis=0)[..., None] * np.ones(shape)
    head = distance < 8
    signal = np.where(head, 1000, 10)[..., None] * np.exp(-np.array([0, 0, 300, 600, 1000]) * 1e-3)
    outputs, _ = prepare(signal.astype(np.float32), mask=False)
    found = nib.load(outputs.mask).get_fdata() > 0
    assert 2 * np.sum(found & head) / (found.sum() + head.sum()) > 0.95


def test_no_mask_can_be_found(prepare):
    data = np.zeros((12, 12, 4, 5), dtype=np.float32)
    data[5, 5, 1] = 1000  # a single voxel, which the median filter removes
    with pytest.raises(UnusableInputError, match=r"have no contrast.*-d masks=PATH"):
        prepare(data, mask=False)


def test_noise_from_repeats(prepare, tiny):
    rng = np.random.default_rng(2)
    b_values = (0, 0, 0, 0, 300, 1000)
    data = tiny.signals(b_values) + rng.normal(0, 20, (*tiny.SHAPE, 6)).astype(np.float32)
    noise = prepare(data, b_values=b_values)[1]["noise"]
    assert noise["sigma"] == pytest.approx(20, rel=0.25)
    assert noise["snr"] == pytest.approx(1045 / noise["sigma"], rel=0.05)
    assert "4 at b = 0" in noise["method"]


def test_noise_from_residuals(prepare, tiny):
    rng = np.random.default_rng(2)
    b_values = (0, 200, 400, 600, 800, 1000)
    data = tiny.signals(b_values) + rng.normal(0, 20, (*tiny.SHAPE, 6)).astype(np.float32)
    noise = prepare(data, b_values=b_values)[1]["noise"]
    assert noise["sigma"] == pytest.approx(20, rel=0.25)
    assert "residuals of a least-squares fit of the model adc" in noise["method"]


def test_no_noise_where_nothing_is_left_over(prepare):
    """Two b-values, two parameters."""
    assert prepare(b_values=(0, 1000))[1]["noise"] == {}


def test_an_image_without_noise_has_no_snr(prepare):
    noise = prepare()[1]["noise"]
    assert (noise["sigma"], noise["snr"]) == (0, None)


# --- where the noise level comes from -------------------------------------------------------------------------------


@pytest.fixture
def noisy(tiny):
    """An image with repeats at b = 0 and beyond, sigma 20."""
    rng = np.random.default_rng(3)
    b_values = (0, 0, 0, 0, 200, 400, 600, 800, *[1000] * 6)
    return b_values, (tiny.signals(b_values) + rng.normal(0, 20, (*tiny.SHAPE, 14))).astype(np.float32)


@pytest.mark.parametrize(
    ("source", "expected", "words"),
    [
        ("b0", 20, "(1 group, the largest 4 at b = 0 s/mm²)"),
        ("repeats", 20, "(4 groups, the largest 4 at b = 0 s/mm²)"),
        ("residuals", 20, "residuals of a least-squares fit of the model adc"),
        ("12.5", 12.5, "given"),
    ],
)
def test_the_noise_comes_from_where_it_was_asked_for(prepare, noisy, source, expected, words):
    b_values, data = noisy
    noise = prepare(data, b_values=b_values, sigma=source)[1]["noise"]
    assert noise["sigma"] == pytest.approx(expected, rel=0.25)
    assert words in noise["method"]
    assert noise["kind"] == "rician"


@pytest.mark.parametrize(
    ("source", "b_values", "message"),
    [
        ("repeats", (0, 200, 400, 1000), "no measurement .* was repeated"),
        ("b0", (0, 200, 400, 1000), "it has fewer than two images at b = 0"),
        ("residuals", (0, 1000), "no model leaves residuals"),
    ],
)
def test_a_source_that_is_not_there_is_named(prepare, source, b_values, message):
    with pytest.raises(UnusableInputError, match=rf"--sigma {source} cannot find the noise level, for {message}"):
        prepare(b_values=b_values, sigma=source)


def test_a_noise_map_is_taken_as_it_is(prepare, tiny, tmp_path):
    path = tmp_path / "noise.nii.gz"
    levels = np.linspace(10, 30, 90, dtype=np.float32).reshape(tiny.SHAPE)
    nib.save(nib.Nifti1Image(levels, tiny.AFFINE), path)
    outputs, facts = prepare(sigma="map", in_noise=str(path))
    mask = nib.load(outputs.mask).get_fdata() > 0
    found = nib.load(outputs.noise_map).get_fdata()
    np.testing.assert_allclose(found[mask], levels[mask])
    assert facts["noise"]["sigma"] == pytest.approx(np.median(levels[mask]))
    assert "noise map noise.nii.gz" in facts["noise"]["method"]


def test_a_noise_map_of_another_grid_is_refused(prepare, tmp_path):
    path = tmp_path / "noise.nii.gz"
    nib.save(nib.Nifti1Image(np.ones((2, 2, 2), dtype=np.float32), np.eye(4)), path)
    with pytest.raises(UnusableInputError, match=r"noise map .* has shape"):
        prepare(sigma="map", in_noise=str(path))


def test_mppca_finds_the_noise(run_in, tmp_path):
    """Its patches need more room than the tiny image has."""
    rng = np.random.default_rng(5)
    b_values = np.repeat([0, 250, 500, 750, 1000], 6)
    level = 1000 + 200 * np.sin(np.arange(14))[:, None, None] * np.ones((14, 14, 8))
    data = level[..., None] * np.exp(-b_values * 1e-3) + rng.normal(0, 20, (14, 14, 8, 30))
    for suffix, array in (("image", data), ("mask", np.ones((14, 14, 8)))):
        nib.save(nib.Nifti1Image(array.astype(np.float32), np.eye(4)), tmp_path / f"{suffix}.nii.gz")
    np.savetxt(tmp_path / "image.bval", b_values[None])
    interface = PrepareImage(
        in_file=str(tmp_path / "image.nii.gz"),
        bval=str(tmp_path / "image.bval"),
        in_mask=str(tmp_path / "mask.nii.gz"),
        sigma="mppca",
    )
    outputs = run_in(interface)
    with open(outputs.facts) as file:
        assert json.load(file)["noise"]["sigma"] == pytest.approx(20, rel=0.1)
    assert np.median(nib.load(outputs.noise_map).get_fdata()) == pytest.approx(20, rel=0.1)


@pytest.mark.parametrize("scratch", ["", "scratch"])
def test_truncated(prepare, tiny, tmp_path, scratch, monkeypatch):
    path = tiny.add("sub-01/dwi/sub-01_dwi", data=np.random.default_rng(0).random((*tiny.SHAPE, 5)))
    cut = path.read_bytes()[:-2000]
    monkeypatch.setattr(type(tiny), "add", lambda *_, **__: (path.write_bytes(cut), path)[1])
    with pytest.raises(UnusableInputError, match=rf"{path} cannot be read to its end"):
        prepare(scratch=scratch and str(tmp_path / scratch))
