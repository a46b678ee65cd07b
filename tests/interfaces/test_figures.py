"""What the nodes that draw say in words."""

import numpy as np
import pytest

from bidsfit import models
from bidsfit.bids.units import REPORT_UNITS
from bidsfit.estimators.comparison import Precision
from bidsfit.estimators.least_squares import LeastSquares
from bidsfit.interfaces.comparison import _disagreements, _entangled, compare
from bidsfit.interfaces.figures import _called, _curve, _options_in_words, _warnings, bounds_in_words

SUMMARY = {
    "n_voxels": 100,
    "status": {"1": 100},
    "freedom": 3,
    "columns": {"b": [0, 1000]},
    "sigma": None,
    "over_directions": False,
}


def summary(**medians):
    rows = [
        {"name": name, "median": median, "p5": 0.0, "p95": 2.0, "fraction_at_bound": 0.0}
        for name, median in medians.items()
    ]
    return SUMMARY | {"parameters": rows}


@pytest.mark.parametrize(
    ("bounds", "expected"),
    [
        ((0, 5), "0 to 5 \N{MULTIPLICATION SIGN} 10⁻³ mm²/s"),
        ((1.2, 1.2), "held at 1.2 \N{MULTIPLICATION SIGN} 10⁻³ mm²/s"),
        ((0, np.inf), "from 0 \N{MULTIPLICATION SIGN} 10⁻³ mm²/s on"),
        ((-np.inf, 3), "up to 3 \N{MULTIPLICATION SIGN} 10⁻³ mm²/s"),
        ((-np.inf, np.inf), "none"),
    ],
)
def test_bounds_in_words(bounds, expected):
    assert bounds_in_words(*bounds, REPORT_UNITS["um^2/ms"].name) == expected


def test_choices_state_bounds_with_their_unit():
    estimator = LeastSquares(models.get("ivim"), bounds={"D": (0.0, np.inf), "f": (0.0, 0.5)})
    words = _options_in_words({"Mask": "found", "Bounds": {"D": [0, None]}}, estimator, SUMMARY)
    assert words["Bounds of D"] == "from 0 \N{MULTIPLICATION SIGN} 10⁻³ mm²/s on"
    assert words["Bounds of f"] == "0 to 0.5"
    assert words["Bounds of Dstar"] == "3 to 200 \N{MULTIPLICATION SIGN} 10⁻³ mm²/s"
    assert not {"Bounds", "Bounds of S0"} & set(words)


def test_choices_are_told_in_plain_words():
    settings = {"Debias": False, "Hold": ["D"], "Threshold": 200.0, "MaximumBValue": 1000.0}
    summary = SUMMARY | {"columns": {"b": [1000, 0, 0, 1000.2, 2000]}}
    words = _options_in_words(settings, LeastSquares(models.get("ivim")), summary)
    assert [words[name] for name in settings] == ["no", "D", "200 s/mm²", "1000 s/mm²"]
    assert words["b-values fitted (s/mm²)"] == "0 (2 times), 1000 (2 times), 2000"


def test_what_directions_do_to_the_residual_is_said():
    (warning,) = _warnings(summary(D=1.0) | {"over_directions": True}, "S0", {"D": Precision(0.1, 0.1, 0)})
    assert "over the directions of a shell counts as residual" in warning


def test_the_figure_of_a_fit_without_residuals_is_called_by_what_it_shows():
    drawn = {"maps": "maps.png", "quality": "quality.png"}
    assert _called(drawn, 0) == {"maps": "maps.png", "status": "quality.png"}
    assert _called(drawn, 3) == drawn


@pytest.mark.parametrize(("crb", "found"), [(0.4, None), (0.6, "is more than half"), (np.inf, "is infinite")])
def test_a_floor_as_high_as_the_house_is_warned_of(crb, found):
    precisions = {"S0": Precision(1, np.inf, 1), "D": Precision(0.1, crb, 0)}
    warnings = _warnings(summary(S0=1000.0, D=1.0), "S0", precisions)
    assert [found in warning for warning in warnings] == ([True] if found else [])


def test_a_floor_that_is_not_known_is_not():
    assert _warnings(summary(D=1.0), "S0", {"D": Precision(np.nan, np.nan, np.nan)}) == []


def test_estimators_are_compared_with_the_first():
    values = np.linspace(0, 2, 50)
    voxels = [{"estimate": values, "crb": np.full(50, 0.1)}, {"estimate": values + 0.3}, {"estimate": values + 0.05}]
    rows = compare(["lsq", "net", "mle"], "D", voxels, [summary(S0=9.0, D=1.0)] * 3)
    assert [row["estimator"] for row in rows] == ["lsq", "net", "mle"]
    assert [row.get("exceeds_floor") for row in rows] == [None, True, False]
    assert rows[1]["difference"] == pytest.approx(0.3)
    assert rows[1]["correlation"] == pytest.approx(1)
    (warning,) = _disagreements([{"name": "D", "unit": "10⁻³ mm²/s", "rows": rows}])
    assert warning.startswith("D by net differs from lsq by 0.3 \N{MULTIPLICATION SIGN} 10⁻³ mm²/s in a typical voxel")


def test_parameters_that_go_together_are_named():
    found = [{("f", "D"): 0.1, ("f", "Dstar"): -0.81}, {("f", "D"): np.nan, ("f", "Dstar"): 0.69}]
    (warning,) = _entangled(["lsq", "net"], found)
    assert warning.startswith("f and Dstar by lsq are strongly correlated over the voxels (-0.81)")


@pytest.mark.parametrize("fine", [True, False])
def test_a_curve_may_run_over_anything(fine):
    curve = {
        "title": "D: 10th percentile",
        "x": [10.0, 50.0],
        "x_label": "TE (ms)",
        "signal": [9.0, 5.0],
        "predicted": [8.0, 6.0],
        "counts": [1, 4],
        "fitted_x": [0.0, 25.0, 50.0] if fine else [],
        "fitted": [10.0, 7.0, 6.0] if fine else [],
    }
    drawn = _curve(curve, models.get("adc"), 0.2)
    assert (drawn.title, drawn.x_label) == ("$D$: 10th percentile", "TE (ms)")
    np.testing.assert_allclose(drawn.residual, [1, -1])
    np.testing.assert_allclose(drawn.error, [0.2, 0.1])
    np.testing.assert_array_equal(drawn.fitted_x, [0, 25, 50] if fine else [10, 50])
