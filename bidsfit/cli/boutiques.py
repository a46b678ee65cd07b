"""The Boutiques descriptor of ``bidsfit`` (https://boutiques.github.io), written from its parser."""

from __future__ import annotations

import argparse
from typing import Any

from bidsfit import __version__
from bidsfit.cli.parser import DESCRIPTION, build_parser
from bidsfit.exceptions import ExitCode

#: What the descriptor calls the values of options that argparse converts to numbers.
NUMBERS: dict[Any, dict[str, Any]] = {int: {"type": "Number", "integer": True}, float: {"type": "Number"}}


def descriptor() -> dict[str, Any]:
    """Content of the descriptor: an input for every argument of the command line, in its order."""
    actions = [a for a in build_parser()._actions if not isinstance(a, argparse._HelpAction | argparse._VersionAction)]
    return {
        "name": "bidsfit",
        "tool-version": __version__,
        "schema-version": "0.5",
        "description": DESCRIPTION.strip(),
        "url": "https://github.com/bidsfit/bidsfit",
        "command-line": " ".join(["bidsfit", *map(_value_key, actions)]),
        "inputs": [_input(action) for action in actions],
        "output-files": [
            {
                "id": "results",
                "name": "Results",
                "description": "BIDS derivative dataset with maps and reports",
                "path-template": "[OUTPUT_DIR]",
            }
        ],
        "error-codes": [{"code": int(code), "description": code.message} for code in ExitCode if code],
        "tags": {"domain": ["neuroinformatics", "diffusion MRI"]},
    }


def _value_key(action: argparse.Action) -> str:
    return f"[{action.dest.upper()}]"


def _input(action: argparse.Action) -> dict[str, Any]:
    """The input of one argument; files and folders that must be there are of type File."""
    is_file = action.dest == "bids_dir" or action.metavar == "FILE"
    found: dict[str, Any] = {
        "id": action.dest,
        "name": action.dest.replace("_", " "),
        "description": (action.help or "").replace("%%", "%"),
        "value-key": _value_key(action),
        **({"type": "File" if is_file else "String"} | NUMBERS.get(action.type, {})),
    }
    if action.option_strings:
        longest = next(option for option in action.option_strings if option.startswith("--"))
        found |= {"optional": True, "command-line-flag": longest}
    if action.nargs == 0:
        found["type"] = "Flag"
    elif action.nargs is not None:
        found["list"] = True
        found |= {"min-list-entries": action.nargs, "max-list-entries": action.nargs} if action.nargs != "+" else {}
    if action.choices is not None:
        found["value-choices"] = list(action.choices)
    return found
