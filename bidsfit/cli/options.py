"""What both command lines do with words before argparse sees them."""

from __future__ import annotations

import re
from collections.abc import Sequence


def hyphenated(argv: Sequence[str]) -> list[str]:
    """Options with underscores are the same options with hyphens."""
    return [re.sub("^--[^=]+", lambda option: option[0].replace("_", "-"), argument) for argument in argv]
