from __future__ import annotations

from itertools import combinations
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from PIL import Image

from bidsfit.reports import canvas, charts, comparisons, figures, mosaics
from bidsfit.reports.canvas import robust_limits, spread_limits
from bidsfit.reports.figures import Curve, Decay, EstimatorMap, Panel
from bidsfit.reports.tiles import Mosaic

SHAPE, AFFINE = (16, 18, 4), np.diag([-2.0, 2.0, 3.0, 1.0])
INSIDE = np.zeros(SHAPE, dtype=bool)
INSIDE[3:13, 4:15] = True
VALUES = np.random.default_rng(3).gamma(4, 0.25, SHAPE)
ONE_VOXEL = np.zeros(SHAPE, dtype=bool)
ONE_VOXEL[8, 8, 2] = True
OBLIQUE = np.array([[0.9, -0.4, 0, 3], [0.4, 1.8, -0.5, -20], [0, 0.3, 2.9, 7], [0, 0, 0, 1.0]])


def assert_picture(path: Path) -> None:
    """The file is a whole picture that shows something, and nothing else was left beside it."""
    with Image.open(path) as picture:
        picture.load()
        assert picture.width <= 1500
        assert len(np.unique(np.asarray(picture.convert("L")))) > 10
    assert [p.name for p in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize(
    ("panel", "mask", "affine"),
    [
        pytest.param(Panel(VALUES, "$D$", "10⁻³ mm²/s", (0, 2)), INSIDE, AFFINE, id="usual"),
        pytest.param(Panel(VALUES, "$D$"), INSIDE, OBLIQUE, id="oblique"),
        pytest.param(Panel(VALUES[:, :, :1], "$D$"), INSIDE[:, :, :1], AFFINE, id="one slice"),
        pytest.param(Panel(np.full(SHAPE, np.nan), "nothing"), INSIDE, AFFINE, id="all NaN"),
        pytest.param(Panel(np.full(SHAPE, 3.0), "constant"), INSIDE, AFFINE, id="constant"),
        pytest.param(Panel(np.where(VALUES > 1, np.inf, VALUES), "infinite"), INSIDE, AFFINE, id="infinite"),
        pytest.param(Panel(VALUES, "one voxel"), ONE_VOXEL, AFFINE, id="one voxel"),
        pytest.param(Panel(VALUES, "empty mask"), ~np.ones(SHAPE, dtype=bool), AFFINE, id="empty mask"),
        pytest.param(Panel(VALUES.astype(">f4"), "big-endian"), INSIDE, AFFINE, id="big-endian"),
    ],
)
def test_maps(tmp_path: Path, panel: Panel, mask: np.ndarray, affine: np.ndarray) -> None:
    assert_picture(figures.plot_maps(tmp_path / "maps.png", [panel, panel], mask, affine))


@pytest.mark.parametrize("affine", [AFFINE, OBLIQUE], ids=["straight", "oblique"])
@pytest.mark.parametrize("count", [2, 3, 9])
def test_comparison(tmp_path: Path, count: int, affine: np.ndarray) -> None:
    words = "median 1\n(0 to 2)", "median 0.1"
    columns = [EstimatorMap(f"estimator {i}", VALUES + 0.1 * i, *words) for i in range(count)]
    assert_picture(figures.plot_comparison(tmp_path / "comparison.png", columns, INSIDE, affine, "ms", (0, 2)))


@pytest.mark.parametrize(
    "other",
    [VALUES, VALUES * np.nan, np.full(SHAPE, np.inf), np.where(VALUES > 1, np.nan, VALUES), np.full(SHAPE, 3.0)],
    ids=["the same", "all NaN", "infinite", "some NaN", "constant"],
)
def test_comparison_of_unusual_maps(tmp_path: Path, other: np.ndarray) -> None:
    columns = [EstimatorMap("lsq", VALUES, "median 1"), EstimatorMap("other", other, "median 1", "median 0")]
    assert_picture(figures.plot_comparison(tmp_path / "comparison.png", columns, INSIDE, AFFINE))
    assert_picture(figures.plot_comparison(tmp_path / "comparison.png", columns[::-1], INSIDE, AFFINE))


def test_uncertainty_shows_what_is_not_determined_apart(tmp_path: Path) -> None:
    spread = np.where(VALUES > 1.5, np.inf, VALUES)
    spread[5, 6] = np.nan
    panels = [Panel(spread, f"{name} of $D$", "ms", (0, 1), "cividis", "12 % not determined") for name in "ab"]
    path = figures.plot_maps(tmp_path / "uncertainty.png", panels, INSIDE, AFFINE, columns=2)
    assert_picture(path)
    with Image.open(path) as picture:
        colours = {colour for _, colour in picture.convert("RGB").getcolors(1 << 24)}
    assert tuple(bytes.fromhex(mosaics.NOT_A_NUMBER[1:])) in colours
    assert mosaics.colours_in_words([spread], INSIDE) == "Pink: no estimate.  White: not determined by the data."
    assert mosaics.colours_in_words([VALUES, VALUES * np.nan], INSIDE) == ""


def test_columns_show_as_many_slices_as_there_is_room_for() -> None:
    mask = np.ones((20, 20, 30), dtype=bool)
    few, more, many = (Mosaic.around(mask, np.eye(4), columns, columns, bars=columns) for columns in (2, 1, 12))
    assert 1 < len(few.slices) < len(more.slices)
    assert many.slices.indices  # one slice at least


def test_pictures_and_their_words_do_not_overlap() -> None:
    mosaic = Mosaic.around(np.ones((20, 20, 30), dtype=bool), np.eye(4), 6, 2, bars=2)
    for k in range(6):
        axes = mosaic.begin(*divmod(k, 2), "A title of several words. " * (1 + 2 * k))
        mosaic.describe(axes, "words\n" * (k % 3))
    mosaic.end("A remark.", [Patch(label="one"), Patch(label="two")])
    parts = [*mosaic.rows.flat, *mosaic.figure.legends]
    boxes = [part.get_tightbbox() for part in parts]
    assert [(a, b) for a, b in combinations(range(7), 2) if boxes[a].overlaps(boxes[b])] == []
    page = mosaic.figure.bbox.padded(1)
    assert all(page.contains(*corner) for box in boxes for corner in box.corners())


@pytest.mark.parametrize(
    ("values", "span", "expected"),
    [
        (np.linspace(0, 1, 1001), np.inf, (0, 0.95)),
        (np.linspace(0, 1, 1001), 1.0, (0, 0.5)),  # no more than half of what the maps show
        ([0.1, np.inf, np.nan], np.inf, (0, 0.15)),
        ([np.inf, np.nan], 3.0, (0, 1)),
        ([], 3.0, (0, 1)),
        ([0.0, 0.0], np.inf, (0, 1)),
    ],
)
def test_limits_of_spreads_begin_at_zero(values: list[float], span: float, expected: tuple[float, float]) -> None:
    assert spread_limits(np.asarray(values), span) == pytest.approx(expected)


def test_many_slices_and_panels(tmp_path: Path) -> None:
    values = np.random.default_rng(3).random((20, 20, 70))
    panels = [Panel(values, name) for name in "abcd"]
    assert_picture(figures.plot_maps(tmp_path / "maps.png", panels, values > -1, np.diag([1.0, 2.0, 2.0, 1.0])))


def test_a_voxel_outside_the_mask_does_not_show(tmp_path: Path) -> None:
    changed = np.where(INSIDE, VALUES, 1e6)
    paths = [
        figures.plot_maps(tmp_path / f"{i}" / "maps.png", [Panel(values, "D")], INSIDE, AFFINE)
        for i, values in enumerate((VALUES, changed))
    ]
    assert paths[0].read_bytes() == paths[1].read_bytes()


@pytest.mark.parametrize("background", [VALUES, np.full(SHAPE, np.nan), np.zeros(SHAPE)])
def test_mask(tmp_path: Path, background: np.ndarray) -> None:
    assert_picture(figures.plot_mask(tmp_path / "mask.png", background, INSIDE, AFFINE))


def test_quality_names_every_status_that_occurs(tmp_path: Path) -> None:
    status = np.where(INSIDE, np.random.default_rng(0).integers(1, 5, SHAPE), 0)
    names = {1: "converged", 2: "at a bound: " + "a long explanation " * 20, 3: "limit"}  # 4 has no name
    panel = Panel(VALUES, "residual")
    path = figures.plot_quality(tmp_path / "quality.png", [panel, panel], status, names, INSIDE, AFFINE)
    assert_picture(path)


def test_maps_that_are_equal_are_said_to_be_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []

    def save(figure: Figure, path: Path) -> Path:
        said.extend(axes.get_title("left").replace("\n", " ") for axes in figure.axes)
        return canvas.save(figure, path)

    monkeypatch.setattr(comparisons, "save", save)
    columns = [figures.EstimatorMap("lsq", VALUES, ""), figures.EstimatorMap("mle", VALUES.copy(), "", "")]
    assert_picture(figures.plot_comparison(tmp_path / "comparison.png", columns, INSIDE, AFFINE))
    assert any("no difference in any voxel" in words for words in said)
    said.clear()
    columns[1] = figures.EstimatorMap("mle", VALUES + 0.1, "", "")
    figures.plot_comparison(tmp_path / "comparison.png", columns, INSIDE, AFFINE)
    assert not any("no difference" in words for words in said)
    columns[1] = figures.EstimatorMap("mle", VALUES + 1e-9, "", "median 1e-9", alike=True)
    assert_picture(figures.plot_comparison(tmp_path / "comparison.png", columns, INSIDE, AFFINE))
    assert any("far less than the noise" in words for words in said)


def test_a_range_beyond_which_many_values_lie_is_widened() -> None:
    values = np.linspace(0, 1, 101)
    assert figures.widened((0.0, 0.4), values) == (0.0, 1.0)
    assert figures.widened((0.0, 0.9), values) == (0.0, 0.9)
    assert figures.widened((0.0, 0.4), np.full(3, np.nan)) == (0.0, 0.4)


def test_a_panel_without_any_value_is_left_out(tmp_path: Path) -> None:
    empty, status = Panel(np.full(SHAPE, np.nan), "empty"), np.where(INSIDE, 1, 0)
    with_it, without = (tmp_path / "with", tmp_path / "without")
    for folder, more in ((with_it, [empty]), (without, [])):
        figures.plot_maps(folder / "maps.png", [Panel(VALUES, "D"), *more], INSIDE, AFFINE)
        figures.plot_quality(folder / "quality.png", [Panel(VALUES, "R"), *more], status, {1: "ok"}, INSIDE, AFFINE)
        histograms = [(panel.title, "", panel.data[INSIDE], (0, 3), None) for panel in (Panel(VALUES, "D"), *more)]
        figures.plot_histograms(folder / "histograms.png", histograms)
    for name in ("maps.png", "quality.png", "histograms.png"):
        assert (with_it / name).read_bytes() == (without / name).read_bytes()
    undetermined = Panel(np.full(SHAPE, np.inf), "not determined")
    assert figures.with_values([empty, undetermined], INSIDE) == [undetermined]


def test_status_colours_differ_and_none_is_the_background() -> None:
    colours = [figures.status_colour(code) for code in range(6)]
    assert len(set(colours)) == 6


def test_histograms(tmp_path: Path) -> None:
    values = VALUES[INSIDE]
    entries = [
        ("$D$", "10⁻³ mm²/s", values, (0, 2), (0, 5)),
        ("free", "", values, None, None),
        ("NaN", "", values * np.nan, None, (0, 1)),
        ("at a bound", "", np.full(9, 5.0), (0, 3), (0, 5)),
        ("infinite bounds", "", values, None, (0, np.inf)),
    ]
    assert_picture(figures.plot_histograms(tmp_path / "histograms.png", entries))


def test_histograms_say_what_lies_at_a_bound_and_what_beyond_the_picture() -> None:
    values = np.array([0, 0, 1, 1.5, 2.5, 5, 5, 5, 2.9, 0.5])
    ends, remarks = charts.display_ends(values, 0.0, 2.0, (0.0, 5.0))
    assert remarks == ["20.0 % at the lower bound, 0", "30.0 % at the upper bound, 5", "20.0 % above the range shown"]
    np.testing.assert_array_equal(values[~ends], [1, 1.5, 0.5])


B = np.array([0, 5, 10, 20, 50, 100, 200, 400, 800.0])
SIGNAL = 300 * np.exp(-B * 2e-3) + 20


@pytest.mark.parametrize(
    "curve",
    [
        Curve("usual", B, SIGNAL, SIGNAL / 20, B, SIGNAL, SIGNAL / 40),
        Curve("no errors", B, SIGNAL, None, B, SIGNAL),
        Curve("unknown errors", B, SIGNAL, SIGNAL * np.nan, B, SIGNAL, SIGNAL * 0),
        Curve("negative", B, SIGNAL - 100, None, B, SIGNAL),
        Curve("zero", B, SIGNAL * 0, None, B, SIGNAL * 0),
        Curve("NaN", B, SIGNAL * np.nan, None, B, SIGNAL * np.nan, SIGNAL * np.nan),
        Curve("points", B, SIGNAL, None, B, SIGNAL * 1.1, SIGNAL * 0.1, "TE (ms)"),
        Curve("one", np.array([1000.0]), np.array([5.0]), None, np.array([1000.0]), np.array([5.0])),
    ],
    ids=lambda curve: curve.title,
)
def test_curves(tmp_path: Path, curve: Curve) -> None:
    assert_picture(figures.plot_curves(tmp_path / "curves.png", [curve]))


def test_voxels_are_marked_where_a_slice_shows_them(tmp_path: Path) -> None:
    mask = np.ones((8, 9, 1), dtype=bool)
    panel, options = figures.Panel(np.ones(mask.shape), "D"), {"mask": mask, "affine": np.diag([-1.0, 1, 1, 1])}
    plain = figures.plot_maps(tmp_path / "plain.png", [panel], **options)

    def centre(voxel: tuple[int, int, int]) -> np.ndarray:
        """Row and column of what the mark of a voxel changes in the picture."""
        marked = figures.plot_maps(tmp_path / "marked.png", [panel], **options, marks={"A": voxel})
        changed = np.any(np.asarray(Image.open(marked)) != np.asarray(Image.open(plain)), axis=-1)
        return np.argwhere(changed).mean(axis=0)

    here, anterior, left = centre((3, 3, 0)), centre((3, 6, 0)), centre((6, 3, 0))  # the first axis points to the left
    assert anterior[0] < here[0] - 20
    assert left[1] < here[1] - 20
    assert anterior[1] == pytest.approx(here[1], abs=1)


@pytest.mark.parametrize("count", [1, 4])
def test_decays(tmp_path: Path, count: int) -> None:
    fitted = [SIGNAL, SIGNAL * 0.9, SIGNAL * np.nan]
    decay = Decay("$f$: 10th percentile", B, SIGNAL, B, fitted, ["lsq  $f$ 0.1", "mle", "none"], "TE (ms)")
    assert_picture(figures.plot_decays(tmp_path / "decays.png", [decay] * count))


@pytest.mark.parametrize("directions", [None, "random", "zero", "one"])
def test_shells(tmp_path: Path, directions: str | None) -> None:
    b_values = np.repeat([0, 700, 1000, 1500, 2000, 3000, 5000], 8)
    random = np.random.default_rng(2).normal(size=(b_values.size, 3))
    given = {"random": random, "zero": random * 0, "one": random * 0 + [0, 0, 1]}
    chosen = None if directions is None else given[directions]
    assert_picture(figures.plot_shells(tmp_path / "shells.png", b_values, chosen))


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.linspace(0.1, 1.9, 1001), (0.0, 2.0)),
        (np.linspace(90, 110, 1001), (90, 110)),
        ([], (0, 1)),
        ([np.nan, np.inf], (0, 1)),
        ([0.0, 0.0], (0, 1)),
        ([1e-14, -3e-15], (0, 1)),  # the residual of an exact fit
        ([4.0, 4.0], (2, 6)),
        ([-2.0], (-3, -1)),
    ],
)
def test_limits_are_round_and_never_empty(values: list[float], expected: tuple[float, float]) -> None:
    assert robust_limits(np.asarray(values)) == pytest.approx(expected)


def test_drawing_leaves_no_trace(tmp_path: Path) -> None:
    before = dict(matplotlib.rcParams)
    figures.plot_shells(tmp_path / "shells.svg", [0, 1000], None)
    assert dict(matplotlib.rcParams) == before
    assert (tmp_path / "shells.svg").read_text().startswith("<?xml")


def test_a_figure_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"\.png or \.svg"):
        figures.plot_shells(tmp_path / "shells.gif", [0, 1000], None)
    assert list(tmp_path.iterdir()) == []
