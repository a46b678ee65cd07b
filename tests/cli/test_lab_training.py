"""The laboratory trains and evaluates: what the command line takes, leaves and refuses."""

import csv

import numpy as np
import pytest

from bidsfit import models
from bidsfit.acquisition import Acquisition
from bidsfit.cli.lab import main
from bidsfit.estimators.network import Network
from bidsfit.training.bundle import read_bundle

PROTOCOL = ["--model", "smt2", "--b-values", "0", "0", "1000", "2500", "--directions", "20"]


@pytest.fixture
def recipe(tmp_path):
    path = tmp_path / "tiny.yml"
    path.write_text("kind: network\nunits: 16\nsteps: 40\nbatch: 256\nvalidation: 1024\nchecks: 2\n")
    return path


def test_what_was_trained_fits_data_of_its_protocol(tmp_path, recipe, capsys):
    out = tmp_path / "net.zip"
    words = ["train", "net-uniform", *PROTOCOL, "--snr", "20", "--recipe", recipe, "--out", out, "--threads", "1"]
    assert main([str(word) for word in words]) == 0
    assert "validation loss" in capsys.readouterr().out
    bundle = read_bundle(out)
    assert bundle.facts["Acquisition"]["BValues"] == [0, 1000, 2500]
    assert bundle.facts["Acquisition"]["Measurements"] == [2, 20, 20]
    b_values = np.array([0.0] * 2 + [1000.0] * 20 + [2500.0] * 20)
    acquisition = Acquisition(b_values, n_directions=np.where(b_values > 0, 20, 1))
    estimate = Network(models.get("smt2"), trained=out).estimate(np.exp(-b_values / 1500)[None], acquisition)
    assert 0 < estimate.parameters["vcyl"][0] < 1
    assert main([str(word) for word in words]) == 2  # nothing is overwritten
    assert "does not exist yet" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["train", "lsq", *PROTOCOL, "--out", "x.zip"], "needs no training"),
        (["train", "net-unifrom", *PROTOCOL, "--out", "x.zip"], "Did you mean 'net-uniform'"),
        (["train", "net-healthy", *PROTOCOL, "--out", "x.zip"], "--pool"),
        (["train", "net-uniform", *PROTOCOL, "--out", "x.txt"], ".zip"),
        (["train", "net-uniform", *PROTOCOL, "--recipe", "forest", "--out", "x.zip"], "forest"),
        (["train", "net-uniform", "--model", "smt2", "--b-values", "0", "1000", "--out", "x.zip"], "does not support"),
        (["train", "net-uniform", "--model", "smt3normalised", "--out", "x.zip"], "--b-values"),
        (["evaluate", *PROTOCOL, "--estimators", "lsq", "--out", "x", "--at", "vcyl=0.5"], "lambda"),
        (["evaluate", *PROTOCOL, "--estimators", "lsq", "--out", "x", "--at", "vcyl=2", "lambda=0.001"], "outside"),
        (["evaluate", *PROTOCOL, "--estimators", "lsq", "--out", "x", "--lesion", "none"], "Unknown lesion"),
        (["reproduce", "gyori2022", "--table", "4"], "table of gyori2022"),
    ],
)
def test_refusals_leave_nothing(tmp_path, monkeypatch, capsys, words, message):
    monkeypatch.chdir(tmp_path)
    assert main(words) == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_evaluate_leaves_tables_figures_and_a_page(tmp_path, capsys):
    out = tmp_path / "judged"
    words = [
        "evaluate", *PROTOCOL, "--snr", "30", "--estimators", "lsq", "mle", "--points", "5", "--repeats", "40",
        "--at", "vcyl=0.6", "lambda=0.0018", "--out", out, "--threads", "1",
    ]  # fmt: skip
    assert main([str(word) for word in words]) == 0
    with (out / "means.csv").open(newline="") as stream:
        rows = {row["estimator"]: row for row in csv.DictReader(stream)}
    assert 0.01 < float(rows["lsq"]["rmse_vcyl"]) < 0.4
    with (out / "points_lsq.csv").open(newline="") as stream:
        points = list(csv.DictReader(stream))
    assert len(points) == 25
    assert max(float(point["lambda"]) for point in points) == 3
    for name in ("bias", "sd", "rmse", "boxes", "lesion", "differences"):
        assert (out / f"{name}.png").exists()
        assert (out / f"{name}.svg").exists()
    page = (out / "report.html").read_text()
    assert page.count("data:image/png") == 6
    assert "http" not in page.split("<style>")[0]
