"""The record of a fit for the report, with options and warnings in words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from bidsfit.acquisition import column_of
from bidsfit.bids.left_out import in_words
from bidsfit.bids.units import REPORT_UNITS
from bidsfit.estimators.comparison import Precision
from bidsfit.estimators.estimator import Estimator, Status
from bidsfit.fitting import FitNumbers
from bidsfit.reports.fit_panels import FitView
from bidsfit.reports.records import FitRecord
from bidsfit.reports.trained import recipe_in_words, too_few, training_row, training_warnings
from bidsfit.reports.trust import trust_row
from bidsfit.reports.words import percent, with_unit
from bidsfit.trust.monte_carlo import obstacle

#: Shares of the voxels above which the report warns.
MANY_AT_BOUND = 0.2
MANY_FAILED = 0.01
#: Floor, as a share of the estimate, above which it warns.
MUCH_SPREAD = 0.5

#: Choices that are b-values.
B_VALUES = ("ExcludedBValues", "MaximumBValue", "Threshold")


def fit_record(
    view: FitView,
    settings: Mapping[str, Any],
    *,
    image: str,
    source: str,
    participant: str,
    figures: Mapping[str, str],
    methods: Sequence[str],
) -> FitRecord:
    """Make the record of a fit.

    Parameters
    ----------
    view : FitView
    settings : mapping
        From `bidsfit.bids.outputs.fit_settings`.
    image, source : str
        Name and URI of the image.
    participant : str
        With ``sub-``.
    figures : mapping of kind to str
        Paths of the figures, relative to the output folder.
    methods : sequence of str
        Methods texts of the model and the estimator.
    """
    model, estimator, numbers = view.model, view.estimator, view.result.numbers
    reason = obstacle(estimator, full=numbers.trust is not None)
    precisions = {row.name: view.precision(row.name) for row in numbers.parameters}
    warnings = [
        *filter(None, [in_words(numbers.left_out)]),
        *fit_warnings(numbers, model.scale, precisions),
        *([f"What is to be expected of the errors is not simulated: {reason.removesuffix('.')}."] if reason else []),
        *(too_few(model, view.bundle.acquisition) if view.bundle else ()),
        *(training_warnings(numbers, view.bundle, participant, source) if view.bundle else ()),
    ]
    return FitRecord(
        image=image,
        model=model.name,
        model_title=model.title,
        model_description=model.description,
        equation=model.latex,
        estimator=estimator.name,
        estimator_title=estimator.title,
        n_voxels=numbers.n_voxels,
        seconds=numbers.seconds,
        parameters=[
            vars(row)
            | vars(precisions[row.name])
            | {
                "latex": model.quantity(row.name).latex,
                "unit": REPORT_UNITS[model.quantity(row.name).unit].name,
                "description": model.quantity(row.name).description,
            }
            for row in numbers.parameters
        ],
        status=[
            {
                "code": status.value,
                "name": status.name.replace("_", " ").lower(),
                "count": numbers.status[status.value],
                "fraction": numbers.share(status),
                "message": status.message,
            }
            for status in Status
            if status.value in numbers.status
        ],
        options=options_in_words(settings, estimator, numbers),
        figures=dict(figures),
        maps=view.listed(),
        warnings=warnings,
        methods=[*methods[:-1], methods[-1] + on_device(numbers)],
        training=training_row(view.bundle) if view.bundle else {},
        trust={} if numbers.trust is None else trust_row(numbers.trust, model, numbers.parameters),
        source=source,
    )


def on_device(numbers: FitNumbers) -> str:
    """That a GPU fitted the voxels, for the methods text; empty where the processor did."""
    device = numbers.notes.get("Device")
    return f" All voxels were fitted together with PyTorch [@pytorch] (device {device})." if device else ""


def options_in_words(settings: Mapping[str, Any], estimator: Estimator, numbers: FitNumbers) -> dict[str, str]:
    """All settings of a fit in words, by name."""
    words = {}
    for key, value in settings.items():
        if key == "TrainingRecipe" and isinstance(value, Mapping):  # that of a file of the user
            words[key] = recipe_in_words(value)
        elif key != "Bounds":
            words[key] = f"{_plain(value)} s/mm²" if key in B_VALUES else _plain(value)
    for parameter, (lower, upper) in zip(estimator.model.parameters, estimator.bounds.tolist(), strict=True):
        if parameter.name != estimator.model.scale:
            unit = REPORT_UNITS[parameter.unit].name
            words[f"Bounds of {parameter.name}"] = bounds_in_words(lower, upper, unit)
    for name, values in numbers.columns.items():
        column = column_of(name)
        unit = f" ({column.unit})" if column.unit else ""
        words[f"{column.plural} fitted{unit}"] = _counted(values, column.decimals)
    if numbers.sigma is not None:
        words["Noise of one measurement as the residuals suggest it"] = f"{numbers.sigma:.4g}"
    return words


def _plain(value: Any) -> str:
    """A setting as text without Python syntax."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, Mapping):
        return "; ".join(f"{name}: {_plain(content)}" for name, content in value.items())
    return ", ".join(map(_plain, value)) if isinstance(value, list | tuple) else str(value)


def _counted(values: Sequence[float], decimals: int) -> str:
    """Values in ascending order, each with its number of measurements if there are several."""
    found = Counter(round(value, decimals) for value in values)
    return ", ".join(f"{value:g} ({n} times)" if n > 1 else f"{value:g}" for value, n in sorted(found.items()))


def bounds_in_words(lower: float, upper: float, unit: str) -> str:
    """Bounds in words; either may be infinite."""
    if lower == upper:
        return f"held at {with_unit(f'{lower:g}', unit)}"
    if np.isfinite([lower, upper]).all():
        return with_unit(f"{lower:g} to {upper:g}", unit)
    if np.isfinite(lower):
        return f"from {with_unit(f'{lower:g}', unit)} on"
    return f"up to {with_unit(f'{upper:g}', unit)}" if np.isfinite(upper) else "none"


def fit_warnings(numbers: FitNumbers, scale: str | None, precisions: Mapping[str, Precision]) -> list[str]:
    """Warnings about a fit: failed voxels, missing degrees of freedom, estimates at bounds, low precision."""
    warnings, failed = [], numbers.n_voxels - numbers.n_fitted
    if failed > MANY_FAILED * numbers.n_voxels:
        warnings.append(f"{failed} of {numbers.n_voxels} voxels could not be fitted; the status map says why.")
    if numbers.freedom == 0:
        warnings.append(
            "There are as many different measurements as parameters: where no parameter lies at a bound, the curve "
            "passes through the points, and nothing can be said about the quality of the fit. Residual and R² are not "
            "drawn."
        )
    if not numbers.noise:
        warnings.append(
            "The noise level of the image could not be found, so that nothing is said of errors: floor, expected "
            "errors, intervals and flags are missing. Give it with --sigma."
        )
    if numbers.over_directions:
        warnings.append(
            "Every measurement was fitted by itself, and the model does not know directions: how the signal varies "
            "over the directions of a shell counts as residual. It lowers R², and raises the noise that the residuals "
            "suggest."
        )
    for row in numbers.parameters:
        if row.name != scale and row.fraction_at_bound > MANY_AT_BOUND:
            warnings.append(
                f"{row.name} lies at a bound in {percent(row.fraction_at_bound)} of the voxels: there, the data "
                "hardly determine it."
            )
        floor = precisions[row.name].crb
        if row.name != scale and floor > MUCH_SPREAD * abs(row.median):
            found = "is infinite" if np.isinf(floor) else "is more than half of its value"
            warnings.append(
                f"In a typical voxel the Cramér-Rao bound of {row.name} {found}: with this protocol and noise a "
                "single voxel says little, whatever unbiased estimator fits it. Average over regions, or measure more."
            )
    return warnings
