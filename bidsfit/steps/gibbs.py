"""Removal of Gibbs ringing by sub-voxel shifts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from nipype.interfaces.base import traits

from bidsfit.interfaces.step import (
    ImageStepInput,
    StepInterface,
    StepOutput,
    progress_bar,
    read_volumes,
    write_volumes,
)
from bidsfit.preprocessing.ringing import obstacle_to_gibbs, remove_ringing
from bidsfit.steps.step import Method, Planned, Scene, Step

#: Why the removal does not suit an image that was interpolated.
ANOTHER_PERIOD = "the method assumes ringing of the acquired matrix"


class _RemoveRingingInput(ImageStepInput):
    interpolation = traits.Str(desc="how the image was interpolated, in words")
    slice_axis = traits.Enum(2, 0, 1, usedefault=True, desc="axis across the slices")


class RemoveRinging(StepInterface):
    """Remove Gibbs ringing."""

    input_spec = _RemoveRingingInput
    output_spec = StepOutput

    def _work(self, cwd: Path) -> dict[str, Any]:
        if self.inputs.interpolation:
            self._results["out_file"] = self.inputs.in_file
            return {"refused": f"{self.inputs.interpolation}; {ANOTHER_PERIOD}"}
        data, image = read_volumes(self.inputs.in_file)
        with progress_bar(self.inputs.label) as progress:
            unrung = remove_ringing(
                data, slice_axis=self.inputs.slice_axis, threads=self.inputs.threads, progress=progress
            )
        self._results["out_file"] = write_volumes(cwd / "unrung.nii", unrung, image)
        return {}


class Gibbs(Step):
    """Removal of Gibbs ringing, if the image was not interpolated."""

    name = "gibbs"
    title = "Gibbs ringing"
    doing = "removing Gibbs ringing"
    shows = "Slices before and after the removal of Gibbs ringing, and their difference"
    caption = "Gibbs ringing. The difference should be stripes along sharp edges."
    methods: ClassVar[Mapping[str, Method]] = {
        "subvoxel": Method(
            "sub-voxel shifts",
            "Gibbs ringing was removed by sub-voxel shifts [@kellner2016].",
            RemoveRinging,
        )
    }

    def choose(self, scene: Scene, chosen: Mapping[str, Planned]) -> Planned:
        obstacle = obstacle_to_gibbs(scene.shape)
        if obstacle:
            return Planned(self, reason=obstacle)
        if scene.interpolation:
            return Planned(self, reason=f"{scene.interpolation}; {ANOTHER_PERIOD}")
        fraction, remark = scene.image.sidecar.get("PartialFourier"), ""
        if isinstance(fraction, int | float) and fraction < 1:
            remark = f"PartialFourier is {fraction:g}; the method assumes 1 and may leave some ringing"
        return Planned(self, "subvoxel", remark)


GIBBS = Gibbs()
