"""Values of fitted maps in regions: one row per participant, session, image, fit, region and parameter."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import numpy as np
from nibabel.spatialimages import SpatialImage
from numpy.typing import NDArray

from bidsfit import models
from bidsfit.bids.fitted import FitFacts, FittedImage, read_facts, series_of
from bidsfit.bids.images import open_image, read_data, same_grid
from bidsfit.bids.inputs import Folder, InputProblem
from bidsfit.bids.metadata import read_sidecar
from bidsfit.bids.regions import CONDITIONS, WHOLE, RegionFile, find_regions, region_files
from bidsfit.bids.units import FILE_UNITS
from bidsfit.estimators.estimator import FITTED, Status
from bidsfit.exceptions import UnknownNameError, UnusableInputError
from bidsfit.models.parameter import ModelQuantity
from bidsfit.parallel import Progress, in_processes

#: Voxels whose estimates count. Those at a bound do: they say that the value is as low, or as high, as it may be, and
#: without them a median would be that of the others. So do those where a parameter is not determined: the others are,
#: and f would be overestimated if voxels with little blood did not count.
USED = tuple(status for status in FITTED if status is not Status.ITERATION_LIMIT)

#: Quantiles over the voxels of a region, by column.
QUANTILES = {"q05": 0.05, "q25": 0.25, "median": 0.5, "q75": 0.75, "q95": 0.95}

#: What simulation tells of the errors in a region: columns, and the statistics whose maps they are taken from.
EXPECTED = {"response": "response", "expected_bias": "bias"}

#: Statistics whose map is the standard deviation of an estimate: as the estimator states it, else as simulation does.
SPREADS = ("sd", "expectedsd")

#: Voxels whose ranks are correlated, at most: evenly spaced ones where a region has more, because sorting takes long.
MOST_RANKED = 10_000

#: How near a bound a value of single precision is at it, as a share of the bounds' distance.
AT_BOUND = 1e-5

#: Unit of a map of which only the change within an image says something.
ARBITRARY, ANGLE = "arbitrary", "rad"

#: Units of the numerics, and what values of files are divided by, by unit of files.
NUMERICS = {unit.name: (name, unit.factor) for name, unit in FILE_UNITS.items()}


@dataclass(frozen=True, slots=True)
class RegionValues:
    """Values of one parameter of one fit in one region.

    Values are in internal units (``unit``); NaN if missing.

    Attributes
    ----------
    participant, session : str
        Labels without prefix; the session may be empty.
    image : str
        Entities of the image (sub-01_ses-1_acq-ap).
    model, estimator : str
        Names ("net-uniform", not the label in file names).
    n_voxels : int
        Voxels in the region.
    n_fitted : int
        Of those, voxels with a valid estimate (`USED`).
    n_used : int
        Of those, voxels that are summarised: fewer if the parameter has a condition (`CONDITIONS`).
    n_at_bound : int
        Of those, voxels with this parameter at a bound.
    n_prior_only, n_unlike_training, n_undetermined : int
        Of those, voxels with these statuses: drawn towards a prior, or with some parameter that is not determined.
    median, mean, sd, q05, q25, q75, q95 : float
        Over the used voxels; the standard deviation with n - 1.
    correlation : float
        Spearman's, over the used voxels (at most `MOST_RANKED`), with the parameter of the condition.
    source : str
        BIDS URI of the region file; empty for `WHOLE`.
    in_training : bool
        Whether the estimator was trained on fits of this participant.
    response, expected_bias : float
        Medians over the used voxels of the change of the mean estimate per true change, and of the expected bias, both
        by simulation of the estimator; NaN without such maps.
    flagged, standard_error, mean_bias, mean_response : float
        Share of the used voxels with a flag; standard deviation of the mean, from those of the voxels, whose errors are
        taken for independent; means of bias and response. NaN without such maps, or where they were not asked for.
    """

    participant: str
    session: str
    image: str
    model: str
    estimator: str
    region: str
    parameter: str
    unit: str
    n_voxels: int
    n_fitted: int
    n_used: int
    n_at_bound: int
    n_prior_only: int
    n_unlike_training: int
    n_undetermined: int
    median: float
    mean: float
    sd: float
    q05: float
    q25: float
    q75: float
    q95: float
    correlation: float
    source: str
    in_training: bool
    response: float = math.nan
    expected_bias: float = math.nan
    flagged: float = math.nan
    standard_error: float = math.nan
    mean_bias: float = math.nan
    mean_response: float = math.nan

    @property
    def series(self) -> str:
        """Entities of the image besides participant and session; rows that share them are comparable."""
        return series_of(self.image)


@dataclass(frozen=True)
class ParticipantValues:
    """Region values of one participant.

    Attributes
    ----------
    participant : str
        Label without ``sub-``.
    problems : tuple of InputProblem
        What could not be read or found; worded to hold for other participants too where possible.
    facts : tuple of (FittedImage, FitFacts)
        How each fit was made.
    """

    participant: str
    rows: tuple[RegionValues, ...]
    problems: tuple[InputProblem, ...]
    facts: tuple[tuple[FittedImage, FitFacts], ...]


def region_values(
    fits: Iterable[FittedImage],
    datasets: Sequence[Folder] = (),
    *,
    wanted: Sequence[str] = (),
    scale: bool = False,
    processes: int = 1,
    progress: Progress | None = None,
) -> Iterator[ParticipantValues]:
    """Read the values of fits in regions, one participant at a time, sorted by label.

    Every map is read once; at most one map of a fit, and that of the condition, are in memory.

    Parameters
    ----------
    fits : iterable of FittedImage
        As of `find_fitted`.
    datasets : sequence of Folder
        Datasets to search for regions, in this order.
    wanted : sequence of str
        Names of regions; empty means all, and `WHOLE`.
    scale : bool
        Include maps in arbitrary units (S0).
    """
    ordered = sorted(fits, key=lambda fitted: (fitted.participant, fitted.image, fitted.model, fitted.estimator))
    people = [list(group) for _, group in groupby(ordered, key=lambda fitted: fitted.participant)]
    names = {
        model: {label: quantity.name for label, quantity in reported_of(model).items()}
        for model in sorted({fitted.model for fitted in ordered})
    }
    jobs = ((own, datasets, names, tuple(wanted), scale) for own in people)
    yield from in_processes(participant_values, jobs, len(people), processes, progress)


def participant_values(
    fits: Sequence[FittedImage],
    datasets: Sequence[Folder],
    names: Mapping[str, Mapping[str, str]],
    wanted: Sequence[str] = (),
    scale: bool = False,
) -> ParticipantValues:
    """Values of the fits of one participant, see `region_values`; ``names``: parameter names by label, by model."""
    participant = fits[0].participant
    files = region_files(datasets, participant)
    rows: list[RegionValues] = []
    facts: list[tuple[FittedImage, FitFacts]] = []
    said: list[str] = []
    for image, group in groupby(fits, key=lambda fitted: fitted.image):
        regions = None
        for fitted in group:
            try:
                status = open_image(fitted.status)
                if regions is None or not _like(status, regions.like):
                    regions = RegionPlaces.of(files, image, status, wanted)
                    said += regions.remarks
                made = read_facts(fitted)
                rows += list(
                    fit_values(fitted, made, status, regions, names.get(fitted.model, {}), scale)
                )  # all of a fit, or nothing
                facts.append((fitted, made))
                said += [
                    f"{fitted.model}, {made.estimator}: there is no map of {other}, so that {label} is taken from all "
                    f"voxels, not from those where {other} is {least:g} or more"
                    for label, (other, least) in CONDITIONS.items()
                    if label in fitted.labels and other not in fitted.labels
                ]
            except UnusableInputError as error:
                said.append(str(error))
    problems = tuple(InputProblem(participant, words) for words in dict.fromkeys(said))
    return ParticipantValues(participant, tuple(rows), problems, tuple(facts))


class RegionPlaces(NamedTuple):
    """Regions of an image as flat voxel indices (Fortran order)."""

    like: SpatialImage
    places: dict[str, NDArray[np.intp]]
    sources: dict[str, str]
    whole: bool
    remarks: tuple[str, ...]

    @classmethod
    def of(cls, files: Sequence[RegionFile], image: str, like: SpatialImage, wanted: Sequence[str]) -> RegionPlaces:
        whole = not wanted or WHOLE in {name.lower() for name in wanted}
        found = find_regions(files, image, like, wanted)
        places = {name: np.flatnonzero(mask.ravel(order="F")) for name, mask in found.masks.items() if name != WHOLE}
        return cls(like, places, found.sources, whole, found.remarks)


def _like(first: SpatialImage, second: SpatialImage) -> bool:
    """Whether two images have the same grid."""
    return first.shape == second.shape and same_grid(first, second, first.shape)


def _read(path: Path, like: SpatialImage) -> NDArray:
    """Stored values of a map in Fortran order."""
    image = open_image(path)
    if not _like(image, like):
        raise UnusableInputError(f"{path} lies on another grid than the status map beside it. Run the image again.")
    return read_data(image, path).reshape(-1, order="F")


class _Part(NamedTuple):
    """The voxels of a region that are summarised."""

    region: str
    n_voxels: int
    places: NDArray[np.intp]
    status: NDArray[np.uint8]


def fit_values(
    fitted: FittedImage,
    made: FitFacts,
    like: SpatialImage,
    regions: RegionPlaces,
    names: Mapping[str, str],
    scale: bool = False,
    errors: bool = False,
) -> Iterator[RegionValues]:
    """Values of one fit: all regions of a parameter, then those of the next.

    Parameters
    ----------
    like : SpatialImage
        The status map.
    names : mapping of str to str
        Names of the parameters by label; empty for an unknown model.
    scale : bool
        Include maps in arbitrary units (S0).
    errors : bool
        Read the maps of standard deviations and flags, too: for the fields that tell of the error of the mean.

    Raises
    ------
    UnusableInputError
        If a map cannot be read, lies on another grid, or has no unit that is known.
    """
    status = read_data(like, fitted.status).reshape(-1, order="F").astype(np.uint8, copy=False)
    codes_used = np.zeros(256, dtype=bool)
    codes_used[list(USED)] = True
    counts = codes_used[status]
    places = dict(regions.places)
    if regions.whole:
        places = {WHOLE: np.flatnonzero(status != Status.NOT_FITTED), **places}
    parts = []
    for name, where in places.items():
        good = where[counts[where]]
        parts.append(_Part(name, where.size, good, status[good]))
    flags = _statistic(fitted.parameter("flags"), like) if errors else None
    needed = {condition.label for label, condition in CONDITIONS.items() if label in fitted.labels}
    kept: dict[str, NDArray] = {}
    for label in sorted(fitted.labels, key=lambda label: label not in needed):
        if names and label not in names:
            continue  # auxiliary: of use for what is derived from it
        path = fitted.parameter(label)
        content = read_sidecar(path.with_name(path.name.removesuffix(".nii.gz") + ".json"))
        if content.get("Units") not in NUMERICS:
            raise UnusableInputError(
                f"{path} has the unit {content.get('Units')!r} in its sidecar; expected one of {', '.join(NUMERICS)}."
            )
        unit, factor = NUMERICS[content["Units"]]
        if unit == ANGLE or "OrientationEncoding" in content or (unit == ARBITRARY and not scale):
            continue  # angles and axes have no mean
        volume = _read(path, like)
        if label in needed:
            kept[label] = volume
        condition = CONDITIONS.get(label)
        other = None if condition is None else kept.get(condition.label)
        low, high = made.bounds.get(names.get(label, label), (-math.inf, math.inf))
        simulated = {name: _statistic(fitted.statistic(label, key), like) for name, key in EXPECTED.items()}
        if errors:
            spreads = (_statistic(fitted.statistic(label, key), like) for key in SPREADS)
            simulated |= {"sd": next((found for found in spreads if found is not None), None), "flags": flags}
        margin = AT_BOUND * (high - low) if math.isfinite(high - low) else 0.0
        for part in parts:
            values, codes = volume[part.places], part.status
            used = np.isfinite(values)
            expected = {name: found[part.places] for name, found in simulated.items() if found is not None}
            second = None
            if condition is not None and other is not None:
                second = other[part.places]
                used &= second >= condition.least
                second = second[used]
            if not used.all():
                values, codes = values[used], codes[used]
                expected = {name: found[used] for name, found in expected.items()}
            at_bound = np.isin(codes, (Status.AT_BOUND, Status.OUTSIDE_BOUNDS)) & (
                (values <= low + margin) | (values >= high - margin)
            )
            yield RegionValues(
                participant=fitted.participant,
                session=fitted.session,
                image=fitted.image,
                model=fitted.model,
                estimator=made.estimator,
                region=part.region,
                parameter=label,
                unit=unit,
                n_voxels=part.n_voxels,
                n_fitted=part.places.size,
                n_used=values.size,
                n_at_bound=int(np.count_nonzero(at_bound)),
                n_prior_only=int(np.count_nonzero(codes == Status.PRIOR_ONLY)),
                n_unlike_training=int(np.count_nonzero(codes == Status.UNLIKE_TRAINING)),
                n_undetermined=int(np.count_nonzero(codes == Status.UNDETERMINED)),
                **_summary(values, 1 / factor),
                correlation=math.nan if second is None else _rank_correlation(values, second),
                source=regions.sources.get(part.region, ""),
                in_training=made.training is not None and made.training.holds(fitted.participant),
                **{
                    name: _median(expected[name]) / (factor if name == "expected_bias" else 1)
                    for name in EXPECTED.keys() & expected.keys()
                },
                **(_errors(expected, factor, (high - low) / 2) if errors else {}),
            )


def _errors(expected: Mapping[str, NDArray], factor: float, widest: float) -> dict[str, float]:
    """What is known of the error of a mean, from the values of the voxels that it is taken over.

    ``widest`` is the largest standard deviation that an estimate between bounds can have, half of their distance
    (Popoviciu's inequality): it stands for an infinite one, of a voxel whose data do not determine the parameter.
    """
    found = {}
    if (sd := expected.get("sd")) is not None and sd.size:
        known = np.minimum(sd[~np.isnan(sd)], widest, dtype=float)
        found["standard_error"] = float(np.sqrt(np.mean(known**2) / sd.size)) / factor if known.size else math.nan
    if (flags := expected.get("flags")) is not None and flags.size:
        found["flagged"] = float(np.mean(flags > 0))
    for name, key, unit in (("mean_bias", "expected_bias", factor), ("mean_response", "response", 1.0)):
        if key in expected:
            values = expected[key][np.isfinite(expected[key])]
            found[name] = float(values.mean(dtype=float)) / unit if values.size else math.nan
    return found


def _statistic(path: Path, like: SpatialImage) -> NDArray | None:
    """Stored values of the map of a statistic; None if there is none, as of earlier versions and with --trust off."""
    return _read(path, like) if path.exists() else None


def _median(values: NDArray) -> float:
    """Median of the finite values; NaN if there is none."""
    known = values[np.isfinite(values)]
    return float(np.median(known)) if known.size else math.nan


def reported_of(model: str) -> dict[str, ModelQuantity]:
    """Quantities of a model that tables are about, by label; empty for a model of a package that is not there."""
    try:
        return {quantity.label: quantity for quantity in models.get(model).reported}
    except UnknownNameError:
        return {}


def _summary(values: NDArray, scale: float) -> dict[str, float]:
    """Summary statistics of the values of a region, times a scale."""
    if values.size == 0:
        return dict.fromkeys((*QUANTILES, "mean", "sd"), math.nan)
    quantiles = np.quantile(values, list(QUANTILES.values()))
    sd = float(values.std(ddof=1, dtype=float)) * scale if values.size > 1 else math.nan
    return {
        **{name: float(value) * scale for name, value in zip(QUANTILES, quantiles, strict=True)},
        "mean": float(values.mean(dtype=float)) * scale,
        "sd": sd,
    }


def _rank_correlation(first: NDArray, second: NDArray) -> float:
    """Spearman's correlation; NaN for too few values or a constant."""
    from scipy.stats import spearmanr

    step = max(-(-first.size // MOST_RANKED), 1)
    first, second = first[::step], second[::step]
    if first.size < 3 or np.ptp(first) == 0 or np.ptp(second) == 0:
        return math.nan
    return float(spearmanr(first, second).statistic)


def grouped(problems: Iterable[InputProblem], most: int = 6) -> list[str]:
    """Problems as sentences, merged over participants with the same problem."""
    people: dict[str, list[str]] = {}
    for problem in problems:
        people.setdefault(problem.message, []).append(f"sub-{problem.participant}")
    sentences = []
    for words, who in people.items():
        more = f" and {len(who) - most} more" if len(who) > most else ""
        sentences.append(f"{', '.join(who[:most])}{more}: {words}")
    return sentences
