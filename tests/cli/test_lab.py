"""The laboratory's command line."""

import subprocess
import sys

import pytest

from bidsfit import __version__
from bidsfit.cli import lab
from bidsfit.cli.lab import main

QUICK = ["--model", "adc", "--shape", "16", "16", "1", "--participants", "1", "--patients", "1"]


def test_phantom(tmp_path, capsys):
    assert main(["phantom", str(tmp_path / "ds"), *QUICK, "--sessions", "2", "--noise", "gaussian"]) == 0
    assert "2 participants, 4 images" in capsys.readouterr().out
    assert len(list((tmp_path / "ds").glob("sub-*/ses-*/dwi/*_dwi.nii.gz"))) == 4


def test_options_arrive(tmp_path, capsys):
    """Underscores are accepted too."""
    scheme = ["--b_values", "0", "300", "1000", "--directions", "2", "--snr=7", "--seed", "11", "--lesion", "oedema"]
    assert main(["phantom", str(tmp_path / "ds_1"), *QUICK, *scheme]) == 0
    readme = (tmp_path / "ds_1/README").read_text()
    for text in (
        "0 (1 in 1), 300 (2 in 2), 1000 (2 in 2)",
        "SNR 7",
        "Seed: 11",
        "oedema",
        "1 healthy, 1 with a lesion",
    ):
        assert text in readme


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--model", "ivmi"], "Did you mean 'ivim'"),
        (["--snr", "0"], "SNR must be positive"),
        (["--model", "smt2", "--b-values", "0", "1000"], "does not support the model 'smt2'"),
        (["--lesion", "nothing"], "Unknown lesion"),
    ],
)
def test_refusals_are_one_line_on_stderr(tmp_path, capsys, options, message):
    assert main(["phantom", str(tmp_path / "ds"), *QUICK, *options]) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.count("\n") == 1
    assert captured.out == ""
    assert list(tmp_path.iterdir()) == []


def test_refuses_a_folder_that_holds_something(tmp_path, capsys):
    (tmp_path / "mine.txt").write_text("mine")
    assert main(["phantom", str(tmp_path), *QUICK]) == 2
    assert str(tmp_path) in capsys.readouterr().err


def test_refuses_a_place_that_cannot_be_written(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert main(["phantom", str(tmp_path / "file/ds"), *QUICK]) == 2
    assert "cannot be written" in capsys.readouterr().err


@pytest.mark.parametrize("argv", [[], ["phantom"], ["nothing"], ["phantom", "x", "--model", "adc", "--snr", "high"]])
def test_unusable_command_lines(argv, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(argv)
    assert "usage" in capsys.readouterr().err


def test_version_and_help(capsys):
    for argv, text in ((["--version"], __version__), (["--help"], "phantom"), (["phantom", "--help"], "--b-values")):
        with pytest.raises(SystemExit, match="0"):
            main(argv)
        assert text in capsys.readouterr().out


def test_help_imports_nothing_slow():
    code = (
        f"import sys; import {lab.__name__} as lab\n"
        "try: lab.main(['phantom', '--help'])\n"
        "finally: assert not {'numpy', 'sympy', 'numba', 'scipy', 'nibabel'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_traceback_on_request(tmp_path):
    with pytest.raises(Exception, match="SNR"):
        main(["-vv", "phantom", str(tmp_path / "ds"), *QUICK, "--snr", "-1"])
