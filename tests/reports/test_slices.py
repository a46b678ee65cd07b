from __future__ import annotations

from itertools import permutations, product

import nibabel as nib
import numpy as np
import pytest

from bidsfit.reports.slices import Slices

ORIENTATIONS = ["".join(letters) for order in permutations(("RL", "AP", "SI")) for letters in product(*order)]


def stored(volume: np.ndarray, affine: np.ndarray, codes: str) -> tuple[np.ndarray, np.ndarray]:
    """The same image with its axes stored in another order or direction."""
    transform = nib.orientations.ornt_transform(
        nib.orientations.axcodes2ornt("RAS"), nib.orientations.axcodes2ornt(codes)
    )
    turned = nib.Nifti1Image(volume, affine).as_reoriented(transform)
    return np.asanyarray(turned.dataobj), turned.affine


@pytest.mark.parametrize("codes", ORIENTATIONS)
def test_the_picture_does_not_depend_on_how_the_image_is_stored(codes: str) -> None:
    volume = np.random.default_rng(1).random((14, 16, 5))
    mask = np.ones(volume.shape)
    affine = np.array([[2.0, 0, 0, -13], [0, 2.5, 0, -20], [0, 0, 6, 30], [0, 0, 0, 1]])
    expected = Slices.around(mask, affine)
    turned, turned_affine = stored(volume, affine, codes)
    found = Slices.around(np.ones(turned.shape), turned_affine)
    assert found.labels == expected.labels == [f"z = {z} mm" for z in (30, 36, 42, 48, 54)]
    assert found.spacing == pytest.approx((2.0, 2.5))
    np.testing.assert_array_equal(found.tiles(turned), expected.tiles(volume))


def test_slices_side_by_side() -> None:
    volume = np.random.default_rng(1).random((14, 16, 5))
    slices = Slices.around(np.ones(volume.shape), np.eye(4))
    strip = slices.strip(volume)
    ends = slices.places * strip.shape[1]
    np.testing.assert_allclose(ends, ends.round(), atol=1e-9)
    for tile, (start, stop) in zip(slices.tiles(volume), ends.round().astype(int), strict=True):
        np.testing.assert_array_equal(strip[:, start:stop], tile)


def test_left_is_left_and_front_is_up() -> None:
    volume = np.zeros((20, 20, 1))
    affine = np.diag([-1.0, -1.0, 1.0, 1.0])  # the first voxel is at the right and in front
    volume[0, 9] = 1  # rightmost
    volume[9, 0] = 2  # in front
    slices = Slices.around(np.ones(volume.shape), affine)
    (tile,) = slices.tiles(volume)
    rows, columns = np.nonzero(tile == 1)
    assert columns.tolist() == [tile.shape[1] - 1]
    rows, columns = np.nonzero(tile == 2)
    assert rows.tolist() == [tile.shape[0] - 1]  # drawn with the origin at the bottom
    assert slices.letters == ("L", "R", "P", "A")


@pytest.mark.parametrize(
    ("shape", "sizes", "axis"),
    [
        ((90, 90, 60), (2, 2, 2), 2),
        ((90, 90, 30), (1, 1, 4), 2),
        ((12, 128, 128), (5, 1, 1), 0),
        ((128, 10, 128), (1, 6, 1), 1),
        ((1, 64, 64), (2, 2, 2), 0),
        ((64, 64, 1), (2, 2, 2), 2),
        ((64, 60, 64), (2.0, 2.1, 2.0), 2),
    ],
)
def test_slices_are_cut_as_they_were_acquired(shape: tuple[int, ...], sizes: tuple[float, ...], axis: int) -> None:
    assert Slices.around(np.ones(shape), np.diag([*sizes, 1.0])).axis == axis


@pytest.mark.parametrize("n_slices", [1, 2, 6, 7, 8, 9, 70])
def test_slices_are_different_and_spread_over_the_mask(n_slices: int) -> None:
    slices = Slices.around(np.ones((20, 20, n_slices)), np.eye(4))
    assert len(slices) == min(n_slices, 7)
    assert len(set(slices.indices)) == len(slices)
    assert np.ptp(slices.indices) >= 0.8 * (n_slices - 1)


def test_only_slices_with_mask_are_shown() -> None:
    mask = np.zeros((30, 30, 40))
    mask[10:20, 8:12, 21:24] = 1
    slices = Slices.around(mask, np.eye(4))
    assert slices.indices == (21, 22, 23)
    assert all(tile.any() for tile in slices.tiles(mask))
    assert [(cut.start, cut.stop) for cut in slices.window] == [(7, 23), (4, 16)]


def test_a_tiny_mask_is_shown_with_room_and_an_empty_one_as_the_whole_image() -> None:
    mask = np.zeros((30, 30, 4))
    mask[0, 15, 2] = 1
    tiny = Slices.around(mask, np.eye(4))
    assert tiny.window[0] == slice(0, 7)  # as far as the image goes
    assert tiny.window[1] == slice(9, 22)
    whole = Slices.around(np.zeros((30, 30, 4)), np.eye(4))
    assert whole.window == (slice(0, 30), slice(0, 30))


def test_position_of_an_oblique_slice_is_that_of_the_masks_centre() -> None:
    tilt = np.deg2rad(20)
    affine = np.eye(4)
    affine[1:3, 1:3] = [[np.cos(tilt), -np.sin(tilt)], [np.sin(tilt), np.cos(tilt)]]
    slices = Slices.around(np.ones((21, 21, 1)), affine)
    assert slices.positions[0] == pytest.approx(10 * np.sin(tilt))
