"""Configuration of Sphinx. `_ext/generate.py` checks what pages take from the code."""

from __future__ import annotations

import sys
from pathlib import Path

import bidsfit

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "_ext"))

project = "bidsfit"
author = "The bidsfit developers"
copyright = "The bidsfit developers"
release = version = bidsfit.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "check_examples",
    "docstrings",
    "generate",
    "mathml",
]
exclude_patterns = ["_build"]
source_suffix = {".md": "markdown", ".rst": "restructuredtext"}

html_theme = "furo"
html_title = f"bidsfit {release}"
html_math_renderer = "mathml"
html_copy_source = False
html_show_sourcelink = False

myst_enable_extensions = ["colon_fence", "dollarmath"]
myst_heading_anchors = 3

autodoc_typehints = "none"
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
default_role = "py:obj"
napoleon_google_docstring = False
napoleon_use_ivar = True
napoleon_use_rtype = False
