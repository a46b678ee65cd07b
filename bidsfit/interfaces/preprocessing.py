"""The nodes that prepare a raw image: thin layers of files over `bidsfit.preprocessing`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from nibabel.spatialimages import SpatialImage
from nipype.interfaces.base import File, TraitedSpec, isdefined, traits
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation

from bidsfit.acquisition import B0_TOLERANCE, Acquisition
from bidsfit.bids.acquisitions import read_acquisition
from bidsfit.bids.fieldmaps import ReversedPhase, read_reversed
from bidsfit.bids.images import image_shape, open_image, read_data, read_mask, read_on_grid
from bidsfit.bids.left_out import numbers, numbers_of_others
from bidsfit.exceptions import UnusableInputError
from bidsfit.interfaces.step import Step, StepInput, StepOutput, progress_bar, read_volumes, write_volumes
from bidsfit.noise import (
    NoiseEstimate,
    correct_rician_image,
    rician_sigma_map,
    sigma_from_background,
    sigma_from_repeats,
)
from bidsfit.preprocessing import denoising, likeness, masking, ringing
from bidsfit.preprocessing.breathing import Breathing, estimate_breathing, obstacle_to_breathing
from bidsfit.preprocessing.gradients import detect_flip, normalise_directions
from bidsfit.preprocessing.motion import Motion, estimate_motion, rotate_directions
from bidsfit.preprocessing.registration import VoxelGrid
from bidsfit.preprocessing.resampling import Resampled, resample
from bidsfit.preprocessing.susceptibility import NEGLIGIBLE, estimate_field, phase_encoding, undistort
from bidsfit.preprocessing.trajectory import RADIUS, motion_parameters
from bidsfit.reports.words import percent

#: What the methods text tells where nothing moved.
STILL = (
    "Motion was sought by registration of every volume to what the others of its shell predict; no volume was moved, "
    "because nothing had moved as far as can be seen."
)
STILL_ORGANS = (
    "Motion of organs was sought as one displacement that all volumes share; no volume was moved, because the organs "
    "lay still as far as can be seen."
)

#: What is said of a displacement that goes with b.
FOLLOWS_B = "the displacement that was found follows the b-value, as when fluid that fades with b is taken for motion"

#: Voxels by which the mask grows for the steps that come before the image is in its place.
MARGIN = 3


def write_directions(path: Path, directions: NDArray) -> str:
    """Write a .bvec file; return its path as text."""
    np.savetxt(path, np.asarray(directions).T, fmt="%.8f")
    return str(path)


class _LoadRawInput(StepInput):
    bval = File(exists=True, mandatory=True)
    bvec = File(exists=True)
    in_mask = File(exists=True, desc="mask that came with the data")
    body = traits.Bool(False, usedefault=True, desc="the image is not of a head")
    left_out = traits.List(traits.Dict, usedefault=True, desc="volumes of the image as acquired that are not in it")


class _LoadRawOutput(StepOutput):
    bvec = File(desc="directions of unit length")
    region = File(exists=True, desc="mask with a margin: where the steps look")
    missing = File(exists=True, desc="voxels that are not fitted, for lack of data, if there are any")


class LoadRaw(Step):
    """Read a raw image, check it, and find roughly where the participant is."""

    input_spec = _LoadRawInput
    output_spec = _LoadRawOutput

    def _work(self, cwd: Path) -> dict[str, Any]:
        path = Path(self.inputs.in_file)
        bvec = Path(self.inputs.bvec) if isdefined(self.inputs.bvec) else None
        acquisition = read_acquisition(Path(self.inputs.bval), bvec)
        image = open_image(path)
        shape = image_shape(image, len(acquisition), path)
        data = np.asarray(read_data(image, path), dtype=np.float32).reshape(shape, order="F")
        warnings = []
        finite = np.isfinite(data)
        no_data = ~finite.any(axis=-1)  # around a head that was cut out, say
        missing = ~finite.all(axis=-1) & ~no_data
        if missing.any():
            warnings.append(
                f"{missing.sum()} voxels of the raw image have intensities that are not finite; they and their "
                "neighbours are not fitted."
            )
        if missing.any() or no_data.any():
            np.nan_to_num(data, copy=False, nan=0, posinf=0, neginf=0)
            without = binary_dilation(missing) | no_data
            self._results["missing"] = write_volumes(cwd / "missing.nii", without, image)
        mask = self._mask(data, acquisition, image, path) & ~no_data
        if acquisition.directions is not None:
            called = numbers_of_others(len(acquisition), self.inputs.left_out)
            directions, said = normalise_directions(acquisition.b_values, acquisition.directions, called)
            warnings += said
            self._results["bvec"] = write_directions(cwd / "unit.bvec", directions)
            flip = detect_flip(data, mask, acquisition.b_values, directions, image.affine)
            if flip:
                warnings.append(flip)
        region = binary_dilation(mask, iterations=MARGIN) & ~no_data
        self._results["out_file"] = write_volumes(cwd / "raw.nii", data, image)
        self._results["region"] = write_volumes(cwd / "region.nii", region, image)
        return {"warnings": warnings}

    def _mask(self, data: NDArray, acquisition: Acquisition, image: SpatialImage, path: Path) -> NDArray[np.bool_]:
        """The mask that came, or a first one of our own; everything where none can be found."""
        if isdefined(self.inputs.in_mask):
            return read_mask(Path(self.inputs.in_mask), image, path)
        shells = acquisition.shells[0], masking.tissue_shell(acquisition)
        reference, tissue = (data[..., shell.indices].mean(axis=-1) for shell in shells)
        try:
            if self.inputs.body:
                return masking.half_median_mask(reference)
            return masking.head_mask(reference, tissue, image.header.get_zooms()[:3]).mask
        except ValueError:
            return np.ones(reference.shape, dtype=bool)


def read_region(path: str) -> NDArray[np.bool_]:
    """A mask between the nodes."""
    return read_volumes(path)[0] > 0


class _DenoiseInput(StepInput):
    region = File(exists=True, mandatory=True)
    method = traits.Enum("mppca", "patch2self", mandatory=True)


class _DenoiseOutput(StepOutput):
    noise_map = File(exists=True, desc="noise level of every voxel, by MP-PCA")


class Denoise(Step):
    """Reduce the noise."""

    input_spec = _DenoiseInput
    output_spec = _DenoiseOutput

    def _work(self, cwd: Path) -> dict[str, Any]:
        data, image = read_volumes(self.inputs.in_file)
        region = read_region(self.inputs.region)
        with progress_bar(self.inputs.label) as progress:
            if self.inputs.method == "mppca":
                denoised, sigma = denoising.denoise_mppca(data, region, threads=self.inputs.threads, progress=progress)
                sigma = rician_sigma_map(sigma, denoised, threads=self.inputs.threads)
                self._results["noise_map"] = write_volumes(cwd / "noise.nii", sigma, image)
            else:
                denoised = denoising.denoise_patch2self(data, region, threads=self.inputs.threads, progress=progress)
        self._results["out_file"] = write_volumes(cwd / "denoised.nii", denoised, image)
        return {}


class _RemoveRingingInput(StepInput):
    slice_axis = traits.Enum(2, 0, 1, usedefault=True, desc="axis across the slices")


class RemoveRinging(Step):
    """Remove Gibbs ringing."""

    input_spec = _RemoveRingingInput
    output_spec = StepOutput

    def _work(self, cwd: Path) -> dict[str, Any]:
        data, image = read_volumes(self.inputs.in_file)
        with progress_bar(self.inputs.label) as progress:
            unrung = ringing.remove_ringing(
                data, slice_axis=self.inputs.slice_axis, threads=self.inputs.threads, progress=progress
            )
        self._results["out_file"] = write_volumes(cwd / "unrung.nii", unrung, image)
        return {}


class _EstimateFieldInput(StepInput):
    reversed_phase = traits.Dict(mandatory=True, desc="as ReversedPhase.to_dict")
    left_out = traits.List(traits.Dict, usedefault=True, desc="volumes of the image as acquired that are not in it")


class _EstimateFieldOutput(TraitedSpec):
    field = File(exists=True, desc="displacement along the phase-encoding axis, voxels; none where there is no need")
    pictures = File(exists=True, desc="without diffusion weighting: as acquired, of reversed phase encoding, corrected")
    facts = File(exists=True)


class EstimateField(Step):
    """Find the susceptibility distortion from images of opposite phase encoding.

    A reversed image that cannot be used leaves no field, and the reason in the facts: it is not the image to be fitted.
    """

    input_spec = _EstimateFieldInput
    output_spec = _EstimateFieldOutput

    def _work(self, cwd: Path) -> dict[str, Any]:
        data, image = read_volumes(self.inputs.in_file)
        try:
            pair = own_pair(self.inputs)
            forward = data[..., list(pair.own_volumes)].mean(axis=-1)
            axis = pair.own_encoding.axis
            backward = read_reversed(pair, data.shape[:3]).mean(axis=-1)
            with progress_bar(self.inputs.label) as progress:
                found = estimate_field(
                    forward, backward, image.affine, axis, threads=self.inputs.threads, progress=progress
                )
            if not found.after < found.before:
                raise ValueError(
                    f"The two images differ by {100 * found.before:.0f} %, and no less once they are undistorted "
                    f"({100 * found.after:.0f} %); do they show the same?"
                )
        except (UnusableInputError, ValueError) as error:
            return not_found(self.inputs, error)
        pictures = np.stack([forward, backward, undistort(forward, found.shift, axis)], axis=-1)
        if not found.negligible:
            self._results["field"] = write_volumes(cwd / "field.nii", found.shift, image)
        self._results["pictures"] = write_volumes(cwd / "pictures.nii", pictures, image)
        words = (
            f"displacements up to {found.largest:.1f} voxels (99th percentile); the two images differ by "
            f"{100 * found.before:.0f} % before and {100 * found.after:.0f} % after"
        )
        if found.negligible:
            words = f"displacements of less than {NEGLIGIBLE:g} voxels: nothing was moved"
        return {"words": words, "largest_shift": found.largest, "before": found.before, "after": found.after}


def own_pair(inputs: Any) -> ReversedPhase:
    """The reversed image of the inputs of a step, with the volumes of the image that are left of it.

    Raises
    ------
    UnusableInputError
        Where none without diffusion weighting is left.
    """
    pair = ReversedPhase.from_dict(inputs.reversed_phase).without(numbers(inputs.left_out))
    if not pair.own_volumes:
        raise UnusableInputError(
            "all volumes without diffusion weighting of the image itself were left out, for they are none."
        )
    return pair


def not_found(inputs: Any, error: Exception) -> dict[str, str]:
    """The facts of a step that cannot find the distortion: it is left out, and the image is not."""
    return {"refused": f"it could not be found from {Path(inputs.reversed_phase['path']).name}: {error}"}


class _CorrectMotionInput(StepInput):
    bval = File(exists=True, mandatory=True)
    bvec = File(exists=True)
    region = File(exists=True, mandatory=True)
    method = traits.Enum("affine", "deformable", "none", mandatory=True, desc="none: only undo the distortion")
    field = File(exists=True, desc="displacement along the phase-encoding axis, voxels")
    direction = traits.Str(desc="phase-encoding direction, where it is known")
    left_out = traits.List(traits.Dict, usedefault=True, desc="volumes of the image as acquired that are not in it")


class _CorrectMotionOutput(StepOutput):
    bvec = File(desc="directions, turned with the head")
    transforms = File(exists=True, desc="of every volume, world to world, as .npy")


class CorrectMotion(Step):
    """Bring every volume to its place: motion, eddy currents and the field at once, with one interpolation."""

    input_spec = _CorrectMotionInput
    output_spec = _CorrectMotionOutput

    def _work(self, cwd: Path) -> dict[str, Any]:
        inputs = self.inputs
        data, image = read_volumes(inputs.in_file)
        region = read_region(inputs.region)
        bvec = Path(inputs.bvec) if isdefined(inputs.bvec) else None
        acquisition = read_acquisition(Path(inputs.bval), bvec)
        where: dict[str, Any] = {"axis": phase_encoding(inputs.direction).axis if inputs.direction else None}
        if isdefined(inputs.field):
            where["shift"] = read_volumes(inputs.field)[0]
        unmoved = np.tile(np.eye(4), (len(acquisition), 1, 1))
        placed = resample(data, image.affine, unmoved, threads=inputs.threads, **where)
        transforms: NDArray[np.float64] | None = None  # not known where motion is not sought
        facts: dict[str, Any] = {}
        if inputs.method != "none":
            with progress_bar(inputs.label) as progress:
                moved, transforms, path, facts = self._move(data, image, acquisition, region, where, progress)
            if moved is not None:
                before = region & placed.covered
                inside = before & moved.covered
                gain = likeness.gain(placed.data, moved.data, acquisition.b_values, inside, acquisition.directions)
                lost = 1 - float(inside.sum() / max(before.sum(), 1))
                facts = judged(facts, gain, lost, likeness.follows_b(path, acquisition.b_values))
                placed = placed if "refused" in facts else moved
            transforms = None if "refused" in facts else transforms
        data = placed.data
        data[~placed.covered] = np.nan  # not every volume has data there: no fit, and the status says so
        if acquisition.directions is not None:
            turned = rotate_directions(
                acquisition.directions, unmoved if transforms is None else transforms, image.affine
            )
            self._results["bvec"] = write_directions(cwd / "rotated.bvec", turned)
        self._results["out_file"] = write_volumes(cwd / "aligned.nii", data, image)
        if transforms is not None:
            self._results["transforms"] = str(cwd / "transforms.npy")
            np.save(self._results["transforms"], transforms)
        return facts

    def _move(
        self,
        data: NDArray,
        image: SpatialImage,
        acquisition: Acquisition,
        region: NDArray[np.bool_],
        where: dict[str, Any],
        progress: Callable[[float], None],
    ) -> tuple[Resampled | None, NDArray[np.float64], NDArray[np.float64], dict[str, Any]]:
        """Volumes in their place (None where none moved), their transforms, how far each moved (mm), and facts."""
        given = (data, image.affine, acquisition.b_values, region)
        called = numbers_of_others(len(acquisition), self.inputs.left_out)
        threads = self.inputs.threads
        transforms = np.tile(np.eye(4), (len(acquisition), 1, 1))
        if self.inputs.method == "deformable":
            obstacle = obstacle_to_breathing(acquisition.b_values)
            if obstacle:
                return None, transforms, np.zeros((len(acquisition), 1)), {"refused": obstacle}
            shared = estimate_breathing(*given, threads=threads, progress=progress, **where)
            pattern, facts = shared.world(image.affine, region), describe_breathing(shared, image.affine, region)
            transforms[:, :3, 3] = shared.depth[:, None] * pattern.mean(axis=1)
            undone = shared.undone(data, threads=threads, **where) if shared.depth.any() else None
            return undone, transforms, shared.depth[:, None] * np.sqrt((pattern**2).sum(axis=0).mean()), facts
        found = estimate_motion(*given, directions=acquisition.directions, threads=threads, progress=progress, **where)
        path = motion_parameters(found.transforms, VoxelGrid(image.affine, region).centre) * [1, 1, 1, *[RADIUS] * 3]
        if np.allclose(found.transforms, np.eye(4), rtol=0, atol=1e-9):
            return None, found.transforms, path, describe_motion(found, called)
        moved = resample(data, image.affine, found.transforms, threads=threads, **where)
        return moved, found.transforms, path, describe_motion(found, called)


def judged(facts: dict[str, Any], gain: float, lost: float, follows_b: bool) -> dict[str, Any]:
    """What a correction is said to have done; "refused" where it did not make the volumes more alike.

    Parameters
    ----------
    facts : dict
        Of the correction.
    gain : float
        As `likeness.gain` finds it.
    lost : float
        Share of what was to be fitted that is not in every volume any more, such as a slice at the end.
    follows_b : bool
        Whether its displacement goes with b.
    """
    direction = "fell" if gain > 0 else "rose"
    change = f"the error of predicting each volume from the others {direction} by {percent(abs(gain))}"
    told = {**facts, "gain": gain, "lost": lost, "follows_b": follows_b}
    if gain > likeness.LEAST_GAIN:
        warnings = [f"Motion was corrected, but {FOLLOWS_B}."] if follows_b else []
        if lost > likeness.LEAST_GAIN:
            cost = (
                f"After the correction of motion, {percent(lost)} of what was to be fitted is not in every volume, as "
                "at the first or last slice; it is not fitted."
            )
            little = f" Volumes are predicted better by only {percent(gain)}: --skip motion may serve better."
            warnings.append(cost + little * (gain < lost))
        words = "; ".join(filter(None, [facts["words"], change]))
        return told | {"words": words, "warnings": [*facts["warnings"], *warnings]}
    why = "; ".join([f"the correction did not make the volumes more alike ({change})", *[FOLLOWS_B] * follows_b])
    return told | {"refused": why, "methods": f"Motion was sought, and was not corrected: {why}."}


def describe_motion(found: Motion, called: Sequence[int]) -> dict[str, Any]:
    """What the motion of an image was, in words, and warnings, in which volumes are ``called`` by their numbers."""
    said = []
    if found.in_plane:
        said.append("sought within slices alone: they are too few, or the mask is too small, to see motion across them")
    if found.still:
        said.append("nothing had moved, as far as can be seen: no volume was moved")
    facts = {"words": "; ".join(said), "warnings": not_believed(found.replaced, called)}
    return facts | ({"methods": STILL} if found.still else {})


def describe_breathing(found: Breathing, affine: NDArray, region: NDArray[np.bool_]) -> dict[str, Any]:
    """How far organs moved, in words."""
    if not found.depth.any():
        words = "the organs lay still, as far as can be seen: no volume was moved"
        return {"words": words, "warnings": [], "methods": STILL_ORGANS}
    length = np.sqrt((found.world(affine, region) ** 2).sum(axis=0))
    words = (
        f"from the volume of the shallowest breath to that of the deepest, tissue moves by "
        f"{np.ptp(found.depth) * length.mean():.1f} mm in the mean, {np.ptp(found.depth) * length.max():.1f} mm at most"
    )
    return {"words": words, "warnings": []}


def not_believed(replaced: NDArray[np.bool_], called: Sequence[int]) -> list[str]:
    """A warning about volumes whose motion could not be estimated, ``called`` by their numbers, counted from 0."""
    which = np.asarray(called)[replaced]
    if which.size == 0:
        return []
    shown = ", ".join(map(str, which[:12])) + (", ..." if which.size > 12 else "")
    return [
        f"The motion of {which.size} of {replaced.size} volumes could not be estimated; they took that of their "
        f"neighbours in time (counted from 0: {shown})."
    ]


class _FindNoiseInput(StepInput):
    bval = File(exists=True, mandatory=True)
    bvec = File(exists=True)
    region = File(exists=True, mandatory=True)
    sigma = traits.Str("auto", usedefault=True, desc="where the noise level comes from, or the level itself")
    mppca_map = File(exists=True, desc="noise map of the denoising")
    in_noise = File(exists=True, desc="noise map that came with the data, for sigma = map")


class _FindNoiseOutput(TraitedSpec):
    facts = File(exists=True)
    noise_map = File(exists=True, desc="noise level of every voxel of the raw image")
    words = traits.Str(desc="how it was found")


class FindNoise(Step):
    """Find the noise level of the raw image: from the denoising, repeats, the background, a map or a number."""

    input_spec = _FindNoiseInput
    output_spec = _FindNoiseOutput

    def _work(self, cwd: Path) -> dict[str, Any]:
        image = open_image(Path(self.inputs.in_file))
        region = read_region(self.inputs.region)
        values, words = self._level(image, region)
        self._results["noise_map"] = write_volumes(cwd / "level.nii", values, image)
        self._results["words"] = words
        return {"words": words, "sigma": float(np.median(values[region]))}

    def _level(self, image: SpatialImage, region: NDArray[np.bool_]) -> tuple[NDArray, str]:
        source, path = self.inputs.sigma, Path(self.inputs.in_file)
        if source == "map":
            given = Path(self.inputs.in_noise)
            return read_on_grid(given, image, path, "noise map"), f"noise map {given.name}"
        if source in ("auto", "mppca", "residuals") and isdefined(self.inputs.mppca_map):
            return read_volumes(self.inputs.mppca_map)[0], "MP-PCA of the raw image (DIPY)"
        data, _ = read_volumes(path)
        if source == "mppca":
            denoised, sigma = denoising.denoise_mppca(data, region, threads=self.inputs.threads)
            return rician_sigma_map(sigma, denoised, threads=self.inputs.threads), "MP-PCA of the raw image (DIPY)"
        level = self._one_level(data, region)
        return np.full(region.shape, level.sigma), level.method

    def _one_level(self, data: NDArray, region: NDArray[np.bool_]) -> NoiseEstimate:
        """One level for the whole image."""
        source, path = self.inputs.sigma, self.inputs.in_file
        bvec = Path(self.inputs.bvec) if isdefined(self.inputs.bvec) else None
        acquisition = read_acquisition(Path(self.inputs.bval), bvec)
        if source == "piesno":
            return background_noise(data, path)
        if source in ("auto", "repeats", "b0", "residuals"):
            limit = B0_TOLERANCE if source == "b0" else np.inf
            found = sigma_from_repeats(data[region].astype(float), acquisition, maximum_b=limit)
            if found is None:
                raise UnusableInputError(
                    f"{path}: the noise level is not known, for no measurement was repeated. Give it (--sigma NUMBER, "
                    "or --sigma piesno), or leave the Rician correction out (--skip rician)."
                )
            return found
        return NoiseEstimate(float(source), "given (--sigma)")


def background_noise(data: NDArray, path: str | Path) -> NoiseEstimate:
    """Noise level of the background of an image.

    Raises
    ------
    UnusableInputError
        Where there is none.
    """
    found = sigma_from_background(data)
    if found is None:
        raise UnusableInputError(
            f"{path}: --sigma piesno cannot find the noise level, for the image has no background of noise alone (it "
            "was masked, or combined from several channels). Choose another source, or give a number."
        )
    return found


class _CorrectRicianInput(StepInput):
    noise_map = File(exists=True, mandatory=True)


class CorrectRician(Step):
    """Take the bias of the Rician noise floor out of the magnitudes."""

    input_spec = _CorrectRicianInput
    output_spec = StepOutput

    def _work(self, cwd: Path) -> dict[str, Any]:
        data, image = read_volumes(self.inputs.in_file)
        sigma, _ = read_volumes(self.inputs.noise_map)
        with progress_bar(self.inputs.label) as progress:
            data = correct_rician_image(data, sigma, threads=self.inputs.threads, progress=progress)
        self._results["out_file"] = write_volumes(cwd / "unbiased.nii", data, image)
        return {}


def slice_axis(sidecar: dict[str, Any]) -> int:
    """Axis across the slices of an image, from its metadata (BIDS ``SliceEncodingDirection``); the third by default."""
    direction = str(sidecar.get("SliceEncodingDirection", "k"))
    return "ijk".find(direction[:1]) if direction[:1] in ("i", "j", "k") else 2
