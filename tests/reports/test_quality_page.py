from __future__ import annotations

import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bidsfit.bids.quality import IMAGES
from bidsfit.reports.quality_page import COLOURS, HEIGHT, NUMBERS, WIDTH, outlier_states, write_quality_page
from bidsfit.reports.vega import MOST_POINTS


def cohort(n: int, kind: str = "") -> list[dict[str, Any]]:
    rng = np.random.default_rng(1)
    return [
        {
            "participant_id": f"sub-{i:02d}",
            "session_id": None,
            "image": f"sub-{i:02d}_{kind}dwi",
            "fd_mean": 0.2 + 0.01 * float(rng.uniform(-1, 1)),
            "n_outlier_volumes": i % 2,
            "ndc": 0.95 + 0.005 * float(rng.uniform(-1, 1)),
            "n_volumes": 100 if not kind else 16,
            "snr_lowest": 30.0 if not kind else 12.0,
        }
        for i in range(1, n + 1)
    ]


class Page(HTMLParser):
    """Tags with their attributes, and rows of the figures' data; fails on tags that do not match."""

    VOID = frozenset({"meta", "wbr", "br"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.figures: list[list[dict[str, Any]]] = []
        self.counted: list[int] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if data.startswith("{"):
            rows = next(iter(json.loads(data)["datasets"].values()))
            self.figures.append([row for row in rows if "value" in row])  # without boxes
            self.counted.append(sum(row["count"] for row in rows if "count" in row))

    def values(self, name: str, tag: str = "") -> list[str]:
        return [found[name] for kind, found in self.tags if name in found and tag in ("", kind)]

    def dots(self) -> list[tuple[float, float]]:
        """Places of all dots of the pictures, in pixels of their plot."""
        found = [one for tag, one in self.tags if tag == "path" and one.get("opacity") == "0.75"]
        return [tuple(map(float, one["transform"][len("translate(") : -1].split(","))) for one in found]


def words(path: Path) -> str:
    text = re.sub(r"<(style|script)\b.*?</\1>", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
    return " ".join(re.sub(r"<[^>]+>", "", re.sub(r"</?t[dh]\b[^>]*>", " ", text.replace("<wbr>", ""))).split())


def test_outliers_are_named_and_linked(tmp_path: Path) -> None:
    rows = cohort(12)
    rows[4] |= {"fd_mean": 1.5, "ndc": 0.7}
    rows[7] |= {"fd_mean": 0.01, "report": "far/away.html"}
    path = write_quality_page(tmp_path / "group_dwi.html", rows)
    text, page = words(path), Page(path.read_text(encoding="utf-8"))
    assert "12 images of 12 participants." in text
    start = text.index("What stands out sub-05_dwi: mean framewise displacement 1.5 mm, neighbouring DWI")
    summary = text[start : text.index("Tukey")]
    assert "0.700" in summary
    assert "sub-08" not in summary  # it moved less than the others
    assert text.count("sub-08_dwi 0.01") == 2  # named beneath the picture, and in the table
    assert {"sub-05.html", "far/away.html"} <= set(page.values("href"))
    dots = [dot for figure in page.figures for dot in figure]
    standing_out = {dot["words"]: dot["colour"] for dot in dots if dot["colour"] != COLOURS[""]}
    assert standing_out == {
        "sub-05_dwi: 1.5 mm": COLOURS["worse"],
        "sub-05_dwi: 0.700": COLOURS["worse"],
        "sub-08_dwi: 0.01 mm": COLOURS["other"],
    }
    assert {"sub-05.html", "far/away.html"} <= {dot["link"] for dot in dots}


def test_of_images_that_stand_out_in_as_many_numbers_the_worst_come_first(tmp_path: Path) -> None:
    rows = cohort(12)
    for i, displacement in ((1, 1.5), (5, 1.4), (8, 3.0)):
        rows[i]["fd_mean"] = displacement
    rows[10]["ndc"] = 0.7
    text = words(write_quality_page(tmp_path / "group_dwi.html", rows))
    start = text.index("What stands out sub-")
    summary = text[start : text.index("Tukey")]
    assert re.findall(r"sub-(\d\d)_dwi", summary) == ["09", "11", "02", "06"]


def test_the_page_needs_no_other_file(tmp_path: Path) -> None:
    page = Page(write_quality_page(tmp_path / "group_dwi.html", cohort(6)).read_text(encoding="utf-8"))
    assert not {"link", "img", "iframe", "object"} & {tag for tag, _ in page.tags}
    assert page.values("src") == []
    links, identities = page.values("href") + page.values("xlink:href"), page.values("id")
    assert len(page.values("xlink:href", "a")) == 6 * 5  # dots of the pictures
    assert len(set(identities)) == len(identities)
    assert {link[1:] for link in links if link.startswith("#")} <= set(identities)
    assert all(link.startswith("#") or re.fullmatch(r"sub-\d+\.html", link) for link in links)
    assert [p.name for p in tmp_path.iterdir()] == ["group_dwi.html"]


def test_dots_tell_their_values_in_a_browser(tmp_path: Path, drawn: Callable[[Path, int], dict[str, Any]]) -> None:
    found = drawn(write_quality_page(tmp_path / "group_dwi.html", cohort(12)), 1200)
    assert found["drawn"] == 5
    assert re.fullmatch(r"sub-\d\d_dwi: [\d.]+ mm", found["told"])
    assert found["overflow"] <= 0
    assert found["clipped"] == 0
    assert found["resources"] == []


def test_kinds_of_images_are_compared_with_their_own(tmp_path: Path) -> None:
    path = write_quality_page(tmp_path / "group_dwi.html", cohort(8) + cohort(8, "acq-low_run-1_"))
    text = words(path)
    assert "16 images of 8 participants, of 2 kinds, each compared with its own." in text
    assert "No image stands out" in text  # though volumes and SNR differ between kinds
    assert "acq-low_dwi" in text
    dots = [dot for figure in Page(path.read_text(encoding="utf-8")).figures for dot in figure]
    assert "sub-01_acq-low_run-1_dwi: 12" in [dot["words"] for dot in dots]  # a dot tells its value
    assert {dot["strip"] for dot in dots} == {"dwi", "acq-low_dwi"}


def test_every_image_is_a_dot_inside_the_picture(tmp_path: Path) -> None:
    rows = cohort(MOST_POINTS)
    page = Page(write_quality_page(tmp_path / "group_dwi.html", rows).read_text(encoding="utf-8"))
    known = [key for key in NUMBERS if key in rows[0]]
    assert [len(figure) for figure in page.figures] == [MOST_POINTS] * len(known)
    assert [dot["value"] for dot in page.figures[0]] == [row["fd_mean"] for row in rows]
    assert len(page.dots()) == MOST_POINTS * len(known)
    assert all(0 <= x <= WIDTH and 0 <= y <= HEIGHT for x, y in page.dots())


def test_of_thousands_of_images_those_that_stand_out_are_shown(tmp_path: Path) -> None:
    sizes = []
    for n in (MOST_POINTS, 3000):
        rows = cohort(n)
        for row in rows[: n // 10]:
            row["ndc"] = 0.7
        rows[n // 2] |= {"fd_mean": 1.5, "ndc": 0.5}
        path = write_quality_page(tmp_path / "group_dwi.html", rows)
        sizes.append(path.stat().st_size)
    text, page = words(path), Page(path.read_text(encoding="utf-8"))
    assert sizes[1] < 1.2 * sizes[0]
    assert "What stands out sub-1501_dwi: mean framewise displacement 1.5 mm, neighbouring" in text
    assert "and 241 more, which stand out less" in text  # of 301
    assert "200 of 3,000 images, those that stand out most" in text
    assert "group_dwi.tsv" in page.values("href")
    assert "sub-1501_dwi: 1.5 mm" in [dot["words"] for dot in page.figures[0]]
    assert [len(dots) + counted for dots, counted in zip(page.figures, page.counted, strict=True)] == [3000] * 5


@pytest.mark.parametrize("n", [0, 1, 4])
def test_few_images_are_shown_without_judgement(tmp_path: Path, n: int) -> None:
    rows = cohort(n)
    for row in rows[:1]:
        row["fd_mean"] = 50.0
    text = words(write_quality_page(tmp_path / "group_dwi.html", rows))
    assert "No image stands out" in text
    if n:
        assert "Not known for any image: Largest framewise displacement" in text


def test_missing_numbers_are_counted_and_shown_as_a_dash(tmp_path: Path) -> None:
    rows = cohort(6)
    rows[2] |= {"fd_mean": None, "ndc": float("nan")}
    text = words(write_quality_page(tmp_path / "group_dwi.html", rows))
    assert text.count("Not known for 1 image.") == 2
    assert "sub-03_dwi \N{EN DASH} 1" in text


def test_what_is_no_different_does_not_stand_out() -> None:
    values = np.array([100.0] * 20 + [100.4])
    assert set(outlier_states(values, NUMBERS["n_volumes"])) == {""}
    assert outlier_states(np.append(values, 51), NUMBERS["n_volumes"])[-1] == "worse"


def test_text_is_escaped_and_links_stay_on_the_page(tmp_path: Path) -> None:
    row = cohort(1)[0] | {"image": "sub-01_<b>_dwi", "participant_id": "sub-01"}
    path = write_quality_page(tmp_path / "group_dwi.html", [row], title="A <i>study</i>", about={"Date": "today & now"})
    text = path.read_text(encoding="utf-8")
    assert "<b>" not in text
    assert "<i>" not in text
    assert "today &amp; now" in text
    with pytest.raises(ValueError, match="relative"):
        write_quality_page(path, [row | {"report": "javascript:alert(1)"}])


def test_every_number_is_in_the_table_of_images() -> None:
    assert set(NUMBERS) <= set(IMAGES)
