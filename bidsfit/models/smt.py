"""Spherical mean technique: microscopic diffusion from direction averages."""

from __future__ import annotations

import sympy as sp

from bidsfit.models.common import signal_scale
from bidsfit.models.functions import boys
from bidsfit.models.signal_model import Parameter, ShellRequirement, SignalModel

S0, vcyl, lambda_, b = sp.symbols("S0 vcyl lambda b", real=True)


def direction_average(parallel: sp.Expr, perpendicular: sp.Expr) -> sp.Expr:
    r"""Direction average of an axially symmetric compartment (Kaden et al. 2016, eq. 4).

    :math:`K = e^{-b\lambda_\perp} \sqrt\pi\,\mathrm{erf}(x) / (2x)`, :math:`x^2 = b(\lambda_\parallel-\lambda_\perp)`.
    """
    return sp.exp(-b * perpendicular) * boys(0, sp.expand(b * (parallel - perpendicular)))


SMT2 = SignalModel(
    name="smt2",
    title="Spherical mean technique, two compartments",
    description=(
        "Cylinders of zero radius (volume fraction vcyl) in an extra-cellular space whose transverse diffusivity "
        "follows tortuosity, (1 - vcyl) lambda; both share the intrinsic diffusivity lambda."
    ),
    parameters=(
        signal_scale(),
        Parameter(
            name="vcyl",
            label="vcyl",
            unit="1",
            bounds=(0.0, 1.0),
            start=(0.0, 0.15, 0.3, 0.45, 0.6, 0.75, 0.9, 1.0),
            latex=r"v_\mathrm{cyl}",
            description="Volume fraction of the cylinders (neurites)",
            display=(0.0, 1.0),
        ),
        Parameter(
            name="lambda",
            label="lambda",
            unit="um^2/ms",
            bounds=(0.0, 3.0),
            start=(0.02, 0.1, 0.4, 0.8, 1.2, 1.6, 2.0, 2.4, 2.9),
            latex=r"\lambda",
            description="Intrinsic diffusivity, at most that of free water",
            display=(0.0, 3.0),
        ),
    ),
    expression=S0
    * (vcyl * direction_average(lambda_, 0) + (1 - vcyl) * direction_average(lambda_, (1 - vcyl) * lambda_)),
    averaging=True,
    requirements=(
        ShellRequirement(1, maximum=100, reason="S0 needs an image with little or no diffusion weighting"),
        ShellRequirement(
            2, minimum=700, directions=6, reason="vcyl and lambda come from direction averages of two shells or more"
        ),
    ),
    references=("kaden2016", "gyori2022"),
)
