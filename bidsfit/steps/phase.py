"""The real part of complex signals in place of their magnitude."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from nipype.interfaces.base import File, traits

from bidsfit.bids.left_out import numbers
from bidsfit.exceptions import UnusableInputError
from bidsfit.interfaces.step import ImageStepInput, StepInterface, StepOutput, read_volumes, write_volumes
from bidsfit.preprocessing.phase import in_radians, real_part
from bidsfit.steps.step import Method, Planned, Scene, Step


class _TakeRealPartInput(ImageStepInput):
    phase = File(exists=True, mandatory=True, desc="phase image of the image as acquired")
    phase_unit = traits.Enum("rad", "arbitrary", mandatory=True)
    left_out = traits.List(traits.Dict, usedefault=True, desc="volumes of the image as acquired that are not in it")
    slice_axis = traits.Enum(2, 0, 1, usedefault=True, desc="axis across the slices")


class TakeRealPart(StepInterface):
    """Take the real part of magnitude and phase, without the smooth phase."""

    input_spec = _TakeRealPartInput
    output_spec = StepOutput

    def _work(self, cwd: Path) -> dict[str, Any]:
        data, image = read_volumes(self.inputs.in_file)
        phase, _ = read_volumes(self.inputs.phase)
        gone = set(numbers(self.inputs.left_out))
        try:
            radians = in_radians(
                phase[..., [k for k in range(phase.shape[3]) if k not in gone]], self.inputs.phase_unit
            )
        except ValueError as error:
            raise UnusableInputError(
                f"{self.inputs.phase}: {error}. Give it in radians (Units: rad), or leave it out (--skip phase)."
            ) from error
        real = real_part(data, radians, slice_axis=self.inputs.slice_axis)
        self._results["out_file"] = write_volumes(cwd / "real.nii", real, image)
        return {}


class Phase(Step):
    """The real part in place of the magnitude, if the image comes with its phase."""

    name = "phase"
    title = "Phase"
    doing = "removing the phase"
    shows = "Slices of the magnitude and of the real part, and their difference"
    caption = (
        "Magnitude and real part. In air the magnitude has a floor, and the real part is noise around 0. Edges in the "
        "difference are where the phase changes within a few voxels, and signal is lost."
    )
    methods: ClassVar[Mapping[str, Method]] = {
        "lowpass": Method(
            "real part, without the smooth phase",
            "The smooth phase of every slice was removed from the complex signals, and their real part was taken "
            "[@eichner2015], so that the noise is Gaussian.",
            TakeRealPart,
        )
    }

    def choose(self, scene: Scene, chosen: Mapping[str, Planned]) -> Planned:
        if scene.helping.phase is None:
            return Planned(self, reason=scene.helping.no_phase)
        return Planned(self, reason=scene.choice.rician) if scene.choice.rician else Planned(self, "lowpass")


PHASE = Phase()
