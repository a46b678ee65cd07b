"""Denoising by MP-PCA or Patch2Self."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from nipype.interfaces.base import File, traits

from bidsfit.interfaces.step import (
    ImageStepInput,
    StepInterface,
    StepOutput,
    progress_bar,
    read_region,
    read_volumes,
    write_volumes,
)
from bidsfit.noise import rician_sigma_map
from bidsfit.preprocessing.denoising import (
    denoise_mppca,
    denoise_patch2self,
    obstacle_to_mppca,
    obstacle_to_patch2self,
)
from bidsfit.steps.step import Method, Planned, Scene, Step

#: Why MP-PCA does not suit an image that was interpolated.
CORRELATED = "MP-PCA takes the noise of neighbouring voxels for independent, and would find its level too low"


class _DenoiseInput(ImageStepInput):
    region = File(exists=True, mandatory=True)
    method = traits.Enum("mppca", "patch2self", mandatory=True)
    interpolation = traits.Str(desc="how the image was interpolated, in words")
    real = traits.Bool(False, usedefault=True, desc="the image is the real part of complex signals, not a magnitude")
    needed = traits.Bool(False, usedefault=True, desc="apply MP-PCA to an interpolated image nevertheless")


class _DenoiseOutput(StepOutput):
    mppca_map = File(exists=True, desc="noise level of every voxel, by MP-PCA")


class ReduceNoise(StepInterface):
    """Denoise an image by MP-PCA or Patch2Self; MP-PCA also gives a noise map."""

    input_spec = _DenoiseInput
    output_spec = _DenoiseOutput

    def _work(self, cwd: Path) -> dict[str, Any]:
        suits = self.inputs.method != "mppca" or not self.inputs.interpolation
        why = f"{self.inputs.interpolation}; {CORRELATED}"
        if not suits and not self.inputs.needed:
            self._results["out_file"] = self.inputs.in_file
            return {"refused": why}
        data, image = read_volumes(self.inputs.in_file)
        region = read_region(self.inputs.region)
        with progress_bar(self.inputs.label) as progress:
            if self.inputs.method == "mppca":
                denoised, sigma = denoise_mppca(data, region, threads=self.inputs.threads, progress=progress)
                if not self.inputs.real:
                    sigma = rician_sigma_map(sigma, denoised, threads=self.inputs.threads)
                self._results["mppca_map"] = write_volumes(cwd / "noise.nii", sigma, image)
            else:
                denoised = denoise_patch2self(data, region, threads=self.inputs.threads, progress=progress)
        self._results["out_file"] = write_volumes(cwd / "denoised.nii", denoised, image)
        advice = "Where nothing was repeated that tells the noise level, give it (--sigma), or leave the step out."
        return {"warnings": [] if suits else [f"MP-PCA was applied although {why}. {advice}"]}


class Denoise(Step):
    """Denoising, if there are enough volumes; by MP-PCA only if the image was not interpolated."""

    name = "denoise"
    title = "Noise"
    doing = "reducing the noise"
    shows = "Slices before and after denoising, and their difference"
    caption = (
        "Denoising. The difference, on a scale of its own, should be noise and nothing else: anatomy in it is signal "
        "that was lost."
    )
    methods: ClassVar[Mapping[str, Method]] = {
        "mppca": Method(
            "MP-PCA",
            "Noise was reduced by Marchenko-Pastur principal component analysis [@veraart2016].",
            ReduceNoise,
        ),
        "patch2self": Method(
            "Patch2Self (DIPY)", "Noise was reduced by Patch2Self [@fadnavis2020; @dipy].", ReduceNoise
        ),
    }

    def choose(self, scene: Scene, chosen: Mapping[str, Planned]) -> Planned:
        asked = scene.choice.denoise
        method = "mppca" if asked == "auto" else asked
        obstacle = {"mppca": obstacle_to_mppca, "patch2self": obstacle_to_patch2self}[method](scene.shape)
        if obstacle:
            return Planned(self, reason=obstacle)
        remark = f"{scene.interpolation}; {CORRELATED}" if method == "mppca" and scene.interpolation else ""
        if remark and asked == "auto":
            return Planned(self, reason=f"{remark} (--denoise mppca applies it nevertheless)")
        return Planned(self, method, remark, needed=asked == "mppca" or not scene.knows_noise_anyway)


DENOISE = Denoise()
