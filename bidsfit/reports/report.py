"""The report of one participant: a single HTML file that works without network or scripts.

It is made from records with a Jinja2 template.
"""

from __future__ import annotations

import base64
import io
import math
import re
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from markupsafe import Markup
from PIL import Image

from bidsfit.bids.units import REPORT_UNITS
from bidsfit.preprocessing.steps import STEPS
from bidsfit.reports.bibliography import bibtex, cited, plain_text, reference_list
from bidsfit.reports.canvas import TURNS
from bidsfit.reports.comparisons import estimator_colour
from bidsfit.reports.mosaics import status_colour
from bidsfit.reports.page import write_page
from bidsfit.reports.prose import mathml, prose
from bidsfit.reports.records import (
    ComparisonRecord,
    ErrorRecord,
    FitRecord,
    ImageRecord,
    PreprocessingRecord,
    RegionsRecord,
    thumbnail_of,
)
from bidsfit.reports.viewer import MOST_BYTES, ReportVoxels, Viewer, allowed, make_viewer, script_of
from bidsfit.reports.words import percent, readable

#: Bytes of a report besides its pictures and viewers.
TEXT_BYTES = 400_000

#: Figures of the quality of an image, in their order.
QUALITY = ("traces", "outliers", "carpet", "registration", "snr")

#: Kind of figure: what it shows (for those who cannot see it), and what to know when reading it.
FIGURES = {
    "mask": ("Mask outlined on slices of the image", "The mask, outlined on the image."),
    "shells": (
        "b-value of each volume, and gradient directions of each shell",
        "b-values in the order of acquisition. Where a shell has many gradient directions, they are drawn too: a half "
        "sphere seen along z in a projection that keeps areas, opposite directions taken as one.",
    ),
    "traces": (
        "Translations, rotations, framewise displacement and differences from the shell, of each volume",
        "As far as they are known: translation and rotation of each volume against the reference (of organs that were "
        "deformed, the mean displacement), framewise displacement (movement since the volume before, rotations on a "
        "sphere of 50 mm or of the size of a smaller mask), and standardised DVARS (difference from the median image "
        "of the shell; 1 is typical). Volumes are counted from 0.",
    ),
    "outliers": (
        "Mean signal of each slice and volume against what its shell predicts",
        "Above: difference of each volume from its shell. Below: mean signal of each slice minus what the other "
        "volumes of its shell predict, in standard deviations (SD). Dots: slices that have lost signal, 4 SD or more. "
        "Grey: not judged, for want of volumes or voxels.",
    ),
    "carpet": (
        "Signals of many voxels over all volumes, as differences from their shell",
        "Voxels of the mask (rows, from the first slice to the last) over the volumes, as differences from the median "
        "of their shell in standard deviations (SD). Stripes from top to bottom are volumes that differ as a whole.",
    ),
    "snr": (
        "Signal-to-noise ratio of each shell",
        "Mean signal inside the mask over the noise of one volume; n: volumes of the shell. Dashed: SNR 3, below which "
        "noise alone raises magnitudes by more than 5 %.",
    ),
    "registration": (
        "Outlines of the image of the lowest b-value on it and on the mean image of the highest shell",
        "Registration. The outlines come from the first picture. Where fluid, bright on it, fills them as dark spots "
        "on the other, the volumes are aligned.",
    ),
    "comparison": (
        "Slices of one parameter by every estimator, and of the differences from the first",
        "Above: the maps on one colour scale, with the median and in brackets the 5th to 95th percentile. Below: what "
        "each adds to or takes from the first, on one scale, where white is no difference (not drawn where it is less "
        "than a twentieth of the floor in 95 % of the voxels); and the distributions, values beyond the range in the "
        "last bins.",
    ),
    "estimators": (
        "Measured signals and the curves of all estimators in some voxels",
        "Measured signal (points) and the curve of every estimator in a few voxels, with the parameters that belong "
        "to it. Curves that cannot be told apart may belong to parameters that differ: then the data do not decide "
        "between them.",
    ),
}


@dataclass
class Section:
    """One image with its preprocessing, comparisons and fits, and their anchors in the page."""

    anchor: str
    name: str
    image: ImageRecord | None = None
    preprocessing: PreprocessingRecord | None = None
    comparisons: list[tuple[str, ComparisonRecord]] = field(default_factory=list)
    fits: list[tuple[str, FitRecord]] = field(default_factory=list)
    regions: list[RegionsRecord] = field(default_factory=list)
    viewer: Viewer | None = None

    @property
    def cards(self) -> list[tuple[str, FitRecord, list[dict[str, Any]]]]:
        """The first fit of every model with its anchor, and its parameters with what is to be thought of them."""
        first: dict[str, tuple[str, FitRecord]] = {}
        for anchor, fit in self.fits:
            first.setdefault(fit.model, (anchor, fit))
        return [(anchor, fit, _cards(fit)) for anchor, fit in first.values()]


def write_report(
    path: Path,
    *,
    participant: str,
    images: Sequence[ImageRecord],
    fits: Sequence[FitRecord],
    errors: Sequence[ErrorRecord],
    about: Mapping[str, Any],
    methods: str,
    comparisons: Sequence[ComparisonRecord] = (),
    preprocessing: Sequence[PreprocessingRecord] = (),
    regions: Sequence[RegionsRecord] = (),
    voxels: ReportVoxels = "all",
) -> Path:
    """Write the report of a participant; the file is replaced only when complete.

    Parameters
    ----------
    path : Path
        Such as ``<output>/sub-01.html``; paths of figures in the records are relative to its folder.
    participant : str
        Label, with or without ``sub-``.
    images, fits, errors : sequence of records
        All may be empty, since skipped participants get a report, too.
    about : mapping
        ``version``, ``command``, ``run_uuid``, ``date``, ``dataset``, and the mappings ``software`` (name to
        version) and ``settings``. All are optional; other entries are shown unchanged.
    methods : str
        Paragraphs with citations ``[@key]`` and equations ``$...$``.
    comparisons : sequence of ComparisonRecord
    preprocessing : sequence of PreprocessingRecord
    regions : sequence of RegionsRecord
    voxels : {"all", "slices", "none"}
        Which voxels its viewers hold.
    """
    path = Path(path)
    sections = _sections(images, comparisons, fits, preprocessing)
    for section in sections:
        section.regions = [record for record in regions if record.image == section.name]
    _add_viewers(path.parent, sections, voxels)
    script = script_of({k: v for s in sections if s.viewer for k, v in s.viewer.equations.items()})
    content = {
        "participant": participant.removeprefix("sub-"),
        "sections": sections,
        "script": Markup(script),
        "policy": allowed(script),
        "worth_a_look": _worth_a_look(sections),
        "images": images,
        "fits": fits,
        "errors": errors,
        "about": about,
        "methods": methods,
        "references": [(key, Markup(text)) for key, text in reference_list(cited(methods))],
        "manuscript": plain_text(methods),
        "bibtex": bibtex(cited(methods)),
    }
    helpers = {
        "figure": partial(figure, path.parent),
        "thumbnail": partial(thumbnail, path.parent),
        "quality_figures": QUALITY,
        "thumbnails": lambda fit: [thumbnail_of(row["name"]) for row in fit.parameters],
        "colour": status_colour,
        "estimator_colour": estimator_colour,
    }
    return write_page(path, "report.html.j2", content, filters=FILTERS, helpers=helpers)


def _sections(
    images: Sequence[ImageRecord],
    comparisons: Sequence[ComparisonRecord],
    fits: Sequence[FitRecord],
    preprocessing: Sequence[PreprocessingRecord],
) -> list[Section]:
    """Sections of all images in this order; images without a record that have fits come last."""
    records: list[PreprocessingRecord | ComparisonRecord | FitRecord] = [*preprocessing, *comparisons, *fits]
    names = dict.fromkeys([image.name for image in images] + [record.image for record in records])
    sections = {name: Section(f"image-{i}", name) for i, name in enumerate(names, start=1)}
    for image in images:
        sections[image.name].image = image
    for prepared in preprocessing:
        sections[prepared.image].preprocessing = prepared
    for comparison in comparisons:
        section = sections[comparison.image]
        section.comparisons.append((f"{section.anchor}-comparison-{len(section.comparisons) + 1}", comparison))
    told = {(c.image, c.model): [row["name"] for row in c.estimators] for c in comparisons}

    def place(fit: FitRecord) -> tuple[str, int]:
        """Estimators are in the order of their comparison, which decides their colours."""
        names = told.get((fit.image, fit.model), [])
        return fit.model, names.index(fit.estimator) if fit.estimator in names else len(names)

    for fit in sorted(fits, key=place):
        section = sections[fit.image]
        labelled = replace(fit, warnings=[*_apart(section, fit), *fit.warnings])
        section.fits.append((f"{section.anchor}-fit-{len(section.fits) + 1}", labelled))
    return list(sections.values())


def _add_viewers(folder: Path, sections: Sequence[Section], voxels: ReportVoxels) -> None:
    """Give every image that was fitted its viewer; together with the figures they fill at most `MOST_BYTES`."""
    shown = [s for s in sections if s.image and s.fits]
    figures = {
        path
        for s in sections
        for record in (s.image, s.preprocessing, *dict(s.comparisons).values(), *dict(s.fits).values())
        if record is not None
        for path in record.figures.values()
    }
    figures |= {row["figure"] for s in sections for _, c in s.comparisons for row in c.parameters}
    files = [folder / path for path in figures if (folder / path).is_file()]
    left = MOST_BYTES - TEXT_BYTES - sum(file.stat().st_size for file in files) * 4 / 3
    for section in shown:
        assert section.image is not None
        fits = [fit for _, fit in section.fits]
        section.viewer = make_viewer(folder, section.image, fits, voxels=voxels, most=left / len(shown))


def _cards(fit: FitRecord) -> list[dict[str, Any]]:
    """Parameters of a fit, except the scale of the signal, with a thumbnail and a sentence each."""
    known = {row["name"]: row.get("surroundings", []) for row in fit.trust.get("parameters", ())}
    told = dict(zip(known, fit.trust.get("sentences", ()), strict=False))
    cards = []
    for row in fit.parameters:
        words = told.get(row["name"], "").removeprefix(f"{row['name']}: ")
        if not words and math.isinf(row.get("crb", math.nan)):
            words = "the data do not determine it in a typical voxel."
        elif not words and math.isfinite(row.get("crb", math.nan)):
            words = f"no unbiased estimator scatters less than {spread(row['crb'], row['median'])} in a typical voxel."
        if row["unit"] != REPORT_UNITS["arbitrary"].name:
            figure = fit.figures.get(thumbnail_of(row["name"]))
            words = words[:1].upper() + words[1:]
            cards.append(row | {"words": words, "figure": figure, "surroundings": known.get(row["name"])})
    return cards


def _apart(section: Section, fit: FitRecord) -> list[str]:
    """Warnings if a fit used another image, mask or kind of noise than the section describes.

    This can happen if two runs start together: one may describe the image after the other has fitted it.
    """
    image, prepared = section.image, section.preprocessing
    told: list[tuple[str, str | None, str | None]] = []
    if image is not None:
        told += [("image", fit.source, image.source), ("mask", fit.options.get("Mask"), image.mask_description)]
        told += [("noise", fit.options.get("NoiseKind"), image.noise.get("kind"))]
    if prepared is not None:
        told += [("image", fit.source, f"bids::{prepared.output}" if prepared.output else prepared.source)]
    differing = dict.fromkeys(f"the {what} {own}" for what, own, other in told if own and other and own != other)
    return [f"It was made with {' and '.join(differing)}, which is not what is told above."] if differing else []


def _worth_a_look(sections: Sequence[Section]) -> dict[str, list[tuple[str, str]]]:
    """All warnings, each once, with the anchors and names of the places they concern."""
    found: dict[str, list[tuple[str, str]]] = {}
    for section in sections:
        places = [(section.anchor, section.name, section.image.warnings)] if section.image else []
        if section.preprocessing is not None:
            places.append((f"{section.anchor}-prepared", f"{section.name} · prepared", section.preprocessing.warnings))
        places += [(anchor, f"{c.model} · side by side", c.warnings) for anchor, c in section.comparisons]
        places += [(anchor, f"{fit.model} · {fit.estimator}", fit.warnings) for anchor, fit in section.fits]
        for anchor, where, warnings in places:
            for text in warnings:
                found.setdefault(text, []).append((anchor, where))
    return found


def number(value: float | None) -> str:
    """A number with three significant digits; a dash if it is unknown or not finite."""
    if value is None or not math.isfinite(value):
        return "\N{EN DASH}"
    return readable(value)


def correlation(value: float) -> str:
    """A correlation with two decimals; a dash if it is unknown."""
    return f"{value:.2f}".replace("-", "\N{MINUS SIGN}") if math.isfinite(value) else number(value)


def spread(value: float | None, typical: float | None) -> str:
    """A spread with its ratio to a typical value in brackets; the infinity sign if it is infinite."""
    if value is not None and math.isinf(value):
        return "\N{INFINITY}"
    if value is None or math.isnan(value) or not typical or not math.isfinite(typical):
        return number(value)
    share = value / abs(typical)
    return f"{number(value)} ({f'{100 * share:.0f} %' if share >= 0.01 else percent(share)})"


def count(value: int) -> str:
    """An integer with thousands separators."""
    return f"{value:,}"


def breakable(text: str) -> Markup:
    """A file name in which lines may break at underscores and slashes."""
    return Markup("<wbr>").join(Markup.escape(part) for part in re.split(r"(?<=[_/])", text))


def chunks(items: Sequence[Any], size: int) -> list[Sequence[Any]]:
    """Items in rows of at most ``size``, of nearly equal length."""
    lines = -(-len(items) // size)
    length = -(-len(items) // max(lines, 1))
    return [items[i : i + length] for i in range(0, len(items), length)] if items else []


def thumbnail(folder: Path, relative: str, subject: str) -> Markup:
    """A small picture that is embedded; nothing if the file is missing."""
    try:
        data = base64.b64encode((folder / relative).read_bytes()).decode()
    except OSError:
        return Markup("")
    return Markup('<img src="data:image/png;base64,{}" alt="Middle slice of {}">').format(data, subject)


def figure(folder: Path, relative: str, kind: str, subject: str, captioned: bool = True) -> Markup:
    """A figure with its picture embedded; a sentence instead if the file is missing."""
    from bidsfit.reports.fit_panels import PANELS  # which draws, and loads what that needs

    if kind in PANELS.available() or kind in STEPS.available():
        drawn: Any = (PANELS if kind in PANELS.available() else STEPS).get(kind)
        shown, caption = drawn.shows, drawn.caption
    else:
        shown, caption = FIGURES.get(kind, (kind.capitalize(), ""))
    try:
        data = (folder / relative).read_bytes()
    except OSError:
        return Markup('<p class="warning">The figure {} is missing.</p>').format(relative)
    is_png = data.startswith(b"\x89PNG")
    media = "image/png" if is_png else "image/svg+xml"
    size, turns = Markup(""), ""
    if is_png:  # drawn at 150 dots per inch; an inch is 96 pixels of a page
        width, height = (round(n * 96 / 150) for n in struct.unpack(">II", data[16:24]))
        size = Markup(' width="{}" height="{}" style="--width:{}"').format(width, height, width)
        with Image.open(io.BytesIO(data)) as picture:
            turns = str(picture.info.get(TURNS, ""))
    source = f"data:{media};base64,{base64.b64encode(data).decode()}"
    words = Markup("<figcaption>{}</figcaption>").format(caption) if captioned else ""
    apart = Markup(' data-turns="{}"').format(turns) if turns else ""
    return Markup('<figure class="{}"{}><div><img src="{}" alt="{} ({})"{}></div>{}</figure>').format(
        kind, apart, source, shown, subject, size, words
    )


#: Filters of the templates of reports and of the index.
FILTERS = {
    "number": number,
    "count": count,
    "percent": percent,
    "spread": spread,
    "correlation": correlation,
    "math": mathml,
    "prose": prose,
    "breakable": breakable,
    "chunks": chunks,
}
