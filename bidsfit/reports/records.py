"""Records of which a report is made: the workflow writes them as JSON, and the report reads them.

They contain results in the units of reports (diffusivities in 10^-3 mm^2/s).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, get_args

from bidsfit import __version__
from bidsfit.exceptions import UnusableInputError
from bidsfit.files import write_json


@dataclass
class ImageRecord:
    """One image of a participant.

    ``shells`` rows, of a diffusion image: b_value (s/mm^2), n_measurements, n_directions.
    ``protocol``, of a series: its measurements in words.
    ``noise``: sigma, snr, method (a sentence); empty if the noise could not be estimated.
    ``intensities``: n_negative and n_not_finite, counted over the voxels of the mask in all volumes.
    ``models`` rows: name, title, fitted (bool), reason (a sentence).
    ``figures``: kind to path relative to the report's folder. Kinds: shells, mask.
    ``voxels``: path of the signals of its voxels (see `bidsfit.reports.voxels`), relative like those of figures.
    ``left_out`` rows, of volumes that are not diffusion images of their b-value: Volume (from 0), BValue, Reason.
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
    voxels: str = ""
    left_out: list[dict[str, Any]] = field(default_factory=list)
    protocol: str = ""


@dataclass
class FitRecord:
    """One fit of a model to an image by an estimator.

    ``parameters`` rows: name, latex, unit (as printed), description, median, p5, p95, fraction_at_bound, and if
    known sd (median standard deviation), crb (median Cramér-Rao bound), undetermined (fraction of voxels
    where it is infinite) and bias (median magnitude).
    ``status`` rows: code, name, count, fraction (of the mask), message (what happened and what to do).
    ``options``: all settings (bounds, averaging, ...) as strings.
    ``figures``: kinds directions, maps, uncertainty, bias and flags (where the errors were simulated), histograms,
    curves, quality (residual, R2 and status maps), and thumbnails (`thumbnail_of`).
    ``maps`` rows, of the written maps: path (relative to the output folder), key, parameter (empty for the fit as a
    whole), statistic (key of the companion, or empty), title, unit, factor (from files to reports), limits and colours
    (as it is shown), and of an axis frame (that of its components; else empty) and weight (key of its weight).
    ``methods``: methods texts of the model and the estimator.
    ``source``: URI of the fitted image.
    ``training``, for trained estimators: distribution (in words), participants, snr (None without noise), noise, images
    (in words, that it took voxels of), measured (whether their signals trained it), recipe (in words), seconds, device,
    converged, file.
    ``trust``, where the errors of the estimator were simulated: sentences, flags (rows: name, share, message),
    parameters (rows of `bidsfit.trust.summary.ParameterTrust` with latex, unit, median and surroundings: such rows with
    place, of an estimator that reads neighbours), snr, truths (number simulated), others (parameters that the figure of
    the bias keeps at their medians).
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
    maps: list[dict[str, Any]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    methods: list[str] = field(default_factory=list)
    training: dict[str, Any] = field(default_factory=dict)
    trust: dict[str, Any] = field(default_factory=dict)
    source: str = ""


@dataclass
class ComparisonRecord:
    """Comparison of estimators: fits of one model to one image, all compared with the first.

    ``estimators`` rows: name, title, n_voxels, n_fitted, seconds.
    ``parameters`` (without the scale of the signal) rows: name, latex, unit, description, figure (path, or empty), and
    ``rows``, one for each estimator: estimator, median, p5, p95, fraction_at_bound, sd, crb, undetermined, and except
    for the first difference and absolute_difference (medians), correlation (with the first) and exceeds_floor; and
    disagreement with the ``reference`` (median, in Cramér-Rao bounds; None of the reference itself).
    ``trust``, where the errors were simulated: sentences (what to take, and why), and parameters: name, latex, unit,
    rows (of `bidsfit.trust.summary.ParameterTrust` with estimator), that of the least expected error first.
    ``correlations`` rows, one for each pair of parameters: latex (of the two), and ``values``, one for each estimator.
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
    reference: str = ""
    trust: dict[str, Any] = field(default_factory=dict)


@dataclass
class PreprocessingRecord:
    """Preprocessing of one image, and its quality.

    ``image``: as in its `ImageRecord`. ``source`` and ``output``: URI of the raw image, and path of the preprocessed
    one relative to the output folder (empty if none was written). ``steps`` rows, in order: name, title, method (in
    words), applied (bool), reason (why it was skipped, or what was done, with numbers), refused (why a planned step was
    not applied after all; else empty), seconds (None if skipped), and figures (kinds shown below the title; by default
    the kind of the step's name). Empty for an image that was already preprocessed. ``quality``: the numbers of
    `bidsfit.preprocessing.quality.Quality`. ``figures``: kind to path relative to the report's folder; those that
    belong to no step are shown with the quality. ``methods``: sentences with citations ``[@key]``.
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
class RegionsRecord:
    """Tables of the regions of an image by one segmentation.

    ``segmentation``: its entities in names of files; ``source``: its URI. ``fits`` rows: model, estimator, path (of the
    table, relative to the output folder), parameters (rows: latex, unit), n_regions, and rows, of the largest regions:
    name, n_voxels, missing and flagged (shares), and values, one for each parameter: mean, standard deviation over the
    voxels, standard error.
    """

    image: str
    segmentation: str
    source: str
    fits: list[dict[str, Any]] = field(default_factory=list)


@dataclass
class ErrorRecord:
    """An error: something was skipped or failed.

    ``message`` says what is wrong with which file and what to do. ``crash_file`` and ``traceback`` may be empty.
    """

    title: str
    message: str
    crash_file: str = ""
    traceback: str = ""


Record = ImageRecord | PreprocessingRecord | FitRecord | ComparisonRecord | RegionsRecord | ErrorRecord


def thumbnail_of(parameter: str) -> str:
    """Kind of the figure that is the thumbnail of a parameter."""
    return f"thumbnail-{parameter}"


def write_record(record: Record, path: Path) -> None:
    """Write a record as JSON with its class as ``record``; the file is replaced only when complete."""
    write_json(path, {"record": type(record).__name__, **asdict(record)}, allow_nan=True)


def is_drawn(record: Path, folder: Path) -> bool:
    """Whether a record can be read, and all its figures exist below ``folder``."""
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
        If the file is not such a record.
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


def read_records(folder: Path, participant: str = "*") -> Iterator[Record]:
    """All records in an output folder, or those of one participant (label without ``sub-``), sorted by path.

    They are read one by one, as there may be many. A record that another run removes meanwhile is left out.
    """
    for path in sorted(folder.glob(f"sub-{participant}/figures/*_record.json")):
        with suppress(FileNotFoundError):
            yield read_record(path)
