"""Reading metadata: JSON files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from bidsfit.exceptions import UnusableInputError


def read_sidecar(path: Path) -> dict[str, Any]:
    """Read a JSON file that holds an object, such as a sidecar."""
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UnusableInputError(f"{path} cannot be read as JSON: {error}.") from error
    if not isinstance(content, dict):
        raise UnusableInputError(f"{path} must hold a JSON object ({{...}}); found {type(content).__name__}.")
    return content
