"""The report in a browser: everything is there, shown, printed, and nothing is asked of a network."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from bidsfit.reports.report import write_report

#: Asks the browser itself what it shows; written into a copy of the report.
QUESTIONS = """
<script>
window.addEventListener("load", () => {
  document.querySelectorAll("details").forEach((part) => { part.open = true; });
  const images = [...document.images];
  const box = (element) => element.getBoundingClientRect();
  const answers = {
    sections: [...document.querySelectorAll("h2")].map((h) => h.textContent),
    widths: images.map((i) => i.naturalWidth),
    overflow: document.documentElement.scrollWidth - document.documentElement.clientWidth,
    squeezed: images.some((i) => Math.abs(box(i).width / box(i).height - i.naturalWidth / i.naturalHeight) > 0.02),
    equations: [...document.querySelectorAll("math")].map((m) => box(m).height),
    resources: performance.getEntriesByType("resource").map((r) => r.name).filter((n) => !n.startsWith("data:")),
  };
  document.body.innerHTML = "";
  document.body.setAttribute("data-answers", JSON.stringify(answers));
});
</script>
"""


@pytest.fixture(scope="module")
def report(material: SimpleNamespace) -> Path:
    return write_report(
        material.folder / "browser.html",
        participant="01",
        images=[material.image],
        fits=[material.fit],
        comparisons=[material.comparison],
        errors=[material.error],
        about=material.about,
        methods=material.methods,
    )


@pytest.mark.parametrize("width", [1366, 500])
def test_the_browser_shows_all_of_it(report: Path, tmp_path: Path, chromium: Callable[..., str], width: int) -> None:
    asked = tmp_path / "asked.html"
    text = re.sub(r"<meta http-equiv=[^>]*>", "", report.read_text(encoding="utf-8"))  # which lets no other script in
    asked.write_text(text.replace("</body>", QUESTIONS + "</body>"), encoding="utf-8")
    page = chromium(f"--window-size={width},900", "--dump-dom", asked.as_uri())
    found = re.search(r'data-answers="([^"]*)"', page)
    assert found, page[-2000:]
    answers = json.loads(found.group(1).replace("&quot;", '"').replace("&lt;", "<").replace("&gt;", ">"))
    assert answers["sections"] == ["Summary", "sub-01_acq-<low>_dwi", "Methods", "About", "Errors"]
    assert len(answers["widths"]) == 9
    assert min(answers["widths"]) > 0
    assert not answers["squeezed"]
    assert answers["overflow"] <= 0
    assert len(answers["equations"]) == 14
    assert min(answers["equations"]) > 8
    assert answers["resources"] == []


def test_it_prints(report: Path, tmp_path: Path, chromium: Callable[..., str]) -> None:
    chromium("--no-pdf-header-footer", f"--print-to-pdf={tmp_path / 'report.pdf'}", report.as_uri())
    pdf = (tmp_path / "report.pdf").read_bytes()
    assert pdf.startswith(b"%PDF")
    assert len(pdf) > 50_000
    assert len(re.findall(rb"/Type /Page\b", pdf)) <= 8
