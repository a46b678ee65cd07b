"""Learning curves of trained estimators, and their errors against a choice of the training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator
from numpy.typing import ArrayLike

from bidsfit.reports.canvas import ACCENT, INK, QUIET, WIDTH, page, save, styled, ticks
from bidsfit.reports.comparisons import estimator_colour
from bidsfit.reports.spaces import Axis
from bidsfit.reports.words import readable


@styled
def plot_learning(
    path: Path | str,
    steps: ArrayLike,
    training: ArrayLike,
    validation: ArrayLike,
    best_step: float,
    *,
    label: str,
) -> Path:
    """Plot the loss against the steps of training, and mark the step whose weights were kept.

    The axis of the loss is logarithmic, or linear if a loss is not positive.

    Parameters
    ----------
    path : path
        ``.png`` or ``.svg``.
    steps : array_like, shape (n,)
    training, validation : array_like, shape (n,)
        Loss on the training samples and on the validation samples; NaN where it was not computed.
    best_step : float
    label : str
        Label of the axis of the loss.
    """
    x, *losses = (np.asarray(values, dtype=float) for values in (steps, training, validation))
    if x.ndim != 1 or x.size == 0 or any(loss.shape != x.shape for loss in losses):
        shapes = ", ".join(str(values.shape) for values in (x, *losses))
        raise ValueError(f"Steps, training and validation must be of one length, not empty; their shapes are {shapes}.")
    figure = page(3.3, 6.4)
    axes = figure.subplots()
    for loss, name, colour, width in zip(losses, ("training", "validation"), (QUIET, ACCENT), (1.0, 1.6), strict=True):
        known = np.isfinite(loss)
        axes.plot(x[known], loss[known], color=colour, linewidth=width, label=name)
    finite = np.concatenate([loss[np.isfinite(loss)] for loss in losses])
    if finite.size and finite.min() > 0:
        axes.set_yscale("log")
        decades = np.log10(finite.max() / finite.min())
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if decades < 3 else (1,)))
        axes.yaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}".replace("-", "\N{MINUS SIGN}")))
    axes.axvline(best_step, color=INK, linewidth=0.9, linestyle=(0, (3, 2)), label=f"best, step {readable(best_step)}")
    axes.set(xlabel="step", ylabel=label)
    axes.margins(x=0.02)
    axes.xaxis.set_major_locator(ticks(6))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
    figure.legend(loc="outside upper left", ncols=3, fontsize=8.5)
    return save(figure, path)


@styled
def plot_choices(
    path: Path | str,
    choices: Sequence[float],
    rows: Mapping[str, Mapping[str, ArrayLike | Mapping[str, ArrayLike]]],
    axes: Mapping[str, Axis],
    *,
    choice: str,
    errors: str = "",
    logarithmic: bool = False,
) -> Path:
    """Plot errors of networks against a choice of their training, such as the number of hidden layers.

    Parameters
    ----------
    path : path
        ``.png`` or ``.svg``.
    choices : sequence of float, shape (n,)
    rows : mapping of title to mapping of parameter to array_like, shape (n,)
        Errors; a row of panels each. Of several estimators a parameter has a mapping of their names to such arrays.
    axes : mapping of parameter to Axis
        One for each column.
    choice : str
        What is chosen.
    errors : str
        What the errors are, if the titles do not say it.
    logarithmic : bool
        Whether choices are shown by their logarithms.
    """
    figure = page(2.4 * len(rows) + 0.2, min(3.4 * len(axes), WIDTH))
    panels = figure.subplots(len(rows), len(axes), sharex=True, squeeze=False)
    for line, (title, values) in zip(panels, rows.items(), strict=True):
        for panel, (name, axis) in zip(line, axes.items(), strict=True):
            one = values[name]
            several = one if isinstance(one, Mapping) else {"": one}
            for k, (label, drawn) in enumerate(several.items()):
                colour = estimator_colour(k) if len(several) > 1 else ACCENT
                panel.plot(choices, drawn, "o-", color=colour, linewidth=1.6, markersize=4.5, label=label)
            words = f"{errors} of {axis.words}" if errors else axis.words
            largest = max(float(np.max(drawn)) for drawn in several.values())
            panel.set(ylim=(0, 1.1 * largest or 1), title=title, ylabel=words)
            panel.set_xscale("log" if logarithmic else "linear")
            panel.set_xticks(choices, [f"{value:g}" for value in choices])
            panel.xaxis.minorticks_off()
    for panel in panels[-1]:
        panel.set_xlabel(choice)
    if len(panels[0, 0].lines) > 1:
        panels[0, 0].legend(frameon=False)
    return save(figure, path)


@styled
def plot_courses(
    path: Path | str,
    rows: Mapping[str, Mapping[str, tuple[ArrayLike, ArrayLike]]],
    stops: Mapping[str, float],
    dashed: Mapping[str, float],
) -> Path:
    """Plot what networks tell while they learn, a panel each, against the epochs on a logarithmic axis.

    Parameters
    ----------
    path : path
        ``.png`` or ``.svg``.
    rows : mapping of title to mapping of network to (epochs, values)
        Arrays of one length.
    stops : mapping of network to float
        Epoch at which a dot stands on its line.
    dashed : mapping of title to float
        Value of a dashed line.
    """
    figure = page(2.9 * -(-len(rows) // 2) + 0.3, WIDTH)
    panels = figure.subplots(-(-len(rows) // 2), 2, sharex=True, squeeze=False).ravel()
    for panel, (title, lines) in zip(panels, rows.items(), strict=True):
        for k, (label, (x, y)) in enumerate(lines.items()):
            colour = estimator_colour(k)
            panel.plot(x, y, color=colour, linewidth=1.6, label=label)
            height = np.interp(np.log(stops[label]), np.log(np.asarray(x)), np.asarray(y))
            panel.plot(stops[label], height, "o", color=colour, markersize=6)
        largest = max(float(np.max(y)) for _, y in lines.values())
        smallest = min(float(np.min(y)) for _, y in lines.values())
        if smallest <= dashed[title] <= 1.2 * largest:
            panel.axhline(dashed[title], color=INK, linewidth=0.9, linestyle=(0, (3, 2)))
        panel.set(title=title, xscale="log")
        panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
    for panel in panels[-2:]:
        panel.set_xlabel("epoch")
    panels[0].legend(frameon=False)
    return save(figure, path)
