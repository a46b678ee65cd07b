"""Parameters that several models share."""

from __future__ import annotations

import numpy as np

from bidsfit.models.parameter import Parameter


def signal_scale() -> Parameter:
    """S0, the signal without diffusion weighting."""
    return Parameter(
        name="S0",
        label="S0",
        unit="arbitrary",
        bounds=(0.0, np.inf),
        latex="S_0",
        description="Signal without diffusion weighting, in the units of the image",
    )
