"""Files in which users write choices: YAML and TOML, small tables that are read within bounds."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import yaml

from bidsfit.exceptions import UsageError
from bidsfit.files import read_text

#: A file of choices is no longer than this (characters), and its tables and lists lie in each other at most so deep.
LONGEST, DEEPEST = 1 << 18, 20


def read_yaml(path: Path, what: str) -> dict[str, Any]:
    """A table of choices in YAML.

    Aliases are refused: with them a few lines can stand for more than any memory holds.

    Parameters
    ----------
    what : str
        What it is, for messages: "recipe".

    Raises
    ------
    UsageError, UnusableInputError
        Where it cannot be read as YAML, is too long or too deep, has aliases, or holds no table.
    """
    text, depth = _short_text(path, what), 0
    try:
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            if isinstance(event, yaml.AliasEvent):
                raise UsageError(f"The {what} {path} has an alias (*{event.anchor:.30}); write out what it stands for.")
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > DEEPEST:
                raise UsageError(f"The {what} {path} nests more than {DEEPEST} tables or lists in each other.")
        content = yaml.safe_load(text)
    except (ValueError, yaml.YAMLError) as error:  # a date that cannot be is a ValueError
        raise UsageError(f"The {what} {path} cannot be read as YAML: {_in_one_line(error)}.") from error
    if not isinstance(content, dict):
        raise UsageError(f"The {what} {path} must hold a table of choices, such as `kind: network`.")
    return content


def read_toml(path: Path, what: str) -> dict[str, Any]:
    """A table of choices in TOML.

    Raises
    ------
    UsageError, UnusableInputError
        Where it cannot be read as TOML, is too long, or too deep.
    """
    try:
        return tomllib.loads(_short_text(path, what))
    except ValueError as error:
        raise UsageError(f"The {what} {path} cannot be read as TOML: {_in_one_line(error)}.") from error
    except RecursionError as error:
        raise UsageError(f"The {what} {path} nests too many tables or lists in each other.") from error


def _short_text(path: Path, what: str) -> str:
    text = read_text(path)
    if len(text) > LONGEST:
        raise UsageError(f"The {what} {path} has {len(text):,} characters; expected at most {LONGEST:,}.")
    return text


def _in_one_line(error: Exception) -> str:
    return f"{' '.join(str(error).split()):.300}"
