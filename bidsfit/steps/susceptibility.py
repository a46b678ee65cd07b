"""Correction of susceptibility distortion from reversed phase encoding, by topup (FSL) or PyHySCO."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from nibabel.spatialimages import SpatialImage
from nipype.interfaces.base import File, traits
from numpy.typing import NDArray

from bidsfit.bids.fieldmaps import ReversedPhase, read_reversed
from bidsfit.bids.left_out import numbers
from bidsfit.exceptions import UnusableInputError
from bidsfit.interfaces.fsl import acquisition_row, even, require_fsl, result_image, run_tool, threads_of
from bidsfit.interfaces.step import (
    ImageStepInput,
    StepInterface,
    StepOutput,
    progress_bar,
    read_volumes,
    write_volumes,
)
from bidsfit.preprocessing.resampling import resample
from bidsfit.preprocessing.susceptibility import (
    NEGLIGIBLE,
    available,
    disagreement,
    estimate_field,
    phase_encoding,
    shift_from_hertz,
    undistort,
)
from bidsfit.steps.step import Method, Planned, Scene, Step

if TYPE_CHECKING:
    from bidsfit.reports.preprocessing import StepView

#: Volumes without diffusion weighting of each direction that topup is given at most.
TOPUP_VOLUMES = 3


class _FieldInput(ImageStepInput):
    reversed_phase = traits.Dict(mandatory=True, desc="as ReversedPhase.to_dict")
    left_out = traits.List(traits.Dict, usedefault=True, desc="volumes of the image as acquired that are not in it")
    moved = traits.Bool(
        False, usedefault=True, desc="a later step moves the volumes, and undoes the distortion with it"
    )


class _FieldOutput(StepOutput):
    field = File(exists=True, desc="displacement along the phase-encoding axis, voxels; none where there is no need")
    pictures = File(exists=True, desc="without diffusion weighting: as acquired, of reversed phase encoding, corrected")


class FieldInterface(StepInterface):
    """Estimate the susceptibility distortion, and correct it unless a later step does.

    If the reversed image cannot be used there is no field, and the findings give the reason; the run continues.
    """

    input_spec = _FieldInput
    output_spec = _FieldOutput

    def _work(self, cwd: Path) -> dict[str, Any]:
        data, image = read_volumes(self.inputs.in_file)
        self._results["out_file"] = self.inputs.in_file
        try:
            pair = ReversedPhase.from_dict(self.inputs.reversed_phase).without(numbers(self.inputs.left_out))
            if not pair.own_volumes:
                raise UnusableInputError(
                    "all volumes without diffusion weighting of the image itself were left out, for they are none."
                )
            shift, pictures, facts = self._find(data, image, pair, cwd)
        except (UnusableInputError, ValueError) as error:
            name = Path(self.inputs.reversed_phase["path"]).name
            return {"refused": f"it could not be found from {name}: {error}"}
        self._results["pictures"] = write_volumes(cwd / "pictures.nii", np.stack(pictures, axis=-1), image)
        if shift is not None:
            self._results["field"] = write_volumes(cwd / "field.nii", shift, image)
            if not self.inputs.moved:
                unmoved, axis = np.tile(np.eye(4), (data.shape[3], 1, 1)), pair.own_encoding.axis
                placed = resample(data, image.affine, unmoved, axis=axis, shift=shift, threads=self.inputs.threads)
                placed.data[~placed.covered] = np.nan  # not every volume has data there: no fit, and the status says so
                self._results["out_file"] = write_volumes(cwd / "undistorted.nii", placed.data, image)
        return facts

    def _find(
        self, data: NDArray, image: SpatialImage, pair: ReversedPhase, cwd: Path
    ) -> tuple[NDArray | None, list[NDArray], dict[str, Any]]:
        """Displacement (voxels; None if negligible), pictures, and findings."""
        raise NotImplementedError


class EstimateField(FieldInterface):
    """Estimation by PyHySCO."""

    def _find(
        self, data: NDArray, image: SpatialImage, pair: ReversedPhase, cwd: Path
    ) -> tuple[NDArray | None, list[NDArray], dict[str, Any]]:
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
        facts = in_words(found.largest, found.before, found.after)
        if found.negligible:
            facts["words"] = f"displacements of less than {NEGLIGIBLE:g} voxels: nothing was moved"
        pictures = [forward, backward, undistort(forward, found.shift, axis)]
        return None if found.negligible else found.shift, pictures, facts


class _TopupOutput(_FieldOutput):
    topup = traits.Str(desc="what topup's files begin with, for eddy")


class Topup(FieldInterface):
    """Estimation by FSL's topup, whose failure is an error."""

    output_spec = _TopupOutput

    def _find(
        self, data: NDArray, image: SpatialImage, pair: ReversedPhase, cwd: Path
    ) -> tuple[NDArray | None, list[NDArray], dict[str, Any]]:
        from nipype.interfaces import fsl

        other = read_reversed(pair, data.shape[:3])[..., :TOPUP_VOLUMES]
        own = data[..., list(pair.own_volumes[:TOPUP_VOLUMES])]
        both = np.concatenate([own, other], axis=-1)
        rows = [acquisition_row(pair.own_encoding, pair.own_readout_time, image.affine)] * own.shape[-1]
        encoding = phase_encoding(pair.direction)
        rows += [acquisition_row(encoding, pair.readout_time, image.affine)] * other.shape[-1]
        folder = cwd / "topup"
        folder.mkdir(exist_ok=True)
        (folder / "acquisition.txt").write_text("\n".join(rows) + "\n")
        found = run_tool(
            fsl.TOPUP(
                in_file=write_volumes(folder / "pair.nii", both, image),
                encoding_file=str(folder / "acquisition.txt"),
                out_base=str(folder / "topup"),
                out_field=str(folder / "field.nii.gz"),
                out_corrected=str(folder / "corrected.nii.gz"),
                output_type="NIFTI_GZ",
                environ=threads_of(self.inputs.threads),
                args=even(data.shape),
            ),
            folder,
        )
        hertz = result_image(found.out_field, data.shape[:3], "topup")
        corrected = result_image(found.out_corrected, both.shape, "topup")
        shift = shift_from_hertz(hertz, pair.own_readout_time, pair.own_encoding.sign)
        n = own.shape[-1]
        means = [volumes.mean(axis=-1) for volumes in (own, other, corrected[..., :n])]
        self._results["topup"] = str(folder / "topup")
        before, after = disagreement(means[0], means[1]), disagreement(means[2], corrected[..., n:].mean(axis=-1))
        return shift, means, in_words(float(np.percentile(np.abs(shift), 99)), before, after)


def in_words(largest: float, before: float, after: float) -> dict[str, Any]:
    """Summary of a field: largest displacement (voxels), and relative difference of the images before and after."""
    words = (
        f"displacements up to {largest:.1f} voxels (99th percentile); the two images differ by "
        f"{100 * before:.0f} % before and {100 * after:.0f} % after"
    )
    return {"words": words, "largest_shift": largest, "before": before, "after": after}


class Susceptibility(Step):
    """Estimation of the susceptibility distortion, if there is an image of reversed phase encoding."""

    name = "susceptibility"
    title = "Susceptibility distortion"
    doing = "finding the susceptibility distortion"
    shows = "Slices before and after the correction of susceptibility distortion"
    caption = (
        "Susceptibility distortion. The outlines are those of the corrected image, on every picture: how far the "
        "others lie beside them is what was corrected."
    )
    methods: ClassVar[Mapping[str, Method]] = {
        "topup": Method(
            "topup (FSL)", "Susceptibility distortions were estimated with topup of FSL [@andersson2003; @fsl].", Topup
        ),
        "pyhysco": Method(
            "PyHySCO", "Susceptibility distortions were estimated with PyHySCO [@pyhysco].", EstimateField
        ),
    }

    def choose(self, scene: Scene, chosen: Mapping[str, Planned]) -> Planned:
        choice, pair = scene.choice, scene.helping.reversed_phase
        if pair is None:
            return Planned(self, reason=scene.helping.no_reversed_phase)
        if choice.tools == "fsl" or (choice.tools == "auto" and {"topup", "eddy"} <= set(choice.fsl)):
            require_fsl(choice.fsl, "topup")
            return Planned(self, "topup", f"with {pair.path.name}")
        if not available():
            return Planned(
                self,
                reason="an image of reversed phase encoding is there, but neither FSL nor PyHySCO is installed (pip "
                "install 'bidsfit[distortion]')",
            )
        if not pair.same_readout:
            return Planned(
                self,
                reason=f"the readout time of {pair.path.name} is not that of the image, which only FSL's topup can use",
            )
        return Planned(self, "pyhysco", f"with {pair.path.name}")

    def draw(self, path: Path, view: StepView) -> bool:
        """Draw the acquired image, the reversed one, and the corrected one."""
        from bidsfit.reports.preprocessing import plot_before_after  # matplotlib, which a plan does not need

        if view.pictures is None:
            return False
        forward, backward, corrected = np.moveaxis(view.pictures, -1, 0)
        others = {"reversed": backward}
        plot_before_after(
            path, forward, corrected, view.mask, view.affine, others=others, outline=view.mask, edges=corrected
        )
        return True


SUSCEPTIBILITY = Susceptibility()
