"""Figures of an evaluation of estimators against known truths. Each function takes arrays and writes one file.

Only densities, percentiles and display ranges are computed here.
"""

from __future__ import annotations

from bidsfit.reports.boxes import Case, Group, plot_boxes
from bidsfit.reports.learning import plot_learning
from bidsfit.reports.spaces import Axis, BiasArrows, Density, plot_bias, plot_distributions
from bidsfit.reports.statistic_maps import Statistic, plot_statistic_maps

__all__ = [
    "Axis",
    "BiasArrows",
    "Case",
    "Density",
    "Group",
    "Statistic",
    "plot_bias",
    "plot_boxes",
    "plot_distributions",
    "plot_learning",
    "plot_statistic_maps",
]
