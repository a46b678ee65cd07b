"""Repeatability and treatment response of a cohort: from maps to tables and a page."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from bidsfit.bids.distributions import KINDS, distribution_path
from bidsfit.bids.fitted import IMAGES_OF_TRAINING, SNR_OF_TRAINING, FittedImage, find_fitted, scanned_sessions
from bidsfit.bids.inputs import Folder, InputProblem
from bidsfit.bids.metadata import read_sidecar
from bidsfit.bids.tables import GENERATED_BY, write_table
from bidsfit.cohort.analysis import CohortResults, compute
from bidsfit.cohort.design import Design, read_design
from bidsfit.cohort.methods import cohort_methods
from bidsfit.cohort.region_values import grouped, region_values
from bidsfit.cohort.tables import (
    REPEATABILITY_TABLE,
    RESPONSE_TABLE,
    ROIS,
    repeatability_columns,
    repeatability_rows,
    response_columns,
    response_rows,
    write_rois,
)
from bidsfit.cohort.values import CohortValues, FitNotes, members, missing_values
from bidsfit.exceptions import NoInputError, UnknownParticipantError, UnusableInputError, UsageError
from bidsfit.parallel import Progress
from bidsfit.reports.group import write_group_page
from bidsfit.reports.group_records import CohortRecord, GroupRecord, LeftOut, TrainingRecord
from bidsfit.run.pooling import TITLES
from bidsfit.run.publishing import PAGE, publish, staged
from bidsfit.statistics.interval import scale_interval
from bidsfit.statistics.multiplicity import Correction
from bidsfit.statistics.normative import FEWEST_HEALTHY

#: Fewer participants with repeated scans than this are pointed out before anything else.
FEW = 10

#: Participants who are named where they were left out for the same reason.
MOST_NAMES = 200

#: The tables, and what each holds.
CONTENTS = {
    ROIS: "values in regions: one row for each participant, session, fit, region and parameter",
    REPEATABILITY_TABLE: "repeatability by fit, region and parameter",
    RESPONSE_TABLE: "response to treatment by fit, region and parameter",
}


#: What is taken over the voxels of a region, in words.
STATISTICS = {
    "median": "median",
    "mean": "mean",
    "q05": "5th percentile",
    "q25": "25th percentile",
    "q75": "75th percentile",
    "q95": "95th percentile",
}

Statistic = Literal["median", "mean", "q05", "q25", "q75", "q95"]


@dataclass(frozen=True)
class CohortChoice:
    """Options of the user for comparisons.

    Attributes
    ----------
    repeatability, treatment, healthy : str, optional
        COLUMN=VALUE of participants.tsv.
    sessions : tuple of str
        pre=LABEL post=LABEL.
    condition : str, optional
        Column of the sessions tables.
    regions : tuple of str
        Names; empty means all, and the whole mask.
    statistic : {"median", "mean", "q05", "q25", "q75", "q95"}
        Summary of the voxels of a region.
    correction : {"holm", "benjamini-hochberg", "none"}
    participants, session_labels, models : tuple of str
        Restrictions, as labels without prefix; empty means all.
    """

    repeatability: str | None = None
    treatment: str | None = None
    healthy: str | None = None
    sessions: tuple[str, ...] = ()
    condition: str | None = None
    regions: tuple[str, ...] = ()
    statistic: Statistic = "median"
    correction: Correction = "holm"
    participants: tuple[str, ...] = ()
    session_labels: tuple[str, ...] = ()
    models: tuple[str, ...] = ()

    @property
    def asked(self) -> bool:
        """Whether a comparison was explicitly requested and must not be skipped."""
        return bool(self.repeatability or self.treatment or self.sessions or self.condition or self.regions)


@dataclass(frozen=True)
class CohortPlan:
    """The planned comparison; ``fits`` are those of everyone with maps."""

    choice: CohortChoice
    design: Design
    fits: tuple[FittedImage, ...]

    @property
    def compared(self) -> tuple[FittedImage, ...]:
        """Fits of those whose values are compared."""
        people = set(members(self.design))
        return tuple(fitted for fitted in self.fits if fitted.participant in people)

    @property
    def normative(self) -> bool:
        """Whether there are enough healthy participants for normative scores."""
        return len(self.design.healthy) >= FEWEST_HEALTHY and bool(self.design.patients)

    @property
    def empty(self) -> bool:
        """Whether nothing can be compared."""
        return not (self.design.repeatability or self.design.treatment or self.normative)


def plan_cohort(bids_dir: Path, output_dir: Path, choice: CohortChoice) -> CohortPlan:
    """Read the design of a study and find the maps to compare.

    Raises
    ------
    UsageError, UnknownNameError, UnusableInputError
        If the choice names something that does not exist, or the design does not identify what was requested.
    """
    fits = [
        fitted
        for fitted in find_fitted(output_dir, estimators=None)
        if (not choice.models or fitted.model in choice.models)
        and (not choice.session_labels or fitted.session in choice.session_labels)
    ]
    scanned = scanned_sessions(fits)
    if not scanned:
        raise NoInputError(
            f"{output_dir} holds no maps to compare. Make them first: bidsfit {bids_dir} {output_dir} participant"
        )
    for label in choice.participants:
        if label not in scanned:
            raise UnknownParticipantError("participant with maps", label, scanned)
    design = read_design(
        bids_dir,
        scanned,
        repeatability=choice.repeatability,
        treatment=choice.treatment,
        sessions=choice.sessions,
        condition=choice.condition,
        healthy=choice.healthy,
        participants=choice.participants,
    )
    plan = CohortPlan(choice, design, tuple(fits))
    if plan.empty and choice.asked:
        raise UnusableInputError(" ".join(["The dataset does not identify what was asked for.", *design.remarks]))
    return plan


def cohorts(plan: CohortPlan) -> list[CohortRecord]:
    """The cohorts that are compared."""
    design, choices = plan.design, plan.design.choices or {}
    found = [
        *(
            (name, n, choices.get(key, ""), choices.get(f"{key} sessions", ""))
            for name, key, n in (
                ("Repeated scans", "repeatability", len(design.repeatability)),
                ("Treated", "treatment", len(design.treatment)),
            )
        ),
        ("Healthy", len(design.healthy), choices.get("healthy", ""), "the first session"),
        ("Patients", len(design.patients), "everyone else with maps", "the first session"),
    ]
    return [
        CohortRecord(name, n, chosen, sessions)
        for name, n, chosen, sessions in found
        if n and (plan.normative or name not in ("Healthy", "Patients"))
    ]


def describe(plan: CohortPlan) -> list[str]:
    """Description of the planned comparisons, line by line."""
    if plan.empty:
        return ["Repeatability and response: nothing to compare.", *(f"  {words}" for words in plan.design.remarks)]
    said = ["Repeatability and response:"]
    said += [
        f"  {c.name.lower()}: {c.n_participants} participant{'s' if c.n_participants != 1 else ''} ({c.chosen})"
        + (f", sessions {c.sessions}" if c.sessions and c.name in ("Repeated scans", "Treated") else "")
        for c in cohorts(plan)
    ]
    fits = sorted({(fitted.model, fitted.estimator) for fitted in plan.compared})
    said.append(f"  fits: {', '.join(f'{model} by {estimator}' for model, estimator in fits)}")
    said.append(
        f"  regions: {', '.join(plan.choice.regions) or 'all that lie on the grid of the maps, and the whole mask'}; "
        f"the {STATISTICS[plan.choice.statistic]} over their voxels; correction: {plan.choice.correction}"
    )
    said += [f"  {words}" for words in plan.design.remarks]
    return [*said, *_left_out_of_cohorts(plan.design)]


def _left_out_of_cohorts(design: Design) -> list[str]:
    return [f"  left out, {one.cohort}: sub-{one.participant}: {one.reason}" for one in design.left_out]


def analyse(
    plan: CohortPlan,
    output_dir: Path,
    datasets: Sequence[Folder],
    *,
    processes: int = 1,
    about: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> list[str]:
    """Compute the statistics, write tables and page, and return messages about it.

    Parameters
    ----------
    datasets : sequence of Folder
        Datasets to search for regions, before the output folder itself.
    about : mapping, optional
        Information for the page, see `write_group_page`. It must not differ from run to run, so that equal results give
        equal pages.

    Raises
    ------
    UsageError, UnusableInputError
        If nobody has a requested region, or no map can be read.
    """
    choice, design = plan.choice, plan.design
    fits, values = FitNotes(), CohortValues(design, choice.statistic)
    origin = {"Design": dict(design.choices or {}), "Statistic": choice.statistic, "GeneratedBy": GENERATED_BY}
    with staged(output_dir) as stage:
        people = region_values(
            plan.compared,
            [*datasets, Folder("", output_dir)],
            wanted=choice.regions,
            processes=processes,
            progress=progress,
        )
        write_rois(stage, values.watch(fits.rows(people)), origin)
        arranged = values.arranged
        _require_regions(choice.regions, {one.what.region for one in arranged}, fits.problems)
        results = compute(values, fits, choice.correction)
        tables = {ROIS: CONTENTS[ROIS]}
        for name, columns, rows in (
            (
                REPEATABILITY_TABLE,
                repeatability_columns(),
                list(repeatability_rows(results.quantities, choice.statistic)),
            ),
            (
                RESPONSE_TABLE,
                response_columns(),
                list(response_rows(results.quantities, choice.statistic, choice.correction)),
            ),
        ):
            if rows:
                words = f"{CONTENTS[name][0].upper()}{CONTENTS[name][1:]}."
                write_table(stage / name, columns, rows, description=words, about=origin)
                tables[name] = CONTENTS[name]
        problems = [*missing_values(arranged, design), *fits.problems]
        record = GroupRecord(
            cohorts=tuple(cohorts(plan)),
            regions=results.regions,
            statistic=STATISTICS[choice.statistic],
            correction=choice.correction,
            n_corrected=max(results.n_tests.values(), default=0),
            training=_training(output_dir, {one.what.model for one in arranged}),
            left_out=tuple(_left_out(design, problems)),
            warnings=tuple(_warnings(plan, fits, results)),
            methods=cohort_methods(
                design, STATISTICS[choice.statistic], choice.correction, len({one.what.estimator for one in arranged})
            ),
            tables=tables,
        )
        write_group_page(stage / PAGE, record, about=about or {})
        kept = publish(stage, output_dir)
    return _said(record, [*_left_out_of_cohorts(design), *(f"  left out, {w}" for w in grouped(problems))], kept)


def _require_regions(wanted: Iterable[str], found: Iterable[str], problems: Sequence[InputProblem]) -> None:
    """Raise an error if nobody has a requested region, or there are no values at all."""
    there = {name.lower() for name in found}
    missing = [name for name in wanted if name.lower() not in there]
    if missing or not there:
        what = f"--regions {' '.join(missing)}: nobody has such a region" if missing else "Nobody has values to compare"
        shown = "".join(f"\n  {words}" for words in grouped(problems))
        raise UsageError(
            f"{what} on the grid of the maps. Regions are looked for in the datasets of -d/--derivatives "
            f"(label-NAME_mask, or dseg with a table of labels).{shown}"
        )


def _training(folder: Path, names: Iterable[str]) -> tuple[TrainingRecord, ...]:
    """Pooled distributions of the compared models."""
    found = []
    for model in sorted(names):
        for kind in KINDS:
            path = distribution_path(folder, model, kind)
            if not (path.exists() and path.with_suffix(".png").exists()):
                continue
            content = read_sidecar(path)
            people = content.get("Distribution", {}).get("Voxels", {})
            n_voxels = sum(people.values())
            words = (
                f"Least-squares fits of {len(people)} healthy participant{'s' if len(people) != 1 else ''} "
                f"({content.get('Healthy', '')}), {n_voxels:,} voxels of {KINDS[kind].removeprefix('all voxels of ')}: "
                f"{path.name}."
            )
            found.append(TrainingRecord(f"{TITLES[kind]}, {model}", path.with_suffix(".png").absolute(), words))
    return tuple(found)


def _left_out(design: Design, problems: Sequence[InputProblem]) -> list[LeftOut]:
    """Excluded participants and problems, merged over participants; of many, the first ones are named."""
    people: dict[tuple[str, str], list[str]] = {}
    for one in design.left_out:
        people.setdefault((one.cohort, one.reason), []).append(f"sub-{one.participant}")
    for problem in problems:
        people.setdefault(("the values of regions", problem.message), []).append(f"sub-{problem.participant}")
    found = []
    for (where, words), who in people.items():
        more = f" and {len(who) - MOST_NAMES} more" if len(who) > MOST_NAMES else ""
        found.append(LeftOut(f"{', '.join(who[:MOST_NAMES])}{more}", where, words))
    return found


def _warnings(plan: CohortPlan, fits: FitNotes, results: CohortResults) -> list[str]:
    """Warnings about the whole study, the most serious first."""
    design = plan.design
    found = []
    n = len(design.repeatability)
    if 0 < n < FEW:
        freedom = sum(len(one.sessions) - 1 for one in design.repeatability)
        _, low, high = scale_interval(1.0, freedom)
        found.append(
            f"Only {n} participants have repeated scans, which leaves every within-subject standard deviation "
            f"uncertain, from {100 * (1 - low):.0f} % less to {100 * (high - 1):.0f} % more. Read repeatability, and "
            "who changed, as a first impression."
        )
    for (model, estimator), names in sorted(fits.differing.items()):
        found.append(
            f"{model} by {estimator}: not all images were fitted with the same settings ({', '.join(sorted(names))}). "
            "Differences between them may be those of the settings."
            + " Fit all with one --training-snr, or all images of a participant in one run."
            * (SNR_OF_TRAINING in names)
            + " Fit all in one run, by a training on the images of all (scope: dataset)."
            * (IMAGES_OF_TRAINING in names)
        )
    if len(fits.versions) > 1:
        found.append(f"The maps are of different versions of bidsfit: {', '.join(sorted(fits.versions))}.")
    if len(set(results.n_tests.values())) > 1:
        words = ", ".join(f"{estimator} {n}" for estimator, n in results.n_tests.items())
        found.append(f"Estimators have different numbers of tests, over which p-values are corrected: {words}.")
    if design.healthy and design.patients and not plan.normative:
        found.append(
            f"Patients are not compared with the healthy: that needs {FEWEST_HEALTHY} healthy participants with maps, "
            f"and {len(design.healthy)} {'has' if len(design.healthy) == 1 else 'have'} some."
        )
    return [*found, *design.remarks]


def _said(record: GroupRecord, left_out: Sequence[str], kept: Path | None) -> list[str]:
    """Messages about what was done."""
    said = ["Repeatability and response:"]
    said += [
        f"  {c.name.lower()}: {c.n_participants} participant{'s' if c.n_participants != 1 else ''} ({c.chosen})"
        for c in record.cohorts
    ]
    said.append(f"  {', '.join([*record.tables, PAGE])}")
    said += [f"  {words}" for words in record.warnings]
    said += left_out
    if kept is not None:
        said.append(f"  The tables differ from those that were there, which are kept in {kept.name}/ with their page.")
    return said
