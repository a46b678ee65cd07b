"""Workflow nodes that write derivatives."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from nipype.interfaces.base import (
    BaseInterfaceInputSpec,
    Directory,
    File,
    SimpleInterface,
    TraitedSpec,
    isdefined,
    traits,
)

from bidsfit.bids.conflicts import conflicts_of_image, refuse, writing
from bidsfit.bids.inputs import InputImage
from bidsfit.bids.outputs import file_output, json_path, on_grid_of, table
from bidsfit.files import whole_file, write_json


class _WriteVolumeInput(BaseInterfaceInputSpec):
    in_file = File(exists=True, desc="nothing is written where there is none")
    table = File(exists=True, desc="names of the labels, where there are some")
    kind = traits.Enum("mask", "noise", "tissue", mandatory=True, desc="entry of outputs.yml")
    method = traits.Str(desc="how it was found, in words")
    doubt = traits.Str(desc="why it is doubtful, in words")
    image = traits.Dict(mandatory=True, desc="as InputImage.to_dict")
    output_dir = Directory(mandatory=True)


class _WriteVolumeOutput(TraitedSpec):
    out_file = traits.Str()


class WriteVolume(SimpleInterface):
    """Write a mask, segmentation or noise map computed in the run."""

    input_spec = _WriteVolumeInput
    output_spec = _WriteVolumeOutput

    def _run_interface(self, runtime: Any) -> Any:
        image, folder = InputImage.from_dict(self.inputs.image), Path(self.inputs.output_dir)
        if isdefined(self.inputs.in_file):
            with writing(folder, image):
                shared = {"Mask": self.inputs.method} if self.inputs.kind == "mask" else {}
                refuse(conflicts_of_image(folder, image, shared))
                self._write(image, folder / file_output(self.inputs.kind, image))
        return runtime

    def _write(self, image: InputImage, target: Path) -> None:
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
            **on_grid_of(image.uri),
        }
        write_json(json_path(target), content)
        with whole_file(target) as temporary:
            shutil.copyfile(self.inputs.in_file, temporary)
        self._results = {"out_file": str(target)}
