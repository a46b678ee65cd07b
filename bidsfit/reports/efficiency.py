"""Squared bias and variance of estimators relative to the Cramér-Rao bound."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.ticker import FixedLocator, NullLocator
from numpy.typing import NDArray

from bidsfit.reports.canvas import FAINT, QUIET, page, save, styled, ticks
from bidsfit.reports.comparisons import estimator_colour
from bidsfit.reports.spaces import Axis

#: What is drawn in the two rows, and what an efficient estimator has.
QUANTITIES = (("squared bias / squared bound", 0.0), ("variance / squared bound", 1.0))
#: Bins of a histogram, and the share of the values that lie within its ends.
BINS, WITHIN = 40, 0.98


@styled
def plot_efficiencies(path: Path | str, estimators: Mapping[str, Sequence[NDArray]], axes: Mapping[str, Axis]) -> Path:
    """Histograms over true parameters, one column for each parameter.

    Parameters
    ----------
    path : path
        ``.png`` or ``.svg``.
    estimators : mapping of name to (squared bias, variance), each of shape (n, n_parameters)
        Relative to the squared bound.
    axes : mapping of parameter to Axis
    """
    figure, panels = _panels(axes)
    for k, line in enumerate(panels):
        for j, panel in enumerate(line):
            values = {name: found[k][:, j] for name, found in estimators.items()}
            ends = np.quantile(np.concatenate(list(values.values())), ((1 - WITHIN) / 2, (1 + WITHIN) / 2))
            for i, (name, one) in enumerate(values.items()):
                counts, edges = np.histogram(one, bins=BINS, range=tuple(ends))
                panel.stairs(100 * counts / len(one), edges, color=estimator_colour(i), linewidth=1.3, label=name)
            panel.axvline(QUANTITIES[k][1], color=QUIET, linewidth=0.9, zorder=0)
            panel.set(xlabel=QUANTITIES[k][0], xlim=ends)
            panel.xaxis.set_major_locator(ticks(5))
        line[0].set_ylabel("% of the samples")
    return _finished(figure, panels, path)


@styled
def plot_efficiency_curves(
    path: Path | str, snrs: Sequence[float], estimators: Mapping[str, NDArray], axes: Mapping[str, Axis]
) -> Path:
    """Curves against the SNR, one column for each parameter.

    Parameters
    ----------
    path : path
        ``.png`` or ``.svg``.
    snrs : sequence of float
    estimators : mapping of name to ndarray, shape (2, n_seeds, n_snrs, n_parameters)
        Means of squared bias and variance relative to the squared bound.
    axes : mapping of parameter to Axis
    """
    figure, panels = _panels(axes)
    for k, line in enumerate(panels):
        for j, panel in enumerate(line):
            for i, (name, values) in enumerate(estimators.items()):
                seeds, colour = values[k, :, :, j], estimator_colour(i)
                panel.fill_between(snrs, seeds.min(axis=0), seeds.max(axis=0), color=colour, alpha=0.2, linewidth=0)
                panel.plot(snrs, seeds.mean(axis=0), "o-", color=colour, markersize=3, linewidth=1.3, label=name)
            panel.axhline(QUANTITIES[k][1], color=QUIET, linewidth=0.9, zorder=0)
            panel.set(xscale="log", xlabel="SNR")
            panel.xaxis.set_major_locator(FixedLocator(list(snrs)))
            panel.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
            panel.xaxis.set_minor_locator(NullLocator())
            panel.grid(axis="y", color=FAINT, linewidth=0.5)
        line[0].set_ylabel(QUANTITIES[k][0])
    return _finished(figure, panels, path)


def _panels(axes: Mapping[str, Axis]) -> tuple[Any, Any]:
    """A figure with two rows of panels, titled with the parameters."""
    figure = page(5.4, 3.3 * len(axes))
    panels = figure.subplots(2, len(axes), squeeze=False)
    for panel, axis in zip(panels[0], axes.values(), strict=True):
        panel.set_title(axis.label)
    return figure, panels


def _finished(figure: Any, panels: Any, path: Path | str) -> Path:
    handles, labels = panels[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper left", ncols=4, fontsize=8.5)
    return save(figure, path)
