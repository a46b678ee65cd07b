"""Maximum likelihood with the right and with the wrong noise: the experiment of Epstein et al. 2024.

Paper: "Choice of training label matters: how to best use deep learning for quantitative MRI parameter estimation",
MELBA 2024:002. Its public code states what the text leaves open, and this script follows it: 10 b-values, a grid of
10 x 10 x 10 points over f 0.1 to 0.5, Dslow 0.4 to 3 and Dfast 10 to 150 um^2/ms, S0 = 1, Rician noise of known
standard deviation, 500 repeats at every point, blood that decays with Dfast + Dslow, and fits within the bounds f 0.01
to 0.5, Dslow 0.01 to 4, Dfast 2 to 300. Both likelihoods fit the same signals; S0 is fitted.

Bias, standard deviation and root mean square error are taken over the noise at every point, and averaged over the other
two parameters. The Cramer-Rao bound is that of Rician noise, for unbiased estimators without bounds.
"""

from __future__ import annotations

from _common import figure_folder, figure_options, options, table, use_cores  # isort: skip

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bidsfit import models
from bidsfit.acquisition import Acquisition
from bidsfit.estimators.maximum_likelihood import MaximumLikelihood
from bidsfit.information import cramer_rao_bound
from bidsfit.noise import add_noise
from bidsfit.reports.canvas import ACCENT, INK, WARM, page, save, styled, ticks
from bidsfit.trust.metrics import accuracy

B_VALUES = (0, 10, 20, 30, 50, 80, 100, 200, 400, 800)
RANGES = {"f": (0.1, 0.5), "D": (0.4, 3.0), "Dstar": (10.0, 150.0)}
BOUNDS = {"f": (0.01, 0.5), "D": (0.01, 4.0), "Dstar": (2.0, 300.0)}
#: Names of the paper, and of the axes.
LABELS = {"f": "$f$", "D": r"$D_\mathrm{slow}$ (µm²/ms)", "Dstar": r"$D_\mathrm{fast}$ (µm²/ms)"}
PAPER = {"f": "f", "D": "Dslow", "Dstar": "Dfast"}
COLOURS = {"gaussian": WARM, "rician": ACCENT}
STATISTICS = ("bias", "sd", "rmse")

#: Statistics by SNR, likelihood and parameter, each on the grid.
Results = dict[tuple[float, str, str], dict[str, NDArray[np.float64]]]


def main() -> None:
    parser = options(__doc__, voxels=500_000)
    parser.add_argument("--repeats", type=int, help="noise samples at every point of the grid; instead of --voxels")
    parser.add_argument("--snr", type=float, nargs="+", default=[15.0, 30.0], help="S0 / sigma (default 15 and 30)")
    parser.add_argument("--points", type=int, default=10, help="of the grid, along each axis (default %(default)s)")
    figure_options(parser)
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.points, arguments.repeats = 4, 50
    repeats = arguments.repeats or max(arguments.voxels // arguments.points**3, 2)
    use_cores(1)
    axes = {name: np.linspace(*limits, arguments.points) for name, limits in RANGES.items()}
    rng = np.random.default_rng(2024)
    results: Results = {}
    for snr in arguments.snr:
        results |= experiment(axes, snr, repeats, rng)
    print(f"{repeats:,} noise samples at each of {arguments.points**3:,} points; means over the grid, D in um^2/ms:\n")
    print(summary(results, arguments.snr))
    for snr in arguments.snr:
        print(f"Bias of Dslow at SNR {snr:g}, averaged over f and Dfast:\n")
        print(slow_diffusion(results, axes, snr))
    print(f"Wrote {draw(results, axes, arguments.snr, figure_folder(arguments) / 'epstein.png')}.")


def experiment(axes: dict[str, NDArray], snr: float, repeats: int, rng: np.random.Generator) -> Results:
    """Simulate one SNR, and fit it with both likelihoods."""
    model, acquisition = models.get("ivimlebihan"), Acquisition(B_VALUES)
    grid = dict(zip(axes, np.meshgrid(*axes.values(), indexing="ij"), strict=True))
    shape = next(iter(grid.values())).shape
    truth = {"S0": np.ones(shape).ravel(), **{name: values.ravel() for name, values in grid.items()}}
    clean = np.repeat(model.signal(truth, acquisition), repeats, axis=0)
    noisy = add_noise(clean, 1 / snr, "rician", rng)
    floor = cramer_rao_bound(model, truth, acquisition, 1 / snr, "rician")
    results: Results = {}
    for noise in ("gaussian", "rician"):
        estimator = MaximumLikelihood(model, noise=noise, bounds=BOUNDS)
        found = estimator.estimate(noisy, acquisition, 1 / snr).parameters
        for name in axes:
            values = {k: v.reshape(shape) for k, v in accuracy(found[name], truth[name])._asdict().items()}
            results[snr, noise, name] = {**values, "bound": floor[name].reshape(shape)}
    return results


def summary(results: Results, snrs: list[float]) -> str:
    """Averages over the whole grid."""
    rows = []
    for name in RANGES:
        for snr in snrs:
            for noise in ("gaussian", "rician"):
                values = results[snr, noise, name]
                means = [values["bias"].mean(), np.abs(values["bias"]).mean()]
                means += [values[k].mean() for k in ("sd", "rmse", "bound")]
                rows.append([f"{PAPER[name]}, SNR {snr:g}, {noise.title()}", *[f"{value:.4g}" for value in means]])
    header = ["parameter, noise, likelihood", "mean bias", "mean absolute bias", "mean SD", "mean RMSE"]
    return table([*header, "mean Cramér-Rao bound"], rows)


def slow_diffusion(results: Results, axes: dict[str, NDArray], snr: float) -> str:
    """Bias of Dslow along Dslow with both likelihoods, and whether the right one is nearer to the truth."""
    curves = [marginal(results[snr, noise, "D"]["bias"], 1) for noise in ("gaussian", "rician")]
    rows = [
        [f"{d:.2f}", f"{wrong:+.4f}", f"{right:+.4f}", "yes" if abs(right) < abs(wrong) else "no"]
        for d, wrong, right in zip(axes["D"], *curves, strict=True)
    ]
    return table(["Dslow", "Gaussian", "Rician", "Rician nearer to 0"], rows)


def marginal(values: NDArray, axis: int) -> NDArray:
    """Mean over the other axes of the grid; of the finite values."""
    return np.nanmean(np.where(np.isfinite(values), values, np.nan), axis=tuple({0, 1, 2} - {axis}))


@styled
def draw(results: Results, axes: dict[str, NDArray], snrs: list[float], path: Path) -> Path:
    """Rows: parameters; columns: statistics; against the true value of the same parameter."""
    figure = page(height=6.6, width=8.6)
    panels = figure.subplots(len(axes), len(STATISTICS), gridspec_kw={"hspace": 0.5, "wspace": 0.27})
    figure.subplots_adjust(left=0.085, right=0.985, top=0.865, bottom=0.08)
    titles = dict(zip(STATISTICS, ("Bias", "Standard deviation", "Root mean square error"), strict=True))
    styles = ["-", (0, (4, 2)), (0, (1, 1.5))]
    for i, (name, x) in enumerate(axes.items()):
        for panel, statistic in zip(panels[i], STATISTICS, strict=True):
            for snr, style in zip(snrs, styles, strict=False):
                for noise, colour in COLOURS.items():
                    y = marginal(results[snr, noise, name][statistic], i)
                    label = f"{noise.title()} likelihood, SNR {snr:g}"
                    panel.plot(x, y, color=colour, linestyle=style, marker="o", markersize=3, label=label)
                if statistic == "sd":
                    floor = marginal(results[snr, "rician", name]["bound"], i)
                    panel.plot(
                        x, floor, color=INK, linestyle=style, linewidth=1, label=f"Cramér-Rao bound, SNR {snr:g}"
                    )
            if statistic == "bias":
                panel.axhline(0, color=INK, linewidth=0.6)
            else:
                panel.set_ylim(bottom=0)
            panel.set(xlabel=f"True {LABELS[name]}", ylabel=LABELS[name] if statistic == "bias" else None)
            if i == 0:
                panel.set_title(titles[statistic], loc="center", pad=10)
            panel.yaxis.set_major_locator(ticks(5))
    handles, labels = panels[0, 1].get_legend_handles_labels()
    order = np.argsort([label.split(",")[0] for label in labels], kind="stable")
    figure.legend([handles[k] for k in order], [labels[k] for k in order], loc="upper center", ncols=3)
    figure.align_ylabels(panels[:, 0])
    return save(figure, path)


if __name__ == "__main__":
    main()
