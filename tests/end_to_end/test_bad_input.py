"""Bad input: a clear message that names the file, the right exit code, no traceback, and no map."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

IMAGE = "sub-01/dwi/sub-01_dwi.nii.gz"


@pytest.fixture
def run(app, pair, outputs, tmp_path):
    """``run(options...)`` on a participant whose files tests spoil; ``run.tiny``, ``run.masks``, ``run.out``."""
    tiny, masks = pair

    def call(*options, masks_given=True):
        given = ("-d", f"masks={masks}") if masks_given else ()
        return app(
            tiny,
            tmp_path / "out",
            "participant",
            "--preprocess",
            "none",
            "--nprocs",
            1,
            "--skip-bids-validation",
            *given,
            *options,
        )

    call.tiny, call.masks, call.out = tiny, masks, outputs(tmp_path / "out")
    return call


def refused(outcome, code, *said):
    """The run ended with this code, said all this on stderr, and showed no traceback."""
    assert outcome.code == code
    for text in said:
        assert str(text) in outcome.err
    assert "Traceback" not in outcome.err + outcome.out
    return True


# --- the dataset ----------------------------------------------------------------------------------------------------


def test_no_such_folder(app, tmp_path):
    outcome = app(tmp_path / "none", tmp_path / "out", "participant")
    assert refused(outcome, 66, tmp_path / "none", "is not a folder")
    assert list(tmp_path.iterdir()) == []


def test_not_a_bids_dataset(app, tmp_path):
    (tmp_path / "ds" / "sub-01").mkdir(parents=True)
    outcome = app(tmp_path / "ds", tmp_path / "out", "participant")
    assert refused(outcome, 16, tmp_path / "ds", "is not a BIDS dataset: it has no dataset_description.json")
    assert not (tmp_path / "out").exists()


def test_no_participant(app, tiny, tmp_path):
    assert refused(app(tiny, tmp_path / "out", "participant"), 66, tiny, "no folder is called sub-<label>")


def test_a_derivative_that_is_no_dataset(run, app, tmp_path):
    (tmp_path / "plain").mkdir()
    outcome = run("-d", f"plain={tmp_path / 'plain'}")
    assert refused(outcome, 16, tmp_path / "plain", "is not a BIDS dataset")
    assert not run.out.folder.exists()


def test_no_diffusion_images(app, tiny, tmp_path):
    tiny.nifti("sub-01/anat/sub-01_T1w.nii.gz", tiny.signals()[..., 0])
    outcome = app(tiny, tmp_path / "out", "participant", "--skip-bids-validation")
    assert refused(outcome, 65, "sub-01 has no diffusion images", tiny.root / "sub-01")
    assert not (tmp_path / "out").exists()


def test_what_the_validator_finds(app, tiny, tmp_path):
    tiny.add("sub-01/dwi/sub-01_dwi")
    tiny.write("sub-01/dwi/sub-01_notes.txt", "Moved a lot.")
    outcome = app(tiny, tmp_path / "out", "participant")
    assert refused(outcome, 16, "is not valid BIDS (1 error)", "/sub-01/dwi/sub-01_notes.txt", "--skip-bids-validation")
    assert not (tmp_path / "out").exists()


# --- names ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (("--participant-label", "011"), 18, "Unknown participant '011'. Did you mean '01'?"),
        (("--model", "ivmi"), 64, "Unknown model 'ivmi'. Did you mean 'ivim'?"),
        (("--estimators", "lsqr"), 64, "Unknown estimator 'lsqr'. Did you mean 'lsq'?"),
        (("--session-label", "baseline"), 18, 'match {"session": ["baseline"]}'),
        (("--run-id", "7"), 18, 'match {"run": ["7"]}'),
    ],
)
def test_unknown_names(run, options, code, said):
    assert refused(run(*options), code, said)
    assert not run.out.folder.exists()


# --- options --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--average", "none", "--model", "smt2"), "averaging cannot be 'none'"),
        (("--nprocs", "1", "--omp-nthreads", "2"), "--omp-nthreads 2 exceeds --nprocs 1"),
        (("--reports-only", "--dry-run"), "contradict"),
        (("--bounds", "adc.T2=0,1"), "has no such parameter"),
        (("--bounds", "adc.D=0.003,0.001"), "lower <= upper"),
        (("--bounds", "ivim.D=0,0.001", "--model", "adc"), "not among those of --model"),
        (("--mem", "lots"), "--mem takes a number"),
        (("-d", "masks=/elsewhere"), "'masks' twice"),
    ],
)
def test_options_that_cannot_be(run, options, said):
    assert refused(run(*options), 64, said)
    assert not run.out.folder.exists()


def test_a_model_that_no_image_supports(run):
    assert refused(run("--model", "adc", "ivim"), 65, "No image supports the model 'ivim' of --model")
    assert not run.out.folder.exists()


def test_a_model_that_the_protocol_lacks_measurements_for(run):
    outcome = run("--model", "smt2")
    assert refused(outcome, 65, IMAGE.split("/")[-1], "missing: 2 different b-values of 700 s/mm² or more")


# --- folders --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("tiny", "is the folder of BIDS_DIR itself"),
        ("tiny/sub-01/maps", "lies inside the data of BIDS_DIR"),
        ("tiny/out", "lies inside the data of BIDS_DIR"),
        ("tiny/derivatives", "of its derivatives"),
        (".", "holds the dataset of BIDS_DIR"),
        ("masks", "is the folder of -d masks itself"),
    ],
)
def test_outputs_in_the_wrong_place(app, pair, tmp_path, unchanged, place, said):
    with unchanged(tmp_path):
        outcome = app(pair[0], tmp_path / place, "participant", "--preprocess", "none", "-d", f"masks={pair[1]}")
    assert refused(outcome, 64, said)


@pytest.mark.parametrize("place", ["file", "file/out", "/proc/out"])
def test_outputs_that_cannot_be_written(app, pair, tmp_path, place):
    (tmp_path / "file").touch()
    outcome = app(
        pair[0], tmp_path / place, "participant", "--preprocess", "none", "--skip-bids-validation", "--nprocs", 1
    )
    assert refused(outcome, 73, "cannot be written", tmp_path / place)


@pytest.mark.skipif(os.getuid() != 0 or shutil.which("setpriv") is None, reason="needs root, to run as nobody")
@pytest.mark.usefixtures("blank_figures")
def test_a_read_only_output_folder(pair):
    """As a user who may read everything and write nothing."""
    as_nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    if subprocess.run([*as_nobody, sys.executable, "-c", "import nipype"], capture_output=True, check=False).returncode:
        pytest.skip("nobody may not use this Python")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        shutil.copytree(pair[0], folder / "ds")
        (folder / "out").mkdir()
        words = [folder / "ds", folder / "out", "participant", "--preprocess", "none", "--skip-bids-validation"]
        done = subprocess.run(
            [*as_nobody, sys.executable, "-m", "bidsfit.cli.app", *map(str, words)],
            env=os.environ | {"HOME": "/nonexistent", "MPLCONFIGDIR": name, "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 73, done.stderr
        assert f"The output folder {folder / 'out'} cannot be written" in done.stderr
        assert "Traceback" not in done.stderr
        assert list((folder / "out").iterdir()) == []


# --- one image ------------------------------------------------------------------------------------------------------


def cut(path, kept):
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * kept)])


def damage(path):
    """Flip a bit of the checksum."""
    content = bytearray(path.read_bytes())
    content[-8] ^= 1
    path.write_bytes(content)


def become_a_pipe(path):
    path.unlink()
    os.mkfifo(path)


def store(tiny, data, name=IMAGE):
    tiny.nifti(name, np.asarray(data, dtype=np.float32))


#: How an image is spoiled, and what is said: seen in headers and b-values, before anything is run.
SEEN_AT_ONCE = {
    "bval and image differ": (
        lambda d, m: d.write("sub-01/dwi/sub-01_dwi.bval", "0 500 1000"),
        [IMAGE, "has 5 volumes, but its .bval file has 3 b-values"],
    ),
    "no bval": (lambda d, m: (d / "sub-01/dwi/sub-01_dwi.bval").unlink(), [IMAGE, "has no .bval file"]),
    "bval of words": (
        lambda d, m: d.write("sub-01/dwi/sub-01_dwi.bval", "b0 b0 b300 b600 b1000"),
        ["sub-01_dwi.bval", "not a number"],
    ),
    "empty bval": (lambda d, m: d.write("sub-01/dwi/sub-01_dwi.bval", ""), ["sub-01_dwi.bval", "is empty"]),
    "negative bval": (
        lambda d, m: d.write("sub-01/dwi/sub-01_dwi.bval", "0 0 -300 600 1000"),
        ["sub-01_dwi.bval", "negative or not finite"],
    ),
    "bvec of another shape": (
        lambda d, m: d.write("sub-01/dwi/sub-01_dwi.bvec", "1 0\n0 1\n0 0"),
        ["sub-01_dwi.bvec", "holds 3 x 2 numbers; expected 3 rows of 5"],
    ),
    "one b-value": (
        lambda d, m: d.write("sub-01/dwi/sub-01_dwi.bval", "1000 1000 1000 1000 1000"),
        [IMAGE, "adc: missing: 2 different b-values"],
    ),
    "not an image": (lambda d, m: d.write(IMAGE, "hello"), [IMAGE, "cannot be read as NIfTI"]),
    "empty image": (lambda d, m: d.write(IMAGE, ""), [IMAGE, "cannot be read as NIfTI"]),
    "cut in its header": (lambda d, m: cut(d / IMAGE, 0.02), [IMAGE, "Is it damaged or truncated?"]),
    "bval with decimal commas": (
        lambda d, m: d.write("sub-01/dwi/sub-01_dwi.bval", "0,0 0,5 300,0 600,0 1000,0"),
        ["sub-01_dwi.bval", "decimal comma (0,0)"],
    ),
    "bvec with an infinite direction": (
        lambda d, m: d.write("sub-01/dwi/sub-01_dwi.bvec", "0 0 inf 0 1\n0 0 1 0 0\n0 0 0 1 0"),
        ["sub-01_dwi.bvec", "not finite, or longer than 1e+06 (volumes 2, counted from 0)"],
    ),
    "a pipe": (lambda d, m: become_a_pipe(d / IMAGE), [IMAGE, "is not an ordinary file"]),
    "a pipe for a mask": (
        lambda d, m: become_a_pipe(m / "sub-01/dwi/sub-01_desc-brain_mask.nii.gz"),
        ["sub-01_desc-brain_mask.nii.gz", "is not an ordinary file"],
    ),
    "a sidecar nested without end": (
        lambda d, m: d.write("sub-01/dwi/sub-01_dwi.json", '{"a":' * 100_000),
        ["sub-01_dwi.json", "nested too deep"],
    ),
    "damaged mask": (
        lambda d, m: damage(m / "sub-01/dwi/sub-01_desc-brain_mask.nii.gz"),
        ["sub-01_desc-brain_mask.nii.gz is damaged: its checksum does not match"],
    ),
    "content not here": (
        lambda d, m: ((d / IMAGE).unlink(), (d / IMAGE).symlink_to(d / ".git/annex/objects/gone")),
        [IMAGE, "datalad get"],
    ),
    "broken sidecar": (lambda d, m: d.write("sub-01/dwi/sub-01_dwi.json", "{"), ["sub-01_dwi.json", "as JSON"]),
    "empty mask": (
        lambda d, m: m.add_mask("sub-01/dwi/sub-01_desc-brain_mask", np.zeros(d.SHAPE, dtype=np.uint8)),
        ["sub-01_desc-brain_mask.nii.gz", "is empty"],
    ),
    "mask of another shape": (
        lambda d, m: m.add_mask("sub-01/dwi/sub-01_desc-brain_mask", np.ones((6, 5, 3), dtype=np.uint8)),
        ["sub-01_desc-brain_mask.nii.gz", "has shape (6, 5, 3)", IMAGE],
    ),
    "flipped mask": (
        lambda d, m: m.add_mask("sub-01/dwi/sub-01_desc-brain_mask", affine=d.AFFINE @ np.diag([-1, 1, 1, 1])),
        ["sub-01_desc-brain_mask.nii.gz", "lies elsewhere in space"],
    ),
    "two masks": (
        lambda d, m: [
            m.add_mask(f"sub-01/dwi/sub-01_desc-{name}_mask") for name in ("brain", "cord")
        ]
        and (m / "sub-01/dwi/sub-01_desc-brain_mask.nii.gz").rename(m / "sub-01/dwi/sub-01_desc-gm_mask.nii.gz"),
        ["Several masks fit sub-01_dwi.nii.gz equally well", "--bids-filter-file"],
    ),
}  # fmt: skip

#: Seen only while the data are read.
SEEN_LATER = {
    "cut in its data": (lambda d, m: cut(d / IMAGE, 0.7), [IMAGE, "truncated"]),
    "a flipped bit": (lambda d, m: damage(d / IMAGE), [IMAGE, "is damaged: its checksum does not match"]),
    "all zero": (lambda d, m: store(d, np.zeros((*d.SHAPE, 5))), [IMAGE, "holds only zeros or NaN"]),
    "all NaN": (lambda d, m: store(d, np.full((*d.SHAPE, 5), np.nan)), [IMAGE, "holds only zeros or NaN"]),
}


@pytest.mark.parametrize("case", SEEN_AT_ONCE)
def test_nothing_can_be_run(run, case):
    spoil, said = SEEN_AT_ONCE[case]
    spoil(run.tiny, run.masks)
    assert refused(run(), 65, "Nothing can be run", *said)
    assert not run.out.folder.exists()


@pytest.mark.parametrize("case", SEEN_LATER)
def test_seen_while_reading(run, case):
    """The crash file is kept, and named in the report."""
    spoil, said = SEEN_LATER[case]
    spoil(run.tiny, run.masks)
    outcome = run()
    assert refused(outcome, 1, "sub-01: An image cannot be used.", *said)
    assert run.out.maps() == {}
    (crash,) = (run.out.folder / "sub-01" / "log").rglob("crash-*.txt")
    assert str(crash) in outcome.err
    assert crash.name in run.out.report().replace("<wbr>", "")
    assert outcome.out.endswith("Done, with errors for 1 of 1 participants: 01.\n")


@pytest.mark.parametrize(("value", "words"), [(np.nan, "no finite value"), (0, "only zeros")])
def test_a_volume_without_values_is_left_out_and_named(run, value, words):
    store(run.tiny, np.where(np.arange(5) == 2, value, run.tiny.signals()))
    outcome = run()
    assert outcome.code == 0
    assert f"2 (b = 300 s/mm²): it holds {words}" in outcome.err
    assert f"it holds {words}" in run.out.report()
    content = run.out.sidecar("sub-01_model-adc_param-adc_desc-lsq_dwimap")
    assert content["VolumesLeftOut"] == [{"Volume": 2, "BValue": 300, "Reason": f"it holds {words}"}]
    assert content["BValuesFitted"] == [0, 600, 1000]
    np.testing.assert_allclose(run.out.data("sub-01_model-adc_param-adc_desc-lsq_dwimap")[2:, 2:], 1e-3, rtol=1e-3)


def test_what_is_left_must_support_the_model(run):
    data = run.tiny.signals()
    data[..., 2:] = 0
    store(run.tiny, data)
    said = "sub-01_dwi: adc (lsq) cannot be fitted to the volumes that are left"
    assert refused(run(), 1, said, "2 (b = 300 s/mm²), 3 (b = 600 s/mm²), 4 (b = 1000 s/mm²): it holds only zeros")
    assert run.out.maps() == {}


def test_b_values_in_the_lengths_of_the_directions(run):
    b_values = [0, *[1000] * 6]
    run.tiny.add(
        "sub-01/dwi/sub-01_dwi", b_values=b_values, data=run.tiny.signals([0, 500, 500, 500, 1000, 1000, 1000])
    )
    vectors = np.vstack([np.zeros(3), np.sqrt(0.5) * np.eye(3), np.eye(3)])
    run.tiny.write("sub-01/dwi/sub-01_dwi.bvec", "\n".join(" ".join(f"{v:.4f}" for v in row) for row in vectors.T))
    assert refused(run(), 65, IMAGE, "Nothing can be run", "b |g|². That gives b = 500, 1000 s/mm²")


def test_cut_without_compression(run):
    """The size of .nii is known when planning."""
    (run.tiny / IMAGE).unlink()
    path = run.tiny.add("sub-01/dwi/sub-01_dwi", extension=".nii")
    cut(path, 0.7)
    assert refused(run(), 65, path, "truncated")
    assert not run.out.folder.exists()


def test_a_flipped_bit_with_little_memory(run):
    damage(run.tiny / IMAGE)
    assert refused(run("--low-mem"), 1, IMAGE, "is damaged: its checksum does not match")
    assert run.out.maps() == {}


def test_numbers_of_a_sidecar_that_are_none(run):
    run.tiny.write("sub-01/dwi/sub-01_dwi.json", '{"EchoTime": NaN, "BodyPart": "HEAD"}')
    planned = run("--dry-run")
    assert planned.code == 0
    assert "sub-01_dwi.json holds NaN" in planned.out
    assert "'EchoTime'" in planned.out
    assert run().code == 0
    assert "sub-01_dwi.json holds NaN" in run.out.report().replace("<wbr>", "")


def test_no_mask_to_be_found(run):
    data = np.zeros((12, 12, 4, 5), dtype=np.float32)
    data[5, 5, 1] = run.tiny.signals()[0, 0, 0]
    store(run.tiny, data)
    assert refused(run(masks_given=False), 1, IMAGE, "have no contrast", "-d masks=PATH")
    assert run.out.maps() == {}


def test_the_traceback_on_request(run):
    cut(run.tiny / IMAGE, 0.7)
    outcome = run("-vv")
    assert outcome.code == 1
    assert "Traceback" in outcome.err


# --- one among others -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", ["bval of words", "empty mask", "cut in its data"])
@pytest.mark.usefixtures("blank_figures")
def test_the_others_finish(run, case, valid):
    spoil, said = (SEEN_AT_ONCE | SEEN_LATER)[case]
    run.tiny.add("sub-02/dwi/sub-02_dwi")
    run.masks.add_mask("sub-02/dwi/sub-02_desc-brain_mask")
    spoil(run.tiny, run.masks)
    outcome = run()
    assert refused(outcome, 1, "sub-01: An image", *said)
    assert outcome.out.endswith("Done, with errors for 1 of 2 participants: 01.\n")
    assert {name[:6] for name in run.out.maps()} == {"sub-02"}
    assert len(run.out.maps()) == 15
    assert valid(run.out.folder)  # crash files and all
    report = run.out.report("01").replace("<wbr>", "")
    assert said[0].split("/")[-1] in report
    assert said[0].split("/")[-1] not in run.out.report("02").replace("<wbr>", "")


@pytest.mark.usefixtures("blank_figures")
def test_an_unsupported_protocol_among_others(run):
    run.tiny.add("sub-02/dwi/sub-02_dwi", b_values=[1000, 1000])
    outcome = run()
    assert refused(outcome, 1, "sub-02: An image was left out", "sub-02_dwi.nii.gz", "missing: 2 different b-values")
    assert "missing: 2 different b-values" in run.out.report("02").replace("<wbr>", "")


@pytest.mark.usefixtures("blank_figures")
def test_a_participant_without_images_among_others(run):
    run.tiny.nifti("sub-02/anat/sub-02_T1w.nii.gz", run.tiny.signals()[..., 0])
    assert refused(run(), 1, "sub-02 has no diffusion images")
    assert "no diffusion images" in run.out.report("02")


@pytest.mark.usefixtures("blank_figures")
def test_a_map_of_an_earlier_run_outlives_a_bad_image(run):
    """What was right stays; the report says what is wrong now."""
    assert run().code == 0
    before = run.out.maps()
    cut(run.tiny / IMAGE, 0.7)
    assert refused(run(), 1, "truncated")
    assert run.out.maps() == before
    assert "truncated" in run.out.report()


def test_an_unexpected_error_is_reported_with_its_crash_file(run, monkeypatch):
    from bidsfit.reports import figures

    def fail(*_, **__):
        raise ZeroDivisionError("half-way")

    monkeypatch.setattr(figures, "plot_maps", fail)
    outcome = run()
    said = f"{run.tiny / IMAGE}: fitting adc (lsq) of sub-01_dwi met an error that bidsfit does not expect: "
    assert refused(outcome, 1, "sub-01: A step failed: fitting adc (lsq) of sub-01_dwi. ", "crash-")
    assert said + "ZeroDivisionError: half-way." in outcome.err
    assert "ZeroDivisionError" in run.out.report()
    assert len(run.out.maps()) == 15  # the maps were good


@pytest.mark.usefixtures("blank_figures")
def test_an_image_that_becomes_good_is_fitted(run):
    good = (run.tiny / IMAGE).read_bytes()
    cut(run.tiny / IMAGE, 0.7)
    assert run().code == 1
    (run.tiny / IMAGE).write_bytes(good)
    assert run().code == 0
    assert len(run.out.maps()) == 15
    assert "truncated" not in run.out.report()


# --- odd, and good --------------------------------------------------------------------------------------------------


def test_odd_images_that_are_fitted(run):
    """Big-endian, scaled, one slice, without b = 0, with NaN, negative: each is fitted, in one run."""
    d, m = run.tiny, run.masks
    mask = np.ones(d.SHAPE, dtype=np.uint8)
    big = nib.Nifti1Image(d.signals().astype(">f4"), d.AFFINE, nib.Nifti1Header(endianness=">"))
    scaled = nib.Nifti1Image((d.signals() * 10).astype(np.int16), d.AFFINE)
    scaled.header.set_slope_inter(0.1, 0)
    no_b0 = [5, 10, 300, 600, 1000]
    noisy = d.signals()
    noisy[2, 2, 0, 2], noisy[2, 2, 1, 4] = np.nan, -3
    data = {"big": None, "scaled": None, "slice": d.signals()[:, :, 0], "nob0": d.signals(no_b0), "odd": noisy}
    for name, values in data.items():
        label = f"sub-{name}"
        d.add(f"{label}/dwi/{label}_dwi", data=values, b_values=no_b0 if name == "nob0" else d.B_VALUES)
        m.add_mask(f"{label}/dwi/{label}_desc-brain_mask", mask[:, :, :1] if name == "slice" else mask)
    nib.save(big, d / "sub-big/dwi/sub-big_dwi.nii.gz")
    nib.save(scaled, d / "sub-scaled/dwi/sub-scaled_dwi.nii.gz")
    assert run("--participant-label", *data).code == 0
    for name in data:
        adc = run.out.data(f"sub-{name}_model-adc_param-adc_desc-lsq_dwimap")
        assert adc.shape == ((5, 6, 1) if name == "slice" else d.SHAPE)
        if name == "odd":
            assert np.isnan(adc[2, 2, 0])
            assert adc[2, 2, 1] > 1.001e-3
            adc[2, 2] = 1e-3
        np.testing.assert_allclose(adc, 1e-3, rtol=2e-3)
    status = run.out.data("sub-odd_model-adc_param-status_desc-lsq_dwimap")
    assert status[2, 2, 0] == 4
    assert json.loads(json.dumps(run.out.sidecar("sub-odd_model-adc_param-status_desc-lsq_dwimap")))["Levels"]["4"]


@pytest.mark.usefixtures("blank_figures")
def test_qsiprep_outputs(app, tiny, new_dataset, outputs, tmp_path):
    """As the input, and as a derivative in the place of the raw image."""
    qsiprep = new_dataset(tmp_path / "qsiprep", derivative=True)
    stem = "sub-01/dwi/sub-01_space-ACPC"
    qsiprep.add(f"{stem}_desc-preproc_dwi", sidecar={"EchoTime": 0.09})
    qsiprep.add_mask(f"{stem}_desc-brain_mask")
    tiny.add("sub-01/dwi/sub-01_dwi")
    name = "sub-01_space-ACPC_model-adc_param-adc_desc-lsq_dwimap"
    uri = "sub-01/dwi/sub-01_space-ACPC_desc-preproc_dwi.nii.gz"
    for words, source in (
        ((qsiprep, tmp_path / "a", "participant"), f"bids:raw:{uri}"),
        ((tiny, tmp_path / "b", "participant", "-d", f"qsiprep={qsiprep}"), f"bids:qsiprep:{uri}"),
    ):
        assert app(*words, "--nprocs", 1).code == 0
        out = outputs(words[1])
        assert out.sidecar(name)["Sources"][0] == source
        assert sum("param-adc_desc" in m for m in out.maps()) == 1
        assert "no denoising" not in out.report()


@pytest.mark.usefixtures("blank_figures")
def test_a_dataset_of_links(app, pair, outputs, tmp_path):
    """As DataLad lays it out: the dataset is a link, and so is every file."""
    tiny, masks = pair
    annex = tmp_path / "annex"
    annex.mkdir()
    for i, path in enumerate(sorted(tiny.root.rglob("*.*"))):
        target = annex / f"MD5E-{i}{''.join(path.suffixes)}"
        path.rename(target)
        path.symlink_to(target)
    link = tmp_path / "link"
    link.symlink_to(tiny.root)
    assert (
        app(link, tmp_path / "out", "participant", "--preprocess", "none", "-d", f"masks={masks}", "--nprocs", 1).code
        == 0
    )
    out = outputs(tmp_path / "out")
    assert out.sidecar("sub-01_model-adc_param-adc_desc-lsq_dwimap")["Sources"][0] == f"bids:raw:{IMAGE}"
    assert out.description()["DatasetLinks"]["raw"] == f"file://{link}"
