from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from matplotlib.quiver import Quiver
from PIL import Image

from bidsfit.reports import boxes, canvas, contrasts, spaces, statistic_maps
from bidsfit.reports.evaluation import (
    Axis,
    BiasArrows,
    Case,
    Density,
    Group,
    Statistic,
    plot_bias,
    plot_boxes,
    plot_distributions,
    plot_learning,
    plot_statistic_maps,
)
from bidsfit.reports.learning import plot_choices

FRACTION, DIFFUSIVITY = Axis(r"$v_\mathrm{cyl}$", "", (0, 1)), Axis(r"$\lambda$", "µm²/ms", (0, 3))
WATER = Axis(r"$v_\mathrm{csf}$", "", (0, 1))
PLANE = (FRACTION, DIFFUSIVITY)
POINTS = {"1": (0.6, 1.9), "2": (0.02, 2.95), "a long name": (1.0, 0.0)}
RNG = np.random.default_rng(5)
UNIFORM = RNG.uniform(0, 1, (4000, 2)) * [1, 3]
PEAKED = RNG.normal([0.6, 1.9], [0.08, 0.2], (4000, 2))
GRID = np.stack(np.meshgrid(np.linspace(0, 1, 11), np.linspace(0, 3, 11), indexing="ij"), -1).reshape(-1, 2)
SHRUNK = GRID + 0.3 * ([0.5, 1.5] - GRID)
NO_SINKS = np.empty((0, 2))
HOLES = np.where(np.arange(len(GRID))[:, None] % 5 == 0, np.nan, SHRUNK)
HOLES[1] = np.inf
TRUTH = {"vcyl": GRID[:, 0], "lambda": GRID[:, 1]}
AXES = {"vcyl": FRACTION, "lambda": DIFFUSIVITY}


def assert_picture(path: Path) -> None:
    """The file is a whole picture that shows something, and nothing else was left beside it."""
    if path.suffix == ".svg":
        assert "</svg>" in path.read_text(encoding="utf-8")
    else:
        with Image.open(path) as picture:
            picture.load()
            assert picture.width <= 1500
            assert len(np.unique(np.asarray(picture.convert("L")))) > 10
    assert [p.name for p in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("name", ["figure.png", "figure.svg"])
@pytest.mark.parametrize("count", [1, 2, 6])
def test_distributions(tmp_path: Path, count: int, name: str) -> None:
    panels = [Density("uniform", UNIFORM), Density("peaked", PEAKED)] * 3
    assert_picture(plot_distributions(tmp_path / name, panels[:count], PLANE, POINTS))


@pytest.mark.parametrize(
    "samples",
    [UNIFORM * 5, UNIFORM * np.nan, NO_SINKS, [], [[0.5, 1.5]], np.where(UNIFORM > 0.5, np.inf, UNIFORM)],
    ids=["beyond the limits", "all NaN", "empty", "an empty list", "one", "infinite"],
)
def test_distributions_of_unusual_samples(tmp_path: Path, samples: np.ndarray) -> None:
    assert_picture(plot_distributions(tmp_path / "figure.png", [Density("unusual", samples)], PLANE, {}))


@pytest.mark.parametrize(
    "panel",
    [
        pytest.param(BiasArrows("usual", GRID, SHRUNK, PEAKED, np.array([[0.5, 1.5]])), id="usual"),
        pytest.param(BiasArrows("no training", GRID, SHRUNK, None, NO_SINKS), id="no training, no sinks"),
        pytest.param(BiasArrows("holes", GRID, HOLES, UNIFORM, NO_SINKS), id="NaN and infinite"),
        pytest.param(BiasArrows("nothing", GRID, GRID * np.nan, NO_SINKS, NO_SINKS), id="all NaN"),
        pytest.param(BiasArrows("no bias", GRID, GRID, PEAKED + 10, NO_SINKS), id="no bias, training elsewhere"),
    ],
)
@pytest.mark.parametrize("name", ["figure.png", "figure.svg"])
def test_bias(tmp_path: Path, panel: BiasArrows, name: str) -> None:
    assert_picture(plot_bias(tmp_path / name, [panel], PLANE, POINTS))


def test_many_biases(tmp_path: Path) -> None:
    panel = BiasArrows("usual", GRID, SHRUNK, PEAKED, np.array([[0.5, 1.5]]))
    assert_picture(plot_bias(tmp_path / "figure.png", [panel] * 9, PLANE, {}))


def test_colours_of_arrows_have_one_scale_with_zero_in_its_middle(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []
    monkeypatch.setattr(spaces, "save", lambda figure, _: drawn.append(figure))
    panels = [BiasArrows("a third", GRID, SHRUNK, None, NO_SINKS, scale * GRID[:, 1]) for scale in (0.1, -0.2)]
    plot_bias("", panels, PLANE, {}, columns=1, scale="bias of another")
    quivers = [part for axes in drawn[0].axes for part in axes.collections if isinstance(part, Quiver)]
    limits = {part.get_clim() for part in quivers}
    assert len(quivers) == 2
    assert len(limits) == 1
    assert next(iter(limits))[1] == -next(iter(limits))[0] > 0.4
    assert quivers[1].get_array().min() == pytest.approx(-0.6)
    assert any(axes.get_ylabel() == "bias of another" for axes in drawn[0].axes)


@pytest.mark.parametrize(
    ("training", "expected"),
    [(PEAKED, True), (UNIFORM, False), (UNIFORM[:1000], False), (NO_SINKS, False), (PEAKED + 10, False)],
)
def test_only_a_density_with_a_peak_has_contours(training: np.ndarray, expected: bool) -> None:
    axes = canvas.page(2, 2).add_subplot()
    assert spaces.draw_contours(axes, training, PLANE) is expected
    assert bool(axes.collections) is expected


def test_contours_enclose_the_share_that_they_say() -> None:
    axes = canvas.page(2, 2).add_subplot()
    spaces.draw_contours(axes, PEAKED, PLANE)
    for lines, share in zip(axes.collections, spaces.ENCLOSED, strict=True):
        inside = lines.get_paths()[0].contains_points(PEAKED)
        assert inside.mean() == pytest.approx(share, abs=0.01)


def test_biases_refuse_what_they_cannot_show(tmp_path: Path) -> None:
    path = tmp_path / "figure.png"
    usual = BiasArrows("usual", GRID, SHRUNK, None, NO_SINKS)
    with pytest.raises(ValueError, match="1 to 6 panels, not 0"):
        plot_distributions(path, [], PLANE, {})
    with pytest.raises(ValueError, match="1 to 21 panels, not 22"):
        plot_bias(path, [usual] * 22, PLANE, {})
    with pytest.raises(ValueError, match=r"'flat' have the shape \(3,\); it must be \(n, 2\)"):
        plot_distributions(path, [Density("flat", np.ones(3))], PLANE, {})
    with pytest.raises(ValueError, match="Truth and mean of 'short'"):
        plot_bias(path, [BiasArrows("short", GRID, SHRUNK[:3], None, NO_SINKS)], PLANE, {})
    with pytest.raises(ValueError, match="2 axes, not 1"):
        plot_bias(path, [usual], PLANE[:1], {})  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"\.png or \.svg"):
        plot_bias(tmp_path / "figure.pdf", [usual], PLANE, {})
    assert list(tmp_path.iterdir()) == []


def statistic(title: str = "lsq", factor: float = 1.0) -> Statistic:
    spread = factor * np.hypot(GRID[:, 0], GRID[:, 1])
    spread[:11], spread[-3:] = np.inf, np.nan
    return Statistic(title, {"vcyl": spread, "lambda": 3 * spread})


@pytest.mark.parametrize("name", ["figure.png", "figure.svg"])
@pytest.mark.parametrize("diverging", [True, False])
@pytest.mark.parametrize("count", [1, 3, 9])
def test_maps_over_two_parameters(tmp_path: Path, count: int, diverging: bool, name: str) -> None:
    rows = [statistic(f"an estimator, number {i}", i - 2) for i in range(count)]
    assert_picture(plot_statistic_maps(tmp_path / name, rows, TRUTH, AXES, "bias", diverging=diverging))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 0.0, 2.0])
def test_maps_of_one_value(tmp_path: Path, value: float) -> None:
    row = Statistic("constant", {name: np.full(len(GRID), value) for name in TRUTH})
    assert_picture(plot_statistic_maps(tmp_path / "figure.png", [row], TRUTH, AXES, "bias", diverging=True))


@pytest.mark.parametrize("count", [1, 2, 5])
@pytest.mark.parametrize("levels", [1, 3, 7])
def test_maps_over_a_simplex(tmp_path: Path, levels: int, count: int) -> None:
    points = [(i / 10, j / 10, k / 2) for i in range(11) for j in range(11 - i) for k in range(levels)]
    truth = dict(zip(("vcyl", "vcsf", "lambda"), np.array(points).T, strict=True))
    axes = {"vcyl": FRACTION, "vcsf": WATER, "lambda": DIFFUSIVITY}
    rows = [Statistic(f"number {i}", dict.fromkeys(truth, truth["vcyl"] + i)) for i in range(count)]
    assert_picture(plot_statistic_maps(tmp_path / "figure.png", rows, truth, axes, "standard deviation"))


def test_gaps_of_a_grid_stay_empty() -> None:
    x, y = np.array([0, 0.1, 0.1 + 0.2, 0.0]), np.array([0.0, 0, 0, 2])
    grid = statistic_maps.RegularPlaces.of(x, y, "xy")
    assert grid.shape == (2, 4)
    assert grid.extent == pytest.approx((-0.05, 0.35, -1, 3))
    picture = grid.picture(np.array([1.0, 2, 3, 4]), np.array([True, True, True, True]))
    nan = np.nan
    np.testing.assert_array_equal(picture, [[1, 2, nan, 3], [4, nan, nan, nan]])


def test_maps_refuse_what_they_cannot_show(tmp_path: Path) -> None:
    path = tmp_path / "figure.png"
    with pytest.raises(ValueError, match="2 or 3 parameters"):
        plot_statistic_maps(path, [statistic()], {"vcyl": GRID[:, 0]}, AXES, "bias")
    with pytest.raises(ValueError, match="no estimator"):
        plot_statistic_maps(path, [], TRUTH, AXES, "bias")
    with pytest.raises(ValueError, match=r"'lsq' must have 121 values of 'lambda'"):
        plot_statistic_maps(path, [Statistic("lsq", {"vcyl": GRID[:, 0]})], TRUTH, AXES, "bias")
    with pytest.raises(ValueError, match="of one length"):
        plot_statistic_maps(path, [statistic()], {"vcyl": GRID[:, 0], "lambda": GRID[:3, 1]}, AXES, "bias")
    with pytest.raises(ValueError, match="must be finite"):
        plot_statistic_maps(path, [statistic()], {**TRUTH, "lambda": GRID[:, 1] * np.nan}, AXES, "bias")
    with pytest.raises(ValueError, match="'lambda' do not lie at regular distances"):
        plot_statistic_maps(path, [statistic()], {**TRUTH, "lambda": GRID[:, 1] ** 1.5}, AXES, "bias")
    assert list(tmp_path.iterdir()) == []


def case(title: str, count: int, truth: tuple[float, ...] = (0.6, 1.9)) -> Case:
    estimates = RNG.normal(truth, [0.05, 0.2], (50, 2))
    estimates[0] = np.nan
    return Case(title, np.array(truth), [Group(f"estimator {i}", estimates, np.array([-0.3, 2])) for i in range(count)])


@pytest.mark.parametrize("name", ["figure.png", "figure.svg"])
@pytest.mark.parametrize(("cases", "groups"), [(1, 1), (2, 3), (4, 8)])
def test_boxes(tmp_path: Path, cases: int, groups: int, name: str) -> None:
    shown = [case(f"case {i}", groups, (0.1 + 0.2 * i, 1.9)) for i in range(cases)]
    assert_picture(plot_boxes(tmp_path / name, shown, PLANE, subtitle="SNR 25"))


def test_large_effects_have_a_star_and_the_usual_tissue_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []
    monkeypatch.setattr(boxes, "save", lambda figure, _: drawn.append(figure))
    plot_boxes("", [replace(case("one", 1), usual=np.array([0.1, 2.5]))], PLANE, usual="white matter")
    above, below = drawn[0].axes
    assert [text.get_text() for axes in (above, below) for text in axes.texts] == ["\N{MINUS SIGN}0.3", "2.0★"]
    for axes, truth, usual in ((above, 0.6, 0.1), (below, 1.9, 2.5)):
        heights = [line.get_ydata()[0] for line in axes.lines[:2]]
        assert heights == [truth, usual]
        assert axes.get_ylim()[0] < usual < axes.get_ylim()[1]


def test_contrasts_stand_where_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []
    monkeypatch.setattr(contrasts, "save", lambda figure, _: drawn.append(figure))
    left = {"lsq": np.array([[1.0, np.nan], [0.9, 5.0]]), "net": np.array([[0.4, np.nan], [0.1, -5.0]])}
    level = contrasts.Contrast("SNR 25", left, {name: np.full((2, 2), 0.05) for name in left})
    contrasts.plot_contrasts("", [level], ["vcyl", "lambda"], ["1", "2"])
    panels = dict(zip(("vcyl 1", "vcyl 2", "lambda 1", "lambda 2"), drawn[0].axes, strict=True))
    places = {
        name: [line.get_xdata()[0] for line in axes.lines[2:] if len(line.get_xdata()) == 1]
        for name, axes in panels.items()
    }
    assert places == {"vcyl 1": [1.0, 0.4], "vcyl 2": [], "lambda 1": [0.9, 0.1], "lambda 2": [1.6, -0.6]}
    assert [text.get_text() for text in panels["vcyl 2"].texts] == ["no contrast"]
    assert [line.get_marker() for line in panels["lambda 2"].lines[2:]] == [">", "<"]


@pytest.mark.parametrize("value", [np.nan, np.inf, 0.5, 1e6])
def test_boxes_of_unusual_estimates(tmp_path: Path, value: float) -> None:
    usual = case("usual", 1)
    unusual = Group("unusual", np.full((20, 2), value), np.array([np.nan, np.inf]))
    shown = Case("unusual", usual.truth, [*usual.groups, unusual])
    assert_picture(plot_boxes(tmp_path / "figure.png", [shown], PLANE))


@pytest.mark.parametrize(
    ("value", "expected"),
    [(0.04, "0.0"), (-0.04, "0.0"), (-1.25, "−1.2"), (9.97, "10"), (-41.3, "−41"), (np.nan, "–"), (-np.inf, "−∞")],  # noqa: RUF001
)
def test_numbers_above_boxes_are_short(value: float, expected: str) -> None:
    assert boxes.short_number(value) == expected


def test_boxes_refuse_what_they_cannot_show(tmp_path: Path) -> None:
    path = tmp_path / "figure.png"
    with pytest.raises(ValueError, match="1 to 4 cases, not 0"):
        plot_boxes(path, [], PLANE)
    with pytest.raises(ValueError, match="1 to 8 groups, not 9"):
        plot_boxes(path, [case("many", 9)], PLANE)
    with pytest.raises(ValueError, match="'b' has other groups than 'a'"):
        plot_boxes(path, [case("a", 2), case("b", 3)], PLANE)
    with pytest.raises(ValueError, match="truth of 'a' must hold 1 values"):
        plot_boxes(path, [case("a", 2)], PLANE[:1])
    group = Group("flat", np.ones(2), np.ones(2))
    with pytest.raises(ValueError, match=r"'flat' have the shape \(2,\); it must be \(r, 2\)"):
        plot_boxes(path, [Case("a", np.ones(2), [group])], PLANE)
    group = Group("short", np.ones((5, 2)), np.ones(1))
    with pytest.raises(ValueError, match="d of 'short' must hold 2 values"):
        plot_boxes(path, [Case("a", np.ones(2), [group])], PLANE)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["figure.png", "figure.svg"])
@pytest.mark.parametrize("shift", [0.01, -1.0, np.nan], ids=["logarithmic", "negative", "all NaN"])
def test_learning(tmp_path: Path, shift: float, name: str) -> None:
    steps = np.arange(0, 2000, 10)
    loss = np.exp(-steps / 400) + shift
    validation = np.where(steps % 100 == 0, 1.1 * loss, np.nan)
    assert_picture(plot_learning(tmp_path / name, steps, loss, validation, 1200, label="mean squared error"))


def test_errors_against_depth(tmp_path: Path) -> None:
    rows = {"no noise": {"vcyl": [0.1, 0.05], "lambda": [0.0, 0.0]}, "SNR 25": {"vcyl": [1, 2], "lambda": [3, 4]}}
    assert_picture(plot_choices(tmp_path / "figure.png", (1, 2), rows, AXES, choice="hidden layers"))


def test_learning_refuses_curves_of_another_length(tmp_path: Path) -> None:
    for steps in ([], [1, 2, 3]):
        with pytest.raises(ValueError, match="of one length, not empty"):
            plot_learning(tmp_path / "figure.png", steps, [1, 2], [1, 2], 1, label="loss")
