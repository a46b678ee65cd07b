"""Which fits an output folder holds, by names, and how each was made, by its sidecar."""

import json

import numpy as np
import pytest

from bidsfit import models
from bidsfit.bids.fitted import (
    converged_voxels,
    find_fitted,
    read_facts,
    scanned_sessions,
    settings_that_differ,
    voxels,
)
from bidsfit.exceptions import UnusableInputError

LSQ = "sub-{0}/dwi/sub-{0}_model-ivim_param-{1}_desc-lsq_dwimap"


@pytest.fixture
def outputs(masks):
    """A folder with empty files of a few fits."""
    names = [
        *(LSQ.format("02", label) for label in ("status", "D", "f", "S0", "rmse", "r2")),
        LSQ.format("02", "D_stat-sd"),
        LSQ.format("10", "status"),
        "sub-01/ses-b/dwi/sub-01_ses-b_acq-ap_run-2_model-smt2_param-status_desc-netuniform",
        "sub-01/ses-b/dwi/sub-01_ses-b_acq-ap_run-2_model-smt2_param-vcyl_desc-netuniform",
        "sub-01/ses-a/dwi/sub-01_ses-a_model-smt2_param-vcyl_desc-lsq",  # unfinished: no status
        "sub-01/figures/sub-01_model-smt2_param-status_desc-lsq",
    ]
    for name in names:
        masks.write(f"{name.removesuffix('_dwimap')}_dwimap.nii.gz", "")
    return masks


def sidecar(masks, training=None, **settings):
    """Write the sidecar of the status map of sub-02."""
    content = {"Model": {"Parameters": {"Estimator": "lsq", **settings}}, "EstimationAlgorithm": "Least squares"}
    content["GeneratedBy"] = [{"Name": "bidsfit", "Version": "0.1.0"}]
    if training is not None:
        content["EstimationNotes"] = {"TrainedEstimator": training}
    masks.write(LSQ.format("02", "status") + ".json", json.dumps(content))
    return read_facts(find_fitted(masks.root, ["02"])[0])


def test_fits_are_found_by_names(outputs):
    net, first, second = find_fitted(outputs.root, estimators=None)
    assert (net.participant, net.session, net.series) == ("01", "b", "acq-ap_run-2")
    assert (net.model, net.estimator, net.labels) == ("smt2", "netuniform", ("vcyl",))
    assert (first.image, first.session, first.series) == ("sub-02", "", "")
    assert first.labels == ("D", "S0", "f")
    assert first.parameter("D").name == "sub-02_model-ivim_param-D_desc-lsq_dwimap.nii.gz"
    assert second.participant == "10"


def test_by_default_those_of_least_squares_and_otherwise_those_named(outputs):
    assert [fitted.participant for fitted in find_fitted(outputs.root)] == ["02", "10"]
    assert [fitted.participant for fitted in find_fitted(outputs.root, ["10"])] == ["10"]
    assert [fitted.estimator for fitted in find_fitted(outputs.root, estimators=["net-uniform"])] == ["netuniform"]
    assert find_fitted(outputs.root, ["77"]) == []


@pytest.mark.parametrize("name", ["sub-02/dwi/sub-10", "sub-01/ses-b/dwi/sub-01_ses-a", "sub-pat-1/dwi/sub-pat-1"])
def test_a_map_that_may_be_somebody_elses_is_refused(outputs, name):
    path = outputs.write(f"{name}_model-adc_param-status_desc-lsq_dwimap.nii.gz", "")
    with pytest.raises(UnusableInputError, match=f"{path} has "):
        find_fitted(outputs.root)


def test_sessions_with_maps(outputs):
    assert scanned_sessions(find_fitted(outputs.root, estimators=None)) == {"01": ("b",), "02": ("",), "10": ("",)}


def test_how_a_fit_was_made(outputs):
    facts = sidecar(outputs, Bounds={"D": [0, 0.005], "f": [0, None]})
    assert (facts.estimator, facts.title, facts.version, facts.training) == ("lsq", "Least squares", "0.1.0", None)
    assert facts.bounds == {"D": (0, 0.005), "f": (0, np.inf)}


def test_what_an_estimator_was_trained_on(outputs):
    notes = {"DistributionDigest": "abc", "Participants": ["sub-01"], "Training": {"Converged": False}}
    facts = sidecar(outputs, notes, TrainingDistribution="healthy", TrainingPool="def without sub-02")
    assert facts.training.holds("01")
    assert not facts.training.holds("02")
    assert (facts.training.distribution, facts.training.left_out) == ("healthy", "sub-02")
    assert not facts.training.converged


def test_settings_that_differ_are_named_but_not_masks(outputs):
    first = sidecar(outputs, Mask="a", Averaging="arithmetic", TrainingSeed=1)
    second = sidecar(outputs, Mask="b", Averaging="geometric", Threshold=2, TrainingSeed=1)
    assert settings_that_differ([first, second]) == ["Averaging", "Threshold"]
    assert settings_that_differ([first, first]) == []


def test_trainings_that_differ_are_named(outputs):
    def fit(snr, digest="abc", checksum="1", pool="def", images=()):
        notes = {"Noise": {"SNR": snr}, "DistributionDigest": digest, "Checksum": checksum}
        notes |= {"Images": {"Voxels": dict.fromkeys(images, 9)}}
        return sidecar(outputs, notes, TrainingSNR="auto", TrainingPool=pool)

    assert settings_that_differ([fit(20.0), fit(20.0)]) == []
    assert settings_that_differ([fit(20.0), fit(28.0, checksum="2")]) == ["SNR of the training"]
    assert settings_that_differ([fit(20.0), fit(None, checksum="2")]) == ["SNR of the training"]
    assert settings_that_differ([fit(20.0), fit(20.0, "abe0", "2")]) == ["Distribution of the training"]
    assert settings_that_differ([fit(20.0), fit(20.0, checksum="2")]) == ["Trained estimator"]
    one, both = fit(20.0, images=["a"]), fit(28.0, images=["a", "b"], checksum="2")
    assert settings_that_differ([one, both]) == ["Images of the training"]
    left_out = fit(20.0, "abe0", "2", "def without sub-02")
    assert settings_that_differ([fit(20.0), left_out]) == []
    assert settings_that_differ([left_out, fit(20.0, "abe0", "3", "def without sub-02")]) == ["Trained estimator"]
    for other in (fit(20.0, "9", "3", "def without sub-02"), fit(20.0, "9", "3", "dee without sub-02")):
        assert settings_that_differ([left_out, other]) == ["Distribution of the training"]
    assert settings_that_differ([fit(20.0), fit(20.0, "9", "3", "dee without sub-02")]) == [
        "Distribution of the training"
    ]


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"Model": {"Parameters": 1}}'])
def test_a_sidecar_that_does_not_say_is_refused(outputs, text):
    outputs.write(LSQ.format("02", "status") + ".json", text)
    with pytest.raises(UnusableInputError, match=r"param-status_desc-lsq_dwimap\.json"):
        read_facts(find_fitted(outputs.root, ["02"])[0])


def test_voxels_that_converged_in_the_units_of_the_numerics(masks):
    status = np.zeros(masks.SHAPE, dtype=np.uint8)
    status[1], status[2] = 1, 2
    masks.nifti(LSQ.format("02", "status") + ".nii.gz", status)
    for label, value in (("D", 1e-3), ("f", 0.1), ("Dstar", 0.02)):
        masks.nifti(LSQ.format("02", label) + ".nii.gz", np.full(masks.SHAPE, value, dtype=np.float32))
    (fitted,) = find_fitted(masks.root)
    _, good = converged_voxels(fitted)
    np.testing.assert_array_equal(good, status == 1)
    found = voxels(fitted, models.get("ivim"), good)
    np.testing.assert_allclose(found, np.tile([0.1, 1, 20], (good.sum(), 1)), rtol=1e-6)
    fitted.parameter("f").unlink()
    with pytest.raises(UnusableInputError, match="is missing beside"):
        voxels(fitted, models.get("ivim"), good)


def test_elements_of_a_tensor_are_read_from_the_volumes_of_its_map(masks):
    """In the order of the parameters, which is not that of the volumes."""
    elements = {"Dxx": 1.0, "Dxy": 0.1, "Dxz": 0.2, "Dyy": 0.8, "Dyz": -0.1, "Dzz": 0.6}
    masks.nifti(LSQ.format("02", "status").replace("ivim", "dti") + ".nii.gz", np.ones(masks.SHAPE, dtype=np.uint8))
    tensor = np.broadcast_to(1e-3 * np.array([*elements.values()]), (*masks.SHAPE, 6)).astype(np.float32)
    masks.nifti(LSQ.format("02", "tensor").replace("ivim", "dti") + ".nii.gz", tensor)
    (fitted,) = find_fitted(masks.root)
    dti = models.get("dti")
    found = voxels(fitted, dti, np.ones(masks.SHAPE, dtype=bool))
    assert found.shape == (np.prod(masks.SHAPE), 6)
    np.testing.assert_allclose(found[0], [elements[name] for name in dti.names if name != "S0"], rtol=1e-5)
    assert fitted.paths(dti) == [fitted.parameter("tensor"), fitted.status]
