"""A report's material: small figures and records, and methods that use all that the text may hold."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from bidsfit.models import get
from bidsfit.reports import figures as draw
from bidsfit.reports.records import ComparisonRecord, ErrorRecord, FitRecord, ImageRecord

METHODS = r"""
Data followed the Brain Imaging Data Structure [@gorgolewski2016] and were processed by *bidsfit* on Nipype [@nipype].

### Models

Intravoxel incoherent motion [@lebihan1988; @kaandorp2021] gives a fraction $f$ of the signal to blood:

$$S = S_0 \left(f e^{- D^{*} b} + \left(1 - f\right) e^{- D b}\right)$$
"""


@pytest.fixture(scope="session")
def material(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """Records of one image, one fit and one comparison, and the folder that their figures are in."""
    folder = tmp_path_factory.mktemp("out")
    rng = np.random.default_rng(7)
    shape, affine = (24, 30, 3), np.diag([-2.0, 2.0, 4.0, 1.0])
    mask = np.zeros(shape, dtype=bool)
    mask[4:20, 5:26] = True
    values = rng.gamma(9, 0.1, shape)
    b_values = np.array([0, 10, 20, 50, 100, 200, 400, 800.0])
    signal = 100 * np.exp(-b_values * 1e-3)
    kinds = ("shells", "mask", "maps", "uncertainty", "histograms", "curves", "quality", "comparison", "decays")
    figures = {kind: f"sub-01/figures/{kind}.png" for kind in kinds}
    panel = draw.Panel(values, "$D$", "10⁻³ mm²/s", (0, 3))
    draw.plot_shells(folder / figures["shells"], b_values, None)
    draw.plot_mask(folder / figures["mask"], values, mask, affine)
    draw.plot_maps(folder / figures["maps"], [panel], mask, affine)
    draw.plot_maps(folder / figures["uncertainty"], [panel, panel], mask, affine, columns=2)
    columns = [
        draw.EstimatorMap("lsq", values, "median 0.9"),
        draw.EstimatorMap("map", values + 0.1, "median 1", "median +0.1"),
    ]
    draw.plot_comparison(folder / figures["comparison"], columns, mask, affine, "10⁻³ mm²/s", (0, 3))
    decay = draw.Decay("typical", b_values, signal, b_values, [signal, signal], ["lsq", "map"], "b (s/mm²)")
    draw.plot_decays(folder / figures["decays"], [decay])
    draw.plot_histograms(folder / figures["histograms"], [("$D$", "10⁻³ mm²/s", values[mask], (0, 3), (0, 5))])
    draw.plot_curves(
        folder / figures["curves"], [draw.Curve("voxel (9, 9, 1)", b_values, signal, None, b_values, signal)]
    )
    draw.plot_quality(folder / figures["quality"], [panel, panel], np.where(mask, 1, 0), {1: "converged"}, mask, affine)

    model = get("ivim")
    name = "sub-01_acq-<low>_dwi"
    image = ImageRecord(
        name=name,
        source="sub-01/dwi/sub-01_acq-low_dwi.nii.gz",
        shape=[*shape, 8],
        voxel_size=[2.0, 2.0, 4.0],
        mask_description="From the dataset masks.",
        n_voxels=int(mask.sum()),
        shells=[{"b_value": b, "n_measurements": 1, "n_directions": 1} for b in b_values],
        noise={"sigma": 4.0, "snr": 25.0, "method": "repeats at b = 0"},
        intensities={"n_negative": 14, "n_not_finite": 0},
        models=[
            {"name": "ivim", "title": model.title, "fitted": True, "reason": "Supported."},
            {"name": "smt2", "title": "Spherical mean", "fitted": False, "reason": "Missing: two shells."},
        ],
        figures={kind: figures[kind] for kind in ("shells", "mask")},
        warnings=["14 intensities are negative."],
    )
    fit = FitRecord(
        image=name,
        model="ivim",
        model_title=model.title,
        model_description=model.description,
        equation=model.latex,
        estimator="lsq",
        estimator_title="Bounded least squares",
        n_voxels=int(mask.sum()),
        seconds=0.41,
        parameters=[
            {
                "name": parameter.name,
                "latex": parameter.latex,
                "unit": "10⁻³ mm²/s",
                "description": parameter.description,
                "median": 0.8,
                "p5": 0.1,
                "p95": float("nan"),
                "fraction_at_bound": 0.0004,
                "sd": float("nan"),
                "crb": float("inf") if parameter.name == "Dstar" else 0.06,
                "undetermined": 0.61 if parameter.name == "Dstar" else 0.0,
            }
            for parameter in model.parameters
        ],
        status=[
            {"code": 1, "name": "converged", "count": 980, "fraction": 0.972, "message": "fitted inside the bounds"},
            {"code": 2, "name": "at_bound", "count": 28, "fraction": 0.028, "message": "a parameter is at its bound"},
            {"code": 3, "name": "iteration_limit", "count": 0, "fraction": 0.0, "message": "stopped at the limit"},
        ],
        options={"averaging": "arithmetic"},
        figures={kind: figures[kind] for kind in ("maps", "uncertainty", "histograms", "curves", "quality")},
        maps=[{"path": "sub-01/dwi/sub-01_acq-low_model-ivim_param-D_desc-lsq_dwimap.nii.gz", "frame": ""}],
    )
    row = {"estimator": "lsq", "median": 0.8, "p5": 0.1, "p95": 2.0, "fraction_at_bound": 0.02}
    spread = {"sd": 0.08, "crb": 0.07, "undetermined": 0.0}
    apart = {"difference": -0.09, "absolute_difference": 0.12, "correlation": 0.876, "exceeds_floor": True}
    comparison = ComparisonRecord(
        image=name,
        model="ivim",
        model_title=model.title,
        estimators=[
            {"name": "lsq", "title": "Bounded least squares", "n_voxels": 1008, "n_fitted": 1008, "seconds": 0.5},
            {"name": "map", "title": "A smooth one", "n_voxels": 1008, "n_fitted": 504, "seconds": 2.0},
        ],
        parameters=[
            {
                "name": "D",
                "latex": "D",
                "unit": "10⁻³ mm²/s",
                "description": "Diffusion coefficient of tissue",
                "figure": figures["comparison"],
                "rows": [row | spread, row | spread | apart | {"estimator": "map", "sd": float("nan")}],
            }
        ],
        correlations=[{"latex": ["f", "D^{*}"], "values": [-0.7349, float("nan")]}],
        figures={"curves": figures["decays"]},
        warnings=["D by map differs from lsq by 0.12 in a typical voxel."],
    )
    about = {
        "version": "1.2.3",
        "command": "bidsfit /data /out participant --model ivim",
        "run_uuid": "20250102-030405_abc",
        "date": "2025-01-02",
        "dataset": "A <b>bold</b> dataset & more",
        "software": {"numpy": "2.0"},
        "settings": {"nprocs": 2},
    }
    error = ErrorRecord("sub-01_run-2 was skipped", "<script>1</script> has no b-values.", "crash.txt", "Traceback ...")
    return SimpleNamespace(
        folder=folder, image=image, fit=fit, comparison=comparison, about=about, error=error, methods=METHODS
    )


@pytest.fixture
def chromium(tmp_path: Path) -> Callable[..., str]:
    """Runs Chromium without a window and without a network; gives what it writes. Nothing may reach its console."""
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        pytest.skip("no Chromium on this machine")

    def run(*arguments: str) -> str:
        command = [
            found,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-dev-shm-usage",
            "--host-resolver-rules=MAP * ~NOTFOUND",
            "--enable-logging=stderr",
            f"--user-data-dir={tmp_path / 'profile'}",
            *arguments,
        ]
        outcome = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
        assert not re.findall(r'CONSOLE:\d+\] "(?!WARN).*', outcome.stderr)  # Vega warns of what we want
        return outcome.stdout

    return run


@pytest.fixture
def asked(tmp_path: Path, chromium: Callable[..., str]) -> Callable[[Path, str], Any]:
    """What a script, run in a page when its viewers are ready, returns; the policy of the page lets this one in too."""

    def run(page: Path, script: str) -> Any:
        script = f"""
        const waiting = setInterval(async () => {{
          if ([...document.querySelectorAll(".viewer")].some((v) => !v.dataset.ready)) return;
          clearInterval(waiting);
          const answers = await (async () => {{ {script} }})();
          document.body.innerHTML = "";
          document.body.setAttribute("data-answers", JSON.stringify(answers));
        }}, 50);"""
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        text = page.read_text(encoding="utf-8").replace("script-src ", f"script-src 'sha256-{digest}' ", 1)
        copy = tmp_path / "asked.html"
        copy.write_text(text.replace("</body>", f"<script>{script}</script></body>"), encoding="utf-8")
        dumped = chromium("--window-size=1366,2000", "--virtual-time-budget=20000", "--dump-dom", copy.as_uri())
        found = re.search(r'data-answers="([^"]*)"', dumped)
        assert found, dumped[-2000:]
        return json.loads(html.unescape(found.group(1)))

    return run


#: Moves the pointer over all figures; asks the browser which it has drawn, what the first symbol says under the
#: pointer, and what sticks out.
FIGURES = """
<script>
window.addEventListener("load", () => {
  document.querySelectorAll(".chart").forEach((chart) => chart.dispatchEvent(new PointerEvent("pointerenter")));
});
const waiting = setInterval(() => {
  if (document.querySelectorAll(".chart > script").length && performance.now() < 15000) return;
  clearInterval(waiting);
  const svgs = [...document.querySelectorAll(".chart svg")];
  const symbol = document.querySelector(".mark-symbol.role-mark path");
  const { x, y } = symbol.getBoundingClientRect();
  symbol.dispatchEvent(new MouseEvent("pointermove", { bubbles: true, clientX: x + 2, clientY: y + 2 }));
  const ends = (svg) => [...svg.querySelectorAll("text, path, line")].map((e) => e.getBoundingClientRect());
  const answers = {
    drawn: document.querySelectorAll(".chart .vega-embed svg").length,
    pictures: svgs.filter((svg) => svg.getBoundingClientRect().height > 100).length,
    told: document.querySelector("#vg-tooltip-element")?.textContent,
    overflow: document.documentElement.scrollWidth - document.documentElement.clientWidth,
    clipped: svgs.filter((svg) => svg.parentElement.closest(".chart").scrollWidth > document.body.clientWidth).length,
    outside: Math.max(...svgs.flatMap((s) => ends(s).map((e) => e.right - s.getBoundingClientRect().right))),
    resources: performance.getEntriesByType("resource").map((r) => r.name).filter((n) => !n.startsWith("data:")),
  };
  document.body.innerHTML = "";
  document.body.setAttribute("data-answers", JSON.stringify(answers));
}, 100);
</script>
"""


@pytest.fixture
def drawn(tmp_path: Path, chromium: Callable[..., str]) -> Callable[[Path, int], dict[str, Any]]:
    """What a browser window of some width has drawn of the figures of a page."""

    def run(page: Path, width: int) -> dict[str, Any]:
        asked = tmp_path / "asked.html"
        text = page.read_text(encoding="utf-8").removesuffix("</body>\n</html>")
        asked.write_text(f"{text}{FIGURES}</body>\n</html>", encoding="utf-8")
        size = f"--window-size={width},12000"
        dumped = chromium(size, "--virtual-time-budget=20000", "--dump-dom", asked.as_uri())
        found = re.search(r'data-answers="([^"]*)"', dumped)
        assert found, dumped[-2000:]
        return dict(json.loads(html.unescape(found.group(1))))

    return run
