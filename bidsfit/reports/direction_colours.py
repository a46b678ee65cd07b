"""Direction-encoded colours: the main direction of every voxel as red, green and blue.

As bright as the direction is pronounced (Pajevic and Pierpaoli, Magnetic Resonance in Medicine 1999;42:526-540).
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bidsfit.acquisition import Frame
from bidsfit.models.derived import Derived
from bidsfit.reports import figures
from bidsfit.reports.fit_panels import FitPanel, FitView

COLOURS = "red: left-right, green: back-front, blue: up-down"
#: A direction whose weight is as high or higher is shown in full brightness.
BRIGHTEST = 0.7


def in_scanner(directions: NDArray, affine: NDArray, frame: Frame) -> NDArray[np.float64]:
    """Directions (..., 3) along the axes of the scanner (right, anterior, superior), whatever those of the image are.

    Those of the frame "bvec" are along the axes of the image, with x turned where the determinant of the affine is
    positive; those of "xyz" are along the axes of the scanner already.
    """
    if frame == "xyz":
        return np.asarray(directions, dtype=float)
    left, _, right = np.linalg.svd(affine[:3, :3])
    turn = left @ right  # the affine without voxel sizes and shears
    return np.asarray(directions * [-np.sign(np.linalg.det(turn)), 1.0, 1.0] @ turn.T, dtype=float)


def coloured(view: FitView, axis: Derived) -> figures.Panel:
    """An axis of the model in colours, as bright as its weight."""
    drawn = view.map(axis.name)
    colours = np.abs(in_scanner(drawn.data, view.affine, view.result.numbers.frame))
    if not axis.weight:
        return replace(drawn, data=colours, remark=COLOURS)
    weight = view.map(axis.weight)
    colours *= np.clip(weight.data / BRIGHTEST, 0, 1)[..., None]
    return replace(drawn, data=colours, title=f"{drawn.title}, weighted by {weight.title}", remark=COLOURS)


def thumbnail_panel(view: FitView, name: str) -> figures.Panel:
    """What the thumbnail of a quantity shows: of the weight of an axis, that axis in colours."""
    axes = (quantity for quantity in view.model.derived if quantity.axis and quantity.weight == name)
    return next((coloured(view, axis) for axis in axes), None) or view.map(name)


def draw(path: Path, view: FitView) -> bool:
    """Draw each axis of the model beside what weights it; nothing where the model has no axis."""
    panels = []
    for quantity in view.model.derived:
        if quantity.axis:
            panels += [replace(view.map(quantity.weight), cmap="gray")] if quantity.weight else []
            panels.append(coloured(view, quantity))
    if not figures.with_values(panels, view.mask):
        return False
    figures.plot_maps(path, panels, view.mask, view.affine)
    return True


PANEL = FitPanel(
    "Slices of the main direction in colours",
    f"The main direction, in the axes of the scanner; the higher its weight, the brighter (fully from {BRIGHTEST:g})."
    " Large tracts show whether the gradient directions are right: in a brain the corpus callosum is red in the middle,"
    " the cingulum above it green, and the corticospinal tracts are blue. Dark colours mean nothing: where diffusion is"
    " nearly the same along all directions, noise decides which is the main one.",
    draw,
)
