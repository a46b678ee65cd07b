"""Direction-encoded colours show directions in the body, whatever the axes of the image are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread
from nibabel.affines import from_matvec
from nibabel.eulerangles import euler2mat

from bidsfit import Acquisition, LeastSquares, models
from bidsfit.bids.outputs import maps_of
from bidsfit.fitting import fit
from bidsfit.phantom.directions import spread_directions
from bidsfit.reports.direction_colours import BRIGHTEST, draw, in_scanner, thumbnail_panel
from bidsfit.reports.figures import plot_thumbnail
from bidsfit.reports.fit_panels import FitView

DTI = models.get("dti")
SCHEME = Acquisition([0] + [1000] * 12, np.vstack([np.zeros(3), spread_directions(12)]))
#: Axes of the image as columns: of the scanner, left to right, sagittal slices, oblique slices.
AXES = {
    "RAS": np.eye(3),
    "LAS": np.diag([-1.0, 1, 1]),
    "PIR": np.array([[0.0, 0, 1], [-1, 0, 0], [0, -1, 0]]),
    "oblique": euler2mat(0.1, -0.3, 0.2) @ np.diag([-1.0, 1, 1]),
}
#: As a .bvec file writes the direction from left to right.
LEFT_TO_RIGHT = {
    "RAS": (-1, 0, 0),  # x is turned
    "LAS": (-1, 0, 0),
    "PIR": (0, 0, 1),
    "oblique": AXES["oblique"].T @ [1, 0, 0],
}


@pytest.mark.parametrize("name", AXES)
def test_directions_are_turned_into_the_scanner(name: str) -> None:
    affine = from_matvec(AXES[name] @ np.diag([2.0, 3.0, 5.0]), [7, 8, 9])
    assert in_scanner(np.array(LEFT_TO_RIGHT[name], dtype=float), affine, "bvec") == pytest.approx([1, 0, 0])
    assert in_scanner(np.array([0.0, 1, 0]), affine, "xyz") == pytest.approx([0, 1, 0])


def drawn(model: str, tensor: np.ndarray, axes: np.ndarray, path: Path) -> np.ndarray | None:
    """Picture (rows, columns, 3) of an image of one tensor in every voxel; None where there is none."""
    mask = np.ones((12, 12, 12), dtype=bool)
    estimator = LeastSquares(models.get(model))
    parameters = np.array([100, *tensor[[0, 1, 2, 0, 0, 1], [0, 1, 2, 1, 2, 2]]])
    signals = np.tile(DTI.signal(parameters, SCHEME), (mask.size, 1))
    result = fit(estimator, signals, SCHEME, 1.0)
    outputs = maps_of(estimator.model, estimator, "", "sub-01", "dwimap")
    view = FitView(result, estimator, outputs, mask, from_matvec(2 * axes))
    plot_thumbnail(path.with_name("small.png"), thumbnail_panel(view, view.names[1]), mask, view.affine)
    return imread(path)[..., :3] if draw(path, view) else None


@pytest.mark.parametrize("name", ["RAS", "PIR"])
def test_a_fibre_from_left_to_right_is_red_as_bright_as_its_anisotropy(name: str, tmp_path: Path) -> None:
    along = np.array(LEFT_TO_RIGHT[name], dtype=float)
    tensor = 0.7 * np.eye(3) + 1.0 * np.outer(along, along)
    picture = drawn("dti", tensor, AXES[name], tmp_path / "directions.png")
    assert picture is not None
    red = (picture[..., 0] > 0.2) & (picture[..., 1:].max(axis=-1) < 0.05)
    assert red.mean() > 0.1
    fa = 1.0 / np.sqrt(1.7**2 + 2 * 0.7**2)
    assert np.median(picture[red, 0]) == pytest.approx(fa / BRIGHTEST, abs=0.01)
    thumbnail = imread(tmp_path / "small.png")  # of FA
    middle = thumbnail[thumbnail.shape[0] // 2, thumbnail.shape[1] // 2]
    assert middle == pytest.approx([fa / BRIGHTEST, 0, 0], abs=0.01)
    grey = np.ptp(picture, axis=-1) < 0.01
    assert np.isclose(picture[grey], fa, atol=0.01).mean() > 0.1  # FA itself, beside it


def test_models_without_directions_have_no_such_figure(tmp_path: Path) -> None:
    assert drawn("adc", np.eye(3), np.eye(3), tmp_path / "directions.png") is None
