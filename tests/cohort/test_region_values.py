"""Values of fits in regions, against medians that are known."""

import json
import math

import nibabel as nib
import numpy as np
import pytest
from scipy.stats import spearmanr

from bidsfit.bids.fitted import find_fitted, read_facts
from bidsfit.bids.images import open_image
from bidsfit.bids.inputs import Folder, InputProblem
from bidsfit.cohort.region_values import RegionPlaces, fit_values, grouped, region_values

SHAPE = (5, 6, 3)
N = 90
UNITS = {"S0": "arbitrary", "f": "1", "D": "mm^2/s", "Dstar": "mm^2/s"}
BOUNDS = {"f": [0, 1], "D": [0, 0.005], "Dstar": [0.003, 0.2]}


@pytest.fixture
def fit(masks):
    """``fit(image, **maps)``: write the maps of a fit; those that are not given are the same everywhere."""

    def write(image="sub-01_ses-1", estimator="lsq", status=1, training=None, units=UNITS, **maps):
        folder = "/".join([*(word for word in image.split("_") if word.startswith(("sub-", "ses-"))), "dwi"])
        stem = f"{folder}/{image}_model-ivim_param-{{}}_desc-{estimator.replace('-', '')}_dwimap".format
        values = {"S0": 100, "f": 0.1, "D": 1e-3, "Dstar": 0.02, **maps}
        for label, value in values.items():
            if value is not None:
                masks.nifti(f"{stem(label)}.nii.gz", np.broadcast_to(np.float32(value), SHAPE))
                masks.write(f"{stem(label)}.json", json.dumps({"Units": units.get(label)}))
        masks.nifti(f"{stem('status')}.nii.gz", np.broadcast_to(np.uint8(status), SHAPE))
        content = {"Model": {"Parameters": {"Estimator": estimator, "Bounds": BOUNDS}}}
        content["EstimationNotes"] = {"TrainedEstimator": training} if training else {}
        masks.write(f"{stem('status')}.json", json.dumps(content))

    return write


@pytest.fixture
def gather(masks):
    """``gather(**options)``: rows by region and parameter, and problems in words."""

    def run(**options):
        fits = find_fitted(masks.root, estimators=None)
        people = list(region_values(fits, [Folder("rois", masks.root)], **options))
        rows = [row for person in people for row in person.rows]
        return rows, [problem.message for person in people for problem in person.problems]

    return run


def only(rows, **what):
    (row,) = [row for row in rows if all(getattr(row, name) == value for name, value in what.items())]
    return row


def test_the_summary_of_a_region(masks, fit, gather):
    values = np.arange(1, N + 1).reshape(SHAPE, order="C") * 1e-5
    fit("sub-01_ses-1_acq-ap", D=values)
    mask = np.zeros(SHAPE, dtype=np.uint8)
    mask[2:] = 1
    masks.nifti("sub-01/dwi/sub-01_label-tumour_mask.nii.gz", mask)
    rows, problems = gather()
    assert problems == []
    row = only(rows, region="tumour", parameter="D")
    inside = values[2:].ravel() * 1e3  # um^2/ms
    assert (row.participant, row.session, row.image, row.series) == ("01", "1", "sub-01_ses-1_acq-ap", "acq-ap")
    assert (row.model, row.estimator, row.unit) == ("ivim", "lsq", "um^2/ms")
    assert (row.n_voxels, row.n_fitted, row.n_used, row.n_at_bound) == (54, 54, 54, 0)
    assert row.median == pytest.approx(np.median(inside), rel=1e-6)
    assert row.mean == pytest.approx(inside.mean(), rel=1e-6)
    assert row.sd == pytest.approx(inside.std(ddof=1), rel=1e-6)
    assert [row.q05, row.q25, row.q75, row.q95] == pytest.approx(
        np.quantile(inside, [0.05, 0.25, 0.75, 0.95]), rel=1e-6
    )
    assert math.isnan(row.correlation)
    assert row.source == "bids:rois:sub-01/dwi/sub-01_label-tumour_mask.nii.gz"
    assert only(rows, region="whole", parameter="D").n_voxels == N
    assert only(rows, region="whole", parameter="D").source == ""


def test_what_is_expected_of_the_errors_is_taken_from_the_same_voxels(masks, fit, gather):
    status = np.ones(SHAPE)
    status[0] = 4  # not fitted
    fit(status=status)
    stem = "sub-01/ses-1/dwi/sub-01_ses-1_model-ivim_param-{}_stat-{}_desc-lsq_dwimap.nii.gz".format
    response = np.full(SHAPE, 0.4)
    response[0], response[1] = 9, np.nan
    masks.nifti(stem("D", "response"), np.float32(response))
    masks.nifti(stem("D", "bias"), np.full(SHAPE, -2e-4, dtype=np.float32))
    masks.nifti(stem("f", "bias"), np.full(SHAPE, 0.05, dtype=np.float32))
    rows, problems = gather()
    assert problems == []
    found = {row.parameter: (row.response, row.expected_bias) for row in rows}
    assert found["D"] == pytest.approx((0.4, -0.2))  # um^2/ms
    assert found["f"] == pytest.approx((math.nan, 0.05), nan_ok=True)
    assert np.isnan(found["Dstar"]).all()


def test_the_scale_of_the_signal_is_taken_only_where_it_is_asked_for(fit, gather):
    fit()
    assert {row.parameter for row in gather()[0]} == {"f", "D", "Dstar"}
    assert only(gather(scale=True)[0], parameter="S0").median == 100


def test_dstar_counts_where_blood_flows(fit, gather):
    f = np.linspace(0, 0.2, N).reshape(SHAPE)
    dstar = np.linspace(0.01, 0.09, N)[::-1].reshape(SHAPE) + 0.005 * np.sin(np.arange(N)).reshape(SHAPE)
    fit(f=f, Dstar=dstar)
    rows, _ = gather()
    row, flows = only(rows, parameter="Dstar"), np.float32(f) >= 0.05
    assert (row.n_fitted, row.n_used) == (N, flows.sum())
    assert row.median == pytest.approx(np.median(dstar[flows]) * 1e3, rel=1e-6)
    assert row.correlation == pytest.approx(spearmanr(dstar[flows], f[flows]).statistic, abs=1e-3)
    assert only(rows, parameter="f").n_used == N


def test_without_a_map_of_f_that_is_said(fit, gather):
    fit(f=None)
    rows, problems = gather()
    assert only(rows, parameter="Dstar").n_used == N
    assert "there is no map of f, so that Dstar is taken from all voxels" in problems[0]


def test_voxels_without_a_fit_are_left_out_and_counted(fit, gather):
    status = np.arange(N).reshape(SHAPE) % 11  # every status at least eight times
    diffusion = np.where(status == 2, 0.005, 0.001)
    diffusion[status == 4] = np.nan
    diffusion[status == 3] = 0.004
    fit(status=status, D=diffusion)
    rows, _ = gather()
    row = only(rows, parameter="D")
    assert (row.n_voxels, row.n_fitted, row.n_used) == (81, 41, 41)  # the mask: all but status 0
    assert (row.n_at_bound, row.n_prior_only, row.n_unlike_training, row.n_undetermined) == (8, 8, 8, 8)
    assert row.mean == pytest.approx((33 * 1 + 8 * 5) / 41)
    assert only(rows, parameter="f").n_at_bound == 0  # its fits ended at a bound, but of another parameter


def test_a_region_without_a_fitted_voxel_has_no_value(masks, fit, gather):
    status = np.ones(SHAPE)
    status[1] = 5
    fit(status=status)
    mask = np.zeros(SHAPE, dtype=np.uint8)
    mask[1] = 1
    masks.nifti("sub-01/dwi/sub-01_label-tumour_mask.nii.gz", mask)
    row = only(gather()[0], region="tumour", parameter="f")
    assert (row.n_voxels, row.n_fitted, row.n_used) == (18, 0, 0)
    assert math.isnan(row.median)
    assert math.isnan(row.sd)


def test_estimators_keep_their_names_and_training_is_told(fit, gather):
    fit("sub-01", "net-healthy", training={"Participants": ["sub-01"]})
    fit("sub-02", "net-healthy", training={"Participants": ["sub-01"]})
    rows, _ = gather(wanted=["whole"])
    assert [only(rows, participant=label, parameter="D").in_training for label in ("01", "02")] == [True, False]
    assert {row.estimator for row in rows} == {"net-healthy"}
    assert {row.session for row in rows} == {""}


def test_what_cannot_be_read_is_listed_and_the_rest_goes_on(masks, fit, gather):
    fit("sub-01_ses-1")
    fit("sub-01_ses-2")
    fit("sub-02_ses-1", units={**UNITS, "D": "furlong"})
    masks.write("sub-01/ses-1/dwi/sub-01_ses-1_model-ivim_param-D_desc-lsq_dwimap.nii.gz", "nothing")
    rows, problems = gather(wanted=["whole", "kidney"])
    assert {(row.participant, row.session) for row in rows} == {("01", "2")}
    assert any("param-D_desc-lsq_dwimap.nii.gz cannot be read" in words for words in problems)
    assert any("unit 'furlong'" in words for words in problems)
    assert problems.count("there is no region kidney") == 2  # once a participant


def test_a_map_on_another_grid_than_its_status_is_refused(masks, fit, gather):
    fit()
    other = np.diag([3, 3, 3, 1])
    masks.nifti(
        "sub-01/ses-1/dwi/sub-01_ses-1_model-ivim_param-D_desc-lsq_dwimap.nii.gz", np.zeros(SHAPE), affine=other
    )
    rows, problems = gather()
    assert rows == []
    assert "lies on another grid than the status map" in problems[0]


def test_every_map_is_read_once(masks, fit, gather, monkeypatch):
    fit()
    for name in ("tumour", "liver"):
        masks.nifti(f"sub-01/dwi/sub-01_label-{name}_mask.nii.gz", np.ones(SHAPE, dtype=np.uint8))
    read = []
    load = nib.load
    monkeypatch.setattr(nib, "load", lambda path: read.append(path.name) or load(path))
    assert len(gather()[0]) == 9
    assert len(read) == len(set(read))


@pytest.mark.slow  # processes that start import the package
def test_processes_give_the_same(fit, gather):
    for label in ("01", "02", "10"):
        fit(f"sub-{label}", D=int(label) * 1e-4)
    alone, shared = gather()[0], gather(processes=2)[0]
    assert [repr(row) for row in alone] == [repr(row) for row in shared]
    assert [row.participant for row in alone[::3]] == ["01", "02", "10"]


def test_problems_that_are_the_same_share_a_sentence():
    problems = [InputProblem(str(i), "no region") for i in range(8)] + [InputProblem("9", "damaged")]
    assert grouped(problems, most=2) == ["sub-0, sub-1 and 6 more: no region", "sub-9: damaged"]


def test_the_error_of_a_mean_is_that_of_its_voxels(masks, fit):
    """Where a standard deviation is infinite it counts as half the distance of the bounds."""
    status, sd, flags = np.ones(SHAPE), np.full(SHAPE, 3e-4), np.zeros(SHAPE)
    status[0], sd[0], sd[1], flags[:2] = 4, 9.0, np.inf, 16
    fit(status=status)
    stem = "sub-01/ses-1/dwi/sub-01_ses-1_model-ivim_param-{}_desc-lsq_dwimap.nii.gz".format
    masks.nifti(stem("D_stat-sd"), np.float32(sd))
    masks.nifti(stem("D_stat-bias"), np.linspace(0, 1e-4, N).reshape(SHAPE).astype(np.float32))
    masks.nifti(stem("f_stat-expectedsd"), np.full(SHAPE, 0.1, dtype=np.float32))
    masks.nifti(stem("flags"), np.uint8(flags))
    (fitted,) = find_fitted(masks.root)
    like = open_image(fitted.status)
    whole = RegionPlaces.of([], fitted.image, like, [])
    found = {row.parameter: row for row in fit_values(fitted, read_facts(fitted), like, whole, {}, errors=True)}
    d, f = found["D"], found["f"]
    n = N * 4 // 5
    assert d.n_used == n
    assert d.standard_error == pytest.approx(math.sqrt(54 * 0.3**2 + 18 * 2.5**2) / n, rel=1e-6)  # um^2/ms
    assert d.mean_bias == pytest.approx(np.linspace(0, 0.1, N)[18:].mean(), rel=1e-5)
    assert math.isnan(d.mean_response)
    assert f.standard_error == pytest.approx(0.1 / math.sqrt(n), rel=1e-6)
    assert d.flagged == f.flagged == pytest.approx(18 / n)
    assert math.isnan(next(fit_values(fitted, read_facts(fitted), like, whole, {})).standard_error)
