"""The node that trains: what it asks the store for, and what a report says of the answer."""

import json

import numpy as np
import pytest

from bidsfit import models
from bidsfit.acquisition import Acquisition
from bidsfit.bids.distributions import write_distribution
from bidsfit.exceptions import NoInputError, UnusableInputError
from bidsfit.fitting import FitNumbers
from bidsfit.interfaces import training as module
from bidsfit.interfaces.training import TrainEstimator, save_voxels
from bidsfit.models.space import ParameterSpace
from bidsfit.phantom.directions import spread_directions
from bidsfit.reports.trained import distribution_in_words, too_few, training_row, training_warnings
from bidsfit.simulation.distributions import pool
from bidsfit.simulation.images import ImageVoxels
from bidsfit.training.bundle import Bundle


@pytest.fixture
def ask(tiny, run_in, tmp_path, monkeypatch):
    """``ask(estimator, noise)``: the task and the name that the store is asked for."""
    asked = {}

    class Store(module.Store):
        def obtain(self, task, name, **options):
            asked.update(options, task=task, name=name)
            path = tmp_path / "trained.zip"
            path.touch()
            return path

    monkeypatch.setattr(module, "Store", Store)
    path = tiny.add("sub-01/dwi/sub-01_dwi")
    stem = str(path).removesuffix(".nii.gz")
    facts = tmp_path / "facts.json"

    def run(estimator="net-uniform", noise=None, **inputs):
        inputs = {"all_facts": [str(facts)], "options": {}} | inputs
        facts.write_text(json.dumps({"noise": {"sigma": 50.0, "snr": 21.0} if noise is None else noise}))
        run_in(
            TrainEstimator(
                in_file=str(path),
                bval=f"{stem}.bval",
                bvec=f"{stem}.bvec",
                facts=str(facts),
                images=[f"sub-01_ses-{i}" for i, _ in enumerate(inputs["all_facts"], start=1)],
                model="adc",
                estimator=estimator,
                store=str(tmp_path / "store"),
                **inputs,
            )
        )
        return asked

    return run


@pytest.fixture
def pool_file(tmp_path):
    space = ParameterSpace(models.get("adc"))
    fits = {f"sub-0{i}": np.random.default_rng(i).uniform(0.5, 2, (200, 1)) for i in (1, 2)}
    found = pool(space, fits, most=1000, seed=0, origin={"Tissue": "healthy"})
    path, _ = write_distribution(tmp_path, found, "healthy", sources=[], healthy="group=control")
    return str(path)


def test_the_task_is_that_of_the_image(ask):
    asked = ask(threads=2)
    assert asked["name"] == "net-uniform"
    assert asked["threads"] == 2
    assert asked["task"].noise.snr == 20  # the nearest level
    assert asked["task"].facts["Acquisition"]["BValues"] == [0, 300, 600, 1000]


@pytest.mark.parametrize("noise", [{}, {"sigma": 0.0, "snr": None}])
def test_a_noise_that_is_not_known_is_asked_for(ask, noise):
    with pytest.raises(UnusableInputError, match=r"sub-01_dwi\.nii\.gz: net-uniform .* with --training-snr"):
        ask(noise=noise)
    assert ask(noise=noise, options={"snr": 33.0})["task"].noise.snr == 33


def test_images_that_share_a_training_have_the_level_of_their_median(ask, tmp_path):
    """Of SNR 9, 41 and 42 it is 41, of 9 and 42 it is 19.4 (and not 25.5): the mean of logarithms."""
    paths = []
    for i, snr in enumerate((9.0, 41.0, None, 42.0)):
        paths.append(tmp_path / f"facts{i}.json")
        paths[-1].write_text(json.dumps({"noise": {} if snr is None else {"sigma": 1.0, "snr": snr}}))
    assert ask(all_facts=list(map(str, paths)))["task"].noise.snr == 40
    assert ask(all_facts=[str(paths[0]), str(paths[3])])["task"].noise.snr == 20
    assert ask(noise={}, all_facts=[str(paths[0]), str(paths[2])])["task"].noise.snr == 10


@pytest.fixture
def sessions(tmp_path):
    """Facts of the two images of a participant, whose level together is that of neither alone."""
    paths = [tmp_path / f"facts{i}.json" for i in (1, 2)]
    for path, snr in zip(paths, (10.0, 40.0), strict=True):
        path.write_text(json.dumps({"noise": {"sigma": 1.0, "snr": snr}}))
    return [str(path) for path in paths]


def test_an_image_alone_has_the_level_that_was_recorded_of_all(ask, sessions, tmp_path):
    assert ask(all_facts=sessions[:1])["task"].noise.snr == 10
    assert ask(all_facts=sessions, when="first")["task"].noise.snr == 20
    for when in ("missing", "never"):
        asked = ask(all_facts=sessions[:1], when=when)
        assert asked["task"].noise.snr == 20
        assert asked["may_train"] == (when == "missing")
    record = tmp_path / "store" / "sub-01_model-adc_desc-netuniform_snr.json"
    assert json.loads(record.read_text())["SNR"] == {"sub-01_ses-1": 10.0, "sub-01_ses-2": 40.0}
    assert ask("net-prior", all_facts=sessions[:1])["task"].noise.snr == 10  # another estimator, another record


def test_a_record_of_other_images_is_not_used(ask, sessions):
    """The image called ses-1 has another SNR than the one that was recorded: prepared otherwise, or another dataset."""
    ask(all_facts=sessions, when="first")
    assert ask(all_facts=sessions[1:])["task"].noise.snr == 40
    with pytest.raises(
        NoInputError, match=r"netuniform_snr\.json does not hold the SNR of sub-01_ses-1_dwi .*train-only"
    ):
        ask(all_facts=sessions[1:], when="never")


def test_a_damaged_record_is_named(ask, sessions, tmp_path):
    ask(all_facts=sessions, when="first")
    (tmp_path / "store" / "sub-01_model-adc_desc-netuniform_snr.json").write_text('{"SNR": [1]}')
    with pytest.raises(UnusableInputError, match=r"_snr\.json is damaged\. Delete it"):
        ask(all_facts=sessions)


def test_pooled_fits_are_read(ask, pool_file):
    task = ask("net-healthy", pool=pool_file)["task"]
    assert task.facts["Participants"] == ["sub-01", "sub-02"]
    assert ask("forest-mixed", pool=pool_file)["task"].facts["Distribution"]["Kind"] == "mixture"


def test_somebody_may_be_left_out(ask, pool_file):
    assert ask("net-healthy", pool=pool_file, left_out="sub-02")["task"].facts["Participants"] == ["sub-01"]


def test_bounds_of_the_run_cut_the_pool(ask, pool_file):
    task = ask("net-healthy", pool=pool_file, options={"bounds": {"D": (0.0, 1.0)}})["task"]
    assert task.facts["Distribution"]["Bounds"] == {"D": [0.0, 1.0]}
    assert task.distribution.samples.max() <= 1


@pytest.mark.parametrize("simulation", ["signals", "snr"])
def test_images_of_the_same_protocol_train_together(ask, tmp_path, simulation):
    """Not one with another b-value."""
    paths = []
    for name, b in (("a", 1000), ("b", 900), ("own", 1000)):
        acquisition = Acquisition([0, 300, 600, b], counts=[2, 1, 1, 1])
        signals = np.random.default_rng(0).random((60, 4), dtype=np.float32)
        places = np.stack([np.zeros(60), *np.indices((5, 4, 3)).reshape(3, 60)], axis=1).astype(np.int32)
        voxels = ImageVoxels(signals, np.full(60, 0.1, dtype=np.float32), acquisition, {name: 60}, 60, places)
        paths.append(str(save_voxels(tmp_path / f"{name}.safetensors", voxels, models.get("adc"))))
    recipe = {
        "simulation": {simulation: "images", "scope": "dataset"},
        "architecture": {"name": "perceptron"},
        "objective": {"name": "signals"},
    }
    task = ask(options={"recipe": recipe}, voxels=paths[2], all_voxels=paths)["task"]
    assert task.images.facts["Voxels"] == {"a": 60, "own": 60}
    assert task.noise.snr == 10
    assert task.images.positions[[0, 59, 60, 119]].tolist() == [[0, 0, 0, 0], [0, 4, 3, 2], [1, 0, 0, 0], [1, 4, 3, 2]]
    alone = ask(options={"recipe": recipe}, voxels=paths[2])["task"]
    assert alone.images.facts["Voxels"] == {"own": 60}


FACTS = {
    "Participants": ["sub-01"],
    "Noise": {"SNR": None, "Kind": "rician", "AtLowestBValue": True},
    "Recipe": {
        "simulation": {"samples": 9},
        "architecture": {"name": "forest", "samples_per_leaf": 5},
        "objective": {"name": "relative"},
    },
    "Training": {"Seconds": 3.1, "Device": "cpu", "Converged": False},
    "Parameters": ["D"],
    "Distribution": {"Kind": "pooled", "Voxels": {"sub-01": 1500}, "Origin": {"Tissue": "wm", "LeftOut": ["sub-02"]}},
}


def test_what_it_was_trained_on_in_words():
    row = training_row(Bundle(FACTS, None))
    assert row["distribution"] == (
        "the pooled fits of 1,500 voxels in the white matter of healthy participants (without sub-02)"
    )
    assert row["recipe"] == "simulation: samples 9; architecture: forest, samples per leaf 5; objective: relative"
    mixture = {"Kind": "mixture", "Weights": [0.5, 0.5], "Parts": [{"Kind": "uniform"}, FACTS["Distribution"]]}
    assert distribution_in_words(mixture).startswith(
        "50.0 % every plausible combination of parameters alike and 50.0 %"
    )


@pytest.mark.parametrize(
    ("participant", "unlike", "expected"),
    [
        ("sub-01", 0, ["holds this participant", "not converged"]),
        ("sub-02", 6, ["6.0 % of the voxels", "not converged"]),
    ],
)
def test_what_speaks_against_it_is_warned_of(participant, unlike, expected):
    numbers = FitNumbers(100, 3, 1.0, {}, [], {8: unlike}, None)
    warnings = training_warnings(numbers, Bundle(FACTS, None), participant)
    assert len(warnings) == len(expected)
    assert all(words in warning for words, warning in zip(expected, warnings, strict=True))


@pytest.mark.parametrize(("n", "told"), [(15, False), (9, True)])
def test_a_protocol_that_no_fit_would_take_is_told(n, told):
    protocol = Acquisition(
        [0] + [1000] * n + [2000] * n, np.concatenate([np.zeros((1, 3)), *[spread_directions(n)] * 2])
    )
    assert ["with at least 15 directions each" in words for words in too_few(models.get("dki"), protocol)] == [
        True
    ] * told


def test_images_that_trained_are_named_and_others_are_warned_of():
    seen = {"Voxels": {"bids:raw:sub-01/dwi/sub-01_dwi.nii.gz": 1500}, "Most": 1500, "SNR": [5.0, 20.0, 41.0]}
    bundle = Bundle(FACTS | {"Images": seen | {"Digest": "abc"}}, None)
    assert training_row(bundle)["images"] == ("1,500 voxels of an image (sub-01_dwi), whose SNR is 5 to 41 (median 20)")
    numbers = FitNumbers(100, 3, 1.0, {}, [], {}, None)
    first, *_ = training_warnings(numbers, bundle, "sub-09", "bids:raw:sub-09/dwi/sub-09_dwi.nii.gz")
    assert "trained on the measured signals of other images (1,500 voxels of an image (sub-01_dwi)" in first
    own = training_warnings(numbers, bundle, "sub-09", "bids::sub-01/dwi/sub-01_dwi.nii.gz")
    assert not any("other images" in words for words in own)
    noise_alone = Bundle(FACTS | {"Images": seen}, None)
    assert not any("other images" in words for words in training_warnings(numbers, noise_alone, "sub-09", "sub-09_dwi"))
