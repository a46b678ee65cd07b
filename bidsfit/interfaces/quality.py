"""Workflow node that assesses the quality of an image and the effects of its preprocessing."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
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
from numpy.typing import NDArray

from bidsfit.acquisition import Acquisition
from bidsfit.bids.conflicts import conflicts_of_image, refuse
from bidsfit.bids.images import image_shape, opened, read_data
from bidsfit.bids.inputs import InputImage
from bidsfit.bids.left_out import FIELD, methods_sentence, numbers_of_others, without
from bidsfit.bids.left_out import numbers as left_out_numbers
from bidsfit.bids.outputs import file_output
from bidsfit.bids.quality import write_confounds, write_quality
from bidsfit.files import whole_file
from bidsfit.interfaces.figures import read_volume, relative
from bidsfit.interfaces.step import acquisition_of
from bidsfit.preprocessing import quality
from bidsfit.preprocessing.registration import extent
from bidsfit.preprocessing.steps import STEPS
from bidsfit.preprocessing.trajectory import RADIUS, motion_parameters
from bidsfit.reports import preprocessing as drawn
from bidsfit.reports.preprocessing import StepView
from bidsfit.reports.records import PreprocessingRecord, write_record

#: Figures of quality, in the order of the report.
QUALITY_FIGURES = ("traces", "outliers", "carpet", "snr", "registration")

#: Rows of a carpet.
CARPET_ROWS = 400


def quality_figure_paths(folder: Path, image: InputImage) -> dict[str, Path]:
    """Paths of the record and figures of the preprocessing, by kind."""
    stem = folder / f"sub-{image.participant}" / "figures"
    kinds = (*STEPS.available(), *QUALITY_FIGURES)
    paths = {kind: stem / f"{image.name}_desc-{kind}_{image.suffix}.png" for kind in kinds}
    return paths | {"record": quality_record_path(folder, image)}


def quality_record_path(folder: Path, image: InputImage) -> Path:
    """Path of the record of the preprocessing."""
    return folder / f"sub-{image.participant}" / "figures" / f"{image.name}_desc-preprocessing_record.json"


class _AssessQualityInput(BaseInterfaceInputSpec):
    in_file = File(exists=True, mandatory=True, desc="the image that is fitted")
    bval = File(exists=True, mandatory=True)
    bvec = File(exists=True)
    mask = File(exists=True, mandatory=True)
    left_out = traits.List(traits.Dict, usedefault=True, desc="volumes that are not in it, and why")
    noise_map = File(exists=True, desc="noise level of every voxel of the raw image")
    transforms = File(exists=True, desc="of every volume, world to world, as .npy")
    facts = traits.List(File(exists=True), desc="what each step found, as JSON")
    files = traits.List(File(exists=True), desc="images of which the facts speak")
    image = traits.Dict(mandatory=True, desc="the image that is fitted, as InputImage.to_dict")
    source = traits.Str(mandatory=True, desc="URI of the raw image")
    steps = traits.List(traits.Dict, usedefault=True, desc="rows: name, title, method, applied, reason")
    methods = traits.Dict(traits.Str, traits.Str, usedefault=True, desc="a sentence about each step, by its name")
    slice_axis = traits.Enum(2, 0, 1, usedefault=True, desc="axis across the slices")
    version = traits.Str(desc="of bidsfit: another version looks again")
    scratch = traits.Str(usedefault=True, nohash=True, desc="folder of unpacked copies, as of `opened`")
    output_dir = Directory(mandatory=True)


class _AssessQualityOutput(TraitedSpec):
    record = File(exists=True)


class AssessQuality(SimpleInterface):
    """Write confounds, quality measures, figures, and the record of the preprocessing."""

    input_spec = _AssessQualityInput
    output_spec = _AssessQualityOutput

    def _run_interface(self, runtime: Any) -> Any:
        inputs, folder = self.inputs, Path(self.inputs.output_dir)
        image = InputImage.from_dict(inputs.image)
        acquisition = acquisition_of(inputs)
        data, affine = read_mapped(inputs.in_file, len(acquisition), inputs.scratch)
        mask = read_volume(inputs.mask)[0] > 0
        told = [json.loads(Path(path).read_text()) for path in (inputs.facts if isdefined(inputs.facts) else ())]
        found_by = {facts["step"]: facts for facts in told}
        stages = {
            name: read_mapped(facts["out_file"], len(acquisition))[0]
            for name, facts in found_by.items()
            if "out_file" in facts
        }
        motion, radius = None, min(RADIUS, extent(mask, affine) / 2)
        if isdefined(inputs.transforms):
            centre = affine @ [*np.argwhere(mask).mean(axis=0), 1]
            motion = motion_parameters(np.load(inputs.transforms), centre[:3])
        directions = acquisition.directions
        found = quality.assess(
            data,
            acquisition.b_values,
            mask,
            directions=directions,
            motion=motion,
            radius=radius,
            no_motion=found_by.get("motion", {}).get("refused") or "volumes were not aligned here",
            sigma=read_volume(inputs.noise_map)[0] if isdefined(inputs.noise_map) else None,
            outliers=quality.volume_outliers(
                next(iter(stages.values()), data),
                acquisition.b_values,
                mask,
                directions=directions,
                slice_axis=inputs.slice_axis,
            ),
            slice_axis=inputs.slice_axis,
        )
        refuse(conflicts_of_image(folder, image, {}))  # another run may have come first with another image
        paths, left_out = quality_figure_paths(folder, image), [dict(row) for row in inputs.left_out]
        figures = [
            *draw_steps(paths, data, stages, found_by, acquisition, mask, affine),
            *draw_quality(paths, data, acquisition, mask, affine, found, left_out),
        ]
        given = np.array(numbers_of_others(len(acquisition), left_out))
        columns = {"volume": given, **found.columns}
        write_confounds(folder / file_output("confounds", image), columns, left_out)
        outliers = {"outlier_indices": given[found.numbers["outlier_indices"]].tolist()}
        numbers = {**found.numbers, **outliers, "n_left_out": len(left_out), FIELD: left_out}
        write_quality(folder / file_output("quality", image), numbers)
        steps = [described(row, found_by.get(row["name"], {})) for row in inputs.steps]
        record = PreprocessingRecord(
            image=image.title,
            source=inputs.source,
            output=image.uri.removeprefix("bids::") if image.uri.startswith("bids::") else "",
            steps=steps,
            quality=numbers,
            figures=relative(paths, figures, inputs.output_dir),
            warnings=[
                *(f"{row['title']}: left out, {row['refused']}" for row in steps if row["refused"]),
                *(words for facts in told for words in facts.get("warnings", [])),
            ],
            methods=[
                *([methods_sentence(image.title, given.size + len(left_out), left_out)] if left_out else []),
                *(
                    found_by.get(row["name"], {}).get("methods") or inputs.methods[row["name"]]
                    for row in steps
                    if row["applied"] or "methods" in found_by.get(row["name"], {})
                ),
            ],
        )
        write_record(record, paths["record"])
        self._results["record"] = str(paths["record"])
        return runtime


class _RecordStepsInput(BaseInterfaceInputSpec):
    image = traits.Dict(mandatory=True, desc="as InputImage.to_dict")
    methods = traits.List(traits.Str, desc="sentences of the methods text")
    steps = traits.List(traits.Dict, mandatory=True, desc="rows: name, title, method, applied, reason")
    output_dir = Directory(mandatory=True)


class RecordSteps(SimpleInterface):
    """Write the record of the preprocessing of an image that has none: why the steps are left out."""

    input_spec = _RecordStepsInput
    output_spec = _AssessQualityOutput

    def _run_interface(self, runtime: Any) -> Any:
        image = InputImage.from_dict(self.inputs.image)
        path = quality_record_path(Path(self.inputs.output_dir), image)
        rows = [described(row, {}) for row in self.inputs.steps]
        methods = list(self.inputs.methods)
        write_record(PreprocessingRecord(image=image.title, source=image.uri, steps=rows, methods=methods), path)
        self._results["record"] = str(path)
        return runtime


def draw_steps(
    paths: Mapping[str, Path],
    data: NDArray,
    stages: Mapping[str, NDArray],
    found_by: Mapping[str, Mapping[str, Any]],
    acquisition: Acquisition,
    mask: NDArray,
    affine: NDArray,
) -> list[str]:
    """Draw the effect of each step; return the steps that were drawn.

    Parameters
    ----------
    data : ndarray, shape (x, y, z, n)
        The fitted image.
    stages : mapping of step to ndarray, shape (x, y, z, n)
        The raw image, and the image after each step that changes it, in order.
    mask : ndarray of bool, shape (x, y, z)
    affine : ndarray, shape (4, 4)
    """
    done, before = [], data
    for name, facts in found_by.items():
        after = stages.get(name, before)
        if name in paths:
            pictures = read_volume(facts["pictures"])[0] if "pictures" in facts else None
            with whole_file(paths[name]) as path:
                if STEPS.get(name).draw(path, StepView(before, after, pictures, acquisition, mask, affine)):
                    done.append(name)
        before = after
    return done


def described(row: Mapping[str, Any], found: Mapping[str, Any]) -> dict[str, Any]:
    """The row of a step, with its findings."""
    refused = found.get("refused") or ""
    said = [row["reason"], found.get("words") or found.get("method") or "", refused]
    return {
        **row,
        "applied": row["applied"] and not refused,
        "reason": "; ".join(filter(None, said)),
        "refused": refused,
        "seconds": found.get("seconds"),
    }


def draw_quality(
    paths: Mapping[str, Path],
    data: NDArray,
    acquisition: Acquisition,
    mask: NDArray,
    affine: NDArray,
    found: quality.Quality,
    left_out: Sequence[Mapping[str, Any]] = (),
) -> list[str]:
    """Draw the figures of quality; return those that were drawn.

    Volumes are numbered as in the original image; those left out have gaps.
    """
    outliers = found.outliers
    n = found.b_values.size + len(left_out)
    kept, gone = without(range(n), left_out), left_out_numbers(left_out)

    def spread(values: NDArray) -> NDArray:
        """Values of the volumes (last axis) at their original places."""
        placed = np.full((*values.shape[:-1], n), np.nan)
        placed[..., kept] = values
        return placed

    b_values = spread(found.b_values)
    b_values[gone] = [row["BValue"] for row in left_out]
    is_outlier = spread(outliers.is_outlier) == 1
    done = []
    if np.isfinite(found.snr).any():
        done.append("snr")
        with whole_file(paths["snr"]) as path:
            shells = found.shells
            drawn.plot_snr(path, [s.b_value for s in shells], found.snr, [s.indices.size for s in shells])
    carpet = quality.carpet(data, found.b_values, mask, n=CARPET_ROWS)
    if np.isfinite(carpet.values).any():
        done.append("carpet")
        with whole_file(paths["carpet"]) as path:
            drawn.plot_carpet(
                path, spread(carpet.values), carpet.labels, b_values, is_outlier=is_outlier, left_out=gone
            )
    if found.motion is not None and np.any(found.motion):  # flat lines show nothing
        done.append("traces")
        with whole_file(paths["traces"]) as path:
            drawn.plot_motion(
                path,
                b_values,
                spread(found.motion.T).T,
                spread(found.framewise_displacement),
                std_dvars=spread(outliers.std_dvars),
                is_outlier=is_outlier,
                left_out=gone,
            )
    if np.isfinite(outliers.slice_z).any():
        done.append("outliers")
        with whole_file(paths["outliers"]) as path:
            drawn.plot_outliers(
                path,
                spread(outliers.slice_z),
                spread(outliers.std_dvars),
                b_values,
                is_outlier=is_outlier,
                left_out=gone,
            )
    if len(found.shells) > 1:
        done.append("registration")
        lowest, highest = found.shells[0], found.shells[-1]
        with whole_file(paths["registration"]) as path:
            drawn.plot_registration(
                path,
                {f"b = {shell.b_value:.0f}": np.mean(data[..., shell.indices], axis=-1) for shell in (lowest, highest)},
                mask,
                affine,
            )
    return done


def read_mapped(path: str, n_volumes: int, scratch: str = "") -> tuple[NDArray, NDArray]:
    """Volumes of an image, shape (x, y, z, n), mapped from disk if uncompressed; and its affine."""
    image = opened(Path(path), scratch)
    shape = image_shape(image, n_volumes, Path(path))
    return read_data(image, Path(path), np.float32).reshape(shape, order="F"), np.asarray(image.affine)
