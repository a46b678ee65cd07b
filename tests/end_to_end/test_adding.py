"""Runs into a folder that holds results add to them, or refuse."""

import shutil

import numpy as np
import pytest

QUICK = ("--nprocs", 1, "--skip-bids-validation")


@pytest.fixture
def run(app, tiny, masks, outputs, tmp_path):
    """``run(options...)`` on two sessions of a protocol for ADC and IVIM; ``run.out`` is what they left."""
    b_values = [0, 10, 20, 40, 80, 200, 400, 600, 800]
    for session in ("1", "2"):
        tiny.add(f"sub-01/ses-{session}/dwi/sub-01_ses-{session}_dwi", b_values=b_values)
        masks.add_mask(f"sub-01/ses-{session}/dwi/sub-01_ses-{session}_desc-brain_mask")

    def call(*options):
        return app(tiny, tmp_path / "out", "participant", "-d", f"masks={masks}", *QUICK, *options)

    call.out = outputs(tmp_path / "out")
    call.dataset = tiny
    return call


def test_another_model_is_added(run):
    """The maps of the first stay; the report and its methods hold both."""
    assert run("--model", "adc").code == 0
    first = run.out.maps()
    assert run("--model", "ivim").code == 0
    both = run.out.maps()
    assert {name: both[name] for name in first} == first
    assert len(both) == 2 * (5 + 7)
    report = run.out.report()
    methods = report[report.index("Methods") :]
    for title in ("Apparent diffusion coefficient", "Intravoxel incoherent motion"):
        assert title in report
        assert title in methods


def test_another_session_and_participant_are_added(run, masks):
    assert run("--model", "adc", "--session-label", "1").code == 0
    run.dataset.add("sub-02/dwi/sub-02_dwi")
    masks.add_mask("sub-02/dwi/sub-02_desc-brain_mask")
    assert run("--model", "adc", "--session-label", "2", "--participant-label", "01").code == 0
    assert run("--model", "adc", "--participant-label", "02").code == 0
    assert len(run.out.maps()) == 3 * 5
    assert "ses-1" in run.out.report()
    assert "ses-2" in run.out.report()
    assert run.out.report("02")


def test_other_settings_are_refused_and_nothing_changes(run, unchanged):
    assert run("--model", "adc").code == 0
    for options in (("--average", "geometric"), ("--s0", "measured"), ("--bounds", "adc.D=0,0.003")):
        with unchanged(run.out.folder):
            outcome = run("--model", "adc", *options)
        assert outcome.code == 2
        assert "exists and was made with other settings" in outcome.err
        assert "Nothing is overwritten" in outcome.err


def test_another_mask_is_another_setting(run, masks, unchanged):
    assert run("--model", "adc").code == 0
    shutil.rmtree(masks / "sub-01/ses-1")
    with unchanged(run.out.folder):
        outcome = run("--model", "adc")
    assert outcome.code == 2
    assert "(Mask)" in outcome.err


def test_another_dataset_is_refused(run, app, tmp_path, unchanged):
    assert run("--model", "adc").code == 0
    other = tmp_path / "other"
    shutil.copytree(run.dataset, other)
    with unchanged(run.out.folder):
        outcome = app(other, run.out.folder, "participant", *QUICK, "--model", "ivim")
    assert outcome.code == 2
    assert "holds results of another dataset" in outcome.err


def test_a_changed_image_is_fitted_again(run):
    """Out of date: the same name, and new data."""
    assert run("--model", "adc").code == 0
    first = run.out.maps()
    b_values = [0, 10, 20, 40, 80, 200, 400, 600, 800]
    data = run.dataset.signals(b_values) * 2
    run.dataset.add("sub-01/ses-1/dwi/sub-01_ses-1_dwi", b_values=b_values, data=data)
    assert run("--model", "adc").code == 0
    changed = {name for name, content in run.out.maps().items() if content != first[name]}
    assert "sub-01_ses-1_model-adc_desc-lsq_param-S0_dwimap.nii.gz" in changed
    assert not any("_ses-2_" in name for name in changed)
    s0 = run.out.data("sub-01_ses-1_model-adc_desc-lsq_param-S0_dwimap")
    np.testing.assert_allclose(s0[2, 2, 2], data[2, 2, 2, 0], rtol=1e-3)


def test_outputs_are_not_inputs_of_the_next_run(run, valid):
    """In the derivatives of the input, where a second run must not find its own maps and masks."""
    shutil.rmtree(run.dataset / "derivatives", ignore_errors=True)
    assert run("--model", "adc").code == 0
    assert valid(run.out.folder)
