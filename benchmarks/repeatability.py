"""Repeatability and response over simulated cohorts: whether the statistics are what they say of themselves.

Every cohort has 14 healthy participants who are scanned twice and 9 patients who are treated between two scans, with
known standard deviations between and within participants and a known response; 14 others, scanned twice and not
treated, are judged by the limits of each cohort. Each line holds what theory expects, and what was measured over the
cohorts with its standard error.
"""

from __future__ import annotations

from _common import table  # isort: skip

import argparse
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm, t

from bidsfit.statistics.interval import Interval
from bidsfit.statistics.limits import change_limits, false_positive_rate
from bidsfit.statistics.normative import normative_scores
from bidsfit.statistics.power import power_of_calls, power_of_cohort
from bidsfit.statistics.repeatability import mean_of_root, repeatability, within_subject_cv
from bidsfit.statistics.response import call_changes, cohort_response
from bidsfit.statistics.scans import RepeatedScans
from bidsfit.statistics.scatter import scatter_trend
from bidsfit.statistics.session_effect import session_effect


class Study(NamedTuple):
    """Sizes and truth of the cohorts; D in um^2/ms, say."""

    n_retest: int = 14
    n_treated: int = 9
    mean: float = 1.5
    between: float = 0.2  # standard deviation between participants
    within: float = 0.08  # and between the scans of one
    response: float = 0.12  # mean response to treatment
    response_sd: float = 0.04
    proportional: float = 0.08  # within-subject coefficient of variation of the cohorts where the scatter grows

    def scans(self, n: int, rng: np.random.Generator, response: float = 0.0, sd: float = 0.0) -> NDArray[np.float64]:
        """Two scans of each of n participants who respond in between."""
        truth = rng.normal(self.mean, self.between, (n, 1)) + np.zeros((1, 2))
        truth[:, 1] += rng.normal(response, sd, n)
        return truth + rng.normal(0, self.within, (n, 2))


class Measured(NamedTuple):
    """One line of the table; every cohort gave one value."""

    expected: float | None
    values: NDArray[np.float64]
    percent: bool = True

    @property
    def mean(self) -> float:
        return float(np.mean(self.values))

    @property
    def error(self) -> float:
        """Standard error of the mean over the cohorts."""
        return float(np.std(self.values, ddof=1) / np.sqrt(self.values.size))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cohorts", type=int, default=500, help="simulated cohorts (default %(default)s)")
    parser.add_argument("--pairs", type=int, default=14, help="retest pairs of each (default %(default)s)")
    parser.add_argument("--treated", type=int, default=9, help="patients of each (default %(default)s)")
    parser.add_argument("--seed", type=int, default=2024)
    parser.add_argument("--quick", action="store_true", help="a small run that shows that the command works")
    arguments = parser.parse_args()
    study = Study(n_retest=arguments.pairs, n_treated=arguments.treated)
    n = 20 if arguments.quick else arguments.cohorts
    results = simulate(study, n, np.random.default_rng(arguments.seed))
    print(f"{n:,} cohorts of {study.n_retest} retest pairs and {study.n_treated} treated participants:\n")
    rows = []
    for name, result in results.items():
        expected = "" if result.expected is None else f"{100 * result.expected:.2f} %"
        rows.append([name, expected, f"{100 * result.mean:.2f} %", f"{100 * result.error:.2f} %"])
    print(table(["quantity", "expected", "measured", "standard error"], rows))


def simulate(study: Study, n_cohorts: int, rng: np.random.Generator) -> dict[str, Measured]:
    """What every quantity came to in every cohort, beside what is expected."""
    expected = expectations(study)
    cohorts = [one_cohort(study, rng) for _ in range(n_cohorts)]
    return {
        name: Measured(expected.get(name), np.array([cohort[name] for cohort in cohorts], dtype=float))
        for name in cohorts[0]
    }


def expectations(study: Study) -> dict[str, float]:
    """What theory says of the quantities of `one_cohort`."""
    pairs = study.n_retest  # as many degrees of freedom
    spread = np.sqrt(2 * study.within**2 + study.response_sd**2)
    truth = study.response, study.within, pairs
    called = {
        method: power_of_calls(*truth, response_sd=study.response_sd, method=method) for method in ("student", "normal")
    }
    newcomers = float(2 * t.sf(norm.ppf(0.975) / np.sqrt((pairs + 1) / pairs), pairs - 1))
    return {
        "bias of wSD, root mean square": mean_of_root(pairs) - 1,
        "bias of wSD, unbiased": 0.0,
        "bias of wSD²": 0.0,
        "unchanged called changed, Student's t": 0.05,
        "unchanged called changed, 1.96": false_positive_rate(pairs, float(norm.ppf(0.975))),
        "treated called changed, Student's t": called["student"],
        "treated called changed, 1.96": called["normal"],
        "cohort response found, paired t-test": power_of_cohort(study.response / spread, study.n_treated),
        "healthy newcomers found, modified t": 0.05,
        "healthy newcomers beyond z = 1.96": newcomers,
        "session effect found where there is none": 0.05,
    } | {f"{name} in its interval": 0.95 for name in INTERVALS}


INTERVALS = (
    "wSD",
    "ICC(1,1)",
    "ICC(A,1)",
    "wCV, scatter constant",
    "wCV, scatter in proportion",
    "mean change",
    "per cent change",
    "effect size",
    "percentile of a newcomer",
)


def one_cohort(study: Study, rng: np.random.Generator) -> dict[str, float]:
    """Simulate a cohort, and see how right its statistics are."""
    pairs = study.scans(study.n_retest, rng)
    found = repeatability(pairs)
    within = found.within_subject_sd
    result = {
        "bias of wSD, root mean square": within.value / study.within - 1,
        "bias of wSD, unbiased": found.unbiased_within_subject_sd / study.within - 1,
        "bias of wSD²": within.value**2 / study.within**2 - 1,
        "session effect found where there is none": session_effect(RepeatedScans.of(pairs)).p_value < 0.05,
        "scatter found to depend on the mean where it does not": scatter_trend(RepeatedScans.of(pairs)).p_value < 0.05,
    }

    unchanged = study.scans(study.n_retest, rng)
    treated = study.scans(study.n_treated, rng, study.response, study.response_sd)
    for name, method in (("Student's t", "student"), ("1.96", "normal")):
        limits = change_limits(within.value, found.freedom, method=method)
        for cohort, values in (("unchanged", unchanged), ("treated", treated)):
            calls = call_changes(*values.T, limits)
            result[f"{cohort} called changed, {name}"] = calls.n_changed / calls.n_participants

    response = cohort_response(*treated.T)
    result["cohort response found, paired t-test"] = response.p_value < 0.05
    result["cohort response found, Wilcoxon"] = response.wilcoxon_p_value < 0.05

    newcomers = unchanged[:1, 0]
    scores = normative_scores(newcomers, pairs[:, 0])
    result["healthy newcomers found, modified t"] = np.mean(scores.p_value < 0.05)
    result["healthy newcomers beyond z = 1.96"] = np.mean(np.abs(scores.z) > norm.ppf(0.975))

    total = study.between**2 + study.within**2
    spread = np.sqrt(2 * study.within**2 + study.response_sd**2)
    growing = rng.normal(study.mean, study.between, (study.n_retest, 1))
    growing = growing * (1 + study.proportional * rng.standard_normal((study.n_retest, 2)))
    around = np.linspace(-6, 6, 2001) * study.between + study.mean
    weights = norm.pdf(around, study.mean, study.between)
    inverse_square = np.average(around**-2.0, weights=weights * (around > study.mean / 3))
    percentile = 100 * norm.cdf(newcomers[0], study.mean, np.sqrt(total))
    limits_of_percentile = Interval(scores.percentile[0], scores.percentile_lower[0], scores.percentile_upper[0])
    for name, interval, truth in (
        ("wSD", within, study.within),
        ("ICC(1,1)", found.intraclass_correlation.coefficient, study.between**2 / total),
        ("wCV, scatter constant", found.within_subject_cv, study.within * np.sqrt(inverse_square)),
        ("wCV, scatter in proportion", within_subject_cv(RepeatedScans.of(growing)), study.proportional),
        ("mean change", response.mean_change, study.response),
        ("per cent change", response.percent_change, 100 * study.response / study.mean),
        ("effect size", response.cohen, study.response / spread),
        ("percentile of a newcomer", limits_of_percentile, percentile),
    ):
        result[f"{name} in its interval"] = interval.lower <= truth <= interval.upper
    return result


if __name__ == "__main__":
    main()
