"""The viewer: its data are those of the files, and in a browser it answers with them."""

from __future__ import annotations

import gzip
import json
import re
from base64 import b64decode
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from bidsfit import models
from bidsfit.acquisition import Acquisition
from bidsfit.estimators.estimator import Status
from bidsfit.reports.measured import MeasuredVoxels
from bidsfit.reports.records import FitRecord, ImageRecord
from bidsfit.reports.report import write_report
from bidsfit.reports.scenes import write_scenes
from bidsfit.reports.viewer import FEW_CODES, MANY_CODES, make_viewer, packed, unpacked
from bidsfit.trust.flags import Flag

SHAPE = (10, 12, 6)
#: The first axis points to posterior, the second to the left, the third to superior.
AFFINE = np.array([[0, -2.0, 0, 20], [-2.0, 0, 0, 15], [0, 0, 5.0, -7], [0, 0, 0, 1]])
#: Of a file name or a sidecar that would like to run.
HOSTILE = '</script><img src=x onerror="document.title=1"><script>document.title=2</script>'

rng = np.random.default_rng(3)
VECTORS = rng.normal(size=(12, 3))
ACQUISITION = Acquisition(
    [0, 0, *[200] * 12, *[1000] * 12, *[2500] * 12],
    np.concatenate([np.zeros((2, 3)), *[VECTORS / np.linalg.norm(VECTORS, axis=1, keepdims=True)] * 3]),
)
OF_DIFFUSION = [name for name in models.BUILT_IN if "b" in models.get(name).variables]
MASK = np.zeros(SHAPE, dtype=bool)
MASK[2:8, 3:10, 1:5] = True
MASK[3, 4, 2] = False


#: What is expected of fits that no flag is raised of.
EXPECTED_SD = {"adc": np.nan, "ivimsimple": 0.5}


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """An image whose voxels are fitted with every model: records, folder, and the maps by fit and key."""
    folder, n = tmp_path_factory.mktemp("out"), int(MASK.sum())
    signals = rng.uniform(50, 100, (n, len(ACQUISITION)))
    (folder / "sub-01").mkdir()
    voxels = MeasuredVoxels.of(
        signals, ACQUISITION, even=False, reference=rng.uniform(0, 9, SHAPE), mask=MASK, affine=AFFINE
    )
    voxels.save(folder / "sub-01" / "voxels.npz")
    image = ImageRecord(
        name=f"sub-01_{HOSTILE}_dwi", source=HOSTILE, shape=[*SHAPE, 38], voxel_size=[2, 2, 5], mask_description="",
        n_voxels=n, shells=[], noise={}, intensities={"n_negative": 0, "n_not_finite": 0}, models=[],
        voxels="sub-01/voxels.npz",
    )  # fmt: skip
    fits, maps = [], {}
    for name in OF_DIFFUSION:
        model, own = models.get(name), {}
        for p in model.parameters:
            own[p.name] = rng.uniform(*(p.display or p.bounds) if p.name != model.scale else (50, 100), n)
        own[f"{model.names[1]}_sd"] = rng.gamma(2, 0.1, n) * 10 ** rng.uniform(-2, 4, n)
        own[f"{model.names[1]}_sd"][5] = np.inf
        own["status"] = np.full(n, Status.AT_BOUND.value)
        own["flags"] = np.full(n, Flag.BIASED | Flag.LOW_SNR)
        if name in EXPECTED_SD:
            own["flags"], own[f"{model.names[1]}_expectedsd"] = np.zeros(n, int), np.full(n, EXPECTED_SD[name])
        rows = []
        for key, values in own.items():
            parameter, _, statistic = key.partition("_")
            path = Path("sub-01", f"{name}-{key}.nii.gz")
            volume = np.zeros(MASK.size, dtype=np.float32)
            volume[MASK.ravel("F")] = values / 1000
            nib.save(nib.Nifti1Image(volume.reshape(SHAPE, order="F"), AFFINE), folder / path)
            own[key] = volume[MASK.ravel("F")].astype(float) * 1000
            rows.append(
                {"path": path.as_posix(), "key": key, "parameter": parameter if parameter in model.names else "",
                 "statistic": statistic, "title": key, "unit": HOSTILE, "factor": 1000.0, "limits": [0, 1],
                 "colours": "viridis", "frame": "", "weight": ""}
            )  # fmt: skip
        maps[name] = own
        fits.append(
            FitRecord(
                image=image.name, model=name, model_title="", model_description="", equation="S", estimator=HOSTILE,
                estimator_title=HOSTILE, n_voxels=n, seconds=1, parameters=[], status=[], maps=rows,
            )
        )  # fmt: skip
    return SimpleNamespace(folder=folder, image=image, fits=fits, maps=maps, signals=signals, measured=voxels)


def report(told: SimpleNamespace, **options: Any) -> Path:
    return write_report(
        told.folder / "sub-01.html", participant="01", images=[told.image], fits=told.fits, errors=[], about={},
        methods="", **options,
    )  # fmt: skip


@pytest.mark.parametrize("codes", [MANY_CODES, FEW_CODES])
def test_values_survive_within_half_a_step(codes: int) -> None:
    even = rng.uniform(-3, 8, 1000)
    even[:3] = np.nan, np.inf, -np.inf
    found = unpacked(packed(even, codes))
    assert np.array_equal(np.isfinite(found), np.isfinite(even))
    assert found[1:3].tolist() == [np.inf, -np.inf]
    assert np.abs(found[3:] - even[3:]).max() <= 11 / (codes - 1) / 2 * 1.0001
    wide = 10 ** rng.uniform(-3, 9, 1000)
    array = packed(wide, codes)
    assert array["wide"] == pytest.approx(np.median(wide))
    assert (np.abs(unpacked(array) - wide) <= 0.51 * array["step"] * np.hypot(wide, array["wide"])).all()
    assert array["step"] < 21 / (codes - 1)


@pytest.mark.parametrize("values", [np.full(5, np.nan), np.full(5, 2.0), np.array([0.0]), np.arange(128.0)])
def test_few_values_survive(values: np.ndarray) -> None:
    assert unpacked(packed(values)) == pytest.approx(values, abs=1e-2, nan_ok=True)


def test_directions_have_the_colours_of_their_axes(told: SimpleNamespace, tmp_path: Path) -> None:
    """The second axis of the image points to the left: a direction along it is red, as bright as its weight."""
    for name, values in (("axis", [0.0, 1.0, 0.0]), ("weight", 0.35)):
        volume = np.zeros((*SHAPE, 3) if name == "axis" else SHAPE, dtype=np.float32)
        volume[MASK] = values
        nib.save(nib.Nifti1Image(volume, AFFINE), tmp_path / f"{name}.nii.gz")
    told.measured.save(tmp_path / "voxels.npz")
    row = told.fits[0].maps[0] | {"factor": 1.0, "statistic": ""}
    rows = [
        row | {"path": "axis.nii.gz", "key": "e1", "parameter": "e1", "frame": "bvec", "weight": "FA"},
        row | {"path": "weight.nii.gz", "key": "FA", "parameter": "FA"},
    ]
    found = make_viewer(tmp_path, replace(told.image, voxels="voxels.npz"), [replace(told.fits[0], maps=rows)])
    assert found is not None
    axis = json.loads(found.data)["fits"][0]["maps"][0]
    colours = np.array([unpacked(channel) for channel in axis["channels"]])
    assert colours == pytest.approx(np.array([[0.5], [0], [0]]) * np.ones(MASK.sum()), abs=1e-6)
    assert axis["words"].startswith("red: left-right")


def test_means_and_spreads_are_those_of_shells(tmp_path: Path) -> None:
    acquisition = Acquisition([0, 500, 500, 500], TE=[60, 60, 60, 60])
    signals = np.array([[100, 40, 50, 60], [100, 0, 30, 50], [0, 0, 0, 0]], dtype=float)  # missing; no signal at all
    grid = {"reference": np.ones((3, 1, 1)), "mask": np.ones((3, 1, 1), dtype=bool), "affine": np.eye(4)}
    MeasuredVoxels.of(signals, acquisition, even=False, **grid).save(tmp_path / "voxels.npz")
    found = MeasuredVoxels.load(tmp_path / "voxels.npz")
    assert found.mean.tolist() == [[100, 100, 0], [50, 40, 0]]
    assert found.spread[1] == pytest.approx([10, 200**0.5, 0])
    assert np.isnan(found.spread[0]).all()
    assert found.measurements.shape == (4, 3)
    assert found.acquisition.columns.keys() == {"b", "TE"}


def test_a_report_that_would_be_too_large_holds_fewer_slices(told: SimpleNamespace) -> None:
    whole = make_viewer(told.folder, told.image, told.fits)
    assert whole is not None
    assert whole.remark == ""
    assert len(json.loads(whole.data)["measurements"]) == 38
    assert json.loads(whole.data)["slices"] == [0, 1, 2, 3]
    most = len(whole.data) * 3 // 4
    smaller = make_viewer(told.folder, told.image, told.fits, most=most)
    assert smaller is not None
    assert len(smaller.data) <= most
    assert json.loads(smaller.data)["measurements"] == []
    assert re.fullmatch(r"Here are [12] of 4 slices, so that the page stays below 10 MB; .*", smaller.remark)
    assert make_viewer(told.folder, told.image, told.fits, voxels="none") is None
    assert make_viewer(told.folder, replace(told.image, voxels=""), told.fits) is None


def test_only_slices_of_figures_are_held_when_asked_for(told: SimpleNamespace, tmp_path: Path) -> None:
    mask = np.ones((3, 3, 30), dtype=bool)
    grid = {"reference": np.ones(mask.shape), "mask": mask, "affine": np.eye(4)}
    MeasuredVoxels.of(np.ones((270, 2)), Acquisition([0, 500]), even=False, **grid).save(tmp_path / "voxels.npz")
    found = make_viewer(tmp_path, replace(told.image, voxels="voxels.npz"), [], voxels="slices")
    assert found is not None
    assert len(json.loads(found.data)["slices"]) == 7
    assert found.remark == "Here are 7 of 30 slices, as --report-voxels asked; the files hold all."


#: Helpers of the scripts that ask: events as of a pointer and a keyboard, and numbers of a table.
HELPERS = """
const views = document.querySelectorAll(".viewer canvas"), told = () => document.querySelector(".viewer").innerText;
const point = (canvas, type, x, y, more = {}) => {
  const box = canvas.getBoundingClientRect();
  const at = { clientX: box.left + x * box.width, clientY: box.top + y * box.height };
  canvas.dispatchEvent(new PointerEvent(type, { bubbles: true, pointerId: 1, ...at, ...more }));
};
const click = (x, y) => { point(views[0], "pointerdown", x, y); point(views[0], "pointerup", x, y); };
const key = (name) => views[0].dispatchEvent(new KeyboardEvent("keydown", { key: name, bubbles: true }));
const heading = () => document.querySelector(".told h4").textContent;
const number = (cell) => (cell ? Number(cell.dataset.value) : null);
const values = () => Object.fromEntries([...document.querySelectorAll("tr[data-parameter]")].map((row) =>
  [row.dataset.fit.split(" ")[0] + " " + row.dataset.parameter, [...row.querySelectorAll("td")].map(number)]));
const signal = () => [...document.querySelectorAll(".signal-table tbody tr")].map((row) =>
  [...row.querySelectorAll("td[data-value]")].map(number));
const slider = document.querySelector(".viewer input[type=range]");
const choose = (select, value) => { select.value = value; select.dispatchEvent(new Event("change")); };
"""


def place_of(heading: str) -> tuple[int, ...]:
    found = re.match(r"Voxel \((\d+), (\d+), (\d+)\) at x = (.*), y = (.*), z = (.*) mm", heading)
    assert found, heading
    index = tuple(map(int, found.groups()[:3]))
    mm = [float(word.replace("\N{MINUS SIGN}", "-")) for word in found.groups()[3:]]
    assert (AFFINE @ [*index, 1])[:3].tolist() == mm
    return index


def test_a_click_tells_what_stands_in_the_files(told: SimpleNamespace, asked: Callable[[Path, str], Any]) -> None:
    """Values, signals and curves of all models, at a voxel of an image whose axes are turned and flipped."""
    script = "click(0.45, 0.6); return [heading(), values(), signal(), told(), document.title];"
    heading, values, signal, words, title = asked(report(told), HELPERS + script)
    index = place_of(heading)
    voxel = int(np.flatnonzero(np.flatnonzero(MASK.ravel("F")) == np.ravel_multi_index(index, SHAPE, order="F"))[0])
    shells = ACQUISITION.shells
    measured = [told.signals[voxel, shell.indices].mean() for shell in shells]
    table = np.array(signal, dtype=float)
    assert table[:, 0] == pytest.approx(measured, abs=1e-3)
    viewer = make_viewer(told.folder, told.image, told.fits)
    assert viewer is not None
    held = {fit["model"]: {m["key"]: m for m in fit["maps"]} for fit in json.loads(viewer.data)["fits"]}
    averages = Acquisition([shell.b_value for shell in shells])
    assert {name.split()[0] for name in values} == set(OF_DIFFUSION)
    for i, (name, own) in enumerate(told.maps.items()):
        model = models.get(name)
        for parameter in model.names:
            if parameter in model.axis_angles:
                continue  # the axis itself is drawn
            step = held[name][parameter]["step"]
            assert values[f"{name} {parameter}"][0] == pytest.approx(own[parameter][voxel], abs=0.51 * step)
        spread = own[f"{model.names[1]}_sd"][voxel]
        array = held[name][f"{model.names[1]}_sd"]
        error = 0.51 * array["step"] * np.hypot(spread, array["wide"]) if np.isfinite(spread) else 0
        assert values[f"{name} {model.names[1]}"][1] == pytest.approx(spread, abs=error)
        parameters = [
            own[parameter][voxel] if parameter in model.axis_angles else values[f"{name} {parameter}"][0]
            for parameter in model.names
        ]
        if "direction" in model.variables:
            each = model.signal(parameters, ACQUISITION)
            expected = np.array([each[shell.indices].mean() for shell in shells])
        else:
            expected = model.signal(parameters, averages)
        assert table[:, 2 + i] == pytest.approx(expected, rel=1e-5), name
    assert "converged with a parameter at its bound" in words
    assert "biased: in more than 70 % of the truths" in words
    assert "low snr: the SNR" in words
    assert re.search(r"adc .*its errors are not known\.", words)
    assert re.search(r"ivimsimple .*no flag is raised\.", words)
    assert title == "sub-01 · bidsfit"  # no name of a file or estimator was run


def test_sliders_and_switches_do_what_they_say(told: SimpleNamespace, asked: Callable[[Path, str], Any]) -> None:
    script = """
      const at = {};
      click(0.45, 0.6); at.start = heading();
      slider.value = 0; slider.dispatchEvent(new Event("input")); at.lowest = heading();
      key("PageUp"); at.next = heading();
      key("ArrowUp"); at.up = heading(); key("ArrowRight"); at.right = heading();
      key("n"); key("ArrowRight"); at.flipped = heading(); key("n");
      key("x"); at.sagittal = views[0].getAttribute("aria-label"); key("z");
      click(0.45, 0.6); key("l"); at.log = document.querySelector("[aria-pressed=true]:not([data-key])")?.textContent;
      const [, compare] = document.querySelectorAll(".controls select");
      at.one = views[1].parentElement.hidden;
      choose(compare, "two"); at.two = views[1].parentElement.hidden;
      choose(compare, "flicker");
      const names = new Set();
      for (let i = 0; i < 30; i++) {
        names.add(document.querySelector(".which").textContent);
        await new Promise((done) => setTimeout(done, 100));
      }
      at.flickered = names.size; choose(compare, "one");
      const pixels = () => views[0].toDataURL();
      const before = pixels(); key("m"); at.outline = pixels() !== before; key("m"); at.back = pixels() === before;
      const [low] = document.querySelectorAll(".window input"), hide = document.querySelectorAll(".window input")[2];
      low.value = 0.9; low.dispatchEvent(new Event("change")); at.window = pixels() !== before;
      document.querySelector(".window button").click(); at.reset = pixels() === before;
      hide.value = 1e9; hide.dispatchEvent(new Event("change")); at.threshold = pixels() !== before;
      document.querySelector(".window button").click();
      const corner = [[0.01, 0.01], [0.99, 0.01], [0.99, 0.99], [0.01, 0.99]];
      corner.forEach(([x, y], i) => point(views[0], i ? "pointermove" : "pointerdown", x, y, { shiftKey: true }));
      point(views[0], "pointerup", 0.01, 0.99);
      at.region = heading(); at.mean = values()["ivim D"]; at.signal = signal().map((row) => row[0]);
      at.bars = document.querySelectorAll(".below svg path").length;
      at.outside = (click(0.01, 0.01), document.querySelector(".told").innerText);
      return at;"""
    at = asked(report(told), HELPERS + script)
    start, lowest, after = place_of(at["start"]), place_of(at["lowest"]), place_of(at["next"])
    assert (lowest, after) == ((*start[:2], 1), (*start[:2], 2))
    up, right, flipped = place_of(at["up"]), place_of(at["right"]), place_of(at["flipped"])
    assert up == (after[0] - 1, *after[1:])  # to anterior: the first axis points to posterior
    assert right == (up[0], up[1] - 1, up[2])  # to the right: the second axis points to the left
    assert flipped == up  # in radiological view, the key to the right goes left
    assert "sagittal slice" in at["sagittal"]
    assert at["log"] == "Logarithmic"
    assert (at["one"], at["two"], at["flickered"]) == (True, False, 2)
    assert [at[name] for name in ("outline", "back", "window", "reset", "threshold")] == [True] * 5
    inside = np.zeros(SHAPE, dtype=bool)
    inside[:, :, 2] = MASK[:, :, 2]
    voxels = inside.ravel("F")[MASK.ravel("F")]
    assert at["region"].startswith(f"Region of {voxels.sum()} voxels, axial slice 2 of 4")
    own = told.maps["ivim"]["D"][voxels]
    assert at["mean"][:2] == pytest.approx([own.mean(), own.std(ddof=1)], rel=1e-4)
    assert at["signal"] == pytest.approx(told.measured.mean[:, voxels].mean(axis=1), rel=1e-4)
    assert at["bars"] > 1
    assert "Outside the mask" in at["outside"]


def test_the_page_itself_loads_without_a_word(told: SimpleNamespace, chromium: Callable[..., str]) -> None:
    """Its policy lets its own script run, and nothing of the names of files; the fixture looks at the console."""
    page = chromium("--virtual-time-budget=10000", "--dump-dom", report(told).as_uri())
    assert 'data-ready="true"' in page
    assert "<title>sub-01 · bidsfit</title>" in page
    assert "default-src 'none'" in page


def test_a_scene_holds_the_map_of_the_file_with_the_range_of_the_report(told: SimpleNamespace) -> None:
    name = "ivim"
    fit = next(fit for fit in told.fits if fit.model == name)
    written = write_scenes(told.folder, [told.image], [fit])
    assert [path.name for path in written] == [f"{name}-{p}.nvd" for p in models.get(name).names]
    document = json.loads(written[1].read_text(encoding="utf-8"))
    image, shown = document["imageOptionsArray"]
    assert (shown["colormap"], shown["cal_min"], shown["cal_max"], image["colormap"]) == ("viridis", 0, 0.001, "gray")
    volumes = [nib.Nifti1Image.from_bytes(gzip.decompress(b64decode(x))) for x in document["encodedImageBlobs"]]
    file = nib.load(told.folder / fit.maps[1]["path"])
    np.testing.assert_array_equal(volumes[1].get_fdata(), file.get_fdata())
    np.testing.assert_allclose([v.affine for v in volumes], [file.affine] * 2)
