"""Writing of HTML pages from templates, with their style sheets embedded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import BytecodeCache, Environment, FileSystemLoader, StrictUndefined
from jinja2.bccache import Bucket
from markupsafe import Markup

from bidsfit.files import whole_file

TEMPLATES = Path(__file__).with_name("templates")


class _Compiled(BytecodeCache):
    """Templates that this process has compiled: a run writes many pages of the same."""

    def __init__(self) -> None:
        self.codes: dict[tuple[str, str], Any] = {}

    def load_bytecode(self, bucket: Bucket) -> None:
        bucket.code = self.codes.get((bucket.key, bucket.checksum))

    def dump_bytecode(self, bucket: Bucket) -> None:
        self.codes[bucket.key, bucket.checksum] = bucket.code


COMPILED = _Compiled()


def write_page(
    path: Path,
    template: str,
    content: Mapping[str, Any],
    *,
    filters: Mapping[str, Any],
    helpers: Mapping[str, Any] | None = None,
    styles: Sequence[str] = ("style.css",),
) -> Path:
    """Write an HTML page; the file is replaced only when complete, and its folder is created if needed.

    Parameters
    ----------
    path : Path
    template : str
        File name in the folder ``templates``.
    content : mapping
        Variables of the template.
    filters : mapping of name to function
        Filters of the template.
    helpers : mapping, optional
        Global variables, which macros can use too.
    styles : sequence of str
        Style sheets in the folder ``templates``; the template gets them joined, as ``style``.
    """
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        bytecode_cache=COMPILED,
    )
    environment.filters.update(filters)
    style = Markup("".join((TEMPLATES / name).read_text(encoding="utf-8") for name in styles))
    environment.globals.update(helpers or {}, style=style)
    with whole_file(path) as temporary:  # written in pieces, as the pages of a large study have tens of MB
        environment.get_template(template).stream(content).dump(str(temporary), encoding="utf-8")
    return path
