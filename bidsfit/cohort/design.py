"""Design of a cohort study: which participants and sessions are compared."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bidsfit.bids.participants import healthy_participants, participants_by
from bidsfit.cohort.sessions import (
    CONDITION,
    CONDITION_WORDS,
    NamedSessions,
    Ordered,
    named_sessions,
    order_sessions,
    read_sessions,
)
from bidsfit.exceptions import UnknownNameError, UnusableInputError, UsageError

#: Repeatability is not identified by fewer participants.
FEWEST_REPEATED = 2

#: How an order of sessions reads.
ORDERS = {
    "acq_time": "by acq_time of the tables of sessions",
    "condition": "by condition (pre, post), and by time or label within it",
    "label": "by label, as no table of sessions says when they were",
}

#: Names in a sentence, at most.
SHOWN = 6


@dataclass(frozen=True)
class Repeats:
    """Ordered sessions (labels without ``ses-``) of a participant with no change in between."""

    participant: str
    sessions: tuple[str, ...]


@dataclass(frozen=True)
class Pair:
    """Sessions of a participant before and after a treatment (labels without ``ses-``)."""

    participant: str
    first: str
    second: str


@dataclass(frozen=True)
class Excluded:
    """A participant excluded from a cohort, and the reason."""

    participant: str
    cohort: str
    reason: str


@dataclass(frozen=True)
class Design:
    """Cohorts of a study. Participants are labels without ``sub-``, sorted.

    Attributes
    ----------
    repeatability : tuple of Repeats
        Participants with repeated scans and no treatment in between: none, or at least two.
    treatment : tuple of Pair
        Treated participants.
    healthy, patients : tuple of str
        For normative scores; both empty if no one is known to be healthy.
    baseline : mapping of participant to session
        First session with maps of every participant.
    choices : mapping of str to str
        How each cohort was chosen and how sessions were ordered, for the methods text.
    remarks : tuple of str
        Sentences for the reader.
    """

    repeatability: tuple[Repeats, ...] = ()
    treatment: tuple[Pair, ...] = ()
    healthy: tuple[str, ...] = ()
    patients: tuple[str, ...] = ()
    baseline: Mapping[str, str] | None = None
    choices: Mapping[str, str] | None = None
    remarks: tuple[str, ...] = ()
    left_out: tuple[Excluded, ...] = ()

    @property
    def empty(self) -> bool:
        """Whether nothing can be compared."""
        return not (self.repeatability or self.treatment or (self.healthy and self.patients))


@dataclass
class _Notes:
    """Remarks collected while a design is read."""

    choices: dict[str, str] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)
    left_out: list[Excluded] = field(default_factory=list)
    about: dict[str, list[str]] = field(default_factory=dict)

    def say(self, participant: str, words: str) -> None:
        """Add a remark about a participant; equal remarks are merged into one sentence."""
        self.about.setdefault(words, []).append(participant)

    @property
    def sentences(self) -> tuple[str, ...]:
        """All remarks."""
        return (*self.remarks, *(f"{_people(who)}: {words}" for words, who in self.about.items()))


def read_design(
    root: Path,
    scanned: Mapping[str, Collection[str]],
    *,
    repeatability: str | None = None,
    treatment: str | None = None,
    sessions: Sequence[str] = (),
    condition: str | None = None,
    healthy: str | None = None,
    participants: Sequence[str] = (),
) -> Design:
    """Read a design from participants.tsv and the tables of sessions.

    Treated participants are selected by ``treatment``, by default those with sessions called pre and post. Those with
    repeated scans are selected by ``repeatability``, by default everyone with two sessions and no treatment; of treated
    ones among them only scans before the treatment count.

    Parameters
    ----------
    root : Path
        Dataset.
    scanned : mapping of participant to collection of str
        Labels of the sessions with maps (empty for images without a session), as of `scanned_sessions`.
    repeatability, treatment, healthy : str, optional
        COLUMN=VALUE of participants.tsv.
    sessions : sequence of str
        Words of ``--sessions``: pre=LABEL post=LABEL.
    condition : str, optional
        Column of the sessions tables with conditions.
    participants : sequence of str
        Restrict to these labels (without ``sub-``); empty means everyone.

    Raises
    ------
    UsageError, UnknownNameError, UnusableInputError
        If a choice selects nobody, or the design does not identify what was requested.
    """
    if participants:
        scanned = {label: found for label, found in scanned.items() if label in participants}
    notes = _Notes()
    named = named_sessions(sessions, {label for found in scanned.values() for label in found})
    ordered = _ordered(root, scanned, condition, notes)
    if named is not None:
        notes.choices["sessions"] = f"as --sessions says: first ses-{named.pre}, then ses-{named.post}"
    treated, repeated = _cohorts(root, ordered, treatment, repeatability, participants, notes)
    if repeated and named is not None and not notes.choices.get("treatment"):
        notes.remarks.append(
            "Nobody is said to have been treated (--treatment COLUMN=VALUE): the sessions are taken for repeated scans."
        )
    pairs, repeats = _sessions_of(treated, repeated, ordered, named, notes)
    if treatment is not None and not pairs:
        what = f"--treatment {treatment} needs a participant with maps of two sessions, and nobody has"
        raise _unidentified(what, notes, "treatment")
    if len(repeats) < FEWEST_REPEATED:
        if repeatability is not None:
            raise _unidentified(
                f"--repeatability {repeatability} needs {FEWEST_REPEATED} participants with maps of two sessions, and "
                f"{len(repeats)} {'has' if len(repeats) == 1 else 'have'}",
                notes,
                "repeatability",
            )
        reason = f"only sub-{repeats[0].participant} has two" if repeats else "nobody has two"
        notes.remarks.append(
            f"Repeatability cannot be estimated: it needs two participants with repeated scans, and {reason} without a "
            "treatment in between."
        )
        repeats = []
        del notes.choices["repeatability"]
    if pairs and not repeats:
        notes.remarks.append(
            "Without repeated scans of untreated participants nobody can be called changed: only the response of the "
            "cohort is tested."
        )
    if pairs or repeats:
        _order_in_words(ordered, pairs, repeats, named, notes)
    well, ill = _groups(root, scanned, healthy, participants, notes)
    return Design(
        repeatability=tuple(repeats),
        treatment=tuple(pairs),
        healthy=tuple(well),
        patients=tuple(ill),
        baseline={label: own.labels[0] for label, own in ordered.items() if own.labels},
        choices=notes.choices,
        remarks=notes.sentences,
        left_out=tuple(notes.left_out),
    )


def _cohorts(
    root: Path,
    ordered: Mapping[str, Ordered],
    treatment: str | None,
    repeatability: str | None,
    participants: Sequence[str],
    notes: _Notes,
) -> tuple[list[str], list[str]]:
    """Treated participants, and those with repeats, according to participants.tsv and conditions."""

    def cohort(choice: str, option: str) -> list[str]:
        labels = participants_by(root, [choice], option)[0]
        return [label for label in labels if not participants or label in participants]

    repeated = None if repeatability is None else cohort(repeatability, "--repeatability")
    if treatment is not None:
        treated = cohort(treatment, "--treatment")
        notes.choices["treatment"] = treatment
    else:
        treated = [label for label, own in ordered.items() if own.treated and label not in (repeated or [])]
        if treated:
            notes.choices["treatment"] = "participants whose sessions are called pre and post"
            notes.remarks.append(
                f"{_people(treated)} count as treated, because their sessions are called pre and post. If nothing was "
                "done between them, say so with --repeatability COLUMN=VALUE."
            )
    notes.choices["repeatability"] = repeatability or "everyone with two sessions and no treatment"
    if repeated is None:
        repeated = [label for label, own in ordered.items() if len(own.sessions) > 1 and label not in treated]
    return treated, repeated


def _sessions_of(
    treated: Sequence[str],
    repeated: Sequence[str],
    ordered: Mapping[str, Ordered],
    named: NamedSessions | None,
    notes: _Notes,
) -> tuple[list[Pair], list[Repeats]]:
    """Sessions to compare; participants who lack them are excluded with a note."""
    pairs, repeats = [], []
    for label in treated:
        pair = _pair(ordered.get(label), label, named, notes)
        if isinstance(pair, Pair):
            pairs.append(pair)
        else:
            notes.left_out.append(Excluded(label, "treatment", pair))
    for label in repeated:
        scans = _repeats(ordered.get(label), label, named, label in treated)
        if isinstance(scans, Repeats):
            repeats.append(scans)
            if label not in treated and ordered[label].treated:
                notes.say(label, "the sessions are called pre and post, and are taken for repeated scans as you chose.")
        else:
            notes.left_out.append(Excluded(label, "repeatability", scans))
    return pairs, repeats


def _ordered(
    root: Path, scanned: Mapping[str, Collection[str]], condition: str | None, notes: _Notes
) -> dict[str, Ordered]:
    """Ordered sessions by participant; peculiarities become remarks."""
    ordered, columns, words = {}, set(), set()
    for label in sorted(scanned):
        rows = read_sessions(root, label)
        for row in rows.values():
            columns |= {name for name in row if name}
            words.add(row.get(condition or CONDITION) or "n/a")
        ordered[label] = order_sessions(scanned[label], rows, condition)
        if ordered[label].remark:
            notes.say(label, f"{ordered[label].remark}.")
    if condition is not None and condition not in columns:
        raise UnknownNameError("column of the tables of sessions (sub-*_sessions.tsv):", condition, columns)
    if condition is not None and not any(s.condition for own in ordered.values() for s in own.sessions):
        raise UsageError(
            f"The column {condition!r} of the tables of sessions holds no word for a condition; found "
            f"{', '.join(sorted(words))}, expected {', '.join(CONDITION_WORDS)}. Name the sessions with --sessions "
            "pre=LABEL post=LABEL."
        )
    return ordered


def _pair(own: Ordered | None, label: str, named: NamedSessions | None, notes: _Notes) -> Pair | str:
    """Sessions of a participant before and after treatment, or why they are unknown."""
    if own is None:
        return "no maps"
    if named is not None:
        return _lacking(own, named) or Pair(label, *named)
    if len(own.sessions) < 2:
        return "maps of one session only"
    first, second = own.labels[0], own.labels[-1]
    if own.treated:
        first, second = own.of_condition("pre")[0], own.of_condition("post")[-1]
    elif any(session.condition for session in own.sessions):
        known = ", ".join(f"ses-{s.label} {s.condition or 'unknown'}" for s in own.sessions)
        return f"not one session before and one after the treatment ({known})"
    if len(own.sessions) > 2:
        notes.say(
            label,
            f"more than two sessions; the change is that from ses-{first} to ses-{second}. Choose others with "
            "--sessions pre=LABEL post=LABEL.",
        )
    return Pair(label, first, second)


def _repeats(own: Ordered | None, label: str, named: NamedSessions | None, treated: bool) -> Repeats | str:
    """Repeated scans of a participant (by default all sessions), or why there are none."""
    if own is None:
        return "no maps"
    if treated:
        before = own.of_condition("pre")
        return Repeats(label, before) if len(before) > 1 else "treated, without two sessions known to be before that"
    if named is not None:
        return _lacking(own, named) or Repeats(label, tuple(named))
    return Repeats(label, own.labels) if len(own.sessions) > 1 else "maps of one session only"


def _lacking(own: Ordered, named: NamedSessions) -> str:
    """Named sessions that a participant lacks, as text; may be empty."""
    missing = [f"ses-{session}" for session in named if session not in own.labels]
    return f"no maps of {' and '.join(missing)}" if missing else ""


def _unidentified(what: str, notes: _Notes, cohort: str) -> UnusableInputError:
    """Error for a design that does not identify what was requested, listing who was excluded."""
    lines = [f"sub-{one.participant}: {one.reason}" for one in notes.left_out if one.cohort == cohort]
    shown = "".join(f"\n  {line}" for line in lines[:SHOWN])
    more = f"\n  ... and {len(lines) - SHOWN} more" if len(lines) > SHOWN else ""
    return UnusableInputError(f"{what}.{shown}{more}\nRun the participant level for the sessions that are missing.")


def _order_in_words(
    ordered: Mapping[str, Ordered],
    pairs: Sequence[Pair],
    repeats: Sequence[Repeats],
    named: NamedSessions | None,
    notes: _Notes,
) -> None:
    """Note by what the sessions were ordered, overall and for each cohort."""
    cohorts: dict[str, Sequence[Pair | Repeats]] = {
        "sessions": [*pairs, *repeats],
        "treatment sessions": pairs,
        "repeatability sessions": repeats,
    }
    for key, used in cohorts.items():
        ways = Counter(ordered[label].by for label in {one.participant for one in used})
        words = [
            ORDERS[way] + (f" ({count} participant{'s' if count > 1 else ''})" if len(ways) > 1 else "")
            for way, count in ways.most_common()
        ]
        notes.choices[key] = "; ".join(words) if named is None else notes.choices["sessions"]
    if named is None and any(ordered[pair.participant].by == "label" for pair in pairs):
        notes.remarks.append(
            "Sessions before and after a treatment are told apart by the order of their labels. Name them with "
            "--sessions pre=LABEL post=LABEL, or write acq_time or condition into the tables of sessions."
        )


def _groups(
    root: Path,
    scanned: Mapping[str, Collection[str]],
    healthy: str | None,
    participants: Sequence[str],
    notes: _Notes,
) -> tuple[list[str], list[str]]:
    """Healthy participants with maps, and other participants with maps."""
    try:
        labels, choice = healthy_participants(root, healthy)
    except (UsageError, UnusableInputError):
        if healthy is not None:
            raise
        notes.remarks.append(
            "Nobody is known to be healthy, so that there is no healthy distribution to compare with. Say who is with "
            "--healthy COLUMN=VALUE."
        )
        return [], []
    for label in labels:
        if label not in scanned and (not participants or label in participants):
            notes.left_out.append(Excluded(label, "healthy", "no maps"))
    notes.choices["healthy"] = choice
    return [label for label in labels if label in scanned], sorted(set(scanned) - set(labels))


def _people(labels: Sequence[str]) -> str:
    """Participants as part of a sentence."""
    shown = [f"sub-{label}" for label in labels[:SHOWN]]
    more = [f"{len(labels) - SHOWN} more"] if len(labels) > SHOWN else []
    words = [*shown, *more]
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
