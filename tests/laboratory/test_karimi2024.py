"""The first experiments of the review, with a training of a second; and what is known of the simulated tissue."""

import csv
from dataclasses import replace

import numpy as np
import pytest

from bidsfit.bids.phantom import write_phantom
from bidsfit.laboratory import karimi2024 as paper
from bidsfit.laboratory.gallery import Gallery
from bidsfit.laboratory.labelled import Labelled, Scan, evenly, scans_of, voxels_of
from bidsfit.laboratory.paper import Options, Reproduction
from bidsfit.phantom.cohort import Cohort
from bidsfit.phantom.directions import spread_directions
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
    batch = paper.Crossings(Uniform(paper.DTI), acquisition, Noise(1e6)).draw(500, np.random.default_rng(0))
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


@pytest.fixture(scope="module")
def brain(tmp_path_factory):
    """A dataset of one simulated head with 20 directions, twice measured at b = 0, and hardly any noise."""
    out = tmp_path_factory.mktemp("brain") / "ds"
    size = {"n_healthy": 1, "n_patients": 0, "shape": (24, 24, 4), "snr": 200.0}
    write_phantom(Cohort("dti", **size, b_values=(0.0, 0.0, 1000.0), n_directions=20), out)
    return out


def test_images_of_brains_teach_and_test(run, brain, tmp_path):
    """Fits come nearer to the tensors of all directions the more of them they have; slices that teach do not count."""
    made = replace(run, data=brain)
    paper.real(made, "real")
    rows = read(tmp_path / "real.csv")
    labels = ["ols", "wls", paper.TAUGHT, paper.SIMULATED]
    assert [(row["directions"], row["estimator"]) for row in rows] == [
        (n, label) for n in ("6", "12") for label in labels
    ]
    errors = {(row["directions"], row["estimator"]): float(row["RMSE FA"]) for row in rows}
    assert errors["12", "wls"] < errors["6", "wls"] < 0.1
    (scan,) = scans_of(brain, paper.DTI.model)
    assert {int(row["voxels"]) for row in rows} == {int((scan.positions[:, 2] == 1).sum())}


def test_without_images_the_page_says_so(run, tmp_path):
    paper.real(run, "real")
    assert read(tmp_path / "real.csv") == []
    assert "--data" in run.tables[0].caption


def test_networks_that_read_neighbours_are_judged_in_lesions_too(run, tmp_path, monkeypatch):
    monkeypatch.setattr(paper, "FEW", (6,))
    paper.patches(run, "patches")
    rows = read(tmp_path / "patches.csv")
    labels = ["ols", "wls", paper.TAUGHT, paper.PATCHES]
    parts = ("healthy tissue", "stroke")
    assert [(row["part"], row["estimator"]) for row in rows] == [(part, label) for part in parts for label in labels]
    voxels = {row["part"]: int(row["voxels"]) for row in rows}
    assert voxels["healthy tissue"] > 10 * voxels["stroke"] > 100
    assert all(np.isfinite(float(row["RMSE FA"])) for row in rows)


def test_directions_are_chosen_evenly():
    """Six of twelve that lie among twelve others near one axis; and no exchange would make them repel less."""
    good, cap = spread_directions(6), spread_directions(40)
    cap = cap[np.argsort(-np.abs(cap[:, 2]))[:10]]
    directions = np.concatenate([cap, good])
    chosen = evenly(directions, 6)

    def energy(rows):
        pairs = [(directions[a], directions[b]) for i, a in enumerate(rows) for b in rows[i + 1 :]]
        return sum(1 / np.linalg.norm(u - v) + 1 / np.linalg.norm(u + v) for u, v in pairs)

    assert energy(list(chosen)) <= energy(list(range(10, 16))) * 1.02
    for i, other in np.ndindex(6, 16):
        if other not in chosen:
            changed = [other if k == i else c for k, c in enumerate(chosen)]
            assert energy(changed) >= energy(list(chosen)) - 1e-9


def test_labelled_voxels_are_shown_with_their_neighbours_and_those_left_out_are_not():
    """The centre of a patch is the voxel whose label is taught, relative to its own image at b = 0."""
    rng = np.random.default_rng(0)
    places = np.argwhere(np.full((3, 3, 3), True))
    scan = Scan("cube", 100 + rng.random((27, 7)), places, paper.protocol(6), 1.0)
    labels, rows = rng.random((27, 6)), np.arange(20)
    images = voxels_of([scan], paper.DTI.model)
    made = Labelled(paper.DTI, images, labels, rows, (1, 1, 1))
    batch = made.draw(50, rng)
    assert batch.features.shape == (50, 1, 3, 3, 3, 7)
    whole = scan.signals[:, 1:] / scan.signals[:, :1]
    for features, target in zip(batch.features[:, 0], batch.targets[:, 0], strict=True):
        (own,) = np.flatnonzero((labels == target).all(axis=1))
        assert own in rows[:19]
        assert own not in (9,)
        np.testing.assert_allclose(features[1, 1, 1, :6], whole[own], rtol=1e-5)
        np.testing.assert_array_equal(features[1, 1, 1, 6], 1)
    assert {tuple(target) for target in made.held_out(10, rng).targets[:, 0]} == {tuple(labels[9]), tuple(labels[19])}


@pytest.mark.parametrize("first", [3, 9, 15])
def test_both_shells_are_spread_over_the_sphere(first):
    """The second moments of either shell are nearly those of a sphere."""
    made = paper.two_shells(first, first + 1, (1000.0, 2000.0))
    for b, n in ((1000, first), (2000, first + 1)):
        directions = made.variable("direction")[made.b_values == b]
        assert len(directions) == n
        moments = np.linalg.eigvalsh(directions.T @ directions / n)
        assert moments[0] > 0.2 if n > 4 else moments[0] > 0.05


@pytest.mark.slow
def test_more_images_tell_more_of_kurtosis_and_of_neurites(run, tmp_path, monkeypatch):
    monkeypatch.setattr(paper, "FITTED_QUICK", 150)
    monkeypatch.setattr(paper, "SAMPLES_QUICK", 200)
    paper.kurtosis(run, "kurtosis")
    paper.neurites(run, "noddi")
    rows = read(tmp_path / "kurtosis.csv")
    shown = [("19", "network"), *(("31", label) for label in ("ols", "wls", "network"))]
    assert [(row["images"], row["estimator"]) for row in rows] == [*shown, ("61", "wls"), ("61", "network")]
    of = {(row["images"], row["estimator"]): row for row in rows}
    assert float(of["61", "wls"]["RMSE MK"]) < float(of["31", "wls"]["RMSE MK"])
    rows = read(tmp_path / "noddi.csv")
    errors = {(row["images"], row["estimator"]): float(row["RMSE NDI"]) for row in rows}
    assert list(errors) == [(n, label) for n in ("8", "12") for label in ("lsq", "network")] + [("72", "lsq")]
    assert errors["72", "lsq"] < errors["12", "lsq"] < errors["8", "lsq"]


def test_least_squares_and_a_network_turn_with_the_tissue_and_another_training_does_not(run, tmp_path):
    paper.rotation(run, "rotation")
    rows = read(tmp_path / "rotation.csv")
    assert len(rows) == 3 * 5
    again = [float(row["within 1"]) for row in rows if row["estimator"] == paper.AGAIN]
    assert min(again) < 50  # after four steps it has learned no rotation
    assert all(float(row["within 1"]) == 100 for row in rows if row["estimator"] != paper.AGAIN)


def test_lesions_are_flagged_and_other_protocols_refused(run, tmp_path):
    paper.collapse(run, "collapse")
    rows = {row["case"]: row for row in read(tmp_path / "collapse.csv") if row["estimator"] == paper.NETWORK}
    assert float(rows["as trained"]["flagged"]) < 5
    assert min(float(rows[f"{kind} lesion"]["flagged"]) for kind in ("restricted", "swollen")) > 80
    refused = {row["case"]: row["protocol"] for row in read(tmp_path / "collapse-protocol.csv")}
    assert [case for case, words in refused.items() if words == "taken"] == list(rows)[:4]
    assert refused["other directions"] == "it was trained for other directions"
    assert "not trained for b = 700" in refused["b = 700"]
