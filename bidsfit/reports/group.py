"""The page of repeatability and treatment response: a single HTML file that works without network."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from markupsafe import Markup

from bidsfit.reports.bibliography import bibtex, cited, plain_text, reference_list
from bidsfit.reports.bland_altman import beyond, draw_bland_altman, shared_reach, signed
from bidsfit.reports.comparisons import estimator_colour
from bidsfit.reports.distributions import draw_distributions
from bidsfit.reports.forest import draw_forest, effect
from bidsfit.reports.group_numbers import LIMIT_NAMES, Row, numbers_of, rows_of
from bidsfit.reports.group_records import (
    METHODS,
    Change,
    EstimatorRecord,
    GroupRecord,
    ParameterRecord,
    RegionRecord,
    TrainingRecord,
)
from bidsfit.reports.group_words import (
    DIGITS,
    ENOUGH_HEALTHY,
    SIGNIFICANT,
    correction_words,
    drift_words,
    few_healthy_words,
    hidden_words,
    interval_parts,
    names_words,
    p_number,
    plain_symbol,
    sentences,
    shown_words,
    skewed_healthy_words,
    trained_on_words,
)
from bidsfit.reports.laboratory import LaboratoryFigure
from bidsfit.reports.laboratory import picture as embedded
from bidsfit.reports.page import write_page
from bidsfit.reports.prose import mathml, prose
from bidsfit.reports.report import breakable, correlation, count, number
from bidsfit.reports.vega import CROWD_WORDS, MOST_POINTS, scripts
from bidsfit.reports.words import percent
from bidsfit.statistics.interval import Interval
from bidsfit.statistics.limits import Method
from bidsfit.statistics.response import CohortResponse, DifferenceInChange

Shown = TypeVar("Shown")

#: Warnings that concern one place only are folded away where there are more.
MOST_WARNINGS = 8
#: Links of one warning, at most.
MOST_PLACES = 3
#: Participants in a table; of more, those who stand out are listed, and so many of them at most, the clearest first.
MOST_ROWS = 60


@dataclass(frozen=True)
class ParameterPart:
    """The page's content about one parameter in one region."""

    anchor: str
    record: ParameterRecord
    symbol: str
    bland_altman: Markup
    shared_axes: bool
    distributions: Markup
    shown: tuple[str, ...]
    sentences: tuple[str, ...]
    repeatability: tuple[Row, ...]
    response: tuple[Row, ...]
    treated: tuple[tuple[str, tuple[Change | None, ...]], ...]
    n_treated: int
    patients: tuple[tuple[str, tuple[int | None, ...]], ...]
    n_patients: int
    warnings: tuple[tuple[str, str], ...]
    missing: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class RegionPart:
    """The page's content about one model in one region."""

    anchor: str
    record: RegionRecord
    estimators: tuple[str, ...]
    forest: Markup
    parameters: tuple[ParameterPart, ...]

    @property
    def name(self) -> str:
        """Model and region, and the series if there are several."""
        return " · ".join(filter(None, [self.record.model, self.record.region, self.record.series]))

    def any(self, attribute: str) -> bool:
        """Whether this attribute of some estimator's record is not empty."""
        return any(getattr(e, attribute) for p in self.record.parameters for e in p.estimators)


@dataclass
class Warnings:
    """Warnings of the page, each once, with the places they concern: pairs of anchor and name.

    ``serious`` concerns the estimates; ``usual`` concerns the certainty of the statistics and is listed last.
    """

    serious: dict[str, list[tuple[str, str]]] = field(default_factory=dict)
    usual: dict[str, list[tuple[str, str]]] = field(default_factory=dict)

    def add(self, text: str, anchor: str = "", where: str = "", *, usual: bool = False) -> None:
        """Add a warning and the place it concerns."""
        found = (self.usual if usual else self.serious).setdefault(text, [])
        if anchor and (anchor, where) not in found:
            found.append((anchor, where))

    def split(self) -> tuple[dict[str, list[tuple[str, str]]], dict[str, list[tuple[str, str]]]]:
        """Warnings to show, and those to fold away: usual ones about one place, if there are too many in all."""
        places = self.serious | self.usual
        if len(places) <= MOST_WARNINGS:
            return places, {}
        single = {text: found for text, found in self.usual.items() if len(found) == 1}
        return {text: found for text, found in places.items() if text not in single}, single


def write_group_page(path: Path | str, record: GroupRecord, *, about: Mapping[str, Any]) -> Path:
    """Write the page of repeatability and treatment response; the file is replaced only when complete.

    Parameters
    ----------
    path : path
        Such as ``<output>/group.html``; paths of figures in the record are relative to its folder.
    record : GroupRecord
    about : mapping
        ``version``, ``command``, ``run_uuid``, ``date``, ``dataset``, and the mappings ``software`` (name to version)
        and ``settings``. All are optional; other entries are shown unchanged.
    """
    path, warnings = Path(path), Warnings()
    for text in record.warnings:
        warnings.add(text)
    parts = [_region(f"region-{i}", region, record, warnings) for i, region in enumerate(record.regions, start=1)]
    general, single = warnings.split()

    def training(found: TrainingRecord) -> Markup:
        return embedded(LaboratoryFigure(path.parent / found.figure, found.title))

    content = {
        "record": record,
        "parts": parts,
        "models": list(dict.fromkeys(part.record.model for part in parts)),
        "general": general,
        "single": single,
        "most_places": MOST_PLACES,
        "about": about,
        "p_name": "p" if record.correction == "none" else "Corrected p",
        "correction": correction_words(record.correction, record.n_corrected),
        "significant": SIGNIFICANT,
        "methods": record.methods,
        "references": [(key, Markup(text)) for key, text in reference_list(cited(record.methods))],
        "manuscript": plain_text(record.methods),
        "bibtex": bibtex(cited(record.methods)),
        "crowd_words": CROWD_WORDS,
        "crowded": any(cohort.n_participants > MOST_POINTS for cohort in record.cohorts),
        "most_rows": MOST_ROWS,
        "scripts": scripts,
    }
    filters = {
        "number": number,
        "count": count,
        "signed": signed,
        "correlation": correlation,
        "math": mathml,
        "prose": prose,
        "breakable": breakable,
        "estimate": estimate,
        "p": p_number,
        "names": names_words,
        "glance": glance,
        "called": called,
        "rounded": rounded,
    }
    helpers = {
        "colour": estimator_colour,
        "training": training,
        "beyond": beyond,
        "detected": detected,
        "effect": effect,
        "precision_of": precision_of,
        "unusual": unusual,
        "n_unusual": n_unusual,
        "methods_of_limits": METHODS,
        "limit_names": LIMIT_NAMES,
    }
    styles = ("style.css", "group.css")
    return write_page(path, "group.html.j2", content, filters=filters, helpers=helpers, styles=styles)


def _region(anchor: str, region: RegionRecord, record: GroupRecord, warnings: Warnings) -> RegionPart:
    estimators = tuple(dict.fromkeys(e.estimator for p in region.parameters for e in p.estimators))
    part = RegionPart(anchor, region, estimators, draw_forest(region.parameters, estimators), ())
    for text in region.warnings:
        warnings.add(text, anchor, part.name)
    parameters = tuple(
        _parameter(f"{anchor}-{i}", parameter, part, record, warnings)
        for i, parameter in enumerate(region.parameters, start=1)
    )
    return dataclasses.replace(part, parameters=parameters)


def _parameter(
    anchor: str, parameter: ParameterRecord, part: RegionPart, record: GroupRecord, warnings: Warnings
) -> ParameterPart:
    symbol, records = plain_symbol(parameter), parameter.estimators
    serious = [("", text) for text in parameter.warnings]
    serious += [(e.estimator, text) for e in records for text in _serious(e, symbol, parameter.unit)]
    usual = [(e.estimator, text) for e in records for text in _usual(e)]
    for estimator, text in serious + usual:
        where = " · ".join(filter(None, [part.name, symbol, estimator]))
        warnings.add(text, anchor, where, usual=(estimator, text) in usual)
    treated, n_treated = _treated(records)
    patients, n_patients = _patients(records)
    return ParameterPart(
        anchor=anchor,
        record=parameter,
        symbol=symbol,
        bland_altman=draw_bland_altman(records, symbol, parameter.unit),
        shared_axes=shared_reach(records) is not None,
        distributions=draw_distributions(records, symbol, parameter.unit, part.estimators),
        shown=tuple(
            filter(None, (shown_words(e, symbol) for e in records if e.repeatability or e.response or e.calls))
        ),
        sentences=tuple(
            " ".join(found)
            for e in records
            if (found := sentences(parameter, e, part.record.region, record.correction, record.n_corrected))
        ),
        repeatability=rows_of(records, numbers_of("repeatability")) if any(e.repeatability for e in records) else (),
        response=rows_of(records, numbers_of("response")) if any(e.response or e.calls for e in records) else (),
        treated=treated,
        n_treated=n_treated,
        patients=patients,
        n_patients=n_patients,
        warnings=(*serious, *usual),
        missing=tuple((e.estimator, text) for e in records for text in e.missing),
    )


def _serious(record: EstimatorRecord, symbol: str, unit: str) -> list[str]:
    """Warnings about the estimates of one estimator and about conclusions that seem evident but are wrong."""
    found = [trained_on_words(record.estimator, record.trained_on)] if record.trained_on else []
    found += [*record.warnings, *filter(None, [hidden_words(record, symbol)])]
    response, against, normative = record.response, record.against, record.normative
    if response is not None and against is not None and against.drifts(response):
        found.append(drift_words(record, response, against, symbol, unit))
    if normative is not None and normative.scores.n_healthy < ENOUGH_HEALTHY and n_unusual(record):
        found.append(few_healthy_words(normative.scores.n_healthy))
    return found


def _usual(record: EstimatorRecord) -> list[str]:
    """Remarks on the certainty of the statistics of one estimator."""
    found = [*record.repeatability.warnings, *record.remarks] if record.repeatability is not None else []
    if record.normative is not None and record.normative.scores.healthy_normality_p_value < SIGNIFICANT:
        found.append(skewed_healthy_words(record.normative.scores.healthy_normality_p_value))
    return found


def _treated(records: Sequence[EstimatorRecord]) -> tuple[tuple[tuple[str, tuple[Change | None, ...]], ...], int]:
    """Treated participants with their changes by each estimator, and how many there are; see `_listed`."""
    found = [
        {change.participant: (change, bool(change.called_by), change.p_value) for change in record.treated}
        for record in records
    ]
    return _listed(found)


def _patients(records: Sequence[EstimatorRecord]) -> tuple[tuple[tuple[str, tuple[int | None, ...]], ...], int]:
    """Patients with their index in the scores of each estimator, and how many there are; see `_listed`."""
    found = [
        {name: (i, unusual(e, i), float(e.normative.scores.p_value[i])) for i, name in enumerate(e.normative.patients)}
        if e.normative
        else {}
        for e in records
    ]
    return _listed(found)


def _listed(
    found: Sequence[Mapping[str, tuple[Shown, bool, float]]],
) -> tuple[tuple[tuple[str, tuple[Shown | None, ...]], ...], int]:
    """Rows of a table, and how many there would be of all participants.

    ``found`` holds for each estimator, by participant, what is shown, whether it stands out, and its p-value. If there
    are more than `MOST_ROWS` participants, those who stand out are listed: as many, by the smallest p-values.
    """
    names = list(dict.fromkeys(name for own in found for name in own))
    rows = {name: [own.get(name) for own in found] for name in names}
    if len(names) > MOST_ROWS:
        outside = {name: cells for name, cells in rows.items() if any(cell and cell[1] for cell in cells)}
        clearest = sorted(outside, key=lambda name: min(cell[2] for cell in outside[name] if cell and cell[1]))
        kept = set(clearest[:MOST_ROWS])
        rows = {name: cells for name, cells in outside.items() if name in kept}
    return tuple((name, tuple(cell and cell[0] for cell in cells)) for name, cells in rows.items()), len(names)


def unusual(record: EstimatorRecord, place: int | None) -> bool:
    """Whether a patient differs from the healthy participants, without correction for multiple comparisons."""
    return place is not None and record.normative is not None and record.normative.scores.p_value[place] < SIGNIFICANT


def n_unusual(record: EstimatorRecord) -> int:
    """Number of patients who differ from the healthy participants."""
    return sum(unusual(record, i) for i in range(len(record.normative.patients))) if record.normative else 0


def estimate(interval: Interval | None, factor: float = 1.0, digits: int = DIGITS) -> Markup:
    """An estimate with its interval in small type; a line may break between the two."""
    if interval is None or math.isnan(interval.value):
        return Markup(number(None))
    value, lower, upper = interval_parts(interval.times(factor), digits)
    if math.isnan(interval.lower) or math.isnan(interval.upper):
        return Markup.escape(value)
    between = "\N{EN DASH}" if interval.lower >= 0 else " to "
    return Markup('{} <span class="range">({}{}{})</span>').format(value, lower, between, upper)


def rounded(value: float | None) -> str:
    """A number with two significant digits, as for estimates."""
    if value is None or math.isnan(value):
        return number(None)
    return interval_parts(Interval(value, value, value), 2)[0]


def detected(record: EstimatorRecord, methods: Sequence[Method] = METHODS) -> str:
    """Number of changed participants by each method of limits, and of how many participants."""
    found = [call for method in methods for call in record.calls if call.limits.method == method]
    if not found:
        return number(None)
    return f"{' / '.join(str(call.n_changed) for call in found)} of {found[0].n_participants}"


def called(changes: Sequence[Change], method: Method) -> list[Change]:
    """Changes beyond the limits of this method."""
    return [change for change in changes if method in change.called_by]


def precision_of(parameter: ParameterRecord, estimator: str) -> float | None:
    """Mean parameter-to-noise ratio of an estimator; None if unknown."""
    found = parameter.precision
    if found is None or estimator not in found.names:
        return None
    return float(found.means[found.names.index(estimator)])


def glance(record: EstimatorRecord | None) -> Markup:
    """Summary of the response of one estimator, or else of its repeatability."""
    if record is None:
        return Markup(number(None))
    if record.response is not None:
        response = record.response
        relative = math.isfinite(response.percent_change.value)
        size = f"{_tenth(response.percent_change.value)} %" if relative else signed(response.mean_change.value)
        p = f"p {p_number(record.adjusted_p_value)}"
        words = ", ".join([p, *([detected(record, METHODS[:1])] if record.calls else [])])
        if record.against is not None:
            words += f"; against untreated {_against_words(record.against, response)}"
        look = "clear" if record.adjusted_p_value < SIGNIFICANT else "unclear"
        return Markup('<span class="{}">{}</span> <span class="range">{}</span>').format(look, size, words)
    if record.repeatability is not None:
        cv, icc = record.repeatability.within_subject_cv.value, record.repeatability.intraclass_correlation
        return Markup('wCV {} <span class="range">ICC {}</span>').format(
            percent(cv) if math.isfinite(cv) else number(None), correlation(icc.coefficient.value)
        )
    return Markup(number(None))


def _against_words(found: DifferenceInChange, response: CohortResponse) -> str:
    """Difference in change from the untreated, in per cent of the mean before treatment if that is known."""
    relative = math.isfinite(response.percent_change.value)
    difference = found.difference.value
    size = f"{_tenth(100 * difference / response.mean_before)} %" if relative else signed(difference)
    return f"{size}, p {p_number(found.p_value)}"


def _tenth(value: float) -> str:
    return f"{value:+.{1 if abs(value) < 10 else 0}f}".replace("-", "\N{MINUS SIGN}")
