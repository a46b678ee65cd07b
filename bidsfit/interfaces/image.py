"""Nodes that look at an image before it is fitted: its mask, its noise, its protocol."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nipype.interfaces.base import BaseInterfaceInputSpec, File, SimpleInterface, TraitedSpec, traits

from bidsfit import models
from bidsfit.bids.images import MaskedSignals, image_shape, open_image, read_acquisition, read_data, read_mask
from bidsfit.bids.outputs import write_nifti
from bidsfit.estimators.least_squares import LeastSquares
from bidsfit.exceptions import UnusableInputError
from bidsfit.noise import NoiseEstimate, sigma_from_repeats

#: Voxels that the noise is estimated from: enough for a median, and quick.
NOISE_SAMPLE = 20_000


class _PrepareImageInput(BaseInterfaceInputSpec):
    in_file = File(exists=True, mandatory=True, desc="diffusion image")
    bval = File(exists=True, mandatory=True)
    bvec = File(exists=True)
    in_mask = File(exists=True, desc="mask to use; found by median_otsu where there is none")
    models = traits.List(traits.Str, desc="models that the protocol supports, for the noise of unrepeated data")
    version = traits.Str(desc="of bidsfit: another version looks again")


class _PrepareImageOutput(TraitedSpec):
    mask = File(exists=True, desc="voxels to fit")
    reference = File(exists=True, desc="mean of the images of the lowest b-value")
    facts = File(exists=True, desc="what was found, as JSON")


class PrepareImage(SimpleInterface):
    """Check an image's data, find its mask, and estimate its noise."""

    input_spec = _PrepareImageInput
    output_spec = _PrepareImageOutput

    def _run_interface(self, runtime: Any) -> Any:
        path = Path(self.inputs.in_file)
        image = open_image(path)
        acquisition = read_acquisition(Path(self.inputs.bval), Path(self.inputs.bvec) if self.inputs.bvec else None)
        shape = image_shape(image, len(acquisition), path)
        lowest = acquisition.shells[0]
        reference = mean_volume(image, shape, lowest.indices, path)
        if self.inputs.in_mask:
            mask = read_mask(Path(self.inputs.in_mask), image, path)
        else:
            mask = otsu_mask(reference, path)

        signals = MaskedSignals(image, shape, mask, path)
        n_negative, n_not_finite, any_signal = count_intensities(signals)
        if not any_signal:
            raise UnusableInputError(f"{path} holds only zeros or NaN inside the mask: there is nothing to fit.")
        noise = self._noise(signals, acquisition)
        level = float(np.nanmedian(reference[mask]))
        facts = {
            "shape": list(shape),
            "voxel_size": [float(zoom) for zoom in image.header.get_zooms()[:3]],
            "n_voxels": int(mask.sum()),
            "intensities": {"n_negative": n_negative, "n_not_finite": n_not_finite},
            "noise": {}
            if noise is None
            else {
                "sigma": noise.sigma,
                "snr": level / noise.sigma if noise.sigma > 0 else None,
                "method": noise.method,
            },
        }
        outputs = {name: Path(runtime.cwd) / f"{name}.nii.gz" for name in ("mask", "reference")}
        write_nifti(outputs["mask"], mask, image)
        write_nifti(outputs["reference"], reference, image)
        facts_path = Path(runtime.cwd) / "facts.json"
        facts_path.write_text(json.dumps(facts))
        self._results = {name: str(p) for name, p in outputs.items()} | {"facts": str(facts_path)}
        return runtime

    def _noise(self, signals: MaskedSignals, acquisition: Any) -> NoiseEstimate | None:
        step = max(signals.shape[0] // NOISE_SAMPLE, 1)
        sample = signals[slice(None, None, step)]
        noise = sigma_from_repeats(sample, acquisition)
        if noise is not None:
            return noise
        candidates = [models.get(name) for name in self.inputs.models]
        if not candidates:
            return None
        model = max(candidates, key=lambda m: len(m.parameters))
        sigma = LeastSquares(model).estimate(sample, acquisition).sigma
        if not np.isfinite(sigma).any():
            return None
        method = f"residuals of a least-squares fit of the model {model.name}, median over the mask; no repeats"
        return NoiseEstimate(float(np.nanmedian(sigma)), method)


def mean_volume(
    image: nib.spatialimages.SpatialImage, shape: tuple[int, int, int, int], indices: Any, path: Path
) -> np.ndarray:
    """Mean of some volumes, shape (x, y, z); voxels that are never finite are NaN."""
    everywhere = MaskedSignals(image, shape, np.ones(shape[:3], dtype=bool), path)
    total, count = np.zeros(everywhere.shape[0]), np.zeros(everywhere.shape[0])
    for k in indices:
        volume = everywhere.volume(int(k))
        finite = np.isfinite(volume)
        total[finite] += volume[finite]
        count += finite
    mean = np.divide(total, count, out=np.full_like(total, np.nan), where=count > 0)
    if not np.any(np.isfinite(mean) & (mean != 0)):
        raise UnusableInputError(f"{path} holds only zeros or NaN at its lowest b-value: there is nothing to fit.")
    return mean.reshape(shape[:3], order="F")


def otsu_mask(reference: np.ndarray, path: Path) -> np.ndarray:
    """Mask by DIPY's median_otsu.

    Raises
    ------
    UnusableInputError
        Where it finds nothing.
    """
    from dipy.segment.mask import median_otsu

    _, mask = median_otsu(np.nan_to_num(reference), median_radius=2, numpass=1)
    mask = np.asarray(mask, dtype=bool) & np.isfinite(reference)
    if not mask.any():
        raise UnusableInputError(
            f"No mask was given for {path}, and median_otsu found none. "
            "Give one in a derivatives dataset: -d masks=PATH."
        )
    return mask


def count_intensities(signals: MaskedSignals) -> tuple[int, int, bool]:
    """Numbers of negative and of not finite intensities, and whether any is neither zero nor NaN."""
    n_negative = n_not_finite = 0
    any_signal = False
    for k in range(signals.shape[1]):
        volume = signals.volume(k)
        finite = np.isfinite(volume)
        n_negative += int(np.sum(volume[finite] < 0))
        n_not_finite += int(np.sum(~finite))
        any_signal = any_signal or bool(np.any(volume[finite] != 0))
    return n_negative, n_not_finite, any_signal


def read_volume(path: str | Path) -> tuple[np.ndarray, np.ndarray]:
    """Data and affine of a volume that a node wrote."""
    image = open_image(Path(path))
    return np.asarray(read_data(image, Path(path))), image.affine
