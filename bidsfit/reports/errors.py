"""Bias, standard deviation and root mean square error of estimators against the true parameters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from matplotlib.colors import Normalize
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from bidsfit.reports.canvas import INK, QUIET, WIDTH, page, save, say_below, styled, ticks
from bidsfit.reports.comparisons import DIVERGING, estimator_colour
from bidsfit.reports.mosaics import draw_scale
from bidsfit.reports.spaces import Axis
from bidsfit.reports.statistic_maps import RegularPlaces

#: What is drawn, a row of panels each.
STATISTICS = ("bias", "SD", "RMSE")
#: Bins of a density of pairs along each axis.
BINS = 40
DASHES: Sequence[Any] = ("solid", (0, (5, 1.5)), (0, (1.5, 1.2)), (0, (5, 1.2, 1.2, 1.2)))

#: Bias, standard deviation and error, each of shape (n,).
Errors = Sequence[NDArray]


class Course(NamedTuple):
    """Errors of an estimator along the true value of a parameter: their means over the other parameters."""

    truth: NDArray
    errors: Errors


class Section(NamedTuple):
    """Differences of errors between two estimators in a plane of two true parameters, where the third has one value."""

    level: float
    plane: NDArray
    differences: Errors


@styled
def plot_courses(
    path: Path | str,
    courses: Mapping[str, Mapping[str, Course]],
    axes: Mapping[str, Axis],
    counts: Mapping[str, NDArray] | None = None,
) -> Path:
    """Errors against the truth, a column for each parameter.

    Parameters
    ----------
    path : path
        ``.png`` or ``.svg``.
    courses : mapping of estimator to mapping of parameter to Course
    axes : mapping of parameter to Axis
    counts : mapping of parameter to ndarray, shape (n,), optional
        Number of truths behind every point, as a row of bars.
    """
    rows = len(STATISTICS) + (counts is not None)
    figure = page(2.3 * rows + 0.6, WIDTH)
    panels = figure.subplots(rows, len(axes), sharex="col", squeeze=False)
    for column, (name, axis) in enumerate(axes.items()):
        for row, panel in enumerate(panels[: len(STATISTICS), column]):
            drawn = [(k, one[name]) for k, one in enumerate(courses.values())]
            _draw_courses(panel, drawn, row)
            _label(panel, row, axis)
        if counts is not None:
            x = next(iter(courses.values()))[name].truth
            width = 0.9 * float(np.diff(x).min()) if len(x) > 1 else 1.0
            panels[-1, column].bar(x, counts[name], width=width, color=QUIET)
            panels[-1, column].set_ylabel("truths")
        panels[0, column].set_title(axis.label)
        panels[-1, column].set_xlabel(f"true {axis.words}")
    _legend(figure, list(courses))
    return save(figure, path)


@styled
def plot_pairs(
    path: Path | str, first: str, second: str, errors: Mapping[str, tuple[Errors, Errors]], axes: Mapping[str, Axis]
) -> Path:
    """Density of the errors of two estimators over all truths: one along x and the other along y.

    Parameters
    ----------
    path : path
        ``.png`` or ``.svg``.
    first, second : str
        Their names.
    errors : mapping of parameter to pair of Errors
    axes : mapping of parameter to Axis
    """
    figure = page(3.1 * len(STATISTICS), WIDTH)
    panels = figure.subplots(len(STATISTICS), len(axes), squeeze=False, subplot_kw={"box_aspect": 1})
    blues = matplotlib.colormaps["Blues"].with_extremes(under="white")
    for column, (name, axis) in enumerate(axes.items()):
        for row, (x, y) in enumerate(zip(*errors[name], strict=True)):
            panel, known = panels[row, column], np.isfinite(x) & np.isfinite(y)
            both = np.concatenate([x[known], y[known]])
            low, high = (float(both.min()), float(both.max())) if both.size else (0.0, 1.0)
            margin = 0.03 * (high - low) or 1.0
            limits = (low - margin, high + margin)
            edges = np.linspace(*limits, BINS + 1)
            counts = np.histogram2d(x[known], y[known], [edges, edges])[0]
            panel.pcolormesh(edges, edges, counts.T, cmap=blues, vmin=0.5, rasterized=True)
            panel.plot(limits, limits, color=INK, linewidth=0.9)
            panel.set(xlim=limits, ylim=limits)
            if row == 0:
                panel.axhline(0, color=QUIET, linewidth=0.7, linestyle=(0, (4, 2)))
                panel.axvline(0, color=QUIET, linewidth=0.7, linestyle=(0, (4, 2)))
                panel.set_title(axis.words)
            panel.set_xlabel(f"{STATISTICS[row]}, {first}", fontsize=8.5)
            panel.set_ylabel(f"{STATISTICS[row]},\n{second}", fontsize=8.5)
            for side in (panel.xaxis, panel.yaxis):
                side.set_major_locator(ticks(4))
    say_below(figure, f"Darker: more truths.  Line: both alike; below it the value of {second} is the smaller one.")
    return save(figure, path)


@styled
def plot_sections(
    path: Path | str,
    courses: Mapping[str, Course],
    sections: tuple[Section, Section],
    along: Axis,
    plane: tuple[Axis, Axis],
) -> Path:
    """Errors of one parameter by two estimators along it, between the maps of their differences at two of its values.

    Parameters
    ----------
    path : path
        ``.png`` or ``.svg``.
    courses : mapping of estimator to Course
        Two; the differences are those of the first less the second.
    sections : pair of Section
    along : Axis
        The parameter.
    plane : pair of Axis
        The other two.
    """
    figure = page(2.9 * len(STATISTICS) + 0.4, WIDTH)
    panels = figure.subplots(len(STATISTICS), 3)
    first, second = courses
    for row, (left, middle, right) in enumerate(panels):
        _draw_courses(middle, list(enumerate(courses.values())), row)
        _label(middle, row, along)
        middle.set_xlabel(f"true {along.words}")
        for section, panel in zip(sections, (left, right), strict=True):
            middle.axvline(section.level, color=QUIET, linewidth=0.8)
            values = section.differences[row]
            x, y = section.plane.T
            grid = RegularPlaces.of(x, y, [axis.label for axis in plane])
            end = float(np.nanmax(np.abs(values))) or 1.0
            picture = grid.picture(values, np.full(values.shape, True))
            options: Any = {"extent": grid.extent, "origin": "lower", "aspect": "auto", "interpolation": "nearest"}
            image = panel.imshow(picture, DIVERGING, Normalize(-end, end), **options)
            draw_scale(figure, image, values, ax=panel, pad=0.02)
            panel.set(xlabel=plane[0].words, ylabel=plane[1].words)
            panel.set_title(f"difference, {along.label} = {section.level:.3g}", fontsize=9)
    words = f"Differences: {first} less {second}, of {along.label}; blue where {first} has the smaller value."
    say_below(figure, words)
    _legend(figure, [first, second])
    return save(figure, path)


def _draw_courses(panel: Any, courses: Sequence[tuple[int, Course]], row: int) -> None:
    """Draw one of the statistics of estimators, given with their index."""
    for k, course in courses:
        panel.plot(course.truth, course.errors[row], color=estimator_colour(k), linestyle=DASHES[k % len(DASHES)])
    panel.xaxis.set_major_locator(ticks(4))
    panel.yaxis.set_major_locator(ticks(5))
    panel.margins(x=0)
    if row == 0:
        panel.axhline(0, color=QUIET, linewidth=0.8, zorder=0)
    else:
        panel.set_ylim(bottom=0)


def _label(panel: Any, row: int, axis: Axis) -> None:
    panel.set_ylabel(f"{STATISTICS[row]}" + f" ({axis.unit})" * bool(axis.unit))


def _legend(figure: Any, names: Sequence[str]) -> None:
    lines = [
        Line2D([], [], color=estimator_colour(k), linestyle=DASHES[k % len(DASHES)], linewidth=1.5)
        for k in range(len(names))
    ]
    figure.legend(lines, names, loc="outside upper left", ncols=min(len(names), 3), fontsize=9, handlelength=3)
