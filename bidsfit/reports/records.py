"""What a report is made of: plain records that the workflow writes as JSON and the report reads.

The numbers are computed elsewhere; a record only carries them, in the units of reports
(diffusivities in 10^-3 mm^2/s).
"""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, get_args

from bidsfit import __version__
from bidsfit.exceptions import UnusableInputError
from bidsfit.files import write_json


@dataclass
class ImageRecord:
    """One image that was read.

    ``shells`` rows: b_value (s/mm^2), n_measurements, n_directions.
    ``noise``: sigma, snr, method (a sentence), or empty where the noise could not be estimated.
    ``intensities``: n_negative and n_not_finite, counted over voxels of the mask and volumes.
    ``models`` rows: name, title, fitted (bool), reason (a sentence).
    ``figures``: kind to path relative to the report's folder. Kinds: shells, mask.
    ``left_out`` rows, of volumes that are no diffusion images of their b-value: Volume (from 0), BValue, Reason.
    """

    name: str
    source: str
    shape: list[int]
    voxel_size: list[float]
    mask_description: str
    n_voxels: int
    shells: list[dict[str, Any]]
    noise: dict[str, Any]
    intensities: dict[str, int]
    models: list[dict[str, Any]]
    figures: dict[str, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    left_out: list[dict[str, Any]] = field(default_factory=list)


@dataclass
class FitRecord:
    """One fit: an image, a model and an estimator.

    ``parameters`` rows: name, latex, unit (as printed), description, median, p5, p95, fraction_at_bound, and where
    they are known sd (median standard deviation), crb (median Cramér-Rao bound), undetermined (share of the voxels
    where it is infinite) and bias (median of its size).
    ``status`` rows: code, name, count, fraction (of the mask), message (what happened and what to do).
    ``options``: what was chosen or defaulted (bounds, averaging, ...), as strings.
    ``figures``: kinds training (of a trained estimator), maps, uncertainty, histograms, curves, quality (residual, R2
    and status maps).
    ``maps``: paths of the written maps relative to the output folder.
    ``methods``: texts for the methods section, about the model and about the estimator.
    ``source``: URI of the image that was fitted.
    ``training``, of a trained estimator: distribution (in words), participants, snr (None for no noise), noise, recipe
    (in words), seconds, device, converged, file, averaged_over (parameters over which its figure is a mean).
    """

    image: str
    model: str
    model_title: str
    model_description: str
    equation: str
    estimator: str
    estimator_title: str
    n_voxels: int
    seconds: float
    parameters: list[dict[str, Any]]
    status: list[dict[str, Any]]
    options: dict[str, str] = field(default_factory=dict)
    figures: dict[str, str] = field(default_factory=dict)
    maps: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    methods: list[str] = field(default_factory=list)
    training: dict[str, Any] = field(default_factory=dict)
    source: str = ""


@dataclass
class ComparisonRecord:
    """Estimators side by side: fits of one model to one image, the first of which the others are compared with.

    ``estimators`` rows: name, title, n_voxels, n_fitted, seconds.
    ``parameters`` (without the scale of the signal) rows: name, latex, unit, description, figure (path, or empty), and
    ``rows``, one for each estimator: estimator, median, p5, p95, fraction_at_bound, sd, crb, undetermined, and beyond
    the first difference and absolute_difference (medians), correlation (with the first) and exceeds_floor.
    ``correlations`` rows, one for each pair of parameters: latex (of the two), and ``values``, one an estimator.
    ``figures``: kind curves.
    """

    image: str
    model: str
    model_title: str
    estimators: list[dict[str, Any]]
    parameters: list[dict[str, Any]]
    correlations: list[dict[str, Any]] = field(default_factory=list)
    figures: dict[str, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)


@dataclass
class PreprocessingRecord:
    """How one image was prepared, and how good it is.

    ``image``: as in its `ImageRecord`. ``source`` and ``output``: URI of the raw image, and path of the prepared one
    relative to the output folder (empty where none was written).
    ``steps`` rows, in their order: name, title, method (in words), applied (bool), reason (why it was skipped, or what
    was done, with its numbers), refused (why it was left out although it was planned; empty where it was not), seconds
    (None where it was skipped), and figures (kinds shown beneath the step's title;
    the kind of its name where this is left out). An image that came prepared has none, but has its quality.
    ``quality``: numbers, as `bidsfit.preprocessing.quality.Quality` gives them.
    ``figures``: kind to path relative to the report's folder; those of no step are shown with the quality.
    ``methods``: sentences with citations ``[@key]``.
    """

    image: str
    source: str
    output: str = ""
    steps: list[dict[str, Any]] = field(default_factory=list)
    quality: dict[str, Any] = field(default_factory=dict)
    figures: dict[str, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    methods: list[str] = field(default_factory=list)


@dataclass
class ErrorRecord:
    """Something that went wrong: what was skipped or failed.

    ``message`` says what is wrong with which file and what to do; ``crash_file`` and ``traceback`` are empty
    where the message is all there is.
    """

    title: str
    message: str
    crash_file: str = ""
    traceback: str = ""


Record = ImageRecord | PreprocessingRecord | FitRecord | ComparisonRecord | ErrorRecord


def write_record(record: Record, path: Path) -> None:
    """Write a record as JSON, whole or not at all; its class is kept under the key ``record``."""
    write_json(path, {"record": type(record).__name__, **asdict(record)}, allow_nan=True)


def is_drawn(record: Path, folder: Path) -> bool:
    """Whether a record lies below a folder of outputs, with all the figures that it names."""
    try:
        figures = json.loads(record.read_text())["figures"]
    except (OSError, ValueError, KeyError):
        return False
    return all((folder / path).exists() for path in figures.values())


def read_record(path: Path) -> Record:
    """Read a record written by `write_record`.

    Raises
    ------
    UnusableInputError
        Where it is none.
    """
    kinds: dict[str, type[Record]] = {kind.__name__: kind for kind in get_args(Record)}
    try:
        values = json.loads(path.read_text())
        return kinds[values.pop("record")](**values)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UnusableInputError(
            f"{path} is no record that bidsfit {__version__} can read ({error}). Remove it: the next run of that "
            "participant writes it again."
        ) from error


def read_records(folder: Path, participant: str = "*") -> list[Record]:
    """Records that runs left of a participant (label without ``sub-``) in an output folder, or of all; sorted by path.

    One that another run moves away meanwhile is left out.
    """
    records = []
    for path in sorted(folder.glob(f"sub-{participant}/figures/*_record.json")):
        with suppress(FileNotFoundError):
            records.append(read_record(path))
    return records
