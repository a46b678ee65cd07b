"""The page of all participants."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from bidsfit.reports import figures
from bidsfit.reports.index import write_index
from bidsfit.reports.records import PreprocessingRecord, thumbnail_of

#: Of a name that would like to run.
HOSTILE = "sub-03_acq-<img src=x onerror=document.title=1>_dwi"


@pytest.fixture
def page(material: SimpleNamespace, tmp_path: Path) -> Path:
    """Three participants; of the second nothing was fitted, and the third has the fewest voxels without remark."""
    mask = np.ones((6, 6, 1), dtype=bool)
    panel = figures.Panel(np.ones(mask.shape), "D")
    figures.plot_thumbnail(tmp_path / "sub-01/figures/D.png", panel, mask, np.eye(4))
    for label in ("01", "02", "03"):
        (tmp_path / f"sub-{label}.html").write_text("")
    records: list[Any] = []
    for name, share in (("sub-01_dwi", 0.9), (HOSTILE, 0.4)):
        status = [{"code": 1, "name": "converged", "count": 9, "fraction": share, "message": ""}]
        drawn = {thumbnail_of("D"): "sub-01/figures/D.png"}
        fit = replace(material.fit, image=name, status=status, figures=drawn, warnings=[])
        records += [replace(material.image, name=name), fit, replace(fit, estimator="map", figures={})]
    records.append(PreprocessingRecord(image="sub-01_dwi", source="", quality={"fd_mean": 0.12}, warnings=["Moved."]))
    return write_index(tmp_path, records)


def test_it_lists_all_participants(page: Path) -> None:
    text = page.read_text()
    assert page.name == "index.html"
    assert "3 participants, 2 images." in text
    assert text.count('src="sub-01/figures/D.png"') == 2
    assert "Nothing was fitted: the report says why." in text
    assert re.findall(r'href="(sub-[^"]*)"', text) == ["sub-01.html", "sub-02.html", "sub-03.html"]
    assert "lsq, map" in text
    assert "90.0 % converged" in text
    assert "0.12" in text
    assert HOSTILE not in text
    assert "group.html" not in text  # which is not there


def test_it_is_sorted_and_searched(page: Path, asked: Callable[[Path, str], Any]) -> None:
    """Its policy lets thumbnails beside it load; a hostile name does not run."""
    script = """
      const heads = [...document.querySelectorAll(".index thead button")], search = document.getElementById("search");
      const order = () => [...document.querySelectorAll(".index tbody tr")].filter((r) => !r.hidden)
        .map((r) => r.querySelector("a").getAttribute("href").slice(4, 6));
      const picture = document.querySelector(".index img");
      if (!picture.complete) await new Promise((done) => { picture.onload = done; });
      const answers = { first: order(), width: picture.naturalWidth };
      heads[1].click(); answers.up = order(); heads[1].click(); answers.down = order();
      search.value = "MAP sub-03"; search.dispatchEvent(new Event("input")); answers.found = order();
      return { title: document.title, ...answers };"""
    assert asked(page, script) == {
        "title": "All participants · bidsfit",
        "width": 200,
        "first": ["01", "02", "03"],
        "up": ["03", "01", "02"],  # what is not known comes last
        "down": ["01", "03", "02"],
        "found": ["03"],
    }


def test_it_loads_without_a_word(page: Path, chromium: Callable[..., str]) -> None:
    assert "3 of 3" in chromium("--dump-dom", page.as_uri())


def test_of_many_images_those_with_most_to_look_at_have_more_than_a_name(
    tmp_path: Path, material: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, asked: Callable[[Path, str], Any]
) -> None:
    monkeypatch.setattr("bidsfit.reports.index.MOST_IMAGES", 2)
    warnings = {"01": [], "02": ["Look."], "03": ["Look.", "Again."]}
    records = [
        replace(material.image, name=f"sub-{label}_dwi", warnings=words, noise={"snr": 10.0 + int(label)})
        for label, words in warnings.items()
    ]
    page = write_index(tmp_path, records)
    assert "Of more than 2 images only those with most to look at have more than a name." in page.read_text()
    script = """
      const heads = [...document.querySelectorAll(".index thead button")];
      const rows = () => [...document.querySelectorAll(".index tbody tr")];
      heads[3].click();
      return rows().map((row) => [row.querySelector("a").textContent, row.cells.length]);"""
    assert asked(page, script) == [["sub-02_dwi", 5], ["sub-03_dwi", 5], ["sub-01_dwi", 1]]
