"""Signal drift of the scanner taken out: a preprocessing step that lives in a package of its own."""

from pathlib import Path
from typing import ClassVar

import numpy as np
from nipype.interfaces.base import File

from bidsfit.acquisition import B0_TOLERANCE
from bidsfit.bids.acquisitions import read_b_values
from bidsfit.interfaces.step import (
    ImageStepInput,
    StepInterface,
    StepOutput,
    read_region,
    read_volumes,
    write_volumes,
)
from bidsfit.steps.step import Method, Planned, Step


class _DriftInput(ImageStepInput):
    bval = File(exists=True, mandatory=True)
    region = File(exists=True, mandatory=True)


class CorrectDrift(StepInterface):
    """Divide every volume by a parabola through the volumes without diffusion weighting (Vos 2017)."""

    input_spec = _DriftInput
    output_spec = StepOutput

    def _work(self, cwd):
        data, image = read_volumes(self.inputs.in_file)
        volumes = np.arange(data.shape[3])
        still = read_b_values(Path(self.inputs.bval)) <= B0_TOLERANCE
        signal = data[read_region(self.inputs.region)][:, still].mean(axis=0)
        drift = np.polynomial.Polynomial.fit(volumes[still], signal, 2)
        data *= (drift(0) / drift(volumes)).astype(data.dtype)
        self._results["out_file"] = write_volumes(cwd / "steady.nii", data, image)
        change = 100 * (drift(volumes[-1]) / drift(0) - 1)
        return {"words": f"from the first volume to the last the signal changed by {change:.1f} %"}


class SignalDrift(Step):
    """Takes out the drift, where four volumes without diffusion weighting show it."""

    name = "drift"
    title = "Signal drift"
    doing = "correcting the signal drift"
    shows = "Slices before and after the correction of signal drift, and their difference"
    caption = "Signal drift. The last volumes should change most, everywhere by the same share."
    methods: ClassVar = {
        "parabola": Method(
            "a parabola through the volumes without diffusion weighting",
            "Signal drift was divided out by a parabola through the volumes without diffusion weighting (Vos et al. "
            "2017).",
            CorrectDrift,
        )
    }
    after = "rician"

    def choose(self, scene, chosen):
        n = int(np.sum(scene.acquisition.b_values <= B0_TOLERANCE))
        if n < 4:
            return Planned(self, reason=f"{n} volumes without diffusion weighting do not show it (at least 4)")
        return Planned(self, "parabola")


DRIFT = SignalDrift()
