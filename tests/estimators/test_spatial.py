"""Estimators that read neighbours: what they see, in which pieces, and that it helps."""

from __future__ import annotations

import tracemalloc

import nibabel as nib
import numpy as np
import pytest

from bidsfit import Acquisition, Status, models
from bidsfit.bids.images import MaskedSignals
from bidsfit.trained.network import Network
from bidsfit.training.bundle import write_bundle
from bidsfit.training.task import train

SMT2 = models.get("smt2")
SHELLS = Acquisition([0, 1000, 2000, 3500, 5000], counts=[8, 32, 32, 32, 32], n_directions=[1, 32, 32, 32, 32])
SNR = 28.0
NAMES = ("vcyl", "lambda")


def recipe(architecture):
    taught = {"steps": 300, "batch": 512, "peak_rate": 0.01, "validation": 2048, "checks": 10}
    small = {"units": 48}
    if architecture == "neighbourhood-attention":
        small, taught["steps"], taught["batch"] = {"units": 8, "heads": 2, "layers": 3}, 80, 64
    return {
        "architecture": {"name": architecture, **small},
        "objective": {"name": "parameters"},
        "schedule": taught,
    }


def trained(architecture, path):
    plan = Network(SMT2, recipe=recipe(architecture), noise="gaussian")
    write_bundle(path, train(plan.task(SHELLS, SNR)))
    return Network(SMT2, recipe=recipe(architecture), noise="gaussian", trained=path)


@pytest.fixture(scope="module")
def networks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    names = ("perceptron", "convolution", "neighbourhood-attention")
    return {name: trained(name, folder / f"{name}.zip") for name in names}


@pytest.fixture(scope="module", params=["convolution", "neighbourhood-attention"])
def spatial(request, networks):
    return networks[request.param]


def phantom(shape=(20, 18, 4)):
    """Smooth maps, and their signals without noise."""
    x, y, _ = np.meshgrid(*[np.linspace(0, 1, n) for n in shape], indexing="ij")
    truth = {"S0": np.full(shape, 100.0), "vcyl": 0.3 + 0.4 * x, "lambda": 1 + y}
    signals = SMT2.signal({name: values.ravel() for name, values in truth.items()}, SHELLS)
    return truth, signals.reshape(*shape, -1)


def noisy(clean, seed=0):
    noise = np.random.default_rng(seed).standard_normal(clean.shape)
    return clean + 100 / SNR / np.sqrt(SHELLS.weights) * noise


def ball(shape):
    """A mask with an edge everywhere."""
    places = np.stack(np.meshgrid(*[np.linspace(-1, 1, n) for n in shape], indexing="ij"))
    return np.sum(places**2, axis=0) < 1.2


def test_neighbours_are_used(networks):
    """Where maps are smooth: less than half the scatter of the same layers without them, and smaller errors."""
    truth, clean = phantom()
    sd, rmse = {}, {}
    for name, network in networks.items():
        found = [network.estimate(noisy(clean, seed), SHELLS).parameters for seed in range(10)]
        maps = {key: np.stack([one[key] for one in found]) for key in NAMES}
        sd[name] = [maps[key].std(axis=0).mean() for key in NAMES]
        rmse[name] = [np.sqrt(np.mean((maps[key] - truth[key]) ** 2)) for key in NAMES]
    assert np.all(np.array(sd["convolution"]) < 0.5 * np.array(sd["perceptron"]))
    assert np.all(np.array(rmse["convolution"]) < 0.9 * np.array(rmse["perceptron"]))
    assert np.all(np.array(sd["neighbourhood-attention"]) < 0.7 * np.array(sd["perceptron"]))  # after 80 steps
    assert [network.reach for network in networks.values()] == [(0, 0, 0), (1, 1, 0), (3, 3, 0)]


def test_the_methods_say_so(networks):
    words = {name: network.methods for name, network in networks.items()}
    assert "reads the neighbours of a voxel, up to 1 x 1 x 0 voxels away" in words["convolution"]
    assert "neighbours" not in words["perceptron"]


def test_a_voxel_depends_on_its_neighbours_in_the_slice_alone(spatial):
    _, clean = phantom()
    before = spatial.estimate(clean, SHELLS)
    changed = clean.copy()
    changed[10, 9, 2, 1:] *= 0.5
    after = spatial.estimate(changed, SHELLS)
    moved = np.argwhere(before.parameters["vcyl"] != after.parameters["vcyl"])
    r = spatial.reach[0]
    expected = {(x, y, 2) for x in range(10 - r, 11 + r) for y in range(9 - r, 10 + r)}
    assert set(map(tuple, moved.tolist())) == expected


@pytest.mark.parametrize("masked", [False, True])
def test_slabs_equal_the_whole(spatial, monkeypatch, masked):
    _, clean = phantom()
    signals = noisy(clean)
    mask = ball(clean.shape[:3]) if masked else None
    found = []
    for chunk in (1, 50, 333, 10**6):
        monkeypatch.setattr(spatial, "chunk", chunk)
        found.append(spatial.estimate(signals, SHELLS, 100 / SNR, mask=mask, threads=2))
    for other in found[:-1]:
        np.testing.assert_array_equal(other.status, found[-1].status)
        for name in SMT2.names:
            np.testing.assert_allclose(other.parameters[name], found[-1].parameters[name], rtol=1e-5)
        np.testing.assert_allclose(other.rmse, found[-1].rmse, rtol=1e-4)


@pytest.mark.parametrize("order", ["C", "F"])
def test_rows_with_their_places(spatial, order):
    """In the order of an image in memory, or of one on disk."""
    _, clean = phantom()
    signals, mask = noisy(clean), ball(clean.shape[:3])
    expected = spatial.estimate(signals, SHELLS, mask=mask)
    index = np.flatnonzero(mask.ravel(order=order))
    positions = np.stack(np.unravel_index(index, mask.shape, order=order), axis=1)
    found = spatial.estimate(signals[tuple(positions.T)], SHELLS, positions=positions)
    for name in SMT2.names:
        np.testing.assert_allclose(found.parameters[name], expected.parameters[name][tuple(positions.T)], rtol=1e-5)


def test_estimators_of_rows_take_no_notice_of_places(networks):
    _, clean = phantom((4, 4, 1))
    rows, network = noisy(clean).reshape(-1, len(SHELLS)), networks["perceptron"]
    found, expected = (network.estimate(rows, SHELLS, positions=p) for p in (np.zeros((16, 3), dtype=int), None))
    np.testing.assert_array_equal(found.parameters["vcyl"], expected.parameters["vcyl"])


def test_what_is_outside_of_the_mask_is_not_seen(spatial):
    _, clean = phantom()
    mask = ball(clean.shape[:3])
    inside, outside = noisy(clean), noisy(clean)
    outside[~mask] = 1e6
    first, second = (spatial.estimate(signals, SHELLS, mask=mask) for signals in (inside, outside))
    np.testing.assert_array_equal(first.parameters["vcyl"], second.parameters["vcyl"])
    whole = spatial.estimate(inside, SHELLS)
    edge = mask & (whole.parameters["vcyl"] != first.parameters["vcyl"])
    assert 0 < edge.sum() < mask.sum()
    assert np.abs(whole.parameters["vcyl"] - first.parameters["vcyl"])[edge].max() < 0.2  # trained for it


def test_a_voxel_without_signal_harms_no_neighbour(spatial):
    truth, clean = phantom()
    signals = clean.copy()
    signals[5, 5, 1], signals[12, 9, 3] = 0, np.nan
    found = spatial.estimate(signals, SHELLS)
    assert (found.status[5, 5, 1], found.status[12, 9, 3]) == (Status.NO_SIGNAL, Status.NOT_FINITE)
    assert np.isnan(found.parameters["vcyl"]).sum() == 2
    for place in ((5, 6, 1), (12, 8, 3)):
        assert found.parameters["vcyl"][place] == pytest.approx(truth["vcyl"][place], abs=0.1)


def test_rows_alone_are_refused(spatial):
    with pytest.raises(ValueError, match="reads the neighbours of a voxel"):
        spatial.estimate(np.ones((5, 5)), SHELLS)
    with pytest.raises(ValueError, match="in the order of the image"):
        spatial.estimate(np.ones((5, 5)), SHELLS, positions=np.array([[1, 1, 1], [0, 0, 0]] * 2 + [[1, 1, 1]]))
    with pytest.raises(ValueError, match="as many"):
        spatial.estimate(np.ones((5, 5)), SHELLS, positions=np.zeros((4, 3), dtype=int))


@pytest.mark.parametrize("across", [0, 1, 2])
def test_neighbours_lie_in_the_slices_whatever_axis_these_are_across(spatial, monkeypatch, tmp_path, across):
    """Attention is not the same along both axes of a slice: only the voxels that it sees are."""
    monkeypatch.setattr(spatial, "chunk", 50)
    _, clean = phantom((9, 8, 5))
    data = np.moveaxis(clean, 2, across)
    nib.save(nib.Nifti1Image(data, np.eye(4)), tmp_path / "moved.nii")
    rows = MaskedSignals(
        nib.load(tmp_path / "moved.nii"), data.shape, np.ones(data.shape[:3], bool), tmp_path / "moved.nii"
    )

    def map_of(changed):
        signals = rows[:].reshape(data.shape, order="F")
        np.moveaxis(signals, across, 2)[4, 3, 2, 1:] *= changed
        found = spatial.estimate(signals.reshape(-1, len(SHELLS), order="F"), SHELLS, positions=rows.positions(across))
        return np.moveaxis(found.parameters["vcyl"].reshape(data.shape[:3], order="F"), across, 2)

    r = spatial.reach[0]
    moved = {tuple(place) for place in np.argwhere(map_of(0.5) != map_of(1.0)).tolist()}
    assert moved == {(x, y, 2) for x in range(4 - r, 5 + r) for y in range(3 - r, 4 + r)}


class Generated:
    """Signals of an image that is nowhere: rows are made when they are asked for."""

    def __init__(self, shape):
        self.positions = np.stack(np.unravel_index(np.arange(np.prod(shape)), shape, order="F"), axis=1)
        self.shape = (len(self.positions), len(SHELLS))

    def __getitem__(self, rows):
        level = np.linspace(1, 0.3, len(SHELLS)) * 100
        return level + self.positions[rows, :1] % 3


def test_memory_is_that_of_a_slab(networks, monkeypatch):
    """Beside the maps themselves, it does not grow with the image."""
    spatial, peaks = networks["convolution"], {}
    for layers in (20, 80):
        signals = Generated((40, 40, layers))
        for chunk in (1600, 10**6):
            monkeypatch.setattr(spatial, "chunk", chunk)
            spatial.estimate(signals[:4] * 1.0, SHELLS, positions=signals.positions[:4])  # compiles
            tracemalloc.start()
            found = spatial.estimate(signals, SHELLS, positions=signals.positions)
            held, peak = tracemalloc.get_traced_memory()
            tracemalloc.stop()
            peaks[layers, chunk] = (peak - held) / 1e6
            assert found.status.shape == (1600 * layers,)
    print(peaks)
    assert peaks[80, 1600] < peaks[20, 1600] + 5
    assert peaks[80, 1600] < peaks[80, 10**6] / 4
