from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from bidsfit.reports import figures, preprocessing
from bidsfit.reports.canvas import TURNS
from bidsfit.reports.records import PreprocessingRecord
from bidsfit.reports.report import write_report

SHAPE, AFFINE = (16, 18, 6), np.diag([-2.0, 2.0, 3.0, 1.0])
OBLIQUE = np.array([[0.9, -0.4, 0, 3], [0.4, 1.8, -0.5, -20], [0, 0.3, 2.9, 7], [0, 0, 0, 1.0]])
INSIDE = np.zeros(SHAPE, dtype=bool)
INSIDE[3:13, 4:15] = True
BEFORE = np.random.default_rng(3).gamma(4, 25, SHAPE).astype(np.float32)
AFTER = BEFORE + np.random.default_rng(4).normal(0, 3, SHAPE).astype(np.float32)
B_VALUES = np.repeat([0.0, 1000.0, 2500.0], [3, 10, 20])
N = B_VALUES.size
OUTLIERS = np.arange(N) == 12
MOTION = np.cumsum(np.random.default_rng(5).normal(0, [0.1] * 3 + [0.001] * 3, (N, 6)), axis=0)


def assert_picture(path: Path, least: int = 10) -> None:
    """The file is a whole picture that shows something, and nothing else was left beside it."""
    with Image.open(path) as picture:
        picture.load()
        assert picture.width <= 1500
        assert len(np.unique(np.asarray(picture.convert("L")))) > least
    assert [p.name for p in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({}, id="usual"),
        pytest.param({"affine": OBLIQUE}, id="oblique"),
        pytest.param({"title": "b = 0", "names": ("noisy", "denoised"), "cmap": "viridis", "zero": False}, id="words"),
        pytest.param({"before": np.stack([BEFORE] * 2, -1), "after": np.stack([AFTER] * 2, -1)}, id="two volumes"),
        pytest.param({"others": {"reversed": AFTER}, "outline": INSIDE, "edges": BEFORE}, id="outlined"),
        pytest.param({"difference": False}, id="without difference"),
        pytest.param({"after": BEFORE}, id="nothing changed"),
        pytest.param({"mask": np.zeros(SHAPE, dtype=bool)}, id="empty mask"),
        pytest.param({"before": np.where(BEFORE > 90, np.nan, BEFORE)}, id="not finite"),
        pytest.param({"before": np.zeros(SHAPE), "after": np.zeros(SHAPE), "edges": np.zeros(SHAPE)}, id="zeros"),
        pytest.param({"before": BEFORE[:, :, :1], "after": AFTER[:, :, :1], "mask": INSIDE[:, :, :1]}, id="one slice"),
    ],
)
def test_before_and_after(tmp_path: Path, changes: dict[str, Any]) -> None:
    arguments = {"before": BEFORE, "after": AFTER, "mask": INSIDE, "affine": AFFINE, "rows": ["b = 0"]} | changes
    assert_picture(figures.plot_before_after(tmp_path / "step.png", **arguments))


def test_before_and_after_can_take_turns_in_one_place(
    tmp_path: Path, asked: Callable[[Path, str], Any], material: SimpleNamespace
) -> None:
    """The places in the file are those of the pictures, and the report shows the second on top of the first."""
    path = tmp_path / "sub-01/figures/step.png"
    figures.plot_before_after(path, np.zeros(BEFORE.shape), 0 * BEFORE + 9, INSIDE, AFFINE, rows=["b = 0"])
    with Image.open(path) as picture:
        pixels, (first, second) = np.asarray(picture.convert("L")), json.loads(picture.info[TURNS])[0]

    def brightness(place: list[float]) -> float:
        height, width = pixels.shape
        left, top, across, down = np.rint(np.array(place) * [width, height, width, height]).astype(int)
        return float(np.median(pixels[top : top + down, left : left + across]))

    assert (brightness(first), brightness(second)) == (0, 255)
    assert first[1:] == second[1:]
    record = PreprocessingRecord(
        image=material.image.name, source="", figures={"denoise": "sub-01/figures/step.png"}, warnings=["Look."],
        steps=[{"name": "denoise", "title": "Noise", "applied": True, "method": "", "reason": "", "seconds": 1}],
    )  # fmt: skip
    page = write_report(
        tmp_path / "sub-01.html", participant="01", images=[material.image], fits=[], errors=[], about={}, methods="",
        preprocessing=[record],
    )  # fmt: skip
    script = """
      const button = document.querySelector("figure > button"), cover = document.querySelector(".cover");
      const over = () => cover.hidden ? null : cover.getBoundingClientRect().left;
      const left = document.querySelector(".turns img").getBoundingClientRect();
      const answers = [over()];
      button.click(); answers.push((over() - left.left) / left.width);
      await new Promise((done) => setTimeout(done, 800)); answers.push(over());
      button.click(); answers.push(over());
      return answers;"""
    hidden, place, again, ended = asked(page, script)
    assert (hidden, again, ended) == (None, None, None)
    assert place == pytest.approx(first[0], abs=0.01)


def test_the_difference_is_after_minus_before_on_its_own_scale(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []

    def show(axes: Any, picture: np.ndarray, *arguments: Any, **options: Any) -> Any:
        drawn.append((np.asarray(picture), options["norm"]))
        return original(axes, picture, *arguments, **options)

    original = preprocessing.show
    monkeypatch.setattr(preprocessing, "show", show)
    figures.plot_before_after(tmp_path / "step.png", BEFORE, BEFORE + 7.0, INSIDE, AFFINE)
    first, last = drawn[0], drawn[-1]
    assert np.unique(last[0].round(4)).tolist() == [0, 7]  # 0: between slices
    assert (last[1].vmin, last[1].vmax) == pytest.approx((-7, 7), abs=1e-4)
    assert first[1].vmin == 0
    assert np.percentile(BEFORE[INSIDE], 98) < first[1].vmax <= BEFORE[INSIDE].max()


@pytest.mark.parametrize("affine", [AFFINE, OBLIQUE], ids=["straight", "oblique"])
@pytest.mark.parametrize("edges", [True, False])
def test_registration(tmp_path: Path, affine: np.ndarray, edges: bool) -> None:
    pictures = {"b = 0": BEFORE, "mean of b = 2500": AFTER}
    assert_picture(figures.plot_registration(tmp_path / "registration.png", pictures, INSIDE, affine, edges=edges))


def test_bright_structures_are_outlined_however_coils_see_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bright square in the dim half of an image is drawn, and the bright half is not."""
    shape = (60, 60, 1)
    image = np.where(np.arange(60)[:, None, None] < 30, 100.0, 300.0) * np.ones(shape)
    image[10:16, 26:32] *= 2
    found = preprocessing._Lines.of(
        preprocessing.Slices.around(np.ones(shape), AFFINE), None, image, np.ones(shape, dtype=bool)
    )
    assert found.image is not None
    bright = found.image.T[::-1] > preprocessing.BRIGHT  # the first axis runs to the left
    assert bright[11:15, 27:31].all()
    assert bright[:25].sum() < 60


def test_the_legend_names_what_is_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a bottle of water nothing is brighter than what lies around it."""
    said: list[str] = []

    def save(figure: Figure, path: Path) -> Path:
        said.extend(text.get_text() for text in figure.legends[0].get_texts())
        return path

    monkeypatch.setattr(preprocessing, "save", save)
    for image, expected in ((np.full(BEFORE.shape, 7.0), []), (BEFORE, ["bright structures of b = 0"])):
        said.clear()
        figures.plot_registration(tmp_path / "registration.png", {"b = 0": image}, INSIDE, AFFINE)
        assert "mask" in said
        assert [words for words in said if words.startswith("bright")] == expected


@pytest.mark.parametrize(
    ("motion", "displacement", "dvars"),
    [
        pytest.param(MOTION, np.abs(MOTION[:, 0]), np.ones(N), id="all"),
        pytest.param(np.zeros((N, 6)), np.full(N, np.nan), None, id="still"),
        pytest.param(None, None, np.full(N, 1.0), id="motion not known"),
        pytest.param(None, None, np.full(N, np.nan), id="nothing known"),
    ],
)
def test_motion(tmp_path: Path, motion: Any, displacement: Any, dvars: Any) -> None:
    path = tmp_path / "traces.png"
    assert_picture(figures.plot_motion(path, B_VALUES, motion, displacement, std_dvars=dvars, is_outlier=OUTLIERS))


@pytest.mark.parametrize("b_values", [[1000.0], [0, 50, 100, 200, 400], np.arange(0, 1100, 100)])
def test_few_volumes(tmp_path: Path, b_values: Any) -> None:
    n = len(b_values)
    assert_picture(figures.plot_motion(tmp_path / "traces.png", b_values, MOTION[:n], np.zeros(n)))


@pytest.mark.parametrize("n_slices", [1, 2, 70])
@pytest.mark.parametrize("known", [True, False])
def test_outliers(tmp_path: Path, n_slices: int, known: bool) -> None:
    z = np.random.default_rng(0).normal(0, 1 if known else np.nan, (n_slices, N))
    z[0, 12] -= 9
    dvars = np.where(OUTLIERS, 2.0, 1.0) * (1 if known else np.nan)
    assert_picture(figures.plot_outliers(tmp_path / "outliers.png", z, dvars, B_VALUES, is_outlier=OUTLIERS))


@pytest.mark.parametrize(("rows", "n_labels"), [(1, 1), (60, 1), (800, 3), (800, 9)])
def test_carpet(tmp_path: Path, rows: int, n_labels: int) -> None:
    values = np.random.default_rng(0).standard_normal((rows, N)).astype(np.float32)
    values[:, :3] = np.nan
    labels = np.sort(np.arange(rows) % n_labels)
    path = tmp_path / "carpet.png"
    assert_picture(figures.plot_carpet(path, values, labels, B_VALUES, is_outlier=OUTLIERS, label_names={1: "GM"}))


def test_a_carpet_with_nothing_to_compare_says_so(tmp_path: Path) -> None:
    assert_picture(figures.plot_carpet(tmp_path / "carpet.png", np.full((9, N), np.nan), np.ones(9, int), B_VALUES))


@pytest.mark.parametrize("snr", [[30.0], [30.0, 9.0, 2.0], [np.nan, np.nan], np.linspace(30, 3, 16)])
def test_snr(tmp_path: Path, snr: Any) -> None:
    n = len(snr)
    assert_picture(figures.plot_snr(tmp_path / "snr.png", np.arange(n) * 100.0, snr, np.ones(n)))


def test_the_same_numbers_give_the_same_picture(tmp_path: Path) -> None:
    pictures = [figures.plot_motion(tmp_path / f"{i}.png", B_VALUES, MOTION).read_bytes() for i in range(2)]
    assert pictures[0] == pictures[1]
