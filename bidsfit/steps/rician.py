"""Removal of the Rician bias by inverting the Rician mean."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from nipype.interfaces.base import File

from bidsfit.acquisition import Acquisition
from bidsfit.interfaces.step import (
    ImageStepInput,
    StepInterface,
    StepOutput,
    progress_bar,
    read_volumes,
    write_volumes,
)
from bidsfit.noise import correct_rician_image
from bidsfit.steps.step import Method, Pictures, Planned, Scene, Step


class _CorrectRicianInput(ImageStepInput):
    noise_map = File(exists=True, mandatory=True)


class CorrectRician(StepInterface):
    """Remove the Rician bias of the magnitudes."""

    input_spec = _CorrectRicianInput
    output_spec = StepOutput

    def _work(self, cwd: Path) -> dict[str, Any]:
        data, image = read_volumes(self.inputs.in_file)
        sigma, _ = read_volumes(self.inputs.noise_map)
        with progress_bar(self.inputs.label) as progress:
            data = correct_rician_image(data, sigma, threads=self.inputs.threads, progress=progress)
        self._results["out_file"] = write_volumes(cwd / "unbiased.nii", data, image)
        return {}


class Rician(Step):
    """Removal of the Rician bias, if the noise level is known before the fit."""

    name = "rician"
    title = "Rician bias"
    doing = "correcting the Rician bias"
    shows = "Slices before and after the correction of the bias of Rician noise, and their difference"
    caption = "Rician bias. What is taken away grows where the signal is close to the noise."
    methods: ClassVar[Mapping[str, Method]] = {
        "koay": Method(
            "inversion of the Rician mean",
            "The bias of the Rician noise floor was taken out of the magnitudes by inverting the Rician mean "
            "[@koay2006].",
            CorrectRician,
        )
    }

    def choose(self, scene: Scene, chosen: Mapping[str, Planned]) -> Planned:
        if chosen["phase"].method:
            return Planned(self, reason="the noise of the real part is Gaussian")
        if scene.choice.rician:
            return Planned(self, reason=scene.choice.rician)
        if not scene.knows_noise(chosen):
            why = "the noise level is not known: no MP-PCA, no repeated measurements, no number by --sigma"
            return Planned(self, reason=why)
        return Planned(self, "koay")

    def pictures(self, acquisition: Acquisition) -> tuple[Pictures, list[str]]:
        """Mean of the highest shell."""
        highest = acquisition.shells[-1]
        return lambda data: np.mean(data[..., highest.indices], axis=-1), [f"mean of b = {highest.b_value:.0f}"]


RICIAN = Rician()
