"""Residuals against a parameter: a figure of the report that lives in a package of its own."""

from pathlib import Path

from bidsfit.bids.units import REPORT_UNITS
from bidsfit.reports.canvas import page, save
from bidsfit.reports.fit_panels import FitPanel, FitView
from bidsfit.reports.words import with_unit


def draw(path: Path, view: FitView) -> bool:
    """Draw one point a voxel; nothing where the fit leaves no residual."""
    if view.result.numbers.freedom == 0:
        return False
    quantity = view.model.quantity(view.model.shape_names[0])
    unit = REPORT_UNITS[quantity.unit]
    figure = page(3.0, 4.5)
    axes = figure.subplots()
    axes.plot(view.result.values[quantity.name] * unit.factor, view.result.values["rmse"], ".", markersize=2)
    axes.set(xlabel=with_unit(f"${quantity.latex}$", unit.name), ylabel="Residual")
    save(figure, path)
    return True


PANEL = FitPanel(
    shows="Residual of every voxel against a parameter",
    caption="Residual of every voxel. Where it grows with the parameter, the model misses something there.",
    draw=draw,
)
