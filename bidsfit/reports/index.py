"""The page of all participants of an output folder: maps, what happened, quality, and the way to every report."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

from markupsafe import Markup

from bidsfit.bids.units import REPORT_UNITS
from bidsfit.reports.mosaics import status_colour
from bidsfit.reports.page import TEMPLATES, write_page
from bidsfit.reports.records import FitRecord, ImageRecord, PreprocessingRecord, Record, thumbnail_of
from bidsfit.reports.report import FILTERS
from bidsfit.reports.viewer import allowed

INDEX = "index.html"

#: Pages of the group level that the index leads to, and what they hold.
PAGES = {"group_dwi.html": "Quality of all images", "group.html": "Repeatability and response"}

#: Numbers of the quality of an image: key, title and unit.
QUALITY = (
    ("fd_mean", "Displacement", "mm"),
    ("n_outlier_volumes", "Outlier volumes", ""),
    ("ndc", "Neighbouring correlation", ""),
)


@dataclass
class Row:
    """One image of a participant; without a name, a participant of whom there are no records."""

    participant: str
    name: str = ""
    image: ImageRecord | None = None
    preprocessing: PreprocessingRecord | None = None
    fits: list[FitRecord] = field(default_factory=list)

    @property
    def href(self) -> str:
        return quote(f"{self.participant}.html")

    @property
    def shown(self) -> list[FitRecord]:
        """The first fit of every model."""
        return list({fit.model: fit for fit in reversed(self.fits)}.values())[::-1]

    @property
    def pictures(self) -> list[tuple[str, str]]:
        """Thumbnails of parameters, without the scale of the signal: name and path."""
        return [
            (f"{row['name']} by {fit.estimator}", quote(path))
            for fit in self.shown
            for row in fit.parameters
            if row["unit"] != REPORT_UNITS["arbitrary"].name
            and (path := fit.figures.get(thumbnail_of(row["name"]))) is not None
        ]

    @property
    def fitted(self) -> float:
        """Smallest share of the voxels that was fitted without remark, over all fits; -1 without any."""
        inside = [sum(row["fraction"] for row in fit.status if row["code"] == 1) for fit in self.fits]
        return min(inside, default=-1.0)

    @property
    def remarks(self) -> int:
        """Number of things that are worth a look."""
        found = [self.image, self.preprocessing, *self.fits]
        return len({text for record in found if record is not None for text in record.warnings})

    @property
    def quality(self) -> dict[str, float | None]:
        known: dict[str, Any] = {} if self.preprocessing is None else self.preprocessing.quality
        return {key: known.get(key) for key, _, _ in QUALITY}

    @property
    def snr(self) -> float | None:
        return None if self.image is None else self.image.noise.get("snr")


def write_index(folder: Path, records: Iterable[Record]) -> Path:
    """Write ``index.html`` from all records of an output folder; the file is replaced only when complete.

    Participants with a report and without records are listed too: nothing was fitted for them.
    """
    rows: dict[str, Row] = {}

    def row(name: str) -> Row:
        return rows.setdefault(name, Row(name.split("_")[0], name))

    for record in records:
        if isinstance(record, ImageRecord):
            row(record.name).image = record
        elif isinstance(record, PreprocessingRecord):
            row(record.image).preprocessing = record
        elif isinstance(record, FitRecord):
            status = [one for one in record.status if one["count"]]
            light = replace(record, status=status, maps=[], trust={}, methods=[], options={})  # there may be many
            row(record.image).fits.append(light)
    known = {one.participant for one in rows.values()}
    alone = [Row(path.stem) for path in folder.glob("sub-*.html") if path.stem not in known]
    script = (TEMPLATES / "index.js").read_text(encoding="utf-8")
    content = {
        "rows": sorted([*rows.values(), *alone], key=lambda one: (one.participant, one.name)),
        "quality": [one for one in QUALITY if any(row.quality[one[0]] is not None for row in rows.values())],
        "pages": {name: words for name, words in PAGES.items() if (folder / name).exists()},
        "script": Markup(script),
        "policy": allowed(script, pictures="data: file: 'self'"),
    }
    helpers = {"colour": status_colour}
    styles = ("style.css", "index.css")
    return write_page(folder / INDEX, "index.html.j2", content, filters=FILTERS, helpers=helpers, styles=styles)
