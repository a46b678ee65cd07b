"""Files of a simulated repeatability study besides images: sessions, groups, true region medians."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from bidsfit.bids.regions import CONDITIONS
from bidsfit.bids.tables import GENERATED_BY, WHAT, WHO, TableColumn, write_table
from bidsfit.models.signal_model import SignalModel
from bidsfit.phantom.cohort import Cohort, Participant
from bidsfit.phantom.study import Study
from bidsfit.phantom.variation import region_medians

#: Name of the region that everyone has.
REGION = "roi"

#: The table of true medians.
TABLE = "group_truth.tsv"

#: When the first participant came; before 1925, as BIDS has it for times that are not real.
FIRST_VISIT = datetime(1924, 1, 7, 9)

#: Days between the sessions of a participant, without a treatment and with one between them.
REST, TREATMENT = 2, 42

SESSION_COLUMNS: Mapping[str, Mapping[str, Any]] = {
    "acq_time": {"Description": "When the session began (simulated)"},
    "condition": {
        "Description": "Whether the session was before or after a treatment",
        "Levels": {
            "pre": "Before the treatment of the region",
            "post": "After the treatment of the region",
            "untreated": "The participant is not treated",
        },
    },
}


@dataclass(frozen=True)
class Visit:
    """A row of a table of sessions."""

    session_id: str
    acq_time: str
    condition: str


def visits(cohort: Cohort, participant: Participant) -> Iterator[Visit]:
    """Sessions of a participant, at one participant per day."""
    treated = participant.group == "treated"
    for session in cohort.sessions(participant.group):
        days = int(participant.label) - 1 + (session - 1) * (TREATMENT if treated else REST)
        condition = ("pre" if session == 1 else "post") if treated else "untreated"
        time = (FIRST_VISIT + timedelta(days=days)).isoformat()
        yield Visit(f"ses-{session:02d}", time, condition)


def describe_groups(cohort: Cohort) -> dict[str, str]:
    """Descriptions of the groups in participants.tsv."""
    lesion = f"A lesion ({cohort.lesion_name}) in {cohort.host.lower()}"
    levels = {"healthy": "No lesion", "patient": lesion}
    if cohort.study is not None:
        levels["retest"] = f"{lesion}; scanned twice without a treatment"
        levels["treated"] = f"{lesion}; scanned before and after its treatment"
    return levels


def region_rows(cohort: Cohort, participant: Participant, session: int) -> Iterator[dict[str, Any]]:
    """Rows of the table of true medians for one session.

    D* is included under the same condition as at the group level, for comparison.
    """
    head, model = cohort.head_at(participant, session), cohort.signal_model
    names = {parameter.label: parameter.name for parameter in model.parameters}
    regions = {REGION: head.region, "whole": head.mask}
    regions |= {
        tissue.lower(): head.tissue == number for tissue, (number, _) in cohort.tissues.items() if tissue != "lesion"
    }
    least = {
        names[label]: (names[condition.label], condition.least)
        for label, condition in CONDITIONS.items()
        if label in names and condition.label in names
    }
    for found in region_medians(head, regions, least):
        yield {
            "participant": participant.label,
            "session": f"{session:02d}" if cohort.has_sessions else "",
            "group": participant.group,
            "region": found.region,
            "parameter": model[found.parameter].label,
            "unit": model[found.parameter].unit,
            "n_voxels": found.n_voxels,
            "median": found.median,
        }


def write_region_truth(path: Path, cohort: Cohort, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write the table of true medians, for comparison with ``group_rois.tsv``."""
    assert cohort.study is not None
    columns = {
        **WHO,
        "group": TableColumn("Group", "As in participants.tsv", "words"),
        "region": TableColumn(
            "Region", f"{REGION}: the homogeneous region; whole: all that is not air; else a tissue", "words"
        ),
        "parameter": WHAT["parameter"],
        "unit": WHAT["unit"],
        "n_voxels": TableColumn("Voxels", "Of the region; of Dstar those where f is 0.05 or more", "count"),
        "median": TableColumn("True median", "Of the true map over these voxels", "parameter"),
    }
    write_table(
        path,
        columns,
        rows,
        description="True medians of the parameters in regions: one row for each participant, session, region and "
        "parameter.",
        about={"Planted": planted(cohort.study, cohort.signal_model), "GeneratedBy": GENERATED_BY},
    )


def planted(study: Study, model: SignalModel) -> dict[str, Any]:
    """Simulated variation and effect, by parameter label."""

    def by_label(amounts: Mapping[str, float]) -> dict[str, float]:
        return {model[name].label: amount for name, amount in amounts.items()}

    return {
        "Description": "Coefficients of variation of the log-normal factors (mean 1) by which the whole head of a "
        "participant, and of each session, is multiplied; and the relative change of the region after the treatment.",
        "BetweenParticipants": by_label(study.between),
        "WithinParticipants": by_label(study.within),
        "TreatmentEffect": by_label(study.effect),
    }


def describe_factors(cohort: Cohort, participant: Participant, session: int) -> dict[str, dict[str, float]]:
    """Factors applied to the truth of a session, for sidecars."""
    return {
        what.capitalize(): {cohort.signal_model[name].label: round(factor, 6) for name, factor in factors.items()}
        for what, factors in cohort.factors(participant, session).items()
    }


def study_in_words(cohort: Cohort) -> str:
    """Lines of the README about the participants and the variation of the truth."""
    assert cohort.study is not None
    study, groups = cohort.study, cohort.groups

    def amounts(shares: Mapping[str, float], sign: str = "") -> str:
        return ", ".join(f"{name} {100 * share:{sign}g} %" for name, share in shares.items() if share) or "none"

    return f"""\
- Participants: {groups["healthy"]} healthy and {groups["patient"]} patients, sessions of each: {cohort.n_sessions};
  {groups["retest"]} patients scanned twice without a treatment (retest) and {groups["treated"]} scanned before and
  after one (treated). Patients have a lesion ({cohort.lesion_name}) in {cohort.host.lower()}.
- Region: `label-{REGION}_mask` in the truth, homogeneous: the lesion, or {cohort.host.lower()} where a lesion would be.
- Between participants (coefficient of variation): {amounts(study.between)}.
- Within participants, between their sessions: {amounts(study.within)}.
- Treatment, a change of the region of the treated: {amounts(study.effect, "+")}.
  Factors of participants and sessions are log-normal with mean 1 and act on the whole head; at the bounds of the
  model values are cut off. `{TABLE}` in the truth has the true medians of the regions."""
