"""Spherical mean technique: microscopic diffusion from direction averages."""

from __future__ import annotations

import sympy as sp

from bidsfit.models.common import signal_scale
from bidsfit.models.functions import boys
from bidsfit.models.parameter import Parameter
from bidsfit.models.requirements import ValuesRequirement
from bidsfit.models.symbolic import SymbolicModel

S0, vcyl, vcsf, fcyl, lambda_, b = sp.symbols("S0 vcyl vcsf fcyl lambda b", real=True)

#: Diffusivity of free water at body temperature, um^2/ms.
FREE_WATER = 3


def direction_average(parallel: sp.Expr, perpendicular: sp.Expr) -> sp.Expr:
    r"""Direction average of an axially symmetric compartment (Kaden et al. 2016, eq. 4).

    :math:`K = e^{-b\lambda_\perp} \sqrt\pi\,\mathrm{erf}(x) / (2x)`, :math:`x^2 = b(\lambda_\parallel-\lambda_\perp)`.
    """
    return sp.exp(-b * perpendicular) * boys(0, sp.expand(b * (parallel - perpendicular)))


def tissue(cylinders: sp.Expr, outside: sp.Expr, crowding: sp.Expr) -> sp.Expr:
    """Signal of cylinders of zero radius and of the space outside them.

    Both compartments share the intrinsic diffusivity along the cylinders. ``crowding`` is the fraction of space that
    reduces the diffusivity across them outside (tortuosity).
    """
    return cylinders * direction_average(lambda_, 0) + outside * direction_average(lambda_, (1 - crowding) * lambda_)


free_water = sp.exp(-b * FREE_WATER)


def cylinder_fraction() -> Parameter:
    """vcyl, as a fraction of the whole voxel."""
    return Parameter(
        name="vcyl",
        label="vcyl",
        unit="1",
        bounds=(0.0, 1.0),
        start=(0.0, 0.15, 0.3, 0.45, 0.6, 0.75, 0.9, 1.0),
        latex=r"v_\mathrm{cyl}",
        description="Volume fraction of the cylinders (neurites)",
        display=(0.0, 1.0),
    )


def free_water_fraction() -> Parameter:
    """vcsf, as a fraction of the whole voxel."""
    return Parameter(
        name="vcsf",
        label="vcsf",
        unit="1",
        bounds=(0.0, 1.0),
        start=(0.0, 0.15, 0.3, 0.45, 0.6, 0.7, 0.8, 0.87, 0.94),
        latex=r"v_\mathrm{csf}",
        description="Volume fraction of free water (cerebrospinal fluid)",
        display=(0.0, 1.0),
    )


def intrinsic_diffusivity() -> Parameter:
    """lambda, the diffusivity along the cylinders."""
    return Parameter(
        name="lambda",
        label="lambda",
        unit="um^2/ms",
        bounds=(0.0, float(FREE_WATER)),
        start=(0.02, 0.1, 0.4, 0.8, 1.2, 1.6, 2.0, 2.4, 2.9),
        latex=r"\lambda",
        description="Intrinsic diffusivity, at most that of free water",
        display=(0.0, float(FREE_WATER)),
    )


UNWEIGHTED_SHELL = ValuesRequirement(
    "b", 1, maximum=100, reason="S0 needs an image with little or no diffusion weighting"
)
THREE_SHELLS = ValuesRequirement(
    "b",
    3,
    minimum=700,
    directions=6,
    reason="two fractions and lambda come from direction averages of three shells or more",
)

SMT2 = SymbolicModel(
    name="smt2",
    title="Spherical mean technique, two compartments",
    description=(
        "Cylinders of zero radius (volume fraction vcyl) in an extra-cellular space whose transverse diffusivity "
        "follows tortuosity, (1 - vcyl) lambda; both share the intrinsic diffusivity lambda."
    ),
    parameters=(signal_scale(), cylinder_fraction(), intrinsic_diffusivity()),
    expression=S0 * tissue(vcyl, 1 - vcyl, crowding=vcyl),
    averaging=True,
    requirements=(
        UNWEIGHTED_SHELL,
        ValuesRequirement(
            "b",
            2,
            minimum=700,
            directions=6,
            reason="vcyl and lambda come from direction averages of two shells or more",
        ),
    ),
    references=("kaden2016", "gyori2022"),
)

SMT3 = SymbolicModel(
    name="smt3",
    title="Spherical mean technique, three compartments",
    description=(
        "Cylinders of zero radius (volume fraction vcyl) in an extra-cellular space, and free water (vcsf), which "
        f"diffuses with {FREE_WATER} µm²/ms. The transverse diffusivity of the extra-cellular space follows "
        "tortuosity as in the model of two compartments, (1 - vcyl) lambda, whatever vcsf."
    ),
    parameters=(signal_scale(), cylinder_fraction(), free_water_fraction(), intrinsic_diffusivity()),
    expression=S0 * (tissue(vcyl, 1 - vcyl - vcsf, crowding=vcyl) + vcsf * free_water),
    constraints=(sp.Le(vcyl + vcsf, 1),),
    averaging=True,
    constants={"FreeWaterDiffusivity": FREE_WATER * 1e-3},
    requirements=(UNWEIGHTED_SHELL, THREE_SHELLS),
    references=("gyori2022", "kaden2016"),
)

# In vcyl and vcsf this equation has no derivative where all is free water: tortuosity, vext / (vcyl + vext), has no
# limit there. In the fraction of the tissue that is cylinders it is smooth everywhere, and needs no constraint.
SMT3_NORMALISED = SymbolicModel(
    name="smt3normalised",
    title="Spherical mean technique, three compartments, tortuosity of the tissue alone",
    description=(
        "Tissue as in the model of two compartments, cylinders being the fraction fcyl of it, and free water (volume "
        f"fraction vcsf), which diffuses with {FREE_WATER} µm²/ms. The volume fraction of cylinders in the voxel is "
        "(1 - vcsf) fcyl; tortuosity counts the tissue alone, (1 - fcyl) lambda."
    ),
    parameters=(
        signal_scale(),
        Parameter(
            name="fcyl",
            label="fcyl",
            unit="1",
            bounds=(0.0, 1.0),
            start=(0.0, 0.15, 0.3, 0.45, 0.6, 0.75, 0.85, 0.95, 1.0),
            latex=r"f_\mathrm{cyl}",
            description="Fraction of the tissue, free water left out, that is cylinders (neurites)",
            display=(0.0, 1.0),
        ),
        free_water_fraction(),
        intrinsic_diffusivity(),
    ),
    expression=S0 * ((1 - vcsf) * tissue(fcyl, 1 - fcyl, crowding=fcyl) + vcsf * free_water),
    averaging=True,
    constants={"FreeWaterDiffusivity": FREE_WATER * 1e-3},
    requirements=(UNWEIGHTED_SHELL, THREE_SHELLS),
    references=("gyori2022", "kaden2016"),
    variant_of="smt3",
)
