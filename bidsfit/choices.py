"""Reading of users' YAML and TOML files within size limits."""

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
    """Read a table in YAML; ``what`` names it in messages ("recipe").

    Aliases are refused, because with them a few lines can expand beyond any memory.

    Raises
    ------
    UsageError, UnusableInputError
        If it is not valid YAML, too long or too deep, has aliases, or is not a table.
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


def lines_of(path: Path, what: str) -> dict[tuple[str, ...], int]:
    """Line of every choice in a YAML file that `read_yaml` accepts, by the names of its tables and its own."""
    found: dict[tuple[str, ...], int] = {}

    def visit(node: yaml.Node | None, names: tuple[str, ...]) -> None:
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                found[(*names, str(key.value))] = key.start_mark.line + 1
                visit(value, (*names, str(key.value)))

    visit(yaml.compose(_short_text(path, what), Loader=yaml.SafeLoader), ())
    return found


def read_toml(path: Path, what: str) -> dict[str, Any]:
    """Read a table in TOML.

    Raises
    ------
    UsageError, UnusableInputError
        If it is not valid TOML, too long or too deep.
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
