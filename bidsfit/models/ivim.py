"""Intravoxel incoherent motion: diffusion and perfusion."""

from __future__ import annotations

import sympy as sp

from bidsfit.models.common import signal_scale
from bidsfit.models.signal_model import Parameter, ShellRequirement, SignalModel

S0, f, D, Dstar, b = sp.symbols("S0 f D Dstar b", real=True)

IVIM = SignalModel(
    name="ivim",
    title="Intravoxel incoherent motion",
    description=(
        "Bi-exponential decay: tissue diffusion D, and a fraction f of the signal from flowing blood "
        "that decays with the pseudo-diffusion coefficient D*."
    ),
    parameters=(
        signal_scale(),
        Parameter(
            name="f",
            label="f",
            unit="1",
            bounds=(0.0, 1.0),
            start=(0.03, 0.1, 0.2, 0.35, 0.6),
            latex="f",
            description="Perfusion fraction",
            display=(0.0, 0.4),
        ),
        Parameter(
            name="D",
            label="D",
            unit="um^2/ms",
            bounds=(0.0, 5.0),
            start=(0.3, 0.6, 1.0, 1.5, 2.2, 3.0),
            latex="D",
            description="Diffusion coefficient of tissue",
            display=(0.0, 3.0),
        ),
        Parameter(
            name="Dstar",
            label="Dstar",
            unit="um^2/ms",
            bounds=(3.0, 200.0),
            start=(3.0, 6.0, 12.0, 25.0, 50.0, 120.0),
            latex="D^{*}",
            description="Pseudo-diffusion coefficient of flowing blood, as in exp(-b Dstar)",
            display=(0.0, 60.0),
        ),
    ),
    expression=S0 * ((1 - f) * sp.exp(-b * D) + f * sp.exp(-b * Dstar)),
    constraints=(sp.Le(D, Dstar),),
    maximum_b=1000.0,  # kurtosis bends the tissue's decay above it
    requirements=(
        ShellRequirement(5, maximum=1000, reason="four parameters are fitted"),
        ShellRequirement(3, maximum=150, reason="f and Dstar show where blood still gives signal"),
        ShellRequirement(2, minimum=200, maximum=1000, reason="D shows where blood no longer gives signal"),
    ),
    references=("lebihan1988", "kaandorp2021"),
)
