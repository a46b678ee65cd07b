"""Tables of regions: of every fit of an image, by the segmentations of --atlas."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bidsfit.bids.fitted import FittedImage, find_fitted, read_facts
from bidsfit.bids.images import open_image, read_data
from bidsfit.bids.metadata import read_sidecar
from bidsfit.bids.outputs import json_path, on_grid_of, own_uri, region_output
from bidsfit.bids.segmentations import Segmentation, resample, write_segmentation
from bidsfit.bids.tables import GENERATED_BY
from bidsfit.bids.units import REPORT_UNITS
from bidsfit.cohort.region_table import write_region_table
from bidsfit.cohort.region_values import RegionPlaces, RegionValues, fit_values, reported_of
from bidsfit.estimators.estimator import Status
from bidsfit.exceptions import UnusableInputError
from bidsfit.models.parameter import ModelQuantity
from bidsfit.planning.plan import ImagePlan, ParticipantPlan
from bidsfit.reports.records import ErrorRecord, RegionsRecord, write_record

#: Rows of a table in a report, at most: the largest regions.
MOST_ROWS = 40


def write_region_tables(plan: ParticipantPlan, output_dir: Path) -> Iterator[ErrorRecord]:
    """Write the tables of a participant, and what the report shows of them; yield what could not be made."""
    for image in plan.images:
        for segmentation in image.segmentations:
            try:
                fits = [one for one in find_fitted(output_dir, [plan.label], None) if one.image == image.image.name]
                if fits:
                    _write(image, segmentation, fits, output_dir)
            except UnusableInputError as error:
                yield ErrorRecord("A table of regions was left out", str(error))


def _write(plan: ImagePlan, segmentation: Segmentation, fits: list[FittedImage], output_dir: Path) -> None:
    """Write one segmentation on the grid of an image, a table of every fit, and their record, if they are not there."""
    image, own = plan.image, segmentation.words
    target = output_dir / region_output("dseg", image, own)
    tables = [output_dir / region_output("table", image, own, model=one.model, estimator=one.estimator) for one in fits]
    record_path = (
        output_dir / f"sub-{image.participant}" / "figures" / target.name.replace("dseg.nii.gz", "record.json")
    )
    about = {"Sources": [segmentation.uri, image.uri], "GeneratedBy": GENERATED_BY}
    if _is_current([target, *tables, record_path], [segmentation.path, *(one.status for one in fits)], about):
        return
    like = open_image(fits[0].status)
    inside = read_data(like, fits[0].status) != Status.NOT_FITTED
    labels, names = resample(segmentation, like)
    if not labels[inside].any():
        raise UnusableInputError(
            f"{segmentation.path} cannot tell the regions of {image.path.name}: none of its regions holds a voxel of "
            "the mask that was fitted. Is it a segmentation of another image, or in another space?"
        )
    write_segmentation(target, labels, names, like, about | on_grid_of(image.uri))
    flat = labels.ravel(order="F")
    places = {str(index): np.flatnonzero(flat == index) for index in names}
    record = RegionsRecord(image.title, segmentation.words, segmentation.uri)
    for fitted, table in zip(fits, tables, strict=True):
        made, status = read_facts(fitted), open_image(fitted.status)
        regions = RegionPlaces(status, places, {}, whole=False, remarks=())
        reported = reported_of(fitted.model)
        own_names = {label: one.name for label, one in reported.items()}
        values = list(fit_values(fitted, made, status, regions, own_names, errors=True))
        facts = {"Estimator": made.estimator, "EstimationAlgorithm": made.title, "GeneratedBy": GENERATED_BY}
        sources = {"Sources": [own_uri(path.relative_to(output_dir)) for path in (target, fitted.status)]}
        write_region_table(table, values, names, reported, sources | facts | on_grid_of(image.uri))
        place = {"model": fitted.model, "estimator": made.estimator, "path": str(table.relative_to(output_dir))}
        record.fits.append(place | _shown(values, names, reported))
    write_record(record, record_path)


def _is_current(made: Sequence[Path], of: Sequence[Path], about: Mapping[str, Any]) -> bool:
    """Whether files are newer than what they are made of; ``about``: what the sidecar of the first must say."""
    try:
        newest = max(path.stat().st_mtime_ns for path in of)
        told = read_sidecar(json_path(made[0]))
        return all(path.stat().st_mtime_ns >= newest for path in made) and about.items() <= told.items()
    except (OSError, UnusableInputError):
        return False


def _shown(
    values: Sequence[RegionValues], names: Mapping[int, str], reported: Mapping[str, ModelQuantity]
) -> dict[str, Any]:
    """Parameters and rows of the largest regions for the report, in its units."""
    units = {value.parameter: value.unit for value in values}
    first = [value for value in values if value.parameter == next(iter(units))]
    largest = {value.region for value in sorted(first, key=lambda value: -value.n_voxels)[:MOST_ROWS]}
    return {
        "parameters": [
            {"latex": reported[label].latex if label in reported else label, "unit": REPORT_UNITS[unit].name}
            for label, unit in units.items()
        ],
        "rows": [
            {
                "name": names[int(one.region)],
                "n_voxels": one.n_voxels,
                "missing": 1 - one.n_fitted / one.n_voxels if one.n_voxels else math.nan,
                "flagged": one.flagged,
                "values": [[v.mean, v.sd, v.standard_error] for v in values if v.region == one.region],
            }
            for one in first
            if one.region in largest
        ],
        "n_regions": len(first),
    }
