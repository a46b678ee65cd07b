"""How much of a contrast between two tissues each estimator leaves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from bidsfit.reports.canvas import FAINT, INK, QUIET, WIDTH, page, save, say_below, styled, ticks
from bidsfit.reports.comparisons import estimator_colour

#: Shares of a contrast that are drawn; what lies beyond has an arrow at the edge.
DRAWN = (-0.6, 1.6)


@dataclass(frozen=True)
class Contrast:
    """What estimators leave of the differences between a tissue and another, at one level of noise.

    Attributes
    ----------
    title : str
        The level of noise.
    left : mapping of estimator to ndarray, shape (p, n)
        Difference of the mean estimates over that of the truth, by parameter and tissue; NaN where the truths hardly
        differ.
    error : mapping of estimator to ndarray, shape (p, n)
        Standard error.
    """

    title: str
    left: Mapping[str, NDArray]
    error: Mapping[str, NDArray]


@styled
def plot_contrasts(
    path: Path | str, levels: Sequence[Contrast], parameters: Sequence[str], tissues: Sequence[str]
) -> Path:
    """Share of each contrast that each estimator leaves, one row for each parameter and one column for each tissue.

    Parameters
    ----------
    path : path
        ``.png`` or ``.svg``.
    levels : sequence of Contrast
        Of one colour each; an estimator may be missing at some of them.
    parameters, tissues : sequence of str
        Their names, in the order of the arrays.
    """
    names = list(dict.fromkeys(name for level in levels for name in level.left))
    figure = page(len(parameters) * (0.24 * len(names) + 0.7) + 0.5, WIDTH)
    panels = figure.subplots(len(parameters), len(tissues), sharex=True, sharey=True, squeeze=False)
    beyond = False
    for row, (line, parameter) in enumerate(zip(panels, parameters, strict=True)):
        for column, (panel, tissue) in enumerate(zip(line, tissues, strict=True)):
            panel.axvline(1, color=INK, linewidth=1.0, zorder=1)
            panel.axvline(0, color=QUIET, linewidth=1.0, linestyle=(0, (4, 2)), zorder=1)
            panel.set(xlim=DRAWN, ylim=(len(names) - 0.5, -0.5))
            panel.set_yticks(range(len(names)), names)
            panel.tick_params(axis="y", length=0, labelcolor=INK)
            panel.grid(axis="y", color=FAINT, linewidth=0.5)
            panel.xaxis.set_major_locator(ticks(4))
            panel.xaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f} %".replace("-", "\N{MINUS SIGN}"))
            panel.set_title(f"{parameter}, {tissue}", fontsize=9.5)
            known = False
            for k, level in enumerate(levels):
                for name in level.left:
                    share, error = (float(part[name][row, column]) for part in (level.left, level.error))
                    if not np.isfinite(share):
                        continue
                    known, place = True, names.index(name) + 0.14 * (2 * k - len(levels) + 1)
                    colour = estimator_colour(k)
                    if not DRAWN[0] < share < DRAWN[1]:
                        side, mark = (DRAWN[1], ">") if share > 0 else (DRAWN[0], "<")
                        panel.plot(side, place, mark, color=colour, markersize=6, clip_on=False, zorder=4)
                        beyond = True
                        continue
                    panel.errorbar(share, place, xerr=1.96 * error, fmt="o", color=colour, markersize=4.5, zorder=3)
            if not known:
                panel.text(0.5, len(names) / 2 - 0.5, "no contrast", ha="center", va="center", color=QUIET, fontsize=9)
    marks = [Line2D([], [], marker="o", linestyle="none", color=estimator_colour(k)) for k in range(len(levels))]
    figure.legend(marks, [level.title for level in levels], loc="outside upper left", ncols=len(levels), fontsize=9)
    words = "Bars: 95 % confidence of the means.  Black line: all of the contrast is left.  Dashed: none is."
    say_below(figure, words + "  Triangles: beyond the axis." * beyond)
    return save(figure, path)
