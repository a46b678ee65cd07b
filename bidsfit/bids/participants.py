"""Reading of participants.tsv, and selection of participants by its columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from bidsfit.exceptions import NoInputError, UnknownNameError, UnusableInputError, UsageError
from bidsfit.files import read_tsv

#: Who is healthy where the user does not say: the first that somebody is.
HEALTHY = ("group=control", "group=healthy")


def read_participants(root: Path) -> list[dict[str, str]]:
    """Rows of participants.tsv.

    Raises
    ------
    UnusableInputError
        If it does not exist or is empty.
    """
    path = root / "participants.tsv"
    if not (path.exists() or path.is_symlink()):
        raise NoInputError(
            f"{root} has no participants.tsv, which says who is healthy, and who was treated. Write one with the "
            "columns participant_id and, for example, group."
        )
    rows = read_tsv(path)
    if not rows or "participant_id" not in rows[0]:
        raise UnusableInputError(f"{path} must have a column participant_id and a row for each participant.")
    return rows


def healthy_participants(root: Path, choice: str | None) -> tuple[list[str], str]:
    """Sorted labels of the healthy participants, and the choice that selected them.

    ``choice`` is COLUMN=VALUE; by default the first of `HEALTHY` that matches a row. Errors are those of
    `participants_by`.
    """
    choices = HEALTHY if choice is None else (choice,)
    return participants_by(root, choices, "--healthy", advice="Say who is healthy with --healthy COLUMN=VALUE.")


def participants_by(root: Path, choices: Sequence[str], option: str, *, advice: str = "") -> tuple[list[str], str]:
    """Sorted labels of the participants selected by a column, and the choice that selected them.

    Parameters
    ----------
    root : Path
        Dataset.
    choices : sequence of str
        COLUMN=VALUE; the first that matches a row is used.
    option : str
        Command-line option, for messages.
    advice : str
        What to do, for messages.

    Raises
    ------
    UsageError, UnknownNameError, UnusableInputError
        If the table, column or value does not exist, or a participant has two values.
    """
    rows = read_participants(root)
    for word in choices:
        column, equals, value = word.partition("=")
        if not (equals and column and value):
            raise UsageError(f"{option} takes COLUMN=VALUE, for example group=control; found {word!r}.")
        if any(row.get(column) == value for row in rows):
            values = _values(rows, column, root / "participants.tsv")
            return sorted(label for label, own in values.items() if own == value), word
    columns = [name for name in rows[0] if name and name != "participant_id"]
    if column not in columns:
        raise UnknownNameError(f"column of {root / 'participants.tsv'} ({option} {choices[-1]}):", column, columns)
    there = ", ".join(sorted({row[column] or "nothing" for row in rows}))
    raise UsageError(
        f"No row of {root / 'participants.tsv'} has {' or '.join(choices)}. Its column {column!r} holds: {there}. "
        f"{advice or f'Choose one of them with {option} COLUMN=VALUE.'}"
    )


def _values(rows: Sequence[Mapping[str, str]], column: str, path: Path) -> dict[str, str]:
    """Values of a column by participant (without ``sub-``), who may have several rows but only one value."""
    values: dict[str, str] = {}
    for row in rows:
        label, value = (row["participant_id"] or "").removeprefix("sub-"), row.get(column) or ""
        if label and values.setdefault(label, value) != value:
            found = " and ".join(one or "nothing" for one in (values[label], value))
            raise UnusableInputError(
                f"{path} has two rows of sub-{label} whose {column} differs ({found}). Nobody can be in two groups: "
                "correct it, or choose another column."
            )
    return values
