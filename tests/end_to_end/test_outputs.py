"""What a run over the phantom leaves: the maps, their sidecars, the dataset, and nothing else."""

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

EXPECTED = Path(__file__).with_name("expected_outputs.txt")


def truth_of(dataset, name):
    path = next((dataset / "derivatives" / "truth").rglob(f"{name}.nii.gz"))
    return np.asarray(nib.load(path).dataobj)


@pytest.fixture
def out(finished, outputs):
    return outputs(finished[1])


# --- the numbers ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("subject", ["sub-01", "sub-02"])
@pytest.mark.parametrize(("parameter", "tolerance"), [("S0", 0.01), ("f", 0.03), ("D", 0.01), ("Dstar", 0.05)])
def test_maps_recover_the_truth(finished, out, subject, parameter, tolerance):
    """SNR 1000: the median relative error over the mask, with S0, f, D and D* in the units of files."""
    truth = truth_of(finished[0], f"{subject}_model-ivim_param-{parameter}_desc-truth_dwimap")
    mask = truth_of(finished[0], f"{subject}_desc-brain_mask") > 0
    if parameter in ("f", "Dstar"):  # where there is blood to be seen
        mask &= truth_of(finished[0], f"{subject}_model-ivim_param-f_desc-truth_dwimap") > 0.03
    found = out.data(f"{subject}_model-ivim_param-{parameter}_desc-lsq_dwimap")
    assert mask.sum() > 200
    assert np.median(np.abs(found[mask] / truth[mask] - 1)) < tolerance


def test_smt_maps_recover_the_truth(app, smt_phantom, outputs, tmp_path):
    words = ("-d", f"truth={smt_phantom / 'derivatives' / 'truth'}", "--model", "smt2", "--nprocs", 1)
    assert app(smt_phantom, tmp_path / "out", "participant", "--preprocess", "none", *words).code == 0
    mask = truth_of(smt_phantom, "sub-01_desc-brain_mask") > 0
    for parameter in ("vcyl", "lambda"):
        truth = truth_of(smt_phantom, f"sub-01_model-smt2_param-{parameter}_desc-truth_dwimap")[mask]
        found = outputs(tmp_path / "out").data(f"sub-01_model-smt2_param-{parameter}_desc-lsq_dwimap")[mask]
        assert np.median(np.abs(found / truth - 1)) < 0.03


def test_magnitudes_are_mm2_per_s(out):
    mask = out.data("sub-01_model-adc_param-status_desc-lsq_dwimap") > 0
    for name, low, high in (
        ("model-adc_param-adc_desc-lsq", 0.5e-3, 3.5e-3),
        ("model-ivim_param-Dstar_desc-lsq", 3e-3, 0.2),
    ):
        assert low < np.median(out.data(f"sub-01_{name}_dwimap")[mask]) < high
        assert out.sidecar(f"sub-01_{name}_dwimap")["Units"] == "mm^2/s"


def test_d_is_never_above_dstar(out):
    for subject in ("sub-01", "sub-02"):
        d, dstar = (out.data(f"{subject}_model-ivim_param-{p}_desc-lsq_dwimap") for p in ("D", "Dstar"))
        assert np.all(d <= dstar)


def test_maps_are_single_precision_on_the_grid_of_the_image(finished, out):
    source = nib.load(finished[0] / "sub-01/dwi/sub-01_dwi.nii.gz")
    for name in out.maps():
        image = out.image(name.removesuffix(".nii.gz"))
        assert image.get_data_dtype() == (np.uint8 if "param-status" in name or "param-flags" in name else np.float32)
        assert image.shape == source.shape[:3]
        np.testing.assert_array_equal(image.affine, source.affine)
        assert image.header["qform_code"] == source.header["qform_code"]


def test_status_and_quality_maps(finished, out):
    mask = truth_of(finished[0], "sub-01_desc-brain_mask") > 0
    status, r2, rmse = (out.data(f"sub-01_model-ivim_param-{p}_desc-lsq_dwimap") for p in ("status", "r2", "rmse"))
    np.testing.assert_array_equal(status > 0, mask)
    assert np.median(r2[mask]) > 0.999
    assert np.all(rmse[mask] >= 0)


# --- the sidecars ---------------------------------------------------------------------------------------------------


def test_every_map_has_a_sidecar_that_describes_it(out):
    names = [name.removesuffix(".nii.gz") for name in out.maps()]
    # participants x (adc + ivim, with sd, interval, bound; bias, expected sd, response; quality and flags)
    assert len(names) == 2 * (3 * (2 + 4) + 5 * (1 + 3) + 2 * 4)
    for name in names:
        sidecar = out.sidecar(name)
        assert set(sidecar) >= {
            "Description",
            "Units",
            "Model",
            "ParameterURL",
            "Sources",
            "SpatialReference",
            "SkullStripped",
        }
        parameters = sidecar["Model"]["Parameters"]
        assert (parameters["FitMethod"], parameters["Estimator"]) == ("nlls", "lsq")
        assert "Levenberg-Marquardt" in sidecar["EstimationAlgorithm"]
        assert sidecar["EstimationReference"].startswith("doi:10.")
        assert sidecar["GeneratedBy"][0]["Name"] == "bidsfit"
        assert sidecar["BValuesFitted"][0] == 0
        if "param-status" in name:
            assert sidecar["Levels"]["1"] == "fitted inside the bounds"
        if "param-flags" in name:
            rows = Path(str(out.path(name)).replace(".nii.gz", ".tsv")).read_text().splitlines()
            assert rows[0] == "index\tname\tdescription"
            assert {row.split("\t")[0]: row.split("\t")[2] for row in rows[1:]} == sidecar["Levels"]


def test_sources_are_uris_that_lead_to_files(out):
    links = out.description()["DatasetLinks"]
    assert links == {"raw": "../..", "truth": "../truth"}
    for name in out.maps():
        sources = out.sidecar(name.removesuffix(".nii.gz"))["Sources"]
        assert len(sources) == 2
        for source in sources:
            scheme, link, path = source.split(":")
            assert scheme == "bids"
            assert (out.folder / links[link] / path).is_file()


# --- the folder -----------------------------------------------------------------------------------------------------


def test_exactly_the_expected_files(out):
    assert out.files() == EXPECTED.read_text().splitlines()


def test_valid_bids(finished, valid):
    """The phantom with outputs inside it, and the outputs as a dataset of their own."""
    root, folder = finished
    assert valid(root)
    assert valid(folder)


def test_the_raw_data_are_untouched(finished, phantom):
    for path in phantom.rglob("*"):
        if path.is_file():
            assert (finished[0] / path.relative_to(phantom)).read_bytes() == path.read_bytes()


def test_configuration_is_kept(out):
    import tomllib

    for label in ("01", "02"):
        (path,) = (out.folder / f"sub-{label}" / "log").rglob("bidsfit.toml")
        content = tomllib.loads(path.read_text())["bidsfit"]
        assert content["run_uuid"] == path.parent.name
        assert content["command"].startswith("bidsfit ")


def test_citation(out):
    text = (out.folder / "logs" / "CITATION.md").read_text()
    assert "Intravoxel incoherent motion" in text
    assert "Apparent diffusion coefficient" in text
    assert "[@" not in text
    assert (out.folder / "logs" / "CITATION.bib").read_text().count("@") >= 10


def test_reports(out):
    for label in ("01", "02"):
        report = out.report(label)
        assert f"sub-{label}" in report
        assert "Intravoxel incoherent motion" in report
        assert "http://" not in report.split("</style>")[1].split("<footer")[0] or 'src="http' not in report
        assert (
            report.count("data:image/png;base64,") == 2 + 2 + 2 * 6 + 1 + 4
        )  # image: mask, shells; its quality (the noise level, so the SNR, is not known); fit: maps ... quality; bias;
        # thumbnails of f, D, Dstar and of the D of adc
        assert 'class="viewer"' in report


# --- without masks, outside the dataset -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def elsewhere(phantom, tmp_path_factory):
    """A run with no mask given, into a folder outside the dataset."""
    from bidsfit.cli.app import main

    out = tmp_path_factory.mktemp("elsewhere") / "out"
    words = [
        str(phantom),
        str(out),
        "participant",
        "--preprocess",
        "none",
        "--participant-label",
        "02",
        "--model",
        "adc",
        "--nprocs",
        "1",
    ]
    assert main(words) == 0
    return out


def test_a_found_mask_is_written(phantom, elsewhere, outputs, valid):
    out = outputs(elsewhere)
    mask = out.data("sub-02_desc-brain_mask") > 0
    truth = truth_of(phantom, "sub-02_desc-brain_mask") > 0
    assert 2 * np.sum(mask & truth) / (mask.sum() + truth.sum()) > 0.9
    sidecar = out.sidecar("sub-02_desc-brain_mask")
    assert sidecar["Type"] == "Brain"
    assert "Otsu" in sidecar["Method"]
    assert sidecar["Sources"] == ["bids:raw:sub-02/dwi/sub-02_dwi.nii.gz"]
    parameters = out.sidecar("sub-02_model-adc_param-adc_desc-lsq_dwimap")["Model"]["Parameters"]
    assert parameters["Mask"].startswith("Otsu")
    assert "Otsu" in out.report("02")
    assert valid(elsewhere)


def test_links_are_absolute_outside_the_dataset(phantom, elsewhere):
    description = json.loads((elsewhere / "dataset_description.json").read_text())
    assert description["DatasetLinks"] == {"raw": phantom.as_uri()}


def test_only_the_chosen_participant(elsewhere):
    assert [path.name for path in elsewhere.glob("sub-*")] in (["sub-02", "sub-02.html"], ["sub-02.html", "sub-02"])
