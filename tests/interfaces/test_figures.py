"""What the nodes that draw say in words."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bidsfit import models
from bidsfit.bids.inputs import InputImage
from bidsfit.bids.outputs import fit_settings, map_outputs
from bidsfit.bids.units import REPORT_UNITS
from bidsfit.estimators.comparison import Precision
from bidsfit.estimators.least_squares import LeastSquares
from bidsfit.estimators.summary import ParameterSummary
from bidsfit.fitting import FitNumbers, FitResult, FittedCurve
from bidsfit.interfaces.comparison import compare, correlation_warnings, disagreement_warnings
from bidsfit.reports.fit_panels import PANELS, FitView, drawn_curve
from bidsfit.reports.fit_record import bounds_in_words, fit_warnings, options_in_words

NUMBERS = FitNumbers(
    n_voxels=100, freedom=3, seconds=1.0, columns={"b": [0, 1000]}, parameters=[], status={1: 100}, sigma=None
)


def numbers(**medians):
    rows = [ParameterSummary(name, median, 0.0, 2.0, 0.0) for name, median in medians.items()]
    return replace(NUMBERS, parameters=rows, noise={"sigma": 10.0})


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
    words = options_in_words({"Mask": "found", "Bounds": {"D": [0, None]}}, estimator, NUMBERS)
    assert words["Bounds of D"] == "from 0 \N{MULTIPLICATION SIGN} 10⁻³ mm²/s on"
    assert words["Bounds of f"] == "0 to 0.5"
    assert words["Bounds of Dstar"] == "5 to 200 \N{MULTIPLICATION SIGN} 10⁻³ mm²/s"
    assert not {"Bounds", "Bounds of S0"} & set(words)


def test_choices_are_told_in_plain_words():
    settings = {"Debias": False, "Hold": ["D"], "Threshold": 200.0, "MaximumBValue": 1000.0}
    found = replace(NUMBERS, columns={"b": [1000, 0, 0, 1000.2, 2000]})
    words = options_in_words(settings, LeastSquares(models.get("ivim")), found)
    assert [words[name] for name in settings] == ["no", "D", "200 s/mm²", "1000 s/mm²"]
    assert words["b-values fitted (s/mm²)"] == "0 (2 times), 1000 (2 times), 2000"


def test_choices_of_an_organ_are_told_in_plain_words():
    estimator = LeastSquares(models.get("ivim", "liver"))
    words = options_in_words(fit_settings(estimator.model, estimator, "found"), estimator, NUMBERS)
    assert words["Organ"] == "liver"
    assert "Priors: f: " in words["OrganPreset"]
    assert "{" not in words["OrganPreset"]


def test_what_directions_do_to_the_residual_is_said():
    (warning,) = fit_warnings(replace(numbers(D=1.0), over_directions=True), "S0", {"D": Precision(0.1, 0.1, 0)})
    assert "over the directions of a shell counts as residual" in warning


@pytest.mark.usefixtures("blank_figures")
@pytest.mark.parametrize(
    ("freedom", "status", "drawn"), [(0, {1: 3, 2: 1}, ["status"]), (0, {1: 4}, []), (3, {1: 4}, ["quality"])]
)
def test_the_figure_of_a_fit_without_residuals_is_called_by_what_it_shows(tmp_path, freedom, status, drawn):
    mask, model = np.ones((2, 2, 1), dtype=bool), models.get("adc")
    values = {"rmse": np.ones(4), "r2": np.ones(4), "status": np.ones(4, dtype=np.uint8)}
    image = InputImage(Path("a"), Path("a"), None, {}, {"subject": "01"}, "bids:raw:a", False)
    estimator = LeastSquares(model)
    result = FitResult(values, replace(NUMBERS, freedom=freedom, status=status))
    view = FitView(result, estimator, map_outputs(image, model, estimator), mask, np.eye(4))
    assert [name for name in ("quality", "status") if PANELS.get(name).draw(tmp_path / f"{name}.png", view)] == drawn


@pytest.mark.parametrize(("crb", "found"), [(0.4, None), (0.6, "is more than half"), (np.inf, "is infinite")])
def test_a_floor_as_high_as_the_house_is_warned_of(crb, found):
    precisions = {"S0": Precision(1, np.inf, 1), "D": Precision(0.1, crb, 0)}
    warnings = fit_warnings(numbers(S0=1000.0, D=1.0), "S0", precisions)
    assert [found in warning for warning in warnings] == ([True] if found else [])


def test_a_floor_that_is_not_known_is_not():
    unknown = {"D": Precision(np.nan, np.nan, np.nan)}
    assert fit_warnings(numbers(D=1.0), "S0", unknown) == []
    (warning,) = fit_warnings(replace(numbers(D=1.0), noise={}), "S0", unknown)
    assert "noise level" in warning
    assert "--sigma" in warning


def test_estimators_are_compared_with_the_first():
    values = np.linspace(0, 2, 50)
    voxels = [{"estimate": values, "crb": np.full(50, 0.1)}, {"estimate": values + 0.3}, {"estimate": values + 0.05}]
    rows = compare(["lsq", "net", "mle"], "D", voxels, [numbers(S0=9.0, D=1.0)] * 3)
    assert [row["estimator"] for row in rows] == ["lsq", "net", "mle"]
    assert [row.get("exceeds_floor") for row in rows] == [None, True, False]
    assert rows[1]["difference"] == pytest.approx(0.3)
    assert rows[1]["correlation"] == pytest.approx(1)
    (warning,) = disagreement_warnings([{"name": "D", "unit": "10⁻³ mm²/s", "rows": rows}])
    assert warning.startswith("D by net differs from lsq by 0.3 \N{MULTIPLICATION SIGN} 10⁻³ mm²/s in a typical voxel")


def test_parameters_that_go_together_are_named():
    found = [{("f", "D"): 0.1, ("f", "Dstar"): -0.81}, {("f", "D"): np.nan, ("f", "Dstar"): 0.69}]
    (warning,) = correlation_warnings(["lsq", "net"], found)
    assert warning.startswith("f and Dstar by lsq are strongly correlated over the voxels (-0.81)")


@pytest.mark.parametrize("fine", [True, False])
def test_a_curve_may_run_over_anything(fine):
    curve = FittedCurve(
        title="D: 10th percentile",
        voxel=0,
        x=[10.0, 50.0],
        x_label="TE (ms)",
        signal=[9.0, 5.0],
        predicted=[8.0, 6.0],
        counts=[1, 4],
        fitted_x=[0.0, 25.0, 50.0] if fine else [],
        fitted=[10.0, 7.0, 6.0] if fine else [],
    )
    drawn = drawn_curve(curve, models.get("adc"), 0.2)
    assert (drawn.title, drawn.x_label) == ("$D$: 10th percentile", "TE (ms)")
    np.testing.assert_allclose(drawn.residual, [1, -1])
    np.testing.assert_allclose(drawn.error, [0.2, 0.1])
    np.testing.assert_array_equal(drawn.fitted_x, [0, 25, 50] if fine else [10, 50])
