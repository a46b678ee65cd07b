"""Workflow nodes that check an image before the fit: mask, noise and protocol."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from nibabel.spatialimages import SpatialImage
from nipype.interfaces.base import BaseInterfaceInputSpec, File, SimpleInterface, TraitedSpec, isdefined, traits
from numpy.typing import NDArray

from bidsfit import models
from bidsfit.acquisition import B0_TOLERANCE, Acquisition
from bidsfit.bids.images import MaskedSignals, image_shape, opened, read_mask, read_on_grid, write_nifti
from bidsfit.estimators.least_squares import LeastSquares
from bidsfit.exceptions import UnusableInputError
from bidsfit.files import write_json
from bidsfit.interfaces.raw import background_noise
from bidsfit.interfaces.step import acquisition_of
from bidsfit.noise import NoiseEstimate, beside_repeats, rician_sigma_map, sigma_from_repeats
from bidsfit.preprocessing.denoising import denoise_mppca
from bidsfit.preprocessing.masking import HeadMask, half_median_mask, head_mask, tissue_shell
from bidsfit.reports.measured import MeasuredVoxels

#: Sources of one noise level for the image, beside a number.
LOOKED_FOR = ("auto", "repeats", "b0", "residuals")

#: Voxels that the noise is estimated from: enough for a median, and quick.
NOISE_SAMPLE = 20_000


class _PrepareImageInput(BaseInterfaceInputSpec):
    in_file = File(exists=True, mandatory=True, desc="image")
    bval = File(exists=True)
    bvec = File(exists=True)
    sidecar = traits.Dict(desc="metadata of the image")
    left_out = traits.List(traits.Dict, usedefault=True, desc="volumes that are not in it, and why")
    in_mask = File(exists=True, desc="mask to use; found where there is none")
    models = traits.List(
        traits.Str, usedefault=True, desc="models that the protocol supports, for the noise of unrepeated data"
    )
    sigma = traits.Str(
        "auto",
        usedefault=True,
        desc="where the noise level comes from: auto, repeats, b0, residuals, mppca, piesno, map, or a number",
    )
    in_noise = File(exists=True, desc="noise map, for sigma = map")
    noise_words = traits.Str(desc="how that map was found; by default its name")
    body = traits.Bool(False, usedefault=True, desc="the image is not of a head: another rule finds the mask")
    noise_kind = traits.Enum("rician", "gaussian", usedefault=True, desc="what the noise is taken for")
    scratch = traits.Str(usedefault=True, nohash=True, desc="folder of unpacked copies, as of `opened`")
    version = traits.Str(desc="of bidsfit: another version looks again")


class _PrepareImageOutput(TraitedSpec):
    mask = File(exists=True, desc="voxels to fit")
    mask_doubt = traits.Str(desc="why the mask that was found is doubtful; empty where it is not")
    reference = File(exists=True, desc="mean of the images of the lowest b-value, or the brightest of a series")
    facts = File(exists=True, desc="what was found, as JSON")
    noise_map = File(exists=True, desc="noise level of every voxel, where it is a map")
    voxels = File(exists=True, desc="signals of the voxels, as MeasuredVoxels.save leaves them")


class PrepareImage(SimpleInterface):
    """Check the data of an image, find its mask, and estimate its noise."""

    input_spec = _PrepareImageInput
    output_spec = _PrepareImageOutput

    def _run_interface(self, runtime: Any) -> Any:
        image = opened(Path(self.inputs.in_file), self.inputs.scratch)
        self._results = self._look_at(image, Path(runtime.cwd))
        return runtime

    def _look_at(self, image: SpatialImage, cwd: Path) -> dict[str, Any]:
        path = Path(self.inputs.in_file)
        acquisition = acquisition_of(self.inputs)
        shape = image_shape(image, len(acquisition), path)
        everywhere = MaskedSignals(image, shape, np.ones(shape[:3], dtype=bool), path)
        series = "b" not in acquisition.columns
        if series:  # its brightest image shows most tissues, and its signal is that which an SNR is of
            brightest = max(range(shape[3]), key=lambda k: float(np.nansum(everywhere.volume(k))))
            lowest = weighted = np.array([brightest])
        else:
            lowest, weighted = acquisition.shells[0].indices, tissue_shell(acquisition).indices
        reference = mean_volume(everywhere, lowest).reshape(shape[:3], order="F")
        if not np.any(np.isfinite(reference) & (reference != 0)):
            where = "" if series else " at its lowest b-value"
            raise UnusableInputError(f"{path} holds only zeros or NaN{where}: there is nothing to fit.")
        if self.inputs.in_mask:
            found = HeadMask(read_mask(Path(self.inputs.in_mask), image, path))
        else:
            tissue = mean_volume(everywhere, weighted).reshape(shape[:3], order="F")
            found = self._find_mask(reference, tissue, image)
        mask = found.mask
        signals = everywhere.within(mask)
        n_negative, n_not_finite, any_signal = count_intensities(signals)
        if not any_signal:
            raise UnusableInputError(f"{path} holds only zeros or NaN inside the mask: there is nothing to fit.")
        files = {"mask": "mask.nii.gz", "reference": "reference.nii.gz", "facts": "facts.json", "voxels": "voxels.npz"}
        outputs = {name: cwd / file for name, file in files.items()}
        noise: NoiseEstimate | None
        if self.inputs.sigma in ("map", "mppca"):
            noise_map, noise = self._noise_map(signals, mask, image, acquisition)
            if noise.sigma > 0:
                outputs["noise_map"] = cwd / "noise.nii.gz"
                write_nifti(outputs["noise_map"], noise_map, image)
        elif self.inputs.sigma == "piesno":
            volumes = np.stack([everywhere.volume(k) for k in range(shape[3])], axis=-1, dtype=np.float32)
            noise = background_noise(volumes.reshape(shape, order="F"), path)
        else:
            noise = self._noise(signals, acquisition)
        level = float(np.nanmedian(reference[mask]))
        facts = {
            "shape": list(shape),
            "voxel_size": [float(zoom) for zoom in image.header.get_zooms()[:3]],
            "n_voxels": int(mask.sum()),
            "left_out": [dict(row) for row in self.inputs.left_out],
            "intensities": {"n_negative": n_negative, "n_not_finite": n_not_finite},
            "noise": {}
            if noise is None
            else {
                "kind": self.inputs.noise_kind,
                "sigma": noise.sigma,
                "snr": level / noise.sigma if noise.sigma > 0 else None,
                "method": noise.method,
            },
        }
        write_nifti(outputs["mask"], mask, image)
        write_nifti(outputs["reference"], reference, image)
        write_json(outputs["facts"], facts, allow_nan=True)
        even = any(models.get(name).averaging for name in self.inputs.models)
        grid = {"reference": reference, "mask": mask, "affine": np.asarray(image.affine)}
        MeasuredVoxels.of(signals, acquisition, even=even, **grid).save(outputs["voxels"])
        return {"mask_doubt": found.doubt} | {name: str(output) for name, output in outputs.items()}

    def _find_mask(self, reference: NDArray, tissue: NDArray, image: SpatialImage) -> HeadMask:
        """Compute a mask."""
        try:
            if self.inputs.body:
                return HeadMask(half_median_mask(reference))
            found = head_mask(reference, tissue, image.header.get_zooms()[:3])
        except ValueError as error:
            raise UnusableInputError(
                f"No mask that fits {self.inputs.in_file} by name was given. {error} Give one in a derivatives "
                "dataset: -d masks=PATH."
            ) from error
        if found.doubt:
            logging.getLogger(__name__).warning("%s: %s", Path(self.inputs.in_file).name, doubtful_mask(found.doubt))
        return found

    def _noise(self, signals: MaskedSignals, acquisition: Acquisition) -> NoiseEstimate | None:
        """One noise level for the image according to `sigma`; None if "auto" finds none."""
        source, name = self.inputs.sigma, Path(self.inputs.in_file).name
        if source not in LOOKED_FOR:
            return NoiseEstimate(float(source), "given (--sigma)")
        step = max(signals.shape[0] // NOISE_SAMPLE, 1)
        sample = signals[slice(None, None, step)]
        noise = None
        follow = any(models.get(name).sequence for name in self.inputs.models)  # equal settings, other signals
        if source in ("auto", "repeats", "b0") and not follow:
            maximum_b = B0_TOLERANCE if source == "b0" else np.inf
            noise = sigma_from_repeats(sample, acquisition, maximum_b=maximum_b)
        if source == "residuals" or (source == "auto" and noise is None):
            noise = self._residual_noise(sample, acquisition)
        if noise is None and source != "auto":
            lacking = {
                "repeats": "no measurement (same b-value and direction) was repeated",
                "b0": "it has fewer than two images at b = 0",
                "residuals": "no model leaves residuals: there are as few measurements as parameters",
            }[source]
            raise UnusableInputError(f"{name}: --sigma {source} cannot find the noise level, for {lacking}.")
        return noise

    def _residual_noise(self, sample: NDArray, acquisition: Acquisition) -> NoiseEstimate | None:
        candidates = [models.get(name) for name in self.inputs.models]
        if not candidates:
            return None
        model = max(candidates, key=lambda m: len(m.parameters))
        sigma = LeastSquares(model).estimate(sample, acquisition).sigma
        if not np.isfinite(sigma).any():
            return None
        method = f"residuals of a least-squares fit of the model {model.name}, median over the mask"
        return NoiseEstimate(float(np.nanmedian(sigma)), method)

    def _noise_map(
        self, signals: MaskedSignals, mask: NDArray, image: SpatialImage, acquisition: Acquisition
    ) -> tuple[NDArray, NoiseEstimate]:
        """Noise level of every voxel, and its median over the mask."""
        path = Path(self.inputs.in_file)
        if self.inputs.sigma == "map":
            source = Path(self.inputs.in_noise)
            values = read_on_grid(source, image, path, "noise map")
            words = self.inputs.noise_words if isdefined(self.inputs.noise_words) else f"noise map {source.name}"
            method = f"{words.removesuffix(', median over the mask')}, median over the mask"
        else:
            volumes = np.nan_to_num(signals[slice(None)]).T
            data = np.stack([signals.place(volume, mask) for volume in volumes], axis=-1)
            denoised, sigma = denoise_mppca(data, mask)
            own = rician_sigma_map(sigma, denoised) if self.inputs.noise_kind == "rician" else sigma
            values = np.asarray(own, dtype=float)
            words = beside_repeats(float(np.median(values[mask])), sigma_from_repeats(volumes.T, acquisition))
            method = f"Marchenko-Pastur principal component analysis (MP-PCA{words}), median over the mask"
        inside = values[mask]
        known = inside[np.isfinite(inside) & (inside > 0)]
        if known.size == 0 and isdefined(self.inputs.noise_words):  # found on the way here: there is no noise
            return values, NoiseEstimate(0.0, method)
        if known.size == 0:
            raise UnusableInputError(f"{path}: the noise map of --sigma {self.inputs.sigma} has no positive value.")
        median = float(np.median(known))
        values = np.where(np.isfinite(values) & (values > 0), values, median)
        return np.where(mask, values, 0.0), NoiseEstimate(median, method)


def doubtful_mask(doubt: str) -> str:
    """Warning about a doubtful mask."""
    return (
        f"The mask is doubtful: it {doubt}. Look at its outline in the report, or give another one in a derivatives "
        "dataset: -d masks=PATH."
    )


def mean_volume(signals: MaskedSignals, indices: Iterable[int]) -> NDArray[np.float64]:
    """Mean of some volumes, shape (n_voxels,); NaN for voxels that are never finite."""
    total, count = np.zeros(signals.shape[0]), np.zeros(signals.shape[0])
    for k in indices:
        volume = signals.volume(int(k))
        finite = np.isfinite(volume)
        total[finite] += volume[finite]
        count += finite
    return np.divide(total, count, out=np.full_like(total, np.nan), where=count > 0)


def count_intensities(signals: MaskedSignals) -> tuple[int, int, bool]:
    """Numbers of negative and of non-finite intensities, and whether any is neither zero nor NaN."""
    n_negative = n_not_finite = 0
    any_signal = False
    for k in range(signals.shape[1]):
        volume = signals.volume(k)
        finite = np.isfinite(volume)
        n_negative += int(np.sum(volume[finite] < 0))
        n_not_finite += int(np.sum(~finite))
        any_signal = any_signal or bool(np.any(volume[finite] != 0))
    return n_negative, n_not_finite, any_signal
