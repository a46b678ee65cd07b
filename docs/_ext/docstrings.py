"""Small repairs of docstrings before napoleon reads them."""

from __future__ import annotations

import re
from typing import Any

from sphinx.application import Sphinx


def mend(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Number references over the page, and keep colons in the docstrings of properties.

    Every docstring counts its references from 1, and napoleon takes a property's "Weights: ..." for its type.
    """
    label = name.replace(".", "-").lower()
    lines[:] = [re.sub(r"(^\.\. |\s)\[(\d+)\](_|\s)", rf"\1[#{label}-\2]\3", line) for line in lines]
    if what == "property" and lines:
        lines[0] = lines[0].replace(": ", ", ", 1)


def setup(app: Sphinx) -> dict[str, Any]:
    """Run before napoleon."""
    app.connect("autodoc-process-docstring", mend, priority=400)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
