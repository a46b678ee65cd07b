"""Statistics of every parameter and region of a cohort, as records for its page and tables."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from bidsfit import estimators, models
from bidsfit.bids.regions import TISSUES, WHOLE
from bidsfit.bids.units import REPORT_UNITS
from bidsfit.cohort.comparison import (
    compare_calls,
    compare_precision,
    confoundings,
    narrow_words,
)
from bidsfit.cohort.design import Design
from bidsfit.cohort.statistic import GroupStatistic
from bidsfit.cohort.values import Arranged, CohortValues, FitNotes, RegionParameter, members
from bidsfit.exceptions import UnknownNameError
from bidsfit.reports.group_numbers import GROUP_STATISTICS
from bidsfit.reports.group_records import (
    METHODS,
    Change,
    EstimatorRecord,
    Normative,
    ParameterRecord,
    RegionRecord,
    Values,
    changes_of,
)
from bidsfit.reports.group_words import drawn_to_training_words
from bidsfit.statistics.limits import ChangeLimits, change_limits
from bidsfit.statistics.multiplicity import Correction, adjust_p_values
from bidsfit.statistics.normative import FEWEST_HEALTHY, normative_scores
from bidsfit.statistics.repeatability import Repeatability, repeatability
from bidsfit.statistics.response import (
    ChangeCalls,
    DifferenceInChange,
    call_changes,
    cohort_response,
    difference_in_change,
)

#: Share of the voxels from which on it is said that they lie at a bound, or hold hardly more than was believed before.
NOTABLE = 0.2

Found = TypeVar("Found")


class ParameterNames(NamedTuple):
    """How a parameter is printed."""

    name: str
    latex: str
    description: str


@dataclass(frozen=True)
class CohortResults:
    """Results of the analysis of a cohort.

    Attributes
    ----------
    quantities : mapping of RegionParameter to EstimatorRecord
        The records by region parameter, for the tables.
    n_tests : mapping of str to int
        Number of tested responses by estimator, over which p-values are corrected.
    """

    regions: tuple[RegionRecord, ...]
    quantities: Mapping[RegionParameter, EstimatorRecord]
    n_tests: Mapping[str, int]


def compute(values: CohortValues, fits: FitNotes, correction: Correction) -> CohortResults:
    """Compute all statistics of a cohort.

    P-values of responses are corrected over all parameters, regions and models of an estimator.
    """
    arranged = values.arranged
    names = {model: _names(model) for model in {one.what.model for one in arranged}}
    known = list(estimators.available())
    ordered = sorted(arranged, key=lambda one: _place(one.what, list(names[one.what.model]), known))
    found = {one.what: estimator_record(one, values, fits) for one in ordered}
    n_tests: dict[str, int] = {}
    for estimator in dict.fromkeys(what.estimator for what in found):
        own = [what for what in found if what.estimator == estimator]
        tests = {what: response for what in own if (response := found[what].response) is not None}
        n_tests[estimator] = sum(math.isfinite(response.p_value) for response in tests.values())
        t_tests = adjust_p_values([response.p_value for response in tests.values()], correction)
        ranks = adjust_p_values([response.wilcoxon_p_value for response in tests.values()], correction)
        for what, p_value, rank in zip(tests, t_tests, ranks, strict=True):
            found[what] = replace(found[what], adjusted_p_value=float(p_value), adjusted_wilcoxon_p_value=float(rank))
    parameters: dict[RegionParameter, list[RegionParameter]] = {}
    for what in found:
        parameters.setdefault(what._replace(estimator=""), []).append(what)
    for own in parameters.values():
        for name, words in narrow_words([found[what] for what in own]).items():
            what = own[0]._replace(estimator=name)
            found[what] = replace(found[what], warnings=(*found[what].warnings, words))
    regions: dict[tuple[str, str, str], list[RegionParameter]] = {}
    for what in found:
        regions.setdefault((what.model, what.series, what.region), []).append(what)
    records = tuple(_region(quantities, found, values, names[quantities[0].model]) for quantities in regions.values())
    return CohortResults(records, found, n_tests)


def _place(what: RegionParameter, labels: Sequence[str], known: Sequence[str]) -> tuple[object, ...]:
    """Sort key: models by name; drawn regions before tissues and the whole mask; others as declared."""
    region = (TISSUES.index(what.region) + 1 if what.region in TISSUES else 0) + 9 * (what.region == WHOLE)
    parameter = labels.index(what.parameter) if what.parameter in labels else len(labels)
    estimator = known.index(what.estimator) if what.estimator in known else len(known)
    return what.model, what.series, region, what.region, parameter, what.parameter, estimator, what.estimator


def _names(model: str) -> dict[str, ParameterNames]:
    """Symbols of the parameters of a model by label; empty for unknown models."""
    try:
        return {p.label: ParameterNames(p.name, p.latex, p.description) for p in models.get(model).reported}
    except UnknownNameError:
        return {}


def _title(model: str) -> str:
    try:
        return models.get(model).title
    except UnknownNameError:
        return model


def estimator_record(one: Arranged, values: CohortValues, fits: FitNotes) -> EstimatorRecord:
    """Statistics of one parameter in one region by one estimator, before any correction."""
    design = values.design
    repeated, no_repeats = attempt(repeatability, one.repeats) if design.repeatability else (None, "")
    limits = (
        ()
        if repeated is None
        else tuple(
            change_limits(repeated.within_subject_sd.value, repeated.freedom, method=method) for method in METHODS
        )
    )
    calls, no_calls = attempt(_calls, one, limits) if design.treatment else (None, "")
    response, no_response = attempt(cohort_response, *one.change.T) if design.treatment else (None, "")
    normative, no_norm = attempt(_normative, one, design)
    repeats, treated = _repeats(one, design), _treated(one, design, calls or ())
    against = None if response is None else _against(treated, repeats, design)
    more = _more(one, repeated)
    fit = one.what.model, one.what.estimator
    known = fits.trained_on.get(fit, set())
    response_of, bias_of = np.median(values.expected.get(one.what) or [(np.nan, np.nan)], axis=0).tolist()
    return EstimatorRecord(
        estimator=one.what.estimator,
        repeats=repeats,
        treated=treated,
        repeatability=repeated,
        limits=limits,
        calls=calls or (),
        response=response,
        against=against,
        distributions=_distributions(one, design),
        normative=normative,
        trained_on=tuple(f"sub-{label}" for label in members(design) if label in known),
        expected_response=response_of,
        expected_bias=bias_of,
        more={statistic.name: result for statistic, result in more},
        remarks=tuple(filter(None, (statistic.warn(result) for statistic, result in more))),
        warnings=tuple(_warnings(one.what, values, fit in fits.trained)),
        missing=tuple(dict.fromkeys(filter(None, [no_repeats, no_calls, no_response, no_norm]))),
    )


def attempt(compute: Callable[..., Found], *values: Any) -> tuple[Found | None, str]:
    """What a statistic finds; or None, and why these values do not determine it."""
    try:
        return compute(*values), ""
    except ValueError as error:
        return None, str(error)


def _more(one: Arranged, repeated: Repeatability | None) -> list[tuple[GroupStatistic, Any]]:
    """Registered group statistics with their results; those of repeatability only if there is one."""
    found = []
    for statistic in map(GROUP_STATISTICS.get, GROUP_STATISTICS.available()):
        if statistic.table == "repeatability" and repeated is None:
            continue
        result, _ = attempt(statistic.compute, one)
        if result is not None:
            found.append((statistic, result))
    return found


def _calls(one: Arranged, limits: Sequence[ChangeLimits]) -> tuple[ChangeCalls, ...]:
    before, after = one.change.T
    return tuple(call_changes(before, after, limit) for limit in limits)


def _repeats(one: Arranged, design: Design) -> tuple[Change, ...]:
    """Repeated scans as pairs; of more than two the first and last with a value."""
    pairs, sessions = [], []
    for row, repeats in zip(one.repeats, design.repeatability, strict=True):
        known = np.flatnonzero(np.isfinite(row))
        first, last = (known[0], known[-1]) if known.size > 1 else (0, len(repeats.sessions) - 1)
        pairs.append((row[first], row[last]))
        sessions.append((repeats.sessions[first], repeats.sessions[last]))
    before, after = np.reshape(pairs, (-1, 2)).T
    return changes_of([f"sub-{r.participant}" for r in design.repeatability], sessions, before, after)


def _treated(one: Arranged, design: Design, calls: Sequence[ChangeCalls]) -> tuple[Change, ...]:
    names = [f"sub-{pair.participant}" for pair in design.treatment]
    sessions = [(pair.first, pair.second) for pair in design.treatment]
    return changes_of(names, sessions, one.change[:, 0], one.change[:, 1], calls)


def _against(treated: Sequence[Change], repeats: Sequence[Change], design: Design) -> DifferenceInChange | None:
    """Change of the treated against that of untreated repeated participants; None if these are too few."""
    cohort = {f"sub-{pair.participant}" for pair in design.treatment}
    untreated = [change.change for change in repeats if change.participant not in cohort]
    return attempt(difference_in_change, [change.change for change in treated], untreated)[0]


def _distributions(one: Arranged, design: Design) -> tuple[Values, ...]:
    """Values by cohort; patients in no other cohort form their own."""

    def values(cohort: str, labels: Sequence[str], column: NDArray[np.float64]) -> Values:
        return Values(cohort, tuple(f"sub-{label}" for label in labels), tuple(column.tolist()))

    repeated = [repeats.participant for repeats in design.repeatability]
    treated = [pair.participant for pair in design.treatment]
    others = [i for i, label in enumerate(design.patients) if label not in {*repeated, *treated}]
    found = [
        values("healthy", design.healthy, one.healthy),
        values("repeated scans, first", repeated, one.repeats[:, 0]),
        values("treated, before", treated, one.change[:, 0]),
        values("treated, after", treated, one.change[:, 1]),
        values("other patients", [design.patients[i] for i in others], one.patients[others]),
    ]
    return tuple(one for one in found if one.participants)


def _normative(one: Arranged, design: Design) -> Normative | None:
    if len(design.healthy) < FEWEST_HEALTHY or not design.patients:
        return None
    scores = normative_scores(one.patients, one.healthy)
    return Normative(tuple(f"sub-{label}" for label in design.patients), tuple(one.patients.tolist()), scores)


def _warnings(what: RegionParameter, values: CohortValues, trained: bool) -> list[str]:
    """Warnings about the estimates themselves."""
    found = []
    counts = values.voxels.get(what)
    if counts is None:
        return []
    unlike, prior, bound, lost = map(
        counts.share, (counts.unlike_training, counts.prior_only, counts.at_bound, counts.undetermined)
    )
    if trained and unlike >= NOTABLE:
        found.append(drawn_to_training_words(what.estimator, what.parameter, unlike))
    if prior >= NOTABLE:
        found.append(
            f"{what.estimator}: in {100 * prior:.0f} % of the voxels from which {what.parameter} is taken the data say "
            "no more of some parameter than the prior did. Values that are those of the prior repeat well and change "
            "little, whatever the tissue does."
        )
    if lost >= NOTABLE:
        found.append(
            f"{what.estimator}: in {100 * lost:.0f} % of the voxels from which {what.parameter} is taken the data do "
            "not determine some parameter, whose values there are noise."
        )
    if bound >= NOTABLE:
        found.append(
            f"{what.parameter} by {what.estimator} lies at a bound in {100 * bound:.0f} % of the voxels: there it is "
            "a limit, not an estimate."
        )
    return found


def _region(
    quantities: Sequence[RegionParameter],
    found: Mapping[RegionParameter, EstimatorRecord],
    values: CohortValues,
    names: Mapping[str, ParameterNames],
) -> RegionRecord:
    first = quantities[0]
    by_parameter: dict[str, list[RegionParameter]] = {}
    for what in quantities:
        by_parameter.setdefault(what.parameter, []).append(what)
    parameters = []
    for label, own in by_parameter.items():
        name = names.get(label, ParameterNames(label, rf"\mathrm{{{label}}}", label))
        records = [found[what] for what in own]
        parameters.append(
            ParameterRecord(
                name=name.name,
                latex=name.latex,
                unit=REPORT_UNITS[own[0].unit].name,
                description=name.description,
                estimators=tuple(records),
                detections=compare_calls(records),
                precision=compare_precision(own, values),
            )
        )
    latex = {label: name.latex for label, name in names.items()}
    return RegionRecord(
        model=first.model,
        model_title=_title(first.model),
        region=first.region,
        parameters=tuple(parameters),
        confounding=confoundings(quantities, values, latex),
        series=first.series,
    )
