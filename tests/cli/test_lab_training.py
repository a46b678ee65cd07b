"""The laboratory trains and evaluates: what the command line takes, leaves and refuses."""

import csv
import json
import re
from types import SimpleNamespace

import numpy as np
import pytest

from bidsfit import estimators, models
from bidsfit.acquisition import Acquisition
from bidsfit.cli.lab import main
from bidsfit.laboratory.bench import Bench
from bidsfit.models.space import ParameterSpace
from bidsfit.phantom.directions import spread_directions
from bidsfit.trained.network import Network
from bidsfit.training.bundle import read_bundle
from bidsfit.training.recipe import load_recipe

PROTOCOL = ["--model", "smt2", "--b-values", "0", "0", "1000", "2500", "--directions", "20"]


@pytest.fixture
def recipe(tmp_path):
    path = tmp_path / "tiny.yml"
    path.write_text("kind: network\nunits: 16\nsteps: 40\nbatch: 256\nvalidation: 1024\nchecks: 2\n")
    return path


@pytest.fixture(scope="module")
def net(tmp_path_factory):
    """A trained file, of SNR 20 and Rician noise."""
    folder = tmp_path_factory.mktemp("net")
    (folder / "tiny.yml").write_text("kind: network\nunits: 16\nsteps: 40\nbatch: 256\nvalidation: 1024\nchecks: 2\n")
    words = ["train", "net-uniform", *PROTOCOL, "--snr", "20", "--noise", "rician", "--bounds", "lambda=0.0001,0.003"]
    assert main([*words, "--recipe", str(folder / "tiny.yml"), "--out", str(folder / "net.zip"), "--threads", "1"]) == 0
    return folder / "net.zip"


def name_of(path):
    return f"net-uniform-{read_bundle(path).facts['Checksum'][:6]}"


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
    assert main([str(word) for word in words]) == 73  # nothing is overwritten
    assert "does not exist yet" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["train", "lsq", *PROTOCOL, "--out", "x.zip"], "needs no training"),
        (["train", "mse-crb", *PROTOCOL, "--out", "x.zip", "--recipe", "network"], "mse-crb is a recipe itself"),
        (["train", "net-unifrom", *PROTOCOL, "--out", "x.zip"], "Did you mean 'net-uniform'"),
        (["train", "net-healthy", *PROTOCOL, "--out", "x.zip"], "--pool"),
        (["train", "net-uniform", *PROTOCOL, "--out", "x.txt"], ".zip"),
        (["train", "net-uniform", *PROTOCOL, "--recipe", "forest", "--out", "x.zip"], "forest"),
        (["train", "net-uniform", "--model", "smt2", "--b-values", "0", "1000", "--out", "x.zip"], "does not support"),
        (["train", "net-uniform", "--model", "smt3normalised", "--out", "x.zip"], "--b-values"),
        (["evaluate", *PROTOCOL, "--estimators", "lsq", "--out", "x", "--at", "vcyl=0.5"], "lambda"),
        (["evaluate", *PROTOCOL, "--estimators", "lsq", "--out", "x", "--at", "vcyl=2", "lambda=0.001"], "outside"),
        (["evaluate", *PROTOCOL, "--estimators", "lsq", "--out", "x", "--lesion", "none"], "Unknown lesion"),
        (["reproduce", "gyori2022", "--table", "4"], "table of the paper: '4'. Valid: 1, 2, 3"),
    ],
)
def test_refusals_leave_nothing(tmp_path, monkeypatch, capsys, words, message):
    monkeypatch.chdir(tmp_path)
    assert main(words) in (18, 64, 65, 66)
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
    for name in ("bias", "sd", "rmse", "courses", "pairs_lsq_mle", "boxes", "lesion", "differences"):
        assert (out / f"{name}.png").exists()
        assert (out / f"{name}.svg").exists()
    page = (out / "report.html").read_text()
    assert page.count("data:image/png") == 8
    assert "http" not in page.split("<style>")[0]


def test_evaluate_a_model_of_many_parameters(tmp_path, triexponential):
    """Points are scattered; the figures that need a plane are left out, and the page says so."""
    out = tmp_path / "judged"
    words = [
        "evaluate", "--model", "triexponential", "--b-values", *(0, 10, 20, 50, 100, 200, 400, 800, 1500, 2500),
        "--directions", 3, "--snr", 200, "--estimators", "lsq", "--points", 3, "--repeats", 10, "--out", out,
        "--threads", 1,
    ]  # fmt: skip
    assert main([str(word) for word in words]) == 0
    with (out / "points_lsq.csv").open(newline="") as stream:
        points = list(csv.DictReader(stream))
    assert 4 <= len(points) <= 16
    assert len({point["D1"] for point in points}) == len(points)  # no grid
    assert all(float(point["f1"]) + float(point["f2"]) <= 1 for point in points)
    assert [path.name for path in out.glob("*.png")] == ["courses.png"]
    page = (out / "report.html").read_text()
    assert "are drawn of two or three parameters, and triexponential has 5" in page
    assert f"of all {len(points)} combinations" in page


def test_evaluate_judges_what_train_wrote(net, tmp_path, capsys):
    """In the model, protocol, noise and bounds of the file, without another word."""
    out = tmp_path / "judged"
    words = ["evaluate", "--estimators", "lsq", str(net), "--points", "3", "--repeats", "30", "--out", str(out)]
    assert main([*words, "--threads", "1"]) == 0
    with (out / "means.csv").open(newline="") as stream:
        rows = {row["estimator"]: row for row in csv.DictReader(stream)}
    assert list(rows) == ["lsq", name_of(net)]
    assert 0.01 < float(rows[name_of(net)]["rmse_vcyl"]) < 0.6
    with (out / "points_lsq.csv").open(newline="") as stream:
        assert min(float(point["lambda"]) for point in csv.DictReader(stream)) == 0.1
    page = re.sub(r"<[^>]*>|\s+", " ", (out / "report.html").read_text())
    for words in (
        "b = 0 (x2), 1000 (x20), 2500 (x20) s/mm²",
        "SNR 20 (S0 / standard deviation of one measurement), Rician; 30 realisations",
        "lambda (10⁻³ mm²/s) 0.1 to 3",
        f"{net}, trained with Rician noise of SNR 20",
        "estimator vcyl lambda (10⁻³ mm²/s)",
    ):
        assert words in re.sub(r" +", " ", page)


def test_evaluate_compares_trainings(recipe, tmp_path, monkeypatch):
    monkeypatch.setattr("bidsfit.laboratory.bench.quick_recipes", lambda: {"network": load_recipe(recipe)})
    words = ["evaluate", *PROTOCOL, "--estimators", "lsq", "net-uniform", "--out", str(tmp_path / "out"), "--quick"]
    assert main([*words, "--trainings", "2", "--points", "3", "--repeats", "4", "--threads", "1"]) == 0
    with (tmp_path / "out/trainings.csv").open(newline="") as stream:
        (row,) = csv.DictReader(stream)  # least squares is not trained
    assert row["estimator"] == "net-uniform"
    assert 0.001 < float(row["vcyl"]) < 1
    assert "CV_NET" in (tmp_path / "out/report.html").read_text()


def test_options_win_over_the_file(net, tmp_path):
    from argparse import Namespace

    from bidsfit.cli.lab_options import setting_of

    options = dict.fromkeys(
        ("model", "image", "bval", "bvec", "b_values", "table", "directions", "snr", "noise", "noise_free_s0")
    ) | {"organ": "general"}
    asked = setting_of(Namespace(**options, bounds=None), net)
    assert (asked.noise.snr, asked.noise.kind, asked.noise.lowest) == (20, "rician", True)
    assert asked.acquisition.weights.tolist() == [2, 20, 20]
    given = options | {
        "snr": 7.0,
        "noise": "gaussian",
        "noise_free_s0": True,
        "b_values": [0, 700, 2000],
        "directions": 9,
    }
    asked = setting_of(Namespace(**given, bounds=["vcyl=0.2,0.9"]), net)
    assert (asked.noise.snr, asked.noise.kind, asked.noise.lowest) == (7, "gaussian", False)
    assert asked.acquisition.b_values.tolist() == [0, 700, 2000]
    assert asked.space.facts == {"vcyl": [0.2, 0.9], "lambda": pytest.approx([0.1, 3])}
    other = setting_of(Namespace(**options | {"model": "adc"}, bounds=None), net)
    assert (other.space.model.name, other.noise.snr) == ("adc", 25)


@pytest.mark.parametrize(("model", "b_values"), [("dti", None), ("dki", [0, 0, 1000, 2000])])
def test_models_that_need_directions_have_them(model, b_values):
    """Evenly spread ones: those of the phantom, or as many as are asked for, for every b-value above 0."""
    from argparse import Namespace

    from bidsfit import models
    from bidsfit.cli.lab_options import acquisition_of

    names = ("image", "bval", "bvec", "table", "b_values", "directions")
    given = Namespace(**dict.fromkeys(names) | {"b_values": b_values, "directions": b_values and 15})
    found = acquisition_of(given, models.get(model))
    assert models.get(model).support(found)
    expected = [32] if b_values is None else [15, 15]
    assert [shell.n_directions for shell in found.shells if shell.b_value > 0] == expected


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["lsq", "NET", "bays"], "Did you mean 'bayes'"),
        (["lsq", "NET", "net-healthy"], "--estimators net-healthy: .*pooled fits"),
        (["lsq", "NET", "none.zip"], "none.zip does not exist"),
        (["lsq", "NET", "--model", "adc"], "NET: it was trained for the model 'smt2', not for 'adc'"),
        (
            ["lsq", "NET", "--b-values", "0", "1000", "2000", "--directions", "20"],
            "NET: it was trained for b = 2500 s/mm², which",
        ),
        (["lsq", "NET", "--b-values", "0", "1000", "2500", "--directions", "60"], "other numbers of measurements"),
        (["segmented", "NET"], "--estimators segmented"),
        (["lsq"], "--model"),
    ],
)
def test_estimators_are_checked_before_anything_is_computed(net, tmp_path, monkeypatch, capsys, words, message):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("bidsfit.laboratory.bench.evaluate", None)
    words = [word.replace("NET", str(net)) for word in words]
    assert main(["evaluate", "--out", "x", "--estimators", *words]) in (64, 65, 66)
    found = capsys.readouterr().err
    assert re.search(message.replace("NET", re.escape(str(net))), found)
    assert found.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


class TestProtocolsOfFiles:
    @pytest.fixture
    def image(self, tmp_path):
        """Files beside an image, which itself is not needed."""
        b_values = np.array([0, 0, *[995, 1005] * 5, *[2500] * 10])
        directions = np.vstack([np.zeros((2, 3)), *[spread_directions(10)] * 2]).T
        np.savetxt(tmp_path / "sub-01_dwi.bval", b_values[None], "%d")
        np.savetxt(tmp_path / "sub-01_dwi.bvec", directions / np.fmax(np.linalg.norm(directions, axis=0), 1), "%.6f")
        (tmp_path / "sub-01_dwi.json").write_text(json.dumps({"EchoTime": 0.08}))
        return tmp_path / "sub-01_dwi.nii.gz"

    def test_train(self, image, tmp_path, recipe):
        for n, words in enumerate(
            (["--image", image], ["--bval", tmp_path / "sub-01_dwi.bval", "--bvec", tmp_path / "sub-01_dwi.bvec"])
        ):
            out = tmp_path / f"{n}.zip"
            words = [
                "train",
                "net-uniform",
                "--model",
                "smt2",
                *words,
                "--recipe",
                recipe,
                "--out",
                out,
                "--threads",
                "1",
            ]
            assert main([str(word) for word in words]) == 0
            facts = read_bundle(out).facts["Acquisition"]
            assert facts["BValues"] == [0, 1000, 2500]
            assert facts["Measurements"] == [2, 10, 10]
            assert facts["Directions"] == [1, 10, 10]
            assert facts.get("EchoTimes") == ([80.0] * 3 if n == 0 else None)

    @pytest.mark.parametrize(
        ("words", "message"),
        [
            (["--image", "IMAGE", "--b-values", "0", "1000"], "--image and --b-values each give a protocol"),
            (["--image", "IMAGE", "--bval", "x.bval"], "--image and --bval each give a protocol"),
            (["--bvec", "x.bvec"], "--bvec needs the --bval"),
            (["--image", "IMAGE", "--directions", "3"], "--directions belongs to --b-values"),
            (["--image", "none.nii.gz"], "none.bval"),
            (["--bval", "none.bval"], "none.bval"),
        ],
    )
    def test_options_that_contradict_each_other(self, image, tmp_path, capsys, words, message):
        words = [word.replace("IMAGE", str(image)) for word in words]
        words = ["train", "net-uniform", "--model", "smt2", "--out", str(tmp_path / "x.zip"), *words]
        assert main(words) in (64, 66)
        assert message in capsys.readouterr().err


@pytest.mark.parametrize(("model", "voxels"), [("adc", 7), ("smt2", 49), ("ivim", 175)])
def test_quick_bounds_the_voxels_of_every_estimator(tmp_path, monkeypatch, model, voxels):
    """Whatever the estimator costs: a few thousand voxels, and a tenth of a training."""
    asked = {}

    def keep(bench, gallery, setting, names, **options):
        asked.update(options, recipes=bench.recipes, setting=setting)
        return []

    monkeypatch.setattr("bidsfit.laboratory.evaluation.evaluate_estimators", keep)
    words = ["evaluate", "--model", model, "--estimators", "lsq", "--out", str(tmp_path / "x"), "--quick"]
    assert main(words) == 0
    from bidsfit.evaluation.experiments import true_points

    assert len(true_points(asked["setting"].space, asked["points"])) <= voxels
    assert asked["repeats"] == 20
    assert np.prod(asked["patient_shape"]) < 7000
    assert asked["recipes"]["network"].schedule.steps == 600
    assert main([*words, "--points", "9", "--repeats", "11"]) == 0  # what is asked for counts
    assert (asked["points"], asked["repeats"]) == (9, 11)


def test_progress_says_how_long(capsys, monkeypatch):
    from bidsfit.laboratory import bench

    seconds = iter([0.0, 10.0, 40.0, 60.0, 80.0, 80.0])
    monkeypatch.setattr(bench.time, "perf_counter", lambda: next(seconds))
    with bench.Bar("evaluating lsq") as bar:
        for done in (0.125, 0.5, 0.75, 1.0):
            bar.show(done)
    assert capsys.readouterr().err.splitlines() == [
        "evaluating lsq: 50 %, about 40 s left",
        "evaluating lsq: 80 s",
    ]


def test_single_voxels_have_no_neighbours(recipe, tmp_path, capsys):
    """A file that reads neighbours is trained as any other; what is asked about single voxels refuses it.

    Its recipe names the tissues that it is trained on, and the file tells.
    """
    recipe.write_text(
        "simulation: {patches: scattered, tissues: {a: {vcyl: [.1, .3], lambda: [1, 2]}, b: {vcyl: [.4, .8], lambda: "
        "[1.5, 2.5]}}}\narchitecture: {name: convolution, units: 8}\nobjective: {name: logits}\n"
        "schedule: {steps: 4, batch: 64, validation: 256, checks: 2}\n"
    )
    net, out = tmp_path / "net.zip", tmp_path / "judged"
    words = ["train", "net-uniform", *PROTOCOL, "--recipe", str(recipe), "--out", str(net), "--threads", "1"]
    assert main(words) == 0
    facts = read_bundle(net).facts["Distribution"]
    assert (facts["Kind"], facts["Tissues"]["b"]["vcyl"]) == ("tissues", [0.4, 0.8])
    assert "drawn from normal distributions in a and b" in Network(models.get("smt2"), trained=net).methods
    assert main(["evaluate", "--estimators", "lsq", str(net), "--out", str(out)]) == 64
    assert f"--estimators {net}: it reads the neighbours of a voxel" in capsys.readouterr().err
    assert not out.exists()


@pytest.mark.parametrize(
    ("words", "shells"),
    [
        ((), "0 (2), 300 (1), 600 (1), 1000 (2)"),
        (("--directions", "3"), "0 (2), 300 (3), 600 (3), 1000 (6)"),
    ],
)
def test_what_was_understood_is_said_and_a_listed_value_is_one_measurement(words, shells, recipe, tmp_path, capsys):
    """Three measurements a b-value were taken for meant, and it showed only when the file met an image."""
    given = ["--model", "adc", "--b-values", "0", "0", "300", "600", "1000", "1000", *words]
    recipe.write_text(
        "architecture: {name: perceptron, units: 8}\nobjective: {name: logits}\n"
        "schedule: {steps: 4, batch: 64, validation: 256}\n"
    )
    net = tmp_path / "net.zip"
    assert main(["train", "net-uniform", *given, "--recipe", str(recipe), "--out", str(net), "--threads", "1"]) == 0
    expected = f"protocol: b in s/mm² (measurements) {shells}; adc, SNR 25, gaussian noise\n"
    assert capsys.readouterr().err.startswith(expected)


def test_recipes_are_listed_with_their_source(capsys):
    assert main(["recipes"]) == 0
    text = capsys.readouterr().out
    for name in (*estimators.RECIPES, "network-gyori2022", "forest"):
        assert re.search(rf"^{name}\*?: ", text, re.MULTILINE)
    assert "arXiv 2312.11468" in text


@pytest.fixture
def scan(tiny):
    """``--image`` and ``--mask`` of an image of SNR 20."""
    noise = np.random.default_rng(0).normal(0, 50, (*tiny.SHAPE, len(tiny.B_VALUES)))
    image = tiny.add("sub-01/dwi/sub-01_dwi", data=(tiny.signals() + noise).astype(np.float32))
    mask = tiny.nifti("mask.nii.gz", np.ones(tiny.SHAPE, dtype=np.uint8))
    return ["--image", str(image), "--mask", str(mask)]


@pytest.mark.parametrize(
    ("simulation", "architecture", "objective"),
    [("snr", "perceptron", "parameters"), ("signals", "perceptron", "signals"), ("signals", "convolution", "signals")],
)
def test_a_training_on_an_image(tmp_path, scan, capsys, simulation, architecture, objective):
    """Of its SNR, or of its signals, which are not drawn from any distribution; of voxels, or with neighbours."""
    recipe, out = tmp_path / "own.yml", tmp_path / "net.zip"
    recipe.write_text(
        f"simulation: {{{simulation}: images}}\narchitecture: {{name: {architecture}, units: 8}}\n"
        f"objective: {{name: {objective}}}\nschedule: {{steps: 10, batch: 64, validation: 128, checks: 1}}\n"
    )
    words = ["train", "net-uniform", "--model", "adc", "--recipe", str(recipe), "--out", str(out), "--threads", "1"]
    assert main(words) == 64
    assert "takes voxels of the images that it will fit: give --image" in capsys.readouterr().err
    assert main([*words, *scan]) == 0
    facts = read_bundle(out).facts
    assert facts["Images"]["Voxels"] == {"sub-01_dwi.nii.gz": 90}
    assert ("Digest" in facts["Images"]) == (simulation == "signals")
    assert np.median(facts["Images"]["SNR"]) == facts["Noise"]["SNR"]
    assert 17 < facts["Noise"]["SNR"] < 25
    setting = SimpleNamespace(space=ParameterSpace(models.get("adc")))
    drawn = Bench(tmp_path, given={"own": out}).training_samples("own", setting, 5)
    assert (drawn is None) == (simulation == "signals")


def test_images_are_for_recipes_that_take_them(tmp_path, scan, capsys):
    assert main(["train", "net-uniform", "--model", "adc", *scan, "--out", str(tmp_path / "x.zip")]) == 64
    assert "--mask and --sigma are for recipes that take voxels of images" in capsys.readouterr().err
    judged = ["evaluate", "--model", "adc", "--b-values", "0", "500", "1000", "--out", str(tmp_path / "judged")]
    assert main([*judged, "--estimators", "self-supervised-images"]) == 64
    assert "self-supervised-images: its recipe takes voxels of the images" in capsys.readouterr().err
