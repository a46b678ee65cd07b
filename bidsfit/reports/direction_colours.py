"""Direction-encoded colours: the main direction of every voxel as red, green and blue.

As bright as the direction is pronounced (Pajevic and Pierpaoli, Magnetic Resonance in Medicine 1999;42:526-540).
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bidsfit.acquisition import Frame
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


def draw(path: Path, view: FitView) -> bool:
    """Draw each axis of the model beside what weights it; nothing where the model has no axis."""
    panels = []
    for quantity in view.model.derived:
        if not quantity.axis:
            continue
        drawn = view.map(quantity.name)
        colours = np.abs(in_scanner(drawn.data, view.affine, view.result.numbers.frame))
        title = drawn.title
        if quantity.weight:
            weight = view.map(quantity.weight)
            panels.append(replace(weight, cmap="gray"))
            colours, title = (
                colours * np.clip(weight.data / BRIGHTEST, 0, 1)[..., None],
                f"{title}, weighted by {weight.title}",
            )
        panels.append(replace(drawn, data=colours, title=title, remark=COLOURS))
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
