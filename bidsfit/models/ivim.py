"""Intravoxel incoherent motion: diffusion and perfusion."""

from __future__ import annotations

import sympy as sp

from bidsfit.models.common import signal_scale
from bidsfit.models.parameter import Parameter
from bidsfit.models.priors import Prior, log_normal
from bidsfit.models.requirements import ValuesRequirement
from bidsfit.models.symbolic import SymbolicModel

S0, f, D, Dstar, b = sp.symbols("S0 f D Dstar b", real=True)

#: Kurtosis bends the tissue's decay above this b-value, s/mm^2.
MAXIMUM_B = 1000.0
#: From this b-value on, blood gives hardly any signal, s/mm^2.
BLOOD_GONE = 200.0


def perfusion_fraction() -> Parameter:
    """f, the fraction of the signal at b = 0 that comes from blood."""
    return Parameter(
        name="f",
        label="f",
        unit="1",
        bounds=(0.0, 1.0),
        start=(0.03, 0.1, 0.2, 0.35, 0.6),
        latex="f",
        description="Perfusion fraction",
        display=(0.0, 0.4),
        prior=Prior("beta", arguments={"a": 1.0, "b": 3.0}),
    )


def tissue_diffusion() -> Parameter:
    """D, the diffusivity of the tissue outside the blood.

    Free water at body temperature has 3 um^2/ms.
    """
    return Parameter(
        name="D",
        label="D",
        unit="um^2/ms",
        bounds=(0.0, 3.5),
        start=(0.3, 0.6, 1.0, 1.5, 2.2, 3.0),
        latex="D",
        description="Diffusion coefficient of tissue",
        display=(0.0, 3.0),
        prior=log_normal(0.4, 3.2),
    )


def pseudo_diffusion(decay: str) -> Parameter:
    """D*; ``decay`` says which of the two conventions of the literature is meant.

    Published means of organs lie between 8 and 100 um^2/ms, and up to 270 in the liver (see `bidsfit.models.organs`).
    A bound so far above D keeps the two exponentials apart, which else meet where the signal is noisy.
    """
    return Parameter(
        name="Dstar",
        label="Dstar",
        unit="um^2/ms",
        bounds=(5.0, 200.0),
        start=(5.0, 8.0, 14.0, 28.0, 55.0, 120.0),
        latex="D^{*}",
        description=f"Pseudo-diffusion coefficient of flowing blood, as in {decay}",
        display=(0.0, 60.0),
        prior=log_normal(6.0, 150.0),
    )


TISSUE_SHELLS = ValuesRequirement(
    "b", 2, minimum=BLOOD_GONE, maximum=MAXIMUM_B, reason="D shows where blood no longer gives signal"
)
BI_EXPONENTIAL_SHELLS = (
    ValuesRequirement("b", 5, maximum=MAXIMUM_B, reason="four parameters are fitted"),
    ValuesRequirement("b", 3, maximum=150, reason="f and Dstar show where blood still gives signal"),
    TISSUE_SHELLS,
)

IVIM = SymbolicModel(
    name="ivim",
    title="Intravoxel incoherent motion",
    description=(
        "Bi-exponential decay: tissue diffusion D, and a fraction f of the signal from flowing blood "
        "that decays with the pseudo-diffusion coefficient D*."
    ),
    parameters=(signal_scale(), perfusion_fraction(), tissue_diffusion(), pseudo_diffusion("exp(-b Dstar)")),
    expression=S0 * ((1 - f) * sp.exp(-b * D) + f * sp.exp(-b * Dstar)),
    constraints=(sp.Le(D, Dstar),),
    maximum_b=MAXIMUM_B,
    requirements=BI_EXPONENTIAL_SHELLS,
    references=("lebihan1988", "kaandorp2021"),
)

# No constraint between D and Dstar: blood decays with their sum, which is never below D.
IVIM_LE_BIHAN = SymbolicModel(
    name="ivimlebihan",
    title="Intravoxel incoherent motion, in the form of Le Bihan",
    description=(
        "Bi-exponential decay: tissue diffusion D, and a fraction f of the signal from flowing blood that decays "
        "with the sum of D and the pseudo-diffusion coefficient D* (which is D* of the model ivim less D)."
    ),
    parameters=(signal_scale(), perfusion_fraction(), tissue_diffusion(), pseudo_diffusion("exp(-b (D + Dstar))")),
    expression=S0 * ((1 - f) * sp.exp(-b * D) + f * sp.exp(-b * (D + Dstar))),
    maximum_b=MAXIMUM_B,
    requirements=BI_EXPONENTIAL_SHELLS,
    references=("lebihan1988", "epstein2024"),
    variant_of="ivim",
)

#: Signal of blood: all of it at b = 0, none where the model looks again. Any limit in the gap between would do.
blood = sp.Piecewise((1, b < BLOOD_GONE / 2 * 1e-3), (0, True))

IVIM_SIMPLE = SymbolicModel(
    name="ivimsimple",
    title="Simplified intravoxel incoherent motion",
    description=(
        "For protocols with few b-values: flowing blood, a fraction f of the signal, is taken to give all of its "
        f"signal at b = 0 and none from b = {BLOOD_GONE:g} s/mm² on, where tissue decays with D."
    ),
    parameters=(signal_scale(), perfusion_fraction(), tissue_diffusion()),
    expression=S0 * ((1 - f) * sp.exp(-b * D) + f * blood),
    maximum_b=MAXIMUM_B,
    excluded_b=(1.0, BLOOD_GONE),
    requirements=(
        ValuesRequirement(
            "b", 1, maximum=1, reason="f is what the signal loses between b = 0 and tissue extrapolated to it"
        ),
        TISSUE_SHELLS,
    ),
    references=("lebihan1988",),
    variant_of="ivim",
)
