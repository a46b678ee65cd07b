"""Workflow nodes that draw figures and write records for the report."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from nipype.interfaces.base import (
    BaseInterfaceInputSpec,
    Directory,
    File,
    SimpleInterface,
    TraitedSpec,
    traits,
)
from numpy.typing import NDArray

from bidsfit.acquisition import protocol_in_words
from bidsfit.bids.conflicts import conflicts_of_image, refuse, writing
from bidsfit.bids.images import open_image, read_data
from bidsfit.bids.inputs import InputImage
from bidsfit.bids.left_out import in_words
from bidsfit.files import whole_file
from bidsfit.interfaces.image import doubtful_mask
from bidsfit.interfaces.step import acquisition_of
from bidsfit.reports import figures
from bidsfit.reports.records import ImageRecord, write_record


def image_figure_paths(folder: Path, image: InputImage) -> dict[str, Path]:
    """Paths of the record and figures of an image, by kind."""
    stem = folder / f"sub-{image.participant}" / "figures"
    drawn = ("mask",) if image.series else ("mask", "shells")
    return {
        "record": stem / f"{image.name}_desc-image_record.json",
        **{kind: stem / f"{image.name}_desc-{kind}_{image.suffix}.png" for kind in drawn},
        "voxels": stem / f"{image.name}_desc-voxels_{image.suffix}.npz",
    }


class _PlotInput(BaseInterfaceInputSpec):
    image = traits.Dict(mandatory=True, desc="as InputImage.to_dict")
    mask = File(exists=True, mandatory=True)
    mask_name = traits.Str(mandatory=True, desc="where the mask came from")
    noise = traits.Dict(usedefault=True, desc="choices about the noise, as NoiseChoice.settings")
    output_dir = Directory(mandatory=True)


class _PlotOutput(TraitedSpec):
    record = traits.Str(desc="the record that was written")


class _PlotImageInput(_PlotInput):
    bval = File(exists=True)
    bvec = File(exists=True)
    sidecar = traits.Dict(desc="metadata of the image")
    facts = File(exists=True, mandatory=True)
    reference = File(exists=True, mandatory=True)
    voxels = File(exists=True, mandatory=True, desc="signals of the voxels, for the viewer")
    models = traits.List(traits.Dict, desc="rows: name, title, fitted, reason")
    mask_doubt = traits.Str(desc="why the mask is doubtful")
    warnings = traits.List(traits.Str)


class PlotImage(SimpleInterface):
    """Draw the acquisition and write its record."""

    input_spec = _PlotImageInput
    output_spec = _PlotOutput

    def _run_interface(self, runtime: Any) -> Any:
        image, folder = InputImage.from_dict(self.inputs.image), Path(self.inputs.output_dir)
        paths = image_figure_paths(folder, image)
        facts = json.loads(Path(self.inputs.facts).read_text())
        acquisition = acquisition_of(self.inputs)
        mask, affine = read_volume(self.inputs.mask)
        reference, _ = read_volume(self.inputs.reference)
        record = ImageRecord(
            name=image.title,
            source=image.uri,
            mask_description=self.inputs.mask_name,
            shells=[
                {"b_value": s.b_value, "n_measurements": s.n_measurements, "n_directions": s.n_directions}
                for s in (() if image.series else acquisition.shells)
            ],
            protocol=protocol_in_words(acquisition) if image.series else "",
            models=[dict(row) for row in self.inputs.models],
            figures=relative(paths, [kind for kind in ("mask", "shells") if kind in paths], self.inputs.output_dir),
            voxels=relative(paths, ("voxels",), self.inputs.output_dir)["voxels"],
            warnings=[
                *filter(None, [in_words(facts.get("left_out", ()))]),
                *self.inputs.warnings,
                *([doubtful_mask(doubt)] if (doubt := self.inputs.mask_doubt) else []),
            ],
            **facts,
        )
        with writing(folder, image):
            refuse(conflicts_of_image(folder, image, {"Mask": self.inputs.mask_name, **self.inputs.noise}))
            with whole_file(paths["mask"]) as path:
                figures.plot_mask(path, reference, mask > 0, affine)
            if "shells" in paths:
                with whole_file(paths["shells"]) as path:
                    figures.plot_shells(path, acquisition.b_values, acquisition.directions)
            with whole_file(paths["voxels"]) as path:
                shutil.copyfile(self.inputs.voxels, path)
            write_record(record, paths["record"])
        self._results = {"record": str(paths["record"])}
        return runtime


def read_volume(path: str) -> tuple[NDArray, NDArray]:
    """A volume and its affine."""
    image = open_image(Path(path))
    return np.asarray(read_data(image, Path(path))), np.asarray(image.affine)


def relative(paths: Mapping[str, Path], kinds: Iterable[str], folder: str) -> dict[str, str]:
    """Paths of some kinds, relative to the output folder."""
    return {kind: paths[kind].relative_to(folder).as_posix() for kind in kinds}
