"""The first experiments of the review, with a training of a second; and what is known of the simulated tissue."""

import csv

import numpy as np
import pytest

from bidsfit.laboratory import karimi2024 as paper
from bidsfit.laboratory.gallery import Gallery
from bidsfit.laboratory.paper import Options, Reproduction
from bidsfit.simulation.distributions import Uniform
from bidsfit.simulation.simulator import Noise
from bidsfit.training import trainer


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A quick run with few voxels and a training of a few steps."""
    for name, value in {"TESTED_QUICK": 300, "SAMPLES_QUICK": 2000}.items():
        monkeypatch.setattr(paper, name, value)
    monkeypatch.setattr(trainer, "PRUNING", 256)
    schedule = {"steps": 4, "batch": 64, "validation": 64, "checks": 1}
    monkeypatch.setattr(paper, "QUICK", {"architecture": {"units": 8}, "schedule": schedule})
    return Reproduction(paper.bench_of(Options(tmp_path, quick=True)), Gallery(tmp_path), quick=True)


def read(path):
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_the_tensor_of_a_single_bundle_is_known():
    """Diffusivities 2 and 0.5: MD is 1, and FA = 1.5 / sqrt(4 + 2 * 0.25)."""
    tissue = np.array([[2.0, 0.5, 1.0, 0.0, 0.6, 1.1, 0.2, 3.0]])
    found = paper.quantities(paper.true_tensors(tissue))
    assert found["MD"][0] == pytest.approx(1.0)
    assert found["FA"][0] == pytest.approx(1.5 / np.sqrt(4.5))
    axis = np.array([[np.sin(0.6) * np.cos(1.1), np.sin(0.6) * np.sin(1.1), np.cos(0.6)]])
    assert paper.angles(-axis, found["direction"])[0] == pytest.approx(0, abs=1e-4)


def test_a_crossing_has_less_anisotropy_between_its_bundles():
    """Equal bundles along x and y: the tensor is oblate, with its smallest diffusivity along z."""
    right = np.pi / 2
    single, crossing = np.tile([2.0, 0.3, 1.0, 0.0, right, 0.0, right, right], (2, 1)) * [[1], [1]]
    crossing[2] = 0.5
    elements = paper.true_tensors(np.array([single, crossing]))
    assert elements[1, 0] == pytest.approx(elements[1, 1], rel=0.02)
    assert elements[1, 2] == pytest.approx(0.3, rel=0.1)
    fa = paper.quantities(elements)["FA"]
    assert fa[1] < 0.7 * fa[0]


def test_the_network_learns_the_tensors_of_the_full_set():
    acquisition = paper.protocol(paper.SHOWN)
    batch = paper.Labelled(Uniform(paper.DTI), acquisition, Noise(1e6)).draw(500, np.random.default_rng(0))
    linear = paper.LogLinear(paper.DTI.model, acquisition)(batch.noisy[:, 0])[:, paper.DTI.places]
    assert np.abs(linear - batch.targets[:, 0]).max() < 0.35  # crossing fibres are no tensor: protocols differ a little
    assert np.corrcoef(linear[:, 3], batch.targets[:, 0, 3])[0, 1] > 0.98
    assert batch.features.shape == (500, 1, paper.SHOWN)


def test_errors_are_those_of_scalars_and_main_direction():
    """Turned by 90 degrees and with all diffusivities 10 % larger."""
    truth = np.tile([1.6, 0.4, 0.4, 0.0, 0.0, 0.0], (4, 1))
    rmse_fa, bias_fa, rmse_md, bias_md, angle = paper.errors(1.1 * truth[:, [1, 0, 2, 3, 4, 5]], truth)
    np.testing.assert_allclose([rmse_fa, bias_fa, rmse_md, bias_md, angle], [0, 0, 0.08, 0.08, 90], atol=1e-9)


def test_more_directions_have_smaller_errors(run, tmp_path):
    paper.few(run, "few")
    rows = read(tmp_path / "few.csv")
    labels = [*paper.CLASSICAL, paper.NETWORK]
    shown = [("6", label) for label in labels] + [("12", label) for label in labels] + [("60", "wls")]
    assert [(row["directions"], row["estimator"]) for row in rows] == shown
    of = {(row["directions"], row["estimator"]): row for row in rows}
    for column in ("RMSE FA", "RMSE MD", "angle"):
        errors = [float(of[n, "wls"][column]) for n in ("6", "12", "60")]
        assert errors == sorted(errors, reverse=True)


def test_errors_grow_where_the_noise_does_whatever_the_objective(run, tmp_path, monkeypatch):
    monkeypatch.setattr(paper, "LOW", (5.0, 20.0))
    paper.objectives(run, "objectives")
    rows = read(tmp_path / "objectives.csv")
    labels = ["ols", "wls", "mle", *paper.OBJECTIVES]
    assert [(row["SNR"], row["estimator"]) for row in rows] == [(snr, one) for snr in ("5", "20") for one in labels]
    of = {(row["SNR"], row["estimator"]): row for row in rows}
    for label in ("ols", "wls", "mle"):
        assert float(of["5", label]["RMSE MD"]) > 1.5 * float(of["20", label]["RMSE MD"])
    assert float(of["5", "wls"]["bias MD"]) < float(of["5", "mle"]["bias MD"]) - 0.02  # the noise floor
    known = {tuple(of["5", label].values())[2:] for label in paper.OBJECTIVES}
    assert len(known) == len(paper.OBJECTIVES)


def test_least_squares_turns_with_the_tissue(run, tmp_path):
    paper.rotation(run, "rotation")
    rows = read(tmp_path / "rotation.csv")
    assert len(rows) == 3 * 4
    assert all(float(row["within 1"]) == 100 for row in rows if row["estimator"] in paper.CLASSICAL)
    network = [float(row["within 1"]) for row in rows if row["estimator"] == paper.NETWORK]
    assert min(network) < 50  # after four steps it has learned no rotation


def test_lesions_are_flagged_and_other_protocols_refused(run, tmp_path):
    paper.collapse(run, "collapse")
    rows = {row["case"]: row for row in read(tmp_path / "collapse.csv") if row["estimator"] == paper.NETWORK}
    assert float(rows["as trained"]["flagged"]) < 5
    assert min(float(rows[f"{kind} lesion"]["flagged"]) for kind in ("restricted", "swollen")) > 80
    refused = {row["case"]: row["protocol"] for row in read(tmp_path / "collapse-protocol.csv")}
    assert [case for case, words in refused.items() if words == "taken"] == list(rows)[:4]
    assert refused["other directions"] == "it was trained for other directions"
    assert "not trained for b = 700" in refused["b = 700"]
