from __future__ import annotations

import math
import re
from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import pytest

from bidsfit.reports import svg
from bidsfit.reports.bland_altman import HEIGHT, LETTER, LINE, Box
from bidsfit.reports.group_figures import draw_bland_altman, draw_distributions, draw_forest, shared_reach
from bidsfit.reports.group_records import Change, EstimatorRecord, ParameterRecord, Values, changes_of
from bidsfit.statistics.interval import Interval
from bidsfit.statistics.limits import change_limits
from bidsfit.statistics.response import CohortResponse, call_changes, cohort_response, difference_in_change

SVG = ElementTree.Element


def elements(markup: str, tag: str, kind: str = "") -> list[SVG]:
    """Elements of a picture whose class begins with some words."""
    found = ElementTree.fromstring(markup).iter(tag)
    return [one for one in found if one.get("class", "").startswith(kind)]


def told(one: SVG) -> str:
    return one.findtext("title", "")


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
    circles = elements(drawn, "circle", "retest")
    assert [told(one) for one in circles] == [
        "sub-01: ses-1 1, ses-2 1.1; difference +0.1, mean 1.05",
        "sub-02: ses-1 1.2, ses-2 1.1; difference \N{MINUS SIGN}0.1, mean 1.15",
    ]
    states = {told(one).split(":")[0]: one.get("class") for one in elements(drawn, "polygon", "treated")}
    assert states == {"sub-11": "treated", "sub-12": "treated between", "sub-<13>": "treated beyond"}
    ends = [told(one).rsplit("; ", 1)[1] for one in elements(drawn, "polygon", "treated")]
    assert ends == ["within the limits", "beyond the 1.96 limits only", "beyond both limits"]
    assert {one.text for one in elements(drawn, "text", "who")} == {"12", "<13>"}


def test_both_kinds_of_limits_are_drawn_at_zero_offset_and_named() -> None:
    drawn = draw_bland_altman([estimator()], "f", "")
    zero = float(elements(drawn, "line", "zero")[0].get("y1", ""))
    reach = {}
    for kind in ("limit student", "limit normal"):
        upper, lower = (float(one.get("y1", "")) for one in elements(drawn, "line", kind))
        assert zero - upper == pytest.approx(lower - zero, abs=0.2)
        reach[kind] = zero - upper
    assert reach["limit student"] / reach["limit normal"] == pytest.approx(2.1448 / 1.96, rel=0.01)
    names = [one.text for one in elements(drawn, "text", "limit-name")]
    assert names == ["t ±0.303", "1.96 ±0.277"]
    assert "7.0 % of participants" in told(elements(drawn, "line", "limit normal")[0])


def test_symbols_lie_where_their_numbers_are() -> None:
    drawn = draw_bland_altman([estimator(change=0.5)], "D", "")
    polygon = elements(drawn, "polygon", "treated beyond")[0]
    y = np.mean([float(corner.split(",")[1]) for corner in polygon.get("points", "").split()])
    upper = float(elements(drawn, "line", "limit student")[0].get("y1", ""))
    zero = float(elements(drawn, "line", "zero")[0].get("y1", ""))
    assert (zero - y) / (zero - upper) == pytest.approx(0.5 / change_limits(0.1, 14).bound, rel=0.01)
    assert y > 0


def test_estimators_share_axes_unless_they_scatter_too_differently() -> None:
    near, far = estimator("b", 0.05, 0.3), estimator("c", 0.001, 0.002)
    assert shared_reach([estimator(), near]) == pytest.approx(0.56)
    assert shared_reach([estimator(), far]) is None
    assert shared_reach([EstimatorRecord("empty")]) is None
    drawn = draw_bland_altman([estimator(), far], "D", "")
    bounds = [float(one.get("y1", "")) for one in elements(drawn, "line", "limit student")[::2]]
    assert bounds[1] < 0.5 * HEIGHT  # on an axis of its own it is as tall as the other


def test_without_participants_there_is_no_picture() -> None:
    empty = [EstimatorRecord("lsq", missing=("nobody was scanned twice",))]
    assert draw_bland_altman(empty, "D", "") == ""
    assert draw_distributions(empty, "D", "", ["lsq"]) == ""
    assert draw_forest([ParameterRecord("D", "D", "", "", tuple(empty))], ["lsq"]) == ""


def test_a_single_treated_participant_without_repeats() -> None:
    alone = Change("sub-01", ("", ""), 1.0, 1.0, 0.0, 1.0)
    drawn = draw_bland_altman([EstimatorRecord("lsq", treated=(alone,))], "D", "")
    assert "first scan 1" in told(elements(drawn, "polygon", "treated")[0])
    assert elements(drawn, "line", "limit") == []


@pytest.mark.parametrize("n", [2, 3, 4, 7])
def test_plots_stay_inside_the_picture(n: int) -> None:
    drawn = ElementTree.fromstring(draw_bland_altman([estimator(f"e{i}") for i in range(n)], "D", ""))
    width, height = float(drawn.get("width", "")), float(drawn.get("height", ""))
    assert width <= 960
    places = [tuple(map(float, re.findall(r"[\d.]+", g.get("transform", "")))) for g in drawn.findall("g")]
    assert len(set(places)) == n
    assert all(x < width and y < height for x, y in places)


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
    assert [one.text for one in elements(drawn, "text", "name")] == ["D*"]
    assert [one.text for one in elements(drawn, "text", "estimator")] == ["lsq", "bayes"]
    unclear, clear = elements(drawn, "rect", "estimate")[::2]
    assert unclear.get("fill") == "#fff"
    assert clear.get("fill") == clear.get("stroke")
    assert "corrected p = 0.001" in told(clear)
    whiskers = elements(drawn, "line", "whisker")
    assert len(whiskers) == 4
    zero = float(elements(drawn, "line", "zero")[0].get("x1", ""))
    assert float(whiskers[0].get("x1", "")) < zero < float(whiskers[0].get("x2", ""))
    assert float(whiskers[2].get("x1", "")) > zero


def test_forest_shows_the_change_less_that_of_the_untreated_beside_the_change() -> None:
    found = response(0.3)
    against = difference_in_change([0.3, 0.28, 0.34], [0.21, 0.2, 0.22])
    record = EstimatorRecord("lsq", response=found, against=against, adjusted_p_value=0.001)
    drawn = draw_forest([ParameterRecord("D", "D", "", "", (record,))], ["lsq"])
    (diamond,) = elements(drawn, "polygon", "estimate")
    whole = elements(drawn, "rect", "estimate")[1]
    left = min(float(corner.split(",")[0]) for corner in diamond.get("points", "").split())
    assert left < float(whole.get("x", ""))
    assert f"{100 * against.difference.value / found.mean_before:.2f}" in told(diamond)
    alone = draw_forest([ParameterRecord("D", "D", "", "", (replace(record, against=None),))], ["lsq"])
    assert elements(alone, "polygon", "estimate") == []


def test_names_lie_on_no_limit() -> None:
    limits = (change_limits(0.1, 14), change_limits(0.1, 14, method="normal"))
    bound = limits[0].bound
    treated = tuple(
        Change(f"sub-{i:02}", ("1", "2"), 1.0, 1.0 + change, change, 1.0 + 0.02 * i, frozenset({"student"}))
        for i, change in enumerate((bound * 1.02, -bound * 1.03, bound * 1.05))
    )
    drawn = draw_bland_altman([EstimatorRecord("lsq", treated=treated, limits=limits)], "D", "")
    heights = [float(one.get("y1", "")) for one in elements(drawn, "line", "limit")]
    names = [one for kind in ("who", "who end") for one in elements(drawn, "text", kind)]
    assert len(names) == 3
    for name in names:  # written upwards from its foot
        foot = float(name.get("y", ""))
        assert not any(foot - 8 < height < foot for height in heights)


def test_an_interval_without_end_is_an_arrow() -> None:
    endless = replace(response(0.3), percent_change=Interval(30.0, -math.inf, math.inf))
    record = EstimatorRecord("lsq", response=endless, adjusted_p_value=0.01)
    drawn = draw_forest([ParameterRecord("D", "D", "", "", (record,))], ["lsq"])
    assert len(elements(drawn, "polygon")) == 2
    assert "\N{INFINITY}" in drawn
    assert "nan" not in drawn


def test_distributions_show_every_value_and_quartiles_of_enough() -> None:
    names = tuple(f"sub-{i}" for i in range(6))
    many = Values("healthy", names, (1.0, 2.0, 3.0, 4.0, 5.0, math.nan))
    few = Values("treated, before", names[:2], (2.0, 2.0))
    drawn = draw_distributions([EstimatorRecord("lsq", distributions=(many, few))], "D", "ms", ["bayes", "lsq"])
    assert [told(one) for one in elements(drawn, "circle")][:2] == ["sub-0: 1", "sub-1: 2"]
    assert len(elements(drawn, "circle")) == 7
    (box,) = elements(drawn, "rect", "box")
    assert told(box) == "lsq, healthy: median 3, quartiles 2 and 4"
    places = [float(one.get("cx", "")) for one in elements(drawn, "circle")]
    assert float(box.get("x", "")) == places[1]
    assert [one.text for one in elements(drawn, "text", "cohort")] == ["healthy (5)", "treated, before (2)"]
    assert len({one.get("cy") for one in elements(drawn, "circle")[-2:]}) == 2  # equal values lie above one another


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0, 1, ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]), (-0.02, 0.011, ["-0.02", "-0.01", "0.00", "0.01"])],
)
def test_axes_have_round_numbers(low: float, high: float, expected: list[str]) -> None:
    steps = svg.Axis(low, high, 0, 100).steps(5)
    assert [words.replace("\N{MINUS SIGN}", "-") for _, words in steps] == expected
    assert [place for place, _ in steps] == sorted(place for place, _ in steps)


@pytest.mark.parametrize("values", [[], [math.nan], [2.0], [0.0, 0.0]])
def test_an_axis_is_never_empty(values: list[float]) -> None:
    low, high = svg.span(values)
    assert low < high
    assert all(low < value < high for value in values if math.isfinite(value))


def test_names_do_not_lie_on_one_another() -> None:
    n = 10
    limits = (change_limits(0.01, 14),)
    before = np.linspace(1, 1.02, n)
    calls = (call_changes(before, before + 0.5, limits[0]),)
    treated = changes_of([f"sub-{i:02d}" for i in range(n)], [("1", "2")] * n, before, before + 0.5, calls)
    far = changes_of(["sub-a", "sub-b"], [("1", "2")] * 2, [0.0, 3.0], [0.0, 3.0])
    drawn = draw_bland_altman([EstimatorRecord("lsq", repeats=far, treated=treated, limits=limits)], "D", "")
    names = elements(drawn, "text", "who")
    assert sorted(str(one.text) for one in names) == [f"{i:02d}" for i in range(n)]
    boxes = []
    for one in names:
        x, y = float(one.get("x", "")) - (2 * LETTER if "end" in one.get("class", "") else 0), float(one.get("y", ""))
        boxes.append(Box(x, y - LINE, x + 2 * LETTER, y))
    assert not any(a.meets(b) for i, a in enumerate(boxes) for b in boxes[:i])


def test_text_in_pictures_is_escaped() -> None:
    assert svg.text(1, 2, "<b>&", "name") == '<text class="name" x="1" y="2">&lt;b&gt;&amp;</text>'
    assert svg.tag("g", x_y='"') == '<g x-y="&#34;"></g>'
