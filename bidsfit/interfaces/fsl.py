"""Running of FSL programs, and conversion of their inputs and outputs."""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from nipype.interfaces.base import isdefined
from numpy.typing import ArrayLike, NDArray

from bidsfit.bids.fieldmaps import readout_time
from bidsfit.exceptions import ToolError, UnusableInputError, UsageError
from bidsfit.interfaces.step import read_volumes
from bidsfit.preprocessing.susceptibility import PhaseEncoding, phase_encoding

#: Names of eddy without a graphics card, the newest first; only the first has an option for threads.
EDDY = ("eddy_cpu", "eddy_openmp", "eddy")

#: Levels of topup's standard configuration, which halves the image at the first five: odd images cannot be halved.
TOPUP_LEVELS = 9

#: Lines of a program's output that a message repeats.
TAIL = 15


def installed() -> dict[str, str]:
    """Paths of "topup" and "eddy" on the PATH, and the "version" of FSL if known.

    ``eddy`` is the first of the names in `EDDY`.
    """
    found = {"topup": shutil.which("topup"), "eddy": next(filter(None, map(shutil.which, EDDY)), None)}
    programs = {name: path for name, path in found.items() if path}
    version = Path(os.environ.get("FSLDIR", "")) / "etc" / "fslversion"
    if programs and "FSLDIR" in os.environ and version.is_file():
        words = version.read_text().split()
        programs |= {"version": words[0].split(":")[0]} if words else {}
    return programs


def require_fsl(programs: Collection[str], program: str) -> None:
    """Raise `UsageError` if a program of FSL is not installed."""
    if program not in programs:
        raise UsageError(
            f"--preprocess fsl: FSL's {program} is not installed (not found on PATH). Install FSL, or choose "
            "--preprocess dipy, which needs nothing more."
        )


def run_tool(interface: Any, folder: Path) -> Any:
    """Run a program in a new folder, which is removed if it fails; return its outputs.

    Raises
    ------
    ToolError
        If the program is missing, fails, or leaves no result.
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
    """Line of FSL's acquisition parameters: phase-encoding direction, and readout time (s).

    FSL flips images whose x axis runs from left to right, and their phase encoding with them.
    """
    sign = encoding.sign
    if encoding.axis == 0 and np.linalg.det(np.asarray(affine)[:3, :3]) > 0:
        sign = -sign
    vector = [sign if axis == encoding.axis else 0 for axis in range(3)]
    return f"{vector[0]} {vector[1]} {vector[2]} {seconds:.6f}"


def eddy_transforms(parameters: ArrayLike, affine: ArrayLike, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Rigid motion of every volume in world coordinates (mm), shape (n, 4, 4), from the parameters of eddy.

    For figures and tables of motion; eddy itself has applied it. ``parameters``, shape (n, 6 or more), are translations
    (mm) and rotations (radians) along and about FSL's axes through the image centre; ``affine`` is voxel to mm.
    """
    from scipy.spatial.transform import Rotation  # takes a tenth of a second to import

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


def encoding_of(sidecar: Mapping[str, Any], shape: tuple[int, ...], label: str) -> tuple[PhaseEncoding, float]:
    """Phase encoding and readout time (s) of an image from its metadata."""
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


def threads_of(threads: int) -> dict[str, str]:
    """Environment variables that limit a program to so many threads."""
    return {"OMP_NUM_THREADS": str(threads)}


def even(shape: tuple[int, ...]) -> str:
    """Option of topup for images of odd size, which cannot be halved."""
    return "" if all(n % 2 == 0 for n in shape[:3]) else "--subsamp=" + ",".join(["1"] * TOPUP_LEVELS)


def result_image(path: str, shape: tuple[int, ...], program: str) -> NDArray[np.float32]:
    """Read the output image of a program and check its shape."""
    try:
        data = read_volumes(path)[0]
    except UnusableInputError as error:
        raise ToolError(f"{program} ended, but its result cannot be read: {error}") from error
    if data.shape != tuple(shape):
        raise ToolError(f"{program} left {Path(path).name} of shape {data.shape}; expected {tuple(shape)}.")
    if not np.all(np.isfinite(data)):
        raise ToolError(f"{program} left {Path(path).name} with values that are not finite.")
    return data


def result_numbers(path: str, program: str) -> NDArray[np.float64]:
    """Read the output table of a program and check that it has at least six columns."""
    try:
        values = np.loadtxt(path, ndmin=2)
    except (OSError, ValueError) as error:
        raise ToolError(f"{program} left {Path(path).name}, which cannot be read: {error}.") from error
    if values.shape[-1] < 6:
        raise ToolError(f"{program} left {Path(path).name} with {values.shape[-1]} columns; expected 6 or more.")
    return values


def outliers_of(found: Any) -> dict[str, Any]:
    """Fraction of outlier slices, which eddy has replaced, of every volume."""
    if not isdefined(found.out_outlier_map):
        return {}
    outliers = np.loadtxt(found.out_outlier_map, skiprows=1, ndmin=2)
    return {
        "words": f"{100 * outliers.mean():.1f} % of all slices were outliers and were replaced",
        "outlier_fraction": outliers.mean(axis=1).tolist(),
    }
