"""Figures of the participant report. Each function takes arrays and text and writes one file.

No results are computed here. matplotlib's `Figure` is used without pyplot, so that workflow nodes share no state.
"""

from __future__ import annotations

from bidsfit.reports.canvas import robust_limits, spread_limits, widened
from bidsfit.reports.charts import Curve, Histogram, plot_curves, plot_histograms, plot_shells
from bidsfit.reports.comparisons import Decay, EstimatorMap, plot_comparison, plot_decays
from bidsfit.reports.mosaics import (
    Panel,
    plot_maps,
    plot_mask,
    plot_quality,
    plot_thumbnail,
    status_colour,
    with_values,
)
from bidsfit.reports.preprocessing import (
    plot_before_after,
    plot_carpet,
    plot_motion,
    plot_outliers,
    plot_registration,
    plot_snr,
)

__all__ = [
    "Curve",
    "Decay",
    "EstimatorMap",
    "Histogram",
    "Panel",
    "plot_before_after",
    "plot_carpet",
    "plot_comparison",
    "plot_curves",
    "plot_decays",
    "plot_histograms",
    "plot_maps",
    "plot_mask",
    "plot_motion",
    "plot_outliers",
    "plot_quality",
    "plot_registration",
    "plot_shells",
    "plot_snr",
    "plot_thumbnail",
    "robust_limits",
    "spread_limits",
    "status_colour",
    "widened",
    "with_values",
]
