from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bidsfit.reports import group_words
from bidsfit.reports.group import MOST_ROWS, write_group_page
from bidsfit.reports.group_numbers import REPEATABILITY, RESPONSE, rows_of
from bidsfit.reports.group_records import (
    METHODS,
    CohortRecord,
    Confounding,
    EstimatorRecord,
    GroupRecord,
    LeftOut,
    Normative,
    ParameterRecord,
    RegionRecord,
    TrainingRecord,
    Values,
    changes_of,
)
from bidsfit.reports.vega import CROWD_WORDS, MOST_POINTS
from bidsfit.statistics.comparison import compare_detections, compare_estimators
from bidsfit.statistics.interval import NO_INTERVAL, Interval
from bidsfit.statistics.limits import change_limits
from bidsfit.statistics.normative import normative_scores
from bidsfit.statistics.precision import rank_correlation
from bidsfit.statistics.repeatability import repeatability
from bidsfit.statistics.response import call_changes, cohort_response

ABOUT = {"version": "1.2.3", "dataset": "A <b>study</b>", "command": "bidsfit /data /out group"}
UNIT = "\N{MULTIPLICATION SIGN} 10⁻³ mm²/s"
METHODS_TEXT = "Limits of change follow Bland and Altman [@bland1999], intraclass correlations $\\rho$ [@mcgraw1996]."


def estimator(name: str, seed: int = 0, n_retest: int = 14, n_treated: int = 9, wsd: float = 0.05) -> EstimatorRecord:
    rng = np.random.default_rng(seed)
    retest = [f"sub-{i:02d}" for i in range(1, n_retest + 1)]
    treated = [f"sub-{i}" for i in range(101, 101 + n_treated)]
    scans = rng.normal(1.4, 0.12, (n_retest, 1)) + rng.normal(0, wsd, (n_retest, 2))
    before = rng.normal(1.3, 0.12, n_treated)
    after = before + rng.normal(0.12, 0.06, n_treated)
    found = repeatability(scans)
    limits = tuple(change_limits(found.within_subject_sd.value, found.freedom, method=method) for method in METHODS)
    calls = tuple(call_changes(before, after, one) for one in limits)
    return EstimatorRecord(
        name,
        repeats=changes_of(retest, [("1", "2")] * n_retest, *scans.T),
        treated=changes_of(treated, [("pre", "post")] * n_treated, before, after, calls),
        repeatability=found,
        limits=limits,
        calls=calls,
        response=cohort_response(before, after),
        adjusted_p_value=0.012,
        distributions=(Values("repeated", tuple(retest), tuple(scans[:, 0])),),
        normative=Normative(tuple(treated), tuple(before), normative_scores(before, scans[:, 0])),
    )


def parameter(names: tuple[str, ...] = ("lsq", "bayes", "net"), **options: Any) -> ParameterRecord:
    records = tuple(estimator(name, i, **options) for i, name in enumerate(names))
    directions = np.array([record.calls[0].direction for record in records]).T
    return ParameterRecord(
        "D",
        "D",
        "10⁻³ mm²/s",
        "Diffusion coefficient",
        records,
        {"student": compare_detections(directions, names)} if len(names) > 1 else {},
        compare_estimators(np.random.default_rng(1).normal([3, 4, 5], 1, (8, 3)), names) if len(names) == 3 else None,
    )


def study(*parameters: ParameterRecord, **options: Any) -> GroupRecord:
    region = RegionRecord("ivim", "Intravoxel incoherent motion", "pancreas", parameters or (parameter(),))
    cohorts = (
        CohortRecord("Repeated scans", 14, "group=retest", "by acq_time"),
        CohortRecord("Treated", 9, "group=treated"),
    )
    return replace(GroupRecord(cohorts, (region,), n_corrected=4, methods=METHODS_TEXT), **options)


class Page(HTMLParser):
    """Tags with their attributes; fails on tags that do not match."""

    VOID = frozenset({"meta", "wbr", "br", "img"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def values(self, name: str) -> list[str]:
        return [found[name] for _, found in self.tags if name in found]


def write(folder: Path, record: GroupRecord) -> str:
    return write_group_page(folder / "group.html", record, about=ABOUT).read_text(encoding="utf-8")


def words(text: str) -> str:
    text = re.sub(r"<(style|title|script)\b.*?</\1>", "", text, flags=re.DOTALL)
    text = re.sub(r"<[^>]+>", "", re.sub(r"</?(t[dhr]|li|p|h\d|text|math)\b[^>]*>", " ", text.replace("<wbr>", "")))
    return " ".join(text.replace("&#39;", "'").replace("&lt;", "<").split())


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write(tmp_path_factory.mktemp("out"), study())


def test_the_page_needs_no_other_file(page: str, tmp_path: Path) -> None:
    found = Page(page)
    assert not {"link", "iframe", "object"} & {tag for tag, _ in found.tags}
    identities = found.values("id")
    assert len(set(identities)) == len(identities)
    inside = {link[1:] for link in found.values("href") if link.startswith("#")}
    assert inside <= set(identities)
    assert all(link.startswith(("#", "https://doi.org/")) for link in found.values("href"))
    assert "src" not in {name for tag, attributes in found.tags for name in attributes if tag != "img"}
    write(tmp_path, study())
    assert [path.name for path in tmp_path.iterdir()] == ["group.html"]


def test_every_figure_is_a_picture_that_a_script_may_replace(page: str, tmp_path: Path) -> None:
    pictures = page.count('<div class="chart" role="img"')
    assert pictures == page.count("</svg><script type") == 3  # forest, limits of change, values
    assert page.count("University of Washington") == page.count('<script type="module">') == 1
    nothing = write(tmp_path, study(regions=()))
    assert "<script" not in nothing


@pytest.mark.parametrize("width", [1366, 1200, 700])
def test_the_browser_draws_the_figures(
    page: str, tmp_path: Path, drawn: Callable[[Path, int], dict[str, Any]], width: int
) -> None:
    path = tmp_path / "group.html"
    path.write_text(page, encoding="utf-8")
    found = drawn(path, width)
    assert found["drawn"] == 3
    assert found["told"].startswith("lsq: Hedges' g ")
    assert found["overflow"] <= 0
    assert found["clipped"] == 0
    assert found["outside"] <= 1
    assert found["resources"] == []


def test_without_scripts_the_figures_are_pictures(
    page: str, tmp_path: Path, drawn: Callable[[Path, int], dict[str, Any]]
) -> None:
    path = tmp_path / "group.html"
    path.write_text(re.sub(r'<script type="module">.*?</script>', "", page, flags=re.DOTALL), encoding="utf-8")
    found = drawn(path, 1200)
    assert found["drawn"] == 0
    assert found["pictures"] == 3
    assert found["outside"] <= 1
    assert found["overflow"] <= 0


def test_estimators_stand_side_by_side_in_one_table(page: str) -> None:
    table = re.search(r'<table class="estimators".*?</table>', page, re.DOTALL)
    assert table
    text = words(table.group())
    for record in parameter().estimators:
        assert record.repeatability is not None
        within, detected = record.repeatability.within_subject_sd, record.calls[0].n_changed
        assert f"{record.estimator} {group_words.interval_parts(within, 2)[0]}" in text
        assert f"0.012 {detected} / {record.calls[1].n_changed} of 9" in text
    assert text.startswith("Estimators side by side")
    assert "wSD wCV % RC ICC Mean change Hedges' g Corrected p Changed, t / 1.96 PNR" in text


def test_who_changed_is_named_with_what_chance_would_give(page: str) -> None:
    record = parameter().estimators[0]
    surely = [change.participant for change in record.treated if "student" in change.called_by]
    assert surely
    line = next(found for found in re.findall(r"<li>.*?</li>", page, re.DOTALL) if "Expected by chance" in found)
    assert re.findall(r"sub-\d+", line) == surely
    assert "Expected by chance: 0.45" in words(page)


def test_sentences_for_a_paper_hold_the_numbers() -> None:
    shown = parameter()
    record = shown.estimators[0]
    assert record.repeatability is not None
    assert record.response is not None
    first, second, third = group_words.sentences(shown, record, "pancreas", "holm", 4)
    within = group_words.interval_parts(record.repeatability.within_subject_sd)
    assert first.startswith("In 14 participants scanned twice, D (lsq, region pancreas)")
    assert f"standard deviation of {within[0]} {UNIT} (95 % confidence interval {within[1]} to {within[2]})" in first
    assert "ICC(1,1)" in first
    change = group_words.interval_parts(record.response.mean_change)[0]
    assert f"rose on average from {record.response.mean_before:.2f}" in second
    assert f"by {change} {UNIT}" in second
    assert "(p = 0.012 after Holm's correction over 4 tests)" in second
    assert third.startswith(f"{record.calls[0].n_changed} of 9 treated participants changed in D by more than ±")
    assert "0.45 would be expected by chance" in third


def test_a_fall_and_no_change_read_well() -> None:
    shown, record = parameter(), estimator("lsq")
    before = np.array([1.0, 1.1, 1.2, 1.3])
    fallen = replace(record, response=cohort_response(before, before - [0.1, 0.2, 0.15, 0.12]))
    none = call_changes(before, before, record.limits[0])
    _, second, third = group_words.sentences(shown, replace(fallen, calls=(none,)), "whole", "none", 1)
    assert f"fell on average from 1.15 to 1.01 {UNIT}, by 0.14" in second
    assert "correction" not in second
    assert third.startswith("None of 4 treated participants changed in D")


def test_all_numbers_are_in_the_tables() -> None:
    record = estimator("lsq")
    assert record.repeatability is not None
    rows = {row.name: row.cells[0] for row in rows_of([record], REPEATABILITY)}
    assert len(rows) + 1 == sum(bool(number.label) for number in REPEATABILITY)  # two rows have the same name
    assert rows["Limits of change, Student's t (±)"][0] == f"{record.limits[0].bound:.3g}"
    assert rows["form"] == ("ICC(1,1)", "", "")
    cv = record.repeatability.within_subject_cv
    assert rows["Within-subject coefficient of variation (%)"] == group_words.interval_parts(cv.times(100))
    response = rows_of([record, EstimatorRecord("net")], RESPONSE)
    assert all(row.cells[1] == ("", "", "") for row in response)
    assert {"Hedges' g", "Median change", "Changed, 1.96"} <= {row.name for row in response}
    assert rows_of([EstimatorRecord("net")], REPEATABILITY) == ()


def test_warnings_are_said_once_and_lead_to_their_places(tmp_path: Path) -> None:
    shown = parameter()
    net = replace(
        shown.estimators[2],
        trained_on=("sub-01", "sub-02"),
        warnings=(group_words.drawn_to_training_words("net", "D", 0.43),),
    )
    shown = replace(shown, estimators=(*shown.estimators[:2], net))
    other = replace(shown, name="f", latex="f", description="Fraction")
    text = write(tmp_path, study(shown, other, warnings=("One session was not labelled.",)))
    summary = text[text.index("Worth a look") : text.index('<section id="region-1"')]
    assert summary.index("One session was not labelled.") < summary.index("sub-01 and sub-02 were in the pool")
    assert summary.index("in 43 % of the voxels") < summary.index("QIBA asks for 35")
    assert summary.count("sub-01 and sub-02 were in the pool that net was trained on") == 1
    assert 'href="#region-1-1">ivim · pancreas · D · net</a>' in summary
    assert 'href="#region-1-2">ivim · pancreas · f · net</a>' in summary


def test_many_warnings_of_single_places_are_folded_away(tmp_path: Path) -> None:
    sizes = range(5, 16)
    shown = [replace(parameter(("lsq",), n_retest=n), name=f"p{n}", latex=f"p_{n}") for n in sizes]
    text = write(tmp_path, study(*shown))
    folded = re.search(r"<summary>(\d+) more, each of one place</summary>", text)
    assert folded
    assert int(folded.group(1)) >= len(sizes)


def test_patients_against_healthy_participants(page: str) -> None:
    table = re.search(r"<table[^>]*>\s*<caption>Patients against healthy participants.*?</table>", page, re.DOTALL)
    assert table
    record = parameter().estimators[0]
    assert record.normative is not None
    scores = record.normative.scores
    row = words(next(found for found in re.findall(r"<tr>.*?</tr>", table.group(), re.DOTALL) if "sub-101" in found))
    z = f"{scores.z[0]:.2f}".replace("-", "\N{MINUS SIGN}")
    assert f"{z} {scores.percentile[0]:.1f} ({scores.percentile_lower[0]:.1f}\N{EN DASH}" in row
    n = int(np.count_nonzero(scores.p_value < 0.05))
    assert f"lsq {n} of 9 beyond the prediction limits of {scores.n_healthy} healthy" in page


def test_confounding_training_and_what_was_left_out(tmp_path: Path) -> None:
    from matplotlib.figure import Figure

    Figure(figsize=(1, 1)).savefig(tmp_path / "pool.png")
    rng = np.random.default_rng(0)
    across = rank_correlation(rng.normal(size=20), rng.normal(size=20))
    record = study(
        training=(TrainingRecord("Healthy", "pool.png", "9 participants."), TrainingRecord("Gone", "gone.png")),
        left_out=(LeftOut("sub-<7>", "treatment", "one session only"),),
        tables={"group rois.tsv": "values"},
    )
    region = replace(
        record.regions[0],
        confounding=(
            Confounding("lsq", ("D^{*}", "f"), across, -0.62, -0.7, -0.5, 14),
            Confounding("net", ("D^{*}", "f")),
        ),
    )
    text = write(tmp_path, replace(record, regions=(region,)))
    assert "data:image/png;base64," in text
    assert "gone.png is missing" in text
    assert "sub-&lt;7&gt;" in text
    assert 'href="group%20rois.tsv"' in text
    assert "lsq " + words(f"{across.coefficient.value:.3f}").replace("-", "\N{MINUS SIGN}") in words(text)
    assert "-0.62 (-0.70 to -0.50)" in words(text).replace("\N{MINUS SIGN}", "-")


def test_what_cannot_be_computed_is_said_and_the_rest_goes_on(tmp_path: Path) -> None:
    bare = EstimatorRecord("lsq", missing=("Repeatability needs at least two participants.",))
    untreated = replace(
        estimator("bayes"), treated=(), calls=(), response=None, adjusted_p_value=math.nan, normative=None
    )
    shown = ParameterRecord("D", "D", "", "Diffusion", (bare, untreated))
    text = words(write(tmp_path, study(shown, correction="none")))
    assert "lsq: Repeatability needs at least two participants." in text
    assert "wCV" in text
    assert "Corrected p" not in text
    assert "Expected by chance" not in text
    assert "None" not in text.replace("None of", "")
    assert "nan" not in text


def test_an_empty_study_says_so(tmp_path: Path) -> None:
    text = write(tmp_path, GroupRecord((), ()))
    assert "Nothing could be compared." in text
    assert "No methods to describe." in text
    Page(text)


def test_of_many_participants_those_who_changed_are_listed(tmp_path: Path) -> None:
    n = MOST_ROWS + 40
    shown = parameter(("lsq",), n_treated=n, wsd=0.08)
    text = write(tmp_path, study(shown))
    called = sum(bool(change.called_by) for change in shown.estimators[0].treated)
    assert 0 < called < n
    assert f"Treated participants who changed, {called} of {n}" in text
    table = re.search(r"<caption>Treated participants.*?</table>", text, re.DOTALL)
    assert table
    assert len(re.findall(r'<th scope="row">sub-', table.group())) == called


def test_of_many_who_changed_the_clearest_are_listed(tmp_path: Path) -> None:
    n = 5 * MOST_ROWS
    found = parameter(("lsq",), n_treated=n, wsd=0.02)
    text = write(tmp_path, study(found))
    p_values = {change.participant: change.p_value for change in found.estimators[0].treated if change.called_by}
    assert len(p_values) > MOST_ROWS
    table = re.search(r"<caption>Treated participants who changed.*?</table>", text, re.DOTALL)
    assert table
    listed = re.findall(r'<th scope="row">(sub-[^<]*)<', table.group())
    assert sorted(listed) == sorted(sorted(p_values, key=p_values.__getitem__)[:MOST_ROWS])
    assert 'Values of everyone: <a href="group_rois.tsv">' in text


def test_a_page_of_many_participants_says_that_not_all_are_drawn_one_by_one(page: str, tmp_path: Path) -> None:
    assert CROWD_WORDS not in page
    many = replace(study(), cohorts=(CohortRecord("Treated", MOST_POINTS + 1, "drug=yes"),))
    assert CROWD_WORDS in write(tmp_path, many)


def test_text_is_escaped(tmp_path: Path) -> None:
    record = study(title="A <i>title</i>")
    region = replace(record.regions[0], region="<script>x</script>", series="acq-<b>")
    text = write(tmp_path, replace(record, regions=(region,)))
    for never in ("<script>x", "<i>title", "acq-<b>", "A <b>study"):
        assert never not in text
    Page(text)


def test_methods_and_their_references_are_there(page: str) -> None:
    assert 'href="#ref-bland1999"' in page
    assert 'id="ref-mcgraw1996"' in page
    assert "<math" in page
    assert "Text to copy into a manuscript" in page


@pytest.mark.parametrize(
    ("interval", "expected"),
    [
        (Interval(0.0692, 0.05021, 0.11148), "0.0692 (0.0502 to 0.1115)"),
        (Interval(15.81, 11.4, 25.4), "15.8 (11.4 to 25.4)"),
        (Interval(-0.00001, -0.05, 0.0502), "0.0000 (-0.0500 to 0.0502)"),
        (Interval(1234.5, 1000.2, 2000.0), "1,234 (1,000 to 2,000)"),
        (Interval(30.0, -math.inf, math.inf), "30.0 (-∞ to ∞)"),
        (Interval(2e-8, 1e-8, 3e-8), "2e-08 (1e-08 to 3e-08)"),
        (Interval(2.0, math.nan, math.nan), "2"),
        (NO_INTERVAL, "\N{EN DASH}"),
    ],
)
def test_intervals_in_words(interval: Interval, expected: str) -> None:
    assert group_words.interval_words(interval) == expected.replace("-", "\N{MINUS SIGN}")


@pytest.mark.parametrize(
    ("p_value", "expected"),
    [(0.00004, "p < 0.001"), (0.0123, "p = 0.012"), (0.5, "p = 0.50"), (math.nan, "p unknown")],
)
def test_p_values_in_words(p_value: float, expected: str) -> None:
    assert group_words.p_words(p_value) == expected


@pytest.mark.parametrize(
    ("latex", "expected"),
    [("D^{*}", "D*"), ("S_0", "S_0"), (r"v_\mathrm{cyl}", "v_cyl"), (r"\lambda", "λ"), (r"\frac{a}{b}", "")],
)
def test_equations_as_plain_text(latex: str, expected: str) -> None:
    assert group_words.plain_latex(latex) == expected


@pytest.mark.parametrize(("n", "expected"), [(1, "a0"), (3, "a0, a1 and a2"), (8, "a0, a1, a2, a3, a4, a5 and 2 more")])
def test_names_in_words(n: int, expected: str) -> None:
    assert group_words.names_words([f"a{i}" for i in range(n)]) == expected
