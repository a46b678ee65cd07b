"""Diffusion with kurtosis: how far a decay is from one exponential."""

from __future__ import annotations

import sympy as sp

from bidsfit.models.common import signal_scale
from bidsfit.models.signal_model import Parameter, ShellRequirement, SignalModel

S0, D, K, b = sp.symbols("S0 D K b", real=True)

KURTOSIS = SignalModel(
    name="kurtosis",
    title="Diffusion with kurtosis",
    description="The second-order expansion in b of the logarithm of the signal.",
    parameters=(
        signal_scale(),
        Parameter(
            name="D",
            label="D",
            unit="um^2/ms",
            bounds=(0.0, 5.0),
            start=(0.3, 0.7, 1.2, 2.0, 3.0),
            latex="D",
            description="Diffusion coefficient at b = 0",
            display=(0.0, 3.0),
        ),
        Parameter(
            name="K",
            label="K",
            unit="1",
            bounds=(0.0, 3.0),
            start=(0.0, 0.5, 1.0, 2.0),
            latex="K",
            description="Kurtosis of the displacements",
            display=(0.0, 2.0),
        ),
    ),
    expression=S0 * sp.exp(-b * D + (b * D) ** 2 * K / 6),
    maximum_b=2500.0,  # the expansion turns upwards again above it
    requirements=(
        ShellRequirement(3, maximum=2500, reason="three parameters are fitted"),
        ShellRequirement(1, minimum=1500, maximum=2500, reason="K needs high b-values"),
    ),
    references=("jensen2005",),
)
