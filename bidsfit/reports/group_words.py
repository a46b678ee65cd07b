"""Text of the group level: intervals, p-values, sentences for a paper, and warnings."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Protocol

from bidsfit.reports.group_records import EstimatorRecord, ParameterRecord
from bidsfit.reports.report import number
from bidsfit.reports.words import with_unit
from bidsfit.statistics.interval import Interval
from bidsfit.statistics.limits import ChangeLimits
from bidsfit.statistics.multiplicity import Correction
from bidsfit.statistics.repeatability import Repeatability
from bidsfit.statistics.response import ChangeCalls, CohortResponse, DifferenceInChange
from bidsfit.trust.flags import LOW_RESPONSE

#: Corrected p-values below it are called significant, as the intervals are of 95 %.
SIGNIFICANT = 0.05

#: Corrections in a sentence.
CORRECTIONS: Mapping[str, str] = {
    "holm": "Holm's correction",
    "benjamini-hochberg": "the correction of Benjamini and Hochberg",
}

#: Letters of equations that a plain text has too.
GREEK = {
    r"\alpha": "\N{GREEK SMALL LETTER ALPHA}",
    r"\beta": "β",
    r"\kappa": "κ",
    r"\lambda": "λ",
    r"\mu": "μ",
    r"\sigma": "\N{GREEK SMALL LETTER SIGMA}",
    r"\tau": "τ",
}

#: Significant digits of a number with an interval, and decimals, at most, before an exponent is easier to read.
DIGITS, MOST_DECIMALS = 3, 6

#: With fewer healthy participants a comparison with them comes with a warning.
ENOUGH_HEALTHY = 20

#: Of an estimator whose response is farther from 1 than this it is said how much of an effect shows.
ABOUT_ALL = 0.2

#: Names in a sentence, at most.
MOST_NAMES = 6


def correction_words(correction: Correction, n_corrected: int) -> str:
    """The correction of p-values in words, for use in a sentence."""
    if correction == "none":
        return "not corrected"
    return f"after {CORRECTIONS[correction]}" + (f" over {n_corrected} tests" if n_corrected > 1 else "")


class Named(Protocol):
    """Interface of objects with a name and a symbol in LaTeX."""

    @property
    def name(self) -> str: ...

    @property
    def latex(self) -> str: ...


def plain_symbol(parameter: Named) -> str:
    """Symbol of a parameter as plain text; its name if plain text cannot express the symbol."""
    return plain_latex(parameter.latex) or parameter.name


def plain_latex(latex: str) -> str:
    """LaTeX as plain text; empty if plain text cannot express it."""
    for command, letter in GREEK.items():
        latex = latex.replace(command, letter)
    text = re.sub(r"\\(?:mathrm|text|mathit)\{([^{}]*)\}", r"\1", latex)
    text = re.sub(r"\^\{?\*\}?", "*", text)
    text = re.sub(r"_\{([^{}]*)\}", r"_\1", text)
    return "" if re.search(r"[\\{}^]", text) else text


def limit_words(value: float) -> str:
    """A limit of an interval as text; it may be infinite."""
    if math.isinf(value):
        return "\N{INFINITY}" if value > 0 else "\N{MINUS SIGN}\N{INFINITY}"
    return number(value)


def interval_parts(interval: Interval, digits: int = DIGITS) -> tuple[str, str, str]:
    """An estimate and its limits as text, all with the same number of decimals.

    ``digits`` are the significant digits of the estimate or of half the interval, whichever is larger. A dash stands
    for a missing number.
    """
    value, lower, upper = interval
    sizes = [size for size in (abs(value), abs(upper - lower) / 2) if math.isfinite(size)]
    largest = max(sizes, default=0.0)
    decimals = digits - 1 - math.floor(math.log10(largest) + 1e-9) if largest > 0 else 0
    if decimals > MOST_DECIMALS:
        return limit_words(value), limit_words(lower), limit_words(upper)
    return (
        _fixed(value, max(decimals, 0)),
        _fixed(lower, max(decimals, 0)),
        _fixed(upper, max(decimals, 0)),
    )


def three_digits(value: float) -> str:
    """A number with three significant digits, including trailing zeros."""
    return interval_parts(Interval(value, value, value))[0]


def _fixed(value: float, decimals: int) -> str:
    if not math.isfinite(value):
        return limit_words(value)
    text = f"{value:,.{decimals}f}"
    if not float(text.replace(",", "")):
        text = text.removeprefix("-")  # no negative zero
    return text.replace("-", "\N{MINUS SIGN}")


def range_words(interval: Interval) -> str:
    """The limits of an interval; a dash if they are unknown."""
    if math.isnan(interval.lower) or math.isnan(interval.upper):
        return number(None)
    _, lower, upper = interval_parts(interval)
    return f"{lower} to {upper}"


def first_interval(interval: Interval, unit: str, level: float) -> str:
    """An estimate with its unit, its limits and their level, for the first interval of a sentence."""
    value = with_unit(interval_parts(interval)[0], unit)
    if math.isnan(interval.lower) or math.isnan(interval.upper):
        return value
    return f"{value} ({100 * level:g} % confidence interval {range_words(interval)})"


def interval_words(interval: Interval, factor: float = 1.0) -> str:
    """An estimate with its limits in brackets."""
    interval = interval.times(factor)
    if math.isnan(interval.value):
        return number(None)
    if math.isnan(interval.lower) or math.isnan(interval.upper):
        return limit_words(interval.value)
    return f"{interval_parts(interval)[0]} ({range_words(interval)})"


def p_number(p_value: float) -> str:
    """A p-value for tables: three decimals below 0.1, else two; small ones as "< 0.001"."""
    if math.isnan(p_value):
        return number(None)
    if p_value < 0.001:
        return "< 0.001"
    return f"{p_value:.3f}" if p_value < 0.1 else f"{p_value:.2f}"


def p_words(p_value: float) -> str:
    """A p-value for use in a sentence."""
    if math.isnan(p_value):
        return "p unknown"
    return f"p {p_number(p_value)}" if p_value < 0.001 else f"p = {p_number(p_value)}"


def sentences(
    parameter: ParameterRecord, record: EstimatorRecord, region: str, correction: Correction, n_corrected: int
) -> list[str]:
    """Results for one parameter by one estimator, as sentences for a paper."""
    symbol, found = plain_symbol(parameter), []
    if record.repeatability is not None:
        found.append(repeatability_sentence(record.repeatability, record.estimator, region, symbol, parameter.unit))
    if record.response is not None:
        found.append(
            response_sentence(record, record.response, region, symbol, parameter.unit, correction, n_corrected)
        )
        if record.against is not None:
            found.append(against_sentence(record.against, symbol, parameter.unit))
    found += [calls_sentence(call, symbol, parameter.unit) for call in record.calls[:1]]
    return [*found, *filter(None, [shown_words(record, symbol)])] if found else []


def repeatability_sentence(found: Repeatability, estimator: str, region: str, symbol: str, unit: str) -> str:
    """Sentence on within-subject standard deviation, repeatability coefficient and intraclass correlation."""
    often = "scanned twice" if found.n_scans == 2 * found.n_participants else f"with {found.n_scans} scans in all"
    cv = found.within_subject_cv
    relative = (
        f", a within-subject coefficient of variation of {interval_words(cv, 100)} %" if math.isfinite(cv.value) else ""
    )
    icc = found.intraclass_correlation
    return (
        f"In {found.n_participants} participants {often}, {symbol} ({estimator}, region {region}) had a within-subject "
        f"standard deviation of {first_interval(found.within_subject_sd, unit, found.level)}, a repeatability "
        f"coefficient of "
        f"{with_unit(interval_words(found.repeatability_coefficient), unit)}{relative} and an intraclass correlation "
        f"{icc.form} of {interval_words(icc.coefficient)}."
    )


def response_sentence(
    record: EstimatorRecord,
    found: CohortResponse,
    region: str,
    symbol: str,
    unit: str,
    correction: Correction,
    n_corrected: int,
) -> str:
    """Sentence on the mean change of the cohort."""
    verb = "rose" if found.mean_change.value > 0 else "fell"
    size = found.mean_change
    if found.mean_change.value < 0:
        size = Interval(-size.value, -size.upper, -size.lower)
    relative = ""
    if math.isfinite(found.percent_change.value):
        relative = f", a change of {interval_words(found.percent_change)} %"
    corrected = ""
    if correction != "none" and not math.isnan(record.adjusted_p_value):
        corrected = f" ({p_words(record.adjusted_p_value)} {correction_words(correction, n_corrected)})"
    effect = found.hedges if math.isfinite(found.hedges.value) else found.cohen
    name = "Hedges' g" if effect is found.hedges else "Cohen's d"
    return (
        f"In {found.n_participants} treated participants {symbol} ({record.estimator}, region {region}) {verb} on "
        f"average from {three_digits(found.mean_before)} to {with_unit(three_digits(found.mean_after), unit)}, by "
        f"{first_interval(size, unit, found.level)}{relative}; paired t-test, t({found.freedom}) = "
        f"{three_digits(found.t)}, {p_words(found.p_value)}{corrected}; {name} {interval_words(effect)}."
    )


def against_sentence(found: DifferenceInChange, symbol: str, unit: str) -> str:
    """Sentence on the change of untreated participants and the difference."""
    return (
        f"In {found.n_untreated} participants who were not treated {symbol} changed by "
        f"{first_interval(found.untreated, unit, found.level)} from the first session to the last (paired t-test, "
        f"{p_words(found.untreated_p_value)}); the change of the treated differs from theirs by "
        f"{with_unit(interval_words(found.difference), unit)} (Welch's t-test, t({found.freedom:.1f}) = "
        f"{three_digits(found.t)}, {p_words(found.p_value)})."
    )


def drift_words(
    record: EstimatorRecord, response: CohortResponse, found: DifferenceInChange, symbol: str, unit: str
) -> str:
    """Warning that untreated participants changed as well."""
    share = found.untreated.value / response.mean_change.value
    part = f", which is {100 * share:.0f} % of the change of the treated" if 0 < share < 1 else ""
    return (
        f"{symbol} by {record.estimator}: participants who were not treated changed as well, by "
        f"{with_unit(interval_words(found.untreated), unit)} ({p_words(found.untreated_p_value)}){part}. The treatment "
        f"is told by the difference between the two, {with_unit(interval_words(found.difference), unit)} "
        f"({p_words(found.p_value)}), and not by the change of the treated alone."
    )


def few_healthy_words(n_healthy: int) -> str:
    """Warning that patients are compared with few healthy participants."""
    return (
        f"Patients are compared with {n_healthy} healthy participants. The prediction limits allow for so few, but all "
        f"patients are judged by the same {n_healthy}: where these happen to lie apart from the healthy population, "
        "every patient looks unlike it."
    )


def calls_sentence(calls: ChangeCalls, symbol: str, unit: str) -> str:
    """Sentence on the number of changed participants, and the number expected by chance."""
    limits = calls.limits
    if calls.n_changed:
        who = f"{calls.n_changed} of {calls.n_participants} treated participants"
        how = f": {calls.n_increased} rose and {calls.n_decreased} fell, where"
    else:
        who, how = f"None of {calls.n_participants} treated participants", ";"
    return (
        f"{who} changed in {symbol} by more than ±{with_unit(three_digits(limits.bound), unit)} "
        f"({limits_words(limits)}){how} {calls.expected_by_chance:.2g} would be expected by chance."
    )


def limits_words(limits: ChangeLimits) -> str:
    """Level and distribution of limits of change, in words."""
    share = f"{100 * limits.level:g} % limits at zero offset"
    if limits.method == "normal":
        return f"{share}, as if the within-subject standard deviation were known"
    return f"{share}, Student's t with {limits.freedom} degrees of freedom"


def names_words(names: Sequence[str]) -> str:
    """A list of names for use in a sentence; if there are many, the first ones and the number of the others."""
    shown = list(names[:MOST_NAMES])
    if len(names) > MOST_NAMES:
        shown.append(f"{len(names) - MOST_NAMES} more")
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}"


def trained_on_words(estimator: str, names: Sequence[str]) -> str:
    """Warning that an estimator was trained on participants of the cohort."""
    verb = "was" if len(names) == 1 else "were"
    return (
        f"{names_words(names)} {verb} in the pool that {estimator} was trained on: it has seen fits of participants "
        "whom it is judged by here. Train it on others, or leave these out."
    )


def drawn_to_training_words(estimator: str, parameter: str, share: float) -> str:
    """Warning that estimates follow the distribution of the training rather than the data.

    Parameters
    ----------
    estimator, parameter : str
    share : float
        Fraction of the voxels in which the data hardly add to the knowledge from the training.
    """
    return (
        f"{parameter} by {estimator}: in {100 * share:.0f} % of the voxels the data say hardly more than the training "
        "did. Estimates that are drawn to the mean of the training repeat well and change little, whatever the tissue "
        "does: a small within-subject standard deviation is no merit here."
    )


def shown_words(record: EstimatorRecord, symbol: str) -> str:
    """How much of a true change shows in the estimates; empty where it is about all, or not known."""
    if not abs(record.expected_response - 1) > ABOUT_ALL:
        return ""
    return (
        f"By simulation {100 * max(record.expected_response, 0):.0f} % of a true change of {symbol} shows in estimates "
        f"by {record.estimator}. Changes and differences are given as measured, and are not corrected for it."
    )


def hidden_words(record: EstimatorRecord, symbol: str) -> str:
    """Warning that an estimator hides most of a change; empty where it does not, or it is not known."""
    if not record.expected_response < LOW_RESPONSE:
        return ""
    return (
        f"By simulation less than {100 * LOW_RESPONSE:.0f} % of a true change of {symbol} shows in estimates by "
        f"{record.estimator}, and "
        "nothing is corrected for it: a treatment effect cannot be seen at full size, a small one may not be seen at "
        "all, and a small within-subject standard deviation is no merit here."
    )


def skewed_healthy_words(p_value: float) -> str:
    """Warning that z-scores assume a normal distribution, which the healthy values do not have."""
    return (
        f"The healthy values are not normally distributed (Shapiro-Wilk test, {p_words(p_value)}): read the percentile "
        "that supposes no shape rather than z."
    )
