"""Sessions of a participant: their order, and their relation to a treatment."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal, NamedTuple

from bidsfit.exceptions import UnknownNameError, UnusableInputError, UsageError
from bidsfit.files import read_tsv

#: What a session was with respect to a treatment.
Condition = Literal["pre", "post"]

#: How sessions were put in order.
Order = Literal["acq_time", "condition", "label", "--sessions"]

#: Column of the table of sessions that tells conditions, unless the user names another.
CONDITION = "condition"

#: Words for conditions, in small letters, in that column or as the label of a session.
CONDITION_WORDS: dict[str, Condition] = {
    "pre": "pre",
    "before": "pre",
    "baseline": "pre",
    "pretreatment": "pre",
    "post": "post",
    "after": "post",
    "followup": "post",
    "posttreatment": "post",
}


@dataclass(frozen=True)
class Session:
    """A session; ``label`` is without ``ses-``, and empty if images name none."""

    label: str
    time: datetime | None = None
    condition: Condition | None = None


@dataclass(frozen=True)
class Ordered:
    """The sessions of one participant in order.

    Attributes
    ----------
    by : {"acq_time", "condition", "label"}
        Criterion of the order; "label" if there is nothing to order.
    remark : str
        Peculiarity of the order, in words that hold for other participants too; may be empty.
    """

    sessions: tuple[Session, ...]
    by: Order
    remark: str = ""

    @property
    def labels(self) -> tuple[str, ...]:
        return tuple(session.label for session in self.sessions)

    def of_condition(self, condition: Condition) -> tuple[str, ...]:
        """Ordered labels of the sessions of a condition."""
        return tuple(session.label for session in self.sessions if session.condition == condition)

    @property
    def treated(self) -> bool:
        """Whether there are sessions before and after a treatment."""
        return bool(self.of_condition("pre") and self.of_condition("post"))


class NamedSessions(NamedTuple):
    """The sessions named by ``--sessions``, for all participants; labels without ``ses-``."""

    pre: str
    post: str


def named_sessions(words: Sequence[str], known: Collection[str]) -> NamedSessions | None:
    """The sessions in words of ``--sessions``, ``pre=ses-1 post=ses-2``; None without words.

    Parameters
    ----------
    known : collection of str
        Labels of the sessions that anyone has.

    Raises
    ------
    UsageError, UnknownNameError
        For another form, or a session that nobody has.
    """
    if not words:
        return None
    pairs = [word.partition("=")[::2] for word in words]
    found = {key: label.removeprefix("ses-") for key, label in pairs}
    if len(pairs) != 2 or set(found) != {"pre", "post"} or not all(found.values()):
        raise UsageError(f"--sessions takes pre=LABEL post=LABEL, for example pre=ses-1 post=ses-2; found {words!r}.")
    named = NamedSessions(found["pre"], found["post"])
    if named.pre == named.post:
        raise UsageError(f"--sessions names ses-{named.pre} twice: a change needs two sessions.")
    for label in named:
        if label not in known:
            raise UnknownNameError("session (--sessions)", label, filter(None, known))
    return named


def read_sessions(root: Path, participant: str) -> dict[str, dict[str, str]]:
    """Rows of ``sub-X/sub-X_sessions.tsv`` by label without ``ses-``; empty without such a table.

    Raises
    ------
    UnusableInputError
        If it cannot be read or contradicts itself.
    """
    path = root / f"sub-{participant}" / f"sub-{participant}_sessions.tsv"
    if not (path.exists() or path.is_symlink()):
        return {}
    rows = read_tsv(path)
    if rows and "session_id" not in rows[0]:
        raise UnusableInputError(f"{path} must have a column session_id; found {', '.join(filter(None, rows[0]))}.")
    found: dict[str, dict[str, str]] = {}
    for row in rows:
        label = (row["session_id"] or "").removeprefix("ses-")
        if found.setdefault(label, row) != row:
            raise UnusableInputError(f"{path} has two rows of ses-{label} that differ. Leave the one that is right.")
    return found


def order_sessions(labels: Collection[str], rows: dict[str, dict[str, str]], condition: str | None = None) -> Ordered:
    """Order the sessions of a participant by condition, then by ``acq_time``, else by label.

    Sessions before a treatment come before those after it, and those of one condition in the order of time.

    Parameters
    ----------
    labels : collection of str
        Sessions without ``ses-``.
    rows : mapping of label to row
        As of `read_sessions`; may lack sessions or have others.
    condition : str, optional
        Column with words of `CONDITION_WORDS`, by default `CONDITION`. For an empty cell the label is used, if it is
        such a word.
    """
    column = condition or CONDITION
    sessions = [
        Session(label, _time(rows.get(label, {}).get("acq_time")), _condition(label, rows.get(label, {}).get(column)))
        for label in labels
    ]
    times = [session.time for session in sessions if session.time is not None]
    timed = len(times) == len(sessions) and len({time.tzinfo is None for time in times}) == 1
    remark = ""
    if timed and len(set(times)) < len(times):
        timed, remark = False, "two sessions have the same acq_time, which does not order them"
    elif times and not timed:
        remark = "acq_time is not given for all sessions in one form (ISO 8601), and was not used"
    by: Order = "acq_time" if timed else "label"
    ordered = sorted(sessions, key=lambda session: _natural(session.label))
    if timed:
        ordered.sort(key=lambda session: session.time)  # type: ignore[arg-type,return-value]
    conditions = [session.condition for session in ordered]
    if "pre" in conditions and "post" in conditions and None not in conditions:
        arranged = sorted(ordered, key=lambda session: session.condition == "post")
        if timed and arranged != ordered:
            remark = "acq_time has a session after the treatment earlier than one before it; the condition was believed"
        ordered, by = arranged, "condition"
    return Ordered(tuple(ordered), by, remark)


def _time(text: str | None) -> datetime | None:
    """Time in a table cell; None if missing (n/a) or not ISO 8601."""
    try:
        return datetime.fromisoformat((text or "").strip())
    except ValueError:
        return None


def _condition(label: str, text: str | None) -> Condition | None:
    """Condition in a table cell, or if empty, from the label."""
    word = (text or "").strip()
    word = label if word in ("", "n/a") else word
    return CONDITION_WORDS.get(re.sub("[^a-z]", "", word.lower()))  # "Pre-treatment", "post2"


def _natural(label: str) -> list[tuple[int, int, str]]:
    """Sort key that places 2 before 10."""
    parts = re.findall(r"\d+|\D+", label)
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in parts]
