"""The page of all participants of an output folder: maps, what happened, quality, and the way to every report."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
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

#: Images with all that is known of them; of more, those with most remarks, and the others have a link only.
MOST_IMAGES = 1000

#: Numbers of the quality of an image: key, title and unit.
QUALITY = (
    ("fd_mean", "Displacement", "mm"),
    ("n_outlier_volumes", "Outlier volumes", ""),
    ("ndc", "Neighbouring correlation", ""),
)


@dataclass(frozen=True)
class Fit:
    """What is shown of a fit: status of its voxels, and thumbnails of parameters (title and path)."""

    model: str
    estimator: str
    status: list[dict[str, Any]]
    pictures: list[tuple[str, str]]

    @classmethod
    def of(cls, record: FitRecord) -> Fit:
        pictures = [
            (f"{row['name']} by {record.estimator}", quote(path))
            for row in record.parameters
            if row["unit"] != REPORT_UNITS["arbitrary"].name  # the scale of the signal
            and (path := record.figures.get(thumbnail_of(row["name"]))) is not None
        ]
        keys = ("code", "name", "count", "fraction")
        status = [{key: row[key] for key in keys} for row in record.status if row["count"]]
        return cls(record.model, record.estimator, status, pictures)


@dataclass
class Row:
    """One image of a participant, without more of its records than is shown, as there may be many images.

    Without a name it is a participant of whom there are no records. ``remarked`` holds hashes of what is worth a look.
    """

    participant: str
    name: str = ""
    snr: float | None = None
    quality: dict[str, float | None] = field(default_factory=dict)
    fits: list[Fit] = field(default_factory=list)
    remarked: set[int] = field(default_factory=set)

    @property
    def href(self) -> str:
        return quote(f"{self.participant}.html")

    @property
    def shown(self) -> list[Fit]:
        """The first fit of every model."""
        return list({fit.model: fit for fit in reversed(self.fits)}.values())[::-1]

    @property
    def pictures(self) -> list[tuple[str, str]]:
        """Thumbnails of parameters: name and path."""
        return [picture for fit in self.shown for picture in fit.pictures]

    @property
    def fitted(self) -> float:
        """Smallest share of the voxels that was fitted without remark, over all fits; -1 without any."""
        inside = [sum(row["fraction"] for row in fit.status if row["code"] == 1) for fit in self.fits]
        return min(inside, default=-1.0)

    def add(self, record: ImageRecord | PreprocessingRecord | FitRecord) -> None:
        """Take from a record what is shown."""
        self.remarked.update(map(hash, record.warnings))
        if isinstance(record, ImageRecord):
            self.snr = record.noise.get("snr")
        elif isinstance(record, PreprocessingRecord):
            self.quality = {key: record.quality.get(key) for key, _, _ in QUALITY}
        else:
            self.fits.append(Fit.of(record))


def write_index(folder: Path, records: Iterable[Record]) -> Path:
    """Write ``index.html`` from all records of an output folder; the file is replaced only when complete.

    Participants with a report and without records are listed too: nothing was fitted for them.
    """
    rows: dict[str, Row] = {}
    for record in records:
        if isinstance(record, ImageRecord | PreprocessingRecord | FitRecord):
            name = record.name if isinstance(record, ImageRecord) else record.image
            rows.setdefault(name, Row(name.split("_")[0], name)).add(record)
    known = {one.participant for one in rows.values()}
    alone = [Row(path.stem) for path in folder.glob("sub-*.html") if path.stem not in known]
    ordered = sorted([*rows.values(), *alone], key=lambda one: (one.participant, one.name))
    telling = sorted(ordered, key=lambda one: (-len(one.remarked), one.fitted))[:MOST_IMAGES]
    script = (TEMPLATES / "index.js").read_text(encoding="utf-8")
    content = {
        "rows": ordered,
        "telling": {one.name or one.participant for one in telling},
        "most_images": MOST_IMAGES,
        "quality": [one for one in QUALITY if any(row.quality.get(one[0]) is not None for row in rows.values())],
        "pages": {name: words for name, words in PAGES.items() if (folder / name).exists()},
        "script": Markup(script),
        "policy": allowed(script, pictures="data: file: 'self'"),
    }
    helpers = {"colour": status_colour}
    styles = ("style.css", "index.css")
    return write_page(folder / INDEX, "index.html.j2", content, filters=FILTERS, helpers=helpers, styles=styles)
