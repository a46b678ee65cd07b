"""A figure of the estimates at a few known combinations of parameters, as box plots."""

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

from bidsfit.reports.canvas import FAINT, INK, QUIET, WARM, WIDTH, inches, page, save, styled, ticks
from bidsfit.reports.comparisons import estimator_colour
from bidsfit.reports.spaces import Axis

MOST_CASES, MOST_GROUPS = 4, 8

#: Percentiles: end of a whisker, box, median, box, end of a whisker.
PERCENTILES = (5, 25, 50, 75, 95)

#: Inches: margins, space between cases, and heights of a row, of the title and of the words below.
LEFT, RIGHT, BETWEEN, ROW, SPACE, TITLE, FOOT = 0.8, 0.1, 0.14, 1.75, 0.16, 0.34, 0.3
#: Inches: height that a letter of a slanted name takes; and letters of a title in an inch.
LETTER, TITLE_LETTERS = 0.045, 12


@dataclass(frozen=True)
class Group:
    """Estimates by one estimator.

    Attributes
    ----------
    name : str
    estimates : ndarray, shape (r, p)
        Of ``p`` parameters, from ``r`` samples of the noise; NaN where there is none.
    cohen_d : ndarray, shape (p,)
        As computed elsewhere; printed above the boxes.
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
        The same estimators in the same order in every case.
    """

    title: str
    truth: NDArray
    groups: Sequence[Group]


@styled
def plot_boxes(path: Path | str, cases: Sequence[Case], axes: Sequence[Axis], *, subtitle: str = "") -> Path:
    """Box plots of the estimates at named combinations, one row for each parameter and one column for each case.

    Parameters
    ----------
    path : path
        ``.png`` or ``.svg``.
    cases : sequence of Case
        One to four, of one to eight groups.
    axes : sequence of Axis
        One for each of the ``p`` parameters; what lies beyond the limits by more than a tenth is not shown.
    subtitle : str
        One line above all, such as the noise.
    """
    _check(cases, len(axes))
    width = (WIDTH - LEFT - RIGHT - MOST_CASES * BETWEEN) / {1: 1.4, 2: 2.8}.get(len(cases), MOST_CASES)
    names = [group.name for group in cases[0].groups]
    titles = [textwrap.fill(case.title, max(int(width * TITLE_LETTERS), 6)) for case in cases]
    top = TITLE + 0.17 * max(title.count("\n") for title in titles) + (0.2 if subtitle else 0)
    words = 0.2 + LETTER * max(len(name) for name in names)
    height = top + len(axes) * (ROW + SPACE) + words + FOOT
    figure = page(height, LEFT + RIGHT + len(cases) * (width + BETWEEN))
    page_width = figure.get_size_inches()[0]
    figure.text(LEFT / page_width, 1 - 0.08 / height, subtitle, va="top", color=QUIET, fontsize=9)
    for row, axis in enumerate(axes):
        limits = _limits(cases, row, axis)
        for column, case in enumerate(cases):
            panel = inches(figure, LEFT + column * (width + BETWEEN), top + row * (ROW + SPACE), width, ROW)
            panel.set(xlim=(0.4, len(names) + 0.6), ylim=limits)
            _draw_case(panel, case, row)
            panel.yaxis.set_major_locator(ticks(5))
            panel.grid(axis="y", color=FAINT, linewidth=0.5)
            panel.set_axisbelow(True)
            panel.tick_params(axis="x", length=0)
            panel.set_xticks(range(1, len(names) + 1), [""] * len(names))
            if column:
                panel.tick_params(axis="y", labelleft=False, length=0)
            else:
                panel.set_ylabel(axis.words)
                panel.yaxis.set_label_coords(-0.58 / panel.get_position().width / page_width, 0.5)
            if row == 0:
                panel.set_title(titles[column], pad=5)
            if row == len(axes) - 1:
                panel.set_xticklabels(names, rotation=45, ha="right", rotation_mode="anchor", color=INK)
    explanation = "Box: quartiles and median.  Whiskers: 5th to 95th percentile.  Dashed: truth.  "
    explanation += "Number: Cohen\N{RIGHT SINGLE QUOTATION MARK}s d."
    figure.text(LEFT / page_width, 0.1 / height, explanation, color=QUIET, fontsize=8)
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
    """From the lowest to the highest whisker or truth of all cases, with room for numbers above."""
    ends = [float(case.truth[parameter]) for case in cases]
    for values in (_finite(group, parameter) for case in cases for group in case.groups):
        ends += np.percentile(values, PERCENTILES).tolist() if values.size else []
    allowed = axis.limits[0] - 0.1 * axis.span, axis.limits[1] + 0.1 * axis.span
    low, high = np.clip([np.nanmin(ends), np.nanmax(ends)], *allowed)
    spread = max(high - low, 0.02 * axis.span)
    return float(low - 0.06 * spread), float(high + 0.16 * spread)


def _draw_case(panel: Any, case: Case, parameter: int) -> None:
    """Boxes of all groups, with Cohen's d above each."""
    panel.axhline(case.truth[parameter], color=WARM, linewidth=1.1, linestyle=(0, (4, 2)), zorder=1)
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
        words = _short(float(group.cohen_d[parameter]))
        above = panel.annotate(words, (i + 1, tip), (0, 2.5), textcoords="offset points", ha="center", fontsize=6.5)
        above.set(path_effects=[Stroke(linewidth=1.8, foreground="white"), Normal()], zorder=4)


def _short(value: float) -> str:
    """One decimal, or none where that would not fit above a box."""
    if np.isnan(value):
        return "\N{EN DASH}"
    if np.isinf(value):
        return "\N{INFINITY}" if value > 0 else "\N{MINUS SIGN}\N{INFINITY}"
    text = f"{value:.0f}" if abs(value) >= 9.95 else f"{round(value, 1) + 0.0:.1f}"
    return text.replace("-", "\N{MINUS SIGN}")
