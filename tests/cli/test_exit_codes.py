"""What ends with which exit code (BEP027). Signals are tested with the runs that they stop (test_resume.py)."""

import pytest

from bidsfit.cli.lab import main as lab
from bidsfit.exceptions import ExitCode


@pytest.fixture
def run(app, pair, tmp_path):
    """``run(words...)``: a dry run on a valid dataset with one image."""
    words = (pair[0], tmp_path / "out", "participant", "-d", f"masks={pair[1]}", "--dry-run", "--model", "adc")
    return lambda *more: app(*words, *more).code


def test_all_is_well(run):
    assert run() == ExitCode.OK == 0


def test_an_image_that_is_left_out(run, pair):
    pair[0].add("sub-02/dwi/sub-02_dwi", b_values=[1000, 1000])
    assert run() == ExitCode.FAILED == 1


def test_an_invalid_dataset(run, pair):
    pair[0].write("sub-01/dwi/sub-01_notes.txt", "")
    assert run() == ExitCode.INVALID_DATASET == 16


def test_no_dataset_at_all(app, tmp_path):
    assert app(tmp_path, tmp_path.parent / "out", "participant").code == ExitCode.INVALID_DATASET


@pytest.mark.parametrize("words", [("--participant-label", "99"), ("--session-label", "9"), ("--run-id", "9")])
def test_filters_that_match_nothing(run, words):
    assert run(*words) == ExitCode.NO_MATCH == 18


@pytest.mark.parametrize("words", [("--no-such-option",), ("--average", "mean"), ("--mem", "lots")])
def test_a_wrong_command_line(run, words):
    assert run(*words) == ExitCode.USAGE == 64


def test_data_that_cannot_be_used(run, pair):
    pair[0].write("sub-01/dwi/sub-01_dwi.bval", "0 1000\n")
    assert run("--skip-bids-validation") == ExitCode.DATA == 65


def test_input_that_is_not_there(app, tmp_path):
    assert app(tmp_path / "none", tmp_path / "out", "participant").code == ExitCode.NO_INPUT == 66


def test_results_that_cannot_be_written(run, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "dataset_description.json").write_text('{"Name": "mine"}')
    assert run() == ExitCode.CANNOT_CREATE == 73


def test_signals_have_the_codes_of_shells():
    assert (ExitCode.INTERRUPTED, ExitCode.TERMINATED) == (130, 143)


def test_the_laboratory_has_the_same(tmp_path):
    phantom = ["phantom", str(tmp_path), "--model", "adc", "--shape", "16", "16", "1"]
    assert lab([*phantom[:1], str(tmp_path / "ds"), *phantom[2:], "--effect", "D=15"]) == ExitCode.USAGE
    (tmp_path / "mine.txt").touch()
    assert lab(phantom) == ExitCode.CANNOT_CREATE
    assert lab(["validate", str(tmp_path)]) == ExitCode.INVALID_DATASET
