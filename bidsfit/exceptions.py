"""The errors bidsfit raises on purpose, and the exit codes that they end a program with.

Each message says what is wrong, where, and what to do.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from enum import IntEnum
from typing import ClassVar

#: Of an unknown name, so many characters are shown.
LONGEST_NAME = 100


class ExitCode(IntEnum):
    """How a program ended, as BEP027 has it for BIDS Apps; the message is for the documentation."""

    message: str

    def __new__(cls, value: int, message: str = "") -> ExitCode:
        member = int.__new__(cls, value)
        member._value_ = value
        member.message = message
        return member

    OK = 0, "all is well"
    FAILED = 1, "something failed or was left out; the messages and the reports say what and why"
    INVALID_DATASET = 16, "the BIDS validator finds errors in the dataset, or it is none"
    NO_MATCH = 18, "no participant or image is called as the filters ask"
    USAGE = 64, "the command line, or a file of options, cannot be used"
    DATA = 65, "the data cannot be used: a file is damaged, or no image has what a model needs"
    NO_INPUT = 66, "a file or folder that was named is not there, or holds nothing to work on"
    CANNOT_CREATE = 73, "results cannot be written: no permission, or others are there, which are never overwritten"
    INTERRUPTED = 130, "stopped by Ctrl-C (SIGINT)"
    TERMINATED = 143, "stopped by SIGTERM, as of a scheduler or a container"


class BidsfitError(Exception):
    """Base class: the message is for the user, and no traceback is needed to act on it."""

    exit_code: ClassVar[ExitCode] = ExitCode.FAILED


class UsageError(BidsfitError):
    """The command line or a setting cannot be used as given."""

    exit_code = ExitCode.USAGE


class CannotCreateError(UsageError):
    """Results cannot be written where they should go."""

    exit_code = ExitCode.CANNOT_CREATE


class ConflictError(CannotCreateError):
    """A result that exists was made otherwise, and is not overwritten; the message names it and what differs."""


class UnusableInputError(BidsfitError):
    """A file or a dataset cannot be used; the message names it."""

    exit_code = ExitCode.DATA


class InvalidDatasetError(UnusableInputError):
    """A dataset is not valid BIDS."""

    exit_code = ExitCode.INVALID_DATASET


class NoInputError(UnusableInputError):
    """A file or folder is not there, or holds nothing to work on."""

    exit_code = ExitCode.NO_INPUT


class NoMatchError(UnusableInputError):
    """Nothing in the dataset is called as the filters ask."""

    exit_code = ExitCode.NO_MATCH


class UnsupportedProtocolError(UnusableInputError):
    """The acquisition lacks measurements that a model needs; the message names them."""


class DiskFullError(BidsfitError):
    """A file could not be written for want of space; the message names it and says how much is free."""


class OutOfMemoryError(BidsfitError):
    """Memory did not suffice, or a process died without a word, which is that as a rule.

    The message is given what happened; what to do is added.
    """

    def __init__(self, what: str) -> None:
        super().__init__(
            f"{what} Give the run more memory (sbatch --mem, docker run --memory), or let it do less at a time "
            "(--nprocs, --omp-nthreads, or --mem with what there is), and run the same command again: it resumes."
        )


class ToolError(BidsfitError):
    """A program outside Python is missing or failed; the message holds its command and what it said."""


class UnknownNameError(UsageError):
    """A model, an estimator or a participant that does not exist; the nearest valid name is offered."""

    def __init__(self, kind: str, name: str, valid: Iterable[str]) -> None:
        name = name if len(name) <= LONGEST_NAME else name[:LONGEST_NAME] + "..."
        valid = sorted(valid)
        nearest = get_close_matches(name, valid, n=1)
        hint = f"Did you mean {nearest[0]!r}? " if nearest else ""
        shown = ", ".join(valid[:20]) + (", ..." if len(valid) > 20 else "")
        super().__init__(f"Unknown {kind} {name!r}. {hint}Valid: {shown or 'none'}.")


class UnknownParticipantError(UnknownNameError):
    """A participant whom the dataset does not have."""

    exit_code = ExitCode.NO_MATCH
