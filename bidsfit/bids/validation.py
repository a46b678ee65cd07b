"""The BIDS validator, if installed."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Collection, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml

from bidsfit.exceptions import InvalidDatasetError

EXECUTABLE = "bids-validator-deno"


def validator() -> str | None:
    """Path of the validator, next to this Python or on the PATH."""
    return shutil.which(EXECUTABLE, path=str(Path(sys.executable).parent)) or shutil.which(EXECUTABLE)


def extended_schema() -> dict[str, Any]:
    """The BIDS schema with the terms of maps of models, which ``bep016.yml`` adds."""
    folder = files("bidsschematools.data")
    schema: dict[str, Any] = json.loads(folder.joinpath("schema.json").read_text("utf-8"))
    _add(schema, yaml.safe_load(files("bidsfit.bids").joinpath("bep016.yml").read_text("utf-8")))
    return schema


def _add(content: dict[str, Any], more: Mapping[str, Any]) -> None:
    """Merge a mapping into another; the items of a list go before its last one."""
    for key, value in more.items():
        if isinstance(value, dict):
            _add(content.setdefault(key, {}), value)
        elif key in content:
            content[key][-1:-1] = value
        else:
            content[key] = value


def errors_of(root: Path, *, extended: bool = False) -> list[tuple[str, str]] | None:
    """Errors that the validator finds in a dataset, as location and text; None if it could not be run.

    With ``extended`` it knows maps of models, as of `extended_schema`.
    """
    executable = validator()
    if executable is None:
        return None
    command = [executable, str(root), "--format", "json", "--ignoreWarnings"]
    try:
        with TemporaryDirectory() as folder:
            environment = dict(os.environ)
            if extended:
                path = Path(folder, "schema.json")
                path.write_text(json.dumps(extended_schema()), encoding="utf-8")
                environment["BIDS_SCHEMA"] = path.as_uri()
            result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        found = json.loads(result.stdout)["issues"]
    except (OSError, ValueError, KeyError):
        return None
    errors = []
    for issue in found["issues"]:
        if issue.get("severity") == "error":
            code = " ".join(filter(None, (issue["code"], issue.get("subCode"))))
            text = issue.get("issueMessage") or found.get("codeMessages", {}).get(issue["code"]) or ""
            errors.append((issue.get("location", ""), f"{' '.join(text.split())} ({code})".strip()))
    return errors


def require_valid(root: Path, participants: Collection[str]) -> None:
    """Raise `InvalidDatasetError`, listing the first errors, unless a dataset is valid for some participants.

    Errors of field maps and anatomical images are only reported: if such an image cannot be used, the step that needs
    it is left out.
    """
    found = errors_of(root)
    if found is None:
        sys.stderr.write(f"The BIDS validator ({EXECUTABLE}) cannot be run here; {root} was not validated.\n")
        return
    errors: list[str] = []
    elsewhere: list[str] = []
    for location, text in found:
        owner = re.match(r"/sub-([^/]+)/(?:ses-[^/]+/)?(?:([^/]+)/)?", location)
        if owner is None or owner[1] in participants:
            other_kind = owner is not None and owner[2] not in (None, "dwi")
            (elsewhere if other_kind else errors).append(f"  {location}: {text}")
    if errors:
        raise InvalidDatasetError(
            f"{root} is not valid BIDS {listed(errors)}\n"
            "Mend the dataset, or give --skip-bids-validation to run all the same."
        )
    if elsewhere:
        sys.stderr.write(f"{root} is not valid BIDS beside its diffusion images {listed(elsewhere)}\n")


def listed(errors: Sequence[str]) -> str:
    """Number of errors, and the first of them, as text."""
    shown = "\n".join(errors[:8])
    more = f"\n  ... and {len(errors) - 8} more" if len(errors) > 8 else ""
    return f"({len(errors)} error{'s' if len(errors) > 1 else ''}):\n{shown}{more}"
