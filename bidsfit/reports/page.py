"""The one writer of pages: a template, filled in, with its style in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from bidsfit.files import write_text

TEMPLATES = Path(__file__).with_name("templates")


def write_page(
    path: Path,
    template: str,
    content: Mapping[str, Any],
    *,
    filters: Mapping[str, Any],
    helpers: Mapping[str, Any] | None = None,
    styles: Sequence[str] = ("style.css",),
) -> Path:
    """Write a page of HTML, whole or not at all; its folder is made where there is none.

    Parameters
    ----------
    path : Path
    template : str
        Its name in the folder ``templates``.
    content : mapping
        What the template shows.
    filters : mapping of name to function
    helpers : mapping, optional
        What its macros may call too.
    styles : sequence of str
        Style sheets of the folder ``templates``, in their order; the page gets them as ``style``.

    Returns
    -------
    Path
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(filters)
    style = Markup("".join((TEMPLATES / name).read_text(encoding="utf-8") for name in styles))
    environment.globals.update(helpers or {}, style=style)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, environment.get_template(template).render(content))
    return path
