"""What outputs are called, what their sidecars say, and that nothing is mixed or overwritten."""

import json
import re
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from bidsfit import estimators, models
from bidsfit.bids.distributions import KINDS
from bidsfit.bids.images import write_nifti
from bidsfit.bids.inputs import Dataset, InputImage
from bidsfit.bids.outputs import (
    BIDSIGNORE,
    file_output,
    fit_settings,
    map_outputs,
    prepare_dataset,
    quality_quantities,
    sidecar,
    sources_of,
    table,
)
from bidsfit.bids.units import FILE_UNITS, REPORT_UNITS
from bidsfit.estimators.estimator import Status, estimator_label
from bidsfit.estimators.least_squares import LeastSquares
from bidsfit.estimators.segmented import Segmented
from bidsfit.exceptions import UsageError
from bidsfit.fitting import FitNumbers
from bidsfit.trained.network import Network
from bidsfit.trust import companions

IVIM = models.get("ivim")
NOISE = {"NoiseKind": "rician", "NoiseLevel": "auto"}
ESTIMATION = {"EstimationAlgorithm": "Least squares", "EstimationReference": "doi:10.1"}


STEM = "sub-01/ses-1/dwi/sub-01_ses-1_acq-ap"
IMAGE = InputImage(
    path=Path(f"/data/{STEM}_dwi.nii.gz"),
    bval=Path(f"/data/{STEM}_dwi.bval"),
    bvec=None,
    sidecar={},
    entities={"subject": "01", "session": "1", "acquisition": "ap"},
    uri=f"bids:raw:{STEM}_dwi.nii.gz",
    preprocessed=False,
    mask=Path("/masks/mask.nii.gz"),
    mask_uri="bids:masks:mask.nii.gz",
)


@pytest.fixture
def image():
    return IMAGE


def sidecar_of(image, name, **options):
    estimator = LeastSquares(IVIM, **options)
    settings = fit_settings(IVIM, estimator, image.mask_uri, NOISE)
    noise = {"sigma": 20.1234567, "method": "scatter of repeats"}
    numbers = FitNumbers(9, 1, 1.0, {"b": [0, 10.004, 800]}, [], {}, None, noise=noise)
    output = map_outputs(image, IVIM, estimator)[name]
    return sidecar(output, IVIM, settings, numbers, sources_of(image), ESTIMATION)


# --- names and sidecars ---------------------------------------------------------------------------------------------


def test_names_of_maps(image):
    outputs = map_outputs(image, IVIM, LeastSquares(IVIM))
    stem = "sub-01/ses-1/dwi/sub-01_ses-1_acq-ap_model-ivim_param-"
    labels = {"S0": "S0", "f": "f", "D": "D", "Dstar": "Dstar", "rmse": "rmse", "r2": "r2", "status": "status"}
    labels |= {f"{p}_{s}": f"{p}_stat-{s}" for p in ("S0", "f", "D", "Dstar") for s in ("sd", "q025", "q975", "crb")}
    expected = {key: f"{stem}{label}_desc-lsq_dwimap.nii.gz" for key, label in labels.items()}
    assert {key: str(output.path) for key, output in outputs.items()} == expected
    assert {o.quantity.key for o in outputs.values() if o.statistic} == {"sd", "q025", "q975", "crb"}


def test_an_estimator_without_standard_deviations_has_the_bound(image):
    assert [key for key in map_outputs(image, IVIM, Segmented(IVIM)) if key.startswith("D_")] == ["D_crb"]


def test_name_of_a_found_mask(image):
    assert str(file_output("mask", image)) == "sub-01/ses-1/dwi/sub-01_ses-1_acq-ap_desc-brain_mask.nii.gz"


def test_every_map_is_declared_with_unit_and_text():
    quantities = [*quality_quantities(), *(companions.get(name).quantity for name in companions.available())]
    assert all(quantity.title and quantity.description for quantity in quantities)
    assert {quantity.unit for quantity in quantities} <= {None, *FILE_UNITS}
    units = {parameter.unit for name in models.available() for parameter in models.get(name).parameters}
    assert units <= set(FILE_UNITS)
    assert set(FILE_UNITS) == set(REPORT_UNITS)


@pytest.mark.parametrize(
    ("name", "unit", "factor"),
    [
        ("S0", "arbitrary", 1),
        ("f", "1", 1),
        ("D", "mm^2/s", 1e-3),
        ("Dstar", "mm^2/s", 1e-3),
        ("Dstar_crb", "mm^2/s", 1e-3),
        ("r2", "1", 1),
        ("status", "1", 1),
    ],
)
def test_units_of_files(image, name, unit, factor):
    output = map_outputs(image, IVIM, LeastSquares(IVIM))[name]
    assert output.file_unit == (unit, factor)
    assert sidecar_of(image, name)["Units"] == unit


def test_sidecar_says_what_and_how(image):
    content = sidecar_of(image, "Dstar", bounds={"Dstar": (5.0, 100.0), "D": (0.0, np.inf)}, averaging="geometric")
    assert "Pseudo-diffusion" in content["Description"]
    assert set(content["Model"]) == {"Description", "Equation", "URL", "Parameters"}
    parameters = content["Model"]["Parameters"]
    assert (parameters["FitMethod"], parameters["Estimator"]) == ("nlls", "lsq")
    assert "EstimationSoftware" not in content
    assert {key: content[key] for key in ESTIMATION} == ESTIMATION
    assert parameters["Averaging"] == "geometric"
    assert parameters["Bounds"] == {"f": [0, 1], "D": [0, None], "Dstar": [0.005, 0.1]}  # mm^2/s
    assert parameters["MaximumBValue"] == 1000
    assert (parameters["NoiseKind"], parameters["NoiseLevel"]) == ("rician", "auto")
    assert content["Noise"]["StandardDeviation"] == 20.1235
    assert "scatter of repeats" in content["Noise"]["Description"]
    assert parameters["Mask"] == "bids:masks:mask.nii.gz"
    assert content["BValuesFitted"] == [0, 10, 800]
    assert content["Sources"] == [image.uri, "bids:masks:mask.nii.gz"]
    assert content["SpatialReference"] == image.uri
    assert content["NonNegativity"] == "constrained"
    assert content["SkullStripped"] is True
    assert content["ParameterURL"].startswith("https://")
    json.dumps(content, allow_nan=False)


@pytest.mark.parametrize(
    ("name", "method"), [("lsq", "nlls"), ("ols", "ols"), ("wls", "wls"), ("mle", None), ("segmented", None)]
)
def test_the_fit_method_is_one_of_bep016(name, method):
    model = models.get("adc" if name.endswith("ls") else "ivim")
    settings = fit_settings(model, estimators.get(name)(model), "mask")
    assert (settings.get("FitMethod"), settings["Estimator"]) == (method, name)


def test_sidecar_of_a_statistic_says_of_what(image):
    content = sidecar_of(image, "Dstar_crb")
    assert content["StatisticOf"] == "Dstar"
    assert "Infinite where the data do not determine" in content["Description"]
    assert "NonNegativity" not in content


def test_sidecar_of_an_interval_says_how_it_was_found(image):
    content = sidecar_of(image, "Dstar_q025", intervals="profile")
    assert content["Interval"] == {"Method": "profile", "Level": 0.95}  # the noise level was given
    assert "Interval" not in sidecar_of(image, "Dstar_sd")


def test_status_sidecar_names_the_codes(image):
    levels = sidecar_of(image, "status")["Levels"]
    assert {int(code) for code in levels} == set(Status)
    assert "NaN" in levels[str(Status.NOT_FINITE.value)]


# --- images ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("qcode", "scode"), [(1, 1), (1, 0), (0, 2), (0, 0)])
def test_geometry_is_that_of_the_image(tmp_path, qcode, scode):
    turned = nib.affines.from_matvec(nib.eulerangles.euler2mat(0.1, 0.2, 0.3) @ np.diag([2, 2.5, 4]), [10, -20, 5])
    source = nib.Nifti1Image(np.zeros((4, 5, 3, 2)), turned)
    source.set_qform(turned, code=qcode)
    source.set_sform(turned if scode else None, code=scode)
    nib.save(source, tmp_path / "source.nii.gz")
    source = nib.load(tmp_path / "source.nii.gz")
    write_nifti(tmp_path / "map.nii.gz", np.ones((4, 5, 3)), source)
    written = nib.load(tmp_path / "map.nii.gz")
    np.testing.assert_allclose(written.affine, source.affine, atol=1e-5)
    assert [int(written.header[f"{form}_code"]) for form in ("qform", "sform")] == [qcode, scode]
    np.testing.assert_allclose(written.header.get_zooms(), source.header.get_zooms()[:3], rtol=1e-5)
    assert written.get_data_dtype() == np.float32
    assert written.header.get_xyzt_units()[0] == "mm"


def test_big_endian_sources_give_maps_that_are_right(tmp_path):
    source = nib.Nifti1Image(np.zeros((2, 2, 2), dtype=">f4"), np.diag([2, 2, 3, 1]), nib.Nifti1Header(endianness=">"))
    data = np.arange(8.0).reshape(2, 2, 2)
    write_nifti(tmp_path / "map.nii.gz", data, source)
    np.testing.assert_array_equal(nib.load(tmp_path / "map.nii.gz").get_fdata(), data)


def test_labels_are_whole_numbers(tmp_path):
    write_nifti(
        tmp_path / "mask.nii.gz", np.ones((2, 2, 2), dtype=bool), nib.Nifti1Image(np.zeros((2, 2, 2)), np.eye(4))
    )
    assert nib.load(tmp_path / "mask.nii.gz").get_data_dtype() == np.uint8


# --- the dataset ----------------------------------------------------------------------------------------------------


def dataset(name, root, derivative=False):
    return Dataset(name, root, derivative=derivative)


def description(folder):
    return json.loads((folder / "dataset_description.json").read_text())


def test_description(tmp_path):
    prepare_dataset(tmp_path / "out", dataset("raw", tmp_path / "ds"), [dataset("masks", tmp_path / "my masks", True)])
    content = description(tmp_path / "out")
    assert content["DatasetType"] == "derivative"
    assert content["GeneratedBy"][0]["Name"] == "bidsfit"
    assert set(content["GeneratedBy"][0]) >= {"Version", "CodeURL"}
    links = {"raw": f"file://{tmp_path}/ds", "masks": f"file://{tmp_path}/my%20masks"}
    assert content["DatasetLinks"] == links
    assert content["SourceDatasets"] == [{"URL": links["raw"]}]
    assert (tmp_path / "out" / "README").exists()
    assert set((tmp_path / "out" / ".bidsignore").read_text().split()) == set(BIDSIGNORE)


def test_links_are_relative_inside_the_input(tmp_path):
    """So that a dataset and its derivatives can be moved together."""
    root = tmp_path / "ds"
    others = [dataset("truth", root / "derivatives" / "truth", True), dataset("far", tmp_path / "far", True)]
    prepare_dataset(root / "derivatives" / "bidsfit", dataset("raw", root), others)
    links = description(root / "derivatives" / "bidsfit")["DatasetLinks"]
    assert links == {"raw": "../..", "truth": "../truth", "far": f"file://{tmp_path}/far"}


def test_container(tmp_path, monkeypatch):
    monkeypatch.setenv("BIDSFIT_CONTAINER_TAG", "bidsfit:0.1")
    prepare_dataset(tmp_path / "out", dataset("raw", tmp_path / "ds"), [])
    assert description(tmp_path / "out")["GeneratedBy"][0]["Container"] == {"Type": "docker", "Tag": "bidsfit:0.1"}


def test_a_later_run_adds_to_the_description(tmp_path):
    out = tmp_path / "out"
    raw = dataset("raw", tmp_path / "ds")
    prepare_dataset(out, raw, [dataset("a", tmp_path / "a", True)])
    (out / "README").write_text("mine")
    (out / ".bidsignore").write_text("mine\n")
    prepare_dataset(out, raw, [dataset("b", tmp_path / "b", True)])
    assert set(description(out)["DatasetLinks"]) == {"raw", "a", "b"}
    assert (out / "README").read_text() == "mine"
    assert set((out / ".bidsignore").read_text().split()) == {"mine", *BIDSIGNORE}


def test_an_identical_run_writes_nothing(tmp_path, unchanged):
    out = tmp_path / "out"
    raw = dataset("raw", tmp_path / "ds")
    prepare_dataset(out, raw, [], [LeastSquares(IVIM)])
    with unchanged(out):
        prepare_dataset(out, raw, [], [LeastSquares(IVIM)])


def test_labels_of_desc_are_explained(tmp_path):
    """Those of earlier runs stay, and the order of the runs leaves no trace."""
    raw, tables = dataset("raw", tmp_path / "ds"), []
    for order in (1, -1):
        folder = tmp_path / f"out{order}"
        for estimator in [LeastSquares(IVIM), Network(IVIM)][::order]:
            prepare_dataset(folder, raw, [], [estimator])
        tables.append((folder / "descriptions.tsv").read_text())
    assert tables[0] == tables[1]
    rows = dict(line.split("\t") for line in tables[0].splitlines())
    assert rows["desc_id"] == "description"
    assert rows["desc-lsq"] == "Estimated by lsq: Bounded non-linear least squares (Levenberg-Marquardt)"
    assert "Neural network" in rows["desc-netprior"]
    named = {file_output(key, IMAGE).name for key in table()["files"]}
    used = {label for name in named for label in re.findall(r"desc-\w+?(?=_)", name)}
    assert used | {f"desc-{kind}" for kind in KINDS} <= set(rows)


@pytest.mark.parametrize(
    "other",
    [
        {"DatasetType": "raw"},
        *(
            {"DatasetType": "derivative", "GeneratedBy": maker}
            for maker in ([{"Name": "x"}], ["bidsfit"], {"Name": "x"}, "bidsfit", None)
        ),
    ],
)
def test_the_folder_of_another_dataset_is_refused(tmp_path, other):
    (tmp_path / "dataset_description.json").write_text(json.dumps(other))
    with pytest.raises(UsageError, match="holds another dataset"):
        prepare_dataset(tmp_path, dataset("raw", tmp_path / "ds"), [])
    assert description(tmp_path) == other


def test_results_of_two_inputs_are_not_mixed(tmp_path):
    (tmp_path / "one").mkdir()
    prepare_dataset(tmp_path / "out", dataset("raw", tmp_path / "one"), [])
    with pytest.raises(UsageError, match="holds results of another dataset"):
        prepare_dataset(tmp_path / "out", dataset("raw", tmp_path / "two"), [])


def test_the_link_to_a_dataset_that_is_gone_is_renewed(tmp_path):
    """As of a job that worked on a clone of its own."""
    out, clone = tmp_path / "out", tmp_path / "the clone"
    clone.mkdir()
    prepare_dataset(out, dataset("raw", clone), [])
    clone.rmdir()
    prepare_dataset(out, dataset("raw", tmp_path / "ds"), [])
    uri = (tmp_path / "ds").as_uri()
    assert description(out)["DatasetLinks"] == {"raw": uri}
    assert description(out)["SourceDatasets"] == [{"URL": uri}]


def test_a_broken_description(tmp_path):
    (tmp_path / "dataset_description.json").write_text("{")
    with pytest.raises(UsageError, match="cannot be read as JSON"):
        prepare_dataset(tmp_path, dataset("raw", tmp_path / "ds"), [])
    own = {"DatasetType": "derivative", "GeneratedBy": [{"Name": "bidsfit"}], "DatasetLinks": "raw"}
    (tmp_path / "dataset_description.json").write_text(json.dumps(own))
    with pytest.raises(UsageError, match=r"DatasetLinks in .* is 'raw'; expected an object"):
        prepare_dataset(tmp_path, dataset("raw", tmp_path / "ds"), [])


@pytest.mark.parametrize("place", ["file", "file/out", "/proc/bidsfit"])
def test_a_folder_that_cannot_be_written(tmp_path, place):
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match=r"output folder .* cannot be written"):
        prepare_dataset(tmp_path / place, dataset("raw", tmp_path / "ds"), [])


def test_many_jobs_share_a_folder(tmp_path):
    """Each adds its link; none is lost."""
    from concurrent.futures import ThreadPoolExecutor

    def job(k):
        prepare_dataset(tmp_path / "out", dataset("raw", tmp_path / "ds"), [dataset(f"d{k}", tmp_path / f"d{k}", True)])

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(job, range(16)))
    assert len(description(tmp_path / "out")["DatasetLinks"]) == 17


def test_an_estimator_has_a_label_without_hyphens(image):
    assert estimator_label("net-uniform-0a1b2c") == "netuniform0a1b2c"
    outputs = map_outputs(image, IVIM, Network(IVIM), "light")
    assert outputs["D_bias"].path.name == "sub-01_ses-1_acq-ap_model-ivim_param-D_stat-bias_desc-netprior_dwimap.nii.gz"
    assert "averaged over the truths that the estimate may come from" in outputs["D_bias"].description
    assert outputs["D_bias"].statistic
