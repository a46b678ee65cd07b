"""Workflow node that writes a preprocessed image, from which the next run can start."""

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

from bidsfit import __version__
from bidsfit.bids.acquisitions import read_b_values, write_b_values
from bidsfit.bids.conflicts import conflicts_of_preprocessing, refuse, writing
from bidsfit.bids.images import open_image, read_data, write_nifti
from bidsfit.bids.inputs import InputImage
from bidsfit.bids.left_out import FIELD
from bidsfit.bids.outputs import LEFT_OUT, file_output, json_path, own_uri, table
from bidsfit.files import whole_file, write_json

#: Fields of a sidecar that stay true of the preprocessed image.
KEPT = (
    "BodyPart",
    "EchoTime",
    "FlipAngle",
    "MagneticFieldStrength",
    "Manufacturer",
    "ManufacturersModelName",
    "RepetitionTime",
    "SliceEncodingDirection",
)


class _WritePreprocessedInput(BaseInterfaceInputSpec):
    in_file = File(exists=True, mandatory=True, desc="preprocessed image")
    missing = File(exists=True, desc="voxels that become NaN")
    bval = File(exists=True, mandatory=True)
    bvec = File(exists=True, desc="directions, turned where the participant turned")
    sidecar = traits.Dict(usedefault=True, desc="metadata of the raw image")
    left_out = traits.List(
        traits.Dict, usedefault=True, desc="volumes of the raw image that are not in this one, and why"
    )
    noise_map = File(exists=True, desc="noise level of the raw image")
    noise_words = traits.Str(desc="how the noise level was found")
    interpolation = traits.Str(desc="how the raw image was interpolated, in words")
    image = traits.Dict(mandatory=True, desc="the raw image, as InputImage.to_dict")
    steps = traits.Dict(mandatory=True, desc="method by step, as Chain.settings")
    facts = traits.List(File(exists=True), desc="what each step found, as JSON")
    output_dir = Directory(mandatory=True)


class _WritePreprocessedOutput(TraitedSpec):
    out_file = File(exists=True)
    bval = File(exists=True)
    bvec = File()
    noise_map = File()
    noise_words = traits.Str()


class WritePreprocessed(SimpleInterface):
    """Write a preprocessed image with b-values, directions, noise map and sidecar; the image last."""

    input_spec = _WritePreprocessedInput
    output_spec = _WritePreprocessedOutput

    def _run_interface(self, runtime: Any) -> Any:
        folder, raw = Path(self.inputs.output_dir), InputImage.from_dict(self.inputs.image)
        refused = self._refused()
        steps = {**self.inputs.steps, **dict.fromkeys(refused, "none")}
        with writing(folder, raw):  # another run may have written since this one was planned
            refuse(conflicts_of_preprocessing(folder, raw, steps))
            self._write(folder, raw, steps, refused)
        return runtime

    def _refused(self) -> dict[str, str]:
        """Planned steps that could not be applied, as named in the sidecar, and why."""
        if not isdefined(self.inputs.facts):
            return {}
        told = [json.loads(Path(path).read_text()) for path in self.inputs.facts]
        return {facts["step"].capitalize(): facts["refused"] for facts in told if facts.get("refused")}

    def _write(self, folder: Path, raw: InputImage, steps: dict[str, str], refused: dict[str, str]) -> None:
        inputs = self.inputs
        target = folder / file_output("preproc", raw)
        base = target.parent / target.name.split(".")[0]
        source = open_image(Path(inputs.in_file))
        own = {"bval": Path(f"{base}.bval")}
        with whole_file(own["bval"]) as temporary:
            write_b_values(temporary, read_b_values(Path(inputs.bval)))
        if isdefined(inputs.bvec):
            own["bvec"] = Path(f"{base}.bvec")
            with whole_file(own["bvec"]) as temporary:
                shutil.copyfile(inputs.bvec, temporary)
        if isdefined(inputs.noise_map):
            own["noise_map"] = folder / file_output("level", raw)
            self._write_level(own["noise_map"], raw)
            self._results["noise_words"] = inputs.noise_words
        write_json(
            json_path(target),
            {key: value for key, value in inputs.sidecar.items() if key in KEPT}
            | ({FIELD: [dict(row) for row in inputs.left_out]} if inputs.left_out else {})
            | {
                "Description": table()["files"]["preproc"]["description"],
                "Preprocessing": steps,
                **({LEFT_OUT: refused} if refused else {}),
                **({"Interpolation": inputs.interpolation} if inputs.interpolation else {}),
                "Sources": [uri for uri in (raw.uri, raw.mask_uri) if uri],
                "SpatialReference": raw.uri,
                "GeneratedBy": {"Name": "bidsfit", "Version": __version__},
                **table()["files"]["preproc"]["sidecar"],
            },
        )
        data = np.array(read_data(source, Path(inputs.in_file)))
        if isdefined(inputs.missing):  # no fit there, and the status says so
            data[read_data(open_image(Path(inputs.missing)), Path(inputs.missing)) > 0] = np.nan
        write_nifti(target, data, source)
        self._results |= {"out_file": str(target)} | {key: str(path) for key, path in own.items()}

    def _write_level(self, path: Path, raw: InputImage) -> None:
        level = open_image(Path(self.inputs.noise_map))
        entry = table()["files"]["level"]
        content = {
            "Description": entry["description"],
            "Method": self.inputs.noise_words,
            **entry["sidecar"],
            "Sources": [raw.uri],
            "SpatialReference": own_uri(file_output("preproc", raw)),
        }
        write_json(json_path(path), content)
        write_nifti(path, np.asarray(read_data(level, Path(self.inputs.noise_map))), level)
