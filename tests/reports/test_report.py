from __future__ import annotations

import json
from dataclasses import asdict, replace
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bidsfit import models
from bidsfit.estimators.summary import ParameterSummary
from bidsfit.exceptions import UnusableInputError
from bidsfit.reports import figures as draw
from bidsfit.reports.prose import mathml, prose
from bidsfit.reports.records import ErrorRecord, PreprocessingRecord, Record, read_record, thumbnail_of, write_record
from bidsfit.reports.report import chunks, correlation, number, percent, spread, write_report
from bidsfit.reports.trust import trust_row
from bidsfit.trust.flags import Flag
from bidsfit.trust.summary import ParameterTrust, TrustSummary, trust_summary

DASH, MINUS = "\N{EN DASH}", "\N{MINUS SIGN}"


class Page(HTMLParser):
    """What a page holds: headings, ids, links and sources; fails on tags that do not match."""

    VOID = frozenset({"meta", "img", "br", "wbr", "link"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.attributes: list[tuple[str, dict[str, str]]] = []
        self.text = ""
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes.append((tag, {name: value or "" for name, value in attrs}))
        if tag in ("td", "th"):
            self.text += " "
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not {"style", "script"} & {*self.open}:
            self.text += data

    def values(self, name: str) -> list[str]:
        return [attributes[name] for _, attributes in self.attributes if name in attributes]


def written(material: SimpleNamespace, path: Path, **changes: Any) -> str:
    arguments: dict[str, Any] = {
        "participant": "sub-01",
        "images": [material.image],
        "fits": [material.fit],
        "comparisons": [material.comparison],
        "errors": [],
        "about": material.about,
        "methods": material.methods,
    }
    return write_report(path, **arguments | changes).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(material: SimpleNamespace) -> Page:
    return Page(written(material, material.folder / "sub-01.html"))


def test_sections_come_in_their_order(page: Page) -> None:
    order = ["summary", "image-1", "image-1-comparison-1", "image-1-fit-1", "image-1-acquired"]
    order += ["methods", "about", "errors"]
    assert [identity for identity in page.values("id") if identity in order] == order


def test_every_link_inside_the_page_leads_somewhere(page: Page) -> None:
    identities = page.values("id")
    assert len(set(identities)) == len(identities)
    links = page.values("href")
    assert {link[1:] for link in links if link.startswith("#")} <= set(identities)
    assert all(link.startswith(("#", "https://doi.org/")) for link in links)


def test_the_page_needs_no_other_file(page: Page) -> None:
    assert all(source.startswith("data:image/png;base64,") for source in page.values("src"))
    assert len(page.values("src")) == 9
    assert not {"link", "iframe", "object"} & {tag for tag, _ in page.attributes}
    text = (Path(__file__).parents[2] / "bidsfit/reports/templates/style.css").read_text()
    assert "url(" not in text
    assert "@import" not in text


def test_the_first_screen_has_a_map_and_a_sentence_for_every_parameter(
    material: SimpleNamespace, tmp_path: Path
) -> None:
    folder, mask = tmp_path / "sub-01" / "figures", np.ones((6, 6, 3), dtype=bool)
    path = draw.plot_thumbnail(folder / "D.png", draw.Panel(np.ones(mask.shape), "D"), mask, np.diag([1, 2, 3, 1]))
    with Image.open(path) as picture:
        assert picture.size == (100, 200)  # as wide as in millimetres
    figures = {thumbnail_of("D"): "sub-01/figures/D.png"}
    trust = {
        "sentences": ["D: changes of a single voxel below 0.3 cannot be seen."],
        "truths": 9, "snr": 20.0, "flags": [], "others": [], "own_error": "",
    }  # fmt: skip
    rows = [row | {"unit": "a.u."} if row["name"] == "S0" else row for row in material.fit.parameters]
    told = {"latex": "D", "unit": "", **dict.fromkeys(("median", "bias", "sd", "rmse", "response", "biased"), 0.5)}
    trust["parameters"] = [{"name": "D", **told}]
    fit = replace(material.fit, parameters=rows, figures=figures, trust=trust)
    page = Page(written(material, tmp_path / "sub-01.html", fits=[fit], comparisons=[], images=[]))
    summary = " ".join(page.text.split("Status of the voxels")[0].split())
    assert "Changes of a single voxel below 0.3 cannot be seen." in summary
    assert "No unbiased estimator scatters less than 0.06 (8 %) in a typical voxel." in summary  # f
    assert "The data do not determine it in a typical voxel." in summary  # Dstar
    assert page.values("alt").count("Middle slice of D by lsq") == 1
    assert page.values("class").count("card") == 3  # not the scale of the signal


def test_the_surroundings_of_a_voxel_are_shown_side_by_side(material: SimpleNamespace, tmp_path: Path) -> None:
    """On the first screen and in the table of errors: what is expected in each, and in words what of a change shows."""
    model, shown = models.get("ivim"), {"homogeneous": 0.97, "edge": 0.64, "lesion": 0.12}
    rows = {p: [ParameterTrust("D", r, 0.1, np.nan, np.nan, 0.3 / r, 0.02, 0.03, 0.04)] for p, r in shown.items()}
    mean = ParameterTrust("D", 0.6, 0.1, np.nan, np.nan, 0.5, 0.02, 0.03, 0.04, unsure=0.25)
    told = TrustSummary([mean], {flag.name.lower(): 0.0 for flag in Flag}, [], 20.0, {"Truths": 9}, [], rows)
    told = trust_summary(json.loads(json.dumps(asdict(told))))
    d = ParameterSummary("D", 1.0, 0.5, 1.5, 0.0)
    trust = trust_row(told, model, [d])
    assert trust["sentences"][0] == (
        "D: a true change shows by 97 % in a homogeneous region, 64 % at an edge, 12 % in a lesion of one voxel; in "
        "10.0 % of the voxels it is drawn by more than half its own noise; in 25.0 % of the voxels that is not known; "
        "changes of a single voxel below "
        "2.5 \N{MULTIPLICATION SIGN} 10⁻³ mm²/s (250 % of the median) cannot be seen."
    )
    fit = replace(material.fit, trust=trust)
    page = Page(written(material, tmp_path / "sub-01.html", fits=[fit], comparisons=[], images=[]))
    for part in (page.text.split("Status of the voxels")[0], page.text.split("Errors to be expected")[1]):
        assert [part.count(f" {response:.2f}") >= 1 for response in shown.values()] == [True] * 3
        assert "in a lesion of one voxel" in part


def test_a_fit_is_open_where_it_is_alone(material: SimpleNamespace, tmp_path: Path) -> None:
    other = replace(material.fit, estimator="map")
    for fits, is_open in (([material.fit], True), ([material.fit, other], False)):
        text = written(material, tmp_path / "sub-01.html", fits=fits)
        assert ('<details class="part printed" open><summary><h3>ivim · lsq' in text) == is_open


def test_the_maps_of_every_model_are_printed(material: SimpleNamespace, tmp_path: Path) -> None:
    """Those of a model with several estimators side by side, those of another by themselves."""
    fits = [material.fit, replace(material.fit, estimator="map"), replace(material.fit, model="adc")]
    text = written(material, tmp_path / "sub-01.html", fits=fits)
    assert '<details class="part printed"><summary><h3>adc · lsq' in text
    assert '<details class="part"><summary><h3>ivim · lsq' in text


def test_pictures_have_a_text_in_their_place(page: Page) -> None:
    pictures = [attributes for tag, attributes in page.attributes if tag == "img"]
    assert all(len(picture["alt"]) > 20 and int(picture["width"]) <= 960 for picture in pictures)


def test_it_says_what_was_found(page: Page) -> None:
    text = " ".join(page.text.split())
    for words in (
        "97.2 % converged, 2.8 % at bound",
        "14 intensities are negative.",
        "Missing: two shells.",
        "25, of the median signal at the lowest b-value, with a noise standard deviation of 4 in units of the image; "
        "from: repeats at b = 0.",
        "14 negative and 0 not finite",
        f"0.1 to {DASH}",  # a percentile that is not a number
        "< 0.1 %",
        f"{DASH} 0.06 (8 %)",  # no standard deviation, and the floor
        "∞∞ in 61.0 %",  # in two lines
        "bidsfit /data /out participant --model ivim",
        "param-D_desc-lsq_dwimap.nii.gz",
        "No errors.",
        "(Le Bihan et al., 1988; Kaandorp et al., 2021)",
    ):
        assert words in text, words
    assert "stopped at the limit" not in text  # a status that did not occur
    assert "iteration" not in text


def test_estimators_stand_side_by_side(page: Page) -> None:
    text = " ".join(page.text.split())
    for words in (
        "fitted to the same voxels in 2 ways. Differences are taken from the first, lsq,",
        "lsq Bounded least squares 100 % 0.5 s 2,016",
        "map A smooth one 50.0 % 2 s 504",
        "lsq 0.8 0.1 to 2 0.08 (10 %) 0.07 (9 %) 2.0 % compared with this",
        f"map 0.8 0.1 to 2 {DASH} 0.07 (9 %) 2.0 % {MINUS}0.09 0.12 0.88",
        f"and D* {MINUS}0.73 {DASH}",
    ):
        assert words in text, words
    assert text.count("D by map differs from lsq by 0.12 in a typical voxel.") == 2  # in its place and in the summary
    assert "n much" in page.values("class")
    assert "ivim · side by side" in text


def test_a_page_without_comparisons_or_spreads_does_without(material: SimpleNamespace, tmp_path: Path) -> None:
    rows = [{k: v for k, v in row.items() if k not in ("sd", "crb", "undetermined")} for row in material.fit.parameters]
    fit = replace(material.fit, parameters=rows, figures={})
    page = Page(written(material, tmp_path / "sub-01.html", fits=[fit], comparisons=[]))
    assert "Floor" not in page.text
    assert "side by side" not in page.text


def test_equations_are_mathml(page: Page) -> None:
    equations = [attributes for tag, attributes in page.attributes if tag == "math"]
    assert len(equations) == 1 + 4 + 4 + 2 + 3  # the model, its parameters twice, the methods, the comparison
    assert sum(equation.get("display") == "block" for equation in equations) == 2


def test_only_cited_references_are_listed(page: Page) -> None:
    listed = [identity for identity in page.values("id") if identity.startswith("ref-")]
    assert sorted(listed) == ["ref-gorgolewski2016", "ref-kaandorp2021", "ref-lebihan1988", "ref-nipype"]


def test_what_users_wrote_is_escaped(material: SimpleNamespace, tmp_path: Path) -> None:
    text = written(
        material, tmp_path / "sub-01.html", errors=[material.error], methods="<script>2</script> `<i>` $<u>$"
    )
    assert text.count("<script>") == 1  # that of the page
    assert "<b>bold" not in text
    assert "<low>" not in text
    assert "<i>" not in text
    assert "A &lt;b&gt;bold&lt;/b&gt; dataset &amp; more" in text
    assert "&lt;script&gt;1&lt;/script&gt; has no b-values." in text


def test_a_participant_that_was_skipped_gets_a_report(material: SimpleNamespace, tmp_path: Path) -> None:
    error = ErrorRecord("sub-09 was skipped", "No dwi image. Add one, or leave the participant out.")
    empty: dict[str, Any] = {"images": [], "fits": [], "comparisons": [], "methods": "", "about": {}}
    text = written(material, tmp_path / "sub-09.html", errors=[error], **empty)
    page = Page(text)
    assert "Nothing was fitted" in page.text
    assert "1 error." in page.text
    assert "No dwi image." in page.text
    assert "#errors" in page.values("href")


def test_several_fits_and_a_fit_without_its_image(material: SimpleNamespace, tmp_path: Path) -> None:
    status = [{"name": "converged", "count": 1008, "fraction": 1.0, "message": "fine"}]  # without its code
    first = replace(material.fit, figures={})
    fits = [first, replace(first, estimator="map"), replace(first, image="sub-01_run-2_dwi", status=status)]
    image = replace(material.image, figures={})
    page = Page(written(material, tmp_path / "sub-01.html", images=[image], fits=fits))
    assert [i for i in page.values("id") if "fit" in i] == ["image-1-fit-1", "image-1-fit-2", "image-2-fit-1"]
    assert "100 % converged" in page.text


def test_a_missing_figure_is_named(material: SimpleNamespace, tmp_path: Path) -> None:
    page = Page(written(material, tmp_path / "sub-01.html"))  # the figures are in another folder
    assert "The figure sub-01/figures/maps.png is missing." in page.text


def test_a_report_is_written_whole_or_not_at_all(material: SimpleNamespace, tmp_path: Path) -> None:
    path = tmp_path / "sub-01.html"
    path.write_text("the last report")
    broken = replace(material.fit, parameters=[{"name": "D", "latex": "D", "description": "", "unit": ""}])
    with pytest.raises(Exception, match="median"):
        written(material, path, fits=[broken])
    assert path.read_text() == "the last report"
    assert [p.name for p in tmp_path.iterdir()] == ["sub-01.html"]


def test_records_survive_their_files(material: SimpleNamespace, tmp_path: Path) -> None:
    fit = replace(material.fit, parameters=[])  # NaN is not equal to itself
    comparison = replace(material.comparison, parameters=[], correlations=[])
    records: list[Record] = [material.image, fit, comparison, material.error]
    for record in records:
        write_record(record, tmp_path / "record.json")
        assert read_record(tmp_path / "record.json") == record


def test_prose() -> None:
    text = "### Title\n\nOne *two* **three** `a_b` x*y.\n\n- first\n- second $b$\n\nA < B & C [@smith2030]."
    assert prose(text).splitlines() == [
        "<h3>Title</h3>",
        "<p>One <em>two</em> <strong>three</strong> <code>a_b</code> x*y.</p>",
        f"<ul><li>first</li><li>second {mathml('b')}</li></ul>",
        "<p>A &lt; B &amp; C (<strong>smith2030?</strong>).</p>",
    ]


def test_words_in_equations_stay_words() -> None:
    assert "<mi>cyl</mi>" in mathml(r"v_\mathrm{cyl}")
    assert mathml(r"\frac{") == r"<code>\frac{</code>"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0.45671, "0.457"),
        (1366.4, "1,366"),
        (3.0, "3"),
        (-0.5, f"{MINUS}0.5"),
        (None, DASH),
        (float("nan"), DASH),
        (2e-5, f"2e{MINUS}05"),
    ],
)
def test_numbers(value: float | None, expected: str) -> None:
    assert number(value) == expected


@pytest.mark.parametrize(
    ("value", "typical", "expected"),
    [
        (0.08, 0.95, "0.08 (8 %)"),
        (0.08, -0.95, "0.08 (8 %)"),
        (2.25, 594.0, "2.25 (0.4 %)"),
        (1e-6, 1.72, "1e\N{MINUS SIGN}06 (< 0.1 %)"),
        (0.08, 0.0, "0.08"),
        (0.08, float("nan"), "0.08"),
        (float("inf"), 3.0, "\N{INFINITY}"),
        (float("nan"), 3.0, DASH),
        (None, 3.0, DASH),
    ],
)
def test_spreads(value: float | None, typical: float, expected: str) -> None:
    assert spread(value, typical) == expected


def test_correlations() -> None:
    assert correlation(-0.7349) == f"{MINUS}0.73"
    assert correlation(float("nan")) == DASH


@pytest.mark.parametrize(
    ("fraction", "expected"),
    [(0, "0 %"), (1, "100 %"), (1e-5, "< 0.1 %"), (0.99999, "> 99.9 %"), (0.1234, "12.3 %"), (None, DASH)],
)
def test_shares(fraction: float | None, expected: str) -> None:
    assert percent(fraction) == expected


def test_long_tables_are_broken_into_lines_of_like_length() -> None:
    assert [len(line) for line in chunks(range(25), 12)] == [9, 9, 7]
    assert chunks([], 12) == []


def test_a_trained_estimator_says_what_it_was_trained_on(material: SimpleNamespace, tmp_path: Path) -> None:
    training = {
        "distribution": "the pooled fits of 1,500 voxels",
        "participants": [f"sub-{i:02d}" for i in range(12)],
        "snr": None,
        "noise": "rician",
        "recipe": "units 16",
        "seconds": 3.14159,
        "device": "cpu",
        "converged": False,
        "file": "model-ivim_desc-nethealthy.zip",
    }
    fit = replace(material.fit, training=training)
    text = Page(written(material, tmp_path / "sub-01.html", fits=[fit])).text
    for words in ("drawn from the pooled fits of 1,500 voxels; no noise", "12: sub-00,", "sub-04, …", "3.14 s (cpu)"):
        assert words in text
    assert "had not converged" in text
    plain = Page(written(material, tmp_path / "plain.html")).text
    assert "trained on" not in plain


def prepared(material: SimpleNamespace, **changes: Any) -> PreprocessingRecord:
    """The record of an image that got two steps of three."""
    picture = material.image.figures["mask"]
    row = {"name": "denoise", "title": "Noise", "method": "MP-PCA", "applied": True, "reason": "Sigma 4.", "seconds": 3}
    skipped = {"name": "susceptibility", "title": "Distortion", "method": "", "applied": False, "seconds": None}
    record = PreprocessingRecord(
        image=material.image.name,
        source="bids:raw:sub-01/dwi/sub-01_acq-low_dwi.nii.gz",
        output="sub-01/dwi/sub-01_acq-low_desc-preproc_dwi.nii.gz",
        steps=[
            row,
            skipped | {"reason": "No image of <reversed> phase encoding."},
            row | {"name": "motion", "title": "Motion", "method": "affine registration", "figures": ["motion"]},
        ],
        quality={
            "n_volumes": 103,
            "fd_mean": 0.17,
            "fd_max": 0.87,
            "n_outlier_volumes": 2,
            "outlier_indices": [51, 54],
            "outlier_slices": 0.0146,
            "ndc": None,
            "shells": [
                {"b_value": 0.0, "n_volumes": 3, "snr": 32.8},
                {"b_value": 1000.0, "n_volumes": 9, "snr": None},
                {"b_value": 2000.0, "n_volumes": 60, "snr": 6.7},
            ],
            "remarks": ["No gradient directions."],
        },
        figures=dict.fromkeys(("denoise", "motion", "snr", "traces", "other"), picture),
        warnings=["Motion was large."],
    )
    return replace(record, **changes)


def test_what_was_done_to_an_image_comes_after_its_fits(material: SimpleNamespace, tmp_path: Path) -> None:
    text = written(material, material.folder / "prepared.html", preprocessing=[prepared(material)])
    page = Page(text)
    order = ["image-1-comparison-1", "image-1-fit-1", "image-1-acquired", "image-1-prepared", "image-1-quality"]
    assert [identity for identity in page.values("id") if identity in order] == order
    assert "#image-1-prepared" in page.values("href")
    told = " ".join(page.text.split())
    for words in (
        "Noise yes MP-PCASigma 4. 3 s",
        f"Distortion no No image of <reversed> phase encoding. {DASH}",
        "bids:raw:sub-01/dwi/sub-01_acq-low_dwi.nii.gz",
        "mean 0.17 mm, largest 0.87 mm",
        "2 of 103 (counted from 0: 51, 54)",
        "1.5 %",
        "32.8 at b = 0, 6.7 at b = 2000 s/mm²",
        "No gradient directions.",
    ):
        assert words in told, words
    assert "Neighbouring DWI correlation" not in told
    assert told.count("Motion was large.") == 2  # in its place and in the summary
    shown = [value for value in page.values("class") if value in prepared(material).figures]
    assert shown == ["denoise", "motion", "traces", "snr", "other"]


def test_an_image_that_came_prepared_has_its_quality_alone(material: SimpleNamespace, tmp_path: Path) -> None:
    record = prepared(material, steps=[], output="", figures={}, warnings=[])
    told = " ".join(Page(written(material, tmp_path / "sub-01.html", preprocessing=[record])).text.split())
    assert "It was taken as it came: this run did nothing to it." in told
    assert "2 of 103" in told
    some = prepared(material, quality=record.quality | {"n_compared_volumes": 40})
    told = " ".join(Page(written(material, tmp_path / "sub-01.html", preprocessing=[some])).text.split())
    assert "2 of 40 that could be compared with others (counted from 0: 51, 54)" in told
    bare = replace(record, quality={})
    assert "image-1-quality" not in written(material, tmp_path / "sub-01.html", preprocessing=[bare])


def test_a_prepared_image_that_could_not_be_read_again_is_shown(material: SimpleNamespace, tmp_path: Path) -> None:
    record = prepared(material, image="sub-01_dwi")
    page = Page(written(material, tmp_path / "sub-01.html", images=[], fits=[], comparisons=[], preprocessing=[record]))
    assert "image-1-prepared" in page.values("id")
    assert "image-1-acquired" not in page.values("id")


def test_a_record_of_the_preprocessing_is_read_as_it_was_written(material: SimpleNamespace, tmp_path: Path) -> None:
    write_record(prepared(material), tmp_path / "record.json")
    assert read_record(tmp_path / "record.json") == prepared(material)


def test_a_fit_of_what_its_section_does_not_tell_of_is_labelled(material: SimpleNamespace, tmp_path: Path) -> None:
    """As where two runs started together, and the second described the image before it was refused."""
    fit = replace(material.fit, source=material.image.source, options={"Mask": material.image.mask_description})

    def told(**changes: Any) -> str:
        return " ".join(Page(written(material, tmp_path / "sub-01.html", **changes)).text.split())

    assert "not what is told above" not in told(fits=[fit])
    mask = told(fits=[replace(fit, options={"Mask": "bids:masks:other.nii.gz"})])
    assert "It was made with the mask bids:masks:other.nii.gz, which is not what is told above." in mask
    assert mask.count("not what is told above") == 2  # in its place and in the summary
    image = told(fits=[replace(fit, source="bids::sub-01_desc-preproc_dwi.nii.gz")])
    assert "made with the image bids::sub-01_desc-preproc_dwi.nii.gz, which is not" in image
    assert "made with the image" in told(
        fits=[fit], preprocessing=[prepared(material, output="sub-01/dwi/sub-01_desc-preproc_dwi.nii.gz")]
    )


def test_a_file_that_is_no_record_is_named(tmp_path: Path) -> None:
    for text in ("{", "[]", "{}", '{"record": "FitRecord", "image": "sub-01_dwi"}', '{"record": "Nothing"}'):
        path = tmp_path / "sub-01_record.json"
        path.write_text(text)
        with pytest.raises(UnusableInputError, match=r"sub-01_record\.json is no record"):
            read_record(path)
