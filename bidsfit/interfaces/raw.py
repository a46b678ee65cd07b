"""Workflow nodes at the start of every preprocessing: raw image and noise level."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from nibabel.spatialimages import SpatialImage
from nipype.interfaces.base import File, TraitedSpec, isdefined, traits
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation

from bidsfit.acquisition import B0_TOLERANCE, Acquisition
from bidsfit.bids.acquisitions import read_acquisition, write_directions
from bidsfit.bids.images import image_shape, open_image, opened, read_data, read_mask, read_on_grid
from bidsfit.bids.left_out import numbers_of_others
from bidsfit.exceptions import UnusableInputError
from bidsfit.interfaces.step import (
    ImageStepInput,
    StepInterface,
    StepOutput,
    read_region,
    read_volumes,
    write_volumes,
)
from bidsfit.noise import (
    NoiseEstimate,
    beside_repeats,
    rician_sigma_map,
    sigma_from_background,
    sigma_from_repeats,
)
from bidsfit.preprocessing import denoising, masking
from bidsfit.preprocessing.gradients import detect_flip, normalise_directions
from bidsfit.preprocessing.interpolation import INTERPOLATED, fine_detail, shared_noise

#: Voxels by which the mask grows for the steps that come before the image is in its place.
MARGIN = 3


class _LoadRawInput(ImageStepInput):
    bval = File(exists=True, mandatory=True)
    bvec = File(exists=True)
    in_mask = File(exists=True, desc="mask that came with the data")
    body = traits.Bool(False, usedefault=True, desc="the image is not of a head")
    slice_axis = traits.Enum(2, 0, 1, usedefault=True, desc="axis across the slices")
    interpolation = traits.Str(desc="how the image was interpolated, by its sidecar")
    left_out = traits.List(traits.Dict, usedefault=True, desc="volumes of the image as acquired that are not in it")
    scratch = traits.Str(usedefault=True, nohash=True, desc="folder of unpacked copies, as of `opened`")


class _LoadRawOutput(StepOutput):
    bvec = File(desc="directions of unit length")
    rough_mask = File(exists=True, desc="mask of the tissue")
    region = File(exists=True, desc="mask with a margin: where the steps look")
    interpolation = traits.Str(desc="how the image was interpolated, by its sidecar or its noise; empty if it was not")
    missing = File(exists=True, desc="voxels that are not fitted, for lack of data, if there are any")


class LoadRaw(StepInterface):
    """Read and check a raw image, and find a rough mask."""

    input_spec = _LoadRawInput
    output_spec = _LoadRawOutput

    def _work(self, cwd: Path) -> dict[str, Any]:
        path = Path(self.inputs.in_file)
        bvec = Path(self.inputs.bvec) if isdefined(self.inputs.bvec) else None
        acquisition = read_acquisition(Path(self.inputs.bval), bvec)
        image = opened(path, self.inputs.scratch)
        shape = image_shape(image, len(acquisition), path)
        data = np.asarray(read_data(image, path, np.float32), dtype=np.float32).reshape(shape, order="F")
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
            write_directions(cwd / "unit.bvec", directions)
            self._results["bvec"] = str(cwd / "unit.bvec")
            flip = detect_flip(data, mask, acquisition.b_values, directions, image.affine)
            if flip:
                warnings.append(flip)
        how = self.inputs.interpolation or ""
        if not how and (how := self._interpolation(data, acquisition, mask)):
            warnings.append(shared_noise(how))
        self._results["interpolation"] = how
        region = binary_dilation(mask, iterations=MARGIN) & ~no_data
        self._results["out_file"] = write_volumes(cwd / "raw.nii", data, image)
        self._results["region"] = write_volumes(cwd / "region.nii", region, image)
        self._results["rough_mask"] = write_volumes(cwd / "mask.nii", mask, image)
        return {"warnings": warnings}

    def _interpolation(self, data: NDArray, acquisition: Acquisition, mask: NDArray[np.bool_]) -> str:
        """How the image was interpolated, by its noise, in words; empty if it was not."""
        axes = tuple(axis for axis in range(3) if axis != self.inputs.slice_axis)
        shares = fine_detail(data, acquisition, mask, axes)
        if not (shares < INTERPOLATED).any():
            return ""
        along = [f"{100 * share:.0f} % along {'ijk'[axis]}" for axis, share in zip(axes, shares, strict=True)]
        return f"the noise of the image has {' and '.join(along)} of the finest detail that independent noise has"

    def _mask(self, data: NDArray, acquisition: Acquisition, image: SpatialImage, path: Path) -> NDArray[np.bool_]:
        """The given mask, or a computed one; all voxels if none can be found."""
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


class _FindNoiseInput(ImageStepInput):
    bval = File(exists=True, mandatory=True)
    bvec = File(exists=True)
    region = File(exists=True, mandatory=True)
    rough_mask = File(exists=True, desc="where repeats are compared: air scatters less than tissue")
    sigma = traits.Str("auto", usedefault=True, desc="where the noise level comes from, or the level itself")
    mppca_map = File(exists=True, desc="noise map of the denoising")
    interpolation = traits.Str(desc="how the image was interpolated, in words")
    in_noise = File(exists=True, desc="noise map that came with the data, for sigma = map")


class _FindNoiseOutput(TraitedSpec):
    facts = File(exists=True)
    noise_map = File(exists=True, desc="noise level of every voxel of the raw image")
    noise_words = traits.Str(desc="how it was found")


class FindNoise(StepInterface):
    """Determine the noise level of the raw image: from denoising, repeats, background, a map or a number."""

    input_spec = _FindNoiseInput
    output_spec = _FindNoiseOutput

    def _work(self, cwd: Path) -> dict[str, Any]:
        image = open_image(Path(self.inputs.in_file))
        region = read_region(self.inputs.region)
        tissue = read_region(self.inputs.rough_mask) if isdefined(self.inputs.rough_mask) else region
        values, words = self._level(image, region, tissue)
        self._results["noise_map"] = write_volumes(cwd / "level.nii", values, image)
        self._results["noise_words"] = words
        return {"words": words, "sigma": float(np.median(values[region]))}

    def _level(self, image: SpatialImage, region: NDArray[np.bool_], tissue: NDArray[np.bool_]) -> tuple[NDArray, str]:
        source, path = self.inputs.sigma, Path(self.inputs.in_file)
        if source == "map":
            given = Path(self.inputs.in_noise)
            return read_on_grid(given, image, path, "noise map"), f"noise map {given.name}"
        data, _ = read_volumes(path)
        bvec = Path(self.inputs.bvec) if isdefined(self.inputs.bvec) else None
        acquisition = read_acquisition(Path(self.inputs.bval), bvec)
        if source == "mppca" or (source in ("auto", "residuals") and isdefined(self.inputs.mppca_map)):
            repeated = sigma_from_repeats(data[tissue].astype(float), acquisition)
            if not (source == "auto" and self.inputs.interpolation and repeated is not None):
                values = self._mppca(data, region)
                words = "; too low, for the image was interpolated" if self.inputs.interpolation else ""
                words += beside_repeats(float(np.median(values[tissue])), repeated)
                return values, f"MP-PCA of the raw image{words}"
        level = self._one_level(data, tissue, acquisition)
        return np.full(region.shape, level.sigma), level.method

    def _mppca(self, data: NDArray, region: NDArray[np.bool_]) -> NDArray:
        """Noise map of MP-PCA: that of the denoising, if there was one."""
        if isdefined(self.inputs.mppca_map):
            return read_volumes(self.inputs.mppca_map)[0]
        denoised, sigma = denoising.denoise_mppca(data, region, threads=self.inputs.threads)
        return rician_sigma_map(sigma, denoised, threads=self.inputs.threads)

    def _one_level(self, data: NDArray, tissue: NDArray[np.bool_], acquisition: Acquisition) -> NoiseEstimate:
        """One level for the whole image."""
        source, path = self.inputs.sigma, self.inputs.in_file
        if source == "piesno":
            return background_noise(data, path)
        if source in ("auto", "repeats", "b0", "residuals"):
            limit = B0_TOLERANCE if source == "b0" else np.inf
            found = sigma_from_repeats(data[tissue].astype(float), acquisition, maximum_b=limit)
            if found is None:
                raise UnusableInputError(
                    f"{path}: the noise level is not known, for no measurement was repeated. Give it (--sigma NUMBER, "
                    "or --sigma piesno), or leave the Rician correction out (--skip rician)."
                )
            return found
        return NoiseEstimate(float(source), "given (--sigma)")


def background_noise(data: NDArray, path: str | Path) -> NoiseEstimate:
    """Noise level of the background of an image; raises `UnusableInputError` if there is no background."""
    found = sigma_from_background(data)
    if found is None:
        raise UnusableInputError(
            f"{path}: --sigma piesno cannot find the noise level, for the image has no background of noise alone (it "
            "was masked, or combined from several channels). Choose another source, or give a number."
        )
    return found
