"""Apparent diffusion coefficient: one exponential."""

from __future__ import annotations

import sympy as sp

from bidsfit.models.common import signal_scale
from bidsfit.models.parameter import Parameter
from bidsfit.models.requirements import ValuesRequirement
from bidsfit.models.symbolic import SymbolicModel

S0, D, b = sp.symbols("S0 D b", real=True)

ADC = SymbolicModel(
    name="adc",
    title="Apparent diffusion coefficient",
    description="Mono-exponential decay of the signal; the slope is the apparent diffusion coefficient.",
    parameters=(
        signal_scale(),
        Parameter(
            name="D",
            label="adc",
            unit="um^2/ms",
            bounds=(0.0, 5.0),
            start=(0.05, 0.2, 0.5, 0.8, 1.2, 1.8, 2.6, 4.0),
            latex="D",
            description="Apparent diffusion coefficient",
            display=(0.0, 3.0),
        ),
    ),
    expression=S0 * sp.exp(-b * D),
    maximum_b=1500.0,  # kurtosis bends the decay above it
    requirements=(
        ValuesRequirement("b", 2, maximum=1500, reason="S0 and D are fitted, and kurtosis matters above"),
        ValuesRequirement("b", 1, minimum=100, maximum=1500, reason="a smaller b-value hardly weights by diffusion"),
    ),
    references=("stejskal1965", "lebihan1986"),
)
