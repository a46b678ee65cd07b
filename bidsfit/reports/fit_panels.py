"""Figures of a fit, each with a name, a caption and a drawing function; the report shows them in this order.

Other packages add figures with the entry point "bidsfit.panels".
"""

from __future__ import annotations

import string
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bidsfit.bids.outputs import MapOutput
from bidsfit.bids.units import REPORT_UNITS
from bidsfit.estimators.comparison import Precision, precision
from bidsfit.estimators.estimator import Estimator, Status
from bidsfit.fitting import FitResult, FittedCurve
from bidsfit.models.parameter import Derived, Parameter
from bidsfit.models.signal_model import SignalModel
from bidsfit.quantity import Quantity
from bidsfit.registry import Registry
from bidsfit.reports import figures
from bidsfit.reports.trust import plot_expected_bias
from bidsfit.reports.words import percent, readable
from bidsfit.training.bundle import Bundle
from bidsfit.trust.flags import Flag

#: Spreads and biases are shown up to this share of the display range of their parameter, in every report.
SHARE_OF_RANGE = 0.25
#: Of a flag that is raised.
FLAG_COLOURS = "Reds"


@dataclass(frozen=True)
class FitView:
    """A fit, as given to its figures.

    Attributes
    ----------
    result : FitResult
    estimator : Estimator
    outputs : mapping of key to MapOutput
        Description of each map.
    mask : ndarray of bool, shape (x, y, z)
    affine : ndarray, shape (4, 4)
    bundle : Bundle, optional
        Training of a trained estimator.
    """

    result: FitResult
    estimator: Estimator
    outputs: Mapping[str, MapOutput]
    mask: NDArray[np.bool_]
    affine: NDArray
    bundle: Bundle | None = None

    @property
    def model(self) -> SignalModel:
        return self.estimator.model

    @property
    def names(self) -> list[str]:
        """Names of the quantities that the report is about."""
        return [quantity.name for quantity in self.model.reported]

    def map(self, key: str) -> figures.Panel:
        """One map with its title, unit and display range: spreads and biases up to a share of that of the parameter."""
        return self._panel(key, self.outputs[key])

    def _panel(self, key: str, output: MapOutput) -> figures.Panel:
        values, limits = self.result.values[key], output.figure_range
        if limits is not None and key in self.names:
            limits = figures.widened(limits, values)
        elif limits is None and output.statistic and output.parameter is not None:
            limits = self._statistic_limits(output.quantity, output.parameter)
        unit, colours = REPORT_UNITS[output.unit].name, output.quantity.colours or "viridis"
        outside = np.nan if np.issubdtype(values.dtype, np.floating) else 0
        data = self.result.volume(key, self.mask, outside)
        return figures.Panel(data.astype(float), output.title, unit, limits, colours)

    def _statistic_limits(self, quantity: Quantity, of: Parameter | Derived) -> tuple[float, float] | None:
        """Display range of a companion without one of its own."""
        displayed = of.display or figures.robust_limits(self.result.values[of.name])
        end = SHARE_OF_RANGE * float(np.ptp(displayed))
        return {"spread": (0.0, end), "signed": (-end, end)}.get(quantity.scale)

    def listed(self) -> list[dict[str, Any]]:
        """All maps, for `FitRecord.maps`: files, words, and how they are shown; of a tensor, each of its volumes."""
        rows = []
        for key, output, volume in self._volumes():
            panel, unit = self._panel(key, output), REPORT_UNITS[output.unit]
            is_axis = output.parameter is not None and output.parameter.axis and not output.statistic
            limits = panel.limits or figures.robust_limits(self.result.values[key])
            rows.append(
                {
                    "path": output.path.as_posix(),
                    "volume": volume,
                    "key": key,
                    "parameter": output.parameter.name if output.parameter else "",
                    "statistic": output.quantity.key if output.statistic else "",
                    "title": output.quantity.word or output.quantity.title,
                    "unit": unit.name,
                    "factor": unit.factor / output.file_unit.factor,
                    "limits": [float(limit) * unit.factor for limit in limits],
                    "colours": panel.cmap,
                    "frame": self.result.numbers.frame if is_axis else "",
                    "weight": getattr(output.parameter, "weight", "") if is_axis else "",
                }
            )
        return rows

    def _volumes(self) -> Iterator[tuple[str, MapOutput, int | None]]:
        """Maps by key; of a tensor its elements, and which volume of the file each is."""
        for key, output in self.outputs.items():
            if isinstance(output.parameter, Derived) and output.parameter.elements:
                for volume, name in enumerate(output.parameter.elements):
                    element = self.model[name]
                    yield name, replace(output, parameter=element, title=f"${element.latex}$"), volume
            else:
                yield key, output, None

    @property
    def voxels(self) -> list[tuple[int, ...]]:
        """Indices of the voxels whose curves are drawn."""
        inside = np.flatnonzero(self.mask.ravel(order="F"))
        places = [inside[curve.voxel] for curve in self.result.numbers.curves]
        return [tuple(int(i) for i in np.unravel_index(place, self.mask.shape, order="F")) for place in places]

    @cached_property
    def shown(self) -> list[Quantity]:
        """Quantities of the companions that are drawn: spreads first, then signed ones, then others."""
        found = {o.quantity.key: o.quantity for o in self.outputs.values() if o.statistic and o.quantity.word}
        if "expectedsd" in found and self.estimator.likelihood is not None:
            found.pop("sd", None)  # which is the floor, by the same formula
        return sorted(found.values(), key=lambda q: ("spread", "signed", "own").index(q.scale))

    def judged(self, name: str) -> dict[str, NDArray]:
        """Values of the companions of a parameter, by key."""
        found = (o.quantity.key for o in self.outputs.values() if o.statistic and o.parameter is not None)
        return {key: self.result.values[f"{name}_{key}"] for key in found if f"{name}_{key}" in self.result.values}

    def precision(self, name: str) -> Precision:
        """Precision of the estimates of a parameter."""
        found = self.judged(name)
        return precision(found.get("sd", found.get("expectedsd")), found.get("crb"), found.get("bias"))


@dataclass(frozen=True)
class FitPanel:
    """One figure of a fit.

    Parameters
    ----------
    shows : str
        Alternative text.
    caption : str
    draw : callable
        Draws a `FitView` into a file (.png or .svg); returns False, without a file, if there is nothing to draw.
    """

    shows: str
    caption: str
    draw: Callable[[Path, FitView], bool]


def _draw_maps(path: Path, view: FitView) -> bool:
    maps = [view.map(name) for name in view.names]
    if not figures.with_values(maps, view.mask):
        return False
    marks = dict(zip(string.ascii_uppercase, view.voxels, strict=False))
    figures.plot_maps(path, maps, view.mask, view.affine, marks=marks)
    return True


def _draw_uncertainty(path: Path, view: FitView) -> bool:
    spread = list(chain.from_iterable(_judged_maps(view, name) for name in view.names if name != view.model.scale))
    if not figures.with_values(spread, view.mask):
        return False
    figures.plot_maps(path, spread, view.mask, view.affine, columns=max(len(view.shown), 2))
    return True


def _judged_maps(view: FitView, name: str) -> Iterator[figures.Panel]:
    """Maps of the companions of a parameter."""
    judged = view.judged(name)
    for quantity in (q for q in view.shown if q.key in judged):
        panel = view.map(f"{name}_{quantity.key}")
        undetermined = precision(None, judged[quantity.key]).undetermined if quantity.scale == "spread" else 0.0
        remark = f"{percent(undetermined)} not determined" if undetermined > 0 else ""
        yield replace(panel, title=f"{quantity.word} of ${view.model.quantity(name).latex}$", remark=remark)


def _draw_histograms(path: Path, view: FitView) -> bool:
    bounds = dict(zip(view.model.names, map(tuple, view.estimator.bounds.tolist()), strict=True))
    maps = {name: view.map(name) for name in view.names}
    if not figures.with_values(list(maps.values()), view.mask):
        return False
    rows = [
        figures.Histogram(p.title, p.unit, view.result.values[name], p.limits, bounds.get(name, (-np.inf, np.inf)))
        for name, p in maps.items()
    ]
    figures.plot_histograms(path, rows)
    return True


def _draw_curves(path: Path, view: FitView) -> bool:
    numbers = view.result.numbers
    if not numbers.curves:
        return False
    curves = [drawn_curve(curve, view.model, numbers.noise.get("sigma")) for curve in numbers.curves]
    places = [place_in_words(index, view.affine) for index in view.voxels]
    named = zip(string.ascii_uppercase, curves, places, strict=False)
    figures.plot_curves(path, [replace(c, title=f"{letter}  {c.title}\n{where}") for letter, c, where in named])
    return True


def drawn_curve(curve: FittedCurve, model: SignalModel, sigma: float | None) -> figures.Curve:
    """A measured and fitted decay, ready to be drawn."""
    x, signal, predicted = (np.array(values) for values in (curve.x, curve.signal, curve.predicted))
    fine = (np.array(curve.fitted_x), np.array(curve.fitted)) if curve.fitted_x else (x, predicted)
    error = None if sigma is None else sigma / np.sqrt(curve.counts)
    title = curve_title(curve.title, model)
    return figures.Curve(title, x, signal, error, fine[0], fine[1], signal - predicted, curve.x_label)


def place_in_words(index: tuple[int, ...], affine: NDArray) -> str:
    """Indices of a voxel in the files, from 0, and its position."""
    mm = ", ".join(readable(round(float(x), 1)) for x in (affine @ [*index, 1])[:3])
    return f"voxel ({', '.join(map(str, index))}) at {mm} mm"


def curve_title(title: str, model: SignalModel) -> str:
    """Title of a curve; the name of a parameter in it is replaced by its symbol."""
    name, _, what = title.partition(": ")
    latex = {quantity.name: quantity.latex for quantity in model.quantities}
    return f"${latex[name]}$: {what}" if name in latex else title.capitalize()


def _draw_quality(path: Path, view: FitView) -> bool:
    if view.result.numbers.freedom == 0:
        return False
    _plot_status(path, view, [view.map("rmse"), view.map("r2")])
    return True


def _draw_status(path: Path, view: FitView) -> bool:
    if view.result.numbers.freedom > 0 or len(view.result.numbers.status) == 1:  # one colour is told in the table
        return False
    _plot_status(path, view, [])
    return True


def _plot_status(path: Path, view: FitView, residuals: list[figures.Panel]) -> None:
    messages = {status.value: status.message for status in Status}
    status = view.result.volume("status", view.mask)
    figures.plot_quality(path, residuals, status, messages, view.mask, view.affine)


def _draw_bias(path: Path, view: FitView) -> bool:
    summary = view.result.numbers.trust
    if summary is None or not summary.arrows:
        return False
    plot_expected_bias(path, summary, view.model, view.result.values)
    return True


def _draw_flags(path: Path, view: FitView) -> bool:
    if "flags" not in view.result.values:
        return False
    found, summary = view.result.volume("flags", view.mask), view.result.numbers.trust
    shares = {} if summary is None else summary.flags
    raised = [
        figures.Panel(
            np.where(view.mask, found & flag > 0, np.nan).astype(float),
            str(flag.name).replace("_", " ").capitalize(),
            "",
            (0.0, 1.0),
            FLAG_COLOURS,
            percent(shares.get(str(flag.name).lower())),
        )
        for flag in Flag
        if (found & flag).any()
    ]
    if not raised:
        return False
    figures.plot_maps(path, raised, view.mask, view.affine, columns=3)
    return True


BIAS = FitPanel(
    "Arrows from true parameters to the mean of their estimates, over the density of the voxels of the image",
    "What the estimator does to known truths, for this protocol and the median noise of this image. An arrow starts at"
    " the truth and ends at the mean estimate: long arrows are bias, and where they gather, the estimates tell "
    "the estimator rather than the tissue. Contours: the voxels of this image.",
    _draw_bias,
)
FLAGS = FitPanel(
    "Slices of the flags that are raised in some voxels",
    "Where there is reason to doubt the estimates, and in which share of the voxels; the table above says what each "
    "flag means. A voxel without a flag is not proven right: an error that the model and the simulation share cannot "
    "be seen.",
    _draw_flags,
)
MAPS = FitPanel(
    "Slices of the parameter maps",
    "Parameter maps inside the mask. A pointed end of a colour bar means that values lie beyond it; they take the"
    " colour of that end. Letters: voxels whose curves are drawn, where a slice shows them.",
    _draw_maps,
)
UNCERTAINTY = FitPanel(
    "Slices of the standard deviation and of the Cramér-Rao bound of the parameters",
    "How far the maps can be trusted, on one colour scale for each parameter. SD: standard deviation as the "
    "estimator states it. Floor: Cramér-Rao bound, the smallest standard deviation that any unbiased estimator "
    "can have with this protocol and noise, if the estimate were the truth. A map smoother than its floor is not "
    "more precise: it pays with bias. An SD that equals the floor may only be the same formula. Expected SD and bias: "
    "what simulations of the estimator find, averaged over the truths that may give such an estimate. Response: how "
    "much of a true change shows; 1 all of it, 0 nothing.",
    _draw_uncertainty,
)
HISTOGRAMS = FitPanel(
    "Histograms of the parameters over the mask",
    "Distribution over the mask. Line: median; grey, and in brackets: 5th to 95th percentile; orange: values at a"
    " bound of the fit or beyond the range shown, drawn in the last bins, where they may be cut off.",
    _draw_histograms,
)
CURVES = FitPanel(
    "Measured signals and fitted curves of some voxels against b-value",
    "Measured signal and fitted curve in a few voxels: where a parameter lies at the percentile that is named, "
    "among the half of the voxels that is fitted best; and, where curves leave residuals, one whose residual is "
    "large.",
    _draw_curves,
)
QUALITY = FitPanel(
    "Slices of the residual, of R squared and of the status of the fit",
    "Root mean square of the residuals, coefficient of determination, and what happened in each voxel. A high R² "
    "says that the curve comes near the points, not that the parameters are right.",
    _draw_quality,
)
STATUS = FitPanel("Slices of the status of the fit", "What happened in each voxel.", _draw_status)

#: The panels of the package, in the order of the report.
BUILT_IN = {"directions": "bidsfit.reports.direction_colours:PANEL"} | {
    name: f"bidsfit.reports.fit_panels:{name.upper()}"
    for name in ("maps", "uncertainty", "bias", "flags", "histograms", "curves", "quality", "status")
}

PANELS = Registry("panel", "bidsfit.panels", BUILT_IN)
