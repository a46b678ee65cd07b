"""What failed, in the user's words."""

from pathlib import Path

import pytest

from bidsfit.bids.inputs import find_images, open_dataset
from bidsfit.exceptions import DiskFullError
from bidsfit.planning.fits import make_fits
from bidsfit.planning.plan import make_plan
from bidsfit.run.failures import Crash, explain, full_disk, not_trained, read_crash, step_in_words

NODE = "bidsfit_wf.sub_01_wf.sub_01_dwi_wf"


@pytest.fixture
def image(tiny, tmp_path):
    """The plan of an image with two estimators."""
    tiny.add("sub-01/dwi/sub-01_dwi")
    inputs = find_images(open_dataset(tiny.root, "raw"), [], ["01"])
    fits = make_fits(["adc"], ["lsq", "mle"])
    return make_plan(inputs, ["01"], fits, output_dir=tmp_path / "out")[0].images[0]


@pytest.mark.parametrize(
    ("node", "words"),
    [
        ("prepare", "reading the image, and finding its mask and noise level"),
        ("adc_lsq_wf.fit", "fitting adc (lsq)"),
        ("preprocessing_wf.write", "writing the preprocessed image"),
        ("preprocessing_wf.motion", "correcting motion and eddy currents"),
        ("compare_adc", "comparing the estimators of adc"),
        ("something", "the step 'something'"),
    ],
)
def test_steps_in_words(image, node, words):
    assert step_in_words(f"{NODE}.{node}", image) == words


def test_every_node_of_an_image_has_words(image, tmp_path):
    """But for those that only pass on what others found."""
    from bidsfit.workflows.estimation import init_image_wf

    names = init_image_wf(image, output_dir=tmp_path, omp_nthreads=1).list_node_names()
    unnamed = {name for name in names if step_in_words(f"{NODE}.{name}", image).startswith("the step")}
    passing_on = {"results_adc", "adc_lsq_wf.inputnode", "adc_mle_wf.inputnode"}
    assert unnamed == passing_on


@pytest.fixture
def sessions(tiny, tmp_path):
    """``sessions(options)``: the plan of a participant of two sessions, with an estimator that is trained."""
    for session in ("1", "2"):
        tiny.add(f"sub-01/ses-{session}/dwi/sub-01_ses-{session}_dwi")
    inputs = find_images(open_dataset(tiny.root, "raw"), [], ["01"])

    def make(**options):
        fits = make_fits(["adc"], ["lsq", "net-uniform"], options=options)
        return make_plan(inputs, ["01"], fits, output_dir=tmp_path / "out")[0]

    return make


def test_what_was_not_trained_for_want_of_another_image_is_named(sessions):
    part = "bidsfit_wf.sub_01_wf.sub_01_ses_2_wf"
    words = not_trained(Crash(f"{part}.prepare", ""), sessions())
    assert words.startswith(
        " For want of its noise level net-uniform could not be trained for the other images of sub-01"
    )
    assert not_trained(Crash(f"{part}.preprocessing_wf.motion", ""), sessions()) == words
    assert not_trained(Crash(f"{part}.adc_lsq_wf.fit", ""), sessions()) == ""
    assert not_trained(Crash(f"{part}.prepare", ""), sessions(snr=20.0)) == ""


@pytest.mark.parametrize(("scope", "whose"), [("participant", "sub-01"), ("dataset", "the run")])
def test_what_was_not_trained_for_want_of_the_voxels_of_an_image_is_named(sessions, scope, whose):
    recipe = {
        "simulation": {"snr": "images", "scope": scope},
        "architecture": {"name": "perceptron"},
        "objective": {"name": "parameters"},
    }
    part = "bidsfit_wf.sub_01_wf.sub_01_ses_2_wf"
    plan = sessions(recipe=recipe)
    for crash in ("prepare", "adc_net_uniform_wf.sample"):
        words = not_trained(Crash(f"{part}.{crash}", ""), plan)
        assert f"For want of its voxels net-uniform could not be trained for the other images of {whose}" in words
        assert "--training-snr" not in words
    assert not_trained(Crash(f"{part}.adc_lsq_wf.sample", ""), plan) == ""


def test_an_error_that_nobody_foresaw_names_file_and_step(image):
    trace = "Traceback (most recent call last):\n\tValueError: operands could not be broadcast together"
    title, message = explain(Crash(f"{NODE}.adc_lsq_wf.fit", trace), image)
    assert title == "A step failed: fitting adc (lsq) of sub-01_dwi"
    assert message.startswith(f"{image.given}: fitting adc (lsq) of sub-01_dwi met an error that bidsfit")
    assert "ValueError: operands could not be broadcast together. " in message


@pytest.mark.parametrize(
    "last",
    [
        "MemoryError",
        "numpy._core._exceptions._ArrayMemoryError: Unable to allocate 12.0 GiB for an array with shape (1610612736,)",
        "RuntimeError: [enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory",
        "OSError: [Errno 12] Cannot allocate memory",
        "ImportError: libtorch_cpu.so: failed to map segment from shared object",
    ],
)
def test_refused_memory_is_told_as_such(image, last):
    title, message = explain(Crash(f"{NODE}.adc_lsq_wf.fit", f"Traceback (most recent call last):\n\t{last}"), image)
    assert title == "A step failed: fitting adc (lsq) of sub-01_dwi"
    assert f"fitting adc (lsq) of sub-01_dwi was refused memory ({last}). Give the run more memory" in message
    assert "--nprocs" in message


def test_memory_of_a_gpu_is_not_that_of_the_run(image):
    trace = (
        "Traceback (most recent call last):\n\ttorch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB"
    )
    assert "met an error" in explain(Crash(f"{NODE}.adc_lsq_wf.fit", trace), image)[1]


def test_an_error_on_purpose_speaks_for_itself(image):
    trace = (
        "Traceback (most recent call last):\n\tbidsfit.exceptions.UnusableInputError: a.nii is cut.\n\n\n"
        "When creating this crashfile, the results file corresponding\nto the node could not be found."
    )
    assert explain(Crash(f"{NODE}.prepare", trace), image) == ("An image cannot be used", "a.nii is cut.")


@pytest.mark.parametrize("text", ["", "Node: wf.a.b.c\nWorking dir"])
def test_a_crash_file_that_was_not_written_to_its_end(tmp_path, text):
    (tmp_path / "crash.txt").write_text(text)
    crash = read_crash(tmp_path / "crash.txt")
    title, message = explain(crash, None)
    assert (title, crash.traceback) == ("A step failed", "")
    assert "its crash file was not written to the end" in message


@pytest.mark.parametrize(
    ("trace", "path"),
    [
        ("OSError: [Errno 28] No space left on device", None),
        ("OSError: [Errno 28] No space left on device: '/tmp/x.nii'", "/tmp/x.nii"),
        ("OSError: [Errno 122] Disk quota exceeded", None),
        ("OSError: 1000 requested and 12 written", None),
        (f"bidsfit.exceptions.{DiskFullError.__name__}: No space is left to write /tmp/y: 0.1 MB", "/tmp/y"),
    ],
)
def test_a_full_disk_is_known_by_what_is_said(tmp_path, trace, path):
    assert full_disk(trace, tmp_path).startswith(f"No space is left to write {path or tmp_path}: ")


def test_another_failure_is_no_full_disk(tmp_path):
    assert full_disk("OSError: [Errno 2] No such file or directory: 'a'", Path(tmp_path)) == ""
