"""Correction of motion and eddy currents, by registration or FSL's eddy, or of breathing."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from nibabel.spatialimages import SpatialImage
from nipype.interfaces.base import File, isdefined, traits
from numpy.typing import NDArray

from bidsfit.acquisition import Acquisition
from bidsfit.bids.acquisitions import read_acquisition, read_b_values, write_b_values, write_directions
from bidsfit.bids.fieldmaps import readout_time
from bidsfit.bids.images import open_image
from bidsfit.bids.left_out import numbers_of_others
from bidsfit.exceptions import ToolError, UnusableInputError
from bidsfit.interfaces.fsl import (
    EDDY,
    acquisition_row,
    eddy_transforms,
    encoding_of,
    outliers_of,
    require_fsl,
    result_image,
    result_numbers,
    run_tool,
)
from bidsfit.interfaces.step import (
    ImageStepInput,
    StepInterface,
    StepOutput,
    progress_bar,
    read_region,
    read_volumes,
    write_volumes,
)
from bidsfit.parallel import Progress
from bidsfit.preprocessing import likeness
from bidsfit.preprocessing.breathing import Breathing, estimate_breathing, obstacle_to_breathing
from bidsfit.preprocessing.motion import Motion, estimate_motion, obstacle_to_motion, rotate_directions
from bidsfit.preprocessing.registration import VoxelGrid
from bidsfit.preprocessing.resampling import Resampled, resample
from bidsfit.preprocessing.susceptibility import phase_encoding
from bidsfit.preprocessing.trajectory import RADIUS, motion_parameters
from bidsfit.reports.words import percent
from bidsfit.steps.step import Method, Pictures, Planned, Scene, Step

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


class _CorrectMotionInput(ImageStepInput):
    bval = File(exists=True, mandatory=True)
    bvec = File(exists=True)
    region = File(exists=True, mandatory=True)
    method = traits.Enum("affine", "deformable", mandatory=True)
    field = File(exists=True, desc="displacement along the phase-encoding axis, voxels")
    direction = traits.Str(desc="phase-encoding direction, where it is known")
    left_out = traits.List(traits.Dict, usedefault=True, desc="volumes of the image as acquired that are not in it")


class _CorrectMotionOutput(StepOutput):
    bvec = File(desc="directions, turned with the head")
    transforms = File(exists=True, desc="of every volume, world to world, as .npy")


class CorrectMotion(StepInterface):
    """Correct motion, eddy currents and susceptibility distortion with one interpolation."""

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
        with progress_bar(inputs.label) as progress:
            moved, transforms, path, facts = self._move(data, placed.data, image, acquisition, region, where, progress)
        if moved is not None:
            before = region & placed.covered
            inside = before & moved.covered
            gain = likeness.gain(placed.data, moved.data, acquisition.b_values, inside, acquisition.directions)
            lost = 1 - float(inside.sum() / max(before.sum(), 1))
            facts = judged(facts, gain, lost, likeness.follows_b(path, acquisition.b_values))
            placed = placed if "refused" in facts else moved
        data = placed.data
        data[~placed.covered] = np.nan  # not every volume has data there: no fit, and the status says so
        if acquisition.directions is not None:
            turned = rotate_directions(
                acquisition.directions, unmoved if "refused" in facts else transforms, image.affine
            )
            write_directions(cwd / "rotated.bvec", turned)
            self._results["bvec"] = str(cwd / "rotated.bvec")
        self._results["out_file"] = write_volumes(cwd / "aligned.nii", data, image)
        if "refused" not in facts:
            self._results["transforms"] = str(cwd / "transforms.npy")
            np.save(self._results["transforms"], transforms)
        return facts

    def _move(
        self,
        data: NDArray,
        undistorted: NDArray,
        image: SpatialImage,
        acquisition: Acquisition,
        region: NDArray[np.bool_],
        where: dict[str, Any],
        progress: Progress,
    ) -> tuple[Resampled | None, NDArray[np.float64], NDArray[np.float64], dict[str, Any]]:
        """Corrected volumes (None if none moved), transforms, displacement of each (mm), and findings."""
        given = (undistorted, image.affine, acquisition.b_values, region)
        called = numbers_of_others(len(acquisition), self.inputs.left_out)
        threads = self.inputs.threads
        transforms = np.tile(np.eye(4), (len(acquisition), 1, 1))
        if self.inputs.method == "deformable":
            obstacle = obstacle_to_breathing(acquisition.b_values)
            if obstacle:
                return None, transforms, np.zeros((len(acquisition), 1)), {"refused": obstacle}
            shared = estimate_breathing(*given, threads=threads, progress=progress)
            pattern, facts = shared.world(image.affine, region), describe_breathing(shared, image.affine, region)
            transforms[:, :3, 3] = shared.depth[:, None] * pattern.mean(axis=1)
            undone = shared.undone(data, threads=threads, **where) if shared.depth.any() else None
            return undone, transforms, shared.depth[:, None] * np.sqrt((pattern**2).sum(axis=0).mean()), facts
        found = estimate_motion(
            *given, directions=acquisition.directions, axis=where["axis"], threads=threads, progress=progress
        )
        path = motion_parameters(found.transforms, VoxelGrid(image.affine, region).centre) * [1, 1, 1, *[RADIUS] * 3]
        if np.allclose(found.transforms, np.eye(4), rtol=0, atol=1e-9):
            return None, found.transforms, path, describe_motion(found, called)
        moved = resample(data, image.affine, found.transforms, threads=threads, **where)
        return moved, found.transforms, path, describe_motion(found, called)


def judged(facts: dict[str, Any], gain: float, lost: float, follows_b: bool) -> dict[str, Any]:
    """Findings of a correction, with "refused" if it did not make the volumes more alike.

    Parameters
    ----------
    facts : dict
        Findings so far.
    gain : float
        From `likeness.gain`.
    lost : float
        Fraction of the voxels to fit that are no longer in every volume, such as an end slice.
    follows_b : bool
        Whether the displacement depends on b.
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
    """Summary of the motion of an image, and warnings; ``called`` are the numbers of the volumes."""
    said = []
    if found.in_plane:
        said.append("sought within slices alone: they are too few, or the mask is too small, to see motion across them")
    if found.still:
        said.append("nothing had moved, as far as can be seen: no volume was moved")
    facts = {"words": "; ".join(said), "warnings": not_believed(found.replaced, called)}
    return facts | ({"methods": STILL} if found.still else {})


def describe_breathing(found: Breathing, affine: NDArray, region: NDArray[np.bool_]) -> dict[str, Any]:
    """Summary of the motion of organs."""
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
    """Warning about volumes whose motion could not be estimated, by their numbers, counted from 0."""
    which = np.asarray(called)[replaced]
    if which.size == 0:
        return []
    shown = ", ".join(map(str, which[:12])) + (", ..." if which.size > 12 else "")
    return [
        f"The motion of {which.size} of {replaced.size} volumes could not be estimated; they took that of their "
        f"neighbours in time (counted from 0: {shown})."
    ]


class _EddyInput(ImageStepInput):
    bval = File(exists=True, mandatory=True)
    bvec = File(exists=True)
    region = File(exists=True, mandatory=True)
    sidecar = traits.Dict(mandatory=True, desc="metadata of the image")
    topup = traits.Str(desc="what topup's files begin with")


class _EddyOutput(StepOutput):
    bvec = File(exists=True, desc="directions, turned with the head")
    transforms = File(exists=True, desc="of every volume, world to world, as .npy")


class Eddy(StepInterface):
    """Correct motion, eddy currents and, after topup, susceptibility distortion with FSL's eddy."""

    input_spec = _EddyInput
    output_spec = _EddyOutput

    def _work(self, cwd: Path) -> dict[str, Any]:
        from nipype.interfaces import fsl

        inputs = self.inputs
        if not isdefined(inputs.bvec):
            raise UnusableInputError(
                f"{inputs.in_file}: FSL's eddy needs the gradient directions (.bvec), and there are none. Choose "
                "--preprocess dipy."
            )
        image = open_image(Path(inputs.in_file))
        folder = cwd / "eddy"
        folder.mkdir(exist_ok=True)
        encoding, seconds = encoding_of(inputs.sidecar, image.shape, inputs.label)
        (folder / "acquisition.txt").write_text(acquisition_row(encoding, seconds, image.affine) + "\n")
        write_b_values(folder / "bvals", read_b_values(Path(inputs.bval)))
        (folder / "index.txt").write_text(" ".join(["1"] * image.shape[3]) + "\n")
        program = next(filter(shutil.which, EDDY), EDDY[0])
        eddy = fsl.Eddy(
            command=program,
            in_file=inputs.in_file,
            in_mask=inputs.region,
            in_index=str(folder / "index.txt"),
            in_acqp=str(folder / "acquisition.txt"),
            in_bval=str(folder / "bvals"),
            in_bvec=inputs.bvec,
            out_base=str(folder / "eddy"),
            repol=True,
            is_shelled=True,
            num_threads=inputs.threads,
            output_type="NIFTI_GZ",
        )
        if isdefined(inputs.topup):
            eddy.inputs.in_topup_fieldcoef = f"{inputs.topup}_fieldcoef.nii.gz"
            eddy.inputs.in_topup_movpar = f"{inputs.topup}_movpar.txt"
        if program == "eddy_cpu":
            eddy.inputs.args = f"--nthr={inputs.threads}"
        found = run_tool(eddy, folder)
        data = result_image(found.out_corrected, image.shape, program)
        parameters = result_numbers(found.out_parameter, program)
        if not isdefined(found.out_rotated_bvecs) or parameters.shape[0] != image.shape[3]:
            shutil.rmtree(folder, ignore_errors=True)
            raise ToolError(
                f"{program} left no rotated directions, or parameters of {parameters.shape[0]} volumes where there are "
                f"{image.shape[3]}. Is this a version of FSL before 5.0.10? Choose --preprocess dipy."
            )
        self._results["bvec"] = found.out_rotated_bvecs
        self._results["out_file"] = write_volumes(cwd / "aligned.nii", data, image)
        self._results["transforms"] = str(cwd / "transforms.npy")
        np.save(self._results["transforms"], eddy_transforms(parameters, image.affine, image.shape))
        Path(found.out_corrected).unlink()  # as large as the image itself, and written again above
        return {"program": program, **outliers_of(found)}


class MotionStep(Step):
    """Correction of motion and of the estimated distortion with one interpolation."""

    name = "motion"
    title = "Motion and eddy currents"
    doing = "correcting motion and eddy currents"
    shows = "Slices before and after the alignment of the volumes, and their difference"
    caption = (
        "Motion. Before and after the volumes were aligned: the spread (SD) of the volumes of a shell, which should "
        "become less at edges, or two volumes, where no shell has several."
    )
    methods: ClassVar[Mapping[str, Method]] = {
        "eddy": Method(
            "eddy (FSL)",
            "Motion and eddy-current distortions were corrected with eddy of FSL [@andersson2016].",
            Eddy,
        ),
        "affine": Method(
            "affine registration of every volume to its shell",
            "Motion and eddy-current distortions were corrected by affine registration of every volume to what the "
            "others of its shell predict; how shells lie to one another was found by mutual information [@dipy] and "
            "from the volumes around them in time; gradient directions were rotated [@leemans2009].",
            CorrectMotion,
        ),
        "deformable": Method(
            "deformable registration by one displacement that all volumes share",
            "Motion of organs was corrected by deformable registration: one displacement that all volumes share, each "
            "to a depth of its own [@mcclelland2013], was found from what a change of contrast with b does not "
            "explain, and the depths that go with b from mutual information [@studholme1999].",
            CorrectMotion,
        ),
    }

    def choose(self, scene: Scene, chosen: Mapping[str, Planned]) -> Planned:
        planned = self._choose(scene, chosen)
        return replace(planned, reason="; ".join(filter(None, [planned.reason, scene.unknown_part])))

    def _choose(self, scene: Scene, chosen: Mapping[str, Planned]) -> Planned:
        choice, part = scene.choice, scene.part
        obstacle = obstacle_to_motion(scene.shape, scene.shape[3])
        if part == "body":
            obstacle = obstacle or obstacle_to_breathing(scene.acquisition.b_values)
        if obstacle:
            return Planned(self, reason=obstacle)
        if part == "body":
            return Planned(self, "deformable")
        missing = missing_fields(scene)
        if choice.tools == "fsl":
            require_fsl(choice.fsl, "eddy")
            if missing:
                raise UnusableInputError(
                    f"{scene.image.path}: FSL's eddy needs {' and '.join(missing)}, which its sidecar does not have. "
                    "Add them, or choose --preprocess dipy."
                )
            return Planned(self, "eddy")
        if part == "cord":
            return Planned(self, "affine", "a cord keeps its shape, and FSL's eddy is for heads")
        if choice.tools == "auto" and "eddy" in choice.fsl:
            if chosen["susceptibility"].method == "pyhysco":
                return Planned(self, "affine", "FSL's eddy cannot undo the distortion that PyHySCO finds")
            if not missing:
                return Planned(self, "eddy")
            return Planned(self, "affine", f"FSL's eddy would need {' and '.join(missing)}")
        return Planned(self, "affine")

    def pictures(self, acquisition: Acquisition) -> tuple[Pictures, list[str]]:
        """Standard deviation over the largest shell, if there is one."""
        largest = max(acquisition.shells, key=lambda shell: shell.indices.size)
        if largest.indices.size == 1:
            return super().pictures(acquisition)
        return lambda data: np.std(data[..., largest.indices], axis=-1), [f"SD over b = {largest.b_value:.0f}"]


def missing_fields(scene: Scene) -> list[str]:
    """Sidecar fields that FSL's eddy needs and that are missing."""
    sidecar = scene.image.sidecar
    try:
        encoding = phase_encoding(sidecar.get("PhaseEncodingDirection"))
    except ValueError:
        return ["PhaseEncodingDirection"]
    return [] if readout_time(sidecar, scene.shape[encoding.axis]) else ["TotalReadoutTime"]


MOTION = MotionStep()
