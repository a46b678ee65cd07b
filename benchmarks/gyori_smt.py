"""Accuracy of the spherical mean technique: the traditional fitting of Gyori et al. 2022, Table 3.

Paper: "Training data distribution significantly impacts the estimation of tissue microstructure with machine learning",
MRM 2022;87:932-947. b = 1000, 2000, 3500 and 5000 s/mm^2 with 32 directions each, Gaussian noise of 1 / SNR in every
direction, S0 free of noise. Two compartments: vcyl 0 to 1 and lambda 0 to 3 um^2/ms on a 21 x 21 grid. Three: the 1,617
points of vcyl, vcsf in steps of 0.05 where their sum is at most 1 (231) and of lambda in steps of 0.5 (7). The paper
states the number of points; no other simplex with the step 0.05 of two compartments divides it.

Bias, standard deviation and root mean square error are taken over the noise at every point, and averaged over the grid.
The Cramer-Rao bound is that of unbiased estimators without bounds; its mean is over the points where it is below the
width of the parameter's range, for it is infinite where the signal does not depend on a parameter.
"""

from __future__ import annotations

from _common import SMT_B_VALUES, accuracy, figure_folder, figure_options, options, table, use_cores  # isort: skip

from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from bidsfit import models
from bidsfit.acquisition import Acquisition
from bidsfit.bounds import cramer_rao_bound
from bidsfit.estimators.least_squares import LeastSquares
from bidsfit.reports.canvas import ACCENT, INK, page, save, styled

#: RMSE, |bias| and SD of the paper's traditional fitting of two compartments at SNR 25.
PAPER = {"vcyl": (0.0883, 0.0313, 0.0742), "lambda": (0.1106, 0.0130, 0.1087)}
LABELS = {"vcyl": r"$v_\mathrm{cyl}$", "vcsf": r"$v_\mathrm{csf}$", "lambda": r"$\lambda$ (µm²/ms)"}
RANGES = {"vcyl": 1.0, "vcsf": 1.0, "lambda": 3.0}
ROWS = {
    "bias": "Bias",
    "sd": "Standard\ndeviation",
    "bound": "Cramér-Rao\nbound",
    "rmse": "Root mean\nsquare error",
}

Parameters = dict[str, NDArray[np.float64]]
Maps = dict[str, dict[str, NDArray[np.float64]]]  # by parameter and statistic


def main() -> None:
    parser = options(__doc__, voxels=441_000)
    parser.add_argument("--repeats", type=int, help="noise samples at every point; by default as many as make --voxels")
    parser.add_argument("--snr", type=float, nargs="+", default=[25.0, 50.0], help="of one measurement at S0")
    figure_options(parser)
    arguments = parser.parse_args()
    use_cores(1)
    folder = figure_folder(arguments)
    for name, truth in (("smt2", two_compartments()), ("smt3", three_compartments())):
        n_points = truth["vcyl"].size
        repeats = 50 if arguments.quick else arguments.repeats or max(arguments.voxels // n_points, 2)
        rows = []
        for snr in arguments.snr:
            rng = np.random.default_rng(2024)
            noisy, acquisition = simulate(name, truth, snr, repeats, rng)
            for label, s0 in (("S0 as measured", "measured"), ("S0 fitted", "fitted")):
                maps = evaluate(name, truth, noisy, acquisition, snr, s0)
                rows += [row(f"{p}, SNR {snr:g}, lsq, {label}", maps[p], RANGES[p]) for p in maps]
                if snr == arguments.snr[0] and s0 == "measured":
                    draw(truth, maps, snr, folder, name)
        if name == "smt2" and 25 in arguments.snr:
            rows += [[f"{p}, SNR 25, Gyori et al.", *[f"{v:.4f}" for v in PAPER[p]], "", ""] for p in PAPER]
        rows.sort(key=lambda line: list(RANGES).index(line[0].split(",")[0]))
        print(f"{models.get(name).title}: {repeats:,} noise samples at each of {n_points:,} points:\n")
        header = [
            "parameter",
            "mean RMSE",
            "mean absolute bias",
            "mean SD",
            "mean Cramér-Rao bound",
            "points that have it",
        ]
        print(table(header, rows))
    print(f"Figures are in {folder}.")


def two_compartments() -> Parameters:
    """The grid of the paper, vcyl first."""
    vcyl, diffusivity = np.meshgrid(np.linspace(0, 1, 21), np.linspace(0, 3, 21), indexing="ij")
    return {"vcyl": vcyl.ravel(), "lambda": diffusivity.ravel()}


def three_compartments() -> Parameters:
    """231 points of the simplex times 7 values of lambda."""
    points = [(i, j, k) for i, j, k in product(range(21), range(21), range(7)) if i + j <= 20]
    vcyl, vcsf, diffusivity = np.array(points).T
    return {"vcyl": vcyl / 20, "vcsf": vcsf / 20, "lambda": diffusivity / 2}


def simulate(
    name: str, truth: Parameters, snr: float, repeats: int, rng: np.random.Generator
) -> tuple[NDArray[np.float64], Acquisition]:
    """Direction averages with noise, all but the first; its noise-free S0 is 1."""
    counts = [1, *[32] * (len(SMT_B_VALUES) - 1)]
    acquisition = Acquisition(SMT_B_VALUES, counts=counts, n_directions=counts)
    signals = np.repeat(models.get(name).signal({"S0": 1.0, **truth}, acquisition), repeats, axis=0)
    signals[:, 1:] += rng.normal(0, 1 / snr / np.sqrt(32), (len(signals), len(SMT_B_VALUES) - 1))
    return signals, acquisition


def evaluate(name: str, truth: Parameters, signals: NDArray, acquisition: Acquisition, snr: float, s0: Any) -> Maps:
    """Fit all samples; errors over the noise at every point, and the bound."""
    model = models.get(name)
    found = LeastSquares(model, s0=s0).estimate(signals, acquisition).parameters
    floor = cramer_rao_bound(model, {"S0": 1.0, **truth}, acquisition, 1 / snr, fixed=("S0",))  # it has no noise
    return {p: {**accuracy(found[p], truth[p])._asdict(), "bound": floor[p]} for p in truth}


def row(label: str, maps: dict[str, NDArray], width: float) -> list[str]:
    """Means over the grid."""
    known = maps["bound"] < width
    values = [maps["rmse"].mean(), np.abs(maps["bias"]).mean(), maps["sd"].mean(), maps["bound"][known].mean()]
    return [label, *[f"{value:.4f}" for value in values], f"{known.mean():.0%}".replace("%", " %")]


def draw(truth: Parameters, maps: Maps, snr: float, folder: Path, name: str) -> None:
    """All figures of a model."""
    if name == "smt2":
        save(plane(truth, maps, snr), folder / "smt2.png")
    else:
        for parameter in maps:
            save(triangles(truth, maps[parameter], parameter, snr), folder / f"smt3_{parameter}.png")


@styled
def plane(truth: Parameters, maps: Maps, snr: float) -> Figure:
    """Where the mean estimate of every point lies, and maps of all statistics over the plane of vcyl and lambda."""
    figure = page(height=4.4, width=10.4)
    figure.set_layout_engine("constrained")
    names: list[Any] = [["all", *[f"{parameter} {statistic}" for statistic in ROWS]] for parameter in maps]
    panels = figure.subplot_mosaic(names, width_ratios=[2.6, 1, 1, 1, 1])
    vcyl, diffusivity = truth["vcyl"], truth["lambda"]
    arrows = panels["all"]
    shift = maps["vcyl"]["bias"], maps["lambda"]["bias"]
    arrows.quiver(vcyl, diffusivity, *shift, angles="xy", scale_units="xy", scale=1, color=ACCENT, width=0.004)
    arrows.plot(vcyl, diffusivity, ".", color=INK, markersize=2)
    arrows.set(xlim=(-0.03, 1.03), ylim=(-0.09, 3.09), xlabel=LABELS["vcyl"], ylabel=LABELS["lambda"])
    arrows.set_title(f"Truth to mean estimate, SNR {snr:g}", loc="center")
    for parameter, values in maps.items():
        limits = colour_limits(values)
        for statistic, title in ROWS.items():
            panel = panels[f"{parameter} {statistic}"]
            image = show(panel, values[statistic].reshape(21, 21).T, statistic, limits, (0, 1, 0, 3))
            panel.set_yticks([0, 1, 2, 3])
            panel.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])
            panel.tick_params(labelleft=statistic == "bias", labelbottom=parameter == "lambda")
            if parameter == "vcyl":
                panel.set_title(title, loc="center")
            else:
                panel.set_xlabel(LABELS["vcyl"])
        others = [panels[f"{parameter} {statistic}"] for statistic in ROWS if statistic != "bias"]
        figure.colorbar(panels[f"{parameter} bias"].images[0], ax=panels[f"{parameter} bias"], extend="both", aspect=25)
        figure.colorbar(image, ax=others, extend="max", label=f"of {LABELS[parameter]}", aspect=25)
    return figure


@styled
def triangles(truth: Parameters, values: dict[str, NDArray], parameter: str, snr: float) -> Figure:
    """Maps of all statistics of one parameter over the triangle of vcyl and vcsf, one column for each lambda."""
    columns = np.unique(truth["lambda"])
    figure = page(height=6.6, width=9.6)
    figure.set_layout_engine("constrained")
    name = LABELS[parameter].split(" ")[0]
    figure.suptitle(f"{name} in the model of three compartments, SNR {snr:g} ($\\lambda$ in µm²/ms)")
    panels = figure.subplots(len(ROWS), columns.size, sharex=True, sharey=True)
    limits = colour_limits(values)
    place = np.rint(truth["vcsf"] * 20).astype(int), np.rint(truth["vcyl"] * 20).astype(int)
    for i, (statistic, title) in enumerate(ROWS.items()):
        for panel, diffusivity in zip(panels[i], columns, strict=True):
            here = truth["lambda"] == diffusivity
            triangle = np.full((21, 21), np.nan)
            triangle[place[0][here], place[1][here]] = values[statistic][here]
            image = show(panel, triangle, statistic, limits, (-0.025, 1.025, -0.025, 1.025))
            if i == 0:
                panel.set_title(rf"$\lambda$ = {diffusivity:g}", loc="center")
        panels[i, 0].set_ylabel(LABELS["vcsf"])
        extend = "both" if statistic == "bias" else "max"
        figure.colorbar(image, ax=panels[i], extend=extend, label=title, aspect=12)
    for panel in panels[-1]:
        panel.set_xlabel(LABELS["vcyl"])
        panel.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])
        panel.set_yticks([0, 0.5, 1], ["0", "0.5", "1"])
    return figure


def colour_limits(values: dict[str, NDArray]) -> tuple[float, float]:
    """Largest bias, and largest standard deviation or error, that have a colour of their own."""
    return float(np.percentile(np.abs(values["bias"]), 92)), float(np.percentile(values["rmse"], 95))


def show(panel: Any, values: NDArray, statistic: str, limits: tuple[float, float], extent: tuple[float, ...]) -> Any:
    """One map; white where there is no such point."""
    low, high, colours = (-limits[0], limits[0], "RdBu_r") if statistic == "bias" else (0, limits[1], "viridis")
    finite = np.where(np.isposinf(values), 1e6, values)  # a bound that is infinite has the last colour
    return panel.imshow(finite, colours, vmin=low, vmax=high, extent=extent, origin="lower", aspect="auto")


if __name__ == "__main__":
    main()
