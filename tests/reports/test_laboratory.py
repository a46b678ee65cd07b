from __future__ import annotations

import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from bidsfit.reports.evaluation import plot_learning
from bidsfit.reports.laboratory import (
    LaboratoryFigure,
    LaboratorySection,
    Table,
    cell,
    write_laboratory_report,
)

DASH, MINUS = "\N{EN DASH}", "\N{MINUS SIGN}"
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
TABLE = Table(
    "Accuracy & bias",
    ["estimator", "RMSE", "bias", "points"],
    [["lsq", 0.088321, -0.0313, 12345], ["<b>map</b>", 0.0613, None, 441]],
    {1},
)
ABOUT = {"date": "2026-01-02", "bidsfit": "1.2.3", "seed": 3, "command": "bidsfit-lab --model <smt2>"}

#: Asks the browser itself what it shows; written into a copy of the page, which has no script of its own.
QUESTIONS = """
<script>
window.addEventListener("load", () => {
  const images = [...document.images];
  const answers = {
    widths: images.map((i) => i.naturalWidth),
    overflow: document.documentElement.scrollWidth - document.documentElement.clientWidth,
    resources: performance.getEntriesByType("resource").map((r) => r.name).filter((n) => !n.startsWith("data:")),
  };
  document.body.innerHTML = "";
  document.body.setAttribute("data-answers", JSON.stringify(answers));
});
</script>
"""


class Page(HTMLParser):
    """What a page holds; fails on tags that do not match."""

    VOID = frozenset({"meta", "img", "br", "wbr", "link"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.text = ""
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text += data

    def values(self, name: str) -> list[str]:
        return [attributes[name] for _, attributes in self.tags if name in attributes]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("laboratory")
    figures = []
    for suffix in ("png", "svg"):
        drawn = plot_learning(folder / f"loss.{suffix}", [0, 1, 2], [3, 2, 1], [3, 2, 2], 1, label="loss")
        figures.append(LaboratoryFigure(drawn, f"Loss as {suffix}", "It falls."))
    sections = [
        LaboratorySection("Learning", "First\nparagraph.\n \n\nSecond, with <i>no</i> markup.", [], figures),
        LaboratorySection("Accuracy", "", [TABLE], [LaboratoryFigure(folder / "nothing.png", "Missing")]),
        LaboratorySection("Nothing"),
    ]
    return write_laboratory_report(
        folder / "new" / "page.html", title="Two compartments", lead="How far.", sections=sections, about=ABOUT
    )


@pytest.fixture(scope="module")
def page(written: Path) -> Page:
    return Page(written.read_text(encoding="utf-8"))


def test_every_link_leads_to_its_place(page: Page) -> None:
    identities = page.values("id")
    assert len(set(identities)) == len(identities)
    links = page.values("href")
    assert {link.removeprefix("#") for link in links} <= set(identities)
    assert links[1:5] == ["#section-1", "#section-1-figure-1", "#section-1-figure-2", "#section-2"]
    assert links[-1] == "#about"


def test_figures_are_in_the_page_and_nothing_is_fetched(page: Page, written: Path) -> None:
    sources = page.values("src")
    assert [source.split(";")[0] for source in sources] == ["data:image/png", "data:image/svg+xml"]
    assert page.values("alt") == ["Loss as png", "Loss as svg"]
    assert page.values("width") == ["603", "603"]  # 6.4 inches but for the margins, which are cropped
    assert "nothing.png is missing" in page.text
    text = written.read_text(encoding="utf-8")
    assert "http" not in text
    assert "url(" not in text
    assert "script" not in {tag for tag, _ in page.tags}
    assert [path.name for path in written.parent.iterdir()] == ["page.html"]


def test_text_is_shown_as_it_is(page: Page) -> None:
    for words in ("First paragraph.", "Second, with <i>no</i> markup.", "<b>map</b>", "Accuracy & bias", "<smt2>"):
        assert words in page.text
    assert "i" not in [tag for tag, _ in page.tags]
    assert [tag for tag, _ in page.tags].count("h2") == 4


def test_numbers_are_right_aligned_and_rows_emphasised(written: Path) -> None:
    text = written.read_text(encoding="utf-8")
    assert f'<td>lsq</td><td class="n">0.0883</td><td class="n">{MINUS}0.0313</td><td class="n">12,345</td>' in text
    assert (
        f'<tr class="emphasised"><td>&lt;b&gt;map&lt;/b&gt;</td><td class="n">0.0613</td><td class="n">{DASH}</td>'
        in text
    )
    assert text.count('class="emphasised"') == 1
    assert '<th scope="col">estimator</th><th scope="col" class="n">RMSE</th>' in text


def test_a_table_can_be_copied_with_all_digits(page: Page) -> None:
    copied = "estimator\tRMSE\tbias\tpoints\nlsq\t0.088321\t-0.0313\t12345\n<b>map</b>\t0.0613\t\t441"
    assert TABLE.text == copied
    assert copied in page.text


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("text", "text"),
        (0.012345, "0.0123"),
        (123456, "123,456"),
        (np.int64(12), "12"),
        (np.float64(-2.5), f"{MINUS}2.5"),
        (None, DASH),
        (np.nan, DASH),
        (-np.inf, f"{MINUS}\N{INFINITY}"),
    ],
)
def test_cells(value: float | str | None, expected: str) -> None:
    assert cell(value) == expected


def test_columns_of_nothing_are_no_numbers() -> None:
    table = Table("", ["a", "b", "c"], [[None, 1, "x"], [None, None, 2.0]])
    assert table.numeric == [False, True, False]
    assert Table("", ["a"], []).numeric == [False]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (Table("short", ["a", "b"], [[1, 2], [1]]), "Row 1 of the table 'short' has 1 cells for 2 columns"),
        (Table("beyond", ["a"], [[1]], {0, 3}), r"'beyond' has no rows \[3\]"),
    ],
)
def test_tables_that_do_not_fit_are_refused(tmp_path: Path, table: Table, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        write_laboratory_report(
            tmp_path / "page.html", title="", lead="", sections=[LaboratorySection("a", "", [table])], about={}
        )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
@pytest.mark.parametrize("width", [1366, 500])
def test_the_browser_shows_all_of_it(written: Path, tmp_path: Path, width: int) -> None:
    asked = tmp_path / "asked.html"
    asked.write_text(written.read_text(encoding="utf-8").replace("</body>", QUESTIONS + "</body>"), encoding="utf-8")
    command = [str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"]
    command += ["--disable-background-networking", "--disable-dev-shm-usage", "--host-resolver-rules=MAP * ~NOTFOUND"]
    command += [f"--user-data-dir={tmp_path / 'profile'}", f"--window-size={width},900", "--dump-dom", asked.as_uri()]
    shown = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout
    found = re.search(r'data-answers="([^"]*)"', shown)
    assert found, shown[-2000:]
    answers = json.loads(found.group(1).replace("&quot;", '"'))
    assert len(answers["widths"]) == 2
    assert min(answers["widths"]) > 0
    assert answers["overflow"] <= 0
    assert answers["resources"] == []
