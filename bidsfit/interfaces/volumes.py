"""Workflow nodes that make the image to be fitted: of the files of a series, or of the volumes that belong."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from nipype.interfaces.base import (
    BaseInterfaceInputSpec,
    File,
    InputMultiObject,
    SimpleInterface,
    TraitedSpec,
    isdefined,
    traits,
)
from numpy.typing import NDArray

from bidsfit.bids.acquisitions import read_acquisition, write_b_values, write_directions
from bidsfit.bids.images import MaskedSignals, image_shape, open_image, opened, read_data
from bidsfit.bids.left_out import left_out, without_in_sidecar
from bidsfit.bids.series import series_shape
from bidsfit.exceptions import UnusableInputError
from bidsfit.interfaces.step import write_volumes
from bidsfit.preprocessing.phase import signed
from bidsfit.preprocessing.volumes import find_strangers


class _LeaveOutVolumesInput(BaseInterfaceInputSpec):
    in_file = File(exists=True, mandatory=True, desc="diffusion image")
    bval = File(exists=True, mandatory=True)
    bvec = File(exists=True)
    sidecar = traits.Dict(usedefault=True, desc="metadata of the image")
    scratch = traits.Str(usedefault=True, nohash=True, desc="folder of unpacked copies, as of `opened`")
    version = traits.Str(desc="of bidsfit: another version looks again")


class _LeaveOutVolumesOutput(TraitedSpec):
    in_file = File(exists=True, desc="the image without them; the image itself where none is left out")
    bval = File(exists=True)
    bvec = File(exists=True)
    sidecar = traits.Dict(desc="metadata, without what they say of these volumes")
    left_out = traits.List(traits.Dict, desc="as `bidsfit.bids.left_out.left_out`")


class LeaveOutVolumes(SimpleInterface):
    """Remove volumes that are empty or do not belong to their shell; nothing is copied if there are none."""

    input_spec = _LeaveOutVolumesInput
    output_spec = _LeaveOutVolumesOutput

    def _run_interface(self, runtime: Any) -> Any:
        cwd, inputs = Path(runtime.cwd), self.inputs
        path, bval = Path(inputs.in_file), Path(inputs.bval)
        bvec = Path(inputs.bvec) if isdefined(inputs.bvec) else None
        acquisition = read_acquisition(bval, bvec, inputs.sidecar)
        n = len(acquisition)
        image = opened(path, inputs.scratch)
        shape = image_shape(image, n, path)
        everywhere = MaskedSignals(image, shape, np.ones(shape[:3], dtype=bool), path)
        found = find_strangers(
            lambda k: everywhere.volume(k).reshape(shape[:3], order="F"), acquisition, image.header.get_zooms()[:3]
        )
        kept = [k for k in range(n) if k not in found]
        if len(kept) < 2 and found:
            reasons = "; ".join(f"{k}: {reason}" for k, reason in found.items())
            raise UnusableInputError(
                f"{path} holds {len(kept)} of {n} volumes that are diffusion images (counted from 0, {reasons})."
            )
        rows = [left_out(k, float(acquisition.b_values[k]), reason) for k, reason in found.items()]
        if found:
            folder, name = cwd / "kept", path.name.split(".")[0]  # messages go on naming the image
            folder.mkdir(exist_ok=True)
            volumes = np.empty((*shape[:3], len(kept)), dtype=np.float32, order="F")
            for i, k in enumerate(kept):
                volumes[..., i] = everywhere.volume(k).reshape(shape[:3], order="F")
            path = Path(write_volumes(folder / f"{name}.nii", volumes, image))
            bval = folder / f"{name}.bval"
            write_b_values(bval, acquisition.b_values[kept])
            if bvec is not None and acquisition.directions is not None:
                bvec = folder / f"{name}.bvec"
                write_directions(bvec, acquisition.directions[kept])
        self._results = {
            "in_file": str(path),
            "bval": str(bval),
            "sidecar": without_in_sidecar(inputs.sidecar, rows),
            "left_out": rows,
        } | ({} if bvec is None else {"bvec": str(bvec)})
        return runtime


def _joined(paths: Sequence[Path]) -> NDArray[np.float32]:
    """Volumes of files with one volume each."""
    volumes = np.empty(series_shape(paths), dtype=np.float32, order="F")
    for k, path in enumerate(paths):
        volumes[..., k] = np.asarray(read_data(open_image(path), path)).reshape(volumes.shape[:3], order="F")
    return volumes


class _JoinSeriesInput(BaseInterfaceInputSpec):
    files = InputMultiObject(File(exists=True), mandatory=True, desc="one volume each, on one grid")
    magnitudes = traits.Bool(False, usedefault=True, desc="turn negative values into magnitudes")
    imaginary = traits.List(File(exists=True), usedefault=True, desc="imaginary parts, of which the files are the real")
    polarity = traits.List(File(exists=True), usedefault=True, desc="images that tell signs")
    phase_unit = traits.Str(usedefault=True, desc="of these images, if they are phases")


class _JoinSeriesOutput(TraitedSpec):
    out_file = File(exists=True, desc="the volumes as one image")


class JoinSeries(SimpleInterface):
    """Join the files of a series into one image, whose name is that of the first."""

    input_spec = _JoinSeriesInput
    output_spec = _JoinSeriesOutput

    def _run_interface(self, runtime: Any) -> Any:
        paths = [Path(path) for path in self.inputs.files]
        volumes = _joined(paths)
        if imaginary := [Path(path) for path in self.inputs.imaginary]:
            volumes = volumes + np.complex64(1j) * _joined(imaginary)
        if self.inputs.magnitudes:
            np.abs(volumes, out=volumes)
        if polarity := [Path(path) for path in self.inputs.polarity]:
            told = [np.asarray(read_data(open_image(path), path), dtype=np.float32) for path in polarity]
            try:
                shaped = [one.reshape(volumes.shape[:3]) for one in told]
                volumes = signed(volumes, shaped, self.inputs.phase_unit or None)
            except ValueError as error:
                raise UnusableInputError(f"{polarity[0]}: {error}.") from error
        target = Path(runtime.cwd) / f"{paths[0].name.split('.')[0]}.nii"
        self._results["out_file"] = write_volumes(target, volumes, open_image(paths[0]))
        return runtime
