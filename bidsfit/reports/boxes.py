"""Box plots of the estimates at a few known combinations of parameters."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.colors import to_rgba
from matplotlib.patheffects import Normal, Stroke
from numpy.typing import NDArray

from bidsfit.reports.canvas import FAINT, INK, QUIET, WARM, WIDTH, page, save, say_below, styled, ticks
from bidsfit.reports.comparisons import estimator_colour
from bidsfit.reports.spaces import Axis

MOST_CASES, MOST_GROUPS = 4, 8

#: An effect beyond this, as of Gyori et al. 2022, has a star.
STAR = 0.5

#: Percentiles: end of a whisker, box, median, box, end of a whisker.
PERCENTILES = (5, 25, 50, 75, 95)

#: Letters of a title in an inch.
TITLE_LETTERS = 11


@dataclass(frozen=True)
class Group:
    """Estimates by one estimator.

    Attributes
    ----------
    name : str
    estimates : ndarray, shape (r, p)
        Estimates of ``p`` parameters for ``r`` samples of the noise; NaN without an estimate.
    cohen_d : ndarray, shape (p,)
        Effect sizes, printed above the boxes.
    """

    name: str
    estimates: NDArray
    cohen_d: NDArray


@dataclass(frozen=True)
class Case:
    """One known combination of parameters.

    Attributes
    ----------
    title : str
    truth : ndarray, shape (p,)
    groups : sequence of Group
        Estimators; the same in the same order for all cases.
    usual : ndarray, shape (p,), optional
        Another combination, such as that of healthy tissue, drawn as a black line.
    """

    title: str
    truth: NDArray
    groups: Sequence[Group]
    usual: NDArray | None = None


@styled
def plot_boxes(
    path: Path | str, cases: Sequence[Case], axes: Sequence[Axis], *, subtitle: str = "", usual: str = ""
) -> Path:
    """Box plots of the estimates at named combinations, one row for each parameter and one column for each case.

    Parameters
    ----------
    path : path
        ``.png`` or ``.svg``.
    cases : sequence of Case
        One to four cases of one to eight groups.
    axes : sequence of Axis
        One for each of the ``p`` parameters. Plots extend beyond the limits by at most a tenth.
    subtitle : str
        A line at the top, such as the noise level.
    usual : str
        What the black lines are, such as "average white matter".
    """
    _check(cases, len(axes))
    width = {1: 0.7, 2: 0.36}.get(len(cases), 1 / MOST_CASES) * WIDTH
    names = [group.name for group in cases[0].groups]
    figure = page(2.0 * len(axes) + 1.0, len(cases) * width)
    panels = figure.subplots(len(axes), len(cases), sharex=True, sharey="row", squeeze=False)
    for row, axis in enumerate(axes):
        for panel, case in zip(panels[row], cases, strict=True):
            panel.set(xlim=(0.4, len(names) + 0.6), ylim=_limits(cases, row, axis))
            _draw_case(panel, case, row)
            panel.yaxis.set_major_locator(ticks(5))
            panel.grid(axis="y", color=FAINT, linewidth=0.5)
            panel.set_axisbelow(True)
            panel.tick_params(length=0)
            names_below = {"rotation": 45, "ha": "right", "rotation_mode": "anchor", "color": INK}
            panel.set_xticks(range(1, len(names) + 1), names, **names_below)
            if row == 0:
                panel.set_title(textwrap.fill(case.title, max(int(width * TITLE_LETTERS), 6)), pad=5)
        panels[row, 0].set_ylabel(axis.words)
    figure.align_ylabels()
    if subtitle:
        figure.suptitle(subtitle, x=0.1 / figure.get_figwidth(), ha="left", color=QUIET, fontsize=9)
    explanation = "Box: quartiles and median.  Whiskers: 5th to 95th percentile.  Dashed: truth.  "
    explanation += f"Black line: {usual}.  " if usual else ""
    say_below(figure, f"{explanation}Number: Cohen\N{RIGHT SINGLE QUOTATION MARK}s d; star: beyond {STAR:g}.")
    return save(figure, path)


def _check(cases: Sequence[Case], n_parameters: int) -> None:
    if not 1 <= len(cases) <= MOST_CASES:
        raise ValueError(f"Box plots show 1 to {MOST_CASES} cases, not {len(cases)}.")
    names = [group.name for group in cases[0].groups]
    if not 1 <= len(names) <= MOST_GROUPS:
        raise ValueError(f"Box plots show 1 to {MOST_GROUPS} groups, not {len(names)}.")
    for case in cases:
        if [group.name for group in case.groups] != names:
            raise ValueError(f"{case.title!r} has other groups than {cases[0].title!r}.")
        if np.shape(case.truth) != (n_parameters,):
            raise ValueError(f"The truth of {case.title!r} must hold {n_parameters} values, one for each axis.")
        for group in case.groups:
            if np.ndim(group.estimates) != 2 or np.shape(group.estimates)[1] != n_parameters:
                shape = np.shape(group.estimates)
                raise ValueError(f"Estimates of {group.name!r} have the shape {shape}; it must be (r, {n_parameters}).")
            if np.shape(group.cohen_d) != (n_parameters,):
                raise ValueError(f"Cohen's d of {group.name!r} must hold {n_parameters} values, one for each axis.")


def _finite(group: Group, parameter: int) -> NDArray:
    values = np.asarray(group.estimates, dtype=float)[:, parameter]
    return values[np.isfinite(values)]


def _limits(cases: Sequence[Case], parameter: int, axis: Axis) -> tuple[float, float]:
    """Range of the whiskers and truths of all cases, with room for numbers above."""
    ends = [float(point[parameter]) for case in cases for point in (case.truth, case.usual) if point is not None]
    for values in (_finite(group, parameter) for case in cases for group in case.groups):
        ends += np.percentile(values, PERCENTILES).tolist() if values.size else []
    allowed = axis.limits[0] - 0.1 * axis.span, axis.limits[1] + 0.1 * axis.span
    low, high = np.clip([np.nanmin(ends), np.nanmax(ends)], *allowed)
    spread = max(high - low, 0.02 * axis.span)
    return float(low - 0.06 * spread), float(high + 0.16 * spread)


def _draw_case(panel: Any, case: Case, parameter: int) -> None:
    """Draw the boxes of all groups, with Cohen's d above each."""
    panel.axhline(case.truth[parameter], color=WARM, linewidth=1.1, linestyle=(0, (4, 2)), zorder=1)
    if case.usual is not None:
        panel.axhline(case.usual[parameter], color=INK, linewidth=1.0, zorder=1)
    highest = panel.get_ylim()[1]
    for i, group in enumerate(case.groups):
        values = _finite(group, parameter)
        if values.size == 0:
            continue
        names = ("whislo", "q1", "med", "q3", "whishi")
        box = dict(zip(names, np.percentile(values, PERCENTILES), strict=True))
        colour = estimator_colour(i)
        line = {"color": colour, "linewidth": 1.0}
        panel.bxp(
            [box],
            positions=[i + 1],
            widths=min(0.62, 0.12 * len(case.groups)),
            showfliers=False,
            patch_artist=True,
            boxprops={"facecolor": to_rgba(colour, 0.3), "edgecolor": colour, "linewidth": 1.0},
            medianprops={"color": INK, "linewidth": 1.4},
            whiskerprops=line,
            capprops=line,
            manage_ticks=False,
            zorder=3,
        )
        tip = min(float(box["whishi"]), highest - 0.12 * (highest - panel.get_ylim()[0]))
        effect = float(group.cohen_d[parameter])
        words = short_number(effect) + "\N{BLACK STAR}" * (abs(effect) > STAR)
        above = panel.annotate(words, (i + 1, tip), (0, 2.5), textcoords="offset points", ha="center", fontsize=6.5)
        above.set(path_effects=[Stroke(linewidth=1.8, foreground="white"), Normal()], zorder=4)


def short_number(value: float) -> str:
    """A number with one decimal, or none if it would not fit above a box."""
    if np.isnan(value):
        return "\N{EN DASH}"
    if np.isinf(value):
        return "\N{INFINITY}" if value > 0 else "\N{MINUS SIGN}\N{INFINITY}"
    text = f"{value:.0f}" if abs(value) >= 9.95 else f"{round(value, 1) + 0.0:.1f}"
    return text.replace("-", "\N{MINUS SIGN}")
