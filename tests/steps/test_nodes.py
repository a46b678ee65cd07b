"""The nodes that prepare a raw image: those of the steps, and what they begin with."""

import json
import re
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from nipype.interfaces.base import isdefined
from scipy.ndimage import gaussian_filter, map_coordinates

from bidsfit.bids.fieldmaps import ReversedPhase
from bidsfit.bids.left_out import left_out
from bidsfit.bids.metadata import slice_axis
from bidsfit.exceptions import UnusableInputError
from bidsfit.interfaces.raw import FindNoise, LoadRaw
from bidsfit.noise import rician_mean
from bidsfit.preprocessing.motion import Motion
from bidsfit.steps.denoise import ReduceNoise
from bidsfit.steps.gibbs import RemoveRinging
from bidsfit.steps.motion import CorrectMotion, describe_motion, judged
from bidsfit.steps.phase import TakeRealPart
from bidsfit.steps.rician import CorrectRician
from bidsfit.steps.susceptibility import EstimateField, FieldInterface

SHAPE, B_VALUES = (16, 16, 5), (0, 0, *[1000] * 10)
SIGMA = 40.0


@pytest.fixture
def raw(tiny):
    """``raw(data)``: paths of a raw image, its b-values and directions."""

    def make(data=None, directions=None):
        data = noisy() if data is None else data
        path = tiny.add("sub-01/dwi/sub-01_dwi", data=data, b_values=B_VALUES)
        stem = str(path).removesuffix(".nii.gz")
        if directions is not None:
            np.savetxt(f"{stem}.bvec", directions.T)
        return {"in_file": str(path), "bval": f"{stem}.bval", "bvec": f"{stem}.bvec"}

    return make


def clean():
    """A block of tissue in air; its signal falls to 0.3."""
    data = np.zeros((*SHAPE, len(B_VALUES)), dtype=np.float32)
    data[3:13, 3:13] = 1000 * np.where(np.array(B_VALUES) > 0, 0.3, 1.0)
    return data


def noisy(seed=0):
    real, imaginary = SIGMA * np.random.default_rng(seed).standard_normal((2, *SHAPE, len(B_VALUES)))
    return np.hypot(clean() + real, imaginary).astype(np.float32)


def directions(seed=1):
    found = np.random.default_rng(seed).normal(size=(len(B_VALUES), 3))
    found /= np.linalg.norm(found, axis=1, keepdims=True)
    found[:2] = 0
    return found


def data_of(path):
    return np.asarray(nib.load(path).dataobj)


def facts_of(outputs):
    with open(outputs.facts) as file:
        return json.load(file)


@pytest.fixture
def file(tmp_path):
    """``file(array)``: an image of it."""

    def write(array, name="image.nii"):
        nib.save(nib.Nifti1Image(np.asarray(array, dtype=np.float32), np.diag([2.0, 2, 2, 1])), tmp_path / name)
        return str(tmp_path / name)

    return write


def test_an_image_is_loaded_as_it_is(raw, run_in):
    outputs = run_in(LoadRaw(**raw(directions=directions())))
    np.testing.assert_array_equal(data_of(outputs.out_file), noisy())
    np.testing.assert_allclose(np.loadtxt(outputs.bvec).T, directions(), atol=1e-6)
    region = data_of(outputs.region) > 0
    assert region[3:13, 3:13].all()
    assert facts_of(outputs)["warnings"] == []
    assert facts_of(outputs)["seconds"] > 0


def test_voxels_that_are_not_finite_are_remembered(raw, run_in):
    data = noisy()
    data[8, 8, 2, 5] = np.nan
    outputs = run_in(LoadRaw(**raw(data, directions())))
    missing = data_of(outputs.missing) > 0
    assert missing[8, 8, 2]
    assert missing[7, 8, 2]
    assert not missing[5, 8, 2]
    assert np.isfinite(data_of(outputs.out_file)).all()
    assert "1 voxels of the raw image have intensities that are not finite" in facts_of(outputs)["warnings"][0]


def test_voxels_without_data_are_left_out_alone(raw, run_in):
    """NaN around a head costs none of its voxels, and no step looks there."""
    data = noisy()
    data[:4] = np.nan
    outputs = run_in(LoadRaw(**raw(data, directions())))
    missing = data_of(outputs.missing) > 0
    assert missing[:4].all()
    assert not missing[4:].any()
    assert not data_of(outputs.region)[:4].any()
    assert not facts_of(outputs)["warnings"]


def test_directions_that_are_not_of_unit_length_are_said(raw, run_in):
    outputs = run_in(LoadRaw(**raw(directions=3 * directions())))
    np.testing.assert_allclose(np.linalg.norm(np.loadtxt(outputs.bvec).T[2:], axis=1), 1, atol=1e-6)
    assert facts_of(outputs)["warnings"]


def test_denoising_lowers_the_error_and_finds_the_noise(file, run_in):
    region = file(np.ones(SHAPE), "region.nii")
    outputs = run_in(ReduceNoise(in_file=file(noisy()), region=region, method="mppca"))
    inside = np.s_[5:11, 5:11, 1:4]
    expected = rician_mean(clean()[inside], SIGMA)
    before = np.sqrt(np.mean((noisy()[inside] - expected) ** 2))
    assert np.sqrt(np.mean((data_of(outputs.out_file)[inside] - expected) ** 2)) < 0.6 * before
    assert np.median(data_of(outputs.mppca_map)[inside]) == pytest.approx(SIGMA, rel=0.1)


@pytest.mark.parametrize("factor", [1, 2])
def test_interpolation_is_seen_in_the_noise(tiny, scanned, run_in, factor):
    data, _ = scanned(24, (factor, 1))
    path = tiny.add("sub-01/dwi/sub-01_dwi", data=data.astype(np.float32), b_values=[0] * 4)
    outputs = run_in(LoadRaw(in_file=str(path), bval=str(path).replace("nii.gz", "bval")))
    warned = any("Neighbouring voxels share noise" in words for words in facts_of(outputs)["warnings"])
    assert warned == ("% along i" in outputs.interpolation) == (factor > 1)


def test_an_interpolated_image_keeps_its_values(file, run_in):
    image, region = file(noisy()), file(np.ones(SHAPE), "region.nii")
    for step in (ReduceNoise(region=region, method="mppca"), RemoveRinging()):
        step.inputs.trait_set(in_file=image, interpolation="every voxel twice")
        outputs = run_in(step)
        assert outputs.out_file == image
        assert "every voxel twice" in facts_of(outputs)["refused"]


@pytest.mark.parametrize(("method", "warned"), [("mppca", True), ("patch2self", False)])
def test_denoising_that_is_asked_for_is_done_with_a_warning(file, run_in, method, warned):
    given = {"in_file": file(noisy()), "region": file(np.ones(SHAPE), "region.nii"), "interpolation": "twice"}
    outputs = run_in(ReduceNoise(**given, method=method, needed=True))
    assert np.any(data_of(outputs.out_file) != noisy())
    assert bool(facts_of(outputs)["warnings"]) == warned


def test_ringing_is_sought_across_the_slices(file, run_in):
    assert slice_axis({}) == 2
    assert slice_axis({"SliceEncodingDirection": "i-"}) == 0
    assert slice_axis({"SliceEncodingDirection": None}) == 2
    outputs = run_in(RemoveRinging(in_file=file(clean()[..., :2])))
    assert data_of(outputs.out_file).shape == (*SHAPE, 2)


@pytest.mark.parametrize("moved", [False, True])
def test_a_known_field_is_undone_unless_a_later_step_does_it(file, run_in, moved):
    """A shift of one voxel along the second axis everywhere: the image moves back by one."""

    class Known(FieldInterface):
        def _find(self, data, image, pair, cwd):
            return np.ones(SHAPE, dtype=np.float32), [data[..., 0]] * 3, {"words": "known"}

    data = noisy()
    shifted = np.roll(data, 1, axis=1)
    pair = ReversedPhase(Path("epi.nii.gz"), "bids::epi.nii.gz", (1,), (0, 1), "j", "j-", 0.05, 0.05, "IntendedFor")
    outputs = run_in(Known(in_file=file(shifted), reversed_phase=pair.to_dict(), moved=moved))
    found, expected = data_of(outputs.out_file), shifted if moved else data
    np.testing.assert_allclose(found[:, 2:-2], expected[:, 2:-2], rtol=1e-3, atol=0.5)
    np.testing.assert_array_equal(data_of(outputs.field), 1)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        ("cut short", "damaged or truncated"),
        ("gone", "does not exist"),
        ("no image", "cannot be read as NIfTI"),
        ("zeros", "Volume 1 of .* holds no picture"),
        ("nan", "Volume 1 of .* holds no picture"),
        ("another shape", "expected \\(16, 16, 5\\)"),
        ("fewer volumes", "and 2 volumes or more"),
    ],
)
def test_a_reversed_image_that_cannot_be_used_leaves_no_field_and_a_reason(file, run_in, tmp_path, damage, words):
    other = noisy()[..., :2]
    if damage in ("zeros", "nan"):
        other[..., 1] = 0 if damage == "zeros" else np.nan
    path = file({"another shape": other[:8], "fewer volumes": other[..., 0]}.get(damage, other), "epi.nii.gz")
    if damage == "cut short":
        content = Path(path).read_bytes()
        Path(path).write_bytes(content[: len(content) // 2])
    elif damage == "gone":
        Path(path).unlink()
    elif damage == "no image":
        Path(path).write_text("<html>404</html>")
    pair = ReversedPhase(Path(path), "bids::epi.nii.gz", (1,), (0, 1), "j", "j-", 0.05, 0.05, "IntendedFor")
    outputs = run_in(EstimateField(in_file=file(noisy()), reversed_phase=pair.to_dict()))
    refused = facts_of(outputs)["refused"]
    assert refused.startswith("it could not be found from epi.nii.gz: ")
    assert re.search(words, refused)
    assert not isdefined(outputs.field)
    assert not isdefined(outputs.pictures)


def test_without_own_unweighted_volumes_there_is_no_field_and_a_reason(file, run_in):
    """Those of the image were left out, for they are none: the step is lost, and not the image."""
    path = Path(file(noisy()[..., :2], "epi.nii.gz"))
    pair = ReversedPhase(path, "bids::epi.nii.gz", (1,), (0, 1), "j", "j-", 0.05, 0.05, "IntendedFor")
    gone = [{"Volume": k, "BValue": 0, "Reason": "it holds only zeros"} for k in (0, 1)]
    outputs = run_in(EstimateField(in_file=file(noisy()), reversed_phase=pair.to_dict(), left_out=gone))
    words = "it could not be found from epi.nii.gz: all volumes without diffusion weighting"
    assert facts_of(outputs)["refused"].startswith(words)
    assert not isdefined(outputs.field)


def bent_organ(depths, b_values, diffusivity):
    """An organ of one diffusivity that bends by another depth in every volume, (48, 48, 2, n), and its inside."""
    shape, rng = (48, 48, 2), np.random.default_rng(0)
    grid = np.indices(shape, dtype=float)
    texture = gaussian_filter(rng.standard_normal(shape), [2.5, 2.5, 0])
    radius = np.hypot(grid[0] - 23.5, grid[1] - 23.5) / 18
    organ = gaussian_filter(np.where(radius < 1, 400 + 150 * texture / texture.std(), 0).clip(0), [0.8, 0.8, 0])
    volumes = []
    for b, depth in zip(b_values, depths, strict=True):
        bent = grid.copy()
        bent[0] += depth * np.sin(2 * np.pi * grid[1] / 48)
        volumes.append(np.exp(-b * diffusivity) * map_coordinates(organ, bent, order=3, mode="nearest"))
    return (np.stack(volumes, axis=-1) + 4 * rng.standard_normal((*shape, b_values.size))).clip(1), radius


def corrected(data, radius, b_values, file, run_in):
    nodes = {"in_file": file(data), "region": file(radius < 1.1, "region.nii")}
    bval = nodes["in_file"].replace("image.nii", "dwi.bval")
    np.savetxt(bval, b_values[None])
    outputs = run_in(CorrectMotion(**nodes, bval=bval, method="deformable"))
    return outputs, json.loads(Path(outputs.facts).read_text())


def test_an_organ_that_bends_is_brought_to_its_mean(file, run_in):
    """The error of ADC falls to less than three quarters; where volumes lie is told by the mean displacement."""
    b_values, diffusivity = np.repeat([0.0, 100, 400, 800], 5), 1e-3
    depths = 2 * np.random.default_rng(3).standard_normal(b_values.size)
    data, radius = bent_organ(depths, b_values, diffusivity)
    inside = radius < 0.75

    def error(values):
        slope = np.polyfit(b_values, np.log(values[inside]).T, 1)[0]
        return np.sqrt(np.mean((-slope - diffusivity) ** 2))

    outputs, facts = corrected(data, radius, b_values, file, run_in)
    found = data_of(outputs.out_file)
    assert np.isfinite(found[inside]).all()
    assert error(found.clip(1)) < 0.75 * error(data)
    assert "tissue moves by" in facts["words"]
    assert facts["gain"] > 0.1
    assert np.load(outputs.transforms)[:, :3, 3].any()


def test_an_organ_that_lies_still_is_not_interpolated(file, run_in):
    b_values = np.repeat([0.0, 100, 400, 800], 3)
    data, radius = bent_organ(np.zeros(b_values.size), b_values, 1e-3)
    outputs, facts = corrected(data, radius, b_values, file, run_in)
    np.testing.assert_allclose(data_of(outputs.out_file), data, rtol=1e-5)
    assert "lay still" in facts["words"]
    assert "no volume was moved" in facts["methods"]


def test_too_few_volumes_of_an_organ_cost_the_step(file, run_in):
    """As when volumes that are no measurement were left out after planning."""
    b_values = np.array([0.0, 400, 800])
    data, radius = bent_organ(np.zeros(3), b_values, 1e-3)
    outputs, facts = corrected(data, radius, b_values, file, run_in)
    assert facts["refused"].startswith("3 volumes do not tell movement from contrast")
    np.testing.assert_allclose(data_of(outputs.out_file), data, rtol=1e-5)


@pytest.mark.parametrize("still", [True, False])
def test_the_methods_text_tells_whether_a_volume_was_moved(still):
    found = Motion(np.tile(np.eye(4), (3, 1, 1)), np.zeros(3, dtype=bool), in_plane=False, still=still)
    assert ("no volume was moved" in describe_motion(found, range(3)).get("methods", "")) is still


def test_volumes_are_called_as_in_the_image_as_acquired():
    found = Motion(np.tile(np.eye(4), (3, 1, 1)), np.array([False, True, True]), in_plane=False, still=False)
    (warning,) = describe_motion(found, [0, 2, 5])["warnings"]
    assert warning.startswith("The motion of 2 of 3 volumes")
    assert warning.endswith("(counted from 0: 2, 5).")


@pytest.mark.parametrize(
    ("sigma", "expected", "words"),
    [("25", 25.0, "given"), ("repeats", SIGMA, "repeated"), ("auto", 33.0, "MP-PCA"), ("residuals", 33.0, "MP-PCA")],
)
def test_where_the_noise_level_comes_from(raw, file, run_in, sigma, expected, words):
    paths = raw(directions=directions())
    region = np.zeros(SHAPE)
    region[3:13, 3:13] = 1
    given = {**paths, "in_file": file(noisy())}
    level = file(np.full(SHAPE, 33.0), "level.nii")
    outputs = run_in(FindNoise(**given, region=file(region, "region.nii"), sigma=sigma, mppca_map=level))
    assert np.median(data_of(outputs.noise_map)) == pytest.approx(expected, rel=0.15)
    assert words in outputs.noise_words


@pytest.mark.parametrize(
    ("level", "interpolation", "expected", "said"),
    [
        (1.05 * SIGMA, "", 1.05 * SIGMA, "MP-PCA of the raw image"),
        (SIGMA / 3, "", SIGMA / 3, "repeated measurements scatter by"),
        (SIGMA / 3, "twice", SIGMA, "scatter of repeated measurements"),
    ],
)
def test_repeats_beside_mppca(raw, file, run_in, level, interpolation, expected, said):
    """The words tell both where they differ, and repeats are taken where the image was interpolated."""
    region = np.zeros(SHAPE)
    region[3:13, 3:13] = 1
    given = {**raw(directions=directions()), "in_file": file(noisy()), "region": file(region, "region.nii")}
    level = file(np.full(SHAPE, level), "mppca.nii")
    outputs = run_in(FindNoise(**given, mppca_map=level, interpolation=interpolation))
    assert np.median(data_of(outputs.noise_map)) == pytest.approx(expected, rel=0.15)
    assert said in outputs.noise_words


def test_air_in_the_margin_does_not_lower_the_noise_level(raw, file, run_in):
    paths = raw(directions=directions())
    loaded = run_in(LoadRaw(**paths))
    given = {"bval": paths["bval"], "in_file": loaded.out_file, "region": loaded.region}
    masks = ({}, {"rough_mask": loaded.rough_mask})
    levels = [np.median(data_of(run_in(FindNoise(**given, **mask)).noise_map)) for mask in masks]
    assert levels[0] < 0.85 * SIGMA
    assert levels[1] == pytest.approx(SIGMA, rel=0.1)


def test_a_noise_level_that_nothing_tells(raw, file, run_in):
    paths = {**raw(directions=directions()), "in_file": file(noisy())}
    with open(paths["bval"], "w") as text:
        text.write(" ".join(str(100 * k) for k in range(len(B_VALUES))))
    with pytest.raises(UnusableInputError, match=r"--sigma NUMBER, or --sigma piesno"):
        FindNoise(**paths, region=file(np.ones(SHAPE), "region.nii"), sigma="repeats").run()


def test_the_noise_floor_is_taken_out(file, run_in):
    data = rician_mean(np.full((*SHAPE, 3), [0.0, 1.0, 4.0]) * SIGMA, SIGMA)
    outputs = run_in(CorrectRician(in_file=file(data), noise_map=file(np.full(SHAPE, SIGMA), "level.nii")))
    np.testing.assert_allclose(data_of(outputs.out_file)[0, 0, 0], [0, SIGMA, 4 * SIGMA], atol=0.02 * SIGMA)


CORD_B = np.array([5.0, 10, 20, 30, 50, 75, 150, 250, 600, 700, 800])


def cord(moves, seed=0):
    """A curved cord in bright fluid that fades with b, in muscle: volumes, and the muscle with what it surrounds."""
    rng, shape = np.random.default_rng(seed), (56, 56, 6)
    x, y, z = np.indices(shape, dtype=float)
    radius = np.hypot(x - 25.5 - 0.8 * z, y - 27.5 - 0.3 * z)
    texture = gaussian_filter(rng.standard_normal(shape), [2, 2, 0.5])
    texture = 1 + 0.2 * texture / texture.std()

    def ivim(b, diffusivity, fraction):
        return (1 - fraction) * np.exp(-b * diffusivity) + fraction * np.exp(-b * 20e-3)

    volumes = []
    for b, move in zip(CORD_B, moves, strict=True):
        signal = np.where(radius < 24, 350 * texture * ivim(b, 1.3e-3, 0.08), 0)
        signal = np.where(radius < 9.5 - 0.2 * z, 1400 * ivim(b, 3e-3, 0.25), signal)
        signal = np.where(radius < 5.5 + 0.3 * z, 400 * texture * ivim(b, 0.7e-3, 0.05), signal)
        signal = gaussian_filter(signal, [0.7, 0.7, 0])
        places = np.indices(shape) - np.reshape([*move, 0], (3, 1, 1, 1))
        volumes.append(map_coordinates(signal, places, order=3, mode="nearest"))
    noise = 10 * rng.standard_normal((2, *shape, CORD_B.size))
    return np.hypot(np.stack(volumes, axis=-1) + noise[0], noise[1]).astype(np.float32), radius < 27


@pytest.fixture
def correct_cord(file, run_in, tmp_path):
    """``correct_cord(moves)``: volumes before the correction of motion and after it, and what the node leaves."""

    def run(moves, region=None):
        data, body = cord(moves)
        affine = np.diag([0.8, 0.8, 5.0, 1.0])
        paths = {"in_file": data, "region": body if region is None else region}
        for name, values in paths.items():
            paths[name] = str(tmp_path / f"{name}.nii")
            nib.save(nib.Nifti1Image(np.asarray(values, dtype=np.float32), affine), paths[name])
        np.savetxt(tmp_path / "dwi.bval", CORD_B[None])
        outputs = run_in(CorrectMotion(**paths, bval=str(tmp_path / "dwi.bval"), method="affine"))
        return data, data_of(outputs.out_file), outputs

    return run


STILL_CORD = np.zeros((CORD_B.size, 2))


def test_fluid_that_fades_is_no_motion(correct_cord):
    before, after, _ = correct_cord(STILL_CORD)
    np.testing.assert_array_equal(after, before)


def test_motion_of_a_cord_is_corrected(correct_cord):
    moves = np.random.default_rng(1).uniform(-1.5, 1.5, (CORD_B.size, 2))
    moves[0] = 0
    _, after, outputs = correct_cord(moves)
    found = np.load(outputs.transforms)
    np.testing.assert_allclose(found[:, :2, 3] / 0.8, moves, atol=0.5)  # at the corner; turns are about the centre
    still, body = cord(STILL_CORD)
    moved, _ = cord(moves)
    inside = body & np.isfinite(after).all(axis=-1)
    assert np.mean((after - still)[inside] ** 2) < 0.4 * np.mean((moved - still)[inside] ** 2)
    facts = facts_of(outputs)
    assert facts["gain"] > 0.2
    assert not facts["follows_b"]


def test_a_correction_that_makes_volumes_less_alike_is_left_out_and_said(correct_cord, monkeypatch):
    """Volumes are taken to lie farther off the less the fluid shines."""
    feigned = np.tile(np.eye(4), (CORD_B.size, 1, 1))
    feigned[:, 0, 3] = 2 * (1 - np.exp(-3e-3 * (CORD_B - CORD_B[0])))
    found = Motion(feigned, np.zeros(CORD_B.size, dtype=bool), in_plane=True, still=False)
    monkeypatch.setattr("bidsfit.steps.motion.estimate_motion", lambda *args, **kwargs: found)
    before, after, outputs = correct_cord(STILL_CORD)
    np.testing.assert_array_equal(after, before)
    assert not isdefined(outputs.transforms)
    facts = facts_of(outputs)
    assert facts["gain"] < 0
    assert facts["follows_b"]
    for words in (facts["refused"], facts["methods"]):
        assert "did not make the volumes more alike" in words
        assert "follows the b-value" in words


def test_what_is_said_of_a_correction_that_is_kept():
    plain = {"words": "", "warnings": []}
    assert judged(plain, 0.3, 0.0, False) == {
        "words": "the error of predicting each volume from the others fell by 30.0 %",
        "warnings": [],
        "gain": 0.3,
        "lost": 0.0,
        "follows_b": False,
    }
    assert "follows the b-value" in judged(plain, 0.3, 0.0, True)["warnings"][0]
    assert "follows" not in judged(plain, 0.0, 0.0, False)["refused"]


def test_what_a_correction_costs_is_told():
    """Of a bottle that did not move, an end slice was lost for volumes that interpolation made a little smoother."""
    (warning,) = judged({"words": "", "warnings": []}, 0.038, 0.042, False)["warnings"]
    assert "4.2 % of what was to be fitted is not in every volume" in warning
    assert "predicted better by only 3.8 %: --skip motion may serve better" in warning
    (warning,) = judged({"words": "", "warnings": []}, 0.2, 0.042, False)["warnings"]
    assert "--skip motion" not in warning


def test_the_phase_is_removed_from_the_volumes_that_are_left(raw, file, tmp_path):
    """Its volumes are those of the image as acquired; phases of unknown range are refused."""
    data = np.ones((8, 8, 3, 2), dtype=np.float32)
    phase = np.stack([np.full((8, 8, 3), value) for value in (0.3, 2.0, -1.0)], axis=-1)
    phase[::2, :, :, 1] += np.pi  # what belongs to the volume that was left out
    options = {"in_file": file(data), "left_out": [left_out(1, 500.0, "a map")], "step": "phase"}
    run = TakeRealPart(phase=file(phase, "phase.nii"), phase_unit="rad", **options).run(cwd=tmp_path)
    np.testing.assert_allclose(data_of(run.outputs.out_file), 1, atol=1e-6)
    with pytest.raises(UnusableInputError, match=r"phase.nii: phases from -1 to .*Units: rad"):
        TakeRealPart(phase=file(phase, "phase.nii"), phase_unit="arbitrary", **options).run(cwd=tmp_path)
