"""FSL's topup and eddy, where FSL is installed: the nodes that call them, and what they leave in our conventions."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from nipype.interfaces.base import File, TraitedSpec, isdefined, traits
from numpy.typing import ArrayLike, NDArray
from scipy.spatial.transform import Rotation

from bidsfit.bids.acquisitions import read_b_values, write_b_values
from bidsfit.bids.fieldmaps import read_reversed, readout_time
from bidsfit.bids.images import open_image
from bidsfit.exceptions import ToolError, UnusableInputError
from bidsfit.interfaces.preprocessing import not_found, own_pair
from bidsfit.interfaces.step import Step, StepInput, StepOutput, read_volumes, write_volumes
from bidsfit.preprocessing.susceptibility import PhaseEncoding, disagreement, phase_encoding, shift_from_hertz

#: Names of eddy without a graphics card, the newest first; only the first has an option for threads.
EDDY = ("eddy_cpu", "eddy_openmp", "eddy")

#: Volumes without diffusion weighting of each direction that topup is given at most.
TOPUP_VOLUMES = 3

#: Levels of topup's standard configuration, which halves the image at the first five: odd images cannot be halved.
TOPUP_LEVELS = 9

#: Lines of a program's output that a message repeats.
TAIL = 15


def installed() -> dict[str, str]:
    """Programs of FSL on the PATH: "topup" and "eddy" to their paths, and "version" where FSL says it.

    ``eddy`` is there under whichever of its names (`EDDY`) comes first.
    """
    found = {"topup": shutil.which("topup"), "eddy": next(filter(None, map(shutil.which, EDDY)), None)}
    programs = {name: path for name, path in found.items() if path}
    version = Path(os.environ.get("FSLDIR", "")) / "etc" / "fslversion"
    if programs and "FSLDIR" in os.environ and version.is_file():
        words = version.read_text().split()
        programs |= {"version": words[0].split(":")[0]} if words else {}
    return programs


def run_tool(interface: Any, folder: Path) -> Any:
    """Run a program in a folder of its own; return its outputs. Nothing stays in the folder of one that fails.

    Parameters
    ----------
    interface : nipype.interfaces.base.CommandLine
    folder : Path
        Made here; with the program's output in ``output.nipype``.

    Raises
    ------
    ToolError
        Where the program is not there, fails, or leaves no result.
    """
    folder.mkdir(parents=True, exist_ok=True)
    command = interface.cmdline
    program = command.split()[0]
    interface.terminal_output = "file"  # standard output and errors, in the order in which they came
    try:
        # Left to itself, Nipype takes a program that failed after it had written its files for one that did not.
        result = interface.run(cwd=str(folder), ignore_exception=True)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    code = result.runtime.returncode
    if code == 0 and result.outputs is not None:
        return result.outputs
    said = folder / "output.nipype"
    lines = said.read_text(errors="replace").strip().splitlines()[-TAIL:] if said.is_file() else []
    shutil.rmtree(folder, ignore_errors=True)
    if shutil.which(program) is None:
        reason = f"{program} was not found on the PATH."
    elif code == 0:
        reason = f"{program} ended, but did not leave the files that it should."
    elif code is None:
        reason = f"{program} could not be run: {' '.join(result.runtime.traceback.split()[-40:])}"
    else:
        reason = f"{program} failed (exit code {code})."
    shown = "\n".join(lines) or "(none)"
    raise ToolError(f"{reason} Choose --preprocess dipy to do without FSL.\nCommand: {command}\nOutput:\n{shown}")


def acquisition_row(encoding: PhaseEncoding, seconds: float, affine: ArrayLike) -> str:
    """A line of FSL's file of acquisition parameters: direction of the phase encoding, and readout time (s).

    FSL turns images whose x runs from left to right around when it reads them, and their phase encoding with them.
    """
    sign = encoding.sign
    if encoding.axis == 0 and np.linalg.det(np.asarray(affine)[:3, :3]) > 0:
        sign = -sign
    vector = [sign if axis == encoding.axis else 0 for axis in range(3)]
    return f"{vector[0]} {vector[1]} {vector[2]} {seconds:.6f}"


def eddy_transforms(parameters: ArrayLike, affine: ArrayLike, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Rigid motion of every volume as a transform of world coordinates (mm), from the first columns of eddy's file.

    For traces and tables of motion; eddy itself has applied it.

    Parameters
    ----------
    parameters : array_like, shape (n, 6 or more)
        Translations (mm) and rotations (radians) along and about FSL's axes, about the centre of the image.
    affine : array_like, shape (4, 4)
        From voxels to mm.
    shape : tuple of int
        Of the image.

    Returns
    -------
    ndarray, shape (n, 4, 4)
    """
    values = np.atleast_2d(np.asarray(parameters, dtype=float))
    affine = np.asarray(affine, dtype=float)
    axes = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    if np.linalg.det(axes) > 0:
        axes[:, 0] *= -1
    centre = affine[:3, :3] @ ((np.array(shape[:3]) - 1) / 2) + affine[:3, 3]
    transforms = np.tile(np.eye(4), (len(values), 1, 1))
    turns = axes @ Rotation.from_euler("xyz", values[:, 3:6]).as_matrix() @ np.linalg.inv(axes)
    transforms[:, :3, :3] = turns
    transforms[:, :3, 3] = values[:, :3] @ axes.T + centre - turns @ centre
    return transforms


class _TopupInput(StepInput):
    reversed_phase = traits.Dict(mandatory=True, desc="as ReversedPhase.to_dict")
    left_out = traits.List(traits.Dict, usedefault=True, desc="volumes of the image as acquired that are not in it")


class _TopupOutput(TraitedSpec):
    field = File(exists=True, desc="displacement along the phase-encoding axis, voxels")
    pictures = File(exists=True, desc="without diffusion weighting: as acquired, of reversed phase encoding, corrected")
    topup = traits.Str(desc="what topup's files begin with, for eddy")
    facts = File(exists=True)


class Topup(Step):
    """Find the susceptibility distortion with FSL's topup.

    A reversed image that cannot be used leaves no field, and the reason in the facts; a program that fails is an error.
    """

    input_spec = _TopupInput
    output_spec = _TopupOutput

    def _work(self, cwd: Path) -> dict[str, Any]:
        from nipype.interfaces import fsl

        data, image = read_volumes(self.inputs.in_file)
        try:
            pair = own_pair(self.inputs)
            other = read_reversed(pair, data.shape[:3])[..., :TOPUP_VOLUMES]
        except UnusableInputError as error:
            return not_found(self.inputs, error)
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
                environ=_threads(self.inputs.threads),
                args=_even(data.shape),
            ),
            folder,
        )
        hertz = _result(found.out_field, data.shape[:3], "topup")
        corrected = _result(found.out_corrected, both.shape, "topup")
        shift = shift_from_hertz(hertz, pair.own_readout_time, pair.own_encoding.sign)
        n = own.shape[-1]
        means = [volumes.mean(axis=-1) for volumes in (own, other, corrected[..., :n])]
        self._results["field"] = write_volumes(cwd / "field.nii", shift, image)
        self._results["pictures"] = write_volumes(cwd / "pictures.nii", np.stack(means, axis=-1), image)
        self._results["topup"] = str(folder / "topup")
        largest = float(np.percentile(np.abs(shift), 99))
        before = disagreement(means[0], means[1])
        after = disagreement(means[2], corrected[..., n:].mean(axis=-1))
        words = (
            f"displacements up to {largest:.1f} voxels (99th percentile); the two images differ by "
            f"{100 * before:.0f} % before and {100 * after:.0f} % after"
        )
        return {"words": words, "largest_shift": largest, "before": before, "after": after}


class _EddyInput(StepInput):
    bval = File(exists=True, mandatory=True)
    bvec = File(exists=True)
    region = File(exists=True, mandatory=True)
    sidecar = traits.Dict(mandatory=True, desc="metadata of the image")
    topup = traits.Str(desc="what topup's files begin with")


class _EddyOutput(StepOutput):
    bvec = File(exists=True, desc="directions, turned with the head")
    transforms = File(exists=True, desc="of every volume, world to world, as .npy")


class Eddy(Step):
    """Undo motion, eddy currents and, after topup, the susceptibility distortion with FSL's eddy."""

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
        encoding, seconds = _encoding_of(inputs.sidecar, image.shape, inputs.label)
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
        data = _result(found.out_corrected, image.shape, program)
        parameters = _numbers(found.out_parameter, program)
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
        return {"program": program, **_outliers(found)}


def _encoding_of(sidecar: Mapping[str, Any], shape: tuple[int, ...], label: str) -> tuple[PhaseEncoding, float]:
    """Phase encoding and readout time of an image from its metadata."""
    try:
        encoding = phase_encoding(sidecar.get("PhaseEncodingDirection"))
    except ValueError as error:
        raise UnusableInputError(f"{label.split()[0]}: FSL's eddy needs PhaseEncodingDirection: {error}") from error
    seconds = readout_time(sidecar, shape[encoding.axis])
    if seconds is None:
        raise UnusableInputError(
            f"{label.split()[0]}: FSL's eddy needs TotalReadoutTime (s), or EffectiveEchoSpacing, in the sidecar."
        )
    return encoding, seconds


def _threads(threads: int) -> dict[str, str]:
    return {"OMP_NUM_THREADS": str(threads)}


def _even(shape: tuple[int, ...]) -> str:
    """What topup must be told of an image that cannot be halved."""
    return "" if all(n % 2 == 0 for n in shape[:3]) else "--subsamp=" + ",".join(["1"] * TOPUP_LEVELS)


def _result(path: str, shape: tuple[int, ...], program: str) -> NDArray[np.float32]:
    """An image that a program left, which must have the shape it was asked for."""
    try:
        data = read_volumes(path)[0]
    except UnusableInputError as error:
        raise ToolError(f"{program} ended, but its result cannot be read: {error}") from error
    if data.shape != tuple(shape):
        raise ToolError(f"{program} left {Path(path).name} of shape {data.shape}; expected {tuple(shape)}.")
    if not np.all(np.isfinite(data)):
        raise ToolError(f"{program} left {Path(path).name} with values that are not finite.")
    return data


def _numbers(path: str, program: str) -> NDArray[np.float64]:
    try:
        values = np.loadtxt(path, ndmin=2)
    except (OSError, ValueError) as error:
        raise ToolError(f"{program} left {Path(path).name}, which cannot be read: {error}.") from error
    if values.shape[-1] < 6:
        raise ToolError(f"{program} left {Path(path).name} with {values.shape[-1]} columns; expected 6 or more.")
    return values


def _outliers(found: Any) -> dict[str, Any]:
    """Share of outlier slices of every volume, as eddy says (and has replaced them)."""
    if not isdefined(found.out_outlier_map):
        return {}
    outliers = np.loadtxt(found.out_outlier_map, skiprows=1, ndmin=2)
    return {
        "words": f"{100 * outliers.mean():.1f} % of all slices were outliers and were replaced",
        "outlier_fraction": outliers.mean(axis=1).tolist(),
    }
