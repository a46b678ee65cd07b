"""Motion of known size is found, stillness is left still, and directions turn with the head."""

import logging
from functools import cache

import numpy as np
import pytest
from scipy.linalg import polar
from scipy.ndimage import map_coordinates
from scipy.spatial.transform import Rotation

from bidsfit.fractal import fractal_noise
from bidsfit.noise import add_noise
from bidsfit.phantom.cohort import Cohort
from bidsfit.phantom.directions import spread_directions
from bidsfit.preprocessing.motion import (
    estimate_motion,
    obstacle_to_motion,
    rotate_directions,
    thin_axes,
    without_common_stretch,
)
from bidsfit.preprocessing.trajectory import motion_parameters


@pytest.fixture(autouse=True)
def _quiet():
    logging.getLogger("dipy").setLevel(logging.WARNING)


@cache
def head(shape):
    return next(Cohort(model="smt2", shape=shape, seed=0).participants()).head


def rigid(centre, translation, degrees):
    transform = np.eye(4)
    transform[:3, :3] = Rotation.from_euler("xyz", degrees, degrees=True).as_matrix()
    transform[:3, 3] = centre - transform[:3, :3] @ centre + translation
    return transform


def scan(shape, b, directions, parameters, snr=20.0, seed=0, strain=0.0):
    """Sticks in white matter, and what a scanner sees of a head that moves: data, affine, transforms, mask, centre."""
    still = head(shape)
    rng = np.random.default_rng(seed)
    size = still.voxel_size
    affine = np.diag([-size, size, size, 1.0])
    affine[:3, 3] = [size * shape[0] / 2, -size * shape[1] / 2, -size * shape[2] / 2]
    centre = affine[:3, :3] @ np.argwhere(still.mask).mean(0) + affine[:3, 3]
    fibres = np.stack([fractal_noise(shape, rng, cells=4.0) - 0.5 for _ in range(3)], axis=-1)
    fibres /= np.linalg.norm(fibres, axis=-1, keepdims=True)
    density = still.parameters["S0"]
    adc = {1: 3.0e-3, 2: 0.8e-3}  # fluid, grey matter
    sigma = density[still.mask].mean() / snr if np.isfinite(snr) else 0.0
    data = np.empty((*shape, b.size), dtype=np.float32)
    transforms = []
    for k in range(b.size):
        transform = rigid(centre, parameters[k, :3], parameters[k, 3:])
        stretch = np.eye(4)
        stretch[1, :3] += strain * directions[k] * np.sqrt(b[k] / 1000)
        stretch[:3, 3] = centre - stretch[:3, :3] @ centre
        transform = transform @ stretch
        along = (fibres @ (transform[:3, :3].T @ directions[k])) ** 2
        white = np.exp(-b[k] * (0.3e-3 + 1.2e-3 * along))
        iso = np.where(density > 0.9 * density.max(), np.exp(-b[k] * adc[1]), np.exp(-b[k] * adc[2]))
        signal = np.where(still.tissue == 3, white, iso) * density * still.mask
        back = np.linalg.inv(affine) @ np.linalg.inv(transform) @ affine
        places = np.einsum("ij,jabc->iabc", back[:3, :3], np.indices(shape)) + back[:3, 3, None, None, None]
        moved = np.any(parameters[k]) or strain
        signal = map_coordinates(signal, places, order=3, mode="nearest").clip(0) if moved else signal
        data[..., k] = add_noise(signal, sigma, "rician", rng)
        transforms.append(transform)
    return data, affine, np.array(transforms), still.mask, centre


def errors(found, true, centre):
    """Translation at the centre (mm) and rotation (degrees) that are left, per volume."""
    left = np.linalg.inv(true) @ found
    translation = np.linalg.norm(left[:, :3, :3] @ centre + left[:, :3, 3] - centre, axis=1)
    turned = [np.rad2deg(Rotation.from_matrix(polar(part[:3, :3])[0]).magnitude()) for part in left]
    return translation, np.array(turned)


SHAPE = (40, 40, 24)
B = np.array([0.0, 0, *[1000] * 3])
DIRECTIONS = np.r_[np.zeros((2, 3)), spread_directions(3)]


def some_motion(n, translation=2.0, degrees=2.0, seed=1):
    parameters = np.random.default_rng(seed).uniform(-1, 1, (n, 6)) * [*[translation] * 3, *[degrees] * 3]
    parameters[0] = 0
    return parameters


def test_known_motion_is_recovered():
    """Voxels of 3.75 mm, SNR 20, up to 3 mm and 3 degrees."""
    data, affine, true, mask, centre = scan((64, 64, 38), B, DIRECTIONS, some_motion(B.size))
    seen = []
    motion = estimate_motion(data, affine, B, mask, directions=DIRECTIONS, kind="rigid", progress=seen.append)
    translation, rotation = errors(motion.transforms, true, centre)
    assert np.array_equal(motion.transforms[0], np.eye(4))
    assert translation.max() < 0.3
    assert rotation.max() < 0.3
    assert not motion.replaced.any()
    assert not motion.in_plane
    assert seen[-1] == pytest.approx(1)
    assert seen == sorted(seen)


def test_shells_are_placed_across_smaller_ones():
    """Three volumes of b = 500, which are sought one by one, between two shells that are placed as a whole."""
    b = np.r_[0, 0, np.full(8, 300), np.full(3, 500), np.full(8, 1000)].astype(float)
    directions = np.r_[np.zeros((2, 3)), spread_directions(8), np.eye(3), spread_directions(8)]
    parameters = np.zeros((b.size, 6))
    parameters[2:] = [2, -1, 1, 1, -2, 2]
    parameters[10:13] = [-1, 2, 0, 0, 2, -1]
    parameters[13:] = [0, -2, 2, -2, 0, 1]
    data, affine, true, mask, centre = scan((48, 48, 24), b, directions, parameters)
    motion = estimate_motion(data, affine, b, mask, directions=directions, kind="rigid", threads=2)
    translation, rotation = errors(motion.transforms, true, centre)
    for shell in (slice(2, 10), slice(10, 13), slice(13, 21)):
        assert translation[shell].mean() < 0.4  # of voxels of 5 mm
        assert rotation[shell].mean() < 0.5


@pytest.mark.slow
def test_a_shell_near_the_noise_is_found_and_placed():
    """Single volumes of b = 3000 show little of the head at SNR 20; their mean does, and the shell below."""
    b = np.r_[0, np.tile([1000.0, 0, 3000, 3000, 1000], 7)]
    shells = [np.flatnonzero(b == value) for value in (1000, 3000)]
    rng = np.random.default_rng(5)
    directions = np.zeros((b.size, 3))
    for shell in shells:
        directions[shell] = rng.permutation(spread_directions(shell.size))
    walk = np.cumsum(np.random.default_rng(3).normal(0, 0.15, (b.size, 6)), axis=0)
    data, affine, true, mask, centre = scan((56, 56, 28), b, directions, walk - walk[0])
    motion = estimate_motion(data, affine, b, mask, directions=directions, kind="rigid", threads=2)
    translation, rotation = errors(motion.transforms, true, centre)
    for shell in shells:
        assert translation[shell].mean() < 0.3
        assert rotation[shell].mean() < 0.3
    assert not motion.replaced.any()


@pytest.mark.slow
@pytest.mark.parametrize("strain", [0.0, 0.01])
def test_known_motion_of_two_shells_is_recovered(strain):
    b = np.r_[np.zeros(4), np.full(24, 1000.0), np.full(24, 2500.0)]
    sphere = spread_directions(24) * np.tile([1, -1], 12)[:, None]  # whole, so that strains are 0 in the mean
    directions = np.r_[np.zeros((4, 3)), sphere, sphere]
    order = np.r_[0, np.random.default_rng(2).permutation(b.size - 1) + 1]
    b, directions = b[order], directions[order]
    data, affine, true, mask, centre = scan((80, 80, 40), b, directions, some_motion(b.size), strain=strain)
    motion = estimate_motion(data, affine, b, mask, directions=directions, axis=1, threads=2)
    translation, rotation = errors(motion.transforms, true, centre)
    for value in np.unique(b):
        assert translation[b == value].mean() < 0.3
        assert rotation[b == value].mean() < 0.3
    volume = np.linalg.det(motion.transforms[:, :3, :3])
    for value in (1000, 2500):
        assert abs(volume[b == value].mean() - 1) < 0.003
        if strain:
            assert np.corrcoef(volume[b == value], np.linalg.det(true[b == value][:, :3, :3]))[0, 1] > 0.9


def test_what_all_volumes_of_a_shell_are_stretched_by_is_no_eddy_current():
    rng = np.random.default_rng(0)
    centre = np.array([5.0, -10, 20])
    directions = spread_directions(20)  # half a sphere: their strains are not 0 in the mean
    eddy = np.tile(np.eye(4), (20, 1, 1))
    eddy[:, 1, :3] += 0.01 * directions
    eddy[:, 1, 3] = -0.01 * directions @ centre
    true = np.array([rigid(centre, *rng.normal(size=(2, 3))) @ stretch for stretch in eddy])
    grown = np.eye(4)
    grown[:3, :3] = np.diag([1.0, 1.02, 0.99])
    grown[:3, 3] = centre - grown[:3, :3] @ centre
    found = without_common_stretch(true @ grown, directions, centre)
    assert np.abs(np.linalg.det(found[:, :3, :3]) - np.linalg.det(true[:, :3, :3])).max() < 5e-4
    assert errors(found, true, centre)[0].max() < 1e-9
    assert without_common_stretch(true, directions, centre) == pytest.approx(true, abs=2e-4 * 30)


def test_stillness_is_left_still():
    data, affine, _, mask, centre = scan(SHAPE, B, DIRECTIONS, np.zeros((B.size, 6)), seed=3)
    motion = estimate_motion(data, affine, B, mask, axis=1)
    translation, rotation = errors(motion.transforms, np.tile(np.eye(4), (B.size, 1, 1)), centre)
    assert translation.max() < 0.2  # of voxels of 6 mm
    assert rotation.max() < 0.3


def test_many_tiny_shells():
    """IVIM: few volumes a b-value; the lowest ones share a reference with b = 0 or with one another."""
    b = np.repeat([0.0, 10, 40, 80, 200, 800], 2)
    directions = np.tile(np.eye(3)[:2], (6, 1))
    parameters = some_motion(b.size)
    data, affine, true, mask, centre = scan((40, 40, 16), b, directions, parameters)
    motion = estimate_motion(data, affine, b, mask, kind="rigid")
    translation, rotation = errors(motion.transforms, true, centre)
    assert translation.max() < 0.4
    assert rotation.max() < 0.6
    assert translation.mean() < 0.2
    assert rotation.mean() < 0.2


@pytest.mark.parametrize("n_slices", [1, 3])
def test_few_slices_are_followed_in_their_plane(n_slices):
    parameters = some_motion(4) * [1, 1, 0, 0, 0, 1]
    b = np.array([0.0, 0, 0, 1000])
    data, affine, true, mask, centre = scan((64, 64, n_slices), b, np.r_[np.zeros((3, 3)), np.eye(3)[:1]], parameters)
    motion = estimate_motion(data, affine, b, mask)
    assert motion.in_plane
    found = motion_parameters(motion.transforms, centre)
    assert np.abs(found[:, 2:5]).max() < 1e-9  # nothing through the plane
    translation, rotation = errors(motion.transforms, true, centre)
    assert translation[:3].max() < 0.2
    assert rotation[:3].max() < 0.2


def test_motion_in_voxels_does_not_depend_on_their_size():
    """The same array in voxels of 1.5, 0.15 and 0.075 mm: 60 mm, 6 mm and 3 mm of tissue."""
    data, affine, _, mask, _ = scan((40, 40, 16), B, DIRECTIONS, some_motion(B.size))
    found = []
    for voxel in (1.5, 0.15, 0.075):
        ratio = voxel / 6
        transforms = estimate_motion(
            data, np.diag([ratio] * 3 + [1]) @ affine, B, mask, directions=DIRECTIONS
        ).transforms
        transforms[:, :3, 3] /= ratio
        found.append(transforms)
    assert np.abs(found[0][1:, :3, 3]).max() > 1
    for other in found[1:]:
        assert other[:, :3, :3] == pytest.approx(found[0][:, :3, :3], abs=2e-3)
        assert other[:, :3, 3] == pytest.approx(found[0][:, :3, 3], abs=0.02 * 6)  # the search ends by rounding


@pytest.mark.parametrize(
    ("shape", "box", "thin"),
    [
        ((64, 64, 24), np.s_[10:50, 10:50, 2:22], ()),
        ((64, 64, 4), np.s_[10:50, 10:50], (2,)),
        ((64, 64, 24), np.s_[10:50, 10:50, 3:7], (2,)),
        ((64, 64, 24), np.s_[20:32, 20:34], (2,)),
        ((4, 64, 64), np.s_[:, 10:50, 10:50], (0,)),
    ],
    ids=["head", "few slices", "mask of few slices", "small mask", "sagittal"],
)
def test_where_motion_is_sought_within_slices_alone(shape, box, thin):
    mask = np.zeros(shape, dtype=bool)
    mask[box] = True
    assert thin_axes(mask) == thin


def test_a_volume_without_contrast_takes_the_motion_of_its_neighbours(caplog):
    parameters = np.outer([0, 1, 1, 1], [2.0, 0, 0, 0, 0, 0])
    b = np.zeros(4)
    data, affine, true, mask, centre = scan((40, 40, 16), b, np.zeros((4, 3)), parameters)
    data[..., 2] = 0
    motion = estimate_motion(data, affine, b, mask)
    assert motion.replaced.tolist() == [False, False, True, False]
    assert errors(motion.transforms, true, centre)[0].max() < 0.3
    assert "volumes 2 could not be estimated" in caplog.text


def test_motion_is_the_same_with_and_without_threads():
    data, affine, _, mask, _ = scan((40, 40, 16), np.zeros(3), np.zeros((3, 3)), some_motion(3))
    one = estimate_motion(data, affine, np.zeros(3), mask)
    two = estimate_motion(data, affine, np.zeros(3), mask, threads=2)
    assert np.array_equal(one.transforms, two.transforms)


def test_obstacles_are_named():
    assert obstacle_to_motion((48, 48, 1), 5) == ""
    assert obstacle_to_motion((48, 48, 24), 2) == ""
    assert "at least 2" in obstacle_to_motion((48, 48, 24), 1)
    assert "8 x 48" in obstacle_to_motion((48, 8, 1), 5)
    with pytest.raises(ValueError, match="too small"):
        estimate_motion(np.zeros((5, 5, 5, 3)), np.eye(4), [0, 0, 0])


def test_refusals():
    data = np.zeros((16, 16, 8, 3), dtype=np.float32)
    with pytest.raises(ValueError, match="n b-values"):
        estimate_motion(data, np.eye(4), [0, 0])
    with pytest.raises(ValueError, match="Unknown kind"):
        estimate_motion(data, np.eye(4), [0, 0, 0], kind="nonlinear")
    with pytest.raises(ValueError, match="same everywhere"):
        estimate_motion(data, np.eye(4), [0, 0, 0])


OBLIQUE = Rotation.from_euler("xyz", [10, -20, 30], degrees=True).as_matrix()


@pytest.mark.parametrize("sign", [-1, 1], ids=["radiological", "neurological"])
@pytest.mark.parametrize("frame", [np.eye(3), OBLIQUE], ids=["straight", "oblique"])
def test_directions_turn_with_the_head(sign, frame):
    """A fibre along the gradient keeps its angle to it: both are followed from the scanner to the reference."""
    affine = np.eye(4)
    affine[:3, :3] = frame @ np.diag([sign * 2.0, 2.0, 3.0])
    transform = rigid(np.array([5.0, 6, 7]), [1, 2, 3], [3, -5, 20])
    gradient = np.array([0.6, -0.64, 0.48])  # world, fixed to the scanner
    flip = np.diag([-1.0 if sign > 0 else 1.0, 1, 1])
    axes = frame @ np.diag([sign, 1, 1])
    bvec = flip @ axes.T @ gradient
    turned = rotate_directions([bvec, [0, 0, 0]], [transform, transform], affine)
    in_head = transform[:3, :3].T @ gradient
    assert axes @ flip @ turned[0] == pytest.approx(in_head)
    assert np.all(turned[1] == 0)
    assert rotate_directions([bvec], [np.eye(4)], affine)[0] == pytest.approx(bvec)


def test_a_quarter_turn():
    quarter = rigid(np.zeros(3), [0, 0, 0], [0, 0, 90])  # the head turned x to y
    affine = np.diag([-2.0, 2, 2, 1])
    assert rotate_directions([[0, 1, 0]], [quarter], affine)[0] == pytest.approx([-1, 0, 0])  # world +x is image -x
    affine = np.diag([2.0, 2, 2, 1])
    assert rotate_directions([[0, 1, 0]], [quarter], affine)[0] == pytest.approx([-1, 0, 0])  # flipped twice


def test_strain_does_not_turn_directions_much():
    strained = np.eye(4)
    strained[1, 1] = 1.05
    assert rotate_directions([[0.6, 0.8, 0]], [strained], np.eye(4))[0] == pytest.approx([0.6, 0.8, 0])
