"""The page of an experiment: text, tables and figures in one HTML file that needs no network and no script."""

from __future__ import annotations

import base64
import math
import re
import struct
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from bidsfit.reports.page import write_page
from bidsfit.reports.report import breakable, count, number

Cell = str | float | int | None


@dataclass(frozen=True)
class Table:
    """Numbers in rows.

    Attributes
    ----------
    caption : str
    columns : sequence of str
    rows : sequence of sequence of str, float or None
        As long as ``columns``; floats are shown with three significant digits, None as a dash.
    emphasised : set of int
        Rows that stand out, from 0.
    """

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    emphasised: AbstractSet[int] = field(default_factory=frozenset)

    @property
    def numeric(self) -> list[bool]:
        """Which columns hold numbers, and so are right aligned."""
        return [
            any(row[i] is not None for row in self.rows) and not any(isinstance(row[i], str) for row in self.rows)
            for i in range(len(self.columns))
        ]

    @property
    def text(self) -> str:
        """All digits, with tabs between the columns, as spreadsheets take it."""
        lines = [self.columns, *[["" if cell is None else str(cell) for cell in row] for row in self.rows]]
        return "\n".join("\t".join(line) for line in lines)


@dataclass(frozen=True)
class LaboratoryFigure:
    """A picture to embed.

    Attributes
    ----------
    path : path
        Of a PNG or SVG file.
    title : str
        Its heading, and its description for those who cannot see it.
    caption : str
    """

    path: Path | str
    title: str
    caption: str = ""


@dataclass(frozen=True)
class LaboratorySection:
    """A part of the page.

    Attributes
    ----------
    title : str
    text : str
        Paragraphs, with blank lines between them.
    tables : sequence of Table
    figures : sequence of LaboratoryFigure
    """

    title: str
    text: str = ""
    tables: Sequence[Table] = ()
    figures: Sequence[LaboratoryFigure] = ()

    @property
    def paragraphs(self) -> list[str]:
        parts = (" ".join(part.split()) for part in re.split(r"\n\s*\n", self.text))
        return [part for part in parts if part]


def write_laboratory_report(
    path: Path | str,
    *,
    title: str,
    lead: str,
    sections: Sequence[LaboratorySection],
    about: Mapping[str, Any],
    head: Mapping[str, str] | None = None,
) -> Path:
    """Write the page of an experiment, whole or not at all.

    Parameters
    ----------
    path : path
    title : str
    lead : str
        A sentence or two below the title.
    sections : sequence of LaboratorySection
        In their order; a figure whose file is missing is replaced by a sentence that says so.
    about : mapping of str to object
        Facts such as the date and versions, in their order; ``command`` is shown for copying.
    head : mapping of str to str, optional
        Facts that all numbers of the page rest on, such as the protocol: shown below the lead.
    """
    for section in sections:
        for table in section.tables:
            _check(table)
    content = {"title": title, "lead": lead, "sections": sections, "about": about, "head": head or {}}
    filters, styles = {"cell": cell, "breakable": breakable}, ("style.css", "laboratory.css")
    return write_page(
        Path(path), "laboratory.html.j2", content, filters=filters, helpers={"picture": picture}, styles=styles
    )


def _check(table: Table) -> None:
    for i, row in enumerate(table.rows):
        if len(row) != len(table.columns):
            raise ValueError(
                f"Row {i} of the table {table.caption!r} has {len(row)} cells for {len(table.columns)} columns."
            )
    beyond = sorted(i for i in table.emphasised if not 0 <= i < len(table.rows))
    if beyond:
        raise ValueError(f"The table {table.caption!r} has no rows {beyond} to emphasise.")


def cell(value: Cell) -> str:
    """Text as it is, numbers with three significant digits but whole ones with all, a dash where there is none."""
    if isinstance(value, str):
        return value
    if isinstance(value, int | np.integer):
        return count(int(value))
    if value is not None and math.isinf(value):
        return "\N{INFINITY}" if value > 0 else "\N{MINUS SIGN}\N{INFINITY}"
    return number(value)


def picture(figure: LaboratoryFigure) -> Markup:
    """A figure with its picture inside the page; a sentence in its place where the file is missing."""
    try:
        data = Path(figure.path).read_bytes()
    except OSError:
        return Markup('<p class="alert">The figure {} is missing.</p>').format(str(figure.path))
    is_png = data.startswith(b"\x89PNG")
    media = "image/png" if is_png else "image/svg+xml"
    size = Markup("")
    if inches := _inches(data):  # of 96 pixels of a page each
        width, height = (round(96 * length) for length in inches)
        size = Markup(' width="{}" height="{}" style="--width:{}"').format(width, height, width)
    source = f"data:{media};base64,{base64.b64encode(data).decode()}"
    words = Markup("<figcaption>{}</figcaption>").format(figure.caption) if figure.caption else ""
    return Markup('<figure><div><img src="{}" alt="{}"{}></div>{}</figure>').format(source, figure.title, size, words)


def _inches(data: bytes) -> tuple[float, float] | None:
    """Width and height of a figure as it was drawn: at 150 dots per inch, or in points as an SVG says."""
    if data.startswith(b"\x89PNG"):
        width, height = struct.unpack(">II", data[16:24])
        return width / 150, height / 150
    stated = re.search(rb'<svg[^>]* width="([\d.]+)pt" height="([\d.]+)pt"', data)
    return (float(stated[1]) / 72, float(stated[2]) / 72) if stated else None
