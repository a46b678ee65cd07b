"""What reports say and show of the errors that are to be expected of an estimator."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bidsfit.bids.units import REPORT_UNITS
from bidsfit.estimators.summary import ParameterSummary
from bidsfit.models.signal_model import SignalModel
from bidsfit.reports.evaluation import Axis, BiasArrows, plot_bias
from bidsfit.reports.words import percent, readable, with_unit
from bidsfit.trust.flags import Flag
from bidsfit.trust.summary import FAITHFUL, ParameterTrust, TrustSummary

#: A bias in fewer of the voxels is not told; of so many, most go one way.
FEW, MOST = 0.05, 0.8
#: A response of another parameter's truth that is told: so much of the range of one per range of the other.
BLAME = 0.25


def trust_row(summary: TrustSummary, model: SignalModel, parameters: list[ParameterSummary]) -> dict[str, Any]:
    """The entry `FitRecord.trust`."""
    medians = {row.name: row.median for row in parameters}
    return {
        "sentences": [in_words(row, model, medians[row.name]) for row in summary.parameters]
        + blame_in_words(summary, model),
        "flags": [
            {
                "name": str(flag.name).lower().replace("_", " "),
                "share": summary.flags[str(flag.name).lower()],
                "message": flag.message,
            }
            for flag in Flag
        ],
        "parameters": [
            vars(row) | _words(model, row.name) | {"median": medians[row.name]} for row in summary.parameters
        ],
        "snr": summary.snr,
        "truths": summary.performance["Truths"],
        "others": [row.name for row in summary.parameters][2:],
    }


def _words(model: SignalModel, name: str) -> dict[str, str]:
    return {"latex": model[name].latex, "unit": REPORT_UNITS[model[name].unit].name}


def in_words(row: ParameterTrust, model: SignalModel, median: float) -> str:
    """What is to be expected of one parameter, in a sentence."""
    unit = REPORT_UNITS[model[row.name].unit].name
    parts = []
    if not np.isfinite(row.response):
        return f"{row.name}: nothing can be said."
    if row.response < FAITHFUL:
        parts.append(f"differences between tissues shrink to {100 * max(row.response, 0):.0f} %")
    elif row.response > 2 - FAITHFUL:
        parts.append(f"differences between tissues grow to {100 * row.response:.0f} %")
    else:
        parts.append("differences between tissues show at full size")
    if row.biased >= FEW:
        where = ""
        if np.isfinite(row.towards):
            where = f" towards {with_unit(readable(row.towards), unit)}"
        elif row.upwards > MOST or row.upwards < 1 - MOST:
            where = " upwards" if row.upwards > MOST else " downwards"
        parts.append(f"in {percent(row.biased)} of the voxels it is drawn by more than half its own noise{where}")
    if np.isfinite(row.smallest_change):
        change = with_unit(readable(row.smallest_change), unit)
        share = f" ({100 * row.smallest_change / abs(median):.0f} % of the median)" if median else ""
        parts.append(f"changes of a single voxel below {change}{share} cannot be seen")
    else:
        parts.append("no change of a single voxel can be seen")
    return f"{row.name}: {'; '.join(parts)}."


def blame_in_words(summary: TrustSummary, model: SignalModel) -> list[str]:
    """Which parameter changes where the truth of another does."""
    sentences = []
    names = [row.name for row in summary.parameters]
    spans = {name: float(np.diff(model[name].display or model[name].bounds)[0]) for name in names}
    for i, name in enumerate(names):
        for j, other in enumerate(names):
            if i != j and summary.responses and abs(summary.responses[i][j]) * spans[other] / spans[name] > BLAME:
                words = "rises" if summary.responses[i][j] > 0 else "falls"
                sentences.append(
                    f"{name} takes the blame for {other}: where the true {other} rises, the estimate of {name} {words}."
                )
    return sentences


def plot_expected_bias(path: Path, summary: TrustSummary, model: SignalModel, values: Mapping[str, NDArray]) -> None:
    """Plot the bias of the first two parameters over the density of the voxels of the image."""
    names = [row.name for row in summary.parameters[:2]]
    arrows = np.array(summary.arrows)
    axes = [
        Axis(f"${model[n].latex}$", REPORT_UNITS[model[n].unit].name, (arrows[:, i].min(), arrows[:, i].max()))
        for i, n in enumerate(names)
    ]
    voxels = np.stack([values[name] for name in names], axis=1)
    voxels = voxels[np.isfinite(voxels).all(axis=1)]
    panel = BiasArrows("", arrows[:, :2], arrows[:, :2] + arrows[:, 2:], voxels, np.empty((0, 2)))
    plot_bias(path, [panel], (axes[0], axes[1]), {}, samples="voxels")
