"""Figures of estimators that read the neighbours of a voxel: errors side by side, and how a lesion shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.ticker import StrMethodFormatter
from numpy.typing import ArrayLike, NDArray

from bidsfit.reports.canvas import FAINT, INK, WIDTH, compressed, page, save, say_below, styled
from bidsfit.reports.comparisons import estimator_colour
from bidsfit.reports.mosaics import draw_scale
from bidsfit.reports.spaces import Axis


@styled
def plot_errors(
    path: Path | str,
    names: Sequence[str],
    errors: Mapping[str, Mapping[str, ArrayLike]],
    axes: Mapping[str, Axis],
    *,
    words: str,
) -> Path:
    """Plot an error of every estimator, a panel for each parameter.

    Parameters
    ----------
    path : path
        ``.png`` or ``.svg``.
    names : sequence of str, length n
        Estimators or trainings, from left to right.
    errors : mapping of parameter to mapping of group to array_like, shape (n,)
        Groups, such as tissues, have colours of their own.
    axes : mapping of parameter to Axis
    words : str
        What the errors are.
    """
    figure = page(3.2, min(3.4 * len(axes), WIDTH))
    panels = figure.subplots(1, len(axes), squeeze=False)[0]
    for panel, (name, axis) in zip(panels, axes.items(), strict=True):
        for k, (group, values) in enumerate(errors[name].items()):
            panel.plot(
                range(len(names)), values, "o-", color=estimator_colour(k), linewidth=1, markersize=5, label=group
            )
        panel.set_xticks(range(len(names)), names, rotation=45, ha="right", rotation_mode="anchor", color=INK)
        panel.set(ylim=(0, None), title=axis.label, xlim=(-0.4, len(names) - 0.6))
        panel.grid(axis="y", color=FAINT, linewidth=0.5)
    panels[0].set_ylabel(words)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside right upper")
    return save(figure, path)


@styled
def plot_responses(
    path: Path | str,
    responses: Mapping[str, Sequence[NDArray[np.float64]]],
    sizes: Sequence[float],
    *,
    words: str,
) -> Path:
    """Plot where the change of a lesion shows in maps: a row for each estimator, a column for each size of the lesion.

    Parameters
    ----------
    path : path
        ``.png`` or ``.svg``.
    responses : mapping of estimator to sequence of ndarray, shape (x, y)
        Change of the mean estimate relative to the true change in the lesion, which is in the middle.
    sizes : sequence of float
        Diameters of the lesions in voxels.
    words : str
        What the colours show.
    """
    cell = min((WIDTH - 2) / len(sizes), 1.5)
    figure = page(cell * len(responses) + 0.9, cell * len(sizes) + 2, compressed())
    panels = figure.subplots(len(responses), len(sizes), squeeze=False)
    for line, (name, maps) in zip(panels, responses.items(), strict=True):
        for panel, shown, size in zip(line, maps, sizes, strict=True):
            picture = panel.imshow(shown.T, origin="lower", vmin=0, vmax=1, cmap="viridis", interpolation="nearest")
            x, y = np.indices(shown.shape)
            inside = disc(shown.shape, size)
            panel.contour(x, y, inside, levels=[0.5], colors="white", linewidths=0.8)
            panel.set_xticks([])
            panel.set_yticks([])
        line[0].set_ylabel(name, rotation=0, ha="right", va="center", color=INK)
    for panel, size in zip(panels[0], sizes, strict=True):
        panel.set_title(f"{size:g}", loc="center")
    everything = np.array(list(responses.values()))
    scale = draw_scale(figure, picture, everything, ax=panels, fraction=0.03, aspect=30)
    scale.ax.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    scale.set_label(words)
    say_below(figure, "Columns: diameter of the lesion in voxels, whose outline is white.")
    return save(figure, path)


def disc(shape: tuple[int, ...], diameter: float) -> NDArray[np.bool_]:
    """Voxels of a disc in the middle of a slice, shape (x, y)."""
    x, y = (np.arange(n) - (n - 1) / 2 for n in shape)
    return np.asarray(x[:, None] ** 2 + y**2 <= (diameter / 2) ** 2)
