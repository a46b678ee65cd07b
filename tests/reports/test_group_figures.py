from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib.transforms import Bbox

from bidsfit.reports.bland_altman import (
    BLUE,
    BROWN,
    GREY,
    HEIGHT,
    LETTER,
    LINE,
    ORANGE,
    draw_bland_altman,
    shared_reach,
)
from bidsfit.reports.distributions import draw_distributions
from bidsfit.reports.forest import draw_forest
from bidsfit.reports.group_records import Change, EstimatorRecord, ParameterRecord, Values, changes_of
from bidsfit.reports.vega import FARTHEST, MOST_POINTS, thinned
from bidsfit.statistics.interval import Interval
from bidsfit.statistics.limits import change_limits
from bidsfit.statistics.response import CohortResponse, call_changes, cohort_response, difference_in_change

NAMESPACE = "{http://www.w3.org/2000/svg}"


def rows(drawn: str, field: str) -> list[dict[str, Any]]:
    """Rows of the specification of a figure that have a field."""
    found = re.search(r'<script type="application/json">(.*)</script>', drawn)
    assert found
    return [row for data in json.loads(found[1])["datasets"].values() for row in data if field in row]


def told(drawn: str) -> list[str]:
    return [row["words"] for row in rows(drawn, "words")]


def marks(drawn: str, kind: str) -> list[list[ElementTree.Element]]:
    """Marks of a kind (symbol, rule, text, rect) in the picture that is there without a script, layer by layer."""
    picture = ElementTree.fromstring(drawn[drawn.index("<svg") : drawn.index("</svg>") + 6])
    layers = [g for g in picture.iter(f"{NAMESPACE}g") if f"mark-{kind} role-mark" in g.get("class", "")]
    return [[mark[0] if mark.tag == f"{NAMESPACE}a" else mark for mark in layer] for layer in layers]


def place(mark: ElementTree.Element) -> tuple[float, float]:
    """Where a mark is in its plot, pixels."""
    x, y = re.findall(r"[-\d.e]+", mark.get("transform", "").removeprefix("translate"))
    return float(x), float(y)


def texts(drawn: str) -> list[str]:
    return re.findall(r"<text[^>]*>([^<]*)</text>", drawn)


def estimator(name: str = "lsq", wsd: float = 0.1, change: float = 0.5) -> EstimatorRecord:
    """Three repeated scans, and treated participants who changed by nothing, by 2 and by 2.2 wSD √2, and by a lot."""
    repeats = changes_of(
        ["sub-01", "sub-02", "sub-03"], [("1", "2")] * 3, [1.0, 1.2, 1.4], [1.0 + wsd, 1.2 - wsd, np.nan]
    )
    limits = tuple(change_limits(wsd, 14, method=method) for method in ("student", "normal"))
    before = np.array([1.0, 1.1, 1.2])
    after = before + np.array([0.0, 2.0 * wsd * np.sqrt(2), change])
    calls = tuple(call_changes(before, after, one) for one in limits)
    treated = changes_of(["sub-11", "sub-12", "sub-<13>"], [("pre", "post")] * 3, before, after, calls)
    return EstimatorRecord(name, repeats, treated, limits=limits, calls=calls)


def test_changes_carry_who_was_called_by_which_limits() -> None:
    none, between, beyond = estimator().treated
    assert none.called_by == frozenset()
    assert between.called_by == {"normal"}  # 2.00 lies between 1.96 and the 2.14 of Student's t with 14
    assert beyond.called_by == {"student", "normal"}
    assert beyond.change == pytest.approx(0.5)
    assert beyond.mean == pytest.approx(1.45)
    assert beyond.p_value < 0.01 < between.p_value
    assert not estimator().repeats[2].known


def test_every_known_participant_is_a_symbol_that_tells_name_and_numbers() -> None:
    drawn = draw_bland_altman([estimator()], "D", "10⁻³ mm²/s")
    points = [row for row in rows(drawn, "words") if "mean" in row]
    assert [row["words"] for row in points if row["fill"] == GREY] == [
        "sub-01: ses-1 1, ses-2 1.1; difference +0.1, mean 1.05",
        "sub-02: ses-1 1.2, ses-2 1.1; difference \N{MINUS SIGN}0.1, mean 1.15",
    ]
    treated = [row for row in points if row["fill"] != GREY]
    looks = {row["words"].split(":")[0]: (row["stroke"], row["fill"]) for row in treated}
    assert looks == {"sub-11": (BLUE, "white"), "sub-12": (ORANGE, "white"), "sub-<13>": (BROWN, ORANGE)}
    ends = [row["words"].rsplit("; ", 1)[1] for row in treated]
    assert ends == ["within the limits", "beyond the 1.96 limits only", "beyond both limits"]
    assert [row["change"] for row in treated] == pytest.approx([change.change for change in estimator().treated])
    assert {row["name"] for row in rows(drawn, "mean_of_name")} == {"12", "<13>"}
    assert [len(layer) for layer in marks(drawn, "symbol")] == [2, 3]
    assert "mean of two scans, D (10⁻³ mm²/s)" in texts(drawn)


def test_both_kinds_of_limits_are_drawn_at_zero_offset_and_named() -> None:
    drawn = draw_bland_altman([estimator()], "f", "")
    links = {row["link"] for row in rows(drawn, "link")}
    assert len(links) > 2
    assert all(re.fullmatch(r"sub-.*\.html", link) for link in links)
    zero, limits, _ = marks(drawn, "rule")
    middle = place(zero[0])[1]
    upper, lower, upper_normal, lower_normal = (place(line)[1] for line in limits)
    assert middle - upper == pytest.approx(lower - middle)
    assert middle - upper_normal == pytest.approx(lower_normal - middle)
    assert (middle - upper) / (middle - upper_normal) == pytest.approx(2.1448 / 1.96, rel=0.01)
    assert limits[0].get("stroke-dasharray") != limits[2].get("stroke-dasharray")
    assert {"t ±0.303", "1.96 ±0.277"} < set(texts(drawn))
    bounds = {row["method"]: row for row in rows(drawn, "method") if row["change"] > 0}
    assert bounds["student"]["change"] == pytest.approx(change_limits(0.1, 14).bound)
    assert "7.0 % of participants" in bounds["normal"]["words"]


def test_symbols_lie_where_their_numbers_are() -> None:
    drawn = draw_bland_altman([estimator(change=0.5)], "D", "")
    links = {row["link"] for row in rows(drawn, "link")}
    assert len(links) > 2
    assert all(re.fullmatch(r"sub-.*\.html", link) for link in links)
    zero, limits, _ = marks(drawn, "rule")
    middle, upper = place(zero[0])[1], place(limits[0])[1]
    y = place(marks(drawn, "symbol")[1][2])[1]
    assert (middle - y) / (middle - upper) == pytest.approx(0.5 / change_limits(0.1, 14).bound, rel=0.01)
    assert y > 0


def test_estimators_share_axes_unless_they_scatter_too_differently() -> None:
    near, far = estimator("b", 0.05, 0.3), estimator("c", 0.001, 0.002)
    assert shared_reach([estimator(), near]) == pytest.approx(0.56)
    assert shared_reach([estimator(), far]) is None
    assert shared_reach([EstimatorRecord("empty")]) is None
    drawn = draw_bland_altman([estimator(), far], "D", "")
    limits = [layer for layer in marks(drawn, "rule") if len(layer) == 4]
    assert place(limits[1][0])[1] < 0.5 * HEIGHT  # on an axis of its own it is as tall as the other


def test_without_participants_there_is_no_picture() -> None:
    empty = [EstimatorRecord("lsq", missing=("nobody was scanned twice",))]
    assert draw_bland_altman(empty, "D", "") == ""
    assert draw_distributions(empty, "D", "", ["lsq"]) == ""
    assert draw_forest([ParameterRecord("D", "D", "", "", tuple(empty))], ["lsq"]) == ""


def test_a_single_treated_participant_without_repeats() -> None:
    alone = Change("sub-01", ("", ""), 1.0, 1.0, 0.0, 1.0)
    drawn = draw_bland_altman([EstimatorRecord("lsq", treated=(alone,))], "D", "")
    assert "first scan 1" in told(drawn)[0]
    assert rows(drawn, "method") == []
    assert "NaN" not in drawn


@pytest.mark.parametrize("n", [2, 3, 4, 7])
def test_plots_stay_inside_the_picture(n: int) -> None:
    drawn = draw_bland_altman([estimator(f"e{i}") for i in range(n)], "D", "")
    picture = ElementTree.fromstring(drawn[drawn.index("<svg") : drawn.index("</svg>") + 6])
    assert float(picture.get("width", "")) <= 960
    assert [name for name in texts(drawn) if name in {f"e{i}" for i in range(n)}] == [f"e{i}" for i in range(n)]
    assert sum(len(layer) for layer in marks(drawn, "symbol")) == 5 * n


def response(change: float, spread: float = 0.1) -> CohortResponse:
    before = np.array([1.0, 1.1, 0.9, 1.2, 0.8, 1.0])
    return cohort_response(before, before + change + spread * np.array([1, -1, 0.5, -0.5, 0.2, -0.2]))


def test_forest_shows_every_estimator_with_its_interval() -> None:
    records = (
        EstimatorRecord("lsq", response=response(0.02), adjusted_p_value=0.7),
        EstimatorRecord("bayes", response=response(0.3), adjusted_p_value=0.001),
        EstimatorRecord("net", missing=("not fitted",)),
    )
    drawn = draw_forest([ParameterRecord("Dstar", "D^{*}", "", "", records)], ["lsq", "bayes", "net"])
    assert [word for word in texts(drawn) if word in ("D*", "lsq", "bayes", "net")] == ["lsq", "bayes", "D*"]
    found = rows(drawn, "value")
    assert len(found) == 4  # effect sizes and changes of the two that have a response
    (unclear, clear), changes = found[:2], [record.response.percent_change for record in records[:2] if record.response]
    assert unclear["fill"] == "white"
    assert clear["fill"] == clear["colour"]
    assert "corrected p = 0.001" in clear["words"]
    assert [(row["value"], row["lower"], row["upper"]) for row in found[2:]] == [
        pytest.approx((one.value, one.lower, one.upper)) for one in changes
    ]
    zero, whiskers = marks(drawn, "rule")[:2]
    left, right = (place(whisker)[0] for whisker in whiskers)
    assert left < place(zero[0])[0] < right


def test_forest_shows_the_change_less_that_of_the_untreated_beside_the_change() -> None:
    found = response(0.3)
    against = difference_in_change([0.3, 0.28, 0.34], [0.21, 0.2, 0.22])
    record = EstimatorRecord("lsq", response=found, against=against, adjusted_p_value=0.001)
    drawn = draw_forest([ParameterRecord("D", "D", "", "", (record,))], ["lsq"])
    (less,) = (row for row in rows(drawn, "value") if row["shape"] == "diamond")
    assert less["value"] == pytest.approx(100 * against.difference.value / found.mean_before)
    assert f"{less['value']:.2f}" in less["words"]
    whole, diamond = (place(symbol)[0] for symbol in marks(drawn, "symbol")[-1])
    assert diamond < whole
    assert "lsq, less untreated" in texts(drawn)
    alone = draw_forest([ParameterRecord("D", "D", "", "", (replace(record, against=None),))], ["lsq"])
    assert "diamond" not in alone


def test_names_lie_on_no_limit() -> None:
    limits = (change_limits(0.1, 14), change_limits(0.1, 14, method="normal"))
    bound = limits[0].bound
    treated = tuple(
        Change(f"sub-{i:02}", ("1", "2"), 1.0, 1.0 + change, change, 1.0 + 0.02 * i, frozenset({"student"}))
        for i, change in enumerate((bound * 1.02, -bound * 1.03, bound * 1.05))
    )
    drawn = draw_bland_altman([EstimatorRecord("lsq", treated=treated, limits=limits)], "D", "")
    heights = [place(line)[1] for line in marks(drawn, "rule")[1]]
    names = marks(drawn, "text")[-1]
    assert len(heights) == 4
    assert len(names) == 3
    for name in names:  # written upwards from its foot
        foot = place(name)[1]
        assert not any(foot - 8 < height < foot for height in heights)


def test_an_interval_without_end_is_an_arrow() -> None:
    endless = replace(response(0.3), percent_change=Interval(30.0, -math.inf, math.inf))
    record = EstimatorRecord("lsq", response=endless, adjusted_p_value=0.01)
    drawn = draw_forest([ParameterRecord("D", "D", "", "", (record,))], ["lsq"])
    assert len(rows(drawn, "left")) == len(rows(drawn, "right")) == 1
    assert "triangle" in drawn
    assert "\N{INFINITY}" in "".join(texts(drawn))
    assert "nan" not in drawn
    assert "Infinity" not in drawn
    ended = draw_forest([ParameterRecord("D", "D", "", "", (replace(record, response=response(0.3)),))], ["lsq"])
    assert "triangle" not in ended


def test_distributions_show_every_value_and_quartiles_of_enough() -> None:
    names = tuple(f"sub-{i}" for i in range(6))
    many = Values("healthy", names, (1.0, 2.0, 3.0, 4.0, 5.0, math.nan))
    few = Values("treated, before", names[:2], (2.0, 2.0))
    drawn = draw_distributions([EstimatorRecord("lsq", distributions=(many, few))], "D", "ms", ["bayes", "lsq"])
    assert told(drawn)[:2] == ["sub-0: 1", "sub-1: 2"]
    assert [row["link"] for row in rows(drawn, "link")][:2] == ["sub-0.html", "sub-1.html"]  # the reports
    (dots,), (box,), (median,) = marks(drawn, "symbol"), marks(drawn, "rect")[:1], marks(drawn, "rect")[1:]
    assert len(dots) == 7
    assert len(box) == len(median) == 1  # of the five, not of the two
    edges = [float(x) for x in re.findall(r"M([\d.]+),.*h([\d.]+)", box[0].get("d", ""))[0]]
    places = [place(dot) for dot in dots]
    assert edges[0] == pytest.approx(places[1][0], abs=0.01)
    assert edges[0] + edges[1] == pytest.approx(places[3][0], abs=0.01)
    assert {"healthy (5)", "treated, before (2)", "D (ms)"} < set(texts(drawn))
    assert places[5][0] == places[6][0]  # equal values lie above one another
    assert places[5][1] != places[6][1]


@pytest.mark.parametrize("n", [1, MOST_POINTS])
def test_up_to_a_number_every_point_is_drawn(n: int) -> None:
    drawn, cells = thinned(np.zeros((n, 2)), (1.0, 1.0))
    assert drawn.tolist() == list(range(n))
    assert cells == []


def test_of_more_the_farthest_are_drawn_and_the_others_counted() -> None:
    rng, angle = np.random.default_rng(3), np.linspace(0, 2 * np.pi, FARTHEST)
    far = 4 * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    points = np.concatenate([rng.uniform(-1, 1, (500, 2)), far, rng.uniform(-1, 1, (460, 2))]) * [1, 0.01] + [5, 0.1]
    drawn, cells = thinned(points, (0.2, 0.002))
    assert drawn.tolist() == list(range(500, 500 + FARTHEST))
    inside = np.delete(points, drawn, axis=0)
    for lower, upper, count in cells:
        assert count == np.sum((inside >= lower).all(axis=1) & (inside < upper).all(axis=1))
    assert sum(cell.number for cell in cells) == 960


def test_points_without_spread_are_counted_in_one_cell() -> None:
    drawn, cells = thinned(np.ones((1000, 1)), (0.5,))
    assert len(drawn) == FARTHEST
    assert cells == [((1.0,), (1.5,), 1000 - FARTHEST)]


def many(n: int) -> EstimatorRecord:
    """Repeated scans and treated participants, one of whom changed by far the most."""
    rng = np.random.default_rng(n)
    scans, before = rng.normal(1, 0.1, (n, 1)) + rng.normal(0, 0.01, (n, 2)), rng.normal(1, 0.1, n)
    after = before + rng.normal(0, 0.01, n)
    after[n // 3] = before[n // 3] + 0.5
    limits = tuple(change_limits(0.01, n, method=method) for method in ("student", "normal"))
    calls = tuple(call_changes(before, after, one) for one in limits)
    names = [f"sub-{i:05d}" for i in range(n)]
    return EstimatorRecord(
        "lsq",
        changes_of(names, [("1", "2")] * n, *scans.T),
        changes_of(names, [("1", "2")] * n, before, after, calls),
        limits=limits,
        calls=calls,
        distributions=(Values("healthy", tuple(names), tuple(before)),),
    )


def test_the_size_of_a_figure_does_not_grow_with_the_participants() -> None:
    small, large = many(1000), many(8000)
    for draw in (
        lambda record: draw_bland_altman([record], "D", ""),
        lambda record: draw_distributions([record], "D", "", ["lsq"]),
    ):
        assert len(draw(large)) < 1.5 * len(draw(small)) < 300_000
    drawn = draw_bland_altman([large], "D", "")
    symbols, squares = rows(drawn, "link"), rows(drawn, "count")
    assert len(symbols) + sum(row["count"] for row in squares) == 16_000
    assert any(row["words"].startswith("sub-02666:") and row["words"].endswith("beyond both limits") for row in symbols)
    assert {row["fill"] for row in squares} == {GREY, BLUE}
    assert len(marks(drawn, "rect")[0]) == len(squares)
    drawn = draw_distributions([large], "D", "", ["lsq"])
    assert len(marks(drawn, "symbol")[0]) == FARTHEST
    (box,) = rows(drawn, "middle")
    assert (box["first"], box["third"]) == pytest.approx(np.percentile(large.distributions[0].values, [25, 75]))
    heights = [float(found) for bar in marks(drawn, "rect")[1] for found in re.findall(r"v([\d.]+)h", bar.get("d", ""))]
    counts = [row["count"] for row in rows(drawn, "count")]
    assert np.argmax(heights) == np.argmax(counts)
    assert sum(counts) + FARTHEST == 8000


def test_equal_values_have_a_place() -> None:
    alone = Values("healthy", ("sub-1",), (2.0,))
    drawn = draw_distributions([EstimatorRecord("lsq", distributions=(alone,))], "D", "", ["lsq"])
    assert place(marks(drawn, "symbol")[0][0])[0] > 0
    assert "NaN" not in drawn


def test_names_do_not_lie_on_one_another() -> None:
    n = 10
    limits = (change_limits(0.01, 14),)
    before = np.linspace(1, 1.02, n)
    calls = (call_changes(before, before + 0.5, limits[0]),)
    treated = changes_of([f"sub-{i:02d}" for i in range(n)], [("1", "2")] * n, before, before + 0.5, calls)
    far = changes_of(["sub-a", "sub-b"], [("1", "2")] * 2, [0.0, 3.0], [0.0, 3.0])
    drawn = draw_bland_altman([EstimatorRecord("lsq", repeats=far, treated=treated, limits=limits)], "D", "")
    names = marks(drawn, "text")[-1]
    assert sorted(str(one.text) for one in names) == [f"{i:02d}" for i in range(n)]
    boxes = []
    for one in names:
        x, y = place(one)
        x -= 2 * LETTER if one.get("text-anchor") == "end" else 0
        boxes.append(Bbox.from_bounds(x, y - LINE, 2 * LETTER, LINE))
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])


def test_text_in_figures_ends_no_element() -> None:
    values = Values("<b>", ("sub-</script><script>",), (1.0,))
    drawn = draw_distributions([EstimatorRecord("lsq", distributions=(values,))], '"<i>', "", ["lsq"])
    assert "<b>" not in drawn
    assert "<i>" not in drawn
    assert drawn.count("<script") == drawn.count("</script>") == 1
    assert told(drawn) == ["sub-</script><script>: 1"]


def test_figures_name_no_address() -> None:
    drawn = draw_bland_altman([estimator()], "D", "")
    assert {re.sub(r"/v\d.*", "", url) for url in re.findall(r"https?://[^\"]+", drawn)} == {
        "http://www.w3.org/2000/svg",
        "http://www.w3.org/1999/xlink",
        "https://vega.github.io/schema/vega-lite",
    }
