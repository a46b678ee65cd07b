from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from bidsfit.reports import lesions, mosaics
from bidsfit.reports.lesions import DifferenceColumn, LesionColumn, plot_difference_maps, plot_lesions
from bidsfit.reports.spaces import Axis

SHAPE = (40, 50)
X, Y = np.mgrid[: SHAPE[0], : SHAPE[1]]
MASK = ((X - 20) / 18) ** 2 + ((Y - 25) / 22) ** 2 < 1
LESION = (X - 26) ** 2 + (Y - 30) ** 2 < 10
AXES = {"vcyl": Axis(r"$v_\mathrm{cyl}$", "", (0, 1)), "lambda": Axis(r"$\lambda$", "µm²/ms", (0, 3))}
RNG = np.random.default_rng(2)
ERRORS = {name: {"WM": 0.03125, "GM": 0.045, "tumour": 1.0} for name in AXES}


def maps(noise: float) -> dict[str, np.ndarray]:
    clean = np.where(LESION, 0.3, 0.6)
    noisy = np.where(MASK, clean + RNG.normal(0, noise, SHAPE), np.nan)
    return {"vcyl": noisy, "lambda": 3 * noisy}


COLUMNS = [LesionColumn("truth", maps(0)), *[LesionColumn(f"estimator {i}", maps(0.05)) for i in range(7)]]
DIFFERENCES = [DifferenceColumn(column.title, maps(0.05), ERRORS) for column in COLUMNS]


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


def colours(path: Path) -> set[tuple[int, ...]]:
    with Image.open(path) as picture:
        return {colour for _, colour in picture.convert("RGB").getcolors(1 << 24)}


PINK = tuple(bytes.fromhex(mosaics.NOT_A_NUMBER[1:]))


@pytest.mark.parametrize("name", ["figure.png", "figure.svg"])
@pytest.mark.parametrize("count", [1, 3, 8])
def test_lesions(tmp_path: Path, count: int, name: str) -> None:
    path = plot_lesions(tmp_path / name, COLUMNS[:count], LESION, AXES)
    assert_picture(path)
    assert name.endswith("svg") or PINK not in colours(path)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 5.0])
def test_unusual_estimates_in_a_lesion(tmp_path: Path, value: float) -> None:
    unusual = LesionColumn("unusual", {name: np.where(LESION, value, data) for name, data in maps(0.1).items()})
    path = plot_lesions(tmp_path / "figure.png", [COLUMNS[0], unusual], LESION, AXES)
    assert_picture(path)
    assert (PINK in colours(path)) is bool(np.isnan(value))


def test_the_box_is_around_the_lesion_and_inside_the_image() -> None:
    corner = np.zeros(SHAPE, dtype=bool)
    corner[2:6, 45:48] = True
    assert lesions.box_around(corner) == (slice(0, 10), slice(41, 50))
    assert lesions.box_around(corner, 1) == (slice(1, 7), slice(44, 49))


def test_a_zoom_that_is_given_is_shown(tmp_path: Path) -> None:
    zoomed = plot_lesions(tmp_path / "a" / "figure.png", COLUMNS[:2], LESION, AXES, zoom=(slice(10, 30), slice(20, 40)))
    usual = plot_lesions(tmp_path / "b" / "figure.png", COLUMNS[:2], LESION, AXES)
    assert_picture(zoomed)
    assert zoomed.read_bytes() != usual.read_bytes()


def test_without_a_lesion_whole_maps_are_shown_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Figure] = []
    monkeypatch.setattr(lesions, "save", lambda figure, _: drawn.append(figure))
    for outline in (LESION, np.zeros(SHAPE, dtype=bool)):
        plot_lesions("", COLUMNS[:2], outline, AXES)
    shapes = [[axes.images[0].get_array().shape[:2] for axes in figure.axes if axes.images] for figure in drawn]
    assert len(shapes[0]) == 8  # whole and zoomed, of two parameters, by two columns
    assert shapes[1] == shapes[0][:2] + shapes[0][4:6]
    assert all(axes.get_title(loc="left") for figure in drawn for axes in figure.axes[:2])


def test_lesions_refuse_what_they_cannot_show(tmp_path: Path) -> None:
    path = tmp_path / "figure.png"
    with pytest.raises(ValueError, match="two dimensions"):
        plot_lesions(path, COLUMNS, np.ones((4, 4, 4), dtype=bool), AXES)
    with pytest.raises(ValueError, match="one column"):
        plot_lesions(path, [], LESION, AXES)
    with pytest.raises(ValueError, match=r"'truth' must have a map of 'lambda' of the shape \(40, 50\)"):
        plot_lesions(path, [LesionColumn("truth", {"vcyl": np.ones(SHAPE)})], LESION, AXES)
    with pytest.raises(ValueError, match="shows nothing"):
        plot_lesions(path, COLUMNS, LESION, AXES, zoom=(slice(90, 99), slice(0, 9)))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["figure.png", "figure.svg"])
@pytest.mark.parametrize("count", [1, 4, 5, 8])
def test_differences(tmp_path: Path, count: int, name: str) -> None:
    path = tmp_path / name
    assert_picture(plot_difference_maps(path, DIFFERENCES[:count], MASK, AXES, reference="the truth"))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 0.0])
def test_unusual_differences(tmp_path: Path, value: float) -> None:
    column = DifferenceColumn("unusual", {name: np.full(SHAPE, value) for name in AXES}, {})
    path = plot_difference_maps(tmp_path / "figure.png", [column, DIFFERENCES[1]], MASK, AXES, reference="the truth")
    assert_picture(path)
    assert (PINK in colours(path)) is bool(np.isnan(value))


def test_a_voxel_outside_the_mask_does_not_show(tmp_path: Path) -> None:
    paths = []
    for name, outside in (("a", np.nan), ("b", 1e6)):
        data = {key: np.where(MASK, values, outside) for key, values in DIFFERENCES[1].maps.items()}
        column = replace(DIFFERENCES[1], maps=data)
        paths.append(plot_difference_maps(tmp_path / name / "figure.png", [column], MASK, AXES, reference="the truth"))
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_errors_are_put_in_words() -> None:
    space = "\N{NO-BREAK SPACE}"
    assert lesions.errors_in_words({"WM": 0.03125, "GM": 0.045}, 3) == [f"MAE WM{space}0.0312, GM{space}0.045"]
    assert len(lesions.errors_in_words({"WM": 0.03125, "GM": 0.045}, 1)) == 2
    assert lesions.errors_in_words({}, 1) == [""]
    assert lesions.abbreviations(DIFFERENCES) == "MAE: mean absolute error, WM: white matter, GM: grey matter."


def test_differences_refuse_what_they_cannot_show(tmp_path: Path) -> None:
    path = tmp_path / "figure.png"
    with pytest.raises(ValueError, match="at most 8 differences, not 9"):
        plot_difference_maps(path, [DIFFERENCES[0]] * 9, MASK, AXES, reference="the truth")
    with pytest.raises(ValueError, match="mask is empty"):
        plot_difference_maps(path, DIFFERENCES, np.zeros(SHAPE, dtype=bool), AXES, reference="the truth")
    assert list(tmp_path.iterdir()) == []


def test_long_titles_fit_above_their_maps(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Figure] = []
    monkeypatch.setattr(lesions, "save", lambda figure, _: drawn.append(figure))
    columns = [replace(column, title="a network trained on estimates in vivo") for column in COLUMNS[:3]]
    plot_lesions("", columns, LESION, AXES)
    drawn[0].draw_without_rendering()
    titled = [axes for axes in drawn[0].axes if axes.get_title(loc="left")]
    assert len(titled) == len(columns)
    for axes in titled:
        assert axes._left_title.get_window_extent().width <= axes.get_window_extent().width
