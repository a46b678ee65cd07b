"""What a run would do and why, decided before anything is computed."""

import json
import os
import re
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest

from bidsfit import models
from bidsfit.acquisition import Acquisition
from bidsfit.bids.distributions import write_distribution
from bidsfit.bids.inputs import Inputs, choose_participants, find_images, open_dataset
from bidsfit.bids.outputs import LEFT_OUT, file_output, json_path
from bidsfit.exceptions import UnknownNameError, UnsupportedProtocolError, UsageError
from bidsfit.models.space import ParameterSpace
from bidsfit.phantom.directions import spread_directions
from bidsfit.planning.fits import NoiseChoice, PoolChoice, make_fits
from bidsfit.planning.plan import make_plan
from bidsfit.run.description import describe_plan
from bidsfit.run.replacing import find_replaced
from bidsfit.simulation.distributions import pool
from bidsfit.steps.step import PreprocessingChoice
from bidsfit.workflows.estimation import init_image_wf
from bidsfit.workflows.training import TrainedStore

SMT = [0] + [1000] * 6 + [2000] * 6
IVIM = [0, 10, 20, 40, 80, 200, 400, 600, 800]

#: What the plan says of an image of the protocol `IVIM` whose sidecar does not name the part of the body.
IVIM_REASON = (
    "has b = 0, 10, 20, 40, 80, 200, 400, 600, 800 s/mm²; bounds and priors wide enough for any organ (the sidecar has "
    "no BodyPart; --organ chooses another)"
)


@pytest.fixture
def plan(tiny, masks, tmp_path):
    """``plan(models)``: the plan of the tiny dataset."""

    def make(*asked, **options):
        datasets = [open_dataset(masks.root, "masks", derivative=True)]
        labels = choose_participants(tiny.root, ())
        inputs = find_images(open_dataset(tiny.root, "raw"), datasets, labels)
        noise = options.get("noise", NoiseChoice())
        fits = make_fits(asked, **options)
        return make_plan(inputs, labels, fits, asked=asked, output_dir=tmp_path / "out", noise=noise)

    return make


def add(tiny, b_values, label="01", **options):
    stem = f"sub-{label}/dwi/sub-{label}_dwi"
    path = tiny.add(stem, b_values=b_values, **options)
    directions = np.empty((len(b_values), 3))
    for shell in Acquisition(b_values).shells:
        directions[shell.indices] = spread_directions(len(shell.indices))
    np.savetxt(tiny / f"{stem}.bvec", directions.T)
    return path


def fitted(plans):
    return [[fit.model for fit in image.fits] for plan in plans for image in plan.images]


def test_the_plan_says_where_mle_cannot_differ_from_lsq(tiny, plan):
    add(tiny, IVIM)
    names = ("lsq", "mle")
    (rician,) = plan("ivim", estimator_names=names)
    (gaussian,) = plan("ivim", estimator_names=names, noise=NoiseChoice("gaussian"))
    assert "mle" not in rician.images[0].support[0]["reason"]
    assert "mle gives the maps of lsq" in gaussian.images[0].support[0]["reason"]
    assert "mle gives the maps of lsq" in describe_plan([gaussian], tiny.root)


def test_the_device_goes_to_the_nodes_that_can_use_it(tiny, plan, tmp_path):
    add(tiny, IVIM)
    (found,) = plan("ivim", estimator_names=("lsq", "mle", "segmented"))
    for device in ("cpu", "cuda"):
        training = TrainedStore(tmp_path, device)
        workflow = init_image_wf(found.images[0], output_dir=tmp_path, omp_nthreads=1, training=training)
        nodes = {name: workflow.get_node(f"ivim_{name}_wf.fit").inputs for name in ("lsq", "mle", "segmented")}
        assert {name: node.device for name, node in nodes.items()} == {"lsq": device, "mle": device, "segmented": "cpu"}


def test_an_image_without_the_rician_bias_has_gaussian_noise(tiny, tmp_path):
    """As the preprocessing leaves it, in this run or in an earlier one."""
    path = add(tiny, IVIM)
    (image,) = find_images(open_dataset(tiny.root, "raw"), [], ["01"]).images
    fits = make_fits(["ivim"], ["mle"])

    def planned(image, **options):
        inputs = Inputs(images=[image])
        return make_plan(inputs, ["01"], fits, output_dir=tmp_path / "out", **options)[0].images[0]

    corrected = planned(image, preprocessing=PreprocessingChoice("dipy"), noise=NoiseChoice(level="12"))
    assert corrected.noise.kind == corrected.fits[0].built.noise == "gaussian"
    assert "--skip rician" in corrected.support[0]["reason"]
    assert planned(image).noise.kind == "rician"
    fits = make_fits(["ivim"], ["lsq"], options={"debias": True})
    assert planned(image).fits[0].built.debias
    corrected = planned(image, preprocessing=PreprocessingChoice("dipy"), noise=NoiseChoice(level="12"))
    assert not corrected.fits[0].built.debias
    assert "--debias removes nothing" in corrected.support[0]["reason"]
    fits = make_fits(["ivim"], ["mle"])
    for method, kind in (("koay", "gaussian"), ("none", "rician")):
        earlier = replace(image, path=path, preprocessed=True, sidecar={"Preprocessing": {"Rician": method}})
        assert planned(earlier).noise.kind == planned(earlier).fits[0].built.noise == kind


# --- which models ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("b_values", "models"),
    [
        ([0, 500, 1000], ["adc"]),
        (IVIM, ["adc", "ivim"]),
        (SMT, ["adc", "dti", "smt2"]),
        ([5, 10, 20, 50, 200, 400, 700], ["adc", "ivim"]),
    ],
)
def test_each_image_gets_the_models_that_its_protocol_supports(tiny, plan, b_values, models):
    add(tiny, b_values)
    assert fitted(plan()) == [models]


def test_what_is_missing_is_said(tiny, plan):
    add(tiny, IVIM)
    rows = {row["name"]: row for row in plan()[0].images[0].support}
    assert rows["ivim"]["fitted"]
    assert rows["ivim"]["reason"] == IVIM_REASON
    assert not rows["smt2"]["fitted"]
    assert "2 different b-values of 700 s/mm² or more with at least 6 directions" in rows["smt2"]["reason"]


def test_images_of_one_run_may_get_different_models(tiny, plan):
    add(tiny, IVIM, "01")
    add(tiny, SMT, "02")
    assert fitted(plan()) == [["adc", "ivim"], ["adc", "dti", "smt2"]]
    plans = plan("ivim")
    assert fitted(plans) == [["ivim"]]
    assert "sub-02_dwi.nii.gz: its protocol supports none of the models. ivim: missing" in plans[1].problems[0]


def test_a_model_that_no_image_supports_is_refused(tiny, plan):
    add(tiny, IVIM)
    with pytest.raises(
        UnsupportedProtocolError,
        match=r"No image supports the model 'smt2'.* sub-01_dwi\.nii\.gz: missing: 2 different b-values",
    ):
        plan("ivim", "smt2")


def test_one_b_value_supports_nothing(tiny, plan):
    add(tiny, [1000, 1000, 1000])
    (participant,) = plan()
    assert participant.images == []
    assert "adc: missing: 2 different b-values of at most 1500 s/mm²" in participant.problems[0]


def test_jittered_b_values_make_few_shells(tiny, plan):
    rng = np.random.default_rng(4)
    b_values = [0, *rng.uniform(985, 1015, 30).round(1), *rng.uniform(1980, 2020, 30).round(1)]
    add(tiny, b_values)
    image = plan()[0].images[0]
    assert [shell.n_measurements for shell in image.acquisition.shells] == [1, 30, 30]
    assert [fit.model for fit in image.fits] == ["adc", "dti", "smt2"]


def test_b_5_and_b_10_stay_apart(tiny, plan):
    add(tiny, [0, 5, 10, 200, 500, 800])
    assert [shell.b_value for shell in plan()[0].images[0].acquisition.shells] == [0, 5, 10, 200, 500, 800]


# --- warnings -------------------------------------------------------------------------------------------------------


def warnings_of(plans):
    return " ".join(plans[0].images[0].warnings)


def test_warnings(tiny, masks, plan):
    add(tiny, [5, 10, 20, 50, 200, 400, 700])
    said = warnings_of(plan())
    assert "no image at b = 0: the lowest b-value is 5" in said
    assert "found by Otsu's threshold" in said
    assert "no denoising" in said
    masks.add_mask("sub-01/dwi/sub-01_desc-brain_mask")
    assert "Otsu" not in warnings_of(plan())


def test_a_mask_that_does_not_fit_is_not_called_no_mask(tiny, masks, plan):
    add(tiny, [0, 500, 1000])
    masks.add_mask("sub-01/dwi/sub-01_run-2_desc-brain_mask")
    plans = plan()
    assert "No mask was given" not in warnings_of(plans)
    for said in (warnings_of(plans), describe_plan(plans, tiny.root)):
        assert "No mask fits sub-01_dwi.nii.gz by its name (sub-01_run-2_desc-brain_mask.nii.gz)" in said


def test_b_values_of_another_image_are_named(tiny, plan):
    add(tiny, [0, 500, 1000])
    path = tiny.nifti("sub-01/dwi/sub-01_acq-ADC_dwi.nii.gz", tiny.signals([500])[..., 0])  # of three slices
    (problem,) = plan()[0].problems
    assert f"{path} has 1 volumes, but its .bval file has 3 b-values" in problem
    assert f"({tiny}/sub-01/dwi/sub-01_dwi.bval, which it inherits: if it is no series" in problem


def test_a_single_slice_in_three_dimensions_is_said(tiny, plan):
    data = tiny.signals()[:, :, 0]
    tiny.add("sub-01/dwi/sub-01_dwi", data=data)
    plans = plan()
    assert plans[0].images[0].shape == (5, 6, 1, 5)
    assert "volumes of a single slice" in warnings_of(plans)


def test_an_image_that_does_not_say_how_it_lies_in_space(tiny, plan):
    path = add(tiny, IVIM)
    assert "lies in space" not in warnings_of(plan("ivim"))
    image = nib.load(path)
    image.set_qform(None, code=0)
    image.set_sform(None, code=0)
    nib.save(image, path)
    assert "does not say how the image lies in space" in warnings_of(plan("ivim"))


# --- problems -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("extension", "content", "message"),
    [
        ("bval", "0 1000", "sub-02_dwi.nii.gz has 5 volumes, but its .bval file has 2 b-values"),
        ("bval", "0 0 x 1 2", "sub-02_dwi.bval holds something that is not a number"),
        ("bval", None, "sub-02_dwi.nii.gz has no .bval file"),
        ("bvec", "0 1\n0 1\n0 1", "sub-02_dwi.bvec holds 3 x 2 numbers"),
        ("nii.gz", "", "sub-02_dwi.nii.gz cannot be read as NIfTI"),
    ],
)
def test_a_bad_image_is_left_out_and_the_others_stay(tiny, plan, extension, content, message):
    tiny.add("sub-01/dwi/sub-01_dwi")
    tiny.add("sub-02/dwi/sub-02_dwi")
    if content is None:
        (tiny / f"sub-02/dwi/sub-02_dwi.{extension}").unlink()
    else:
        tiny.write(f"sub-02/dwi/sub-02_dwi.{extension}", content)
    good, bad = plan()
    assert (len(good.images), good.problems) == (1, [])
    assert bad.images == []
    assert message in bad.problems[0]


@pytest.mark.parametrize(("shape", "value", "message"), [((5, 6, 3), 0, "is empty"), ((4, 6, 3), 1, "has shape")])
def test_a_bad_mask_is_no_reason_to_look_for_another(tiny, masks, plan, shape, value, message):
    tiny.add("sub-01/dwi/sub-01_dwi")
    masks.add_mask("sub-01/dwi/sub-01_desc-brain_mask", np.full(shape, value, dtype=np.uint8))
    (participant,) = plan()
    assert participant.images == []
    assert f"sub-01_desc-brain_mask.nii.gz {message}" in participant.problems[0]


# --- fits and their options -----------------------------------------------------------------------------------------


def test_every_model_with_every_estimator_once():
    fits = make_fits(["ivim", "adc", "ivim"], ["lsq", "lsq"])
    assert [(fit.model, fit.estimator) for fit in fits] == [("ivim", "lsq"), ("adc", "lsq")]


@pytest.mark.parametrize(
    ("models", "estimators", "hint"),
    [(["ivmi"], ["lsq"], "'ivim'"), (["smt4"], ["lsq"], "'smt3'"), (["adc"], ["lsqr"], "'lsq'")],
)
def test_unknown_names(models, estimators, hint):
    with pytest.raises(UnknownNameError, match=f"Did you mean {hint}"):
        make_fits(models, estimators)


def test_bounds_are_in_the_units_of_files():
    (fit,) = make_fits(["ivim"], bounds={"ivim": {"Dstar": (0.005, 0.3), "f": (0, 0.5)}})
    assert fit.options["bounds"] == {"Dstar": (5, 300), "f": (0, 0.5)}
    assert fit.built.bounds[fit.built.model.names.index("Dstar")].tolist() == [5, 300]


@pytest.mark.parametrize(
    ("bounds", "error", "message"),
    [
        ({"ivim": {"Dstr": (0, 1)}}, UsageError, "no such parameter; it has S0, f, D, Dstar"),
        ({"ivmi": {"D": (0, 1)}}, UnknownNameError, "Did you mean 'ivim'"),
        ({"smt2": {"vcyl": (0, 1)}}, UsageError, "'smt2', which is not among those of --model"),
        ({"ivim": {"D": (0.003, 0.001)}}, UsageError, "lower <= upper"),
        ({"ivim": {"S0": (0, 1)}}, UsageError, "scale of the image"),
        ({"ivim": {"D": (0.002, 0.003), "Dstar": (0.0001, 0.001)}}, UsageError, "leave no room for D <= Dstar"),
    ],
)
def test_bounds_that_cannot_be(bounds, error, message):
    with pytest.raises(error, match=message):
        make_fits(["ivim"], bounds=bounds)


def test_options_that_do_not_suit_a_model(tiny, plan):
    """Asked for, it is refused; otherwise it is left out with the reason."""
    with pytest.raises(UsageError, match=r"smt2 with lsq: .*direction averages"):
        make_fits(["smt2"], options={"averaging": "none"})
    add(tiny, SMT)
    plans = plan(options={"averaging": "none"})
    assert fitted(plans) == [["adc", "dti"]]
    rows = {row["name"]: row for row in plans[0].images[0].support}
    assert "direction averages" in rows["smt2"]["reason"]


def test_measured_s0_needs_an_image_without_diffusion_weighting(tiny, plan):
    add(tiny, [5, 10, 20, 50, 200, 400, 700])
    (participant,) = plan(options={"s0": "measured"})
    assert participant.images == []
    assert "an image at b = 0 (a measured S0 is its mean); the lowest b-value is 5 s/mm²" in participant.problems[0]


def test_what_the_imaging_gradients_weight_is_without_diffusion_weighting(tiny, plan):
    add(tiny, [1.29, 10, 20, 50, 200, 400, 700])
    (participant,) = plan(options={"s0": "measured"})
    assert participant.problems == []
    assert not any("no image at b = 0" in words for words in participant.images[0].warnings)


def test_uneven_directions_are_told(tiny, plan):
    add(tiny, [0] + [1000] * 30 + [2000] * 30)
    remarks = plan()[0].images[0].remarks
    assert not any("uneven" in remark for remark in remarks)
    directions = np.random.default_rng(0).normal(size=(61, 3))
    np.savetxt(tiny / "sub-01/dwi/sub-01_dwi.bvec", directions.T)
    (planned,) = plan()[0].images
    assert (
        "b = 1000 s/mm² (30 measurements in 30 directions, weighted to be even, with the noise of" in planned.remarks[0]
    )
    assert planned.remarks[0] in planned.warnings
    np.savetxt(tiny / "sub-01/dwi/sub-01_dwi.bvec", (directions * [1, 1, 0.05]).T)
    (planned,) = plan()[0].images
    (row,) = [row for row in planned.support if row["name"] == "smt2"]
    assert not row["fitted"]
    assert re.search(r"b = 1000 s/mm² \(\d+ directions near a plane\)", row["reason"])


@pytest.mark.parametrize(
    ("model", "n", "known"),
    [
        ("dki", 15, ["wls", "net-prior"]),
        ("dki", 3, ["net-prior"]),
        ("dki", 2, []),
        ("noddi", 6, ["net-prior"]),
        ("noddi", 5, []),  # the same five in both shells
    ],
)
def test_networks_need_fewer_directions_than_fits(tiny, plan, model, n, known):
    """Where the user names the model."""
    add(tiny, [0] + [1000] * n + [2000] * n)
    classical = "wls" if model == "dki" else "lsq"
    (planned,) = plan(model, estimator_names=[classical, "net-prior"])
    assert [fit.name for image in planned.images for fit in image.fits] == known
    if known == ["net-prior"]:
        assert f"not with {classical}: missing: 2 different b-values" in planned.images[0].support[0]["reason"]


def test_a_model_that_nobody_named_is_not_fitted_to_few_directions(tiny, plan):
    add(tiny, [0] + [1000] * 9 + [2000] * 9)
    (planned,) = plan(estimator_names=["net-prior"])
    found = {fit.model for image in planned.images for fit in image.fits}
    assert "dti" in found
    assert not found & {"dki", "noddi"}


def test_directions_that_are_not_known_are_named(tiny, plan):
    """Zeros or NaN: some of them in any image, or all of them where a model needs directions."""
    add(tiny, SMT)
    path = tiny / "sub-01/dwi/sub-01_dwi.bvec"
    table = np.loadtxt(path)
    said = "sub-01_dwi.bvec has zero or NaN for the directions of volumes 3, 7 (counted from 0)"
    for value in (0, np.nan):
        table[:, [3, 7]] = value
        np.savetxt(path, table)
        (participant,) = plan()
        assert any(said in words for words in participant.images[0].warnings)
    table[:, 0] = np.nan  # at b = 0
    table[:, 1:] = np.random.default_rng(0).normal(size=(3, len(SMT) - 1))
    np.savetxt(path, table)
    (participant,) = plan()
    assert not any("bvec" in words for words in participant.images[0].warnings)


def test_one_bad_image_is_the_problem_of_its_participant(tiny, plan):
    """Damaged sidecars, headers and pipes: the others are planned."""
    for label in ("01", "02", "03", "04"):
        add(tiny, IVIM, label)
    tiny.write("sub-01/dwi/sub-01_dwi.json", '{"a":' * 100_000)
    tiny.write("sub-02/dwi/sub-02_dwi.json", '{"EchoTime": NaN}')
    (tiny / "sub-03/dwi/sub-03_dwi.bval").unlink()
    os.mkfifo(tiny / "sub-03/dwi/sub-03_dwi.bval")
    plans = plan("ivim")
    assert [len(one.images) for one in plans] == [0, 1, 0, 1]
    assert "sub-01_dwi.json cannot be read as JSON: it is nested too deep" in plans[0].problems[0]
    assert any("'EchoTime'" in words for words in plans[1].images[0].warnings)
    assert "sub-03_dwi.bval is not an ordinary file" in plans[2].problems[0]


def test_an_option_that_an_estimator_does_not_have():
    with pytest.raises(UsageError, match=r"No estimator of this run has the option magic .not 'lsq'"):
        make_fits(["adc"], options={"magic": 1})


def test_each_estimator_gets_the_options_that_it_has():
    fits = make_fits(["ivim"], ["lsq", "segmented", "mle"], options={"threshold": 150, "s0": "measured"})
    assert [set(fit.options) for fit in fits] == [{"s0", "intervals"}, {"threshold"}, {"noise", "intervals"}]


@pytest.mark.parametrize(("trust", "intervals"), [("light", "conformal"), ("off", "wald")])
def test_intervals_are_of_the_simulation_where_there_is_one(trust, intervals):
    (fit,) = make_fits(["ivim"], trust=trust)
    assert fit.built.intervals == intervals
    (fit,) = make_fits(["ivim"], trust=trust, options={"intervals": "profile"})
    assert fit.built.intervals == "profile"


def test_an_estimator_that_is_not_for_a_model_is_left_out_and_said(tiny, plan):
    add(tiny, IVIM)
    rows = {row["name"]: row for row in plan(estimator_names=["lsq", "segmented"])[0].images[0].support}
    assert rows["adc"]["fitted"]
    assert "not with segmented: A segmented fit needs a model with f, D and Dstar" in rows["adc"]["reason"]
    assert rows["ivim"]["reason"] == IVIM_REASON


def test_a_protocol_may_lack_what_an_estimator_needs(tiny, plan):
    add(tiny, IVIM)
    (participant,) = plan("ivim", estimator_names=["lsq", "segmented"], options={"threshold": 700})
    assert [fit.estimator for fit in participant.images[0].fits] == ["lsq"]
    (row,) = participant.images[0].support
    assert "not with segmented: missing: 2 different b-values of 700 s/mm² or more" in row["reason"]


def test_an_estimator_for_none_of_the_models_is_refused():
    with pytest.raises(UsageError, match=r"adc with segmented: .*needs a model with f, D and Dstar"):
        make_fits(["adc"], ["lsq", "segmented"])


# --- what is there already ------------------------------------------------------------------------------------------


def test_a_map_of_other_settings_stops_the_run(tiny, plan, tmp_path):
    add(tiny, IVIM)
    name = tmp_path / "out/sub-01/dwi/sub-01_model-ivim_param-D_desc-lsq_dwimap"
    name.parent.mkdir(parents=True)
    name.with_suffix(".nii.gz").touch()
    name.with_suffix(".json").write_text(json.dumps({"Model": {"Parameters": {}}, "Sources": ["bids:raw:x"]}))
    with pytest.raises(UsageError, match=r"another preprocessing, mask or noise \(Mask: found nothing, expected Otsu"):
        plan()
    assert fitted(plan("adc")) == [["adc"]]  # its names are others


def test_a_step_that_an_earlier_run_left_out_is_tried_again_where_it_may_be_replaced(tiny, tmp_path):
    add(tiny, IVIM)
    (image,) = find_images(open_dataset(tiny.root, "raw"), [], ["01"]).images
    fits, choice = make_fits(["ivim"]), PreprocessingChoice("dipy", skip=("gibbs",))

    def planned(**options):
        plans = make_plan(
            Inputs(images=[image]), ["01"], fits, output_dir=tmp_path / "out", preprocessing=choice, **options
        )
        return plans[0].images[0]

    steps = planned().chain.settings
    path = tmp_path / "out" / file_output("preproc", image)
    path.parent.mkdir(parents=True)
    path.touch()
    left = {"Preprocessing": steps | {"Rician": "none"}, LEFT_OUT: {"Rician": "damaged"}, "Sources": [image.uri]}
    json_path(path).write_text(json.dumps(left))
    assert planned().chain.method("rician") == ""
    plan = planned(overwrite=True)
    assert plan.chain.method("rician") == "koay"
    assert find_replaced(plan, tmp_path / "out").conflict.in_words == "Rician: found none, expected koay"


# --- in words -------------------------------------------------------------------------------------------------------


def test_the_plan_in_words(tiny, plan, tmp_path):
    add(tiny, [0, 0, 500, 1000])
    tiny.add("sub-02/dwi/sub-02_dwi", bval=False)
    said = describe_plan(plan(), tmp_path)
    assert "sub-01_dwi  5 x 6 x 3 x 4" in said
    assert "protocol: b = 0 (x2), 500 (x1), 1000 (x1) s/mm²" in said
    assert "mask: Otsu's threshold" in said
    assert "fit adc with lsq: has b = 0, 500, 1000 s/mm²" in said
    assert "leave out ivim: missing: " in said
    assert "left out: " in said


def test_sessions_of_many_participants_are_described_once(tiny, plan, tmp_path):
    for label in ("01", "02"):
        for session in (1, 2):
            tiny.add(f"sub-{label}/ses-{session}/dwi/sub-{label}_ses-{session}_dwi")
    plans = plan()
    said = describe_plan(plans, tmp_path)
    assert said.startswith("4 images  ")
    assert said.count("fit adc") == 1
    assert len({id(fit.built) for plan in plans for image in plan.images for fit in image.fits}) == 1


# --- what must be trained -------------------------------------------------------------------------------------------


@pytest.fixture
def pools(tmp_path):
    """An output folder with a healthy distribution of adc, of two participants."""
    space = ParameterSpace(models.get("adc"))
    fits = {f"sub-0{i}": np.random.default_rng(i).uniform(0.5, 2, (200, 1)) for i in (1, 2)}
    found = pool(space, fits, most=1000, seed=0, origin={"Tissue": "healthy"})
    write_distribution(tmp_path, found, "healthy", sources=[], healthy="group=control")
    return PoolChoice(tmp_path, tmp_path / "raw")


def test_a_pool_is_found_and_named_in_the_options(pools):
    (fit,) = make_fits(["adc"], ["net-healthy"], pools=pools)
    assert fit.trains
    assert fit.options["pool"] == fit.pool.digest
    assert fit.training_in_words.startswith("trained on the fits of 2 participants, with noise of the SNR level")
    assert make_fits(["adc"], ["lsq"])[0].training_in_words == ""


def test_without_a_pool_the_command_that_makes_it_is_offered(pools):
    with pytest.raises(UsageError, match=r"ivim with net-healthy: .* group --model ivim"):
        make_fits(["ivim"], ["net-healthy"], pools=pools)
    with pytest.raises(UsageError, match=r"group --model adc -d NAME=PATH"):
        make_fits(["adc"], ["net-wm"], pools=pools)
    assert [fit.model for fit in make_fits([], ["net-healthy"], pools=pools) if not fit.unsuitable] == ["adc"]


def test_a_distribution_may_be_an_option_or_part_of_the_name() -> None:
    def names(words: list[str], **options: str) -> list[str]:
        return [fit.name for fit in make_fits(["smt2"], words, options=options) if not fit.unsuitable]

    assert names(["net", "lsq", "forest"]) == ["net-prior", "lsq", "forest-prior"]
    assert names(["net", "net-uniform"], distribution="uniform") == ["net-uniform"]
    with pytest.raises(UsageError, match="smt2 with net-wm: there is no distribution"):
        names(["net"], distribution="wm")
    with pytest.raises(UsageError, match="--distribution wm is for net, forest, conv, attention; --est"):
        names(["lsq", "net-uniform"], distribution="wm")


def test_a_participant_is_left_out_of_the_own_training_only(pools):
    (fit,) = make_fits(["adc"], ["net-mixed"], pools=pools)
    assert fit.without("sub-03") is fit
    left = fit.without("sub-02")
    assert left.options["pool"] == f"{fit.pool.digest} without sub-02"
    assert "space of the model and the fits of 1 participant (without sub-02)" in left.training_in_words
    alone = replace(fit, pool=replace(fit.pool, participants=("sub-01",)))
    assert alone.without("sub-01").unsuitable == "its pool holds sub-01 alone, who is to be left out"


def test_a_recipe_of_another_kind_is_refused():
    with pytest.raises(UsageError, match="'network-quick' is of a network; 'forest-uniform' is a forest"):
        make_fits(["adc"], ["forest-uniform"], options={"recipe": "network-quick"})


def test_an_option_has_the_name_of_the_command_line():
    with pytest.raises(UsageError, match=r"has the option --training-seed or --training-snr \(not 'lsq'\)"):
        make_fits(["adc"], ["lsq"], options={"snr": 20.0, "seed": 1})


def test_recipes_are_estimators(tmp_path):
    """Those of the package by their names, those of the user by their files; each has a name of its own."""
    path = tmp_path / "mine.yml"
    path.write_text("kind: network\nunits: 8\n")
    words = ["net-uniform", "mse-crb", str(path)]
    first, named, own = make_fits(["ivim"], words, options={"seed": 3, "recipe": "network-quick"})
    assert [fit.name for fit in (first, named, own)] == ["net-uniform", "mse-crb", "mine"]
    assert [fit.built.name for fit in (first, named, own)] == ["net-uniform", "mse-crb", "mine"]
    assert all(fit.trains and fit.options["seed"] == 3 for fit in (first, named, own))
    assert first.options["recipe"] == "network-quick"
    assert (named.built.recipe, named.built.distribution) == ("mse-crb", "uniform")
    assert own.options["recipe"]["architecture"]["units"] == 8
    (own,) = make_fits(["ivim"], [str(path)], options={"distribution": "uniform"})
    assert own.built.distribution == "uniform"
    with pytest.raises(UsageError, match=r"--training-recipe \(not 'mse-crb'\)"):
        make_fits(["ivim"], ["mse-crb"], options={"recipe": "network-quick"})
    path = path.rename(tmp_path / "lsq.yml")
    with pytest.raises(UsageError, match="'lsq' is an estimator already"):
        make_fits(["ivim"], [str(path)])
