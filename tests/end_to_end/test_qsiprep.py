"""From derivatives of QSIPrep to maps and tables of regions, against the truth of a phantom."""

import csv
import json
import shutil

import nibabel as nib
import numpy as np
import pytest

from bidsfit.bids.fitted import find_fitted
from bidsfit.bids.inputs import Folder
from bidsfit.cli.app import main
from bidsfit.cohort.region_values import region_values
from bidsfit.run import region_tables

WORDS = ["participant", "--model", "smt2", "--nprocs", "1", "--atlas", "aseg", "dseg"]
STEM = "sub-01_ses-1_space-ACPC_res-2mm"
TABLE = "sub-01/ses-1/dwi/sub-01_ses-1_space-ACPC_seg-aseg_res-2mm_model-smt2_desc-lsq_dwimap.tsv"


@pytest.fixture(scope="module")
def fitted(qsiprep_phantom, tmp_path_factory, without_figures):
    """The output folder of a run on the derivatives of QSIPrep."""
    out = tmp_path_factory.mktemp("fitted") / "out"
    with without_figures():
        assert main([str(qsiprep_phantom), str(out), *WORDS]) == 0
    return out


def test_the_image_is_fitted_as_it_is_in_its_mask(fitted, qsiprep_phantom, smt_phantom, outputs):
    out = outputs(fitted)
    assert not [name for name in out.files() if "preproc_dwi" in name]
    vcyl = out.image(f"{STEM}_model-smt2_param-vcyl_desc-lsq_dwimap")
    assert nib.aff2axcodes(vcyl.affine) == ("L", "P", "S")
    truth = smt_phantom / "derivatives" / "truth" / "sub-01" / "dwi" / "sub-01_model-smt2_param-vcyl_desc-truth_dwimap"
    expected = np.asarray(nib.load(f"{truth}.nii.gz").dataobj)[::-1, ::-1]
    mask = np.asarray(nib.load(qsiprep_phantom / f"sub-01/ses-1/dwi/{STEM}_desc-brain_mask.nii.gz").dataobj) > 0
    status = out.data(f"{STEM}_model-smt2_param-status_desc-lsq_dwimap")
    np.testing.assert_array_equal(status > 0, mask)
    inside = np.isin(status, (1, 2))
    assert np.median(np.abs(np.asarray(vcyl.dataobj)[inside] - expected[inside])) < 0.01
    uri = f"bids:raw:sub-01/ses-1/dwi/{STEM}_desc-"
    sources = out.sidecar(f"{STEM}_model-smt2_param-vcyl_desc-lsq_dwimap")["Sources"]
    assert sources == [f"{uri}preproc_dwi.nii.gz", f"{uri}brain_mask.nii.gz"]


def test_the_outputs_are_bids(fitted, valid):
    assert valid(fitted)


def test_the_report_says_that_the_noise_may_be_more(fitted, outputs):
    assert "Where it was denoised or resampled" in outputs(fitted).report()


# --- tables of regions ------------------------------------------------------------------------------------------------


def rows_of(path):
    with path.open() as file:
        return {row["index"]: row for row in csv.DictReader(file, delimiter="\t")}


def test_the_mean_of_a_region_is_that_of_its_voxels(fitted, qsiprep_phantom, outputs):
    out = outputs(fitted)
    labels = np.asarray(nib.load(qsiprep_phantom / "sub-01/anat/sub-01_space-ACPC_desc-aseg_dseg.nii.gz").dataobj)
    labels = labels[::2, ::2, ::2]  # the phantom's, of which each voxel was cut in eight
    status, vcyl, sd, bias, flags = (
        out.data(f"{STEM}_model-smt2_param-{name}_desc-lsq_dwimap")
        for name in ("status", "vcyl", "vcyl_stat-sd", "vcyl_stat-bias", "flags")
    )
    rows = rows_of(fitted / TABLE)
    assert rows["2"]["name"] == "Left-Cerebral-White-Matter"
    assert {"2", "3", "41", "42"} <= set(rows)
    for index, row in rows.items():
        region = labels == int(index)
        used = region & np.isin(status, (1, 2, 7, 8, 10, 11, 12))
        found, n = {key: float(row[key]) for key in row if key != "name"}, used.sum()
        assert (found["n_voxels"], found["vcyl_n"]) == (region.sum(), n)
        assert found["missing"] == pytest.approx(1 - n / region.sum(), abs=1e-6)
        assert found["flagged"] == pytest.approx(np.mean(flags[used] > 0))
        assert found["vcyl_mean"] == pytest.approx(vcyl[used].mean(dtype=float), rel=1e-6)
        assert found["vcyl_sd"] == pytest.approx(vcyl[used].std(ddof=1, dtype=float), rel=1e-6)
        assert found["vcyl_median"] == pytest.approx(np.median(vcyl[used]), rel=1e-6)
        assert found["vcyl_se"] == pytest.approx(np.sqrt(np.sum(np.minimum(sd[used], 0.5) ** 2.0)) / n, rel=1e-5)
        assert found["vcyl_bias"] == pytest.approx(bias[used].mean(dtype=float), rel=1e-4)


def test_every_column_of_a_table_is_described(fitted):
    described = json.loads((fitted / TABLE).with_suffix(".json").read_text())
    (columns,) = {tuple(row) for row in rows_of(fitted / TABLE).values()}
    assert all("Description" in described[name] for name in columns)
    assert described["lambda_se"]["Units"] == "mm^2/s"
    assert "independent" in described["lambda_se"]["Description"]
    assert all((fitted / uri.removeprefix("bids::")).is_file() for uri in described["Sources"])


def test_the_group_level_has_the_same_means(fitted):
    """It finds the segmentation on the grid of the image that the participant level left."""
    (person,) = region_values(find_fitted(fitted, estimators=None), [Folder("", fitted)])
    assert person.problems == ()
    grouped = {(row.region, row.parameter): row for row in person.rows}
    for row in rows_of(fitted / TABLE).values():
        name = "csf" if row["name"] == "CSF" else row["name"]
        for parameter, factor in (("vcyl", 1), ("lambda", 1e-3)):
            group = grouped[name, parameter]
            assert float(row[f"{parameter}_mean"]) == pytest.approx(group.mean * factor, rel=1e-8)
            assert float(row[f"{parameter}_sd"]) == pytest.approx(group.sd * factor, rel=1e-8)


def test_a_plain_segmentation_has_the_names_of_bids(fitted):
    rows = rows_of(fitted / TABLE.replace("aseg", "dseg"))
    assert {index: row["name"] for index, row in rows.items()} == {"1": "GM", "2": "WM", "3": "CSF"}


def test_segmentations_are_recorded_among_what_was_used(fitted):
    (run,) = json.loads((fitted / "prov" / "prov-sub01ses1_act.json").read_text())["Activities"]
    assert "bids:raw:sub-01/anat/sub-01_space-ACPC_desc-aseg_dseg.nii.gz" in run["Used"]
    files = {
        file["Id"]: file for file in json.loads((fitted / "prov" / "prov-sub01ses1_ent.json").read_text())["Files"]
    }
    assert files[f"bids::{TABLE}"]["GeneratedBy"] == run["Id"]


def test_the_report_shows_the_regions(fitted, outputs):
    report = outputs(fitted).report()
    assert "Regions · seg-aseg" in report
    assert "Left-Cerebral-White-Matter" in report


@pytest.mark.usefixtures("blank_figures")
def test_what_is_there_is_not_made_again(fitted, qsiprep_phantom, app):
    made = {path: path.stat().st_mtime_ns for path in fitted.rglob("sub-*_seg-*")}
    assert len(made) == 2 * 6  # image, names and sidecar of a segmentation, table and sidecar, record
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(region_tables, "resample", None)
        assert app(qsiprep_phantom, fitted, *WORDS).code == 0
    assert {path: path.stat().st_mtime_ns for path in fitted.rglob("sub-*_seg-*")} == made


@pytest.mark.usefixtures("blank_figures")
def test_another_segmentation_of_the_name_is_refused_and_with_overwrite_moves_the_tables(
    fitted, qsiprep_phantom, app, tmp_path, unchanged
):
    out, other = shutil.copytree(fitted, tmp_path / "out"), tmp_path / "sub-01_space-ACPC_desc-aseg_dseg.nii.gz"
    shutil.copy(qsiprep_phantom / "sub-01/anat/sub-01_space-ACPC_dseg.nii.gz", other)
    words = [qsiprep_phantom, out, *WORDS[:-2], other]
    with unchanged(out):
        outcome = app(*words)
    assert outcome.code == 73
    assert "seg-aseg_res-2mm_dseg.nii.gz exists and was made with other settings (Sources" in outcome.err
    before = {path.relative_to(out): path.read_bytes() for path in out.rglob("sub-*_seg-aseg_*")}
    assert app(*words, "--overwrite").code == 0
    (moved,) = out.glob("replaced-*")
    kept = {path.relative_to(moved): path.read_bytes() for path in moved.rglob("*") if path.is_file()}
    assert kept.items() >= before.items()
    assert not [path for path in kept if "_param-" in path.name]  # the fit is left alone
    assert set(rows_of(out / TABLE)) == {"1", "2", "3"}


@pytest.mark.parametrize(
    ("atlas", "code", "words"),
    [
        ("nowhere", 65, "no segmentation 'nowhere' of --atlas"),
        ("sub-01/anat/sub-01_space-MNI152NLin2009cAsym_dseg.nii.gz", 65, "(MNI152NLin2009cAsym; the image in ACPC)"),
        ("sub-01/anat/sub-01_dseg.nii.gz", 66, "there is no such file"),
    ],
)
def test_what_cannot_be_used_is_said_before_anything_runs(qsiprep_phantom, app, tmp_path, atlas, code, words):
    atlas = qsiprep_phantom / atlas if "/" in atlas else atlas
    outcome = app(qsiprep_phantom, tmp_path / "out", *WORDS[:3], "--atlas", atlas)
    assert outcome.code == code
    assert words in outcome.err
    assert not (tmp_path / "out").exists()
