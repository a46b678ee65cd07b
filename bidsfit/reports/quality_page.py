"""The page of the quality of all images: how each number is distributed, and which images stand out.

One HTML file without a script: pictures are SVG in the page, whose dots tell their values and lead to the reports of
their participants.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from bidsfit.reports.bibliography import replace_file
from bidsfit.reports.canvas import ticks
from bidsfit.reports.report import TEMPLATES, breakable, count, number
from bidsfit.reports.words import percent

#: Among fewer images, none is called unusual.
FEWEST_IMAGES = 5

#: An image stands out where it lies beyond the quartiles by so many times their distance (Tukey's fences).
FENCE = 1.5

#: Pixels: width of a strip, margins at its left and right, its height, size of a dot, height of the axis.
WIDTH, LEFT, RIGHT, STRIP, DOT, AXIS = 960, 12, 12, 64, 4.5, 26
#: Pixels of the name of a kind of image, where there are several.
NAMES = 190

#: Parts of the name of an image that do not tell what was acquired.
NOT_KIND = ("sub-", "ses-", "run-")


@dataclass(frozen=True)
class Number:
    """One number of an image.

    Attributes
    ----------
    title : str
    unit : str
    worse : {"high", "low", ""}
        Which end is the bad one.
    negligible : float
        Differences below this are none, however close together the other images are.
    style : str
        How a value is written.
    meaning : str
        A sentence.
    """

    title: str
    unit: str
    worse: Literal["high", "low", ""]
    negligible: float
    style: Literal["number", "count", "percent", "correlation"]
    meaning: str

    def words(self, value: float | None) -> str:
        """A value as it is read."""
        if value is None or not math.isfinite(value):
            return number(None)
        if self.style == "count":
            return count(round(value))
        if self.style == "percent":
            return percent(value)
        return f"{value:.3f}" if self.style == "correlation" else number(value)


#: The numbers of the page, in their order.
NUMBERS: Mapping[str, Number] = {
    "fd_mean": Number(
        "Mean framewise displacement", "mm", "high", 0.05, "number", "How far the head moved from volume to volume."
    ),
    "fd_max": Number(
        "Largest framewise displacement", "mm", "high", 0.2, "number", "The largest movement between two volumes."
    ),
    "n_outlier_volumes": Number(
        "Outlier volumes", "", "high", 1, "count", "Volumes that differ from the others of their shell."
    ),
    "outlier_slices": Number(
        "Slices that lost signal",
        "",
        "high",
        0.002,
        "percent",
        "Over all volumes; movement during the weighting.",
    ),
    "dvars_max": Number(
        "Largest standardised DVARS",
        "",
        "high",
        0.1,
        "number",
        "Difference of a volume from its shell; 1 is typical.",
    ),
    "ndc": Number(
        "Neighbouring DWI correlation",
        "",
        "low",
        0.01,
        "correlation",
        "Correlation of volumes that are neighbours in q-space; noise, motion and wrong gradient tables lower it.",
    ),
    "snr_lowest": Number(
        "SNR at the lowest b-value",
        "",
        "low",
        1,
        "number",
        "Mean signal inside the mask over the noise of one volume.",
    ),
    "snr_highest": Number(
        "SNR at the highest b-value",
        "",
        "low",
        0.5,
        "number",
        "Mean signal inside the mask over the noise of one volume; below 3 the noise floor biases signals.",
    ),
    "n_volumes": Number("Volumes", "", "", 0.5, "count", "A scan that was stopped has fewer than the others."),
    "n_voxels": Number(
        "Voxels of the mask", "", "", 100, "count", "Masks that failed are much larger or smaller than the others."
    ),
}


@dataclass(frozen=True)
class Image:
    """One row of the table.

    Attributes
    ----------
    participant, session, name : str
    kind : str
        What was acquired: the name without participant, session and run.
    href : str
        Of the participant's report.
    values : mapping of str to float or None
    """

    participant: str
    session: str
    name: str
    kind: str
    href: str
    values: Mapping[str, float | None]


@dataclass
class Dot:
    """One image in a strip, in pixels."""

    image: Image
    x: float
    y: float
    words: str
    state: str


@dataclass
class Strip:
    """One number of all images of one kind."""

    kind: str
    dots: list[Dot] = field(default_factory=list)
    box: tuple[float, float, float] | None = None
    typical: str = ""


@dataclass
class Chart:
    """One number of all images."""

    key: str
    number: Number
    strips: list[Strip]
    places: list[tuple[float, str]]
    unknown: int

    @property
    def height(self) -> int:
        return STRIP * len(self.strips) + AXIS

    @property
    def outliers(self) -> list[Dot]:
        """Images that stand out, the worst first."""
        found = [dot for strip in self.strips for dot in strip.dots if dot.state]
        sign = 1 if self.number.worse == "low" else -1
        return sorted(found, key=lambda dot: (dot.state != "worse", sign * dot.x, dot.image.name))


def write_quality_page(
    path: Path | str,
    rows: Sequence[Mapping[str, Any]],
    *,
    title: str = "Quality of the images",
    about: Mapping[str, Any] | None = None,
) -> Path:
    """Write the page of the quality of all images, whole or not at all.

    Images of one kind (the same name but for participant, session and run) are compared with one another. One stands
    out where a number lies beyond the quartiles of its kind by more than 1.5 times their distance.

    Parameters
    ----------
    path : path
        Such as ``<output>/group_dwi.html``, beside the reports of the participants.
    rows : sequence of mapping
        One an image: ``participant_id``, ``session_id`` (or None), ``image``, the numbers of `NUMBERS` (None or missing
        where they are not known), and ``report``, the link to the participant's report (``<participant_id>.html`` where
        it is missing).
    title : str
    about : mapping of str to object, optional
        Facts such as the date and the version, shown as they come.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    images = [_image(row) for row in rows]
    kinds = sorted({image.kind for image in images})
    charts = [chart for key in NUMBERS if (chart := _chart(key, images, kinds)) is not None]
    found = {(chart.key, dot.image.name): dot.state for chart in charts for dot in chart.outliers}
    page = _template().render(
        title=title,
        images=images,
        kinds=kinds,
        charts=charts,
        shown=[chart.key for chart in charts],
        missing=[NUMBERS[key].title for key in NUMBERS if all(image.values[key] is None for image in images)],
        numbers=NUMBERS,
        found=found,
        standing_out=_standing_out(charts),
        about=about or {},
        fewest=FEWEST_IMAGES,
        fence=FENCE,
        sizes={"width": WIDTH, "strip": STRIP, "dot": DOT, "names": NAMES if len(kinds) > 1 else 0},
    )
    replace_file(path, page)
    return path


def _image(row: Mapping[str, Any]) -> Image:
    participant, name = str(row["participant_id"]), str(row["image"])
    values = {key: _finite(row.get(key)) for key in NUMBERS}
    kind = "_".join(part for part in name.split("_") if not part.startswith(NOT_KIND))
    href = str(row.get("report") or quote(f"{participant}.html"))
    if re.match(r"[a-z]+:", href, re.IGNORECASE):
        raise ValueError(f"The report of {name} must be a path relative to the page, found {href!r}.")
    return Image(participant, str(row.get("session_id") or ""), name, kind, href, values)


def _finite(value: Any) -> float | None:
    return None if value is None or not math.isfinite(value) else float(value)


def _standing_out(charts: Sequence[Chart]) -> list[tuple[Image, list[tuple[Chart, Dot]]]]:
    """Images that are worse than the others in some number, the one with most of them first."""
    found: dict[str, list[tuple[Chart, Dot]]] = {}
    for chart in charts:
        for dot in chart.outliers:
            if dot.state == "worse":
                found.setdefault(dot.image.name, []).append((chart, dot))
    order = sorted(found.values(), key=lambda places: (-len(places), places[0][1].image.name))
    return [(places[0][1].image, places) for places in order]


def _chart(key: str, images: Sequence[Image], kinds: Sequence[str]) -> Chart | None:
    """Places of all images on one axis; None where the number is known for none."""
    kept = [image for image in images if image.values[key] is not None]
    if not kept:
        return None
    meaning = NUMBERS[key]
    everything = np.array([image.values[key] for image in kept], dtype=float)
    low, high = _axis(everything, meaning)
    left = LEFT + (NAMES if len(kinds) > 1 else 0)

    def place(value: float) -> float:
        return round(left + (value - low) / (high - low) * (WIDTH - left - RIGHT), 1)

    strips = []
    for kind in kinds:
        own = [image for image in kept if image.kind == kind]
        strip = Strip(kind)
        strips.append(strip)
        if not own:
            continue
        values = np.array([image.values[key] for image in own], dtype=float)
        states = _states(values, meaning)
        across = np.array([place(value) for value in values])
        for image, value, x, y, state in zip(own, values, across, _pile(across), states, strict=True):
            strip.dots.append(Dot(image, float(x), y, meaning.words(float(value)), state))
        if len(own) >= FEWEST_IMAGES:
            first, middle, third = np.percentile(values, [25, 50, 75])
            strip.box = (place(first), place(middle), place(third))
            words = [meaning.words(value) for value in (middle, first, third)]
            strip.typical = f"median {words[0]}, quartiles {words[1]} and {words[2]}"
    whole = meaning.style == "count"
    steps = ticks(6, integer=whole).tick_values(low, high)
    places = [(place(step), _tick(step, meaning)) for step in steps if low <= step <= high]
    return Chart(key, meaning, strips, places, len(images) - len(kept))


def _tick(value: float, meaning: Number) -> str:
    text = f"{100 * value:g} %" if meaning.style == "percent" else f"{value:,.10g}"
    return text.replace("-", "\N{MINUS SIGN}")


def _axis(values: NDArray, meaning: Number) -> tuple[float, float]:
    """Ends of an axis: a little beyond all values, from 0 where that is not far; never empty."""
    low, high = float(values.min()), float(values.max())
    spread = max(high - low, 4 * meaning.negligible)
    middle = (low + high) / 2
    low, high = min(low, middle - spread / 2) - 0.04 * spread, max(high, middle + spread / 2) + 0.04 * spread
    if values.min() >= 0 and low < 0.35 * high:
        low = 0.0 if values.min() > 0.02 * high else -0.02 * high
    return low, min(high, 1.0) if meaning.style == "correlation" and values.max() <= 1 else high


def _states(values: NDArray, meaning: Number) -> list[str]:
    """Of each value: "worse" or "other" where it stands out, at the bad end or not, else nothing."""
    if values.size < FEWEST_IMAGES:
        return [""] * values.size
    first, third = np.percentile(values, [25, 75])
    reach = FENCE * max(third - first, meaning.negligible)
    below, above = values < first - reach, values > third + reach
    bad = {"high": above, "low": below, "": above | below}[meaning.worse]
    return ["worse" if b else "other" if o else "" for b, o in zip(bad, above | below, strict=True)]


def _pile(across: NDArray) -> list[float]:
    """Heights of dots so that those at one place lie above one another, pixels from the middle of the strip."""
    columns = np.round(across / (2 * DOT)).astype(int)
    heights, tallest = np.zeros(across.size), 1
    for column in np.unique(columns):
        members = np.flatnonzero(columns == column)
        members = members[np.argsort(across[members], kind="stable")]
        heights[members] = np.arange(members.size) - (members.size - 1) / 2
        tallest = max(tallest, members.size)
    step = min(2 * DOT + 0.5, (STRIP - 4 * DOT) / tallest)
    return [round(float(height) * step, 1) for height in heights]


def _template() -> Any:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(breakable=breakable, count=count)
    environment.globals.update(style=Markup((TEMPLATES / "style.css").read_text(encoding="utf-8")))
    return environment.get_template("quality.html.j2")
