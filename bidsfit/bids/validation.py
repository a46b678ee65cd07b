"""The BIDS validator, where it is installed."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

from bidsfit.exceptions import UnusableInputError

EXECUTABLE = "bids-validator-deno"


def validator() -> str | None:
    """Path of the validator: beside this Python, or on the search path."""
    return shutil.which(EXECUTABLE, path=str(Path(sys.executable).parent)) or shutil.which(EXECUTABLE)


def errors_of(root: Path) -> list[str]:
    """Errors that the validator finds in a dataset, one line each; empty where it is valid or cannot be run."""
    executable = validator()
    if executable is None:
        return []
    result = subprocess.run([executable, str(root), "--format", "json"], capture_output=True, text=True, check=False)
    try:
        issues = json.loads(result.stdout)["issues"]["issues"]
    except (ValueError, KeyError):
        return []  # it did not run here: that says nothing about the dataset
    return [
        f"{issue.get('location', '')}: {issue['code']}{' ' + issue['subCode'] if issue.get('subCode') else ''}"
        for issue in issues
        if issue.get("severity") == "error"
    ]


def require_valid(root: Path) -> None:
    """Raise `UnusableInputError`, listing the first errors, unless a dataset is valid."""
    errors = errors_of(root)
    if errors:
        shown = "\n".join(f"  {error}" for error in errors[:8])
        more = f"\n  ... and {len(errors) - 8} more" if len(errors) > 8 else ""
        raise UnusableInputError(
            f"{root} is not valid BIDS ({len(errors)} errors):\n{shown}{more}\n"
            "Mend the dataset, or give --skip-bids-validation to run all the same."
        )
