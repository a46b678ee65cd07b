"""The nodes that leave derivatives: maps with sidecars, and masks."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from nipype.interfaces.base import (
    BaseInterfaceInputSpec,
    Directory,
    File,
    SimpleInterface,
    TraitedSpec,
    isdefined,
    traits,
)

from bidsfit import estimators, models
from bidsfit.bids.conflicts import conflicts_of_fit, conflicts_of_image, refuse, writing
from bidsfit.bids.images import open_image, read_data, write_nifti
from bidsfit.bids.inputs import DwiImage
from bidsfit.bids.outputs import (
    file_output,
    fit_settings,
    json_path,
    map_outputs,
    sidecar,
    table,
)
from bidsfit.files import whole_file, write_json


class _WriteMapsInput(BaseInterfaceInputSpec):
    maps = traits.Dict(mandatory=True, desc="files by parameter name or kind of map, in the units of the numerics")
    summary = File(exists=True, mandatory=True)
    image = traits.Dict(mandatory=True, desc="as DwiImage.to_dict")
    model = traits.Str(mandatory=True)
    estimator = traits.Str(mandatory=True)
    options = traits.Dict()
    mask_name = traits.Str(mandatory=True, desc="where the mask came from")
    noise = traits.Dict(usedefault=True, desc="choices about the noise, as NoiseChoice.settings")
    output_dir = Directory(mandatory=True)


class _WriteMapsOutput(TraitedSpec):
    out_files = traits.List(traits.Str, desc="the maps that were written")


class WriteMaps(SimpleInterface):
    """Write the maps of a fit with their sidecars, in the units of files; each whole or not at all.

    None is written where one is there that was made otherwise, or a fit of another image, mask or noise.
    """

    input_spec = _WriteMapsInput
    output_spec = _WriteMapsOutput

    def _run_interface(self, runtime: Any) -> Any:
        image = DwiImage.from_dict(self.inputs.image)
        model = models.get(self.inputs.model)
        estimator = estimators.get(self.inputs.estimator)(model, **self.inputs.options)
        summary = json.loads(Path(self.inputs.summary).read_text())
        settings = fit_settings(model, estimator, self.inputs.mask_name, self.inputs.noise)
        folder = Path(self.inputs.output_dir)
        outputs, written = map_outputs(image, model, estimator), []
        with writing(folder, image):  # another run may have written since this one was planned
            refuse(conflicts_of_fit(folder, image, [output.path for output in outputs.values()], settings))
            for name, output in outputs.items():
                source = open_image(Path(self.inputs.maps[name]))
                data = np.asarray(read_data(source, Path(self.inputs.maps[name])))
                if output.file_unit.factor != 1:
                    data = data * output.file_unit.factor
                target = folder / output.path
                write_json(json_path(target), sidecar(output, image, model, settings, summary))
                write_nifti(target, data, source)
                written.append(str(target))
        self._results = {"out_files": written}
        return runtime


class _WriteVolumeInput(BaseInterfaceInputSpec):
    in_file = File(exists=True, desc="nothing is written where there is none")
    table = File(exists=True, desc="names of the labels, where there are some")
    kind = traits.Enum("mask", "noise", "tissue", mandatory=True, desc="entry of outputs.yml")
    method = traits.Str(desc="how it was found, in words")
    doubt = traits.Str(desc="why it is doubtful, in words")
    image = traits.Dict(mandatory=True, desc="as DwiImage.to_dict")
    output_dir = Directory(mandatory=True)


class _WriteVolumeOutput(TraitedSpec):
    out_file = traits.Str()


class WriteVolume(SimpleInterface):
    """Write a mask, a segmentation or a noise map that the run found itself."""

    input_spec = _WriteVolumeInput
    output_spec = _WriteVolumeOutput

    def _run_interface(self, runtime: Any) -> Any:
        image, folder = DwiImage.from_dict(self.inputs.image), Path(self.inputs.output_dir)
        if isdefined(self.inputs.in_file):
            with writing(folder, image):
                shared = {"Mask": self.inputs.method} if self.inputs.kind == "mask" else {}
                refuse(conflicts_of_image(folder, image, shared))
                self._write(image, folder / file_output(self.inputs.kind, image))
        return runtime

    def _write(self, image: DwiImage, target: Path) -> None:
        if isdefined(self.inputs.table):
            with whole_file(json_path(target).with_suffix(".tsv")) as temporary:
                shutil.copyfile(self.inputs.table, temporary)
        entry = table()["files"][self.inputs.kind]
        content = {
            "Description": entry["description"],
            **entry["sidecar"],
            **({"Method": self.inputs.method} if isdefined(self.inputs.method) else {}),
            **({"Doubt": f"The mask {self.inputs.doubt}."} if self.inputs.doubt else {}),
            "Sources": [image.uri],
            "SpatialReference": image.uri,
        }
        write_json(json_path(target), content)
        with whole_file(target) as temporary:
            shutil.copyfile(self.inputs.in_file, temporary)
        self._results = {"out_file": str(target)}
