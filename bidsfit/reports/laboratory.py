"""The page of an experiment: text, tables and figures in a single HTML file, without network or scripts."""

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
    """A table of the page.

    Attributes
    ----------
    caption : str
    columns : sequence of str
    rows : sequence of sequence of str, float or None
        Of the length of ``columns``; floats are shown with three significant digits, None as a dash.
    emphasised : set of int
        Indices of emphasised rows, from 0.
    """

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    emphasised: AbstractSet[int] = field(default_factory=frozenset)

    @property
    def numeric(self) -> list[bool]:
        """Whether each column contains only numbers; such columns are right-aligned."""
        return [
            any(row[i] is not None for row in self.rows) and not any(isinstance(row[i], str) for row in self.rows)
            for i in range(len(self.columns))
        ]

    @property
    def text(self) -> str:
        """The table with all digits, separated by tabs, for spreadsheets."""
        lines = [self.columns, *[["" if cell is None else str(cell) for cell in row] for row in self.rows]]
        return "\n".join("\t".join(line) for line in lines)


@dataclass(frozen=True)
class LaboratoryFigure:
    """An embedded picture.

    Attributes
    ----------
    path : path
        PNG or SVG file.
    title : str
        Heading and alternative text.
    caption : str
    """

    path: Path | str
    title: str
    caption: str = ""


@dataclass(frozen=True)
class LaboratorySection:
    """A section of the page.

    Attributes
    ----------
    title : str
    text : str
        Paragraphs separated by blank lines.
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
    """Write the page of an experiment; the file is replaced only when complete.

    Parameters
    ----------
    path : path
    title : str
    lead : str
        A sentence or two below the title.
    sections : sequence of LaboratorySection
        A figure whose file is missing is replaced by a sentence that says so.
    about : mapping of str to object
        Facts such as date and versions; ``command`` can be copied from the page.
    head : mapping of str to str, optional
        Facts that hold for the whole page, such as the protocol; shown below the lead.
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
    """A table cell as text: numbers with three significant digits, integers with all, None as a dash."""
    if isinstance(value, str):
        return value
    if isinstance(value, int | np.integer):
        return count(int(value))
    if value is not None and math.isinf(value):
        return "\N{INFINITY}" if value > 0 else "\N{MINUS SIGN}\N{INFINITY}"
    return number(value)


def picture(figure: LaboratoryFigure) -> Markup:
    """A figure with its picture embedded; a sentence instead if the file is missing."""
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
    """Width and height of a figure in inches: PNG at 150 dots per inch, SVG from its points; None if unknown."""
    if data.startswith(b"\x89PNG"):
        width, height = struct.unpack(">II", data[16:24])
        return width / 150, height / 150
    stated = re.search(rb'<svg[^>]* width="([\d.]+)pt" height="([\d.]+)pt"', data)
    return (float(stated[1]) / 72, float(stated[2]) / 72) if stated else None
