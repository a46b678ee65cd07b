"""Preparation of command-line words before argparse, shared by both commands."""

from __future__ import annotations

import re
from collections.abc import Sequence


def hyphenated(argv: Sequence[str]) -> list[str]:
    """Replace underscores by hyphens in the names of options."""
    return [re.sub("^--[^=]+", lambda option: option[0].replace("_", "-"), argument) for argument in argv]
