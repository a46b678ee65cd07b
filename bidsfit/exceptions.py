"""The errors bidsfit raises on purpose; each message says what is wrong, where, and what to do."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

#: Of an unknown name, so many characters are shown.
LONGEST_NAME = 100


class BidsfitError(Exception):
    """Base class: the message is for the user, and no traceback is needed to act on it."""


class UsageError(BidsfitError):
    """The command line or a setting cannot be used as given."""


class UnusableInputError(BidsfitError):
    """A file or a dataset cannot be used; the message names it."""


class UnsupportedProtocolError(UnusableInputError):
    """The acquisition lacks measurements that a model needs; the message names them."""


class ConflictError(UsageError):
    """A result that exists was made otherwise, and is not overwritten; the message names it and what differs."""


class DiskFullError(BidsfitError):
    """A file could not be written for want of space; the message names it and says how much is free."""


class StepKilledError(BidsfitError):
    """The process of a step died without a word."""


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
