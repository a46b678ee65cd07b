"""The laboratory's command line."""

import subprocess
import sys
from dataclasses import asdict, replace

import pytest

from bidsfit import __version__
from bidsfit.cli import lab
from bidsfit.cli.lab import main
from bidsfit.phantom.imperfections import RAW, RAW_ABDOMEN, Imperfections
from bidsfit.phantom.study import Study, repeatability

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
    ("options", "expected"),
    [
        ([], {}),
        (["--motion", "1.5", "--gibbs"], {"motion": 1.5, "gibbs": True}),
        (["--off_resonance", "12", "--outliers", "1"], {"off_resonance": 12.0, "outliers": 1}),
        (["--raw"], asdict(RAW)),
        (["--raw", "--motion", "0", "--eddy", "3"], asdict(RAW) | {"motion": 0.0, "eddy": 3.0}),
        (["--anatomy", "abdomen", "--breathing", "8"], {"breathing": 8.0}),
        (["--anatomy", "abdomen", "--raw"], asdict(RAW_ABDOMEN)),
    ],
)
def test_imperfections(tmp_path, monkeypatch, options, expected):
    seen = []
    monkeypatch.setattr("bidsfit.bids.phantom.write_phantom", lambda cohort, out: seen.append(cohort))
    assert main(["phantom", str(tmp_path / "ds"), *QUICK, *options]) == 0
    assert seen[0].imperfections == Imperfections(**expected)
    assert not seen[0].t1w
    assert seen[0].anatomy == ("abdomen" if "abdomen" in options else "head")


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ([], None),
        (["--within", "5"], Study(within={"f": 0.05, "D": 0.05, "Dstar": 0.05})),
        (["--between", "10%", "f=20"], Study(between={"f": 0.2, "D": 0.1, "Dstar": 0.1})),
        (
            ["--treated", "3", "--retest", "4", "--effect", "D=15", "f=-20"],
            Study(n_retest=4, n_treated=3, effect={"D": 0.15, "f": -0.2}),
        ),
        (["--study", "repeatability"], repeatability(("f", "D", "Dstar"))),
        (
            ["--study", "repeatability", "--retest", "20", "--effect", "f=-20"],
            replace(repeatability(("f", "D", "Dstar")), n_retest=20, effect={"f": -0.2, "D": 0.15, "Dstar": 0.0}),
        ),
        (
            ["--study", "repeatability", "--treated", "0"],
            replace(repeatability(("f", "D", "Dstar")), n_treated=0, effect={}),
        ),
    ],
)
def test_study(tmp_path, monkeypatch, options, expected):
    seen = []
    monkeypatch.setattr("bidsfit.bids.phantom.write_phantom", lambda cohort, out: seen.append(cohort))
    assert main(["phantom", str(tmp_path / "ds"), "--model", "ivim", "--shape", "16", "16", "1", *options]) == 0
    assert seen[0].study == expected
    others = 0 if expected is not None and expected.repeats else 2
    assert (seen[0].n_healthy, seen[0].n_patients) == (others, others)


def test_healthy_participants_beside_a_study(tmp_path, capsys):
    options = ["--model", "adc", "--shape", "16", "16", "1", "--participants", "2", "--retest", "1", "--treated", "1"]
    assert main(["phantom", str(tmp_path / "ds"), *options]) == 0
    assert "4 participants, 6 images" in capsys.readouterr().out
    assert len(list((tmp_path / "ds").glob("sub-*/ses-*/dwi/*_dwi.nii.gz"))) == 6


def test_raw_phantom(tmp_path):
    assert main(["phantom", str(tmp_path / "ds"), *QUICK, "--raw", "--off-resonance", "10", "--t1w"]) == 0
    names = {path.name for path in (tmp_path / "ds/sub-01").rglob("*.nii.gz")}
    assert names == {"sub-01_T1w.nii.gz", "sub-01_dwi.nii.gz", "sub-01_dir-AP_epi.nii.gz", "sub-01_dir-PA_epi.nii.gz"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--motion", "-1"], "motion must be a finite number of at least 0"),
        (["--outliers", "1000"], "1000 outlier volumes need as many"),
        (["--off-resonance", "1000"], "fold"),
        (["--model", "ivmi"], "Did you mean 'ivim'"),
        (["--snr", "0"], "SNR must be positive"),
        (["--model", "smt2", "--b-values", "0", "1000"], "does not support the model 'smt2'"),
        (["--lesion", "nothing"], "Unknown lesion"),
        (["--study", "repeatabilty"], "Did you mean 'repeatability'"),
        (["--within", "f"], "--within takes PERCENT or PARAMETER=PERCENT, for example f=10; found 'f'"),
        (["--treated", "2", "--effect", "15"], "--effect takes PARAMETER=PERCENT"),
        (["--effect", "D=15"], "needs treated participants"),
        (["--between", "f=10"], "Unknown parameter that can vary 'f'"),
        (["--between", "90"], "must be 0 to 50 %, found 90 %"),
        (["--treated", "2", "--effect", "D=2000"], "outside its bounds"),
    ],
)
def test_refusals_are_one_line_on_stderr(tmp_path, capsys, options, message):
    assert main(["phantom", str(tmp_path / "ds"), *QUICK, *options]) in (64, 65)
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.count("\n") == 1
    assert captured.out == ""
    assert list(tmp_path.iterdir()) == []


def test_refuses_a_folder_that_holds_something(tmp_path, capsys):
    (tmp_path / "mine.txt").write_text("mine")
    assert main(["phantom", str(tmp_path), *QUICK]) == 73
    assert str(tmp_path) in capsys.readouterr().err


def test_refuses_a_place_that_cannot_be_written(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert main(["phantom", str(tmp_path / "file/ds"), *QUICK]) == 73
    assert "cannot be written" in capsys.readouterr().err


@pytest.mark.parametrize("argv", [[], ["phantom"], ["nothing"], ["phantom", "x", "--model", "adc", "--snr", "high"]])
def test_unusable_command_lines(argv, capsys):
    with pytest.raises(SystemExit, match="64"):
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
