from __future__ import annotations

import json
import tracemalloc

import numpy as np
import pytest

from bidsfit.phantom.directions import spread_directions
from bidsfit.preprocessing.quality import (
    MOTION,
    assess,
    carpet,
    framewise_displacement,
    neighbour_correlation,
    snr_of_shells,
    volume_outliers,
)

SHAPE, SIGMA = (14, 16, 6), 5.0
MASK = np.zeros(SHAPE, dtype=bool)
MASK[2:12, 2:14] = True
B_VALUES = np.repeat([0.0, 1000.0, 2500.0], [6, 20, 30])
DIRECTIONS = np.concatenate([np.zeros((6, 3)), spread_directions(20), spread_directions(30)])


def tensors(rng: np.random.Generator) -> np.ndarray:
    """Signals of fibres of which a quarter runs along x, so that whole slices are darker in some directions."""
    fibres = rng.standard_normal((*SHAPE, 3))
    fibres[::4] = [1, 0, 0]
    cosines = (fibres / np.linalg.norm(fibres, axis=-1, keepdims=True)) @ DIRECTIONS.T
    scale = rng.uniform(200, 400, SHAPE)[..., None]
    return scale * np.exp(-B_VALUES * (0.5e-3 + 0.6e-3 * cosines**2))


@pytest.fixture(scope="module")
def data() -> np.ndarray:
    rng = np.random.default_rng(4)
    return (tensors(rng) + SIGMA * rng.standard_normal((*SHAPE, B_VALUES.size))).astype(np.float32)


def test_good_data_have_no_outliers(data: np.ndarray) -> None:
    found = volume_outliers(data, B_VALUES, MASK, directions=DIRECTIONS)
    assert not found.is_outlier.any()
    assert np.all(found.outlier_fraction <= 1 / 6)
    assert found.slice_z.shape == (6, 56)
    assert found.slice_z.std() == pytest.approx(1, abs=0.3)  # standard deviations, as they are called
    for shell in np.unique(B_VALUES):
        assert np.median(found.std_dvars[shell == B_VALUES]) == pytest.approx(1)


def test_slices_that_lose_signal_are_found(data: np.ndarray) -> None:
    damaged = data.copy()
    damaged[:, :, 4, 30] *= 0.9
    damaged[..., 12] *= 0.9
    damaged[..., 2] = 0
    damaged[..., 50] = np.nan
    found = volume_outliers(damaged, B_VALUES, MASK, directions=DIRECTIONS)
    assert np.flatnonzero(found.is_outlier).tolist() == [2, 12, 30, 50]
    assert np.flatnonzero(found.slice_z[:, 30] < -4).tolist() == [4]
    assert found.outlier_fraction[[2, 12, 30, 50]].tolist() == [1, 1, pytest.approx(1 / 6), 1]


def test_a_tenth_of_the_signal_is_only_found_where_directions_are_known(data: np.ndarray) -> None:
    """Fibres change the mean of a slice by more than that."""
    damaged = data.copy()
    damaged[:, :, 4, 30] *= 0.9
    assert not volume_outliers(damaged, B_VALUES, MASK).is_outlier.any()


def test_a_displaced_volume_is_found_by_its_difference(data: np.ndarray) -> None:
    damaged = data.copy()
    damaged[..., 3] = np.roll(data[..., 3], 2, axis=0)  # the mean of its slices is about the same
    found = volume_outliers(damaged, B_VALUES, MASK, directions=DIRECTIONS)
    assert np.flatnonzero(found.is_outlier).tolist() == [3]
    assert np.argmax(found.std_dvars) == 3


def test_slices_may_lie_across_any_axis(data: np.ndarray) -> None:
    damaged = data.copy()
    damaged[4, :, :, 30] *= 0.6
    found = volume_outliers(damaged, B_VALUES, MASK, directions=DIRECTIONS, slice_axis=0)
    assert np.flatnonzero(found.slice_z[:, 30] < -4).tolist() == [4]
    assert np.isnan(found.slice_z[[0, 1, 12, 13]]).all()  # outside the mask


@pytest.mark.parametrize(("n_volumes", "n_slices"), [(4, 5), (5, 4), (6, 3), (16, 1), (30, 70)])
def test_noise_is_seldom_taken_for_a_loss_of_signal(n_volumes: int, n_slices: int) -> None:
    rng = np.random.default_rng(n_volumes)
    mask = np.ones((6, 6, n_slices), dtype=bool)
    lost = []
    for _ in range(2000 // (n_volumes * n_slices) + 20):
        noisy = (100 + 10 * rng.standard_normal((6, 6, n_slices, n_volumes))).astype(np.float32)
        lost.append(np.mean(volume_outliers(noisy, np.full(n_volumes, 1000.0), mask).slice_z < -4))
    assert np.mean(lost) < 0.003
    assert np.isfinite(lost).all()


@pytest.mark.parametrize("b_values", [[0, 100, 300, 700, 1000], [0, 0, 1000, 1000, 2000]])
def test_small_shells_have_nothing_to_compare_with(b_values: list[float]) -> None:
    rng = np.random.default_rng(0)
    few = (100 + rng.standard_normal((8, 8, 1, 5))).astype(np.float32)
    found = assess(few, b_values, np.ones((8, 8, 1), dtype=bool))
    assert np.isnan(found.outliers.slice_z).all()
    assert np.isnan(found.outliers.std_dvars).all()
    assert np.isnan(found.outliers.outlier_fraction).all()
    assert not found.outliers.is_outlier.any()
    assert np.isnan(found.framewise_displacement).all()
    remarks = " ".join(found.remarks)
    for words in ("Outliers were not sought at b = 0, 1", "Motion is not known", "noise level", "gradient directions"):
        assert words in remarks
    numbers = found.numbers
    assert numbers["ndc"] is numbers["fd_mean"] is numbers["outlier_slices"] is numbers["dvars_max"] is None
    assert numbers["n_outlier_volumes"] is None
    assert numbers["n_compared_volumes"] == 0
    json.dumps(numbers, allow_nan=False)


def test_memory_is_that_of_a_slice() -> None:
    rng = np.random.default_rng(0)
    large = 100 + rng.standard_normal((64, 64, 24, 40), dtype=np.float32)
    b_values, directions = np.full(40, 1000.0), spread_directions(40, 20)
    tracemalloc.start()
    assess(large, b_values, np.ones((64, 64, 24), dtype=bool), directions=directions, sigma=1.0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 * large.nbytes / 24  # of one slice: float64, and its working copies


def test_the_input_is_left_alone(data: np.ndarray) -> None:
    before = data.copy()
    assess(data, B_VALUES, MASK, directions=DIRECTIONS, sigma=SIGMA)
    carpet(data, B_VALUES, MASK)
    assert np.array_equal(data, before)


def test_snr_is_the_signal_over_the_noise() -> None:
    b_values = np.array([0, 0, 1000, 1000.0])
    signals = np.broadcast_to(np.array([100, 140, 30, 50], dtype=np.float32), (4, 4, 2, 4))
    mask = np.ones((4, 4, 2), dtype=bool)
    assert snr_of_shells(signals, b_values, mask, 4.0) == pytest.approx([30, 10])
    sigma = np.full(mask.shape, 4.0)
    sigma[0] = 0  # not known there
    sigma[1] = np.nan
    assert snr_of_shells(signals, b_values, mask, sigma) == pytest.approx([30, 10])
    sigma[2] = 8.0
    assert snr_of_shells(signals, b_values, mask, sigma) == pytest.approx([22.5, 7.5])
    assert np.isnan(snr_of_shells(signals, b_values, mask, 0.0)).all()


def test_neighbour_correlation_is_that_of_the_closest_volume() -> None:
    rng = np.random.default_rng(1)
    images = rng.standard_normal((3, 8, 8, 4))
    directions = np.array([[0, 0, 0], [1, 0, 0], [-1, 0.05, 0], [0, 1, 0], [0, 1, 0.05], [0, 1, 0]])
    b_values = np.array([0, 1000, 1000, 1000, 1000, 3000.0])
    shared = [images[0], images[1], images[1] + images[2], images[2], images[2] - images[0], images[0]]
    volumes = 1000 + np.stack(shared, axis=-1).astype(np.float32)
    mask = np.ones((8, 8, 4), dtype=bool)
    table = np.corrcoef(volumes.reshape(-1, 6).T)
    expected = np.mean([table[1, 2], table[2, 1], table[3, 4], table[4, 3], table[5, 3]])
    assert neighbour_correlation(volumes, b_values, directions, mask) == pytest.approx(expected, abs=1e-4)
    assert np.isnan(neighbour_correlation(volumes[..., :2], b_values[:2], directions[:2], mask))


def test_neighbour_correlation_falls_with_noise(data: np.ndarray) -> None:
    noisier = data + 20 * np.random.default_rng(0).standard_normal(data.shape)
    values = [neighbour_correlation(image, B_VALUES, DIRECTIONS, MASK) for image in (data, noisier)]
    assert 1 > values[0] > values[1] > 0


def test_a_head_that_lay_still_moved_by_nothing() -> None:
    motion = np.random.default_rng(0).normal(scale=1e-14, size=(5, 6))  # what the products of matrices leave
    assert not framewise_displacement(motion)[1:].any()


def test_framewise_displacement_adds_translations_and_arcs() -> None:
    motion = np.array([[0, 0, 0, 0, 0, 0], [1, -2, 0, 0, 0.01, 0], [1, -2, 0, 0, 0.01, 0]])
    assert framewise_displacement(motion) == pytest.approx([np.nan, 3.5, 0], nan_ok=True)


def test_carpet_rows_are_grouped_and_shells_compared_with_themselves(data: np.ndarray) -> None:
    damaged = data.copy()
    damaged[..., 3] *= 0.5
    segmentation = np.zeros(SHAPE, dtype=int)
    segmentation[2:6], segmentation[6:12] = 2, 1
    found = carpet(damaged, B_VALUES, MASK, segmentation, n=90)
    assert found.values.shape == (90, 56)
    assert np.all(np.diff(found.labels) >= 0)
    assert np.bincount(found.labels).tolist() == [0, 54, 36]
    assert np.argmin(np.median(found.values, axis=0)) == 3
    for shell in np.unique(B_VALUES):
        assert np.median(found.values[:, shell == B_VALUES], axis=1) == pytest.approx(0, abs=0.2)
    assert len(carpet(damaged, B_VALUES, MASK, n=10**6).values) == MASK.sum()
    single = carpet(damaged[..., :3], [0, 0, 900], MASK)
    assert np.isnan(single.values[:, 2]).all()
    assert np.isfinite(single.values[:, :2]).all()


def test_columns_and_numbers(data: np.ndarray) -> None:
    motion = np.zeros((56, 6))
    motion[30:, 1] = 2.0
    done: list[float] = []
    found = assess(
        data, B_VALUES, MASK, directions=DIRECTIONS, motion=motion, sigma=SIGMA, progress=lambda f: done.append(f)
    )
    assert list(found.columns) == [
        "b_value", *MOTION, "framewise_displacement", "std_dvars", "outlier_fraction", "is_outlier"
    ]  # fmt: skip
    assert {len(column) for column in found.columns.values()} == {56}
    numbers = found.numbers
    assert numbers["fd_max"] == 2
    assert numbers["fd_mean"] == pytest.approx(2 / 55, rel=1e-4)
    assert numbers["snr_lowest"] == pytest.approx(60, rel=0.05)
    assert [row["n_volumes"] for row in numbers["shells"]] == [6, 20, 30]
    assert (numbers["n_volumes"], numbers["n_voxels"]) == (56, int(MASK.sum()))
    assert done[-1] == 1
    assert done == sorted(done)
    assert "framewise_displacement" not in assess(data, B_VALUES, MASK).columns


def test_outliers_of_the_unmoved_volumes_can_be_given(data: np.ndarray) -> None:
    damaged = data.copy()
    damaged[..., 12] = 0
    outliers = volume_outliers(damaged, B_VALUES, MASK, directions=DIRECTIONS)
    assert assess(data, B_VALUES, MASK, outliers=outliers).numbers["outlier_indices"] == [12]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mask": np.zeros(SHAPE, dtype=bool)}, "The mask is empty"),
        ({"mask": MASK[:-1]}, "do not match"),
        ({"b_values": B_VALUES[:-1]}, "55 b-values"),
        ({"directions": DIRECTIONS.T}, "Directions must have shape"),
        ({"motion": np.zeros((56, 12))}, "Motion parameters must have shape"),
        ({"sigma": np.ones(3)}, "Sigma must be"),
    ],
)
def test_refusals(data: np.ndarray, changes: dict, message: str) -> None:
    arguments = {"data": data, "b_values": B_VALUES, "mask": MASK} | changes
    with pytest.raises(ValueError, match=message):
        assess(**arguments)
