"""The pictures of the page of repeatability and response."""

from bidsfit.reports.bland_altman import draw_bland_altman, shared_reach
from bidsfit.reports.forest import draw_forest
from bidsfit.reports.group_strips import draw_distributions

__all__ = ["draw_bland_altman", "draw_distributions", "draw_forest", "shared_reach"]
