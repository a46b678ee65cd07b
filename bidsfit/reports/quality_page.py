"""The page of image quality: distribution of each quality measure over all images, and images that stand out.

It is a single HTML file that works without network. Dots show their values and link to the participants' reports.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from bidsfit.bids.names import parse_name
from bidsfit.reports.page import write_page
from bidsfit.reports.report import breakable, count, number
from bidsfit.reports.vega import CROWD_WORDS, FEWEST, MOST_POINTS, Dot, embedded, scripts, strips
from bidsfit.reports.words import percent

#: An image stands out where it lies beyond the quartiles by so many times their distance (Tukey's fences).
FENCE = 1.5

#: Images in the table; of more, those that stand out in most measures. Images that are named as worse than the others.
MOST_ROWS, MOST_NAMED = 200, 60

#: Pixels of a strip, and of all strips without the names of the kinds of images, where there are several.
HEIGHT, WIDTH, NARROW = 64, 900, 700

#: Colours of images that stand out at the bad end, at the other, and of those that do not; and of boxes.
COLOURS: Mapping[str, str] = {"worse": "#c2410c", "other": "#d9a521", "": "#5b7fa6"}
BOX = "#1f5fa8"

#: How numbers are written below an axis, as of d3.
FORMATS: Mapping[str, str] = {"number": "~r", "count": ",d", "percent": "~%", "correlation": "~r"}


@dataclass(frozen=True)
class QualityMetric:
    """One quality measure of an image.

    Attributes
    ----------
    title : str
    unit : str
    worse : {"high", "low", ""}
        Which values are worse.
    negligible : float
        Differences below this are ignored, even if the other images differ less.
    style : {"number", "count", "percent", "correlation"}
        How values are written.
    meaning : str
        Explanation, a sentence.
    """

    title: str
    unit: str
    worse: Literal["high", "low", ""]
    negligible: float
    style: Literal["number", "count", "percent", "correlation"]
    meaning: str

    def words(self, value: float | None) -> str:
        """A value as text."""
        if value is None or not math.isfinite(value):
            return number(None)
        if self.style == "count":
            return count(round(value))
        if self.style == "percent":
            return percent(value)
        return f"{value:.3f}" if self.style == "correlation" else number(value)


#: The numbers of the page, in their order.
NUMBERS: Mapping[str, QualityMetric] = {
    "fd_mean": QualityMetric(
        "Mean framewise displacement", "mm", "high", 0.05, "number", "How far the head moved from volume to volume."
    ),
    "fd_max": QualityMetric(
        "Largest framewise displacement", "mm", "high", 0.2, "number", "The largest movement between two volumes."
    ),
    "n_outlier_volumes": QualityMetric(
        "Outlier volumes", "", "high", 1, "count", "Volumes that differ from the others of their shell."
    ),
    "outlier_slices": QualityMetric(
        "Slices that lost signal",
        "",
        "high",
        0.002,
        "percent",
        "Over all volumes; movement during the weighting.",
    ),
    "dvars_max": QualityMetric(
        "Largest standardised DVARS",
        "",
        "high",
        0.1,
        "number",
        "Difference of a volume from its shell; 1 is typical.",
    ),
    "ndc": QualityMetric(
        "Neighbouring DWI correlation",
        "",
        "low",
        0.01,
        "correlation",
        "Correlation of volumes that are neighbours in q-space; noise, motion and wrong gradient tables lower it.",
    ),
    "snr_lowest": QualityMetric(
        "SNR at the lowest b-value",
        "",
        "low",
        1,
        "number",
        "Mean signal inside the mask over the noise of one volume.",
    ),
    "snr_highest": QualityMetric(
        "SNR at the highest b-value",
        "",
        "low",
        0.5,
        "number",
        "Mean signal inside the mask over the noise of one volume; below 3 the noise floor biases signals.",
    ),
    "n_volumes": QualityMetric("Volumes", "", "", 0.5, "count", "A scan that was stopped has fewer than the others."),
    "n_voxels": QualityMetric(
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
        Name without participant, session and run.
    href : str
        Link to the participant's report.
    values : mapping of str to float or None
    """

    participant: str
    session: str
    name: str
    kind: str
    href: str
    values: Mapping[str, float | None]


@dataclass(frozen=True)
class Judged:
    """One measure of one image. The state is "worse" or "other" for outliers (see `outlier_states`), else empty."""

    image: Image
    value: float
    words: str
    state: str


@dataclass(frozen=True)
class Chart:
    """One measure of all images; ``unknown`` is the number of images without a value."""

    key: str
    number: QualityMetric
    judged: tuple[Judged, ...]
    figure: Markup
    unknown: int

    @property
    def outliers(self) -> list[Judged]:
        """Images that stand out, the worst first."""
        sign = 1 if self.number.worse == "low" else -1
        found = [one for one in self.judged if one.state]
        return sorted(found, key=lambda one: (one.state != "worse", sign * one.value, one.image.name))


def write_quality_page(
    path: Path | str,
    rows: Sequence[Mapping[str, Any]],
    *,
    title: str = "Quality of the images",
    about: Mapping[str, Any] | None = None,
) -> Path:
    """Write the page of the quality of all images; the file is replaced only when complete.

    Images are compared with others of the same name, apart from participant, session and run. An image stands out if a
    measure lies more than 1.5 times the interquartile range beyond a quartile.

    Parameters
    ----------
    path : path
        Such as ``<output>/group_dwi.html``, in the folder of the participants' reports.
    rows : sequence of mapping
        One for each image: ``participant_id``, ``session_id`` (or None), ``image``, the measures of `NUMBERS` (None or
        missing if unknown), and ``report``, the link to the participant's report (default ``<participant_id>.html``).
    title : str
    about : mapping of str to object, optional
        Facts such as the date and the version, shown unchanged.
    """
    path = Path(path)
    images = [_image(row) for row in rows]
    kinds = sorted({image.kind for image in images})
    charts = [chart for key in NUMBERS if (chart := _chart(key, images, kinds)) is not None]
    found = {(chart.key, one.image.name): one.state for chart in charts for one in chart.outliers}
    content = {
        "title": title,
        "images": images,
        "listed": _listed(images, charts),
        "table": path.with_suffix(".tsv").name,
        "crowd_words": CROWD_WORDS,
        "crowded": any(count > MOST_POINTS for count in Counter(image.kind for image in images).values()),
        "most_named": MOST_NAMED,
        "kinds": kinds,
        "charts": charts,
        "shown": [chart.key for chart in charts],
        "missing": [NUMBERS[key].title for key in NUMBERS if all(image.values[key] is None for image in images)],
        "numbers": NUMBERS,
        "found": found,
        "standing_out": _standing_out(charts),
        "about": about or {},
        "fewest": FEWEST,
        "fence": FENCE,
        "scripts": scripts,
    }
    return write_page(path, "quality.html.j2", content, filters={"breakable": breakable, "count": count})


def _image(row: Mapping[str, Any]) -> Image:
    participant, name = str(row["participant_id"]), str(row["image"])
    values = {key: _finite(row.get(key)) for key in NUMBERS}
    kind = parse_name(name).without("sub", "ses", "run")  # what is left tells what was acquired
    href = str(row.get("report") or quote(f"{participant}.html"))
    if re.match(r"[a-z]+:", href, re.IGNORECASE):
        raise ValueError(f"The report of {name} must be a path relative to the page, found {href!r}.")
    return Image(participant, str(row.get("session_id") or ""), name, kind, href, values)


def _finite(value: Any) -> float | None:
    return None if value is None or not math.isfinite(value) else float(value)


def _standing_out(
    charts: Sequence[Chart], states: Sequence[str] = ("worse",)
) -> list[tuple[Image, list[tuple[Chart, Judged]]]]:
    """Images that stand out, with the measures in which they do: by the number of these, then by their best rank."""
    found: dict[str, list[tuple[Chart, Judged]]] = {}
    ranks: dict[str, int] = {}
    for chart in charts:
        for rank, one in enumerate(chart.outliers):
            if one.state in states:
                found.setdefault(one.image.name, []).append((chart, one))
                ranks[one.image.name] = min(rank, ranks.get(one.image.name, rank))
    order = sorted(found, key=lambda name: (-len(found[name]), ranks[name], name))
    return [(found[name][0][1].image, found[name]) for name in order]


def _listed(images: Sequence[Image], charts: Sequence[Chart]) -> Sequence[Image]:
    """Images in the table: all, or of more than `MOST_ROWS` those that stand out most."""
    if len(images) <= MOST_ROWS:
        return images
    kept = {image.name for image, _ in _standing_out(charts, ("worse", "other"))[:MOST_ROWS]}
    return [image for image in images if image.name in kept]


def _chart(key: str, images: Sequence[Image], kinds: Sequence[str]) -> Chart | None:
    """One measure of all images; None if it is unknown for all."""
    meaning = NUMBERS[key]
    judged: list[Judged] = []
    for kind in kinds:
        own = [(image, value) for image in images if image.kind == kind and (value := image.values[key]) is not None]
        states = outlier_states(np.array([value for _, value in own]), meaning)
        judged += [Judged(*found, meaning.words(found[1]), state) for found, state in zip(own, states, strict=True)]
    if not judged:
        return None
    return Chart(key, meaning, tuple(judged), _draw(judged, meaning, len(kinds) > 1), len(images) - len(judged))


def _draw(judged: Sequence[Judged], meaning: QualityMetric, several: bool) -> Markup:
    """Plot a measure with a strip for each kind of image; ``several``: whether strips have names."""
    import altair

    dots = [
        Dot(
            one.value,
            f"{one.image.name}: {one.words} {meaning.unit}".strip(),
            COLOURS[one.state],
            BOX,
            strip=one.image.kind if several else "",
            link=one.image.href,
        )
        for one in judged
    ]
    chart = strips(
        dots,
        title=None,
        scale=altair.Scale(domain=_axis(np.array([one.value for one in judged]), meaning), nice=False),
        axis=altair.Axis(format=FORMATS[meaning.style], tickCount=6, tickMinStep=float(meaning.style == "count")),
        width=NARROW if several else WIDTH,
        height=HEIGHT,
        words=meaning.words,
    )
    return embedded(chart, f"{meaning.title} of all images")


def _axis(values: NDArray, meaning: QualityMetric) -> tuple[float, float]:
    """Limits of an axis: slightly beyond all values, and from 0 if that is near; never empty."""
    low, high = float(values.min()), float(values.max())
    spread = max(high - low, 4 * meaning.negligible)
    middle = (low + high) / 2
    low, high = min(low, middle - spread / 2) - 0.04 * spread, max(high, middle + spread / 2) + 0.04 * spread
    if values.min() >= 0 and low < 0.35 * high:
        low = 0.0 if values.min() > 0.02 * high else -0.02 * high
    return low, min(high, 1.0) if meaning.style == "correlation" and values.max() <= 1 else high


def outlier_states(values: NDArray, meaning: QualityMetric) -> list[str]:
    """State of each value: "worse" for outliers at the bad end, "other" for other outliers, else empty."""
    if values.size < FEWEST:
        return [""] * values.size
    first, third = np.percentile(values, [25, 75])
    reach = FENCE * max(third - first, meaning.negligible)
    below, above = values < first - reach, values > third + reach
    bad = {"high": above, "low": below, "": above | below}[meaning.worse]
    return ["worse" if b else "other" if o else "" for b, o in zip(bad, above | below, strict=True)]
